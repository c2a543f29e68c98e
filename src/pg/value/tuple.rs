//! Rows in PostgreSQL's own form, as MinimalTuples, and their descriptions.

use crate::pg::memory::padded;
use crate::pg::raw::{self, Raw};
use crate::pg::value::desc::{column_name, column_type, tuple_desc_attr};
use core::ffi::{CStr, c_int};
use core::ptr;
use pgrx::pg_sys::{self, Datum, MinimalTupleData, TupleDesc, TupleTableSlot, varlena};

const HAS_NULL: u16 = pg_sys::HEAP_HASNULL as u16;

const HAS_VAR_WIDTH: u16 = pg_sys::HEAP_HASVARWIDTH as u16;

const HAS_EXTERNAL: u16 = pg_sys::HEAP_HASEXTERNAL as u16;

const NATTS_MASK: u16 = pg_sys::HEAP_NATTS_MASK as u16;

/// `SizeofMinimalTupleHeader` of `access/htup_details.h`.
const MINIMAL_HEADER: usize = core::mem::offset_of!(MinimalTupleData, t_bits);

/// `MINIMAL_TUPLE_OFFSET`: by how much a heap tuple's header is longer than that of a minimal tuple.
const MINIMAL_OFFSET: usize =
    (core::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_infomask2) - size_of::<u32>()) / 8 * 8;

/// The columns of a result, prepared before its first row.
#[derive(Clone, Copy)]
pub struct Shape {
    desc: TupleDesc,
    natts: usize,
    /// Whether a column may hold an anonymous record, whose description has a number that is valid in one process only.
    pub has_records: bool,
    columns: *mut Layout,
    values: *mut Datum,
    nulls: *mut bool,
}

/// The layout of a column's values in a row.
#[derive(Clone, Copy)]
struct Layout {
    /// `attlen`: bytes, -1 for a varlena, -2 for a C string.
    len: i16,
    by_value: bool,
    /// The alignment of a value in bytes.
    align: usize,
    /// Whether a varlena may be stored with a short header.
    packable: bool,
}

impl Layout {
    unsafe fn new(desc: TupleDesc, n: usize) -> Self {
        // SAFETY: `n` is below natts.
        let column = unsafe { &*tuple_desc_attr(desc, n) };
        Self {
            len: column.attlen,
            by_value: column.attbyval,
            align: match column.attalign as u8 {
                pg_sys::TYPALIGN_CHAR => 1,
                pg_sys::TYPALIGN_SHORT => 2,
                pg_sys::TYPALIGN_INT => 4,
                _ => 8,
            },
            packable: column.attlen == -1 && column.attstorage as u8 != pg_sys::TYPSTORAGE_PLAIN,
        }
    }

    fn aligned(&self, at: usize) -> usize {
        (at + self.align - 1) & !(self.align - 1)
    }

    /// Computes where a value goes in a row that has `at` bytes of data before it. The value must not be an external varlena.
    #[inline]
    unsafe fn field(&self, at: usize, value: Datum) -> Field {
        // SAFETY: a non-NULL value of this column (heap_compute_data_size, fill_val).
        unsafe {
            if self.len > 0 {
                return Field::whole(self.aligned(at), self.len as usize);
            }
            if self.len == -2 {
                return Field::whole(at, CStr::from_ptr(value.cast_mut_ptr()).to_bytes_with_nul().len());
            }
            let value = value.cast_mut_ptr::<varlena>();
            if pgrx::varlena::varatt_is_1b(value) {
                return Field::whole(at, pgrx::varlena::varsize_1b(value));
            }
            let len = pgrx::varlena::varsize_4b(value);
            if self.packable && pgrx::varlena::varatt_is_4b_u(value) && len - LONG_HEADER < SHORT_MAX {
                return Field {
                    at,
                    len: len - LONG_HEADER + 1,
                    shortened: true,
                };
            }
            Field::whole(self.aligned(at), len)
        }
    }
}

/// `VARHDRSZ` of `c.h`.
const LONG_HEADER: usize = 4;

/// `VARATT_SHORT_MAX` of `varatt.h`.
const SHORT_MAX: usize = 0x7f;

/// Where a value goes, how many bytes it takes there, and whether its header is shortened.
struct Field {
    at: usize,
    len: usize,
    shortened: bool,
}

impl Field {
    fn whole(at: usize, len: usize) -> Self {
        Self {
            at,
            len,
            shortened: false,
        }
    }
}

impl Shape {
    /// The shape of `desc`, with space for one row of values in the current memory context.
    pub fn new(raw: Raw<'_>, desc: TupleDesc) -> Self {
        // SAFETY: a valid descriptor; the arrays have an element for every column.
        unsafe {
            let natts = (*desc).natts as usize;
            let has_records = (0..natts).any(|n| crate::pg::value::desc::may_hold(column_type(desc, n)));
            Self {
                desc,
                natts,
                has_records,
                columns: columns(raw, desc, natts),
                values: raw::palloc(raw, size_of::<Datum>() * natts.max(1)).cast(),
                nulls: raw::palloc(raw, natts.max(1)).cast(),
            }
        }
    }

    /// The descriptor.
    pub(in crate::pg) fn desc(&self) -> TupleDesc {
        self.desc
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        self.natts
    }

    /// The type of column `n`.
    pub fn column_type(&self, n: usize) -> u32 {
        column_type(self.desc, n)
    }

    /// The type modifier of column `n`.
    pub fn column_modifier(&self, n: usize) -> i32 {
        // SAFETY: callers stay below the number of columns.
        unsafe { (*tuple_desc_attr(self.desc, n)).atttypmod }
    }

    /// The name of column `n`.
    pub fn column_name(&self, n: usize) -> &[u8] {
        column_name(self.desc, n)
    }

    /// Calls `visit` for each non-NULL value of a column that may hold anonymous records.
    pub fn each_record(&self, raw: Raw<'_>, slot: *mut TupleTableSlot, visit: &mut dyn FnMut(Datum, u32)) {
        // SAFETY: the slot holds a row of this shape.
        unsafe {
            all_columns(raw, slot, self.natts);
            for n in 0..self.natts {
                let kind = self.column_type(n);
                if crate::pg::value::desc::may_hold(kind) && !*(*slot).tts_isnull.add(n) {
                    visit(*(*slot).tts_values.add(n), kind);
                }
            }
        }
    }
}

/// Deforms the slot's row so that all its values are available, as slot_getallattrs does.
unsafe fn all_columns(raw: Raw<'_>, slot: *mut TupleTableSlot, natts: usize) {
    // SAFETY: as the inline function slot_getallattrs.
    unsafe {
        if ((*slot).tts_nvalid as usize) < natts {
            raw::slot_getsomeattrs_int(raw, slot, natts as c_int);
        }
    }
}

/// Computes the layout of all columns of `desc`, in the current memory context.
unsafe fn columns(raw: Raw<'_>, desc: TupleDesc, natts: usize) -> *mut Layout {
    // SAFETY: the array has an element for each column.
    unsafe {
        let columns = raw::palloc(raw, size_of::<Layout>() * natts.max(1)).cast::<Layout>();
        for n in 0..natts {
            columns.add(n).write(Layout::new(desc, n));
        }
        columns
    }
}

/// A row that can be copied as it is, or that must be formed first.
pub enum Row {
    /// `len` bytes at `from`. The first four must be replaced by the length.
    Ready { from: *const u8, len: usize },
    /// `len` bytes, which [`form`] writes.
    Loose { len: usize, has_null: bool },
}

/// Examines the row in `slot`. External values (toasted values, expanded objects) are copied into the current memory context, so that they
/// become part of the row.
pub fn look(raw: Raw<'_>, slot: *mut TupleTableSlot, shape: &Shape) -> Row {
    // SAFETY: the executor hands out valid slots. The kinds of slot are told apart by their operations (executor/tuptable.h);
    // a stored tuple is taken as it is where it has all columns and no value in it is external.
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
        all_columns(raw, slot, shape.natts);
        let mut has_null = false;
        let mut data_len = 0;
        for n in 0..shape.natts {
            let (mut value, null) = (*(*slot).tts_values.add(n), *(*slot).tts_isnull.add(n));
            *shape.nulls.add(n) = null;
            if null {
                has_null = true;
                continue;
            }
            let column = &*shape.columns.add(n);
            if column.len == -1 && is_external(value) {
                value = Datum::from(raw::detoast_external_attr(raw, value.cast_mut_ptr()));
            }
            *shape.values.add(n) = value;
            let field = column.field(data_len, value);
            data_len = field.at + field.len;
        }
        Row::Loose {
            len: header_len(shape.natts, has_null) + data_len,
            has_null,
        }
    }
}

/// Writes the row in `slot` to `to`, which must be aligned. Returns its length, or None if the row takes more than `room` bytes less
/// [`SLACK`], is not stored in the slot as values, or has an external value.
pub fn form_at_once(to: *mut u8, room: usize, slot: *mut TupleTableSlot, shape: &Shape) -> Option<usize> {
    // SAFETY: the slot has a value for each column.
    unsafe {
        if !ptr::eq((*slot).tts_ops, &raw const pg_sys::TTSOpsVirtual) || ((*slot).tts_nvalid as usize) < shape.natts {
            return None;
        }
        let (values, nulls) = ((*slot).tts_values, (*slot).tts_isnull);
        let has_null = (0..shape.natts).any(|n| *nulls.add(n));
        write(to, room, shape, values, nulls, has_null)
    }
}

/// Writes the row that [`look`] returned as `Loose` to `to`, which must be aligned. Returns None if it takes more than `room` bytes less
/// [`SLACK`].
pub fn form(to: *mut u8, room: usize, shape: &Shape, has_null: bool) -> Option<usize> {
    // SAFETY: `look` has put a value, or NULL, there for each column.
    unsafe { write(to, room, shape, shape.values, shape.nulls, has_null) }
}

/// How many bytes of room a row needs beyond its length while it is written.
pub const SLACK: usize = 2 * size_of::<u64>();

/// Writes the same bytes as `heap_form_minimal_tuple`, in one pass instead of two.
///
/// The bytes between values are zeroed, since a reader uses them to tell padding from a short header. The rest of the last word is zeroed
/// too. Returns None if there is too little room or if a value is external.
///
/// # Safety
/// `to` is aligned as a row is, and `room` bytes may be written there; there is a value, or NULL, for each column.
#[inline(always)]
unsafe fn write(
    to: *mut u8,
    room: usize,
    shape: &Shape,
    values: *const Datum,
    nulls: *const bool,
    has_null: bool,
) -> Option<usize> {
    // SAFETY: see above. Each write is checked before to be within the room: the word that is cleared,
    // and a value passed by value with what aligns it, take no more than the slack.
    unsafe {
        let header = header_len(shape.natts, has_null);
        if header > room {
            return None;
        }
        ptr::write_bytes(to, 0, header);
        let bitmap = (*to.cast::<MinimalTupleData>()).t_bits.as_mut_ptr();
        let mut infomask = if has_null { HAS_NULL } else { 0 };
        let mut end = header;
        for n in 0..shape.natts {
            if has_null {
                if *nulls.add(n) {
                    continue;
                }
                *bitmap.add(n / 8) |= 1 << (n % 8);
            }
            let (column, value) = (&*shape.columns.add(n), *values.add(n));
            if end + SLACK > room {
                return None;
            }
            to.add(end).cast::<u64>().write_unaligned(0);
            if column.by_value {
                let at = column.aligned(end);
                write_by_value(to.add(at), column.len as usize, value);
                end = at + column.len as usize;
                continue;
            }
            if column.len == -1 && is_external(value) {
                return None;
            }
            let field = column.field(end, value);
            if field.at + field.len > room {
                return None;
            }
            write_by_reference(to.add(field.at), &field, value);
            if column.len < 0 {
                infomask |= HAS_VAR_WIDTH;
            }
            end = field.at + field.len;
        }
        if end + SLACK / 2 > room {
            return None;
        }
        to.add(end).cast::<u64>().write_unaligned(0);
        let tuple = to.cast::<MinimalTupleData>();
        (*tuple).t_len = end as u32;
        (*tuple).t_infomask2 = shape.natts as u16;
        (*tuple).t_infomask = infomask;
        (*tuple).t_hoff = (header + MINIMAL_OFFSET) as u8;
        Some(end)
    }
}

/// The length of a row's header. The data after it is aligned.
fn header_len(natts: usize, has_null: bool) -> usize {
    padded(MINIMAL_HEADER + if has_null { natts.div_ceil(8) } else { 0 })
}

unsafe fn write_by_value(at: *mut u8, len: usize, value: Datum) {
    // SAFETY: the caller's address is aligned and has room.
    unsafe {
        match len {
            1 => at.write(value.value() as u8),
            2 => at.cast::<u16>().write(value.value() as u16),
            4 => at.cast::<u32>().write(value.value() as u32),
            _ => at.cast::<usize>().write(value.value()),
        }
    }
}

unsafe fn write_by_reference(at: *mut u8, field: &Field, value: Datum) {
    // SAFETY: the caller's address has room for the value as `field` describes it.
    unsafe {
        let from = value.cast_mut_ptr::<u8>();
        if field.shortened {
            ptr::copy_nonoverlapping(from.add(LONG_HEADER), at.add(1), field.len - 1);
            pgrx::varlena::set_varsize_short(at.cast(), field.len as i32);
        } else {
            ptr::copy_nonoverlapping(from, at, field.len);
        }
    }
}

/// Whether a stored tuple has all columns and no external value.
fn is_whole(infomask: u16, infomask2: u16, natts: usize) -> bool {
    infomask & HAS_EXTERNAL == 0 && (infomask2 & NATTS_MASK) as usize == natts
}

unsafe fn is_external(value: Datum) -> bool {
    // SAFETY: a varlena value; the first byte tells its kind (VARATT_IS_EXTERNAL).
    unsafe { pgrx::varlena::varatt_is_1b_e(value.cast_mut_ptr::<varlena>()) }
}
