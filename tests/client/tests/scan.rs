//! Rows that the executor takes from the job one by one.

use harness::{Cluster, Handle, Session, process_status, quoted, wait_for};

const JOB: &str = "SELECT n, repeat('x', 100) FROM generate_series(1, 100000) AS n";

/// A query over the job's rows that stops at one of them until the gate is open.
fn gated(job: Handle) -> String {
    format!(
        "SELECT count(*), sum(n), bool_and(t = repeat('x', 100)) FROM pg_background_result({job}) AS (n int, t text)
         WHERE CASE n WHEN 1000 THEN pg_advisory_xact_lock(1) IS NOT NULL ELSE true END"
    )
}

fn start(settings: &[&str]) -> (Cluster, Session, Session) {
    let cluster = Cluster::start(settings);
    let session = cluster.session();
    let mut gate = cluster.session();
    gate.exec("SELECT pg_advisory_lock(1)");
    (cluster, session, gate)
}

/// Checks that nothing is left of the job, and that the server works.
#[track_caller]
fn assert_nothing_left(cluster: &Cluster, session: &mut Session) {
    session.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background' AND state = 'active')",
    );
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
    let sum: i64 = session.value(
        "SELECT sum(n) FROM pg_background_run_query('SELECT generate_series(1, 1000)', col_def => 'n int') AS (n int)",
    );
    assert_eq!(sum, 500_500);
}

/// The remaining rows are not a whole result, and are dropped; a running job can still be waited for and cancelled.
#[test]
fn cancelled_between_two_rows() {
    for ends_before in [false, true] {
        let (cluster, mut session, mut gate) = start(&["deadlock_timeout = '10ms'"]);
        gate.exec("SELECT pg_advisory_lock(2)");
        let held = format!("{JOB} UNION ALL SELECT 0, 'last' WHERE pg_advisory_lock(2) IS NOT NULL");
        for _ in 0..5 {
            let job = session.launch(if ends_before { JOB } else { &held });
            let reading = session.start(&gated(job));
            gate.wait_blocked(reading.pid);
            if ends_before {
                assert!(gate.holds(&format!("pg_background_wait({job}, 60000)")));
            } else {
                gate.wait_blocked(job.pid);
            }
            reading.cancel();
            let (back, answer) = reading.join();
            session = back;
            assert_eq!(answer.unwrap_err().sqlstate, "57014");
            let error = session.error(&format!("SELECT * FROM pg_background_result({job}) AS (n int, t text)"));
            // The reading is broken off; the handle is there, for the job's outcome.
            assert_eq!(error.sqlstate, "55000", "{error:?}");
            if !ends_before {
                assert_eq!(session.state(job), "running");
                session.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
            }
            assert!(session.holds(&format!(
                "consumed AND state = '{}' FROM pg_background_outcome({job})",
                if ends_before { "stopped" } else { "canceled" }
            )));
            session.exec(&format!("SELECT pg_background_detach({job})"));
            assert_nothing_left(&cluster, &mut session);
        }
    }
}

#[test]
fn terminated_between_two_rows() {
    let (cluster, _, mut gate) = start(&[]);
    for _ in 0..5 {
        let mut session = cluster.session();
        let job = session.launch(JOB);
        let reading = session.start(&gated(job));
        gate.wait_blocked(reading.pid);
        gate.exec(&format!("SELECT pg_terminate_backend({}, 60000)", reading.pid));
        assert!(reading.join().1.is_err());
        assert_nothing_left(&cluster, &mut gate);
    }
}

#[test]
fn the_job_is_cancelled_between_two_rows() {
    let (cluster, mut session, mut gate) = start(&["deadlock_timeout = '1h'"]);
    let job = session.launch(JOB);
    let reading = session.start(&gated(job));
    gate.wait_blocked(reading.pid);
    gate.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    assert!(
        gate.holds(&format!("pg_background_wait({job}, 1)")),
        "it waits for its reader"
    );
    gate.exec("SELECT pg_advisory_unlock(1)");
    let (mut session, answer) = reading.join();
    assert_eq!(answer.unwrap_err().sqlstate, "57014");
    assert_nothing_left(&cluster, &mut session);
}

#[test]
fn a_job_ends_while_its_reader_is_busy_with_a_row() {
    let (cluster, mut session, mut gate) = start(&["deadlock_timeout = '50ms'"]);
    let job = session.launch(JOB);
    let reading = session.start(&gated(job));
    gate.wait_blocked(reading.pid);
    gate.wait(job);
    gate.exec("SELECT pg_advisory_unlock(1)");
    let (mut session, answer) = reading.join();
    let row: Vec<_> = answer.unwrap()[0].iter().map(|field| field.clone().unwrap()).collect();
    assert_eq!(row, ["100000", "5000050000", "t"]);
    assert_nothing_left(&cluster, &mut session);
}

#[test]
fn a_large_result_takes_no_memory_and_no_files() {
    let cluster = Cluster::start(&["log_temp_files = 0", "work_mem = '64kB'"]);
    let mut session = cluster.session();
    let pid = session.pid;
    let mut held = Vec::new();
    for rows in [1000, 300_000] {
        let job = session.launch(&format!("SELECT generate_series(1, {rows}), repeat('x', 1000)"));
        let count: i64 = session.value(&format!(
            "SELECT count(*) FROM pg_background_result({job}) AS (n int, t text) WHERE length(t) = 1000"
        ));
        assert_eq!(count, rows);
        held.push(process_status(pid, "RssAnon"));
    }
    assert!(
        held[1] <= held[0] + 1024,
        "memory grew from {} to {} kB",
        held[0],
        held[1]
    );
    // Before a reader comes, rows that do not fit in the queue go to a file.
    let log = cluster.log();
    let sizes = log.lines().filter(|line| line.contains("temporary file: "));
    let bytes: u64 = sizes
        .filter_map(|line| line.rsplit("size ").next()?.parse::<u64>().ok())
        .sum();
    assert!(bytes < 30_000_000, "{bytes} bytes in temporary files\n{log}");
}

/// An error in a function's query, which the function catches, does not affect the query that called it: its rows still arrive one by one.
#[test]
fn an_error_within_the_query_before_its_first_row() {
    let cluster = Cluster::start(&["log_temp_files = 0", "work_mem = '64kB'"]);
    let mut session = cluster.session();
    session.exec(
        "CREATE FUNCTION caught() RETURNS bool LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM 1 / (relpages - relpages) FROM pg_class;
            RETURN false;
        EXCEPTION WHEN division_by_zero THEN
            RETURN true;
        END
        $$",
    );
    const JOB: &str = "SELECT generate_series(1, 20000), repeat('x', 1000)";
    let query = format!(
        "SELECT count(*) FROM pg_background_run_query({}, col_def => 'x') AS (n int, t text) WHERE (SELECT caught())",
        quoted(JOB)
    );
    // The library is loaded when the query is planned.
    session.exec("SELECT pg_background_run('SELECT 1')");
    for _ in 0..3 {
        assert_eq!(session.value::<i64>(&query), 20000);
    }
    // The job's own files, which the reader removes, do not count.
    let log = cluster.log();
    let of_session = format!("[{}]", session.pid);
    let written: Vec<_> = log
        .lines()
        .filter(|line| line.contains("temporary file: ") && line.contains(&of_session) && !line.contains("fileset"))
        .collect();
    assert!(written.is_empty(), "{written:?}");
}

/// Opens the gate that many milliseconds after the reader has arrived at it.
fn open_after(gate: &mut Session, reader: i32, ms: i32) {
    gate.wait_blocked(reader);
    gate.wait_until(&format!(
        "EXISTS (SELECT FROM pg_locks WHERE pid = {reader} AND clock_timestamp() > waitstart + {ms} * interval '1 ms')"
    ));
    gate.exec("SELECT pg_advisory_unlock(1)");
}

#[test]
fn the_time_of_a_reader_is_not_the_jobs() {
    let (cluster, mut session, mut gate) = start(&["deadlock_timeout = '1h'", "pg_background.worker_timeout = '2s'"]);
    let job = session.launch(JOB);
    let reading = session.start(&gated(job));
    let pid = reading.pid;
    open_after(&mut gate, pid, 2000);
    let (mut session, answer) = reading.join();
    assert_eq!(answer.unwrap()[0][0].as_deref(), Some("100000"));

    session.exec("SET pg_background.worker_timeout = 0; SET statement_timeout = '2s'");
    let job = session.launch(JOB);
    session.exec("SET statement_timeout = 0");
    gate.exec("SELECT pg_advisory_lock(1)");
    let reading = session.start(&gated(job));
    open_after(&mut gate, pid, 2000);
    let (session, answer) = reading.join();
    assert_eq!(answer.unwrap()[0][0].as_deref(), Some("100000"));

    gate.exec("SELECT pg_advisory_lock(1)");
    let job = "SELECT n, CASE n WHEN 100000 THEN pg_sleep(0.2)::text ELSE repeat(''x'', 100) END FROM generate_series(1, 100000) AS n";
    let reading = session.start(&format!(
        "SELECT count(*) FROM pg_background_run_query('{job}', timeout_ms => 2000, col_def => 'x') AS (n int, t text)
         WHERE CASE n WHEN 1000 THEN pg_advisory_xact_lock(1) IS NOT NULL ELSE true END"
    ));
    open_after(&mut gate, pid, 2000);
    let (mut session, answer) = reading.join();
    assert_eq!(answer.unwrap()[0][0].as_deref(), Some("100000"));
    assert_nothing_left(&cluster, &mut session);
}

/// For a variable PL/pgSQL fetches one row, or two, and then no more.
#[test]
fn a_variable_takes_its_value_from_rows_as_they_come() {
    let (_cluster, mut session, mut gate) = start(&["deadlock_timeout = '1h'"]);
    for into in ["", "STRICT "] {
        let job = session.launch(JOB);
        let query = gated(job).replacen(" FROM", &format!(" INTO {into}counted, total, fits FROM"), 1);
        let block = format!(
            "DO $$ DECLARE counted bigint; total bigint; fits bool; BEGIN {query};
             ASSERT (counted, total, fits) = (100000, 5000050000, true); END $$"
        );
        let reading = session.start(&block);
        gate.wait_blocked(reading.pid);
        assert!(
            gate.holds(&format!("NOT pg_background_wait({job}, 1)")),
            "it waits for its reader"
        );
        gate.exec("SELECT pg_advisory_unlock(1)");
        let (back, answer) = reading.join();
        session = back;
        answer.unwrap();
        gate.exec("SELECT pg_advisory_lock(1)");
    }
    // The remaining rows are read even if one row was enough, and the job's error is not lost.
    let job = session.launch("SELECT 1 / (70000 - n) FROM generate_series(1, 100000) AS n");
    let first =
        format!("DO $$ DECLARE n int; BEGIN SELECT a INTO n FROM pg_background_result({job}) AS (a int); END $$");
    assert_eq!(session.error(&first).sqlstate, "22012");
    let job = session.launch("SELECT n, repeat(n::text, 1000) FROM generate_series(1, 5000) AS n");
    session.exec(&format!(
        "DO $$ DECLARE n int; t text; BEGIN SELECT a, b INTO n, t FROM pg_background_result({job}) AS (a int, b text);
         ASSERT n = 1 AND t = repeat('1', 1000); END $$"
    ));
}
