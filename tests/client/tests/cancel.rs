//! A cancel ends the right job, whatever that job is doing, and no other.

use std::time::{Duration, Instant};

use harness::{Cluster, Handle, Session};

const SLEEP: &str = "INSERT INTO effects VALUES (1); SELECT pg_sleep(3600); INSERT INTO effects VALUES (2)";

fn cluster_with_effects(settings: &[&str]) -> (Cluster, Session) {
    let cluster = Cluster::start(settings);
    let mut session = cluster.session();
    session.exec("CREATE TABLE effects (n int)");
    (cluster, session)
}

#[track_caller]
fn assert_canceled(session: &mut Session, job: Handle) {
    session.wait(job);
    assert_eq!(session.state(job), "canceled");
    assert_eq!(session.sqlstate(job), "57014");
    assert_eq!(
        session.value::<i32>("SELECT count(*) FROM effects"),
        0,
        "nothing of the job commits"
    );
}

#[test]
fn running_job() {
    let (_cluster, mut session) = cluster_with_effects(&[]);
    let job = session.launch(SLEEP);
    session.wait_running(job);
    session.exec(&format!("SELECT pg_background_cancel({job})"));
    assert_canceled(&mut session, job);
    assert_eq!(
        session
            .error(&format!("SELECT * FROM pg_background_result({job}) AS (x text)"))
            .sqlstate,
        "57014"
    );
    let counters = session.counters();
    assert_eq!((counters.canceled, counters.failed, counters.active), (1, 0, 0));
}

#[test]
fn before_the_worker_has_connected() {
    let (_cluster, mut session) = cluster_with_effects(&["post_auth_delay = 1"]);
    for _ in 0..3 {
        let job = session.handle(
            "SELECT pid, cookie FROM (SELECT h.*, pg_background_cancel(h.pid, h.cookie) FROM
             pg_background_launch('INSERT INTO effects VALUES (1); SELECT pg_sleep(3600)') h OFFSET 0) s",
        );
        assert_canceled(&mut session, job);
    }
    assert_eq!(session.counters().canceled, 3);
}

#[test]
fn at_any_moment_of_a_short_job() {
    let (_cluster, mut session) = cluster_with_effects(&[]);
    for round in 0..150 {
        let job = session.launch(&format!("INSERT INTO effects VALUES ({round})"));
        session.exec(&format!(
            "SELECT pg_sleep({}), pg_background_cancel({job})",
            f64::from(round % 15) * 0.0005
        ));
        session.wait(job);
        let state = session.state(job);
        let effects: i32 = session.value(&format!("SELECT count(*) FROM effects WHERE n = {round}"));
        match state.as_str() {
            "stopped" => assert_eq!(effects, 1, "round {round}"),
            "canceled" => assert_eq!(effects, 0, "round {round}"),
            other => panic!("round {round}: the job is {other}"),
        }
        session.exec(&format!("SELECT pg_background_detach({job})"));
        // A cancel that comes late must not hit the session's next job.
        let next = session.launch("SELECT 1");
        session.wait(next);
        assert_eq!(session.state(next), "stopped", "round {round}");
        session.exec(&format!("SELECT pg_background_detach({next})"));
    }
    let counters = session.counters();
    assert_eq!((counters.launched, counters.failed, counters.active), (300, 0, 0));
}

#[test]
fn grace_waits_for_the_end() {
    let (_cluster, mut session) = cluster_with_effects(&[]);
    let job = session.launch(SLEEP);
    session.wait_running(job);
    let started = Instant::now();
    session.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "the grace is a limit, not a pause"
    );
    assert_eq!(session.state(job), "canceled", "the job has ended when cancel returns");
    assert_canceled(&mut session, job);
}

#[test]
fn grace_is_a_limit() {
    let (cluster, mut session) = cluster_with_effects(&[]);
    // A job that ignores cancels while the gate is closed: it catches the interrupts again and again.
    let mut gate = cluster.session();
    gate.exec("SELECT pg_advisory_lock(1)");
    let job = session.launch(
        "DO $$ BEGIN LOOP
             BEGIN PERFORM pg_advisory_lock(1); EXIT; EXCEPTION WHEN query_canceled THEN NULL; END;
         END LOOP; END $$; INSERT INTO effects VALUES (1)",
    );
    gate.wait_blocked(job.pid);
    let started = Instant::now();
    session.exec(&format!("SELECT pg_background_cancel({job}, 300)"));
    assert!(started.elapsed() < Duration::from_secs(20));
    gate.exec("SELECT pg_advisory_unlock(1)");
    // The block has swallowed the error, yet a cancelled job commits nothing.
    assert_canceled(&mut session, job);
}

#[test]
fn after_the_end_it_does_nothing() {
    let (_cluster, mut session) = cluster_with_effects(&[]);
    let job = session.launch("SELECT 42");
    session.wait(job);
    session.exec(&format!(
        "SELECT pg_background_cancel({job}), pg_background_cancel({job}, 1000)"
    ));
    assert_eq!(session.state(job), "stopped");
    assert_eq!(
        session.value::<i32>(&format!("SELECT x FROM pg_background_result({job}) AS (x int)")),
        42
    );
    assert_eq!(session.counters().completed, 1);
}

#[test]
fn twice() {
    let (_cluster, mut session) = cluster_with_effects(&[]);
    let job = session.launch(SLEEP);
    session.wait_running(job);
    session.exec(&format!(
        "SELECT pg_background_cancel({job}), pg_background_cancel({job})"
    ));
    session.exec(&format!("SELECT pg_background_cancel({job}, 1000)"));
    assert_canceled(&mut session, job);
    assert_eq!(session.counters().canceled, 1);
}

#[test]
fn from_inside_the_job() {
    let (_cluster, mut session) = cluster_with_effects(&[]);
    let job =
        session.launch("INSERT INTO effects VALUES (1); SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(3600)");
    assert_canceled(&mut session, job);

    // A job cancels the jobs that it has launched itself.
    let job = session.launch(
        "SELECT (pg_background_outcome(pid, cookie)).state FROM (SELECT h.*, pg_background_cancel(h.pid, h.cookie, 60000)
         FROM pg_background_launch('SELECT pg_sleep(3600)') h OFFSET 0) s",
    );
    assert_eq!(
        session.value::<String>(&format!("SELECT x FROM pg_background_result({job}) AS (x text)")),
        "canceled"
    );
}

#[test]
fn by_an_administrator() {
    let (cluster, mut session) = cluster_with_effects(&[]);
    let mut administrator = cluster.session();

    let job = session.launch(SLEEP);
    session.wait_running(job);
    administrator.exec(&format!("SELECT pg_cancel_backend({})", job.pid));
    assert_canceled(&mut session, job);

    let job = session.launch(SLEEP);
    session.wait_running(job);
    administrator.exec(&format!("SELECT pg_terminate_backend({})", job.pid));
    session.wait(job);
    assert_eq!(session.state(job), "error");
    assert_eq!(session.sqlstate(job), "08006");
    assert_eq!(
        session
            .error(&format!("SELECT * FROM pg_background_result({job}) AS (x text)"))
            .sqlstate,
        "08006"
    );
    assert_eq!(session.value::<i32>("SELECT count(*) FROM effects"), 0);

    let counters = session.counters();
    assert_eq!((counters.canceled, counters.failed, counters.active), (1, 1, 0));
}

#[test]
fn in_commit() {
    let (cluster, mut session) = cluster_with_effects(&[]);
    session.exec(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION linger()",
    );
    let mut gate = cluster.session();
    gate.exec("SELECT pg_advisory_lock(1)");
    let job = session.launch("INSERT INTO effects VALUES (1)");
    gate.wait_blocked(job.pid);
    session.exec(&format!("SELECT pg_background_cancel({job})"));
    assert_canceled(&mut session, job);
}

#[test]
fn all_and_by_label() {
    let (_cluster, mut session) = cluster_with_effects(&[]);
    let labelled = |session: &mut Session, label: &str| {
        session.handle(&format!(
            "SELECT pid, cookie FROM pg_background_launch('SELECT pg_sleep(3600)', 0, '{label}')"
        ))
    };
    let first = labelled(&mut session, "nightly-1");
    let second = labelled(&mut session, "nightly-2");
    let other = labelled(&mut session, "hourly");
    let ended = session.launch("SELECT 1");
    session.wait(ended);

    assert_eq!(
        session.value::<i32>("SELECT pg_background_cancel_by_label('nightly-%', 60000)"),
        2
    );
    assert_eq!(
        (session.state(first), session.state(second)),
        ("canceled".into(), "canceled".into())
    );
    assert_eq!(
        session.value::<i32>("SELECT pg_background_cancel_by_label('nothing%')"),
        0
    );
    assert!(
        !session.holds(&format!("pg_background_wait({other}, 1)")),
        "the other label's job runs on"
    );

    assert_eq!(session.value::<i32>("SELECT pg_background_cancel_all()"), 1);
    assert_canceled(&mut session, other);
    assert_eq!(session.value::<i32>("SELECT pg_background_cancel_all()"), 0);
    assert_eq!(session.state(ended), "stopped");
}

#[test]
fn by_time_limits() {
    let (_cluster, mut session) = cluster_with_effects(&[]);
    session.exec("SET pg_background.worker_timeout = '200ms'");
    let job = session.launch(SLEEP);
    assert_canceled(&mut session, job);
    let counters = session.counters();
    assert_eq!((counters.timed_out, counters.canceled, counters.failed), (1, 0, 0));

    // The job's own statement_timeout is an ordinary error: the job was not cancelled.
    session.exec("RESET pg_background.worker_timeout");
    let job = session.launch("SET statement_timeout = '100ms'; SELECT pg_sleep(3600)");
    session.wait(job);
    assert_eq!(
        (session.state(job), session.sqlstate(job)),
        ("error".into(), "57014".into())
    );
    assert_eq!(session.counters().failed, 1);

    let timed_out: bool = session
        .text("SELECT timed_out FROM pg_background_run('SELECT pg_sleep(3600)', timeout_ms => 200)")
        .as_deref()
        == Some("t");
    assert!(timed_out);
    assert_eq!(session.counters().timed_out, 2);
}

/// A procedural block may catch the cancel. What it does afterwards does not commit, within the statement or at its end.
#[test]
fn what_catches_the_cancel_does_not_commit() {
    let (_cluster, mut session) = cluster_with_effects(&[]);
    session.exec(
        "CREATE PROCEDURE swallow() LANGUAGE plpgsql AS $$ BEGIN
             BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END;
             INSERT INTO effects VALUES (2); COMMIT; END $$",
    );
    let swallow = "BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END;";
    let jobs = [
        format!("DO $$ BEGIN INSERT INTO effects VALUES (1); {swallow} COMMIT; END $$"),
        format!("DO $$ BEGIN {swallow} ROLLBACK; INSERT INTO effects VALUES (2); COMMIT; END $$"),
        format!("DO $$ BEGIN FOR i IN 1..8 LOOP {swallow} INSERT INTO effects VALUES (i); COMMIT; END LOOP; END $$"),
        "CALL swallow()".to_string(),
    ];
    for idle in ["10s", "0"] {
        session.exec(&format!("SET pg_background.worker_idle_timeout = '{idle}'"));
        for sql in &jobs {
            let job = session.launch(sql);
            session.wait_running(job);
            session.exec(&format!("SELECT pg_background_cancel({job})"));
            assert_canceled(&mut session, job);
        }
    }
    session.exec("SET pg_background.worker_timeout = 100");
    let job = session.launch(&jobs[0]);
    assert_canceled(&mut session, job);
    session.exec("RESET pg_background.worker_timeout");
    assert!(session.holds(&format!(
        "(SELECT timed_out FROM pg_background_run($q${}$q$, 0, 100))",
        jobs[2]
    )));
    session.wait_until("NOT EXISTS (SELECT FROM pg_background_jobs WHERE state = 'running')");
    assert_eq!(session.value::<i32>("SELECT count(*) FROM effects"), 0);
}

/// A loop that catches every cancel ends all the same.
#[test]
fn what_catches_each_cancel_ends() {
    let (_cluster, mut session) = cluster_with_effects(&[]);
    let catch = |body: &str| format!("BEGIN {body} EXCEPTION WHEN query_canceled THEN NULL; END;");
    let sleep = catch("PERFORM pg_sleep(3600);");
    let jobs = [
        format!("DO $$ BEGIN LOOP {sleep} END LOOP; END $$"),
        format!("DO $$ BEGIN LOOP {} END LOOP; END $$", catch(&sleep)),
        format!(
            "DO $$ BEGIN INSERT INTO effects VALUES (1); LOOP {} END LOOP; END $$",
            catch(&catch(&sleep))
        ),
    ];
    for sql in &jobs {
        let job = session.launch(sql);
        session.wait_running(job);
        session.exec(&format!("SELECT pg_background_cancel({job})"));
        assert_canceled(&mut session, job);
    }
    session.exec("SET pg_background.worker_timeout = 100");
    let job = session.launch(&jobs[1]);
    assert_canceled(&mut session, job);
    assert_eq!(session.counters().timed_out, 1);
}
