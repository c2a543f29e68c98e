//! Nothing of one job reaches the next: the same jobs in the same order, on workers that are kept and on fresh ones.

use harness::Cluster;
use harness::order::Step::{Admin, Cancelled, Connect, Job, Session, Unread};
use harness::order::{Order, Step, compare};

const SETUP: &str = "
    CREATE ROLE alice LOGIN;
    CREATE ROLE bob;
    GRANT bob TO alice;
    GRANT pgbackground_role TO alice;
    GRANT CREATE ON SCHEMA public TO alice;
    CREATE TABLE kept (n int);
    GRANT ALL ON kept TO PUBLIC;
    CREATE TABLE checked (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE SEQUENCE counter;
    CREATE SEQUENCE cached CACHE 10;
    SELECT setseed(0.5);
    CREATE TABLE seeded AS SELECT random() AS first;
    CREATE SCHEMA other;
    CREATE TABLE shade AS SELECT 'public' AS x;
    CREATE TABLE other.shade AS SELECT 'other' AS x;
    GRANT USAGE ON SCHEMA other TO PUBLIC;
    GRANT SELECT ON shade, other.shade TO PUBLIC;
    CREATE FUNCTION shaded() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT x FROM shade); END $$;
    CREATE TABLE secret (owner name, n int);
    INSERT INTO secret VALUES ('postgres', 1), ('alice', 10), ('bob', 100);
    ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON secret USING (owner = current_user);
    GRANT SELECT ON secret TO alice, bob;
    CREATE FUNCTION seen() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT sum(n) FROM secret); END $$;
    CREATE FUNCTION seen_as_owner() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN RETURN (SELECT sum(n) FROM secret); END $$;
    CREATE FUNCTION run_as_owner(statement text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN RETURN (SELECT state || coalesce(sqlstate, '') FROM pg_background_run(statement)); END $$;
    CREATE EXTENSION dblink;
    CREATE EXTENSION pg_trgm;
";

const SETTINGS: [&str; 2] = ["max_prepared_transactions = 4", "max_wal_senders = 4"];

fn cluster(workers: &str) -> Cluster {
    let cluster = Cluster::start(&[SETTINGS[0], SETTINGS[1], workers]);
    cluster.session().exec(SETUP);
    cluster
}

/// An order after which a worker is clean for sure.
const fn cleared(name: &'static str, steps: &'static [Step]) -> Order {
    Order {
        name,
        role: "postgres",
        steps,
        keeps_worker: true,
        shows: true,
    }
}

/// An order after which a worker may go.
const fn left(name: &'static str, steps: &'static [Step]) -> Order {
    Order {
        keeps_worker: false,
        ..cleared(name, steps)
    }
}

/// An order whose steps show nothing when one session executes them itself.
const fn silent(order: Order) -> Order {
    Order { shows: false, ..order }
}

const fn alice(order: Order) -> Order {
    Order { role: "alice", ..order }
}

fn run(orders: &[Order]) {
    let warm = cluster("pg_background.worker_idle_timeout = '10min'");
    let fresh = cluster("pg_background.worker_idle_timeout = 0");
    let plain = cluster("pg_background.worker_idle_timeout = 0");
    compare(&warm, &fresh, &plain, orders);
    // A worker that goes must do so without a word in the log; the clusters look for it when they end.
}

const EVERY_SETTING: &str = "SELECT name || '=' || setting || ' (' || source || ') ' || coalesce(reset_val, '') FROM pg_settings
    WHERE name NOT IN ('application_name', 'unix_socket_directories', 'data_directory', 'config_file', 'hba_file', 'ident_file',
                       'pg_background.worker_idle_timeout') ORDER BY name";

/// Gives every setting that can be changed another value.
const CHANGE_EVERY_SETTING: &str = "DO $$
    DECLARE
        s record;
    BEGIN
        FOR s IN SELECT * FROM pg_settings WHERE context IN ('user', 'superuser')
            AND name NOT IN ('role', 'session_authorization', 'transaction_isolation', 'transaction_read_only',
                             'transaction_deferrable', 'is_superuser', 'log_statement_stats')
            AND name NOT LIKE 'debug%' AND name NOT LIKE 'trace%'
        LOOP
            BEGIN
                PERFORM set_config(s.name, CASE
                    WHEN s.vartype = 'bool' THEN CASE s.setting WHEN 'on' THEN 'off' ELSE 'on' END
                    WHEN s.vartype = 'enum' THEN (SELECT v FROM unnest(s.enumvals) v WHERE v <> s.setting ORDER BY v LIMIT 1)
                    WHEN s.vartype IN ('integer', 'real') AND s.setting <> s.min_val THEN s.min_val
                    WHEN s.vartype IN ('integer', 'real') THEN s.max_val
                    ELSE 'C' END, false);
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
    END $$";

#[test]
fn settings() {
    run(&[
        cleared("SET", &[Job("SET work_mem = '1MB'"), Job("SHOW work_mem")]),
        cleared(
            "set_config in a query",
            &[Job("SELECT set_config('work_mem', '1MB', false)"), Job("SHOW work_mem")],
        ),
        cleared(
            "SET of a superuser's setting",
            &[
                Job("SET session_replication_role = replica"),
                Job("SHOW session_replication_role"),
            ],
        ),
        cleared(
            "RESET after the session's value",
            &[
                Session("SET work_mem = '3MB'"),
                Job("RESET work_mem; SHOW work_mem"),
                Job("SHOW work_mem"),
            ],
        ),
        silent(cleared(
            "the session changes its settings",
            &[
                Session("SET work_mem = '3MB'"),
                Job("SHOW work_mem"),
                Session("SET work_mem = '5MB'; SET statement_timeout = '1h'"),
                Job("SELECT current_setting('work_mem') || current_setting('statement_timeout')"),
                Session("RESET work_mem; RESET statement_timeout"),
                Job("SELECT current_setting('work_mem') || current_setting('statement_timeout')"),
            ],
        )),
        silent(left(
            "SET and an error",
            &[Job("SET work_mem = '1MB'; SELECT 1 / 0"), Job("SHOW work_mem")],
        )),
        cleared(
            "SET after COMMIT, then an open block",
            &[
                Job("BEGIN; SET work_mem = '1MB'; COMMIT; BEGIN; SET work_mem = '2MB'"),
                Job("SHOW work_mem"),
            ],
        ),
        silent(cleared(
            "the session's settings of a transaction",
            &[
                Job("SHOW work_mem"),
                Session("BEGIN; SET LOCAL work_mem = '3MB'"),
                Job("SHOW work_mem"),
                Job("RESET work_mem; SHOW work_mem"),
                Session("COMMIT"),
                Job("SHOW work_mem"),
                Session("SET work_mem = '5MB'"),
                Session("BEGIN; SET LOCAL work_mem = '3MB'"),
                Job("SHOW work_mem"),
                Session("ROLLBACK"),
                Job("SHOW work_mem"),
                Job("SET LOCAL work_mem = '7MB'; SHOW work_mem"),
                Job("SHOW work_mem"),
            ],
        )),
        silent(left(
            "a superuser's settings, then a plain role",
            &[
                Session("SET session_replication_role = replica; SET log_statement = 'none'; SET ROLE alice"),
                Job("SHOW session_replication_role"),
                Job("SET session_replication_role = origin"),
                Session("RESET ROLE"),
                Job("SHOW session_replication_role"),
                Job("SET session_replication_role = origin; SHOW session_replication_role"),
                Session("RESET session_replication_role"),
                Job("SHOW session_replication_role"),
            ],
        )),
        silent(cleared(
            "a session with another encoding",
            &[
                Job("DO $$ BEGIN RAISE NOTICE 'é'; END $$"),
                Session("SET client_encoding = 'LATIN1'"),
                Job("SHOW client_encoding"),
                Session("SET client_encoding = 'UTF8'"),
                Job("DO $$ BEGIN RAISE NOTICE 'é'; END $$"),
                Job("SHOW client_encoding"),
            ],
        )),
        left(
            "a custom setting",
            &[
                Job("SET stray.value = 'secret'"),
                Job("SELECT current_setting('stray.value', true)"),
            ],
        ),
        left(
            "a custom setting of a transaction",
            &[
                Job("SELECT set_config('stray.local', 'secret', true)"),
                Job("SELECT current_setting('stray.local', true)"),
            ],
        ),
        silent(left(
            "a custom setting of the session",
            &[
                Session("SET stray.sessions = 'a'"),
                Job("SELECT current_setting('stray.sessions', true)"),
                Session("SET stray.sessions = 'b'"),
                Job("SELECT current_setting('stray.sessions', true)"),
                Job("SET stray.sessions = 'c'"),
                Job("SELECT current_setting('stray.sessions', true)"),
                Job("RESET stray.sessions; SELECT current_setting('stray.sessions', true)"),
                Connect("postgres"),
                Job("SELECT current_setting('stray.sessions', true)"),
            ],
        )),
        cleared(
            "client_encoding",
            &[Job("SET client_encoding = 'LATIN1'"), Job("SHOW client_encoding")],
        ),
        silent(cleared(
            "client_encoding and messages",
            &[
                Job("SET client_encoding = 'LATIN1'; DO $$ BEGIN RAISE NOTICE 'é'; END $$"),
                Job("DO $$ BEGIN RAISE NOTICE 'é'; RAISE 'ü' USING DETAIL = 'ä'; END $$"),
            ],
        )),
        cleared(
            "search_path",
            &[Job("SET search_path = other"), Job("SELECT x FROM shade")],
        ),
        cleared(
            "search_path and a function's plan",
            &[
                Job("SET search_path = other, public; SELECT shaded()"),
                Job("SELECT shaded()"),
            ],
        ),
        cleared(
            "default_transaction_read_only",
            &[
                Job("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE, DEFERRABLE"),
                Job(
                    "SELECT current_setting('default_transaction_read_only') || current_setting('transaction_read_only') || \
                     current_setting('transaction_isolation') || current_setting('transaction_deferrable')",
                ),
            ],
        ),
        cleared(
            "time zone",
            &[
                Job("SET TIME ZONE 'Asia/Tokyo'"),
                Job("SELECT (timestamptz 'epoch')::text"),
            ],
        ),
        cleared(
            "date and interval style",
            &[
                Job("SET datestyle = 'German'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape'"),
                Job("SELECT (timestamptz 'epoch')::text || interval '1 day' || '\\001'::bytea"),
            ],
        ),
        cleared(
            "number of digits",
            &[
                Job("SET extra_float_digits = -10"),
                Job("SELECT (1 / 3.0::float8)::text"),
            ],
        ),
        cleared(
            "client_min_messages",
            &[Job("SET client_min_messages = debug5"), Job("SHOW client_min_messages")],
        ),
        cleared(
            "the application's name",
            &[Job("SET application_name = 'stay'"), Job("SHOW application_name")],
        ),
        cleared(
            "timeouts",
            &[
                Job(
                    "SET statement_timeout = '20ms'; SET lock_timeout = '20ms'; SET idle_session_timeout = '20ms'; \
                     SET idle_in_transaction_session_timeout = '20ms'",
                ),
                Job("SELECT pg_sleep(0.1)::text || current_setting('statement_timeout')"),
            ],
        ),
        silent(left(
            "pg_background.worker_timeout",
            &[
                Session("SET pg_background.worker_timeout = '500ms'"),
                Job("SELECT 'in time'"),
                Session("RESET pg_background.worker_timeout"),
                Job("SELECT pg_sleep(0.7)::text || 'in time'"),
            ],
        )),
        left(
            "temp_buffers, fixed by the first temporary table",
            &[
                Job("CREATE TEMP TABLE t (n int); INSERT INTO t VALUES (1)"),
                Job("SET temp_buffers = 2000; SHOW temp_buffers"),
            ],
        ),
        silent(left(
            "every setting",
            &[Job(EVERY_SETTING), Job(CHANGE_EVERY_SETTING), Job(EVERY_SETTING)],
        )),
        left(
            "every setting, after an error",
            &[Job(CHANGE_EVERY_SETTING), Job("SELECT 1 / 0"), Job(EVERY_SETTING)],
        ),
    ]);
}

#[test]
fn roles() {
    const WHO_AM_I: &str = "SELECT session_user || ' ' || current_user || ' ' || current_setting('role') || ' ' || current_setting('is_superuser')";
    run(&[
        cleared("SET ROLE", &[Job("SET ROLE alice"), Job(WHO_AM_I)]),
        cleared(
            "SET SESSION AUTHORIZATION",
            &[Job("SET SESSION AUTHORIZATION alice"), Job(WHO_AM_I)],
        ),
        alice(cleared(
            "SET ROLE of a plain user",
            &[Job("SET ROLE bob"), Job(WHO_AM_I)],
        )),
        silent(cleared(
            "the session's role",
            &[
                Session("SET ROLE alice"),
                Job(WHO_AM_I),
                Session("SET ROLE bob"),
                Job(WHO_AM_I),
                Job("RESET ROLE"),
                Job(WHO_AM_I),
                Session("RESET ROLE"),
                Job(WHO_AM_I),
            ],
        )),
        silent(left(
            "the session's authorization",
            &[
                Job(WHO_AM_I),
                Session("SET SESSION AUTHORIZATION alice"),
                Job(WHO_AM_I),
                Job("RESET SESSION AUTHORIZATION"),
                Session("RESET SESSION AUTHORIZATION"),
                Job(WHO_AM_I),
            ],
        )),
        silent(alice(cleared(
            "a job of a SECURITY DEFINER function, then the caller's own",
            &[
                Job(WHO_AM_I),
                Session("SELECT run_as_owner('CREATE TABLE of_the_owner (n int)')"),
                Job(WHO_AM_I),
                Job("SELECT n::text FROM of_the_owner"),
                Job("SET ROLE bob; SELECT current_user::text"),
                Job("RESET ROLE; SELECT current_user::text"),
                Session("SELECT run_as_owner('SET ROLE bob')"),
                Job("SET SESSION AUTHORIZATION postgres"),
                Job(WHO_AM_I),
            ],
        ))),
        silent(cleared(
            "a plan that depends on row level security",
            &[
                Job("SELECT seen()::text"),
                Session("SET ROLE alice"),
                Job("SELECT seen()::text"),
                Session("SET ROLE bob"),
                Job("SELECT seen()::text"),
                Job("SELECT seen_as_owner()::text"),
                Session("RESET ROLE"),
                Job("SELECT seen()::text"),
                Session("SET row_security = off; SET ROLE alice"),
                Job("SELECT seen()::text"),
            ],
        )),
        cleared(
            "a plan after SET ROLE in the job",
            &[Job("SET ROLE alice; SELECT seen()::text"), Job("SELECT seen()::text")],
        ),
        silent(alice(cleared(
            "rights that are taken between jobs",
            &[
                Job("SELECT seen()::text"),
                Admin("REVOKE SELECT ON secret FROM alice"),
                Job("SELECT seen()::text"),
                Admin("GRANT SELECT ON secret TO alice"),
                Job("SELECT seen()::text"),
                Job("SET ROLE bob; SELECT current_user::text"),
                Admin("REVOKE bob FROM alice"),
                Job("SET ROLE bob; SELECT current_user::text"),
                Admin("GRANT bob TO alice"),
                Job("SET ROLE bob; SELECT current_user::text"),
            ],
        ))),
    ]);
}

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
                Job("SET force_parallel_mode = on; SET work_mem = '1MB'; SELECT sum(n)::text FROM secret"),
                Job("SELECT sum(n)::text || current_setting('force_parallel_mode') FROM secret"),
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
