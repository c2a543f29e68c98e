\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
CREATE TABLE trace (step int);
-- a running job: nothing of its transaction commits
SELECT * FROM pg_background_launch('INSERT INTO trace VALUES (1); SELECT pg_sleep(600); INSERT INTO trace VALUES (2)') \gset job_
CALL wait_until(format('EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = ''PgSleep'')', :job_pid));
SELECT pg_background_cancel(:job_pid, :job_cookie);
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state, has_error, sqlstate, error_message FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (tag text)', :job_pid, :job_cookie));
SELECT count(*) FROM trace;
-- what the string committed before stays
SELECT * FROM pg_background_launch('BEGIN; INSERT INTO trace VALUES (3); COMMIT; INSERT INTO trace VALUES (4); SELECT pg_sleep(600)') \gset job_
CALL wait_until(format('EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = ''PgSleep'')', :job_pid));
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT state FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT step FROM trace;
SELECT pg_background_detach(:job_pid, :job_cookie);
-- right after the launch
SELECT pg_background_cancel(pid, cookie, 60000) FROM pg_background_launch('SELECT pg_sleep(600); INSERT INTO trace VALUES (5)');
SELECT state FROM pg_background_list;
SELECT pg_background_detach_all();
SELECT step FROM trace;
-- a grace period ends with the job, however long it is; NULL is none
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset job_
SELECT pg_background_cancel(:job_pid, :job_cookie, 2147483647);
SELECT state FROM pg_background_list;
SELECT pg_background_detach(:job_pid, :job_cookie);
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset job_
SELECT pg_background_cancel(:job_pid, :job_cookie, NULL);
SELECT pg_background_wait(:job_pid, :job_cookie);
-- twice, and after the end
SELECT pg_background_cancel(:job_pid, :job_cookie);
SELECT pg_background_cancel(:job_pid, :job_cookie, -1);
SELECT state FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT pg_background_cancel(:job_pid, :job_cookie, 1000);
SELECT state, sqlstate FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (x int);
-- a job that traps the cancel ends all the same
SELECT * FROM pg_background_launch($job$DO $x$BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END$x$; INSERT INTO trace VALUES (6)$job$) \gset job_
CALL wait_until(format('EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = ''PgSleep'')', :job_pid));
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT state, sqlstate FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
SELECT step FROM trace;
-- a job that waits for a lock
BEGIN;
LOCK TABLE trace;
SELECT * FROM pg_background_launch('INSERT INTO trace VALUES (7)') \gset job_
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT state FROM pg_background_outcome(:job_pid, :job_cookie);
COMMIT;
SELECT pg_background_detach(:job_pid, :job_cookie);
-- from inside: the handle is not the job's own, its process is
SELECT * FROM rows_of('SELECT code FROM error_of(format(''SELECT pg_background_cancel(%s, 1)'', pg_backend_pid()))');
SELECT state, sqlstate FROM pg_background_run('SELECT pg_cancel_backend(pg_backend_pid()); SELECT pg_sleep(600)');
-- an administrator's signals
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset job_
CALL wait_until(format('EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = ''PgSleep'')', :job_pid));
SELECT pg_cancel_backend(:job_pid);
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state, sqlstate FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset job_
CALL wait_until(format('EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = ''PgSleep'')', :job_pid));
SELECT pg_terminate_backend(:job_pid);
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state, sqlstate FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT code FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (tag text)', :job_pid, :job_cookie));
-- a submitted job
SELECT * FROM pg_background_submit('SELECT pg_sleep(600)') \gset job_
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT state FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- cancel_all tells for how many it was asked
SELECT pg_background_cancel_all();
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT count(pg_background_launch('SELECT pg_sleep(600)')) FROM generate_series(1, 2);
SELECT pg_background_cancel_all();
SELECT count(*) FROM pg_background_list WHERE pg_background_wait(pid, cookie);
SELECT state, count(*) FROM pg_background_list GROUP BY state ORDER BY state;
SELECT pg_background_cancel_all_v2();
SELECT pg_background_cancel_v2(pid, cookie) FROM pg_background_list LIMIT 1;
SELECT pg_background_detach_all();
DROP TABLE trace;
