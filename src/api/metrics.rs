//! The functions behind `pg_background_metrics`, `background.metrics` and `pg_background_openmetrics`.

use crate::pg::error::Result;
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::Value;
use crate::pg::guc::own;
use crate::pg::plan::Plan;
use crate::pg::value::desc::JSONB;
use crate::pg::value::encoding;
use crate::registry::segment::segment;
use crate::registry::{pool, upkeep};
use crate::settings;
use crate::tasks::totals::Observed;
use crate::tasks::{options, running, tables};
use core::sync::atomic::Ordering::Relaxed;

crate::sql_function! {
    pg_background_gauges => gauges;
    pg_background_printable => printable;
    pg_background_task_metrics => task_metrics;
    pg_background_tasks_check_metrics_part => check_part;
    pg_background_tasks_counts_of => counts_of;
}

/// `gauges()`: what the cluster has at this moment, each with its name and what it means.
fn gauges(call: &Call) -> Result<Answer> {
    let rows = call.rows()?;
    upkeep::look_after_all()?;
    let counts = pool::counts()?;
    let (mut retained, mut bytes) = (0, 0);
    for slot in segment()?.all()? {
        let cookie = slot.cookie.load(Relaxed);
        let Some(job) = slot.lock_if(cookie).filter(|job| cookie != 0 && !job.is_hidden) else {
            continue;
        };
        if job.state.has_ended() {
            retained += 1;
            bytes += if job.keeps_result { job.queue.written() } else { 0 };
        }
    }
    let gauges: [(&str, &str, f64); 10] = [
        (
            "jobs_running",
            "Jobs that have a worker or are about to get one.",
            counts.running.into(),
        ),
        (
            "jobs_retained",
            "Jobs that have ended and that a session still has a handle of.",
            f64::from(retained),
        ),
        ("retained_bytes", "Bytes of the results of these jobs.", bytes as f64),
        (
            "launches_waiting",
            "Launches that wait for a worker.",
            counts.waiting as f64,
        ),
        ("workers_busy", "Workers that have a job.", counts.busy as f64),
        ("workers_idle", "Workers that wait for a job.", counts.idle as f64),
        (
            "worker_slots",
            "Slots of the server for background workers of all kinds (max_worker_processes).",
            own::max_worker_processes().into(),
        ),
        (
            // pg_background_metrics adds those of pg_stat_activity.
            "worker_slots_used",
            "Slots that background workers of all kinds have.",
            running::count_unconnected()? as f64,
        ),
        (
            "task_runners_busy",
            "Tasks that run, in all databases.",
            running::count_everywhere()? as f64,
        ),
        (
            "task_runners_max",
            "Tasks that may run at a time, in all databases (pg_background.max_task_workers).",
            settings::max_task_workers().into(),
        ),
    ];
    for (name, help, value) in gauges {
        let name = format!("pg_background_{name}");
        rows.push(&[
            Value::Text(name.as_bytes()),
            Value::Text(help.as_bytes()),
            Value::Float8(value),
        ])?;
    }
    call.null()
}

/// `printable(text)`: the text, as [`encoding::printable`]; NULL for NULL.
fn printable(call: &Call) -> Result<Answer> {
    match call.text(0) {
        Some(text) => call.scalar(Value::Text(&encoding::printable(text)?)),
        None => call.null(),
    }
}

static OF_TASKS: Plan = Plan::fixed(c"SELECT name, type, help, labels, value FROM background.metrics()", &[]);

/// `task_metrics()`: the rows of `background.metrics()`; none if this database does not have the extension.
fn task_metrics(call: &Call) -> Result<Answer> {
    let rows = call.rows()?;
    if tables::tables().is_ok() {
        OF_TASKS.rows(&[], |row| {
            let (name, kind, help) = (row.text(0)?, row.text(1)?, row.text(2)?);
            let labels = row.datum(3)?.map_or(Value::Null, |labels| Value::Other(JSONB, labels));
            let value = row.float8(4)?.map_or(Value::Null, Value::Float8);
            rows.push(&[
                Value::text_or_null(name.as_deref()),
                Value::text_or_null(kind.as_deref()),
                Value::text_or_null(help.as_deref()),
                labels,
                value,
            ])
        })?;
    }
    call.null()
}

/// `check_metrics_part(part)`: true for NULL and for a part of `background.metrics()`. 22023 for another one.
fn check_part(call: &Call) -> Result<Answer> {
    match call.text(0) {
        None | Some(b"queues" | b"counts" | b"status" | b"schedules" | b"operations") => call.scalar(Value::Bool(true)),
        Some(part) => Err(options::unknown(
            "part",
            part,
            "queues, counts, status, schedules, operations",
        )),
    }
}

/// `counts_of(queue)`: what is counted of a queue since the server's start, for `background.metrics()`. Each row has one label at most.
fn counts_of(call: &Call) -> Result<Answer> {
    const ENDED: &str = "Tasks that have ended, by how they ended.";
    const RUNS: &str = "Runs that have ended, by how they ended.";
    const RETRIES: &str = "Runs that were followed by another attempt.";
    const RAN: &str = "Time from the begin of a run to its end.";
    const WAITED: &str = "Time from when a task could run to the begin of the run.";
    let rows = call.rows()?;
    let push = |name: &str, kind: &str, help: &str, label: Option<(&str, &[u8])>, value: f64| {
        rows.push(&[
            Value::Text(name.as_bytes()),
            Value::Text(kind.as_bytes()),
            Value::Text(help.as_bytes()),
            Value::text_or_null(label.map(|(label, _)| label.as_bytes())),
            Value::text_or_null(label.map(|(_, value)| value)),
            Value::Float8(value),
        ])
    };
    let counts = running::counts_of(call.text(0).unwrap_or(b""))?;
    for (state, count) in counts.tasks {
        let label = Some(("state", state));
        push("pg_background_tasks_ended_total", "counter", ENDED, label, count as f64)?;
    }
    for (state, count) in counts.runs {
        let label = Some(("state", state));
        push("pg_background_task_runs_total", "counter", RUNS, label, count as f64)?;
    }
    let retries = counts.retries as f64;
    push("pg_background_task_retries_total", "counter", RETRIES, None, retries)?;
    let histogram = |name: &str, help: &str, observed: &Observed| {
        let bucket = format!("{name}_bucket");
        for (bound, count) in observed.up_to {
            let bound = bound.to_string();
            let label = Some(("le", bound.as_bytes()));
            push(&bucket, "histogram", help, label, count as f64)?;
        }
        let all = Some(("le", b"+Inf".as_slice()));
        push(&bucket, "histogram", help, all, observed.count as f64)?;
        push(&format!("{name}_sum"), "histogram", help, None, observed.sum)?;
        push(&format!("{name}_count"), "histogram", help, None, observed.count as f64)
    };
    if let Some((ran, waited)) = counts.times {
        histogram("pg_background_task_run_seconds", RAN, &ran)?;
        histogram("pg_background_task_wait_seconds", WAITED, &waited)?;
    }
    call.null()
}
