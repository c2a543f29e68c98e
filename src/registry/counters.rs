//! How the jobs of one session ended. Shared, because a job ends in the worker's process, perhaps after the session has ended.

use crate::pg::error::Result;
use crate::pg::shmem::{self, DsaPointer, INVALID_POINTER};
use core::sync::atomic::Ordering::{AcqRel, Relaxed};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// One session's counters. Lives as long as the session or a job of it.
#[repr(C)]
pub struct Counters {
    holders: AtomicU32,
    pub active: AtomicU32,
    pub jobs: Jobs,
}

/// How many jobs were launched, how they ended, and how long they ran.
#[repr(C)]
pub struct Jobs {
    pub launched: AtomicU64,
    pub completed: AtomicU64,
    pub failed: AtomicU64,
    pub canceled: AtomicU64,
    pub timed_out: AtomicU64,
    /// Run time of all ended jobs, in microseconds.
    pub run_time: AtomicU64,
}

impl Jobs {
    /// Counts a job that was launched.
    pub fn launched(&self) {
        self.launched.fetch_add(1, Relaxed);
    }

    /// Takes back a launch: its job never reached a worker.
    pub fn never_launched(&self) {
        self.launched.fetch_sub(1, Relaxed);
    }

    /// Counts a job that has ended after `run_time` microseconds.
    pub fn ended(&self, count: Count, run_time: i64) {
        let counter = match count {
            Count::Completed => &self.completed,
            Count::Failed => &self.failed,
            Count::Canceled => &self.canceled,
            Count::TimedOut => &self.timed_out,
        };
        counter.fetch_add(1, Relaxed);
        self.run_time.fetch_add(run_time.max(0) as u64, Relaxed);
    }
}

/// Which counter a job lands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    Completed,
    Failed,
    Canceled,
    TimedOut,
}

impl Counters {
    /// Creates counters with one holder. 53200 if memory is out.
    pub fn create() -> Result<DsaPointer> {
        let pointer = shmem::allocate(size_of::<Counters>())?;
        shmem::at::<Counters>(pointer).holders.store(1, Relaxed);
        Ok(pointer)
    }

    /// The counters at `pointer`, which this process has mapped.
    pub fn at(pointer: DsaPointer) -> &'static Counters {
        shmem::at(pointer)
    }

    /// The same; None for [`INVALID_POINTER`]: an order without a session has no counters.
    pub fn of(pointer: DsaPointer) -> Option<&'static Counters> {
        (pointer != INVALID_POINTER).then(|| Self::at(pointer))
    }

    /// Adds a holder.
    pub fn hold(&self) {
        self.holders.fetch_add(1, Relaxed);
    }

    /// Removes a holder; the last one frees the counters. Raises nothing: if this process cannot map the counters, they stay allocated.
    pub fn release(pointer: DsaPointer) {
        if let Some(counters) = shmem::look::<Counters>(pointer)
            && counters.holders.fetch_sub(1, AcqRel) == 1
        {
            shmem::free(pointer);
        }
    }

    /// Counts a job that begins.
    pub fn began(&self) {
        self.active.fetch_add(1, Relaxed);
        self.jobs.launched();
    }

    /// Takes back the count of a job that never reached a worker.
    pub fn never_began(&self) {
        self.active.fetch_sub(1, Relaxed);
        self.jobs.never_launched();
    }

    /// Counts a job that has ended after `run_time` microseconds. Called once for each job: the caller holds the job's lock and marks it
    /// ended.
    pub fn ended(&self, count: Count, run_time: i64) {
        self.jobs.ended(count, run_time);
        self.active.fetch_sub(1, Relaxed);
    }
}
