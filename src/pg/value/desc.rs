//! Descriptions of rows: the types of their columns.

use crate::pg::raw::{self, Raw};
use core::ptr;
use pgrx::pg_sys::{self, Datum, HeapTupleHeader, TupleDesc};

// Oids of `catalog/pg_type_d.h`.
pub const BOOL: u32 = 16;
pub const CHAR: u32 = 18;
pub const NAME: u32 = 19;
pub const INT8: u32 = 20;
pub const INT4: u32 = 23;
pub const TEXT: u32 = 25;
pub const OID: u32 = 26;
pub const JSON: u32 = 114;
pub const XML: u32 = 142;
pub const NODE_TREE: u32 = 194;
pub const FLOAT8: u32 = 701;
pub const UNKNOWN: u32 = 705;
pub const BPCHAR: u32 = 1042;
pub const VARCHAR: u32 = 1043;
pub const TEXT_ARRAY: u32 = 1009;
pub const INT8_ARRAY: u32 = 1016;
pub const TIMESTAMPTZ: u32 = 1184;
pub const INTERVAL: u32 = 1186;
pub const REFCURSOR: u32 = 1790;
pub const RECORD: u32 = 2249;
pub const CSTRING: u32 = 2275;
pub const ANY_ARRAY: u32 = 2277;
pub const VOID: u32 = 2278;
pub const RECORD_ARRAY: u32 = 2287;
pub const TSVECTOR: u32 = 3614;
pub const TSQUERY: u32 = 3615;
pub const JSONB: u32 = 3802;
pub const JSONPATH: u32 = 4072;
pub const MCV_LIST: u32 = 5017;

/// `FirstNormalObjectId` of `access/transam.h`: types with this oid or a higher one were created by users.
pub const FIRST_USER_TYPE: u32 = 16384;

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

/// TupleDescAttr: the attribute of column `n`.
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

/// Whether a value of this type may hold an anonymous record.
pub fn may_hold(kind: u32) -> bool {
    kind == RECORD || kind == RECORD_ARRAY
}

/// Returns the values of a row of `desc`, and which of them are NULL, in the current memory context.
pub(in crate::pg) unsafe fn deform(raw: Raw<'_>, header: HeapTupleHeader, desc: TupleDesc) -> (*mut Datum, *mut bool) {
    // SAFETY: the header belongs to a row of `desc`; the arrays have room for its columns.
    unsafe {
        let natts = (*desc).natts as usize;
        let values = raw::palloc(raw, size_of::<Datum>() * natts.max(1)).cast::<Datum>();
        let nulls = raw::palloc(raw, natts.max(1)).cast::<bool>();
        let mut tuple = pg_sys::HeapTupleData {
            t_len: (((*header).t_choice.t_datum.datum_len_ as u32) >> 2) & 0x3fff_ffff,
            t_data: header,
            ..Default::default()
        };
        raw::heap_deform_tuple(raw, &mut tuple, desc, values, nulls);
        (values, nulls)
    }
}

/// Releases a descriptor that lookup_rowtype_tupdesc returned.
pub(in crate::pg) unsafe fn release(raw: Raw<'_>, desc: TupleDesc) {
    // SAFETY: lookup_rowtype_tupdesc pinned it where it is counted (ReleaseTupleDesc).
    unsafe {
        if (*desc).tdrefcount >= 0 {
            raw::DecrTupleDescRefCount(raw, desc);
        }
    }
}

/// Returns the elements of an array of rows, which of them are NULL, how many there are, and the array.
///
/// # Safety
/// The value is a non-NULL array of a composite type.
pub(in crate::pg) unsafe fn elements(
    raw: Raw<'_>,
    value: Datum,
) -> (*mut Datum, *mut bool, usize, *mut pg_sys::ArrayType) {
    // SAFETY: see above.
    unsafe {
        let array = raw::pg_detoast_datum(raw, value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut elements, mut nulls, mut count) = (ptr::null_mut(), ptr::null_mut(), 0);
        raw::deconstruct_array(
            raw,
            array,
            (*array).elemtype,
            -1,
            false,
            b'd' as _,
            &mut elements,
            &mut nulls,
            &mut count,
        );
        (elements, nulls, count as usize, array)
    }
}
