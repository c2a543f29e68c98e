//! Rows of a table of ours, found by an index without a plan.
//!
//! What a look-up returns is read at once and owns nothing of PostgreSQL's. No code of users runs: the columns' types are built in, or the
//! extension's own.

use crate::pg::compat;
use crate::pg::error::{self, Result};
use crate::pg::function::call::Interval;
use crate::pg::function::rows::{self, Value};
use crate::pg::raw::{self, Raw, may_raise};
use crate::pg::scratch;
use core::ffi::c_int;
use core::ptr;
use pgrx::pg_sys::{
    self, AttrNumber, CommandId, Datum, HeapTuple, ItemPointer, ItemPointerData, LOCKMODE, List, Oid, Relation,
    Snapshot, SnapshotData,
};

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

/// The position of a version of a row, and the transaction that has inserted it: later another version may have the same position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tid {
    item: (u32, u16),
    inserted_by: u32,
}

impl Tid {
    /// From the values of the columns `ctid` and `xmin`.
    ///
    /// # Safety
    /// It points to a tid.
    pub(in crate::pg) unsafe fn new(item: *const ItemPointerData, inserted_by: u32) -> Self {
        // SAFETY: as the caller promises.
        let item = unsafe { *item };
        let block = (u32::from(item.ip_blkid.bi_hi) << 16) | u32::from(item.ip_blkid.bi_lo);
        Self {
            item: (block, item.ip_posid),
            inserted_by,
        }
    }

    fn item(self) -> ItemPointerData {
        let (block, offset) = self.item;
        ItemPointerData {
            ip_blkid: pg_sys::BlockIdData {
                bi_hi: (block >> 16) as u16,
                bi_lo: block as u16,
            },
            ip_posid: offset,
        }
    }
}

/// A row while it is looked at. Columns count from 1, as `pg_attribute` counts them.
#[derive(Clone, Copy)]
pub struct Row {
    values: *mut Datum,
    nulls: *mut bool,
    pub tid: Tid,
    /// The transaction that inserted this version.
    pub inserted_by: u32,
    /// The same if that transaction has not ended and is not this one, else 0.
    pub uncommitted: u32,
    /// The transaction that has deleted or changed this version, if that has not ended and is not this one, else 0. Known only to a look-up
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

    /// The length of an `interval` in milliseconds, rounded up.
    pub fn interval(&self, column: usize) -> Option<i64> {
        let interval = self.datum(column).map(Interval::of)?;
        interval
            .length()
            .map(|length| length.saturating_add(999).div_euclid(1000))
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

/// A scan that is under way. It belongs to the transaction, which closes it after an error.
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
                tid: Tid::new(&raw const (*tuple).t_self, inserted_by(tuple)),
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

/// Reads each row of `table` whose column `column`, the first one of `index`, has the value `key`, until `read` returns something; a row may be
/// read twice. What the look-up allocates goes at its end.
///
/// A scan that also sees what is not committed may miss a row that another transaction changes meanwhile. The old version is dead when the scan
/// comes to it, and the index entry of the new one was made after the scan has read the page of the index. The new version is committed then, so a
/// scan with a later snapshot finds it.
pub fn find<T>(
    table: u32,
    index: u32,
    column: usize,
    key: Key,
    sees: Sees,
    mut read: impl FnMut(&Row) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let found = find_once(table, index, column, key, sees, &mut read)?;
    if found.is_some() || sees == Sees::Committed {
        return Ok(found);
    }
    find_once(table, index, column, key, Sees::Committed, &mut read)
}

fn find_once<T>(
    table: u32,
    index: u32,
    column: usize,
    key: Key,
    sees: Sees,
    read: &mut impl FnMut(&Row) -> Result<Option<T>>,
) -> Result<Option<T>> {
    scratch::within(|| {
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
    })
}

/// Whether there is a row of `table` whose column `column`, the first one of `index`, has the value `key`.
pub fn exists(table: u32, index: u32, column: usize, key: Key, sees: Sees) -> Result<bool> {
    Ok(find(table, index, column, key, sees, |_| Ok(Some(())))?.is_some())
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
/// transaction may write. `indexes` are the table's own, and whether the row belongs into each; if the table has others, all conditions of its indexes
/// are computed, which doubles the time. What this allocates goes at its end.
pub fn insert(table: u32, values: &[Value], indexes: &[(u32, bool)]) -> Result<()> {
    scratch::within(|| error::catching(|raw| insert_raw(raw, table, values, indexes)))
}

fn insert_raw(raw: Raw<'_>, table: u32, values: &[Value], indexes: &[(u32, bool)]) {
    // SAFETY: the table exists, and has as many columns as there are values. Nothing is owned here.
    unsafe {
        let relation = raw::table_open(raw, Oid::from(table), pg_sys::RowExclusiveLock as _);
        check_width(raw, relation, values.len());
        let datums = raw::palloc0(raw, size_of::<Datum>() * values.len()).cast::<Datum>();
        let nulls = raw::palloc0(raw, values.len()).cast::<bool>();
        for (n, value) in values.iter().enumerate() {
            let (datum, is_null) = value.to_datum(raw);
            datums.add(n).write(datum);
            nulls.add(n).write(is_null);
        }
        if !insert_known(raw, relation, datums, nulls, indexes) {
            insert_open(raw, relation, datums, nulls);
        }
        raw::table_close(raw, relation, pg_sys::NoLock as _);
        raw::CommandCounterIncrement(raw);
    }
}

/// Raises an error if the table has another number of columns. 42804.
unsafe fn check_width(raw: Raw<'_>, relation: Relation, width: usize) {
    // SAFETY: an open relation.
    if unsafe { (*(*relation).rd_att).natts } as usize != width {
        error::raise_raw(
            raw,
            pgrx::PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            &[b"a table of pg_background_tasks is not the one that this library writes"],
            Some(c"The extension in the database and the installed library differ."),
        );
    }
}

/// Inserts a row into an open table, whatever indexes it has.
unsafe fn insert_open(raw: Raw<'_>, relation: Relation, datums: *mut Datum, nulls: *mut bool) {
    // SAFETY: there is a value for each column. All-zero is an info that is to be initialized; one without a place in a range table is that of
    // no query.
    unsafe {
        let desc = (*relation).rd_att;
        let state = CreateExecutorState(raw);
        let info = raw::palloc0(raw, size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
        (*info).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        InitResultRelInfo(raw, info, relation, 0, ptr::null_mut(), 0);
        ExecOpenIndices(raw, info, false);
        let slot = raw::MakeSingleTupleTableSlot(raw, desc, &raw const pg_sys::TTSOpsHeapTuple);
        let tuple = raw::heap_form_tuple(raw, desc, datums, nulls);
        ExecStoreHeapTuple(raw, tuple, slot, false);
        ExecSimpleRelationInsert(raw, info, state, slot);
        ExecDropSingleTupleTableSlot(raw, slot);
        ExecCloseIndices(raw, info);
        FreeExecutorState(raw, state);
    }
}

// access/heapam.h, access/htup_details.h
may_raise! {
    #[cfg(not(since_19))]
    fn heap_insert(relation: Relation, tuple: HeapTuple, command: CommandId, options: c_int, state: pg_sys::BulkInsertState);
    #[cfg(since_19)]
    fn heap_insert(relation: Relation, tuple: HeapTuple, command: CommandId, options: u32, state: pg_sys::BulkInsertState);
    fn heap_copytuple(tuple: HeapTuple) -> HeapTuple;
}

// access/genam.h, utils/relcache.h
may_raise! {
    fn index_open(index: Oid, mode: LOCKMODE) -> Relation;
    fn index_close(index: Relation, mode: LOCKMODE);
    fn index_insert(
        index: Relation,
        values: *mut Datum,
        nulls: *mut bool,
        item: ItemPointer,
        table: Relation,
        check: pg_sys::IndexUniqueCheck::Type,
        unchanged: bool,
        info: *mut pg_sys::IndexInfo,
    ) -> bool;
    fn RelationGetIndexList(relation: Relation) -> *mut List;
    fn RelationGetIndexPredicate(index: Relation) -> *mut List;
}

// storage/bufmgr.h, access/xact.h, utils/snapmgr.h, storage/lmgr.h
may_raise! {
    fn ReleaseBuffer(buffer: pg_sys::Buffer);
    fn RelationGetNumberOfBlocksInFork(relation: Relation, fork: pg_sys::ForkNumber::Type) -> pg_sys::BlockNumber;
    fn GetCurrentCommandId(used: bool) -> CommandId;
    fn ConditionalLockRelationOid(relation: Oid, mode: LOCKMODE) -> bool;
}

/// What a column of a row is filled with that takes the place of another one.
#[derive(Clone, Copy)]
pub enum Filled<'a> {
    Value(Value<'a>),
    /// The value of that row's column.
    Column(usize),
}

/// Deletes a version of a row of `from`, and inserts a row into `to` instead, 0 for none; each of its columns has an entry. This takes no plan, no
/// predicate locks, and does not ask for rights or whether the transaction may write. It waits for transactions that have locked the row. `read` looks at the row
/// before, and returns None if it is to stay. None if it stays, is gone, or is not that version any more. What this allocates goes at its end.
pub fn replace<T>(
    from: u32,
    tid: Tid,
    read: impl FnOnce(&Row) -> Result<Option<T>>,
    to: u32,
    columns: &[Filled],
) -> Result<Option<T>> {
    scratch::within(|| {
        let Some((relation, row)) = error::catching(|raw| fetch(raw, from, tid))? else {
            return Ok(None);
        };
        let answer = read(&row)?;
        let deleted = error::catching(|raw| {
            let deleted = answer.is_some() && delete_and_insert(raw, relation, &row, to, columns);
            // SAFETY: opened by `fetch`. The lock is kept until the transaction ends.
            unsafe { raw::table_close(raw, relation, pg_sys::NoLock as _) };
            deleted
        })?;
        Ok(answer.filter(|_| deleted))
    })
}

/// A copy of the version of the row, visible or not. The table stays open if there is one.
fn fetch(raw: Raw<'_>, table: u32, tid: Tid) -> Option<(Relation, Row)> {
    // SAFETY: the relation exists, and is a heap. While it is locked, it does not become shorter. A tuple in a pinned page keeps its header.
    unsafe {
        let relation = raw::table_open(raw, Oid::from(table), pg_sys::RowExclusiveLock as _);
        let mut buffer = 0;
        let tuple = raw::palloc0(raw, size_of::<pg_sys::HeapTupleData>()).cast::<pg_sys::HeapTupleData>();
        (*tuple).t_self = tid.item();
        let is_there = tid.item.0 < RelationGetNumberOfBlocksInFork(raw, relation, pg_sys::ForkNumber::MAIN_FORKNUM)
            && compat::fetch_any(raw, relation, tuple, &mut buffer);
        let copy = if is_there && inserted_by(tuple) == tid.inserted_by {
            heap_copytuple(raw, tuple)
        } else {
            ptr::null_mut()
        };
        if is_there {
            ReleaseBuffer(raw, buffer);
        }
        if copy.is_null() {
            raw::table_close(raw, relation, pg_sys::NoLock as _);
            return None;
        }
        let desc = (*relation).rd_att;
        let natts = (*desc).natts as usize;
        let values = raw::palloc(raw, size_of::<Datum>() * natts).cast::<Datum>();
        let nulls = raw::palloc(raw, natts).cast::<bool>();
        raw::heap_deform_tuple(raw, copy, desc, values, nulls);
        let row = Row {
            values,
            nulls,
            tid,
            inserted_by: tid.inserted_by,
            uncommitted: 0,
            deleted_by: 0,
        };
        Some((relation, row))
    }
}

/// False if the version is not the last one any more.
fn delete_and_insert(raw: Raw<'_>, from: Relation, row: &Row, to: u32, columns: &[Filled]) -> bool {
    // SAFETY: the tables exist. Values that lie outside of the row are read while it is inserted, which needs a snapshot; they are there as long as
    // this transaction has not ended.
    unsafe {
        raw::PushActiveSnapshot(raw, raw::GetTransactionSnapshot(raw));
        let command = GetCurrentCommandId(raw, true);
        let deleted = compat::delete_tuple(raw, from, &mut row.tid.item(), command);
        if deleted && to != 0 {
            let relation = raw::table_open(raw, Oid::from(to), pg_sys::RowExclusiveLock as _);
            check_width(raw, relation, columns.len());
            let datums = raw::palloc(raw, size_of::<Datum>() * columns.len()).cast::<Datum>();
            let nulls = raw::palloc(raw, columns.len()).cast::<bool>();
            for (n, column) in columns.iter().enumerate() {
                let (datum, is_null) = match column {
                    Filled::Value(value) => value.to_datum(raw),
                    Filled::Column(column) => (*row.values.add(column - 1), *row.nulls.add(column - 1)),
                };
                datums.add(n).write(datum);
                nulls.add(n).write(is_null);
            }
            if !insert_plain(raw, relation, datums, nulls, command) {
                insert_open(raw, relation, datums, nulls);
            }
            raw::table_close(raw, relation, pg_sys::NoLock as _);
        }
        raw::PopActiveSnapshot(raw);
        if deleted {
            raw::CommandCounterIncrement(raw);
        }
        deleted
    }
}

/// The most indexes of a table that [`insert_known`] knows, and the most columns of one of them.
const INDEXES: usize = 12;
const INDEX_COLUMNS: usize = 8;

/// Inserts a row into an open table that has exactly these indexes. What the row is and belongs into the caller knows: no condition is computed. False,
/// and nothing is done, for another table: an administrator may have added an index, and while one is made anew there are two.
fn insert_known(raw: Raw<'_>, relation: Relation, values: *mut Datum, nulls: *mut bool, known: &[(u32, bool)]) -> bool {
    // SAFETY: the relation is open, and there is a value for each column.
    unsafe {
        if !has_indexes_only(relation) {
            return false;
        }
        let indexes = RelationGetIndexList(raw, relation);
        let count = if indexes.is_null() {
            0
        } else {
            (*indexes).length as usize
        };
        let is_known = |n: usize| {
            let index = (*(*indexes).elements.add(n)).oid_value.to_u32();
            known.iter().any(|(other, _)| *other == index)
        };
        if count != known.len() || count > INDEXES || !(0..count).all(is_known) {
            return false;
        }
        let mut open: [Relation; INDEXES] = [ptr::null_mut(); INDEXES];
        let taking = known.iter().filter(|(_, is_in)| *is_in);
        let mut len = 0;
        for (index, _) in taking {
            open[len] = index_open(raw, Oid::from(*index), pg_sys::RowExclusiveLock as _);
            len += 1;
        }
        let are_plain = open[..len].iter().all(|index| is_plain(*index));
        if are_plain {
            let tuple = raw::heap_form_tuple(raw, (*relation).rd_att, values, nulls);
            let command = GetCurrentCommandId(raw, true);
            heap_insert(raw, relation, tuple, command, 0, ptr::null_mut());
            for index in &open[..len] {
                insert_into(raw, *index, relation, tuple, (values, nulls));
            }
        }
        for index in &open[..len] {
            index_close(raw, *index, pg_sys::NoLock as _);
        }
        are_plain
    }
}

/// Whether an insertion has nothing to look at but indexes. Columns that must not be null are the caller's concern.
unsafe fn has_indexes_only(relation: Relation) -> bool {
    // SAFETY: an open relation.
    unsafe {
        let constr = (*(*relation).rd_att).constr;
        let is_checked = !constr.is_null() && ((*constr).num_check > 0 || (*constr).has_generated_stored);
        !is_checked && (*relation).trigdesc.is_null()
    }
}

/// Whether the index is a btree of columns, and enforces what it does at once.
unsafe fn is_plain(index: Relation) -> bool {
    // SAFETY: an open index; the columns that it has.
    unsafe {
        let form = (*index).rd_index;
        let columns = (*form).indnatts as usize;
        (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
            && (*form).indisready
            && (*form).indimmediate
            && !(*form).indisexclusion
            && columns <= INDEX_COLUMNS
            && (0..columns).all(|n| *(*form).indkey.values.as_ptr().add(n) > 0)
    }
}

/// Adds the entry of a row that was inserted to a plain index.
unsafe fn insert_into(
    raw: Raw<'_>,
    index: Relation,
    relation: Relation,
    tuple: HeapTuple,
    row: (*mut Datum, *mut bool),
) {
    let mut values = [Datum::from(0usize); INDEX_COLUMNS];
    let mut nulls = [false; INDEX_COLUMNS];
    // SAFETY: an open index with at most that many columns, each of which the row has. A btree looks at nothing of the info.
    unsafe {
        let form = (*index).rd_index;
        for n in 0..(*form).indnatts as usize {
            let column = *(*form).indkey.values.as_ptr().add(n) as usize - 1;
            values[n] = *row.0.add(column);
            nulls[n] = *row.1.add(column);
        }
        let check = if (*form).indisunique {
            pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES
        } else {
            pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO
        };
        let info = raw::palloc0(raw, size_of::<pg_sys::IndexInfo>()).cast::<pg_sys::IndexInfo>();
        (*info).type_ = pg_sys::NodeTag::T_IndexInfo;
        index_insert(
            raw,
            index,
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            &raw mut (*tuple).t_self,
            relation,
            check,
            false,
            info,
        );
    }
}

/// Inserts a row into a table that has one index, on its first column, and nothing else that an insertion has to look at; that is what the extension
/// makes. False for other tables, as [`insert_known`].
fn insert_plain(raw: Raw<'_>, relation: Relation, values: *mut Datum, nulls: *mut bool, command: CommandId) -> bool {
    // SAFETY: the relation is open, and there is a value for each column.
    unsafe {
        if !has_indexes_only(relation) || *nulls {
            return false;
        }
        let indexes = RelationGetIndexList(raw, relation);
        if indexes.is_null() || (*indexes).length != 1 {
            return false;
        }
        let index = index_open(raw, (*(*indexes).elements).oid_value, pg_sys::RowExclusiveLock as _);
        let form = (*index).rd_index;
        let is_ours = is_plain(index)
            && !(*form).indisunique
            && (*form).indnatts == 1
            && *(*form).indkey.values.as_ptr() == 1
            && RelationGetIndexPredicate(raw, index).is_null();
        if is_ours {
            let tuple = raw::heap_form_tuple(raw, (*relation).rd_att, values, nulls);
            heap_insert(raw, relation, tuple, command, 0, ptr::null_mut());
            insert_into(raw, index, relation, tuple, (values, nulls));
        }
        index_close(raw, index, pg_sys::NoLock as _);
        is_ours
    }
}

/// Locks the table and its TOAST table so that no other transaction reads or writes them until this one ends. False if another one has a lock on one
/// of them.
pub fn lock_alone(table: u32) -> Result<bool> {
    // SAFETY: the table exists.
    error::catching(|raw| unsafe {
        let mode = pg_sys::AccessExclusiveLock as LOCKMODE;
        if !ConditionalLockRelationOid(raw, Oid::from(table), mode) {
            return false;
        }
        let relation = raw::table_open(raw, Oid::from(table), pg_sys::NoLock as _);
        let toast = (*(*relation).rd_rel).reltoastrelid;
        raw::table_close(raw, relation, pg_sys::NoLock as _);
        toast == Oid::INVALID || ConditionalLockRelationOid(raw, toast, mode)
    })
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
