//! Allocations that fail: an error, not a crash of the server.

use harness::{Cluster, KEPT, Session, process_status, quoted};

/// How much more memory than it has a process may get, in kB: so many values that each allocation is the first to fail with one of them.
const ROOM: [u64; 9] = [
    2 << 10,
    4 << 10,
    8 << 10,
    16 << 10,
    32 << 10,
    48 << 10,
    72 << 10,
    112 << 10,
    160 << 10,
];

/// Loads the library, the registry, and the library that converts texts.
const LOADED: &str = "SELECT pg_background_run('SELECT 1'), convert_from('a', 'LATIN1')";

fn limit(pid: i32, bytes: &str) {
    let mut prlimit = harness::as_server("prlimit");
    prlimit.arg(format!("--as={bytes}:")).arg(format!("--pid={pid}"));
    assert!(prlimit.status().unwrap().success());
}

/// Limits the memory that a process can still get, in kB.
fn limit_to(pid: i32, room: u64) {
    limit(pid, &((process_status(pid, "VmSize") + room) << 10).to_string());
}

/// Runs `sql` under small and larger limits, each time in a session of its own. The answer or 53200 must come, and the session continues.
#[track_caller]
fn in_little_room(cluster: &Cluster, database: &str, prepare: &str, sql: &str) {
    let mut refused = 0;
    for room in ROOM {
        let mut session = cluster.session_in(database, "postgres");
        session.exec(prepare);
        limit_to(session.pid, room);
        let answer = session.try_rows(sql);
        limit(session.pid, "unlimited");
        if let Err(error) = answer {
            assert_eq!(error.sqlstate, "53200", "{room} kB, {sql}: {error:?}");
            refused += 1;
        }
        assert!(session.holds("true"), "{room} kB, {sql}");
    }
    assert!(refused > 0, "{sql} needs no memory");
}

fn start() -> (Cluster, Session) {
    let cluster = Cluster::start(&[KEPT, "log_min_messages = 'panic'"]);
    let mut session = cluster.session();
    session.exec("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    (cluster, session)
}

#[test]
fn many_handles() {
    let (cluster, _session) = start();
    let prepare = "CREATE TEMP TABLE handles AS SELECT array_agg(job) AS all, count(*)
        FROM (SELECT pg_background_submit('SELECT 1') FROM generate_series(1, 1)) AS launched (job), generate_series(1, 300000);
        DO $$BEGIN PERFORM pg_background_wait((handles.all[1]).pid, (handles.all[1]).cookie) FROM handles; END$$";
    in_little_room(
        &cluster,
        "postgres",
        prepare,
        "SELECT (pg_background_wait_any(handles.all)).pid IS NOT NULL FROM handles",
    );
    in_little_room(
        &cluster,
        "postgres",
        prepare,
        "SELECT count(*) FROM handles, pg_background_drain(handles.all)",
    );
}

/// Texts of a job in a database of another encoding: SQL, error, messages, tags.
#[test]
fn texts_that_are_converted() {
    let (cluster, mut session) = start();
    let words = "repeat('größer ', 2000000)";
    let error = format!("DO $do$BEGIN RAISE '%', {words}; END$do$");
    let launch = |session: &mut Session, sql: &str| {
        let job = session.handle(&format!(
            "SELECT pid, cookie FROM pg_background_launch_params({sql}, ROW(), database => 'latin')"
        ));
        session.wait(job);
        job
    };
    let failed = launch(&mut session, &quoted(&error));
    for call in [
        format!("SELECT length((pg_background_error_info({failed})).message)"),
        format!("SELECT length((pg_background_outcome({failed})).error_message)"),
    ] {
        in_little_room(&cluster, "postgres", LOADED, &call);
    }
    // The job's error is raised, or there was no memory for it; then the session can ask again.
    for room in ROOM.into_iter().step_by(2) {
        let mut reader = cluster.session();
        reader.exec(LOADED);
        limit_to(reader.pid, room);
        let read = format!("SELECT * FROM pg_background_result({failed}) AS (n text)");
        let error = reader.error(&read);
        limit(reader.pid, "unlimited");
        // If the error could be read but not raised, it is lost.
        if ["P0001", "42704"].contains(&error.sqlstate.as_str()) {
            break;
        }
        assert_eq!(error.sqlstate, "53200", "{room} kB: {error:?}");
        assert!(reader.holds("true"), "{room} kB");
    }
    // The job's SQL, in a database that must convert it.
    let long = session.handle(&format!(
        "SELECT pid, cookie FROM pg_background_launch(format('SELECT %L', {words}))"
    ));
    session.wait(long);
    let mut latin = cluster.session_in("latin", "postgres");
    latin.exec("CREATE EXTENSION pg_background");
    drop(latin);
    in_little_room(
        &cluster,
        "latin",
        LOADED,
        &format!("SELECT length(pg_background_full_sql({long}))"),
    );
}

/// The state of a reading before its first row, and tags: some megabytes of both, more than the smallest limit.
#[test]
fn what_is_remembered_of_a_result() {
    let (cluster, _session) = start();
    let tags =
        "CREATE TEMP TABLE job AS SELECT * FROM pg_background_launch(repeat('SELECT;', 120000) || 'SET work_mem = 64');
        SELECT pg_background_wait(pid, cookie) FROM job";
    // A reading that broke off in another process has left its state to the next one.
    let left = format!(
        "{tags}; SELECT pg_background_run(format('DO $$BEGIN PERFORM FROM pg_background_result(%s, %s) AS (n int);
         EXCEPTION WHEN datatype_mismatch THEN NULL; END$$', pid, cookie)) FROM job"
    );
    for prepare in [tags, &left] {
        in_little_room(
            &cluster,
            "postgres",
            prepare,
            "SELECT count(*) FROM job, LATERAL pg_background_result(pid, cookie) AS (tag text)",
        );
    }
}

/// A worker without memory for its job's error, which is copied several times.
#[test]
fn an_error_of_a_worker() {
    const ROOM: u64 = 64 << 10;
    let (cluster, mut session) = start();
    for part in 6..18 {
        let worker = session.value::<i32>("SELECT pid FROM pg_background_run('SELECT 1')");
        limit_to(worker, ROOM);
        let sql = format!(
            "DO $$DECLARE x text := repeat('x', {}); BEGIN RAISE USING MESSAGE = x, DETAIL = x, HINT = x; END$$",
            (ROOM << 10) / part
        );
        let outcome = session.rows(&format!(
            "SELECT state, sqlstate FROM pg_background_run({})",
            quoted(&sql)
        ));
        let outcome: Vec<_> = outcome[0].iter().map(|field| field.as_deref()).collect();
        assert_eq!(outcome[0], Some("error"), "{part}: {outcome:?}");
        // If shared memory for the error was refused, there is none.
        assert!(
            [Some("53200"), Some("P0001"), Some("08006"), None].contains(&outcome[1]),
            "{part}: {outcome:?}"
        );
        if cluster.worker_processes().contains(&worker) {
            limit(worker, "unlimited");
        }
        assert!(session.holds("true"), "{part}");
    }
}

/// Names of settings can have any length.
#[test]
fn names_of_settings() {
    let (cluster, _session) = start();
    in_little_room(
        &cluster,
        "postgres",
        "SELECT pg_background_run('SELECT 1'); SELECT set_config(repeat('a', 20000000) || '.b', 'x', false)",
        "SELECT pg_background_run('SELECT 1')",
    );
}
