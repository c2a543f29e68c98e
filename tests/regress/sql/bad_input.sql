\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- NULL handles
SELECT pg_background_wait(NULL, 1) IS NULL, pg_background_wait(1, NULL) IS NULL, pg_background_wait(NULL, NULL, NULL) IS NULL;
SELECT pg_background_result_info(NULL, 1) IS NULL, pg_background_result_info(1, NULL) IS NULL;
SELECT pg_background_error_info(NULL, 1) IS NULL, pg_background_error_info(1, NULL) IS NULL;
SELECT pg_background_full_sql(NULL, 1) IS NULL, pg_background_full_sql(1, NULL) IS NULL;
SELECT pg_background_get_progress(NULL, NULL) IS NULL, (pg_background_outcome(NULL, NULL)).state IS NULL;
SELECT code FROM error_of('SELECT pg_background_cancel(NULL, 1), pg_background_cancel(1, NULL, NULL)');
SELECT code FROM error_of('SELECT pg_background_detach(NULL, 1), pg_background_detach(1, NULL)');
-- unknown pids, extreme numbers
SELECT pid, cookie, count(*), min(code), max(code), min(message), max(message)
	FROM (VALUES (0, 0), (-1, 1), (2147483647, 9223372036854775807), (-2147483648, -9223372036854775807)) AS handle (pid, cookie),
		unnest(ARRAY['wait(%s, %s)', 'wait(%s, %s, 1)', 'wait(%s, %s, -1)', 'cancel(%s, %s)', 'cancel(%s, %s, 1)', 'detach(%s, %s)', 'result_info(%s, %s)', 'error_info(%s, %s)', 'full_sql(%s, %s)', 'get_progress(%s, %s)', 'result(%s, %s) AS (x int)']) AS call,
		error_of('SELECT * FROM pg_background_' || format(call, pid, cookie))
	GROUP BY pid, cookie ORDER BY pid;
-- another session's process is no handle of this one
SELECT code FROM error_of(format('SELECT pg_background_cancel(%s, 1)', pg_backend_pid()));
-- wrong cookies
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT call, code, message, hint <> ''
	FROM unnest(ARRAY['wait(%s, %s)', 'wait(%s, %s, 1)', 'cancel(%s, %s)', 'cancel(%s, %s, 1)', 'detach(%s, %s)', 'result_info(%s, %s)', 'error_info(%s, %s)', 'full_sql(%s, %s)', 'result(%s, %s) AS (x int)']) AS call,
		error_of('SELECT * FROM pg_background_' || format(call, :job_pid, :job_cookie # 1));
SELECT code FROM error_of(format('SELECT pg_background_wait(%s, 0)', :job_pid));
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (x int);
-- a label of 10,000 characters
SELECT code, message, detail ~ '\m30000\M' AND detail ~ '\m64\M' FROM error_of('SELECT pg_background_launch(''SELECT 1'', 0, repeat(''世'', 10000))');
-- SQL of 100 MB
SELECT * FROM pg_background_launch('SELECT length($x$' || repeat('x', 100 * 1024 * 1024) || '$x$)') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (length int);
-- inside a parallel worker
CREATE TABLE wide AS SELECT generate_series(1, 1000) AS n;
CREATE FUNCTION launch_in_parallel(n int) RETURNS bool LANGUAGE plpgsql PARALLEL SAFE AS $$
BEGIN
	RETURN pg_background_launch('SELECT 1') IS NULL;
END
$$;
-- called force_parallel_mode before version 16
SELECT name AS parallel FROM pg_settings WHERE name IN ('debug_parallel_query', 'force_parallel_mode') \gset
SET :parallel = on;
\set VERBOSITY sqlstate
SELECT count(*) FROM wide WHERE launch_in_parallel(n);
\set VERBOSITY default
RESET :parallel;
SELECT count(*) FROM pg_background_list;
DROP FUNCTION launch_in_parallel(int);
DROP TABLE wide;
-- in a read-only transaction: the job's transaction is its own
CREATE TABLE written (n int, who text DEFAULT current_user);
BEGIN READ ONLY;
SELECT state FROM pg_background_run('INSERT INTO written VALUES (1)');
COMMIT;
SET default_transaction_read_only = on;
SELECT state, sqlstate FROM pg_background_run('INSERT INTO written VALUES (2)');
RESET default_transaction_read_only;
SET default_transaction_isolation = 'serializable';
SELECT * FROM rows_of('SHOW transaction_isolation');
RESET default_transaction_isolation;
-- in an aborted transaction
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
BEGIN;
SELECT 1/0;
SELECT pg_background_launch('SELECT 1');
ROLLBACK;
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (x int);
-- from a job: it may launch jobs, and has a list of its own
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT * FROM rows_of('SELECT count(*)::text FROM pg_background_list');
SELECT * FROM rows_of('SELECT state FROM pg_background_run(''INSERT INTO written VALUES (3)'')');
SELECT * FROM rows_of('SELECT rows_of(''SELECT rows_of(''''SELECT ''''''''deep''''''''::text'''')'')');
SELECT code, message FROM error_of('SELECT rows_of(''SELECT rows_of(''''SELECT 1/0'''')'')');
SELECT pg_background_detach(:job_pid, :job_cookie);
-- a job that a job leaves behind runs to its end
SELECT * FROM rows_of('SELECT (pg_background_launch(''SELECT pg_sleep(0.2); INSERT INTO written VALUES (4)'')).pid > 0; SELECT ''left''::text');
CALL wait_until('EXISTS (SELECT FROM written WHERE n = 4)');
-- from a trigger
CREATE FUNCTION write_apart() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_background_run(format('INSERT INTO written VALUES (%s)', NEW.n + 100));
	RETURN NEW;
END
$$;
CREATE TABLE watched (n int);
CREATE TRIGGER write_apart BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION write_apart();
BEGIN;
INSERT INTO watched VALUES (1), (2);
ROLLBACK;
SELECT n FROM written WHERE n > 100 ORDER BY n;
DROP TABLE watched;
-- from a deferred trigger, at commit
CREATE TABLE watched (n int);
CREATE CONSTRAINT TRIGGER write_apart AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION write_apart();
BEGIN;
INSERT INTO watched VALUES (3);
COMMIT;
SELECT n FROM written WHERE n > 102 ORDER BY n;
DROP TABLE watched;
DROP FUNCTION write_apart();
-- from an event trigger
CREATE FUNCTION write_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_background_run('INSERT INTO written VALUES (200)');
END
$$;
CREATE EVENT TRIGGER write_ddl ON ddl_command_start WHEN TAG IN ('CREATE SEQUENCE') EXECUTE FUNCTION write_ddl();
CREATE SEQUENCE counter;
DROP EVENT TRIGGER write_ddl;
DROP SEQUENCE counter;
SELECT count(*) FROM written WHERE n = 200;
DROP FUNCTION write_ddl();
-- from a SECURITY DEFINER function: the job is its owner's
CREATE ROLE regress_background_owner IN ROLE pgbackground_role;
GRANT INSERT ON written TO regress_background_owner;
CREATE FUNCTION write_as_owner() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$SELECT state FROM public.pg_background_run('INSERT INTO written VALUES (300)')$$;
ALTER FUNCTION write_as_owner() OWNER TO regress_background_owner;
SELECT write_as_owner();
SELECT who FROM written WHERE n = 300;
DROP FUNCTION write_as_owner();
REVOKE INSERT ON written FROM regress_background_owner;
DROP ROLE regress_background_owner;
-- in a security-restricted operation
CREATE FUNCTION harmless(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n';
CREATE FUNCTION escape(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM public.pg_background_launch('INSERT INTO written VALUES (400)');
	RETURN n;
END
$$;
CREATE TABLE indexed AS SELECT 1 AS n;
SELECT code FROM error_of('CREATE INDEX ON indexed (escape(n))');
CREATE MATERIALIZED VIEW stored AS SELECT escape(n) FROM indexed WITH NO DATA;
SELECT code FROM error_of('REFRESH MATERIALIZED VIEW stored');
CREATE FUNCTION escape_by_run(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM public.pg_background_run('INSERT INTO written VALUES (400)');
	RETURN n;
END
$$;
SELECT code FROM error_of('CREATE INDEX ON indexed (escape_by_run(n))');
CREATE INDEX ON indexed (harmless(n));
CREATE OR REPLACE FUNCTION harmless(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN public.escape(n);
END
$$;
SELECT code FROM error_of('ANALYZE indexed');
SELECT count(*) FROM written WHERE n = 400;
DROP MATERIALIZED VIEW stored;
DROP TABLE indexed;
DROP FUNCTION harmless(int), escape(int), escape_by_run(int);
SELECT count(*) FROM pg_background_list;
-- the extension dropped and created again while jobs run
SELECT pg_advisory_lock(1);
SELECT * FROM pg_background_launch('SELECT pg_advisory_xact_lock(1); SELECT ''still here''::text', 0, 'survivor') \gset job_
DROP EXTENSION pg_background;
CREATE EXTENSION pg_background;
SELECT label FROM pg_background_list;
SELECT pg_advisory_unlock(1);
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (x text);
DROP TABLE written;
