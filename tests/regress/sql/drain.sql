\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- an outcome for each, in the order of the array, whatever the order they end in
SELECT array[
	pg_background_launch('SELECT pg_sleep(0.2)', 0, 'slow'),
	pg_background_launch('SELECT n FROM generate_series(1, 5) AS n', 0, 'quick'),
	pg_background_launch('SELECT 1/0', 0, 'failed')] AS jobs \gset
SELECT label, pid > 0, cookie <> 0, state, consumed, has_error, CASE WHEN NOT has_error THEN row_count || ' ' || command_tag END, sqlstate, error_message, launched_at <= clock_timestamp() FROM pg_background_drain(:'jobs');
SELECT count(*) FROM pg_background_list;
-- those that have not ended by the deadline stay
SELECT array[
	pg_background_launch('SELECT pg_sleep(600)', 0, 'slow'),
	pg_background_launch('SELECT 1', 0, 'quick'),
	pg_background_launch('SELECT pg_sleep(600)', 0, 'slow too')] AS jobs \gset
SELECT label, state, completed FROM pg_background_drain(:'jobs', 1000);
SELECT label, state FROM pg_background_list ORDER BY launched_at;
SELECT pg_background_cancel_all();
-- the ones detached before are unknown now
SELECT label, state, pid > 0, cookie <> 0 FROM pg_background_drain_v2(:'jobs');
SELECT count(*) FROM pg_background_list;
-- NULL handles are skipped, unknown ones give an outcome of NULLs, one handle may come twice
SELECT * FROM pg_background_launch('SELECT 1', 0, 'known') \gset job_
SELECT pid = :job_pid, cookie = :job_cookie, state, label FROM pg_background_drain(array[NULL, (:job_pid, :job_cookie), NULL, (-1, 1), (:job_pid, :job_cookie)]::pg_background_handle[]);
SELECT * FROM pg_background_launch('SELECT 1', 0, 'known') \gset job_
SELECT cookie = :job_cookie, state FROM pg_background_drain(array[(:job_pid, :job_cookie # 1)]::pg_background_handle[]);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- nothing to wait for
SELECT * FROM pg_background_drain('{}');
SELECT * FROM pg_background_drain(NULL);
SELECT * FROM pg_background_drain(array[NULL]::pg_background_handle[]);
-- an array of two dimensions
SELECT array[array[pg_background_launch('SELECT 1', 0, 'a')], array[pg_background_launch('SELECT 1', 0, 'b')]] AS jobs \gset
SELECT label FROM pg_background_drain(:'jobs', NULL);
-- an interrupted drain leaves the jobs alone
SELECT array[pg_background_launch('SELECT pg_sleep(600)')] AS jobs \gset
SET statement_timeout = '100ms';
SELECT * FROM pg_background_drain(:'jobs');
RESET statement_timeout;
SELECT state FROM pg_background_list;
SELECT pg_background_cancel_all();
SELECT state, sqlstate FROM pg_background_drain(:'jobs');
-- what the jobs wrote is visible after it
CREATE TABLE written (n int);
SELECT array_agg(pg_background_launch(format('INSERT INTO written VALUES (%s)', n))) AS jobs FROM generate_series(1, 4) AS n \gset
SELECT count(*) FROM pg_background_drain(:'jobs') WHERE state = 'stopped';
SELECT count(*) FROM written;
DROP TABLE written;
