//! The destination of the executor's rows: a DestReceiver that calls functions of this library.

use crate::pg::raw::Raw;
use crate::pg::value::tuple::Shape;
use core::ffi::c_int;
use core::ptr;
use pgrx::pg_sys::{self, CommandDest, DestReceiver, TupleDesc, TupleTableSlot};

/// A row as the executor passes it.
pub type RowSlot = *mut TupleTableSlot;

/// The functions that receive a statement's rows. They run within the executor. They must not own anything when they call PostgreSQL, and
/// must not panic.
///
/// It must be a static. PostgreSQL keeps the receiver until a statement is over, and a CALL with output parameters may commit before its
/// row comes, which frees the transaction's memory.
#[repr(C)]
pub struct Receiver {
    base: DestReceiver,
    start: fn(Raw, Shape),
    row: fn(Raw, RowSlot),
    finish: fn(Raw),
}

// SAFETY: it is never written, not by PostgreSQL either.
unsafe impl Sync for Receiver {}

impl Receiver {
    /// Calls `start` before the first row, `row` for each, and `finish` after the last.
    pub const fn new(start: fn(Raw, Shape), row: fn(Raw, RowSlot), finish: fn(Raw)) -> Self {
        Self {
            base: DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(startup),
                rShutdown: Some(shutdown),
                rDestroy: Some(destroy),
                mydest: CommandDest::DestTuplestore,
            },
            start,
            row,
            finish,
        }
    }
}

/// The destination of a statement's rows.
#[derive(Clone, Copy)]
pub struct Destination(pub(in crate::pg) *mut DestReceiver);

/// Discards the rows.
pub fn nowhere() -> Destination {
    // SAFETY: a static of PostgreSQL's.
    Destination(unsafe { pg_sys::None_Receiver })
}

/// Sends the rows to `receiver`.
pub fn to(receiver: &'static Receiver) -> Destination {
    Destination(ptr::from_ref(receiver).cast_mut().cast())
}

unsafe fn target(receiver: *mut DestReceiver) -> &'static Receiver {
    // SAFETY: only a `Receiver`, which begins with the base struct, has these callbacks; it is a static.
    unsafe { &*receiver.cast::<Receiver>() }
}

unsafe extern "C-unwind" fn startup(receiver: *mut DestReceiver, _operation: c_int, desc: TupleDesc) {
    // SAFETY: see `target`; the descriptor, and the memory context that is current, live as long as rows come.
    unsafe {
        let raw = Raw::assume();
        (target(receiver).start)(raw, Shape::new(raw, desc));
    }
}

unsafe extern "C-unwind" fn receive(slot: *mut TupleTableSlot, receiver: *mut DestReceiver) -> bool {
    // SAFETY: see `target`.
    unsafe { (target(receiver).row)(Raw::assume(), slot) };
    true
}

unsafe extern "C-unwind" fn shutdown(receiver: *mut DestReceiver) {
    // SAFETY: see `target`.
    unsafe { (target(receiver).finish)(Raw::assume()) }
}

unsafe extern "C-unwind" fn destroy(_receiver: *mut DestReceiver) {}
