//! The worker's end of the channel. Raw: everything here runs within the executor.
//!
//! Messages are assembled in a process_buffer buffer. A full buffer becomes a piece of the queue. While memory is left the piece goes there. If
//! memory is full and there is a reader, the worker waits for the reader to free some. If there is no reader, the piece goes to a temporary
//! file. **A worker never waits for a reader that is not there.** A reader that has taken nothing for `deadlock_timeout` is treated as
//! absent: it may itself be waiting for this job to end.
//!
//! Rows that fill the process_buffer buffer are likely to continue. From then on the buffer is a page in shared memory, which becomes the piece
//! without a copy. Pages that were read return to the worker and are filled again.

use crate::channel::message::{self, Column, HEADER, Kind, padded};
use crate::channel::queue::{self, Page, Room};
use crate::pg::digits::Digits;
use crate::pg::error::raise_raw;
use crate::pg::files::{Owner, Writing};
use crate::pg::guc::own;
use crate::pg::memory::{Buffer, Context};
use crate::pg::process::{backend, latch, signals};
use crate::pg::query::receiver::RowSlot;
use crate::pg::raw::Raw;
use crate::pg::value::describe::OwnType;
use crate::pg::value::tuple::{self, Row, SLACK, Shape};
use crate::pg::value::{describe, fingerprint, translate};
use crate::registry::job::Slot;
use pgrx::PgSqlErrorCode;

/// The bounds of the buffer's size in bytes. Within them it is a quarter of the queue, so that both ends can work at the same time.
const BUFFER: core::ops::RangeInclusive<usize> = 1024..=64 * 1024;

/// The size in bytes of the first file that a job writes. Each further file is twice as large as the one before, up to the largest.
///
/// The largest is less than a segment of 1 GB. Beyond a segment a BufFile refers to its file set again, and that set is a copy that no
/// longer exists by then.
const FIRST_FILE: u64 = 1 << 20;
const LARGEST_FILE: u64 = 256 << 20;

/// `MaxAllocSize`: no reader could allocate a larger row.
const LARGEST_ROW: usize = 0x3fff_ffff;

/// The maximum number of types within records that one result remembers as described. Beyond it a type may be described again.
const KNOWN_TYPES: usize = 256;

/// The writing end of the channel. It serves one job after another.
pub struct Writer {
    slot: &'static Slot,
    cookie: u64,
    /// How many bytes of memory unread messages may take.
    limit: u64,
    /// Whether messages may still be read by a session.
    keep: bool,
    /// Whether the job is about to end. The end wakes the reader.
    ending: bool,
    /// Whether a message has been begun and not completed. An error in between leaves a hole in the stream.
    torn: bool,
    /// Where messages are assembled: in `page` if there is one, else in `process_buffer`.
    buffer: Buffer,
    process_buffer: Buffer,
    /// The capacity of either of them in bytes.
    size: usize,
    page: Option<Page>,
    /// Where a row that does not fit the buffer is assembled.
    scratch: Buffer,
    /// Memory for values that are copied into a row. It is reset when the row has been written.
    row_memory: Context,
    shape: Option<Shape>,
    known_types: [OwnType; KNOWN_TYPES],
    known_count: usize,
    owner: Owner,
    /// The file that is being written. It is open only while a statement returns rows: PostgreSQL closes temporary files at the end of a
    /// transaction.
    file: Option<Writing>,
    file_len: u64,
    next_file: u32,
    file_size: u64,
    /// The deadline for a reader that takes nothing.
    patience: Option<Patience>,
    /// Whether the job has failed. Then the remaining messages must not delay its end.
    hurries: bool,
}

/// How long the worker waits for its reader: until this time, unless the reader's total of bytes read changes.
#[derive(Clone, Copy)]
struct Patience {
    read: u64,
    until: i64,
}

impl Writer {
    /// Makes a writer for this process. [`Writer::begin`] gives it a job. If memory is out, the process exits.
    pub fn new(raw: Raw<'_>, slot: &'static Slot) -> Self {
        let process_buffer = crate::pg::memory::for_process(|| Buffer::new(raw, *BUFFER.start()));
        crate::pg::memory::for_process(|| Self {
            slot,
            cookie: 0,
            limit: 0,
            keep: false,
            ending: false,
            torn: false,
            size: *BUFFER.start(),
            buffer: process_buffer.view(*BUFFER.start()),
            process_buffer,
            page: None,
            scratch: Buffer::new(raw, *BUFFER.start()),
            row_memory: Context::for_process(raw, c"pg_background row"),
            shape: None,
            known_types: [OwnType::Anonymous(0); KNOWN_TYPES],
            known_count: 0,
            owner: Owner::new(),
            file: None,
            file_len: 0,
            next_file: 0,
            file_size: FIRST_FILE,
            patience: None,
            hurries: false,
        })
    }

    /// Prepares the writer for a job's messages.
    pub fn begin(&mut self, raw: Raw<'_>, slot: &'static Slot, cookie: u64, queue_size: u32, keep: bool) {
        let size = (queue_size as usize / 4).clamp(*BUFFER.start(), *BUFFER.end()) & !7;
        crate::pg::memory::for_process(|| self.process_buffer.restart(raw, size));
        self.size = size;
        self.leave_page();
        self.slot = slot;
        self.cookie = cookie;
        self.limit = u64::from(queue_size);
        self.keep = keep;
        self.ending = false;
        self.torn = false;
        self.shape = None;
        self.known_count = 0;
        self.file = None;
        self.file_len = 0;
        self.next_file = 0;
        self.file_size = FIRST_FILE;
        self.patience = None;
        self.hurries = false;
    }

    /// Begins a statement's rows.
    pub fn start_rows(&mut self, raw: Raw<'_>, shape: Shape) {
        self.shape = Some(shape);
        if !self.keep {
            return;
        }
        let len = shape.width() * Column::LEN;
        self.header(raw, Kind::Columns, len);
        for n in 0..shape.width() {
            let kind = shape.column_type(n);
            let column = Column {
                kind,
                print: fingerprint::fingerprint(raw, kind),
                modifier: shape.column_modifier(n),
            };
            self.put(raw, &column.bytes());
        }
        self.pad(raw, len);
    }

    /// Writes one row.
    pub fn row(&mut self, raw: Raw<'_>, slot: RowSlot) {
        let Some(shape) = self.shape else { return };
        if !self.keep {
            return;
        }
        if shape.has_records {
            self.describe_records(raw, slot, &shape);
        }
        if self.row_in_place(raw, |to, room| tuple::form_at_once(to, room, slot, &shape)) {
            return;
        }
        match self.row_memory.enter(|| tuple::look(raw, slot, &shape)) {
            Row::Ready { from, len } => {
                self.make_room(raw, len);
                self.header(raw, Kind::Row, len);
                self.put(raw, &(len as u32).to_ne_bytes());
                self.put_from(raw, from.wrapping_add(4), len - 4);
                self.pad(raw, len);
            }
            Row::Loose { len, has_null } => {
                if len > LARGEST_ROW {
                    raise_raw(
                        raw,
                        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                        &[
                            b"row of a result is too large (",
                            Digits::of(len as u64).bytes(),
                            b" bytes)",
                        ],
                        None,
                    );
                }
                self.make_room(raw, len + SLACK);
                if !self.row_in_place(raw, |to, room| tuple::form(to, room, &shape, has_null)) {
                    let scratch = &mut self.scratch;
                    crate::pg::memory::for_process(|| scratch.restart(raw, len + SLACK));
                    let formed = tuple::form(scratch.as_ptr(), len + SLACK, &shape, has_null);
                    debug_assert_eq!(formed, Some(len));
                    self.header(raw, Kind::Row, len);
                    self.put_from(raw, self.scratch.as_ptr(), len);
                    self.pad(raw, len);
                }
                self.row_memory.reset(raw);
            }
        }
    }

    /// Lets `form` write a row directly into the buffer, with the room rounded down to whole words. `form` gets the address and the room
    /// there, and returns the row's length, or None if there is too little room. Returns whether the row was written.
    #[inline]
    fn row_in_place(&mut self, raw: Raw<'_>, form: impl FnOnce(*mut u8, usize) -> Option<usize>) -> bool {
        let room = self.buffer.room().saturating_sub(HEADER) & !7;
        let pointer = self.buffer.end().wrapping_add(HEADER);
        let Some(len) = form(pointer, room) else {
            return false;
        };
        self.check_whole(raw);
        if !self.buffer.push_word(message::header(Kind::Row, len)) {
            return false;
        }
        self.buffer.advance(padded(len));
        true
    }

    /// Ends a statement's rows. Data in an open file is handed over, since the transaction may end next.
    pub fn finish_rows(&mut self, raw: Raw<'_>) {
        self.shape = None;
        self.finish_file(raw);
    }

    /// Writes a statement's command tag.
    pub fn tag(&mut self, raw: Raw<'_>, tag: &[u8]) {
        self.message(raw, Kind::Tag, tag);
    }

    /// Writes rows that were collected as JSON.
    pub fn json(&mut self, raw: Raw<'_>, text: &[u8]) {
        self.message(raw, Kind::Json, text);
    }

    /// Writes a notice in the form of the protocol. While interrupts are held, waiting and allocating may be forbidden, so the notice is
    /// kept only if it fits the buffer.
    pub fn notice(&mut self, raw: Raw<'_>, fields: &[u8]) {
        if !self.keep {
            return;
        }
        if signals::interrupts_held() {
            if self.buffer.room() >= HEADER + padded(fields.len()) {
                self.message(raw, Kind::Notice, fields);
            }
            return;
        }
        self.message(raw, Kind::Notice, fields);
        if self.shape.is_none() {
            let reader = self.slot.look(|job| job.queue.reader());
            if let Some(reader) = reader {
                self.flush(raw);
                backend::wake(reader);
            }
        }
    }

    fn message(&mut self, raw: Raw<'_>, kind: Kind, body: &[u8]) {
        if self.keep {
            self.header(raw, kind, body.len());
            self.put(raw, body);
            self.pad(raw, body.len());
            if self.shape.is_none() {
                self.finish_file(raw);
            }
        }
    }

    fn describe_records(&mut self, raw: Raw<'_>, slot: RowSlot, shape: &Shape) {
        let memory = self.row_memory;
        memory.enter(|| {
            shape.each_record(raw, slot, &mut |value, kind| {
                translate::each_own_type(raw, value, kind, &mut |kind| self.describe(raw, kind))
            })
        });
        memory.reset(raw);
    }

    /// Describes a type within a record, unless this result has described it already.
    fn describe(&mut self, raw: Raw<'_>, kind: OwnType) {
        if self
            .known_types
            .iter()
            .take(self.known_count)
            .any(|known| *known == kind)
        {
            return;
        }
        let len = describe::description_len(raw, kind);
        self.header(raw, Kind::Record, len);
        describe::describe(raw, kind, &mut |bytes| self.put(raw, bytes));
        self.pad(raw, len);
        if let Some(known) = self.known_types.get_mut(self.known_count) {
            *known = kind;
            self.known_count += 1;
        }
    }

    /// Flushes the buffer if a message of `len` bytes does not fit it but would fit an empty one, so that the reader finds the row whole
    /// and uses it in pointer.
    fn make_room(&mut self, raw: Raw<'_>, len: usize) {
        let need = HEADER + padded(len);
        if need > self.buffer.room() && need <= self.buffer.capacity() {
            self.flush(raw);
        }
    }

    /// Raises 53000 if the stream has a hole. SQL may have caught the error that tore a message, and the job has continued.
    fn check_whole(&self, raw: Raw<'_>) {
        if self.torn {
            raise_raw(
                raw,
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
                &[b"the job's result is incomplete, since a message of it could not be kept"],
                None,
            );
        }
    }

    /// Begins a message. [`Writer::pad`] completes it.
    fn header(&mut self, raw: Raw<'_>, kind: Kind, len: usize) {
        self.check_whole(raw);
        self.torn = true;
        self.put(raw, &message::header(kind, len));
    }

    fn pad(&mut self, raw: Raw<'_>, len: usize) {
        const ZEROES: [u8; 8] = [0; 8];
        self.put_from(raw, ZEROES.as_ptr(), padded(len) - len);
        self.torn = false;
    }

    fn put(&mut self, raw: Raw<'_>, bytes: &[u8]) {
        self.put_from(raw, bytes.as_ptr(), bytes.len());
    }

    fn put_from(&mut self, raw: Raw<'_>, from: *const u8, len: usize) {
        let mut done = 0;
        while done < len {
            done += self.buffer.push(from.wrapping_add(done), len - done);
            if done < len {
                self.flush(raw);
            }
        }
    }

    /// Hands over the remaining messages before the job ends. This does not wake the reader, since the end does.
    pub fn flush_at_end(&mut self, raw: Raw<'_>) {
        self.ending = true;
        self.flush(raw);
        self.leave_page();
        self.give_back(raw);
    }

    /// Releases the memory that a large row took, also if an error ended it half-way.
    fn give_back(&mut self, raw: Raw<'_>) {
        self.row_memory.reset(raw);
        let scratch = &mut self.scratch;
        crate::pg::memory::for_process(|| scratch.shrink(raw, *BUFFER.end()));
    }

    /// Hands the buffer over as a piece of the queue.
    pub fn flush(&mut self, raw: Raw<'_>) {
        while !self.buffer.is_empty() {
            latch::reset_latch();
            let Some(mut job) = self.slot.lock_if(self.cookie) else {
                return self.discard(raw);
            };
            if !job.keeps_result {
                drop(job);
                return self.discard(raw);
            }
            if self.file.is_some() {
                let somebody_reads = job.queue.reader().is_some();
                let read = job.queue.read();
                drop(job);
                if somebody_reads && self.patience.is_none_or(|patience| patience.read != read) {
                    self.finish_file(raw);
                    continue;
                }
                return self.spill(raw);
            }
            let room = job.queue.room(self.buffer.len() as u64, self.limit);
            let read = job.queue.read();
            drop(job);
            match room {
                Room::Memory => return self.hand_over(raw),
                Room::Wait if !self.hurries && !signals::interrupts_held() => match self.patience_left(read) {
                    0 => return self.spill(raw),
                    left => {
                        latch::wait_raw(raw, left);
                        signals::check_for_interrupts_raw(raw);
                    }
                },
                Room::Wait | Room::File => return self.spill(raw),
            }
        }
    }

    /// Returns for how many more milliseconds to wait for a reader that has taken `read` bytes. Each piece that it takes restarts the time.
    fn patience_left(&mut self, read: u64) -> i64 {
        let now = backend::now();
        let until = match self.patience.filter(|patience| patience.read == read) {
            Some(patience) => patience.until,
            None => {
                let until = now + i64::from(own::deadlock_timeout().max(1)) * 1000;
                self.patience = Some(Patience { read, until });
                until
            }
        };
        (until - now + 999).div_euclid(1000).max(0)
    }

    /// Makes the buffer a piece in memory, and chooses the buffer for the next bytes.
    fn hand_over(&mut self, raw: Raw<'_>) {
        let more = self.shape.is_some() && !self.ending && self.buffer.len() > self.buffer.capacity() / 2;
        let piece = match self.page.take() {
            Some(page) => page.complete(self.buffer.len()),
            None => queue::piece_in_memory(raw, self.buffer.bytes()),
        };
        self.buffer = self.process_buffer.view(self.size);
        self.append(raw, piece);
        if more && self.keep {
            let spare = self.slot.lock_if(self.cookie).and_then(|mut job| job.queue.spare());
            let size = self.size;
            let page = spare.unwrap_or_else(|| queue::page(raw, size));
            self.buffer = Buffer::over(page.as_ptr(), Page::room(size));
            self.page = Some(page);
        }
    }

    /// Frees the page with its contents. The next bytes go to the process_buffer buffer.
    fn leave_page(&mut self) {
        if let Some(page) = self.page.take() {
            page.free();
        }
        self.buffer = self.process_buffer.view(self.size);
    }

    fn append(&mut self, raw: Raw<'_>, piece: crate::pg::shmem::DsaPointer) {
        let appended = self.slot.lock_if(self.cookie).and_then(|mut job| {
            job.queue.note_written(backend::transaction_has_written());
            job.keeps_result.then(|| job.queue.append(piece, self.limit))
        });
        match appended {
            Some(Ok(Some(reader))) if !self.ending => backend::wake(reader),
            Some(Ok(_)) => (),
            Some(Err(queue::Unreachable)) => {
                crate::pg::shmem::free(piece);
                raise_raw(
                    raw,
                    PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
                    &[b"could not map the shared memory of a background job"],
                    None,
                );
            }
            // The owner of the result has released it meanwhile.
            None => crate::pg::shmem::free(piece),
        }
    }

    fn spill(&mut self, raw: Raw<'_>) {
        self.check_file_limit(raw);
        let file = match self.file {
            Some(file) => file,
            None => {
                let file = self.open_file(raw);
                self.file = Some(file);
                file
            }
        };
        let (owner, buffer) = (self.owner, &self.buffer);
        owner.with(|| file.write(raw, buffer.bytes()));
        self.file_len += self.buffer.len() as u64;
        self.buffer.clear();
        // Between statements the transaction may end next. In the middle of a message it cannot.
        if (self.shape.is_none() && !self.torn) || self.file_len >= self.file_size {
            self.finish_file(raw);
        }
    }

    fn open_file(&mut self, raw: Raw<'_>) -> Writing {
        // The file set is kept in the slot, so that the process that frees the slot finds it. Making it may raise an error, so a copy is
        // prepared without the lock. Nobody else prepares it.
        let mut files = self.slot.look(|job| job.files);
        let owner = self.owner;
        let set = self.cookie as u32;
        owner.with(|| files.prepare(raw, set));
        self.slot.look(|job| job.files = files);
        self.file_len = 0;
        let number = self.next_file;
        self.next_file += 1;
        // The current memory context, that of an error message or a row, may be reset before the file is complete.
        crate::pg::memory::for_process(|| owner.with(|| files.write(raw, number)))
    }

    /// Completes the open file and appends it to the queue.
    pub fn finish_file(&mut self, raw: Raw<'_>) {
        let Some(file) = self.file.take() else { return };
        let owner = self.owner;
        // If this fails, the contents of the file are missing from the stream.
        let torn = core::mem::replace(&mut self.torn, true);
        owner.with(|| file.finish(raw));
        let piece = queue::piece_in_file(raw, self.next_file - 1, self.file_len);
        self.file_size = (self.file_size * 2).min(LARGEST_FILE);
        self.append(raw, piece);
        self.torn = torn;
    }

    /// Raises 53400 if the job's files exceed `temp_file_limit`. PostgreSQL counts a temporary file against the limit while the process has
    /// it open. These files are closed and still exist, so unread data in files is counted here too.
    fn check_file_limit(&self, raw: Raw<'_>) {
        let limit = own::temp_file_limit();
        if limit < 0 {
            return;
        }
        let waiting = self.slot.look(|job| job.queue.file_bytes())
            + self.file.map_or(0, |_| self.file_len)
            + self.buffer.len() as u64;
        if waiting > limit as u64 * 1024 {
            raise_raw(
                raw,
                PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                &[
                    b"temporary file size exceeds temp_file_limit (",
                    Digits::of(limit as u64).bytes(),
                    b"kB)",
                ],
                None,
            );
        }
    }

    fn stop_keeping(&mut self) {
        self.keep = false;
        self.leave_page();
    }

    fn discard(&mut self, raw: Raw<'_>) {
        self.stop_keeping();
        if let Some(file) = self.file.take() {
            let owner = self.owner;
            owner.with(|| file.finish(raw));
        }
    }

    /// Cleans up after an error, before the transaction is aborted. An open file is closed now, since PostgreSQL would close it at the
    /// abort. Nothing may follow a torn message: the reader would take it for the rest of that message.
    pub fn after_error(&mut self, raw: Raw<'_>) {
        self.shape = None;
        self.hurries = true;
        if self.torn {
            self.stop_keeping();
        }
        self.finish_file(raw);
        // A file whose completion failed is still open.
        self.owner.release();
    }

    /// Abandons an open file whose completion failed. Guarded.
    pub fn give_up_file(&mut self) {
        self.stop_keeping();
        self.file = None;
        self.owner.release();
    }
}
