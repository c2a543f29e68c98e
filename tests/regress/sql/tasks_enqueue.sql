-- background.enqueue: what it takes, and what it refuses.
SELECT background.enqueue('SELECT 1') > 0 AS enqueued;
SELECT state, mode, queue, priority, owner = current_user AS mine, sql, attempt, max_attempts FROM background.tasks;
-- A task exists when its transaction commits.
BEGIN;
SELECT background.enqueue('SELECT 2') > 0;
ROLLBACK;
BEGIN;
SAVEPOINT one;
SELECT background.enqueue('SELECT 3') > 0;
ROLLBACK TO one;
SELECT background.enqueue('SELECT 4') > 0;
SAVEPOINT two;
SELECT background.enqueue('SELECT 5') > 0;
RELEASE two;
COMMIT;
SELECT sql FROM background.tasks ORDER BY id;
-- NULL is the default.
SELECT background.enqueue('SELECT 6', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) > 0;
SELECT state, mode, queue, priority, max_attempts, after, key FROM background.tasks WHERE sql = 'SELECT 6';
SELECT error_line('SELECT background.enqueue(NULL)');
-- Modes.
CREATE TABLE tasks_partitioned (a int) PARTITION BY RANGE (a);
SELECT count(background.enqueue(sql)) FROM unnest(ARRAY[
	'SELECT 7', '', ';', 'VACUUM', 'ANALYZE', 'CALL p()', 'CALL p(); SELECT 1', 'CREATE INDEX CONCURRENTLY i ON t (a)',
	'CREATE INDEX i ON t (a)', 'DROP INDEX CONCURRENTLY i', 'REINDEX TABLE t', 'REINDEX TABLE CONCURRENTLY t', 'REINDEX SCHEMA s',
	'REINDEX TABLE tasks_partitioned', 'CREATE DATABASE d', 'DROP DATABASE d', 'ALTER SYSTEM RESET ALL', 'CLUSTER', 'CLUSTER t', 'DISCARD ALL',
	'DISCARD PLANS', 'ALTER TABLE t DETACH PARTITION p CONCURRENTLY', 'ALTER TABLE t DETACH PARTITION p', 'COMMIT PREPARED ''x''',
	'CREATE SUBSCRIPTION s CONNECTION ''x'' PUBLICATION p', 'CREATE SUBSCRIPTION s CONNECTION ''x'' PUBLICATION p WITH (connect = false)',
	'DROP SUBSCRIPTION s', 'ALTER DATABASE d SET TABLESPACE s', 'ALTER DATABASE d CONNECTION LIMIT 1', 'DO ''BEGIN COMMIT; END''',
	'CREATE TABLESPACE t LOCATION ''/x''', 'CHECKPOINT'
]) AS sql;
SELECT sql, mode, max_attempts FROM background.tasks WHERE id > (SELECT id FROM background.tasks WHERE sql = 'SELECT 6') ORDER BY id;
SELECT error_line(format('SELECT background.enqueue(%L)', sql)) FROM unnest(ARRAY[
	'SELECT 7; VACUUM', 'BEGIN', 'SELECT 1; COMMIT', 'SAVEPOINT a; SELECT 1', 'PREPARE TRANSACTION ''x''']) AS sql;
SELECT error_line('SELECT background.enqueue(''VACUUM'', mode => ''transaction'')');
SELECT error_line('SELECT background.enqueue(''BEGIN; SELECT 1; COMMIT'', mode => ''statement'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', mode => ''Auto'')');
SELECT error_line('SELECT background.enqueue(''DROP SUBSCRIPTION s'', mode => ''transaction'')');
-- Syntax errors say where.
SELECT background.enqueue('SELECT 1 FRM x');
-- Lengths, words, ranges.
SELECT error_line('SELECT background.enqueue(''SELECT 1'', label => repeat(''x'', 65))');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', key => repeat(''x'', 256))');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', concurrency_key => repeat(''x'', 256))');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', queue => repeat(''x'', 256))');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', queue => ''nowhere'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', on_conflict => ''ignore'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', on_parent_failure => ''ignore'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', max_attempts => 0)');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', retry_delay => ''-1 s'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', timeout => ''178000000 years'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', settings => ''[]'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', settings => ''{"a": null}'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', settings => ''{"a": [1]}'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', settings => ''{"": 1}'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', settings => ''{"app.tenant": "7", "work_mem": 1000, "jit": true}'')');
-- Another database: the rules of launch_params.
SELECT error_line('SELECT background.enqueue(''SELECT 1'', database => ''no such'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', database => ''template0'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', database => ''postgres'', mode => ''transaction'')');
SELECT error_line('SELECT background.enqueue(''SELECT 8'', database => ''postgres'')');
SELECT error_line('SELECT background.enqueue(''SELECT 9'', database => current_database())');
SELECT sql, mode, database FROM background.task WHERE sql IN ('SELECT 8', 'SELECT 9') ORDER BY id;
-- Where nothing may be enqueued.
BEGIN READ ONLY;
SELECT background.enqueue('SELECT 1');
ROLLBACK;
CREATE FUNCTION tasks_enqueues() RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT background.enqueue('SELECT 10')::int $$;
CREATE TABLE tasks_indexed AS SELECT 1 AS a;
CREATE INDEX ON tasks_indexed ((a + tasks_enqueues()));
-- States of what has not begun.
SELECT background.enqueue('SELECT 11', run_at => now() + interval '1 day', label => 'later') > 0;
SELECT background.enqueue('SELECT 12', run_at => '-infinity', expires_at => 'infinity') > 0;
SELECT sql, state, label FROM background.tasks WHERE sql IN ('SELECT 11', 'SELECT 12') ORDER BY id;
-- The search path of the enqueue, and a role without LOGIN before version 17.
SET search_path = pg_catalog, public;
SELECT background.enqueue('SELECT 13') > 0;
RESET search_path;
CREATE ROLE regress_tasks_nologin;
SELECT search_path FROM background.task WHERE sql = 'SELECT 13';
-- A trigger and a function of somebody else.
CREATE FUNCTION tasks_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM background.enqueue('SELECT $1', row(new.a), label => 'trigger'); RETURN NULL; END $$;
CREATE TRIGGER enqueues AFTER INSERT ON tasks_indexed FOR EACH ROW EXECUTE FUNCTION tasks_trigger();
INSERT INTO tasks_indexed SELECT generate_series(1, 3);
SELECT count(*) FROM background.tasks WHERE label = 'trigger';
SET ROLE regress_tasks_alice;
SELECT background.enqueue('SELECT 14') > 0;
RESET ROLE;
CREATE FUNCTION tasks_as_owner() RETURNS int8 LANGUAGE sql SECURITY DEFINER SET search_path = pg_temp AS $$ SELECT background.enqueue('SELECT 15') $$;
SET ROLE regress_tasks_alice;
SELECT tasks_as_owner() > 0;
RESET ROLE;
SELECT sql, nullif(t.owner, current_user) AS owner, search_path FROM background.tasks t JOIN background.task USING (id, sql) WHERE sql IN ('SELECT 14', 'SELECT 15') ORDER BY id;
-- Nobody's operators are called.
CREATE SCHEMA tasks_planted;
CREATE FUNCTION tasks_planted.boom(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'called'; END $$;
CREATE FUNCTION tasks_planted.boom(int8, int8) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'called'; END $$;
CREATE OPERATOR tasks_planted.= (LEFTARG = text, RIGHTARG = text, FUNCTION = tasks_planted.boom);
CREATE OPERATOR tasks_planted.= (LEFTARG = int8, RIGHTARG = int8, FUNCTION = tasks_planted.boom);
CREATE FUNCTION tasks_planted.count(record) RETURNS int8 LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'called'; END $$;
SET search_path = tasks_planted, pg_catalog;
SELECT background.enqueue('SELECT 16', key => 'planted') > 0;
SELECT background.enqueue('SELECT 16', key => 'planted', on_conflict => 'replace', settings => '{"a.b": 1}') > 0;
SELECT background.set_queue('tasks_planted', max_waiting => 5);
SELECT background.enqueue('SELECT 16', queue => 'tasks_planted') > 0;
SELECT background.cancel(max(id)) FROM background.tasks;
SELECT background.drop_queue('tasks_planted');
RESET search_path;
DROP SCHEMA tasks_planted CASCADE;
DROP ROLE regress_tasks_nologin;
