//! Read-only jobs run on a hot standby.

use harness::Cluster;

#[test]
fn hot_standby() {
    let primary = Cluster::start(&["max_wal_senders = 4", "wal_level = replica"]);
    primary
        .session()
        .exec("CREATE TABLE copied (n int); INSERT INTO copied VALUES (42)");
    let standby = Cluster::standby_of(&primary, &[]);
    let mut session = standby.session();
    assert!(session.holds("pg_is_in_recovery()"));
    let job = session.launch("SELECT n FROM copied");
    assert_eq!(
        session.value::<i32>(&format!("SELECT n FROM pg_background_result({job}) AS (n int)")),
        42
    );
    assert_eq!(
        session.value::<String>("SELECT sqlstate FROM pg_background_run('INSERT INTO copied VALUES (1)')"),
        "25006"
    );
    let job = session.launch("SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g");
    session.wait(job);
    assert_eq!(session.state(job), "stopped");
    assert_eq!(
        session.value::<i32>(&format!(
            "SELECT count(*) FROM pg_background_result({job}) AS (g int, t text)"
        )),
        20_000
    );
}
