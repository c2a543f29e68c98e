-- cancel, retry, wait, wait_for, result, and who may.
SELECT background.enqueue('SELECT 1', row(1), label => 'one', expires_at => 'infinity') AS one \gset
SELECT background.wait(:one, 1) IS NULL AS timed_out, background.wait(NULL) IS NULL AS nothing;
SELECT background.cancel(:one), background.cancel(:one), background.wait(:one);
SELECT state, label, finished_at IS NOT NULL AS finished FROM background.tasks WHERE id = :one;
SELECT count(*) FROM background.runs WHERE task_id = :one;
SELECT background.retry(:one), background.retry(:one);
SELECT state, attempt, finished_at FROM background.tasks WHERE id = :one;
SELECT param_values, expires_at FROM background.task WHERE id = :one;
-- In one transaction.
BEGIN;
SELECT background.cancel(:one);
SELECT background.retry(:one);
SELECT background.cancel(:one);
ROLLBACK;
SELECT state FROM background.tasks WHERE id = :one;
BEGIN;
SELECT background.enqueue('SELECT 2') AS two \gset
SELECT regexp_replace(error_line(format('SELECT background.wait(%s)', :two)), 'task \d+', 'task n');
COMMIT;
SELECT background.cancel(:two);
-- Ids.
SELECT error_line('SELECT background.cancel(9000000000)');
SELECT error_line('SELECT background.wait(9000000000)');
SELECT error_line('SELECT background.retry(0)');
SELECT error_line('SELECT background.result(-1)');
BEGIN;
SELECT background.enqueue('SELECT 3') AS gone \gset
ROLLBACK;
SELECT background.cancel(:gone), background.wait(:gone), background.retry(:gone), (SELECT count(*) FROM background.result(:gone));
CALL background.wait_for(:gone);
-- An error unless it is done.
SELECT regexp_replace(error_line(format('CALL background.wait_for(%s)', :two)), '\d+ was', 'n was');
SELECT regexp_replace(error_line(format('CALL background.wait_for(%s, 1)', :one)), 'task \d+', 'task n');
-- As a run would leave it.
INSERT INTO background.run_failed (task_id, attempt, ended, state, queue, owner, finished_at, sqlstate, message, detail, hint, sql, mode, key, priority, home, enqueued_at, search_path, keep_result, on_parent_failure)
	SELECT id, 5, true, 'failed', queue, owner, now(), '22012', 'division by zero', 'a detail', 'a hint', sql, mode, key, priority, home, enqueued_at, search_path, keep_result, on_parent_failure FROM background.task WHERE id = :one;
DELETE FROM background.task WHERE id = :one;
SELECT error_line(format('CALL background.wait_for(%s)', :one));
SELECT attempt, state, sqlstate, message FROM background.runs WHERE task_id = :one;
SELECT state, sqlstate, error_message, attempt FROM background.tasks WHERE id = :one;
SELECT background.retry(:one);
SELECT state, attempt FROM background.tasks WHERE id = :one;
INSERT INTO background.run_1 (task_id, attempt, ended, state, queue, owner, finished_at, result)
	SELECT id, 1, true, 'done', queue, owner, now(), '[{"a": 1}, {"a": 2}]' FROM background.task WHERE id = :one;
DELETE FROM background.task WHERE id = :one;
SELECT background.result(:one);
SELECT * FROM background.result(:one);
SELECT background.wait(:one), background.retry(:one), background.cancel(:one);
CALL background.wait_for(:one);
SELECT background.current_task(), background.current_attempt();
-- Rights.
SELECT background.enqueue('SELECT 4', key => 'secret') AS four \gset
SET ROLE regress_tasks_alice;
SELECT regexp_replace(error_line(format('SELECT background.%s(%s)', verb, id)), 'task \d+', 'task n')
FROM unnest(ARRAY['cancel', 'retry', 'wait', 'result']) AS verb, unnest(ARRAY[:one, :four]) AS id;
SELECT count(*) FROM background.tasks WHERE id IN (:one, :four);
SELECT background.enqueue('SELECT 5', key => 'mine', label => 'alice') AS five \gset
SET ROLE regress_tasks_monitor;
SELECT id = :five AS five, sql, key, nullif(owner, session_user) AS owner, label, state FROM background.tasks WHERE id IN (:four, :five) ORDER BY tasks.id;
SELECT count(*) FROM background.runs WHERE task_id = :one AND message IS NULL;
SELECT count(*) > 0 FROM background.queues;
SELECT error_line('SELECT background.enqueue(''SELECT 1'')');
SELECT error_line('TABLE background.task');
RESET ROLE;
GRANT regress_tasks_alice TO regress_tasks_bob;
SET ROLE regress_tasks_bob;
SELECT sql, key FROM background.tasks WHERE id IN (:four, :five);
SELECT background.cancel(:five);
RESET ROLE;
GRANT pg_signal_backend TO regress_tasks_bob;
REVOKE regress_tasks_alice FROM regress_tasks_bob;
SET ROLE regress_tasks_alice;
SELECT background.retry(:five);
SET ROLE regress_tasks_bob;
SELECT background.cancel(:five);
SELECT background.cancel(:five) AS again;
SELECT regexp_replace(error_line(format('SELECT background.cancel(%s)', :four)), 'task \d+', 'task n');
SELECT error_line('SELECT background.activate()');
RESET ROLE;
-- Retry and keys.
SELECT background.enqueue('SELECT 6', key => 'r') AS six \gset
SELECT background.cancel(:six);
SELECT background.enqueue('SELECT 7', key => 'r') AS seven \gset
SELECT regexp_replace(error_line(format('SELECT background.retry(%s)', :six)), '\d+\.', 'n.');
SELECT background.cancel(:seven);
SELECT background.retry(:six);
-- A role that is dropped, and one that has another name.
CREATE ROLE regress_tasks_gone LOGIN;
GRANT pgbackground_role TO regress_tasks_gone;
SET ROLE regress_tasks_gone;
SELECT background.enqueue('SELECT 8') AS eight \gset
RESET ROLE;
ALTER ROLE regress_tasks_gone RENAME TO regress_tasks_renamed;
SELECT owner FROM background.tasks WHERE id = :eight;
DROP OWNED BY regress_tasks_renamed;
DROP ROLE regress_tasks_renamed;
SELECT owner FROM background.tasks WHERE id = :eight;
SELECT background.cancel(:eight);
-- The type keeps a role that is missing by its name.
SELECT 'no such role'::background.role, background.role_oid('no such role'), background.role_oid('regress_tasks_bob') = 'regress_tasks_bob'::regrole AS same,
	'a'::background.role OPERATOR(background.<) 'b' AS less, 'a'::background.role OPERATOR(background.=) 'a' AS equal;
