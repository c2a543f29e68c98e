//! Errors and notices as bytes: the fields of the protocol's ErrorResponse and NoticeResponse.
//!
//! <https://www.postgresql.org/docs/current/protocol-error-fields.html>. PostgreSQL writes this form itself when it sends a message to a
//! client. An error that the worker caught is written here in the same form, so that one reader handles both.

use crate::pg::digits::Digits;
use crate::pg::error::{Result, new_error_data};
use crate::pg::fallible;
use crate::pg::memory::{c_bytes, copy_text};
use crate::pg::shmem::{self, DsaPointer};
use crate::pg::sqlstate::{pack, unpack};
use crate::pg::value::encoding;
use pgrx::pg_sys::{self, ErrorData};
use std::borrow::Cow;

/// The fields of one message.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The value of the field `code` (for example `b'M'`, the message), without its NUL.
    pub fn get(&self, code: u8) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while let Some((&kind, tail)) = rest.split_first() {
            if kind == 0 {
                return None;
            }
            let end = tail.iter().position(|byte| *byte == 0)?;
            if kind == code {
                return Some(&tail[..end]);
            }
            rest = tail.get(end + 1..).unwrap_or_default();
        }
        None
    }

    /// Converts the message to this database's encoding. Call it in a transaction. Guarded. Fails with 53200 if memory is out.
    pub fn readable(&self, from: i32) -> Result<Cow<'a, [u8]>> {
        if !encoding::differ(from, encoding::of_database()) || self.0.is_ascii() {
            return Ok(Cow::Borrowed(self.0));
        }
        let mut made = Vec::new();
        for field in self.0.split_inclusive(|byte| *byte == 0) {
            let text = field.strip_suffix(b"\0").unwrap_or(field);
            let text = encoding::readable(text, from)?;
            fallible::reserve(&mut made, text.len() + 1)?;
            made.extend_from_slice(&text);
            made.push(0);
        }
        Ok(Cow::Owned(made))
    }

    fn number(&self, code: u8) -> i32 {
        self.get(code)
            .and_then(|text| core::str::from_utf8(text).ok())
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    /// The SQLSTATE in packed form, or XX000 if the message has none.
    pub fn sqlstate(&self) -> i32 {
        match self.get(b'C') {
            Some(code) if code.len() == 5 => pack(code),
            _ => pack(b"XX000"),
        }
    }

    /// The level of the message, from the field `V`, which is never translated.
    pub fn level(&self) -> u32 {
        match self.get(b'V') {
            Some(b"DEBUG") => pg_sys::DEBUG1,
            Some(b"LOG") => pg_sys::LOG,
            Some(b"INFO") => pg_sys::INFO,
            Some(b"NOTICE") => pg_sys::NOTICE,
            Some(b"WARNING") => pg_sys::WARNING,
            _ => pg_sys::PGERROR,
        }
    }

    /// Makes an error of PostgreSQL from the message, in the current memory context. A position in the job's text becomes an internal
    /// position in `sql`, since the position field refers to the text that the reading client sent.
    pub fn to_error_data(self, level: u32, sql: &[u8]) -> *mut ErrorData {
        let edata = new_error_data();
        let text = |code| self.get(code).map_or(core::ptr::null_mut(), copy_text);
        // SAFETY: `edata` is fresh, the strings are copies in the same memory context.
        unsafe {
            (*edata).elevel = level as _;
            (*edata).sqlerrcode = self.sqlstate();
            (*edata).message = text(b'M');
            (*edata).detail = text(b'D');
            (*edata).hint = text(b'H');
            (*edata).context = text(b'W');
            (*edata).schema_name = text(b's');
            (*edata).table_name = text(b't');
            (*edata).column_name = text(b'c');
            (*edata).datatype_name = text(b'd');
            (*edata).constraint_name = text(b'n');
            (*edata).filename = text(b'F');
            (*edata).lineno = self.number(b'L');
            (*edata).funcname = text(b'R');
            (*edata).internalpos = self.number(b'p');
            (*edata).internalquery = text(b'q');
            let position = self.number(b'P');
            if position > 0 && (*edata).internalquery.is_null() {
                (*edata).internalpos = position;
                (*edata).internalquery = copy_text(sql);
            }
        }
        edata
    }
}

/// The last line of the context of every job's error, followed by the pid.
const ORIGIN: &[u8] = b"background worker, pid ";

/// Passes an error that the process `pid` caught, in the form of the protocol, piece by piece to `put`.
fn encode(edata: *mut ErrorData, pid: i32, put: &mut dyn FnMut(&[u8])) {
    // SAFETY: a palloc'd error whose strings are NULL or NUL-terminated.
    let e = unsafe { &*edata };
    let texts = [
        (b'M', e.message.cast_const()),
        (b'D', e.detail.cast_const()),
        (b'H', e.hint.cast_const()),
        (b's', e.schema_name.cast_const()),
        (b't', e.table_name.cast_const()),
        (b'c', e.column_name.cast_const()),
        (b'd', e.datatype_name.cast_const()),
        (b'n', e.constraint_name.cast_const()),
        (b'q', e.internalquery.cast_const()),
        (b'F', e.filename),
        (b'R', e.funcname),
    ];
    for (code, text) in texts {
        if !text.is_null() {
            field(code, c_bytes(text), put);
        }
    }
    put(b"W");
    let context = c_bytes(e.context);
    if !context.is_empty() {
        put(context);
        put(b"\n");
    }
    put(ORIGIN);
    put(Digits::of(pid.max(0) as u64).bytes());
    put(b"\0");
    field(b'V', b"ERROR", put);
    field(b'C', &unpack(e.sqlerrcode), put);
    for (code, number) in [(b'P', e.cursorpos), (b'p', e.internalpos), (b'L', e.lineno)] {
        if number > 0 {
            field(code, Digits::of(number as u64).bytes(), put);
        }
    }
    put(b"\0");
}

fn field(code: u8, value: &[u8], put: &mut dyn FnMut(&[u8])) {
    put(&[code]);
    put(value);
    put(b"\0");
}

/// Stores an error that the process `pid` caught in the shared area, in the form of the protocol. Returns the pointer and the length, or
/// None if memory is out. This is the only copy of parts whose size depends on the user.
pub fn store(edata: *mut ErrorData, pid: i32) -> Option<(DsaPointer, usize)> {
    let mut len = 0;
    encode(edata, pid, &mut |piece| len += piece.len());
    let pointer = shmem::try_allocate(len)?;
    let mut at = pointer;
    encode(edata, pid, &mut |piece| {
        shmem::write(at, piece);
        at += piece.len() as DsaPointer;
    });
    Some((pointer, len))
}

/// The message of a caught error, in full length. Valid as long as the error.
pub fn message<'a>(edata: *mut ErrorData) -> &'a [u8] {
    // SAFETY: a palloc'd error whose message is NULL or NUL-terminated.
    c_bytes(unsafe { (*edata).message })
}

/// Composes an error of this library about the process `pid`, in the form of the protocol.
pub fn compose(sqlstate: &[u8; 5], message: &[u8], detail: Option<&[u8]>, pid: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    put(&mut out, b'V', b"ERROR");
    put(&mut out, b'C', sqlstate);
    put(&mut out, b'M', message);
    if let Some(detail) = detail {
        put(&mut out, b'D', detail);
    }
    let origin = [ORIGIN, Digits::of(pid.max(0) as u64).bytes()].concat();
    put(&mut out, b'W', &origin);
    out.push(0);
    out
}

fn put(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    out.push(code);
    out.extend_from_slice(value);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_survive_packing() {
        for code in [b"57014", b"42P01", b"XX000", b"00000", b"40P01"] {
            assert_eq!(&unpack(pack(code)), code);
        }
    }

    #[test]
    fn fields_are_found_and_truncated_messages_are_harmless() {
        let bytes = compose(b"42P01", b"no table", Some(b"why"), 1);
        let fields = Fields(&bytes);
        assert_eq!(fields.get(b'M'), Some(b"no table".as_slice()));
        assert_eq!(fields.get(b'D'), Some(b"why".as_slice()));
        assert_eq!(fields.get(b'W'), Some(b"background worker, pid 1".as_slice()));
        assert_eq!(fields.get(b'H'), None);
        assert_eq!(fields.sqlstate(), pack(b"42P01"));
        for end in 0..bytes.len() {
            let _ = Fields(&bytes[..end]).get(b'H');
        }
    }
}
