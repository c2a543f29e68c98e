//! Types that have the same meaning in two databases of a cluster.
//!
//! A built-in type has the same oid in all databases. A type that a user created exists in one database only, and its oid may belong to a
//! different type in another. So a value of such a type cannot leave its database.

use crate::pg::error::{Result, raise_raw};
use crate::pg::memory;
use crate::pg::raw::{self, Raw};
use crate::pg::value::desc::{self, CSTRING, FIRST_USER_TYPE, MCV_LIST, TSQUERY, TSVECTOR, UNKNOWN, VOID, column_type};
use crate::pg::value::encoding;
use crate::pg::value::tuple::Shape;
use core::cell::Cell;
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;

const HINT: &CStr = c"Cast it to a built-in type, for example to text.";

/// The crossing from one database to another.
#[derive(Clone, Copy)]
pub struct Border {
    /// The encodings of the source and of the destination.
    pub from: i32,
    pub to: i32,
    /// Whether values leave this process's database, so that this process knows their types.
    pub outward: bool,
}

thread_local! {
    static AHEAD: Cell<Option<Border>> = const { Cell::new(None) };
}

/// From now on, the values that this process describes go to a database with this encoding. None stands for its own database.
pub fn values_go_to(encoding: Option<i32>) {
    AHEAD.set(encoding.map(|to| Border {
        from: encoding::of_database(),
        to,
        outward: true,
    }));
}

/// Runs `body` as if after [`values_go_to`] with this encoding, and restores the previous state afterwards: a job can launch other jobs
/// while it sends its own rows. `body` must catch the errors that it raises.
pub fn while_values_go_to<T>(encoding: Option<i32>, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = AHEAD.get();
    values_go_to(encoding);
    let answer = body();
    AHEAD.set(before);
    answer
}

/// The border that values cross now, if any.
pub fn border() -> Option<Border> {
    AHEAD.get()
}

/// Raises 0A000 if a column of the result cannot leave the database.
pub fn check_columns(raw: Raw<'_>, shape: &Shape) {
    if let Some(border) = AHEAD.get() {
        for n in 0..shape.width() {
            border.check(raw, shape.column_type(n), &[b"column \"", shape.column_name(n), b"\""]);
        }
    }
}

/// As [`check_columns`], for a column of an anonymous record.
pub fn check_record_column(raw: Raw<'_>, kind: u32, name: &[u8]) {
    if let Some(border) = AHEAD.get() {
        border.check(raw, kind, &[b"column \"", name, b"\" of a record"]);
    }
}

/// As [`check_columns`], for a value of a named type in a column of type `record`.
pub fn check_named_record(raw: Raw<'_>, kind: u32) {
    if let Some(border) = AHEAD.get() {
        border.check(raw, kind, &[b"a record"]);
    }
}

/// Why values of a type cannot cross: the type exists in one database only, or its values cannot be converted.
enum Trouble {
    Local,
    Sealed,
}

impl Border {
    /// Raises 0A000 if values of type `kind` cannot cross. `what` names the column in the message.
    pub fn check(&self, raw: Raw<'_>, kind: u32, what: &[&[u8]]) {
        let Some(trouble) = self.trouble(raw, kind, 0) else {
            return;
        };
        let mut pieces: [&[u8]; 12] = [b""; 12];
        let tail: [&[u8]; 6] = match trouble {
            Trouble::Local if !self.outward && kind >= FIRST_USER_TYPE => [
                b" has a type that exists in another database only",
                b"",
                b"",
                b"",
                b"",
                b"",
            ],
            Trouble::Local => [
                b" has type ",
                type_name(raw, kind),
                b", which exists in one database only",
                b"",
                b"",
                b"",
            ],
            Trouble::Sealed => [
                b" has type ",
                type_name(raw, kind),
                b", which cannot be converted between the encodings ",
                encoding::name(self.from),
                b" and ",
                encoding::name(self.to),
            ],
        };
        for (to, from) in pieces.iter_mut().zip(what.iter().chain(&tail)) {
            *to = from;
        }
        raise_raw(raw, PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, &pieces, Some(HINT));
    }

    fn trouble(&self, raw: Raw<'_>, kind: u32, depth: u32) -> Option<Trouble> {
        /// Built-in types are not nested more deeply.
        const DEEPEST: u32 = 8;
        if kind >= FIRST_USER_TYPE || depth > DEEPEST {
            return Some(Trouble::Local);
        }
        // The columns of anonymous records are checked when their types are described.
        if desc::may_hold(kind) || matches!(kind, UNKNOWN | CSTRING | VOID) {
            return None;
        }
        if is_sealed(kind) {
            return encoding::differ(self.from, self.to).then_some(Trouble::Sealed);
        }
        let oid = Oid::from(kind);
        // SAFETY: look-ups in the catalogs by number.
        unsafe {
            match raw::get_typtype(raw, oid) as u8 {
                // A pseudo-type's values have types that only the values themselves name.
                b'p' => Some(Trouble::Local),
                b'd' => self.trouble(raw, raw::getBaseType(raw, oid).to_u32(), depth + 1),
                b'c' => {
                    let desc = raw::lookup_rowtype_tupdesc(raw, oid, -1);
                    let found =
                        (0..(*desc).natts as usize).find_map(|n| self.trouble(raw, column_type(desc, n), depth + 1));
                    desc::release(raw, desc);
                    found
                }
                b'b' => match raw::get_element_type(raw, oid) {
                    Oid::INVALID => None,
                    element => self.trouble(raw, element.to_u32(), depth + 1),
                },
                _ => None,
            }
        }
    }
}

/// The type's name as error messages show it.
pub fn type_name(raw: Raw<'_>, kind: u32) -> &'static [u8] {
    // SAFETY: a string in the current memory context, which outlives the error that quotes it.
    memory::c_bytes(unsafe { raw::format_type_be(raw, Oid::from(kind)) })
}

/// Whether values of a built-in type contain text in a form that cannot be converted in place.
fn is_sealed(kind: u32) -> bool {
    matches!(kind, TSVECTOR | TSQUERY | MCV_LIST)
}
