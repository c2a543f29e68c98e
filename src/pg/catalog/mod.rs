//! Look-ups in the catalogs and in the lock manager.
//!
//! * [`database`]: the other databases, and the right to connect to them;
//! * [`extension`]: the tables of other extensions;
//! * [`lock`]: which process waits for which;
//! * [`object`]: locks on names in tables of the second extension;
//! * [`owner`]: the tables of the second extension, and acting as their owner;
//! * [`role`]: the rights of the current role on the jobs of other roles;
//! * [`size`]: how large tables are, and how types are ordered.

pub mod database;
pub mod extension;
pub mod lock;
pub mod object;
pub mod owner;
pub mod role;
pub mod size;
