//! A server stops when it is told to, whatever its jobs are doing.

use std::time::{Duration, Instant};

use harness::{Cluster, KEPT, Session, Shutdown};

/// Sessions with a job that computes, one that waits for a lock, one that sleeps, one whose rows are being read and one that has ended with
/// its result unread.
fn busy(cluster: &Cluster) -> Vec<Session> {
    let mut session = cluster.session();
    let mut holder = cluster.session();
    session.exec("CREATE TABLE IF NOT EXISTS locked ()");
    holder.exec("BEGIN; LOCK TABLE locked");
    let jobs = [
        "SELECT count(*) FROM (SELECT generate_series(1, 1000000000000)) s",
        "INSERT INTO locked DEFAULT VALUES",
        "SELECT pg_sleep(3600)",
        "SELECT g, repeat('x', 1000) FROM generate_series(1, 1000000000) g",
    ]
    .map(|sql| session.launch(sql));
    for job in jobs {
        session.wait_running(job);
    }
    let ended = session.launch("SELECT repeat('x', 1000) FROM generate_series(1, 10000)");
    session.wait(ended);
    vec![session, holder]
}

#[track_caller]
fn assert_prompt_stop(cluster: &Cluster, mode: Shutdown) {
    let started = Instant::now();
    cluster.stop(mode);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "a {mode:?} shutdown took {took:?}");
    let files = cluster.temporary_files();
    assert!(files.is_empty() || matches!(mode, Shutdown::Immediate), "{files:?}");
}

#[track_caller]
fn assert_works_again(cluster: &Cluster) {
    cluster.restart();
    let mut session = cluster.session();
    assert_eq!(
        session.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
    assert!(cluster.temporary_files().is_empty());
}

#[test]
fn fast() {
    let cluster = Cluster::start(&[]);
    let sessions = busy(&cluster);
    assert_prompt_stop(&cluster, Shutdown::Fast);
    drop(sessions);
    assert_works_again(&cluster);
}

#[test]
fn fast_with_a_session_waiting() {
    let cluster = Cluster::start(&[]);
    let mut watcher = cluster.session();
    // The worker may have exited, and its loss may have been published, before this session is told to end: then the session waits for
    // that.
    let waiting = cluster
        .session()
        .start("SELECT pg_background_run('SELECT pg_sleep(3600)'), pg_sleep(3600)");
    watcher
        .wait_until("EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background' AND state = 'active')");
    assert_prompt_stop(&cluster, Shutdown::Fast);
    assert!(waiting.join().1.is_err());
    assert_works_again(&cluster);
}

#[test]
fn immediate() {
    let cluster = Cluster::start(&[]);
    cluster.expect_crash();
    let sessions = busy(&cluster);
    assert_prompt_stop(&cluster, Shutdown::Immediate);
    drop(sessions);
    assert_works_again(&cluster);
}

#[test]
fn smart() {
    let cluster = Cluster::start(&[]);
    // A smart shutdown waits for clients to leave, not for background workers.
    drop(busy(&cluster));
    assert_prompt_stop(&cluster, Shutdown::Smart);
    assert_works_again(&cluster);
}

#[test]
fn while_workers_start() {
    let cluster = Cluster::start(&["post_auth_delay = 1"]);
    let launching = cluster
        .session()
        .start("SELECT pg_background_launch('SELECT pg_sleep(3600)')");
    harness::wait_for("the worker's start", || !cluster.worker_processes().is_empty());
    assert_prompt_stop(&cluster, Shutdown::Fast);
    let _ = launching.join();
    assert_works_again(&cluster);
}

#[test]
fn database_can_be_dropped_after_its_jobs() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec("CREATE DATABASE other");
    let mut other = cluster.session_in("other", "postgres");
    other.exec("CREATE EXTENSION pg_background; SELECT pg_background_run('SELECT 1')");
    let job = other.launch("SELECT pg_sleep(3600)");
    other.wait_running(job);
    drop(other);
    session.exec("DROP DATABASE other WITH (FORCE)");
    session.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background')");
}

/// Returns the lines of the server's log that report the end of a worker.
fn words_about_workers(cluster: &Cluster) -> Vec<String> {
    let log = cluster.log();
    log.lines()
        .filter(|line| line.contains("FATAL") && line.contains("background worker"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn idle_workers_leave_without_a_word_when_the_server_stops() {
    for mode in [Shutdown::Fast, Shutdown::Smart] {
        let cluster = Cluster::start(&[KEPT]);
        let mut session = cluster.session();
        session.exec("CREATE DATABASE other");
        let mut other = cluster.session_in("other", "postgres");
        other.exec("CREATE EXTENSION pg_background");
        other.exec("SELECT pg_background_run('SELECT 1')");
        let pid: i32 = session.value("SELECT pid FROM pg_background_run('SELECT 1')");
        session.wait_until(
            "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_background' AND state = 'idle') = 2",
        );
        // A signal to this worker itself is reported.
        session.exec(&format!("SELECT pg_terminate_backend({pid})"));
        session.wait_until(&format!("NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"));
        assert_eq!(words_about_workers(&cluster).len(), 1);
        session.exec("SELECT pg_background_run('SELECT 1')");
        drop((session, other));
        assert_prompt_stop(&cluster, mode);
        assert_eq!(words_about_workers(&cluster).len(), 1, "{mode:?}");
        // The termination of a worker with a job is reported.
        cluster.restart();
        let mut session = cluster.session();
        let job = session.launch("SELECT pg_sleep(3600)");
        session.wait_running(job);
        drop(session);
        assert_prompt_stop(&cluster, mode);
        assert_eq!(words_about_workers(&cluster).len(), 2, "{mode:?}");
    }
}
