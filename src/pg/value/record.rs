//! Anonymous records between processes.
//!
//! A value of type `record` names its row type by a number that only its own process knows. The worker describes each such
//! type before the first row that holds one, and the reader writes its own number into the values. Types that can hold a
//! record at any depth are `record` and `record[]` alone: columns of tables and fields of named types cannot be pseudo-types.

use crate::pg::error::{self, Result};
use crate::pg::value::tuple::{column_type, tuple_desc_attr};
use crate::pg::value::{border, encoding};
use crate::pg::{compat, memory, raw};
use core::ptr;
use pgrx::pg_sys::{self, Datum, HeapTupleHeader, Oid, TupleDesc};

const RECORD: u32 = 2249;
/// `RECORDARRAYOID` of `catalog/pg_type_d.h`.
const RECORD_ARRAY: u32 = 2287;

/// Bytes of one column in a description.
const COLUMN: usize = 4 + 4 + 4 + 64;

/// Whether a column of this type may hold an anonymous record.
pub fn may_hold(kind: u32) -> bool {
    kind == RECORD || kind == RECORD_ARRAY
}

/// Calls `visit` with the number of each anonymous row type in `value`, inner ones first. Raw.
pub fn each_number(value: Datum, kind: u32, visit: &mut dyn FnMut(i32)) {
    // SAFETY: `value` is a non-NULL value of type `kind`, which says how it is laid out.
    unsafe {
        if kind == RECORD_ARRAY {
            let (elements, nulls, count, _) = elements(value);
            for n in 0..count {
                if !*nulls.add(n) {
                    each_number(*elements.add(n), RECORD, visit);
                }
            }
        } else if let Some((_, desc, values, nulls)) = open(value) {
            for n in 0..(*desc).natts as usize {
                if may_hold(column_type(desc, n)) && !*nulls.add(n) {
                    each_number(*values.add(n), column_type(desc, n), visit);
                }
            }
            visit((*desc).tdtypmod);
            release(desc);
        } else {
            border::check_named_record(named_type(value));
        }
    }
}

/// The description of an anonymous row type for another process: its number, the number of columns, then for each column type,
/// modifier, fingerprint of the type and name. Raw.
pub fn describe(number: i32, write: &mut dyn FnMut(&[u8])) {
    // SAFETY: the number came from a value of this process.
    unsafe {
        let desc = raw::lookup_rowtype_tupdesc(Oid::from(RECORD), number);
        write(&number.to_ne_bytes());
        write(&(*desc).natts.to_ne_bytes());
        for n in 0..(*desc).natts as usize {
            let column = tuple_desc_attr(desc, n);
            border::check_record_column(
                (*column).atttypid.to_u32(),
                memory::c_bytes((*column).attname.data.as_ptr()),
            );
            write(&(*column).atttypid.to_u32().to_ne_bytes());
            write(&(*column).atttypmod.to_ne_bytes());
            write(&crate::pg::value::fingerprint::fingerprint((*column).atttypid.to_u32()).to_ne_bytes());
            write(&(*column).attname.data.map(|byte| byte as u8));
        }
        release(desc);
    }
}

/// How many bytes [`describe`] writes. Raw.
pub fn description_len(number: i32) -> usize {
    // SAFETY: as in `describe`.
    unsafe {
        let desc = raw::lookup_rowtype_tupdesc(Oid::from(RECORD), number);
        let len = 8 + COLUMN * (*desc).natts as usize;
        release(desc);
        len
    }
}

/// Whether a column's type in a description looks different here and now. Raw.
pub fn has_changed(description: &[u8]) -> bool {
    columns(description)
        .any(|column| crate::pg::value::fingerprint::fingerprint(number(column, 0) as u32) != number(column, 8) as u32)
}

/// Calls `visit` with type and name of each column in a description.
pub fn each_column(description: &[u8], visit: &mut dyn FnMut(u32, &[u8])) {
    for column in columns(description) {
        let name = column.get(12..).unwrap_or_default();
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        visit(number(column, 0) as u32, &name[..end]);
    }
}

fn columns(description: &[u8]) -> impl Iterator<Item = &[u8]> {
    description.get(8..).unwrap_or_default().chunks_exact(COLUMN)
}

fn number(bytes: &[u8], at: usize) -> i32 {
    bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, i32::from_ne_bytes)
}

/// What the values of another process need to be values of this one: the numbers of its anonymous row types with those that they
/// have here, and the encoding of its texts.
#[derive(Default)]
pub struct Numbers {
    pairs: Vec<(i32, i32)>,
    /// None where it is this process's own.
    encoding: Option<i32>,
}

impl Numbers {
    /// Whether values are taken as they are.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.encoding.is_none()
    }

    /// The texts come in this encoding.
    pub fn texts_come_in(&mut self, from: i32) {
        self.encoding = encoding::differ(from, encoding::of_database()).then_some(from);
    }

    /// Makes the row type of a description known to this process.
    pub fn learn(&mut self, description: &[u8]) -> Result<()> {
        error::catching(|| self.learn_raw(description))
    }

    /// The same. Raw.
    pub fn learn_raw(&mut self, description: &[u8]) {
        let natts = number(description, 4);
        // SAFETY: a descriptor of `natts` columns is made and filled; BlessTupleDesc copies it into the type cache.
        let here = unsafe {
            let desc = raw::CreateTemplateTupleDesc(natts);
            for (n, column) in columns(description).take(natts as usize).enumerate() {
                let mut name = [0u8; 64];
                name.iter_mut()
                    .zip(column.iter().skip(12))
                    .for_each(|(to, from)| *to = *from);
                let name = match self.encoding {
                    Some(from) => encoding::name_here(&name, from),
                    None => name,
                };
                raw::TupleDescInitEntry(
                    desc,
                    (n + 1) as _,
                    name.as_ptr().cast(),
                    Oid::from(number(column, 0) as u32),
                    number(column, 4),
                    0,
                );
            }
            compat::finish_descriptor(desc);
            (*raw::BlessTupleDesc(desc)).tdtypmod
        };
        memory::push_raw(&mut self.pairs, (number(description, 0), here));
    }

    fn local(&self, number: i32) -> Option<i32> {
        self.pairs
            .iter()
            .rev()
            .find(|(there, _)| *there == number)
            .map(|(_, here)| *here)
    }
}

/// The value as one of this process's, itself or a copy in the current memory context. Raw.
pub fn renumber(value: Datum, kind: u32, numbers: &Numbers) -> Datum {
    if !may_hold(kind) {
        return match numbers.encoding {
            // SAFETY: a non-NULL value of the type.
            Some(from) => unsafe { encoding::value(value, kind, numbers, from) },
            None => value,
        };
    }
    // SAFETY: as in `each_number`; the row is formed anew with a descriptor of the same columns.
    unsafe {
        if kind == RECORD_ARRAY {
            let (elements, nulls, count, array) = elements(value);
            for n in 0..count {
                if !*nulls.add(n) {
                    *elements.add(n) = renumber(*elements.add(n), RECORD, numbers);
                }
            }
            let dims = array.cast::<u8>().add(size_of::<pg_sys::ArrayType>()).cast::<i32>();
            let ndim = (*array).ndim;
            let made = raw::construct_md_array(
                elements,
                nulls,
                ndim,
                dims,
                dims.add(ndim as usize),
                Oid::from(RECORD),
                -1,
                false,
                b'd' as _,
            );
            return Datum::from(made);
        }
        let header = raw::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let named = (*header).t_choice.t_datum.datum_typeid.to_u32();
        if named != RECORD {
            return renumber(value, named, numbers);
        }
        let Some(here) = numbers.local((*header).t_choice.t_datum.datum_typmod) else {
            return value;
        };
        let desc = raw::lookup_rowtype_tupdesc(Oid::from(RECORD), here);
        let (values, nulls) = deform(header, desc);
        for n in 0..(*desc).natts as usize {
            if !*nulls.add(n) {
                *values.add(n) = renumber(*values.add(n), column_type(desc, n), numbers);
            }
        }
        let tuple = raw::heap_form_tuple(desc, values, nulls);
        release(desc);
        raw::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}

/// The type that a composite value says it has.
unsafe fn named_type(value: Datum) -> u32 {
    // SAFETY: a non-NULL composite value.
    unsafe {
        let header = raw::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        (*header).t_choice.t_datum.datum_typeid.to_u32()
    }
}

/// An anonymous record's header, description and columns; None for a record of a named type.
unsafe fn open(value: Datum) -> Option<(HeapTupleHeader, TupleDesc, *mut Datum, *mut bool)> {
    // SAFETY: a non-NULL value of type record.
    unsafe {
        let header = raw::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let kind = (*header).t_choice.t_datum;
        if kind.datum_typeid.to_u32() != RECORD {
            return None;
        }
        let desc = raw::lookup_rowtype_tupdesc(kind.datum_typeid, kind.datum_typmod);
        let (values, nulls) = deform(header, desc);
        Some((header, desc, values, nulls))
    }
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

unsafe fn elements(value: Datum) -> (*mut Datum, *mut bool, usize, *mut pg_sys::ArrayType) {
    // SAFETY: a non-NULL array of records.
    unsafe {
        let array = raw::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut elements, mut nulls, mut count) = (ptr::null_mut(), ptr::null_mut(), 0);
        raw::deconstruct_array(
            array,
            Oid::from(RECORD),
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

pub(in crate::pg) unsafe fn release(desc: TupleDesc) {
    // SAFETY: lookup_rowtype_tupdesc pinned it where it is counted (ReleaseTupleDesc).
    unsafe {
        if (*desc).tdrefcount >= 0 {
            raw::DecrTupleDescRefCount(desc);
        }
    }
}
