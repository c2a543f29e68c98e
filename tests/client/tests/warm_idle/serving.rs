//! Which jobs a worker serves, and how that is shown.

use super::*;

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

    // The handle stays, but the worker no longer runs the job.
    let activity = format!(
        "SELECT pgbg_state, backend_state, query FROM pg_background_activity WHERE pid = {}",
        job.pid
    );
    assert_eq!(session.rows(&activity), vec![vec![Some("stopped".into()), None, None]]);
    // The job's statistics are reported although its process has not ended.
    observer.wait_until("n_tup_ins = 1 FROM pg_stat_user_tables WHERE relname = 'counted'");

    // The worker is shown beside the job that it runs now.
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
    // Each result is that of its own job, in whatever order they are read, in memory and in files.
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
            // Other jobs still have the pid, but this was a valid handle.
            assert_eq!(
                session.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
                "42704"
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

    // Sessions of the same role get the worker that served them before.
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
    // The worker of an ended session serves others.
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
fn a_session_can_do_without() {
    let cluster = Cluster::start(&[KEPT]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    let pid = leave_idle(&mut session);
    session.exec("SET pg_background.worker_idle_timeout = 0");
    let mut fresh: Vec<_> = (0..5).map(|_| session.run()).collect();
    fresh.sort_unstable();
    fresh.dedup();
    assert_eq!(fresh.len(), 5);
    assert!(!fresh.contains(&pid));
    assert_eq!(other.run(), pid, "the settings are those of one session");
    session.exec("RESET pg_background.worker_idle_timeout");
    let pid = leave_idle(&mut session);
    assert_eq!(session.run(), pid);

    other.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice");
    let mut alice = cluster.session_as("alice");
    alice.run();
    for setting in ["worker_idle_timeout", "max_idle_workers"] {
        assert_eq!(
            alice.error(&format!("SET pg_background.{setting} = 1")).sqlstate,
            "42501"
        );
    }
}

/// A view of processes may be older than the list of jobs: within a transaction `pg_stat_activity` does not change. The earlier activity of
/// a process is not that of its job.
#[test]
fn a_job_is_not_shown_with_what_its_worker_did_before() {
    let cluster = Cluster::start(&[KEPT]);
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    let shown = "SELECT label, pgbg_state, query FROM pg_background_activity ORDER BY launched_at";
    let row = |columns: [Option<&str>; 3]| columns.map(|column| column.map(str::to_owned)).to_vec();

    session.exec("BEGIN");
    let first = session.handle("SELECT pid, cookie FROM pg_background_launch('SELECT pg_sleep(3600), 1', 0, 'first')");
    observer.wait_until(&format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep')",
        first.pid
    ));
    let running = row([Some("first"), Some("running"), Some("SELECT pg_sleep(3600), 1")]);
    assert_eq!(session.rows(shown), vec![running.clone()]);
    session.exec(&format!("SELECT pg_background_cancel({first}, 60000)"));
    let canceled = row([Some("first"), Some("canceled"), None]);
    assert_eq!(session.rows(shown), vec![canceled.clone()]);

    let second =
        session.handle("SELECT pid, cookie FROM pg_background_launch('SELECT pg_sleep(3600), 2', 0, 'second')");
    assert_eq!(first.pid, second.pid, "the same worker");
    session.wait_until(&format!(
        "'running' = (SELECT state FROM pg_background_list WHERE cookie = {})",
        second.cookie
    ));
    assert_eq!(
        session.rows(shown),
        vec![canceled.clone(), row([Some("second"), Some("running"), None])]
    );
    session.exec("COMMIT");
    session.wait_until("EXISTS (SELECT FROM pg_background_activity WHERE wait_event = 'PgSleep')");
    let second_runs = row([Some("second"), Some("running"), Some("SELECT pg_sleep(3600), 2")]);
    assert_eq!(session.rows(shown), vec![canceled, second_runs]);

    // The process runs a job of this session. For another session's job the function returns NULL.
    let job_of = format!("SELECT pg_background_job_of({}, now())", second.pid);
    assert_eq!(session.text(&job_of), Some(second.cookie.to_string()));
    assert_eq!(observer.text(&job_of), None);
    session.exec("CREATE ROLE alice; GRANT pgbackground_role TO alice; SET ROLE alice");
    assert_eq!(session.text(&job_of), None);
    session.exec("RESET ROLE");
    for arguments in ["NULL, NULL", "0, NULL", "-1, now()", "NULL, now()"] {
        assert_eq!(session.text(&format!("SELECT pg_background_job_of({arguments})")), None);
    }
    session.exec(&format!("SELECT pg_background_cancel({second}, 60000)"));
    assert_eq!(session.text(&job_of), None);
}

/// If each job has a process of its own, a pid names one job, whatever workers others leave idle.
#[test]
fn pids_are_unique_where_no_worker_is_used_again() {
    let cluster = Cluster::start(&[KEPT]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    // A reused worker gives its pid to several handles.
    for _ in 0..3 {
        let job = session.launch("SELECT 1");
        session.wait(job);
    }
    assert!(session.holds("count(*) > count(DISTINCT pid) FROM pg_background_list"));
    let used = session.run();
    session.exec("SET pg_background.worker_idle_timeout = 0; SET pg_background.launch_timeout = '1min'");
    for n in 0..40 {
        let job = if n % 2 == 0 {
            session.launch("SELECT 1")
        } else {
            session.submit("SELECT 1")
        };
        assert_ne!(job.pid, used);
        if n % 3 == 0 {
            session.wait(job);
            other.run();
        }
    }
    assert!(session.holds(&format!(
        "count(*) = 40 AND count(DISTINCT pid) = 40 FROM pg_background_list WHERE pid <> {used}"
    )));
}
