//! Objects of a session: temporary objects, cursors, locks, sequences, the state of libraries.

use harness::order::Step::{Admin, Job, Session, Unread};

use crate::{cleared, left, run, silent};

#[test]
fn objects_of_a_session() {
    const TEMPORARY: &str = "SELECT coalesce(to_regclass('pg_temp.t')::text, 'none') || pg_my_temp_schema()::text || current_schemas(true)::text";
    run(&[
        left(
            "a temporary table",
            &[Job("CREATE TEMP TABLE t (n int)"), Job(TEMPORARY)],
        ),
        left(
            "a temporary table that was dropped",
            &[Job("CREATE TEMP TABLE t (n int); DROP TABLE t"), Job(TEMPORARY)],
        ),
        silent(left(
            "a temporary table again and again",
            &[
                Job("CREATE TEMP TABLE t AS SELECT 1 AS n; SELECT n::text FROM t"),
                Job("CREATE TEMP TABLE t AS SELECT 2 AS n; SELECT n::text FROM t"),
                Job("CREATE TEMP TABLE t AS SELECT 3 AS n; SELECT 1 / 0"),
                Job("CREATE TEMP TABLE t AS SELECT 4 AS n; SELECT n::text FROM t"),
                Job(TEMPORARY),
            ],
        )),
        left(
            "a temporary table over a permanent one",
            &[
                Job("CREATE TEMP TABLE shade AS SELECT 'temporary' AS x; SELECT shaded()"),
                Job("SELECT shaded() || x FROM shade"),
            ],
        ),
        left(
            "temporary view, sequence and function",
            &[
                Job("CREATE TEMP VIEW v AS SELECT 1; CREATE TEMP SEQUENCE s; \
                     CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
                Job(
                    "SELECT coalesce(to_regclass('pg_temp.v')::text, 'none') || coalesce(to_regclass('pg_temp.s')::text, 'none') || \
                     coalesce(to_regproc('pg_temp.f')::text, 'none')",
                ),
            ],
        ),
        left(
            "ON COMMIT DELETE ROWS",
            &[
                Job("CREATE TEMP TABLE t (n int) ON COMMIT DELETE ROWS; INSERT INTO t VALUES (1)"),
                Job("CREATE TEMP TABLE u (n int) ON COMMIT DROP"),
                Job(TEMPORARY),
            ],
        ),
        cleared(
            "a prepared statement",
            &[
                Job("PREPARE stay AS SELECT 1"),
                Job("SELECT count(*)::text FROM pg_prepared_statements"),
            ],
        ),
        cleared(
            "the same prepared statement twice",
            &[
                Job("PREPARE stay AS SELECT 1; EXECUTE stay"),
                Job("PREPARE stay AS SELECT 'a'; EXECUTE stay"),
            ],
        ),
        cleared(
            "a cursor WITH HOLD",
            &[
                Job("DECLARE stay CURSOR WITH HOLD FOR SELECT 'stay'"),
                Job("FETCH stay"),
            ],
        ),
        cleared(
            "cursors in the view",
            &[
                Job("DECLARE stay SCROLL CURSOR WITH HOLD FOR SELECT generate_series(1, 100000)"),
                Job("SELECT count(*)::text FROM pg_cursors"),
            ],
        ),
        cleared(
            "an advisory lock",
            &[
                Job("SELECT pg_advisory_lock(7), pg_advisory_lock(7), pg_advisory_lock_shared(8)"),
                Job("SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"),
            ],
        ),
        silent(cleared(
            "an advisory lock is free for others",
            &[
                Unread("SELECT pg_advisory_lock(7), pg_advisory_lock(7)"),
                Session("SELECT pg_advisory_lock(7)"),
                Job("SELECT pg_try_advisory_lock(7)::text"),
                Session("SELECT pg_advisory_unlock(7)"),
                Job("SELECT pg_try_advisory_lock(7)::text"),
            ],
        )),
        left(
            "LISTEN within a block",
            &[
                Job("DO $$ BEGIN EXECUTE 'LISTEN stay'; END $$"),
                Job("SELECT count(*)::text FROM pg_listening_channels()"),
            ],
        ),
        left(
            "LISTEN",
            &[
                Job("LISTEN stay"),
                Admin("NOTIFY stay, 'between'"),
                Job("SELECT count(*)::text FROM pg_listening_channels()"),
            ],
        ),
        cleared(
            "currval",
            &[Job("SELECT nextval('counter')"), Job("SELECT currval('counter')::text")],
        ),
        cleared(
            "lastval",
            &[Job("SELECT nextval('counter')"), Job("SELECT lastval()::text")],
        ),
        cleared(
            "a sequence that caches",
            &[
                Job("SELECT nextval('cached')::text"),
                Job("SELECT nextval('cached')::text"),
            ],
        ),
        cleared(
            "the random seed",
            &[
                Job("SELECT setseed(0.5)"),
                Job("SELECT (random() IN (SELECT first FROM seeded))::text"),
            ],
        ),
        left(
            "a library's sessions, of dblink",
            &[
                Job(
                    "SELECT dblink_connect('stay', format('host=%s port=%s dbname=postgres user=postgres', \
                     split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port')))",
                ),
                Job("SELECT coalesce(dblink_get_connections()::text, 'none')"),
            ],
        ),
        left(
            "a library's settings",
            &[Job("SELECT set_limit(0.9)"), Job("SELECT show_limit()::text")],
        ),
        left(
            "LOAD",
            &[
                Job("LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_level = notice"),
                Job("SELECT count(*)::text FROM pg_settings WHERE name LIKE 'auto_explain.%' AND source <> 'default'"),
            ],
        ),
        left(
            "LOAD, and what it does to each statement",
            &[
                Job(
                    "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_level = notice; SELECT 1",
                ),
                Job("SELECT current_setting('auto_explain.log_min_duration', true)"),
            ],
        ),
        left(
            "a replication origin",
            &[
                Admin("SELECT pg_replication_origin_create('stay')"),
                Job("SELECT pg_replication_origin_session_setup('stay')"),
                Job("SELECT pg_replication_origin_session_is_setup()::text"),
            ],
        ),
        left(
            "a temporary replication slot",
            &[
                Job("SELECT slot_name FROM pg_create_physical_replication_slot('stay', false, true)"),
                Job("SELECT count(*)::text FROM pg_replication_slots WHERE active_pid = pg_backend_pid()"),
            ],
        ),
        left(
            "a backup",
            &[
                Job("SELECT (pg_backup_start('stay', true) IS NOT NULL)::text"),
                Job("SELECT (lsn IS NOT NULL)::text FROM pg_backup_stop(false)"),
            ],
        ),
        left(
            "jobs of a job",
            &[
                Job("SELECT ((pg_background_launch('SELECT 1')).pid > 0)::text"),
                Job(
                    "SELECT workers_launched || ' ' || (SELECT count(*) FROM pg_background_list) FROM pg_background_stats()",
                ),
            ],
        ),
        silent(left(
            "progress, label and counts",
            &[
                Job("SELECT pg_background_report_progress(50, 'half'); INSERT INTO kept VALUES (1), (2)"),
                Job(""),
                Job("SELECT 1 / 0"),
                Job("SELECT 'fine'"),
            ],
        )),
    ]);
}
