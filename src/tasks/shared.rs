//! What all processes know of durable tasks: which of them run, which are ready, what is due in which database, and which process looks after
//! that.
//!
//! It is made at the first use, in the dynamic area. Nothing under its locks allocates, maps or raises. A database's lines are locked before the
//! root. A claim and the entry of a database, once seen, can always be looked at.
//!
//! A claim is what makes a task run: only its holder runs the task, and nothing else says "running". A runner has a claim from its start to
//! its end, with a task or without one. It ends the task after the end of the transaction that notes the task's end. If the process ends before
//! that, the claim is lost: it keeps others away from the task until the keeper has noted the attempt.

use crate::pg::error::{self, Report, Result};
use crate::pg::guc::own;
use crate::pg::process::backend::{self, Process};
use crate::pg::process::bgworker::{self, WorkerHandle, WorkerStatus};
use crate::pg::shmem::{self, DsaPointer, Guard, Locked};
use crate::pg::transaction;
use crate::registry::list::{self, Linked};
use crate::registry::segment;
use crate::registry::waiters::{self, Waiters};
use crate::settings;
use crate::tasks::ready::{Entry, LINES, Lines, Next, OPERATION, Running, Which};
use core::cell::Cell;
use core::ffi::CStr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};
use pgrx::PgSqlErrorCode;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The symbol that the postmaster starts the clock at.
pub const CLOCK_MAIN: &CStr = c"pg_background_clock_main";

/// The role that initdb makes (`BOOTSTRAP_SUPERUSERID` of catalog/pg_authid.h): the keeper connects as this one if the owner of the tables is not
/// known yet.
pub const SUPERUSER: u32 = 10;

/// Claims for each worker that the server can have. Those that are lost take room until the keeper has noted them.
const CLAIMS: usize = 4;

/// How long lost claims are left alone after none could be noted, at first and at most, in microseconds.
const PAUSE: i64 = 500_000;
const LONGEST_PAUSE: i64 = 5_000_000;

/// How long a runner goes on while tasks of other roles have no runner, in microseconds.
const SLICE: i64 = 50_000;

/// What is behind the lock.
#[repr(C)]
pub struct Root {
    clock: Process,
    clock_worker: WorkerHandle,
    /// How many times the clock was asked for something.
    asked: u64,
    databases: DsaPointer,
    claims: DsaPointer,
    /// Whether tasks that can run have no runner, and there is no room for one.
    others_wait: bool,
    /// Whether a database waits for its keeper, and as many keepers as may are there: one that stays is to make room.
    keeper_waits: bool,
    /// Whether the clock of another build of this library waits for the runners to go.
    gives_way: bool,
    /// Tasks that are older than this were there when the server crashed; 0 if it has not.
    crashed_at: i64,
}

/// The state of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Standing {
    Free = 0,
    /// It is a runner's, which has no task.
    Idle = 1,
    Held = 2,
    /// The process is gone, and the attempt is not noted.
    Lost = 3,
    /// The same, and the keeper was asked to note it.
    Told = 4,
}

impl Standing {
    fn is_lost(self) -> bool {
        matches!(self, Self::Lost | Self::Told)
    }
}

numbered!(Standing {
    Free,
    Idle,
    Held,
    Lost,
    Told
});

/// What a claim says.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Run {
    pub database: u32,
    /// The table that the task is a row of.
    pub relation: u32,
    pub process: Process,
    /// The number of the task's role, which is the runner's.
    pub owner: u32,
    pub task: i64,
    pub attempt: i32,
    pub started_at: i64,
    /// The job.
    pub slot: u32,
    pub cookie: u64,
    /// What stands for the names of the queue and of the concurrency key, the latter 0 if there is none.
    pub queue: u64,
    pub key: u64,
    pub priority: i32,
    /// Whether the key has held another task back since the run began or since [`look_for_held_back`].
    holds_back: bool,
    /// Whether the task has come into its line again meanwhile.
    comes_again: bool,
    /// Whether a session has canceled the run.
    pub is_canceled: bool,
    /// The job that runs the task in another database, 0 for none.
    pub elsewhere: u64,
    /// The SQLSTATE of the error that the run has ended with, if its process could not note that; zeros if there is none.
    pub sqlstate: [u8; 5],
    /// When the runner began its first task.
    since: i64,
}

impl Run {
    fn which(&self) -> Which {
        Which {
            role: self.owner,
            queue: self.queue,
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            id: self.task,
            key: self.key,
            priority: self.priority,
        }
    }
}

/// A place for a claim. Changes under the root's lock only.
#[repr(C)]
pub struct Claim {
    standing: AtomicU32,
    run: Cell<Run>,
}

impl Claim {
    fn standing(&self) -> Standing {
        Standing::from_number(self.standing.load(Relaxed)).unwrap_or(Standing::Free)
    }

    fn is(&self, standing: Standing) -> bool {
        self.standing() == standing
    }

    fn set(&self, standing: Standing) {
        self.standing.store(standing as u32, Relaxed);
    }

    /// Whether a runner has it.
    fn is_runner(&self) -> bool {
        matches!(self.standing(), Standing::Idle | Standing::Held)
    }

    /// A process that has ended without its exit callbacks has lost its claim.
    fn look_after(&self) {
        if self.is_runner() && !self.run.get().process.is_alive() {
            self.set(if self.is(Standing::Held) {
                Standing::Lost
            } else {
                Standing::Free
            });
        }
    }
}

/// A role that could not connect.
#[derive(Clone, Copy, Default)]
pub struct Refused {
    /// 0 for none.
    pub role: u32,
    pub sqlstate: [u8; 5],
    /// When the runner was ordered.
    pub at: i64,
}

/// What is known of whether tasks run in a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Mode {
    /// Nothing is known yet: the keeper finds out.
    Unknown = 0,
    Runs = 1,
    /// Nothing is started there: `pg_background.tasks` says so, or it is a copy.
    Quiet = 2,
}

numbered!(Mode { Unknown, Runs, Quiet });

/// A database that has tasks, or had. Never freed. What is neither atomic nor locked changes under the root's lock only.
#[repr(C)]
pub struct Database {
    next: AtomicU64,
    number: AtomicU32,
    mode: AtomicU32,
    /// The owner of the tables, and the number of the table of tasks.
    owner: Cell<u32>,
    relation: Cell<u32>,
    /// How many times the keeper was asked for, and how many of these its last look has seen.
    wanted: Cell<u64>,
    seen: Cell<u64>,
    /// The same for a sweep: all lines are read again.
    sweep_wanted: Cell<u64>,
    swept: Cell<u64>,
    /// Whether the extension was there when a process looked last.
    lives: Cell<bool>,
    /// When the keeper is to look next, 0 for never.
    next_due: Cell<i64>,
    /// Whether there may be tasks that wait for others.
    has_blocked: Cell<bool>,
    /// An end of the log that a standby had not replayed, and when that was.
    log_end: Cell<i64>,
    log_end_at: Cell<i64>,
    /// When the clock has ordered the keeper last.
    keeper_ordered_at: AtomicI64,
    /// The keeper that stays although nothing is due yet.
    keeper: Cell<Process>,
    /// Since when schedules that are due are fired, as long as nothing comes in between.
    on_duty_since: Cell<i64>,
    /// No schedule is due before that, as far as is known, and how many times schedules have changed: what was found before a change means nothing.
    /// Without this a look for what is due would step over all that was due since the oldest snapshot.
    first_schedule: Cell<i64>,
    schedules_changed: Cell<u64>,
    /// How long, and until when, lost claims are left alone, as none could be noted.
    lost_paused: Cell<(i64, i64)>,
    /// The role that could not connect last.
    refused: Cell<Refused>,
    /// The position up to which WAL has to be flushed, so that all that has ended here is on disk.
    flush_to: AtomicU64,
    /// The processes that wait for the end of a task.
    waiters: AtomicU64,
    /// The ready cache; the null pointer until the extension is known to be there.
    lines: AtomicU64,
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
    /// The claim of this process, which is a runner.
    static CLAIM: Cell<Option<&'static Claim>> = const { Cell::new(None) };
    static LINES_SEEN: shmem::Last<Locked<Lines>> = const { shmem::Last::new() };
}

fn places() -> usize {
    own::max_worker_processes().max(1) as usize * CLAIMS
}

/// Attaches at the first use. 53200 if memory is out.
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

/// Whether tasks were ever used since the server's start.
pub fn is_in_use() -> Result<bool> {
    Ok(segment::segment()?.tasks.load(Acquire) != shmem::INVALID_POINTER)
}

fn claims(_root: &Root) -> impl Iterator<Item = &'static Claim> + use<> {
    FIRST
        .get()
        .into_iter()
        .flat_map(|first| (0..places()).map(move |n| shmem::neighbour(first, n)))
}

/// A number that stands for a name, which is neither 0 nor [`OPERATION`].
pub fn stands_for(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish().clamp(1, OPERATION - 1)
}

/// What stands for the concurrency key of a task in its line.
pub fn stands_for_key(key: Option<&[u8]>, is_operation: bool) -> u64 {
    match key {
        _ if is_operation => OPERATION,
        Some(key) => stands_for(key),
        None => 0,
    }
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

/// The same, None if this process has not looked at it yet.
pub fn known() -> Option<&'static Database> {
    MINE.get()
}

/// All databases that are known.
pub fn databases() -> Result<Vec<&'static Database>> {
    let first = shared()?.lock().databases;
    list::all(first)
}

/// What runs in a database, for its lines.
struct Claims<'a> {
    root: &'a Root,
    database: u32,
    relation: u32,
}

impl Claims<'_> {
    fn all(&self) -> impl Iterator<Item = (&'static Claim, Run)> + use<'_> {
        claims(self.root)
            .filter(|claim| claim.is(Standing::Held) || claim.standing().is_lost())
            .map(|claim| (claim, claim.run.get()))
            .filter(|(_, run)| (run.database, run.relation) == (self.database, self.relation))
    }

    /// Those that run: also what goes on in another database when the process is gone that waited for it.
    fn held(&self) -> impl Iterator<Item = Run> + use<'_> {
        self.all()
            .filter(|(claim, run)| claim.is(Standing::Held) || run.elsewhere != 0)
            .map(|(_, run)| run)
    }
}

impl Running for Claims<'_> {
    fn of_queue(&self, queue: u64) -> i32 {
        self.held().filter(|run| run.queue == queue).count() as i32
    }

    fn of_key(&self, queue: u64, key: u64) -> i32 {
        self.held().filter(|run| (run.queue, run.key) == (queue, key)).count() as i32
    }

    fn has(&self, task: i64) -> bool {
        let found = self.all().find(|(_, run)| run.task == task);
        if let Some((claim, run)) = found {
            claim.run.set(Run {
                comes_again: true,
                ..run
            });
        }
        found.is_some()
    }

    fn hold_back(&self, queue: u64, key: u64) {
        for (claim, run) in self.all().filter(|(_, run)| (run.queue, run.key) == (queue, key)) {
            claim.run.set(Run {
                holds_back: true,
                ..run
            });
        }
    }

    fn room_for_operations(&self) -> u32 {
        let parts = claims(self.root).filter(|claim| claim.is(Standing::Held) && claim.run.get().key == OPERATION);
        (settings::max_operation_workers() as u32).saturating_sub(parts.count() as u32)
    }
}

impl Database {
    /// The number of the database.
    pub fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// Whether tasks run here.
    pub fn mode(&self) -> Mode {
        Mode::from_number(self.mode.load(Relaxed)).unwrap_or(Mode::Unknown)
    }

    /// Notes whether tasks run here.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u32, Relaxed);
    }

    fn claims<'a>(&self, root: &'a Root) -> Claims<'a> {
        Claims {
            root,
            database: self.number(),
            relation: self.relation.get(),
        }
    }

    /// The role that the keeper connects as.
    pub fn owner(&self) -> u32 {
        SHARED.get().map_or(0, |shared| {
            let _root = shared.lock();
            self.owner.get()
        })
    }

    /// Notes whose the tables are. If the extension was created anew, nothing that was ready before is. 53200.
    pub fn belongs_to(&self, relation: u32, owner: u32) -> Result<()> {
        let shared = shared()?;
        self.make_lines()?;
        let mut lines = self.lines();
        let _root = shared.lock();
        self.owner.set(owner);
        self.lives.set(true);
        if self.relation.replace(relation) != relation {
            if let Some(lines) = &mut lines {
                lines.clear();
            }
            self.set_mode(Mode::Unknown);
        }
        Ok(())
    }

    /// It may have had tasks before the server's start, and these belonged to this role: the keeper is to look.
    pub fn may_have_tasks(&self, owner: u32) {
        let Some(shared) = SHARED.get() else { return };
        let mut root = shared.lock();
        if self.mode() == Mode::Runs {
            return;
        }
        if !self.lives.replace(true) {
            self.owner.set(owner);
        }
        self.has_blocked.set(true);
        self.ask(&mut root, true);
    }

    /// The owner of the tables, if the database has tasks as far as is known.
    pub fn has_tasks(&self) -> Option<u32> {
        let _root = SHARED.get()?.lock();
        self.lives.get().then(|| self.owner.get())
    }

    fn ask(&self, root: &mut Root, sweep: bool) {
        root.asked += 1;
        self.wanted.set(self.wanted.get() + 1);
        if sweep {
            self.sweep_wanted.set(self.sweep_wanted.get() + 1);
        }
        self.keeper.get().wake();
    }

    /// The keeper is to look at the tables, and all lines are to be read again. Must not fail.
    pub fn ask_for_sweep(&self) {
        let Some(shared) = SHARED.get() else { return };
        self.ask(&mut shared.lock(), true);
        wake_clock();
    }

    /// The keeper is to look at the tables at `at` at the latest. Must not fail.
    pub fn ask_for_keeper_at(&self, at: i64) {
        self.ask_at(at, false);
    }

    /// The same, and all lines are to be read again. Must not fail.
    pub fn ask_for_sweep_at(&self, at: i64) {
        self.ask_at(at, true);
    }

    fn ask_at(&self, at: i64, sweep: bool) {
        let Some(shared) = SHARED.get() else { return };
        {
            let mut root = shared.lock();
            root.asked += 1;
            if sweep {
                self.sweep_wanted.set(self.sweep_wanted.get() + 1);
            }
            let next = self.next_due.get();
            if next == 0 || at < next {
                self.next_due.set(at);
            }
            self.keeper.get().wake();
        }
        wake_clock();
    }

    /// When the clock has ordered the keeper last, 0 for never.
    pub fn keeper_ordered_at(&self) -> i64 {
        self.keeper_ordered_at.load(Relaxed)
    }

    /// The clock orders the keeper.
    pub fn keeper_is_ordered(&self, now: i64) {
        self.keeper_ordered_at.store(now, Relaxed);
    }

    /// This process is the keeper, and stays until something is due. A process that asks for the keeper wakes it.
    pub fn keeper_stays(&self) {
        if let Some(shared) = SHARED.get() {
            let _root = shared.lock();
            self.keeper.set(Process::me());
        }
    }

    /// The keeper that stayed goes.
    pub fn keeper_leaves(&self) {
        if let Some(shared) = SHARED.get() {
            let _root = shared.lock();
            if self.keeper.get() == Process::me() {
                self.keeper.set(Process::NONE);
            }
        }
    }

    /// What is due from `now` on is fired by a keeper; what was due before that was missed.
    pub fn duty_begins(&self, now: i64) {
        if let Some(shared) = SHARED.get() {
            let _root = shared.lock();
            self.on_duty_since.set(now);
        }
    }

    /// Since when a keeper is on duty; for long if the clock has jumped back since then.
    pub fn on_duty_since(&self, now: i64) -> i64 {
        SHARED.get().map_or(0, |shared| {
            let _root = shared.lock();
            if self.on_duty_since.get() > now {
                self.on_duty_since.set(i64::MIN);
            }
            self.on_duty_since.get()
        })
    }

    /// A committed change of a schedule makes it due at `at`. Must not fail.
    pub fn schedule_changes(&self, at: i64) {
        if let Some(shared) = SHARED.get() {
            let _root = shared.lock();
            self.schedules_changed.set(self.schedules_changed.get() + 1);
            self.first_schedule.set(self.first_schedule.get().min(at));
        }
    }

    /// No schedule is due before the first of these; the second one goes back to [`Database::set_first_schedule`]. Read before the tables are.
    pub fn first_schedule(&self) -> (i64, u64) {
        SHARED.get().map_or((0, 0), |shared| {
            let _root = shared.lock();
            (self.first_schedule.get(), self.schedules_changed.get())
        })
    }

    /// The first schedule is due then, unless schedules have changed meanwhile.
    pub fn set_first_schedule(&self, at: i64, changed: u64) {
        if let Some(shared) = SHARED.get() {
            let _root = shared.lock();
            if self.schedules_changed.get() == changed {
                self.first_schedule.set(at);
            }
        }
    }

    /// Tasks are blocked by others, as everybody can see. The keeper looks: a parent may have ended in between. Must not fail.
    pub fn blocks(&self) {
        let Some(shared) = SHARED.get() else { return };
        {
            let mut root = shared.lock();
            // In one step: a keeper that has just looked may find that nothing is blocked, and says so unless it was asked meanwhile.
            self.has_blocked.set(true);
            self.ask(&mut root, false);
        }
        wake_clock();
    }

    /// The keeper has found tasks that are blocked by others.
    pub fn has_found_blocked(&self) {
        if let Some(shared) = SHARED.get() {
            let _root = shared.lock();
            self.has_blocked.set(true);
        }
    }

    /// Whether tasks may wait for others.
    pub fn has_blocked(&self) -> bool {
        SHARED.get().is_some_and(|shared| {
            let _root = shared.lock();
            self.has_blocked.get()
        })
    }

    /// The keeper begins. Returns what [`Database::seen`] takes, and whether the lines are to be read again.
    pub fn keeper_begins(&self) -> (Began, bool) {
        let Some(shared) = SHARED.get() else {
            return (Began::default(), false);
        };
        let _root = shared.lock();
        if self.next_due.replace(0) != 0 {
            // If the keeper fails, it is still to look.
            self.wanted.set(self.wanted.get() + 1);
        }
        let began = Began {
            wanted: self.wanted.get(),
            sweep_wanted: self.sweep_wanted.get(),
        };
        (began, self.sweep_wanted.get() != self.swept.get())
    }

    /// The keeper has looked, which began at `began`, and has found this.
    pub fn seen(&self, began: Began, next_due: i64, has_blocked: bool) {
        let Some(shared) = SHARED.get() else { return };
        let _root = shared.lock();
        if self.wanted.get() == began.wanted {
            self.has_blocked.set(has_blocked);
        }
        self.seen.set(began.wanted);
        self.swept.set(began.sweep_wanted);
        if next_due != 0 && (self.next_due.get() == 0 || next_due < self.next_due.get()) {
            self.next_due.set(next_due);
        }
    }

    /// Since when the slowest standby, which has replayed the log up to `replayed`, has not come to a place where the log ended then. It ends at `end`
    /// at the time `now`.
    pub fn not_replayed_since(&self, end: i64, replayed: i64, now: i64) -> i64 {
        let Some(shared) = SHARED.get() else { return now };
        let _root = shared.lock();
        if self.log_end_at.get() == 0 || replayed >= self.log_end.get() {
            self.log_end.set(end);
            self.log_end_at.set(now);
        }
        if replayed < self.log_end.get() {
            self.log_end_at.get()
        } else {
            now
        }
    }

    /// Until when the keeper does not try to note lost claims, None if it may by now.
    pub fn lost_paused_until(&self, now: i64) -> Option<i64> {
        let shared = SHARED.get()?;
        let _root = shared.lock();
        let (_, until) = self.lost_paused.get();
        // The clock may have jumped back.
        (1..=LONGEST_PAUSE).contains(&(until - now)).then_some(until)
    }

    /// The keeper has tried to note lost claims: if it could note none, it pauses, each time longer.
    pub fn lost_tried(&self, can_note: bool) {
        if let Some(shared) = SHARED.get() {
            let _root = shared.lock();
            let (pause, _) = self.lost_paused.get();
            self.lost_paused.set(if can_note {
                (0, 0)
            } else {
                let pause = (pause * 2).clamp(PAUSE, LONGEST_PAUSE);
                (pause, backend::now() + pause)
            });
        }
    }

    /// The role could not connect: the keeper notes an attempt at its tasks.
    pub fn is_refused(&self, refused: Refused) {
        if let Some(shared) = SHARED.get() {
            let _root = shared.lock();
            self.refused.set(refused);
        }
    }

    /// The role that could not connect last, once.
    pub fn take_refused(&self) -> Option<Refused> {
        let shared = SHARED.get()?;
        let _root = shared.lock();
        Some(self.refused.take()).filter(|refused| refused.role != 0)
    }

    /// The lines, under their lock; None as long as the extension is not known to be there.
    pub fn lines(&self) -> Option<Guard<'static, Lines>> {
        let pointer = self.lines.load(Acquire);
        if pointer == shmem::INVALID_POINTER {
            return None;
        }
        LINES_SEEN.with(|seen| seen.look(pointer)).map(Locked::lock)
    }

    /// Makes the lines at the first use. 53200.
    fn make_lines(&self) -> Result<()> {
        if self.lines.load(Acquire) == shmem::INVALID_POINTER {
            let made = shmem::Owned::new(shmem::allocate(size_of::<Locked<Lines>>())?);
            let lines: &Locked<Lines> = shmem::at(made.pointer());
            lines.init(segment::segment()?.tranche());
            let set = self
                .lines
                .compare_exchange(shmem::INVALID_POINTER, made.pointer(), AcqRel, Acquire);
            if set.is_ok() {
                made.hand_over();
            }
        }
        shmem::map(self.lines.load(Acquire))
    }

    /// The database does not exist any more. The keeper is not ordered again before a process tells of the database.
    pub fn is_dropped(&self) {
        self.set_mode(Mode::Unknown);
        let (began, _) = self.keeper_begins();
        self.is_gone(began);
    }

    /// The extension was not there when the keeper looked, which began at `began`. What was asked for after that is looked at again: it may have been
    /// created since.
    pub fn is_gone(&self, began: Began) {
        let Some(shared) = SHARED.get() else { return };
        if let Some(mut lines) = self.lines() {
            lines.clear();
        }
        let root = shared.lock();
        self.seen.set(began.wanted);
        self.swept.set(began.sweep_wanted);
        if self.wanted.get() == began.wanted && self.sweep_wanted.get() == began.sweep_wanted {
            self.next_due.set(0);
            self.lives.set(false);
        }
        for claim in claims(&root) {
            if claim.standing().is_lost() && claim.run.get().database == self.number() {
                claim.set(Standing::Free);
            }
        }
    }

    /// Whether the keeper is to look by now, and else when, 0 for never.
    pub fn due(&self, now: i64) -> (bool, i64) {
        let Some(shared) = SHARED.get() else {
            return (false, 0);
        };
        let finds_room = self.lines().is_some_and(|lines| lines.overflow());
        let mut root = shared.lock();
        if finds_room {
            self.ask(&mut root, true);
        }
        for claim in claims(&root) {
            claim.look_after();
            if !claim.is(Standing::Lost) || claim.run.get().database != self.number() {
                continue;
            }
            if self.lives.get() || self.mode() == Mode::Runs {
                // Once: if the keeper cannot note it, it looks again later.
                claim.set(Standing::Told);
                self.ask(&mut root, false);
            } else {
                // There is nothing to note it in.
                claim.set(Standing::Free);
            }
        }
        let at = self.next_due.get();
        (self.wanted.get() != self.seen.get() || (at != 0 && at <= now), at)
    }

    /// The roles that have tasks which can run. For each there may be at most `most` runners.
    pub fn roles(&self, most: u32) -> Vec<Role> {
        let Some(shared) = SHARED.get() else { return Vec::new() };
        if self.mode() != Mode::Runs {
            return Vec::new();
        }
        let mut found = [Role::default(); LINES];
        {
            let Some(lines) = self.lines() else { return Vec::new() };
            let root = shared.lock();
            let wanted = lines.wanted(&self.claims(&root), most);
            for (to, (role, can)) in found.iter_mut().zip(wanted) {
                *to = Role {
                    role,
                    can,
                    idle: 0,
                    has_runner: false,
                };
                for claim in claims(&root).filter(|claim| claim.is_runner()) {
                    let run = claim.run.get();
                    if (run.database, run.owner) == (self.number(), role) {
                        to.has_runner = true;
                        to.idle += u32::from(claim.is(Standing::Idle));
                    }
                }
            }
        }
        found.into_iter().filter(|role| role.can > 0).collect()
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

    /// Wakes all that wait for the end of a task of the database.
    pub fn wake_waiters(&self) {
        if let Some(waiters) = self.waiters() {
            waiters.wake();
        }
    }

    /// The end of the last commit that has ended a task here.
    pub fn flush_to(&self) -> u64 {
        self.flush_to.load(Acquire)
    }
}

/// A role that has tasks which can run.
#[derive(Clone, Copy, Default)]
pub struct Role {
    pub role: u32,
    /// How many of its tasks can run now, as far as it matters.
    pub can: u32,
    /// Runners that are about to take a task.
    pub idle: u32,
    pub has_runner: bool,
}

/// How much the keeper was asked for when it began.
#[derive(Clone, Copy, Default)]
pub struct Began {
    wanted: u64,
    sweep_wanted: u64,
}

/// This process is a runner from now on, for the role that it acts for, until [`leave`]. False if as many run as may. 53200.
pub fn arrive(owner: u32, slot: u32, cookie: u64, most: i32) -> Result<bool> {
    mine()?;
    let mut root = shared()?.lock();
    let mut free = None;
    let mut runners = 0;
    for claim in claims(&root) {
        claim.look_after();
        runners += i32::from(claim.is_runner());
        if claim.is(Standing::Free) {
            free = free.or(Some(claim));
        }
    }
    if runners >= most || root.gives_way || !root.clock.is_alive() {
        return Ok(false);
    }
    let Some(claim) = free else {
        drop(root);
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "too many runs of tasks have ended and are not noted",
        )
        .into());
    };
    claim.run.set(Run {
        database: backend::my_database().to_u32(),
        relation: 0,
        process: Process::me(),
        owner,
        task: 0,
        attempt: 0,
        started_at: 0,
        slot,
        cookie,
        queue: 0,
        key: 0,
        priority: 0,
        holds_back: false,
        comes_again: false,
        is_canceled: false,
        elsewhere: 0,
        sqlstate: [0; 5],
        since: backend::now(),
    });
    claim.set(Standing::Idle);
    CLAIM.set(Some(claim));
    // The clock counts it among the runners from now on, and not among its orders.
    root.asked += 1;
    root.clock.wake();
    Ok(true)
}

/// What the runner does next, as [`Lines::next`] tells; a task is claimed, as the job `cookie`. Nothing also when the runner is to make room for
/// others.
pub fn next(relation: u32, cookie: u64, most: i32) -> Next {
    let (Some(shared), Some(claim), Some(database)) = (SHARED.get(), CLAIM.get(), MINE.get()) else {
        return Next::Nothing;
    };
    if database.mode() != Mode::Runs {
        return Next::Nothing;
    }
    let now = backend::now();
    let Some(mut lines) = database.lines() else {
        return Next::Nothing;
    };
    let mut root = shared.lock();
    let run = claim.run.get();
    let runners = claims(&root).filter(|claim| claim.is_runner()).count();
    if runners as i32 > most || root.gives_way || database.relation.get() != relation {
        return Next::Nothing;
    }
    if root.others_wait && now - run.since > SLICE {
        root.others_wait = false;
        return Next::Nothing;
    }
    let next = lines.next(run.owner, run.process, &database.claims(&root));
    if let Next::Task(which, entry) = next {
        claim.run.set(Run {
            relation,
            task: entry.id,
            attempt: 0,
            started_at: now,
            cookie,
            queue: which.queue,
            key: entry.key,
            priority: entry.priority,
            holds_back: false,
            comes_again: false,
            is_canceled: false,
            elsewhere: 0,
            sqlstate: [0; 5],
            ..run
        });
        claim.set(Standing::Held);
    }
    next
}

/// The claim of this process, if it has a task.
pub fn held() -> Option<Run> {
    let _root = SHARED.get()?.lock();
    let claim = CLAIM.get()?;
    claim.is(Standing::Held).then(|| claim.run.get())
}

/// Notes which attempt at the task this is.
pub fn attempt_is(attempt: i32) {
    if let (Some(shared), Some(claim)) = (SHARED.get(), CLAIM.get()) {
        let _root = shared.lock();
        let run = claim.run.get();
        claim.run.set(Run { attempt, ..run });
    }
}

/// The attempt at the task is over, and noted if it is to be: from now on there is no run that a session could cancel. True if one has canceled it
/// and the task has not ended: it is left to the keeper, since the signal of the cancel may interrupt what this process does.
pub fn attempt_ends(task_ends: bool) -> bool {
    let (Some(shared), Some(claim)) = (SHARED.get(), CLAIM.get()) else {
        return false;
    };
    let _root = shared.lock();
    let run = claim.run.get();
    let is_canceled = run.is_canceled && !task_ends;
    claim.run.set(Run {
        attempt: 0,
        is_canceled,
        ..run
    });
    is_canceled
}

/// Notes that the run of this task of this process's database is canceled; None if there is none. If it is not stopped in time, the keeper
/// sees to it that there is no further attempt.
pub fn cancel(relation: u32, task: i64) -> Result<Option<Run>> {
    if !is_in_use()? {
        return Ok(None);
    }
    let number = backend::my_database().to_u32();
    let root = shared()?.lock();
    for claim in claims(&root) {
        claim.look_after();
        let run = claim.run.get();
        let is_it = (run.database, run.task) == (number, task) && (relation == 0 || run.relation == relation);
        if is_it && claim.is(Standing::Held) && run.attempt > 0 {
            claim.run.set(Run {
                is_canceled: true,
                ..run
            });
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// Whether a run of this task of this process's database is canceled, and that is not noted yet.
pub fn is_canceled(relation: u32, task: i64) -> Result<bool> {
    Ok(runs(relation, Of::All)?
        .iter()
        .any(|run| run.task == task && run.is_canceled))
}

/// Notes the job that runs the task in another database. If this process ends before it, the claim is not free before that job has ended.
pub fn runs_elsewhere(job: u64) {
    if let (Some(shared), Some(claim)) = (SHARED.get(), CLAIM.get()) {
        let _root = shared.lock();
        let run = claim.run.get();
        claim.run.set(Run { elsewhere: job, ..run });
    }
}

/// The task cannot run now: nothing has begun. It is put back into its line, whose queue has the name `name`, if that is given; and in the same step
/// those come into their lines that come before it. If its key has held others back meanwhile, they are looked for by a sweep.
pub fn put_back(name: Option<&[u8]>, before: &[Successor]) {
    let (Some(shared), Some(claim), Some(database)) = (SHARED.get(), CLAIM.get(), MINE.get()) else {
        return;
    };
    let held_back = {
        let mut lines = database.lines();
        let _root = shared.lock();
        if !claim.is(Standing::Held) {
            return;
        }
        claim.set(Standing::Idle);
        let run = claim.run.get();
        if let Some(lines) = &mut lines {
            if let Some(name) = name {
                lines.push(run.which(), name, run.entry());
            }
            for Successor { which, queue, entry } in before {
                lines.push(*which, queue, *entry);
            }
        }
        run.key != 0 && run.holds_back && before.is_empty() || run.comes_again && name.is_none()
    };
    if held_back {
        database.ask_for_sweep();
    }
    for Successor { which, .. } in before {
        there_is_work(Some(which.role));
    }
}

/// The task of this process is about to be released: from now on it is noted whether its key holds another one back.
pub fn look_for_held_back() {
    if let (Some(shared), Some(claim)) = (SHARED.get(), CLAIM.get()) {
        let _root = shared.lock();
        let run = claim.run.get();
        claim.run.set(Run {
            holds_back: false,
            ..run
        });
    }
}

/// A task that comes into its line together with the release of another one.
pub struct Successor<'a> {
    pub which: Which,
    pub queue: &'a [u8],
    pub entry: Entry,
}

/// The end of the attempt of this process is committed: lets go of the task, whose queue has this name. The successor gets into its line in the
/// same step, or another task of its key could overtake it. False if the key has held another task back since [`look_for_held_back`]: the
/// caller looks again. Must not fail.
pub fn release(queue: &[u8], successor: Option<&Successor>) -> bool {
    let (Some(shared), Some(claim), Some(database)) = (SHARED.get(), CLAIM.get(), MINE.get()) else {
        return true;
    };
    let wakes = {
        let mut lines = database.lines();
        let mut root = shared.lock();
        let run = claim.run.get();
        if run.key != 0 && run.holds_back {
            return false;
        }
        claim.set(Standing::Idle);
        if let Some(lines) = &mut lines {
            if run.comes_again {
                lines.push(run.which(), queue, run.entry());
            }
            if let Some(Successor { which, queue, entry }) = successor {
                lines.push(*which, queue, *entry);
            }
        }
        let which = run.which();
        let others = run.key == OPERATION
            || successor.is_some_and(|successor| successor.which.role != run.owner)
            || lines.is_some_and(|lines| lines.others_wait(which));
        root.asked += u64::from(others);
        others
    };
    ended(database);
    if wakes {
        wake_clock();
    }
    true
}

/// A task has ended.
fn ended(database: &Database) {
    database.flush_to.fetch_max(transaction::last_commit_end(), AcqRel);
    database.wake_waiters();
}

/// The run of this process has ended with this error, which could not be noted: the keeper notes it.
pub fn has_failed(sqlstate: [u8; 5]) {
    if let (Some(shared), Some(claim)) = (SHARED.get(), CLAIM.get()) {
        let _root = shared.lock();
        let run = claim.run.get();
        claim.run.set(Run { sqlstate, ..run });
    }
}

/// This process is no runner any more. A task that it still has is lost: its attempt is not noted. Needs no memory and must not fail, also while
/// the process ends.
pub fn leave() {
    let (Some(shared), Some(claim)) = (SHARED.get(), CLAIM.take()) else {
        return;
    };
    if let Some(mut lines) = MINE.get().and_then(Database::lines) {
        lines.reader_leaves(Process::me());
    }
    let is_lost = {
        let mut root = shared.lock();
        root.asked += 1;
        let is_lost = claim.is(Standing::Held);
        claim.set(if is_lost { Standing::Lost } else { Standing::Free });
        root.clock.wake();
        is_lost
    };
    if is_lost && let Some(database) = MINE.get() {
        ended(database);
    }
}

/// Whether this process is a runner.
pub fn is_runner() -> bool {
    CLAIM.get().is_some()
}

/// How many runners there are, and whether the one that was ordered as this job is among them.
pub fn runners(order: u64) -> (u32, bool) {
    let Some(shared) = SHARED.get() else { return (0, false) };
    let root = shared.lock();
    let (mut count, mut is_there) = (0, false);
    for claim in claims(&root).filter(|claim| claim.is_runner()) {
        count += 1;
        is_there |= claim.run.get().cookie == order;
    }
    (count, is_there)
}

/// How many more claims there may be.
pub fn free_claims() -> usize {
    SHARED.get().map_or(0, |shared| {
        let root = shared.lock();
        claims(&root).filter(|claim| claim.is(Standing::Free)).count()
    })
}

/// Notes whether tasks that can run have no runner, and there is no room for one.
pub fn others_wait(others_wait: bool) {
    if let Some(shared) = SHARED.get() {
        shared.lock().others_wait = others_wait;
    }
}

/// Notes whether a database waits for its keeper, and there is no room for one: then the keepers that stay in these databases are woken, so that the
/// first of them leaves.
pub fn keeper_waits(waits: bool, databases: &[&'static Database]) {
    if let Some(shared) = SHARED.get() {
        let mut root = shared.lock();
        root.keeper_waits = waits;
        if waits {
            databases.iter().for_each(|database| database.keeper.get().wake());
        }
    }
}

/// Whether this keeper, which stays, is to leave for another one. One keeper is told so each time.
pub fn keeper_makes_room() -> bool {
    SHARED
        .get()
        .is_some_and(|shared| core::mem::take(&mut shared.lock().keeper_waits))
}

/// Tasks have come into their lines, of this role at least: wakes the clock if there may be room for another runner, or if the role has none. Must
/// not fail.
pub fn there_is_work(role: Option<u32>) {
    let (Some(shared), Some(database)) = (SHARED.get(), MINE.get()) else {
        return;
    };
    let most = settings::max_task_workers();
    {
        let mut root = shared.lock();
        let (mut runners, mut of_role) = (0, false);
        for claim in claims(&root).filter(|claim| claim.is_runner()) {
            let run = claim.run.get();
            runners += 1;
            of_role |= run.database == database.number() && Some(run.owner) == role;
        }
        if runners >= most && of_role {
            return;
        }
        root.asked += 1;
    }
    wake_clock();
}

/// What is known of a task that waits: `claimed`, `line`, `held back` by its key, `sweep` if the lines are to be read again, or `missed`.
#[cfg(feature = "probe")]
pub fn knows(which: Which, entry: Entry) -> Result<&'static str> {
    let database = mine()?;
    let lines = database.lines();
    let root = shared()?.lock();
    let claims = database.claims(&root);
    let is_held_back = |run: Run| (run.queue, run.key) == (which.queue, entry.key) && run.holds_back;
    Ok(if claims.all().any(|(_, run)| run.task == entry.id) {
        "claimed"
    } else if lines.is_some_and(|lines| lines.knows(which, entry)) {
        "line"
    } else if entry.key != 0 && claims.all().any(|(_, run)| is_held_back(run)) {
        "held back"
    } else if database.sweep_wanted.get() != database.swept.get() {
        "sweep"
    } else {
        "missed"
    })
}

/// How many claims there are of runners without a task, of tasks that run, and of those that are lost.
#[cfg(feature = "probe")]
pub fn count_claims() -> Result<[usize; 3]> {
    let root = shared()?.lock();
    let count = |is_it: fn(Standing) -> bool| {
        claims(&root)
            .inspect(|claim| claim.look_after())
            .filter(|claim| is_it(claim.standing()))
            .count()
    };
    let is_idle = |standing| standing == Standing::Idle;
    let is_held = |standing| standing == Standing::Held;
    Ok([count(is_idle), count(is_held), count(Standing::is_lost)])
}

/// When the server crashed last, as far as this matters for tasks, 0 for never.
pub fn crashed_at() -> i64 {
    SHARED.get().map_or(0, |shared| shared.lock().crashed_at)
}

/// Notes when the server crashed last.
pub fn set_crashed_at(at: i64) {
    if let Some(shared) = SHARED.get() {
        shared.lock().crashed_at = at;
    }
}

/// Which claims are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Those of processes that run their task.
    Held,
    /// Those whose process is gone.
    Lost,
    All,
}

/// The claims of tasks of this process's database; of all tables if `relation` is 0.
pub fn runs(relation: u32, of: Of) -> Result<Vec<Run>> {
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
        let is_wanted = of != Of::Lost && claim.is(Standing::Held) || of != Of::Held && claim.standing().is_lost();
        if is_wanted && run.database == number && (relation == 0 || run.relation == relation) {
            runs.push(run);
        }
    }
    Ok(runs)
}

/// Whether a process has the task of this table, or had it and the keeper has not noted its end.
pub fn is_claimed(relation: u32, task: i64) -> Result<bool> {
    Ok(runs(relation, Of::All)?.iter().any(|run| run.task == task))
}

/// How many tasks run in the whole cluster.
pub fn count_runs() -> Result<usize> {
    if !is_in_use()? {
        return Ok(0);
    }
    let root = shared()?.lock();
    Ok(claims(&root)
        .inspect(|claim| claim.look_after())
        .filter(|claim| claim.is(Standing::Held))
        .count())
}

/// The attempt of a lost claim is noted, and that is committed.
pub fn forget_lost(run: &Run) {
    let Some(shared) = SHARED.get() else { return };
    let root = shared.lock();
    for claim in claims(&root) {
        let other = claim.run.get();
        if claim.standing().is_lost() && (other.task, other.cookie) == (run.task, run.cookie) {
            claim.set(Standing::Free);
        }
    }
    drop(root);
    if let Some(database) = MINE.get() {
        ended(database);
    }
}

/// Wakes the clock, and has it started if there is none. Must not fail: if the postmaster has no slot, [`start_clock`] tries again.
///
/// A standby has no clock: one that was started there would not notice the promotion before its next look, and would keep the one away that is
/// started then.
pub fn wake_clock() {
    let Some(shared) = SHARED.get().filter(|_| !transaction::in_recovery()) else {
        return;
    };
    let Some(segment) = segment::attached() else { return };
    {
        let root = shared.lock();
        let is_alive = root.clock.is_alive();
        if is_alive {
            root.clock.wake();
        }
        if is_alive || root.clock_worker != WorkerHandle::NONE && root.clock_worker.status() != WorkerStatus::Stopped {
            segment.owes_clock.store(false, Relaxed);
            return;
        }
    }
    match error::if_possible(|| bgworker::register_server(CLOCK_MAIN)).flatten() {
        Some(worker) => {
            let mut root = shared.lock();
            root.clock_worker = worker;
            segment.owes_clock.store(false, Relaxed);
        }
        None => segment.owes_clock.store(true, Relaxed),
    }
}

/// Has the clock started if the postmaster had no slot for it when it was asked for last. Each process that passes by tries: sessions that enqueue
/// tasks at the ends of their transactions, and idle workers. False if there still is no slot. Must not fail.
pub fn start_clock() -> bool {
    let Some(segment) = segment::attached() else {
        return true;
    };
    if segment.owes_clock.load(Relaxed) && error::if_possible(shared).is_some_and(|shared| shared.is_ok()) {
        wake_clock();
    }
    !segment.owes_clock.load(Relaxed)
}

/// This process is the clock. False if there is one.
pub fn clock_begins() -> Result<bool> {
    let mut root = shared()?.lock();
    if root.clock.is_alive() && root.clock != Process::me() {
        return Ok(false);
    }
    root.clock = Process::me();
    root.gives_way = false;
    Ok(true)
}

/// How much the clock was asked for so far; it looks at everything after this.
pub fn asked() -> Result<u64> {
    Ok(shared()?.lock().asked)
}

/// The clock of another build waits: no runner begins another task, and the clock orders none. True if there is no runner any more. What has lost its
/// process is left to the other one, which finds the attempts that count in the tables.
pub fn gives_way() -> bool {
    let Some(shared) = SHARED.get() else { return true };
    let mut root = shared.lock();
    root.gives_way = true;
    let mut is_empty = true;
    for claim in claims(&root) {
        claim.look_after();
        is_empty &= !claim.is_runner();
    }
    is_empty
}

/// The clock ends. The next process that asks has another one started.
pub fn clock_leaves() {
    if let Some(shared) = SHARED.get() {
        let mut root = shared.lock();
        root.clock = Process::NONE;
        root.clock_worker = WorkerHandle::NONE;
    }
}

/// Whether the clock runs.
pub fn has_clock() -> Result<bool> {
    Ok(is_in_use()? && shared()?.lock().clock.is_alive())
}

/// The clock has nothing to do, and ends, unless it was asked for something since `asked`.
pub fn clock_ends(asked: u64) -> bool {
    let Some(shared) = SHARED.get() else { return true };
    let mut root = shared.lock();
    let ends = root.asked == asked && claims(&root).all(|claim| claim.is(Standing::Free));
    if ends {
        root.clock = Process::NONE;
        root.clock_worker = WorkerHandle::NONE;
    }
    ends
}
