//! Durable tasks: the second extension, `pg_background_tasks`.
//!
//! A task is a row of `background.task` from the commit of the transaction that enqueued it until it has ended; then it is a row of one of the
//! tables of runs. No row says that a task runs: that is known in shared memory only.
//!
//! * [`tables`]: the tables, and the numbers of their columns;
//! * [`join`]: what a session tells at its first call;
//! * [`stamp`]: what tells a database from its copies;
//! * [`options`]: what an enqueue is asked for, checked;
//! * [`enqueue`]: from the options to a row;
//! * [`keys`]: an enqueue that finds a task of the same key;
//! * [`parents`]: the tasks that a task waits for;
//! * [`pushed`]: who is told after the commit;
//! * [`queue`]: queues and their settings;
//! * [`end`]: tasks that end without a run, and what follows from that;
//! * [`control`]: cancel, retry, wait, result;
//! * [`ready`]: the ready cache: which tasks run next;
//! * [`shared`]: what all processes know: claims, what is due, the clock;
//! * [`clock`]: the process that has workers started;
//! * [`keeper`]: what is due becomes ready;
//! * [`runner`]: one run of one task;
//! * [`elsewhere`]: a run in another database;
//! * [`running`]: what is known of tasks that run;
//! * [`history`]: what is noted of their ends;
//! * [`retention`]: how long that is kept;
//! * [`totals`]: how many have ended;
//! * [`operation`]: large statements that run in chunks;
//! * [`by`]: what chunks are ranges of;
//! * [`extent`]: how large tables are;
//! * [`lane`]: the tasks that have the chunks;
//! * [`cut`]: how a lane gets its chunk;
//! * [`chunk_size`]: how large that is;
//! * [`steer`]: pause, cancel, retry, wait.

mod by;
mod chunk_size;
pub mod clock;
pub mod control;
mod cut;
mod elsewhere;
pub mod end;
pub mod enqueue;
mod extent;
pub mod history;
pub mod join;
pub mod keeper;
mod keys;
mod lane;
pub mod operation;
pub mod options;
mod parents;
pub mod pushed;
pub mod queue;
mod ready;
mod retention;
pub mod runner;
pub mod running;
mod shared;
pub mod stamp;
pub mod steer;
pub mod tables;
pub mod totals;
