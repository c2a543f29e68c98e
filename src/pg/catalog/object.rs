//! Locks on what has a name in a table of ours, as PostgreSQL locks objects of its catalogs.

use crate::pg::error::{self, Result};
use crate::pg::raw::may_raise;
use crate::pg::value::fingerprint::Hash;
use pgrx::pg_sys::{self, LOCKMODE, Oid};

/// What the lock is for.
#[derive(Clone, Copy)]
pub enum Mode {
    /// It is to stay.
    Use,
    /// No other transaction has it.
    Alone,
}

// storage/lmgr.h
may_raise! {
    fn LockDatabaseObject(class: Oid, object: Oid, sub_id: u16, mode: LOCKMODE);
}

/// Locks the name, or one with the same hash, until the transaction ends. Object 0 is the table as a whole, so the hash is another number.
pub fn lock_name(class: u32, name: &[u8], mode: Mode) -> Result<()> {
    let mut hash = Hash::new();
    hash.add_bytes(name);
    let object = Oid::from(hash.end());
    let mode = match mode {
        Mode::Use => pg_sys::RowExclusiveLock,
        Mode::Alone => pg_sys::AccessExclusiveLock,
    };
    // SAFETY: a tag of the database's own; nothing else is read.
    error::catching(|raw| unsafe {
        LockDatabaseObject(raw, Oid::from(class), object, 0, mode as LOCKMODE);
    })
}
