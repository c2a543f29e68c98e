//! The executor's rows on their way out: a DestReceiver that calls functions of ours.

use crate::pg::raw::Raw;
use crate::pg::value::tuple::Shape;
use core::ffi::c_int;
use core::ptr;
use pgrx::pg_sys::{self, CommandDest, DestReceiver, TupleDesc, TupleTableSlot};

/// A row as the executor hands it out.
pub type RowSlot = *mut TupleTableSlot;

/// What is called with a statement's rows. The functions run within the executor and must not own anything when they call
/// PostgreSQL, nor panic.
///
/// It is a static. PostgreSQL holds on to the receiver until a statement is over, and a CALL with output parameters may commit
/// before its row comes: whatever lies in the transaction's memory is gone by then.
#[repr(C)]
pub struct Receiver {
    base: DestReceiver,
    start: fn(Raw, Shape),
    row: fn(Raw, RowSlot),
    finish: fn(Raw),
}

// SAFETY: nobody writes to it, PostgreSQL neither.
unsafe impl Sync for Receiver {}

impl Receiver {
    /// Calls `start` before the first row, `row` with each, and `finish` after the last.
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

/// Where a statement's rows go.
#[derive(Clone, Copy)]
pub struct Destination(pub(in crate::pg) *mut DestReceiver);

/// To nowhere.
pub fn nowhere() -> Destination {
    // SAFETY: a static of PostgreSQL's.
    Destination(unsafe { pg_sys::None_Receiver })
}

/// To `receiver`.
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
