-- Each function with NULL for all of its arguments, and for each one of them in turn: an answer or an error of its own, and nothing is left behind.
CREATE FUNCTION tasks_answer(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE command INTO answer;
	RETURN coalesce(answer, 'NULL');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE TABLE tasks_before AS SELECT (SELECT count(*) FROM background.task) AS tasks, (SELECT count(*) FROM background.queue) AS queues;
-- All of them.
SELECT p.oid::regproc AS function, tasks_answer(format('SELECT %s(%s)::text', p.oid::regproc,
	(SELECT string_agg('NULL::' || format_type(t, NULL), ', ') FROM unnest(p.proargtypes) AS t))) AS answer
FROM pg_proc AS p
WHERE pronamespace = 'background'::regnamespace AND prokind = 'f' AND pronargs > 0
	AND proname !~ 'schedule|operation|parallel|cron|metrics'
ORDER BY proname COLLATE "C";
CALL background.wait_for(NULL, NULL);
CALL background.wait_for(NULL, 10);
-- One of them. The others have a value that is right.
CREATE TABLE tasks_arguments (function text, name text, value text, number serial);
INSERT INTO tasks_arguments (function, name, value) VALUES
	('enqueue', 'sql', '''SELECT 1'''), ('enqueue', 'params', 'row(1)'), ('enqueue', 'queue', '''default'''), ('enqueue', 'label', '''null'''),
	('enqueue', 'priority', '1'), ('enqueue', 'run_at', '''infinity'''), ('enqueue', 'expires_at', '''infinity'''), ('enqueue', 'key', '''null'''),
	('enqueue', 'on_conflict', '''replace'''), ('enqueue', 'concurrency_key', '''k'''), ('enqueue', 'max_attempts', '2'),
	('enqueue', 'retry_delay', '''1 s'''), ('enqueue', 'timeout', '''1 s'''), ('enqueue', 'after', '''{}'''),
	('enqueue', 'on_parent_failure', '''run'''), ('enqueue', 'mode', '''statement'''), ('enqueue', 'database', '''postgres'''),
	('enqueue', 'settings', '''{"a.b": 1}'''), ('enqueue', 'keep_result', 'true'),
	('set_queue', 'name', '''tasks_nulls'''), ('set_queue', 'max_running', '1'), ('set_queue', 'max_running_per_key', '1'),
	('set_queue', 'max_waiting', '1'), ('set_queue', 'max_attempts', '1'), ('set_queue', 'retry_delay', '''1 s'''),
	('set_queue', 'timeout', '''1 s'''), ('set_queue', 'keep_done', '''1 s'''), ('set_queue', 'keep_failed', '''1 s'''),
	('set_queue', 'keep_done_max', '1'), ('set_queue', 'synchronous_commit', '''on'''), ('set_queue', 'roles', '''{pg_monitor}'''),
	('set_queue', 'paused', 'true');
SELECT function, missing.name, tasks_answer(format('SELECT background.%s(%s) IS NULL', function, (
	SELECT string_agg(format('%I => %s', a.name, CASE a.name WHEN missing.name THEN 'NULL' ELSE a.value END), ', ' ORDER BY a.number)
	FROM tasks_arguments AS a WHERE a.function = missing.function))) AS is_null
FROM tasks_arguments AS missing ORDER BY number;
SELECT queue, mode, priority, label, max_attempts, key, concurrency_key, database, keep_result, count(*)
FROM background.task WHERE label = 'null' OR key = 'null' GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9;
SELECT count(background.cancel(id)) > 0 AS canceled FROM background.task WHERE label = 'null' OR key = 'null';
SELECT background.drop_queue('tasks_nulls');
SELECT (SELECT count(*) FROM background.task) = tasks AS tasks, (SELECT count(*) FROM background.queue) = queues AS queues FROM tasks_before;
DROP TABLE tasks_before, tasks_arguments;
DROP FUNCTION tasks_answer;
