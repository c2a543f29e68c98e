//! The next range of keys, which a chunk gets: read by SQL as the operation's role.
//!
//! That SQL has qualified names, and keys as literals, so that no path and no cast changes what they mean.

use crate::pg::error::{self, Report, Result};
use crate::pg::fallible;
use crate::pg::guc::own;
use crate::pg::spi;
use crate::pg::value::kept::FORMATS;
use crate::tasks::by::{Key, NULLS_LAST};
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;
use std::ffi::CString;

/// A range of keys, or of blocks.
pub struct Range {
    pub first: Vec<u8>,
    pub last: Vec<u8>,
    /// Rows or blocks.
    pub size: i64,
    /// Whether it was the last one.
    pub is_end: bool,
}

impl Key {
    /// Cuts the next range of `size` rows behind `after`, as the current role, in its transaction. A key that several rows have is not divided. None
    /// where no row is left.
    pub fn cut(&self, after: Option<&[u8]>, size: i64) -> Result<Option<Range>> {
        let condition = match after {
            Some(key) => self.compare(&self.greater, key),
            None => [&self.column, &b" IS NOT NULL"[..]].concat(),
        };
        let Some(first) = self.one(&condition, b"ASC", 0)? else {
            return Ok(None);
        };
        let condition = self.compare(&self.at_least, &first);
        if let Some(last) = self.one(&condition, b"ASC", size - 1)? {
            return Ok(Some(Range {
                first,
                last,
                size,
                is_end: false,
            }));
        }
        // The rows that are left are fewer. What has gone meanwhile leaves the first one alone.
        let last = match self.one(&condition, b"DESC", 0)? {
            Some(last) => last,
            None => fallible::copied(&first)?,
        };
        let rows = b"SELECT pg_catalog.count(*) FROM (SELECT FROM ";
        let limit = format!(" LIMIT {size}) AS _");
        let counted = spi::texts(
            &c_string([&rows[..], &self.table, &b" WHERE "[..], &condition, limit.as_bytes()].concat())?,
            &[],
        )?;
        let counted = counted.first().and_then(|count| count.to_str().ok()?.parse().ok());
        Ok(Some(Range {
            first,
            last,
            size: counted.unwrap_or(size).max(1),
            is_end: true,
        }))
    }

    fn compare(&self, operator: &[u8], key: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 7] = [&self.column, b" ", operator, b" ", &literal(key), b"::", &self.kind];
        parts.concat()
    }

    fn one(&self, condition: &[u8], direction: &[u8], offset: i64) -> Result<Option<Vec<u8>>> {
        let order: &[u8] = if direction == b"ASC" {
            self.order
        } else {
            reverse(self.order)
        };
        let offset = format!(" OFFSET {offset} LIMIT 1");
        let parts: [&[u8]; 9] = [
            b"SELECT ",
            &self.column,
            b" FROM ",
            &self.table,
            b" WHERE ",
            condition,
            b" ORDER BY ",
            &[&self.column, order].concat(),
            offset.as_bytes(),
        ];
        let found = spi::texts(&c_string(parts.concat())?, &[])?;
        Ok(found.into_iter().next().map(CString::into_bytes))
    }
}

/// The same order from its end.
fn reverse(order: &[u8]) -> &'static [u8] {
    if order == NULLS_LAST {
        b" DESC NULLS FIRST"
    } else {
        b" DESC NULLS LAST"
    }
}

/// The text as a literal, whatever `standard_conforming_strings` is.
fn literal(text: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::new();
    if text.contains(&b'\\') {
        quoted.extend_from_slice(b" E");
    }
    quoted.push(b'\'');
    for byte in text {
        if matches!(byte, b'\'' | b'\\') {
            quoted.push(*byte);
        }
        quoted.push(*byte);
    }
    quoted.push(b'\'');
    quoted
}

/// The text of a statement.
pub fn c_string(bytes: Vec<u8>) -> Result<CString> {
    CString::new(bytes).map_err(|_| Report::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a statement has a NUL").into())
}

/// What the planner may do, so that it reads the keys in the order of the index, however small or odd the table looks to it.
const PLANNER: [(&CStr, &CStr); 8] = [
    (c"enable_seqscan", c"off"),
    (c"enable_bitmapscan", c"off"),
    (c"enable_sort", c"off"),
    (c"enable_indexscan", c"on"),
    (c"enable_indexonlyscan", c"on"),
    (c"max_parallel_workers_per_gather", c"0"),
    (c"jit", c"off"),
    (c"cursor_tuple_fraction", c"0"),
];

const SEARCH_PATH: &CStr = c"search_path";

/// Sets what [`Key::cut`] needs, until the transaction ends: the path and the settings of the operation, which policies and functions look at, and
/// those of this file. What is said of transactions is for that of the chunk.
pub fn prepare(key: &Key, settings: &[(&CStr, Option<&CStr>)]) -> Result<()> {
    let is = |name: &CStr, known: &CStr| name.to_bytes().eq_ignore_ascii_case(known.to_bytes());
    for (name, value) in settings {
        let value = value.unwrap_or(c"");
        let is_set_below = || FORMATS.iter().chain(&PLANNER).any(|(known, _)| is(name, known));
        if is(name, SEARCH_PATH) {
            set_as_clause(name, value)?;
        } else if !name.to_bytes().to_ascii_lowercase().starts_with(b"transaction_") && !is_set_below() {
            own::set(name, value, true)?;
        }
    }
    for (name, value) in FORMATS.iter().chain(&PLANNER) {
        if *name != SEARCH_PATH || key.shows_names {
            set_as_clause(name, value)?;
        }
    }
    Ok(())
}

/// Sets what differs as a function's SET clause does it. A SET LOCAL of the path would have the process forget all that it knows of the catalogs after
/// the chunk.
fn set_as_clause(name: &CStr, value: &CStr) -> Result<()> {
    if own::value_of(name)? == value.to_bytes() {
        return Ok(());
    }
    error::catching(|raw| own::set_until_level_ends(raw, name, value))
}

/// Asks for the right to read the column, as the current role. 42501.
pub fn check_rights(key: &Key) -> Result<()> {
    let parts: [&[u8]; 5] = [b"SELECT ", &key.column, b" FROM ", &key.table, b" WHERE false"];
    spi::texts(&c_string(parts.concat())?, &[]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        assert_eq!(literal(b"a"), b"'a'");
        assert_eq!(literal(b"it's"), b"'it''s'");
        assert_eq!(literal(b"a\\'b"), b" E'a\\\\''b'");
        assert_eq!(literal(b""), b"''");
    }
}
