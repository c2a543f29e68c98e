//! Tasks that end without a run, and what follows for those that wait for them.

use crate::pg::error::{Failure, Report, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{INT8, TEXT, Value};
use crate::pg::plan::Plan;
use crate::pg::table::{self, Key, Sees};
use crate::tasks::pushed;
use crate::tasks::tables::{Phase, Tables, run};
use crate::tasks::totals;
use pgrx::PgSqlErrorCode;

/// How a task has ended.
#[derive(Debug)]
pub struct Ended {
    pub state: Vec<u8>,
    pub is_done: bool,
    /// The number of its role, 0 where that does not exist.
    pub owner: u32,
}

/// How the task has ended, as long as that is kept; None also where it has not.
pub fn find(tables: &Tables, id: i64) -> Result<Option<Ended>> {
    for (runs, index) in tables.runs {
        let found = table::find(runs, index, run::TASK_ID, Key::Int8(id), Sees::Committed, |row| {
            if row.bool(run::ENDED) != Some(true) {
                return Ok(None);
            }
            let state = row.text(run::STATE)?.unwrap_or_default();
            let owner = row.role(run::OWNER).map(|owner| owner.number()).transpose()?;
            Ok(Some(Ended {
                is_done: state == b"done",
                state,
                owner: owner.flatten().unwrap_or(0),
            }))
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

static LAST: Plan = Plan::fixed(
    c"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM background.task_id",
    &[],
);

/// Whether the id was given out, be it in a transaction that was rolled back.
pub fn was_given_out(id: i64) -> Result<bool> {
    let last = LAST.first(&[], |row| row.int8(0))?.flatten().unwrap_or(0);
    Ok((1..=last).contains(&id))
}

/// 42704.
pub fn never_given_out(id: i64) -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("task {id} does not exist"),
    )
    .into()
}

/// 42704 for an id that was never given out.
pub fn check_given_out(id: i64) -> Result<()> {
    if was_given_out(id)? {
        Ok(())
    } else {
        Err(never_given_out(id))
    }
}

/// 42501.
pub fn not_permitted(id: i64) -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied for task {id}"),
    )
    .detail("Only roles with privileges of the role of the task may do this.")
    .into()
}

/// A task whose last attempt has an error keeps it.
static END: Plan = Plan::planned(
    c"WITH gone AS (DELETE FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 RETURNING *) \
      INSERT INTO background.run_failed (task_id, attempt, ended, state, queue, owner, label, started_at, finished_at, sqlstate, message, \
          priority, mode, home, max_attempts, enqueued_at, run_at, expires_at, retry_delay, timeout, sql, param_types, param_values, \
          search_path, settings, database, keep_result, key, concurrency_key, after, on_parent_failure, schedule, operation_id) \
      SELECT id, 0, true, $2, queue, owner, label, started_at, pg_catalog.clock_timestamp(), sqlstate, error_message, \
          priority, mode, home, max_attempts, enqueued_at, run_at, expires_at, retry_delay, timeout, sql, param_types, param_values, \
          search_path, settings, database, keep_result, key, concurrency_key, after, on_parent_failure, schedule, operation_id \
      FROM gone RETURNING queue",
    &[INT8, TEXT],
);

static CHILDREN: Plan = Plan::planned(
    c"SELECT child, on_parent_failure OPERATOR(pg_catalog.=) 'c' FROM background.dependency \
      JOIN background.task ON id OPERATOR(pg_catalog.=) child WHERE parent OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static FORGET_PARENT: Plan = Plan::planned(
    c"DELETE FROM background.dependency WHERE parent OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static FORGET_CHILD: Plan = Plan::planned(
    c"DELETE FROM background.dependency WHERE child OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static UNBLOCK: Plan = Plan::planned(
    c"UPDATE background.task SET phase = CASE WHEN run_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN 'd' ELSE 'w' END::pg_catalog.\"char\" \
      WHERE id OPERATOR(pg_catalog.=) $1 AND phase OPERATOR(pg_catalog.=) 'b' \
      AND NOT EXISTS (SELECT FROM background.dependency WHERE child OPERATOR(pg_catalog.=) id) \
      RETURNING phase OPERATOR(pg_catalog.=) 'w'",
    &[INT8],
);

/// Ends the task, which does not run, in the state `state`, which is not `done`; and so on down to those that are canceled for that. Waits for
/// whoever changes one of the rows. False where the task has ended meanwhile.
pub fn without_run(id: i64, state: &[u8]) -> Result<bool> {
    if !end_one(id, state)? {
        return Ok(false);
    }
    let mut ended = Vec::new();
    fallible::push(&mut ended, id)?;
    while let Some(parent) = ended.pop() {
        let parent = [Value::Int8(parent)];
        let children = CHILDREN.rows(&parent, |row| {
            Ok((row.int8(0)?.unwrap_or(0), row.bool(1)?.unwrap_or(false)))
        })?;
        FORGET_CHILD.execute(&parent)?;
        FORGET_PARENT.execute(&parent)?;
        for (child, is_canceled) in children {
            if is_canceled {
                if end_one(child, b"canceled")? {
                    fallible::push(&mut ended, child)?;
                }
            } else {
                unblock(child)?;
            }
        }
    }
    Ok(true)
}

fn end_one(id: i64, state: &[u8]) -> Result<bool> {
    let queue = END.first(&[Value::Int8(id), Value::Text(state)], |row| row.text(0))?;
    if let Some(queue) = queue.as_ref().and_then(Option::as_ref) {
        totals::ends(queue, state);
    }
    Ok(queue.is_some())
}

/// Makes the task ready where it waits for nothing more.
pub fn unblock(id: i64) -> Result<()> {
    if let Some(is_ready) = UNBLOCK.first(&[Value::Int8(id)], |row| row.bool(0))?.flatten() {
        pushed::push(id, if is_ready { Phase::Waiting } else { Phase::Deferred })?;
    }
    Ok(())
}
