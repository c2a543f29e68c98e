//! A run in another database: the runner, at home, launches a job there and waits for its end. So the attempt and its outcome are noted where the
//! task is.
//!
//! The job has the role of the task and the rights that a launch asks for. Its rows are thrown away.

use crate::pg::error::{self, Result};
use crate::pg::process::latch;
use crate::pg::value::kept;
use crate::pg::{moment, transaction, wire};
use crate::registry::job::{Slot, Stop};
use crate::registry::segment::segment;
use crate::session::jobs;
use crate::session::launch::{self, Arguments};
use crate::session::wait::{self, Deadline};
use crate::tasks::shared;
use core::cell::Cell;
use core::ffi::CStr;

/// What is to be run, and where.
#[derive(Clone, Copy)]
pub struct Elsewhere<'a> {
    pub sql: &'a CStr,
    pub label: Option<&'a CStr>,
    pub database: &'a CStr,
    /// The names of the types of the parameters, and their values.
    pub params: Option<&'a [(&'a CStr, Option<&'a CStr>)]>,
}

/// How often the end of a job is looked for that was told to end, in milliseconds.
const LOOK: i64 = 20;

/// Runs it, and notes its rows and its tag in `slot`, which has the run's own job. Outside of a transaction. Errors: those of [`launch::launch`], and
/// the job's own.
pub fn run(slot: &Slot, what: Elsewhere) -> Result<()> {
    moment::may_fail("launching elsewhere")?;
    let job = Cell::new(0);
    let handle = transaction::own(|| {
        let launched = launch::launch(&Arguments {
            sql: what.sql.to_bytes(),
            label: what.label.map(CStr::to_bytes),
            parameters: what.params.map(kept::record).transpose()?,
            database: Some(what.database),
            ..Arguments::default()
        })?;
        job.set(launched.cookie as u64);
        shared::runs_elsewhere(job.get());
        jobs::find(launched.pid, launched.cookie)
    });
    let handle = match handle {
        Ok(handle) => handle,
        Err(failure) => {
            end(job.get());
            return Err(failure);
        }
    };
    let waited = moment::may_fail("launched elsewhere").and_then(|()| wait::for_job(&handle, Deadline::after(0)));
    if let Err(failure) = waited {
        end(job.get());
        jobs::release(&handle);
        return Err(failure);
    }
    moment::may_fail("ended elsewhere")?;
    let (error, (rows, tag)) = {
        let job = handle.job();
        (job.error().copied(), job.outcome())
    };
    let failure = error.map(|error| match error.fields() {
        Ok(fields) => {
            let fields = wire::Fields(&fields);
            error::foreign(
                &error.sqlstate,
                fields.get(b'M').unwrap_or_default(),
                fields.get(b'D'),
                fields.get(b'H'),
            )
        }
        Err(failure) => failure,
    });
    jobs::release(&handle);
    if let Some(failure) = failure {
        return Err(failure);
    }
    let mut job = slot.lock();
    job.row_count = rows;
    (job.has_tag, job.tag) = (tag.is_some(), tag.unwrap_or(0));
    Ok(())
}

/// Whatever ended the wait ends the job. The task is not let go of before that: limits count it, and the next attempt comes after it.
fn end(job: u64) {
    while cancel(job).unwrap_or(false) {
        latch::reset_latch();
        // Another cancel changes nothing.
        let _ = latch::wait(LOOK);
    }
}

/// Tells a job to end that runs a task here while the process is gone that waited for it. False if it has ended.
pub fn cancel(job: u64) -> Result<bool> {
    let Some(slot) = segment()?.find(job)? else {
        return Ok(false);
    };
    slot.look_after(job)?;
    Ok(slot.cancel(job, Stop::Cancel))
}
