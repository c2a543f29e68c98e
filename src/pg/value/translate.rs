//! Values that come from another process, made into values of this one: the numbers of their records, and the encoding of their texts. Raw.

use crate::pg::value::desc::{
    self, BPCHAR, CSTRING, JSON, JSONB, JSONPATH, NAME, NODE_TREE, RECORD, RECORD_ARRAY, REFCURSOR, TEXT, UNKNOWN,
    VARCHAR, XML, column_type, deform, elements, may_hold, release,
};
use crate::pg::value::describe::Numbers;
use crate::pg::value::{border, encoding};
use crate::pg::{memory, raw};
use core::ffi::{c_char, c_int};
use core::ptr;
use pgrx::pg_sys::{self, Datum, HeapTupleHeader, Oid, TupleDesc};

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

/// The value as one of this process's, itself or a copy in the current memory context. Raw.
pub fn renumber(value: Datum, kind: u32, numbers: &Numbers) -> Datum {
    if !may_hold(kind) {
        return match numbers.encoding {
            // SAFETY: a non-NULL value of the type.
            Some(from) => unsafe { text_in(value, kind, numbers, from) },
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

/// A value of a type other than `record` and `record[]`, with all text in it in this database's encoding. The type is none that
/// [`is_sealed`]. Raw.
unsafe fn text_in(value: Datum, kind: u32, numbers: &Numbers, encoding: i32) -> Datum {
    // SAFETY: `value` is a non-NULL value of type `kind`, which says how it is laid out.
    unsafe {
        match kind {
            TEXT | VARCHAR | BPCHAR | JSON | XML | REFCURSOR | NODE_TREE => text(value, encoding),
            NAME => encoding::name_value(value, encoding),
            UNKNOWN | CSTRING => {
                let bytes = memory::c_bytes(value.cast_mut_ptr::<c_char>());
                Datum::from(encoding::convert(bytes.as_ptr(), bytes.len(), encoding).0.cast_mut())
            }
            JSONB | JSONPATH => as_text(value, kind, encoding),
            _ => {
                let element = raw::get_element_type(Oid::from(kind));
                match raw::get_typtype(Oid::from(kind)) as u8 {
                    b'd' => text_in(value, raw::getBaseType(Oid::from(kind)).to_u32(), numbers, encoding),
                    b'c' => row(value, numbers),
                    b'b' if element != Oid::INVALID => array(value, element, numbers),
                    _ => value,
                }
            }
        }
    }
}

unsafe fn text(value: Datum, encoding: i32) -> Datum {
    // SAFETY: a varlena of text.
    unsafe {
        let plain = raw::pg_detoast_datum(value.cast_mut_ptr());
        let (from, len) = (
            pgrx::varlena::vardata_any(plain).cast::<u8>(),
            pgrx::varlena::varsize_any_exhdr(plain),
        );
        let (made, made_len) = encoding::convert(from, len, encoding);
        if ptr::eq(made, from) {
            value
        } else {
            Datum::from(raw::cstring_to_text_with_len(made.cast(), made_len as c_int))
        }
    }
}

/// Out of its own form into text, and back. The output of these types does not look into the characters of the text in them, so it
/// does not matter that they are another encoding's.
unsafe fn as_text(value: Datum, kind: u32, encoding: i32) -> Datum {
    // SAFETY: the type's own functions; what they give is a C string.
    unsafe {
        let (mut output, mut input, mut parameter, mut varlena) = (Oid::INVALID, Oid::INVALID, Oid::INVALID, false);
        raw::getTypeOutputInfo(Oid::from(kind), &mut output, &mut varlena);
        raw::getTypeInputInfo(Oid::from(kind), &mut input, &mut parameter);
        let shown = raw::OidOutputFunctionCall(output, value);
        let bytes = memory::c_bytes(shown);
        let (made, _) = encoding::convert(bytes.as_ptr(), bytes.len(), encoding);
        raw::OidInputFunctionCall(input, made.cast_mut().cast(), parameter, -1)
    }
}

unsafe fn array(value: Datum, element: Oid, numbers: &Numbers) -> Datum {
    // SAFETY: an array of `element`.
    unsafe {
        let array = raw::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        if (*array).ndim == 0 {
            return value;
        }
        let (mut len, mut by_value, mut align) = (0, false, 0);
        raw::get_typlenbyvalalign(element, &mut len, &mut by_value, &mut align);
        let (mut elements, mut nulls, mut count) = (ptr::null_mut(), ptr::null_mut(), 0);
        raw::deconstruct_array(
            array,
            element,
            len.into(),
            by_value,
            align,
            &mut elements,
            &mut nulls,
            &mut count,
        );
        for n in 0..count as usize {
            if !*nulls.add(n) {
                *elements.add(n) = renumber(*elements.add(n), element.to_u32(), numbers);
            }
        }
        let dims = array.cast::<u8>().add(size_of::<pg_sys::ArrayType>()).cast::<i32>();
        let ndim = (*array).ndim;
        Datum::from(raw::construct_md_array(
            elements,
            nulls,
            ndim,
            dims,
            dims.add(ndim as usize),
            element,
            len.into(),
            by_value,
            align,
        ))
    }
}

/// A row of a system catalog or view.
unsafe fn row(value: Datum, numbers: &Numbers) -> Datum {
    // SAFETY: a composite value; its header names its type.
    unsafe {
        let header = raw::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let kind = (*header).t_choice.t_datum;
        let desc = raw::lookup_rowtype_tupdesc(kind.datum_typeid, kind.datum_typmod);
        let (values, nulls) = desc::deform(header, desc);
        for n in 0..(*desc).natts as usize {
            if !*nulls.add(n) {
                *values.add(n) = renumber(*values.add(n), desc::column_type(desc, n), numbers);
            }
        }
        let tuple = raw::heap_form_tuple(desc, values, nulls);
        desc::release(desc);
        raw::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}
