\echo
\echo '3. Twelve monthly aggregations at once'
\echo '   First in a row in this session, then fanned out as twelve jobs and gathered with pg_background_drain.'
\echo
CREATE TABLE report (how text, month int, carrier text, dest text, flights bigint, median_delay float8, worst_tenth float8,
                     crowding numeric, inherited numeric);
-- For each carrier and destination: how late the flights were, and how their delay correlates with the number of departures
-- from the same airport in the three hours before, and with the delay of the same plane's previous flight.
CREATE PROCEDURE tour.report(how text, month int) LANGUAGE sql AS $$
    INSERT INTO report
    SELECT how, f.month, carrier, dest, count(*),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY arr_delay),
           percentile_cont(0.9) WITHIN GROUP (ORDER BY arr_delay),
           round(corr(dep_delay, crowd)::numeric, 6), round(corr(dep_delay, before)::numeric, 6)
    FROM (SELECT *, count(*) OVER (PARTITION BY origin ORDER BY departure
                                   RANGE BETWEEN interval '3 hours' PRECEDING AND CURRENT ROW) AS crowd,
                    lag(dep_delay) OVER (PARTITION BY tailnum ORDER BY departure, carrier, flight, dest) AS before
          FROM (SELECT *, time_hour + make_interval(mins => minute) AS departure FROM flights) AS all_of_them
          WHERE all_of_them.month = report.month) AS f
    GROUP BY GROUPING SETS ((f.month, carrier, dest), (f.month, carrier), (f.month, dest), (f.month, origin, carrier))
$$;

SELECT clock_timestamp() AS begun \gset
\echo 'CALL tour.report(''in a row'', 1);  … and so on to 12'
SELECT format('CALL tour.report(''in a row'', %s)', m) FROM generate_series(1, 12) AS m \gexec
SELECT 1000 * extract(epoch FROM clock_timestamp() - :'begun') AS in_a_row, clock_timestamp() AS begun \gset
\echo
\set ECHO queries
SELECT array_agg(pg_background_submit(format('CALL tour.report(''fanned out'', %s)', m), 0, 'month ' || m)) AS jobs
FROM generate_series(1, 12) AS m \gset
CREATE TABLE outcome AS SELECT * FROM pg_background_drain(:'jobs');
\set ECHO none
SELECT 1000 * extract(epoch FROM clock_timestamp() - :'begun') AS fanned_out \gset
SELECT label, state, command_tag FROM outcome \g (format=aligned tuples_only=off)
SELECT format('  in a row %s ms, fanned out %s ms: %s times as fast on %s cores',
              round(:in_a_row), round(:fanned_out), round(:in_a_row / :fanned_out, 2), :cores);
SELECT tour.verify('all twelve jobs ended well', (SELECT count(*) = 12 AND bool_and(state = 'stopped') FROM outcome));
CREATE VIEW in_a_row AS SELECT to_jsonb(report) - 'how' AS line FROM report WHERE how = 'in a row';
CREATE VIEW fanned_out AS SELECT to_jsonb(report) - 'how' AS line FROM report WHERE how = 'fanned out';
SELECT tour.verify('both ways came to the same report',
    EXISTS (TABLE in_a_row) AND NOT EXISTS (TABLE in_a_row EXCEPT ALL TABLE fanned_out)
                            AND NOT EXISTS (TABLE fanned_out EXCEPT ALL TABLE in_a_row));
