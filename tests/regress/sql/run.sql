\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- launch, wait, outcome and detach in one call
CREATE TABLE written (n int);
SELECT pid > 0 AND pid <> pg_backend_pid(), cookie <> 0, state, completed, has_error, row_count, command_tag, sqlstate, error_message, label, launched_at <= clock_timestamp(), timed_out, elapsed_ms BETWEEN 0 AND 60000
	FROM pg_background_run('INSERT INTO written VALUES (1), (2)');
SELECT count(*) FROM written;
SELECT count(*) FROM pg_background_list;
SELECT state, label, timed_out FROM pg_background_run('SELECT 1', 8192, 60000, 'labelled');
SELECT state FROM pg_background_run('SELECT 1', NULL, NULL, NULL);
SELECT elapsed_ms >= 100 FROM pg_background_run('SELECT pg_sleep(0.1)');
-- rows are thrown away, however many
SELECT state, row_count, command_tag FROM pg_background_run('SELECT repeat(''x'', 1000) FROM generate_series(1, 10000)', 4096);
-- a failure is told, not raised
SELECT state, has_error, sqlstate, error_message, timed_out FROM pg_background_run('SELECT 1/0');
SELECT state, has_error, sqlstate, timed_out FROM pg_background_run('SELEC 1');
SELECT state, sqlstate FROM pg_background_run('SELECT pg_terminate_backend(pg_backend_pid()); SELECT pg_sleep(600)');
-- what is wrong with the call itself is raised
SELECT code, message FROM error_of('SELECT pg_background_run(NULL)');
SELECT code, message FROM error_of('SELECT pg_background_run(''SELECT 1'', 268435457)');
SELECT code, message FROM error_of('SELECT pg_background_run(''SELECT 1'', label => repeat(''x'', 65))');
SET pg_background.max_workers = 1;
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset job_
SELECT code, message FROM error_of('SELECT pg_background_run(''SELECT 1'')');
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT pg_background_detach(:job_pid, :job_cookie);
RESET pg_background.max_workers;
-- at the timeout the job is cancelled, and counted as timed out only
SELECT workers_canceled AS canceled, workers_failed AS failed, workers_timed_out AS timed_out FROM pg_background_stats() \gset
SELECT has_error, sqlstate, timed_out, elapsed_ms BETWEEN 50 AND 60000 FROM pg_background_run('INSERT INTO written VALUES (3); SELECT pg_sleep(600)', timeout_ms => 50);
SELECT count(*) FROM written;
SELECT workers_canceled - :canceled, workers_failed - :failed, workers_timed_out - :timed_out FROM pg_background_stats();
SELECT count(*) FROM pg_background_list;
-- over a set
SELECT n, (pg_background_run(format('INSERT INTO written VALUES (%s)', n))).state FROM generate_series(11, 13) AS n;
SELECT count(*) FROM written;
SELECT state FROM pg_background_run_v2('SELECT 1');
SELECT label FROM pg_background_run_v2('SELECT 1', 4096, 60000, 'old');
DROP TABLE written;
