//! Between two jobs.
//!
//! 1. [`IdlePolicy::prepare`]: the job's transaction is over. What the job left in this process is undone, and where that cannot be
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
use crate::pg::reuse::connection_version::{self, Kind};
use crate::pg::reuse::{adopt, library, reset};
use crate::registry::job::Error;
use crate::registry::pool::{self, PoolEntry, Posting, WorkerKey};
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
    static ENTRY: Cell<Option<&'static PoolEntry>> = const { Cell::new(None) };
    static NOT_REUSABLE: Cell<bool> = const { Cell::new(false) };
    /// What this process is as good as, while it stays.
    static STANDING: Cell<Option<(u64, Kind)>> = const { Cell::new(None) };
    static LIBRARY_SEEN: Cell<i64> = const { Cell::new(0) };
}

/// On what policy the process may go on after a job.
#[derive(Clone, Copy)]
pub struct IdlePolicy {
    /// Milliseconds; 0 for not at all.
    idle_timeout: i32,
    max_idle: i32,
    key: WorkerKey,
    session: i32,
    kind: Kind,
}

impl IdlePolicy {
    /// The policy of a request, at the time of its first job looked at with the eyes of a process that has just connected: what the
    /// session took for granted may have changed on the way. Guarded, outside of a transaction.
    pub fn of(request: &Request, is_first: bool) -> IdlePolicy {
        let mut policy = IdlePolicy {
            idle_timeout: request.idle_timeout(),
            max_idle: request.max_idle(),
            key: request.key(),
            session: request.session(),
            kind: request.kind(),
        };
        if policy.key.custom == adopt::custom_of_base() {
            // A new connection has them, too.
            policy.key.custom = 0;
        }
        if policy.may_stay() && is_first {
            let connection_version = connection_version::of_this_process(policy.kind);
            let is_known = if request.is_connection() {
                connection_version::is_of_this_connection()
            } else {
                connection_version == policy.key.connection_version
            };
            if is_known {
                STANDING.set(Some((connection_version, policy.kind)));
                if ENTRY.get().is_none() {
                    ENTRY.set(pool::enter());
                }
            } else {
                policy.idle_timeout = 0;
            }
            policy.key.connection_version = connection_version;
        } else if request.is_connection()
            && let Some((connection_version, kind)) = STANDING.get()
        {
            policy.key.connection_version = connection_version;
            policy.kind = kind;
        }
        policy
    }

    /// False of a spare process that has had no job.
    fn is_connected(&self) -> bool {
        self.key != WorkerKey::ANY
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
        let Some(entry) = ENTRY.get().filter(|_| self.may_stay()) else {
            return false;
        };
        let Ok(random) = backend::strong_random() else {
            return false;
        };
        let clean = !NOT_REUSABLE.get()
            && !jobs::has_launched()
            && !signals::should_exit()
            && !library_was_replaced()
            && error::catch(|raw| {
                !reset::is_marked() && adopt::restore(raw, settings::is_stateless_library) && {
                    reset::discard(raw, random);
                    true
                }
            })
            .unwrap_or(false);
        clean && entry.offer(self.key, self.session, self.max_idle)
    }
}

/// Whether this process, which has stayed, is still as good as a new connection. Guarded, outside of a transaction.
pub fn is_as_new() -> bool {
    STANDING
        .get()
        .is_some_and(|(connection_version, kind)| connection_version::of_this_process(kind) == connection_version)
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
pub fn mark_not_reusable() {
    NOT_REUSABLE.set(true);
}

fn library_was_replaced() -> bool {
    let now = backend::now();
    if now - LIBRARY_SEEN.get() < LIBRARY {
        return false;
    }
    LIBRARY_SEEN.set(now);
    library::was_replaced()
}

/// This process, which is connected to nothing yet, takes entry `number` of the pool, which waits for it by this token, and waits for
/// whatever job comes. None where the process is to end. Guarded.
pub fn stand_by(raw: Raw<'_>, number: u32, token: u64) -> Option<Attached> {
    let policy = IdlePolicy {
        idle_timeout: SPARE_TIMEOUT,
        max_idle: i32::MAX,
        key: WorkerKey::ANY,
        session: 0,
        kind: Kind::Own,
    };
    ENTRY.set(pool::arrive(number, token));
    wait(raw, &policy)
}

/// Waits for the next job. None where the process is to end. Guarded; the process has offered itself.
pub fn wait(raw: Raw<'_>, policy: &IdlePolicy) -> Option<Attached> {
    let entry = ENTRY.get()?;
    upkeep::pass_by();
    let began = backend::now();
    let mut sleeps = false;
    loop {
        latch::reset_latch();
        // A server that stops sends everybody away, which is no news of this process.
        if signals::server_stops() && entry.retire() {
            return None;
        }
        if sleeps {
            // Who was told to end while it had nothing to do takes no job any more; the launch that has claimed it waits to see.
            // Right after a job it is the other way round: no launch waits, and what comes with the job is meant for the job.
            signals::serve_interrupts_when_idle(raw);
        }
        match entry.look() {
            Posting::Job(number, cookie, launch_waits) => {
                match attached::take(number, cookie, launch_waits) {
                    Ok(None) => (),
                    Ok(job) => return job,
                    Err(failure) => error::throw(raw, failure),
                }
                // It was taken back meanwhile.
                sleeps = false;
                if !entry.offer(policy.key, policy.session, policy.max_idle) {
                    return leave(entry);
                }
            }
            Posting::Dismissed => return leave(entry),
            Posting::Nothing => (),
        }
        let rested = (backend::now() - began) / 1000;
        let over = rested >= policy.idle_timeout.into() || signals::should_exit();
        let looks = rested >= FIRST_LOOK;
        if looks {
            upkeep::pass_by();
        }
        if (over || looks && should_exit(raw, policy)) && entry.retire() {
            if !signals::server_stops() {
                // Told to end by somebody, it says so.
                signals::serve_interrupts_when_idle(raw);
            }
            return None;
        }
        if !sleeps {
            if policy.is_connected() && latch::spin() {
                // Who is to go takes its offer back first: what a launch posts while the process ends would be lost.
                if !entry.has_news() && !signals::should_exit() {
                    signals::serve_interrupts_when_idle(raw);
                }
                continue;
            }
            sleeps = entry.falls_asleep();
            if !sleeps {
                continue;
            }
        }
        let left = i64::from(policy.idle_timeout) - rested;
        latch::sleep_raw(raw, left.clamp(1, if looks { LOOK } else { FIRST_LOOK }));
    }
}

fn leave(entry: &'static PoolEntry) -> Option<Attached> {
    entry.retire();
    None
}

fn should_exit(raw: Raw<'_>, policy: &IdlePolicy) -> bool {
    library_was_replaced()
        || policy.is_connected()
            && (reset::database_is_wanted(raw)
                || connection_version::of_this_process(policy.kind) != policy.key.connection_version)
}

/// The process ends with a job posted that it never took. Whoever was told to end while asleep gives the job back to the launch,
/// which waits for that; else the job is lost, as if it had been taken.
pub fn abandon() {
    let posted = ENTRY.take().and_then(PoolEntry::leave);
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
