-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION pg_background UPDATE" to load this file. \quit

-- From the interface of 1.x to that of 2.0. What 1.x had depends on its release,
-- so each member of the extension is looked at: what already is as in 2.0
-- stays, with the grants on it and what users built on it; what is not goes.
-- Where a user's object depends on something that has to go, the update fails
-- and names it. What others may have planted in the extension's schema means
-- nothing: what they could shadow is qualified.

DO $$
DECLARE
	-- name, columns
	types CONSTANT text[] := ARRAY[
		['pg_background_handle', 'pid integer, cookie bigint'],
		['pg_background_stats', 'workers_launched bigint, workers_completed bigint, '
			 'workers_failed bigint, workers_canceled bigint, '
			 'workers_timed_out bigint, workers_active integer, '
			 'avg_execution_ms double precision, max_workers integer'],
		['pg_background_progress_info', 'progress_pct integer, progress_msg text'],
		['pg_background_result_info', 'row_count bigint, command_tag text, completed boolean, '
			 'has_error boolean, started_at timestamp with time zone, '
			 'finished_at timestamp with time zone'],
		['pg_background_error', 'sqlstate text, message text, detail text, hint text, '
			 'context text, schema_name text, table_name text, '
			 'column_name text, constraint_name text'],
		['pg_background_outcome', 'pid integer, cookie bigint, state text, consumed boolean, '
			 'completed boolean, has_error boolean, row_count bigint, '
			 'command_tag text, sqlstate text, error_message text, label text, '
			 'launched_at timestamp with time zone'],
		['pg_background_run_result', 'pid integer, cookie bigint, state text, consumed boolean, '
			 'completed boolean, has_error boolean, row_count bigint, '
			 'command_tag text, sqlstate text, error_message text, label text, '
			 'launched_at timestamp with time zone, timed_out boolean, '
			 'elapsed_ms bigint']];
	-- name without prefix, arguments, result, strictness, suffix of the twin
	functions CONSTANT text[] := ARRAY[
		['launch', 'sql text, queue_size integer DEFAULT 0', 'pg_background_handle', 'STRICT', '_v2'],
		['launch', 'sql text, queue_size integer, label text', 'pg_background_handle', '', '_v2'],
		['submit', 'sql text, queue_size integer DEFAULT 0', 'pg_background_handle', 'STRICT', '_v2'],
		['submit', 'sql text, queue_size integer, label text', 'pg_background_handle', '', '_v2'],
		['run', 'sql text, queue_size integer DEFAULT 0, '
			 'timeout_ms integer DEFAULT 0, label text DEFAULT NULL::text', 'pg_background_run_result', '', '_v2'],
		['run_query', 'sql text, queue_size integer DEFAULT 0, '
			 'timeout_ms integer DEFAULT 0, label text DEFAULT NULL::text, '
			 'col_def text DEFAULT NULL::text', 'SETOF record', '', '_v2'],
		['result', 'pid integer, cookie bigint', 'SETOF record', 'STRICT', '_v2'],
		['result_info', 'pid integer, cookie bigint', 'pg_background_result_info', '', '_v2'],
		['error_info', 'pid integer, cookie bigint', 'pg_background_error', '', '_v2'],
		['outcome', 'p_pid integer, p_cookie bigint', 'pg_background_outcome', '', '_v2'],
		['full_sql', 'pid integer, cookie bigint', 'text', '', '_v2'],
		['wait', 'pid integer, cookie bigint, timeout_ms integer DEFAULT 0', 'boolean', '', '_v2'],
		['wait_any', 'handles pg_background_handle[], timeout_ms integer DEFAULT 0', 'pg_background_handle', '', '_v2'],
		['drain', 'handles pg_background_handle[], timeout_ms integer DEFAULT 0', 'SETOF pg_background_outcome', '', '_v2'],
		['cancel', 'pid integer, cookie bigint, grace_ms integer DEFAULT 0', 'void', '', '_v2'],
		['cancel_all', '', 'integer', '', '_v2'],
		['cancel_by_label', 'pattern text, grace_ms integer DEFAULT 0', 'integer', '', '_v2'],
		['detach', 'pid integer, cookie bigint', 'void', '', '_v2'],
		['detach_all', '', 'integer', '', '_v2'],
		['purge', '', 'integer', '', '_v2'],
		['get_progress', 'pid integer, cookie bigint', 'pg_background_progress_info', '', '_v2'],
		['list', '', 'SETOF record', '', '_v2'],
		['stats', '', 'pg_background_stats', '', '_v2'],
		['report_progress', 'pct integer, msg text DEFAULT NULL::text', 'void', '', ''],
		['record_timeout', '', 'void', '', ''],
		['grant_privileges', 'role_name text, print_commands boolean DEFAULT false', 'boolean', '', ''],
		['revoke_privileges', 'role_name text, print_commands boolean DEFAULT false', 'boolean', '', ''],
		['drop_executor_role', '', 'void', '', '']];
	extension CONSTANT oid := (SELECT oid FROM pg_extension WHERE extname = 'pg_background');
	suffix text;
	present text;
	member record;
BEGIN
	-- The views are made anew below.
	FOR member IN
		SELECT class.oid::regclass AS name
		FROM pg_depend JOIN pg_class AS class ON class.oid = objid
		WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::regclass AND refobjid = extension AND deptype = 'e'
			AND classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::regclass AND relkind = 'v'
		ORDER BY class.oid DESC
	LOOP
		EXECUTE pg_catalog.format('DROP VIEW %s', member.name);
	END LOOP;

	-- Routines that 2.0 does not have in this form.
	FOR member IN
		SELECT proc.oid::regprocedure AS name
		FROM pg_depend JOIN pg_proc AS proc ON proc.oid = objid
		WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::regclass AND refobjid = extension AND deptype = 'e'
			AND classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::regclass
			AND NOT EXISTS (
				SELECT FROM pg_catalog.generate_subscripts(functions, 1) AS n
				WHERE proc.proname IN ('pg_background_' || functions[n][1],
									   'pg_background_' || functions[n][1] || functions[n][5])
					AND pg_catalog.pg_get_function_arguments(proc.oid) = functions[n][2]
					AND pg_catalog.pg_get_function_result(proc.oid) = functions[n][3])
		ORDER BY proc.oid DESC
	LOOP
		EXECUTE pg_catalog.format('DROP ROUTINE %s', member.name);
	END LOOP;

	-- Types: columns that came later are added.
	FOR n IN 1 .. pg_catalog.array_length(types, 1) LOOP
		present := (SELECT pg_catalog.string_agg(attname OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||)
							pg_catalog.format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
					FROM pg_depend
					JOIN pg_type AS type ON type.oid = objid
					JOIN pg_attribute ON attrelid = typrelid
					WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::regclass AND refobjid = extension AND deptype = 'e'
						AND classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::regclass AND typname = types[n][1]
						AND attnum > 0 AND NOT attisdropped);
		IF present IS NULL THEN
			EXECUTE pg_catalog.format('CREATE TYPE %I AS (%s)', types[n][1], types[n][2]);
			EXECUTE pg_catalog.format('REVOKE ALL ON TYPE %I FROM PUBLIC', types[n][1]);
		ELSIF pg_catalog.starts_with(types[n][2], present || ', ') THEN
			EXECUTE pg_catalog.format('ALTER TYPE %I ADD ATTRIBUTE %s', types[n][1],
						   pg_catalog.replace(pg_catalog.substr(types[n][2], pg_catalog.length(present) + 3), ', ', ', ADD ATTRIBUTE '));
		ELSIF present <> types[n][2] THEN
			RAISE 'type % of the installed extension has other columns than any known version',
				types[n][1]
				USING HINT = 'Drop the extension and create it anew.';
		END IF;
	END LOOP;

	FOR n IN 1 .. pg_catalog.array_length(functions, 1) LOOP
		FOREACH suffix IN ARRAY CASE functions[n][5] WHEN '' THEN ARRAY[''] ELSE ARRAY['', functions[n][5]] END LOOP
			EXECUTE pg_catalog.format('CREATE OR REPLACE FUNCTION %I(%s) RETURNS %s LANGUAGE C %s AS ''MODULE_PATHNAME''',
						   'pg_background_' || functions[n][1] || suffix, functions[n][2],
						   functions[n][3], functions[n][4]);
		END LOOP;
	END LOOP;
END
$$;

CREATE VIEW pg_background_list AS
	SELECT * FROM pg_background_list() AS (
		pid int4,
		cookie int8,
		launched_at timestamptz,
		user_id oid,
		queue_size int4,
		state text,
		sql_preview text,
		last_error text,
		consumed bool,
		label text
	);
CREATE VIEW pg_background_activity AS
	SELECT
		job.pid,
		job.cookie,
		job.launched_at,
		job.user_id,
		job.queue_size,
		job.state AS pgbg_state,
		job.sql_preview,
		job.last_error,
		job.consumed,
		job.label,
		backend.state AS backend_state,
		backend.wait_event_type,
		backend.wait_event,
		backend.xact_start,
		backend.query_start,
		backend.backend_start,
		backend.query
	FROM pg_background_list AS job
	LEFT JOIN pg_stat_activity AS backend
		ON backend.pid = job.pid
		AND backend.backend_type = 'pg_background'
		AND job.state IN ('starting', 'running');

ALTER FUNCTION pg_background_grant_privileges SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION pg_background_revoke_privileges SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION pg_background_drop_executor_role SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

-- Privileges and comments are those of the next step. Between the two nobody
-- but the owner has any on what is new.
DO $$
DECLARE
	member record;
BEGIN
	FOR member IN
		SELECT proc.oid::regprocedure AS name
		FROM pg_extension AS extension
		JOIN pg_depend AS dependency
			ON dependency.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::regclass
			AND dependency.refobjid = extension.oid
			AND dependency.deptype = 'e'
			AND dependency.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::regclass
		JOIN pg_proc AS proc ON proc.oid = dependency.objid
		WHERE extension.extname = 'pg_background'
			AND pg_catalog.has_function_privilege('public', proc.oid, 'EXECUTE')
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', member.name);
	END LOOP;
END
$$;
