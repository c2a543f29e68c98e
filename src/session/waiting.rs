//! This session on the lists of those who wait for a job, for whoever ends the job or looks for deadlocks.

use crate::pg::error::{Failure, Result};
use crate::pg::fallible;
use crate::registry::job::Slot;
use crate::registry::segment;
use std::cell::RefCell;

/// For how many jobs memory is kept from one wait to the next.
const FEW: usize = 64;

/// This session on the jobs' lists of those who wait, for whoever ends a job or looks for deadlocks.
pub struct Waiting;

thread_local! {
    /// The jobs that this process waits for, which it has in hand.
    static JOBS: RefCell<Vec<&'static Slot>> = const { RefCell::new(Vec::new()) };
}

impl Waiting {
    /// Enters this session. 53200.
    pub fn begin(slots: impl ExactSizeIterator<Item = &'static Slot>) -> Result<Self> {
        JOBS.with_borrow_mut(|jobs| {
            fallible::reserve(jobs, slots.len())?;
            jobs.extend(slots);
            jobs.iter().for_each(|slot| segment::waiters(slot).enter());
            Ok::<_, Failure>(Self)
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        end();
        JOBS.with_borrow_mut(|jobs| jobs.shrink_to(FEW));
    }
}

/// Takes this process off the lists, at the end of a wait or in the middle of one at the end of the process. The jobs are still in
/// hand.
pub fn end() {
    JOBS.with(|jobs| {
        let Ok(mut jobs) = jobs.try_borrow_mut() else { return };
        jobs.drain(..).for_each(|slot| segment::waiters(slot).leave());
    });
}
