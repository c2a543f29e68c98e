-- Queues.
SELECT name, max_running, max_running_per_key, max_waiting, max_attempts, retry_delay, timeout, keep_done, keep_failed, keep_done_max, synchronous_commit, roles, paused
FROM background.queues;
SELECT background.set_queue('tasks_a');
SELECT background.set_queue('tasks_b', 1, 2, 3, 4, '5 s', '6 s', '7 s', '8 s', 9, 'on', '{regress_tasks_alice,pg_monitor}', true);
SELECT name, max_running, max_running_per_key, max_waiting, max_attempts, retry_delay, timeout, keep_done, keep_failed, keep_done_max, synchronous_commit, roles, paused
FROM background.queues ORDER BY name;
-- NULL leaves a setting as it is, -1, 0 and {} take it away.
SELECT background.set_queue('tasks_b', paused => false);
SELECT background.set_queue('default', max_attempts => 2);
SELECT name, max_running, max_running_per_key, max_waiting, max_attempts, retry_delay, timeout, keep_done, keep_failed, keep_done_max, synchronous_commit, roles, paused
FROM background.queues ORDER BY name;
SELECT background.set_queue('tasks_b', max_running => -1, max_running_per_key => -1, max_waiting => -1, timeout => '0', keep_done_max => -1, roles => '{}');
SELECT background.set_queue('default', max_attempts => 5);
SELECT max_running, max_running_per_key, max_waiting, timeout, keep_done_max, roles FROM background.queues WHERE name = 'tasks_b';
-- Errors.
SELECT error_line('SELECT background.set_queue(NULL)');
SELECT error_line('SELECT background.set_queue('''')');
SELECT error_line('SELECT background.set_queue(repeat(''x'', 256))');
SELECT error_line('SELECT background.set_queue(''q'', max_running => -2)');
SELECT error_line('SELECT background.set_queue(''q'', max_running_per_key => 0)');
SELECT error_line('SELECT background.set_queue(''q'', max_attempts => 0)');
SELECT error_line('SELECT background.set_queue(''q'', retry_delay => ''-1 s'')');
SELECT error_line('SELECT background.set_queue(''q'', keep_done_max => -2)');
SELECT error_line('SELECT background.set_queue(''q'', synchronous_commit => ''maybe'')');
SELECT error_line('SELECT background.set_queue(''q'', roles => ''{no such role}'')');
SELECT error_line('SELECT background.set_queue(''q'', roles => ''{NULL}'')');
SELECT error_line('SELECT background.drop_queue(''no such queue'')');
SELECT error_line('SELECT background.drop_queue(''default'')');
-- max_waiting.
SELECT background.set_queue('tasks_a', max_waiting => 2);
SELECT count(background.enqueue('SELECT 1', queue => 'tasks_a')) FROM generate_series(1, 2);
SELECT error_line('SELECT background.enqueue(''SELECT 1'', queue => ''tasks_a'')');
SELECT error_line('SELECT count(background.enqueue(''SELECT 1'', queue => ''tasks_a'')) FROM generate_series(1, 3)');
SELECT background.cancel(max(id)) FROM background.tasks WHERE queue = 'tasks_a';
SELECT error_line('SELECT count(background.enqueue(''SELECT 1'', queue => ''tasks_a'')) FROM generate_series(1, 2)');
SELECT waiting, deferred, blocked, running, failed, oldest_waiting >= '0' AS oldest, done_total, failed_total FROM background.queues WHERE name = 'tasks_a';
-- A replaced task keeps its place; in another queue it is one more.
SELECT background.set_queue('tasks_d', max_waiting => 1);
SELECT background.enqueue('SELECT 1', queue => 'tasks_d', key => 'place') AS place \gset
SELECT error_line('SELECT background.enqueue(''SELECT 2'', queue => ''tasks_d'', key => ''another'')');
SELECT background.enqueue('SELECT 3', queue => 'tasks_d', key => 'place', on_conflict => 'replace') = :place AS replaced;
SELECT background.enqueue('SELECT 4', key => 'from elsewhere') AS elsewhere \gset
SELECT error_line('SELECT background.enqueue(''SELECT 5'', queue => ''tasks_d'', key => ''from elsewhere'', on_conflict => ''replace'')');
SELECT sql, queue FROM background.tasks WHERE id IN (:place, :elsewhere) ORDER BY id;
SELECT background.enqueue('SELECT 6', key => 'place', on_conflict => 'replace') = :place AS moved;
SELECT background.enqueue('SELECT 7', queue => 'tasks_d', key => 'from elsewhere', on_conflict => 'replace') = :elsewhere AS moved;
SELECT sql, queue FROM background.tasks WHERE id IN (:place, :elsewhere) ORDER BY id;
SELECT background.cancel(:place), background.cancel(:elsewhere);
-- A task that is younger than the statement that looks has not waited.
DO $$
DECLARE
	task int8 := background.enqueue('SELECT 1', queue => 'tasks_d');
BEGIN
	PERFORM pg_sleep(0.01);
	RAISE NOTICE 'it has waited %, in the metrics %', (SELECT oldest_waiting FROM background.queues WHERE name = 'tasks_d'),
		(SELECT value FROM background.metrics('queues') WHERE name LIKE '%oldest%' AND labels ->> 'queue' = 'tasks_d');
	PERFORM background.cancel(task);
END $$;
SELECT oldest_waiting IS NULL AS nothing_waits FROM background.queues WHERE name = 'tasks_d';
SELECT background.drop_queue('tasks_d');
-- A change within the transaction counts.
BEGIN;
SELECT background.enqueue('SELECT 1', queue => 'tasks_a') > 0;
SELECT background.set_queue('tasks_a', max_waiting => 1);
SELECT background.enqueue('SELECT 1', queue => 'tasks_a') > 0;
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT background.set_queue('tasks_c');
SELECT background.enqueue('SELECT 1', queue => 'tasks_c') > 0;
ROLLBACK TO a;
SELECT background.enqueue('SELECT 1', queue => 'tasks_c') > 0;
ROLLBACK;
-- roles: they and their members.
SELECT background.set_queue('tasks_a', max_waiting => -1, roles => '{regress_tasks_alice}');
SET ROLE regress_tasks_bob;
SELECT error_line('SELECT background.enqueue(''SELECT 1'', queue => ''tasks_a'')');
SELECT error_line('SELECT background.set_queue(''q'')');
SELECT error_line('SELECT background.drop_queue(''tasks_a'')');
RESET ROLE;
GRANT regress_tasks_alice TO regress_tasks_bob;
SET ROLE regress_tasks_bob;
SELECT error_line('SELECT background.enqueue(''SELECT 1'', queue => ''tasks_a'')');
RESET ROLE;
REVOKE regress_tasks_alice FROM regress_tasks_bob;
SELECT error_line('SELECT background.enqueue(''SELECT 1'', queue => ''tasks_a'')');
-- drop_queue.
SELECT error_line('SELECT background.drop_queue(''tasks_a'')');
SELECT count(background.cancel(id)) FROM background.tasks WHERE queue = 'tasks_a' AND state = 'waiting';
SELECT background.drop_queue('tasks_a');
SELECT background.drop_queue('tasks_b');
SELECT name FROM background.queues;
-- Who owns the tables may run anything as anyone.
ALTER TABLE background.task OWNER TO regress_tasks_alice;
SELECT error_line('SELECT background.enqueue(''SELECT 1'')');
ALTER TABLE background.task OWNER TO CURRENT_USER;
SELECT error_line('SELECT background.enqueue(''SELECT 1'')');
-- status and the settings.
SELECT enabled, preloaded, running, note FROM background.status();
SET pg_background.tasks = on;
SELECT enabled, note FROM background.status();
SET pg_background.tasks = auto;
SELECT enabled, note FROM background.status();
UPDATE background.stamp SET relation = 1;
SELECT enabled, note FROM background.status();
SELECT background.activate();
SELECT enabled, note, runners_max FROM background.status();
SELECT count(DISTINCT home), count(*) FROM background.stamp;
SELECT name, setting, unit, context, enumvals FROM pg_settings WHERE name IN ('pg_background.tasks', 'pg_background.max_task_workers', 'pg_background.max_task_result') ORDER BY name COLLATE "C";
RESET pg_background.tasks;
DROP EXTENSION pg_background_tasks;
SELECT count(*) FROM pg_namespace WHERE nspname = 'background';
ALTER DATABASE contrib_regression RESET pg_background.tasks;
DROP ROLE regress_tasks_bob, regress_tasks_monitor;
DROP ROLE regress_tasks_alice;
