//! Ten thousand jobs in one session leave nothing behind, nor does a session's end or a rolled back launch.

use harness::{Cluster, Session, process_entries, process_status, wait_for};

/// A hundred jobs that end in all ways, launched inside the server.
const HUNDRED: &str = "DO $$
    DECLARE
        h pg_background_handle;
    BEGIN
        FOR i IN 1..10 LOOP
            h := pg_background_launch('SELECT g, repeat(''x'', 100) FROM generate_series(1, 100) g');
            PERFORM count(*) FROM pg_background_result(h.pid, h.cookie) AS (g int, t text);
            h := pg_background_launch('SELECT g, repeat(''x'', 1000) FROM generate_series(1, 200) g');
            PERFORM pg_background_wait(h.pid, h.cookie);
            PERFORM pg_background_detach(h.pid, h.cookie);
            h := pg_background_submit('INSERT INTO effects VALUES (1)', 0, 'submitted');
            PERFORM pg_background_wait(h.pid, h.cookie), pg_background_result_info(h.pid, h.cookie);
            PERFORM pg_background_detach(h.pid, h.cookie);
            h := pg_background_launch('SELECT pg_sleep(3600)');
            PERFORM pg_background_cancel(h.pid, h.cookie, 60000);
            PERFORM pg_background_detach(h.pid, h.cookie);
            BEGIN
                h := pg_background_launch('SELECT 1 / 0');
                PERFORM * FROM pg_background_result(h.pid, h.cookie) AS (x int);
            EXCEPTION WHEN division_by_zero THEN NULL;
            END;
            BEGIN
                PERFORM pg_background_launch('INSERT INTO effects VALUES (1)');
                RAISE EXCEPTION 'rolled back';
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
            PERFORM pg_background_run('INSERT INTO effects VALUES (1)');
            PERFORM pg_background_run('SELECT no_such_column');
            PERFORM * FROM pg_background_run_query('SELECT 1', col_def => 'x int') AS (x int);
            PERFORM pg_background_launch('DO ''BEGIN RAISE NOTICE ''''unheard''''; END''');
        END LOOP;
        PERFORM pg_background_wait(pid, cookie) FROM pg_background_list;
        PERFORM pg_background_detach_all();
    END $$";

#[derive(Debug)]
struct Held {
    memory_kb: u64,
    files: usize,
    segments: usize,
    locks: usize,
}

fn held(cluster: &Cluster, session: &Session, observer: &mut Session) -> Held {
    Held {
        memory_kb: process_status(session.pid, "RssAnon"),
        files: process_entries(session.pid, "fd"),
        segments: cluster.shared_memory_segments(),
        locks: observer.value(&format!("SELECT count(*) FROM pg_locks WHERE pid <> {}", observer.pid)),
    }
}

#[test]
fn ten_thousand_jobs_in_one_session() {
    let cluster = Cluster::start(&["dynamic_shared_memory_type = mmap"]);
    let mut session = cluster.session();
    let mut observer = cluster.session();
    session.exec("CREATE TABLE effects (n int)");
    for _ in 0..5 {
        session.exec(HUNDRED);
    }
    let before = held(&cluster, &session, &mut observer);
    for _ in 5..100 {
        session.exec(HUNDRED);
    }
    session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
    observer.wait_until(&format!(
        "NOT EXISTS (SELECT FROM pg_locks WHERE pid NOT IN ({}, {}))",
        session.pid, observer.pid
    ));
    let after = held(&cluster, &session, &mut observer);
    println!("{before:?}\n{after:?}");

    let counters = session.counters();
    assert_eq!(counters.launched, 10_000);
    assert_eq!((counters.canceled, counters.timed_out, counters.active), (1000, 0, 0));
    assert_eq!(counters.failed, 2000);
    assert_eq!(session.value::<i32>("SELECT count(*) FROM effects"), 3000);

    assert!(
        after.memory_kb < before.memory_kb + 2048,
        "memory grew: {before:?} {after:?}"
    );
    assert!(after.files <= before.files + 2, "open files grew: {before:?} {after:?}");
    assert!(
        after.segments <= before.segments + 2,
        "segments grew: {before:?} {after:?}"
    );
    assert_eq!(after.locks, 0, "{after:?}");

    // Memory that the session still shares with workers is freed with it.
    drop(session);
    observer.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background' AND state = 'active')",
    );
    wait_for("the end of the session's segments", || {
        cluster.shared_memory_segments() <= before.segments
    });
}

#[test]
fn session_ends_with_jobs_running() {
    let cluster = Cluster::start(&["dynamic_shared_memory_type = mmap"]);
    let mut observer = cluster.session();
    observer.exec("CREATE TABLE effects (n int)");
    // The first use allocates what the cluster retains.
    observer.exec("SELECT pg_background_run('SELECT 1')");
    let mut gate = cluster.session();
    gate.exec("SELECT pg_advisory_lock(1)");
    let before = cluster.shared_memory_segments();
    for _ in 0..3 {
        let mut session = cluster.session();
        let jobs: Vec<_> = (0..4)
            .map(|n| {
                session.launch(&format!(
                    "SELECT pg_advisory_xact_lock_shared(1); INSERT INTO effects VALUES ({n}); \
                     SELECT repeat('x', 1000) FROM generate_series(1, 1000)"
                ))
            })
            .collect();
        for job in jobs {
            gate.wait_blocked(job.pid);
        }
    }
    gate.exec("SELECT pg_advisory_unlock(1)");
    observer.wait_until("(SELECT count(*) = 12 FROM effects)");
    observer.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background' AND state = 'active')",
    );
    wait_for("the end of the sessions' segments", || {
        cluster.shared_memory_segments() <= before
    });
    // The session may have ended after its jobs.
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn launch_that_is_rolled_back() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE effects (n int)");

    session.exec("BEGIN");
    let job = session.launch("INSERT INTO effects VALUES (1)");
    session.exec("ROLLBACK");
    session.wait(job);
    assert_eq!(session.state(job), "stopped");

    session.exec("BEGIN; SAVEPOINT s");
    let job = session.launch("INSERT INTO effects VALUES (2); SELECT 'kept' AS x");
    session.exec("ROLLBACK TO s");
    assert_eq!(
        session.value::<String>(&format!("SELECT x FROM pg_background_result({job}) AS (x text)")),
        "kept"
    );
    session.exec("COMMIT");

    // An error in the statement that launches.
    let error =
        session.error("SELECT (pg_background_launch('INSERT INTO effects VALUES (3)')).pid, 1 / (random() * 0)::int");
    assert_eq!(error.sqlstate, "22012");
    session.wait_until("(SELECT count(*) = 3 FROM effects)");
    session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
    assert_eq!(session.counters().completed, 3);
}

#[test]
fn reading_that_is_rolled_back() {
    let cluster = Cluster::start(&["dynamic_shared_memory_type = mmap"]);
    let mut session = cluster.session();
    session.exec("SELECT pg_background_run('SELECT 1')");
    let before = cluster.shared_memory_segments();
    for _ in 0..20 {
        let job = session.launch("SELECT g, repeat('x', 1000) FROM generate_series(1, 5000) g");
        session.exec(&format!(
            "BEGIN; SAVEPOINT s; SELECT count(*) FROM pg_background_result({job}) AS (g int, t text); ROLLBACK TO s; COMMIT"
        ));
        let job = session.launch("SELECT g, repeat('x', 1000) FROM generate_series(1, 5000) g");
        session.error(&format!(
            "SELECT 1 / (g - 100) FROM pg_background_result({job}) AS (g int, t text)"
        ));
    }
    session.exec("SELECT pg_background_detach_all()");
    session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
    wait_for("the end of the jobs' segments", || {
        cluster.shared_memory_segments() <= before + 1
    });
}
