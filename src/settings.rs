//! The settings of the extension.
//!
//! Every user may set those that concern a session's own jobs. Only superusers may set those that concern the cluster's processes. Those
//! that must have one value in the whole cluster come from the configuration alone.

use crate::pg::guc::own::{self, IntSetting, TextSetting, Who, WordSetting, Words};
use crate::pg::raw::Raw;
use core::ffi::c_char;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicI32, AtomicPtr};
use pgrx::pg_sys::{GUC_UNIT_BYTE, GUC_UNIT_MS};

/// The smallest queue, in bytes. A smaller size counts as this one.
pub const QUEUE_MIN: i32 = 4096;

/// The largest queue, in bytes. A larger size is refused with 22023.
pub const QUEUE_MAX: i32 = 256 << 20;

/// The largest number of processes that PostgreSQL can have (`MAX_BACKENDS` of `postmaster/postmaster.h`).
const MAX_BACKENDS: i32 = 0x3ffff;

static MAX_WORKERS: AtomicI32 = AtomicI32::new(16);
static DEFAULT_QUEUE_SIZE: AtomicI32 = AtomicI32::new(64 << 10);
static WORKER_TIMEOUT: AtomicI32 = AtomicI32::new(0);
static WORKER_IDLE_TIMEOUT: AtomicI32 = AtomicI32::new(0);
static MAX_IDLE_WORKERS: AtomicI32 = AtomicI32::new(0);
static RESULT_RETENTION: AtomicI32 = AtomicI32::new(0);
static HISTORY_SIZE: AtomicI32 = AtomicI32::new(1000);

static LAUNCH_TIMEOUT: AtomicI32 = AtomicI32::new(0);
static MAX_CLUSTER_WORKERS: AtomicI32 = AtomicI32::new(0);
static MAX_ROLE_WORKERS: AtomicI32 = AtomicI32::new(0);
static MAX_ROLE_HANDLES: AtomicI32 = AtomicI32::new(0);

const SETTINGS: [IntSetting; 13] = [
    IntSetting {
        name: c"pg_background.max_workers",
        description: c"Sets how many jobs of one session may run at the same time.",
        default: 16,
        min: 1,
        max: 1000,
        unit: 0,
        who: Who::Everybody,
        value: &MAX_WORKERS,
    },
    IntSetting {
        name: c"pg_background.default_queue_size",
        description: c"Sets how much memory a job's unread result may take before it goes to temporary files.",
        default: 64 << 10,
        min: QUEUE_MIN,
        max: QUEUE_MAX,
        unit: GUC_UNIT_BYTE,
        who: Who::Everybody,
        value: &DEFAULT_QUEUE_SIZE,
    },
    IntSetting {
        name: c"pg_background.worker_timeout",
        description: c"Sets the longest time that a job may run; 0 means no limit.",
        default: 0,
        min: 0,
        max: i32::MAX,
        unit: GUC_UNIT_MS,
        who: Who::Everybody,
        value: &WORKER_TIMEOUT,
    },
    IntSetting {
        name: c"pg_background.worker_idle_timeout",
        description: c"Sets how long a worker waits for another job; 0 gives every job a fresh process.",
        default: 10_000,
        min: 0,
        max: i32::MAX,
        unit: GUC_UNIT_MS,
        who: Who::Superusers,
        value: &WORKER_IDLE_TIMEOUT,
    },
    IntSetting {
        name: c"pg_background.max_idle_workers",
        description: c"Sets how many workers may wait for another job in the whole cluster; -1 means a quarter of max_worker_processes, at least 2.",
        default: -1,
        min: -1,
        max: 1000,
        unit: 0,
        who: Who::Superusers,
        value: &MAX_IDLE_WORKERS,
    },
    IntSetting {
        name: c"pg_background.result_retention",
        description: c"Sets how long an unread result outlives its launching session; 0 drops it at the session's end.",
        default: 0,
        min: 0,
        max: i32::MAX,
        unit: GUC_UNIT_MS,
        who: Who::Everybody,
        value: &RESULT_RETENTION,
    },
    IntSetting {
        name: c"pg_background.history_size",
        description: c"Sets how many ended jobs the view pg_background_jobs remembers.",
        default: 1000,
        min: 0,
        max: 100_000,
        unit: 0,
        who: Who::Nobody,
        value: &HISTORY_SIZE,
    },
    IntSetting {
        name: c"pg_background.launch_timeout",
        description: c"Sets how long a launch waits where no worker is free; 0 means not at all.",
        default: 0,
        min: 0,
        max: i32::MAX,
        unit: GUC_UNIT_MS,
        who: Who::Everybody,
        value: &LAUNCH_TIMEOUT,
    },
    IntSetting {
        name: c"pg_background.max_cluster_workers",
        description: c"Sets how many jobs may run at the same time in the whole cluster; 0 means no limit.",
        default: 0,
        min: 0,
        max: MAX_BACKENDS,
        unit: 0,
        who: Who::Nobody,
        value: &MAX_CLUSTER_WORKERS,
    },
    IntSetting {
        name: c"pg_background.max_role_workers",
        description: c"Sets how many jobs of one role may run at the same time; 0 means no limit.",
        default: 0,
        min: 0,
        max: MAX_BACKENDS,
        unit: 0,
        who: Who::Superusers,
        value: &MAX_ROLE_WORKERS,
    },
    IntSetting {
        name: c"pg_background.max_role_handles",
        description: c"Sets how many jobs of one role may run or wait to be read or detached; 0 means no limit.",
        default: 0,
        min: 0,
        max: i32::MAX,
        unit: 0,
        who: Who::Superusers,
        value: &MAX_ROLE_HANDLES,
    },
    IntSetting {
        name: c"pg_background.max_task_workers",
        description: c"Sets how many durable tasks may run at the same time in the whole cluster; -1 means a quarter of max_worker_processes, at least 2.",
        default: -1,
        min: -1,
        max: MAX_BACKENDS,
        unit: 0,
        who: Who::Nobody,
        value: &MAX_TASK_WORKERS,
    },
    IntSetting {
        name: c"pg_background.max_task_result",
        description: c"Sets how many bytes of rows are kept of a durable task.",
        default: 1 << 20,
        min: 0,
        max: 256 << 20,
        unit: GUC_UNIT_BYTE,
        who: Who::Superusers,
        value: &MAX_TASK_RESULT,
    },
];

/// What `pg_background.tasks` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tasks {
    /// They run unless the database is a copy.
    Auto,
    On,
    Off,
}

static TASKS: AtomicI32 = AtomicI32::new(0);
static MAX_TASK_WORKERS: AtomicI32 = AtomicI32::new(-1);
static MAX_TASK_RESULT: AtomicI32 = AtomicI32::new(1 << 20);

static TASKS_WORDS: Words = Words(&[
    Words::word(c"auto", 0),
    Words::word(c"on", 1),
    Words::word(c"off", 2),
    Words::hidden(c"true", 1),
    Words::hidden(c"false", 2),
    Words::hidden(c"yes", 1),
    Words::hidden(c"no", 2),
    Words::END,
]);

const WORDS: [WordSetting; 1] = [WordSetting {
    name: c"pg_background.tasks",
    description:
        c"Sets whether durable tasks and schedules run in this database; auto means unless it is a copy of another one.",
    default: 0,
    words: &TASKS_WORDS,
    who: Who::Superusers,
    value: &TASKS,
}];

static STATELESS_LIBRARIES: AtomicPtr<c_char> = AtomicPtr::new(core::ptr::null_mut());

const TEXTS: [TextSetting; 1] = [TextSetting {
    name: c"pg_background.stateless_libraries",
    description: c"Lists the libraries, besides those of PostgreSQL, that keep nothing of one job for the next, so that a worker which has loaded them may serve another.",
    value: &STATELESS_LIBRARIES,
}];

/// Defines the settings. Called when the library is loaded.
pub fn define(raw: Raw<'_>) {
    own::define(raw, c"pg_background", &SETTINGS, &TEXTS, &WORDS);
}

/// `pg_background.max_workers`: how many jobs of one session may run.
pub fn max_workers() -> u32 {
    MAX_WORKERS.load(Relaxed) as u32
}

/// `pg_background.default_queue_size`, in bytes.
pub fn default_queue_size() -> i32 {
    DEFAULT_QUEUE_SIZE.load(Relaxed)
}

/// `pg_background.worker_timeout`, in milliseconds; 0 for no limit.
pub fn worker_timeout() -> i32 {
    WORKER_TIMEOUT.load(Relaxed)
}

/// `pg_background.worker_idle_timeout`, in milliseconds; 0 gives each job a fresh process.
pub fn worker_idle_timeout() -> i32 {
    WORKER_IDLE_TIMEOUT.load(Relaxed)
}

/// `pg_background.max_idle_workers`: how many workers of the cluster may be idle. By default most of the server's slots are left to other
/// users of background workers, which cannot ask an idle worker to exit.
pub fn max_idle_workers() -> i32 {
    match MAX_IDLE_WORKERS.load(Relaxed) {
        -1 => (own::max_worker_processes() / 4).max(2),
        count => count,
    }
}

/// `pg_background.result_retention`, in milliseconds; 0 if results are not retained.
pub fn result_retention() -> i32 {
    RESULT_RETENTION.load(Relaxed)
}

/// `pg_background.history_size`: how many ended jobs the history has.
pub fn history_size() -> u32 {
    HISTORY_SIZE.load(Relaxed) as u32
}

/// `pg_background.launch_timeout`, in milliseconds; 0 if a launch does not wait.
pub fn launch_timeout() -> i32 {
    LAUNCH_TIMEOUT.load(Relaxed)
}

/// `pg_background.max_cluster_workers`: how many jobs of the cluster may run; 0 for no limit.
pub fn max_cluster_workers() -> u32 {
    MAX_CLUSTER_WORKERS.load(Relaxed) as u32
}

/// `pg_background.max_role_workers`: how many jobs of this session's role may run; 0 for no limit.
pub fn max_role_workers() -> u32 {
    MAX_ROLE_WORKERS.load(Relaxed) as u32
}

/// `pg_background.max_role_handles`: how many jobs of this session's role may run or have a handle that is not released; 0 for no limit.
pub fn max_role_handles() -> u32 {
    MAX_ROLE_HANDLES.load(Relaxed) as u32
}

/// Whether `pg_background.stateless_libraries` lists this name.
pub fn is_stateless_library(name: &[u8]) -> bool {
    let mut names = TEXTS[0].text().split(|byte| *byte == b',');
    names.any(|known| known.trim_ascii() == name)
}

/// `pg_background.tasks`.
pub fn tasks() -> Tasks {
    match TASKS.load(Relaxed) {
        1 => Tasks::On,
        2 => Tasks::Off,
        _ => Tasks::Auto,
    }
}

/// `pg_background.max_task_workers`: runs of durable tasks in the cluster.
pub fn max_task_workers() -> i32 {
    match MAX_TASK_WORKERS.load(Relaxed) {
        -1 => (own::max_worker_processes() / 4).max(2),
        count => count,
    }
}

/// How many of these may be parts of operations, which leave one to other tasks.
pub fn max_operation_workers() -> i32 {
    (max_task_workers() - 1).max(1)
}

/// `pg_background.max_task_result`, in bytes.
pub fn max_task_result() -> usize {
    MAX_TASK_RESULT.load(Relaxed) as usize
}
