\echo
\echo '7. A thousand orders, a killed server, and each order done exactly once'
\echo '   One transaction places the orders and enqueues a durable task for each. A task writes the invoice of its order. The table of'
\echo '   invoices has no key: whatever is done twice would be there twice.'
\echo
CREATE TABLE orders (id int PRIMARY KEY, total numeric NOT NULL);
CREATE TABLE invoice (order_id int NOT NULL, total numeric NOT NULL, written_by int NOT NULL DEFAULT pg_backend_pid());

-- What a snapshot shows: the invoices, and the tasks that are noted as done. They are written in one transaction.
CREATE VIEW tour.books AS
    SELECT (SELECT count(*) FROM orders) AS orders, (SELECT count(*) FROM invoice) AS invoices,
           (SELECT count(DISTINCT order_id) FROM invoice) AS orders_with_an_invoice,
           count(*) FILTER (WHERE state = 'done') AS tasks_done, count(*) FILTER (WHERE finished_at IS NULL) AS tasks_to_do,
           count(*) FILTER (WHERE state NOT IN ('done', 'running', 'waiting')) AS tasks_in_trouble
    FROM background.tasks WHERE label = 'invoice';

-- Shows how many invoices there are, until there are as many.
CREATE PROCEDURE tour.watch_invoices(until int) LANGUAGE plpgsql AS $$
DECLARE
    written int;
    shown   int;
    begun   timestamptz := clock_timestamp();
BEGIN
    LOOP
        written := (SELECT count(*) FROM invoice);
        IF written IS DISTINCT FROM shown THEN
            RAISE INFO 'progress % %', written / 10, written || ' invoices';
            shown := written;
        END IF;
        EXIT WHEN written >= until;
        IF clock_timestamp() > begun + interval '2 minutes' THEN
            RAISE EXCEPTION 'only % invoices after two minutes', written;
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;

-- How many invoices there were at each second.
CREATE TABLE note (second timestamptz NOT NULL, invoices int NOT NULL);

\set ECHO queries
SELECT background.schedule('how far', 'every 1 second', $$
    INSERT INTO note SELECT run_at, (SELECT count(*) FROM invoice) FROM background.tasks WHERE id = background.current_task()
$$, priority => 100);

BEGIN;
INSERT INTO orders SELECT n, n * 1.25 FROM generate_series(1, 1000) AS n;
SELECT count(background.enqueue('INSERT INTO invoice SELECT id, total FROM orders, pg_sleep(0.01) WHERE id = $1', ROW(id), label => 'invoice'))
FROM orders;
COMMIT;
\set ECHO none
CALL tour.watch_invoices(400);
\echo
TABLE tour.books \g (format=aligned tuples_only=off)
SELECT tour.verify(format('the server is killed in the middle of the work: %s of %s tasks are still to do', tasks_to_do, orders), tasks_to_do BETWEEN 1 AND 999) FROM tour.books;
