//! The line of those who found no room. Nothing in here sleeps: it tells how long to.
//!
//! Whoever is told of room looks again, and nothing is reserved for it meanwhile: what keeps others from being faster is the place in
//! line alone. What nobody tells is looked for now and then: other extensions' workers end in silence, and the postmaster has a slot
//! free only after it has seen the process go, a moment after that has told.
//!
//! A process has one place in queued, however many orders it has: it places one after the other.

use crate::pg::error::Result;
use crate::pg::process::backend;
use crate::pg::shmem::DsaPointer;
use crate::registry::admission::{self, NOT_QUEUED, Short, Shortage};
use crate::registry::totals::Totals;
use crate::registry::{pool, upkeep};

/// How long an idle worker that was sent away has to go, in microseconds.
const PATIENCE: i64 = 1_000_000;

/// How long a launch waits in any case for the slots of processes that are going, in microseconds.
const GOING: i64 = 5_000_000;

/// How long it takes the postmaster at most to have a slot free when it has seen the process go, in microseconds.
const SEEN: i64 = 50_000;

/// How long it takes at most to see what is left by those in front, in microseconds.
const BEHIND: i64 = 300_000;

/// How long after a wake-up the slot may still be on its way, in microseconds.
const MOMENT: i64 = 100_000;

/// How often who is the first for something looks, and how often the others do, in milliseconds.
const LOOK: i64 = 100;
const LOOK_FROM_BEHIND: i64 = 1000;

/// Where an order counts.
#[derive(Clone, Copy)]
pub struct Counts {
    /// The counters of the session, if it has one.
    pub session: DsaPointer,
    pub role: DsaPointer,
    pub totals: DsaPointer,
}

/// This process, which may have to wait; out of the line when dropped.
#[derive(Default)]
pub struct QueuedOrder {
    began: Option<i64>,
    /// When an idle worker was sent away for this launch.
    dismissed: Option<i64>,
    /// Until when a slot may become free without a word.
    expects_until: i64,
    /// Until when the slot of a process that was going is waited for.
    going_until: i64,
}

impl QueuedOrder {
    /// A worker was sent away, which makes room for this launch.
    pub fn expect_slot(&mut self) {
        let now = backend::now();
        self.dismissed = Some(now);
        self.expects_until = now + MOMENT;
    }

    /// There was no room for an order. Where an idle worker can make room for it, it is sent away, and that is waited for in any case, as is the slot of a
    /// process that has just ended; for all else no longer than `timeout_ms` from the first time on. The system's own error where it refuses to map
    /// what this needs.
    pub fn stand(&mut self, short: Short, counts: Counts, timeout_ms: i32) -> Result<Stand> {
        let now = backend::now();
        let began = *self.began.get_or_insert(now);
        if short.of != Shortage::Server {
            // A job that is lost counts until somebody looks after it.
            if upkeep::look_after_all()? {
                return Ok(Stand::LookAgain);
            }
        }
        let mut until = began + i64::from(timeout_ms) * 1000;
        if short.of == Shortage::Server {
            if self.dismissed.is_none_or(|at| now - at > PATIENCE) {
                self.dismissed = None;
                if pool::dismiss_one(admission::my_position()) {
                    self.expect_slot();
                }
            }
            admission::set_promised(self.dismissed.is_some());
            until = self.dismissed.map_or(until, |at| until.max(at + PATIENCE));
            // One may have gone since the postmaster was asked, and it sees a process go a moment before it has the slot free.
            if pool::is_one_going() {
                self.going_until = (now + SEEN).min(began + GOING);
            }
            let going_until = self.going_until.max(began + SEEN);
            self.expects_until = self.expects_until.max(going_until);
            until = until.max(going_until);
            if short.is_behind {
                // Those in front may have the slot of a process that has just gone, and there may be one more.
                until = until.max(began + BEHIND);
            }
        }
        if now >= until {
            Totals::at(counts.totals).refused();
            return Ok(Stand::Refused {
                waited_ms: (now - began) / 1000,
            });
        }
        if admission::my_position() == NOT_QUEUED {
            pool::join_queue(counts.role, counts.session, short.of)?;
            admission::set_promised(self.dismissed.is_some());
            // Whatever happens from here on, this process is woken.
            return Ok(Stand::LookAgain);
        }
        pool::wait_for(short.of);
        let look = match short {
            Short { is_behind: true, .. } => LOOK_FROM_BEHIND,
            Short {
                of: Shortage::Server, ..
            } if now < self.expects_until => 1,
            _ => LOOK,
        };
        Ok(Stand::Sleep(Sleep {
            since: now,
            ms: look.min((until - now + 999) / 1000),
        }))
    }

    /// The sleep is over. One that somebody has ended before its time means that a slot may be on its way.
    pub fn awake(&mut self, sleep: Sleep) {
        let woken = backend::now();
        if woken - sleep.since < sleep.ms * 1000 {
            self.expects_until = woken + MOMENT;
        }
    }
}

/// What to do where there is no room.
pub enum Stand {
    /// Reset the latch and try again at once.
    LookAgain,
    /// Sleep, reset the latch, and try again.
    Sleep(Sleep),
    /// The time is over, or there was none to begin with. The refusal is counted.
    Refused { waited_ms: i64 },
}

/// How long to sleep, unless somebody sets this process's latch.
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
