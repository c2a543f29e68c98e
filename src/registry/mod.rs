//! The registry: every job of the cluster, in shared memory.
//!
//! * [`segment`]: the slots, the free list, and the hash table by cookie;
//! * [`job`]: one job, from its launch to its end;
//! * [`life`]: how a job begins, ends and is forgotten;
//! * [`upkeep`]: frees expired results, and detects lost jobs;
//! * [`waiters`]: the processes that sleep until a job's end;
//! * [`history`]: the records of jobs that have ended;
//! * [`pool`]: the workers that serve one job after another, and which launch gets them;
//! * [`admission`]: how many jobs run, and the launch queue;
//! * [`counters`]: how the jobs of one session ended;
//! * [`totals`]: the same and more by database and role;
//! * [`list`]: lists of entries in shared memory.

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
