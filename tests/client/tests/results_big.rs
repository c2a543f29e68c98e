//! Results that are large in every direction.

use harness::Cluster;

#[test]
fn half_a_gigabyte() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let job = session.launch("SELECT g, repeat(chr(64 + g), 100 * 1024 * 1024) FROM generate_series(1, 5) g");
    let row = session.rows(&format!(
        "SELECT count(*), sum(length(t)), bool_and(t = repeat(chr(64 + g), 100 * 1024 * 1024))
         FROM pg_background_result({job}) AS (g int, t text)"
    ));
    let row: Vec<_> = row[0].iter().map(|field| field.as_deref().unwrap()).collect();
    assert_eq!(row, ["5", "524288000", "t"]);
}

#[test]
fn one_value_of_half_a_gigabyte() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let job = session.launch("SELECT repeat('x', 500 * 1024 * 1024)");
    let length: i64 = session.value(&format!(
        "SELECT length(t) FROM pg_background_result({job}) AS (t text)"
    ));
    assert_eq!(length, 524_288_000);
}

#[test]
fn a_row_that_is_too_large_is_an_error() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let job = session.launch("SELECT repeat('x', 600 * 1024 * 1024), repeat('y', 600 * 1024 * 1024)");
    session.wait(job);
    assert_eq!(session.state(job), "error");
    let sqlstate = session.sqlstate(job);
    assert!(sqlstate == "54000" || sqlstate == "XX000", "{sqlstate}");
    assert_eq!(
        session.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
}

#[test]
fn a_million_rows_in_order() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    for read_late in [false, true] {
        let job = session.launch("SELECT g, 'row ' || g, now() FROM generate_series(1, 1000000) g");
        if read_late {
            session.wait(job);
        }
        let count: i64 = session.value(&format!(
            "SELECT count(*) FROM (SELECT g = row_number() OVER () AND t = 'row ' || g AS ok
             FROM pg_background_result({job}) AS (g int, t text, at timestamptz)) s WHERE ok"
        ));
        assert_eq!(count, 1_000_000);
    }
}

#[test]
fn smallest_queue_largest_rows() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let job = session.handle(
        "SELECT pid, cookie FROM pg_background_launch('SELECT g, repeat(md5(g::text), g * 50) FROM generate_series(1, 500) g', 4096)",
    );
    let count: i64 = session.value(&format!(
        "SELECT count(*) FROM pg_background_result({job}) AS (g int, t text) WHERE t = repeat(md5(g::text), g * 50)"
    ));
    assert_eq!(count, 500);
}

#[test]
fn as_many_columns_as_a_table_has() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let values: Vec<_> = (1..=1600).map(|n| n.to_string()).collect();
    let columns: Vec<_> = (1..=1600).map(|n| format!("c{n} int")).collect();
    let job = session.launch(&format!("SELECT {}", values.join(", ")));
    let rows = session.rows(&format!(
        "SELECT * FROM pg_background_result({job}) AS ({})",
        columns.join(", ")
    ));
    let got: Vec<_> = rows[0].iter().map(|field| field.clone().unwrap()).collect();
    assert_eq!(got, values);
}

#[test]
fn reading_a_part_while_the_job_produces() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let job = session.launch("SELECT g FROM generate_series(1, 3000000) g");
    let rows = session.rows(&format!("SELECT g FROM pg_background_result({job}) AS (g int) LIMIT 3"));
    let rows: Vec<_> = rows.into_iter().map(|row| row[0].clone().unwrap()).collect();
    assert_eq!(rows, ["1", "2", "3"]);
    assert_eq!(
        session.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
}

#[test]
fn thousands_of_notices() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let job = session.launch(
        "DO $$ BEGIN FOR i IN 1..3000 LOOP RAISE NOTICE 'number %: %', i, repeat('x', 1000); END LOOP; END $$; SELECT 1 AS x",
    );
    session.wait(job);
    session.take_notices();
    assert_eq!(
        session.value::<i32>(&format!("SELECT x FROM pg_background_result({job}) AS (x int)")),
        1
    );
    let notices = session.take_notices();
    assert_eq!(notices.len(), 3000);
    assert!(notices[2999].message().starts_with("number 3000: xxx"));
}
