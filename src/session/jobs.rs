//! The jobs that this session launched, and those that it has in hand.
//!
//! A handle is good in every session whose role may act for the job's. Whoever uses one keeps the job for the time of the call,
//! so that nobody can take it away meanwhile.

use super::wait;
use crate::pg::error::{Report, Result};
use crate::pg::proc::{self, Registered};
use crate::pg::shmem::{Guard, NOWHERE, Offset};
use crate::pg::{memory, role};
use crate::registry::counters::Counters;
use crate::registry::job::{Job, Slot, Stop};
use crate::registry::segment::segment;
use crate::registry::{history, keep, room};
use crate::settings;
use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Datum;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

/// A job in hand: kept until this is dropped.
pub struct Handle {
    pub slot: &'static Slot,
    pub cookie: u64,
    pub pid: i32,
}

/// A job that this session launched, as long as somebody knows its handle.
#[derive(Clone, Copy)]
struct Launched {
    slot: &'static Slot,
    cookie: u64,
    pid: i32,
}

#[derive(Default)]
struct Table {
    /// In the order of launching.
    launched: BTreeMap<u64, Launched>,
    by_cookie: BTreeMap<u64, u64>,
    count: u64,
    /// At how many entries to look for those that others have forgotten.
    look_at: usize,
    /// The jobs whose result is being read row by row: within that statement their handles are as good as released.
    hidden: HashSet<u64>,
    /// The jobs in hand, and how many times.
    pins: BTreeMap<u64, (&'static Slot, usize)>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
    static COUNTERS: Cell<Offset> = const { Cell::new(NOWHERE) };
    static PENDING: Cell<Option<(&'static Slot, u64)>> = const { Cell::new(None) };
    static WILL_END: Cell<bool> = const { Cell::new(false) };
}

/// The job that waits for a process, and is not in the table yet. What ends this process does not unwind the launch.
pub fn set_pending(job: Option<(&'static Slot, u64)>) {
    PENDING.set(job);
}

/// This session's counters, made on first use. 53200 where memory is out.
pub fn counters() -> Result<Offset> {
    join()?;
    if COUNTERS.get() == NOWHERE {
        COUNTERS.set(Counters::create()?);
    }
    Ok(COUNTERS.get())
}

/// Whether this process has ever launched a job.
pub fn has_launched() -> bool {
    COUNTERS.get() != NOWHERE
}

/// Attaches to the registry, and sees to what others left there.
pub fn join() -> Result<()> {
    segment()?;
    if !WILL_END.replace(true) {
        proc::on_exit(session_ends);
    }
    history::set_size(settings::history_size())?;
    keep::sweep();
    Ok(())
}

/// The session ends, perhaps in the middle of a call: nothing of that may be left for the end of the process, when shared memory
/// is gone. Its jobs run on.
extern "C-unwind" fn session_ends(_code: c_int, _argument: Datum) {
    let table = TABLE
        .with(|table| table.try_borrow_mut().map(|mut table| core::mem::take(&mut *table)))
        .unwrap_or_default();
    if let Some((slot, cookie)) = PENDING.take()
        && !slot.withdraw(cookie)
    {
        slot.release(cookie);
        slot.unpin(cookie);
    }
    wait::end();
    room::leave();
    for (cookie, (slot, count)) in table.pins {
        slot.abandon_reading(cookie);
        for _ in 0..count {
            slot.unpin(cookie);
        }
    }
    for job in table.launched.into_values() {
        job.slot.orphan(job.cookie);
    }
    keep::sweep();
    let counters = COUNTERS.replace(NOWHERE);
    if counters != NOWHERE {
        Counters::release(counters);
    }
}

/// Adds a job that has a process; from here on its handle is known, and its launch is over.
pub fn add(slot: &'static Slot, cookie: u64, pid: i32) {
    slot.introduce(cookie, pid);
    TABLE.with_borrow_mut(|table| {
        table.forget_the_forgotten();
        table.count += 1;
        let number = table.count;
        table.launched.insert(number, Launched { slot, cookie, pid });
        table.by_cookie.insert(cookie, number);
    });
}

impl Table {
    /// Other sessions may have read or detached what this one launched. Looked for now and then, so that the table stays small.
    fn forget_the_forgotten(&mut self) {
        const FEW: usize = 64;
        if self.launched.len() < self.look_at.max(FEW) {
            return;
        }
        self.launched
            .retain(|_, job| job.slot.cookie.load(Relaxed) == job.cookie);
        let launched = &self.launched;
        self.by_cookie.retain(|_, number| launched.contains_key(number));
        self.look_at = self.launched.len() * 2;
    }
}

/// Takes a job in hand without asking who may. None where the handle is not known.
pub fn hold(pid: i32, cookie: u64) -> Option<Rc<Handle>> {
    let own = TABLE.with_borrow(|table| {
        let number = table.by_cookie.get(&cookie)?;
        table.launched.get(number).map(|job| job.slot)
    });
    let slot = match own {
        Some(slot) => slot,
        None => {
            join().ok()?;
            segment().ok()?.find(cookie)?
        }
    };
    take(slot, cookie, pid)
}

fn take(slot: &'static Slot, cookie: u64, pid: i32) -> Option<Rc<Handle>> {
    if is_hidden(cookie) || !slot.pin(cookie, pid) {
        return None;
    }
    TABLE.with_borrow_mut(|table| table.pins.entry(cookie).or_insert((slot, 0)).1 += 1);
    Some(Rc::new(Handle { slot, cookie, pid }))
}

fn is_hidden(cookie: u64) -> bool {
    TABLE.with_borrow(|table| table.hidden.contains(&cookie))
}

/// A handle that this session does not know until this is dropped.
pub struct Hidden(u64);

impl Hidden {
    /// Hides the handle of a job in hand.
    pub fn new(handle: &Handle) -> Self {
        TABLE.with_borrow_mut(|table| table.hidden.insert(handle.cookie));
        Self(handle.cookie)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        TABLE.with_borrow_mut(|table| table.hidden.remove(&self.0));
    }
}

/// Whether this process still keeps the job for a call; not when the process ends, where all is let go of at once.
pub fn is_in_hand(cookie: u64) -> bool {
    TABLE.with_borrow(|table| table.pins.contains_key(&cookie))
}

impl Drop for Handle {
    fn drop(&mut self) {
        TABLE.with_borrow_mut(|table| {
            if let Some(pin) = table.pins.get_mut(&self.cookie) {
                pin.1 -= 1;
                if pin.1 == 0 {
                    table.pins.remove(&self.cookie);
                }
            }
        });
        self.slot.unpin(self.cookie);
    }
}

/// The job of the handle `(pid, cookie)`. 42704 for a handle that is not known, or 55000 where this session has launched a job that
/// is known by that pid; 42501 where the current role may not act for the job's. Without its cookie nobody is told of a job that
/// another session launched.
pub fn find(pid: i32, cookie: i64) -> Result<Rc<Handle>> {
    find_for(pid, cookie, role::may_act_for)
}

/// [`find`] for those who may end the job.
pub fn find_to_cancel(pid: i32, cookie: i64) -> Result<Rc<Handle>> {
    find_for(pid, cookie, |role| role::may_act_for(role) || role::may_signal(role))
}

fn find_for(pid: i32, cookie: i64, may: impl FnOnce(u32) -> bool) -> Result<Rc<Handle>> {
    let handle = hold(pid, cookie as u64).ok_or_else(|| unknown_or_mismatch(pid))?;
    handle.permitted(may)
}

fn unknown_or_mismatch(pid: i32) -> crate::pg::error::Failure {
    if knows_pid(pid) {
        return Report::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cookie mismatch for PID {pid}"),
        )
        .hint("The process may have been started again under the same PID; use the handle that the launch returned.")
        .into();
    }
    unknown(pid).into()
}

/// 42704: no job is known by this pid.
pub fn unknown(pid: i32) -> Report {
    Report::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("PID {pid} is not attached to this session"),
    )
}

/// Whether this session launched a job that is known by this pid.
pub fn knows_pid(pid: i32) -> bool {
    TABLE.with_borrow(|table| {
        let mut launched = table.launched.values();
        launched.any(|job| job.pid == pid && !table.hidden.contains(&job.cookie) && job.slot.is_known(job.cookie))
    })
}

/// [`find`] without an error for handles that are not known.
pub fn find_or_none(pid: i32, cookie: i64) -> Result<Option<Rc<Handle>>> {
    hold(pid, cookie as u64)
        .map(|handle| handle.permitted(role::may_act_for))
        .transpose()
}

/// [`find`] without an error.
pub fn look_up(pid: i32, cookie: i64) -> Option<Rc<Handle>> {
    find_or_none(pid, cookie).ok().flatten()
}

/// All jobs that this session launched, in that order, as long as their handles are known. 53200.
pub fn all() -> Result<Vec<Rc<Handle>>> {
    let launched = TABLE.with_borrow(|table| memory::collected(table.launched.values().copied()))?;
    memory::collected(
        launched
            .into_iter()
            .filter_map(|job| take(job.slot, job.cookie, job.pid)),
    )
}

/// Those of [`all`] that the current role may act on. 53200.
pub fn all_to_act_on() -> Result<Vec<Rc<Handle>>> {
    let mut jobs = all()?;
    jobs.retain(|handle| handle.is_ours());
    Ok(jobs)
}

/// What `hold` gives for each of many handles, which may name few jobs: each of those is taken in hand once.
#[derive(Default)]
pub struct Found(BTreeMap<u64, Rc<Handle>>);

impl Found {
    /// [`find_or_none`], with its errors.
    pub fn or_none(&mut self, pid: i32, cookie: i64) -> Result<Option<Rc<Handle>>> {
        if let Some(handle) = self.0.get(&(cookie as u64)).filter(|handle| handle.pid == pid) {
            return Ok(Some(Rc::clone(handle)));
        }
        let found = find_or_none(pid, cookie)?;
        if let Some(handle) = &found {
            self.0.insert(handle.cookie, Rc::clone(handle));
        }
        Ok(found)
    }
}

/// Forgets a handle; the job runs on if it still does. False where somebody was faster.
pub fn release(handle: &Handle) -> bool {
    TABLE.with_borrow_mut(|table| {
        if let Some(number) = table.by_cookie.remove(&handle.cookie) {
            table.launched.remove(&number);
        }
    });
    handle.slot.release(handle.cookie)
}

/// Looks after this session's jobs. If the process that was to take one is gone, the job would count as running for ever.
pub fn look_after_all() -> Result<()> {
    let counters = counters()?;
    for slot in segment()?.all() {
        let cookie = slot.cookie.load(Relaxed);
        if slot
            .lock_if(cookie)
            .is_some_and(|job| cookie != 0 && job.is_counted_by(counters))
        {
            slot.look_after(cookie);
        }
    }
    Ok(())
}

impl Handle {
    /// This job, for a role of which `may` is true given the job's. 42501 for others.
    fn permitted(self: Rc<Self>, may: impl FnOnce(u32) -> bool) -> Result<Rc<Self>> {
        let role = self.slot.lock().user;
        if may(role) {
            return Ok(self);
        }
        Err(Report::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for the background job of PID {}", self.pid),
        )
        .detail("Only roles with privileges of the role that the job runs as may act on it.")
        .into())
    }

    /// What is known of the job now. A worker that went without a word is noticed here.
    pub fn job(&self) -> Guard<'static, Job> {
        let job = self.slot.lock();
        // A process that was there before publishes its end itself, also when it dies.
        if job.state.has_ended() || job.worker == Registered::NONE {
            return job;
        }
        drop(job);
        self.slot.look_after(self.cookie);
        self.slot.lock()
    }

    /// Whether the job has ended.
    pub fn has_ended(&self) -> bool {
        self.job().state.has_ended()
    }

    /// Whether the current role may act on it.
    pub fn is_ours(&self) -> bool {
        let role = self.slot.lock().user;
        role::may_act_for(role)
    }

    /// Asks the job to end early; false where it has ended.
    pub fn cancel(&self, why: Stop) -> bool {
        !self.has_ended() && self.slot.cancel(self.cookie, why)
    }
}
