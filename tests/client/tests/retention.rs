//! Results that outlive the session that launched their jobs.

use harness::{Cluster, Handle, Session, wait_for};

const ROWS: &str = "SELECT g, repeat('x', 1000) FROM generate_series(1, 3000) g";

fn count(session: &mut Session, job: Handle) -> i32 {
    session.value(&format!(
        "SELECT count(*) FROM pg_background_result({job}) AS (g int, t text)"
    ))
}

fn ends(session: Session, observer: &mut Session) {
    let pid = session.pid;
    drop(session);
    observer.wait_until(&format!("NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"));
}

#[test]
fn nothing_by_default() {
    let cluster = Cluster::start(&[]);
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    assert_eq!(
        session.value::<String>("LOAD 'pg_background'; SHOW pg_background.result_retention"),
        "0"
    );
    let job = session.launch(ROWS);
    session.wait(job);
    assert!(!cluster.temporary_files().is_empty());
    ends(session, &mut observer);
    assert_eq!(
        observer.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
        "42704"
    );
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn a_job_that_runs_is_everybodys_without_its_session() {
    let cluster = Cluster::start(&[]);
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    observer.exec("SELECT pg_advisory_lock(1)");
    let large = session.launch(&format!(
        "{ROWS}; SELECT g, t FROM pg_advisory_lock(1), (VALUES (1, 'x')) AS v (g, t)"
    ));
    let submitted = session.submit("SELECT pg_sleep(3600)");
    let producing = session.launch("SELECT g, repeat('x', 1000) FROM generate_series(1, 1000000000) g");
    wait_for("temporary files", || !cluster.temporary_files().is_empty());
    ends(session, &mut observer);
    // The handle is valid to wait for the job, to see it and to cancel it; but its result was dropped with the session.
    assert!(!observer.holds(&format!("pg_background_wait({large}, 50)")));
    assert!(observer.holds(&format!("state = 'running' FROM pg_background_outcome({submitted})")));
    assert!(observer.holds(&format!(
        "pg_background_full_sql({submitted}) = 'SELECT pg_sleep(3600)'"
    )));
    for job in [large, producing] {
        let error = observer.error(&format!("SELECT * FROM pg_background_result({job}) AS (g int, t text)"));
        assert_eq!(error.sqlstate, "42704", "{error:?}");
        assert!(error.detail.contains("not retained"), "{error:?}");
    }
    let waiting = cluster.session().start(&format!("SELECT pg_background_wait({large})"));
    observer.wait_until(&format!(
        "wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = {}",
        waiting.pid
    ));
    observer.exec("SELECT pg_advisory_unlock(1)");
    assert_eq!(waiting.join().1.unwrap(), [[Some("t".to_owned())]]);
    observer.exec("SELECT pg_background_cancel(pid, cookie, 60000) FROM pg_background_jobs WHERE finished_at IS NULL");
    assert!(observer.holds("count(*) = 2 FROM pg_background_jobs WHERE state = 'canceled'"));
    // After its end it is only in the history.
    for job in [large, submitted, producing] {
        assert_eq!(
            observer.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
            "42704"
        );
    }
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn read_after_the_session_and_the_worker_have_gone() {
    let cluster = Cluster::start(&["pg_background.worker_idle_timeout = 0"]);
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    session.exec("SET pg_background.result_retention = '1h'");
    let ended = session.launch(ROWS);
    let failed = session.launch("SELECT 1/0");
    let submitted = session.submit("SELECT 1");
    let running = session.launch("SELECT 5 FROM pg_advisory_lock(1)");
    for job in [ended, failed, submitted] {
        session.wait(job);
    }
    observer.exec("SELECT pg_advisory_lock(1)");
    ends(session, &mut observer);
    wait_for("the end of the workers", || cluster.worker_processes().len() <= 1);
    assert_eq!(count(&mut observer, ended), 3000);
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
    assert_eq!(
        observer
            .error(&format!("SELECT * FROM pg_background_result({failed}) AS (n int)"))
            .sqlstate,
        "22012"
    );
    assert!(observer.holds(&format!("state = 'stopped' FROM pg_background_outcome({submitted})")));
    observer.exec(&format!("SELECT pg_background_detach({submitted})"));
    observer.exec("SELECT pg_advisory_unlock(1)");
    observer.wait(running);
    assert_eq!(
        observer.value::<i32>(&format!("SELECT n FROM pg_background_result({running}) AS (n int)")),
        5
    );
    for job in [ended, failed, submitted, running] {
        assert_eq!(
            observer.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
            "42704"
        );
    }
}

#[test]
fn they_expire() {
    let cluster = Cluster::start(&[]);
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    session.exec("SET pg_background.result_retention = '300ms'");
    let jobs: Vec<_> = (0..5).map(|_| session.launch(ROWS)).collect();
    for job in &jobs {
        session.wait(*job);
    }
    session.exec("SET pg_background.result_retention = '1h'");
    let before = cluster.temporary_files().len();
    let kept = session.launch(ROWS);
    session.wait(kept);
    let files = cluster.temporary_files().len() - before;
    assert!(files > 0);
    // While its session exists a result does not expire.
    session.exec("SELECT pg_sleep(0.5)");
    assert_eq!(count(&mut observer, jobs[0]), 3000);
    ends(session, &mut observer);
    observer.wait_until(&format!("state IS NULL FROM pg_background_outcome({})", jobs[4]));
    observer.wait_until(&format!(
        "(SELECT count(state) = 0 FROM pg_background_drain({}))",
        Handle::array(&jobs)
    ));
    // The next process that uses the extension removes their files.
    wait_for("the removal of temporary files", || {
        observer.exec("SELECT count(*) FROM pg_background_jobs");
        cluster.temporary_files().len() == files
    });
    assert_eq!(count(&mut observer, kept), 3000);
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn counted_from_the_jobs_end_where_that_is_later() {
    let cluster = Cluster::start(&[]);
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    session.exec("SET pg_background.result_retention = '30s'");
    observer.exec("SELECT pg_advisory_lock(1)");
    let job = session.launch("SELECT 1 FROM pg_advisory_lock(1)");
    session.exec("SET pg_background.result_retention = '1ms'");
    let short = session.launch("SELECT 1 FROM pg_advisory_lock(1)");
    ends(session, &mut observer);
    // The second one is retained only briefly once it has ended, but as long as it runs.
    assert!(!observer.holds(&format!("pg_background_wait({short}, 50)")));
    observer.exec("SELECT pg_advisory_unlock(1)");
    observer.wait(job);
    observer.exec(&format!("SELECT * FROM pg_background_result({job}) AS (n int)"));
    observer.wait_until(&format!("state IS NULL FROM pg_background_outcome({short})"));
}

#[test]
fn only_the_role_reads() {
    let cluster = Cluster::start(&[]);
    let mut observer = cluster.session();
    observer.exec("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT pgbackground_role TO alice, bob");
    let mut alice = cluster.session_as("alice");
    alice.exec("SET pg_background.result_retention = '1h'");
    let job = alice.launch(ROWS);
    ends(alice, &mut observer);
    assert_eq!(
        cluster
            .session_as("bob")
            .error(&format!("SELECT * FROM pg_background_result({job}) AS (g int, t text)"))
            .sqlstate,
        "42501"
    );
    assert_eq!(count(&mut cluster.session_as("alice"), job), 3000);
}

#[test]
fn a_part_that_was_read_is_not_retained() {
    let cluster = Cluster::start(&[]);
    let (mut session, mut observer) = (cluster.session(), cluster.session());
    session.exec("SET pg_background.result_retention = '1h'");
    let job = session.launch(ROWS);
    session.wait(job);
    // An error in the middle of the reading.
    session.error(&format!(
        "SELECT 1 / (1500 - g) FROM pg_background_result({job}) AS (g int, t text)"
    ));
    let other = session.launch(
        "SELECT g, repeat('x', 100000), pg_sleep(CASE g WHEN 100 THEN 3600 END)::text FROM generate_series(1, 200) g",
    );
    let watched = session.start(&format!(
        "SELECT * FROM pg_background_result({other}) AS (g int, t text, s text)"
    ));
    observer.wait_until(&format!(
        "wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {}",
        other.pid
    ));
    watched.cancel();
    let (session, answer) = watched.join();
    assert_eq!(answer.unwrap_err().sqlstate, "57014");
    ends(session, &mut observer);
    // A session with the handle can cancel the job, and then nothing is left of it.
    let read = format!("SELECT * FROM pg_background_result({other}) AS (g int, t text, s text)");
    assert_eq!(observer.error(&read).sqlstate, "55000");
    observer.exec(&format!("SELECT pg_background_cancel({other})"));
    wait_for("the end of the job", || {
        observer
            .try_rows(&format!("SELECT pg_background_wait({other})"))
            .is_err_and(|error| error.sqlstate == "42704")
    });
    assert_eq!(observer.error(&read).sqlstate, "42704");
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn a_restart_ends_them() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec("SET pg_background.result_retention = '1h'");
    let job = session.launch(ROWS);
    session.wait(job);
    drop(session);
    cluster.stop(harness::Shutdown::Fast);
    cluster.restart();
    let mut session = cluster.session();
    assert_eq!(
        session.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
        "42704"
    );
    assert_eq!(session.value::<i32>("SELECT count(*) FROM pg_background_jobs"), 0);
    assert!(cluster.temporary_files().is_empty());
}
