//! The parameters of a task, as they are kept in a table: of each column of a record the name of its type and the text of its value.
//!
//! Both mean the same after a dump and restore, under any `search_path` and whatever formats the session that reads them has set: names are
//! qualified, and the output functions run under the settings that pg_dump and postgres_fdw use. Who reads the values sets the same ones.
//!
//! The output functions are those of users, so they run as the caller, before anything is done as somebody else.

use crate::pg::digits::Digits;
use crate::pg::error::{self, Result, raise_raw};
use crate::pg::function::rows::text_datum;
use crate::pg::guc::own;
use crate::pg::memory;
use crate::pg::raw::{self, Raw, may_raise};
use crate::pg::value::desc::{self, CSTRING, RECORD, RECORD_ARRAY, TEXT, UNKNOWN, column_type, tuple_desc_attr};
use crate::pg::value::params::Parameters;
use crate::pg::value::{border, encoding};
use core::ffi::{CStr, c_char, c_int};
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, Oid};

/// The settings that a value's text, or what is read from it, depends on, and the value of each while one is written or read.
pub static FORMATS: [(&CStr, &CStr); 9] = [
    (c"datestyle", c"ISO, YMD"),
    (c"intervalstyle", c"postgres"),
    (c"extra_float_digits", c"3"),
    (c"bytea_output", c"hex"),
    (c"xmlbinary", c"base64"),
    (c"lc_monetary", c"C"),
    (c"array_nulls", c"on"),
    (c"xmloption", c"content"),
    (c"search_path", c"pg_catalog"),
];

/// The columns of a record: two datums of the type `text[]`, the names of types and the values, in the memory context of the call.
#[derive(Clone, Copy)]
pub struct Kept {
    pub types: Datum,
    pub values: Datum,
}

// utils/builtins.h
may_raise! {
    fn format_type_extended(kind: Oid, modifier: i32, flags: u16) -> *mut c_char;
    fn cstring_to_text(text: *const c_char) -> *mut pg_sys::text;
}

/// `FORMAT_TYPE_TYPEMOD_GIVEN` of `utils/builtins.h`.
const FORMAT_TYPE_TYPEMOD_GIVEN: u16 = 1;
/// `FORMAT_TYPE_FORCE_QUALIFY` of `utils/builtins.h`.
const FORMAT_TYPE_FORCE_QUALIFY: u16 = 4;

// utils/guc.h
may_raise! {
    fn NewGUCNestLevel() -> c_int;
    fn AtEOXact_GUC(is_commit: bool, level: c_int);
}

/// The columns of `record`, which are read in a database with another encoding where one is given. None where there are no columns. 0A000 for a
/// value that cannot be kept.
pub fn of(record: Datum, other: Option<i32>) -> Result<Option<Kept>> {
    border::while_values_go_to(other.map(|_| encoding::of_database()), || {
        error::catching(|raw| write(raw, record))
    })
}

fn write(raw: Raw<'_>, record: Datum) -> Option<Kept> {
    // SAFETY: a non-NULL composite value. Nothing is owned here. The settings are those of before when an error has ended the (sub)transaction.
    unsafe {
        let header = raw::pg_detoast_datum(raw, record.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let kind = (*header).t_choice.t_datum;
        let desc = raw::lookup_rowtype_tupdesc(raw, kind.datum_typeid, kind.datum_typmod);
        let (values, nulls) = desc::deform(raw, header, desc);
        let width = (*desc).natts as usize;
        let types = raw::palloc0(raw, size_of::<Datum>() * width.max(1)).cast::<Datum>();
        let texts = raw::palloc0(raw, size_of::<Datum>() * width.max(1)).cast::<Datum>();
        let missing = raw::palloc0(raw, width.max(1)).cast::<bool>();
        let mut count = 0;
        let level = set_formats(raw);
        for n in 0..width {
            let attribute = tuple_desc_attr(desc, n);
            if (*attribute).attisdropped {
                continue;
            }
            let kind = column_type(desc, n);
            let name = format_type_extended(
                raw,
                Oid::from(kind),
                (*attribute).atttypmod,
                FORMAT_TYPE_FORCE_QUALIFY | FORMAT_TYPE_TYPEMOD_GIVEN,
            );
            check(raw, kind, memory::c_bytes(name), count + 1);
            types.add(count).write(Datum::from(cstring_to_text(raw, name)));
            missing.add(count).write(*nulls.add(n));
            if !*nulls.add(n) {
                texts.add(count).write(output(raw, kind, *values.add(n)));
            }
            count += 1;
        }
        AtEOXact_GUC(raw, true, level);
        desc::release(raw, desc);
        (count > 0).then(|| Kept {
            types: array(raw, types, ptr::null_mut(), count),
            values: array(raw, texts, missing, count),
        })
    }
}

// parser/parse_type.h
may_raise! {
    #[cfg(not(since_16))]
    fn parseTypeString(text: *const c_char, kind: *mut Oid, modifier: *mut i32, missing_ok: bool);
    #[cfg(since_16)]
    fn parseTypeString(text: *const c_char, kind: *mut Oid, modifier: *mut i32, context: *mut pg_sys::Node) -> bool;
}

/// The type of this name and its modifier. Raises 42704.
fn type_of(raw: Raw<'_>, name: &CStr) -> (Oid, i32) {
    let (mut kind, mut modifier) = (Oid::INVALID, -1);
    // SAFETY: NUL-terminated; without a context for errors they are raised.
    unsafe {
        #[cfg(not(since_16))]
        parseTypeString(raw, name.as_ptr(), &mut kind, &mut modifier, false);
        #[cfg(since_16)]
        parseTypeString(raw, name.as_ptr(), &mut kind, &mut modifier, ptr::null_mut());
    }
    (kind, modifier)
}

/// Reads what [`of`] has kept, as parameters in the current memory context: the names of the types, and the values. The input functions run as
/// the current role, in its transaction. 42704 for a type that does not exist any more.
pub fn read(columns: &[(&CStr, Option<&CStr>)]) -> Result<Parameters> {
    error::catching(|raw| read_raw(raw, columns))
}

fn read_raw(raw: Raw<'_>, columns: &[(&CStr, Option<&CStr>)]) -> Parameters {
    // SAFETY: as many elements as columns; the functions are those of the types. Nothing is owned here.
    unsafe {
        raw::PushActiveSnapshot(raw, raw::GetTransactionSnapshot(raw));
        let made = Parameters::empty(raw, columns.len());
        let level = set_formats(raw);
        for (n, (name, text)) in columns.iter().enumerate() {
            let (kind, modifier) = type_of(raw, name);
            let value = text.map(CStr::as_ptr);
            let datum = if kind.to_u32() == UNKNOWN {
                value.map(|text| Datum::from(raw::pstrdup(raw, text)))
            } else {
                let (mut input, mut of) = (Oid::INVALID, Oid::INVALID);
                raw::getTypeInputInfo(raw, kind, &mut input, &mut of);
                let text = value.map_or(ptr::null_mut(), |text| text.cast_mut());
                let datum = raw::OidInputFunctionCall(raw, input, text, of, modifier);
                value.map(|_| datum)
            };
            made.set(n, kind.to_u32(), datum);
        }
        AtEOXact_GUC(raw, true, level);
        raw::PopActiveSnapshot(raw);
        made.judged()
    }
}

/// What [`of`] has kept, as a record again. In a transaction, as [`read`].
pub fn record(columns: &[(&CStr, Option<&CStr>)]) -> Result<Datum> {
    error::catching(|raw| read_raw(raw, columns).record(raw))
}

/// The texts as a datum of the type `text[]`, in the current memory context.
pub fn text_array(texts: &[&[u8]]) -> Result<Datum> {
    // SAFETY: as many elements as there are texts.
    error::catching(|raw| unsafe {
        let elements = raw::palloc0(raw, size_of::<Datum>() * texts.len().max(1)).cast::<Datum>();
        for (n, text) in texts.iter().enumerate() {
            elements.add(n).write(text_datum(raw, text));
        }
        array(raw, elements, ptr::null_mut(), texts.len())
    })
}

unsafe fn output(raw: Raw<'_>, kind: u32, value: Datum) -> Datum {
    // SAFETY: a value of the type; one of an unknown type is a C string.
    unsafe {
        let text = if kind == UNKNOWN {
            value.cast_mut_ptr()
        } else {
            let (mut function, mut is_varlena) = (Oid::INVALID, false);
            raw::getTypeOutputInfo(raw, Oid::from(kind), &mut function, &mut is_varlena);
            raw::OidOutputFunctionCall(raw, function, value)
        };
        Datum::from(cstring_to_text(raw, text))
    }
}

unsafe fn array(raw: Raw<'_>, elements: *mut Datum, nulls: *mut bool, count: usize) -> Datum {
    let (mut dimension, mut bound) = (count as c_int, 1);
    // SAFETY: as many elements as were counted, each a text.
    unsafe {
        Datum::from(raw::construct_md_array(
            raw,
            elements,
            nulls,
            1,
            &mut dimension,
            &mut bound,
            Oid::from(TEXT),
            -1,
            false,
            b'i' as _,
        ))
    }
}

/// 0A000 where values of the type cannot be kept: where the type means nothing in another session, or has no name.
fn check(raw: Raw<'_>, kind: u32, name: &[u8], n: usize) {
    let number = Digits::of(n as u64);
    if let Some(border) = border::border() {
        border.check(raw, kind, &[b"parameter $", number.bytes()]);
    }
    // SAFETY: look-ups in the catalogs.
    let is_pseudo = unsafe {
        let element = raw::get_element_type(raw, Oid::from(kind)).to_u32();
        raw::get_typtype(raw, Oid::from(kind)) as u8 == b'p' || element == RECORD || element == CSTRING
    };
    // No other schema's name begins so.
    let is_temporary = name.starts_with(b"pg_temp");
    if (is_pseudo && kind != UNKNOWN) || kind == RECORD_ARRAY || is_temporary {
        raise_raw(
            raw,
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            &[
                b"parameter $",
                number.bytes(),
                b" has type ",
                border::type_name(raw, kind),
                b", whose values cannot be kept",
            ],
            Some(c"Cast it to another type, for example to text or to a named composite type."),
        );
    }
}

/// Sets what differs, until the level ends.
fn set_formats(raw: Raw<'_>) -> c_int {
    // SAFETY: names and values are static and valid; as set_transmission_modes of postgres_fdw does it.
    unsafe {
        let level = NewGUCNestLevel(raw);
        for (name, value) in &FORMATS {
            let now = raw::GetConfigOption(raw, name.as_ptr(), false, false);
            if CStr::from_ptr(now) != *value {
                own::set_until_level_ends(raw, name, value);
            }
        }
        level
    }
}

/// The numbers as a datum of the type `int8[]`, in the current memory context.
pub fn int8_array(numbers: &[i64]) -> Result<Datum> {
    // SAFETY: as many elements as there are numbers.
    error::catching(|raw| unsafe {
        let elements = raw::palloc0(raw, size_of::<Datum>() * numbers.len().max(1)).cast::<Datum>();
        for (n, number) in numbers.iter().enumerate() {
            elements.add(n).write(Datum::from(*number));
        }
        let (mut dimension, mut bound) = (numbers.len() as c_int, 1);
        Datum::from(raw::construct_md_array(
            raw,
            elements,
            ptr::null_mut(),
            1,
            &mut dimension,
            &mut bound,
            Oid::from(desc::INT8),
            8,
            true,
            b'd' as _,
        ))
    })
}
