//! The pool: the workers that can serve one job after another.
//!
//! A worker enters the pool with its first job. When a job is over and the process is clean again, the worker offers itself, and a launch
//! with a matching worker key claims it. Both steps are taken under the pool's lock. So a worker that wants to leave has either gone before
//! the claim, or has the job. A worker takes a posted job as a new worker takes its first job.
//!
//! A spare worker, started before there is a job for it, has its pool entry before the process exists: [`expect_spare`], then [`arrive`].
//!
//! Whether a launch may have a worker at all is decided in the same step ([`Admission`]).
//!
//! Nothing under the pool's lock allocates, maps or raises. The entry of a process that has died without cleaning up counts as free.

use crate::pg::error::{Report, Result};
use crate::pg::guc::own;
use crate::pg::process::backend::{self, Process};
use crate::pg::process::bgworker::{WorkerHandle, WorkerStatus};
use crate::pg::shmem::{self, DsaPointer, INVALID_POINTER, Locked};
use crate::registry::admission::{self, Admission, Caps, NOT_QUEUED, NotAdmitted, Position, QueuedLaunch, Shortage};
use crate::registry::job::{Job, Slot};
use core::cell::Cell;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64};
use pgrx::PgSqlErrorCode;

/// The pool, with as many entries as the server can have workers.
#[repr(C)]
pub struct Pool {
    /// The pool entries, and behind them the entries of the launch queue.
    entries: DsaPointer,
    /// How many workers are idle. Looking at each entry instead would fetch cache lines that all other processes write.
    idle: usize,
    /// The processes that are about to end or have ended last.
    exiting: [i32; EXITING],
    next_exiting: usize,
    /// When a job was last given a fresh process.
    fresh_at: i64,
    pub(super) admission: Admission,
}

/// How many exiting processes are remembered.
const EXITING: usize = 16;

/// How many spare workers the cluster has at most. With one ready and one being started, both cores of a small machine are always busy.
const SPARES: usize = 2;

/// The pool entry of a worker. Its fields change under the pool's lock only.
#[repr(C)]
pub struct PoolEntry {
    state: AtomicU32,
    /// 0 while the process is still to arrive.
    pid: AtomicI32,
    procno: AtomicU32,
    key: Cell<WorkerKey>,
    /// The session that it served last, or that asked for it.
    session: AtomicI32,
    idle_since: AtomicI64,
    /// Not 0 if it sleeps; then it serves signals before it looks for a job.
    sleeps: AtomicU32,
    /// The posted job, if the cookie is not 0.
    slot: AtomicU32,
    cookie: AtomicU64,
    /// Of a spare worker that is to arrive: when it was asked for, the token that it shows on arrival, and its handle at the postmaster.
    asked_at: AtomicI64,
    token: AtomicU64,
    worker: Cell<WorkerHandle>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum EntryState {
    Free = 0,
    Busy = 1,
    Idle = 2,
    /// It was asked to exit, and takes no job any more.
    Dismissed = 3,
    /// A spare worker is being started for this entry.
    Coming = 4,
}

/// What a worker must have to serve a job.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct WorkerKey {
    /// The database that the worker is connected to.
    pub database: u32,
    /// The role that the worker connected as.
    pub role: u32,
    /// The connection version: of a worker, what a new connection would have got when it connected; of a job, what a new connection gets
    /// now. 0 for a job that must have a process of its own.
    pub connection_version: u64,
    /// The settings, if any, that the worker can never lose again.
    pub custom: u64,
}

impl WorkerKey {
    /// A process that is connected to no database yet: it can serve every job.
    pub const ANY: WorkerKey = WorkerKey {
        database: 0,
        role: 0,
        connection_version: 0,
        custom: 0,
    };

    /// The connection version of a job for which it could not be looked up. The worker that is given the job judges whether it is as good
    /// as a new connection.
    pub const JUDGED_BY_THE_WORKER: u64 = u64::MAX;
}

/// A worker that a launch has claimed.
pub struct Claimed {
    process: Process,
    /// Whether it has had no job before.
    pub is_fresh: bool,
    /// Whether the worker slept: then it may have been told to end, and gives the job back instead of taking it.
    pub slept: bool,
}

impl Claimed {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Wakes the worker, so that it finds the posted job.
    pub fn wake(&self) {
        self.process.wake();
    }
}

numbered!(EntryState {
    Free,
    Busy,
    Idle,
    Dismissed,
    Coming
});

/// What an idle worker finds in its entry.
pub enum Posting {
    /// A job: the number of its slot, its cookie, and whether its launch waits until it is taken.
    Job(u32, u64, bool),
    Nothing,
    /// It has to exit.
    Dismissed,
}

impl PoolEntry {
    fn state(&self) -> EntryState {
        EntryState::from_number(self.state.load(Relaxed)).unwrap_or(EntryState::Free)
    }

    fn set_state(&self, pool: &mut Pool, state: EntryState) {
        pool.idle -= usize::from(self.state() == EntryState::Idle);
        pool.idle += usize::from(state == EntryState::Idle);
        self.state.store(state as u32, Relaxed);
    }

    fn process(&self) -> Process {
        Process::new(self.procno.load(Relaxed), self.pid.load(Relaxed))
    }

    /// Whether no process uses the entry any more: a spare worker has ended before it arrived, or the worker has died. A job that was
    /// posted to it is found to be lost by the next process that looks after it.
    fn is_deserted(&self) -> bool {
        match (self.state(), self.pid.load(Relaxed)) {
            (EntryState::Free, _) => false,
            (_, 0) => self.worker.get().status() == WorkerStatus::Stopped,
            _ => !self.process().is_alive(),
        }
    }

    fn dismiss(&self, pool: &mut Pool) {
        self.set_state(pool, EntryState::Dismissed);
        backend::wake(self.procno.load(Relaxed));
    }
}

fn len() -> usize {
    own::max_worker_processes().max(0) as usize
}

thread_local! {
    /// The first entry, once this process has mapped it. It is never freed.
    static FIRST: Cell<Option<&'static PoolEntry>> = const { Cell::new(None) };
    static POOL: Cell<Option<&'static Locked<Pool>>> = const { Cell::new(None) };
}

/// The pool entries; none in a process that has not called [`reach`].
fn entries(_pool: &Pool) -> impl Iterator<Item = &'static PoolEntry> + use<> {
    FIRST
        .get()
        .into_iter()
        .flat_map(|first| (0..len()).map(move |n| shmem::neighbour(first, n)))
}

/// Maps the entries for this process. The system's own error if they cannot be mapped.
pub(super) fn reach() -> Result<()> {
    if FIRST.get().is_none() {
        let entry = shared()?.lock().entries;
        if entry != INVALID_POINTER {
            let first = shmem::mapped::<PoolEntry>(entry)?;
            admission::queue_begins_with(shmem::behind(first, len()));
            FIRST.set(Some(first));
        }
    }
    Ok(())
}

/// Notes the registry's pool, when this process has attached to the registry.
pub(super) fn attach(pool: &'static Locked<Pool>) {
    POOL.set(Some(pool));
}

/// The pool, if this process has attached to the registry.
fn attached() -> Option<&'static Locked<Pool>> {
    POOL.get()
}

/// The pool of a process that has attached.
fn shared() -> Result<&'static Locked<Pool>> {
    let not_attached = || Report::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "the registry is not attached");
    attached().ok_or_else(|| not_attached().into())
}

/// Allocates the entries, once for the cluster, and maps them for this process. 53200 if memory is out.
pub fn prepare() -> Result<()> {
    if FIRST.get().is_some() {
        return Ok(());
    }
    let pool = shared()?;
    if pool.lock().entries == INVALID_POINTER {
        let made = shmem::Owned::new(shmem::allocate(
            len() * size_of::<PoolEntry>() + backend::count() * size_of::<QueuedLaunch>(),
        )?);
        let mut guard = pool.lock();
        if guard.entries == INVALID_POINTER {
            guard.entries = made.hand_over();
        } else {
            drop(guard);
        }
    }
    reach()
}

/// Frees the entries of processes that are gone.
fn free_deserted(pool: &mut Pool) {
    for entry in entries(pool) {
        if entry.is_deserted() {
            entry.set_state(pool, EntryState::Free);
        }
    }
}

fn free_entry(pool: &mut Pool) -> Option<&'static PoolEntry> {
    free_deserted(pool);
    entries(pool).find(|entry| entry.state() == EntryState::Free)
}

/// Enters this process, which has a job, into the pool. None if no entry is free.
pub fn enter() -> Option<&'static PoolEntry> {
    reach().ok()?;
    let mut guard = attached()?.lock();
    let entry = free_entry(&mut guard)?;
    entry.cookie.store(0, Relaxed);
    entry.pid.store(backend::my_pid(), Relaxed);
    entry.procno.store(backend::my_procno(), Relaxed);
    entry.set_state(&mut guard, EntryState::Busy);
    Some(entry)
}

impl PoolEntry {
    /// Offers this process to launches whose jobs it can serve, with preference to `session`. If `limit` workers of the cluster are idle
    /// already, one with another worker key is dismissed. False if there is none, or `limit` is 0.
    pub fn offer(&self, key: WorkerKey, session: i32, limit: i32) -> bool {
        let Some(pool) = attached() else { return false };
        let mut guard = pool.lock();
        let limit = limit.max(0) as usize;
        if guard.idle >= limit {
            free_deserted(&mut guard);
        }
        if guard.idle >= limit && (limit == 0 || !dismiss_other(&mut guard, key)) {
            return false;
        }
        self.key.set(key);
        self.session.store(session, Relaxed);
        self.idle_since.store(backend::now(), Relaxed);
        self.sleeps.store(0, Relaxed);
        self.set_state(&mut guard, EntryState::Idle);
        guard.admission.wake_first();
        true
    }

    /// Notes that this process falls asleep: from now on a launch that claims it waits until it has taken the job. False if it is not idle
    /// any more: it was claimed or dismissed.
    pub fn falls_asleep(&self) -> bool {
        let Some(pool) = attached() else { return false };
        let _guard = pool.lock();
        let idle = self.state() == EntryState::Idle;
        if idle {
            self.sleeps.store(1, Relaxed);
        }
        idle
    }

    /// Whether this worker is anything but idle. Read without the lock, so it is only a hint.
    pub fn has_news(&self) -> bool {
        self.state() != EntryState::Idle
    }

    /// Takes the posted job, if there is one. A launch that posts a job sets the latch afterwards.
    pub fn look(&self) -> Posting {
        if !self.has_news() {
            return Posting::Nothing;
        }
        let Some(pool) = attached() else {
            return Posting::Dismissed;
        };
        let _guard = pool.lock();
        match self.state() {
            EntryState::Busy => match self.cookie.swap(0, Relaxed) {
                0 => Posting::Nothing,
                cookie => Posting::Job(self.slot.load(Relaxed), cookie, self.sleeps.load(Relaxed) != 0),
            },
            EntryState::Idle => Posting::Nothing,
            EntryState::Dismissed | EntryState::Free | EntryState::Coming => Posting::Dismissed,
        }
    }

    /// Withdraws the offer. False if a launch was faster: then there is a job to do.
    pub fn retire(&self) -> bool {
        let Some(pool) = attached() else { return true };
        let mut guard = pool.lock();
        if self.state() == EntryState::Busy && self.cookie.load(Relaxed) != 0 {
            return false;
        }
        guard.note_exiting();
        self.set_state(&mut guard, EntryState::Free);
        true
    }

    /// Frees the entry as the process ends. Returns the job that was posted and never taken, and whether its launch waits until it is
    /// taken.
    pub fn leave(&self) -> Option<(u32, u64, bool)> {
        let mut guard = attached()?.lock();
        // A worker that has retired has no entry: this one is free, or belongs to another worker with its jobs.
        if self.state() == EntryState::Free || self.pid.load(Relaxed) != backend::my_pid() {
            return None;
        }
        let cookie = self.cookie.swap(0, Relaxed);
        self.set_state(&mut guard, EntryState::Free);
        let (slot, launch_waits) = (self.slot.load(Relaxed), self.sleeps.load(Relaxed) != 0);
        drop(guard);
        (cookie != 0).then_some((slot, cookie, launch_waits))
    }
}

/// What a launch gets when it is admitted.
pub enum Admitted {
    /// An idle worker, to which the job was posted. The caller wakes it.
    Claimed(Claimed),
    /// The job was posted to a spare worker that is still being started, with this handle.
    Coming(WorkerHandle),
    /// Permission for a new worker. The caller gets it from the postmaster, or calls [`give_up`].
    New {
        /// Whether a worker was dismissed, so that the postmaster has a free slot in a moment.
        dismissed_worker: bool,
    },
}

/// Admits a job that is in its slot, and posts it to an idle worker that can serve it, preferably one that served this session last. `me`
/// is the launch's position in the queue, [`NOT_QUEUED`] for one that has just come.
///
/// If no worker can serve it, idle workers are dismissed as far as the cap of the cluster requires that for a new one.
pub fn admit(
    slot: &Slot,
    cookie: u64,
    key: WorkerKey,
    caps: Caps,
    me: Position,
) -> core::result::Result<Admitted, NotAdmitted> {
    // Both exist: the caller has taken the slot.
    let (Some(mut job), Some(pool)) = (slot.lock_if(cookie), attached()) else {
        return Ok(Admitted::New {
            dismissed_worker: false,
        });
    };
    let mut pool = pool.lock();
    pool.admission.admit(&mut job, caps, me)?;
    let were_idle = pool.idle;
    job.runner = Process::NONE;
    if let Some(worker) = claim(&mut pool, key, caps.read_at, slot.number(), cookie) {
        if let Admitted::Claimed(worker) = &worker {
            // From here on the job is lost if that process dies, whether it has taken the job or not.
            job.runner = worker.process;
        }
        return Ok(worker);
    }
    for _ in 0..pool.admission.too_many(pool.idle) {
        dismiss_longest(&mut pool);
    }
    Ok(Admitted::New {
        dismissed_worker: pool.idle < were_idle,
    })
}

/// Takes back the admission of a job: the postmaster had no slot, or the worker has given the job back. The job is not counted any more,
/// and other launches are woken.
pub fn give_up(slot: &Slot, cookie: u64) -> NotAdmitted {
    if let Some(mut job) = slot.lock_if(cookie) {
        job.runner = Process::NONE;
        uncount(&mut job, false);
    }
    NotAdmitted {
        shortage: Shortage::Server,
        running: 0,
        cap: 0,
        is_behind: false,
    }
}

/// Stops counting a job that has ended or will never run, and wakes the launches that can run instead, this process only if `me_too`. The
/// caller holds the job's lock.
pub(super) fn uncount(job: &mut Job, me_too: bool) {
    if let Some(pool) = attached() {
        pool.lock().admission.release(job, me_too);
    }
}

/// Notes that this worker is about to end: the postmaster will have a slot for another as soon as it has reaped the process.
pub fn process_ends() {
    if let Some(pool) = attached() {
        let mut pool = pool.lock();
        pool.note_exiting();
        pool.admission.wake_first();
    }
}

/// Claims a worker for a job and posts the job. In order of preference: an idle worker that has served jobs with this worker key; an idle
/// spare worker; the spare worker that is being started for this session. A worker that connected before something changed that a new
/// connection would see is dismissed when it is looked at.
///
/// A spare worker has read the configuration when it was started, and does not learn of a reload until a signal reaches it. So a spare
/// worker that was asked for before this session last read the configuration, at `read_at`, gets no job of it: a new process would have
/// read the same as the session.
fn claim(pool: &mut Pool, key: WorkerKey, read_at: i64, slot: u32, cookie: u64) -> Option<Admitted> {
    thread_local! {
        /// The pool entry that this session claimed last.
        static LAST: Cell<Option<&'static PoolEntry>> = const { Cell::new(None) };
    }
    let me = backend::my_pid();
    let is_ours = |entry: &PoolEntry| entry.session.load(Relaxed) == me;
    let last = LAST
        .get()
        .filter(|entry| entry.state() == EntryState::Idle && is_ours(entry) && entry.process().is_alive());
    let entry = match last.filter(|entry| serves(pool, entry, key)) {
        Some(entry) => entry,
        None => find(pool, key, read_at, is_ours)?,
    };
    LAST.set(Some(entry));
    let is_there = entry.state() == EntryState::Idle;
    entry.slot.store(slot, Relaxed);
    entry.cookie.store(cookie, Relaxed);
    entry.set_state(pool, EntryState::Busy);
    Some(if is_there {
        Admitted::Claimed(Claimed {
            process: entry.process(),
            is_fresh: entry.key.get() == WorkerKey::ANY,
            slept: entry.sleeps.load(Relaxed) != 0,
        })
    } else {
        Admitted::Coming(entry.worker.get())
    })
}

/// Searches all entries for the one that [`claim`] claims.
fn find(
    pool: &mut Pool,
    key: WorkerKey,
    read_at: i64,
    is_ours: impl Fn(&PoolEntry) -> bool,
) -> Option<&'static PoolEntry> {
    let (mut warm, mut spare, mut coming): (Option<&PoolEntry>, _, _) = (None, None, None);
    free_deserted(pool);
    for entry in entries(pool) {
        let ours = is_ours(entry);
        let is_current = entry.asked_at.load(Relaxed) > read_at;
        match entry.state() {
            EntryState::Coming if ours && is_current && is_coming(entry) => coming = Some(entry),
            EntryState::Idle if entry.key.get() == WorkerKey::ANY && is_current => spare = Some(entry),
            EntryState::Idle if serves(pool, entry, key) && (warm.is_none() || ours) => {
                warm = Some(entry);
                if ours {
                    break;
                }
            }
            _ => (),
        }
    }
    warm.or(spare).or(coming)
}

/// Whether an idle worker that has served other jobs may serve one with this worker key. Dismisses a worker with an outdated connection
/// version.
fn serves(pool: &mut Pool, entry: &PoolEntry, key: WorkerKey) -> bool {
    let has = entry.key.get();
    if key.connection_version == 0 || (has.database, has.role) != (key.database, key.role) {
        return false;
    }
    if key.connection_version == WorkerKey::JUDGED_BY_THE_WORKER {
        return has.custom == 0;
    }
    if has.connection_version != key.connection_version {
        entry.dismiss(pool);
        return false;
    }
    has.custom == 0 || has.custom == key.custom
}

/// Whether a worker is about to end, or has ended and was not yet reaped by the postmaster: then its slot will be free in a moment. Also
/// true while a spare worker is being started, which will offer itself.
pub fn is_worker_exiting() -> bool {
    let Some(pool) = attached() else { return false };
    let mut pool = pool.lock();
    let mut found = entries(&pool).any(|entry| entry.state() == EntryState::Dismissed) || entries(&pool).any(is_coming);
    for pid in &mut pool.exiting {
        // The postmaster frees the slot in the same step in which it reaps the process.
        if *pid != 0 && backend::exists(*pid) {
            found = true;
        } else {
            *pid = 0;
        }
    }
    found
}

/// Notes that a job was given a fresh process now. Returns how many microseconds ago that happened last, in the whole cluster.
pub fn use_fresh() -> i64 {
    let now = backend::now();
    attached().map_or(i64::MAX, |pool| {
        now - core::mem::replace(&mut pool.lock().fresh_at, now)
    })
}

/// The pool entry of a spare worker that is about to be asked for. Dropping it frees the entry.
pub struct Expected {
    entry: &'static PoolEntry,
    /// The number of the entry, and the token by which [`arrive`] recognises the process.
    pub number: u32,
    pub token: u64,
}

/// Reserves a pool entry for a spare worker. None if [`SPARES`] exist or are being started, if `limit` workers are idle, or if idle workers
/// and jobs would exceed `pg_background.max_cluster_workers`.
pub fn expect_spare(token: u64, limit: i32) -> Option<Expected> {
    let mut guard = attached()?.lock();
    let coming = entries(&guard).filter(|entry| is_coming(entry)).count();
    let spare = entries(&guard).filter(|entry| entry.state() == EntryState::Idle && entry.key.get() == WorkerKey::ANY);
    let idle = guard.idle + coming;
    if spare.count() + coming >= SPARES || idle >= limit.max(0) as usize || guard.admission.too_many(idle + 1) > 0 {
        return None;
    }
    let entry = free_entry(&mut guard)?;
    entry.asked_at.store(backend::now(), Relaxed);
    entry.token.store(token, Relaxed);
    entry.pid.store(0, Relaxed);
    entry.cookie.store(0, Relaxed);
    entry.session.store(backend::my_pid(), Relaxed);
    entry.key.set(WorkerKey::ANY);
    entry.worker.set(WorkerHandle::NONE);
    entry.set_state(&mut guard, EntryState::Coming);
    let number = entries(&guard).position(|other| core::ptr::eq(other, entry))? as u32;
    Some(Expected { entry, number, token })
}

impl Expected {
    /// The postmaster was asked for the worker, which has the handle `worker`.
    pub fn comes_as(self, worker: WorkerHandle) {
        if let Some(pool) = attached() {
            let _guard = pool.lock();
            // If the worker has arrived already, the entry may belong to another by now.
            if self.entry.token.load(Relaxed) == self.token {
                self.entry.worker.set(worker);
            }
        }
        core::mem::forget(self);
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(pool) = attached() {
            self.entry.set_state(&mut pool.lock(), EntryState::Free);
        }
    }
}

/// Whether a spare worker is being started that no job was posted to.
fn is_coming(entry: &PoolEntry) -> bool {
    entry.state() == EntryState::Coming && entry.worker.get().status() != WorkerStatus::Stopped
}

/// Enters this process as the spare worker that entry `number` was reserved for. A job may have been posted there already. None if it is
/// not expected.
pub fn arrive(number: u32, token: u64) -> Option<&'static PoolEntry> {
    reach().ok()?;
    let mut guard = attached()?.lock();
    let entry = entries(&guard).nth(number as usize)?;
    if entry.token.swap(0, Relaxed) != token {
        return None;
    }
    entry.pid.store(backend::my_pid(), Relaxed);
    entry.procno.store(backend::my_procno(), Relaxed);
    entry.sleeps.store(0, Relaxed);
    if entry.state() == EntryState::Coming {
        entry.idle_since.store(backend::now(), Relaxed);
        entry.set_state(&mut guard, EntryState::Idle);
        guard.admission.wake_first();
    }
    Some(entry)
}

impl Pool {
    fn note_exiting(&mut self) {
        let pid = backend::my_pid();
        if !self.exiting.contains(&pid) {
            let next = self.next_exiting % EXITING;
            self.exiting[next] = pid;
            self.next_exiting = next + 1;
        }
    }
}

/// Dismisses an idle worker, to free a slot for the launch at position `me`. False if the launches before it could use all idle workers.
pub fn dismiss_one(me: Position) -> bool {
    let Some(pool) = attached() else { return false };
    let mut guard = pool.lock();
    guard.idle > guard.admission.claims_before(me) && dismiss_longest(&mut guard)
}

/// Dismisses an idle worker, to free a slot, if another one stays that can try what the slot is for.
pub fn dismiss_one_of_many() {
    if let Some(pool) = attached() {
        let mut guard = pool.lock();
        if guard.idle > 1 {
            dismiss_longest(&mut guard);
        }
    }
}

/// Dismisses the worker that has been idle for longest. False if none is idle.
fn dismiss_longest(pool: &mut Pool) -> bool {
    dismiss_longest_of(pool, |_| true)
}

/// How many workers and launches there are at this moment.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Jobs that have a worker or are about to get one.
    pub running: u32,
    /// Workers that have a job, or are about to exit.
    pub busy: usize,
    /// Workers that wait for a job.
    pub idle: usize,
    /// Launches in the launch queue.
    pub waiting: usize,
}

/// Counts them. The system's own error if the pool cannot be mapped.
pub fn counts() -> Result<Counts> {
    reach()?;
    let mut guard = shared()?.lock();
    free_deserted(&mut guard);
    let count = |state| entries(&guard).filter(|entry| entry.state() == state).count();
    Ok(Counts {
        running: guard.admission.running(),
        busy: count(EntryState::Busy) + count(EntryState::Dismissed),
        idle: count(EntryState::Idle),
        waiting: guard.admission.waiting(),
    })
}

/// Dismisses the worker that has been idle for longest of those with another worker key. So when jobs of more kinds come than workers may
/// be idle, the kinds that came last find one. False if there is none.
fn dismiss_other(pool: &mut Pool, key: WorkerKey) -> bool {
    dismiss_longest_of(pool, |entry| entry.key.get() != key)
}

fn dismiss_longest_of(pool: &mut Pool, is_wanted: impl Fn(&PoolEntry) -> bool) -> bool {
    let longest = entries(pool)
        .filter(|entry| entry.state() == EntryState::Idle && is_wanted(entry))
        .min_by_key(|entry| entry.idle_since.load(Relaxed));
    longest.inspect(|entry| entry.dismiss(pool)).is_some()
}

/// Enters the launch queue at its end, for a job with these two counters. The system's own error if the queue cannot be mapped.
pub fn join_queue(role_count: DsaPointer, counters: DsaPointer, of: Shortage) -> Result<()> {
    reach()?;
    shared()?.lock().admission.enter(role_count, counters, of);
    Ok(())
}

/// Notes in the launch queue what this process waits for now. Does nothing if it is not in the queue.
pub fn wait_for(of: Shortage) {
    if let Some(pool) = attached().filter(|_| admission::my_position() != NOT_QUEUED) {
        pool.lock().admission.change(of);
    }
}

/// Leaves the launch queue, and wakes the next launch. Does nothing if this process is not in the queue.
pub fn leave_queue() {
    if let Some(pool) = attached().filter(|_| admission::my_position() != NOT_QUEUED) {
        pool.lock().admission.leave();
    }
}

/// Returns the count of a role, made on first use. 53200 if memory is out.
pub fn count_of_role(number: u32) -> Result<DsaPointer> {
    admission::count_of_role(shared()?, |pool| &mut pool.admission, number)
}
