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
//! * [`pushed`]: what is told after the commit;
//! * [`queue`]: queues and their settings;
//! * [`end`]: tasks that end without a run, and what follows from that;
//! * [`control`]: cancel, retry, wait, result;
//! * [`ready`]: the ready cache: which tasks run next;
//! * [`shared`]: what all processes know: claims, what is due, the clock;
//! * [`clock`]: the process that has workers started;
//! * [`keeper`]: what is due becomes ready;
//! * [`stay`]: the keeper that stays, as it is soon to look again;
//! * [`jump`]: jumps of the server's clock;
//! * [`schedule`]: schedules, and their changes;
//! * [`spec`]: when a schedule is due, as it was written; [`fields`]: the fields of cron, by [`cursor`];
//! * [`occurrence`]: the times at which it is due; [`cron`]: those that fields name; [`calendar`]: days and months;
//! * [`due`]: which occurrences are due, and which were missed;
//! * [`fire`]: they become tasks;
//! * [`outcome`]: what is noted with the schedule of their ends;
//! * [`import`]: schedules made of the jobs of pg_cron; [`pg_cron`]: those jobs;
//! * [`runner`]: one run of one task;
//! * [`elsewhere`]: a run in another database;
//! * [`running`]: what is known of tasks that run;
//! * [`history`]: what is noted of their ends;
//! * [`retention`]: how long that is kept;
//! * [`totals`]: how many have ended;
//! * [`operation`]: large statements that run in chunks;
//! * [`by`]: what chunks are ranges of; [`range`]: the next range of keys;
//! * [`extent`]: how large tables are;
//! * [`lane`]: the tasks that have the chunks;
//! * [`cut`]: how a lane gets its chunk;
//! * [`chunk_size`]: how large that is;
//! * [`steer`]: pause, cancel, retry, wait.
//!
//! The probe has `known`, too: what shared memory knows of a task that waits.

mod by;
mod calendar;
mod chunk_size;
pub mod clock;
pub mod control;
mod cron;
mod cursor;
mod cut;
mod due;
mod elsewhere;
pub mod end;
pub mod enqueue;
mod extent;
mod fields;
mod fire;
pub mod history;
pub mod import;
pub mod join;
mod jump;
pub mod keeper;
mod keys;
#[cfg(feature = "probe")]
pub mod known;
mod lane;
mod occurrence;
pub mod operation;
pub mod options;
mod outcome;
mod parents;
mod pg_cron;
pub mod pushed;
pub mod queue;
mod range;
mod ready;
mod retention;
pub mod runner;
pub mod running;
pub mod schedule;
mod shared;
pub mod spec;
pub mod stamp;
mod stay;
pub mod steer;
pub mod tables;
pub mod totals;

pub use shared::start_clock;
