//! Durable tasks that run.

use harness::{Cluster, Random, Session, Shutdown, wait_for};

fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start(settings);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks");
    session.exec(
        "CREATE TABLE done (n int, pid int DEFAULT pg_backend_pid(), task int8 DEFAULT background.current_task())",
    );
    session.exec("GRANT ALL ON done TO PUBLIC");
    cluster
}

#[test]
fn a_task_runs_after_the_commit() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("BEGIN");
    let id = session.enqueue("'INSERT INTO done VALUES (1)'");
    session.exec("COMMIT");
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds(&format!("(SELECT n = 1 AND task = {id} FROM done)")));
    assert!(session.holds(&format!(
        "(SELECT attempt = 1 AND row_count = 1 AND command_tag = 'INSERT' AND state = 'done' AND pid = (SELECT pid FROM done) \
          FROM background.runs WHERE task_id = {id})"
    )));
    assert!(session.holds(&format!(
        "(SELECT state = 'done' FROM background.tasks WHERE id = {id})"
    )));
    // The next one finds a worker.
    for n in 2..6 {
        let id = session.enqueue(&format!("'INSERT INTO done VALUES ({n})'"));
        assert_eq!(session.wait_task(id), "done");
    }
    assert_eq!(session.value::<i64>("SELECT count(DISTINCT n) FROM done"), 5);
}

/// A runner keeps nothing of functions that were replaced before the task was enqueued.
#[test]
fn a_function_is_replaced_between_tasks() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE FUNCTION most() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 5';
         CREATE DOMAIN few AS int CHECK (value < most());
         CREATE FUNCTION is_small(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 < 5';
         CREATE DOMAIN small AS int CHECK (is_small(value));
         CREATE TABLE checked (a few, b small)",
    );
    let mut insert = |values: &str| {
        let id = session.enqueue(&format!("'INSERT INTO checked VALUES ({values})', max_attempts => 1"));
        let state = session.wait_task(id);
        session.exec(
            "CREATE OR REPLACE FUNCTION most() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 3';
             CREATE OR REPLACE FUNCTION is_small(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 < 3'",
        );
        state
    };
    assert_eq!(insert("4"), "done");
    assert_eq!(insert("4"), "failed");
    assert_eq!(insert("NULL, 4"), "failed");
    assert_eq!(insert("2, 2"), "done");
}

#[test]
fn many_tasks_run_once_each() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT background.enqueue('INSERT INTO done VALUES (' || n || ')') FROM generate_series(1, 300) n");
    session.wait_until("(SELECT count(*) >= 300 FROM done)");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'done')");
    assert!(session.holds("(SELECT count(*) = 300 AND count(DISTINCT n) = 300 FROM done)"));
    assert!(session.holds("(SELECT count(*) = 300 FROM background.runs)"));
}

#[test]
fn the_state_that_a_task_runs_in() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice; ALTER ROLE alice SET work_mem = '7MB'; ALTER ROLE alice SET default_transaction_read_only = on;
         CREATE SCHEMA a; GRANT ALL ON SCHEMA a TO alice; CREATE TABLE a.seen (what text); GRANT ALL ON a.seen TO alice;
         SET search_path = a, public; SET ROLE alice",
    );
    let see = "concat_ws(''|'', session_user, current_user, current_setting(''work_mem''), current_setting(''search_path''), \
         current_setting(''app.tenant'', true), background.current_attempt(), $1, $2)";
    let id = session.enqueue(
        &format!(
            "'INSERT INTO seen SELECT {see}', row('x'::text, 7.50::numeric(5,2)), settings => '{{\"app.tenant\": 7, \"transaction_read_only\": \"off\"}}'"
        ),
    );
    assert_eq!(session.wait_task(id), "done");
    assert_eq!(
        session.value::<String>("SELECT what FROM a.seen"),
        "alice|alice|7MB|a, public|7|1|x|7.50"
    );
    // The note is made although the role may not write.
    for sql in [
        "SELECT 1",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM a.seen",
        "",
    ] {
        let id = session.enqueue(&format!("'{sql}'"));
        assert_eq!(session.wait_task(id), "done", "{sql}");
    }
    // What one has set is not there for the next.
    let id = session.enqueue(
        "'INSERT INTO seen VALUES (coalesce(current_setting(''app.tenant'', true), '''') || ''none'')', settings => '{\"transaction_read_only\": \"off\"}'",
    );
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds("(SELECT count(*) = 1 FROM a.seen WHERE what = 'none')"));
}

/// What a transaction is by default, the one of the task is, too.
#[test]
fn defaults_of_transactions_among_the_settings() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    let see = "SELECT concat_ws(''|'', current_setting(''transaction_isolation''), current_setting(''transaction_read_only''), \
         current_setting(''transaction_deferrable'')) AS seen";
    for (settings, seen) in [
        (
            r#"{"default_transaction_isolation": "serializable"}"#,
            "serializable|off|off",
        ),
        (
            r#"{"Default_Transaction_Isolation": "repeatable read"}"#,
            "repeatable read|off|off",
        ),
        (r#"{"default_transaction_read_only": "on"}"#, "read committed|on|off"),
        (
            r#"{"default_transaction_isolation": "serializable", "default_transaction_read_only": true, "default_transaction_deferrable": true}"#,
            "serializable|on|on",
        ),
        (
            r#"{"default_transaction_isolation": "serializable", "transaction_isolation": "read committed"}"#,
            "read committed|off|off",
        ),
        (
            r#"{"default_transaction_read_only": "on", "transaction_read_only": "off"}"#,
            "read committed|off|off",
        ),
    ] {
        for mode in ["transaction", "statement"] {
            if mode == "statement" && settings.contains("\"transaction_") {
                continue;
            }
            let id = session.enqueue(&format!(
                "'{see}', settings => '{settings}', mode => '{mode}', keep_result => true"
            ));
            assert_eq!(session.wait_task(id), "done", "{mode} {settings}");
            assert_eq!(
                session.value::<String>(&format!("SELECT r ->> 'seen' FROM background.result({id}) AS r")),
                seen,
                "{mode} {settings}"
            );
        }
    }
    let id = session.enqueue(
        "'INSERT INTO done VALUES (1)', settings => '{\"default_transaction_read_only\": \"on\"}', max_attempts => 1",
    );
    assert_eq!(session.wait_task(id), "failed");
    assert!(session.holds(&format!(
        "(SELECT sqlstate = '25006' FROM background.runs WHERE task_id = {id})"
    )));
    // The next one has none of it.
    let id = session.enqueue(&format!("'{see}', keep_result => true"));
    assert_eq!(session.wait_task(id), "done");
    assert_eq!(
        session.value::<String>(&format!("SELECT r ->> 'seen' FROM background.result({id}) AS r")),
        "read committed|off|off"
    );
}

#[test]
fn an_attempt_that_fails_is_noted_and_followed_by_the_next() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE SEQUENCE attempts");
    let id = session.enqueue(
        "'INSERT INTO done VALUES (1); SELECT 1 / (CASE WHEN nextval(''attempts'') < 3 THEN 0 ELSE 1 END)', retry_delay => '10 ms'",
    );
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds("(SELECT count(*) = 1 FROM done)"));
    assert!(session.holds(&format!(
        "(SELECT array_agg(concat_ws(' ', attempt, state, sqlstate) ORDER BY attempt) = '{{1 failed 22012,2 failed 22012,3 done}}' \
          FROM background.runs WHERE task_id = {id})"
    )));
    let id = session.enqueue("'SELECT 1 / 0', retry_delay => '10 ms', max_attempts => 2");
    assert_eq!(session.wait_task(id), "failed");
    assert_eq!(
        session.error(&format!("CALL background.wait_for({id})")).sqlstate,
        "22012"
    );
    assert!(session.holds(&format!(
        "(SELECT attempt = 2 AND sqlstate = '22012' FROM background.tasks WHERE id = {id})"
    )));
    // The commit itself fails.
    session.exec("CREATE TABLE parent (n int PRIMARY KEY); CREATE TABLE child (n int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)");
    let id = session.enqueue("'INSERT INTO child VALUES (1)', max_attempts => 1");
    assert_eq!(session.wait_task(id), "failed");
    let id = session.enqueue("'DO $$ BEGIN COMMIT; END $$', max_attempts => 1");
    assert_eq!(session.wait_task(id), "failed");
    let id = session.enqueue("'SELECT pg_sleep(100)', max_attempts => 1, timeout => '50 ms'");
    assert_eq!(session.wait_task(id), "failed");
    let id = session.enqueue("'SELECT 1', settings => '{\"no such\": 1}', max_attempts => 1");
    assert_eq!(session.wait_task(id), "failed");
}

#[test]
fn one_that_runs_is_canceled_at_once() {
    let cluster = cluster(&[]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    let id = session.enqueue("'INSERT INTO done VALUES (1); SELECT pg_sleep(100)', label => 'sleeper'");
    session.wait_until(&format!(
        "(SELECT state = 'running' AND pid > 0 FROM background.tasks WHERE id = {id})"
    ));
    session.wait_until("(SELECT count(*) = 1 FROM pg_background_jobs WHERE label = 'sleeper' AND state = 'running')");
    assert!(session.holds("(SELECT running = 1 FROM background.status())"));
    assert!(other.holds(&format!("background.cancel({id})")));
    assert_eq!(session.wait_task(id), "canceled");
    assert!(session.holds("NOT EXISTS (SELECT FROM done)"));
    assert!(session.holds(&format!(
        "(SELECT state = 'canceled' FROM background.runs WHERE task_id = {id})"
    )));
    assert_eq!(
        session.error(&format!("CALL background.wait_for({id})")).sqlstate,
        "57014"
    );
    assert!(session.holds(&format!("NOT background.cancel({id})")));
}

#[test]
fn a_worker_that_is_terminated_loses_its_attempt_and_no_more() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE gate (open bool); INSERT INTO gate VALUES (false)");
    let id = session.enqueue(
        "'INSERT INTO done VALUES (1); SELECT pg_sleep(100) FROM gate WHERE NOT open', retry_delay => '10 ms'",
    );
    for attempt in 1..3 {
        session.wait_until(&format!(
            "(SELECT state = 'running' AND attempt = {attempt} FROM background.tasks WHERE id = {id})"
        ));
        session.exec(&format!(
            "SELECT pg_terminate_backend(pid) FROM background.tasks WHERE id = {id}"
        ));
        session.wait_until(&format!(
            "(SELECT count(*) = {attempt} FROM background.runs WHERE task_id = {id})"
        ));
    }
    session.exec("UPDATE gate SET open = true");
    session.exec(&format!(
        "SELECT pg_terminate_backend(pid) FROM background.tasks WHERE id = {id}"
    ));
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds("(SELECT count(*) = 1 FROM done)"));
    assert!(session.holds(&format!(
        "(SELECT count(*) FILTER (WHERE state = 'interrupted' AND sqlstate = '08006') >= 2 FROM background.runs WHERE task_id = {id})"
    )));
    let id = session.enqueue("'SELECT pg_sleep(100)', max_attempts => 1");
    session.wait_until(&format!(
        "(SELECT state = 'running' FROM background.tasks WHERE id = {id})"
    ));
    session.exec(&format!(
        "SELECT pg_terminate_backend(pid) FROM background.tasks WHERE id = {id}"
    ));
    assert_eq!(session.wait_task(id), "failed");
}

#[test]
fn limits_are_kept_at_every_moment() {
    let cluster = cluster(&["pg_background.max_task_workers = 6"]);
    let mut session = cluster.session();
    session.exec(
        "SELECT background.set_queue('two', max_running => 2); SELECT background.set_queue('keys', max_running_per_key => 1);
         SELECT background.set_queue('paused', paused => true);
         CREATE TABLE seen (what text, now_running bigint); GRANT ALL ON seen TO PUBLIC",
    );
    let look = "INSERT INTO seen SELECT ''%s'', count(*) FROM background.tasks WHERE state = ''running'' AND (%s); SELECT pg_sleep(0.02)";
    let two = look.replacen("%s", "two", 1).replacen("%s", "queue = ''two''", 1);
    session.exec(&format!(
        "SELECT background.enqueue('{two}', queue => 'two') FROM generate_series(1, 20)"
    ));
    for key in ["a", "b"] {
        let sql = look
            .replacen("%s", key, 1)
            .replacen("%s", &format!("concurrency_key = ''{key}''"), 1);
        session.exec(&format!(
            "SELECT background.enqueue('{sql}', queue => 'keys', concurrency_key => '{key}') FROM generate_series(1, 10)"
        ));
    }
    let paused = session.enqueue("'SELECT 1', queue => 'paused'");
    session.wait_until("(SELECT count(*) = 40 FROM seen)");
    assert!(session.holds("(SELECT max(now_running) = 2 FROM seen WHERE what = 'two')"));
    assert!(session.holds("(SELECT max(now_running) = 1 FROM seen WHERE what <> 'two')"));
    assert!(session.holds(&format!(
        "(SELECT state = 'waiting' FROM background.tasks WHERE id = {paused})"
    )));
    session.exec("SELECT background.set_queue('paused', paused => false)");
    assert_eq!(session.wait_task(paused), "done");
}

#[test]
fn parents_keys_and_times() {
    let cluster = cluster(&[]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    // A parent that is still to commit.
    other.exec("BEGIN");
    let parent = other.enqueue("'INSERT INTO done VALUES (1)'");
    let child = session.enqueue(&format!(
        "'INSERT INTO done SELECT 2 FROM done WHERE n = 1', after => ARRAY[{parent}]"
    ));
    assert_eq!(session.text(&format!("SELECT background.wait({child}, 200)")), None);
    other.exec("COMMIT");
    assert_eq!(session.wait_task(child), "done");
    assert!(session.holds("(SELECT count(*) = 2 FROM done)"));
    // What follows from a failure.
    let failing = session.enqueue("'SELECT 1 / 0', max_attempts => 1");
    let canceled = session.enqueue(&format!("'SELECT 1', after => ARRAY[{failing}]"));
    let grandchild = session.enqueue(&format!("'SELECT 1', after => ARRAY[{canceled}]"));
    let runs = session.enqueue(&format!(
        "'SELECT 1', after => ARRAY[{canceled}], on_parent_failure => 'run'"
    ));
    for (id, state) in [
        (failing, "failed"),
        (canceled, "canceled"),
        (grandchild, "canceled"),
        (runs, "done"),
    ] {
        assert_eq!(session.wait_task(id), state);
    }
    // One after the other under one key.
    session.exec("CREATE TABLE gate (n int)");
    other.exec("BEGIN; LOCK TABLE gate");
    let first = session.enqueue("'SELECT FROM gate', key => 'k'");
    session.wait_until(&format!(
        "(SELECT state = 'running' FROM background.tasks WHERE id = {first})"
    ));
    let second = session.enqueue("'SELECT 1', key => 'k'");
    assert_ne!(first, second);
    assert_eq!(session.enqueue("'SELECT 1', key => 'k'"), second);
    assert!(session.holds(&format!(
        "(SELECT state = 'waiting' FROM background.tasks WHERE id = {second})"
    )));
    other.exec("COMMIT");
    assert_eq!(session.wait_task(second), "done");
    assert_eq!(session.wait_task(first), "done");
    // Times.
    let later = session.enqueue("'INSERT INTO done SELECT 3', run_at => now() + interval '300 ms'");
    assert!(session.holds(&format!(
        "(SELECT state = 'deferred' FROM background.tasks WHERE id = {later})"
    )));
    assert_eq!(session.wait_task(later), "done");
    assert!(session.holds(&format!(
        "(SELECT started_at BETWEEN run_at AND run_at + interval '5 s' FROM background.tasks WHERE id = {later})"
    )));
    session.exec("SELECT background.set_queue('none', max_running => 0)");
    let expires = session.enqueue("'SELECT 1', queue => 'none', expires_at => now() + interval '300 ms'");
    assert_eq!(session.wait_task(expires), "expired");
    // A role that is gone.
    session.exec("CREATE ROLE gone LOGIN; GRANT pgbackground_role TO gone; SELECT background.set_queue('none', max_running => 0); SET ROLE gone");
    let id = session.enqueue("'SELECT 1', run_at => now() + interval '1 s'");
    session.exec("RESET ROLE; DROP OWNED BY gone; DROP ROLE gone");
    assert_eq!(session.wait_task(id), "failed");
    assert!(session.holds(&format!(
        "(SELECT sqlstate = '42704' FROM background.tasks WHERE id = {id})"
    )));
}

#[test]
fn a_prepared_transaction_is_found() {
    let cluster = cluster(&["max_prepared_transactions = 5"]);
    let mut session = cluster.session();
    session.exec("BEGIN; SELECT background.enqueue('INSERT INTO done VALUES (1)'); PREPARE TRANSACTION 'p'");
    session.exec("COMMIT PREPARED 'p'");
    session.wait_until("EXISTS (SELECT FROM done)");
}

/// The parent ends before anybody sees that a task waits for it; or it never comes.
#[test]
fn a_child_is_found_whose_parent_is_over_before_its_commit() {
    let cluster = cluster(&["max_prepared_transactions = 5"]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    let parent = session.enqueue("'SELECT 1', run_at => now() + interval '1 s'");
    session.exec("BEGIN");
    let child = session.enqueue(&format!("'SELECT 2', after => ARRAY[{parent}]"));
    session.exec("PREPARE TRANSACTION 'child'");
    assert_eq!(session.wait_task(parent), "done");
    session.exec("COMMIT PREPARED 'child'");
    assert_eq!(session.wait_task(child), "done");

    session.exec("BEGIN");
    let parent = session.enqueue("'SELECT 1'");
    let child = other.enqueue(&format!("'SELECT 2', after => ARRAY[{parent}]"));
    // The keeper has looked at the child's parent when it has found what is due later.
    let later = other.enqueue("'SELECT 3', run_at => now() + interval '10 ms'");
    assert_eq!(other.wait_task(later), "done");
    session.exec("ROLLBACK");
    assert_eq!(other.wait_task(child), "done");
}

/// Each task adds its number; however processes, the clock and the server end meanwhile, each number is there once.
#[test]
fn exactly_once_in_a_storm() {
    let cluster = cluster(&[
        "restart_after_crash = on",
        "pg_background.max_task_workers = 5",
        "max_prepared_transactions = 5",
    ]);
    cluster.expect_crash();
    let mut random = Random::new(7);
    let mut enqueued = 0;
    for round in 0..12 {
        let mut session = loop {
            match cluster.try_session_in("postgres", "postgres") {
                Ok(session) => break session,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        };
        session.exec(&format!(
            "SELECT background.enqueue('INSERT INTO done VALUES (' || n || '); SELECT pg_sleep(0.002)', max_attempts => 1000, retry_delay => '1 ms') \
             FROM generate_series({}, {}) n",
            enqueued + 1,
            enqueued + 100
        ));
        enqueued += 100;
        for _ in 0..5 {
            let ms = random.below(60);
            session.exec(&format!("SELECT pg_sleep({ms} / 1000.0)"));
            session.exec("SELECT pg_terminate_backend(pid) FROM background.tasks WHERE state = 'running' ORDER BY random() LIMIT 2");
        }
        let workers = cluster.worker_processes();
        match round % 4 {
            0 => {
                for pid in workers {
                    let _ = session.try_rows(&format!("SELECT pg_terminate_backend({pid})"));
                }
            }
            1 | 3 => {
                // The server starts again, and all that was in shared memory is gone.
                if let Some(pid) = workers.get(random.below(workers.len().max(1) as u64) as usize) {
                    // It may have ended by itself: then there is no crash.
                    cluster.try_signal(*pid, "KILL");
                    for _ in 0..100 {
                        if session.try_rows("SELECT pg_sleep(0.005)").is_err() {
                            break;
                        }
                    }
                }
            }
            _ => {
                drop(session);
                cluster.stop(Shutdown::Immediate);
                cluster.restart();
            }
        }
    }
    wait_for("a session", || cluster.try_session_in("postgres", "postgres").is_ok());
    let mut session = cluster.session();
    session.exec("SELECT background.status()");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'done')");
    assert_eq!(session.value::<i64>("SELECT count(*) FROM done"), enqueued);
    assert_eq!(session.value::<i64>("SELECT count(DISTINCT n) FROM done"), enqueued);
    assert_eq!(
        session.value::<i64>("SELECT count(*) FROM background.tasks WHERE state = 'done'"),
        enqueued
    );
}

#[test]
fn statements_of_their_own() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE SCHEMA s; SET search_path = s, public; CREATE TABLE t (n int); INSERT INTO t VALUES (1);
         CREATE PROCEDURE twice() LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (2); COMMIT; INSERT INTO t VALUES (3); END'",
    );
    for sql in ["VACUUM t", "CREATE INDEX CONCURRENTLY ON t (n)", "CALL twice()"] {
        let id = session.enqueue(&format!("'{sql}'"));
        // A wait with a snapshot would be waited for.
        session.exec(&format!("CALL background.wait_for({id}, 30000)"));
        assert!(session.holds(&format!(
            "(SELECT mode = 'statement' AND attempt = 1 FROM background.tasks WHERE id = {id})"
        )));
    }
    assert!(session.holds("(SELECT count(*) = 3 FROM t)"));
    let id =
        session.enqueue("'INSERT INTO t VALUES ($1)', row(4), mode => 'statement', settings => '{\"app.x\": \"y\"}'");
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds("(SELECT count(*) = 4 FROM t)"));
    // At most once, unless more attempts are asked for.
    let id = session.enqueue("'SELECT 1 / 0', mode => 'statement'");
    assert_eq!(session.wait_task(id), "failed");
    session.exec("CREATE SEQUENCE attempts");
    let id = session.enqueue(
        "'SELECT 1 / (nextval(''attempts'') - 1)', mode => 'statement', max_attempts => 3, retry_delay => '1 ms'",
    );
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds(&format!("(SELECT attempt = 2 FROM background.tasks WHERE id = {id})")));
}

#[test]
fn a_statement_that_a_crash_ended_counts() {
    let cluster = cluster(&["restart_after_crash = on"]);
    cluster.expect_crash();
    let mut session = cluster.session();
    let once = session.enqueue("'INSERT INTO done VALUES (1); SELECT pg_sleep(100)', mode => 'statement'");
    let twice = session.enqueue(
        "'SELECT pg_sleep(CASE background.current_attempt() WHEN 1 THEN 100 ELSE 0 END)', mode => 'statement', max_attempts => 2, \
         retry_delay => '1 ms'",
    );
    session.wait_until("(SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event = 'PgSleep')");
    cluster.stop(Shutdown::Immediate);
    cluster.restart();
    let mut session = cluster.session();
    assert_eq!(session.wait_task(once), "failed");
    assert!(session.holds(&format!(
        "(SELECT sqlstate = '08006' FROM background.tasks WHERE id = {once})"
    )));
    assert_eq!(session.wait_task(twice), "done");
    assert!(session.holds(&format!(
        "(SELECT attempt = 2 FROM background.tasks WHERE id = {twice})"
    )));
    // Each attempt has one row, also the one that nobody was left to note.
    let runs = |id: i64| {
        format!(
            "SELECT string_agg(concat_ws(' ', attempt, state, sqlstate), ', ' ORDER BY attempt) FROM background.runs \
             WHERE task_id = {id} AND started_at < finished_at"
        )
    };
    assert_eq!(session.text(&runs(once)).as_deref(), Some("1 interrupted 08006"));
    assert_eq!(
        session.text(&runs(twice)).as_deref(),
        Some("1 interrupted 08006, 2 done")
    );
    assert_eq!(
        session.error(&format!("CALL background.wait_for({once})")).sqlstate,
        "08006"
    );
    // It can be tried again, and the note of the first life stays.
    assert!(session.holds(&format!("background.retry({once})")));
    session.wait_until("(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep')");
    cluster.stop(Shutdown::Immediate);
    cluster.restart();
    let mut session = cluster.session();
    assert_eq!(session.wait_task(once), "failed");
    assert_eq!(
        session.text(&runs(once)).as_deref(),
        Some("1 interrupted 08006, 1 interrupted 08006")
    );
    assert!(session.holds(&format!(
        "(SELECT count(*) = 1 FROM background.tasks WHERE id = {once})"
    )));
    assert!(session.holds("(SELECT failed = 1 FROM background.queues WHERE name = 'default')"));
}

/// The end of the last attempt, as its run and as its task have it.
#[test]
fn a_last_attempt_that_was_interrupted_or_timed_out() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    let ends = |id: i64| {
        format!(
            "SELECT concat_ws(' ', t.state, t.sqlstate, r.state, r.sqlstate, r.pid IS NOT NULL) \
             FROM background.tasks AS t JOIN background.runs AS r ON task_id = id WHERE id = {id}"
        )
    };
    for mode in ["transaction", "statement"] {
        let arguments = format!("'SELECT pg_sleep(100)', max_attempts => 1, mode => '{mode}'");
        let id = session.enqueue(&format!("{arguments}, timeout => '100 ms'"));
        assert_eq!(session.wait_task(id), "failed");
        assert_eq!(
            session.text(&ends(id)).as_deref(),
            Some("failed 57014 timed_out 57014 t")
        );
        let id = session.enqueue(&arguments);
        session.wait_until("EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')");
        session.exec("SELECT pg_terminate_backend(pid) FROM background.tasks WHERE state = 'running'");
        assert_eq!(session.wait_task(id), "failed");
        assert_eq!(
            session.text(&ends(id)).as_deref(),
            Some("failed 08006 interrupted 08006 t")
        );
        assert!(session.holds(&format!("background.retry({id}) AND background.cancel({id}, 10000)")));
    }
    assert!(session.holds("(SELECT failed_total = 4 FROM background.queues WHERE name = 'default')"));
}

#[test]
fn conflicts_with_others_count_as_no_attempt() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE SEQUENCE attempts");
    let fails = "DO $$ BEGIN IF nextval(''attempts'') < 4 THEN RAISE EXCEPTION ''no'' USING ERRCODE = ''40001''; END IF; END $$";
    let id = session.enqueue(&format!("'INSERT INTO done VALUES (1); {fails}', max_attempts => 1"));
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds("(SELECT count(*) = 1 FROM done)"));
    let always = "DO $$ BEGIN PERFORM nextval(''attempts''); RAISE EXCEPTION ''no'' USING ERRCODE = ''40P01''; END $$";
    session.exec("SELECT setval('attempts', 1, false)");
    let id = session.enqueue(&format!("'{always}', max_attempts => 1"));
    assert_eq!(session.wait_task(id), "failed");
    assert!(session.holds("(SELECT last_value = 6 FROM attempts)"));
}

#[test]
fn tasks_go_on_after_a_crash_without_a_session_that_asks() {
    let cluster = cluster(&["restart_after_crash = on"]);
    cluster.expect_crash();
    let mut session = cluster.session();
    let id = session.enqueue("'INSERT INTO done VALUES (1); SELECT pg_sleep(0.5)'");
    session.wait_until(&format!(
        "(SELECT state = 'running' FROM background.tasks WHERE id = {id})"
    ));
    let pid: i32 = session.value(&format!("SELECT pid FROM background.tasks WHERE id = {id}"));
    cluster.signal(pid, "KILL");
    wait_for("the crash", || session.try_rows("SELECT 1").is_err());
    wait_for("a session", || cluster.try_session_in("postgres", "postgres").is_ok());
    cluster.session().wait_until("EXISTS (SELECT FROM done)");
}

#[test]
fn a_preloaded_library_needs_no_session() {
    let cluster = cluster(&["shared_preload_libraries = 'pg_background'"]);
    let mut session = cluster.session();
    session.enqueue("'INSERT INTO done VALUES (1)', run_at => now() + interval '3 s'");
    drop(session);
    cluster.stop(Shutdown::Fast);
    cluster.restart();
    cluster.session().wait_until("EXISTS (SELECT FROM done)");
    // The clock that has left is started again, and one that is terminated, too.
    let mut session = cluster.session();
    for n in 2..6 {
        for pid in cluster.worker_processes() {
            let _ = session.try_rows(&format!("SELECT pg_terminate_backend({pid})"));
        }
        let id = session.enqueue(&format!("'INSERT INTO done VALUES ({n})'"));
        assert_eq!(session.wait_task(id), "done");
    }
}

/// A standby has no word of what its primary ran, so each database is looked at after the promotion.
#[test]
fn a_promoted_standby_goes_on() {
    let preloaded = "shared_preload_libraries = 'pg_background'";
    let primary = cluster(&["max_wal_senders = 4", "wal_level = replica", preloaded]);
    let standby = Cluster::standby_of(&primary, &[preloaded]);
    let mut session = primary.session();
    let id = session.enqueue("'INSERT INTO done VALUES (1)', run_at => now() + interval '5 s'");
    let mut there = standby.session();
    there.wait_until("EXISTS (SELECT FROM background.tasks)");
    assert!(there.holds("(SELECT NOT enabled AND preloaded AND note IS NOT NULL FROM background.status())"));
    primary.stop(Shutdown::Immediate);
    there.exec("SELECT pg_promote()");
    there.wait_until("EXISTS (SELECT FROM done)");
    assert_eq!(there.wait_task(id), "done");
}

/// Two clusters that were made alike give their objects the same numbers.
#[test]
fn a_restored_database_is_a_copy() {
    let (original, copy) = (Cluster::start(&[]), Cluster::start(&[]));
    let setup = "CREATE EXTENSION pg_background_tasks; CREATE TABLE done (n int)";
    original.session().exec(setup);
    let mut session = original.session();
    session.exec("SELECT background.set_queue('default', paused => true)");
    let id = session.enqueue("'INSERT INTO done VALUES (1)'");
    copy.restore(&original);
    let mut session = copy.session();
    session.exec("SELECT background.set_queue('default', paused => false)");
    assert!(session.holds("(SELECT NOT enabled AND note LIKE '%activate%' FROM background.status())"));
    assert_eq!(session.text(&format!("SELECT background.wait({id}, 500)")), None);
    session.exec("SELECT background.activate()");
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds("(SELECT enabled AND note IS NULL FROM background.status())"));
}

#[test]
fn tasks_in_another_database() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE DATABASE there");
    session.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice");
    let mut there = cluster.session_in("there", "postgres");
    there.exec("CREATE TABLE t (n int, who text DEFAULT current_user); GRANT ALL ON t TO PUBLIC");
    session.exec("SET ROLE alice");
    let id = session.enqueue(
        "'INSERT INTO t SELECT $1 + n FROM generate_series(1, 2) n', row(40), database => 'there', label => 'far'",
    );
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds(&format!(
        "(SELECT mode = 'statement' AND attempt = 1 FROM background.tasks WHERE id = {id})"
    )));
    assert!(session.holds(&format!(
        "(SELECT row_count = 2 AND command_tag = 'INSERT' AND state = 'done' FROM background.runs WHERE task_id = {id})"
    )));
    assert!(there.holds("(SELECT sum(n) = 83 AND min(who) = 'alice' FROM t)"));
    let id = session.enqueue("'SELECT 1 / 0', database => 'there', max_attempts => 2, retry_delay => '1 ms'");
    assert_eq!(session.wait_task(id), "failed");
    assert!(session.holds(&format!(
        "(SELECT attempt = 2 AND sqlstate = '22012' FROM background.tasks WHERE id = {id})"
    )));
    session.exec("RESET ROLE");
    let id = session.enqueue("'VACUUM t', database => 'there'");
    assert_eq!(session.wait_task(id), "done");
    // A cancel and a timeout reach the job there.
    for (end, arguments) in [("canceled", ""), ("failed", ", timeout => '300 ms'")] {
        let id = session.enqueue(&format!("'SELECT pg_sleep(100)', database => 'there'{arguments}"));
        session.wait_until("EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'there' AND wait_event = 'PgSleep')");
        if end == "canceled" {
            assert!(session.holds(&format!("background.cancel({id})")));
        }
        assert_eq!(session.wait_task(id), end);
        session
            .wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'there' AND wait_event = 'PgSleep')");
    }
    session.exec("SELECT background.set_queue('default', paused => true)");
    let id = session.enqueue("'SELECT 1', database => 'there', max_attempts => 5, retry_delay => '1 h'");
    drop(there);
    session.exec("DROP DATABASE there");
    session.exec("SELECT background.set_queue('default', paused => false)");
    assert_eq!(session.wait_task(id), "failed");
    assert!(session.holds(&format!(
        "(SELECT attempt = 1 AND sqlstate = '3D000' FROM background.tasks WHERE id = {id})"
    )));
}

/// The task goes on: it is the waiter that gives way.
#[test]
fn a_waiter_that_the_run_waits_for() {
    let cluster = cluster(&["deadlock_timeout = '50 ms'"]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    session.exec("CREATE TABLE t (n int)");
    session.exec("BEGIN; LOCK TABLE t");
    let id = other.enqueue("'INSERT INTO t VALUES (1)'");
    assert_eq!(
        session.error(&format!("SELECT background.wait({id})")).sqlstate,
        "40P01"
    );
    session.exec("ROLLBACK");
    assert_eq!(session.wait_task(id), "done");
    session.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM t");
    let id = other.enqueue("'CREATE INDEX CONCURRENTLY i ON t (n)'");
    assert_eq!(
        session.error(&format!("SELECT background.wait({id})")).sqlstate,
        "40P01"
    );
    session.exec("ROLLBACK");
    session.exec(&format!("CALL background.wait_for({id})"));
    assert!(session.holds("(SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass)"));
}

/// Each change puts the task to another place of the index by which it is looked up.
#[test]
fn a_task_that_changes_is_not_missed() {
    let cluster = cluster(&["synchronous_commit = off"]);
    let mut session = cluster.session();
    let id = session.enqueue("'SELECT 1', run_at => now() + interval '1 day'");
    session.exec(
        "CREATE PROCEDURE change(the_task int8) LANGUAGE plpgsql AS $$BEGIN
             FOR n IN 1..30000 LOOP
                 UPDATE background.task SET expires_at = now() + make_interval(days => 2, secs => n) WHERE id = the_task;
                 COMMIT;
             END LOOP;
         END$$",
    );
    let changing = cluster.session().start(&format!("CALL change({id})"));
    while !changing.is_finished() {
        assert_eq!(session.text(&format!("SELECT background.wait({id}, 1)")), None);
        session.exec("BEGIN");
        let child = session.enqueue(&format!("'SELECT 1', after => ARRAY[{id}]"));
        assert!(session.holds(&format!(
            "(SELECT state = 'blocked' FROM background.tasks WHERE id = {child})"
        )));
        session.exec("ROLLBACK");
    }
    changing.join().1.unwrap();
}

#[test]
fn a_role_that_may_not_connect_any_more() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice; SELECT background.set_queue('default', paused => true); SET ROLE alice",
    );
    let failing = session.enqueue("'INSERT INTO done VALUES (1)', max_attempts => 2, retry_delay => '1 ms'");
    let later = session.enqueue("'INSERT INTO done VALUES (2)', retry_delay => '2 s'");
    session.exec("RESET ROLE; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; SELECT background.set_queue('default', paused => false)");
    assert_eq!(session.wait_task(failing), "failed");
    assert!(session.holds(&format!(
        "(SELECT array_agg(concat_ws(' ', attempt, state, sqlstate) ORDER BY attempt) = '{{1 failed 42501,2 failed 42501}}' \
          FROM background.runs WHERE task_id = {failing})"
    )));
    // Others go on meanwhile, and the role's, once it may connect again.
    let id = session.enqueue("'INSERT INTO done VALUES (3)'");
    assert_eq!(session.wait_task(id), "done");
    session.exec("GRANT CONNECT ON DATABASE postgres TO alice");
    assert_eq!(session.wait_task(later), "done");
    session.exec("SET ROLE alice");
    session.enqueue("'INSERT INTO done VALUES (4)', queue => 'default'");
    session.exec("RESET ROLE");
    session.wait_until("EXISTS (SELECT FROM done WHERE n = 4)");
}

/// What came after the connection that failed is no attempt of it.
#[test]
fn a_role_that_may_connect_again() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for n in 0..10 {
        session.exec(&format!(
            "CREATE ROLE role_{n} LOGIN; GRANT pgbackground_role TO role_{n}"
        ));
        session.exec(&format!(
            "ALTER ROLE role_{n} SET session_preload_libraries = 'nowhere'; SET ROLE role_{n}"
        ));
        let before = session.enqueue("'INSERT INTO done VALUES (1)', max_attempts => 1");
        if n % 2 == 0 {
            assert_eq!(session.wait_task(before), "failed");
        }
        session.exec(&format!(
            "RESET ROLE; ALTER ROLE role_{n} RESET session_preload_libraries; SET ROLE role_{n}"
        ));
        let after = session.enqueue("'INSERT INTO done VALUES (2)', max_attempts => 1");
        assert_eq!(session.wait_task(after), "done", "{n}");
        session.wait_task(before);
        session.exec("RESET ROLE");
    }
}

/// The role and the database may have a role that sessions begin with. Tasks run as their own.
#[test]
fn a_role_whose_sessions_begin_with_another_role() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE ROLE team LOGIN; CREATE ROLE alice LOGIN; CREATE ROLE boss LOGIN SUPERUSER; GRANT team TO alice;
         GRANT pgbackground_role TO alice, team;
         ALTER ROLE alice SET role = team; ALTER ROLE alice SET work_mem = '7MB'; ALTER ROLE boss IN DATABASE postgres SET role = team",
    );
    session.exec("CREATE DATABASE second");
    let who = "SELECT session_user, current_user, current_setting(''role'') AS role, current_setting(''work_mem'') AS work_mem, \
               (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) AS super";
    let seen = |session: &mut Session, role: &str, sql: &str, options: &str| {
        session.exec(&format!("SET SESSION AUTHORIZATION {role}; SET ROLE NONE"));
        let id = session.enqueue(&format!("'{sql}', max_attempts => 1, keep_result => true {options}"));
        session.wait_task(id);
        session.exec("RESET SESSION AUTHORIZATION");
        session.value::<String>(&format!(
            "SELECT concat_ws(' ', state, sqlstate, r->>'session_user', r->>'current_user', r->>'role', r->>'work_mem', r->>'super')
             FROM background.tasks LEFT JOIN background.result({id}) AS r ON true WHERE id = {id}"
        ))
    };
    for options in ["", ", mode => 'statement'", ", database => 'second'"] {
        for before in ["", "RESET ROLE; ", "SET ROLE NONE; ", "RESET ALL; "] {
            let sql = format!("{before}{who}");
            assert_eq!(
                seen(&mut session, "alice", &sql, options),
                "done alice alice none 7MB false",
                "{options} {before}"
            );
            assert_eq!(
                seen(&mut session, "boss", &sql, options),
                "done boss boss none 4MB true",
                "{options} {before}"
            );
            // There are workers that have connected as the others.
            assert_eq!(
                seen(&mut session, "team", &sql, options),
                "done team team none 4MB false",
                "{options} {before}"
            );
        }
        let rise = "SET SESSION AUTHORIZATION boss; SELECT 1";
        assert_eq!(seen(&mut session, "team", rise, options), "failed 42501", "{options}");
    }
    // A session of alice begins as the team, and so does what it enqueues.
    let mut alice = cluster.session_as("alice");
    let id = alice.enqueue("'INSERT INTO done VALUES (1)'");
    assert_eq!(alice.wait_task(id), "done");
    assert!(session.holds(&format!(
        "(SELECT owner = 'team' FROM background.tasks WHERE id = {id})"
    )));
    assert_eq!(
        alice.value::<String>(
            "SELECT * FROM pg_background_run_query('SELECT current_user::text', col_def => 't') AS (t text)"
        ),
        "team"
    );
}

/// A session that is there takes part in a change, whether or not it has seen the setting before.
#[test]
fn tasks_are_switched_off_and_on() {
    let cluster = cluster(&[]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    for session in [&mut session, &mut other] {
        session.exec("SELECT background.status()");
    }
    for looks in [true, false, true] {
        let set = |session: &mut Session, sql: &str, off: bool| {
            session.exec(sql);
            session.exec("SELECT pg_reload_conf()");
            session.wait_until(&format!(
                "current_setting('pg_background.tasks') = '{}'",
                if off { "off" } else { "auto" }
            ));
        };
        set(&mut session, "ALTER SYSTEM SET pg_background.tasks = off", true);
        other.wait_until("current_setting('pg_background.tasks') = 'off'");
        if looks {
            assert!(session.holds("(SELECT NOT enabled FROM background.status())"));
        }
        let waiting = session.enqueue("'INSERT INTO done VALUES (1)'");
        set(&mut session, "ALTER SYSTEM RESET pg_background.tasks", false);
        let id = session.enqueue("'INSERT INTO done VALUES (2)'");
        assert_eq!(session.wait_task(id), "done");
        assert_eq!(other.wait_task(waiting), "done");
    }
}

#[test]
fn indexes_are_made_anew_while_tasks_run() {
    let cluster = cluster(&[]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    for n in 0..4 {
        session.exec(&format!(
            "SELECT background.enqueue('INSERT INTO done VALUES (1)', key => '{n}.' || k, retry_delay => '10 ms') FROM generate_series(1, 50) k"
        ));
        let table = ["task", "dependency", "run_0", "run_failed"][n];
        other.exec(&format!("REINDEX TABLE CONCURRENTLY background.{table}"));
        let id = session.enqueue("'INSERT INTO done VALUES (2)'");
        assert_eq!(session.wait_task(id), "done");
    }
    session.wait_until("(SELECT count(*) = 204 FROM done)");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'done')");
}

/// A task that cancels itself: whatever its SQL catches and rolls back, nothing of it stays, it has ended once, and the runner goes on.
#[test]
fn a_task_cancels_itself() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE FUNCTION me() RETURNS bool LANGUAGE sql AS 'SELECT background.cancel(background.current_task())';
         CREATE FUNCTION me(grace int) RETURNS bool LANGUAGE sql AS 'SELECT background.cancel(background.current_task(), grace)';
         CREATE FUNCTION caught() RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             BEGIN
                 INSERT INTO done VALUES (1);
                 PERFORM me();
                 PERFORM pg_sleep(1);
             EXCEPTION WHEN query_canceled THEN
                 INSERT INTO done VALUES (2);
             END;
             INSERT INTO done VALUES (3);
         END $$;
         CREATE FUNCTION undone() RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             BEGIN
                 PERFORM me();
                 RAISE EXCEPTION 'x';
             EXCEPTION WHEN OTHERS THEN
                 NULL;
             END;
             INSERT INTO done VALUES (3);
         END $$;
         CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM me(); RETURN NULL; END';
         CREATE FUNCTION later_caught() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM caught(); RETURN NULL; END';
         CREATE TABLE deferred (n int); CREATE TABLE deferred_caught (n int);
         CREATE CONSTRAINT TRIGGER t AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later();
         CREATE CONSTRAINT TRIGGER t AFTER INSERT ON deferred_caught DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later_caught();
         CREATE FUNCTION by_another() RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO done VALUES (1);
             PERFORM pg_background_run('SELECT background.cancel(' || background.current_task() || ')');
         END $$",
    );
    for mode in ["transaction", "statement"] {
        for sql in [
            "INSERT INTO done SELECT 1 FROM me()",
            "INSERT INTO done SELECT 1 FROM me(60000)",
            "INSERT INTO done VALUES (1); SELECT me()",
            "SELECT caught()",
            "SELECT undone()",
            "INSERT INTO deferred VALUES (1)",
            "INSERT INTO deferred_caught VALUES (1)",
            "SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO deferred VALUES (1)",
            "SELECT by_another()",
        ] {
            let id = session.enqueue(&format!(
                "'{}', mode => '{mode}', max_attempts => 3, retry_delay => '0'",
                sql.replace('\'', "''")
            ));
            assert_eq!(session.wait_task(id), "canceled", "{mode}: {sql}");
            assert_eq!(
                session
                    .text(&format!(
                        "SELECT string_agg(concat_ws(' ', attempt, state, sqlstate), ', ') FROM background.runs WHERE task_id = {id}"
                    ))
                    .as_deref(),
                Some("1 canceled 57014"),
                "{mode}: {sql}"
            );
            let next = session.enqueue("'SELECT pg_sleep(0.01)'");
            assert_eq!(session.wait_task(next), "done", "after {mode}: {sql}");
        }
    }
    assert!(session.holds("NOT EXISTS (SELECT FROM done) AND NOT EXISTS (SELECT FROM deferred)"));
    // A procedure keeps what it has committed before.
    session.exec(
        "CREATE PROCEDURE commits() LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO done VALUES (1); COMMIT; INSERT INTO done VALUES (2); PERFORM me(); COMMIT; INSERT INTO done VALUES (3); END'",
    );
    let id = session.enqueue("'CALL commits()'");
    assert_eq!(session.wait_task(id), "canceled");
    assert_eq!(
        session.text("SELECT string_agg(n::text, ' ') FROM done").as_deref(),
        Some("1")
    );
    // It can be tried again, and cancels itself again.
    assert!(session.holds(&format!("background.retry({id})")));
    assert_eq!(session.wait_task(id), "canceled");
    // Its own retry does nothing, and waiting for itself is an error.
    let id = session.enqueue("'INSERT INTO done SELECT 4 WHERE NOT background.retry(background.current_task())'");
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds("(SELECT count(*) = 1 FROM done WHERE n = 4)"));
    let id = session.enqueue("'SELECT background.wait(background.current_task())', max_attempts => 1");
    assert_eq!(session.wait_task(id), "failed");
    assert!(session.holds(&format!(
        "(SELECT sqlstate = '55000' FROM background.tasks WHERE id = {id})"
    )));
}

#[test]
fn a_dropped_database_is_forgotten() {
    let cluster = cluster(&[
        "shared_preload_libraries = 'pg_background'",
        "pg_background.max_task_workers = 2",
    ]);
    let began = std::time::Instant::now();
    let mut session = cluster.session();
    session.exec("CREATE DATABASE gone");
    let mut there = cluster.session_in("gone", "postgres");
    there.exec("CREATE EXTENSION pg_background_tasks CASCADE");
    let id = there.enqueue("'SELECT 1'");
    assert_eq!(there.wait_task(id), "done");
    there.enqueue("'SELECT 1', run_at => now() + interval '2 s'");
    let number: i64 = session.value("SELECT oid::int8 FROM pg_database WHERE datname = 'gone'");
    // No session ends with an error, so what the log has is of workers.
    drop(there);
    session.exec("DROP DATABASE gone WITH (FORCE)");
    let missing = format!("FATAL:  database {number} does not exist");
    let times = |cluster: &Cluster| cluster.log().matches(&missing).count();
    wait_for("the keeper finds no database", || times(&cluster) > 0);
    // Others were on their way: the keeper and two runners, and one that is tried again.
    session.exec("SELECT pg_sleep(4)");
    let at_first = times(&cluster);
    assert!(at_first <= 4, "{at_first} times");
    // The clock looks at all databases each minute, if there was something to do.
    while began.elapsed().as_secs() < 64 {
        let id = session.enqueue("'SELECT 1'");
        assert_eq!(session.wait_task(id), "done");
        session.exec("SELECT pg_sleep(0.5)");
    }
    assert_eq!(times(&cluster), at_first);
    // Another one is found as ever.
    session.exec("CREATE DATABASE gone");
    let mut there = cluster.session_in("gone", "postgres");
    there.exec("CREATE EXTENSION pg_background_tasks CASCADE");
    let id = there.enqueue("'SELECT 1'");
    assert_eq!(there.wait_task(id), "done");
}

#[test]
fn queues_count_the_tasks_of_all_roles() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice; CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher");
    session.enqueue("'SELECT pg_background_report_progress(50, ''secret''), pg_sleep(60)'");
    session.wait_until("(SELECT progress_pct = 50 FROM background.tasks)");
    let counts = "SELECT concat_ws(',', waiting, deferred, blocked, running, oldest_waiting) FROM background.queues";
    for role in ["postgres", "alice", "watcher"] {
        let mut session = cluster.session_as(role);
        assert_eq!(session.value::<String>(counts), "0,0,0,1", "{role}");
    }
    let mut alice = cluster.session_as("alice");
    assert!(alice.holds("NOT EXISTS (SELECT FROM background.tasks)"));
    assert!(alice.holds(
        "(SELECT num_nulls(attempt, pid, started_at, progress_pct, progress_msg) = 5 FROM background.running_now())"
    ));
    let mut watcher = cluster.session_as("watcher");
    assert!(
        watcher.holds("(SELECT pid > 0 AND progress_pct = 50 AND progress_msg IS NULL FROM background.running_now())")
    );
    assert!(watcher.holds(
        "(SELECT value = 1 FROM background.metrics('queues') WHERE name = 'pg_background_tasks' AND labels ->> 'state' = 'running')"
    ));
    session.exec("SELECT background.cancel(id) FROM background.tasks");
}

#[test]
fn ends_that_cannot_be_noted_are_noted_later() {
    let cluster = cluster(&["max_worker_processes = 10", "pg_background.max_task_workers = 4"]);
    let mut session = cluster.session();
    // As on a full disk: neither the runners nor the keeper can note how a run has ended.
    session.exec("ALTER TABLE background.run_failed ADD CONSTRAINT full_disk CHECK (false) NOT VALID");
    session.exec("SELECT background.enqueue('SELECT 1 / 0', max_attempts => 1) FROM generate_series(1, 100)");
    let lines = |cluster: &Cluster, text: &str| cluster.log().matches(text).count();
    wait_for("no claim is free", || lines(&cluster, "ERROR:  division by zero") >= 40);
    // What happens in this time is that it passes.
    session.exec("SELECT pg_sleep(4)");
    let fails = "violates check constraint";
    let before = lines(&cluster, fails);
    session.exec("SELECT pg_sleep(4)");
    let tries = lines(&cluster, fails) - before;
    assert!((1..=15).contains(&tries), "{tries} tries");
    assert_eq!(lines(&cluster, "ERROR:  division by zero"), 40);
    let refused = lines(&cluster, "too many runs of tasks have ended and are not noted");
    assert!(refused <= 4, "{refused} times");
    session.exec("ALTER TABLE background.run_failed DROP CONSTRAINT full_disk");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'failed')");
    assert_eq!(
        session.value::<String>("SELECT string_agg(DISTINCT sqlstate || ' ' || state, ',') FROM background.runs"),
        "22012 failed"
    );
    assert!(session.holds("(SELECT count(*) = 100 AND count(DISTINCT task_id) = 100 FROM background.runs)"));
}

#[test]
fn a_transaction_that_is_left_open_is_no_end() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE DATABASE there");
    cluster
        .session_in("there", "postgres")
        .exec("CREATE TABLE done (n int)");
    for more in [
        "",
        ", database => 'there'",
        ", database => 'there', keep_result => true",
    ] {
        let mut place = cluster.session_in(if more.is_empty() { "postgres" } else { "there" }, "postgres");
        for (sql, state, sqlstate) in [
            ("BEGIN; INSERT INTO done (n) VALUES (1)", "failed", Some("25001")),
            ("BEGIN", "failed", Some("25001")),
            (
                "BEGIN; INSERT INTO done (n) VALUES (1); COMMIT AND CHAIN",
                "failed",
                Some("25001"),
            ),
            ("BEGIN; INSERT INTO done (n) VALUES (1); ROLLBACK", "done", None),
        ] {
            place.exec("DELETE FROM done");
            let id = session.enqueue(&format!("'{sql}', mode => 'statement'{more}"));
            assert_eq!(session.wait_task(id), state, "{sql}{more}");
            let found = session.text(&format!("SELECT sqlstate FROM background.tasks WHERE id = {id}"));
            assert_eq!(found.as_deref(), sqlstate, "{sql}{more}");
            let committed = i64::from(sql.contains("CHAIN"));
            assert_eq!(
                place.value::<i64>("SELECT count(*) FROM done"),
                committed,
                "{sql}{more}"
            );
        }
        place.exec("DELETE FROM done");
        let id = session.enqueue(&format!(
            "'BEGIN; INSERT INTO done (n) VALUES (1); COMMIT', mode => 'statement'{more}"
        ));
        assert_eq!(session.wait_task(id), "done");
        assert_eq!(place.value::<i64>("SELECT count(*) FROM done"), 1);
    }
}
