//! Counts by database and role.

use harness::{Cluster, Session};

const COUNTS: &str = "SELECT jobs_launched, jobs_completed, jobs_failed, jobs_canceled, jobs_timed_out, jobs_refused FROM pg_background_cluster_stats";

fn counts(session: &mut Session, role: &str) -> Vec<i64> {
    let rows = session.rows(&format!(
        "{COUNTS} WHERE (datname, usename) = (current_database(), '{role}')"
    ));
    let row = rows.first().unwrap_or_else(|| panic!("no counts of {role}"));
    row.iter()
        .map(|field| field.as_deref().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn every_job_is_counted_once() {
    let cluster = Cluster::start(&[]);
    let mut observer = cluster.session();
    observer.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice");
    observer.exec("CREATE DATABASE second");
    let mut alice = cluster.session_as("alice");
    alice.exec("SELECT pg_background_run('SELECT 1'); SELECT pg_background_run('SELECT 1/0')");
    alice.exec("SELECT pg_background_run('SELECT pg_sleep(3600)', 0, 50)");
    let job = alice.launch("SELECT pg_sleep(3600)");
    alice.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    alice.exec("SET pg_background.max_workers = 1");
    let job = alice.launch("SELECT pg_sleep(3600)");
    alice.wait_running(job);
    assert_eq!(alice.error("SELECT pg_background_launch('SELECT 1')").sqlstate, "53400");
    assert_eq!(counts(&mut observer, "alice"), [5, 1, 1, 1, 1, 1]);
    // It counts even if it was detached and its session has ended.
    alice.exec(&format!("SELECT pg_background_detach({job})"));
    drop(alice);
    observer.exec(&format!("SELECT pg_cancel_backend({})", job.pid));
    observer.wait_until("jobs_canceled = 2 FROM pg_background_cluster_stats WHERE usename = 'alice'");
    assert_eq!(counts(&mut observer, "alice"), [5, 1, 1, 2, 1, 1]);

    // The counts are by the job's database and role.
    let mut second = cluster.session_in("second", "postgres");
    second.exec("CREATE EXTENSION pg_background; SELECT pg_background_run('SELECT 1')");
    observer.exec("SET ROLE alice; SELECT pg_background_run('SELECT 1'); RESET ROLE");
    assert_eq!(counts(&mut second, "postgres"), [1, 1, 0, 0, 0, 0]);
    assert_eq!(counts(&mut observer, "alice")[..2], [6, 2]);
    assert!(observer.holds("count(*) = 2 FROM pg_background_cluster_stats"));
}

#[test]
fn starts_and_times() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec("SELECT pg_background_run('SELECT pg_sleep(0.2)') FROM generate_series(1, 3)");
    assert!(session.holds(
        "cold_starts + warm_starts = 3 AND cold_starts >= 1 AND total_run_ms >= 600 AND max_run_ms >= 200 AND max_run_ms < total_run_ms
         AND total_start_ms > 0 AND max_start_ms > 0 AND max_start_ms <= total_start_ms AND max_start_ms < 60000
         AND stats_reset < now() FROM pg_background_cluster_stats"
    ));
    session.exec("SET pg_background.worker_idle_timeout = 0; SELECT pg_background_run('SELECT 1')");
    session.exec("SELECT pg_background_run('SELECT 1')");
    assert!(session.holds("cold_starts >= 2 FROM pg_background_cluster_stats"));
}

#[test]
fn rows_and_bytes() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let counted = "SELECT rows_returned, bytes_returned, bytes_spilled FROM pg_background_cluster_stats";
    let numbers = |session: &mut Session| -> Vec<i64> {
        session.rows(counted)[0]
            .iter()
            .map(|field| field.as_deref().unwrap().parse().unwrap())
            .collect()
    };
    session.exec("SELECT pg_background_run('SELECT repeat(''x'', 100) FROM generate_series(1, 1000)')");
    assert_eq!(numbers(&mut session), [0, 0, 0]);
    let job = session.launch("SELECT repeat('x', 100) FROM generate_series(1, 10000)");
    session.wait(job);
    let unread = numbers(&mut session);
    assert_eq!(unread[..2], [0, 0]);
    assert!((900_000..2_000_000).contains(&unread[2]), "{unread:?}");
    session.exec(&format!("SELECT * FROM pg_background_result({job}) AS (t text)"));
    let read = numbers(&mut session);
    assert_eq!((read[0], read[2]), (10_000, unread[2]));
    assert!((1_000_000..2_000_000).contains(&read[1]), "{read:?}");
}

#[test]
fn no_slot_is_a_refusal() {
    let cluster = Cluster::start(&["max_worker_processes = 2", "pg_background.worker_idle_timeout = 0"]);
    let mut session = cluster.session();
    let mut launched = 0;
    while session
        .try_rows("SELECT pg_background_launch('SELECT pg_sleep(3600)')")
        .is_ok()
    {
        launched += 1;
        assert!(launched <= 2);
    }
    assert_eq!(counts(&mut session, "postgres"), [launched, 0, 0, 0, 0, 1]);
}

#[test]
fn reset_is_for_whom_it_was_granted_to() {
    let cluster = Cluster::start(&[]);
    let mut superuser = cluster.session();
    superuser.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice");
    let mut alice = cluster.session_as("alice");
    alice.exec("SELECT pg_background_run('SELECT 1')");
    let since = alice.text("SELECT stats_reset FROM pg_background_cluster_stats");
    assert_eq!(
        alice.error("SELECT pg_background_reset_cluster_stats()").sqlstate,
        "42501"
    );
    superuser.exec("SELECT pg_background_grant_privileges('alice')");
    assert_eq!(
        alice.error("SELECT pg_background_reset_cluster_stats()").sqlstate,
        "42501"
    );
    superuser.exec("SELECT pg_background_reset_cluster_stats()");
    assert_eq!(
        superuser.value::<i32>("SELECT count(*) FROM pg_background_cluster_stats"),
        0
    );
    alice.exec("SELECT pg_background_run('SELECT 1')");
    assert_eq!(counts(&mut alice, "alice"), [1, 1, 0, 0, 0, 0]);
    assert_ne!(alice.text("SELECT stats_reset FROM pg_background_cluster_stats"), since);
    superuser.exec("GRANT EXECUTE ON FUNCTION pg_background_reset_cluster_stats() TO alice");
    alice.exec("SELECT pg_background_reset_cluster_stats()");
    assert_eq!(
        alice.value::<i32>("SELECT count(*) FROM pg_background_cluster_stats"),
        0
    );
}
