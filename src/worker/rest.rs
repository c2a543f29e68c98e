//! Between two jobs.
//!
//! 1. [`Terms::prepare`]: the job's transaction is over. What the job left in this process is undone, and where that cannot be
//!    shown to have succeeded the process ends after this job. Then the process offers itself. All that comes before the end is
//!    published: the session that waits for it launches its next job at once, and is to find this worker;
//! 2. the end is published;
//! 3. [`wait`]: until a job was posted, or the time is over, or somebody needs the room.
//!
//! A spare process, which the postmaster was asked for before there was a job for it, begins with [`stand_by`].

use crate::channel::request::Request;
use crate::pg::error;
use crate::pg::process::{backend, latch, signals};
use crate::pg::raw::Raw;
use crate::pg::reuse::standing::{self, Kind};
use crate::pg::reuse::{adopt, library, reset};
use crate::registry::job::Error;
use crate::registry::pool::{self, Fit, Found, Place};
use crate::registry::segment::segment;
use crate::registry::upkeep;
use crate::session::jobs;
use crate::settings;
use crate::worker::attached::{self, Attached};
use std::cell::Cell;

/// How often an idle worker looks whether it should go, and how soon after a job for the first time, in milliseconds. Who wants
/// to drop or copy a database waits five seconds for others to leave it (`CountOtherDBBackends`).
const LOOK: i64 = 200;
const FIRST_LOOK: i64 = 20;

/// How long a spare process waits for its job, in milliseconds.
const SPARE_TIMEOUT: i32 = 1000;

/// How often the library's file is looked at, in microseconds.
const LIBRARY: i64 = 200_000;

thread_local! {
    static PLACE: Cell<Option<&'static Place>> = const { Cell::new(None) };
    static SPOILED: Cell<bool> = const { Cell::new(false) };
    /// What this process is as good as, while it stays.
    static STANDING: Cell<Option<(u64, Kind)>> = const { Cell::new(None) };
    static LIBRARY_SEEN: Cell<i64> = const { Cell::new(0) };
}

/// On what terms the process may go on after a job.
#[derive(Clone, Copy)]
pub struct Terms {
    /// Milliseconds; 0 for not at all.
    idle_timeout: i32,
    max_idle: i32,
    fit: Fit,
    session: i32,
    kind: Kind,
}

impl Terms {
    /// The terms of a request, at the time of its first job looked at with the eyes of a process that has just connected: what the
    /// session took for granted may have changed on the way. Guarded, outside of a transaction.
    pub fn of(request: &Request, is_first: bool) -> Terms {
        let mut terms = Terms {
            idle_timeout: request.idle_timeout(),
            max_idle: request.max_idle(),
            fit: request.fit(),
            session: request.session(),
            kind: request.kind(),
        };
        if terms.fit.custom == adopt::custom_of_base() {
            // A new connection has them, too.
            terms.fit.custom = 0;
        }
        if terms.may_stay() && is_first {
            let standing = standing::of_this_process(terms.kind);
            let is_known = if request.is_connection() {
                standing::is_of_this_connection()
            } else {
                standing == terms.fit.standing
            };
            if is_known {
                STANDING.set(Some((standing, terms.kind)));
                if PLACE.get().is_none() {
                    PLACE.set(pool::enter());
                }
            } else {
                terms.idle_timeout = 0;
            }
            terms.fit.standing = standing;
        } else if request.is_connection()
            && let Some((standing, kind)) = STANDING.get()
        {
            terms.fit.standing = standing;
            terms.kind = kind;
        }
        terms
    }

    /// False of a spare process that has had no job.
    fn is_connected(&self) -> bool {
        self.fit != Fit::ANY
    }

    fn may_stay(&self) -> bool {
        self.idle_timeout > 0 && self.max_idle > 0
    }

    /// Cleans up, and offers this process for another job. False where it is to end.
    pub fn prepare(&self) -> bool {
        let stays = self.clean_and_offer();
        if !stays {
            pool::process_ends();
        }
        stays
    }

    fn clean_and_offer(&self) -> bool {
        let Some(place) = PLACE.get().filter(|_| self.may_stay()) else {
            return false;
        };
        let Ok(random) = backend::strong_random() else {
            return false;
        };
        let clean = !SPOILED.get()
            && !jobs::has_launched()
            && !signals::is_to_go()
            && !library_was_replaced()
            && error::catch(|raw| {
                !reset::is_marked() && adopt::restore(raw, settings::is_stateless_library) && {
                    reset::discard(raw, random);
                    true
                }
            })
            .unwrap_or(false);
        clean && place.offer(self.fit, self.session, self.max_idle)
    }
}

/// Whether this process, which has stayed, is still as good as a new connection. Guarded, outside of a transaction.
pub fn is_as_new() -> bool {
    STANDING
        .get()
        .is_some_and(|(standing, kind)| standing::of_this_process(kind) == standing)
}

/// Lets go of what a session has until it ends, however this process goes on. False where that fails: it is to end.
pub fn end_session() -> bool {
    match error::catch(reset::release_slots) {
        Ok(()) => true,
        Err(edata) => {
            error::log_caught(edata);
            false
        }
    }
}

/// The job at hand does something that stays: this process takes no other after it.
pub fn spoil() {
    SPOILED.set(true);
}

fn library_was_replaced() -> bool {
    let now = backend::now();
    if now - LIBRARY_SEEN.get() < LIBRARY {
        return false;
    }
    LIBRARY_SEEN.set(now);
    library::was_replaced()
}

/// This process, which is connected to nothing yet, takes place `number` of the pool, which waits for it by this token, and waits for
/// whatever job comes. None where the process is to end. Guarded.
pub fn stand_by(raw: Raw<'_>, number: u32, token: u64) -> Option<Attached> {
    let terms = Terms {
        idle_timeout: SPARE_TIMEOUT,
        max_idle: i32::MAX,
        fit: Fit::ANY,
        session: 0,
        kind: Kind::Own,
    };
    PLACE.set(pool::arrive(number, token));
    wait(raw, &terms)
}

/// Waits for the next job. None where the process is to end. Guarded; the process has offered itself.
pub fn wait(raw: Raw<'_>, terms: &Terms) -> Option<Attached> {
    let place = PLACE.get()?;
    upkeep::pass_by();
    let began = backend::now();
    let mut sleeps = false;
    loop {
        latch::reset_latch();
        // A server that stops sends everybody away, which is no news of this process.
        if signals::server_stops() && place.retire() {
            return None;
        }
        if sleeps {
            // Who was told to end while it had nothing to do takes no job any more; the launch that has claimed it waits to see.
            // Right after a job it is the other way round: no launch waits, and what comes with the job is meant for the job.
            signals::serve_interrupts_when_idle(raw);
        }
        match place.look() {
            Found::Job(number, cookie, launch_waits) => {
                match attached::take(number, cookie, launch_waits) {
                    Ok(None) => (),
                    Ok(job) => return job,
                    Err(failure) => error::throw(raw, failure),
                }
                // It was taken back meanwhile.
                sleeps = false;
                if !place.offer(terms.fit, terms.session, terms.max_idle) {
                    return leave(place);
                }
            }
            Found::Dismissed => return leave(place),
            Found::Nothing => (),
        }
        let rested = (backend::now() - began) / 1000;
        let over = rested >= terms.idle_timeout.into() || signals::is_to_go();
        let looks = rested >= FIRST_LOOK;
        if looks {
            upkeep::pass_by();
        }
        if (over || looks && is_to_go(raw, terms)) && place.retire() {
            if !signals::server_stops() {
                // Told to end by somebody, it says so.
                signals::serve_interrupts_when_idle(raw);
            }
            return None;
        }
        if !sleeps {
            if terms.is_connected() && latch::spin() {
                // Who is to go takes its offer back first: what a launch posts while the process ends would be lost.
                if !place.has_news() && !signals::is_to_go() {
                    signals::serve_interrupts_when_idle(raw);
                }
                continue;
            }
            sleeps = place.falls_asleep();
            if !sleeps {
                continue;
            }
        }
        let left = i64::from(terms.idle_timeout) - rested;
        latch::sleep_raw(raw, left.clamp(1, if looks { LOOK } else { FIRST_LOOK }));
    }
}

fn leave(place: &'static Place) -> Option<Attached> {
    place.retire();
    None
}

fn is_to_go(raw: Raw<'_>, terms: &Terms) -> bool {
    library_was_replaced()
        || terms.is_connected()
            && (reset::database_is_wanted(raw) || standing::of_this_process(terms.kind) != terms.fit.standing)
}

/// The process ends with a job posted that it never took. Whoever was told to end while asleep gives the job back to the launch,
/// which waits for that; else the job is lost, as if it had been taken.
pub fn abandon() {
    let posted = PLACE.take().and_then(Place::leave);
    if let (Some((number, cookie, launch_waits)), Ok(segment)) = (posted, segment()) {
        // Where this process cannot reach the job, it is found to be lost when this process is gone.
        if let Ok(slot) = segment.slot(number) {
            if launch_waits {
                slot.give_back(cookie);
            } else if slot.reach(cookie).is_ok() {
                slot.publish_lost(cookie, Error::lost(backend::my_pid(), b""));
            }
        }
    }
    pool::process_ends();
}
