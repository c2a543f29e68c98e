//! Memory contexts.

use crate::pg::raw::{self, Raw};
use core::ffi::{CStr, c_char};
use pgrx::pg_sys::{self, MemoryContext};

/// Runs `body` in `context`. If `body` raises, the catcher of the error restores its own context.
fn within<T>(context: MemoryContext, body: impl FnOnce() -> T) -> T {
    // SAFETY: one thread; the contexts used here live as long as the process or outlive the call.
    unsafe {
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = context;
        let answer = body();
        pg_sys::CurrentMemoryContext = before;
        answer
    }
}

/// Runs `body` in the context that lives as long as the process.
pub fn for_process<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: TopMemoryContext exists in every backend.
    within(unsafe { pg_sys::TopMemoryContext }, body)
}

/// The size of the chunk that `body` allocates in the current context.
#[cfg(since_16)]
pub fn size_taken(raw: Raw<'_>, body: impl FnOnce() -> *mut core::ffi::c_void) -> usize {
    thread_local! {
        static EXACT: core::cell::Cell<MemoryContext> = const { core::cell::Cell::new(core::ptr::null_mut()) };
    }
    // SAFETY: the context lives as long as the process, and is empty before and after. Of the kinds of contexts it is one that
    // rounds up to no more than a pointer's size.
    unsafe {
        if EXACT.get().is_null() {
            EXACT.set(raw::GenerationContextCreate(
                raw,
                pg_sys::TopMemoryContext,
                c"pg_background sizes".as_ptr(),
                0,
                8 * 1024,
                8 * 1024 * 1024,
            ));
        }
        let size = within(EXACT.get(), || raw::GetMemoryChunkSpace(raw, body()));
        raw::MemoryContextReset(raw, EXACT.get());
        size
    }
}

/// A memory context of this library, below the one that lives as long as the process.
#[derive(Clone, Copy)]
pub struct Context(MemoryContext);

impl Context {
    /// Makes a child of TopMemoryContext.
    pub fn for_process(raw: Raw<'_>, name: &'static CStr) -> Self {
        // SAFETY: TopMemoryContext exists in every backend.
        Self::below(raw, unsafe { pg_sys::TopMemoryContext }, name)
    }

    /// Makes a child of the current context, which is deleted with it.
    pub fn below_current(raw: Raw<'_>) -> Self {
        // SAFETY: a plain variable.
        Self::below(raw, unsafe { pg_sys::CurrentMemoryContext }, c"pg_background row")
    }

    fn below(raw: Raw<'_>, parent: MemoryContext, name: &'static CStr) -> Self {
        // SAFETY: the parent is alive.
        Self(unsafe { new_context(raw, parent, name) })
    }

    /// Runs `body` in this context.
    pub fn enter<T>(self, body: impl FnOnce() -> T) -> T {
        within(self.0, body)
    }

    /// Frees all that was allocated here, and the context.
    pub fn delete(self, raw: Raw<'_>) {
        // SAFETY: as in `reset`.
        unsafe { raw::MemoryContextDelete(raw, self.0) }
    }

    /// Frees everything that was allocated in this context.
    pub fn reset(self, raw: Raw<'_>) {
        // SAFETY: the context is alive and nothing in use points into it (the caller's promise).
        unsafe { raw::MemoryContextReset(raw, self.0) }
    }
}

/// Makes a memory context of PostgreSQL's usual kind and sizes (`ALLOCSET_DEFAULT_SIZES`).
///
/// # Safety
/// The parent exists.
pub unsafe fn new_context(raw: Raw<'_>, parent: MemoryContext, name: &'static CStr) -> MemoryContext {
    // SAFETY: see above; the name is static.
    unsafe { raw::AllocSetContextCreateInternal(raw, parent, name.as_ptr(), 0, 8 * 1024, 8 * 1024 * 1024) }
}

/// A byte buffer in PostgreSQL's memory. A failed allocation raises an error instead of aborting the process. The buffer belongs to a
/// memory context, so it does not leak if an error jumps over it.
pub struct Buffer {
    data: *mut u8,
    capacity: usize,
    len: usize,
}

impl Buffer {
    /// Makes a buffer of `capacity` bytes in the current memory context.
    pub fn new(raw: Raw<'_>, capacity: usize) -> Self {
        // SAFETY: gives at least `capacity` bytes or raises.
        let data = unsafe { raw::MemoryContextAllocHuge(raw, pg_sys::CurrentMemoryContext, capacity.max(8)) };
        Self {
            data: data.cast(),
            capacity: capacity.max(8),
            len: 0,
        }
    }

    /// Makes a buffer in memory that it does not own: `capacity` bytes at `data`, which must exist as long as it is used.
    pub fn over(data: *mut u8, capacity: usize) -> Self {
        Self { data, capacity, len: 0 }
    }

    /// Makes an empty buffer in the first `capacity` bytes of the same memory, or in all of it if it is smaller.
    pub fn view(&self, capacity: usize) -> Self {
        Self::over(self.data, capacity.min(self.capacity))
    }

    /// The number of bytes in the buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many more bytes fit.
    pub fn room(&self) -> usize {
        self.capacity - self.len
    }

    /// How many bytes fit into the empty buffer.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Empties the buffer.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The address of the next byte to write.
    pub fn end(&mut self) -> *mut u8 {
        // SAFETY: `len` never exceeds the capacity.
        unsafe { self.data.add(self.len) }
    }

    /// The address of the first byte, aligned for any type.
    pub fn as_ptr(&self) -> *mut u8 {
        self.data
    }

    /// The bytes in the buffer.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes were written.
        unsafe { core::slice::from_raw_parts(self.data, self.len) }
    }

    /// Appends as much as fits. Returns how much that was.
    pub fn push(&mut self, bytes: *const u8, len: usize) -> usize {
        let taken = len.min(self.room());
        // SAFETY: the caller gives `len` readable bytes, and `taken` fit.
        unsafe { core::ptr::copy_nonoverlapping(bytes, self.data.add(self.len), taken) };
        self.len += taken;
        taken
    }

    /// Appends eight bytes. Returns false if they do not fit.
    #[inline]
    pub fn push_word(&mut self, word: [u8; 8]) -> bool {
        if self.room() < word.len() {
            return false;
        }
        // SAFETY: they fit.
        unsafe { self.end().cast::<[u8; 8]>().write(word) };
        self.len += word.len();
        true
    }

    /// Adds `len` bytes that were written at the end.
    pub fn advance(&mut self, len: usize) {
        debug_assert!(len <= self.room());
        self.len += len;
    }

    /// Empties the buffer and frees memory beyond `capacity` bytes. The smaller buffer is allocated in the current memory context.
    pub fn shrink(&mut self, raw: Raw<'_>, capacity: usize) {
        if self.capacity > capacity {
            let before = self.data;
            *self = Buffer::new(raw, capacity);
            // SAFETY: as in `restart`.
            unsafe { raw::pfree(raw, before.cast()) };
        }
        self.len = 0;
    }

    /// Empties the buffer and makes sure that `capacity` bytes fit.
    pub fn restart(&mut self, raw: Raw<'_>, capacity: usize) {
        if capacity > self.capacity {
            let before = self.data;
            *self = Buffer::new(raw, capacity.max(self.capacity * 2));
            // SAFETY: `before` came from the same allocator and is not used any more.
            unsafe { raw::pfree(raw, before.cast()) };
        }
        self.len = 0;
    }
}

/// The length `len` rounded up to a multiple of eight (`MAXALIGN`).
pub const fn padded(len: usize) -> usize {
    (len + 7) & !7
}

/// Copies bytes up to the first NUL into the current memory context, as a C string. Guarded.
pub fn copy_text(bytes: &[u8]) -> *mut c_char {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    // SAFETY: as much is allocated as is copied, and a NUL.
    unsafe {
        let text = pg_sys::palloc(len + 1).cast::<u8>();
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), text, len);
        text.add(len).write(0);
        text.cast()
    }
}

/// Copies bytes into the current memory context. The caller must not use them after the context is reset.
pub fn copy_bytes(raw: Raw<'_>, bytes: &[u8]) -> &'static [u8] {
    // SAFETY: as much is allocated as is copied, and nothing else writes there.
    unsafe {
        let copy = raw::palloc(raw, bytes.len()).cast::<u8>();
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        core::slice::from_raw_parts(copy, bytes.len())
    }
}

/// The bytes of a C string that outlives the use. NULL gives none.
pub fn c_bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return b"";
    }
    // SAFETY: PostgreSQL's strings are NUL-terminated; callers use them while they live.
    unsafe { CStr::from_ptr(text).to_bytes() }
}

/// Reads eight bytes at offset `at` of `len` readable ones. Returns None if there are fewer.
pub fn read_8(from: *const u8, at: usize, len: usize) -> Option<[u8; 8]> {
    if len.checked_sub(at)? < 8 {
        return None;
    }
    // SAFETY: eight bytes are there.
    Some(unsafe { from.add(at).cast::<[u8; 8]>().read() })
}

/// The bytes of a message that its reader has found complete.
pub fn view<'a>(from: *const u8, len: usize) -> &'a [u8] {
    // SAFETY: the caller keeps what holds the bytes alive and unchanged while it looks at them.
    unsafe { core::slice::from_raw_parts(from, len) }
}

/// Copies bytes up to the first NUL into the current memory context. The caller must not use them after the context is reset. Guarded.
pub fn copy_c_str(bytes: &[u8]) -> &'static CStr {
    // SAFETY: NUL-terminated.
    unsafe { CStr::from_ptr(copy_text(bytes)) }
}

/// Copies values into the current memory context, as [`copy_c_str`]. Guarded.
pub fn copy_slice<T: Copy>(values: &[T]) -> &'static [T] {
    // SAFETY: as much is allocated as is copied, aligned for any type, and nothing else writes there.
    unsafe {
        let copy = pg_sys::palloc(size_of_val(values).max(1)).cast::<T>();
        core::ptr::copy_nonoverlapping(values.as_ptr(), copy, values.len());
        core::slice::from_raw_parts(copy, values.len())
    }
}

/// Bytes in shared memory that are followed by a NUL, as a C string.
pub fn c_str(bytes: &'static [u8]) -> &'static CStr {
    if bytes.is_empty() {
        return c"";
    }
    // SAFETY: texts are stored with a NUL behind them, in memory that was zeroed.
    unsafe { CStr::from_ptr(bytes.as_ptr().cast()) }
}
