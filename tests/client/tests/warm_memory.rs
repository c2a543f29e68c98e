//! A worker that has run thousands of jobs, or a large one, is as small as one that has run a few.

use harness::{Cluster, KEPT, Session, process_entries, process_status, try_process_status};

/// A hundred jobs of many kinds, all of which leave a worker reusable.
const HUNDRED: &str = "DO $$
    DECLARE
        h pg_background_handle;
    BEGIN
        FOR i IN 1..10 LOOP
            PERFORM pg_background_run('SELECT 1');
            PERFORM pg_background_run('INSERT INTO effects VALUES (1)');
            PERFORM pg_background_run('SET work_mem = ''1MB''; SELECT nextval(''counter'')');
            PERFORM pg_background_run('PREPARE p AS SELECT count(*) FROM pg_class; EXECUTE p');
            PERFORM pg_background_run('SELECT pg_advisory_lock(1)', label => 'label');
            PERFORM pg_background_run('DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 1000)');
            PERFORM pg_background_run('DO ''BEGIN RAISE NOTICE ''''x''''; END''; SELECT setseed(0.1)');
            PERFORM * FROM pg_background_run_query('SELECT repeat(''x'', 1000) FROM generate_series(1, 100)',
                                                   col_def => 'x text') AS (x text);
            h := pg_background_launch('SELECT g, repeat(''x'', 1000) FROM generate_series(1, 100) g');
            PERFORM pg_background_wait(h.pid, h.cookie);
            PERFORM count(*) FROM pg_background_result(h.pid, h.cookie) AS (g int, t text);
            h := pg_background_submit('SELECT format(''%s'', repeat(''x'', 100000))');
            PERFORM pg_background_wait(h.pid, h.cookie);
            PERFORM pg_background_detach(h.pid, h.cookie);
        END LOOP;
    END $$";

fn worker(session: &mut Session) -> i32 {
    session.value("SELECT pid FROM pg_background_run('SELECT 1')")
}

#[test]
fn five_thousand_jobs_in_one_worker() {
    let cluster = Cluster::start(&[KEPT, "dynamic_shared_memory_type = mmap"]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE effects (n int); CREATE SEQUENCE counter");
    let first = worker(&mut session);
    let held = |pid| (process_status(pid, "RssAnon"), process_entries(pid, "fd"));
    for _ in 0..10 {
        session.exec(HUNDRED);
    }
    let pid = worker(&mut session);
    assert_eq!(pid, first, "the worker was not kept");
    let (early, files_early) = held(pid);
    let segments = cluster.shared_memory_segments();
    for _ in 10..50 {
        session.exec(HUNDRED);
    }
    assert_eq!(worker(&mut session), first, "the worker was not kept");
    let (late, files_late) = held(pid);
    println!("{early} kB after 1000 jobs, {late} kB after 5000");
    assert!(late <= early + 256, "memory grew from {early} to {late} kB");
    assert!(
        files_late <= files_early + 4,
        "files grew from {files_early} to {files_late}"
    );
    assert!(cluster.shared_memory_segments() <= segments + 1);
    assert_eq!(session.counters().completed, 5000 + 3);
}

/// Returns the memory of a worker after the job that `body` runs, in kB. `body` returns the process; None if it has exited.
fn after(cluster: &Cluster, body: impl FnOnce(&mut Session) -> i32) -> Option<u64> {
    let mut session = cluster.session();
    worker(&mut session);
    let pid = body(&mut session);
    session.wait_until(&format!(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND state = 'active')"
    ));
    let next = worker(&mut session);
    (next == pid).then(|| try_process_status(pid, "RssAnon")).flatten()
}

fn run(session: &mut Session, job: &str) -> i32 {
    let row = session
        .rows(&format!(
            "SELECT state, pid FROM pg_background_run({})",
            harness::quoted(job)
        ))
        .remove(0);
    assert_eq!(row[0].as_deref(), Some("stopped"));
    row[1].as_deref().unwrap().parse().unwrap()
}

fn is_small(held: Option<u64>, job: &str) {
    println!("{held:?} kB after {job}");
    assert!(held.is_none_or(|kb| kb < 32 << 10), "{held:?} kB are held after {job}");
}

#[test]
fn a_large_row_leaves_a_small_worker() {
    let cluster = Cluster::start(&[KEPT]);
    let job = "SELECT repeat('x', 200000000)";
    let held = after(&cluster, |session| {
        let handle = session.launch(job);
        let length: i64 = session.value(&format!(
            "SELECT length(t) FROM pg_background_result({handle}) AS (t text)"
        ));
        assert_eq!(length, 200_000_000);
        handle.pid
    });
    assert!(held.is_some(), "the worker was not kept");
    is_small(held, job);
}

#[test]
fn a_large_job_leaves_a_small_worker() {
    let cluster = Cluster::start(&[KEPT]);
    cluster.session().exec(
        "DO $$ BEGIN FOR i IN 1..2000 LOOP EXECUTE format('CREATE TABLE many_%s (id int, name text, at date)', i); END LOOP; END $$",
    );
    for job in [
        // One large value, many small allocations, many catalog entries.
        "SELECT length(repeat('x', 200000000))",
        "SELECT sum(length(x)) FROM (SELECT array_agg(g::text) AS xs FROM generate_series(1, 1000000) g) s, unnest(xs) x",
        "DO $$ BEGIN FOR i IN 1..2000 LOOP EXECUTE format('SELECT * FROM many_%s', i); END LOOP; END $$",
    ] {
        let held = after(&cluster, |session| run(session, job));
        is_small(held, job);
    }
}
