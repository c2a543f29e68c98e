//! Idle workers: which jobs they serve, how many stay and for how long, and that they block nothing.

use std::fs;
use std::time::{Duration, Instant};

use harness::{Cluster, KEPT, Session, Shutdown, wait_for};

mod neighbours;
mod serving;
mod staying;

const IDLE: &str = "FROM pg_stat_activity WHERE backend_type = 'pg_background' AND state = 'idle'";

/// Runs a job whose worker is idle afterwards.
#[track_caller]
fn leave_idle(session: &mut Session) -> i32 {
    let pid = session.run();
    // For a moment the worker spins before it sleeps; a signal that arrives then counts as meant for the next job.
    session.wait_until(&format!(
        "EXISTS (SELECT {IDLE} AND pid = {pid} AND wait_event_type = 'Extension')"
    ));
    pid
}

#[track_caller]
fn wait_gone(observer: &mut Session, pid: i32) {
    observer.wait_until(&format!("NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"));
}

/// Runs jobs at the same time, and so in as many workers, which are all idle afterwards. `gate` must launch none of them.
#[track_caller]
fn run_together(session: &mut Session, gate: &mut Session, count: usize) -> Vec<i32> {
    gate.exec("SELECT pg_advisory_lock(42)");
    let jobs: Vec<_> = (0..count)
        .map(|_| session.launch("SELECT pg_advisory_xact_lock_shared(42)"))
        .collect();
    for job in &jobs {
        gate.wait_blocked(job.pid);
    }
    gate.exec("SELECT pg_advisory_unlock(42)");
    for job in &jobs {
        session.wait(*job);
        session.exec(&format!("SELECT pg_background_detach({job})"));
    }
    jobs.into_iter().map(|job| job.pid).collect()
}

/// A statement that an idle worker must not hold up.
#[track_caller]
fn promptly(session: &mut Session, sql: &str) {
    let started = Instant::now();
    session.exec(sql);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{sql} took {:?}",
        started.elapsed()
    );
}

/// A database with an idle worker and no session.
#[track_caller]
fn database_with_idle_worker(cluster: &Cluster, administrator: &mut Session, name: &str) -> i32 {
    administrator.exec(&format!("CREATE DATABASE {name}"));
    let mut session = cluster.session_in(name, "postgres");
    session.exec("CREATE EXTENSION pg_background");
    let pid = leave_idle(&mut session);
    drop(session);
    administrator.wait_until(&format!(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{name}' AND backend_type = 'client backend')"
    ));
    pid
}
