//! Which process waits for which, according to the lock manager. Guarded.

use pgrx::pg_sys::{self, Datum};

/// The processes that `pid` waits for, as `pg_blocking_pids` returns them. Empty if it waits for no lock.
pub fn blockers(pid: i32) -> Vec<i32> {
    // SAFETY: pg_blocking_pids takes one int4 and returns a plain array of int4.
    unsafe {
        let Some(datum) = pgrx::direct_function_call_as_datum(pg_sys::pg_blocking_pids, &[Some(Datum::from(pid))])
        else {
            return Vec::new();
        };
        let array = datum.cast_mut_ptr::<pg_sys::ArrayType>();
        if (*array).ndim == 0 {
            return Vec::new();
        }
        let count = *array.cast::<u8>().add(size_of::<pg_sys::ArrayType>()).cast::<i32>();
        let first = array
            .cast::<u8>()
            .add(size_of::<pg_sys::ArrayType>() + 2 * size_of::<i32>())
            .cast::<i32>();
        let pids = core::slice::from_raw_parts(first, count.max(0) as usize).to_vec();
        pg_sys::pfree(array.cast());
        pids
    }
}

/// Whether `pid` waits for the end of another transaction, as CREATE INDEX CONCURRENTLY waits for old snapshots.
pub fn waits_for_snapshot(pid: i32) -> bool {
    // SAFETY: GetBlockerStatusData returns arrays with their lengths, in the current memory context.
    unsafe {
        let data = pg_sys::GetBlockerStatusData(pid);
        let locks = core::slice::from_raw_parts((*data).locks, (*data).nlocks.max(0) as usize);
        locks.iter().any(|lock| {
            lock.pid == pid
                && lock.waitLockMode != pg_sys::NoLock as i32
                && u32::from(lock.locktag.locktag_type) == pg_sys::LockTagType::LOCKTAG_VIRTUALTRANSACTION
        })
    }
}
