//! Processes ahead of their jobs.
//!
//! Where each job gets a fresh process (`pg_background.worker_idle_timeout = 0`), half of the time that a job takes is the start of that
//! process up to where it connects to the database, and none of that depends on the job. So where one such job follows another, in
//! whatever session, the processes for the next ones are started while a job runs. They are connected to nothing, so they are in nobody's
//! way; they serve whatever job of the cluster comes first; and they end soon when none comes.

use crate::pg::process::{backend, bgworker};
use crate::registry::pool;
use crate::{settings, worker};

/// How soon after one job the next has to come for processes to be started ahead, in microseconds.
const SOON: i64 = 1_000_000;

/// A job was given a fresh process. Where this happens again and again, processes for the next ones are asked for; where the server
/// has no slot free, there are none. Guarded.
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
