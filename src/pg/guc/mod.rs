//! Settings: the extension's own, and the transfer of a session's settings to a worker.
//!
//! * [`apply`]: a session's settings, and how a worker takes them over;
//! * [`own`]: the definition of the extension's settings, and the values of PostgreSQL's that are needed here;
//! * [`serialized`]: the serialized form of settings;
//! * [`unchanged`]: whether the settings are still as they were written.

pub mod apply;
pub mod own;
pub mod serialized;
pub mod unchanged;
