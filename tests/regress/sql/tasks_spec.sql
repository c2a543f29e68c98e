-- Specs of schedules, and their times. Times are shown by the clock of the zone they are computed for, and from UTC.
SET datestyle = 'ISO';
SET timezone = 'UTC';
CREATE FUNCTION times(spec text, zone text, from_time timestamptz, n int DEFAULT 4) RETURNS TABLE (utc text, clock text) LANGUAGE sql AS $$
	SELECT to_char(t, 'YYYY-MM-DD HH24:MI:SS.FF3 BC'), to_char(t AT TIME ZONE zone, 'Dy YYYY-MM-DD HH24:MI:SS')
	FROM background.preview_schedule(spec, zone, n, from_time) AS t
$$;
CREATE FUNCTION spec_error(spec text, zone text DEFAULT 'UTC') RETURNS text LANGUAGE sql AS $$
	SELECT error_line(format('SELECT background.preview_schedule(%L, %L)', spec, zone))
$$;
-- Fields.
SELECT spec, string_agg(left(clock, 20), ', ') FROM unnest(ARRAY[
	'* * * * *', '*/20 * * * *', '0 3 * * *', '15,45 9-17/4 * * 1-5', '0 0 1 */4 *', '0 0 * * 7', '0 0 * * fri-sun', '0 0 13 * FRI', '0 0 */2 * MON',
	'0 0 L * *', '0 0 $ * *', '0 0 L-2 * ?', '0 0 LW * *', '0 0 1W * *', '0 0 15w,31W * *', '0 0 ? jan,Jul 5L', '0 0 * * tue#1', '0 0 ? * 6#5', '0 0 29 2 *', '0 0 29 2 */7',
	'@hourly', '@daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually', '  0	3  * * *  ']) WITH ORDINALITY AS _ (spec, n), times(spec, 'UTC', '2026-11-28 22:10:30')
GROUP BY spec, n ORDER BY n;
SELECT * FROM times('*/25 59 23 * * *', 'UTC', '2026-11-28 23:59:00', 5);
SELECT * FROM times('30 seconds', 'UTC', '2026-11-28 23:59:10.5', 3);
SELECT * FROM times('* * * * *', 'UTC', '2026-11-28 23:59:59.999999', 1);
SELECT * FROM times('* * * * *', 'UTC', '2026-11-28 23:59', 1);
-- Intervals.
SELECT * FROM times('every 90 seconds', 'UTC', '2026-11-28 23:59:10.25', 3);
SELECT * FROM times('EVERY 1 month', 'Europe/Berlin', '2027-01-31 03:00+01', 3);
SELECT * FROM times('every 1 month 3 days', 'Europe/Berlin', '2027-01-31 03:00+01', 3);
SELECT * FROM times('every P1DT12H', 'Europe/Berlin', '2026-03-27 12:00+01', 3);
-- Days and hours are not the same where the clock jumps.
SELECT * FROM times('every 1 day', 'Europe/Berlin', '2026-03-28 12:00+01', 2);
SELECT * FROM times('every 24 hours', 'Europe/Berlin', '2026-03-28 12:00+01', 2);
-- Once.
SELECT spec, utc, clock FROM unnest(ARRAY['at 2027-01-31 03:00', 'at 2027-01-31T03:00:07.5', 'at 2027-01-31 03:00+05:30', 'at 2027-01-31 03:00Z', 'at 2027-03-28 02:30', 'at 2027-10-31 02:30', 'at 2020-01-01 00:00']) AS spec
LEFT JOIN times(spec, 'Europe/Berlin', '2026-11-28') ON true;
-- What is refused.
SELECT spec, spec_error(spec) FROM unnest(ARRAY['', '   ', 'tomorrow', '* * * *', '* * * * * * *', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * * 13 *', '* * * * 8', '60 * * * * *',
	'*/0 * * * *', '*/61 * * * *', '5/15 * * * *', '30-10 * * * *', '* * * * fri-mon', '1, * * * *', '1,,2 * * * *', '-1 * * * *', '1.5 * * * *', '* * W * *', '* * L-31 * *', '* * * * L', '* * * * 1#6', '* * * * monday',
	'? * * * *', '* * é * *', 'é é é é é é é', '0 0 31 2,4 *', '0 0 30 2 */2', '@reboot', '@often', '@daily 3',
	'every', 'every now', 'every 0.5 seconds', 'every -1 day', 'every 1 month -1 day', 'every 0', 'every 1 week and a day', 'every 200000000 years', '0 seconds', '60 seconds', '30 seconds long',
	'at', 'at noon', 'at 2027-01-31', 'at 2027-02-29 03:00', 'at 2027-01-31 24:00', 'at 2027-01-31 03:00:00.1234567', 'at 2027-01-31 03:00 Europe/Berlin', 'at 294276-12-31 23:00-05']) AS spec;
SELECT left(zone, 20) AS zone, spec_error('@daily', zone) FROM unnest(ARRAY['Europe/Berlin', 'europe/berlin', 'EST5EDT', '<+0330>-3:30', 'Europe/Atlantis', '', '../../etc/passwd', repeat('x', 300)]) AS zone;
SELECT error_line('SELECT background.preview_schedule(NULL)');
SELECT error_line('SELECT background.preview_schedule(''@daily'', n => -1)');
-- NULL is the default.
SELECT count(*), min(t) - now() <= '1 day' FROM background.preview_schedule('@daily', NULL, NULL, NULL) AS t;
SET timezone = 'Asia/Kolkata';
SELECT * FROM background.preview_schedule('@daily', n => 1, from_time => '2026-11-28 12:00');
SET timezone = 'UTC';
SELECT count(*) FROM background.preview_schedule('@daily', n => 0);
SELECT count(*), min(t), max(t) FROM background.preview_schedule('@hourly', n => 100000, from_time => '2026-11-28 12:00') AS t;
-- One can stop it.
SET statement_timeout = '100ms';
SELECT error_line('SELECT count(*) FROM background.preview_schedule(''every 1 second'', n => 2147483647)');
SELECT count(*) FROM background.preview_schedule('every 1 second', n => 2147483647);
RESET statement_timeout;
-- Daylight saving. An hour field that begins with a star follows the clock.
SELECT * FROM times('30 * * * *', 'Europe/Berlin', '2026-03-29 00:00+00');
SELECT * FROM times('30 * * * *', 'Europe/Berlin', '2026-10-24 23:00+00');
SELECT * FROM times('30 */2 * * *', 'Europe/Berlin', '2026-10-24 23:00+00');
-- Any other: times in a gap are one, at its end; what comes twice is the first one.
SELECT * FROM times('30 2 * * *', 'Europe/Berlin', '2026-03-27 12:00+00');
SELECT * FROM times('0,15,30 2,3 * * *', 'Europe/Berlin', '2026-03-28 12:00+00');
SELECT * FROM times('*/20 0-23 * * *', 'Europe/Berlin', '2026-03-29 00:30+00');
SELECT * FROM times('30 2 * * *', 'Europe/Berlin', '2026-10-23 12:00+00');
SELECT * FROM times('*/20 0-23 * * *', 'Europe/Berlin', '2026-10-25 00:30+00');
SELECT * FROM times('*/20 0-23 * * *', 'Europe/Berlin', '2026-10-25 01:30+00');
SELECT * FROM times('30 2 * * *', 'America/New_York', '2026-03-07 12:00+00');
SELECT * FROM times('30 1 * * *', 'America/New_York', '2026-10-31 00:00+00');
SELECT * FROM times('15 2 * * *', 'Australia/Lord_Howe', '2025-10-03 12:00+00');
SELECT * FROM times('45 1 * * *', 'Australia/Lord_Howe', '2026-04-03 12:00+00');
SELECT * FROM times('*/15 * * * *', 'Australia/Lord_Howe', '2026-04-04 14:20+00', 6);
SELECT * FROM times('0 0 * * *', 'Africa/Cairo', '2023-04-26 12:00+00');
SELECT * FROM times('30 0 * * *', 'Africa/Cairo', '2023-04-26 12:00+00');
SELECT * FROM times('30 23 * * *', 'Africa/Cairo', '2023-10-25 12:00+00');
SELECT * FROM times('0 3 * * *', 'Asia/Kolkata', '2026-03-28 12:00+00', 2);
SELECT * FROM times('0 3 * * *', 'Pacific/Apia', '2011-12-29 00:00+00');
SELECT * FROM times('0 3 30 12 *', 'Pacific/Apia', '2011-12-29 00:00+00', 2);
SELECT * FROM times('0 */8 * * *', 'Pacific/Apia', '2011-12-30 00:00+00');
SELECT * FROM times('30 1 * * *', 'Europe/Dublin', '2026-03-28 00:00+00');
SELECT * FROM times('30 1 * * *', 'Europe/Dublin', '2026-10-24 00:00+00');
SELECT * FROM times('30 2 * * *', 'Africa/Casablanca', '2023-03-18 12:00+00');
SELECT * FROM times('30 2 * * *', 'Africa/Casablanca', '2023-04-22 12:00+00');
SELECT * FROM times('30 0 * * *', 'America/Sao_Paulo', '2018-11-03 00:00+00');
SELECT * FROM times('30 0 * * *', 'America/Sao_Paulo', '2019-11-02 00:00+00', 2);
-- The last change that the data of a zone has is followed by others.
SELECT * FROM times('30 2 * * *', 'Europe/Berlin', '2037-10-24 12:00+00');
SELECT * FROM times('0 12 1 1,7 *', 'Europe/Berlin', '2037-10-25 01:00+00');
SELECT * FROM times('0 12 1 1,7 *', 'Europe/Berlin', '2437-10-25 01:00+00');
SELECT * FROM times('0 12 1 1,7 *', 'America/New_York', '90000-10-25 00:00+00');
SELECT count(*), count(*) FILTER (WHERE extract(hour FROM t AT TIME ZONE 'Europe/Berlin') NOT IN (0, 12)) AS wrong
FROM background.preview_schedule('0 */12 1 7 *', 'Europe/Berlin', 2000, '2026-11-28') AS t;
-- The ends of all times.
SELECT * FROM times('0 0 1 1 *', 'UTC', '0044-03-15 BC', 2);
SELECT * FROM times('0 0 29 2 *', 'UTC', '0005-03-15 BC', 2);
SELECT * FROM times('@daily', 'UTC', '-infinity', 2);
SELECT * FROM times('@daily', 'UTC', '294276-12-30 12:00');
SELECT * FROM times('* * * * *', 'America/New_York', '294276-12-31 23:58');
SELECT * FROM times('0 0 29 2 *', 'Pacific/Apia', '294276-02-28 12:00');
SELECT * FROM times('every 1 month', 'UTC', '294276-10-30 12:00');
SELECT * FROM times('every 100000 years', 'UTC', '2026-10-30 12:00');
SELECT count(*) FROM times('@daily', 'UTC', 'infinity');
SELECT count(*) FROM times('every 1 day', 'UTC', 'infinity');
SELECT count(*) FROM times('every 1 day', 'UTC', '-infinity');
DROP FUNCTION times, spec_error;
RESET timezone;
RESET datestyle;
