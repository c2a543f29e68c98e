//! What all processes know of durable tasks: which of them run, what is due in which database, and which process looks after that.
//!
//! It is made at the first use, in the dynamic area. All of it changes under one lock, in which nothing allocates, maps or raises. A claim and
//! the entry of a database, once seen, can always be looked at.
//!
//! A claim is what makes a task run: whoever holds it is the only one, and it says "running" nowhere else. It goes when the process that
//! holds it lets go, which is after the end of the transaction that notes the task's end. Where the process ends before, the claim is lost:
//! it goes on to keep others away until the keeper has noted the attempt.

use crate::pg::error::{self, Result};
use crate::pg::guc::own;
use crate::pg::process::backend::{self, Process};
use crate::pg::process::bgworker::{self, WorkerHandle, WorkerStatus};
use crate::pg::shmem::{self, DsaPointer, Locked};
use crate::registry::list::{self, Linked};
use crate::registry::segment;
use crate::registry::waiters::{self, Waiters};
use core::cell::Cell;
use core::ffi::CStr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicU32, AtomicU64};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The symbol that the postmaster starts the clock at.
pub const CLOCK_MAIN: &CStr = c"pg_background_clock_main";

/// Of how many roles of a database it is known how many tasks are ready; of more the keeper tells when these have none.
const ROLES: usize = 32;

/// Claims for each worker that the server can have. Those that are lost take room until the keeper has seen them.
const CLAIMS: usize = 4;

/// What is behind the lock.
#[repr(C)]
pub struct Root {
    clock: Process,
    clock_worker: WorkerHandle,
    /// How many times the clock was asked for something.
    asked: u64,
    databases: DsaPointer,
    claims: DsaPointer,
}

/// Where a claim stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Standing {
    Free = 0,
    Held = 1,
    /// The process is gone, and the attempt is not noted.
    Lost = 2,
}

numbered!(Standing { Free, Held, Lost });

/// What a claim says.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Run {
    pub database: u32,
    /// The table that the task is a row of.
    pub relation: u32,
    pub task: i64,
    /// The number of the task's role.
    pub owner: u32,
    pub attempt: i32,
    pub started_at: i64,
    pub process: Process,
    /// The job.
    pub slot: u32,
    pub cookie: u64,
    /// What stands for the names of the queue and of the concurrency key, the latter 0 where there is none.
    pub queue: u64,
    pub key: u64,
}

/// A place for a claim. Changes under the lock only.
#[repr(C)]
pub struct Claim {
    standing: AtomicU32,
    run: Cell<Run>,
}

impl Claim {
    fn standing(&self) -> Standing {
        Standing::from_number(self.standing.load(Relaxed)).unwrap_or(Standing::Free)
    }

    /// A process that is gone without a word has lost its claim.
    fn look_after(&self) {
        if self.standing() == Standing::Held && !self.run.get().process.is_alive() {
            self.standing.store(Standing::Lost as u32, Relaxed);
        }
    }
}

/// A role of a database that has tasks which can run.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Ready {
    pub role: u32,
    pub tasks: u32,
}

/// A database that has tasks, or had. Never freed. What is not atomic changes under the lock only.
#[repr(C)]
pub struct Database {
    next: AtomicU64,
    number: AtomicU32,
    /// Who owns the tables, and the one of the tasks.
    owner: Cell<u32>,
    relation: Cell<u32>,
    /// How many times a look at the tables was asked for, and how many of these the last look has seen.
    wanted: Cell<u64>,
    swept: Cell<u64>,
    /// How many times the keeper has looked.
    sweeps: Cell<u64>,
    /// Whether the extension was there when somebody looked last.
    lives: Cell<bool>,
    /// When the keeper is to look next, 0 for never.
    next_due: Cell<i64>,
    /// Whether there may be tasks that wait for others.
    has_blocked: Cell<bool>,
    ready: Cell<[Ready; ROLES]>,
    /// Up to where the log is to be on disk for all that has ended here to be there.
    flush_to: AtomicU64,
    /// Who waits for the end of a task.
    waiters: AtomicU64,
}

impl Linked for Database {
    fn next(&self) -> &AtomicU64 {
        &self.next
    }
}

thread_local! {
    static SHARED: Cell<Option<&'static Locked<Root>>> = const { Cell::new(None) };
    static FIRST: Cell<Option<&'static Claim>> = const { Cell::new(None) };
    static MINE: Cell<Option<&'static Database>> = const { Cell::new(None) };
    static HELD: Cell<Option<&'static Claim>> = const { Cell::new(None) };
}

fn places() -> usize {
    own::max_worker_processes().max(1) as usize * CLAIMS
}

/// Attaches at the first use. 53200 where memory is out.
fn shared() -> Result<&'static Locked<Root>> {
    if let Some(shared) = SHARED.get() {
        return Ok(shared);
    }
    let segment = segment::segment()?;
    let mut at = segment.tasks.load(Acquire);
    if at == shmem::INVALID_POINTER {
        let claims = shmem::Owned::new(shmem::allocate(places() * size_of::<Claim>())?);
        let made = shmem::Owned::new(shmem::allocate(size_of::<Locked<Root>>())?);
        let root: &Locked<Root> = shmem::at(made.pointer());
        root.init(segment.tranche());
        {
            let mut root = root.lock();
            root.claims = claims.pointer();
            root.clock_worker = WorkerHandle::NONE;
        }
        at = match segment
            .tasks
            .compare_exchange(shmem::INVALID_POINTER, made.pointer(), AcqRel, Acquire)
        {
            Ok(_) => {
                claims.hand_over();
                made.hand_over()
            }
            Err(other) => other,
        };
    }
    let shared: &'static Locked<Root> = shmem::mapped(at)?;
    let claims = shared.lock().claims;
    FIRST.set(Some(shmem::mapped(claims)?));
    SHARED.set(Some(shared));
    Ok(shared)
}

/// Whether anything was ever said of tasks since the server's start.
pub fn is_in_use() -> Result<bool> {
    Ok(segment::segment()?.tasks.load(Acquire) != shmem::INVALID_POINTER)
}

fn claims(_root: &Root) -> impl Iterator<Item = &'static Claim> + use<> {
    FIRST
        .get()
        .into_iter()
        .flat_map(|first| (0..places()).map(move |n| shmem::neighbour(first, n)))
}

/// What stands for a name.
pub fn stands_for(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish().max(1)
}

/// The entry of the database `number`, made at its first use. 53200.
pub fn database(number: u32) -> Result<&'static Database> {
    let shared = shared()?;
    let bits = shmem::Owned::new(shmem::allocate(waiters::bytes())?);
    let is_new = Cell::new(false);
    let at = list::find_or_add(
        shared,
        |root: &mut Root| &mut root.databases,
        |database: &Database| database.number.load(Relaxed) == number,
        |database| {
            database.number.store(number, Relaxed);
            database.waiters.store(bits.pointer(), Relaxed);
            is_new.set(true);
        },
    )?;
    let database: &'static Database = shmem::mapped(at)?;
    if is_new.get() && database.waiters.load(Relaxed) == bits.pointer() {
        bits.hand_over();
    }
    shmem::map(database.waiters.load(Relaxed))?;
    Ok(database)
}

/// The entry of this process's database. 53200.
pub fn mine() -> Result<&'static Database> {
    if let Some(database) = MINE.get() {
        return Ok(database);
    }
    let database = database(backend::my_database().to_u32())?;
    MINE.set(Some(database));
    Ok(database)
}

/// The same where it is at hand.
pub fn known() -> Option<&'static Database> {
    MINE.get()
}

/// All databases that are known.
pub fn databases() -> Result<Vec<&'static Database>> {
    let first = shared()?.lock().databases;
    list::all(first)
}

impl Database {
    /// The number of the database, and of the role that owns the tables.
    pub fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// The role that the keeper connects as.
    pub fn owner(&self) -> u32 {
        SHARED.get().map_or(0, |shared| {
            let _root = shared.lock();
            self.owner.get()
        })
    }

    /// Notes whose the tables are. Those of an extension that was made anew know nothing of what was ready before.
    pub fn belongs_to(&self, relation: u32, owner: u32) {
        let Some(shared) = SHARED.get() else { return };
        let _root = shared.lock();
        self.owner.set(owner);
        self.lives.set(true);
        if self.relation.replace(relation) != relation {
            self.ready.set([Ready::default(); ROLES]);
        }
    }

    /// It had tasks before the server's start, and these belonged to this role.
    pub fn had_tasks(&self, owner: u32) {
        let Some(shared) = SHARED.get() else { return };
        let mut root = shared.lock();
        root.asked += 1;
        if !self.lives.replace(true) {
            self.owner.set(owner);
            self.has_blocked.set(true);
            self.wanted.set(self.wanted.get() + 1);
        }
    }

    /// Whether it has tasks as far as is known, and whose the tables are.
    pub fn has_tasks(&self) -> Option<u32> {
        let _root = SHARED.get()?.lock();
        self.lives.get().then(|| self.owner.get())
    }

    /// Somebody is to look at the tables; `blocks` where a task may wait for others. Must not fail.
    pub fn ask_for_sweep(&self, blocks: bool) {
        let Some(shared) = SHARED.get() else { return };
        {
            let mut root = shared.lock();
            root.asked += 1;
            // Before the number changes: the keeper says that nothing is blocked only where it has not.
            self.has_blocked.set(self.has_blocked.get() || blocks);
            self.wanted.set(self.wanted.get() + 1);
        }
        wake_clock();
    }

    /// Somebody is to look at the tables at `at` at the latest.
    pub fn ask_for_sweep_at(&self, at: i64) {
        let Some(shared) = SHARED.get() else { return };
        {
            let mut root = shared.lock();
            root.asked += 1;
            let next = self.next_due.get();
            if next == 0 || at < next {
                self.next_due.set(at);
            }
        }
        wake_clock();
    }

    /// The keeper begins. Gives what [`Database::swept`] takes.
    pub fn sweep_begins(&self) -> u64 {
        let Some(shared) = SHARED.get() else { return 0 };
        let _root = shared.lock();
        self.next_due.set(0);
        self.wanted.get()
    }

    /// The keeper has looked, which began at `began`, and has found this.
    pub fn swept(&self, began: u64, next_due: i64, has_blocked: bool, ready: &[Ready]) {
        let Some(shared) = SHARED.get() else { return };
        let _root = shared.lock();
        if self.wanted.get() == began {
            self.has_blocked.set(has_blocked);
        }
        self.swept.set(began);
        self.sweeps.set(self.sweeps.get() + 1);
        if next_due != 0 && (self.next_due.get() == 0 || next_due < self.next_due.get()) {
            self.next_due.set(next_due);
        }
        let mut all = [Ready::default(); ROLES];
        all.iter_mut().zip(ready).for_each(|(to, from)| *to = *from);
        self.ready.set(all);
        if ready.len() > ROLES {
            // The others' turn comes later.
            self.wanted.set(self.wanted.get() + 1);
        }
    }

    /// The database or its extension does not exist any more.
    pub fn is_gone(&self) {
        let Some(shared) = SHARED.get() else { return };
        let root = shared.lock();
        self.swept.set(self.wanted.get());
        self.next_due.set(0);
        self.lives.set(false);
        self.ready.set([Ready::default(); ROLES]);
        for claim in claims(&root) {
            if claim.standing() == Standing::Lost && claim.run.get().database == self.number() {
                claim.standing.store(Standing::Free as u32, Relaxed);
            }
        }
    }

    /// Whether the keeper is to look by now, and else when, 0 for never.
    pub fn due(&self, now: i64) -> (bool, i64) {
        let Some(shared) = SHARED.get() else {
            return (false, 0);
        };
        let root = shared.lock();
        let lost = claims(&root).any(|claim| {
            claim.look_after();
            claim.standing() == Standing::Lost && claim.run.get().database == self.number()
        });
        let at = self.next_due.get();
        (
            lost || self.wanted.get() != self.swept.get() || (at != 0 && at <= now),
            at,
        )
    }

    /// The roles that have tasks which can run.
    pub fn ready(&self) -> [Ready; ROLES] {
        let Some(shared) = SHARED.get() else {
            return [Ready::default(); ROLES];
        };
        let _root = shared.lock();
        self.ready.get()
    }

    /// One task less is ready of the role, or none where `all`.
    fn less_ready(&self, _root: &Root, role: u32, all: bool) {
        let mut ready = self.ready.get();
        for entry in ready.iter_mut().filter(|entry| entry.role == role) {
            entry.tasks = if all { 0 } else { entry.tasks.saturating_sub(1) };
        }
        self.ready.set(ready);
    }

    /// How many times the keeper has looked.
    pub fn sweeps(&self) -> u64 {
        SHARED.get().map_or(0, |shared| {
            let _root = shared.lock();
            self.sweeps.get()
        })
    }

    /// No task of the role can be taken up, as somebody has found who began to look after so many looks of the keeper. What the keeper has found since
    /// is not known to be wrong.
    pub fn none_ready(&self, role: u32, sweeps: u64) {
        if let Some(shared) = SHARED.get() {
            let root = shared.lock();
            if self.sweeps.get() == sweeps {
                self.less_ready(&root, role, true);
            }
        }
    }

    fn waiters(&self) -> Option<Waiters> {
        shmem::look::<AtomicU64>(self.waiters.load(Relaxed)).map(|first| Waiters::at(first, 0))
    }

    /// This process is woken at each end of a task of the database, until [`Database::wait_no_more`].
    pub fn wait_for_ends(&self) {
        if let Some(waiters) = self.waiters() {
            waiters.enter();
        }
    }

    /// The wait is over.
    pub fn wait_no_more(&self) {
        if let Some(waiters) = self.waiters() {
            waiters.leave();
        }
    }

    /// Up to where the log has to be on disk.
    pub fn flush_to(&self) -> u64 {
        self.flush_to.load(Acquire)
    }
}

/// What a process gets that wants to run a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimed {
    Held,
    /// Somebody has it.
    Elsewhere,
    /// As many tasks of its queue run as may.
    QueueIsFull,
    /// As many tasks of its concurrency key run as may.
    KeyIsFull,
    /// As many tasks of the cluster run as may.
    NoRoom,
}

/// How many tasks may run at the same time, None for as many as like.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub cluster: i32,
    pub queue: Option<i32>,
    pub key: Option<i32>,
}

/// Claims a task for this process, which holds none. 53200.
pub fn claim(run: Run, limits: Limits) -> Result<Claimed> {
    let database = mine()?;
    let root = shared()?.lock();
    let (mut all, mut of_queue, mut of_key, mut free) = (0, 0, 0, None);
    for claim in claims(&root) {
        claim.look_after();
        if claim.standing() == Standing::Free {
            free = free.or(Some(claim));
            continue;
        }
        let other = claim.run.get();
        let is_held = claim.standing() == Standing::Held;
        all += i32::from(is_held);
        if (other.database, other.relation) != (run.database, run.relation) {
            continue;
        }
        if other.task == run.task {
            return Ok(Claimed::Elsewhere);
        }
        of_queue += i32::from(is_held && other.queue == run.queue);
        of_key += i32::from(is_held && other.queue == run.queue && run.key != 0 && other.key == run.key);
    }
    let Some(free) = free.filter(|_| all < limits.cluster) else {
        return Ok(Claimed::NoRoom);
    };
    if limits.queue.is_some_and(|most| of_queue >= most) {
        return Ok(Claimed::QueueIsFull);
    }
    if run.key != 0 && limits.key.is_some_and(|most| of_key >= most) {
        return Ok(Claimed::KeyIsFull);
    }
    free.run.set(run);
    free.standing.store(Standing::Held as u32, Relaxed);
    HELD.set(Some(free));
    database.less_ready(&root, run.owner, false);
    Ok(Claimed::Held)
}

/// Whether the job with this cookie holds a claim.
pub fn is_held(cookie: u64) -> bool {
    let Some(shared) = SHARED.get() else { return false };
    let root = shared.lock();
    claims(&root).any(|claim| claim.standing() == Standing::Held && claim.run.get().cookie == cookie)
}

/// Corrects what the claim of this process says of the attempt.
pub fn attempt_is(attempt: i32, started_at: i64) {
    if let (Some(shared), Some(claim)) = (SHARED.get(), HELD.get()) {
        let _root = shared.lock();
        let run = claim.run.get();
        claim.run.set(Run {
            attempt,
            started_at,
            ..run
        });
    }
}

/// What becomes of a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Nothing has begun.
    Unused,
    /// The attempt is noted, and that is committed. `looks` where others may be able to run now.
    Noted { looks: bool },
    /// The attempt is not noted.
    Lost,
}

/// Lets go of the task that this process holds. Needs no memory and must not fail; also while the process ends.
pub fn release(how: Release) {
    let (Some(shared), Some(claim), Some(database)) = (SHARED.get(), HELD.take(), MINE.get()) else {
        return;
    };
    {
        let mut root = shared.lock();
        root.asked += 1;
        let standing = if how == Release::Lost {
            Standing::Lost
        } else {
            Standing::Free
        };
        claim.standing.store(standing as u32, Relaxed);
        let looks = match how {
            Release::Unused => false,
            Release::Noted { looks } => looks || database.has_blocked.get(),
            Release::Lost => true,
        };
        let none_ready = database.ready.get().iter().all(|entry| entry.tasks == 0);
        if looks || (none_ready && how != Release::Unused) {
            database.wanted.set(database.wanted.get() + 1);
        }
        root.clock.wake();
    }
    if how != Release::Unused {
        database
            .flush_to
            .fetch_max(crate::pg::transaction::last_commit_end(), AcqRel);
        if let Some(waiters) = database.waiters() {
            waiters.wake();
        }
    }
}

/// Whether this process holds a claim.
pub fn holds() -> bool {
    HELD.get().is_some()
}

/// Claims of this process's database whose process is gone, or those that are held.
pub fn runs(relation: u32, lost: bool) -> Result<Vec<Run>> {
    if !is_in_use()? {
        return Ok(Vec::new());
    }
    let number = backend::my_database().to_u32();
    let mut runs = Vec::new();
    crate::pg::fallible::reserve(&mut runs, places())?;
    let root = shared()?.lock();
    for claim in claims(&root) {
        claim.look_after();
        let run = claim.run.get();
        let wanted = if lost { Standing::Lost } else { Standing::Held };
        if claim.standing() == wanted && run.database == number && (relation == 0 || run.relation == relation) {
            runs.push(run);
        }
    }
    Ok(runs)
}

/// The attempt of a lost claim is noted, and that is committed.
pub fn forget_lost(run: &Run) {
    let Some(shared) = SHARED.get() else { return };
    let root = shared.lock();
    for claim in claims(&root) {
        let other = claim.run.get();
        if claim.standing() == Standing::Lost && (other.task, other.cookie) == (run.task, run.cookie) {
            claim.standing.store(Standing::Free as u32, Relaxed);
        }
    }
    drop(root);
    if let Some(waiters) = MINE.get().and_then(Database::waiters) {
        waiters.wake();
    }
}

/// Wakes the clock, and has it started where there is none. Must not fail: where the postmaster has no slot, the next one tries again.
pub fn wake_clock() {
    let Some(shared) = SHARED.get() else { return };
    let is_missing = {
        let root = shared.lock();
        if root.clock.is_alive() {
            root.clock.wake();
            false
        } else {
            root.clock_worker == WorkerHandle::NONE || root.clock_worker.status() == WorkerStatus::Stopped
        }
    };
    if is_missing && let Some(worker) = error::if_possible(|| bgworker::register_server(CLOCK_MAIN)).flatten() {
        shared.lock().clock_worker = worker;
    }
}

/// This process is the clock. False where there is one.
pub fn clock_begins() -> Result<bool> {
    let mut root = shared()?.lock();
    if root.clock.is_alive() && root.clock != Process::me() {
        return Ok(false);
    }
    root.clock = Process::me();
    Ok(true)
}

/// What the clock was asked for so far; it looks at everything after this.
pub fn asked() -> Result<u64> {
    Ok(shared()?.lock().asked)
}

/// The clock has nothing to do, and ends, unless somebody has asked for something since `asked`.
pub fn clock_ends(asked: u64) -> bool {
    let Some(shared) = SHARED.get() else { return true };
    let mut root = shared.lock();
    let ends = root.asked == asked && claims(&root).all(|claim| claim.standing() == Standing::Free);
    if ends {
        root.clock = Process::NONE;
        root.clock_worker = WorkerHandle::NONE;
    }
    ends
}
