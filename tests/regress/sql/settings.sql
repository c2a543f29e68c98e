\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- known as soon as the library is loaded, also a value given before
SET pg_background.max_workers = 3;
SELECT max_workers FROM pg_background_stats();
RESET pg_background.max_workers;
SHOW pg_background.max_workers;
SHOW pg_background.default_queue_size;
SHOW pg_background.worker_timeout;
SELECT name, vartype, context, short_desc <> '' FROM pg_settings WHERE name IN ('pg_background.max_workers', 'pg_background.default_queue_size', 'pg_background.worker_timeout') ORDER BY name;
-- ranges and units
CREATE FUNCTION try_setting(name text, value text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config(name, value, true);
	RETURN current_setting(name);
EXCEPTION WHEN invalid_parameter_value THEN
	RETURN SQLSTATE;
END
$$;
SELECT value, try_setting('pg_background.max_workers', value) FROM unnest(ARRAY['0', '1', '1000', '1001', 'many']) AS value;
SELECT value, try_setting('pg_background.default_queue_size', value) FROM unnest(ARRAY['3kB', '4kB', '4096B', '1MB', '256MB', '257MB', '-1', '1min']) AS value;
SELECT value, try_setting('pg_background.worker_timeout', value) FROM unnest(ARRAY['0', '1', '250ms', '90s', '2h', '2147483647', '-1', '1kB']) AS value;
DROP FUNCTION try_setting(text, text);
-- any user sets them
CREATE ROLE regress_background_user IN ROLE pgbackground_role;
SET ROLE regress_background_user;
SET pg_background.max_workers = 1;
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset job_
SELECT code, message FROM error_of('SELECT pg_background_launch(''SELECT 1'')');
SET pg_background.max_workers = 2;
SELECT state FROM pg_background_run('SELECT 1');
RESET pg_background.max_workers;
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT pg_background_detach(:job_pid, :job_cookie);
RESET ROLE;
DROP ROLE regress_background_user;
-- worker_timeout: ended as by cancel, counted as timed out
CREATE TABLE written (n int);
SET pg_background.worker_timeout = '200ms';
SELECT * FROM pg_background_launch('INSERT INTO written VALUES (1); SELECT pg_sleep(600); INSERT INTO written VALUES (2)') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state, sqlstate FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT count(*) FROM written;
SELECT pg_background_detach(:job_pid, :job_cookie);
SELECT workers_canceled, workers_failed, workers_timed_out FROM pg_background_stats();
-- a job that ends in time is not disturbed, nor one that runs several statements
SELECT state FROM pg_background_run('SELECT 1; SELECT 2');
-- it counts over all statements of the string, and the job cannot lift it
SELECT state FROM pg_background_run('SET pg_background.worker_timeout = 0; SELECT pg_sleep(0.15); SELECT pg_sleep(0.15); SELECT pg_sleep(600)');
-- the session itself has no limit
SELECT pg_sleep(0.3);
RESET pg_background.worker_timeout;
SELECT workers_launched, workers_completed, workers_canceled, workers_failed, workers_timed_out, workers_active FROM pg_background_stats();
DROP TABLE written;
