//! Operations: statements that run in chunks.

use harness::{Cluster, Random, Session, Shutdown, wait_for};
use std::process::Command;

fn cluster(settings: &[&str]) -> Cluster {
    let with = ["pg_background.max_task_workers = 4"];
    let cluster = Cluster::start(&[&with, settings].concat());
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks");
    cluster
}

/// Starts an operation with these arguments and returns its id.
#[track_caller]
fn start(session: &mut Session, arguments: &str) -> i64 {
    session.value(&format!("SELECT background.parallel_execute({arguments})"))
}

#[track_caller]
fn wait(session: &mut Session, id: i64) -> String {
    session
        .text(&format!("SELECT background.wait_operation({id}, 60000)"))
        .unwrap_or("(still not ended)".into())
}

/// Whether the operation, as the view shows it, has this.
#[track_caller]
fn is(session: &mut Session, id: i64, condition: &str) -> bool {
    session.holds(&format!(
        "(SELECT {condition} FROM background.operations WHERE id = {id})"
    ))
}

const COUNT_UP: &str = "'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 't'";

#[test]
fn each_row_once() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i * 3 FROM generate_series(1, 20000) i");
    let id = start(
        &mut session,
        &format!("{COUNT_UP}, 'id', chunk_rows => 700, label => 'up'"),
    );
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT count(*) = 20000 AND min(n) = 1 AND max(n) = 1 FROM t)"));
    assert!(is(
        &mut session,
        id,
        "state = 'done' AND label = 'up' AND chunks_done = 29 AND chunks_failed = 0 AND rows_affected = 20000 AND progress = 1 \
         AND finished_at >= started_at AND last_error IS NULL AND eta IS NULL AND rows_per_second > 0"
    ));
    assert!(session.holds(&format!(
        "(SELECT count(*) = 29 AND bool_and(state = 'done' AND attempts = 1 AND ms > 0) AND sum(rows) = 20000 \
          AND min(first::int) = 3 AND max(last::int) = 60000 FROM background.chunks WHERE operation_id = {id})"
    )));
    assert!(session.holds(&format!(
        "(SELECT count(*) = 29 FROM background.tasks WHERE operation_id = {id} AND state = 'done' AND label = 'up')"
    )));
}

#[test]
fn keys_of_all_kinds() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE DOMAIN code AS varchar(40) CHECK (value <> ''); CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'");
    let series = "generate_series(1, 3000) i";
    for (kind, keys) in [
        ("int8", format!("SELECT i * 10000000000 FROM {series}")),
        ("uuid", format!("SELECT md5(i::text)::uuid FROM {series}")),
        (
            "text COLLATE \"C\"",
            format!("SELECT chr(60 + i % 60) || '''\\' || i FROM {series}"),
        ),
        ("text", format!("SELECT md5(i::text) FROM {series}")),
        (
            "timestamptz",
            format!("SELECT '2000-01-01'::timestamptz + i * interval '1.000001 s' FROM {series}"),
        ),
        (
            "numeric",
            format!("SELECT i / 7.0 FROM {series} UNION ALL SELECT 'NaN'"),
        ),
        (
            "float8",
            format!("SELECT i / 7.0::float8 FROM {series} UNION ALL SELECT '-infinity'"),
        ),
        ("code", format!("SELECT 'c' || i FROM {series}")),
        ("char(8)", format!("SELECT i::text FROM {series}")),
        ("bytea", format!("SELECT decode(md5(i::text), 'hex') FROM {series}")),
        ("date", format!("SELECT '2020-01-01'::date + i FROM {series}")),
        ("interval", format!("SELECT i * interval '1 hour' FROM {series}")),
        ("int[]", format!("SELECT ARRAY[i % 10, i] FROM {series}")),
        ("\"char\"", format!("SELECT chr(i % 100 + 10)::\"char\" FROM {series}")),
        ("bool", format!("SELECT i % 3 = 0 FROM {series}")),
        (
            "mood",
            format!("SELECT (enum_range(NULL::mood))[1 + i % 3] FROM {series}"),
        ),
    ] {
        session.exec(&format!(
            "CREATE TABLE t (id {kind}, n int DEFAULT 0); INSERT INTO t {keys}; CREATE INDEX ON t (id)"
        ));
        let id = start(
            &mut session,
            &format!("{COUNT_UP}, 'id', chunk_rows => 250, parallelism => 3"),
        );
        assert_eq!(wait(&mut session, id), "done", "{kind}");
        assert!(session.holds("(SELECT min(n) = 1 AND max(n) = 1 FROM t)"), "{kind}");
        let least = if matches!(kind, "bool" | "mood") { 2 } else { 12 };
        assert!(is(&mut session, id, &format!("chunks_done >= {least}")), "{kind}");
        session.exec("DROP TABLE t");
    }
}

#[test]
fn indexes_of_all_kinds() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for index in [
        "(id DESC)",
        "(id NULLS FIRST)",
        "(id DESC NULLS LAST, n)",
        "(id) INCLUDE (n)",
        "(id, n)",
    ] {
        // Duplicates stay together, and rows without a key are not reached.
        session.exec(&format!(
            "CREATE TABLE t (id int, n int DEFAULT 0); INSERT INTO t SELECT i / 40 FROM generate_series(1, 4000) i; \
             INSERT INTO t SELECT NULL FROM generate_series(1, 10); CREATE INDEX ON t {index}"
        ));
        let id = start(&mut session, &format!("{COUNT_UP}, 'id', chunk_rows => 100"));
        assert_eq!(wait(&mut session, id), "done", "{index}");
        assert!(
            session.holds("(SELECT count(*) = 4000 FROM t WHERE n = 1 AND id IS NOT NULL)"),
            "{index}"
        );
        assert!(
            session.holds("(SELECT count(*) = 10 FROM t WHERE n = 0 AND id IS NULL)"),
            "{index}"
        );
        session.exec("DROP TABLE t");
    }
    // The index is used, however the planner sees the table.
    session.exec("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 20) i; ANALYZE t");
    let id = start(&mut session, "'SELECT $1, $2', 't', 'id', chunk_rows => 1");
    assert_eq!(wait(&mut session, id), "done");
    assert!(is(&mut session, id, "chunks_done = 20"));
    // Each chunk reads its keys; the creation of the table reads it once or twice.
    session.wait_until("(SELECT idx_scan > 20 AND seq_scan < 10 FROM pg_stat_user_tables WHERE relname = 't')");
}

#[test]
fn partitions_and_children() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE t (id int, n int DEFAULT 0) PARTITION BY HASH (id); CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
         CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1); INSERT INTO t SELECT i FROM generate_series(1, 5000) i",
    );
    let start_it = format!("SELECT background.parallel_execute({COUNT_UP}, 'id', chunk_rows => 300)");
    assert_eq!(session.error(&start_it).sqlstate, "42704");
    session.exec("CREATE INDEX ON ONLY t (id)");
    assert_eq!(session.error(&start_it).sqlstate, "42704");
    session.exec("DROP INDEX t_id_idx; CREATE INDEX ON t (id)");
    let id: i64 = session.value(&start_it);
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT min(n) = 1 AND max(n) = 1 FROM t)"));
    assert!(is(&mut session, id, "chunks_done = 17 AND rows_affected = 5000"));
    assert_eq!(
        session
            .error("SELECT background.parallel_execute('DELETE FROM t WHERE ctid BETWEEN $1 AND $2', 't')")
            .sqlstate,
        "0A000"
    );
    // A partition alone.
    let id = start(&mut session, "'DELETE FROM t1 WHERE ctid BETWEEN $1 AND $2', 't1'");
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT count(*) = 0 FROM t1)"));
    session.exec("CREATE TABLE p (id int PRIMARY KEY, n int DEFAULT 0); CREATE TABLE c () INHERITS (p); INSERT INTO p VALUES (1), (3); INSERT INTO c VALUES (2), (4)");
    let start_it = "SELECT background.parallel_execute('UPDATE p SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'p', 'id', chunk_rows => 1)";
    assert_eq!(session.error(start_it).sqlstate, "42704");
    session.exec("CREATE INDEX ON c (id)");
    let id: i64 = session.value(start_it);
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT count(*) = 4 AND min(n) = 1 AND max(n) = 1 FROM p)"));
}

/// Whether each row of the table was changed once.
#[track_caller]
fn once(session: &mut Session, table: &str) -> bool {
    session.holds(&format!("(SELECT min(n) = 1 AND max(n) = 1 FROM {table})"))
}

#[test]
fn rows_in_several_partitions_and_statements_through_views() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    // The neighbours of a key are in other partitions, and each row moves to another one.
    session.exec(
        "CREATE TABLE t (id int, region text, n int DEFAULT 0) PARTITION BY LIST (region); \
         CREATE TABLE ta PARTITION OF t FOR VALUES IN ('a'); CREATE TABLE tb PARTITION OF t FOR VALUES IN ('b'); \
         CREATE TABLE tc PARTITION OF t DEFAULT PARTITION BY RANGE (id); CREATE TABLE tc1 PARTITION OF tc FOR VALUES FROM (MINVALUE) TO (1500); \
         CREATE TABLE tc2 PARTITION OF tc DEFAULT; CREATE INDEX ON t (id); \
         INSERT INTO t SELECT i, chr(97 + i % 4) FROM generate_series(1, 3000) i; \
         CREATE VIEW v AS SELECT id AS key, region, n FROM t WHERE id > 0; CREATE VIEW vv AS SELECT * FROM v",
    );
    let moves = "UPDATE vv SET n = n + 1, region = chr(97 + (ascii(region) - 96) % 4) WHERE key BETWEEN $1 AND $2";
    let id = start(
        &mut session,
        &format!("'{moves}', 't', 'id', chunk_rows => 170, parallelism => 3"),
    );
    assert_eq!(wait(&mut session, id), "done");
    assert!(once(&mut session, "t"));
    assert!(session.holds("(SELECT bool_and(region = chr(97 + (id + 1) % 4)) FROM t)"));
    assert!(is(&mut session, id, "chunks_done = 18 AND rows_affected = 3000"));
    for (refused, sqlstate) in [
        (format!("'{moves}', 'v', 'key'"), "42809"),
        (
            "'UPDATE vv SET key = key + 1 WHERE key BETWEEN $1 AND $2', 't', 'id'".into(),
            "0A000",
        ),
        (
            "'UPDATE vv SET key = key + 1 WHERE key BETWEEN $1 AND $2', 'tc', 'id'".into(),
            "0A000",
        ),
        (
            "'UPDATE vv SET n = 1 WHERE key = 1 AND $1 <> $2', 'tc1'".into(),
            "0A000",
        ),
    ] {
        let error = session.error(&format!("SELECT background.parallel_execute({refused})"));
        assert_eq!(error.sqlstate, sqlstate, "{refused}");
    }
}

#[test]
fn merge() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    if session.holds("current_setting('server_version_num')::int < 150000") {
        return;
    }
    session.exec(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int DEFAULT 0, twice int GENERATED ALWAYS AS (n * 2) STORED); \
         CREATE INDEX ON t (twice); INSERT INTO t (n) SELECT 0 FROM generate_series(1, 1000); \
         CREATE TABLE u (id int PRIMARY KEY, n int DEFAULT 1)",
    );
    let merge = |into: &str, by: &str, matched: &str| {
        format!(
            "'MERGE INTO {into} USING (SELECT * FROM t WHERE {by} BETWEEN $1 AND $2) AS s ON {into}.id = s.id \
              WHEN MATCHED THEN {matched} WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)'"
        )
    };
    let matched = "UPDATE SET n = t.n + 1";
    let into_itself = merge("t", "id", matched).replace("INSERT (id) VALUES (s.id)", "DO NOTHING");
    let id = start(&mut session, &format!("{into_itself}, 't', 'id', chunk_rows => 70"));
    assert_eq!(wait(&mut session, id), "done");
    assert!(once(&mut session, "t") && is(&mut session, id, "rows_affected = 1000"));
    let copy = merge("u", "id", "UPDATE SET n = u.n + 1");
    let id = start(&mut session, &format!("{copy}, 't', 'id', chunk_rows => 70"));
    assert_eq!(wait(&mut session, id), "done");
    assert!(once(&mut session, "u") && is(&mut session, id, "rows_affected = 1000"));
    for refused in [
        format!("{}, 't'", into_itself.replace("WHERE id", "WHERE ctid")),
        format!("{}, 't', 'twice'", into_itself.replace("WHERE id", "WHERE twice")),
        format!("{}, 'u', 'id'", merge("u", "id", "UPDATE SET id = u.id + 1")),
    ] {
        let error = session.error(&format!("SELECT background.parallel_execute({refused})"));
        assert_eq!(error.sqlstate, "0A000", "{refused}");
    }
    // One that only deletes or inserts moves no row.
    let id = start(
        &mut session,
        &format!(
            "{}, 't'",
            merge("u", "ctid", "DELETE").replace("WHERE ctid", "WHERE t.ctid")
        ),
    );
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("NOT EXISTS (SELECT FROM u)"));
}

#[test]
fn a_table_that_is_not_on_the_path_and_rights_that_are_lost() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE SCHEMA \"Odd, name\"; CREATE TABLE \"Odd, name\".\"T \"\"1\" (\"the $1\" int PRIMARY KEY, n int DEFAULT 0); \
         INSERT INTO \"Odd, name\".\"T \"\"1\" SELECT i FROM generate_series(1, 400) i; \
         CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice; GRANT USAGE ON SCHEMA \"Odd, name\" TO alice; \
         GRANT SELECT, UPDATE ON \"Odd, name\".\"T \"\"1\" TO alice",
    );
    const TABLE: &str = "\"Odd, name\".\"T \"\"1\"";
    let mut alice = cluster.session_as("alice");
    alice.exec("SET search_path = ''");
    let count_up = format!("'UPDATE {TABLE} SET n = n + 1 WHERE \"the $1\" BETWEEN $1 AND $2', '{TABLE}', 'the $1'");
    let id = start(&mut alice, &format!("{count_up}, chunk_rows => 30"));
    assert_eq!(wait(&mut alice, id), "done");
    assert!(once(&mut session, TABLE));
    // Without the right to read the key no chunk is cut. Without the right to write a chunk fails.
    for lost in ["SELECT", "UPDATE"] {
        session.exec(&format!("UPDATE {TABLE} SET n = 0"));
        let id = start(
            &mut alice,
            &format!("{count_up}, chunk_rows => 10, pause_between => '50 ms', parallelism => 1, max_attempts => 1"),
        );
        alice.wait_until(&format!(
            "(SELECT chunks_done > 2 FROM background.operations WHERE id = {id})"
        ));
        session.exec(&format!("REVOKE {lost} ON {TABLE} FROM alice"));
        assert_eq!(wait(&mut alice, id), "failed", "{lost}");
        assert!(is(
            &mut alice,
            id,
            "chunks_done < 40 AND last_error LIKE 'permission denied for table%'"
        ));
        if lost == "UPDATE" {
            assert!(is(&mut alice, id, "chunks_failed = 1"));
        }
        session.exec(&format!("GRANT {lost} ON {TABLE} TO alice"));
        alice.exec(&format!("SELECT background.retry_operation({id})"));
        assert_eq!(wait(&mut alice, id), "done", "{lost}");
        assert!(once(&mut session, TABLE), "{lost}");
        assert!(is(&mut alice, id, "chunks_failed = 0 AND chunks_done = 40"));
    }
}

#[test]
fn by_blocks() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE t (id int, x text); INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 10000) i",
    );
    let id = start(
        &mut session,
        "'DELETE FROM t WHERE ctid BETWEEN $1 AND $2 AND id % $3 = 0', 't', params => row(2), chunk_rows => 1000, parallelism => 3",
    );
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT count(*) = 5000 FROM t WHERE id % 2 = 1) AND (SELECT count(*) = 5000 FROM t)"));
    assert!(is(
        &mut session,
        id,
        "rows_affected = 5000 AND chunks_done BETWEEN 9 AND 12 AND progress = 1"
    ));
    assert!(session.holds(&format!(
        "(SELECT first = '(0,0)' FROM background.chunks WHERE operation_id = {id} AND n = 1)"
    )));
    // Another file.
    session.exec("CREATE TABLE seen (first tid, last tid)");
    let id = start(
        &mut session,
        "'INSERT INTO seen VALUES ($1, $2)', 't', chunk_rows => 100, parallelism => 1, pause_between => '100 ms'",
    );
    session.wait_until("(SELECT count(*) > 2 FROM seen)");
    session.exec("VACUUM FULL t");
    assert_eq!(wait(&mut session, id), "failed");
    assert!(is(
        &mut session,
        id,
        "last_error = 'the table was rewritten, and its rows are in other blocks'"
    ));
    // An empty one.
    session.exec("CREATE TABLE nothing (id int PRIMARY KEY)");
    for by in ["id", "ctid"] {
        let id = start(
            &mut session,
            &format!("'DELETE FROM nothing WHERE {by} BETWEEN $1 AND $2', 'nothing', '{by}'"),
        );
        assert_eq!(wait(&mut session, id), "done");
        assert!(is(
            &mut session,
            id,
            "chunks_done = 0 AND rows_affected = 0 AND progress = 1"
        ));
    }
}

/// The last chunk's end, whichever way the server goes down, is where the operation goes on.
#[test]
fn each_row_once_whatever_is_killed() {
    let cluster = cluster(&["max_connections = 20"]);
    cluster.expect_crash();
    let mut random = Random::new(11);
    {
        let mut session = cluster.session();
        session.exec(
            "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (fillfactor = 50); INSERT INTO t SELECT i FROM generate_series(1, 30000) i; \
             CREATE TABLE u (id text PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO u SELECT md5(i::text) FROM generate_series(1, 20000) i; CHECKPOINT",
        );
        start(
            &mut session,
            &format!(
                "{COUNT_UP}, 'id', chunk_rows => 40, parallelism => 3, max_attempts => 1000, retry_delay => '1 ms'"
            ),
        );
        start(
            &mut session,
            "'UPDATE u SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'u', 'id', chunk_time => '5 ms', max_attempts => 1000, retry_delay => '1 ms'",
        );
    }
    let new_session = || loop {
        match cluster.try_session_in("postgres", "postgres") {
            Ok(session) => break session,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    };
    for round in 0..9 {
        let mut session = new_session();
        session.exec("SELECT background.status()");
        for _ in 0..6 {
            let ms = random.below(50);
            session.exec(&format!("SELECT pg_sleep({ms} / 1000.0)"));
            session.exec("SELECT pg_terminate_backend(pid) FROM background.tasks WHERE state = 'running' ORDER BY random() LIMIT 2");
        }
        let workers = cluster.worker_processes();
        if round % 3 == 0 {
            if let Some(pid) = workers.get(random.below(workers.len().max(1) as u64) as usize) {
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
                for _ in 0..100 {
                    if session.try_rows("SELECT pg_sleep(0.005)").is_err() {
                        break;
                    }
                }
            }
        } else {
            drop(session);
            cluster.stop(Shutdown::Immediate);
            cluster.restart();
        }
    }
    wait_for("a session", || cluster.try_session_in("postgres", "postgres").is_ok());
    let mut session = new_session();
    session.exec("SELECT background.status()");
    session.wait_until("NOT EXISTS (SELECT FROM background.operations WHERE state = 'running')");
    assert!(session.holds("(SELECT count(*) = 2 AND bool_and(state = 'done') FROM background.operations)"));
    assert_eq!(session.value::<i64>("SELECT count(*) FROM t WHERE n = 1"), 30000);
    assert_eq!(session.value::<i64>("SELECT count(*) FROM u WHERE n = 1"), 20000);
    assert!(
        session.holds("(SELECT rows_affected = 30000 AND chunks_done = 750 FROM background.operations WHERE id = 1)")
    );
    assert!(session.holds("NOT EXISTS (SELECT FROM background.task)"));
}

#[test]
fn pause_go_on_and_cancel() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 20000) i",
    );
    let slow = "'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND pg_sleep(0.00001) IS NOT NULL', 't', 'id', chunk_rows => 100";
    let id = start(&mut session, slow);
    session.wait_until(&format!(
        "(SELECT chunks_done > 2 FROM background.operations WHERE id = {id})"
    ));
    session.exec(&format!("SELECT background.alter_operation({id}, paused => true)"));
    assert!(is(&mut session, id, "state = 'paused'"));
    // No task, no worker, no lock.
    session.wait_until(&format!(
        "NOT EXISTS (SELECT FROM background.task WHERE operation_id = {id})"
    ));
    let done: i64 = session.value(&format!(
        "SELECT chunks_done FROM background.operations WHERE id = {id}"
    ));
    assert!(is(
        &mut session,
        id,
        "progress > 0 AND progress < 1 AND finished_at IS NULL AND eta IS NULL"
    ));
    assert!(session.holds(&format!("background.wait_operation({id}, 50) IS NULL")));
    session.exec(&format!(
        "SELECT background.alter_operation({id}, paused => false, parallelism => 3)"
    ));
    session.wait_until(&format!(
        "(SELECT chunks_done > {done} + 3 AND eta > now() FROM background.operations WHERE id = {id})"
    ));
    session.wait_until(&format!(
        "(SELECT count(*) = 3 FROM background.chunks WHERE operation_id = {id} AND state = 'running')"
    ));
    session.exec(&format!("SELECT background.alter_operation({id}, parallelism => 1)"));
    session.wait_until(&format!(
        "(SELECT count(*) = 1 FROM background.task WHERE operation_id = {id})"
    ));
    assert!(session.holds(&format!("background.cancel_operation({id}, 5000)")));
    assert_eq!(wait(&mut session, id), "canceled");
    assert!(session.holds(&format!("NOT background.cancel_operation({id})")));
    assert_eq!(
        session
            .error(&format!("SELECT background.alter_operation({id}, paused => true)"))
            .sqlstate,
        "55000"
    );
    assert!(session.holds(&format!(
        "(SELECT sum(n) = (SELECT sum(rows) FROM background.chunks WHERE operation_id = {id}) FROM t)"
    )));
    // It goes on where it was.
    session.exec(&format!("SELECT background.retry_operation({id})"));
    session.exec(&format!("SELECT background.alter_operation({id}, parallelism => 4)"));
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT min(n) = 1 AND max(n) = 1 FROM t)"));
    // One that has not begun is gone at once.
    session.exec("BEGIN");
    let id = start(&mut session, slow);
    assert_eq!(
        session
            .error(&format!("SELECT background.wait_operation({id})"))
            .sqlstate,
        "55000"
    );
    session.exec("ROLLBACK");
    session.exec("BEGIN");
    let id = start(&mut session, slow);
    assert!(session.holds(&format!("background.cancel_operation({id})")));
    session.exec("COMMIT");
    assert_eq!(wait(&mut session, id), "canceled");
}

#[test]
fn a_chunk_that_fails() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 1000) i; \
         CREATE TABLE bad (id int); INSERT INTO bad VALUES (250), (750)",
    );
    let sql = "'UPDATE t SET n = n + 1 / (CASE WHEN id IN (TABLE bad) THEN 0 ELSE 1 END) WHERE id BETWEEN $1 AND $2', 't', 'id', chunk_rows => 100, retry_delay => '1 ms', max_attempts => 2, parallelism => 1";
    let id = start(&mut session, sql);
    assert_eq!(wait(&mut session, id), "failed");
    assert!(is(
        &mut session,
        id,
        "chunks_done = 2 AND chunks_failed = 1 AND last_error = 'division by zero' AND rows_affected = 200"
    ));
    assert!(session.holds(&format!(
        "(SELECT n = 3 AND first = '201' AND last = '300' AND attempts = 2 AND sqlstate = '22012' AND error_message = 'division by zero' AND rows IS NULL \
          FROM background.chunks WHERE operation_id = {id} AND state = 'failed')"
    )));
    let task: i64 = session.value(&format!(
        "SELECT id FROM background.tasks WHERE operation_id = {id} AND state = 'failed'"
    ));
    assert_eq!(
        session.error(&format!("SELECT background.retry({task})")).sqlstate,
        "55000"
    );
    session.exec("DELETE FROM bad WHERE id = 250");
    assert_eq!(
        session.value::<i64>(&format!("SELECT background.retry_operation({id})")),
        1
    );
    assert_eq!(wait(&mut session, id), "failed");
    assert!(is(&mut session, id, "chunks_done = 7 AND chunks_failed = 1"));
    session.exec("DELETE FROM bad");
    assert_eq!(
        session.value::<i64>(&format!("SELECT background.retry_operation({id})")),
        1
    );
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT min(n) = 1 AND max(n) = 1 FROM t)"));
    assert_eq!(
        session.value::<i64>(&format!("SELECT background.retry_operation({id})")),
        0
    );
    assert!(is(&mut session, id, "state = 'done' AND last_error IS NULL"));
    session.exec("INSERT INTO bad VALUES (250), (750); SELECT background.set_queue('gone')");
    let id = start(&mut session, &format!("{sql}, on_error => 'continue', queue => 'gone'"));
    assert_eq!(wait(&mut session, id), "failed");
    assert!(is(
        &mut session,
        id,
        "chunks_done = 8 AND chunks_failed = 2 AND rows_affected = 800"
    ));
    // Nothing runs in a queue that is not there.
    session.exec("DELETE FROM bad; SELECT background.drop_queue('gone')");
    assert_eq!(
        session
            .error(&format!("SELECT background.retry_operation({id})"))
            .sqlstate,
        "42704"
    );
    session.exec("SELECT background.set_queue('gone')");
    assert_eq!(
        session.value::<i64>(&format!("SELECT background.retry_operation({id})")),
        2
    );
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT min(n) = 2 AND max(n) = 2 FROM t)"));
    assert!(is(&mut session, id, "chunks_done = 10 AND chunks_failed = 0"));
}

#[test]
fn what_becomes_of_the_table_meanwhile() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE t (id int, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 3000) i; CREATE INDEX i ON t (id)");
    let slowly = "chunk_rows => 100, parallelism => 2, pause_between => '20 ms'";
    let id = start(&mut session, &format!("{COUNT_UP}, 'id', {slowly}"));
    session.wait_until(&format!(
        "(SELECT chunks_done > 2 FROM background.operations WHERE id = {id})"
    ));
    session.exec("DROP INDEX i");
    assert_eq!(wait(&mut session, id), "failed");
    assert!(is(
        &mut session,
        id,
        "last_error LIKE '%has no index that begins with column \"id\"' AND chunks_failed = 0"
    ));
    session.exec("CREATE INDEX j ON t (id)");
    assert_eq!(
        session.value::<i64>(&format!("SELECT background.retry_operation({id})")),
        0
    );
    // It grows and shrinks, and another column comes.
    session.wait_until(&format!(
        "(SELECT chunks_done > 5 FROM background.operations WHERE id = {id})"
    ));
    session.exec("INSERT INTO t SELECT i FROM generate_series(3001, 4000) i; DELETE FROM t WHERE id % 100 = 0");
    // In a transaction of its own: a chunk that waits for rows that it has deleted would have the table.
    session.exec("ALTER TABLE t ADD more text; ALTER TABLE t RENAME TO other; ALTER TABLE other RENAME TO t");
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT min(n) = 1 AND max(n) = 1 AND count(*) = 3960 FROM t)"));
    let id = start(&mut session, &format!("{COUNT_UP}, 'id', {slowly}"));
    session.wait_until(&format!(
        "(SELECT chunks_done > 2 FROM background.operations WHERE id = {id})"
    ));
    session.exec("DROP TABLE t");
    assert_eq!(wait(&mut session, id), "failed");
}

#[test]
fn others_have_a_runner() {
    let cluster = Cluster::start(&["pg_background.max_task_workers = 2"]);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT i FROM generate_series(1, 5000) i");
    let sleepy =
        "'SELECT pg_sleep(0.1) FROM t WHERE id BETWEEN $1 AND $2', 't', 'id', chunk_rows => 1, parallelism => 4";
    let ids = [start(&mut session, sleepy), start(&mut session, sleepy)];
    session.wait_until("(SELECT count(*) = 2 FROM background.operations WHERE chunks_done > 1)");
    for _ in 0..10 {
        assert!(session.holds("(SELECT count(*) <= 1 FROM background.chunks WHERE state = 'running')"));
        let task = session.enqueue("'SELECT 1'");
        assert_eq!(session.wait_task(task), "done");
    }
    assert!(session.holds("(SELECT bool_and(state = 'running') FROM background.operations)"));
    for id in ids {
        let is_canceled = session.holds(&format!("background.cancel_operation({id}, 1000)"));
        let all = session.rows("SELECT id, state, last_error, finished_at - started_at FROM background.operations");
        assert!(is_canceled, "{id} of {all:?}");
        assert_eq!(wait(&mut session, id), "canceled");
    }
}

#[test]
fn the_size_follows_the_time() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 12000) i",
    );
    // A row takes about a tenth of a millisecond or more: the first chunks of a thousand rows are too large.
    let id = start(
        &mut session,
        "'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND pg_sleep(0.0005) IS NOT NULL', 't', 'id', chunk_time => '60 ms'",
    );
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT min(n) = 1 AND max(n) = 1 FROM t)"));
    let late = format!("FROM background.chunks WHERE operation_id = {id} AND n > 20");
    assert!(session.holds(&format!(
        "(SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) BETWEEN 20 AND 200 {late})"
    )));
    // A lock wait.
    let mut other = cluster.session();
    other.exec("CREATE TABLE u AS SELECT i AS id, 0 AS n FROM generate_series(1, 100000) i; CREATE INDEX ON u (id)");
    let id = start(
        &mut session,
        "'UPDATE u SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND pg_sleep(0.0001) IS NOT NULL', 'u', 'id', chunk_time => '100 ms', parallelism => 1",
    );
    session.wait_until(&format!(
        "(SELECT chunks_done > 12 FROM background.operations WHERE id = {id})"
    ));
    other.exec("BEGIN; LOCK u");
    session.exec("SELECT pg_sleep(1)");
    other.exec("COMMIT");
    let waited: i64 = session.value(&format!(
        "SELECT count(*) FROM background.chunks WHERE operation_id = {id}"
    ));
    session.wait_until(&format!(
        "(SELECT count(*) > {waited} + 5 FROM background.chunks WHERE operation_id = {id})"
    ));
    session.exec(&format!("SELECT background.cancel_operation({id})"));
    assert!(session.holds(&format!(
        "(SELECT min(last::int - first::int) * 4 > max(last::int - first::int) FROM background.chunks WHERE operation_id = {id} AND n > {waited} - 5)"
    )));
}

#[test]
fn who_waits_for_it() {
    let cluster = cluster(&["deadlock_timeout = '100ms'"]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 100) i",
    );
    let id = start(
        &mut session,
        &format!("{COUNT_UP}, 'id', pause_between => '10 ms', chunk_rows => 10"),
    );
    session.exec("BEGIN; LOCK t IN SHARE MODE");
    let error = session.error(&format!("SELECT background.wait_operation({id}, 30000)"));
    session.exec("ROLLBACK");
    // It may have been faster.
    assert!(error.sqlstate == "40P01" || is(&mut other, id, "state = 'done'"));
    assert_eq!(wait(&mut session, id), "done");
    // Roles.
    session.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice; CREATE ROLE bob LOGIN; GRANT pgbackground_role TO bob; CREATE ROLE watcher; GRANT pg_monitor TO watcher");
    let mut alice = cluster.session_as("alice");
    assert_eq!(
        alice
            .error(&format!("SELECT background.parallel_execute({COUNT_UP}, 'id')"))
            .sqlstate,
        "42501"
    );
    session.exec("GRANT SELECT (id), UPDATE ON t TO alice");
    assert_eq!(
        alice.error(&format!("SELECT background.wait_operation({id})")).sqlstate,
        "42501"
    );
    assert!(alice.holds("NOT EXISTS (SELECT FROM background.operations)"));
    session.exec("GRANT SELECT ON t TO alice");
    let id = start(&mut alice, &format!("{COUNT_UP}, 'id'"));
    assert_eq!(wait(&mut alice, id), "done");
    assert!(alice.holds(&format!(
        "(SELECT owner = 'alice' FROM background.operations WHERE id = {id})"
    )));
    session.exec("SET ROLE watcher");
    assert!(session.holds(&format!(
        "(SELECT owner = 'alice' FROM background.operations WHERE id = {id})"
    )));
    assert!(session.holds(&format!(
        "(SELECT bool_and(first IS NULL) FROM background.chunks WHERE operation_id = {id})"
    )));
    session.exec("RESET ROLE");
    // A role that is gone.
    let id = start(
        &mut alice,
        &format!("{COUNT_UP}, 'id', pause_between => '200 ms', chunk_rows => 1"),
    );
    alice.wait_until(&format!(
        "(SELECT chunks_done > 0 FROM background.operations WHERE id = {id})"
    ));
    drop(alice);
    session.exec("REVOKE ALL ON t FROM alice; DROP ROLE alice");
    assert_eq!(wait(&mut session, id), "failed");
}

#[test]
fn a_standby_that_is_behind() {
    let primary = cluster(&[]);
    let mut session = primary.session();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 20000) i",
    );
    let standby = Cluster::standby_of(&primary, &[]);
    let mut there = standby.session();
    session.wait_until("EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')");
    there.exec("SELECT pg_wal_replay_pause()");
    let id = start(
        &mut session,
        &format!("{COUNT_UP}, 'id', chunk_rows => 10, max_replication_lag => '300 ms', pause_between => '20 ms'"),
    );
    // It waits without a worker.
    session.wait_until(&format!("(SELECT bool_and(state = 'deferred') AND count(*) > 0 AND (SELECT chunks_done > 0 FROM background.operations WHERE id = {id}) \
         AND bool_and(run_at > now() + interval '200 ms') FROM background.tasks WHERE operation_id = {id} AND finished_at IS NULL)"));
    let done: i64 = session.value(&format!(
        "SELECT chunks_done FROM background.operations WHERE id = {id}"
    ));
    assert!(done < 1000);
    there.exec("SELECT pg_wal_replay_resume()");
    session.wait_until(&format!(
        "(SELECT chunks_done > {done} + 5 FROM background.operations WHERE id = {id})"
    ));
    assert!(session.holds(&format!("background.cancel_operation({id})")));
    assert_eq!(wait(&mut session, id), "canceled");
}

#[test]
fn whatever_the_role_has_set() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice; \
         ALTER ROLE alice SET default_transaction_isolation = 'serializable'; ALTER ROLE alice SET default_transaction_read_only = on; \
         ALTER ROLE alice SET enable_indexscan = off; ALTER ROLE alice SET DateStyle = 'SQL, DMY'; ALTER ROLE alice SET search_path = nowhere; \
         CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO alice; \
         CREATE TABLE s.t (day timestamptz, tenant int, what text DEFAULT ''); CREATE INDEX ON s.t (day); GRANT SELECT, UPDATE ON s.t TO alice; \
         INSERT INTO s.t SELECT '2024-01-01'::timestamptz + i * interval '7 hours', i % 2 FROM generate_series(1, 2000) i; \
         ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON s.t USING (tenant = current_setting('app.tenant')::int)",
    );
    let mut alice = cluster.session_as("alice");
    alice.exec("SET default_transaction_read_only = off; SET search_path = s; SET app.tenant = 1; SET TimeZone = 'America/Caracas'");
    let id = start(
        &mut alice,
        "'UPDATE t SET what = what || $3 || $4 WHERE day BETWEEN $1 AND $2', 't', 'day', row('it''s', '2024-12-31'::date), chunk_rows => 90, \
         settings => '{\"app.tenant\": 1, \"transaction_read_only\": \"off\"}'",
    );
    assert_eq!(wait(&mut alice, id), "done");
    assert!(session.holds("(SELECT count(*) = 1000 FROM s.t WHERE tenant = 1 AND what LIKE 'it''s31/12/2024')"));
    assert!(session.holds("(SELECT count(*) = 1000 FROM s.t WHERE tenant = 0 AND what = '')"));
    assert!(is(&mut alice, id, "chunks_done = 12 AND rows_affected = 1000"));
    // What only reads needs no right to write, not even for its mark.
    let id = start(
        &mut alice,
        "'SELECT what FROM t WHERE day BETWEEN $1 AND $2', 't', 'day', chunk_rows => 300, settings => '{\"app.tenant\": 0}'",
    );
    assert_eq!(wait(&mut alice, id), "done");
    assert!(is(&mut alice, id, "chunks_done = 4 AND rows_affected = 1000"));
}

#[test]
fn policies_have_the_path_of_the_operation() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice; CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO alice; SET check_function_bodies = off; \
         CREATE TABLE s.tenant (id int); INSERT INTO s.tenant VALUES (1); CREATE TABLE s.t (id regclass PRIMARY KEY, tenant int, n int DEFAULT 0); \
         CREATE FUNCTION s.mine() RETURNS int LANGUAGE plpgsql STABLE AS 'DECLARE one tenant; BEGIN SELECT * INTO one FROM tenant; RETURN one.id; END'; \
         CREATE FUNCTION s.mine_too() RETURNS int LANGUAGE sql STABLE AS 'SELECT id FROM tenant'; \
         CREATE TABLE s.u (id int PRIMARY KEY, tenant int, n int DEFAULT 0); INSERT INTO s.u SELECT i, i % 2 FROM generate_series(1, 100) i; \
         ALTER TABLE s.u ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON s.u USING (tenant = s.mine() AND tenant = s.mine_too()); \
         INSERT INTO s.t SELECT oid FROM pg_class WHERE relname IN ('pg_class', 'tenant', 't', 'u', 'pg_type'); \
         GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA s TO alice",
    );
    let mut alice = cluster.session_as("alice");
    alice.exec("SET search_path = s");
    let id = start(
        &mut alice,
        "'UPDATE u SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'u', 'id', chunk_rows => 7",
    );
    assert_eq!(wait(&mut alice, id), "done");
    assert!(is(&mut alice, id, "rows_affected = 50 AND chunks_done = 8"));
    assert!(session.holds("(SELECT bool_and(n = tenant) FROM s.u)"));
    // Keys whose texts are names that the path qualifies.
    let id = start(
        &mut alice,
        "'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 't', 'id', chunk_rows => 1",
    );
    assert_eq!(wait(&mut alice, id), "done");
    assert!(once(&mut session, "s.t"));
    assert!(
        session.holds(
            "(SELECT string_agg(first, ' ' ORDER BY first) LIKE '%pg_type%s.t s.tenant%' FROM background.chunk)"
        )
    );
}

#[test]
fn a_transaction_that_is_prepared() {
    let cluster = cluster(&["max_prepared_transactions = 5"]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 1000) i",
    );
    session.exec("BEGIN");
    let id = start(&mut session, &format!("{COUNT_UP}, 'id', chunk_rows => 100"));
    session.exec("PREPARE TRANSACTION 'p'");
    assert!(session.holds(&format!("background.wait_operation({id}, 100) IS NULL")));
    session.exec("COMMIT PREPARED 'p'");
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT min(n) = 1 AND max(n) = 1 FROM t)"));
}

#[test]
fn a_deadlock_is_no_attempt() {
    let cluster = cluster(&["deadlock_timeout = '50ms'"]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 10) i",
    );
    // A process looks for deadlocks once while it waits. The chunk comes to wait last, so it finds this one.
    other.exec("SET deadlock_timeout = '60s'; BEGIN; SELECT pg_advisory_xact_lock(1)");
    session.exec("SELECT pg_advisory_lock(3)");
    let id = start(
        &mut session,
        "'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2 \
             RETURNING pg_advisory_xact_lock(2), pg_advisory_xact_lock_shared(3), pg_advisory_xact_lock(1)', 't', 'id', \
         chunk_rows => 100, max_attempts => 1",
    );
    session.wait_until("(SELECT count(*) = 1 FROM pg_locks WHERE NOT granted)");
    let other = other.start("SELECT pg_advisory_xact_lock(2); COMMIT");
    session.wait_until("(SELECT count(*) = 2 FROM pg_locks WHERE NOT granted)");
    session.exec("SELECT pg_advisory_unlock(3)");
    other.join().1.unwrap();
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT bool_and(n = 1) FROM t)"));
    assert!(is(&mut session, id, "chunks_done = 1 AND chunks_failed = 0"));
    assert!(cluster.log().contains("deadlock detected"));
}

#[test]
fn one_that_waits_for_the_table_is_canceled_at_once() {
    let cluster = cluster(&[]);
    let (mut session, mut other) = (cluster.session(), cluster.session());
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 1000) i",
    );
    let id = start(
        &mut session,
        &format!("{COUNT_UP}, 'id', chunk_rows => 10, pause_between => '100 ms', parallelism => 1"),
    );
    session.wait_until(&format!(
        "(SELECT chunks_done > 1 FROM background.operations WHERE id = {id})"
    ));
    other.exec("BEGIN; LOCK t");
    session.wait_until("EXISTS (SELECT FROM pg_locks WHERE NOT granted)");
    assert!(session.holds(&format!("background.cancel_operation({id})")));
    assert_eq!(wait(&mut session, id), "canceled");
    other.exec("ROLLBACK");
    assert!(is(&mut session, id, "chunks_done > 1 AND chunks_failed = 0"));
}

/// Starts an operation with chunks that come slowly. Some are done when this returns.
fn start_slowly(session: &mut Session) -> i64 {
    let id = start(
        session,
        &format!("{COUNT_UP}, 'id', chunk_rows => 10, pause_between => '20 ms', max_attempts => 1"),
    );
    session.wait_until(&format!(
        "(SELECT chunks_done > 2 FROM background.operations WHERE id = {id})"
    ));
    id
}

/// Changes something while the operation runs, or while it is paused.
fn change_meanwhile(session: &mut Session, id: i64, is_paused: bool, sql: &str) {
    if is_paused {
        session.exec(&format!("SELECT background.alter_operation({id}, paused => true)"));
    }
    session.exec(sql);
    if is_paused {
        session.exec(&format!("SELECT background.alter_operation({id}, paused => false)"));
    }
}

/// The operation has failed with this error before it had all rows, and has no row twice.
#[track_caller]
fn has_stopped(session: &mut Session, id: i64, error: &str, case: &str) {
    assert_eq!(wait(session, id), "failed", "{case}");
    assert!(is(session, id, error), "{case}");
    assert!(is(session, id, "rows_affected = (SELECT sum(n) FROM t)"), "{case}");
    assert!(session.holds("(SELECT bool_and(n IN (0, 1)) FROM t)"), "{case}");
}

/// Chunks are ranges in an order that the type and the collation of the column decide.
#[test]
fn the_keys_are_sorted_otherwise() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for (kind, key, other, goes_on) in [
        (
            "text COLLATE \"C\"",
            "to_char(i, '0000')",
            "text COLLATE \"POSIX\"",
            false,
        ),
        (
            "varchar(9) COLLATE \"C\"",
            "to_char(i, '0000')",
            "text COLLATE \"C\"",
            true,
        ),
        (
            "timestamptz",
            "'2026-01-01'::timestamptz + i * interval '1 h'",
            "timestamp",
            false,
        ),
        ("int", "i", "int8", true),
        ("int", "i", "numeric", false),
        ("date", "'2026-01-01'::date + i", "timestamp", false),
    ] {
        for is_paused in [true, false] {
            let case = format!("{kind} to {other}, paused: {is_paused}");
            session.exec(&format!(
                "CREATE TABLE t (id {kind} PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT {key} FROM generate_series(1, 400) i"
            ));
            let id = start_slowly(&mut session);
            change_meanwhile(
                &mut session,
                id,
                is_paused,
                &format!("ALTER TABLE t ALTER id TYPE {other}"),
            );
            if goes_on {
                assert_eq!(wait(&mut session, id), "done", "{case}");
                assert!(once(&mut session, "t"), "{case}");
            } else {
                has_stopped(
                    &mut session,
                    id,
                    "last_error LIKE 'the type or the collation of column \"id\" has changed%'",
                    &case,
                );
                // It goes on when the keys are where they were.
                session.exec(&format!(
                    "ALTER TABLE t ALTER id TYPE {kind}; SELECT background.retry_operation({id})"
                ));
                assert_eq!(wait(&mut session, id), "done", "{case}");
                assert!(once(&mut session, "t"), "{case}");
            }
            session.exec("DROP TABLE t");
        }
    }
}

/// Another column that gets the name of the key has other keys.
#[test]
fn another_column_gets_the_name() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for (change, back) in [
        (
            "RENAME id TO first; ALTER TABLE t RENAME other TO id",
            Some("RENAME id TO other; ALTER TABLE t RENAME first TO id"),
        ),
        (
            "DROP id; ALTER TABLE t ADD id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            None,
        ),
    ] {
        for is_paused in [true, false] {
            let case = format!("{change}, paused: {is_paused}");
            session.exec(
                "CREATE TABLE t (id int PRIMARY KEY, other int UNIQUE, n int DEFAULT 0); \
                 INSERT INTO t SELECT i, 401 - i FROM generate_series(1, 400) i",
            );
            let id = start_slowly(&mut session);
            change_meanwhile(
                &mut session,
                id,
                is_paused,
                &format!("BEGIN; ALTER TABLE t {change}; COMMIT"),
            );
            has_stopped(
                &mut session,
                id,
                "last_error LIKE 'column \"id\" is another one than that by which the table is divided%'",
                &case,
            );
            if let Some(back) = back {
                session.exec(&format!(
                    "BEGIN; ALTER TABLE t {back}; COMMIT; SELECT background.retry_operation({id})"
                ));
                assert_eq!(wait(&mut session, id), "done", "{case}");
                assert!(once(&mut session, "t"), "{case}");
            }
            session.exec("DROP TABLE t");
        }
    }
}

/// The columns of a restored table have other numbers where one had been dropped, and the table may have the same number.
#[test]
fn an_operation_in_a_restored_database() {
    let (original, copy) = (cluster(&[]), Cluster::start(&["pg_background.max_task_workers = 4"]));
    let mut session = original.session();
    session.exec(
        "CREATE TABLE t (gone int, id int PRIMARY KEY, n int DEFAULT 0, other int UNIQUE); ALTER TABLE t DROP gone; \
         INSERT INTO t SELECT i, 0, 401 - i FROM generate_series(1, 400) i",
    );
    let id = start_slowly(&mut session);
    session.exec(&format!("SELECT background.alter_operation({id}, paused => true)"));
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state = 'running')");
    copy.restore(&original);
    let mut session = copy.session();
    session.exec("SELECT background.activate()");
    let done: i64 = session.value(&format!(
        "SELECT chunks_done FROM background.operations WHERE id = {id}"
    ));
    session.exec(&format!("SELECT background.alter_operation({id}, paused => false)"));
    session.wait_until(&format!(
        "(SELECT chunks_done > {done} + 2 FROM background.operations WHERE id = {id})"
    ));
    // It knows the column by its number here from then on.
    session.exec("BEGIN; ALTER TABLE t RENAME id TO first; ALTER TABLE t RENAME other TO id; COMMIT");
    assert_eq!(wait(&mut session, id), "failed");
    session.exec(&format!(
        "BEGIN; ALTER TABLE t RENAME id TO other; ALTER TABLE t RENAME first TO id; COMMIT; SELECT background.retry_operation({id})"
    ));
    assert_eq!(wait(&mut session, id), "done");
    assert!(once(&mut session, "t"));
}

#[test]
fn a_role_that_does_not_exist_any_more() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for how in ["paused", "canceled"] {
        session.exec(
            "CREATE ROLE gone LOGIN; GRANT pgbackground_role TO gone; CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); \
             INSERT INTO t SELECT i FROM generate_series(1, 1000) i; GRANT ALL ON t TO gone",
        );
        let mut gone = cluster.session_as("gone");
        let id = start(
            &mut gone,
            &format!("{COUNT_UP}, 'id', chunk_rows => 10, pause_between => '20 ms'"),
        );
        session.wait_until(&format!(
            "(SELECT chunks_done > 2 FROM background.operations WHERE id = {id})"
        ));
        let (stop, go_on) = match how {
            "paused" => (
                "alter_operation(ID, paused => true)",
                "alter_operation(ID, paused => false)",
            ),
            _ => ("cancel_operation(ID)", "retry_operation(ID)"),
        };
        let call = |what: &str| format!("SELECT background.{}", what.replace("ID", &id.to_string()));
        gone.exec(&call(stop));
        drop(gone);
        session.wait_until(&format!("NOT EXISTS (SELECT FROM background.tasks WHERE operation_id = {id} AND state IN ('waiting', 'deferred', 'running'))"));
        session.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'gone')");
        session.exec("DROP OWNED BY gone; DROP ROLE gone");
        session.exec(&call(go_on));
        // Long before the keeper looks by itself.
        assert_eq!(
            session
                .text(&format!("SELECT background.wait_operation({id}, 20000)"))
                .as_deref(),
            Some("failed"),
            "{how}"
        );
        assert!(
            is(&mut session, id, "last_error LIKE '%role%gone%does not exist%'"),
            "{how}"
        );
        session.exec("DROP TABLE t");
    }
}

/// A pause may be over before the lane is told of.
#[test]
fn pauses_of_all_lengths() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 200) i",
    );
    let pauses = ["1 us", "10 us", "50 us", "200 us", "400 us", "1 ms", "2 ms"];
    for (n, pause) in pauses.into_iter().enumerate() {
        for parallelism in [1, 2] {
            let id = start(
                &mut session,
                &format!(
                    "{COUNT_UP}, 'id', chunk_rows => 10, pause_between => '{pause}', parallelism => {parallelism}"
                ),
            );
            assert_eq!(wait(&mut session, id), "done", "{pause}");
        }
        assert!(session.holds(&format!("(SELECT bool_and(n = {}) FROM t)", 2 * n + 2)));
    }
}

/// What settings say of how values are read does not count.
#[test]
fn null_in_an_array() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE t (id text[] PRIMARY KEY, n int DEFAULT 0);
         INSERT INTO t SELECT ARRAY['b', other, i::text] FROM generate_series(1, 100) i, (VALUES (NULL), ('ZZ')) AS _ (other)",
    );
    let id = start(
        &mut session,
        &format!(r#"{COUNT_UP}, 'id', chunk_rows => 10, settings => '{{"array_nulls": "off"}}'"#),
    );
    assert_eq!(wait(&mut session, id), "done");
    assert!(session.holds("(SELECT count(*) = 200 AND bool_and(n = 1) FROM t)"));
}

/// None of them interrupts what notes the ends of the chunks that another one has canceled.
#[test]
fn sessions_cancel_at_once() {
    let cluster = cluster(&["pg_background.max_task_workers = 5"]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 1000) i",
    );
    for round in 0..5 {
        let id = start(
            &mut session,
            "'SELECT pg_sleep(60) WHERE $1 < $2', 't', 'id', chunk_rows => 100, parallelism => 3",
        );
        session.wait_until(&format!(
            "(SELECT count(*) = 3 FROM background.chunks WHERE operation_id = {id} AND state = 'running')"
        ));
        let cancels: Vec<_> = (0..3)
            .map(|_| {
                cluster
                    .session()
                    .start(&format!("SELECT background.cancel_operation({id}, 60000)"))
            })
            .collect();
        let began = std::time::Instant::now();
        for cancel in cancels {
            cancel.join().1.unwrap();
        }
        assert!(began.elapsed().as_secs() < 30, "{round}");
        assert_eq!(wait(&mut session, id), "canceled", "{round}");
        assert!(session.holds(&format!(
            "(SELECT count(*) = 3 AND bool_and(state = 'canceled') FROM background.chunks WHERE operation_id = {id})"
        )));
        assert!(
            session.holds("NOT EXISTS (SELECT FROM background.runs WHERE state = 'interrupted')"),
            "{round}"
        );
    }
    assert!(!cluster.log().contains("due to lock timeout"));
}

/// It never falls, whatever the table is taken for, and is exact when all chunks are cut.
#[test]
fn progress_of_tables_that_are_misjudged() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for (what, prepare) in [
        ("dead rows", "UPDATE t SET n = 1; UPDATE t SET n = 0"),
        (
            "old statistics",
            "ANALYZE t; INSERT INTO t SELECT i FROM generate_series(2001, 10000) i; DELETE FROM t WHERE id > 5000",
        ),
        (
            "statistics of an empty table",
            "DELETE FROM t; VACUUM t; INSERT INTO t SELECT i FROM generate_series(1, 2000) i",
        ),
    ] {
        session.exec("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0) WITH (autovacuum_enabled = off); INSERT INTO t SELECT i FROM generate_series(1, 2000) i");
        prepare.split("; ").for_each(|sql| session.exec(sql));
        let rows: i64 = session.value("SELECT count(*) FROM t");
        let id = start(
            &mut session,
            "'UPDATE t SET n = n + 1 / (id - 1000) WHERE id BETWEEN $1 AND $2', 't', 'id', chunk_rows => 50, max_attempts => 1, on_error => 'continue', \
             pause_between => '5 ms'",
        );
        let mut last = 0.0;
        let mut is_running = true;
        while is_running {
            is_running = is(&mut session, id, "state = 'running'");
            let now: f64 = session.value(&format!("SELECT progress FROM background.operations WHERE id = {id}"));
            assert!(now >= last && now < 1.0, "{what}: {now} after {last}");
            last = now;
        }
        assert_eq!(wait(&mut session, id), "failed");
        // All but the chunk that has failed.
        let exact = 1.0 - 50.0 / rows as f64;
        assert!((last - exact).abs() < 0.03, "{what}: {last}, {exact}");
        session.exec("DROP TABLE t");
    }
}
