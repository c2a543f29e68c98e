\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
CREATE VIEW counts AS SELECT workers_launched AS launched, workers_completed AS completed, workers_failed AS failed, workers_canceled AS canceled, workers_timed_out AS timed_out, workers_active AS active FROM pg_background_stats();
TABLE counts;
SELECT max_workers FROM pg_background_stats();
SET pg_background.max_workers = 5;
SELECT max_workers FROM pg_background_stats();
RESET pg_background.max_workers;
-- each job lands in one counter
SELECT * FROM pg_background_launch('SELECT 1') \gset a_
SELECT * FROM pg_background_launch('SELECT 1/0') \gset b_
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset c_
SELECT pg_background_wait(:a_pid, :a_cookie), pg_background_wait(:b_pid, :b_cookie);
TABLE counts;
SELECT pg_background_cancel(:c_pid, :c_cookie, 60000);
TABLE counts;
SELECT avg_execution_ms > 0 FROM pg_background_stats();
-- reading, releasing and cancelling ended jobs change nothing
SELECT * FROM pg_background_result(:a_pid, :a_cookie) AS (x int);
SELECT code FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int)', :b_pid, :b_cookie));
SELECT pg_background_cancel(:c_pid, :c_cookie);
SELECT pg_background_detach(:c_pid, :c_cookie);
TABLE counts;
-- whoever ended them
SELECT * FROM pg_background_submit('SELECT pg_cancel_backend(pg_backend_pid()); SELECT pg_sleep(600)') \gset a_
SELECT * FROM pg_background_submit('SELECT pg_terminate_backend(pg_backend_pid()); SELECT pg_sleep(600)') \gset b_
SELECT pg_background_wait(:a_pid, :a_cookie), pg_background_wait(:b_pid, :b_cookie);
TABLE counts;
-- run, with an end of each kind
SELECT state FROM pg_background_run('SELECT 1');
SELECT state FROM pg_background_run('SELECT 1/0');
SELECT timed_out FROM pg_background_run('SELECT pg_sleep(600)', timeout_ms => 50);
TABLE counts;
-- a job that ran longer than worker_timeout
SET pg_background.worker_timeout = '50ms';
SELECT * FROM pg_background_submit('SELECT pg_sleep(600)') \gset a_
RESET pg_background.worker_timeout;
SELECT pg_background_wait(:a_pid, :a_cookie);
TABLE counts;
-- detached jobs count at their end
SELECT pg_background_detach(pid, cookie) FROM pg_background_launch('SELECT pg_sleep(0.1)');
SELECT pg_background_detach(pid, cookie) FROM pg_background_launch('SELECT 1/0 FROM pg_sleep(0.1)');
CALL wait_until('(SELECT active = 0 FROM counts)');
TABLE counts;
-- a launch that failed is none
SELECT code FROM error_of($$SELECT pg_background_launch('SELECT 1', 268435457)$$);
TABLE counts;
SELECT workers_launched FROM pg_background_stats_v2();
-- for old catalogs
SELECT pg_background_record_timeout();
SELECT timed_out FROM counts;
DROP VIEW counts;
