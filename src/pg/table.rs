//! Rows of a table of ours, found by an index without a plan.
//!
//! What a look-up gives is read at once and owns nothing of PostgreSQL's. No code of users runs: the columns' types are built in, or the
//! extension's own.

use crate::pg::error::{self, Result};
use crate::pg::function::call::Interval;
use crate::pg::function::rows::{self, Value};
use crate::pg::memory;
use crate::pg::raw::{self, Raw, may_raise};
use core::ffi::c_int;
use core::ptr;
use pgrx::pg_sys::{self, AttrNumber, Datum, HeapTuple, Oid, Relation, Snapshot, SnapshotData};

// utils/snapmgr.h
may_raise! {
    fn RegisterSnapshot(snapshot: Snapshot) -> Snapshot;
    fn UnregisterSnapshot(snapshot: Snapshot);
}

/// Which rows a look-up sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// Those that were committed before it, and those of its own transaction.
    Committed,
    /// Also those whose transaction has not ended.
    Uncommitted,
}

/// The value of a key column.
#[derive(Clone, Copy)]
pub enum Key<'a> {
    Int8(i64),
    Text(&'a [u8]),
}

/// A row while it is looked at. Columns count from 1, as `pg_attribute` counts them.
#[derive(Clone, Copy)]
pub struct Row {
    values: *mut Datum,
    nulls: *mut bool,
    /// The transaction that inserted this version.
    pub inserted_by: u32,
    /// The same where that transaction has not ended and is not this one, else 0.
    pub uncommitted: u32,
    /// The transaction that has deleted or changed this version, where that has not ended and is not this one, else 0. Known only to a look-up
    /// that sees what is not committed.
    pub deleted_by: u32,
}

impl Row {
    /// A value, which lives as long as the row is looked at.
    pub fn datum(&self, column: usize) -> Option<Datum> {
        // SAFETY: callers stay within the table's columns.
        unsafe { (!*self.nulls.add(column - 1)).then(|| *self.values.add(column - 1)) }
    }

    /// An `int4`.
    pub fn int4(&self, column: usize) -> Option<i32> {
        self.datum(column).map(|datum| datum.value() as i32)
    }

    /// An `int8` or a `timestamptz`.
    pub fn int8(&self, column: usize) -> Option<i64> {
        self.datum(column).map(|datum| datum.value() as i64)
    }

    /// A `bool`.
    pub fn bool(&self, column: usize) -> Option<bool> {
        self.datum(column).map(|datum| datum.value() & 0xff != 0)
    }

    /// A `"char"`.
    pub fn char(&self, column: usize) -> Option<u8> {
        self.datum(column).map(|datum| datum.value() as u8)
    }

    /// The length of an `interval` in milliseconds.
    pub fn interval(&self, column: usize) -> Option<i64> {
        let interval = self.datum(column).map(Interval::of)?;
        interval.length().map(|length| length / 1000)
    }

    /// A copy of a `text`. Guarded. 53200.
    pub fn text(&self, column: usize) -> Result<Option<Vec<u8>>> {
        let Some(datum) = self.datum(column) else {
            return Ok(None);
        };
        rows::copy_of_text(datum).map(Some)
    }

    /// The value of the type `background.role`.
    pub fn role(&self, column: usize) -> Option<crate::pg::value::role::Role<'static>> {
        self.datum(column).map(crate::pg::value::role::Role::of)
    }
}

/// A scan that is under way. It belongs to the transaction, which closes it where an error comes in between.
#[derive(Clone, Copy)]
struct Scan {
    relation: Relation,
    scan: pg_sys::SysScanDesc,
    snapshot: Snapshot,
    dirty: *mut SnapshotData,
}

impl Scan {
    /// Rows of `table` whose column `column`, the first one of `index`, has the value.
    fn begin(raw: Raw<'_>, table: u32, index: u32, column: usize, key: Key, sees: Sees) -> Self {
        let (operator, argument) = match key {
            Key::Int8(value) => (pg_sys::F_INT8EQ, Datum::from(value)),
            Key::Text(bytes) => (pg_sys::F_TEXTEQ, rows::text_datum(raw, bytes)),
        };
        // SAFETY: the relations exist; the key is copied by the scan. All-zero is a snapshot of no kind.
        unsafe {
            let relation = raw::table_open(raw, Oid::from(table), pg_sys::AccessShareLock as _);
            let entry = raw::palloc0(raw, size_of::<pg_sys::ScanKeyData>()).cast::<pg_sys::ScanKeyData>();
            raw::ScanKeyInit(
                raw,
                entry,
                column as AttrNumber,
                pg_sys::BTEqualStrategyNumber as _,
                Oid::from(operator),
                argument,
            );
            let (dirty, snapshot) = match sees {
                Sees::Committed => (ptr::null_mut(), RegisterSnapshot(raw, raw::GetLatestSnapshot(raw))),
                Sees::Uncommitted => {
                    let dirty = raw::palloc0(raw, size_of::<SnapshotData>()).cast::<SnapshotData>();
                    (*dirty).snapshot_type = pg_sys::SnapshotType::SNAPSHOT_DIRTY;
                    (dirty, dirty)
                }
            };
            let scan = raw::systable_beginscan(raw, relation, Oid::from(index), true, snapshot, 1, entry);
            Self {
                relation,
                scan,
                snapshot,
                dirty,
            }
        }
    }

    fn next(&self, raw: Raw<'_>) -> Option<Row> {
        // SAFETY: the scan has begun and has not ended; a tuple is valid until the next one is asked for.
        unsafe {
            let tuple = raw::systable_getnext(raw, self.scan);
            if tuple.is_null() {
                return None;
            }
            let desc = (*self.relation).rd_att;
            let natts = (*desc).natts as usize;
            let values = raw::palloc(raw, size_of::<Datum>() * natts).cast::<Datum>();
            let nulls = raw::palloc(raw, natts).cast::<bool>();
            raw::heap_deform_tuple(raw, tuple, desc, values, nulls);
            Some(Row {
                values,
                nulls,
                inserted_by: inserted_by(tuple),
                uncommitted: self.dirty.as_ref().map_or(0, |dirty| dirty.xmin.into_inner()),
                deleted_by: self.dirty.as_ref().map_or(0, |dirty| dirty.xmax.into_inner()),
            })
        }
    }

    fn end(self, raw: Raw<'_>) {
        // SAFETY: it has not ended. The lock is kept until the transaction ends, as for a query.
        unsafe {
            raw::systable_endscan(raw, self.scan);
            if self.dirty.is_null() {
                UnregisterSnapshot(raw, self.snapshot);
            }
            raw::table_close(raw, self.relation, pg_sys::NoLock as _);
        }
    }
}

unsafe fn inserted_by(tuple: HeapTuple) -> u32 {
    // SAFETY: a tuple from a page.
    unsafe { (*(*tuple).t_data).t_choice.t_heap.t_xmin.into_inner() }
}

/// Reads each row of `table` whose column `column`, the first one of `index`, has the value `key`, until `read` gives something. What the
/// look-up allocates goes at its end.
pub fn find<T>(
    table: u32,
    index: u32,
    column: usize,
    key: Key,
    sees: Sees,
    mut read: impl FnMut(&Row) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let context = error::catching(memory::Context::below_current)?;
    let found = context.enter(|| {
        let scan = error::catching(|raw| Scan::begin(raw, table, index, column, key, sees))?;
        let found = loop {
            match error::catching(|raw| scan.next(raw))? {
                None => break None,
                Some(row) => {
                    if let Some(found) = read(&row)? {
                        break Some(found);
                    }
                }
            }
        };
        error::catching(|raw| scan.end(raw))?;
        Ok(found)
    });
    error::catching(|raw| context.delete(raw))?;
    found
}

// executor/executor.h
may_raise! {
    fn CreateExecutorState() -> *mut pg_sys::EState;
    fn FreeExecutorState(state: *mut pg_sys::EState);
    fn InitResultRelInfo(
        info: *mut pg_sys::ResultRelInfo,
        relation: Relation,
        number: pg_sys::Index,
        root: *mut pg_sys::ResultRelInfo,
        instrument: c_int,
    );
    fn ExecOpenIndices(info: *mut pg_sys::ResultRelInfo, speculative: bool);
    fn ExecCloseIndices(info: *mut pg_sys::ResultRelInfo);
    fn ExecSimpleRelationInsert(
        info: *mut pg_sys::ResultRelInfo,
        state: *mut pg_sys::EState,
        slot: *mut pg_sys::TupleTableSlot,
    );
}

// executor/tuptable.h
may_raise! {
    fn ExecStoreHeapTuple(
        tuple: HeapTuple,
        slot: *mut pg_sys::TupleTableSlot,
        should_free: bool,
    ) -> *mut pg_sys::TupleTableSlot;
    fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
}

/// Inserts a row into a table, without a plan and without asking for rights, as an apply worker of logical replication does it; a statement
/// takes several times as long to begin and to end. There is a value for each column, of its type, and the caller has looked whether the
/// transaction may write. What this allocates goes at its end.
pub fn insert(table: u32, values: &[Value]) -> Result<()> {
    let context = error::catching(memory::Context::below_current)?;
    let done = context.enter(|| error::catching(|raw| insert_raw(raw, table, values)));
    error::catching(|raw| context.delete(raw))?;
    done
}

fn insert_raw(raw: Raw<'_>, table: u32, values: &[Value]) {
    // SAFETY: the table exists, and has as many columns as there are values. Nothing is owned here. All-zero is an info that is to be
    // initialized; one without a place in a range table is that of no query.
    unsafe {
        let relation = raw::table_open(raw, Oid::from(table), pg_sys::RowExclusiveLock as _);
        let desc = (*relation).rd_att;
        if (*desc).natts as usize != values.len() {
            error::raise_raw(
                raw,
                pgrx::PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                &[b"a table of pg_background_tasks is not the one that this library writes"],
                Some(c"The extension in the database and the installed library differ."),
            );
        }
        let state = CreateExecutorState(raw);
        let info = raw::palloc0(raw, size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
        (*info).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        InitResultRelInfo(raw, info, relation, 0, ptr::null_mut(), 0);
        ExecOpenIndices(raw, info, false);
        let slot = raw::MakeSingleTupleTableSlot(raw, desc, &raw const pg_sys::TTSOpsHeapTuple);
        let datums = raw::palloc0(raw, size_of::<Datum>() * values.len()).cast::<Datum>();
        let nulls = raw::palloc0(raw, values.len()).cast::<bool>();
        for (n, value) in values.iter().enumerate() {
            let (datum, is_null) = value.to_datum(raw);
            datums.add(n).write(datum);
            nulls.add(n).write(is_null);
        }
        let tuple = raw::heap_form_tuple(raw, desc, datums, nulls);
        ExecStoreHeapTuple(raw, tuple, slot, false);
        ExecSimpleRelationInsert(raw, info, state, slot);
        ExecDropSingleTupleTableSlot(raw, slot);
        ExecCloseIndices(raw, info);
        FreeExecutorState(raw, state);
        raw::table_close(raw, relation, pg_sys::NoLock as _);
        raw::CommandCounterIncrement(raw);
    }
}

// commands/sequence.h
may_raise! {
    fn nextval_internal(sequence: Oid, check_permissions: bool) -> i64;
}

/// The next number of a sequence of ours.
pub fn next_number(sequence: u32) -> Result<i64> {
    // SAFETY: the sequence exists; who may take numbers was checked by the caller.
    error::catching(|raw| unsafe { nextval_internal(raw, Oid::from(sequence), false) })
}
