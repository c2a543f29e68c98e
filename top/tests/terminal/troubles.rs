//! What is not as it should be: bytes, signals, servers that do not answer, outputs that are full.

use std::process::{Command, Stdio};

use harness::Cluster;

use crate::cluster;
use crate::tmux::{Terminal, answer, program};

#[test]
fn bytes_that_are_no_utf8() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for (name, encoding, locale) in [
        ("latin", "LATIN1", "C"),
        ("bytes", "SQL_ASCII", "C"),
        ("japan", "EUC_JP", "C"),
        ("lower", "UTF8", "C.UTF-8"),
    ] {
        session.exec(&format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE '{locale}'"
        ));
        cluster
            .session_in(name, "postgres")
            .exec("CREATE EXTENSION pg_background");
    }
    // A name in a catalog of the cluster, and labels and statements in its shared memory.
    let mut latin = cluster.session_in("latin", "postgres");
    latin.exec("CREATE ROLE \"rol\u{e9}\" IN ROLE pgbackground_role");
    latin.exec("SET SESSION AUTHORIZATION \"rol\u{e9}\"");
    latin.exec("SELECT pg_background_run('SELECT ''\u{e9}''', label => 'lab\u{e9}l')");
    let mut bytes = cluster.session_in("bytes", "postgres");
    bytes.exec("SET client_encoding = 'SQL_ASCII'");
    bytes.exec(r"SELECT count(*) FROM pg_background_run(E'SELECT ''\xe9\xff''', label => E'b\xe9te')");
    let ask =
        |database: &str, arguments: &[&str]| answer(program(&cluster).env("PGDATABASE", database).args(arguments));
    // The extension converts labels and SQL from the encoding of a job's database; names it cannot.
    for (database, role, label) in [
        ("postgres", "rol\u{fffd}", "b?te"),
        ("latin", "rol\u{e9}", "b\u{e9}te"),
        ("bytes", "rol\u{fffd}", "b\u{fffd}te"),
        ("japan", "rol\u{fffd}", "b?te"),
        ("lower", "rol\u{fffd}", "b?te"),
    ] {
        for option in ["--once", "--json"] {
            let (status, text, error) = ask(database, &[option, "-n", "0"]);
            assert_eq!((status, error.as_str()), (0, ""), "{database}");
            assert!(text.contains(role) && text.contains(label), "{database}: {text}");
        }
        // Such a name can be searched and sorted.
        let (status, text, error) = ask(database, &["--once", "-f", "ROL", "-s", "role"]);
        assert_eq!((status, error.as_str()), (0, ""), "{database}");
        assert!(text.contains(role) && !text.contains(label), "{database}: {text}");
        let terminal = Terminal::start(&cluster, &[("PGDATABASE", database)], &[]);
        terminal.see(role);
        terminal.see(label);
        terminal.press(&["Enter"], "sql_preview");
        terminal.press(&["Escape"], "1-2 of 2");
        terminal.press(&["q"], "ended with 0");
    }
}

#[test]
fn what_the_server_converts_is_whole() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE DATABASE japan TEMPLATE template0 ENCODING 'EUC_JP' LOCALE 'C'");
    let mut japan = cluster.session_in("japan", "postgres");
    japan.exec("CREATE EXTENSION pg_background");
    japan.exec("SELECT pg_background_run('SELECT 1', label => '\u{65e5}\u{672c}')");
    let (status, text, error) = answer(program(&cluster).env("PGDATABASE", "japan").arg("--once"));
    assert!(status == 0 && text.contains("\u{65e5}\u{672c}"), "{text}{error}");
}

#[test]
fn signals_restore_the_terminal() {
    let cluster = cluster(&[]);
    for signal in ["INT", "QUIT", "TERM", "HUP"] {
        let terminal = Terminal::start(&cluster, &[], &[]);
        terminal.see("postgres as postgres");
        assert!(!terminal.is_restored());
        terminal.signal(&cluster, signal);
        terminal.see("ended with 0");
        assert!(terminal.is_restored(), "{signal}");
    }
    let terminal = Terminal::start(&cluster, &[], &[]);
    terminal.see("postgres as postgres");
    terminal.keys(&["C-z"]);
    terminal.see("stopped with");
    assert!(terminal.is_restored());
    // Keys are the shell's meanwhile.
    terminal.press(&["a", "b", "c"], "abc");
    terminal.press(&["Enter"], "postgres as postgres");
    assert!(!terminal.is_restored());
    terminal.press(&["2"], "1 jobs  2 tasks");
    terminal.signal(&cluster, "TSTP");
    terminal.wait("a second stop", |screen| screen.matches("stopped with").count() == 2);
    assert!(terminal.is_restored());
    terminal.press(&["Enter"], "postgres as postgres");
    // A stop that no program can handle.
    terminal.signal(&cluster, "STOP");
    terminal.see("stopped");
    terminal.keys(&["Enter"]);
    terminal.wait("the whole screen", |screen| {
        screen.contains("postgres as postgres") && !screen.contains("stopped")
    });
    terminal.press(&["q"], "ended with 0");
    assert!(terminal.is_restored());
}

/// A postmaster that is stopped: the kernel takes connections, and nothing answers them.
struct Stopped<'a>(&'a Cluster, i32);

impl<'a> Stopped<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let file = std::fs::read_to_string(cluster.data().join("postmaster.pid")).unwrap();
        let pid = file.lines().next().unwrap().parse().unwrap();
        cluster.signal(pid, "STOP");
        Self(cluster, pid)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.try_signal(self.1, "CONT");
    }
}

#[test]
fn the_time_to_connect_covers_the_start() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    let limit = [("PGCONNECT_TIMEOUT", "2")];
    let terminal = Terminal::start(&cluster, &limit, &["-i", "0.2"]);
    terminal.see("postgres as postgres");
    let stopped = Stopped::new(&cluster);
    let once = Terminal::start(&cluster, &limit, &["--once"]);
    let screen = once.see("ended with 1");
    assert!(screen.contains("timeout expired"), "{screen}");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg_background_top'";
    session.exec(end);
    terminal.see("no connection for");
    terminal.resize(200, 24);
    terminal.see("timeout expired");
    drop(stopped);
    terminal.see("postgres as postgres");
    // Without a limit, too, the keys work.
    let patient = Terminal::start(&cluster, &[], &["-i", "0.2"]);
    patient.see("postgres as postgres");
    let _stopped = Stopped::new(&cluster);
    session.exec(end);
    for terminal in [terminal, patient] {
        terminal.see("no connection for");
        terminal.press(&["?"], "keys");
        terminal.keys(&["x"]);
        terminal.press(&["q"], "ended with 0");
    }
}

#[test]
fn outputs_that_are_full_or_closed() {
    let command = || Command::new(env!("CARGO_BIN_EXE_pg_background_top"));
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for option in ["--help", "--version"] {
        let ask = |out: Stdio| {
            let output = command().arg(option).stdout(out).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(ask(writer.into()), (Some(0), String::new()));
        let (status, error) = ask(full().into());
        assert_eq!(status, Some(1));
        assert!(error.contains("No space left") && error.lines().count() == 1, "{error}");
    }
    // An error that cannot be told.
    assert_eq!(
        command().arg("--wrong").stderr(full()).status().unwrap().code(),
        Some(2)
    );
}

#[test]
fn rows_of_other_roles_and_with_long_names() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE ann LOGIN IN ROLE pgbackground_role");
    session.exec("SELECT background.set_queue(repeat('q', 60) || 'END')");
    for label in ["one", "two"] {
        session.exec(&format!("SELECT pg_background_run('SELECT 1', label => '{label}')"));
    }
    let terminal = Terminal::start(&cluster, &[("PGUSER", "ann")], &["-i", "0.2"]);
    terminal.see("1-2 of 2");
    let refusal = "job of another role: without its privileges it cannot be followed or canceled";
    terminal.press(&["Enter"], refusal);
    terminal.press(&["Down"], "c cancel");
    terminal.press(&["c"], refusal);
    terminal.press(&["q"], "ended with 0");
    // The cookie is a random number of 64 bits.
    let json = |user: &str| answer(program(&cluster).env("PGUSER", user).arg("--json")).1;
    assert_eq!(json("postgres").matches("\"cookie\":\"").count(), 2);
    assert_eq!(json("ann").matches("\"cookie\":null").count(), 2);
    let terminal = Terminal::start(&cluster, &[], &["-t", "queues", "-f", "END"]);
    terminal.see("1-1 of 1");
    terminal.press(&["p"], "qEND? (y/n)");
    terminal.keys(&["n"]);
    terminal.press(&["q"], "ended with 0");
}
