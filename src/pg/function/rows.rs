//! Rows that a function of SQL returns, and the values in them.

use crate::pg::error::{self, Report, Result};
use crate::pg::raw::{self, Raw};
use crate::pg::value::assign::Assignments;
use crate::pg::value::desc;
use crate::pg::{fallible, memory};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, TupleDesc, Tuplestorestate};

pub use crate::pg::value::desc::{BOOL, CHAR, FLOAT8, INT4, INT8, NAME, OID, TEXT, TIMESTAMPTZ};

/// Whether the values have the types of the declared columns. A catalog that was not made for this library must not make one type pass for
/// another.
pub(super) fn fits(desc: TupleDesc, values: &[Value]) -> bool {
    // SAFETY: a valid descriptor.
    let width = unsafe { (*desc).natts as usize };
    width == values.len()
        && values
            .iter()
            .enumerate()
            .all(|(n, value)| value.kind().is_none_or(|kind| kind == desc::column_type(desc, n)))
}

/// A value to be returned.
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
    /// At most 63 bytes.
    Name(&'a [u8]),
    /// The type `"char"`.
    Char(u8),
    /// A value of another type, whose number comes first; it lives as long as it is used.
    Other(u32, Datum),
}

impl Value<'_> {
    /// Converts the value to a Datum, in the current memory context, and tells whether it is NULL.
    pub(in crate::pg) fn to_datum(self, raw: Raw<'_>) -> (Datum, bool) {
        let datum = match self {
            Value::Null => return (Datum::from(0usize), true),
            Value::Bool(value) => Datum::from(value),
            Value::Int4(value) => Datum::from(value),
            Value::Int8(value) | Value::Timestamp(value) => Datum::from(value),
            Value::Float8(value) => Datum::from(value.to_bits()),
            Value::Oid(value) => Datum::from(value),
            Value::Text(bytes) => text_datum(raw, bytes),
            Value::Name(bytes) => name_datum(raw, bytes),
            Value::Char(value) => Datum::from(value as i8),
            Value::Other(_, datum) => datum,
        };
        (datum, false)
    }

    /// The type of the value, or None for NULL, which fits all types.
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
            Value::Name(_) => NAME,
            Value::Char(_) => CHAR,
            Value::Other(kind, _) => *kind,
        })
    }

    /// `Text`, or NULL for None.
    pub fn text_or_null(text: Option<&[u8]>) -> Value<'_> {
        text.map_or(Value::Null, Value::Text)
    }

    /// `Timestamp`, or NULL for None.
    pub fn timestamp_or_null(time: Option<i64>) -> Value<'static> {
        time.map_or(Value::Null, Value::Timestamp)
    }

    /// `Timestamp`, or NULL for 0.
    pub fn time_or_null(time: i64) -> Value<'static> {
        if time == 0 { Value::Null } else { Value::Timestamp(time) }
    }
}

/// Makes a `text` in the current memory context.
pub fn text_datum(raw: Raw<'_>, bytes: &[u8]) -> Datum {
    // SAFETY: the bytes are in the database's encoding, because they came from it.
    unsafe {
        Datum::from(raw::cstring_to_text_with_len(
            raw,
            bytes.as_ptr().cast(),
            bytes.len() as _,
        ))
    }
}

/// A copy of the bytes of a `text`. Guarded. 53200.
pub(in crate::pg) fn copy_of_text(datum: Datum) -> Result<Vec<u8>> {
    // SAFETY: a datum of the type text.
    let bytes = error::catching(|raw| unsafe {
        let value = raw::pg_detoast_datum(raw, datum.cast_mut_ptr());
        memory::view(
            pgrx::varlena::vardata_any(value).cast(),
            pgrx::varlena::varsize_any_exhdr(value),
        )
    })?;
    fallible::copied(bytes)
}

/// A `name` in the current memory context.
fn name_datum(raw: Raw<'_>, bytes: &[u8]) -> Datum {
    // SAFETY: a name has a fixed size, and ends with a NUL.
    unsafe {
        let name = raw::palloc0(raw, size_of::<pg_sys::NameData>()).cast::<u8>();
        let len = bytes.len().min(size_of::<pg_sys::NameData>() - 1);
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), name, len);
        Datum::from(name)
    }
}

/// The error for a row type that does not match, 42804.
pub fn unexpected_row_type() -> error::Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        "the declared row type is not the one that this library returns",
    )
    .hint("The extension in the database and the installed library differ; run ALTER EXTENSION pg_background UPDATE.")
    .into()
}

/// The rows of a set-returning result.
#[derive(Clone, Copy)]
pub struct Rows {
    pub(super) store: *mut Tuplestorestate,
    pub(super) desc: TupleDesc,
    pub(super) slot: *mut pg_sys::TupleTableSlot,
    pub(super) assignments: *mut Assignments,
}

impl Rows {
    /// Rows that are shown one by one in `slot`, a slot for minimal tuples.
    ///
    /// # Safety
    /// The descriptor, the slot and the assignments live as long as the rows are used.
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

    /// Sets the type modifiers with which the columns of further rows come. Their values are converted to the declared modifiers as in an
    /// assignment.
    pub fn come_with(&self, raw: Raw<'_>, modifier: &dyn Fn(usize) -> i32) {
        // SAFETY: they live as long as the slot.
        unsafe { (*self.assignments).prepare(raw, self.slot, modifier) }
    }

    /// Whether rows are taken as they are, without assignments.
    #[inline]
    pub fn are_whole(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.assignments).is_empty() }
    }

    /// Prepares for adding rows. Guarded.
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

    /// The tuplestore of the rows that were added, or NULL if none could be added.
    pub(in crate::pg) fn store(&self) -> *mut Tuplestorestate {
        self.store
    }

    /// The number of columns of a row.
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

    /// Adds a row. Fails with 42804 if the values do not match the row type.
    pub fn push(&self, values: &[Value]) -> Result<()> {
        if !fits(self.desc, values) {
            return Err(unexpected_row_type());
        }
        let (mut datums, mut nulls) = (vec![Datum::from(0usize); values.len()], vec![false; values.len()]);
        // SAFETY: as many values as the descriptor has columns. What an error jumps over owns nothing.
        error::catching(|raw| unsafe {
            for (n, value) in values.iter().enumerate() {
                (datums[n], nulls[n]) = value.to_datum(raw);
            }
            if !self.are_whole() {
                let slot = self.slot;
                if let Some(clear) = (*(*slot).tts_ops).clear {
                    clear(slot);
                }
                core::ptr::copy_nonoverlapping(datums.as_ptr(), (*slot).tts_values, datums.len());
                core::ptr::copy_nonoverlapping(nulls.as_ptr(), (*slot).tts_isnull, nulls.len());
                raw::ExecStoreVirtualTuple(raw, slot);
                (*self.assignments).apply(raw, slot);
                raw::tuplestore_putvalues(raw, self.store, self.desc, (*slot).tts_values, (*slot).tts_isnull);
                return;
            }
            raw::tuplestore_putvalues(raw, self.store, self.desc, datums.as_mut_ptr(), nulls.as_mut_ptr());
        })
    }

    /// Adds a copy of a row in PostgreSQL's own form, which must be aligned.
    pub fn push_tuple_raw(&self, raw: Raw<'_>, tuple: *mut u8) {
        self.show_tuple_raw(raw, tuple);
        // SAFETY: the slot holds a row.
        unsafe { raw::tuplestore_puttupleslot(raw, self.store, self.slot) };
    }

    /// Puts a row in PostgreSQL's own form, which must be aligned, into the slot without copying it.
    pub fn show_tuple_raw(&self, raw: Raw<'_>, tuple: *mut u8) {
        // SAFETY: the tuple was formed with a descriptor of the same column types.
        unsafe { raw::ExecStoreMinimalTuple(raw, tuple.cast(), self.slot, false) };
    }

    /// Adds a row in PostgreSQL's own form whose values must be converted first: the numbers of anonymous records, the encoding of texts,
    /// and type modifiers.
    pub fn push_tuple_with_records(&self, raw: Raw<'_>, tuple: *mut u8, records: &crate::pg::value::describe::Numbers) {
        self.show_tuple_with_records(raw, tuple, records);
        // SAFETY: the slot's values are all there, and valid until it is filled again.
        unsafe {
            raw::tuplestore_putvalues(
                raw,
                self.store,
                self.desc,
                (*self.slot).tts_values,
                (*self.slot).tts_isnull,
            )
        };
    }

    /// As [`Rows::push_tuple_with_records`], but puts the row into the slot. The converted values are in the current memory context.
    pub fn show_tuple_with_records(&self, raw: Raw<'_>, tuple: *mut u8, records: &crate::pg::value::describe::Numbers) {
        self.show_tuple_raw(raw, tuple);
        // SAFETY: the slot holds a row.
        unsafe {
            let natts = (*self.desc).natts;
            raw::slot_getsomeattrs_int(raw, self.slot, natts as _);
            let (values, nulls) = ((*self.slot).tts_values, (*self.slot).tts_isnull);
            for i in (0..natts as usize).filter(|_| !records.is_empty()) {
                if !*nulls.add(i) {
                    *values.add(i) = crate::pg::value::translate::renumber(
                        raw,
                        *values.add(i),
                        desc::column_type(self.desc, i),
                        records,
                    );
                }
            }
            (*self.assignments).apply(raw, self.slot);
        }
    }
}
