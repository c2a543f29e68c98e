//! What PostgreSQL's own views and extensions show of a job.

use harness::{Cluster, wait_for};

#[test]
fn pg_stat_activity_shows_the_job() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let mut observer = cluster.session();
    session.exec("SET application_name = 'of the session'");
    let sql = "SELECT 1 AS first; SELECT pg_sleep(3600)";
    let job = session.handle(&format!(
        "SELECT pid, cookie FROM pg_background_launch('{sql}', 0, 'nightly')"
    ));
    observer.wait_until(&format!(
        "wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {}",
        job.pid
    ));
    let row = observer.rows(&format!(
        "SELECT application_name, backend_type, query, state, datname, usename, xact_start IS NOT NULL,
         query_start IS NOT NULL, backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pid = {}",
        job.pid
    ));
    let row: Vec<_> = row[0].iter().map(|field| field.as_deref().unwrap_or("NULL")).collect();
    let name = format!("pg_background:nightly:{}", job.pid);
    assert_eq!(
        row,
        [
            &name,
            "pg_background",
            sql,
            "active",
            "postgres",
            "postgres",
            "t",
            "t",
            "t"
        ]
    );

    let view = session.rows(
        "SELECT pgbg_state, backend_state, query, label, backend_start IS NOT NULL, wait_event FROM pg_background_activity",
    );
    let view: Vec<_> = view[0].iter().map(|field| field.as_deref().unwrap_or("NULL")).collect();
    assert_eq!(view, ["running", "active", sql, "nightly", "t", "PgSleep"]);
    session.exec(&format!("SELECT pg_background_cancel({job}, 60000)"));
    let view = session.rows("SELECT pgbg_state, backend_state FROM pg_background_activity");
    assert_eq!(
        view,
        [[Some("canceled".to_owned()), None]],
        "an ended job is joined to no process"
    );

    let job = session.launch("SELECT pg_sleep(3600)");
    session.wait_running(job);
    let name: String = observer.value(&format!(
        "SELECT application_name FROM pg_stat_activity WHERE pid = {}",
        job.pid
    ));
    assert_eq!(name, format!("pg_background:{}", job.pid));
}

#[test]
fn lock_timeout_limits_the_job() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE effects (n int)");
    session.exec("SET lock_timeout = '100ms'");
    let mut holder = cluster.session();
    holder.exec("BEGIN; LOCK TABLE effects");
    let job = session.launch("INSERT INTO effects VALUES (1)");
    session.wait(job);
    assert_eq!(session.sqlstate(job), "55P03");
}

#[test]
fn pg_stat_statements_and_auto_explain() {
    let cluster = Cluster::start(&[
        "shared_preload_libraries = 'pg_stat_statements, auto_explain, pg_background'",
        "pg_stat_statements.track = all",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "compute_query_id = on",
    ]);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_stat_statements; CREATE TABLE measured (n int)");
    let job = session
        .launch("INSERT INTO measured SELECT g FROM generate_series(1, 77) g; SELECT count(*) AS seen FROM measured");
    session.wait(job);
    assert_eq!(session.state(job), "stopped");
    let statements = session.rows(
        "SELECT calls, rows FROM pg_stat_statements WHERE query LIKE 'INSERT INTO measured%' OR query LIKE 'SELECT count(*) AS seen%'
         ORDER BY rows DESC",
    );
    let row = |rows: &str| vec![Some("1".to_owned()), Some(rows.to_owned())];
    assert_eq!(statements, [row("77"), row("1")]);
    wait_for("the plan in the log", || {
        let log = cluster.log();
        log.contains("Query Text: ") && log.contains("Function Scan on generate_series g")
    });
    // With the library preloaded, the settings are known before the first use.
    assert_eq!(
        cluster.session().value::<String>("SHOW pg_background.max_workers"),
        "16"
    );
}

#[test]
fn log_min_duration_statement_logs_the_job() {
    let cluster = Cluster::start(&["log_min_duration_statement = 0"]);
    let mut session = cluster.session();
    let job = session.launch("SELECT 'to be logged'");
    session.wait(job);
    wait_for("the duration in the log", || {
        cluster.log().lines().any(|line| {
            line.contains(&format!("[{}]", job.pid))
                && line.contains("pg_background")
                && line.contains("duration: ")
                && line.contains("'to be logged'")
        })
    });
}

#[test]
fn log_statement_and_errors_are_logged() {
    let cluster = Cluster::start(&["log_statement = all"]);
    let mut session = cluster.session();
    let job = session.launch("SELECT 1 / 0 AS failing");
    session.wait(job);
    let pid = format!("[{}]", job.pid);
    wait_for("statement and error in the log", || {
        let log = cluster.log();
        let has = |what: &str| log.lines().any(|line| line.contains(&pid) && line.contains(what));
        has("statement: SELECT 1 / 0 AS failing") && has("ERROR:  division by zero") && has("STATEMENT:  SELECT 1 / 0")
    });
}

#[test]
fn statistics_are_counted() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE counted (n int)");
    session.exec("SELECT pg_background_run('INSERT INTO counted SELECT generate_series(1, 10)')");
    session.wait_until("(SELECT n_tup_ins = 10 FROM pg_stat_user_tables WHERE relname = 'counted')");
}
