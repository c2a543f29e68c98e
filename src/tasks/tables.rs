//! The tables of `sql/pg_background_tasks--*.sql`, as heap-level code sees them.

use crate::pg::catalog::owner;
use crate::pg::error::Result;
use crate::pg::reuse::connection_version;
use crate::pg::table::{self, Key, Row, Sees};
use crate::tasks::shared;
use core::cell::Cell;

/// The columns of `background.task` that are read by number.
pub mod task {
    pub const ID: usize = 1;
    pub const QUEUE: usize = 2;
    pub const OWNER: usize = 3;
    pub const PHASE: usize = 5;
    pub const MODE: usize = 6;
    pub const HOME: usize = 7;
    pub const ATTEMPT: usize = 8;
    pub const MAX_ATTEMPTS: usize = 9;
    pub const ENQUEUED_AT: usize = 10;
    pub const RUN_AT: usize = 11;
    pub const EXPIRES_AT: usize = 12;
    pub const RETRY_DELAY: usize = 13;
    pub const TIMEOUT: usize = 14;
    pub const LABEL: usize = 15;
    pub const SQL: usize = 16;
    pub const PARAM_TYPES: usize = 17;
    pub const SEARCH_PATH: usize = 19;
    pub const SETTINGS: usize = 20;
    pub const DATABASE: usize = 21;
    pub const KEEP_RESULT: usize = 22;
    pub const KEY: usize = 23;
    pub const TURN: usize = 24;
    pub const CONCURRENCY_KEY: usize = 25;
    pub const SCHEDULE: usize = 28;
    pub const OPERATION_ID: usize = 29;
    pub const SQLSTATE: usize = 31;
    pub const READY_AT: usize = 33;
}

/// The columns of the tables of runs that are read or written by number.
pub mod run {
    pub const TASK_ID: usize = 1;
    pub const ATTEMPT: usize = 2;
    pub const ENDED: usize = 3;
    pub const STATE: usize = 4;
    pub const OWNER: usize = 6;
    pub const PID: usize = 8;
    pub const STARTED_AT: usize = 9;
    pub const FINISHED_AT: usize = 10;
    pub const ROW_COUNT: usize = 11;
    pub const COMMAND_TAG: usize = 12;
    pub const RESULT: usize = 18;
    pub const WIDTH: usize = 41;
    /// The columns that have the task's own values, from `queue` on, and the column of `background.task` that each is taken from.
    pub const OF_TASK: [(usize, usize); 26] = [
        (5, 2),
        (6, 3),
        (7, 15),
        (19, 4),
        (20, 6),
        (21, 7),
        (22, 9),
        (23, 10),
        (24, 11),
        (25, 12),
        (26, 13),
        (27, 14),
        (28, 16),
        (29, 17),
        (30, 18),
        (31, 19),
        (32, 20),
        (33, 21),
        (34, 22),
        (35, 23),
        (36, 25),
        (37, 26),
        (38, 27),
        (39, 28),
        (40, 29),
        (41, 33),
    ];
}

/// The columns of `background.dependency`.
pub mod dependency {
    pub const PARENT: usize = 1;
    pub const CHILD: usize = 2;
}

/// `phase` of `background.task`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Waiting,
    /// Until `run_at`.
    Deferred,
    /// While there are rows in `background.dependency`.
    Blocked,
}

impl Phase {
    /// As it is kept.
    pub fn letter(self) -> u8 {
        match self {
            Self::Waiting => b'w',
            Self::Deferred => b'd',
            Self::Blocked => b'b',
        }
    }
}

/// The tables of runs: those that are done, in turn, and the rest.
const RUNS: [(&core::ffi::CStr, &core::ffi::CStr); 4] = [
    (c"run_failed", c"run_failed_task_id"),
    (c"run_0", c"run_0_task_id"),
    (c"run_1", c"run_1_task_id"),
    (c"run_2", c"run_2_task_id"),
];

/// The indexes of parts of the table of tasks.
const PARTS: [&core::ffi::CStr; 8] = [
    c"task_ready",
    c"task_concurrency_key",
    c"task_attempted",
    c"task_blocked",
    c"task_due",
    c"task_expires",
    c"task_schedule",
    c"task_operation",
];

/// Whether a new task without a key, without a schedule, and of no operation, belongs into each of [`PARTS`].
fn parts_of_new(phase: Phase, has_concurrency_key: bool, expires: bool) -> [bool; PARTS.len()] {
    let waits = phase == Phase::Waiting;
    [
        waits,
        waits && has_concurrency_key,
        false,
        phase == Phase::Blocked,
        phase == Phase::Deferred,
        expires,
        false,
        false,
    ]
}

impl Tables {
    /// Looks at the versions of the row of a task, up to the first for which `look` returns something. None for one that has ended.
    pub fn find_task<T>(&self, id: i64, sees: Sees, look: impl FnMut(&Row) -> Result<Option<T>>) -> Result<Option<T>> {
        table::find(self.task, self.task_pkey, task::ID, Key::Int8(id), sees, look)
    }

    /// Whether the task has not ended.
    pub fn has_task(&self, id: i64, sees: Sees) -> Result<bool> {
        table::exists(self.task, self.task_pkey, task::ID, Key::Int8(id), sees)
    }

    /// The indexes of the table of tasks, and whether a new task without a key belongs into them.
    pub fn indexes_of_new(
        &self,
        phase: Phase,
        has_concurrency_key: bool,
        expires: bool,
    ) -> [(u32, bool); 2 + PARTS.len()] {
        let mut all = self.indexes.map(|index| (index, false));
        all[0].1 = true;
        let parts = parts_of_new(phase, has_concurrency_key, expires);
        for ((_, is_in), part) in all[2..].iter_mut().zip(parts) {
            *is_in = part;
        }
        all
    }
}

/// The numbers of the tables and indexes, which stay as long as the extension does.
#[derive(Clone, Copy)]
pub struct Tables {
    pub task: u32,
    pub task_pkey: u32,
    pub task_key: u32,
    pub task_id: u32,
    pub operation: u32,
    pub operation_pkey: u32,
    pub operation_id: u32,
    pub schedule_id: u32,
    pub dependency: u32,
    pub dependency_pkey: u32,
    pub dependency_child: u32,
    /// All indexes of the table of tasks: its primary key, `task_key`, and [`PARTS`]; 0 for one that is not there.
    pub indexes: [u32; 2 + PARTS.len()],
    /// Each table with its index: the one of what is not done, and those of what is done in turn.
    pub runs: [(u32, u32); 4],
}

thread_local! {
    static KNOWN: Cell<Option<Tables>> = const { Cell::new(None) };
    /// How many invalidation messages this process had seen when it looked.
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

/// The number of the table of tasks as this process has seen it last, 0 if it has not.
pub fn known() -> u32 {
    KNOWN.get().map_or(0, |known| known.task)
}

/// The tables as this process has seen them last. 55000 if it has not.
pub fn last() -> Result<Tables> {
    match KNOWN.get() {
        Some(known) => Ok(known),
        None => tables(),
    }
}

/// [`tables`] for a transaction that has changed nothing yet: the catalogs are read again only after one of them has changed.
pub fn tables_at_begin() -> Result<Tables> {
    match KNOWN.get() {
        Some(known) if SEEN.get() == connection_version::messages() => Ok(known),
        _ => tables(),
    }
}

/// The tables of this database. 55000 if they are not there, 42501 if their owner is no superuser.
pub fn tables() -> Result<Tables> {
    let messages = connection_version::messages();
    let task = owner::look_up()?;
    // REINDEX CONCURRENTLY gives the name of an index to another one.
    if let Some(known) = KNOWN.get()
        && known.task == task
        && SEEN.get() == messages
    {
        return Ok(known);
    }
    let mut runs = [(0, 0); 4];
    for (to, (table, index)) in runs.iter_mut().zip(RUNS) {
        *to = (owner::relation(table)?, owner::relation(index)?);
    }
    let (task_pkey, task_key) = (owner::relation(c"task_pkey")?, owner::relation(c"task_key")?);
    let mut indexes = [0; 2 + PARTS.len()];
    (indexes[0], indexes[1]) = (task_pkey, task_key);
    for (to, name) in indexes[2..].iter_mut().zip(PARTS) {
        *to = owner::relation(name).unwrap_or(0);
    }
    let known = Tables {
        task,
        task_pkey,
        task_key,
        indexes,
        task_id: owner::relation(c"task_id")?,
        operation: owner::relation(c"operation")?,
        operation_pkey: owner::relation(c"operation_pkey")?,
        operation_id: owner::relation(c"operation_id")?,
        schedule_id: owner::relation(c"schedule_id")?,
        dependency: owner::relation(c"dependency")?,
        dependency_pkey: owner::relation(c"dependency_pkey")?,
        dependency_child: owner::relation(c"dependency_child")?,
        runs,
    };
    let database = shared::mine()?;
    database.belongs_to(task, owner::number())?;
    KNOWN.set(Some(known));
    SEEN.set(messages);
    Ok(known)
}
