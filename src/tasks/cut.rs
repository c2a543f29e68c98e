//! Where a lane gets its chunk, and all that is decided about an operation: whether it is paused, stopped, canceled, done; how many lanes it has;
//! whether it waits for a standby; how large the chunk is.
//!
//! It happens in a runner of the operation's role, in a transaction before that of the chunk, with the operation's row locked. Where the next chunk
//! begins, the chunk's row and the task that has it are written together: no chunk is cut twice, and none is left out.

use crate::pg::catalog::size;
use crate::pg::error::{self, Failure, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{BOOL, FLOAT8, INT4, INT8, OID, TEXT, Value};
use crate::pg::guc::own;
use crate::pg::moment;
use crate::pg::plan::{self, Plan};
use crate::pg::process::backend;
use crate::pg::sqlstate;
use crate::pg::transaction;
use crate::tasks::by::{self, By};
use crate::tasks::chunk_size::{self, MEASURED};
use crate::tasks::pushed::{self, Ready, ready_columns};
use crate::tasks::range::{self, Range};
use crate::tasks::tables::Phase;
use crate::tasks::{extent, lane, shared};
use core::cell::Cell;
use core::ffi::CStr;

/// How long a lane waits for the operation's row, which others have for as long as it takes to cut a chunk, or a session until its transaction ends.
const PATIENCE: &CStr = c"2s";

/// How soon it tries again, in milliseconds.
const LATER: f64 = 500.0;

/// How soon it looks again whether the standbys have caught up, in milliseconds.
const BEHIND: f64 = 1000.0;

static LOCK: Plan = Plan::planned(
    c"SELECT phase, relation::pg_catalog.oid, key_column, last_key, is_cut, chunks, passed, total, rows_per_block, storage, chunk_rows, \
          pg_catalog.date_part('epoch', chunk_time) OPERATOR(pg_catalog.*) 1000, parallelism::pg_catalog.int8, \
          on_error OPERATOR(pg_catalog.=) 's', finished_at IS NOT NULL, max_replication_lag IS NOT NULL, sorting, \
          CASE WHEN key_system OPERATOR(pg_catalog.=) $2 AND key_table OPERATOR(pg_catalog.=) relation::pg_catalog.oid THEN key_number END \
      FROM background.operation WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
    &[INT8, INT8],
);

/// The first chunk that is not done.
static NOT_DONE: Plan = Plan::planned(
    c"SELECT n, first, last FROM background.chunk \
      WHERE operation_id OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) ANY ('{a,f,c}'::pg_catalog.\"char\"[]) \
          AND (CASE WHEN state OPERATOR(pg_catalog.=) 'a' THEN 'a' ELSE 'f' END) OPERATOR(pg_catalog.=) $2 \
      ORDER BY n LIMIT 1",
    &[INT8, TEXT],
);

static MEASURES: Plan = Plan::planned(
    c"SELECT size, ms FROM background.chunk WHERE operation_id OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) 'd' \
      ORDER BY n DESC LIMIT $2",
    &[INT8, INT8],
);

/// The longest lag that the operation bears, and that of the slowest standby as it was measured last, in milliseconds; the end of the log, and up to
/// where that standby has replayed it.
static LAG: Plan = Plan::planned(
    c"SELECT pg_catalog.date_part('epoch', o.max_replication_lag) OPERATOR(pg_catalog.*) 1000, \
          pg_catalog.date_part('epoch', pg_catalog.max(r.replay_lag)) OPERATOR(pg_catalog.*) 1000, \
          (pg_catalog.pg_current_wal_lsn() OPERATOR(pg_catalog.-) '0/0')::pg_catalog.int8, \
          (pg_catalog.min(r.replay_lsn) OPERATOR(pg_catalog.-) '0/0')::pg_catalog.int8 \
      FROM background.operation AS o CROSS JOIN pg_catalog.pg_stat_replication AS r \
      WHERE o.id OPERATOR(pg_catalog.=) $1 GROUP BY o.id, o.max_replication_lag",
    &[INT8],
);

static ADD_CHUNK: Plan = Plan::fixed(
    c"INSERT INTO background.chunk (operation_id, n, first, last, size, state, task_id) VALUES ($1, $2, $3, $4, $5, 'w', $6)",
    &[INT8, INT8, TEXT, TEXT, INT8, INT8],
);

static AGAIN: Plan = Plan::planned(
    c"UPDATE background.chunk SET state = 'w', task_id = $3, attempts = NULL, rows = NULL, ms = NULL, finished_at = NULL, sqlstate = NULL, \
          error_message = NULL \
      WHERE operation_id OPERATOR(pg_catalog.=) $1 AND n OPERATOR(pg_catalog.=) $2",
    &[INT8, INT8, INT8],
);

static ADVANCE: Plan = Plan::planned(
    c"UPDATE background.operation SET last_key = $2, chunks = $3, passed = passed OPERATOR(pg_catalog.+) $4, is_cut = $5 \
      WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8, TEXT, INT8, INT8, BOOL],
);

/// The table is another one after a restore, in which the column may have another number.
static RESTORED: Plan = Plan::planned(
    c"UPDATE background.operation SET key_system = $2, key_table = $3, key_number = $4 WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8, INT8, OID, INT4],
);

static ALL_CUT: Plan = Plan::planned(
    c"UPDATE background.operation SET is_cut = true WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

/// The task gets its range: it is as any other from then on.
static GIVE: Plan = Plan::planned(
    c"UPDATE background.task AS t SET \
          param_types = ARRAY[$2, $2] OPERATOR(pg_catalog.||) COALESCE(o.param_types, '{}'), \
          param_values = ARRAY[$3, $4] OPERATOR(pg_catalog.||) COALESCE(o.param_values, '{}') \
      FROM background.operation AS o \
      WHERE t.id OPERATOR(pg_catalog.=) $1 AND o.id OPERATOR(pg_catalog.=) t.operation_id",
    &[INT8, TEXT, TEXT, TEXT],
);

static LANE_ENDS: Plan = Plan::planned(
    c"DELETE FROM background.task WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static LANE_WAITS: Plan = Plan::planned(
    plan::text(concat!(
        "UPDATE background.task AS t SET phase = 'd', \
          run_at = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) ('1 ms'::pg_catalog.interval OPERATOR(pg_catalog.*) $2) \
      WHERE id OPERATOR(pg_catalog.=) $1 RETURNING ",
        ready_columns!(),
        "\0"
    )),
    &[INT8, FLOAT8],
);

/// The path and the settings of an operation, as its tasks have them.
type Settings<'a> = &'a [(&'a CStr, Option<&'a CStr>)];

/// What a lane does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It runs its chunk.
    Chunk,
    /// It ends, or looks again later.
    Nothing,
}

/// The operation, as its locked row says.
struct Operation {
    id: i64,
    phase: u8,
    relation: u32,
    column: Option<Vec<u8>>,
    last_key: Option<Vec<u8>>,
    is_cut: bool,
    chunks: i64,
    total: f64,
    rows_per_block: f64,
    storage: u32,
    chunk_rows: Option<i64>,
    /// In milliseconds.
    chunk_time: f64,
    parallelism: i64,
    stops: bool,
    has_finished: bool,
    looks_at_lag: bool,
    sorting: Option<Vec<u8>>,
    /// The number of the column, None where the table is not the one with which the operation began: it was restored.
    number: Option<i32>,
}

impl Operation {
    fn lock(id: i64) -> Result<Option<Self>> {
        LOCK.first(
            &[Value::Int8(id), Value::Int8(transaction::system_identifier())],
            |row| {
                Ok(Self {
                    id,
                    phase: row.char(0)?.unwrap_or(0),
                    relation: row.oid(1)?.unwrap_or(0),
                    column: row.text(2)?,
                    last_key: row.text(3)?,
                    is_cut: row.bool(4)? == Some(true),
                    chunks: row.int8(5)?.unwrap_or(0),
                    total: row.float8(7)?.unwrap_or(0.0),
                    rows_per_block: row.float8(8)?.unwrap_or(1.0),
                    storage: row.oid(9)?.unwrap_or(0),
                    chunk_rows: row.int8(10)?,
                    chunk_time: row.float8(11)?.unwrap_or(1000.0),
                    parallelism: row.int8(12)?.unwrap_or(1),
                    stops: row.bool(13)? == Some(true),
                    has_finished: row.bool(14)? == Some(true),
                    looks_at_lag: row.bool(15)? == Some(true),
                    sorting: row.text(16)?,
                    number: row.int4(17)?,
                })
            },
        )
    }

    fn not_done(&self, state: &[u8]) -> Result<Option<(i64, Range)>> {
        NOT_DONE.first(&[Value::Int8(self.id), Value::Text(state)], |row| {
            let range = Range {
                first: row.text(1)?.unwrap_or_default(),
                last: row.text(2)?.unwrap_or_default(),
                size: 0,
                is_end: false,
            };
            Ok((row.int8(0)?.unwrap_or(0), range))
        })
    }

    /// What the table is divided by. A column keeps its name until the transaction ends.
    fn by(&self) -> Result<By> {
        if self.column.is_some() {
            size::hold(self.relation)?;
        }
        By::known(self.relation, self.column.as_deref().unwrap_or(by::CTID))
    }

    /// The block with which the next chunk begins.
    fn next_block(&self) -> i64 {
        let key = self.last_key.as_deref().and_then(|key| core::str::from_utf8(key).ok());
        key.and_then(|key| key.parse().ok()).unwrap_or(0)
    }

    /// How large the next chunk is, in rows or in blocks.
    fn size(&self, unit: f64) -> Result<i64> {
        if let Some(rows) = self.chunk_rows {
            return Ok(((rows as f64 / unit.max(1.0)) as i64).max(1));
        }
        let most = Value::Int8(MEASURED as i64);
        let last = MEASURES.rows(&[Value::Int8(self.id), most], |row| {
            Ok((row.int8(0)?.unwrap_or(1), row.float8(1)?.unwrap_or(0.0)))
        })?;
        Ok(chunk_size::next(&last, self.chunk_time, unit))
    }

    /// The next range, None at the end. The columns of the table are read as the current role.
    fn cut(&self, by: &By, settings: Settings) -> Result<Option<Range>> {
        match by {
            By::Key(key) => {
                let column = self.column.as_deref().unwrap_or_default();
                extent::check_place(column, &key.place, self.number, self.sorting.as_deref())?;
                if self.number.is_none() {
                    RESTORED.execute(&[
                        Value::Int8(self.id),
                        Value::Int8(transaction::system_identifier()),
                        Value::Oid(self.relation),
                        Value::Int4(key.place.number),
                    ])?;
                }
                let size = self.size(1.0)?;
                range::prepare(key, settings)?;
                key.cut(self.last_key.as_deref(), size)
            }
            By::Blocks { storage } => {
                if *storage != self.storage {
                    return Err(extent::rewritten());
                }
                let (from, all) = (self.next_block(), self.total as i64);
                if from >= all {
                    return Ok(None);
                }
                let size = self.size(self.rows_per_block)?.min(all - from);
                let end = from + size;
                Ok(Some(Range {
                    first: format!("({from},0)").into_bytes(),
                    last: format!("({},65535)", end - 1).into_bytes(),
                    size,
                    is_end: end == all,
                }))
            }
        }
    }
}

thread_local! {
    /// Whether the lane waits for the operation's row.
    static IS_WAITING: Cell<bool> = const { Cell::new(false) };
}

/// Finds the chunk of the lane `task` of the operation, as the current role. Outside of a transaction. The errors of [`By::look`], 55000 for a table
/// whose blocks are others, or whose column is another one or sorted otherwise, and those of the role's own rights and code.
pub fn next(operation: i64, task: i64, settings: Settings) -> Result<Next> {
    IS_WAITING.set(false);
    let found = transaction::own(|| {
        // What a crash loses of this is done again.
        own::set(c"synchronous_commit", c"off", true)?;
        step(operation, task, settings)
    });
    match found {
        Err(failure) if IS_WAITING.get() => {
            let edata = error::into_data(failure);
            if error::sqlstate(edata) != sqlstate::pack(b"55P03") {
                return Err(Failure::Caught(edata));
            }
            transaction::own(|| wait(task, LATER))
        }
        found => found,
    }
}

fn wait(task: i64, ms: f64) -> Result<Next> {
    if let Some(ready) = LANE_WAITS.first(&[Value::Int8(task), Value::Float8(ms)], Ready::read)? {
        pushed::push(&ready.task(), Phase::Deferred)?;
    }
    Ok(Next::Nothing)
}

/// Whether a standby is further behind than the operation bears. What is measured is of what a standby has replayed last; one that replays nothing is
/// told by how long it has not come to where the log ended at an earlier look.
fn is_behind(operation: i64) -> Result<bool> {
    let found = LAG.first(&[Value::Int8(operation)], |row| {
        let lag = (row.float8(0)?.unwrap_or(f64::MAX), row.float8(1)?.unwrap_or(0.0));
        Ok((lag, row.int8(2)?.unwrap_or(0), row.int8(3)?))
    })?;
    let Some(((most, measured), end, replayed)) = found else {
        return Ok(false);
    };
    let since = match replayed {
        Some(replayed) => shared::mine()?.not_replayed_since(end, replayed, backend::now()),
        None => backend::now(),
    };
    let waited = (backend::now() - since) as f64 / 1000.0;
    Ok(measured.max(waited) > most)
}

fn end(operation: i64, task: i64) -> Result<Next> {
    LANE_ENDS.execute(&[Value::Int8(task)])?;
    lane::settle(operation)?;
    Ok(Next::Nothing)
}

fn step(id: i64, task: i64, settings: Settings) -> Result<Next> {
    let patience = own::value_of(c"lock_timeout")?;
    own::set(c"lock_timeout", PATIENCE, true)?;
    IS_WAITING.set(true);
    let locked = Operation::lock(id)?;
    IS_WAITING.set(false);
    let Some(operation) = locked else {
        return end(id, task);
    };
    own::set(c"lock_timeout", crate::pg::memory::copy_c_str(&patience), true)?;
    if operation.phase != b'r' || operation.has_finished {
        return end(id, task);
    }
    let wanted = lane::wanted(operation.parallelism);
    if lane::count(id)? > wanted {
        return end(id, task);
    }
    if operation.stops && operation.not_done(b"f")?.is_some() {
        lane::stop(id, None, None)?;
        return end(id, task);
    }
    if operation.looks_at_lag && is_behind(id)? {
        return wait(task, BEHIND);
    }
    let again = operation.not_done(b"a")?;
    if again.is_none() && operation.is_cut {
        return end(id, task);
    }
    let by = operation.by()?;
    let (range, is_last) = match again {
        Some((n, range)) => {
            AGAIN.execute(&[Value::Int8(id), Value::Int8(n), Value::Int8(task)])?;
            (range, false)
        }
        None => match operation.cut(&by, settings)? {
            None => {
                ALL_CUT.execute(&[Value::Int8(id)])?;
                return end(id, task);
            }
            Some(range) => {
                let n = operation.chunks + 1;
                let next = match by {
                    By::Key(_) => fallible::copied(&range.last)?,
                    By::Blocks { .. } => (operation.next_block() + range.size).to_string().into_bytes(),
                };
                ADD_CHUNK.execute(&[
                    Value::Int8(id),
                    Value::Int8(n),
                    Value::Text(&range.first),
                    Value::Text(&range.last),
                    Value::Int8(range.size),
                    Value::Int8(task),
                ])?;
                ADVANCE.execute(&[
                    Value::Int8(id),
                    Value::Text(&next),
                    Value::Int8(n),
                    Value::Int8(range.size),
                    Value::Bool(range.is_end),
                ])?;
                let is_last = range.is_end;
                (range, is_last)
            }
        },
    };
    moment::may_fail("cutting")?;
    GIVE.execute(&[
        Value::Int8(task),
        Value::Text(by.kind()),
        Value::Text(&range.first),
        Value::Text(&range.last),
    ])?;
    if !is_last && !operation.is_cut || operation.not_done(b"a")?.is_some() {
        lane::fill(id, wanted)?;
    }
    Ok(Next::Chunk)
}
