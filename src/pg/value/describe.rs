//! Descriptions of the row types of records, between processes.
//!
//! A value of type `record` names its row type itself. An anonymous row type has a number, which is valid in its own process only. The worker
//! describes each such type before the first row that holds one, and the reader writes its own number into the values. A row type with a
//! name is described too, so that the reader notices that it has changed. The only types that can hold a record at any depth are `record` and
//! `record[]`: columns of tables and fields of named types cannot be pseudo-types.

use crate::pg::error::{self, Result};
use crate::pg::raw::{self, Raw};
use crate::pg::value::desc::{RECORD, release, tuple_desc_attr};
use crate::pg::value::{border, encoding, fingerprint};
use crate::pg::{compat, fallible, memory};
use pgrx::pg_sys::Oid;

/// The size of one column in a description, in bytes.
const COLUMN: usize = 4 + 4 + 4 + 64;

/// A type that a value within a record names itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OwnType {
    /// The anonymous row type with this number.
    Anonymous(i32),
    /// The type with this oid.
    Named(u32),
}

/// Stands for the number in the description of a named type. Numbers of anonymous row types are not negative.
const NAMED: i32 = -1;

/// Describes a type for another process. The description of an anonymous row type holds its number and the number of columns, then for
/// each column its type, type modifier, the fingerprint of the type, and its name. That of a named type is the same for one column without
/// a name. Raises 0A000 for a type whose values cannot go where the values of this process go.
pub fn describe(raw: Raw<'_>, kind: OwnType, write: &mut dyn FnMut(&[u8])) {
    let number = match kind {
        OwnType::Anonymous(number) => number,
        OwnType::Named(kind) => {
            border::check_named_record(raw, kind);
            write(&NAMED.to_ne_bytes());
            write(&1i32.to_ne_bytes());
            write(&kind.to_ne_bytes());
            write(&(-1i32).to_ne_bytes());
            write(&fingerprint::fingerprint(raw, kind).to_ne_bytes());
            return write(&[0; 64]);
        }
    };
    // SAFETY: the number came from a value of this process.
    unsafe {
        let desc = raw::lookup_rowtype_tupdesc(raw, Oid::from(RECORD), number);
        write(&number.to_ne_bytes());
        write(&(*desc).natts.to_ne_bytes());
        for n in 0..(*desc).natts as usize {
            let column = tuple_desc_attr(desc, n);
            border::check_record_column(
                raw,
                (*column).atttypid.to_u32(),
                memory::c_bytes((*column).attname.data.as_ptr()),
            );
            write(&(*column).atttypid.to_u32().to_ne_bytes());
            write(&(*column).atttypmod.to_ne_bytes());
            write(&fingerprint::fingerprint(raw, (*column).atttypid.to_u32()).to_ne_bytes());
            write(&(*column).attname.data.map(|byte| byte as u8));
        }
        release(raw, desc);
    }
}

/// The number of bytes that [`describe`] writes.
pub fn description_len(raw: Raw<'_>, kind: OwnType) -> usize {
    let OwnType::Anonymous(number) = kind else {
        return 8 + COLUMN;
    };
    // SAFETY: as in `describe`.
    unsafe {
        let desc = raw::lookup_rowtype_tupdesc(raw, Oid::from(RECORD), number);
        let len = 8 + COLUMN * (*desc).natts as usize;
        release(raw, desc);
        len
    }
}

/// Whether a column's type in a description has another fingerprint in this process.
pub fn has_changed(raw: Raw<'_>, description: &[u8]) -> bool {
    columns(description)
        .any(|column| fingerprint::fingerprint(raw, number(column, 0) as u32) != number(column, 8) as u32)
}

/// Calls `visit` with the type and name of each column in a description. A named type comes with an empty name.
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

/// What is needed to convert the values of another process: the numbers of its anonymous row types with the corresponding numbers in this
/// process, and the encoding of its texts.
#[derive(Default)]
pub struct Numbers {
    pairs: Vec<(i32, i32)>,
    /// None if the texts are in this process's own encoding.
    pub(super) encoding: Option<i32>,
}

impl Numbers {
    /// Whether values are taken as they are.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.encoding.is_none()
    }

    /// Sets the encoding that the texts come in.
    pub fn texts_come_in(&mut self, from: i32) {
        self.encoding = encoding::differ(from, encoding::of_database()).then_some(from);
    }

    /// Registers the row type of a description in this process. A named type is known already.
    pub fn learn(&mut self, description: &[u8]) -> Result<()> {
        error::catching(|raw| self.learn_raw(raw, description))
    }

    /// As [`Numbers::learn`], raw.
    pub fn learn_raw(&mut self, raw: Raw<'_>, description: &[u8]) {
        if number(description, 0) == NAMED {
            return;
        }
        let natts = number(description, 4);
        // SAFETY: a descriptor of `natts` columns is made and filled; BlessTupleDesc copies it into the type cache.
        let here = unsafe {
            let desc = raw::CreateTemplateTupleDesc(raw, natts);
            for (n, column) in columns(description).take(natts as usize).enumerate() {
                let mut name = [0u8; 64];
                name.iter_mut()
                    .zip(column.iter().skip(12))
                    .for_each(|(to, from)| *to = *from);
                let name = match self.encoding {
                    Some(from) => encoding::name_here(raw, &name, from),
                    None => name,
                };
                raw::TupleDescInitEntry(
                    raw,
                    desc,
                    (n + 1) as _,
                    name.as_ptr().cast(),
                    Oid::from(number(column, 0) as u32),
                    number(column, 4),
                    0,
                );
            }
            compat::finish_descriptor(raw, desc);
            (*raw::BlessTupleDesc(raw, desc)).tdtypmod
        };
        fallible::push_raw(raw, &mut self.pairs, (number(description, 0), here));
    }

    pub(super) fn number_here(&self, number: i32) -> Option<i32> {
        self.pairs
            .iter()
            .rev()
            .find(|(there, _)| *there == number)
            .map(|(_, here)| *here)
    }
}
