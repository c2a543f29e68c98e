//! What the engine does in the transaction of a job, before the job's first statement and after its last one. Raw.
//!
//! It acts as the job's user, and an error in it is the job's error, so effect and mark are one transaction. Where it needs other
//! rights, or a snapshot of its own, it sees to that itself, and leaves the roles and the active snapshot as it found them.

use crate::channel::request::Work;

/// Before the first statement.
pub fn before(work: Work) {
    match work {
        Work::None => (),
    }
}

/// After the last statement, before the commit.
pub fn after(work: Work) {
    match work {
        Work::None => (),
    }
}
