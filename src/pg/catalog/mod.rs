//! What is looked up in the catalogs.
//!
//! * [`database`]: another database, and the right to connect to it;
//! * [`lock`]: locks on objects;
//! * [`object`]: locks on what has a name of ours;
//! * [`owner`]: the tables of the second extension, and acting as their owner;
//! * [`role`]: who may act for whom.

pub mod database;
pub mod lock;
pub mod object;
pub mod owner;
pub mod role;
