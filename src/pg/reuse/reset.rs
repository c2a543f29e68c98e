//! What `DISCARD ALL` does to a session (commands/discard.c), and what it does not undo. Raw, outside of a transaction.

use crate::pg::compat;
use crate::pg::process::backend;
use crate::pg::query::simple_query;
use crate::pg::raw::{self, Raw};
use core::ffi::c_int;
use pgrx::pg_sys::{self, Datum, LOCKTAG, Oid};

/// `USER_LOCKMETHOD` of `storage/lock.h`: advisory locks.
const USER_LOCKMETHOD: u16 = 2;

/// `DEFAULT_LOCKMETHOD` of `storage/lock.h`.
const DEFAULT_LOCKMETHOD: u8 = 1;

/// Whether this process has something that cannot be undone: a schema for temporary objects, which stays when they are dropped; a backup; a
/// replication origin.
pub fn is_marked() -> bool {
    let (mut schema, mut toast) = (Oid::INVALID, Oid::INVALID);
    // SAFETY: plain reads of this backend's state.
    unsafe {
        raw::GetTempNamespaceState(&mut schema, &mut toast);
        schema != Oid::INVALID
            || raw::get_backup_status() != pg_sys::SessionBackupState::SESSION_BACKUP_NONE
            || compat::has_replication_origin()
    }
}

/// Releases the acquired replication slot, and drops temporary ones. A job's session ends with the job, so anyone who sees its end must
/// find them free.
pub fn release_slots(raw: Raw<'_>) {
    simple_query::release_slot(raw);
    compat::drop_temporary_slots(raw);
}

/// Discards cursors, prepared statements, advisory locks, and the state of sequences and random numbers. `random` must be unpredictable.
pub fn discard(raw: Raw<'_>, random: u64) {
    // SAFETY: the order is that of DISCARD ALL. The seed is as unforeseeable as that of a process which never set one.
    unsafe {
        raw::PortalHashTableDeleteAll(raw);
        raw::DropAllPreparedStatements(raw);
        if compat::is_in_lock_table() {
            raw::LockReleaseAll(raw, USER_LOCKMETHOD, true);
        }
        raw::ResetSequenceCaches(raw);
        let seed = (random >> 11) as f64 / (1u64 << 53) as f64;
        raw::DirectFunctionCall1Coll(raw, Some(raw::setseed), Oid::INVALID, Datum::from(seed.to_bits()));
    }
}

/// Whether another process has locked this process's database to drop, copy, rename or move it, which requires that no process is connected
/// to it. This tries the lock that every connecting process takes (`InitPostgres`).
pub fn database_is_wanted(raw: Raw<'_>) -> bool {
    let tag = LOCKTAG {
        locktag_field1: 0,
        locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
        locktag_field3: backend::my_database().to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: DEFAULT_LOCKMETHOD,
    };
    let mode = pg_sys::RowExclusiveLock as c_int;
    // SAFETY: a session's lock, without waiting, given back at once.
    unsafe {
        if raw::LockAcquire(raw, &tag, mode, true, true) == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
            return true;
        }
        raw::LockRelease(raw, &tag, mode, true);
    }
    false
}
