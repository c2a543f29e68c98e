//! The worker process: takes a job, adopts the state that it is to run in, runs it, and publishes how it ended.
//!
//! * [`main`]: one job after another, and what happens when the process ends in the middle of one;
//! * [`attached`]: the job that the worker has attached to;
//! * [`execute`]: runs the SQL as the simple-query protocol does;
//! * [`errand`]: what the job does for a task of another database;
//! * [`stop`]: a job that was told to stop ends, whatever its functions catch;
//! * [`work`]: what the engine does in the job's transaction;
//! * [`output`]: writes rows and messages into the channel;
//! * [`idle`]: the idle loop, from one job to the next;
//! * [`verdict`]: what an error means for the job.

pub mod attached;
pub mod errand;
pub mod execute;
pub mod idle;
pub mod main;
pub mod output;
pub mod stop;
pub mod verdict;
pub mod work;

use core::ffi::CStr;

/// The symbol of the entry point of a worker for a job.
pub const MAIN: &CStr = c"pg_background_worker_main";

/// The symbol of the entry point of a spare worker.
pub const SPARE_MAIN: &CStr = c"pg_background_spare_worker_main";
