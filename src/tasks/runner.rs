//! One run of one task, in a worker that has connected as the task's role.
//!
//! 1. [`take`]: a task is claimed, then its row is looked at again. Whoever had the task before has committed before it let go, so a row that is
//!    still there is that of a task to be run;
//! 2. [`before`], the task's statements, [`mark`]: one transaction. The mark deletes the row and adds one to the history. Where the row is gone
//!    or changes meanwhile, somebody has canceled the task, and the transaction fails;
//! 3. [`ended`], or [`failed`], which notes the attempt in a transaction of its own. Then the claim goes.
//!
//! Where the process ends before, [`abandon`] leaves a lost claim behind, and the keeper notes the attempt.

use crate::pg::error::{self, Report, Result};
use crate::pg::function::rows::{INT4, INT8, OID, TIMESTAMPTZ, Value};
use crate::pg::guc::own;
use crate::pg::plan::Plan;
use crate::pg::process::backend::{self, Process};
use crate::pg::process::identity;
use crate::pg::query::simple_query;
use crate::pg::table::Tid;
use crate::pg::value::desc::{INT8_ARRAY, TEXT_ARRAY};
use crate::pg::value::params::Parameters;
use crate::pg::value::{json, kept};
use crate::pg::{fallible, memory, sqlstate, transaction};
use crate::registry::job::{Slot, Stop};
use crate::settings;
use crate::tasks::history::{self, Done, Failed};
use crate::tasks::shared::{self, Claimed, Limits, Release, Run};
use crate::tasks::stamp::{self, Standing};
use crate::tasks::tables::{self, Tables};
use core::cell::Cell;
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;

/// The task that this process runs. Texts live as long as the job's string.
#[derive(Clone, Copy)]
pub struct Task {
    pub id: i64,
    pub attempt: i32,
    pub max_attempts: i32,
    pub started_at: i64,
    /// Whether it runs as a message of its own, and not in one transaction with the note of its end.
    pub is_statement: bool,
    /// In milliseconds, 0 for no limit.
    pub timeout: i32,
    pub sql: &'static CStr,
    search_path: &'static CStr,
    synchronous_commit: &'static CStr,
    settings: &'static [(&'static CStr, Option<&'static CStr>)],
    params: Option<&'static [(&'static CStr, Option<&'static CStr>)]>,
    /// Milliseconds until the next attempt, before it varies.
    delay: i64,
    /// Whether others may be able to run when this one has ended.
    holds_back: bool,
    /// The version of its row.
    tid: Tid,
    /// Whether anything is kept of it when it is done, and whether its rows are.
    keep: bool,
    pub keeps_result: bool,
}

thread_local! {
    static CURRENT: Cell<Option<Task>> = const { Cell::new(None) };
}

/// Whether the rows of the last statement are kept with the run.
pub fn keeps_result() -> bool {
    CURRENT.get().is_some_and(|task| task.keeps_result)
}

/// The task that this process runs, and the attempt that it makes.
pub fn current() -> Option<(i64, i32)> {
    CURRENT.get().map(|task| (task.id, task.attempt))
}

/// The first one that may run: `$1` role, `$2` home, `$3` tasks, `$4` queues, `$5` keys that are not to be looked at.
static NEXT: Plan = Plan::planned(
    c"SELECT t.id, t.queue, t.concurrency_key, q.max_running, q.max_running_per_key \
      FROM background.task AS t LEFT JOIN background.queue AS q ON q.name OPERATOR(pg_catalog.=) t.queue \
      WHERE t.phase OPERATOR(pg_catalog.=) 'w' AND background.role_oid(t.owner) OPERATOR(pg_catalog.=) $1 \
          AND t.home OPERATOR(pg_catalog.=) $2 AND t.database IS NULL \
          AND (t.mode OPERATOR(pg_catalog.=) 't' OR t.attempt OPERATOR(pg_catalog.<) COALESCE(t.max_attempts, 1)) \
          AND NOT COALESCE(q.paused, false) \
          AND (t.expires_at IS NULL OR t.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()) \
          AND t.id OPERATOR(pg_catalog.<>) ALL ($3) AND t.queue OPERATOR(pg_catalog.<>) ALL ($4) \
          AND (t.concurrency_key IS NULL OR t.concurrency_key OPERATOR(pg_catalog.<>) ALL ($5)) \
          AND (t.key IS NULL OR NOT EXISTS (SELECT FROM background.task AS o WHERE o.key OPERATOR(pg_catalog.=) t.key \
              AND o.owner OPERATOR(background.=) t.owner AND o.turn OPERATOR(pg_catalog.<) t.turn)) \
      ORDER BY t.priority DESC, t.id LIMIT 1",
    &[OID, INT8, INT8_ARRAY, TEXT_ARRAY, TEXT_ARRAY],
);

static LOAD: Plan = Plan::planned(
    c"SELECT t.attempt, COALESCE(t.max_attempts, CASE WHEN t.mode OPERATOR(pg_catalog.=) 's' THEN 1 ELSE COALESCE(q.max_attempts, 5) END), \
          LEAST(pg_catalog.date_part('epoch', COALESCE(t.timeout, q.timeout, '0')) OPERATOR(pg_catalog.*) 1000, 2147483647)::pg_catalog.int4, \
          t.sql, t.search_path, COALESCE(q.synchronous_commit, 'off'), t.settings IS NOT NULL, t.param_types IS NOT NULL, \
          LEAST(pg_catalog.date_part('epoch', COALESCE(t.retry_delay, q.retry_delay, '5 s')) OPERATOR(pg_catalog.*) 1000, 3600000)::pg_catalog.int8, \
          q.max_running IS NOT NULL OR q.max_running_per_key IS NOT NULL OR t.key IS NOT NULL, t.key IS NOT NULL, t.label, t.mode OPERATOR(pg_catalog.=) 's', \
          COALESCE(q.keep_done, '1 day') OPERATOR(pg_catalog.>) '0' AND q.keep_done_max IS DISTINCT FROM 0, t.keep_result, t.ctid, t.xmin \
      FROM background.task AS t LEFT JOIN background.queue AS q ON q.name OPERATOR(pg_catalog.=) t.queue \
      WHERE t.id OPERATOR(pg_catalog.=) $1 AND t.phase OPERATOR(pg_catalog.=) 'w'",
    &[INT8],
);

/// An enqueue under the same key that found the task looks for this before it trusts what it found.
static LOCK: Plan = Plan::planned(
    c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED",
    &[INT8],
);

/// An attempt of which it will not be known how far it came.
static BEGINS: Plan = Plan::planned(
    c"UPDATE background.task SET attempt = $2, started_at = $3 WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8, INT4, TIMESTAMPTZ],
);

/// How soon a task is looked at again whose row somebody has locked, in microseconds.
const LOCKED: i64 = 100_000;

/// The same where as many tasks of the cluster run as may, although the clock has seen to it that there are fewer; and after an error.
const NO_ROOM: i64 = 1_000_000;

/// Claims the first task that this process's role may run. None where there is none. Outside of a transaction.
pub fn take(slot: &'static Slot, cookie: u64) -> Result<Option<Task>> {
    CURRENT.set(None);
    if transaction::in_recovery() {
        return Ok(None);
    }
    let database = shared::mine()?;
    let role = identity::acting().2;
    let sweeps = database.sweeps();
    let taken = transaction::own(|| {
        let tables = tables::tables()?;
        let home = match stamp::standing(&tables)? {
            Standing::Known(home) | Standing::Copy(home) => home,
            Standing::New => return Ok(None),
        };
        take_next(&tables, role, home, slot, cookie)
    });
    match taken {
        Ok(Some(task)) => {
            CURRENT.set(Some(task));
            Ok(Some(task))
        }
        Ok(None) => {
            database.none_ready(role, sweeps);
            Ok(None)
        }
        Err(failure) => {
            shared::release(Release::Unused);
            database.none_ready(role, sweeps);
            database.ask_for_sweep_at(backend::now() + NO_ROOM);
            Err(failure)
        }
    }
}

fn take_next(tables: &Tables, role: u32, home: i64, slot: &'static Slot, cookie: u64) -> Result<Option<Task>> {
    let (mut ids, mut queues, mut keys) = (Vec::new(), Vec::<Vec<u8>>::new(), Vec::<Vec<u8>>::new());
    for run in shared::runs(tables.task, false)?
        .iter()
        .chain(&shared::runs(tables.task, true)?)
    {
        fallible::push(&mut ids, run.task)?;
    }
    loop {
        let names = |names: &[Vec<u8>]| -> Result<Value<'static>> {
            let names = fallible::collected(names.iter().map(Vec::as_slice))?;
            Ok(Value::Other(TEXT_ARRAY, kept::text_array(&names)?))
        };
        let next = NEXT.first(
            &[
                Value::Oid(role),
                Value::Int8(home),
                Value::Other(INT8_ARRAY, kept::int8_array(&ids)?),
                names(&queues)?,
                names(&keys)?,
            ],
            |row| Ok((row.int8(0)?, row.text(1)?, row.text(2)?, row.int4(3)?, row.int4(4)?)),
        )?;
        let Some((Some(id), Some(queue), key, max_running, max_per_key)) = next else {
            return Ok(None);
        };
        let run = Run {
            database: backend::my_database().to_u32(),
            relation: tables.task,
            task: id,
            owner: role,
            attempt: 0,
            started_at: backend::now(),
            process: Process::me(),
            slot: slot.number(),
            cookie,
            queue: shared::stands_for(&queue),
            key: key.as_deref().map_or(0, shared::stands_for),
        };
        let limits = Limits {
            cluster: settings::max_task_workers(),
            queue: max_running,
            key: max_per_key,
        };
        match shared::claim(run, limits)? {
            Claimed::Held => {
                if let Some(task) = load(id, run.started_at, slot)? {
                    return Ok(Some(task));
                }
                shared::release(Release::Unused);
                fallible::push(&mut ids, id)?;
            }
            Claimed::Elsewhere => fallible::push(&mut ids, id)?,
            Claimed::QueueIsFull => fallible::push(&mut queues, queue)?,
            Claimed::KeyIsFull => match key {
                Some(key) => fallible::push(&mut keys, key)?,
                None => fallible::push(&mut ids, id)?,
            },
            Claimed::NoRoom => {
                shared::mine()?.ask_for_sweep_at(backend::now() + NO_ROOM);
                return Ok(None);
            }
        }
    }
}

/// The claimed task, as its row is now; None where it is gone, or somebody is about to change it.
fn load(id: i64, started_at: i64, slot: &'static Slot) -> Result<Option<Task>> {
    let id_value = [Value::Int8(id)];
    let loaded = LOAD.first(&id_value, |row| {
        Ok((
            (row.int4(0)?, row.int4(1)?, row.int4(2)?, row.int8(8)?),
            (row.text(3)?, row.text(4)?, row.text(5)?, row.text(11)?),
            (row.bool(6)?, row.bool(7)?, row.bool(9)?, row.bool(10)?, row.bool(12)?),
            (row.bool(13)?, row.bool(14)?, row.tid(15, 16)?),
        ))
    })?;
    let Some((numbers, texts, flags, (keep, keeps_result, Some(tid)))) = loaded else {
        return Ok(None);
    };
    let text = |text: Option<Vec<u8>>| memory::copy_c_str(&text.unwrap_or_default());
    let pairs = |plan: &Plan| -> Result<&'static [(&'static CStr, Option<&'static CStr>)]> {
        let all = plan.rows(&id_value, |row| Ok((row.text(0)?.unwrap_or_default(), row.text(1)?)))?;
        let mut copies = Vec::new();
        fallible::reserve(&mut copies, all.len())?;
        for (name, value) in &all {
            copies.push((memory::copy_c_str(name), value.as_deref().map(memory::copy_c_str)));
        }
        Ok(memory::copy_slice(&copies))
    };
    let (has_settings, has_params, holds_back, has_key) = (
        flags.0 == Some(true),
        flags.1 == Some(true),
        flags.2 == Some(true),
        flags.3 == Some(true),
    );
    let label = texts.3;
    let task = Task {
        id,
        attempt: numbers.0.unwrap_or(0) + 1,
        is_statement: flags.4 == Some(true),
        max_attempts: numbers.1.unwrap_or(1),
        started_at,
        timeout: numbers.2.unwrap_or(0),
        delay: numbers.3.unwrap_or(0),
        sql: text(texts.0),
        search_path: text(texts.1),
        synchronous_commit: text(texts.2),
        settings: if has_settings { pairs(&SETTINGS)? } else { &[] },
        params: if has_params { Some(pairs(&PARAMS)?) } else { None },
        holds_back,
        tid,
        keep: keep == Some(true),
        keeps_result: keeps_result == Some(true),
    };
    if has_key && LOCK.first(&[Value::Int8(id)], |_| Ok(()))?.is_none() {
        shared::mine()?.ask_for_sweep_at(backend::now() + LOCKED);
        return Ok(None);
    }
    if task.is_statement {
        // Whatever happens from here on, there was this attempt.
        if own::value_of(c"synchronous_commit")? == b"off" {
            own::set(c"synchronous_commit", c"local", true)?;
        }
        let begins = BEGINS.execute(&[Value::Int8(id), Value::Int4(task.attempt), Value::Timestamp(started_at)])?;
        if begins == 0 {
            // Somebody has ended it meanwhile.
            return Ok(None);
        }
    }
    shared::attempt_is(task.attempt, started_at);
    let mut job = slot.lock();
    job.set_label(label.as_deref());
    job.set_preview(task.sql.to_bytes());
    Ok(Some(task))
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

/// In the task's transaction, as its role: the state that it runs in, and its parameters.
pub fn before() -> Result<Option<Parameters>> {
    let Some(task) = CURRENT.get() else { return Ok(None) };
    if task.keeps_result {
        error::catching(|raw| json::begin(raw, settings::max_task_result()))?;
    }
    own::set(c"search_path", task.search_path, false)?;
    for (name, value) in task.settings {
        own::set(name, value.unwrap_or(c""), false)?;
    }
    match task.params {
        Some(columns) => simple_query::with_message_memory(|| kept::read(columns)).map(Some),
        None => Ok(None),
    }
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
    own::set(c"synchronous_commit", task.synchronous_commit, true)?;
    if !done(&task, task.tid, rows, tag)? {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            format!("task {} was canceled while it began", task.id),
        )
        .into());
    }
    Ok(())
}

/// The run is over: its transaction has committed, with its mark, or its statements are through, which is noted here. Where that fails, the keeper notes
/// an attempt that was interrupted.
pub fn ended(rows: i64, tag: Option<u32>) {
    let Some(task) = CURRENT.take() else { return };
    let _kept = Kept(task.keeps_result);
    if task.is_statement
        && let Err(failure) = transaction::own(|| match history::version(&tables::last()?, task.id)? {
            Some(tid) => done(&task, tid, rows, tag),
            None => Ok(false),
        })
    {
        error::log_caught(error::into_data(failure));
        return shared::release(Release::Lost);
    }
    shared::release(Release::Noted { looks: task.holds_back });
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

/// Whether the task of this process is tried again at once after this error, which counts as no attempt: nothing was wrong with it.
pub fn tries_at_once(code: i32) -> bool {
    let is_of_others = [b"40001", b"40P01"]
        .into_iter()
        .any(|other| sqlstate::pack(other) == code);
    is_of_others && CURRENT.get().is_some_and(|task| !task.is_statement)
}

/// The run has failed, and its transaction is rolled back: notes the attempt. Where that fails, the keeper does it.
pub fn failed(error: &crate::registry::job::Error, stop: Stop, is_canceled: bool) {
    let Some(task) = CURRENT.take() else { return };
    let _kept = Kept(task.keeps_result);
    let noted = transaction::own(|| {
        let fields = error.fields()?;
        let fields = crate::pg::wire::Fields(&fields);
        let is_last = task.attempt >= task.max_attempts;
        let (state, end): (&[u8], Option<&[u8]>) = match stop {
            Stop::Cancel if is_canceled => (b"canceled", Some(b"canceled")),
            Stop::RunTimeout | Stop::WorkerTimeout => (b"timed_out", is_last.then_some(b"failed")),
            _ => (b"failed", is_last.then_some(b"failed")),
        };
        history::note(&Failed {
            id: task.id,
            attempt: task.attempt,
            pid: backend::my_pid(),
            started_at: task.started_at,
            state,
            end,
            run_at: history::next_attempt_at(task.delay, task.attempt),
            sqlstate: &error.sqlstate,
            message: fields.get(b'M').unwrap_or_default(),
            detail: fields.get(b'D'),
            hint: fields.get(b'H'),
            context: fields.get(b'W'),
        })
    });
    match noted {
        Ok(()) => shared::release(Release::Noted { looks: true }),
        Err(failure) => {
            error::log_caught(error::into_data(failure));
            shared::release(Release::Lost);
        }
    }
}

/// The process ends, perhaps in the middle of a run. Its transaction has ended by now.
pub fn abandon() {
    CURRENT.set(None);
    if shared::holds() {
        shared::release(Release::Lost);
    }
}
