//! Spare workers, which are started ahead of their jobs if each job gets a fresh process: which jobs they serve, that they block nothing,
//! and that no job is lost with one.

use harness::{Cluster, Session, wait_for};
use std::collections::HashSet;

const FRESH: &str = "pg_background.worker_idle_timeout = 0";

/// Runs jobs until spare workers wait, and returns them.
#[track_caller]
fn run_until_spare(cluster: &Cluster, session: &mut Session) -> HashSet<i32> {
    let mut spare = HashSet::new();
    wait_for("a process ahead of its job", || {
        let used = HashSet::from([session.run(), session.run()]);
        // A worker that waits for an event has started and found no job.
        spare = cluster
            .worker_processes()
            .into_iter()
            .filter(|pid| !used.contains(pid) && sleeps(*pid))
            .collect();
        !spare.is_empty()
    });
    spare
}

fn sleeps(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|place| place.contains("poll"))
}

#[test]
fn each_job_has_a_process_of_its_own_and_none_stays() {
    let cluster = Cluster::start(&[FRESH]);
    let mut session = cluster.session();
    let spare = run_until_spare(&cluster, &mut session);
    assert!(spare.len() <= 2, "{spare:?}");
    // They are connected to no database.
    for pid in &spare {
        assert!(session.holds(&format!("NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})")));
    }

    let used: Vec<i32> = (0..50).map(|_| session.run()).collect();
    assert_eq!(used.iter().collect::<HashSet<_>>().len(), used.len(), "{used:?}");
    assert!(
        used.iter().any(|pid| spare.contains(pid)),
        "none of {spare:?} was used, but {used:?}"
    );
    wait_for("the end of all", || cluster.worker_processes().is_empty());
    assert_eq!(session.counters().completed, session.counters().launched);
}

#[test]
fn none_is_started_where_none_may_wait() {
    let cluster = Cluster::start(&[FRESH, "pg_background.max_idle_workers = 0"]);
    let mut session = cluster.session();
    let mut used = HashSet::new();
    let mut seen = HashSet::new();
    for _ in 0..30 {
        used.insert(session.run());
        seen.extend(cluster.worker_processes());
    }
    assert!(seen.is_subset(&used), "{seen:?} {used:?}");

    // Nor if the current job reaches the cap of the cluster.
    let cluster = Cluster::start(&[FRESH, "pg_background.max_cluster_workers = 1"]);
    let mut session = cluster.session();
    let mut running = session.launch("SELECT pg_sleep(3600)");
    let mut used = HashSet::new();
    for _ in 0..5 {
        session.wait_running(running);
        used.insert(running.pid);
        // A job is admitted as soon as another has ended, even if its process still exists.
        let seen = HashSet::from_iter(cluster.worker_processes());
        assert!(seen.is_subset(&used), "{seen:?} {used:?}");
        session.exec(&format!("SELECT pg_background_cancel({running})"));
        session.wait(running);
        wait_for("room for the next", || {
            match session.try_rows("SELECT pid, cookie FROM pg_background_launch('SELECT pg_sleep(3600)')") {
                Ok(rows) => {
                    running = harness::Handle::of(&rows[0]);
                    true
                }
                Err(error) => {
                    assert_eq!(error.sqlstate, "53400", "{error:?}");
                    false
                }
            }
        });
    }
}

#[test]
fn one_serves_whoever_comes_first() {
    let cluster = Cluster::start(&[FRESH]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE other LOGIN");
    session.exec("ALTER ROLE other SET work_mem = '77kB'");
    session.exec("CREATE DATABASE elsewhere");
    let mut administrator = cluster.session_in("elsewhere", "postgres");
    administrator.exec("CREATE EXTENSION pg_background");
    administrator.exec("SELECT pg_background_grant_privileges('other')");
    let mut other = cluster.session_in("elsewhere", "other");
    other.exec("SET TimeZone = 'Asia/Tokyo'");
    wait_for("a job in a process that was there", || {
        let spare = run_until_spare(&cluster, &mut session);
        let job = other.launch(
            "SELECT current_database() || ' ' || session_user || ' ' || current_setting('work_mem') || ' ' || current_setting('TimeZone')",
        );
        let said: String = other.value(&format!("SELECT said FROM pg_background_result({job}) AS (said text)"));
        assert_eq!(said, "elsewhere other 77kB Asia/Tokyo");
        spare.contains(&job.pid)
    });
    // None of them holds up a command that needs a database for itself.
    drop((other, administrator));
    run_until_spare(&cluster, &mut session);
    session.exec("DROP DATABASE elsewhere");
}

#[test]
fn the_slots_they_take_are_there_for_jobs() {
    // The launcher of logical replication takes one slot.
    let cluster = Cluster::start(&[FRESH, "max_worker_processes = 4"]);
    let mut session = cluster.session();
    let mut other = cluster.session();
    for round in 0..10 {
        session.run();
        session.run();
        let mut jobs: Vec<_> = (0..2).map(|_| session.launch("SELECT pg_sleep(3600)")).collect();
        let last = other.launch("SELECT pg_sleep(3600)");
        let error = session.error("SELECT pg_background_launch('SELECT 1')");
        assert_eq!(error.sqlstate, "53000", "{round}: {error:?}");
        for job in jobs.drain(..) {
            session.exec(&format!("SELECT pg_background_cancel({job})"));
            session.wait(job);
        }
        other.exec(&format!("SELECT pg_background_cancel({last})"));
        other.wait(last);
    }
}

#[test]
fn no_job_is_lost_with_one_that_is_told_to_end() {
    let cluster = Cluster::start(&[FRESH]);
    let mut session = cluster.session();
    for _ in 0..20 {
        for pid in run_until_spare(&cluster, &mut session) {
            cluster.signal(pid, "TERM");
        }
        session.run();
    }
    // A reload of the configuration makes them exit, too.
    run_until_spare(&cluster, &mut session);
    session.exec("SELECT pg_reload_conf()");
    for _ in 0..20 {
        session.run();
    }
}

#[test]
fn a_launch_that_is_interrupted_leaves_nothing() {
    let cluster = Cluster::start(&[FRESH]);
    let mut session = cluster.session();
    session.exec("SET statement_timeout = '2ms'");
    let mut interrupted = 0;
    wait_for("launches interrupted at several points", || {
        for _ in 0..50 {
            match session.try_rows("SELECT pid, cookie FROM pg_background_launch('SELECT 1'), pg_sleep(0.0005)") {
                Ok(_) => (),
                Err(error) => {
                    assert_eq!(error.sqlstate, "57014", "{error:?}");
                    interrupted += 1;
                }
            }
        }
        interrupted > 100
    });
    session.end_statement_timeout();
    session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
    session.exec("SELECT pg_background_detach_all()");
    wait_for("the end of all", || cluster.worker_processes().is_empty());
    session.run();
}

#[test]
fn none_has_an_older_configuration_than_its_session() {
    const RESET: &str = "SELECT reset FROM pg_background_run_query(
        'SELECT reset_val FROM pg_settings WHERE name = $$extra_float_digits$$', col_def => 'reset text') AS (reset text)";
    let cluster = Cluster::start(&[FRESH]);
    let mut session = cluster.session();
    let mut observer = cluster.session();
    session.exec("SET extra_float_digits = 3");
    for round in 0..5 {
        let digits = (round % 3).to_string();
        let spare = run_until_spare(&cluster, &mut session);
        // The system lets them run only after the session has read the configuration and has launched.
        for pid in &spare {
            cluster.signal(*pid, "STOP");
        }
        session.exec(&format!("ALTER SYSTEM SET extra_float_digits = {digits}"));
        session.exec("SELECT pg_reload_conf()");
        session.wait_until(&format!(
            "EXISTS (SELECT FROM pg_settings WHERE name = 'extra_float_digits' AND reset_val = '{digits}')"
        ));
        let pid = session.pid;
        let reading = session.start(RESET);
        wait_for("a job, or the wait for one", || {
            reading.is_finished()
                || observer.holds(&format!(
                    "EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND state = 'active' AND wait_event IS NOT NULL)"
                ))
        });
        for pid in &spare {
            cluster.signal(*pid, "CONT");
        }
        let answer;
        (session, answer) = reading.join();
        assert_eq!(answer.unwrap()[0][0].as_deref(), Some(digits.as_str()), "round {round}");
    }
}
