//! A job has the settings of its session at the time of the launch, however they were set.

use harness::{Cluster, Random, Session};

/// Settings of each type, one of a library, and one that nothing defines, each with a few values.
const VALUES: [(&str, [&str; 3]); 14] = [
    ("work_mem", ["64kB", "4MB", "16MB"]),
    ("enable_seqscan", ["on", "off", "on"]),
    ("random_page_cost", ["4", "1.1", "1.2"]),
    ("search_path", ["public", "public, pg_catalog", "\"$user\", public"]),
    ("DateStyle", ["ISO, MDY", "ISO, DMY", "SQL, YMD"]),
    ("IntervalStyle", ["postgres", "iso_8601", "sql_standard"]),
    ("TimeZone", ["UTC", "PST8PDT", "EST5EDT"]),
    ("client_min_messages", ["notice", "warning", "error"]),
    ("statement_timeout", ["0", "1h", "2h"]),
    ("extra_float_digits", ["0", "1", "3"]),
    ("temp_tablespaces", ["", "pg_default", "\"pg_default\", pg_default"]),
    (
        "default_transaction_isolation",
        ["read committed", "repeatable read", "serializable"],
    ),
    ("plpgsql.extra_warnings", ["none", "shadowed_variables", "all"]),
    ("app.tenant", ["one", "two", "a third"]),
];

/// What both sides compare: values, their sources, and the effect of RESET. The view does not show undefined settings.
const SETUP: &str = "
    CREATE FUNCTION seen() RETURNS text LANGUAGE sql AS $$
        SELECT pg_catalog.string_agg(
            pg_catalog.concat_ws('|', name, nullif(pg_catalog.current_setting(name, true), ''), setting, source, reset_val),
            E'\\n' ORDER BY name COLLATE \"C\")
        FROM pg_catalog.unnest(%) AS name LEFT JOIN pg_catalog.pg_settings USING (name)
    $$;
    CREATE FUNCTION seen_by_a_job() RETURNS text LANGUAGE sql AS $$
        SELECT s FROM public.pg_background_run_query('LOAD ''plpgsql''; SELECT public.seen()', col_def => 's text') AS (s text)
    $$;
    CREATE FUNCTION within(name text, value text, OUT here text, OUT there text) LANGUAGE plpgsql SET lock_timeout = '3h' AS $$
    BEGIN
        PERFORM pg_catalog.set_config(name, value, true);
        here := public.seen(); there := public.seen_by_a_job();
    END $$";

fn prepare(cluster: &Cluster) {
    let names = VALUES.map(|(name, _)| format!("'{name}'")).join(", ");
    cluster
        .session()
        .exec(&SETUP.replace('%', &format!("ARRAY['lock_timeout', {names}]")));
}

#[track_caller]
fn compare(session: &mut Session, what: &str) {
    let here: String = session.value("SELECT public.seen()");
    let there: String = session.value("SELECT public.seen_by_a_job()");
    assert_eq!(here, there, "{what}");
}

#[test]
fn a_walk_through_settings() {
    let cluster = Cluster::start(&[]);
    prepare(&cluster);
    let mut session = cluster.session();
    session.exec("LOAD 'plpgsql'; SET app.tenant = 'none'");
    let mut random = Random::new(7);
    for step in 0..300 {
        let (name, values) = VALUES[random.below(VALUES.len() as u64) as usize];
        let value = values[random.below(3) as usize];
        let set = format!("set_config('{name}', '{value}', false)");
        let set_local = format!("set_config('{name}', '{value}', true)");
        let what = format!("step {step}: {name} = {value}");
        match random.below(8) {
            0..=2 => session.exec(&format!("SELECT {set}")),
            3 => session.exec(&format!("RESET {name}")),
            4 => {
                session.exec(&format!("BEGIN; SELECT {set_local}"));
                compare(&mut session, &format!("{what}, local"));
                session.exec(if random.below(2) == 0 { "COMMIT" } else { "ROLLBACK" });
            }
            5 => {
                session.exec(&format!("BEGIN; SAVEPOINT a; SELECT {set}"));
                compare(&mut session, &format!("{what}, in a subtransaction"));
                session.exec("ROLLBACK TO a");
                compare(&mut session, &format!("{what}, rolled back to before"));
                session.exec("COMMIT");
            }
            6 => {
                let both = session.rows(&format!("SELECT here, there FROM public.within('{name}', '{value}')"));
                assert_eq!(both[0][0], both[0][1], "{what}, in a function");
            }
            _ => {
                let mut administrator = cluster.session();
                if name.contains('.') {
                    administrator.exec("ALTER SYSTEM RESET ALL");
                } else {
                    let value = if name == "search_path" || name == "temp_tablespaces" {
                        value.to_owned()
                    } else {
                        format!("'{value}'")
                    };
                    let value = if value.is_empty() { "''".to_owned() } else { value };
                    administrator.exec(&format!("ALTER SYSTEM SET {name} = {value}"));
                }
                let before: String = session.value("SELECT pg_conf_load_time()::text");
                administrator.exec("SELECT pg_reload_conf()");
                session.wait_until(&format!("pg_conf_load_time()::text <> '{before}'"));
                // Each process reads the configuration at its own time; an idle worker then exits.
                session.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background')");
            }
        }
        compare(&mut session, &what);
    }
}

/// What is below a value that a session has SET comes from its connection, from its role as it was then, or from the database, and differs between
/// the sessions that a worker serves in turn.
#[test]
fn what_reset_returns_to() {
    let cluster = Cluster::start(&[]);
    prepare(&cluster);
    let mut superuser = cluster.session();
    superuser.exec("CREATE ROLE alice LOGIN SUPERUSER; ALTER ROLE alice SET work_mem = '7MB'; ALTER ROLE alice SET app.tenant = 'of alice'");
    let mut sessions = vec![cluster.session_as("alice")];
    superuser.exec(
        "ALTER ROLE alice SET work_mem = '8MB'; ALTER ROLE alice SET random_page_cost = 1.2; ALTER ROLE alice RESET app.tenant;
         ALTER ROLE alice IN DATABASE postgres SET \"DateStyle\" = 'SQL, DMY'",
    );
    sessions.push(cluster.session_as("alice"));
    let options = "-c work_mem=9MB -c app.tenant=asked -c random_page_cost=1.23456789 -c plpgsql.extra_warnings=all -c DateStyle=German -c enable_seqscan=off";
    sessions.push(cluster.session_with("alice", options));
    superuser.exec("ALTER DATABASE postgres SET \"IntervalStyle\" = 'iso_8601'; ALTER DATABASE postgres SET app.tenant = 'of the database'");
    sessions.push(cluster.session_as("alice"));
    sessions.push(cluster.session_with("alice", "-c pg_background.max_idle_workers=4 -c TimeZone=Asia/Tokyo"));
    for session in &mut sessions {
        session.exec("LOAD 'plpgsql'");
    }
    let mut random = Random::new(11);
    let resets: Vec<_> = VALUES.iter().map(|(name, _)| format!("RESET {name}")).collect();
    let reset = resets.join("; ");
    for step in 0..150 {
        let number = random.below(sessions.len() as u64) as usize;
        let session = &mut sessions[number];
        let (name, values) = VALUES[random.below(VALUES.len() as u64) as usize];
        let value = values[random.below(3) as usize];
        let what = format!("session {number}, step {step}: {name} = {value}");
        if random.below(4) == 0 {
            session.exec(&format!("RESET {name}"));
        } else {
            session.exec(&format!("SELECT set_config('{name}', '{value}', false)"));
        }
        compare(session, &what);
        let there: String = session.value(&format!(
            "SELECT * FROM public.pg_background_run_query('LOAD ''plpgsql''; {reset}; SELECT public.seen()', col_def => 's text') AS (s text)"
        ));
        session.exec("BEGIN");
        session.exec(&reset);
        let here: String = session.value("SELECT public.seen()");
        session.exec("ROLLBACK");
        assert_eq!(here, there, "{what}");
    }
}

/// Settings that a session sets before a library defines them. When it does, those with an unknown name are removed.
#[test]
fn settings_that_are_defined_later() {
    const SEEN: &str = "SELECT concat_ws('|', current_setting('plpgsql.extra_warnings', true),
        nullif(current_setting('plpgsql.unheard_of', true), ''), current_setting('app.tenant', true))";
    let cluster = Cluster::start(&[]);
    for round in 0..20 {
        let mut session = cluster.session();
        let mut compare = |what: &str, sql: &str| {
            session.exec(sql);
            let here: String = session.value(SEEN);
            // The first job compares the settings, the second finds that none has changed.
            for _ in 0..2 {
                let there: String = session.value(&format!(
                    "SELECT s FROM pg_background_run_query($job$ {SEEN} $job$, col_def => 's text') AS (s text)"
                ));
                assert_eq!(here, there, "round {round}, {what}");
            }
            here
        };
        compare(
            "before",
            "SET plpgsql.extra_warnings = 'all'; SET plpgsql.unheard_of = 'x'; SET app.tenant = 'one'",
        );
        let set = compare(
            "set again",
            "SET plpgsql.extra_warnings = 'none'; SET app.tenant = 'two'",
        );
        assert_eq!(set, "none|x|two");
        compare("defined", "LOAD 'plpgsql'");
        let set = compare("set after that", "SET plpgsql.extra_warnings = 'shadowed_variables'");
        assert!(set.starts_with("shadowed_variables|"), "{set}");
        compare("another one", "SET app.tenant = 'three'");
    }
}

/// A setting that a session has set and reset before a library defined it has no value that the library could get.
#[test]
fn settings_that_are_reset_before_they_are_defined() {
    const SET: &str = "SET plpgsql.variable_conflict = 'use_column'; SET plpgsql.check_asserts = off";
    const LOAD: &str = "SELECT s FROM pg_background_run_query(
        'LOAD ''plpgsql''; SELECT current_setting(''plpgsql.variable_conflict'')', col_def => 's text') AS (s text)";
    let cluster = Cluster::start(&["pg_background.worker_idle_timeout = 0"]);
    for (sql, of_role, value) in [
        ("RESET ALL", "RESET work_mem", "error"),
        ("DISCARD ALL", "RESET work_mem", "error"),
        (
            "RESET ALL; SET plpgsql.variable_conflict = 'use_variable'",
            "RESET work_mem",
            "use_variable",
        ),
        // The worker then has a value of its own, which this session has not.
        ("RESET ALL", "SET work_mem = '8MB'", "error"),
    ] {
        let mut session = cluster.session();
        cluster.session().exec(&format!("ALTER ROLE postgres {of_role}"));
        session.exec(SET);
        for sql in sql.split("; ") {
            session.exec(sql);
        }
        session.take_notices();
        assert_eq!(session.value::<String>(LOAD), value, "{sql}, {of_role}");
        let said = session.take_notices();
        let said: Vec<_> = said.iter().map(|notice| notice.message()).collect();
        assert!(said.is_empty(), "{sql}, {of_role}: {said:?}");
    }
}
