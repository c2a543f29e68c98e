//! The jobs that this session waits for, and its bits in their lists of waiters.

use crate::pg::error::{Failure, Result};
use crate::pg::fallible;
use crate::registry::job::Slot;
use crate::registry::segment;
use std::cell::RefCell;

/// For how many jobs memory is kept from one wait to the next.
const FEW: usize = 64;

/// This session's bits in the jobs' lists of waiters. Dropping it clears them. The bits are read by the process that ends a job, and by the
/// deadlock check.
pub struct Waiting;

thread_local! {
    /// The jobs that this process waits for. It has them pinned.
    static JOBS: RefCell<Vec<&'static Slot>> = const { RefCell::new(Vec::new()) };
}

impl Waiting {
    /// Sets this session's bits. 53200.
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

/// Clears this process's bits, at the end of a wait, or when the process ends in the middle of one. The jobs are still pinned.
pub fn end() {
    JOBS.with(|jobs| {
        let Ok(mut jobs) = jobs.try_borrow_mut() else { return };
        jobs.drain(..).for_each(|slot| segment::waiters(slot).leave());
    });
}
