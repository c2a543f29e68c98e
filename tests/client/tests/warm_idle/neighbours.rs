//! What an idle worker could block, and does not.

use super::*;

#[test]
fn databases_and_roles_change_freely() {
    let cluster = Cluster::start(&[KEPT]);
    let mut administrator = cluster.session();
    // Up to version 14 this is the only way.
    let copied_as_files = match administrator.holds("current_setting('server_version_num')::int < 150000") {
        true => "CREATE DATABASE copied TEMPLATE d",
        false => "CREATE DATABASE copied TEMPLATE d STRATEGY file_copy",
    };
    for statements in [
        vec!["DROP DATABASE d"],
        vec!["DROP DATABASE d WITH (FORCE)"],
        vec![
            "CREATE DATABASE copied TEMPLATE d",
            "DROP DATABASE copied",
            "DROP DATABASE d",
        ],
        vec![copied_as_files, "DROP DATABASE copied", "DROP DATABASE d"],
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
    // The worker of a database that was moved to its tablespace by then has files open there.
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

    // Commands that wait for all snapshots or all locks have nothing to wait for.
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
        cluster.session().run();
    }
}

#[test]
fn signals_to_an_idle_worker() {
    let cluster = Cluster::start(&[KEPT]);
    let (mut session, mut administrator) = (cluster.session(), cluster.session());
    let pid = leave_idle(&mut session);
    for _ in 0..50 {
        administrator.exec(&format!("SELECT pg_cancel_backend({pid})"));
        session.run();
    }
    cluster.signal(leave_idle(&mut session), "INT");
    assert_eq!(leave_idle(&mut session), session.run());
    // The next job is launched before the worker has had time to exit.
    for _ in 0..20 {
        let pid = leave_idle(&mut session);
        administrator.exec(&format!("SELECT pg_terminate_backend({pid})"));
        assert_ne!(session.run(), pid);
    }
    let pid = leave_idle(&mut session);
    assert!(administrator.holds(&format!("pg_terminate_backend({pid}, 10000)")));
    session.run();

    // The session that it served is terminated: while the worker is idle, and while a job runs.
    let pid = leave_idle(&mut session);
    administrator.exec(&format!("SELECT pg_terminate_backend({}, 60000)", session.pid));
    let mut session = cluster.session();
    assert_eq!(session.run(), pid);
    administrator.exec("CREATE TABLE effects (n int); SELECT pg_advisory_lock(1)");
    let job = session.launch("SELECT pg_advisory_xact_lock(1); INSERT INTO effects VALUES (1)");
    administrator.wait_blocked(job.pid);
    administrator.exec(&format!("SELECT pg_terminate_backend({}, 60000)", session.pid));
    administrator.exec("SELECT pg_advisory_unlock(1)");
    administrator.wait_until("EXISTS (SELECT FROM effects)");
    administrator.wait_until(&format!("EXISTS (SELECT {IDLE} AND pid = {})", job.pid));
    assert_eq!(cluster.session().run(), job.pid);
}

#[test]
fn a_crash_takes_idle_workers_along() {
    let cluster = Cluster::start(&[KEPT]);
    cluster.expect_crash();
    for victim_is_idle in [true, false] {
        let mut session = cluster.session();
        let idle = leave_idle(&mut session);
        cluster.signal(if victim_is_idle { idle } else { session.pid }, "KILL");
        // A session that connects before the server has noticed the crash ends with it.
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
        assert_eq!(session.run(), pid);
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
    assert_eq!(session.run(), pid);

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

/// Replaces the library by another build, as a package does: here by the same one with another build number.
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
    assert_eq!(session.run(), pid);

    put(&another_build(&installed));
    let mut new_session = cluster.session();
    let new_pid = leave_idle(&mut new_session);
    assert_ne!(
        new_pid, pid,
        "a session with the new library has a worker with the new library"
    );
    assert_eq!(new_session.run(), new_pid);
    wait_gone(&mut observer, pid);
    // A session with the old build must reconnect, and gets an error that says so.
    let sqlstate = match session.try_rows("SELECT sqlstate FROM pg_background_run('SELECT 1')") {
        Ok(mut rows) => rows.remove(0).remove(0),
        Err(error) => Some(error.sqlstate),
    };
    assert_eq!(sqlstate.as_deref(), Some("08006"));
    assert_eq!(new_session.run(), new_pid);
}

/// The library with its build number changed in all places.
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

/// An idle worker processes the events that happen meanwhile.
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
