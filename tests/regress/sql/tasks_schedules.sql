-- Schedules: how they are made, changed and dropped. Nothing is to run here.
SET TimeZone = 'Europe/Berlin';
SELECT background.schedule('nightly', '0 3 * * *', 'SELECT 1') = currval('background.schedule_id') AS id;
SELECT name, spec, sql, time_zone, overlap, catch_up, queue, mode, database, owner = CURRENT_USER AS owner, enabled,
	(next_at AT TIME ZONE 'Europe/Berlin')::time AS next_at, next_at > now() AND next_at < now() + '25 h' AS soon,
	last_at, last_state, last_task, last_duration, runs_total, failures_total, skipped_total, missed_total, error
FROM background.schedules;
SELECT background.schedule('all', 'every 1 hour', 'VACUUM', time_zone => 'america/new_york', overlap => 'queue', catch_up => 'all', jitter => '5 min',
	queue => 'default', label => 'all of it', priority => 3, concurrency_key => 'k', max_attempts => 4, retry_delay => '2 s', timeout => '3 s', expires_after => '1 day',
	keep_result => true, settings => '{"work_mem": "7MB"}', starts_at => 'tomorrow', ends_at => '2100-01-01', enabled => false) > 0;
SELECT name, time_zone, overlap, catch_up, jitter, label, priority, concurrency_key, mode, enabled, next_at, max_attempts, retry_delay, timeout, expires_after,
	keep_result, settings, starts_at = timestamptz 'tomorrow' AS starts_at, ends_at = timestamptz '2100-01-01' AS ends_at FROM background.schedules WHERE name = 'all';
SELECT next_due = (SELECT min(next_at) FROM background.schedules) AS next_due FROM background.status();
-- NULL is the default.
SELECT background.schedule('nulls', 'every 1 hour', 'SELECT 1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) > 0;
SELECT spec, time_zone, overlap, catch_up, jitter, queue, label, priority, max_attempts, mode, keep_result, enabled FROM background.schedules WHERE name = 'nulls';
SELECT background.unschedule('nulls');
-- The same name again: the id and what has been so far stay. With the same times it goes on as it was.
SELECT id, next_at, created_at FROM background.schedules WHERE name = 'all' \gset all_
SELECT id, next_at FROM background.schedules WHERE name = 'nightly' \gset
UPDATE background.firing SET runs_total = 5, next_at = next_at - interval '1 day', occurs_at = occurs_at - interval '1 day' WHERE schedule = :id;
SELECT background.schedule('nightly', '0 3 * * *', 'SELECT 2', params => ROW(1, 'x'::text)) = :id AS same;
SELECT sql, runs_total, next_at = timestamptz :'next_at' - interval '1 day' AS goes_on FROM background.schedules WHERE name = 'nightly';
SELECT background.schedule('nightly', '0 3 * * *', 'SELECT 2', time_zone => 'Asia/Kolkata') = :id AS same;
SELECT time_zone, runs_total, next_at > now() AS anew FROM background.schedules WHERE name = 'nightly';
SELECT background.schedule('nightly', '0 3 * * *', 'SELECT 2', enabled => false) = :id AS same;
SELECT next_at, enabled FROM background.schedules WHERE name = 'nightly';
-- Counted from the creation, also after a replacement.
SELECT background.schedule('hours', 'every 2 hours', 'SELECT 1') AS hours_id \gset
UPDATE background.schedule SET created_at = created_at - interval '3 h' WHERE name = 'hours';
SELECT background.schedule('hours', 'every 2 hours', 'SELECT 1', jitter => '1 us') = :hours_id AS same;
SELECT next_at BETWEEN created_at + interval '4 h' AND created_at + interval '4 h 1 us' AS counted FROM background.schedules WHERE name = 'hours';
SELECT background.alter_schedule('hours', starts_at => now() + interval '30 min');
SELECT next_at BETWEEN starts_at AND starts_at + interval '1 us' AS at_the_start FROM background.schedules WHERE name = 'hours';
SELECT background.alter_schedule('hours', starts_at => now() + interval '30 min', ends_at => now() + interval '30 min');
SELECT background.alter_schedule('hours', starts_at => now() - interval '30 min', ends_at => now() + interval '1 min');
SELECT next_at, enabled FROM background.schedules WHERE name = 'hours';
SELECT background.unschedule('hours'), background.unschedule('hours'), background.unschedule(NULL);
-- alter_schedule: NULL leaves a setting as it is.
SELECT background.alter_schedule('all');
SELECT id = :all_id AS id, created_at = timestamptz :'all_created_at' AS created_at, name, spec, sql, time_zone, overlap, catch_up, jitter, label, priority, concurrency_key, mode, enabled, next_at,
	max_attempts, retry_delay, timeout, expires_after, keep_result, settings, starts_at IS NOT NULL AS starts_at, ends_at IS NOT NULL AS ends_at FROM background.schedules WHERE name = 'all';
SELECT background.alter_schedule('all', jitter => '0', label => '', concurrency_key => '', timeout => '0', expires_after => '0', settings => '{}', starts_at => 'infinity', ends_at => '-infinity');
SELECT jitter, label, concurrency_key, timeout, expires_after, settings, starts_at, ends_at FROM background.schedules WHERE name = 'all';
SELECT background.alter_schedule('all', '0 * * * *', 'SELECT $1', ROW(7), 'UTC', 'allow', 'none', '1 s', 'default', 'l', 9, 'c', 2, '1 h', '2 h', '3 h', 'transaction', current_database(), '{"a.b": 1}', false,
	'2020-01-01', '2200-01-01', true);
SELECT spec, sql, time_zone, overlap, catch_up, jitter, label, priority, concurrency_key, mode, database = current_database() AS here, enabled, next_at IS NOT NULL AS due,
	max_attempts, retry_delay, timeout, expires_after, keep_result, settings, extract(year FROM starts_at) AS starts_at, extract(year FROM ends_at) AS ends_at FROM background.schedules WHERE name = 'all';
SELECT param_types, param_values FROM background.schedule WHERE name = 'all';
SELECT background.alter_schedule('all', params => ROW(), sql => 'SELECT 1', mode => 'auto');
SELECT param_types, param_values, mode, asked_mode FROM background.schedule WHERE name = 'all';
SELECT background.alter_schedule('all', sql => 'VACUUM');
SELECT mode, asked_mode FROM background.schedule WHERE name = 'all';
-- A change belongs to the transaction.
BEGIN;
SELECT background.alter_schedule('all', enabled => false);
SELECT background.schedule('other', '* * * * *', 'SELECT 1') > 0;
SELECT background.unschedule('nightly');
SELECT name, enabled FROM background.schedules ORDER BY name;
ROLLBACK;
SELECT name, enabled FROM background.schedules ORDER BY name;
-- run_schedule.
SELECT background.schedule('nightly', '0 3 * * *', 'SELECT $1', ROW(1)) = :id AS same;
SELECT background.run_schedule('nightly') AS first, background.run_schedule('nightly') AS second \gset
SELECT id = :first AS first, queue, label, state, mode, sql, max_attempts, schedule, run_at, owner = CURRENT_USER AS owner FROM background.tasks WHERE schedule = 'nightly' ORDER BY id;
SELECT runs_total, last_task = :second AS last, last_state, last_duration, last_at > now() - interval '1 min' AS last_at FROM background.schedules WHERE name = 'nightly';
SELECT background.cancel(:second);
SELECT last_state, failures_total FROM background.schedules WHERE name = 'nightly';
SELECT background.cancel(:first);
SELECT background.run_schedule(NULL);
-- The label is the name, as far as it fits.
SELECT background.schedule(repeat('x', 60) || 'äöü' || repeat('y', 100), 'every 1 day', 'SELECT 1', enabled => false) > 0;
SELECT count(background.run_schedule(name)) FROM background.schedules WHERE name LIKE 'xxx%';
SELECT label, octet_length(label) FROM background.tasks WHERE label LIKE 'xxx%';
SELECT background.cancel(id), background.unschedule(schedule) FROM background.tasks WHERE schedule LIKE 'xxx%';
-- Never due.
SELECT background.schedule('past', 'every 1 hour', 'SELECT 1', ends_at => '2020-01-01') > 0;
SELECT next_at, error FROM background.schedules WHERE name = 'past';
SELECT background.unschedule('past');
SELECT spec, error_line(format('SELECT background.schedule(''e'', %L, ''SELECT 1'', time_zone => ''UTC'')', spec))
FROM unnest('{at 2020-01-01 00:00,"  at  2020-01-01 00:00Z",every 10000000 years,every 178000000 years,every 293000 years,every 109500000 days}'::text[]) AS spec;
SELECT error_line('SELECT background.schedule(''e'', ''at 2020-01-01 00:00'', ''SELECT 1'', enabled => false)');
SELECT error_line('SELECT background.preview_schedule(''every 10000000 years'')');
-- What is there already may have been due.
SELECT background.schedule('once', 'at 2200-01-01 00:00', 'SELECT 1') > 0;
UPDATE background.schedule SET spec = 'at 2020-01-01 00:00' WHERE name = 'once';
SELECT background.schedule('once', 'at 2020-01-01 00:00', 'SELECT 2') > 0;
SELECT background.alter_schedule('once', enabled => false), background.alter_schedule('once', enabled => true);
SELECT background.alter_schedule('once', time_zone => 'UTC', spec => 'at 2020-01-01 00:00');
SELECT error_line('SELECT background.alter_schedule(''once'', spec => ''at 2020-01-01 00:01'')');
SELECT error_line('SELECT background.schedule(''once'', ''at 2020-01-01 00:01'', ''SELECT 3'')');
SELECT spec, sql, next_at FROM background.schedules WHERE name = 'once';
-- The start is an occurrence.
SELECT background.schedule('once', 'every 290000 years', 'SELECT 1', starts_at => '2200-01-01 UTC') > 0;
SELECT next_at = starts_at AS at_the_start, error FROM background.schedules WHERE name = 'once';
SELECT background.unschedule('once');
-- Errors leave nothing behind.
SELECT error_line('SELECT background.schedule(NULL, ''every 1 hour'', ''SELECT 1'')');
SELECT error_line('SELECT background.schedule(''e'', NULL, ''SELECT 1'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', NULL)');
SELECT error_line('SELECT background.schedule('''', ''every 1 hour'', ''SELECT 1'')');
SELECT error_line('SELECT background.schedule(repeat(''x'', 256), ''every 1 hour'', ''SELECT 1'')');
SELECT split_part(error_line('SELECT background.schedule(''e'', ''every now and then'', ''SELECT 1'')'), ' | ', 1);
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', time_zone => ''No/Where'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', overlap => ''skp'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', catch_up => ''two'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', jitter => ''-1 s'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', jitter => ''178000000 years'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', expires_after => ''-1 s'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', queue => ''no such queue'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', label => repeat(''x'', 65))');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', concurrency_key => repeat(''x'', 256))');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', max_attempts => 0)');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', retry_delay => ''-1 s'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', timeout => ''-1 s'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', mode => ''mode'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''VACUUM'', mode => ''transaction'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELEC 1'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', settings => ''[]'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', database => ''no such database'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'', starts_at => ''2030-01-02'', ends_at => ''2030-01-01'')');
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT $1'', ROW(NULL::refcursor, row(1)))');
SELECT error_line('SELECT background.alter_schedule(NULL)');
SELECT error_line('SELECT background.alter_schedule(''no such schedule'')');
SELECT error_line('SELECT background.run_schedule(''no such schedule'')');
SELECT error_line('SELECT background.alter_schedule(''all'', sql => ''SELEC 1'')');
SELECT error_line('SELECT background.alter_schedule(''all'', mode => ''transaction'')');
SELECT error_line('SELECT background.alter_schedule(''all'', time_zone => ''No/Where'')');
SELECT error_line('SELECT background.alter_schedule(''all'', overlap => ''x'')');
SELECT error_line('SELECT background.alter_schedule(''all'', queue => ''no such queue'')');
SELECT error_line('SELECT background.alter_schedule(''all'', label => repeat(''x'', 65))');
SELECT error_line('SELECT background.alter_schedule(''all'', ends_at => ''2019-01-01'')');
BEGIN READ ONLY;
SELECT error_line('SELECT background.schedule(''e'', ''every 1 hour'', ''SELECT 1'')');
SELECT error_line('SELECT background.alter_schedule(''all'')');
SELECT error_line('SELECT background.unschedule(''all'')');
SELECT error_line('SELECT background.run_schedule(''all'')');
ROLLBACK;
SELECT name, sql, queue, overlap, label FROM background.schedules ORDER BY name;
-- Another database: what goes along with the task is checked.
SELECT background.alter_schedule('all', settings => '{}', keep_result => false, database => 'template1');
SELECT mode, database FROM background.schedules WHERE name = 'all';
SELECT background.alter_schedule('all', database => current_database());
-- Queues that schedules name stay.
SELECT background.set_queue('tasks_s', max_waiting => 1);
SELECT background.alter_schedule('nightly', queue => 'tasks_s');
SELECT error_line('SELECT background.drop_queue(''tasks_s'')');
SELECT background.run_schedule('nightly') > 0;
SELECT error_line('SELECT background.run_schedule(''nightly'')');
SELECT background.cancel(id) FROM background.tasks WHERE queue = 'tasks_s';
SELECT background.unschedule('nightly');
SELECT background.drop_queue('tasks_s');
-- Rights. The roles see their own schedules.
SET ROLE regress_tasks_alice;
SELECT error_line('SELECT background.schedule(''all'', ''every 1 hour'', ''SELECT 1'')');
SELECT error_line('SELECT background.alter_schedule(''all'', enabled => false)');
SELECT error_line('SELECT background.unschedule(''all'')');
SELECT error_line('SELECT background.run_schedule(''all'')');
SET search_path = pg_catalog, public;
SELECT background.schedule('alice', 'every 1 hour', 'SELECT 1') > 0;
RESET search_path;
SELECT name, owner FROM background.schedules;
SELECT error_line('SELECT background.import_pg_cron()') LIKE '42501%';
SET ROLE regress_tasks_monitor;
SELECT name, spec, sql, owner = 'regress_tasks_alice' AS alices FROM background.schedules ORDER BY name;
SELECT error_line('SELECT background.run_schedule(''alice'')') LIKE '42501%';
RESET ROLE;
-- pg_cron is not here, and a table of this name is not its.
SELECT error_line('SELECT background.import_pg_cron()');
CREATE SCHEMA cron CREATE TABLE job (jobid int8);
SELECT error_line('SELECT background.import_pg_cron(dry_run => false)');
DROP SCHEMA cron CASCADE;
-- Who has the privileges of the role may change it. It stays that role's.
SELECT error_line('SELECT background.schedule(''alice'', ''every 1 hour'', ''SELECT 1'')');
GRANT regress_tasks_alice TO regress_tasks_bob;
SET ROLE regress_tasks_bob;
SELECT background.alter_schedule('alice', sql => 'SELECT 2');
SELECT background.run_schedule('alice') AS task \gset
SELECT owner, sql FROM background.tasks WHERE id = :task;
SELECT background.cancel(:task);
RESET ROLE;
SELECT search_path FROM background.schedule WHERE name = 'alice';
REVOKE regress_tasks_alice FROM regress_tasks_bob;
ALTER ROLE regress_tasks_alice RENAME TO regress_tasks_alicia;
SELECT owner FROM background.schedules WHERE name = 'alice';
ALTER ROLE regress_tasks_alicia RENAME TO regress_tasks_alice;
-- Names planted by others mean nothing.
CREATE SCHEMA regress_planted;
CREATE FUNCTION regress_planted.eq(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$;
CREATE OPERATOR regress_planted.= (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_planted.eq);
SET search_path = regress_planted, pg_catalog;
SELECT background.schedule('planted', 'every 1 hour', 'SELECT 1') > 0;
SELECT background.alter_schedule('planted', priority => 1);
SELECT background.run_schedule('planted') > 0;
SELECT background.unschedule('planted');
RESET search_path;
DROP SCHEMA regress_planted CASCADE;
SELECT background.cancel(id) FROM background.tasks WHERE schedule = 'planted';
SELECT background.unschedule(name) FROM background.schedules ORDER BY name COLLATE "C";
SELECT count(*) FROM background.firing;
RESET TimeZone;
