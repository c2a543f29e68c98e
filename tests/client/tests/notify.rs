//! A job's notifications reach every listener, the launching session too, when the job commits.

use harness::Cluster;

#[test]
fn listeners_hear_a_committed_job_only() {
    let cluster = Cluster::start(&[]);
    let mut listener = cluster.session();
    let mut session = cluster.session();
    listener.exec("LISTEN news");
    session.exec("LISTEN news");

    let failed = session.launch("NOTIFY news, 'rolled back'; SELECT 1 / 0");
    session.wait(failed);
    let job = session.launch("NOTIFY news, 'committed'; SELECT pg_notify('news', 'too')");
    session.wait(job);
    assert_eq!(listener.notifications(2), ["committed", "too"]);
    // The next simple-query message brings the launching session's own notifications.
    session.exec("SELECT 1");
    assert_eq!(session.notifications(2), ["committed", "too"]);
}

#[test]
fn a_job_that_listens_hurts_nobody() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let job = session.launch("LISTEN news; NOTIFY news, 'to itself'; SELECT 1");
    session.wait(job);
    assert_eq!(session.state(job), "stopped");
    assert_eq!(
        session.value::<i32>(&format!("SELECT x FROM pg_background_result({job}) AS (x int)")),
        1
    );
    session.exec("NOTIFY news, 'later'");
    assert_eq!(
        session.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
}
