//! The handles of this session.

use crate::channel::reader::Reader;
use crate::pg::error::{Report, Result};
use crate::pg::proc::{self, Registered, WorkerStatus};
use crate::pg::shmem::{Guard, NOWHERE, Offset};
use crate::registry::counters::Counters;
use crate::registry::job::{Job, Slot, Stop};
use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Datum;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// A job that this session launched and has not let go of.
pub struct Handle {
    pub slot: &'static Slot,
    pub cookie: u64,
    pub pid: i32,
    /// Counts up: the order of launching.
    sequence: u64,
    /// What the postmaster knows of the worker, where it was started for this job.
    worker: Option<Registered>,
    /// How far the result has been read.
    pub reader: RefCell<Reader>,
}

#[derive(Default)]
struct Table {
    by_cookie: HashMap<u64, Rc<Handle>>,
    /// How many handles have this pid.
    pids: HashMap<i32, usize>,
    launched: u64,
    /// Forgotten before a worker had taken the job.
    untaken: Vec<Rc<Handle>>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
    static COUNTERS: Cell<Offset> = const { Cell::new(NOWHERE) };
    static PENDING: Cell<Option<(&'static Slot, u64)>> = const { Cell::new(None) };
}

/// The job that waits for a process, and is not in the table yet. What ends this process does not unwind the launch.
pub fn set_pending(job: Option<(&'static Slot, u64)>) {
    PENDING.set(job);
}

/// This session's counters, made on first use. 53200 where memory is out.
pub fn counters() -> Result<Offset> {
    if COUNTERS.get() == NOWHERE {
        crate::registry::segment::segment()?;
        COUNTERS.set(Counters::create()?);
        proc::on_exit(session_ends);
    }
    Ok(COUNTERS.get())
}

/// Whether this process has ever launched a job.
pub fn has_launched() -> bool {
    COUNTERS.get() != NOWHERE
}

/// The session ends: its jobs run on and belong to nobody. Reading, if the session died of it, is over too.
extern "C-unwind" fn session_ends(_code: c_int, _argument: Datum) {
    // Nothing of the table may be left for the end of the process, when shared memory is gone.
    let handles = TABLE
        .with(|table| table.try_borrow_mut().map(|mut table| core::mem::take(&mut *table)))
        .unwrap_or_default();
    if let Some((slot, cookie)) = PENDING.take()
        && !slot.withdraw(cookie)
    {
        slot.owner_lets_go(cookie);
    }
    for handle in handles.by_cookie.into_values() {
        handle.slot.waiter_pid.store(0, Relaxed);
        stop_reading(&handle);
        handle.slot.owner_lets_go(handle.cookie);
    }
    let counters = COUNTERS.replace(NOWHERE);
    if counters != NOWHERE {
        Counters::release(counters);
    }
}

/// This process reads the job's result no more; a worker that waits for room goes on.
pub fn stop_reading(handle: &Handle) {
    let writer = handle.slot.lock_if(handle.cookie).and_then(|mut job| {
        let ours = job.queue.reader() == Some(proc::my_procno());
        (ours && job.queue.set_reader(None)).then_some(job.worker_procno)
    });
    if let Some(writer) = writer {
        proc::wake(writer);
    }
}

/// Adds the handle of a job that has a process.
pub fn add(slot: &'static Slot, cookie: u64, pid: i32, worker: Option<Registered>) {
    TABLE.with_borrow_mut(|table| {
        table.launched += 1;
        let handle = Handle {
            slot,
            cookie,
            pid,
            sequence: table.launched,
            worker,
            reader: RefCell::default(),
        };
        table.by_cookie.insert(cookie, Rc::new(handle));
        *table.pids.entry(pid).or_default() += 1;
    });
}

/// The handle `(pid, cookie)`. 42704 for a pid that this session knows no job of, 55000 for a cookie that is not the pid's.
pub fn find(pid: i32, cookie: i64) -> Result<Rc<Handle>> {
    if let Some(handle) = look_up(pid, cookie) {
        return Ok(handle);
    }
    if knows_pid(pid) {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cookie mismatch for PID {pid}"),
        )
        .hint("The process may have been started again under the same PID; use the handle that the launch returned.")
        .into());
    }
    Err(Report::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("PID {pid} is not attached to this session"),
    )
    .into())
}

/// Whether this session has a handle with this pid.
pub fn knows_pid(pid: i32) -> bool {
    TABLE.with_borrow(|table| table.pids.contains_key(&pid))
}

/// [`find`] without an error.
pub fn look_up(pid: i32, cookie: i64) -> Option<Rc<Handle>> {
    TABLE.with_borrow(|table| {
        table
            .by_cookie
            .get(&(cookie as u64))
            .filter(|handle| handle.pid == pid)
            .cloned()
    })
}

/// All handles in the order of launching.
pub fn all() -> Vec<Rc<Handle>> {
    let mut handles: Vec<_> = TABLE.with_borrow(|table| table.by_cookie.values().cloned().collect());
    handles.sort_unstable_by_key(|handle| handle.sequence);
    handles
}

/// Forgets a handle; the job runs on if it still does.
pub fn release(handle: &Handle) {
    TABLE.with_borrow_mut(|table| {
        let forgotten = table.by_cookie.remove(&handle.cookie);
        if handle.slot.worker_pid.load(Relaxed) == 0 && handle.worker.is_some() {
            table.untaken.extend(forgotten);
        }
        if let Some(count) = table.pids.get_mut(&handle.pid) {
            *count -= 1;
            if *count == 0 {
                table.pids.remove(&handle.pid);
            }
        }
    });
    handle.slot.owner_lets_go(handle.cookie);
}

/// Looks after the jobs that were forgotten before a worker had taken them. If the process that was to take one is gone, nobody
/// but this session can tell, and the job would count as running for ever.
pub fn look_after_untaken() {
    let untaken = TABLE.with_borrow_mut(|table| core::mem::take(&mut table.untaken));
    for handle in untaken {
        let waits = handle.slot.cookie.load(Relaxed) == handle.cookie && handle.slot.worker_pid.load(Relaxed) == 0;
        if !waits {
            continue;
        }
        if handle.worker_stopped() {
            handle.slot.publish_lost(handle.cookie, handle.pid, None);
        } else {
            TABLE.with_borrow_mut(|table| table.untaken.push(handle));
        }
    }
}

impl Handle {
    /// What is known of the job now. A worker that went without a word is noticed here: then the job is lost, and that is its
    /// end.
    pub fn job(&self) -> Guard<'static, Job> {
        let job = self.slot.lock();
        if job.state.has_ended() {
            return job;
        }
        drop(job);
        if self.worker_stopped() {
            // Everything that the worker published, it published before it stopped.
            self.slot.publish_lost(self.cookie, self.pid, None);
        }
        self.slot.lock()
    }

    /// Whether the postmaster has seen the end of the worker that was started for this job. A worker that had been there before
    /// publishes its end itself, whatever it dies of.
    fn worker_stopped(&self) -> bool {
        let stopped = |worker: &Registered| worker.status() == WorkerStatus::Stopped;
        self.worker.as_ref().is_some_and(stopped)
    }

    /// Whether the job has ended.
    pub fn has_ended(&self) -> bool {
        self.job().state.has_ended()
    }

    /// Asks the job to end early; false where it has ended.
    pub fn cancel(&self, why: Stop) -> bool {
        !self.has_ended() && self.slot.cancel(self.cookie, why)
    }
}
