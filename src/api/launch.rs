//! The functions that start a job and do not wait: `launch`, `submit` and their variants with parameters.

use crate::pg::error::Result;
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::Value;
use crate::session::launch::{self, Arguments, Launched};

crate::sql_function! {
    pg_background_launch => launch;
    pg_background_launch_v2 => launch;
    pg_background_submit => submit;
    pg_background_submit_v2 => submit;
    pg_background_launch_params => launch_params;
    pg_background_submit_params => submit_params;
}

/// `launch(sql, queue_size [, label])`: runs `sql` in a worker, which stores the result for a reader.
fn launch(call: &Call) -> Result<Answer> {
    start(call, plain(call, 2, true)?)
}

/// `submit(sql, queue_size [, label])`: runs `sql` in a worker, which discards the rows.
fn submit(call: &Call) -> Result<Answer> {
    start(call, plain(call, 2, false)?)
}

/// `launch_params(sql, params, queue_size, label, database)`: the same as `launch`, with parameters, in any database.
fn launch_params(call: &Call) -> Result<Answer> {
    start(call, with_params(call, 3, 4, true)?)
}

/// `submit_params(sql, params, queue_size, label, database)`: the same as `submit`, with parameters, in any database.
fn submit_params(call: &Call) -> Result<Answer> {
    start(call, with_params(call, 3, 4, false)?)
}

/// The order in the arguments `sql, queue_size, …`, with the label at place `label`.
pub fn plain(call: &Call, label: usize, keeps_result: bool) -> Result<Arguments<'_>> {
    Ok(Arguments {
        sql: sql(call)?,
        queue_size: call.int4(1).unwrap_or(0),
        label: call.text(label),
        keeps_result,
        ..Arguments::default()
    })
}

/// The order in the arguments `sql, params, queue_size, …`, with label and database at these places.
pub fn with_params(call: &Call, label: usize, database: usize, keeps_result: bool) -> Result<Arguments<'_>> {
    Ok(Arguments {
        sql: sql(call)?,
        parameters: call.record(1),
        queue_size: call.int4(2).unwrap_or(0),
        label: call.text(label),
        database: call.name(database),
        keeps_result,
        ..Arguments::default()
    })
}

fn start(call: &Call, order: Arguments) -> Result<Answer> {
    let Launched { pid, cookie } = launch::launch(&order)?;
    call.composite(&[Value::Int4(pid), Value::Int8(cookie)])
}

/// The SQL in the first argument. 22004 for NULL.
pub fn sql(call: &Call) -> Result<&[u8]> {
    call.required(0, "sql parameter")
}
