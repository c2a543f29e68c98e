\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
CREATE FUNCTION say(level text, words text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CASE level
		WHEN 'debug' THEN RAISE DEBUG '%', words;
		WHEN 'log' THEN RAISE LOG '%', words;
		WHEN 'info' THEN RAISE INFO '%', words;
		WHEN 'notice' THEN RAISE NOTICE '%', words;
		WHEN 'warning' THEN RAISE WARNING '%', words;
	END CASE;
	RETURN words;
END
$$;
-- the reader gets the messages, once and in order
SELECT * FROM pg_background_launch('SELECT say(''notice'', ''one''), say(''warning'', ''two''); SELECT say(''info'', ''three'')') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (words text);
-- with their fields
SELECT * FROM pg_background_launch('DO $x$BEGIN RAISE NOTICE ''words'' USING DETAIL = ''the detail'', HINT = ''the hint''; END$x$') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (tag text);
-- before the error
SELECT * FROM pg_background_launch('SELECT say(''notice'', ''before''); SELECT 1/0') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (x int);
-- the server's own messages too
SELECT * FROM rows_of('DROP TABLE IF EXISTS no_such_table');
-- client_min_messages of the reader decides
SELECT * FROM pg_background_launch('SELECT say(''notice'', ''hidden''), say(''warning'', ''shown''), say(''debug'', ''hidden'')') \gset job_
SET client_min_messages = warning;
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (a text, b text, c text);
RESET client_min_messages;
SET client_min_messages = error;
SELECT * FROM rows_of('SELECT say(''warning'', ''quiet'')');
RESET client_min_messages;
SET client_min_messages = debug1;
SELECT * FROM pg_background_launch('SELECT say(''debug'', ''shown''), say(''log'', ''shown too'')') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (a text, b text);
RESET client_min_messages;
-- only the reader gets them
SELECT * FROM pg_background_submit('SELECT say(''warning'', ''unread'')') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- many messages that nobody reads do not hold up the job
SELECT * FROM pg_background_launch('SELECT say(''notice'', repeat(''x'', 1000)) FROM generate_series(1, 2000)', 4096) \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SET client_min_messages = warning;
SELECT count(*) FROM pg_background_result(:job_pid, :job_cookie) AS (words text);
RESET client_min_messages;
-- a message longer than the queue
SELECT * FROM pg_background_launch('SELECT length(say(''warning'', repeat(''x'', 100000)))', 4096) \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SET client_min_messages = error;
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (words int);
RESET client_min_messages;
DROP FUNCTION say(text, text);
