\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- Types that are altered while their values wait to be read: what is read is as they ask, or not read at all.
-- each way in which a domain comes: alone, in an array, in a composite type, in a record, in a range, below another domain
CREATE DOMAIN small AS int;
CREATE DOMAIN smaller AS small;
CREATE DOMAIN smalls AS small[];
CREATE TYPE boxed AS (s small);
CREATE TYPE smallrange AS RANGE (subtype = small);
CREATE TEMP TABLE waiting (number int GENERATED ALWAYS AS IDENTITY, pid int, cookie bigint, kind text);
CREATE FUNCTION launch_all() RETURNS TABLE (pid int, cookie bigint, kind text) LANGUAGE sql AS $$
	SELECT h.pid, h.cookie, kind
	FROM (VALUES ('small', '7::small'), ('small[]', 'ARRAY[7]::small[]'), ('boxed', 'ROW(7)::boxed'),
		('boxed[]', 'ARRAY[ROW(7)::boxed]'), ('record', 'ROW(7::small)'), ('record[]', 'ARRAY[ROW(ROW(7)::boxed)]'),
		('smallrange', '''[7,8]''::smallrange'), ('smaller', '7::smaller'), ('smalls', 'ARRAY[7]::smalls'), ('int', '7::small::int'))
		AS job (kind, expression),
	LATERAL pg_background_launch('SELECT ' || expression) AS h
	WHERE pg_background_wait(h.pid, h.cookie);
$$;
CREATE FUNCTION read_all() RETURNS TABLE (kind text, code text, message text) LANGUAGE sql AS $$
	SELECT kind, e.code, e.message
	FROM waiting, error_of(format('SELECT * FROM pg_background_result(%s, %s) AS (x %s)', pid, cookie, kind)) AS e ORDER BY number;
$$;
INSERT INTO waiting (pid, cookie, kind) SELECT * FROM launch_all();
SELECT * FROM read_all();
-- a CHECK
TRUNCATE waiting;
INSERT INTO waiting (pid, cookie, kind) SELECT * FROM launch_all();
ALTER DOMAIN small ADD CONSTRAINT below CHECK (VALUE < 5) NOT VALID;
SELECT * FROM read_all();
SELECT pg_background_detach_all() IS NOT NULL;
ALTER DOMAIN small DROP CONSTRAINT below;
-- NOT NULL
SELECT * FROM pg_background_launch('SELECT NULL::small') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
ALTER DOMAIN small SET NOT NULL;
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (s small);
ALTER DOMAIN small DROP NOT NULL;
-- as before, its values are read
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (s small);
-- a CHECK that holds for all that is stored
CREATE TABLE stored (s small);
INSERT INTO stored VALUES (7);
ALTER DOMAIN small ADD CONSTRAINT below CHECK (VALUE < 5) NOT VALID;
SELECT * FROM pg_background_launch('SELECT s FROM stored') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
DELETE FROM stored;
ALTER DOMAIN small VALIDATE CONSTRAINT below;
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (s small);
SELECT pg_background_detach_all();
DROP TABLE stored;
ALTER DOMAIN small DROP CONSTRAINT below;
-- what is no promise of the values does not matter
SELECT * FROM pg_background_launch('SELECT 7::small') \gset job_
ALTER DOMAIN small SET DEFAULT 3;
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (s small);
-- in the transaction that alters it
BEGIN;
SELECT * FROM pg_background_launch('SELECT 7::small') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SAVEPOINT before;
ALTER DOMAIN small ADD CONSTRAINT below CHECK (VALUE < 5);
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (s small);
ROLLBACK TO before;
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (s small);
COMMIT;
-- the modifier of a composite type's column
CREATE TYPE worded AS (v varchar(10));
SELECT * FROM pg_background_launch('SELECT ROW(''abcdef'')::worded') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
ALTER TYPE worded ALTER ATTRIBUTE v TYPE varchar(3);
SELECT * FROM pg_background_result(:job_pid, :job_cookie) AS (w worded);
SELECT pg_background_detach_all();
DROP FUNCTION launch_all(), read_all();
DROP TYPE worded, boxed, smallrange;
DROP DOMAIN smalls, smaller, small;
