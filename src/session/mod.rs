//! What this backend knows: the jobs that it launched, and what it does with them.
//!
//! * [`jobs`]: the handles of this session;
//! * [`launch`]: from the arguments to the handle of a job in a worker's hands;
//! * [`launch_queue`]: until there is room for one more job;
//! * [`wait`]: until jobs end, and [`deadlock`]: when that can never be;
//! * [`read`]: a job's rows, messages and error.

pub mod deadlock;
pub mod jobs;
pub mod launch;
pub mod launch_queue;
pub mod read;
pub mod wait;
pub mod waiting;
