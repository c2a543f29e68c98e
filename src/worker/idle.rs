//! The idle loop: what a worker does between two jobs.
//!
//! 1. [`IdlePolicy::prepare`]: the job's transaction is over. What the job left in this process is undone; if that cannot be shown to have
//!    succeeded, the process ends after this job. Then the process offers itself. All of that comes before the end is published: a session
//!    that waits for it launches its next job at once, and is to find this worker;
//! 2. the end is published;
//! 3. [`wait`]: until a job is posted, or the idle timeout is over, or the worker is dismissed.
//!
//! A spare worker, which the postmaster was asked for before there was a job for it, begins with [`stand_by`].

use crate::channel::request::Request;
use crate::pg::error;
use crate::pg::process::{backend, latch, signals};
use crate::pg::raw::Raw;
use crate::pg::reuse::connection_version::{self, Kind};
use crate::pg::reuse::{adopt, compiled, library, reset};
use crate::registry::job::Error;
use crate::registry::pool::{self, PoolEntry, Posting, WorkerKey};
use crate::registry::segment::segment;
use crate::registry::upkeep;
use crate::session::jobs;
use crate::settings;
use crate::tasks::start_clock;
use crate::worker::attached::{self, Attached};
use std::cell::Cell;

/// How often an idle worker checks whether it should exit, and how soon after a job for the first time, in milliseconds. A command that
/// drops or copies a database waits five seconds for others to leave it (`CountOtherDBBackends`).
const LOOK: i64 = 200;
const FIRST_LOOK: i64 = 20;

/// How long a spare worker waits for its job, in milliseconds.
const SPARE_TIMEOUT: i32 = 1000;

/// How often an idle worker checks whether the library's file was replaced, in microseconds.
const LIBRARY: i64 = 200_000;

thread_local! {
    static ENTRY: Cell<Option<&'static PoolEntry>> = const { Cell::new(None) };
    static NOT_REUSABLE: Cell<bool> = const { Cell::new(false) };
    /// The connection version of this process, and its kind, if it may serve several jobs.
    static CONNECTION_VERSION: Cell<Option<(u64, Kind)>> = const { Cell::new(None) };
    static LIBRARY_SEEN: Cell<i64> = const { Cell::new(0) };
}

/// The conditions on which the process may serve another job.
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
    /// The policy of a request. At the first job of the process it is checked against a process that has just connected: what the session
    /// took for granted may have changed meanwhile. Guarded, outside of a transaction.
    pub fn of(request: &Request, is_first: bool) -> IdlePolicy {
        let mut policy = IdlePolicy {
            idle_timeout: request.idle_timeout(),
            max_idle: request.max_idle(),
            key: request.key(),
            session: request.session(),
            kind: request.kind(),
        };
        if policy.key.custom == adopt::custom_of_base() {
            // A new connection has these settings, too.
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
                CONNECTION_VERSION.set(Some((connection_version, policy.kind)));
                if ENTRY.get().is_none() {
                    ENTRY.set(pool::enter());
                }
            } else {
                policy.idle_timeout = 0;
            }
            policy.key.connection_version = connection_version;
        } else if request.is_connection()
            && let Some((connection_version, kind)) = CONNECTION_VERSION.get()
        {
            policy.key.connection_version = connection_version;
            policy.kind = kind;
        }
        policy
    }

    /// False for a spare worker that has had no job.
    fn is_connected(&self) -> bool {
        self.key != WorkerKey::ANY
    }

    fn may_stay(&self) -> bool {
        self.idle_timeout > 0 && self.max_idle > 0
    }

    /// Cleans up, and offers this process for another job. False if it has to exit.
    pub fn prepare(&self) -> bool {
        let stays = self.clean_and_offer();
        if !stays {
            pool::process_ends();
        }
        stays
    }

    fn clean_and_offer(&self) -> bool {
        let entry = ENTRY.get().filter(|_| self.clean());
        entry.is_some_and(|entry| entry.offer(self.key, self.session, self.max_idle))
    }

    /// Undoes what the job left in this process. False if it has to exit.
    pub fn clean(&self) -> bool {
        if ENTRY.get().is_none() || !self.may_stay() {
            return false;
        }
        let Ok(random) = backend::strong_random() else {
            return false;
        };
        !NOT_REUSABLE.get()
            && !jobs::has_launched()
            && !signals::should_exit()
            && !library_was_replaced()
            && error::catch(|raw| {
                !reset::is_marked() && adopt::restore(raw, settings::is_stateless_library) && {
                    reset::discard(raw, random);
                    true
                }
            })
            .unwrap_or(false)
    }
}

/// Whether this process is still as good as a new connection. False if it was never to serve several jobs. Guarded, outside of a
/// transaction.
pub fn is_as_new() -> bool {
    CONNECTION_VERSION
        .get()
        .is_some_and(|(connection_version, kind)| connection_version::of_this_process(kind) == connection_version)
        && !compiled::is_outdated()
}

/// Takes in what has changed until now, as the next job, which was launched before, is to see it. False if this process cannot, and must not
/// run the job. Guarded, outside of a transaction.
pub fn takes_in_changes() -> bool {
    match compiled::take_in_changes() {
        Ok(may_go_on) => may_go_on,
        Err(failure) => {
            error::log_caught(error::into_data(failure));
            false
        }
    }
}

/// Releases what a session holds until it ends, whether this process serves another job or not. False if that fails: then the process has
/// to exit.
pub fn end_session() -> bool {
    match error::catch(reset::release_slots) {
        Ok(()) => true,
        Err(edata) => {
            error::log_caught(edata);
            false
        }
    }
}

/// Marks this process as not reusable: the current job does something that cannot be undone, so the process exits after it.
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

/// Enters this process as the spare worker that entry `number` of the pool was reserved for, as proved by `token`, and waits for any job of
/// the cluster. The process is connected to no database. None if the process has to exit. Guarded.
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

/// Waits for the next job. None if the process has to exit. Guarded; the process has offered itself.
pub fn wait(raw: Raw<'_>, policy: &IdlePolicy) -> Option<Attached> {
    let entry = ENTRY.get()?;
    upkeep::pass_by();
    let began = backend::now();
    let mut sleeps = false;
    loop {
        latch::reset_latch();
        // A shutdown tells all processes to exit, so the process need not report it.
        if signals::server_stops() && entry.retire() {
            return None;
        }
        if sleeps {
            // A worker that is told to end while it sleeps takes no job any more, and a launch that has claimed it waits for the answer.
            // Right after a job it is the other way round: no launch waits, and a signal that comes with the posted job is meant for that
            // job.
            signals::serve_interrupts_when_idle(raw);
        }
        match entry.look() {
            Posting::Job(number, cookie, launch_waits) => {
                match attached::take(number, cookie, launch_waits) {
                    Ok(None) => (),
                    Ok(job) => return job,
                    Err(failure) => error::throw(raw, failure),
                }
                // The job was withdrawn meanwhile.
                sleeps = false;
                if !entry.offer(policy.key, policy.session, policy.max_idle) {
                    return leave(entry);
                }
            }
            Posting::Dismissed => return leave(entry),
            Posting::Nothing => (),
        }
        let idle_for = (backend::now() - began) / 1000;
        let over = idle_for >= policy.idle_timeout.into() || signals::should_exit();
        let looks = idle_for >= FIRST_LOOK;
        if looks {
            upkeep::pass_by();
            if !start_clock() {
                pool::dismiss_one_of_many();
            }
        }
        if (over || looks && should_exit(raw, policy)) && entry.retire() {
            if !signals::server_stops() {
                // If it was told to end, it reports that here.
                signals::serve_interrupts_when_idle(raw);
            }
            return None;
        }
        if !sleeps {
            if policy.is_connected() && latch::spin() {
                // If the process is to exit, it withdraws its offer first: a job that is posted while the process ends would be lost.
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
        let left = i64::from(policy.idle_timeout) - idle_for;
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
                || connection_version::of_this_process(policy.kind) != policy.key.connection_version
                || compiled::is_outdated())
}

/// Handles a job that was posted to this process and never taken, as the process ends. If the process was asleep, the launch waits, and the
/// job is given back to it. Otherwise the job is lost, as if it had been taken.
pub fn abandon() {
    let posted = ENTRY.take().and_then(PoolEntry::leave);
    if let (Some((number, cookie, launch_waits)), Ok(segment)) = (posted, segment()) {
        // If this process cannot map the job, the next process that looks after it finds it lost.
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
