-- What others have planted is not called with more rights than the caller's, and what fails leaves nothing behind.
-- Operators and functions in the path, for the types of the extension's columns: none of them is called.
CREATE SCHEMA tasks_planted;
DO $$
DECLARE
	type text;
	name text;
BEGIN
	FOREACH type IN ARRAY '{text,int8,int4,oid,bool,name,timestamptz,interval,jsonb,"\"char\"",background.role}'::text[] LOOP
		EXECUTE format('CREATE FUNCTION tasks_planted.boom(%s, %1$s) RETURNS bool LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION ''''called''''; END''', type);
		FOREACH name IN ARRAY '{=,<>,<,>,<=,>=}'::text[] LOOP
			EXECUTE format('CREATE OPERATOR tasks_planted.%s (LEFTARG = %s, RIGHTARG = %2$s, FUNCTION = tasks_planted.boom)', name, type);
		END LOOP;
		FOREACH name IN ARRAY '{count,min,max,abs,role_oid,role_name,sight_of,totals_of,jsonb_typeof}'::text[] LOOP
			EXECUTE format('CREATE FUNCTION tasks_planted.%I(%s) RETURNS text LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION ''''called''''; END''', name, type);
		END LOOP;
	END LOOP;
	FOREACH name IN ARRAY '{now,clock_timestamp,statement_timestamp,running_now}'::text[] LOOP
		EXECUTE format('CREATE FUNCTION tasks_planted.%I() RETURNS timestamptz LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION ''''called''''; END''', name);
	END LOOP;
END $$;
CREATE TABLE tasks_planted.task (); CREATE TABLE tasks_planted.queue (); CREATE TABLE tasks_planted.run_failed ();
GRANT USAGE ON SCHEMA tasks_planted TO PUBLIC;
SELECT background.set_queue('tasks_planted');
SET search_path = tasks_planted, pg_catalog, public;
SET ROLE regress_tasks_alice;
SELECT background.enqueue('SELECT 1', key => 'planted', queue => 'tasks_planted', concurrency_key => 'c', settings => '{"a.b": 1}', run_at => 'infinity') AS one \gset
SELECT background.enqueue('SELECT 2', key => 'planted', on_conflict => 'replace', expires_at => 'infinity') OPERATOR(pg_catalog.=) :one AS replaced;
SELECT background.enqueue('SELECT 3', after => ARRAY[:one], params => row(1, 'x'::text)) AS two \gset
SELECT background.wait(:one, 1) IS NULL, background.cancel(:one), background.retry(:one), background.cancel(:one), background.wait(:two);
SELECT background.result(:two);
CALL background.wait_for(NULL);
SELECT enabled FROM background.status();
SELECT state FROM background.tasks WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY[:one, :two]::pg_catalog.int8[]);
SELECT attempt FROM background.runs WHERE task_id OPERATOR(pg_catalog.=) :one;
SELECT waiting FROM background.queues WHERE name OPERATOR(pg_catalog.=) 'tasks_planted';
RESET ROLE;
SELECT background.set_queue('tasks_planted', max_running => 1, roles => '{pg_monitor}', keep_done => '1 h');
SELECT background.activate();
SELECT background.drop_queue('tasks_planted');
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA tasks_planted CASCADE;
RESET client_min_messages;
-- Types whose functions do harm. An output function runs as the caller, and before anything is done as somebody else.
CREATE TABLE tasks_called (function text, who text, how text);
GRANT INSERT ON tasks_called TO PUBLIC;
CREATE TYPE tasks_odd;
SET client_min_messages = warning; -- the server has words on shells
CREATE FUNCTION tasks_odd_in(cstring) RETURNS tasks_odd LANGUAGE internal STRICT IMMUTABLE AS 'textin';
CREATE FUNCTION tasks_odd_out(tasks_odd) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'textout';
RESET client_min_messages;
CREATE TYPE tasks_odd (INPUT = tasks_odd_in, OUTPUT = tasks_odd_out, LIKE = text);
CREATE FUNCTION tasks_odd_calls(what text) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tasks_called VALUES (what, current_user, current_setting('search_path'));
	RETURN true;
END $$;
CREATE DOMAIN tasks_checked AS text CHECK (tasks_odd_calls(value));
SET ROLE regress_tasks_alice;
SELECT background.enqueue('SELECT $1', row('a'::tasks_checked, 'b'::text::tasks_odd), label => 'hostile') > 0 AS enqueued;
RESET ROLE;
SELECT DISTINCT function, who FROM tasks_called ORDER BY 1;
SELECT param_types, param_values FROM background.task WHERE label = 'hostile';
-- One that raises: the settings under which it ran are those of before.
CREATE TYPE tasks_mute;
SET client_min_messages = warning; -- the server has words on shells
CREATE FUNCTION tasks_mute_in(cstring) RETURNS tasks_mute LANGUAGE internal STRICT IMMUTABLE AS 'textin';
CREATE FUNCTION tasks_mute_out(tasks_mute) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'anyelement_out';
RESET client_min_messages;
CREATE TYPE tasks_mute (INPUT = tasks_mute_in, OUTPUT = tasks_mute_out, LIKE = text);
SET datestyle = 'German';
SELECT error_line('SELECT background.enqueue(''SELECT $1'', row(now(), ''x''::tasks_mute), label => ''hostile'')');
SELECT error_line('SELECT background.enqueue(''SELECT $1'', row(ARRAY[''x''::tasks_mute]), label => ''hostile'')');
SHOW datestyle;
SHOW search_path;
RESET datestyle;
SELECT count(*) FROM background.tasks WHERE label = 'hostile';
-- Triggers, rules and policies cannot be put on the tables by anybody but their owner.
CREATE SCHEMA tasks_alice AUTHORIZATION regress_tasks_alice;
SET ROLE regress_tasks_alice;
SELECT error_line(command) FROM unnest(ARRAY[
	'CREATE TRIGGER t BEFORE INSERT ON background.task FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()',
	'CREATE RULE r AS ON INSERT TO background.task DO INSTEAD NOTHING', 'CREATE POLICY p ON background.task USING (true)',
	'ALTER TABLE background.task ENABLE ROW LEVEL SECURITY', 'CREATE TABLE tasks_alice.tasks_child () INHERITS (background.task)',
	'CREATE TABLE tasks_alice.tasks_reference (id int8 REFERENCES background.task)', 'CREATE INDEX ON background.task (label)',
	'LOCK TABLE background.task IN ACCESS EXCLUSIVE MODE', 'SELECT nextval(''background.task_id'')', 'SELECT setval(''background.task_id'', 1)',
	'CREATE FUNCTION background.f() RETURNS int LANGUAGE sql RETURN 1', 'SELECT background.set_queue(''default'')',
	'COMMENT ON TABLE background.task IS ''mine''', 'TABLE background.task', 'UPDATE background.queue SET paused = true']) AS command;
RESET ROLE;
SELECT count(background.cancel(id)) FROM background.tasks WHERE label = 'hostile' AND state = 'waiting';
DROP SCHEMA tasks_alice;
SET client_min_messages = warning;
DROP FUNCTION tasks_odd_calls CASCADE;
DROP TYPE tasks_odd, tasks_mute CASCADE;
RESET client_min_messages;
DROP TABLE tasks_called;
-- Where nothing may be enqueued: in an aborted transaction, in a parallel worker, in what runs with somebody's rights unasked.
BEGIN;
SELECT 1 / 0;
SELECT background.enqueue('SELECT 1');
ROLLBACK;
CREATE FUNCTION tasks_safe() RETURNS int8 LANGUAGE sql PARALLEL SAFE AS $$ SELECT background.enqueue('SELECT 1') $$;
CREATE TABLE tasks_rows AS SELECT 1 AS a FROM generate_series(1, 1000);
ALTER TABLE tasks_rows SET (parallel_workers = 2);
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
SELECT error_line('SELECT count(*) FROM tasks_rows WHERE tasks_safe() > 0');
CREATE FUNCTION tasks_safe(verb text) RETURNS bool LANGUAGE plpgsql PARALLEL SAFE AS $$
BEGIN
	CASE verb
		WHEN 'cancel' THEN PERFORM background.cancel(max(id)) FROM background.tasks WHERE state = 'waiting';
		WHEN 'retry' THEN PERFORM background.retry(max(id)) FROM background.tasks WHERE state = 'canceled';
		WHEN 'set_queue' THEN PERFORM background.set_queue('tasks_parallel');
		WHEN 'drop_queue' THEN PERFORM background.drop_queue('tasks_planted');
	END CASE;
	RETURN true;
END $$;
SELECT verb, left(error_line(format('SELECT count(*) FROM tasks_rows WHERE tasks_safe(%L)', verb)), 5) AS sqlstate
FROM unnest(ARRAY['cancel', 'retry', 'set_queue', 'drop_queue']) AS verb;
RESET ALL;
SET pg_background.tasks = off;
CREATE FUNCTION tasks_stable() RETURNS int8 LANGUAGE sql AS $$ SELECT background.enqueue('SELECT 1') $$;
CREATE MATERIALIZED VIEW tasks_view AS SELECT tasks_stable() AS a WITH NO DATA;
SELECT error_line('REFRESH MATERIALIZED VIEW tasks_view');
CREATE FUNCTION tasks_again(verb text) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
	CASE verb
		WHEN 'retry' THEN PERFORM background.retry(1);
		WHEN 'retry_operation' THEN PERFORM background.retry_operation(1);
		WHEN 'alter_operation' THEN PERFORM background.alter_operation(1, paused => true);
	END CASE;
	RETURN true;
END $$;
CREATE TABLE tasks_verb (verb text);
CREATE MATERIALIZED VIEW tasks_again AS SELECT tasks_again(verb) FROM tasks_verb WITH NO DATA;
INSERT INTO tasks_verb VALUES ('retry');
SELECT error_line('REFRESH MATERIALIZED VIEW tasks_again');
UPDATE tasks_verb SET verb = 'retry_operation';
SELECT error_line('REFRESH MATERIALIZED VIEW tasks_again');
UPDATE tasks_verb SET verb = 'alter_operation';
SELECT error_line('REFRESH MATERIALIZED VIEW tasks_again');
DROP MATERIALIZED VIEW tasks_again;
DROP TABLE tasks_verb;
DROP FUNCTION tasks_again;
-- As a role that is dropped in the same transaction.
CREATE ROLE regress_tasks_short LOGIN;
GRANT pgbackground_role TO regress_tasks_short;
BEGIN;
SET LOCAL ROLE regress_tasks_short;
SELECT background.enqueue('SELECT 1', label => 'short') > 0 AS enqueued;
RESET ROLE;
DROP OWNED BY regress_tasks_short;
DROP ROLE regress_tasks_short;
COMMIT;
SELECT owner, state FROM background.tasks WHERE label = 'short';
SELECT background.cancel(id) FROM background.tasks WHERE label = 'short';
-- And one that is made in it.
BEGIN;
CREATE ROLE regress_tasks_short LOGIN;
GRANT pgbackground_role TO regress_tasks_short;
SET LOCAL ROLE regress_tasks_short;
SELECT background.enqueue('SELECT 2', label => 'short') > 0 AS enqueued;
ROLLBACK;
SELECT count(*) FROM background.tasks WHERE sql = 'SELECT 2' AND label = 'short';
-- A role that is made anew under the name of one that was dropped has nothing of that, here or where a dump is restored.
CREATE ROLE regress_tasks_short LOGIN;
GRANT pgbackground_role TO regress_tasks_short;
SET ROLE regress_tasks_short;
SELECT background.enqueue('SELECT 3', run_at => '2100-01-01', label => 'old') AS old \gset
RESET ROLE;
DROP ROLE regress_tasks_short;
SELECT owner::text FROM background.task WHERE id = :old;
CREATE ROLE regress_tasks_short LOGIN;
GRANT pgbackground_role TO regress_tasks_short;
SELECT owner::text ~ '^\d+$' AS dumped, (SELECT t.owner::text ~ '^\d+$' FROM background.tasks AS t WHERE id = :old) AS shown, background.role_oid(owner) AS oid, background.role_oid(owner::text::background.role) AS restored
FROM background.task WHERE id = :old;
SET ROLE regress_tasks_short;
SELECT count(*) FROM background.tasks WHERE id = :old;
SELECT regexp_replace(error_line(format('SELECT background.cancel(%s)', :old)), 'task \d+', 'task n');
RESET ROLE;
SELECT background.cancel(:old);
DROP ROLE regress_tasks_short;
DROP MATERIALIZED VIEW tasks_view;
DROP FUNCTION tasks_stable, tasks_safe(), tasks_safe(text);
DROP TABLE tasks_rows;
