//! What is noted of the runs of tasks.
//!
//! The note of a run that is done is made in the run's own transaction, at heap level: it deletes the version of the task's row that the run
//! has loaded, and inserts a row into the table of runs that is current ([`retention`]). So it does not care whether the transaction may write
//! or which rows it sees, takes no predicate locks, and costs neither a plan nor the look-up of a row.
//!
//! All other ends are rare, and are noted by statements.

use crate::pg::error::Result;
use crate::pg::function::rows::{INT4, INT8, TEXT, TIMESTAMPTZ, Value};
use crate::pg::plan::{self, Plan};
use crate::pg::process::backend;
use crate::pg::query::simple_query;
use crate::pg::table::{self, Filled, Sees, Tid};
use crate::pg::value::desc::JSONB;
use crate::pg::value::json::Json;
use crate::tasks::end;
use crate::tasks::lane::{self, Over};
use crate::tasks::outcome::Outcome;
use crate::tasks::retention;
use crate::tasks::tables::{self, Tables, run, task};
use crate::tasks::totals;

/// What is noted of a run that is done.
#[derive(Clone, Copy)]
pub struct Done {
    pub id: i64,
    /// The version of the task's row that the run has loaded.
    pub tid: Tid,
    pub attempt: i32,
    /// When the task could run.
    pub ready_at: i64,
    pub started_at: i64,
    pub rows: i64,
    pub tag: Option<u32>,
    /// The rows that are kept.
    pub result: Option<Json>,
    /// Whether the queue keeps anything of what is done.
    pub keep: bool,
}

/// Notes that the task is done, in the open transaction. False if another session has changed or ended the task since the run has loaded it: then
/// nothing is done. Waits for the session that has locked the task's row.
pub fn done(done: &Done) -> Result<bool> {
    let tables = tables::last()?;
    let to = if done.keep { retention::current(&tables)? } else { 0 };
    let mut columns = [Filled::Value(Value::Null); run::WIDTH];
    let mut set = |column: usize, value: Value<'static>| columns[column - 1] = Filled::Value(value);
    set(run::TASK_ID, Value::Int8(done.id));
    set(run::ATTEMPT, Value::Int4(done.attempt));
    set(run::ENDED, Value::Bool(true));
    set(run::STATE, Value::Text(b"done"));
    set(run::PID, Value::Int4(backend::my_pid()));
    set(run::STARTED_AT, Value::Timestamp(done.started_at));
    set(run::FINISHED_AT, Value::Timestamp(backend::now()));
    set(run::ROW_COUNT, Value::Int8(done.rows));
    set(
        run::COMMAND_TAG,
        Value::text_or_null(done.tag.map(simple_query::tag_name)),
    );
    if let Some(result) = done.result {
        set(run::RESULT, Value::Other(JSONB, result.datum()));
    }
    for (to, from) in run::OF_TASK {
        columns[to - 1] = Filled::Column(from);
    }
    let read = |row: &table::Row| match row.int8(task::ID) {
        Some(id) if id == done.id => row.text(task::QUEUE),
        _ => Ok(None),
    };
    let Some(queue) = table::replace(tables.task, done.tid, read, to, &columns)? else {
        return Ok(false);
    };
    let run = totals::Run {
        state: b"done",
        ready_at: done.ready_at,
        started_at: done.started_at,
        is_retried: false,
    };
    totals::run_ends(&queue, &run, Some(b"done"));
    Ok(true)
}

/// The version of the task's row that was committed last.
pub fn version(tables: &Tables, id: i64) -> Result<Option<Tid>> {
    tables.find_task(id, Sees::Committed, |row| Ok(Some(row.tid)))
}

/// Removes what is not to be kept any more, if that is due. Returns when it is due next, None for never. Outside of a transaction.
pub fn prune() -> Result<Option<i64>> {
    retention::prune()
}

/// The columns of a row of the history that the task's row has, too.
macro_rules! kept_columns {
    () => {
        "priority, mode, home, max_attempts, enqueued_at, run_at, expires_at, retry_delay, timeout, sql, param_types, param_values, \
         search_path, settings, database, keep_result, key, concurrency_key, after, on_parent_failure, schedule, operation_id, ready_at"
    };
}

/// What is noted of an attempt that is not done.
#[derive(Clone, Copy, Default)]
pub struct Failed<'a> {
    pub id: i64,
    pub attempt: i32,
    /// 0 if it is not known any more.
    pub pid: i32,
    /// When the task could run, 0 if it is not known any more.
    pub ready_at: i64,
    pub started_at: i64,
    /// The state of the run.
    pub state: &'a [u8],
    /// The state of the task, if this was its end.
    pub end: Option<&'a [u8]>,
    /// When the next attempt is due, else.
    pub run_at: i64,
    pub sqlstate: &'a [u8],
    pub message: &'a [u8],
    pub detail: Option<&'a [u8]>,
    pub hint: Option<&'a [u8]>,
    pub context: Option<&'a [u8]>,
}

static ENDS: Plan = Plan::planned(
    plan::text(concat!(
        "WITH gone AS (DELETE FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 RETURNING *) \
         INSERT INTO background.run_failed (task_id, attempt, ended, state, queue, owner, label, pid, started_at, finished_at, sqlstate, message, \
             detail, hint, context, ",
        kept_columns!(),
        ") SELECT id, $2, true, $5, queue, owner, label, $3, $4, pg_catalog.clock_timestamp(), $6, $7, $8, $9, $10, ",
        kept_columns!(),
        " FROM gone RETURNING queue, schedule, operation_id\0"
    )),
    &[INT8, INT4, INT4, TIMESTAMPTZ, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT],
);

static AGAIN: Plan = Plan::planned(
    c"WITH later AS (UPDATE background.task SET attempt = $2, phase = 'd', run_at = $11, started_at = $4, sqlstate = $6, error_message = $7 \
          WHERE id OPERATOR(pg_catalog.=) $1 RETURNING *) \
      INSERT INTO background.run_failed (task_id, attempt, ended, state, queue, owner, label, pid, started_at, finished_at, sqlstate, message, \
          detail, hint, context, schedule) \
      SELECT id, $2, false, $5, queue, owner, label, $3, $4, pg_catalog.clock_timestamp(), $6, $7, $8, $9, $10, schedule FROM later \
      RETURNING queue",
    &[
        INT8,
        INT4,
        INT4,
        TIMESTAMPTZ,
        TEXT,
        TEXT,
        TEXT,
        TEXT,
        TEXT,
        TEXT,
        TIMESTAMPTZ,
    ],
);

/// Notes an attempt that is not done, in the open transaction. Does nothing if the task has ended meanwhile.
///
/// If the last attempt was interrupted or timed out, its run has that state, and the end of the task has a row of its own.
pub fn note(failed: &Failed) -> Result<()> {
    let is_one = failed.end == Some(failed.state);
    let values = [
        Value::Int8(failed.id),
        Value::Int4(failed.attempt),
        if failed.pid == 0 {
            Value::Null
        } else {
            Value::Int4(failed.pid)
        },
        Value::Timestamp(failed.started_at),
        Value::Text(failed.state),
        Value::Text(failed.sqlstate),
        Value::Text(failed.message),
        Value::text_or_null(failed.detail),
        Value::text_or_null(failed.hint),
        Value::text_or_null(failed.context),
        Value::Timestamp(failed.run_at),
    ];
    let outcome = |schedule: Option<Vec<u8>>, state| match schedule {
        Some(schedule) => Outcome {
            task: failed.id,
            schedule: &schedule,
            state,
            started_at: failed.started_at,
        }
        .note(),
        None => Ok(()),
    };
    let run = totals::Run {
        state: failed.state,
        ready_at: failed.ready_at,
        started_at: failed.started_at,
        is_retried: failed.end.is_none(),
    };
    if is_one {
        let ended = ENDS.first(&values[..10], |row| Ok((row.text(0)?, row.text(1)?, row.int8(2)?)))?;
        if let Some((queue, schedule, operation)) = ended {
            totals::run_ends(&queue.unwrap_or_default(), &run, Some(failed.state));
            outcome(schedule, failed.state)?;
            if let Some(operation) = operation {
                lane::over(&Over {
                    task: failed.id,
                    operation,
                    state: failed.state,
                    attempts: failed.attempt,
                    rows: None,
                    ms: None,
                    sqlstate: Some(failed.sqlstate),
                    message: Some(failed.message),
                })?;
            }
        }
        return Ok(());
    }
    if let Some(queue) = AGAIN.first(&values, |row| row.text(0))? {
        totals::run_ends(&queue.unwrap_or_default(), &run, None);
    }
    if let Some(end) = failed.end
        && let Some(gone) = end::without_note(failed.id, end)?
    {
        outcome(gone.schedule, end)?;
    }
    Ok(())
}

/// When the attempt after this one is due: `delay` milliseconds, doubled for each one before, a tenth more or less, an hour at most.
pub fn next_attempt_at(delay: i64, attempt: i32) -> i64 {
    const HOUR: i64 = 3_600_000;
    let doubled = delay.saturating_mul(1 << (attempt - 1).clamp(0, 22)).min(HOUR);
    let tenth = doubled / 10;
    let varied = match backend::strong_random() {
        Ok(random) if tenth > 0 => doubled - tenth + (random % (2 * tenth as u64 + 1)) as i64,
        _ => doubled,
    };
    backend::now() + varied.min(HOUR) * 1000
}
