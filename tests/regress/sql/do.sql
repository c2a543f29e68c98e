\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- runs a job, waits for it, leaves no handle
CREATE TABLE written (n int);
CALL pg_background_do('INSERT INTO written VALUES (1)');
SELECT n FROM written;
SELECT count(*) FROM pg_background_list;
CALL pg_background_do('SELECT n FROM generate_series(1, 100000) AS n');
CALL pg_background_do('SELECT 1', 60000, 'labelled');
CALL pg_background_do('SELECT 1', NULL, NULL);
-- its messages
CALL pg_background_do('DROP TABLE IF EXISTS no_such_table');
CALL pg_background_do('DO $x$BEGIN RAISE NOTICE ''%'', current_setting(''application_name'') ~ ''^pg_background:labelled:\d+$''; END$x$', label => 'labelled');
SET client_min_messages = warning;
CALL pg_background_do('DROP TABLE IF EXISTS no_such_table');
RESET client_min_messages;
-- its error
CALL pg_background_do('INSERT INTO written VALUES (2); SELECT 1/0');
CALL pg_background_do('DO $x$BEGIN RAISE EXCEPTION ''boom'' USING ERRCODE = ''BG001'', DETAIL = ''the detail'', HINT = ''the hint''; END$x$');
SELECT code FROM error_of('CALL pg_background_do(''SELECT pg_terminate_backend(pg_backend_pid()); SELECT pg_sleep(600)'')');
SELECT code, message FROM error_of('CALL pg_background_do(NULL)');
SELECT code, message FROM error_of('CALL pg_background_do(''SELECT 1'', label => repeat(''x'', 65))');
SELECT n FROM written;
-- a timeout cancels the job
SELECT workers_timed_out AS timed_out FROM pg_background_stats() \gset
SELECT code FROM error_of('CALL pg_background_do(''INSERT INTO written VALUES (3); SELECT pg_sleep(600)'', 50)');
SELECT workers_timed_out - :timed_out FROM pg_background_stats();
SELECT n FROM written;
SELECT count(*) FROM pg_background_list;
-- what waits for every older snapshot
CALL pg_background_do('CREATE INDEX CONCURRENTLY written_n ON written (n)');
CALL pg_background_do('REINDEX TABLE CONCURRENTLY written');
CALL pg_background_do('DROP INDEX CONCURRENTLY written_n');
CALL pg_background_do('VACUUM written');
-- in a transaction block, and in another procedure
BEGIN;
CALL pg_background_do('INSERT INTO written VALUES (4)');
SELECT n FROM written;
ROLLBACK;
SELECT n FROM written;
CREATE PROCEDURE do_twice(job text) LANGUAGE plpgsql AS $$
BEGIN
	CALL pg_background_do(job);
	COMMIT;
	CALL pg_background_do(job);
END
$$;
CALL do_twice('INSERT INTO written VALUES (5)');
SELECT n FROM written;
DROP PROCEDURE do_twice(text);
DROP TABLE written;
