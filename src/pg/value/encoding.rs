//! Conversion of texts from another database to this database's encoding.
//!
//! The databases of a cluster can have different encodings. PostgreSQL's own conversions are used, with its own rules: nothing is converted
//! to SQL_ASCII, and text from SQL_ASCII is only verified.

use crate::pg::error::Result;
use crate::pg::raw::{self, Raw};
use crate::pg::{compat, fallible, memory};
use core::ffi::{CStr, c_char, c_int};
use core::ptr;
use pgrx::pg_sys::{self, Datum, Oid};
use std::borrow::Cow;

/// `PG_SQL_ASCII` of `mb/pg_wchar.h`.
const SQL_ASCII: i32 = 0;

/// `PG_UTF8` of `mb/pg_wchar.h`.
pub const UTF8: i32 = 6;

/// `NAMEDATALEN` of `pg_config_manual.h`.
const NAME_SIZE: usize = 64;

/// The encoding of this process's database.
pub fn of_database() -> i32 {
    // SAFETY: a plain read.
    unsafe { raw::GetDatabaseEncoding() }
}

/// Whether texts must be converted or verified between the two encodings.
pub fn differ(from: i32, to: i32) -> bool {
    from != to && to != SQL_ASCII
}

/// The name of an encoding.
pub fn name(encoding: i32) -> &'static [u8] {
    // SAFETY: the names are static; an invalid number gives an empty name.
    memory::c_bytes(unsafe { compat::pg_encoding_to_char(encoding) })
}

/// Converts `len` bytes of text to this database's encoding. Raises 22021 or 22P05 if it cannot be converted.
pub(super) unsafe fn convert(raw: Raw<'_>, text: *const u8, len: usize, encoding: i32) -> (*const u8, usize) {
    // SAFETY: the text is readable; the result is the text itself or a C string.
    unsafe {
        let made =
            raw::pg_do_encoding_conversion(raw, text.cast_mut(), len as c_int, encoding, of_database()).cast_const();
        if ptr::eq(made, text) {
            (text, len)
        } else {
            (made, memory::c_bytes(made.cast()).len())
        }
    }
}

/// Converts a C string to this database's encoding. Returns the string itself or a copy in the current memory context. Call it in a
/// transaction.
pub fn c_string(raw: Raw<'_>, text: &'static CStr, encoding: i32) -> &'static CStr {
    // SAFETY: what the conversion makes ends with a NUL; the caller keeps the memory context as long as the text.
    unsafe {
        let bytes = text.to_bytes();
        let (made, _) = convert(raw, bytes.as_ptr(), bytes.len(), encoding);
        CStr::from_ptr(made.cast())
    }
}

/// [`c_string`] for many, each with its NUL, as a copy in the current memory context.
pub fn c_strings(raw: Raw<'_>, texts: &'static [u8], encoding: i32) -> &'static [u8] {
    let grows = if differ(encoding, of_database()) { GROWTH } else { 1 };
    let mut made = memory::Buffer::new(raw, texts.len() * grows);
    let mut rest = texts;
    while let Ok(text) = CStr::from_bytes_until_nul(rest) {
        let converted = c_string(raw, text, encoding).to_bytes_with_nul();
        made.push(converted.as_ptr(), converted.len());
        rest = &rest[text.count_bytes() + 1..];
    }
    memory::view(made.as_ptr(), made.len())
}

/// Converts `len` bytes of text of this database to another encoding. Raises 22P05 if it cannot be converted. Call it in a transaction.
///
/// # Safety
/// The text is readable and has a NUL behind.
pub unsafe fn for_other(raw: Raw<'_>, text: *const u8, len: usize, encoding: i32) -> (*const u8, usize) {
    // SAFETY: as promised; the result is the text itself or a C string.
    unsafe {
        let made =
            raw::pg_do_encoding_conversion(raw, text.cast_mut(), len as c_int, of_database(), encoding).cast_const();
        if ptr::eq(made, text) {
            (text, len)
        } else {
            (made, memory::c_bytes(made.cast()).len())
        }
    }
}

/// Converts a column name, which has the size of a name value.
pub(in crate::pg) fn name_here(raw: Raw<'_>, name: &[u8; NAME_SIZE], encoding: i32) -> [u8; NAME_SIZE] {
    // SAFETY: what comes back is a name.
    unsafe {
        let made = name_value(raw, Datum::from(name.as_ptr().cast_mut()), encoding);
        *made.cast_mut_ptr::<[u8; NAME_SIZE]>()
    }
}

/// How much text to convert at once, in bytes.
const PIECE: usize = 1024;

/// `MAX_CONVERSION_GROWTH` of `mb/pg_wchar.h`.
const GROWTH: usize = 4;

/// The length of the longest character of any encoding, in bytes.
const LONGEST: usize = 4;

/// Converts a text to this database's encoding, with a question mark for each character that cannot be converted. It is for messages, which
/// must not fail because of their wording. Call it in a transaction. Guarded. Fails with 53200 if memory is out.
pub fn readable(text: &[u8], encoding: i32) -> Result<Cow<'_, [u8]>> {
    let here = of_database();
    if !differ(encoding, here) || text.is_ascii() {
        return Ok(Cow::Borrowed(text));
    }
    let mut made = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        fallible::reserve(&mut made, PIECE * GROWTH)?;
        let piece = &rest[..rest.len().min(PIECE)];
        let done = beginning(piece, encoding, here, &mut made);
        rest = &rest[done..];
        // A piece may end in the middle of a character.
        let is_cut = piece.len() - done < LONGEST && rest.len() >= LONGEST && done > 0;
        if done < piece.len() && !is_cut {
            made.push(b'?');
            // SAFETY: a NUL follows the copy, so that no character is looked for beyond its end.
            let len = unsafe {
                let mut start = [0u8; 8];
                start
                    .iter_mut()
                    .zip(rest.iter().take(LONGEST))
                    .for_each(|(to, from)| *to = *from);
                pg_sys::pg_encoding_mblen(encoding, start.as_ptr().cast())
            };
            rest = &rest[(len.max(1) as usize).min(rest.len())..];
        }
    }
    Ok(Cow::Owned(made))
}

/// The text with `\\x` and two digits for each byte that belongs to no character: names of roles and databases have the encoding of the database in
/// which they were given, and in a database with SQL_ASCII any bytes are a text, which clients take for UTF-8. Fails with 53200 if memory is out.
pub fn printable(text: &[u8]) -> Result<Cow<'_, [u8]>> {
    let encoding = match of_database() {
        SQL_ASCII => UTF8,
        other => other,
    };
    let mut made = Vec::new();
    let mut rest = text;
    loop {
        // SAFETY: reads these bytes, and raises nothing.
        let valid = unsafe { pg_sys::pg_encoding_verifymbstr(encoding, rest.as_ptr().cast(), rest.len() as c_int) };
        let (valid, others) = rest.split_at((valid.max(0) as usize).min(rest.len()));
        let Some((byte, others)) = others.split_first() else {
            if made.is_empty() {
                return Ok(Cow::Borrowed(text));
            }
            fallible::reserve(&mut made, valid.len())?;
            made.extend_from_slice(valid);
            return Ok(Cow::Owned(made));
        };
        fallible::reserve(&mut made, valid.len() + 4)?;
        made.extend_from_slice(valid);
        made.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        rest = others;
    }
}

/// Converts as many whole characters as possible from the beginning of a piece, and appends them to `made`. Returns how many bytes of the
/// piece that were.
fn beginning(piece: &[u8], from: i32, to: i32, made: &mut Vec<u8>) -> usize {
    // SAFETY: the buffer has the size that a conversion may need; nothing is raised for what cannot be converted.
    unsafe {
        let proc = if from == SQL_ASCII {
            Oid::INVALID
        } else {
            pg_sys::FindDefaultConversionProc(from, to)
        };
        if proc == Oid::INVALID {
            // There is no conversion: take what is valid as it is.
            let valid = pg_sys::pg_encoding_verifymbstr(to, piece.as_ptr().cast(), piece.len() as c_int);
            let valid = (valid.max(0) as usize).min(piece.len());
            made.extend_from_slice(&piece[..valid]);
            return valid;
        }
        let mut buffer = [0u8; PIECE * GROWTH + 1];
        let done = pg_sys::pg_do_encoding_conversion_buf(
            proc,
            from,
            to,
            piece.as_ptr().cast_mut(),
            piece.len() as c_int,
            buffer.as_mut_ptr(),
            buffer.len() as c_int,
            true,
        );
        let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(PIECE * GROWTH);
        made.extend_from_slice(&buffer[..end]);
        (done.max(0) as usize).min(piece.len())
    }
}

/// Converts a name. A name that becomes too long is truncated, as in every conversion of a text to a name.
pub(super) unsafe fn name_value(raw: Raw<'_>, value: Datum, encoding: i32) -> Datum {
    // SAFETY: a name is a C string in `NAME_SIZE` bytes.
    unsafe {
        let bytes = memory::c_bytes(value.cast_mut_ptr::<c_char>());
        let (made, len) = convert(raw, bytes.as_ptr(), bytes.len(), encoding);
        let len = pg_sys::pg_mbcliplen(made.cast(), len as c_int, NAME_SIZE as c_int - 1) as usize;
        let name = raw::palloc0(raw, NAME_SIZE).cast::<u8>();
        ptr::copy_nonoverlapping(made, name, len);
        Datum::from(name)
    }
}
