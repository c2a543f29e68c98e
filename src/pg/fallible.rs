//! Vectors that raise 53200 instead of aborting the process if memory is out.

use crate::pg::error::{self, Failure, Result};
use crate::pg::raw::Raw;

/// Makes room for `more` elements. Fails with 53200 if memory is out, where Rust's own allocations abort the process.
pub fn reserve<T>(into: &mut Vec<T>, more: usize) -> Result<()> {
    into.try_reserve(more)
        .map_err(|_| Failure::OutOfMemory((into.len() + more).saturating_mul(size_of::<T>())))
}

/// Copies a slice. Fails with 53200 if memory is out.
pub fn copied<T: Clone>(from: &[T]) -> Result<Vec<T>> {
    let mut copy = Vec::new();
    reserve(&mut copy, from.len())?;
    copy.extend_from_slice(from);
    Ok(copy)
}

/// Collects an iterator. Fails with 53200 if memory is out.
pub fn collected<T>(from: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for element in from {
        push(&mut all, element)?;
    }
    Ok(all)
}

/// Appends an element. Fails with 53200 if memory is out.
pub fn push<T>(into: &mut Vec<T>, element: T) -> Result<()> {
    if into.len() == into.capacity() {
        reserve(into, 1)?;
    }
    into.push(element);
    Ok(())
}

/// As [`push`], raw.
pub fn push_raw<T: Copy>(raw: Raw<'_>, into: &mut Vec<T>, element: T) {
    if let Err(failure) = push(into, element) {
        error::throw(raw, failure);
    }
}
