//! Measures pg_background against dblink and against local execution, in one run on one throw-away cluster.
//!
//! 1. Start a cluster with PostgreSQL's defaults.
//! 2. For each comparison: warm both sides up, then time them in turns, so that what disturbs one disturbs both.
//! 3. Print medians, ratios and whether the goals are reached.
//!
//! The loops run inside the server: the client's round trips are in no number.

use harness::{Cluster, Session, quoted};

const MILLION: &str = "SELECT g::int, 'row number ' || g, timestamptz '2026-01-01 00:00+00' + g * interval '1 s' \
                       FROM generate_series(1, 1000000) g";
const MILLION_COLUMNS: &str = "AS (a int, b text, c timestamptz)";
const WIDE: &str = "SELECT g::int, repeat(md5(g::text), 32) FROM generate_series(1, 200000) g";
const WIDE_COLUMNS: &str = "AS (a int, b text)";

/// Two statements that do the same in two ways.
struct Comparison {
    what: &'static str,
    ours: String,
    against: &'static str,
    theirs: String,
    /// How many times as fast as the other side we have to be.
    goal: Option<f64>,
    /// Executions per timing, and timings per side.
    repeat: u32,
    rounds: u32,
}

fn main() {
    let cluster = Cluster::start_with_defaults();
    let mut session = cluster.session();
    prepare(&mut session, &cluster.socket_dir().display().to_string());
    print_environment(&mut session);

    println!(
        "{:<44} {:>12}   {:<34} {:>12} {:>8} {:>8}",
        "pg_background", "ms", "against", "ms", "speed-up", "goal"
    );
    for comparison in comparisons() {
        report(&mut session, &comparison);
    }
}

fn prepare(session: &mut Session, socket_dir: &str) {
    session.exec("CREATE EXTENSION pg_background; CREATE EXTENSION dblink");
    // How long one execution takes, in milliseconds.
    session.exec(
        "CREATE FUNCTION timed(statement text, repeat int) RETURNS float8 LANGUAGE plpgsql AS $$
         DECLARE
             started timestamptz := clock_timestamp();
         BEGIN
             FOR i IN 1..repeat LOOP EXECUTE statement; END LOOP;
             RETURN extract(epoch FROM clock_timestamp() - started) * 1000 / repeat;
         END $$",
    );
    // Local execution into a tuplestore, as a set-returning function of the other two ways fills it.
    session.exec(
        "CREATE FUNCTION local_rows(statement text) RETURNS SETOF record LANGUAGE plpgsql AS $$
         BEGIN RETURN QUERY EXECUTE statement; END $$",
    );
    session.exec(&format!(
        "CREATE FUNCTION here() RETURNS text IMMUTABLE LANGUAGE sql AS $$
         SELECT {} $$",
        quoted(&format!("host={socket_dir} dbname=postgres user=postgres"))
    ));
    session.exec("SELECT dblink_connect('kept', here())");
}

fn print_environment(session: &mut Session) {
    let version: String = session.value("SHOW server_version");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!("PostgreSQL {version} on {cpus} CPUs, its default settings:");
    let settings: String = session.value(
        "SELECT string_agg(name || '=' || current_setting(name), ' ' ORDER BY name) FROM pg_settings WHERE name IN
         ('shared_buffers', 'work_mem', 'fsync', 'synchronous_commit', 'jit', 'max_worker_processes')",
    );
    println!("{settings}");
    println!("medians of alternating runs; speed-up is the other side's time over ours\n");
}

fn comparisons() -> Vec<Comparison> {
    let background = |query: &str, columns: &str| {
        format!(
            "SELECT count(*) FROM pg_background_launch({}) h, LATERAL pg_background_result(h.pid, h.cookie) {columns}",
            quoted(query)
        )
    };
    let kept = |query: &str, columns: &str| format!("SELECT count(*) FROM dblink('kept', {}) {columns}", quoted(query));
    let local = |query: &str, columns: &str| format!("SELECT count(*) FROM local_rows({}) {columns}", quoted(query));
    let new_connection = "SELECT count(*) FROM dblink(here(), 'SELECT 1') AS (x int)".to_owned();

    let mut comparisons = Vec::new();
    let mut add = |what, ours: &str, against, theirs: &str, goal, repeat, rounds| {
        let (ours, theirs) = (ours.to_owned(), theirs.to_owned());
        comparisons.push(Comparison {
            what,
            ours,
            against,
            theirs,
            goal,
            repeat,
            rounds,
        });
    };
    let one = background("SELECT 1", "AS (x int)");
    let million = background(MILLION, MILLION_COLUMNS);
    let wide = background(WIDE, WIDE_COLUMNS);
    add(
        "launch + result, SELECT 1, cold",
        &one,
        "dblink, new connection",
        &new_connection,
        Some(1.0),
        20,
        25,
    );
    add(
        "run, SELECT 1",
        "SELECT state FROM pg_background_run('SELECT 1')",
        "dblink, new connection",
        &new_connection,
        None,
        20,
        25,
    );
    add(
        "launch + result, 1 M rows",
        &million,
        "dblink, kept connection",
        &kept(MILLION, MILLION_COLUMNS),
        Some(2.0),
        1,
        7,
    );
    add(
        "launch + result, 1 M rows",
        &million,
        "local into a tuplestore",
        &local(MILLION, MILLION_COLUMNS),
        None,
        1,
        7,
    );
    add(
        "launch + result, 200 k rows of 1 kB",
        &wide,
        "dblink, kept connection",
        &kept(WIDE, WIDE_COLUMNS),
        None,
        1,
        7,
    );
    add(
        "launch + result, 200 k rows of 1 kB",
        &wide,
        "local into a tuplestore",
        &local(WIDE, WIDE_COLUMNS),
        None,
        1,
        7,
    );
    comparisons
}

fn report(session: &mut Session, comparison: &Comparison) {
    let mut time =
        |sql: &str| -> f64 { session.value(&format!("SELECT timed({}, {})", quoted(sql), comparison.repeat)) };
    time(&comparison.ours);
    time(&comparison.theirs);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..comparison.rounds {
        ours.push(time(&comparison.ours));
        theirs.push(time(&comparison.theirs));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let speed_up = theirs / ours;
    let verdict = match comparison.goal {
        Some(goal) if speed_up >= goal => format!("{goal:>8.2} hit"),
        Some(goal) => format!("{goal:>8.2} missed"),
        None => format!("{:>8}", "-"),
    };
    println!(
        "{:<44} {ours:>12.3}   {:<34} {theirs:>12.3} {speed_up:>8.2} {verdict}",
        comparison.what, comparison.against
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}
