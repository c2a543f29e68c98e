//! This process and the others of the server, as shared memory knows them; the clock, and random numbers.

use crate::pg::error::{Report, Result};
use crate::pg::raw;
use core::cell::RefCell;
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Oid};

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

/// Whether the current transaction has changed anything that others would see after its commit: it has a number then.
pub fn transaction_has_written() -> bool {
    // SAFETY: reads this process's own state.
    unsafe { raw::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// Whether there is a process with this pid, be it one that has ended and that its parent has not looked after.
pub fn exists(pid: i32) -> bool {
    // SAFETY: no signal is sent.
    unsafe { raw::kill(pid, 0) == 0 }
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

/// Whether this process is a parallel worker.
pub fn is_parallel_worker() -> bool {
    // SAFETY: a plain read.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Sends SIGINT. Callable in a signal handler.
pub(super) fn send_interrupt(pid: i32) {
    // SAFETY: kill has no memory effects.
    unsafe { raw::kill(pid, raw::SIGINT) };
}
