//! Which task runs next: order, late commits, limits, roles, and the ready cache compared with the table.

use harness::{Cluster, Random, Session, Shutdown};

fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start(settings);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks");
    session.exec("CREATE TABLE done (n int, place int GENERATED ALWAYS AS IDENTITY, pid int DEFAULT pg_backend_pid())");
    session.exec("GRANT ALL ON done TO PUBLIC");
    cluster
}

/// One runner for all: what it does, it does in order.
const ONE_RUNNER: &str = "pg_background.max_task_workers = 1";

#[track_caller]
fn all_done(session: &mut Session) {
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state NOT IN ('done', 'failed', 'canceled'))");
}

fn numbers(session: &mut Session) -> String {
    session
        .text("SELECT string_agg(n::text, ' ' ORDER BY place) FROM done")
        .unwrap_or_default()
}

#[test]
fn by_priority_then_in_the_order_of_ids() {
    let cluster = cluster(&[ONE_RUNNER]);
    let mut session = cluster.session();
    session.exec(
        "SELECT background.enqueue('INSERT INTO done VALUES (' || n || ')', priority => p) \
         FROM (VALUES (5, 0), (1, 7), (6, 0), (9, -3), (2, 7), (3, 2)) AS _ (n, p)",
    );
    all_done(&mut session);
    assert_eq!(numbers(&mut session), "1 2 3 5 6 9");
}

#[test]
fn a_thousand_in_one_transaction_and_a_hundred_thousand() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('default', paused => true)");
    for count in [1000, 20_000] {
        session.exec("TRUNCATE done");
        // In several priorities, so that the cache holds none of the first ones at first.
        session.exec(&format!(
            "SELECT background.enqueue('INSERT INTO done VALUES (' || n || ')', priority => n % 3) FROM generate_series(1, {count}) n"
        ));
        session.exec("SELECT background.set_queue('default', paused => false)");
        session.wait_until(&format!("(SELECT count(*) = {count} FROM done)"));
        all_done(&mut session);
        assert_eq!(session.value::<i64>("SELECT count(DISTINCT n) FROM done"), count);
        session.exec("SELECT background.set_queue('default', paused => true)");
    }
}

#[test]
fn a_transaction_that_commits_late_is_not_missed() {
    let cluster = cluster(&[ONE_RUNNER]);
    let (mut late, mut session) = (cluster.session(), cluster.session());
    late.exec("BEGIN; SELECT background.enqueue('INSERT INTO done VALUES (' || n || ')') FROM generate_series(1, 3) n");
    for round in 0..3 {
        session.exec(&format!(
            "SELECT background.enqueue('INSERT INTO done VALUES (' || n || ')') FROM generate_series({}, {}) n",
            10 + round * 200,
            209 + round * 200
        ));
        session.wait_until(&format!("(SELECT count(*) = {} FROM done)", (round + 1) * 200));
    }
    late.exec("COMMIT");
    session.wait_until("(SELECT count(*) = 603 FROM done)");
    all_done(&mut session);
}

#[test]
fn what_a_limit_holds_back_does_not_stop_the_others() {
    let cluster = cluster(&["pg_background.max_task_workers = 2"]);
    let mut session = cluster.session();
    session.exec(
        "SELECT background.set_queue('none', max_running => 0); SELECT background.set_queue('keys', max_running_per_key => 1);
         CREATE TABLE gate (n int); INSERT INTO gate VALUES (1)",
    );
    let mut other = cluster.session();
    other.exec("BEGIN; LOCK TABLE gate");
    session.exec(
        "SELECT background.enqueue('INSERT INTO done VALUES (-1)', queue => 'none') FROM generate_series(1, 500);
         SELECT background.enqueue('SELECT FROM gate; INSERT INTO done VALUES (0)', queue => 'keys', concurrency_key => 'k') FROM generate_series(1, 500);
         SELECT background.enqueue('INSERT INTO done VALUES (1)', queue => 'keys', concurrency_key => 'l') FROM generate_series(1, 50);
         SELECT background.enqueue('INSERT INTO done VALUES (2)') FROM generate_series(1, 50)",
    );
    session.wait_until("(SELECT count(*) = 100 FROM done)");
    assert!(session.holds("(SELECT count(*) = 1 FROM background.tasks WHERE state = 'running')"));
    other.exec("COMMIT");
    session.wait_until("(SELECT count(*) = 600 FROM done)");
    session.exec("SELECT background.set_queue('none', max_running => -1)");
    session.wait_until("(SELECT count(*) = 1100 FROM done)");
    all_done(&mut session);
}

#[test]
fn tasks_of_one_key_run_in_order_whoever_runs_them() {
    let cluster = cluster(&["pg_background.max_task_workers = 4"]);
    let mut session = cluster.session();
    session.exec(
        "SELECT background.set_queue('keys', max_running_per_key => 1); CREATE ROLE r LOGIN; GRANT pgbackground_role TO r;
         CREATE TABLE seen (key int, id int8, place int GENERATED ALWAYS AS IDENTITY); GRANT ALL ON seen TO PUBLIC",
    );
    // Roles take turns, too.
    for round in 0..4 {
        session.exec(if round % 2 == 0 { "RESET ROLE" } else { "SET ROLE r" });
        session.exec(
            "SELECT background.enqueue('INSERT INTO seen VALUES ($1, background.current_task())', row(n % 5), queue => 'keys', concurrency_key => 'k' || n % 5) \
             FROM generate_series(1, 200) n",
        );
    }
    session.exec("RESET ROLE");
    session.wait_until("(SELECT count(*) = 800 FROM seen)");
    assert!(session.holds(
        "NOT EXISTS (SELECT FROM (SELECT id, lag(id) OVER (PARTITION BY key ORDER BY place) AS before FROM seen) AS _ WHERE before > id)"
    ));
}

#[test]
fn roles_take_turns() {
    let cluster = cluster(&[ONE_RUNNER]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE a LOGIN; CREATE ROLE b LOGIN; GRANT pgbackground_role TO a, b");
    session.exec("SET ROLE a; SELECT background.enqueue('INSERT INTO done VALUES (1); SELECT pg_sleep(0.01)') FROM generate_series(1, 300)");
    session.exec("SET ROLE b; SELECT background.enqueue('INSERT INTO done VALUES (2)') FROM generate_series(1, 3)");
    session.exec("RESET ROLE");
    session.wait_until("(SELECT count(*) = 3 FROM done WHERE n = 2)");
    assert!(session.holds("(SELECT count(*) < 200 FROM done WHERE n = 1)"));
    session.exec("SELECT background.cancel(id) FROM background.tasks WHERE state = 'waiting'");
}

#[test]
fn more_queues_than_the_cache_has_lines() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('q' || n) FROM generate_series(1, 100) n");
    session.exec("SELECT background.enqueue('INSERT INTO done VALUES (' || n || ')', queue => 'q' || n % 100 + 1) FROM generate_series(1, 400) n");
    session.wait_until("(SELECT count(*) = 400 FROM done)");
    all_done(&mut session);
}

#[test]
fn one_after_the_other_under_one_key() {
    let cluster = cluster(&["pg_background.max_task_workers = 3"]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE gate (n int)");
    let mut other = cluster.session();
    other.exec("BEGIN; LOCK TABLE gate");
    session.exec("SELECT background.enqueue('SELECT FROM gate; INSERT INTO done VALUES (1)', key => 'k')");
    session.wait_until("EXISTS (SELECT FROM background.tasks WHERE state = 'running')");
    session.exec("SELECT background.enqueue('INSERT INTO done VALUES (2)', key => 'k')");
    session.exec("SELECT background.enqueue('INSERT INTO done VALUES (3)')");
    session.wait_until("(SELECT count(*) = 1 FROM done)");
    other.exec("COMMIT");
    all_done(&mut session);
    assert_eq!(numbers(&mut session), "3 1 2");
}

#[test]
fn a_fan_in_of_many_parents_and_a_chain() {
    let cluster = cluster(&["pg_background.max_task_workers = 3"]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE parents AS SELECT background.enqueue('INSERT INTO done VALUES (1)') AS id FROM generate_series(1, 300)");
    session.exec("SELECT background.enqueue('INSERT INTO done SELECT count(*) FROM done', after => (SELECT array_agg(id) FROM parents))");
    session.wait_until("EXISTS (SELECT FROM done WHERE n <> 1)");
    assert!(session.holds("EXISTS (SELECT FROM done WHERE n = 300)"));
    session.exec(
        "DO $$ DECLARE last int8; BEGIN FOR n IN 1..50 LOOP \
           last := background.enqueue('INSERT INTO done VALUES (' || 1000 + n || ')', after => CASE WHEN n > 1 THEN ARRAY[last] END); END LOOP; END $$",
    );
    session.wait_until("EXISTS (SELECT FROM done WHERE n = 1050)");
    assert!(session.holds("(SELECT array_agg(n ORDER BY place) = array_agg(n ORDER BY n) FROM done WHERE n > 1000)"));
}

#[test]
fn a_session_that_holds_a_row_holds_up_no_other_task() {
    let cluster = cluster(&[]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    session.exec("SELECT background.set_queue('default', paused => true)");
    let held: i64 = session.value("SELECT background.enqueue('INSERT INTO done VALUES (1)')");
    let deferred: i64 =
        session.value("SELECT background.enqueue('INSERT INTO done VALUES (2)', run_at => now() + '0.3 s')");
    let expiring: i64 =
        session.value("SELECT background.enqueue('INSERT INTO done VALUES (3)', expires_at => now() + '0.3 s')");
    other.exec("BEGIN");
    for id in [held, deferred, expiring] {
        other.exec(&format!("SELECT background.cancel({id})"));
    }
    session.exec("SELECT background.set_queue('default', paused => false)");
    session.exec("SELECT background.enqueue('INSERT INTO done VALUES (4)'), background.enqueue('INSERT INTO done VALUES (5)', run_at => now() + '0.4 s')");
    session.wait_until("(SELECT count(*) = 2 FROM done)");
    other.exec("ROLLBACK");
    session.wait_until("(SELECT count(*) = 4 FROM done)");
    assert_eq!(
        session
            .text(&format!("SELECT background.wait({expiring}, 30000)"))
            .as_deref(),
        Some("expired")
    );
}

/// Sessions enqueue, cancel and roll back while runners are terminated; at the end nothing waits, so the cache has missed nothing.
#[test]
fn nothing_is_left_in_the_table() {
    let cluster = cluster(&["pg_background.max_task_workers = 3", "max_prepared_transactions = 5"]);
    let mut session = cluster.session();
    session.exec(
        "SELECT background.set_queue('keys', max_running_per_key => 1, max_running => 2); SELECT background.set_queue('two', max_running => 2)",
    );
    let mut sessions: Vec<Session> = (0..3).map(|_| cluster.session()).collect();
    let mut random = Random::new(11);
    for round in 0..150 {
        let session = &mut sessions[random.below(3) as usize];
        let (count, priority, key) = (random.below(40) + 1, random.below(3), random.below(3));
        let enqueue = format!(
            "SELECT background.enqueue('INSERT INTO done VALUES ({round})', priority => {priority} * (n % 2), max_attempts => 100, retry_delay => '1 ms', \
               queue => (ARRAY['default', 'keys', 'two'])[1 + n % 3], concurrency_key => CASE WHEN n % 2 = 0 THEN 'k{key}' END) \
             FROM generate_series(1, {count}) n"
        );
        match random.below(6) {
            0 => session.exec(&format!("BEGIN; {enqueue}; ROLLBACK")),
            1 => session.exec(&format!(
                "BEGIN; SAVEPOINT a; {enqueue}; ROLLBACK TO a; {enqueue}; SAVEPOINT b; {enqueue}; RELEASE b; COMMIT"
            )),
            2 => {
                session.exec(&format!("BEGIN; {enqueue}; PREPARE TRANSACTION 'p{round}'"));
                session.exec(&format!("COMMIT PREPARED 'p{round}'"));
            }
            3 => session.exec(
                "SELECT background.cancel(id) FROM (SELECT id FROM background.tasks WHERE state = 'waiting' ORDER BY random() LIMIT 5) AS _",
            ),
            4 => session.exec("SELECT pg_terminate_backend(pid) FROM background.tasks WHERE state = 'running' LIMIT 1"),
            _ => session.exec(&enqueue),
        }
    }
    all_done(&mut session);
    assert!(
        session.holds("(SELECT count(*) FROM done) = (SELECT count(*) FROM background.tasks WHERE state = 'done')")
    );
    cluster.stop(Shutdown::Fast);
}
