//! The history of jobs that have ended: the last `pg_background.history_size` of them. Each has a record of fixed size, with the beginning
//! of its SQL and of its error's message.
//!
//! The record is written in the same step that publishes the end of the job, so at any time a job is known by its slot or by its record.
//! That step allocates nothing: no job fails because its record could not be written.
//!
//! Every job that ends takes the lock for a moment. So code that handles many records takes it for a few records at a time.

use crate::pg::error::Result;
use crate::pg::shmem::{self, DsaPointer, Guard, INVALID_POINTER, Locked};
use crate::registry::job::{Job, LABEL_MAX, MESSAGE_MAX, PREVIEW, PROGRESS_MAX, Slot, State, head_of};
use core::cell::Cell;
use core::sync::atomic::Ordering::Relaxed;

/// How many bytes of a record are text. If the texts are longer, the later ones are cut.
const TEXTS: usize = 880;

/// How many records are read or moved under one acquisition of the lock.
const BATCH: usize = 256;

/// The records, in a ring.
#[repr(C)]
pub struct History {
    ring: DsaPointer,
    size: u32,
    /// While records move to a ring of another size: the old ring, and the number below which records are still there.
    size_before: u32,
    ring_before: DsaPointer,
    unmoved: u64,
    /// How many records were ever written.
    written: u64,
    /// The number of the first record that can still exist; a larger ring does not bring back what a smaller one dropped.
    first: u64,
}

/// A record. Changes under the history's lock only.
#[repr(C)]
struct Record {
    head: Cell<Head>,
    /// The texts, as long as the head says. The bytes behind them belong to an older record.
    texts: [Cell<u8>; TEXTS],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    facts: Facts,
    /// The lengths of label, preview, message and progress; `u16::MAX` for none.
    lens: [u16; 4],
}

/// What is known of a job, as far as it has a fixed size.
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
    pub connected: u32,
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

/// A copy of a job, as a view shows it. It has a fixed size, so it can be made under a lock.
pub struct Entry {
    pub facts: Facts,
    lens: [u16; 4],
    texts: [u8; LABEL_MAX + PREVIEW + MESSAGE_MAX + PROGRESS_MAX],
}

impl Facts {
    fn of(slot: &Slot, job: &Job) -> Self {
        let error = job.error();
        Self {
            cookie: slot.cookie.load(Relaxed),
            pid: slot.pid.load(Relaxed),
            launcher_pid: job.launcher_pid,
            database: job.database,
            user: job.user,
            also_for: job.also_for,
            connected: job.connected,
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
            sqlstate: error.map(|error| error.sqlstate).unwrap_or_default(),
        }
    }
}

/// Calls `take` with the label, the beginning of the SQL, the error message and the progress message.
fn with_texts<T>(job: &Job, take: impl FnOnce([Option<&[u8]>; 4]) -> T) -> T {
    let (label, sql) = (job.label(), Some(job.preview()));
    let progress = job.progress_message().filter(|_| job.has_progress);
    match job.error() {
        Some(error) => error.with_message(|message| take([label, sql, Some(message), progress])),
        None => take([label, sql, None, progress]),
    }
}

/// Calls `put` for each text with the offset that it goes to, and returns their lengths, `u16::MAX` for none. Cuts what does not fit into
/// `room` bytes.
fn lay_out(texts: [Option<&[u8]>; 4], room: usize, mut put: impl FnMut(usize, &[u8])) -> [u16; 4] {
    let mut end = 0;
    texts.map(|text| {
        let Some(text) = text else { return u16::MAX };
        let text = head_of(text, room - end);
        put(end, text);
        end += text.len();
        text.len() as u16
    })
}

impl Record {
    fn take_from(&self, other: &Record) {
        self.head.set(other.head.get());
        self.texts
            .iter()
            .zip(&other.texts)
            .for_each(|(to, from)| to.set(from.get()));
    }

    fn copy(&self) -> Self {
        Self {
            head: self.head.clone(),
            texts: self.texts.clone(),
        }
    }
}

impl Entry {
    /// Copies what is known of a job now.
    pub fn of(slot: &Slot, job: &Job) -> Self {
        let mut entry = Self {
            facts: Facts::of(slot, job),
            lens: [u16::MAX; 4],
            texts: [0; _],
        };
        let room = entry.texts.len();
        entry.lens = with_texts(job, |texts| {
            lay_out(texts, room, |at, text| {
                entry.texts[at..at + text.len()].copy_from_slice(text)
            })
        });
        entry
    }

    fn stored(record: &Record) -> Self {
        let mut entry = Self {
            facts: record.head.get().facts,
            lens: record.head.get().lens,
            texts: [0; _],
        };
        entry
            .texts
            .iter_mut()
            .zip(&record.texts)
            .for_each(|(to, from)| *to = from.get());
        entry
    }

    fn text(&self, n: usize) -> Option<&[u8]> {
        let len = |n: usize| Some(self.lens[n]).filter(|len| *len != u16::MAX).map(usize::from);
        let begin = (0..n).filter_map(len).sum::<usize>();
        self.texts.get(begin..begin + len(n)?)
    }

    /// The label, None for none.
    pub fn label(&self) -> Option<&[u8]> {
        self.text(0)
    }

    /// The beginning of the SQL, perhaps with a part of a character at its end.
    pub fn sql(&self) -> &[u8] {
        self.text(1).unwrap_or_default()
    }

    /// The error's message, perhaps with a part of a character at its end.
    pub fn message(&self) -> Option<&[u8]> {
        self.text(2)
    }

    /// The last progress message.
    pub fn progress(&self) -> Option<&[u8]> {
        self.text(3)
    }
}

/// Adds a record of a job that has just ended. Allocates and raises nothing, so the job's lock may be held. Copies only as many bytes as
/// the texts have. If this process cannot map the ring, no record is written.
pub fn push(history: &Locked<History>, slot: &Slot, job: &Job) {
    let facts = Facts::of(slot, job);
    with_texts(job, |texts| {
        let mut history = history.lock();
        if history.size == 0 {
            return;
        }
        let n = history.written;
        if let Some(record) = history.ring().record(n) {
            let lens = lay_out(texts, TEXTS, |at, text| {
                record.texts[at..].iter().zip(text).for_each(|(to, from)| to.set(*from))
            });
            record.head.set(Head { facts, lens });
            history.written += 1;
        }
    });
}

/// Tries to map the ring for this process, once in its life. If the ring is replaced later, the process maps the new one when it writes
/// there.
pub(super) fn reach(history: &Locked<History>) {
    thread_local! {
        static ASKED: Cell<bool> = const { Cell::new(false) };
    }
    if !ASKED.replace(true) {
        let ring = history.lock().ring;
        shmem::look_address(ring);
    }
}

/// One ring of records.
#[derive(Clone, Copy)]
struct Ring {
    pointer: DsaPointer,
    size: u32,
}

impl Ring {
    /// Returns record number `n`, written or to be written; None if this process cannot map it. The caller holds the lock.
    fn record(self, n: u64) -> Option<&'static Record> {
        let first = shmem::look::<Record>(self.pointer)?;
        Some(shmem::neighbour(first, (n % u64::from(self.size)) as usize))
    }
}

impl History {
    fn ring(&self) -> Ring {
        Ring {
            pointer: self.ring,
            size: self.size,
        }
    }

    fn ring_before(&self) -> Ring {
        Ring {
            pointer: self.ring_before,
            size: self.size_before,
        }
    }

    /// The ring that record number `n` is in.
    fn ring_of(&self, n: u64) -> Ring {
        if self.is_moving() && n < self.unmoved {
            self.ring_before()
        } else {
            self.ring()
        }
    }

    fn is_moving(&self) -> bool {
        self.ring_before != INVALID_POINTER
    }

    /// The numbers of the records that exist, the oldest first.
    fn numbers(&self) -> core::ops::Range<u64> {
        self.first.max(self.written.saturating_sub(self.size.into()))..self.written
    }

    /// Makes `ring` the current one. Existing records move later, if there are any to move; else the old ring is returned for the caller to
    /// free.
    fn begin_to_move(&mut self, ring: Ring) -> DsaPointer {
        self.first = self.numbers().start.max(self.written.saturating_sub(ring.size.into()));
        (self.ring_before, self.size_before) = (self.ring, self.size);
        (self.ring, self.size) = (ring.pointer, ring.size);
        self.unmoved = self.written;
        self.end_of_move()
    }

    /// Moves some records, the youngest first. Returns the old ring, for the caller to free, when all have moved; else `INVALID_POINTER`.
    /// Returns None if this process cannot map one of the two.
    fn move_some(&mut self) -> Option<DsaPointer> {
        for _ in 0..BATCH {
            let free = self.end_of_move();
            if free != INVALID_POINTER {
                return Some(free);
            }
            let n = self.unmoved - 1;
            let from = self.ring_before().record(n)?;
            self.ring().record(n)?.take_from(from);
            self.unmoved = n;
        }
        Some(INVALID_POINTER)
    }

    fn end_of_move(&mut self) -> DsaPointer {
        if self.unmoved > self.numbers().start {
            return INVALID_POINTER;
        }
        core::mem::replace(&mut self.ring_before, INVALID_POINTER)
    }
}

/// Sets the size of the history. Sessions pass the setting on, since a worker does not know it. 53200 if memory is out, the system's own
/// error if the ring cannot be mapped.
pub fn set_size(history: &Locked<History>, size: u32) -> Result<()> {
    thread_local! {
        /// The size that this process passed on last.
        static KNOWN: Cell<Option<u32>> = const { Cell::new(None) };
    }
    if KNOWN.get() == Some(size) {
        return Ok(());
    }
    loop {
        // The process that began to move records may have ended.
        finish_move(history)?;
        if history.lock().size == size {
            break;
        }
        let ring = shmem::Owned::new(match size {
            0 => INVALID_POINTER,
            _ => shmem::allocate(size as usize * size_of::<Record>())?,
        });
        let mut guard = history.lock();
        if guard.is_moving() || guard.size == size {
            drop(guard);
            continue;
        }
        let free = guard.begin_to_move(Ring {
            pointer: ring.hand_over(),
            size,
        });
        drop(guard);
        shmem::free(free);
    }
    KNOWN.set(Some(size));
    Ok(())
}

fn finish_move(history: &Locked<History>) -> Result<()> {
    loop {
        let mut guard = map(history)?;
        if !guard.is_moving() {
            return Ok(());
        }
        let free = guard.move_some();
        drop(guard);
        shmem::free(free.unwrap_or(INVALID_POINTER));
    }
}

/// Returns the history, locked, with its rings mapped. The system's own error if they cannot be mapped.
fn map(history: &Locked<History>) -> Result<Guard<'_, History>> {
    loop {
        let rings = {
            let history = history.lock();
            [history.ring, history.ring_before]
        };
        // The rings may be freed meanwhile. Then mapping them fails for that reason, the pointers have changed, and the loop tries the new
        // ones.
        let mapped = rings.into_iter().try_for_each(shmem::map);
        let guard = history.lock();
        if rings == [guard.ring, guard.ring_before] {
            mapped?;
            return Ok(guard);
        }
    }
}

/// A scan of the history, a few records at a time: the oldest first, up to the last record that existed when the scan began. Records that
/// the ring loses meanwhile are left out.
pub struct Reading {
    history: &'static Locked<History>,
    next: u64,
    end: u64,
    records: Vec<Record>,
}

impl Reading {
    /// Begins a scan.
    pub fn begin(history: &'static Locked<History>) -> Self {
        let numbers = history.lock().numbers();
        Self {
            history,
            next: numbers.start,
            end: numbers.end,
            records: Vec::with_capacity(BATCH),
        }
    }

    /// The next entries; None after the last. The system's own error if the rings cannot be mapped.
    pub fn next(&mut self) -> Result<Option<impl Iterator<Item = Entry> + '_>> {
        self.records.clear();
        {
            let history = map(self.history)?;
            self.next = self.next.max(history.numbers().start);
            while self.next < self.end && self.records.len() < BATCH {
                if let Some(record) = history.ring_of(self.next).record(self.next) {
                    self.records.push(record.copy());
                }
                self.next += 1;
            }
        }
        Ok((!self.records.is_empty()).then(|| self.records.iter().map(Entry::stored)))
    }
}

/// Whether the history has a record of the job with this handle. Errors as [`Reading::next`].
pub fn knows(history: &'static Locked<History>, pid: i32, cookie: u64) -> Result<bool> {
    let mut reading = Reading::begin(history);
    while let Some(mut entries) = reading.next()? {
        if entries.any(|entry| (entry.facts.pid, entry.facts.cookie) == (pid, cookie)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_move_from_one_ring_to_another() {
        let mut history = History {
            ring: INVALID_POINTER,
            size: 0,
            size_before: 0,
            ring_before: INVALID_POINTER,
            unmoved: 0,
            written: 0,
            first: 0,
        };
        let ring = |pointer, size| Ring { pointer, size };
        assert_eq!(history.begin_to_move(ring(8, 4)), INVALID_POINTER);
        assert!(!history.is_moving());
        history.written = 10;
        assert_eq!(history.numbers(), 6..10);
        // A larger ring does not bring back what a smaller one dropped.
        assert_eq!(history.begin_to_move(ring(16, 2)), INVALID_POINTER);
        assert_eq!((history.numbers(), history.unmoved), (8..10, 10));
        assert_eq!((history.ring_of(9).pointer, history.ring_of(10).pointer), (8, 16));
        history.unmoved = 9;
        assert_eq!((history.ring_of(8).pointer, history.ring_of(9).pointer), (8, 16));
        history.unmoved = 8;
        assert_eq!(history.end_of_move(), 8);
        assert_eq!(history.begin_to_move(ring(8, 4)), INVALID_POINTER);
        // New records push out all that was still to move.
        history.written = 14;
        assert_eq!((history.numbers(), history.end_of_move()), (10..14, 16));
        assert_eq!(history.begin_to_move(ring(INVALID_POINTER, 0)), 8);
        assert_eq!(history.numbers(), 14..14);
    }
}
