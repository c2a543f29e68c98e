\echo
TABLE tour.books \g (format=aligned tuples_only=off)
SELECT tour.verify('after the crash each invoice has its note, and no task is lost',
    invoices = tasks_done AND invoices = orders_with_an_invoice AND tasks_done + tasks_to_do = 1000) FROM tour.books;
\echo
\echo '   The first session that asks has the tasks go on. With shared_preload_libraries nobody would have to ask.'
\echo
\set ECHO queries
SELECT enabled, note FROM background.status() \g (format=aligned tuples_only=off)
\set ECHO none
CALL tour.watch_invoices(1000);
DO $$
BEGIN
    -- The last tasks may still be busy with their end; and the schedule's next second is to come.
    FOR i IN 1 .. 200 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM background.tasks WHERE label = 'invoice' AND finished_at IS NULL)
            AND EXISTS (SELECT FROM note WHERE second > pg_postmaster_start_time());
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;
\echo
TABLE tour.books \g (format=aligned tuples_only=off)
SELECT tour.verify('a thousand orders have a thousand invoices, one each',
    (orders, invoices, orders_with_an_invoice, tasks_done, tasks_to_do, tasks_in_trouble) = (1000, 1000, 1000, 1000, 0, 0)) FROM tour.books;
SELECT tour.verify('the invoices amount to what was ordered', (SELECT sum(total) FROM invoice) = (SELECT sum(total) FROM orders));
SELECT tour.verify(format('%s processes wrote them, before and after the crash', count(DISTINCT written_by)), count(DISTINCT written_by) > 1) FROM invoice;
\echo
\echo '8. A schedule that the same crash did not stop'
\echo
\set ECHO queries
SELECT name, spec, runs_total, missed_total, skipped_total, next_at FROM background.schedules \g (format=aligned tuples_only=off)
\set ECHO none
SELECT tour.verify(format('it noted %s seconds, the last one after the crash, and none twice', count(*)),
    count(*) = count(DISTINCT second) AND max(second) > pg_postmaster_start_time()) FROM note;
SELECT background.unschedule('how far') \g /dev/null
