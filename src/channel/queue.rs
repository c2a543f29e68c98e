//! The queue between a worker and its reader: an ordered list of pieces of the message stream.
//!
//! A piece is in shared memory or in a temporary file. The worker appends pieces; the reader takes them from the front and frees them.
//! Unread pieces do not depend on either process: the worker can exit, and a reader can come later.
//!
//! The job's lock protects the head and the tail of the list, and nothing may raise an error under that lock. So the reader maps the first
//! piece before it takes it. The worker made the pieces itself and has them mapped, except for those of another worker that had the job
//! before ([`Queue::append`]).

use crate::pg::error;
use crate::pg::raw::Raw;
use crate::pg::shmem::{self, DsaPointer, INVALID_POINTER};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

/// The header of a piece. The bytes follow, unless they are in a file.
#[repr(C)]
struct Piece {
    next: AtomicU64,
    len: AtomicU64,
    /// The file's number plus one, or 0 for a piece in memory.
    file: AtomicU32,
    /// Not 0 for a page, that is, a piece that returns to the worker to be filled again.
    page: AtomicU32,
}

const PIECE: usize = size_of::<Piece>();

/// A piece that was taken from the queue. It belongs to the reader.
#[derive(Clone, Copy)]
pub struct Taken {
    pointer: DsaPointer,
    /// The number of bytes of the stream in this piece.
    pub len: u64,
    /// The number of the file that holds the bytes, or None if they are in memory.
    pub file: Option<u32>,
    page: bool,
}

/// The head, the tail and the counters of the list. Part of a job, protected by its lock.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Queue {
    head: DsaPointer,
    tail: DsaPointer,
    /// The piece that the reader currently holds. It is recorded here so that it can be freed if the reader dies.
    taken: DsaPointer,
    /// The free list of pages that were read, linked like the pieces.
    spare: DsaPointer,
    /// Unread bytes in memory.
    bytes: u64,
    /// Unread bytes in files.
    file_bytes: u64,
    /// How many bytes of the piece in `taken` an earlier reading has consumed.
    taken_done: u64,
    /// Totals: bytes appended, bytes of those that went to files, and bytes that readers took.
    written: u64,
    spilled: u64,
    read: u64,
    /// The reader's process number plus one, or 0 if nobody reads.
    reader: u32,
    /// Whether the worker sleeps until the reader has freed memory, and the number of unread bytes in memory at which to wake it.
    writer_waits: bool,
    wake_below: u64,
    /// Whether the queue is complete: nothing more will be appended.
    sealed: bool,
    /// Whether the job's transaction had written something when a piece was appended.
    has_written: bool,
}

/// The result of a reader's attempt to take a piece.
pub enum Next {
    /// The first piece is at this pointer. The reader must [`map`] it, without the lock, before it can take it.
    Unknown(DsaPointer),
    Piece {
        piece: Taken,
        wake_writer: bool,
    },
    /// The queue is empty. The reader's latch will be set when there is more.
    Nothing,
    /// The job has left the role that it began with. The reader must check that it still may read before it takes the next piece.
    LeftRole,
    End,
}

/// The piece that another process made cannot be mapped.
pub struct Unreachable;

/// What the worker does with a new piece.
pub enum Room {
    /// The piece fits into memory.
    Memory,
    /// Memory is full and there is a reader: wait for it.
    Wait,
    /// Memory is full and there is no reader: write to a file.
    File,
}

/// Maps a piece that [`Next::Unknown`] returned. Nobody else takes it meanwhile.
pub fn map(raw: Raw<'_>, pointer: DsaPointer) {
    if let Err(failure) = shmem::map(pointer) {
        error::throw(raw, failure);
    }
}

/// Makes a piece in memory with these bytes. It is not in a queue yet.
pub fn piece_in_memory(raw: Raw<'_>, bytes: &[u8]) -> DsaPointer {
    let pointer = shmem::allocate_raw(raw, PIECE + bytes.len());
    fill(pointer, bytes.len() as u64, 0);
    shmem::write(pointer + PIECE as u64, bytes);
    pointer
}

/// Makes a page of `size` bytes of memory, to be filled in pointer.
pub fn page(raw: Raw<'_>, size: usize) -> Page {
    let pointer = shmem::allocate_raw(raw, size);
    fill(pointer, 0, 0);
    shmem::at::<Piece>(pointer).page.store(1, Relaxed);
    Page { pointer }
}

/// A page that the worker fills.
#[derive(Clone, Copy)]
pub struct Page {
    pointer: DsaPointer,
}

impl Page {
    /// The number of bytes of the stream that a page of `size` bytes can hold.
    pub const fn room(size: usize) -> usize {
        size - PIECE
    }

    /// The address of the page's bytes, aligned for any type.
    pub fn as_ptr(self) -> *mut u8 {
        shmem::address(self.pointer + PIECE as u64)
    }

    /// Turns the page, with `len` bytes written, into a piece.
    pub fn complete(self, len: usize) -> DsaPointer {
        let piece: &Piece = shmem::at(self.pointer);
        piece.len.store(len as u64, Relaxed);
        piece.next.store(INVALID_POINTER, Relaxed);
        self.pointer
    }

    /// Frees the page.
    pub fn free(self) {
        shmem::free(self.pointer);
    }
}

/// Makes a piece that stands for `len` bytes in the file of this number.
pub fn piece_in_file(raw: Raw<'_>, file: u32, len: u64) -> DsaPointer {
    let pointer = shmem::allocate_raw(raw, PIECE);
    fill(pointer, len, file + 1);
    pointer
}

fn fill(pointer: DsaPointer, len: u64, file: u32) {
    let piece: &Piece = shmem::at(pointer);
    piece.next.store(INVALID_POINTER, Relaxed);
    piece.len.store(len, Relaxed);
    piece.file.store(file, Relaxed);
    piece.page.store(0, Relaxed);
}

impl Taken {
    /// The piece at this pointer, which this process has mapped.
    pub fn at(pointer: DsaPointer) -> Self {
        let piece: &Piece = shmem::at(pointer);
        Self {
            pointer,
            len: piece.len.load(Relaxed),
            file: piece.file.load(Relaxed).checked_sub(1),
            page: piece.page.load(Relaxed) != 0,
        }
    }

    /// The bytes of a piece in memory.
    pub fn as_ptr(&self) -> *mut u8 {
        shmem::address(self.pointer + PIECE as u64)
    }

    /// Frees the piece's memory. Call this only if [`Queue::put_down`] has returned true.
    pub fn free(self) {
        shmem::free(self.pointer);
    }
}

impl Queue {
    /// Makes the queue empty and open.
    pub fn clear(&mut self) {
        *self = Queue {
            head: INVALID_POINTER,
            tail: INVALID_POINTER,
            taken: INVALID_POINTER,
            spare: INVALID_POINTER,
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

    /// Decides where a piece of `len` bytes goes, if unread pieces may take `limit` bytes of memory. A single piece always fits.
    ///
    /// A waiting worker is woken when half of its queue has been read, not for each piece. Two processes that hand over one piece at a time
    /// would spend their time waking each other.
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

    /// Appends a piece that this process has made. Returns the reader if it should be woken, that is, if half of the `limit` bytes are
    /// unread or the piece is in a file.
    ///
    /// Appends nothing if this process cannot map the last piece. That can happen if another worker, which had the job before, made it.
    pub fn append(&mut self, pointer: DsaPointer, limit: u64) -> Result<Option<u32>, Unreachable> {
        let last = match self.tail {
            INVALID_POINTER => None,
            tail => Some(shmem::look::<Piece>(tail).ok_or(Unreachable)?),
        };
        let piece: &Piece = shmem::at(pointer);
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
            None => self.head = pointer,
            Some(last) => last.next.store(pointer, Relaxed),
        }
        self.tail = pointer;
        Ok(self.reader().filter(|_| worth_waking))
    }

    /// Takes the first piece if it is the one at `known`.
    pub fn next(&mut self, known: DsaPointer) -> Next {
        if self.head == INVALID_POINTER {
            return if self.sealed { Next::End } else { Next::Nothing };
        }
        let pointer = self.head;
        if pointer != known {
            return Next::Unknown(pointer);
        }
        let piece: &Piece = shmem::at(pointer);
        let (len, file) = (piece.len.load(Relaxed), piece.file.load(Relaxed));
        self.head = piece.next.load(Relaxed);
        if self.head == INVALID_POINTER {
            self.tail = INVALID_POINTER;
        }
        if file == 0 {
            self.bytes -= len;
        } else {
            self.file_bytes -= len;
        }
        self.read += len;
        let wake_writer = self.writer_waits && self.bytes <= self.wake_below;
        self.writer_waits &= !wake_writer;
        self.taken = pointer;
        self.taken_done = 0;
        Next::Piece {
            piece: Taken::at(pointer),
            wake_writer,
        }
    }

    /// Whether a reader would find a piece or the end.
    pub fn has_news(&self) -> bool {
        self.head != INVALID_POINTER || self.sealed
    }

    /// The number of unread bytes in files.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The number of bytes ever appended.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The number of bytes ever appended in files.
    pub fn spilled(&self) -> u64 {
        self.spilled
    }

    /// The number of bytes that readers have taken.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Records that a reading stopped in this piece after `done` bytes.
    pub fn leave(&mut self, piece: Taken, done: u64) {
        if self.taken == piece.pointer {
            self.taken_done = done;
        }
    }

    /// The piece that an earlier reading stopped in, and how many of its bytes that reading consumed.
    pub fn left(&self) -> Option<(DsaPointer, u64)> {
        (self.taken != INVALID_POINTER).then_some((self.taken, self.taken_done))
    }

    /// Releases a piece that the reader has read. Returns true if the caller must free it. Returns false if it was freed together with the
    /// job, or if it returns to the worker as a page.
    pub fn put_down(&mut self, piece: Taken) -> bool {
        if self.taken != piece.pointer {
            return false;
        }
        self.taken = INVALID_POINTER;
        if !piece.page || self.sealed {
            return true;
        }
        shmem::at::<Piece>(piece.pointer).next.store(self.spare, Relaxed);
        self.spare = piece.pointer;
        false
    }

    /// Takes a page from the free list, for the worker that made it.
    pub fn spare(&mut self) -> Option<Page> {
        if self.spare == INVALID_POINTER {
            return None;
        }
        let pointer = self.spare;
        self.spare = shmem::at::<Piece>(pointer).next.load(Relaxed);
        Some(Page { pointer })
    }

    /// Records, before a piece is appended, whether the job has written anything.
    pub fn note_written(&mut self, has_written: bool) {
        self.has_written |= has_written;
    }

    /// Whether the rows so far come from a transaction that has written and has not ended.
    pub fn is_unsettled(&self) -> bool {
        self.has_written && !self.sealed
    }

    /// Marks the queue complete: nothing more will be appended.
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    /// The reader's process number, if there is a reader.
    pub fn reader(&self) -> Option<u32> {
        self.reader.checked_sub(1)
    }

    /// Sets or clears the reader. Returns whether the worker must be woken.
    pub fn set_reader(&mut self, procno: Option<u32>) -> bool {
        self.reader = procno.map_or(0, |procno| procno + 1);
        core::mem::take(&mut self.writer_waits)
    }

    /// Empties the queue. The pieces belong to the caller.
    pub fn take(&mut self) -> Queue {
        let taken = *self;
        self.head = INVALID_POINTER;
        self.tail = INVALID_POINTER;
        self.taken = INVALID_POINTER;
        self.spare = INVALID_POINTER;
        self.bytes = 0;
        self.file_bytes = 0;
        taken
    }

    /// Frees all pieces of a queue that was taken. Raises no error: pieces that this process cannot map stay allocated. Call it without a
    /// lock held.
    pub fn free_all(&mut self) {
        shmem::free(self.taken);
        for mut pointer in [self.spare, self.head] {
            while let Some(piece) = shmem::look::<Piece>(pointer) {
                let next = piece.next.load(Relaxed);
                shmem::free(pointer);
                pointer = next;
            }
        }
    }
}
