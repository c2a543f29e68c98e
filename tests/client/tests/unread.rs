//! Unread results: the job ends all the same, and its rows go to temporary files.

use harness::{Cluster, Handle, KEPT, Session, process_status, try_process_status, wait_for};

/// 200 MB.
const LARGE: &str = "SELECT g, repeat('x', 1000) FROM generate_series(1, 200000) g";
const COLUMNS: &str = "AS (g int, t text)";

/// Small shared buffers, so that a process's memory is mostly its own.
fn start() -> (Cluster, Session) {
    let cluster = Cluster::start(&["shared_buffers = 16MB", "work_mem = 4MB"]);
    let session = cluster.session();
    (cluster, session)
}

fn temporary_bytes(cluster: &Cluster) -> u64 {
    cluster
        .temporary_files()
        .iter()
        .filter_map(|file| file.metadata().ok())
        .map(|file| file.len())
        .sum()
}

#[track_caller]
fn ended(session: &mut Session, sql: &str) -> Handle {
    let job = session.launch(sql);
    session.wait(job);
    assert_eq!(session.state(job), "stopped");
    job
}

#[test]
fn job_ends_and_commits_and_its_rows_wait() {
    let (cluster, mut session) = start();
    session.exec("CREATE TABLE effects (n int)");
    let job = ended(&mut session, &format!("INSERT INTO effects VALUES (1); {LARGE}"));
    assert_eq!(
        session.value::<i32>("SELECT count(*) FROM effects"),
        1,
        "the job has committed"
    );
    let bytes = temporary_bytes(&cluster);
    assert!(bytes > 150_000_000, "{bytes} bytes in temporary files");

    let count: i32 = session.value(&format!(
        "SELECT count(*) FROM (SELECT g = row_number() OVER () AND length(t) = 1000 AS ok
         FROM pg_background_result({job}) {COLUMNS}) s WHERE ok"
    ));
    assert_eq!(count, 200_000, "all rows, in their order");
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
    let peak = process_status(session.pid, "VmHWM");
    assert!(peak < 100_000, "the reader's memory came to {peak} kB");
}

#[test]
fn memory_of_the_worker_is_bounded() {
    let (_cluster, mut session) = start();
    let job = session.launch(LARGE);
    let pid = job.pid;
    let watcher = std::thread::spawn(move || {
        // The peak of an exited process cannot be read: the last measurement counts.
        let mut peak = 0;
        let deadline = std::time::Instant::now() + harness::PATIENCE;
        while let Some(now) = try_process_status(pid, "VmHWM") {
            peak = now;
            if std::time::Instant::now() > deadline {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        peak
    });
    session.wait(job);
    assert_eq!(session.state(job), "stopped");
    session.exec(&format!("SELECT pg_background_detach({job})"));
    drop(session);
    let peak = watcher.join().unwrap();
    assert!(peak > 0, "the worker was never seen");
    assert!(peak < 100_000, "the worker's memory came to {peak} kB");
}

#[test]
fn files_vanish_with_the_handle_and_with_the_session() {
    let (cluster, mut session) = start();
    let job = ended(&mut session, LARGE);
    assert!(temporary_bytes(&cluster) > 150_000_000);
    session.exec(&format!("SELECT pg_background_detach({job})"));
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });

    ended(&mut session, LARGE);
    assert!(temporary_bytes(&cluster) > 150_000_000);
    drop(session);
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });

    // The rows of a detached job have no reader: they need not be stored.
    let mut session = cluster.session();
    let job = session.launch(LARGE);
    session.exec(&format!("SELECT pg_background_detach({job})"));
    session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn part_of_a_result_read() {
    let (cluster, mut session) = start();
    let job = ended(&mut session, LARGE);
    session.exec(&format!(
        "BEGIN; DECLARE c CURSOR FOR SELECT g FROM pg_background_result({job}) {COLUMNS}; FETCH 3 FROM c; COMMIT"
    ));
    session.exec("SELECT pg_background_detach_all()");
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn files_vanish_after_a_crash() {
    let (cluster, mut session) = start();
    cluster.expect_crash();
    ended(&mut session, LARGE);
    assert!(temporary_bytes(&cluster) > 150_000_000);
    cluster.signal(session.pid, "KILL");
    wait_for("the server's recovery", || {
        cluster.try_session_in("postgres", "postgres").is_ok()
    });
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn temp_file_limit_is_the_jobs_error() {
    let (cluster, mut session) = start();
    session.exec("SET temp_file_limit = '10MB'");
    let job = session.launch(LARGE);
    session.wait(job);
    assert_eq!(
        (session.state(job), session.sqlstate(job)),
        ("error".into(), "53400".into())
    );
    assert_eq!(
        session
            .error(&format!("SELECT * FROM pg_background_result({job}) {COLUMNS}"))
            .sqlstate,
        "53400"
    );
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
    assert_eq!(
        session.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
}

#[test]
fn log_temp_files_tells() {
    let cluster = Cluster::start(&["log_temp_files = 0"]);
    let mut session = cluster.session();
    let job = ended(&mut session, LARGE);
    session.exec(&format!("SELECT pg_background_detach({job})"));
    wait_for("the log's word of the temporary file", || {
        cluster.log().contains("temporary file: path")
    });
}

#[test]
fn submitted_jobs_keep_no_rows() {
    let (cluster, mut session) = start();
    let job = session.submit(LARGE);
    session.wait(job);
    assert_eq!(session.state(job), "stopped");
    assert!(cluster.temporary_files().is_empty());
    assert_eq!(
        session.value::<i64>(&format!("SELECT row_count FROM pg_background_result_info({job})")),
        200_000
    );
}

#[test]
fn what_is_said_last_leaves_the_next_job_its_tablespaces() {
    let cluster = Cluster::start(&["shared_buffers = 16MB", "work_mem = 4MB", "autovacuum = off", KEPT]);
    let mut session = cluster.session();
    let place = cluster.socket_dir().join("elsewhere");
    std::fs::create_dir(&place).unwrap();
    harness::give_to_server(&place);
    session.exec(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", place.display()));
    session.exec(
        "SET temp_tablespaces = elsewhere; SET work_mem = '64kB';
         CREATE TABLE effects (n int);
         CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE NOTICE '%', repeat('x', 700); RETURN NEW; END $$;
         CREATE CONSTRAINT TRIGGER say AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION say();
         CREATE PROCEDURE sorts(INOUT files int) LANGUAGE plpgsql AS $$
         DECLARE
             r record;
             place oid := (SELECT oid FROM pg_tablespace WHERE spcname = 'elsewhere');
         BEGIN
             FOR r IN SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g ORDER BY 1 DESC LOOP
                 files := (SELECT count(*) FROM pg_ls_tmpdir(place));
                 EXIT;
             END LOOP;
         END $$;",
    );
    let sorts = |session: &mut Session| {
        session.rows("SELECT pid, n > 0 FROM pg_background_launch('CALL sorts(0)') h, pg_background_result(h.pid, h.cookie) AS (n int)")
            .remove(0)
    };
    let before = sorts(&mut session);
    assert_eq!(before[1].as_deref(), Some("t"));
    // The trigger's message comes after the rows have been passed on, and the memory for them is full: it goes to a file when the
    // transaction has ended.
    let job = session.handle(
        "SELECT * FROM pg_background_launch('INSERT INTO effects VALUES (1); SELECT repeat(''x'', 3800)', 4096)",
    );
    session.wait(job);
    assert!(temporary_bytes(&cluster) > 0, "there is a file");
    assert_eq!(Some(job.pid.to_string()), before[0], "the same process");
    assert_eq!(sorts(&mut session), before);
    let rows = session.rows(&format!(
        "SELECT length(t) FROM pg_background_result({job}) AS (t text)"
    ));
    assert_eq!(rows[0][0].as_deref(), Some("3800"));
    assert_eq!(session.take_notices().len(), 1);
    session.exec("DROP TABLESPACE elsewhere");
}
