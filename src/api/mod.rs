//! The functions that SQL calls, a file for each group of verbs: arguments and rights are checked, one call is made, the answer
//! given. `sql/` declares them; the symbols' names are part of the interface, `_v2` ones for catalogs of older releases too.

pub mod cluster;
pub mod control;
pub mod info;
pub mod launch;
pub mod privileges;
pub mod progress;
pub mod role;
pub mod run;
pub mod tasks;
pub mod wait;

use crate::pg::error::Result;
use crate::pg::function::call::Call;
use crate::session::jobs::{self, Handle};
use std::rc::Rc;

/// The handle in the first two arguments; None where a part is NULL. 42704, 55000 and 42501 as
/// [`jobs::find`].
fn handle(call: &Call) -> Result<Option<Rc<Handle>>> {
    match (call.int4(0), call.int8(1)) {
        (Some(pid), Some(cookie)) => jobs::find(pid, cookie).map(Some),
        _ => Ok(None),
    }
}
