//! Programs of the PostgreSQL installation, run as a user that the server accepts.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Returns the answer of `pg_config --<option>` of the installation under test.
pub fn pg_config(option: &str) -> String {
    let program = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".to_owned());
    let output = Command::new(&program)
        .arg(format!("--{option}"))
        .output()
        .unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    assert!(output.status.success(), "{program} --{option} failed");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether an extension of others is installed in the installation under test. Says so if it is not: what needs it is then not tested.
pub fn has_extension(name: &str) -> bool {
    let control = PathBuf::from(pg_config("sharedir")).join(format!("extension/{name}.control"));
    let is_there = control.exists();
    if !is_there {
        println!("the extension {name} is not installed, and what needs it not tested: scripts/get-other-extensions");
    }
    is_there
}

fn bindir() -> &'static PathBuf {
    static BINDIR: OnceLock<PathBuf> = OnceLock::new();
    BINDIR.get_or_init(|| pg_config("bindir").into())
}

/// The user and group ids that server programs run as, if they must differ from the caller's: PostgreSQL refuses to run as root.
fn server_user() -> Option<(u32, u32)> {
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        let id = |args: &[&str]| -> u32 {
            let output = Command::new("id").args(args).output().expect("id runs");
            assert!(
                output.status.success(),
                "there is no user postgres to run the server as"
            );
            String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
        };
        (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
    })
}

/// A command that runs as the server's user.
pub fn as_server(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = server_user() {
        command.uid(user).gid(group);
    }
    // With RUST_BACKTRACE set, the server's messages would have backtraces.
    command
        .current_dir("/")
        .env_remove("RUST_BACKTRACE")
        .env_remove("PGUSER")
        .env_remove("PGHOST")
        .env_remove("PGPORT");
    command
}

/// A program of the installation under test, to run as the server's user.
pub fn server_program(name: &str) -> Command {
    as_server(bindir().join(name))
}

/// A plain psql, without a user's own start-up file.
pub fn psql() -> Command {
    let mut command = Command::new(bindir().join("psql"));
    command.arg("-X");
    command
}

/// Runs a command that must succeed, and returns its output.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Returns a number from `/proc/<pid>/status`, for example `VmHWM` in kB.
#[track_caller]
pub fn process_status(pid: i32, field: &str) -> u64 {
    try_process_status(pid, field).unwrap_or_else(|| panic!("process {pid} has no {field}"))
}

/// The same; `None` if the process has exited.
pub fn try_process_status(pid: i32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find(|line| line.starts_with(field) && line[field.len()..].starts_with(':'))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Returns the number of entries in a process's `/proc` directory of that name, for example `fd`.
pub fn process_entries(pid: i32, directory: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/{directory}")).map_or(0, Iterator::count)
}

/// Makes the server's user the owner of a file or directory.
pub fn give_to_server(path: &std::path::Path) {
    if let Some((user, group)) = server_user() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).expect("the owner can be changed");
    }
}
