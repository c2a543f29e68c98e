-- Keys, and tasks that wait for others.
SELECT background.enqueue('SELECT 1', key => 'k') AS first \gset
SELECT background.enqueue('SELECT 2', key => 'k') = :first AS kept;
SELECT sql FROM background.tasks WHERE id = :first;
SELECT background.enqueue('SELECT 3', row(7), key => 'k', on_conflict => 'replace', priority => 5, label => 'replaced') = :first AS replaced;
SELECT sql, priority, label, state FROM background.tasks WHERE id = :first;
SELECT regexp_replace(error_line('SELECT background.enqueue(''SELECT 4'', key => ''k'', on_conflict => ''error'')'), '\d+\.', 'n.');
SELECT error_line('SELECT background.enqueue(''SELECT 4'', key => ''k'', queue => ''nowhere'')');
-- Another role, another key.
SET ROLE regress_tasks_alice;
SELECT background.enqueue('SELECT 1', key => 'k') <> :first AS another;
RESET ROLE;
-- One that has begun is no conflict: an attempt has been made.
UPDATE background.task SET attempt = 1 WHERE id = :first;
SELECT background.enqueue('SELECT 5', key => 'k', on_conflict => 'error') AS second \gset
SELECT :second <> :first AS another, (SELECT turn FROM background.task WHERE id = :second);
SELECT background.enqueue('SELECT 6', key => 'k') = :second AS kept;
-- In one transaction.
BEGIN;
SELECT background.enqueue('SELECT 7', key => 'l') AS l \gset
SAVEPOINT a;
SELECT background.enqueue('SELECT 8', key => 'l', on_conflict => 'replace') = :l AS replaced;
ROLLBACK TO a;
COMMIT;
SELECT sql FROM background.tasks WHERE id = :l;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT background.enqueue('SELECT 9', key => 'l', on_conflict => 'replace') = :l AS replaced;
COMMIT;
-- Parents.
SELECT background.enqueue('SELECT 1') AS a \gset
SELECT background.enqueue('SELECT 2', after => ARRAY[:a, :a, :a]) AS b \gset
SELECT background.enqueue('SELECT 3', after => ARRAY[:b]) AS c \gset
SELECT background.enqueue('SELECT 4', after => ARRAY[:a], on_parent_failure => 'run') AS d \gset
SELECT background.enqueue('SELECT 5', after => ARRAY[:a], on_parent_failure => 'run', run_at => now() + interval '1 day') AS e \gset
SELECT sql, state, cardinality(after) FROM background.tasks WHERE id >= :a ORDER BY id;
SELECT background.cancel(:a), background.cancel(:a);
SELECT sql, state FROM background.tasks WHERE id >= :a ORDER BY id;
SELECT count(*) FROM background.dependency;
-- One that has ended counts by how it ended.
SELECT background.enqueue('SELECT 6', after => ARRAY[:a]) AS f \gset
SELECT background.enqueue('SELECT 7', after => ARRAY[:a], on_parent_failure => 'run') AS g \gset
SELECT sql, state FROM background.tasks WHERE id >= :f ORDER BY id;
-- One that was rolled back is done; one that was never given out is an error.
BEGIN;
SELECT background.enqueue('SELECT 8') AS gone \gset
ROLLBACK;
SELECT background.enqueue('SELECT 9', after => ARRAY[:gone]) AS h \gset
SELECT state FROM background.tasks WHERE id = :h;
SELECT error_line('SELECT background.enqueue(''SELECT 1'', after => ''{9000000000}'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', after => ''{0}'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', after => ''{NULL}'')');
SELECT error_line('SELECT background.enqueue(''SELECT 1'', after => ''{-9223372036854775808}'')');
SELECT background.enqueue('SELECT 10', after => '{}') AS i \gset
SELECT state, after FROM background.tasks WHERE id = :i;
-- No cycles.
SELECT background.enqueue('SELECT 11', key => 'm') AS m \gset
SELECT background.enqueue('SELECT 12', after => ARRAY[:m]) AS n \gset
SELECT regexp_replace(error_line(format('SELECT background.enqueue(''SELECT 11'', key => ''m'', on_conflict => ''replace'', after => ARRAY[%s])', :n)), '\d+,', 'n,');
SELECT regexp_replace(error_line(format('SELECT background.enqueue(''SELECT 11'', key => ''m'', on_conflict => ''replace'', after => ARRAY[%s])', :m)), '\d+,', 'n,');
SELECT background.enqueue('SELECT 13', key => 'm', on_conflict => 'replace', after => ARRAY[:h, :i]) = :m AS replaced;
SELECT state FROM background.tasks WHERE id = :m;
SELECT background.enqueue('SELECT 14', key => 'm', on_conflict => 'replace') = :m AS replaced;
SELECT state, (SELECT count(*) FROM background.dependency WHERE child = :m) FROM background.tasks WHERE id = :m;
-- The rights of wait on each.
SET ROLE regress_tasks_alice;
SELECT regexp_replace(error_line(format('SELECT background.enqueue(''SELECT 1'', after => ARRAY[%s])', :i)), 'task \d+', 'task n');
SELECT regexp_replace(error_line(format('SELECT background.enqueue(''SELECT 1'', after => ARRAY[%s])', :a)), 'task \d+', 'task n');
RESET ROLE;
-- Many.
WITH parents AS MATERIALIZED (SELECT background.enqueue('SELECT 15') AS id FROM generate_series(1, 10000))
SELECT background.enqueue('SELECT 16', after => (SELECT array_agg(id) FROM parents)) AS many \gset
SELECT state, (SELECT count(*) FROM background.dependency WHERE child = :many) FROM background.tasks WHERE id = :many;
SELECT background.cancel(:many);
SELECT count(*) FROM background.dependency WHERE child = :many;
