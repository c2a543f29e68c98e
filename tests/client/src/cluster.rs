//! A PostgreSQL cluster of one test: its own directory, its own unix socket, removed when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::process::{as_server, give_to_server, pg_config, psql, run, server_program};
use crate::session::Session;

/// The shutdown modes of pg_ctl.
#[derive(Clone, Copy, Debug)]
pub enum Shutdown {
    Smart,
    Fast,
    Immediate,
}

impl Shutdown {
    fn name(self) -> &'static str {
        match self {
            Self::Smart => "smart",
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

/// Text that a server's log must not contain after a test that did not provoke it.
const TROUBLE: [&str; 7] = [
    "PANIC",
    "TRAP:",
    "was terminated by signal",
    "leak",
    "corrupt",
    "was not closed",
    "exited with exit code 2",
];

pub struct Cluster {
    dir: PathBuf,
    crash_expected: AtomicBool,
}

impl Cluster {
    /// Starts a cluster with the extension in database `postgres` and the given settings (`name = value`).
    pub fn start(settings: &[&str]) -> Self {
        let cluster = Self::start_plain(settings);
        cluster.session().exec("CREATE EXTENSION pg_background");
        cluster
    }

    /// The same without the extension.
    pub fn start_plain(settings: &[&str]) -> Self {
        let cluster = Self::prepare(settings);
        cluster.restart();
        cluster
    }

    /// A hot standby of `primary`, streaming from it.
    pub fn standby_of(primary: &Self, settings: &[&str]) -> Self {
        let cluster = Self::empty();
        run(server_program("pg_basebackup")
            .args(["-R", "-c", "fast", "-U", "postgres", "-h"])
            .arg(primary.socket_dir())
            .arg("-D")
            .arg(cluster.data()));
        cluster.configure(settings);
        cluster.restart();
        cluster
    }

    /// Starts a cluster with PostgreSQL's own defaults, except for the settings that isolate the cluster and for the given ones: for
    /// measurements.
    pub fn start_with_defaults(settings: &[&str]) -> Self {
        let cluster = Self::empty();
        run(Command::new("cp").arg("-a").arg(template()).arg(cluster.data()));
        cluster.append_settings(&[
            &format!("unix_socket_directories = '{}'", cluster.dir.display()),
            "listen_addresses = ''",
        ]);
        cluster.append_settings(settings);
        cluster.restart();
        cluster
    }

    fn prepare(settings: &[&str]) -> Self {
        let cluster = Self::empty();
        run(Command::new("cp").arg("-a").arg(template()).arg(cluster.data()));
        cluster.configure(settings);
        cluster
    }

    fn empty() -> Self {
        // The path of a unix socket must be short: so it is not below a temporary directory of unknown length.
        let dir = run(as_server("mktemp").args(["-d", "/tmp/pgbg.XXXXXX"])).stdout;
        Self {
            dir: String::from_utf8(dir).unwrap().trim().into(),
            crash_expected: AtomicBool::new(false),
        }
    }

    fn configure(&self, settings: &[&str]) {
        let socket = format!("unix_socket_directories = '{}'", self.dir.display());
        self.append_settings(&[
            &socket,
            "listen_addresses = ''",
            "fsync = off",
            "max_connections = 40",
            "max_worker_processes = 32",
            "log_line_prefix = '%m [%p] %b '",
        ]);
        if workers_are_fresh() {
            self.append_settings(&["pg_background.worker_idle_timeout = 0"]);
        }
        self.append_settings(settings);
    }

    /// Appends to the configuration file, in which the last value of a setting counts.
    pub fn append_settings(&self, settings: &[&str]) {
        let path = self.data().join("postgresql.conf");
        let mut text = std::fs::read_to_string(&path).unwrap();
        for setting in settings {
            text.push_str(setting);
            text.push('\n');
        }
        std::fs::write(&path, text).unwrap();
    }

    /// Starts the server, or starts it again.
    pub fn restart(&self) {
        self.restart_with(&[]);
    }

    /// The same, in an environment with these variables.
    pub fn restart_with(&self, variables: &[(&str, &Path)]) {
        let status = server_program("pg_ctl")
            .envs(variables.iter().copied())
            .args(["-w", "-s", "-t", "60", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.log_path())
            .arg("start")
            // pg_ctl's child, the server, would inherit a pipe of the test runner and leave it open.
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "the server did not start:\n{}", self.log());
    }

    /// Stops the server, which must end within the timeout of pg_ctl.
    #[track_caller]
    pub fn stop(&self, mode: Shutdown) {
        assert!(
            self.try_stop(mode),
            "a {} shutdown did not end within 60 s:\n{}",
            mode.name(),
            self.log_tail()
        );
    }

    fn try_stop(&self, mode: Shutdown) -> bool {
        server_program("pg_ctl")
            .args(["-w", "-s", "-t", "60", "-m", mode.name(), "-D"])
            .arg(self.data())
            .arg("stop")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    /// Whether a postmaster of this cluster runs.
    pub fn is_running(&self) -> bool {
        self.data().join("postmaster.pid").exists()
    }

    /// Declares that this test crashes the server, so that the log may report it.
    pub fn expect_crash(&self) {
        self.crash_expected.store(true, Ordering::Relaxed);
    }

    pub fn session(&self) -> Session {
        self.session_as("postgres")
    }

    pub fn session_as(&self, role: &str) -> Session {
        self.session_in("postgres", role)
    }

    /// A session whose connection asks for settings, as with PGOPTIONS.
    #[track_caller]
    pub fn session_with(&self, role: &str, options: &str) -> Session {
        Session::connect(&self.dir, "postgres", role, options).expect("a connection with options")
    }

    #[track_caller]
    pub fn session_in(&self, database: &str, role: &str) -> Session {
        self.try_session_in(database, role)
            .unwrap_or_else(|e| panic!("cannot connect: {e}\n{}", self.log_tail()))
    }

    pub fn try_session_in(&self, database: &str, role: &str) -> Result<Session, postgres::Error> {
        Session::connect(&self.dir, database, role, "")
    }

    /// Restores what pg_dump writes of the database `postgres` of another cluster.
    pub fn restore(&self, original: &Self) {
        let dump = run(server_program("pg_dump")
            .args(["-U", "postgres", "-d", "postgres", "-h"])
            .arg(original.socket_dir()));
        let script = self.data().join("dump.sql");
        std::fs::write(&script, dump.stdout).expect("the dump is written");
        give_to_server(&script);
        self.session().exec("DROP EXTENSION IF EXISTS pg_background");
        run(psql()
            .args(["-U", "postgres", "-d", "postgres", "-q", "-h"])
            .arg(self.socket_dir())
            .arg("-f")
            .arg(&script));
    }

    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Temporary files of the cluster, anywhere below `pgsql_tmp`.
    pub fn temporary_files(&self) -> Vec<PathBuf> {
        fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    collect(&path, files)
                } else {
                    files.push(path)
                }
            }
        }
        let mut files = Vec::new();
        collect(&self.data().join("base/pgsql_tmp"), &mut files);
        files
    }

    /// Dynamic shared memory segments of the cluster, if it runs with `dynamic_shared_memory_type = mmap`.
    pub fn shared_memory_segments(&self) -> usize {
        std::fs::read_dir(self.data().join("pg_dynshmem")).map_or(0, Iterator::count)
    }

    /// Processes of workers, including those that have not connected to their database yet.
    pub fn worker_processes(&self) -> Vec<i32> {
        let postmaster = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let Some(postmaster) = postmaster.lines().next() else {
            return Vec::new();
        };
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
                read("cmdline").contains("pg_background")
                    && read("status")
                        .lines()
                        .any(|line| line == format!("PPid:\t{postmaster}"))
            })
            .collect()
    }

    /// Sends a signal to a process of the cluster, as by the shell's kill.
    pub fn signal(&self, pid: i32, signal: &str) {
        run(Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()));
    }

    /// The same to a process that may be gone.
    pub fn try_signal(&self, pid: i32, signal: &str) {
        let _ = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(pid.to_string())
            .output();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            eprintln!("the end of the server's log:\n{}", self.log_tail());
        }
        let stopped = !self.is_running() || self.try_stop(Shutdown::Fast);
        if !stopped {
            self.try_stop(Shutdown::Immediate);
        }
        let log = self.log();
        let _ = run(as_server("rm").arg("-rf").arg(&self.dir));
        if failing {
            return;
        }
        assert!(stopped, "the server did not stop in a fast shutdown:\n{log}");
        if !self.crash_expected.load(Ordering::Relaxed) {
            let trouble: Vec<_> = log
                .lines()
                .filter(|line| TROUBLE.iter().any(|mark| line.contains(mark)))
                .collect();
            assert!(
                trouble.is_empty(),
                "the server's log shows trouble:\n{}",
                trouble.join("\n")
            );
        }
    }
}

/// Whether the tests run with a fresh process for each job: `WORKERS=fresh` in the environment. Otherwise (`warm`, or unset) workers wait
/// for the next job as they do by default. A test that sets `pg_background.worker_idle_timeout` itself is not affected.
pub(crate) fn workers_are_fresh() -> bool {
    match std::env::var("WORKERS").as_deref() {
        Ok("fresh") => true,
        Ok("warm" | "") | Err(_) => false,
        Ok(other) => panic!("WORKERS is fresh or warm, not {other}"),
    }
}

/// A freshly initialised data directory to copy, retained from run to run: initdb takes longer than most tests.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    static UNIQUE: AtomicU32 = AtomicU32::new(0);
    TEMPLATE.get_or_init(|| {
        let version: String = pg_config("version")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' })
            .collect();
        let user = run(as_server("id").arg("-u")).stdout;
        let template = PathBuf::from(format!(
            "/tmp/pgbg-template-{version}-{}",
            String::from_utf8(user).unwrap().trim()
        ));
        if !template.join("PG_VERSION").exists() {
            let fresh = format!(
                "{}.{}.{}",
                template.display(),
                std::process::id(),
                UNIQUE.fetch_add(1, Ordering::Relaxed)
            );
            run(server_program("initdb")
                .args([
                    "-U",
                    "postgres",
                    "-A",
                    "trust",
                    "-E",
                    "UTF8",
                    "--no-locale",
                    "--no-sync",
                    "-D",
                ])
                .arg(&fresh));
            // Another process may have been faster: then its directory is used.
            if std::fs::rename(&fresh, &template).is_err() {
                let _ = run(as_server("rm").arg("-rf").arg(&fresh));
            }
        }
        template
    })
}
