//! The view of all jobs of the cluster.

use harness::{Cluster, KEPT, Session};

fn start(settings: &[&str]) -> (Cluster, Session) {
    let cluster = Cluster::start(settings);
    let mut superuser = cluster.session();
    superuser.exec(
        "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE signaler LOGIN;
         GRANT pg_read_all_stats TO reader; GRANT pg_signal_backend TO signaler;
         GRANT pgbackground_role TO alice, bob, reader, signaler",
    );
    (cluster, superuser)
}

const ALL: &str = "SELECT pid, cookie, datname, usename, launcher_pid, label, state, sql_preview, launched_at IS NOT NULL,
     started_at >= launched_at, finished_at >= started_at, row_count, command_tag, sqlstate, error_message, progress_pct,
     progress_msg, result_bytes > 0 FROM pg_background_jobs ORDER BY launched_at";

fn row(session: &mut Session) -> Vec<String> {
    let rows = session.rows(ALL);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0]
        .iter()
        .map(|field| field.clone().unwrap_or_else(|| "-".to_owned()))
        .collect()
}

#[test]
fn a_job_from_its_start_to_its_end() {
    let (cluster, _) = start(&[]);
    let mut alice = cluster.session_as("alice");
    let launcher = alice.pid.to_string();
    let job = alice.handle(
        "SELECT pid, cookie FROM pg_background_launch('SELECT pg_background_report_progress(30, ''going''); SELECT g, pg_sleep(CASE g WHEN 3 THEN 3600 END) FROM generate_series(1, 3) g', 0, 'nightly')",
    );
    alice.wait_until("progress_pct = 30 FROM pg_background_jobs");
    let mut other = cluster.session_as("alice");
    let (pid, cookie) = (job.pid.to_string(), job.cookie.to_string());
    let sql = "SELECT pg_background_report_progress(30, 'going'); SELECT g, pg_sleep(CASE g WHEN 3 THEN 3600 END) FROM generate_series(";
    assert_eq!(sql.len(), 120);
    let running = row(&mut other);
    assert_eq!(
        running[..11],
        [
            &*pid, &cookie, "postgres", "alice", &launcher, "nightly", "running", sql, "t", "t", "-"
        ]
    );
    assert_eq!(running[13..17], ["-", "-", "30", "going"]);

    // The record stays when the handle is released, and when the session has ended.
    alice.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    let canceled = |session: &mut Session| {
        let row = row(session);
        assert_eq!(
            row[..11],
            [
                &*pid, &cookie, "postgres", "alice", &launcher, "nightly", "canceled", sql, "t", "t", "t"
            ]
        );
        assert_eq!(
            row[13..17],
            ["57014", "canceling statement due to user request", "30", "going"]
        );
    };
    canceled(&mut other);
    alice.exec(&format!("SELECT pg_background_detach({job})"));
    canceled(&mut other);
    drop(alice);
    canceled(&mut other);
}

#[test]
fn what_a_job_did() {
    let (cluster, mut superuser) = start(&[]);
    let mut alice = cluster.session_as("alice");
    let job = alice.launch("SELECT repeat('x', 100) FROM generate_series(1, 1000)");
    alice.wait(job);
    let seen =
        "(state, row_count, command_tag, sqlstate IS NULL, label IS NULL) = ('stopped', 1000, 'SELECT', true, true)
                AND result_bytes BETWEEN 100000 AND 200000 FROM pg_background_jobs";
    assert!(superuser.holds(seen));
    alice.exec(&format!("SELECT * FROM pg_background_result({job}) AS (t text)"));
    assert!(superuser.holds(seen));
    assert_eq!(superuser.value::<i32>("SELECT count(*) FROM pg_background_jobs"), 1);

    alice.exec("SELECT pg_background_run('SELECT 1/0')");
    assert!(superuser.holds(
        "(sqlstate, error_message, result_bytes) = ('22012', 'division by zero', 0) FROM pg_background_jobs WHERE state = 'error'"
    ));
}

#[test]
fn who_sees_what() {
    let (cluster, mut superuser) = start(&[]);
    let mut alice = cluster.session_as("alice");
    let job = alice.handle("SELECT pid, cookie FROM pg_background_launch('SELECT 1/0 AS secret', 0, 'a label')");
    alice.wait(job);
    let (mut bob, mut reader, mut signaler) = (
        cluster.session_as("bob"),
        cluster.session_as("reader"),
        cluster.session_as("signaler"),
    );
    for _ in ["with its slot", "in the history"] {
        let all = row(&mut alice);
        assert_eq!(row(&mut superuser), all);
        let hidden = |columns: &[usize]| {
            let mut row = all.clone();
            for n in columns {
                row[*n] = "-".to_owned();
            }
            row
        };
        assert_eq!(row(&mut reader), hidden(&[1]));
        assert_eq!(row(&mut bob), hidden(&[1, 5, 7, 11, 12, 13, 14, 15, 16, 17]));
        assert_eq!(row(&mut signaler), hidden(&[5, 7, 11, 12, 13, 14, 15, 16, 17]));
        if alice.holds("EXISTS (SELECT FROM pg_background_list)") {
            alice.exec(&format!("SELECT pg_background_detach({job})"));
        }
    }
}

#[test]
fn the_last_ones_are_kept() {
    let (_cluster, mut superuser) = start(&["pg_background.history_size = 10"]);
    let labels = "SELECT coalesce(string_agg(label, ' ' ORDER BY label::int), '') FROM pg_background_jobs";
    for n in 1..=25 {
        superuser.exec(&format!("SELECT pg_background_run('SELECT 1', 0, 0, '{n}')"));
    }
    assert_eq!(superuser.value::<String>(labels), "16 17 18 19 20 21 22 23 24 25");
    // A job with a valid handle is always shown.
    let job = superuser.handle("SELECT pid, cookie FROM pg_background_launch('SELECT 1', 0, '26')");
    superuser.wait(job);
    for n in 27..=40 {
        superuser.exec(&format!("SELECT pg_background_run('SELECT 1', 0, 0, '{n}')"));
    }
    assert_eq!(superuser.value::<String>(labels), "26 31 32 33 34 35 36 37 38 39 40");
    superuser.exec(&format!("SELECT pg_background_detach({job})"));

    let mut resize = |size: &str, expected: &str| {
        superuser.exec(&format!("ALTER SYSTEM SET pg_background.history_size = {size}"));
        superuser.exec("SELECT pg_reload_conf()");
        superuser.wait_until(&format!("current_setting('pg_background.history_size') = '{size}'"));
        assert_eq!(superuser.value::<String>(labels), expected);
    };
    resize("3", "38 39 40");
    resize("100", "38 39 40");
    resize("0", "");
    resize("5", "");
    assert_eq!(superuser.error("SET pg_background.history_size = 7").sqlstate, "55P02");
}

#[test]
fn a_thousand_by_default() {
    let (_cluster, mut superuser) = start(&[]);
    assert_eq!(
        superuser.value::<String>("LOAD 'pg_background'; SHOW pg_background.history_size"),
        "1000"
    );
    superuser
        .exec("DO $$BEGIN FOR i IN 1..1100 LOOP PERFORM pg_background_run('SELECT 1', 0, 0, i::text); END LOOP; END$$");
    assert_eq!(
        superuser.rows("SELECT count(*), min(label::int), max(label::int) FROM pg_background_jobs"),
        [["1000", "101", "1100"].map(|field| Some(field.to_owned()))]
    );
}

#[test]
fn long_texts_are_cut_at_characters() {
    let (_cluster, mut superuser) = start(&[]);
    superuser.exec(
        "SELECT pg_background_run('SELECT ''' || repeat('€', 300) || '''::int', 0, 0, repeat('ä', 32));
         SELECT pg_background_run('SELECT pg_background_report_progress(1, ''' || repeat('ü', 400) || '''); DO $x$BEGIN RAISE ''' || repeat('ñ', 900) || '''; END$x$')",
    );
    assert!(superuser.holds(
        "bool_and(length(sql_preview) = 120 AND (error_message ~ '^(ñ+|invalid input.*)$')) AND max(label) = repeat('ä', 32)
         AND max(progress_msg) ~ '^ü*$' FROM pg_background_jobs"
    ));
}

#[test]
fn jobs_of_other_databases() {
    let (cluster, mut superuser) = start(&[]);
    superuser.exec("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let mut latin = cluster.session_in("latin", "postgres");
    latin.exec("CREATE EXTENSION pg_background");
    let job =
        superuser.handle("SELECT pid, cookie FROM pg_background_launch('SELECT ''äöü€'' FROM nowhere', 0, 'größe')");
    superuser.wait(job);
    assert!(latin.holds(
        "(datname, sql_preview, label, state) = ('postgres', 'SELECT ''äöü?'' FROM nowhere', 'größe', 'error') FROM pg_background_jobs"
    ));
    latin.exec(&format!(
        "SELECT pg_background_error_info({job}), pg_background_outcome({job})"
    ));
    assert_eq!(
        latin
            .error(&format!("SELECT * FROM pg_background_result({job}) AS (t text)"))
            .message,
        "relation \"nowhere\" does not exist"
    );
    let job = superuser.launch("SELECT 'größe'");
    assert_eq!(
        latin.value::<String>(&format!("SELECT * FROM pg_background_result({job}) AS (t text)")),
        "größe"
    );
    latin.exec("DROP ROLE bob");
    assert!(superuser.holds("bool_and(datname = 'postgres') FROM pg_background_jobs"));
}

#[test]
fn types_of_another_database_are_not_read() {
    let (cluster, mut superuser) = start(&[]);
    superuser.exec("CREATE DATABASE second");
    superuser.exec("CREATE TYPE mood AS ENUM ('sad', 'happy')");
    let mut second = cluster.session_in("second", "postgres");
    second.exec("CREATE EXTENSION pg_background");
    let job = superuser.launch("SELECT 1, 'x'::text, now(), ARRAY[1, 2], ROW(1, 'x'::text)");
    assert_eq!(
        second.value::<i32>(&format!(
            "SELECT a FROM pg_background_result({job}) AS (a int, b text, c timestamptz, d int[], e record)"
        )),
        1
    );
    let job = superuser.launch("SELECT ROW('sad'::mood)");
    let error = second.error(&format!(
        "SELECT a::text FROM pg_background_result({job}) AS (a record)"
    ));
    assert_eq!(error.sqlstate, "0A000", "{error:?}");
}

/// The view shows each job once while other jobs end, while it reads the records in portions, and while they move to a ring of another
/// size.
#[test]
fn each_job_is_shown_once_while_others_end() {
    const SIZES: [&str; 4] = ["100000", "3000", "20000", "1"];
    let cluster = Cluster::start(&["pg_background.history_size = 100000", KEPT]);
    let mut observer = cluster.session();
    observer.exec("SELECT count(pg_background_run('')) FROM generate_series(1, 3000)");
    let count = "SELECT count(*), count(DISTINCT cookie) FROM pg_background_jobs";
    assert_eq!(
        observer.rows(count),
        [[Some("3000".to_owned()), Some("3000".to_owned())]]
    );
    let ending: Vec<_> = (0..2)
        .map(|_| {
            cluster
                .session()
                .start("SELECT count(pg_background_run('')) FROM generate_series(1, 6000)")
        })
        .collect();
    let mut seen = 3000;
    while ending.iter().any(|session| !session.is_finished()) {
        let rows = observer.rows(count);
        let [all, distinct] = [0, 1].map(|n| rows[0][n].as_deref().unwrap().parse::<i32>().unwrap());
        assert_eq!(all, distinct);
        assert!(all >= seen, "{all} jobs, {seen} before");
        seen = all;
    }
    for session in ending {
        session.join().1.expect("all have run");
    }
    assert!(observer.holds("count(*) = 15000 AND count(DISTINCT cookie) = 15000 FROM pg_background_jobs"));

    // The records move while jobs end and sessions read.
    let ending = cluster
        .session()
        .start("SELECT count(pg_background_run('')) FROM generate_series(1, 6000)");
    let mut reader = cluster.session();
    while !ending.is_finished() {
        for size in SIZES {
            observer.exec(&format!("ALTER SYSTEM SET pg_background.history_size = {size}"));
            observer.exec("SELECT pg_reload_conf()");
            observer.wait_until(&format!("current_setting('pg_background.history_size') = '{size}'"));
            observer.exec("SELECT pg_background_run('')");
            assert!(reader.holds("count(*) = count(DISTINCT cookie) FROM pg_background_jobs"));
        }
    }
    ending.join().1.expect("all have run");
    // The latest ones stay.
    observer.exec("SELECT pg_background_run('', 0, 0, 'youngest')");
    observer
        .wait_until("count(*) = 1 AND min(label) = 'youngest' FROM pg_background_jobs WHERE finished_at IS NOT NULL");
}
