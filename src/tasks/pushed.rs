//! What is told after the commit of a transaction that enqueued tasks, made them ready, or ended them without a run.
//!
//! The tasks are collected as they come; those of a subtransaction that is rolled back are dropped. After the commit nothing may fail: the lines
//! have a fixed size, and what has no room there is found by a sweep. Another session's COMMIT PREPARED tells nothing of the tasks of a
//! transaction that was prepared, so the keeper looks for these.

use crate::pg::error::Result;
use crate::pg::fallible;
use crate::pg::moment;
use crate::pg::plan::Row;
use crate::pg::process::bgworker;
use crate::pg::transaction::{Collected, Event, Watcher};
use crate::settings::{self, Tasks};
use crate::tasks::ready::{Entry, Which};
use crate::tasks::shared::{self, Database, Mode};
use crate::tasks::tables::Phase;
use core::cell::RefCell;

/// The most tasks that are told one by one. After a transaction with more, the lines are read again.
const MOST: usize = 10_000;

/// How many tasks are put into their lines while these are locked once.
const AT_ONCE: usize = 64;

/// A task that a transaction has enqueued, or made ready.
#[derive(Clone, Copy)]
struct Pushed {
    which: Which,
    entry: Entry,
    /// The queue's place in [`Pending::queues`].
    name: usize,
    /// Whether it waits. Others are told of for what is to be done about them.
    phase: Phase,
}

struct Pending {
    tasks: Collected<Pushed>,
    /// The names of queues, each once.
    queues: Vec<(u64, Vec<u8>)>,
    /// There are more tasks.
    has_more: bool,
    /// Tasks end without a run; be it in a subtransaction that was rolled back.
    ends: bool,
    /// Settings of queues have changed.
    queues_change: bool,
    /// This database is the one whose tasks run.
    activates: bool,
    /// When the first of the tasks is due or expires, 0 for never; be it one of a subtransaction that was rolled back.
    due_at: i64,
    /// When the first of the schedules is due that were made or changed, 0 for never.
    schedule_due_at: i64,
}

impl Pending {
    fn forget(&mut self) {
        self.tasks.clear();
        self.queues.clear();
        (self.has_more, self.ends, self.queues_change, self.activates) = (false, false, false, false);
        (self.due_at, self.schedule_due_at) = (0, 0);
    }

    fn is_empty(&self) -> bool {
        !self.has_more
            && !self.ends
            && !self.queues_change
            && !self.activates
            && self.schedule_due_at == 0
            && self.tasks.is_empty()
    }
}

thread_local! {
    static PENDING: RefCell<Pending> = const {
        RefCell::new(Pending {
            tasks: Collected::new(),
            queues: Vec::new(),
            has_more: false,
            ends: false,
            queues_change: false,
            activates: false,
            due_at: 0,
            schedule_due_at: 0,
        })
    };
}

/// A task that this transaction has enqueued or made ready.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub id: i64,
    /// The number of its role.
    pub role: u32,
    pub queue: &'a [u8],
    pub priority: i32,
    pub concurrency_key: Option<&'a [u8]>,
    /// Whether it is a part of an operation.
    pub is_operation: bool,
    pub run_at: Option<i64>,
    pub expires_at: Option<i64>,
}

impl Task<'_> {
    /// Its line.
    pub fn which(&self) -> Which {
        Which {
            role: self.role,
            queue: shared::stands_for(self.queue),
        }
    }

    /// Its entry in the line.
    pub fn entry(&self) -> Entry {
        Entry {
            id: self.id,
            key: shared::stands_for_key(self.concurrency_key, self.is_operation),
            priority: self.priority,
        }
    }
}

/// Notes a task of this transaction. 53200.
pub fn push(task: &Task, phase: Phase) -> Result<()> {
    WATCHER.turn_on()?;
    shared::mine()?;
    let which = task.which();
    PENDING.with_borrow_mut(|pending| {
        // The keeper looks when it is due, also if that is over by now, and when it expires.
        let run_at = task.run_at.filter(|_| phase == Phase::Deferred);
        for at in run_at.into_iter().chain(task.expires_at) {
            if pending.due_at == 0 || at < pending.due_at {
                pending.due_at = at;
            }
        }
        if pending.tasks.len() == MOST {
            pending.has_more = true;
            return Ok(());
        }
        let name = match pending.queues.iter().rposition(|(queue, _)| *queue == which.queue) {
            Some(name) => name,
            None => {
                let name = fallible::copied(task.queue)?;
                fallible::push(&mut pending.queues, (which.queue, name))?;
                pending.queues.len() - 1
            }
        };
        let pushed = Pushed {
            which,
            entry: task.entry(),
            name,
            phase,
        };
        pending.tasks.push(pushed)
    })
}

/// Notes that this transaction makes a schedule due at `at`.
pub fn schedule_is_due(at: i64) -> Result<()> {
    WATCHER.turn_on()?;
    shared::mine()?;
    PENDING.with_borrow_mut(|pending| {
        if pending.schedule_due_at == 0 || at < pending.schedule_due_at {
            pending.schedule_due_at = at;
        }
    });
    Ok(())
}

/// Notes that this transaction changes settings of queues.
pub fn queues_change() -> Result<()> {
    WATCHER.turn_on()?;
    shared::mine()?;
    PENDING.with_borrow_mut(|pending| pending.queues_change = true);
    Ok(())
}

/// Notes that this transaction changes what waits in ways that only a look at the table tells.
pub fn sweep() -> Result<()> {
    WATCHER.turn_on()?;
    shared::mine()?;
    PENDING.with_borrow_mut(|pending| pending.has_more = true);
    Ok(())
}

/// Notes that this transaction ends a task without a run. A task that another session has enqueued to follow it, be it as a child or by a key, may be
/// committed before that, and then neither of the two transactions sees the other's: it is found after the commit.
pub fn ends(has_key: bool) -> Result<()> {
    WATCHER.turn_on()?;
    shared::mine()?;
    PENDING.with_borrow_mut(|pending| {
        pending.ends = true;
        pending.has_more |= has_key;
    });
    Ok(())
}

/// Notes that this transaction makes the tasks of this database run.
pub fn activate() -> Result<()> {
    WATCHER.turn_on()?;
    shared::mine()?;
    PENDING.with_borrow_mut(|pending| pending.activates = true);
    Ok(())
}

static WATCHER: Watcher = Watcher::new(happened);

fn happened(event: Event) {
    follow(event);
    if matches!(event, Event::Committed | Event::Prepared | Event::Aborted) {
        shared::start_clock();
    }
}

fn follow(event: Event) {
    PENDING.with_borrow_mut(|pending| match event {
        Event::BeforeCommit => (),
        Event::Committed => {
            if !pending.is_empty() {
                moment::passes(if bgworker::is_job_worker() {
                    "worker committed"
                } else {
                    "committed"
                });
                committed(pending);
                moment::passes(if bgworker::is_job_worker() {
                    "worker pushed"
                } else {
                    "pushed"
                });
            }
            pending.forget();
        }
        Event::Prepared => {
            if !pending.is_empty() {
                moment::passes("prepared");
                prepared();
            }
            pending.forget();
        }
        Event::Aborted => pending.forget(),
        Event::SubCommitted(_) | Event::SubAborted(_) => pending.tasks.follow(event),
    });
}

/// The database, if tasks are to run there as far as this session knows.
fn database() -> Option<&'static Database> {
    let database = shared::known()?;
    (settings::tasks() != Tasks::Off && database.mode() != Mode::Quiet).then_some(database)
}

/// The tasks are there for all. Must not fail.
fn committed(pending: &Pending) {
    if pending.schedule_due_at != 0
        && let Some(database) = shared::known()
    {
        database.schedule_changes(pending.schedule_due_at);
    }
    if pending.queues_change {
        crate::tasks::totals::ask_for_housekeeping();
    }
    if pending.ends
        && let Some(database) = shared::known()
    {
        database.wake_waiters();
    }
    if pending.activates
        && let Some(database) = shared::known()
    {
        database.set_mode(Mode::Unknown);
        database.blocks();
        return database.ask_for_sweep();
    }
    let Some(database) = database() else { return };
    if pending.queues_change {
        // What an old limit of a key held back is in the table only.
        if let Some(mut lines) = database.lines() {
            lines.limits_change();
        }
        database.ask_for_sweep();
    }
    if pending.ends {
        database.blocks();
    }
    if pending.has_more || database.mode() == Mode::Unknown {
        return database.ask_for_sweep();
    }
    let mut blocks = false;
    let mut tasks = pending.tasks.iter().peekable();
    while tasks.peek().is_some() {
        let Some(mut lines) = database.lines() else {
            return database.ask_for_sweep();
        };
        for task in tasks.by_ref().take(AT_ONCE) {
            match task.phase {
                Phase::Waiting => {
                    let name = pending.queues.get(task.name).map_or(&b""[..], |(_, name)| name);
                    lines.push(task.which, name, task.entry);
                }
                Phase::Blocked => blocks = true,
                Phase::Deferred => (),
            }
        }
    }
    if blocks {
        database.blocks();
    }
    for at in [pending.due_at, pending.schedule_due_at] {
        if at != 0 {
            database.ask_for_keeper_at(at);
        }
    }
    if let Some(task) = pending.tasks.iter().find(|task| task.phase == Phase::Waiting) {
        shared::there_is_work(Some(task.which.role));
    }
}

/// A transaction that enqueued tasks will be committed by some session: until then the keeper looks now and then. Must not fail.
fn prepared() {
    if let Some(database) = database() {
        database.ask_for_sweep();
    }
}

/// The columns that [`Ready::read`] reads, of the table `t`.
macro_rules! ready_columns {
    () => {
        "t.id, background.role_oid(t.owner), t.queue, t.priority, t.concurrency_key, t.run_at, t.expires_at, \
         t.operation_id IS NOT NULL"
    };
}
pub(super) use ready_columns;

/// A task that was found to be ready, as a statement returned it.
pub struct Ready {
    id: i64,
    role: u32,
    queue: Vec<u8>,
    priority: i32,
    concurrency_key: Option<Vec<u8>>,
    run_at: Option<i64>,
    expires_at: Option<i64>,
    is_operation: bool,
}

impl Ready {
    /// Reads the columns of `ready_columns!`, which are the first ones of the row.
    pub fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.int8(0)?.unwrap_or(0),
            role: row.oid(1)?.unwrap_or(0),
            queue: row.text(2)?.unwrap_or_default(),
            priority: row.int4(3)?.unwrap_or(0),
            concurrency_key: row.text(4)?,
            run_at: row.int8(5)?,
            expires_at: row.int8(6)?,
            is_operation: row.bool(7)? == Some(true),
        })
    }

    /// The same, borrowed.
    pub fn task(&self) -> Task<'_> {
        Task {
            id: self.id,
            role: self.role,
            queue: &self.queue,
            priority: self.priority,
            concurrency_key: self.concurrency_key.as_deref(),
            is_operation: self.is_operation,
            run_at: self.run_at,
            expires_at: self.expires_at,
        }
    }

    /// Whether its role exists. Without it the task does not run.
    pub fn has_role(&self) -> bool {
        self.role != 0
    }
}
