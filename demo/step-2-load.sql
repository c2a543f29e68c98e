\echo
\echo '2. A load and an index build in the background, with progress'
\echo '   The job reports with pg_background_report_progress, this session looks with pg_background_get_progress.'
\echo
CREATE PROCEDURE tour.load_flights(dir text) LANGUAGE plpgsql AS $$
DECLARE
    parts text[] := ARRAY(SELECT part FROM pg_ls_dir(dir) AS part ORDER BY part);
    rows  int;
    total int := 0;
BEGIN
    FOR i IN 1 .. cardinality(parts) LOOP
        EXECUTE format('COPY flights FROM %L (FORMAT csv, NULL ''NA'')', dir || '/' || parts[i]);
        GET DIAGNOSTICS rows = ROW_COUNT;
        total := total + rows;
        PERFORM pg_background_report_progress(100 * i / cardinality(parts), total || ' rows');
    END LOOP;
END $$;

\set load 'CALL tour.load_flights(' :'chunks' ')'
\set ECHO queries
SELECT * FROM pg_background_launch(:'load', 0, 'load') \gset
\set ECHO none
CALL tour.watch(:pid, :cookie);
SELECT tour.verify('the load ended well', (pg_background_outcome(:pid, :cookie)).state = 'stopped');
SELECT tour.verify(format('all %s rows are there', :rows), (SELECT count(*) = :rows FROM flights));
\echo
\set ECHO queries
SELECT * FROM pg_background_launch($$
    SELECT pg_background_report_progress(0, 'index on carrier');
    CREATE INDEX flights_carrier_idx ON flights (carrier, time_hour);
    SELECT pg_background_report_progress(30, 'index on route');
    CREATE INDEX flights_route_idx ON flights (origin, dest, time_hour);
    SELECT pg_background_report_progress(60, 'index on month');
    CREATE INDEX flights_month_idx ON flights (month);
    SELECT pg_background_report_progress(80, 'statistics');
    ANALYZE flights;
    SELECT pg_background_report_progress(100, 'done')
$$, 0, 'index build') \gset
\set ECHO none
CALL tour.watch(:pid, :cookie);
SELECT tour.verify('the index build ended well', (pg_background_outcome(:pid, :cookie)).state = 'stopped');
SELECT tour.verify('three valid indexes are there', (SELECT count(*) = 3 FROM pg_index WHERE indrelid = 'flights'::regclass AND indisvalid));
