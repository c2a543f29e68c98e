//! Measures whether a job costs more in a session that holds many handles.

use harness::{Cluster, Session};

use crate::cores;
use crate::measure::{Bench, median};
use crate::report::{Goal, Line, Unit, Workers};
use crate::side::Side;

const HELD: [u32; 4] = [1, 10, 100, 500];

pub fn measure(bench: &Bench, lines: &mut Vec<Line>) {
    let run = Side::run("SELECT 1");
    let mut warm = HELD.map(|held| holding(&bench.warm_cluster, held));
    let mut fresh = HELD.map(|held| holding(&bench.fresh_cluster, held));
    let cores = cores::all();
    for session in &mut warm {
        cores::place_pair(session, &cores, 0);
    }
    let (rounds, batch) = (bench.pick(20, 2), bench.pick(100, 5));
    let time = |sessions: &mut [Session; 4], batch: u32| {
        let mut samples: [Vec<f64>; 4] = Default::default();
        for session in &mut *sessions {
            run.time(session, batch);
        }
        for _ in 0..rounds {
            for (session, samples) in sessions.iter_mut().zip(&mut samples) {
                samples.extend(run.time(session, batch));
            }
        }
        samples.map(|samples| median(&samples))
    };
    let warm = time(&mut warm, batch);
    let fresh = time(&mut fresh, batch.min(10));
    for (i, held) in HELD.into_iter().enumerate().skip(1) {
        let line = Line {
            what: format!("run of SELECT 1, {held} handles held"),
            unit: Unit::Milliseconds,
            judged: Workers::Warm,
            warm: Some(warm[i]),
            fresh: Some(fresh[i]),
            against: "1 handle held".to_owned(),
            theirs: warm[0],
            goal: Goal::at_most(1.15, 1.05),
        };
        line.print();
        lines.push(line);
    }
}

/// A session with that many ended jobs whose results are unread.
fn holding(cluster: &Cluster, held: u32) -> Session {
    let mut session = cluster.session();
    session.exec(&format!(
        "DO $$
         DECLARE
             h pg_background_handle;
         BEGIN
             FOR i IN 1..{held} LOOP
                 h := pg_background_launch('SELECT ' || i);
                 PERFORM pg_background_wait(h.pid, h.cookie);
             END LOOP;
         END $$"
    ));
    session
}
