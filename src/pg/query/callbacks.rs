//! The callbacks by which PostgreSQL passes on what it would send to a client.

use crate::pg::compat;
use crate::pg::memory::{self, Context};
use crate::pg::raw::{self, Raw};
use crate::pg::value::encoding;
use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use pgrx::pg_sys::{self, ErrorContextCallback};

/// Receives the bytes of a message for the client, by kind. Errors and notices have the kinds of the protocol.
pub type MessageHandler = fn(Raw, kind: u8, body: &[u8]);

thread_local! {
    static HANDLER: Cell<Option<MessageHandler>> = const { Cell::new(None) };
    static SAID: Cell<u64> = const { Cell::new(0) };
    static NEXT_LOGGER: Cell<pg_sys::emit_log_hook_type> = const { Cell::new(None) };
}

/// Redirects the messages for the client to `handler`. It may be called at any time and in any state, so it must own nothing. Called once.
pub fn redirect_messages(raw: Raw<'_>, handler: MessageHandler) {
    HANDLER.set(Some(handler));
    // SAFETY: the hook is called in this thread; the previous hook is called too.
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
    keep_encoding(raw);
}

/// Makes PostgreSQL send messages in the database's encoding.
///
/// PostgreSQL converts a message to the client's encoding. A job's client has the session's client encoding or the one that the job sets,
/// which also affects COPY within a procedure, file_fdw and pg_client_encoding(). But the reader of the messages converts them itself, and
/// they must not fail because of characters that the client's encoding lacks. So while a message is being sent, the client encoding is that
/// of the database.
///
/// Before PostgreSQL sends a message, or jumps with an error, it calls the error context callbacks. This callback is the last of that list
/// for the life of the process: no error is caught outside of it. It sets the encoding, and [`put`] restores it.
fn keep_encoding(raw: Raw<'_>) {
    struct Last(UnsafeCell<ErrorContextCallback>);
    // SAFETY: one thread; PostgreSQL reads it only.
    unsafe impl Sync for Last {}
    static LAST: Last = Last(UnsafeCell::new(ErrorContextCallback {
        previous: ptr::null_mut(),
        callback: Some(before_message),
        arg: ptr::null_mut(),
    }));
    SCRATCH.set(Some(Context::for_process(raw, c"pg_background message")));
    // SAFETY: a static, which comes after those that are there, if any.
    unsafe {
        (*LAST.0.get()).previous = pg_sys::error_context_stack;
        pg_sys::error_context_stack = LAST.0.get();
    }
}

thread_local! {
    /// The client encoding, and how many messages are being sent in the database's encoding instead. One may be sent in the middle of
    /// another.
    static SET_ASIDE: Cell<(c_int, u32)> = const { Cell::new((0, 0)) };
    static SCRATCH: Cell<Option<Context>> = const { Cell::new(None) };
}

/// The last error context callback.
unsafe extern "C-unwind" fn before_message(_argument: *mut c_void) {
    // SAFETY: a plain read. PostgreSQL calls this, and nothing is owned here.
    let (raw, client) = unsafe { (Raw::assume(), raw::pg_get_client_encoding()) };
    let (before, on_way) = SET_ASIDE.get();
    if on_way == 0 && !encoding::differ(encoding::of_database(), client) {
        return;
    }
    let Some(scratch) = SCRATCH.get() else { return };
    // SAFETY: an error is being processed; its copy is in a context of this library, which is reset.
    let (level, goes_to_client) = scratch.enter(|| unsafe {
        let edata = raw::CopyErrorData(raw);
        ((*edata).elevel as u32, (*edata).output_to_client)
    });
    scratch.reset(raw);
    if level == pg_sys::PGERROR {
        // The jump passes over any message that was being sent.
        set_back(before, on_way);
    } else if goes_to_client {
        SET_ASIDE.set((if on_way == 0 { client } else { before }, on_way + 1));
        // SAFETY: raises nothing.
        unsafe { raw::SetClientEncoding(encoding::of_database()) };
    }
}

/// A message has been sent completely. After one that ends the process others may follow.
fn arrived(kind: u8) {
    let (client, on_way) = SET_ASIDE.get();
    match on_way {
        1 if kind == b'N' => set_back(client, on_way),
        2.. => SET_ASIDE.set((client, on_way - 1)),
        _ => (),
    }
}

/// Restores the client encoding, if it was set aside.
fn set_back(client: c_int, on_way: u32) {
    if on_way > 0 {
        SET_ASIDE.set((0, 0));
        // SAFETY: raises nothing; it was the client's encoding, so what it takes to convert is known.
        unsafe { raw::SetClientEncoding(client) };
    }
}

/// How many messages were sent since [`redirect_messages`], to the client or to the server's log.
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
    arrived(kind as u8);
    if let Some(handler) = HANDLER.get() {
        let body = if len == 0 { &[] } else { memory::view(body.cast(), len) };
        // SAFETY: PostgreSQL calls this, and nothing is owned here.
        handler(unsafe { Raw::assume() }, kind as u8, body);
    }
    0
}

unsafe extern "C-unwind" fn put_noblock(kind: c_char, body: *const c_char, len: usize) {
    // SAFETY: the same contract.
    unsafe { put(kind, body, len) };
}
