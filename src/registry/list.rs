//! Lists in shared memory from which nothing is ever removed. Each entry has the pointer of the next. The pointer of the first entry, where
//! new ones are added, is protected by the lock of the structure that it is in.

use crate::pg::error::Result;
use crate::pg::shmem::{self, DsaPointer, INVALID_POINTER, Locked};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// An entry of a list. Zeroed memory is a valid entry.
pub trait Linked: 'static {
    /// The pointer of the next entry.
    fn next(&self) -> &AtomicU64;
}

/// Returns the pointer of the first entry for which `is_it` is true, from `first` up to but not including `end`. Called without a lock,
/// since looking at an entry may raise an error: the system's own if it cannot be mapped.
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

/// Returns all entries from `first` on. The system's own error if one cannot be mapped.
pub fn all<T: Linked>(first: DsaPointer) -> Result<Vec<&'static T>> {
    let mut entries = Vec::new();
    find(first, INVALID_POINTER, |entry| {
        entries.push(entry);
        false
    })?;
    Ok(entries)
}

/// Returns the pointer of the entry for which `is_it` is true. If there is none, adds one that `fill` has filled. This process has mapped
/// the entry. 53200 if memory is out, the system's own error if an entry cannot be mapped.
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
        // Another process has added entries, perhaps the same one.
        if let Some(pointer) = find::<T>(now, seen, &is_it)? {
            return Ok(pointer);
        }
        seen = now;
    }
}
