//! Descriptions of rows: the types of their columns. Raw.

use crate::pg::raw;
use pgrx::pg_sys::{self, Datum, HeapTupleHeader, TupleDesc};

/// The type of column `n`.
pub fn column_type(desc: TupleDesc, n: usize) -> u32 {
    // SAFETY: callers stay below the number of columns.
    unsafe { (*tuple_desc_attr(desc, n)).atttypid.to_u32() }
}

/// The name of column `n`.
pub fn column_name<'a>(desc: TupleDesc, n: usize) -> &'a [u8] {
    // SAFETY: callers stay below the number of columns, and keep the descriptor while they look at the name.
    unsafe { crate::pg::memory::c_bytes((*tuple_desc_attr(desc, n)).attname.data.as_ptr()) }
}

pub(in crate::pg) unsafe fn tuple_desc_attr(desc: TupleDesc, n: usize) -> *mut pg_sys::FormData_pg_attribute {
    // SAFETY: `n` is below natts, and attrs is an array of that length.
    #[cfg(not(since_18))]
    unsafe {
        (*desc).attrs.as_mut_ptr().add(n)
    }
    // SAFETY: from version 18 on the full attributes follow the compact ones (TupleDescAttr).
    #[cfg(since_18)]
    unsafe {
        (*desc)
            .compact_attrs
            .as_mut_ptr()
            .add((*desc).natts as usize)
            .cast::<pg_sys::FormData_pg_attribute>()
            .add(n)
    }
}

pub const RECORD: u32 = 2249;

/// `RECORDARRAYOID` of `catalog/pg_type_d.h`.
pub const RECORD_ARRAY: u32 = 2287;

/// Whether a column of this type may hold an anonymous record.
pub fn may_hold(kind: u32) -> bool {
    kind == RECORD || kind == RECORD_ARRAY
}

pub(in crate::pg) unsafe fn deform(header: HeapTupleHeader, desc: TupleDesc) -> (*mut Datum, *mut bool) {
    // SAFETY: the header belongs to a row of `desc`; the arrays have room for its columns.
    unsafe {
        let natts = (*desc).natts as usize;
        let values = raw::palloc(size_of::<Datum>() * natts.max(1)).cast::<Datum>();
        let nulls = raw::palloc(natts.max(1)).cast::<bool>();
        let mut tuple = pg_sys::HeapTupleData {
            t_len: (((*header).t_choice.t_datum.datum_len_ as u32) >> 2) & 0x3fff_ffff,
            t_data: header,
            ..Default::default()
        };
        raw::heap_deform_tuple(&mut tuple, desc, values, nulls);
        (values, nulls)
    }
}

pub(in crate::pg) unsafe fn release(desc: TupleDesc) {
    // SAFETY: lookup_rowtype_tupdesc pinned it where it is counted (ReleaseTupleDesc).
    unsafe {
        if (*desc).tdrefcount >= 0 {
            raw::DecrTupleDescRefCount(desc);
        }
    }
}
