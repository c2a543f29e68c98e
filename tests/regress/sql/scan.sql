\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- Where a query runs forward to its end, rows go from the job into the executor one by one; elsewhere they are collected first.
-- A query gives the same either way.
CREATE FUNCTION plan_of(query text, options text DEFAULT 'COSTS OFF') RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE format('EXPLAIN (%s) %s', options, query) LOOP
		RETURN NEXT replace(line, '.00', '');
	END LOOP;
END
$$;
CREATE FUNCTION node_of(query text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg((regexp_match(line, '(Custom|Function) Scan'))[1], ' '), 'none') FROM plan_of(query) AS line
$$;
CREATE TABLE seen (a int, b text);
CREATE TYPE number AS (n int, t text);
-- the planner knows the functions when the library is loaded
SELECT pg_background_detach_all();
\set rows 'pg_background_run_query(''SELECT n, repeat(chr(64 + n % 26), n), CASE WHEN n % 3 > 0 THEN n / 2.0 END FROM generate_series(1, 2000) AS n'', col_def => ''x'') AS r (a int, b text, c numeric)'
-- which way
SELECT query, node_of(query) FROM unnest(ARRAY[
	'SELECT * FROM pg_background_result(1, 2) AS (a int)',
	'SELECT * FROM pg_background_result_v2(1, 2) AS (a int)',
	'SELECT * FROM pg_background_run_query(''x'') AS (a int)',
	'SELECT * FROM pg_background_run_query_v2(''x'') AS (a int)',
	'SELECT * FROM pg_background_run_query_params(''x'', NULL) AS (a int)',
	'SELECT count(*) FROM (SELECT a FROM pg_background_result(1, 2) AS (a int) WHERE a > 1) AS s',
	'INSERT INTO seen SELECT * FROM pg_background_result(1, 2) AS (a int, b text)',
	'SELECT r FROM pg_background_result(1, 2) AS r (a int)',
	'SELECT * FROM pg_background_result(1, 2) AS r (a int) WHERE r IS NOT NULL',
	'SELECT * FROM (SELECT a FROM pg_background_result(1, 2) AS (a int) OFFSET 0) AS s',
	'SELECT * FROM ROWS FROM (pg_background_result(1, 2) AS (a int)) WITH ORDINALITY',
	'SELECT * FROM ROWS FROM (pg_background_result(1, 2) AS (a int), generate_series(1, 2))',
	'SELECT * FROM generate_series(1, 2) AS g, pg_background_result(g, 2) AS (a int)',
	'SELECT (SELECT a FROM pg_background_result(1, 2) AS (a int))',
	'UPDATE seen SET b = r.b FROM pg_background_result(1, 2) AS r (a int, b text) WHERE r.a = seen.a',
	'SELECT seen.* FROM seen JOIN pg_background_result(1, 2) AS r (a int) USING (a) FOR UPDATE OF seen',
	'SELECT * FROM pg_background_list() AS (a int, b int8, c timestamptz, d oid, e int, f text, g text, h text, i bool)'
]) AS query;
-- all of it, and by columns, conditions and orders, against the collected rows
SELECT count(*), sum(a), md5(string_agg(b, '' ORDER BY a)), sum(c), count(c) FROM :rows;
SELECT count(*), sum(a), md5(string_agg(b, '' ORDER BY a)), sum(c), count(c) FROM (SELECT * FROM :rows OFFSET 0) AS s;
SELECT count(*) FROM :rows;
SELECT c, a FROM :rows WHERE b LIKE 'C%' AND a < 100 ORDER BY b DESC;
SELECT c, a FROM (SELECT * FROM :rows OFFSET 0) AS r WHERE b LIKE 'C%' AND a < 100 ORDER BY b DESC;
SELECT a % 4, count(*), max(length(b)) FROM :rows GROUP BY 1 ORDER BY 1;
SELECT DISTINCT left(b, 1) FROM :rows WHERE a <= 60 ORDER BY 1 LIMIT 3;
SELECT sum(a) OVER (ORDER BY a ROWS 2 PRECEDING), b FROM :rows LIMIT 3;
SELECT generate_series(1, 2), b FROM :rows LIMIT 3;
SELECT r FROM :rows LIMIT 2;
SELECT row_to_json(r) FROM :rows WHERE r.a < 3;
-- anonymous records in the rows, and whole rows of composites
SELECT (b).n, a = ROW(1, 'x'::text) FROM pg_background_run_query('SELECT ROW(1, ''x''::text), (n, ''t'')::number FROM generate_series(1, 2) AS n', col_def => 'x') AS (a record, b number);
-- joins, on either side of them
SET enable_nestloop = off; SET enable_mergejoin = off;
SELECT count(*), sum(length(b)) FROM :rows JOIN generate_series(1, 100) AS g ON g = a;
SET enable_hashjoin = off; SET enable_mergejoin = on;
SELECT count(*), sum(length(b)) FROM :rows JOIN generate_series(1, 100) AS g ON g = a;
SELECT count(*), sum(length(r.b)) FROM :rows JOIN pg_background_run_query('SELECT n FROM generate_series(1, 500) AS n', col_def => 'x') AS s (a int) ON r.a = s.a;
SET enable_mergejoin = off; SET enable_nestloop = on;
SET enable_material = off;
SELECT count(*), sum(length(b)) FROM :rows JOIN generate_series(1, 3) AS g ON g = a % 7;
SELECT count(*), sum(length(b)) FROM generate_series(1, 3) AS g LEFT JOIN :rows ON g = a % 7;
-- below the inner side of a nested loop rows are asked for again
INSERT INTO seen SELECT n % 50, 'x' FROM generate_series(1, 1000) AS n;
CREATE INDEX ON seen (a);
ANALYZE seen;
SELECT sum(found), count(*) FROM generate_series(1, 3) AS g JOIN LATERAL (SELECT count(*) AS found FROM :rows JOIN seen ON seen.a = r.a WHERE seen.a > g) AS s ON true;
RESET enable_nestloop; RESET enable_mergejoin; RESET enable_hashjoin; RESET enable_material;
TRUNCATE seen;
-- several at once
SELECT (SELECT sum(x) FROM pg_background_run_query('SELECT 1', col_def => 'x') AS (x int)), count(*) FROM :rows WHERE b <> '';
SELECT sum(x) FROM (SELECT a AS x FROM :rows UNION ALL SELECT -a FROM :rows) AS s;
WITH q AS MATERIALIZED (SELECT * FROM :rows) SELECT count(*) FROM q AS x JOIN q AS y USING (a);
-- into a table, and out by COPY
INSERT INTO seen SELECT a, b FROM :rows WHERE a < 4 RETURNING a;
CREATE TABLE made AS SELECT * FROM :rows;
SELECT count(*), sum(a) FROM made;
COPY (SELECT a FROM pg_background_run_query('SELECT generate_series(1, 3)', col_def => 'x') AS (a int)) TO STDOUT;
-- views and functions of SQL and PL/pgSQL around it
CREATE VIEW behind AS SELECT a, b FROM :rows;
SELECT node_of('SELECT * FROM behind'), count(*), sum(a) FROM behind;
CREATE FUNCTION inlined() RETURNS SETOF int LANGUAGE sql STABLE AS $$ SELECT a FROM pg_background_run_query('SELECT generate_series(1, 3)', col_def => 'x') AS (a int) $$;
SELECT * FROM inlined();
CREATE FUNCTION lazy() RETURNS int LANGUAGE sql AS $$ SELECT a FROM pg_background_run_query('SELECT generate_series(1, 3000)', col_def => 'x') AS (a int) $$;
SELECT lazy(), lazy();
DO $$
DECLARE
	r record;
	n int := 0;
	total bigint := 0;
BEGIN
	FOR r IN SELECT a FROM pg_background_run_query('SELECT generate_series(1, 300)', col_def => 'x') AS (a int) LOOP
		total := total + r.a;
		PERFORM FROM pg_background_run_query('SELECT 1', col_def => 'x') AS (a int);
		EXIT WHEN r.a = 200;
	END LOOP;
	SELECT count(*) INTO n FROM pg_background_run_query('SELECT generate_series(1, 300)', col_def => 'x') AS (a int);
	RAISE NOTICE '% %', total, n;
END $$;
-- cursors of all kinds
BEGIN;
DECLARE simple CURSOR FOR SELECT a FROM :rows;
FETCH 2 FROM simple; MOVE 1000 IN simple; FETCH simple; FETCH PRIOR FROM simple; FETCH FIRST FROM simple; FETCH LAST FROM simple;
DECLARE forward NO SCROLL CURSOR FOR SELECT a, b FROM :rows;
FETCH 2 FROM forward; SELECT count(*) FROM :rows; FETCH 2 FROM forward;
MOVE ALL IN forward; FETCH forward;
DECLARE whole NO SCROLL CURSOR FOR SELECT a FROM :rows WHERE a > 1998;
FETCH ALL FROM whole; FETCH whole;
DECLARE sorted CURSOR FOR SELECT a FROM :rows ORDER BY a DESC;
FETCH 2 FROM sorted; FETCH LAST FROM sorted; FETCH PRIOR FROM sorted;
DECLARE held NO SCROLL CURSOR WITH HOLD FOR SELECT a FROM :rows;
FETCH 2 FROM held;
DECLARE late NO SCROLL CURSOR WITH HOLD FOR SELECT a FROM :rows;
COMMIT;
FETCH 1 FROM held; FETCH 1 FROM late;
CLOSE ALL;
-- prepared: a plan that is kept is planned anew when the functions are
PREPARE again (int) AS SELECT count(*), sum(a) FROM pg_background_run_query('SELECT generate_series(1, ' || $1 || ')', col_def => 'x') AS (a int);
SET plan_cache_mode = force_generic_plan;
EXECUTE again (10); EXECUTE again (20);
SET client_min_messages = warning;
EXPLAIN (COSTS OFF) EXECUTE again (30);
ALTER FUNCTION pg_background_run_query SET work_mem = '1MB';
EXPLAIN (COSTS OFF) EXECUTE again (30);
EXECUTE again (30);
ALTER FUNCTION pg_background_run_query RESET ALL;
EXPLAIN (COSTS OFF) EXECUTE again (30);
RESET plan_cache_mode;
RESET client_min_messages;
-- who may not call it is told so before anything runs
CREATE ROLE regress_scan_nobody;
SET ROLE regress_scan_nobody;
EXPLAIN (COSTS OFF) SELECT * FROM pg_background_result(1, 2) AS (a int);
RESET ROLE;
-- EXPLAIN reads nothing, EXPLAIN ANALYZE all
\set result 'pg_background_result(:job_pid, :job_cookie)'
SELECT * FROM pg_background_launch('SELECT n, ''x'' FROM generate_series(1, 1000) AS n') \gset job_
SELECT plan_of(format('SELECT a FROM pg_background_result(%s, %s) AS (a int, b text) WHERE a > 500', 1, 2));
SELECT count(*) > 0 FROM plan_of(format('SELECT a FROM pg_background_result(%s, %s) AS (a int, b text)', :job_pid, :job_cookie));
SELECT plan_of(format('SELECT count(a) FROM pg_background_result(%s, %s) AS (a int, b text) WHERE a > 500', :job_pid, :job_cookie), 'ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF');
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (a int, b text)', :job_pid, :job_cookie));
-- a scan that is never begun does not call the function
SELECT * FROM pg_background_launch('SELECT 1 / 0') \gset job_
SELECT a FROM :result AS (a int) LIMIT 0;
SELECT a FROM :result AS (a int) WHERE false;
-- the job's error is the statement's, however few rows were wanted
SELECT code, message FROM error_of(format('SELECT a FROM pg_background_result(%s, %s) AS (a int) LIMIT 1', :job_pid, :job_cookie));
SELECT code, message FROM error_of($$SELECT a FROM pg_background_run_query('SELECT 1 / (n - 50000) FROM generate_series(1, 100000) AS n', col_def => 'x') AS (a int) LIMIT 1$$);
SELECT code, message FROM error_of($$SELECT EXISTS (SELECT FROM pg_background_run_query('SELECT 1 / (n - 50000) FROM generate_series(1, 100000) AS n', col_def => 'x') AS (a int))$$);
-- the wrong columns are found at once, and take nothing away
SELECT * FROM pg_background_launch('SELECT 1, ''one''::text') \gset job_
SELECT a FROM :result AS (a int);
SELECT a FROM :result AS (a int, b int);
SELECT a FROM :result AS (a int, b text);
SELECT code, message FROM error_of(format('SELECT a FROM pg_background_result(%s, %s) AS (a int, b text)', :job_pid, :job_cookie));
SELECT * FROM pg_background_launch('CREATE TABLE nothing ()') \gset job_
SELECT a FROM :result AS (a int);
SELECT a FROM :result AS (a text);
SELECT a FROM pg_background_run_query('SELECT 1') AS (a int);
SELECT a FROM pg_background_result(NULL, 1) AS (a int);
-- messages come while rows do
SELECT count(a) FROM pg_background_run_query($$DO 'BEGIN RAISE NOTICE ''first''; END'; SELECT 1$$, col_def => 'x') AS (a int);
-- while rows come, the handle is as good as released
SELECT * FROM pg_background_launch('SELECT n FROM generate_series(1, 100000) AS n') \gset job_
SELECT count(*), min(e.code), max(e.code), min(e.message) FROM :result AS (a int), LATERAL (SELECT * FROM error_of(format(
	CASE a % 7 WHEN 0 THEN 'SELECT pg_background_wait(%1$s, %2$s)' WHEN 1 THEN 'SELECT pg_background_detach(%1$s, %2$s)'
		WHEN 2 THEN 'SELECT pg_background_cancel(%1$s, %2$s)' WHEN 3 THEN 'SELECT * FROM pg_background_result(%1$s, %2$s) AS (a int)'
		WHEN 4 THEN 'SELECT pg_background_result_info(%1$s, %2$s)' WHEN 5 THEN 'SELECT pg_background_full_sql(%1$s, %2$s)'
		ELSE 'SELECT * FROM pg_background_launch(NULL, 0, ''x'')' END, :job_pid, :job_cookie)) WHERE a % 1000 < 7) AS e WHERE e.code <> '22004';
SELECT pg_background_detach_all();
-- the job has ended: so is it after an error of the query in the middle of them
SELECT * FROM pg_background_launch('SELECT n FROM generate_series(1, 100000) AS n') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT code, message FROM error_of(format('SELECT count(1 / (a - 70000)) FROM pg_background_result(%s, %s) AS (a int)', :job_pid, :job_cookie));
SELECT code, message FROM error_of(format('SELECT a FROM pg_background_result(%s, %s) AS (a int)', :job_pid, :job_cookie));
-- who looks at a row that the job has written sees what the job did
CREATE TABLE effects (n int);
CREATE FUNCTION is_there(wanted int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN EXISTS (SELECT FROM effects WHERE n = wanted); END $$;
SELECT count(*), bool_and(is_there(a)) FROM pg_background_run_query('INSERT INTO effects SELECT generate_series(1, 3000) RETURNING n', col_def => 'x') AS (a int);
CREATE FUNCTION noted(wanted int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO effects VALUES (wanted); RETURN wanted; END $$;
CREATE INDEX ON effects (n);
SELECT count(*), bool_and(is_there(a)) FILTER (WHERE a > 10000) FROM pg_background_run_query('SELECT CASE WHEN n < 10000 THEN n ELSE noted(n) END FROM generate_series(1, 12000) AS n', col_def => 'x') AS (a int);
-- a job that the query waits for in the middle of its rows ends all the same
SELECT count(*), count(pg_advisory_xact_lock(-1)) FROM pg_background_run_query('SELECT n, pg_advisory_xact_lock(-1) IS NULL FROM generate_series(1, 50000) AS n', 4096, col_def => 'x') AS (a int, b bool);
DROP VIEW behind;
DROP TABLE seen, made, effects;
DROP FUNCTION plan_of, node_of, inlined, lazy, noted, is_there;
DROP TYPE number;
DROP ROLE regress_scan_nobody;
