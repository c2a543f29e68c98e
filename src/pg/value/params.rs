//! A job's parameters: the columns of a record in the session, and the values of `$1`, `$2` in the worker.
//!
//! They are sent as PostgreSQL's own tuple, with what the worker needs to read it. The layout in memory, aligned to eight bytes, is: a
//! [`Head`], a [`ParameterType`] for each parameter, the descriptions of the types within records, each preceded by its length, and the tuple.
//!
//! A literal of unknown type, such as the `'x'` of `ROW(1, 'x')`, is sent as its text. Its type is derived from its position in the
//! statement, as for a parameter that a client sends without a type. If the statement does not determine it, it is text.

use crate::pg::digits::Digits;
use crate::pg::error::{self, Result, raise_raw};
use crate::pg::memory::{self, padded};
use crate::pg::raw::{self, Raw};
use crate::pg::value::desc::{self, column_type, tuple_desc_attr};
use crate::pg::value::describe::{self, Numbers, OwnType};
use crate::pg::value::{border, fingerprint, translate};
use crate::pg::{compat, fallible};
use core::ffi::{c_char, c_int};
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, HeapTupleHeader, List, Oid, ParamListInfo, RawStmt, TupleDesc};

const TEXT: u32 = 25;
const UNKNOWN: u32 = 705;

/// `PARAM_FLAG_CONST` of `nodes/params.h`: the planner may use the value.
const CONST: u16 = 1;

/// `MaxTupleAttributeNumber` of `access/htup_details.h`: the maximum number of columns of a record, and so of parameters of a statement.
const MOST: usize = 1664;

#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    count: u32,
    descriptions: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ParameterType {
    kind: u32,
    modifier: i32,
    /// The type's [`fingerprint::fingerprint`].
    print: u32,
    unused: u32,
}

/// Parameters to be sent, in the memory context of the call.
pub struct Outgoing {
    desc: TupleDesc,
    tuple: pg_sys::HeapTuple,
    /// The types that values within records name themselves, inner ones first.
    own_types: Vec<OwnType>,
    len: usize,
    /// The encoding of the database that the parameters go to, or None for this process's own database.
    encoding: Option<i32>,
}

impl Outgoing {
    /// Takes the columns of `record`, which go to a database with this encoding, or to this process's own database if it is None. Returns
    /// None if there are no columns. Fails with 0A000 if a value cannot be passed on.
    pub fn of(record: Datum, encoding: Option<i32>) -> Result<Option<Self>> {
        border::while_values_go_to(encoding, || Self::collect(record, encoding))
    }

    fn collect(record: Datum, encoding: Option<i32>) -> Result<Option<Self>> {
        let (desc, tuple) = error::catching(|raw| flatten(raw, record))?;
        let count = width(desc);
        if count == 0 {
            return Ok(None);
        }
        error::catching(|raw| check(raw, desc))?;
        let mut own_types = Vec::new();
        error::catching(|raw| {
            each_own_type(raw, desc, tuple, &mut |kind| {
                if !own_types.contains(&kind) {
                    fallible::push_raw(raw, &mut own_types, kind);
                }
            });
        })?;
        let mut len = size_of::<Head>() + count * size_of::<ParameterType>();
        for kind in &own_types {
            len += 8 + padded(error::catching(|raw| describe::description_len(raw, *kind))?);
        }
        // SAFETY: a tuple that was just formed.
        len += unsafe { (*tuple).t_len as usize };
        Ok(Some(Self {
            desc,
            tuple,
            own_types,
            len,
            encoding,
        }))
    }

    /// The number of bytes that [`Outgoing::write`] writes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Writes the parameters to this address, which must be aligned and have room for them.
    pub fn write(&self, pointer: *mut u8) -> Result<()> {
        border::while_values_go_to(self.encoding, || error::catching(|raw| self.write_raw(raw, pointer)))
    }

    fn write_raw(&self, raw: Raw<'_>, pointer: *mut u8) {
        let mut to = pointer;
        let mut put = |bytes: &[u8]| {
            // SAFETY: the room is that of `len`, which was summed up from the same parts.
            unsafe {
                ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
                to = to.add(bytes.len());
            }
        };
        put(&(width(self.desc) as u32).to_ne_bytes());
        put(&(self.own_types.len() as u32).to_ne_bytes());
        for n in 0..width(self.desc) {
            let kind = column_type(self.desc, n);
            // SAFETY: `n` is below the number of columns.
            let modifier = unsafe { (*tuple_desc_attr(self.desc, n)).atttypmod };
            put(&kind.to_ne_bytes());
            put(&modifier.to_ne_bytes());
            put(&fingerprint::fingerprint(raw, kind).to_ne_bytes());
            put(&[0; 4]);
        }
        for kind in &self.own_types {
            let len = describe::description_len(raw, *kind);
            put(&(len as u64).to_ne_bytes());
            describe::describe(raw, *kind, &mut put);
            put(&[0; 8][..padded(len) - len]);
        }
        // SAFETY: a tuple has `t_len` bytes.
        put(unsafe { core::slice::from_raw_parts((*self.tuple).t_data.cast::<u8>(), (*self.tuple).t_len as usize) });
    }
}

fn width(desc: TupleDesc) -> usize {
    // SAFETY: a valid descriptor.
    unsafe { (*desc).natts as usize }
}

/// Forms a tuple of the record's columns, without dropped ones.
fn flatten(raw: Raw<'_>, record: Datum) -> (TupleDesc, pg_sys::HeapTuple) {
    // SAFETY: a non-NULL composite value; no value in it is external. Each live column is copied to the next element.
    unsafe {
        let header = raw::pg_detoast_datum(raw, record.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let kind = (*header).t_choice.t_datum;
        let desc = raw::lookup_rowtype_tupdesc(raw, kind.datum_typeid, kind.datum_typmod);
        let (values, nulls) = desc::deform(raw, header, desc);
        let is_live = |n: &usize| !(*tuple_desc_attr(desc, *n)).attisdropped;
        let live = raw::CreateTemplateTupleDesc(raw, (0..width(desc)).filter(is_live).count() as c_int);
        for (to, from) in (0..width(desc)).filter(is_live).enumerate() {
            raw::TupleDescCopyEntry(raw, live, (to + 1) as _, desc, (from + 1) as _);
            *values.add(to) = *values.add(from);
            *nulls.add(to) = *nulls.add(from);
        }
        compat::finish_descriptor(raw, live);
        desc::release(raw, desc);
        (live, raw::heap_form_tuple(raw, live, values, nulls))
    }
}

/// Raises 0A000 if a type cannot be passed on.
fn check(raw: Raw<'_>, desc: TupleDesc) {
    for n in 0..width(desc) {
        let kind = column_type(desc, n);
        let number = Digits::of(n as u64 + 1);
        if let Some(border) = border::border() {
            border.check(raw, kind, &[b"parameter $", number.bytes()]);
        }
        // SAFETY: a look-up in the catalog.
        let is_pseudo = unsafe { raw::get_typtype(raw, Oid::from(kind)) as u8 } == b'p';
        if is_pseudo && kind != UNKNOWN && !desc::may_hold(kind) {
            raise_raw(
                raw,
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                &[
                    b"parameter $",
                    number.bytes(),
                    b" has pseudo-type ",
                    border::type_name(raw, kind),
                ],
                None,
            );
        }
    }
}

fn each_own_type(raw: Raw<'_>, desc: TupleDesc, tuple: pg_sys::HeapTuple, visit: &mut dyn FnMut(OwnType)) {
    if !(0..width(desc)).any(|n| desc::may_hold(column_type(desc, n))) {
        return;
    }
    // SAFETY: a tuple of the descriptor.
    unsafe {
        let (values, nulls) = desc::deform(raw, (*tuple).t_data, desc);
        for n in 0..width(desc) {
            let kind = column_type(desc, n);
            if desc::may_hold(kind) && !*nulls.add(n) {
                translate::each_own_type(raw, *values.add(n), kind, visit);
            }
        }
    }
}

/// Parameters in the worker. All their parts live in the memory context that was current when they were taken.
#[derive(Clone, Copy)]
pub struct Parameters {
    list: ParamListInfo,
    types: *mut Oid,
    count: usize,
    /// Whether the types of some parameters must be derived from the statement.
    has_unknown: bool,
}

impl Parameters {
    /// A record with these parameters as its columns, in the current memory context.
    pub fn record(&self, raw: Raw<'_>) -> Datum {
        // SAFETY: there are `count` parameters. The descriptor gets a number, by which the record is known.
        unsafe {
            let desc = raw::CreateTemplateTupleDesc(raw, self.count as c_int);
            let datums = raw::palloc(raw, size_of::<Datum>() * self.count.max(1)).cast::<Datum>();
            let nulls = raw::palloc(raw, self.count.max(1)).cast::<bool>();
            for n in 0..self.count {
                let parameter = (*self.list).params.as_ptr().add(n);
                raw::TupleDescInitEntry(raw, desc, (n + 1) as _, ptr::null(), *self.types.add(n), -1, 0);
                datums.add(n).write((*parameter).value);
                nulls.add(n).write((*parameter).isnull);
            }
            compat::finish_descriptor(raw, desc);
            let tuple = raw::heap_form_tuple(raw, raw::BlessTupleDesc(raw, desc), datums, nulls);
            raw::HeapTupleHeaderGetDatum(raw, (*tuple).t_data)
        }
    }

    /// Reads what [`Outgoing::write`] wrote at this address, and copies it. `records` must outlive the call. It tells the encoding of the
    /// texts. Call it in a transaction.
    ///
    /// Raises 42704 for a type that does not exist (or no longer does), 42804 for one that was altered meanwhile.
    pub fn take(raw: Raw<'_>, pointer: *const u8, len: usize, records: &mut Numbers) -> Self {
        // SAFETY: the bytes are those that `write` wrote. The copy is aligned, and lives as long as the values that point into it.
        unsafe {
            let copy = raw::MemoryContextAllocHuge(raw, pg_sys::CurrentMemoryContext, len).cast::<u8>();
            ptr::copy_nonoverlapping(pointer, copy, len);
            let head = *copy.cast::<Head>();
            let count = (head.count as usize).min(MOST);
            let columns = copy.add(size_of::<Head>()).cast::<ParameterType>();
            let mut at = columns.add(count).cast::<u8>();
            for _ in 0..head.descriptions {
                let len = at.cast::<u64>().read() as usize;
                let description = memory::view(at.add(8), len);
                describe::each_column(description, &mut |kind, name| match name {
                    b"" => check_exists(raw, kind, &[b"a record"]),
                    _ => check_exists(raw, kind, &[b"a column of a record"]),
                });
                if describe::has_changed(raw, description) {
                    changed_type(raw);
                }
                records.learn_raw(raw, description);
                at = at.add(8 + padded(len));
            }
            let desc = raw::CreateTemplateTupleDesc(raw, count as c_int);
            let types = raw::palloc(raw, size_of::<Oid>() * count).cast::<Oid>();
            for n in 0..count {
                let column = *columns.add(n);
                check_arrived(raw, &column, n);
                raw::TupleDescInitEntry(
                    raw,
                    desc,
                    (n + 1) as _,
                    ptr::null(),
                    Oid::from(column.kind),
                    column.modifier,
                    0,
                );
                types.add(n).write(Oid::from(column.kind));
            }
            compat::finish_descriptor(raw, desc);
            let list = raw::makeParamList(raw, count as c_int);
            Self::fill(raw, list, desc, at.cast(), records);
            Self {
                list,
                types,
                count,
                has_unknown: (0..count).any(|n| (*types.add(n)).to_u32() == UNKNOWN),
            }
        }
    }

    /// So many parameters, to be set.
    pub(super) fn empty(raw: Raw<'_>, count: usize) -> Self {
        // SAFETY: a list with room for as many.
        unsafe {
            Self {
                list: raw::makeParamList(raw, count as c_int),
                types: raw::palloc0(raw, size_of::<Oid>() * count.max(1)).cast(),
                count,
                has_unknown: false,
            }
        }
    }

    /// Sets parameter `n`, below their number; None is NULL.
    pub(super) fn set(&self, n: usize, kind: u32, value: Option<Datum>) {
        // SAFETY: the list and the types have as many elements as parameters.
        unsafe {
            self.types.add(n).write(Oid::from(kind));
            let parameter = (*self.list).params.as_mut_ptr().add(n);
            (*parameter).isnull = value.is_none();
            (*parameter).pflags = CONST;
            (*parameter).ptype = Oid::from(kind);
            (*parameter).value = value.unwrap_or(Datum::from(0usize));
        }
    }

    /// The same when all are set.
    pub(super) fn judged(self) -> Self {
        // SAFETY: as many types as parameters.
        let has_unknown = (0..self.count).any(|n| unsafe { (*self.types.add(n)).to_u32() == UNKNOWN });
        Self { has_unknown, ..self }
    }

    unsafe fn fill(raw: Raw<'_>, list: ParamListInfo, desc: TupleDesc, tuple: HeapTupleHeader, records: &Numbers) {
        // SAFETY: the tuple is one of the descriptor; the list has an element for each column.
        unsafe {
            let (values, nulls) = desc::deform(raw, tuple, desc);
            for n in 0..width(desc) {
                let kind = column_type(desc, n);
                let parameter = (*list).params.as_mut_ptr().add(n);
                (*parameter).isnull = *nulls.add(n);
                (*parameter).pflags = CONST;
                (*parameter).ptype = Oid::from(kind);
                (*parameter).value = if *nulls.add(n) {
                    Datum::from(0usize)
                } else if records.is_empty() {
                    *values.add(n)
                } else {
                    translate::renumber(raw, *values.add(n), kind, records)
                };
            }
        }
    }

    /// The values as the planner and the executor expect them.
    pub(in crate::pg) fn list(&self) -> ParamListInfo {
        self.list
    }

    /// Analyses and rewrites one statement that uses the parameters. Raises 42P02 for a parameter that is not given.
    ///
    /// # Safety
    /// The tree must come from the parser, and `sql` must be the text that it was parsed from.
    pub(in crate::pg) unsafe fn analyze(&self, raw: Raw<'_>, statement: *mut RawStmt, sql: *const c_char) -> *mut List {
        // SAFETY: as above.
        unsafe {
            if self.has_unknown {
                self.find_types(raw, statement, sql);
                self.read_literals(raw);
            }
            compat::analyze_and_rewrite(raw, statement, sql, self.types, self.count as c_int)
        }
    }

    /// Derives the types of the literals. A first analysis finds the type that the statement expects, if any. Whether each position accepts
    /// that type is checked by the real analysis, which follows.
    unsafe fn find_types(&self, raw: Raw<'_>, statement: *mut RawStmt, sql: *const c_char) {
        // SAFETY: analysis changes the tree, so it takes a copy. The array grows where the statement names more parameters.
        unsafe {
            let mut count = self.count as c_int;
            let mut found = raw::palloc(raw, size_of::<Oid>() * self.count).cast::<Oid>();
            for n in 0..self.count {
                let kind = *self.types.add(n);
                found
                    .add(n)
                    .write(if kind.to_u32() == UNKNOWN { Oid::INVALID } else { kind });
            }
            let tree = raw::copyObjectImpl(raw, statement.cast()).cast();
            compat::find_parameter_types(raw, tree, sql, &mut found, &mut count);
            for n in 0..self.count {
                let kind = *found.add(n);
                if (*self.types.add(n)).to_u32() == UNKNOWN && kind != Oid::INVALID {
                    let kind = if kind.to_u32() == UNKNOWN {
                        Oid::from(TEXT)
                    } else {
                        kind
                    };
                    self.types.add(n).write(kind);
                }
            }
        }
    }

    /// Converts the literals to the types that were derived for them. Literals that the statement does not use stay as they are.
    unsafe fn read_literals(&self, raw: Raw<'_>) {
        // SAFETY: as many types as parameters. The snapshot is for what a domain checks.
        unsafe {
            let without_snapshot = !pg_sys::ActiveSnapshotSet();
            if without_snapshot {
                raw::PushActiveSnapshot(raw, raw::GetTransactionSnapshot(raw));
            }
            for n in 0..self.count {
                let parameter = (*self.list).params.as_mut_ptr().add(n);
                let kind = *self.types.add(n);
                if (*parameter).ptype.to_u32() == UNKNOWN && kind.to_u32() != UNKNOWN {
                    Self::read(raw, parameter, kind);
                }
            }
            if without_snapshot {
                raw::PopActiveSnapshot(raw);
            }
        }
    }

    unsafe fn read(raw: Raw<'_>, parameter: *mut pg_sys::ParamExternData, kind: Oid) {
        // SAFETY: the value of an unknown type is a C string; the type's own input function reads it.
        unsafe {
            let (mut input, mut of) = (Oid::INVALID, Oid::INVALID);
            raw::getTypeInputInfo(raw, kind, &mut input, &mut of);
            let text = if (*parameter).isnull {
                ptr::null_mut()
            } else {
                (*parameter).value.cast_mut_ptr::<c_char>()
            };
            (*parameter).value = raw::OidInputFunctionCall(raw, input, text, of, -1);
            (*parameter).ptype = kind;
        }
    }

    /// The values as the server log shows them, or NULL if the settings ask for none.
    pub(in crate::pg) fn for_log(&self, raw: Raw<'_>) -> *mut c_char {
        // SAFETY: plain reads; the output functions are those of the types.
        unsafe {
            if pg_sys::log_parameter_max_length == 0 {
                return ptr::null_mut();
            }
            raw::BuildParamLogString(raw, self.list, ptr::null_mut(), pg_sys::log_parameter_max_length)
        }
    }
}

fn check_arrived(raw: Raw<'_>, column: &ParameterType, n: usize) {
    let number = Digits::of(n as u64 + 1);
    check_exists(raw, column.kind, &[b"parameter $", number.bytes()]);
    if fingerprint::fingerprint(raw, column.kind) != column.print {
        changed_type(raw);
    }
}

fn check_exists(raw: Raw<'_>, kind: u32, what: &[&[u8]]) {
    // SAFETY: a look-up in the catalog; 0 for a type that is not there.
    if unsafe { raw::get_typtype(raw, Oid::from(kind)) } == 0 {
        let mut message: [&[u8]; 4] = [b"the type of ", b"", b"", b" does not exist"];
        message[1..3].iter_mut().zip(what).for_each(|(to, from)| *to = from);
        raise_raw(
            raw,
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            &message,
            Some(c"A type that an open transaction creates does not exist for others."),
        );
    }
}

fn changed_type(raw: Raw<'_>) -> ! {
    raise_raw(
        raw,
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        &[b"a type in the parameters has changed since the job was launched"],
        None,
    )
}
