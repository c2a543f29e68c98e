//! Signals, interrupts and timers of this process.

use crate::pg::compat;
use crate::pg::error::{self, Result};
use crate::pg::process::backend::{my_pid, send_interrupt};
use crate::pg::raw::{self, Raw, may_raise};
use core::ptr;
use pgrx::pg_sys;

// utils/guc.h
may_raise! {
    fn ProcessConfigFile(context: pg_sys::GucContext::Type);
}

/// `CHECK_FOR_INTERRUPTS`, with its error returned as a failure.
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

/// Whether interrupts are held off: in critical sections and while a lightweight lock is held.
pub fn interrupts_held() -> bool {
    // SAFETY: plain reads.
    unsafe { pg_sys::InterruptHoldoffCount > 0 || pg_sys::CritSectionCount > 0 }
}

/// Discards a query cancel that has not been processed, and a transaction timeout.
pub fn clear_pending_cancel() {
    // SAFETY: as PostgresMain does it when a command is over.
    unsafe { ptr::write_volatile(&raw mut pg_sys::QueryCancelPending, 0) }
    compat::forget_transaction_timeout();
}

/// Whether a query cancel is pending.
pub fn cancel_is_pending() -> bool {
    // SAFETY: set by a signal handler.
    unsafe { ptr::read_volatile(&raw const pg_sys::QueryCancelPending) != 0 }
}

/// Lets pending signals from other processes be delivered. The kernel delivers them at the latest on return from a system call.
pub fn receive_signals() {
    // SAFETY: has no effects.
    unsafe { raw::getppid() };
}

/// Sends SIGINT to this process. May be called in a signal handler.
pub fn interrupt_self() {
    send_interrupt(my_pid());
}

/// Whether this process was told to reload its configuration, or to exit.
pub fn should_exit() -> bool {
    // SAFETY: set by signal handlers.
    unsafe {
        ptr::read_volatile(&raw const pg_sys::ConfigReloadPending) != 0
            || ptr::read_volatile(&raw const pg_sys::ProcDiePending) != 0
    }
}

/// Whether this process was told to exit because the server stops, not because of a signal to this process alone. The postmaster writes its
/// status to its pid file before it signals any process.
pub fn server_stops() -> bool {
    /// `LOCK_FILE_LINE_PM_STATUS` of `utils/pidfile.h`.
    const LINE: usize = 8;
    // PM_STATUS_STOPPING of the same header, without its padding.
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

/// Reads the configuration again where this process was told to. Guarded.
pub fn reload_configuration() -> Result<()> {
    // SAFETY: set by a signal handler; no command runs.
    error::catching(|raw| unsafe {
        if ptr::read_volatile(&raw const pg_sys::ConfigReloadPending) != 0 {
            ptr::write_volatile(&raw mut pg_sys::ConfigReloadPending, 0);
            ProcessConfigFile(raw, pg_sys::GucContext::PGC_SIGHUP);
        }
    })
}

/// Processes the interrupts of an idle process, as ProcessClientReadInterrupt does for a backend that waits for its client. A query cancel
/// is discarded.
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

/// Unblocks signals, with SIGTERM ending a running statement as in a client's backend. SIGINT has StatementCancelHandler already.
pub fn accept_signals() {
    compat::handle_signal(raw::SIGHUP, compat::SignalHandlerForConfigReload);
    compat::handle_signal(raw::SIGTERM, compat::die);
    // SAFETY: the handlers are in place; signals were blocked since the start of the process.
    unsafe { raw::BackgroundWorkerUnblockSignals() }
}

/// Holds off interrupts until [`resume_interrupts`]. Call it between statements, while nothing else holds them off. An error undoes it.
pub fn hold_interrupts() {
    // SAFETY: a plain variable.
    unsafe { pg_sys::InterruptHoldoffCount = 1 }
}

/// Allows interrupts again.
pub fn resume_interrupts() {
    // SAFETY: a plain variable.
    unsafe { pg_sys::InterruptHoldoffCount = 0 }
}

/// Arms the timer, whose handler is called in a signal handler after `delay_ms`.
pub fn start_timer(id: u32, delay_ms: i32) {
    // SAFETY: the timer was registered.
    unsafe { raw::enable_timeout_after(id, delay_ms) }
}

/// Registers a timer. The handler may do only what signal handlers may do.
pub fn register_timer(handler: unsafe extern "C-unwind" fn()) -> u32 {
    // SAFETY: timers are initialised in every background worker.
    unsafe { raw::RegisterTimeout(compat::USER_TIMEOUT, Some(handler)) }
}

/// Disarms a timer.
pub fn stop_timer(id: u32) {
    // SAFETY: the timer was registered.
    unsafe { raw::disable_timeout(id, false) }
}

/// Whether the timer is armed.
pub fn timer_active(id: u32) -> bool {
    // SAFETY: the timer was registered.
    unsafe { raw::get_timeout_active(id) }
}
