//! Row types that can change. Raw.
//!
//! The bytes of a composite value are laid out by the columns that its type has when the value is made. An unread result can
//! wait while ALTER TABLE gives the type other columns; read as the new type the old bytes would be taken for what they are
//! not. So the worker sends along what such a type looked like, and the reader compares.

use super::foreign::FIRST_USER_TYPE;
use super::raw;
use super::tuples::tuple_desc_attr;
use pgrx::pg_sys::Oid;

/// Types nested deeper than this are not looked into; PostgreSQL's own checks of nesting end far earlier.
const DEEPEST: u32 = 32;

/// A number for the layout of the values of type `kind`, 0 for types whose layout cannot change.
pub fn fingerprint(kind: u32) -> u32 {
    within(kind, 0)
}

fn within(kind: u32, depth: u32) -> u32 {
    // Types that are built in cannot change.
    if kind < FIRST_USER_TYPE || depth > DEEPEST {
        return 0;
    }
    let kind = Oid::from(kind);
    // SAFETY: look-ups in the catalog by number; a type that is gone gives 0 or NULL.
    unsafe {
        match raw::get_typtype(kind) as u8 {
            b'c' => columns(kind, depth),
            b'd' => within(raw::getBaseType(kind).to_u32(), depth + 1),
            b'r' => within(raw::get_range_subtype(kind).to_u32(), depth + 1),
            b'm' => within(raw::get_multirange_range(kind).to_u32(), depth + 1),
            b'b' => within(raw::get_element_type(kind).to_u32(), depth + 1),
            _ => 0,
        }
    }
}

/// FNV-1a over what decides where each column lies.
unsafe fn columns(kind: Oid, depth: u32) -> u32 {
    // SAFETY: the descriptor is pinned while it is looked at.
    unsafe {
        let desc = raw::lookup_rowtype_tupdesc_noerror(kind, -1, true);
        if desc.is_null() {
            return 1;
        }
        let mut hash = 0x811c_9dc5u32;
        let mut add = |number: u32| {
            for byte in number.to_ne_bytes() {
                hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            }
        };
        for n in 0..(*desc).natts as usize {
            let column = tuple_desc_attr(desc, n);
            let inner = (*column).atttypid.to_u32();
            add(inner);
            add((*column).attlen as u32);
            add((*column).attalign as u32);
            add(u32::from((*column).attisdropped));
            add(within(inner, depth + 1));
        }
        super::record::release(desc);
        hash.max(1)
    }
}
