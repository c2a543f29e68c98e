//! Waiting to be woken by other processes.

use crate::pg::compat;
use crate::pg::error::{self, Result};
use crate::pg::process::signals::check_for_interrupts_raw;
use crate::pg::raw::{self, Raw};
use core::cell::Cell;
use core::ffi::{c_int, c_long};
use core::ptr;
use core::time::Duration;
use pgrx::pg_sys;
use std::time::Instant;

/// Resets this process's latch. Check the awaited condition after this and before [`wait`].
pub fn reset_latch() {
    // SAFETY: our own latch.
    unsafe { raw::ResetLatch(pg_sys::MyLatch) }
}

/// Waits until this process is woken, or until `timeout_ms` have passed. Below 0 there is no limit. Exits if the postmaster has died.
pub fn wait_raw(raw: Raw<'_>, timeout_ms: i64) {
    if timeout_ms == 0 || !spin() {
        sleep_raw(raw, timeout_ms);
    }
}

/// As [`wait_raw`], without [`spin`] first.
pub fn sleep_raw(raw: Raw<'_>, timeout_ms: i64) {
    let timer = if timeout_ms >= 0 { pg_sys::WL_TIMEOUT } else { 0 };
    // SAFETY: our own latch.
    unsafe {
        raw::WaitLatch(
            raw,
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | timer) as c_int,
            timeout_ms.max(0) as c_long,
            compat::wait_event(),
        );
    }
}

/// As [`sleep_raw`], guarded.
pub fn sleep(timeout_ms: i64) -> Result<()> {
    error::catching(|raw| sleep_raw(raw, timeout_ms))
}

/// Spins for a moment. Returns whether this process was woken meanwhile.
///
/// A process that waits like this needs no signal. That saves the time that two processes take to fall asleep and to wake, which is more
/// than a short job takes. A partner that waits for the same core gets it at once.
///
/// Spinning occupies a core. So after two spins in vain the next waits do without it, and each further one in vain multiplies their number
/// by four. A process whose partner is slow, or which shares its core with others, soon sleeps at once. It does not stop after one spin in
/// vain: then each pause between two runs of jobs would slow down two waits instead of one. A spin that succeeds divides the number by
/// four, so that two processes that were disturbed once do not keep sleeping and waking each other. For the same reason the moment is
/// longer than it takes to wake a partner. It is also longer than a commit takes on a fast disk.
///
/// Two processes that never sleep are not moved to another core, even if both share one beside an idle one. A job takes twice as long
/// there. A process that is woken is put on an idle core. So when successful spins have taken `LONGEST_HASTE` in total, one wait does
/// without.
pub fn spin() -> bool {
    const MOMENT: Duration = Duration::from_micros(250);
    const LONGEST_PAUSE: u32 = 256;
    const LONGEST_HASTE: Duration = Duration::from_millis(10);
    thread_local! {
        /// How many of the next waits do without a spin, and how many will after the next spin in vain.
        static SKIP: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
        /// How long successful spins have taken in total since the last wait without a spin.
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
        unsafe { raw::sched_yield() };
    }
}

/// Whether this process's latch is set or an interrupt is pending.
fn is_awake() -> bool {
    // SAFETY: our own latch and flag, which other processes and signal handlers set.
    unsafe {
        ptr::read_volatile(&raw const (*pg_sys::MyLatch).is_set) != 0
            || ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0
    }
}

/// As [`wait_raw`], followed by a check for interrupts, whose error is returned as a failure.
pub fn wait(timeout_ms: i64) -> Result<()> {
    error::catching(|raw| {
        wait_raw(raw, timeout_ms);
        check_for_interrupts_raw(raw);
    })
}
