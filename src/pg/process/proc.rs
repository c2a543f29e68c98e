//! Processes: this one and others, latches, signals, interrupts, timers, background workers and identities.

use crate::pg::error::{self, Report, Result};
use crate::pg::{compat, raw};
use core::cell::{Cell, RefCell};
use core::ffi::{CStr, c_int, c_long};
use core::ptr;
use core::time::Duration;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, BackgroundWorkerHandle, BgwHandleStatus, Datum, Oid};
use std::time::Instant;

// signal.h, unistd.h, sched.h, stdlib.h
unsafe extern "C" {
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn getppid() -> c_int;
    fn sched_yield() -> c_int;
    fn atexit(handler: extern "C" fn()) -> c_int;
    fn _exit(code: c_int) -> !;
}

const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

/// This process.
pub fn my_pid() -> i32 {
    // SAFETY: set at the start of every process.
    unsafe { pg_sys::MyProcPid }
}

/// This process's place in the array of all, by which others find its latch.
pub fn my_procno() -> u32 {
    // SAFETY: MyProc points into allProcs in every process that runs our code.
    unsafe { pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs) as u32 }
}

/// The database of this process.
pub fn my_database() -> Oid {
    // SAFETY: a plain variable.
    unsafe { pg_sys::MyDatabaseId }
}

/// Wakes the process at `procno`. If another one lives there by now it wakes for nothing, which every latch user expects.
pub fn wake(procno: u32) {
    // SAFETY: callers give numbers from `my_procno`, so they lie within the array; SetLatch raises nothing.
    unsafe { raw::SetLatch(&raw mut (*(*pg_sys::ProcGlobal).allProcs.add(procno as usize)).procLatch) }
}

/// A process, known by its place in the array of all and by its pid there. A pid alone is given out again, and says nothing of who
/// has it. Zeroed memory is [`Process::NONE`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    procno: u32,
    pid: i32,
}

impl Process {
    /// No process.
    pub const NONE: Process = Process { procno: 0, pid: 0 };

    /// The process `pid` at place `procno`.
    pub fn new(procno: u32, pid: i32) -> Self {
        Self { procno, pid }
    }

    /// This process.
    pub fn me() -> Self {
        Self::new(my_procno(), my_pid())
    }

    /// Its pid, 0 for none.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it still runs. It counts as gone when it has let go of its latch, which it does after all of its exit callbacks.
    pub fn is_alive(self) -> bool {
        self.pid != 0 && owner_of_latch(self.procno) == self.pid
    }

    /// Wakes it.
    pub fn wake(self) {
        if self.pid != 0 {
            wake(self.procno);
        }
    }

    /// Sends SIGINT, which ends its current statement, if it still runs. The caller holds the lock that the process needs to
    /// finish what is to be ended.
    pub fn interrupt(self) {
        if self.is_alive() {
            send_interrupt(self.pid);
        }
    }
}

/// How many places the array of all processes has.
pub fn count() -> usize {
    // SAFETY: set before any process of ours starts.
    unsafe { (*pg_sys::ProcGlobal).allProcCount as usize }
}

/// The process at place `procno`, 0 for none.
pub fn owner_of_latch(procno: u32) -> i32 {
    if procno as usize >= count() {
        return 0;
    }
    // SAFETY: within the array; other processes write there, and a plain word is read.
    unsafe {
        ptr::read_volatile(
            &raw const (*(*pg_sys::ProcGlobal).allProcs.add(procno as usize))
                .procLatch
                .owner_pid,
        )
    }
}

/// Forgets wake-ups so far. Look at what is waited for after this and before [`wait`].
pub fn reset_latch() {
    // SAFETY: our own latch.
    unsafe { raw::ResetLatch(pg_sys::MyLatch) }
}

/// Sleeps until somebody wakes this process, or `timeout_ms` have passed; below 0 there is no limit. Ends the process where the
/// postmaster has died. Raw.
pub fn wait_raw(timeout_ms: i64) {
    if timeout_ms == 0 || !spin() {
        sleep_raw(timeout_ms);
    }
}

/// [`wait_raw`] without the moment of [`spin`].
pub fn sleep_raw(timeout_ms: i64) {
    let timer = if timeout_ms >= 0 { pg_sys::WL_TIMEOUT } else { 0 };
    // SAFETY: our own latch.
    unsafe {
        raw::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | timer) as c_int,
            timeout_ms.max(0) as c_long,
            compat::wait_event(),
        );
    }
}

/// Whether somebody wakes this process within the next moment. Who waits like this needs no signal, and saves the time that two
/// processes take to fall asleep and to wake, which is more than a short job takes. A partner that waits for the same core gets
/// it at once.
///
/// It costs a core meanwhile. So after two moments in vain the next waits do without it, four times as many each time: a process
/// whose partner is slow, or who shares its core with others, soon sleeps at once. Not after one, for then each rest between two
/// runs of jobs would cost two of them their haste instead of one. One wait that was worth it ends the pause, or
/// two processes that have once been disturbed would go on sleeping and waking each other. The moment is longer than a partner
/// takes that has to be woken first, for the same reason, and than a commit takes on a fast disk.
///
/// Two processes that never sleep stay where they are, be it both on one core beside an idle one: a job takes them twice as long there.
/// Who is woken is put on an idle core. So when waits that were worth it have taken so long together, one does without it.
pub fn spin() -> bool {
    const MOMENT: Duration = Duration::from_micros(250);
    const LONGEST_PAUSE: u32 = 256;
    const LONGEST_HASTE: Duration = Duration::from_millis(10);
    thread_local! {
        /// How many waits are still to do without it, and how many will be after the next one in vain.
        static SKIP: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
        /// How long those took that were worth it, since one did without.
        static HASTE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }
    let (left, pause) = SKIP.get();
    if left > 0 {
        SKIP.set((left - 1, pause));
        HASTE.set(Duration::ZERO);
        return false;
    }
    let began = Instant::now();
    loop {
        for _ in 0..8 {
            if is_awake() {
                let haste = HASTE.get() + began.elapsed();
                HASTE.set(haste);
                SKIP.set((u32::from(haste >= LONGEST_HASTE), pause / 4));
                return true;
            }
            core::hint::spin_loop();
        }
        if began.elapsed() > MOMENT {
            SKIP.set((pause, (pause * 4).clamp(1, LONGEST_PAUSE)));
            return false;
        }
        // SAFETY: has no memory effects.
        unsafe { sched_yield() };
    }
}

/// Whether there is something to look at for this process: its latch, or an interrupt.
fn is_awake() -> bool {
    // SAFETY: our own latch and flag, which other processes and signal handlers set.
    unsafe {
        ptr::read_volatile(&raw const (*pg_sys::MyLatch).is_set) != 0
            || ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0
    }
}

/// [`wait_raw`] and then the interrupts, whose error comes back as a failure.
pub fn wait(timeout_ms: i64) -> Result<()> {
    error::catching(|| {
        wait_raw(timeout_ms);
        check_for_interrupts_raw();
    })
}

/// `CHECK_FOR_INTERRUPTS`, whose error comes back as a failure.
pub fn check_for_interrupts() -> Result<()> {
    error::catching(check_for_interrupts_raw)
}

/// `CHECK_FOR_INTERRUPTS`. Raw.
pub fn check_for_interrupts_raw() {
    // SAFETY: InterruptPending is set by signal handlers, so it is read anew each time.
    unsafe {
        if ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0 {
            raw::ProcessInterrupts();
        }
    }
}

/// Whether the current transaction has changed anything that others would see after its commit: it has a number then.
pub fn transaction_has_written() -> bool {
    // SAFETY: reads this process's own state.
    unsafe { raw::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// Whether interrupts must wait: within critical sections and while a lightweight lock is held.
pub fn interrupts_held() -> bool {
    // SAFETY: plain reads.
    unsafe { pg_sys::InterruptHoldoffCount > 0 || pg_sys::CritSectionCount > 0 }
}

/// Forgets a query cancel that has not been served, and that a transaction has taken too long.
pub fn clear_pending_cancel() {
    // SAFETY: as PostgresMain does it when a command is over.
    unsafe { ptr::write_volatile(&raw mut pg_sys::QueryCancelPending, 0) }
    compat::forget_transaction_timeout();
}

/// Whether somebody has asked this process to end its statement.
pub fn cancel_is_pending() -> bool {
    // SAFETY: set by a signal handler.
    unsafe { ptr::read_volatile(&raw const pg_sys::QueryCancelPending) != 0 }
}

/// Lets signals come in that other processes have sent: they are delivered at the latest when this one returns from the kernel.
pub fn receive_signals() {
    // SAFETY: has no effects.
    unsafe { getppid() };
}

/// Sends SIGINT to this very process. Callable in a signal handler.
pub fn interrupt_self() {
    send_interrupt(my_pid());
}

fn send_interrupt(pid: i32) {
    // SAFETY: kill has no memory effects.
    unsafe { kill(pid, SIGINT) };
}

/// Whether there is a process with this pid, be it one that has ended and that its parent has not looked after.
pub fn exists(pid: i32) -> bool {
    // SAFETY: no signal is sent.
    unsafe { kill(pid, 0) == 0 }
}

/// Microseconds since 2000-01-01, as a `timestamptz` counts.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { raw::GetCurrentTimestamp() }
}

/// A non-zero number that nobody can guess. XX000 where the system has no randomness to give. They are fetched many at a time.
pub fn strong_random() -> Result<u64> {
    thread_local! {
        static STORE: RefCell<([u64; 64], usize)> = const { RefCell::new(([0; 64], 0)) };
    }
    STORE.with_borrow_mut(|(numbers, left)| {
        loop {
            if *left == 0 {
                // SAFETY: the array is writable.
                if !unsafe { pg_sys::pg_strong_random(numbers.as_mut_ptr().cast(), size_of_val(numbers)) } {
                    return Err(Report::new(
                        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                        "could not generate a random number",
                    )
                    .into());
                }
                *left = numbers.len();
            }
            *left -= 1;
            let number = core::mem::take(&mut numbers[*left]);
            if number != 0 {
                return Ok(number);
            }
        }
    })
}

/// Calls `callback` when this process ends, before it leaves shared memory. Later registrations run earlier.
pub fn on_exit(callback: unsafe extern "C-unwind" fn(c_int, Datum)) {
    // SAFETY: the function lives as long as the process. Guarded.
    unsafe { pg_sys::before_shmem_exit(Some(callback), Datum::from(0usize)) }
}

/// Ends this process without the exit handlers that libraries had registered before it was forked, once PostgreSQL's own callbacks
/// are through. Called once.
///
/// Those handlers take the state of libraries apart which the postmaster has set up, OpenSSL's above all; in a forked process that
/// costs more than a short job. Handlers that were registered since, by a library that the job has loaded, run as ever: the
/// last registered runs first.
pub fn skip_inherited_exit_handlers() {
    thread_local! {
        /// The exit code, when the callbacks of PostgreSQL have been called.
        static THROUGH: Cell<Option<c_int>> = const { Cell::new(None) };
    }
    unsafe extern "C-unwind" fn through(code: c_int, _argument: Datum) {
        THROUGH.set(Some(code));
    }
    extern "C" fn leave() {
        // A library that calls exit by itself is not through: PostgreSQL's own handler is among those that were registered before.
        if let Some(code) = THROUGH.get() {
            // SAFETY: does not return.
            unsafe { _exit(code) }
        }
    }
    // SAFETY: both functions live as long as the process.
    unsafe {
        pg_sys::on_proc_exit(Some(through), Datum::from(0usize));
        atexit(leave);
    }
}

/// A background worker that was asked for, as every process may know it: `BackgroundWorkerHandle` of postmaster/bgworker.c, a slot
/// of the postmaster's and how many times that has been used.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    slot: c_int,
    generation: u64,
}

/// What the postmaster knows of a worker.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub enum WorkerStatus {
    NotYetStarted,
    /// It runs under this PID.
    Running(i32),
    Stopped,
}

/// The number of this build.
fn build() -> u64 {
    env!("PG_BACKGROUND_BUILD").parse().unwrap_or(0)
}

/// Asks the postmaster for a worker that runs `function` of this library with `argument` and `extra`; None where no slot is
/// free. This process's latch is set when the worker starts and when it stops. Guarded.
pub fn register_worker(function: &CStr, argument: u32, extra: u64) -> Option<Registered> {
    let mut worker = pg_sys::BackgroundWorker::default();
    fill(&mut worker.bgw_name, c"pg_background");
    fill(&mut worker.bgw_type, c"pg_background");
    fill(&mut worker.bgw_library_name, c"pg_background");
    fill(&mut worker.bgw_function_name, function);
    worker.bgw_flags = (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as _;
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_ConsistentState;
    worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
    worker.bgw_main_arg = Datum::from(argument);
    worker.bgw_notify_pid = my_pid();
    for (to, from) in worker
        .bgw_extra
        .iter_mut()
        .zip(extra.to_ne_bytes().into_iter().chain(build().to_ne_bytes()))
    {
        *to = from as _;
    }
    let mut handle = ptr::null_mut();
    // SAFETY: all fields are set. The handle is a palloc'd struct of the two fields, copied and freed.
    unsafe {
        pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle).then(|| {
            let registered = *handle.cast::<Registered>();
            pg_sys::pfree(handle.cast());
            registered
        })
    }
}

fn fill<const N: usize>(to: &mut [core::ffi::c_char; N], from: &CStr) {
    for (to, from) in to.iter_mut().zip(from.to_bytes_with_nul()) {
        *to = *from as _;
    }
}

impl Registered {
    /// No worker yet.
    pub const NONE: Registered = Registered {
        slot: -1,
        generation: 0,
    };

    /// Whether the worker runs. [`WorkerStatus::NotYetStarted`] for [`Registered::NONE`].
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

/// Whether this process is a worker that [`register_worker`] asked for.
pub fn is_job_worker() -> bool {
    // SAFETY: NULL or the entry that this process was started for.
    unsafe {
        let entry = pg_sys::MyBgworkerEntry;
        !entry.is_null() && CStr::from_ptr((*entry).bgw_library_name.as_ptr()) == c"pg_background"
    }
}

/// The two values that [`register_worker`] gave to this worker. 55000 where they come from another build of this library: the
/// session has the one that was installed before.
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

/// Whether this process was told to read its configuration again, or to end.
pub fn is_to_go() -> bool {
    // SAFETY: set by signal handlers.
    unsafe {
        ptr::read_volatile(&raw const pg_sys::ConfigReloadPending) != 0
            || ptr::read_volatile(&raw const pg_sys::ProcDiePending) != 0
    }
}

/// Whether this process was told to end because the server stops, and not by somebody who means this process. The postmaster
/// writes to its file that it stops before it tells anybody.
pub fn server_stops() -> bool {
    /// `LOCK_FILE_LINE_PM_STATUS` of `utils/pidfile.h`.
    const LINE: usize = 8;
    // PM_STATUS_STOPPING of the same header, without what fills it up.
    const STOPPING: &[u8] = b"stopping";
    // SAFETY: set by a signal handler.
    let is_told = unsafe { ptr::read_volatile(&raw const pg_sys::ProcDiePending) != 0 };
    // A backend's working directory is the data directory.
    is_told
        && std::fs::read("postmaster.pid").is_ok_and(|text| {
            let mut lines = text.split(|byte| *byte == b'\n');
            lines.nth(LINE - 1).is_some_and(|line| line.trim_ascii() == STOPPING)
        })
}

/// Serves the interrupts of a process that has nothing to do, as ProcessClientReadInterrupt does it for a backend that waits for
/// its client: a cancel means nothing.
pub fn serve_interrupts_when_idle() {
    clear_pending_cancel();
    check_for_interrupts_raw();
    // SAFETY: set by a signal handler; no transaction runs.
    unsafe {
        if ptr::read_volatile(&raw const pg_sys::catchupInterruptPending) != 0 {
            raw::ProcessCatchupInterrupt();
        }
    }
}

/// Lets signals in, with SIGTERM ending a running statement as in a client's backend. SIGINT has StatementCancelHandler already.
pub fn accept_signals() {
    compat::handle_signal(SIGHUP, compat::SignalHandlerForConfigReload);
    compat::handle_signal(SIGTERM, compat::die);
    // SAFETY: the handlers are in place; signals were blocked since the start of the process.
    unsafe { raw::BackgroundWorkerUnblockSignals() }
}

/// Opens the database for this worker as the role, as for a new connection: 28000, 55000 and their like end the process. Raw.
pub fn connect(database: Oid, role: Oid) {
    // SAFETY: a background worker that asked for a database connection, called once.
    unsafe { raw::BackgroundWorkerInitializeConnectionByOid(database, role, 0) }
}

/// Lets no interrupt be served from here to [`resume_interrupts`]. Between statements, where nobody else holds them. An error undoes it.
pub fn hold_interrupts() {
    // SAFETY: a plain variable.
    unsafe { pg_sys::InterruptHoldoffCount = 1 }
}

/// Lets interrupts be served again.
pub fn resume_interrupts() {
    // SAFETY: a plain variable.
    unsafe { pg_sys::InterruptHoldoffCount = 0 }
}

/// Who the current statement acts for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Identity {
    pub authenticated: u32,
    pub session: u32,
    pub outer: u32,
    pub current: u32,
    pub role: u32,
    pub security_context: i32,
    pub session_is_superuser: bool,
    pub outer_is_superuser: bool,
}

/// The identity of this process now. Guarded.
pub fn identity() -> Identity {
    let mut current = Oid::INVALID;
    let mut security_context = 0;
    // SAFETY: plain reads of this backend's state; superuser_arg looks into the catalog.
    unsafe {
        raw::GetUserIdAndSecContext(&mut current, &mut security_context);
        if crate::pg::guc::own::roles_are_locked() {
            // What is launched from here must not become the caller either.
            security_context |= pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int;
        }
        let (session, outer) = (raw::GetSessionUserId(), raw::GetOuterUserId());
        let session_is_superuser = pg_sys::superuser_arg(session);
        Identity {
            authenticated: raw::GetAuthenticatedUserId().to_u32(),
            session: session.to_u32(),
            outer: outer.to_u32(),
            current: current.to_u32(),
            role: raw::GetCurrentRoleId().to_u32(),
            security_context,
            session_is_superuser,
            outer_is_superuser: if outer == session {
                session_is_superuser
            } else {
                pg_sys::superuser_arg(outer)
            },
        }
    }
}

/// The session's user, the role, the current user and the security context of this process now.
pub fn acting() -> (u32, u32, u32, i32) {
    let (mut current, mut security_context) = (Oid::INVALID, 0);
    // SAFETY: plain reads of this backend's state.
    unsafe {
        raw::GetUserIdAndSecContext(&mut current, &mut security_context);
        (
            raw::GetSessionUserId().to_u32(),
            raw::GetCurrentRoleId().to_u32(),
            current.to_u32(),
            security_context,
        )
    }
}

/// The roles that SET SESSION AUTHORIZATION and SET ROLE change: another pair, and the job acts as somebody else. Raw.
pub fn roles() -> (u32, u32) {
    // SAFETY: plain reads.
    unsafe { (raw::GetSessionUserId().to_u32(), raw::GetOuterUserId().to_u32()) }
}

/// Whether something runs that may not be escaped: an index build, a refresh, ANALYZE.
pub fn in_restricted_operation() -> bool {
    // SAFETY: a plain read.
    unsafe { raw::InSecurityRestrictedOperation() }
}

/// Whether this process is a parallel worker.
pub fn is_parallel_worker() -> bool {
    // SAFETY: a plain read.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Sets who the statements of this worker act for; within a transaction, as parallel.c does it. Raw.
pub fn assume_user(identity: &Identity) {
    // SAFETY: roles by number, installed without checks, as the launching session had passed them.
    unsafe {
        raw::SetSessionAuthorization(Oid::from(identity.session), identity.session_is_superuser);
        raw::SetCurrentRoleId(Oid::from(identity.role), identity.outer_is_superuser);
    }
}

/// Acts as `user` within `context` until the end of the transaction or the next call. Raw.
pub fn set_user(user: u32, context: i32) {
    // SAFETY: plain assignment of this backend's state.
    unsafe { raw::SetUserIdAndSecContext(Oid::from(user), context) }
}

/// Undoes the one thing that an error within [`crate::pg::reuse::adopt`] would leave behind.
pub fn adoption_failed() {
    // SAFETY: a plain variable.
    unsafe { pg_sys::InitializingParallelWorker = false }
}

/// Arms `handler` to be called in a signal handler after `delay_ms`.
pub fn start_timer(id: u32, delay_ms: i32) {
    // SAFETY: the timer was registered.
    unsafe { raw::enable_timeout_after(id, delay_ms) }
}

/// Registers the timer of ours; the handler may do what signal handlers may.
pub fn register_timer(handler: unsafe extern "C-unwind" fn()) -> u32 {
    // SAFETY: timers are initialised in every background worker.
    unsafe { raw::RegisterTimeout(compat::USER_TIMEOUT, Some(handler)) }
}

/// Disarms a timer.
pub fn stop_timer(id: u32) {
    // SAFETY: the timer was registered.
    unsafe { raw::disable_timeout(id, false) }
}

/// Whether the timer runs.
pub fn timer_active(id: u32) -> bool {
    // SAFETY: the timer was registered.
    unsafe { raw::get_timeout_active(id) }
}
