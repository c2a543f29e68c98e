//! This process and the others of the server, as shared memory shows them; the clock, and random numbers.

use crate::pg::error::{Report, Result};
use crate::pg::raw;
use core::cell::RefCell;
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Oid};

/// The pid of this process.
pub fn my_pid() -> i32 {
    // SAFETY: set at the start of every process.
    unsafe { pg_sys::MyProcPid }
}

/// The index of this process in the array of all processes. Others find its latch by it.
pub fn my_procno() -> u32 {
    // SAFETY: MyProc points into allProcs in every process that runs our code.
    unsafe { pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs) as u32 }
}

/// The database of this process.
pub fn my_database() -> Oid {
    // SAFETY: a plain variable.
    unsafe { pg_sys::MyDatabaseId }
}

/// Sets the latch of the process at index `procno`. If another process has that index by now, it wakes for nothing, which every user of a
/// latch expects.
pub fn wake(procno: u32) {
    // SAFETY: callers pass numbers from `my_procno`, so they are within the array; SetLatch raises nothing.
    unsafe { raw::SetLatch(&raw mut (*(*pg_sys::ProcGlobal).allProcs.add(procno as usize)).procLatch) }
}

/// A process, identified by its index in the array of all processes and by its pid. A pid alone is not enough: it is reused, and does not
/// tell where the process's latch is. Zeroed memory is [`Process::NONE`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    procno: u32,
    pid: i32,
}

impl Process {
    /// No process.
    pub const NONE: Process = Process { procno: 0, pid: 0 };

    /// The process `pid` at index `procno`.
    pub fn new(procno: u32, pid: i32) -> Self {
        Self { procno, pid }
    }

    /// This process.
    pub fn me() -> Self {
        Self::new(my_procno(), my_pid())
    }

    /// The pid, or 0 for no process.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether the process still runs. It counts as exited when it has released its latch, which it does after all of its exit callbacks.
    pub fn is_alive(self) -> bool {
        self.pid != 0 && owner_of_latch(self.procno) == self.pid
    }

    /// Sets the process's latch.
    pub fn wake(self) {
        if self.pid != 0 {
            wake(self.procno);
        }
    }

    /// Sends SIGINT, which cancels the process's current statement, if the process still runs. The caller must hold the lock that the
    /// process needs to finish the statement to be cancelled.
    pub fn interrupt(self) {
        if self.is_alive() {
            send_interrupt(self.pid);
        }
    }
}

/// The size of the array of all processes.
pub fn count() -> usize {
    // SAFETY: set before any process that runs this library starts.
    unsafe { (*pg_sys::ProcGlobal).allProcCount as usize }
}

/// The pid of the process at index `procno`, or 0 if there is none.
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

/// Whether the current transaction has changed anything that others would see after its commit, that is, whether it has a transaction id.
pub fn transaction_has_written() -> bool {
    // SAFETY: reads this process's own state.
    unsafe { raw::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// Whether there is a process with this pid. This includes one that has exited but has not been reaped by its parent.
pub fn exists(pid: i32) -> bool {
    // SAFETY: no signal is sent.
    unsafe { raw::kill(pid, 0) == 0 }
}

/// Microseconds since 2000-01-01, like a `timestamptz`.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { raw::GetCurrentTimestamp() }
}

/// Returns a cryptographically strong random number that is not 0. Fails with XX000 if the system provides none. The numbers are fetched
/// many at a time.
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

/// Whether this process is a parallel worker.
pub fn is_parallel_worker() -> bool {
    // SAFETY: a plain read.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Sends SIGINT. May be called in a signal handler.
pub(super) fn send_interrupt(pid: i32) {
    // SAFETY: kill has no memory effects.
    unsafe { raw::kill(pid, raw::SIGINT) };
}
