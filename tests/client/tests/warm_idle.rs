//! Workers that wait for a job: whom they serve, how many stay and for how long, and that they are in nobody's way.

use std::fs;
use std::time::{Duration, Instant};

use harness::{Cluster, Session, Shutdown, wait_for};

const KEPT: &str = "pg_background.worker_idle_timeout = '10min'";
const IDLE: &str = "FROM pg_stat_activity WHERE backend_type = 'pg_background' AND state = 'idle'";

/// Runs a job and gives the process that ran it.
#[track_caller]
fn run(session: &mut Session) -> i32 {
    let row = session
        .rows("SELECT state, pid, error_message FROM pg_background_run('SELECT 1')")
        .remove(0);
    assert_eq!(row[0].as_deref(), Some("stopped"), "{row:?}");
    row[1].as_deref().unwrap().parse().unwrap()
}

/// Runs a job whose worker then waits for the next.
#[track_caller]
fn leave_idle(session: &mut Session) -> i32 {
    let pid = run(session);
    session.wait_until(&format!("EXISTS (SELECT {IDLE} AND pid = {pid})"));
    pid
}

#[track_caller]
fn wait_gone(observer: &mut Session, pid: i32) {
    observer.wait_until(&format!("NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"));
}

/// Jobs that run at the same time, and so in as many workers, which all wait for the next one afterwards. `gate` may launch none of
/// them.
#[track_caller]
fn run_together(session: &mut Session, gate: &mut Session, count: usize) -> Vec<i32> {
    gate.exec("SELECT pg_advisory_lock(42)");
    let jobs: Vec<_> = (0..count)
        .map(|_| session.launch("SELECT pg_advisory_xact_lock_shared(42)"))
        .collect();
    for job in &jobs {
        gate.wait_blocked(job.pid);
    }
    gate.exec("SELECT pg_advisory_unlock(42)");
    for job in &jobs {
        session.wait(*job);
        session.exec(&format!("SELECT pg_background_detach({job})"));
    }
    jobs.into_iter().map(|job| job.pid).collect()
}

/// A statement that an idle worker must not hold up.
#[track_caller]
fn promptly(session: &mut Session, sql: &str) {
    let started = Instant::now();
    session.exec(sql);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{sql} took {:?}",
        started.elapsed()
    );
}

/// A database with an idle worker and no session.
#[track_caller]
fn database_with_idle_worker(cluster: &Cluster, administrator: &mut Session, name: &str) -> i32 {
    administrator.exec(&format!("CREATE DATABASE {name}"));
    let mut session = cluster.session_in(name, "postgres");
    session.exec("CREATE EXTENSION pg_background");
    let pid = leave_idle(&mut session);
    drop(session);
    administrator.wait_until(&format!(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{name}' AND backend_type = 'client backend')"
    ));
    pid
}

#[test]
fn databases_and_roles_change_freely() {
    let cluster = Cluster::start(&[KEPT]);
    let mut administrator = cluster.session();
    for statements in [
        vec!["DROP DATABASE d"],
        vec!["DROP DATABASE d WITH (FORCE)"],
        vec![
            "CREATE DATABASE copied TEMPLATE d",
            "DROP DATABASE copied",
            "DROP DATABASE d",
        ],
        vec![
            "CREATE DATABASE copied TEMPLATE d STRATEGY file_copy",
            "DROP DATABASE copied",
            "DROP DATABASE d",
        ],
        vec!["ALTER DATABASE d RENAME TO e", "DROP DATABASE e"],
        vec!["ALTER DATABASE d ALLOW_CONNECTIONS false", "DROP DATABASE d"],
    ] {
        database_with_idle_worker(&cluster, &mut administrator, "d");
        for statement in statements {
            promptly(&mut administrator, statement);
        }
    }

    let place = cluster.socket_dir().join("tablespace");
    fs::create_dir(&place).unwrap();
    harness::give_to_server(&place);
    administrator.exec(&format!("CREATE TABLESPACE t LOCATION '{}'", place.display()));
    database_with_idle_worker(&cluster, &mut administrator, "d");
    promptly(&mut administrator, "ALTER DATABASE d SET TABLESPACE t");
    // The worker of a database that came to its tablespace by then has files open there.
    let mut session = cluster.session_in("d", "postgres");
    session.exec("CREATE TABLE there (n int); SELECT pg_background_run('INSERT INTO there VALUES (1)')");
    drop(session);
    administrator.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'd' AND backend_type = 'client backend')",
    );
    promptly(&mut administrator, "ALTER DATABASE d SET TABLESPACE pg_default");
    administrator.exec("CREATE TABLE moved (n int) TABLESPACE t");
    administrator.exec("SELECT pg_background_run('INSERT INTO moved VALUES (1)')");
    administrator.exec("DROP TABLE moved");
    promptly(&mut administrator, "DROP TABLESPACE t");

    administrator.exec("CREATE ROLE carol LOGIN; GRANT pgbackground_role TO carol");
    let mut session = cluster.session_as("carol");
    leave_idle(&mut session);
    drop(session);
    administrator.exec("REVOKE pgbackground_role FROM carol");
    promptly(&mut administrator, "DROP ROLE carol");

    // What needs all snapshots or all locks gone has nothing to wait for.
    leave_idle(&mut administrator);
    administrator.exec("CREATE TABLE indexed (n int)");
    promptly(&mut administrator, "CREATE INDEX CONCURRENTLY ON indexed (n)");
    assert!(administrator.holds(&format!(
        "bool_and(backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL) {IDLE}"
    )));
    assert!(administrator.holds(&format!(
        "NOT EXISTS (SELECT FROM pg_locks WHERE pid IN (SELECT pid {IDLE}))"
    )));
}

#[test]
fn a_shutdown_does_not_wait() {
    for mode in [Shutdown::Fast, Shutdown::Smart] {
        let cluster = Cluster::start(&[KEPT]);
        let (mut session, mut gate) = (cluster.session(), cluster.session());
        run_together(&mut session, &mut gate, 3);
        gate.wait_until(&format!("count(*) = 3 {IDLE}"));
        drop((session, gate));
        let started = Instant::now();
        cluster.stop(mode);
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{mode:?} took {:?}",
            started.elapsed()
        );
        cluster.restart();
        run(&mut cluster.session());
    }
}

#[test]
fn how_an_idle_worker_is_seen() {
    let cluster = Cluster::start(&[KEPT]);
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    session.exec("CREATE TABLE counted (n int)");
    let job =
        session.handle("SELECT pid, cookie FROM pg_background_submit('INSERT INTO counted VALUES (1)', 0, 'label')");
    session.wait(job);
    observer.wait_until(&format!("EXISTS (SELECT {IDLE} AND pid = {})", job.pid));
    let row = observer
        .rows(&format!(
            "SELECT application_name, xact_start, backend_xid, datname, usename FROM pg_stat_activity WHERE pid = {}",
            job.pid
        ))
        .remove(0);
    let name = row[0].clone().unwrap();
    assert!(
        name.starts_with("pg_background") && !name.contains("label") && !name.contains(&job.pid.to_string()),
        "{name}"
    );
    assert_eq!((row[1].as_deref(), row[2].as_deref()), (None, None), "{row:?}");

    // The handle is kept, but the worker is not the job's any more.
    let activity = format!(
        "SELECT pgbg_state, backend_state, query FROM pg_background_activity WHERE pid = {}",
        job.pid
    );
    assert_eq!(session.rows(&activity), vec![vec![Some("stopped".into()), None, None]]);
    // What the job did is counted although its process has not ended.
    observer.wait_until("n_tup_ins = 1 FROM pg_stat_user_tables WHERE relname = 'counted'");

    // Beside the job that the same process runs now, it is shown.
    let next = session.launch("SELECT pg_sleep(60)");
    assert_eq!(next.pid, job.pid);
    assert_ne!(next.cookie, job.cookie);
    session.wait_running(next);
    assert_eq!(
        session.rows("SELECT pgbg_state, backend_state FROM pg_background_activity ORDER BY launched_at"),
        vec![
            vec![Some("stopped".into()), None],
            vec![Some("running".into()), Some("active".into())]
        ]
    );
    session.exec(&format!("SELECT pg_background_cancel({job})"));
    assert_eq!(
        session.state(next),
        "running",
        "a cancel of the job before does nothing"
    );
    session.exec(&format!("SELECT pg_background_cancel({next}, 60000)"));
    assert_eq!(
        (session.state(job), session.state(next)),
        ("stopped".into(), "canceled".into())
    );
    assert!(
        !cluster.log().contains("label"),
        "the log tells of an idle worker by its last job"
    );
}

#[test]
fn handles_stay_unique() {
    let cluster = Cluster::start(&[KEPT]);
    let mut session = cluster.session();
    let jobs: Vec<_> = (0..200)
        .map(|n| {
            let job = session.launch(&format!(
                "SELECT {n}, repeat('x', 1000) FROM generate_series(1, {})",
                if n % 20 == 0 { 500 } else { 2 }
            ));
            session.wait(job);
            job
        })
        .collect();
    let mut cookies: Vec<_> = jobs.iter().map(|job| job.cookie).collect();
    cookies.sort_unstable();
    cookies.dedup();
    assert_eq!(cookies.len(), jobs.len());
    assert!(
        jobs.iter().all(|job| job.pid == jobs[0].pid),
        "one worker runs them all"
    );
    assert_eq!(
        session.value::<usize>("SELECT count(*) FROM pg_background_list"),
        jobs.len()
    );
    // Each result is the one of its own job, in whatever order they are read, in memory and in files.
    for (n, job) in jobs.iter().enumerate().rev() {
        let row = session
            .rows(&format!(
                "SELECT min(n), max(n), count(*) FROM pg_background_result({job}) AS (n int, x text)"
            ))
            .remove(0);
        let number = Some(n.to_string());
        let rows = if n % 20 == 0 { "500" } else { "2" };
        assert_eq!(row, vec![number.clone(), number, Some(rows.into())]);
        if n > 0 {
            // The pid is known by other jobs still.
            assert_eq!(
                session.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
                "55000"
            );
        }
    }
    assert_eq!(
        session
            .error(&format!("SELECT pg_background_wait({})", jobs[0]))
            .sqlstate,
        "42704"
    );
}

#[test]
fn records_of_jobs_that_shared_a_worker() {
    let cluster = Cluster::start(&[KEPT]);
    let mut session = cluster.session();
    let jobs = [
        "SELECT ROW(1, 'a'::text)",
        "SELECT ROW('b'::text, 2, now() IS NULL)",
        "SELECT ROW(3)",
        "SELECT ROW(ROW(4, 'd'::text), ROW('e'::text))",
    ]
    .map(|sql| {
        let job = session.launch(sql);
        session.wait(job);
        job
    });
    let texts = ["(1,a)", "(b,2,f)", "(3)", "(\"(4,d)\",\"(e)\")"];
    for (job, text) in jobs.iter().zip(texts).rev() {
        assert_eq!(
            session.value::<String>(&format!("SELECT x FROM pg_background_result({job}) AS (x record)")),
            text
        );
    }
}

#[test]
fn whom_a_worker_serves() {
    let cluster = Cluster::start(&[KEPT]);
    let mut administrator = cluster.session();
    administrator.exec("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT pgbackground_role TO alice, bob");
    administrator.exec("CREATE DATABASE second");
    cluster
        .session_in("second", "postgres")
        .exec("CREATE EXTENSION pg_background");

    // Another role, or another database, gets another worker, and each finds its own again.
    let mut sessions = [
        cluster.session_as("alice"),
        cluster.session_as("bob"),
        cluster.session_in("second", "alice"),
        cluster.session_in("second", "postgres"),
    ];
    let workers = sessions.each_mut().map(leave_idle);
    for _ in 0..5 {
        assert_eq!(sessions.each_mut().map(leave_idle), workers);
    }
    let mut different = workers.to_vec();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), workers.len(), "{workers:?}");
    drop(sessions);

    // Sessions of the same role keep to the worker that served them before.
    let (mut one, mut two, mut three) = (
        cluster.session_as("alice"),
        cluster.session_as("alice"),
        cluster.session_as("alice"),
    );
    run_together(&mut three, &mut administrator, 3);
    administrator.wait_until(&format!(
        "count(*) >= 3 {IDLE} AND usename = 'alice' AND datname = 'postgres'"
    ));
    let a = one.launch("SELECT pg_sleep(3600)");
    let b = two.launch("SELECT pg_sleep(3600)");
    assert_ne!(a.pid, b.pid);
    one.exec(&format!("SELECT pg_background_cancel({a}, 60000)"));
    two.exec(&format!("SELECT pg_background_cancel({b}, 60000)"));
    let (a, b) = (leave_idle(&mut one), leave_idle(&mut two));
    assert_ne!(a, b, "each session has a worker");
    for _ in 0..5 {
        assert_eq!(leave_idle(&mut two), b);
        assert_eq!(leave_idle(&mut one), a);
    }
    // A session that ended leaves its worker to others.
    drop((one, two, three));
    let mut next = cluster.session_as("alice");
    let before: i32 = administrator.value(&format!(
        "SELECT count(*) {IDLE} AND usename = 'alice' AND datname = 'postgres'"
    ));
    let pid = leave_idle(&mut next);
    let after: i32 = administrator.value(&format!(
        "SELECT count(*) {IDLE} AND usename = 'alice' AND datname = 'postgres'"
    ));
    assert_eq!((before, after > 0), (after, true), "{pid}");
}

#[test]
fn how_long_it_waits() {
    let cluster = Cluster::start(&["pg_background.worker_idle_timeout = '400ms'"]);
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    let pid = run(&mut session);
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
    let pid = run(&mut session);
    assert_eq!(leave_idle(&mut session), pid);
    observer.exec("ALTER SYSTEM SET pg_background.worker_idle_timeout = 0");
    observer.exec("SELECT pg_reload_conf()");
    session.wait_until("current_setting('pg_background.worker_idle_timeout') = '0'");
    wait_gone(&mut observer, pid);
    let first = run(&mut session);
    wait_gone(&mut observer, first);
}

#[test]
fn a_session_can_do_without() {
    let cluster = Cluster::start(&[KEPT]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    let pid = leave_idle(&mut session);
    session.exec("SET pg_background.worker_idle_timeout = 0");
    let mut fresh: Vec<_> = (0..5).map(|_| run(&mut session)).collect();
    fresh.sort_unstable();
    fresh.dedup();
    assert_eq!(fresh.len(), 5);
    assert!(!fresh.contains(&pid));
    assert_eq!(run(&mut other), pid, "the settings are those of one session");
    session.exec("RESET pg_background.worker_idle_timeout");
    let pid = leave_idle(&mut session);
    assert_eq!(run(&mut session), pid);

    other.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice");
    let mut alice = cluster.session_as("alice");
    run(&mut alice);
    for setting in ["worker_idle_timeout", "max_idle_workers"] {
        assert_eq!(
            alice.error(&format!("SET pg_background.{setting} = 1")).sqlstate,
            "42501"
        );
    }
}

/// A worker that waits keeps up with what happens meanwhile.
#[test]
fn catalogs_change_while_it_waits() {
    let cluster = Cluster::start(&[KEPT]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    session.exec("CREATE TABLE changing (a int)");
    let pid = leave_idle(&mut session);
    session.exec("SELECT pg_background_run('SELECT * FROM changing')");
    other.exec(
        "DO $$ BEGIN FOR i IN 1..1500 LOOP CREATE TABLE passing (n int, t text); DROP TABLE passing; COMMIT; END LOOP; END $$",
    );
    other.exec("ALTER TABLE changing ADD b text DEFAULT 'new'; INSERT INTO changing VALUES (1)");
    let job = session.launch("SELECT b FROM changing");
    assert_eq!(
        session.value::<String>(&format!("SELECT b FROM pg_background_result({job}) AS (b text)")),
        "new"
    );
    assert_eq!(job.pid, pid, "the worker was not kept");
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

#[test]
fn signals_to_an_idle_worker() {
    let cluster = Cluster::start(&[KEPT]);
    let (mut session, mut administrator) = (cluster.session(), cluster.session());
    let pid = leave_idle(&mut session);
    for _ in 0..50 {
        administrator.exec(&format!("SELECT pg_cancel_backend({pid})"));
        run(&mut session);
    }
    cluster.signal(leave_idle(&mut session), "INT");
    assert_eq!(leave_idle(&mut session), run(&mut session));
    // The next job is launched before the worker has had the time to go.
    for _ in 0..20 {
        let pid = leave_idle(&mut session);
        administrator.exec(&format!("SELECT pg_terminate_backend({pid})"));
        assert_ne!(run(&mut session), pid);
    }
    let pid = leave_idle(&mut session);
    assert!(administrator.holds(&format!("pg_terminate_backend({pid}, 10000)")));
    run(&mut session);

    // The session that it served is terminated: idle, and with a job running.
    let pid = leave_idle(&mut session);
    administrator.exec(&format!("SELECT pg_terminate_backend({}, 60000)", session.pid));
    let mut session = cluster.session();
    assert_eq!(run(&mut session), pid);
    administrator.exec("CREATE TABLE effects (n int); SELECT pg_advisory_lock(1)");
    let job = session.launch("SELECT pg_advisory_xact_lock(1); INSERT INTO effects VALUES (1)");
    administrator.wait_blocked(job.pid);
    administrator.exec(&format!("SELECT pg_terminate_backend({}, 60000)", session.pid));
    administrator.exec("SELECT pg_advisory_unlock(1)");
    administrator.wait_until("EXISTS (SELECT FROM effects)");
    administrator.wait_until(&format!("EXISTS (SELECT {IDLE} AND pid = {})", job.pid));
    assert_eq!(run(&mut cluster.session()), job.pid);
}

#[test]
fn a_crash_takes_idle_workers_along() {
    let cluster = Cluster::start(&[KEPT]);
    cluster.expect_crash();
    for victim_is_idle in [true, false] {
        let mut session = cluster.session();
        let idle = leave_idle(&mut session);
        cluster.signal(if victim_is_idle { idle } else { session.pid }, "KILL");
        // Who connects before the server has noticed goes down with it.
        wait_for("the crash", || session.try_rows("SELECT 1").is_err());
        wait_for("the server's recovery", || {
            cluster.try_session_in("postgres", "postgres").is_ok_and(|mut session| {
                session
                    .try_rows("SELECT pg_background_run('SELECT 1'), pg_sleep(0.1)")
                    .is_ok()
            })
        });
        let mut session = cluster.session();
        let pid = leave_idle(&mut session);
        assert_ne!(pid, idle);
        assert_eq!(run(&mut session), pid);
    }
}

#[test]
fn a_standby() {
    let primary = Cluster::start(&["max_wal_senders = 4", KEPT]);
    let mut on_primary = primary.session();
    on_primary.exec("CREATE TABLE copied (n int)");
    on_primary.exec("CREATE DATABASE doomed");
    primary
        .session_in("doomed", "postgres")
        .exec("CREATE EXTENSION pg_background");
    let standby = Cluster::standby_of(&primary, &[KEPT]);
    let mut session = standby.session();
    let pid = leave_idle(&mut session);
    assert_eq!(run(&mut session), pid);

    // Replay does not wait for a worker of a database that is dropped, or for one that holds nothing.
    let mut doomed = standby.session_in("doomed", "postgres");
    leave_idle(&mut doomed);
    drop(doomed);
    on_primary.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'doomed')");
    on_primary.exec("DROP DATABASE doomed");
    on_primary.exec("DROP TABLE copied; CREATE TABLE copied (n int); INSERT INTO copied VALUES (1)");
    on_primary.exec("VACUUM copied");
    session.wait_until("NOT EXISTS (SELECT FROM pg_database WHERE datname = 'doomed')");
    let target: String = on_primary.value("SELECT pg_current_wal_lsn()");
    session.wait_until(&format!("pg_last_wal_replay_lsn() >= '{target}'"));
    let job = session.launch("SELECT n FROM copied");
    assert_eq!(
        session.value::<i32>(&format!("SELECT n FROM pg_background_result({job}) AS (n int)")),
        1
    );

    // A worker from before the promotion may write after it.
    session.exec("SELECT pg_promote()");
    let row = session
        .rows("SELECT state, error_message FROM pg_background_run('INSERT INTO copied VALUES (2)')")
        .remove(0);
    assert_eq!(row, vec![Some("stopped".into()), None]);
    assert_eq!(session.value::<i32>("SELECT count(*) FROM copied"), 2);
}

/// The library is replaced by another build, as a package does it: here the same one under another number.
#[test]
fn a_replaced_library_is_not_used_on() {
    let cluster = Cluster::start_plain(&[KEPT]);
    let place = cluster.socket_dir().join("libraries");
    fs::create_dir(&place).unwrap();
    let installed = fs::read(format!("{}/pg_background.so", harness::pg_config("pkglibdir"))).unwrap();
    let put = |library: &[u8]| {
        let fresh = place.join("fresh");
        fs::write(&fresh, library).unwrap();
        fs::rename(&fresh, place.join("pg_background.so")).unwrap();
    };
    put(&installed);
    harness::give_to_server(&place);
    cluster.append_settings(&[&format!("dynamic_library_path = '{}:$libdir'", place.display())]);
    cluster.stop(Shutdown::Fast);
    cluster.restart();
    cluster.session().exec(
        "CREATE EXTENSION pg_background;
         UPDATE pg_proc SET probin = 'pg_background' WHERE probin = '$libdir/pg_background'",
    );
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    let pid = leave_idle(&mut session);
    assert_eq!(run(&mut session), pid);

    put(&another_build(&installed));
    let mut new_session = cluster.session();
    let new_pid = leave_idle(&mut new_session);
    assert_ne!(
        new_pid, pid,
        "a session with the new library has a worker with the new library"
    );
    assert_eq!(run(&mut new_session), new_pid);
    wait_gone(&mut observer, pid);
    // The session of before has to connect again, and is told so rather than served by something else.
    let sqlstate = match session.try_rows("SELECT sqlstate FROM pg_background_run('SELECT 1')") {
        Ok(mut rows) => rows.remove(0).remove(0),
        Err(error) => Some(error.sqlstate),
    };
    assert_eq!(sqlstate.as_deref(), Some("08006"));
    assert_eq!(run(&mut new_session), new_pid);
}

/// The library with the number of its build changed wherever it is.
fn another_build(library: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"pg_background ";
    let digits = |at: usize| library[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = (0..library.len() - NAME.len())
        .filter(|&at| library[at..].starts_with(NAME))
        .map(|at| &library[at + NAME.len()..][..digits(at + NAME.len())])
        .find(|number| number.len() > 8)
        .expect("the library has its number");
    let mut other = library.to_vec();
    let mut at = 0;
    while let Some(next) = (at..library.len() - number.len()).find(|&at| library[at..].starts_with(number)) {
        let last = next + number.len() - 1;
        other[last] = if library[last] == b'0' { b'1' } else { b'0' };
        at = last + 1;
    }
    other
}
