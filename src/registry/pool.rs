//! The workers that can serve one job after another.
//!
//! A worker enters the pool with its first job. When a job is over and nothing of it is left in the process, the worker offers
//! itself, and a launch that fits claims it: both steps are taken under the pool's lock, so that a worker which wants to leave
//! either is gone before the claim or has the job. What a claim posts, the worker takes as a new worker takes its first job.
//!
//! A spare process, started before there is a job for it, has its entry before it is there: [`expect_spare`], then [`arrive`].
//!
//! Whether a launch may have a worker at all is decided in the same step ([`Admission`]).
//!
//! Nothing under the pool's lock allocates, maps or raises. The entry of a process that is gone without a word is free.

use crate::pg::error::{Report, Result};
use crate::pg::guc::own;
use crate::pg::process::backend::{self, Process};
use crate::pg::process::bgworker::{WorkerHandle, WorkerStatus};
use crate::pg::shmem::{self, DsaPointer, INVALID_POINTER, Locked};
use crate::registry::admission::{self, Admission, Caps, NOT_QUEUED, Position, QueuedLaunch, Short, Shortage};
use crate::registry::job::{Job, Slot};
use core::cell::Cell;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64};
use pgrx::PgSqlErrorCode;

/// All entries, as many as the server can have workers.
#[repr(C)]
pub struct Pool {
    /// The entries, and behind them the spots of the line.
    entries: DsaPointer,
    /// How many workers are idle. Counted, since to look at each would fetch what all others write.
    idle: usize,
    /// The processes that ended last, or are about to.
    going: [i32; GOING],
    next_going: usize,
    /// When a job was given a fresh process last.
    fresh_at: i64,
    pub(super) admission: Admission,
}

/// How many processes that end are remembered.
const GOING: usize = 16;

/// How many spare processes there are at most in the cluster. With one ready and one on its way both cores of a small machine have
/// something to do all the time.
const SPARES: usize = 2;

/// The entry of a worker. Its parts change under the pool's lock only.
#[repr(C)]
pub struct PoolEntry {
    state: AtomicU32,
    /// 0 where it is still to come.
    pid: AtomicI32,
    procno: AtomicU32,
    key: Cell<WorkerKey>,
    /// The session that it served last, or that has asked for it.
    session: AtomicI32,
    idle_since: AtomicI64,
    /// Not 0 where it sleeps, and so looks for signals before it looks for a job.
    sleeps: AtomicU32,
    /// The job that was posted, while the cookie is not 0.
    slot: AtomicU32,
    cookie: AtomicU64,
    /// A spare process that is to come: when it was asked for, what it shows on arrival, and as what the postmaster knows it.
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
    /// It was asked to make room, and takes no job any more.
    Dismissed = 3,
    /// A spare process is on its way here.
    Coming = 4,
}

/// What makes a worker key for a job.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct WorkerKey {
    /// The database that it is connected to.
    pub database: u32,
    /// The role that it connected as.
    pub role: u32,
    /// What a new connection would have got when it connected. Of a job, what a new connection gets; 0 where it is to have a process of its own.
    pub connection_version: u64,
    /// The settings, if any, that it can never be without again.
    pub custom: u64,
}

impl WorkerKey {
    /// A process that is connected to no database yet: it fits every job.
    pub const ANY: WorkerKey = WorkerKey {
        database: 0,
        role: 0,
        connection_version: 0,
        custom: 0,
    };

    /// The connection_version of a job of which nobody could look it up. The worker that is given the job judges whether it is as good as a new
    /// connection.
    pub const JUDGED_BY_THE_WORKER: u64 = u64::MAX;
}

/// A worker that was claimed.
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

    /// Lets the worker look at what was posted.
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

/// What an idle worker finds.
pub enum Posting {
    /// A job: the number of its slot, its cookie, and whether its launch waits to see that it is taken.
    Job(u32, u64, bool),
    Nothing,
    /// It is to make room.
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

    /// Whether nobody is here any more: a spare process was to come that has ended before, or the one that was here is gone without
    /// a word. What was posted to it is found to be lost by whoever looks after the job.
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

/// The entries; none in a process that has not called [`reach`].
fn entries(_pool: &Pool) -> impl Iterator<Item = &'static PoolEntry> + use<> {
    FIRST
        .get()
        .into_iter()
        .flat_map(|first| (0..len()).map(move |n| shmem::neighbour(first, n)))
}

/// Maps the entries for this process. The system's own error where it refuses.
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

/// This process has attached to the registry, in which this is the pool.
pub(super) fn attach(pool: &'static Locked<Pool>) {
    POOL.set(Some(pool));
}

/// The pool, where this process has attached to the registry.
fn attached() -> Option<&'static Locked<Pool>> {
    POOL.get()
}

/// The pool of a process that has attached.
fn shared() -> Result<&'static Locked<Pool>> {
    let not_attached = || Report::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "the registry is not attached");
    attached().ok_or_else(|| not_attached().into())
}

/// Makes the entries, once for the cluster, and maps them for this process. 53200 where memory is out.
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

/// Frees the entries of those who are gone.
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

/// This process, which has a job in hand, enters. None where there is no entry.
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
    /// Offers this process to launches that it fits, those of `session` before all others. Where `limit` workers of the cluster are idle
    /// already, one of another kind makes room for it. False where they are all of this kind.
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

    /// From now on a launch that claims this process waits until it has taken the job. False where one has claimed it before.
    pub fn falls_asleep(&self) -> bool {
        let Some(pool) = attached() else { return false };
        let _guard = pool.lock();
        let idle = self.state() == EntryState::Idle;
        if idle {
            self.sleeps.store(1, Relaxed);
        }
        idle
    }

    /// Whether something else is known than that it is idle; without the lock, a hint only.
    pub fn has_news(&self) -> bool {
        self.state() != EntryState::Idle
    }

    /// Looks whether a job was posted, and takes it. Who posts one sets the latch afterwards.
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

    /// Withdraws the offer. False where a launch was faster: then there is a job to do.
    pub fn retire(&self) -> bool {
        let Some(pool) = attached() else { return true };
        let mut guard = pool.lock();
        if self.state() == EntryState::Busy && self.cookie.load(Relaxed) != 0 {
            return false;
        }
        guard.note_going();
        self.set_state(&mut guard, EntryState::Free);
        true
    }

    /// The process ends. Returns the job that was posted and that it never took, and whether its launch waits to see.
    pub fn leave(&self) -> Option<(u32, u64, bool)> {
        let mut guard = attached()?.lock();
        // Who has retired has no entry: it is free, or another's with that one's jobs.
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

/// What a launch is given.
pub enum Admitted {
    /// An idle worker, to which the job was posted. The caller wakes it.
    Claimed(Claimed),
    /// The job was posted to a worker that is still on its way, as this one.
    Coming(WorkerHandle),
    /// The room for a new one. The caller gets it from the postmaster, or calls [`give_up`].
    New {
        /// Whether a worker was sent away, so that the postmaster has a slot in a moment.
        made_room: bool,
    },
}

/// Counts a job that is in its slot, and posts it to an idle worker that fits: one that served this session last, else any. `me` is
/// the launch's entry in line, [`admission::NOT_QUEUED`](super::admission::NOT_QUEUED) for one that has just come. Where there is none, idle workers that do not key make room for
/// a new one under the cap of the cluster.
pub fn admit(
    slot: &Slot,
    cookie: u64,
    key: WorkerKey,
    caps: Caps,
    me: Position,
) -> core::result::Result<Admitted, Short> {
    // Both are there: the caller has taken the slot.
    let (Some(mut job), Some(pool)) = (slot.lock_if(cookie), attached()) else {
        return Ok(Admitted::New { made_room: false });
    };
    let mut pool = pool.lock();
    pool.admission.admit(&mut job, caps, me)?;
    let were_idle = pool.idle;
    job.runner = Process::NONE;
    if let Some(worker) = claim(&mut pool, key, caps.read_at, slot.number(), cookie) {
        if let Admitted::Claimed(worker) = &worker {
            // From here on the job is lost with that process, whether it takes it or not.
            job.runner = worker.process;
        }
        return Ok(worker);
    }
    for _ in 0..pool.admission.too_many(pool.idle) {
        dismiss_longest(&mut pool);
    }
    Ok(Admitted::New {
        made_room: pool.idle < were_idle,
    })
}

/// The postmaster had no slot: the job counts no more, and others may look.
pub fn give_up(slot: &Slot, cookie: u64) -> Short {
    if let Some(mut job) = slot.lock_if(cookie) {
        job.runner = Process::NONE;
        uncount(&mut job, false);
    }
    Short {
        of: Shortage::Server,
        running: 0,
        cap: 0,
        is_behind: false,
    }
}

/// The job has ended, or will never be: it counts no more, and those whom that makes room for wake, this process only where
/// `me_too`. The caller holds the job's lock.
pub(super) fn uncount(job: &mut Job, me_too: bool) {
    if let Some(pool) = attached() {
        pool.lock().admission.release(job, me_too);
    }
}

/// A worker's process is about to end: the postmaster will have room for another as soon as it has seen that.
pub fn process_ends() {
    if let Some(pool) = attached() {
        let mut pool = pool.lock();
        pool.note_going();
        pool.admission.wake_first();
    }
}

/// Claims a worker for a job and posts the job: an idle one that has served jobs like it, where that is wanted, else one that has
/// not served any, else the one that is on its way for this session. Those that connected before something changed which a new
/// connection would see are sent away.
///
/// A process that was started ahead knows the configuration as it was then, until a signal reaches it. So one that was asked for before
/// this session has read the configuration last, at `read_at`, gets no job of it: a new process would have read the same.
fn claim(pool: &mut Pool, key: WorkerKey, read_at: i64, slot: u32, cookie: u64) -> Option<Admitted> {
    thread_local! {
        /// Where this session found its worker last.
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

/// Looks at all entries for the one that [`claim`] claims.
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

/// Whether an idle worker that has served other jobs may serve one that `key` describes. One that connected before something changed
/// is sent away.
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

/// Whether a worker's process is about to end, or has ended and the postmaster has not seen it yet: then its slot will be free in
/// a moment. So it is where a spare process is about to offer itself.
pub fn is_one_going() -> bool {
    let Some(pool) = attached() else { return false };
    let mut pool = pool.lock();
    let mut found = entries(&pool).any(|entry| entry.state() == EntryState::Dismissed) || entries(&pool).any(is_coming);
    for pid in &mut pool.going {
        // The postmaster frees the slot in the same step in which it lets the process go.
        if *pid != 0 && backend::exists(*pid) {
            found = true;
        } else {
            *pid = 0;
        }
    }
    found
}

/// A job was given a fresh process now. Returns for how many microseconds before none had been, in the whole cluster.
pub fn use_fresh() -> i64 {
    let now = backend::now();
    attached().map_or(i64::MAX, |pool| {
        now - core::mem::replace(&mut pool.lock().fresh_at, now)
    })
}

/// The entry of a spare process that is about to be asked for. Free again when dropped.
pub struct Expected {
    entry: &'static PoolEntry,
    /// The entry's number, and what proves to [`arrive`] that the process is the one.
    pub number: u32,
    pub token: u64,
}

/// Makes a entry for a spare process. None where [`SPARES`] are there or on their way, or where the cluster has no room for one more
/// idle worker: `limit` are enough, and idle ones and jobs are no more than `pg_background.max_cluster_workers`.
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
    /// The postmaster was asked, and knows it as `worker`.
    pub fn comes_as(self, worker: WorkerHandle) {
        if let Some(pool) = attached() {
            let _guard = pool.lock();
            // Unless it was fast, and the entry is another's by now.
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

/// Whether a spare process is still to come that no job waits for.
fn is_coming(entry: &PoolEntry) -> bool {
    entry.state() == EntryState::Coming && entry.worker.get().status() != WorkerStatus::Stopped
}

/// This process is the spare one that entry `number` waits for. It may find a job there already. None where it is not waited for.
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
    fn note_going(&mut self) {
        let pid = backend::my_pid();
        if !self.going.contains(&pid) {
            let next = self.next_going % GOING;
            self.going[next] = pid;
            self.next_going = next + 1;
        }
    }
}

/// Sends an idle worker away, to make room for the launch at entry `me` in line. False where none is idle but for those in front.
pub fn dismiss_one(me: Position) -> bool {
    let Some(pool) = attached() else { return false };
    let mut guard = pool.lock();
    guard.idle > guard.admission.claims_before(me) && dismiss_longest(&mut guard)
}

/// Sends the worker away that has been idle for longest. False where none is idle.
fn dismiss_longest(pool: &mut Pool) -> bool {
    dismiss_longest_of(pool, |_| true)
}

/// Sends the worker away that has been idle for longest of those that are not like this. So where jobs of more kinds come than workers may be
/// idle, those of the kinds that came last find one. False where there is none.
fn dismiss_other(pool: &mut Pool, key: WorkerKey) -> bool {
    dismiss_longest_of(pool, |entry| entry.key.get() != key)
}

fn dismiss_longest_of(pool: &mut Pool, is_wanted: impl Fn(&PoolEntry) -> bool) -> bool {
    let longest = entries(pool)
        .filter(|entry| entry.state() == EntryState::Idle && is_wanted(entry))
        .min_by_key(|entry| entry.idle_since.load(Relaxed));
    longest.inspect(|entry| entry.dismiss(pool)).is_some()
}

/// Goes to the end of the line, for a job that counts in these two entries. The system's own error where it refuses to map the line.
pub fn join_queue(role_count: DsaPointer, counters: DsaPointer, of: Shortage) -> Result<()> {
    reach()?;
    shared()?.lock().admission.enter(role_count, counters, of);
    Ok(())
}

/// Tells the others in line what this process waits for now.
pub fn wait_for(of: Shortage) {
    if let Some(pool) = attached().filter(|_| admission::my_position() != NOT_QUEUED) {
        pool.lock().admission.change(of);
    }
}

/// Leaves the line, and lets the next one look. Does nothing where this process does not stand there.
pub fn leave_queue() {
    if let Some(pool) = attached().filter(|_| admission::my_position() != NOT_QUEUED) {
        pool.lock().admission.leave();
    }
}

/// The count of a role, made on first use. 53200 where memory is out.
pub fn count_of_role(number: u32) -> Result<DsaPointer> {
    admission::count_of_role(shared()?, |pool| &mut pool.admission, number)
}
