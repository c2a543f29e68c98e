//! Fingerprints of types, which show whether a type has changed.
//!
//! The layout of a composite value follows the columns that its type has when the value is made. While a result waits unread, ALTER TABLE
//! can change the columns, and the bytes would be misread as the new type. ALTER DOMAIN can add constraints in the same way, and PostgreSQL
//! relies on all values of a domain to satisfy its constraints. A record can have values of a type that was dropped meanwhile, since its
//! reader need not name the type. So the worker sends a fingerprint of each such type, and the reader compares it.

use crate::pg::compat;
use crate::pg::raw::{self, Raw};
use crate::pg::value::desc::{FIRST_USER_TYPE, tuple_desc_attr};
use core::cell::Cell;
use core::ptr;
use pgrx::pg_sys::{self, Datum, Oid};

/// The maximum nesting of types that is examined. PostgreSQL's own limits on nesting are far lower.
const DEEPEST: u32 = 32;

/// The fingerprint of a type that does not exist.
const MISSING: u32 = 1;

/// The fingerprint of a type that can be dropped, but not changed.
const UNCHANGING: u32 = 2;

/// Returns a fingerprint of type `kind`, or 0 for built-in types, which cannot change.
pub fn fingerprint(raw: Raw<'_>, kind: u32) -> u32 {
    if kind >= FIRST_USER_TYPE {
        // Take account of what other transactions have committed by now.
        // SAFETY: in a transaction.
        unsafe { raw::AcceptInvalidationMessages(raw) };
    }
    within(raw, kind, 0)
}

fn within(raw: Raw<'_>, kind: u32, depth: u32) -> u32 {
    // Built-in types cannot change.
    if kind < FIRST_USER_TYPE || depth > DEEPEST {
        return 0;
    }
    let kind = Oid::from(kind);
    // SAFETY: look-ups in the catalog by number; a dropped type gives 0 or NULL.
    let print = unsafe {
        match raw::get_typtype(raw, kind) as u8 {
            0 => return MISSING,
            b'c' => columns(raw, kind, depth),
            b'd' => domain(raw, kind, depth),
            b'r' => within(raw, raw::get_range_subtype(raw, kind).to_u32(), depth + 1),
            b'm' => within(raw, raw::get_multirange_range(raw, kind).to_u32(), depth + 1),
            b'b' => within(raw, raw::get_element_type(raw, kind).to_u32(), depth + 1),
            _ => 0,
        }
    };
    print.max(UNCHANGING)
}

/// FNV-1a over numbers.
pub(in crate::pg) struct Hash(u32);

impl Hash {
    pub(in crate::pg) fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn add(&mut self, number: u32) {
        self.add_bytes(&number.to_ne_bytes());
    }

    pub(in crate::pg) fn add_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// Never 0.
    pub(in crate::pg) fn end(self) -> u32 {
        self.0.max(1)
    }
}

/// Hashes what decides the position of each column and the values that it may have.
unsafe fn columns(raw: Raw<'_>, kind: Oid, depth: u32) -> u32 {
    // SAFETY: the descriptor is pinned while it is looked at.
    unsafe {
        let desc = raw::lookup_rowtype_tupdesc_noerror(raw, kind, -1, true);
        if desc.is_null() {
            return MISSING;
        }
        let mut hash = Hash::new();
        for n in 0..(*desc).natts as usize {
            let column = tuple_desc_attr(desc, n);
            let inner = (*column).atttypid.to_u32();
            hash.add(inner);
            hash.add((*column).attlen as u32);
            hash.add((*column).attalign as u32);
            hash.add((*column).atttypmod as u32);
            hash.add(u32::from((*column).attisdropped));
            hash.add(within(raw, inner, depth + 1));
        }
        crate::pg::value::desc::release(raw, desc);
        hash.end()
    }
}

/// Hashes the constraints of a domain. The only way to alter a constraint is to validate it.
unsafe fn domain(raw: Raw<'_>, kind: Oid, depth: u32) -> u32 {
    // SAFETY: what is found in the cache is released; a type without a row has no values.
    unsafe {
        let found = compat::read_cached(
            raw,
            pg_sys::SysCacheIdentifier::TYPEOID,
            kind,
            |domain: &pg_sys::FormData_pg_type| (domain.typbasetype, domain.typtypmod, domain.typnotnull),
        );
        let Some((base, modifier, not_null)) = found else {
            return MISSING;
        };
        let mut hash = Hash::new();
        hash.add(base.to_u32());
        hash.add(modifier as u32);
        hash.add(u32::from(not_null));
        hash.add(known_checks(raw, kind));
        hash.add(within(raw, base.to_u32(), depth + 1));
        hash.end()
    }
}

/// The maximum number of domains that are remembered.
const KNOWN: usize = 16;

thread_local! {
    /// Domains and their [`checks`], until a constraint changes anywhere.
    static CHECKS: Cell<[(u32, u32); KNOWN]> = const { Cell::new([(0, 0); KNOWN]) };
    static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// As [`checks`], from memory if possible.
unsafe fn known_checks(raw: Raw<'_>, kind: Oid) -> u32 {
    let (number, place) = (kind.to_u32(), kind.to_u32() as usize % KNOWN);
    let (known, sum) = CHECKS.get()[place];
    if known == number {
        return sum;
    }
    if !IS_WATCHED.get() {
        compat::watch_constraints(raw, || CHECKS.set([(0, 0); KNOWN]));
        IS_WATCHED.set(true);
    }
    // SAFETY: as for `checks`.
    let sum = unsafe { checks(raw, kind) };
    let mut all = CHECKS.get();
    all[place] = (number, sum);
    CHECKS.set(all);
    sum
}

/// Returns a number for the CHECK constraints of a domain, independent of their order.
unsafe fn checks(raw: Raw<'_>, kind: Oid) -> u32 {
    /// `ConstraintRelationId` of `catalog/pg_constraint_d.h`.
    const CONSTRAINTS: u32 = 2606;
    /// `ConstraintTypidIndexId` of `catalog/pg_constraint_d.h`.
    const BY_TYPE: u32 = 2666;
    /// `Anum_pg_constraint_oid` of `catalog/pg_constraint_d.h`.
    const NUMBER: i32 = 1;
    /// `Anum_pg_constraint_contype` of `catalog/pg_constraint_d.h`.
    const SORT: i32 = 4;
    /// The catalog has no more columns than this in any supported version.
    const MOST_COLUMNS: usize = 32;
    // SAFETY: a scan by index with one key, an oid, in the catalog's own snapshot; the columns that are looked at are never NULL.
    unsafe {
        let relation = raw::table_open(raw, Oid::from(CONSTRAINTS), pg_sys::AccessShareLock as _);
        let mut key = pg_sys::ScanKeyData::default();
        raw::ScanKeyInit(
            raw,
            &mut key,
            compat::CONSTRAINT_TYPE as i16,
            pg_sys::BTEqualStrategyNumber as _,
            pg_sys::F_OIDEQ.into(),
            Datum::from(kind),
        );
        let scan = raw::systable_beginscan(raw, relation, Oid::from(BY_TYPE), true, ptr::null_mut(), 1, &mut key);
        let mut sum = 0u32;
        let (mut values, mut nulls) = ([Datum::from(0usize); MOST_COLUMNS], [true; MOST_COLUMNS]);
        debug_assert!((*(*relation).rd_att).natts as usize <= MOST_COLUMNS);
        loop {
            let row = raw::systable_getnext(raw, scan);
            if row.is_null() {
                break;
            }
            raw::heap_deform_tuple(raw, row, (*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
            let column = |number: i32| values[number as usize - 1].value();
            if column(SORT) as u8 == b'c' {
                let mut hash = Hash::new();
                hash.add(column(NUMBER) as u32);
                hash.add(column(compat::CONSTRAINT_VALIDATED) as u32 & 0xff);
                sum = sum.wrapping_add(hash.end());
            }
        }
        raw::systable_endscan(raw, scan);
        raw::table_close(raw, relation, pg_sys::AccessShareLock as _);
        sum
    }
}
