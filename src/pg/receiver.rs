//! The executor's rows on their way out: a DestReceiver that calls functions of ours. Raw.

use super::tuples::Shape;
use core::ffi::c_int;
use core::ptr;
use pgrx::pg_sys::{self, CommandDest, DestReceiver, TupleDesc, TupleTableSlot};

/// A row as the executor hands it out.
pub type RowSlot = *mut TupleTableSlot;

/// What is called with a statement's rows. The functions run within the executor and must not own anything when they call
/// PostgreSQL, nor panic.
pub struct Receiver {
    pub start: fn(Shape),
    pub row: fn(RowSlot),
    pub finish: fn(),
}

#[repr(C)]
struct Adapter {
    base: DestReceiver,
    to: &'static Receiver,
}

/// Where a statement's rows go.
#[derive(Clone, Copy)]
pub struct Destination(pub(super) *mut DestReceiver);

/// To nowhere.
pub fn nowhere() -> Destination {
    // SAFETY: a static of PostgreSQL's.
    Destination(unsafe { pg_sys::None_Receiver })
}

/// To `receiver`; allocated in the current memory context.
pub fn to(receiver: &'static Receiver) -> Destination {
    // SAFETY: the adapter begins with the base struct, as PostgreSQL's own receivers do.
    unsafe {
        let adapter = super::raw::palloc0(size_of::<Adapter>()).cast::<Adapter>();
        (*adapter).base.receiveSlot = Some(receive);
        (*adapter).base.rStartup = Some(startup);
        (*adapter).base.rShutdown = Some(shutdown);
        (*adapter).base.rDestroy = Some(destroy);
        (*adapter).base.mydest = CommandDest::DestTuplestore;
        ptr::write(&raw mut (*adapter).to, receiver);
        Destination(adapter.cast())
    }
}

unsafe fn target(receiver: *mut DestReceiver) -> &'static Receiver {
    // SAFETY: only adapters made in `to` have these callbacks.
    unsafe { (*receiver.cast::<Adapter>()).to }
}

unsafe extern "C-unwind" fn startup(receiver: *mut DestReceiver, _operation: c_int, desc: TupleDesc) {
    // SAFETY: see `target`; the descriptor lives as long as the statement.
    unsafe { (target(receiver).start)(Shape::new(desc)) }
}

unsafe extern "C-unwind" fn receive(slot: *mut TupleTableSlot, receiver: *mut DestReceiver) -> bool {
    // SAFETY: see `target`.
    unsafe { (target(receiver).row)(slot) };
    true
}

unsafe extern "C-unwind" fn shutdown(receiver: *mut DestReceiver) {
    // SAFETY: see `target`.
    unsafe { (target(receiver).finish)() }
}

unsafe extern "C-unwind" fn destroy(_receiver: *mut DestReceiver) {}
