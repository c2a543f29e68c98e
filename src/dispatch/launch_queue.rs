//! An order that finds no worker, and the launch queue. Nothing in here sleeps: the caller is told for how long to sleep.
//!
//! A launch that is woken tries again. Nothing is reserved for it meanwhile: only its position in the launch queue keeps other launches
//! from overtaking it. Some events cause no wake-up, so a waiting launch also looks at intervals. Workers of other extensions end without
//! telling anybody, and the postmaster frees a slot only when it has reaped the process, a moment after that process has announced its end.
//!
//! A process has one entry in the launch queue, however many orders it has: it places one after the other.

use crate::pg::error::Result;
use crate::pg::process::backend;
use crate::pg::shmem::DsaPointer;
use crate::registry::admission::{self, NOT_QUEUED, NotAdmitted, Shortage};
use crate::registry::totals::Totals;
use crate::registry::{pool, upkeep};

/// How long a dismissed idle worker may take to exit, in microseconds.
const PATIENCE: i64 = 1_000_000;

/// How long a launch waits at most for the slots of processes that are exiting, whatever its timeout is, in microseconds.
const EXITING: i64 = 5_000_000;

/// How long the postmaster takes at most from the end of a process to the free slot, in microseconds.
const SEEN: i64 = 50_000;

/// How long it takes at most until the launches in front have taken what they need, in microseconds.
const BEHIND: i64 = 300_000;

/// How long after a wake-up or a dismissal the slot may still be on its way, in microseconds.
const MOMENT: i64 = 100_000;

/// How often a launch looks for a slot that is about to become free, in milliseconds. The postmaster frees it a moment after it has seen the
/// process go, and sets no latch.
const LOOK_FOR_SLOT: i64 = 1;

/// How often a launch looks that is the first to wait for something, and how often those behind it do, in milliseconds. Workers of other
/// extensions and of parallel query end without a word.
const LOOK: i64 = 100;
const LOOK_FROM_BEHIND: i64 = 1000;

/// The counters of an order.
#[derive(Clone, Copy)]
pub struct Counts {
    /// The counters of the session, if it has one.
    pub session: DsaPointer,
    pub role: DsaPointer,
    pub totals: DsaPointer,
}

/// The wait of this process, which may have to enter the launch queue. Dropping it leaves the queue.
#[derive(Default)]
pub struct QueuedOrder {
    began: Option<i64>,
    /// When an idle worker was dismissed for this launch.
    dismissed: Option<i64>,
    /// Until when a slot may become free without a wake-up. Until then the first launch in the queue looks every millisecond.
    expects_until: i64,
    /// Until when this launch waits for the slot of an exiting process.
    exiting_until: i64,
}

impl QueuedOrder {
    /// A worker was dismissed, which frees a slot for this launch.
    pub fn expect_slot(&mut self) {
        let now = backend::now();
        self.dismissed = Some(now);
        self.expects_until = now + MOMENT;
    }

    /// Called after an order was not admitted. Returns what to do next.
    ///
    /// If an idle worker can be dismissed, it is, and the launch waits for its slot whatever the timeout is. The same holds for the
    /// slot of a process that has just ended. For everything else it waits for `timeout_ms` at most, counted from the first call. Fails
    /// with the system's own error if shared memory cannot be mapped.
    pub fn next_step(&mut self, reason: NotAdmitted, counts: Counts, timeout_ms: i32) -> Result<NextStep> {
        let now = backend::now();
        let began = *self.began.get_or_insert(now);
        if reason.shortage != Shortage::Server {
            // A lost job counts as running until some process looks after it.
            if upkeep::look_after_all()? {
                return Ok(NextStep::LookAgain);
            }
        }
        let mut until = began + i64::from(timeout_ms) * 1000;
        if reason.shortage == Shortage::Server {
            if self.dismissed.is_none_or(|at| now - at > PATIENCE) {
                self.dismissed = None;
                if pool::dismiss_one(admission::my_position()) {
                    self.expect_slot();
                }
            }
            admission::set_promised(self.dismissed.is_some());
            until = self.dismissed.map_or(until, |at| until.max(at + PATIENCE));
            // A worker may have ended since the postmaster was asked, and the postmaster frees the slot a moment later.
            if pool::is_worker_exiting() {
                self.exiting_until = (now + SEEN).min(began + EXITING);
            }
            let exiting_until = self.exiting_until.max(began + SEEN);
            self.expects_until = self.expects_until.max(exiting_until);
            until = until.max(exiting_until);
            if reason.is_behind {
                // The launches in front may take the slot of a process that has just ended, and there may be another.
                until = until.max(began + BEHIND);
            }
        }
        if now >= until {
            Totals::at(counts.totals).refused();
            return Ok(NextStep::Refused {
                waited_ms: (now - began) / 1000,
            });
        }
        if admission::my_position() == NOT_QUEUED {
            pool::join_queue(counts.role, counts.session, reason.shortage)?;
            admission::set_promised(self.dismissed.is_some());
            // From here on this process is in the queue and is woken, so one more attempt closes the gap before it.
            return Ok(NextStep::LookAgain);
        }
        pool::wait_for(reason.shortage);
        let look = match reason {
            NotAdmitted { is_behind: true, .. } => LOOK_FROM_BEHIND,
            NotAdmitted {
                shortage: Shortage::Server,
                ..
            } if now < self.expects_until => LOOK_FOR_SLOT,
            _ => LOOK,
        };
        Ok(NextStep::Sleep(Sleep {
            since: now,
            ms: look.min((until - now + 999) / 1000),
        }))
    }

    /// The sleep is over. If it was cut short, this process was woken, and a slot may be on its way.
    pub fn awake(&mut self, sleep: Sleep) {
        let woken = backend::now();
        if woken - sleep.since < sleep.ms * 1000 {
            self.expects_until = woken + MOMENT;
        }
    }
}

/// What a launch that was not admitted does next.
pub enum NextStep {
    /// Reset the latch and try again at once.
    LookAgain,
    /// Sleep, reset the latch, and try again.
    Sleep(Sleep),
    /// The timeout is over, or there was none to begin with. The refusal is counted.
    Refused { waited_ms: i64 },
}

/// A sleep of `ms` milliseconds, which ends early when this process's latch is set.
#[derive(Clone, Copy)]
pub struct Sleep {
    since: i64,
    pub ms: i64,
}

impl Drop for QueuedOrder {
    fn drop(&mut self) {
        pool::leave_queue();
    }
}
