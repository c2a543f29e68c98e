//! How many tasks of each queue are done, and have failed, since the server's start; and what the keeper's housekeeping has found. Never freed.
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
    done: AtomicU64,
    failed: AtomicU64,
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
#[derive(Clone, Copy)]
enum Kind {
    Done,
    Failed,
    Other,
}

/// An end that this transaction notes.
struct Entry {
    queue: &'static Queue,
    kind: Kind,
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

/// Tasks of the queue that are done, and that have failed, since the server's start. A caller may pass any name, so this makes no counters.
pub fn of(relation: u32, name: &[u8]) -> Result<(i64, i64)> {
    let name = shared::stands_for(name);
    let first = directory()?.lock().queues;
    let queues = list::all::<Queue>(first)?;
    let queue = queues
        .into_iter()
        .find(|queue| queue.name.load(Relaxed) == name && queue.owner.is(relation));
    Ok(queue.map_or((0, 0), |queue| {
        (queue.done.load(Relaxed) as i64, queue.failed.load(Relaxed) as i64)
    }))
}

/// This transaction notes that a task of the queue ends in this state. Where memory is out, it is not counted.
pub fn ends(name: &[u8], state: &[u8]) {
    let kind = match state {
        b"done" => Kind::Done,
        b"failed" => Kind::Failed,
        _ => Kind::Other,
    };
    let _ = note(name, kind);
}

fn note(name: &[u8], kind: Kind) -> Result<()> {
    WATCHER.turn_on()?;
    let relation = tables::known();
    database(relation)?;
    let queue = queue(relation, name)?;
    PENDING.with_borrow_mut(|pending| pending.push(Entry { queue, kind }))
}

static WATCHER: Watcher = Watcher::new(happened);

fn happened(event: Event) {
    PENDING.with_borrow_mut(|pending| match event {
        Event::BeforeCommit => (),
        Event::Committed => {
            pending.iter().for_each(|entry| entry.queue.count(entry.kind));
            pending.clear();
        }
        Event::Prepared | Event::Aborted => pending.clear(),
        Event::SubCommitted(_) | Event::SubAborted(_) => pending.follow(event),
    });
}

impl Queue {
    /// Must not fail.
    fn count(&self, kind: Kind) {
        match kind {
            Kind::Done => {
                self.done.fetch_add(1, Relaxed);
                if self.room.fetch_sub(1, Relaxed) == 1 {
                    return ask_for_housekeeping();
                }
            }
            Kind::Failed => {
                self.failed.fetch_add(1, Relaxed);
            }
            Kind::Other => (),
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
