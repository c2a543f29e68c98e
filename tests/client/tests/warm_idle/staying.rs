//! How long a worker waits, how many do, and for whom they make room.

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

    // The setting is read from the configuration file again, and counts for a worker that waits already.
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
    // By default at least half of the slots are left to others.
    let cluster = Cluster::start(&[KEPT, "max_worker_processes = 10"]);
    let (mut session, mut gate) = (cluster.session(), cluster.session());
    let workers = run_together(&mut session, &mut gate, 8);
    gate.wait_until(&format!(
        "count(*) <= 5 FROM pg_stat_activity WHERE pid = ANY (ARRAY{workers:?})"
    ));
    assert!(gate.holds(&format!("count(*) > 0 {IDLE}")));
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
    // Workers at work are not sent away.
    let jobs: Vec<_> = (0..3).map(|_| session.launch("SELECT pg_sleep(3600)")).collect();
    assert_eq!(alice.error("SELECT pg_background_launch('SELECT 1')").sqlstate, "53000");
    for job in jobs {
        session.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
        assert_eq!(session.state(job), "canceled");
    }
}
