\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
CREATE TABLE item (n int);
-- several statements are one transaction, each sees what the ones before did
SELECT * FROM rows_of('INSERT INTO item VALUES (1), (2); UPDATE item SET n = n + 1; SELECT string_agg(n::text, '','' ORDER BY n) FROM item');
SELECT code FROM error_of('SELECT rows_of(''DELETE FROM item; SELECT 1/0'')');
SELECT count(*) FROM item;
SELECT * FROM rows_of('CREATE TABLE fresh (n int); INSERT INTO fresh SELECT generate_series(1, 3); SELECT count(*)::text FROM fresh');
SELECT * FROM rows_of('DROP TABLE fresh');
-- a syntax error anywhere: nothing runs
SELECT code FROM error_of('SELECT rows_of(''DELETE FROM item; COMMIT; SELEC 1'')');
SELECT count(*) FROM item;
-- no statement
SELECT * FROM rows_of('');
SELECT * FROM rows_of(' ;; -- nothing');
SELECT state, has_error, sqlstate FROM pg_background_run('');
-- transaction control
SELECT * FROM rows_of('BEGIN; INSERT INTO item VALUES (10); COMMIT; INSERT INTO item VALUES (11)');
SELECT code FROM error_of('SELECT rows_of(''BEGIN; INSERT INTO item VALUES (20); COMMIT; INSERT INTO item VALUES (21); SELECT 1/0'')');
SELECT * FROM rows_of('BEGIN; INSERT INTO item VALUES (30); ROLLBACK; INSERT INTO item VALUES (31)');
SELECT * FROM rows_of('INSERT INTO item VALUES (40); COMMIT; INSERT INTO item VALUES (41); ROLLBACK');
SELECT * FROM rows_of('BEGIN; INSERT INTO item VALUES (50); SAVEPOINT a; INSERT INTO item VALUES (51); ROLLBACK TO a; RELEASE a; COMMIT');
SELECT code FROM error_of('SELECT rows_of(''SAVEPOINT a; SELECT 1'')');
SELECT * FROM rows_of('INSERT INTO item VALUES (60); BEGIN; INSERT INTO item VALUES (61); COMMIT');
SELECT * FROM rows_of('BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SELECT 1; SHOW transaction_isolation');
SELECT * FROM rows_of('BEGIN; COMMIT AND CHAIN; INSERT INTO item VALUES (70); COMMIT');
-- a transaction left open ends with the string, as with a client that goes away
SELECT * FROM rows_of('BEGIN; INSERT INTO item VALUES (80)');
SELECT n FROM item ORDER BY n;
-- what insists on being alone
SELECT * FROM rows_of('VACUUM item');
SELECT code FROM error_of('SELECT rows_of(''SELECT 1; VACUUM item'')');
SELECT code FROM error_of('SELECT rows_of(''BEGIN; VACUUM item'')');
CALL pg_background_do('CREATE INDEX CONCURRENTLY item_n ON item (n)');
CALL pg_background_do('REINDEX INDEX CONCURRENTLY item_n');
SELECT indisvalid FROM pg_index WHERE indexrelid = 'item_n'::regclass;
SELECT * FROM pg_background_launch('DROP INDEX CONCURRENTLY item_n') \gset job_
CALL wait_until('to_regclass(''item_n'') IS NULL');
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (tag text);
SELECT * FROM rows_of('ALTER SYSTEM SET pg_background.worker_timeout = ''1h''');
SELECT * FROM rows_of('ALTER SYSTEM RESET pg_background.worker_timeout');
SELECT code FROM error_of('SELECT rows_of(''SELECT 1; ALTER SYSTEM RESET pg_background.worker_timeout'')');
-- CALL of a procedure that commits, and of one with output
CREATE PROCEDURE committing() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO item VALUES (100);
	COMMIT;
	INSERT INTO item VALUES (101);
	ROLLBACK;
	INSERT INTO item VALUES (102);
END
$$;
SELECT * FROM rows_of('CALL committing()');
SELECT code FROM error_of('SELECT rows_of(''SELECT 1; CALL committing()'')');
SELECT n FROM item WHERE n >= 100 ORDER BY n;
CREATE PROCEDURE doubling(INOUT n int) LANGUAGE plpgsql AS $$BEGIN n := 2 * n; END$$;
SELECT * FROM pg_background_launch('CALL doubling(21)') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (n int);
SELECT * FROM rows_of('DO $$BEGIN INSERT INTO item VALUES (110); COMMIT; END$$');
-- SET acts on the statements after it
SELECT * FROM rows_of('SET work_mem = ''3MB''; SHOW work_mem');
SELECT * FROM rows_of('SET LOCAL work_mem = ''5MB''; SELECT set_config(''custom.word'', current_setting(''work_mem''), false)');
SELECT code, message FROM error_of('SELECT rows_of(''SET statement_timeout = ''''50ms''''; SELECT pg_sleep(600)::text'')');
SET statement_timeout = '50ms';
SELECT * FROM pg_background_launch('SELECT pg_sleep(600)::text') \gset job_
RESET statement_timeout;
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT state, sqlstate, error_message FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
BEGIN;
LOCK TABLE item;
SELECT code, message FROM error_of('SELECT rows_of(''SET lock_timeout = ''''50ms''''; INSERT INTO item VALUES (120)'')');
COMMIT;
-- statements that return rows
SELECT * FROM pg_background_launch('INSERT INTO item VALUES (130), (131) RETURNING n') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (n int);
SELECT * FROM pg_background_launch('WITH gone AS (DELETE FROM item WHERE n >= 130 RETURNING n) SELECT sum(n) FROM gone') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (sum bigint);
SELECT * FROM pg_background_launch('VALUES (1, ''a''::text), (2, ''b'')') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (n int, t text);
SELECT * FROM pg_background_launch('TABLE item ORDER BY n LIMIT 2') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (n int);
SELECT * FROM rows_of('EXPLAIN (COSTS OFF) SELECT 1');
SELECT * FROM rows_of('SHOW server_encoding');
SELECT * FROM pg_background_launch('DECLARE c CURSOR FOR SELECT n FROM generate_series(1, 9) AS n; MOVE 2 FROM c; FETCH 3 FROM c') \gset job_
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (n int);
SELECT * FROM rows_of('BEGIN; DECLARE c CURSOR FOR SELECT 1; MOVE c; CLOSE c; COMMIT');
SELECT * FROM rows_of('PREPARE p (int) AS SELECT ($1 + 1)::text; EXECUTE p (41)');
-- other command tags
SELECT * FROM rows_of('CREATE TABLE made AS SELECT generate_series(1, 4) AS n; CREATE VIEW seen AS TABLE made; COMMENT ON TABLE made IS ''x''; ANALYZE made; TRUNCATE made; DROP VIEW seen; DROP TABLE made');
-- nothing of a job's session is left for the next job
SELECT * FROM rows_of('CREATE TEMP TABLE private AS SELECT 1 AS n; PREPARE p AS SELECT 1; SET work_mem = ''7MB''; SELECT pg_advisory_lock(4711)::text');
SELECT * FROM rows_of('SELECT concat_ws('','', to_regclass(''private''), (SELECT count(*) FROM pg_prepared_statements), current_setting(''work_mem'') <> ''7MB'')');
CALL wait_until('NOT EXISTS (SELECT FROM pg_locks WHERE locktype = ''advisory'')');
SELECT * FROM rows_of('DISCARD ALL');
-- constraints checked at commit
CREATE TABLE once (n int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
SELECT code FROM error_of('SELECT rows_of(''INSERT INTO once VALUES (1), (1)'')');
SELECT state, has_error, sqlstate, error_message FROM pg_background_run('INSERT INTO once VALUES (1), (1) RETURNING n');
SELECT * FROM rows_of('INSERT INTO once VALUES (1), (1); DELETE FROM once; INSERT INTO once VALUES (1)');
SELECT code FROM error_of('SELECT rows_of(''SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO once VALUES (1)'')');
-- triggers, rules and event triggers
CREATE TABLE note (text text);
CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO note VALUES (TG_OP); RETURN NEW; END$$;
CREATE TRIGGER note_it BEFORE INSERT OR UPDATE ON once FOR EACH ROW EXECUTE FUNCTION note_it();
SELECT * FROM rows_of('INSERT INTO once VALUES (2); UPDATE once SET n = 3 WHERE n = 2');
CREATE RULE also AS ON DELETE TO once DO ALSO INSERT INTO note VALUES ('rule');
SELECT * FROM rows_of('DELETE FROM once WHERE n = 3');
CREATE FUNCTION note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO note VALUES (TG_TAG); END$$;
CREATE EVENT TRIGGER note_ddl ON ddl_command_end WHEN TAG IN ('CREATE SEQUENCE') EXECUTE FUNCTION note_ddl();
SELECT * FROM rows_of('CREATE SEQUENCE counter');
DROP EVENT TRIGGER note_ddl;
SELECT * FROM note;
SELECT * FROM rows_of('SELECT nextval(''counter'')::text');
SELECT code FROM error_of('SELECT rows_of(''SELECT currval(''''counter'''')::text'')');
DROP SEQUENCE counter;
-- LISTEN and NOTIFY
SELECT * FROM rows_of('BEGIN; LISTEN news; COMMIT; SELECT pg_listening_channels()');
SELECT * FROM rows_of('SELECT count(*)::text FROM pg_listening_channels()');
SELECT * FROM rows_of('LISTEN news');
SELECT * FROM rows_of('NOTIFY news, ''hello''');
-- COPY to and from the client
SELECT code FROM error_of('SELECT rows_of(''COPY item TO STDOUT'')');
SELECT code FROM error_of('SELECT rows_of(''COPY item FROM STDIN'')');
SELECT code FROM error_of('SELECT rows_of(''COPY (SELECT 1) TO STDOUT (FORMAT binary)'')');
SELECT code FROM error_of('SELECT rows_of(''DELETE FROM item; COPY item TO STDOUT'')');
SELECT count(*) > 0 FROM item;
-- COPY to and from a file of the server
SELECT current_setting('data_directory') || '/pg_background_regress.copy' AS file \gset
SELECT * FROM rows_of(format('COPY (SELECT generate_series(1, 5)) TO %L', :'file'));
SELECT * FROM rows_of(format('TRUNCATE item; COPY item FROM %L', :'file'));
SET client_encoding = 'LATIN1';
SELECT * FROM rows_of(format('COPY (SELECT chr(233)) TO %L', :'file'));
SELECT length(pg_read_binary_file(:'file'));
RESET client_encoding;
SELECT * FROM rows_of(format('COPY (SELECT) TO PROGRAM %L', 'cat > /dev/null; rm ' || :'file'));
SELECT sum(n) FROM item;
DROP TABLE item, once, note;
DROP FUNCTION note_it(), note_ddl();
DROP PROCEDURE committing(), doubling(int);
