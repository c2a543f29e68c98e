//! One large statement that runs in many chunks: from what is asked for to a row of `background.operation` and its first lane.

use crate::dispatch::order;
use crate::pg::error::{self, Report, Result};
use crate::pg::fallible;
use crate::pg::function::call::{Answer, Interval};
use crate::pg::function::rows::{CHAR, FLOAT8, INT4, INT8, OID, TEXT, TIMESTAMPTZ, Value};
use crate::pg::guc::own;
use crate::pg::memory;
use crate::pg::plan::Plan;
use crate::pg::process::{backend, identity};
use crate::pg::query::{assigned, classify};
use crate::pg::table;
use crate::pg::transaction;
use crate::pg::value::desc::{INTERVAL, JSONB, TEXT_ARRAY};
use crate::pg::value::kept::{self, Kept};
use crate::registry::job::LABEL_MAX;
use crate::tasks::by::{self, By};
use crate::tasks::options::{self, NAME_MAX, check_interval, check_length, out_of_range};
use crate::tasks::{enqueue, extent, join, lane, queue, range, stamp};
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;

/// The arguments of `parallel_execute`, NULLs replaced by what they mean.
pub struct Asked<'a> {
    pub sql: &'a [u8],
    pub relation: u32,
    pub by: &'a [u8],
    /// A record whose columns are the parameters from `$3` on.
    pub params: Option<Answer>,
    pub label: Option<&'a [u8]>,
    pub parallelism: i32,
    pub chunk_rows: Option<i64>,
    pub chunk_time: Option<Interval>,
    pub on_error: &'a [u8],
    pub max_attempts: i32,
    pub retry_delay: Option<Interval>,
    pub timeout: Option<Interval>,
    pub queue: &'a [u8],
    pub priority: i32,
    pub max_replication_lag: Option<Interval>,
    pub pause_between: Option<Interval>,
    /// A `jsonb`.
    pub settings: Option<Answer>,
}

/// The most chunks of an operation that run at a time.
pub const PARALLELISM_MAX: i32 = 1024;

static UNNEST: Plan = Plan::fixed(
    c"SELECT p.kind, p.value FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY AS p (kind, value, number) \
      ORDER BY p.number",
    &[TEXT_ARRAY, TEXT_ARRAY],
);

static INSERT: Plan = Plan::fixed(
    c"INSERT INTO background.operation (id, owner, home, phase, relation, key_column, total, rows_per_block, storage, label, sql, param_types, \
          param_values, search_path, settings, queue, priority, parallelism, chunk_rows, chunk_time, on_error, max_attempts, retry_delay, \
          timeout, max_replication_lag, pause_between, started_at, sorting, key_system, key_table, key_number) \
      VALUES ($1, background.role_of($2), $3, 'r', $4::pg_catalog.regclass, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
          COALESCE($19, '1 s'), $20, $21, $22, CASE WHEN $23 OPERATOR(pg_catalog.>) '0' THEN $23 END, $24, COALESCE($25, '0'), $26, $27, $28, $29, $30)",
    &[
        INT8,
        OID,
        INT8,
        OID,
        TEXT,
        FLOAT8,
        FLOAT8,
        OID,
        TEXT,
        TEXT,
        TEXT_ARRAY,
        TEXT_ARRAY,
        TEXT,
        JSONB,
        TEXT,
        INT4,
        INT4,
        INT8,
        INTERVAL,
        CHAR,
        INT4,
        INTERVAL,
        INTERVAL,
        INTERVAL,
        INTERVAL,
        TIMESTAMPTZ,
        TEXT,
        INT8,
        OID,
        INT4,
    ],
);

/// Starts an operation of the current role and returns its id. It begins when the transaction commits.
///
/// Errors: those of an enqueue for the caller, the queue, the texts and the settings; 22023 for values out of range; those of [`By::look`]
/// and [`assigned::look`]; 42501 without the right to read the column; 0A000 for a statement that moves rows to other chunks, or cannot
/// run in a transaction.
pub fn start(asked: &Asked) -> Result<i64> {
    order::check_caller("start an operation", "operation")?;
    transaction::check_writable(c"background.parallel_execute()")?;
    let role = identity::acting().2;
    enqueue::check_role(role)?;
    asked.check()?;
    let params = match asked.params {
        Some(record) => kept::of(record, None)?,
        None => None,
    };
    let tables = join::tables()?;
    let by = By::look(asked.relation, asked.by)?;
    asked.check_statement(&by, params)?;
    enqueue::check_settings(asked.settings)?;
    queue::enter(&tables, asked.queue, role)?;
    let id = table::next_number(tables.operation_id)?;
    let home = stamp::home(&tables)?;
    asked.insert(id, role, home, &by, params)?;
    lane::add(id, 0.0)?;
    Ok(id)
}

impl Asked<'_> {
    fn check(&self) -> Result<()> {
        check_length("label", self.label, LABEL_MAX)?;
        check_length("queue name", Some(self.queue), NAME_MAX)?;
        check_parallelism(self.parallelism)?;
        check_chunk_time(self.chunk_time)?;
        if self.chunk_rows.is_some_and(|rows| rows < 1) {
            return Err(out_of_range("chunk_rows must be at least 1"));
        }
        if self.max_attempts < 1 {
            return Err(out_of_range("max_attempts must be at least 1"));
        }
        for (what, interval) in [
            ("retry_delay", self.retry_delay),
            ("timeout", self.timeout),
            ("max_replication_lag", self.max_replication_lag),
            ("pause_between", self.pause_between),
        ] {
            check_interval(what, interval)?;
        }
        if !matches!(self.on_error, b"stop" | b"continue") {
            return Err(options::unknown("on_error", self.on_error, "\"stop\" and \"continue\""));
        }
        if let Some(command) = classify::look(self.sql)?.refused {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("{} cannot run in an operation", command.to_string_lossy()),
            )
            .detail("Each chunk and the note that it is done are one transaction, which the statement does not end.")
            .into());
        }
        Ok(())
    }

    /// What is wrong with the statement is found now, as the current role, and not by the first chunk.
    fn check_statement(&self, by: &By, params: Option<Kept>) -> Result<()> {
        if let By::Key(key) = by {
            range::check_rights(key)?;
        }
        let kind = memory::copy_c_str(by.kind());
        let mut columns: Vec<(&CStr, Option<&CStr>)> = Vec::new();
        fallible::push(&mut columns, (kind, None))?;
        fallible::push(&mut columns, (kind, None))?;
        if let Some(kept) = params {
            let values = [
                Value::Other(TEXT_ARRAY, kept.types),
                Value::Other(TEXT_ARRAY, kept.values),
            ];
            for (kind, value) in UNNEST.rows(&values, |row| Ok((row.text(0)?.unwrap_or_default(), row.text(1)?)))? {
                let value = value.as_deref().map(memory::copy_c_str);
                fallible::push(&mut columns, (memory::copy_c_str(&kind), value))?;
            }
        }
        let family = by::family(self.relation)?;
        let decisive = by::decisive(self.relation, self.by)?;
        let seen = assigned::look(memory::copy_c_str(self.sql), &columns, &family, &decisive)?;
        let moves = match by {
            By::Key(_) => seen.assigns,
            By::Blocks { .. } => seen.updates,
        };
        if moves {
            let (message, hint) = match by {
                By::Key(_) => (
                    format!(
                        "the statement of an operation must not change column \"{}\", by which the table is divided",
                        String::from_utf8_lossy(self.by)
                    ),
                    "Divide the table by another column.",
                ),
                By::Blocks { .. } => (
                    "a statement that updates the table cannot be divided by ctid".to_owned(),
                    "Divide the table by a column that has an index.",
                ),
            };
            return Err(Report::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                .detail("The new versions of its rows would be in other chunks, and be found again.")
                .hint(hint)
                .into());
        }
        for name in ["$1", "$2"] {
            if !uses(self.sql, name.as_bytes()) {
                error::message(
                    pgrx::pg_sys::WARNING,
                    PgSqlErrorCode::ERRCODE_WARNING,
                    &format!("the statement of the operation does not use {name}"),
                    Some("It does the same for each chunk."),
                );
                break;
            }
        }
        Ok(())
    }

    fn insert(&self, id: i64, role: u32, home: i64, by: &By, params: Option<Kept>) -> Result<()> {
        let (blocks, rows) = extent::size_of(self.relation)?;
        let (column, total, storage, place) = match by {
            By::Key(key) => (Value::Text(self.by), rows, Value::Null, Some(&key.place)),
            By::Blocks { storage } => (Value::Null, blocks, Value::Oid(*storage), None),
        };
        let path = own::value_of(c"search_path")?;
        INSERT.execute(&[
            Value::Int8(id),
            Value::Oid(role),
            Value::Int8(home),
            Value::Oid(self.relation),
            column,
            Value::Float8(total),
            Value::Float8(rows / blocks.max(1.0)),
            storage,
            Value::text_or_null(self.label),
            Value::Text(self.sql),
            params.map_or(Value::Null, |params| Value::Other(TEXT_ARRAY, params.types)),
            params.map_or(Value::Null, |params| Value::Other(TEXT_ARRAY, params.values)),
            Value::Text(&path),
            self.settings
                .map_or(Value::Null, |settings| Value::Other(JSONB, settings)),
            Value::Text(self.queue),
            Value::Int4(self.priority),
            Value::Int4(self.parallelism),
            self.chunk_rows.map_or(Value::Null, Value::Int8),
            options::interval(self.chunk_time),
            Value::Char(if self.on_error == b"stop" { b's' } else { b'c' }),
            Value::Int4(self.max_attempts),
            options::interval(self.retry_delay),
            options::interval(self.timeout),
            options::interval(self.max_replication_lag),
            options::interval(self.pause_between),
            Value::Timestamp(backend::now()),
            place.map_or(Value::Null, |place| Value::Text(&place.sorting)),
            place.map_or(Value::Null, |_| Value::Int8(transaction::system_identifier())),
            place.map_or(Value::Null, |_| Value::Oid(self.relation)),
            place.map_or(Value::Null, |place| Value::Int4(place.number)),
        ])?;
        Ok(())
    }
}

/// 22023.
pub fn check_parallelism(parallelism: i32) -> Result<()> {
    if (1..=PARALLELISM_MAX).contains(&parallelism) {
        return Ok(());
    }
    Err(out_of_range(&format!(
        "parallelism must be between 1 and {PARALLELISM_MAX}"
    )))
}

/// 22023, 22008.
pub fn check_chunk_time(time: Option<Interval>) -> Result<()> {
    check_interval("chunk_time", time)?;
    match time.and_then(|time| time.length()) {
        Some(0) => Err(out_of_range("chunk_time must be more than 0")),
        _ => Ok(()),
    }
}

/// Whether the text has the parameter, be it in a literal.
fn uses(sql: &[u8], name: &[u8]) -> bool {
    sql.windows(name.len())
        .enumerate()
        .any(|(at, part)| part == name && !sql.get(at + name.len()).is_some_and(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_text() {
        assert!(uses(b"DELETE FROM t WHERE id BETWEEN $1 AND $2", b"$2"));
        assert!(!uses(b"SELECT $12", b"$1"));
        assert!(!uses(b"$", b"$1"));
        assert!(uses(b"SELECT $12, $1", b"$1"));
    }
}
