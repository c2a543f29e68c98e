//! The main loop of a worker.
//!
//! 1. [`attach`]: the job is taken, before anything that can fail: from here on a cancel reaches this process;
//! 2. [`Attached::run`]: connect, adopt the session's state, execute;
//! 3. the transaction is over: the process is made ready for another job, the end is published, and waiting sessions are woken;
//! 4. [`idle::wait`]: another job, or none.
//!
//! If the process ends before the third step, [`worker_ends`] publishes the end of the job. What that needs is mapped before the job is
//! taken, so neither it nor the third step needs memory or can fail.

use crate::channel::request::{Errand, Request, Taken, Work};
use crate::pg::compat;
use crate::pg::digits::Digits;
use crate::pg::error::{self, Result};
use crate::pg::moment;
use crate::pg::process::backend::{self, Process};
use crate::pg::process::identity::Identity;
use crate::pg::process::{bgworker, identity, latch, signals};
use crate::pg::query::{callbacks, simple_query};
use crate::pg::raw::Raw;
use crate::pg::reuse::{adopt, compiled};
use crate::pg::shmem::{self, INVALID_POINTER};
use crate::pg::transaction;
use crate::pg::value::params::Parameters;
use crate::pg::value::{border, describe, encoding};
use crate::registry::job::{self, Slot, State, Stop};
use crate::registry::segment::segment;
use crate::registry::totals::{Start, Totals};
use crate::registry::{admission, pool, upkeep};
use crate::tasks::{keeper, runner};
use crate::worker::attached::{self, Attached, attach};
use crate::worker::idle::{self, IdlePolicy};
use crate::worker::verdict::{self, Verdict};
use crate::worker::{errand, execute, output, stop};
use core::ffi::{CStr, c_int};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::pg_sys::{Datum, ErrorData, NAMEDATALEN};
use std::cell::Cell;

/// How many times a task is tried again at once that another transaction was in the way of.
const AT_ONCE: u32 = 5;

/// What the end of the time is: a signal handler reads it.
static LIMIT: AtomicU32 = AtomicU32::new(Stop::WorkerTimeout as u32);

thread_local! {
    static TIMER: Cell<u32> = const { Cell::new(compat::USER_TIMEOUT) };
    static CONNECTED: Cell<bool> = const { Cell::new(false) };
    /// Whether this process is connecting to the database, so that a refusal is the job's error.
    static IS_CONNECTING: Cell<bool> = const { Cell::new(false) };
}

/// How often a process that runs one task after the other reports its statistics at most, in microseconds. If it has no more tasks, it reports
/// at once.
const REPORT: i64 = 100_000;

/// How long a job that is handed on waits for a slot of the postmaster, in microseconds, and how often the worker tries, in milliseconds.
const HAND_ON: i64 = 10_000_000;

const HAND_ON_LOOK: i64 = 20;

/// The entry point of a worker that is started for a job.
pub fn run(raw: Raw<'_>, argument: Datum) -> Result<()> {
    let (number, cookie) = bgworker::worker_arguments(argument)?;
    let slot = segment()?.slot(number)?;
    prepare_for_the_end();
    let job = attach(slot, cookie)?;
    if job.is_some() {
        prepare_for_jobs(raw, slot);
    }
    signals::accept_signals();
    serve(raw, job);
    Ok(())
}

/// The entry point of a spare worker, which waits for its job.
pub fn run_spare(raw: Raw<'_>, argument: Datum) -> Result<()> {
    let (entry, token) = bgworker::worker_arguments(argument)?;
    // The first slot exists: a session that asks for a spare worker has launched jobs.
    let slot = segment()?.slot(0)?;
    prepare_for_the_end();
    prepare_for_jobs(raw, slot);
    signals::accept_signals();
    serve(raw, idle::stand_by(raw, entry, token));
    Ok(())
}

fn prepare_for_the_end() {
    bgworker::skip_inherited_exit_handlers();
    bgworker::on_exit(worker_ends);
}

fn prepare_for_jobs(raw: Raw<'_>, slot: &'static Slot) {
    output::init(raw, slot);
    callbacks::redirect_messages(raw, output::message_for_client);
    TIMER.set(signals::register_timer(time_is_over));
    compiled::watch(raw);
    if let Err(failure) = stop::watch() {
        error::throw(raw, failure);
    }
}

/// Runs one job after another.
fn serve(raw: Raw<'_>, mut next: Option<Attached>) {
    while let Some(job) = next {
        next = job.run(raw).and_then(|policy| idle::wait(raw, &policy));
    }
}

/// What stays the same for all jobs that a process runs on one order.
struct Run {
    identity: Identity,
    policy: IdlePolicy,
    queue_size: u32,
    keeps_result: bool,
    /// Whether this process has run other jobs before.
    is_used: bool,
}

/// What is to be run.
#[derive(Clone, Copy)]
enum Kind {
    /// The text, with this work in its transaction.
    Job(Work),
    /// The text of a task whose statements have their own transactions.
    Statement,
    /// The text of a task that runs in another database.
    Elsewhere,
    /// The text of such a task, there; with the encoding of the task's database.
    Errand(Errand<'static>, i32),
    /// The text of a part of an operation, which gets its chunk first.
    Lane,
    /// No text, but a function of this library.
    Own(fn() -> Result<()>),
}

/// What is to be run, and how long.
struct Text<'a> {
    sql: &'a CStr,
    parameters: Option<&'a Parameters>,
    kind: Kind,
    /// In milliseconds, 0 for no limit.
    timeout: i32,
    /// Why the job ends when the time is over.
    limit: Stop,
}

impl Attached {
    /// Runs the job to its end. Returns the policy on which this process has offered itself for another job; None if it exits.
    fn run(self, raw: Raw<'_>) -> Option<IdlePolicy> {
        let (sql, request_at, name, queue_size, keeps_result, timeout) = {
            let job = self.slot.lock();
            (
                job.sql(),
                job.request,
                ApplicationName::of(job.label(), self.slot.pid.load(Relaxed)),
                job.queue_size,
                job.keeps_result,
                job.worker_timeout,
            )
        };
        let (request, sql) = match Request::mapped(request_at).and_then(|request| Ok((request, sql.read()?))) {
            Ok(mapped) => mapped,
            Err(failure) => error::throw(raw, failure),
        };
        let sql = crate::pg::memory::c_str(sql);
        simple_query::enter_message_context(raw);

        let is_first = !CONNECTED.replace(true);
        if !is_first && !(idle::takes_in_changes() && (!request.is_connection() || idle::is_as_new())) {
            self.hand_on(raw);
            return None;
        }
        // An error in the closure jumps by longjmp, so nothing in it may own memory; the numbers are owned here.
        let mut records = describe::Numbers::default();
        let adopted = error::catch(|raw| {
            if is_first {
                let (database, role) = request.connection();
                IS_CONNECTING.set(true);
                bgworker::connect(raw, database.into(), role.into());
                IS_CONNECTING.set(false);
            }
            let identity = request.adopt(raw, name.text());
            border::values_go_to(
                request
                    .home()
                    .filter(|_| keeps_result && request.errand_rows().is_none()),
            );
            (request.take(raw, sql, &mut records), identity)
        });
        IS_CONNECTING.set(false);
        if request.is_connection() {
            let mut job = self.slot.lock();
            job.encoding = encoding::of_database();
            job.encoding_is_guessed = false;
        }
        let (
            Taken {
                sql,
                parameters,
                errand,
            },
            identity,
        ) = match adopted {
            Ok(taken) => taken,
            Err(edata) => {
                // A process that failed here has no state to continue with.
                identity::adoption_failed();
                simple_query::recover(raw);
                if is_first || self.slot.stop() != Stop::No {
                    let verdict = verdict::of(edata, self.slot);
                    error::log_caught(edata);
                    self.publish(verdict);
                } else {
                    self.hand_on(raw);
                }
                return None;
            }
        };
        let policy = IdlePolicy::of(&request, is_first);
        // Messages up to here concern the process and not the job.
        output::begin(raw, self, queue_size, keeps_result);
        compiled::job_begins();
        if is_first {
            // Registered after the callback that rolls an open transaction back, so called before it.
            bgworker::on_exit(worker_leaves);
        }
        if request.is_connection() {
            self.slot.lock().user = identity.current;
        }
        let work = request.work();
        let home = request.home().unwrap_or_else(encoding::of_database);
        self.starts(if is_first { Start::Cold } else { Start::Warm });
        shmem::free(request_at);

        let run = Run {
            identity,
            policy,
            queue_size,
            keeps_result,
            is_used: !is_first,
        };
        if work == Work::Task {
            return self.run_tasks(raw, &run);
        }
        simple_query::enter_message_context(raw);
        let text = Text {
            sql,
            parameters: parameters.as_ref(),
            kind: match work {
                Work::Keep => Kind::Own(keeper::keep),
                Work::Scout => Kind::Own(keeper::scout),
                _ if errand.is_task => Kind::Errand(errand, home),
                work => Kind::Job(work),
            },
            timeout,
            limit: Stop::WorkerTimeout,
        };
        let verdict = self.perform(raw, &run, &text);
        output::finish();
        let stays = idle::end_session() && policy.prepare();
        self.finish(raw, verdict);
        stays.then_some(policy)
    }

    /// Publishes the end of the job, after the process was made ready for another one or has to exit.
    fn finish(self, raw: Raw<'_>, verdict: Verdict) {
        // Publishing may free the text of the SQL.
        simple_query::forget_text();
        self.publish(verdict);
        signals::resume_interrupts();
        simple_query::finish(raw, c"pg_background:idle");
        compat::report_statistics();
    }

    /// Runs the text to its end. Interrupts are held when this returns: from then on the end of the process must not be reported as the end of the
    /// job, which has its outcome.
    fn perform(self, raw: Raw<'_>, run: &Run, text: &Text) -> Verdict {
        LIMIT.store(text.limit as u32, Relaxed);
        if text.timeout > 0 {
            signals::start_timer(TIMER.get(), text.timeout);
        }
        let roles = identity::roles();
        compiled::watch_role(Some(attached::leaves_its_role));
        stop::watch_job(Some(self.slot));
        let execute = |parameters, work| {
            error::catch(|raw| execute::execute(raw, self.slot, text.sql, parameters, &run.identity, work, run.is_used))
        };
        let executed = match text.kind {
            Kind::Job(work) => execute(text.parameters, work),
            Kind::Elsewhere => runner::run_elsewhere(self.slot).map_err(error::into_data),
            Kind::Lane => match runner::cut() {
                Ok(true) => execute(None, Work::Task),
                Ok(false) => Ok(()),
                Err(failure) => Err(error::into_data(failure)),
            },
            Kind::Own(body) => body().map_err(error::into_data),
            Kind::Statement => match runner::prepare() {
                Ok(parameters) => execute(parameters.as_ref(), Work::None),
                Err(failure) => Err(error::into_data(failure)),
            },
            Kind::Errand(errand, home) => match transaction::own(|| errand::begin(&errand, home, run.is_used)) {
                Ok(()) => execute(text.parameters, Work::None),
                Err(failure) => Err(error::into_data(failure)),
            },
        };
        signals::hold_interrupts();
        stop::watch_job(None);
        let verdict = match executed {
            Ok(()) => Verdict::SUCCESS,
            Err(edata) => {
                let verdict = verdict::of(edata, self.slot);
                // The statement that failed may have changed the roles.
                execute::note_roles(self.slot, &run.identity, roles);
                output::after_error();
                error::log_caught(edata);
                if !simple_query::recover(raw) {
                    idle::mark_not_reusable();
                }
                verdict
            }
        };
        if text.timeout > 0 {
            signals::stop_timer(TIMER.get());
        }
        compiled::watch_role(None);
        execute::leave(&run.identity);
        errand::end();
        verdict
    }

    /// Runs the tasks of this process's role, one after the other, until there are no more for it. Each is a job of its own. Between two of them, and
    /// at first, the process has a hidden job.
    fn run_tasks(mut self, raw: Raw<'_>, run: &Run) -> Option<IdlePolicy> {
        simple_query::enter_message_context(raw);
        let arrived = runner::arrive(self.slot.number(), self.cookie);
        if arrived.is_ok() {
            // The job of a task belongs to no session. After an error it is the clock's, which does not order the next runner at once.
            self.slot.orphan(self.cookie);
        }
        let mut next = match arrived {
            Ok(true) => self.begin_next(raw, run, run.is_used),
            Ok(false) => Ok(None),
            Err(failure) => Err(failure),
        };
        let mut reported_at = 0;
        let verdict = loop {
            let task = match next {
                Ok(Some(task)) => task,
                Ok(None) => break Verdict::SUCCESS,
                Err(failure) => break self.failed(error::into_data(failure)),
            };
            self.slot
                .show(self.cookie, task.label.map(CStr::to_bytes), task.sql.to_bytes());
            let verdict = self.run_task(raw, run, &task);
            output::finish();
            let is_clean = runner::is_runner() && idle::end_session() && run.policy.clean();
            let renewed = if is_clean { self.renew(&verdict) } else { None };
            let Some(renewed) = renewed else { break verdict };
            self = renewed;
            moment::passes("renewed");
            signals::resume_interrupts();
            simple_query::finish(raw, c"pg_background:idle");
            if backend::now() - reported_at >= REPORT {
                compat::report_statistics();
                reported_at = backend::now();
            }
            simple_query::enter_message_context(raw);
            next = self.begin_next(raw, run, true);
        };
        signals::hold_interrupts();
        runner::abandon();
        let stays = idle::end_session() && run.policy.prepare();
        self.finish(raw, verdict);
        stays.then_some(run.policy)
    }

    /// Puts the process into the state of a new connection, and claims the next task. `is_used` tells whether it has run others before.
    fn begin_next(self, raw: Raw<'_>, run: &Run, is_used: bool) -> Result<Option<runner::Task>> {
        let task = runner::next(self.cookie)?;
        let Some(task) = task else { return Ok(None) };
        // After the claim: what was committed before the task was enqueued counts. A process that has run nothing keeps nothing that could be
        // old, and takes the task in any case.
        if is_used && !(idle::takes_in_changes() && idle::is_as_new()) {
            runner::not_now();
            idle::mark_not_reusable();
            return Ok(None);
        }
        // A cancel that comes from now on is meant for the task, and is served when that runs.
        signals::hold_interrupts();
        moment::passes("adopting");
        let label = task.label.map(CStr::to_bytes);
        let name = ApplicationName::of(label, self.slot.pid.load(Relaxed));
        if let Err(edata) = error::catch(|raw| adopt::adopt_connection(raw, name.text())) {
            // A process that failed here has no state to continue with.
            signals::resume_interrupts();
            identity::adoption_failed();
            simple_query::recover(raw);
            idle::mark_not_reusable();
            runner::not_now();
            return Err(error::Failure::Caught(edata));
        }
        output::begin(raw, self, run.queue_size, run.keeps_result);
        compiled::job_begins();
        signals::resume_interrupts();
        Ok(Some(task))
    }

    /// The verdict on an error outside of a task.
    fn failed(self, edata: *mut ErrorData) -> Verdict {
        let verdict = verdict::of(edata, self.slot);
        error::log_caught(edata);
        verdict
    }

    /// Runs the task, and notes how it ended. Interrupts are held when this returns.
    fn run_task(self, raw: Raw<'_>, run: &Run, task: &runner::Task) -> Verdict {
        let mut tries = 0;
        let text = Text {
            sql: task.sql,
            parameters: None,
            kind: match task.is_statement {
                true if runner::is_elsewhere() => Kind::Elsewhere,
                true => Kind::Statement,
                false if runner::is_lane() => Kind::Lane,
                false => Kind::Job(Work::Task),
            },
            timeout: task.timeout,
            limit: Stop::RunTimeout,
        };
        let verdict = loop {
            let verdict = self.perform(raw, run, &text);
            let is_in_the_way = verdict
                .error
                .as_ref()
                .filter(|error| tries < AT_ONCE && runner::tries_at_once(&error.sqlstate));
            match is_in_the_way {
                Some(error) if self.slot.stop() == Stop::No => error.free(),
                _ => break verdict,
            }
            tries += 1;
            signals::resume_interrupts();
            output::begin(raw, self, run.queue_size, run.keeps_result);
        };
        moment::passes("performed");
        // A cancel that is pending was meant for the task. If the process is told to end from here on, the keeper notes the attempt.
        signals::clear_pending_cancel();
        signals::resume_interrupts();
        match &verdict.error {
            None => {
                let (rows, tag) = self.slot.look(|job| job.outcome());
                runner::ended(rows, tag);
            }
            Some(error) => runner::failed(error, self.slot.stop(), verdict.state == State::Canceled),
        }
        signals::hold_interrupts();
        verdict
    }

    /// Publishes the end of the job, and goes on with a hidden one. None, and nothing is published, if the job is kept by others.
    fn renew(self, verdict: &Verdict) -> Option<Self> {
        let next = backend::strong_random().ok()?;
        simple_query::forget_text();
        let stop = self.slot.renew(self.cookie, verdict.end(), next)?;
        if stop != Stop::No {
            signals::receive_signals();
        }
        signals::clear_pending_cancel();
        Some(attached::renew(self.slot, next))
    }

    /// Hands the job, which has not begun, to a new process: an error that comes from this process's past is no error of the job. Waits
    /// until the postmaster has a slot, which causes no wake-up; dismisses idle workers. The job fails with 53000 if there is none in time.
    /// The launching session may withdraw the job meanwhile.
    fn hand_on(self, raw: Raw<'_>) {
        let until = backend::now() + HAND_ON;
        if let Some(mut job) = self.slot.lock_if(self.cookie) {
            job.handed_on = true;
            job.runner = Process::NONE;
            self.slot.worker_pid.store(0, Relaxed);
        }
        loop {
            // A cancel that is pending was meant for this job, and must reach it. A process that was told to end does not hand the job on.
            if signals::cancel_is_pending() {
                self.slot.request_stop(Stop::Cancel);
            }
            signals::serve_interrupts_when_idle(raw);
            if self.slot.cookie.load(Relaxed) != self.cookie {
                return attached::let_go();
            }
            match self.slot.stop() {
                Stop::No if backend::now() < until => (),
                Stop::No => return self.publish(verdict::no_process(self.slot)),
                _ => return self.publish(verdict::canceled(self.slot)),
            }
            if let Some(worker) = bgworker::register_worker(super::MAIN, self.slot.number(), self.cookie) {
                attached::let_go();
                if let Some(mut job) = self.slot.lock_if(self.cookie) {
                    job.worker = worker;
                }
                return;
            }
            pool::dismiss_one(admission::my_position());
            latch::reset_latch();
            latch::sleep_raw(raw, HAND_ON_LOOK);
        }
    }

    fn starts(self, start: Start) {
        let mut job = self.slot.lock();
        job.state = State::Running;
        job.started_at = backend::now();
        job.request = INVALID_POINTER;
        // The totals were mapped before the job was taken.
        if !job.is_hidden {
            Totals::at(job.totals).started(start, job.started_at - job.launched_at);
        }
    }

    /// Publishes the end of the job. The transaction is over, and the result is in the queue.
    fn publish(self, verdict: Verdict) {
        attached::let_go();
        let stop = self.slot.publish(self.cookie, verdict.end());
        // A cancel is sent under the lock that publishing took: one that was sent by now was meant for this job.
        if stop != Some(Stop::No) {
            signals::receive_signals();
        }
        signals::clear_pending_cancel();
    }
}

/// `pg_background:<label>:<pid>`, or without a label `pg_background:<pid>`, with the pid of the handle. A label that is too long for a name
/// is cut, so that the pid is there, and PostgreSQL does not report among the job's messages that it has shortened the name.
struct ApplicationName([u8; NAMEDATALEN as usize]);

impl ApplicationName {
    fn of(label: Option<&[u8]>, pid: i32) -> Self {
        const PREFIX: &[u8] = b"pg_background:";
        let pid = Digits::of(pid as u64);
        let mut name = Self([0; NAMEDATALEN as usize]);
        let (label, colon): (_, &[u8]) = label.map_or((&b""[..], b""), |label| (label, b":"));
        let mut room = name.0.len() - 1 - PREFIX.len() - 1 - pid.bytes().len();
        let fits = |byte: &u8| {
            let takes = if matches!(byte, b' '..=b'~') {
                1
            } else {
                compat::CLEANED_BYTE
            };
            room.checked_sub(takes).map(|left| room = left)
        };
        let fitting = label.iter().map_while(fits).count();
        let label = label.get(..fitting).unwrap_or(label);
        let pieces = [PREFIX, label, colon, pid.bytes()];
        for (to, from) in name.0.iter_mut().zip(pieces.into_iter().flatten()) {
            *to = *from;
        }
        name
    }

    fn text(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// `pg_background.worker_timeout` is over. A signal handler: it uses only atomics and a signal to this process.
extern "C-unwind" fn time_is_over() {
    if let Some(job) = attached::current() {
        let stop = Stop::from_number(LIMIT.load(Relaxed)).unwrap_or(Stop::WorkerTimeout);
        job.slot.request_stop(stop);
        signals::interrupt_self();
    }
}

/// The process ends, and an open transaction is about to be rolled back.
extern "C-unwind" fn worker_leaves(_code: c_int, _argument: Datum) {
    if let (Some(job), Some(identity)) = (attached::current(), adopt::identity()) {
        execute::note_roles(job.slot, &identity, (identity.session, identity.outer));
    }
    output::abandon();
}

/// The process ends. PostgreSQL calls this after it has rolled back an open transaction: the callback that does so was registered later. A
/// job that this process still has ends here, as lost or with an error of its own, and its session is woken.
extern "C-unwind" fn worker_ends(_code: c_int, _argument: Datum) {
    idle::abandon();
    runner::abandon();
    if let Some(job) = attached::current() {
        is_lost(job);
    }
    upkeep::pass_by();
}

fn is_lost(job: Attached) {
    output::recover();
    let last_words = output::last_words();
    match verdict::of_death(last_words.as_ref(), job.slot, IS_CONNECTING.get()) {
        Some(verdict) => job.publish(verdict),
        None => {
            attached::let_go();
            let words = last_words.as_ref().map_or(&b""[..], |words| words.message());
            job.slot
                .publish_lost(job.cookie, job::Error::lost(backend::my_pid(), words));
        }
    }
}

crate::worker_function!(pg_background_worker_main => run);

crate::worker_function!(pg_background_spare_worker_main => run_spare);
