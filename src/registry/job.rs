//! One job. Its slot is the only copy of its state: nothing that another process could need is kept in a backend's local memory.

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

/// How many characters of the SQL are shown.
pub const PREVIEW_CHARACTERS: usize = 120;

/// How many bytes of the SQL are kept. That is more than those characters take.
pub const PREVIEW: usize = (PREVIEW_CHARACTERS + 1) * 4;

/// The longest label, in bytes.
pub const LABEL_MAX: usize = 64;

/// The longest progress message that is kept, in bytes.
pub const PROGRESS_MAX: usize = 512;

/// How much of an error's message is kept in the slot itself, in bytes.
pub const MESSAGE_MAX: usize = 512;

/// The state of a job.
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

/// Why a job is to end early. Stored in an atomic that signal handlers write too; the first reason is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Stop {
    No = 0,
    /// It was cancelled.
    Cancel = 1,
    /// It ran longer than `pg_background.worker_timeout`.
    WorkerTimeout = 2,
    /// The timeout of its `run` is over.
    RunTimeout = 3,
    /// It waits for a session that waits for it.
    Deadlock = 4,
}

numbered!(Stop {
    No,
    Cancel,
    WorkerTimeout,
    RunTimeout,
    Deadlock
});

/// The slot of a job in shared memory.
#[repr(C)]
pub struct Slot {
    number: AtomicU32,
    /// While free: the next free slot's number plus one.
    pub next_free: AtomicU32,
    /// While taken: the cookie that the hash table finds it by. This and the two fields after it change under the lock of the index.
    pub key: AtomicU64,
    /// As a bucket of the hash table: the number plus one of the first slot whose cookie belongs here.
    pub bucket: AtomicU32,
    /// The number plus one of the next slot in the same bucket, 0 for none.
    pub next_in_bucket: AtomicU32,
    /// The handle's second half, 0 while the slot is free. Changes under the lock only.
    pub cookie: AtomicU64,
    /// The handle's first half, 0 until the worker has taken the job or the launch knows its process: before that no session finds the job.
    /// Changes under the lock only.
    pub pid: AtomicI32,
    /// The process that runs the job, 0 before it has taken the job. Changes under the lock only.
    pub worker_pid: AtomicI32,
    /// When the retained result expires, 0 for never. Changes under the lock only.
    pub expires_at: AtomicI64,
    pub(super) stop: AtomicU32,
    /// Not 0 if the job was freed by a process that could not put the slot on the free list.
    pub(super) abandoned: AtomicU32,
    pub(super) job: Locked<Job>,
}

/// What is known of a job. Protected by the slot's lock.
#[repr(C)]
pub struct Job {
    pub state: State,
    pub launched_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    /// The role that the job runs as.
    pub user: u32,
    /// The role that its worker connected as, once the job's SQL has left the role that it began with; 0 before. A role that reads what
    /// came of the job must have the privileges of both.
    pub also_for: u32,
    /// The role that its worker connects as.
    pub connected: u32,
    /// The database that the job runs in, and its encoding: that of rows, messages and the error.
    pub database: u32,
    pub encoding: i32,
    /// Whether the encoding is a guess, which the worker corrects when it has connected, before it sends any text.
    pub encoding_is_guessed: bool,
    /// The encoding of SQL and label: that of the database that the job was launched in.
    pub text_encoding: i32,
    /// The session that launched it.
    pub launcher_pid: i32,
    pub queue_size: u32,
    /// Whether it is a job of this library's own, that is neither shown nor counted: the keeper, and a runner without a task.
    pub is_hidden: bool,
    /// Whether rows and messages are kept for a reader (`launch`) or thrown away (`submit`).
    pub keeps_result: bool,
    /// Whether a reader has taken part of the result, so that it cannot be read any more.
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
    /// Whether `worker_timeout` or `statement_timeout` limits its time.
    pub is_limited: bool,
    /// The session that found that the job waits for it, and whether it waits for the session's snapshot.
    pub deadlock_pid: i32,
    pub deadlock_on_snapshot: bool,
    /// `pg_background.result_retention` of the launching session, in milliseconds.
    pub retention: i32,
    /// Whether the launching session has ended.
    pub(super) orphaned: bool,
    /// Whether the handle is forgotten: the result was read, detached or has expired, or the job and its session have both ended.
    pub(super) released: bool,
    pub(super) worker_gone: bool,
    /// Whether the worker that it was posted to has exited without taking it.
    pub(super) given_back: bool,
    /// Whether a worker has taken it and handed it on to a new process.
    pub handed_on: bool,
    /// How many calls have pinned it, in any session. The launch counts as one.
    pub(super) pins: u32,
    /// The background worker that the postmaster was asked for.
    pub worker: WorkerHandle,
    /// The process that has the job, or that it was posted to. None while a process is being started.
    pub runner: Process,
    /// The number of the launching process, whose latch is set when the job was taken or given back.
    pub owner_procno: u32,
    pub(super) counters: DsaPointer,
    /// The counters of the database and the role.
    pub totals: DsaPointer,
    /// The count of jobs of the role that the worker connects as, and whether the job is counted as running there and for the cluster.
    pub role_count: DsaPointer,
    pub(super) is_counted: bool,
    pub sql: DsaPointer,
    pub sql_len: u64,
    /// What the worker needs besides the SQL; freed when the worker has adopted it.
    pub request: DsaPointer,
    /// The beginning of the SQL.
    pub preview_len: u32,
    pub preview: [u8; PREVIEW],
    /// The error, if there is one.
    pub has_error: bool,
    pub error: Error,
    pub queue: Queue,
    /// What an interrupted reading had learned that the rest of the stream depends on.
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

    /// A copy of the label, for use without the lock.
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

    /// The SQL in the shared area. Valid as long as the slot is kept.
    pub fn sql(&self) -> Text {
        Text {
            pointer: self.sql,
            len: self.sql_len,
        }
    }

    /// Stores the beginning of the SQL in the slot itself.
    pub fn set_preview(&mut self, sql: &[u8]) {
        let preview = preview(sql, self.text_encoding);
        self.preview_len = preview.len() as u32;
        self.preview[..preview.len()].copy_from_slice(preview);
    }

    /// The beginning of the SQL, perhaps with a part of a character at its end.
    pub fn preview(&self) -> &[u8] {
        &self.preview[..(self.preview_len as usize).min(PREVIEW)]
    }

    /// The error, None if there is none. Valid as long as the slot is kept.
    pub fn error(&self) -> Option<&Error> {
        self.has_error.then_some(&self.error)
    }

    /// How many rows its last statement has processed, and the statement's tag if it has one.
    pub fn outcome(&self) -> (i64, Option<u32>) {
        (self.row_count, self.has_tag.then_some(self.tag))
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

    /// Stores a progress message, which is not longer than [`PROGRESS_MAX`].
    pub fn set_progress_message(&mut self, message: Option<&[u8]>) {
        self.has_progress_message = message.is_some();
        let message = message.unwrap_or_default();
        self.progress[..message.len()].copy_from_slice(message);
        self.progress_len = message.len() as u32;
    }
}

/// A copy of a short text. Copying allocates nothing, so it may be done under a lock.
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

/// A text in the dynamic shared area. It may lie in a segment that this process has not mapped yet; mapping takes too long to be done under
/// a lock, so the pointer is copied under the lock and read after it.
#[derive(Clone, Copy)]
pub struct Text {
    pointer: DsaPointer,
    len: u64,
}

impl Text {
    /// Returns the text. The system's own error if it cannot be mapped. Valid as long as the slot is kept.
    pub fn read(self) -> Result<&'static [u8]> {
        shmem::mapped_bytes(self.pointer, self.len as usize)
    }
}

/// The error of a job: its SQLSTATE and the beginning of its message here, and the whole of it in the dynamic shared area, if there was
/// memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Error {
    pub sqlstate: [u8; 5],
    /// Whether the worker has died: then the message is the last one that it sent, perhaps empty.
    pub lost: bool,
    /// The process that ran the job.
    pid: i32,
    message_len: u32,
    message: [u8; MESSAGE_MAX],
    /// The whole error in the form of the protocol; `INVALID_POINTER` if memory was out.
    whole: DsaPointer,
    whole_len: u64,
}

impl Error {
    /// An error of the process `pid`, with nothing in the dynamic shared area.
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

    /// The loss of a job with its process `pid`. `last_words` is the message of the error that the process died of, empty if not known.
    pub fn lost(pid: i32, last_words: &[u8]) -> Self {
        Self {
            lost: true,
            ..Self::new(*b"08006", last_words, pid)
        }
    }

    /// The same with the whole error, `len` bytes at `whole`.
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

    /// Calls `take` with the beginning of the message. Allocates nothing.
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

    /// Returns the whole error, in the form of the protocol. The system's own error if it cannot be mapped. Call it without a lock held;
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

    /// Frees what is in the dynamic shared area.
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
        // The block is zeroed and not yet visible to other processes.
        self.number.store(number, Relaxed);
        self.next_free.store(next_free, Relaxed);
        self.job.init(tranche);
    }

    /// The slot's own number, which never changes.
    pub fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// Locks the job.
    pub fn lock(&self) -> Guard<'_, Job> {
        self.job.lock()
    }

    /// Locks the job that has this cookie; None if the slot belongs to another job by now.
    pub fn lock_if(&self, cookie: u64) -> Option<Guard<'_, Job>> {
        let job = self.lock();
        (self.cookie.load(Relaxed) == cookie).then_some(job)
    }

    /// Calls `look` with the job locked. The lock is released before this returns.
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

    /// Notes why the job is to end early, unless a reason is noted already. May be called in a signal handler.
    pub fn request_stop(&self, why: Stop) {
        let _ = self
            .stop
            .compare_exchange(Stop::No as u32, why as u32, Relaxed, Relaxed);
    }
}

/// Returns the characters of the SQL that are shown; in encodings other than UTF-8 perhaps more.
pub fn preview(sql: &[u8], encoding: i32) -> &[u8] {
    let sql = head_of(sql, PREVIEW);
    if encoding != encoding::UTF8 {
        return sql;
    }
    let is_first = |byte: &u8| byte & 0xc0 != 0x80;
    let starts = sql.iter().enumerate().filter(|(_, byte)| is_first(byte));
    head_of(sql, starts.map(|(at, _)| at).nth(PREVIEW_CHARACTERS).unwrap_or(PREVIEW))
}

/// Returns the first `len` bytes of a text, or all of it if it is shorter.
pub fn head_of(text: &[u8], len: usize) -> &[u8] {
    text.get(..len).unwrap_or(text)
}
