\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- the first that has ended
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)', 0, 'slow') \gset a_
SELECT * FROM pg_background_launch('SELECT pg_sleep(0.1)', 0, 'quick') \gset b_
SELECT pid = :b_pid, cookie = :b_cookie FROM pg_background_wait_any(array[(:a_pid, :a_cookie), (:b_pid, :b_cookie)]::pg_background_handle[]);
-- it consumes and releases nothing
SELECT label, state, consumed FROM pg_background_list ORDER BY label;
SELECT pid = :b_pid FROM pg_background_wait_any_v2(array[(:b_pid, :b_cookie), (:a_pid, :a_cookie)]::pg_background_handle[], 60000);
-- NULL at the timeout
SELECT clock_timestamp() AS start \gset
SELECT pg_background_wait_any(array[(:a_pid, :a_cookie)]::pg_background_handle[], 100) IS NULL;
SELECT clock_timestamp() - :'start' >= '100 ms';
-- NULL for nothing
SELECT pg_background_wait_any(NULL) IS NULL, pg_background_wait_any('{}') IS NULL, pg_background_wait_any('{}', 60000) IS NULL;
-- NULL handles are skipped
SELECT pg_background_wait_any(array[NULL]::pg_background_handle[]) IS NULL;
SELECT pid = :b_pid FROM pg_background_wait_any(array[NULL, (:b_pid, :b_cookie)]::pg_background_handle[]);
-- failed and canceled jobs have ended
SELECT pg_background_cancel(:a_pid, :a_cookie);
SELECT pid = :a_pid FROM pg_background_wait_any(array[(:a_pid, :a_cookie)]::pg_background_handle[]);
SELECT pg_background_detach_all();
-- an interrupted wait leaves the jobs alone
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset a_
SET statement_timeout = '100ms';
SELECT pg_background_wait_any(array[(:a_pid, :a_cookie)]::pg_background_handle[]);
RESET statement_timeout;
SELECT state FROM pg_background_list;
SELECT pg_background_cancel(:a_pid, :a_cookie, 60000);
SELECT pg_background_detach(:a_pid, :a_cookie);
-- one after the other as they end
CREATE FUNCTION in_order_of_end(jobs pg_background_handle[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	ended pg_background_handle;
	labels text := '';
BEGIN
	LOOP
		ended := pg_background_wait_any(jobs);
		EXIT WHEN ended IS NULL;
		labels := labels || (pg_background_outcome(ended.pid, ended.cookie)).label;
		PERFORM pg_background_detach(ended.pid, ended.cookie);
		jobs := array_remove(jobs, ended);
	END LOOP;
	RETURN labels;
END
$$;
SELECT in_order_of_end(array[
	pg_background_launch('SELECT pg_sleep(0.8)', 0, 'c'),
	pg_background_launch('SELECT 1', 0, 'a'),
	pg_background_launch('SELECT pg_sleep(0.4)', 0, 'b')]);
SELECT count(*) FROM pg_background_list;
DROP FUNCTION in_order_of_end(pg_background_handle[]);
-- or over one array: handles that are unknown or released are skipped, and where no other is left there is nothing to wait for
CREATE FUNCTION each_as_it_ends(jobs pg_background_handle[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	ended pg_background_handle;
	labels text := '';
BEGIN
	LOOP
		ended := pg_background_wait_any(jobs);
		EXIT WHEN ended IS NULL;
		labels := labels || (pg_background_outcome(ended.pid, ended.cookie)).label;
		PERFORM pg_background_detach(ended.pid, ended.cookie);
	END LOOP;
	RETURN labels;
END
$$;
SELECT each_as_it_ends(array[
	pg_background_launch('SELECT pg_sleep(0.8)', 0, 'c'),
	NULL,
	(1, 1)::pg_background_handle,
	pg_background_launch('SELECT 1', 0, 'a'),
	pg_background_launch('SELECT pg_sleep(0.4)', 0, 'b')]);
DROP FUNCTION each_as_it_ends(pg_background_handle[]);
SELECT * FROM pg_background_launch('SELECT 1') \gset a_
SELECT pg_background_wait_any(array[(:a_pid, 1)]::pg_background_handle[]) IS NULL, pg_background_wait_any_v2(array[(:a_pid, 1)]::pg_background_handle[]) IS NULL;
SELECT pg_background_detach(:a_pid, :a_cookie);
SELECT pg_background_wait_any(array[(:a_pid, :a_cookie)]::pg_background_handle[], 0) IS NULL;
