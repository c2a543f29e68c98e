//! Jobs in other databases of the cluster.

use harness::{Cluster, KEPT, Session, quoted};

/// A cluster with databases of three encodings and a role that may use the extension.
fn start() -> (Cluster, Session) {
    start_with(&[])
}

fn start_with(settings: &[&str]) -> (Cluster, Session) {
    let cluster = Cluster::start(settings);
    let mut session = cluster.session();
    for create in [
        "CREATE DATABASE other",
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
        "CREATE ROLE alice LOGIN",
        "GRANT pgbackground_role TO alice",
    ] {
        session.exec(create);
    }
    (cluster, session)
}

/// Returns the first row of a query that runs in `database`.
#[track_caller]
fn row_of(session: &mut Session, sql: &str, params: &str, database: &str, columns: &str) -> Vec<Option<String>> {
    session
        .rows(&format!(
            "SELECT * FROM pg_background_run_query_params({}, {params}, col_def => 'x', database => '{database}') AS ({columns})",
            quoted(sql)
        ))
        .remove(0)
}

#[track_caller]
fn first(session: &mut Session, sql: &str, params: &str, database: &str, kind: &str) -> String {
    row_of(session, sql, params, database, &format!("v {kind}"))
        .remove(0)
        .expect("a value")
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Type modifiers of the column definition list apply to rows of another database too, even to converted ones.
#[test]
fn modifiers_hold_there() {
    let (_cluster, mut session) = start();
    for database in ["other", "latin"] {
        let row = row_of(
            &mut session,
            "SELECT 12.345, 'größe'::varchar, 'ö'::bpchar, ARRAY['é'::varchar], now()",
            "ROW()",
            database,
            "n numeric(4,1), v varchar(5), c char(3), a varchar(1)[], t timestamptz(0)",
        );
        assert_eq!(row[..4], [some("12.3"), some("größe"), some("ö  "), some("{é}")]);
        let error = session.error(&format!(
            "SELECT * FROM pg_background_run_query_params($$SELECT 'größer'::varchar$$, ROW(), col_def => 'x', database => '{database}') AS (v varchar(5))"
        ));
        assert_eq!(error.sqlstate, "22001", "{error:?}");
        session.wait_until("NOT EXISTS (SELECT FROM pg_background_list)");
    }
}

#[test]
fn all_four_functions_work_there() {
    let (cluster, mut session) = start();
    // The extension does not exist there, and need not.
    assert_eq!(
        first(&mut session, "SELECT current_database()", "ROW()", "other", "name"),
        "other"
    );
    let there = "database => 'other'";
    session.exec(&format!(
        "SELECT pg_background_run_params('CREATE TABLE t (n int, at timestamptz)', ROW(), {there})"
    ));
    session.exec(&format!(
        "SELECT pg_background_run_params('INSERT INTO t VALUES ($1, $2)', ROW(1, now()), {there})"
    ));
    let job = session.handle(&format!(
        "SELECT * FROM pg_background_submit_params('INSERT INTO t VALUES ($1, $2)', ROW(2, now()), {there})"
    ));
    session.wait(job);
    let job = session.handle(&format!(
        "SELECT * FROM pg_background_launch_params('INSERT INTO t VALUES ($1, $2) RETURNING n', ROW(3, now()), label => 'x', {there})"
    ));
    assert_eq!(
        session.rows(&format!("SELECT * FROM pg_background_result({job}) AS (n int)")),
        [[some("3")]]
    );
    assert!(session.holds(&format!(
        "state = 'stopped' FROM pg_background_run_params('VACUUM t', ROW(), {there})"
    )));
    let mut other = cluster.session_in("other", "postgres");
    assert_eq!(
        other.value::<String>("SELECT array_agg(n ORDER BY n)::text FROM t"),
        "{1,2,3}"
    );
    // The table is not visible here, and an error raised there arrives with all its parts.
    assert_eq!(session.error("SELECT * FROM t").sqlstate, "42P01");
    other.exec("ALTER TABLE t ADD CONSTRAINT few CHECK (n < 10)");
    let error = session.error(&format!(
        "SELECT * FROM pg_background_run_query_params('INSERT INTO t VALUES ($1, now())', ROW(10), {there}) AS (x text)"
    ));
    assert_eq!(error.sqlstate, "23514");
    assert!(
        error.message.contains("\"few\"") && error.context.contains("background worker"),
        "{error:?}"
    );
    // The same as NULL.
    assert!(
        session
            .holds("state = 'stopped' FROM pg_background_run_params('SELECT 1; SELECT 2', NULL, database => 'other')")
    );
}

#[test]
fn settings_are_those_of_a_new_connection_there() {
    let (cluster, mut session) = start();
    session.exec("ALTER DATABASE other SET search_path = there, public");
    session.exec("ALTER DATABASE other SET work_mem = '5MB'; ALTER DATABASE other SET statement_timeout = '50s'");
    session.exec(
        "ALTER ROLE alice SET lock_timeout = '7s'; ALTER ROLE alice IN DATABASE other SET extra_float_digits = 0",
    );
    session.exec("ALTER ROLE alice IN DATABASE postgres SET work_mem = '9MB'");
    let show = "SELECT current_setting('search_path'), current_setting('work_mem'), current_setting('statement_timeout'),
                       current_setting('lock_timeout'), current_setting('extra_float_digits'), current_setting('my.own', true),
                       current_setting('DateStyle'), current_setting('application_name') ~ '^pg_background:\\d+$'";
    let columns = "a text, b text, c text, d text, e text, f text, g text, h bool";
    let mut alice = cluster.session_as("alice");
    // Settings of alice's session do not apply there...
    alice.exec(
        "SET search_path = here, public; SET my.own = 'secret'; SET DateStyle = 'German'; SET extra_float_digits = 3",
    );
    let row = row_of(&mut alice, show, "NULL", "other", columns);
    let wanted = [
        some("there, public"),
        some("5MB"),
        some("50s"),
        some("7s"),
        some("0"),
        None,
        some("ISO, MDY"),
        some("t"),
    ];
    assert_eq!(row, wanted);
    // ... except for limits that she has set.
    alice.exec("SET work_mem = '1MB'; SET statement_timeout = '1234ms'; SET lock_timeout = 0");
    let row = row_of(&mut alice, show, "NULL", "other", columns);
    assert_eq!(row[1..4], [some("1MB"), some("1234ms"), some("0")]);
    assert_eq!(row[0], wanted[0]);
    // The limit ends the job's statement, not the one of this session, which waits without a limit.
    alice.exec("SET statement_timeout = '300ms'");
    let job =
        alice.handle("SELECT * FROM pg_background_launch_params('SELECT pg_sleep(60)', NULL, database => 'other')");
    alice.exec("RESET statement_timeout");
    alice.wait(job);
    assert!(alice.holds(&format!(
        "sqlstate = '57014' AND error_message ~ 'statement timeout' FROM pg_background_outcome({job})"
    )));
}

#[test]
fn a_worker_there_serves_one_job_after_another() {
    let (cluster, mut session) = start_with(&[KEPT]);
    session.exec("CREATE ROLE team; GRANT team TO alice; GRANT pgbackground_role TO team");
    let show = "SELECT current_user, current_setting('work_mem'), current_setting('search_path'), current_setting('role'), pg_backend_pid()";
    let columns = "a name, b text, c text, d text, e int";
    let mut alice = cluster.session_as("alice");
    let mut row = || row_of(&mut alice, show, "ROW()", "other", columns);
    let first = row();
    assert_eq!(first[..4], ["alice", "4MB", "\"$user\", public", "none"].map(some));
    assert_eq!(row(), first, "the same process, in the same state");
    // Each job has its own limits and role.
    let settings = [
        ("SET work_mem = '1MB'", ["alice", "1MB", "none"]),
        ("SET ROLE team", ["team", "1MB", "team"]),
        ("RESET work_mem", ["team", "4MB", "team"]),
        ("SET work_mem = '2MB'; RESET ROLE", ["alice", "2MB", "none"]),
        (
            "SET search_path = pg_catalog, public; RESET work_mem",
            ["alice", "4MB", "none"],
        ),
    ];
    for (set, wanted) in settings {
        alice.exec(set);
        let row = row_of(&mut alice, show, "ROW()", "other", columns);
        assert_eq!([&row[0], &row[1], &row[3]], wanted.map(some).each_ref(), "{set}");
        assert_eq!(row[2], first[2], "{set}");
        assert_eq!(row[4], first[4], "{set}");
    }
    // A setting that a job sets does not outlive the job.
    alice.exec("SELECT pg_background_run_params('SET work_mem = ''9MB''; SET search_path = nowhere; SET ROLE team', NULL, database => 'other')");
    assert_eq!(row_of(&mut alice, show, "ROW()", "other", columns)[..4], first[..4]);
    // A job gets what a new connection would get now.
    session.exec("ALTER DATABASE other SET work_mem = '6MB'");
    assert_eq!(row_of(&mut alice, show, "ROW()", "other", columns)[1], some("6MB"));
    session.exec("ALTER ROLE alice IN DATABASE other SET work_mem = '7MB'");
    assert_eq!(row_of(&mut alice, show, "ROW()", "other", columns)[1], some("7MB"));
    // A session of that database has its own settings, and so have its jobs, whatever jobs ran there before.
    let mut other = cluster.session_in("other", "postgres");
    other.exec("CREATE EXTENSION pg_background");
    let mut inside = cluster.session_in("other", "alice");
    inside.exec("SET my.own = 'x'; SET search_path = inside, public");
    for _ in 0..2 {
        assert_eq!(
            inside.rows(
                "SELECT * FROM pg_background_run_query('SELECT current_setting(''my.own''), current_setting(''search_path'')',
                     col_def => 'x') AS (a text, b text)"
            ),
            [["x", "inside, public"].map(some)]
        );
        let row = row_of(
            &mut alice,
            "SELECT current_setting('my.own', true), current_setting('search_path')",
            "ROW()",
            "other",
            "a text, b text",
        );
        assert_eq!(row, [None, first[2].clone()]);
    }
    session.exec("REVOKE CONNECT ON DATABASE other FROM PUBLIC");
    assert_eq!(
        alice
            .error("SELECT pg_background_run_params('SELECT 1', NULL, database => 'other')")
            .sqlstate,
        "42501"
    );
    // Idle workers of that database block nothing.
    inside.exec("SELECT 1");
    drop(inside);
    drop(other);
    session.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'other' AND backend_type = 'client backend')",
    );
    session.exec("DROP DATABASE other");
}

#[test]
fn the_role_is_the_same() {
    let (cluster, mut session) = start();
    session.exec("CREATE ROLE team; GRANT team TO alice; GRANT pgbackground_role TO team; CREATE ROLE owner");
    let who = "SELECT current_user, session_user, current_setting('role')";
    let columns = "a name, b name, c text";
    let mut alice = cluster.session_as("alice");
    assert_eq!(
        row_of(&mut alice, who, "NULL", "other", columns),
        ["alice", "alice", "none"].map(some)
    );
    alice.exec("SET ROLE team");
    assert_eq!(
        row_of(&mut alice, who, "NULL", "other", columns),
        ["team", "alice", "team"].map(some)
    );
    alice.exec("RESET ROLE");
    // A SECURITY DEFINER function's job acts as the owner, and cannot return to the caller's role.
    session.exec(
        "GRANT pgbackground_role TO owner;
         CREATE FUNCTION as_owner(job text) RETURNS TABLE (a name) LANGUAGE sql SECURITY DEFINER
         AS $$ SELECT * FROM pg_background_run_query_params(job, NULL, col_def => 'x', database => 'other') AS (a name) $$;
         ALTER FUNCTION as_owner OWNER TO owner",
    );
    assert_eq!(alice.value::<String>("SELECT as_owner('SELECT current_user')"), "owner");
    assert_eq!(alice.error("SELECT as_owner('RESET ROLE')").sqlstate, "42501");
}

#[test]
fn who_may_not_connect_has_no_job_there() {
    let (cluster, mut session) = start();
    session.exec("CREATE ROLE team; GRANT team TO alice; GRANT pgbackground_role TO team");
    let mut alice = cluster.session_as("alice");
    let job =
        |database: &str| format!("SELECT pg_background_launch_params('SELECT 1', NULL, database => '{database}')");
    assert_eq!(alice.error(&job("none")).sqlstate, "3D000");
    assert_eq!(alice.error(&job("")).sqlstate, "3D000");
    assert_eq!(alice.error(&job("template0")).sqlstate, "55000");
    session.exec("REVOKE CONNECT ON DATABASE other FROM PUBLIC");
    let error = alice.error(&job("other"));
    assert_eq!(error.sqlstate, "42501");
    assert_eq!(error.message, "permission denied for database \"other\"");
    // Both the role that connects and the role that acts need the privilege.
    session.exec("GRANT CONNECT ON DATABASE other TO alice");
    alice.exec(&job("other"));
    session.exec("GRANT CONNECT ON DATABASE other TO team; REVOKE CONNECT ON DATABASE other FROM alice");
    // From version 16 on, the grant decides whether a membership inherits.
    session.exec("ALTER ROLE alice NOINHERIT; REVOKE team FROM alice; GRANT team TO alice");
    alice.exec("SET ROLE team");
    assert_eq!(alice.error(&job("other")).sqlstate, "42501");
    session.exec("ALTER DATABASE other ALLOW_CONNECTIONS false");
    assert_eq!(alice.error(&job("other")).sqlstate, "55000");
    assert_eq!(session.error(&job("other")).sqlstate, "55000");
    session.exec("DROP DATABASE other");
    assert_eq!(session.error(&job("other")).sqlstate, "3D000");
    assert_eq!(session.counters().launched, 0);
}

#[test]
fn a_database_that_goes_meanwhile_is_an_error_of_the_job() {
    let (cluster, mut session) = start();
    // The worker connects after the launch has checked the database. If the database has been dropped or closed by then, the job fails and
    // the server continues.
    let mut admin = cluster.session();
    for n in 0..20 {
        admin.exec("CREATE DATABASE brief");
        let job = session.handle("SELECT * FROM pg_background_launch_params('SELECT 1', NULL, database => 'brief')");
        if n % 2 == 0 {
            admin.exec("ALTER DATABASE brief ALLOW_CONNECTIONS false");
        }
        admin.exec("DROP DATABASE brief WITH (FORCE)");
        session.wait(job);
        let state = session.state(job);
        assert!(state == "stopped" || state == "error", "{state}");
        session.exec(&format!("SELECT pg_background_detach({job})"));
    }
    assert_eq!(session.counters().launched, 20);
}

/// A role that may no longer connect when the worker does: the job's error is PostgreSQL's own. The worker waits for a lock on what it looks
/// up, while the role loses its right.
#[test]
fn a_refused_connection_is_the_jobs_error() {
    let (cluster, mut session) = start_with(&["pg_background.worker_idle_timeout = 0"]);
    let mut alice = cluster.session_as("alice");
    let launch = |database: &str| {
        format!("SELECT * FROM pg_background_launch_params('SELECT 1', NULL, database => '{database}')")
    };
    for database in ["postgres", "other"] {
        // The session looks up what it needs to launch.
        let job = alice.handle(&launch(database));
        alice.wait(job);
        assert_eq!(alice.state(job), "stopped");
    }
    for (database, change, sqlstate, message) in [
        (
            "other",
            "ALTER DATABASE other RENAME TO renamed; ALTER DATABASE renamed RENAME TO other;
             REVOKE CONNECT ON DATABASE other FROM PUBLIC",
            "42501",
            "permission denied for database \"other\"",
        ),
        (
            "postgres",
            "LOCK TABLE pg_authid; ALTER ROLE alice NOLOGIN",
            "28000",
            "role \"alice\" is not permitted to log in",
        ),
    ] {
        session.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background')");
        session.exec(&format!("BEGIN; {change}"));
        let job = alice.handle(&launch(database));
        session.wait_until(&format!(
            "EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = {})",
            job.pid
        ));
        session.exec("COMMIT");
        alice.wait(job);
        assert_eq!(
            (alice.state(job), alice.sqlstate(job)),
            ("error".to_owned(), sqlstate.to_owned())
        );
        let error = alice.error(&format!("SELECT * FROM pg_background_result({job}) AS (n int)"));
        assert_eq!((&*error.sqlstate, &*error.message), (sqlstate, message), "{error:?}");
    }
    let counters = alice.counters();
    assert_eq!((counters.completed, counters.failed), (2, 2));
}

/// A reader in a database that does not know a type within a record is refused, and leaves the result to one that does.
#[test]
fn a_refused_record_is_left_to_another_reader() {
    let (cluster, mut session) = start();
    session.exec(
        "CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (n int, m mood);
         CREATE FUNCTION pair_as_record() RETURNS record LANGUAGE plpgsql
         AS $$ DECLARE p pair := ROW(7, 'sad'); BEGIN RETURN p; END $$",
    );
    let mut other = cluster.session_in("other", "postgres");
    other.exec("CREATE EXTENSION pg_background");
    for (value, kind, expected) in [
        ("ROW(1, 'sad'::mood)", "record", "(1,sad)"),
        ("ARRAY[ROW('sad'::mood)]", "record[]", "{(sad)}"),
        ("pair_as_record()", "record", "(7,sad)"),
        ("ROW(pair_as_record())", "record", "(\"(7,sad)\")"),
    ] {
        let job = session.launch(&format!("SELECT {value}"));
        session.wait(job);
        let read = format!("SELECT v::text FROM pg_background_result({job}) AS (v {kind})");
        for _ in 0..2 {
            let error = other.error(&read);
            assert_eq!(error.sqlstate, "0A000", "{value}: {error:?}");
            assert!(error.message.contains("a record"), "{value}: {error:?}");
        }
        assert_eq!(session.value::<String>(&read), expected, "{value}");
    }
}

#[test]
fn local_types_are_refused() {
    let (cluster, mut session) = start();
    let types = "CREATE TYPE mood AS ENUM ('sad'); CREATE DOMAIN small AS int; CREATE TYPE pair AS (n int, m mood);
                 CREATE TYPE span AS RANGE (subtype = float8)";
    session.exec(types);
    let mut other = cluster.session_in("other", "postgres");
    other.exec(types);
    other.exec("CREATE TABLE t (n int, m mood); INSERT INTO t VALUES (1, 'sad')");
    let cases = [
        "'sad'::mood",
        "1::small",
        "ROW(1, 'sad')::pair",
        "ARRAY['sad']::mood[]",
        "'[1,2]'::span",
    ];
    for value in cases {
        let error = session.error(&format!(
            "SELECT pg_background_run_params('SELECT 1', ROW(1, {value}), database => 'other')"
        ));
        assert_eq!(error.sqlstate, "0A000", "{value}: {error:?}");
        assert!(error.message.contains("parameter $2 has type"), "{value}: {error:?}");
        // Within a record.
        let error = session.error(&format!(
            "SELECT pg_background_run_params('SELECT 1', ROW(1, ROW(2, {value})), database => 'other')"
        ));
        assert_eq!(error.sqlstate, "0A000", "{value}: {error:?}");
        assert!(
            error.message.contains("column \"f2\" of a record has type"),
            "{value}: {error:?}"
        );
        // In a result.
        let error = session.error(&format!(
            "SELECT * FROM pg_background_run_query_params({}, NULL, col_def => 'x', database => 'other') AS (a int, b int)",
            quoted(&format!("SELECT 1 AS one, {value} AS two"))
        ));
        assert_eq!(error.sqlstate, "0A000", "{value}: {error:?}");
        assert!(error.message.contains("column \"two\" has type"), "{value}: {error:?}");
        let error = session.error(&format!(
            "SELECT * FROM pg_background_run_query_params({}, NULL, col_def => 'x', database => 'other') AS (a record)",
            quoted(&format!("SELECT ROW(1, {value})"))
        ));
        assert_eq!(error.sqlstate, "0A000", "{value}: {error:?}");
    }
    // A table row in a column of type record.
    let error = session.error(
        "SELECT * FROM pg_background_run_query_params('SELECT t::record FROM t', NULL,
             col_def => 'x', database => 'other') AS (a record)",
    );
    assert_eq!(error.sqlstate, "0A000", "{error:?}");
    // The job fails before it has done anything. A job whose rows are discarded does not fail because of their types.
    let returning = "INSERT INTO t VALUES (2, 'sad') RETURNING m";
    let job = session.handle(&format!(
        "SELECT * FROM pg_background_launch_params({}, NULL, database => 'other')",
        quoted(returning)
    ));
    session.wait(job);
    assert_eq!(session.sqlstate(job), "0A000");
    assert_eq!(other.value::<i32>("SELECT count(*) FROM t"), 1);
    session.exec(&format!(
        "SELECT pg_background_run_params({}, NULL, database => 'other')",
        quoted(returning)
    ));
    assert_eq!(other.value::<i32>("SELECT count(*) FROM t"), 2);
    // The row type that only carries the parameters may be a user-defined one.
    session.exec("CREATE TABLE carrier (n int, t text)");
    assert_eq!(
        first(
            &mut session,
            "SELECT $1 || $2",
            "(SELECT ROW(1, 'x')::carrier)",
            "other",
            "text"
        ),
        "1x"
    );
    // Built-in types are allowed, and so are types made of them.
    assert_eq!(
        row_of(
            &mut session,
            "SELECT $1, $2, $3, $4",
            "ROW(ARRAY[1, 2], ROW(1, ROW('in'::text)), '[1,3)'::int4range, '{\"a\": 1}'::jsonb)",
            "other",
            "a int[], b record, c int4range, d jsonb"
        ),
        ["{1,2}", "(1,\"(in)\")", "[1,3)", "{\"a\": 1}"].map(some)
    );
}

#[test]
fn a_job_launches_others_while_its_own_rows_come() {
    let (cluster, mut session) = start();
    session.exec("CREATE TYPE mood AS ENUM ('sad')");
    // Rows of its own database are allowed, whatever jobs ran in other databases before.
    let rows = session.rows(
        "SELECT * FROM pg_background_run_query_params('SELECT state, ROW(1, ''sad''::mood)
             FROM pg_background_run_params(''SELECT $1'', ROW(ROW(1)), database => ''other'')', NULL, col_def => 'x') AS (s text, r record)",
    );
    assert_eq!(rows, [[some("stopped"), some("(1,sad)")]]);
    // And in the other order.
    let mut other = cluster.session_in("other", "postgres");
    other.exec("CREATE TYPE mood AS ENUM ('sad'); CREATE EXTENSION pg_background");
    let error = session.error(
        "SELECT * FROM pg_background_run_query_params('SELECT state, ROW(1, ''sad''::mood)
             FROM pg_background_run_params(''SELECT $1'', ROW(ROW(1)))', NULL, col_def => 'x', database => 'other') AS (s text, r record)",
    );
    assert_eq!(error.sqlstate, "0A000", "{error:?}");
}

/// A value of each type that contains text, with characters outside of ASCII that both LATIN1 and UTF8 have.
const TEXTS: [(&str, &str); 14] = [
    ("'Ærø'::text", "text"),
    ("'Ærø'::varchar", "varchar"),
    ("'Ærø  '::bpchar", "bpchar"),
    ("'Ærø'::name", "name"),
    ("'{\"ø\": [\"Æ\"]}'::json", "json"),
    ("'{\"ø\": [\"Æ\", 1.50, null]}'::jsonb", "jsonb"),
    ("'$.\"ø\"'::jsonpath", "jsonpath"),
    ("'Ærø'::refcursor", "refcursor"),
    ("ARRAY['Æ', NULL, 'rø']", "text[]"),
    ("ARRAY[['Æ'], ['ø']]::name[]", "name[]"),
    ("ARRAY['{\"ø\": 1}'::jsonb]", "jsonb[]"),
    ("ROW(1, 'ø'::text, ARRAY['Æ'])", "record"),
    ("ARRAY[ROW('ø'::text, ROW('Æ'::text))]", "record[]"),
    (
        "'Ærø'::information_schema.character_data",
        "information_schema.character_data",
    ),
];

#[test]
fn texts_are_converted_both_ways() {
    let (cluster, mut session) = start();
    for database in ["latin", "other"] {
        for (value, kind) in TEXTS {
            let here: String = session.value(&format!("SELECT {value}"));
            let back = first(&mut session, "SELECT $1", &format!("ROW({value})"), database, kind);
            assert_eq!(back, here, "{value} to {database} and back");
            // As a literal in the string, and computed there.
            let made = first(&mut session, &format!("SELECT {value}"), "NULL", database, kind);
            assert_eq!(made, here, "{value} made in {database}");
        }
    }
    // The values are right in the other database, not only after the conversion back.
    let mut latin = cluster.session_in("latin", "postgres");
    latin.exec("CREATE TABLE t (t text, j jsonb, a text[])");
    session.exec(
        "SELECT pg_background_run_params('INSERT INTO t VALUES ($1, $2, $3)',
             ROW('Ærø', '{\"ø\": \"Æ\"}'::jsonb, ARRAY['ø']), database => 'latin')",
    );
    assert_eq!(latin.value::<String>("SELECT encode(t::bytea, 'hex') FROM t"), "c672f8");
    assert!(latin.holds("j ->> 'ø' = 'Æ' AND a = ARRAY['ø'] AND octet_length(j ->> 'ø') = 1 FROM t"));
    // From the other database to this one.
    latin.exec("CREATE EXTENSION pg_background");
    for (value, kind) in TEXTS {
        let here: String = latin.value(&format!("SELECT {value}"));
        let back = first(&mut latin, "SELECT $1", &format!("ROW({value})"), "postgres", kind);
        assert_eq!(back, here, "{value} from LATIN1 to UTF8 and back");
    }
    // A name can become longer than its size, and is cut at a character boundary.
    let name = first(
        &mut latin,
        "SELECT octet_length($1::text)",
        "ROW(repeat('ø', 63)::name)",
        "postgres",
        "int",
    );
    assert_eq!(name, "62");
    // Columns of a system catalog's row.
    latin.exec("CREATE TABLE \"tøble\" (n int)");
    assert_eq!(
        first(
            &mut session,
            "SELECT c FROM pg_class c WHERE relname = 'tøble'",
            "NULL",
            "latin",
            "pg_class"
        )
        .split(',')
        .nth(1),
        Some("tøble")
    );
}

#[test]
fn what_cannot_be_converted_is_an_error() {
    let (cluster, mut session) = start();
    let run = |value: &str, database: &str| {
        format!(
            "SELECT state, sqlstate FROM pg_background_run_params('SELECT $1', ROW({value}), database => '{database}')"
        )
    };
    // LATIN1 has no Chinese characters: in a parameter, in the string, in a result.
    assert_eq!(
        session.rows(&run("'中'::text", "latin")),
        [["error", "22P05"].map(some)]
    );
    assert_eq!(
        session.rows(&run("ARRAY['中']", "latin")),
        [["error", "22P05"].map(some)]
    );
    assert!(
        session.holds("sqlstate = '22P05' FROM pg_background_run_params('SELECT ''中''', NULL, database => 'latin')")
    );
    let mut latin = cluster.session_in("latin", "postgres");
    latin.exec("CREATE EXTENSION pg_background");
    let error = latin.error(
        "SELECT * FROM pg_background_run_query_params('SELECT chr(20013)', NULL, col_def => 'x', database => 'postgres') AS (t text)",
    );
    assert_eq!(error.sqlstate, "22P05");
    // Types whose binary form cannot be converted.
    for (value, name) in [
        ("'a:1'::tsvector", "tsvector"),
        ("'a & b'::tsquery", "tsquery"),
        ("ARRAY['a'::tsvector]", "tsvector[]"),
    ] {
        let error = session.error(&run(value, "latin"));
        assert_eq!(error.sqlstate, "0A000", "{value}");
        assert!(
            error.message.contains("parameter $1") && error.message.contains(name) && error.message.contains("LATIN1"),
            "{error:?}"
        );
        let error = session.error(&format!(
            "SELECT * FROM pg_background_run_query_params({}, NULL, col_def => 'x', database => 'latin') AS (v {name})",
            quoted(&format!("SELECT {value} AS sealed"))
        ));
        assert_eq!(error.sqlstate, "0A000", "{value}");
        assert!(error.message.contains("column \"sealed\""), "{error:?}");
        assert_eq!(session.rows(&run(value, "other")), [[some("stopped"), None]]);
    }
}

#[test]
fn sql_ascii_takes_all_and_gives_what_is_valid() {
    let (cluster, mut session) = start();
    for (value, kind) in TEXTS {
        let here: String = session.value(&format!("SELECT {value}"));
        let back = first(&mut session, "SELECT $1", &format!("ROW({value})"), "ascii", kind);
        assert_eq!(back, here, "{value} to SQL_ASCII and back");
    }
    let error = session.error(
        "SELECT * FROM pg_background_run_query_params('SELECT convert_from(''\\xc6'', ''SQL_ASCII'')', NULL, col_def => 'x',
             database => 'ascii') AS (t text)",
    );
    assert_eq!(error.sqlstate, "22021", "{error:?}");
    // The same in the other direction.
    let mut ascii = cluster.session_in("ascii", "postgres");
    ascii.exec("CREATE EXTENSION pg_background");
    assert_eq!(
        ascii.rows("SELECT state, sqlstate FROM pg_background_run_params('SELECT $1', ROW(convert_from('\\xc6', 'SQL_ASCII')), database => 'postgres')"),
        [["error", "22021"].map(some)]
    );
    assert_eq!(
        ascii.value::<String>(
            "SELECT state FROM pg_background_run_params('SELECT $1', ROW('ø'::text), database => 'postgres')"
        ),
        "stopped"
    );
}

#[test]
fn messages_and_errors_are_readable_here() {
    let (cluster, mut session) = start();
    session.take_notices();
    session.exec(
        "SELECT * FROM pg_background_run_query_params('DO $x$ BEGIN RAISE NOTICE ''Ærø''; END $x$', NULL, database => 'latin') AS (x text)",
    );
    let notices: Vec<_> = session.take_notices().iter().map(|n| n.message().to_owned()).collect();
    assert_eq!(notices, ["Ærø"]);
    let job = session.handle(
        "SELECT * FROM pg_background_launch_params('DO $x$ BEGIN RAISE ''Ærø'' USING DETAIL = ''rø''; END $x$', NULL, label => 'lø', database => 'latin')",
    );
    session.wait(job);
    assert!(session.holds(&format!(
        "message = 'Ærø' AND detail = 'rø' AND position('RAISE' IN context) > 0 FROM pg_background_error_info({job})"
    )));
    assert!(session.holds(&format!(
        "error_message = 'Ærø' AND label = 'lø' FROM pg_background_outcome({job})"
    )));
    assert!(session.holds("last_error = 'Ærø' AND sql_preview ~ 'Ærø' FROM pg_background_list"));
    assert!(session.holds(&format!("pg_background_full_sql({job}) ~ 'Ærø'")));
    let error = session.error(&format!("SELECT * FROM pg_background_result({job}) AS (t text)"));
    assert_eq!((error.message.as_str(), error.detail.as_str()), ("Ærø", "rø"));
    // A message is passed on even if this database lacks characters for it.
    let mut latin = cluster.session_in("latin", "postgres");
    latin.exec("CREATE EXTENSION pg_background");
    let error = latin.error(
        "SELECT * FROM pg_background_run_query_params('DO $x$ BEGIN RAISE ''a%b%c'', chr(20013), chr(248); END $x$', NULL, database => 'postgres') AS (x text)",
    );
    assert_eq!((error.sqlstate.as_str(), error.message.as_str()), ("P0001", "a?bøc"));
}
