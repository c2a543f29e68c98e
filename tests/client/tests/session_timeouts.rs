//! Time limits that end a session: those on idleness do not apply to a worker, and the one on a transaction is the job's own error.

use harness::{Cluster, KEPT, Session};

/// The limits apply to the launching transaction, which is short, and to the job, which adopts them.
fn outcome(session: &mut Session, limits: &str, job: &str) -> (String, String, i32) {
    let job = session.handle(&format!(
        "BEGIN; {limits}; SELECT * FROM pg_background_launch({}); COMMIT",
        harness::quoted(job)
    ));
    session.wait(job);
    (session.state(job), session.sqlstate(job), job.pid)
}

#[test]
fn idleness_ends_no_worker() {
    let cluster = Cluster::start(&[KEPT]);
    let mut session = cluster.session();
    let limits = "SET LOCAL idle_session_timeout = 10; SET LOCAL idle_in_transaction_session_timeout = 10";
    let job = "BEGIN; SELECT pg_sleep(0.05); COMMIT; SELECT pg_sleep(0.05)";
    let first = outcome(&mut session, limits, job);
    assert_eq!(first.0, "stopped");
    session.exec("SELECT pg_sleep(0.2)");
    assert_eq!(outcome(&mut session, limits, job), first, "the same process");
}

#[test]
fn a_transaction_that_takes_too_long_is_the_jobs_error() {
    let cluster = Cluster::start(&[KEPT]);
    let mut session = cluster.session();
    if session.holds("current_setting('server_version_num')::int < 170000") {
        return;
    }
    session.exec("CREATE TABLE effects (n int)");
    let limit = "SET LOCAL transaction_timeout = 300";
    let ends = |(state, sqlstate, _): (String, String, i32)| (state, sqlstate);
    let own = ("error".to_owned(), "25P04".to_owned());
    let job = "INSERT INTO effects VALUES (1); SELECT pg_sleep(60)";
    assert_eq!(ends(outcome(&mut session, limit, job)), own);
    assert_eq!(
        ends(outcome(
            &mut session,
            "SET LOCAL work_mem = 4096",
            &format!("SET transaction_timeout = 100; {job}")
        )),
        own
    );
    assert_eq!(session.value::<i32>("SELECT count(*) FROM effects"), 0);
    let error = session.error("SELECT * FROM pg_background_run_query('SET transaction_timeout = 100; SELECT pg_sleep(60)', col_def => 'x text') AS (x text)");
    assert_eq!(error.sqlstate, "25P04", "{error:?}");
    assert_eq!(error.message, "terminating connection due to transaction timeout");
    assert!(error.context.starts_with("background worker, pid "), "{error:?}");
    assert_eq!(session.counters().failed, 3);

    // Each of several transactions has the whole time, and the worker's own work between two jobs is no transaction of the job.
    let job = "DO $$ BEGIN FOR i IN 1..6 LOOP PERFORM pg_sleep(0.1); COMMIT; END LOOP; END $$";
    assert_eq!(outcome(&mut session, limit, job).0, "stopped");
    let limit = "SET LOCAL transaction_timeout = 50";
    let (state, _, pid) = outcome(&mut session, limit, "SELECT 1");
    assert_eq!(state, "stopped");
    session.exec("SELECT pg_sleep(0.2)");
    assert_eq!(
        outcome(&mut session, limit, "SELECT 1"),
        ("stopped".into(), String::new(), pid)
    );
}
