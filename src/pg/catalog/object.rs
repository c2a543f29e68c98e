//! Locks on what has a name in a table of ours, as PostgreSQL locks objects of its catalogs.

use crate::pg::error::{self, Result};
use crate::pg::raw::may_raise;
use pgrx::pg_sys::{self, LOCKMODE, Oid};

/// What the lock is for.
#[derive(Clone, Copy)]
pub enum Mode {
    /// It is to stay.
    Use,
    /// Nobody uses it.
    Drop,
}

// storage/lmgr.h
may_raise! {
    fn LockDatabaseObject(class: Oid, object: Oid, sub_id: u16, mode: LOCKMODE);
}

/// Locks the name, or one with the same hash, until the transaction ends. Object 0 is the table as a whole, so the hash is another number.
pub fn lock_name(class: u32, name: &[u8], mode: Mode) -> Result<()> {
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    let mode = match mode {
        Mode::Use => pg_sys::RowExclusiveLock,
        Mode::Drop => pg_sys::AccessExclusiveLock,
    };
    // SAFETY: a tag of the database's own; nothing else is read.
    error::catching(|raw| unsafe {
        LockDatabaseObject(raw, Oid::from(class), Oid::from(hash.max(1)), 0, mode as LOCKMODE);
    })
}
