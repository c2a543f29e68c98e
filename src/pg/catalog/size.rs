//! How large a table is, that it stays as it is, and how the values of a type are ordered. Guarded.

use crate::pg::error::{self, Result};
use pgrx::pg_sys::{self, Oid};

/// The blocks of a table, and about how many rows it has, as the planner sees it. The table is locked until the transaction ends.
pub fn of_table(table: u32) -> Result<(u32, f64)> {
    error::catching(|_raw| {
        let (mut pages, mut rows, mut visible) = (0, 0.0, 0.0);
        // SAFETY: a table, an index or a sequence with this number, or an error.
        let blocks = unsafe {
            let relation = pg_sys::relation_open(Oid::from(table), pg_sys::AccessShareLock as _);
            pg_sys::estimate_rel_size(relation, core::ptr::null_mut(), &mut pages, &mut rows, &mut visible);
            let blocks = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
            pg_sys::relation_close(relation, pg_sys::NoLock as _);
            blocks
        };
        // The planner takes a new table for larger than it is.
        (blocks, rows * f64::from(blocks) / f64::from(pages.max(1)))
    })
}

/// Keeps the table as it is until the transaction ends; one that is not there any more is no error.
pub fn hold(table: u32) -> Result<()> {
    // SAFETY: a lock on a number.
    error::catching(|_raw| unsafe { pg_sys::LockRelationOid(Oid::from(table), pg_sys::AccessShareLock as _) })
}

/// The type without its domains, and the default operator class that orders its values in a btree, 0 if there is none.
pub fn order_of(kind: u32) -> Result<(u32, u32)> {
    error::catching(|_raw| {
        // SAFETY: look-ups in the catalogs.
        unsafe {
            let base = pg_sys::getBaseType(Oid::from(kind));
            let class = pg_sys::GetDefaultOpClass(base, pg_sys::BTREE_AM_OID);
            (base.to_u32(), class.to_u32())
        }
    })
}
