//! An enqueue with a key.
//!
//! Tasks of a role with the same key have one number after the other, their turns, and a unique index of key, role and turn. A task has begun when
//! it runs, which only shared memory knows, or when an attempt at it has ended. The last one that has not begun is the conflict; if the
//! last one has begun, the new task has the next turn. Two sessions that find the same last one try the same turn, and one waits for the
//! other's commit.

use crate::pg::error::{Report, Result};
use crate::pg::function::rows::{INT8, TEXT, Value};
use crate::pg::plan::{self, Plan};
use crate::pg::table::{self, Key, Sees};
use crate::pg::transaction;
use crate::tasks::pushed::{self, Ready, ready_columns};
use crate::tasks::running;
use crate::tasks::stamp;
use crate::tasks::tables::{Phase, Tables, task};
use pgrx::PgSqlErrorCode;

/// What an enqueue finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The new task has this turn.
    Turn(i32),
    /// This one has not begun, and is locked until the transaction ends, so that it does not begin before.
    Task(i64),
}

/// A runner that takes up a task with a key looks for this lock first. This waits for the session that has enqueued the row's version, has replaced it
/// or ends it.
static LOCK: Plan = Plan::planned(
    c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 AND attempt OPERATOR(pg_catalog.=) 0 FOR KEY SHARE",
    &[INT8],
);

/// The same for a session that changes the row.
static LOCK_TO_REPLACE: Plan = Plan::planned(
    c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 AND attempt OPERATOR(pg_catalog.=) 0 FOR UPDATE",
    &[INT8],
);

/// The last task of the key and the role.
struct Last {
    id: i64,
    turn: i32,
    has_begun: bool,
    /// The transaction that has enqueued it or given it this version, if that has not ended and is not this one.
    uncommitted: u32,
}

/// What an enqueue of this role finds; `replaces` says whether it changes the row.
pub fn find(tables: &Tables, key: &[u8], role: u32, replaces: bool) -> Result<Found> {
    let home = stamp::home(tables)?;
    loop {
        let (turn, last) = last(tables, key, role, home)?;
        let Some(last) = last else {
            return Ok(Found::Turn(turn));
        };
        if last.uncommitted != 0 {
            // As for a unique index: whether it is there is known at the end of the other transaction.
            transaction::wait_for(last.uncommitted)?;
            continue;
        }
        if last.has_begun || running::has_begun(last.id)? {
            return Ok(Found::Turn(turn));
        }
        let lock = if replaces { &LOCK_TO_REPLACE } else { &LOCK };
        if lock.first(&[Value::Int8(last.id)], |_| Ok(()))?.is_none() {
            // It has ended or begun meanwhile.
            continue;
        }
        // It may have begun before it was locked.
        if running::has_begun(last.id)? {
            return Ok(Found::Turn(turn));
        }
        return Ok(Found::Task(last.id));
    }
}

/// The turn of the next task of the key and the role, and the last one of this `home`, if any. 54000 after the last turn. Rows that logical
/// replication wrote have another `home`. They never begin here, and keep their turns.
fn last(tables: &Tables, key: &[u8], role: u32, home: i64) -> Result<(i32, Option<Last>)> {
    let (mut next, mut last) = (Some(0), None::<Last>);
    table::find(
        tables.task,
        tables.task_key,
        task::KEY,
        Key::Text(key),
        Sees::Uncommitted,
        |row| {
            if row.role(task::OWNER).map_or(0, |owner| owner.oid) != role {
                return Ok(None::<()>);
            }
            let turn = row.int4(task::TURN).unwrap_or(0);
            if next.is_some_and(|next| next <= turn) {
                next = turn.checked_add(1);
            }
            if row.int8(task::HOME) == Some(home) && last.as_ref().is_none_or(|last| last.turn < turn) {
                last = Some(Last {
                    id: row.int8(task::ID).unwrap_or(0),
                    turn,
                    has_begun: row.int4(task::ATTEMPT).unwrap_or(0) > 0,
                    uncommitted: row.uncommitted,
                });
            }
            Ok(None)
        },
    )?;
    match next {
        Some(next) => Ok((next, last)),
        None => Err(Report::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            "too many tasks follow each other under one key",
        )
        .into()),
    }
}

/// Whether no task of the unique key comes before the row of `t`, looked up row by row: as a join it could read all tasks with keys. Rows that logical
/// replication wrote have another `home`, and never run here.
macro_rules! is_first {
    () => {
        "(t.turn OPERATOR(pg_catalog.=) 0 OR NOT EXISTS (SELECT FROM background.task AS o WHERE o.key OPERATOR(pg_catalog.=) t.key \
             AND o.owner OPERATOR(background.=) t.owner AND o.turn OPERATOR(pg_catalog.<) t.turn AND o.home OPERATOR(pg_catalog.=) t.home))"
    };
}

/// The first task of the key, of each role that has one.
static FIRST: Plan = Plan::planned(
    plan::text(concat!(
        "SELECT ",
        ready_columns!(),
        " FROM background.task AS t WHERE t.key OPERATOR(pg_catalog.=) $1 AND t.phase OPERATOR(pg_catalog.=) 'w' \
              AND ",
        is_first!(),
        "\0"
    )),
    &[TEXT],
);

/// A task of the key has ended: the next one may run.
pub fn next_is_ready(key: &[u8]) -> Result<()> {
    for ready in FIRST.rows(&[Value::Text(key)], Ready::read)? {
        if ready.has_role() {
            pushed::push(&ready.task(), Phase::Waiting)?;
        }
    }
    Ok(())
}

/// The first `$3` tasks of the home `$4` with the concurrency key `$2` of the queue `$1` that wait or run. One that its unique key holds back holds up
/// no others: what it waits for may have its place behind them.
pub static NEXT_OF_CONCURRENCY_KEY: Plan = Plan::planned(
    plan::text(concat!(
        "SELECT ",
        ready_columns!(),
        " FROM background.task AS t \
          WHERE t.phase OPERATOR(pg_catalog.=) 'w' AND t.queue OPERATOR(pg_catalog.=) $1 AND t.concurrency_key OPERATOR(pg_catalog.=) $2 \
              AND t.home OPERATOR(pg_catalog.=) $4 AND ",
        is_first!(),
        " ORDER BY t.priority DESC, t.id LIMIT $3\0"
    )),
    &[TEXT, TEXT, INT8, INT8],
);

/// A task of the queue with the concurrency key has ended without a run, and may have held another one back.
pub fn next_may_run(queue: &[u8], concurrency_key: &[u8], home: i64) -> Result<()> {
    const AT_MOST: i64 = 10;
    let values = [
        Value::Text(queue),
        Value::Text(concurrency_key),
        Value::Int8(AT_MOST),
        Value::Int8(home),
    ];
    for ready in NEXT_OF_CONCURRENCY_KEY.rows(&values, Ready::read)? {
        if ready.has_role() {
            pushed::push(&ready.task(), Phase::Waiting)?;
        }
    }
    Ok(())
}

/// Whether a task of the role and the home with the key comes before the one with this turn, and has not ended.
pub fn is_preceded(tables: &Tables, key: &[u8], role: u32, home: i64, turn: i32) -> Result<bool> {
    let found = table::find(
        tables.task,
        tables.task_key,
        task::KEY,
        Key::Text(key),
        Sees::Committed,
        |row| {
            let is_own = row.role(task::OWNER).is_some_and(|owner| owner.oid == role);
            let is_own = is_own && row.int8(task::HOME) == Some(home);
            Ok((is_own && row.int4(task::TURN).unwrap_or(0) < turn).then_some(()))
        },
    )?;
    Ok(found.is_some())
}

/// 23505.
pub fn conflict(key: &[u8], id: i64) -> crate::pg::error::Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
        format!("a task with the key \"{}\" waits already", String::from_utf8_lossy(key)),
    )
    .detail(format!("It is task {id}."))
    .into()
}
