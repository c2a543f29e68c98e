//! Background workers: registering them with the postmaster, and running as one.

use crate::pg::error::{Report, Result};
use crate::pg::process::backend::my_pid;
use crate::pg::raw::{self, Raw, may_raise};
use core::cell::Cell;
use core::ffi::{CStr, c_int};
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, BackgroundWorkerHandle, BgwHandleStatus, Datum, Oid};

/// Registers `callback` to be called when this process exits, before it detaches from shared memory. Callbacks run in the reverse order of
/// their registration.
pub fn on_exit(callback: unsafe extern "C-unwind" fn(c_int, Datum)) {
    // SAFETY: the function lives as long as the process. Guarded.
    unsafe { pg_sys::before_shmem_exit(Some(callback), Datum::from(0usize)) }
}

/// Makes this process exit, after PostgreSQL's own callbacks, without running the exit handlers that libraries had registered before it was
/// forked. Called once.
///
/// Those handlers tear down the state that libraries set up in the postmaster, OpenSSL's in particular. In a forked process that takes
/// longer than a short job. Handlers that were registered since, by a library that the job has loaded, run as usual: the last registered
/// handler runs first.
pub fn skip_inherited_exit_handlers() {
    thread_local! {
        /// The exit code, once PostgreSQL's callbacks have been called.
        static THROUGH: Cell<Option<c_int>> = const { Cell::new(None) };
    }
    unsafe extern "C-unwind" fn through(code: c_int, _argument: Datum) {
        THROUGH.set(Some(code));
    }
    extern "C" fn leave() {
        // If a library itself calls exit, this is not set: PostgreSQL's own handler is among those that were registered before.
        if let Some(code) = THROUGH.get() {
            // SAFETY: does not return.
            unsafe { raw::_exit(code) }
        }
    }
    // SAFETY: both functions live as long as the process.
    unsafe {
        pg_sys::on_proc_exit(Some(through), Datum::from(0usize));
        raw::atexit(leave);
    }
}

/// This library, by the name that PostgreSQL finds it by. The one for tests is another engine, beside the real one.
const LIBRARY: &CStr = if cfg!(feature = "probe") {
    c"pg_background_probe"
} else {
    c"pg_background"
};

/// A background worker that was asked for, as every process may know it: `BackgroundWorkerHandle` of postmaster/bgworker.c, a slot
/// of the postmaster's and how many times that has been used.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerHandle {
    slot: c_int,
    generation: u64,
}

/// The postmaster's view of a worker.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub enum WorkerStatus {
    NotYetStarted,
    /// It runs under this pid.
    Running(i32),
    Stopped,
}

/// The number of this build.
fn build() -> u64 {
    env!("PG_BACKGROUND_BUILD").parse().unwrap_or(0)
}

/// Registers with the postmaster a worker that runs `function` of this library with `argument` and `extra`. Returns None if no slot is
/// free. The postmaster sets this process's latch when the worker starts and when it stops. Guarded.
pub fn register_worker(function: &CStr, argument: u32, extra: u64) -> Option<WorkerHandle> {
    let flags = pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION;
    register(function, argument, extra, flags, pg_sys::BGW_NEVER_RESTART)
}

/// The same for a process that never has a database.
#[cfg(feature = "probe")]
pub fn register_without_database(function: &CStr, extra: u64) -> Option<WorkerHandle> {
    register(
        function,
        0,
        extra,
        pg_sys::BGWORKER_SHMEM_ACCESS,
        pg_sys::BGW_NEVER_RESTART,
    )
}

/// The same for a process that never has a database, and that the postmaster starts again after a second if it has failed, and at once after
/// a crash of the server. It is over when its function returns.
pub fn register_server(function: &CStr) -> Option<WorkerHandle> {
    register(function, 0, 0, pg_sys::BGWORKER_SHMEM_ACCESS, 1)
}

/// The same in the postmaster, for when the server has started and does not recover.
pub fn register_at_start(raw: Raw<'_>, function: &CStr) {
    // SAFETY: a plain variable; all fields are set, and the postmaster copies them.
    unsafe {
        if pg_sys::IsBinaryUpgrade {
            return;
        }
        let mut worker = described(function, 0, 0, pg_sys::BGWORKER_SHMEM_ACCESS, 1);
        worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
        worker.bgw_notify_pid = 0;
        RegisterBackgroundWorker(raw, &mut worker);
    }
}

// postmaster/bgworker.h
may_raise! {
    fn RegisterBackgroundWorker(worker: *mut pg_sys::BackgroundWorker);
}

fn register(function: &CStr, argument: u32, extra: u64, flags: u32, restart_s: i32) -> Option<WorkerHandle> {
    let mut worker = described(function, argument, extra, flags, restart_s);
    let mut handle = ptr::null_mut();
    // SAFETY: all fields are set. The handle is a palloc'd struct of the two fields, copied and freed.
    unsafe {
        pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle).then(|| {
            let registered = *handle.cast::<WorkerHandle>();
            pg_sys::pfree(handle.cast());
            registered
        })
    }
}

fn described(function: &CStr, argument: u32, extra: u64, flags: u32, restart_s: i32) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker::default();
    fill(&mut worker.bgw_name, c"pg_background");
    fill(&mut worker.bgw_type, c"pg_background");
    fill(&mut worker.bgw_library_name, LIBRARY);
    fill(&mut worker.bgw_function_name, function);
    worker.bgw_flags = flags as _;
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_ConsistentState;
    worker.bgw_restart_time = restart_s;
    worker.bgw_main_arg = Datum::from(argument);
    worker.bgw_notify_pid = my_pid();
    for (to, from) in worker
        .bgw_extra
        .iter_mut()
        .zip(extra.to_ne_bytes().into_iter().chain(build().to_ne_bytes()))
    {
        *to = from as _;
    }
    worker
}

fn fill<const N: usize>(to: &mut [core::ffi::c_char; N], from: &CStr) {
    for (to, from) in to.iter_mut().zip(from.to_bytes_with_nul()) {
        *to = *from as _;
    }
}

impl WorkerHandle {
    /// No worker has been registered yet.
    pub const NONE: WorkerHandle = WorkerHandle {
        slot: -1,
        generation: 0,
    };

    /// Whether the worker runs. Returns [`WorkerStatus::NotYetStarted`] for [`WorkerHandle::NONE`].
    pub fn status(mut self) -> WorkerStatus {
        if self == Self::NONE {
            return WorkerStatus::NotYetStarted;
        }
        let mut pid = 0;
        let handle = (&raw mut self).cast::<BackgroundWorkerHandle>();
        // SAFETY: the two fields came from RegisterDynamicBackgroundWorker, here or in another process of this server; it looks
        // the slot up under the postmaster's lock and compares how many times it has been used.
        match unsafe { pg_sys::GetBackgroundWorkerPid(handle, &mut pid) } {
            BgwHandleStatus::BGWH_STARTED => WorkerStatus::Running(pid),
            BgwHandleStatus::BGWH_NOT_YET_STARTED => WorkerStatus::NotYetStarted,
            _ => WorkerStatus::Stopped,
        }
    }
}

/// Whether this process is a worker that [`register_worker`] registered.
pub fn is_job_worker() -> bool {
    // SAFETY: NULL or the entry that this process was started for.
    unsafe {
        let entry = pg_sys::MyBgworkerEntry;
        !entry.is_null() && CStr::from_ptr((*entry).bgw_library_name.as_ptr()) == LIBRARY
    }
}

/// Returns the two values that [`register_worker`] passed to this worker. Fails with 55000 if they come from another build of this library,
/// that is, if the session has loaded the one that was installed before.
pub fn worker_arguments(argument: Datum) -> Result<(u32, u64)> {
    let mut extra = [0u8; 16];
    // SAFETY: MyBgworkerEntry is set in a background worker.
    unsafe {
        for (to, from) in extra.iter_mut().zip((*pg_sys::MyBgworkerEntry).bgw_extra) {
            *to = from as u8;
        }
    }
    let (both, _) = extra.as_chunks::<8>();
    let [cookie, built] = [both[0], both[1]].map(u64::from_ne_bytes);
    if built != build() {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the pg_background library was replaced since the launching session loaded it",
        )
        .into());
    }
    Ok((argument.value() as u32, cookie))
}

/// Connects this worker to the database as the role, as for a new connection. Errors such as 28000 and 55000 end the process.
pub fn connect(raw: Raw<'_>, database: Oid, role: Oid) {
    // SAFETY: a background worker that asked for a database connection, called once.
    unsafe { raw::BackgroundWorkerInitializeConnectionByOid(raw, database, role, 0) }
}
