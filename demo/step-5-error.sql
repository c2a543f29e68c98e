\echo
\echo '5. An error, whole'
\echo '   The error of a job comes back with its SQLSTATE and everything else that a client would have seen.'
\echo
\set ECHO queries
SELECT * FROM pg_background_launch($$INSERT INTO flights SELECT (f).* FROM (SELECT f FROM flights AS f LIMIT 1) AS one;
                                     UPDATE flights SET month = 13 WHERE month = 12$$) \gset
SELECT pg_background_wait(:pid, :cookie) AS ended;
SELECT sqlstate, message, schema_name, table_name, constraint_name
FROM pg_background_error_info(:pid, :cookie) \g (format=aligned tuples_only=off expanded=on)
\set ECHO none
SELECT tour.verify('SQLSTATE 23514 with the table and the constraint',
    (sqlstate, table_name, constraint_name) = ('23514', 'flights', 'flights_month_check'))
FROM pg_background_error_info(:pid, :cookie);
\echo
\echo '   Reading the result raises it again, so that PL/pgSQL can handle it by name.'
\echo
\set ECHO queries
CREATE FUNCTION handled() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    job pg_background_handle := pg_background_launch('UPDATE flights SET month = 13 WHERE month = 12');
BEGIN
    PERFORM FROM pg_background_result(job.pid, job.cookie) AS (tag text);
    RETURN 'no error';
EXCEPTION WHEN check_violation THEN
    RETURN 'handled: ' || SQLERRM;
END $$;
SELECT handled();
\set ECHO none
SELECT tour.verify('the handler for check_violation ran', handled() LIKE 'handled: %flights_month_check%');
SELECT tour.verify(format('flights still has its %s rows', :rows), (SELECT count(*) = :rows FROM flights WHERE month <= 12));
