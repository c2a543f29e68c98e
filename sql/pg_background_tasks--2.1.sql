-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_background_tasks CASCADE" to load this file. \quit

-- Names that somebody planted in another schema mean nothing here.
SET LOCAL search_path = pg_catalog, pg_temp;
-- The library reads and writes the tables as heaps.
SET LOCAL default_table_access_method = heap;

CREATE SCHEMA background;
COMMENT ON SCHEMA background IS 'durable tasks of pg_background';

--
-- The type of a role that is the same role after a dump and restore, and after a rename
--

CREATE TYPE background.role;

CREATE FUNCTION background.role_in(cstring) RETURNS background.role
	LANGUAGE C STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_in';
COMMENT ON FUNCTION background.role_in(cstring) IS 'I/O';
CREATE FUNCTION background.role_out(background.role) RETURNS cstring
	LANGUAGE C STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_out';
COMMENT ON FUNCTION background.role_out(background.role) IS 'I/O';

CREATE TYPE background.role (
	INPUT = background.role_in,
	OUTPUT = background.role_out,
	INTERNALLENGTH = VARIABLE,
	ALIGNMENT = int4,
	STORAGE = plain
);
COMMENT ON TYPE background.role IS 'a role, by its number in this database and by its name in a dump';

CREATE FUNCTION background.role_of(oid) RETURNS background.role
	LANGUAGE C STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_of';
COMMENT ON FUNCTION background.role_of(oid) IS 'the role of this number';
CREATE FUNCTION background.role_oid(background.role) RETURNS oid
	LANGUAGE C STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_oid';
COMMENT ON FUNCTION background.role_oid(background.role) IS 'the number of a role; NULL where it does not exist';
CREATE FUNCTION background.role_name(background.role) RETURNS name
	LANGUAGE C STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_name';
COMMENT ON FUNCTION background.role_name(background.role) IS 'the name of a role; the last known one where it does not exist';
CREATE FUNCTION background.role_cmp(background.role, background.role) RETURNS int4
	LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_cmp';
COMMENT ON FUNCTION background.role_cmp(background.role, background.role) IS 'less-equal-greater';
CREATE FUNCTION background.role_lt(background.role, background.role) RETURNS bool
	LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_lt';
COMMENT ON FUNCTION background.role_lt(background.role, background.role) IS 'implementation of < operator';
CREATE FUNCTION background.role_le(background.role, background.role) RETURNS bool
	LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_le';
COMMENT ON FUNCTION background.role_le(background.role, background.role) IS 'implementation of <= operator';
CREATE FUNCTION background.role_eq(background.role, background.role) RETURNS bool
	LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_eq';
COMMENT ON FUNCTION background.role_eq(background.role, background.role) IS 'implementation of = operator';
CREATE FUNCTION background.role_ge(background.role, background.role) RETURNS bool
	LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_ge';
COMMENT ON FUNCTION background.role_ge(background.role, background.role) IS 'implementation of >= operator';
CREATE FUNCTION background.role_gt(background.role, background.role) RETURNS bool
	LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_role_gt';
COMMENT ON FUNCTION background.role_gt(background.role, background.role) IS 'implementation of > operator';

CREATE OPERATOR background.< (LEFTARG = background.role, RIGHTARG = background.role,
	FUNCTION = background.role_lt, COMMUTATOR = OPERATOR(background.>), NEGATOR = OPERATOR(background.>=));
COMMENT ON OPERATOR background.< (background.role, background.role) IS 'less than';
CREATE OPERATOR background.<= (LEFTARG = background.role, RIGHTARG = background.role,
	FUNCTION = background.role_le, COMMUTATOR = OPERATOR(background.>=), NEGATOR = OPERATOR(background.>));
COMMENT ON OPERATOR background.<= (background.role, background.role) IS 'less than or equal';
CREATE OPERATOR background.= (LEFTARG = background.role, RIGHTARG = background.role,
	FUNCTION = background.role_eq, COMMUTATOR = OPERATOR(background.=), RESTRICT = eqsel, JOIN = eqjoinsel, MERGES);
COMMENT ON OPERATOR background.= (background.role, background.role) IS 'equal';
CREATE OPERATOR background.>= (LEFTARG = background.role, RIGHTARG = background.role,
	FUNCTION = background.role_ge, COMMUTATOR = OPERATOR(background.<=), NEGATOR = OPERATOR(background.<));
COMMENT ON OPERATOR background.>= (background.role, background.role) IS 'greater than or equal';
CREATE OPERATOR background.> (LEFTARG = background.role, RIGHTARG = background.role,
	FUNCTION = background.role_gt, COMMUTATOR = OPERATOR(background.<), NEGATOR = OPERATOR(background.<=));
COMMENT ON OPERATOR background.> (background.role, background.role) IS 'greater than';

CREATE OPERATOR CLASS background.role_ops DEFAULT FOR TYPE background.role USING btree AS
	OPERATOR 1 background.<,
	OPERATOR 2 background.<=,
	OPERATOR 3 background.=,
	OPERATOR 4 background.>=,
	OPERATOR 5 background.>,
	FUNCTION 1 background.role_cmp(background.role, background.role);
COMMENT ON OPERATOR CLASS background.role_ops USING btree IS 'roles by number, those that do not exist by name';
COMMENT ON OPERATOR FAMILY background.role_ops USING btree IS 'roles by number, those that do not exist by name';

--
-- Tables: a fixed set of plain ones, dumped with their content. Nobody but their owner has rights on them.
-- src/tasks/tables.rs repeats the columns' numbers.
--

CREATE SEQUENCE background.task_id;
COMMENT ON SEQUENCE background.task_id IS 'the ids of tasks';
CREATE SEQUENCE background.schedule_id;
COMMENT ON SEQUENCE background.schedule_id IS 'the ids of schedules';

CREATE TABLE background.queue (
	name text COLLATE "C" NOT NULL CONSTRAINT queue_pkey PRIMARY KEY,
	max_running int4,
	max_running_per_key int4,
	max_waiting int4,
	max_attempts int4 NOT NULL DEFAULT 5,
	retry_delay interval NOT NULL DEFAULT '5 s',
	timeout interval,
	keep_done interval NOT NULL DEFAULT '1 day',
	keep_failed interval NOT NULL DEFAULT '30 days',
	keep_done_max int8 DEFAULT 1000000,
	synchronous_commit text NOT NULL DEFAULT 'off',
	roles background.role[],
	paused bool NOT NULL DEFAULT false
);
COMMENT ON TABLE background.queue IS 'queues that were set; default has no row before it is';

-- Tasks that have not ended. No row says that one runs: that is known in shared memory only.
-- phase: w waiting, d deferred until run_at, b blocked by dependencies. mode: t transaction, s statement.
-- home: the database that enqueued it, so that what logical replication wrote is never run.
-- turn: a task that follows one of the same key that runs has the next number.
-- search_path: NULL for that of a new session of the role.
-- run_at: the occurrence, if it is a schedule's. ready_at: when it had waited for others, or was enqueued again; it could not run before.
CREATE TABLE background.task (
	id int8 NOT NULL CONSTRAINT task_pkey PRIMARY KEY,
	queue text COLLATE "C" NOT NULL,
	owner background.role NOT NULL,
	priority int4 NOT NULL,
	phase "char" NOT NULL,
	mode "char" NOT NULL,
	home int8 NOT NULL,
	attempt int4 NOT NULL DEFAULT 0,
	max_attempts int4,
	enqueued_at timestamptz NOT NULL,
	run_at timestamptz,
	expires_at timestamptz,
	retry_delay interval,
	timeout interval,
	label text,
	sql text NOT NULL,
	param_types text[],
	param_values text[],
	search_path text,
	settings jsonb,
	database text,
	keep_result bool NOT NULL DEFAULT false,
	key text COLLATE "C",
	turn int4 NOT NULL DEFAULT 0,
	concurrency_key text COLLATE "C",
	after int8[],
	on_parent_failure "char" NOT NULL DEFAULT 'c',
	schedule text,
	operation_id int8,
	started_at timestamptz,
	sqlstate text,
	error_message text,
	ready_at timestamptz
);
COMMENT ON TABLE background.task IS 'tasks that have not ended';
CREATE INDEX task_ready ON background.task (queue, owner, priority DESC, id) WHERE phase = 'w';
CREATE INDEX task_concurrency_key ON background.task (queue, concurrency_key, priority DESC, id)
	WHERE phase = 'w' AND concurrency_key IS NOT NULL;
CREATE INDEX task_attempted ON background.task (id) WHERE phase = 'w' AND attempt > 0;
CREATE INDEX task_blocked ON background.task (id) WHERE phase = 'b';
CREATE INDEX task_due ON background.task (run_at) WHERE phase = 'd';
CREATE INDEX task_expires ON background.task (expires_at) WHERE expires_at IS NOT NULL;
CREATE UNIQUE INDEX task_key ON background.task (key, owner, turn) WHERE key IS NOT NULL;
CREATE INDEX task_schedule ON background.task (schedule) WHERE schedule IS NOT NULL;

CREATE INDEX task_operation ON background.task (operation_id) WHERE operation_id IS NOT NULL;

CREATE TABLE background.dependency (
	parent int8 NOT NULL,
	child int8 NOT NULL,
	CONSTRAINT dependency_pkey PRIMARY KEY (parent, child)
);
COMMENT ON TABLE background.dependency IS 'which unfinished tasks wait for which others';
CREATE INDEX dependency_child ON background.dependency (child);

-- Runs that have ended. `ended` marks the last one of a task, which then has no row in background.task; it has the task's own columns, too,
-- as far as somebody may look at them or ask for a retry. A task that ended without a run has one, too: its attempt is the
-- number of attempts before it with its sign changed, or 0.
-- What is done goes to run_0, run_1, run_2 in turn, which are emptied by TRUNCATE; the rest, which is rare, to run_failed.
CREATE TABLE background.run_0 (
	task_id int8 NOT NULL,
	attempt int4 NOT NULL,
	ended bool NOT NULL,
	state text NOT NULL,
	queue text COLLATE "C" NOT NULL,
	owner background.role NOT NULL,
	label text,
	pid int4,
	started_at timestamptz,
	finished_at timestamptz NOT NULL,
	row_count int8,
	command_tag text,
	sqlstate text,
	message text,
	detail text,
	hint text,
	context text,
	result jsonb,
	priority int4,
	mode "char",
	home int8,
	max_attempts int4,
	enqueued_at timestamptz,
	run_at timestamptz,
	expires_at timestamptz,
	retry_delay interval,
	timeout interval,
	sql text,
	param_types text[],
	param_values text[],
	search_path text,
	settings jsonb,
	database text,
	keep_result bool,
	key text COLLATE "C",
	concurrency_key text COLLATE "C",
	after int8[],
	on_parent_failure "char",
	schedule text,
	operation_id int8,
	ready_at timestamptz
);
CREATE INDEX run_0_task_id ON background.run_0 (task_id);
CREATE TABLE background.run_1 (LIKE background.run_0);
CREATE INDEX run_1_task_id ON background.run_1 (task_id);
CREATE TABLE background.run_2 (LIKE background.run_0);
CREATE INDEX run_2_task_id ON background.run_2 (task_id);
CREATE TABLE background.run_failed (LIKE background.run_0);
CREATE INDEX run_failed_task_id ON background.run_failed (task_id);
CREATE INDEX run_failed_finished_at ON background.run_failed (finished_at);
COMMENT ON TABLE background.run_0 IS 'runs that are done';
COMMENT ON TABLE background.run_1 IS 'runs that are done';
COMMENT ON TABLE background.run_2 IS 'runs that are done';
COMMENT ON TABLE background.run_failed IS 'runs that are not done, and tasks that ended without one';

-- Which of run_0, run_1, run_2 is filled, and since when; no row means the first.
CREATE TABLE background.rotation (
	number int4 NOT NULL,
	since timestamptz NOT NULL
);
COMMENT ON TABLE background.rotation IS 'which table the runs that are done go to';

CREATE SEQUENCE background.operation_id;
COMMENT ON SEQUENCE background.operation_id IS 'the ids of operations';

-- phase: r runs, or is done where it has finished; p paused; s stopped by an error; c canceled. It has finished when it has no task any more.
-- key_column: NULL where the chunks are ranges of blocks. last_key: where the next chunk begins, after this key or with this block.
-- passed, total: rows, or blocks, of the chunks that were cut, and of the table at the start. storage: the file of those blocks.
-- sorting: the type and the collation of the column, which decide where its keys are. key_number: the number of the column in the table with the number
-- key_table of the cluster key_system. A restored table is another one, in which the column may have another number.
-- on_error: s stop, c continue.
CREATE TABLE background.operation (
	id int8 NOT NULL CONSTRAINT operation_pkey PRIMARY KEY,
	owner background.role NOT NULL,
	home int8 NOT NULL,
	phase "char" NOT NULL,
	relation regclass NOT NULL,
	key_column text,
	key_system int8,
	key_table oid,
	key_number int4,
	last_key text,
	is_cut bool NOT NULL DEFAULT false,
	chunks int8 NOT NULL DEFAULT 0,
	passed int8 NOT NULL DEFAULT 0,
	total float8 NOT NULL,
	rows_per_block float8,
	storage oid,
	sorting text,
	label text,
	sql text NOT NULL,
	param_types text[],
	param_values text[],
	search_path text NOT NULL,
	settings jsonb,
	queue text COLLATE "C" NOT NULL,
	priority int4 NOT NULL,
	parallelism int4 NOT NULL,
	chunk_rows int8,
	chunk_time interval NOT NULL,
	on_error "char" NOT NULL,
	max_attempts int4 NOT NULL,
	retry_delay interval,
	timeout interval,
	max_replication_lag interval,
	pause_between interval NOT NULL,
	started_at timestamptz NOT NULL,
	finished_at timestamptz,
	sqlstate text,
	error_message text
);
COMMENT ON TABLE background.operation IS 'statements that run in chunks';

-- state: w has a task, a is to get one again, d done, f failed, c canceled. size: its rows, or its blocks, when it was cut.
CREATE TABLE background.chunk (
	operation_id int8 NOT NULL,
	n int8 NOT NULL,
	first text NOT NULL,
	last text NOT NULL,
	size int8 NOT NULL,
	state "char" NOT NULL,
	task_id int8,
	attempts int4,
	rows int8,
	ms float8,
	finished_at timestamptz,
	sqlstate text,
	error_message text,
	CONSTRAINT chunk_pkey PRIMARY KEY (operation_id, n)
);
COMMENT ON TABLE background.chunk IS 'the chunks of operations that were cut';
CREATE INDEX chunk_task ON background.chunk (task_id) WHERE state = 'w';
CREATE INDEX chunk_not_done ON background.chunk (operation_id, state, n) WHERE state IN ('a', 'f', 'c');

-- What schedules are: the rule, and what each task of it gets.
-- mode: t transaction, s statement. asked_mode: the same, a auto. overlap: s skip, q queue, a allow. catch_up: n none, o one, a all.
-- search_path: as in background.task. pg_cron_job: the job of pg_cron that it was made of; pg_cron_disabled: whether the import disabled that.
CREATE TABLE background.schedule (
	id int8 NOT NULL CONSTRAINT schedule_pkey PRIMARY KEY,
	name text COLLATE "C" NOT NULL CONSTRAINT schedule_name UNIQUE,
	owner background.role NOT NULL,
	created_at timestamptz NOT NULL,
	spec text NOT NULL,
	time_zone text NOT NULL,
	starts_at timestamptz,
	ends_at timestamptz,
	jitter interval,
	overlap "char" NOT NULL,
	catch_up "char" NOT NULL,
	enabled bool NOT NULL,
	queue text COLLATE "C" NOT NULL,
	label text,
	priority int4 NOT NULL,
	concurrency_key text COLLATE "C",
	max_attempts int4,
	retry_delay interval,
	timeout interval,
	expires_after interval,
	asked_mode "char" NOT NULL,
	mode "char" NOT NULL,
	database text,
	settings jsonb,
	keep_result bool NOT NULL,
	sql text NOT NULL,
	param_types text[],
	param_values text[],
	search_path text,
	pg_cron_job int8,
	pg_cron_disabled bool NOT NULL
);
COMMENT ON TABLE background.schedule IS 'rules that enqueue tasks';
CREATE INDEX schedule_queue ON background.schedule (queue);

-- How far each schedule is. Its row changes at each occurrence, so it is small, and most of its page is left to its next versions.
-- home: as in background.task. occurs_at: the next occurrence; next_at: when it becomes a task, which is later by the jitter. Both are NULL where there is
-- none; only next_at is where it cannot be computed, as error says. last_state and last_duration are noted at the end of last_task.
CREATE TABLE background.firing (
	schedule int8 NOT NULL CONSTRAINT firing_pkey PRIMARY KEY,
	home int8 NOT NULL,
	occurs_at timestamptz,
	next_at timestamptz,
	last_at timestamptz,
	last_task int8,
	last_state text,
	last_duration interval,
	runs_total int8 NOT NULL DEFAULT 0,
	failures_total int8 NOT NULL DEFAULT 0,
	skipped_total int8 NOT NULL DEFAULT 0,
	missed_total int8 NOT NULL DEFAULT 0,
	error text
) WITH (fillfactor = 50);
COMMENT ON TABLE background.firing IS 'when schedules are due, and what has become of them';
CREATE INDEX firing_next_at ON background.firing (home, next_at) WHERE next_at IS NOT NULL;

-- What tells this database from its copies. No unique index: two first sessions write the same, and do not wait for each other.
CREATE TABLE background.stamp (
	system_identifier int8 NOT NULL,
	database oid NOT NULL,
	relation oid NOT NULL,
	home int8 NOT NULL,
	stamped_at timestamptz NOT NULL
);
COMMENT ON TABLE background.stamp IS 'the databases that this one is, or is a copy of';

-- Not dumped with its content: pg_upgrade, which takes the tables' files along, keeps it, and a restore does not, although the numbers of a
-- restored database may be the same ones.
CREATE TABLE background.original (
	database oid NOT NULL,
	relation oid NOT NULL
);
COMMENT ON TABLE background.original IS 'the database that these tables were made or activated in';

-- Who publishes all tables can still change rows of those without a primary key.
ALTER TABLE background.run_0 REPLICA IDENTITY FULL;
ALTER TABLE background.run_1 REPLICA IDENTITY FULL;
ALTER TABLE background.run_2 REPLICA IDENTITY FULL;
ALTER TABLE background.run_failed REPLICA IDENTITY FULL;
ALTER TABLE background.rotation REPLICA IDENTITY FULL;
ALTER TABLE background.stamp REPLICA IDENTITY FULL;
ALTER TABLE background.original REPLICA IDENTITY FULL;

SELECT pg_extension_config_dump('background.task_id', '');
SELECT pg_extension_config_dump('background.queue', '');
SELECT pg_extension_config_dump('background.task', '');
SELECT pg_extension_config_dump('background.dependency', '');
SELECT pg_extension_config_dump('background.run_0', '');
SELECT pg_extension_config_dump('background.run_1', '');
SELECT pg_extension_config_dump('background.run_2', '');
SELECT pg_extension_config_dump('background.run_failed', '');
SELECT pg_extension_config_dump('background.rotation', '');
SELECT pg_extension_config_dump('background.operation_id', '');
SELECT pg_extension_config_dump('background.operation', '');
SELECT pg_extension_config_dump('background.chunk', '');
SELECT pg_extension_config_dump('background.stamp', '');
SELECT pg_extension_config_dump('background.schedule_id', '');
SELECT pg_extension_config_dump('background.schedule', '');
SELECT pg_extension_config_dump('background.firing', '');

-- The same columns from all four. What a queue does not keep any more may still be there, until the keeper removes it with others.
CREATE VIEW background.history AS
	SELECT r.*
	FROM (
		TABLE background.run_failed UNION ALL TABLE background.run_0
		UNION ALL TABLE background.run_1 UNION ALL TABLE background.run_2
	) AS r
	LEFT JOIN background.queue AS q ON q.name = r.queue
	WHERE statement_timestamp() - r.finished_at
		< CASE r.state WHEN 'done' THEN coalesce(q.keep_done, '1 day') ELSE coalesce(q.keep_failed, '30 days') END;
COMMENT ON VIEW background.history IS 'the runs that have ended, as long as they are kept';

--
-- Functions
--

CREATE FUNCTION background.enqueue(
	sql text, params record DEFAULT NULL,
	queue text DEFAULT 'default', label text DEFAULT NULL, priority int4 DEFAULT 0,
	run_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
	key text DEFAULT NULL, on_conflict text DEFAULT 'keep',
	concurrency_key text DEFAULT NULL,
	max_attempts int4 DEFAULT NULL, retry_delay interval DEFAULT NULL, timeout interval DEFAULT NULL,
	after int8[] DEFAULT NULL, on_parent_failure text DEFAULT 'cancel',
	mode text DEFAULT 'auto', database name DEFAULT NULL, settings jsonb DEFAULT NULL, keep_result bool DEFAULT false)
	RETURNS int8 LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_enqueue';
COMMENT ON FUNCTION background.enqueue IS 'enqueue a task, which exists when this transaction commits; returns its id';

CREATE FUNCTION background.cancel(id int8, grace_ms int4 DEFAULT 0)
	RETURNS bool LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'pg_background_tasks_cancel';
COMMENT ON FUNCTION background.cancel IS 'cancel a task; false where it has ended';

CREATE FUNCTION background.retry(id int8)
	RETURNS bool LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'pg_background_tasks_retry';
COMMENT ON FUNCTION background.retry IS 'run a failed, canceled or expired task again, with its attempts anew';

CREATE FUNCTION background.wait(id int8, timeout_ms int4 DEFAULT 0)
	RETURNS text LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_wait';
COMMENT ON FUNCTION background.wait IS 'wait until a task has ended and return its state; NULL at the timeout';

CREATE PROCEDURE background.wait_for(id int8, timeout_ms int4 DEFAULT 0)
	LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_wait_for';
COMMENT ON PROCEDURE background.wait_for IS 'wait until a task is done, without holding a snapshot; an error where it ends otherwise';

CREATE FUNCTION background.result(id int8)
	RETURNS SETOF jsonb LANGUAGE C STRICT ROWS 1000 AS 'MODULE_PATHNAME', 'pg_background_tasks_result';
COMMENT ON FUNCTION background.result IS 'the rows that were kept of a task';

CREATE FUNCTION background.current_task()
	RETURNS int8 LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'pg_background_tasks_current_task';
COMMENT ON FUNCTION background.current_task IS 'the task that this session runs, NULL outside of one';

CREATE FUNCTION background.current_attempt()
	RETURNS int4 LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'pg_background_tasks_current_attempt';
COMMENT ON FUNCTION background.current_attempt IS 'the attempt that this session makes at a task, NULL outside of one';

CREATE FUNCTION background.set_queue(
	name text, max_running int4 DEFAULT NULL, max_running_per_key int4 DEFAULT NULL, max_waiting int4 DEFAULT NULL,
	max_attempts int4 DEFAULT NULL, retry_delay interval DEFAULT NULL, timeout interval DEFAULT NULL,
	keep_done interval DEFAULT NULL, keep_failed interval DEFAULT NULL, keep_done_max int8 DEFAULT NULL,
	synchronous_commit text DEFAULT NULL, roles name[] DEFAULT NULL, paused bool DEFAULT NULL)
	RETURNS void LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_set_queue';
COMMENT ON FUNCTION background.set_queue IS 'create a queue or change its settings; NULL leaves one as it is';

CREATE FUNCTION background.drop_queue(name text)
	RETURNS void LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'pg_background_tasks_drop_queue';
COMMENT ON FUNCTION background.drop_queue IS 'drop a queue that has no unfinished tasks and no schedules';

CREATE FUNCTION background.status(
	OUT enabled bool, OUT preloaded bool, OUT next_due timestamptz, OUT running int4, OUT runners_max int4, OUT note text)
	LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_status';
COMMENT ON FUNCTION background.status IS 'whether tasks run in this database, when the next one is due, and what is to be done';

CREATE FUNCTION background.activate()
	RETURNS void LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_activate';
COMMENT ON FUNCTION background.activate IS 'make this copy of a database the one whose tasks run';

CREATE FUNCTION background.schedule(
	name text, spec text, sql text, params record DEFAULT NULL, time_zone text DEFAULT NULL,
	overlap text DEFAULT 'skip', catch_up text DEFAULT 'one', jitter interval DEFAULT NULL,
	queue text DEFAULT 'default', label text DEFAULT NULL, priority int4 DEFAULT 0, concurrency_key text DEFAULT NULL,
	max_attempts int4 DEFAULT 1, retry_delay interval DEFAULT NULL, timeout interval DEFAULT NULL, expires_after interval DEFAULT NULL,
	mode text DEFAULT 'auto', database name DEFAULT NULL, settings jsonb DEFAULT NULL, keep_result bool DEFAULT false,
	starts_at timestamptz DEFAULT NULL, ends_at timestamptz DEFAULT NULL, enabled bool DEFAULT true)
	RETURNS int8 LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_schedule';
COMMENT ON FUNCTION background.schedule IS 'create or replace a schedule, which enqueues tasks; returns its id';

CREATE FUNCTION background.alter_schedule(
	name text, spec text DEFAULT NULL, sql text DEFAULT NULL, params record DEFAULT NULL, time_zone text DEFAULT NULL,
	overlap text DEFAULT NULL, catch_up text DEFAULT NULL, jitter interval DEFAULT NULL,
	queue text DEFAULT NULL, label text DEFAULT NULL, priority int4 DEFAULT NULL, concurrency_key text DEFAULT NULL,
	max_attempts int4 DEFAULT NULL, retry_delay interval DEFAULT NULL, timeout interval DEFAULT NULL, expires_after interval DEFAULT NULL,
	mode text DEFAULT NULL, database name DEFAULT NULL, settings jsonb DEFAULT NULL, keep_result bool DEFAULT NULL,
	starts_at timestamptz DEFAULT NULL, ends_at timestamptz DEFAULT NULL, enabled bool DEFAULT NULL)
	RETURNS void LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_alter_schedule';
COMMENT ON FUNCTION background.alter_schedule IS 'change a schedule; NULL leaves a setting as it is';

CREATE FUNCTION background.unschedule(name text)
	RETURNS bool LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'pg_background_tasks_unschedule';
COMMENT ON FUNCTION background.unschedule IS 'drop a schedule; false where there is none of this name';

CREATE FUNCTION background.run_schedule(name text)
	RETURNS int8 LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'pg_background_tasks_run_schedule';
COMMENT ON FUNCTION background.run_schedule IS 'enqueue a task of a schedule now; returns the id of the task';

CREATE FUNCTION background.preview_schedule(spec text, time_zone text DEFAULT NULL, n int4 DEFAULT 10, from_time timestamptz DEFAULT now())
	RETURNS SETOF timestamptz LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'pg_background_tasks_preview_schedule';
COMMENT ON FUNCTION background.preview_schedule IS 'the next times of a specification, strictly after from_time, which "every" counts from';

CREATE FUNCTION background.import_pg_cron(
	dry_run bool DEFAULT true, disable_originals bool DEFAULT false,
	OUT jobid int8, OUT name text, OUT spec text, OUT action text)
	RETURNS SETOF record LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_import_pg_cron';
COMMENT ON FUNCTION background.import_pg_cron IS 'make schedules of the jobs of pg_cron, and say what becomes of each; a dry run only says it';

CREATE FUNCTION background.parallel_execute(
	sql text, relation regclass, by text DEFAULT 'ctid', params record DEFAULT NULL,
	label text DEFAULT NULL, parallelism int4 DEFAULT 2, chunk_rows int8 DEFAULT NULL, chunk_time interval DEFAULT '1 s',
	on_error text DEFAULT 'stop', max_attempts int4 DEFAULT 3, retry_delay interval DEFAULT NULL, timeout interval DEFAULT NULL,
	queue text DEFAULT 'default', priority int4 DEFAULT 0, max_replication_lag interval DEFAULT NULL,
	pause_between interval DEFAULT '0', settings jsonb DEFAULT NULL)
	RETURNS int8 LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_parallel_execute';
COMMENT ON FUNCTION background.parallel_execute IS 'run a statement over a table in chunks';

CREATE FUNCTION background.alter_operation(id int8, paused bool DEFAULT NULL, parallelism int4 DEFAULT NULL, chunk_time interval DEFAULT NULL)
	RETURNS void LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_alter_operation';
COMMENT ON FUNCTION background.alter_operation IS 'pause, resume or change an operation';

CREATE FUNCTION background.cancel_operation(id int8, grace_ms int4 DEFAULT 0)
	RETURNS bool LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'pg_background_tasks_cancel_operation';
COMMENT ON FUNCTION background.cancel_operation IS 'cancel an operation; false where it has ended';

CREATE FUNCTION background.retry_operation(id int8)
	RETURNS int8 LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'pg_background_tasks_retry_operation';
COMMENT ON FUNCTION background.retry_operation IS 'run the failed chunks of an operation again; returns how many';

CREATE FUNCTION background.wait_operation(id int8, timeout_ms int4 DEFAULT 0)
	RETURNS text LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_wait_operation';
COMMENT ON FUNCTION background.wait_operation IS 'wait until an operation has ended and return its state; NULL at the timeout';

-- What shared memory knows, for the views. Of a task that the current role may not see there is the id alone, so that the tasks of all roles are
-- counted.
CREATE FUNCTION background.running_now(OUT task_id int8, OUT attempt int4, OUT pid int4, OUT started_at timestamptz,
	OUT progress_pct int4, OUT progress_msg text)
	RETURNS SETOF record LANGUAGE C ROWS 10 AS 'MODULE_PATHNAME', 'pg_background_tasks_running_now';
COMMENT ON FUNCTION background.running_now IS 'the tasks of this database that run';

CREATE FUNCTION background.totals_of(queue text, OUT done int8, OUT failed int8)
	LANGUAGE C AS 'MODULE_PATHNAME', 'pg_background_tasks_totals_of';
COMMENT ON FUNCTION background.totals_of IS 'tasks of a queue that ended since the server''s start';

CREATE FUNCTION background.counts_of(queue text, OUT name text, OUT type text, OUT help text, OUT label text, OUT label_value text, OUT value float8)
	RETURNS SETOF record LANGUAGE C ROWS 50 AS 'MODULE_PATHNAME', 'pg_background_tasks_counts_of';
COMMENT ON FUNCTION background.counts_of IS 'how tasks and runs of a queue ended since the server''s start, for metrics()';

-- 2: all of a row may be seen, 1: all but its texts, 0: nothing.
CREATE FUNCTION background.sight_of(owner background.role)
	RETURNS int4 LANGUAGE C STRICT STABLE AS 'MODULE_PATHNAME', 'pg_background_tasks_sight_of';
COMMENT ON FUNCTION background.sight_of IS 'how much the current role sees of another one''s tasks';

--
-- Views
--

CREATE VIEW background.tasks WITH (security_barrier) AS
	SELECT t.id, t.queue COLLATE "default" AS queue, t.label,
		CASE WHEN r.task_id IS NOT NULL THEN 'running'
			WHEN t.phase = 'b' THEN 'blocked'
			WHEN t.phase = 'd' AND t.run_at > statement_timestamp() THEN 'deferred'
			ELSE 'waiting' END AS state,
		CASE t.mode WHEN 't' THEN 'transaction' ELSE 'statement' END AS mode,
		t.priority, background.role_name(t.owner) AS owner,
		CASE t.sight WHEN 2 THEN t.sql END AS sql,
		coalesce(r.attempt, t.attempt) AS attempt,
		coalesce(t.max_attempts, CASE t.mode WHEN 's' THEN 1 ELSE coalesce(q.max_attempts, 5) END) AS max_attempts,
		t.enqueued_at, t.run_at, coalesce(r.started_at, t.started_at) AS started_at, NULL::timestamptz AS finished_at,
		r.pid, r.progress_pct, CASE t.sight WHEN 2 THEN r.progress_msg END AS progress_msg,
		t.sqlstate, CASE t.sight WHEN 2 THEN t.error_message END AS error_message,
		CASE t.sight WHEN 2 THEN t.key COLLATE "default" END AS key,
		CASE t.sight WHEN 2 THEN t.concurrency_key COLLATE "default" END AS concurrency_key,
		t.after, t.schedule, t.operation_id
	FROM (SELECT *, background.sight_of(owner) AS sight FROM background.task) AS t
		LEFT JOIN background.running_now() AS r ON r.task_id = t.id
		LEFT JOIN background.queue AS q ON q.name = t.queue
	WHERE t.sight > 0
	UNION ALL
	SELECT h.task_id, h.queue COLLATE "default", h.label, h.state,
		CASE h.mode WHEN 't' THEN 'transaction' WHEN 's' THEN 'statement' END,
		h.priority, background.role_name(h.owner), CASE h.sight WHEN 2 THEN h.sql END,
		abs(h.attempt), coalesce(h.max_attempts, CASE h.mode WHEN 's' THEN 1 ELSE coalesce(q.max_attempts, 5) END),
		h.enqueued_at, h.run_at, h.started_at, h.finished_at, h.pid, NULL, NULL,
		h.sqlstate, CASE h.sight WHEN 2 THEN h.message END,
		CASE h.sight WHEN 2 THEN h.key COLLATE "default" END, CASE h.sight WHEN 2 THEN h.concurrency_key COLLATE "default" END,
		h.after, h.schedule, h.operation_id
	FROM (SELECT *, background.sight_of(owner) AS sight FROM background.history) AS h
		LEFT JOIN background.queue AS q ON q.name = h.queue
	WHERE h.ended AND h.sight > 0;
COMMENT ON VIEW background.tasks IS 'tasks that have not ended, and those that have, as long as they are kept';

CREATE VIEW background.runs WITH (security_barrier) AS
	SELECT h.task_id, h.attempt, h.queue COLLATE "default" AS queue, h.label, background.role_name(h.owner) AS owner, h.state,
		h.pid, h.started_at, h.finished_at, h.row_count, h.command_tag, h.sqlstate,
		CASE h.sight WHEN 2 THEN h.message END AS message, CASE h.sight WHEN 2 THEN h.detail END AS detail,
		CASE h.sight WHEN 2 THEN h.hint END AS hint, CASE h.sight WHEN 2 THEN h.context END AS context, h.schedule
	FROM (SELECT *, background.sight_of(owner) AS sight FROM background.history) AS h
	WHERE h.attempt > 0 AND h.sight > 0;
COMMENT ON VIEW background.runs IS 'the attempts at tasks that have ended, as long as they are kept';

CREATE VIEW background.queues WITH (security_barrier) AS
	SELECT q.name COLLATE "default" AS name, q.max_running, q.max_running_per_key, q.max_waiting, q.max_attempts, q.retry_delay, q.timeout,
		q.keep_done, q.keep_failed, q.keep_done_max, q.synchronous_commit,
		(SELECT array_agg(background.role_name(role) ORDER BY number) FROM unnest(q.roles) WITH ORDINALITY AS _ (role, number)) AS roles,
		q.paused,
		coalesce(t.waiting, 0) AS waiting, coalesce(t.deferred, 0) AS deferred, coalesce(t.blocked, 0) AS blocked,
		coalesce(t.running, 0) AS running, coalesce(f.failed, 0) AS failed,
		statement_timestamp() - t.oldest AS oldest_waiting,
		totals.done AS done_total, totals.failed AS failed_total
	FROM (
		SELECT * FROM background.queue
		UNION ALL
		SELECT 'default', NULL, NULL, NULL, 5, '5 s', NULL, '1 day', '30 days', 1000000, 'off', NULL, false
		WHERE NOT EXISTS (SELECT FROM background.queue WHERE name = 'default')
	) AS q
	LEFT JOIN (
		SELECT queue,
			count(*) FILTER (WHERE r.task_id IS NULL AND (phase = 'w' OR phase = 'd' AND run_at <= statement_timestamp())) AS waiting,
			count(*) FILTER (WHERE r.task_id IS NULL AND phase = 'd' AND run_at > statement_timestamp()) AS deferred,
			count(*) FILTER (WHERE r.task_id IS NULL AND phase = 'b') AS blocked,
			count(r.task_id) AS running,
			-- A task that was enqueued after the statement began has not waited.
			min(least(greatest(enqueued_at, run_at, ready_at), statement_timestamp()))
				FILTER (WHERE r.task_id IS NULL AND (phase = 'w' OR phase = 'd' AND run_at <= statement_timestamp())) AS oldest
		FROM background.task LEFT JOIN background.running_now() AS r ON r.task_id = id
		GROUP BY queue
	) AS t ON t.queue = q.name
	LEFT JOIN (
		SELECT r.queue, count(*) AS failed
		FROM background.run_failed AS r LEFT JOIN background.queue AS q ON q.name = r.queue
		WHERE r.ended AND r.state = 'failed' AND statement_timestamp() - r.finished_at < coalesce(q.keep_failed, '30 days')
		GROUP BY r.queue
	) AS f ON f.queue = q.name
	CROSS JOIN background.totals_of(q.name) AS totals;
COMMENT ON VIEW background.queues IS 'queues, their settings, and how many tasks they have';

CREATE VIEW background.operations WITH (security_barrier) AS
	SELECT o.id, o.label, background.role_name(o.owner) AS owner,
		CASE WHEN o.finished_at IS NULL THEN CASE o.phase WHEN 'p' THEN 'paused' ELSE 'running' END
			ELSE CASE o.phase WHEN 'r' THEN 'done' WHEN 's' THEN 'failed' ELSE 'canceled' END END AS state,
		c.done AS chunks_done, c.failed AS chunks_failed, c.rows AS rows_affected,
		CASE WHEN o.finished_at IS NOT NULL AND o.phase = 'r' THEN 1
			-- The size of the table is an estimate. More rows than that come nearer to the end, and do not reach it.
			ELSE greatest(f.of_all, CASE WHEN f.fraction <= 0.9 THEN f.fraction ELSE 1 - 0.1 * exp(greatest(9 - 10 * f.fraction, -20)) END)
			END AS progress,
		r.rows / r.seconds AS rows_per_second,
		CASE WHEN o.finished_at IS NULL AND o.phase = 'r'
			THEN statement_timestamp() + greatest(e.total - c.size, 0) / nullif(r.size, 0) * r.seconds * interval '1 s' END AS eta,
		o.started_at, o.finished_at,
		CASE o.sight WHEN 2 THEN coalesce(o.error_message, (
			SELECT coalesce(e.error_message, 'chunk ' || e.n || ' was canceled') FROM background.chunk AS e
			WHERE e.operation_id = o.id AND e.state IN ('f', 'c') ORDER BY e.finished_at DESC LIMIT 1)) END AS last_error
	FROM (SELECT *, background.sight_of(owner) AS sight FROM background.operation) AS o
		CROSS JOIN LATERAL (
			SELECT count(*) FILTER (WHERE state = 'd') AS done, count(*) FILTER (WHERE state = 'f') AS failed,
				coalesce(sum(rows) FILTER (WHERE state = 'd'), 0)::int8 AS rows,
				coalesce(sum(size) FILTER (WHERE state = 'd'), 0)::float8 AS size
			FROM background.chunk WHERE operation_id = o.id) AS c
		-- How many rows there are is an estimate until all chunks are cut.
		CROSS JOIN LATERAL (SELECT CASE WHEN o.is_cut THEN o.passed ELSE o.total END) AS e (total)
		CROSS JOIN LATERAL (SELECT c.size / greatest(o.total, 1), CASE WHEN o.is_cut THEN c.size / greatest(o.passed, 1) END) AS f (fraction, of_all)
		CROSS JOIN LATERAL (
			SELECT sum(rows)::float8 AS rows, sum(size)::float8 AS size,
				nullif(extract(epoch FROM max(finished_at) - min(finished_at - ms * interval '1 ms'))::float8, 0) AS seconds
			FROM (SELECT rows, size, ms, finished_at FROM background.chunk
				WHERE operation_id = o.id AND state = 'd' ORDER BY n DESC LIMIT 20) AS _) AS r
	WHERE o.sight > 0;
COMMENT ON VIEW background.operations IS 'statements that run in chunks, how far they are, and how they ended';
COMMENT ON COLUMN background.operations.state IS 'running, paused, done, failed, canceled';
COMMENT ON COLUMN background.operations.rows_affected IS 'rows that the chunks that are done have processed';
COMMENT ON COLUMN background.operations.progress IS 'the part of the table that is done, 0 to 1';
COMMENT ON COLUMN background.operations.rows_per_second IS 'rows that the last chunks have processed in a second';
COMMENT ON COLUMN background.operations.eta IS 'when it ends at the speed of the last chunks';
COMMENT ON COLUMN background.operations.last_error IS 'what has stopped it, or the error of the chunk that has failed last';

CREATE VIEW background.chunks WITH (security_barrier) AS
	SELECT c.operation_id, c.n, CASE o.sight WHEN 2 THEN c.first END AS first, CASE o.sight WHEN 2 THEN c.last END AS last,
		CASE c.state WHEN 'd' THEN 'done' WHEN 'f' THEN 'failed' WHEN 'c' THEN 'canceled'
			ELSE CASE WHEN r.task_id IS NOT NULL THEN 'running'
				WHEN t.phase = 'd' AND t.run_at > statement_timestamp() THEN 'deferred' ELSE 'waiting' END END AS state,
		coalesce(c.attempts, r.attempt, t.attempt, 0) AS attempts, c.rows, c.ms,
		coalesce(c.sqlstate, t.sqlstate) AS sqlstate,
		CASE o.sight WHEN 2 THEN coalesce(c.error_message, t.error_message) END AS error_message
	FROM (SELECT id, background.sight_of(owner) AS sight FROM background.operation) AS o
		JOIN background.chunk AS c ON c.operation_id = o.id
		LEFT JOIN background.task AS t ON t.id = c.task_id AND c.state = 'w'
		LEFT JOIN background.running_now() AS r ON r.task_id = t.id
	WHERE o.sight > 0;
COMMENT ON VIEW background.chunks IS 'the chunks of operations';
COMMENT ON COLUMN background.chunks.n IS 'the number of the chunk, from 1 on';
COMMENT ON COLUMN background.chunks.first IS 'its first key, or the first place of its blocks, as text';
COMMENT ON COLUMN background.chunks.last IS 'its last key, or the last place of its blocks, which is a part of it';
COMMENT ON COLUMN background.chunks.rows IS 'rows that its statement has processed';
COMMENT ON COLUMN background.chunks.ms IS 'how long its statement took, in milliseconds';

CREATE VIEW background.schedules WITH (security_barrier) AS
	SELECT s.name COLLATE "default" AS name, s.spec, CASE s.sight WHEN 2 THEN s.sql END AS sql, s.time_zone,
		CASE s.overlap WHEN 's' THEN 'skip' WHEN 'q' THEN 'queue' ELSE 'allow' END AS overlap,
		CASE s.catch_up WHEN 'n' THEN 'none' WHEN 'o' THEN 'one' ELSE 'all' END AS catch_up,
		s.queue COLLATE "default" AS queue, CASE s.mode WHEN 't' THEN 'transaction' ELSE 'statement' END AS mode,
		coalesce(s.database, current_database()) AS database, background.role_name(s.owner) AS owner, s.enabled,
		f.next_at, f.last_at,
		CASE WHEN f.error IS NOT NULL THEN 'failed'
			WHEN r.task_id IS NOT NULL THEN 'running'
			WHEN t.phase = 'b' THEN 'blocked'
			WHEN t.phase = 'd' AND t.run_at > statement_timestamp() THEN 'deferred'
			WHEN t.phase IS NOT NULL THEN 'waiting'
			ELSE coalesce(h.state, f.last_state) END AS last_state,
		f.last_task,
		CASE WHEN t.id IS NULL THEN coalesce(h.duration, f.last_duration) END AS last_duration,
		f.runs_total, f.failures_total, f.skipped_total, f.missed_total,
		s.id, f.error, s.jitter, s.starts_at, s.ends_at, s.created_at,
		s.label, s.priority, CASE s.sight WHEN 2 THEN s.concurrency_key COLLATE "default" END AS concurrency_key,
		s.max_attempts, s.retry_delay, s.timeout, s.expires_after, s.keep_result,
		CASE s.sight WHEN 2 THEN s.settings END AS settings, s.search_path
	FROM (SELECT *, background.sight_of(owner) AS sight FROM background.schedule) AS s
		LEFT JOIN background.firing AS f ON f.schedule = s.id
		LEFT JOIN background.running_now() AS r ON r.task_id = f.last_task
		LEFT JOIN background.task AS t ON t.id = f.last_task
		LEFT JOIN LATERAL (
			SELECT h.state, h.finished_at - h.started_at AS duration FROM background.history AS h
			WHERE h.task_id = f.last_task AND h.ended LIMIT 1
		) AS h ON true
	WHERE s.sight > 0;
COMMENT ON VIEW background.schedules IS 'schedules, when they are due, and what has become of them';

--
-- Metrics
--

-- For monitoring and not for everyone: as the owner of the tables it sees all queues and schedules, and nothing of them but numbers.
-- What is not asked for costs nothing: its condition is one of the whole query, and is looked at first.
CREATE FUNCTION background.printable(name text)
	RETURNS text LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_background_printable';
COMMENT ON FUNCTION background.printable IS
	'the text with \x and two digits for each byte that belongs to no character of the encoding; for background.metrics';

CREATE FUNCTION background.check_metrics_part(part text)
	RETURNS bool LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'pg_background_tasks_check_metrics_part';
COMMENT ON FUNCTION background.check_metrics_part IS 'true for NULL and for a part that metrics() has, an error for another one; for metrics()';

CREATE FUNCTION background.metrics(part text DEFAULT NULL, OUT name text, OUT type text, OUT help text, OUT labels jsonb, OUT value float8)
	RETURNS SETOF record LANGUAGE sql ROWS 500 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT metric.name, metric.type, metric.help,
		jsonb_build_object('datname', background.printable(current_database())) || metric.labels,
		metric.value
	FROM (
		SELECT m.name, 'gauge' AS type, m.help, jsonb_build_object('queue', background.printable(q.name)) || m.labels AS labels, m.value
		FROM background.queues AS q
		CROSS JOIN LATERAL (VALUES
			('pg_background_tasks', 'Tasks that have not ended, by state.', '{"state": "waiting"}'::jsonb, q.waiting::float8),
			('pg_background_tasks', 'Tasks that have not ended, by state.', '{"state": "deferred"}', q.deferred),
			('pg_background_tasks', 'Tasks that have not ended, by state.', '{"state": "blocked"}', q.blocked),
			('pg_background_tasks', 'Tasks that have not ended, by state.', '{"state": "running"}', q.running),
			('pg_background_queue_oldest_waiting_seconds', 'For how long the task has waited that has waited longest, 0 without one.', '{}',
				coalesce(extract(epoch FROM q.oldest_waiting), 0)),
			('pg_background_queue_paused', 'Whether the queue is paused.', '{}', q.paused::int4),
			('pg_background_queue_max_running', 'Tasks of the queue that may run at a time.', '{}', coalesce(q.max_running, float8 'infinity')),
			('pg_background_queue_max_waiting', 'Tasks of the queue that may wait.', '{}', coalesce(q.max_waiting, float8 'infinity'))
		) AS m (name, help, labels, value)
		WHERE part IS NULL OR part = 'queues'
		UNION ALL
		SELECT c.name, c.type, c.help,
			jsonb_build_object('queue', background.printable(q.name))
				|| CASE WHEN c.label IS NULL THEN '{}' ELSE jsonb_build_object(c.label, c.label_value) END,
			c.value
		FROM (SELECT name FROM background.queue UNION SELECT 'default') AS q
		CROSS JOIN background.counts_of(q.name) AS c
		WHERE part IS NULL OR part = 'counts'
		UNION ALL
		SELECT 'pg_background_tasks_enabled', 'gauge', 'Whether tasks run in this database.', '{}', s.enabled::int4
		FROM background.status() AS s
		WHERE part IS NULL OR part = 'status'
		UNION ALL
		SELECT m.name, m.type, m.help, jsonb_build_object('schedule', background.printable(s.name)), m.value
		FROM background.schedules AS s
		CROSS JOIN LATERAL (VALUES
			('pg_background_schedule_late_seconds', 'gauge', 'For how long the schedule has been due without a task, 0 if it is not.',
				CASE WHEN s.enabled THEN greatest(extract(epoch FROM statement_timestamp() - s.next_at), 0)::float8 ELSE 0 END),
			('pg_background_schedule_failing', 'gauge', 'Whether the last task of the schedule has failed or expired, or its next time cannot be computed.',
				(s.error IS NOT NULL OR coalesce(s.last_state, '') IN ('failed', 'expired'))::int4),
			('pg_background_schedule_runs_total', 'counter', 'Tasks that the schedule has enqueued.', s.runs_total),
			('pg_background_schedule_failures_total', 'counter', 'Tasks of the schedule that have failed or expired.', s.failures_total),
			('pg_background_schedule_skipped_total', 'counter', 'Times that were skipped, as the task before had not ended or the queue was full.', s.skipped_total),
			('pg_background_schedule_missed_total', 'counter', 'Times that were missed, as nothing ran.', s.missed_total)
		) AS m (name, type, help, value)
		WHERE part IS NULL OR part = 'schedules'
		UNION ALL
		SELECT m.name, m.type, m.help,
			jsonb_build_object('operation', o.id::text, 'label', coalesce(background.printable(o.label), '')) || m.labels, m.value
		FROM background.operations AS o
		CROSS JOIN LATERAL (VALUES
			('pg_background_operation_progress_ratio', 'gauge', 'How much of the operation is done, from 0 to 1.', '{}'::jsonb, o.progress::float8),
			('pg_background_operation_paused', 'gauge', 'Whether the operation is paused.', '{}', (o.state = 'paused')::int4),
			('pg_background_operation_rows_total', 'counter', 'Rows that the operation has processed.', '{}', o.rows_affected),
			('pg_background_operation_chunks_ended', 'gauge', 'Chunks of the operation that have ended, by how they ended.', '{"state": "done"}', o.chunks_done),
			('pg_background_operation_chunks_ended', 'gauge', 'Chunks of the operation that have ended, by how they ended.', '{"state": "failed"}', o.chunks_failed)
		) AS m (name, type, help, labels, value)
		WHERE o.finished_at IS NULL AND (part IS NULL OR part = 'operations')
		UNION ALL
		SELECT NULL, NULL, NULL, NULL, NULL
		WHERE NOT background.check_metrics_part(part)
	) AS metric;
END;
COMMENT ON FUNCTION background.metrics IS
	'what is known of the tasks of this database, named after the conventions of Prometheus; of the parts queues, counts, status, schedules and operations, or all';

--
-- Rights
--

DO $$
DECLARE
	member record;
BEGIN
	-- As pg_background makes it, which may have dropped it since.
	BEGIN
		CREATE ROLE pgbackground_role NOLOGIN INHERIT;
	EXCEPTION WHEN duplicate_object OR unique_violation THEN
		NULL;
	END;

	FOR member IN
		SELECT object.type, object.identity, proc.proname
		FROM pg_extension AS extension
		JOIN pg_depend AS dependency
			ON dependency.refclassid = 'pg_extension'::regclass
			AND dependency.refobjid = extension.oid
			AND dependency.deptype = 'e'
		CROSS JOIN pg_identify_object(dependency.classid, dependency.objid, 0) AS object
		LEFT JOIN pg_proc AS proc
			ON dependency.classid = 'pg_proc'::regclass
			AND proc.oid = dependency.objid
		WHERE extension.extname = 'pg_background_tasks'
			AND dependency.classid IN ('pg_proc'::regclass, 'pg_type'::regclass)
			AND (dependency.classid <> 'pg_type'::regclass OR dependency.objid = 'background.role'::regtype)
	LOOP
		EXECUTE format('REVOKE ALL ON %s %s FROM PUBLIC', member.type, member.identity);
		IF member.type <> 'type' AND member.proname NOT IN ('set_queue', 'drop_queue', 'activate', 'import_pg_cron', 'metrics', 'check_metrics_part', 'counts_of', 'printable')
			AND member.proname NOT LIKE 'role\_%' THEN
			EXECUTE format('GRANT EXECUTE ON %s %s TO pgbackground_role', member.type, member.identity);
		END IF;
	END LOOP;
END
$$;

GRANT USAGE ON SCHEMA background TO pgbackground_role, pg_monitor;
GRANT SELECT ON background.tasks, background.runs, background.queues, background.schedules, background.operations, background.chunks
	TO pgbackground_role, pg_monitor;
-- What the views call is called as the one who looks.
GRANT EXECUTE ON FUNCTION background.role_name(background.role) TO pgbackground_role, pg_monitor;
GRANT EXECUTE ON FUNCTION background.sight_of(background.role), background.running_now(), background.totals_of(text), background.status() TO pg_monitor;
GRANT EXECUTE ON FUNCTION background.metrics(text) TO pg_monitor;
