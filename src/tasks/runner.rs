//! Runs the tasks of one role, one after the other, in a worker that has connected as that role. Each run is a job of its own.
//!
//! 1. [`next`]: a task is claimed, and its row is read. The runner that had the task before has committed before it released the claim. So a
//!    row that is still there is that of a task to be run;
//! 2. [`before`], the task's statements, [`mark`]: one transaction. The mark deletes the row and adds one to the history. If the row is gone or
//!    was changed meanwhile, a session has canceled the task, and the transaction fails;
//! 3. [`ended`], or [`failed`], which notes the attempt in a transaction of its own: what waits for the task's end is made ready, and the claim
//!    goes.
//!
//! If the process ends before that, [`shared::leave`] leaves a lost claim behind, and the keeper notes the attempt.

use crate::pg::error::{self, Failure, Report, Result};
use crate::pg::function::rows::{BOOL, INT4, INT8, OID, TEXT, TIMESTAMPTZ, Value};
use crate::pg::guc::own;
use crate::pg::plan::Plan;
use crate::pg::process::backend::{self, Process};
use crate::pg::process::identity;
use crate::pg::query::simple_query;
use crate::pg::shmem::Guard;
use crate::pg::table::{self, Sees, Tid};
use crate::pg::value::params::Parameters;
use crate::pg::value::{json, kept};
use crate::pg::{fallible, memory, moment, sqlstate, transaction};
use crate::registry::job::{Slot, Stop};
use crate::settings;
use crate::tasks::cut;
use crate::tasks::elsewhere::{self, Elsewhere};
use crate::tasks::end::{self, Locked};
use crate::tasks::extent;
use crate::tasks::history::{self, Done, Failed};
use crate::tasks::keys;
use crate::tasks::lane::{self, Over};
use crate::tasks::outcome::Outcome;
use crate::tasks::pushed::Ready;
use crate::tasks::ready::{BATCH, Entry, Limits, Lines, Next, OPERATION, Rank, Which};
use crate::tasks::running;
use crate::tasks::shared::{self, Database, Of, Successor};
use crate::tasks::stamp::{self, Standing};
use crate::tasks::tables::{self, Tables, task};
use core::cell::{Cell, RefCell};
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;

/// The task that this process runs. Texts live as long as the job's string.
#[derive(Clone, Copy)]
pub struct Task {
    pub id: i64,
    pub attempt: i32,
    pub max_attempts: i32,
    /// When it could run.
    ready_at: i64,
    pub started_at: i64,
    /// Whether it runs as a message of its own, and not in one transaction with the note of its end.
    pub is_statement: bool,
    /// In milliseconds, 0 for no limit.
    pub timeout: i32,
    pub label: Option<&'static CStr>,
    pub sql: &'static CStr,
    /// None for that of a new session.
    search_path: Option<&'static CStr>,
    synchronous_commit: &'static CStr,
    settings: &'static [(&'static CStr, Option<&'static CStr>)],
    params: Option<&'static [(&'static CStr, Option<&'static CStr>)]>,
    /// Milliseconds until the next attempt, before it varies.
    delay: i64,
    queue: &'static CStr,
    key: Option<&'static CStr>,
    concurrency_key: Option<&'static CStr>,
    schedule: Option<&'static CStr>,
    /// Whether its concurrency key may hold others back.
    has_limited_key: bool,
    /// The database that it runs in, if that is another one.
    database: Option<&'static CStr>,
    home: i64,
    /// The version of its row.
    tid: Tid,
    /// Whether its row has this attempt already.
    is_noted: bool,
    /// Whether anything is kept of it when it is done, and whether its rows are.
    keep: bool,
    keeps_result: bool,
    /// The operation that it is a part of, 0 for none; whether it has no chunk yet, and whether it will get none now; when its chunk began.
    operation: i64,
    is_uncut: bool,
    gets_none: bool,
    chunk_at: i64,
}

/// The settings of a queue, as far as runs need them.
#[derive(Clone)]
struct Queue {
    name: u64,
    /// The version of the settings of queues.
    version: u64,
    max_attempts: i32,
    /// In milliseconds.
    delay: i64,
    timeout: i64,
    synchronous_commit: Vec<u8>,
    limits: Limits,
    /// Whether anything is kept of what is done.
    keeps_done: bool,
}

thread_local! {
    static CURRENT: Cell<Option<Task>> = const { Cell::new(None) };
    static QUEUES: RefCell<Vec<Queue>> = const { RefCell::new(Vec::new()) };
}

fn set_current(task: Option<Task>) {
    CURRENT.set(task);
    running::set_current(task.map(|task| (task.id, task.attempt)));
}

fn take_current() -> Option<Task> {
    let task = CURRENT.get();
    set_current(None);
    task
}

/// The most queues that a process knows the settings of.
const QUEUES_KNOWN: usize = 64;

/// Reads a line on behind `$3` and `$4`, the last task that is known: first those of the same priority, then the others.
static READ_ON: Plan = Plan::planned(
    c"SELECT id, priority, concurrency_key, operation_id IS NOT NULL FROM background.task \
      WHERE queue OPERATOR(pg_catalog.=) $1 AND owner OPERATOR(background.=) background.role_of($2) AND phase OPERATOR(pg_catalog.=) 'w' \
          AND priority OPERATOR(pg_catalog.=) $3 AND id OPERATOR(pg_catalog.>) $4 \
      ORDER BY id LIMIT $5",
    &[TEXT, OID, INT4, INT8, INT8],
);

static READ_LOWER: Plan = Plan::planned(
    c"SELECT id, priority, concurrency_key, operation_id IS NOT NULL FROM background.task \
      WHERE queue OPERATOR(pg_catalog.=) $1 AND owner OPERATOR(background.=) background.role_of($2) AND phase OPERATOR(pg_catalog.=) 'w' \
          AND ($5 OR priority OPERATOR(pg_catalog.<) $3) \
      ORDER BY priority DESC, id LIMIT $4",
    &[TEXT, OID, INT4, INT8, BOOL],
);

static QUEUE: Plan = Plan::planned(
    c"SELECT max_attempts, \
          LEAST(pg_catalog.date_part('epoch', retry_delay) OPERATOR(pg_catalog.*) 1000, 3600000)::pg_catalog.int8, \
          pg_catalog.ceil(LEAST(pg_catalog.date_part('epoch', timeout) OPERATOR(pg_catalog.*) 1000, 2147483647))::pg_catalog.int8, \
          synchronous_commit, max_running, max_running_per_key, paused, \
          keep_done OPERATOR(pg_catalog.>) '0' AND (keep_done_max IS NULL OR keep_done_max OPERATOR(pg_catalog.<>) 0) \
      FROM background.queue WHERE name OPERATOR(pg_catalog.=) $1",
    &[TEXT],
);

/// An enqueue under the same key that found the task looks for this before it trusts what it found.
static LOCK: Plan = Plan::planned(
    c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
    &[INT8],
);

/// An attempt of which it will not be known how far it came. Until it is noted how it ended, the task has an attempt and no error.
static BEGINS: Plan = Plan::planned(
    c"UPDATE background.task SET attempt = $2, started_at = $3, sqlstate = NULL, error_message = NULL WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8, INT4, TIMESTAMPTZ],
);

/// The attempt has not begun after all: the row says again how the last one has ended.
static BEGINS_NOT: Plan = Plan::planned(
    c"WITH last AS (SELECT started_at, sqlstate, message FROM background.run_failed \
          WHERE task_id OPERATOR(pg_catalog.=) $1 AND attempt OPERATOR(pg_catalog.=) $3 \
          ORDER BY finished_at DESC LIMIT 1) \
      UPDATE background.task SET attempt = $3, started_at = (SELECT started_at FROM last), \
          sqlstate = CASE WHEN $3 OPERATOR(pg_catalog.>) 0 THEN COALESCE((SELECT sqlstate FROM last), '08006') END, \
          error_message = (SELECT message FROM last) \
      WHERE id OPERATOR(pg_catalog.=) $1 AND attempt OPERATOR(pg_catalog.=) $2",
    &[INT8, INT4, INT4],
);

/// How long a runner waits for the lock on a row.
const PATIENCE: &CStr = c"100ms";

/// How long the end of an attempt waits for the row of an operation; after that the keeper notes the attempt.
const OF_OPERATION: &CStr = c"2s";

/// How soon a task is looked at again that another transaction holds, in microseconds.
const LATER: i64 = 500_000;

/// This process becomes a runner, with the job that it has. False if as many run as may, or nothing runs in this database.
pub fn arrive(slot: u32, cookie: u64) -> Result<bool> {
    set_current(None);
    if transaction::in_recovery() {
        return Ok(false);
    }
    moment::may_fail("arriving")?;
    shared::arrive(identity::acting().2, slot, cookie, settings::max_task_workers())
}

/// Claims the next task that this process's role may run, for the job with the cookie `cookie`. None if there is none, or if the process is to make
/// room for others. Outside of a transaction.
pub fn next(cookie: u64) -> Result<Option<Task>> {
    set_current(None);
    loop {
        let relation = tables::known();
        match shared::next(relation, cookie, settings::max_task_workers()) {
            Next::Nothing if relation == 0 => {
                if transaction::own(tables::tables).is_err() {
                    // The extension is gone.
                    return Ok(None);
                }
            }
            Next::Nothing => return Ok(None),
            Next::Limits(which) => transaction::own(|| look_at_queue(which))?,
            Next::Read(which, after) => {
                let read = transaction::own(|| read(which, after));
                let Some(mut lines) = lines() else { return Ok(None) };
                match read {
                    Ok((entries, is_end)) => lines.read(which, Process::me(), &entries, is_end),
                    Err(failure) => {
                        lines.reader_leaves(Process::me());
                        return Err(failure);
                    }
                }
            }
            Next::Task(which, _) => match transaction::own(|| load(which)) {
                Ok(Loaded::Task(task)) => {
                    set_current(Some(task));
                    moment::passes("taken");
                    return Ok(Some(task));
                }
                Ok(Loaded::No) => shared::put_back(None, &[]),
                Ok(Loaded::Behind(before)) => {
                    let successors = fallible::collected(before.iter().map(successor))?;
                    shared::put_back(None, &successors);
                }
                Err(failure) => {
                    if shared::attempt_ends(false) {
                        shared::leave();
                    }
                    shared::put_back(None, &[]);
                    shared::mine()?.ask_for_sweep_at(backend::now() + LATER);
                    let edata = error::into_data(failure);
                    if error::sqlstate(edata) != sqlstate::pack(b"55P03") {
                        return Err(Failure::Caught(edata));
                    }
                }
            },
        }
    }
}

/// The job of the task that [`next`] has returned cannot begin: it goes back into its line.
pub fn not_now() {
    if let Some(task) = take_current() {
        if task.is_noted
            && let Err(failure) = transaction::own(|| take_back(&task))
        {
            error::log_caught(error::into_data(failure));
            return shared::leave();
        }
        if shared::attempt_ends(false) {
            return shared::leave();
        }
        shared::put_back(Some(task.queue.to_bytes()), &[]);
    }
}

fn take_back(task: &Task) -> Result<()> {
    BEGINS_NOT
        .execute(&[
            Value::Int8(task.id),
            Value::Int4(task.attempt),
            Value::Int4(task.attempt - 1),
        ])
        .map(|_| ())
}

/// The lines of this process's database, under their lock.
fn lines() -> Option<Guard<'static, Lines>> {
    shared::known().and_then(Database::lines)
}

fn read(which: Which, after: Rank) -> Result<(Vec<Entry>, bool)> {
    let Some(name) = lines().and_then(|lines| lines.name(which)) else {
        return Ok((Vec::new(), false));
    };
    let (queue, role) = (Value::Text(name.bytes()), Value::Oid(which.role));
    let entry = |row: &crate::pg::plan::Row| {
        Ok(Entry {
            id: row.int8(0)?.unwrap_or(0),
            priority: row.int4(1)?.unwrap_or(0),
            key: shared::stands_for_key(row.text(2)?.as_deref(), row.bool(3)? == Some(true)),
        })
    };
    let mut entries = match after.task() {
        Some((priority, id)) => {
            let at_most = Value::Int8(BATCH as i64);
            READ_ON.rows(&[queue, role, Value::Int4(priority), Value::Int8(id), at_most], entry)?
        }
        None => Vec::new(),
    };
    if entries.len() < BATCH {
        let at_most = Value::Int8((BATCH - entries.len()) as i64);
        let priority = after.task().map_or(0, |(priority, _)| priority);
        let is_first = Value::Bool(after.task().is_none());
        let lower = READ_LOWER.rows(&[queue, role, Value::Int4(priority), at_most, is_first], entry)?;
        fallible::reserve(&mut entries, lower.len())?;
        entries.extend(lower);
    }
    let is_end = entries.len() < BATCH;
    moment::may_fail("read")?;
    Ok((entries, is_end))
}

/// Reads the settings of the line's queue for the line.
fn look_at_queue(which: Which) -> Result<()> {
    let Some((name, version)) = lines().and_then(|lines| Some((lines.name(which)?, lines.version()))) else {
        return Ok(());
    };
    let queue = queue(which.queue, name.bytes(), version)?;
    moment::may_fail("limits")?;
    if let Some(mut lines) = lines() {
        lines.set_limits(which.queue, queue.limits, version);
    }
    Ok(())
}

/// The settings of a queue as of `version` or later.
fn queue(hash: u64, name: &[u8], version: u64) -> Result<Queue> {
    let known = QUEUES.with_borrow(|queues| {
        let known = queues
            .iter()
            .find(|queue| queue.name == hash && queue.version == version);
        known.cloned()
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let found = QUEUE.first(&[Value::Text(name)], |row| {
        Ok(Queue {
            name: hash,
            version,
            max_attempts: row.int4(0)?.unwrap_or(5),
            delay: row.int8(1)?.unwrap_or(5000),
            timeout: row.int8(2)?.unwrap_or(0),
            synchronous_commit: row.text(3)?.unwrap_or_default(),
            limits: Limits {
                running: row.int4(4)?.unwrap_or(-1),
                per_key: row.int4(5)?.unwrap_or(-1),
                is_paused: row.bool(6)?.unwrap_or(false),
            },
            keeps_done: row.bool(7)?.unwrap_or(true),
        })
    })?;
    let queue = match found {
        Some(queue) => queue,
        None => Queue {
            name: hash,
            version,
            max_attempts: 5,
            delay: 5000,
            timeout: 0,
            synchronous_commit: fallible::copied(b"off")?,
            limits: Limits::NONE,
            keeps_done: true,
        },
    };
    QUEUES.with_borrow_mut(|queues| {
        queues.retain(|other| other.name != hash);
        if queues.len() == QUEUES_KNOWN {
            queues.clear();
        }
        fallible::push(queues, queue.clone())
    })?;
    Ok(queue)
}

/// What a look at the row of a claimed task needs to know.
struct Found {
    attempt: i32,
    /// Whether the last attempt has begun and how it ended is not noted.
    is_cut_short: bool,
    max_attempts: Option<i32>,
    is_statement: bool,
    enqueued_at: i64,
    ready_at: i64,
    delay: Option<i64>,
    timeout: Option<i64>,
    label: Option<&'static CStr>,
    sql: &'static CStr,
    search_path: Option<&'static CStr>,
    queue: &'static CStr,
    key: Option<(&'static CStr, i32)>,
    concurrency_key: Option<&'static CStr>,
    schedule: Option<&'static CStr>,
    has_params: bool,
    has_settings: bool,
    database: Option<&'static CStr>,
    tid: Tid,
    keeps_result: bool,
    operation: i64,
}

#[allow(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
enum Look {
    Found(Found),
    /// Another transaction has changed the row and has not ended.
    Held,
}

/// A claimed task.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
enum Loaded {
    Task(Task),
    /// It is gone or cannot run now.
    No,
    /// These of its key come before it.
    Behind(Vec<Ready>),
}

/// The claimed task, as its row is now.
fn load(which: Which) -> Result<Loaded> {
    moment::may_fail("claimed")?;
    let tables = tables::tables_at_begin()?;
    let Some(run) = shared::held().filter(|run| run.relation == tables.task) else {
        return Ok(Loaded::No);
    };
    let Some(home) = home(&tables)? else {
        return Ok(Loaded::No);
    };
    let id = run.task;
    let find = || tables.find_task(id, Sees::Uncommitted, |row| look(row, which.role, home, run.started_at));
    let mut found = find()?;
    if let Some(Look::Found(Found {
        key: Some((key, turn)), ..
    })) = &found
    {
        if *turn > 0 && keys::is_preceded(&tables, key.to_bytes(), which.role, home, *turn)? {
            return Ok(Loaded::No);
        }
        // Those who come later wait behind this, or sessions that find the task one after the other would keep it from running.
        own::set(c"lock_timeout", PATIENCE, true)?;
        if LOCK.first(&[Value::Int8(id)], |_| Ok(()))?.is_none() {
            return Ok(Loaded::No);
        }
        // The session that this has waited for may have replaced it.
        found = find()?;
    }
    let found = match found {
        None => return Ok(Loaded::No),
        Some(Look::Held) => {
            shared::mine()?.ask_for_sweep_at(backend::now() + LATER);
            return Ok(Loaded::No);
        }
        Some(Look::Found(found)) => found,
    };
    if shared::stands_for(found.queue.to_bytes()) != which.queue {
        // It was replaced, and is in another line.
        return Ok(Loaded::No);
    }
    let concurrency_key = found.concurrency_key.map(CStr::to_bytes);
    if shared::stands_for_key(concurrency_key, found.operation != 0) != run.key {
        // It was replaced, and the claim counts for the key that it had.
        shared::mine()?.ask_for_sweep();
        return Ok(Loaded::No);
    }
    let version = lines().map_or(0, |lines| lines.version());
    let queue = queue(which.queue, found.queue.to_bytes(), version)?;
    let most = if found.is_statement { 1 } else { queue.max_attempts };
    let mut task = Task {
        id,
        attempt: found.attempt + 1,
        max_attempts: found.max_attempts.unwrap_or(most),
        ready_at: found.ready_at,
        started_at: run.started_at,
        is_statement: found.is_statement,
        timeout: found.timeout.unwrap_or(queue.timeout).clamp(0, i32::MAX.into()) as i32,
        label: found.label,
        sql: found.sql,
        search_path: found.search_path,
        synchronous_commit: memory::copy_c_str(&queue.synchronous_commit),
        settings: if found.has_settings { pairs(&SETTINGS, id)? } else { &[] },
        params: if found.has_params {
            Some(pairs(&PARAMS, id)?)
        } else {
            None
        },
        delay: found.delay.unwrap_or(queue.delay),
        queue: found.queue,
        key: found.key.map(|(key, _)| key),
        concurrency_key: found.concurrency_key,
        schedule: found.schedule,
        has_limited_key: run.key != 0 && run.key != OPERATION && queue.limits.per_key >= 0,
        database: found.database,
        home,
        tid: found.tid,
        is_noted: false,
        keep: queue.keeps_done,
        keeps_result: found.keeps_result && queue.keeps_done,
        operation: found.operation,
        is_uncut: found.operation != 0 && !found.has_params,
        gets_none: false,
        chunk_at: run.started_at,
    };
    if task.has_limited_key {
        let before = those_before(&task, queue.limits.per_key)?;
        if !before.is_empty() {
            return Ok(Loaded::Behind(before));
        }
    }
    if found.is_cut_short {
        // The server stopped in the middle of the last attempt: the keeper notes that before there is another one.
        shared::mine()?.ask_for_sweep_at(backend::now() + LATER);
        return Ok(Loaded::No);
    }
    if task.is_statement || found.enqueued_at < shared::crashed_at() {
        // Whatever happens from here on, there was this attempt. A task that was there when the server crashed may be why it did.
        if own::value_of(c"synchronous_commit")? == b"off" {
            own::set(c"synchronous_commit", c"local", true)?;
        }
        let begins = BEGINS.execute(&[
            Value::Int8(id),
            Value::Int4(task.attempt),
            Value::Timestamp(run.started_at),
        ])?;
        if begins == 0 {
            // Another session has ended it meanwhile.
            return Ok(Loaded::No);
        }
        let Some(tid) = history::version(&tables, id)? else {
            return Ok(Loaded::No);
        };
        (task.tid, task.is_noted) = (tid, true);
    }
    moment::may_fail("loaded")?;
    shared::attempt_is(task.attempt);
    moment::may_fail("begun")?;
    Ok(Loaded::Task(task))
}

/// The number of this database's own tasks, None if nothing was ever enqueued here.
fn home(tables: &Tables) -> Result<Option<i64>> {
    thread_local! {
        static HOME: Cell<Option<(u32, i64)>> = const { Cell::new(None) };
    }
    if let Some((relation, home)) = HOME.get()
        && relation == tables.task
    {
        return Ok(Some(home));
    }
    match stamp::standing(tables)? {
        Standing::Known(home) | Standing::Copy(home) => {
            HOME.set(Some((tables.task, home)));
            Ok(Some(home))
        }
        Standing::New => Ok(None),
    }
}

/// None if the task does not wait, is another role's, has expired, or was enqueued in another database.
fn look(row: &table::Row, role: u32, home: i64, now: i64) -> Result<Option<Look>> {
    let owner = row.role(task::OWNER).map(|owner| owner.number()).transpose()?.flatten();
    let has_expired = row.int8(task::EXPIRES_AT).is_some_and(|at| at <= now);
    if row.uncommitted != 0
        || row.char(task::PHASE) != Some(b'w')
        || owner != Some(role)
        || row.int8(task::HOME) != Some(home)
        || has_expired
    {
        return Ok(None);
    }
    if row.deleted_by != 0 {
        return Ok(Some(Look::Held));
    }
    let text = |column: usize| -> Result<Option<&'static CStr>> {
        Ok(row
            .text(column)?
            .map(|text| simple_query::with_message_memory(|| memory::copy_c_str(&text))))
    };
    let key = text(task::KEY)?.map(|key| (key, row.int4(task::TURN).unwrap_or(0)));
    let attempt = row.int4(task::ATTEMPT).unwrap_or(0);
    let enqueued_at = row.int8(task::ENQUEUED_AT).unwrap_or(0);
    Ok(Some(Look::Found(Found {
        attempt,
        is_cut_short: attempt > 0 && row.datum(task::SQLSTATE).is_none(),
        max_attempts: row.int4(task::MAX_ATTEMPTS),
        is_statement: row.char(task::MODE) == Some(b's'),
        enqueued_at,
        ready_at: enqueued_at
            .max(row.int8(task::RUN_AT).unwrap_or(i64::MIN))
            .max(row.int8(task::READY_AT).unwrap_or(i64::MIN)),
        delay: row.interval(task::RETRY_DELAY).map(|delay| delay.min(3_600_000)),
        timeout: row.interval(task::TIMEOUT),
        label: text(task::LABEL)?,
        sql: text(task::SQL)?.unwrap_or_default(),
        search_path: text(task::SEARCH_PATH)?,
        queue: text(task::QUEUE)?.unwrap_or_default(),
        key,
        concurrency_key: text(task::CONCURRENCY_KEY)?,
        schedule: text(task::SCHEDULE)?,
        has_params: row.datum(task::PARAM_TYPES).is_some(),
        has_settings: row.datum(task::SETTINGS).is_some(),
        database: text(task::DATABASE)?,
        tid: row.tid,
        keeps_result: row.bool(task::KEEP_RESULT) == Some(true),
        operation: row.int8(task::OPERATION_ID).unwrap_or(0),
    })))
}

fn pairs(plan: &Plan, id: i64) -> Result<&'static [(&'static CStr, Option<&'static CStr>)]> {
    let all = plan.rows(&[Value::Int8(id)], |row| {
        Ok((row.text(0)?.unwrap_or_default(), row.text(1)?))
    })?;
    let mut copies = Vec::new();
    fallible::reserve(&mut copies, all.len())?;
    for (name, value) in &all {
        copies.push((memory::copy_c_str(name), value.as_deref().map(memory::copy_c_str)));
    }
    Ok(memory::copy_slice(&copies))
}

static SETTINGS: Plan = Plan::fixed(
    c"SELECT s.name, s.value FROM background.task CROSS JOIN pg_catalog.jsonb_each_text(settings) AS s (name, value) \
      WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static PARAMS: Plan = Plan::fixed(
    c"SELECT p.kind, p.value FROM background.task CROSS JOIN ROWS FROM (pg_catalog.unnest(param_types), pg_catalog.unnest(param_values)) \
          WITH ORDINALITY AS p (kind, value, number) WHERE id OPERATOR(pg_catalog.=) $1 ORDER BY p.number",
    &[INT8],
);

/// The defaults of a transaction's properties, which the task's transaction has taken when it began, and the settings for the transaction itself.
const OF_TRANSACTION: [(&CStr, &CStr); 3] = [
    (c"default_transaction_isolation", c"transaction_isolation"),
    (c"default_transaction_read_only", c"transaction_read_only"),
    (c"default_transaction_deferrable", c"transaction_deferrable"),
];

/// In the task's transaction, as its role: the state that it runs in, and its parameters. The settings end with the transaction, if it is the task's.
pub fn before() -> Result<Option<Parameters>> {
    let Some(task) = CURRENT.get() else { return Ok(None) };
    moment::may_fail("before")?;
    if task.keeps_result {
        error::catching(|raw| json::begin(raw, settings::max_task_result()))?;
    }
    let is_local = !task.is_statement;
    if let Some(path) = task.search_path
        && (!is_local || own::value_of(c"search_path")? != path.to_bytes())
    {
        own::set(c"search_path", path, is_local)?;
    }
    if is_local {
        for (default, of_transaction) in OF_TRANSACTION {
            let is_it = |name: &CStr| name.to_bytes().eq_ignore_ascii_case(default.to_bytes());
            if let Some((_, value)) = task.settings.iter().find(|(name, _)| is_it(name)) {
                own::set(of_transaction, value.unwrap_or(c""), true)?;
            }
        }
    }
    for (name, value) in task.settings {
        own::set(name, value.unwrap_or(c""), is_local)?;
    }
    if task.operation != 0 {
        extent::hold(task.operation)?;
    }
    match task.params {
        Some(columns) => simple_query::with_message_memory(|| kept::read(columns)).map(Some),
        None => Ok(None),
    }
}

/// Whether the task of this process runs in another database.
pub fn is_elsewhere() -> bool {
    CURRENT.get().is_some_and(|task| task.database.is_some())
}

/// Runs the task of this process in the other database.
pub fn run_elsewhere(slot: &Slot) -> Result<()> {
    let Some((task, database)) = CURRENT.get().and_then(|task| Some((task, task.database?))) else {
        return Ok(());
    };
    let what = Elsewhere {
        sql: task.sql,
        label: task.label,
        database,
        params: task.params,
        settings: task.settings,
        rows: task.keeps_result.then(settings::max_task_result),
    };
    elsewhere::run(slot, what)
}

/// [`before`] in a transaction of its own, for a task whose statements have their own.
pub fn prepare() -> Result<Option<Parameters>> {
    transaction::own(before)
}

fn done(task: &Task, tid: Tid, rows: i64, tag: Option<u32>) -> Result<bool> {
    history::done(&Done {
        id: task.id,
        tid,
        attempt: task.attempt,
        ready_at: task.ready_at,
        started_at: task.started_at,
        rows,
        tag,
        result: if task.keeps_result { json::collected() } else { None },
        keep: task.keep,
    })
}

/// In the task's transaction, after its last statement: it is done.
pub fn mark(rows: i64, tag: Option<u32>) -> Result<()> {
    let Some(task) = CURRENT.get() else { return Ok(()) };
    moment::may_fail("effects")?;
    own::set(c"synchronous_commit", task.synchronous_commit, true)?;
    if !done(&task, task.tid, rows, tag)? {
        return Err(canceled(task.id));
    }
    if task.operation != 0 {
        lane::over(&Over {
            task: task.id,
            operation: task.operation,
            state: b"done",
            attempts: task.attempt,
            rows: Some(rows),
            ms: Some((backend::now() - task.chunk_at) as f64 / 1000.0),
            sqlstate: None,
            message: None,
        })?;
    }
    moment::may_fail("marked")
}

fn canceled(id: i64) -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
        format!("task {id} was canceled while it began"),
    )
    .into()
}

/// Whether the task of this process is a part of an operation.
pub fn is_lane() -> bool {
    CURRENT.get().is_some_and(|task| task.operation != 0)
}

/// Before the transaction of a part of an operation: it gets its chunk, unless it has one. False if there is none for it now.
pub fn cut() -> Result<bool> {
    let Some(mut task) = CURRENT.get() else {
        return Ok(false);
    };
    if task.is_uncut {
        let path = task.search_path.map(|path| (c"search_path", Some(path)));
        let settings = fallible::collected(path.into_iter().chain(task.settings.iter().copied()))?;
        task.gets_none = cut::next(task.operation, task.id, &settings)? == cut::Next::Nothing;
        if task.gets_none {
            set_current(Some(task));
            return Ok(false);
        }
        moment::may_fail("cut")?;
        let tables = tables::last()?;
        let found = transaction::own(|| Ok((history::version(&tables, task.id)?, pairs(&PARAMS, task.id)?)))?;
        let (Some(tid), params) = found else {
            return Err(canceled(task.id));
        };
        (task.tid, task.params, task.is_uncut) = (tid, Some(params), false);
    }
    task.chunk_at = backend::now();
    set_current(Some(task));
    Ok(true)
}

/// Errors of a lane that would come again at its next attempt, by their classes: what is wrong with the table, its index or the role's rights.
const OF_THE_TABLE: [[u8; 2]; 3] = [*b"42", *b"0A", *b"55"];

/// The run is over: its transaction has committed, with its mark, or its statements are through, which is noted here. If that fails, the keeper notes
/// an attempt that was interrupted, and this process runs no more tasks.
pub fn ended(rows: i64, tag: Option<u32>) {
    moment::passes("run committed");
    let Some(task) = take_current() else { return };
    if task.gets_none {
        return if shared::attempt_ends(false) {
            shared::leave()
        } else {
            release(&task)
        };
    }
    let _kept = Kept(task.keeps_result);
    if task.is_statement
        && let Err(failure) = transaction::own(|| match history::version(&tables::last()?, task.id)? {
            Some(tid) => done(&task, tid, rows, tag).and_then(|done| moment::may_fail("noted").map(|()| done)),
            None => Ok(false),
        })
    {
        error::log_caught(error::into_data(failure));
        return shared::leave();
    }
    has_ended(&task, true);
}

/// The task has ended, and that is committed: what waits for it may run.
fn has_ended(task: &Task, is_done: bool) {
    moment::passes("ended");
    let Some(database) = shared::known() else { return };
    if is_done {
        note_outcome(task);
    }
    let has_blocked = database.has_blocked();
    if has_blocked || task.key.is_some() {
        let followed = transaction::own(|| {
            // What a crash loses of this is done again.
            own::set(c"synchronous_commit", c"off", true)?;
            if let Some(key) = task.key {
                keys::next_is_ready(key.to_bytes())?;
            }
            moment::may_fail("following")?;
            if has_blocked {
                end::follow(task.id, is_done, Locked::Skip)
            } else {
                Ok(true)
            }
        });
        match followed {
            Ok(true) => (),
            Ok(false) => database.ask_for_keeper_at(backend::now() + LATER),
            Err(failure) => {
                error::log_caught(error::into_data(failure));
                database.ask_for_sweep();
            }
        }
    }
    release(task);
}

/// The task's schedule keeps that it is done. A crash before that loses no more than how long it took.
fn note_outcome(task: &Task) {
    let Some(schedule) = task.schedule else { return };
    let outcome = Outcome {
        task: task.id,
        schedule: schedule.to_bytes(),
        state: b"done",
        started_at: task.started_at,
    };
    let noted = transaction::own(|| {
        own::set(c"synchronous_commit", c"off", true)?;
        outcome.note()
    });
    if let Err(failure) = noted {
        error::log_caught(error::into_data(failure));
    }
}

/// Lets go of the task. The next task of its concurrency key, if that has held one back, gets into its line in the same step.
fn release(task: &Task) {
    let mut looks = task.has_limited_key;
    loop {
        let found = if looks {
            shared::look_for_held_back();
            transaction::own(|| next_of_key(task, 1))
        } else {
            Ok(Vec::new())
        };
        let ready = match found {
            Ok(ready) => ready.into_iter().next(),
            Err(failure) => {
                error::log_caught(error::into_data(failure));
                if let Some(database) = shared::known() {
                    database.ask_for_sweep();
                }
                None
            }
        };
        let successor = ready.as_ref().map(successor);
        moment::passes("releasing");
        if shared::release(task.queue.to_bytes(), successor.as_ref()) {
            return moment::passes("released");
        }
        looks = true;
    }
}

/// The first tasks of the concurrency key of this process's task that do not run, at most `count`.
fn next_of_key(task: &Task, count: usize) -> Result<Vec<Ready>> {
    let Some(key) = task.concurrency_key else {
        return Ok(Vec::new());
    };
    moment::may_fail("next of key")?;
    let relation = tables::known();
    let claimed = shared::runs(relation, Of::All)?;
    let is_claimed = |id: i64| claimed.iter().any(|run| run.task == id);
    let at_most = Value::Int8((claimed.len() + count) as i64);
    let mut ready = keys::NEXT_OF_CONCURRENCY_KEY.rows(
        &[
            Value::Text(task.queue.to_bytes()),
            Value::Text(key.to_bytes()),
            at_most,
            Value::Int8(task.home),
        ],
        Ready::read,
    )?;
    ready.retain(|ready| ready.has_role() && (ready.task().id == task.id || !is_claimed(ready.task().id)));
    ready.truncate(count);
    Ok(ready)
}

/// The tasks of the key that wait and come before this one, if it may not run yet. Tasks of another role are in another line. The process
/// that ends the last of them, in whichever way, finds this one.
fn those_before(task: &Task, per_key: i32) -> Result<Vec<Ready>> {
    let Some(run) = shared::held() else {
        return Ok(Vec::new());
    };
    let running = shared::runs(run.relation, Of::Held)?;
    let of_key = running
        .iter()
        .filter(|other| (other.queue, other.key) == (run.queue, run.key));
    // This process's own claim is one of them.
    let free = (per_key as usize + 1).saturating_sub(of_key.count());
    let first = next_of_key(task, free.max(1))?;
    let is_first = first.iter().any(|ready| ready.task().id == task.id);
    Ok(if is_first { Vec::new() } else { first })
}

fn successor(ready: &Ready) -> Successor<'_> {
    let task = ready.task();
    Successor {
        which: task.which(),
        queue: task.queue,
        entry: task.entry(),
    }
}

/// Whether the task of this process is tried again at once after this error, which counts as no attempt: nothing was wrong with it.
pub fn tries_at_once(sqlstate: &[u8; 5]) -> bool {
    matches!(sqlstate, b"40001" | b"40P01") && CURRENT.get().is_some_and(|task| !task.is_statement)
}

/// Whether this process runs tasks.
pub fn is_runner() -> bool {
    shared::is_runner()
}

/// The rows that are kept go at the end of a run.
struct Kept(bool);

impl Drop for Kept {
    fn drop(&mut self) {
        if self.0 {
            error::if_possible(|| error::catching(json::end));
        }
    }
}

/// Whether the rows of the last statement are kept with the run.
pub fn keeps_result() -> bool {
    CURRENT.get().is_some_and(|task| task.keeps_result)
}

/// The run has failed, and its transaction is rolled back: notes the attempt. If that fails, the keeper does it, and this process runs no more tasks.
pub fn failed(error: &crate::registry::job::Error, stop: Stop, is_canceled: bool) {
    let Some(task) = take_current() else { return };
    let _kept = Kept(task.keeps_result);
    let is_last = task.attempt >= task.max_attempts;
    // Whatever attempts are left, a database that is gone fails its tasks.
    let is_last = is_last || task.database.is_some() && &error.sqlstate == b"3D000";
    let [one, two, ..] = error.sqlstate;
    let is_of_the_table = OF_THE_TABLE.contains(&[one, two]) && &error.sqlstate != b"55P03";
    let is_last = is_last || task.is_uncut && is_of_the_table;
    let (state, end): (&[u8], Option<&[u8]>) = match stop {
        Stop::Cancel if is_canceled => (b"canceled", Some(b"canceled")),
        Stop::RunTimeout | Stop::WorkerTimeout => (b"timed_out", is_last.then_some(b"failed")),
        _ if task.database.is_some() && elsewhere::was_lost() => (b"interrupted", is_last.then_some(b"failed")),
        _ => (b"failed", is_last.then_some(b"failed")),
    };
    let run_at = history::next_attempt_at(task.delay, task.attempt);
    let noted = transaction::own(|| {
        moment::may_fail("failing")?;
        if task.operation != 0 {
            own::set(c"lock_timeout", OF_OPERATION, true)?;
        }
        let fields = error.fields()?;
        let fields = crate::pg::wire::Fields(&fields);
        history::note(&Failed {
            id: task.id,
            attempt: task.attempt,
            pid: backend::my_pid(),
            ready_at: task.ready_at,
            started_at: task.started_at,
            state,
            end,
            run_at,
            sqlstate: &error.sqlstate,
            message: fields.get(b'M').unwrap_or_default(),
            detail: fields.get(b'D'),
            hint: fields.get(b'H'),
            context: fields.get(b'W'),
        })
    });
    if let Err(failure) = noted {
        error::log_caught(error::into_data(failure));
        shared::has_failed(error.sqlstate);
        return shared::leave();
    }
    // If this process ends from here on, there is nothing to note.
    moment::passes("noted that it failed");
    let is_canceled = shared::attempt_ends(end.is_some());
    moment::passes("failed");
    if end.is_some() {
        has_ended(&task, false);
    } else if is_canceled {
        shared::leave();
    } else {
        if let Some(database) = shared::known() {
            database.ask_for_keeper_at(run_at);
        }
        release(&task);
    }
}

/// The process ends, perhaps in the middle of a run. Its transaction has ended by now.
pub fn abandon() {
    set_current(None);
    moment::passes("leaving");
    shared::leave();
}
