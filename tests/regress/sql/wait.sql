\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
CREATE TABLE written (n int);
-- what the job wrote is visible when the wait is over
SELECT * FROM pg_background_launch('INSERT INTO written SELECT generate_series(1, 1000)') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT count(*) FROM written;
-- waiting consumes nothing, and can be done again
SELECT pg_background_wait(:job_pid, :job_cookie, 1000), consumed FROM pg_background_list;
SELECT pg_background_wait(:job_pid, :job_cookie, -1);
SELECT pg_background_wait(:job_pid, :job_cookie, 2147483647);
SELECT pg_background_wait(:job_pid, :job_cookie, NULL);
SELECT pg_background_wait_v2(:job_pid, :job_cookie);
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (tag text);
-- a failed job: the wait does not fail
SELECT * FROM pg_background_launch('SELECT 1/0') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state FROM pg_background_list;
SELECT pg_background_detach(:job_pid, :job_cookie);
-- false at the timeout; the job runs on
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset job_
SELECT clock_timestamp() AS start \gset
SELECT pg_background_wait(:job_pid, :job_cookie, 100);
SELECT clock_timestamp() - :'start' >= '100 ms';
SELECT pg_background_wait(:job_pid, :job_cookie, 1);
SELECT state FROM pg_background_list;
-- a cancel of the waiting query interrupts the wait and leaves the job alone
SET statement_timeout = '100ms';
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT pg_background_wait(:job_pid, :job_cookie, 600000);
RESET statement_timeout;
SELECT state FROM pg_background_list;
SELECT pg_background_cancel(:job_pid, :job_cookie);
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- the end is published after the commit: a slow one is waited for
CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION be_slow();
SELECT * FROM pg_background_launch('INSERT INTO written VALUES (-1)') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT count(*) FROM written WHERE n = -1;
SELECT pg_background_detach(:job_pid, :job_cookie);
-- inside one transaction
BEGIN;
SELECT * FROM pg_background_launch('INSERT INTO written VALUES (-2)') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT count(*) FROM written WHERE n = -2;
COMMIT;
SELECT pg_background_detach(:job_pid, :job_cookie);
DROP TABLE written;
DROP FUNCTION be_slow();
