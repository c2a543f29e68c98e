//! One job. Its slot is the truth about it: nothing that another process could need lives only in a backend's memory.

use crate::channel::queue::Queue;
use crate::pg::digits::Digits;
use crate::pg::error::Result;
use crate::pg::files::Files;
use crate::pg::process::backend::Process;
use crate::pg::process::bgworker::WorkerHandle;
use crate::pg::shmem::{self, DsaPointer, Guard, INVALID_POINTER, Locked};
use crate::pg::value::encoding;
use crate::pg::wire;
use crate::registry::counters::Count;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64};
use std::borrow::Cow;

/// Characters of the SQL that are shown.
pub const PREVIEW_CHARACTERS: usize = 120;

/// How much of the SQL is kept, in bytes; more than those take.
pub const PREVIEW: usize = (PREVIEW_CHARACTERS + 1) * 4;

/// The longest label, in bytes.
pub const LABEL_MAX: usize = 64;

/// The longest progress message that is kept, in bytes.
pub const PROGRESS_MAX: usize = 512;

/// How much of an error's message is kept in the slot itself, in bytes.
pub const MESSAGE_MAX: usize = 512;

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

numbered!(Stop {
    No,
    Cancel,
    WorkerTimeout,
    RunTimeout,
    Deadlock
});

/// The pointer of a job in shared memory.
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
    pub(super) stop: AtomicU32,
    /// Not 0 where the job has been freed by a process that could not give the slot back.
    pub(super) abandoned: AtomicU32,
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
    /// The role that its worker connects as.
    pub connected: u32,
    /// The database that the job runs in, and its encoding: that of rows, messages and the error.
    pub database: u32,
    pub encoding: i32,
    /// Whether that is a guess, which the worker corrects when it has connected, before it says anything.
    pub encoding_is_guessed: bool,
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
    pub(super) given_back: bool,
    /// Whether a worker has taken it and handed it on to a new process.
    pub handed_on: bool,
    /// How many times a call in some session has it in hand.
    pub(super) pins: u32,
    /// The background worker that the postmaster was asked for.
    pub worker: WorkerHandle,
    /// The process that has the job, or that it was posted to. None while a process is on its way.
    pub runner: Process,
    /// Where to find the launching session, which is to wake when the job was taken.
    pub owner_procno: u32,
    pub(super) counters: DsaPointer,
    /// The counters of the database and the role.
    pub totals: DsaPointer,
    /// The count of running jobs of the role that the worker connects as, and whether the job is in it and in that of the cluster.
    pub role_count: DsaPointer,
    pub(super) is_counted: bool,
    pub sql: DsaPointer,
    pub sql_len: u64,
    /// What the worker needs besides the SQL; freed when it has adopted it.
    pub request: DsaPointer,
    /// The beginning of the SQL.
    pub preview_len: u32,
    pub preview: [u8; PREVIEW],
    /// The error, where there is one.
    pub has_error: bool,
    pub error: Error,
    pub queue: Queue,
    /// What a reading that was broken off knew of the rest of the stream.
    pub known: DsaPointer,
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

    /// A copy of the label, for whoever looks at it without the lock.
    pub fn label_copy(&self) -> Option<Copied<LABEL_MAX>> {
        self.label().map(Copied::of)
    }

    /// Sets the label, which is not longer than [`LABEL_MAX`].
    pub fn set_label(&mut self, label: Option<&[u8]>) {
        self.label_len = label.map_or(u32::MAX, |label| label.len() as u32);
        if let Some(label) = label {
            self.label[..label.len()].copy_from_slice(label);
        }
    }

    /// Where the SQL is. Valid as long as the slot is kept.
    pub fn sql(&self) -> Text {
        Text {
            pointer: self.sql,
            len: self.sql_len,
        }
    }

    /// Keeps the beginning of the SQL, in the slot itself.
    pub fn set_preview(&mut self, sql: &[u8]) {
        let preview = preview(sql, self.text_encoding);
        self.preview_len = preview.len() as u32;
        self.preview[..preview.len()].copy_from_slice(preview);
    }

    /// The beginning of the SQL, perhaps with a part of a character at its end.
    pub fn preview(&self) -> &[u8] {
        &self.preview[..(self.preview_len as usize).min(PREVIEW)]
    }

    /// The error, None where there is none. Valid as long as the slot is kept.
    pub fn error(&self) -> Option<&Error> {
        self.has_error.then_some(&self.error)
    }

    /// The last progress message.
    pub fn progress_message(&self) -> Option<&[u8]> {
        self.has_progress_message
            .then(|| &self.progress[..(self.progress_len as usize).min(PROGRESS_MAX)])
    }

    /// A copy of the last progress message.
    pub fn progress_copy(&self) -> Option<Copied<PROGRESS_MAX>> {
        self.progress_message().map(Copied::of)
    }

    /// Keeps a progress message, which is not longer than [`PROGRESS_MAX`].
    pub fn set_progress_message(&mut self, message: Option<&[u8]>) {
        self.has_progress_message = message.is_some();
        let message = message.unwrap_or_default();
        self.progress[..message.len()].copy_from_slice(message);
        self.progress_len = message.len() as u32;
    }
}

/// A copy of a short text. It takes no memory of anybody's, so it can be made under a lock.
pub struct Copied<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Copied<N> {
    fn of(text: &[u8]) -> Self {
        let mut bytes = [0; N];
        bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
        Self {
            bytes,
            len: text.len().min(N),
        }
    }
}

impl<const N: usize> core::ops::Deref for Copied<N> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A text in the area. It may lie in a segment that this process has yet to map, which is no matter for the time that a lock is held.
#[derive(Clone, Copy)]
pub struct Text {
    pointer: DsaPointer,
    len: u64,
}

impl Text {
    /// The text. The system's own error where it refuses to map it. Valid as long as the slot is kept.
    pub fn read(self) -> Result<&'static [u8]> {
        shmem::mapped_bytes(self.pointer, self.len as usize)
    }
}

/// The error of a job: its SQLSTATE and the beginning of its message here, and all of it in the area, if there was room.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Error {
    pub sqlstate: [u8; 5],
    /// Whether the worker has died: then the message is what it said last, perhaps nothing.
    pub lost: bool,
    /// The process that ran the job.
    pid: i32,
    message_len: u32,
    message: [u8; MESSAGE_MAX],
    /// In the protocol's form; nowhere where memory was out.
    whole: DsaPointer,
    whole_len: u64,
}

impl Error {
    /// An error of the process `pid`, of which nothing is in the area.
    pub fn new(sqlstate: [u8; 5], message: &[u8], pid: i32) -> Self {
        let mut error = Self {
            sqlstate,
            lost: false,
            pid,
            message_len: message.len().min(MESSAGE_MAX) as u32,
            message: [0; MESSAGE_MAX],
            whole: INVALID_POINTER,
            whole_len: 0,
        };
        error.message.iter_mut().zip(message).for_each(|(to, from)| *to = *from);
        error
    }

    /// The process `pid` is gone, and with it the job. `last_words` is the message of the error that it died of, empty where it is not
    /// known.
    pub fn lost(pid: i32, last_words: &[u8]) -> Self {
        Self {
            lost: true,
            ..Self::new(*b"08006", last_words, pid)
        }
    }

    /// The same with all of the error, `len` bytes at `whole`.
    pub fn with_whole(self, whole: DsaPointer, len: usize) -> Self {
        Self {
            whole,
            whole_len: len as u64,
            ..self
        }
    }

    fn kept_message(&self) -> &[u8] {
        &self.message[..(self.message_len as usize).min(MESSAGE_MAX)]
    }

    /// Gives the beginning of the message to `take`. Allocates nothing.
    pub fn with_message<T>(&self, take: impl FnOnce(&[u8]) -> T) -> T {
        if !self.lost {
            return take(self.kept_message());
        }
        let pid = Digits::of(self.pid.max(0) as u64);
        let mut text = [0; 64];
        let pieces = [
            b"background worker with PID ",
            pid.bytes(),
            b" ended before its job did",
        ];
        let len = pieces.iter().map(|piece| piece.len()).sum();
        text.iter_mut()
            .zip(pieces.into_iter().flatten())
            .for_each(|(to, from)| *to = *from);
        take(text.get(..len).unwrap_or(&text))
    }

    /// All of the error, in the protocol's form. The system's own error where it refuses to map it. Call it without a lock held;
    /// valid as long as the slot is kept.
    pub fn fields(&self) -> Result<Cow<'static, [u8]>> {
        if self.whole != INVALID_POINTER {
            return Ok(Cow::Borrowed(shmem::mapped_bytes(self.whole, self.whole_len as usize)?));
        }
        let detail = if self.lost {
            Some(self.kept_message()).filter(|words| !words.is_empty())
        } else {
            Some(&b"There was no memory to keep more of the error."[..])
        };
        Ok(Cow::Owned(self.with_message(|message| {
            wire::compose(&self.sqlstate, message, detail, self.pid)
        })))
    }

    /// Gives back what is in the area.
    pub fn free(&self) {
        shmem::free(self.whole);
    }
}

/// How a job ended.
#[derive(Clone, Copy)]
pub struct End {
    pub state: State,
    pub count: Count,
    pub error: Option<Error>,
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

    /// Calls `look` with the job, whose lock is released before this returns.
    pub fn look<T>(&self, look: impl FnOnce(&mut Job) -> T) -> T {
        look(&mut self.lock())
    }

    /// [`Slot::look`] for the job that has this cookie.
    pub fn look_if<T>(&self, cookie: u64, look: impl FnOnce(&mut Job) -> T) -> Option<T> {
        self.lock_if(cookie).map(|mut job| look(&mut job))
    }

    /// Why the job is to end early.
    pub fn stop(&self) -> Stop {
        Stop::from_number(self.stop.load(Relaxed)).unwrap_or(Stop::No)
    }

    /// Notes why the job is to end early, unless a reason is there already. Callable in a signal handler.
    pub fn request_stop(&self, why: Stop) {
        let _ = self
            .stop
            .compare_exchange(Stop::No as u32, why as u32, Relaxed, Relaxed);
    }
}

/// The characters of the SQL that are shown, or some more.
pub fn preview(sql: &[u8], encoding: i32) -> &[u8] {
    let sql = head_of(sql, PREVIEW);
    if encoding != encoding::UTF8 {
        return sql;
    }
    let is_first = |byte: &u8| byte & 0xc0 != 0x80;
    let starts = sql.iter().enumerate().filter(|(_, byte)| is_first(byte));
    head_of(sql, starts.map(|(at, _)| at).nth(PREVIEW_CHARACTERS).unwrap_or(PREVIEW))
}

/// At most so many bytes of the beginning of a text.
pub fn head_of(text: &[u8], len: usize) -> &[u8] {
    text.get(..len).unwrap_or(text)
}
