//! What the cluster knows: every job, in shared memory, under its lock.
//!
//! * [`segment`]: where the slots are, which are free, and which is whose;
//! * [`job`]: one job, from its launch to its end;
//! * [`life`]: it begins, ends and is forgotten;
//! * [`upkeep`]: what is freed and noticed in passing;
//! * [`waiters`]: who sleeps until its end;
//! * [`history`]: what is remembered of it afterwards;
//! * [`pool`]: the workers that serve one job after another, and who gets them;
//! * [`admission`]: how many jobs run, and which launches wait until one more may;
//! * [`counters`]: how the jobs of one session ended;
//! * [`totals`]: the same and more by database and role;
//! * [`list`]: how entries hang together.

pub mod admission;
pub mod counters;
pub mod history;
pub mod job;
pub mod life;
pub mod list;
pub mod pool;
pub mod segment;
pub mod totals;
pub mod upkeep;
pub mod waiters;
