//! What is looked up in the catalogs.
//!
//! * [`database`]: another database, and the right to connect to it;
//! * [`lock`]: locks on objects;
//! * [`role`]: who may act for whom.

pub mod database;
pub mod lock;
pub mod role;
