//! Launches that are not admitted: how long they wait, in which order, and under which caps.

use harness::{Cluster, Handle, Pending, Random, Rows, Session, SqlError};
use std::thread;
use std::time::{Duration, Instant};

const SLEEP: &str = "SELECT pg_sleep(3600)";

/// One slot for jobs, and none for anything else; its worker may stay idle.
const ONE_SLOT: [&str; 3] = [
    "max_worker_processes = 1",
    "max_logical_replication_workers = 0",
    "pg_background.max_idle_workers = 1",
];

fn patient(cluster: &Cluster, role: &str) -> Session {
    let mut session = cluster.session_as(role);
    session.exec("SET pg_background.launch_timeout = '10min'");
    session
}

/// Starts a statement that must wait, and waits until it sleeps.
fn start_waiting(observer: &mut Session, session: Session, sql: &str) -> Pending {
    let pending = session.start(sql);
    observer.wait_until(&format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE pid = {} AND state = 'active' AND wait_event_type = 'Extension')",
        pending.pid
    ));
    assert!(!pending.is_finished());
    pending
}

fn alice(observer: &mut Session) {
    observer.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice");
}

fn cancel(session: &mut Session, job: Handle) {
    session.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
}

#[track_caller]
fn ended(pending: Pending) -> (Session, Rows) {
    let (session, result) = pending.join();
    (session, result.expect("the launch is served"))
}

#[track_caller]
fn assert_refused(error: &SqlError, sqlstate: &str, detail: &[&str]) {
    let message = match sqlstate {
        "53000" => "could not register background process",
        _ => "too many background workers",
    };
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        (sqlstate, message),
        "{error:?}"
    );
    for part in detail {
        assert!(error.detail.contains(part), "{error:?}");
    }
}

fn every_job_runs_once(settings: &[&str]) {
    const SESSIONS: i32 = 5;
    const JOBS: i32 = 60;
    let mut all = vec!["max_worker_processes = 8"];
    all.extend(settings);
    let cluster = Cluster::start(&all);
    let mut observer = cluster.session();
    observer.exec("CREATE TABLE done (session int, n int)");
    alice(&mut observer);
    observer.exec("GRANT INSERT ON done TO alice");
    thread::scope(|scope| {
        for number in 1..=SESSIONS {
            let cluster = &cluster;
            scope.spawn(move || {
                let role = if number == 2 { "alice" } else { "postgres" };
                let mut session = patient(cluster, role);
                // More than the server has slots, so that the sessions are short of slots.
                session.exec("SET pg_background.max_workers = 40");
                let job = format!("format('INSERT INTO done VALUES ({number}, %s)', n)");
                if number % 2 == 0 {
                    // All by one statement.
                    session.exec(&format!(
                        "SELECT pg_background_submit({job}) FROM generate_series(1, {JOBS}) n"
                    ));
                } else {
                    for n in 1..=JOBS {
                        let call = ["submit", "launch", "run"][n as usize % 3];
                        session.exec(&format!(
                            "SELECT pg_background_{call}({job}) FROM (VALUES ({n})) AS one (n)"
                        ));
                    }
                }
                session.wait_until("workers_active = 0 FROM pg_background_stats()");
                let counters = session.counters();
                let other_ends = session.rows(
                    "SELECT pid, state, sqlstate, error_message, label, sql_preview, launched_at, started_at, finished_at
                     FROM pg_background_jobs WHERE state NOT IN ('starting', 'running', 'stopped')",
                );
                assert_eq!(
                    (counters.launched, counters.completed),
                    (JOBS.into(), JOBS.into()),
                    "{counters:?}, {other_ends:?}"
                );
            });
        }
    });
    assert_eq!(
        observer.rows("SELECT session, count(*), count(DISTINCT n) FROM done GROUP BY session ORDER BY session"),
        (1..=SESSIONS)
            .map(|number| [number, JOBS, JOBS].map(|n| Some(n.to_string())).to_vec())
            .collect::<Rows>()
    );
    assert!(observer.holds("sum(jobs_refused) = 0 AND sum(jobs_completed) = 300 FROM pg_background_cluster_stats"));
}

#[test]
fn every_job_runs_once_in_warm_workers() {
    every_job_runs_once(&["pg_background.worker_idle_timeout = '10s'"]);
}

#[test]
fn every_job_runs_once_in_fresh_workers() {
    every_job_runs_once(&["pg_background.worker_idle_timeout = 0"]);
}

#[test]
fn every_job_runs_once_under_a_cap() {
    every_job_runs_once(&[
        "pg_background.max_cluster_workers = 2",
        "pg_background.worker_idle_timeout = '10s'",
    ]);
}

/// Workers come and go all the time: under the cap an idle worker of another role must exit to make room.
#[test]
fn no_job_goes_with_the_worker_that_had_its_place_before() {
    const SESSIONS: i32 = 12;
    const JOBS: i32 = 300;
    let cluster = Cluster::start(&[
        "max_worker_processes = 16",
        "pg_background.max_cluster_workers = 2",
        "pg_background.worker_idle_timeout = '10s'",
    ]);
    let mut observer = cluster.session();
    alice(&mut observer);
    thread::scope(|scope| {
        for number in 1..=SESSIONS {
            let cluster = &cluster;
            scope.spawn(move || {
                let role = if number % 3 == 0 { "alice" } else { "postgres" };
                let mut session = patient(cluster, role);
                let ends = session.rows(&format!(
                    "SELECT sqlstate, error_message, count(*)
                     FROM generate_series(1, {JOBS}) AS n, pg_background_run('SELECT ' || n) GROUP BY 1, 2"
                ));
                assert_eq!(ends, [[None, None, Some(JOBS.to_string())]]);
            });
        }
    });
}

/// Sessions of two roles wait in the launch queue, and are served in that order.
fn first_come_first_served(settings: &[&str]) {
    let cluster = Cluster::start(settings);
    let mut observer = cluster.session();
    alice(&mut observer);
    observer.exec("CREATE TABLE served (at serial, who int); GRANT ALL ON served, served_at_seq TO alice");
    let job = observer.launch(SLEEP);
    let waiters: Vec<_> = (0..8)
        .map(|who| {
            // An idle worker of postgres has the worker key of the later launches, and must exit in favour of the first.
            let session = patient(&cluster, if who % 3 == 0 { "alice" } else { "postgres" });
            start_waiting(
                &mut observer,
                session,
                &format!("SELECT state FROM pg_background_run('INSERT INTO served (who) VALUES ({who})')"),
            )
        })
        .collect();
    // A launch that does not wait does not overtake.
    let sqlstate = observer.error("SELECT pg_background_launch('SELECT 1')").sqlstate;
    assert!(sqlstate.starts_with("53"), "{sqlstate}");
    cancel(&mut observer, job);
    for waiter in waiters {
        assert_eq!(ended(waiter).1[0][0].as_deref(), Some("stopped"));
    }
    assert_eq!(
        observer.value::<String>("SELECT string_agg(who::text, ' ' ORDER BY at) FROM served"),
        "0 1 2 3 4 5 6 7"
    );
}

#[test]
fn first_come_first_served_of_one_slot() {
    first_come_first_served(&[&ONE_SLOT[..], &["pg_background.worker_idle_timeout = '1h'"]].concat());
}

#[test]
fn first_come_first_served_of_one_slot_in_fresh_workers() {
    first_come_first_served(&[&ONE_SLOT[..], &["pg_background.worker_idle_timeout = 0"]].concat());
}

#[test]
fn first_come_first_served_under_a_cap() {
    first_come_first_served(&["pg_background.max_cluster_workers = 1"]);
}

#[test]
fn who_gives_up_does_not_hold_up_others() {
    for settings in [&ONE_SLOT[..], &["pg_background.max_cluster_workers = 1"]] {
        let cluster = Cluster::start(settings);
        let mut observer = cluster.session();
        let job = observer.launch(SLEEP);
        let launch = "SELECT state FROM pg_background_run('SELECT 1')";
        let mut waiters = Vec::new();
        for _ in 0..4 {
            let session = patient(&cluster, "postgres");
            waiters.push(start_waiting(&mut observer, session, launch));
        }
        let mut last = waiters.pop().unwrap();
        let third = waiters.pop().unwrap();
        let (second, first) = (waiters.pop().unwrap(), waiters.pop().unwrap());

        // One in the middle, one at the front.
        second.cancel();
        let (mut session, result) = second.join();
        assert_eq!(result.unwrap_err().sqlstate, "57014");
        assert_eq!(session.counters().launched, 0);
        observer.exec(&format!("SELECT pg_terminate_backend({})", first.pid));
        let ended = first.join().1.unwrap_err().sqlstate;
        assert!(
            ["57P01", SqlError::CONNECTION_LOST].contains(&ended.as_str()),
            "{ended}"
        );
        // One at the end.
        last.cancel();
        let (session, result) = last.join();
        assert_eq!(result.unwrap_err().sqlstate, "57014");
        last = start_waiting(&mut observer, session, launch);
        assert!(!third.is_finished());

        cancel(&mut observer, job);
        self::ended(third);
        self::ended(last);
    }
}

#[test]
fn time_is_over() {
    for (settings, sqlstate, detail) in [
        (&ONE_SLOT[..], "53000", ""),
        (
            &["pg_background.max_cluster_workers = 1"],
            "53400",
            "1 jobs of the cluster are running, and pg_background.max_cluster_workers is 1.",
        ),
    ] {
        let cluster = Cluster::start(settings);
        let mut observer = cluster.session();
        let job = observer.launch(SLEEP);
        let mut session = cluster.session();
        session.exec("SET pg_background.launch_timeout = '300ms'");
        for call in [
            "SELECT pg_background_launch('SELECT 1')",
            "SELECT pg_background_submit('SELECT 1')",
            "SELECT pg_background_run('SELECT 1', 0, 1)",
            "SELECT * FROM pg_background_run_query('SELECT 1', col_def => 'n int') AS (n int)",
            "CALL pg_background_do('SELECT 1')",
            "SELECT pg_background_launch_params('SELECT $1', ROW(1))",
        ] {
            let began = Instant::now();
            let error = session.error(call);
            assert!(began.elapsed() >= Duration::from_millis(300), "{call}: {error:?}");
            assert_refused(&error, sqlstate, &[detail, "The launch has waited for 3"]);
        }
        assert_eq!(session.counters().launched, 0);
        session.exec("SET pg_background.launch_timeout = 0");
        let error = session.error("SELECT pg_background_launch('SELECT 1')");
        assert_refused(&error, sqlstate, &[detail]);
        assert!(!error.detail.contains("waited"), "{error:?}");
        assert!(observer.holds("sum(jobs_refused) = 7 AND sum(jobs_launched) = 1 FROM pg_background_cluster_stats"));
        cancel(&mut observer, job);
    }
}

#[test]
fn own_jobs_are_waited_for() {
    let cluster = Cluster::start(&[]);
    let mut session = patient(&cluster, "postgres");
    session.exec("CREATE TABLE done (n int); SET pg_background.max_workers = 2");
    session
        .exec("SELECT pg_background_submit(format('INSERT INTO done VALUES (%s)', n)) FROM generate_series(1, 50) n");
    session.wait_until("workers_active = 0 FROM pg_background_stats()");
    assert!(session.holds("count(*) = 50 AND count(DISTINCT n) = 50 FROM done"));

    // A session that waits for its own jobs holds up no other session.
    session.exec("SELECT pg_background_submit('SELECT pg_sleep(3600)', 0, 'own') FROM generate_series(1, 2)");
    let mut observer = cluster.session();
    let waiting = start_waiting(
        &mut observer,
        session,
        "SELECT state FROM pg_background_run('SELECT 1')",
    );
    observer.exec("SELECT pg_background_run('SELECT 1')");
    // The slot of a worker that dies before its job's end is found too.
    observer
        .exec("SELECT pg_terminate_backend(pid) FROM pg_background_jobs WHERE label = 'own' AND finished_at IS NULL");
    let (mut session, _) = ended(waiting);

    session.exec("SET pg_background.launch_timeout = '200ms'; SET pg_background.max_workers = 1");
    session.wait_until("workers_active = 0 FROM pg_background_stats()");
    let job = session.submit(SLEEP);
    let error = session.error("SELECT pg_background_launch('SELECT 1')");
    assert_refused(
        &error,
        "53400",
        &["1 jobs of this session are running. The launch has waited for 2"],
    );
    cancel(&mut session, job);
}

#[test]
fn cap_of_a_role() {
    let cluster = Cluster::start(&[]);
    let mut superuser = cluster.session();
    alice(&mut superuser);
    superuser.exec("ALTER ROLE alice SET pg_background.max_role_workers = 2; CREATE ROLE bob; GRANT bob TO alice");
    superuser.exec("GRANT pgbackground_role TO bob");
    let (mut one, mut two) = (cluster.session_as("alice"), cluster.session_as("alice"));
    let job = one.launch(SLEEP);
    two.submit(SLEEP);
    let cap = "2 jobs of this role are running, and pg_background.max_role_workers is 2.";
    for call in ["launch('SELECT 1')", "submit('SELECT 1')", "run('SELECT 1')"] {
        let error = two.error(&format!("SELECT pg_background_{call}"));
        assert_refused(&error, "53400", &[cap]);
    }
    // Neither the setting nor another role circumvents it.
    let error = two.error("SET pg_background.max_role_workers = 0");
    assert_eq!(error.sqlstate, "42501", "{error:?}");
    let error = two.error("SET ROLE bob; SELECT pg_background_launch('SELECT 1')");
    assert_refused(&error, "53400", &[cap]);
    two.exec("RESET ROLE");
    cancel(&mut one, job);
    assert!(two.holds(
        "value = '2' FROM pg_background_run_query('SHOW pg_background.max_role_workers', col_def => 'value text') AS (value text)"
    ));
    // A job of the role that launches one.
    let nested = "SELECT sqlstate, error_message FROM pg_background_run('SELECT pg_background_launch(''SELECT 1'')')";
    assert_eq!(two.rows(nested)[0][0].as_deref(), Some("53400"));
    let job = one.launch(SLEEP);

    // Other roles are not affected, not even while a launch waits because of that role's cap.
    two.exec("SET pg_background.launch_timeout = '10min'");
    let waiting = start_waiting(&mut superuser, two, "SELECT state FROM pg_background_run('SELECT 1')");
    superuser.exec("SELECT pg_background_run('SELECT 1')");
    // But a later launch with the same need is.
    let error = one.error("SELECT pg_background_launch('SELECT 1')");
    assert_refused(&error, "53400", &[cap, "Other launches are waiting"]);
    cancel(&mut one, job);
    ended(waiting);
    assert!(superuser.holds("jobs_refused = 5 FROM pg_background_cluster_stats WHERE usename = 'alice'"));
    assert!(superuser.holds("jobs_refused = 1 FROM pg_background_cluster_stats WHERE usename = 'bob'"));
    superuser.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_background'");
}

#[test]
fn cap_of_the_cluster() {
    let cluster = Cluster::start(&[]);
    let mut superuser = cluster.session();
    superuser.exec("LOAD 'pg_background'");
    superuser.exec("ALTER SYSTEM SET pg_background.max_cluster_workers = 2");
    superuser.exec("SELECT pg_reload_conf()");
    superuser.wait_until("current_setting('pg_background.max_cluster_workers') = '2'");
    for set in ["SET", "SET LOCAL"] {
        let error = superuser.error(&format!("{set} pg_background.max_cluster_workers = 3"));
        assert_eq!(error.sqlstate, "55P02", "{error:?}");
    }
    alice(&mut superuser);
    let mut other = cluster.session_as("alice");
    let job = superuser.launch(SLEEP);
    other.launch(SLEEP);
    let cap = "2 jobs of the cluster are running, and pg_background.max_cluster_workers is 2.";
    for session in [&mut superuser, &mut other] {
        assert_refused(
            &session.error("SELECT pg_background_launch('SELECT 1')"),
            "53400",
            &[cap],
        );
    }
    cancel(&mut superuser, job);
    // The cap applies to launches in jobs as in sessions.
    assert!(other.holds(
        "value = '2' FROM pg_background_run_query('SHOW pg_background.max_cluster_workers', col_def => 'value text') AS (value text)"
    ));
    superuser.exec("ALTER SYSTEM RESET pg_background.max_cluster_workers");
    superuser.exec("SELECT pg_reload_conf()");
    superuser.wait_until("current_setting('pg_background.max_cluster_workers') = '0'");
    superuser.exec("SELECT pg_background_submit('SELECT 1') FROM generate_series(1, 5)");
    other.exec("SELECT pg_background_cancel_all()");
}

#[test]
fn a_cap_that_is_raised_while_launches_wait() {
    let cluster = Cluster::start(&["pg_background.max_cluster_workers = 1", "max_worker_processes = 16"]);
    let mut superuser = cluster.session();
    alice(&mut superuser);
    let mut session = cluster.session_as("alice");
    let running = session.launch(SLEEP);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let session = patient(&cluster, "alice");
            start_waiting(
                &mut superuser,
                session,
                &format!("SELECT pg_background_submit('{SLEEP}')"),
            )
        })
        .collect();
    superuser.exec("LOAD 'pg_background'");
    superuser.exec("ALTER SYSTEM SET pg_background.max_cluster_workers = 4");
    superuser.exec("SELECT pg_reload_conf()");
    superuser.wait_until("current_setting('pg_background.max_cluster_workers') = '4'");
    // Now the waiting launches and one more can be admitted, and the next launch tells the waiting ones.
    superuser.exec(&format!("SELECT pg_background_submit('{SLEEP}')"));
    let sessions: Vec<_> = waiting.into_iter().map(|launch| ended(launch).0).collect();
    let cap = "4 jobs of the cluster are running, and pg_background.max_cluster_workers is 4.";
    assert_refused(
        &session.error("SELECT pg_background_launch('SELECT 1')"),
        "53400",
        &[cap],
    );
    // A lower cap applies to waiting launches.
    let waiting = start_waiting(
        &mut superuser,
        patient(&cluster, "alice"),
        "SELECT state FROM pg_background_run('SELECT 1')",
    );
    superuser.exec("ALTER SYSTEM SET pg_background.max_cluster_workers = 3");
    superuser.exec("SELECT pg_reload_conf()");
    superuser.wait_until("current_setting('pg_background.max_cluster_workers') = '3'");
    for jobs in ["4 jobs", "3 jobs"] {
        let cap = format!("{jobs} of the cluster are running, and pg_background.max_cluster_workers is 3.");
        let error = superuser.error("SELECT pg_background_launch('SELECT 1')");
        assert_refused(&error, "53400", &[&cap, "Other launches are waiting"]);
        cancel(&mut session, running);
    }
    assert!(!waiting.is_finished());
    superuser.exec("SELECT pg_background_cancel_all()");
    ended(waiting);
    for mut session in sessions {
        session.exec("SELECT pg_background_cancel_all()");
    }
}

#[test]
fn idle_workers_give_way() {
    let cluster = Cluster::start(&[
        "pg_background.max_cluster_workers = 2",
        "pg_background.worker_idle_timeout = '1h'",
        "pg_background.max_idle_workers = 10",
    ]);
    let mut superuser = cluster.session();
    alice(&mut superuser);
    let idle = "FROM pg_stat_activity WHERE backend_type = 'pg_background' AND state = 'idle'";
    // Idle workers do not count as running.
    superuser.exec("SELECT pg_background_submit('SELECT pg_sleep(0.05)') FROM generate_series(1, 2)");
    superuser.wait_until(&format!("count(*) = 2 {idle}"));
    let mut other = cluster.session_as("alice");
    let first = other.launch(SLEEP);
    // But idle and running ones together are not more than the cap.
    harness::wait_for("one of them to go", || cluster.worker_processes().len() == 2);
    let second = other.launch(SLEEP);
    harness::wait_for("both to go", || cluster.worker_processes().len() == 2);
    superuser.wait_until(&format!("count(*) = 0 {idle}"));
    // A worker that is cancelled while it connects exits.
    other.wait_running(first);
    other.wait_running(second);
    cancel(&mut other, first);
    cancel(&mut other, second);
    superuser.wait_until(&format!("count(*) = 2 {idle}"));
    superuser.exec("SELECT pg_background_run('SELECT 1')");
    harness::wait_for("one of them to go", || cluster.worker_processes().len() == 2);
}

/// An idle worker of another role has the only slot: even a launch that does not wait gets it.
#[test]
fn an_idle_worker_makes_room_for_who_does_not_wait() {
    let cluster = Cluster::start(&[&ONE_SLOT[..], &["pg_background.worker_idle_timeout = '1h'"]].concat());
    let mut superuser = cluster.session();
    alice(&mut superuser);
    let mut other = cluster.session_as("alice");
    for n in 0..10 {
        for session in [&mut superuser, &mut other] {
            session.exec("SELECT pg_background_run('SELECT 1')");
            session.wait_until("workers_active = 0 FROM pg_background_stats()");
        }
        // The idle worker's connection version is no longer the current one.
        superuser.exec(&format!("ALTER ROLE alice SET work_mem = '{}kB'", 100 + n));
        other = cluster.session_as("alice");
        other.exec("SELECT pg_background_run('SELECT 1')");
    }
    assert!(superuser.holds("sum(jobs_refused) = 0 FROM pg_background_cluster_stats"));
}

/// However a job ends, it is counted down once: as many run as the cap allows, and no more.
#[test]
fn the_count_is_exact() {
    const CAP: usize = 4;
    let cluster = Cluster::start(&["pg_background.max_cluster_workers = 4"]);
    let mut session = patient(&cluster, "postgres");
    session.exec("SET client_min_messages = error");
    let mut random = Random::new(7);
    for _ in 0..150 {
        match random.below(8) {
            0 => session.exec("SELECT pg_background_run('SELECT 1/0')"),
            1 => session.exec("SELECT pg_background_run('SELECT pg_sleep(60)', 0, 1)"),
            2 => session.exec("SELECT pg_background_run('SELECT pg_terminate_backend(pg_backend_pid())')"),
            3 => {
                let job = session.launch(SLEEP);
                session.exec(&format!(
                    "SELECT pg_background_cancel({job}), pg_background_detach({job})"
                ));
            }
            4 => {
                let job = session.launch(SLEEP);
                session.exec(&format!("SELECT pg_terminate_backend({})", job.pid));
                session.wait_until(&format!(
                    "pg_terminate_backend({pid}) OR (SELECT has_error FROM pg_background_result_info({job}))",
                    pid = job.pid
                ));
            }
            5 => session.exec("SELECT pg_background_run('LISTEN x')"),
            6 => {
                let _ = session.try_rows(
                    "SET statement_timeout = 2; SELECT pg_background_run('SELECT pg_sleep(0.002)'); RESET statement_timeout",
                );
                session.exec("RESET statement_timeout");
            }
            _ => session.exec("SELECT pg_background_submit('SELECT 1') FROM generate_series(1, 6)"),
        }
    }
    session.exec("SET pg_background.launch_timeout = 0");
    session.wait_until("workers_active = 0 FROM pg_background_stats()");
    for _ in 0..CAP {
        session.launch(SLEEP);
    }
    let error = session.error("SELECT pg_background_launch('SELECT 1')");
    assert_refused(&error, "53400", &["4 jobs of the cluster are running"]);
    assert!(!error.detail.contains("Other launches"), "{error:?}");
    session.exec("SELECT pg_background_cancel_all()");
}

/// Launches that wait, are cancelled, time out and are terminated, all at once: none stays in the launch queue.
#[test]
fn a_storm_of_waiters_leaves_nobody_in_line() {
    const SESSIONS: u64 = 8;
    for settings in [&ONE_SLOT[..], &["pg_background.max_cluster_workers = 1"]] {
        let cluster = Cluster::start(settings);
        let mut observer = cluster.session();
        observer.exec("CREATE TABLE ran (who int, n int); CREATE TABLE promised (who int, n int)");
        thread::scope(|scope| {
            for who in 0..SESSIONS {
                let cluster = &cluster;
                scope.spawn(move || {
                    let mut random = Random::new(who);
                    let mut session = patient(cluster, "postgres");
                    for n in 0..40 {
                        let run = format!("INSERT INTO ran VALUES ({who}, {n}); SELECT pg_sleep(0.003)");
                        match random.below(4) {
                            0 => session.exec(&format!("SET statement_timeout = {}", 1 + random.below(30))),
                            1 => session.exec(&format!("SET pg_background.launch_timeout = {}", random.below(30))),
                            2 => {
                                session.exec("SET pg_background.launch_timeout = '10min'; SET statement_timeout = 0");
                            }
                            _ => {
                                let waiting = session.start(&format!("SELECT pg_background_run('{run}')"));
                                cluster
                                    .session()
                                    .exec(&format!("SELECT pg_terminate_backend({})", waiting.pid));
                                drop(waiting.join());
                                session = patient(cluster, "postgres");
                            }
                        }
                        match session.try_rows(&format!("SELECT state FROM pg_background_run('{run}')")) {
                            Ok(rows) => {
                                assert_eq!(rows[0][0].as_deref(), Some("stopped"));
                                session.end_statement_timeout();
                                session.exec(&format!("INSERT INTO promised VALUES ({who}, {n})"));
                            }
                            Err(error) => assert!(
                                ["57014", "53000", "53400"].contains(&error.sqlstate.as_str()),
                                "{error:?}"
                            ),
                        }
                        session.end_statement_timeout();
                    }
                });
            }
        });
        assert!(observer.holds("count(*) = 0 FROM (TABLE promised EXCEPT TABLE ran) AS lost"));
        assert!(observer.holds("count(*) > 10 FROM promised"));
        // Jobs whose session has ended run to their end.
        observer.wait_until("count(*) = 0 FROM pg_background_jobs WHERE finished_at IS NULL");
        // No entry is left at the front.
        observer.exec("SET pg_background.launch_timeout = '1min'");
        let job = observer.launch(SLEEP);
        observer.exec("SET pg_background.launch_timeout = 0");
        let error = observer.error("SELECT pg_background_launch('SELECT 1')");
        assert!(error.sqlstate.starts_with("53"), "{error:?}");
        assert!(!error.detail.contains("Other launches"), "{error:?}");
        cancel(&mut observer, job);
    }
}

#[test]
fn after_a_crash_nobody_is_in_line() {
    let cluster = Cluster::start(&ONE_SLOT);
    cluster.expect_crash();
    let mut observer = cluster.session();
    observer.launch(SLEEP);
    let session = patient(&cluster, "postgres");
    let waiting = start_waiting(&mut observer, session, "SELECT pg_background_run('SELECT 1')");
    cluster.signal(observer.pid, "KILL");
    assert!(waiting.join().1.is_err());
    let mut session = None;
    harness::wait_for("the server's restart", || {
        session = cluster.try_session_in("postgres", "postgres").ok();
        session.is_some()
    });
    let mut session = session.unwrap();
    assert_eq!(
        session.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
    assert!(session.holds("count(*) = 1 FROM pg_background_jobs"));
}

/// Parallel workers, and workers of other extensions, announce their end to no other process.
#[test]
fn a_slot_that_becomes_free_in_silence_is_found() {
    let cluster = Cluster::start(&ONE_SLOT);
    let mut observer = cluster.session();
    let mut parallel = cluster.session();
    // Called force_parallel_mode before version 16.
    parallel.exec(
        "SELECT set_config(name, 'on', false) FROM pg_settings
         WHERE name IN ('debug_parallel_query', 'force_parallel_mode')",
    );
    let parallel = parallel.start(SLEEP);
    observer.wait_until("EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'parallel worker')");
    let session = patient(&cluster, "postgres");
    let waiting = start_waiting(
        &mut observer,
        session,
        "SELECT state FROM pg_background_run('SELECT 1')",
    );
    parallel.cancel();
    drop(parallel.join());
    ended(waiting);
}
