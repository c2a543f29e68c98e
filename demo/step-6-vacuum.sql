\echo
\echo '6. VACUUM from inside a transaction block'
\echo '   VACUUM cannot run in a transaction block; a job that is a lone VACUUM is not in one.'
\echo
SELECT pg_relation_size('copy') AS size \gset
\set ECHO queries
BEGIN;
SELECT label, state, command_tag, elapsed_ms
FROM pg_background_run('VACUUM (ANALYZE) copy', label => 'vacuum') \g (format=aligned tuples_only=off)
COMMIT;
\set ECHO none
-- VACUUM cannot truncate past a page that the server is writing at that moment: the next VACUUM does it.
DO $$
BEGIN
    FOR i IN 1 .. 50 LOOP
        EXIT WHEN pg_relation_size('copy') = 0;
        PERFORM pg_background_run('VACUUM copy'), pg_sleep(0.1);
    END LOOP;
END $$;
SELECT tour.verify(format('the %s that the cancelled copy had filled are free again', pg_size_pretty(:size::bigint)),
                   :size > 0 AND pg_relation_size('copy') = 0);
\echo
\echo '   CALL pg_background_do holds no snapshot while it waits, so even CREATE INDEX CONCURRENTLY gets through.'
\echo
\set ECHO queries
CALL pg_background_do('CREATE INDEX CONCURRENTLY flights_tailnum_idx ON flights (tailnum)', label => 'concurrently');
\set ECHO none
SELECT tour.verify('the index is there and valid', (SELECT indisvalid FROM pg_index WHERE indexrelid = 'flights_tailnum_idx'::regclass));
SELECT tour.verify('every job of this session is in exactly one counter',
    workers_launched = workers_completed + workers_failed + workers_canceled + workers_timed_out + workers_active)
FROM pg_background_stats();
