//! A run in another database: the runner, at home, launches a job there and waits for its end. So the attempt and its outcome are noted where the
//! task is.
//!
//! The job has the role of the task and the rights that a launch asks for. Its rows are thrown away.

use crate::pg::error::{self, Result};
use crate::pg::value::kept;
use crate::pg::{moment, transaction, wire};
use crate::registry::job::{Slot, Stop};
use crate::session::jobs;
use crate::session::launch::{self, Arguments};
use crate::session::wait::{self, Deadline};
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

/// Runs it, and notes its rows and its tag in `slot`, which has the run's own job. Outside of a transaction. Errors: those of [`launch::launch`], and
/// the job's own.
pub fn run(slot: &Slot, what: Elsewhere) -> Result<()> {
    moment::may_fail("launching elsewhere")?;
    let launched = transaction::own(|| {
        launch::launch(&Arguments {
            sql: what.sql.to_bytes(),
            label: what.label.map(CStr::to_bytes),
            parameters: what.params.map(kept::record).transpose()?,
            database: Some(what.database),
            ..Arguments::default()
        })
    })?;
    moment::may_fail("launched elsewhere")?;
    let handle = transaction::own(|| jobs::find(launched.pid, launched.cookie))?;
    if let Err(failure) = wait::for_job(&handle, Deadline::after(0)) {
        // Whatever ended the wait ends the job.
        handle.cancel(Stop::Cancel);
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
