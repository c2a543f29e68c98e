-- Parameters are kept as the names of their types and their texts, whatever formats the session has set.
CREATE TYPE tasks_mood AS ENUM ('so so', 'fine');
CREATE TYPE tasks_pair AS (a int, b tasks_mood);
CREATE DOMAIN tasks_positive AS int CHECK (value > 0);
SET datestyle = 'German';
SET intervalstyle = 'iso_8601';
SET extra_float_digits = 0;
SET bytea_output = 'escape';
SET timezone = 'Asia/Tokyo';
SELECT background.enqueue('SELECT $1', row(
	1, 'text'::text, 'a literal', NULL, NULL::date, date '2026-02-01', timestamptz '2026-02-01 00:00:00+00', interval '1 day 2 hours',
	0.1::float8, 1e20::float4, '\x00ff'::bytea, 'x'::varchar(5), 1.50::numeric(5,2), '{1,NULL}'::int[], 'so so'::tasks_mood,
	row(1, 'fine')::tasks_pair, ARRAY[row(1, 'fine')::tasks_pair], 5::tasks_positive, 'tasks_pair'::regclass, '1.5'::money)) > 0 AS enqueued;
SELECT type, value FROM background.task, unnest(param_types, param_values) AS _ (type, value) WHERE param_types IS NOT NULL AND sql = 'SELECT $1' AND label IS NULL;
-- The session's formats are as before.
SELECT date '2026-02-01', interval '1 day', '\x00ff'::bytea;
RESET ALL;
SET pg_background.tasks = off;
SELECT background.enqueue('SELECT 1', row()) > 0 AS enqueued;
-- With parameters the SQL is one statement.
SELECT error_line(format('SELECT background.enqueue(%L, row(1), mode => %L)', sql, mode))
FROM unnest(ARRAY['SELECT $1; SELECT 1', 'SELECT 1; SELECT $1', ';; SELECT 1;; SELECT 2;']) AS sql, unnest(ARRAY['auto', 'statement']) AS mode;
SELECT error_line('SELECT background.enqueue(''SELECT $1; SELECT 1'', row(1), database => ''postgres'')');
SELECT background.enqueue('SELECT 1; SELECT 2', row()) > 0 AS enqueued, background.enqueue('; SELECT $1;', row(2)) > 0 AS one;
SELECT error_line('SELECT background.enqueue(''SELECT 1'', row(row(1, 2)))');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', row(ARRAY[row(1, 2)]))');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', row(''(1,fine)''::tasks_pair), database => ''postgres'')');
-- A temporary type goes with the session.
CREATE TYPE pg_temp."a mood" AS ENUM ('so');
CREATE DOMAIN pg_temp.few AS int;
CREATE TEMPORARY TABLE kept_by_none (n int);
SELECT error_line(format('SELECT background.enqueue(''SELECT 1'', row(%s))', value))
FROM unnest(ARRAY['''so''::pg_temp."a mood"', '1::pg_temp.few', 'row(1)::pg_temp.kept_by_none', 'ARRAY[''so''::pg_temp."a mood"]']) AS value;
