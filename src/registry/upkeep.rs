//! Upkeep that belongs to no particular process: frees results whose retention is over, and detects workers that have died, so that their
//! jobs end as lost and are not counted as running any more.
//!
//! There is no process of its own for this. Workers do it in passing ([`pass_by`]): idle ones at their regular checks, those that have just
//! ended a job, and those that exit. So do sessions that use the extension. If nothing is due, it costs one reading of the clock and of one
//! number. A process looks at all jobs when a result expires, and else once in each [`PERIOD`]; one compare-and-exchange elects it.
//!
//! If there is no worker and no session, upkeep waits for the next one. Until then it costs only memory: an expired result is not found,
//! and a process that looks at a lost job detects the loss. Code that needs the slots at once, or shows all jobs, calls [`look_after_all`].

use crate::pg::error::Result;
use crate::pg::process::backend;
use crate::registry::segment::{self, Segment};
use core::sync::atomic::Ordering::Relaxed;

/// How often a process looks at all jobs, in microseconds.
const PERIOD: i64 = 1_000_000;

/// Makes upkeep run at `at`, if not sooner.
pub fn is_due(segment: &Segment, at: i64) {
    segment.upkeep_at.fetch_min(at, Relaxed);
}

/// Does what is due. Raises nothing: what this process cannot map is left to others. Called without a lock; also while the process ends.
pub fn pass_by() {
    let Some(segment) = segment::attached() else { return };
    let (at, now) = (segment.upkeep_at.load(Relaxed), backend::now());
    // It is never further away than the period, unless the clock was set back.
    if (1..=PERIOD).contains(&(at - now)) {
        return;
    }
    // Later additions call `is_due` themselves; for existing jobs the loop below does it.
    let next = segment.upkeep_at.compare_exchange(at, now + PERIOD, Relaxed, Relaxed);
    if next.is_err() {
        return;
    }
    let Ok(slots) = segment.all() else { return };
    for slot in slots {
        let (at, cookie) = (slot.expires_at.load(Relaxed), slot.cookie.load(Relaxed));
        if at == 0 {
            if cookie != 0 {
                let _ = slot.look_after(cookie);
            }
        } else if at > now {
            is_due(segment, at);
        } else if slot.lock_if(cookie).is_some_and(|_job| slot.has_expired()) {
            slot.release(cookie);
        }
    }
}

/// Looks after all jobs of the cluster: a lost job counts as running, and keeps its slot, until a process does that. Returns whether one
/// was lost. The system's own error if the slots cannot be mapped.
pub fn look_after_all() -> Result<bool> {
    let mut found = false;
    for slot in segment::segment()?.all()? {
        let cookie = slot.cookie.load(Relaxed);
        if cookie != 0 {
            found |= slot.look_after(cookie)?;
        }
    }
    Ok(found)
}
