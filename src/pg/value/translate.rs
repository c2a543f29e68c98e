//! Conversion of values of another process: the numbers of their records, and the encoding of their texts.

use crate::pg::memory;
use crate::pg::raw::{self, Raw};
use crate::pg::value::desc::{
    self, ANY_ARRAY, BPCHAR, CSTRING, JSON, JSONB, JSONPATH, NAME, NODE_TREE, RECORD, RECORD_ARRAY, REFCURSOR, TEXT,
    UNKNOWN, VARCHAR, XML, column_type, deform, elements, may_hold, release,
};
use crate::pg::value::describe::{Numbers, OwnType};
use crate::pg::value::encoding;
use core::ffi::{c_char, c_int};
use core::ptr;
use pgrx::pg_sys::{self, Datum, HeapTupleHeader, Oid, TupleDesc};

/// Calls `visit` with each type that `value` or a value in it names itself, inner ones first.
pub fn each_own_type(raw: Raw<'_>, value: Datum, kind: u32, visit: &mut dyn FnMut(OwnType)) {
    // SAFETY: `value` is a non-NULL value of type `kind`, which says how it is laid out.
    unsafe {
        if kind == RECORD_ARRAY {
            let (elements, nulls, count, _) = elements(raw, value);
            for n in 0..count {
                if !*nulls.add(n) {
                    each_own_type(raw, *elements.add(n), RECORD, visit);
                }
            }
        } else if kind == ANY_ARRAY {
            // Statistics of columns are such arrays.
            let array = raw::pg_detoast_datum(raw, value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            visit(OwnType::Named((*array).elemtype.to_u32()));
        } else if let Some((_, desc, values, nulls)) = open(raw, value) {
            for n in 0..(*desc).natts as usize {
                let kind = column_type(desc, n);
                if (may_hold(kind) || kind == ANY_ARRAY) && !*nulls.add(n) {
                    each_own_type(raw, *values.add(n), kind, visit);
                }
            }
            visit(OwnType::Anonymous((*desc).tdtypmod));
            release(raw, desc);
        } else {
            visit(OwnType::Named(named_type(raw, value)));
        }
    }
}

/// Converts a value of another process. Returns the value itself or a copy in the current memory context.
pub fn renumber(raw: Raw<'_>, value: Datum, kind: u32, numbers: &Numbers) -> Datum {
    if !may_hold(kind) {
        return match numbers.encoding {
            // SAFETY: a non-NULL value of the type.
            Some(from) => unsafe { text_in(raw, value, kind, numbers, from) },
            None => value,
        };
    }
    // SAFETY: as in `each_own_type`; the row is formed anew with a descriptor of the same columns.
    unsafe {
        if kind == RECORD_ARRAY {
            let (elements, nulls, count, array) = elements(raw, value);
            for n in 0..count {
                if !*nulls.add(n) {
                    *elements.add(n) = renumber(raw, *elements.add(n), RECORD, numbers);
                }
            }
            let dims = array.cast::<u8>().add(size_of::<pg_sys::ArrayType>()).cast::<i32>();
            let ndim = (*array).ndim;
            let made = raw::construct_md_array(
                raw,
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
        let header = raw::pg_detoast_datum(raw, value.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let named = (*header).t_choice.t_datum.datum_typeid.to_u32();
        if named != RECORD {
            return renumber(raw, value, named, numbers);
        }
        let Some(here) = numbers.number_here((*header).t_choice.t_datum.datum_typmod) else {
            return value;
        };
        let desc = raw::lookup_rowtype_tupdesc(raw, Oid::from(RECORD), here);
        let (values, nulls) = deform(raw, header, desc);
        for n in 0..(*desc).natts as usize {
            if !*nulls.add(n) {
                *values.add(n) = renumber(raw, *values.add(n), column_type(desc, n), numbers);
            }
        }
        let tuple = raw::heap_form_tuple(raw, desc, values, nulls);
        release(raw, desc);
        raw::HeapTupleHeaderGetDatum(raw, (*tuple).t_data)
    }
}

/// The type that a composite value says it has.
unsafe fn named_type(raw: Raw<'_>, value: Datum) -> u32 {
    // SAFETY: a non-NULL composite value.
    unsafe {
        let header = raw::pg_detoast_datum(raw, value.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        (*header).t_choice.t_datum.datum_typeid.to_u32()
    }
}

/// Returns an anonymous record's header, descriptor and columns, or None for a record of a named type.
unsafe fn open(raw: Raw<'_>, value: Datum) -> Option<(HeapTupleHeader, TupleDesc, *mut Datum, *mut bool)> {
    // SAFETY: a non-NULL value of type record.
    unsafe {
        let header = raw::pg_detoast_datum(raw, value.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let kind = (*header).t_choice.t_datum;
        if kind.datum_typeid.to_u32() != RECORD {
            return None;
        }
        let desc = raw::lookup_rowtype_tupdesc(raw, kind.datum_typeid, kind.datum_typmod);
        let (values, nulls) = deform(raw, header, desc);
        Some((header, desc, values, nulls))
    }
}

/// Converts the text in a value of a type other than `record` and `record[]` to this database's encoding. The type must not be one that
/// cannot be converted in place (`is_sealed` in border.rs).
unsafe fn text_in(raw: Raw<'_>, value: Datum, kind: u32, numbers: &Numbers, encoding: i32) -> Datum {
    // SAFETY: `value` is a non-NULL value of type `kind`, which says how it is laid out.
    unsafe {
        match kind {
            TEXT | VARCHAR | BPCHAR | JSON | XML | REFCURSOR | NODE_TREE => text(raw, value, encoding),
            NAME => encoding::name_value(raw, value, encoding),
            UNKNOWN | CSTRING => {
                let bytes = memory::c_bytes(value.cast_mut_ptr::<c_char>());
                Datum::from(
                    encoding::convert(raw, bytes.as_ptr(), bytes.len(), encoding)
                        .0
                        .cast_mut(),
                )
            }
            JSONB | JSONPATH => as_text(raw, value, kind, encoding),
            _ => {
                let element = raw::get_element_type(raw, Oid::from(kind));
                match raw::get_typtype(raw, Oid::from(kind)) as u8 {
                    b'd' => text_in(
                        raw,
                        value,
                        raw::getBaseType(raw, Oid::from(kind)).to_u32(),
                        numbers,
                        encoding,
                    ),
                    b'c' => row(raw, value, numbers),
                    b'b' if element != Oid::INVALID => array(raw, value, element, numbers),
                    _ => value,
                }
            }
        }
    }
}

unsafe fn text(raw: Raw<'_>, value: Datum, encoding: i32) -> Datum {
    // SAFETY: a varlena of text.
    unsafe {
        let plain = raw::pg_detoast_datum(raw, value.cast_mut_ptr());
        let (from, len) = (
            pgrx::varlena::vardata_any(plain).cast::<u8>(),
            pgrx::varlena::varsize_any_exhdr(plain),
        );
        let (made, made_len) = encoding::convert(raw, from, len, encoding);
        if ptr::eq(made, from) {
            value
        } else {
            Datum::from(raw::cstring_to_text_with_len(raw, made.cast(), made_len as c_int))
        }
    }
}

/// Converts a value by way of its text form. The output functions of these types do not examine the characters of the text in them, so it
/// does not matter that they are in another encoding.
unsafe fn as_text(raw: Raw<'_>, value: Datum, kind: u32, encoding: i32) -> Datum {
    // SAFETY: the type's own functions; what they give is a C string.
    unsafe {
        let (mut output, mut input, mut parameter, mut varlena) = (Oid::INVALID, Oid::INVALID, Oid::INVALID, false);
        raw::getTypeOutputInfo(raw, Oid::from(kind), &mut output, &mut varlena);
        raw::getTypeInputInfo(raw, Oid::from(kind), &mut input, &mut parameter);
        let shown = raw::OidOutputFunctionCall(raw, output, value);
        let bytes = memory::c_bytes(shown);
        let (made, _) = encoding::convert(raw, bytes.as_ptr(), bytes.len(), encoding);
        raw::OidInputFunctionCall(raw, input, made.cast_mut().cast(), parameter, -1)
    }
}

unsafe fn array(raw: Raw<'_>, value: Datum, element: Oid, numbers: &Numbers) -> Datum {
    // SAFETY: an array of `element`.
    unsafe {
        let array = raw::pg_detoast_datum(raw, value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        if (*array).ndim == 0 {
            return value;
        }
        let (mut len, mut by_value, mut align) = (0, false, 0);
        raw::get_typlenbyvalalign(raw, element, &mut len, &mut by_value, &mut align);
        let (mut elements, mut nulls, mut count) = (ptr::null_mut(), ptr::null_mut(), 0);
        raw::deconstruct_array(
            raw,
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
                *elements.add(n) = renumber(raw, *elements.add(n), element.to_u32(), numbers);
            }
        }
        let dims = array.cast::<u8>().add(size_of::<pg_sys::ArrayType>()).cast::<i32>();
        let ndim = (*array).ndim;
        Datum::from(raw::construct_md_array(
            raw,
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

/// Converts a row of a system catalog or view.
unsafe fn row(raw: Raw<'_>, value: Datum, numbers: &Numbers) -> Datum {
    // SAFETY: a composite value; its header names its type.
    unsafe {
        let header = raw::pg_detoast_datum(raw, value.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let kind = (*header).t_choice.t_datum;
        let desc = raw::lookup_rowtype_tupdesc(raw, kind.datum_typeid, kind.datum_typmod);
        let (values, nulls) = desc::deform(raw, header, desc);
        for n in 0..(*desc).natts as usize {
            if !*nulls.add(n) {
                *values.add(n) = renumber(raw, *values.add(n), desc::column_type(desc, n), numbers);
            }
        }
        let tuple = raw::heap_form_tuple(raw, desc, values, nulls);
        desc::release(raw, desc);
        raw::HeapTupleHeaderGetDatum(raw, (*tuple).t_data)
    }
}
