\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- A reading that is refused before its first row leaves the result as it is, so that the next one finds all of it.
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN few AS int;
CREATE TYPE pair AS (a few, m mood);
-- a column of type record whose values have a type with a name
CREATE FUNCTION pair_as_record() RETURNS record LANGUAGE plpgsql AS $$ DECLARE p pair := ROW(7, 'sad'); BEGIN RETURN p; END $$;
CREATE PROCEDURE answer(job pg_background_handle, list text, INOUT answer text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT string_agg(r::text, '';'') FROM pg_background_result(%s, %s) AS r(%s)', job.pid, job.cookie, list) INTO answer;
EXCEPTION WHEN OTHERS THEN
	answer := SQLSTATE || ' ' || regexp_replace(SQLERRM, 'PID \d+', 'PID n');
END $$;
CREATE FUNCTION answers(sql text, VARIADIC lists text[]) RETURNS TABLE (list text, answer text) LANGUAGE plpgsql AS $$
DECLARE
	job pg_background_handle := pg_background_launch(sql);
BEGIN
	PERFORM pg_background_wait(job.pid, job.cookie);
	FOREACH list IN ARRAY lists LOOP
		CALL answer(job, list, answer);
		RETURN NEXT;
	END LOOP;
END $$;
-- by its columns
SELECT * FROM answers('SELECT 1 UNION ALL SELECT 2', 'a text', 'a int, b int', 'a int', 'a int');
SELECT * FROM answers('SELECT ROW(1, ''x''::text)', 'a int', 'a record, b int', 'a pair', 'a record', 'a record');
SELECT * FROM answers('SELECT ARRAY[ROW(1), ROW(2)], ROW(ROW(3))', 'a record', 'a record, b record', 'a record[], b record', 'a record[], b record');
SELECT * FROM answers('SELECT pair_as_record()', 'a pair', 'a record', 'a record');
SELECT * FROM answers('SELECT 1 WHERE false; CREATE TEMP TABLE t ()', 'a int', 'a text, b text', 'a text', 'a text');
-- after a message, which is passed on once
SELECT * FROM answers($$DO 'BEGIN RAISE NOTICE ''said once''; END'; SELECT ROW(1)$$, 'a int', 'a record', 'a record');
-- by a type in it that has changed, or is gone: refused twice, then read when the change has been undone
CREATE FUNCTION changes(expression text, kind text, change text) RETURNS TABLE (changed text, again text, undone text) LANGUAGE plpgsql AS $$
DECLARE
	job pg_background_handle := pg_background_launch('SELECT ' || expression);
BEGIN
	PERFORM pg_background_wait(job.pid, job.cookie);
	BEGIN
		EXECUTE change;
		CALL answer(job, 'x ' || kind, changed);
		CALL answer(job, 'x ' || kind, again);
		RAISE EXCEPTION 'undo' USING ERRCODE = 'UN000';
	EXCEPTION WHEN SQLSTATE 'UN000' THEN
		CALL answer(job, 'x ' || kind, undone);
	END;
	RETURN NEXT;
END $$;
SELECT expression, left(changed, 5), again = changed, undone FROM (VALUES
	('7::few', 'few'), ('ROW(7, ''sad'')::pair', 'pair'), ('ROW(7::few)', 'record'), ('ROW(ROW(7, ''sad'')::pair)', 'record'),
	('pair_as_record()', 'record'), ('ROW(pair_as_record())', 'record'), ('ARRAY[ROW(7::few)]', 'record[]'),
	('ARRAY[pair_as_record()]', 'record[]'), ('ROW(ARRAY[ROW(7, ''sad'')::pair])', 'record')) AS v (expression, kind),
	LATERAL changes(expression, kind, 'ALTER DOMAIN few ADD CONSTRAINT c CHECK (VALUE < 5) NOT VALID') AS c;
-- every kind of type, within a record and an array of records
CREATE TYPE moods AS RANGE (subtype = mood, multirange_type_name = multimood);
CREATE TYPE pairs AS RANGE (subtype = pair);
CREATE DOMAIN good AS mood CHECK (VALUE <> 'sad');
CREATE TYPE box4 AS RANGE (subtype = float8);
SET client_min_messages = warning;
CREATE TYPE odd;
CREATE FUNCTION odd_in(cstring) RETURNS odd LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION odd_out(odd) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE odd (INPUT = odd_in, OUTPUT = odd_out, LIKE = int4);
CREATE TABLE stored (n int, m mood);
SELECT expression, form, left(changed, 5), again = changed, undone FROM (VALUES
	('''sad''::mood', 'mood'), ('ARRAY[''sad'']::mood[]', 'mood'), ('''happy''::good', 'mood'), ('''[sad,happy]''::moods', 'moods'),
	('ARRAY[''[sad,happy]'']::moods[]', 'moods'), ('ROW(7, ''sad'')::pair', 'pair'), ('ARRAY[ROW(7, ''sad'')]::pair[]', 'mood'),
	('pair_as_record()', 'pair'), ('''["(7,sad)","(7,happy)"]''::pairs', 'pair'), ('''[1,2]''::box4', 'box4'), ('7::few', 'few'),
	('7::text::odd', 'odd'), ('ROW(1, ''sad'')::stored', 'stored'), ('NULL::stored', 'stored'), ('ROW(''sad''::mood)', 'mood')) AS v (expression, dropped),
	(VALUES ('ROW(%s)', 'record'), ('ARRAY[ROW(1, %s)]', 'record[]')) AS f (form, kind),
	LATERAL changes(format(form, expression), kind, format('DROP %s %s CASCADE', CASE dropped WHEN 'stored' THEN 'TABLE' ELSE 'TYPE' END, dropped)) AS c;
-- the statistics of a column, an array that names the type of its elements
INSERT INTO stored SELECT n, 'sad' FROM generate_series(1, 9) AS n;
ANALYZE stored;
SELECT left(changed, 5), again = changed, undone
FROM changes($$ROW(most_common_vals) FROM pg_stats WHERE tablename = 'stored' AND attname = 'm'$$, 'record', 'DROP TYPE mood CASCADE');
-- the same with parameters, which are checked when the job begins
SELECT * FROM pg_background_run_query_params('SELECT $1, $2', ROW(pair_as_record(), ARRAY[pair_as_record()]), col_def => 'x') AS (a record, b record[]);
SELECT pg_background_detach_all();
DROP FUNCTION changes(text, text, text), answers(text, text[]), pair_as_record();
DROP PROCEDURE answer(pg_background_handle, text, text);
DROP TABLE stored;
DROP TYPE odd, mood, few, box4, pair CASCADE;
RESET client_min_messages;
