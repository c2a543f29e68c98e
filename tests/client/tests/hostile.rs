//! Jobs that act on themselves or on each other, users who try to exceed their share, and resources that run out.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use harness::{Cluster, Handle, KEPT, Session, wait_for};

/// More rows than a queue holds.
const LARGE: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 3000)";

/// A cluster with two roles that may use the extension, and a superuser's session.
fn start(settings: &[&str]) -> (Cluster, Session) {
    let cluster = Cluster::start(settings);
    let mut superuser = cluster.session();
    superuser.exec("CREATE ROLE alice LOGIN; CREATE ROLE mallory LOGIN; GRANT pgbackground_role TO alice, mallory");
    (cluster, superuser)
}

/// A subquery, in the job's own SQL, that finds the job itself.
fn itself(call: &str) -> String {
    format!("SELECT {call} FROM pg_background_jobs WHERE pid = pg_backend_pid() AND finished_at IS NULL")
}

fn stop(cluster: &Cluster, pid: i32) {
    cluster.signal(pid, "STOP");
    wait_for("the stop of a process", || {
        std::fs::read_to_string(format!("/proc/{pid}/status"))
            .unwrap()
            .contains("State:\tT")
    });
}

/// A session that sees the job in the views can use its handle before the launch has returned it.
fn forgotten_before_the_launch_returns(forget: &str, warm: bool) {
    let timeout = if warm { "10min" } else { "0" };
    let (cluster, mut superuser) = start(&[&format!("pg_background.worker_idle_timeout = '{timeout}'")]);
    let mut session = cluster.session_as("alice");
    let mut other = cluster.session_as("alice");
    // What the launch waits for: a worker that sleeps, or the postmaster.
    let awaited = if warm {
        let pid = session.value::<i32>("SELECT pid FROM pg_background_run('SELECT 1')");
        superuser.wait_until(&format!(
            "wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = {pid}"
        ));
        pid
    } else {
        let file = std::fs::read_to_string(cluster.data().join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    };
    stop(&cluster, awaited);
    let launcher = session.pid;
    let launch = session.start("SELECT pid, cookie FROM pg_background_launch('SELECT 1', 0, 'fast')");
    superuser.wait_until(&format!(
        "wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = {launcher}"
    ));
    stop(&cluster, launcher);
    cluster.signal(awaited, "CONT");
    superuser.wait_until("EXISTS (SELECT FROM pg_background_jobs WHERE label = 'fast' AND state = 'stopped')");
    if !warm {
        wait_for("the end of the worker", || cluster.worker_processes().is_empty());
    }
    let forgot = other.rows(&format!("SELECT {forget} FROM pg_background_jobs WHERE label = 'fast'"));
    assert_eq!(forgot.len(), 1);
    cluster.signal(launcher, "CONT");
    let (mut session, launched) = launch.join();
    let job = Handle::of(&launched.expect("the launch has succeeded")[0]);
    let error = session.error(&format!("SELECT pg_background_wait({job})"));
    assert_eq!(error.sqlstate, "42704", "{error:?}");
    let counters = session.counters();
    assert_eq!((counters.active, counters.failed), (0, 0), "{counters:?}");
}

#[test]
fn a_job_that_is_detached_before_its_launch_returns() {
    forgotten_before_the_launch_returns("pg_background_detach(pid, cookie)", true);
}

#[test]
fn a_job_that_is_read_before_its_launch_returns() {
    forgotten_before_the_launch_returns("(SELECT n FROM pg_background_result(pid, cookie) AS (n int))", true);
}

#[test]
fn a_job_whose_worker_has_gone_before_its_launch_returns() {
    forgotten_before_the_launch_returns("(SELECT n FROM pg_background_result(pid, cookie) AS (n int))", false);
}

#[test]
fn a_job_uses_its_own_handle() {
    let (cluster, _superuser) = start(&["deadlock_timeout = '50ms'"]);
    let mut session = cluster.session_as("alice");
    for _ in 0..20 {
        let job = session.launch(&format!("{}; SELECT 5", itself("pg_background_detach(pid, cookie)")));
        session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
        assert!(session.error(&format!("SELECT pg_background_wait({job})")).sqlstate == "42704");
    }
    let ends = |session: &mut Session, sql: &str| {
        let job = session.launch(sql);
        session.wait(job);
        let sqlstate = session.sqlstate(job);
        session.exec(&format!("SELECT pg_background_detach({job})"));
        sqlstate
    };
    assert_eq!(
        ends(&mut session, &itself("pg_background_cancel(pid, cookie, 60000)")),
        "57014"
    );
    // A job that waits for itself never ends.
    for call in [
        "pg_background_wait(pid, cookie)",
        "pg_background_wait_any(ARRAY[ROW(pid, cookie)::pg_background_handle])",
        "(SELECT count(*) FROM pg_background_drain(ARRAY[ROW(pid, cookie)::pg_background_handle]))",
        "(SELECT n FROM pg_background_result(pid, cookie) AS (n int))",
    ] {
        assert_eq!(ends(&mut session, &itself(call)), "40P01", "{call}");
    }
}

#[test]
fn jobs_wait_for_each_other() {
    let (cluster, mut superuser) = start(&["deadlock_timeout = '50ms'"]);
    superuser.exec("CREATE TABLE handles (n int, pid int, cookie int8); GRANT ALL ON handles TO alice");
    let mut session = cluster.session_as("alice");
    superuser.exec("SELECT pg_advisory_lock(1)");
    let jobs: Vec<_> = (0..3)
        .map(|n| {
            let job = session.launch(&format!(
                "SELECT pg_advisory_xact_lock_shared(1); SELECT pg_background_wait(pid, cookie) FROM handles WHERE n = {}",
                (n + 1) % 3
            ));
            session.exec(&format!("INSERT INTO handles VALUES ({n}, {job})"));
            job
        })
        .collect();
    superuser.exec("SELECT pg_advisory_unlock(1)");
    let mut victims = 0;
    for job in &jobs {
        session.wait(*job);
        match session.sqlstate(*job).as_str() {
            "40P01" => victims += 1,
            other => assert_eq!(other, ""),
        }
    }
    assert!(victims > 0);
}

#[test]
fn a_job_that_is_named_very_often() {
    let (cluster, mut superuser) = start(&["deadlock_timeout = '10ms'"]);
    let mut session = cluster.session_as("mallory");
    let job = session.launch("SELECT pg_sleep(3600)");
    let many = format!("array_fill({}, ARRAY[500000])", job.composite());
    for wait in ["pg_background_wait_any", "count(*) FROM pg_background_drain"] {
        let began = Instant::now();
        session.exec(&format!("SELECT {wait}({many}, 50)"));
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{wait} took {:?}",
            began.elapsed()
        );
        let error = session.error(&format!("SET statement_timeout = '100ms'; SELECT {wait}({many})"));
        assert_eq!(error.sqlstate, "57014", "{error:?}");
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "{wait} took {:?}",
            began.elapsed()
        );
        session.exec("RESET statement_timeout");
    }
    assert!(superuser.holds(&format!("pg_background_cancel({job}, 60000) IS NOT NULL")));
}

/// A session of the role can do everything with the jobs that another session launches, as soon as it sees them.
#[test]
fn others_meddle_with_jobs_that_come_and_go() {
    const JOBS: i32 = 1500;
    let (cluster, mut superuser) = start(&["max_worker_processes = 16"]);
    superuser.exec("CREATE TABLE done (n int); GRANT ALL ON done TO alice");
    let meddling = "DO $$
        DECLARE
            job record;
        BEGIN
            WHILE NOT EXISTS (SELECT FROM pg_class WHERE relname = 'it_is_over') LOOP
                FOR job IN SELECT pid, cookie FROM pg_background_jobs WHERE finished_at IS NULL LOOP
                    BEGIN
                        CASE (random() * 3)::int
                            WHEN 0 THEN PERFORM pg_background_detach(job.pid, job.cookie);
                            WHEN 1 THEN PERFORM pg_background_cancel(job.pid, job.cookie);
                            WHEN 2 THEN PERFORM FROM pg_background_result(job.pid, job.cookie) AS (tag text);
                            ELSE PERFORM pg_background_wait(job.pid, job.cookie);
                        END CASE;
                    EXCEPTION WHEN undefined_object OR object_not_in_prerequisite_state OR query_canceled THEN
                        NULL;
                    END;
                END LOOP;
                COMMIT;
            END LOOP;
        END $$";
    let working = format!(
        "DO $$
        DECLARE
            job pg_background_handle;
        BEGIN
            FOR i IN 1..{JOBS} LOOP
                job := pg_background_launch('INSERT INTO done VALUES (1)');
                BEGIN
                    PERFORM FROM pg_background_result(job.pid, job.cookie) AS (tag text);
                EXCEPTION WHEN undefined_object OR object_not_in_prerequisite_state OR query_canceled THEN
                    NULL;
                END;
            END LOOP;
        END $$"
    );
    let meddlers: Vec<_> = (0..2).map(|_| cluster.session_as("alice").start(meddling)).collect();
    let workers: Vec<_> = (0..2).map(|_| cluster.session_as("alice").start(&working)).collect();
    for worker in workers {
        let (mut session, result) = worker.join();
        result.expect("every launch succeeds");
        session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
        let counters = session.counters();
        assert_eq!((counters.launched, counters.failed), (JOBS.into(), 0), "{counters:?}");
    }
    superuser.exec("CREATE TABLE it_is_over ()");
    for meddler in meddlers {
        meddler.join().1.expect("no other error than those");
    }
    // Each job did all of its work, or nothing.
    let row = &superuser.rows(
        "SELECT jobs_completed = (SELECT count(*) FROM done), jobs_launched = jobs_completed + jobs_canceled, jobs_canceled
         FROM pg_background_cluster_stats WHERE usename = 'alice'",
    )[0];
    println!("{row:?} were cancelled");
    assert_eq!(row[..2], [Some("t".to_owned()), Some("t".to_owned())], "{row:?}");
}

#[test]
fn files_of_results_are_the_servers_alone() {
    let (cluster, mut superuser) = start(&[]);
    let mut alice = cluster.session_as("alice");
    let job = alice.launch(LARGE);
    alice.wait(job);
    let files = cluster.temporary_files();
    assert!(!files.is_empty());
    let server = std::fs::metadata(cluster.data()).unwrap().uid();
    for path in files.iter().flat_map(|file| [file.as_path(), file.parent().unwrap()]) {
        let metadata = std::fs::metadata(path).unwrap();
        assert_eq!(
            (metadata.permissions().mode() & 0o077, metadata.uid()),
            (0, server),
            "{path:?}"
        );
    }
    superuser.exec(
        "GRANT pg_monitor, pg_read_all_data, pg_read_all_stats TO mallory; GRANT ALL ON SCHEMA public TO mallory",
    );
    let mut mallory = cluster.session_as("mallory");
    mallory.exec("CREATE TABLE loot (line text)");
    let path = files[0].display();
    for attempt in [
        format!("COPY loot FROM '{path}'"),
        format!("COPY loot FROM PROGRAM 'cat {path}'"),
        format!("SELECT pg_read_binary_file('{path}')"),
        "SELECT pg_read_file('base/pgsql_tmp')".to_owned(),
        format!("SELECT pg_stat_file('{path}')"),
        "SELECT pg_ls_dir('base/pgsql_tmp')".to_owned(),
        format!("SELECT lo_import('{path}')"),
        format!("LOAD '{path}'"),
    ] {
        assert_eq!(mallory.error(&attempt).sqlstate, "42501", "{attempt}");
    }
    // The list of temporary files does not show them: they are in directories.
    assert!(mallory.rows("SELECT * FROM pg_ls_tmpdir()").is_empty());
}

#[test]
fn a_role_keeps_so_many_handles() {
    let (cluster, mut superuser) = start(&[]);
    superuser
        .exec("ALTER ROLE mallory SET pg_background.max_role_handles = 5; CREATE ROLE guest; GRANT guest TO mallory");
    superuser.exec("GRANT pgbackground_role TO guest");
    let mut alice = cluster.session_as("alice");
    let (mut one, mut two) = (cluster.session_as("mallory"), cluster.session_as("mallory"));
    one.exec("SET pg_background.result_retention = '1h'");
    let launch = "SELECT pg_background_launch('SELECT 1')";
    let refused = |session: &mut Session, kept: i32| {
        let error = session.error(launch);
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("53400", "too many background job handles"),
        );
        let detail = format!("{kept} jobs of this role are running or have not been read or detached");
        assert!(
            error.detail.contains(&detail) && error.detail.contains("max_role_handles is 5"),
            "{error:?}"
        );
    };
    // A job that runs counts, whoever forgets its handle.
    let wait_until_running = |superuser: &mut Session, jobs: i32| {
        superuser.wait_until(&format!(
            "count(*) = {jobs} FROM pg_background_jobs WHERE usename = 'mallory' AND finished_at IS NULL"
        ));
    };
    let jobs: Vec<_> = (0..3).map(|_| one.launch("SELECT 1")).collect();
    let submitted = two.submit("SELECT pg_sleep(3600)");
    two.exec("SET ROLE guest");
    two.exec(launch);
    // The role that has logged in counts, whatever session or function launches.
    refused(&mut two, 5);
    two.exec("RESET ROLE");
    refused(&mut one, 5);
    let error = two.error("SET pg_background.max_role_handles = 0");
    assert_eq!(error.sqlstate, "42501", "{error:?}");
    alice.exec(launch);
    // A handle that is read, detached or purged no longer counts, nor do those of a session that ends.
    one.exec(&format!("SELECT * FROM pg_background_result({}) AS (n int)", jobs[0]));
    one.exec(launch);
    refused(&mut one, 5);
    wait_until_running(&mut superuser, 1);
    two.exec(&format!("SELECT pg_background_detach({})", jobs[1]));
    one.exec("SELECT pg_background_run('SELECT 1')");
    one.exec(launch);
    refused(&mut one, 5);
    assert!(two.holds(&format!("pg_background_cancel({submitted}, 60000) IS NOT NULL")));
    wait_until_running(&mut superuser, 0);
    let pid = two.pid;
    drop(two);
    superuser.wait_until(&format!("NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"));
    one.exec(launch);
    one.exec(launch);
    refused(&mut one, 5);
    // Retained results still count; but an administrator can discard them.
    let pid = one.pid;
    drop(one);
    superuser.wait_until(&format!("NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"));
    let mut three = cluster.session_as("mallory");
    refused(&mut three, 5);
    wait_until_running(&mut superuser, 0);
    assert_eq!(
        superuser.value::<i32>(
            "SELECT count(state) FROM pg_background_drain(ARRAY(
                 SELECT ROW(pid, cookie)::pg_background_handle FROM pg_background_jobs
                 WHERE usename = 'mallory' AND finished_at < now()))"
        ),
        5
    );
    assert_eq!(
        three.value::<i32>("SELECT count(pg_background_launch('SELECT 1')) FROM generate_series(1, 5)"),
        5
    );
    refused(&mut three, 5);
}

#[test]
fn what_is_kept_of_roles_and_databases_that_are_dropped() {
    let (cluster, mut superuser) = start(&["pg_background.result_retention = '1h'"]);
    superuser.exec("CREATE DATABASE \"a \"\"name\"\"; 'x' é\"");
    let database = "a \"name\"; 'x' é";
    let mut mallory = cluster.session_as("mallory");
    let launch = |sql: &str, label: &str| {
        format!(
            "SELECT pid, cookie FROM pg_background_launch_params('{sql}', ROW(), label => '{label}', database => '{}')",
            database.replace('\'', "''")
        )
    };
    let name = mallory.handle(&launch("SELECT current_database()", "name"));
    let large = mallory.handle(&launch(&LARGE.replace('\'', "''"), "large"));
    let here = mallory.launch("SELECT 7");
    let running = mallory.submit("SELECT pg_sleep(3600)");
    for job in [name, large, here] {
        mallory.wait(job);
    }
    mallory.wait_running(running);
    assert_eq!(
        mallory.value::<String>(&format!("SELECT * FROM pg_background_result({name}) AS (n name)")),
        database
    );
    let shown = |label: &str| format!("SELECT datname, usename, state FROM pg_background_jobs WHERE label = '{label}'");
    let texts = |parts: [Option<&str>; 3]| vec![parts.map(|part| part.map(str::to_owned)).to_vec()];
    superuser.exec("ALTER DATABASE \"a \"\"name\"\"; 'x' é\" RENAME TO renamed; ALTER ROLE mallory RENAME TO eve");
    assert_eq!(
        superuser.rows(&shown("large")),
        texts([Some("renamed"), Some("eve"), Some("stopped")])
    );
    superuser.exec("DROP DATABASE renamed");
    drop(mallory);
    superuser.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'eve' AND backend_type = 'client backend')",
    );
    superuser.exec("DROP ROLE eve");
    assert_eq!(superuser.rows(&shown("large")), texts([None, None, Some("stopped")]));
    assert!(superuser.holds("count(*) = 1 FROM pg_background_cluster_stats WHERE datname IS NULL AND usename IS NULL"));
    // The role no longer exists; superusers can still act on its jobs.
    let mut alice = cluster.session_as("alice");
    for job in [large, here, running] {
        assert_eq!(
            alice.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
            "42501"
        );
    }
    assert_eq!(
        superuser.value::<i32>(&format!(
            "SELECT count(*) FROM pg_background_result({large}) AS (t text)"
        )),
        3000
    );
    assert_eq!(
        superuser.value::<i32>(&format!("SELECT * FROM pg_background_result({here}) AS (n int)")),
        7
    );
    assert!(superuser.holds(&format!("pg_background_cancel({running}, 60000) IS NOT NULL")));
    superuser.exec(&format!("SELECT pg_background_detach({running})"));
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

/// Limits the size of files that a process can make, in bytes.
fn limit_file_size(pid: i32, bytes: &str) {
    let mut prlimit = harness::as_server("prlimit");
    prlimit.arg(format!("--fsize={bytes}:")).arg(format!("--pid={pid}"));
    assert!(prlimit.status().unwrap().success());
}

#[test]
fn memory_and_disk_that_are_refused() {
    // Here shared memory is in files, so one limit refuses both.
    let (cluster, mut superuser) = start(&[
        "dynamic_shared_memory_type = mmap",
        KEPT,
        "pg_background.max_idle_workers = 1",
    ]);
    let mut session = cluster.session_as("mallory");
    let mut other = cluster.session_as("alice");
    let worker = session.value::<i32>("SELECT pid FROM pg_background_run('SELECT 1')");
    let state = |session: &mut Session, sql: &str, size: i32| {
        let job = session.handle(&format!(
            "SELECT pid, cookie FROM pg_background_launch({}, {size})",
            harness::quoted(sql)
        ));
        assert_eq!(job.pid, worker);
        session.wait(job);
        let sqlstate = session.sqlstate(job);
        let read = session.try_rows(&format!("SELECT count(*) FROM pg_background_result({job}) AS (t text)"));
        assert_eq!(read.map_or_else(|error| error.sqlstate, |_| String::new()), sqlstate);
        assert_eq!(
            session.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
            "42704"
        );
        sqlstate
    };
    const HUGE: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 30000)";
    // Sixty of the blocks by which the server fills a segment: after a partial write the server's error has no reason.
    const LIMIT: &str = "491520";
    let segments = |cluster: &Cluster| cluster.shared_memory_segments();
    assert_eq!(state(&mut session, HUGE, 0), "");
    limit_file_size(worker, LIMIT);
    // On disk, then in memory.
    assert_ne!(state(&mut session, HUGE, 0), "");
    let before = segments(&cluster);
    let is_refusal = |sqlstate: &str| ["53100", "53200"].contains(&sqlstate);
    assert!(is_refusal(&state(&mut session, HUGE, 256 << 20)));
    assert_eq!(segments(&cluster), before);
    limit_file_size(worker, "unlimited");
    assert_eq!(state(&mut session, HUGE, 0), "");
    assert_eq!(state(&mut session, HUGE, 256 << 20), "");

    // A launch that gets no memory itself.
    limit_file_size(session.pid, LIMIT);
    let before = segments(&cluster);
    let error = session.error("SELECT pg_background_launch('SELECT ''' || repeat('x', 200000000) || '''')");
    assert!(is_refusal(&error.sqlstate), "{error:?}");
    assert_eq!(segments(&cluster), before);
    assert_eq!(state(&mut session, "SELECT 'x'::text", 0), "");
    other.exec("SELECT pg_background_run('SELECT 1')");
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
    let counters = session.counters();
    assert_eq!(counters.active, 0, "{counters:?}");
    assert!(superuser.holds("count(*) = 0 FROM pg_background_jobs WHERE finished_at IS NULL"));
}
