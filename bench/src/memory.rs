//! Measures whether a session and its worker need more memory after many jobs.

use harness::process_status;

use crate::measure::Bench;
use crate::report::{Goal, Line, Unit, Workers};
use crate::side::Side;

pub fn measure(bench: &Bench, lines: &mut Vec<Line>) {
    let mut session = bench.warm_cluster.session();
    let sides = [Side::run("SELECT 1"), Side::launch_and_result("SELECT 1", "AS (x int)")];
    let early = 1000;
    let late = bench.pick(100_000, 3000);
    let mut jobs = 0;
    let mut memory_after = |number: u32| {
        while jobs < number {
            for side in &sides {
                side.repeat(&mut session, 250);
            }
            jobs += 500;
        }
        let worker: i32 = session.value("SELECT pid FROM pg_background_run('SELECT 1')");
        [session.pid, worker].map(|pid| harness::try_process_status(pid, "RssAnon"))
    };
    let before = memory_after(early);
    let after = memory_after(late);
    for (i, process) in ["session", "its worker"].into_iter().enumerate() {
        // A worker that serves one job has no second measurement to compare.
        let (Some(before), Some(after)) = (before[i], after[i]) else {
            println!("memory of the {process}: the process is gone");
            continue;
        };
        let line = Line {
            what: format!("memory of the {} after {late} jobs", process.trim_start_matches("its ")),
            unit: Unit::Kilobytes,
            judged: Workers::Warm,
            warm: Some(after as f64),
            fresh: None,
            against: format!("after {early} jobs"),
            theirs: before as f64,
            goal: Goal::at_most(1.05, 1.01),
        };
        line.print();
        lines.push(line);
    }
    assert!(process_status(session.pid, "RssAnon") > 0);
}
