//! The jobs that this session launched, and those that it has pinned.
//!
//! A handle is good in every session whose role may act for the job's. A call that uses a handle pins the job, so that no other session can
//! free it meanwhile.

use crate::dispatch::place;
use crate::pg::catalog::role;
use crate::pg::error::{Report, Result};
use crate::pg::fallible;
use crate::pg::process::bgworker;
use crate::pg::shmem::{DsaPointer, Guard, INVALID_POINTER};
use crate::registry::counters::Counters;
use crate::registry::job::{Job, Slot, Stop};
use crate::registry::segment::segment;
use crate::registry::{history, upkeep};
use crate::session::waiting;
use crate::worker::attached;
use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Datum;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::rc::Rc;

/// A pinned job. Dropping it drops the pin.
pub struct Handle {
    pub slot: &'static Slot,
    pub cookie: u64,
    pub pid: i32,
}

/// A job that this session launched, as long as a session has its handle.
#[derive(Clone, Copy)]
struct OwnJob {
    slot: &'static Slot,
    cookie: u64,
    pid: i32,
}

#[derive(Default)]
struct Table {
    /// In the order of launching.
    launched: BTreeMap<u64, OwnJob>,
    by_cookie: BTreeMap<u64, u64>,
    count: u64,
    /// The number of entries at which to look for those that other sessions have forgotten.
    look_at: usize,
    /// The jobs whose result is being read row by row: within that statement their handles count as released.
    hidden: HashSet<u64>,
    /// The pinned jobs, and how many pins each has.
    pins: BTreeMap<u64, (&'static Slot, usize)>,
    /// The handles that this session released last.
    released: VecDeque<(i32, u64)>,
}

/// How many released handles a session remembers.
const RELEASED: usize = 1000;

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
    static COUNTERS: Cell<DsaPointer> = const { Cell::new(INVALID_POINTER) };
    static WILL_END: Cell<bool> = const { Cell::new(false) };
}

/// Returns this session's counters, made on first use. 53200 if memory is out.
pub fn counters() -> Result<DsaPointer> {
    join()?;
    if COUNTERS.get() == INVALID_POINTER {
        COUNTERS.set(Counters::create()?);
    }
    Ok(COUNTERS.get())
}

/// Whether this process has ever launched a job.
pub fn has_launched() -> bool {
    COUNTERS.get() != INVALID_POINTER
}

/// Attaches to the registry, and does upkeep that is due.
pub fn join() -> Result<()> {
    // Registered before the session's callback, so called after it.
    place::join()?;
    if !WILL_END.replace(true) {
        bgworker::on_exit(session_ends);
    }
    upkeep::pass_by();
    Ok(())
}

/// The session ends, perhaps in the middle of a call. Nothing that uses shared memory may be left for destructors, which run when it is
/// already detached. The session's jobs run on.
extern "C-unwind" fn session_ends(_code: c_int, _argument: Datum) {
    let table = TABLE
        .with(|table| table.try_borrow_mut().map(|mut table| core::mem::take(&mut *table)))
        .unwrap_or_default();
    waiting::end();
    for (cookie, (slot, count)) in table.pins {
        slot.abandon_reading(cookie);
        for _ in 0..count {
            slot.unpin(cookie);
        }
    }
    for job in table.launched.into_values() {
        job.slot.orphan(job.cookie);
    }
    let counters = COUNTERS.replace(INVALID_POINTER);
    if counters != INVALID_POINTER {
        Counters::release(counters);
    }
}

/// Adds a job that has a process. From here on its handle is known, and its launch is over.
pub fn add(slot: &'static Slot, cookie: u64, pid: i32) {
    slot.introduce(cookie, pid);
    TABLE.with_borrow_mut(|table| {
        table.forget_the_forgotten();
        table.count += 1;
        let number = table.count;
        table.launched.insert(number, OwnJob { slot, cookie, pid });
        table.by_cookie.insert(cookie, number);
    });
}

impl Table {
    /// Removes entries of jobs that other sessions have read or detached. Called now and then, so that the table stays small.
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

/// Pins a job without a permission check. None if the handle is not known. The system's own error if shared memory cannot be mapped.
pub fn hold(pid: i32, cookie: u64) -> Result<Option<Rc<Handle>>> {
    Ok(slot_of(cookie)?.and_then(|slot| take(slot, cookie, pid)))
}

fn slot_of(cookie: u64) -> Result<Option<&'static Slot>> {
    let own = TABLE.with_borrow(|table| {
        let number = table.by_cookie.get(&cookie)?;
        table.launched.get(number).map(|job| job.slot)
    });
    if own.is_some() {
        return Ok(own);
    }
    join()?;
    segment()?.find(cookie)
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

/// Hides a handle from this session until it is dropped.
pub struct Hidden(u64);

impl Hidden {
    /// Hides the handle of a pinned job.
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

/// Whether this process still has the job pinned for a call. False when the process ends, after all pins were dropped at once.
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

/// Pins the job of the handle `(pid, cookie)`.
///
/// Errors: 42704 for a handle that is not known, or not any more; 55000 for a cookie that has never belonged to that pid, as far as can be
/// told, if this session has launched a job that is known by that pid; 42501 if the current role may not act for the job's. Without its
/// cookie no session learns of a job that another session launched.
pub fn find(pid: i32, cookie: i64) -> Result<Rc<Handle>> {
    find_for(pid, cookie, Roles::may_act)
}

/// [`find`] for roles that may end the job.
pub fn find_to_cancel(pid: i32, cookie: i64) -> Result<Rc<Handle>> {
    find_for(pid, cookie, |job| {
        role::may_act_for(job.user, 0) || role::may_signal(job.connected)
    })
}

fn find_for(pid: i32, cookie: i64, may: impl FnOnce(Roles) -> bool) -> Result<Rc<Handle>> {
    match hold(pid, cookie as u64)? {
        Some(handle) => handle.permitted(may),
        None if knows_pid(pid) && !was_good(pid, cookie as u64)? => Err(Report::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cookie mismatch for PID {pid}"),
        )
        .hint("The process may have been started again under the same PID; use the handle that the launch returned.")
        .into()),
        None => Err(unknown(pid).into()),
    }
}

/// Whether a handle that is not known was known once: its job still has a slot, or a record, or this session has released it itself.
fn was_good(pid: i32, cookie: u64) -> Result<bool> {
    let has_slot = slot_of(cookie)?.is_some_and(|slot| slot.has_pid(cookie, pid));
    Ok(has_slot
        || TABLE.with_borrow(|table| table.released.contains(&(pid, cookie)))
        || history::knows(&segment()?.history, pid, cookie)?)
}

/// The error for a pid by which no job is known: 42704.
pub fn unknown(pid: i32) -> Report {
    Report::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("PID {pid} is not attached to this session"),
    )
}

/// Whether this session launched a job that is known by this pid.
fn knows_pid(pid: i32) -> bool {
    TABLE.with_borrow(|table| {
        let mut launched = table.launched.values();
        launched.any(|job| job.pid == pid && !table.hidden.contains(&job.cookie) && job.slot.is_known(job.cookie))
    })
}

/// [`find`] without an error for unknown handles.
pub fn find_or_none(pid: i32, cookie: i64) -> Result<Option<Rc<Handle>>> {
    hold(pid, cookie as u64)?
        .map(|handle| handle.permitted(Roles::may_act))
        .transpose()
}

/// [`find`] without an error.
pub fn look_up(pid: i32, cookie: i64) -> Option<Rc<Handle>> {
    find_or_none(pid, cookie).ok().flatten()
}

/// Pins all jobs that this session launched and whose handles are known, in the order of launching. 53200.
pub fn all() -> Result<Vec<Rc<Handle>>> {
    let launched = TABLE.with_borrow(|table| fallible::collected(table.launched.values().copied()))?;
    fallible::collected(
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

/// The pinned jobs of many handles, which may name few jobs: each of those is pinned once.
#[derive(Default)]
pub struct HandleCache(BTreeMap<u64, Rc<Handle>>);

impl HandleCache {
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

/// Returns the cookie of the job that this session launched and that process `worker_pid` runs now, if the current role may act on it. With
/// a `time`, only if the job had begun by then. The pid of the handle does not count: it may name earlier jobs as well.
pub fn run_by(worker_pid: i32, time: Option<i64>) -> Option<u64> {
    let runs = |job: &&OwnJob| job.slot.worker_pid.load(Relaxed) == worker_pid;
    let found = TABLE.with_borrow(|table| {
        // A check without the lock selects the few jobs to check under it.
        table.launched.values().filter(runs).find_map(|launched| {
            let job = launched.slot.lock_if(launched.cookie)?;
            let has_begun = time.is_none_or(|time| job.started_at != 0 && job.started_at <= time);
            (runs(&launched) && !job.state.has_ended() && has_begun)
                .then_some((launched.cookie, (job.user, job.also_for)))
        })
    });
    found
        .filter(|(_, (role, also_for))| role::may_act_for(*role, *also_for))
        .map(|(cookie, _)| cookie)
}

/// Forgets a handle; the job runs on if it still runs. False if another session was faster.
pub fn release(handle: &Handle) -> bool {
    // The slot of a lost job would stay if no process looked after the job.
    drop(handle.job());
    TABLE.with_borrow_mut(|table| {
        if let Some(number) = table.by_cookie.remove(&handle.cookie) {
            table.launched.remove(&number);
        }
        if table.released.len() >= RELEASED {
            table.released.pop_front();
        }
        table.released.push_back((handle.pid, handle.cookie));
    });
    handle.slot.release(handle.cookie)
}

/// The roles that a job belongs to: the one that it runs as, the one that its worker connects as, and [`Job::also_for`].
#[derive(Clone, Copy)]
struct Roles {
    user: u32,
    connected: u32,
    also_for: u32,
}

impl Roles {
    fn may_act(self) -> bool {
        may_read_of(self.user, self.also_for)
    }
}

/// As [`role::may_act_for`], for who reads what the job has returned or said. A job that may do so for one that has left its role counts as having
/// left its own: what it reads there must not reach more roles through it.
pub fn may_read_of(user: u32, also_for: u32) -> bool {
    let may = role::may_act_for(user, also_for);
    if may && also_for != 0 {
        attached::leaves_its_role();
    }
    may
}

impl Handle {
    /// The roles that it belongs to.
    fn roles(&self) -> Roles {
        let job = self.slot.lock();
        Roles {
            user: job.user,
            connected: job.connected,
            also_for: job.also_for,
        }
    }

    /// Returns this job, if `may` is true for its roles. 42501 otherwise.
    fn permitted(self: Rc<Self>, may: impl FnOnce(Roles) -> bool) -> Result<Rc<Self>> {
        self.check_for(may)?;
        Ok(self)
    }

    /// Checks again that the current role may act on it: the job may have left its role since it was found. 42501 if not.
    pub fn check(&self) -> Result<()> {
        self.check_for(Roles::may_act)
    }

    fn check_for(&self, may: impl FnOnce(Roles) -> bool) -> Result<()> {
        let roles = self.roles();
        if may(roles) {
            return Ok(());
        }
        Err(Report::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for the background job of PID {}", self.pid),
        )
        .detail(match roles.also_for {
            0 => "Only roles with privileges of the role that the job runs as may act on it.",
            _ => "The job has left the role that it began with: only who could have launched it so may act on it.",
        })
        .into())
    }

    /// Locks the job. A worker that has died is detected here.
    pub fn job(&self) -> Guard<'static, Job> {
        let job = self.slot.lock();
        if job.state.has_ended() || job.runner.is_alive() {
            return job;
        }
        drop(job);
        // If this process cannot do it now, the next check will, here or in another process.
        let _ = self.slot.look_after(self.cookie);
        self.slot.lock()
    }

    /// Whether the job has ended.
    pub fn has_ended(&self) -> bool {
        self.job().state.has_ended()
    }

    /// Whether the current role may act on it.
    pub fn is_ours(&self) -> bool {
        self.roles().may_act()
    }

    /// Asks the job to end early; false if it has ended.
    pub fn cancel(&self, why: Stop) -> bool {
        !self.has_ended() && self.slot.cancel(self.cookie, why)
    }
}
