//! Waiting for other processes, and waking them.

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

/// Forgets wake-ups so far. Look at what is waited for after this and before [`wait`].
pub fn reset_latch() {
    // SAFETY: our own latch.
    unsafe { raw::ResetLatch(pg_sys::MyLatch) }
}

/// Sleeps until somebody wakes this process, or `timeout_ms` have passed; below 0 there is no limit. Ends the process where the
/// postmaster has died.
pub fn wait_raw(raw: Raw<'_>, timeout_ms: i64) {
    if timeout_ms == 0 || !spin() {
        sleep_raw(raw, timeout_ms);
    }
}

/// [`wait_raw`] without the moment of [`spin`].
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
        unsafe { raw::sched_yield() };
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
    error::catching(|raw| {
        wait_raw(raw, timeout_ms);
        check_for_interrupts_raw(raw);
    })
}
