//! Errors: making this library's own, and catching and re-raising PostgreSQL's.

use crate::pg::digits::Digits;
use crate::pg::memory::copy_text;
use crate::pg::raw::{self, Raw};
use cee_scape::call_with_sigsetjmp;
use core::ffi::CStr;
use core::mem::{MaybeUninit, needs_drop};
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, ErrorData};

/// Errors are passed in this crate as values, and raised in the outermost frame only.
pub type Result<T> = core::result::Result<T, Failure>;

/// An error of this library: SQLSTATE, message, and optionally detail and hint.
#[derive(Debug)]
pub struct Report {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Report {
    /// Makes an error. The message is lower case and has no full stop (PostgreSQL's error message style guide).
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// Adds a DETAIL, which must be a complete sentence.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a HINT, which must be a complete sentence.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Why a function failed.
#[derive(Debug)]
pub enum Failure {
    /// An error of this library.
    Report(Box<Report>),
    /// An error that PostgreSQL raised in this process and [`catch`] kept. It is raised again as if it had not been caught.
    Caught(*mut ErrorData),
    /// An error of a job. It is raised as a new one, so that the caller's context lines are added to its own.
    OfJob(*mut ErrorData),
    /// Rust's allocator had no memory for so many bytes. Making this value allocates nothing.
    OutOfMemory(usize),
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Failure::Report(Box::new(report))
    }
}

impl Failure {
    /// Whether this is a query cancel or a timeout of this session's statement.
    pub fn is_cancel(&self) -> bool {
        matches!(self, Failure::Caught(edata) if sqlstate(*edata) == PgSqlErrorCode::ERRCODE_QUERY_CANCELED as i32)
    }
}

/// Makes an empty error of level ERROR in the current memory context.
pub fn new_error_data() -> *mut ErrorData {
    // SAFETY: palloc0 gives zeroed memory of the asked size, and an all-zero ErrorData is valid.
    unsafe {
        let edata = pg_sys::palloc0(size_of::<ErrorData>()).cast::<ErrorData>();
        (*edata).elevel = pg_sys::PGERROR as _;
        edata
    }
}

impl Report {
    fn into_error_data(self) -> *mut ErrorData {
        let edata = new_error_data();
        // SAFETY: `edata` was just made; the strings live in the same memory context.
        unsafe {
            (*edata).sqlerrcode = self.code as _;
            (*edata).message = copy_text(self.message.as_bytes());
            if let Some(detail) = &self.detail {
                (*edata).detail = copy_text(detail.as_bytes());
            }
            if let Some(hint) = &self.hint {
                (*edata).hint = copy_text(hint.as_bytes());
            }
        }
        edata
    }
}

/// An error that is known by its texts, raised as new. Guarded.
pub fn foreign(code: &[u8], message: &[u8], detail: Option<&[u8]>, hint: Option<&[u8]>) -> Failure {
    let edata = new_error_data();
    // SAFETY: as in `into_error_data`.
    unsafe {
        (*edata).sqlerrcode = crate::pg::sqlstate::pack(code);
        (*edata).message = copy_text(message);
        (*edata).detail = detail.map_or(ptr::null_mut(), copy_text);
        (*edata).hint = hint.map_or(ptr::null_mut(), copy_text);
    }
    Failure::OfJob(edata)
}

/// Makes the same error as PostgreSQL does, 53200.
fn out_of_memory(size: usize) -> *mut ErrorData {
    let edata = new_error_data();
    let mut detail = [0; 64];
    let size = Digits::of(size as u64);
    let text = [b"Failed on request of size ", size.bytes(), b"."];
    for (to, from) in detail.iter_mut().zip(text.iter().copied().flatten()) {
        *to = *from;
    }
    // SAFETY: as in `into_error_data`.
    unsafe {
        (*edata).sqlerrcode = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as _;
        (*edata).message = copy_text(b"out of memory");
        (*edata).detail = copy_text(&detail);
    }
    edata
}

/// Raises the failure as an ERROR.
pub fn throw(raw: Raw<'_>, failure: Failure) -> ! {
    let (edata, again) = match failure {
        Failure::Report(report) => (report.into_error_data(), false),
        Failure::OfJob(edata) => (edata, false),
        Failure::Caught(edata) => (edata, true),
        Failure::OutOfMemory(size) => (out_of_memory(size), false),
    };
    // SAFETY: `edata` is a palloc'd error of level ERROR, and nothing is owned here any more.
    unsafe {
        if !again {
            raw::ThrowErrorData(raw, edata);
        }
        raw::ReThrowError(raw, edata)
    }
}

/// Runs the body of a callback from PostgreSQL. A panic, which means a bug here, becomes an ERROR with XX000. A raw error jumps over it.
pub fn at_border<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: nothing is owned here when the error is raised.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(body) }
}

/// Runs `body` without a handler of this library above it, as a callback from PostgreSQL or at the beginning of a process. Not caught: an
/// error jumps to PostgreSQL's own handler, over the caller, too.
pub fn uncaught<T, F: FnOnce(Raw) -> T>(body: F) -> T {
    const { assert!(!needs_drop::<F>(), "an error jumps over what the closure owns") };
    // SAFETY: PostgreSQL has a handler; `scripts/raw-frames` examines the frames of the caller like those with the token.
    body(unsafe { Raw::assume() })
}

/// As [`at_border`], for work that PostgreSQL can do without: returns None after a panic or an error in a guarded call.
pub fn if_possible<T>(body: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).ok()
}

/// The failure with what it says in the current memory context.
pub fn moved(failure: Failure) -> Failure {
    match failure {
        Failure::Caught(edata) => {
            // SAFETY: a palloc'd error.
            let copy = catch(|raw| -> () { unsafe { raw::ReThrowError(raw, edata) } });
            Failure::Caught(copy.err().unwrap_or(edata))
        }
        failure => failure,
    }
}

/// The failure as PostgreSQL's own error, in the current memory context.
pub fn into_data(failure: Failure) -> *mut ErrorData {
    match failure {
        Failure::Caught(edata) | Failure::OfJob(edata) => edata,
        Failure::Report(report) => for_server(report.into_error_data()),
        Failure::OutOfMemory(size) => for_server(out_of_memory(size)),
    }
}

fn for_server(edata: *mut ErrorData) -> *mut ErrorData {
    // SAFETY: a palloc'd error.
    unsafe { (*edata).output_to_server = true };
    edata
}

/// Sends a message below ERROR to the receiver of this backend's messages.
pub fn emit(raw: Raw<'_>, edata: *mut ErrorData) {
    // SAFETY: a palloc'd error; the caller keeps no owned value alive (raw).
    unsafe { raw::ThrowErrorData(raw, edata) }
}

/// Emits a NOTICE, WARNING or INFO with a message and an optional detail. Guarded.
pub fn message(level: u32, code: PgSqlErrorCode, text: &str, detail: Option<&str>) {
    let edata = new_error_data();
    // SAFETY: as in `into_error_data`; the throw itself is guarded by the closure's boundary.
    unsafe {
        (*edata).elevel = level as _;
        (*edata).sqlerrcode = code as _;
        (*edata).message = copy_text(text.as_bytes());
        if let Some(detail) = detail {
            (*edata).detail = copy_text(detail.as_bytes());
        }
        pg_sys::ffi::pg_guard_ffi_boundary(|| raw::ThrowErrorData(Raw::assume(), edata));
    }
}

/// Runs `body` with a handler of its own. Returns whether it completed. Otherwise an error has jumped here, and PostgreSQL still holds it.
/// The handler, the context callbacks and the memory context are restored, as after PG_TRY (utils/elog.h).
///
/// # Safety
/// No frame between here and the place of the error owns anything. One thread only.
unsafe fn reaches_its_end(body: impl FnOnce(Raw)) -> bool {
    // SAFETY: see above.
    unsafe {
        let handler = pg_sys::PG_exception_stack;
        let callbacks = pg_sys::error_context_stack;
        let memory = pg_sys::CurrentMemoryContext;
        let jumped = call_with_sigsetjmp(false, move |buffer| {
            pg_sys::PG_exception_stack = ptr::from_ref(buffer).cast_mut().cast();
            body(Raw::assume());
            0
        });
        pg_sys::PG_exception_stack = handler;
        pg_sys::error_context_stack = callbacks;
        if jumped != 0 {
            pg_sys::CurrentMemoryContext = memory;
        }
        jumped == 0
    }
}

/// Runs `body`. Returns an error that it raised, as a copy in the memory context that was current before.
///
/// No frame between this call and the place of the error may own anything, since the jump passes over it. What the closure captures and
/// returns is checked here, and what its frames own by `scripts/raw-frames`.
///
/// The transaction is left as the error left it: the caller raises the error again or aborts. Only the lightweight locks are released at
/// once, which is also the first step of an abort. The reason is that the caller frees shared memory when it returns, and may need the lock
/// that the error left held. So no lock may be held around the call.
///
/// While the process exits, PostgreSQL turns every error into a FATAL one, which cannot be caught. Errors of `body` are exempt from that.
pub fn catch<T, F: FnOnce(Raw) -> T>(body: F) -> core::result::Result<T, *mut ErrorData> {
    const {
        assert!(
            !needs_drop::<F>() && !needs_drop::<T>(),
            "an error jumps over what the closure owns"
        )
    };
    // SAFETY: what the closure owns was looked at; its frames have the token.
    unsafe {
        let exit = Exit::suspend();
        let mut answer = MaybeUninit::<T>::uninit();
        let target = ptr::from_mut(&mut answer);
        let done = reaches_its_end(|raw| {
            (*target).write(body(raw));
        });
        exit.resume();
        if done {
            return Ok(answer.assume_init());
        }
        raw::LWLockReleaseAll();
        Err(take_error())
    }
}

/// The fact that the process exits, suspended for a while. Owns nothing, since an error may jump over it.
#[derive(Clone, Copy)]
struct Exit {
    in_progress: bool,
    holdoff: u32,
}

impl Exit {
    unsafe fn suspend() -> Self {
        // SAFETY: plain variables of this process.
        unsafe {
            let exit = Self {
                in_progress: pg_sys::proc_exit_inprogress,
                holdoff: pg_sys::InterruptHoldoffCount,
            };
            pg_sys::proc_exit_inprogress = false;
            exit
        }
    }

    /// Restores what `proc_exit_prepare` of storage/ipc/ipc.c has set: no interrupt is processed any more.
    unsafe fn resume(self) {
        // SAFETY: plain variables of this process.
        unsafe {
            if self.in_progress {
                pg_sys::proc_exit_inprogress = true;
                pg_sys::InterruptHoldoffCount = self.holdoff;
                ptr::write_volatile(&raw mut pg_sys::ProcDiePending, 0);
                ptr::write_volatile(&raw mut pg_sys::QueryCancelPending, 0);
                ptr::write_volatile(&raw mut pg_sys::InterruptPending, 0);
            }
        }
    }
}

/// Runs `body`, and returns None if it raised an error. `body` must fail only between consistent states.
///
/// The error is discarded, and everything else is as before: lightweight locks stay held, and interrupts stay held off. So this may be
/// called under a lock, while the process exits, and over live values. It must not be called while an error is being reported.
///
/// No frame within `body` may own anything, nor hold a lightweight lock of its own where it may fail.
pub fn quietly<T, F: FnOnce(Raw) -> T>(body: F) -> Option<T> {
    const {
        assert!(
            !needs_drop::<F>() && !needs_drop::<T>(),
            "an error jumps over what the closure owns"
        )
    };
    // SAFETY: as in `catch`; an error has set the three counts to zero.
    unsafe {
        let exit = Exit::suspend();
        let (on_error, cancel, critical) = (
            pg_sys::ExitOnAnyError,
            pg_sys::QueryCancelHoldoffCount,
            pg_sys::CritSectionCount,
        );
        pg_sys::ExitOnAnyError = false;
        let mut answer = MaybeUninit::<T>::uninit();
        let target = ptr::from_mut(&mut answer);
        let done = reaches_its_end(|raw| {
            // The error context callbacks may themselves need what is locked.
            pg_sys::error_context_stack = ptr::null_mut();
            (*target).write(body(raw));
        });
        pg_sys::ExitOnAnyError = on_error;
        if done {
            exit.resume();
            return Some(answer.assume_init());
        }
        pg_sys::InterruptHoldoffCount = exit.holdoff;
        pg_sys::QueryCancelHoldoffCount = cancel;
        pg_sys::CritSectionCount = critical;
        exit.resume();
        raw::FlushErrorState();
        None
    }
}

/// Returns a copy of the error that was just caught. If there is no memory for the copy, returns an out-of-memory error that needs none:
/// the caller owns things, so an error must not jump over it.
fn take_error() -> *mut ErrorData {
    static NO_MEMORY: NoMemory = NoMemory(core::cell::UnsafeCell::new(MaybeUninit::zeroed()));
    // SAFETY: as in `catch`; the copy is made in the current memory context. All-zero is a valid error, and one thread uses this one,
    // whose strings are static; what raises it copies it.
    unsafe {
        let mut edata: *mut ErrorData = ptr::null_mut();
        let target = &raw mut edata;
        let copied = reaches_its_end(|raw| target.write(raw::CopyErrorData(raw)));
        raw::FlushErrorState();
        if !copied {
            edata = NO_MEMORY.0.get().cast();
            edata.write_bytes(0, 1);
            (*edata).elevel = pg_sys::PGERROR as _;
            (*edata).output_to_server = true;
            (*edata).output_to_client = true;
            (*edata).sqlerrcode = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as _;
            (*edata).message = c"out of memory".as_ptr().cast_mut();
        }
        edata
    }
}

struct NoMemory(core::cell::UnsafeCell<MaybeUninit<ErrorData>>);

// SAFETY: PostgreSQL runs our code in one thread of each process.
unsafe impl Sync for NoMemory {}

/// [`catch`] for the session: the error becomes a [`Failure`] that [`throw`] raises again.
pub fn catching<T, F: FnOnce(Raw) -> T>(body: F) -> Result<T> {
    catch(body).map_err(Failure::Caught)
}

/// Writes a caught error to the server log only, as the main loop of a backend does.
pub fn log_caught(edata: *mut ErrorData) {
    // SAFETY: as in `catch`; EmitErrorReport finds the error that ReThrowError pushed, FlushErrorState takes it off again.
    unsafe {
        (*edata).output_to_client = false;
        let done = reaches_its_end(|raw| {
            pg_sys::error_context_stack = ptr::null_mut();
            raw::ReThrowError(raw, edata)
        });
        debug_assert!(!done);
        raw::EmitErrorReport(Raw::assume());
        raw::FlushErrorState();
    }
}

/// The SQLSTATE of a caught error in PostgreSQL's packed form.
pub fn sqlstate(edata: *mut ErrorData) -> i32 {
    // SAFETY: a palloc'd error.
    unsafe { (*edata).sqlerrcode }
}

/// The message of a caught error, which lives as long as the error.
pub fn text<'a>(edata: *mut ErrorData) -> &'a [u8] {
    // SAFETY: a palloc'd error; a message is a C string.
    unsafe {
        match (*edata).message {
            message if message.is_null() => b"",
            message => crate::pg::memory::c_bytes(message),
        }
    }
}

/// Replaces the SQLSTATE, message, detail and hint of a caught error. Context and position stay.
pub fn replace(edata: *mut ErrorData, report: Report) {
    // SAFETY: a palloc'd error; the old strings go with their memory context.
    unsafe {
        (*edata).sqlerrcode = report.code as _;
        (*edata).message = copy_text(report.message.as_bytes());
        (*edata).detail = report.detail.map_or(ptr::null_mut(), |text| copy_text(text.as_bytes()));
        (*edata).hint = report.hint.map_or(ptr::null_mut(), |text| copy_text(text.as_bytes()));
    }
}

/// The size of the buffer for a message of [`raise_raw`].
const RAW_MESSAGE: usize = 320;

/// Raises an error where nothing may be owned. The message is assembled from pieces in a buffer in the frame.
pub fn raise_raw(raw: Raw<'_>, code: PgSqlErrorCode, message: &[&[u8]], hint: Option<&'static CStr>) -> ! {
    let mut text = [0u8; RAW_MESSAGE];
    for (to, from) in text
        .iter_mut()
        .take(RAW_MESSAGE - 1)
        .zip(message.iter().copied().flatten())
    {
        *to = *from;
    }
    // SAFETY: an error that lives in this frame, as its strings do where they are not static; ThrowErrorData copies them. Not in
    // the current memory context: while a message is being sent that is the error context, which a second error resets.
    // All-zero is a valid ErrorData. Nothing is owned here.
    unsafe {
        let mut edata: ErrorData = core::mem::zeroed();
        edata.elevel = pg_sys::PGERROR as _;
        edata.sqlerrcode = code as _;
        edata.message = text.as_mut_ptr().cast();
        edata.hint = hint.map_or(ptr::null_mut(), |text| text.as_ptr().cast_mut());
        raw::ThrowErrorData(raw, &raw mut edata);
        raw::ReThrowError(raw, &raw mut edata)
    }
}

/// Sends a message of this level, raw. Owns nothing.
pub fn emit_raw(raw: Raw<'_>, level: u32, code: PgSqlErrorCode, message: &'static CStr) {
    // SAFETY: as in `raise_raw`.
    unsafe {
        let edata = raw::palloc0(raw, size_of::<ErrorData>()).cast::<ErrorData>();
        (*edata).elevel = level as _;
        (*edata).sqlerrcode = code as _;
        (*edata).message = message.as_ptr().cast_mut();
        raw::ThrowErrorData(raw, edata);
        raw::pfree(raw, edata.cast());
    }
}

/// Whether PostgreSQL raised this error because of a cancel request. A timeout does not count, nor does an error of the same SQLSTATE that
/// SQL raised.
pub fn is_user_cancel(edata: *mut ErrorData) -> bool {
    // SAFETY: a palloc'd error; the message identifier is NULL or static text of the server, never translated.
    unsafe {
        !(*edata).message_id.is_null()
            && CStr::from_ptr((*edata).message_id) == c"canceling statement due to user request"
    }
}

#[cfg(test)]
mod tests {
    use super::if_possible;

    #[test]
    fn a_panic_where_it_can_be_done_without() {
        assert_eq!(if_possible(|| 1), Some(1));
        assert_eq!(if_possible::<i32>(|| panic!("meant")), None);
        assert_eq!(if_possible::<i32>(|| std::panic::panic_any(2)), None);
    }
}
