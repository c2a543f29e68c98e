-- Replaces the flights if they cannot be fetched: pgbench's accounts, spread over the year and over a few carriers and airports.
COPY (
    SELECT 2013, extract(month FROM day), extract(day FROM day),
           100 * hour + minute, 100 * hour, minute,
           100 * (hour + 2) + minute, 100 * (hour + 2), minute - 20 + aid % 30,
           'C' || aid % 16, aid % 5000, 'N' || aid % 4000,
           (ARRAY['EWR', 'JFK', 'LGA'])[1 + aid % 3], 'D' || aid % 100,
           120, 200 + aid % 2000, hour, minute, day + make_interval(hours => hour)
    FROM (SELECT aid, timestamptz '2013-01-01 00:00Z' + make_interval(days => (aid * 7919::bigint % 365)::int) AS day,
                 5 + aid % 17 AS hour, (aid * 31::bigint % 60)::int AS minute
          FROM pgbench_accounts) AS a
    ORDER BY day
) TO :'csv' (FORMAT csv, NULL 'NA');
