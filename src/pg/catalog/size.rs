//! How large a table is, that it stays as it is, and how the values of a type are ordered. Guarded.

use crate::pg::error::{self, Result};
use crate::pg::raw::may_raise;
use pgrx::pg_sys::{self, BlockNumber, ForkNumber, LOCKMODE, Oid, Relation};

// access/relation.h, optimizer/plancat.h, storage/bufmgr.h, storage/lmgr.h
may_raise! {
    fn relation_open(relation: Oid, mode: LOCKMODE) -> Relation;
    fn relation_close(relation: Relation, mode: LOCKMODE);
    fn estimate_rel_size(
        relation: Relation,
        attr_widths: *mut i32,
        pages: *mut BlockNumber,
        tuples: *mut f64,
        allvisfrac: *mut f64,
    );
    fn RelationGetNumberOfBlocksInFork(relation: Relation, fork: ForkNumber::Type) -> BlockNumber;
    fn LockRelationOid(relation: Oid, mode: LOCKMODE);
}

// utils/lsyscache.h, commands/defrem.h
may_raise! {
    fn getBaseType(kind: Oid) -> Oid;
    fn GetDefaultOpClass(kind: Oid, method: Oid) -> Oid;
}

/// The blocks of a table, and about how many rows it has, as the planner sees it. The table is locked until the transaction ends.
pub fn of_table(table: u32) -> Result<(u32, f64)> {
    error::catching(|raw| {
        let (mut pages, mut rows, mut visible) = (0, 0.0, 0.0);
        // SAFETY: a table, an index or a sequence with this number, or an error.
        let blocks = unsafe {
            let relation = relation_open(raw, Oid::from(table), pg_sys::AccessShareLock as _);
            estimate_rel_size(
                raw,
                relation,
                core::ptr::null_mut(),
                &mut pages,
                &mut rows,
                &mut visible,
            );
            let blocks = RelationGetNumberOfBlocksInFork(raw, relation, pg_sys::ForkNumber::MAIN_FORKNUM);
            relation_close(raw, relation, pg_sys::NoLock as _);
            blocks
        };
        // The planner takes a new table for larger than it is.
        (blocks, rows * f64::from(blocks) / f64::from(pages.max(1)))
    })
}

/// Keeps the table as it is until the transaction ends; one that is not there any more is no error.
pub fn hold(table: u32) -> Result<()> {
    // SAFETY: a lock on a number.
    error::catching(|raw| unsafe { LockRelationOid(raw, Oid::from(table), pg_sys::AccessShareLock as _) })
}

/// The type without its domains, and the default operator class that orders its values in a btree, 0 if there is none.
pub fn order_of(kind: u32) -> Result<(u32, u32)> {
    error::catching(|raw| {
        // SAFETY: look-ups in the catalogs.
        unsafe {
            let base = getBaseType(raw, Oid::from(kind));
            let class = GetDefaultOpClass(raw, base, pg_sys::BTREE_AM_OID);
            (base.to_u32(), class.to_u32())
        }
    })
}
