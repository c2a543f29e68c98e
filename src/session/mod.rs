//! The session: the jobs that it launched, and what it does with them.
//!
//! * [`jobs`]: the handles of this session;
//! * [`launch`]: from the arguments to the handle of a job that has a worker;
//! * [`launch_queue`]: waiting until a launch is admitted;
//! * [`wait`] and [`waiting`]: waiting until jobs end, and [`deadlock`]: if that can never be;
//! * [`read`]: a job's rows, messages and error.

pub mod deadlock;
pub mod jobs;
pub mod launch;
pub mod launch_queue;
pub mod read;
pub mod wait;
pub mod waiting;
