//! Where PostgreSQL calls back into a worker with what it has to say to its client.

use crate::pg::compat;
use crate::pg::memory::{self, Context};
use crate::pg::raw::{self, Raw};
use crate::pg::value::encoding;
use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use pgrx::pg_sys::{self, ErrorContextCallback};

/// The bytes of what this process was told to say to its client, by kind. The kinds that carry errors and notices are those of
/// the protocol.
pub type MessageHandler = fn(Raw, kind: u8, body: &[u8]);

thread_local! {
    static HANDLER: Cell<Option<MessageHandler>> = const { Cell::new(None) };
    static SAID: Cell<u64> = const { Cell::new(0) };
    static NEXT_LOGGER: Cell<pg_sys::emit_log_hook_type> = const { Cell::new(None) };
}

/// From now on `handler` gets the messages for the client. It may be called at any time and place, so it must own nothing. Called
/// once.
pub fn redirect_messages(raw: Raw<'_>, handler: MessageHandler) {
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
    keep_encoding(raw);
}

/// A message leaves PostgreSQL in the encoding of the client, and a job's client has the session's or the one that the job sets: COPY
/// within a procedure, file_fdw and pg_client_encoding() go by it. Messages go to a reader who converts them itself, and they must
/// not fail for words that the client's encoding lacks. So while one is on its way the client's encoding is the database's.
///
/// Before PostgreSQL sends a message, or jumps with an error, it asks for the context lines of whatever runs. We stand at the
/// very end of that list, for the life of the process: no error is caught further out. We set the encoding there, and [`put`] sets
/// it back.
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
    /// The client's encoding, and how many messages are on their way in the database's instead. One may be sent in the middle of another.
    static SET_ASIDE: Cell<(c_int, u32)> = const { Cell::new((0, 0)) };
    static SCRATCH: Cell<Option<Context>> = const { Cell::new(None) };
}

unsafe extern "C-unwind" fn before_message(_argument: *mut c_void) {
    // SAFETY: a plain read. PostgreSQL calls this, and nothing is owned here.
    let (raw, client) = unsafe { (Raw::assume(), raw::pg_get_client_encoding()) };
    let (before, on_way) = SET_ASIDE.get();
    if on_way == 0 && !encoding::differ(encoding::of_database(), client) {
        return;
    }
    let Some(scratch) = SCRATCH.get() else { return };
    // SAFETY: an error is at hand; its copy lies in a context of ours, which is emptied.
    let (level, goes_to_client) = scratch.enter(|| unsafe {
        let edata = raw::CopyErrorData(raw);
        ((*edata).elevel as u32, (*edata).output_to_client)
    });
    scratch.reset(raw);
    if level == pg_sys::PGERROR {
        // The jump passes over whatever was on its way.
        set_back(before, on_way);
    } else if goes_to_client {
        SET_ASIDE.set((if on_way == 0 { client } else { before }, on_way + 1));
        // SAFETY: raises nothing.
        unsafe { raw::SetClientEncoding(encoding::of_database()) };
    }
}

/// A message has arrived. After one that ends the process there may be more words.
fn arrived(kind: u8) {
    let (client, on_way) = SET_ASIDE.get();
    match on_way {
        1 if kind == b'N' => set_back(client, on_way),
        2.. => SET_ASIDE.set((client, on_way - 1)),
        _ => (),
    }
}

fn set_back(client: c_int, on_way: u32) {
    if on_way > 0 {
        SET_ASIDE.set((0, 0));
        // SAFETY: raises nothing; it was the client's encoding, so what it takes to convert is known.
        unsafe { raw::SetClientEncoding(client) };
    }
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
