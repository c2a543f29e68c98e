//! Lists in shared memory that nothing is ever taken off, each entry with the pointer of the next. Under the lock of whoever keeps the
//! first pointer, which is where new entries go.

use crate::pg::error::Result;
use crate::pg::shmem::{self, DsaPointer, INVALID_POINTER, Locked};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// What stands in a list. Zeroed memory is a valid entry.
pub trait Linked: 'static {
    /// The pointer of the next entry.
    fn next(&self) -> &AtomicU64;
}

/// The entry from `first` up to but without `end` that `is_it` is true of, with its pointer. Without a lock, since looking at an entry
/// may raise an error: the system's own where it refuses to map it.
fn find<T: Linked>(
    first: DsaPointer,
    end: DsaPointer,
    mut is_it: impl FnMut(&'static T) -> bool,
) -> Result<Option<DsaPointer>> {
    let mut pointer = first;
    while pointer != end && pointer != INVALID_POINTER {
        let entry: &'static T = shmem::mapped(pointer)?;
        if is_it(entry) {
            return Ok(Some(pointer));
        }
        pointer = entry.next().load(Relaxed);
    }
    Ok(None)
}

/// All entries from `first` on. The system's own error where it refuses to map one.
pub fn all<T: Linked>(first: DsaPointer) -> Result<Vec<&'static T>> {
    let mut entries = Vec::new();
    find(first, INVALID_POINTER, |entry| {
        entries.push(entry);
        false
    })?;
    Ok(entries)
}

/// The pointer of the entry that `is_it` is true of; where there is none, of a new one that `fill` has filled. This process has mapped
/// it. 53200 where memory is out, the system's own error where it refuses to map an entry.
pub fn find_or_add<H, T: Linked>(
    keeper: &Locked<H>,
    first: impl Fn(&mut H) -> &mut DsaPointer,
    is_it: impl Fn(&T) -> bool,
    fill: impl FnOnce(&T),
) -> Result<DsaPointer> {
    let mut seen = *first(&mut keeper.lock());
    if let Some(pointer) = find::<T>(seen, INVALID_POINTER, &is_it)? {
        return Ok(pointer);
    }
    let made = shmem::Owned::new(shmem::allocate(size_of::<T>())?);
    let entry: &T = shmem::at(made.pointer());
    fill(entry);
    loop {
        let now = {
            let mut keeper = keeper.lock();
            let first = first(&mut keeper);
            if *first == seen {
                entry.next().store(seen, Relaxed);
                *first = made.hand_over();
                return Ok(*first);
            }
            *first
        };
        // Somebody has been faster, perhaps with the same.
        if let Some(pointer) = find::<T>(now, seen, &is_it)? {
            return Ok(pointer);
        }
        seen = now;
    }
}
