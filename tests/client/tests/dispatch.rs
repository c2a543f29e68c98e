//! Orders that no session places, and the engine's own work in a job's transaction. What SQL cannot ask for is asked of a library of its own
//! (`make probe-installed`, src/probe.rs), which these clusters have in place of the real one.

use harness::{Cluster, Handle, KEPT, Rows, Session, quoted, wait_for};
use std::path::Path;

/// A cluster in whose database `postgres` the functions are those of the probe.
fn start(settings: &[&str]) -> (Cluster, Session) {
    harness::install_probe();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cluster = Cluster::start_plain(settings);
    let mut session = cluster.session();
    let script = std::fs::read_to_string(root.join("sql/pg_background--2.1.sql")).unwrap();
    let script: Vec<_> = script.lines().filter(|line| !line.starts_with('\\')).collect();
    session.exec(&script.join("\n").replace("MODULE_PATHNAME", "pg_background_probe"));
    for (function, returns) in [
        ("launch(sql text, before text, after text)", "pg_background_handle"),
        ("order(database int8, role int8, sql text)", "pg_background_handle"),
        (
            "place(database int8, role int8, sql text, orders int4, once bool)",
            "int8",
        ),
        ("report(place int8)", "text"),
        ("state(cookie int8)", "text"),
        ("slots()", "int4"),
    ] {
        session.exec(&format!(
            "CREATE FUNCTION pg_background_probe_{function} RETURNS {returns} LANGUAGE C AS 'pg_background_probe'"
        ));
    }
    (cluster, session)
}

/// `database, role` as the functions of the probe take them.
fn connection(session: &mut Session, database: &str, role: &str) -> String {
    session.value(&format!(
        "SELECT d.oid || ', ' || r.oid FROM pg_database d, pg_roles r WHERE datname = '{database}' AND rolname = '{role}'"
    ))
}

/// Orders a job of a connection that nobody holds.
#[track_caller]
fn order(session: &mut Session, connection: &str, sql: &str) -> Handle {
    session.handle(&format!(
        "SELECT pid, cookie FROM pg_background_probe_order({connection}, {})",
        quoted(sql)
    ))
}

#[track_caller]
fn rows(session: &mut Session, job: Handle, columns: &str) -> Rows {
    session.rows(&format!("SELECT * FROM pg_background_result({job}) AS ({columns})"))
}

/// The rows of the job are these.
#[track_caller]
fn gives(session: &mut Session, job: Handle, columns: &str, expected: &Rows) {
    let rows = rows(session, job, columns);
    let (more, missing): (Vec<_>, Vec<_>) = (
        rows.iter().filter(|row| !expected.contains(row)).collect(),
        expected.iter().filter(|row| !rows.contains(row)).collect(),
    );
    assert!(rows == *expected, "{more:?}\ninstead of\n{missing:?}");
}

#[track_caller]
fn nothing_is_left(session: &mut Session) {
    session.exec("SELECT pg_background_detach_all()");
    session.wait_until("pg_background_probe_slots() = 0");
}

/// What a connection is made of, but for what tells a client from a process without one, and for the settings of the library, which are known once it is
/// loaded.
const STATE: &str = "SELECT name, setting, source, reset_val FROM pg_settings \
     WHERE name NOT IN ('application_name', 'client_encoding') AND name NOT LIKE 'pg_background.%' \
     UNION ALL VALUES ('users', session_user || ' ' || current_user, current_setting('role'), current_schemas(true)::text), \
         ('custom', current_setting('my.place', true), NULL, NULL) ORDER BY 1";

const COLUMNS: &str = "name text, setting text, source text, reset_val text";

#[test]
fn the_state_is_that_of_a_new_connection() {
    let (cluster, mut session) = start(&[KEPT]);
    session.exec(
        "CREATE ROLE alice LOGIN; CREATE SCHEMA alice; GRANT ALL ON SCHEMA alice TO alice;
         CREATE ROLE bob LOGIN; CREATE ROLE carol; GRANT carol TO bob; CREATE SCHEMA carol; GRANT USAGE ON SCHEMA carol TO carol;
         GRANT pgbackground_role TO alice, bob, carol;
         ALTER ROLE alice SET work_mem = '7MB'; ALTER ROLE alice SET my.place = 'role';
         ALTER DATABASE postgres SET lock_timeout = '77s'; ALTER DATABASE postgres SET work_mem = '8MB';
         ALTER ROLE alice IN DATABASE postgres SET datestyle = 'German'; ALTER ROLE ALL SET statement_timeout = '99s';
         ALTER ROLE bob SET role = 'carol'; ALTER ROLE bob SET search_path = carol, public",
    );
    for role in ["alice", "bob"] {
        let to = connection(&mut session, "postgres", role);
        // As the role itself, whatever role its sessions begin with.
        let mut new = cluster.session_as(role);
        new.exec("SET ROLE NONE");
        let expected = new.rows(STATE);
        // What ends with a catalog change on the way in does not stay.
        let mut first = order(&mut session, &to, STATE);
        gives(&mut session, first, COLUMNS, &expected);
        wait_for("a used worker", || {
            let before = first.pid;
            first = order(&mut session, &to, STATE);
            gives(&mut session, first, COLUMNS, &expected);
            first.pid == before
        });
        // After a job that changes what it can, and after one of a session in another state.
        let spoiling = order(
            &mut session,
            &to,
            "SET work_mem = '1MB'; SET search_path = pg_catalog; SET statement_timeout = '5s'; SET datestyle = 'SQL'; SELECT 1",
        );
        session.wait(spoiling);
        assert_eq!(session.state(spoiling), "stopped");
        let after = order(&mut session, &to, STATE);
        assert_eq!(after.pid, first.pid);
        gives(&mut session, after, COLUMNS, &expected);
        let mut other = cluster.session_as(role);
        other.exec("SET work_mem = '3MB'; SET search_path = information_schema, public; SET timezone = 'Asia/Tokyo'; RESET lock_timeout");
        let job = other.launch(STATE);
        assert_eq!(job.pid, first.pid, "the worker serves sessions, too");
        let theirs = rows(&mut other, job, COLUMNS);
        assert_eq!(theirs, other.rows(STATE), "{role}");
        let after = order(&mut session, &to, STATE);
        assert_eq!(after.pid, first.pid);
        gives(&mut session, after, COLUMNS, &expected);
    }
    nothing_is_left(&mut session);
}

#[test]
fn what_is_compiled_is_compiled_for_its_settings() {
    let (cluster, mut session) = start(&[KEPT]);
    session.exec(
        "CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice; ALTER ROLE alice SET search_path = one;
         CREATE SCHEMA one; CREATE TABLE one.t AS SELECT 1 AS n; CREATE SCHEMA two; CREATE TABLE two.t AS SELECT 2 AS n;
         GRANT USAGE ON SCHEMA one, two TO alice; GRANT SELECT ON one.t, two.t TO alice;
         CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN n FROM t; END'",
    );
    let to = connection(&mut session, "postgres", "alice");
    let mut alice = cluster.session_as("alice");
    alice.exec("SET search_path = two, public");
    for _ in 0..3 {
        let job = order(&mut session, &to, "SELECT public.f()");
        assert_eq!(rows(&mut session, job, "n int")[0][0].as_deref(), Some("1"));
        let job = alice.launch("SELECT public.f()");
        assert_eq!(rows(&mut alice, job, "n int")[0][0].as_deref(), Some("2"));
    }
}

#[test]
fn a_used_worker_judges_whether_it_is_as_new() {
    let (_cluster, mut session) = start(&[KEPT]);
    session.exec("CREATE ROLE alice LOGIN");
    let to = connection(&mut session, "postgres", "alice");
    for mb in 2..6 {
        session.exec(&format!("ALTER ROLE alice SET work_mem = '{mb}MB'"));
        for _ in 0..3 {
            let job = order(&mut session, &to, "SHOW work_mem");
            assert_eq!(
                rows(&mut session, job, "v text")[0][0],
                Some(format!("{mb}MB")),
                "of {mb}"
            );
        }
    }
    nothing_is_left(&mut session);
}

#[test]
fn a_connection_that_is_refused_is_the_jobs_error() {
    let (_cluster, mut session) = start(&[KEPT]);
    for create in [
        "CREATE ROLE alice LOGIN",
        "CREATE ROLE bob LOGIN",
        "CREATE DATABASE closed",
        "CREATE DATABASE shut",
        "CREATE DATABASE gone",
    ] {
        session.exec(create);
    }
    let to_gone = connection(&mut session, "gone", "postgres");
    let to = |session: &mut Session, database| connection(session, database, "alice");
    let (open, closed, shut) = (
        to(&mut session, "postgres"),
        to(&mut session, "closed"),
        to(&mut session, "shut"),
    );
    let as_bob = connection(&mut session, "postgres", "bob");
    // Each once while it can be, so that there may be used workers.
    for to in [&open, &closed, &shut, &to_gone, &as_bob] {
        for _ in 0..2 {
            let job = order(&mut session, to, "SELECT 1");
            assert_eq!(rows(&mut session, job, "n int").len(), 1);
        }
    }
    for (to, change, sqlstate, message) in [
        (
            &closed,
            "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
            "42501",
            "closed",
        ),
        (&shut, "ALTER DATABASE shut ALLOW_CONNECTIONS false", "55000", "shut"),
        (&to_gone, "DROP DATABASE gone", "3D000", "does not exist"),
        (&as_bob, "DROP ROLE bob", "28000", "does not exist"),
        (&open, "ALTER ROLE alice NOLOGIN", "28000", "not permitted to log in"),
    ] {
        session.exec(change);
        for _ in 0..2 {
            let job = order(&mut session, to, "SELECT 1");
            session.wait(job);
            assert_eq!(session.sqlstate(job), sqlstate, "{change}");
            let error = session.error(&format!("SELECT * FROM pg_background_result({job}) AS (n int)"));
            assert_eq!(error.sqlstate, sqlstate, "{change}");
            assert!(error.message.contains(message), "{change}: {error:?}");
        }
    }
    let counters = session.counters();
    assert_eq!(
        counters.launched, 0,
        "an order without a session is in no session's counters"
    );
    nothing_is_left(&mut session);
}

#[test]
fn a_worker_that_is_told_to_end_while_it_connects_is_lost() {
    let (cluster, session) = start(&["post_auth_delay = 1"]);
    let mut other = cluster.session();
    let to = connection(&mut other, "postgres", "postgres");
    let ordering = session.start(&format!(
        "SELECT pid, cookie FROM pg_background_probe_order({to}, 'SELECT 1')"
    ));
    wait_for("the worker's start", || !cluster.worker_processes().is_empty());
    for pid in cluster.worker_processes() {
        cluster.signal(pid, "TERM");
    }
    let (mut session, ordered) = ordering.join();
    match ordered {
        Ok(rows) => {
            let job = Handle::of(&rows[0]);
            session.wait(job);
            assert_eq!(session.sqlstate(job), "08006");
        }
        Err(error) => assert_eq!(error.sqlstate, "08006", "{error:?}"),
    }
    nothing_is_left(&mut session);
}

#[test]
fn texts_come_in_the_encoding_of_the_order() {
    let (_cluster, mut session) = start(&[KEPT]);
    session.exec("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let to = connection(&mut session, "latin", "postgres");
    for _ in 0..2 {
        let job = order(
            &mut session,
            &to,
            "SELECT 'é', octet_length('é'), current_database()::text",
        );
        assert_eq!(
            rows(&mut session, job, "t text, n int, d text")[0],
            ["é", "1", "latin"].map(|text| Some(text.to_owned()))
        );
        let job = order(&mut session, &to, "SELECT 'ä'::int");
        session.wait(job);
        let error = session.error(&format!("SELECT * FROM pg_background_result({job}) AS (n int)"));
        assert!(error.message.ends_with("integer: \"ä\""), "{error:?}");
    }
}

/// What a process without a database reports.
#[derive(Debug)]
struct Report {
    pid: i32,
    tried: u32,
    /// Taken, posted, starting, and without room, when each had been tried once.
    had: [u32; 4],
    taken: u32,
    failed: u32,
}

struct Placer(i64);

impl Placer {
    fn start(session: &mut Session, connection: &str, sql: &str, orders: u32, once: bool) -> Self {
        Self(session.value(&format!(
            "SELECT pg_background_probe_place({connection}, {}, {orders}, {once})",
            quoted(sql)
        )))
    }

    fn report(&self, session: &mut Session) -> Report {
        let text: String = session.value(&format!("SELECT pg_background_probe_report({})", self.0));
        let numbers: Vec<u32> = text
            .split(' ')
            .filter(|word| *word != "|")
            .map(|word| word.parse().unwrap())
            .collect();
        Report {
            pid: numbers[0] as i32,
            tried: numbers[1],
            had: [numbers[2], numbers[3], numbers[4], numbers[5]],
            taken: numbers[6],
            failed: numbers[7],
        }
    }

    #[track_caller]
    fn until(&self, session: &mut Session, what: &str, condition: impl Fn(&Report) -> bool) -> Report {
        let mut report = self.report(session);
        wait_for(what, || {
            report = self.report(session);
            condition(&report)
        });
        report
    }
}

const GATED: &str = "SELECT pg_advisory_xact_lock_shared(1); INSERT INTO effects VALUES (1)";

/// A cluster with four processes for jobs and the placer, and the gate shut.
fn start_gated(settings: &[&str]) -> (Cluster, Session, Session, String) {
    let mut all = vec!["max_worker_processes = 6"];
    all.extend(settings);
    let (cluster, mut session) = start(&all);
    session.exec("CREATE TABLE effects (n int)");
    let mut gate = cluster.session();
    gate.exec("SELECT pg_advisory_lock(1)");
    let to = connection(&mut session, "postgres", "postgres");
    (cluster, session, gate, to)
}

#[test]
fn orders_without_a_database_are_placed_at_once_or_find_no_room() {
    for settings in [&["pg_background.worker_idle_timeout = 0"][..], &[KEPT]] {
        let (_cluster, mut session, mut gate, to) = start_gated(settings);
        let placer = Placer::start(&mut session, &to, GATED, 12, false);
        // None of the jobs can end, so an answer that waited for room would not come.
        let report = placer.until(&mut session, "an answer to each order", |report| report.tried > 0);
        assert_eq!(report.tried, 12);
        assert_eq!(report.had.iter().sum::<u32>(), 12, "{report:?}");
        assert!(report.had[3] >= 8, "{report:?}");
        let room = 12 - report.had[3];
        assert!(room >= 1, "{report:?}");
        session.wait_until(&format!(
            "count(*) = {room} FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        ));
        assert_eq!(session.value::<i32>("SELECT pg_background_probe_slots()"), 12);
        gate.exec("SELECT pg_advisory_unlock(1)");
        let report = placer.until(&mut session, "a worker for each", |report| {
            report.taken + report.failed == 12
        });
        assert_eq!(report.failed, 0, "{report:?}");
        session.wait_until("count(*) = 12 FROM effects");
        nothing_is_left(&mut session);
    }
}

#[test]
fn an_order_without_a_database_stands_in_line_with_launches() {
    let (_cluster, mut session, mut gate, to) = start_gated(&[KEPT, "pg_background.max_cluster_workers = 2"]);
    let placer = Placer::start(&mut session, &to, GATED, 5, false);
    let report = placer.until(&mut session, "an answer to each order", |report| report.tried > 0);
    assert_eq!(report.had[3], 3, "{report:?}");
    session.exec("SET pg_background.launch_timeout = '60s'");
    let launching = session.start("SELECT pid, cookie FROM pg_background_launch('INSERT INTO effects VALUES (2)')");
    gate.wait_until(&format!(
        "wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = {}",
        launching.pid
    ));
    gate.exec("SELECT pg_advisory_unlock(1)");
    let (mut session, launched) = launching.join();
    session.wait(Handle::of(&launched.unwrap()[0]));
    session.wait_until("count(*) = 6 FROM effects");
    nothing_is_left(&mut session);
}

#[test]
fn what_ends_the_placing_process_takes_its_orders_back() {
    let (cluster, mut session, mut gate, to) = start_gated(&[]);
    let placer = Placer::start(&mut session, &to, GATED, 12, true);
    let report = placer.until(&mut session, "an answer to each order", |report| report.tried > 0);
    let room = 12 - report.had[3];
    assert!(room >= 1 && report.had[3] >= 1, "{report:?}");
    session.wait_until(&format!(
        "count(*) = {room} FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    ));
    let report = placer.report(&mut session);
    cluster.signal(report.pid, "TERM");
    // Those that run go on, the others were never there.
    session.wait_until(&format!("pg_background_probe_slots() = {room}"));
    gate.exec("SELECT pg_advisory_unlock(1)");
    session.wait_until(&format!("count(*) = {room} FROM effects"));
    session.wait_until("pg_background_probe_slots() = 0");
    assert!(session.holds(&format!(
        "(sum(jobs_launched), sum(jobs_completed)) = ({room}, {room}) FROM pg_background_cluster_stats()"
    )));
    // There is room for others.
    assert!(session.run() > 0);
}

/// The marks that there are, in order.
fn marks(session: &mut Session) -> String {
    session.value("SELECT coalesce(string_agg(mark, ' ' ORDER BY ctid), '') FROM marks")
}

#[track_caller]
fn launch_with(session: &mut Session, sql: &str, before: &str, after: &str) -> Handle {
    session.handle(&format!(
        "SELECT pid, cookie FROM pg_background_probe_launch({}, {before}, {after})",
        quoted(sql)
    ))
}

#[test]
fn the_engine_has_its_place_in_the_jobs_transaction() {
    let (_cluster, mut session) = start(&[]);
    session.exec("CREATE TABLE marks (mark text)");
    for (sql, expected) in [
        ("INSERT INTO marks VALUES ('job')", "before job after"),
        (
            "INSERT INTO marks VALUES ('one'); INSERT INTO marks VALUES ('two')",
            "before one two after",
        ),
        // The first part is visible to the statements, and all is one transaction.
        (
            "INSERT INTO marks SELECT 'sees ' || mark FROM marks; INSERT INTO marks SELECT count(DISTINCT xmin::text) FROM marks",
            "before sees before 1 after",
        ),
        ("", "before after"),
        ("SET LOCAL work_mem = '1MB'", "before after"),
        (
            "DO $$BEGIN BEGIN INSERT INTO marks VALUES ('x'); RAISE 'no'; EXCEPTION WHEN raise_exception THEN END; END$$",
            "before after",
        ),
    ] {
        let job = launch_with(&mut session, sql, "'insert'", "'insert'");
        session.wait(job);
        assert_eq!(
            (session.state(job).as_str(), session.sqlstate(job)),
            ("stopped", String::new()),
            "{sql}"
        );
        assert_eq!(marks(&mut session), expected, "{sql}");
        assert!(session.holds("count(DISTINCT xmin::text) = 1 FROM marks"), "{sql}");
        session.exec("TRUNCATE marks");
    }
    // Rows are the last statement's.
    let job = launch_with(&mut session, "SELECT mark FROM marks", "'insert'", "'insert'");
    assert_eq!(rows(&mut session, job, "mark text"), [[Some("before".to_owned())]]);
    // A job without has its own transactions, in the same worker, too.
    let job = session.launch("INSERT INTO marks VALUES ('own'); COMMIT; SELECT 1/0");
    session.wait(job);
    assert!(marks(&mut session).ends_with("own"));
    nothing_is_left(&mut session);
}

#[test]
fn effect_and_mark_are_lost_together() {
    let (_cluster, mut session) = start(&[]);
    session.exec(
        "CREATE TABLE marks (mark text);
         CREATE TABLE parent (n int PRIMARY KEY);
         CREATE TABLE child (n int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         CREATE PROCEDURE committing() LANGUAGE plpgsql AS 'BEGIN INSERT INTO marks VALUES (''x''); COMMIT; END';
         CREATE PROCEDURE rolling() LANGUAGE plpgsql AS 'BEGIN ROLLBACK; END'",
    );
    let insert = "'insert'";
    for (sql, before, after, sqlstate) in [
        ("INSERT INTO marks VALUES ('job')", insert, "'raise'", "09000"),
        ("INSERT INTO marks VALUES ('job')", "'raise'", insert, "09000"),
        ("", insert, "'raise'", "09000"),
        ("INSERT INTO marks VALUES ('job'); SELECT 1/0", insert, insert, "22012"),
        ("INSERT INTO child VALUES (1)", insert, insert, "23503"),
        ("no such statement", insert, insert, "42601"),
        ("VACUUM marks", insert, insert, "25001"),
        ("CREATE DATABASE x", insert, insert, "25001"),
        ("DISCARD ALL", insert, insert, "25001"),
        ("SAVEPOINT a", insert, insert, "2D000"),
        ("COMMIT", insert, insert, "2D000"),
        ("INSERT INTO marks VALUES ('job'); COMMIT", insert, insert, "2D000"),
        (
            "COMMIT AND CHAIN; INSERT INTO marks VALUES ('job')",
            insert,
            insert,
            "2D000",
        ),
        ("END; SELECT 1", insert, insert, "2D000"),
        ("ROLLBACK", insert, insert, "2D000"),
        ("INSERT INTO marks VALUES ('job'); ABORT", insert, insert, "2D000"),
        ("BEGIN; INSERT INTO marks VALUES ('job')", insert, insert, "2D000"),
        ("START TRANSACTION READ ONLY", insert, insert, "2D000"),
        ("PREPARE TRANSACTION 'a'", insert, insert, "2D000"),
        ("COMMIT PREPARED 'a'", insert, insert, "2D000"),
        ("CALL committing()", insert, insert, "2D000"),
        ("CALL rolling()", insert, insert, "2D000"),
        ("DO 'BEGIN COMMIT; END'", insert, insert, "2D000"),
        ("SELECT 1; DO 'BEGIN ROLLBACK; END'", insert, insert, "2D000"),
    ] {
        let job = launch_with(&mut session, sql, before, after);
        session.wait(job);
        assert_eq!(session.sqlstate(job), sqlstate, "{sql}");
        assert_eq!(marks(&mut session), "", "{sql}");
        assert_eq!(
            session
                .error(&format!("SELECT * FROM pg_background_result({job}) AS (n text)"))
                .sqlstate,
            sqlstate
        );
    }
    // A cancel.
    let job = launch_with(&mut session, "SELECT pg_sleep(3600)", insert, insert);
    session.wait_running(job);
    session.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    assert_eq!(
        (session.state(job).as_str(), marks(&mut session).as_str()),
        ("canceled", "")
    );
    nothing_is_left(&mut session);
}

#[test]
fn results_that_expire_go_without_a_session() {
    let (cluster, mut session) = start(&[KEPT]);
    session.exec("SET pg_background.result_retention = '200ms'");
    let job = session.launch("SELECT repeat('x', 1000) FROM generate_series(1, 3000)");
    session.wait(job);
    assert!(!cluster.temporary_files().is_empty());
    drop(session);
    wait_for("the removal of temporary files", || {
        cluster.temporary_files().is_empty()
    });
    assert_eq!(cluster.session().value::<i32>("SELECT pg_background_probe_slots()"), 0);
}

#[test]
fn lost_workers_are_noticed_without_a_session() {
    let (_cluster, mut session) = start(&[KEPT]);
    // Two workers, of which one stays.
    let jobs = [0, 1].map(|_| session.launch("SELECT pg_advisory_xact_lock_shared(1), pg_sleep(0.2)"));
    jobs.iter().for_each(|job| session.wait(*job));
    let lost = launch_with(&mut session, "SELECT 1", "'vanish'", "NULL");
    // This looks at the slot and at nothing else.
    session.wait_until(&format!("pg_background_probe_state({}) = 'error'", lost.cookie));
    assert_eq!(session.sqlstate(lost), "08006");
    nothing_is_left(&mut session);
}
