//! Errors: how ours are made, how PostgreSQL's are caught whole and raised again.

use crate::pg::digits::Digits;
use crate::pg::memory::copy_text;
use crate::pg::raw::{self, Raw};
use cee_scape::call_with_sigsetjmp;
use core::ffi::CStr;
use core::mem::{MaybeUninit, needs_drop};
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, ErrorData};

/// What goes wrong in this crate travels as a value and is raised in the outermost frame only.
pub type Result<T> = core::result::Result<T, Failure>;

/// An error of our own: SQLSTATE, message, and where they help detail and hint.
#[derive(Debug)]
pub struct Report {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Report {
    /// A new error; the message is lower case and has no full stop (PostgreSQL's error message style guide).
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// Adds a DETAIL, a whole sentence.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a HINT, a whole sentence.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Why a function could not give its answer.
#[derive(Debug)]
pub enum Failure {
    /// An error of our own.
    Report(Box<Report>),
    /// An error that PostgreSQL raised here and [`catch`] kept: it goes on as if it had never been stopped.
    Caught(*mut ErrorData),
    /// An error that came from elsewhere (a job's): raised as new, so that the caller's context lines are added to its own.
    Foreign(*mut ErrorData),
    /// Rust's allocator had no memory for so many bytes. What makes this allocates nothing.
    OutOfMemory(usize),
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Failure::Report(Box::new(report))
    }
}

impl Failure {
    /// Whether somebody, or a time limit, wants this session's statement to end.
    pub fn is_cancel(&self) -> bool {
        matches!(self, Failure::Caught(edata) if sqlstate(*edata) == PgSqlErrorCode::ERRCODE_QUERY_CANCELED as i32)
    }
}

/// An empty error of the level ERROR in the current memory context.
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
    Failure::Foreign(edata)
}

/// As PostgreSQL's own: 53200.
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

/// Raises the failure as PostgreSQL's ERROR.
pub fn throw(raw: Raw<'_>, failure: Failure) -> ! {
    let (edata, again) = match failure {
        Failure::Report(report) => (report.into_error_data(), false),
        Failure::Foreign(edata) => (edata, false),
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

/// Runs what PostgreSQL calls back. A panic, which means a bug here, becomes an ERROR with XX000; a raw error jumps over.
pub fn at_border<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: nothing is owned here when the error is raised.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(body) }
}

/// Runs what PostgreSQL calls, or what a process begins with, where no handler of ours is above: an error jumps to PostgreSQL's own, over
/// the caller, too.
pub fn uncaught<T, F: FnOnce(Raw) -> T>(body: F) -> T {
    const { assert!(!needs_drop::<F>(), "an error jumps over what the closure owns") };
    // SAFETY: PostgreSQL has a handler; the frames of whoever calls this are looked at as those with the token are.
    body(unsafe { Raw::assume() })
}

/// The same where PostgreSQL can go on without it: a panic gives None, and so does an error in a guarded call.
pub fn if_possible<T>(body: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).ok()
}

/// Sends a message below ERROR to whoever receives this backend's messages.
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

/// Runs `body` with a handler of its own. Returns whether it came to its end; else an error has jumped here, and PostgreSQL still holds
/// it. The handler, the context callbacks and the memory context are those of before, as after PG_TRY (utils/elog.h).
///
/// # Safety
/// Nothing between here and the place of the error owns anything. One thread only.
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

/// Runs `body`, and gives back an error that it raised as a copy in the memory context that was current before.
///
/// Nothing between this call and the place of the error owns anything: the jump passes over it. What the closure captures and returns
/// is checked here, what its frames own by `scripts/raw-frames`.
///
/// The transaction is left as the error left it; the caller raises the error again or aborts. Only the lightweight locks are released at
/// once, as an abort does first of all: on its way out the caller gives back shared memory, for which it may need the very lock that the
/// error left behind. So no lock may be held around the call.
///
/// While the process ends PostgreSQL makes every error a FATAL one, which nobody can catch; what is called here is an exception.
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

/// That the process ends, forgotten for a while. Owns nothing, since an error may jump over it.
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

    /// As `proc_exit_prepare` of storage/ipc/ipc.c has left it: no interrupt is served any more.
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

/// Runs `body`, which fails between two states that are both whole, and gives None where it raised an error. The error is
/// forgotten, and all else is as before: lightweight locks stay held, interrupts stay held off. So it may be called under a lock,
/// while the process ends, and over live values; not where an error is being reported.
///
/// Nothing within `body` may own anything, nor hold a lightweight lock of its own where it may fail.
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
            // What says where an error was raised may itself need what is locked.
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

/// The error that was just caught, as a copy. Where memory is out for that, it is that error instead, which needs none: the caller owns
/// things, and must not be jumped over.
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

/// [`catch`] for the session's side: the error becomes a [`Failure`] that [`throw`] lets go on.
pub fn catching<T, F: FnOnce(Raw) -> T>(body: F) -> Result<T> {
    catch(body).map_err(Failure::Caught)
}

/// Writes a caught error to the server log, and to nobody else, as the main loop of a backend does.
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

/// Gives a caught error another SQLSTATE, message, detail and hint; context and position stay.
pub fn replace(edata: *mut ErrorData, report: Report) {
    // SAFETY: a palloc'd error; the old strings go with their memory context.
    unsafe {
        (*edata).sqlerrcode = report.code as _;
        (*edata).message = copy_text(report.message.as_bytes());
        (*edata).detail = report.detail.map_or(ptr::null_mut(), |text| copy_text(text.as_bytes()));
        (*edata).hint = report.hint.map_or(ptr::null_mut(), |text| copy_text(text.as_bytes()));
    }
}

/// The most that [`raise_raw`] takes of a message.
const RAW_MESSAGE: usize = 320;

/// Raises an error where nothing may be owned: the message is put together from pieces in a buffer of the frame.
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

/// Sends a message below ERROR.
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

/// Whether PostgreSQL raised this error because somebody asked the process to end its statement; not a timeout, nor an error
/// of the same SQLSTATE that SQL raised.
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
