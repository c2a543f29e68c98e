//! Starts processes before there are jobs for them.
//!
//! If each job gets a fresh process (`pg_background.worker_idle_timeout = 0`), starting that process takes half of the time of a short
//! job, up to the point where it connects to the database. None of that depends on the job. So when one such job follows another, in any
//! session, the processes for the next ones are started while a job runs. Spare workers are connected to no database, so they hinder no
//! other session. They serve any job of the cluster, and exit soon if none comes.

use crate::pg::process::{backend, bgworker};
use crate::registry::pool;
use crate::{settings, worker};

/// How soon after one job the next must come for spare workers to be started, in microseconds.
const SOON: i64 = 1_000_000;

/// Notes that a job was given a fresh process. If that happens again and again, asks for spare workers for the next jobs, as far as the
/// server has free slots. Guarded.
pub fn start_ahead() {
    let goes_on = pool::use_fresh() < SOON;
    while goes_on
        && settings::worker_idle_timeout() == 0
        && let Ok(token) = backend::strong_random()
        && let Some(expected) = pool::expect_spare(token, settings::max_idle_workers())
        && let Some(worker) = bgworker::register_worker(worker::SPARE_MAIN, expected.number, token)
    {
        expected.comes_as(worker);
    }
}
