\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- Type modifiers of the column definition list hold for what is read, as for what is assigned to a column.
\set result 'pg_background_result(:job_pid, :job_cookie)'
SELECT * FROM pg_background_run_query('SELECT 12.34567::numeric, ''abc''::varchar', col_def => 'x') AS (n numeric(6,2), v varchar(3));
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT ''''abcdef''''::varchar'', col_def => ''x'') AS (v varchar(3))');
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT 12345.6'', col_def => ''x'') AS (n numeric(6,2))');
-- nothing is left of them
CALL wait_until('NOT EXISTS (SELECT FROM pg_background_list)');
-- every type that takes modifiers; blanks at the end are cut, as by an assignment, bits are not
CREATE TEMP VIEW wanted AS
	SELECT n::numeric(6,2), v::varchar(5), c::char(5), b::bit(3), vb::varbit(4), t::timestamp(1), tz::timestamptz(0), ti::time(2), tiz::timetz(1), i::interval hour to minute, i2::interval(1), na::numeric(6,2)[], va::varchar(2)[], ca::char(2)[]
	FROM (SELECT 12.34567, 'abc    '::text, 'de'::text, '101', '1100', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56.789+00', '12:34:56.789', '12:34:56.789+02', '1 day 02:03:04.5', '1 day 02:03:04.56', '{1.234,NULL,5.678}', '{{a,bc},{NULL,de}}', '{f,NULL}')
	AS given (n, v, c, b, vb, t, tz, ti, tiz, i, i2, na, va, ca);
\set any 'SELECT 12.34567::numeric, ''abc    ''::varchar, ''de''::bpchar, B''101'', B''1100''::varbit, ''2024-02-29 12:34:56.789''::timestamp, ''2024-02-29 12:34:56.789+00''::timestamptz, ''12:34:56.789''::time, ''12:34:56.789+02''::timetz, ''1 day 02:03:04.5''::interval, ''1 day 02:03:04.56''::interval, ''{1.234,NULL,5.678}''::numeric[], ''{{a,bc},{NULL,de}}''::varchar[], ''{f,NULL}''::bpchar[]'
\set columns 'n numeric(6,2), v varchar(5), c char(5), b bit(3), vb varbit(4), t timestamp(1), tz timestamptz(0), ti time(2), tiz timetz(1), i interval hour to minute, i2 interval(1), na numeric(6,2)[], va varchar(2)[], ca char(2)[]'
SELECT * FROM pg_background_launch(:'any') \gset job_
SELECT got::text, (SELECT wanted::text = got::text FROM wanted) FROM (SELECT * FROM :result AS job (:columns)) AS got;
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT B''''1''''::bit'', col_def => ''x'') AS (b bit(3))');
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT B''''11111''''::varbit'', col_def => ''x'') AS (b varbit(3))');
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT ARRAY[''''abc'''']::varchar[]'', col_def => ''x'') AS (a varchar(2)[])');
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT ''''ab''''::bpchar'', col_def => ''x'') AS (a char)');
-- a modifier that the job's column has already, another one, and none
SELECT * FROM pg_background_run_query('SELECT 1.25::numeric(6,2), 1.25::numeric(6,2), 1.25::numeric(6,2)', col_def => 'x') AS (a numeric(6,2), b numeric(6,1), c numeric);
-- NULLs, and columns between that have no modifiers
SELECT * FROM pg_background_run_query('SELECT n, CASE WHEN n % 2 = 0 THEN n / 7.0 END, repeat(''x'', n), CASE WHEN n <> 2 THEN n::text::bpchar END FROM generate_series(1, 4) AS n', col_def => 'x') AS (n int, a numeric(4,2), t text, c char(3));
-- rows one by one, and all first: a limited job's, a cursor's, a join's inner side's
\set job 'SELECT n, n / 7.0, n::text::varchar FROM generate_series(1, 5) AS n'
\set list 'n int, a numeric(4,2), v varchar(1)'
EXPLAIN (COSTS OFF) SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS job (:list);
SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS job (:list) WHERE n > 3;
SELECT * FROM pg_background_run_query(:'job', timeout_ms => 60000, col_def => 'x') AS job (:list) WHERE n > 3;
SELECT * FROM pg_background_run_query_v2(:'job', col_def => 'x') AS job (:list) LIMIT 1;
SELECT * FROM pg_background_run_query_params(:'job' || ' WHERE n > $1', ROW(3), col_def => 'x') AS job (:list);
SELECT * FROM pg_background_launch(:'job') \gset job_
SELECT * FROM pg_background_result_v2(:job_pid, :job_cookie) AS job (:list) OFFSET 3;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT * FROM pg_background_run_query(:'job', col_def => 'x') AS job (:list);
FETCH 2 FROM c;
FETCH LAST FROM c;
FETCH FIRST FROM c;
COMMIT;
SELECT count(*), sum(job.a) FROM generate_series(1, 3) AS k, pg_background_run_query(:'job', col_def => 'x') AS job (:list) WHERE job.n <> k;
-- rows that the job has written are collected from the first on
CREATE TABLE written (n numeric);
SELECT * FROM pg_background_run_query('INSERT INTO written SELECT n / 7.0 FROM generate_series(1, 2) AS n RETURNING n', col_def => 'x') AS (n numeric(3,1));
-- what is made of it is what it says
CREATE TABLE made AS SELECT * FROM pg_background_run_query(:'any', col_def => 'x') AS job (:columns);
SELECT count(*) FROM made, wanted WHERE made::text = wanted::text;
INSERT INTO made SELECT * FROM pg_background_run_query(:'any', col_def => 'x') AS job (:columns);
SELECT count(*) FROM made, wanted WHERE made::text = wanted::text;
CREATE FUNCTION in_plpgsql() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	one record;
BEGIN
	FOR one IN SELECT * FROM pg_background_run_query('SELECT 0.125, ''a''::bpchar', col_def => 'x') AS (n numeric(2,2), c char(3)) LOOP
		RETURN NEXT one::text;
	END LOOP;
	RETURN QUERY SELECT job::text FROM pg_background_run_query('SELECT 0.125', col_def => 'x') AS job (n numeric(2,2));
END
$$;
SELECT in_plpgsql();
-- anonymous records beside, whose columns have the modifiers that the job gave them
SELECT * FROM pg_background_run_query('SELECT ROW(n / 7.0, ''a''::char(3)), n / 7.0 FROM generate_series(1, 2) AS n', col_def => 'x') AS (r record, n numeric(3,1));
-- composite types, domains and arrays of them are of their own modifiers
CREATE TYPE priced AS (price numeric(6,2), code char(4));
CREATE DOMAIN short AS varchar(3);
SELECT * FROM pg_background_run_query('SELECT (1.234, ''ab'')::priced, ARRAY[(5.678, NULL)::priced], ''abc''::short, ARRAY[''d'']::short[]', col_def => 'x') AS (p priced, pa priced[], s short, sa short[]);
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT ''''abc''''::short'', col_def => ''x'') AS (v varchar(3))');
-- a type with a cast of its user's for its modifiers, which is called in this session, and may raise
SET client_min_messages = warning;
CREATE TYPE code;
CREATE FUNCTION code_in(cstring) RETURNS code LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION code_out(code) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE code (INPUT = code_in, OUTPUT = code_out, TYPMOD_IN = numerictypmodin, LIKE = text);
RESET client_min_messages;
CREATE CAST (code AS text) WITHOUT FUNCTION;
CREATE CAST (text AS code) WITHOUT FUNCTION;
CREATE FUNCTION fit(value code, modifier int, explicit bool) RETURNS code LANGUAGE plpgsql AS $$
BEGIN
	IF value::text = 'bad' THEN
		RAISE 'no such code' USING ERRCODE = '22P06';
	END IF;
	RETURN (value::text || ' ' || current_user || ' ' || explicit)::code;
END
$$;
CREATE CAST (code AS code) WITH FUNCTION fit(code, int, bool) AS IMPLICIT;
SELECT replace(c::text, current_user, 'me') FROM pg_background_run_query('SELECT t::code FROM (VALUES (''one''), (''two'')) AS v (t)', col_def => 'x') AS (c code(7));
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT t::code FROM (VALUES (''''one''''), (''''bad'''')) AS v (t)'', col_def => ''x'') AS (c code(7))');
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT t::code FROM (VALUES (''''one''''), (''''bad'''')) AS v (t)'', timeout_ms => 60000, col_def => ''x'') AS (c code(7))');
CALL wait_until('NOT EXISTS (SELECT FROM pg_background_list)');
-- a value that does not fit ends a reading as any error in the middle does; what was not read is given up
SELECT * FROM pg_background_launch('SELECT n::text::varchar FROM generate_series(8, 12) AS n') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT code, message FROM error_of(format('SELECT count(*) FROM (SELECT * FROM pg_background_result(%s, %s) AS (v varchar(1)) OFFSET 0) AS job', :job_pid, :job_cookie));
SELECT code FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (v varchar(1))', :job_pid, :job_cookie));
-- also where the rows are taken one by one
SELECT * FROM pg_background_launch('SELECT n::text::varchar FROM generate_series(8, 12) AS n') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT code, message FROM error_of(format('SELECT count(*) FROM pg_background_result(%s, %s) AS (v varchar(1))', :job_pid, :job_cookie));
SELECT state, consumed, row_count FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT code FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (v varchar)', :job_pid, :job_cookie));
SELECT pg_background_cancel(:job_pid, :job_cookie);
SELECT pg_background_detach_all() IS NOT NULL;
DROP TABLE written, made;
DROP FUNCTION in_plpgsql();
DROP TYPE priced;
DROP DOMAIN short;
DROP TYPE code CASCADE;
