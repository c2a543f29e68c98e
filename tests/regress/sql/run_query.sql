\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- the rows of the job
SELECT * FROM pg_background_run_query('SELECT n, n::text || ''!'' FROM generate_series(1, 3) AS n', col_def => 'n int, t text') AS (n int, t text);
SELECT count(*) FROM pg_background_list;
SELECT * FROM pg_background_run_query('SELECT ''{1,2}''::int[], 1.50', 8192, 60000, 'labelled', '"odd, name" int[], n numeric') AS ("odd, name" int[], n numeric);
SELECT * FROM pg_background_run_query('SELECT 1 WHERE false', col_def => 'x int') AS (x int);
SELECT * FROM pg_background_run_query('CREATE TABLE made (n int); DROP TABLE made', col_def => 'tag text') AS (tag text);
-- of any size, through the smallest queue
SELECT count(*), sum(n), sum(length(t)) FROM pg_background_run_query('SELECT n, repeat(''x'', 100) FROM generate_series(1, 100000) AS n', 4096, col_def => 'n int, t text') AS (n int, t text);
-- without col_def the job runs and gives no rows
CREATE TABLE written (n int);
SELECT count(*) FROM pg_background_run_query('INSERT INTO written VALUES (1) RETURNING n') AS (n int);
SELECT count(*) FROM written;
-- messages and errors
SELECT * FROM pg_background_run_query('DROP TABLE IF EXISTS no_such_table', col_def => 'tag text') AS (tag text);
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT 1/0'', col_def => ''x int'') AS (x int)');
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT 1/0'') AS (x int)');
SELECT code FROM error_of('SELECT * FROM pg_background_run_query(''SELECT pg_sleep(600)::text'', timeout_ms => 50, col_def => ''x text'') AS (x text)');
SELECT code FROM error_of('SELECT * FROM pg_background_run_query(''SELECT pg_sleep(600)::text'', timeout_ms => 50) AS (x text)');
SELECT code FROM error_of('SELECT * FROM pg_background_run_query(''SELECT repeat(''''x'''', 100000), CASE n WHEN 2 THEN pg_sleep(600)::text END FROM generate_series(1, 2) AS n'', 4096, timeout_ms => 200, col_def => ''x'') AS (x text, y text)');
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(NULL, col_def => ''x int'') AS (x int)');
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT 1'', 268435457, col_def => ''x int'') AS (x int)');
-- what does not fit the rows
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SELECT 1'', col_def => ''x text'') AS (x text)');
SELECT code, message FROM error_of('SELECT * FROM pg_background_run_query(''SET work_mem = 64'', col_def => ''x int'') AS (x int)');
-- col_def is no way to run something else
SELECT count(*) FROM error_of('SELECT * FROM pg_background_run_query(''SELECT 1'', col_def => ''x int); DROP TABLE written; --'') AS (x int)');
SELECT count(*) FROM written;
-- nothing is left in the list, whatever happened
SELECT label, state FROM pg_background_list;
SELECT * FROM pg_background_run_query_v2('SELECT 1', col_def => 'x int') AS (x int);
DROP TABLE written;
