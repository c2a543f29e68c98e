\echo
\echo '9. A backfill: one UPDATE of the whole table, in many small transactions'
\echo '   The statement is not idempotent: a chunk that ran twice, or not at all, would be seen in the column `changes`.'
\echo
CREATE INDEX flights_time_idx ON flights (time_hour);
ALTER TABLE flights ADD COLUMN mph float4, ADD COLUMN changes int NOT NULL DEFAULT 0;

-- Shows how far the operation is, until it is that far or has ended.
CREATE PROCEDURE tour.watch_operation(operation int8, until int DEFAULT 101) LANGUAGE plpgsql AS $$
DECLARE
    now   background.operations;
    shown text;
    begun timestamptz := clock_timestamp();
BEGIN
    LOOP
        SELECT * INTO now FROM background.operations WHERE id = operation;
        IF now.chunks_done || now.state IS DISTINCT FROM shown THEN
            RAISE INFO 'progress % %', trunc(100 * now.progress), format('%s rows in %s chunks', now.rows_affected, now.chunks_done);
            shown := now.chunks_done || now.state;
        END IF;
        EXIT WHEN now.finished_at IS NOT NULL OR 100 * now.progress >= until;
        IF clock_timestamp() > begun + interval '5 minutes' THEN
            RAISE EXCEPTION 'the operation is at % after five minutes', now.progress;
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;

\set ECHO queries
SELECT background.parallel_execute($$
    UPDATE flights SET mph = distance * 60.0 / nullif(air_time, 0), changes = changes + 1 WHERE time_hour BETWEEN $1 AND $2
$$, 'flights', by => 'time_hour', label => 'speed', chunk_time => '250 ms') AS operation \gset
\set ECHO none
CALL tour.watch_operation(:operation, 40);
\echo
\echo '   In the middle it is paused: what is done is committed, and nothing waits, locks or runs.'
\echo
\set ECHO queries
SELECT background.alter_operation(:operation, paused => true) \g /dev/null
\set ECHO none
DO $$
BEGIN
    -- The chunk that ran comes to its end.
    FOR i IN 1 .. 200 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM background.tasks WHERE operation_id IS NOT NULL AND finished_at IS NULL);
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;
SELECT count(*) AS rows, count(*) FILTER (WHERE changes = 1) AS changed, count(*) FILTER (WHERE changes = 0) AS left,
    (SELECT state FROM background.operations WHERE id = :operation) FROM flights \g (format=aligned tuples_only=off)
SELECT tour.verify('the rows that are changed are those of the chunks that are done',
    (SELECT count(*) FROM flights WHERE changes = 1) = rows_affected AND state = 'paused') FROM background.operations WHERE id = :operation;
\echo
\set ECHO queries
SELECT background.alter_operation(:operation, paused => false) \g /dev/null
\set ECHO none
CALL tour.watch_operation(:operation);
SELECT tour.verify(format('all %s rows were changed in %s transactions, each row once', rows_affected, chunks_done),
    state = 'done' AND rows_affected = :rows AND chunks_done > 1 AND (SELECT bool_and(changes = 1) FROM flights))
FROM background.operations WHERE id = :operation;
SELECT tour.verify(format('no transaction took more than %s ms', round(max(ms))), count(*) = max(n)) FROM background.chunks WHERE operation_id = :operation;
