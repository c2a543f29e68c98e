//! Metrics: what runs leave behind, and what Prometheus's own tools say of the text, the rules and the dashboard.
//!
//! `make monitoring` also starts Prometheus and both exporters beside a cluster with load.

use std::io::Write;
use std::process::{Command, Stdio};

use harness::{Cluster, Monitored, Session, project, prometheus, quoted};

/// A cluster with both extensions in `postgres`, and the role `monitor`.
fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start_plain(settings);
    cluster.session().exec(
        "CREATE EXTENSION pg_background_tasks CASCADE;
         CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor",
    );
    cluster
}

/// A sample of the queue.
fn sample(session: &mut Session, name: &str, labels: &str) -> f64 {
    session.value(&format!(
        "SELECT value FROM background.metrics() WHERE name = 'pg_background_{name}' AND labels = \
         jsonb_build_object('datname', current_database()) || {}",
        quoted(labels)
    ))
}

#[test]
fn ends_are_counted_once_by_their_state() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('q', retry_delay => '0.01 s')");
    let done = session.enqueue("'SELECT 1', queue => 'q'");
    let failed = session.enqueue("'SELECT 1/0', queue => 'q', max_attempts => 3");
    let late = session.enqueue("'SELECT pg_sleep(3600)', queue => 'q', timeout => '0.1 s', max_attempts => 1");
    let expired = session.enqueue("'SELECT 1', queue => 'q', run_at => 'infinity', expires_at => now()");
    let canceled = session.enqueue("'SELECT 1', queue => 'q', run_at => 'infinity'");
    session.exec(&format!("SELECT background.cancel({canceled})"));
    // What is rolled back does not count.
    session.exec("BEGIN");
    let rolled_back = session.enqueue("'SELECT 1', queue => 'q'");
    session.exec(&format!("SELECT background.cancel({rolled_back}); ROLLBACK"));
    for task in [done, failed, late, expired] {
        session.wait_task(task);
    }
    // A worker is lost.
    let lost = session.enqueue("'SELECT pg_sleep(3600)', queue => 'q', max_attempts => 1");
    session.wait_until(&format!("state = 'running' FROM background.tasks WHERE id = {lost}"));
    session.exec(&format!(
        "SELECT pg_terminate_backend(pid) FROM background.tasks WHERE id = {lost}"
    ));
    assert_eq!(session.wait_task(lost), "failed");
    for (state, count) in [("done", 1.0), ("failed", 3.0), ("canceled", 1.0), ("expired", 1.0)] {
        let labels = format!(r#"{{"queue": "q", "state": "{state}"}}"#);
        assert_eq!(sample(&mut session, "tasks_ended_total", &labels), count, "{state}");
    }
    for (state, count) in [
        ("done", 1.0),
        ("failed", 3.0),
        ("canceled", 0.0),
        ("timed_out", 1.0),
        ("interrupted", 1.0),
    ] {
        let labels = format!(r#"{{"queue": "q", "state": "{state}"}}"#);
        assert_eq!(sample(&mut session, "task_runs_total", &labels), count, "{state}");
    }
    assert_eq!(sample(&mut session, "task_retries_total", r#"{"queue": "q"}"#), 2.0);
    assert_eq!(sample(&mut session, "task_run_seconds_count", r#"{"queue": "q"}"#), 6.0);
    assert_eq!(
        sample(
            &mut session,
            "task_run_seconds_bucket",
            r#"{"queue": "q", "le": "+Inf"}"#
        ),
        6.0
    );
    // Nobody saw when the lost one could run.
    assert_eq!(
        sample(&mut session, "task_wait_seconds_count", r#"{"queue": "q"}"#),
        5.0
    );
    assert!(sample(&mut session, "task_run_seconds_sum", r#"{"queue": "q"}"#) >= 0.1);
    // Each bucket has those before it, too.
    assert!(session.holds(
        "bool_and(value >= before) FROM (SELECT value, lag(value, 1, 0) OVER (PARTITION BY name, labels - 'le' ORDER BY number) AS before
         FROM background.metrics() WITH ORDINALITY AS _ (name, type, help, labels, value, number) WHERE name LIKE '%bucket') AS _"
    ));
    let mut monitor = cluster.session_as("monitor");
    assert_eq!(sample(&mut monitor, "task_retries_total", r#"{"queue": "q"}"#), 2.0);
}

#[test]
fn a_task_waits_from_when_it_could_run() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('parents'); SELECT background.set_queue('q')");
    let waited = |session: &mut Session| sample(session, "task_wait_seconds_sum", r#"{"queue": "q"}"#);
    // After its parent, which takes longer than a bucket is wide.
    let child: i64 = session.value(
        "SELECT background.enqueue('SELECT 1', queue => 'q', after => ARRAY[background.enqueue('SELECT pg_sleep(2)', queue => 'parents')])",
    );
    session.wait_task(child);
    assert!(session.holds(&format!(
        "run_at - enqueued_at > '1.9 s' FROM background.tasks WHERE id = {child}"
    )));
    // At its time.
    let deferred = session.enqueue("'SELECT 1', queue => 'q', run_at => now() + interval '1 s'");
    session.wait_task(deferred);
    // After a retry of what was enqueued a day ago.
    let failed = session.enqueue("'SELECT 1/0', queue => 'q', max_attempts => 1");
    session.wait_task(failed);
    let before = waited(&mut session);
    session.exec(&format!(
        "UPDATE background.run_failed SET enqueued_at = now() - interval '1 day' WHERE task_id = {failed}"
    ));
    session.exec(&format!("SELECT background.retry({failed})"));
    session.wait_task(failed);
    assert_eq!(
        sample(&mut session, "task_wait_seconds_count", r#"{"queue": "q"}"#),
        4.0
    );
    assert!(waited(&mut session) - before < 3600.0);
    session.exec("SELECT background.set_queue('q', max_running => 0)");
    session.exec(&format!(
        "UPDATE background.run_failed SET enqueued_at = now() - interval '1 day' WHERE task_id = {failed}; SELECT background.retry({failed})"
    ));
    assert!(sample(&mut session, "queue_oldest_waiting_seconds", r#"{"queue": "q"}"#) < 3600.0);
}

#[test]
fn a_look_reads_the_table_of_tasks_once() {
    let cluster = cluster(&["autovacuum = off"]);
    let mut session = cluster.session();
    session.exec(
        "SELECT background.set_queue('q', max_running => 0);
         SELECT count(background.enqueue('SELECT 1', queue => 'q')) FROM generate_series(1, 5000);
         SELECT background.schedule('s' || n, '0 3 * * *', 'SELECT 1') FROM generate_series(1, 3) AS n;
         ANALYZE background.task",
    );
    for (part, times) in [
        ("NULL", 1),
        ("'queues'", 1),
        ("'counts'", 0),
        ("'status'", 0),
        ("'schedules'", 0),
    ] {
        let scans = |session: &mut Session| -> i64 {
            session.value("SELECT seq_scan FROM pg_stat_xact_all_tables WHERE relid = 'background.task'::regclass")
        };
        session.exec("BEGIN");
        let before = scans(&mut session);
        session.exec(&format!("SELECT count(*) FROM background.metrics({part})"));
        assert_eq!(scans(&mut session) - before, times, "{part}");
        session.exec("COMMIT");
    }
}

/// What promtool says of this text.
fn promtool(arguments: &[&str], text: &str) -> Option<(bool, String)> {
    let mut child = Command::new(prometheus()?.join("promtool"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run promtool: {e}"));
    let mut input = child.stdin.take().expect("there is a pipe");
    input.write_all(text.as_bytes()).expect("promtool reads");
    drop(input);
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn promtool_accepts_the_text() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    let odd = "a \"b\" \\ {c='d'} \u{e9}, #\u{a0}";
    let odd_name = format!("\"{}\"", odd.replace('"', "\"\""));
    session.exec(&format!("CREATE DATABASE {odd_name}"));
    session.exec(&format!(
        "CREATE ROLE {odd_name} LOGIN; GRANT pgbackground_role TO {odd_name}"
    ));
    let mut inside = cluster.session_in(odd, "postgres");
    inside.exec("CREATE EXTENSION pg_background_tasks CASCADE");
    let queue = format!("{odd}\nline\t");
    inside.exec(&format!(
        "SELECT background.set_queue({0}); SELECT background.schedule({0}, '0 3 * * *', 'SELECT 1', queue => {0})",
        quoted(&queue)
    ));
    let mut other = cluster.session_in(odd, odd);
    other.exec("SELECT pg_background_run('SELECT 1')");
    let task = other.enqueue(&format!("'SELECT 1', queue => {}", quoted(&queue)));
    other.wait_task(task);
    for session in [&mut inside, &mut session] {
        let text = session.text("SELECT pg_background_openmetrics()").expect("a text");
        assert!(text.contains("pg_background_tasks{") && text.ends_with("# EOF\n"));
        let Some((is_good, said)) = promtool(&["check", "metrics"], &text) else {
            return;
        };
        assert!(is_good && said.is_empty(), "{said}\n{text}");
    }
    // It does look.
    let text = "# HELP x X.\n# TYPE x counter\nx 1\n";
    assert!(
        !promtool(&["check", "metrics"], text)
            .expect("promtool is there")
            .1
            .is_empty()
    );
}

fn monitoring(name: &str) -> String {
    let path = project().join("monitoring").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The expressions of the dashboard, with all values of its variables.
fn dashboard(session: &mut Session) -> Vec<String> {
    let json = quoted(&monitoring("dashboard.json"));
    let rows = session.rows(&format!(
        "SELECT jsonb_path_query({json}, '$.panels[*].targets[*].expr') #>> '{{}}'"
    ));
    let expressions: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let expression = row.into_iter().next().flatten().expect("an expression");
            let expression = expression.replace("$__rate_interval", "1m").replace("[1h]", "[1m]");
            expression.replace("$instance", ".*").replace("$datname", ".*")
        })
        .collect();
    assert!(expressions.len() > 30 && expressions.iter().all(|expression| !expression.contains('$')));
    expressions
}

/// Each metric that an expression names is one of those that the functions return, and all files parse.
/// Bytes that belong to no character of the database's encoding: names of roles, which have the encoding of the database in which they were given, and any
/// names in a database with SQL_ASCII.
#[test]
fn names_in_other_encodings() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for (database, encoding) in [("latin1", "LATIN1"), ("ascii", "SQL_ASCII"), ("eucjp", "EUC_JP")] {
        session.exec(&format!(
            "CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        ));
    }
    let mut latin1 = cluster.session_in("latin1", "postgres");
    latin1.exec("CREATE ROLE \"rol\u{e9}\" SUPERUSER; CREATE EXTENSION pg_background; SET ROLE \"rol\u{e9}\"; SELECT pg_background_run('SELECT 1')");
    assert!(latin1.holds("(SELECT pg_background_openmetrics() LIKE '%usename=\"rol\u{e9}\"%')"));
    assert!(session.holds(r#"(SELECT pg_background_openmetrics() LIKE '%usename="rol\\\\xe9"%')"#));
    for database in ["ascii", "eucjp"] {
        let mut there = cluster.session_in(database, "postgres");
        there.exec("CREATE EXTENSION pg_background_tasks CASCADE");
        if database == "ascii" {
            there.exec(r"SELECT background.set_queue(E'q\351', max_running => 0)");
            there.exec(r"SELECT background.set_queue(E'q\303\251', max_running => 0)");
            there.exec(r"SELECT background.schedule(E's\351', 'every 1 hour', 'SELECT 1')");
        }
        // The text arrives as UTF-8.
        let text = there.text("SELECT pg_background_openmetrics()").unwrap();
        assert!(text.contains(r#"usename="rol\\xe9""#), "{database}");
        if database == "ascii" {
            assert!(
                text.contains(r#"queue="q\\xe9""#)
                    && text.contains("queue=\"q\u{e9}\"")
                    && text.contains(r#"schedule="s\\xe9""#)
            );
        }
    }
}

#[test]
fn rules_and_dashboard_parse() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    let task = session.enqueue("'SELECT 1'");
    session.wait_task(task);
    session.exec(
        "SELECT background.schedule('s', '0 3 * * *', 'SELECT 1');
         SELECT background.set_queue('held', max_running => 0); CREATE TABLE t (id int4);
         SELECT background.parallel_execute('DELETE FROM t WHERE ctid BETWEEN $1 AND $2', 't', queue => 'held')",
    );
    let names: Vec<_> = session
        .rows("SELECT DISTINCT name FROM (SELECT name FROM pg_background_metrics() UNION ALL SELECT name FROM background.metrics()) AS _")
        .into_iter()
        .map(|row| row[0].clone().expect("a name"))
        .collect();
    let expressions = dashboard(&mut session);
    let all = expressions.join("\n") + &monitoring("rules.yml");
    let words = all.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words.filter(|word| word.starts_with("pg_background_")) {
        // Rules name functions and views in what they say, too.
        let is_name = names.iter().any(|name| name == word) || word == "pg_background_jobs";
        assert!(is_name, "there is no metric {word}");
    }
    let rules: String = expressions
        .iter()
        .enumerate()
        .map(|(number, expression)| format!("  - record: panel:{number}\n    expr: {}\n", quoted(expression)))
        .collect();
    let rules = format!("groups:\n- name: dashboard\n  rules:\n{rules}");
    let path = cluster.socket_dir().join("dashboard.yml");
    std::fs::write(&path, rules).expect("the directory takes files");
    let path = path.display().to_string();
    let config = project().join("monitoring/prometheus.yml").display().to_string();
    for arguments in [["check", "rules", &path], ["check", "config", &config]] {
        let Some((is_good, said)) = promtool(&arguments, "") else {
            return;
        };
        assert!(is_good, "{said}");
    }
}

/// How many finite numbers Prometheus returns for an expression.
fn numbers(session: &mut Session, monitored: &Monitored, expression: &str) -> i64 {
    let answer = monitored.query(expression);
    session.value(&format!(
        "SELECT count(*) FROM jsonb_path_query({}, '$.data.result[*].value[1]') AS value WHERE value #>> '{{}}' ~ '^[-0-9]'",
        quoted(&answer)
    ))
}

#[test]
#[ignore = "takes a minute: make monitoring"]
fn everything_with_prometheus() {
    let Some(programs) = prometheus() else { return };
    let cluster = cluster(&[
        "shared_preload_libraries = 'pg_background'",
        "max_worker_processes = 10",
        "pg_background.max_task_workers = 3",
    ]);
    let mut session = cluster.session();
    let mut loader = cluster.session();
    // In a second database tasks are off.
    session.exec("CREATE DATABASE second");
    session.exec("ALTER DATABASE second SET pg_background.tasks = off");
    cluster
        .session_in("second", "postgres")
        .exec("CREATE EXTENSION pg_background_tasks CASCADE");
    session.exec(
        "SELECT background.set_queue('held', max_running => 0);
         SELECT background.set_queue('small', max_running => 0, max_waiting => 2);
         SELECT background.enqueue('SELECT 1', queue => 'held');
         UPDATE background.task SET enqueued_at = now() - interval '1 hour' WHERE queue = 'held';
         SELECT background.enqueue('SELECT 1', queue => 'small') FROM generate_series(1, 2);
         CREATE TABLE t (id int4 PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100000);
         SELECT background.parallel_execute('DELETE FROM t WHERE ctid BETWEEN $1 AND $2', 't', label => 'stuck', queue => 'held');
         SELECT background.parallel_execute('SELECT FROM t WHERE id BETWEEN $1 AND $2', 't', 'id', label => 'slow', chunk_rows => 1, pause_between => '0.1 s');
         SELECT background.schedule('failing', 'every 1 second', 'SELECT 1/0', overlap => 'allow');
         SELECT background.schedule('late', '0 3 1 1 *', 'SELECT 1')",
    );
    let monitored = Monitored::start(programs, &cluster, &["postgres", "second"]);
    let fires = |session: &mut Session, alert: &str| {
        let expression = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
        numbers(session, &monitored, &expression) > 0
    };
    let mut load = || {
        loader.exec(
            "SELECT background.enqueue('SELECT 1'); SELECT background.enqueue('SELECT 1/0', max_attempts => 2, retry_delay => '0.1 s');
             SELECT pg_background_run('SELECT 1/0'); SELECT pg_background_run('SELECT 1')",
        );
    };

    // Both exporters have all metrics.
    let mut names: Vec<String> = session
        .rows("SELECT DISTINCT name FROM (SELECT name FROM pg_background_metrics() UNION ALL SELECT name FROM background.metrics()) AS _")
        .into_iter()
        .map(|row| row[0].clone().expect("a name"))
        .collect();
    names.push("pg_background_task_wait_seconds_bucket".to_owned());
    for job in ["postgres_exporter", "sql_exporter"] {
        for name in &names {
            harness::wait_for(&format!("{name} of {job}"), || {
                load();
                !monitored
                    .query(&format!("{name}{{job=\"{job}\"}}"))
                    .contains("\"result\":[]")
            });
        }
        // The same labels, but for those of the exporter.
        let labels = session.text(&format!(
            "SELECT string_agg(DISTINCT label, ' ' ORDER BY label) FROM jsonb_path_query({}, '$.data.result[*].metric') AS metric, jsonb_object_keys(metric) AS label
             WHERE label NOT IN ('__name__', 'instance', 'job', 'server')",
            quoted(&monitored.query(&format!("pg_background_tasks{{job=\"{job}\"}}")))
        ));
        assert_eq!(labels.as_deref(), Some("datname queue state"), "{job}");
    }
    for expression in dashboard(&mut session) {
        harness::wait_for(&format!("a number for {expression}"), || {
            load();
            numbers(&mut session, &monitored, &expression) > 0
        });
    }

    // The expressions of all rules parse, and each alert fires.
    let rules = quoted(&monitored.rules());
    let mut alerts: Vec<_> = session
        .rows(&format!(
            "SELECT rule->>'name', rule->>'health' FROM jsonb_path_query({rules}, '$.data.groups[*].rules[*]') AS rule"
        ))
        .into_iter()
        .map(|row| row[0].clone().expect("a name"))
        .collect();
    assert_eq!(alerts.len(), monitoring("rules.yml").matches("- alert:").count());
    let mut fire = |session: &mut Session, load: &mut dyn FnMut(), names: &[&str]| {
        for name in names {
            harness::wait_for(&format!("the alert {name}"), || {
                load();
                fires(session, name)
            });
            alerts.retain(|alert| alert != name);
        }
    };
    fire(
        &mut session,
        &mut load,
        &[
            "PgBackgroundJobsFailing",
            "PgBackgroundTasksFailing",
            "PgBackgroundScheduleFailing",
            "PgBackgroundOldestTaskTooOld",
            "PgBackgroundQueueFull",
            "PgBackgroundOperationStuck",
            "PgBackgroundTasksNotRunning",
        ],
    );
    session.exec(
        "SELECT background.unschedule('failing'); SELECT background.cancel_operation(id) FROM background.operations",
    );

    // The schedule is due, and its row is another session's before the keeper can take it.
    let holder = cluster.session();
    let holder_pid = holder.pid;
    session.exec(
        "BEGIN; UPDATE background.firing SET next_at = now() - interval '1 hour'
         WHERE schedule = (SELECT id FROM background.schedule WHERE name = 'late')",
    );
    let holder = holder.start("BEGIN; LOCK TABLE background.firing IN SHARE MODE");
    cluster.session().wait_blocked(holder_pid);
    session.exec("COMMIT");
    let (mut holder, locked) = holder.join();
    locked.expect("the lock is had");
    fire(&mut session, &mut || (), &["PgBackgroundScheduleLate"]);
    holder.exec("ROLLBACK");

    session.exec("SELECT background.enqueue('SELECT pg_sleep(3600)') FROM generate_series(1, 5)");
    fire(&mut session, &mut || (), &["PgBackgroundRunnersSaturated"]);

    // All slots are used, and then launches wait.
    while session
        .try_rows("SELECT pg_background_launch('SELECT pg_sleep(3600)')")
        .is_ok()
    {}
    fire(&mut session, &mut || (), &["PgBackgroundNoFreeWorkerSlots"]);
    let waiting: Vec<_> = (0..12)
        .map(|_| {
            let mut session = cluster.session();
            session.exec("SET pg_background.launch_timeout = '10min'");
            session.start("SELECT pg_background_launch('SELECT 1')")
        })
        .collect();
    fire(&mut session, &mut || (), &["PgBackgroundLaunchQueueLong"]);
    assert!(alerts.is_empty(), "these did not fire: {alerts:?}");
    for pending in &waiting {
        pending.cancel();
    }
    for pending in waiting {
        pending.join().1.expect_err("it was canceled");
    }
}
