//! Rows in PostgreSQL's own form, MinimalTuples, and their descriptions. Raw.

use super::raw;
use core::ffi::c_int;
use core::ptr;
use pgrx::pg_sys::{self, Datum, MinimalTupleData, TupleDesc, TupleTableSlot, varlena};

const HAS_NULL: u16 = pg_sys::HEAP_HASNULL as u16;
const HAS_EXTERNAL: u16 = pg_sys::HEAP_HASEXTERNAL as u16;
const NATTS_MASK: u16 = pg_sys::HEAP_NATTS_MASK as u16;

/// `SizeofMinimalTupleHeader` of `access/htup_details.h`.
const MINIMAL_HEADER: usize = core::mem::offset_of!(MinimalTupleData, t_bits);

/// `MINIMAL_TUPLE_OFFSET`: what a heap tuple's header has more than a minimal one's.
const MINIMAL_OFFSET: usize =
    (core::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_infomask2) - size_of::<u32>()) / 8 * 8;

const fn max_align(size: usize) -> usize {
    (size + 7) & !7
}

/// The type of column `n`.
pub fn column_type(desc: TupleDesc, n: usize) -> u32 {
    // SAFETY: callers stay below the number of columns.
    unsafe { (*tuple_desc_attr(desc, n)).atttypid.to_u32() }
}

/// The name of column `n`.
pub fn column_name<'a>(desc: TupleDesc, n: usize) -> &'a [u8] {
    // SAFETY: callers stay below the number of columns, and keep the descriptor while they look at the name.
    unsafe { super::memory::c_bytes((*tuple_desc_attr(desc, n)).attname.data.as_ptr()) }
}

pub(super) unsafe fn tuple_desc_attr(desc: TupleDesc, n: usize) -> *mut pg_sys::FormData_pg_attribute {
    // SAFETY: `n` is below natts, and attrs is an array of that length.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        (*desc).attrs.as_mut_ptr().add(n)
    }
    // SAFETY: from version 18 on the full attributes follow the compact ones (TupleDescAttr).
    #[cfg(feature = "pg18")]
    unsafe {
        (*desc)
            .compact_attrs
            .as_mut_ptr()
            .add((*desc).natts as usize)
            .cast::<pg_sys::FormData_pg_attribute>()
            .add(n)
    }
}

/// What is to know of a result's columns before its first row.
#[derive(Clone, Copy)]
pub struct Shape {
    desc: TupleDesc,
    natts: usize,
    /// Whether a column may hold an anonymous record, whose description is known by number in one process only.
    pub has_records: bool,
    values: *mut Datum,
    nulls: *mut bool,
}

impl Shape {
    /// The shape of `desc`, with room for one row of values in the current memory context.
    pub fn new(desc: TupleDesc) -> Self {
        // SAFETY: a valid descriptor; the arrays have a place for every column.
        unsafe {
            let natts = (*desc).natts as usize;
            let has_records = (0..natts).any(|n| super::record::may_hold(column_type(desc, n)));
            Self {
                desc,
                natts,
                has_records,
                values: raw::palloc(size_of::<Datum>() * natts.max(1)).cast(),
                nulls: raw::palloc(natts.max(1)).cast(),
            }
        }
    }

    /// How many columns.
    pub fn width(&self) -> usize {
        self.natts
    }

    /// The type of column `n`.
    pub fn column_type(&self, n: usize) -> u32 {
        column_type(self.desc, n)
    }

    /// The name of column `n`.
    pub fn column_name(&self, n: usize) -> &[u8] {
        column_name(self.desc, n)
    }

    /// Calls `visit` for each non-NULL value of a column that may hold anonymous records.
    pub fn each_record(&self, slot: *mut TupleTableSlot, mut visit: impl FnMut(Datum, u32)) {
        // SAFETY: the slot holds a row of this shape.
        unsafe {
            all_columns(slot, self.natts);
            for n in 0..self.natts {
                let kind = self.column_type(n);
                if super::record::may_hold(kind) && !*(*slot).tts_isnull.add(n) {
                    visit(*(*slot).tts_values.add(n), kind);
                }
            }
        }
    }
}

unsafe fn all_columns(slot: *mut TupleTableSlot, natts: usize) {
    // SAFETY: as the inline function slot_getallattrs.
    unsafe {
        if ((*slot).tts_nvalid as usize) < natts {
            raw::slot_getsomeattrs_int(slot, natts as c_int);
        }
    }
}

/// A row on its way: ready to be copied, or to be formed first.
pub enum Row {
    /// `len` bytes at `from`, of which the first four are to be replaced by the length.
    Ready { from: *const u8, len: usize },
    /// `len` bytes that [`form`] writes.
    Loose {
        len: usize,
        data_len: usize,
        header: usize,
        has_null: bool,
    },
}

/// Looks at the row in `slot`. What points out of the row (toasted values, expanded objects) is made part of it, allocated in
/// the current memory context.
pub fn look(slot: *mut TupleTableSlot, shape: &Shape) -> Row {
    // SAFETY: the executor hands out valid slots. The kinds of slot are told apart by their operations (executor/tuptable.h);
    // a stored tuple is taken as it is where it has all columns and nothing in it points elsewhere.
    unsafe {
        let ops = (*slot).tts_ops;
        if ptr::eq(ops, &raw const pg_sys::TTSOpsMinimalTuple) {
            let tuple = (*slot.cast::<pg_sys::MinimalTupleTableSlot>()).mintuple;
            if !tuple.is_null() && is_whole((*tuple).t_infomask, (*tuple).t_infomask2, shape.natts) {
                return Row::Ready {
                    from: tuple.cast(),
                    len: (*tuple).t_len as usize,
                };
            }
        } else if ptr::eq(ops, &raw const pg_sys::TTSOpsBufferHeapTuple)
            || ptr::eq(ops, &raw const pg_sys::TTSOpsHeapTuple)
        {
            // A BufferHeapTupleTableSlot begins with a HeapTupleTableSlot.
            let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
            if !tuple.is_null()
                && is_whole(
                    (*(*tuple).t_data).t_infomask,
                    (*(*tuple).t_data).t_infomask2,
                    shape.natts,
                )
            {
                return Row::Ready {
                    from: (*tuple).t_data.cast::<u8>().add(MINIMAL_OFFSET),
                    len: (*tuple).t_len as usize - MINIMAL_OFFSET,
                };
            }
        }
        all_columns(slot, shape.natts);
        let mut has_null = false;
        for n in 0..shape.natts {
            let (value, null) = (*(*slot).tts_values.add(n), *(*slot).tts_isnull.add(n));
            *shape.nulls.add(n) = null;
            *shape.values.add(n) = value;
            if null {
                has_null = true;
            } else if is_varlena(shape.desc, n) && is_external(value) {
                *shape.values.add(n) = Datum::from(raw::detoast_external_attr(value.cast_mut_ptr()));
            }
        }
        let bitmap = if has_null { shape.natts.div_ceil(8) } else { 0 };
        let header = max_align(MINIMAL_HEADER + bitmap);
        let data_len = raw::heap_compute_data_size(shape.desc, shape.values, shape.nulls);
        Row::Loose {
            len: header + data_len,
            data_len,
            header,
            has_null,
        }
    }
}

/// Writes the row that [`look`] found loose to `to`, which is aligned and has room for its length (`heap_form_minimal_tuple`).
pub fn form(to: *mut u8, shape: &Shape, len: usize, data_len: usize, header: usize, has_null: bool) {
    // SAFETY: the room is there and zeroed first, as heap_fill_tuple asks; the values are those that the sizes came from.
    unsafe {
        ptr::write_bytes(to, 0, len);
        let tuple = to.cast::<MinimalTupleData>();
        (*tuple).t_len = len as u32;
        (*tuple).t_infomask2 = shape.natts as u16;
        (*tuple).t_hoff = (header + MINIMAL_OFFSET) as u8;
        let bits = if has_null {
            (*tuple).t_bits.as_mut_ptr()
        } else {
            ptr::null_mut()
        };
        raw::heap_fill_tuple(
            shape.desc,
            shape.values,
            shape.nulls,
            to.add(header).cast(),
            data_len,
            &raw mut (*tuple).t_infomask,
            bits,
        );
        debug_assert_eq!((*tuple).t_infomask & HAS_NULL != 0, has_null);
    }
}

fn is_whole(infomask: u16, infomask2: u16, natts: usize) -> bool {
    infomask & HAS_EXTERNAL == 0 && (infomask2 & NATTS_MASK) as usize == natts
}

unsafe fn is_varlena(desc: TupleDesc, n: usize) -> bool {
    // SAFETY: `n` is below natts.
    unsafe { (*tuple_desc_attr(desc, n)).attlen == -1 }
}

unsafe fn is_external(value: Datum) -> bool {
    // SAFETY: a varlena value; the first byte tells its kind (VARATT_IS_EXTERNAL).
    unsafe { pgrx::varlena::varatt_is_1b_e(value.cast_mut_ptr::<varlena>()) }
}
