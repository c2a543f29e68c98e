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

/// Values of all kinds of length and alignment, NULLs, values that lie elsewhere (toasted, expanded) and rows in a table's own format, in
/// rows of all lengths that a buffer holds.
#[test]
fn rows_of_every_shape_at_every_place() {
    const SHAPES: [&str; 3] = [
        "SELECT g, (g % 7)::int2 AS b, CASE WHEN g % 3 > 0 THEN repeat(chr(97 + g % 26), g % 1153) END AS c, g::int8 * 5 AS d,
                g % 2 = 0 AS e, g::numeric / 7 AS f, CASE WHEN g % 5 = 0 THEN ARRAY[g, NULL, g + 1] END AS h, '\"i\"'::\"char\" AS i,
                ('j' || g)::name AS j, g::float4 AS k, time '01:02' + g * interval '1 s' AS l, '12:34:56+01'::timetz AS m,
                box(point(g, 1), point(2, 3)) AS o, '10.0.0.1'::inet AS p FROM generate_series(1, 4000) g",
        "SELECT g, t, g + 1 AS b, a || g AS c, repeat('x', g % 211) AS d FROM generate_series(1, 700) g, toasted WHERE n = g % 4",
        "SELECT n, t, a FROM toasted, generate_series(1, 300)",
    ];
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE TABLE toasted (n int, t text, a int[]); ALTER TABLE toasted ALTER t SET STORAGE EXTERNAL, ALTER a SET STORAGE EXTERNAL;
         INSERT INTO toasted SELECT n, repeat(md5(n::text), n * 40), (SELECT array_agg(i) FROM generate_series(1, n * 300) i)
         FROM generate_series(0, 3) n",
    );
    for shape in SHAPES {
        session.exec(&format!("DROP TABLE IF EXISTS shaped; CREATE TABLE shaped AS {shape}"));
        let columns: String = session.value(
            "SELECT string_agg(format('%I %s', attname, format_type(atttypid, -1)), ', ' ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = 'shaped'::regclass AND attnum > 0",
        );
        let sum = |rows: &str| format!("SELECT count(*) || ' ' || sum(hashtext(r::text)) FROM {rows} r");
        let expected: String = session.value(&sum("shaped"));
        for queue_size in [4096, 8192, 65536] {
            for sql in [shape, "SELECT * FROM shaped"] {
                let job = session.handle(&format!(
                    "SELECT pid, cookie FROM pg_background_launch($sql${sql}$sql$, {queue_size})"
                ));
                let rows = format!("(SELECT * FROM pg_background_result({job}) AS ({columns}))");
                assert_eq!(session.value::<String>(&sum(&rows)), expected, "{queue_size} {sql}");
            }
        }
    }
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
