//! What a job does for a task of another database: it sets the task's settings, sends its rows as JSON, and leaves no transaction open.
//!
//! The types of the rows mean something in this database only, so they become JSON here, within the statement and as its role. A row that is one too
//! many, or a character that the task's database cannot have, is an error before the commit.

use crate::channel::request::Errand;
use crate::pg::error::{self, Result};
use crate::pg::guc::own;
use crate::pg::raw::Raw;
use crate::pg::reuse::compiled;
use crate::pg::value::json;
use core::cell::Cell;

thread_local! {
    /// The encoding of the task's database, if the rows of this job go there.
    static HOME: Cell<Option<i32>> = const { Cell::new(None) };
    /// Whether this job is a task's.
    static IS_TASK: Cell<bool> = const { Cell::new(false) };
}

/// Begins the errand of a job whose task is in a database with the encoding `home`. In a transaction, as the job's role. `is_used` tells whether this
/// process has run other jobs before.
pub fn begin(errand: &Errand, home: i32, is_used: bool) -> Result<()> {
    IS_TASK.set(errand.is_task);
    if let Some(most) = errand.rows {
        error::catching(|raw| json::begin(raw, most))?;
        HOME.set(Some(home));
    }
    for (name, value) in errand.settings() {
        own::set(name, value, false)?;
    }
    if !errand.settings.is_empty() {
        error::catching(|raw| compiled::text_changes_state(raw, is_used))?;
    }
    Ok(())
}

/// Whether this job is a task's.
pub fn is_task() -> bool {
    IS_TASK.get()
}

/// Whether the rows of the last statement are collected.
pub fn collects() -> bool {
    HOME.get().is_some()
}

/// What was collected, as the task's database reads it. After the last statement, in its transaction.
pub fn rows(raw: Raw<'_>) -> Option<&'static [u8]> {
    let home = HOME.get()?;
    json::collected().map(|json| json.text_for(raw, home))
}

/// The job has ended in any way.
pub fn end() {
    IS_TASK.set(false);
    if HOME.take().is_some() {
        error::if_possible(|| error::catching(json::end));
    }
}
