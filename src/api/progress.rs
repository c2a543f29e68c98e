//! The functions for a job's progress: `report_progress` and `get_progress`.

use crate::pg::error::{Report, Result};
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::Value;
use crate::pg::text;
use crate::pg::value::encoding;
use crate::registry::job::PROGRESS_MAX;
use crate::session::jobs;
use crate::worker::attached::current;
use pgrx::PgSqlErrorCode;

crate::sql_function! {
    pg_background_report_progress => report_progress;
    pg_background_get_progress => get_progress;
    pg_background_get_progress_v2 => get_progress;
}

/// `report_progress(pct, msg)`: called by the job's own SQL. Other sessions see the progress at once, even if the transaction rolls back later. A
/// pct of NULL reports nothing. 0A000 outside of a job.
fn report_progress(call: &Call) -> Result<Answer> {
    let Some(current) = current() else {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "pg_background_report_progress can only be called from a background worker",
        )
        .into());
    };
    if let Some(pct) = call.int4(0) {
        let message = call.text(1).map(|message| text::clip(message, PROGRESS_MAX));
        let mut job = current.slot.lock();
        job.progress_pct = pct.clamp(0, 100);
        job.has_progress = true;
        job.set_progress_message(message);
    }
    call.void()
}

/// `get_progress(pid, cookie)`: returns what the job reported last. NULL until it has reported something, and for a handle that is unknown or
/// released, so that it can be polled without an exception handler. 42501 if the current role may not act on the job.
fn get_progress(call: &Call) -> Result<Answer> {
    let (Some(pid), Some(cookie)) = (call.int4(0), call.int8(1)) else {
        return call.null();
    };
    let Some(handle) = jobs::find_or_none(pid, cookie)? else {
        return call.null();
    };
    let progress = {
        let job = handle.slot.lock();
        job.has_progress
            .then(|| (job.progress_pct, job.progress_copy(), job.encoding))
    };
    match progress {
        Some((pct, message, encoding)) => {
            let message = message.as_deref().map(|message| encoding::readable(message, encoding));
            let message = message.transpose()?;
            call.composite(&[Value::Int4(pct), Value::text_or_null(message.as_deref())])
        }
        None => call.null(),
    }
}
