//! What a job is to be, and where its state comes from.

use crate::channel::request::{Errand, Work};
use crate::pg::catalog::database::Database;
use crate::pg::error::{Report, Result};
use crate::pg::process::backend;
use crate::pg::process::identity::{self, Identity};
use crate::pg::shmem::{DsaPointer, INVALID_POINTER};
use crate::pg::value::encoding;
use crate::pg::value::params::Outgoing;
use crate::registry::job::{LABEL_MAX, Slot};
use crate::settings;
use pgrx::PgSqlErrorCode;

/// An order for a job.
pub struct Order<'a> {
    pub sql: &'a [u8],
    pub label: Option<&'a [u8]>,
    /// The encoding of SQL and label.
    pub text_encoding: i32,
    /// The size of the queue in bytes, from [`queue_size`].
    pub queue_size: i32,
    /// Whether rows and messages are kept for a reader.
    pub keeps_result: bool,
    /// How long an unread result outlives the session that ordered the job, in milliseconds.
    pub retention: i32,
    /// How long the job may run, in milliseconds; 0 for no limit.
    pub worker_timeout: i32,
    /// Whether that or another limit may end the job before it is done.
    pub is_limited: bool,
    pub state: Source<'a>,
    /// What the engine does in the job's transaction.
    pub work: Work,
    /// The counters of the session, [`INVALID_POINTER`] for an order without a session.
    pub counters: DsaPointer,
    pub introduce: Introduce,
}

impl<'a> Order<'a> {
    /// An order for a job that a new connection of `role` to `database` runs, whose result nobody reads.
    pub fn of_connection(database: u32, role: u32, sql: &'a [u8], introduce: Introduce) -> Self {
        Self {
            sql,
            label: None,
            text_encoding: encoding::UTF8,
            queue_size: settings::default_queue_size(),
            keeps_result: false,
            retention: 0,
            worker_timeout: 0,
            is_limited: true,
            state: Source::Connection { database, role },
            work: Work::None,
            counters: INVALID_POINTER,
            introduce,
        }
    }
}

/// Where a job's state comes from.
pub enum Source<'a> {
    /// A session: its identity and its settings; in another database than the session's, the limits that it has set.
    Session {
        identity: Identity,
        database: Database,
        parameters: Option<&'a Outgoing>,
        errand: Errand<'a>,
    },
    /// A new connection of the role to the database. Nothing is looked up for the order: whether database and role exist, and whether the
    /// role may connect, is found when the worker connects. A refused connection is the job's error.
    Connection { database: u32, role: u32 },
}

/// Takes over the handle `(pid, cookie)` of a job that has a worker process. It calls [`Slot::introduce`], and must not fail.
pub type Introduce = fn(&'static Slot, u64, i32);

/// An [`Introduce`] that drops the handle: the job runs on to its end, and its result is retained for as long as the order says.
#[cfg_attr(not(feature = "probe"), allow(dead_code, reason = "no SQL function orders so"))]
pub fn leave_alone(slot: &'static Slot, cookie: u64, pid: i32) {
    slot.introduce(cookie, pid);
    slot.orphan(cookie);
}

/// Returns the size of the queue for the `bytes` asked for: 0 and below mean the default. 22023 above the largest size.
pub fn queue_size(bytes: i32) -> Result<i32> {
    if bytes > settings::QUEUE_MAX {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("queue size must not exceed {} bytes", settings::QUEUE_MAX),
        )
        .into());
    }
    Ok(if bytes <= 0 {
        settings::default_queue_size()
    } else {
        bytes.max(settings::QUEUE_MIN)
    })
}

/// Checks that something may be run later for this process: 25000 in a parallel worker, 42501 in a security-restricted operation. `action` and
/// `what` are words of the error: launch a background job, job.
pub fn check_caller(action: &str, what: &str) -> Result<()> {
    if backend::is_parallel_worker() {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
            format!("cannot {action} in a parallel worker"),
        )
        .into());
    }
    if identity::in_restricted_operation() {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("cannot {action} within security-restricted operation"),
        )
        .detail(format!("The {what} would run outside of the restriction."))
        .into());
    }
    Ok(())
}

/// Checks the length of a label. 22001 if it is too long.
pub fn check_label(label: Option<&[u8]>) -> Result<()> {
    match label {
        Some(label) if label.len() > LABEL_MAX => Err(Report::new(
            PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
            "label too long",
        )
        .detail(format!(
            "The label has {} bytes, the limit is {LABEL_MAX}.",
            label.len()
        ))
        .into()),
        _ => Ok(()),
    }
}
