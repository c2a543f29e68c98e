//! What is done with an operation that is there: change, cancel, retry, wait.

use crate::dispatch::order;
use crate::pg::catalog::{object, role};
use crate::pg::error::{Failure, Report, Result};
use crate::pg::fallible;
use crate::pg::function::call::Interval;
use crate::pg::function::rows::{BOOL, INT4, INT8, Value};
use crate::pg::plan::Plan;
use crate::pg::table::{self, Key, Sees};
use crate::pg::transaction;
use crate::pg::value::desc::INTERVAL;
use crate::session::wait::Deadline;
use crate::tasks::operation::{check_chunk_time, check_parallelism};
use crate::tasks::options;
use crate::tasks::tables::Tables;
use crate::tasks::{end, lane, queue, running};
use pgrx::PgSqlErrorCode;

static FIND: Plan = Plan::planned(
    c"SELECT background.role_oid(owner), phase, finished_at IS NOT NULL, xmin, queue FROM background.operation WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static LAST: Plan = Plan::fixed(
    c"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM background.operation_id",
    &[],
);

static ALTER: Plan = Plan::planned(
    c"UPDATE background.operation SET \
          phase = CASE WHEN $2 THEN 'p' WHEN NOT $2 THEN 'r' ELSE phase END, \
          parallelism = COALESCE($3, parallelism), chunk_time = COALESCE($4, chunk_time) \
      WHERE id OPERATOR(pg_catalog.=) $1 AND finished_at IS NULL AND phase OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog.\"char\"[]) \
      RETURNING phase OPERATOR(pg_catalog.=) 'r', parallelism",
    &[INT8, BOOL, INT4, INTERVAL],
);

/// Also one that a lane has stopped and finished meanwhile, where `$2`: it has stopped for the chunk that was canceled for this.
static CANCEL: Plan = Plan::planned(
    c"UPDATE background.operation SET phase = 'c', sqlstate = NULL, error_message = NULL \
      WHERE id OPERATOR(pg_catalog.=) $1 AND (finished_at IS NULL OR $2 AND phase OPERATOR(pg_catalog.=) 's')",
    &[INT8, BOOL],
);

/// The tasks that look for their chunks, or are to.
static CUTTING: Plan = Plan::planned(
    c"SELECT id FROM background.task WHERE operation_id OPERATOR(pg_catalog.=) $1 AND param_types IS NULL",
    &[INT8],
);

static TRY_LOCK: Plan = Plan::planned(
    c"SELECT FROM background.operation WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED",
    &[INT8],
);

static TASKS: Plan = Plan::planned(
    c"SELECT id FROM background.task WHERE operation_id OPERATOR(pg_catalog.=) $1 ORDER BY id",
    &[INT8],
);

static LOCK_TASK: Plan = Plan::planned(
    c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED",
    &[INT8],
);

static CHUNKS_AGAIN: Plan = Plan::planned(
    c"UPDATE background.chunk SET state = 'a', task_id = NULL \
      WHERE operation_id OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) ANY ('{f,c}'::pg_catalog.\"char\"[])",
    &[INT8],
);

/// One that is done and has no chunk to run again stays done.
static AGAIN: Plan = Plan::planned(
    c"UPDATE background.operation SET phase = CASE WHEN phase OPERATOR(pg_catalog.=) 'p' THEN 'p' ELSE 'r' END, finished_at = NULL, \
          sqlstate = NULL, error_message = NULL \
      WHERE id OPERATOR(pg_catalog.=) $1 AND ($2 OR phase OPERATOR(pg_catalog.<>) 'r') \
      RETURNING phase OPERATOR(pg_catalog.=) 'r', parallelism",
    &[INT8, BOOL],
);

/// An operation that is there.
struct Found {
    /// 0 where the role does not exist.
    owner: u32,
    phase: u8,
    has_finished: bool,
    is_own: bool,
    queue: Vec<u8>,
}

fn find(id: i64) -> Result<Option<Found>> {
    FIND.first(&[Value::Int8(id)], |row| {
        Ok(Found {
            owner: row.oid(0)?.unwrap_or(0),
            phase: row.char(1)?.unwrap_or(0),
            has_finished: row.bool(2)? == Some(true),
            is_own: transaction::is_own(row.oid(3)?.unwrap_or(0)),
            queue: row.text(4)?.unwrap_or_default(),
        })
    })
}

/// 42704.
fn check_given_out(id: i64) -> Result<()> {
    let last = LAST.first(&[], |row| row.int8(0))?.flatten().unwrap_or(0);
    if (1..=last).contains(&id) {
        return Ok(());
    }
    Err(Report::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("operation {id} does not exist"),
    )
    .into())
}

/// 42501.
fn check(id: i64, owner: u32) -> Result<()> {
    if role::may_act_for(owner, 0) {
        return Ok(());
    }
    Err(Report::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied for operation {id}"),
    )
    .detail("Only roles with privileges of the role of the operation may do this.")
    .into())
}

/// 55000.
fn has_ended(id: i64) -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("operation {id} has ended"),
    )
    .into()
}

/// Pauses the operation or lets it go on, and changes how many chunks run at a time and how long one is to take; None leaves that as it is. 42704,
/// 42501, 22023; 55000 for one that has ended.
pub fn alter(id: i64, paused: Option<bool>, parallelism: Option<i32>, chunk_time: Option<Interval>) -> Result<()> {
    order::check_caller("alter an operation", "operation")?;
    transaction::check_writable(c"background.alter_operation()")?;
    if let Some(parallelism) = parallelism {
        check_parallelism(parallelism)?;
    }
    check_chunk_time(chunk_time)?;
    let Some(found) = find(id)? else {
        check_given_out(id)?;
        return Err(has_ended(id));
    };
    check(id, found.owner)?;
    let values = [
        Value::Int8(id),
        paused.map_or(Value::Null, Value::Bool),
        parallelism.map_or(Value::Null, Value::Int4),
        options::interval(chunk_time),
    ];
    let altered = ALTER.first(&values, |row| {
        Ok((row.bool(0)? == Some(true), row.int4(1)?.unwrap_or(1)))
    })?;
    match altered {
        None => Err(has_ended(id)),
        Some((true, parallelism)) => lane::fill(id, lane::wanted(parallelism.into())),
        Some((false, _)) => Ok(()),
    }
}

/// Cancels the operation: chunks that run at once, waiting up to `grace_ms` milliseconds for their ends, and the rest in this transaction. False if it has
/// ended. 42704, 42501.
pub fn cancel(tables: &Tables, id: i64, grace_ms: i32) -> Result<bool> {
    let Some(found) = find(id)? else {
        return check_given_out(id).map(|()| false);
    };
    if !role::may_signal(found.owner) {
        check(id, found.owner)?;
    }
    if found.has_finished {
        return Ok(false);
    }
    transaction::check_writable(c"background.cancel_operation()")?;
    // Sessions that cancel one operation do so one after the other: each would interrupt what notes the ends of the chunks that the other has canceled.
    object::lock_name(tables.operation, &id.to_le_bytes(), object::Mode::Alone)?;
    let deadline = Deadline::after(grace_ms.clamp(0, running::GRACE_MAX));
    if find(id)?.is_some_and(|found| found.phase == b'c' && !found.has_finished && !found.is_own) {
        // Another session has canceled it.
        if grace_ms > 0 {
            wait_for_ends(&tasks(id)?, deadline)?;
        }
        return Ok(true);
    }
    let cutting = lock_against_lanes(id)?;
    if CANCEL.execute(&[Value::Int8(id), Value::Bool(!cutting.is_empty())])? == 0 {
        return Ok(false);
    }
    // A chunk that ends now puts a lane into its place, which finds the operation canceled when this is committed.
    let mut running = Vec::new();
    for task in tasks(id)? {
        if running::runs_now(task).is_some() {
            fallible::push(&mut running, task)?;
        } else {
            cancel_lane(tables, task)?;
        }
    }
    // The end of one that was canceled above is noted by now, which this would interrupt.
    for task in running.iter().filter(|task| !cutting.contains(task)) {
        if !running::cancel(*task, 0)? {
            // Its run is over, and another attempt may follow.
            cancel_lane(tables, *task)?;
        }
    }
    if grace_ms > 0 {
        wait_for_ends(&running, deadline)?;
    }
    lane::settle(id)?;
    Ok(true)
}

/// Cancels a lane that does not run. A run that begins meanwhile has said so, or finds the row gone at its end. A row that the keeper or the run has is
/// theirs for a moment.
fn cancel_lane(tables: &Tables, task: i64) -> Result<()> {
    const TRIES: usize = 50;
    for _ in 0..TRIES {
        if LOCK_TASK.first(&[Value::Int8(task)], |_| Ok(()))?.is_some() {
            if !running::cancel(task, 0)? {
                end::without_run(task, b"canceled")?;
            }
            break;
        }
        if running::cancel(task, 0)? || !tables.has_task(task, Sees::Committed)? {
            break;
        }
        running::wait_for_ends(10)?;
    }
    Ok(())
}

/// The tasks of the operation.
fn tasks(id: i64) -> Result<Vec<i64>> {
    let found = TASKS.rows(&[Value::Int8(id)], |row| row.int8(0))?;
    fallible::collected(found.into_iter().flatten())
}

fn wait_for_ends(tasks: &[i64], deadline: Deadline) -> Result<()> {
    while !deadline.has_passed() && tasks.iter().any(|task| running::runs_now(*task).is_some()) {
        running::wait_for_ends(deadline.left().unwrap_or(20).min(20))?;
    }
    Ok(())
}

/// Locks the operation's row, and returns the lanes that were canceled for that: one that has the row and waits for the table would keep this waiting, and
/// so would the lane that takes its place. A row that a session has is left to the next statement, which waits for it.
fn lock_against_lanes(id: i64) -> Result<Vec<i64>> {
    let mut canceled = Vec::new();
    let mut others = 0;
    while others < 3 && TRY_LOCK.first(&[Value::Int8(id)], |_| Ok(()))?.is_none() {
        others += 1;
        for task in CUTTING
            .rows(&[Value::Int8(id)], |row| row.int8(0))?
            .into_iter()
            .flatten()
        {
            if running::runs_now(task).is_some() {
                others = 0;
                // One that has not begun cannot be canceled yet.
                if !canceled.contains(&task) && running::cancel(task, 0)? {
                    fallible::push(&mut canceled, task)?;
                }
            }
        }
        running::wait_for_ends(10)?;
    }
    Ok(canceled)
}

/// Has the chunks that have failed or were canceled run again, and returns how many these are; an operation that was stopped or canceled goes on
/// where it was. 42704, also for a queue that was dropped since it ended, 42501.
pub fn retry(tables: &Tables, id: i64) -> Result<i64> {
    order::check_caller("enqueue parts of an operation again", "operation")?;
    transaction::check_writable(c"background.retry_operation()")?;
    let Some(found) = find(id)? else {
        return check_given_out(id).map(|()| 0);
    };
    check(id, found.owner)?;
    // Without its role each chunk fails, and says so.
    if found.owner != 0 {
        queue::check(tables, &found.queue, found.owner)?;
    }
    lane::lock(id)?;
    let count = CHUNKS_AGAIN.execute(&[Value::Int8(id)])? as i64;
    let again = AGAIN.first(&[Value::Int8(id), Value::Bool(count > 0)], |row| {
        Ok((row.bool(0)? == Some(true), row.int4(1)?.unwrap_or(1)))
    })?;
    if let Some((true, parallelism)) = again {
        lane::fill(id, lane::wanted(parallelism.into()))?;
    }
    Ok(count)
}

/// Waits until the operation has ended and returns its state, `done` where it is not kept any more; None at the deadline. What it wrote is visible
/// then, and on disk. 42704, 42501, 55000 for one that this transaction started or changed, 40P01 if one of its chunks waits for this session.
pub fn wait(tables: &Tables, id: i64, deadline: Deadline) -> Result<Option<Vec<u8>>> {
    let mut waiting = running::Waiting::begin()?;
    loop {
        match find(id)? {
            Some(found) => {
                check(id, found.owner)?;
                if found.has_finished {
                    running::flush_end_of(id)?;
                    let state: &[u8] = match found.phase {
                        b'r' => b"done",
                        b's' => b"failed",
                        _ => b"canceled",
                    };
                    return fallible::copied(state).map(Some);
                }
                if found.is_own {
                    return Err(Report::new(
                        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                        format!("cannot wait for operation {id}, which this transaction has started or changed"),
                    )
                    .detail("It does not go on before the transaction commits.")
                    .into());
                }
            }
            None if is_uncommitted(tables, id)? => (),
            None => {
                check_given_out(id)?;
                return fallible::copied(b"done").map(Some);
            }
        }
        if deadline.has_passed() {
            return Ok(None);
        }
        if let Some(task) = waiting.deadlocked(|| tasks(id))? {
            return Err(deadlocked(id, task));
        }
        waiting.sleep(deadline)?;
    }
}

fn is_uncommitted(tables: &Tables, id: i64) -> Result<bool> {
    let (table, index) = (tables.operation, tables.operation_pkey);
    table::exists(table, index, 1, Key::Int8(id), Sees::Uncommitted)
}

/// 40P01.
fn deadlocked(id: i64, task: i64) -> Failure {
    Report::new(PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED, "deadlock detected")
        .detail(format!(
            "Task {task} of operation {id} waits for a lock or a snapshot of this session, which waits for the operation."
        ))
        .into()
}
