//! Prepared statements of our own, on the tables of the second extension.
//!
//! They run as the tables' owner, in the way of referential integrity (utils/adt/ri_triggers.c): names, functions and operators are qualified,
//! so that the caller's `search_path` means nothing to them. What looks an operator up by its name alone, as NULLIF, IS DISTINCT FROM, IN and
//! BETWEEN do, has no place here. They see what was committed last, whatever snapshot the caller's transaction has. A statement that looks rows up
//! is planned anew each time: what was planned while a table was small would read all of it later.

use crate::pg::catalog::owner;
use crate::pg::error::{self, Result};
use crate::pg::fallible;
use crate::pg::function::call::Interval;
use crate::pg::function::rows::{self, Value};
use crate::pg::raw::{self, Raw, may_raise};
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::ptr;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::pg_sys::{self, Datum, HeapTuple, Oid, Snapshot, TupleDesc};

// executor/spi.h
may_raise! {
    fn SPI_prepare_cursor(src: *const c_char, nargs: c_int, argtypes: *mut Oid, options: c_int) -> pg_sys::SPIPlanPtr;
    fn SPI_keepplan(plan: pg_sys::SPIPlanPtr) -> c_int;
    fn SPI_execute_snapshot(
        plan: pg_sys::SPIPlanPtr,
        values: *mut Datum,
        nulls: *const c_char,
        snapshot: Snapshot,
        crosscheck: Snapshot,
        read_only: bool,
        fire_triggers: bool,
        count: c_long,
    ) -> c_int;
    fn SPI_getbinval(tuple: HeapTuple, desc: TupleDesc, column: c_int, is_null: *mut bool) -> Datum;
}

/// The most parameters of a statement.
const MOST: usize = 40;

/// The text of a statement that was put together at compile time and ends with a NUL.
pub const fn text(sql: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(sql.as_bytes()) {
        Ok(sql) => sql,
        Err(_) => panic!("a statement must end with its only NUL"),
    }
}

/// One statement, prepared at its first use in a process.
pub struct Plan {
    sql: &'static CStr,
    types: &'static [u32],
    options: u32,
    fires_triggers: bool,
    prepared: AtomicPtr<c_void>,
}

impl Plan {
    /// A statement whose plan does not depend on how large tables are.
    pub const fn fixed(sql: &'static CStr, types: &'static [u32]) -> Self {
        Self::new(sql, types, 0)
    }

    /// A statement that is planned each time.
    pub const fn planned(sql: &'static CStr, types: &'static [u32]) -> Self {
        Self::new(sql, types, pg_sys::CURSOR_OPT_CUSTOM_PLAN)
    }

    const fn new(sql: &'static CStr, types: &'static [u32], options: u32) -> Self {
        Self {
            sql,
            types,
            options,
            fires_triggers: false,
            prepared: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The same on a table that has triggers, which are fired at its end.
    pub const fn firing_triggers(self) -> Self {
        Self {
            fires_triggers: true,
            ..self
        }
    }

    fn prepared(&self, raw: Raw<'_>) -> pg_sys::SPIPlanPtr {
        let kept = self.prepared.load(Relaxed);
        if !kept.is_null() {
            return kept.cast();
        }
        let mut types = [Oid::INVALID; MOST];
        for (to, from) in types.iter_mut().zip(self.types) {
            *to = Oid::from(*from);
        }
        // SAFETY: SPI is connected; as many types as parameters.
        unsafe {
            let plan = SPI_prepare_cursor(
                raw,
                self.sql.as_ptr(),
                self.types.len() as c_int,
                types.as_mut_ptr(),
                self.options as c_int,
            );
            if plan.is_null() || SPI_keepplan(raw, plan) != 0 {
                error::raise_raw(
                    raw,
                    pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    &[b"could not prepare a statement"],
                    None,
                );
            }
            self.prepared.store(plan.cast(), Relaxed);
            plan
        }
    }

    fn run_raw(&self, raw: Raw<'_>, values: &[Value]) -> usize {
        debug_assert_eq!(values.len(), self.types.len());
        let mut datums = [Datum::from(0usize); MOST];
        let mut nulls = [b' ' as c_char; MOST];
        // SAFETY: SPI is connected, and the values have the types that the statement was prepared with. Nothing is owned here.
        unsafe {
            let plan = self.prepared(raw);
            for (n, value) in values.iter().enumerate() {
                let (datum, is_null) = value.to_datum(raw);
                datums[n] = datum;
                if is_null {
                    nulls[n] = b'n' as c_char;
                }
            }
            let code = SPI_execute_snapshot(
                raw,
                plan,
                datums.as_mut_ptr(),
                nulls.as_ptr(),
                raw::GetLatestSnapshot(raw),
                ptr::null_mut(),
                false,
                self.fires_triggers,
                0,
            );
            if code < 0 {
                error::raise_raw(
                    raw,
                    pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    &[b"could not execute a statement"],
                    None,
                );
            }
            pg_sys::SPI_processed as usize
        }
    }

    /// Runs the statement as the tables' owner. Returns how many rows it processed.
    pub fn execute(&self, values: &[Value]) -> Result<usize> {
        owner::acting(|| {
            // SAFETY: connected for the time of the call.
            error::catching(|raw| unsafe {
                raw::SPI_connect(raw);
                let count = self.run_raw(raw, values);
                raw::SPI_finish(raw);
                count
            })
        })
    }

    /// Runs the statement as the tables' owner and reads each row that it returns. `read` runs no code of users.
    pub fn rows<T>(&self, values: &[Value], mut read: impl FnMut(&Row) -> Result<T>) -> Result<Vec<T>> {
        owner::acting(|| {
            // SAFETY: a plain variable.
            let caller = unsafe { pg_sys::CurrentMemoryContext };
            // SAFETY: the table lives until SPI_finish.
            let (table, count) = error::catching(|raw| unsafe {
                raw::SPI_connect(raw);
                let count = self.run_raw(raw, values);
                (pg_sys::SPI_tuptable, count)
            })?;
            let mut read_all = || {
                let mut all = Vec::new();
                fallible::reserve(&mut all, count)?;
                for n in 0..count {
                    // SAFETY: below the number of rows.
                    let tuple = unsafe { *(*table).vals.add(n) };
                    all.push(read(&Row { table, tuple })?);
                }
                Ok(all)
            };
            let all = read_all().map_err(|failure| {
                // SAFETY: SPI's own context goes with the transaction, and the error must not go with it.
                unsafe { pg_sys::CurrentMemoryContext = caller };
                error::moved(failure)
            })?;
            // SAFETY: connected above.
            error::catching(|raw| unsafe { raw::SPI_finish(raw) })?;
            Ok(all)
        })
    }

    /// The first row that it returns, as [`Plan::rows`].
    pub fn first<T>(&self, values: &[Value], read: impl FnMut(&Row) -> Result<T>) -> Result<Option<T>> {
        Ok(self.rows(values, read)?.into_iter().next())
    }
}

/// A row of an answer. Columns count from 0.
pub struct Row {
    table: *mut pg_sys::SPITupleTable,
    tuple: HeapTuple,
}

impl Row {
    /// A value that lives until the next row is read.
    pub fn datum(&self, n: usize) -> Result<Option<Datum>> {
        let mut is_null = false;
        // SAFETY: a row of the table.
        let datum = error::catching(|raw| unsafe {
            SPI_getbinval(raw, self.tuple, (*self.table).tupdesc, n as c_int + 1, &mut is_null)
        })?;
        Ok((!is_null).then_some(datum))
    }

    /// An `int4`.
    pub fn int4(&self, n: usize) -> Result<Option<i32>> {
        Ok(self.datum(n)?.map(|datum| datum.value() as i32))
    }

    /// An `int8` or a `timestamptz`.
    pub fn int8(&self, n: usize) -> Result<Option<i64>> {
        Ok(self.datum(n)?.map(|datum| datum.value() as i64))
    }

    /// An `oid` or an `xid`.
    pub fn oid(&self, n: usize) -> Result<Option<u32>> {
        Ok(self.datum(n)?.map(|datum| datum.value() as u32))
    }

    /// A `float8`.
    pub fn float8(&self, n: usize) -> Result<Option<f64>> {
        Ok(self.datum(n)?.map(|datum| f64::from_bits(datum.value() as u64)))
    }

    /// A `"char"`.
    pub fn char(&self, n: usize) -> Result<Option<u8>> {
        Ok(self.datum(n)?.map(|datum| datum.value() as u8))
    }

    /// The length of an `interval` in microseconds, a month as 30 days.
    pub fn length(&self, n: usize) -> Result<Option<i64>> {
        Ok(self.datum(n)?.and_then(|datum| Interval::of(datum).length()))
    }

    /// A `bool`.
    pub fn bool(&self, n: usize) -> Result<Option<bool>> {
        Ok(self.datum(n)?.map(|datum| datum.value() & 0xff != 0))
    }

    /// A copy of a `text`.
    pub fn text(&self, n: usize) -> Result<Option<Vec<u8>>> {
        let Some(datum) = self.datum(n)? else {
            return Ok(None);
        };
        rows::copy_of_text(datum).map(Some)
    }
}
