//! The functions of the second extension, `pg_background_tasks`.

use crate::api::launch;
use crate::pg::error::{Report, Result};
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::{INT8, Value};
use crate::pg::plan::Plan;
use crate::pg::transaction;
use crate::pg::value::desc::{INT8_ARRAY, TEXT_ARRAY};
use crate::pg::value::role::Role;
use crate::pg::{reuse, spi, value};
use crate::session::wait::Deadline;
use crate::settings::{self, Tasks};
use crate::tasks::join::tables;
use crate::tasks::options::Asked;
use crate::tasks::{control, enqueue, operation, queue, running, stamp, steer};
use pgrx::PgSqlErrorCode;

crate::sql_function! {
    pg_background_tasks_enqueue => enqueue;
    pg_background_tasks_cancel => cancel;
    pg_background_tasks_retry => retry;
    pg_background_tasks_wait => wait;
    pg_background_tasks_wait_for => wait_for;
    pg_background_tasks_result => result;
    pg_background_tasks_current_task => current_task;
    pg_background_tasks_current_attempt => current_attempt;
    pg_background_tasks_set_queue => set_queue;
    pg_background_tasks_drop_queue => drop_queue;
    pg_background_tasks_status => status;
    pg_background_tasks_activate => activate;
    pg_background_tasks_running_now => running_now;
    pg_background_tasks_totals_of => totals_of;
    pg_background_tasks_sight_of => sight_of;
    pg_background_tasks_parallel_execute => parallel_execute;
    pg_background_tasks_alter_operation => alter_operation;
    pg_background_tasks_cancel_operation => cancel_operation;
    pg_background_tasks_retry_operation => retry_operation;
    pg_background_tasks_wait_operation => wait_operation;
}

/// `enqueue(sql, params, …)`: the id. NULL means the default. Errors as [`enqueue::enqueue`], 22004 for NULL as SQL or in `after`.
fn enqueue(call: &Call) -> Result<Answer> {
    let after = call.int8s(13)?;
    let ids = match (&after, call.datum(13)) {
        (Some(ids), Some(datum)) if !ids.is_empty() => Value::Other(INT8_ARRAY, datum),
        _ => Value::Null,
    };
    let asked = Asked {
        sql: launch::sql(call)?,
        params: call.record(1),
        queue: call.text(2).unwrap_or(queue::DEFAULT),
        label: call.text(3),
        priority: call.int4(4).unwrap_or(0),
        run_at: call.int8(5),
        expires_at: call.int8(6),
        key: call.text(7),
        on_conflict: call.text(8).unwrap_or(b"keep"),
        concurrency_key: call.text(9),
        max_attempts: call.int4(10),
        retry_delay: call.interval(11),
        timeout: call.interval(12),
        after: after.unwrap_or_default(),
        on_parent_failure: call.text(14).unwrap_or(b"cancel"),
        mode: call.text(15).unwrap_or(b"auto"),
        database: call.name(16),
        settings: call.datum(17),
        keep_result: call.bool(18).unwrap_or(false),
    };
    call.scalar(Value::Int8(enqueue::enqueue(asked, ids)?))
}

/// `cancel(id, grace_ms)`, which is STRICT.
fn cancel(call: &Call) -> Result<Answer> {
    let canceled = control::cancel(&tables()?, call.int8(0).unwrap_or(0), call.int4(1).unwrap_or(0))?;
    call.scalar(Value::Bool(canceled))
}

/// `retry(id)`, which is STRICT.
fn retry(call: &Call) -> Result<Answer> {
    let again = control::retry(&tables()?, call.int8(0).unwrap_or(0))?;
    call.scalar(Value::Bool(again))
}

/// `wait(id, timeout_ms)`: the state; NULL at the timeout, and for NULL.
fn wait(call: &Call) -> Result<Answer> {
    let Some(id) = call.int8(0) else {
        return call.null();
    };
    let state = control::wait(&tables()?, id, Deadline::after(call.int4(1).unwrap_or(0)))?;
    call.scalar(Value::text_or_null(state.as_deref()))
}

/// `wait_for(id, timeout_ms)`: as `wait`, without a snapshot where the CALL is nonatomic. 57014 at the timeout; as [`control::error_of`].
fn wait_for(call: &Call) -> Result<Answer> {
    let Some(id) = call.int8(0) else {
        return call.void();
    };
    let tables = tables()?;
    let deadline = Deadline::after(call.int4(1).unwrap_or(0));
    let releases = call.is_nonatomic();
    if releases {
        spi::release_snapshots();
    }
    let state = control::wait(&tables, id, deadline)?;
    if releases {
        spi::restore_snapshots();
    }
    match state.as_deref() {
        Some(b"done") => call.void(),
        Some(state) => Err(control::error_of(id, state)),
        None => Err(Report::new(
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            format!("task {id} has not ended within the time"),
        )
        .into()),
    }
}

/// `result(id)`, which is STRICT: the kept rows.
fn result(call: &Call) -> Result<Answer> {
    let rows = call.rows()?;
    control::result(&tables()?, call.int8(0).unwrap_or(0), &rows)?;
    call.null()
}

/// `current_task()`: NULL outside of a run.
fn current_task(call: &Call) -> Result<Answer> {
    call.scalar(running::current().map_or(Value::Null, |(task, _)| Value::Int8(task)))
}

/// `current_attempt()`: NULL outside of a run.
fn current_attempt(call: &Call) -> Result<Answer> {
    call.scalar(running::current().map_or(Value::Null, |(_, attempt)| Value::Int4(attempt)))
}

/// `set_queue(name, …)`: NULL leaves a setting as it is. As [`queue::set`]; 22004 for NULL as the name.
fn set_queue(call: &Call) -> Result<Answer> {
    let name = call.required(0, "queue name")?;
    tables()?;
    let names = call.names(11)?;
    let roles = match &names {
        Some(names) => Value::Other(TEXT_ARRAY, value::kept::text_array(names)?),
        None => Value::Null,
    };
    let settings = queue::Settings {
        name,
        max_running: call.int4(1),
        max_running_per_key: call.int4(2),
        max_waiting: call.int4(3),
        max_attempts: call.int4(4),
        retry_delay: call.interval(5),
        timeout: call.interval(6),
        keep_done: call.interval(7),
        keep_failed: call.interval(8),
        keep_done_max: call.int8(9),
        synchronous_commit: call.text(10),
        roles: names,
        paused: call.bool(12),
    };
    queue::set(&settings, roles)?;
    call.void()
}

/// `drop_queue(name)`, which is STRICT. As [`queue::drop`].
fn drop_queue(call: &Call) -> Result<Answer> {
    queue::drop(&tables()?, call.text(0).unwrap_or(b""))?;
    call.void()
}

static NEXT_DUE: Plan = Plan::planned(
    c"SELECT LEAST((SELECT pg_catalog.min(run_at) FROM background.task WHERE phase OPERATOR(pg_catalog.=) 'd'), \
          (SELECT pg_catalog.min(next_at) FROM background.firing WHERE home OPERATOR(pg_catalog.=) $1 AND next_at IS NOT NULL))",
    &[INT8],
);

/// `status()`: one row.
fn status(call: &Call) -> Result<Answer> {
    let tables = tables()?;
    let standing = stamp::standing(&tables)?;
    let is_copy = standing.is_copy();
    let (enabled, note): (bool, Option<&str>) = match settings::tasks() {
        _ if transaction::in_recovery() => (
            false,
            Some("The server is a standby: nothing is started before its promotion."),
        ),
        Tasks::On | Tasks::Auto if settings::max_task_workers() == 0 => (
            false,
            Some("pg_background.max_task_workers is 0: nothing is started in the cluster."),
        ),
        Tasks::On => (true, None),
        Tasks::Off => (
            false,
            Some("pg_background.tasks is off: nothing is started in this database."),
        ),
        Tasks::Auto if is_copy => (
            false,
            Some(
                "This database is a copy of another one: nothing is started here. SELECT background.activate() makes this one the database whose tasks run.",
            ),
        ),
        Tasks::Auto => (true, None),
    };
    let preloaded = reuse::library::is_preloaded();
    let next_due = NEXT_DUE
        .first(&[Value::Int8(standing.home())], |row| row.int8(0))?
        .flatten();
    call.composite(&[
        Value::Bool(enabled),
        Value::Bool(preloaded),
        Value::timestamp_or_null(next_due),
        Value::Int4(running::count()),
        Value::Int4(settings::max_task_workers()),
        Value::text_or_null(note.map(str::as_bytes)),
    ])
}

/// `activate()`. 42501 for who is no superuser, 25006 if nothing may be written.
fn activate(call: &Call) -> Result<Answer> {
    if !crate::pg::catalog::role::is_superuser() {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "must be superuser to activate the tasks of a copy",
        )
        .into());
    }
    transaction::check_writable(c"background.activate()")?;
    stamp::activate(&tables()?)?;
    call.void()
}

/// `running_now()`: a row for each run of this database, for the views. It has the id alone if the current role does not see the task, and no texts if
/// it sees no texts.
fn running_now(call: &Call) -> Result<Answer> {
    let rows = call.rows()?;
    for run in running::all() {
        let sight = control::sight_of(run.owner);
        let seen = |value| if sight > 0 { value } else { Value::Null };
        rows.push(&[
            Value::Int8(run.task),
            seen(Value::Int4(run.attempt)),
            seen(Value::Int4(run.pid)),
            seen(Value::Timestamp(run.started_at)),
            seen(run.progress_pct.map_or(Value::Null, Value::Int4)),
            Value::text_or_null(run.progress_msg.as_deref().filter(|_| sight == 2)),
        ])?;
    }
    call.null()
}

/// `totals_of(queue)`, for the view.
fn totals_of(call: &Call) -> Result<Answer> {
    let (done, failed) = running::totals_of(call.text(0).unwrap_or(b""))?;
    call.composite(&[Value::Int8(done), Value::Int8(failed)])
}

/// `sight_of(owner)`, for the views. STRICT.
fn sight_of(call: &Call) -> Result<Answer> {
    let owner = match call.datum(0) {
        Some(datum) => Role::of(datum).number()?.unwrap_or(0),
        None => 0,
    };
    call.scalar(Value::Int4(control::sight_of(owner)))
}

/// `parallel_execute(sql, relation, by, …)`: the id. NULL means the default. As [`operation::start`]; 22004 for NULL as SQL or table.
fn parallel_execute(call: &Call) -> Result<Answer> {
    let sql = launch::sql(call)?;
    let Some(relation) = call.oid(1) else {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            "relation cannot be NULL",
        )
        .into());
    };
    let asked = operation::Asked {
        sql,
        relation,
        by: call.text(2).unwrap_or(b"ctid"),
        params: call.record(3),
        label: call.text(4),
        parallelism: call.int4(5).unwrap_or(2),
        chunk_rows: call.int8(6),
        chunk_time: call.interval(7),
        on_error: call.text(8).unwrap_or(b"stop"),
        max_attempts: call.int4(9).unwrap_or(3),
        retry_delay: call.interval(10),
        timeout: call.interval(11),
        queue: call.text(12).unwrap_or(queue::DEFAULT),
        priority: call.int4(13).unwrap_or(0),
        max_replication_lag: call.interval(14),
        pause_between: call.interval(15),
        settings: call.datum(16),
    };
    call.scalar(Value::Int8(operation::start(&asked)?))
}

/// `alter_operation(id, paused, parallelism, chunk_time)`: NULL leaves as it is; nothing for NULL as the id.
fn alter_operation(call: &Call) -> Result<Answer> {
    if let Some(id) = call.int8(0) {
        tables()?;
        steer::alter(id, call.bool(1), call.int4(2), call.interval(3))?;
    }
    call.void()
}

/// `cancel_operation(id, grace_ms)`, which is STRICT.
fn cancel_operation(call: &Call) -> Result<Answer> {
    let canceled = steer::cancel(&tables()?, call.int8(0).unwrap_or(0), call.int4(1).unwrap_or(0))?;
    call.scalar(Value::Bool(canceled))
}

/// `retry_operation(id)`, which is STRICT: how many chunks.
fn retry_operation(call: &Call) -> Result<Answer> {
    let count = steer::retry(&tables()?, call.int8(0).unwrap_or(0))?;
    call.scalar(Value::Int8(count))
}

/// `wait_operation(id, timeout_ms)`: the state; NULL at the timeout, and for NULL.
fn wait_operation(call: &Call) -> Result<Answer> {
    let Some(id) = call.int8(0) else {
        return call.null();
    };
    let state = steer::wait(&tables()?, id, Deadline::after(call.int4(1).unwrap_or(0)))?;
    call.scalar(Value::text_or_null(state.as_deref()))
}
