//! A job has the rights of the user that launched it, no more and no less.

use harness::{Cluster, Session, quoted};

fn start() -> (Cluster, Session) {
    start_with(&[])
}

fn start_with(settings: &[&str]) -> (Cluster, Session) {
    let cluster = Cluster::start(settings);
    let mut superuser = cluster.session();
    superuser.exec(
        "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE nologin_role NOLOGIN; CREATE ROLE mallory LOGIN;
         GRANT pgbackground_role TO alice, bob, mallory, nologin_role;
         GRANT CREATE ON SCHEMA public TO alice, bob, mallory;
         CREATE TABLE who (who text, session text);
         GRANT INSERT, SELECT ON who TO PUBLIC;
         CREATE TABLE secret (n int)",
    );
    (cluster, superuser)
}

#[test]
fn public_may_nothing() {
    let (cluster, mut superuser) = start();
    superuser.exec("CREATE ROLE nobody LOGIN");
    let mut nobody = cluster.session_as("nobody");
    for call in [
        "SELECT pg_background_launch('SELECT 1')",
        "SELECT pg_background_run('SELECT 1')",
        "SELECT * FROM pg_background_list",
        "SELECT * FROM pg_background_activity",
        "SELECT pg_background_stats()",
        "CALL pg_background_do('SELECT 1')",
        "SELECT pg_background_grant_privileges('nobody')",
        "SELECT pg_background_drop_executor_role()",
    ] {
        assert_eq!(nobody.error(call).sqlstate, "42501", "{call}");
    }
    let mut alice = cluster.session_as("alice");
    assert_eq!(
        alice.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
    assert_eq!(
        alice.error("SELECT pg_background_grant_privileges('nobody')").sqlstate,
        "42501"
    );
    assert!(superuser.holds("pg_background_grant_privileges('nobody')"));
    assert_eq!(
        nobody.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
    nobody.exec("SELECT * FROM pg_background_activity; CALL pg_background_do('SELECT 1')");
    assert!(superuser.holds("pg_background_revoke_privileges('nobody')"));
    assert_eq!(nobody.error("SELECT pg_background_run('SELECT 1')").sqlstate, "42501");
}

#[test]
fn job_runs_as_the_current_user() {
    let (cluster, mut superuser) = start();
    let mut alice = cluster.session_as("alice");
    let whoami = "SELECT * FROM pg_background_run_query('SELECT current_user::text, session_user::text', col_def => 'u text, s text') AS (u text, s text)";
    assert_eq!(alice.rows(whoami), [["alice", "alice"].map(|s| Some(s.to_owned()))]);
    assert_eq!(
        alice
            .error("SELECT * FROM pg_background_run_query('SELECT * FROM secret', col_def => 'n int') AS (n int)")
            .sqlstate,
        "42501"
    );

    superuser.exec("SET ROLE bob");
    assert_eq!(superuser.rows(whoami)[0][0].as_deref(), Some("bob"));
    superuser.exec("SET ROLE nologin_role");
    assert_eq!(superuser.rows(whoami)[0][0].as_deref(), Some("nologin_role"));
    superuser.exec("RESET ROLE; SET SESSION AUTHORIZATION mallory");
    assert_eq!(
        superuser.rows(whoami),
        [["mallory", "mallory"].map(|s| Some(s.to_owned()))]
    );
    superuser.exec("RESET SESSION AUTHORIZATION");
    assert_eq!(superuser.rows(whoami)[0][0].as_deref(), Some("postgres"));
}

/// What a job might try to become another role, before it reports its role.
const ESCAPES: [&str; 10] = [
    "RESET ROLE; {who}",
    "SET ROLE NONE; {who}",
    "SET LOCAL ROLE NONE; {who}",
    "SET ROLE postgres; {who}",
    "SET SESSION AUTHORIZATION postgres; {who}",
    "SET SESSION AUTHORIZATION DEFAULT; {who}",
    "RESET SESSION AUTHORIZATION; {who}",
    "SELECT set_config('role', 'none', false); {who}",
    "SELECT set_config('session_authorization', 'postgres', false); {who}",
    "COMMIT; RESET ROLE; RESET SESSION AUTHORIZATION; {who}",
];

#[test]
fn security_definer_cannot_be_escaped() {
    let (cluster, mut superuser) = start();
    // Called by a superuser and owned by a role with few rights, and called by a role with few rights and owned by a superuser. In both
    // cases the job is the owner's.
    let mut mallory = cluster.session_as("mallory");
    mallory.exec(
        "CREATE FUNCTION launch_as_owner(sql text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN RETURN (SELECT coalesce(sqlstate, state) FROM pg_background_run(sql)); END $$",
    );
    let mut alice = cluster.session_as("alice");
    for escape in ESCAPES {
        let sql = escape.replace("{who}", "INSERT INTO who SELECT current_user, session_user");
        for caller in [&mut superuser, &mut alice] {
            let outcome: String = caller.value(&format!("SELECT launch_as_owner({})", quoted(&sql)));
            assert!(["42501", "stopped"].contains(&outcome.as_str()), "{sql}: {outcome}");
        }
        let others = superuser.rows("SELECT DISTINCT who FROM who WHERE who <> 'mallory'");
        assert!(others.is_empty(), "{sql}: the job became {others:?}");
    }
    let outcome: String = superuser.value("SELECT launch_as_owner('DISCARD ALL')");
    assert!(!outcome.is_empty());
    assert_eq!(
        superuser.value::<String>("SELECT launch_as_owner('INSERT INTO secret VALUES (1)')"),
        "42501"
    );
    // A job that the job launches is the owner's too.
    let nested = "SELECT * FROM pg_background_run('RESET ROLE; INSERT INTO who SELECT current_user, session_user')";
    superuser.value::<String>(&format!("SELECT launch_as_owner({})", quoted(nested)));
    let others = superuser.rows("SELECT DISTINCT who FROM who WHERE who <> 'mallory'");
    assert!(others.is_empty(), "a job's job became {others:?}");
    // A plain job runs and leaves its row.
    assert_eq!(
        superuser.value::<String>("SELECT launch_as_owner('INSERT INTO who SELECT current_user, session_user')"),
        "stopped"
    );
    assert!(superuser.holds("EXISTS (SELECT FROM who WHERE who = 'mallory')"));
}

/// A command that may not run in a transaction block may be the job of a SECURITY DEFINER function, as far as the owner may execute it.
#[test]
fn commands_that_must_be_alone_in_a_security_definer() {
    let (cluster, mut superuser) = start_with(&["max_prepared_transactions = 4"]);
    let mut mallory = cluster.session_as("mallory");
    mallory.exec(
        "CREATE FUNCTION run_as_owner(sql text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
         DECLARE outcome pg_background_run_result := pg_background_run(sql);
         BEGIN RETURN format('%s %s %s', outcome.state, outcome.sqlstate, outcome.error_message); END $$;
         CREATE TABLE mine (n int)",
    );
    superuser.exec("BEGIN; INSERT INTO secret VALUES (1); PREPARE TRANSACTION 'superuser'");
    let mut alice = cluster.session_as("alice");
    let steps = [
        (
            "BEGIN; INSERT INTO mine VALUES (1); PREPARE TRANSACTION 'one'",
            "stopped  ",
        ),
        (
            "BEGIN; INSERT INTO mine VALUES (2); PREPARE TRANSACTION 'two'",
            "stopped  ",
        ),
        (
            "SELECT 1; COMMIT PREPARED 'one'",
            "error 25001 COMMIT PREPARED cannot run inside a transaction block",
        ),
        (
            "BEGIN; ROLLBACK PREPARED 'one'",
            "error 25001 ROLLBACK PREPARED cannot run inside a transaction block",
        ),
        ("COMMIT PREPARED 'one'", "stopped  "),
        ("ROLLBACK PREPARED 'two'", "stopped  "),
        (
            "COMMIT PREPARED 'one'",
            "error 42704 prepared transaction with identifier \"one\" does not exist",
        ),
        (
            "ROLLBACK PREPARED 'superuser'",
            "error 42501 permission denied to finish prepared transaction",
        ),
        (
            "COMMIT PREPARED 'superuser'",
            "error 42501 permission denied to finish prepared transaction",
        ),
        // It begins by resetting the session's user, which is locked there.
        (
            "DISCARD ALL",
            "error 42501 cannot set parameter \"session_authorization\" within security-definer function",
        ),
        ("DISCARD TEMP", "stopped  "),
        ("SELECT 1; DISCARD PLANS", "stopped  "),
    ];
    for caller in [&mut alice, &mut superuser] {
        for (sql, wanted) in steps {
            assert_eq!(
                caller.value::<String>(&format!("SELECT run_as_owner({})", quoted(sql))),
                wanted,
                "{sql}"
            );
        }
        assert_eq!(mallory.rows("DELETE FROM mine RETURNING n"), [[Some("1".to_owned())]]);
    }
    superuser.exec("ROLLBACK PREPARED 'superuser'");
}

#[test]
fn restricted_operations_launch_nothing() {
    let (cluster, mut superuser) = start();
    let mut mallory = cluster.session_as("mallory");
    mallory.exec(
        "CREATE FUNCTION escape(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
         BEGIN PERFORM public.pg_background_launch('INSERT INTO who SELECT current_user, session_user'); RETURN $1; END $$;
         CREATE TABLE trap (n int); INSERT INTO trap VALUES (1)",
    );
    assert_eq!(superuser.error("CREATE INDEX ON trap (escape(n))").sqlstate, "42501");
    mallory.exec("CREATE MATERIALIZED VIEW view_trap AS SELECT escape(1) WITH NO DATA");
    assert_eq!(superuser.error("REFRESH MATERIALIZED VIEW view_trap").sqlstate, "42501");
    assert_eq!(superuser.value::<i32>("SELECT count(*) FROM who"), 0);
}

#[test]
fn one_roles_jobs_are_not_anothers() {
    let (cluster, _superuser) = start();
    let mut alice = cluster.session_as("alice");
    let mut bob = cluster.session_as("bob");
    let job = alice.launch("SELECT pg_sleep(3600)");
    // Before the worker has connected, the server has no process yet that it could refuse to signal.
    alice.wait_running(job);
    for call in ["cancel", "detach", "wait", "result_info", "error_info", "full_sql"] {
        assert_eq!(
            bob.error(&format!("SELECT pg_background_{call}({job})")).sqlstate,
            "42501",
            "{call}"
        );
    }
    assert_eq!(
        bob.error(&format!("SELECT * FROM pg_background_result({job}) AS (x text)"))
            .sqlstate,
        "42501"
    );
    assert_eq!(bob.value::<i32>("SELECT count(*) FROM pg_background_list"), 0);
    // An ordinary user's signal does not reach another user's job either.
    assert_eq!(
        bob.error(&format!("SELECT pg_terminate_backend({})", job.pid)).sqlstate,
        "42501"
    );
    alice.exec(&format!("SELECT pg_cancel_backend({})", job.pid));
    alice.wait(job);
    assert_eq!(alice.state(job), "canceled");
}

/// A session that may reset its role launches jobs as alice, which leave her role. A session that may only act as alice must not read their
/// rows.
#[test]
fn what_a_job_reads_when_it_has_left_its_role() {
    const SAID: &str = "not for alice";
    let (cluster, mut superuser) = start();
    superuser.exec(
        "CREATE TABLE hidden AS SELECT 'not for alice'::text AS words;
         CREATE TABLE checked (n int); GRANT ALL ON checked TO alice;
         CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM set_config('role', 'none', false);
             PERFORM pg_background_report_progress(1, (SELECT words FROM hidden));
             RAISE NOTICE '%', (SELECT words FROM hidden);
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER leave AFTER INSERT ON checked DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION leave();
         SET ROLE alice",
    );
    let mut alice = cluster.session_as("alice");
    let reads = "RESET ROLE; RAISE NOTICE '%', (SELECT words FROM hidden);
        PERFORM pg_background_report_progress(1, (SELECT words FROM hidden));";
    for (how, sql, end) in [
        (
            "between two statements",
            "RESET ROLE; SELECT words FROM hidden".to_owned(),
            "stopped",
        ),
        ("in its last statement", format!("DO $$BEGIN {reads} END$$"), "stopped"),
        (
            "in a statement that fails",
            format!("DO $$BEGIN {reads} RAISE '%', (SELECT words FROM hidden); END$$"),
            "error",
        ),
        (
            "while it dies",
            format!(
                "DO $$BEGIN {reads} RAISE NOTICE '%', repeat('x', 100000); PERFORM pg_terminate_backend(pg_backend_pid()); END$$"
            ),
            "error",
        ),
        ("at its commit", "INSERT INTO checked VALUES (1)".to_owned(), "stopped"),
        (
            "at a commit within",
            "BEGIN; INSERT INTO checked VALUES (1); COMMIT; SELECT 1".to_owned(),
            "stopped",
        ),
    ] {
        let job = superuser.launch(&sql);
        superuser.exec("RESET ROLE");
        superuser.wait(job);
        assert_eq!(superuser.state(job), end, "{how}");
        let result = format!("SELECT * FROM pg_background_result({job}) AS (words text)");
        let mut calls = ["wait", "get_progress", "error_info", "result_info", "full_sql"]
            .map(|call| format!("SELECT pg_background_{call}({job})"))
            .to_vec();
        calls.push(result.clone());
        for call in calls {
            let error = alice.error(&call);
            assert_eq!(error.sqlstate, "42501", "{how}: {call}");
            assert!(!format!("{error:?}").contains(SAID), "{how}: {call}: {error:?}");
        }
        assert!(alice.take_notices().is_empty(), "{how}");
        let shown = alice.rows(&format!(
            "SELECT * FROM pg_background_jobs WHERE cookie = {}",
            job.cookie
        ));
        assert!(!format!("{shown:?}").contains(SAID), "{how}: {shown:?}");
        // A session that could have launched the job in this way reads it.
        superuser.exec("SET ROLE alice");
        let answer = match superuser.try_rows(&result) {
            Ok(rows) => format!("{rows:?}"),
            Err(error) => format!("{error:?}"),
        };
        let said = format!("{answer} {:?}", superuser.take_notices());
        assert!(said.contains(SAID), "{how}: {said}");
    }
}

/// The same while the job runs, and a session reads at the same time.
#[test]
fn what_a_job_says_when_it_has_left_its_role() {
    const SAID: &str = "not for alice";
    let (cluster, mut superuser) = start();
    let mut gate = cluster.session();
    superuser.exec("CREATE TABLE hidden AS SELECT 'not for alice'::text AS words; SET ROLE alice");
    let says = "RAISE NOTICE '%', (SELECT words FROM hidden);
        PERFORM pg_background_report_progress(1, (SELECT words FROM hidden));
        RAISE NOTICE '%', repeat('x', 100000);";
    for sql in [
        format!("RESET ROLE; DO $$BEGIN {says} PERFORM pg_advisory_xact_lock(1); END$$"),
        format!("DO $$BEGIN RESET ROLE; {says} PERFORM pg_advisory_xact_lock(1); END$$"),
        format!("DO $$BEGIN RESET ROLE; {says} SET ROLE alice; PERFORM pg_advisory_xact_lock(1); END$$"),
    ] {
        gate.exec("SELECT pg_advisory_lock(1)");
        let job = superuser.launch(&sql);
        let reading = cluster
            .session_as("alice")
            .start(&format!("SELECT * FROM pg_background_result({job}) AS (words text)"));
        gate.wait_blocked(job.pid);
        let mut alice = cluster.session_as("alice");
        assert_eq!(
            alice
                .error(&format!("SELECT pg_background_get_progress({job})"))
                .sqlstate,
            "42501",
            "{sql}"
        );
        gate.exec("SELECT pg_advisory_unlock(1)");
        let (mut reader, read) = reading.join();
        assert_eq!(read.unwrap_err().sqlstate, "42501", "{sql}");
        let heard = format!("{:?}", reader.take_notices());
        assert!(!heard.contains(SAID), "{sql}: {heard}");
    }
}

#[test]
fn hostile_search_path() {
    let (_cluster, mut superuser) = start();
    superuser.exec(
        "CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO mallory; SET ROLE mallory;
         CREATE FUNCTION evil.count(anyelement) RETURNS bigint LANGUAGE sql AS $$ INSERT INTO public.who VALUES ('count', ''); SELECT 1::bigint $$;
         CREATE FUNCTION evil.format(text, text) RETURNS text LANGUAGE sql AS $$ INSERT INTO public.who VALUES ('format', ''); SELECT $1 $$;
         CREATE FUNCTION evil.quote_ident(text) RETURNS text LANGUAGE sql AS $$ INSERT INTO public.who VALUES ('quote_ident', ''); SELECT $1 $$;
         CREATE FUNCTION evil.eq(text, text) RETURNS bool LANGUAGE sql AS $$ INSERT INTO public.who VALUES ('=', ''); SELECT true $$;
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
         CREATE OPERATOR evil.~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
         CREATE TABLE evil.pg_proc (n int); CREATE TABLE evil.pg_depend (n int); CREATE TABLE evil.pg_stat_activity (n int);
         CREATE TABLE evil.pg_roles (n int); CREATE TABLE evil.pg_extension (n int);
         RESET ROLE; SET search_path = evil, pg_catalog, public",
    );
    let job = superuser.handle("SELECT pid, cookie FROM pg_background_launch('SELECT 1', 0, 'label')");
    superuser.exec(&format!(
        "SELECT pg_background_wait({job}); SELECT * FROM pg_background_list; SELECT * FROM pg_background_activity;
         SELECT pg_background_cancel_by_label('l%'); SELECT pg_background_full_sql({job}); SELECT pg_background_outcome({job});
         SELECT pg_background_purge()"
    ));
    assert_eq!(
        superuser
            .text("SELECT pg_background_grant_privileges('bob', true)")
            .as_deref(),
        Some("t")
    );
    assert_eq!(
        superuser
            .text("SELECT pg_background_revoke_privileges('bob', true)")
            .as_deref(),
        Some("t")
    );
    superuser.exec("RESET search_path");
    let called = superuser.rows("SELECT DISTINCT who FROM who");
    assert!(called.is_empty(), "hostile objects were used: {called:?}");
}
