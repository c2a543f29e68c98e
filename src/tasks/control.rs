//! Cancel, retry, wait, result: what is done with a task that is there.

use crate::dispatch::order;
use crate::pg::catalog::role;
use crate::pg::error::{self, Failure, Report, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{INT4, INT8, Rows, Value};
use crate::pg::plan::{self, Plan};
use crate::pg::spi;
use crate::pg::table::Sees;
use crate::pg::transaction;
use crate::pg::value::desc::JSONB;
use crate::session::wait::Deadline;
use crate::tasks::end::{self, Ended};
use crate::tasks::keys::{self, Found};
use crate::tasks::pushed::{self, Ready, ready_columns};
use crate::tasks::tables::{Phase, Tables, task};
use crate::tasks::{queue, running};
use pgrx::PgSqlErrorCode;

/// A task that has not ended.
struct Unfinished {
    /// 0 if the role does not exist.
    owner: u32,
    is_own: bool,
    is_committed: bool,
}

/// The row of a task, be it one that has not been committed.
fn unfinished(tables: &Tables, id: i64) -> Result<Option<Unfinished>> {
    tables.find_task(id, Sees::Uncommitted, |row| {
        let owner = row.role(task::OWNER).map(|owner| owner.number()).transpose()?;
        Ok(Some(Unfinished {
            owner: owner.flatten().unwrap_or(0),
            is_own: transaction::is_own(row.inserted_by),
            is_committed: row.uncommitted == 0,
        }))
    })
}

/// Cancels the task: one that runs at once, waiting up to `grace_ms` milliseconds for its end, and one that does not run in this transaction. False
/// if it has ended.
/// 42704 for an id that was never given out, 42501 if the current role neither has the privileges of the task's role nor may signal it.
pub fn cancel(tables: &Tables, id: i64, grace_ms: i32) -> Result<bool> {
    // A deferred trigger of the task's own comes after the mark, and sees the task as done before it is.
    if running::current().is_some_and(|(task, _)| task == id)
        && let Some(run) = running::runs_now(id)
    {
        check_cancel(id, run.owner)?;
        if running::cancel(id, grace_ms)? {
            return Ok(true);
        }
    }
    let Some(found) = unfinished(tables, id)?.filter(|found| found.is_committed) else {
        return match end::find(tables, id)? {
            Some(ended) => check_cancel(id, ended.owner).map(|()| false),
            None => end::check_given_out(id).map(|()| false),
        };
    };
    check_cancel(id, found.owner)?;
    loop {
        if running::cancel(id, grace_ms)? {
            // It may have been done before the signal came.
            let ended = if grace_ms > 0 { end::find(tables, id)? } else { None };
            return Ok(ended.is_none_or(|ended| !ended.is_done));
        }
        transaction::check_writable(c"background.cancel()")?;
        if let Some(has_ended) = end_before_it_begins(id)? {
            return Ok(has_ended);
        }
    }
}

/// Ends the task, which does not run. A run that has begun before the row was locked has said so. Then the lock is given back, since the end of the
/// run needs the row, and this returns None. False if the task has ended.
fn end_before_it_begins(id: i64) -> Result<Option<bool>> {
    let mut has_begun = false;
    let ended = spi::in_subtransaction(|| {
        if LOCK.first(&[Value::Int8(id)], |_| Ok(()))?.is_none() {
            return Ok(false);
        }
        has_begun = running::runs_now(id).is_some();
        if has_begun {
            return Err(Report::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, "the task has begun").into());
        }
        end::without_run(id, b"canceled")
    });
    match ended {
        Err(_) if has_begun => Ok(None),
        ended => ended.map(Some),
    }
}

static LOCK: Plan = Plan::planned(
    c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
    &[INT8],
);

fn check_cancel(id: i64, owner: u32) -> Result<()> {
    if role::may_signal(owner) {
        Ok(())
    } else {
        check(id, owner)
    }
}

fn check(id: i64, owner: u32) -> Result<()> {
    if role::may_act_for(owner, 0) {
        Ok(())
    } else {
        Err(end::not_permitted(id))
    }
}

static LAST: Plan = Plan::planned(
    c"SELECT key, queue, operation_id FROM background.run_failed WHERE task_id OPERATOR(pg_catalog.=) $1 AND ended FOR UPDATE",
    &[INT8],
);

/// It could run only from now on. One of a schedule keeps its occurrence.
static RETRY: Plan = Plan::planned(
    plan::text(concat!(
        "WITH last AS (UPDATE background.run_failed SET ended = false WHERE task_id OPERATOR(pg_catalog.=) $1 AND ended RETURNING *) \
      INSERT INTO background.task AS t (id, queue, owner, priority, phase, mode, home, max_attempts, enqueued_at, run_at, retry_delay, timeout, label, \
          sql, param_types, param_values, search_path, settings, database, keep_result, key, turn, concurrency_key, after, on_parent_failure, \
          schedule, operation_id, ready_at) \
      SELECT task_id, queue, owner, priority, 'w', mode, home, max_attempts, enqueued_at, \
          CASE WHEN schedule IS NULL THEN pg_catalog.clock_timestamp() ELSE run_at END, retry_delay, timeout, \
          label, sql, param_types, param_values, search_path, settings, database, keep_result, key, $2, concurrency_key, after, on_parent_failure, \
          schedule, operation_id, pg_catalog.clock_timestamp() \
      FROM last RETURNING ",
        ready_columns!(),
        "\0"
    )),
    &[INT8, INT4],
);

/// Enqueues a task again that has ended, and not as done. False for others. 42704, 42501; 23505 if another task of its key waits; those of
/// [`queue::enter`].
pub fn retry(tables: &Tables, id: i64) -> Result<bool> {
    order::check_caller("enqueue a task again", "task")?;
    transaction::check_writable(c"background.retry()")?;
    let Some(Ended { owner, is_done, .. }) = end::find(tables, id)? else {
        return match unfinished(tables, id)?.filter(|found| found.is_committed) {
            Some(found) => check(id, found.owner).map(|()| false),
            None => end::check_given_out(id).map(|()| false),
        };
    };
    check(id, owner)?;
    if is_done {
        return Ok(false);
    }
    let last = LAST.first(&[Value::Int8(id)], |row| Ok((row.text(0)?, row.text(1)?, row.int8(2)?)))?;
    let Some((key, queue, operation)) = last else {
        // Another session was faster.
        return Ok(false);
    };
    if let Some(operation) = operation {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("task {id} is a part of operation {operation}"),
        )
        .hint("Use background.retry_operation.")
        .into());
    }
    let turn = match &key {
        None => 0,
        Some(key) => match keys::find(tables, key, owner, false)? {
            Found::Turn(turn) => turn,
            Found::Task(other) => return Err(keys::conflict(key, other)),
        },
    };
    queue::enter(tables, queue.as_deref().unwrap_or(queue::DEFAULT), owner)?;
    let Some(ready) = RETRY.first(&[Value::Int8(id), Value::Int4(turn)], Ready::read)? else {
        return Ok(false);
    };
    pushed::push(&ready.task(), Phase::Waiting)?;
    Ok(true)
}

/// Waits until the task has ended. Returns the state that it ended in, `done` if that is not kept any more; None at the deadline. What the
/// task wrote is visible then, and on disk. 42704, 42501, 55000 for a task that this transaction enqueued, 40P01 if its run waits for this session.
pub fn wait(tables: &Tables, id: i64, deadline: Deadline) -> Result<Option<Vec<u8>>> {
    if running::current().is_some_and(|(current, _)| current == id) {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("task {id} cannot wait for itself"),
        )
        .into());
    }
    let mut waiting = running::Waiting::begin()?;
    loop {
        match unfinished(tables, id)? {
            Some(found) => {
                check(id, found.owner)?;
                if found.is_own {
                    return Err(Report::new(
                        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                        format!("cannot wait for task {id}, which this transaction has enqueued or changed"),
                    )
                    .detail("It does not begin before the transaction commits.")
                    .into());
                }
            }
            None => match end::find(tables, id)? {
                Some(ended) => {
                    check(id, ended.owner)?;
                    if ended.is_done {
                        running::flush_end_of(id)?;
                    }
                    return Ok(Some(ended.state));
                }
                None => {
                    end::check_given_out(id)?;
                    return fallible::copied(b"done").map(Some);
                }
            },
        }
        if deadline.has_passed() {
            return Ok(None);
        }
        if waiting.deadlocked(|| fallible::copied(&[id]))?.is_some() {
            return Err(deadlocked(id));
        }
        waiting.sleep(deadline)?;
    }
}

/// 40P01. The waiter is the victim: a CREATE INDEX CONCURRENTLY that fails leaves an invalid index, at each attempt another one.
fn deadlocked(id: i64) -> Failure {
    Report::new(PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED, "deadlock detected")
        .detail(format!(
            "Task {id} waits for a lock or a snapshot of this session, which waits for the task."
        ))
        .hint("CALL background.wait_for waits without a snapshot.")
        .into()
}

static ERROR: Plan = Plan::planned(
    c"SELECT sqlstate, message, detail, hint FROM background.run_failed \
      WHERE task_id OPERATOR(pg_catalog.=) $1 ORDER BY ended DESC, finished_at DESC LIMIT 1",
    &[INT8],
);

/// The error of a task that has ended in the state `state`: that of its last run, 57014 for one that was canceled or has expired.
pub fn error_of(id: i64, state: &[u8]) -> Failure {
    let found = ERROR.first(&[Value::Int8(id)], |row| {
        Ok((row.text(0)?, row.text(1)?, row.text(2)?, row.text(3)?))
    });
    match found {
        Err(failure) => failure,
        Ok(Some((Some(code), Some(message), detail, hint))) if state == b"failed" => {
            error::foreign(&code, &message, detail.as_deref(), hint.as_deref())
        }
        Ok(_) => {
            let end = match state {
                b"canceled" => "was canceled",
                b"expired" => "has expired",
                _ => "has failed",
            };
            Report::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, format!("task {id} {end}")).into()
        }
    }
}

static RESULT: Plan = Plan::planned(
    c"SELECT value FROM background.history CROSS JOIN pg_catalog.jsonb_array_elements(result) AS _ (value) \
      WHERE task_id OPERATOR(pg_catalog.=) $1 AND ended",
    &[INT8],
);

/// The rows that were kept of a task, none if it has not ended. 42704, 42501.
pub fn result(tables: &Tables, id: i64, rows: &Rows) -> Result<()> {
    match end::find(tables, id)? {
        Some(ended) => check(id, ended.owner)?,
        None => match unfinished(tables, id)? {
            Some(found) => return check(id, found.owner),
            None => return end::check_given_out(id),
        },
    }
    // The row may move to another table after the snapshot of a statement is taken and before that has locked the row's table.
    for _ in 0..2 {
        let found = RESULT.rows(&[Value::Int8(id)], |row| match row.datum(0)? {
            Some(datum) => rows.push(&[Value::Other(JSONB, datum)]),
            None => Ok(()),
        })?;
        if !found.is_empty() {
            break;
        }
    }
    Ok(())
}

/// How much the current role sees of the tasks of another one: 2 all, 1 all but texts, 0 nothing.
pub fn sight_of(owner: u32) -> i32 {
    if role::may_act_for(owner, 0) {
        2
    } else {
        i32::from(role::reads_all_stats())
    }
}
