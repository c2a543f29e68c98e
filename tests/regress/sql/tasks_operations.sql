-- parallel_execute: what is refused, what is kept, and what the views show. Nothing runs here.
CREATE SCHEMA ops;
SET search_path = ops, public;
CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, big int8, txt text COLLATE "C", js json, twice int GENERATED ALWAYS AS (n * 2) STORED);
INSERT INTO t SELECT i FROM generate_series(1, 100) i;
CREATE FUNCTION refused(arguments text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	d text; h text; n int8;
BEGIN
	EXECUTE 'SELECT background.parallel_execute(' || arguments || ')' INTO n;
	RETURN 'an id';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(d, ''), nullif(h, ''));
END
$$;
-- The statement.
SELECT refused($$NULL, 't'$$);
SELECT refused($$'SELECT $1, $2', NULL$$);
SELECT refused($$'SELECT FROM WHERE', 't'$$);
SELECT refused($$'', 't'$$);
SELECT refused($$'SELECT $1; SELECT $2', 't'$$);
SELECT refused($$'SELECT $1, $2, $3', 't', 'id'$$);
SELECT refused($$'SELECT $1, $2 FROM nowhere', 't', 'id'$$);
SELECT refused($$'COMMIT', 't', 'id'$$);
SELECT refused($$'VACUUM t', 't', 'id'$$);
SELECT refused($$'COPY (SELECT 1) TO STDOUT', 't', 'id'$$);
SELECT refused($$'COPY t TO STDOUT', 't'$$);
SELECT refused($$'COPY t FROM STDIN', 't', 'id'$$);
SELECT refused($$'COPY (SELECT FROM t WHERE id BETWEEN $1 AND $2) TO PROGRAM ''cat''', 't', 'id'$$);
SELECT refused($$'COPY (UPDATE t SET id = 1 RETURNING id) TO PROGRAM ''cat''', 't', 'id'$$);
-- Values.
SELECT refused($$'SELECT $1, $2', 't', 'id', parallelism => 0$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', parallelism => 5000$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', chunk_rows => 0$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', chunk_time => '0'$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', chunk_time => '-1 s'$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', on_error => 'ignore'$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', max_attempts => 0$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', pause_between => '-1 s'$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', max_replication_lag => '-1 s'$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', label => repeat('x', 65)$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', queue => 'none'$$);
SELECT refused($$'SELECT $1, $2', 't', 'id', settings => '[]'$$);
SELECT refused($$'SELECT $1, $2, $3', 't', 'id', row(row(1, 2))$$);
-- The column and its index.
SELECT refused($$'SELECT $1, $2', 't', 'none'$$);
SELECT refused($$'SELECT $1, $2', 't', 'xmin'$$);
SELECT refused($$'SELECT $1, $2', 't', 'js'$$);
SELECT refused($$'SELECT $1, $2', 't', 'big'$$);
CREATE INDEX other ON t (n, big);
SELECT refused($$'SELECT $1, $2', 't', 'big'$$);
DROP INDEX other;
CREATE INDEX part ON t (big) WHERE big > 0;
SELECT refused($$'SELECT $1, $2', 't', 'big'$$);
DROP INDEX part;
CREATE INDEX hashed ON t USING hash (big);
SELECT refused($$'SELECT $1, $2', 't', 'big'$$);
CREATE INDEX expression ON t ((big + 0));
SELECT refused($$'SELECT $1, $2', 't', 'big'$$);
CREATE INDEX pattern ON t (txt text_pattern_ops);
SELECT refused($$'SELECT $1, $2', 't', 'txt'$$);
CREATE INDEX collated ON t (txt COLLATE "POSIX");
SELECT refused($$'SELECT $1, $2', 't', 'txt'$$);
CREATE INDEX good ON t (txt);
SELECT refused($$'SELECT $1, $2', 't', 'txt'$$);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'good'::regclass;
SELECT refused($$'SELECT $1, $2', 't', 'txt'$$);
UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'good'::regclass;
-- Types whose texts do not tell their values apart.
CREATE DOMAIN ops.fun AS regproc;
CREATE TYPE ops.pair AS (a int, b regoper[]);
CREATE TYPE ops.range AS RANGE (subtype = regproc);
CREATE TABLE kinds (proc regproc, oper regoper, fun ops.fun, procs regproc[], pair ops.pair, range ops.range, procedure regprocedure);
SELECT error_line('CREATE INDEX ON kinds (' || c || ')') FROM unnest('{proc,oper,fun,procs,pair,range,procedure}'::text[]) AS c;
SELECT c, refused(format($$'SELECT $1, $2', 'kinds', %L$$, c)) FROM unnest('{proc,oper,fun,procs,pair,range}'::text[]) AS c;
SELECT refused($$'SELECT $1, $2', 'kinds', 'procedure'$$) = 'an id';
-- The table.
CREATE VIEW v AS SELECT * FROM t;
CREATE TEMP TABLE tt (id int PRIMARY KEY);
CREATE SEQUENCE s;
SELECT refused($$'SELECT $1, $2', 'v', 'id'$$);
SELECT regexp_replace(refused($$'SELECT $1, $2', 'tt', 'id'$$), 'pg_temp_\d+', 'pg_temp_n');
SELECT refused($$'SELECT $1, $2', 's', 'last_value'$$);
SELECT refused($$'SELECT $1, $2', 't_pkey'$$);
SELECT refused($$'SELECT $1, $2', 4294967295::oid::regclass$$);
-- Rows that would come again.
SELECT refused($$'UPDATE t SET id = id + 1000 WHERE id BETWEEN $1 AND $2', 't', 'id'$$);
SELECT refused($$'UPDATE v SET id = id + 1000 WHERE id BETWEEN $1 AND $2', 't', 'id'$$);
SELECT refused($$'WITH u AS (UPDATE t SET (n, id) = (1, 2) WHERE id BETWEEN $1 AND $2 RETURNING 1) SELECT FROM u', 't', 'id'$$);
SELECT refused($$'INSERT INTO t SELECT i FROM generate_series($1, $2) i ON CONFLICT (id) DO UPDATE SET id = -1', 't', 'id'$$);
SELECT refused($$'UPDATE t SET n = 1 WHERE ctid BETWEEN $1 AND $2', 't'$$);
SELECT refused($$'UPDATE v SET n = 1 WHERE id = 1 AND $1 < $2', 't'$$);
SELECT refused($$'WITH u AS (UPDATE t SET n = 1 WHERE ctid BETWEEN $1 AND $2 RETURNING 1) SELECT FROM u', 't'$$);
SELECT refused($$'EXPLAIN ANALYZE UPDATE t SET n = 1 WHERE ctid BETWEEN $1 AND $2', 't'$$);
SELECT refused($$'EXPLAIN (ANALYZE) WITH u AS (UPDATE t SET id = 1 WHERE id BETWEEN $1 AND $2 RETURNING 1) SELECT FROM u', 't', 'id'$$);
CREATE INDEX ON t (twice);
SELECT refused($$'UPDATE t SET n = n + 1 WHERE twice BETWEEN $1 AND $2', 't', 'twice'$$);
SELECT refused($$'UPDATE v SET (big, n) = (1, 2) WHERE twice BETWEEN $1 AND $2', 't', 'twice'$$);
SELECT refused($$'UPDATE t SET big = n WHERE twice BETWEEN $1 AND $2', 't', 'twice'$$);
CREATE TABLE sum (a int, b int, c int, n int, g int GENERATED ALWAYS AS (a + b * 2) STORED);
CREATE INDEX ON sum (g);
CREATE TABLE sum_child () INHERITS (sum);
CREATE INDEX ON sum_child (g);
SELECT t, c, left(refused(format($$'UPDATE %s SET %I = %1$I.n + 1 WHERE g BETWEEN $1 AND $2', 'sum', 'g'$$, t, c)), 90)
FROM unnest('{sum,sum_child}'::text[]) AS t, unnest('{a,b,n}'::text[]) AS c;
CREATE TABLE parts (id int, n int) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF parts DEFAULT;
CREATE INDEX ON parts (id);
SELECT refused($$'DELETE FROM parts WHERE ctid BETWEEN $1 AND $2', 'parts'$$);
SELECT refused($$'UPDATE parts SET n = 1 WHERE ctid BETWEEN $1 AND $2', 'part1'$$);
SELECT refused($$'UPDATE part1 SET id = 1 WHERE id BETWEEN $1 AND $2', 'parts', 'id'$$);
-- Nothing is left behind.
SELECT count(*) FROM background.operation WHERE key_column NOT IN ('txt', 'procedure', 'twice', 'g');
-- Who may.
GRANT USAGE ON SCHEMA ops TO regress_tasks_alice;
GRANT SELECT (n) ON t TO regress_tasks_alice;
SET ROLE regress_tasks_alice;
SELECT refused($$'SELECT $1, $2', 't', 'id'$$);
RESET ROLE;
GRANT SELECT (id) ON t TO regress_tasks_alice;
SET ROLE regress_tasks_alice;
SELECT background.parallel_execute('SELECT id FROM t WHERE id BETWEEN $1 AND $2 AND id <> $3', 't', 'id', row(7), label => 'mine', parallelism => 3) AS mine \gset
SELECT label, owner, state, chunks_done, chunks_failed, rows_affected, progress, rows_per_second, eta, finished_at, last_error
FROM background.operations WHERE id = :mine;
SELECT count(*) FROM background.chunks WHERE operation_id = :mine;
SELECT label, state, mode, attempt, max_attempts, sql, operation_id = :mine AS of_it FROM background.tasks WHERE operation_id = :mine;
RESET ROLE;
SELECT relation, key_column, param_types, param_values, search_path, parallelism, chunk_rows, chunk_time, on_error FROM background.operation WHERE id = :mine;
-- Change, cancel, retry.
SELECT background.alter_operation(:mine, paused => true), background.alter_operation(NULL);
SELECT state FROM background.operations WHERE id = :mine;
SELECT background.alter_operation(:mine, chunk_time => '5 s', parallelism => 1);
SELECT parallelism, chunk_time, phase FROM background.operation WHERE id = :mine;
SELECT background.wait_operation(:mine, 1) IS NULL AS timed_out, background.wait_operation(NULL) IS NULL AS nothing;
SELECT error_line(format('SELECT background.alter_operation(%s, parallelism => 0)', :mine));
SELECT background.cancel_operation(:mine), background.cancel_operation(:mine), background.wait_operation(:mine);
SELECT state, finished_at IS NOT NULL AS finished FROM background.operations WHERE id = :mine;
SELECT state FROM background.tasks WHERE operation_id = :mine;
SELECT regexp_replace(error_line(format('SELECT background.alter_operation(%s, paused => true)', :mine)), '\d+ has', 'n has');
SELECT background.retry_operation(:mine);
SELECT state FROM background.operations WHERE id = :mine;
SELECT id AS other FROM background.operation WHERE key_column = 'txt' \gset
SET ROLE regress_tasks_alice;
SELECT regexp_replace(error_line(format('SELECT background.%s(%s)', verb, :other)), 'operation \d+', 'operation n')
FROM unnest(ARRAY['alter_operation', 'cancel_operation', 'retry_operation', 'wait_operation']) AS verb;
SELECT count(*) FROM background.operations WHERE id <> :mine;
SET ROLE regress_tasks_monitor;
SELECT count(*) FROM background.operations WHERE id IN (:mine, :other);
RESET ROLE;
-- A part of it alone.
SELECT min(id) AS lane FROM background.task WHERE operation_id = :mine \gset
SELECT background.cancel(:lane);
SELECT count(*) FROM background.task WHERE operation_id = :mine AND id <> :lane;
SELECT regexp_replace(error_line(format('SELECT background.retry(%s)', :lane)), 'task \d+ is a part of operation \d+', 'task n is a part of operation n');
SELECT background.cancel_operation(:mine);
SELECT error_line(format('SELECT background.%s(9000000000)', verb))
FROM unnest(ARRAY['alter_operation', 'cancel_operation', 'retry_operation', 'wait_operation']) AS verb;
-- A queue with an operation stays.
SELECT background.set_queue('ops');
SELECT background.parallel_execute('SELECT $1, $2', 't', 'id', queue => 'ops') AS queued \gset
SELECT background.alter_operation(:queued, paused => true);
DELETE FROM background.task WHERE operation_id = :queued;
SELECT error_line('SELECT background.drop_queue(''ops'')');
SELECT background.cancel_operation(:queued), background.drop_queue('ops');
-- Subtransactions.
BEGIN;
SAVEPOINT s;
SELECT background.parallel_execute('SELECT $1, $2', 't', 'id') AS gone \gset
ROLLBACK TO s;
COMMIT;
SELECT background.wait_operation(:gone), background.cancel_operation(:gone);
BEGIN READ ONLY;
SELECT refused($$'SELECT $1, $2', 't', 'id'$$);
ROLLBACK;
SELECT background.cancel_operation(id) FROM background.operations WHERE finished_at IS NULL;
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA ops CASCADE;
