-- Metrics of tasks. Nothing runs here: tests/client/tests/metrics.rs has what runs leave behind.
SELECT background.set_queue('metrics "\ ' || E'\n', max_waiting => 7, max_running => 3, paused => true);
SELECT background.set_queue('metrics_b');
SELECT background.schedule('metrics', '0 3 * * *', 'SELECT 1') > 0;
CREATE TABLE metrics_t (id int4 PRIMARY KEY);
SELECT background.parallel_execute('DELETE FROM metrics_t WHERE ctid BETWEEN $1 AND $2', 'metrics_t', label => 'a "label"') > 0;
BEGIN;
SELECT count(background.enqueue('SELECT 1', queue => 'metrics_b')) FROM generate_series(1, 3);
SELECT max(id) AS parent FROM background.tasks WHERE queue = 'metrics_b' \gset
SELECT background.enqueue('SELECT 1', queue => 'metrics_b', run_at => 'infinity') > 0, background.enqueue('SELECT 1', queue => 'metrics_b', after => ARRAY[:parent]) > 0;
COMMIT;
-- The samples of queues.
SELECT labels->>'queue' AS queue, labels->>'state' AS state, value FROM background.metrics() WHERE name = 'pg_background_tasks' AND labels->>'queue' <> 'default' ORDER BY labels->>'queue' COLLATE "C", state;
SELECT name, labels->>'queue' AS queue, CASE WHEN name ~ 'seconds' THEN (value > 0)::text ELSE value::text END FROM background.metrics()
WHERE name ~ 'background_queue|oldest' AND labels->>'queue' <> 'default' ORDER BY name COLLATE "C", labels->>'queue' COLLATE "C";
SELECT background.cancel(:parent);
SELECT name, labels->>'state' AS state, value FROM background.metrics() WHERE labels->>'queue' = 'metrics_b' AND name ~ '_total$' AND value > 0;
-- What roles have done that are gone is not shown: added up it would grow with each of them.
CREATE ROLE regress_metrics_a;
CREATE ROLE regress_metrics_b;
GRANT pgbackground_role TO regress_metrics_a, regress_metrics_b;
SET ROLE regress_metrics_a;
SELECT state FROM pg_background_run('SELECT 1');
SET ROLE regress_metrics_b;
SELECT state FROM pg_background_run('SELECT 1');
RESET ROLE;
SELECT count(*) FROM pg_background_metrics() WHERE name = 'pg_background_jobs_launched_total' AND labels->>'usename' ~ 'regress_metrics' AND value = 1;
DROP ROLE regress_metrics_a, regress_metrics_b;
SELECT count(*) FROM pg_background_metrics() WHERE labels->>'usename' = '' OR labels->>'datname' = '';
-- The families: names, types and help, and their labels.
SELECT name, type, help, (SELECT string_agg(label, ', ' ORDER BY label) FROM jsonb_object_keys(labels) AS label) AS labels
FROM (SELECT * FROM pg_background_metrics() UNION ALL SELECT * FROM background.metrics()) AS _ GROUP BY 1, 2, 3, 4 ORDER BY name COLLATE "C";
-- One help and one type for a family.
SELECT name FROM (SELECT * FROM pg_background_metrics() UNION ALL SELECT * FROM background.metrics()) AS _ GROUP BY name HAVING count(DISTINCT (type, help)) > 1;
SELECT name FROM background.metrics() WHERE value IS NULL OR labels->>'datname' <> current_database();
-- One sample for a name and its labels.
SELECT name, labels FROM (SELECT * FROM pg_background_metrics() UNION ALL SELECT * FROM background.metrics()) AS _ GROUP BY 1, 2 HAVING count(*) > 1;
-- A part alone is the same as in the whole.
SELECT part, count(*) > 0 AS has FROM (VALUES ('queues'), ('counts'), ('status'), ('schedules'), ('operations')) AS _ (part), background.metrics(part) GROUP BY part ORDER BY part;
SELECT count(*) FROM (
	SELECT name, labels FROM background.metrics()
	EXCEPT ALL SELECT name, labels FROM (VALUES ('queues'), ('counts'), ('status'), ('schedules'), ('operations')) AS _ (part), background.metrics(part)
) AS _;
SELECT name, value FROM background.metrics('status');
SELECT error_line(format('SELECT * FROM background.metrics(%L)', part)) FROM unnest('{typo,"",QUEUES}'::text[]) AS part;
-- A schedule that is late, and one whose task failed.
SELECT name, value FROM background.metrics('schedules') WHERE labels->>'schedule' = 'metrics' ORDER BY name COLLATE "C";
UPDATE background.firing SET next_at = now() - interval '1 hour', last_state = 'failed', failures_total = 2
WHERE schedule = (SELECT id FROM background.schedule WHERE name = 'metrics');
SELECT name, CASE WHEN name ~ 'seconds' THEN (value BETWEEN 3600 AND 7200)::text ELSE value::text END FROM background.metrics('schedules')
WHERE labels->>'schedule' = 'metrics' ORDER BY name COLLATE "C";
SELECT background.alter_schedule('metrics', enabled => false);
SELECT value FROM background.metrics('schedules') WHERE labels->>'schedule' = 'metrics' AND name ~ 'late';
-- An operation.
SELECT name, labels - 'operation' - 'datname' AS labels, value FROM background.metrics('operations') WHERE labels->>'label' = 'a "label"' ORDER BY name COLLATE "C", labels;
-- The text: each line is one of those that the format has, and all families are there.
CREATE TEMPORARY TABLE line AS SELECT number, text FROM string_to_table(pg_background_openmetrics(), E'\n') WITH ORDINALITY AS _ (text, number);
SELECT text FROM line WHERE text <> '' AND text !~ '^# (HELP [a-z_]+ .+\.|TYPE [a-z_]+ (counter|gauge|histogram)|EOF)$' AND text !~ '^[a-z_]+\{[a-z]+="([^"\\]|\\["\\n])*"(,[a-z]+="([^"\\]|\\["\\n])*")*\} ([0-9.e+-]+|\+Inf)$' AND text !~ '^[a-z_]+ [0-9.e+-]+$';
SELECT text FROM line WHERE text ~ 'max_waiting|^# EOF' ORDER BY number;
-- Rights.
SET ROLE regress_tasks_monitor;
SELECT count(*) > 10 FROM background.metrics();
SELECT count(*) > 10 FROM pg_background_metrics();
SELECT pg_background_openmetrics() ~ 'metrics_b';
SELECT error_line('SELECT background.counts_of(''default'')');
SET ROLE regress_tasks_alice;
SELECT error_line('SELECT background.metrics()');
SELECT error_line('SELECT pg_background_metrics()');
SELECT error_line('SELECT pg_background_openmetrics()');
SELECT error_line('SELECT pg_background_task_metrics()');
SELECT error_line('SELECT pg_background_gauges()');
RESET ROLE;
SELECT background.unschedule('metrics');
SELECT background.cancel_operation(id) FROM background.operations WHERE label = 'a "label"';
DROP TABLE metrics_t;
SELECT count(background.cancel(id)) FROM background.tasks WHERE queue = 'metrics_b' AND finished_at IS NULL;
SELECT background.drop_queue('metrics_b'), background.drop_queue('metrics "\ ' || E'\n');
