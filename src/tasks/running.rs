//! What is known of tasks that run. Runs are in shared memory only, keyed by the database and the extension's own table.
//!
//! Nothing runs tasks yet: no task runs, and who waits for one looks at the table now and then.

use crate::pg::error::Result;
use crate::pg::process::latch;

/// A run that has begun and has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub task: i64,
    /// The number of the task's role.
    pub owner: u32,
    pub attempt: i32,
    pub pid: i32,
    pub started_at: i64,
    pub progress_pct: Option<i32>,
}

/// The run of a task of this database, where there is one.
pub fn runs_now(_id: i64) -> Option<Run> {
    None
}

/// Each run of this database.
pub fn all() -> Vec<Run> {
    Vec::new()
}

/// How many tasks of the queue run.
pub fn count_of_queue(_queue: &[u8]) -> i64 {
    0
}

/// How many tasks of this database run.
pub fn count() -> i32 {
    0
}

/// Tasks of the queue that are done, and that have failed, since the server's start.
pub fn totals_of(_queue: &[u8]) -> (i64, i64) {
    (0, 0)
}

/// Cancels a run, after `grace_ms` by force. False where there is none any more.
pub fn cancel(_id: i64, _grace_ms: i32) -> Result<bool> {
    Ok(false)
}

/// The task that this process runs, and the attempt that it makes.
pub fn current() -> Option<(i64, i32)> {
    None
}

/// Sleeps until a task of this database has ended, or for `left_ms` milliseconds; below 0 there is no limit.
pub fn wait_for_ends(left_ms: i64) -> Result<()> {
    const LOOK: i64 = 50;
    latch::reset_latch();
    latch::wait(if left_ms < 0 { LOOK } else { left_ms.min(LOOK) })
}

/// Makes sure that what the task wrote is on disk, together with the note of its end.
pub fn flush_end_of(_id: i64) -> Result<()> {
    Ok(())
}
