//! The functions that SQL calls, a file for each group of verbs.
//!
//! A function checks its arguments and rights, makes one call, and returns the answer. `sql/` declares the functions. The symbols' names are
//! part of the interface; catalogs of older releases refer to those with `_v2`.

pub mod cluster;
pub mod control;
pub mod info;
pub mod launch;
pub mod metrics;
pub mod privileges;
pub mod progress;
pub mod role;
pub mod run;
pub mod schedules;
pub mod tasks;
pub mod wait;

use crate::pg::error::Result;
use crate::pg::function::call::Call;
use crate::session::jobs::{self, Handle};
use std::rc::Rc;

/// Returns the handle in the first two arguments, None if one of them is NULL. Raises 42704, 55000 and 42501 like [`jobs::find`].
fn handle(call: &Call) -> Result<Option<Rc<Handle>>> {
    match (call.int4(0), call.int8(1)) {
        (Some(pid), Some(cookie)) => jobs::find(pid, cookie).map(Some),
        _ => Ok(None),
    }
}
