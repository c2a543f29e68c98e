//! The program beside a cluster, in a real terminal.

mod tmux;
mod troubles;

use std::os::unix::fs::PermissionsExt;

use harness::{Cluster, Shutdown};
use tmux::{Terminal, answer, program};

fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start(settings);
    cluster.session().exec("CREATE EXTENSION pg_background_tasks");
    cluster
}

/// The views of operations, for a version that has none.
const OPERATIONS: &str = "
    CREATE VIEW background.operations AS
        SELECT 1::int8 AS id, 'shrink'::text AS label, 'postgres'::name AS owner, 'running'::text AS state, 3::int8 AS chunks_done,
            0::int8 AS chunks_failed, 1000::int8 AS rows_affected, 0.5::float8 AS progress, 100::float8 AS rows_per_second,
            now() + interval '1 min' AS eta, now() AS started_at, NULL::timestamptz AS finished_at, NULL::text AS last_error;
    CREATE VIEW background.chunks AS
        SELECT 1::int8 AS operation_id, n, '1'::text AS first, '2'::text AS last, 'done'::text AS state, 1 AS attempts, 10::int8 AS rows,
            1.5::float8 AS ms, NULL::text AS sqlstate, NULL::text AS error_message FROM generate_series(1, 3) AS n;
    ALTER EXTENSION pg_background_tasks ADD VIEW background.operations;
    ALTER EXTENSION pg_background_tasks ADD VIEW background.chunks";

#[test]
fn tabs_rows_and_actions() {
    let cluster = cluster(&["log_statement = all", "log_line_prefix = '%m [%p] %b %a '"]);
    let mut session = cluster.session();
    session.exec("SELECT background.set_queue('mails', max_running => 1, max_attempts => 1)");
    let division = session.enqueue("$$SELECT 1 / 0 AS x$$, queue => 'mails', label => 'division'");
    assert_eq!(session.wait_task(division), "failed");
    let sleeper = session.enqueue("'SELECT pg_sleep(600)', queue => 'mails', label => 'sleeper'");
    session.exec("SELECT background.enqueue('SELECT 1', queue => 'mails', label => 'mail ' || n) FROM generate_series(1, 50) AS n");
    session.exec("SELECT background.schedule('nightly', '0 3 1 1 *', 'SELECT 2')");
    session.wait_until(&format!(
        "(SELECT state = 'running' FROM background.tasks WHERE id = {sleeper})"
    ));

    let terminal = Terminal::start(&cluster, &[], &["-i", "0.2"]);
    // Jobs.
    let screen = terminal.wait("jobs", |screen| {
        screen.contains("sleeper") && screen.contains("postgres as postgres")
    });
    assert_eq!(screen.lines().count(), 24, "{screen}");
    assert!(screen.contains("1-2 of 2") && screen.contains("22012"), "{screen}");
    // Tasks: no more rows than the screen has, the others by moving.
    terminal.press(&["2"], "1-19 of 52");
    terminal.press(&["End"], "34-52 of 52");
    terminal.press(&["Home"], "1-19 of 52");
    terminal.resize(120, 34);
    terminal.press(&[], "1-29 of 52");
    terminal.resize(80, 24);
    terminal.press(&[], "1-19 of 52");
    // Sorted by id, the other way round.
    terminal.press(&[">"], "id▲");
    terminal.press(&["i"], "id▼");
    terminal.wait("the greatest id", |screen| {
        screen.lines().nth(4).is_some_and(|line| line.contains("mail 50"))
    });
    terminal.press(&["<"], " id ");
    // A filter, and one row followed.
    terminal.press(&["/", "d", "i", "v", "i", "s", "Enter"], "1-1 of 1");
    let screen = terminal.press(&["Enter"], "runs");
    for text in ["SELECT 1 / 0 AS x", "division by zero", "22012", "failed", "mails"] {
        assert!(screen.contains(text), "no {text}:\n{screen}");
    }
    // Retried after a yes, and not after another key.
    terminal.press(&["r"], &format!("retry task {division} (division)? (y/n)"));
    terminal.press(&["n"], "nothing was done");
    assert!(session.holds(&format!(
        "(SELECT state = 'failed' FROM background.tasks WHERE id = {division})"
    )));
    terminal.press(&["r"], "(y/n)");
    terminal.press(&["y"], ": done");
    terminal.press(&["Escape"], "1-1 of 1");
    assert!(session.holds(&format!(
        "(SELECT finished_at IS NULL FROM background.tasks WHERE id = {division})"
    )));
    // Cancelled.
    terminal.press(&["/", "C-u", "s", "l", "e", "e", "p", "Enter"], "/sleep  1-1 of 1");
    terminal.press(&["c"], &format!("cancel task {sleeper} (sleeper)? (y/n)"));
    terminal.press(&["y"], ": done");
    assert_eq!(session.wait_task(sleeper), "canceled");
    terminal.see("canceled");
    // An error of the server is shown.
    terminal.press(&["r"], "(y/n)");
    session.exec("ALTER FUNCTION background.retry RENAME TO retry_");
    terminal.press(&["y"], "ERROR: 42883");
    session.exec("ALTER FUNCTION background.retry_ RENAME TO retry");
    // Queues.
    terminal.press(&["3"], "mails");
    terminal.press(&["/", "m", "a", "i", "l", "s", "Enter"], "1-1 of 1");
    terminal.press(&["p"], "pause queue mails? (y/n)");
    terminal.press(&["y"], "paused");
    session.wait_until("(SELECT paused FROM background.queues WHERE name = 'mails')");
    // Also while it is followed.
    terminal.press(&["Enter"], "tasks that have not ended");
    terminal.press(&["p"], "resume queue mails? (y/n)");
    terminal.press(&["y"], ": done");
    terminal.press(&["Escape"], "open");
    session.wait_until("(SELECT NOT paused FROM background.queues WHERE name = 'mails')");
    // Schedules.
    terminal.press(&["4"], "nightly");
    terminal.press(&["x"], "run schedule nightly now? (y/n)");
    terminal.press(&["y"], ": done");
    session
        .wait_until("(SELECT runs_total = 1 AND last_state = 'done' FROM background.schedules WHERE name = 'nightly')");
    terminal.press(&["Enter"], "tasks of it");
    terminal.press(&["Escape"], "1-1 of 1");
    // Operations: that this version has none, until it has.
    terminal.keys(&["5"]);
    if session.holds("to_regclass('background.operations') IS NULL") {
        terminal.see("has no view \"operations\"");
        session.exec(OPERATIONS);
    } else {
        session.exec("CREATE TABLE big AS SELECT generate_series(1, 1000) AS n; CREATE INDEX ON big (n)");
        session.exec(
            "SELECT background.parallel_execute('DELETE FROM big WHERE n BETWEEN $1 AND $2', 'big', 'n', label => 'shrink')",
        );
    }
    terminal.see("shrink");
    terminal.press(&["Enter"], "chunks_done");
    terminal.see("attempts");
    terminal.press(&["p"], "(y/n)");
    terminal.keys(&["n"]);
    terminal.press(&["Escape"], "1-1 of 1");
    // A terminal that is too small shows what it can.
    terminal.resize(9, 3);
    terminal.press(&["?"], "keys");
    terminal.resize(80, 24);
    terminal.see("┌ keys");
    terminal.keys(&["x"]);
    terminal.press(&["q"], "ended with 0");

    // One message for each look, with a limit that fits.
    let log = cluster.log();
    let messages: Vec<_> = log
        .lines()
        .filter(|line| line.contains(" pg_background_top ") && line.contains("statement: "))
        .collect();
    assert!(messages.len() > 10, "{messages:?}");
    for message in messages {
        assert!(
            message.contains("statement: SET LOCAL search_path = pg_catalog; SELECT"),
            "{message}"
        );
        let limits = message.split("LIMIT ").skip(1);
        let limits: Vec<u32> = limits
            .map(|rest| {
                rest.split(|c: char| !c.is_ascii_digit())
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert!(limits.iter().all(|limit| *limit <= 29), "{message}");
        assert_eq!(
            message.contains("count(*) OVER"),
            !limits.is_empty() && !message.contains("::text = E'"),
            "{message}"
        );
    }
}

#[test]
fn the_server_goes_away_and_comes_back() {
    let cluster = cluster(&[]);
    cluster.session().exec("SELECT background.set_queue('kept')");
    let terminal = Terminal::start(&cluster, &[], &["-i", "0.2", "-t", "queues"]);
    terminal.see("kept");
    // A server that does not answer does not hold up the keys.
    let backend: i32 = cluster
        .session()
        .value("(SELECT pid FROM pg_stat_activity WHERE application_name = 'pg_background_top')");
    cluster.signal(backend, "STOP");
    terminal.see("no answer for");
    terminal.press(&["?"], "┌ keys");
    terminal.keys(&["x", "2"]);
    terminal.wait("another tab", |screen| {
        screen.contains("looking") && screen.contains("no answer for")
    });
    terminal.keys(&["3"]);
    cluster.signal(backend, "CONT");
    terminal.see("every 0.2 s");
    cluster.stop(Shutdown::Fast);
    // What was there is still shown.
    let screen = terminal.see("no connection for");
    assert!(screen.contains("kept"), "{screen}");
    terminal.press(&["p"], "(y/n)");
    terminal.press(&["y"], "there is no connection");
    cluster.restart();
    terminal.see("postgres as postgres");
    terminal.press(&["1"], "1 jobs");
    cluster
        .session()
        .exec("SELECT pg_background_run('SELECT 1', label => 'afterwards')");
    terminal.see("afterwards");
    // The extensions go, and come.
    cluster.session().exec("DROP EXTENSION pg_background CASCADE");
    terminal.see("extension pg_background is not in this database");
    cluster
        .session()
        .exec("CREATE SCHEMA \"Else where\"; CREATE EXTENSION pg_background SCHEMA \"Else where\"");
    terminal.see("afterwards");
    terminal.press(&["2"], "extension pg_background_tasks is not in this database");
    terminal.press(&["C-c"], "ended with 0");
}

#[test]
fn a_role_sees_its_own() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE ann LOGIN IN ROLE pgbackground_role; CREATE ROLE bob LOGIN");
    session.exec("SELECT background.enqueue('SELECT ''other''', queue => 'default')");
    let hostile = "E'\\x1b]0;title\\x07\\x1b[2J of ann'";
    let id = cluster
        .session_as("ann")
        .enqueue(&format!("'SELECT ''own''', label => {hostile}"));
    session.wait_task(id);
    let as_role = |role, arguments: &[&str]| answer(program(&cluster).env("PGUSER", role).args(arguments));
    let (status, table, _) = as_role("ann", &["--once", "--tab=tasks"]);
    assert_eq!(status, 0);
    assert!(table.contains("own") && !table.contains("other"), "{table}");
    // What a terminal would obey is not printed.
    assert!(
        table.contains("[2J of ann") && !table.contains('\x1b') && !table.contains('\x07'),
        "{table:?}"
    );
    assert!(as_role("postgres", &["--once", "--tab=tasks"]).1.contains("other"));
    assert!(as_role("ann", &["--once"]).1.contains("own"));
    for tab in ["jobs", "tasks", "queues", "schedules"] {
        assert_eq!(as_role("ann", &["--once", "-t", tab]).0, 0, "{tab}");
        let (status, output, error) = as_role("bob", &["--once", "-t", tab]);
        assert_eq!((status, output.as_str()), (1, ""), "{tab}");
        assert!(error.contains("permission denied for view"), "{error}");
    }
    // Filters and the order are the server's.
    assert_eq!(
        as_role("postgres", &["--once", "-t", "tasks", "-f", "OTHER"])
            .1
            .lines()
            .count(),
        2
    );
    assert_eq!(
        as_role("postgres", &["--once", "-t", "tasks", "-u"]).1.lines().count(),
        1
    );
    let sorted = as_role("postgres", &["--once", "-t", "tasks", "-s", "-id", "-n", "1"]).1;
    assert!(sorted.contains("own") && sorted.contains("(1 of 2)"), "{sorted}");
    let (status, document, _) = as_role("ann", &["--json", "-t", "tasks"]);
    assert_eq!(status, 0);
    assert_eq!(document.lines().count(), 1);
    let document = document.replace('\'', "''");
    assert!(session.holds(&format!(
        "(SELECT d ->> 'role' = 'ann' AND d ->> 'tab' = 'tasks' AND json_array_length(d -> 'rows') = 1 \
           AND (d #>> '{{rows,0,id}}')::int8 = {id} AND d #>> '{{rows,0,state}}' = 'done' FROM CAST('{document}' AS json) AS d)"
    )));
    assert_eq!(as_role("ann", &["-x"]).0, 2);
    assert!(as_role("ann", &[]).2.contains("no terminal"));
}

#[test]
fn without_colours() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("SELECT pg_background_run('SELECT 1 / 0', label => 'division')");
    let colours = |variables: &[(&str, &str)]| {
        let terminal = Terminal::start(&cluster, variables, &[]);
        terminal.see("division");
        terminal.colours()
    };
    let is_coloured = |screen: &str| {
        screen.contains("38;5;")
            || (0..8).any(|n| screen.contains(&format!("[3{n}m")) || screen.contains(&format!(";3{n}m")))
    };
    assert!(is_coloured(&colours(&[])));
    assert!(!is_coloured(&colours(&[("NO_COLOR", "1")])));
}

#[test]
fn passwords() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE ann LOGIN PASSWORD 'se:cret'");
    session.exec("GRANT pgbackground_role TO ann");
    let rules = cluster.data().join("pg_hba.conf");
    let text = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("local all ann scram-sha-256\n{text}")).unwrap();
    session.exec("SELECT pg_reload_conf()");
    let ask = |variables: &[(&str, &str)], arguments: &[&str]| {
        answer(
            program(&cluster)
                .env("PGUSER", "ann")
                .envs(variables.iter().copied())
                .arg("--once")
                .args(arguments),
        )
    };
    session.wait_until("EXISTS (SELECT FROM pg_hba_file_rules WHERE user_name = '{ann}')");
    let refused = ask(&[], &["-w"]).2;
    assert!(refused.contains("no password supplied"), "{refused}");
    assert_eq!(ask(&[("PGPASSWORD", "se:cret")], &[]).0, 0);
    assert!(ask(&[("PGPASSWORD", "wrong")], &[]).2.contains("28P01"));
    let (passwords, services) = (
        cluster.socket_dir().join("passwords"),
        cluster.socket_dir().join("services"),
    );
    std::fs::write(&passwords, "*:5433:*:*:wrong\n*:*:postgres:ann:se\\:cret\n").unwrap();
    std::fs::write(
        &services,
        format!("[here]\npassfile={}\ndbname=postgres\n", passwords.display()),
    )
    .unwrap();
    let given = [("PGSERVICEFILE", services.to_str().unwrap()), ("PGSERVICE", "here")];
    std::fs::set_permissions(&passwords, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(ask(&given, &["-w"]).2.contains("group or world access"));
    std::fs::set_permissions(&passwords, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(ask(&given, &["-w"]).0, 0);
    let (status, _, error) = ask(&[], &["postgresql://ann:se%3Acret@/postgres?application_name=x"]);
    assert_eq!((status, error.as_str()), (0, ""));
    // Typed, and not shown.
    let terminal = Terminal::start(&cluster, &[("PGUSER", "ann")], &[]);
    terminal.see("Password for user ann:");
    terminal.keys(&["s", "e", ":", "c", "r", "e", "t", "Enter"]);
    assert!(!terminal.see("postgres as ann").contains("se:cret"));
    // The terminal is left as it was also by a signal.
    terminal.signal(&cluster, "TERM");
    terminal.see("ended with 0");
}

#[test]
fn tls() {
    // An address of its own, since the port is that of every cluster.
    let pid = std::process::id();
    let address = format!("127.{}.{}.{}", 1 + pid / 62_500 % 250, pid / 250 % 250, 1 + pid % 250);
    let cluster = cluster(&[]);
    cluster
        .session()
        .exec("CREATE ROLE ann LOGIN IN ROLE pgbackground_role");
    let directory = cluster.socket_dir().to_owned();
    let (key, certificate) = (directory.join("server.key"), directory.join("server.crt"));
    let make = |name: &str, key: &std::path::Path, certificate: &std::path::Path, more: &[&str]| {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
        ]);
        harness::run(openssl.arg(key).arg("-out").arg(certificate).args(more));
    };
    make("db.example", &key, &certificate, &["-nodes"]);
    let (own_key, own_certificate) = (directory.join("ann.key"), directory.join("ann.crt"));
    make("ann", &own_key, &own_certificate, &["-passout", "pass:sesame"]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    harness::give_to_server(&key);
    cluster.stop(Shutdown::Fast);
    cluster.append_settings(&[
        "ssl = on",
        &format!("ssl_key_file = '{}'", key.display()),
        &format!("ssl_cert_file = '{}'", certificate.display()),
        &format!("listen_addresses = '{address}'"),
    ]);
    cluster.append_settings(&[&format!("ssl_ca_file = '{}'", own_certificate.display())]);
    let rules = cluster.data().join("pg_hba.conf");
    std::fs::write(
        &rules,
        "local all all trust\nhostssl all ann all cert\nhostssl all all all trust\n",
    )
    .unwrap();
    cluster.restart();
    let ask = |more: &str| {
        let place = format!("host=db.example hostaddr={address} user=postgres dbname=postgres {more}");
        let (status, _, error) = answer(program(&cluster).env_remove("PGHOST").args(["--once", &place]));
        (status, error)
    };
    let root = format!("sslrootcert={}", certificate.display());
    for good in [
        "",
        "sslmode=prefer",
        "sslmode=allow",
        "sslmode=require",
        "channel_binding=require",
    ] {
        // There is no password that a channel could be bound to.
        if good.starts_with("channel") {
            assert_eq!(ask(good).0, 1);
        } else {
            assert_eq!(ask(good), (0, String::new()), "{good}");
        }
    }
    for verified in ["verify-ca", "verify-full", "require"] {
        assert_eq!(
            ask(&format!("{root} sslmode={verified}")),
            (0, String::new()),
            "{verified}"
        );
    }
    let refused = |more: &str, reason: &str| {
        let (status, error) = ask(more);
        assert!(status == 1 && error.contains(reason), "{more}: {error}");
    };
    refused("sslmode=disable", "no encryption");
    refused("sslmode=verify-ca", "root certificate file does not exist");
    refused("sslmode=none", "invalid sslmode value");
    refused(
        &format!("{root} sslmode=verify-full host=other.example"),
        "certificate verify failed",
    );
    assert_eq!(ask(&format!("{root} sslmode=verify-ca host=other.example")).0, 0);
    // A root that did not sign the server's certificate.
    let other = directory.join("other.crt");
    make("other", std::path::Path::new("/dev/null"), &other, &["-nodes"]);
    for mode in ["require", "verify-ca", "verify-full"] {
        refused(
            &format!("sslrootcert={} sslmode={mode}", other.display()),
            "certificate verify failed",
        );
    } // A certificate of one's own, whose key needs a password.
    let mine = format!(
        "user=ann sslcert={} sslkey={}",
        own_certificate.display(),
        own_key.display()
    );
    refused("user=ann", "valid client certificate");
    refused(&format!("{mine} sslpassword=wrong"), "could not load private key file");
    refused(&mine, "could not load private key file");
    assert_eq!(ask(&format!("{mine} sslpassword=sesame")), (0, String::new()));
    std::fs::set_permissions(&own_key, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(&format!("{mine} sslpassword=sesame"), "group or world access");
}
