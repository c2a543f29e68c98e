//! Workers and launching sessions that are signalled at every stage.

use harness::{Cluster, Handle, Session, wait_for};

/// A job that waits for the gate and then leaves a row.
const GATED: &str = "SELECT pg_advisory_xact_lock(1); INSERT INTO effects VALUES (1)";

fn start(settings: &[&str]) -> (Cluster, Session, Session) {
    let cluster = Cluster::start(settings);
    let session = cluster.session();
    let mut gate = cluster.session();
    gate.exec("CREATE TABLE effects (n int); SELECT pg_advisory_lock(1)");
    (cluster, session, gate)
}

#[track_caller]
fn assert_lost(session: &mut Session, job: Handle) {
    session.lost(job);
    assert_eq!(session.value::<i32>("SELECT count(*) FROM effects"), 0);
}

#[test]
fn worker_killed() {
    let (cluster, mut session, _gate) = start(&[]);
    cluster.expect_crash();
    let job = session.launch(GATED);
    session.wait_running(job);
    let waiting = session.start(&format!("SELECT pg_background_wait({job})"));
    cluster.signal(job.pid, "KILL");
    // The server restarts all processes, as after any crash; no session hangs.
    assert!(waiting.join().1.is_err());
    let mut recovered = None;
    wait_for("the server's recovery", || {
        recovered = cluster.try_session_in("postgres", "postgres").ok();
        recovered.is_some()
    });
    let mut session = recovered.unwrap();
    assert_eq!(
        session.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
    assert_eq!(session.counters().launched, 1);
}

#[test]
fn worker_terminated_before_it_has_connected() {
    let (cluster, session, mut gate) = start(&["post_auth_delay = 1"]);
    let launching = session.start(&format!(
        "SELECT pid, cookie FROM pg_background_launch({})",
        harness::quoted(GATED)
    ));
    wait_for("the worker's start", || !cluster.worker_processes().is_empty());
    for pid in cluster.worker_processes() {
        cluster.signal(pid, "TERM");
    }
    let (mut session, launched) = launching.join();
    match launched {
        Ok(rows) => {
            let field = |i: usize| rows[0][i].as_deref().unwrap();
            let job = Handle {
                pid: field(0).parse().unwrap(),
                cookie: field(1).parse().unwrap(),
            };
            assert_lost(&mut session, job);
        }
        Err(error) => assert_eq!(error.sqlstate, "08006", "{error:?}"),
    }
    assert_eq!(session.counters().active, 0);
    gate.exec("SELECT pg_advisory_unlock(1)");
    assert_eq!(
        session.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
}

#[test]
fn worker_terminated_while_running() {
    let (cluster, mut session, mut gate) = start(&[]);
    let job = session.launch(GATED);
    gate.wait_blocked(job.pid);
    cluster.signal(job.pid, "TERM");
    assert_lost(&mut session, job);
    assert_eq!(session.counters().failed, 1);
}

#[test]
fn worker_terminated_while_sending_rows() {
    let (cluster, mut session, _gate) = start(&[]);
    let mut watcher = cluster.session();
    let job = session.launch("SELECT g, repeat('x', 1000) FROM generate_series(1, 100000000) g");
    let reading = session.start(&format!(
        "SELECT count(*) FROM pg_background_result({job}) AS (g int, t text)"
    ));
    watcher.wait_until(&format!(
        "state = 'active' FROM pg_stat_activity WHERE pid = {}",
        reading.pid
    ));
    wait_for("rows on their way", || !cluster.temporary_files().is_empty());
    watcher.exec(&format!("SELECT pg_terminate_backend({})", job.pid));
    let (mut session, result) = reading.join();
    assert_eq!(result.unwrap_err().sqlstate, "08006");
    assert_eq!(session.counters().failed, 1);
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn worker_terminated_at_commit() {
    let (cluster, mut session, mut gate) = start(&[]);
    session.exec(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION linger()",
    );
    let job = session.launch("INSERT INTO effects VALUES (1)");
    gate.wait_blocked(job.pid);
    cluster.signal(job.pid, "TERM");
    assert_lost(&mut session, job);
}

/// The ways to wait for a gated job; `{job}` is replaced by its handle.
const WAITS: [&str; 4] = [
    "SELECT pg_background_wait({job})",
    "SELECT * FROM pg_background_result({job}) AS (x text)",
    "SELECT * FROM pg_background_drain(ARRAY[ROW({job})::pg_background_handle])",
    "SELECT pg_background_wait_any(ARRAY[ROW({job})::pg_background_handle])",
];

/// Ways to launch and wait in one call.
const RUNS: [&str; 3] = [
    "SELECT pg_background_run({sql})",
    "SELECT * FROM pg_background_run_query({sql}, col_def => 'x text') AS (x text)",
    "CALL pg_background_do({sql})",
];

/// Opens a job's gate and checks that the job commits.
#[track_caller]
fn assert_runs_on(gate: &mut Session) {
    gate.exec("TRUNCATE effects; SELECT pg_advisory_unlock(1)");
    gate.wait_until("EXISTS (SELECT FROM effects)");
    gate.exec("SELECT pg_advisory_lock(1)");
}

#[test]
fn waiting_session_cancelled() {
    let (_cluster, mut session, mut gate) = start(&[]);
    for wait in WAITS {
        let job = session.launch(GATED);
        gate.wait_blocked(job.pid);
        let waiting = session.start(&wait.replace("{job}", &job.to_string()));
        wait_until_waiting(&mut gate, waiting.pid);
        waiting.cancel();
        let (back, result) = waiting.join();
        session = back;
        assert_eq!(result.expect_err(wait).sqlstate, "57014", "{wait}");
        assert_runs_on(&mut gate);
        session.wait(job);
        assert_eq!(session.state(job), "stopped", "{wait}");
        session.exec(&format!("SELECT pg_background_detach({job})"));
    }
    for run in RUNS {
        let waiting = session.start(&run.replace("{sql}", &harness::quoted(GATED)));
        wait_until_waiting(&mut gate, waiting.pid);
        gate.wait_until("EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)");
        waiting.cancel();
        let (back, result) = waiting.join();
        session = back;
        assert_eq!(result.expect_err(run).sqlstate, "57014", "{run}");
        assert_runs_on(&mut gate);
    }
    session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
    assert_eq!(session.counters().completed, 7);
}

#[test]
fn reading_cancelled_midway() {
    let (cluster, mut session, mut gate) = start(&["work_mem = '64kB'"]);
    let job = session.launch(
        "SELECT g, repeat('x', 1000), CASE WHEN g = 5000 THEN pg_advisory_xact_lock(1) IS NULL END
         FROM generate_series(1, 5100) g",
    );
    gate.wait_blocked(job.pid);
    let read = format!("SELECT count(*) FROM pg_background_result({job}) AS (g int, t text, b bool)");
    let reading = session.start(&read);
    wait_for("rows that were read", || !cluster.temporary_files().is_empty());
    wait_until_waiting(&mut gate, reading.pid);
    reading.cancel();
    let (mut session, result) = reading.join();
    assert_eq!(result.unwrap_err().sqlstate, "57014");
    // The rows that were taken are lost: reading on would return a part as if it were all.
    assert_eq!(session.error(&read).sqlstate, "55000");
    gate.exec("SELECT pg_advisory_unlock(1)");
    session.wait(job);
    assert_eq!(session.state(job), "stopped");
    assert_eq!(session.error(&read).sqlstate, "55000");
    session.exec(&format!("SELECT pg_background_detach({job})"));
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn waiting_session_terminated() {
    let (cluster, _, mut gate) = start(&[]);
    for wait in WAITS {
        let mut session = cluster.session();
        let job = session.launch(GATED);
        gate.wait_blocked(job.pid);
        let waiting = session.start(&wait.replace("{job}", &job.to_string()));
        wait_until_waiting(&mut gate, waiting.pid);
        gate.exec(&format!("SELECT pg_terminate_backend({})", waiting.pid));
        assert!(waiting.join().1.is_err(), "{wait}");
        assert_runs_on(&mut gate);
    }
    for run in RUNS {
        let waiting = cluster.session().start(&run.replace("{sql}", &harness::quoted(GATED)));
        gate.wait_until("EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)");
        gate.exec(&format!("SELECT pg_terminate_backend({})", waiting.pid));
        assert!(waiting.join().1.is_err(), "{run}");
        assert_runs_on(&mut gate);
    }
}

#[test]
fn launching_session_cancelled_and_terminated() {
    // The delay holds up the worker, and with it a launch that waits for the worker.
    let (cluster, mut session, mut gate) = start(&["post_auth_delay = 1"]);
    let launch = format!(
        "SELECT pid, cookie FROM pg_background_launch({})",
        harness::quoted(GATED)
    );
    let launching = session.start(&launch);
    wait_for("the worker's start", || !cluster.worker_processes().is_empty());
    launching.cancel();
    let (back, launched) = launching.join();
    session = back;
    match launched {
        // The launch was faster, and the cancel may still arrive: this statement is there for it to end.
        Ok(_) => drop(session.try_rows("SELECT pg_sleep(1)")),
        Err(error) => assert_eq!(error.sqlstate, "57014", "{error:?}"),
    }
    session.counters();
    gate.exec("SELECT pg_advisory_unlock(1)");
    session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");

    gate.exec("SELECT pg_advisory_lock(1)");
    let launching = session.start(&launch);
    gate.exec(&format!("SELECT pg_terminate_backend({}, 60000)", launching.pid));
    let _ = launching.join();
    gate.exec("SELECT pg_advisory_unlock(1)");
    gate.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background' AND state = 'active')",
    );
}

/// Waits until the session's statement sleeps in its wait.
#[track_caller]
fn wait_until_waiting(watcher: &mut Session, pid: i32) {
    watcher.wait_until(&format!(
        "state = 'active' AND wait_event_type = 'Extension' AND query LIKE '%pg_background%' FROM pg_stat_activity WHERE pid = {pid}"
    ));
}
