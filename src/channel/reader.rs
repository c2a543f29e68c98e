//! The session's end of the channel.
//!
//! A [`Reader`] holds the state of a reading, and a [`Pump`] moves rows. Both live for one call. If a reading stops before the first row,
//! its state is kept with the job for the next reading, which may be in another session.
//!
//! The pump is raw and owns nothing. It stops at everything that is not a row, and the caller handles that.

use crate::channel::message::{self, Column, HEADER, Kind, padded};
use crate::channel::queue::{self, Next, Taken};
use crate::pg::error::Result;
use crate::pg::fallible;
use crate::pg::files::Reading;
use crate::pg::function::rows::Rows;
use crate::pg::memory::{Buffer, Context};
use crate::pg::process::{latch, signals};
use crate::pg::raw::Raw;
use crate::pg::shmem::{DsaPointer, INVALID_POINTER};
use crate::pg::value::describe::Numbers;
use crate::registry::job::Slot;

/// How many bytes of a file to read at once.
const BLOCK: usize = 64 * 1024;

/// The state of a reading.
#[derive(Default)]
pub struct Reader {
    /// The piece that is partly read, and how many of its bytes have been consumed.
    pub begun: Option<(Taken, u64)>,
    /// The messages that later messages need, in the order of arrival.
    pub known: Vec<u8>,
    /// The columns of the result, once they are known.
    pub columns: Option<Vec<Column>>,
    /// The command tags so far, each terminated by a NUL.
    tags: Vec<u8>,
    /// The anonymous row types that the worker has described.
    pub records: Numbers,
    /// The number of rows passed on.
    pub rows: u64,
    /// Whether reading stopped in the middle of a message, whose beginning is lost.
    pub torn: bool,
}

/// Why the pump stopped.
pub enum Event {
    /// A message that is not a row: kind, address and length. Valid until the pump continues.
    Message(Kind, *const u8, usize),
    /// Everything so far has been read. The latch will be set when there is more.
    Drained,
    /// The job has ended, and everything has been read.
    End,
    /// The stream is malformed, or ends in the middle of a message.
    Broken,
    /// This row and the rows after it come from a transaction that has written and has not ended ([`Pump::heed_writes`]).
    Unsettled(*mut u8),
    /// The job has left the role that it began with. The caller must check that it may read on.
    LeftRole,
}

/// The next item of the stream.
enum Item {
    /// A row in PostgreSQL's own form. Valid until the pump continues.
    Row(*mut u8),
    /// Anything else.
    Other(Event),
}

/// Moves rows from a job to a row set.
pub struct Pump {
    slot: &'static Slot,
    cookie: u64,
    piece: Option<Taken>,
    file: Option<Reading>,
    /// How many bytes of the piece have been exposed through windows.
    shown: u64,
    window: *mut u8,
    window_len: usize,
    at: usize,
    block: Option<Buffer>,
    scratch: Option<Buffer>,
    /// The message being assembled in `scratch`: its kind and its complete length.
    begun: Option<(Kind, usize)>,
    /// Memory for renumbering the records of one row.
    row_memory: Option<Context>,
    /// Whether to stop at rows of a transaction that has written and has not ended, and whether the current piece is from such a
    /// transaction.
    heeds_writes: bool,
    unsettled: bool,
    /// The value of [`Job::also_for`](crate::registry::job::Job::also_for) when the last piece was taken.
    also_for: u32,
}

enum More {
    Window,
    Nothing,
    End,
    LeftRole,
}

impl Reader {
    /// Keeps a message for a later reading. Raises 53200 if memory is out.
    pub fn remember(&mut self, kind: Kind, body: &[u8]) -> Result<()> {
        fallible::reserve(&mut self.known, HEADER + padded(body.len()))?;
        self.known.extend_from_slice(&message::header(kind, body.len()));
        self.known.extend_from_slice(body);
        self.known.resize(self.known.len().next_multiple_of(HEADER), 0);
        Ok(())
    }

    /// Keeps a command tag. Raises 53200 if memory is out.
    pub fn add_tag(&mut self, tag: &[u8]) -> Result<()> {
        fallible::reserve(&mut self.tags, tag.len() + 1)?;
        self.tags.extend_from_slice(tag);
        self.tags.push(0);
        Ok(())
    }

    /// Iterates over the command tags so far.
    pub fn each_tag(&self) -> impl Iterator<Item = &[u8]> {
        self.tags
            .split_inclusive(|byte| *byte == 0)
            .filter_map(|tag| tag.strip_suffix(b"\0"))
    }
}

/// Iterates over the messages that an earlier reading kept.
pub fn remembered(mut known: &[u8]) -> impl Iterator<Item = (Kind, &[u8])> {
    core::iter::from_fn(move || {
        let (header, rest) = known.split_first_chunk::<HEADER>()?;
        let (kind, len) = message::parse(*header)?;
        let body = rest.get(..len)?;
        known = rest.get(padded(len)..)?;
        Some((kind, body))
    })
}

impl Pump {
    /// Makes a pump that continues where `reader` stopped. [`Pump::stop`] records in the reader how far it came.
    pub fn new(slot: &'static Slot, cookie: u64, reader: &mut Reader) -> Self {
        let mut pump = Self {
            slot,
            cookie,
            piece: None,
            file: None,
            shown: 0,
            window: core::ptr::null_mut(),
            window_len: 0,
            at: 0,
            block: None,
            scratch: None,
            begun: None,
            row_memory: None,
            heeds_writes: false,
            unsettled: false,
            also_for: slot.lock().also_for,
        };
        if let Some((piece, done)) = reader.begun.take() {
            pump.piece = Some(piece);
            if piece.file.is_none() {
                pump.window = piece.as_ptr();
                pump.window_len = piece.len as usize;
                pump.at = done as usize;
                pump.shown = piece.len;
            } else {
                pump.shown = done;
            }
        }
        pump
    }

    /// Records how far the stream has been read. An open file belongs to the transaction, which closes it.
    pub fn stop(&mut self, reader: &mut Reader) {
        reader.torn |= self.begun.is_some();
        if let Some(piece) = self.piece.take() {
            reader.begun = Some((piece, self.shown - (self.window_len - self.at) as u64));
        }
    }

    /// Closes the open file, if any.
    pub fn close(&mut self, raw: Raw<'_>) {
        if let Some(file) = self.file.take() {
            file.close(raw);
        }
    }

    /// Moves rows until something else comes. If `rows` is None, the rows are dropped.
    pub fn run(&mut self, raw: Raw<'_>, rows: Option<&Rows>, records: &Numbers, count: &mut u64) -> Event {
        loop {
            let tuple = match self.next(raw) {
                Item::Row(tuple) => tuple,
                Item::Other(event) => return event,
            };
            self.push(raw, tuple, rows, records, count);
            if count.is_multiple_of(1024) {
                signals::check_for_interrupts_raw(raw);
            }
        }
    }

    /// Shows the next row in `rows`, where it stays until the pump continues. If something else comes, returns that.
    #[inline]
    pub fn show(&mut self, raw: Raw<'_>, rows: &Rows, records: &Numbers, count: &mut u64) -> Option<Event> {
        let tuple = match self.next(raw) {
            Item::Row(tuple) => tuple,
            Item::Other(event) => return Some(event),
        };
        if self.unsettled {
            (self.unsettled, self.heeds_writes) = (false, false);
            return Some(Event::Unsettled(tuple));
        }
        *count += 1;
        if records.is_empty() && rows.are_whole() {
            rows.show_tuple_raw(raw, tuple);
        } else {
            let memory = self.row_memory(raw);
            memory.reset(raw);
            memory.enter(|| rows.show_tuple_with_records(raw, tuple, records));
        }
        None
    }

    /// Adds a row to `rows`. If `rows` is None, drops it.
    pub fn push(&mut self, raw: Raw<'_>, tuple: *mut u8, rows: Option<&Rows>, records: &Numbers, count: &mut u64) {
        *count += 1;
        let Some(rows) = rows else { return };
        if records.is_empty() && rows.are_whole() {
            rows.push_tuple_raw(raw, tuple);
        } else {
            let memory = self.row_memory(raw);
            memory.enter(|| rows.push_tuple_with_records(raw, tuple, records));
            memory.reset(raw);
        }
    }

    /// Makes [`Pump::show`] stop at the first row that may come from a transaction that has written and has not ended. `unsettled` says
    /// whether the piece that is partly read is from one.
    pub fn heed_writes(&mut self, unsettled: bool) {
        (self.heeds_writes, self.unsettled) = (true, unsettled);
    }

    fn row_memory(&mut self, raw: Raw<'_>) -> Context {
        *self.row_memory.get_or_insert_with(|| Context::below_current(raw))
    }

    /// Returns the next row or other item.
    #[inline]
    fn next(&mut self, raw: Raw<'_>) -> Item {
        let (kind, len) = match self.begun {
            Some(begun) => begun,
            None => {
                while self.at == self.window_len {
                    match self.more(raw) {
                        More::Window => (),
                        More::Nothing => return Item::Other(Event::Drained),
                        More::End => return Item::Other(Event::End),
                        More::LeftRole => return Item::Other(Event::LeftRole),
                    }
                }
                match self.header() {
                    Some(begins) => begins,
                    None => return Item::Other(Event::Broken),
                }
            }
        };
        let body = match self.body(raw, kind, len) {
            Ok(body) => body,
            Err(event) => return Item::Other(event),
        };
        if kind == Kind::Row {
            Item::Row(body)
        } else {
            Item::Other(Event::Message(kind, body, len))
        }
    }

    /// Reads the next header. The length of every piece is a multiple of eight, so a header is never split.
    fn header(&mut self) -> Option<(Kind, usize)> {
        let bytes = crate::pg::memory::read_8(self.window, self.at, self.window_len)?;
        self.at += HEADER;
        message::parse(bytes)
    }

    /// Returns the body of a message: in pointer if it lies in one window, else assembled in `scratch`.
    ///
    /// If the worker has yet to send the rest, which may take until its next row, the pump continues with this message later.
    #[inline]
    fn body(&mut self, raw: Raw<'_>, kind: Kind, len: usize) -> core::result::Result<*mut u8, Event> {
        let whole = padded(len);
        if self.begun.is_none() && whole <= self.window_len - self.at {
            let body = self.window.wrapping_add(self.at);
            self.at += whole;
            return Ok(body);
        }
        self.put_together(raw, kind, len)
    }

    /// Assembles a message that spans windows.
    fn put_together(&mut self, raw: Raw<'_>, kind: Kind, len: usize) -> core::result::Result<*mut u8, Event> {
        let whole = padded(len);
        let mut scratch = self.scratch.take().unwrap_or_else(|| Buffer::new(raw, whole));
        if self.begun.is_none() {
            scratch.restart(raw, whole);
            self.begun = Some((kind, len));
        }
        let mut event = None;
        while scratch.len() < whole && event.is_none() {
            if self.at == self.window_len {
                event = match self.more(raw) {
                    More::Window => continue,
                    More::Nothing => Some(Event::Drained),
                    // The worker exited in the middle of a message: the rest never comes.
                    More::End => Some(Event::Broken),
                    More::LeftRole => Some(Event::LeftRole),
                };
                continue;
            }
            let available = self.window_len - self.at;
            let missing = whole - scratch.len();
            self.at += scratch.push(self.window.wrapping_add(self.at), available.min(missing));
        }
        let body = scratch.as_ptr();
        self.scratch = Some(scratch);
        match event {
            Some(event) => Err(event),
            None => {
                self.begun = None;
                Ok(body)
            }
        }
    }

    /// Moves the window to the next bytes of the stream.
    fn more(&mut self, raw: Raw<'_>) -> More {
        loop {
            self.window_len = 0;
            self.at = 0;
            if let Some(piece) = self.piece {
                if let Some(number) = piece.file
                    && self.shown < piece.len
                {
                    self.read_block(raw, number, piece.len);
                    return More::Window;
                }
                if let Some(number) = piece.file {
                    self.close(raw);
                    let mut files = self.slot.look(|job| job.files);
                    files.delete(raw, number);
                }
                self.piece = None;
                if self
                    .slot
                    .look_if(self.cookie, |job| job.queue.put_down(piece))
                    .unwrap_or(false)
                {
                    piece.free();
                }
            }
            latch::reset_latch();
            let next = match self.take(INVALID_POINTER) {
                Next::Unknown(pointer) => {
                    queue::map(raw, pointer);
                    self.take(pointer)
                }
                next => next,
            };
            match next {
                // Cannot happen: nobody else takes pieces from the front.
                Next::Unknown(_) => return More::Nothing,
                Next::End => return More::End,
                Next::Nothing => return More::Nothing,
                Next::LeftRole => return More::LeftRole,
                Next::Piece { piece, wake_writer } => {
                    self.piece = Some(piece);
                    if wake_writer {
                        let writer = self.slot.look(|job| job.runner);
                        writer.wake();
                    }
                    if piece.file.is_none() {
                        self.window = piece.as_ptr();
                        self.window_len = piece.len as usize;
                        self.shown = piece.len;
                        return More::Window;
                    }
                    self.shown = 0;
                }
            }
        }
    }

    /// Takes the first piece if it is the one at `known`, which this process has mapped.
    fn take(&mut self, known: DsaPointer) -> Next {
        match self.slot.lock_if(self.cookie) {
            Some(mut job) => {
                if job.also_for != core::mem::replace(&mut self.also_for, job.also_for) {
                    return Next::LeftRole;
                }
                self.unsettled |= self.heeds_writes && job.queue.is_unsettled();
                job.queue.next(known)
            }
            None => Next::End,
        }
    }

    /// Reads the next block of the file into the window.
    fn read_block(&mut self, raw: Raw<'_>, number: u32, len: u64) {
        let file = match self.file {
            Some(file) => file,
            None => {
                let mut files = self.slot.look(|job| job.files);
                let file = files.read(raw, number);
                file.seek(raw, self.shown);
                self.file = Some(file);
                file
            }
        };
        let block = self.block.take().unwrap_or_else(|| Buffer::new(raw, BLOCK));
        let want = BLOCK.min((len - self.shown) as usize);
        let got = file.read(raw, block.as_ptr(), want);
        if got < want {
            crate::pg::error::raise_raw(
                raw,
                pgrx::PgSqlErrorCode::ERRCODE_IO_ERROR,
                &[b"could not read a job's result from its temporary file"],
                None,
            );
        }
        self.window = block.as_ptr();
        self.window_len = got;
        self.shown += got as u64;
        self.block = Some(block);
    }
}
