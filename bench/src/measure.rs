//! Starts the clusters, and times the sides in turns.

use std::time::Duration;

use harness::{Cluster, Session, quoted};

use crate::comparisons::COMPUTED;
use crate::cores;
use crate::side::Side;

/// The number of sessions of the throughput measurement, each with a worker of its own.
pub const SESSIONS: usize = 16;

/// Slots for the workers of all measurements. The idle timeout is so long that one worker serves the whole of a measurement. Everything else is
/// PostgreSQL's default.
const WARM: [&str; 3] = [
    "max_worker_processes = 64",
    "pg_background.max_idle_workers = 32",
    "pg_background.worker_idle_timeout = '1min'",
];
/// The slot of an ended process is free only when the postmaster has noticed the end, which takes time under load.
const FRESH: [&str; 2] = ["max_worker_processes = 1000", "pg_background.worker_idle_timeout = 0"];

pub struct Bench {
    pub quick: bool,
    pub warm_cluster: Cluster,
    pub fresh_cluster: Cluster,
    warm: Session,
    fresh: Session,
}

impl Bench {
    pub fn start(quick: bool) -> Self {
        let warm_cluster = Cluster::start_with_defaults(&WARM);
        let fresh_cluster = Cluster::start_with_defaults(&FRESH);
        for cluster in [&warm_cluster, &fresh_cluster] {
            prepare(cluster);
        }
        Self {
            quick,
            warm: connect(&warm_cluster),
            fresh: connect(&fresh_cluster),
            warm_cluster,
            fresh_cluster,
        }
    }

    pub fn warm(&mut self) -> &mut Session {
        &mut self.warm
    }

    /// Returns the first number, or the second in a quick run.
    pub fn pick(&self, full: u32, quick: u32) -> u32 {
        if self.quick { quick } else { full }
    }

    /// Times both sides in turns, ours with warm and with fresh workers.
    pub fn duel(&mut self, ours: &Side, theirs: &Side, effort: Effort) -> Samples {
        self.duel_with(ours, theirs, effort, |_, _, _| ())
    }

    /// The same for sides that commit. The process that commits, the worker or the session, is on the same core on both sides, and on another
    /// one in each turn; the session that waits for the worker is on the next core. A machine with one core needs no binding.
    pub fn duel_of_commits(&mut self, ours: &Side, theirs: &Side, effort: Effort) -> Samples {
        let cores = cores::all();
        let samples = self.duel_with(ours, theirs, effort, |session, round, commits_itself| {
            let round = round as usize;
            if commits_itself {
                cores::place(session.pid, cores::one(&cores, round));
            } else {
                cores::place_pair(session, &cores, round);
            }
        });
        let worker: i32 = self.warm.value("SELECT pid FROM pg_background_run('SELECT 1')");
        for pid in [worker, self.warm.pid] {
            cores::place(pid, &cores);
        }
        samples
    }

    /// Calls `before` ahead of each turn with warm workers, with the session, the number of the turn, and whether it is the other side's turn.
    fn duel_with(
        &mut self,
        ours: &Side,
        theirs: &Side,
        effort: Effort,
        mut before: impl FnMut(&mut Session, u32, bool),
    ) -> Samples {
        let rounds = if self.quick {
            effort.rounds.min(effort.batch).min(3)
        } else {
            effort.rounds
        };
        let batch = if self.quick { effort.batch.min(5) } else { effort.batch };
        let fresh_batch = batch.min(20);
        let mut samples = Samples::default();
        if !self.quick {
            ours.time(&mut self.warm, batch);
            theirs.time(&mut self.warm, batch);
            ours.time(&mut self.fresh, 1);
        }
        for round in 0..rounds {
            before(&mut self.warm, round, false);
            samples.warm.extend(ours.time(&mut self.warm, batch));
            before(&mut self.warm, round, true);
            samples.theirs.extend(theirs.time(&mut self.warm, batch));
            samples.fresh.extend(ours.time(&mut self.fresh, fresh_batch));
            // The last job's process and the spare workers still have to exit: not at the cost of the next turn.
            std::thread::sleep(SETTLES);
        }
        samples
    }
}

/// More than a process of PostgreSQL takes to start or to end.
const SETTLES: Duration = Duration::from_millis(50);

/// How many times a side is timed: `rounds` turns of `batch` executions.
#[derive(Clone, Copy)]
pub struct Effort {
    pub rounds: u32,
    pub batch: u32,
}

/// Milliseconds of single executions.
#[derive(Default)]
pub struct Samples {
    pub warm: Vec<f64>,
    pub fresh: Vec<f64>,
    pub theirs: Vec<f64>,
}

fn prepare(cluster: &Cluster) {
    let mut session = cluster.session();
    session.exec(&format!(
        "CREATE EXTENSION pg_background;
         CREATE EXTENSION dblink;
         CREATE TABLE written (n int);
         CREATE TABLE stored (a, b, c) AS {COMPUTED};
         CREATE FUNCTION here() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT {} $$",
        quoted(&format!(
            "host={} dbname=postgres user=postgres",
            cluster.socket_dir().display()
        ))
    ));
    session.exec("VACUUM (ANALYZE, FREEZE) stored");
}

/// A session with an open dblink connection.
pub fn connect(cluster: &Cluster) -> Session {
    let mut session = cluster.session();
    session.exec("SELECT dblink_connect('kept', here())");
    session
}

pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The quantile: the value that the fraction `part` of all values does not exceed.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (part * sorted.len() as f64).ceil() as usize;
    sorted[place.clamp(1, sorted.len()) - 1]
}
