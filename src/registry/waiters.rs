//! Who sleeps until a job's end: for each slot a bit for each process that the server can have.
//!
//! Who waits enters before it looks at the job's state, which it does under the job's lock; who ends the job sets the state under that lock before it looks who
//! waits. So one of the two sees the other.
//!
//! Bits need no memory, so whoever enters, leaves or wakes can do so at any time, also while its process ends. A process takes itself
//! off when its wait is over; the bit of one that has died without is a wake-up in vain. The bits are also the edges in the graph
//! that deadlocks are looked for in.

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
    /// Number `n` in an array that begins with `first`.
    pub(super) fn at(first: &'static AtomicU64, n: usize) -> Self {
        Self {
            first: shmem::neighbour(first, n * words()),
        }
    }

    fn word(self, procno: u32) -> (&'static AtomicU64, u64) {
        let word = shmem::neighbour(self.first, procno as usize / 64);
        (word, 1 << (procno % 64))
    }

    /// Nobody waits.
    pub fn clear(self) {
        for n in 0..words() {
            shmem::neighbour(self.first, n).store(0, Relaxed);
        }
    }

    /// Wakes all.
    pub fn wake(self) {
        for n in 0..words() {
            let mut bits = shmem::neighbour(self.first, n).load(Relaxed);
            while bits != 0 {
                backend::wake((n * 64) as u32 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }

    /// Enters this process.
    pub fn enter(self) {
        let (word, bit) = self.word(backend::my_procno());
        word.fetch_or(bit, SeqCst);
    }

    /// Takes this process off.
    pub fn leave(self) {
        let (word, bit) = self.word(backend::my_procno());
        word.fetch_and(!bit, SeqCst);
    }

    /// Whether the process at place `procno` is among them.
    pub fn include(self, procno: u32) -> bool {
        let (word, bit) = self.word(procno);
        word.load(Relaxed) & bit != 0
    }
}
