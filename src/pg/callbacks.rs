//! Where PostgreSQL calls back into a worker with what it has to say to its client. Raw.

use super::{compat, memory, raw};
use core::cell::Cell;
use core::ffi::{c_char, c_int};
use pgrx::pg_sys;

/// The bytes of what this process was told to say to its client, by kind. The kinds that carry errors and notices are those of
/// the protocol.
pub type MessageHandler = fn(kind: u8, body: &[u8]);

thread_local! {
    static HANDLER: Cell<Option<MessageHandler>> = const { Cell::new(None) };
    static SAID: Cell<u64> = const { Cell::new(0) };
    static NEXT_LOGGER: Cell<pg_sys::emit_log_hook_type> = const { Cell::new(None) };
}

/// From now on `handler` gets the messages for the client. It may be called at any time and place, so it must own nothing. Called
/// once.
pub fn redirect_messages(handler: MessageHandler) {
    HANDLER.set(Some(handler));
    // SAFETY: the hook is called in this thread; whoever was there before is called too.
    unsafe {
        NEXT_LOGGER.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(logs);
    }
    static METHODS: raw::PQcommMethods = raw::PQcommMethods {
        comm_reset: nothing,
        flush: zero,
        flush_if_writable: zero,
        is_send_pending: no,
        putmessage: put,
        putmessage_noblock: put_noblock,
    };
    // SAFETY: the methods are static.
    unsafe { compat::redirect_messages(&raw const METHODS) }
}

/// How often something was said since [`redirect_messages`], to the client or to the server's log.
pub fn said() -> u64 {
    SAID.get()
}

unsafe extern "C-unwind" fn logs(edata: *mut pg_sys::ErrorData) {
    SAID.set(SAID.get() + 1);
    if let Some(next) = NEXT_LOGGER.get() {
        // SAFETY: it was the hook.
        unsafe { next(edata) };
    }
}

extern "C-unwind" fn nothing() {}

extern "C-unwind" fn zero() -> c_int {
    0
}

extern "C-unwind" fn no() -> bool {
    false
}

unsafe extern "C-unwind" fn put(kind: c_char, body: *const c_char, len: usize) -> c_int {
    SAID.set(SAID.get() + 1);
    if let Some(handler) = HANDLER.get() {
        let body = if len == 0 { &[] } else { memory::view(body.cast(), len) };
        handler(kind as u8, body);
    }
    0
}

unsafe extern "C-unwind" fn put_noblock(kind: c_char, body: *const c_char, len: usize) {
    // SAFETY: the same contract.
    unsafe { put(kind, body, len) };
}
