//! Lists in shared memory, each entry with the place of the next. Under the lock of whoever keeps the first place.

use crate::pg::error::Result;
use crate::pg::shmem::{self, Locked, NOWHERE, Offset};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What stands in a list. Zeroed memory is a valid entry.
pub trait Linked: 'static {
    /// The place of the next entry.
    fn next(&self) -> &AtomicU64;
}

/// The entries from `first` on.
pub fn entries<T: Linked>(first: Offset) -> impl Iterator<Item = &'static T> {
    places::<T>(first).map(|(_, entry)| entry)
}

fn places<T: Linked>(first: Offset) -> impl Iterator<Item = (Offset, &'static T)> {
    let at = |place: Offset| (place != NOWHERE).then(|| (place, shmem::at::<T>(place)));
    core::iter::successors(at(first), move |(_, entry)| at(entry.next().load(Relaxed)))
}

/// Puts an entry to the front.
pub fn push<T: Linked>(first: &mut Offset, place: Offset) {
    shmem::at::<T>(place).next().store(*first, Relaxed);
    *first = place;
}

/// Takes an entry off; does nothing where it is not there.
pub fn remove<T: Linked>(first: &mut Offset, place: Offset) {
    let next = shmem::at::<T>(place).next().load(Relaxed);
    if *first == place {
        *first = next;
    } else if let Some(before) = entries::<T>(*first).find(|entry| entry.next().load(Relaxed) == place) {
        before.next().store(next, Relaxed);
    }
}

/// The place of the entry that `is_it` is true of; where there is none, of a new one that `fill` has filled. For lists that nothing
/// is ever taken off. 53200 where memory is out.
pub fn find_or_add<H, T: Linked>(
    keeper: &Locked<H>,
    first: impl Fn(&mut H) -> &mut Offset,
    is_it: impl Fn(&T) -> bool,
    fill: impl FnOnce(&T),
) -> Result<Offset> {
    let find = |first: Offset| {
        places::<T>(first)
            .find(|(_, entry)| is_it(entry))
            .map(|(place, _)| place)
    };
    let seen = *first(&mut keeper.lock());
    if let Some(place) = find(seen) {
        return Ok(place);
    }
    let made = shmem::allocate(size_of::<T>())?;
    fill(shmem::at(made));
    let mut keeper = keeper.lock();
    let first = first(&mut keeper);
    // Somebody may have been faster.
    if let Some(place) = find(*first) {
        drop(keeper);
        shmem::free(made);
        return Ok(place);
    }
    push::<T>(first, made);
    Ok(made)
}
