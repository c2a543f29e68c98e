//! Queues: who may enqueue, how much, and their settings.

use crate::pg::catalog::object;
use crate::pg::error::{Failure, Report, Result};
use crate::pg::fallible;
use crate::pg::function::call::Interval;
use crate::pg::function::rows::{BOOL, INT4, INT8, OID, TEXT, Value};
use crate::pg::guc::own;
use crate::pg::plan::Plan;
use crate::pg::transaction::{Event, Watcher};
use crate::pg::value::desc::{INTERVAL, TEXT_ARRAY};
use crate::tasks::options::{self, NAME_MAX, check_interval, check_length, out_of_range};
use crate::tasks::tables::Tables;
use crate::tasks::{pushed, running, tables, totals};
use core::cell::RefCell;
use pgrx::PgSqlErrorCode;

/// The queue that is there without a row.
pub const DEFAULT: &[u8] = b"default";

/// Whether a role may enqueue: without `roles`, as a member of one of them, or as a superuser.
static LOOK: Plan = Plan::planned(
    c"SELECT max_waiting, roles IS NULL OR EXISTS (SELECT FROM pg_catalog.unnest(roles) AS _ (role) \
          WHERE pg_catalog.pg_has_role($2, background.role_oid(role), 'MEMBER')) \
          OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE oid OPERATOR(pg_catalog.=) $2) \
      FROM background.queue WHERE name OPERATOR(pg_catalog.=) $1",
    &[TEXT, OID],
);

/// Looks at no more tasks than are too many.
static COUNT: Plan = Plan::planned(
    c"SELECT pg_catalog.count(*) FROM (SELECT FROM background.task \
      WHERE queue OPERATOR(pg_catalog.=) $1 AND phase OPERATOR(pg_catalog.=) 'w' LIMIT $2) AS _",
    &[TEXT, INT8],
);

/// A queue that this transaction has looked at, and holds a lock on.
struct Known {
    name: Vec<u8>,
    role: u32,
    task: u32,
    /// Its `max_waiting`.
    most: Option<i32>,
    /// How many more tasks may wait, 0 if that is to be counted.
    room: i64,
}

impl Known {
    fn is(&self, tables: &Tables, name: &[u8], role: u32) -> bool {
        self.task == tables.task && self.role == role && self.name == name
    }
}

/// The most queues that a transaction remembers.
const MOST_KNOWN: usize = 32;

thread_local! {
    static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

static WATCHER: Watcher = Watcher::new(|event| {
    if !matches!(event, Event::BeforeCommit | Event::SubCommitted(_)) {
        forget();
    }
});

/// What was seen of queues may be different: the transaction has ended, or a part of it, or it has changed them.
fn forget() {
    KNOWN.with_borrow_mut(Vec::clear);
}

/// Whether the role may add a waiting task to the queue, which stays there until the transaction ends: [`drop`] waits for the lock. 42704,
/// 42501, 53400. A transaction looks once, as long as it does not use many queues.
pub fn enter(tables: &Tables, name: &[u8], role: u32) -> Result<()> {
    match take_place(tables, name, role)? {
        None => Ok(()),
        Some(most) => Err(Report::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!("queue \"{}\" is full", shown(name)),
        )
        .detail(format!("As many tasks wait as max_waiting allows, which is {most}."))
        .into()),
    }
}

/// The same for a caller that can do without: how many tasks may wait if the queue is full. 42704, 42501.
pub fn take_place(tables: &Tables, name: &[u8], role: u32) -> Result<Option<i64>> {
    check(tables, name, role)?;
    let found = KNOWN.with_borrow_mut(|known| {
        let queue = known.iter_mut().find(|queue| queue.is(tables, name, role))?;
        if queue.room > 0 {
            queue.room -= 1;
            return None;
        }
        queue.most
    });
    let Some(most) = found.map(i64::from) else {
        return Ok(None);
    };
    let running = running::count_of_queue(name);
    let waiting = COUNT
        .first(&[Value::Text(name), Value::Int8(most + running)], |row| row.int8(0))?
        .flatten()
        .unwrap_or(0)
        - running;
    if waiting >= most {
        return Ok(Some(most));
    }
    KNOWN.with_borrow_mut(|known| {
        if let Some(queue) = known.iter_mut().find(|queue| queue.is(tables, name, role)) {
            queue.room = most - waiting - 1;
        }
    });
    Ok(None)
}

/// The same for an enqueue that adds nothing: 42704, 42501.
pub fn check(tables: &Tables, name: &[u8], role: u32) -> Result<()> {
    let is_known = KNOWN.with_borrow(|known| known.iter().any(|queue| queue.is(tables, name, role)));
    if is_known {
        return Ok(());
    }
    let most = look(tables, name, role)?;
    let name = fallible::copied(name)?;
    KNOWN.with_borrow_mut(|known| {
        if known.len() == MOST_KNOWN {
            known.clear();
        }
        let queue = Known {
            name,
            role,
            task: tables.task,
            most,
            room: 0,
        };
        fallible::push(known, queue)
    })
}

/// Keeps the queue until the transaction ends. Returns its `max_waiting`.
fn look(tables: &Tables, name: &[u8], role: u32) -> Result<Option<i32>> {
    WATCHER.turn_on()?;
    object::lock_name(tables.task, name, object::Mode::Use)?;
    let found = LOOK.first(&[Value::Text(name), Value::Oid(role)], |row| {
        Ok((row.int4(0)?, row.bool(1)?.unwrap_or(false)))
    })?;
    match found {
        Some((most, true)) => Ok(most),
        Some(_) => Err(Report::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for queue \"{}\"", shown(name)),
        )
        .into()),
        None if name == DEFAULT => Ok(None),
        None => Err(missing(name)),
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn missing(name: &[u8]) -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("queue \"{}\" does not exist", shown(name)),
    )
    .hint("Use background.set_queue to create it.")
    .into()
}

/// The arguments of `set_queue`; None leaves a setting as it is.
pub struct Settings<'a> {
    pub name: &'a [u8],
    pub max_running: Option<i32>,
    pub max_running_per_key: Option<i32>,
    pub max_waiting: Option<i32>,
    pub max_attempts: Option<i32>,
    pub retry_delay: Option<Interval>,
    pub timeout: Option<Interval>,
    pub keep_done: Option<Interval>,
    pub keep_failed: Option<Interval>,
    pub keep_done_max: Option<i64>,
    pub synchronous_commit: Option<&'a [u8]>,
    pub roles: Option<Vec<&'a [u8]>>,
    pub paused: Option<bool>,
}

/// In front of a value: whether it was given. A limit of -1 and a timeout of 0 are kept as NULL, and so is an empty list of roles.
static SET: Plan = Plan::planned(
    c"INSERT INTO background.queue AS q (name, max_running, max_running_per_key, max_waiting, max_attempts, retry_delay, timeout, \
          keep_done, keep_failed, keep_done_max, synchronous_commit, roles, paused) \
      VALUES ($1, CASE WHEN $2 OPERATOR(pg_catalog.>=) 0 THEN $2 END, CASE WHEN $3 OPERATOR(pg_catalog.>=) 0 THEN $3 END, \
          CASE WHEN $4 OPERATOR(pg_catalog.>=) 0 THEN $4 END, \
          COALESCE($5, 5), COALESCE($6, '5 s'), CASE WHEN $7 OPERATOR(pg_catalog.>) '0' THEN $7 END, \
          COALESCE($8, '1 day'), COALESCE($9, '30 days'), \
          CASE WHEN $10 IS NULL THEN 1000000 WHEN $10 OPERATOR(pg_catalog.>=) 0 THEN $10 END, COALESCE($11, 'off'), \
          CASE WHEN pg_catalog.cardinality($12) OPERATOR(pg_catalog.>) 0 \
              THEN ARRAY(SELECT background.role_of(oid) FROM pg_catalog.unnest($12) WITH ORDINALITY AS _ (name, number) \
                  JOIN pg_catalog.pg_roles ON rolname OPERATOR(pg_catalog.=) name ORDER BY number) END, \
          COALESCE($13, false)) \
      ON CONFLICT (name) DO UPDATE SET \
          max_running = CASE WHEN $2 IS NULL THEN q.max_running ELSE EXCLUDED.max_running END, \
          max_running_per_key = CASE WHEN $3 IS NULL THEN q.max_running_per_key ELSE EXCLUDED.max_running_per_key END, \
          max_waiting = CASE WHEN $4 IS NULL THEN q.max_waiting ELSE EXCLUDED.max_waiting END, \
          max_attempts = COALESCE($5, q.max_attempts), \
          retry_delay = COALESCE($6, q.retry_delay), \
          timeout = CASE WHEN $7 IS NULL THEN q.timeout ELSE EXCLUDED.timeout END, \
          keep_done = COALESCE($8, q.keep_done), \
          keep_failed = COALESCE($9, q.keep_failed), \
          keep_done_max = CASE WHEN $10 IS NULL THEN q.keep_done_max ELSE EXCLUDED.keep_done_max END, \
          synchronous_commit = COALESCE($11, q.synchronous_commit), \
          roles = CASE WHEN $12 IS NULL THEN q.roles ELSE EXCLUDED.roles END, \
          paused = COALESCE($13, q.paused)",
    &[
        TEXT, INT4, INT4, INT4, INT4, INTERVAL, INTERVAL, INTERVAL, INTERVAL, INT8, TEXT, TEXT_ARRAY, BOOL,
    ],
);

/// Creates the queue or changes its settings. 22023 for values out of range, 22001 for a name that is too long, 42704 for a role that does not
/// exist.
pub fn set(settings: &Settings, roles: Value) -> Result<()> {
    check_length("queue name", Some(settings.name), NAME_MAX)?;
    if settings.name.is_empty() {
        return Err(out_of_range("queue name must not be empty"));
    }
    for (what, limit) in [
        ("max_running", settings.max_running),
        ("max_running_per_key", settings.max_running_per_key),
        ("max_waiting", settings.max_waiting),
    ] {
        if limit.is_some_and(|limit| limit < -1) {
            return Err(out_of_range(&format!("{what} must be at least 0, or -1 for no limit")));
        }
    }
    if settings.max_running_per_key == Some(0) {
        return Err(out_of_range(
            "max_running_per_key must be at least 1, or -1 for no limit",
        ));
    }
    if settings.max_attempts.is_some_and(|most| most < 1) {
        return Err(out_of_range("max_attempts must be at least 1"));
    }
    if settings.keep_done_max.is_some_and(|most| most < -1) {
        return Err(out_of_range("keep_done_max must be at least 0, or -1 for no limit"));
    }
    for (what, interval) in [
        ("retry_delay", settings.retry_delay),
        ("timeout", settings.timeout),
        ("keep_done", settings.keep_done),
        ("keep_failed", settings.keep_failed),
    ] {
        check_interval(what, interval)?;
    }
    if let Some(value) = settings.synchronous_commit {
        own::check_value(c"synchronous_commit", value)?;
    }
    for role in settings.roles.iter().flatten() {
        if crate::pg::value::role::number_of(role).is_none() {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("role \"{}\" does not exist", shown(role)),
            )
            .into());
        }
    }
    let limit = |value: Option<i32>| value.map_or(Value::Null, Value::Int4);
    SET.execute(&[
        Value::Text(settings.name),
        limit(settings.max_running),
        limit(settings.max_running_per_key),
        limit(settings.max_waiting),
        limit(settings.max_attempts),
        options::interval(settings.retry_delay),
        options::interval(settings.timeout),
        options::interval(settings.keep_done),
        options::interval(settings.keep_failed),
        settings.keep_done_max.map_or(Value::Null, Value::Int8),
        Value::text_or_null(settings.synchronous_commit),
        roles,
        settings.paused.map_or(Value::Null, Value::Bool),
    ])?;
    forget();
    totals::database(tables::last()?.task)?;
    pushed::queues_change()
}

static IS_USED: Plan = Plan::planned(
    c"SELECT FROM background.task WHERE queue OPERATOR(pg_catalog.=) $1 \
      UNION ALL SELECT FROM background.operation WHERE queue OPERATOR(pg_catalog.=) $1 AND finished_at IS NULL LIMIT 1",
    &[TEXT],
);

static HAS_SCHEDULES: Plan = Plan::planned(
    c"SELECT FROM background.schedule WHERE queue OPERATOR(pg_catalog.=) $1 LIMIT 1",
    &[TEXT],
);

static DROP: Plan = Plan::planned(
    c"DELETE FROM background.queue WHERE name OPERATOR(pg_catalog.=) $1",
    &[TEXT],
);

/// Drops the queue. Waits for open transactions that have enqueued there. 42704, 55006 if it has unfinished tasks or a schedule names it, 2BP01
/// for `default`.
pub fn drop(tables: &Tables, name: &[u8]) -> Result<()> {
    if name == DEFAULT {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
            "queue \"default\" cannot be dropped",
        )
        .into());
    }
    object::lock_name(tables.task, name, object::Mode::Alone)?;
    if IS_USED.first(&[Value::Text(name)], |_| Ok(()))?.is_some() {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("queue \"{}\" has unfinished tasks", shown(name)),
        )
        .into());
    }
    if HAS_SCHEDULES.first(&[Value::Text(name)], |_| Ok(()))?.is_some() {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("queue \"{}\" is used by schedules", shown(name)),
        )
        .into());
    }
    if DROP.execute(&[Value::Text(name)])? == 0 {
        return Err(missing(name));
    }
    forget();
    pushed::queues_change()
}
