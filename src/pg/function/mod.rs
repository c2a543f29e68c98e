//! Functions that SQL calls.
//!
//! * [`call`]: arguments in, answers out;
//! * [`scan`]: rows that go to the executor as they come.

#[macro_use]
pub mod call;
pub mod scan;
