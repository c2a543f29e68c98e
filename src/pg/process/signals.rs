//! Signals, interrupts and timers of this process.

use crate::pg::compat;
use crate::pg::error::{self, Result};
use crate::pg::process::backend::{my_pid, send_interrupt};
use crate::pg::raw::{self, Raw};
use core::ptr;
use pgrx::pg_sys;

/// `CHECK_FOR_INTERRUPTS`, whose error comes back as a failure.
pub fn check_for_interrupts() -> Result<()> {
    error::catching(check_for_interrupts_raw)
}

/// `CHECK_FOR_INTERRUPTS`.
pub fn check_for_interrupts_raw(raw: Raw<'_>) {
    // SAFETY: InterruptPending is set by signal handlers, so it is read anew each time.
    unsafe {
        if ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0 {
            raw::ProcessInterrupts(raw);
        }
    }
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
    unsafe { raw::getppid() };
}

/// Sends SIGINT to this very process. Callable in a signal handler.
pub fn interrupt_self() {
    send_interrupt(my_pid());
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
pub fn serve_interrupts_when_idle(raw: Raw<'_>) {
    clear_pending_cancel();
    check_for_interrupts_raw(raw);
    // SAFETY: set by a signal handler; no transaction runs.
    unsafe {
        if ptr::read_volatile(&raw const pg_sys::catchupInterruptPending) != 0 {
            raw::ProcessCatchupInterrupt(raw);
        }
    }
}

/// Lets signals in, with SIGTERM ending a running statement as in a client's backend. SIGINT has StatementCancelHandler already.
pub fn accept_signals() {
    compat::handle_signal(raw::SIGHUP, compat::SignalHandlerForConfigReload);
    compat::handle_signal(raw::SIGTERM, compat::die);
    // SAFETY: the handlers are in place; signals were blocked since the start of the process.
    unsafe { raw::BackgroundWorkerUnblockSignals() }
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
