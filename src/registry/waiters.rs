//! The processes that sleep until a job's end: for each slot, one bit for each process that the server can have.
//!
//! A waiter sets its bit before it looks at the job's state, which it does under the job's lock. The process that ends the job sets the
//! state under that lock before it reads the bits. So at least one of the two sees the other.
//!
//! Bits need no memory, so setting, clearing and waking are possible at any time, also while a process ends. A process clears its bit when
//! its wait is over; if it dies before, its bit causes a needless wake-up. The bits are also the edges of the graph in which deadlocks are
//! searched.

use crate::pg::process::backend;
use crate::pg::shmem;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// The processes that wait for the job in one slot.
#[derive(Clone, Copy)]
pub struct Waiters {
    first: &'static AtomicU64,
}

fn words() -> usize {
    backend::count().div_ceil(64)
}

/// How many bytes the bits of one slot take.
pub fn bytes() -> usize {
    words() * size_of::<AtomicU64>()
}

impl Waiters {
    /// The bits of number `n` in an array that begins at `first`.
    pub fn at(first: &'static AtomicU64, n: usize) -> Self {
        Self {
            first: shmem::neighbour(first, n * words()),
        }
    }

    fn word(self, procno: u32) -> (&'static AtomicU64, u64) {
        let word = shmem::neighbour(self.first, procno as usize / 64);
        (word, 1 << (procno % 64))
    }

    /// Clears all bits.
    pub fn clear(self) {
        for n in 0..words() {
            shmem::neighbour(self.first, n).store(0, Relaxed);
        }
    }

    /// Wakes all waiters.
    pub fn wake(self) {
        for n in 0..words() {
            let mut bits = shmem::neighbour(self.first, n).load(Relaxed);
            while bits != 0 {
                backend::wake((n * 64) as u32 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }

    /// Sets the bit of this process.
    pub fn enter(self) {
        let (word, bit) = self.word(backend::my_procno());
        word.fetch_or(bit, SeqCst);
    }

    /// Clears the bit of this process.
    pub fn leave(self) {
        let (word, bit) = self.word(backend::my_procno());
        word.fetch_and(!bit, SeqCst);
    }

    /// Whether the bit of process `procno` is set.
    pub fn include(self, procno: u32) -> bool {
        let (word, bit) = self.word(procno);
        word.load(Relaxed) & bit != 0
    }
}
