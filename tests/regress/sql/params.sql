\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- Parameters: values with their types, in one statement.
-- All four functions.
CREATE TABLE audit (id int, what text);
SELECT state, row_count, command_tag, label
	FROM pg_background_run_params('INSERT INTO audit VALUES ($1, $2)', ROW(42, 'x'), label => 'audit');
SELECT * FROM pg_background_launch_params('INSERT INTO audit VALUES ($1, $2) RETURNING *', ROW(43, 'it''s'), 0, 'two') \gset
SELECT * FROM pg_background_result(:pid, :cookie) AS (id int, what text);
SELECT * FROM pg_background_submit_params('INSERT INTO audit VALUES ($1, $2)', ROW(44, NULL)) \gset
SELECT pg_background_wait(:pid, :cookie);
SELECT code, message FROM error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (t text)', :pid, :cookie));
SELECT pg_background_detach(:pid, :cookie);
SELECT * FROM pg_background_run_query_params('SELECT $1 + 1, $2 || ''y''', ROW(1, 'x'), col_def => 'n int, t text') AS (n int, t text);
SELECT * FROM audit ORDER BY id;

-- Types arrive as they are.
SELECT * FROM pg_background_run_query_params(
	'SELECT pg_typeof($1), pg_typeof($2), pg_typeof($3), pg_typeof($4), pg_typeof($5), $2',
	ROW(1::int2, 1.50::numeric(10, 3), DATE '2024-02-29', ARRAY['a', NULL], 'literal'),
	col_def => 'x') AS (a regtype, b regtype, c regtype, d regtype, e regtype, n numeric);
CREATE TYPE pair AS (n int, t text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE mood AS ENUM ('sad', 'ok');
SELECT * FROM pg_background_run_query_params(
	'SELECT $1, ($1).t, $2, $3, $4, $5',
	ROW((1, 'x')::pair, 7::positive, 'ok'::mood, ARRAY[(2, 'y')::pair, NULL], '[1,5)'::int4range),
	col_def => 'x') AS (p pair, t text, d positive, m mood, a pair[], r int4range);

-- NULLs keep their types.
SELECT * FROM pg_background_run_query_params('SELECT pg_typeof($1), $1 IS NULL, pg_typeof($2), $2 IS NULL',
	ROW(NULL::date, NULL::pair), col_def => 'x') AS (a regtype, b bool, c regtype, d bool);

-- A literal takes the type that its place asks for, as a parameter without a type does; else it is a text.
CREATE TABLE typed (d date, j jsonb, m mood, n positive, i int);
SELECT state, sqlstate FROM pg_background_run_params('INSERT INTO typed VALUES ($1, $2, $3, $4, $5)',
	ROW('2024-01-01', '{"a": 1}', 'sad', '3', NULL));
SELECT * FROM typed;
SELECT state, sqlstate, error_message FROM pg_background_run_params('INSERT INTO typed (n) VALUES ($1)', ROW('-3'));
SELECT state, sqlstate, error_message FROM pg_background_run_params('INSERT INTO typed (d) VALUES ($1)', ROW('no date'));
SELECT * FROM pg_background_run_query_params('SELECT $1, pg_typeof($1), pg_typeof($2), $2 IS NULL', ROW('x', NULL), col_def => 'x')
	AS (v text, t regtype, u regtype, n bool);
-- One that the statement does not use is none that it misses.
SELECT * FROM pg_background_run_query_params('SELECT $2 + 1', ROW('unused', 1, 'too'), col_def => 'n int') AS (n int);

-- Records without a type of their own.
SELECT * FROM pg_background_run_query_params('SELECT $1 = ROW(1, ''a''::text, NULL::int), $1', ROW(ROW(1, 'a'::text, NULL::int)),
	col_def => 'x') AS (same bool, r record);
SELECT * FROM pg_background_run_query_params('SELECT $1', ROW(ARRAY[ROW(1, ROW('in'::text)), ROW(2, ROW('ner'::text))]),
	col_def => 'x') AS (r record[]);
SELECT * FROM pg_background_run_query_params('SELECT r.a, r.b FROM (SELECT $1) s(x), LATERAL (SELECT * FROM ROWS FROM (json_to_record(row_to_json($1)) AS (f1 int, f2 text))) r(a, b)',
	ROW(ROW(5, 'five')), col_def => 'x') AS (a int, b text);

-- A row of a table, also one that has lost a column.
CREATE TABLE shrunk (a int, gone text, b text);
INSERT INTO shrunk VALUES (1, 'gone', 'kept');
ALTER TABLE shrunk DROP COLUMN gone;
SELECT r.state FROM shrunk s, pg_background_run_params('INSERT INTO audit VALUES ($1, $2)', s) r;
SELECT * FROM audit WHERE what = 'kept';

-- No parameters.
SELECT state, row_count FROM pg_background_run_params('SELECT 1; SELECT 1 UNION SELECT 2', ROW());
SELECT state, row_count FROM pg_background_run_params('SELECT 1; SELECT 1 UNION SELECT 2', NULL);
SELECT state FROM pg_background_run_params('VACUUM audit', ROW());
SELECT state, row_count FROM pg_background_run_params('', ROW(1));

-- One statement.
SELECT state, sqlstate, error_message FROM pg_background_run_params('SELECT 1; SELECT $1', ROW(1));
SELECT state, sqlstate, error_message FROM pg_background_run_params('SELECT $3', ROW(1, 2));
SELECT state, sqlstate, error_message FROM pg_background_run_params('SELECT $3', ROW(1, 'x'));
SELECT state, sqlstate, error_message FROM pg_background_run_params('INSERT INTO audit VALUES ($1, $3)', ROW(1, 'x'));
SELECT state, sqlstate, error_message FROM pg_background_run_params('SELECT $1', NULL);
SELECT state, sqlstate, error_message FROM pg_background_run_params('SELECT $1 +', ROW(1));
SELECT state, sqlstate, error_message FROM pg_background_run_params('SELECT $1 && 1', ROW(now()));

-- Every kind of statement that takes parameters.
SELECT state, row_count, command_tag FROM pg_background_run_params('UPDATE audit SET what = $2 WHERE id = $1', ROW(42, 'changed'));
SELECT state, row_count, command_tag FROM pg_background_run_params('CREATE TABLE made AS SELECT $1 AS n, $2 AS t', ROW(1, 'x'::text));
SELECT * FROM made;
SELECT * FROM pg_background_run_query_params('EXPLAIN (COSTS OFF) SELECT FROM audit WHERE id = $1 AND $2', ROW(42, true), col_def => 'x') AS (line text);
CREATE PROCEDURE note_twice(n int, t text) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO audit VALUES (n, t);
	COMMIT;
	INSERT INTO audit VALUES (n, t || ' again');
END $$;
SELECT state, sqlstate, error_message FROM pg_background_run_params('CALL note_twice($1, $2)', ROW(50, 'called'));
SELECT * FROM audit WHERE id = 50;
SELECT state, sqlstate, error_message FROM pg_background_run_params('CALL note_twice($1, $2)', ROW('51', 'literal'));
SELECT * FROM audit WHERE id = 51;

-- Planned for the values: a condition that is false for them leaves no scan.
SELECT count(*) FROM pg_background_run_query_params('EXPLAIN (COSTS OFF) SELECT FROM audit WHERE $1', ROW(false), col_def => 'x') AS (line text)
	WHERE line LIKE '%One-Time Filter: false%';

-- Large values, out of line and compressed ones.
CREATE TABLE large (id int, t text);
INSERT INTO large SELECT 1, repeat('compressible ', 100000);
ALTER TABLE large ALTER t SET STORAGE EXTERNAL;
INSERT INTO large SELECT 2, string_agg(md5(n::text), '') FROM generate_series(1, 10000) n;
SELECT id, r.* FROM large, pg_background_run_query_params('SELECT length($2), md5($2) = $1', ROW(md5(t), t), col_def => 'x') AS r (n int, same bool) ORDER BY id;

-- The error of a job with parameters.
SELECT * FROM error_of($$SELECT * FROM pg_background_run_query_params('SELECT 1 / $1', ROW(0), col_def => 'n int') AS (n int)$$);

-- Arguments.
CREATE TABLE analyzed AS SELECT n % 3 AS n FROM generate_series(1, 100) n;
ANALYZE analyzed;
SELECT code, message FROM error_of($$SELECT pg_background_run_params(NULL, ROW(1))$$);
SELECT code, message FROM error_of($$SELECT pg_background_launch_params(NULL, ROW(1))$$);
SELECT code, message FROM error_of($$SELECT pg_background_launch_params('SELECT 1', ROW(1), 0, repeat('x', 65))$$);
SELECT code, message FROM error_of($$SELECT pg_background_launch_params('SELECT 1', ROW(s.most_common_vals)) FROM pg_stats s WHERE tablename = 'analyzed'$$);
SELECT code, message FROM error_of($$SELECT pg_background_run_params('SELECT 1', ROW(pg_background_detach_all(), pg_notify('a', 'b')))$$);
SELECT state, timed_out FROM pg_background_run_params('SELECT pg_sleep($1)', ROW(60), timeout_ms => 100);

-- A type that is not there for the worker.
BEGIN;
CREATE TYPE unborn AS ENUM ('a');
SELECT state, sqlstate, error_message FROM pg_background_run_params('SELECT $1', ROW('a'::unborn));
SELECT state, sqlstate, error_message FROM pg_background_run_params('SELECT $1', ROW(ROW('a'::unborn)));
ROLLBACK;

-- This database by its name is this database.
SELECT * FROM pg_background_run_query_params('SELECT current_database() = $1, $2', ROW(current_database(), 'ok'::mood),
	col_def => 'x', database => current_database()) AS (here bool, m mood);
SELECT code, message FROM error_of($$SELECT pg_background_run_params('SELECT 1', NULL, database => 'no such')$$);

DROP TABLE audit, typed, shrunk, made, large, analyzed;
DROP PROCEDURE note_twice;
DROP TYPE pair, mood;
DROP DOMAIN positive;
