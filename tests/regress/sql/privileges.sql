\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- the roles of this file, and pgbackground_role, are the cluster's: no other database may use them
CREATE ROLE regress_background_none;
CREATE ROLE regress_background_member IN ROLE pgbackground_role;
CREATE ROLE regress_background_granted;
SELECT rolcanlogin, rolinherit, rolsuper FROM pg_roles WHERE rolname = 'pgbackground_role';
-- what a role may use: functions, procedures, types, views
CREATE FUNCTION usable_by(role text) RETURNS TABLE (kind text, usable bigint, all_of bigint) LANGUAGE sql AS $$
	SELECT object.type, count(*) FILTER (WHERE CASE object.type
			WHEN 'view' THEN has_table_privilege(role, objid, 'SELECT')
			WHEN 'type' THEN has_type_privilege(role, objid, 'USAGE')
			ELSE has_function_privilege(role, objid, 'EXECUTE') END), count(*)
	FROM pg_depend, pg_identify_object(classid, objid, 0) AS object
	WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_background')
		-- array types and row types of views are members from version 18 on
		AND (classid <> 'pg_type'::regclass OR EXISTS (SELECT FROM pg_type JOIN pg_class ON pg_class.oid = typrelid WHERE pg_type.oid = objid AND relkind = 'c'))
	GROUP BY object.type ORDER BY object.type;
$$;
SELECT * FROM usable_by('public');
SELECT * FROM usable_by('regress_background_none');
SELECT * FROM usable_by('pgbackground_role');
SELECT * FROM usable_by('regress_background_member');
SELECT proname FROM pg_proc WHERE proname ~ '^pg_background' AND NOT has_function_privilege('pgbackground_role', oid, 'EXECUTE') ORDER BY proname;
SET ROLE regress_background_none;
SELECT pg_background_launch('SELECT 1');
SELECT * FROM pg_background_list;
CALL pg_background_do('SELECT 1');
SELECT pg_background_grant_privileges('regress_background_none');
RESET ROLE;
SET ROLE regress_background_member;
SELECT * FROM pg_background_launch('SELECT current_user::text') \gset job_
SELECT state IN ('starting', 'running', 'stopped') FROM pg_background_list;
SELECT count(*) FROM pg_background_activity;
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (name text);
SELECT workers_launched FROM pg_background_stats();
SELECT pg_background_grant_privileges('regress_background_none');
SELECT pg_background_drop_executor_role();
-- a job may not do what its user may not do
SELECT state, sqlstate FROM pg_background_run('CREATE ROLE regress_background_more');
SELECT state, sqlstate FROM pg_background_run('COPY (SELECT 1) TO PROGRAM ''cat > /dev/null''');
RESET ROLE;
-- the helpers
SELECT pg_background_grant_privileges('regress_background_granted');
SELECT * FROM usable_by('regress_background_granted');
SELECT pg_background_grant_privileges('regress_background_granted');
SET ROLE regress_background_granted;
SELECT state FROM pg_background_run('SELECT 1');
RESET ROLE;
SELECT pg_background_revoke_privileges('regress_background_granted');
SELECT * FROM usable_by('regress_background_granted');
DROP ROLE regress_background_granted;
-- a role whose name needs quotes
CREATE ROLE "regress background ""odd"" role";
SELECT pg_background_grant_privileges('regress background "odd" role', true);
SELECT * FROM usable_by('regress background "odd" role');
SELECT pg_background_revoke_privileges('regress background "odd" role', true);
DROP ROLE "regress background ""odd"" role";
-- no such role: false, and a notice
SET client_min_messages = warning;
SELECT pg_background_grant_privileges('regress_background_missing'), pg_background_revoke_privileges('regress_background_missing');
RESET client_min_messages;
SELECT code IS NULL FROM error_of('SELECT pg_background_grant_privileges(''regress_background_missing'')');
SELECT pg_background_grant_privileges('x; DROP ROLE regress_background_none');
-- a SECURITY DEFINER function: its job is its owner's and stays so
CREATE TABLE who (step int, name text, session text);
GRANT INSERT ON who TO PUBLIC;
CREATE FUNCTION definer_run(job text, OUT state text, OUT sqlstate text) LANGUAGE sql SECURITY DEFINER SET search_path = public AS $$SELECT state, sqlstate FROM pg_background_run(job)$$;
ALTER FUNCTION definer_run(text) OWNER TO regress_background_member;
SELECT state FROM definer_run('INSERT INTO who VALUES (1, current_user, session_user)');
SELECT * FROM definer_run('BEGIN; INSERT INTO who VALUES (2, current_user); COMMIT; RESET ROLE; INSERT INTO who VALUES (3, current_user)');
SELECT * FROM definer_run('SET ROLE none; INSERT INTO who VALUES (4, current_user)');
SELECT * FROM definer_run('SET SESSION AUTHORIZATION DEFAULT; INSERT INTO who VALUES (5, current_user)');
SELECT * FROM definer_run('RESET SESSION AUTHORIZATION; INSERT INTO who VALUES (6, current_user)');
SELECT * FROM definer_run('DO $x$BEGIN EXECUTE ''RESET ROLE''; INSERT INTO who VALUES (7, current_user); END$x$');
SELECT state FROM definer_run('SELECT set_config(''role'', ''none'', false); INSERT INTO who VALUES (8, current_user)');
SELECT DISTINCT name FROM who;
SELECT state FROM definer_run('DISCARD ALL');
DROP FUNCTION definer_run(text);
DROP TABLE who;
-- DROP EXTENSION leaves the role, CREATE EXTENSION finds it
SELECT current_database() AS here \gset
CREATE DATABASE regress_background_other;
\c regress_background_other
CREATE EXTENSION pg_background;
DROP EXTENSION pg_background;
SELECT count(*) FROM pg_roles WHERE rolname = 'pgbackground_role';
CREATE EXTENSION pg_background;
SELECT has_function_privilege('pgbackground_role', 'pg_background_stats()', 'EXECUTE');
DROP EXTENSION pg_background;
\c :"here"
DROP DATABASE regress_background_other;
-- drop_executor_role: not while something else depends on the role
CREATE TABLE owned (n int);
GRANT SELECT ON owned TO pgbackground_role;
SELECT code FROM error_of('SELECT pg_background_drop_executor_role()');
SELECT count(*) FROM pg_roles WHERE rolname = 'pgbackground_role';
SELECT * FROM usable_by('pgbackground_role');
DROP TABLE owned;
SELECT pg_background_drop_executor_role();
SELECT count(*) FROM pg_roles WHERE rolname = 'pgbackground_role';
SELECT * FROM usable_by('public');
DROP EXTENSION pg_background;
CREATE EXTENSION pg_background;
SELECT count(*) FROM pg_roles WHERE rolname = 'pgbackground_role';
DROP FUNCTION usable_by(text);
DROP ROLE regress_background_none, regress_background_member;
