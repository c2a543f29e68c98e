//! How the jobs of each database and role ended, since the server's start or the last reset. Never freed.

use crate::pg::error::Result;
use crate::pg::process::backend;
use crate::pg::shmem::{self, DsaPointer, INVALID_POINTER, Last, Locked};
use crate::registry::counters::{Count, Jobs};
use crate::registry::list::{self, Linked};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};
use std::cell::Cell;

/// The list of the counters.
#[repr(C)]
pub struct Directory {
    first: DsaPointer,
}

/// The counters of one database and role. Times are in microseconds.
#[repr(C)]
pub struct Totals {
    next: AtomicU64,
    database: AtomicU32,
    user: AtomicU32,
    jobs: Jobs,
    pub refused: AtomicU64,
    pub cold_starts: AtomicU64,
    pub warm_starts: AtomicU64,
    pub longest_run: AtomicU64,
    pub start_time: AtomicU64,
    pub longest_start: AtomicU64,
    pub rows: AtomicU64,
    pub bytes: AtomicU64,
    pub spilled: AtomicU64,
    /// When the counting began: at the first use, or at the last reset.
    pub since: AtomicI64,
}

impl Linked for Totals {
    fn next(&self) -> &AtomicU64 {
        &self.next
    }
}

/// Whether a job's process was started for it, or had run other jobs before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    Cold,
    Warm,
}

thread_local! {
    /// What this process asked for last.
    static KNOWN: Cell<(u32, u32, DsaPointer)> = const { Cell::new((0, 0, INVALID_POINTER)) };
}

/// Returns the counters of a database and a role, made on first use. 53200 if memory is out.
pub fn of(directory: &Locked<Directory>, database: u32, user: u32) -> Result<DsaPointer> {
    let known = KNOWN.get();
    if known.2 != INVALID_POINTER && (known.0, known.1) == (database, user) {
        return Ok(known.2);
    }
    let is_it = |totals: &Totals| totals.key() == (database, user);
    let pointer = list::find_or_add(
        directory,
        |directory| &mut directory.first,
        is_it,
        |totals| {
            totals.database.store(database, Relaxed);
            totals.user.store(user, Relaxed);
            totals.since.store(backend::now(), Relaxed);
        },
    )?;
    KNOWN.set((database, user, pointer));
    Ok(pointer)
}

/// Returns all counters. The system's own error if they cannot be mapped.
pub fn all(directory: &Locked<Directory>) -> Result<Vec<&'static Totals>> {
    let first = directory.lock().first;
    list::all(first)
}

impl Totals {
    /// The counters at `pointer`, which this process has mapped.
    pub fn at(pointer: DsaPointer) -> &'static Totals {
        shmem::at(pointer)
    }

    /// The counters at `pointer`, None if this process cannot map them.
    pub fn look(pointer: DsaPointer) -> Option<&'static Totals> {
        thread_local! {
            static LAST: Last<Totals> = const { Last::new() };
        }
        LAST.with(|last| last.look(pointer))
    }

    /// The database and the role.
    pub fn key(&self) -> (u32, u32) {
        (self.database.load(Relaxed), self.user.load(Relaxed))
    }

    /// Counts a launched job.
    pub fn launched(&self) {
        self.jobs.launched();
    }

    /// Takes back the count of a job that never reached a worker.
    pub fn never_launched(&self) {
        self.jobs.never_launched();
    }

    /// Counts a launch that was not admitted.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Counts a job that starts `delay` microseconds after its launch.
    pub fn started(&self, start: Start, delay: i64) {
        let starts = match start {
            Start::Cold => &self.cold_starts,
            Start::Warm => &self.warm_starts,
        };
        starts.fetch_add(1, Relaxed);
        let delay = delay.max(0) as u64;
        self.start_time.fetch_add(delay, Relaxed);
        self.longest_start.fetch_max(delay, Relaxed);
    }

    /// Counts a job that has ended after `run_time` microseconds and has written `spilled` bytes to files.
    pub fn ended(&self, count: Count, run_time: i64, spilled: u64) {
        self.jobs.ended(count, run_time);
        self.longest_run.fetch_max(run_time.max(0) as u64, Relaxed);
        self.spilled.fetch_add(spilled, Relaxed);
    }

    /// Counts rows that a reader was given.
    pub fn returned(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// The counters in the order of the view.
    pub fn counts(&self) -> [&AtomicU64; 15] {
        [
            &self.jobs.launched,
            &self.jobs.completed,
            &self.jobs.failed,
            &self.jobs.canceled,
            &self.jobs.timed_out,
            &self.refused,
            &self.cold_starts,
            &self.warm_starts,
            &self.jobs.run_time,
            &self.longest_run,
            &self.start_time,
            &self.longest_start,
            &self.rows,
            &self.bytes,
            &self.spilled,
        ]
    }

    /// Sets all counters to 0.
    pub fn reset(&self) {
        for counter in self.counts() {
            counter.store(0, Relaxed);
        }
        self.since.store(backend::now(), Relaxed);
    }
}
