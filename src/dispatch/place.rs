//! Places orders with workers. Nothing in here sleeps, and one process may have many orders in progress.
//!
//! 1. [`prepare`]: the job, with all that the worker needs, is put into a slot in shared memory;
//! 2. [`Prepared::place`]: an idle worker is given the job, or the postmaster is asked for a new worker, or the job is not admitted;
//! 3. [`Posted::look`] and [`Starting::look`]: tell whether the worker has the job by now.
//!
//! Each step consumes the one before and returns a [`Placed`]. The latch of this process is set when there is something new to look at. A
//! job that is dropped on the way is withdrawn, and so are the jobs that are still on their way when the process ends.

use crate::channel::request;
use crate::dispatch::launch_queue::Counts;
use crate::dispatch::order::{Introduce, Order, Source};
use crate::dispatch::spare;
use crate::pg::error::{Report, Result};
use crate::pg::fallible;
use crate::pg::guc::own;
use crate::pg::process::backend;
use crate::pg::process::bgworker::{self, WorkerStatus};
use crate::pg::shmem::{self, Owned};
use crate::registry::admission::{self, Caps, NotAdmitted, Shortage};
use crate::registry::job::Slot;
use crate::registry::pool::{self, Admitted, Claimed, WorkerKey};
use crate::registry::segment::segment;
use crate::registry::totals::{self, Totals};
use crate::registry::{history, upkeep};
use crate::settings;
use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Datum;
use std::cell::{Cell, RefCell};

thread_local! {
    /// The jobs of this process that are in a slot but not known to have a worker. The end of a process does not unwind, so the exit
    /// callback needs this list.
    static ON_THEIR_WAY: RefCell<Vec<(&'static Slot, u64)>> = const { RefCell::new(Vec::new()) };
    static WILL_END: Cell<bool> = const { Cell::new(false) };
}

/// Attaches to the registry, and passes `pg_background.history_size` on to it. Jobs that are on their way when this process ends are
/// withdrawn.
pub fn join() -> Result<()> {
    segment()?;
    if !WILL_END.replace(true) {
        bgworker::on_exit(process_ends);
    }
    history::set_size(&segment()?.history, settings::history_size())
}

extern "C-unwind" fn process_ends(_code: c_int, _argument: Datum) {
    let on_their_way = ON_THEIR_WAY.with(|jobs| jobs.try_borrow_mut().map(|mut jobs| core::mem::take(&mut *jobs)));
    for (slot, cookie) in on_their_way.unwrap_or_default() {
        if !slot.withdraw(cookie) {
            // A worker has taken the job already.
            slot.release(cookie);
            slot.unpin(cookie);
        }
    }
    pool::leave_queue();
}

/// A job that has a worker process: its handle was introduced.
#[derive(Clone, Copy)]
pub struct Taken {
    pub pid: i32,
    pub cookie: u64,
}

/// The state of an order.
pub enum Placed {
    /// The job has a worker process.
    Taken(Taken),
    /// The job was posted to a sleeping worker, which may have to exit without taking it.
    Posted(Posted),
    /// A process for this job is being started.
    Starting(Starting),
    /// The job was not admitted. The caller may try again at any time; [`QueuedOrder`](super::launch_queue::QueuedOrder) tells when.
    NoRoom(Prepared, NoRoom),
    /// The process ended before it took the job, which is withdrawn. The server's log says why.
    CouldNotStart,
}

/// Why an order was not admitted.
#[derive(Clone, Copy)]
pub struct NoRoom {
    pub reason: NotAdmitted,
    /// Whether a worker was dismissed for it, so that the postmaster has a free slot in a moment.
    pub dismissed_worker: bool,
}

/// A job in its slot for which no worker was asked yet.
pub struct Prepared {
    job: Job,
    key: WorkerKey,
    counts: Counts,
}

/// A job that was posted to a sleeping worker.
pub struct Posted {
    prepared: Prepared,
    worker: Claimed,
}

/// A job for which the postmaster is starting a process.
pub struct Starting {
    job: Job,
    worker: bgworker::WorkerHandle,
}

/// A job without a known worker. It pins the slot. Dropping it withdraws the job.
struct Job {
    slot: &'static Slot,
    cookie: u64,
    introduce: Introduce,
    armed: bool,
}

impl Job {
    /// The process `pid` runs the job.
    fn taken_by(mut self, pid: i32) -> Placed {
        self.leaves(pid);
        Placed::Taken(Taken {
            pid,
            cookie: self.cookie,
        })
    }

    fn leaves(&mut self, pid: i32) {
        self.armed = false;
        forget(self.cookie);
        (self.introduce)(self.slot, self.cookie, pid);
    }
}

impl Drop for Job {
    /// Withdraws the job. If a worker has taken it already, it is introduced like any other.
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if self.slot.withdraw(self.cookie) {
            forget(self.cookie);
        } else {
            self.leaves(self.slot.worker_pid.load(Relaxed));
        }
    }
}

fn forget(cookie: u64) {
    ON_THEIR_WAY.with_borrow_mut(|jobs| {
        if let Some(at) = jobs.iter().rposition(|job| job.1 == cookie) {
            jobs.swap_remove(at);
        }
    });
}

/// Puts the job into a slot. The caller has called [`join`].
///
/// Errors: 53200 if memory is out, 53400 if the cluster keeps `pg_background.max_role_handles` jobs of the role.
pub fn prepare(order: &Order) -> Result<Prepared> {
    pool::prepare()?;
    let (user, connected, database, encoding) = match &order.state {
        Source::Session { identity, database, .. } => (
            identity.current,
            identity.authenticated,
            database.oid,
            database.encoding,
        ),
        // The worker looks up the role and the encoding of the database.
        Source::Connection { database, role } => (*role, *role, *database, order.text_encoding),
    };
    let cookie = backend::strong_random()?;
    let (request, key) = match &order.state {
        Source::Session {
            identity,
            database,
            parameters,
            errand,
        } => request::store(*identity, database, *parameters, order.work, errand)?,
        Source::Connection { database, role } => {
            request::store_connection(*database, *role, order.text_encoding, order.work)?
        }
    };
    // The worker needs the text as a C string.
    let sql = Owned::new(shmem::allocate(order.sql.len() + 1)?);
    shmem::write(sql.pointer(), order.sql);

    let totals = totals::of(&segment()?.totals, database, user)?;
    let role_count = pool::count_of_role(connected)?;
    ON_THEIR_WAY.with_borrow_mut(|jobs| fallible::reserve(jobs, 1))?;
    let slot = segment()?.take(cookie)?;
    slot.begin(cookie, order.counters, |job| {
        job.user = user;
        job.connected = connected;
        job.database = database;
        job.encoding = encoding;
        job.encoding_is_guessed = matches!(order.state, Source::Connection { .. });
        job.text_encoding = order.text_encoding;
        job.launcher_pid = backend::my_pid();
        job.retention = order.retention;
        job.totals = totals;
        job.role_count = role_count;
        job.queue_size = order.queue_size as u32;
        job.is_hidden = order.work.is_internal();
        job.keeps_result = order.keeps_result;
        job.set_label(order.label);
        job.worker_timeout = order.worker_timeout;
        job.is_limited = order.is_limited;
        job.owner_procno = backend::my_procno();
        job.set_preview(order.sql);
        job.sql_len = order.sql.len() as u64;
        job.sql = sql.hand_over();
        job.request = request.hand_over();
    });
    ON_THEIR_WAY.with_borrow_mut(|jobs| jobs.push((slot, cookie)));
    let job = Job {
        slot,
        cookie,
        introduce: order.introduce,
        armed: true,
    };
    // Checked only after this job is counted, so that processes that order at the same time see each other's jobs.
    let limit = settings::max_role_handles();
    let is_over = || limit > 0 && admission::kept(role_count) > limit;
    if is_over() {
        // A lost job keeps its slot until some process looks after it.
        upkeep::look_after_all()?;
    }
    if is_over() {
        let kept = admission::kept(role_count) - 1;
        Totals::at(totals).refused();
        return Err(
            Report::new(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "too many background job handles")
                .detail(format!(
                    "{kept} jobs of this role are running or have not been read or detached, and pg_background.max_role_handles is {limit}."
                ))
                .hint("Read or detach results, or use pg_background_purge.")
                .into(),
        );
    }
    Ok(Prepared {
        job,
        key,
        counts: Counts {
            session: order.counters,
            role: role_count,
            totals,
        },
    })
}

impl Prepared {
    /// The counters of the job.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Hands the job to an idle worker, or asks the postmaster for a new one. The caps are those that this process knows. Guarded.
    ///
    /// A worker that has not fallen asleep since its last job finds the posted job for certain. A sleeping worker may have been told to
    /// end; the caller has to look whether it takes the job or gives it back.
    pub fn place(self) -> Placed {
        let caps = Caps {
            cluster: settings::max_cluster_workers(),
            role: settings::max_role_workers(),
            read_at: own::configuration_read_at(),
        };
        let (slot, cookie) = (self.job.slot, self.job.cookie);
        match pool::admit(slot, cookie, self.key, caps, admission::my_position()) {
            Ok(Admitted::Claimed(worker)) => {
                worker.wake();
                // The job is admitted, by this worker or by another: launches behind it need not wait for the worker's answer.
                pool::wait_for(Shortage::Session);
                if worker.slept {
                    return Placed::Posted(Posted { prepared: self, worker });
                }
                self.taken_by(&worker)
            }
            Ok(Admitted::Coming(worker)) => self.starts_as(worker),
            Ok(Admitted::New { dismissed_worker }) => {
                match bgworker::register_worker(crate::worker::MAIN, slot.number(), cookie) {
                    Some(worker) => self.starts_as(worker),
                    None => {
                        let reason = pool::give_up(slot, cookie);
                        Placed::NoRoom(
                            self,
                            NoRoom {
                                reason,
                                dismissed_worker,
                            },
                        )
                    }
                }
            }
            Err(reason) => Placed::NoRoom(
                self,
                NoRoom {
                    reason,
                    dismissed_worker: false,
                },
            ),
        }
    }

    fn taken_by(self, worker: &Claimed) -> Placed {
        if worker.is_fresh {
            spare::start_ahead();
        }
        self.job.taken_by(worker.pid())
    }

    /// The postmaster was asked for the job's worker, which has the handle `worker`.
    fn starts_as(self, worker: bgworker::WorkerHandle) -> Placed {
        self.job.slot.lock().worker = worker;
        Placed::Starting(Starting { job: self.job, worker })
    }
}

impl Posted {
    /// Looks whether the worker has taken the job. If the worker has given it back or is gone, the job is placed again. The worker sets
    /// this process's latch, except when it dies: so the caller looks at intervals in any case.
    pub fn look(self) -> Placed {
        let Self { prepared, worker } = self;
        match prepared.job.slot.was_taken() {
            None => Placed::Posted(Self { prepared, worker }),
            Some(true) => prepared.taken_by(&worker),
            Some(false) => {
                pool::give_up(prepared.job.slot, prepared.job.cookie);
                prepared.place()
            }
        }
    }
}

impl Starting {
    /// Looks whether the process has started. There is no need to wait until it has taken the job: until then a cancel is noted in the
    /// slot, and a worker that ends before is noticed by its status. The postmaster sets this process's latch when the worker starts and
    /// when it stops.
    pub fn look(self) -> Placed {
        let pid = match self.worker.status() {
            WorkerStatus::Running(pid) => pid,
            WorkerStatus::NotYetStarted => return Placed::Starting(self),
            // It has ended already, or it could not start.
            WorkerStatus::Stopped => self.job.slot.worker_pid.load(Relaxed),
        };
        if pid == 0 {
            return Placed::CouldNotStart;
        }
        spare::start_ahead();
        self.job.taken_by(pid)
    }
}
