//! Tasks that run in another database.

use harness::{Cluster, Session};

/// A cluster with the database `there`, which has no extension, and tasks in `postgres` for alice.
fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start(settings);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks");
    session.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice");
    session.exec("CREATE DATABASE there");
    cluster
        .session_in("there", "postgres")
        .exec("CREATE TABLE t (n int, what text); GRANT ALL ON t TO PUBLIC");
    cluster
}

fn as_alice(cluster: &Cluster) -> Session {
    cluster.session_as("alice")
}

/// The rows that were kept, as one text.
fn result(session: &mut Session, id: i64) -> Option<String> {
    session.text(&format!("SELECT jsonb_agg(row) FROM background.result({id}) AS row"))
}

fn sqlstate(session: &mut Session, id: i64) -> String {
    assert_eq!(session.wait_task(id), "failed");
    session.value(&format!("SELECT sqlstate FROM background.tasks WHERE id = {id}"))
}

#[test]
fn settings_are_those_of_the_task() {
    let cluster = cluster(&[]);
    let mut alice = as_alice(&cluster);
    let mut there = cluster.session_in("there", "postgres");
    there.exec(
        "CREATE SCHEMA s CREATE TABLE seen (what text); GRANT ALL ON SCHEMA s TO PUBLIC; GRANT ALL ON s.seen TO PUBLIC",
    );
    there.exec("ALTER ROLE alice IN DATABASE there SET work_mem = '7MB'");
    let insert = "INSERT INTO seen SELECT concat_ws('' '', current_setting(''app.tenant'', true), current_setting(''work_mem''), \
         current_setting(''statement_timeout''), current_setting(''datestyle''), session_user)";
    let id = alice.enqueue(&format!(
        "'{insert}', database => 'there', \
         settings => '{{\"app.tenant\": \"it''s 7\", \"search_path\": \"s\", \"statement_timeout\": 60000, \"datestyle\": \"German\"}}'"
    ));
    assert_eq!(alice.wait_task(id), "done");
    assert_eq!(
        there.text("SELECT what FROM s.seen").as_deref(),
        Some("it's 7 7MB 1min German, DMY alice")
    );
    // The next one does not find them.
    let id = alice.enqueue(&format!("'{}', database => 'there'", insert.replace("seen", "s.seen")));
    assert_eq!(alice.wait_task(id), "done");
    assert_eq!(
        there
            .text("SELECT ltrim(what) FROM s.seen WHERE what NOT LIKE 'it%'")
            .as_deref(),
        Some("7MB 0 ISO, MDY alice")
    );
    // As SET by that role would, and before anything has begun.
    for (settings, code) in [
        (r#"{"log_statement": "all"}"#, "42501"),
        (r#"{"work_mem": "much"}"#, "22023"),
        (r#"{"no such setting": 1}"#, "42704"),
        (r#"{"statement_timeout": "1 ms"}"#, "57014"),
        (r#"{"app.a": 1, "role": "postgres"}"#, "42501"),
    ] {
        let id = alice.enqueue(&format!(
            "'INSERT INTO t SELECT 1 FROM pg_sleep(0.1)', database => 'there', settings => '{settings}'"
        ));
        assert_eq!(sqlstate(&mut alice, id), code, "{settings}");
    }
    assert!(there.holds("NOT EXISTS (SELECT FROM t)"));
    // With several transactions, and with parameters.
    there.exec(
        "CREATE PROCEDURE twice(what text) LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO t VALUES (1, what); COMMIT; INSERT INTO t VALUES (2, current_setting(''app.a'')); END'",
    );
    let id = alice.enqueue("'CALL twice($1)', row('one'), database => 'there', settings => '{\"app.a\": true}'");
    assert_eq!(alice.wait_task(id), "done");
    assert_eq!(
        there.text("SELECT string_agg(what, ' ' ORDER BY n) FROM t").as_deref(),
        Some("one true")
    );
}

#[test]
fn rows_come_home() {
    let cluster = cluster(&[]);
    let mut alice = as_alice(&cluster);
    let mut there = cluster.session_in("there", "postgres");
    there.exec(
        "CREATE TYPE mood AS ENUM ('fine'); CREATE DOMAIN amount AS numeric; CREATE TYPE pair AS (a mood, b amount)",
    );
    let kept = |sql: &str| format!("'{sql}', database => 'there', keep_result => true");
    // Types that exist there only; only the last statement counts.
    let id = alice.enqueue(&kept(
        "SELECT 0 AS no; SELECT n AS \"the n\", ''fine''::mood AS mood, row(''fine'', 1.50)::pair AS pair, NULL::int AS none, \
         ARRAY[1, 2] AS many FROM generate_series(1, 2) AS n",
    ));
    assert_eq!(alice.wait_task(id), "done");
    assert_eq!(
        result(&mut alice, id).as_deref(),
        Some(concat!(
            r#"[{"many": [1, 2], "mood": "fine", "none": null, "pair": {"a": "fine", "b": 1.50}, "the n": 1}, "#,
            r#"{"many": [1, 2], "mood": "fine", "none": null, "pair": {"a": "fine", "b": 1.50}, "the n": 2}]"#
        ))
    );
    let id = alice.enqueue(&kept(
        "INSERT INTO t SELECT n FROM generate_series(1, 3) AS n RETURNING n",
    ));
    assert_eq!(alice.wait_task(id), "done");
    assert_eq!(
        result(&mut alice, id).as_deref(),
        Some(r#"[{"n": 1}, {"n": 2}, {"n": 3}]"#)
    );
    assert!(alice.holds(&format!(
        "(SELECT row_count = 3 AND command_tag = 'INSERT' FROM background.runs WHERE task_id = {id})"
    )));
    // No rows, and what has none. Messages do no harm.
    for sql in [
        "SELECT 1 WHERE false",
        "UPDATE t SET n = n",
        "VACUUM t",
        "",
        "DO $$ BEGIN RAISE WARNING ''x''; END $$",
    ] {
        let id = alice.enqueue(&kept(sql));
        assert_eq!(alice.wait_task(id), "done", "{sql}");
        assert_eq!(result(&mut alice, id), None, "{sql}");
    }
    // Without keep_result nothing is kept.
    let id = alice.enqueue("'SELECT 1', database => 'there'");
    assert_eq!(alice.wait_task(id), "done");
    assert_eq!(result(&mut alice, id), None);
    // An error there, after rows.
    let id = alice.enqueue(&kept("SELECT 1 / (3 - n) FROM generate_series(1, 5) AS n"));
    assert_eq!(sqlstate(&mut alice, id), "22012");
    // The results are alice's.
    cluster
        .session()
        .exec("CREATE ROLE bob LOGIN; GRANT pgbackground_role TO bob");
    assert_eq!(
        cluster
            .session_as("bob")
            .error(&format!("SELECT background.result({id})"))
            .sqlstate,
        "42501"
    );
    assert!(cluster.temporary_files().is_empty());
}

#[test]
fn rows_beyond_the_limit() {
    let cluster = cluster(&[
        "pg_background.max_task_result = '3MB'",
        "pg_background.queue_size = '64kB'",
    ]);
    let mut alice = as_alice(&cluster);
    let mut there = cluster.session_in("there", "postgres");
    let insert = |count: i64| {
        format!(
            "'INSERT INTO t SELECT n, repeat(''x'', 1000) FROM generate_series(1, {count}) AS n RETURNING what', \
             database => 'there', keep_result => true"
        )
    };
    // More than the queue of the job holds in memory.
    let id = alice.enqueue(&insert(2500));
    assert_eq!(alice.wait_task(id), "done");
    assert_eq!(
        alice.text(&format!(
            "SELECT count(*) || ' ' || sum(length(row ->> 'what')) FROM background.result({id}) AS row"
        )),
        Some("2500 2500000".to_owned())
    );
    there.exec("TRUNCATE t");
    let id = alice.enqueue(&insert(3500));
    assert_eq!(sqlstate(&mut alice, id), "53400");
    assert!(there.holds("NOT EXISTS (SELECT FROM t)"));
    let id = alice.enqueue(&insert(1));
    assert_eq!(alice.wait_task(id), "done");
    assert!(cluster.temporary_files().is_empty());
}

#[test]
fn encodings() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        session.exec(&format!(
            "CREATE DATABASE {encoding} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        ));
    }
    let kept = |sql: &str, database: &str| {
        format!("'{sql}', database => '{database}', keep_result => true, settings => '{{\"app.x\": \"\u{e4}\"}}'")
    };
    // From UTF8 to LATIN1, in both directions.
    let sql = "SELECT current_setting(''app.x'') || ''\u{fc}'' AS \"\u{f6}\"";
    let id = session.enqueue(&kept(sql, "latin1"));
    assert_eq!(session.wait_task(id), "done");
    assert_eq!(
        result(&mut session, id).as_deref(),
        Some("[{\"\u{f6}\": \"\u{e4}\u{fc}\"}]")
    );
    let mut latin1 = cluster.session_in("latin1", "postgres");
    latin1.exec("CREATE EXTENSION pg_background_tasks CASCADE");
    let id = latin1.enqueue(&kept(sql, "postgres"));
    assert_eq!(latin1.wait_task(id), "done");
    assert_eq!(
        result(&mut latin1, id).as_deref(),
        Some("[{\"\u{f6}\": \"\u{e4}\u{fc}\"}]")
    );
    // What has no equivalent at home fails before the commit.
    let mut there = cluster.session_in("there", "postgres");
    let id = latin1.enqueue(&kept("INSERT INTO t VALUES (1, chr(8364)) RETURNING what", "there"));
    assert_eq!(sqlstate(&mut latin1, id), "22P05");
    assert!(there.holds("NOT EXISTS (SELECT FROM t)"));
    // Escaped in a value of the type json, too.
    let id = latin1.enqueue(&kept(
        "INSERT INTO t VALUES (1) RETURNING ''\"\\u20ac\"''::json AS what",
        "there",
    ));
    assert_eq!(sqlstate(&mut latin1, id), "22P05");
    assert!(there.holds("NOT EXISTS (SELECT FROM t)"));
    // Errors, as far as their characters are there.
    let raise =
        "DO ''BEGIN RAISE EXCEPTION USING MESSAGE = chr(228) || chr(8364), DETAIL = chr(246), HINT = chr(252); END''";
    for (home, sql, database, message) in [
        (&mut latin1, raise, "there", "\u{e4}?"),
        (&mut session, &raise.replace("8364", "120"), "latin1", "\u{e4}x"),
    ] {
        let id = home.enqueue(&format!("'{sql}', database => '{database}', max_attempts => 1"));
        assert_eq!(home.wait_task(id), "failed");
        assert_eq!(
            home.value::<String>(&format!(
                "SELECT concat_ws(' ', t.error_message, r.message, r.detail, r.hint) FROM background.tasks AS t JOIN background.runs AS r ON r.task_id = t.id WHERE t.id = {id}"
            )),
            format!("{message} {message} \u{f6} \u{fc}")
        );
    }
    // Bytes that are no text at home.
    let mut ascii = cluster.session_in("sql_ascii", "postgres");
    ascii.exec("CREATE TABLE odd AS SELECT convert_from('\\xff', 'SQL_ASCII') AS what");
    let id = session.enqueue("'SELECT what FROM odd', database => 'sql_ascii', keep_result => true");
    assert!(["22021", "22P05"].contains(&sqlstate(&mut session, id).as_str()));
}

#[test]
fn progress_is_seen_at_home() {
    let cluster = cluster(&[]);
    let mut alice = as_alice(&cluster);
    let mut there = cluster.session_in("there", "postgres");
    there.exec("CREATE EXTENSION pg_background; GRANT pgbackground_role TO alice");
    there.exec("CREATE TABLE gate (); GRANT ALL ON gate TO PUBLIC");
    there.exec("BEGIN; LOCK TABLE gate");
    let id = alice.enqueue(
        "'SELECT pg_background_report_progress(40, ''half \u{fc}ber''); SELECT FROM gate', database => 'there'",
    );
    let shown = format!(
        "SELECT concat_ws(' ', progress_pct, progress_msg, pid IS NOT NULL, state) FROM background.tasks WHERE id = {id}"
    );
    alice.wait_until(&format!(
        "EXISTS (SELECT FROM background.tasks WHERE id = {id} AND progress_pct = 40)"
    ));
    assert_eq!(alice.text(&shown).as_deref(), Some("40 half \u{fc}ber t running"));
    // The process runs as alice, who may look at it and cancel it.
    assert!(alice.holds(&format!(
        "(SELECT count(*) = 1 FROM pg_stat_activity JOIN background.tasks USING (pid) WHERE id = {id} AND usename = 'alice')"
    )));
    there.exec("COMMIT");
    assert_eq!(alice.wait_task(id), "done");
    // The next one begins with none.
    there.exec("BEGIN; LOCK TABLE gate");
    let id = alice.enqueue("'SELECT FROM gate', database => 'there'");
    there.wait_until("EXISTS (SELECT FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted)");
    assert!(alice.holds(&format!(
        "(SELECT progress_pct IS NULL AND progress_msg IS NULL AND state = 'running' FROM background.tasks WHERE id = {id})"
    )));
    there.exec("COMMIT");
    assert_eq!(alice.wait_task(id), "done");
}

/// Whichever of the two processes is lost, the other one does not go on, and the attempt is interrupted.
#[test]
fn one_of_the_two_processes_is_lost() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    let mut there = cluster.session_in("there", "postgres");
    let sleeps = "EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'there' AND wait_event = 'PgSleep')";
    for lost in [
        "FROM background.tasks WHERE state = 'running'",
        "FROM pg_stat_activity WHERE datname = 'there' AND wait_event = 'PgSleep'",
    ] {
        let id = session.enqueue("'SELECT pg_sleep(100)', database => 'there'");
        session.wait_until(sleeps);
        session.exec(&format!("SELECT pg_terminate_backend(pid) {lost}"));
        assert_eq!(sqlstate(&mut session, id), "08006", "{lost}");
        assert_eq!(
            session
                .text(&format!("SELECT state FROM background.runs WHERE task_id = {id}"))
                .as_deref(),
            Some("interrupted"),
            "{lost}"
        );
        session.wait_until(&format!("NOT {sleeps}"));
    }
    // A cancel of the process of the run, as pg_cancel_backend does it.
    let id = session.enqueue("'INSERT INTO t SELECT 1 FROM pg_sleep(100)', database => 'there'");
    session.wait_until(sleeps);
    session.exec("SELECT pg_cancel_backend(pid) FROM background.tasks WHERE state = 'running'");
    assert_eq!(sqlstate(&mut session, id), "57014");
    session.wait_until(&format!("NOT {sleeps}"));
    assert!(there.holds("NOT EXISTS (SELECT FROM t)"));
}
