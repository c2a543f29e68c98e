//! A run in another database: the runner, at home, launches a job there and waits for its end. So the attempt and its outcome are noted where the
//! task is.
//!
//! The job has the role of the task and the rights that a launch asks for. It makes the task's settings itself, and sends the rows that are kept as JSON.
//! If this process ends before it does, the keeper cancels the job: the task may run again.

use crate::channel::request::Errand;
use crate::pg::error::{self, Failure, Result};
use crate::pg::process::latch;
use crate::pg::value::{encoding, json, kept};
use crate::pg::{fallible, moment, transaction, wire};
use crate::registry::job::{Error, Slot, Stop};
use crate::registry::segment::segment;
use crate::session::jobs::{self, Handle};
use crate::session::launch::{self, Arguments};
use crate::session::read;
use crate::session::wait::{self, Deadline};
use crate::tasks::shared;
use core::cell::Cell;
use core::ffi::CStr;
use std::rc::Rc;

/// What is to be run, and where.
#[derive(Clone, Copy)]
pub struct Elsewhere<'a> {
    pub sql: &'a CStr,
    pub label: Option<&'a CStr>,
    pub database: &'a CStr,
    /// The names of the types of the parameters, and their values.
    pub params: Option<&'a [(&'a CStr, Option<&'a CStr>)]>,
    pub settings: &'a [(&'a CStr, Option<&'a CStr>)],
    /// How many bytes of JSON the rows that are kept may have.
    pub rows: Option<usize>,
}

thread_local! {
    /// Whether the last job there has lost its process.
    static WAS_LOST: Cell<bool> = const { Cell::new(false) };
}

/// Whether the process of the last run in another database has ended before the run did.
pub fn was_lost() -> bool {
    WAS_LOST.get()
}

/// How often the end of a job is looked for that was told to end, in milliseconds.
const LOOK: i64 = 20;

/// Runs it, and notes its rows and its tag in `slot`, which has the run's own job. Outside of a transaction. Errors: those of [`launch::launch`], and
/// the job's own.
pub fn run(slot: &Slot, what: Elsewhere) -> Result<()> {
    moment::may_fail("launching elsewhere")?;
    if let Some(most) = what.rows {
        error::catching(|raw| json::begin(raw, most))?;
    }
    let settings = packed(what.settings)?;
    let job = Cell::new(0);
    let handle = transaction::own(|| {
        let launched = launch::launch(&Arguments {
            sql: what.sql.to_bytes(),
            label: what.label.map(CStr::to_bytes),
            keeps_result: what.rows.is_some(),
            parameters: what.params.map(kept::record).transpose()?,
            database: Some(what.database),
            errand: Errand {
                settings: &settings,
                rows: what.rows,
                is_task: true,
            },
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
    let ended = see_to_its_end(&handle, slot, what.rows.is_some());
    WAS_LOST.set(handle.job().error().is_some_and(|error| error.lost));
    jobs::release(&handle);
    ended
}

/// Each name and its value, with NULs behind them.
fn packed(settings: &[(&CStr, Option<&CStr>)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, value) in settings {
        for text in [*name, value.unwrap_or_default()] {
            let text = text.to_bytes_with_nul();
            fallible::reserve(&mut bytes, text.len())?;
            bytes.extend_from_slice(text);
        }
    }
    Ok(bytes)
}

fn see_to_its_end(handle: &Rc<Handle>, slot: &Slot, keeps_rows: bool) -> Result<()> {
    let waited = moment::may_fail("launched elsewhere").and_then(|()| wait::for_job(handle, Deadline::after(0)));
    if let Err(failure) = waited {
        end(handle.cookie);
        return Err(failure);
    }
    moment::may_fail("ended elsewhere")?;
    let (error, encoding, (rows, tag)) = {
        let job = handle.job();
        (job.error().copied(), job.encoding, job.outcome())
    };
    if let Some(error) = error {
        let fields = error.fields()?;
        return Err(transaction::own(|| readable(&error, &wire::Fields(&fields), encoding))?);
    }
    if keeps_rows {
        transaction::own(|| read::json(handle, |text| error::catching(|raw| json::take(raw, text))))?;
    }
    let mut job = slot.lock();
    job.row_count = rows;
    (job.has_tag, job.tag) = (tag.is_some(), tag.unwrap_or(0));
    Ok(())
}

/// The error of the job there, whose texts have the encoding of that database.
fn readable(error: &Error, fields: &wire::Fields, from: i32) -> Result<Failure> {
    let text = |field| fields.get(field).map(|text| encoding::readable(text, from)).transpose();
    let (message, detail, hint) = (text(b'M')?, text(b'D')?, text(b'H')?);
    let message = message.as_deref().unwrap_or_default();
    Ok(error::foreign(
        &error.sqlstate,
        message,
        detail.as_deref(),
        hint.as_deref(),
    ))
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
