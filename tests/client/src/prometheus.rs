//! Prometheus and its exporters beside a cluster: on free ports of the loopback address, with a directory of their own, removed when dropped.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::cluster::Cluster;
use crate::process::run;
use crate::wait_for;

/// The directory of this project.
pub fn project() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.join("../..").canonicalize().expect("the project has a directory")
}

/// The directory of the programs, which are fetched if they are not installed. None, with a line, if they cannot be had.
pub fn programs() -> Option<&'static Path> {
    static PROGRAMS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| {
        let output = Command::new(project().join("scripts/get-prometheus")).output();
        let output = output.unwrap_or_else(|e| panic!("cannot run scripts/get-prometheus: {e}"));
        output
            .status
            .success()
            .then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    });
    if programs.is_none() {
        println!("Prometheus cannot be had, and what needs it is not tested: scripts/get-prometheus");
    }
    programs.as_deref()
}

/// A running program that is killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prometheus with the configuration of `monitoring/`, changed only in addresses and intervals, and both exporters.
pub struct Monitored {
    dir: PathBuf,
    port: u16,
    programs: Vec<Program>,
}

impl Monitored {
    /// Watches the databases `databases` of the cluster, of which the first one is `postgres`, as the role `monitor`.
    pub fn start(programs: &Path, cluster: &Cluster, databases: &[&str]) -> Self {
        let dir = run(Command::new("mktemp").args(["-d", "/tmp/pgbg.XXXXXX"])).stdout;
        let dir = PathBuf::from(String::from_utf8(dir).expect("a path").trim());
        let [port, postgres_port, sql_port] = free_ports();
        let read = |name: &str| {
            let path = project().join("monitoring").join(name);
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("the directory takes files");
        let socket = cluster.socket_dir().display();
        let place = "- postgres://monitor@localhost:5432/postgres?sslmode=disable";
        let places: Vec<_> = databases
            .iter()
            .map(|database| format!("- postgres://monitor@/{database}?host={socket}&sslmode=disable"))
            .collect();
        write(
            "sql_exporter.yml",
            &replaced(
                &read("sql_exporter.yml"),
                &[("interval: 15s", "interval: 1s"), (place, &places.join("\n      "))],
            ),
        );
        write(
            "prometheus.yml",
            &replaced(
                &read("prometheus.yml"),
                &[
                    ("scrape_interval: 15s", "scrape_interval: 1s"),
                    ("evaluation_interval: 15s", "evaluation_interval: 1s"),
                    ("localhost:9187", &format!("127.0.0.1:{postgres_port}")),
                    ("localhost:9237", &format!("127.0.0.1:{sql_port}")),
                ],
            ),
        );
        let rules: Vec<_> = read("rules.yml")
            .lines()
            .map(|line| match line.split_once("for: ") {
                Some((before, _)) => format!("{before}for: 0s"),
                None => line.to_owned(),
            })
            .collect();
        write("rules.yml", &rules.join("\n"));
        let begin = |name: &str, arguments: &[String]| {
            let log = std::fs::File::create(dir.join(name)).expect("the directory takes files");
            let child = Command::new(programs.join(name))
                .args(arguments)
                .env(
                    "DATA_SOURCE_NAME",
                    format!("host={socket} user=monitor dbname=postgres sslmode=disable"),
                )
                .current_dir(&dir)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a file has two names"))
                .stderr(log)
                .spawn();
            Program(child.unwrap_or_else(|e| panic!("cannot run {name}: {e}")))
        };
        let queries = project().join("monitoring/postgres_exporter.yml");
        let programs = vec![
            begin(
                "prometheus-postgres-exporter",
                &[
                    format!("--web.listen-address=127.0.0.1:{postgres_port}"),
                    format!("--extend.query-path={}", queries.display()),
                    "--auto-discover-databases".to_owned(),
                    "--disable-default-metrics".to_owned(),
                    "--disable-settings-metrics".to_owned(),
                    "--no-collector.database".to_owned(),
                    "--no-collector.bgwriter".to_owned(),
                ],
            ),
            begin(
                "prometheus-sql-exporter",
                &[
                    "-config.file=sql_exporter.yml".to_owned(),
                    format!("-web.listen-address=127.0.0.1:{sql_port}"),
                ],
            ),
            begin(
                "prometheus",
                &[
                    "--config.file=prometheus.yml".to_owned(),
                    "--storage.tsdb.path=data".to_owned(),
                    format!("--web.listen-address=127.0.0.1:{port}"),
                ],
            ),
        ];
        let monitored = Self { dir, port, programs };
        wait_for("the start of Prometheus", || get(port, "/-/ready").is_some());
        monitored
    }

    /// The answer to an expression, as JSON.
    pub fn query(&self, expression: &str) -> String {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = get(self.port, &format!("/api/v1/query?query={encoded}"));
        answer.unwrap_or_else(|| panic!("Prometheus does not answer to {expression}"))
    }

    /// The rules, and how they are, as JSON.
    pub fn rules(&self) -> String {
        get(self.port, "/api/v1/rules").expect("Prometheus answers")
    }
}

impl Drop for Monitored {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["prometheus", "prometheus-postgres-exporter", "prometheus-sql-exporter"] {
                let log = std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                let last = &lines[lines.len().saturating_sub(20)..];
                eprintln!("the end of the log of {name}:\n{}", last.join("\n"));
            }
        }
        self.programs.clear();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The text with each of these replaced, which must be there.
fn replaced(text: &str, all: &[(&str, &str)]) -> String {
    all.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "there is no {from:?} in\n{text}");
        text.replace(from, to)
    })
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        core::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    listeners.map(|listener| listener.local_addr().expect("it has an address").port())
}

/// The body of the answer, None without one or if it is an error.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split_whitespace().nth(1).filter(|status| *status == "200")?;
    Some(body.to_owned())
}
