\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- A run_query that fails, in whatever way, leaves no handle that nobody knows.
\set job 'SELECT n, repeat(''x'', 100) FROM generate_series(1, 10000) AS n'
CREATE VIEW left_behind AS SELECT count(*) FROM pg_background_list;
CREATE FUNCTION raise_at(n int, at int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	IF n = at THEN
		RAISE 'enough';
	END IF;
	RETURN n;
END
$$;
-- 42804: in number, in types, no rows at all; row by row and collected
SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS (n int);
TABLE left_behind;
SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS (n int, t bytea) LIMIT 1;
TABLE left_behind;
SELECT * FROM pg_background_run_query(:'job', timeout_ms => 60000, col_def => 'x') AS (n int8, t text);
TABLE left_behind;
SELECT * FROM pg_background_run_query('SET work_mem = ''1MB''', col_def => 'x') AS (n int, t text);
TABLE left_behind;
SELECT * FROM pg_background_run_query_params('SELECT $1', ROW(1), col_def => 'x') AS (n text);
TABLE left_behind;
SELECT (SELECT max(n) FROM pg_background_run_query(:'job', col_def => 'x') AS (n int));
TABLE left_behind;
CREATE TABLE made AS SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS (n int);
TABLE left_behind;
PREPARE prepared AS SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS (n int);
EXECUTE prepared;
EXECUTE prepared;
TABLE left_behind;
DEALLOCATE prepared;
EXPLAIN SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS (n int) \g /dev/null
TABLE left_behind;
EXPLAIN ANALYZE SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS (n int);
TABLE left_behind;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS (n int);
SAVEPOINT before;
FETCH c;
ROLLBACK TO before;
COMMIT;
TABLE left_behind;
BEGIN;
SAVEPOINT before;
SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS (n int);
ROLLBACK TO before;
COMMIT;
TABLE left_behind;
-- an error of the query around it, in the middle of the rows
SELECT raise_at(n, 2) FROM pg_background_run_query(:'job', col_def => 'x') AS (n int, t text);
CALL wait_until('NOT EXISTS (SELECT FROM pg_background_list)');
SELECT raise_at(n, 2) FROM pg_background_run_query(:'job', timeout_ms => 60000, col_def => 'x') AS (n int, t text);
TABLE left_behind;
SELECT code FROM error_of('SELECT raise_at(n, 2) FROM pg_background_run_query(''SELECT generate_series(1, 100000)'', col_def => ''x'') AS (n int)');
CALL wait_until('NOT EXISTS (SELECT FROM pg_background_list)');
-- an error of a value in the middle
SELECT * FROM pg_background_run_query('SELECT n::text::varchar FROM generate_series(1, 10) AS n', col_def => 'x') AS (n varchar(1)) \g /dev/null
CALL wait_until('NOT EXISTS (SELECT FROM pg_background_list)');
SELECT * FROM pg_background_run_query('SELECT n::text::varchar FROM generate_series(1, 10) AS n', timeout_ms => 60000, col_def => 'x') AS (n varchar(1));
TABLE left_behind;
-- an early end
SELECT n FROM pg_background_run_query(:'job', col_def => 'x') AS (n int, t text) LIMIT 1;
TABLE left_behind;
BEGIN;
DECLARE c CURSOR FOR SELECT n FROM pg_background_run_query(:'job', col_def => 'x') AS (n int, t text);
FETCH c;
CLOSE c;
TABLE left_behind;
DECLARE c CURSOR FOR SELECT n FROM pg_background_run_query(:'job', col_def => 'x') AS (n int, t text);
FETCH c;
COMMIT;
TABLE left_behind;
DO $$
DECLARE
	n int;
BEGIN
	FOR n IN SELECT job.n FROM pg_background_run_query('SELECT generate_series(1, 100000)', col_def => 'x') AS job (n int) LOOP
		EXIT;
	END LOOP;
END
$$;
TABLE left_behind;
EXPLAIN ANALYZE SELECT n FROM pg_background_run_query(:'job', col_def => 'x') AS (n int, t text) LIMIT 1 \g /dev/null
TABLE left_behind;
-- the job's own error, after rows
SELECT count(1 / (n - 5000)) FROM pg_background_run_query('SELECT n, 1 / (n - 5000) FROM generate_series(1, 10000) AS n', col_def => 'x') AS (n int, x int);
TABLE left_behind;
-- a time limit of the statement: the job can be seen to as long as it runs, but its rows are lost
SET statement_timeout = '300ms';
SELECT count(*) FROM pg_background_run_query('SET statement_timeout = 0; SELECT n FROM generate_series(1, 100000) AS n WHERE n < 90000 OR pg_sleep(600) IS NULL', col_def => 'x') AS (n int);
SELECT count(*) FROM (SELECT * FROM pg_background_run_query('SET statement_timeout = 0; SELECT n FROM generate_series(1, 100000) AS n WHERE n < 90000 OR pg_sleep(600) IS NULL', col_def => 'x') AS (n int) OFFSET 0) AS job;
RESET statement_timeout;
SELECT state FROM pg_background_list;
SELECT pg_background_cancel_all();
CALL wait_until('NOT EXISTS (SELECT FROM pg_background_list)');
DROP VIEW left_behind;
DROP FUNCTION raise_at(int, int);
