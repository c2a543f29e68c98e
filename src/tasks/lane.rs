//! The lanes of operations. A lane is a task that has no chunk yet, which it gets when it begins to run ([`crate::tasks::cut`]), or one that has.
//!
//! The transaction in which a task with a chunk ends, whatever its end is, puts the next one into its place, and does not look at the operation.
//! So a lane is never lost, chunks that end at the same time do not wait for each other, and all that is decided about an operation is
//! decided in one place: where a lane without a chunk looks for the next one, with the operation's row locked.

use crate::pg::error::Result;
use crate::pg::function::rows::{FLOAT8, INT4, INT8, TEXT, Value};
use crate::pg::moment;
use crate::pg::plan::{self, Plan};
use crate::pg::table;
use crate::pg::transaction;
use crate::settings;
use crate::tasks::pushed::{self, Ready, ready_columns};
use crate::tasks::tables::{self, Phase};

/// Adds a lane to the operation `$1`: the task `$2`, after `$3` milliseconds.
static ADD: Plan = Plan::planned(
    plan::text(concat!(
        "INSERT INTO background.task AS t (id, queue, owner, priority, phase, mode, home, max_attempts, enqueued_at, run_at, retry_delay, \
             timeout, label, sql, search_path, settings, operation_id) \
         SELECT $2, queue, owner, priority, CASE WHEN $3 OPERATOR(pg_catalog.>) 0 THEN 'd' ELSE 'w' END::pg_catalog.\"char\", 't', home, \
             max_attempts, pg_catalog.clock_timestamp(), \
             CASE WHEN $3 OPERATOR(pg_catalog.>) 0 \
                 THEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) ('1 ms'::pg_catalog.interval OPERATOR(pg_catalog.*) $3) END, \
             retry_delay, timeout, label, sql, search_path, settings, id \
         FROM background.operation WHERE id OPERATOR(pg_catalog.=) $1 \
         RETURNING ",
        ready_columns!(),
        "\0"
    )),
    &[INT8, INT8, FLOAT8],
);

/// The chunk of a task is over. A failed one keeps its error.
static OVER: Plan = Plan::planned(
    c"UPDATE background.chunk SET state = $2::pg_catalog.\"char\", attempts = $3, rows = $4, ms = $5, sqlstate = $6, error_message = $7, \
          finished_at = pg_catalog.clock_timestamp() \
      WHERE task_id OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) 'w' AND operation_id OPERATOR(pg_catalog.=) $8",
    &[INT8, TEXT, INT4, INT8, FLOAT8, TEXT, TEXT, INT8],
);

/// How long a lane pauses between two chunks, in milliseconds.
static PAUSE: Plan = Plan::planned(
    c"SELECT pg_catalog.date_part('epoch', pause_between) OPERATOR(pg_catalog.*) 1000 FROM background.operation \
      WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static STOP: Plan = Plan::planned(
    c"UPDATE background.operation SET phase = 's', sqlstate = $2, error_message = $3 \
      WHERE id OPERATOR(pg_catalog.=) $1 AND phase OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog.\"char\"[])",
    &[INT8, TEXT, TEXT],
);

static RUNS: Plan = Plan::planned(
    c"SELECT FROM background.operation WHERE id OPERATOR(pg_catalog.=) $1 AND finished_at IS NULL AND phase OPERATOR(pg_catalog.=) 'r'",
    &[INT8],
);

static COUNT: Plan = Plan::planned(
    c"SELECT pg_catalog.count(*) FROM background.task WHERE operation_id OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

/// The operation has no lane any more. One that was not stopped is done, unless a chunk is not; one that is paused goes on later.
static FINISH: Plan = Plan::planned(
    c"UPDATE background.operation SET finished_at = pg_catalog.clock_timestamp(), \
          phase = CASE WHEN phase OPERATOR(pg_catalog.=) 'r' AND EXISTS (SELECT FROM background.chunk \
              WHERE operation_id OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) ANY ('{f,c}'::pg_catalog.\"char\"[])) \
              THEN 's' ELSE phase END \
      WHERE id OPERATOR(pg_catalog.=) $1 AND finished_at IS NULL \
          AND (phase OPERATOR(pg_catalog.=) ANY ('{s,c}'::pg_catalog.\"char\"[]) OR phase OPERATOR(pg_catalog.=) 'r' AND is_cut) \
          AND NOT EXISTS (SELECT FROM background.task WHERE operation_id OPERATOR(pg_catalog.=) $1)",
    &[INT8],
);

/// Operations that have not finished and have no lane.
static WITHOUT_LANE: Plan = Plan::planned(
    c"SELECT id FROM background.operation AS o WHERE finished_at IS NULL AND phase OPERATOR(pg_catalog.<>) 'p' \
          AND NOT EXISTS (SELECT FROM background.task WHERE operation_id OPERATOR(pg_catalog.=) o.id)",
    &[],
);

static LOCK: Plan = Plan::planned(
    c"SELECT FROM background.operation WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
    &[INT8],
);

/// Operations that have ended long ago, and their chunks.
static PRUNE: Plan = Plan::planned(
    c"WITH gone AS (DELETE FROM background.operation \
          WHERE finished_at OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) '30 days'::pg_catalog.interval) RETURNING id) \
      DELETE FROM background.chunk WHERE operation_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT id FROM gone))",
    &[],
);

/// Adds a lane, which looks for its chunk after `pause` milliseconds.
pub fn add(operation: i64, pause: f64) -> Result<()> {
    let task = table::next_number(tables::last()?.task_id)?;
    let values = [Value::Int8(operation), Value::Int8(task), Value::Float8(pause)];
    if let Some(ready) = ADD.first(&values, Ready::read)? {
        let phase = if pause > 0.0 { Phase::Deferred } else { Phase::Waiting };
        pushed::push(&ready.task(), phase)?;
        if !ready.has_role() {
            // No runner of that role comes. The keeper fails the task.
            pushed::sweep()?;
        }
    }
    Ok(())
}

/// Locks the operation's row until the transaction ends.
pub fn lock(operation: i64) -> Result<()> {
    LOCK.execute(&[Value::Int8(operation)]).map(|_| ())
}

/// Stops the operation, unless it was canceled, for this error, or for chunks that have failed. The operation's row is locked.
pub fn stop(operation: i64, sqlstate: Option<&[u8]>, message: Option<&[u8]>) -> Result<()> {
    let (code, message) = (Value::text_or_null(sqlstate), Value::text_or_null(message));
    STOP.execute(&[Value::Int8(operation), code, message]).map(|_| ())
}

/// How many lanes an operation of this parallelism may have.
pub fn wanted(parallelism: i64) -> i64 {
    parallelism.min(settings::max_operation_workers().into())
}

/// Adds lanes until there are `wanted`. The operation's row is locked.
pub fn fill(operation: i64, wanted: i64) -> Result<()> {
    for _ in count(operation)?..wanted {
        add(operation, 0.0)?;
    }
    Ok(())
}

/// How many lanes the operation has.
pub fn count(operation: i64) -> Result<i64> {
    Ok(COUNT
        .first(&[Value::Int8(operation)], |row| row.int8(0))?
        .flatten()
        .unwrap_or(0))
}

/// Finishes the operation if it has no lane any more. The operation's row is locked.
pub fn settle(operation: i64) -> Result<()> {
    FINISH.execute(&[Value::Int8(operation)]).map(|_| ())
}

/// How a task of an operation has ended.
pub struct Over<'a> {
    pub task: i64,
    pub operation: i64,
    /// The state of the task.
    pub state: &'a [u8],
    pub attempts: i32,
    pub rows: Option<i64>,
    pub ms: Option<f64>,
    pub sqlstate: Option<&'a [u8]>,
    pub message: Option<&'a [u8]>,
}

/// Notes the end of a chunk in the open transaction, which ends the task too, whether that transaction may write or not. Another lane takes the
/// place of this one. A lane without a chunk that ends has failed to get one, which stops the operation, or was canceled.
pub fn over(over: &Over) -> Result<()> {
    moment::may_fail("lane over")?;
    transaction::writable(|| {
        let state: &[u8] = match over.state {
            b"done" => b"d",
            b"canceled" => b"c",
            _ => b"f",
        };
        let is_failed = state == b"f";
        let had_chunk = OVER.execute(&[
            Value::Int8(over.task),
            Value::Text(state),
            Value::Int4(over.attempts),
            over.rows.map_or(Value::Null, Value::Int8),
            over.ms.map_or(Value::Null, Value::Float8),
            Value::text_or_null(over.sqlstate.filter(|_| is_failed)),
            Value::text_or_null(over.message.filter(|_| is_failed)),
            Value::Int8(over.operation),
        ])? > 0;
        let operation = [Value::Int8(over.operation)];
        if had_chunk {
            let pause = PAUSE.first(&operation, |row| row.float8(0))?.flatten();
            return add(over.operation, pause.unwrap_or(0.0));
        }
        if is_failed {
            lock(over.operation)?;
            stop(over.operation, over.sqlstate, over.message)?;
            return settle(over.operation);
        }
        if RUNS.first(&operation, |_| Ok(()))?.is_some() {
            return add(over.operation, 0.0);
        }
        // What has stopped the operation has seen this task, and has left the rest to it.
        lock(over.operation)?;
        settle(over.operation)
    })
}

/// The operations that have no lane although they have not finished.
pub fn without_lane() -> Result<Vec<i64>> {
    Ok(WITHOUT_LANE
        .rows(&[], |row| row.int8(0))?
        .into_iter()
        .flatten()
        .collect())
}

/// Gives such an operation a lane, or finishes it.
pub fn revive(operation: i64) -> Result<()> {
    lock(operation)?;
    settle(operation)?;
    match RUNS.first(&[Value::Int8(operation)], |_| Ok(()))? {
        Some(()) => fill(operation, 1),
        None => Ok(()),
    }
}

/// Removes operations that have ended long ago.
pub fn prune() -> Result<()> {
    PRUNE.execute(&[]).map(|_| ())
}
