//! The slots of jobs: blocks of doubling size in the dynamic shared area, with a free list.
//!
//! A hash table finds the slot of a job by its cookie. Its buckets lie in the slots themselves, so there are as many buckets as slots.
//!
//! A block is never freed, so a slot that a process has seen can always be looked at. Whether it still holds the same job is told by its
//! cookie, under its lock.

use crate::pg::error::Result;
use crate::pg::shmem::{self, DsaPointer, Guard, Locked};
use crate::registry::history::History;
use crate::registry::job::Slot;
use crate::registry::pool::{self, Pool};
use crate::registry::totals::Directory;
use crate::registry::waiters::{self, Waiters};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::cell::Cell;

/// The number of slots in the first block; block `n` has `FIRST << n`.
const FIRST: u32 = 64;

/// 64 · (2²² − 1) slots are more than memory holds.
const BLOCKS: usize = 22;

/// What all processes share.
#[repr(C)]
pub struct Segment {
    index: Locked<Index>,
    pool: Locked<Pool>,
    /// The jobs that have ended.
    pub history: Locked<History>,
    /// The counters by database and role.
    pub totals: Locked<Directory>,
    /// When a process is to look at all jobs next.
    pub upkeep_at: AtomicI64,
    /// What durable tasks need; the null pointer before their first use.
    pub tasks: AtomicU64,
    /// Whether the clock of durable tasks is to be started, and the postmaster had no slot.
    pub owes_clock: AtomicBool,
    /// The counters of durable tasks by queue; the null pointer before their first use.
    pub task_totals: AtomicU64,
}

#[repr(C)]
struct Index {
    tranche: i32,
    /// The first free slot's number plus one, 0 if none is free.
    free: u32,
    blocks: u32,
    block: [DsaPointer; BLOCKS],
}

thread_local! {
    static SEGMENT: Cell<Option<&'static Segment>> = const { Cell::new(None) };
    /// The blocks' addresses in this process, found once.
    static KNOWN: Cell<[Option<&'static Slot>; BLOCKS]> = const { Cell::new([None; BLOCKS]) };
}

/// Returns the registry; attaches on first use.
pub fn segment() -> Result<&'static Segment> {
    if let Some(segment) = SEGMENT.get() {
        return Ok(segment);
    }
    let segment = shmem::attach_root(|segment: &Segment, tranche| {
        segment.index.init(tranche);
        segment.index.lock().tranche = tranche;
        segment.pool.init(tranche);
        segment.history.init(tranche);
        segment.totals.init(tranche);
        segment.upkeep_at.store(0, Relaxed);
        segment.tasks.store(0, Relaxed);
        segment.owes_clock.store(false, Relaxed);
        segment.task_totals.store(0, Relaxed);
    })?;
    pool::attach(&segment.pool);
    SEGMENT.set(Some(segment));
    Ok(segment)
}

/// Reserves what the registry needs in the main shared memory, so that a growing lock table cannot use it up. Called when the library is
/// loaded at the server's start.
pub fn reserve() {
    shmem::reserve_root::<Segment>();
}

/// The registry, if this process has attached.
pub fn attached() -> Option<&'static Segment> {
    SEGMENT.get()
}

/// Returns the block of slot number `n`, and the index in that block.
fn locate(n: u32) -> (usize, usize) {
    let block = ((n / FIRST) + 1).ilog2();
    (block as usize, (n - FIRST * ((1 << block) - 1)) as usize)
}

fn block_len(block: usize) -> u32 {
    FIRST << block
}

/// How many slots the first `blocks` blocks have.
fn slots_in(blocks: u32) -> u32 {
    FIRST * ((1u32 << blocks) - 1)
}

impl Segment {
    /// The tranche of the locks.
    pub fn tranche(&self) -> i32 {
        self.index.lock().tranche
    }

    /// Maps the blocks that this process has not mapped yet. Nothing may be mapped under the index lock, so code that looks at slots under
    /// it calls this first. Returns how many blocks there were. The system's own error if one cannot be mapped.
    fn know_all(&self) -> Result<u32> {
        let (blocks, pointers) = {
            let index = self.index.lock();
            (index.blocks, index.block)
        };
        for (block, pointer) in pointers.into_iter().enumerate().take(blocks as usize) {
            if KNOWN.get()[block].is_none() {
                know(block, shmem::mapped(pointer)?);
            }
        }
        Ok(blocks)
    }

    /// Locks the index when this process has mapped all blocks. The system's own error if one cannot be mapped.
    fn lock_index(&self) -> Result<Guard<'_, Index>> {
        loop {
            let blocks = self.know_all()?;
            let index = self.index.lock();
            if index.blocks == blocks {
                return Ok(index);
            }
        }
    }

    /// Takes a free slot for the job with this cookie, from a new block if none is free. 53200 if memory is out.
    pub fn take(&self, cookie: u64) -> Result<&'static Slot> {
        loop {
            let blocks = {
                let mut index = self.lock_index()?;
                if index.free == 0 {
                    self.take_back_abandoned(&mut index);
                }
                if index.free != 0 {
                    let slot = slot_in(index.free - 1);
                    index.free = slot.next_free.load(Relaxed);
                    slot.key.store(cookie, Relaxed);
                    self.link(&index, slot);
                    return Ok(slot);
                }
                index.blocks
            };
            self.grow(blocks)?;
        }
    }

    /// Puts a slot, whose cookie is 0 already, on the free list. Raises nothing: if this process cannot map all slots, it marks the slot
    /// for the next process that needs one.
    pub fn give_back(&self, slot: &'static Slot) {
        match self.lock_index() {
            Ok(mut index) => self.set_free(&mut index, slot),
            Err(_) => slot.abandoned.store(1, Relaxed),
        }
    }

    fn set_free(&self, index: &mut Index, slot: &'static Slot) {
        self.unlink(index, slot);
        slot.key.store(0, Relaxed);
        slot.next_free.store(index.free, Relaxed);
        index.free = slot.number() + 1;
    }

    /// Gives a slot that is taken the cookie `cookie`, under the lock of the index, if `change` returns true. False also if this process cannot
    /// map all slots.
    pub fn rename(&self, slot: &'static Slot, cookie: u64, change: impl FnOnce() -> bool) -> bool {
        let Ok(index) = self.lock_index() else { return false };
        let renamed = change();
        if renamed {
            self.unlink(&index, slot);
            slot.key.store(cookie, Relaxed);
            self.link(&index, slot);
        }
        renamed
    }

    fn take_back_abandoned(&self, index: &mut Index) {
        for n in 0..slots_in(index.blocks) {
            let slot = slot_in(n);
            if slot.abandoned.swap(0, Relaxed) != 0 {
                self.set_free(index, slot);
            }
        }
    }

    /// Returns the slot that was taken for the job with this cookie. Whether the job is still there is checked under the slot's lock. The
    /// system's own error if the slots cannot be mapped.
    pub fn find(&self, cookie: u64) -> Result<Option<&'static Slot>> {
        let index = self.lock_index()?;
        Ok(self.find_in(&index, cookie))
    }

    fn find_in(&self, index: &Index, cookie: u64) -> Option<&'static Slot> {
        let mut next = self.bucket(index, cookie)?.bucket.load(Relaxed);
        while next != 0 {
            let slot = slot_in(next - 1);
            if slot.key.load(Relaxed) == cookie {
                return Some(slot);
            }
            next = slot.next_in_bucket.load(Relaxed);
        }
        None
    }

    /// The slot whose `bucket` is the head of the list that a cookie belongs to.
    fn bucket(&self, index: &Index, cookie: u64) -> Option<&'static Slot> {
        let buckets = u64::from(slots_in(index.blocks));
        (buckets > 0).then(|| slot_in((cookie % buckets) as u32))
    }

    fn link(&self, index: &Index, slot: &'static Slot) {
        if let Some(head) = self.bucket(index, slot.key.load(Relaxed)) {
            slot.next_in_bucket.store(head.bucket.load(Relaxed), Relaxed);
            head.bucket.store(slot.number() + 1, Relaxed);
        }
    }

    fn unlink(&self, index: &Index, slot: &'static Slot) {
        let Some(head) = self.bucket(index, slot.key.load(Relaxed)) else {
            return;
        };
        let mut link = &head.bucket;
        loop {
            match link.load(Relaxed) {
                0 => return,
                n if n == slot.number() + 1 => return link.store(slot.next_in_bucket.load(Relaxed), Relaxed),
                n => link = &slot_in(n - 1).next_in_bucket,
            }
        }
    }

    /// Returns slot number `n`, which has been taken before. The system's own error if it cannot be mapped.
    pub fn slot(&self, n: u32) -> Result<&'static Slot> {
        if KNOWN.get()[locate(n).0].is_none() {
            self.know_all()?;
        }
        Ok(slot_in(n))
    }

    /// Returns all slots that exist, used or not. The system's own error if they cannot be mapped.
    pub fn all(&self) -> Result<impl Iterator<Item = &'static Slot> + use<>> {
        Ok((0..slots_in(self.know_all()?)).map(slot_in))
    }

    /// Adds a block, unless there are other than `blocks` blocks by now. All that may raise an error comes before the lock is taken.
    fn grow(&self, blocks: u32) -> Result<()> {
        let seen = blocks as usize;
        if seen == BLOCKS {
            return Err(crate::pg::error::Report::new(
                pgrx::PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                "too many background jobs",
            )
            .into());
        }
        let len = block_len(seen);
        let pointer = shmem::allocate(len as usize * (size_of::<Slot>() + waiters::bytes()))?;
        let first: &'static Slot = shmem::at(pointer);
        let mut index = self.index.lock();
        if index.free != 0 || index.blocks != blocks {
            drop(index);
            shmem::free(pointer);
            return Ok(());
        }
        let base = slots_in(blocks);
        for i in 0..len {
            shmem::neighbour(first, i as usize).init(
                base + i,
                if i + 1 < len { base + i + 2 } else { 0 },
                index.tranche,
            );
        }
        know(seen, first);
        index.block[seen] = pointer;
        index.blocks += 1;
        index.free = base + 1;
        // The number of buckets has changed, so every slot is linked again.
        for n in 0..base {
            slot_in(n).bucket.store(0, Relaxed);
        }
        for n in 0..base {
            let slot = slot_in(n);
            if slot.key.load(Relaxed) != 0 {
                self.link(&index, slot);
            }
        }
        Ok(())
    }
}

fn know(block: usize, first: &'static Slot) {
    let mut known = KNOWN.get();
    known[block] = Some(first);
    KNOWN.set(known);
}

/// The slot number `n`, in a block that this process has mapped.
fn slot_in(n: u32) -> &'static Slot {
    let (block, index) = locate(n);
    match KNOWN.get()[block] {
        Some(first) => shmem::neighbour(first, index),
        None => unreachable!("a slot of a block that this process has not mapped"),
    }
}

/// The processes that wait for the job in this slot. Their bits lie behind the slots of a block.
pub fn waiters(slot: &'static Slot) -> Waiters {
    let (block, index) = locate(slot.number());
    let first = shmem::behind::<Slot, AtomicU64>(shmem::neighbour(slot, 0), block_len(block) as usize - index);
    Waiters::at(first, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_numbered_through_the_blocks() {
        assert_eq!(locate(0), (0, 0));
        assert_eq!(locate(63), (0, 63));
        assert_eq!(locate(64), (1, 0));
        assert_eq!(locate(191), (1, 127));
        assert_eq!(locate(192), (2, 0));
    }
}
