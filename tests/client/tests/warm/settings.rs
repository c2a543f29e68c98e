//! Settings, in every way that a job or its session changes them.

use harness::order::Step::{Connect, Job, Session};

use crate::{cleared, left, run, silent};

/// With the settings of PL/pgSQL, which are known from its first use on.
const EVERY_SETTING: &str = "DO $$ BEGIN END $$;
    SELECT name || '=' || setting || ' (' || source || ') ' || coalesce(reset_val, '') FROM pg_settings
    WHERE name NOT IN ('application_name', 'unix_socket_directories', 'data_directory', 'config_file', 'hba_file', 'ident_file',
                       'hosts_file', 'pg_background.worker_idle_timeout') ORDER BY name";

/// Sets every setting that can be changed to another value.
const CHANGE_EVERY_SETTING: &str = "DO $$
    DECLARE
        s record;
    BEGIN
        FOR s IN SELECT * FROM pg_settings WHERE context IN ('user', 'superuser')
            AND name NOT IN ('role', 'session_authorization', 'transaction_isolation', 'transaction_read_only',
                             'transaction_deferrable', 'is_superuser', 'log_statement_stats', 'exit_on_error')
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
        // A worker that has compiled a function takes no job that changes its state at once: this one comes last.
        left(
            "search_path and a function's plan",
            &[
                Job("SET search_path = other, public; SELECT shaded()"),
                Job("SELECT shaded()"),
            ],
        ),
    ]);
}
