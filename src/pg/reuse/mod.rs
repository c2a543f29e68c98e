//! Reuse of a worker for another job: it adopts the state of the next session, and returns to the state of a new process.
//!
//! * [`adopt`]: adoption of a session's state, and the return from it;
//! * [`compiled`]: functions and plans that the process keeps;
//! * [`library`]: the libraries that it has loaded, and the file of this one;
//! * [`reset`]: discarding what a job has left;
//! * [`connection_version`]: the connection version.

pub mod adopt;
pub mod compiled;
pub mod connection_version;
pub mod library;
pub mod reset;
