//! The connection version: a number for what a new connection would get. A process that connected before it changed must not be used in
//! place of a new connection. Guarded.
//!
//! The number is computed from the versions of catalog rows: those of the role, of the database, of their settings (`ALTER ROLE` and `ALTER
//! DATABASE … SET`), and the oid of the extension. A row is changed only by replacing it, so a changed row has another tid or another xmin.
//! Configuration files do not count: a worker that is told to reload them exits instead.

use crate::pg::{compat, raw};
use core::cell::Cell;
use core::ptr;
use pgrx::pg_sys::{self, Datum, HeapTuple, Oid, SysCacheIdentifier};
use std::hash::{DefaultHasher, Hasher};

/// `DbRoleSettingRelationId` of `catalog/pg_db_role_setting.h`.
const DB_ROLE_SETTING: u32 = 2964;
/// `DbRoleSettingDatidRolidIndexId` of `catalog/pg_db_role_setting.h`.
const DB_ROLE_SETTING_INDEX: u32 = 2965;

/// Which jobs a worker serves. `Own`: jobs of sessions of its own database. They bring all their settings, and the extension there counts.
/// `Elsewhere`: jobs from other databases. The extension there cannot be seen from here, and need not exist here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Own,
    Elsewhere,
}

/// What a connection version was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asked {
    database: u32,
    role: u32,
    kind: Kind,
}

thread_local! {
    /// The last question, how many invalidation messages had been seen then, and the answer.
    static KNOWN: Cell<Option<(Asked, u64, u64)>> = const { Cell::new(None) };
}

/// Returns the connection version of `role` in `database`, which is never 0. Call it in a transaction. The catalogs are read again only
/// after a catalog has changed.
pub fn of(database: u32, role: u32, kind: Kind) -> u64 {
    let asked = Asked { database, role, kind };
    let messages = messages();
    if let Some(connection_version) = known(asked, messages) {
        return connection_version;
    }
    let mut mark = Mark(DefaultHasher::new());
    mark.cached(SysCacheIdentifier::AUTHOID, role);
    mark.cached(SysCacheIdentifier::DATABASEOID, database);
    mark.settings(database, role);
    mark.add(match kind {
        // SAFETY: a look into the catalog; none is 0.
        Kind::Own => unsafe { pg_sys::get_extension_oid(c"pg_background".as_ptr(), true) }
            .to_u32()
            .into(),
        // This is not an oid, so a worker of one kind never serves a job of the other.
        Kind::Elsewhere => u64::MAX,
    });
    let connection_version = mark.0.finish().max(1);
    KNOWN.set(Some((asked, messages, connection_version)));
    connection_version
}

/// As [`of`], for the role and database of this process. Call it outside of a transaction.
pub fn of_this_process(kind: Kind) -> u64 {
    // SAFETY: plain reads of this backend's state.
    let (database, role) = unsafe { (pg_sys::MyDatabaseId.to_u32(), raw::GetAuthenticatedUserId().to_u32()) };
    known(Asked { database, role, kind }, messages()).unwrap_or_else(|| {
        // SAFETY: a transaction that only looks into catalogs.
        unsafe {
            pg_sys::StartTransactionCommand();
            compat::stop_transaction_timer();
            let connection_version = of(database, role, kind);
            pg_sys::CommitTransactionCommand();
            connection_version
        }
    })
}

/// Whether nothing was changed in any catalog since this process began to connect. Asked after [`of_this_process`] it tells whether that
/// is the connection_version of the rows that were read while it connected.
pub fn is_of_this_connection() -> bool {
    messages() == 0
}

/// How many invalidation messages this process has seen, when it has taken in what others have committed by now. While the number stays the same,
/// what was read from catalogs does, but for what the open transaction has changed. Guarded.
pub fn messages() -> u64 {
    // SAFETY: the counter is this process's own.
    unsafe {
        pg_sys::AcceptInvalidationMessages();
        ptr::read_volatile(&raw const pg_sys::SharedInvalidMessageCounter)
    }
}

/// Returns the last answer, if the question was the same and no message has come since.
fn known(asked: Asked, messages: u64) -> Option<u64> {
    let (before, seen, connection_version) = KNOWN.get()?;
    (before == asked && seen == messages).then_some(connection_version)
}

/// A hash over numbers. Only processes of one build compare it.
struct Mark(DefaultHasher);

impl Mark {
    fn add(&mut self, number: u64) {
        self.0.write_u64(number);
    }

    fn row(&mut self, row: HeapTuple) {
        // SAFETY: a valid tuple with a header.
        unsafe {
            let place = (*row).t_self;
            self.add(
                u64::from(place.ip_blkid.bi_hi) << 32
                    | u64::from(place.ip_blkid.bi_lo) << 16
                    | u64::from(place.ip_posid),
            );
            self.add((*(*row).t_data).t_choice.t_heap.t_xmin.into_inner().into());
        }
    }

    fn cached(&mut self, cache: SysCacheIdentifier::Type, oid: u32) {
        // SAFETY: both caches have one key, an oid; what is found is released.
        unsafe {
            let row = pg_sys::SearchSysCache1(cache as _, Datum::from(oid));
            if row.is_null() {
                self.add(0);
            } else {
                self.row(row);
                pg_sys::ReleaseSysCache(row);
            }
        }
    }

    /// Adds the rows of `pg_db_role_setting` that apply to the role in the database, found as `process_settings` of postinit.c finds them.
    fn settings(&mut self, database: u32, role: u32) {
        // SAFETY: a scan by index with two keys, oids; the catalog's own snapshot is taken where none is given.
        unsafe {
            let relation = pg_sys::table_open(Oid::from(DB_ROLE_SETTING), pg_sys::AccessShareLock as _);
            for (database, role) in [(database, role), (0, role), (database, 0), (0, 0)] {
                let mut keys = [pg_sys::ScanKeyData::default(); 2];
                for (n, (key, oid)) in keys.iter_mut().zip([database, role]).enumerate() {
                    pg_sys::ScanKeyInit(
                        key,
                        n as i16 + 1,
                        pg_sys::BTEqualStrategyNumber as _,
                        pg_sys::F_OIDEQ.into(),
                        Datum::from(oid),
                    );
                }
                let scan = pg_sys::systable_beginscan(
                    relation,
                    Oid::from(DB_ROLE_SETTING_INDEX),
                    true,
                    ptr::null_mut(),
                    2,
                    keys.as_mut_ptr(),
                );
                loop {
                    let row = pg_sys::systable_getnext(scan);
                    if row.is_null() {
                        break;
                    }
                    self.row(row);
                }
                pg_sys::systable_endscan(scan);
            }
            pg_sys::table_close(relation, pg_sys::AccessShareLock as _);
        }
    }
}
