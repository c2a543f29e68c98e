//! What is known of tasks that run. Runs are in shared memory only, keyed by the database and the extension's own table.

use crate::pg::error::Result;
use crate::pg::guc::own;
use crate::pg::process::{backend, latch};
use crate::pg::value::encoding;
use crate::pg::{spi, transaction};
use crate::registry::job::Stop;
use crate::registry::segment::segment;
use crate::session::deadlock;
use crate::session::wait::Deadline;
use crate::tasks::shared::{self, Of};
use crate::tasks::{tables, totals};
use core::cell::Cell;
use std::borrow::Cow;

/// A run that has begun and has not ended.
#[derive(Clone, Debug)]
pub struct Run {
    pub task: i64,
    /// The number of the task's role.
    pub owner: u32,
    pub attempt: i32,
    pub pid: i32,
    pub started_at: i64,
    pub progress_pct: Option<i32>,
    pub progress_msg: Option<Vec<u8>>,
}

/// The longest grace, in milliseconds. A larger value counts as this one.
pub const GRACE_MAX: i32 = 3_600_000;

/// How often a wait looks at the table although it was not woken, in milliseconds.
const LOOK: i64 = 1000;

/// How long it sleeps at least, in microseconds.
const LEAST: i64 = 500;

/// The runs of this database. A task that was claimed has not begun before its row was read.
fn begun() -> Result<Vec<shared::Run>> {
    let mut runs = shared::runs(tables::known(), Of::Held)?;
    runs.retain(|run| run.attempt > 0);
    Ok(runs)
}

fn found(id: i64) -> Result<Option<shared::Run>> {
    Ok(begun()?.into_iter().find(|run| run.task == id))
}

/// The run of a task of this database, if there is one.
pub fn runs_now(id: i64) -> Option<Run> {
    all().into_iter().find(|run| run.task == id)
}

/// Each run of this database.
pub fn all() -> Vec<Run> {
    begun()
        .unwrap_or_default()
        .into_iter()
        .map(|run| {
            let progress = progress(&run);
            Run {
                task: run.task,
                owner: run.owner,
                attempt: run.attempt,
                pid: run.process.pid(),
                started_at: run.started_at,
                progress_pct: progress.as_ref().map(|(percent, _)| *percent),
                progress_msg: progress.and_then(|(_, message)| message),
            }
        })
        .collect()
}

/// What the run has reported, as long as it is this run's job; in another database, the job there.
fn progress(run: &shared::Run) -> Option<(i32, Option<Vec<u8>>)> {
    let segment = segment().ok()?;
    let (slot, cookie) = match run.elsewhere {
        0 => (segment.slot(run.slot).ok()?, run.cookie),
        job => (segment.find(job).ok()??, job),
    };
    let (percent, message, encoding) = slot.look_if(cookie, |job| {
        job.has_progress
            .then(|| (job.progress_pct, job.progress_copy(), job.encoding))
    })??;
    let message = message.and_then(|message| encoding::readable(&message, encoding).ok().map(Cow::into_owned));
    Some((percent, message))
}

/// How many tasks of the queue run.
pub fn count_of_queue(queue: &[u8]) -> i64 {
    let queue = shared::stands_for(queue);
    shared::runs(tables::known(), Of::Held)
        .map_or(0, |runs| runs.iter().filter(|run| run.queue == queue).count() as i64)
}

/// How many tasks of this database run.
pub fn count() -> i32 {
    all().len() as i32
}

/// How many tasks run in the whole cluster.
pub fn count_everywhere() -> Result<usize> {
    shared::count_runs()
}

/// How many processes there are that have no connection to a database, which `pg_stat_activity` does not show.
pub fn count_unconnected() -> Result<usize> {
    shared::has_clock().map(usize::from)
}

/// Tasks of the queue that are done, and that have failed, since the server's start. 53200.
pub fn totals_of(queue: &[u8]) -> Result<(i64, i64)> {
    totals::of(tables::last()?.task, queue)
}

/// What is counted of the queue, as [`totals::counts`]. 53200.
pub fn counts_of(queue: &[u8]) -> Result<totals::Counts> {
    totals::counts(tables::last()?.task, queue)
}

/// Whether the task runs, or was canceled while it did and is about to end.
pub fn has_begun(id: i64) -> Result<bool> {
    Ok(found(id)?.is_some() || shared::is_canceled(tables::known(), id)?)
}

/// Cancels a run, and waits up to `grace_ms` milliseconds for its end. False if there is none.
pub fn cancel(id: i64, grace_ms: i32) -> Result<bool> {
    let Some(run) = shared::cancel(tables::known(), id)? else {
        return Ok(false);
    };
    segment()?.slot(run.slot)?.cancel(run.cookie, Stop::Cancel);
    let deadline = Deadline::after(grace_ms.clamp(0, GRACE_MAX));
    while grace_ms > 0 && !deadline.has_passed() && shared::is_canceled(tables::known(), id)? {
        wait_for_ends(deadline.left().unwrap_or(LOOK).min(20))?;
    }
    Ok(true)
}

thread_local! {
    static CURRENT: Cell<Option<(i64, i32)>> = const { Cell::new(None) };
}

/// The task that this process runs, and the attempt that it makes.
pub fn current() -> Option<(i64, i32)> {
    CURRENT.get()
}

/// Notes the task that this process runs from now on, and the attempt.
pub fn set_current(task: Option<(i64, i32)>) {
    CURRENT.set(task);
}

/// A wait for an end, in this database: each end of a task wakes this process until the value is dropped.
pub struct Waiting {
    database: &'static shared::Database,
    /// How often it is looked whether what this waits for waits for this session, in milliseconds.
    patience: i64,
    look_at: i64,
}

impl Waiting {
    /// Begins. What ends after this wakes the process.
    pub fn begin() -> Result<Self> {
        let database = shared::mine()?;
        database.wait_for_ends();
        let patience = i64::from(own::deadlock_timeout().max(1));
        Ok(Self {
            database,
            patience,
            look_at: backend::now() + patience * 1000,
        })
    }

    /// Whether one of these tasks waits for this session. It is looked at after `deadlock_timeout`, and as long after each look.
    pub fn deadlocked(&mut self, tasks: impl FnOnce() -> Result<Vec<i64>>) -> Result<Option<i64>> {
        if backend::now() < self.look_at {
            return Ok(None);
        }
        self.look_at = backend::now() + self.patience * 1000;
        let runs = all();
        let waits = |task: &i64| {
            let run = runs.iter().find(|run| run.task == *task);
            run.is_some_and(|run| deadlock::waits_for_me(run.pid))
        };
        Ok(tasks()?.into_iter().find(waits))
    }

    /// Sleeps until a task ends, the deadline comes, or it is time for another look, without a snapshot.
    pub fn sleep(&self, deadline: Deadline) -> Result<()> {
        spi::forget_catalog_snapshot();
        wait_for_ends(deadline.left().map_or(self.patience, |left| left.min(self.patience)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.database.wait_no_more();
    }
}

/// Sleeps until this process is woken, or for `left_ms` milliseconds, but not longer than until it is to look again in any case. If tasks end all
/// the time, it does not look at each end.
pub fn wait_for_ends(left_ms: i64) -> Result<()> {
    let began = backend::now();
    latch::wait(left_ms.min(LOOK))?;
    let early = LEAST - (backend::now() - began);
    if early > 0 {
        std::thread::sleep(core::time::Duration::from_micros(early as u64));
    }
    latch::reset_latch();
    Ok(())
}

/// Makes sure that what the task wrote is on disk, together with the note of its end.
pub fn flush_end_of(_id: i64) -> Result<()> {
    match shared::mine()?.flush_to() {
        0 => Ok(()),
        end => transaction::flush_up_to(end),
    }
}
