-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_background" to load this file. \quit

-- Nothing here names the extension's schema, and nothing looks a name up when
-- it is called, so the extension lives in any schema and moves between schemas.
-- Whoever may create in that schema may have planted functions and operators
-- there. One of pg_catalog with exactly the types of the arguments comes before
-- them; any other is qualified.
-- An AS clause without a link symbol takes the function's own name as symbol.
-- VOLATILE, PARALLEL UNSAFE and CALLED ON NULL INPUT are PostgreSQL's defaults.

--
-- Types
--

CREATE TYPE pg_background_handle AS (
	pid int4,
	cookie int8
);
COMMENT ON TYPE pg_background_handle IS 'names one job';

CREATE TYPE pg_background_stats AS (
	workers_launched int8,
	workers_completed int8,
	workers_failed int8,
	workers_canceled int8,
	workers_timed_out int8,
	workers_active int4,
	avg_execution_ms float8,
	max_workers int4
);
COMMENT ON TYPE pg_background_stats IS 'counts of this session''s jobs';

CREATE TYPE pg_background_progress_info AS (
	progress_pct int4,
	progress_msg text
);
COMMENT ON TYPE pg_background_progress_info IS 'what a job reported last';

CREATE TYPE pg_background_result_info AS (
	row_count int8,
	command_tag text,
	completed bool,
	has_error bool,
	started_at timestamptz,
	finished_at timestamptz
);
COMMENT ON TYPE pg_background_result_info IS 'what a job''s last statement did, and when the job ran';

CREATE TYPE pg_background_error AS (
	sqlstate text,
	message text,
	detail text,
	hint text,
	context text,
	schema_name text,
	table_name text,
	column_name text,
	constraint_name text
);
COMMENT ON TYPE pg_background_error IS 'the error that ended a job';

CREATE TYPE pg_background_outcome AS (
	pid int4,
	cookie int8,
	state text,
	consumed bool,
	completed bool,
	has_error bool,
	row_count int8,
	command_tag text,
	sqlstate text,
	error_message text,
	label text,
	launched_at timestamptz
);
COMMENT ON TYPE pg_background_outcome IS 'how a job stands, or how it ended';

CREATE TYPE pg_background_run_result AS (
	pid int4,
	cookie int8,
	state text,
	consumed bool,
	completed bool,
	has_error bool,
	row_count int8,
	command_tag text,
	sqlstate text,
	error_message text,
	label text,
	launched_at timestamptz,
	timed_out bool,
	elapsed_ms int8
);
COMMENT ON TYPE pg_background_run_result IS 'how a job ended that was run and waited for';

--
-- Launch
--

CREATE FUNCTION pg_background_launch(sql text, queue_size int4 DEFAULT 0)
	RETURNS pg_background_handle LANGUAGE C STRICT AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_launch(text, int4) IS
	'start a job; its rows are read with pg_background_result';

CREATE FUNCTION pg_background_launch(sql text, queue_size int4, label text)
	RETURNS pg_background_handle LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_launch(text, int4, text) IS
	'start a job under a label; its rows are read with pg_background_result';

CREATE FUNCTION pg_background_submit(sql text, queue_size int4 DEFAULT 0)
	RETURNS pg_background_handle LANGUAGE C STRICT AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_submit(text, int4) IS
	'start a job whose rows are thrown away';

CREATE FUNCTION pg_background_submit(sql text, queue_size int4, label text)
	RETURNS pg_background_handle LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_submit(text, int4, text) IS
	'start a job under a label whose rows are thrown away';

CREATE FUNCTION pg_background_run(sql text, queue_size int4 DEFAULT 0, timeout_ms int4 DEFAULT 0,
								  label text DEFAULT NULL)
	RETURNS pg_background_run_result LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_run IS
	'run a job, wait for it and tell how it ended';

CREATE FUNCTION pg_background_run_query(sql text, queue_size int4 DEFAULT 0, timeout_ms int4 DEFAULT 0,
										label text DEFAULT NULL, col_def text DEFAULT NULL)
	RETURNS SETOF record LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_run_query IS
	'run a job, wait for it and return its rows; col_def repeats the column definition list';

--
-- Launch with parameters, in this or another database
--

CREATE FUNCTION pg_background_launch_params(sql text, params record, queue_size int4 DEFAULT 0,
											label text DEFAULT NULL, database name DEFAULT NULL)
	RETURNS pg_background_handle LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_launch_params IS
	'start a job with parameters; its rows are read with pg_background_result';

CREATE FUNCTION pg_background_submit_params(sql text, params record, queue_size int4 DEFAULT 0,
											label text DEFAULT NULL, database name DEFAULT NULL)
	RETURNS pg_background_handle LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_submit_params IS
	'start a job with parameters whose rows are thrown away';

CREATE FUNCTION pg_background_run_params(sql text, params record, queue_size int4 DEFAULT 0,
										 timeout_ms int4 DEFAULT 0, label text DEFAULT NULL,
										 database name DEFAULT NULL)
	RETURNS pg_background_run_result LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_run_params IS
	'run a job with parameters, wait for it and tell how it ended';

CREATE FUNCTION pg_background_run_query_params(sql text, params record, queue_size int4 DEFAULT 0,
											   timeout_ms int4 DEFAULT 0, label text DEFAULT NULL,
											   col_def text DEFAULT NULL, database name DEFAULT NULL)
	RETURNS SETOF record LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_run_query_params IS
	'run a job with parameters, wait for it and return its rows; col_def repeats the column definition list';

CREATE PROCEDURE pg_background_do(sql text, timeout_ms int4 DEFAULT 0, label text DEFAULT NULL)
	LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON PROCEDURE pg_background_do IS
	'run a job and wait for it without holding a snapshot, passing on its messages and its error';

--
-- Result
--

CREATE FUNCTION pg_background_result(pid int4, cookie int8)
	RETURNS SETOF record LANGUAGE C STRICT AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_result IS
	'the rows of a job, or its error; reading to the end releases the handle';

CREATE FUNCTION pg_background_result_info(pid int4, cookie int8)
	RETURNS pg_background_result_info LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_result_info IS
	'what the last statement of a job did';

CREATE FUNCTION pg_background_error_info(pid int4, cookie int8)
	RETURNS pg_background_error LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_error_info IS
	'the error of a job, NULL where it has none';

CREATE FUNCTION pg_background_outcome(p_pid int4, p_cookie int8)
	RETURNS pg_background_outcome LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_outcome IS
	'how a job stands or ended; never raises an error';

CREATE FUNCTION pg_background_full_sql(pid int4, cookie int8)
	RETURNS text LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_full_sql IS
	'the whole SQL of a job';

--
-- Wait, cancel, detach
--

CREATE FUNCTION pg_background_wait(pid int4, cookie int8, timeout_ms int4 DEFAULT 0)
	RETURNS bool LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_wait IS
	'wait until a job has ended; false at the timeout';

CREATE FUNCTION pg_background_wait_any(handles pg_background_handle[], timeout_ms int4 DEFAULT 0)
	RETURNS pg_background_handle LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_wait_any IS
	'wait until one of the jobs has ended and return its handle; NULL at the timeout';

CREATE FUNCTION pg_background_drain(handles pg_background_handle[], timeout_ms int4 DEFAULT 0)
	RETURNS SETOF pg_background_outcome LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_drain IS
	'wait for all the jobs, return the outcome of each and detach those that ended';

CREATE FUNCTION pg_background_cancel(pid int4, cookie int8, grace_ms int4 DEFAULT 0)
	RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_cancel IS
	'cancel a job; grace_ms also waits up to that long for it to end';

CREATE FUNCTION pg_background_cancel_all()
	RETURNS int4 LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_cancel_all IS
	'cancel all jobs of this session that run; returns how many';

CREATE FUNCTION pg_background_cancel_by_label(pattern text, grace_ms int4 DEFAULT 0)
	RETURNS int4 LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_cancel_by_label IS
	'cancel the jobs of this session whose label is LIKE the pattern; returns how many';

CREATE FUNCTION pg_background_detach(pid int4, cookie int8)
	RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_detach IS
	'forget the handle of a job; the job runs on';

CREATE FUNCTION pg_background_detach_all()
	RETURNS int4 LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_detach_all IS
	'forget all handles of this session; returns how many';

CREATE FUNCTION pg_background_purge()
	RETURNS int4 LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_purge IS
	'forget the handles of the jobs that have ended; returns how many';

--
-- Progress
--

CREATE FUNCTION pg_background_report_progress(pct int4, msg text DEFAULT NULL)
	RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_report_progress IS
	'report how far the job is; called by the job''s own SQL';

CREATE FUNCTION pg_background_get_progress(pid int4, cookie int8)
	RETURNS pg_background_progress_info LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_get_progress IS
	'what a job reported last, NULL where it reported nothing';

--
-- List and counts
--

CREATE FUNCTION pg_background_list()
	RETURNS SETOF record LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_list() IS
	'the jobs of this session; the view pg_background_list names the columns';

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
COMMENT ON VIEW pg_background_list IS 'the jobs of this session';

CREATE FUNCTION pg_background_job_of(worker_pid int4, query_start timestamptz)
	RETURNS int8 LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_job_of IS
	'the cookie of this session''s job that a process runs, and ran at query_start; for pg_background_activity';

-- Many jobs can be known by one pid, and a process can run another job by now.
-- So each worker is asked what it runs, after it was looked at: it is joined to
-- a job that it has run all the time between its query_start and that moment.
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
	LEFT JOIN (
		SELECT
			worker.state,
			worker.wait_event_type,
			worker.wait_event,
			worker.xact_start,
			worker.query_start,
			worker.backend_start,
			worker.query,
			pg_background_job_of(worker.pid, worker.query_start) AS cookie
		FROM pg_stat_activity AS worker
		WHERE worker.backend_type = 'pg_background'
	) AS backend
		ON backend.cookie = job.cookie
		AND job.state IN ('starting', 'running');
COMMENT ON VIEW pg_background_activity IS
	'the jobs of this session with what pg_stat_activity shows of their workers';

CREATE FUNCTION pg_background_stats()
	RETURNS pg_background_stats LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_stats() IS
	'counts of this session''s jobs';

CREATE FUNCTION pg_background_record_timeout()
	RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_record_timeout IS
	'add one to workers_timed_out; kept for catalogs of older versions';

--
-- The cluster's jobs
--

CREATE FUNCTION pg_background_jobs(
	OUT pid int4,
	OUT cookie int8,
	OUT datid oid,
	OUT usesysid oid,
	OUT launcher_pid int4,
	OUT label text,
	OUT state text,
	OUT sql_preview text,
	OUT launched_at timestamptz,
	OUT started_at timestamptz,
	OUT finished_at timestamptz,
	OUT row_count int8,
	OUT command_tag text,
	OUT sqlstate text,
	OUT error_message text,
	OUT progress_pct int4,
	OUT progress_msg text,
	OUT result_bytes int8)
	RETURNS SETOF record LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_jobs() IS
	'the jobs that the cluster knows; the view pg_background_jobs names databases and roles';

CREATE VIEW pg_background_jobs AS
	SELECT
		job.pid,
		job.cookie,
		database.datname,
		role.rolname AS usename,
		job.launcher_pid,
		job.label,
		job.state,
		job.sql_preview,
		job.launched_at,
		job.started_at,
		job.finished_at,
		job.row_count,
		job.command_tag,
		job.sqlstate,
		job.error_message,
		job.progress_pct,
		job.progress_msg,
		job.result_bytes
	FROM pg_background_jobs() AS job
	LEFT JOIN pg_database AS database ON database.oid = job.datid
	LEFT JOIN pg_roles AS role ON role.oid = job.usesysid;
COMMENT ON VIEW pg_background_jobs IS
	'the jobs that the cluster knows, running and ended';

CREATE FUNCTION pg_background_cluster_stats(
	OUT datid oid,
	OUT usesysid oid,
	OUT jobs_launched int8,
	OUT jobs_completed int8,
	OUT jobs_failed int8,
	OUT jobs_canceled int8,
	OUT jobs_timed_out int8,
	OUT jobs_refused int8,
	OUT cold_starts int8,
	OUT warm_starts int8,
	OUT total_run_ms float8,
	OUT max_run_ms float8,
	OUT total_start_ms float8,
	OUT max_start_ms float8,
	OUT rows_returned int8,
	OUT bytes_returned int8,
	OUT bytes_spilled int8,
	OUT stats_reset timestamptz)
	RETURNS SETOF record LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_cluster_stats() IS
	'counts of jobs by database and role; the view pg_background_cluster_stats names them';

CREATE VIEW pg_background_cluster_stats AS
	SELECT
		database.datname,
		role.rolname AS usename,
		count.jobs_launched,
		count.jobs_completed,
		count.jobs_failed,
		count.jobs_canceled,
		count.jobs_timed_out,
		count.jobs_refused,
		count.cold_starts,
		count.warm_starts,
		count.total_run_ms,
		count.max_run_ms,
		count.total_start_ms,
		count.max_start_ms,
		count.rows_returned,
		count.bytes_returned,
		count.bytes_spilled,
		count.stats_reset
	FROM pg_background_cluster_stats() AS count
	LEFT JOIN pg_database AS database ON database.oid = count.datid
	LEFT JOIN pg_roles AS role ON role.oid = count.usesysid;
COMMENT ON VIEW pg_background_cluster_stats IS
	'counts of jobs by database and role since the server''s start';

-- Not for everyone who uses the extension: SECURITY DEFINER functions are
-- granted to nobody below, and a superuser can grant this one.
CREATE FUNCTION pg_background_reset_cluster_stats()
	RETURNS void LANGUAGE C SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_reset_cluster_stats IS
	'begin the counts of pg_background_cluster_stats anew';

--
-- Metrics
--

-- For monitoring and not for everyone: as SECURITY DEFINER functions they are
-- granted to nobody below, and then to pg_monitor.
CREATE FUNCTION pg_background_gauges(OUT name text, OUT help text, OUT value float8)
	RETURNS SETOF record LANGUAGE C SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_gauges IS
	'how many jobs, launches and workers there are now; for pg_background_metrics';

CREATE FUNCTION pg_background_task_metrics(OUT name text, OUT type text, OUT help text, OUT labels jsonb, OUT value float8)
	RETURNS SETOF record LANGUAGE C SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_task_metrics IS
	'the rows of background.metrics(), none without the extension pg_background_tasks; for pg_background_openmetrics';

CREATE FUNCTION pg_background_printable(name text)
	RETURNS text LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_printable(text) IS
	'the text with \x and two digits for each byte that belongs to no character of the encoding; for pg_background_metrics';

CREATE FUNCTION pg_background_metrics(OUT name text, OUT type text, OUT help text, OUT labels jsonb, OUT value float8)
	RETURNS SETOF record LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT metric.name, metric.type, metric.help,
		pg_catalog.jsonb_build_object('datname', pg_background_printable(count.datname::text),
				'usename', pg_background_printable(count.usename::text))
			OPERATOR(pg_catalog.||) coalesce(metric.labels, '{}'),
		metric.value
	-- The counts of roles and databases that were dropped have no names. Added up they would grow with each DROP ROLE.
	FROM pg_background_cluster_stats AS count
	CROSS JOIN LATERAL (VALUES
		('pg_background_jobs_launched_total', 'counter', 'Jobs that were launched.', NULL::jsonb, count.jobs_launched::float8),
		('pg_background_jobs_total', 'counter', 'Jobs that have ended, by how they ended.', '{"state": "completed"}', count.jobs_completed),
		('pg_background_jobs_total', 'counter', 'Jobs that have ended, by how they ended.', '{"state": "failed"}', count.jobs_failed),
		('pg_background_jobs_total', 'counter', 'Jobs that have ended, by how they ended.', '{"state": "canceled"}', count.jobs_canceled),
		('pg_background_jobs_total', 'counter', 'Jobs that have ended, by how they ended.', '{"state": "timed_out"}', count.jobs_timed_out),
		('pg_background_launches_refused_total', 'counter', 'Launches that were refused, because a limit was reached.', NULL, count.jobs_refused),
		('pg_background_starts_total', 'counter', 'Jobs that have begun, in a new process (cold) or a used one (warm).', '{"process": "cold"}', count.cold_starts),
		('pg_background_starts_total', 'counter', 'Jobs that have begun, in a new process (cold) or a used one (warm).', '{"process": "warm"}', count.warm_starts),
		('pg_background_run_seconds_total', 'counter', 'Run time of all jobs that have ended.', NULL, count.total_run_ms OPERATOR(pg_catalog./) 1000),
		('pg_background_longest_run_seconds', 'gauge', 'The longest run time of a job.', NULL, count.max_run_ms OPERATOR(pg_catalog./) 1000),
		('pg_background_start_seconds_total', 'counter', 'Time from launch to begin of all jobs that have begun.', NULL, count.total_start_ms OPERATOR(pg_catalog./) 1000),
		('pg_background_longest_start_seconds', 'gauge', 'The longest time from launch to begin of a job.', NULL, count.max_start_ms OPERATOR(pg_catalog./) 1000),
		('pg_background_rows_returned_total', 'counter', 'Rows that sessions have read.', NULL, count.rows_returned),
		('pg_background_returned_bytes_total', 'counter', 'Bytes of results that sessions have read.', NULL, count.bytes_returned),
		('pg_background_spilled_bytes_total', 'counter', 'Bytes of results that were written to temporary files.', NULL, count.bytes_spilled)
	) AS metric (name, type, help, labels, value)
	WHERE count.datname IS NOT NULL AND count.usename IS NOT NULL
	UNION ALL
	SELECT gauge.name, 'gauge', gauge.help, '{}',
		gauge.value OPERATOR(pg_catalog.+) CASE gauge.name WHEN 'pg_background_worker_slots_used' THEN (
			SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
			WHERE backend_type NOT IN ('client backend', 'walsender', 'standalone backend', 'startup', 'checkpointer',
				'background writer', 'walwriter', 'walreceiver', 'walsummarizer', 'archiver', 'logger', 'autovacuum launcher',
				'autovacuum worker', 'slotsync worker', 'io worker')
		) ELSE 0 END
	FROM pg_background_gauges() AS gauge
	UNION ALL
	SELECT 'pg_background_build_info', 'gauge', 'Always 1; the label is the version of the extension.',
		pg_catalog.jsonb_build_object('version', extversion), 1
	FROM pg_catalog.pg_extension WHERE extname = 'pg_background';
END;
COMMENT ON FUNCTION pg_background_metrics IS
	'what the cluster knows of jobs and workers, named after the conventions of Prometheus';

-- The text format of Prometheus, version 0.0.4. A counter is named with its suffix in its TYPE line too, unlike in OpenMetrics: parsers look for the
-- type of a sample by its whole name. The last line is a comment, which shows that the text is whole.
CREATE FUNCTION pg_background_openmetrics()
	RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT coalesce(pg_catalog.string_agg(
			pg_catalog.format(E'# HELP %s %s\n# TYPE %s %s\n%s', family.name, family.help, family.name, family.type, family.samples),
			'' ORDER BY family.name COLLATE "C"), '') OPERATOR(pg_catalog.||) E'# EOF\n'
	FROM (
		SELECT sample.family AS name, pg_catalog.min(sample.help) AS help, pg_catalog.min(sample.type) AS type,
			pg_catalog.string_agg(pg_catalog.format(E'%s%s %s\n', sample.name, sample.labels, sample.value), '' ORDER BY sample.number) AS samples
		FROM (
			SELECT pg_catalog.row_number() OVER () AS number, metric.name, metric.type, metric.help,
				CASE metric.type WHEN 'histogram' THEN pg_catalog.regexp_replace(metric.name, '_(bucket|sum|count)$', '')
					ELSE metric.name END AS family,
				(SELECT '{' OPERATOR(pg_catalog.||) pg_catalog.string_agg(pg_catalog.format('%s="%s"', label.key,
						pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(label.value, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n')), ',') OPERATOR(pg_catalog.||) '}'
				 FROM pg_catalog.jsonb_each_text(metric.labels) AS label) AS labels,
				pg_catalog.replace(metric.value::text, 'Infinity', '+Inf') AS value
			FROM (SELECT * FROM pg_background_metrics() UNION ALL SELECT * FROM pg_background_task_metrics()) AS metric
			WHERE metric.value IS NOT NULL
		) AS sample
		GROUP BY sample.family
	) AS family;
END;
COMMENT ON FUNCTION pg_background_openmetrics IS
	'the rows of pg_background_metrics, and of background.metrics where it is there, in the text format of Prometheus';

--
-- Deprecated names
--

CREATE FUNCTION pg_background_launch_v2(sql text, queue_size int4 DEFAULT 0)
	RETURNS pg_background_handle LANGUAGE C STRICT AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_launch_v2(sql text, queue_size int4, label text)
	RETURNS pg_background_handle LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_submit_v2(sql text, queue_size int4 DEFAULT 0)
	RETURNS pg_background_handle LANGUAGE C STRICT AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_submit_v2(sql text, queue_size int4, label text)
	RETURNS pg_background_handle LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_run_v2(sql text, queue_size int4 DEFAULT 0, timeout_ms int4 DEFAULT 0,
									 label text DEFAULT NULL)
	RETURNS pg_background_run_result LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_run_query_v2(sql text, queue_size int4 DEFAULT 0, timeout_ms int4 DEFAULT 0,
										   label text DEFAULT NULL, col_def text DEFAULT NULL)
	RETURNS SETOF record LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_result_v2(pid int4, cookie int8)
	RETURNS SETOF record LANGUAGE C STRICT AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_result_info_v2(pid int4, cookie int8)
	RETURNS pg_background_result_info LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_error_info_v2(pid int4, cookie int8)
	RETURNS pg_background_error LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_outcome_v2(p_pid int4, p_cookie int8)
	RETURNS pg_background_outcome LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_full_sql_v2(pid int4, cookie int8)
	RETURNS text LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_wait_v2(pid int4, cookie int8, timeout_ms int4 DEFAULT 0)
	RETURNS bool LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_wait_any_v2(handles pg_background_handle[], timeout_ms int4 DEFAULT 0)
	RETURNS pg_background_handle LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_drain_v2(handles pg_background_handle[], timeout_ms int4 DEFAULT 0)
	RETURNS SETOF pg_background_outcome LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_cancel_v2(pid int4, cookie int8, grace_ms int4 DEFAULT 0)
	RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_cancel_all_v2()
	RETURNS int4 LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_cancel_by_label_v2(pattern text, grace_ms int4 DEFAULT 0)
	RETURNS int4 LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_detach_v2(pid int4, cookie int8)
	RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_detach_all_v2()
	RETURNS int4 LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_purge_v2()
	RETURNS int4 LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_get_progress_v2(pid int4, cookie int8)
	RETURNS pg_background_progress_info LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_list_v2()
	RETURNS SETOF record LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_background_stats_v2()
	RETURNS pg_background_stats LANGUAGE C AS 'MODULE_PATHNAME';

--
-- Privileges
--

CREATE FUNCTION pg_background_grant_privileges(role_name text, print_commands bool DEFAULT false)
	RETURNS bool LANGUAGE C SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_grant_privileges IS
	'let a role use this extension; false, with a notice, where that failed';

CREATE FUNCTION pg_background_revoke_privileges(role_name text, print_commands bool DEFAULT false)
	RETURNS bool LANGUAGE C SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_revoke_privileges IS
	'take back what pg_background_grant_privileges gave; false, with a notice, where that failed';

CREATE FUNCTION pg_background_drop_executor_role()
	RETURNS void LANGUAGE C SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION pg_background_drop_executor_role IS
	'take back what this extension granted to pgbackground_role and drop the role';

DO $$
DECLARE
	-- Names that somebody planted in the extension's schema mean nothing here.
	path CONSTANT text := pg_catalog.current_setting('search_path');
	member record;
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

	-- Roles belong to the cluster: another database may have made this one
	-- before, or be making it at this moment.
	BEGIN
		CREATE ROLE pgbackground_role NOLOGIN INHERIT;
	EXCEPTION WHEN duplicate_object OR unique_violation THEN
		NULL;
	END;

	FOR member IN
		SELECT object.type, object.identity, coalesce(proc.prosecdef, false) AS is_helper, proc.proname
		FROM pg_extension AS extension
		JOIN pg_depend AS dependency
			ON dependency.refclassid = 'pg_extension'::regclass
			AND dependency.refobjid = extension.oid
			AND dependency.deptype = 'e'
		CROSS JOIN pg_identify_object(dependency.classid, dependency.objid, 0) AS object
		LEFT JOIN pg_proc AS proc
			ON dependency.classid = 'pg_proc'::regclass
			AND proc.oid = dependency.objid
		WHERE extension.extname = 'pg_background'
			-- Array types and the row types of views, members from version 18
			-- on, have no privileges of their own.
			AND (dependency.classid <> 'pg_type'::regclass
				 OR EXISTS (SELECT FROM pg_type JOIN pg_class ON pg_class.oid = typrelid
							WHERE pg_type.oid = dependency.objid AND relkind = 'c'))
	LOOP
		IF member.proname LIKE '%\_v2' THEN
			EXECUTE format('COMMENT ON FUNCTION %s IS %L', member.identity,
						   'deprecated: use ' || left(member.proname, -3));
		END IF;

		IF member.type = 'view' THEN
			EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', member.identity);
			EXECUTE format('GRANT SELECT ON %s TO pgbackground_role', member.identity);
		ELSE
			EXECUTE format('REVOKE ALL ON %s %s FROM PUBLIC', member.type, member.identity);
			IF NOT member.is_helper THEN
				EXECUTE format('GRANT ALL ON %s %s TO pgbackground_role', member.type, member.identity);
			END IF;
		END IF;
	END LOOP;

	PERFORM pg_catalog.set_config('search_path', path, true);
END
$$;

GRANT EXECUTE ON FUNCTION pg_background_metrics(), pg_background_openmetrics() TO pg_monitor;
