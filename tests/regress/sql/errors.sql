\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- every field of a job's error, as the reader gets it
CREATE FUNCTION fields_of(job text) RETURNS TABLE (field text, value text) LANGUAGE plpgsql AS $$
DECLARE
	handle record;
	the_code text; the_message text; the_detail text; the_hint text; the_context text; the_schema text; the_table text; the_column text; the_constraint text; the_type text;
BEGIN
	handle := pg_background_launch(job);
	PERFORM FROM pg_background_result(handle.pid, handle.cookie) AS (line text);
EXCEPTION WHEN OTHERS OR query_canceled THEN
	GET STACKED DIAGNOSTICS
		the_code = RETURNED_SQLSTATE,
		the_message = MESSAGE_TEXT,
		the_detail = PG_EXCEPTION_DETAIL,
		the_hint = PG_EXCEPTION_HINT,
		the_context = PG_EXCEPTION_CONTEXT,
		the_schema = SCHEMA_NAME,
		the_table = TABLE_NAME,
		the_column = COLUMN_NAME,
		the_constraint = CONSTRAINT_NAME,
		the_type = PG_DATATYPE_NAME;
	-- after the job's own context comes that of this function
	the_context := regexp_replace(the_context, '(background worker, pid )' || handle.pid || '\n.*', '\1n');
	RETURN QUERY SELECT * FROM (VALUES ('sqlstate', the_code), ('message', the_message), ('detail', the_detail), ('hint', the_hint), ('context', the_context),
		('schema', the_schema), ('table', the_table), ('column', the_column), ('constraint', the_constraint), ('type', the_type)) AS fields WHERE column2 <> '';
END
$$;
SELECT * FROM fields_of($job$DO $x$BEGIN RAISE EXCEPTION 'boom' USING ERRCODE = 'BG001', DETAIL = 'the detail', HINT = 'the hint', SCHEMA = 's', TABLE = 't', COLUMN = 'c', CONSTRAINT = 'k', DATATYPE = 'd'; END$x$$job$);
CREATE TABLE parent (id int CONSTRAINT parent_key PRIMARY KEY, name text NOT NULL CONSTRAINT name_short CHECK (length(name) < 5));
INSERT INTO parent VALUES (1, 'one');
SELECT * FROM fields_of('INSERT INTO parent VALUES (1, ''uno'')');
SELECT * FROM fields_of('INSERT INTO parent VALUES (2, NULL)');
SELECT * FROM fields_of('INSERT INTO parent VALUES (2, ''too long'')');
CREATE DOMAIN positive AS int CONSTRAINT above_zero CHECK (VALUE > 0);
SELECT * FROM fields_of('SELECT (-1)::positive::text');
SELECT * FROM fields_of('SELECT sum(amount) FROM parent');
SELECT * FROM fields_of('SELECT relkin FROM pg_class');
-- the whole call stack of the job
CREATE FUNCTION inner_one() RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN 1 / 0; END$$;
CREATE FUNCTION outer_one() RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN inner_one(); END$$;
SELECT replace(value, 'PL/pgSQL expression', 'SQL expression') FROM fields_of('SELECT outer_one()::text') WHERE field = 'context';
-- texts of any kind and length
SELECT value FROM fields_of('DO $x$BEGIN RAISE EXCEPTION ''Grüße %%, 世界''; END$x$') WHERE field = 'message';
SELECT field, length(value) FROM fields_of('DO $x$BEGIN RAISE EXCEPTION ''%'', repeat(''ä'', 100000) USING DETAIL = repeat(''b'', 100000), HINT = repeat(''c'', 100000); END$x$') WHERE field IN ('message', 'detail', 'hint');
-- the error after rows that were sent before it
SELECT * FROM pg_background_launch('SELECT 10 / (3 - n) FROM generate_series(1, 5) AS n') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (x int);
-- a position is one in the job's SQL
SELECT * FROM pg_background_launch('SELECT nope') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (x int);
-- reading the error consumes the result
SELECT code FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int)', :job_pid, :job_cookie));
-- the error stops the string; nothing of its transaction commits
SELECT code FROM error_of($$SELECT rows_of('INSERT INTO parent VALUES (3, ''x''); SELECT 1/0; INSERT INTO parent VALUES (4, ''x'')')$$);
SELECT id FROM parent;
-- the same error in error_info, in outcome and in the list
SELECT * FROM pg_background_launch($job$DO $x$BEGIN RAISE EXCEPTION 'boom' USING ERRCODE = 'BG001', DETAIL = 'the detail', HINT = 'the hint', SCHEMA = 's', TABLE = 't', COLUMN = 'c', CONSTRAINT = 'k', DATATYPE = 'd'; END$x$$job$) \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT sqlstate, message, detail, hint, schema_name, table_name, column_name, constraint_name FROM pg_background_error_info(:job_pid, :job_cookie);
SELECT regexp_replace(context, 'pid ' || :job_pid, 'pid n') FROM pg_background_error_info(:job_pid, :job_cookie);
SELECT state, has_error, sqlstate, error_message FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT state, last_error ~ 'boom' FROM pg_background_list;
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (x int);
SELECT * FROM pg_background_launch('DO $x$BEGIN RAISE EXCEPTION ''%'', repeat(''ä'', 100000); END$x$') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT length(message) FROM pg_background_error_info(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- an error without a detail has none
SELECT * FROM pg_background_launch('SELECT 1/0') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT sqlstate, message, detail, hint, schema_name, table_name, column_name, constraint_name FROM pg_background_error_info(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- a worker that goes away
SELECT state, has_error, sqlstate FROM pg_background_run('SELECT pg_terminate_backend(pg_backend_pid()); SELECT pg_sleep(600)');
SELECT code FROM error_of('SELECT rows_of(''SELECT pg_terminate_backend(pg_backend_pid()); SELECT pg_sleep(600)::text'')');
SELECT state, sqlstate FROM pg_background_run('SELECT pg_cancel_backend(pg_backend_pid()); SELECT pg_sleep(600)');
-- the error can be caught, and the session goes on
DO $$
DECLARE
	handle record := pg_background_launch('SELECT 1/0');
BEGIN
	PERFORM FROM pg_background_result(handle.pid, handle.cookie) AS (x int);
EXCEPTION WHEN division_by_zero THEN
	RAISE NOTICE 'caught';
END
$$;
SELECT count(*) FROM pg_background_list;
DROP TABLE parent;
DROP DOMAIN positive;
DROP FUNCTION inner_one(), outer_one(), fields_of(text);
