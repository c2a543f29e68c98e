//! How the tasks and runs of each queue have ended since the server's start, and how long they took; and what the keeper's housekeeping has found.
//! Never freed.
//!
//! An end is counted after the commit of the transaction that notes it, so that what is rolled back does not count.

use crate::pg::error::Result;
use crate::pg::fallible;
use crate::pg::process::backend;
use crate::pg::shmem::{self, DsaPointer, Locked};
use crate::pg::transaction::{Collected, Event, Watcher};
use crate::registry::list::{self, Linked};
use crate::registry::segment;
use crate::tasks::{shared, tables};
use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

/// Of a queue that housekeeping has not looked at yet: after how many tasks it is to do so.
const FIRST_ROOM: i64 = 10_000;

/// Housekeeping has found nothing. The next end of a task changes that.
pub const NEVER: i64 = i64::MAX;

/// Housekeeping looks no more often than this on its own, in microseconds.
pub const PAUSE: i64 = 600_000_000;

/// The lists.
#[repr(C)]
pub struct Directory {
    queues: DsaPointer,
    databases: DsaPointer,
}

/// Which table of tasks this is about: the database, and the number of the table.
#[repr(C)]
struct Owner {
    database: AtomicU32,
    relation: AtomicU32,
}

impl Owner {
    fn set(&self, relation: u32) {
        self.database.store(backend::my_database().to_u32(), Relaxed);
        self.relation.store(relation, Relaxed);
    }

    fn is(&self, relation: u32) -> bool {
        self.relation.load(Relaxed) == relation && self.database.load(Relaxed) == backend::my_database().to_u32()
    }
}

/// The counters of a queue.
#[repr(C)]
pub struct Queue {
    next: AtomicU64,
    owner: Owner,
    /// What stands for its name.
    name: AtomicU64,
    /// Its tasks that have ended, in the order of [`Kind`].
    tasks: [AtomicU64; KINDS.len()],
    /// Its runs that have ended, in the order of [`RUNS`].
    runs: [AtomicU64; RUNS.len()],
    /// Its runs that another attempt follows.
    retries: AtomicU64,
    /// From the begin to the end of a run.
    ran: Histogram,
    /// From the time at which a task may run to the begin of the run.
    waited: Histogram,
    /// How many more tasks may be done before housekeeping is to look.
    pub room: AtomicI64,
}

impl Linked for Queue {
    fn next(&self) -> &AtomicU64 {
        &self.next
    }
}

/// What is known of the tables of runs of a database.
#[repr(C)]
pub struct Database {
    next: AtomicU64,
    owner: Owner,
    /// The number of the table that is filled plus one, 0 if it has to be looked up.
    pub filled: AtomicU32,
    /// When housekeeping is due, 0 for at once, [`NEVER`] if nothing is noted of any task.
    pub due: AtomicI64,
    /// Housekeeping does not look at the tables before that.
    pub not_before: AtomicI64,
}

impl Linked for Database {
    fn next(&self) -> &AtomicU64 {
        &self.next
    }
}

/// How a task has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Done,
    Failed,
    Canceled,
    Expired,
}

/// The states of tasks that have ended.
const KINDS: [(&[u8], Kind); 4] = [
    (b"done", Kind::Done),
    (b"failed", Kind::Failed),
    (b"canceled", Kind::Canceled),
    (b"expired", Kind::Expired),
];

/// The states of runs that have ended.
const RUNS: [&[u8]; 5] = [b"done", b"failed", b"canceled", b"timed_out", b"interrupted"];

/// The upper bounds of the buckets of a [`Histogram`], in seconds. The last bucket has none.
const BOUNDS: [f32; 15] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// How often something took how long.
#[repr(C)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// The sum, in microseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// Must not fail.
    fn observe(&self, seconds: f32) {
        let bucket = BOUNDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add((f64::from(seconds) * 1e6) as u64, Relaxed);
    }
}

/// What a [`Histogram`] has counted.
pub struct Observed {
    /// How often it took no longer than each bound in seconds.
    pub up_to: [(f32, u64); BOUNDS.len()],
    pub count: u64,
    /// In seconds.
    pub sum: f64,
}

impl Observed {
    fn of(histogram: &Histogram) -> Self {
        let mut up_to = BOUNDS.map(|bound| (bound, 0));
        let mut count = 0;
        for (number, bucket) in histogram.buckets.iter().enumerate() {
            count += bucket.load(Relaxed);
            if let Some(up_to) = up_to.get_mut(number) {
                up_to.1 = count;
            }
        }
        Self {
            up_to,
            count,
            sum: histogram.sum.load(Relaxed) as f64 / 1e6,
        }
    }
}

/// What is counted of a queue.
pub struct Counts {
    pub tasks: [(&'static [u8], u64); KINDS.len()],
    pub runs: [(&'static [u8], u64); RUNS.len()],
    pub retries: u64,
    /// How long runs took, and how long tasks waited for them. None if nothing of the queue has ended.
    pub times: Option<(Observed, Observed)>,
}

/// A run that ends.
pub struct Run<'a> {
    /// The run's own state.
    pub state: &'a [u8],
    /// When the task could run, 0 if that is not known.
    pub ready_at: i64,
    /// 0 if that is not known.
    pub started_at: i64,
    /// Whether another attempt follows.
    pub is_retried: bool,
}

/// An end that this transaction notes: of a task, of a run, or of both.
struct Entry {
    queue: &'static Queue,
    task: Option<Kind>,
    /// Its place in [`RUNS`].
    run: Option<u8>,
    is_retried: bool,
    /// In seconds.
    ran: Option<f32>,
    waited: Option<f32>,
}

thread_local! {
    static DIRECTORY: Cell<Option<&'static Locked<Directory>>> = const { Cell::new(None) };
    static DATABASE: Cell<Option<&'static Database>> = const { Cell::new(None) };
    /// The queues that this process has counted for, the last one first.
    static QUEUES: RefCell<Vec<&'static Queue>> = const { RefCell::new(Vec::new()) };
    static PENDING: RefCell<Collected<Entry>> = const { RefCell::new(Collected::new()) };
}

/// Made at the first use. 53200.
fn directory() -> Result<&'static Locked<Directory>> {
    if let Some(directory) = DIRECTORY.get() {
        return Ok(directory);
    }
    let segment = segment::segment()?;
    let mut at = segment.task_totals.load(Acquire);
    if at == shmem::INVALID_POINTER {
        let made = shmem::Owned::new(shmem::allocate(size_of::<Locked<Directory>>())?);
        let directory: &Locked<Directory> = shmem::at(made.pointer());
        directory.init(segment.tranche());
        at = match segment
            .task_totals
            .compare_exchange(shmem::INVALID_POINTER, made.pointer(), AcqRel, Acquire)
        {
            Ok(_) => made.hand_over(),
            Err(other) => other,
        };
    }
    let directory: &'static Locked<Directory> = shmem::mapped(at)?;
    DIRECTORY.set(Some(directory));
    Ok(directory)
}

/// What is known of the tables of which `relation` is the one of the tasks, made at its first use. 53200.
pub fn database(relation: u32) -> Result<&'static Database> {
    if let Some(database) = DATABASE.get()
        && database.owner.is(relation)
    {
        return Ok(database);
    }
    let at = list::find_or_add(
        directory()?,
        |directory: &mut Directory| &mut directory.databases,
        |database: &Database| database.owner.is(relation),
        |database| database.owner.set(relation),
    )?;
    let database: &'static Database = shmem::mapped(at)?;
    DATABASE.set(Some(database));
    Ok(database)
}

/// The counters of a queue, made at their first use. 53200.
pub fn queue(relation: u32, name: &[u8]) -> Result<&'static Queue> {
    let name = shared::stands_for(name);
    let is_it = |queue: &Queue| queue.name.load(Relaxed) == name && queue.owner.is(relation);
    let known = QUEUES.with_borrow(|queues| queues.iter().copied().find(|queue| is_it(queue)));
    if let Some(queue) = known {
        return Ok(queue);
    }
    let at = list::find_or_add(
        directory()?,
        |directory: &mut Directory| &mut directory.queues,
        is_it,
        |queue| {
            queue.owner.set(relation);
            queue.name.store(name, Relaxed);
            queue.room.store(FIRST_ROOM, Relaxed);
        },
    )?;
    let queue: &'static Queue = shmem::mapped(at)?;
    QUEUES.with_borrow_mut(|queues| fallible::push(queues, queue))?;
    Ok(queue)
}

/// The counters of a queue that has any. A caller may pass any name, so this makes none.
fn known(relation: u32, name: &[u8]) -> Result<Option<&'static Queue>> {
    let name = shared::stands_for(name);
    let first = directory()?.lock().queues;
    let queues = list::all::<Queue>(first)?;
    Ok(queues
        .into_iter()
        .find(|queue| queue.name.load(Relaxed) == name && queue.owner.is(relation)))
}

/// Tasks of the queue that are done, and that have failed, since the server's start.
pub fn of(relation: u32, name: &[u8]) -> Result<(i64, i64)> {
    Ok(known(relation, name)?.map_or((0, 0), |queue| {
        let count = |kind: Kind| queue.tasks[kind as usize].load(Relaxed) as i64;
        (count(Kind::Done), count(Kind::Failed))
    }))
}

/// All that is counted of the queue.
pub fn counts(relation: u32, name: &[u8]) -> Result<Counts> {
    let queue = known(relation, name)?;
    let count =
        |of: fn(&Queue) -> &[AtomicU64], number: usize| queue.map_or(0, |queue| of(queue)[number].load(Relaxed));
    Ok(Counts {
        tasks: KINDS.map(|(state, kind)| (state, count(|queue| &queue.tasks, kind as usize))),
        runs: core::array::from_fn(|number| (RUNS[number], count(|queue| &queue.runs, number))),
        retries: queue.map_or(0, |queue| queue.retries.load(Relaxed)),
        times: queue.map(|queue| (Observed::of(&queue.ran), Observed::of(&queue.waited))),
    })
}

/// This transaction notes that a task of the queue ends in this state without a run. If memory is out, it is not counted.
pub fn ends(name: &[u8], state: &[u8]) {
    let _ = note(name, Some(state), None);
}

/// This transaction notes that a run of a task of the queue ends, and with it the task, if that gets a state. If memory is out, it is not counted.
pub fn run_ends(name: &[u8], run: &Run, task: Option<&[u8]>) {
    let _ = note(name, task, Some(run));
}

fn note(name: &[u8], task: Option<&[u8]>, run: Option<&Run>) -> Result<()> {
    WATCHER.turn_on()?;
    let relation = tables::known();
    database(relation)?;
    let queue = queue(relation, name)?;
    let kind = |state| KINDS.iter().find(|(name, _)| *name == state).map(|(_, kind)| *kind);
    let place = |run: &Run| {
        RUNS.iter()
            .position(|state| *state == run.state)
            .map(|place| place as u8)
    };
    // The clock may have been set back meanwhile.
    let seconds = |from: i64, to: i64| (from != 0 && to != 0).then(|| (to - from).max(0) as f32 / 1e6);
    PENDING.with_borrow_mut(|pending| {
        pending.push(Entry {
            queue,
            task: task.and_then(kind),
            run: run.and_then(place),
            is_retried: run.is_some_and(|run| run.is_retried),
            ran: run.and_then(|run| seconds(run.started_at, backend::now())),
            waited: run.and_then(|run| seconds(run.ready_at, run.started_at)),
        })
    })
}

static WATCHER: Watcher = Watcher::new(happened);

fn happened(event: Event) {
    PENDING.with_borrow_mut(|pending| match event {
        Event::BeforeCommit => (),
        Event::Committed => {
            pending.iter().for_each(Entry::count);
            pending.clear();
        }
        Event::Prepared | Event::Aborted => pending.clear(),
        Event::SubCommitted(_) | Event::SubAborted(_) => pending.follow(event),
    });
}

impl Entry {
    /// Must not fail.
    fn count(&self) {
        let queue = self.queue;
        if let Some(count) = self.run.and_then(|run| queue.runs.get(usize::from(run))) {
            count.fetch_add(1, Relaxed);
        }
        if self.is_retried {
            queue.retries.fetch_add(1, Relaxed);
        }
        if let Some(ran) = self.ran {
            queue.ran.observe(ran);
        }
        if let Some(waited) = self.waited {
            queue.waited.observe(waited);
        }
        if let Some(kind) = self.task {
            queue.tasks[kind as usize].fetch_add(1, Relaxed);
            queue.ended(kind);
        }
    }
}

impl Queue {
    /// Housekeeping has more to look at. Must not fail.
    fn ended(&self, kind: Kind) {
        if kind == Kind::Done && self.room.fetch_sub(1, Relaxed) == 1 {
            return ask_for_housekeeping();
        }
        let Some(database) = DATABASE.get() else { return };
        if database.due.load(Relaxed) == NEVER {
            let soon = backend::now() + PAUSE;
            if database.due.compare_exchange(NEVER, soon, Relaxed, Relaxed).is_ok()
                && let Some(shared) = shared::known()
            {
                shared.ask_for_keeper_at(soon);
            }
        }
    }
}

/// Housekeeping is due: a queue has had as many tasks as it had room for, or settings of queues have changed. Must not fail.
pub fn ask_for_housekeeping() {
    let Some(database) = DATABASE.get() else { return };
    database.due.store(0, Relaxed);
    if let Some(shared) = shared::known() {
        shared.ask_for_keeper_at(backend::now().max(database.not_before.load(Relaxed)));
    }
}
