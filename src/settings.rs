//! The settings of the extension. All users may set them, in every way that PostgreSQL knows.

use crate::pg::guc::{self, IntSetting};
use core::sync::atomic::{AtomicI32, Ordering::Relaxed};
use pgrx::pg_sys::{GUC_UNIT_BYTE, GUC_UNIT_MS};

/// The smallest queue, in bytes. Smaller sizes that are asked for count as this one.
pub const QUEUE_MIN: i32 = 4096;

/// The largest queue, in bytes. 22023 beyond.
pub const QUEUE_MAX: i32 = 256 << 20;

static MAX_WORKERS: AtomicI32 = AtomicI32::new(16);
static DEFAULT_QUEUE_SIZE: AtomicI32 = AtomicI32::new(64 << 10);
static WORKER_TIMEOUT: AtomicI32 = AtomicI32::new(0);

const SETTINGS: [IntSetting; 3] = [
    IntSetting {
        name: c"pg_background.max_workers",
        description: c"Sets how many jobs of one session may run at the same time.",
        default: 16,
        min: 1,
        max: 1000,
        unit: 0,
        value: &MAX_WORKERS,
    },
    IntSetting {
        name: c"pg_background.default_queue_size",
        description: c"Sets how much memory a job's unread result may take before it goes to temporary files.",
        default: 64 << 10,
        min: QUEUE_MIN,
        max: QUEUE_MAX,
        unit: GUC_UNIT_BYTE,
        value: &DEFAULT_QUEUE_SIZE,
    },
    IntSetting {
        name: c"pg_background.worker_timeout",
        description: c"Sets the longest time that a job may run; 0 means no limit.",
        default: 0,
        min: 0,
        max: i32::MAX,
        unit: GUC_UNIT_MS,
        value: &WORKER_TIMEOUT,
    },
];

/// Makes the settings known. Once for each process, when the library is loaded.
pub fn init() {
    for setting in &SETTINGS {
        guc::define(setting);
    }
    guc::reserve_prefix(c"pg_background");
}

/// `pg_background.max_workers`: running jobs of one session.
pub fn max_workers() -> u32 {
    MAX_WORKERS.load(Relaxed) as u32
}

/// `pg_background.default_queue_size`, in bytes.
pub fn default_queue_size() -> i32 {
    DEFAULT_QUEUE_SIZE.load(Relaxed)
}

/// `pg_background.worker_timeout`, in milliseconds; 0 for none.
pub fn worker_timeout() -> i32 {
    WORKER_TIMEOUT.load(Relaxed)
}
