//! The look at the tables of one database: what is due becomes ready, and who has tasks that can run is told. It is a job of the tables' owner.
//!
//! The tables are the truth. What is in shared memory is right as of the last look that began after the last request for one.

use crate::pg::error::{Failure, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{INT8, TIMESTAMPTZ, Value};
use crate::pg::plan::Plan;
use crate::pg::process::backend;
use crate::pg::table::{self, Key, Sees};
use crate::pg::transaction;
use crate::pg::value::desc::INT8_ARRAY;
use crate::pg::value::kept;
use crate::settings::{self, Tasks};
use crate::tasks::end;
use crate::tasks::history::{self, Failed};
use crate::tasks::shared::{self, Ready, Run};
use crate::tasks::stamp::{self, Standing};
use crate::tasks::tables::{self, Tables, task};

/// How soon somebody looks again where another session may commit what was prepared, in microseconds.
const PREPARED: i64 = 1_000_000;

static LOST: Plan = Plan::planned(
    c"SELECT COALESCE(t.max_attempts, CASE WHEN t.mode OPERATOR(pg_catalog.=) 's' THEN 1 ELSE COALESCE(q.max_attempts, 5) END), \
          LEAST(pg_catalog.date_part('epoch', COALESCE(t.retry_delay, q.retry_delay, '5 s')) OPERATOR(pg_catalog.*) 1000, 3600000)::pg_catalog.int8 \
      FROM background.task AS t LEFT JOIN background.queue AS q ON q.name OPERATOR(pg_catalog.=) t.queue \
      WHERE t.id OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

/// Tasks that end without a run: which they are, how one of them is locked and noted where it still is one, and their state.
struct Endings {
    find: Plan,
    lock: Plan,
    state: &'static [u8],
}

static EXPIRED: Endings = Endings {
    find: Plan::planned(
        c"SELECT id FROM background.task WHERE expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()",
        &[],
    ),
    lock: Plan::planned(
        c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 AND expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() FOR UPDATE",
        &[INT8],
    ),
    state: b"expired",
};

/// Of roles that do not exist.
static NOBODYS: Endings = Endings {
    find: Plan::planned(
        c"SELECT id FROM background.task WHERE background.role_oid(owner) IS NULL",
        &[],
    ),
    lock: Plan::planned(
        c"UPDATE background.task SET sqlstate = '42704', \
              error_message = 'role \"' OPERATOR(pg_catalog.||) background.role_name(owner) OPERATOR(pg_catalog.||) '\" does not exist' \
          WHERE id OPERATOR(pg_catalog.=) $1 AND background.role_oid(owner) IS NULL",
        &[INT8],
    ),
    state: b"failed",
};

/// Whose last attempt is noted, but not how it ended: the server has ended with it.
static CUT_SHORT: Endings = Endings {
    find: Plan::planned(
        c"SELECT id FROM background.task WHERE mode OPERATOR(pg_catalog.=) 's' AND phase OPERATOR(pg_catalog.=) 'w' \
              AND attempt OPERATOR(pg_catalog.>=) COALESCE(max_attempts, 1)",
        &[],
    ),
    lock: Plan::planned(
        c"UPDATE background.task SET sqlstate = '08006', error_message = 'the server stopped before the task ended' \
          WHERE id OPERATOR(pg_catalog.=) $1 AND mode OPERATOR(pg_catalog.=) 's' AND phase OPERATOR(pg_catalog.=) 'w' \
              AND attempt OPERATOR(pg_catalog.>=) COALESCE(max_attempts, 1)",
        &[INT8],
    ),
    state: b"failed",
};

static PARENTS: Plan = Plan::planned(
    c"SELECT DISTINCT parent FROM background.dependency \
      WHERE NOT EXISTS (SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) parent)",
    &[],
);

static CHILDREN: Plan = Plan::planned(
    c"SELECT child, on_parent_failure OPERATOR(pg_catalog.=) 'c' FROM background.dependency \
      JOIN background.task ON id OPERATOR(pg_catalog.=) child WHERE parent OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static FORGET_PARENT: Plan = Plan::planned(
    c"DELETE FROM background.dependency WHERE parent OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static HAS_BLOCKED: Plan = Plan::planned(c"SELECT EXISTS (SELECT FROM background.dependency)", &[]);

static DUE: Plan = Plan::planned(
    c"UPDATE background.task SET phase = 'w' WHERE phase OPERATOR(pg_catalog.=) 'd' AND run_at OPERATOR(pg_catalog.<=) $1",
    &[TIMESTAMPTZ],
);

static READY: Plan = Plan::planned(
    c"SELECT background.role_oid(t.owner), pg_catalog.count(*) \
      FROM background.task AS t LEFT JOIN background.queue AS q ON q.name OPERATOR(pg_catalog.=) t.queue \
      WHERE t.phase OPERATOR(pg_catalog.=) 'w' AND t.home OPERATOR(pg_catalog.=) $1 AND t.id OPERATOR(pg_catalog.<>) ALL ($2) \
          AND t.database IS NULL AND NOT COALESCE(q.paused, false) AND background.role_oid(t.owner) IS NOT NULL \
      GROUP BY 1",
    &[INT8, INT8_ARRAY],
);

static NEXT: Plan = Plan::planned(
    c"SELECT LEAST((SELECT pg_catalog.min(run_at) FROM background.task WHERE phase OPERATOR(pg_catalog.=) 'd'), \
          (SELECT pg_catalog.min(expires_at) FROM background.task WHERE expires_at OPERATOR(pg_catalog.>) $1))",
    &[TIMESTAMPTZ],
);

/// Whether a transaction is prepared that may have enqueued tasks.
static IS_PREPARED: Plan = Plan::planned(
    c"SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database())",
    &[],
);

/// Looks at the tables of this process's database. Outside of a transaction.
pub fn keep() -> Result<()> {
    let database = shared::mine()?;
    let began = database.sweep_begins();
    if transaction::in_recovery() {
        return none(began);
    }
    let known = transaction::own(|| {
        let tables = tables::tables()?;
        // Before anything else is looked at: what is committed from here on is looked at again.
        let is_prepared = IS_PREPARED.first(&[], |row| row.bool(0))?.flatten() == Some(true);
        let standing = stamp::standing(&tables)?;
        Ok((tables, is_prepared, standing))
    });
    let (tables, is_prepared, standing) = match known {
        Ok(known) => known,
        // Without the extension nothing runs here.
        Err(Failure::Report(_)) => {
            none(began)?;
            database.is_gone();
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    let soon = if is_prepared { backend::now() + PREPARED } else { 0 };
    let home = match standing {
        Standing::New => {
            database.swept(began, soon, true, &[]);
            return Ok(());
        }
        Standing::Copy(_) if settings::tasks() == Tasks::Auto => return none(began),
        _ if settings::tasks() == Tasks::Off => return none(began),
        Standing::Known(home) | Standing::Copy(home) => home,
    };
    for run in shared::runs(0, true)? {
        if run.relation == tables.task {
            transaction::own(|| note_lost(&run))?;
        }
        shared::forget_lost(&run);
    }
    let now = backend::now();
    for endings in [&EXPIRED, &NOBODYS, &CUT_SHORT] {
        end(&tables, endings)?;
    }
    unblock(&tables)?;
    transaction::own(|| DUE.execute(&[Value::Timestamp(now)]))?;
    let (ready, next, has_blocked) = transaction::own(|| {
        let running = running(&tables)?;
        let ready = READY.rows(&[Value::Int8(home), running], |row| {
            Ok(Ready {
                role: row.oid(0)?.unwrap_or(0),
                tasks: row.int8(1)?.unwrap_or(0).min(1_000_000) as u32,
            })
        })?;
        let next = NEXT.first(&[Value::Timestamp(now)], |row| row.int8(0))?.flatten();
        let blocked = HAS_BLOCKED.first(&[], |row| row.bool(0))?.flatten();
        Ok((ready, next, blocked.unwrap_or(true)))
    })?;
    let due = match (next.unwrap_or(0), soon) {
        (0, soon) => soon,
        (next, 0) => next,
        (next, soon) => next.min(soon),
    };
    database.swept(began, due, has_blocked, &ready);
    if let Some(at) = history::prune()? {
        database.ask_for_sweep_at(at);
    }
    Ok(())
}

/// Nothing is to run here.
fn none(began: u64) -> Result<()> {
    for run in shared::runs(0, true)? {
        shared::forget_lost(&run);
    }
    shared::mine()?.swept(began, 0, true, &[]);
    Ok(())
}

/// The tasks that run, or whose worker is lost.
fn running(tables: &Tables) -> Result<Value<'static>> {
    let mut ids = Vec::new();
    for lost in [false, true] {
        for run in shared::runs(tables.task, lost)? {
            fallible::push(&mut ids, run.task)?;
        }
    }
    Ok(Value::Other(INT8_ARRAY, kept::int8_array(&ids)?))
}

/// A process is gone with its task. Where that has committed before, there is no row any more, and nothing to note.
fn note_lost(run: &Run) -> Result<()> {
    let Some((Some(most), Some(delay))) =
        LOST.first(&[Value::Int8(run.task)], |row| Ok((row.int4(0)?, row.int8(1)?)))?
    else {
        return Ok(());
    };
    if run.attempt == 0 {
        // It has not begun.
        return Ok(());
    }
    history::note(&Failed {
        id: run.task,
        attempt: run.attempt,
        pid: run.process.pid(),
        started_at: run.started_at,
        state: b"interrupted",
        end: (run.attempt >= most).then_some(b"failed"),
        run_at: history::next_attempt_at(delay, run.attempt),
        sqlstate: b"08006",
        message: b"the process that ran the task ended before the task did",
        detail: None,
        hint: None,
        context: None,
    })
}

/// Ends what does not run any more. The row is locked before the claims are looked at: who claims the task later waits for the lock before a
/// statement of its own, or finds the row gone when it makes its mark.
fn end(tables: &Tables, endings: &Endings) -> Result<()> {
    let ids = transaction::own(|| endings.find.rows(&[], |row| row.int8(0)))?;
    for id in ids.into_iter().flatten() {
        transaction::own(|| {
            let is_claimed = || -> Result<bool> {
                let (held, lost) = (shared::runs(tables.task, false)?, shared::runs(tables.task, true)?);
                Ok(held.iter().chain(&lost).any(|run| run.task == id))
            };
            if !is_claimed()? && endings.lock.execute(&[Value::Int8(id)])? > 0 && !is_claimed()? {
                end::without_run(id, endings.state)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Tasks whose parents have ended. The row of a parent that has not committed is not seen, so it is looked for.
fn unblock(tables: &Tables) -> Result<()> {
    let parents = transaction::own(|| PARENTS.rows(&[], |row| row.int8(0)))?;
    for parent in parents.into_iter().flatten() {
        transaction::own(|| {
            let is_there = table::find(
                tables.task,
                tables.task_pkey,
                task::ID,
                Key::Int8(parent),
                Sees::Uncommitted,
                |_| Ok(Some(())),
            )?;
            if is_there.is_some() {
                return Ok(());
            }
            let is_done = end::find(tables, parent)?.is_none_or(|ended| ended.is_done);
            let children = CHILDREN.rows(&[Value::Int8(parent)], |row| {
                Ok((row.int8(0)?.unwrap_or(0), row.bool(1)?.unwrap_or(false)))
            })?;
            FORGET_PARENT.execute(&[Value::Int8(parent)])?;
            for (child, is_canceled) in children {
                if is_canceled && !is_done {
                    end::without_run(child, b"canceled")?;
                } else {
                    end::unblock(child)?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
