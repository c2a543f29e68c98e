//! A run in another database: the runner, at home, launches a job there and waits for its end. So the attempt and its outcome are noted where the
//! task is.
//!
//! The job has the role of the task and the rights that a launch asks for. It makes the task's settings itself, and sends the rows that are kept as JSON.
//! If this process ends before it does, the job is canceled: the task may run again.

use crate::channel::request::Errand;
use crate::pg::error::{self, Result};
use crate::pg::value::{json, kept};
use crate::pg::{fallible, transaction, wire};
use crate::registry::job::{Slot, Stop};
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
    /// The job in the other database.
    static JOB: Cell<Option<(&'static Slot, u64)>> = const { Cell::new(None) };
    /// Whether the last job there has lost its process.
    static WAS_LOST: Cell<bool> = const { Cell::new(false) };
}

/// Whether the process of the last run in another database has ended before the run did.
pub fn was_lost() -> bool {
    WAS_LOST.get()
}

/// Runs it, and notes its rows and its tag in `slot`, which has the run's own job. Outside of a transaction. Errors: those of [`launch::launch`], and
/// the job's own.
pub fn run(slot: &Slot, what: Elsewhere) -> Result<()> {
    if let Some(most) = what.rows {
        error::catching(|raw| json::begin(raw, most))?;
    }
    let settings = packed(what.settings)?;
    let launched = transaction::own(|| {
        launch::launch(&Arguments {
            sql: what.sql.to_bytes(),
            label: what.label.map(CStr::to_bytes),
            keeps_result: what.rows.is_some(),
            parameters: what.params.map(kept::record).transpose()?,
            database: Some(what.database),
            errand: Errand {
                settings: &settings,
                rows: what.rows,
            },
            ..Arguments::default()
        })
    })?;
    let handle = transaction::own(|| jobs::find(launched.pid, launched.cookie))?;
    JOB.set(Some((handle.slot, handle.cookie)));
    shared::works_as(handle.slot.number(), handle.cookie);
    let ended = see_to_its_end(&handle, slot, what.rows.is_some());
    JOB.set(None);
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
    if let Err(failure) = wait::for_job(handle, Deadline::after(0)) {
        // Whatever ended the wait ends the job.
        handle.cancel(Stop::Cancel);
        return Err(failure);
    }
    let (error, (rows, tag)) = {
        let job = handle.job();
        (job.error().copied(), job.outcome())
    };
    if let Some(error) = error {
        let fields = error.fields()?;
        let fields = wire::Fields(&fields);
        return Err(error::foreign(
            &error.sqlstate,
            fields.get(b'M').unwrap_or_default(),
            fields.get(b'D'),
            fields.get(b'H'),
        ));
    }
    if keeps_rows {
        transaction::own(|| read::json(handle, |text| error::catching(|raw| json::take(raw, text))))?;
    }
    let mut job = slot.lock();
    job.row_count = rows;
    (job.has_tag, job.tag) = (tag.is_some(), tag.unwrap_or(0));
    Ok(())
}

/// The process ends: so does the job in the other database. Needs no memory and must not fail.
pub fn abandon() {
    if let Some((slot, cookie)) = JOB.take() {
        slot.cancel(cookie, Stop::Cancel);
    }
}
