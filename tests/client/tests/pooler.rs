//! Behind a real PgBouncer in transaction mode, where each transaction of a client may run in another server session.

use harness::{Cluster, Handle, Pooler, Session, wait_for};

/// A cluster behind a pooler that closes a server session after `lifetime` seconds; 0 means after each transaction.
fn start(settings: &[&str], lifetime: u32) -> (Cluster, Pooler) {
    let cluster = Cluster::start(settings);
    cluster
        .session()
        .exec("CREATE ROLE app LOGIN; GRANT pgbackground_role TO app; CREATE TABLE done (n int PRIMARY KEY); GRANT ALL ON done TO app");
    let pooler = Pooler::start(
        &cluster,
        &[
            "pool_mode = transaction",
            "default_pool_size = 4",
            &format!("server_lifetime = {lifetime}"),
        ],
    );
    (cluster, pooler)
}

fn backend(client: &mut Session) -> i32 {
    client.value("SELECT pg_backend_pid()")
}

#[test]
fn launched_by_one_client_read_by_another() {
    let (cluster, pooler) = start(&["pg_background.result_retention = '10min'"], 0);
    let mut observer = cluster.session();
    let (mut one, mut other) = (pooler.session_as("app"), pooler.session_as("app"));
    let mut backends = std::collections::HashSet::new();
    for n in 0..20 {
        let job = one.launch(&format!(
            "INSERT INTO done VALUES ({n}) RETURNING n, repeat('x', 100000)"
        ));
        backends.insert(backend(&mut one));
        // The server session that launched it has ended, or is about to.
        other.wait(job);
        backends.insert(backend(&mut other));
        assert!(other.holds(&format!("state = 'stopped' FROM pg_background_outcome({job})")));
        assert_eq!(
            other.value::<i32>(&format!("SELECT n FROM pg_background_result({job}) AS (n int, t text)")),
            n
        );
        assert_eq!(
            one.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
            "42704"
        );
    }
    assert!(backends.len() > 10, "the pooler changed server sessions: {backends:?}");
    assert_eq!(observer.value::<i32>("SELECT count(*) FROM done"), 20);
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
}

#[test]
fn without_retention_the_result_goes_with_the_server_session() {
    let (cluster, pooler) = start(&[], 0);
    let mut client = pooler.session_as("app");
    let job = client.launch("SELECT 1");
    // The session that launched it ends after the transaction.
    wait_for("the end of the server session", || {
        client
            .try_rows(&format!("SELECT pg_background_wait({job})"))
            .is_err_and(|error| error.sqlstate == "42704")
    });
    assert!(cluster.temporary_files().is_empty());
}

#[test]
fn clients_at_once() {
    let (cluster, pooler) = start(
        &["pg_background.result_retention = '10min'", "max_worker_processes = 16"],
        1,
    );
    const EACH: i32 = 40;
    let (jobs, taken) = std::sync::mpsc::channel::<(i32, Handle)>();
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (jobs, pooler) = (jobs.clone(), &pooler);
            scope.spawn(move || {
                let mut session = pooler.session_as("app");
                for n in 0..EACH {
                    let n = client * EACH + n;
                    let sql = format!(
                        "SELECT pid, cookie FROM pg_background_launch('INSERT INTO done VALUES ({n}); SELECT {n}, g FROM generate_series(1, 10) g')"
                    );
                    wait_for("a launch", || match session.try_rows(&sql) {
                        Ok(rows) => {
                            jobs.send((n, Handle::of(&rows[0]))).unwrap();
                            true
                        }
                        Err(error) => {
                            assert!(["53000", "53400"].contains(&&*error.sqlstate), "{error:?}");
                            false
                        }
                    });
                }
            });
        }
        drop(jobs);
        let pooler = &pooler;
        scope.spawn(move || {
            let mut reader = pooler.session_as("app");
            for (n, job) in taken {
                reader.wait(job);
                let rows = reader.rows(&format!(
                    "SELECT n, count(*) FROM pg_background_result({job}) AS (n int, g int) GROUP BY n"
                ));
                assert_eq!(rows, [[n.to_string(), "10".to_owned()].map(Some)]);
            }
        });
    });
    let mut observer = cluster.session();
    assert_eq!(observer.value::<i32>("SELECT count(*) FROM done"), 4 * EACH);
    assert!(observer.holds(&format!(
        "count(*) = {} AND count(DISTINCT launcher_pid) > 1 FROM pg_background_jobs",
        4 * EACH
    )));
}

#[test]
fn another_user_of_the_pooler() {
    let (cluster, pooler) = start(&["pg_background.result_retention = '10min'"], 0);
    cluster
        .session()
        .exec("CREATE ROLE tenant LOGIN; GRANT pgbackground_role TO tenant");
    let (mut app, mut tenant) = (pooler.session_as("app"), pooler.session_as("tenant"));
    let job = app.launch("SELECT 'of app'::text");
    assert_eq!(
        tenant.error(&format!("SELECT pg_background_wait({job})")).sqlstate,
        "42501"
    );
    assert!(tenant.holds("cookie IS NULL AND sql_preview IS NULL FROM pg_background_jobs"));
    assert_eq!(
        app.value::<String>(&format!("SELECT * FROM pg_background_result({job}) AS (t text)")),
        "of app"
    );
}
