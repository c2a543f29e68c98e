//! Rows of a statement, collected as JSON while they come.
//!
//! The conversion runs the output functions of the columns' types, which are those of users, within the statement: as the role that it runs as, in
//! its transaction. What is collected lives in memory of its own, since a procedure may end the transaction before its row comes.

use crate::pg::error::raise_raw;
use crate::pg::exclusive::Exclusive;
use crate::pg::memory::{self, Buffer, Context};
use crate::pg::query::receiver::{Receiver, RowSlot};
use crate::pg::raw::{self, Raw, may_raise};
use crate::pg::value::desc::tuple_desc_attr;
use crate::pg::value::encoding;
use crate::pg::value::tuple::Shape;
use core::ffi::{c_char, c_int};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, HeapTuple, Oid, TupleDesc};

/// An array of objects, one for each row: a value of the type `jsonb`, which lives until [`begin`].
#[derive(Clone, Copy)]
pub struct Json(Datum);

impl Json {
    /// The value.
    pub fn datum(self) -> Datum {
        self.0
    }

    /// Its text in the encoding of another database, which reads it as the same value. In a transaction. 22P05 if it cannot be converted.
    pub fn text_for(self, raw: Raw<'_>, encoding: i32) -> &'static [u8] {
        // SAFETY: the text is a C string in the current memory context, which outlives its use.
        unsafe {
            let text = raw::DirectFunctionCall1Coll(raw, Some(jsonb_out), Oid::INVALID, self.0);
            let text = memory::c_bytes(text.cast_mut_ptr::<c_char>());
            let (from, len) = encoding::for_other(raw, text.as_ptr(), text.len(), encoding);
            memory::view(from, len)
        }
    }
}

/// What is collected.
struct Rows {
    all: Context,
    row: Context,
    most: usize,
    desc: TupleDesc,
    text: Option<Buffer>,
    json: Option<Json>,
}

static ROWS: Exclusive<Rows> = Exclusive::new();

/// Where the rows of a statement go that are collected.
pub static RECEIVER: Receiver = Receiver::new(start, row, finish);

// access/tupdesc.h, executor/tuptable.h, access/htup_details.h, access/detoast.h
may_raise! {
    fn CreateTupleDescCopy(desc: TupleDesc) -> TupleDesc;
    fn ExecFetchSlotHeapTuple(slot: *mut pg_sys::TupleTableSlot, materialize: bool, should_free: *mut bool) -> HeapTuple;
    fn heap_copy_tuple_as_datum(tuple: HeapTuple, desc: TupleDesc) -> Datum;
    fn toast_raw_datum_size(value: Datum) -> pg_sys::Size;
}

// utils/fmgrprotos.h
unsafe extern "C-unwind" {
    fn row_to_json(call: pg_sys::FunctionCallInfo) -> Datum;
    fn jsonb_in(call: pg_sys::FunctionCallInfo) -> Datum;
    fn jsonb_out(call: pg_sys::FunctionCallInfo) -> Datum;
}

/// From now on at most `most` bytes of JSON are collected. What was collected before goes.
pub fn begin(raw: Raw<'_>, most: usize) {
    ROWS.recover();
    if ROWS.with(|_| ()).is_none() {
        ROWS.set(Rows {
            all: Context::for_process(raw, c"pg_background kept result"),
            row: Context::for_process(raw, c"pg_background kept row"),
            most,
            desc: core::ptr::null_mut(),
            text: None,
            json: None,
        });
    }
    forget_rows(raw, Some(most));
}

fn forget_rows(raw: Raw<'_>, most: Option<usize>) {
    ROWS.with(|rows| {
        rows.most = most.unwrap_or(rows.most);
        (rows.text, rows.json) = (None, None);
        rows.all.reset(raw);
        rows.row.reset(raw);
    });
}

/// What was collected goes.
pub fn end(raw: Raw<'_>) {
    ROWS.recover();
    forget_rows(raw, None);
}

/// What was collected since [`begin`]; None where there was no statement with rows.
pub fn collected() -> Option<Json> {
    ROWS.with(|rows| rows.json).flatten()
}

/// Takes what another process has collected, as [`Json::text_for`] has made it.
pub fn take(raw: Raw<'_>, json: &[u8]) {
    forget_rows(raw, None);
    ROWS.with(|rows| {
        let mut text = rows.all.enter(|| Buffer::new(raw, json.len() + 1));
        text.push(json.as_ptr(), json.len());
        read(raw, rows, text);
    });
}

/// How many times a value in PostgreSQL's own form may be as long as its text; what is longer than that is not converted at all.
const DENSEST: usize = 16;

fn start(raw: Raw<'_>, shape: Shape) {
    forget_rows(raw, None);
    ROWS.with(|rows| {
        rows.all.enter(|| {
            // SAFETY: a valid descriptor. The copy is that of an anonymous record, whatever the columns come from.
            unsafe {
                let desc = CreateTupleDescCopy(raw, shape.desc());
                (*desc).tdtypeid = pg_sys::RECORDOID;
                (*desc).tdtypmod = -1;
                rows.desc = raw::BlessTupleDesc(raw, desc);
            }
            let mut text = Buffer::new(raw, 1024);
            text.push(b"[".as_ptr(), 1);
            rows.text = Some(text);
        });
    });
}

fn row(raw: Raw<'_>, slot: RowSlot) {
    ROWS.with(|rows| {
        rows.row.enter(|| {
            // SAFETY: a row of the descriptor's columns.
            unsafe {
                check_length(raw, slot, rows.desc, rows.most.saturating_mul(DENSEST));
                let mut is_copy = false;
                let tuple = ExecFetchSlotHeapTuple(raw, slot, false, &mut is_copy);
                let record = heap_copy_tuple_as_datum(raw, tuple, rows.desc);
                let json = raw::DirectFunctionCall1Coll(raw, Some(row_to_json), Oid::INVALID, record);
                let json = json.cast_mut_ptr::<pg_sys::varlena>();
                let (from, len) = (pgrx::vardata_any(json), pgrx::varsize_any_exhdr(json));
                add(raw, rows, from.cast(), len);
            }
        });
        rows.row.reset(raw);
    });
}

/// Adds the object of a row. Raises 53400.
fn add(raw: Raw<'_>, rows: &mut Rows, from: *const u8, len: usize) {
    let Some(text) = &mut rows.text else { return };
    // With a comma before it, and with the bracket at the end.
    let has = text.len();
    let needed = has + usize::from(has > 1) + len + 1;
    if needed > rows.most {
        too_long(raw);
    }
    // And a NUL.
    if needed + 1 > text.capacity() {
        let capacity = (needed + 1).max(2 * text.capacity());
        let longer = rows.all.enter(|| Buffer::new(raw, capacity));
        let shorter = core::mem::replace(text, longer);
        text.push(shorter.as_ptr(), has);
    }
    if has > 1 {
        text.push(b",".as_ptr(), 1);
    }
    text.push(from, len);
}

fn finish(raw: Raw<'_>) {
    ROWS.with(|rows| {
        if let Some(mut text) = rows.text.take() {
            text.push(b"]".as_ptr(), 1);
            read(raw, rows, text);
        }
    });
}

/// Makes a value of the text, which has room for a NUL.
fn read(raw: Raw<'_>, rows: &mut Rows, mut text: Buffer) {
    text.push(c"".as_ptr().cast(), 1);
    // SAFETY: a C string; no code of users runs.
    let json = rows.all.enter(|| unsafe {
        raw::DirectFunctionCall1Coll(
            raw,
            Some(jsonb_in),
            Oid::INVALID,
            Datum::from(text.as_ptr().cast::<c_char>()),
        )
    });
    rows.json = Some(Json(json));
}

/// Raises 53400 where the row is longer than that in PostgreSQL's own form.
///
/// # Safety
/// A row of the descriptor's columns.
unsafe fn check_length(raw: Raw<'_>, slot: RowSlot, desc: TupleDesc, most: usize) {
    // SAFETY: the slot's values are there up to the last column.
    unsafe {
        let natts = (*desc).natts;
        if i32::from((*slot).tts_nvalid) < natts {
            raw::slot_getsomeattrs_int(raw, slot, natts as c_int);
        }
        let mut len = 0usize;
        for n in 0..natts as usize {
            if (*tuple_desc_attr(desc, n)).attlen == -1 && !*(*slot).tts_isnull.add(n) {
                len += toast_raw_datum_size(raw, *(*slot).tts_values.add(n));
            }
        }
        if len > most {
            too_long(raw);
        }
    }
}

fn too_long(raw: Raw<'_>) -> ! {
    raise_raw(
        raw,
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        &[b"the rows of the task are longer than is kept"],
        Some(c"Increase pg_background.max_task_result, or enqueue the task without keep_result."),
    )
}
