//! The queue between a worker and its reader: a list of pieces of the message stream, in order.
//!
//! A piece lies in shared memory or in a temporary file. The worker appends; the reader takes from the front and frees. Unread
//! pieces outlive both processes' interest in each other: the worker can end, and the reader come later.
//!
//! The ends of the list are under the job's lock, where nothing may raise an error. So the reader maps the first piece before it
//! takes it; the worker has made all pieces itself.

use crate::pg::error;
use crate::pg::raw::Raw;
use crate::pg::shmem::{self, NOWHERE, Offset};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

/// The header of a piece; its bytes follow unless they are in a file.
#[repr(C)]
struct Piece {
    next: AtomicU64,
    len: AtomicU64,
    /// The file's number plus one, 0 for a piece in memory.
    file: AtomicU32,
    /// Not 0 for a page: a piece that goes back to the worker to be filled again.
    page: AtomicU32,
}

const PIECE: usize = size_of::<Piece>();

/// A piece that was taken from the queue and now belongs to the reader.
#[derive(Clone, Copy)]
pub struct Taken {
    place: Offset,
    /// How many bytes of the stream it has.
    pub len: u64,
    /// The number of the file that they are in, None for memory.
    pub file: Option<u32>,
    page: bool,
}

/// The ends of the list. Part of a job, under its lock.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Queue {
    head: Offset,
    tail: Offset,
    /// The piece that the reader has in hand. Kept here too, so that it is freed if the reader dies with it.
    taken: Offset,
    /// Pages that were read, a list like that of the pieces.
    spare: Offset,
    /// Bytes that wait in memory.
    bytes: u64,
    /// Bytes that wait in files.
    file_bytes: u64,
    /// How much of the piece in hand an earlier reading has done.
    taken_done: u64,
    /// Bytes that were ever appended, those of them that went to files, and those that a reader has taken.
    written: u64,
    spilled: u64,
    read: u64,
    /// The reading process's number plus one, 0 for none.
    reader: u32,
    /// Whether the worker sleeps until the reader makes room, and how many bytes may still wait in memory then.
    writer_waits: bool,
    wake_below: u64,
    /// Whether nothing more will come.
    sealed: bool,
    /// Whether the job's transaction had written something when a piece was appended.
    has_written: bool,
}

/// What a reader finds.
pub enum Next {
    /// A piece at this place that the reader has yet to look at with [`map`], without the lock.
    Unknown(Offset),
    Piece {
        piece: Taken,
        wake_writer: bool,
    },
    /// Nothing yet; the reader's latch will be set.
    Nothing,
    /// The job has left the role that it began with: the reader takes the next piece when it has seen that it still may.
    LeftRole,
    End,
}

/// A piece that another process has made cannot be mapped.
pub struct Unreachable;

/// What a worker does with a piece.
pub enum Room {
    /// It fits into memory.
    Memory,
    /// Memory is full and somebody reads: wait for room.
    Wait,
    /// Memory is full and nobody reads: to a file.
    File,
}

/// Maps a piece that [`Next::Unknown`] has told of; nobody else takes it meanwhile.
pub fn map(raw: Raw<'_>, place: Offset) {
    if let Err(failure) = shmem::map(place) {
        error::throw(raw, failure);
    }
}

/// A new piece in memory with these bytes, not yet in a queue.
pub fn piece_in_memory(raw: Raw<'_>, bytes: &[u8]) -> Offset {
    let place = shmem::allocate_raw(raw, PIECE + bytes.len());
    fill(place, bytes.len() as u64, 0);
    shmem::write(place + PIECE as u64, bytes);
    place
}

/// A new page that takes `size` bytes of memory, to be filled in place.
pub fn page(raw: Raw<'_>, size: usize) -> Page {
    let place = shmem::allocate_raw(raw, size);
    fill(place, 0, 0);
    shmem::at::<Piece>(place).page.store(1, Relaxed);
    Page { place }
}

/// A page that the worker fills.
#[derive(Clone, Copy)]
pub struct Page {
    place: Offset,
}

impl Page {
    /// How many bytes of the stream a page of `size` bytes takes.
    pub const fn room(size: usize) -> usize {
        size - PIECE
    }

    /// Where they go; aligned for any type.
    pub fn as_ptr(self) -> *mut u8 {
        shmem::address(self.place + PIECE as u64)
    }

    /// The piece that this page is when `len` bytes have been written.
    pub fn complete(self, len: usize) -> Offset {
        let piece: &Piece = shmem::at(self.place);
        piece.len.store(len as u64, Relaxed);
        piece.next.store(NOWHERE, Relaxed);
        self.place
    }

    /// Gives up the page.
    pub fn free(self) {
        shmem::free(self.place);
    }
}

/// A new piece that stands for `len` bytes in file number `file`.
pub fn piece_in_file(raw: Raw<'_>, file: u32, len: u64) -> Offset {
    let place = shmem::allocate_raw(raw, PIECE);
    fill(place, len, file + 1);
    place
}

fn fill(place: Offset, len: u64, file: u32) {
    let piece: &Piece = shmem::at(place);
    piece.next.store(NOWHERE, Relaxed);
    piece.len.store(len, Relaxed);
    piece.file.store(file, Relaxed);
    piece.page.store(0, Relaxed);
}

impl Taken {
    /// The piece at `place`, which this process has mapped.
    pub fn at(place: Offset) -> Self {
        let piece: &Piece = shmem::at(place);
        Self {
            place,
            len: piece.len.load(Relaxed),
            file: piece.file.load(Relaxed).checked_sub(1),
            page: piece.page.load(Relaxed) != 0,
        }
    }

    /// The bytes of a piece in memory.
    pub fn as_ptr(&self) -> *mut u8 {
        shmem::address(self.place + PIECE as u64)
    }

    /// Frees the piece's memory. Only after [`Queue::put_down`] has said that it is the caller's to free.
    pub fn free(self) {
        shmem::free(self.place);
    }
}

impl Queue {
    /// An empty, open queue.
    pub fn clear(&mut self) {
        *self = Queue {
            head: NOWHERE,
            tail: NOWHERE,
            taken: NOWHERE,
            spare: NOWHERE,
            bytes: 0,
            file_bytes: 0,
            taken_done: 0,
            written: 0,
            spilled: 0,
            read: 0,
            reader: 0,
            writer_waits: false,
            wake_below: 0,
            sealed: false,
            has_written: false,
        };
    }

    /// Where a piece of `len` bytes is to go, with room for `limit` bytes in memory. A single piece always fits. A worker that waits
    /// is woken when half of its queue is read, and not for each piece: two processes that hand over one piece at a time spend
    /// their time on waking each other.
    pub fn room(&mut self, len: u64, limit: u64) -> Room {
        if self.bytes == 0 || self.bytes + len <= limit {
            Room::Memory
        } else if self.reader != 0 {
            self.writer_waits = true;
            self.wake_below = limit / 2;
            Room::Wait
        } else {
            Room::File
        }
    }

    /// Appends a piece that this process has made. Returns the reader where it is to wake: when half of the `limit` bytes wait, or a file
    /// does. Nothing is appended where this process cannot map the last piece, which another worker has made that had the job
    /// before.
    pub fn append(&mut self, place: Offset, limit: u64) -> Result<Option<u32>, Unreachable> {
        let last = match self.tail {
            NOWHERE => None,
            tail => Some(shmem::look::<Piece>(tail).ok_or(Unreachable)?),
        };
        let piece: &Piece = shmem::at(place);
        let len = piece.len.load(Relaxed);
        let in_memory = piece.file.load(Relaxed) == 0;
        self.written += len;
        if in_memory {
            self.bytes += len;
        } else {
            self.file_bytes += len;
            self.spilled += len;
        }
        let worth_waking = !in_memory || self.bytes >= limit / 2;
        match last {
            None => self.head = place,
            Some(last) => last.next.store(place, Relaxed),
        }
        self.tail = place;
        Ok(self.reader().filter(|_| worth_waking))
    }

    /// Takes the first piece, if it is the one at `known`.
    pub fn next(&mut self, known: Offset) -> Next {
        if self.head == NOWHERE {
            return if self.sealed { Next::End } else { Next::Nothing };
        }
        let place = self.head;
        if place != known {
            return Next::Unknown(place);
        }
        let piece: &Piece = shmem::at(place);
        let (len, file) = (piece.len.load(Relaxed), piece.file.load(Relaxed));
        self.head = piece.next.load(Relaxed);
        if self.head == NOWHERE {
            self.tail = NOWHERE;
        }
        if file == 0 {
            self.bytes -= len;
        } else {
            self.file_bytes -= len;
        }
        self.read += len;
        let wake_writer = self.writer_waits && self.bytes <= self.wake_below;
        self.writer_waits &= !wake_writer;
        self.taken = place;
        self.taken_done = 0;
        Next::Piece {
            piece: Taken::at(place),
            wake_writer,
        }
    }

    /// Whether a reader would find something, be it the end.
    pub fn has_news(&self) -> bool {
        self.head != NOWHERE || self.sealed
    }

    /// How much waits in files.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes that were ever appended.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that were ever appended in files.
    pub fn spilled(&self) -> u64 {
        self.spilled
    }

    /// Bytes that readers have taken.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// A reading is broken off with this piece in hand, of which so many bytes are done.
    pub fn leave(&mut self, piece: Taken, done: u64) {
        if self.taken == piece.place {
            self.taken_done = done;
        }
    }

    /// The place of the piece that an earlier reading had in hand, and how much of it is done.
    pub fn left(&self) -> Option<(Offset, u64)> {
        (self.taken != NOWHERE).then_some((self.taken, self.taken_done))
    }

    /// The reader is done with a piece. True where the piece is the caller's to free; not where it has been freed with the job as
    /// a whole, nor where it goes back to the worker.
    pub fn put_down(&mut self, piece: Taken) -> bool {
        if self.taken != piece.place {
            return false;
        }
        self.taken = NOWHERE;
        if !piece.page || self.sealed {
            return true;
        }
        shmem::at::<Piece>(piece.place).next.store(self.spare, Relaxed);
        self.spare = piece.place;
        false
    }

    /// A page that has been read, for the worker that has made it.
    pub fn spare(&mut self) -> Option<Page> {
        if self.spare == NOWHERE {
            return None;
        }
        let place = self.spare;
        self.spare = shmem::at::<Piece>(place).next.load(Relaxed);
        Some(Page { place })
    }

    /// Notes before a piece is appended whether the job has written anything.
    pub fn note_written(&mut self, has_written: bool) {
        self.has_written |= has_written;
    }

    /// Whether the rows so far come from a transaction that has written and not ended.
    pub fn is_unsettled(&self) -> bool {
        self.has_written && !self.sealed
    }

    /// Nothing more will come.
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    /// The reading process.
    pub fn reader(&self) -> Option<u32> {
        self.reader.checked_sub(1)
    }

    /// Somebody reads from now on, or nobody any more. Returns whether the worker is to wake.
    pub fn set_reader(&mut self, procno: Option<u32>) -> bool {
        self.reader = procno.map_or(0, |procno| procno + 1);
        core::mem::take(&mut self.writer_waits)
    }

    /// Empties the queue; the pieces belong to the caller.
    pub fn take(&mut self) -> Queue {
        let taken = *self;
        self.head = NOWHERE;
        self.tail = NOWHERE;
        self.taken = NOWHERE;
        self.spare = NOWHERE;
        self.bytes = 0;
        self.file_bytes = 0;
        taken
    }

    /// Frees all pieces of a queue that was taken. Raises nothing: those that this process cannot map stay allocated. Without a lock.
    pub fn free_all(&mut self) {
        shmem::free(self.taken);
        for mut place in [self.spare, self.head] {
            while let Some(piece) = shmem::look::<Piece>(place) {
                let next = piece.next.load(Relaxed);
                shmem::free(place);
                place = next;
            }
        }
    }
}
