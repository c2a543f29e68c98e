//! Processes ahead of their jobs.
//!
//! Where each job gets a fresh process (`pg_background.worker_idle_timeout = 0`), half of the time that a job takes is the start of that
//! process up to where it connects to the database, and none of that depends on the job. So a session that launches one job
//! after another has the processes for the next ones started while a job runs. They are connected to nothing, so they are in nobody's
//! way; they serve whatever job of the cluster comes first; and they end soon when none comes.

use crate::pg::proc;
use crate::registry::pool;
use crate::settings;
use crate::worker;
use std::cell::Cell;

/// How soon after one job the next has to come for processes to be started ahead, in microseconds.
const SOON: i64 = 1_000_000;

thread_local! {
    /// When a job of this session was given a fresh process last.
    static LAST: Cell<i64> = const { Cell::new(i64::MIN / 2) };
}

/// A job was given a fresh process. Where this happens again and again, processes for the next ones are asked for; where the server
/// has no slot free, there are none. Guarded.
pub fn is_used() {
    let now = proc::now();
    let goes_on = now - LAST.replace(now) < SOON;
    while goes_on
        && settings::worker_idle_timeout() == 0
        && let Ok(token) = proc::strong_random()
        && let Some(expected) = pool::expect_spare(token, settings::max_idle_workers())
        && let Some(worker) = proc::register_worker(worker::SPARE_MAIN, expected.number, token)
    {
        expected.comes_as(worker);
    }
}
