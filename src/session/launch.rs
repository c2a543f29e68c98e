//! Launches jobs.
//!
//! 1. The arguments are checked, and the launch waits until the session runs fewer jobs than it may;
//! 2. the order is put into a slot ([`place::prepare`]);
//! 3. it is placed. The launch looks at what [`place`] returns, and waits, until the job has a worker.
//!
//! An error or a cancel on the way withdraws the job. If a worker was faster, the job is one of this session's like any other.

use crate::channel::request::{Errand, Work};
use crate::dispatch::launch_queue::{Counts, QueuedOrder};
use crate::dispatch::order::{self, Order, Source};
use crate::dispatch::place::{self, Placed, Prepared, Taken};
use crate::pg::catalog::database::Database;
use crate::pg::error::{Report, Result};
use crate::pg::function::call::Answer;
use crate::pg::guc::own;
use crate::pg::process::identity::{self, Identity};
use crate::pg::process::{backend, latch};
use crate::pg::shmem::DsaPointer;
use crate::pg::spi;
use crate::pg::value::encoding;
use crate::pg::value::params::Outgoing;
use crate::registry::admission::{NotAdmitted, Shortage};
use crate::registry::counters::Counters;
use crate::registry::segment::segment;
use crate::registry::{pool, totals, upkeep};
use crate::session::{jobs, launch_queue};
use crate::settings;
use core::ffi::CStr;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::PgSqlErrorCode;

/// The arguments of a launch.
#[derive(Default)]
pub struct Arguments<'a> {
    pub sql: &'a [u8],
    /// 0 and below mean the default.
    pub queue_size: i32,
    pub label: Option<&'a [u8]>,
    /// Whether rows and messages are kept for a reader.
    pub keeps_result: bool,
    /// A record whose columns are the parameters.
    pub parameters: Option<Answer>,
    /// Another database than the session's.
    pub database: Option<&'a CStr>,
    /// What the engine does in the job's transaction.
    pub work: Work,
    /// What the job does for a task.
    pub errand: Errand<'a>,
}

/// The handle of a launched job.
#[derive(Clone, Copy)]
pub struct Launched {
    pub pid: i32,
    pub cookie: i64,
}

/// Launches a job. Returns its handle as soon as there is a process for it.
///
/// Errors:
/// * 22023 for a queue that is too large, 22001 for a label that is too long;
/// * 53400 if as many jobs run as `pg_background.max_workers`, `max_role_workers` or `max_cluster_workers` allow, 53000 if the server has
///   no free slot, both after `pg_background.launch_timeout`;
/// * 53400 at once if the cluster keeps `pg_background.max_role_handles` jobs of the role;
/// * 42501 in a security-restricted operation, 25000 in a parallel worker;
/// * 53200 if memory is out, 08006 if the worker could not start, 0A000 for parameters that cannot be passed on;
/// * those of [`Database::by_name`] for the database.
pub fn launch(arguments: &Arguments) -> Result<Launched> {
    order::check_caller("launch a background job", "job")?;
    let queue_size = order::queue_size(arguments.queue_size)?;
    order::check_label(arguments.label)?;
    let identity = identity::identity();
    let mut queued = QueuedOrder::default();
    let counters = find_room_in_session(&mut queued, identity)?;
    let placed = prepare(arguments, queue_size, identity, counters)?.place();
    see_taken(placed, queued)
}

/// Waits until the job has a worker process.
pub fn see_taken(mut placed: Placed, mut queued: QueuedOrder) -> Result<Launched> {
    loop {
        placed = match placed {
            Placed::Taken(Taken { pid, cookie }) => {
                return Ok(Launched {
                    pid,
                    cookie: cookie as i64,
                });
            }
            Placed::NoRoom(prepared, no_room) => {
                if no_room.dismissed_worker {
                    queued.expect_slot();
                }
                launch_queue::wait(&mut queued, no_room.reason, prepared.counts())?;
                prepared.place()
            }
            Placed::Posted(posted) => {
                latch::reset_latch();
                let placed = posted.look();
                if let Placed::Posted(_) = placed {
                    // The worker wakes this session, unless it dies.
                    latch::wait(own::deadlock_timeout().max(1).into())?;
                }
                placed
            }
            Placed::Starting(starting) => {
                latch::reset_latch();
                let placed = starting.look();
                if let Placed::Starting(_) = placed {
                    latch::wait(-1)?;
                }
                placed
            }
            Placed::CouldNotStart => {
                return Err(Report::new(
                    PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
                    "background worker could not start",
                )
                .hint("The server log says why.")
                .into());
            }
        }
    }
}

fn prepare(arguments: &Arguments, queue_size: i32, identity: Identity, counters: DsaPointer) -> Result<Prepared> {
    let database = match arguments.database {
        Some(name) => Database::by_name(name, [identity.authenticated, identity.current])?,
        None => Database::own(),
    };
    let other_encoding = database.is_other.then_some(database.encoding);
    let parameters = match arguments.parameters {
        Some(record) => Outgoing::of(record, other_encoding)?,
        None => None,
    };
    let worker_timeout = settings::worker_timeout();
    let prepared = place::prepare(&Order {
        sql: arguments.sql,
        label: arguments.label,
        text_encoding: encoding::of_database(),
        queue_size,
        keeps_result: arguments.keeps_result,
        retention: settings::result_retention(),
        worker_timeout,
        is_limited: worker_timeout > 0 || own::statement_timeout() > 0,
        state: Source::Session {
            identity,
            database,
            parameters: parameters.as_ref(),
            errand: arguments.errand,
        },
        work: arguments.work,
        counters,
        introduce: jobs::add,
    })?;
    // A worker that waits for old snapshots must not find one that was taken only to look into the catalogs.
    spi::forget_catalog_snapshot();
    Ok(prepared)
}

/// Waits until the session runs fewer jobs than it may. Returns its counters.
fn find_room_in_session(queued: &mut QueuedOrder, identity: Identity) -> Result<DsaPointer> {
    segment()?;
    pool::prepare()?;
    let limit = settings::max_workers();
    let session = jobs::counters()?;
    let active = &Counters::at(session).active;
    while active.load(Relaxed) >= limit {
        upkeep::look_after_all()?;
        let running = active.load(Relaxed);
        if running < limit {
            break;
        }
        let reason = NotAdmitted {
            shortage: Shortage::Session,
            running,
            cap: limit,
            is_behind: false,
        };
        let counts = Counts {
            session,
            role: pool::count_of_role(identity.authenticated)?,
            totals: totals::of(&segment()?.totals, backend::my_database().to_u32(), identity.current)?,
        };
        launch_queue::wait(queued, reason, counts)?;
    }
    Ok(session)
}
