//! What is noted of tasks that have ended, and how long that is kept.

use harness::{Cluster, Session};

fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start(settings);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks");
    session.exec("CREATE TABLE done (n int); GRANT ALL ON done TO PUBLIC");
    cluster
}

/// What happened some time ago.
fn age(session: &mut Session, by: &str) {
    for table in ["run_0", "run_1", "run_2", "run_failed"] {
        session.exec(&format!(
            "UPDATE background.{table} SET finished_at = finished_at - interval '{by}'"
        ));
    }
    session.exec(&format!(
        "UPDATE background.rotation SET since = since - interval '{by}'"
    ));
}

/// Has the keeper look after the tables now.
fn keep_house(session: &mut Session) {
    // Settings of a queue change, so what was found before does not count.
    session.exec("SELECT background.set_queue('default', paused => false)");
}

/// Has the keeper look after the tables until the condition holds.
#[track_caller]
fn keep_house_until(session: &mut Session, condition: &str) {
    for _ in 0..600 {
        if session.holds(condition) {
            return;
        }
        keep_house(session);
        session.exec("SELECT pg_sleep(0.1)");
    }
    panic!("{condition} did not happen");
}

fn rows(session: &mut Session, table: &str) -> i64 {
    session.value(&format!("SELECT count(*) FROM background.{table}"))
}

#[test]
fn the_row_of_a_task_moves_with_all_that_it_has() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    let long = "x".repeat(100_000);
    let id = session.enqueue(
        &format!(
            "'SELECT $1, /* {long} */ $2', row('{long}'::text, NULL::int), label => 'l', priority => 7, expires_at => 'infinity', \
              key => 'k', concurrency_key => 'c', max_attempts => 3, retry_delay => '1 min', timeout => '1 hour', \
              settings => '{{\"app.x\": \"1\"}}', after => NULL, keep_result => true"
        ),
    );
    let columns = "queue, background.role_name(owner), label, priority, mode, home, max_attempts, enqueued_at, run_at, expires_at, retry_delay, \
         timeout, md5(sql), md5(param_types::text), md5(param_values::text), search_path, settings, database, keep_result, key, concurrency_key, \
         after, on_parent_failure, schedule, operation_id";
    // The same task once more, which does not run.
    session.exec("SELECT background.set_queue('none', max_running => 0)");
    assert_eq!(session.wait_task(id), "done");
    let done = session.text(&format!(
        "SELECT row({columns})::text FROM background.run_0 WHERE task_id = {id}"
    ));
    let again = session.enqueue(
        &format!(
            "'SELECT $1, /* {long} */ $2', row('{long}'::text, NULL::int), label => 'l', priority => 7, expires_at => 'infinity', \
              key => 'k', concurrency_key => 'c', max_attempts => 3, retry_delay => '1 min', timeout => '1 hour', \
              settings => '{{\"app.x\": \"1\"}}', after => NULL, keep_result => true, queue => 'none'"
        ),
    );
    session.exec(&format!(
        "UPDATE background.task SET queue = 'default', enqueued_at = (SELECT enqueued_at FROM background.run_0 WHERE task_id = {id}) \
         WHERE id = {again}"
    ));
    let waiting = session.text(&format!(
        "SELECT row({columns})::text FROM background.task WHERE id = {again}"
    ));
    assert_eq!(done, waiting);
    assert!(session.holds(&format!(
        "(SELECT octet_length(sql) > 100000 AND octet_length(param_values[1]) = 100000 AND ended AND state = 'done' AND attempt = 1 AND pid > 0 \
            AND started_at <= finished_at AND row_count = 1 AND command_tag = 'SELECT' AND sqlstate IS NULL \
          FROM background.run_0 WHERE task_id = {id})"
    )));
    // Found by its index, and not a task any more.
    assert!(session.holds(&format!(
        "(SELECT count(*) = 1 FROM background.run_0 WHERE task_id = {id}) AND NOT EXISTS (SELECT FROM background.task WHERE id = {id})"
    )));
    session.exec("CREATE EXTENSION amcheck");
    session
        .exec("SELECT bt_index_check('background.run_0_task_id', true), bt_index_check('background.task_pkey', true)");
}

#[test]
fn the_note_is_made_whatever_the_transaction_is_like() {
    let cluster = cluster(&["default_transaction_isolation = serializable"]);
    let mut session = cluster.session();
    let mut ids = Vec::new();
    for sql in [
        "SELECT count(*) FROM done",
        "SET TRANSACTION READ ONLY; SELECT count(*) FROM done",
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM done",
        "",
        "SET CONSTRAINTS ALL IMMEDIATE",
        "SET ROLE nobody; SELECT 1",
    ] {
        session.exec("DO $$ BEGIN CREATE ROLE nobody; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
        ids.push((session.enqueue(&format!("'{sql}'")), sql));
    }
    for (id, sql) in ids {
        assert_eq!(session.wait_task(id), "done", "{sql}");
    }
    // Somebody has looked at all tasks under SERIALIZABLE, and at those that were done, and has written.
    let mut other = cluster.session();
    other.exec("BEGIN; SELECT count(*) FROM background.tasks; INSERT INTO done VALUES (1)");
    let id = session.enqueue("'INSERT INTO done VALUES (2)'");
    assert_eq!(session.wait_task(id), "done");
    other.exec("COMMIT");
    // An index that somebody has added is filled, too.
    session.exec("CREATE INDEX more ON background.run_0 (queue, finished_at)");
    let id = session.enqueue("'SELECT 1'");
    assert_eq!(session.wait_task(id), "done");
    session.exec("SET enable_seqscan = off");
    assert!(session.holds(&format!(
        "(SELECT count(*) = 1 FROM background.run_0 WHERE queue = 'default' AND finished_at > now() - interval '1 day' AND task_id = {id})"
    )));
    session.exec("CREATE EXTENSION amcheck; SELECT bt_index_check('background.more', true), bt_index_check('background.run_0_task_id', true)");
}

#[test]
fn a_run_waits_for_whoever_has_locked_the_row_and_gives_way_to_who_has_changed_it() {
    let cluster = cluster(&[]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    session.exec("CREATE TABLE gate (n int); INSERT INTO gate VALUES (1); GRANT ALL ON gate TO PUBLIC");
    for changes in [false, true] {
        other.exec("BEGIN; LOCK TABLE gate");
        let id = session
            .enqueue("'INSERT INTO done VALUES (1); SELECT n FROM gate', max_attempts => 2, retry_delay => '10 ms'");
        session.wait_until(&format!(
            "(SELECT state = 'running' FROM background.tasks WHERE id = {id}) AND EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
        ));
        session.exec("BEGIN");
        if changes {
            session.exec(&format!("UPDATE background.task SET priority = 1 WHERE id = {id}"));
        } else {
            session.exec(&format!("SELECT FROM background.task WHERE id = {id} FOR UPDATE"));
        }
        other.exec("COMMIT");
        // It waits for this transaction.
        other.wait_until("EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')");
        session.exec("COMMIT");
        assert_eq!(session.wait_task(id), "done");
        assert!(session.holds(&format!(
            "(SELECT attempt = {} FROM background.tasks WHERE id = {id})",
            1 + i32::from(changes)
        )));
        assert_eq!(session.value::<i64>("SELECT count(*) FROM done"), 1);
        session.exec("TRUNCATE done");
    }
}

#[test]
fn rows_are_kept() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TYPE pair AS (a int, b text); CREATE TYPE mood AS ENUM ('ok'); CREATE DOMAIN five AS int DEFAULT 5;
         CREATE TABLE t (n int, old text, m mood, f five, ts timestamptz); ALTER TABLE t DROP COLUMN old;
         INSERT INTO t VALUES (1, 'ok', 5, '2020-01-01 00:00:00+00'), (NULL, NULL, NULL, 'infinity');
         CREATE PROCEDURE p(OUT x int, INOUT y text) LANGUAGE plpgsql AS 'BEGIN COMMIT; x := 1; END'",
    );
    for query in [
        "SELECT 1 AS a, NULL AS b, ''x\"y'' AS \"c d\", 1.50 AS e, true AS f",
        "SELECT 1, 2, row(1, ''x'')::pair AS p, ARRAY[1, NULL] AS r, ''{\"z\": 1, \"z\": [2]}''::json AS j, ''{\"q\": null}''::jsonb AS b",
        "SELECT 1 AS same, 2 AS same, row(1, row(2)) AS r, ''NaN''::float8 AS nan, ''a''::\"char\" AS c, ''\\x00ff''::bytea AS y",
        "SELECT * FROM t ORDER BY n",
        "SELECT t, t.m FROM t ORDER BY n",
        "SELECT generate_series(1, 100) AS n",
        "INSERT INTO t (n) VALUES (3) RETURNING n, f",
        "SELECT FROM generate_series(1, 2)",
        "SELECT 1 WHERE false",
    ] {
        let id = session.enqueue(&format!("'{query}', keep_result => true"));
        assert_eq!(session.wait_task(id), "done", "{query}");
        let query = query.replace("''", "'");
        let expected = session.text(&format!(
            "WITH q AS ({query}) SELECT coalesce(jsonb_agg(to_jsonb(q)), '[]') FROM q"
        ));
        let kept = session.text(&format!(
            "SELECT coalesce(jsonb_agg(r), '[]') FROM background.result({id}) AS r"
        ));
        assert_eq!(kept, expected, "{query}");
    }
    for (sql, kept) in [
        (
            "SHOW server_version_num; SELECT 1; SHOW enable_sort",
            Some(r#"[{"enable_sort": "on"}]"#),
        ),
        ("SELECT 1 AS a; INSERT INTO done VALUES (1)", None),
        ("", None),
        ("CALL p(NULL, ''y'')", Some(r#"[{"x": 1, "y": "y"}]"#)),
        ("VACUUM t", None),
    ] {
        let id = session.enqueue(&format!("'{sql}', keep_result => true"));
        session.exec(&format!("CALL background.wait_for({id}, 30000)"));
        for _ in 0..2 {
            let result = session.text(&format!("SELECT jsonb_agg(r) FROM background.result({id}) AS r"));
            assert_eq!(result.as_deref(), kept, "{sql}");
        }
    }
    // Nothing is kept unless that was asked for.
    let id = session.enqueue("'SELECT 1'");
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds(&format!("NOT EXISTS (SELECT FROM background.result({id}))")));
    // What was kept of the try before is not kept of the next one.
    session.exec("CREATE SEQUENCE tries");
    let id = session.enqueue(
        "'SELECT 1 / least(abs(nextval(''tries'') - 2), 1) AS n FROM generate_series(1, 3)', keep_result => true, retry_delay => '10 ms'",
    );
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds(&format!(
        "(SELECT count(*) = 3 FROM background.result({id}) AS r WHERE r = '{{\"n\": 1}}')"
    )));
}

#[test]
fn rows_beyond_the_limit_are_an_error_before_the_commit() {
    let cluster = cluster(&["pg_background.max_task_result = 1000"]);
    let mut session = cluster.session();
    let mut end_of = |query: &str| {
        let id = session.enqueue(&format!("'{query}', keep_result => true, max_attempts => 1"));
        let state = session.wait_task(id);
        let kept = session.value::<i64>(&format!("SELECT count(*) FROM background.result({id})"));
        let code = session.text(&format!("SELECT sqlstate FROM background.tasks WHERE id = {id}"));
        (state, kept, code.unwrap_or_default())
    };
    let failed = ("failed".to_owned(), 0, "53400".to_owned());
    let done = |rows: i64| ("done".to_owned(), rows, String::new());
    // [{"a":"…"}]
    assert_eq!(end_of("SELECT repeat(''x'', 990) AS a"), done(1));
    assert_eq!(end_of("SELECT repeat(''x'', 991) AS a"), failed);
    assert_eq!(
        end_of("INSERT INTO done SELECT generate_series(1, 100) RETURNING n"),
        done(100)
    );
    assert_eq!(
        end_of("INSERT INTO done SELECT generate_series(1, 1000) RETURNING n"),
        failed
    );
    assert_eq!(end_of("SELECT repeat(''x'', 300000000) AS a"), failed);
    assert_eq!(end_of("SELECT repeat(''x'', 100000) AS a; SELECT 1 AS b"), done(1));
    assert_eq!(session.value::<i64>("SELECT count(*) FROM done"), 100);
}

#[test]
fn the_result_is_for_those_with_the_role() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE friend LOGIN;
         GRANT pgbackground_role TO alice, bob, reader, friend; GRANT pg_read_all_stats TO reader; GRANT alice TO friend;
         CREATE TABLE who (name text); GRANT ALL ON who TO PUBLIC;
         CREATE TYPE spy; CREATE FUNCTION spy_in(cstring) RETURNS spy LANGUAGE internal STRICT AS 'textin';
         CREATE FUNCTION shout(text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
    );
    session.exec("SET ROLE alice");
    let id = session.enqueue("'SELECT current_user AS who', keep_result => true");
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds(&format!(
        "(SELECT r = '{{\"who\": \"alice\"}}' FROM background.result({id}) AS r)"
    )));
    session.exec("SET ROLE NONE; SET ROLE friend");
    assert!(session.holds(&format!("EXISTS (SELECT FROM background.result({id}))")));
    for role in ["bob", "reader"] {
        session.exec(&format!("RESET ROLE; SET ROLE {role}"));
        let error = session.error(&format!("SELECT background.result({id})"));
        assert_eq!(error.sqlstate, "42501", "{role}");
    }
}

#[test]
fn a_cast_of_users_runs_as_the_role_of_the_task_in_its_transaction() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice;
         CREATE TABLE who (name text, xid int8, task int8); GRANT ALL ON who TO PUBLIC;
         CREATE TYPE spy AS (n int);
         CREATE FUNCTION look(spy) RETURNS json LANGUAGE plpgsql AS \
            'BEGIN INSERT INTO public.who VALUES (current_user, txid_current(), background.current_task()); RETURN ''7''; END';
         CREATE CAST (spy AS json) WITH FUNCTION look(spy)",
    );
    session.exec("SET ROLE alice");
    let id = session.enqueue(
        "'INSERT INTO who VALUES (current_user, txid_current()); SELECT ARRAY[row(1)::spy] AS a, row(1)::spy AS s', keep_result => true",
    );
    assert_eq!(session.wait_task(id), "done");
    session.exec("RESET ROLE");
    assert!(
        session.holds("(SELECT count(DISTINCT name) = 1 AND min(name) = 'alice' AND count(DISTINCT xid) = 1 FROM who)")
    );
}

#[test]
fn totals() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('a'), background.set_queue('b')");
    let last = session.enqueue("'SELECT 1', queue => 'a'");
    session.exec("SELECT background.enqueue('SELECT 1', queue => 'a') FROM generate_series(1, 9)");
    session.exec("SELECT background.enqueue('SELECT 1 / 0', queue => 'b', max_attempts => 2, retry_delay => '10 ms') FROM generate_series(1, 3)");
    session.exec("SELECT background.enqueue('VACUUM', queue => 'b')");
    let canceled = session.enqueue("'SELECT 1', queue => 'b', run_at => 'infinity'");
    assert!(session.holds(&format!("background.cancel({canceled})")));
    session.exec("BEGIN");
    session.exec("SELECT background.enqueue('SELECT 1', queue => 'b')");
    session.exec("ROLLBACK");
    assert_eq!(session.wait_task(last), "done");
    session.wait_until("(SELECT done_total = 10 AND failed_total = 0 FROM background.queues WHERE name = 'a')");
    session.wait_until(
        "(SELECT done_total = 1 AND failed_total = 3 AND failed = 3 FROM background.queues WHERE name = 'b')",
    );
    // The role is gone: the keeper ends the task.
    session.exec("CREATE ROLE gone LOGIN; GRANT pgbackground_role TO gone; SET ROLE gone");
    session.exec("SELECT background.enqueue('SELECT 1', queue => 'b', run_at => now() + interval '1 s')");
    session.exec("RESET ROLE; DROP OWNED BY gone; DROP ROLE gone");
    session.wait_until("(SELECT failed_total = 4 FROM background.queues WHERE name = 'b')");
    assert!(
        session.holds("(SELECT done_total = 0 AND failed_total = 0 FROM background.queues WHERE name = 'default')")
    );
}

#[test]
fn nothing_is_kept_of_a_queue_that_keeps_nothing() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "SELECT background.set_queue('time', keep_done => '0'), background.set_queue('number', keep_done_max => 0)",
    );
    for queue in ["time", "number"] {
        let id = session.enqueue(&format!(
            "'INSERT INTO done VALUES (1)', queue => '{queue}', keep_result => true"
        ));
        let child = session.enqueue(&format!("'INSERT INTO done VALUES (2)', after => ARRAY[{id}]"));
        assert_eq!(session.wait_task(id), "done");
        assert_eq!(session.wait_task(child), "done");
        assert!(session.holds(&format!(
            "NOT EXISTS (SELECT FROM background.run_0 WHERE task_id = {id})"
        )));
        assert!(session.holds(&format!("NOT background.cancel({id})")));
        // A failure is kept.
        let id = session.enqueue(&format!("'SELECT 1 / 0', queue => '{queue}', max_attempts => 1"));
        assert_eq!(session.wait_task(id), "failed");
        assert!(session.holds(&format!(
            "(SELECT count(*) = 1 FROM background.runs WHERE task_id = {id})"
        )));
    }
    assert_eq!(session.value::<i64>("SELECT count(*) FROM done"), 4);
    assert!(session.holds("(SELECT done_total = 1 FROM background.queues WHERE name = 'time')"));
}

#[test]
fn what_has_expired_is_not_shown_and_goes_by_truncation() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    let done = |session: &mut Session, n: i32| {
        session.exec(&format!(
            "SELECT background.enqueue('SELECT 1') FROM generate_series(1, {n})"
        ));
        session.wait_until("NOT EXISTS (SELECT FROM background.task)");
    };
    done(&mut session, 20);
    keep_house(&mut session);
    session.wait_until("EXISTS (SELECT FROM background.rotation)");
    // Half of the time has passed.
    age(&mut session, "13 hours");
    keep_house(&mut session);
    session.wait_until("(SELECT number = 1 FROM background.rotation)");
    done(&mut session, 10);
    session.wait_until("(SELECT count(*) = 30 FROM background.runs)");
    assert_eq!((rows(&mut session, "run_0"), rows(&mut session, "run_1")), (20, 10));
    age(&mut session, "13 hours");
    assert_eq!(session.value::<i64>("SELECT count(*) FROM background.runs"), 10);
    assert_eq!(session.value::<i64>("SELECT count(*) FROM background.tasks"), 10);
    // As long as somebody looks it stays.
    let mut other = cluster.session();
    other.exec("BEGIN; SELECT count(*) FROM background.tasks");
    let file = session.text("SELECT pg_relation_filenode('background.run_0')");
    keep_house(&mut session);
    session.wait_until("(SELECT number = 1 FROM background.rotation)");
    other.exec("COMMIT");
    keep_house(&mut session);
    session.wait_until("(SELECT count(*) = 0 FROM background.run_0)");
    assert_ne!(session.text("SELECT pg_relation_filenode('background.run_0')"), file);
    session.wait_until("(SELECT number = 2 FROM background.rotation)");
    done(&mut session, 5);
    assert_eq!(rows(&mut session, "run_2"), 5);
    assert_eq!(session.value::<i64>("SELECT count(*) FROM background.runs"), 15);
}

#[test]
fn what_another_queue_keeps_moves_before_the_truncation() {
    let cluster = cluster(&["pg_background.max_task_workers = 1"]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('busy', keep_done_max => 100)");
    let kept = session.enqueue("'SELECT 42 AS n', keep_result => true, label => 'mine'");
    assert_eq!(session.wait_task(kept), "done");
    let files =
        "SELECT array_agg(pg_relation_filenode('background.run_' || n) ORDER BY n) FROM generate_series(0, 2) AS n";
    let first = session.text(files);
    let mut rounds = 0;
    // Until each table has been emptied.
    while session.holds(&format!(
        "EXISTS (SELECT FROM unnest(({files}), '{}'::oid[]) AS _ (now, first) WHERE now = first)",
        first.as_deref().unwrap_or_default()
    )) {
        rounds += 1;
        assert!(rounds < 1000);
        session.exec("SELECT background.enqueue('SELECT 1', queue => 'busy') FROM generate_series(1, 60)");
        session.wait_until("NOT EXISTS (SELECT FROM background.task)");
        keep_house(&mut session);
    }
    keep_house_until(
        &mut session,
        "(SELECT count(*) <= 300 FROM background.runs WHERE queue = 'busy')",
    );
    // The newest ones.
    assert!(session.holds(
        "(SELECT count(*) = 100 FROM (SELECT task_id FROM background.runs WHERE queue = 'busy' ORDER BY task_id DESC LIMIT 100) AS _ \
          WHERE task_id > (SELECT last_value FROM background.task_id) - 100)"
    ));
    assert!(session.holds(&format!(
        "(SELECT count(*) = 1 FROM background.runs WHERE task_id = {kept})"
    )));
    assert!(session.holds(&format!(
        "(SELECT r = '{{\"n\": 42}}' FROM background.result({kept}) AS r)"
    )));
    assert!(session.holds(&format!(
        "(SELECT label = 'mine' FROM background.tasks WHERE id = {kept})"
    )));
}

/// Tasks are done without a break while tables are emptied: each one is there afterwards, or was not to be kept.
#[test]
fn no_run_is_lost_while_tables_are_emptied() {
    let cluster = cluster(&["pg_background.max_task_workers = 3"]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('busy', keep_done_max => 100)");
    for round in 0..10 {
        session.exec(
            "SELECT background.enqueue('INSERT INTO done VALUES (1)', queue => CASE WHEN n % 5 = 0 THEN 'default' ELSE 'busy' END) \
             FROM generate_series(1, 100) AS n",
        );
        while session.holds("EXISTS (SELECT FROM background.task)") {
            keep_house(&mut session);
        }
        assert!(session.holds(&format!(
            "(SELECT count(*) = {0} AND count(DISTINCT task_id) = {0} FROM background.runs WHERE queue = 'default' AND state = 'done')",
            20 * (round + 1)
        )));
    }
    assert!(session.holds("(SELECT count(*) = 1000 FROM done)"));
    assert!(session.holds("NOT EXISTS (SELECT FROM background.runs WHERE state <> 'done')"));
    session.wait_until("(SELECT done_total = 800 FROM background.queues WHERE name = 'busy')");
    assert!(session.holds("(SELECT count(*) >= 100 FROM background.runs WHERE queue = 'busy')"));
    keep_house_until(
        &mut session,
        "(SELECT count(*) <= 300 FROM background.runs WHERE queue = 'busy')",
    );
    assert!(session.holds("(SELECT count(*) >= 100 FROM background.runs WHERE queue = 'busy')"));
    let mut other = cluster.session();
    other.exec("CREATE EXTENSION amcheck");
    for n in 0..3 {
        other.exec(&format!("SELECT bt_index_check('background.run_{n}_task_id', true)"));
    }
}

/// A queue that goes over what it keeps has the tables looked after at once.
#[test]
fn a_flood_is_noticed() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('busy', keep_done_max => 20)");
    let id = session.enqueue("'SELECT 1', queue => 'busy'");
    assert_eq!(session.wait_task(id), "done");
    keep_house(&mut session);
    session.wait_until("EXISTS (SELECT FROM background.rotation)");
    session.exec("SELECT background.enqueue('SELECT 1', queue => 'busy') FROM generate_series(1, 400)");
    session.wait_until("(SELECT done_total >= 401 FROM background.queues WHERE name = 'busy')");
    session.wait_until("(SELECT count(*) < 300 FROM background.runs WHERE queue = 'busy')");
}

#[test]
fn what_is_not_done_is_pruned() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('short', keep_failed => '1 hour')");
    let short = session.enqueue("'SELECT 1 / 0', queue => 'short', max_attempts => 1");
    let long = session.enqueue("'SELECT 1 / 0', max_attempts => 1");
    assert_eq!(session.wait_task(short), "failed");
    assert_eq!(session.wait_task(long), "failed");
    // A child that nobody has told yet.
    session.exec(&format!("INSERT INTO background.dependency VALUES ({short}, 0)"));
    age(&mut session, "2 hours");
    assert!(session.holds(&format!(
        "(SELECT array_agg(task_id) = ARRAY[{long}::int8] FROM background.runs)"
    )));
    assert!(session.holds(&format!(
        "(SELECT array_agg(id) = ARRAY[{long}::int8] FROM background.tasks)"
    )));
    assert!(session.holds("(SELECT failed = 0 FROM background.queues WHERE name = 'short')"));
    session.exec("DELETE FROM background.dependency");
    keep_house(&mut session);
    session.wait_until("(SELECT count(*) = 1 FROM background.run_failed)");
    assert!(session.holds(&format!("(SELECT task_id = {long} FROM background.run_failed)")));
    assert_eq!(session.wait_task(short), "done");
    // A parent that was pruned counts as done.
    let child = session.enqueue(&format!("'SELECT 1', after => ARRAY[{short}]"));
    assert_eq!(session.wait_task(child), "done");
    age(&mut session, "31 days");
    keep_house(&mut session);
    session.wait_until("(SELECT count(*) = 0 FROM background.run_failed)");
}

/// The rows of one role, which it has locked, keep nothing of others from going.
#[test]
fn rows_that_a_role_has_locked() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE mallory LOGIN; GRANT pgbackground_role TO mallory; SELECT background.set_queue('short', keep_failed => '1 hour')");
    let mut mallory = cluster.session_as("mallory");
    let locked = mallory.enqueue("'TABLE nowhere', queue => 'short', max_attempts => 1");
    let other = session.enqueue("'TABLE nowhere', queue => 'short', max_attempts => 1");
    assert_eq!(mallory.wait_task(locked), "failed");
    assert_eq!(session.wait_task(other), "failed");
    age(&mut session, "2 hours");
    // As background.retry() locks it.
    let mut locks = cluster.session();
    locks.exec(&format!(
        "BEGIN; SELECT FROM background.run_failed WHERE task_id = {locked} FOR UPDATE"
    ));
    keep_house(&mut session);
    session.wait_until(&format!(
        "NOT EXISTS (SELECT FROM background.run_failed WHERE task_id = {other})"
    ));
    locks.exec("ROLLBACK");
    // More than are looked at in one transaction.
    mallory.exec(
        "SELECT background.enqueue('SELECT 1', run_at => 'infinity', expires_at => clock_timestamp() + '4 s') FROM generate_series(1, 1100)",
    );
    mallory.exec("BEGIN; SELECT background.cancel(id) FROM background.tasks WHERE state = 'deferred'");
    let other = session.enqueue("'SELECT 1', run_at => 'infinity', expires_at => clock_timestamp() + '5 s'");
    assert_eq!(session.wait_task(other), "expired");
    assert!(session.holds("(SELECT count(*) = 1100 FROM background.task)"));
    mallory.exec("ROLLBACK");
    session.wait_until("NOT EXISTS (SELECT FROM background.task)");
}

/// Few rows that should be gone for long lie beside many that are kept.
#[test]
fn what_should_be_gone_for_long_is_deleted() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('short', keep_done => '1 hour'), background.set_queue('long', keep_done => '10 years', keep_done_max => -1)");
    session.exec("SELECT background.enqueue('SELECT 1', queue => 'short') FROM generate_series(1, 3)");
    session.wait_until("NOT EXISTS (SELECT FROM background.task)");
    // As if many had been done.
    session.exec(
        "INSERT INTO background.run_0 (task_id, attempt, ended, state, queue, owner, finished_at) \
         SELECT -n, 1, true, 'done', 'long', background.role_of(10), now() FROM generate_series(1, 5000) AS n",
    );
    age(&mut session, "2 hours");
    assert!(session.holds("NOT EXISTS (SELECT FROM background.runs WHERE queue = 'short')"));
    keep_house(&mut session);
    session.wait_until("NOT EXISTS (SELECT FROM background.run_0 WHERE queue = 'short') AND NOT EXISTS (SELECT FROM background.run_1 WHERE queue = 'short')");
    assert!(session.holds("(SELECT count(*) = 5000 FROM background.runs WHERE queue = 'long')"));
}

#[test]
fn housekeeping_does_not_wake_an_idle_server() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    let id = session.enqueue("'SELECT 1'");
    let failed = session.enqueue("'SELECT 1 / 0', max_attempts => 1");
    assert_eq!(session.wait_task(id), "done");
    assert_eq!(session.wait_task(failed), "failed");
    keep_house(&mut session);
    session.wait_until("EXISTS (SELECT FROM background.rotation)");
    // Nothing is due, so the clock has nothing to do for longer than a minute.
    assert!(session.holds("(SELECT next_due IS NULL FROM background.status())"));
}

/// A task that ends after housekeeping has found nothing makes it look again, some minutes later.
#[test]
fn the_first_end_is_noticed() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('short', keep_done => '1 minute')");
    for round in 1..3 {
        keep_house(&mut session);
        let id = session.enqueue("'SELECT 1', queue => 'short'");
        assert_eq!(session.wait_task(id), "done");
        // A look that finds the row; then all goes.
        keep_house(&mut session);
        session.wait_until("EXISTS (SELECT FROM background.rotation)");
        age(&mut session, "2 hours");
        keep_house(&mut session);
        session.wait_until("(SELECT count(*) = 0 FROM (TABLE background.run_0 UNION ALL TABLE background.run_1 UNION ALL TABLE background.run_2) AS _)");
        assert!(session.holds(&format!(
            "(SELECT done_total = {round} FROM background.queues WHERE name = 'short')"
        )));
    }
}
