//! What the cluster knows: every job, in shared memory, under its lock.
//!
//! * [`segment`]: where the slots are, and which are free;
//! * [`job`]: one job, from its launch until nobody needs to know of it any more;
//! * [`pool`]: the workers that serve one job after another, and who gets them;
//! * [`counters`]: how the jobs of one session ended.

pub mod counters;
pub mod job;
pub mod pool;
pub mod segment;
