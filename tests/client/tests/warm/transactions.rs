//! Transactions, errors, cancels and messages.

use harness::order::Step::{Admin, Cancelled, Job, Unread};

use crate::{cleared, left, run, silent};

#[test]
fn transactions() {
    const STANDING: &str = "SELECT (pg_current_xact_id_if_assigned() IS NULL)::text || current_setting('transaction_isolation') || \
        current_setting('transaction_read_only') || (SELECT count(*) FROM kept) || \
        (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode NOT IN ('AccessShareLock', 'ExclusiveLock'))";
    run(&[
        cleared(
            "an open block",
            &[
                Job("BEGIN; INSERT INTO kept VALUES (1); LOCK TABLE kept"),
                Job(STANDING),
            ],
        ),
        cleared(
            "an open block of another isolation",
            &[
                Job("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SAVEPOINT a; SAVEPOINT b"),
                Job(STANDING),
            ],
        ),
        left(
            "a failed block",
            &[Job("BEGIN; SAVEPOINT a; SELECT 1 / 0"), Job(STANDING)],
        ),
        silent(left(
            "errors of every stage",
            &[
                Job("SELEC"),
                Job("SELECT no_such_column"),
                Job("SELECT 1 / (random() * 0)::int"),
                Job("INSERT INTO checked VALUES (1), (1)"),
                Job("DO $$ BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN RAISE NOTICE 'caught'; END $$"),
                Job(
                    "DO $$ BEGIN RAISE 'with all' USING DETAIL = 'd', HINT = 'h', ERRCODE = 'P0099', SCHEMA = 's'; END $$",
                ),
                Job("COMMIT"),
                Job("VACUUM kept"),
                Job("SELECT 1; VACUUM kept"),
                Job(STANDING),
            ],
        )),
        silent(left(
            "a job that is cancelled",
            &[
                Job(STANDING),
                Cancelled("SET work_mem = '1MB'; INSERT INTO kept VALUES (1); SELECT pg_sleep(60)::text"),
                Job(STANDING),
                Job("SHOW work_mem"),
                Cancelled(
                    "BEGIN; SET work_mem = '1MB'; COMMIT; CREATE TEMP TABLE t (n int); SELECT pg_sleep(60)::text",
                ),
                Job("SHOW work_mem"),
                Job("SELECT coalesce(to_regclass('pg_temp.t')::text, 'none')"),
                Cancelled(
                    "DO $$ BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(0); END $$",
                ),
                Job("SELECT pg_sleep(0.1)::text"),
            ],
        )),
        silent(left(
            "a job that cancels itself",
            &[
                Job("SELECT 1::text"),
                Job("SELECT pg_cancel_backend(pg_backend_pid())::text FROM generate_series(1, 3)"),
                Job("SELECT pg_sleep(0.01)::text"),
                Job(
                    "DO $$ BEGIN PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(1); \
                     EXCEPTION WHEN query_canceled THEN RAISE NOTICE 'caught'; END $$",
                ),
                Job("SELECT pg_sleep(0.01)::text"),
            ],
        )),
        silent(left(
            "a job that is terminated",
            &[
                Job("SELECT 1::text"),
                Job("SET work_mem = '1MB'; SELECT pg_terminate_backend(pg_backend_pid()); SELECT pg_sleep(60)::text"),
                Job("SHOW work_mem"),
            ],
        )),
        silent(cleared(
            "messages that nobody read",
            &[
                Unread("DO $$ BEGIN RAISE NOTICE 'unheard'; RAISE WARNING 'unheard'; END $$"),
                Job("SELECT 'quiet'"),
                Unread("SET client_min_messages = debug1; SELECT generate_series(1, 1000)"),
                Job("DO $$ BEGIN RAISE DEBUG 'not for you'; RAISE NOTICE 'for you'; END $$"),
            ],
        )),
        silent(cleared(
            "a prepared transaction",
            &[
                Job("BEGIN; INSERT INTO kept VALUES (1); PREPARE TRANSACTION 'stay'"),
                Job("SELECT count(*)::text FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'kept'::regclass"),
                Admin("ROLLBACK PREPARED 'stay'"),
            ],
        )),
        silent(cleared(
            "parallel query",
            &[
                // Called force_parallel_mode before version 16.
                Job("SELECT set_config(name, 'on', false) FROM pg_settings
                     WHERE name IN ('debug_parallel_query', 'force_parallel_mode');
                     SET work_mem = '1MB'; SELECT sum(n)::text FROM secret"),
                Job("SELECT sum(n)::text || (SELECT setting FROM pg_settings
                     WHERE name IN ('debug_parallel_query', 'force_parallel_mode')) FROM secret"),
            ],
        )),
        silent(left(
            "catalogs that change between jobs",
            &[
                Admin(
                    "CREATE TABLE changing (a int); CREATE FUNCTION answer() RETURNS text LANGUAGE sql AS 'SELECT ''one'''",
                ),
                Job("SELECT count(changing.*)::text || answer() FROM changing"),
                Admin(
                    "ALTER TABLE changing ADD b text DEFAULT 'b'; INSERT INTO changing VALUES (1); \
                       CREATE OR REPLACE FUNCTION answer() RETURNS text LANGUAGE sql AS 'SELECT ''two'''",
                ),
                Job("SELECT a || b || answer() FROM changing"),
                Admin("DROP TABLE changing; DROP FUNCTION answer()"),
                Job("SELECT a || b || answer() FROM changing"),
            ],
        )),
        silent(cleared(
            "how a job looks from inside",
            &[
                Job(
                    "SELECT application_name || ' ' || state || ' ' || query || ' ' || backend_type || (backend_xid IS NULL) || \
                     (query_start >= xact_start) || (xact_start >= backend_start) || (clock_timestamp() - query_start < '10 s') \
                     FROM pg_stat_activity WHERE pid = pg_backend_pid()",
                ),
                Job(
                    "SELECT application_name || ' ' || state || ' ' || query || ' ' || backend_type || (backend_xid IS NULL) || \
                     (query_start >= xact_start) || (xact_start >= backend_start) || (clock_timestamp() - query_start < '10 s') \
                     FROM pg_stat_activity WHERE pid = pg_backend_pid()",
                ),
                Job(
                    "INSERT INTO kept VALUES (1); SELECT n_tup_ins::text FROM pg_stat_xact_user_tables WHERE relname = 'kept'",
                ),
                Job(
                    "INSERT INTO kept VALUES (1); SELECT n_tup_ins::text FROM pg_stat_xact_user_tables WHERE relname = 'kept'",
                ),
                Job("DELETE FROM kept"),
            ],
        )),
    ]);
}
