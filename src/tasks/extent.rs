//! How large the table of an operation is, and whether its blocks are still the same ones.

use crate::pg::catalog::size;
use crate::pg::error::{Failure, Report, Result};
use crate::pg::function::rows::{INT8, OID, Value};
use crate::pg::plan::Plan;
use crate::pg::spi;
use crate::pg::transaction;
use crate::tasks::by::{self, Place};
use crate::tasks::range::c_string;
use pgrx::PgSqlErrorCode;

/// Whether nothing has counted the rows of the table yet, and its name.
static IS_NEW: Plan = Plan::planned(
    c"SELECT c.reltuples OPERATOR(pg_catalog.<) 0, pg_catalog.format('%I.%I', n.nspname, c.relname) \
      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
      WHERE c.oid OPERATOR(pg_catalog.=) $1",
    &[OID],
);

/// The tables that have rows of this one.
static WITH_ROWS: Plan = Plan::planned(
    c"WITH RECURSIVE below (oid) AS ( \
          SELECT $1 UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN below ON inhparent OPERATOR(pg_catalog.=) below.oid) \
      SELECT c.oid FROM below JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) below.oid \
      WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,m}'::pg_catalog.\"char\"[])",
    &[OID],
);

/// The blocks of the table and of those that inherit from it, and about how many rows they have. Where nothing has counted the rows of a single table,
/// those of some blocks are counted as the current role.
pub fn size_of(relation: u32) -> Result<(f64, f64)> {
    let (mut blocks, mut rows) = (0.0, 0.0);
    let tables = WITH_ROWS.rows(&[Value::Oid(relation)], |row| Ok(row.oid(0)?.unwrap_or(0)))?;
    for table in &tables {
        let (more, about) = size::of_table(*table)?;
        blocks += f64::from(more);
        rows += about;
    }
    let is_new = IS_NEW.first(&[Value::Oid(relation)], |row| {
        Ok((row.bool(0)? == Some(true), row.text(1)?.unwrap_or_default()))
    })?;
    if let Some((true, name)) = is_new
        && tables == [relation]
        && blocks > 0.0
    {
        match spi::in_subtransaction(|| density(&name, blocks as u64)) {
            Ok(density) => rows = density * blocks,
            Err(failure) if failure.is_cancel() => return Err(failure),
            // Without the right to read the whole table it remains an estimate.
            Err(_) => (),
        }
    }
    Ok((blocks, rows))
}

/// Of an operation: the table, and the file of its blocks, or the column, what decides the places of its keys, and its number where the table is the
/// one with which the operation began.
static DIVIDED: Plan = Plan::planned(
    c"SELECT relation::pg_catalog.oid, storage, key_column, sorting, \
          CASE WHEN key_system OPERATOR(pg_catalog.=) $2 AND key_table OPERATOR(pg_catalog.=) relation::pg_catalog.oid THEN key_number END \
      FROM background.operation WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8, INT8],
);

static STORAGE_NOW: Plan = Plan::planned(c"SELECT pg_catalog.pg_relation_filenode($1)", &[OID]);

/// Keeps the rows of the operation's table in the order that its chunks are ranges of until the transaction ends: a rewritten table has them in other
/// blocks, another type or collation sorts them otherwise, and another column of the name has other keys. 55000 if that has happened.
pub fn hold(operation: i64) -> Result<()> {
    let found = DIVIDED.first(
        &[Value::Int8(operation), Value::Int8(transaction::system_identifier())],
        |row| {
            let (relation, storage) = (row.oid(0)?.unwrap_or(0), row.oid(1)?);
            Ok((relation, storage, row.text(2)?, row.text(3)?, row.int4(4)?))
        },
    )?;
    let Some((relation, storage, column, sorting, number)) = found else {
        return Ok(());
    };
    size::hold(relation)?;
    let Some(column) = column else {
        let now = STORAGE_NOW.first(&[Value::Oid(relation)], |row| row.oid(0))?.flatten();
        return if now == storage { Ok(()) } else { Err(rewritten()) };
    };
    match by::place(relation, &column)? {
        Some(now) => check_place(&column, &now, number, sorting.as_deref()),
        // Without the column the statement says so.
        None => Ok(()),
    }
}

/// 55000 unless the column is the one with this number, where one is given, and its keys are sorted in this way.
pub fn check_place(column: &[u8], now: &Place, number: Option<i32>, sorting: Option<&[u8]>) -> Result<()> {
    if number.is_some_and(|number| number != now.number) {
        return Err(another_column(column));
    }
    if sorting == Some(&now.sorting) {
        Ok(())
    } else {
        Err(sorted_otherwise(column))
    }
}

/// 55000.
fn another_column(column: &[u8]) -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "column \"{}\" is another one than that by which the table is divided",
            String::from_utf8_lossy(column)
        ),
    )
    .detail("The column was renamed or dropped, and another one has its name.")
    .hint("Give the column its name back and retry the operation, or start another one for the rows that are left.")
    .into()
}

/// 55000.
fn sorted_otherwise(column: &[u8]) -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "the type or the collation of column \"{}\" has changed, and its keys are in other places",
            String::from_utf8_lossy(column)
        ),
    )
    .hint("Start another operation for the rows that are left.")
    .into()
}

/// 55000.
pub fn rewritten() -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the table was rewritten, and its rows are in other blocks".to_owned(),
    )
    .detail("VACUUM FULL, CLUSTER, TRUNCATE, some forms of ALTER TABLE and a restore do that.")
    .hint("Start another operation.")
    .into()
}

/// How many blocks are looked at, in each of three places.
const LOOKED_AT: u64 = 4;

/// Rows in a block, as the current role sees them.
fn density(table: &[u8], blocks: u64) -> Result<f64> {
    let (mut rows, mut seen) = (0.0, 0);
    for from in [0, blocks / 2, blocks.saturating_sub(LOOKED_AT)] {
        let end = blocks.min(from + LOOKED_AT);
        let condition =
            format!(" WHERE ctid OPERATOR(pg_catalog.>=) '({from},0)' AND ctid OPERATOR(pg_catalog.<) '({end},0)'");
        let parts = [
            &b"SELECT pg_catalog.count(*) FROM ONLY "[..],
            table,
            condition.as_bytes(),
        ];
        let count = spi::texts(&c_string(parts.concat())?, &[])?;
        rows += count
            .first()
            .and_then(|count| count.to_str().ok()?.parse::<f64>().ok())
            .unwrap_or(0.0);
        seen += end - from;
    }
    Ok(rows / seen.max(1) as f64)
}
