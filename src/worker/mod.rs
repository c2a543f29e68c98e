//! The other process: takes a job, puts itself into the job's state, runs it, tells how it ended.
//!
//! * [`main`]: one job after another, and what happens when the process must go in the middle;
//! * [`attached`]: the job that it has in hand;
//! * [`execute`]: the SQL, as the simple-query protocol runs it;
//! * [`work`]: what the engine does in the job's transaction;
//! * [`output`]: rows and messages on their way into the channel;
//! * [`idle`]: from one job to the next;
//! * [`verdict`]: what an error means for the job.

pub mod attached;
pub mod execute;
pub mod idle;
pub mod main;
pub mod output;
pub mod verdict;
pub mod work;

use core::ffi::CStr;

/// The symbol that the postmaster starts a worker for a job at.
pub const MAIN: &CStr = c"pg_background_worker_main";

/// The symbol that the postmaster starts a spare worker at.
pub const SPARE_MAIN: &CStr = c"pg_background_spare_worker_main";
