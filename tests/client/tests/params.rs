//! Parameters that a test of one session cannot cover: large ones, and the entries in the server log.

use harness::Cluster;

#[test]
fn a_hundred_megabytes() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    // A value that can be compressed, and one that is stored out of line in a table.
    session.exec(
        "CREATE TABLE large (t text);
         ALTER TABLE large ALTER t SET STORAGE EXTERNAL;
         INSERT INTO large SELECT repeat(md5('large'), 100 * 1024 * 1024 / 32)",
    );
    let row = session.rows(
        "SELECT r.* FROM large, pg_background_run_query_params('SELECT length($1), md5($1), length($2), $3',
             ROW(t, repeat('x', 100 * 1024 * 1024), 'end'), col_def => 'x') AS r (a int, b text, c int, d text)",
    );
    let sum: String = session.value("SELECT md5(t) FROM large");
    let row: Vec<_> = row[0].iter().map(|field| field.as_deref().unwrap()).collect();
    assert_eq!(row, ["104857600", &sum, "104857600", "end"]);
    // And back, as a parameter of a job that a job launches.
    let same = session.holds(
        "bool_and(r.t = large.t) FROM large,
             pg_background_run_query_params('SELECT $1', ROW(t), col_def => 'x') AS r (t text)",
    );
    assert!(same);
}

#[test]
fn a_row_trigger_writes_what_a_rollback_leaves() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE account (id int PRIMARY KEY, owner text, balance numeric);
         CREATE TABLE audit (who text, what text, old jsonb, new jsonb);
         INSERT INTO account VALUES (1, 'O''Hara', 10);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM pg_background_run_params('INSERT INTO audit VALUES ($1, $2, $3, $4)',
                 ROW(current_user, TG_OP, to_jsonb(OLD), to_jsonb(NEW)));
             RETURN NEW;
         END $$;
         CREATE TRIGGER note BEFORE UPDATE ON account FOR EACH ROW EXECUTE FUNCTION note()",
    );
    session.exec("BEGIN; UPDATE account SET balance = balance - 5; ROLLBACK");
    assert_eq!(
        session.rows("SELECT what, new ->> 'owner', old ->> 'balance', new ->> 'balance' FROM audit"),
        [["UPDATE", "O'Hara", "10", "5"].map(|text| Some(text.to_owned()))]
    );
    assert_eq!(session.value::<i32>("SELECT balance FROM account"), 10);
    // The row itself as the parameters, from a trigger's expanded record.
    session.exec(
        "CREATE TABLE copies (LIKE account);
         CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM pg_background_run_params('INSERT INTO copies VALUES ($1, $2, $3)', NEW);
             RETURN NEW;
         END $$",
    );
    session.exec("UPDATE account SET balance = 7");
    assert_eq!(
        session.rows("SELECT * FROM copies"),
        [["1", "O'Hara", "7"].map(|text| Some(text.to_owned()))]
    );
}

#[test]
fn the_server_log_shows_them() {
    let cluster = Cluster::start(&["log_statement = 'all'"]);
    let mut session = cluster.session();
    session.exec("SELECT pg_background_run_params('SELECT $1, $2', ROW(42, 'it''s'))");
    let log = cluster.log();
    assert!(
        log.contains("statement: SELECT $1, $2") && log.contains("parameters: $1 = '42', $2 = 'it''s'"),
        "{log}"
    );
}

#[test]
fn many_jobs_with_parameters_leave_no_memory_behind() {
    let cluster = Cluster::start(&["dynamic_shared_memory_type = mmap"]);
    let mut session = cluster.session();
    let round = "SELECT count(*) FROM generate_series(1, 3) n, pg_background_run_params('SELECT $1', ROW(repeat('x', 20000000)))";
    session.exec(round);
    let used = || {
        std::fs::read_dir(cluster.data().join("pg_dynshmem"))
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum::<u64>()
    };
    let before = used();
    for _ in 0..4 {
        session.exec(round);
        // Refused after the parameters were read.
        session.error("SELECT pg_background_run_params('SELECT 1', ROW(1, pg_notify('a', 'b')))");
        session.error("SELECT pg_background_run_params('SELECT 1', ROW(1), database => 'none')");
    }
    assert!(used() <= before, "{before} bytes of shared memory became {}", used());
}

/// Types that change, or go, between the launch and the begin of the job. The worker waits for a lock on what it looks up to connect.
#[test]
fn types_that_change_before_the_job_begins() {
    let cluster = Cluster::start(&["pg_background.worker_idle_timeout = 0"]);
    let (mut session, mut admin) = (cluster.session(), cluster.session());
    for (value, change, sqlstate) in [
        ("'sad'::mood", "DROP TYPE mood CASCADE", "42704"),
        ("ROW('sad'::mood)", "DROP TYPE mood CASCADE", "42704"),
        ("ROW(as_record())", "DROP TYPE pair", "42704"),
        ("as_record()", "DROP TYPE pair", "42704"),
        ("ARRAY[as_record()]", "DROP TYPE pair", "42704"),
        ("as_record()", "ALTER TYPE pair ADD ATTRIBUTE t text", "42804"),
        ("ARRAY[as_record()]", "ALTER TYPE pair DROP ATTRIBUTE m", "42804"),
        ("as_record()", "ALTER TYPE mood ADD VALUE 'glad'", ""),
    ] {
        session.exec(
            "CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (n int, m mood);
             CREATE FUNCTION as_record() RETURNS record LANGUAGE plpgsql
             AS $$ DECLARE p pair := ROW(7, 'sad'); BEGIN RETURN p; END $$",
        );
        let launch = format!("SELECT * FROM pg_background_launch_params('SELECT ($1)::text', ROW({value}))");
        // The session looks up what it needs to launch.
        let job = session.handle(&launch);
        session.wait(job);
        assert_eq!(session.state(job), "stopped", "{value}");
        session.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background')");
        admin.exec("BEGIN; LOCK TABLE pg_authid");
        let job = session.handle(&launch);
        admin.wait_until(&format!(
            "EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = {})",
            job.pid
        ));
        admin.exec(&format!("{change}; COMMIT"));
        session.wait(job);
        let ended: String = session.value(&format!(
            "SELECT coalesce(sqlstate, '') FROM pg_background_outcome({job})"
        ));
        assert_eq!(ended, sqlstate, "{value}: {change}");
        session.exec("DROP FUNCTION as_record; DROP TYPE IF EXISTS pair; DROP TYPE IF EXISTS mood CASCADE");
    }
}
