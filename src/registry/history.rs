//! What is remembered of jobs that have ended: the last `pg_background.history_size` of them, each a record of fixed size with the
//! beginning of its SQL and of its error's message.
//!
//! A job's record is written in the step that publishes its end, so at any time a job is known by its slot or by its record.
//! Nothing is allocated in that step: no job fails because it could not be remembered.

use super::job::{Job, Slot, State};
use super::segment;
use crate::pg::encoding;
use crate::pg::error::Result;
use crate::pg::shmem::{self, NOWHERE, Offset};
use core::cell::Cell;
use core::sync::atomic::Ordering::Relaxed;

/// Characters of the SQL that are shown.
pub const PREVIEW_CHARACTERS: usize = 120;

/// How much of the SQL is kept, in bytes; more than those take.
const PREVIEW: usize = (PREVIEW_CHARACTERS + 1) * 4;

/// How much of a record is text, in bytes. Of long texts the later ones are cut.
const TEXTS: usize = 880;

/// The records, a ring.
#[repr(C)]
pub struct History {
    ring: Offset,
    size: u32,
    /// How many were ever written.
    written: u64,
    /// The number of the first one that can still be there; a larger ring does not bring back what a smaller one dropped.
    first: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Record {
    head: Head,
    texts: [u8; TEXTS],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    facts: Facts,
    /// The lengths of label, preview, message and progress; `u16::MAX` for none.
    lens: [u16; 4],
}

/// What is known of a job and has a fixed size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Facts {
    pub cookie: u64,
    pub pid: i32,
    pub launcher_pid: i32,
    pub database: u32,
    pub user: u32,
    /// As [`Job::also_for`].
    pub also_for: u32,
    /// The encoding of the messages, and that of SQL and label.
    pub encoding: i32,
    pub text_encoding: i32,
    pub state: State,
    pub launched_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub row_count: i64,
    pub result_bytes: u64,
    pub tag: u32,
    pub has_tag: bool,
    pub has_error: bool,
    pub has_progress: bool,
    pub progress_pct: i32,
    pub sqlstate: [u8; 5],
}

/// A job as a view shows it: a copy.
pub struct Entry {
    pub facts: Facts,
    /// Those of [`texts`].
    texts: [Option<Vec<u8>>; 4],
}

impl Facts {
    fn of(slot: &Slot, job: &Job) -> Self {
        let error = job.error();
        let code = error.as_ref().and_then(|error| error.get(b'C'));
        Self {
            cookie: slot.cookie.load(Relaxed),
            pid: slot.pid.load(Relaxed),
            launcher_pid: job.launcher_pid,
            database: job.database,
            user: job.user,
            also_for: job.also_for,
            encoding: job.encoding,
            text_encoding: job.text_encoding,
            state: job.state,
            launched_at: job.launched_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            row_count: job.row_count,
            result_bytes: job.queue.written(),
            tag: job.tag,
            has_tag: job.has_tag,
            has_error: error.is_some(),
            has_progress: job.has_progress,
            progress_pct: job.progress_pct,
            sqlstate: code.and_then(|code| code.try_into().ok()).unwrap_or_default(),
        }
    }
}

/// Label, beginning of the SQL, error message, progress message.
fn texts(job: &Job) -> [Option<&[u8]>; 4] {
    [
        job.label(),
        Some(beginning(job.sql(), job.text_encoding)),
        job.error()
            .and_then(|error| error.get(b'M'))
            .map(|message| head_of(message, TEXTS)),
        job.progress_message().filter(|_| job.has_progress),
    ]
}

impl Entry {
    /// What is known of a job now.
    pub fn of(slot: &Slot, job: &Job) -> Self {
        Self {
            facts: Facts::of(slot, job),
            texts: texts(job).map(|text| text.map(<[u8]>::to_vec)),
        }
    }

    fn stored(record: &Record) -> Self {
        let mut rest = record.texts.as_slice();
        let texts = record.head.lens.map(|len| {
            let (text, after) = rest.split_at_checked(len.into())?;
            rest = after;
            Some(text.to_vec())
        });
        Self {
            facts: record.head.facts,
            texts,
        }
    }

    /// The label, None for none.
    pub fn label(&self) -> Option<&[u8]> {
        self.texts[0].as_deref()
    }

    /// The beginning of the SQL, perhaps with a part of a character at its end.
    pub fn sql(&self) -> &[u8] {
        self.texts[1].as_deref().unwrap_or_default()
    }

    /// The error's message, perhaps with a part of a character at its end.
    pub fn message(&self) -> Option<&[u8]> {
        self.texts[2].as_deref()
    }

    /// What the job reported last.
    pub fn progress(&self) -> Option<&[u8]> {
        self.texts[3].as_deref()
    }
}

/// The characters of the SQL that are shown, or some more.
fn beginning(sql: &[u8], encoding: i32) -> &[u8] {
    let sql = head_of(sql, PREVIEW);
    if encoding != encoding::UTF8 {
        return sql;
    }
    let is_first = |byte: &u8| byte & 0xc0 != 0x80;
    let starts = sql.iter().enumerate().filter(|(_, byte)| is_first(byte));
    head_of(sql, starts.map(|(at, _)| at).nth(PREVIEW_CHARACTERS).unwrap_or(PREVIEW))
}

fn head_of(text: &[u8], len: usize) -> &[u8] {
    text.get(..len).unwrap_or(text)
}

fn place(ring: Offset, n: u64, size: u32) -> Offset {
    ring + n % u64::from(size) * size_of::<Record>() as u64
}

fn record(ring: Offset, n: u64, size: u32) -> &'static Cell<Record> {
    shmem::at(place(ring, n, size))
}

/// Remembers a job that has just ended. Allocates nothing, so its lock may be held, and writes no more than there is.
pub fn push(slot: &Slot, job: &Job) {
    let Some(segment) = segment::attached() else { return };
    let (facts, texts) = (Facts::of(slot, job), texts(job));
    let mut lens = [u16::MAX; 4];
    let mut history = segment.history.lock();
    if history.size == 0 {
        return;
    }
    let place = place(history.ring, history.written, history.size);
    let mut end = 0;
    for (text, len) in texts.into_iter().zip(&mut lens) {
        if let Some(text) = text {
            let text = head_of(text, TEXTS - end);
            shmem::write(place + (size_of::<Head>() + end) as u64, text);
            *len = text.len() as u16;
            end += text.len();
        }
    }
    shmem::put(place, Head { facts, lens });
    history.written += 1;
}

impl History {
    /// The numbers of the records that are there, the oldest first.
    fn numbers(&self) -> core::ops::Range<u64> {
        self.first.max(self.written.saturating_sub(self.size.into()))..self.written
    }
}

/// Sets how many jobs are remembered. Sessions pass the setting on: a worker need not know the settings. 53200 where memory is
/// out.
pub fn set_size(size: u32) -> Result<()> {
    thread_local! {
        /// What this process has passed on.
        static KNOWN: Cell<Option<u32>> = const { Cell::new(None) };
    }
    let history = &segment::segment()?.history;
    if KNOWN.get() == Some(size) {
        return Ok(());
    }
    if history.lock().size == size {
        KNOWN.set(Some(size));
        return Ok(());
    }
    let mut ring = match size {
        0 => NOWHERE,
        _ => shmem::allocate(size as usize * size_of::<Record>())?,
    };
    {
        let mut history = history.lock();
        let numbers = history.numbers();
        for n in numbers.rev().take(size as usize) {
            record(ring, n, size).set(record(history.ring, n, history.size).get());
        }
        core::mem::swap(&mut history.ring, &mut ring);
        history.first = history.numbers().start.max(history.written.saturating_sub(size.into()));
        history.size = size;
    }
    shmem::free(ring);
    Ok(())
}

/// All that is remembered, the oldest first.
pub fn all() -> Vec<Entry> {
    let Some(segment) = segment::attached() else {
        return Vec::new();
    };
    let history = segment.history.lock();
    history
        .numbers()
        .map(|n| Entry::stored(&record(history.ring, n, history.size).get()))
        .collect()
}
