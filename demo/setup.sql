-- Shared by the steps: the table of flights, and helpers that let a step verify and show what it claims.
CREATE EXTENSION pg_background_tasks CASCADE;

CREATE TABLE flights (
    year           int NOT NULL,
    month          int NOT NULL CONSTRAINT flights_month_check CHECK (month BETWEEN 1 AND 12),
    day            int NOT NULL,
    dep_time       int,
    sched_dep_time int NOT NULL,
    dep_delay      int,
    arr_time       int,
    sched_arr_time int NOT NULL,
    arr_delay      int,
    carrier        text NOT NULL,
    flight         int NOT NULL,
    tailnum        text,
    origin         text NOT NULL,
    dest           text NOT NULL,
    air_time       int,
    distance       int NOT NULL,
    hour           int NOT NULL,
    minute         int NOT NULL,
    time_hour      timestamptz NOT NULL
);

CREATE SCHEMA tour;

-- Prints the claim with a tick if it holds, otherwise stops the tour.
CREATE FUNCTION tour.verify(claim text, holds bool) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF holds IS NOT TRUE THEN
        RAISE EXCEPTION 'not true: %', claim;
    END IF;
    RETURN '  ✓ ' || claim;
END $$;

-- Shows the progress of a job until it has reached a percentage or has ended. Between two checks it sleeps in
-- pg_background_wait, so the end of the job wakes it at once.
CREATE PROCEDURE tour.watch(pid int, cookie bigint, until int DEFAULT 101) LANGUAGE plpgsql AS $$
DECLARE
    ended bool := false;
    shown pg_background_progress_info;
    now   pg_background_progress_info;
BEGIN
    WHILE NOT ended AND (shown.progress_pct IS NULL OR shown.progress_pct < until) LOOP
        ended := pg_background_wait(pid, cookie, 50);
        now := pg_background_get_progress(pid, cookie);
        IF now IS DISTINCT FROM shown AND now.progress_pct IS NOT NULL THEN
            RAISE INFO 'progress % %', now.progress_pct, now.progress_msg;
            shown := now;
        END IF;
    END LOOP;
END $$;
