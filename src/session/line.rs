//! In line for a worker, for `pg_background.launch_timeout`.
//!
//! Whoever is told of room looks again, and nothing is reserved for it meanwhile: what keeps others from being faster is the place in
//! line alone. What nobody tells is looked for now and then: other extensions' workers end in silence, and the postmaster has a slot
//! free only after it has seen the process go, a moment after that has told.

use crate::pg::error::{Report, Result};
use crate::pg::process::{backend, latch};
use crate::pg::shmem::Offset;
use crate::pg::spi;
use crate::registry::room::{self, NO_SPOT, Short, Shortage};
use crate::registry::totals::Totals;
use crate::registry::{life, pool};
use crate::settings;
use pgrx::PgSqlErrorCode;

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

/// Where a launch counts.
#[derive(Clone, Copy)]
pub struct Places {
    pub session: Offset,
    pub role: Offset,
    pub totals: Offset,
}

/// A launch that may have to wait; out of the line when dropped.
#[derive(Default)]
pub struct Line {
    began: Option<i64>,
    /// When an idle worker was sent away for this launch.
    dismissed: Option<i64>,
    /// Until when a slot may become free without a word.
    expects_until: i64,
    /// Until when the slot of a process that was going is waited for.
    going_until: i64,
}

impl Line {
    /// A worker was sent away, which makes room for this launch.
    pub fn expect_slot(&mut self) {
        let now = backend::now();
        self.dismissed = Some(now);
        self.expects_until = now + MOMENT;
    }

    /// There was no room: sleeps until there may be some. The caller looks again. Where the time is over, or there was none to begin
    /// with, the refusal is counted and is the error: 53000 for the server's slots, 53400 for a cap. Where an idle worker can make room
    /// for this launch, it is sent away, and that is waited for in any case, as is the slot of a process that has just ended.
    pub fn wait(&mut self, short: Short, places: Places) -> Result<()> {
        let now = backend::now();
        let began = *self.began.get_or_insert(now);
        if short.of != Shortage::Server {
            // A job that is lost counts until somebody looks after it.
            if life::look_after_all()? {
                return Ok(());
            }
        }
        let mut until = began + i64::from(settings::launch_timeout()) * 1000;
        if short.of == Shortage::Server {
            if self.dismissed.is_none_or(|at| now - at > PATIENCE) {
                self.dismissed = None;
                if pool::dismiss_one(room::my_place()) {
                    self.expect_slot();
                }
            }
            room::set_promised(self.dismissed.is_some());
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
            Totals::at(places.totals).refused();
            return Err(refusal(short, (now - began) / 1000).into());
        }
        if room::my_place() == NO_SPOT {
            pool::enter_line(places.role, places.session, short.of)?;
            room::set_promised(self.dismissed.is_some());
        } else {
            pool::wait_for(short.of);
            self.sleep(short, now, until)?;
        }
        // Whatever happens from here on, the caller sees it or is woken.
        latch::reset_latch();
        Ok(())
    }

    fn sleep(&mut self, short: Short, now: i64, until: i64) -> Result<()> {
        let look = match short {
            Short { is_behind: true, .. } => LOOK_FROM_BEHIND,
            Short {
                of: Shortage::Server, ..
            } if now < self.expects_until => 1,
            _ => LOOK,
        };
        let pause = look.min((until - now + 999) / 1000);
        spi::forget_catalog_snapshot();
        latch::wait(pause)?;
        let woken = backend::now();
        if woken - now < pause * 1000 {
            self.expects_until = woken + MOMENT;
        }
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        pool::leave_line();
    }
}

fn refusal(short: Short, waited: i64) -> Report {
    let running = short.running;
    let mut detail = match short.of {
        Shortage::Session => format!("{running} jobs of this session are running."),
        Shortage::Role => format!(
            "{running} jobs of this role are running, and pg_background.max_role_workers is {}.",
            short.cap
        ),
        Shortage::Cluster => format!(
            "{running} jobs of the cluster are running, and pg_background.max_cluster_workers is {}.",
            short.cap
        ),
        Shortage::Server => String::new(),
    };
    let mut add = |sentence: &str| {
        if !detail.is_empty() {
            detail.push(' ');
        }
        detail.push_str(sentence);
    };
    if short.is_behind {
        add("Other launches are waiting for one to end.");
    }
    if waited > 0 && settings::launch_timeout() > 0 {
        add(&format!("The launch has waited for {waited} ms."));
    }
    let report = match short.of {
        Shortage::Server => Report::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            "could not register background process",
        )
        .hint("You may need to increase max_worker_processes."),
        Shortage::Session | Shortage::Role | Shortage::Cluster => Report::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "too many background workers",
        )
        .hint(match short.of {
            Shortage::Session => "Wait for a job to end, or raise pg_background.max_workers.",
            _ => "Wait for a job to end, or set pg_background.launch_timeout.",
        }),
    };
    match detail.as_str() {
        "" => report,
        _ => report.detail(detail),
    }
}
