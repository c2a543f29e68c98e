//! Functions that SQL calls: arguments in, answers out, errors raised in a frame that owns nothing.

use crate::pg::error::{self, Report, Result};
use crate::pg::function::scan::Scan;
use crate::pg::value::assign::Assignments;
use crate::pg::value::desc;
use crate::pg::{memory, raw};
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, TupleDesc, Tuplestorestate};

/// Exports `$name` as a version-1 function of the shared library: its symbol and its `pg_finfo_` record.
///
/// The body is a `fn(&Call) -> Result<Datum>`. It may own things and call PostgreSQL guarded; its error is raised when it is
/// gone.
#[macro_export]
macro_rules! sql_function {
    // What SQL calls these functions through is put into a static list.
    (static $list:ident; $($name:ident => $body:path;)*) => {
        static $list: &[$crate::pg::function::call::Entry] = &[$($crate::sql_function!(entry $name => $body)),*];
    };
    ($($name:ident => $body:path;)*) => {$(
        const _: $crate::pg::function::call::Entry = $crate::sql_function!(entry $name => $body);
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

/// Exports `$name` as the main function of a background worker. The body is a `fn(Datum) -> Result<()>`; its error ends the
/// process.
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

pub use pgrx::pg_sys::{Datum as Answer, FunctionCallInfo as RawCall};

/// What SQL calls a function through.
pub type Entry = extern "C-unwind" fn(RawCall) -> Answer;

/// `Pg_finfo_record`.
pub type FunctionInfo = pg_sys::Pg_finfo_record;

/// The only version that there is (`PG_FUNCTION_INFO_V1`).
pub static VERSION_1: FunctionInfo = FunctionInfo { api_version: 1 };

/// Runs the body of a function and raises its error.
pub fn enter(fcinfo: FunctionCallInfo, body: fn(&Call) -> Result<Datum>) -> Datum {
    // SAFETY: called by the function manager with a valid call; the guard turns a panic into an error. What `body` owned is
    // gone when its error is raised.
    let answer = unsafe { pg_sys::panic::pgrx_extern_c_guard(|| body(&Call { fcinfo })) };
    match answer {
        Ok(datum) => datum,
        Err(failure) => error::throw(failure),
    }
}

/// Runs the body of a background worker and raises its error.
pub fn enter_worker(argument: Datum, body: fn(Datum) -> Result<()>) {
    // SAFETY: as in `enter`.
    let answer = unsafe { pg_sys::panic::pgrx_extern_c_guard(|| body(argument)) };
    if let Err(failure) = answer {
        error::throw(failure);
    }
}

/// One call of a function.
pub struct Call {
    fcinfo: FunctionCallInfo,
}

/// The numbers of built-in types (`catalog/pg_type_d.h`).
pub const BOOL: u32 = 16;
pub const INT8: u32 = 20;
pub const INT4: u32 = 23;
pub const TEXT: u32 = 25;
pub const OID: u32 = 26;
pub const FLOAT8: u32 = 701;
pub const TIMESTAMPTZ: u32 = 1184;

/// Whether the values are what the columns are declared as. A catalog that was not made for this library must not make one type
/// pass for another.
fn fits(desc: TupleDesc, values: &[Value]) -> bool {
    // SAFETY: a valid descriptor.
    let width = unsafe { (*desc).natts as usize };
    width == values.len()
        && values
            .iter()
            .enumerate()
            .all(|(n, value)| value.kind().is_none_or(|kind| kind == desc::column_type(desc, n)))
}

/// A value on its way out.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int4(i32),
    Int8(i64),
    Float8(f64),
    Oid(u32),
    Timestamp(i64),
    Text(&'a [u8]),
}

impl Value<'_> {
    /// The value as PostgreSQL passes it, in the current memory context, and whether it is NULL. Raw.
    fn to_datum(self) -> (Datum, bool) {
        let datum = match self {
            Value::Null => return (Datum::from(0usize), true),
            Value::Bool(value) => Datum::from(value),
            Value::Int4(value) => Datum::from(value),
            Value::Int8(value) | Value::Timestamp(value) => Datum::from(value),
            Value::Float8(value) => Datum::from(value.to_bits()),
            Value::Oid(value) => Datum::from(value),
            Value::Text(bytes) => text_datum(bytes),
        };
        (datum, false)
    }

    /// The type that the value is passed as; None for NULL, which fits all.
    fn kind(&self) -> Option<u32> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(_) => BOOL,
            Value::Int4(_) => INT4,
            Value::Int8(_) => INT8,
            Value::Float8(_) => FLOAT8,
            Value::Oid(_) => OID,
            Value::Timestamp(_) => TIMESTAMPTZ,
            Value::Text(_) => TEXT,
        })
    }

    /// `Text`, or NULL for none.
    pub fn text_or_null(text: Option<&[u8]>) -> Value<'_> {
        text.map_or(Value::Null, Value::Text)
    }

    /// `Timestamp`, or NULL for 0.
    pub fn time_or_null(time: i64) -> Value<'static> {
        if time == 0 { Value::Null } else { Value::Timestamp(time) }
    }
}

/// A `text` in the current memory context. Raw.
pub fn text_datum(bytes: &[u8]) -> Datum {
    // SAFETY: the bytes are in the database's encoding, because they came from it.
    unsafe { Datum::from(raw::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as _)) }
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

    /// The number of the function that was called.
    pub fn function_oid(&self) -> u32 {
        // SAFETY: the function manager fills flinfo in.
        unsafe { (*(*self.fcinfo).flinfo).fn_oid.to_u32() }
    }

    /// An `int4`, None for NULL or absent.
    pub fn int4(&self, n: usize) -> Option<i32> {
        self.argument(n).map(|datum| datum.value() as i32)
    }

    /// An `int8`.
    pub fn int8(&self, n: usize) -> Option<i64> {
        self.argument(n).map(|datum| datum.value() as i64)
    }

    /// A `bool`.
    pub fn bool(&self, n: usize) -> Option<bool> {
        self.argument(n).map(|datum| datum.value() & 0xff != 0)
    }

    /// A composite value of any type.
    pub fn record(&self, n: usize) -> Option<Datum> {
        self.argument(n)
    }

    /// A `name`, which lives as long as the call.
    pub fn name(&self, n: usize) -> Option<&CStr> {
        // SAFETY: the argument's type is name, a C string in a place of fixed size.
        self.argument(n)
            .map(|datum| unsafe { CStr::from_ptr(datum.cast_mut_ptr()) })
    }

    /// The bytes of a `text`, which live as long as the call. Guarded.
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

    /// The handles of a `pg_background_handle[]` argument, none for NULL; NULL elements and those with NULL parts are left out. Guarded.
    /// 53200.
    pub fn handles(&self, n: usize) -> Result<Vec<(i32, i64)>> {
        let mut out = Vec::new();
        let Some(datum) = self.argument(n) else {
            return Ok(out);
        };
        // SAFETY: the argument's type is an array of our composite type, whose two columns are int4 and int8.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let (mut elements, mut nulls, mut count) = (core::ptr::null_mut(), core::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                (*array).elemtype,
                -1,
                false,
                b'd' as _,
                &mut elements,
                &mut nulls,
                &mut count,
            );
            memory::reserve(&mut out, count as usize)?;
            for i in (0..count as usize).filter(|i| !*nulls.add(*i)) {
                out.extend(handle_parts(*elements.add(i)));
            }
            Ok(out)
        }
    }

    /// Whether the statement that called a procedure may end transactions, that is holds nothing that we don't know of.
    pub fn is_nonatomic(&self) -> bool {
        // SAFETY: the context node of a CALL is a CallContext; anything else is not.
        unsafe {
            let context = (*self.fcinfo).context;
            !context.is_null()
                && (*context).type_ == pg_sys::NodeTag::T_CallContext
                && !(*context.cast::<pg_sys::CallContext>()).atomic
        }
    }

    /// The answer `void`.
    pub fn void(&self) -> Result<Datum> {
        Ok(Datum::from(0usize))
    }

    /// The answer NULL.
    pub fn null(&self) -> Result<Datum> {
        // SAFETY: a valid call.
        unsafe { (*self.fcinfo).isnull = true };
        Ok(Datum::from(0usize))
    }

    /// A scalar answer.
    pub fn scalar(&self, value: Value) -> Result<Datum> {
        match error::catching(|| value.to_datum())? {
            (_, true) => self.null(),
            (datum, false) => Ok(datum),
        }
    }

    /// A composite answer with the function's own row type.
    pub fn composite<const N: usize>(&self, values: &[Value; N]) -> Result<Datum> {
        // SAFETY: the function manager filled in flinfo; the values have the types of the declared row type, in order.
        error::catching(|| unsafe {
            let desc = self.row_type()?;
            if !fits(desc, values) {
                return Err(unexpected_row_type());
            }
            let row = values.map(Value::to_datum);
            let (mut datums, mut nulls) = (row.map(|(datum, _)| datum), row.map(|(_, null)| null));
            let tuple = raw::heap_form_tuple(desc, datums.as_mut_ptr(), nulls.as_mut_ptr());
            Ok(raw::HeapTupleHeaderGetDatum((*tuple).t_data))
        })?
    }

    /// The row type that the function is declared with. A named one is the type cache's own: a copy, as
    /// `get_call_result_type` makes it, takes longer than all else here. It stays until the catalog is looked at again. Raw.
    unsafe fn row_type(&self) -> Result<TupleDesc> {
        // SAFETY: as in `composite`. A type that has no columns has no descriptor.
        unsafe {
            let kind = raw::get_fn_expr_rettype((*self.fcinfo).flinfo);
            if kind != pg_sys::InvalidOid {
                let desc = (*raw::lookup_type_cache(kind, pg_sys::TYPECACHE_TUPDESC as _)).tupDesc;
                if !desc.is_null() {
                    return Ok(desc);
                }
            }
            let mut desc: TupleDesc = core::ptr::null_mut();
            if raw::get_call_result_type(self.fcinfo, core::ptr::null_mut(), &mut desc)
                != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE
            {
                return Err(Report::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "function returning record called in context that cannot accept type record",
                )
                .into());
            }
            Ok(raw::BlessTupleDesc(desc))
        }
    }

    /// The scan that called and takes the rows as they come, where there is one. Its caller then leaves the answer to it.
    pub fn scan(&self) -> Option<Scan> {
        // SAFETY: nobody but a scan puts anything there for the functions that ask. The result info is the one of its call.
        unsafe {
            let scan = Scan::of((*(*self.fcinfo).flinfo).fn_extra)?;
            let info = (*self.fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            Some(scan)
        }
    }

    /// Prepares a set-returning answer of rows that are all computed now. Guarded. 0A000 where the caller cannot take a set.
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

/// 42804.
pub fn unexpected_row_type() -> error::Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        "the declared row type is not the one that this library returns",
    )
    .hint("The extension in the database and the installed library differ; run ALTER EXTENSION pg_background UPDATE.")
    .into()
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

/// The rows of a set-returning answer.
#[derive(Clone, Copy)]
pub struct Rows {
    store: *mut Tuplestorestate,
    desc: TupleDesc,
    slot: *mut pg_sys::TupleTableSlot,
    assignments: *mut Assignments,
}

impl Rows {
    /// Rows that are shown one by one in `slot`, a slot for minimal tuples.
    ///
    /// # Safety
    /// Descriptor, slot and assignments live as long as the rows are used.
    pub(in crate::pg) unsafe fn shown(
        desc: TupleDesc,
        slot: *mut pg_sys::TupleTableSlot,
        assignments: *mut Assignments,
    ) -> Self {
        Self {
            store: core::ptr::null_mut(),
            desc,
            slot,
            assignments,
        }
    }

    /// The columns of the rows that are added or shown from now on come with these type modifiers; they get those that were asked for as
    /// if they were assigned to such columns. Raw.
    pub fn come_with(&self, modifier: impl Fn(usize) -> i32) {
        // SAFETY: they live as long as the slot.
        unsafe { (*self.assignments).prepare(self.slot, modifier) }
    }

    /// Whether rows are taken as they are.
    #[inline]
    pub fn are_whole(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.assignments).is_empty() }
    }

    /// From now on rows can be added. Guarded.
    pub fn collect(&mut self) {
        if self.store.is_null() {
            // SAFETY: the store lives as long as the slot.
            unsafe {
                let before = pg_sys::CurrentMemoryContext;
                pg_sys::CurrentMemoryContext = (*self.slot).tts_mcxt;
                self.store = pg_sys::tuplestore_begin_heap(false, false, pg_sys::work_mem);
                pg_sys::CurrentMemoryContext = before;
            }
        }
    }

    /// Where the rows are that were added; NULL where none could be.
    pub(in crate::pg) fn store(&self) -> *mut Tuplestorestate {
        self.store
    }

    /// How many columns a row has.
    pub fn width(&self) -> usize {
        // SAFETY: the descriptor lives as long as the query.
        unsafe { (*self.desc).natts as usize }
    }

    /// The type of column `n`.
    pub fn column_type(&self, n: usize) -> u32 {
        desc::column_type(self.desc, n)
    }

    /// The name of column `n`.
    pub fn column_name(&self, n: usize) -> &[u8] {
        desc::column_name(self.desc, n)
    }

    /// Adds a row. 42804 where the number of values is wrong.
    pub fn push(&self, values: &[Value]) -> Result<()> {
        if !fits(self.desc, values) {
            return Err(unexpected_row_type());
        }
        let (mut datums, mut nulls) = (vec![Datum::from(0usize); values.len()], vec![false; values.len()]);
        // SAFETY: as many values as the descriptor has columns. What an error jumps over owns nothing.
        error::catching(|| unsafe {
            for (n, value) in values.iter().enumerate() {
                (datums[n], nulls[n]) = value.to_datum();
            }
            if !self.are_whole() {
                let slot = self.slot;
                if let Some(clear) = (*(*slot).tts_ops).clear {
                    clear(slot);
                }
                core::ptr::copy_nonoverlapping(datums.as_ptr(), (*slot).tts_values, datums.len());
                core::ptr::copy_nonoverlapping(nulls.as_ptr(), (*slot).tts_isnull, nulls.len());
                raw::ExecStoreVirtualTuple(slot);
                (*self.assignments).apply(slot);
                raw::tuplestore_putvalues(self.store, self.desc, (*slot).tts_values, (*slot).tts_isnull);
                return;
            }
            raw::tuplestore_putvalues(self.store, self.desc, datums.as_mut_ptr(), nulls.as_mut_ptr());
        })
    }

    /// Adds a row in PostgreSQL's own form, aligned, which is copied. Raw.
    pub fn push_tuple_raw(&self, tuple: *mut u8) {
        self.show_tuple_raw(tuple);
        // SAFETY: the slot holds a row.
        unsafe { raw::tuplestore_puttupleslot(self.store, self.slot) };
    }

    /// Puts a row in PostgreSQL's own form, aligned, into the slot, without copying it. Raw.
    pub fn show_tuple_raw(&self, tuple: *mut u8) {
        // SAFETY: the tuple was formed with a descriptor of the same column types.
        unsafe { raw::ExecStoreMinimalTuple(tuple.cast(), self.slot, false) };
    }

    /// Adds a row in PostgreSQL's own form whose values are not yet what they are to be here: anonymous records have other numbers, type
    /// modifiers are others. Raw.
    pub fn push_foreign_tuple_raw(&self, tuple: *mut u8, records: &crate::pg::value::describe::Numbers) {
        self.show_foreign_tuple_raw(tuple, records);
        // SAFETY: the slot's values are all there, and valid until it is filled again.
        unsafe { raw::tuplestore_putvalues(self.store, self.desc, (*self.slot).tts_values, (*self.slot).tts_isnull) };
    }

    /// The same into the slot. What the records need is allocated in the current memory context. Raw.
    pub fn show_foreign_tuple_raw(&self, tuple: *mut u8, records: &crate::pg::value::describe::Numbers) {
        self.show_tuple_raw(tuple);
        // SAFETY: the slot holds a row.
        unsafe {
            let natts = (*self.desc).natts;
            raw::slot_getsomeattrs_int(self.slot, natts as _);
            let (values, nulls) = ((*self.slot).tts_values, (*self.slot).tts_isnull);
            for i in (0..natts as usize).filter(|_| !records.is_empty()) {
                if !*nulls.add(i) {
                    *values.add(i) =
                        crate::pg::value::translate::renumber(*values.add(i), desc::column_type(self.desc, i), records);
                }
            }
            (*self.assignments).apply(self.slot);
        }
    }
}
