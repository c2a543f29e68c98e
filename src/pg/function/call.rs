//! Functions that SQL calls: arguments, results, and errors raised in a frame that owns nothing.

use crate::pg::error::{self, Failure, Report, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{Rows, Value, fits, unexpected_row_type};
use crate::pg::function::scan::Scan;
use crate::pg::raw::{self, Raw};
use crate::pg::value::assign::Assignments;
use crate::pg::value::desc;
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, TupleDesc};
pub use pgrx::pg_sys::{Datum as Answer, FunctionCallInfo as RawCall};

/// Exports `$name` as a version-1 function of the shared library: its symbol and its `pg_finfo_` record.
///
/// The body is a `fn(&Call) -> Result<Datum>`. It may own things and call PostgreSQL guarded. Its error is raised after the body has
/// returned.
#[macro_export]
macro_rules! sql_function {
    // The entry points of these functions are collected in a static list.
    (static $list:ident; $($name:ident => $body:path;)*) => {
        static $list: &[$crate::pg::function::Entry] = &[$($crate::sql_function!(entry $name => $body)),*];
    };
    ($($name:ident => $body:path;)*) => {$(
        const _: $crate::pg::function::Entry = $crate::sql_function!(entry $name => $body);
    )*};
    (entry $name:ident => $body:path) => {{
        #[allow(unsafe_code, reason = "the symbol's name is the interface")]
        #[unsafe(export_name = concat!("pg_finfo_", stringify!($name)))]
        extern "C" fn info() -> &'static $crate::pg::function::call::FunctionInfo {
            &$crate::pg::function::call::VERSION_1
        }
        #[allow(unsafe_code, reason = "the symbol's name is the interface")]
        #[unsafe(export_name = stringify!($name))]
        extern "C-unwind" fn entry(call: $crate::pg::function::call::RawCall) -> $crate::pg::function::call::Answer {
            $crate::pg::function::call::enter(call, $body)
        }
        entry
    }};
}

/// Exports `$name` as the main function of a background worker. The body is a `fn(Raw, Datum) -> Result<()>`. Its error ends the process.
#[macro_export]
macro_rules! worker_function {
    ($name:ident => $body:path) => {
        const _: () = {
            #[allow(unsafe_code, reason = "the symbol's name is the interface")]
            #[unsafe(export_name = stringify!($name))]
            extern "C-unwind" fn entry(argument: $crate::pg::function::call::Answer) {
                $crate::pg::function::call::enter_worker(argument, $body)
            }
        };
    };
}

/// `Pg_finfo_record`.
pub type FunctionInfo = pg_sys::Pg_finfo_record;

/// The only existing version (`PG_FUNCTION_INFO_V1`).
pub static VERSION_1: FunctionInfo = FunctionInfo { api_version: 1 };

/// Runs the body of a function and raises its error.
pub fn enter(fcinfo: FunctionCallInfo, body: fn(&Call) -> Result<Datum>) -> Datum {
    // SAFETY: called by the function manager with a valid call; the guard turns a panic into an error. What `body` owned is
    // dropped when its error is raised.
    let (answer, raw) = unsafe {
        let answer = pg_sys::panic::pgrx_extern_c_guard(|| body(&Call { fcinfo }));
        (answer, Raw::assume())
    };
    match answer {
        Ok(datum) => datum,
        Err(failure) => error::throw(raw, failure),
    }
}

/// Runs the body of a background worker and raises its error.
pub fn enter_worker(argument: Datum, body: fn(Raw, Datum) -> Result<()>) {
    // SAFETY: as in `enter`. An error that is not caught ends the process, with all that it owns.
    let (answer, raw) = unsafe {
        let raw = Raw::assume();
        (pg_sys::panic::pgrx_extern_c_guard(|| body(raw, argument)), raw)
    };
    if let Err(failure) = answer {
        error::throw(raw, failure);
    }
}

fn not_composite() -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "function returning record called in context that cannot accept type record",
    )
    .into()
}

/// A value of the type `interval`, and the datum that it came in, which lives as long as the call.
#[derive(Clone, Copy)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub microseconds: i64,
    pub datum: Datum,
}

impl Interval {
    /// The value of a datum of that type.
    pub fn of(datum: Datum) -> Self {
        // SAFETY: the datum's type is interval, which is passed by reference.
        unsafe {
            let interval = datum.cast_mut_ptr::<pg_sys::Interval>();
            Self {
                months: (*interval).month,
                days: (*interval).day,
                microseconds: (*interval).time,
                datum,
            }
        }
    }

    /// Its length in microseconds, a month as 30 days; None where that is no number of 64 bits, as of an infinite one.
    pub fn length(&self) -> Option<i64> {
        const USECS_PER_DAY: i64 = 86_400_000_000;
        let infinite = self.months == i32::MAX || self.months == i32::MIN;
        let days = i64::from(self.months) * 30 + i64::from(self.days);
        let length = days.checked_mul(USECS_PER_DAY)?.checked_add(self.microseconds)?;
        (!infinite).then_some(length)
    }
}

/// One call of a function.
pub struct Call {
    fcinfo: FunctionCallInfo,
}

impl Call {
    fn argument(&self, n: usize) -> Option<Datum> {
        // SAFETY: the function manager passes `nargs` arguments.
        unsafe {
            if n >= (*self.fcinfo).nargs as usize {
                return None;
            }
            let argument = &*(*self.fcinfo).args.as_ptr().add(n);
            (!argument.isnull).then_some(argument.value)
        }
    }

    /// The oid of the called function.
    pub fn function_oid(&self) -> u32 {
        // SAFETY: the function manager fills flinfo in.
        unsafe { (*(*self.fcinfo).flinfo).fn_oid.to_u32() }
    }

    /// An `int4` argument, or None if it is NULL or absent.
    pub fn int4(&self, n: usize) -> Option<i32> {
        self.argument(n).map(|datum| datum.value() as i32)
    }

    /// An `int8` argument.
    pub fn int8(&self, n: usize) -> Option<i64> {
        self.argument(n).map(|datum| datum.value() as i64)
    }

    /// A `bool` argument.
    pub fn bool(&self, n: usize) -> Option<bool> {
        self.argument(n).map(|datum| datum.value() & 0xff != 0)
    }

    /// A value of any type.
    pub fn datum(&self, n: usize) -> Option<Datum> {
        self.argument(n)
    }

    /// An `oid`.
    pub fn oid(&self, n: usize) -> Option<u32> {
        self.argument(n).map(|datum| datum.value() as u32)
    }

    /// A `cstring`, which lives as long as the call.
    pub fn c_string(&self, n: usize) -> Option<&CStr> {
        // SAFETY: the argument's type is cstring.
        self.argument(n)
            .map(|datum| unsafe { CStr::from_ptr(datum.cast_mut_ptr()) })
    }

    /// An `interval`: months, days and microseconds.
    pub fn interval(&self, n: usize) -> Option<Interval> {
        self.argument(n).map(Interval::of)
    }

    /// The elements of an array of `int8`, `name` or another type that is given; None for a NULL array. Guarded. 22004 for an element that is
    /// NULL, 53200.
    fn elements(&self, n: usize, len: i32, by_value: bool, align: u8) -> Result<Option<Vec<Datum>>> {
        let Some(datum) = self.argument(n) else {
            return Ok(None);
        };
        // SAFETY: the argument's type is an array, whose elements are as they are said to be.
        let (elements, nulls, count) = error::catching(|raw| unsafe {
            let array = raw::pg_detoast_datum(raw, datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let (mut elements, mut nulls, mut count) = (core::ptr::null_mut(), core::ptr::null_mut(), 0);
            raw::deconstruct_array(
                raw,
                array,
                (*array).elemtype,
                len,
                by_value,
                align as _,
                &mut elements,
                &mut nulls,
                &mut count,
            );
            (elements, nulls, count as usize)
        })?;
        // SAFETY: as many elements as were counted.
        unsafe {
            if (0..count).any(|n| *nulls.add(n)) {
                return Err(Report::new(
                    PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                    "array must not contain nulls",
                )
                .into());
            }
            Ok(Some(fallible::collected((0..count).map(|n| *elements.add(n)))?))
        }
    }

    /// An array of `int8`, of whatever dimensions. Guarded. As [`Call::elements`].
    pub fn int8s(&self, n: usize) -> Result<Option<Vec<i64>>> {
        let elements = self.elements(n, 8, true, b'd')?;
        elements
            .map(|elements| fallible::collected(elements.into_iter().map(|datum| datum.value() as i64)))
            .transpose()
    }

    /// An array of `name`, whose elements live as long as the call. Guarded. As [`Call::elements`].
    pub fn names(&self, n: usize) -> Result<Option<Vec<&[u8]>>> {
        let elements = self.elements(n, size_of::<pg_sys::NameData>() as i32, false, b'c')?;
        elements
            .map(|elements| {
                fallible::collected(
                    elements
                        .into_iter()
                        .map(|datum| crate::pg::memory::c_bytes(datum.cast_mut_ptr())),
                )
            })
            .transpose()
    }

    /// A composite argument of any type.
    pub fn record(&self, n: usize) -> Option<Datum> {
        self.argument(n)
    }

    /// A `name` argument, which lives as long as the call.
    pub fn name(&self, n: usize) -> Option<&CStr> {
        // SAFETY: the argument's type is name, a C string in memory of fixed size.
        self.argument(n)
            .map(|datum| unsafe { CStr::from_ptr(datum.cast_mut_ptr()) })
    }

    /// The bytes of a `text` argument, which live as long as the call. Guarded.
    pub fn text(&self, n: usize) -> Option<&[u8]> {
        let datum = self.argument(n)?;
        // SAFETY: the argument's type is text; detoasting gives a plain value in the call's memory context.
        unsafe {
            let value = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            Some(core::slice::from_raw_parts(
                pgrx::varlena::vardata_any(value).cast(),
                pgrx::varlena::varsize_any_exhdr(value),
            ))
        }
    }

    /// The same of an argument that must not be NULL: 22004, which calls it `what`.
    pub fn required(&self, n: usize, what: &str) -> Result<&[u8]> {
        self.text(n).ok_or_else(|| {
            Report::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                format!("{what} cannot be NULL"),
            )
            .into()
        })
    }

    /// The handles of a `pg_background_handle[]` argument. NULL gives none. NULL elements and those with NULL parts are left out. Guarded.
    /// Fails with 53200 if memory is out.
    pub fn handles(&self, n: usize) -> Result<Vec<(i32, i64)>> {
        let mut out = Vec::new();
        let Some(datum) = self.argument(n) else {
            return Ok(out);
        };
        // SAFETY: the argument's type is an array of our composite type, whose two columns are int4 and int8.
        unsafe {
            let (elements, nulls, count, _) = error::catching(|raw| desc::elements(raw, datum))?;
            fallible::reserve(&mut out, count)?;
            for i in (0..count).filter(|i| !*nulls.add(*i)) {
                out.extend(handle_parts(*elements.add(i)));
            }
            Ok(out)
        }
    }

    /// Whether the statement that called a procedure may end transactions, that is, whether the CALL is nonatomic.
    pub fn is_nonatomic(&self) -> bool {
        // SAFETY: the context node of a CALL is a CallContext; anything else is not.
        unsafe {
            let context = (*self.fcinfo).context;
            !context.is_null()
                && (*context).type_ == pg_sys::NodeTag::T_CallContext
                && !(*context.cast::<pg_sys::CallContext>()).atomic
        }
    }

    /// The result `void`.
    pub fn void(&self) -> Result<Datum> {
        Ok(Datum::from(0usize))
    }

    /// The result NULL.
    pub fn null(&self) -> Result<Datum> {
        // SAFETY: a valid call.
        unsafe { (*self.fcinfo).isnull = true };
        Ok(Datum::from(0usize))
    }

    /// A scalar result.
    pub fn scalar(&self, value: Value) -> Result<Datum> {
        match error::catching(|raw| value.to_datum(raw))? {
            (_, true) => self.null(),
            (datum, false) => Ok(datum),
        }
    }

    /// A composite result of the function's own row type.
    pub fn composite<const N: usize>(&self, values: &[Value; N]) -> Result<Datum> {
        // SAFETY: the function manager filled in flinfo; the values have the types of the declared row type, in order.
        let row = error::catching(|raw| unsafe {
            let desc = self.row_type(raw).ok_or(not_composite as fn() -> Failure)?;
            if !fits(desc, values) {
                return Err(unexpected_row_type as fn() -> Failure);
            }
            let row = values.map(|value| value.to_datum(raw));
            let (mut datums, mut nulls) = (row.map(|(datum, _)| datum), row.map(|(_, null)| null));
            let tuple = raw::heap_form_tuple(raw, desc, datums.as_mut_ptr(), nulls.as_mut_ptr());
            Ok(raw::HeapTupleHeaderGetDatum(raw, (*tuple).t_data))
        })?;
        row.map_err(|failure| failure())
    }

    /// The row type that the function is declared with. For a named type this is the type cache's own descriptor, valid until the catalog
    /// is read again. The copy that `get_call_result_type` makes would take longer than everything else here.
    unsafe fn row_type(&self, raw: Raw<'_>) -> Option<TupleDesc> {
        // SAFETY: as in `composite`. A type that has no columns has no descriptor.
        unsafe {
            let kind = raw::get_fn_expr_rettype(raw, (*self.fcinfo).flinfo);
            if kind != pg_sys::InvalidOid {
                let desc = (*raw::lookup_type_cache(raw, kind, pg_sys::TYPECACHE_TUPDESC as _)).tupDesc;
                if !desc.is_null() {
                    return Some(desc);
                }
            }
            let mut desc: TupleDesc = core::ptr::null_mut();
            let class = raw::get_call_result_type(raw, self.fcinfo, core::ptr::null_mut(), &mut desc);
            (class == pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE).then(|| raw::BlessTupleDesc(raw, desc))
        }
    }

    /// The scan that called this function and takes the rows one by one, if any. The function must then leave the result to the scan.
    pub fn scan(&self) -> Option<Scan> {
        // SAFETY: only a scan stores anything there for the functions that ask. The result info is the one of its call.
        unsafe {
            let scan = Scan::of((*(*self.fcinfo).flinfo).fn_extra)?;
            let info = (*self.fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            Some(scan)
        }
    }

    /// Prepares a set-returning result whose rows are all computed now. Guarded. Fails with 0A000 if the caller does not accept a set.
    pub fn rows(&self) -> Result<Rows> {
        // SAFETY: resultinfo is NULL or a node; a ReturnSetInfo where a set may be returned (InitMaterializedSRF does the same).
        unsafe {
            let info = (*self.fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            if info.is_null() || (*info).type_ != pg_sys::NodeTag::T_ReturnSetInfo {
                return Err(Report::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "set-valued function called in context that cannot accept a set",
                )
                .into());
            }
            if (*info).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize == 0 {
                return Err(Report::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "materialize mode required, but it is not allowed in this context",
                )
                .into());
            }
            let query_memory = (*(*info).econtext).ecxt_per_query_memory;
            let mut desc = (*info).expectedDesc;
            if desc.is_null()
                && pg_sys::get_call_result_type(self.fcinfo, core::ptr::null_mut(), &mut desc)
                    != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE
            {
                return Err(Report::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "a column definition list is required for functions returning \"record\"",
                )
                .into());
            }
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = query_memory;
            let desc = pg_sys::CreateTupleDescCopy(desc);
            let random = (*info).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random != 0;
            let store = pg_sys::tuplestore_begin_heap(random, false, pg_sys::work_mem);
            let slot = pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsMinimalTuple);
            let assignments = pg_sys::palloc0(size_of::<Assignments>()).cast();
            pg_sys::CurrentMemoryContext = before;
            (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            (*info).setResult = store;
            (*info).setDesc = desc;
            Ok(Rows {
                store,
                desc,
                slot,
                assignments,
            })
        }
    }
}

unsafe fn handle_parts(datum: Datum) -> Option<(i32, i64)> {
    // SAFETY: a non-null composite value; GetAttributeByNum checks the column number.
    unsafe {
        let tuple = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let mut null = false;
        let pid = pg_sys::GetAttributeByNum(tuple, 1, &mut null);
        if null {
            return None;
        }
        let cookie = pg_sys::GetAttributeByNum(tuple, 2, &mut null);
        (!null).then(|| (pid.value() as i32, cookie.value() as i64))
    }
}
