\echo
\echo '1. An audit row that survives a rollback'
\echo '   A job runs in a transaction of its own, so what it writes stays when the caller rolls back.'
\echo
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
CREATE TABLE audit (at timestamptz NOT NULL DEFAULT clock_timestamp(), who name NOT NULL DEFAULT current_user, what text NOT NULL);
INSERT INTO account VALUES (1, 100);
\set ECHO queries
BEGIN;
UPDATE account SET balance = balance - 1000 WHERE id = 1;
SELECT state FROM pg_background_run($$INSERT INTO audit (what) VALUES ('tried to take 1000 from account 1')$$);
ROLLBACK;
TABLE audit \g (format=aligned tuples_only=off)
\set ECHO none
SELECT tour.verify('the account has its 100 again', (SELECT balance = 100 FROM account WHERE id = 1));
SELECT tour.verify('the audit row is there', (SELECT count(*) = 1 FROM audit));
