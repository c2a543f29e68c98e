\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- what a statement needs after it has committed within: output parameters, by every way of reading
CREATE TABLE trail (n serial, what text, who name DEFAULT current_user);
CREATE PROCEDURE up(INOUT a int) LANGUAGE plpgsql AS $$BEGIN a := a + 1; COMMIT; END$$;
SELECT state, sqlstate, row_count, command_tag FROM pg_background_run('CALL up(1)');
SELECT * FROM pg_background_run_query('CALL up(1)', col_def => 'a int') AS (a int);
SELECT * FROM pg_background_run_query_params('CALL up($1)', ROW(41), col_def => 'a int') AS (a int);
SELECT * FROM pg_background_launch('CALL up(2)') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (a int);
SELECT * FROM pg_background_submit('CALL up(3)') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- in a group it cannot
SELECT state, sqlstate FROM pg_background_run('SELECT 1; CALL up(1)');
SELECT state, sqlstate FROM pg_background_run('BEGIN; COMMIT; CALL up(1)');
-- rows, arrays, values that are stored elsewhere, and many transactions
CREATE TYPE pair AS (a int, b text);
CREATE TABLE big (t text);
ALTER TABLE big ALTER t SET STORAGE EXTERNAL;
INSERT INTO big VALUES (repeat('x', 100000));
CREATE PROCEDURE several(INOUT p pair, INOUT r record, INOUT l int[], INOUT t text, IN ok bool) LANGUAGE plpgsql AS $$
BEGIN
	p := (1, 'one')::pair;
	SELECT 2, 'two'::text INTO r;
	l := ARRAY[1, 2, 3];
	t := (SELECT big.t FROM big);
	FOR i IN 1..20 LOOP
		INSERT INTO trail (what) VALUES ('several ' || ok || i);
		IF ok THEN COMMIT; ELSE ROLLBACK; END IF;
		RAISE DEBUG 'transaction %', i;
	END LOOP;
END
$$;
SELECT p, r, l, length(t) FROM pg_background_run_query('CALL several(NULL, NULL, NULL, NULL, true)', col_def => 'p pair, r record, l int[], t text')
	AS (p pair, r record, l int[], t text);
SELECT p, r, l, length(t) FROM pg_background_run_query_params('CALL several(NULL, ROW(1, ''x''::text), NULL, $1, false)', ROW('y'::text),
	col_def => 'p pair, r record, l int[], t text') AS (p pair, r record, l int[], t text);
SELECT count(*) FROM trail WHERE what LIKE 'several%';
-- a loop over a query that goes on while transactions end, with messages that fill memory and a file
CREATE PROCEDURE chatty(n int, INOUT last text) LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT i, repeat('y', 2000) AS t FROM generate_series(1, n) i LOOP
		RAISE NOTICE '% %', r.i, r.t;
		last := r.t || r.i;
		IF r.i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END
$$;
SET client_min_messages = 'warning';
SELECT * FROM pg_background_launch('CALL chatty(200, NULL)', 4096) \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT right(last, 3), length(last) FROM pg_background_result(:job_pid, :job_cookie) AS (last text);
SET client_min_messages = 'notice';
SELECT * FROM pg_background_launch('CALL chatty(200, NULL)', 4096) \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SET client_min_messages = 'warning';
SELECT right(last, 3), length(last) FROM pg_background_result(:job_pid, :job_cookie) AS (last text);
RESET client_min_messages;
-- DO
SELECT * FROM rows_of('DO $$BEGIN FOR i IN 1..5 LOOP INSERT INTO trail (what) VALUES (''do '' || i); COMMIT AND CHAIN; END LOOP; END$$');
SELECT count(*) FROM trail WHERE what LIKE 'do %';
-- a commit that fails within, caught by nobody, and the next job of the same process
CREATE TABLE later (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);
SELECT code FROM error_of('SELECT rows_of(''DO $$BEGIN INSERT INTO later VALUES (1), (1); COMMIT; END$$'')');
SELECT code FROM error_of('SELECT rows_of(''DO $$BEGIN INSERT INTO trail (what) VALUES (''''kept''''); COMMIT; PERFORM 1 / 0; END$$'')');
SELECT * FROM pg_background_run_query('CALL up(5)', col_def => 'a int') AS (a int);
SELECT what FROM trail WHERE what = 'kept';
-- for the owner of a SECURITY DEFINER function the same, and nobody else at any time
CREATE ROLE commit_owner;
CREATE ROLE commit_other;
CREATE ROLE commit_caller;
GRANT commit_other TO commit_owner;
GRANT pgbackground_role TO commit_owner, commit_caller;
GRANT CREATE ON SCHEMA public TO commit_owner;
GRANT INSERT, SELECT ON trail TO commit_owner, commit_caller;
GRANT USAGE ON trail_n_seq TO commit_owner, commit_caller;
SET ROLE commit_owner;
CREATE FUNCTION as_owner(job text) RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
	outcome pg_background_run_result;
BEGIN
	outcome := pg_background_run(job);
	RETURN NEXT outcome.state;
	RETURN NEXT coalesce(outcome.sqlstate, '') || ' ' || coalesce(outcome.error_message, '');
END
$$;
CREATE FUNCTION query_as_owner(job text) RETURNS SETOF text LANGUAGE sql SECURITY DEFINER
AS $$SELECT * FROM pg_background_run_query(job, col_def => 'line text') AS (line text)$$;
CREATE PROCEDURE stroll(INOUT way text) LANGUAGE plpgsql AS $$
DECLARE
	step text;
BEGIN
	FOREACH step IN ARRAY string_to_array(way, ';') LOOP
		BEGIN
			IF step IN ('COMMIT', 'ROLLBACK', 'COMMIT AND CHAIN') THEN NULL; ELSE EXECUTE step; END IF;
		EXCEPTION WHEN OTHERS THEN
			way := way || ' ' || SQLSTATE;
		END;
		IF step = 'COMMIT' THEN COMMIT; END IF;
		IF step = 'COMMIT AND CHAIN' THEN COMMIT AND CHAIN; END IF;
		IF step = 'ROLLBACK' THEN ROLLBACK; END IF;
		way := way || ' ' || current_user;
	END LOOP;
	INSERT INTO trail (what) VALUES (way);
END
$$;
RESET ROLE;
SET ROLE commit_caller;
SELECT as_owner('CALL stroll(''COMMIT'')');
SELECT query_as_owner('CALL stroll(''ROLLBACK;COMMIT;COMMIT AND CHAIN;ROLLBACK'')');
SELECT query_as_owner('CALL stroll(''SET ROLE commit_other;COMMIT;RESET ROLE;ROLLBACK;SET LOCAL ROLE none;SET SESSION AUTHORIZATION DEFAULT;COMMIT;RESET SESSION AUTHORIZATION'')');
SELECT query_as_owner('CALL stroll(''SELECT set_config(''''role'''', ''''commit_other'''', false);DISCARD ALL;RESET ALL;COMMIT'')');
SELECT as_owner('DO $$BEGIN ROLLBACK; SET ROLE commit_caller; END$$');
SELECT as_owner('DO $$BEGIN COMMIT; INSERT INTO trail (what) VALUES (''as owner''); COMMIT; PERFORM 1 / 0; END$$');
SELECT who FROM trail WHERE what = 'as owner';
-- a job from there is the owner's too, in every of its transactions
SELECT as_owner('DO $$BEGIN COMMIT; PERFORM pg_background_run(''INSERT INTO trail (what) SELECT ''''within '''' || current_user; RESET ROLE''); END$$');
SELECT as_owner('DO $$DECLARE o pg_background_run_result; BEGIN COMMIT; o := pg_background_run(''DO $b$BEGIN ROLLBACK; INSERT INTO trail (what) SELECT ''''within ''''|| current_user; END$b$''); END$$');
SELECT what, who FROM trail WHERE what LIKE 'within%';
-- the process that ran it is the session's again, and the roles are free
SELECT * FROM pg_background_run_query('SELECT current_user::text', col_def => 'who text') AS (who text);
RESET ROLE;
SELECT * FROM pg_background_run_query('SET ROLE commit_other; SELECT current_user::text', col_def => 'who text') AS (who text);
SELECT query_as_owner('CALL stroll(''COMMIT'')');
SELECT * FROM pg_background_run_query('SET ROLE commit_other; SELECT current_user::text', col_def => 'who text') AS (who text);
SELECT as_owner('SELECT 1 / 0');
SELECT who = current_user FROM pg_background_run_query('SELECT current_user::text', col_def => 'who text') AS (who text);
DROP FUNCTION as_owner, query_as_owner;
DROP PROCEDURE stroll, chatty, several, up;
DROP TABLE trail, later, big;
DROP TYPE pair;
DROP OWNED BY commit_owner, commit_other, commit_caller;
DROP ROLE commit_owner, commit_other, commit_caller;
