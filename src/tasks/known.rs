//! What shared memory knows of tasks, for tests that compare it with the table.

use crate::pg::error::Result;
use crate::tasks::pushed::Task;
use crate::tasks::{join, shared};

/// What is known of a task of this database that waits, as [`shared::knows`] says.
pub fn of(task: &Task) -> Result<&'static str> {
    join::tables()?;
    shared::knows(task.which(), task.entry())
}

/// The claims of the cluster, as [`shared::count_claims`] counts them.
pub fn claims() -> Result<[usize; 3]> {
    shared::count_claims()
}
