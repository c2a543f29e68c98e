\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
SELECT count(*) FROM pg_background_list;
-- a job from its start to its end
SELECT now() AS before \gset
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)', 8192, 'first') \gset job_
SELECT pid = :job_pid, cookie = :job_cookie, launched_at BETWEEN :'before' AND clock_timestamp(), user_id::regrole = current_user::regrole, queue_size, state IN ('starting', 'running'), sql_preview, last_error, consumed, label FROM pg_background_list;
CALL wait_until('(SELECT state = ''running'' FROM pg_background_list)');
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT state, last_error ~ 'canceling statement due to user request', consumed FROM pg_background_list;
SELECT * FROM pg_background_launch('SELECT 1/0', 0, 'second') \gset b_
SELECT * FROM pg_background_launch('SELECT 1', 0, 'third') \gset c_
SELECT pg_background_wait(:b_pid, :b_cookie), pg_background_wait(:c_pid, :c_cookie);
SELECT label, state, last_error ~ 'division by zero' FROM pg_background_list ORDER BY launched_at;
SELECT pg_background_detach_all();
-- the first 120 characters of the SQL
SELECT * FROM pg_background_launch('SELECT 1 -- ' || repeat('ü', 200)) \gset job_
SELECT sql_preview = left('SELECT 1 -- ' || repeat('ü', 200), 120) FROM pg_background_list;
SELECT pg_background_detach(:job_pid, :job_cookie);
-- the function: the columns of the view, or the first nine
SELECT * FROM pg_background_launch('SELECT 1', 0, 'here') \gset job_
SELECT pid = :job_pid, label FROM pg_background_list() AS (pid int4, cookie int8, launched_at timestamptz, user_id oid, queue_size int4, state text, sql_preview text, last_error text, consumed bool, label text);
SELECT pid = :job_pid, sql_preview FROM pg_background_list() AS (pid int4, cookie int8, launched_at timestamptz, user_id oid, queue_size int4, state text, sql_preview text, last_error text, consumed bool);
SELECT pid = :job_pid, label FROM pg_background_list_v2() AS (pid int4, cookie int8, launched_at timestamptz, user_id oid, queue_size int4, state text, sql_preview text, last_error text, consumed bool, label text);
SELECT code FROM error_of('SELECT * FROM pg_background_list() AS (pid int4)');
SELECT code FROM error_of('SELECT * FROM pg_background_list() AS (pid int4, cookie int8, launched_at timestamptz, user_id oid, queue_size int4, state text, sql_preview text, last_error text, consumed bool, label text, more text)');
SELECT code FROM error_of('SELECT * FROM pg_background_list() AS (pid int8, cookie int8, launched_at timestamptz, user_id oid, queue_size int4, state text, sql_preview text, last_error text, consumed bool, label text)');
SELECT pg_background_detach(:job_pid, :job_cookie);
-- reading shows as consumed while the reader is at it
SELECT * FROM pg_background_launch('SELECT n FROM generate_series(1, 3) AS n') \gset job_
SELECT n, (SELECT count(*) FROM pg_background_list WHERE NOT consumed) FROM pg_background_result(:job_pid, :job_cookie) AS (n int);
-- with what pg_stat_activity knows of a running job
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)') \gset job_
CALL wait_until('(SELECT wait_event = ''PgSleep'' FROM pg_background_activity)');
SELECT pid = :job_pid, pgbg_state, sql_preview, backend_state, wait_event_type, wait_event, xact_start <= query_start, backend_start <= xact_start, query FROM pg_background_activity;
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT pid = :job_pid, pgbg_state, backend_state, wait_event_type, wait_event, xact_start, query_start, backend_start, query FROM pg_background_activity;
SELECT pg_background_detach_all();
-- type modifiers in the column definition list hold
SELECT * FROM pg_background_launch('SELECT 1') \gset job_
SELECT count(*), bool_and(at = date_trunc('second', at)), bool_and(at = launched_at::timestamptz(0))
	FROM pg_background_list() AS rounded (pid int, cookie bigint, at timestamptz(0), user_id oid, queue_size int, state text, sql text, error text, consumed bool)
	JOIN pg_background_list AS exact USING (pid, cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
