//! The tables of other extensions.

use crate::pg::error::{self, Result};
use crate::pg::raw::may_raise;
use core::ffi::CStr;
use pgrx::pg_sys::{self, LOCKMODE, Oid};

// storage/lmgr.h
may_raise! {
    fn LockRelationOid(relation: Oid, mode: LOCKMODE);
}

/// A table, and the extension that it is said to belong to.
#[derive(Clone, Copy)]
pub struct Table {
    pub extension: &'static CStr,
    pub schema: &'static CStr,
    pub name: &'static CStr,
}

impl Table {
    /// Keeps the table as it is until the transaction ends, for reading or, if `writes`, for writing. False if the extension has no such table, also if
    /// there is one of the name that is not the extension's own. Guarded.
    pub fn keep(&self, writes: bool) -> Result<bool> {
        let Some(table) = self.find() else { return Ok(false) };
        let mode = if writes {
            pg_sys::RowExclusiveLock
        } else {
            pg_sys::AccessShareLock
        };
        // SAFETY: whether the table is still there is looked at once more.
        error::catching(|raw| unsafe { LockRelationOid(raw, table, mode as LOCKMODE) })?;
        // The name may have gone to another table before the lock.
        Ok(self.find() == Some(table))
    }

    fn find(&self) -> Option<Oid> {
        // SAFETY: look-ups in the catalogs by NUL-terminated names.
        unsafe {
            let extension = pg_sys::get_extension_oid(self.extension.as_ptr(), true);
            let schema = pg_sys::get_namespace_oid(self.schema.as_ptr(), true);
            if extension == Oid::INVALID || schema == Oid::INVALID {
                return None;
            }
            let table = pg_sys::get_relname_relid(self.name.as_ptr(), schema);
            let is_own =
                table != Oid::INVALID && pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, table) == extension;
            is_own.then_some(table)
        }
    }
}
