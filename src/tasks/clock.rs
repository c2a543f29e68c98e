//! The process that has workers started: one in the cluster, without a database.
//!
//! It sleeps until a process asks for something or something is due. Then it orders the keeper of a database, and for each role that has tasks
//! which can run a runner, as many as may run at a time. An order is placed without blocking, so no database and no role holds up the others.
//!
//! It ends if nothing is due, and the next process that asks has it started again. If the library is preloaded and some database has tasks, it keeps
//! its slot, and sleeps until it is asked.
//!
//! Two builds of the library, as there are after its file was replaced under a running server, share no memory, so they would not know of each other's
//! claims. So the clock holds a lock that both know ([`Only::CLOCK`]) until its end, and no runner starts without it. A clock that finds it taken
//! asks for it with another one ([`Only::NEXT_CLOCK`]). The one before it then orders nothing more, and ends with its last runner. It does not come back: the
//! postmaster starts processes with the library that is there now, also for sessions that have the one before.

use crate::channel::request::Work;
use crate::dispatch::launch_queue::{NextStep, QueuedOrder};
use crate::dispatch::order::Order;
use crate::dispatch::place::{self, Placed, Prepared};
use crate::pg::error::{self, Result};
use crate::pg::moment;
use crate::pg::process::only::Only;
use crate::pg::process::{backend, bgworker, latch, signals};
use crate::pg::raw::Raw;
use crate::pg::reuse::library;
use crate::pg::{fallible, transaction};
use crate::registry::job::{Slot, State};
use crate::registry::segment::{self, segment};
use crate::registry::upkeep;
use crate::settings;
use crate::tasks::jump::Watch;
use crate::tasks::shared::{self, Database, Mode, Refused, Role};
use core::ffi::c_int;
use pgrx::pg_sys::Datum;
use std::cell::RefCell;

/// How often the clock looks although nothing is due, in milliseconds.
const LOOK: i64 = 60_000;

/// How long it sleeps if nothing is due, in milliseconds: until it is asked.
const NEVER: i64 = 86_400_000;

/// How often it looks at workers that may be gone without a word, in milliseconds.
const LOOK_AFTER: i64 = 1000;

/// How often it looks whether there is room for an order, at most, in milliseconds.
const LOOK_FOR_ROOM: i64 = 100;

/// How long an order is not tried again after it failed, at first and at most, in microseconds.
const PAUSE: i64 = 1_000_000;
const LONGEST_PAUSE: i64 = 5_000_000;

/// How long the clock stays although nothing is due, in microseconds: the next task finds it there.
const LINGER: i64 = 60_000_000;

/// How often the lines of a database are read again while there is something to do, in microseconds.
const SWEEP: i64 = 60_000_000;

/// How long before something is due the keeper is ordered, in microseconds.
const AHEAD: i64 = 150_000;

/// How many keepers there are at most at the same time.
const KEEPERS: usize = 4;

/// `template1` (`Template1DbOid` of catalog/pg_database.h), where all databases are looked up: it is always there.
const TEMPLATE: u32 = 1;

/// What an order is for. No role: the keeper.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Aim {
    database: u32,
    role: Option<u32>,
}

/// An order, and how far it is.
struct Ordered {
    aim: Aim,
    stage: Stage,
}

enum Stage {
    OnItsWay(Placed),
    /// A worker has it. A runner has not begun with its first task yet.
    Begins(&'static Slot, u64),
    Over,
}

/// What has failed, and when it is tried again.
struct Paused {
    aim: Aim,
    pause: i64,
    until: i64,
}

thread_local! {
    /// The jobs that this process has the handle of.
    static KEPT: RefCell<Vec<(&'static Slot, u64)>> = const { RefCell::new(Vec::new()) };
    static STATE: RefCell<Hints> = const { RefCell::new(Hints::new()) };
}

fn keep(slot: &'static Slot, cookie: u64, pid: i32) {
    slot.introduce(cookie, pid);
    segment::waiters(slot).enter();
    KEPT.with_borrow_mut(|kept| kept.push((slot, cookie)));
}

/// The job goes on by itself, or is over.
fn let_go(slot: &'static Slot, cookie: u64) {
    segment::waiters(slot).leave();
    slot.orphan(cookie);
    KEPT.with_borrow_mut(|kept| kept.retain(|(_, other)| *other != cookie));
}

extern "C-unwind" fn clock_exits(_code: c_int, _argument: Datum) {
    let kept = KEPT.with(|kept| kept.try_borrow_mut().map(|mut kept| core::mem::take(&mut *kept)));
    for (slot, cookie) in kept.unwrap_or_default() {
        slot.orphan(cookie);
    }
    if Only::CLOCK.is_mine() {
        STATE.with(|hints| {
            if let Ok(mut hints) = hints.try_borrow_mut() {
                hints.is_running = false;
                hints.write();
            }
        });
    }
    Only::CLOCK.give_back();
    Only::NEXT_CLOCK.give_back();
}

struct Clock {
    /// Whether each database is to be looked at once.
    scouts: bool,
    orders: Vec<Ordered>,
    paused: Vec<Paused>,
    queued: QueuedOrder,
    /// The aims that a runner was ordered for, and when the last time.
    served: Vec<(Aim, i64)>,
    watch: Watch,
    /// Whether it has slept with nothing due.
    has_slept: bool,
    /// When there was something to do last.
    busy_at: i64,
    swept_at: i64,
    /// How much the clock was asked for when the lines were read last.
    swept_for: u64,
}

/// A file beside the data: which databases have tasks, and who owns their tables, so that tasks go on after a crash or a start of the server before
/// a session asks; and whether the server ran tasks when it ended. What is wrong in it costs a look.
const HINTS: &str = "pg_background.tasks";

/// What the file says.
struct Hints {
    /// Whether a clock runs. If a file says so when a clock starts, the server has crashed with tasks that ran.
    is_running: bool,
    /// When it crashed last, 0 for never.
    crashed_at: i64,
    databases: Vec<(u32, u32)>,
    written: String,
}

impl Hints {
    const fn new() -> Self {
        Self {
            is_running: false,
            crashed_at: 0,
            databases: Vec::new(),
            written: String::new(),
        }
    }

    fn read() -> Self {
        let mut hints = Self::new();
        for line in std::fs::read_to_string(HINTS).unwrap_or_default().lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("running"), None, None) => hints.is_running = true,
                (Some("crashed"), Some(at), None) => hints.crashed_at = at.parse().unwrap_or(0),
                (Some("database"), Some(database), Some(owner)) => {
                    if let (Ok(database), Ok(owner)) = (database.parse(), owner.parse()) {
                        hints.databases.push((database, owner));
                    }
                }
                _ => (),
            }
        }
        hints
    }

    fn write(&mut self) {
        use core::fmt::Write;
        let mut text = String::new();
        if self.is_running {
            text.push_str("running\n");
        }
        if self.crashed_at != 0 {
            let _ = writeln!(text, "crashed {}", self.crashed_at);
        }
        for (database, owner) in &self.databases {
            let _ = writeln!(text, "database {database} {owner}");
        }
        if text != self.written {
            // If it cannot be written, the first session tells.
            let new = format!("{HINTS}.new");
            let _ = std::fs::write(&new, &text).and_then(|()| std::fs::rename(&new, HINTS));
            self.written = text;
        }
    }
}

/// Asks for a look at the databases that had tasks before.
fn remember() -> Result<()> {
    let mut hints = Hints::read();
    if hints.is_running {
        hints.crashed_at = backend::now();
    }
    hints.is_running = true;
    shared::set_crashed_at(hints.crashed_at);
    for (database, owner) in &hints.databases {
        shared::database(*database)?.may_have_tasks(*owner);
    }
    hints.write();
    STATE.set(hints);
    Ok(())
}

/// How often a clock tries to take over from the one of another build, in milliseconds.
const LOOK_FOR_LOCK: i64 = 100;

/// Waits until no other build of this library runs tasks.
fn take_over() -> Result<()> {
    while !Only::CLOCK.take()? {
        latch::reset_latch();
        signals::check_for_interrupts()?;
        if !Only::NEXT_CLOCK.is_mine() {
            Only::NEXT_CLOCK.take()?;
        }
        Only::CLOCK.wake_holder()?;
        latch::sleep(LOOK_FOR_LOCK)?;
    }
    Only::NEXT_CLOCK.give_back();
    Ok(())
}

/// Has the clock started with the server. Called in the postmaster.
pub fn start_with_server(raw: Raw<'_>) {
    bgworker::register_at_start(raw, shared::CLOCK_MAIN);
}

/// The function that the postmaster starts the clock with. A function that has [`Raw`] may own nothing that is to be dropped, so the work is
/// in another one.
fn run(_raw: Raw<'_>, argument: Datum) -> Result<()> {
    serve(argument)
}

fn serve(argument: Datum) -> Result<()> {
    // A session with another build of the library has tasks, which it cannot tell of.
    let is_strangers = bgworker::worker_arguments(argument).is_err();
    signals::accept_signals();
    place::join()?;
    bgworker::on_exit(clock_exits);
    if !shared::clock_begins()? {
        if is_strangers {
            for database in shared::databases()? {
                database.ask_for_sweep();
            }
        }
        return Ok(());
    }
    take_over()?;
    remember()?;
    let mut clock = Clock {
        // Without preloading, the first session in a database tells of it.
        scouts: library::is_preloaded(),
        orders: Vec::new(),
        paused: Vec::new(),
        queued: QueuedOrder::default(),
        served: Vec::new(),
        watch: Watch::begin(),
        has_slept: false,
        busy_at: backend::now(),
        swept_at: backend::now(),
        swept_for: 0,
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
    /// Does what is to be done. Returns how long to sleep, in milliseconds; None if the clock ends.
    fn turn(&mut self) -> Result<Option<i64>> {
        let asked = shared::asked()?;
        moment::may_fail("clock turns")?;
        upkeep::pass_by();
        let mut ms = LOOK;
        self.look()?;
        if Only::NEXT_CLOCK.is_taken()? {
            // A runner that is on its way finds no work.
            let no_keeper = self.count(|aim| aim.role.is_none()) == 0;
            if shared::gives_way() && no_keeper {
                shared::clock_leaves();
                return Ok(None);
            }
            return Ok(Some(LOOK_FOR_LOCK));
        }
        let mut databases = shared::databases()?;
        write_hints(&databases)?;
        let now = backend::now();
        if core::mem::take(&mut self.has_slept) {
            // Nothing was due, so it does not matter whether the clock has jumped meanwhile.
            self.watch = Watch::begin();
        }
        if self.watch.has_jumped() {
            databases.iter().for_each(|database| database.duty_begins(now));
        }
        self.sweep(&databases, asked, now);
        let mut is_idle = true;
        let stays = library::is_preloaded() && databases.iter().any(|database| database.has_tasks().is_some());
        if !transaction::in_recovery() {
            if core::mem::take(&mut self.scouts) {
                let scout = Aim {
                    database: TEMPLATE,
                    role: None,
                };
                self.order(scout, shared::SUPERUSER, Work::Scout)?;
            }
            let most = settings::max_task_workers().max(0) as u32;
            let mut aims = Vec::new();
            let mut keeper_waits = false;
            // The one whose keeper was ordered longest ago comes first, or those that are due all the time would keep the others waiting.
            databases.sort_by_key(|database| database.keeper_ordered_at());
            for database in &databases {
                is_idle &= self.serve_keeper(database, now, &mut ms, &mut keeper_waits)?;
                for role in database.roles(most) {
                    let aim = Aim {
                        database: database.number(),
                        role: Some(role.role),
                    };
                    fallible::push(&mut aims, (self.served_at(aim), aim, role))?;
                }
            }
            shared::keeper_waits(keeper_waits, &databases);
            is_idle &= aims.is_empty();
            self.serve(&mut aims, most as usize, now, &mut ms)?;
        }
        self.place(&mut ms)?;
        if !is_idle || !self.orders.is_empty() || shared::runners(0).0 > 0 {
            self.busy_at = now;
            if !self.orders.is_empty() {
                ms = ms.min(LOOK_AFTER);
            }
        } else if now - self.busy_at >= LINGER {
            if stays {
                (self.has_slept, ms) = (true, NEVER);
            } else if shared::clock_ends(asked) {
                return Ok(None);
            }
        } else {
            ms = ms.min((self.busy_at + LINGER - now) / 1000 + 1);
        }
        Ok(Some(ms))
    }

    /// Has the lines read again now and then, unless nothing has happened since.
    fn sweep(&mut self, databases: &[&'static Database], asked: u64, now: i64) {
        if now - self.swept_at < SWEEP || asked == self.swept_for {
            return;
        }
        self.swept_at = now;
        for database in databases {
            if database.mode() == Mode::Runs {
                database.ask_for_sweep();
            }
        }
        self.swept_for = shared::asked().unwrap_or(asked);
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
                    Some(slot) => Stage::Begins(slot, taken.cookie),
                    None => Stage::Over,
                },
                Stage::OnItsWay(Placed::CouldNotStart) => {
                    fallible::push(&mut ended, (ordered.aim, false))?;
                    Stage::Over
                }
                stage => stage,
            };
            let Stage::Begins(slot, cookie) = ordered.stage else {
                continue;
            };
            if ordered.aim.role.is_some() && shared::runners(cookie).1 {
                let_go(slot, cookie);
                fallible::push(&mut ended, (ordered.aim, true))?;
                ordered.stage = Stage::Over;
                continue;
            }
            slot.look_after(cookie)?;
            let outcome = slot.look_if(cookie, |job| {
                job.state.has_ended().then_some((
                    job.state == State::Error,
                    job.started_at != 0,
                    job.error().map(|error| error.sqlstate),
                    job.launched_at,
                ))
            });
            match outcome {
                Some(None) => (),
                Some(Some((has_failed, has_begun, code, launched_at))) => {
                    let_go(slot, cookie);
                    if has_failed && !has_begun {
                        refused(ordered.aim, code, launched_at)?;
                    } else if has_failed && ordered.aim.role.is_none() {
                        // It has forgotten what it was asked for.
                        shared::database(ordered.aim.database)?.ask_for_sweep();
                    }
                    fallible::push(&mut ended, (ordered.aim, !has_failed))?;
                    ordered.stage = Stage::Over;
                }
                // It goes on with another task, as another job.
                None => {
                    let_go(slot, cookie);
                    ordered.stage = Stage::Over;
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
            if paused.until > now {
                // Others of the same time have failed, too.
                return Ok(());
            }
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

    /// Orders the keeper of a database if it is to look. Tells whether it has nothing to do, now and later.
    fn serve_keeper(&mut self, database: &Database, now: i64, ms: &mut i64, waits: &mut bool) -> Result<bool> {
        let keeper = Aim {
            database: database.number(),
            role: None,
        };
        let mut sleep = |us: i64| *ms = (*ms).min((us + 999) / 1000).max(1);
        let (is_due_now, due_at) = database.due(now);
        // A process takes a while to start. The keeper stays until the time has come.
        let at = if due_at == 0 { 0 } else { due_at - AHEAD };
        let is_due = is_due_now || (at != 0 && at <= now);
        if is_due && self.count(|aim| *aim == keeper) == 0 {
            match self.paused_for(keeper, now) {
                0 if self.count(|aim| aim.role.is_none()) >= KEEPERS => {
                    *waits |= is_due_now;
                    if !is_due_now {
                        sleep(due_at - now);
                    }
                }
                0 => {
                    database.keeper_is_ordered(now);
                    self.order(keeper, database.owner(), Work::Keep)?;
                }
                us => sleep(us),
            }
        } else if at > now {
            sleep(at - now);
        }
        Ok(!is_due && at == 0)
    }

    /// When a runner was ordered last for the aim, 0 for never.
    fn served_at(&self, aim: Aim) -> i64 {
        let served = self.served.iter().find(|(other, _)| *other == aim);
        served.map_or(0, |(_, at)| *at)
    }

    /// Orders runners. The aim that has waited longest comes first. If there is no room for one that has no runner, the runners of others make room.
    fn serve(&mut self, aims: &mut [(i64, Aim, Role)], most: usize, now: i64, ms: &mut i64) -> Result<()> {
        let mut sleep = |us: i64| *ms = (*ms).min((us + 999) / 1000).max(1);
        let mut others_wait = false;
        // If runs that have ended cannot be noted, as on a full disk, their claims are kept until the keeper has noted them. A runner without a claim
        // fails. Who sets a claim free wakes the clock.
        let free = shared::free_claims();
        self.served
            .retain(|(aim, _)| aims.iter().any(|(_, other, _)| other == aim));
        aims.sort_by_key(|(served_at, ..)| *served_at);
        for (_, aim, role) in aims.iter() {
            while self.count(|other| other == aim) + (role.idle as usize) < role.can as usize {
                let is_doubtful = self.paused.iter().any(|paused| paused.aim == *aim);
                if is_doubtful && self.count(|other| other == aim) > 0 {
                    // After a failure one is tried before others follow.
                    break;
                }
                if self.count(|aim| aim.role.is_some()) + shared::runners(0).0 as usize >= most {
                    others_wait |= !role.has_runner && self.count(|other| other == aim) == 0;
                    break;
                }
                if self.count(|aim| aim.role.is_some()) >= free {
                    break;
                }
                match self.paused_for(*aim, now) {
                    0 => {
                        self.order(*aim, role.role, Work::Task)?;
                        self.served.retain(|(other, _)| other != aim);
                        fallible::push(&mut self.served, (*aim, now))?;
                    }
                    us => {
                        sleep(us);
                        break;
                    }
                }
            }
        }
        shared::others_wait(others_wait);
        Ok(())
    }

    fn order(&mut self, aim: Aim, role: u32, work: Work) -> Result<()> {
        moment::may_fail(if work == Work::Task {
            "ordering a runner"
        } else {
            "ordering the keeper"
        })?;
        fallible::reserve(&mut self.orders, 1)?;
        KEPT.with_borrow_mut(|kept| fallible::reserve(kept, 1 + self.orders.len()))?;
        let order = Order {
            work,
            ..Order::of_connection(aim.database, role, b"", keep)
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
        let mut waits_for_all = false;
        let mut sleep = None;
        for ordered in &mut self.orders {
            ordered.stage = match core::mem::replace(&mut ordered.stage, Stage::Over) {
                Stage::OnItsWay(Placed::NoRoom(prepared, no_room)) => {
                    if !waits_for_all {
                        // The first that has no room waits for all.
                        waits_for_all = true;
                        sleep = match self.queued.next_step(no_room.reason, prepared.counts(), i32::MAX)? {
                            NextStep::Sleep(sleep) => Some(sleep.ms),
                            NextStep::LookAgain | NextStep::Refused { .. } => Some(1),
                        };
                    }
                    Stage::OnItsWay(prepared.place())
                }
                stage => stage,
            };
        }
        if !waits_for_all {
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

fn write_hints(databases: &[&'static Database]) -> Result<()> {
    let mut now = Vec::new();
    for database in databases {
        if let Some(owner) = database.has_tasks() {
            fallible::push(&mut now, (database.number(), owner))?;
        }
    }
    STATE.with_borrow_mut(|hints| {
        hints.databases = now;
        hints.write();
    });
    Ok(())
}

/// Classes of SQLSTATEs that say nothing of the role that wanted to connect: connections, resources, operators, internal
/// errors.
const OF_THE_SERVER: [[u8; 2]; 4] = [*b"08", *b"53", *b"57", *b"XX"];

/// No worker could connect for the aim. The keeper finds out whether its role still exists.
fn refused(aim: Aim, code: Option<[u8; 5]>, at: i64) -> Result<()> {
    let database = shared::database(aim.database)?;
    match aim.role {
        _ if code == Some(*b"3D000") => database.is_dropped(),
        Some(role) => {
            if let Some(sqlstate) = code.filter(|code| !OF_THE_SERVER.contains(&[code[0], code[1]])) {
                database.is_refused(Refused { role, sqlstate, at });
            }
            if let Some(mut lines) = database.lines() {
                lines.forget(role);
            }
            database.ask_for_sweep();
        }
        None => (),
    }
    Ok(())
}
