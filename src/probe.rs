//! Functions for tests of what SQL cannot reach: orders without a session, and the engine's work in a job's transaction. No package has
//! them.

use crate::channel::request::{Deed, Work};
use crate::dispatch::launch_queue::{NextStep, QueuedOrder};
use crate::dispatch::order::{Order, leave_alone};
use crate::dispatch::place::{self, Placed, Prepared};
use crate::pg::error::{Report, Result};
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::Value;
use crate::pg::process::{backend, bgworker, latch, signals};
use crate::pg::raw::Raw;
use crate::pg::shmem;
use crate::registry::segment::segment;
use crate::session::jobs;
use crate::session::launch::{self, Arguments};
use crate::tasks::known;
use crate::tasks::pushed::Task as Waiting;
use core::ffi::CStr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Datum;

crate::sql_function! {
    pg_background_probe_launch => launch_with_work;
    pg_background_probe_order => order;
    pg_background_probe_place => place_from_elsewhere;
    pg_background_probe_report => report;
    pg_background_probe_state => state;
    pg_background_probe_slots => slots;
    pg_background_probe_knows => knows;
    pg_background_probe_claims => claims;
}

crate::worker_function!(pg_background_probe_main => place_all);

/// The task of a process without a database, and its report.
#[repr(C)]
struct Task {
    database: AtomicU32,
    role: AtomicU32,
    orders: AtomicU32,
    /// Whether it stops after it has tried each order once.
    once: AtomicU32,
    sql: AtomicU64,
    sql_len: AtomicU64,
    pid: AtomicI32,
    /// How many orders were tried once, and how many of them were then taken, posted, starting, and not admitted or not startable.
    tried: AtomicU32,
    had: [AtomicU32; 4],
    /// How many orders have a worker now, and how many could not start.
    taken: AtomicU32,
    failed: AtomicU32,
}

fn deed(name: Option<&[u8]>) -> Result<Deed> {
    match name {
        None => Ok(Deed::Nothing),
        Some(b"insert") => Ok(Deed::Insert),
        Some(b"raise") => Ok(Deed::Raise),
        Some(b"vanish") => Ok(Deed::Vanish),
        Some(_) => Err(Report::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "no such work").into()),
    }
}

/// `probe_launch(sql, before, after)`: launches a job in whose transaction the engine does `before` and `after`.
fn launch_with_work(call: &Call) -> Result<Answer> {
    let launched = launch::launch(&Arguments {
        sql: call.text(0).unwrap_or_default(),
        keeps_result: true,
        work: Work::Probe {
            before: deed(call.text(1))?,
            after: deed(call.text(2))?,
        },
        ..Arguments::default()
    })?;
    call.composite(&[Value::Int4(launched.pid), Value::Int8(launched.cookie)])
}

fn connection(database: u32, role: u32, sql: &[u8]) -> Order<'_> {
    Order::of_connection(database, role, sql, leave_alone)
}

/// `probe_order(database, role, sql)`: orders a job of a new connection, whose handle this session has.
fn order(call: &Call) -> Result<Answer> {
    let oid = |n| call.int8(n).unwrap_or(0) as u32;
    jobs::join()?;
    let prepared = place::prepare(&Order {
        keeps_result: true,
        introduce: jobs::add,
        ..connection(oid(0), oid(1), call.text(2).unwrap_or_default())
    })?;
    let launched = launch::see_taken(prepared.place(), QueuedOrder::default())?;
    call.composite(&[Value::Int4(launched.pid), Value::Int8(launched.cookie)])
}

/// `probe_place(database, role, sql, orders, once)`: starts a process without a database that places so many orders. Returns the pointer of
/// its task.
fn place_from_elsewhere(call: &Call) -> Result<Answer> {
    const MAIN: &CStr = c"pg_background_probe_main";
    jobs::join()?;
    let sql = call.text(2).unwrap_or_default();
    let at = shmem::allocate(size_of::<Task>())?;
    let task: &Task = shmem::at(at);
    task.database.store(call.int8(0).unwrap_or(0) as u32, Relaxed);
    task.role.store(call.int8(1).unwrap_or(0) as u32, Relaxed);
    task.orders.store(call.int4(3).unwrap_or(0) as u32, Relaxed);
    task.once.store(call.bool(4).unwrap_or(false).into(), Relaxed);
    task.sql.store(shmem::store(sql)?, Relaxed);
    task.sql_len.store(sql.len() as u64, Relaxed);
    if bgworker::register_without_database(MAIN, at).is_none() {
        return Err(Report::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "no slot for the probe").into());
    }
    call.scalar(Value::Int8(at as i64))
}

/// `probe_report(pointer)`: `pid tried taken posted starting no_room | taken failed`.
fn report(call: &Call) -> Result<Answer> {
    jobs::join()?;
    let task: &Task = shmem::mapped(call.int8(0).unwrap_or(0) as u64)?;
    // Before what it counts, which is written first.
    let tried = task.tried.load(Acquire);
    let had: Vec<_> = task.had.iter().map(|count| count.load(Relaxed).to_string()).collect();
    let text = format!(
        "{} {} {} | {} {}",
        task.pid.load(Relaxed),
        tried,
        had.join(" "),
        task.taken.load(Relaxed),
        task.failed.load(Relaxed)
    );
    call.scalar(Value::Text(text.as_bytes()))
}

/// `probe_state(cookie)`: the state of a job as its slot has it, without a check whether its worker is alive; NULL if there is no slot.
fn state(call: &Call) -> Result<Answer> {
    let cookie = call.int8(0).unwrap_or(0) as u64;
    let slot = segment()?.find(cookie)?;
    let name = slot.and_then(|slot| slot.lock_if(cookie).map(|job| job.state.name()));
    match name {
        Some(name) => call.scalar(Value::Text(name.as_bytes())),
        None => call.null(),
    }
}

/// `probe_slots()`: how many jobs have a slot.
fn slots(call: &Call) -> Result<Answer> {
    let taken = segment()?.all()?.filter(|slot| slot.cookie.load(Relaxed) != 0).count();
    call.scalar(Value::Int4(taken as i32))
}

/// `probe_knows(id, role, queue, priority, concurrency_key, is_operation)`: what shared memory knows of a task that waits.
fn knows(call: &Call) -> Result<Answer> {
    let known = known::of(&Waiting {
        id: call.int8(0).unwrap_or(0),
        role: call.int8(1).unwrap_or(0) as u32,
        queue: call.text(2).unwrap_or_default(),
        priority: call.int4(3).unwrap_or(0),
        concurrency_key: call.text(4),
        is_operation: call.bool(5) == Some(true),
        run_at: None,
        expires_at: None,
    })?;
    call.scalar(Value::Text(known.as_bytes()))
}

/// `probe_claims()`: `idle held lost`, how many claims there are.
fn claims(call: &Call) -> Result<Answer> {
    let [idle, held, lost] = known::claims()?;
    call.scalar(Value::Text(format!("{idle} {held} {lost}").as_bytes()))
}

/// The entry point of the process without a database.
fn place_all(_raw: Raw<'_>, _argument: Datum) -> Result<()> {
    let (_, at) = bgworker::worker_arguments(Datum::from(0usize))?;
    signals::accept_signals();
    place::join()?;
    let task: &'static Task = shmem::mapped(at)?;
    task.pid.store(backend::my_pid(), Relaxed);
    let sql = shmem::mapped_bytes(task.sql.load(Relaxed), task.sql_len.load(Relaxed) as usize)?;
    let mut orders = Vec::new();
    for _ in 0..task.orders.load(Relaxed) {
        orders.push(place::prepare(&connection(
            task.database.load(Relaxed),
            task.role.load(Relaxed),
            sql,
        ))?);
    }
    let mut on_their_way: Vec<Placed> = orders.into_iter().map(Prepared::place).collect();
    for placed in &on_their_way {
        let kind = match placed {
            Placed::Taken(_) => 0,
            Placed::Posted(_) => 1,
            Placed::Starting(_) => 2,
            Placed::NoRoom(..) | Placed::CouldNotStart => 3,
        };
        task.had[kind].fetch_add(1, Relaxed);
    }
    task.tried.store(on_their_way.len() as u32, Release);
    let mut queued = QueuedOrder::default();
    while !on_their_way.is_empty() {
        let mut sleep = None;
        let mut next = Vec::new();
        latch::reset_latch();
        for placed in on_their_way {
            match placed {
                Placed::Taken(_) => {
                    task.taken.fetch_add(1, Relaxed);
                }
                Placed::CouldNotStart => {
                    task.failed.fetch_add(1, Relaxed);
                }
                Placed::Posted(posted) => next.push(posted.look()),
                Placed::Starting(starting) => next.push(starting.look()),
                Placed::NoRoom(prepared, no_room) if task.once.load(Relaxed) != 0 => {
                    next.push(Placed::NoRoom(prepared, no_room));
                }
                Placed::NoRoom(prepared, no_room) => {
                    if sleep.is_none() {
                        // The first order that is not admitted waits for all.
                        sleep = match queued.next_step(no_room.reason, prepared.counts(), i32::MAX)? {
                            NextStep::Sleep(sleep) => Some(sleep),
                            NextStep::LookAgain | NextStep::Refused { .. } => None,
                        };
                    }
                    next.push(prepared.place());
                }
            }
        }
        on_their_way = next;
        if !on_their_way.iter().any(|placed| matches!(placed, Placed::Taken(_))) {
            latch::wait(sleep.map_or(100, |sleep| sleep.ms))?;
            if let Some(sleep) = sleep {
                queued.awake(sleep);
            }
        }
    }
    Ok(())
}
