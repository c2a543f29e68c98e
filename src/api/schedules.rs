//! The functions of the second extension about schedules.

use crate::pg::error::Result;
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::Value;
use crate::pg::process::signals;
use crate::pg::transaction;
use crate::pg::value::zone::Zone;
use crate::tasks::import;
use crate::tasks::options::out_of_range;
use crate::tasks::schedule::{self, Asked};
use crate::tasks::spec::Spec;

crate::sql_function! {
    pg_background_tasks_schedule => schedule;
    pg_background_tasks_alter_schedule => alter_schedule;
    pg_background_tasks_unschedule => unschedule;
    pg_background_tasks_run_schedule => run_schedule;
    pg_background_tasks_preview_schedule => preview_schedule;
    pg_background_tasks_import_pg_cron => import_pg_cron;
}

fn asked(call: &Call) -> Asked<'_> {
    Asked {
        spec: call.text(1),
        sql: call.text(2),
        params: call.record(3),
        time_zone: call.text(4),
        overlap: call.text(5),
        catch_up: call.text(6),
        jitter: call.interval(7),
        queue: call.text(8),
        label: call.text(9),
        priority: call.int4(10),
        concurrency_key: call.text(11),
        max_attempts: call.int4(12),
        retry_delay: call.interval(13),
        timeout: call.interval(14),
        expires_after: call.interval(15),
        mode: call.text(16),
        database: call.name(17),
        settings: call.datum(18),
        keep_result: call.bool(19),
        starts_at: call.int8(20),
        ends_at: call.int8(21),
        enabled: call.bool(22),
    }
}

/// `schedule(name, spec, sql, …)`: the id. NULL means the default. As [`schedule::schedule`]; 22004 for NULL as the name, the specification or the SQL.
fn schedule(call: &Call) -> Result<Answer> {
    let name = call.required(0, "schedule name")?;
    call.required(1, "spec")?;
    call.required(2, "sql parameter")?;
    call.scalar(Value::Int8(schedule::schedule(name, &asked(call))?))
}

/// `alter_schedule(name, …)`: NULL leaves a setting as it is. As [`schedule::alter`]; 22004 for NULL as the name.
fn alter_schedule(call: &Call) -> Result<Answer> {
    schedule::alter(call.required(0, "schedule name")?, &asked(call))?;
    call.void()
}

/// `unschedule(name)`, which is STRICT.
fn unschedule(call: &Call) -> Result<Answer> {
    call.scalar(Value::Bool(schedule::unschedule(call.text(0).unwrap_or_default())?))
}

/// `run_schedule(name)`, which is STRICT: the id of the task.
fn run_schedule(call: &Call) -> Result<Answer> {
    call.scalar(Value::Int8(schedule::run(call.text(0).unwrap_or_default())?))
}

/// `preview_schedule(spec, time_zone, n, from_time)`: the next `n` times after `from_time`, which `every` counts from. NULL means the default.
/// 22004 for NULL as the specification, 22023 for a negative `n`; as [`Spec::parse`] and [`Zone::by_name`].
fn preview_schedule(call: &Call) -> Result<Answer> {
    let rows = call.rows()?;
    let spec = Spec::parse(call.required(0, "specification of a schedule")?)?;
    let zone = match call.text(1) {
        Some(name) => Zone::by_name(name)?,
        None => Zone::of_session(),
    };
    let count = call.int4(2).unwrap_or(10);
    if count < 0 {
        return Err(out_of_range("n must not be negative"));
    }
    let from = call.int8(3).unwrap_or_else(transaction::started_at);
    let mut at = from;
    for _ in 0..count {
        signals::check_for_interrupts()?;
        let Some(next) = spec.next(&zone, from, at)? else {
            break;
        };
        rows.push(&[Value::Timestamp(next)])?;
        at = next;
    }
    call.null()
}

/// `import_pg_cron(dry_run, disable_originals)`: a row for each job. NULL means the default. As [`import::import`].
fn import_pg_cron(call: &Call) -> Result<Answer> {
    let rows = call.rows()?;
    let wanted = import::Wanted {
        is_dry: call.bool(0).unwrap_or(true),
        disables: call.bool(1).unwrap_or(false),
    };
    import::import(wanted, |outcome| {
        rows.push(&[
            Value::Int8(outcome.job),
            Value::Text(outcome.name),
            Value::Text(outcome.spec),
            Value::Text(outcome.action.as_bytes()),
        ])
    })?;
    call.null()
}
