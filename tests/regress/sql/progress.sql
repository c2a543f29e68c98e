\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
-- a job that reports and waits for the next advisory lock
SELECT pg_advisory_lock(1), pg_advisory_lock(2), pg_advisory_lock(3);
SELECT * FROM pg_background_launch('SELECT pg_advisory_xact_lock(1); SELECT pg_background_report_progress(10, ''loading''); SELECT pg_advisory_xact_lock(2); SELECT pg_background_report_progress(20); SELECT pg_advisory_xact_lock(3); SELECT pg_background_report_progress(100, ''done'')') \gset job_
SELECT pg_background_get_progress(:job_pid, :job_cookie) IS NULL;
SELECT pg_advisory_unlock(1);
CALL wait_until(format('(pg_background_get_progress(%s, %s)).progress_pct = 10', :job_pid, :job_cookie));
SELECT * FROM pg_background_get_progress(:job_pid, :job_cookie);
SELECT pg_advisory_unlock(2);
CALL wait_until(format('(pg_background_get_progress(%s, %s)).progress_pct = 20', :job_pid, :job_cookie));
SELECT * FROM pg_background_get_progress(:job_pid, :job_cookie);
SELECT pg_advisory_unlock(3);
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT * FROM pg_background_get_progress_v2(:job_pid, :job_cookie);
-- a wrong cookie, no handle, a handle released
SELECT pg_background_get_progress(:job_pid, :job_cookie # 1) IS NULL;
SELECT pg_background_get_progress(NULL, :job_cookie) IS NULL, pg_background_get_progress(:job_pid, NULL) IS NULL;
SELECT pg_background_detach(:job_pid, :job_cookie);
SELECT code, message FROM error_of(format('SELECT pg_background_get_progress(%s, %s)', :job_pid, :job_cookie));
-- clamped
SELECT * FROM pg_background_submit('SELECT pg_background_report_progress(101, ''too much'')') \gset a_
SELECT * FROM pg_background_submit('SELECT pg_background_report_progress(-2147483648, ''too little'')') \gset b_
SELECT pg_background_wait(:a_pid, :a_cookie), pg_background_wait(:b_pid, :b_cookie);
SELECT * FROM pg_background_get_progress(:a_pid, :a_cookie);
SELECT * FROM pg_background_get_progress(:b_pid, :b_cookie);
SELECT pg_background_detach_all();
-- cut at a character border, 256 bytes at the least
SELECT * FROM pg_background_submit('SELECT pg_background_report_progress(1, repeat(''ü'', 128))') \gset a_
SELECT * FROM pg_background_submit('SELECT pg_background_report_progress(1, ''x'' || repeat(''世'', 100000))') \gset b_
SELECT pg_background_wait(:a_pid, :a_cookie), pg_background_wait(:b_pid, :b_cookie);
SELECT progress_msg = repeat('ü', 128) FROM pg_background_get_progress(:a_pid, :a_cookie);
SELECT octet_length(progress_msg) > 253, progress_msg ~ '^x世+$' FROM pg_background_get_progress(:b_pid, :b_cookie);
SELECT pg_background_detach_all();
-- a job that rolls back has reported nevertheless
SELECT * FROM pg_background_submit('SELECT pg_background_report_progress(50, ''half''); SELECT 1/0') \gset job_
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT * FROM pg_background_get_progress(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- outside a job
SELECT pg_background_report_progress(1);
SELECT code FROM error_of('SELECT pg_background_report_progress(1, ''here'')');
