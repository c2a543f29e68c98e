//! The global allocator, with a reserve for small allocations when memory is out.
//!
//! Rust aborts the process when an allocation fails, and then the postmaster terminates all other processes. Allocations whose size depends
//! on the user are checked ([`super::fallible::reserve`]) and raise an error. Small allocations (a handle, a node of a table, the text of
//! an error) are not checked. If the system has no memory for them, they come from a reserve, which is enough until that error has ended
//! the statement.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;
use std::alloc::{GlobalAlloc, Layout, System};

/// The size of the reserve in bytes. It takes no memory until it is used.
const SIZE: usize = 1 << 20;

/// Allocations larger than this, in bytes, do not come from the reserve.
const SMALL: usize = 4096;

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

#[repr(align(16))]
struct Reserve(UnsafeCell<[u8; SIZE]>);

// SAFETY: PostgreSQL runs our code in one thread of each process.
unsafe impl Sync for Reserve {}

static RESERVE: Reserve = Reserve(UnsafeCell::new([0; SIZE]));
/// The bytes in use from the beginning of the reserve, and the number of allocations in it. The memory is reused when all of them have been
/// freed.
static USED: AtomicUsize = AtomicUsize::new(0);
static PIECES: AtomicUsize = AtomicUsize::new(0);

fn take(layout: Layout) -> *mut u8 {
    let begin = USED.load(Relaxed).next_multiple_of(layout.align());
    if layout.size() > SMALL || begin + layout.size() > SIZE {
        return ptr::null_mut();
    }
    USED.store(begin + layout.size(), Relaxed);
    PIECES.fetch_add(1, Relaxed);
    RESERVE.0.get().cast::<u8>().wrapping_add(begin)
}

fn give_back() {
    if PIECES.fetch_sub(1, Relaxed) == 1 {
        USED.store(0, Relaxed);
    }
}

fn is_ours(piece: *mut u8) -> bool {
    (piece as usize).wrapping_sub(RESERVE.0.get() as usize) < SIZE
}

// SAFETY: each piece comes from the system's allocator, which fulfils the contract, or from the reserve, of which no byte is given out twice
// at a time; the addresses tell which.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        let piece = unsafe { System.alloc(layout) };
        if piece.is_null() { take(layout) } else { piece }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract; there is room for as many bytes.
        unsafe {
            let mut piece = System.alloc_zeroed(layout);
            if piece.is_null() {
                piece = take(layout);
                if !piece.is_null() {
                    piece.write_bytes(0, layout.size());
                }
            }
            piece
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if is_ours(piece) {
            give_back();
        } else {
            // SAFETY: the caller's contract.
            unsafe { System.dealloc(piece, layout) }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract; what is copied is there on both sides.
        unsafe {
            if !is_ours(piece) {
                let moved = System.realloc(piece, layout, size);
                if !moved.is_null() {
                    return moved;
                }
            }
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(piece, moved, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_apart_and_all_come_back() {
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        let first = take(layout(3, 1));
        let second = take(layout(8, 8));
        assert_eq!(second as usize - first as usize, 8);
        assert!(is_ours(first) && is_ours(second) && !is_ours(ptr::from_mut(&mut 0u8)));
        assert!(take(layout(SMALL + 1, 1)).is_null());
        let mut pieces = 2;
        while !take(layout(SMALL, 8)).is_null() {
            pieces += 1;
        }
        assert!(pieces > SIZE / SMALL / 2);
        for _ in 0..pieces {
            give_back();
        }
        assert_eq!((USED.load(Relaxed), PIECES.load(Relaxed)), (0, 0));
    }
}
