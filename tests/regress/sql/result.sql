\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
\set result 'pg_background_result(:job_pid, :job_cookie)'
-- rows are typed
SELECT * FROM pg_background_launch('SELECT 1, ''one''::text, 1.50::numeric, true, ''\x00ff''::bytea, ''2024-02-29''::date, ''1 day 02:00''::interval, ''{"a": 1}''::jsonb, ''a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11''::uuid, ''x''::"char", ''y''::name') \gset job_
SELECT * FROM :result AS (a int, b text, c numeric, d bool, e bytea, f date, g interval, h jsonb, i uuid, j "char", k name);
-- NULLs
SELECT * FROM pg_background_launch('SELECT NULL::int, ''''::text, NULL::text, NULL::int[]') \gset job_
SELECT * FROM :result AS (a int, b text, c text, d int[]);
-- values of every size and alignment between NULLs, byte by byte those of the same query run here
\set query 'SELECT n::int4, CASE WHEN n % 2 > 0 THEN n::int2 END, CASE WHEN n % 3 > 0 THEN (n % 100)::text::"char" END, repeat(''s'', n), CASE WHEN n % 5 > 0 THEN n::int8 END, n % 4 > 0, CASE WHEN n % 7 > 0 THEN point(n, -n) END, decode(repeat(''ab'', n / 2), ''hex''), CASE WHEN n % 3 > 0 THEN ''12:00:00+01''::timetz END, CASE WHEN n % 2 > 0 THEN ARRAY[n::int2] END, n::text::name, ''08:00:2b:01:02:03''::macaddr, n::text::char(5), (n || '' '' || n)::oidvector, CASE WHEN n % 11 > 0 THEN n / 3.0 END, n::float4, repeat(''c'', n * 100) FROM generate_series(0, 300) AS n'
\set columns 'n int4, b int2, c "char", d text, e int8, f bool, g point, h bytea, i timetz, j int2[], k name, l macaddr, m char(5), o oidvector, p numeric, q float4, r text'
SELECT * FROM pg_background_launch(:'query') \gset job_
SELECT count(*), count(*) FILTER (WHERE there *= here) AS same
	FROM :result AS there (:columns) JOIN (:query) AS here (n, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r) USING (n);
-- arrays
SELECT * FROM pg_background_launch('SELECT ARRAY[1, NULL, 3], ARRAY[[''a'', ''b''], [''c'', ''d'']], ''{}''::numeric[]') \gset job_
SELECT * FROM :result AS (a int[], b text[], c numeric[]);
-- enums, domains, composites and arrays of them
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (n int, t text);
SELECT * FROM pg_background_launch('SELECT ''happy''::mood, 7::positive, (1, ''one'')::pair, ARRAY[(2, ''two'')::pair, NULL], ARRAY[''sad'', ''ok'']::mood[]') \gset job_
SELECT a > 'ok', b, (c).t, d[1].n, d, e FROM :result AS (a mood, b positive, c pair, d pair[], e mood[]);
-- anonymous records, alone and inside
SELECT * FROM pg_background_launch('SELECT ROW(1, ''one''::text, NULL), ARRAY[ROW(1, 2.5), ROW(3, 4.5)], ROW(ROW(''deep''::text))') \gset job_
SELECT * FROM :result AS (a record, b record[], c record);
SELECT * FROM pg_background_launch('SELECT ROW(n, repeat(''x'', n)) FROM generate_series(1, 3) AS n') \gset job_
SELECT r = ROW(2, 'xx'::text), row_to_json(r) FROM :result AS (r record);
-- record types that differ from row to row
SELECT * FROM pg_background_launch('SELECT CASE n WHEN 1 THEN ROW(1) ELSE ROW(''two''::text, 2) END FROM generate_series(1, 2) AS n') \gset job_
SELECT * FROM :result AS (r record);
-- ranges and multiranges
SELECT * FROM pg_background_launch('SELECT ''[1,5)''::int4range, ''{[1,3),[5,8)}''::int4multirange, ''[2024-01-01,)''::daterange') \gset job_
SELECT * FROM :result AS (a int4range, b int4multirange, c daterange);
-- toasted values, alone, in a composite and in an array, still there when the table is not
CREATE TABLE toasted (id int, plain text, packed text, list text[]);
ALTER TABLE toasted ALTER plain SET STORAGE EXTERNAL;
INSERT INTO toasted SELECT 1, string_agg(md5(n::text), ''), repeat('x', 1000000), ARRAY[repeat('y', 100000)] FROM generate_series(1, 5000) AS n;
SELECT pg_relation_size(reltoastrelid) > 0 FROM pg_class WHERE relname = 'toasted';
SELECT md5(plain) AS sum FROM toasted \gset
SELECT * FROM pg_background_launch('SELECT plain, packed, list, ROW(plain), ARRAY[plain] FROM toasted') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
DROP TABLE toasted;
SELECT md5(a) = :'sum', length(b), length(c[1]), length(d::text), md5(e[1]) = :'sum' FROM :result AS (a text, b text, c text[], d record, e text[]);
-- no rows
SELECT * FROM pg_background_launch('SELECT 1 WHERE false') \gset job_
SELECT * FROM :result AS (x int);
-- no columns: no column definition list can fit
SELECT * FROM pg_background_launch('SELECT FROM generate_series(1, 3)') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int)', :job_pid, :job_cookie));
SELECT pg_background_detach_all() IS NOT NULL;
SELECT row_count, command_tag, sqlstate FROM pg_background_run('SELECT FROM generate_series(1, 3)');
-- 1,600 columns
SELECT 'SELECT ' || string_agg(n::text, ', ') AS job, string_agg('c' || n || ' int', ', ') AS columns FROM generate_series(1, 1600) AS n \gset
SELECT * FROM pg_background_launch(:'job') \gset job_
SELECT c1, c800, c1600 FROM :result AS (:columns);
-- many rows that nobody reads until the job has ended, through the smallest queue
SELECT * FROM pg_background_launch('SELECT n, repeat(''x'', n % 100) FROM generate_series(1, 100000) AS n', 4096) \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state, consumed FROM pg_background_list;
SELECT count(*), bool_and(in_order), sum(length(t)) FROM (SELECT n = row_number() OVER () AS in_order, t FROM :result AS (n int, t text)) AS rows;
-- rows larger than the queue
SELECT * FROM pg_background_launch('SELECT n, repeat(md5(n::text), 10000) FROM generate_series(1, 10) AS n', 4096) \gset job_
SELECT count(*), bool_and(t = repeat(md5(n::text), 10000)) FROM :result AS (n int, t text);
-- LIMIT
SELECT * FROM pg_background_launch('SELECT n FROM generate_series(1, 10000) AS n') \gset job_
SELECT * FROM :result AS (n int) LIMIT 3;
SELECT pg_background_detach_all() IS NOT NULL;
-- in a join
SELECT * FROM pg_background_launch('SELECT n, n * n FROM generate_series(1, 4) AS n') \gset left_
SELECT * FROM pg_background_launch('SELECT n, n + 10 FROM generate_series(3, 6) AS n') \gset right_
SELECT l.n, l.square, r.more
	FROM pg_background_result(:left_pid, :left_cookie) AS l (n int, square int)
	JOIN pg_background_result(:right_pid, :right_cookie) AS r (n int, more int) USING (n)
	ORDER BY l.n;
-- in a cursor
SELECT * FROM pg_background_launch('SELECT n FROM generate_series(1, 10) AS n') \gset job_
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT * FROM :result AS (n int);
FETCH 2 FROM c;
FETCH LAST FROM c;
FETCH FIRST FROM c;
COMMIT;
SELECT pg_background_detach_all();
-- in PL/pgSQL loops, one of them left early
SELECT * FROM pg_background_launch('SELECT n FROM generate_series(1, 4) AS n') \gset a_
SELECT * FROM pg_background_launch('SELECT n FROM generate_series(1, 10000) AS n') \gset b_
CREATE FUNCTION total(pid int, cookie bigint, up_to int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	one record;
	total int := 0;
BEGIN
	FOR one IN SELECT * FROM pg_background_result(pid, cookie) AS (n int) LOOP
		total := total + one.n;
		EXIT WHEN one.n = up_to;
	END LOOP;
	RETURN total;
END
$$;
SELECT total(:a_pid, :a_cookie, 10);
SELECT total(:b_pid, :b_cookie, 3);
SELECT pg_background_detach_all() IS NOT NULL;
DROP FUNCTION total(int, bigint, int);
-- inside a subtransaction that rolls back: what was read is read
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
BEGIN;
SAVEPOINT before;
SELECT * FROM :result AS (x int);
ROLLBACK TO before;
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int)', :job_pid, :job_cookie));
COMMIT;
-- the launch rolled back, the result read in the same transaction
BEGIN;
SAVEPOINT before;
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
ROLLBACK TO before;
SELECT * FROM :result AS (x int);
ROLLBACK;
-- a second read
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT * FROM :result AS (x int);
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int)', :job_pid, :job_cookie));
-- strict
SELECT * FROM pg_background_result(NULL, 1) AS (x int);
SELECT * FROM pg_background_result(1, NULL) AS (x int);
-- only the rows of the last statement, and only where it gives rows
SELECT * FROM pg_background_launch('SELECT ''first''; SELECT 2') \gset job_
SELECT * FROM :result AS (x int);
SELECT * FROM rows_of('SELECT 1; CREATE TABLE made (n int); INSERT INTO made VALUES (1), (2); SELECT n FROM made; UPDATE made SET n = 3; DROP TABLE made');
-- the column definition list must match in number and in types
SELECT * FROM pg_background_launch('SELECT 1, 2') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int)', :job_pid, :job_cookie));
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int, y int)', :job_pid, :job_cookie));
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x bigint)', :job_pid, :job_cookie));
SELECT pg_background_detach_all() IS NOT NULL;
SELECT * FROM pg_background_launch('SELECT ''x''::varchar') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x text)', :job_pid, :job_cookie));
SELECT * FROM pg_background_launch('SELECT 1::positive') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int)', :job_pid, :job_cookie));
SELECT * FROM pg_background_launch('SELECT 1 WHERE false') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x text)', :job_pid, :job_cookie));
SELECT pg_background_detach_all() IS NOT NULL;
SELECT * FROM pg_background_launch('SET work_mem = ''1MB''') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int)', :job_pid, :job_cookie));
SELECT * FROM pg_background_launch('SET work_mem = ''1MB''') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x text, y text)', :job_pid, :job_cookie));
SELECT pg_background_detach_all() IS NOT NULL;
-- without a column definition list
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT code FROM error_of(format('SELECT * FROM pg_background_result(%s, %s)', :job_pid, :job_cookie));
SELECT code FROM error_of(format('SELECT pg_background_result(%s, %s)', :job_pid, :job_cookie));
SELECT * FROM :result AS (x int);
-- a submitted job has no result
SELECT * FROM pg_background_submit('SELECT n FROM generate_series(1, 1000) AS n') \gset job_
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int)', :job_pid, :job_cookie));
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT row_count, command_tag FROM pg_background_result_info(:job_pid, :job_cookie);
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x int)', :job_pid, :job_cookie));
SELECT pg_background_detach(:job_pid, :job_cookie);
-- reading begins before the job has ended
SELECT * FROM pg_background_launch('SELECT ''read''::text FROM pg_sleep(0.1)') \gset job_
SELECT * FROM :result AS (x text);
-- what nobody reads counts against temp_file_limit
SET temp_file_limit = '1MB';
SELECT * FROM pg_background_launch('SELECT repeat(md5(n::text), 100) FROM generate_series(1, 10000) AS n') \gset job_
RESET temp_file_limit;
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state, sqlstate, error_message FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- several results are read in any order
SELECT * FROM pg_background_launch('SELECT ''a''::text') \gset a_
SELECT * FROM pg_background_launch('SELECT ''b''::text') \gset b_
SELECT * FROM pg_background_result(:b_pid, :b_cookie) AS (x text);
SELECT * FROM pg_background_result(:a_pid, :a_cookie) AS (x text);
DROP TYPE mood, pair;
DROP DOMAIN positive;
-- a composite type that was altered while its values waited to be read is not taken for what it is not
CREATE TYPE changing AS (a int8, b text);
SELECT * FROM pg_background_launch('SELECT (1, ''x'')::changing, ROW(1, (2, ''y'')::changing)') \gset job_
SELECT * FROM pg_background_launch('SELECT ROW(1, (2, ''y'')::changing)') \gset other_
SELECT * FROM pg_background_launch('SELECT ARRAY[(1, ''x'')::changing]') \gset array_
SELECT pg_background_wait(:job_pid, :job_cookie), pg_background_wait(:other_pid, :other_cookie), pg_background_wait(:array_pid, :array_cookie);
ALTER TYPE changing ALTER ATTRIBUTE a TYPE text;
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (c changing, r record);
SELECT * FROM pg_background_result(:other_pid, :other_cookie) AS (r record);
SELECT code FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (r record)', :other_pid, :other_cookie));
SELECT * FROM pg_background_result(:array_pid, :array_cookie) AS (c changing[]);
SELECT pg_background_detach_all();
SELECT * FROM rows_of('SELECT (((''z'', ''x'')::changing).a)');
DROP TYPE changing;
-- a reading that was interrupted midway: what was read is gone, so nothing more can be read
SELECT * FROM pg_background_launch('SELECT n FROM generate_series(1, 100000) AS n WHERE n < 90000 OR pg_sleep(600) IS NULL', 4096) \gset job_
SET statement_timeout = '500ms';
SELECT count(*) FROM :result AS (n int);
RESET statement_timeout;
SELECT state FROM pg_background_list;
SELECT code FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (n int)', :job_pid, :job_cookie));
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT state, sqlstate FROM pg_background_outcome(:job_pid, :job_cookie);
-- the session may end with such a handle, which the next file would notice if the server did not take it
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT code FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x text)', :job_pid, :job_cookie));
