//! The databases of the cluster, as a process that is about to connect sees them. Guarded.

use crate::pg::error::{self, Report, Result};
use crate::pg::process::backend;
use crate::pg::raw::{self, Raw};
use crate::pg::{compat, fallible, memory};
use core::ffi::CStr;
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Oid};

/// A database that a job is to run in.
#[derive(Clone, Copy)]
pub struct Database {
    pub oid: u32,
    pub encoding: i32,
    /// Whether this is another database than this process's database.
    pub is_other: bool,
}

impl Database {
    /// This process's database.
    pub fn own() -> Self {
        Self {
            oid: backend::my_database().to_u32(),
            encoding: crate::pg::value::encoding::of_database(),
            is_other: false,
        }
    }

    /// Returns the database of this name, if all of `roles` may connect to it.
    ///
    /// Errors: 3D000 if there is no such database, 42501 if a role lacks CONNECT, 55000 if the database accepts no connections.
    pub fn by_name(name: &CStr, roles: [u32; 2]) -> Result<Self> {
        let shown = String::from_utf8_lossy(name.to_bytes());
        // SAFETY: a NUL-terminated name.
        let oid = unsafe { pg_sys::get_database_oid(name.as_ptr(), true) };
        let Some(found) = Form::of(oid)? else {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
                format!("database \"{shown}\" does not exist"),
            )
            .into());
        };
        if oid == backend::my_database() {
            return Ok(Self::own());
        }
        if !found.takes_connections {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("database \"{shown}\" is not currently accepting connections"),
            )
            .into());
        }
        if found.is_invalid {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot connect to invalid database \"{shown}\""),
            )
            .hint("Use DROP DATABASE to drop invalid databases.")
            .into());
        }
        if !roles.into_iter().all(|role| compat::may_connect(oid, Oid::from(role))) {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for database \"{shown}\""),
            )
            .detail("User does not have CONNECT privilege.")
            .into());
        }
        Ok(Self {
            oid: oid.to_u32(),
            encoding: found.encoding,
            is_other: true,
        })
    }
}

/// The columns of `pg_database` that are needed here.
#[derive(Clone, Copy)]
struct Form {
    encoding: i32,
    takes_connections: bool,
    /// Whether DROP DATABASE was interrupted.
    is_invalid: bool,
}

/// `DATCONNLIMIT_INVALID_DB` of `catalog/pg_database.h`.
const INVALID: i32 = -2;

impl Form {
    fn of(oid: Oid) -> Result<Option<Self>> {
        // SAFETY: the struct of pg_database.
        error::catching(|raw| unsafe {
            let cache = pg_sys::SysCacheIdentifier::DATABASEOID;
            compat::read_cached(raw, cache, oid, |database: &pg_sys::FormData_pg_database| Self {
                encoding: database.encoding,
                takes_connections: database.datallowconn,
                is_invalid: database.datconnlimit == INVALID,
            })
        })
    }
}

/// The databases that take connections. In a transaction. 53200.
pub fn connectable() -> Result<Vec<u32>> {
    // SAFETY: a scan of the catalog, whose rows begin with the struct; it is ended before anything else is done.
    let (oids, count) = error::catching(|raw| unsafe {
        let table = raw::table_open(raw, pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as _);
        let scan = raw::systable_beginscan(raw, table, Oid::INVALID, false, ptr::null_mut(), 0, ptr::null_mut());
        let (mut oids, mut count, mut room) = (ptr::null_mut::<u32>(), 0, 0);
        loop {
            let row = raw::systable_getnext(raw, scan);
            if row.is_null() {
                break;
            }
            let database = &*compat::columns::<pg_sys::FormData_pg_database>(row);
            if database.datallowconn && database.datconnlimit != INVALID {
                if count == room {
                    room = room * 2 + 64;
                    let more = raw::palloc(raw, room * size_of::<u32>()).cast::<u32>();
                    if count > 0 {
                        ptr::copy_nonoverlapping(oids, more, count);
                    }
                    oids = more;
                }
                oids.add(count).write(database.oid.to_u32());
                count += 1;
            }
        }
        raw::systable_endscan(raw, scan);
        raw::table_close(raw, table, pg_sys::AccessShareLock as _);
        (oids, count)
    })?;
    let mut found = Vec::new();
    fallible::reserve(&mut found, count)?;
    // SAFETY: so many were written, in the memory of the transaction.
    found.extend((0..count).map(|n| unsafe { *oids.add(n) }));
    Ok(found)
}

/// Raises 42501 if the role may no longer connect to this process's database. Call it in a transaction.
pub fn check_connect_raw(raw: Raw<'_>, role: u32) {
    if !compat::may_connect_raw(raw, backend::my_database(), Oid::from(role)) {
        // SAFETY: a database that a process is connected to has a name.
        let name = memory::c_bytes(unsafe { crate::pg::raw::get_database_name(raw, backend::my_database()) });
        crate::pg::error::raise_raw(
            raw,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            &[b"permission denied for database \"", name, b"\""],
            None,
        );
    }
}
