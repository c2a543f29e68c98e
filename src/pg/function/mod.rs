//! Functions that SQL calls.
//!
//! * [`call`]: arguments in, answers out, errors raised in a frame that owns nothing;
//! * [`rows`]: the rows that a function returns, and the values in them;
//! * [`scan`]: rows that go to the executor as they come.

#[macro_use]
pub mod call;
pub mod rows;
pub mod scan;

use pgrx::pg_sys::{Datum, FunctionCallInfo};

/// What SQL calls a function through.
pub type Entry = extern "C-unwind" fn(FunctionCallInfo) -> Datum;
