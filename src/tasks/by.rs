//! What the chunks of an operation are ranges of: the keys of a column in the order of an index, or the blocks of a table.
//!
//! The catalogs are read as the tables' owner, the table itself as the operation's role ([`crate::tasks::range`]): comparison functions, policies and
//! rights are that role's.

use crate::pg::catalog::size;
use crate::pg::error::{Failure, Report, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{INT4, OID, TEXT, Value};
use crate::pg::plan::Plan;
use crate::pg::reuse::connection_version;
use core::cell::RefCell;
use pgrx::PgSqlErrorCode;

/// The name of what is no column.
pub const CTID: &[u8] = b"ctid";

/// Of a table: its kind, how long it stays, its name, the file of its blocks, whether others inherit from it.
static TABLE: Plan = Plan::planned(
    c"SELECT c.relkind, c.relpersistence, pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_relation_filenode(c.oid), \
          EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent OPERATOR(pg_catalog.=) c.oid) \
      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
      WHERE c.oid OPERATOR(pg_catalog.=) $1",
    &[OID],
);

/// Of a column: its type, its name, its collation, its number. The collation of the database is another one after
/// a restore elsewhere.
static COLUMN: Plan = Plan::planned(
    c"SELECT atttypid, pg_catalog.format('%I', attname), \
          (SELECT pg_catalog.format('%I.%I', n.nspname, c.collname) FROM pg_catalog.pg_collation AS c \
              JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.collnamespace WHERE c.oid OPERATOR(pg_catalog.=) attcollation), \
          CASE WHEN attcollation OPERATOR(pg_catalog.=) 100::pg_catalog.oid THEN (SELECT datcollate::pg_catalog.text FROM pg_catalog.pg_database \
              WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) END, \
          attnum::pg_catalog.int4 \
      FROM pg_catalog.pg_attribute \
      WHERE attrelid OPERATOR(pg_catalog.=) $1 AND attname OPERATOR(pg_catalog.=) $2 AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped",
    &[OID, TEXT],
);

/// Of a type: its name, a name for all types whose values have the same order and texts, its name in messages, whether its texts may have names that
/// are qualified as the search path asks for, and whether it or a part of it is `regproc` or `regoper`, of whose values several may have the same text.
static TYPE: Plan = Plan::planned(
    c"WITH RECURSIVE part (oid) AS ( \
          SELECT $1 UNION \
          SELECT p.oid FROM part JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) part.oid CROSS JOIN LATERAL ( \
              SELECT pg_catalog.unnest(ARRAY[t.typelem, t.typbasetype]) \
              UNION ALL SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) t.typrelid \
                  AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped \
              UNION ALL SELECT rngsubtype FROM pg_catalog.pg_range WHERE t.oid OPERATOR(pg_catalog.=) ANY (ARRAY[rngtypid, rngmultitypid]) \
          ) AS p (oid)) \
      SELECT pg_catalog.format('%I.%I', n.nspname, t.typname), \
          CASE WHEN t.oid OPERATOR(pg_catalog.=) ANY ('{20,21,23}'::pg_catalog.oid[]) THEN 'integers' \
              WHEN t.oid OPERATOR(pg_catalog.=) ANY ('{25,1043}'::pg_catalog.oid[]) THEN 'texts' \
              ELSE pg_catalog.format('%I.%I', n.nspname, t.typname) END, \
          pg_catalog.format_type(t.oid, NULL), \
          EXISTS (SELECT FROM pg_catalog.pg_type AS p WHERE p.oid OPERATOR(pg_catalog.=) ANY (ARRAY[t.oid, t.typelem]) \
              AND (pg_catalog.starts_with(p.typname::pg_catalog.text, 'reg') \
                  OR p.typtype OPERATOR(pg_catalog.<>) ALL ('{b,e}'::pg_catalog.\"char\"[]))), \
          EXISTS (SELECT FROM part WHERE part.oid OPERATOR(pg_catalog.=) ANY ('{24,2203}'::pg_catalog.oid[])) \
      FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace \
      WHERE t.oid OPERATOR(pg_catalog.=) $1",
    &[OID],
);

/// The operator of an operator class that stands for `$2`: 4 at least, 5 greater.
static OPERATOR: Plan = Plan::planned(
    c"SELECT pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) \
      FROM pg_catalog.pg_opclass AS c \
          JOIN pg_catalog.pg_amop AS a ON a.amopfamily OPERATOR(pg_catalog.=) c.opcfamily AND a.amoplefttype OPERATOR(pg_catalog.=) c.opcintype \
              AND a.amoprighttype OPERATOR(pg_catalog.=) c.opcintype \
          JOIN pg_catalog.pg_operator AS o ON o.oid OPERATOR(pg_catalog.=) a.amopopr \
          JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace \
      WHERE c.oid OPERATOR(pg_catalog.=) $1 AND a.amopstrategy OPERATOR(pg_catalog.=) $2",
    &[OID, INT4],
);

/// The table and all that inherit from it: kind, name, and the options of the first column of an index of that column, NULL where there is none. One
/// that a partitioned table has is valid where all partitions have it.
static INDEXES: Plan = Plan::planned(
    c"WITH RECURSIVE family (oid) AS ( \
          SELECT $1 UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN family ON inhparent OPERATOR(pg_catalog.=) family.oid) \
      SELECT c.relkind, c.oid::pg_catalog.regclass::pg_catalog.text, i.options \
      FROM family AS f JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) f.oid \
      LEFT JOIN LATERAL ( \
          SELECT x.indoption[0]::pg_catalog.int4 AS options \
          FROM pg_catalog.pg_index AS x \
              JOIN pg_catalog.pg_class AS k ON k.oid OPERATOR(pg_catalog.=) x.indexrelid \
              JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) x.indrelid AND a.attnum OPERATOR(pg_catalog.=) x.indkey[0] \
              JOIN pg_catalog.pg_opclass AS has ON has.oid OPERATOR(pg_catalog.=) x.indclass[0] \
              JOIN pg_catalog.pg_opclass AS d ON d.oid OPERATOR(pg_catalog.=) $3 \
          WHERE x.indrelid OPERATOR(pg_catalog.=) f.oid AND k.relam OPERATOR(pg_catalog.=) 403::pg_catalog.oid \
              AND x.indisvalid AND x.indislive AND x.indpred IS NULL AND a.attname OPERATOR(pg_catalog.=) $2 \
              AND x.indcollation[0] OPERATOR(pg_catalog.=) a.attcollation \
              AND has.opcfamily OPERATOR(pg_catalog.=) d.opcfamily AND has.opcintype OPERATOR(pg_catalog.=) d.opcintype \
          ORDER BY x.indexrelid LIMIT 1) AS i ON true \
      ORDER BY f.oid OPERATOR(pg_catalog.<>) $1, f.oid",
    &[OID, TEXT, OID],
);

/// The table, those that it inherits from, and those that inherit from it.
static FAMILY: Plan = Plan::planned(
    c"WITH RECURSIVE above (oid) AS ( \
          SELECT $1 UNION SELECT inhparent FROM pg_catalog.pg_inherits JOIN above ON inhrelid OPERATOR(pg_catalog.=) above.oid), \
      below (oid) AS ( \
          SELECT $1 UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN below ON inhparent OPERATOR(pg_catalog.=) below.oid) \
      SELECT oid FROM above UNION SELECT oid FROM below",
    &[OID],
);

/// What chunks are ranges of.
#[derive(Clone)]
pub enum By {
    Key(Key),
    /// Blocks, of the file with this number.
    Blocks {
        storage: u32,
    },
}

/// A column and what its keys are read with.
#[derive(Clone)]
pub struct Key {
    /// Qualified and quoted names: the table, the column, the type without its domains.
    pub(super) table: Vec<u8>,
    pub(super) column: Vec<u8>,
    pub(super) kind: Vec<u8>,
    /// Whether the search path decides how the keys are written.
    pub(super) shows_names: bool,
    pub(super) greater: Vec<u8>,
    pub(super) at_least: Vec<u8>,
    /// The order in which the index has the keys, from the first one.
    pub(super) order: &'static [u8],
    pub place: Place,
}

/// Which column it is, and what decides the places of its keys.
#[derive(Clone)]
pub struct Place {
    /// The number of the column in its table: another column may get its name.
    pub number: i32,
    /// Names the type and the collation. Names, since a restore keeps them.
    pub sorting: Vec<u8>,
}

/// A column, as the catalogs have it.
struct Column {
    column: Vec<u8>,
    kind: Vec<u8>,
    /// As messages show it.
    shown_kind: Vec<u8>,
    class: u32,
    shows_names: bool,
    /// Whether a text may stand for several values.
    is_ambiguous: bool,
    place: Place,
}

impl Column {
    fn find(relation: u32, by: &[u8]) -> Result<Option<Self>> {
        let found = COLUMN.first(&[Value::Oid(relation), Value::Text(by)], |row| {
            let (kind, column) = (row.oid(0)?.unwrap_or(0), row.text(1)?.unwrap_or_default());
            let (collation, of_database) = (row.text(2)?.unwrap_or_default(), row.text(3)?.unwrap_or_default());
            Ok((kind, column, collation, of_database, row.int4(4)?.unwrap_or(0)))
        })?;
        let Some((kind, column, collation, of_database, number)) = found else {
            return Ok(None);
        };
        let (kind, class) = size::order_of(kind)?;
        let found = TYPE.first(&[Value::Oid(kind)], |row| {
            let (kind, kinds) = (row.text(0)?.unwrap_or_default(), row.text(1)?.unwrap_or_default());
            Ok((
                kind,
                kinds,
                row.text(2)?.unwrap_or_default(),
                row.bool(3)? == Some(true),
                row.bool(4)? == Some(true),
            ))
        })?;
        let (kind, kinds, shown_kind, shows_names, is_ambiguous) = found.unwrap_or_default();
        let sorting = [&kinds[..], &collation, &of_database].join(&b' ');
        Ok(Some(Self {
            column,
            kind,
            shown_kind,
            class,
            shows_names,
            is_ambiguous,
            place: Place { number, sorting },
        }))
    }
}

/// Which column has the name, as [`Key::place`]; None without the column.
pub fn place(relation: u32, by: &[u8]) -> Result<Option<Place>> {
    let now = (relation, connection_version::messages());
    let known = KNOWN.with_borrow(|known| match known {
        Some((then, of, By::Key(key))) if *then == now && of == by => Some(key.place.clone()),
        _ => None,
    });
    if known.is_some() {
        return Ok(known);
    }
    Ok(Column::find(relation, by)?.map(|column| column.place))
}

fn report(code: PgSqlErrorCode, message: String) -> Report {
    Report::new(code, message)
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The table and the invalidations that were seen then, the column, and what they are divided by.
type Known = ((u32, u64), Vec<u8>, By);

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

impl By {
    /// As [`By::look`], from memory if no catalog has changed since the last look.
    pub fn known(relation: u32, by: &[u8]) -> Result<Self> {
        KNOWN.with_borrow_mut(|known| {
            let now = (relation, connection_version::messages());
            match known {
                Some((then, of, what)) if *then == now && of == by => Ok(what.clone()),
                _ => {
                    let what = Self::look(relation, by)?;
                    *known = Some((now, fallible::copied(by)?, what.clone()));
                    Ok(what)
                }
            }
        })
    }

    /// Looks at the table and the column, or at the table's blocks for `ctid`. 42P01 for a table that is not there, 42809 for what is no table, 0A000
    /// for one whose rows others do not see, that lie elsewhere or in several tables with blocks of their own, and for a type whose texts do not tell its
    /// values apart; 42703 without the column,
    /// 42704 without an index.
    pub fn look(relation: u32, by: &[u8]) -> Result<Self> {
        let table = TABLE.first(&[Value::Oid(relation)], |row| {
            let (kind, stays) = (row.char(0)?.unwrap_or(0), row.char(1)?.unwrap_or(0));
            let name = row.text(2)?.unwrap_or_default();
            Ok((kind, stays, name, row.oid(3)?.unwrap_or(0), row.bool(4)? == Some(true)))
        })?;
        let Some((kind, stays, name, storage, is_parent)) = table else {
            return Err(report(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("relation with OID {relation} does not exist"),
            )
            .into());
        };
        if !matches!(kind, b'r' | b'p' | b'm') {
            let code = match kind {
                b'f' => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                _ => PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            };
            return Err(report(code, format!("{} is not a table with rows of its own", shown(&name))).into());
        }
        if stays == b't' {
            return Err(report(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("{} is temporary, and other sessions do not see its rows", shown(&name)),
            )
            .into());
        }
        if by != CTID {
            return Key::look(relation, name, by).map(Self::Key);
        }
        if kind == b'p' || is_parent {
            return Err(report(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "{} cannot be divided by ctid, since its rows are in several tables",
                    shown(&name)
                ),
            )
            .hint("Divide it by a column with an index, or each of these tables by ctid.")
            .into());
        }
        Ok(Self::Blocks { storage })
    }

    /// The type of the first and the last value, as a qualified and quoted name.
    pub fn kind(&self) -> &[u8] {
        match self {
            Self::Key(key) => &key.kind,
            Self::Blocks { .. } => b"pg_catalog.tid",
        }
    }
}

impl Key {
    fn look(relation: u32, table: Vec<u8>, by: &[u8]) -> Result<Self> {
        let Some(column) = Column::find(relation, by)? else {
            return Err(report(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{}\" of relation {} does not exist", shown(by), shown(&table)),
            )
            .into());
        };
        let Column {
            column,
            kind: name,
            shown_kind,
            class,
            shows_names,
            is_ambiguous,
            place,
        } = column;
        if class == 0 {
            return Err(report(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!(
                    "type {} has no default operator class for access method \"btree\"",
                    shown(&shown_kind)
                ),
            )
            .hint("Divide the table by another column, or by ctid.")
            .into());
        }
        if is_ambiguous {
            return Err(report(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("a table cannot be divided by values of type {}", shown(&shown_kind)),
            )
            .detail("The last key of a chunk is kept as text, and functions or operators of the same name have the same text there.")
            .hint("Divide the table by another column, or by ctid.")
            .into());
        }
        let operator = |strategy: i32| {
            let found = OPERATOR.first(&[Value::Oid(class), Value::Int4(strategy)], |row| row.text(0))?;
            Ok::<_, Failure>(found.flatten().unwrap_or_default())
        };
        let order = index_order(relation, &table, by, class)?;
        Ok(Self {
            table,
            column,
            kind: name,
            shows_names,
            greater: operator(5)?,
            at_least: operator(4)?,
            order,
            place,
        })
    }
}

pub(super) const NULLS_LAST: &[u8] = b" ASC NULLS LAST";
const NULLS_FIRST: &[u8] = b" ASC NULLS FIRST";

/// `INDOPTION_DESC` and `INDOPTION_NULLS_FIRST` of `catalog/pg_index.h`.
const DESC: i32 = 1;
const FIRST: i32 = 2;

/// The order in which an index of the column has the keys, from the least one on. An index in descending order is read backwards.
fn index_order(relation: u32, table: &[u8], by: &[u8], class: u32) -> Result<&'static [u8]> {
    let tables = INDEXES.rows(&[Value::Oid(relation), Value::Text(by), Value::Oid(class)], |row| {
        Ok((
            row.char(0)?.unwrap_or(0),
            row.text(1)?.unwrap_or_default(),
            row.int4(2)?,
        ))
    })?;
    for (kind, name, options) in &tables {
        if *kind == b'f' {
            return Err(report(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("{} has rows in foreign table {}", shown(table), shown(name)),
            )
            .into());
        }
        if options.is_none() {
            return Err(report(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("{} has no index that begins with column \"{}\"", shown(name), shown(by)),
            )
            .detail("It must be a valid btree index of all rows, with the default operator class and the column's collation.")
            .hint("Create one with CREATE INDEX CONCURRENTLY.")
            .into());
        }
    }
    let options = tables.first().and_then(|(_, _, options)| *options).unwrap_or(0);
    let is_first = (options & FIRST != 0) != (options & DESC != 0);
    Ok(if is_first { NULLS_FIRST } else { NULLS_LAST })
}

/// The columns from which those of a name are generated, in the table, its parents and its children. What depends on them is the column before 15, and
/// its expression since.
static SOURCES: Plan = Plan::planned(
    c"SELECT DISTINCT s.attname::pg_catalog.text \
      FROM pg_catalog.pg_attribute AS g \
          LEFT JOIN pg_catalog.pg_attrdef AS e ON e.adrelid OPERATOR(pg_catalog.=) g.attrelid AND e.adnum OPERATOR(pg_catalog.=) g.attnum \
          JOIN pg_catalog.pg_depend AS d \
              ON (d.classid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid AND d.objid OPERATOR(pg_catalog.=) g.attrelid \
                      AND d.objsubid OPERATOR(pg_catalog.=) g.attnum \
                  OR d.classid OPERATOR(pg_catalog.=) 2604::pg_catalog.oid AND d.objid OPERATOR(pg_catalog.=) e.oid) \
              AND d.refclassid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid AND d.refobjid OPERATOR(pg_catalog.=) g.attrelid \
          JOIN pg_catalog.pg_attribute AS s ON s.attrelid OPERATOR(pg_catalog.=) g.attrelid AND s.attnum OPERATOR(pg_catalog.=) d.refobjsubid \
              AND s.attnum OPERATOR(pg_catalog.<>) g.attnum \
      WHERE g.attrelid OPERATOR(pg_catalog.=) $1 AND g.attname OPERATOR(pg_catalog.=) $2 AND g.attgenerated OPERATOR(pg_catalog.<>) '' \
          AND NOT g.attisdropped",
    &[OID, TEXT],
);

/// The names of the columns that decide the values of a column of the table: itself, and those from which it is generated there or in a parent or child.
pub fn decisive(relation: u32, by: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    fallible::push(&mut names, fallible::copied(by)?)?;
    for table in family(relation)? {
        for name in SOURCES.rows(&[Value::Oid(table), Value::Text(by)], |row| {
            Ok(row.text(0)?.unwrap_or_default())
        })? {
            fallible::push(&mut names, name)?;
        }
    }
    Ok(names)
}

/// The numbers of the table and of its parents and children.
pub fn family(relation: u32) -> Result<Vec<u32>> {
    FAMILY.rows(&[Value::Oid(relation)], |row| Ok(row.oid(0)?.unwrap_or(0)))
}
