//! Two sessions, or a session and the processes of tasks, one step after the other: what one does while the transaction of the other is open.

use harness::{Cluster, Session, quoted, wait_for};
use std::time::Instant;

fn cluster(settings: &[&str]) -> (Cluster, Session, Session) {
    let cluster = Cluster::start(settings);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks");
    session.exec("CREATE TABLE done (n int)");
    let other = cluster.session();
    (cluster, session, other)
}

#[track_caller]
fn becomes(session: &mut Session, id: i64, state: &str) {
    session.wait_until(&format!(
        "(SELECT state = '{state}' FROM background.tasks WHERE id = {id})"
    ));
}

/// Waits until a process waits for a lock.
const UNTIL_ONE_WAITS: &str =
    "DO 'BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted) LOOP PERFORM pg_sleep(0.001); END LOOP; END'";

#[test]
fn a_child_that_comes_while_its_parent_is_canceled() {
    let (_cluster, mut session, mut other) = cluster(&["max_prepared_transactions = 5"]);
    for end in ["COMMIT", "PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'"] {
        let parent = session.enqueue("'SELECT 1', run_at => now() + interval '1 hour'");
        other.exec(&format!("BEGIN; SELECT background.cancel({parent})"));
        let runs = session.enqueue(&format!(
            "'SELECT 2', after => ARRAY[{parent}], on_parent_failure => 'run'"
        ));
        let canceled = session.enqueue(&format!("'SELECT 3', after => ARRAY[{parent}]"));
        // The keeper has looked at the parent by then.
        let later = session.enqueue("'SELECT 4', run_at => now() + interval '10 ms'");
        assert_eq!(session.wait_task(later), "done");
        end.split("; ").for_each(|statement| other.exec(statement));
        assert_eq!(session.wait_task(runs), "done");
        assert_eq!(session.wait_task(canceled), "canceled");
    }
}

#[test]
fn a_task_of_the_key_that_comes_while_the_first_is_canceled() {
    let (_cluster, mut session, mut other) = cluster(&["pg_background.max_task_workers = 1"]);
    let first = session.enqueue("'SELECT 1 / 0', key => 'k', retry_delay => '1 hour'");
    session.wait_until(&format!(
        "(SELECT attempt = 1 AND state = 'deferred' FROM background.tasks WHERE id = {first})"
    ));
    other.exec(&format!("BEGIN; SELECT background.cancel({first})"));
    let second = session.enqueue("'SELECT 2', key => 'k'");
    assert_ne!(first, second);
    // The runner has looked at the second one by then.
    let last = session.enqueue("'SELECT 3'");
    assert_eq!(session.wait_task(last), "done");
    other.exec("COMMIT");
    assert_eq!(session.wait_task(second), "done");
}

/// Whatever waits for the end of a task is woken by it.
#[test]
fn a_cancel_is_noticed_at_once() {
    let (cluster, mut session, mut other) = cluster(&[]);
    let began = Instant::now();
    for _ in 0..10 {
        let id = session.enqueue("'SELECT 1', run_at => now() + interval '1 hour'");
        let waiting = cluster.session().start(&format!("SELECT background.wait({id}, 60000)"));
        session.wait_until(&format!(
            "(SELECT state = 'active' AND wait_event_type IS NOT NULL FROM pg_stat_activity WHERE pid = {})",
            waiting.pid
        ));
        other.exec(&format!("SELECT background.cancel({id})"));
        let (_, state) = waiting.join();
        assert_eq!(state.expect("the wait ends")[0][0].as_deref(), Some("canceled"));
    }
    // Without that each wait looks a second after it has begun.
    assert!(began.elapsed().as_secs() < 6, "{:?}", began.elapsed());
}

/// The place in the line of the unique key, and the place among those of the concurrency key, contradict each other.
#[test]
fn two_keys_in_two_orders() {
    let (_cluster, mut session, _) = cluster(&[]);
    session.exec("SELECT background.set_queue('q', max_running_per_key => 1)");
    session.exec("CREATE SEQUENCE s");
    let keys = "queue => 'q', key => 'k', concurrency_key => 'c'";
    let first = session.enqueue(&format!(
        "'SELECT 1 / (nextval(''s'') - 1)', {keys}, retry_delay => '2 s'"
    ));
    becomes(&mut session, first, "deferred");
    let second = session.enqueue(&format!("'SELECT 2', {keys}, priority => 10"));
    let third = session.enqueue("'SELECT 3', queue => 'q', concurrency_key => 'c'");
    // What is held back itself holds up no others.
    assert_eq!(session.wait_task(third), "done");
    becomes(&mut session, first, "deferred");
    assert_eq!(session.wait_task(first), "done");
    assert_eq!(session.wait_task(second), "done");

    // A lower number, and a later turn.
    session.exec("SELECT setval('s', 1, false)");
    let failed = session.enqueue(&format!("'SELECT 1 / (nextval(''s'') - 1)', {keys}, max_attempts => 1"));
    assert_eq!(session.wait_task(failed), "failed");
    let next = session.enqueue(&format!(
        "'SELECT 1 / (nextval(''s'') - 2)', {keys}, retry_delay => '2 s'"
    ));
    becomes(&mut session, next, "deferred");
    session.exec(&format!("SELECT background.retry({failed})"));
    assert_eq!(session.wait_task(next), "done");
    assert_eq!(session.wait_task(failed), "done");
}

/// The runner has read the row when it finds that another session is about to replace the task.
#[test]
fn a_task_that_is_replaced_while_it_is_taken() {
    let (_cluster, mut session, mut other) = cluster(&[]);
    for mode in ["transaction", "statement"] {
        session.exec("TRUNCATE done");
        session.exec("SELECT background.set_queue('q', paused => true)");
        let keys = format!("queue => 'q', mode => '{mode}', key => '{mode}', on_conflict => 'replace'");
        let id = session.enqueue(&format!("'INSERT INTO done VALUES (1)', {keys}"));
        other.exec(&format!(
            "BEGIN; SELECT FROM background.task WHERE id = {id} FOR UPDATE"
        ));
        session.exec("SELECT background.set_queue('q', paused => false)");
        other.exec(&format!(
            "{UNTIL_ONE_WAITS}; SELECT background.enqueue('INSERT INTO done VALUES (2)', {keys}); COMMIT"
        ));
        assert_eq!(session.wait_task(id), "done");
        assert!(session.holds("(SELECT array_agg(n) = '{2}' FROM done)"), "{mode}");
        assert!(
            session.holds(&format!(
                "(SELECT count(*) = 1 FROM background.runs WHERE task_id = {id})"
            )),
            "{mode}"
        );
    }
}

/// The limit counts the key that a task has, and not the one that it had when it came into its line.
#[test]
fn a_concurrency_key_that_is_replaced() {
    let (_cluster, mut session, mut other) = cluster(&["pg_background.max_task_workers = 4"]);
    session.exec("SELECT background.set_queue('q', max_running => 1, max_running_per_key => 1)");
    session.exec("CREATE TABLE gate ()");
    other.exec("BEGIN; LOCK TABLE gate");
    let first = session.enqueue("'SELECT FROM gate', queue => 'q'");
    becomes(&mut session, first, "running");
    let alone = "'SELECT 1 / pg_try_advisory_xact_lock(7)::int, pg_sleep(0.5)', queue => 'q', max_attempts => 1";
    let changed = "key => 'k', on_conflict => 'replace'";
    let second = session.enqueue(&format!("{alone}, {changed}, concurrency_key => 'c'"));
    let third = session.enqueue(&format!("{alone}, concurrency_key => 'd'"));
    assert_eq!(
        session.enqueue(&format!("{alone}, {changed}, concurrency_key => 'd'")),
        second
    );
    session.exec("SELECT background.set_queue('q', max_running => 4, max_running_per_key => 1)");
    assert_eq!(session.wait_task(second), "done");
    assert_eq!(session.wait_task(third), "done");
    other.exec("COMMIT");
    assert_eq!(session.wait_task(first), "done");
}

/// A parent that fails cancels its children, and not a task that waits for it no more.
#[test]
fn a_child_that_is_replaced_while_its_parent_is_canceled() {
    let (cluster, mut session, mut other) = cluster(&[]);
    let parent = session.enqueue("'SELECT 1', run_at => now() + interval '1 hour'");
    let child = session.enqueue(&format!("'SELECT 2', key => 'k', after => ARRAY[{parent}]"));
    other.exec("BEGIN");
    assert_eq!(other.enqueue("'SELECT 3', key => 'k', on_conflict => 'replace'"), child);
    let canceling = cluster.session().start(&format!("SELECT background.cancel({parent})"));
    session.wait_until("EXISTS (SELECT FROM pg_locks WHERE NOT granted)");
    other.exec("COMMIT");
    assert!(canceling.join().1.is_ok());
    assert_eq!(session.wait_task(parent), "canceled");
    assert_eq!(session.wait_task(child), "done");
}

/// The keeper leaves a child alone that a session has locked, and comes back.
#[test]
fn a_child_that_is_locked_when_its_parent_ends() {
    let (_cluster, mut session, mut other) = cluster(&[]);
    session.exec("SELECT background.set_queue('none', max_running => 0)");
    session.exec("CREATE ROLE gone LOGIN; GRANT pgbackground_role TO gone; SET ROLE gone");
    let of_nobody = session.enqueue("'SELECT 1', run_at => now() + interval '1 s'");
    session.exec("RESET ROLE");
    let expires = session.enqueue("'SELECT 1', queue => 'none', expires_at => now() + interval '1 s'");
    let children = [of_nobody, expires].map(|parent| session.enqueue(&format!("'SELECT 2', after => ARRAY[{parent}]")));
    other.exec("BEGIN; SELECT FROM background.task WHERE phase = 'b' FOR UPDATE");
    session.exec("DROP OWNED BY gone; DROP ROLE gone");
    assert_eq!(session.wait_task(of_nobody), "failed");
    assert_eq!(session.wait_task(expires), "expired");
    other.exec("ROLLBACK");
    for child in children {
        assert_eq!(session.wait_task(child), "canceled");
    }
}

/// The clock is gone when a task comes, and the server has no free slot for it.
#[test]
fn a_clock_that_cannot_start() {
    let (cluster, mut session, mut other) = cluster(&[
        "max_worker_processes = 2",
        "max_logical_replication_workers = 0",
        "pg_background.worker_idle_timeout = '1 min'",
    ]);
    let mut busy = cluster.session();
    session.exec("CREATE TABLE gate ()");
    other.exec("BEGIN; LOCK TABLE gate");
    let jobs = [(); 2].map(|()| busy.launch("SELECT FROM gate"));
    jobs.iter().for_each(|job| busy.wait_running(*job));
    // The session that has enqueued it does nothing more.
    session.exec(&format!(
        "SELECT background.enqueue({})",
        quoted("INSERT INTO done VALUES (1)")
    ));
    other.exec("ROLLBACK");
    jobs.iter().for_each(|job| busy.wait(*job));
    other.wait_until("EXISTS (SELECT FROM done)");
}

/// A process that looks at the tables of a database stays for a while if something is due soon. It makes room for those of other databases.
#[test]
fn schedules_in_many_databases() {
    const DATABASES: usize = 7;
    let (cluster, mut session, _) = cluster(&[
        "shared_preload_libraries = 'pg_background'",
        "max_worker_processes = 24",
        "pg_background.max_task_workers = 8",
    ]);
    let mut sessions: Vec<_> = (0..DATABASES)
        .map(|n| {
            session.exec(&format!("CREATE DATABASE d{n}"));
            let mut there = cluster.session_in(&format!("d{n}"), "postgres");
            there.exec("CREATE EXTENSION pg_background_tasks CASCADE");
            there
        })
        .collect();
    for there in &mut sessions {
        there.exec("SELECT background.schedule('s', 'every 1 second', 'SELECT 1')");
    }
    let fired = |there: &mut Session| there.value::<i64>("SELECT runs_total FROM background.schedules");
    wait_for("each schedule has fired often", || {
        sessions.iter_mut().all(|there| fired(there) >= 12)
    });
    for there in &mut sessions {
        assert!(there.holds("(SELECT missed_total = 0 FROM background.schedules)"));
        let late: f64 = there.value(
            "SELECT max(extract(epoch FROM started_at - run_at))::float8 FROM background.tasks WHERE state = 'done'",
        );
        assert!(late < 5.0, "{late} seconds");
    }
}

/// A row that logical replication wrote has the number of another database. It never runs here, and holds up nothing.
#[test]
fn a_task_of_another_database_with_the_same_key() {
    let (_cluster, mut session, _) = cluster(&[]);
    session.exec("SELECT background.set_queue('q', max_running_per_key => 1)");
    let keys = "queue => 'q', key => 'k', concurrency_key => 'c'";
    let foreign = session.enqueue(&format!(
        "'SELECT 1', {keys}, priority => 5, run_at => now() + interval '1 hour'"
    ));
    session.exec("UPDATE background.task SET home = home + 1, phase = 'w'");
    let own = session.enqueue(&format!("'SELECT 2', {keys}"));
    assert_ne!(own, foreign);
    assert_eq!(session.wait_task(own), "done");
    becomes(&mut session, foreign, "waiting");
}
