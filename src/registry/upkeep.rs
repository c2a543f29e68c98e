//! What is nobody's own business: results that were retained long enough are freed, and workers that went without a word are
//! noticed, so that their jobs are lost and count no more.
//!
//! No process exists for this. Workers do it in passing ([`pass_by`]): an idle one at the looks that it takes anyway, one that has just ended a job, and one that
//! ends. So do sessions that use the extension. Where nothing is due it costs one look at the clock and at one number. Somebody looks at all jobs when a result is to
//! go, and each [`PERIOD`] else, and no two do it at once.
//!
//! Where there is no worker and no session, it waits for the next one. Until then all that it costs is memory: a result that
//! has expired is not found, and whoever looks at a lost job notices it. Who needs the room at once, or shows all jobs, calls
//! [`look_after_all`].

use crate::pg::error::Result;
use crate::pg::process::backend;
use crate::registry::segment::{self, Segment};
use core::sync::atomic::Ordering::Relaxed;

/// How often somebody looks at all jobs, in microseconds.
const PERIOD: i64 = 1_000_000;

/// Something is to be done at `at`.
pub fn is_due(segment: &Segment, at: i64) {
    segment.upkeep_at.fetch_min(at, Relaxed);
}

/// Does what is due. Raises nothing: what this process cannot map is left to others. Without a lock; also while the process ends.
pub fn pass_by() {
    let Some(segment) = segment::attached() else { return };
    let (at, now) = (segment.upkeep_at.load(Relaxed), backend::now());
    // Never further away than the period, unless the clock was set back.
    if (1..=PERIOD).contains(&(at - now)) {
        return;
    }
    // What is added from here on is noted by whoever adds it, the rest below.
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

/// Looks after all jobs of the cluster: those that are lost count as running, and keep what they have, until somebody looks. Tells
/// whether there was one. The system's own error where it refuses to map them.
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
