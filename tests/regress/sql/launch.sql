\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- the handle: the worker's pid and a cookie that is not zero
SELECT * FROM pg_background_launch('SELECT pg_backend_pid()') \gset job_
SELECT :job_pid <> pg_backend_pid(), :job_cookie <> 0;
SELECT worker = :job_pid FROM pg_background_result(:job_pid, :job_cookie) AS (worker int);
-- strict without a label
SELECT pg_background_launch(NULL) IS NULL, pg_background_launch('SELECT 1', NULL) IS NULL;
SELECT pg_background_submit(NULL) IS NULL, pg_background_submit('SELECT 1', NULL) IS NULL;
SELECT count(*) FROM pg_background_list;
-- with a label: the label may be NULL, the SQL may not
SELECT * FROM pg_background_launch('SELECT 1', 0, 'nightly') \gset labelled_
SELECT * FROM pg_background_submit('SELECT 1', 0, NULL) \gset unlabelled_
SELECT label, cookie = :labelled_cookie, cookie = :unlabelled_cookie FROM pg_background_list ORDER BY launched_at;
SELECT pg_background_detach_all();
SELECT code, message FROM error_of($$SELECT pg_background_launch(NULL, 0, 'nightly')$$);
SELECT code, message FROM error_of($$SELECT pg_background_submit(NULL, 0, NULL)$$);
-- queue_size: 0, negative and NULL mean the default, small ones count as 4096
SELECT pg_background_launch('SELECT 1', size, size::text) IS NOT NULL FROM unnest(ARRAY[0, -1, -2147483648]) AS size;
SELECT queue_size, label FROM pg_background_list ORDER BY label::int DESC;
SELECT pg_background_detach_all();
SELECT pg_background_launch('SELECT 1', NULL, 'null') IS NOT NULL;
SELECT pg_background_launch('SELECT 1', size, size::text) IS NOT NULL FROM unnest(ARRAY[1, 4095, 4096, 100000]) AS size;
SELECT queue_size, label FROM pg_background_list ORDER BY label;
SELECT pg_background_detach_all();
SELECT code, message FROM error_of('SELECT pg_background_launch(''SELECT 1'', 268435457)');
SELECT code, message FROM error_of('SELECT pg_background_launch(''SELECT 1'', 2147483647, ''big'')');
SELECT code, message FROM error_of('SELECT pg_background_submit(''SELECT 1'', 268435457)');
SET pg_background.default_queue_size = '1MB';
SELECT pg_background_launch('SELECT 1') IS NOT NULL;
SELECT queue_size FROM pg_background_list;
RESET pg_background.default_queue_size;
SELECT pg_background_detach_all();
-- a label has up to 64 bytes
SELECT pg_background_launch('SELECT 1', 0, repeat('x', 64)) IS NOT NULL;
SELECT pg_background_launch('SELECT 1', 0, repeat('ü', 32)) IS NOT NULL;
SELECT label FROM pg_background_list ORDER BY launched_at;
SELECT pg_background_detach_all();
SELECT code, message, detail ~ '\m65\M' AND detail ~ '\m64\M' FROM error_of($$SELECT pg_background_launch('SELECT 1', 0, repeat('x', 65))$$);
SELECT code, message, detail ~ '\m66\M' AND detail ~ '\m64\M' FROM error_of($$SELECT pg_background_launch('SELECT 1', 0, repeat('ü', 33))$$);
-- an empty label is a label
SELECT pg_background_launch('SELECT 1', 0, '') IS NOT NULL;
SELECT label = '' FROM pg_background_list;
SELECT pg_background_detach_all();
-- only running jobs count against max_workers
CALL wait_until('(SELECT workers_active = 0 FROM pg_background_stats())');
SET pg_background.max_workers = 1;
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset job_
SELECT code, message FROM error_of('SELECT pg_background_launch(''SELECT 1'')');
SELECT code, message FROM error_of('SELECT pg_background_submit(''SELECT 1'')');
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT pg_background_launch('SELECT 1') IS NOT NULL;
RESET pg_background.max_workers;
SELECT pg_background_detach_all();
-- the job has the database, the encoding and the settings of the session
SELECT * FROM rows_of('SELECT current_database()::text') AS name WHERE name = current_database();
SELECT * FROM rows_of('SELECT ''Grüße, 世界''');
SET search_path = pg_catalog, public;
SET custom.word = 'a "quoted" ''word''';
SET work_mem = '3MB';
SET datestyle = 'SQL, DMY';
SET timezone = 'Asia/Kathmandu';
SELECT * FROM rows_of('SELECT concat_ws(''; '', current_setting(''search_path''), current_setting(''custom.word''), current_setting(''work_mem''), ''2024-03-02 12:00+00''::timestamptz)');
RESET search_path;
RESET custom.word;
RESET work_mem;
RESET datestyle;
RESET timezone;
BEGIN;
SET LOCAL work_mem = '4MB';
SELECT * FROM rows_of('SHOW work_mem');
COMMIT;
CREATE FUNCTION show_in_job() RETURNS SETOF text LANGUAGE sql SET work_mem = '5MB' AS $$SELECT * FROM rows_of('SHOW work_mem')$$;
SELECT * FROM show_in_job();
-- the job runs as the current user
CREATE ROLE regress_background_user;
GRANT pgbackground_role TO regress_background_user;
SET ROLE regress_background_user;
SELECT * FROM pg_background_launch('SELECT current_user::text, session_user::text, current_setting(''role''), current_setting(''is_superuser'')') \gset job_
SELECT "current", session = session_user, role, super FROM pg_background_result(:job_pid, :job_cookie) AS ("current" text, session text, role text, super text);
-- in every transaction of the string
SELECT * FROM rows_of('BEGIN; SET LOCAL work_mem = ''1MB''; ROLLBACK; BEGIN; SELECT 1; COMMIT; SELECT current_user::text');
-- and may take back the role, as the session may
SELECT * FROM rows_of('RESET ROLE; SELECT (current_user = session_user)::text');
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT user_id::regrole FROM pg_background_list;
SELECT pg_background_detach(:job_pid, :job_cookie);
RESET ROLE;
CREATE FUNCTION run_as_owner() RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN RETURN QUERY SELECT * FROM public.rows_of('SELECT current_user::text'); END$$;
ALTER FUNCTION run_as_owner() OWNER TO regress_background_user;
SELECT * FROM run_as_owner();
DROP FUNCTION run_as_owner();
REVOKE pgbackground_role FROM regress_background_user;
DROP ROLE regress_background_user;
-- what others see of the worker
SELECT * FROM pg_background_launch('SELECT current_setting(''application_name''), application_name, backend_type, state, query, datname::text, xact_start IS NOT NULL FROM pg_stat_activity WHERE pid = pg_backend_pid()', 0, 'nightly') \gset job_
SELECT setting = 'pg_background:nightly:' || :job_pid, seen = setting, backend_type, state, query, datname = current_database(), has_xact
	FROM pg_background_result(:job_pid, :job_cookie) AS (setting text, seen text, backend_type text, state text, query text, datname text, has_xact bool);
SELECT * FROM pg_background_launch('SHOW application_name') \gset job_
SELECT name = 'pg_background:' || :job_pid FROM pg_background_result(:job_pid, :job_cookie) AS (name text);
-- a launch is not transactional
CREATE TABLE audit (entry text);
BEGIN;
SELECT * FROM pg_background_launch('INSERT INTO audit VALUES (''kept'')') \gset job_
ROLLBACK;
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT * FROM audit;
SELECT line FROM pg_background_result(:job_pid, :job_cookie) AS (line text);
BEGIN;
SAVEPOINT before;
SELECT * FROM pg_background_launch('INSERT INTO audit VALUES (''kept too'')') \gset job_
ROLLBACK TO before;
SELECT line FROM pg_background_result(:job_pid, :job_cookie) AS (line text);
COMMIT;
SELECT * FROM audit;
-- a job does not see what its launcher has not committed
BEGIN;
INSERT INTO audit VALUES ('open');
SELECT * FROM rows_of('SELECT count(*)::text FROM audit');
ROLLBACK;
DROP TABLE audit;
-- no free worker slot
SET pg_background.max_workers = 1000;
SELECT code, message, hint ~ 'max_worker_processes' FROM error_of('SELECT pg_background_submit(''SELECT pg_sleep(600)'') FROM generate_series(1, 1000)');
SELECT pg_background_cancel_all() > 0;
SELECT count(*) FILTER (WHERE pg_background_wait(pid, cookie)) = count(*) FROM pg_background_list;
SELECT DISTINCT state FROM pg_background_list;
SELECT pg_background_detach_all() > 0;
-- the postmaster frees the slots when the processes have gone
CALL wait_until('(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = ''pg_background'' AND state <> ''idle'')');
CALL wait_until('(SELECT code IS NULL FROM error_of(''SELECT pg_background_run(''''SELECT 1'''')''))');
RESET pg_background.max_workers;
-- the deprecated names
SELECT * FROM pg_background_launch_v2('SELECT 1') \gset job_
SELECT * FROM pg_background_result_v2(:job_pid, :job_cookie) AS (x int);
SELECT * FROM pg_background_launch_v2('SELECT 2', 0, 'old') \gset job_
SELECT * FROM pg_background_result_v2(:job_pid, :job_cookie) AS (x int);
SELECT * FROM pg_background_submit_v2('SELECT 1') \gset job_
SELECT pg_background_wait_v2(:job_pid, :job_cookie);
SELECT * FROM pg_background_submit_v2('SELECT 1', 0, 'old') \gset job_
SELECT pg_background_wait_v2(:job_pid, :job_cookie);
SELECT pg_background_detach_all_v2();
DROP FUNCTION show_in_job();
