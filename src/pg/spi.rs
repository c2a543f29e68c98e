//! Statements that this session runs for its own purposes, and its snapshots.

use crate::pg::error::{self, Result};
use crate::pg::function::rows;
use crate::pg::raw::{self, may_raise};
use core::ffi::{CStr, c_char, c_int, c_long};
use core::ptr;
use pgrx::pg_sys::{self, Datum, ErrorData, HeapTuple, Oid, TupleDesc};
use std::ffi::CString;

/// Releases the snapshots of the running CALL, so that no other process waits for them meanwhile. The CALL must be nonatomic. Guarded.
pub fn release_snapshots() {
    // SAFETY: as SPI_commit does it; in a nonatomic CALL all active snapshots belong to portals.
    unsafe { pg_sys::ForgetPortalSnapshots() }
    forget_catalog_snapshot();
}

/// Releases the catalog snapshot. The next read of a catalog takes a new one.
pub fn forget_catalog_snapshot() {
    // SAFETY: callable at any time outside of a catalog scan; raises nothing.
    unsafe { raw::InvalidateCatalogSnapshot() }
}

/// Takes a snapshot again after [`release_snapshots`]. Guarded.
pub fn restore_snapshots() {
    // SAFETY: undoes `release_snapshots`.
    unsafe { pg_sys::EnsurePortalSnapshotExists() }
}

/// Runs `body` in a subtransaction, which is rolled back if `body` fails. Returns the error. Guarded.
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

// executor/spi.h, raw: the errors of these statements are caught whole.
may_raise! {
    fn SPI_execute(src: *const c_char, read_only: bool, tcount: c_long) -> c_int;
    fn SPI_execute_with_args(
        src: *const c_char,
        nargs: c_int,
        argtypes: *mut Oid,
        values: *mut Datum,
        nulls: *const c_char,
        read_only: bool,
        tcount: c_long,
    ) -> c_int;
    fn SPI_getvalue(tuple: HeapTuple, tupdesc: TupleDesc, fnumber: c_int) -> *mut c_char;
}

/// Executes one statement through SPI. If it fails, the caller's transaction or subtransaction must end, which cleans up SPI.
pub fn execute(sql: &CStr) -> Result<()> {
    // SAFETY: the statement is NUL-terminated; SPI is connected for the time of the call. The closure owns nothing.
    error::catching(|raw| unsafe {
        raw::SPI_connect(raw);
        SPI_execute(raw, sql.as_ptr(), false, 0);
        raw::SPI_finish(raw);
    })
}

/// [`execute`] outside of any statement, where no snapshot is there.
#[cfg(feature = "probe")]
pub fn execute_between_statements(sql: &CStr) -> Result<()> {
    // SAFETY: in a transaction. An error leaves the snapshot to the abort.
    unsafe {
        error::catching(|raw| raw::PushActiveSnapshot(raw, raw::GetTransactionSnapshot(raw)))?;
        execute(sql)?;
        error::catching(|raw| raw::PopActiveSnapshot(raw))
    }
}

/// Runs a query of one column with arguments of type text and gives the values that are not NULL. Errors of the query as in
/// [`execute`].
pub fn texts(query: &CStr, arguments: &[&[u8]]) -> Result<Vec<CString>> {
    let mut types = vec![Oid::from(rows::TEXT); arguments.len()];
    let mut datums = vec![Datum::from(0usize); arguments.len()];
    let (count, types) = (arguments.len() as c_int, types.as_mut_ptr());
    // SAFETY: as many types and values as arguments, none NULL. The closure owns nothing.
    let (texts, count) = error::catching(|raw| unsafe {
        for (datum, argument) in datums.iter_mut().zip(arguments) {
            *datum = rows::text_datum(raw, argument);
        }
        raw::SPI_connect(raw);
        SPI_execute_with_args(
            raw,
            query.as_ptr(),
            count,
            types,
            datums.as_mut_ptr(),
            ptr::null(),
            false,
            0,
        );
        let (table, count) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed as usize);
        let texts = raw::palloc(raw, size_of::<*mut c_char>() * count).cast::<*mut c_char>();
        for row in 0..count {
            *texts.add(row) = SPI_getvalue(raw, *(*table).vals.add(row), (*table).tupdesc, 1);
        }
        (texts, count)
    })?;
    // SAFETY: `count` strings or NULLs in SPI's memory, which lives until SPI_finish.
    let answer = unsafe {
        let texts = (0..count).map(|row| *texts.add(row)).filter(|text| !text.is_null());
        texts.map(|text| CStr::from_ptr(text).to_owned()).collect()
    };
    // SAFETY: connected above.
    error::catching(|raw| unsafe { raw::SPI_finish(raw) })?;
    Ok(answer)
}

/// Emits an INFO, which is sent to every client.
pub fn info(text: &CStr) -> Result<()> {
    let edata = error::new_error_data();
    // SAFETY: a new error; what emits it copies the text.
    unsafe {
        (*edata).elevel = pg_sys::INFO as _;
        (*edata).message = text.as_ptr().cast_mut();
    }
    error::catching(|raw| error::emit(raw, edata))
}

/// Emits a caught error as a NOTICE. Its context is replaced by that of the caller.
pub fn notice(edata: *mut ErrorData) -> Result<()> {
    // SAFETY: a palloc'd error.
    unsafe {
        (*edata).elevel = pg_sys::NOTICE as _;
        (*edata).context = ptr::null_mut();
    }
    error::catching(|raw| error::emit(raw, edata))
}
