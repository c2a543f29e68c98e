//! Who sleeps until a job's end: a list in shared memory, under the job's lock.
//!
//! A process enters itself for each job that it waits for, and takes itself off again, also when it ends in the middle of the
//! wait. The list is also the edges in the graph that deadlocks are looked for in.

use super::list::{self, Linked};
use crate::pg::error::Result;
use crate::pg::proc;
use crate::pg::shmem::{self, Offset};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};

/// One process that waits for one job.
#[repr(C)]
struct Waiter {
    next: AtomicU64,
    procno: AtomicU32,
    pid: AtomicI32,
}

impl Linked for Waiter {
    fn next(&self) -> &AtomicU64 {
        &self.next
    }
}

/// Places for this process on so many lists. 53200 where memory is out.
pub fn places(count: usize) -> Result<Offset> {
    shmem::allocate(count * size_of::<Waiter>())
}

/// Place number `n`.
pub fn place(places: Offset, n: usize) -> Offset {
    places + (n * size_of::<Waiter>()) as u64
}

/// Enters this process into a list.
pub fn enter(list: &mut Offset, place: Offset) {
    let waiter: &Waiter = shmem::at(place);
    waiter.procno.store(proc::my_procno(), Relaxed);
    waiter.pid.store(proc::my_pid(), Relaxed);
    list::push::<Waiter>(list, place);
}

/// Takes a place off its list.
pub fn leave(list: &mut Offset, place: Offset) {
    list::remove::<Waiter>(list, place);
}

/// Where the latches of those who wait are.
pub fn processes(list: Offset) -> Vec<u32> {
    all(list).map(|waiter| waiter.procno.load(Relaxed)).collect()
}

/// Whether the process `pid` waits.
pub fn includes(list: Offset, pid: i32) -> bool {
    all(list).any(|waiter| waiter.pid.load(Relaxed) == pid)
}

fn all(list: Offset) -> impl Iterator<Item = &'static Waiter> {
    list::entries(list)
}
