//! Measures jobs per second with many sessions at once.

use std::sync::{Arc, Barrier};
use std::thread;

use harness::{Cluster, Session};

use crate::measure::{Bench, SESSIONS, connect, median};
use crate::report::{Goal, Line, Unit, Workers};
use crate::side::Side;

pub fn measure(bench: &Bench, lines: &mut Vec<Line>) {
    let (run, kept) = (Side::run("SELECT 1"), Side::kept("SELECT 1", "AS (x int)"));
    let seconds = if bench.quick { 0.3 } else { 1.0 };
    let mut warm = sessions(&bench.warm_cluster);
    let mut fresh = sessions(&bench.fresh_cluster);
    let (mut with_warm, mut with_fresh, mut with_kept) = (Vec::new(), Vec::new(), Vec::new());
    // The first round creates procedures, workers and caches, and does not count.
    for round in 0..=bench.pick(11, 1) {
        let rates = [
            together(&mut warm, &run, seconds),
            together(&mut warm, &kept, seconds),
            together(&mut fresh, &run, seconds),
        ];
        if round > 0 {
            with_warm.push(rates[0]);
            with_kept.push(rates[1]);
            with_fresh.push(rates[2]);
        }
    }
    let line = Line {
        what: format!("{SESSIONS} sessions, run of SELECT 1"),
        unit: Unit::PerSecond,
        judged: Workers::Warm,
        warm: Some(median(&with_warm)),
        fresh: Some(median(&with_fresh)),
        against: format!("{SESSIONS} sessions, {}", kept.name),
        theirs: median(&with_kept),
        goal: Goal::at_least(1.3, 2.0),
    };
    line.print();
    lines.push(line);
}

fn sessions(cluster: &Cluster) -> Vec<Session> {
    (0..SESSIONS).map(|_| connect(cluster)).collect()
}

/// Returns executions per second of all sessions together.
fn together(sessions: &mut Vec<Session>, side: &Side, seconds: f64) -> f64 {
    // One after the other: at the same time they would all create the same procedure.
    side.repeat(&mut sessions[0], 1);
    let barrier = Arc::new(Barrier::new(sessions.len()));
    let threads: Vec<_> = sessions
        .drain(..)
        .map(|mut session| {
            let (side, barrier) = (side.clone(), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                let rate = side.rate(&mut session, seconds);
                (session, rate)
            })
        })
        .collect();
    let mut sum = 0.0;
    for thread in threads {
        let (session, rate) = thread.join().expect("a session's thread does not panic");
        sessions.push(session);
        sum += rate;
    }
    sum
}
