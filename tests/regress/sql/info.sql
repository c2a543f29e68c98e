\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- while the job runs
SELECT now() AS before \gset
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset job_
CALL wait_until(format('EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = ''PgSleep'')', :job_pid));
SELECT completed, has_error, started_at BETWEEN :'before' AND clock_timestamp(), finished_at FROM pg_background_result_info(:job_pid, :job_cookie);
SELECT pg_background_error_info(:job_pid, :job_cookie) IS NULL;
SELECT state, completed, has_error, sqlstate, error_message FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT pg_background_full_sql(:job_pid, :job_cookie);
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT has_error, started_at < finished_at FROM pg_background_result_info(:job_pid, :job_cookie);
SELECT sqlstate, message FROM pg_background_error_info(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- after its end, any number of times
SELECT * FROM pg_background_launch('SELECT n FROM generate_series(1, 42) AS n', 0, 'answer') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT row_count, command_tag, completed, has_error, started_at <= finished_at FROM pg_background_result_info(:job_pid, :job_cookie);
SELECT row_count, command_tag FROM pg_background_result_info_v2(:job_pid, :job_cookie);
SELECT pg_background_error_info(:job_pid, :job_cookie) IS NULL, pg_background_error_info_v2(:job_pid, :job_cookie) IS NULL;
SELECT pg_background_full_sql(:job_pid, :job_cookie), pg_background_full_sql_v2(:job_pid, :job_cookie);
SELECT pid = :job_pid, cookie = :job_cookie, state, consumed, completed, has_error, row_count, command_tag, sqlstate, error_message, label, launched_at <= clock_timestamp() FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT state FROM pg_background_outcome_v2(:job_pid, :job_cookie);
SELECT count(*) FROM pg_background_result(:job_pid, :job_cookie) AS (n int);
-- the handle released
SELECT name, code, message FROM unnest(ARRAY['result_info', 'error_info', 'full_sql']) AS name, error_of(format('SELECT pg_background_%s(%s, %s)', name, :job_pid, :job_cookie));
SELECT pid = :job_pid, cookie = :job_cookie, state, consumed, completed, has_error, row_count, command_tag, sqlstate, error_message, label, launched_at FROM pg_background_outcome(:job_pid, :job_cookie);
-- rows and tag are those of the last statement
CREATE TABLE counted (n int);
SELECT row_count, command_tag FROM pg_background_run('INSERT INTO counted SELECT generate_series(1, 5)');
SELECT row_count, command_tag FROM pg_background_run('SELECT 1; UPDATE counted SET n = 0 WHERE n < 3');
SELECT row_count, command_tag FROM pg_background_run('DELETE FROM counted RETURNING n');
SELECT row_count, command_tag FROM pg_background_run('SELECT 1 WHERE false');
SELECT coalesce(row_count, 0), command_tag FROM pg_background_run('SELECT 1; CREATE INDEX ON counted (n)');
SELECT coalesce(row_count, 0), command_tag FROM pg_background_run('BEGIN; INSERT INTO counted VALUES (1); COMMIT');
SELECT row_count, command_tag FROM pg_background_run('COPY (SELECT generate_series(1, 7)) TO PROGRAM ''cat > /dev/null''');
-- a statement whose own commit fails has not completed
CREATE TABLE counted_later (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);
SELECT coalesce(row_count, 0), command_tag, sqlstate FROM pg_background_run('INSERT INTO counted_later VALUES (1), (1)');
SELECT coalesce(row_count, 0), command_tag, sqlstate FROM pg_background_run('BEGIN; INSERT INTO counted_later VALUES (1), (1); COMMIT; SELECT 1');
SELECT coalesce(row_count, 0), command_tag, sqlstate FROM pg_background_run('SELECT 1; INSERT INTO counted_later VALUES (1), (1)');
DROP TABLE counted, counted_later;
-- the whole SQL
SELECT '/* ' || repeat('世', 100000) || ' */ SELECT 1' AS job \gset
SELECT * FROM pg_background_launch(:'job') \gset job_
SELECT pg_background_full_sql(:job_pid, :job_cookie) = :'job';
SELECT pg_background_detach(:job_pid, :job_cookie);
-- outcome never raises
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT pid = :job_pid, cookie = :job_cookie # 1, state FROM pg_background_outcome(:job_pid, :job_cookie # 1);
SELECT (pg_background_outcome(NULL, :job_cookie)).state, (pg_background_outcome(:job_pid, NULL)).state;
SELECT pid, cookie, state FROM pg_background_outcome(-1, 0);
SELECT pg_background_detach(:job_pid, :job_cookie);
