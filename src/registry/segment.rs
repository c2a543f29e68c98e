//! Where job slots live: blocks of doubling size in the shared area, handed out and taken back through a free list.
//!
//! A block is never given back to the area, so a slot that was once seen can always be looked at; whether it still is the same
//! job is told by its cookie, under its lock.

use super::job::Slot;
use super::pool::Pool;
use crate::pg::error::Result;
use crate::pg::shmem::{self, Locked, Offset};
use core::sync::atomic::Ordering;
use std::cell::Cell;

/// Slots in the first block; block `n` has `FIRST << n`.
const FIRST: u32 = 64;

/// 64 · (2²² − 1) slots are more than memory holds.
const BLOCKS: usize = 22;

/// What all backends share; found by name.
#[repr(C)]
pub struct Segment {
    index: Locked<Index>,
    pool: Locked<Pool>,
}

#[repr(C)]
struct Index {
    tranche: i32,
    /// The first free slot's number plus one, 0 where none is free.
    free: u32,
    blocks: u32,
    block: [Offset; BLOCKS],
}

thread_local! {
    static SEGMENT: Cell<Option<&'static Segment>> = const { Cell::new(None) };
    /// The blocks' addresses in this process, found once.
    static KNOWN: Cell<[Option<&'static Slot>; BLOCKS]> = const { Cell::new([None; BLOCKS]) };
}

/// The registry; attaches on first use.
pub fn segment() -> Result<&'static Segment> {
    if let Some(segment) = SEGMENT.get() {
        return Ok(segment);
    }
    let segment = shmem::attach_root(|segment: &Segment, tranche| {
        segment.index.init(tranche);
        segment.index.lock().tranche = tranche;
        segment.pool.init(tranche);
    })?;
    SEGMENT.set(Some(segment));
    Ok(segment)
}

/// Whether this process has attached.
pub fn attached() -> Option<&'static Segment> {
    SEGMENT.get()
}

/// The block of slot number `n` and the place in it.
fn locate(n: u32) -> (usize, usize) {
    let block = ((n / FIRST) + 1).ilog2();
    (block as usize, (n - FIRST * ((1 << block) - 1)) as usize)
}

fn block_len(block: usize) -> u32 {
    FIRST << block
}

impl Segment {
    /// The workers that serve one job after another.
    pub fn pool(&self) -> &Locked<Pool> {
        &self.pool
    }

    /// Takes a free slot, in a new block where there is none. 53200 where memory is out.
    pub fn take(&self) -> Result<&'static Slot> {
        loop {
            {
                let mut index = self.index.lock();
                if index.free != 0 {
                    let slot = self.slot_in(&index, index.free - 1);
                    index.free = slot.next_free.load(Ordering::Relaxed);
                    return Ok(slot);
                }
            }
            self.grow()?;
        }
    }

    /// Gives a slot back, whose cookie is 0 already.
    pub fn give_back(&self, slot: &'static Slot) {
        let mut index = self.index.lock();
        slot.next_free.store(index.free, Ordering::Relaxed);
        index.free = slot.number() + 1;
    }

    /// The slot number `n`, which has been taken before.
    pub fn slot(&self, n: u32) -> &'static Slot {
        let (block, place) = locate(n);
        if let Some(first) = KNOWN.get()[block] {
            return shmem::neighbour(first, place);
        }
        let index = self.index.lock();
        self.slot_in(&index, n)
    }

    fn slot_in(&self, index: &Index, n: u32) -> &'static Slot {
        let (block, place) = locate(n);
        let mut known = KNOWN.get();
        let first = *known[block].get_or_insert_with(|| shmem::at(index.block[block]));
        KNOWN.set(known);
        shmem::neighbour(first, place)
    }

    /// All slots that exist, used or not.
    pub fn all(&self) -> impl Iterator<Item = &'static Slot> + '_ {
        let blocks = self.index.lock().blocks;
        (0..FIRST * ((1u32 << blocks) - 1)).map(|n| self.slot(n))
    }

    /// Adds a block. The memory is taken before the lock, since taking it may raise an error.
    fn grow(&self) -> Result<()> {
        let seen = self.index.lock().blocks as usize;
        if seen == BLOCKS {
            return Err(crate::pg::error::Report::new(
                pgrx::PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                "too many background jobs",
            )
            .into());
        }
        let len = block_len(seen);
        let place = shmem::allocate(len as usize * size_of::<Slot>())?;
        let first: &'static Slot = shmem::at(place);
        let mut index = self.index.lock();
        if index.free != 0 || index.blocks as usize != seen {
            drop(index);
            shmem::free(place);
            return Ok(());
        }
        let base = FIRST * ((1u32 << seen) - 1);
        for i in 0..len {
            shmem::neighbour(first, i as usize).init(
                base + i,
                if i + 1 < len { base + i + 2 } else { 0 },
                index.tranche,
            );
        }
        index.block[seen] = place;
        index.blocks += 1;
        index.free = base + 1;
        Ok(())
    }
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
