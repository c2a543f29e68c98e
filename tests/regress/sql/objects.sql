\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
SELECT extversion, extrelocatable, extnamespace::regnamespace, extconfig FROM pg_extension WHERE extname = 'pg_background';
SELECT superuser, trusted, relocatable, requires FROM pg_available_extension_versions WHERE name = 'pg_background' AND version = '2.1';
-- (array types and row types of views are members from version 18 on)
CREATE VIEW member AS
	SELECT classid, objid FROM pg_depend
	WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_background')
		AND (classid <> 'pg_type'::regclass OR EXISTS (SELECT FROM pg_type JOIN pg_class ON pg_class.oid = typrelid WHERE pg_type.oid = objid AND relkind = 'c'));
-- functions: arguments, defaults, result
SELECT format('%s(%s) %s', proname, pg_get_function_arguments(proc.oid), pg_get_function_result(proc.oid))
	FROM pg_proc AS proc JOIN member ON objid = proc.oid AND classid = 'pg_proc'::regclass
	WHERE proname !~ '_v2$' ORDER BY proname COLLATE "C", pronargs;
-- strict ones, and those that are not VOLATILE, PARALLEL UNSAFE and C
SELECT proc.oid::regprocedure FROM pg_proc AS proc JOIN member ON objid = proc.oid WHERE proisstrict ORDER BY proc.oid::regprocedure::text COLLATE "C";
SELECT proc.oid::regprocedure FROM pg_proc AS proc JOIN member ON objid = proc.oid WHERE provolatile <> 'v' OR proparallel <> 'u' OR prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c');
-- each C function is the one of its own name
SELECT proc.oid::regprocedure FROM pg_proc AS proc JOIN member ON objid = proc.oid WHERE prosrc <> proname OR probin <> '$libdir/pg_background';
-- SECURITY DEFINER ones, and what they have set
SELECT proname, proconfig FROM pg_proc AS proc JOIN member ON objid = proc.oid WHERE prosecdef OR proconfig IS NOT NULL ORDER BY proname;
-- deprecated twins: the same but for the name, and said to be deprecated
CREATE VIEW signature AS
	SELECT proname, pg_get_function_arguments(proc.oid) AS arguments, pg_get_function_result(proc.oid) AS result, proisstrict, proretset, prosecdef, proacl::text, obj_description(proc.oid, 'pg_proc') AS comment
	FROM pg_proc AS proc JOIN member ON objid = proc.oid AND classid = 'pg_proc'::regclass;
SELECT count(*) FROM signature WHERE proname ~ '_v2$';
SELECT proname, arguments FROM signature AS old WHERE proname ~ '_v2$' AND NOT EXISTS
	(SELECT FROM signature WHERE proname || '_v2' = old.proname AND (arguments, result, proisstrict, proretset, prosecdef, proacl) = (old.arguments, old.result, old.proisstrict, old.proretset, old.prosecdef, old.proacl));
SELECT proname FROM signature AS new WHERE proname !~ '_v2$' AND NOT EXISTS (SELECT FROM signature WHERE proname = new.proname || '_v2') ORDER BY proname;
SELECT proname FROM signature WHERE (proname ~ '_v2$') <> (comment ~ 'deprecated');
-- types
SELECT format('%s (%s)', type.typname, string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum))
	FROM pg_type AS type JOIN member ON objid = type.oid JOIN pg_attribute ON attrelid = typrelid
	GROUP BY type.typname ORDER BY type.typname COLLATE "C";
-- views
SELECT format('%s (%s)', relname, string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum))
	FROM pg_class AS class JOIN member ON objid = class.oid JOIN pg_attribute ON attrelid = class.oid
	WHERE attnum > 0 GROUP BY relname ORDER BY relname COLLATE "C";
-- nothing else, and nothing without a comment
SELECT classid::regclass, count(*), count(obj_description(objid, classid::regclass::name)) FROM member GROUP BY classid ORDER BY classid::regclass::text;
-- in a schema of its own, with nothing in the search path
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
CREATE SCHEMA "odd ""schema""";
ALTER EXTENSION pg_background SET SCHEMA "odd ""schema""";
SELECT count(*) FROM member, pg_identify_object(classid, objid, 0) AS object WHERE object.schema IS DISTINCT FROM '"odd ""schema"""';
SET search_path = '';
SELECT x FROM "odd ""schema""".pg_background_result(:job_pid, :job_cookie) AS (x int);
SELECT array["odd ""schema""".pg_background_launch('SELECT 1', 0, 'a'), "odd ""schema""".pg_background_submit('SHOW search_path', 0, 'b')] AS jobs \gset
SELECT count(*) FROM "odd ""schema""".pg_background_list;
SELECT count(*) FROM "odd ""schema""".pg_background_activity;
SELECT pid > 0 FROM "odd ""schema""".pg_background_wait_any(:'jobs');
SELECT label, state FROM "odd ""schema""".pg_background_drain(:'jobs');
SELECT state FROM "odd ""schema""".pg_background_run('SELECT 1');
SELECT * FROM "odd ""schema""".pg_background_run_query('SHOW search_path', col_def => 'x text') AS (x text);
SELECT "odd ""schema""".pg_background_cancel_by_label('%'), "odd ""schema""".pg_background_purge(), "odd ""schema""".pg_background_detach_all(), "odd ""schema""".pg_background_cancel_all();
SELECT workers_launched FROM "odd ""schema""".pg_background_stats();
CALL "odd ""schema""".pg_background_do('SELECT 1');
CREATE ROLE regress_background_user;
SELECT "odd ""schema""".pg_background_grant_privileges('regress_background_user');
SELECT has_function_privilege('regress_background_user', '"odd ""schema""".pg_background_stats()', 'EXECUTE');
SELECT "odd ""schema""".pg_background_revoke_privileges('regress_background_user');
SELECT has_function_privilege('regress_background_user', '"odd ""schema""".pg_background_stats()', 'EXECUTE');
DROP ROLE regress_background_user;
SET search_path = "odd ""schema""";
SELECT pid > 0 FROM pg_background_launch('SELECT 1');
SELECT pg_background_detach_all();
RESET search_path;
ALTER EXTENSION pg_background SET SCHEMA public;
SELECT count(*) FROM member, pg_identify_object(classid, objid, 0) AS object WHERE object.schema <> 'public';
-- functions of the same names in front of the search path are not called
CREATE FUNCTION "odd ""schema""".pg_background_list(OUT label text) RETURNS SETOF text LANGUAGE sql AS $$SELECT 'another'$$;
SET search_path = "odd ""schema""", public;
SELECT label FROM public.pg_background_list;
RESET search_path;
DROP SCHEMA "odd ""schema""" CASCADE;
-- created where the caller says
DROP VIEW signature, member;
DROP EXTENSION pg_background;
CREATE SCHEMA apart;
CREATE EXTENSION pg_background SCHEMA apart VERSION '2.1';
SELECT state FROM apart.pg_background_run('SELECT 1');
ALTER EXTENSION pg_background SET SCHEMA public;
DROP SCHEMA apart;
