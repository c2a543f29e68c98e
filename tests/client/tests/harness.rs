//! Tests of the harness itself: a test must notice the faults that it looks for.

use harness::{Cluster, SqlError, wait_for};

#[test]
fn values_errors_and_cancels_arrive() {
    let cluster = Cluster::start_plain(&[]);
    let mut session = cluster.session();
    assert_eq!(session.value::<i32>("SELECT 1 + 1"), 2);
    let error = session.error("SELECT 1 / 0");
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("22012", "division by zero")
    );

    let mut watcher = cluster.session();
    let pending = session.start("SELECT pg_sleep(3600)");
    watcher.wait_until(&format!(
        "state = 'active' FROM pg_stat_activity WHERE pid = {}",
        pending.pid
    ));
    pending.cancel();
    let (session, result) = pending.join();
    assert_eq!(result.unwrap_err().sqlstate, "57014");

    let pending = session.start("SELECT pg_sleep(3600)");
    watcher.exec(&format!("SELECT pg_terminate_backend({})", pending.pid));
    let sqlstate = pending.join().1.unwrap_err().sqlstate;
    assert!(
        sqlstate == "57P01" || sqlstate == SqlError::CONNECTION_LOST,
        "{sqlstate}"
    );
}

#[test]
fn a_crash_fails_the_test() {
    let outcome = std::panic::catch_unwind(|| {
        let cluster = Cluster::start_plain(&[]);
        let session = cluster.session();
        cluster.signal(session.pid, "SEGV");
        wait_for("the server's recovery", || {
            cluster
                .log()
                .matches("database system is ready to accept connections")
                .count()
                == 2
        });
    });
    let message = *outcome
        .expect_err("a crash must not go unnoticed")
        .downcast::<String>()
        .unwrap();
    assert!(message.contains("was terminated by signal 11"), "{message}");
}
