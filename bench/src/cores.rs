//! Binds processes of the server to cores.
//!
//! A commit waits for the disk, and the disk's interrupts arrive at one of the cores. A process that commits there is woken at once, on another
//! core later, by up to half of the whole time. The system chooses the core by chance and then rarely moves the process. So two sides that commit are
//! compared on the same core, and on each core in turn. A session and its worker take less time for a job on two cores than on one, so
//! sessions that are compared with each other have two cores each.

use harness::Session;
use std::process::{Command, Stdio};

/// The cores that this process may use.
pub fn all() -> Vec<u32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .unwrap_or_default();
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

/// Binds a session's worker to core `n`, and the session to the next one.
pub fn place_pair(session: &mut Session, cores: &[u32], n: usize) {
    let worker: i32 = session.value("SELECT pid FROM pg_background_run('SELECT 1')");
    place(worker, one(cores, n));
    place(session.pid, one(cores, n + 1));
}

/// Core `n`, modulo the number of cores.
pub fn one(cores: &[u32], n: usize) -> &[u32] {
    cores.get(n % cores.len().max(1)).map_or(&[], core::slice::from_ref)
}

/// Binds a process to these cores. If the system refuses, the process runs on any core.
pub fn place(pid: i32, cores: &[u32]) {
    let list: Vec<_> = cores.iter().map(u32::to_string).collect();
    let _ = Command::new("taskset")
        .args(["-a", "-p", "-c", &list.join(","), &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}
