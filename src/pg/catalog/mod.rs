//! Look-ups in the catalogs and in the lock manager.
//!
//! * [`database`]: the other databases, and the right to connect to them;
//! * [`lock`]: which process waits for which;
//! * [`role`]: the rights of the current role on the jobs of other roles.

pub mod database;
pub mod lock;
pub mod role;
