//! A job belongs to the cluster: what sessions of the job's role may do with a job that another session launched.

use harness::{Cluster, Handle, KEPT, Session};

fn start() -> (Cluster, Session, Session) {
    let cluster = Cluster::start(&[]);
    cluster.session().exec(
        "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE boss LOGIN; CREATE ROLE signaler LOGIN;
         GRANT alice TO boss; GRANT pg_signal_backend TO signaler;
         GRANT pgbackground_role TO alice, bob, boss, signaler",
    );
    let (one, other) = (cluster.session_as("alice"), cluster.session_as("alice"));
    (cluster, one, other)
}

const ROWS: &str = "SELECT g FROM generate_series(1, 1000) g";

fn sum(session: &mut Session, job: Handle) -> i64 {
    session.value(&format!("SELECT sum(g) FROM pg_background_result({job}) AS (g int)"))
}

#[test]
fn every_verb_in_another_session() {
    let (_cluster, mut one, mut other) = start();
    let job = one.handle(
        "SELECT pid, cookie FROM pg_background_launch('SELECT pg_background_report_progress(42, ''half''); SELECT 1/0', 0, 'a label')",
    );
    assert!(other.holds(&format!("pg_background_wait({job})")));
    assert!(other.holds(&format!(
        "(pg_background_get_progress({job})) = ROW(42, 'half')::pg_background_progress_info"
    )));
    assert!(other.holds(&format!("(pg_background_result_info({job})).has_error")));
    assert_eq!(other.sqlstate(job), "22012");
    assert!(other.holds(&format!(
        "pg_background_full_sql({job}) LIKE 'SELECT pg_background_report_progress%'"
    )));
    assert!(other.holds(&format!(
        "(state, label) = ('error', 'a label') FROM pg_background_outcome({job})"
    )));
    let array = Handle::array(&[job]);
    assert!(other.holds(&format!("(pg_background_wait_any({array})).pid = {}", job.pid)));
    assert_eq!(
        other.value::<String>(&format!("SELECT sqlstate FROM pg_background_drain({array})")),
        "22012"
    );
    // A drained job is detached, for the launching session too.
    assert_eq!(
        one.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
        "42704"
    );
    assert_eq!(one.value::<i32>("SELECT count(*) FROM pg_background_list"), 0);

    let job = one.launch(ROWS);
    assert_eq!(sum(&mut other, job), 500_500);
    let job = one.launch("SELECT pg_sleep(3600)");
    other.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    assert_eq!(one.state(job), "canceled");
    other.exec(&format!("SELECT pg_background_detach({job})"));
    assert_eq!(one.value::<i32>("SELECT count(*) FROM pg_background_list"), 0);
    assert_eq!(one.counters().launched, 3);
}

#[test]
fn the_list_is_the_launching_sessions() {
    let (_cluster, mut one, mut other) = start();
    let job = one.launch("SELECT 1");
    other.wait(job);
    assert_eq!(one.state(job), "stopped");
    assert_eq!(other.value::<i32>("SELECT count(*) FROM pg_background_list"), 0);
    for call in ["cancel_all", "detach_all", "purge", "cancel_by_label"] {
        let argument = if call == "cancel_by_label" { "'%'" } else { "" };
        assert_eq!(
            other.value::<i32>(&format!("SELECT pg_background_{call}({argument})")),
            0
        );
    }
    assert_eq!(one.state(job), "stopped");
    assert_eq!(other.counters().launched, 0);
}

#[test]
fn a_result_is_read_once() {
    let (cluster, mut one, mut other) = start();
    let job = one.launch(ROWS);
    assert_eq!(sum(&mut other, job), 500_500);
    for session in [&mut one, &mut other] {
        let error = session.error(&format!("SELECT * FROM pg_background_result({job}) AS (g int)"));
        assert_eq!(
            (error.sqlstate.as_str(), error.message),
            ("42704", format!("PID {} is not attached to this session", job.pid))
        );
    }

    // Of several simultaneous readers one gets the whole result.
    for _ in 0..20 {
        let job = one.launch(ROWS);
        let readers: Vec<_> = (0..4)
            .map(|_| {
                cluster
                    .session_as("alice")
                    .start(&format!("SELECT sum(g) FROM pg_background_result({job}) AS (g int)"))
            })
            .collect();
        let answers: Vec<_> = readers.into_iter().map(|reader| reader.join().1).collect();
        let read = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(read, 1, "{answers:?}");
        for answer in answers {
            match answer {
                Ok(rows) => assert_eq!(rows, [[Some("500500".to_owned())]]),
                Err(error) => assert_eq!(error.sqlstate, "42704", "{error:?}"),
            }
        }
    }
}

#[test]
fn a_result_that_is_being_read() {
    let (cluster, mut one, mut other) = start();
    let job = one.launch("SELECT g, pg_sleep(CASE g WHEN 5 THEN 3600 END)::text FROM generate_series(1, 10) g");
    other.wait_running(job);
    let reader = other.start(&format!("SELECT * FROM pg_background_result({job}) AS (g int, s text)"));
    let mut observer = cluster.session();
    observer.wait_until(&format!(
        "wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = {}",
        reader.pid
    ));
    let error = one.error(&format!("SELECT * FROM pg_background_result({job}) AS (g int, s text)"));
    assert_eq!(error.sqlstate, "42704");
    assert_eq!(error.detail, "Another session is reading the result.");

    // The handle is released meanwhile, but the result still belongs to the reader.
    one.exec(&format!("SELECT pg_background_detach({job})"));
    one.exec(&format!("SELECT pg_cancel_backend({})", job.pid));
    assert_eq!(reader.join().1.unwrap_err().sqlstate, "57014");
}

#[test]
fn a_reading_broken_off_goes_on_elsewhere() {
    let (_cluster, mut one, mut other) = start();
    // Wrong columns leave the result unread, even after its description has been read.
    let job = one.launch("SELECT g, 'text' FROM generate_series(1, 1000) g");
    let error = one.error(&format!(
        "SELECT * FROM pg_background_result({job}) AS (g int8, t text)"
    ));
    assert_eq!(error.sqlstate, "42804");
    assert_eq!(
        other
            .error(&format!("SELECT * FROM pg_background_result({job}) AS (g int)"))
            .sqlstate,
        "42804"
    );
    assert_eq!(
        other.value::<i64>(&format!(
            "SELECT sum(g) FROM pg_background_result({job}) AS (g int, t text)"
        )),
        500_500
    );

    // A reading that was interrupted before the first row loses nothing.
    other.exec("SELECT pg_advisory_lock(7)");
    let job =
        one.launch("SELECT 1; DO $$BEGIN RAISE NOTICE 'here'; END$$; SELECT pg_advisory_lock(7); SELECT ROW(1, 'x')");
    let read = format!("SELECT r::text FROM pg_background_result({job}) AS (r record)");
    one.exec("SET statement_timeout = '500ms'");
    assert_eq!(one.error(&read).sqlstate, "57014");
    other.exec("SELECT pg_advisory_unlock(7)");
    assert_eq!(other.value::<String>(&read), "(1,x)");
}

#[test]
fn tags_survive_a_reading_that_is_broken_off() {
    let (_cluster, mut one, mut other) = start();
    one.exec("CREATE TEMP TABLE x (n int)");
    let job = one.launch("SELECT 1; SET work_mem = '1MB'; DO $$BEGIN END$$");
    one.wait(job);
    let read = format!("SELECT * FROM pg_background_result({job}) AS");
    assert_eq!(one.error(&format!("{read} (n int)")).sqlstate, "42804");
    assert_eq!(other.error(&format!("{read} (n int, m int)")).sqlstate, "42804");
    let tags = ["SELECT 1", "SET", "DO"].map(|tag| vec![Some(tag.to_owned())]);
    assert_eq!(other.rows(&format!("{read} (tag text)")), tags);
}

#[test]
fn a_reader_dies() {
    let (cluster, mut one, other) = start();
    let job = one.launch("SELECT repeat('x', 1000) FROM generate_series(1, 2000) g; ");
    let slow = one.launch(
        "SELECT g, pg_sleep(CASE g WHEN 500 THEN 3600 END)::text, repeat('x', 1000) FROM generate_series(1, 1000) g",
    );
    let pid = other.pid;
    let reader = other.start(&format!(
        "SELECT * FROM pg_background_result({slow}) AS (g int, s text, t text)"
    ));
    let mut superuser = cluster.session();
    superuser.wait_until(&format!(
        "wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {}",
        slow.pid
    ));
    // The reader has read all available rows, and waits for more.
    superuser.wait_until(&format!(
        "wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = {pid}"
    ));
    superuser.exec(&format!("SELECT pg_terminate_backend({pid}, 60000)"));
    assert!(reader.join().1.is_err());
    // The rows that it has taken are lost, so the rest is not a result. The job itself is not disturbed.
    assert_eq!(
        one.error(&format!(
            "SELECT * FROM pg_background_result({slow}) AS (g int, s text, t text)"
        ))
        .sqlstate,
        "55000"
    );
    assert_eq!(one.state(slow), "running");
    one.exec(&format!(
        "SELECT pg_background_cancel({slow}, 60000); SELECT pg_background_detach({slow})"
    ));
    assert_eq!(
        one.value::<i64>(&format!("SELECT count(*) FROM pg_background_result({job}) AS (t text)")),
        2000
    );
}

#[test]
fn waiters_wake_at_the_end() {
    let (cluster, mut one, mut other) = start();
    other.exec("SELECT pg_advisory_lock(7)");
    let job = one.launch("SELECT pg_advisory_lock(7)");
    one.wait_blocked(job.pid);
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            cluster
                .session_as("alice")
                .start(&format!("SELECT pg_background_wait({job})"))
        })
        .collect();
    let mut superuser = cluster.session();
    let pids: Vec<_> = waiters.iter().map(|waiter| waiter.pid.to_string()).collect();
    superuser.wait_until(&format!(
        "(SELECT count(*) = 5 FROM pg_stat_activity WHERE pid IN ({}) AND wait_event_type = 'Extension')",
        pids.join(", ")
    ));
    // One of them leaves in the middle of its wait by a cancel, one by the end of its session.
    waiters[0].cancel();
    superuser.exec(&format!("SELECT pg_terminate_backend({}, 60000)", waiters[1].pid));
    assert!(!waiters[2].is_finished());
    other.exec("SELECT pg_advisory_unlock(7)");
    let began = std::time::Instant::now();
    for (n, waiter) in waiters.into_iter().enumerate() {
        match (n, waiter.join().1) {
            (0 | 1, answer) => assert!(answer.is_err()),
            (_, answer) => assert_eq!(answer.unwrap(), [[Some("t".to_owned())]]),
        }
    }
    // Long before any periodic check.
    println!("woke after {:?}", began.elapsed());
}

#[test]
fn a_wake_up_is_no_poll() {
    // With this setting no session checks by itself within the time of the test.
    let cluster = Cluster::start(&["deadlock_timeout = '10min'"]);
    let (mut one, mut other) = (cluster.session(), cluster.session());
    for _ in 0..50 {
        let job = one.launch("SELECT pg_sleep(0.01)");
        let began = std::time::Instant::now();
        other.wait(job);
        assert!(began.elapsed().as_millis() < 900, "{:?}", began.elapsed());
    }
}

#[test]
fn roles() {
    let (cluster, mut alice, _) = start();
    let mut bob = cluster.session_as("bob");
    let mut boss = cluster.session_as("boss");
    let mut superuser = cluster.session();
    let job = alice.handle("SELECT pid, cookie FROM pg_background_launch('SELECT 42 FROM pg_sleep(0)', 0, 'of alice')");
    alice.wait(job);
    let array = Handle::array(&[job]);
    for call in [
        format!("SELECT pg_background_wait({job})"),
        format!("SELECT pg_background_cancel({job})"),
        format!("SELECT pg_background_detach({job})"),
        format!("SELECT pg_background_result_info({job})"),
        format!("SELECT pg_background_error_info({job})"),
        format!("SELECT pg_background_get_progress({job})"),
        format!("SELECT pg_background_full_sql({job})"),
        format!("SELECT * FROM pg_background_result({job}) AS (n int)"),
        format!("SELECT * FROM pg_background_drain({array})"),
        format!("SELECT pg_background_wait_any({array})"),
    ] {
        let error = bob.error(&call);
        assert_eq!(error.sqlstate, "42501", "{call}: {error:?}");
        assert!(
            !error.message.contains("42 FROM") && !error.message.contains("of alice"),
            "{error:?}"
        );
    }
    // It never raises an error.
    assert!(bob.holds(&format!(
        "state IS NULL AND label IS NULL FROM pg_background_outcome({job})"
    )));
    // A member of the role, and a superuser.
    assert!(boss.holds(&format!("pg_background_full_sql({job}) = 'SELECT 42 FROM pg_sleep(0)'")));
    assert!(superuser.holds(&format!("pg_background_wait({job})")));
    assert_eq!(
        boss.value::<i32>(&format!("SELECT * FROM pg_background_result({job}) AS (n int)")),
        42
    );

    // The current role counts, in the launching session as in any other.
    superuser.exec("SET ROLE alice");
    let job = superuser.launch("SELECT 'of a superuser'::text");
    superuser.exec("SET ROLE bob");
    assert_eq!(
        superuser.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
        "42501"
    );
    assert!(
        superuser
            .holds("cookie IS NULL AND sql_preview IS NULL AND user_id = 'alice'::regrole FROM pg_background_list")
    );
    assert_eq!(superuser.value::<i32>("SELECT pg_background_detach_all()"), 0);
    superuser.exec("RESET ROLE");
    assert!(superuser.holds("cookie IS NOT NULL AND sql_preview LIKE '%superuser%' FROM pg_background_list"));
    assert_eq!(
        alice.value::<String>(&format!("SELECT * FROM pg_background_result({job}) AS (t text)")),
        "of a superuser"
    );
}

/// A job that leaves its first role may read what that role may not. Then only sessions that could have done the same may read its result,
/// whatever their current role is.
#[test]
fn a_job_that_leaves_its_role() {
    let (cluster, mut alice, _) = start();
    let mut superuser = cluster.session();
    superuser.exec(
        "CREATE TABLE secret AS SELECT 'a secret'::text AS t;
         CREATE ROLE pool LOGIN; GRANT alice TO pool;
         GRANT CREATE ON SCHEMA public TO alice",
    );
    alice.exec(
        "CREATE FUNCTION error_of(pid int, cookie bigint) RETURNS text SECURITY DEFINER LANGUAGE sql AS
         'SELECT (pg_background_error_info(pid, cookie)).message'",
    );
    superuser.exec("SET ROLE alice");
    for (sql, gives) in [
        ("RESET ROLE; SELECT t FROM secret", "a secret"),
        ("SET ROLE NONE; SELECT t FROM secret", "a secret"),
        ("SET LOCAL ROLE NONE; SELECT t FROM secret", "a secret"),
        (
            "SELECT set_config('role', 'none', false); SELECT t FROM secret",
            "a secret",
        ),
        ("DO 'BEGIN RESET ROLE; END'; SELECT t FROM secret", "a secret"),
        ("SET SESSION AUTHORIZATION DEFAULT; SELECT t FROM secret", "a secret"),
        (
            "RESET ROLE; SELECT pg_background_report_progress(1, t) FROM secret; SET ROLE alice; SELECT 'back'::text",
            "back",
        ),
        ("RESET ROLE; SELECT t::int::text FROM secret", "22P02"),
        (
            "DO 'BEGIN RESET ROLE; RAISE ''%'', (SELECT t FROM secret); END'",
            "P0001",
        ),
        // What a job reads of another one that has left its role.
        (
            "SELECT * FROM pg_background_run_query('RESET ROLE; SELECT t FROM secret', col_def => 't text') AS (t text)",
            "a secret",
        ),
        (
            "DO $$ BEGIN RAISE '%', (SELECT t FROM pg_background_run_query('RESET ROLE; SELECT t FROM secret', col_def => 't text') AS (t text)); END $$",
            "P0001",
        ),
        (
            "SELECT substr(error_message, 1, 0) || 'told' FROM pg_background_run('RESET ROLE; SELECT t::int FROM secret')",
            "told",
        ),
        (
            "SELECT * FROM pg_background_run_query('SELECT * FROM pg_background_run_query(''RESET ROLE; SELECT t FROM secret'', \
             col_def => ''t text'') AS (t text)', col_def => 't text') AS (t text)",
            "a secret",
        ),
    ] {
        let job = superuser.launch(sql);
        superuser.wait(job);
        for call in [
            format!("SELECT * FROM pg_background_result({job}) AS (t text)"),
            format!("SELECT pg_background_wait({job})"),
            format!("SELECT pg_background_result_info({job})"),
            format!("SELECT pg_background_error_info({job})"),
            format!("SELECT pg_background_get_progress({job})"),
            format!("SELECT pg_background_full_sql({job})"),
            format!("SELECT pg_background_detach({job})"),
            format!("SELECT pg_background_drain({})", Handle::array(&[job])),
        ] {
            assert_eq!(alice.error(&call).sqlstate, "42501", "{sql}: {call}");
        }
        assert!(alice.holds(&format!("state IS NULL FROM pg_background_outcome({job})")));
        assert!(alice.holds(&format!(
            "count(*) = 1 AND count(coalesce(cookie::text, label, sql_preview, error_message, progress_msg)) = 0
             FROM pg_background_jobs WHERE pid = {0} AND launched_at = (SELECT max(launched_at) FROM pg_background_jobs WHERE pid = {0})",
            job.pid
        )));
        // Nor can alice get the rows by a function that a session with more rights calls: it cannot return to the session's user.
        assert_eq!(superuser.error(&format!("SELECT error_of({job})")).sqlstate, "42501");
        // A session that logs in as another role that may act as alice has her rights and no more.
        let mut pool = cluster.session_as("pool");
        pool.exec("SET ROLE alice");
        assert_eq!(
            pool.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
            "42501"
        );

        let mut other = cluster.session();
        other.exec("SET ROLE alice");
        let result = format!("SELECT * FROM pg_background_result({job}) AS (t text)");
        let read = match other.try_rows(&result) {
            Ok(rows) => rows[0][0].clone().unwrap(),
            Err(error) => error.sqlstate,
        };
        assert_eq!(read, gives, "{sql}");
    }

    // The same if the session's user was changed.
    let mut disguised = cluster.session();
    disguised.exec("SET SESSION AUTHORIZATION alice");
    let job = disguised.launch("RESET SESSION AUTHORIZATION; SELECT t FROM secret");
    disguised.wait(job);
    let result = format!("SELECT * FROM pg_background_result({job}) AS (t text)");
    assert_eq!(alice.error(&result).sqlstate, "42501");
    assert_eq!(disguised.value::<String>(&result), "a secret");

    // A session that began to read before the change gets no more rows.
    let mut gate = cluster.session();
    gate.exec("SELECT pg_advisory_lock(7)");
    let job = superuser.launch("SELECT pg_advisory_xact_lock(7); RESET ROLE; SELECT t FROM secret");
    gate.wait_blocked(job.pid);
    let reading = alice.start(&format!("SELECT * FROM pg_background_result({job}) AS (t text)"));
    gate.wait_until(&format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE pid = {} AND wait_event_type = 'Extension')",
        reading.pid
    ));
    gate.exec("SELECT pg_advisory_unlock(7)");
    let (mut alice, read) = reading.join();
    assert_eq!(read.unwrap_err().sqlstate, "42501");
    assert_eq!(
        superuser.value::<String>(&format!("SELECT * FROM pg_background_result({job}) AS (t text)")),
        "a secret"
    );

    // A cancel takes no right to the job's rows.
    let job = superuser.launch("RESET ROLE; SELECT pg_sleep(3600)");
    gate.wait_until(&format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep')",
        job.pid
    ));
    alice.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    assert_eq!(superuser.state(job), "canceled");
}

#[test]
fn signal_backend_may_cancel() {
    let (cluster, mut alice, _) = start();
    let mut signaler = cluster.session_as("signaler");
    let mut superuser = cluster.session();
    let job = alice.launch("SELECT pg_sleep(3600)");
    assert_eq!(
        signaler.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
        "42501"
    );
    assert_eq!(
        signaler.error(&format!("SELECT pg_background_detach({job})")).sqlstate,
        "42501"
    );
    signaler.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    assert_eq!(alice.state(job), "canceled");
    let job = superuser.launch("SELECT pg_sleep(3600)");
    assert_eq!(
        signaler.error(&format!("SELECT pg_background_cancel({job})")).sqlstate,
        "42501"
    );
    assert!(["starting", "running"].contains(&&*superuser.state(job)));
    superuser.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));

    // As for pg_cancel_backend, the role counts as which the worker has connected: here a superuser's job that acts as alice,
    superuser.exec("GRANT pgbackground_role TO alice; SET ROLE alice");
    let job = superuser.launch("SELECT pg_sleep(3600)");
    cluster.session().wait_until(&format!(
        "wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {}",
        job.pid
    ));
    for call in ["pg_background_cancel({job})", "pg_cancel_backend({pid})"] {
        let call = call
            .replace("{job}", &job.to_string())
            .replace("{pid}", &job.pid.to_string());
        assert_eq!(signaler.error(&format!("SELECT {call}")).sqlstate, "42501", "{call}");
    }
    // and here a job of alice that acts as a superuser.
    superuser.exec(&format!("SELECT pg_background_cancel({job}, 60000); RESET ROLE"));
    superuser.exec(
        "CREATE FUNCTION launch_as_owner(OUT pid int, OUT cookie int8) LANGUAGE sql SECURITY DEFINER
         AS $$SELECT pid, cookie FROM pg_background_launch('SELECT pg_sleep(3600)')$$",
    );
    let job = alice.handle("SELECT pid, cookie FROM launch_as_owner()");
    assert!(signaler.holds(&format!(
        "cookie = {} FROM pg_background_jobs WHERE finished_at IS NULL",
        job.cookie
    )));
    signaler.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    assert_eq!(
        superuser.value::<String>(&format!(
            "SELECT state FROM pg_background_jobs WHERE cookie = {}",
            job.cookie
        )),
        "canceled"
    );
}

#[test]
fn handles_that_are_wrong() {
    let (cluster, mut alice, mut other) = start();
    let mut bob = cluster.session_as("bob");
    let job = alice.launch("SELECT pg_sleep(3600)");
    let guess = Handle {
        pid: job.pid,
        cookie: job.cookie.wrapping_add(1),
    };
    let swapped = Handle {
        pid: job.pid + 1,
        cookie: job.cookie,
    };
    let call = |job: Handle| format!("SELECT pg_background_wait({job}, 1)");
    // The launching session is told that only the cookie is wrong; any other session does not even learn that.
    assert_eq!(alice.error(&call(guess)).sqlstate, "55000");
    for session in [&mut other, &mut bob] {
        let (guessed, absent) = (
            session.error(&call(guess)),
            session.error(&call(Handle { pid: 1, cookie: 1 })),
        );
        assert_eq!(
            (guessed.sqlstate.as_str(), guessed.detail, guessed.hint),
            ("42704", absent.detail, absent.hint)
        );
        assert_eq!(absent.sqlstate, "42704");
        assert_eq!(session.error(&call(swapped)).sqlstate, "42704");
    }
    assert!(other.holds(&format!("state IS NULL FROM pg_background_outcome({guess})")));
}

#[test]
fn a_deadlock_with_a_job_of_another_session() {
    let (cluster, mut one, mut other) = start();
    cluster
        .session()
        .exec("CREATE TABLE locked (n int); GRANT ALL ON locked TO alice");
    other.exec("BEGIN; LOCK TABLE locked");
    let job = one.launch("INSERT INTO locked VALUES (1)");
    one.wait_blocked(job.pid);
    assert!(other.holds(&format!("pg_background_wait({job})")));
    assert_eq!(one.sqlstate(job), "40P01");
}

#[test]
fn a_worker_that_never_came_is_noticed_elsewhere() {
    let cluster = Cluster::start(&[]);
    let (mut one, mut other) = (cluster.session(), cluster.session());
    for session in [&mut one, &mut other] {
        session.counters();
    }
    // New processes of the postmaster do not find the library from now on; the sessions do.
    for session in [&mut one, &mut other] {
        session.exec("SET dynamic_library_path = '$libdir'");
    }
    other.exec("ALTER SYSTEM SET dynamic_library_path = '/nowhere'");
    other.exec("SELECT pg_reload_conf()");
    one.wait_until("reset_val = '/nowhere' FROM pg_settings WHERE name = 'dynamic_library_path'");
    let job = 'launched: {
        for _ in 0..1000 {
            // If the process had exited before the session noticed it, the launch has failed.
            match one.try_rows("SELECT pid, cookie FROM pg_background_launch('SELECT 1')") {
                Ok(rows) => break 'launched Handle::of(&rows[0]),
                Err(error) => assert_eq!(error.sqlstate, "08006", "{error:?}"),
            }
        }
        panic!("no launch saw its process");
    };
    assert!(other.holds(&format!("pg_background_wait({job}, 60000)")));
    assert_eq!(other.sqlstate(job), "08006");
    assert!(other.holds(&format!(
        "state = 'error' FROM pg_background_jobs WHERE pid = {}",
        job.pid
    )));
}

#[test]
fn thousands_of_handles() {
    let (_cluster, mut one, mut other) = start();
    one.exec("SET pg_background.max_workers = 1000");
    let mut jobs = Vec::new();
    while jobs.len() < 300 {
        match one.try_rows("SELECT pid, cookie FROM pg_background_launch('SELECT 1')") {
            Ok(rows) => jobs.push(Handle::of(&rows[0])),
            Err(error) => assert_eq!(error.sqlstate, "53000", "{error:?}"),
        }
    }
    assert_eq!(
        other.value::<i32>(&format!(
            "SELECT count(*) FROM pg_background_drain({}) WHERE state = 'stopped'",
            Handle::array(&jobs)
        )),
        300
    );
    assert_eq!(one.value::<i32>("SELECT count(*) FROM pg_background_list"), 0);
}

/// A handle that was valid once is unknown afterwards, whatever its pid runs now. A mismatch is only a cookie that never belonged to that
/// pid.
#[test]
fn handles_that_were_good_once() {
    let cluster = Cluster::start(&[KEPT]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    let calls = [
        "wait",
        "detach",
        "cancel",
        "result_info",
        "error_info",
        "full_sql",
        "get_progress",
        "outcome",
        "result",
    ];
    let expect = |session: &mut Session, pid: i32, cookie: i64, sqlstate: &str| {
        for (call, twin) in calls.iter().flat_map(|call| [(call, ""), (call, "_v2")]) {
            let handle = Handle { pid, cookie };
            let columns = if *call == "result" { " AS (x text)" } else { "" };
            let got = match session.try_rows(&format!("SELECT * FROM pg_background_{call}{twin}({handle}){columns}")) {
                Ok(rows) => {
                    let values = rows[0].iter().skip(if *call == "outcome" { 2 } else { 0 });
                    assert!(values.flatten().next().is_none(), "{call}{twin}: {rows:?}");
                    String::new()
                }
                Err(error) => error.sqlstate,
            };
            let is_polled = ["get_progress", "outcome"].contains(call);
            assert_eq!(got, if is_polled { "" } else { sqlstate }, "{call}{twin}");
        }
        let array = format!("ARRAY[NULL, ROW({pid}, {cookie})]::pg_background_handle[]");
        assert!(session.holds(&format!("pg_background_wait_any({array}) IS NULL")));
        assert!(session.holds(&format!(
            "count(*) = 1 AND count(state) = 0 FROM pg_background_drain({array})"
        )));
    };
    let forget = |session: &mut Session, job: Handle| {
        session.wait(job);
        session.exec(&format!("SELECT pg_background_detach({job})"));
    };
    // Released here, by another session, by reading, and while the job runs.
    let here = session.launch("SELECT 'here'");
    forget(&mut session, here);
    let there = session.launch("SELECT 'there'");
    forget(&mut other, there);
    let read = session.launch("SELECT 'read'");
    session.wait(read);
    session.exec(&format!("SELECT * FROM pg_background_result({read}) AS (x text)"));
    let running = session.launch("SELECT pg_sleep(3600)");
    session.exec(&format!("SELECT pg_background_detach({running})"));
    for gone in [here, there, read, running] {
        expect(&mut session, gone.pid, gone.cookie, "42704");
        expect(&mut other, gone.pid, gone.cookie, "42704");
    }
    other.exec(&format!("SELECT pg_terminate_backend({}, 60000)", running.pid));
    // The same process runs another job.
    let first = session.launch("SELECT 1");
    forget(&mut session, first);
    let last = session.launch("SELECT 2");
    assert_eq!(last.pid, first.pid);
    session.wait(last);
    expect(&mut session, first.pid, first.cookie, "42704");
    let before = if here.pid == last.pid { "42704" } else { "55000" };
    expect(&mut session, last.pid, here.cookie, before);
    expect(&mut session, last.pid, 1, "55000");
    expect(&mut other, last.pid, 1, "42704");
    // Without a history the session knows only what it has released itself.
    other.exec("ALTER SYSTEM SET pg_background.history_size = 0");
    other.exec("SELECT pg_reload_conf()");
    other.wait_until("current_setting('pg_background.history_size') = '0'");
    let mut fresh = cluster.session();
    fresh.exec("SELECT pg_background_run('SELECT 1')");
    assert!(fresh.holds("count(*) = 1 FROM pg_background_jobs"));
    expect(&mut session, first.pid, first.cookie, "42704");
}
