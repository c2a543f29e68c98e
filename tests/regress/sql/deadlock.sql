\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- waiting for a job that waits for this session: after deadlock_timeout the job is the victim
SET deadlock_timeout = '50ms';
CREATE TABLE a (n int);
CREATE TABLE b (n int);
BEGIN;
LOCK TABLE a;
SELECT pg_advisory_xact_lock(1);
SELECT * FROM pg_background_launch('INSERT INTO a VALUES (1)') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state, sqlstate FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT message, detail ~ ('\m' || :job_pid || '\M') AND detail ~ ('\m' || pg_backend_pid() || '\M') FROM pg_background_error_info(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- in each function that waits
SELECT * FROM pg_background_launch('INSERT INTO a VALUES (1)') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie, 60000);
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (tag text)', :job_pid, :job_cookie));
SELECT * FROM pg_background_launch('INSERT INTO a VALUES (1)') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (tag text)', :job_pid, :job_cookie));
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT repeat(''''x'''', 100000), lock FROM (SELECT n, CASE n WHEN 2 THEN pg_advisory_xact_lock(1)::text END AS lock FROM generate_series(1, 2) AS n) AS s'', 4096, col_def => ''x'') AS (x text, lock text)');
SELECT state, sqlstate, timed_out FROM pg_background_run('INSERT INTO a VALUES (1)');
SELECT state, sqlstate, timed_out FROM pg_background_run('INSERT INTO a VALUES (1)', timeout_ms => 60000);
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''INSERT INTO a VALUES (1)'', col_def => ''tag text'') AS (tag text)');
SELECT label, state, sqlstate FROM pg_background_drain(array[
	pg_background_launch('INSERT INTO a VALUES (1)', 0, 'blocked'),
	pg_background_launch('INSERT INTO b VALUES (1)', 0, 'free')]);
SELECT * FROM pg_background_launch('INSERT INTO a VALUES (1)') \gset job_
SELECT pid = :job_pid FROM pg_background_wait_any(array[(:job_pid, :job_cookie)]::pg_background_handle[]);
SELECT sqlstate FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
SELECT code, message FROM error_of('CALL pg_background_do(''INSERT INTO a VALUES (1)'')');
-- a wait that ends before deadlock_timeout
SET LOCAL deadlock_timeout = '60s';
SELECT * FROM pg_background_launch('INSERT INTO a VALUES (1)') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie, 100);
SELECT state FROM pg_background_list;
COMMIT;
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state FROM pg_background_list;
SELECT pg_background_detach(:job_pid, :job_cookie);
-- through another job: the one that is waited for is the victim
SELECT pg_advisory_lock(1);
SELECT * FROM pg_background_launch('LOCK TABLE b; SELECT pg_advisory_xact_lock(1)', 0, 'between') \gset between_
CALL wait_until(format('EXISTS (SELECT FROM pg_locks WHERE pid = %s AND NOT granted)', :between_pid));
SELECT state, sqlstate FROM pg_background_run('INSERT INTO b VALUES (2)');
SELECT state FROM pg_background_list;
SELECT pg_advisory_unlock(1);
SELECT pg_background_wait(:between_pid, :between_cookie);
SELECT state FROM pg_background_list;
SELECT pg_background_detach(:between_pid, :between_cookie);
-- a job blocked by somebody else is no deadlock
SELECT * FROM pg_background_launch('LOCK TABLE b; SELECT pg_sleep(600)', 0, 'holder') \gset holder_
CALL wait_until(format('EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = ''PgSleep'')', :holder_pid));
SELECT * FROM pg_background_launch('INSERT INTO b VALUES (3)', 0, 'blocked') \gset blocked_
SELECT pg_background_wait(:blocked_pid, :blocked_cookie, 500);
SELECT label, state FROM pg_background_list ORDER BY launched_at;
SELECT pg_background_cancel(:holder_pid, :holder_cookie);
SELECT pg_background_wait(:blocked_pid, :blocked_cookie), pg_background_wait(:holder_pid, :holder_cookie);
SELECT label, state FROM pg_background_list ORDER BY launched_at;
SELECT pg_background_detach_all();
-- nor is one that runs for longer than deadlock_timeout
SELECT state FROM pg_background_run('SELECT pg_sleep(0.3)');
-- a deadlock between two jobs is the server's to find
SELECT pg_advisory_lock(2);
SELECT * FROM pg_background_launch('LOCK TABLE a; SELECT pg_advisory_xact_lock(2); LOCK TABLE b', 0, 'a, b') \gset one_
SELECT * FROM pg_background_launch('LOCK TABLE b; SELECT pg_advisory_xact_lock(2); LOCK TABLE a', 0, 'b, a') \gset two_
CALL wait_until('(SELECT count(*) = 2 FROM pg_locks WHERE locktype = ''advisory'' AND NOT granted)');
SELECT pg_advisory_unlock(2);
SELECT count(*), count(*) FILTER (WHERE state = 'stopped'), count(*) FILTER (WHERE sqlstate = '40P01') FROM pg_background_drain(array[(:one_pid, :one_cookie), (:two_pid, :two_cookie)]::pg_background_handle[]);
-- a snapshot is a lock too: this could never end
SELECT state, sqlstate FROM pg_background_run('CREATE INDEX CONCURRENTLY a_n ON a (n)');
DROP INDEX a_n;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT 1;
SELECT * FROM pg_background_launch('CREATE INDEX CONCURRENTLY a_n ON a (n)') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT message, detail ~ ('\m' || :job_pid || '\M') AND detail ~ ('\m' || pg_backend_pid() || '\M'), hint <> '' FROM pg_background_error_info(:job_pid, :job_cookie);
COMMIT;
SELECT pg_background_detach(:job_pid, :job_cookie);
DROP INDEX a_n;
-- the procedure holds no snapshot while it waits
CALL pg_background_do('CREATE INDEX CONCURRENTLY a_n ON a (n)');
SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_n'::regclass;
RESET deadlock_timeout;
DROP TABLE a, b;
