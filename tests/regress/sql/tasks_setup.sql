-- The second extension, and what the files after this one use. Nothing is to run here: the tasks of these files stay where they are.
ALTER DATABASE contrib_regression SET pg_background.tasks = off;
SET pg_background.tasks = off;
-- Version 18 says where in the script.
\set SHOW_CONTEXT never
CREATE SCHEMA background;
CREATE EXTENSION pg_background_tasks;
\set SHOW_CONTEXT errors
DROP SCHEMA background;
CREATE EXTENSION pg_background_tasks;
SELECT extversion, extrelocatable, extconfig::regclass[] FROM pg_extension WHERE extname = 'pg_background_tasks';
-- Everything has a comment but indexes, the columns of tables and what belongs to a type or a table.
SELECT pg_describe_object(classid, objid, 0) FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_background_tasks')
	AND coalesce(obj_description(objid, classid::regclass::name), '') = ''
	AND NOT (classid = 'pg_type'::regclass AND objid <> 'background.role'::regtype);
-- Who may do what.
SELECT relkind, relname, has_table_privilege('pgbackground_role', oid, 'SELECT') AS role, has_table_privilege('pg_monitor', oid, 'SELECT') AS monitor,
	has_table_privilege('pgbackground_role', oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') AS role_writes, relacl::text LIKE '%{=%' OR relacl::text LIKE '%,=%' AS public
FROM pg_class WHERE relnamespace = 'background'::regnamespace AND relkind IN ('r', 'v') ORDER BY 1, 2;
SELECT proname, has_function_privilege('pgbackground_role', oid, 'EXECUTE') AS role,
	has_function_privilege('pg_monitor', oid, 'EXECUTE') AS monitor, proacl::text LIKE '%{=X%' OR proacl::text LIKE '%,=X%' OR proacl IS NULL AS public
FROM pg_proc WHERE pronamespace = 'background'::regnamespace ORDER BY 1;
SELECT has_schema_privilege('pgbackground_role', 'background', 'USAGE'), has_schema_privilege('pg_monitor', 'background', 'USAGE'),
	nspacl::text LIKE '%,=U%' AS public FROM pg_namespace WHERE nspname = 'background';
CREATE ROLE regress_tasks_alice LOGIN;
CREATE ROLE regress_tasks_bob LOGIN;
CREATE ROLE regress_tasks_monitor LOGIN;
GRANT pgbackground_role TO regress_tasks_alice, regress_tasks_bob;
GRANT pg_monitor TO regress_tasks_monitor;
-- The error of a command, as one line.
CREATE FUNCTION error_line(command text) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' | ', code, message, detail, hint) FROM public.error_of(command)
$$;
