\pset format unaligned \pset tuples_only on \pset null NULL \set SHOW_CONTEXT never
SELECT count(pg_background_launch('SELECT pg_sleep(600)', 0, label)) FROM unnest(ARRAY['load-1', 'load_2', 'index', NULL]) AS label;
CALL wait_until('(SELECT bool_and(state = ''running'') FROM pg_background_list)');
SELECT pg_background_cancel_by_label('nothing%');
SELECT pg_background_cancel_by_label('LOAD%');
SELECT pg_background_cancel_by_label('load');
-- LIKE, with its escapes; a grace period for all that match
SELECT pg_background_cancel_by_label('load\_%', 60000);
SELECT label, state FROM pg_background_list ORDER BY label;
SELECT pg_background_cancel_by_label('load__', 60000);
-- a job without a label is like no pattern, an ended one is not counted
SELECT pg_background_cancel_by_label('%', 60000);
SELECT label, state FROM pg_background_list ORDER BY label;
SELECT coalesce(pg_background_cancel_by_label(NULL), 0);
SELECT pg_background_cancel_by_label_v2('%');
SELECT pg_background_cancel_all();
SELECT count(*) FROM pg_background_list WHERE pg_background_wait(pid, cookie);
SELECT pg_background_detach_all();
-- a label with every kind of character
SELECT * FROM pg_background_launch('SHOW application_name', 0, E'ä:b"c\'d') \gset job_
SELECT label FROM pg_background_list;
SELECT pg_background_wait(:job_pid, :job_cookie);
SELECT pg_background_detach(:job_pid, :job_cookie);
-- a label that is too long for the name of the process leaves room for the pid, and nobody is told
SELECT * FROM pg_background_launch('SHOW application_name', 0, repeat('l', 64)) \gset job_
SELECT name = 'pg_background:' || repeat('l', 48 - length(:'job_pid')) || ':' || :'job_pid' FROM pg_background_result(:job_pid, :job_cookie) AS (name text);
SELECT * FROM pg_background_launch('SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()', 0, repeat('ä', 32)) \gset job_
SELECT name ~ ('^pg_background:.+:' || :'job_pid' || '$') FROM pg_background_result(:job_pid, :job_cookie) AS (name text);
