//! From the SQL to a job in a worker's hands.
//!
//! 1. [`prepare`]: the arguments are checked, and the job with all that the worker needs is put into a slot in shared memory;
//! 2. [`Prepared::find_worker`]: an idle one, or the postmaster is asked for a new one; where there is no room, it is waited for in
//!    [`line`](super::line);
//! 3. [`Registered::wait_for_worker`]: until the worker's process has started, or will never.
//!
//! Each step consumes the one before. What is dropped on the way, by an error or a cancel, is given back.

use crate::channel::request;
use crate::pg::catalog::database::Database;
use crate::pg::error::{Report, Result};
use crate::pg::function::call::Answer;
use crate::pg::guc::own;
use crate::pg::process::bgworker::{self, WorkerStatus};
use crate::pg::process::identity::{self, Identity};
use crate::pg::process::{backend, latch};
use crate::pg::shmem::{self, Offset, Owned};
use crate::pg::spi;
use crate::pg::value::encoding;
use crate::pg::value::params::Outgoing;
use crate::registry::counters::Counters;
use crate::registry::job::{LABEL_MAX, Slot};
use crate::registry::life;
use crate::registry::pool::{self, Admitted, Fit};
use crate::registry::room::{self, Caps, Short, Shortage};
use crate::registry::segment::segment;
use crate::registry::totals::{self, Totals};
use crate::session::line::{Line, Places};
use crate::session::{jobs, spare};
use crate::settings;
use core::ffi::CStr;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::PgSqlErrorCode;

/// What a launch is asked for.
#[derive(Default)]
pub struct Order<'a> {
    pub sql: &'a [u8],
    /// 0 and below mean the default.
    pub queue_size: i32,
    pub label: Option<&'a [u8]>,
    /// Whether somebody is to read rows and messages.
    pub keeps_result: bool,
    /// A record whose columns are the parameters.
    pub parameters: Option<Answer>,
    /// Another database than the session's.
    pub database: Option<&'a CStr>,
}

/// The handle of a launched job.
#[derive(Clone, Copy)]
pub struct Launched {
    pub pid: i32,
    pub cookie: i64,
}

/// Launches a job and gives its handle as soon as there is a process for it.
///
/// Errors: 22023 for a queue that is too large, 22001 for a label that is too long, 53400 where as many jobs run as
/// `pg_background.max_workers`, `max_role_workers` or `max_cluster_workers` allow, 53000 where the server has no free slot, these two
/// after `pg_background.launch_timeout`; 53400 at once where the cluster keeps `pg_background.max_role_handles` jobs of the role;
/// 42501 in a security-restricted operation, 25000 in a parallel worker, 53200
/// where memory is out, 08006 where the worker could not start, 0A000 for parameters that cannot be passed on; those of
/// [`Database::by_name`] for the database.
pub fn launch(order: &Order) -> Result<Launched> {
    let queue_size = check(order)?;
    let identity = identity::identity();
    let mut line = Line::default();
    let counters = find_room_in_session(&mut line, identity)?;
    match prepare(order, queue_size, identity, counters)?.find_worker(line)? {
        Found::Warm(launched) => Ok(launched),
        Found::New(registered) => registered.wait_for_worker(),
    }
}

/// A job in its slot that no worker was asked for yet.
struct Prepared {
    slot: TakenSlot,
    fit: Fit,
    places: Places,
}

/// A slot whose job is not yet known to a worker; withdrawn when dropped, and when the session ends before that. The launch keeps
/// the slot until then.
struct TakenSlot {
    slot: &'static Slot,
    cookie: u64,
    armed: bool,
}

impl TakenSlot {
    fn new(slot: &'static Slot, cookie: u64) -> Self {
        jobs::set_pending(Some((slot, cookie)));
        Self {
            slot,
            cookie,
            armed: true,
        }
    }

    /// Waits until the worker that the job was posted to has taken it; false where it has given it back.
    fn was_taken(&self) -> Result<bool> {
        loop {
            latch::reset_latch();
            if let Some(taken) = self.slot.was_taken() {
                return Ok(taken);
            }
            // The worker wakes this session, unless it is gone without a word.
            latch::wait(own::deadlock_timeout().max(1).into())?;
        }
    }

    /// The job has the process `pid`, and is one of this session's from now on.
    fn hand_over(mut self, pid: i32) -> Launched {
        self.armed = false;
        jobs::set_pending(None);
        jobs::add(self.slot, self.cookie, pid);
        Launched {
            pid,
            cookie: self.cookie as i64,
        }
    }
}

impl Drop for TakenSlot {
    /// Interrupted while waiting: the job is taken back. If a worker was faster, it is this session's like any other.
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        jobs::set_pending(None);
        if !self.slot.withdraw(self.cookie) {
            jobs::add(self.slot, self.cookie, self.slot.worker_pid.load(Relaxed));
        }
    }
}

fn prepare(order: &Order, queue_size: i32, identity: Identity, counters: Offset) -> Result<Prepared> {
    let database = match order.database {
        Some(name) => Database::by_name(name, [identity.authenticated, identity.current])?,
        None => Database::own(),
    };
    let home = database.is_other.then_some(database.encoding);
    let parameters = match order.parameters {
        Some(record) => Outgoing::of(record, home)?,
        None => None,
    };
    let cookie = backend::strong_random()?;
    let (request, fit) = request::store(identity, &database, parameters.as_ref())?;
    // The worker needs the text as a C string.
    let sql = Owned::new(shmem::allocate(order.sql.len() + 1)?);
    shmem::write(sql.place(), order.sql);

    let totals = totals::of(&segment()?.totals, database.oid, identity.current)?;
    let role_count = pool::count_of_role(identity.authenticated)?;
    let slot = segment()?.take(cookie)?;
    slot.begin(cookie, counters, |job| {
        job.user = identity.current;
        job.connected = identity.authenticated;
        job.database = database.oid;
        job.encoding = database.encoding;
        job.text_encoding = encoding::of_database();
        job.launcher_pid = backend::my_pid();
        job.retention = settings::result_retention();
        job.totals = totals;
        job.role_count = role_count;
        job.queue_size = queue_size as u32;
        job.keeps_result = order.keeps_result;
        job.set_label(order.label);
        job.worker_timeout = settings::worker_timeout();
        job.is_limited = job.worker_timeout > 0 || own::statement_timeout() > 0;
        job.owner_procno = backend::my_procno();
        job.set_preview(order.sql);
        job.sql_len = order.sql.len() as u64;
        job.sql = sql.hand_over();
        job.request = request.hand_over();
    });
    let slot = TakenSlot::new(slot, cookie);
    // Only now that this one is counted, so that sessions that launch at the same time see each other.
    let limit = settings::max_role_handles();
    let is_over = || limit > 0 && room::kept(role_count) > limit;
    if is_over() {
        // A job that is lost keeps its slot until somebody looks after it.
        life::look_after_all()?;
    }
    if is_over() {
        let kept = room::kept(role_count) - 1;
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
        slot,
        fit,
        places: Places {
            session: counters,
            role: role_count,
            totals,
        },
    })
}

/// Checks what can be checked without shared memory and gives the size of the queue in bytes.
fn check(order: &Order) -> Result<i32> {
    if backend::is_parallel_worker() {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
            "cannot launch a background job in a parallel worker",
        )
        .into());
    }
    if identity::in_restricted_operation() {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "cannot launch a background job within security-restricted operation",
        )
        .detail("The job would run outside of the restriction.")
        .into());
    }
    if order.queue_size > settings::QUEUE_MAX {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("queue size must not exceed {} bytes", settings::QUEUE_MAX),
        )
        .into());
    }
    if let Some(label) = order.label
        && label.len() > LABEL_MAX
    {
        return Err(
            Report::new(PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION, "label too long")
                .detail(format!(
                    "The label has {} bytes, the limit is {LABEL_MAX}.",
                    label.len()
                ))
                .into(),
        );
    }
    Ok(if order.queue_size <= 0 {
        settings::default_queue_size()
    } else {
        order.queue_size.max(settings::QUEUE_MIN)
    })
}

/// Waits until the session runs fewer jobs than it may. Returns its counters.
fn find_room_in_session(line: &mut Line, identity: Identity) -> Result<Offset> {
    segment()?;
    pool::prepare()?;
    let limit = settings::max_workers();
    let session = jobs::counters()?;
    let active = &Counters::at(session).active;
    while active.load(Relaxed) >= limit {
        life::look_after_all()?;
        let running = active.load(Relaxed);
        if running < limit {
            break;
        }
        let short = Short {
            of: Shortage::Session,
            running,
            cap: limit,
            is_behind: false,
        };
        let places = Places {
            session,
            role: pool::count_of_role(identity.authenticated)?,
            totals: totals::of(&segment()?.totals, backend::my_database().to_u32(), identity.current)?,
        };
        line.wait(short, places)?;
    }
    Ok(session)
}

/// The worker of a job.
enum Found {
    /// It was there, and the job is in its hands.
    Warm(Launched),
    New(Registered),
}

/// A job that the postmaster is to start a worker for.
struct Registered {
    slot: TakenSlot,
    worker: bgworker::Registered,
}

impl Prepared {
    /// The postmaster knows the job's worker as `worker`.
    fn registered_as(self, worker: bgworker::Registered) -> Registered {
        self.slot.slot.lock().worker = worker;
        Registered {
            slot: self.slot,
            worker,
        }
    }

    /// Gives the job to a worker that is there, or asks the postmaster for one; waits in line until one of the two succeeds.
    ///
    /// A worker that was at work a moment ago will find the job. One that sleeps may have been told to end; so it is waited for until
    /// it has taken the job, or has given it back.
    fn find_worker(self, mut line: Line) -> Result<Found> {
        // A worker that waits for old snapshots must not find one that was only taken to look into the catalogs.
        spi::forget_catalog_snapshot();
        let caps = Caps {
            cluster: settings::max_cluster_workers(),
            role: settings::max_role_workers(),
            read_at: own::configuration_read_at(),
        };
        let TakenSlot { slot, cookie, .. } = self.slot;
        loop {
            let short = match pool::admit(slot, cookie, self.fit, caps, room::my_place()) {
                Ok(Admitted::Claimed(worker)) => {
                    worker.wake();
                    // Its room is found, whether by this worker or another: nobody behind waits for the answer.
                    pool::wait_for(Shortage::Session);
                    if !worker.slept || self.slot.was_taken()? {
                        if worker.is_fresh {
                            spare::is_used();
                        }
                        return Ok(Found::Warm(self.slot.hand_over(worker.pid())));
                    }
                    pool::give_up(slot, cookie);
                    continue;
                }
                Ok(Admitted::Coming(worker)) => return Ok(Found::New(self.registered_as(worker))),
                Ok(Admitted::New { made_room }) => {
                    let registered = bgworker::register_worker(crate::worker::MAIN, slot.number(), cookie);
                    if let Some(worker) = registered {
                        return Ok(Found::New(self.registered_as(worker)));
                    }
                    if made_room {
                        line.expect_slot();
                    }
                    pool::give_up(slot, cookie)
                }
                Err(short) => short,
            };
            line.wait(short, self.places)?;
        }
    }
}

impl Registered {
    /// The postmaster sets our latch when the worker starts and when it stops. That the worker has taken the job is not waited
    /// for: until then a cancel is noted in the slot, and a worker that ends before is noticed by its status.
    fn wait_for_worker(self) -> Result<Launched> {
        loop {
            latch::reset_latch();
            let pid = match self.worker.status() {
                WorkerStatus::Running(pid) => pid,
                WorkerStatus::NotYetStarted => {
                    latch::wait(-1)?;
                    continue;
                }
                // It was fast; or it could not start.
                WorkerStatus::Stopped => self.slot.slot.worker_pid.load(Relaxed),
            };
            if pid == 0 {
                return Err(Report::new(
                    PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
                    "background worker could not start",
                )
                .hint("The server log says why.")
                .into());
            }
            spare::is_used();
            return Ok(self.slot.hand_over(pid));
        }
    }
}
