//! Temporary clusters and client sessions, for tests and measurements that need several of them at once.

mod cluster;
pub mod order;
mod planted;
mod pooler;
mod probe;
mod process;
mod prometheus;
mod session;

pub use cluster::{Cluster, Shutdown};
pub use planted::plant;
pub use pooler::Pooler;
pub use probe::{Moments, install_probe};
pub use process::{
    as_server, give_to_server, has_extension, pg_config, process_entries, process_status, psql, run, server_program,
    try_process_status,
};
pub use prometheus::{Monitored, programs as prometheus, project};
pub use session::{Counters, Handle, Pending, Rows, Session, SqlError, quoted};

use std::time::{Duration, Instant};

/// The time limit for a condition that must come true: far more than a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The setting with which workers stay idle for as long as it takes, whatever `WORKERS` says: for tests in which one process must run
/// several jobs.
pub const KEPT: &str = "pg_background.worker_idle_timeout = '10min'";

/// Polls `condition` until it holds; panics with `what` at the time limit.
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A small pseudo-random generator (xorshift64*): a storm must be repeatable from its seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns a number from 0 up to, but not including, `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}
