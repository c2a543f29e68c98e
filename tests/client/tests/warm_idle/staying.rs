//! How long a worker is idle, how many are, and for which launches they make room.

use super::*;

#[test]
fn how_long_it_waits() {
    let cluster = Cluster::start(&["pg_background.worker_idle_timeout = '400ms'"]);
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    let pid = session.run();
    let ended = Instant::now();
    wait_gone(&mut observer, pid);
    assert!(
        ended.elapsed() > Duration::from_millis(350),
        "it went after {:?}",
        ended.elapsed()
    );
    assert!(
        ended.elapsed() < Duration::from_secs(10),
        "it went after {:?}",
        ended.elapsed()
    );

    // The setting is reread from the configuration file, and applies to an idle worker too.
    observer.exec("ALTER SYSTEM SET pg_background.worker_idle_timeout = '1h'");
    observer.exec("SELECT pg_reload_conf()");
    session.wait_until("current_setting('pg_background.worker_idle_timeout') = '1h'");
    let pid = session.run();
    assert_eq!(leave_idle(&mut session), pid);
    observer.exec("ALTER SYSTEM SET pg_background.worker_idle_timeout = 0");
    observer.exec("SELECT pg_reload_conf()");
    session.wait_until("current_setting('pg_background.worker_idle_timeout') = '0'");
    wait_gone(&mut observer, pid);
    let first = session.run();
    wait_gone(&mut observer, first);
}

#[test]
fn how_many_wait() {
    for limit in [0, 1, 2] {
        let cluster = Cluster::start(&[KEPT, &format!("pg_background.max_idle_workers = {limit}")]);
        let (mut session, mut gate) = (cluster.session(), cluster.session());
        for _ in 0..3 {
            let workers = run_together(&mut session, &mut gate, 4);
            gate.wait_until(&format!(
                "count(*) = {limit} FROM pg_stat_activity WHERE pid = ANY (ARRAY{workers:?})"
            ));
        }
        assert_eq!(
            gate.value::<i32>("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_background'"),
            limit
        );
    }
}

/// By default idle workers take a quarter of the slots, at least two; the others are free for other users.
#[test]
fn how_many_wait_by_default() {
    for (slots, burst, idle) in [(4, 3, 2), (8, 7, 2), (16, 8, 4)] {
        let cluster = Cluster::start(&[KEPT, &format!("max_worker_processes = {slots}")]);
        let (mut session, mut gate) = (cluster.session(), cluster.session());
        for _ in 0..2 {
            run_together(&mut session, &mut gate, burst);
            gate.wait_until(&format!("count(*) = {idle} {IDLE}"));
            gate.wait_until(&format!(
                "count(*) = {idle} FROM pg_stat_activity WHERE backend_type = 'pg_background'"
            ));
        }
    }
}

/// With the server's eight slots a parallel query has its workers at once after a burst of jobs.
#[test]
fn parallel_query_has_its_workers_after_a_burst() {
    let cluster = Cluster::start(&[KEPT, "max_worker_processes = 8"]);
    let (mut session, mut gate) = (cluster.session(), cluster.session());
    gate.exec(
        "CREATE TABLE scanned AS SELECT n, repeat('x', 1000) AS filler FROM generate_series(1, 2000) AS n;
         ALTER TABLE scanned SET (parallel_workers = 4); ANALYZE scanned;
         SET max_parallel_workers_per_gather = 4; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
         SET min_parallel_table_scan_size = 0",
    );
    let explain = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT count(*) FROM scanned";
    for _ in 0..3 {
        // The launcher of logical replication has the eighth slot.
        let workers = run_together(&mut session, &mut gate, 7);
        gate.wait_until(&format!(
            "count(*) <= 2 FROM pg_stat_activity WHERE pid = ANY (ARRAY{workers:?})"
        ));
        // The slot of an ended process is free when the postmaster has noticed the end.
        wait_for("a query with four parallel workers", || {
            let plan = gate.rows(explain);
            plan.iter().any(|line| {
                line[0]
                    .as_ref()
                    .is_some_and(|line| line.contains("Workers Launched: 4"))
            })
        });
    }
}

#[test]
fn it_makes_room() {
    let cluster = Cluster::start(&[KEPT, "max_worker_processes = 4", "pg_background.max_idle_workers = 100"]);
    let (mut session, mut gate) = (cluster.session(), cluster.session());
    gate.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice");
    // The launcher of logical replication has one of the slots.
    run_together(&mut session, &mut gate, 3);
    gate.wait_until(&format!("count(*) = 3 {IDLE}"));
    let mut alice = cluster.session_as("alice");
    for _ in 0..3 {
        run_together(&mut alice, &mut gate, 3);
        gate.wait_until(&format!("count(*) = 3 {IDLE} AND usename = 'alice'"));
        run_together(&mut session, &mut gate, 3);
        gate.wait_until(&format!("count(*) = 3 {IDLE} AND usename = 'postgres'"));
    }
    // Busy workers are not told to exit.
    let jobs: Vec<_> = (0..3).map(|_| session.launch("SELECT pg_sleep(3600)")).collect();
    assert_eq!(alice.error("SELECT pg_background_launch('SELECT 1')").sqlstate, "53000");
    for job in jobs {
        session.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
        assert_eq!(session.state(job), "canceled");
    }
}
