\echo
\echo '4. A job cancelled half way, with nothing left behind'
\echo '   Its transaction never commits, so no row of it is ever seen.'
\echo
CREATE TABLE copy (LIKE flights) WITH (autovacuum_enabled = off);
CREATE PROCEDURE tour.copy_flights(times int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. times LOOP
        INSERT INTO copy SELECT * FROM flights WHERE month = 1 + i % 12;
        PERFORM pg_background_report_progress(100 * i / times, 'copied ' || i || ' of ' || times || ' months');
    END LOOP;
END $$;

\set ECHO queries
SELECT * FROM pg_background_launch('CALL tour.copy_flights(120)', 0, 'copy') \gset
\set ECHO none
CALL tour.watch(:pid, :cookie, 50);
\echo
\set ECHO queries
SELECT pg_background_cancel(:pid, :cookie, 5000) \g /dev/null
SELECT state, sqlstate, error_message FROM pg_background_outcome(:pid, :cookie) \g (format=aligned tuples_only=off)
\set ECHO none
SELECT tour.verify('the job had written', pg_relation_size('copy') > 0);
SELECT tour.verify('its state is canceled, its error 57014', (state, sqlstate) = ('canceled', '57014'))
FROM pg_background_outcome(:pid, :cookie);
SELECT tour.verify('no row of it is there', (SELECT count(*) = 0 FROM copy));
SELECT tour.verify('no worker of it is left', NOT EXISTS (SELECT FROM pg_stat_activity WHERE query ~ '^CALL tour.copy_flights'));
