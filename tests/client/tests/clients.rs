//! The programs of docs/clients.md, as an ordinary role, on a direct connection and behind a PgBouncer in transaction mode.
//!
//! The blocks of a language, one after another, are one program. What can be had of the clients is below the directory that
//! `scripts/get-clients` prints; a program whose client is missing is left out, with a line.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Cluster, Pooler};

/// The program in Rust: the page has this file.
const EXAMPLE: &str = include_str!("clients/example.rs");

mod rust {
    include!("clients/example.rs");

    pub fn run(config: &str) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(example(config))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The blocks of a language on the page.
fn program(language: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/clients.md")).unwrap();
    let mut program = String::new();
    let mut is_inside = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(info) => is_inside = !is_inside && info == language,
            None if is_inside => program.extend([line, "\n"]),
            None => {}
        }
    }
    assert!(!program.is_empty(), "the page has no program in {language}");
    program
}

/// The directory with the clients.
fn clients() -> PathBuf {
    let output = Command::new(root().join("scripts/get-clients")).output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "scripts/get-clients failed");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Runs a program on both ways to a new database, each time with empty tables. `run` gets the directory of the socket.
fn on_both_ways(run: impl Fn(&Path)) {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec("DROP EXTENSION IF EXISTS pg_background_tasks");
    session.exec(&program("sql"));
    // The pooler knows its users by name.
    session.exec("ALTER ROLE clerk RENAME TO app");
    run(cluster.socket_dir());
    assert!(session.holds("count(*) = 1 FROM mail"));
    session.exec("TRUNCATE orders, mail");
    let pooler = Pooler::start(&cluster, &["pool_mode = transaction", "server_lifetime = 0"]);
    run(pooler.socket_dir());
    assert!(session.holds("count(*) = 1 FROM mail"));
}

/// Runs a program that takes the connection from the environment.
fn run(command: &mut Command, socket_dir: &Path) {
    let output = command
        .env("PGHOST", socket_dir)
        .env("PGPORT", "5432")
        .env("PGUSER", "app")
        .env("PGDATABASE", "postgres")
        .output()
        .unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {errors}", socket_dir.display());
}

fn python(language: &str) {
    let libraries = clients().join("python");
    if libraries.is_dir() {
        let program = program(language);
        on_both_ways(|socket_dir| {
            run(
                Command::new("python3")
                    .env("PYTHONPATH", &libraries)
                    .args(["-c", &program]),
                socket_dir,
            )
        });
    }
}

#[test]
fn psycopg() {
    python("python");
}

#[test]
fn sqlalchemy() {
    python("python-sqlalchemy");
}

#[test]
fn node() {
    let clients = clients();
    if clients.join("node_modules").is_dir() {
        let program = program("js");
        on_both_ways(|socket_dir| {
            // A module on the command line looks for others where it was started.
            let mut node = Command::new("node");
            node.args(["--input-type=module", "-e", &program]).current_dir(&clients);
            run(&mut node, socket_dir);
        });
    }
}

#[test]
fn tokio_postgres() {
    assert_eq!(
        program("rust"),
        EXAMPLE,
        "the page has the program of tests/client/tests/clients"
    );
    on_both_ways(|socket_dir| {
        let config = format!("host={} user=app dbname=postgres", socket_dir.display());
        rust::run(&config).unwrap();
    });
}
