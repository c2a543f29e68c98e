//! One job. Its slot is the truth about it: nothing that another process could need lives only in a backend's memory.

use super::counters::{Count, Counters};
use super::history;
use super::pool;
use super::room;
use super::totals::Totals;
use super::waiters;
use crate::channel::queue::Queue;
use crate::pg::proc::Registered;
use crate::pg::shmem::{self, Guard, Locked, NOWHERE, Offset};
use crate::pg::{files::Files, proc, wire};
use core::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

/// The longest label, in bytes.
pub const LABEL_MAX: usize = 64;

/// The longest progress message that is kept, in bytes.
pub const PROGRESS_MAX: usize = 512;

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum State {
    Starting = 0,
    Running = 1,
    Stopped = 2,
    Canceled = 3,
    Error = 4,
}

impl State {
    /// The word that users see.
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Stopped => "stopped",
            State::Canceled => "canceled",
            State::Error => "error",
        }
    }

    /// Whether the job's transaction has ended and everything about it is known.
    pub fn has_ended(self) -> bool {
        !matches!(self, State::Starting | State::Running)
    }
}

/// Why a job is to end early. Kept in an atomic that signal handlers write too; the first reason stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Stop {
    No = 0,
    /// Somebody cancelled it.
    Cancel = 1,
    /// It ran longer than `pg_background.worker_timeout`.
    WorkerTimeout = 2,
    /// The time that its `run` was given is over.
    RunTimeout = 3,
    /// It waits for the session that waits for it.
    Deadlock = 4,
}

impl Stop {
    fn from(number: u32) -> Stop {
        match number {
            1 => Stop::Cancel,
            2 => Stop::WorkerTimeout,
            3 => Stop::RunTimeout,
            4 => Stop::Deadlock,
            _ => Stop::No,
        }
    }
}

/// The place of a job in shared memory.
#[repr(C)]
pub struct Slot {
    number: AtomicU32,
    /// While free: the next free slot's number plus one.
    pub next_free: AtomicU32,
    /// While taken: the cookie that it is found by. This and the two after it change under the lock of the index.
    pub key: AtomicU64,
    /// As a bucket of the hash table: the number plus one of the first slot whose cookie belongs here.
    pub bucket: AtomicU32,
    /// The next one's in the same bucket.
    pub next_in_bucket: AtomicU32,
    /// The handle's second half, 0 while the slot is free. Changes under the lock only.
    pub cookie: AtomicU64,
    /// The handle's first half, 0 until the launch knows it: nobody finds the job before. Changes under the lock only.
    pub pid: AtomicI32,
    /// The process that runs the job, 0 before it has taken it. Changes under the lock only.
    pub worker_pid: AtomicI32,
    /// When the retained result expires, 0 for never. Changes under the lock only.
    pub expires_at: AtomicI64,
    stop: AtomicU32,
    pub(super) job: Locked<Job>,
}

/// What is known of a job.
#[repr(C)]
pub struct Job {
    pub state: State,
    pub launched_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    /// The role that the job runs as.
    pub user: u32,
    /// The role that its worker connected as, once the job's SQL has left the role that it began with; 0 before. Who reads what
    /// came of the job must have both.
    pub also_for: u32,
    /// The database that the job runs in, and its encoding: that of rows, messages and the error.
    pub database: u32,
    pub encoding: i32,
    /// The encoding of SQL and label: that of the database that the job was launched in.
    pub text_encoding: i32,
    /// The session that launched it.
    pub launcher_pid: i32,
    pub queue_size: u32,
    /// Whether rows and messages are kept for a reader (`launch`) or thrown away (`submit`).
    pub keeps_result: bool,
    /// Whether a reader has taken rows.
    pub consumed: bool,
    pub has_progress: bool,
    pub has_progress_message: bool,
    pub has_tag: bool,
    pub progress_pct: i32,
    pub label_len: u32,
    pub progress_len: u32,
    /// The last statement's CommandTag.
    pub tag: u32,
    pub row_count: i64,
    /// `pg_background.worker_timeout` of the launching session, in milliseconds.
    pub worker_timeout: i32,
    /// Whether that or `statement_timeout` limits its time.
    pub is_limited: bool,
    /// The session that found the job waiting for itself.
    pub deadlock_pid: i32,
    pub deadlock_on_snapshot: bool,
    /// `pg_background.result_retention` of the launching session, in milliseconds.
    pub retention: i32,
    /// Whether the launching session has ended.
    pub(super) orphaned: bool,
    /// Whether the handle is forgotten: read, detached, expired, or of a job that has ended like its session.
    pub(super) released: bool,
    pub(super) worker_gone: bool,
    /// Whether the worker that it was posted to has gone without taking it.
    given_back: bool,
    /// Whether a worker has taken it and handed it on to a new process.
    pub handed_on: bool,
    /// How many times a call in some session has it in hand.
    pub(super) pins: u32,
    /// The processes that sleep until the job's end.
    pub waiters: Offset,
    /// The background worker that runs it, or is to.
    pub worker: Registered,
    /// Where to find the processes that are to wake when something happens.
    pub owner_procno: u32,
    pub worker_procno: u32,
    pub(super) counters: Offset,
    /// The counters of the database and the role.
    pub totals: Offset,
    /// The count of running jobs of the role that the worker connects as, and whether the job is in it and in that of the cluster.
    pub role_count: Offset,
    pub(super) is_counted: bool,
    pub sql: Offset,
    pub sql_len: u64,
    /// What the worker needs besides the SQL; freed when it has adopted it.
    pub request: Offset,
    /// The error in the protocol's form.
    pub error: Offset,
    pub error_len: u64,
    pub queue: Queue,
    /// What a reading that was broken off knew of the rest of the stream.
    pub known: Offset,
    pub known_len: u64,
    pub files: Files,
    pub label: [u8; LABEL_MAX],
    pub progress: [u8; PROGRESS_MAX],
}

impl Job {
    /// The label, None for none.
    pub fn label(&self) -> Option<&[u8]> {
        (self.label_len != u32::MAX).then(|| &self.label[..(self.label_len as usize).min(LABEL_MAX)])
    }

    /// Sets the label, which is not longer than [`LABEL_MAX`].
    pub fn set_label(&mut self, label: Option<&[u8]>) {
        self.label_len = label.map_or(u32::MAX, |label| label.len() as u32);
        if let Some(label) = label {
            self.label[..label.len()].copy_from_slice(label);
        }
    }

    /// The SQL. Valid as long as the slot is kept.
    pub fn sql(&self) -> &'static [u8] {
        shmem::bytes(self.sql, self.sql_len as usize)
    }

    /// The error's fields, None where there is no error. Valid as long as the slot is kept.
    pub fn error(&self) -> Option<wire::Fields<'static>> {
        (self.error != NOWHERE).then(|| wire::Fields(shmem::bytes(self.error, self.error_len as usize)))
    }

    /// The last progress message.
    pub fn progress_message(&self) -> Option<&[u8]> {
        self.has_progress_message
            .then(|| &self.progress[..(self.progress_len as usize).min(PROGRESS_MAX)])
    }

    /// Keeps a progress message, which is not longer than [`PROGRESS_MAX`].
    pub fn set_progress_message(&mut self, message: Option<&[u8]>) {
        self.has_progress_message = message.is_some();
        let message = message.unwrap_or_default();
        self.progress[..message.len()].copy_from_slice(message);
        self.progress_len = message.len() as u32;
    }
}

/// How a job ended.
#[derive(Clone, Copy)]
pub struct End {
    pub state: State,
    pub count: Count,
    /// The error in the protocol's form, stored in the area; nowhere on success.
    pub error: Offset,
    pub error_len: u64,
}

impl Slot {
    /// Makes a slot of a new block usable.
    pub fn init(&self, number: u32, next_free: u32, tranche: i32) {
        // The block is zeroed and nobody else sees it yet.
        self.number.store(number, Relaxed);
        self.next_free.store(next_free, Relaxed);
        self.job.init(tranche);
    }

    /// The slot's own number, which never changes.
    pub fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// Access to the job.
    pub fn lock(&self) -> Guard<'_, Job> {
        self.job.lock()
    }

    /// Access to the job that has this cookie; None where the slot is another's by now.
    pub fn lock_if(&self, cookie: u64) -> Option<Guard<'_, Job>> {
        let job = self.lock();
        (self.cookie.load(Relaxed) == cookie).then_some(job)
    }

    /// Why the job is to end early.
    pub fn stop(&self) -> Stop {
        Stop::from(self.stop.load(Relaxed))
    }

    /// Notes why the job is to end early, unless a reason is there already. Callable in a signal handler.
    pub fn request_stop(&self, why: Stop) {
        let _ = self
            .stop
            .compare_exchange(Stop::No as u32, why as u32, Relaxed, Relaxed);
    }

    /// Begins a job in this slot, which was just taken: nobody else looks at it before the cookie is set. The owner and the
    /// worker to come both keep it, and so does the launch, until [`Slot::introduce`]: whoever is fast may find the job,
    /// see its end and forget it before the launch has learned that it was taken.
    pub fn begin(&self, cookie: u64, counters: Offset, fill: impl FnOnce(&mut Job)) {
        let mut job = self.lock();
        self.pid.store(0, Relaxed);
        self.worker_pid.store(0, Relaxed);
        self.expires_at.store(0, Relaxed);
        self.stop.store(Stop::No as u32, Relaxed);
        job.state = State::Starting;
        job.launched_at = proc::now();
        job.started_at = 0;
        job.finished_at = 0;
        job.consumed = false;
        job.has_progress = false;
        job.has_tag = false;
        job.row_count = 0;
        job.tag = 0;
        job.progress_len = 0;
        job.also_for = 0;
        job.deadlock_pid = 0;
        job.deadlock_on_snapshot = false;
        job.orphaned = false;
        job.released = false;
        job.worker_gone = false;
        job.given_back = false;
        job.handed_on = false;
        job.pins = 1;
        job.is_counted = false;
        job.waiters = NOWHERE;
        job.worker = Registered::NONE;
        job.error = NOWHERE;
        job.error_len = 0;
        job.known = NOWHERE;
        job.known_len = 0;
        job.counters = counters;
        job.queue.clear();
        Counters::hold(counters);
        Counters::at(counters).began();
        fill(&mut job);
        room::is_kept(job.role_count);
        Totals::at(job.totals).launched();
        self.cookie.store(cookie, Relaxed);
    }

    /// A worker that the job was posted to goes without taking it: the launch is to find another.
    pub fn give_back(&self, cookie: u64) {
        if let Some(mut job) = self.lock_if(cookie) {
            job.given_back = true;
            proc::wake(job.owner_procno);
        }
    }

    /// What has become of a job that was posted to a worker: None while it has not been taken, then whether it was.
    pub fn was_taken(&self) -> Option<bool> {
        let mut job = self.lock();
        if self.worker_pid.load(Relaxed) != 0 || job.handed_on {
            return Some(true);
        }
        core::mem::take(&mut job.given_back).then_some(false)
    }

    /// Asks the job to end early. False where it has ended already, or the slot is another's.
    ///
    /// The signal is sent under the lock that the worker needs to end the job or to begin another: it reaches the process while
    /// that process still has this very job in hand, and the worker forgets it under the same lock when it changes jobs.
    pub fn cancel(&self, cookie: u64, why: Stop) -> bool {
        let Some(job) = self.lock_if(cookie) else { return false };
        if job.state.has_ended() {
            return false;
        }
        self.request_stop(why);
        proc::interrupt(self.worker_pid.load(Relaxed));
        true
    }

    /// Publishes the end of the job, unless it has been published: state, counters, error, history, then whoever waits wakes. The
    /// transaction is over, so what the job wrote is visible to them. With that the worker lets go of the slot, in the same
    /// step: a waiter that lets go next finds itself the last. Gives why the job was to end early.
    pub fn publish(&'static self, cookie: u64, end: End) -> Option<Stop> {
        let finished_at = proc::now();
        let (mut wake, stop);
        {
            let mut job = self.lock_if(cookie)?;
            if job.state.has_ended() {
                return None;
            }
            job.state = end.state;
            job.finished_at = finished_at;
            job.error = end.error;
            job.error_len = end.error_len;
            job.queue.seal();
            let began = if job.started_at != 0 {
                job.started_at
            } else {
                job.launched_at
            };
            Counters::at(job.counters).ended(end.count, finished_at - began);
            Totals::at(job.totals).ended(end.count, finished_at - began, job.queue.spilled());
            wake = waiters::processes(job.waiters);
            wake.extend(job.queue.reader());
            wake.extend(pool::uncount(&mut job));
            stop = self.stop();
            job.worker_gone = true;
            history::push(self, &job);
            self.worker_lets_go(job);
        }
        for procno in wake {
            proc::wake(procno);
        }
        Some(stop)
    }

    /// Publishes that the worker of the job, the process `pid`, is gone. `last_words` is the error that it died of, where it is
    /// known.
    pub fn publish_lost(&'static self, cookie: u64, pid: i32, last_words: Option<&[u8]>) {
        let message = format!("background worker with PID {pid} ended before its job did");
        let detail = last_words.and_then(|words| wire::Fields(words).get(b'M'));
        let error = wire::compose(b"08006", &message, detail, pid);
        // Where memory is out, the state alone says what happened.
        let place = shmem::store(&error).unwrap_or(NOWHERE);
        let end = End {
            state: State::Error,
            count: Count::Failed,
            error: place,
            error_len: error.len() as u64,
        };
        if self.publish(cookie, end).is_none() {
            shmem::free(place);
        }
    }
}
