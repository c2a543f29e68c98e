//! The functions that launch a job and wait for its end in one call, `run`, `run_query` and `do`; and `result`, which reads the rows.

use crate::api::handle;
use crate::api::info::JobOutcome;
use crate::api::launch::{plain, sql, with_params};
use crate::pg::error::{Report, Result};
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::{Rows, Value};
use crate::pg::function::scan::{self, Scan};
use crate::pg::process::backend;
use crate::pg::raw::Raw;
use crate::pg::spi;
use crate::registry::job::Stop;
use crate::session::jobs::{self, Handle};
use crate::session::launch::{self, Arguments};
use crate::session::read::{self, Outcome as Reading, Stream};
use crate::session::wait::{self, Deadline};
use crate::settings;
use pgrx::PgSqlErrorCode;
use std::rc::Rc;

/// How long a job that was cancelled at its timeout may take to end, in milliseconds.
const GRACE: i32 = 1000;

// A custom scan can take the rows of these functions one by one.
crate::sql_function! {
    static ROWS;
    pg_background_result => result;
    pg_background_result_v2 => result;
    pg_background_run_query => run_query;
    pg_background_run_query_v2 => run_query;
    pg_background_run_query_params => run_query_params;
}

crate::sql_function! {
    pg_background_run => run;
    pg_background_run_v2 => run;
    pg_background_run_params => run_params;
    pg_background_do => run_and_wait;
}

/// `result(pid, cookie)`: returns the job's rows, then raises its error if it has one. Releases the handle.
fn result(call: &Call) -> Result<Answer> {
    let Some(handle) = handle(call)? else {
        return call.null();
    };
    let is_limited = handle.slot.lock().is_limited;
    if let Some(scan) = row_by_row(call, is_limited) {
        scan.begin(Stream::begin(handle, scan.rows(), false, |_, ended| ended.map(drop))?);
        return call.null();
    }
    let rows = call.rows()?;
    read::read(&handle, Some(&rows), Deadline::after(0))?;
    call.null()
}

/// Returns the custom scan that takes the rows one by one, if there is one. A job waits for a slow reader. So if the job's time is limited,
/// the rows are collected first, which takes no longer than the job.
fn row_by_row(call: &Call, is_limited: bool) -> Option<Scan> {
    if is_limited { None } else { call.scan() }
}

/// `run(sql, queue_size, timeout_ms, label)`: runs the SQL to its end and returns how it ended, without its rows.
fn run(call: &Call) -> Result<Answer> {
    outcome_of(call, &plain(call, 3, false)?, call.int4(2))
}

/// `run_params(sql, params, queue_size, timeout_ms, label, database)`: the same with parameters.
fn run_params(call: &Call) -> Result<Answer> {
    outcome_of(call, &with_params(call, 4, 5, false)?, call.int4(3))
}

fn outcome_of(call: &Call, order: &Arguments, timeout_ms: Option<i32>) -> Result<Answer> {
    let began = backend::now();
    let handle = start(order)?;
    let deadline = Deadline::after(timeout_ms.unwrap_or(0));
    if !wait::for_job(&handle, deadline)? {
        end_over_time(&handle)?;
    }
    let outcome = JobOutcome::of_job(handle.pid, handle.cookie as i64, Some(&handle))?;
    let timed_out = matches!(handle.slot.stop(), Stop::RunTimeout | Stop::WorkerTimeout) && !outcome.succeeded();
    let elapsed_ms = (backend::now() - began) / 1000;
    let mut columns = [Value::Null; 14];
    let (of_job, own) = columns.split_at_mut(12);
    of_job.copy_from_slice(&outcome.values());
    own.copy_from_slice(&[Value::Bool(timed_out), Value::Int8(elapsed_ms)]);
    let answer = call.composite(&columns)?;
    jobs::release(&handle);
    Ok(answer)
}

/// `run_query(sql, queue_size, timeout_ms, label, col_def)`: runs the SQL and returns its rows, as the caller's column definition list describes
/// them. Without `col_def` it returns no rows. The job's error is raised, a timeout as 57014.
fn run_query(call: &Call) -> Result<Answer> {
    rows_of(call, &plain(call, 3, true)?, call.int4(2), call.text(4).is_some())
}

/// `run_query_params(sql, params, queue_size, timeout_ms, label, col_def, database)`: the same with parameters.
fn run_query_params(call: &Call) -> Result<Answer> {
    let order = with_params(call, 4, 6, true)?;
    rows_of(call, &order, call.int4(3), call.text(5).is_some())
}

fn rows_of(call: &Call, order: &Arguments, timeout_ms: Option<i32>, wants_rows: bool) -> Result<Answer> {
    // A statement_timeout ends this statement before the job's.
    let is_limited = timeout_ms.unwrap_or(0) > 0 || settings::worker_timeout() > 0;
    if wants_rows && let Some(scan) = row_by_row(call, is_limited) {
        let handle = start(order)?;
        scan.begin(Stream::begin(handle, scan.rows(), true, give_back_unneeded)?);
        return call.null();
    }
    let rows = call.rows()?;
    let wanted = wants_rows.then_some(&rows);
    let handle = start(order)?;
    let deadline = Deadline::after(timeout_ms.unwrap_or(0));
    to_the_end(&handle, wanted, deadline)?;
    call.null()
}

/// `CALL do(sql, timeout_ms, label)`: runs the SQL, passes its messages on, and raises its error. Called outside of a transaction block it holds
/// no snapshot while it waits, so that a job which waits for old snapshots can end.
fn run_and_wait(call: &Call) -> Result<Answer> {
    let timeout_ms = call.int4(1).unwrap_or(0);
    let order = Arguments {
        sql: sql(call)?,
        queue_size: 0,
        label: call.text(2),
        keeps_result: true,
        ..Arguments::default()
    };
    let without_snapshot = call.is_nonatomic();
    if without_snapshot {
        // Before the launch: a job that finds the snapshot waits for the end of the whole transaction that held it.
        spi::release_snapshots();
    }
    let ended = start(&order).and_then(|handle| to_the_end(&handle, None, Deadline::after(timeout_ms)));
    if without_snapshot {
        spi::restore_snapshots();
    }
    ended?;
    call.void()
}

/// Registers the custom scan for the functions that return rows. Called once for each session, when the library is loaded.
pub fn init(raw: Raw<'_>) {
    scan::init(raw, ROWS);
}

fn start(order: &Arguments) -> Result<Rc<Handle>> {
    let launched = launch::launch(order)?;
    jobs::hold(launched.pid, launched.cookie as u64)?.ok_or_else(|| jobs::unknown(launched.pid).into())
}

/// Reads the result to its end. At the deadline it cancels the job and raises 57014.
fn to_the_end(handle: &Rc<Handle>, rows: Option<&Rows>, deadline: Deadline) -> Result<()> {
    give_back_unneeded(handle, read::read(handle, rows, deadline))
}

/// How reading ended decides what becomes of the job.
fn give_back_unneeded(handle: &Rc<Handle>, ended: Result<Reading>) -> Result<()> {
    match ended {
        Ok(Reading::Read) => Ok(()),
        Ok(Reading::TimedOut) => {
            end_over_time(handle)?;
            jobs::release(handle);
            Err(Report::new(
                PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                "canceling background job due to timeout",
            )
            .into())
        }
        Err(failure) => {
            // After a cancel of this statement the session can still wait for the job or cancel it, as after an interrupted `run`. If rows were
            // lost with the cancel, the handle stays only while the job runs. After any other error it is released: the caller has not got
            // it.
            if !failure.is_cancel() {
                jobs::release(handle);
            } else if handle.slot.lock().consumed {
                handle.slot.orphan(handle.cookie);
            }
            Err(failure)
        }
    }
}

/// Cancels a job at its timeout, and waits up to [`GRACE`] for its end.
fn end_over_time(handle: &Rc<Handle>) -> Result<()> {
    if handle.cancel(Stop::RunTimeout) {
        wait::for_job(handle, Deadline::after(GRACE))?;
    }
    Ok(())
}
