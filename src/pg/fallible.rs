//! Vectors that grow only where there is memory: 53200 instead of an abort.

use crate::pg::error::{self, Failure, Result};
use crate::pg::raw::Raw;

/// Makes room for `more` elements; Rust's own allocations end the process where memory is out. 53200.
pub fn reserve<T>(into: &mut Vec<T>, more: usize) -> Result<()> {
    into.try_reserve(more)
        .map_err(|_| Failure::OutOfMemory((into.len() + more).saturating_mul(size_of::<T>())))
}

/// A copy. 53200.
pub fn copied<T: Clone>(from: &[T]) -> Result<Vec<T>> {
    let mut copy = Vec::new();
    reserve(&mut copy, from.len())?;
    copy.extend_from_slice(from);
    Ok(copy)
}

/// What an iterator gives. 53200.
pub fn collected<T>(from: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for element in from {
        push(&mut all, element)?;
    }
    Ok(all)
}

/// Adds an element. 53200.
pub fn push<T>(into: &mut Vec<T>, element: T) -> Result<()> {
    if into.len() == into.capacity() {
        reserve(into, 1)?;
    }
    into.push(element);
    Ok(())
}

/// Adds an element; 53200 jumps.
pub fn push_raw<T: Copy>(raw: Raw<'_>, into: &mut Vec<T>, element: T) {
    if let Err(failure) = push(into, element) {
        error::throw(raw, failure);
    }
}
