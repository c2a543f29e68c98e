//! Launches beyond the limit of running jobs.

use harness::Cluster;

#[test]
fn no_worker_slot_of_the_server() {
    let cluster = Cluster::start(&["max_worker_processes = 3"]);
    let mut session = cluster.session();
    let mut jobs = Vec::new();
    let error = loop {
        match session.try_rows("SELECT pid, cookie FROM pg_background_launch('SELECT pg_sleep(3600)')") {
            Ok(_) => jobs.push(()),
            Err(error) => break error,
        }
        assert!(jobs.len() <= 3, "more jobs than the server has slots");
    };
    assert!(!jobs.is_empty());
    assert_eq!(error.sqlstate, "53000", "{error:?}");
    assert_eq!(error.message, "could not register background process");
    assert!(error.hint.contains("max_worker_processes"), "{error:?}");

    // A refused launch is not a job, and other launches meet the same limit.
    assert_eq!(session.counters().launched, jobs.len() as i64);
    let mut other = cluster.session();
    assert_eq!(other.error("SELECT pg_background_launch('SELECT 1')").sqlstate, "53000");
    assert_eq!(other.error("SELECT pg_background_run('SELECT 1')").sqlstate, "53000");
    assert_eq!(other.counters().launched, 0);

    session.exec("SELECT pg_background_cancel_all()");
    session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
    // A worker's slot becomes free a moment after its job has ended.
    harness::wait_for("a free slot", || {
        other
            .try_rows("SELECT pg_background_run('SELECT 1')")
            .is_ok_and(|rows| rows.len() == 1)
    });
}

#[test]
fn max_workers_of_the_session() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec("SET pg_background.max_workers = 2");
    let job = session.launch("SELECT pg_sleep(3600)");
    session.submit("SELECT pg_sleep(3600)");
    for call in ["launch('SELECT 1')", "submit('SELECT 1')", "run('SELECT 1')"] {
        let error = session.error(&format!("SELECT pg_background_{call}"));
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("53400", "too many background workers")
        );
    }
    // Another session has its own count.
    let mut other = cluster.session();
    other.exec("SET pg_background.max_workers = 1");
    assert_eq!(
        other.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );

    // Only running jobs count: each one that ends admits another, whether its handle is released or not.
    session.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    session.launch("SELECT pg_sleep(3600)");
    assert_eq!(
        session.error("SELECT pg_background_launch('SELECT 1')").sqlstate,
        "53400"
    );
    // Nor does detaching a running job admit another.
    session.exec("SELECT pg_background_detach_all()");
    session.exec("SET pg_background.max_workers = 3");
    session.launch("SELECT pg_sleep(3600)");
    assert_eq!(session.counters().active, 3);
}

#[test]
fn many_ended_jobs_keep_no_slot() {
    let cluster = Cluster::start(&["max_worker_processes = 4"]);
    let mut session = cluster.session();
    for n in 0..100 {
        let launch = format!("SELECT pg_background_launch('SELECT {n}', 0, 'number {n}')");
        // A worker's slot is free when the postmaster has noticed the end of its process, a moment after the end of the job.
        harness::wait_for("a free slot", || match session.try_rows(&launch) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.sqlstate, "53000", "{error:?}");
                false
            }
        });
    }
    session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
    assert_eq!(
        session.value::<i32>("SELECT count(*) FROM pg_background_list WHERE state = 'stopped'"),
        100
    );
    assert_eq!(session.value::<i32>("SELECT pg_background_purge()"), 100);
}
