//! Tasks that end without a run, and what follows for those that wait for them.

use crate::pg::error::{Failure, Report, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{INT8, TEXT, Value};
use crate::pg::plan::{self, Plan};
use crate::pg::table::{self, Key, Sees, Tid};
use crate::tasks::keys;
use crate::tasks::lane::{self, Over};
use crate::tasks::outcome::Outcome;
use crate::tasks::pushed::{self, Ready, ready_columns};
use crate::tasks::tables::{self, Phase, Tables, dependency, run};
use crate::tasks::totals;
use pgrx::PgSqlErrorCode;

/// How a task has ended.
#[derive(Debug)]
pub struct Ended {
    pub state: Vec<u8>,
    pub is_done: bool,
    /// The number of its role, 0 if that does not exist.
    pub owner: u32,
}

/// How the task has ended, as long as that is kept; None also if it has not.
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

/// A task whose last attempt has an error keeps it. Returns its keys, its queue, its schedule, and what its operation is told.
static END: Plan = Plan::planned(
    c"WITH gone AS (DELETE FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 RETURNING *) \
      INSERT INTO background.run_failed (task_id, attempt, ended, state, queue, owner, label, started_at, finished_at, sqlstate, message, \
          priority, mode, home, max_attempts, enqueued_at, run_at, expires_at, retry_delay, timeout, sql, param_types, param_values, \
          search_path, settings, database, keep_result, key, concurrency_key, after, on_parent_failure, schedule, operation_id, ready_at) \
      SELECT id, (OPERATOR(pg_catalog.-) attempt), true, $2, queue, owner, label, started_at, pg_catalog.clock_timestamp(), sqlstate, error_message, \
          priority, mode, home, max_attempts, enqueued_at, run_at, expires_at, retry_delay, timeout, sql, param_types, param_values, \
          search_path, settings, database, keep_result, key, concurrency_key, after, on_parent_failure, schedule, operation_id, ready_at \
      FROM gone RETURNING key, queue, concurrency_key, schedule, operation_id, pg_catalog.abs(attempt), sqlstate, message, home",
    &[INT8, TEXT],
);

/// Two parents that end at the same time would not see each other's end, and both would leave the child to the other. So the child is locked first.
static LOCK_CHILD: Plan = Plan::planned(
    c"SELECT on_parent_failure OPERATOR(pg_catalog.=) 'c' FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
    &[INT8],
);

static LOCK_CHILD_THAT_IS_FREE: Plan = Plan::planned(
    c"SELECT on_parent_failure OPERATOR(pg_catalog.=) 'c' FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED",
    &[INT8],
);

static FORGET_CHILD: Plan = Plan::planned(
    c"DELETE FROM background.dependency WHERE child OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

/// The task could not run before. One of a schedule finds its occurrence in `run_at`, so that stays.
static UNBLOCK: Plan = Plan::planned(
    plan::text(concat!(
        "UPDATE background.task AS t \
         SET ready_at = pg_catalog.clock_timestamp(), \
             run_at = CASE WHEN schedule IS NULL THEN GREATEST(run_at, pg_catalog.clock_timestamp()) ELSE run_at END, \
             phase = CASE WHEN run_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN 'd' ELSE 'w' END::pg_catalog.\"char\" \
         WHERE id OPERATOR(pg_catalog.=) $1 AND phase OPERATOR(pg_catalog.=) 'b' \
             AND NOT EXISTS (SELECT FROM background.dependency WHERE child OPERATOR(pg_catalog.=) id) \
         RETURNING ",
        ready_columns!(),
        ", phase OPERATOR(pg_catalog.=) 'w'\0"
    )),
    &[INT8],
);

/// What is done about a row that another transaction has locked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// It is waited for: a session waits for what other sessions do.
    WaitFor,
    /// It is left for later: no session may hold up the tasks of others.
    Skip,
}

/// Ends the task, which does not run, in the state `state`, which is not `done`; and so on down to those that are canceled for that. Waits for
/// other transactions that change one of the rows. False if the task has ended meanwhile.
pub fn without_run(id: i64, state: &[u8]) -> Result<bool> {
    if !end(id, state)? {
        return Ok(false);
    }
    follow(id, false, Locked::WaitFor)?;
    Ok(true)
}

/// Ends one task. Its children are left to [`follow`].
pub fn end(id: i64, state: &[u8]) -> Result<bool> {
    let Some(Gone {
        key,
        queue,
        concurrency_key,
        home,
        schedule,
    }) = without_note(id, state)?
    else {
        return Ok(false);
    };
    // Only the keeper finds that. A session that cancels a task would keep the row of the schedule until its commit.
    if let Some(schedule) = schedule.filter(|_| matches!(state, b"failed" | b"expired")) {
        let outcome = Outcome {
            task: id,
            schedule: &schedule,
            state,
            started_at: 0,
        };
        outcome.note()?;
    }
    FORGET_CHILD.execute(&[Value::Int8(id)])?;
    pushed::ends(key.is_some() || concurrency_key.is_some())?;
    if let Some(key) = key {
        keys::next_is_ready(&key)?;
    }
    if let Some(key) = concurrency_key {
        keys::next_may_run(&queue, &key, home)?;
    }
    Ok(true)
}

/// A task that has no row any more.
pub struct Gone {
    key: Option<Vec<u8>>,
    queue: Vec<u8>,
    concurrency_key: Option<Vec<u8>>,
    home: i64,
    /// The schedule that has enqueued it.
    pub schedule: Option<Vec<u8>>,
}

/// Ends one task, whose attempts are noted. What follows from that is left to the caller. None if it has ended meanwhile.
pub fn without_note(id: i64, state: &[u8]) -> Result<Option<Gone>> {
    let ended = END.first(&[Value::Int8(id), Value::Text(state)], |row| {
        let gone = Gone {
            key: row.text(0)?,
            queue: row.text(1)?.unwrap_or_default(),
            concurrency_key: row.text(2)?,
            home: row.int8(8)?.unwrap_or(0),
            schedule: row.text(3)?,
        };
        let attempts = row.int4(5)?.unwrap_or(0);
        Ok((gone, row.int8(4)?, attempts, row.text(6)?, row.text(7)?))
    })?;
    let Some((gone, operation, attempts, sqlstate, message)) = ended else {
        return Ok(None);
    };
    totals::ends(&gone.queue, state);
    if let Some(operation) = operation {
        lane::over(&Over {
            task: id,
            operation,
            state,
            attempts,
            rows: None,
            ms: None,
            sqlstate: sqlstate.as_deref(),
            message: message.as_deref(),
        })?;
    }
    Ok(Some(gone))
}

/// The task has ended, as `is_done` says: its children wait for it no more, or are canceled, and so on down. False if some of them are left for
/// later.
pub fn follow(id: i64, is_done: bool, locked: Locked) -> Result<bool> {
    let tables = tables::last()?;
    let mut ended = Vec::new();
    fallible::push(&mut ended, (id, is_done))?;
    let mut is_all = true;
    while let Some((parent, is_done)) = ended.pop() {
        for (child, tid) in children(&tables, parent)? {
            let lock = match locked {
                Locked::WaitFor => &LOCK_CHILD,
                Locked::Skip => &LOCK_CHILD_THAT_IS_FREE,
            };
            let is_canceled = lock.first(&[Value::Int8(child)], |row| row.bool(0))?.flatten();
            if is_canceled.is_none() && tables.has_task(child, Sees::Committed)? {
                is_all = false;
                continue;
            }
            // A child that was replaced meanwhile waits for others.
            let waited = table::replace(tables.dependency, tid, |_| Ok(Some(())), 0, &[])?.is_some();
            let Some(is_canceled) = is_canceled.filter(|_| waited) else {
                continue;
            };
            if is_canceled && !is_done {
                if end(child, b"canceled")? {
                    fallible::push(&mut ended, (child, false))?;
                }
            } else if !has_parents(&tables, child)? {
                unblock(child)?;
            }
        }
    }
    Ok(is_all)
}

/// The children of a task, in the order of their ids, and the versions of the rows that say so.
fn children(tables: &Tables, parent: i64) -> Result<Vec<(i64, Tid)>> {
    let mut children = Vec::new();
    table::find(
        tables.dependency,
        tables.dependency_pkey,
        dependency::PARENT,
        Key::Int8(parent),
        Sees::Committed,
        |row| {
            let child = row.int8(dependency::CHILD).unwrap_or(0);
            fallible::push(&mut children, (child, row.tid))?;
            Ok(None::<()>)
        },
    )?;
    children.sort_unstable_by_key(|(child, _)| *child);
    Ok(children)
}

fn has_parents(tables: &Tables, child: i64) -> Result<bool> {
    let (table, index) = (tables.dependency, tables.dependency_child);
    table::exists(table, index, dependency::CHILD, Key::Int8(child), Sees::Committed)
}

/// Makes the task ready if it waits for nothing more.
pub fn unblock(id: i64) -> Result<()> {
    let found = UNBLOCK.first(&[Value::Int8(id)], |row| Ok((Ready::read(row)?, row.bool(8)?)))?;
    if let Some((ready, is_waiting)) = found {
        let phase = if is_waiting == Some(true) {
            Phase::Waiting
        } else {
            Phase::Deferred
        };
        pushed::push(&ready.task(), phase)?;
    }
    Ok(())
}
