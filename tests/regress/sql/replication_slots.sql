\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- a job that fails with a replication slot in hand leaves the slot, and leaves it to others
SELECT slot_name FROM pg_create_physical_replication_slot('keep', true);
SELECT state, sqlstate FROM pg_background_run('SELECT pg_replication_slot_advance(''keep'', ''0/1'')');
SELECT slot_name, temporary, active FROM pg_replication_slots;
-- SQL catches the error, and the job ends well, or by a time limit, or by a cancel
CREATE FUNCTION catch_it() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_replication_slot_advance('keep', '0/1');
EXCEPTION WHEN OTHERS THEN
	NULL;
END
$$;
SELECT state, sqlstate FROM pg_background_run('SELECT catch_it()');
SELECT slot_name, temporary, active FROM pg_replication_slots;
SELECT state, sqlstate FROM pg_background_run('SET statement_timeout = 10; SELECT catch_it(), pg_sleep(60)');
SELECT slot_name, temporary, active FROM pg_replication_slots;
SELECT state, timed_out FROM pg_background_run('SELECT catch_it(), pg_sleep(60)', timeout_ms => 10);
SELECT slot_name, temporary, active FROM pg_replication_slots;
SELECT * FROM pg_background_launch('SELECT catch_it(); SELECT pg_sleep(60)') \gset job_
CALL wait_until('EXISTS (SELECT FROM pg_replication_slots WHERE active)');
SELECT pg_background_cancel(:job_pid, :job_cookie, 60000);
SELECT slot_name, temporary, active FROM pg_replication_slots;
SELECT state FROM pg_background_outcome(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- also where each job has a process
SET pg_background.worker_idle_timeout = 0;
SELECT state, sqlstate FROM pg_background_run('SELECT catch_it()');
SELECT slot_name, temporary, active FROM pg_replication_slots;
SELECT state, sqlstate FROM pg_background_run('SELECT pg_replication_slot_advance(''keep'', ''0/1'')');
SELECT slot_name, temporary, active FROM pg_replication_slots;
RESET pg_background.worker_idle_timeout;
-- a temporary slot goes with its job
SELECT state FROM pg_background_run('SELECT pg_create_physical_replication_slot(''fleeting'', true, true)');
SELECT state FROM pg_background_run('SELECT pg_create_physical_replication_slot(''fleeting'', true, true); SELECT 1 / 0');
SELECT slot_name, temporary, active FROM pg_replication_slots;
DROP FUNCTION catch_it;
SELECT pg_drop_replication_slot('keep');
