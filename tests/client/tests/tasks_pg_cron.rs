//! Schedules made of the jobs of the real pg_cron. Where that is not installed, nothing is tested here.

use harness::{Cluster, Session, has_extension, quoted};

/// A server with both, where pg_cron runs its jobs in background workers.
fn cluster() -> Option<Cluster> {
    if !has_extension("pg_cron") {
        return None;
    }
    let cluster = Cluster::start_plain(&[
        "shared_preload_libraries = 'pg_cron, pg_background'",
        "cron.database_name = 'postgres'",
        "cron.use_background_workers = on",
    ]);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_cron; CREATE EXTENSION pg_background_tasks CASCADE");
    Some(cluster)
}

fn job(session: &mut Session, name: &str, spec: &str, sql: &str) -> i64 {
    session.value(&format!(
        "SELECT cron.schedule({}, {}, {})",
        quoted(name),
        quoted(spec),
        quoted(sql)
    ))
}

/// A job that pg_cron would refuse to a session, but an administrator can write.
fn written(session: &mut Session, columns: &str) -> i64 {
    session.value(&format!(
        "INSERT INTO cron.job (jobname, schedule, command, nodeport) SELECT * FROM (VALUES ({columns})) AS _ (a, b, c) \
         CROSS JOIN (SELECT current_setting('port')::int) AS port RETURNING jobid"
    ))
}

/// What is said of each job: the name, the specification, the action.
fn import(session: &mut Session, arguments: &str) -> Vec<(String, String, String)> {
    let rows = session.rows(&format!(
        "SELECT name, spec, action FROM background.import_pg_cron({arguments}) ORDER BY jobid"
    ));
    let text = |value: &Option<String>| value.clone().expect("a value");
    rows.iter()
        .map(|row| (text(&row[0]), text(&row[1]), text(&row[2])))
        .collect()
}

fn actions(session: &mut Session, arguments: &str) -> Vec<String> {
    import(session, arguments)
        .into_iter()
        .map(|(_, _, action)| action)
        .collect()
}

/// When cron runs a job, as its manual says: an independent computation.
struct Cron {
    /// minute, hour, day of month, month, day of week
    fields: [Vec<bool>; 5],
    either: bool,
}

impl Cron {
    fn of(spec: &str) -> Self {
        let names = "sun mon tue wed thu fri sat jan feb mar apr may jun jul aug sep oct nov dec";
        let names: Vec<_> = names.split(' ').collect();
        let value = |text: &str| -> usize {
            match names.iter().position(|name| *name == text.to_lowercase()) {
                Some(index) if index >= 7 => index - 6,
                Some(index) => index,
                None => text.parse().unwrap(),
            }
        };
        let spec = match spec.trim().split(' ').next().unwrap() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            _ => spec,
        };
        let words: Vec<_> = spec.split_whitespace().collect();
        let limits = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
        let fields = std::array::from_fn(|n| {
            let (low, high) = limits[n];
            let mut set = vec![false; high + 1];
            for element in words[n].split(',') {
                let (range, step) = element.split_once('/').unwrap_or((element, "1"));
                let (first, last) = match range.split_once('-') {
                    Some((first, last)) => (value(first), value(last)),
                    None if range == "*" => (low, high),
                    None => (value(range), value(range)),
                };
                for member in (first..=last).step_by(step.parse().unwrap()) {
                    set[member] = true;
                }
            }
            set
        });
        Self {
            fields,
            either: !words[2].starts_with('*') && !words[4].starts_with('*'),
        }
    }

    /// The minutes of so many days from a midnight in UTC on, which is a day of this number since 1970.
    fn minutes(&self, first: i64, days: i64) -> Vec<i64> {
        let mut found = Vec::new();
        for day in first..first + days {
            let (_, month, date) = civil(day);
            let weekday = ((day + 4) % 7) as usize;
            let by_date = self.fields[2][date];
            let by_weekday = self.fields[4][weekday] || weekday == 0 && self.fields[4][7];
            let is_day = if self.either {
                by_date || by_weekday
            } else {
                by_date && by_weekday
            };
            if !is_day || !self.fields[3][month] {
                continue;
            }
            for minute in 0..1440 {
                if self.fields[1][minute / 60] && self.fields[0][minute % 60] {
                    found.push(day * 1440 + minute as i64);
                }
            }
        }
        found
    }
}

/// Year, month and day of month.
fn civil(day: i64) -> (i64, usize, usize) {
    let (mut year, mut rest) = (1970, day);
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while rest >= 365 + i64::from(is_leap(year)) {
        rest -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    for (month, length) in lengths.into_iter().enumerate() {
        if rest < length {
            return (year, month + 1, rest as usize + 1);
        }
        rest -= length;
    }
    unreachable!()
}

#[test]
fn the_same_times() {
    let Some(cluster) = cluster() else { return };
    let mut session = cluster.session();
    session.exec("SET TimeZone = 'Asia/Kolkata'");
    let specs = [
        "0 3 * * *",
        "  0   3 * *  1 ",
        "*/5 9-17 * * mon-fri",
        "0-59/7 1,2,3 1-15 jan,MAR Mon-FRI",
        "0 0 1,15 * 5",
        "0 0 */2 * 1",
        "0 0 1 * */3",
        "0 0 1 * 0-6/3",
        "*,5 0 1 * *",
        "5,* 0 1 * 7",
        "1-10/2,30-40/5 0 1 1 *",
        "0 0 * * 0,7",
        "0 0 * * 5-7",
        "0 0 29 2 *",
        "00 007 31 * *",
        "*/70 */30 * * *",
        "0 0 1 jan-oct/3 *",
        "@hourly",
        "@daily",
        "@midnight",
        "@weekly",
        "@monthly and more",
        "@annually",
        "@yearly",
        "0 3 1 * * 2020",
        "0 3 1 * * select",
    ];
    for (n, spec) in specs.iter().enumerate() {
        job(&mut session, &format!("job {n:02}"), spec, "SELECT 1");
    }
    let all = import(&mut session, "dry_run => false, disable_originals => true");
    assert_eq!(all.len(), specs.len());
    assert!(
        all.iter().all(|(_, _, action)| action == "created; disabled the job"),
        "{all:?}"
    );
    // Two years, the first one a leap year.
    let (first, days) = (21_184, 731);
    assert!(session.holds(&format!(
        "(SELECT timestamptz '2028-01-01 UTC' = to_timestamp({first} * 86400.0))"
    )));
    for (n, spec) in specs.iter().enumerate() {
        let expected = Cron::of(spec).minutes(first, days);
        let rows = session.rows(&format!(
            "SELECT extract(epoch FROM t)::bigint / 60 FROM background.schedules, \
                 background.preview_schedule(spec, time_zone, {}, to_timestamp({first} * 86400.0 - 1)) AS t \
             WHERE name = 'job {n:02}' AND t < to_timestamp({} * 86400.0)",
            expected.len() + 1,
            first + days
        ));
        let times: Vec<i64> = rows
            .iter()
            .map(|row| row[0].as_ref().unwrap().parse().unwrap())
            .collect();
        assert!(
            times == expected,
            "{spec}: {} times, and not {}",
            times.len(),
            expected.len()
        );
        assert!(!times.is_empty(), "{spec}");
    }
    // What is due next is the first of them.
    assert!(session.holds(
        "(SELECT bool_and(next_at = (SELECT min(t) FROM background.preview_schedule(spec, time_zone, 1, created_at) AS t)) FROM background.schedules)"
    ));
    assert!(session.holds("(SELECT bool_and(time_zone = 'GMT' AND enabled) FROM background.schedules)"));
}

#[test]
fn what_pg_cron_reads_otherwise_is_skipped() {
    let Some(cluster) = cluster() else { return };
    let mut session = cluster.session();
    for (n, spec) in [
        "0 22-2 * * *",
        "0 0 * * fri-sun",
        "0 0 1 * 1#2",
        "0 0 10-5 * *",
        "@reboot",
        "0 0 31 2 *",
    ]
    .into_iter()
    .enumerate()
    {
        job(&mut session, &format!("skipped {n}"), spec, "SELECT 1");
    }
    job(&mut session, "no SQL", "0 0 * * *", "SELEC 1");
    job(&mut session, "good", "0 0 * * *", "SELECT 1");
    let all = import(&mut session, "false, true");
    let reasons: Vec<_> = all.iter().map(|(_, _, action)| action.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "skipped: it is not clear what pg_cron understands by \"22-2\"",
            "skipped: it is not clear what pg_cron understands by \"fri-sun\"",
            "skipped: it is not clear what pg_cron understands by \"1#2\"",
            "skipped: it is not clear what pg_cron understands by \"10-5\"",
            "skipped: invalid schedule at character 1: @reboot is not supported",
            "skipped: invalid schedule at character 5: no day ever fits",
            "skipped: syntax error at or near \"SELEC\"",
            "created; disabled the job",
        ]
    );
    // What was skipped is still a job.
    assert!(session.holds("(SELECT array_agg(jobname::text) = '{good}' FROM cron.job WHERE NOT active)"));
    assert!(session.holds("(SELECT array_agg(name) = '{good}' FROM background.schedules)"));
    // Later releases of pg_cron have these two.
    written(&mut session, "'last', '0 12 $ * *', 'SELECT 1'");
    written(&mut session, "'often', '30 seconds', 'SELECT 1'");
    assert_eq!(
        actions(&mut session, "false")[8..],
        ["created; pg_cron runs the job too"; 2].map(str::to_owned)
    );
    assert!(session.holds(
        "(SELECT bool_and(t = date_trunc('month', t) + interval '1 month -12 h') FROM background.schedules, \
          background.preview_schedule(spec, 'UTC', 12, timestamptz '2027-01-01 UTC') AS t WHERE name = 'last')"
    ));
    assert!(
        session.holds("(SELECT next_at - created_at = interval '30 s' FROM background.schedules WHERE name = 'often')")
    );
}

#[test]
fn other_users_and_databases() {
    let Some(cluster) = cluster() else { return };
    let mut session = cluster.session();
    session.exec("CREATE DATABASE elsewhere");
    session.exec(
        "CREATE ROLE anna LOGIN; CREATE ROLE ben LOGIN; CREATE ROLE gone LOGIN; GRANT USAGE ON SCHEMA cron TO anna",
    );
    session.exec("ALTER ROLE anna SET search_path = annas, public; CREATE SCHEMA annas AUTHORIZATION anna");
    session.exec("ALTER ROLE anna IN DATABASE elsewhere SET search_path = there; CREATE ROLE closed LOGIN");
    session
        .exec("REVOKE CONNECT ON DATABASE elsewhere FROM PUBLIC; GRANT CONNECT ON DATABASE elsewhere TO anna, closed");
    let mut there = cluster.session_in("elsewhere", "postgres");
    there.exec("CREATE SCHEMA there AUTHORIZATION anna");
    let note = "CREATE TABLE noted AS SELECT session_user::text AS who, current_database()::text AS wher, current_setting(''search_path'') AS path";
    for (name, database, user, is_active) in [
        ("here", "postgres", "anna", true),
        ("there", "elsewhere", "anna", true),
        ("same", "postgres", "anna", true),
        ("same", "postgres", "ben", true),
        ("off", "postgres", "ben", false),
        ("no user", "postgres", "gone", true),
        ("no right", "elsewhere", "closed", true),
    ] {
        session.exec(&format!(
            "SELECT cron.schedule_in_database('{name}', '0 3 * * *', '{note}', '{database}', '{user}', {is_active})"
        ));
    }
    session.exec("DROP ROLE gone; REVOKE CONNECT ON DATABASE elsewhere FROM closed");
    session.exec("UPDATE cron.job SET nodename = 'example.com' WHERE jobname = 'off'");
    let by_host = actions(&mut session, "false");
    // In background workers pg_cron does not look at the host.
    let expected = [
        "created; pg_cron runs the job too",
        "created; pg_cron runs the job too",
        "created; pg_cron runs the job too",
        "skipped: there is another schedule of this name, of role \"anna\"",
        "created, disabled",
        "skipped: role \"gone\" does not exist",
        "skipped: permission denied for database \"elsewhere\"",
    ];
    assert_eq!(by_host, expected);
    assert!(session.holds(
        "(SELECT array_agg((name, owner, database, enabled)::text ORDER BY name) = \
          '{\"(here,anna,postgres,t)\",\"(off,ben,postgres,f)\",\"(same,anna,postgres,t)\",\"(there,anna,elsewhere,t)\"}' FROM background.schedules)"
    ));
    for (name, database, expected) in [
        ("here", "postgres", "(anna,postgres,\"annas, public\")"),
        ("there", "elsewhere", "(anna,elsewhere,there)"),
    ] {
        let task: i64 = session.value(&format!("SELECT background.run_schedule('{name}')"));
        assert_eq!(session.wait_task(task), "done");
        let schema = if name == "here" { "annas" } else { "there" };
        let noted = cluster
            .session_in(database, "postgres")
            .text(&format!("SELECT noted::text FROM {schema}.noted"));
        assert_eq!(noted.as_deref(), Some(expected));
    }
    // Without background workers it connects to the host.
    session.exec("ALTER SYSTEM SET cron.use_background_workers = off");
    session.exec("UPDATE cron.job SET nodeport = 1 WHERE jobname = 'here'");
    drop(session);
    cluster.stop(harness::Shutdown::Fast);
    cluster.restart();
    let mut session = cluster.session();
    let by_host = actions(&mut session, "");
    assert_eq!(by_host[0], "skipped: it runs on another server (localhost, port 1)");
    assert_eq!(by_host[1], "would replace; pg_cron runs the job too");
    assert_eq!(
        by_host[4],
        "skipped: it runs on another server (example.com, port 5432)"
    );
}

#[test]
fn again_and_again() {
    let Some(cluster) = cluster() else { return };
    let mut session = cluster.session();
    session.exec("CREATE ROLE anna LOGIN");
    let first = job(&mut session, "nightly", "0 3 * * *", "SELECT 1");
    let second: i64 = session.value("SELECT cron.schedule('0 4 * * *', 'SELECT 2')");
    let third = job(&mut session, "off", "0 5 * * *", "SELECT 3");
    session.exec(&format!("SELECT cron.alter_job({third}, active => false)"));
    session.exec("SELECT background.schedule('taken', '0 1 * * *', 'SELECT 0')");
    job(&mut session, "taken", "0 6 * * *", "SELECT 4");
    let state = |session: &mut Session| {
        session.text("SELECT string_agg(concat_ws('|', id, name, spec, sql, owner, enabled, next_at), E'\\n' ORDER BY id) FROM background.schedules")
    };
    let jobs =
        |session: &mut Session| session.text("SELECT string_agg(j::text, E'\\n' ORDER BY jobid) FROM cron.job AS j");

    // A dry run changes nothing, and needs no right to write.
    let before = (state(&mut session), jobs(&mut session));
    session.exec("BEGIN READ ONLY");
    assert_eq!(import(&mut session, "disable_originals => true").len(), 4);
    session.exec("COMMIT");
    assert_eq!(
        actions(&mut session, "true, true"),
        [
            "would create; would disable the job",
            "would create; would disable the job",
            "would create, disabled",
            "skipped: there is another schedule of this name, of role \"postgres\"",
        ]
    );
    assert_eq!((state(&mut session), jobs(&mut session)), before);
    assert_eq!(
        session
            .error("BEGIN READ ONLY; SELECT * FROM background.import_pg_cron(false)")
            .sqlstate,
        "25006"
    );
    session.exec("ROLLBACK");

    // What is rolled back has not happened to the jobs either.
    session.exec("BEGIN");
    actions(&mut session, "false, true");
    session.exec("ROLLBACK");
    assert_eq!((state(&mut session), jobs(&mut session)), before);

    let expected = [
        "created; disabled the job",
        "created; disabled the job",
        "created, disabled",
    ];
    assert_eq!(actions(&mut session, "false, true")[..3], expected.map(str::to_owned));
    assert!(session.holds("(SELECT array_agg(jobname::text ORDER BY jobid) = '{taken}' FROM cron.job WHERE active)"));
    assert!(session.holds(&format!(
        "EXISTS (SELECT FROM background.schedules WHERE name = 'pg_cron job {second}')"
    )));
    let once = state(&mut session);
    // A job that the import has disabled goes on as a schedule; one that was not active stays so.
    for arguments in ["false, true", "false"] {
        let expected = ["replaced", "replaced", "replaced, disabled"];
        assert_eq!(actions(&mut session, arguments)[..3], expected.map(str::to_owned));
        assert_eq!(state(&mut session), once);
    }
    // What was changed since: the job's name, its user, its times; the schedule.
    session.exec(&format!(
        "UPDATE cron.job SET jobname = 'daily', username = 'anna', schedule = '0 7 * * *' WHERE jobid = {first}"
    ));
    session.exec(&format!(
        "SELECT background.alter_schedule('pg_cron job {second}', enabled => false)"
    ));
    session.exec(&format!("SELECT cron.alter_job({third}, active => true)"));
    assert_eq!(
        actions(&mut session, "false")[..3],
        ["replaced", "replaced, disabled", "replaced; pg_cron runs the job too"].map(str::to_owned)
    );
    assert!(session.holds(
        "(SELECT array_agg((name, spec, owner, enabled)::text ORDER BY name) = \
          '{\"(daily,\\\"0 7 * * *\\\",anna,t)\",\"(off,\\\"0 5 * * *\\\",postgres,t)\",\"(\\\"pg_cron job 2\\\",\\\"0 4 * * *\\\",postgres,f)\",\"(taken,\\\"0 1 * * *\\\",postgres,t)\"}' \
          FROM background.schedules)"
    ));
    // One that was made anew by hand is no import any more.
    session.exec("SELECT background.schedule('off', '0 8 * * *', 'SELECT 8')");
    assert_eq!(
        actions(&mut session, "false")[2],
        "skipped: there is another schedule of this name, of role \"postgres\""
    );
}

#[test]
fn the_time_zone_of_pg_cron() {
    let Some(cluster) = cluster() else { return };
    let mut session = cluster.session();
    job(&mut session, "nightly", "0 3 * * *", "SELECT 1");
    drop(session);
    cluster.append_settings(&["cron.timezone = 'Europe/Berlin'"]);
    cluster.stop(harness::Shutdown::Fast);
    cluster.restart();
    let mut session = cluster.session();
    assert_eq!(actions(&mut session, "false"), ["created; pg_cron runs the job too"]);
    // A release without that setting goes by GMT, whatever the configuration says.
    let knows: bool = session.holds("EXISTS (SELECT FROM pg_settings WHERE name = 'cron.timezone')");
    let expected = if knows { "Europe/Berlin" } else { "GMT" };
    let zone = session.text("SELECT time_zone FROM background.schedules");
    assert_eq!(zone.as_deref(), Some(expected));
    drop(session);
    // Where the library is not loaded, the configuration is all that is known. Nor can a job be disabled, so its schedule is not made.
    cluster.append_settings(&["shared_preload_libraries = 'pg_background'"]);
    cluster.stop(harness::Shutdown::Fast);
    cluster.restart();
    let mut session = cluster.session();
    assert!(actions(&mut session, "false, true")[0].starts_with("skipped: "));
    let zone = session.text("SELECT time_zone FROM background.schedules");
    assert_eq!(zone.as_deref(), Some(expected));
    assert_eq!(actions(&mut session, "false"), ["replaced; pg_cron runs the job too"]);
    let zone = session.text("SELECT time_zone FROM background.schedules");
    assert_eq!(zone.as_deref(), Some("Europe/Berlin"));
}

#[test]
fn who_may_and_where() {
    let Some(cluster) = cluster() else { return };
    let mut session = cluster.session();
    session.exec("CREATE ROLE anna LOGIN IN ROLE pgbackground_role");
    session
        .exec("GRANT EXECUTE ON FUNCTION background.import_pg_cron TO anna; GRANT USAGE ON SCHEMA background TO anna");
    let error = cluster.session_as("anna").error("SELECT background.import_pg_cron()");
    assert_eq!(error.sqlstate, "42501");
    assert_eq!(error.message, "must be superuser to import the jobs of pg_cron");
    session.exec("CREATE DATABASE other");
    let mut other = cluster.session_in("other", "postgres");
    other.exec("CREATE EXTENSION pg_background_tasks CASCADE");
    let error = other.error("SELECT background.import_pg_cron()");
    assert_eq!(error.sqlstate, "55000");
    assert_eq!(error.message, "extension \"pg_cron\" is not installed in this database");
    // A table that somebody has put there is not read.
    other.exec(
        "CREATE SCHEMA cron CREATE TABLE job (jobid int8, schedule text, command text, nodename text, nodeport int, database text, username text, active bool)",
    );
    other.exec("INSERT INTO cron.job VALUES (1, '* * * * *', 'SELECT 1', '', 5432, 'other', 'postgres', true)");
    assert_eq!(other.error("SELECT background.import_pg_cron(false)").sqlstate, "55000");
    // A search path that leads astray.
    job(&mut session, "good", "0 0 * * *", "SELECT 1");
    session.exec("CREATE SCHEMA astray; CREATE FUNCTION astray.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS 'SELECT ''{}''::jsonb'");
    session.exec("CREATE TABLE astray.job AS TABLE cron.job WITH NO DATA; SET search_path = astray, pg_catalog");
    assert_eq!(import(&mut session, "false")[0].0, "good");
}

/// The two take turns: after the import pg_cron begins nothing any more.
#[test]
fn both_never_fire() {
    let Some(cluster) = cluster() else { return };
    let mut session = cluster.session();
    session.exec("CREATE ROLE anna LOGIN; ALTER ROLE anna SET search_path = public, pg_catalog");
    session.exec("CREATE TABLE ran (minute timestamptz, task int8, who text, path text); GRANT ALL ON ran TO anna");
    let sql = "INSERT INTO ran VALUES (date_trunc(''minute'', now()), background.current_task(), session_user, current_setting(''search_path''))";
    session.exec("GRANT USAGE ON SCHEMA background TO anna; GRANT EXECUTE ON FUNCTION background.current_task TO anna");
    session.exec(&format!(
        "SELECT cron.schedule_in_database('each minute', '* * * * *', '{sql}', 'postgres', 'anna')"
    ));
    session.exec("SELECT pg_sleep(60 - extract(second FROM clock_timestamp()))");
    session.wait_until("EXISTS (SELECT FROM ran WHERE task IS NULL)");
    assert_eq!(actions(&mut session, "false, true"), ["created; disabled the job"]);
    let imported_at = session.text("SELECT clock_timestamp()::text").unwrap();
    session.exec("SELECT pg_sleep(60 - extract(second FROM clock_timestamp()))");
    session.wait_until("EXISTS (SELECT FROM ran WHERE task IS NOT NULL)");
    // pg_cron would have begun at the full minute.
    session.wait_until("extract(second FROM clock_timestamp()) >= 5");
    assert!(session.holds("(SELECT count(task) = 1 AND count(*) = count(DISTINCT minute) FROM ran)"));
    assert!(session.holds(&format!(
        "NOT EXISTS (SELECT FROM cron.job_run_details WHERE start_time > '{imported_at}')"
    )));
    // Both ran as the same role, under the same path.
    assert!(
        session.holds(
            "(SELECT array_agg(DISTINCT (who, path)::text) = '{\"(anna,\\\"public, pg_catalog\\\")\"}' FROM ran)"
        )
    );
}
