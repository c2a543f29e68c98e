//! Settings: ours, and the state of a session's on its way to a worker.
//!
//! * [`own`]: the definition of ours, and the values of PostgreSQL's that are needed here;
//! * [`serialized`]: the state of a session's settings, written and taken over;
//! * [`unchanged`]: whether it is still what was written.

pub mod apply;
pub mod own;
pub mod serialized;
pub mod unchanged;
