//! Functions that SQL calls.
//!
//! * [`call`]: arguments, results, and errors raised in a frame that owns nothing;
//! * [`rows`]: the rows that a function returns, and the values in them;
//! * [`scan`]: rows that are passed to the executor one by one.

#[macro_use]
pub mod call;
pub mod rows;
pub mod scan;

use pgrx::pg_sys::{Datum, FunctionCallInfo};

/// The C entry point of a function that SQL calls.
pub type Entry = extern "C-unwind" fn(FunctionCallInfo) -> Datum;
