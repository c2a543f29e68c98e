//! Text in the database's encoding. Guarded.

use crate::pg::error::{self, Result};
use crate::pg::function::rows::text_datum;
use crate::pg::raw;
use pgrx::pg_sys;

/// The longest beginning of the text that fits into `limit` bytes and ends with a whole character.
pub fn clip(text: &[u8], limit: usize) -> &[u8] {
    // SAFETY: a readable text in the database's encoding.
    let len = unsafe { pg_sys::pg_mbcliplen(text.as_ptr().cast(), text.len() as _, limit as _) };
    text.get(..len as usize).unwrap_or(text)
}

/// The first `count` characters. Examines only as much of the text as they can take.
pub fn first_characters(text: &[u8], count: usize) -> &[u8] {
    const LONGEST_CHARACTER: usize = 4;
    let start = clip(text, text.len().min((count + 1) * LONGEST_CHARACTER));
    // SAFETY: as above.
    let len = unsafe { pg_sys::pg_mbcharcliplen(start.as_ptr().cast(), start.len() as _, count as _) };
    start.get(..len as usize).unwrap_or(start)
}

/// How many characters the text has.
pub fn characters(text: &[u8]) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    // SAFETY: as above.
    unsafe { pg_sys::pg_mbstrlen_with_len(text.as_ptr().cast(), text.len() as _) as usize }
}

/// SQL's `text LIKE pattern`. Fails with 22025 if the pattern ends in its escape character.
pub fn is_like(text: &[u8], pattern: &[u8]) -> Result<bool> {
    // SAFETY: textlike takes two texts and a collation.
    error::catching(|raw| unsafe {
        let datum = raw::DirectFunctionCall2Coll(
            raw,
            Some(raw::textlike),
            pg_sys::DEFAULT_COLLATION_OID,
            text_datum(raw, text),
            text_datum(raw, pattern),
        );
        datum.value() & 0xff != 0
    })
}
