//! A session that waits for a job which waits for the session: the job is the victim.

use harness::{Cluster, Handle, Session, SqlError};

const JOB: &str = "INSERT INTO locked VALUES (1)";

fn start() -> (Cluster, Session) {
    let cluster = Cluster::start(&["deadlock_timeout = 100ms"]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE locked (n int); CREATE TABLE other (n int)");
    (cluster, session)
}

#[track_caller]
fn assert_victim(session: &mut Session, job: Handle) {
    assert_eq!(
        (session.state(job), session.sqlstate(job)),
        ("error".into(), "40P01".into())
    );
    let detail: String = session.value(&format!("SELECT detail FROM pg_background_error_info({job})"));
    assert_both_processes(&detail, job.pid, session.pid);
}

#[track_caller]
fn assert_both_processes(detail: &str, worker: i32, session: i32) {
    for pid in [worker, session] {
        assert!(
            detail.contains(&pid.to_string()),
            "{pid} is not in the detail: {detail}"
        );
    }
}

#[track_caller]
fn assert_deadlock(error: &SqlError, session: &Session) {
    assert_eq!(error.sqlstate, "40P01", "{error:?}");
    assert!(error.detail.contains(&session.pid.to_string()), "{error:?}");
}

#[test]
fn every_kind_of_wait() {
    let (_cluster, mut session) = start();

    session.exec("BEGIN; LOCK TABLE locked");
    let job = session.launch(JOB);
    session.wait(job);
    assert_victim(&mut session, job);
    // The session's own transaction continues.
    session.exec("INSERT INTO other VALUES (1); COMMIT");

    session.exec("BEGIN; LOCK TABLE locked");
    let job = session.launch(JOB);
    let error = session.error(&format!("SELECT * FROM pg_background_result({job}) AS (x text)"));
    assert_deadlock(&error, &session);
    assert_both_processes(&error.detail, job.pid, session.pid);
    session.exec("ROLLBACK");

    session.exec("BEGIN; LOCK TABLE locked");
    let job = session.launch(JOB);
    assert!(session.holds(&format!(
        "pg_background_wait_any({}) = {}",
        Handle::array(&[job]),
        job.composite()
    )));
    assert_victim(&mut session, job);
    session.exec("ROLLBACK");

    session.exec("BEGIN; LOCK TABLE locked");
    let job = session.launch(JOB);
    let sqlstate: String = session.value(&format!(
        "SELECT sqlstate FROM pg_background_drain({})",
        Handle::array(&[job])
    ));
    assert_eq!(sqlstate, "40P01");
    session.exec("ROLLBACK");

    session.exec("BEGIN; LOCK TABLE locked");
    assert_eq!(
        session.value::<String>(&format!("SELECT sqlstate FROM pg_background_run('{JOB}')")),
        "40P01"
    );
    session.exec("COMMIT");

    session.exec("BEGIN; LOCK TABLE locked");
    let error = session.error(&format!(
        "SELECT * FROM pg_background_run_query('{JOB}', col_def => 'x text') AS (x text)"
    ));
    assert_deadlock(&error, &session);
    session.exec("ROLLBACK");

    session.exec("BEGIN; LOCK TABLE locked");
    let error = session.error(&format!("CALL pg_background_do('{JOB}')"));
    assert_deadlock(&error, &session);
    session.exec("ROLLBACK");

    assert_eq!(session.counters().failed, 7);
    assert_eq!(session.value::<i32>("SELECT count(*) FROM locked"), 0);
}

#[test]
fn wait_with_a_time_limit() {
    let (_cluster, mut session) = start();
    session.exec("BEGIN; LOCK TABLE locked");
    let job = session.launch(JOB);
    assert!(session.holds(&format!("pg_background_wait({job}, 60000)")));
    assert_victim(&mut session, job);
    session.exec("ROLLBACK");
}

#[test]
fn one_of_several_jobs() {
    let (_cluster, mut session) = start();
    session.exec("BEGIN; LOCK TABLE locked");
    let free = session.launch("SELECT pg_sleep(1)");
    let blocked = session.launch(JOB);
    let states = session.rows(&format!(
        "SELECT state FROM pg_background_drain({})",
        Handle::array(&[free, blocked])
    ));
    assert_eq!(states, [[Some("stopped".to_owned())], [Some("error".to_owned())]]);
    session.exec("ROLLBACK");
}

#[test]
fn through_a_third_session() {
    let (cluster, mut session) = start();
    let mut third = cluster.session();
    let mut watcher = cluster.session();
    third.exec("BEGIN; LOCK TABLE other");
    session.exec("BEGIN; LOCK TABLE locked");
    let blocked = third.start("LOCK TABLE locked");
    watcher.wait_blocked(blocked.pid);
    // The job waits for the third session, which waits for the session that waits for the job.
    let job = session.launch("INSERT INTO other VALUES (1)");
    session.wait(job);
    assert_victim(&mut session, job);
    session.exec("COMMIT");
    assert!(blocked.join().1.is_ok(), "the third session is no victim");
}

#[test]
fn through_another_job() {
    let (_cluster, mut session) = start();
    session.exec("BEGIN; LOCK TABLE locked");
    let first = session.launch("LOCK TABLE other; INSERT INTO locked VALUES (1)");
    session.wait_blocked(first.pid);
    let second = session.launch("INSERT INTO other VALUES (1)");
    session.wait(second);
    // Whichever of the two was the victim, the wait has ended, and the other job is not affected.
    let states: (String, String) = {
        session.exec("COMMIT");
        session.wait(first);
        (session.sqlstate(first), session.sqlstate(second))
    };
    assert!(
        states == ("40P01".into(), String::new()) || states == (String::new(), "40P01".into()),
        "{states:?}"
    );
}

#[test]
fn blocked_by_somebody_else_is_none() {
    let (cluster, mut session) = start();
    let mut somebody = cluster.session();
    somebody.exec("BEGIN; LOCK TABLE other");
    session.exec("BEGIN; LOCK TABLE locked");
    let job = session.launch("INSERT INTO other VALUES (1)");
    somebody.wait_blocked(job.pid);
    assert!(
        !session.holds(&format!("pg_background_wait({job}, 1000)")),
        "ten times deadlock_timeout"
    );
    assert_eq!(session.state(job), "running");
    somebody.exec("COMMIT");
    session.wait(job);
    assert_eq!(session.state(job), "stopped");
    session.exec("COMMIT");
}

#[test]
fn advisory_and_row_locks() {
    let (_cluster, mut session) = start();
    session.exec("INSERT INTO locked VALUES (1); SELECT pg_advisory_lock(5)");
    assert_eq!(
        session.value::<String>("SELECT sqlstate FROM pg_background_run('SELECT pg_advisory_lock(5)')"),
        "40P01"
    );
    session.exec("BEGIN; UPDATE locked SET n = 2");
    assert_eq!(
        session.value::<String>("SELECT sqlstate FROM pg_background_run('UPDATE locked SET n = 3')"),
        "40P01"
    );
    session.exec("COMMIT");
    assert_eq!(session.value::<i32>("SELECT n FROM locked"), 2);
}

#[test]
fn snapshot_of_the_waiting_statement() {
    let (_cluster, mut session) = start();
    let create = "CREATE INDEX CONCURRENTLY locked_n ON locked (n)";
    session.exec("INSERT INTO locked SELECT generate_series(1, 1000)");

    assert_eq!(
        session.value::<String>(&format!("SELECT sqlstate FROM pg_background_run('{create}')")),
        "40P01"
    );
    session.exec("DROP INDEX IF EXISTS locked_n");
    let error = session.error(&format!(
        "SELECT * FROM pg_background_run_query('{create}', col_def => 'x text') AS (x text)"
    ));
    assert_deadlock(&error, &session);
    assert!(!error.hint.is_empty(), "{error:?}");
    session.exec("DROP INDEX IF EXISTS locked_n");

    // A procedure holds no snapshot while it waits, nor does a session between a launch and a later call.
    session.exec(&format!("CALL pg_background_do('{create}')"));
    assert!(session.holds("indisvalid FROM pg_index WHERE indexrelid = 'locked_n'::regclass"));
    session.exec("DROP INDEX locked_n");
    let job = session.launch(create);
    session.wait_until(&format!("(SELECT completed FROM pg_background_result_info({job}))"));
    assert_eq!(session.state(job), "stopped");
    session.exec("CALL pg_background_do('REINDEX INDEX CONCURRENTLY locked_n')");
    session.exec("CALL pg_background_do('VACUUM locked')");
}
