//! What tells a database from its copies: `background.stamp`.
//!
//! A row has what names this database and its tables, and the number `home` that each row of a task has, too. A restored database, or one that
//! was made of a template, has the rows of the one that it is a copy of: none that names itself. The numbers of a restored database may be the
//! same ones as before; but a restore does not bring `background.original`. pg_upgrade does, and keeps the numbers. Rows of tasks that logical
//! replication wrote have another `home`.

use crate::pg::error::Result;
use crate::pg::function::rows::{INT8, OID, Value};
use crate::pg::plan::Plan;
use crate::pg::process::backend;
use crate::pg::transaction::{self, Event, Watcher};
use crate::tasks::pushed;
use crate::tasks::tables::Tables;
use core::cell::Cell;

/// What the table says of this database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nothing was ever enqueued here.
    New,
    /// It is the one.
    Known(i64),
    /// It is a copy of the one with this `home`.
    Copy(i64),
}

impl Standing {
    /// Whether it is a copy that was not activated.
    pub fn is_copy(self) -> bool {
        matches!(self, Self::Copy(_))
    }

    /// The number that the tasks and schedules of this database have, 0 if there are none.
    pub fn home(self) -> i64 {
        match self {
            Self::New => 0,
            Self::Known(home) | Self::Copy(home) => home,
        }
    }
}

static LOOK: Plan = Plan::planned(
    c"SELECT home, (database OPERATOR(pg_catalog.=) $1 AND relation OPERATOR(pg_catalog.=) $2 \
              AND EXISTS (SELECT FROM background.original AS o WHERE o.database OPERATOR(pg_catalog.=) $1 AND o.relation OPERATOR(pg_catalog.=) $2)) AS here, \
          xmin \
      FROM background.stamp ORDER BY here DESC, stamped_at DESC LIMIT 1",
    &[OID, OID],
);

static STAMP: Plan = Plan::fixed(
    c"INSERT INTO background.stamp (system_identifier, database, relation, home, stamped_at) \
      VALUES ($1, $2, $3, $4, pg_catalog.statement_timestamp())",
    &[INT8, OID, OID, INT8],
);

static IS_ORIGINAL: Plan = Plan::fixed(
    c"INSERT INTO background.original (database, relation) VALUES ($1, $2)",
    &[OID, OID],
);

thread_local! {
    /// The `home` of the tables that begin with this one.
    static HOME: Cell<Option<(u32, i64)>> = const { Cell::new(None) };
}

/// How this database stands.
pub fn standing(tables: &Tables) -> Result<Standing> {
    Ok(look(tables)?.map_or(Standing::New, |(standing, _)| standing))
}

fn look(tables: &Tables) -> Result<Option<(Standing, bool)>> {
    let database = backend::my_database().to_u32();
    LOOK.first(&[Value::Oid(database), Value::Oid(tables.task)], |row| {
        let home = row.int8(0)?.unwrap_or(0);
        let standing = match row.bool(1)? {
            Some(true) => Standing::Known(home),
            _ => Standing::Copy(home),
        };
        Ok((standing, transaction::is_own(row.oid(2)?.unwrap_or(0))))
    })
}

/// The number that tasks enqueued here have. The first session that asks stamps the database.
///
/// Two first sessions at once do not see each other's row; both write the same.
pub fn home(tables: &Tables) -> Result<i64> {
    if let Some((task, home)) = HOME.get()
        && task == tables.task
    {
        return Ok(home);
    }
    match look(tables)? {
        Some((Standing::Known(home) | Standing::Copy(home), is_own)) => {
            if is_own {
                WATCHER.turn_on()?;
            }
            HOME.set(Some((tables.task, home)));
            Ok(home)
        }
        _ => {
            let home = new_home(tables);
            stamp(tables, home)?;
            WATCHER.turn_on()?;
            HOME.set(Some((tables.task, home)));
            Ok(home)
        }
    }
}

/// What this transaction has stamped may be rolled back.
static WATCHER: Watcher = Watcher::new(|event| {
    if matches!(event, Event::Aborted | Event::Prepared | Event::SubAborted(_)) {
        HOME.set(None);
    }
});

fn stamp(tables: &Tables, home: i64) -> Result<()> {
    STAMP.execute(&[
        Value::Int8(transaction::system_identifier()),
        Value::Oid(backend::my_database().to_u32()),
        Value::Oid(tables.task),
        Value::Int8(home),
    ])?;
    IS_ORIGINAL.execute(&[Value::Oid(backend::my_database().to_u32()), Value::Oid(tables.task)])?;
    Ok(())
}

/// The same for all sessions of this database, and another one for each database (the finalizer of MurmurHash3).
fn new_home(tables: &Tables) -> i64 {
    let mut hash = transaction::system_identifier() as u64;
    for part in [backend::my_database().to_u32(), tables.task] {
        hash = (hash ^ u64::from(part)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^= hash >> 33;
    }
    hash as i64
}

/// Makes this database the one whose tasks run.
pub fn activate(tables: &Tables) -> Result<()> {
    match standing(tables)? {
        Standing::Known(_) => Ok(()),
        Standing::Copy(home) => stamp(tables, home),
        Standing::New => stamp(tables, new_home(tables)),
    }?;
    pushed::activate()
}
