//! Statements that this session runs for itself, and its snapshots.

use super::error::{self, Result};
use core::ffi::CStr;
use pgrx::pg_sys;

/// Gives up the snapshot of the running CALL, so that nobody waits for it meanwhile; the call must be nonatomic. Guarded.
pub fn release_snapshots() {
    // SAFETY: as SPI_commit does it; in a nonatomic CALL all active snapshots belong to portals.
    unsafe {
        pg_sys::ForgetPortalSnapshots();
        pg_sys::InvalidateCatalogSnapshot();
    }
}

/// Takes a snapshot again. Guarded.
pub fn restore_snapshots() {
    // SAFETY: undoes `release_snapshots`.
    unsafe { pg_sys::EnsurePortalSnapshotExists() }
}

/// Runs `body` in a subtransaction, which is rolled back if `body` fails; the error is given back. Guarded.
pub fn in_subtransaction<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: as PL/pgSQL's exception blocks do it: the resource owner and the memory context are those of before afterwards.
    unsafe {
        let owner = pg_sys::CurrentResourceOwner;
        let memory = pg_sys::CurrentMemoryContext;
        pg_sys::BeginInternalSubTransaction(c"pg_background".as_ptr());
        pg_sys::CurrentMemoryContext = memory;
        let answer = body();
        if answer.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::CurrentMemoryContext = memory;
        pg_sys::CurrentResourceOwner = owner;
        answer
    }
}

/// Executes one statement through SPI; an error of it is a failure. Guarded otherwise.
pub fn execute(sql: &CStr) -> Result<()> {
    // SAFETY: the statement is NUL-terminated; SPI is connected for the time of the call. The error jumps over SPI's own frames
    // only; the caller's subtransaction cleans SPI up.
    error::catching(|| unsafe {
        pg_sys::SPI_connect();
        pg_sys::SPI_execute(sql.as_ptr(), false, 0);
        pg_sys::SPI_finish();
    })
}
