//! The process that has workers started: one in the cluster, without a database.
//!
//! It sleeps until somebody asks for something or something is due. Then it orders the keeper of a database, and for each role that has tasks which can run a
//! runner, as many as may run at a time. An order is placed without blocking, so no database and no role holds up the others.
//!
//! It ends where nothing is due; the next one who asks has it started again.

use crate::channel::request::Work;
use crate::dispatch::launch_queue::{QueuedOrder, Stand};
use crate::dispatch::order::{self, Order, Source};
use crate::dispatch::place::{self, Placed, Prepared};
use crate::pg::error::{self, Result};
use crate::pg::process::{backend, bgworker, latch, signals};
use crate::pg::raw::Raw;
use crate::pg::value::encoding;
use crate::pg::{fallible, shmem, transaction};
use crate::registry::job::{Slot, State};
use crate::registry::segment::{self, segment};
use crate::registry::upkeep;
use crate::settings;
use crate::tasks::shared::{self, Database};
use core::ffi::c_int;
use pgrx::pg_sys::Datum;
use std::cell::RefCell;

/// How often the clock looks although nothing is due, in milliseconds.
const LOOK: i64 = 60_000;

/// How often it looks at workers that may be gone without a word, in milliseconds.
const LOOK_AFTER: i64 = 1000;

/// How often it looks whether there is room for an order, at most, in milliseconds.
const LOOK_FOR_ROOM: i64 = 100;

/// How long an order is not tried again after it failed, at first and at most, in microseconds.
const PAUSE: i64 = 1_000_000;
const LONGEST_PAUSE: i64 = 60_000_000;

/// What an order is for. No role: the keeper.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Aim {
    database: u32,
    role: Option<u32>,
}

/// An order, and where it is.
struct Ordered {
    aim: Aim,
    stage: Stage,
}

enum Stage {
    OnItsWay(Placed),
    /// A worker has it.
    Runs(&'static Slot, u64),
    Over,
}

/// What has failed, and when it is tried again.
struct Paused {
    aim: Aim,
    pause: i64,
    until: i64,
}

thread_local! {
    /// The jobs that this process keeps the handle of.
    static KEPT: RefCell<Vec<(&'static Slot, u64)>> = const { RefCell::new(Vec::new()) };
}

fn keep(slot: &'static Slot, cookie: u64, pid: i32) {
    slot.introduce(cookie, pid);
    segment::waiters(slot).enter();
    KEPT.with_borrow_mut(|kept| kept.push((slot, cookie)));
}

fn let_go(slot: &'static Slot, cookie: u64) {
    segment::waiters(slot).leave();
    slot.release(cookie);
    KEPT.with_borrow_mut(|kept| kept.retain(|(_, other)| *other != cookie));
}

extern "C-unwind" fn clock_exits(_code: c_int, _argument: Datum) {
    let kept = KEPT.with(|kept| kept.try_borrow_mut().map(|mut kept| core::mem::take(&mut *kept)));
    for (slot, cookie) in kept.unwrap_or_default() {
        slot.orphan(cookie);
    }
}

struct Clock {
    orders: Vec<Ordered>,
    paused: Vec<Paused>,
    queued: QueuedOrder,
    /// Which database is the first to be looked at, so that each has its turn.
    turn: usize,
    /// What [`HINTS`] has.
    hints: String,
}

/// Which databases have tasks, and who owns their tables: a file beside the data, so that tasks go on after a crash or a start of the server before a session asks. It
/// is a hint: what is wrong in it costs a look.
const HINTS: &str = "pg_background.tasks";

/// Asks for a look at the databases that had tasks before.
fn remember() -> Result<()> {
    let hints = std::fs::read_to_string(HINTS).unwrap_or_default();
    for line in hints.lines() {
        let mut numbers = line.split(' ').map(str::parse::<u32>);
        if let (Some(Ok(database)), Some(Ok(owner))) = (numbers.next(), numbers.next()) {
            shared::database(database)?.had_tasks(owner);
        }
    }
    Ok(())
}

/// Has the clock started with the server. Called in the postmaster.
pub fn start_with_server(raw: Raw<'_>) {
    bgworker::register_at_start(raw, shared::CLOCK_MAIN);
}

/// Where the postmaster starts the clock.
fn run(_raw: Raw<'_>, argument: Datum) -> Result<()> {
    serve(argument)
}

fn serve(argument: Datum) -> Result<()> {
    // One that an older build of the library has asked for has nothing to do here.
    if bgworker::worker_arguments(argument).is_err() {
        return Ok(());
    }
    signals::accept_signals();
    place::join()?;
    bgworker::on_exit(clock_exits);
    if !shared::clock_begins()? {
        return Ok(());
    }
    remember()?;
    let mut clock = Clock {
        orders: Vec::new(),
        paused: Vec::new(),
        queued: QueuedOrder::default(),
        turn: 0,
        hints: String::new(),
    };
    loop {
        latch::reset_latch();
        signals::check_for_interrupts()?;
        signals::reload_configuration()?;
        let Some(ms) = clock.turn()? else { return Ok(()) };
        latch::sleep(ms)?;
    }
}

crate::worker_function!(pg_background_clock_main => run);

impl Clock {
    /// Does what is to be done. Gives how long to sleep, in milliseconds; None where the clock ends.
    fn turn(&mut self) -> Result<Option<i64>> {
        let asked = shared::asked()?;
        upkeep::pass_by();
        let mut ms = LOOK;
        self.look()?;
        let databases = shared::databases()?;
        self.write_hints(&databases);
        let now = backend::now();
        let mut is_idle = true;
        if !transaction::in_recovery() {
            for n in 0..databases.len() {
                let database = databases[(n + self.turn) % databases.len()];
                is_idle &= self.serve(database, now, &mut ms)?;
            }
            self.turn += 1;
        }
        self.place(&mut ms)?;
        if is_idle && self.orders.is_empty() && shared::clock_ends(asked) {
            return Ok(None);
        }
        if !self.orders.is_empty() {
            ms = ms.min(LOOK_AFTER);
        }
        Ok(Some(ms))
    }

    fn write_hints(&mut self, databases: &[&'static Database]) {
        use core::fmt::Write;
        let mut hints = String::new();
        for database in databases {
            if let Some(owner) = database.has_tasks() {
                let _ = writeln!(hints, "{} {owner}", database.number());
            }
        }
        if hints != self.hints {
            // Where it cannot be written, the first session tells.
            let new = format!("{HINTS}.new");
            let _ = std::fs::write(&new, &hints).and_then(|()| std::fs::rename(&new, HINTS));
            self.hints = hints;
        }
    }

    /// Looks at what has been ordered.
    fn look(&mut self) -> Result<()> {
        let mut ended = Vec::new();
        for ordered in &mut self.orders {
            ordered.stage = match core::mem::replace(&mut ordered.stage, Stage::Over) {
                Stage::OnItsWay(Placed::Posted(posted)) => Stage::OnItsWay(posted.look()),
                Stage::OnItsWay(Placed::Starting(starting)) => Stage::OnItsWay(starting.look()),
                stage => stage,
            };
            ordered.stage = match core::mem::replace(&mut ordered.stage, Stage::Over) {
                Stage::OnItsWay(Placed::Taken(taken)) => match segment()?.find(taken.cookie)? {
                    Some(slot) => Stage::Runs(slot, taken.cookie),
                    None => Stage::Over,
                },
                Stage::OnItsWay(Placed::CouldNotStart) => {
                    fallible::push(&mut ended, (ordered.aim, false))?;
                    Stage::Over
                }
                stage => stage,
            };
            if let Stage::Runs(slot, cookie) = ordered.stage {
                slot.look_after(cookie)?;
                let outcome = slot.look_if(cookie, |job| {
                    job.state.has_ended().then_some((
                        job.state == State::Error,
                        job.started_at != 0,
                        job.error().map(|error| error.sqlstate),
                    ))
                });
                match outcome {
                    Some(None) => (),
                    Some(Some((has_failed, has_begun, code))) => {
                        let_go(slot, cookie);
                        if !has_begun && code == Some(*b"3D000") {
                            shared::database(ordered.aim.database)?.is_gone();
                        }
                        // The error of a task says nothing of the next one.
                        let counts = has_failed && (ordered.aim.role.is_none() || !has_begun);
                        fallible::push(&mut ended, (ordered.aim, !counts))?;
                        ordered.stage = Stage::Over;
                    }
                    None => ordered.stage = Stage::Over,
                }
            }
        }
        self.orders.retain(|ordered| !matches!(ordered.stage, Stage::Over));
        for (aim, went_well) in ended {
            if went_well {
                self.paused.retain(|paused| paused.aim != aim);
            } else {
                self.pause(aim)?;
            }
        }
        Ok(())
    }

    fn pause(&mut self, aim: Aim) -> Result<()> {
        let now = backend::now();
        if let Some(paused) = self.paused.iter_mut().find(|paused| paused.aim == aim) {
            paused.pause = (paused.pause * 2).min(LONGEST_PAUSE);
            paused.until = now + paused.pause;
            return Ok(());
        }
        let paused = Paused {
            aim,
            pause: PAUSE,
            until: now + PAUSE,
        };
        fallible::push(&mut self.paused, paused)
    }

    /// How long the aim is not to be tried, in microseconds.
    fn paused_for(&self, aim: Aim, now: i64) -> i64 {
        let paused = self.paused.iter().find(|paused| paused.aim == aim);
        paused.map_or(0, |paused| (paused.until - now).clamp(0, LONGEST_PAUSE))
    }

    fn count(&self, is_it: impl Fn(&Aim) -> bool) -> usize {
        self.orders.iter().filter(|ordered| is_it(&ordered.aim)).count()
    }

    /// Orders what a database needs. Tells whether that is nothing, now and later.
    fn serve(&mut self, database: &'static Database, now: i64, ms: &mut i64) -> Result<bool> {
        let keeper = Aim {
            database: database.number(),
            role: None,
        };
        let mut sleep = |us: i64| *ms = (*ms).min((us + 999) / 1000).max(1);
        let (is_due, at) = database.due(now);
        let mut is_idle = !is_due && at == 0;
        if is_due && self.count(|aim| *aim == keeper) == 0 {
            match self.paused_for(keeper, now) {
                0 => self.order(keeper, database.owner(), Work::Keep)?,
                us => sleep(us),
            }
        } else if at > now {
            sleep(at - now);
        }
        for ready in database.ready() {
            if ready.tasks == 0 {
                continue;
            }
            is_idle = false;
            let aim = Aim {
                database: database.number(),
                role: Some(ready.role),
            };
            let most = settings::max_task_workers().max(0) as usize;
            // Those that are on their way have not taken up a task yet.
            while self.count(|aim| aim.role.is_some()) < most && self.waiting_for(aim) < ready.tasks as usize {
                match self.paused_for(aim, now) {
                    0 => self.order(aim, ready.role, Work::Task)?,
                    us => {
                        sleep(us);
                        break;
                    }
                }
            }
        }
        Ok(is_idle)
    }

    /// Runners that have not taken up a task.
    fn waiting_for(&self, aim: Aim) -> usize {
        let has_none = |ordered: &&Ordered| match ordered.stage {
            Stage::OnItsWay(_) => true,
            Stage::Runs(_, cookie) => !shared::is_held(cookie),
            Stage::Over => false,
        };
        self.orders
            .iter()
            .filter(|ordered| ordered.aim == aim)
            .filter(has_none)
            .count()
    }

    fn order(&mut self, aim: Aim, role: u32, work: Work) -> Result<()> {
        fallible::reserve(&mut self.orders, 1)?;
        KEPT.with_borrow_mut(|kept| fallible::reserve(kept, 1 + self.orders.len()))?;
        let order = Order {
            sql: b"",
            label: None,
            text_encoding: encoding::UTF8,
            queue_size: order::queue_size(0)?,
            keeps_result: false,
            retention: 0,
            worker_timeout: 0,
            is_limited: true,
            state: Source::Connection {
                database: aim.database,
                role,
            },
            work,
            counters: shmem::INVALID_POINTER,
            introduce: keep,
        };
        match place::prepare(&order) {
            Ok(prepared) => self.orders.push(Ordered {
                aim,
                stage: Stage::OnItsWay(Prepared::place(prepared)),
            }),
            Err(failure) => {
                error::log_caught(error::into_data(failure));
                self.pause(aim)?;
            }
        }
        Ok(())
    }

    /// Tries again what had no room.
    fn place(&mut self, ms: &mut i64) -> Result<()> {
        let mut stood = false;
        let mut sleep = None;
        for ordered in &mut self.orders {
            ordered.stage = match core::mem::replace(&mut ordered.stage, Stage::Over) {
                Stage::OnItsWay(Placed::NoRoom(prepared, no_room)) => {
                    if !stood {
                        // The first that has no room waits for all.
                        stood = true;
                        sleep = match self.queued.stand(no_room.short, prepared.counts(), i32::MAX)? {
                            Stand::Sleep(sleep) => Some(sleep.ms),
                            Stand::LookAgain | Stand::Refused { .. } => Some(1),
                        };
                    }
                    Stage::OnItsWay(prepared.place())
                }
                stage => stage,
            };
        }
        if !stood {
            self.queued = QueuedOrder::default();
        }
        // What was taken at once is looked at at once.
        let has_news = self
            .orders
            .iter()
            .any(|ordered| matches!(ordered.stage, Stage::OnItsWay(Placed::Taken(_) | Placed::CouldNotStart)));
        if has_news {
            *ms = 0;
        } else if let Some(sleep) = sleep {
            *ms = (*ms).min(sleep.min(LOOK_FOR_ROOM)).max(1);
        }
        Ok(())
    }
}
