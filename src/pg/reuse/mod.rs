//! A worker between two jobs: into the state of the next session, and back to the one of a new process.
//!
//! * [`adopt`]: into a session's state and back;
//! * [`compiled`]: functions and plans that the process has kept;
//! * [`library`]: the libraries that it has loaded, and the file of this one;
//! * [`reset`]: what a job has left;
//! * [`standing`]: what a new connection would get.

pub mod adopt;
pub mod compiled;
pub mod library;
pub mod reset;
pub mod standing;
