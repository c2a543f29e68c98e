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
