\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
CREATE TABLE written (n int);
-- the handle is forgotten, the job runs to its end
SELECT * FROM pg_background_launch('SELECT pg_sleep(0.1); INSERT INTO written VALUES (1)') \gset job_
SELECT pg_background_detach(:job_pid, :job_cookie);
SELECT count(*) FROM pg_background_list;
SELECT code, message FROM error_of(format('SELECT pg_background_wait(%s, %s)', :job_pid, :job_cookie));
SELECT code, message FROM error_of(format('SELECT pg_background_detach(%s, %s)', :job_pid, :job_cookie));
CALL wait_until('EXISTS (SELECT FROM written WHERE n = 1)');
-- a job with a result that nobody will read ends too
SELECT pg_background_detach(pid, cookie) FROM pg_background_launch('INSERT INTO written SELECT generate_series(1001, 21000) RETURNING repeat(''x'', 100)', 4096);
CALL wait_until('(SELECT count(*) = 20000 FROM written WHERE n > 1000)');
-- an ended job
SELECT * FROM pg_background_launch('INSERT INTO written VALUES (2)') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
SELECT count(*) FROM pg_background_list;
-- in a transaction that rolls back: not undone
SELECT * FROM pg_background_launch('INSERT INTO written VALUES (3)') \gset job_
BEGIN;
SELECT pg_background_detach(:job_pid, :job_cookie);
ROLLBACK;
SELECT count(*) FROM pg_background_list;
CALL wait_until('EXISTS (SELECT FROM written WHERE n = 3)');
-- all, and those that have ended
SELECT pg_background_detach_all(), pg_background_purge();
SELECT * FROM pg_background_launch('SELECT 1') \gset a_
SELECT * FROM pg_background_launch('SELECT 1/0') \gset b_
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)', 0, 'sleeper') \gset c_
SELECT pg_background_wait(:a_pid, :a_cookie), pg_background_wait(:b_pid, :b_cookie);
SELECT pg_background_purge();
SELECT label FROM pg_background_list;
SELECT pg_background_purge_v2();
SELECT pg_background_detach_all();
SELECT count(*) FROM pg_background_list;
CALL wait_until(format('EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND query = ''SELECT pg_sleep(600)'')', :c_pid));
SELECT pg_terminate_backend(:c_pid);
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT pg_background_detach_v2(:job_pid, :job_cookie);
SELECT pg_background_detach_all_v2();
DROP TABLE written;
