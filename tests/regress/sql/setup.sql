-- Makes the extension and the helpers that the other files use.
CREATE EXTENSION pg_background;
-- The error that a command raises, with process ids masked; NULLs where it raises none.
CREATE FUNCTION error_of(command text, OUT code text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
EXCEPTION WHEN OTHERS OR query_canceled THEN
	GET STACKED DIAGNOSTICS
		code = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
	message := regexp_replace(message, '(pid|process) \d+', '\1 n', 'gi');
	detail := regexp_replace(detail, '(pid|process) \d+', '\1 n', 'gi');
END
$$;
-- The rows of a job that gives one text column, or the command tags of one that gives no rows.
CREATE FUNCTION rows_of(job text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	handle record;
BEGIN
	handle := pg_background_launch(job);
	RETURN QUERY SELECT line FROM pg_background_result(handle.pid, handle.cookie) AS (line text);
END
$$;
-- Waits until a condition holds; each look has a transaction of its own.
CREATE PROCEDURE wait_until(condition text) LANGUAGE plpgsql AS $$
DECLARE
	give_up timestamptz := clock_timestamp() + interval '60 s';
	holds bool;
BEGIN
	LOOP
		EXECUTE 'SELECT ' || condition INTO holds;
		COMMIT;
		EXIT WHEN holds;
		IF clock_timestamp() > give_up THEN
			RAISE EXCEPTION 'this never came true: %', condition;
		END IF;
		PERFORM pg_sleep(0.01);
		COMMIT;
	END LOOP;
END
$$;
