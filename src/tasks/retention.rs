//! How long it is kept what is noted of tasks that have ended.
//!
//! What is done goes to one of three tables, the one that is filled; `background.rotation` has its number. Views do not show what a queue does not keep
//! any more ([`background.history`](../../sql)), and housekeeping, which the keeper does, removes it:
//!
//! * a table of which nothing is to be kept, or so little that it can move to a newer table, is emptied by TRUNCATE;
//! * the one that is filled changes when it has half of what a queue keeps, in time or in number. Then two full tables have all that is kept, and
//!   the third one is empty. If it is not, since another queue keeps more, what is to be kept moves, too. A move is paid by the rows
//!   that it gets rid of: it waits until they are enough;
//! * what would stay long after its time beside rows of other queues is deleted, some rows at a time; and so is what is not done, which is rare.
//!
//! **Nothing is lost by a TRUNCATE.** It takes the lock that excludes all others, and only if it gets it at once: a session that waited for the lock
//! would make all wait that come after. A run holds its lock on the table from its insertion to the end of its transaction. So when the table
//! is locked, each row in it is committed or dead. Only then housekeeping looks for what is to be kept, with a snapshot of that moment. A
//! run that comes later waits for the TRUNCATE to commit, and inserts into the empty table.
//!
//! **A run may take another table for the one that is filled.** It reads the number from shared memory, which is set just before the commit of the
//! change: a run that reads it at once waits for the lock. If the change is rolled back, or the keeper ends in between, rows lie among older ones.
//! That costs order and nothing else: for each row by itself it is decided whether it is kept.

use crate::pg::error::{self, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{INT4, INT8, TIMESTAMPTZ, Value};
use crate::pg::plan::{self, Plan};
use crate::pg::process::backend;
use crate::pg::value::desc::{INT8_ARRAY, TEXT_ARRAY};
use crate::pg::value::kept;
use crate::pg::{table, transaction};
use crate::tasks::tables::{self, Tables};
use crate::tasks::totals::{self, Database, NEVER, PAUSE};
use core::sync::atomic::Ordering::Relaxed;

/// How much longer than a look at the tables has taken the next one is away, at least.
const SHARE: i64 = 50;

/// The longest such break, in microseconds.
const LONGEST_BREAK: i64 = 5_000_000;

/// How many rows a statement deletes at most, and how many statements do so at a time.
const BATCH: i64 = 10_000;
const BATCHES: usize = 10;

/// How soon the next batches follow, in microseconds.
const NEXT_BATCHES: i64 = 1_000_000;

/// The same after a session had a lock on a table that is to be emptied.
const AGAIN: i64 = 5_000_000;

/// So many rows move also if that gets rid of less.
const FEW: i64 = 1000;

/// After so many tasks at least housekeeping looks again at a queue that keeps a certain number.
const LEAST_ROOM: i64 = 100;

/// Housekeeping is under way.
const UNDER_WAY: i64 = -1;

static FILLED: Plan = Plan::fixed(c"SELECT number FROM background.rotation LIMIT 1", &[]);

/// The table that the runs which are done go to.
pub fn current(tables: &Tables) -> Result<u32> {
    let database = totals::database(tables.task)?;
    let known = database.filled.load(Relaxed);
    let number = if known == 0 {
        let number = filled()?;
        // Where the keeper has set it meanwhile, that is the right one.
        let _ = database.filled.compare_exchange(0, number as u32 + 1, Relaxed, Relaxed);
        number
    } else {
        known as usize - 1
    };
    Ok(tables.runs[1 + number % 3].0)
}

/// The number of the table.
fn filled() -> Result<usize> {
    let number = FILLED.first(&[], |row| row.int4(0))?.flatten().unwrap_or(0);
    Ok(number.rem_euclid(3) as usize)
}

/// Lengths of time in microseconds, and the number of tasks, that a queue keeps.
#[derive(Clone, Copy)]
struct Limits {
    done: i64,
    failed: i64,
    most: Option<i64>,
}

/// Of a queue without a row, as the table's defaults are.
const DEFAULTS: Limits = Limits {
    done: 86_400_000_000,
    failed: 30 * 86_400_000_000,
    most: Some(1_000_000),
};

static LIMITS: Plan = Plan::planned(
    c"SELECT name, LEAST(pg_catalog.date_part('epoch', keep_done), 1e11)::pg_catalog.int8, \
          LEAST(pg_catalog.date_part('epoch', keep_failed), 1e11)::pg_catalog.int8, keep_done_max FROM background.queue",
    &[],
);

/// What housekeeping has found of a queue in a table of what is done.
struct Found {
    table: usize,
    queue: Vec<u8>,
    limits: Limits,
    rows: i64,
    /// Those that are kept as far as their age goes, and those that should be gone for long.
    live: i64,
    overdue: i64,
    newest: i64,
    /// Those that are kept.
    kept: i64,
}

/// What is older by half than it may be, and does not go with its table, is deleted.
static FOUND: Plan = Plan::planned(
    c"SELECT r.number, r.queue, pg_catalog.count(*), \
          pg_catalog.count(*) FILTER (WHERE ($1 OPERATOR(pg_catalog.-) r.finished_at) OPERATOR(pg_catalog.<) COALESCE(q.keep_done, '1 day')), \
          pg_catalog.count(*) FILTER (WHERE (($1 OPERATOR(pg_catalog.-) r.finished_at) OPERATOR(pg_catalog./) 1.5::pg_catalog.float8) \
              OPERATOR(pg_catalog.>=) COALESCE(q.keep_done, '1 day')), \
          pg_catalog.max(r.finished_at) \
      FROM (SELECT 0 AS number, queue, finished_at FROM background.run_0 \
          UNION ALL SELECT 1, queue, finished_at FROM background.run_1 \
          UNION ALL SELECT 2, queue, finished_at FROM background.run_2) AS r \
          LEFT JOIN background.queue AS q ON q.name OPERATOR(pg_catalog.=) r.queue \
      GROUP BY r.number, r.queue",
    &[TIMESTAMPTZ],
);

/// The statements for a table of what is done, and the two others: what is to be kept goes to one of these, at most so many rows of a queue; what
/// should be gone for long goes.
macro_rules! of_table {
    ($number:literal, $first:literal, $second:literal) => {
        OfTable {
            moves: [of_table!(move $number, $first), of_table!(move $number, $second)],
            empty: Plan::fixed(plan::text(concat!("TRUNCATE background.run_", $number, "\0")), &[]),
            delete: Plan::planned(
                plan::text(concat!(
                    "DELETE FROM background.run_", $number, " WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(\
                        SELECT r.ctid FROM background.run_", $number, " AS r \
                            LEFT JOIN background.queue AS q ON q.name OPERATOR(pg_catalog.=) r.queue \
                        WHERE (($1 OPERATOR(pg_catalog.-) r.finished_at) OPERATOR(pg_catalog./) 1.5::pg_catalog.float8) \
                            OPERATOR(pg_catalog.>=) COALESCE(q.keep_done, '1 day') LIMIT $2))\0"
                )),
                &[TIMESTAMPTZ, INT8],
            ),
        }
    };
    (move $from:literal, $to:literal) => {
        Plan::planned(
            plan::text(concat!(
                "INSERT INTO background.run_", $to, " SELECT (r).* FROM (\
                    SELECT r, pg_catalog.row_number() OVER (PARTITION BY r.queue ORDER BY r.finished_at DESC, r.task_id DESC) AS place, l.room \
                    FROM background.run_", $from, " AS r \
                        LEFT JOIN background.queue AS q ON q.name OPERATOR(pg_catalog.=) r.queue \
                        LEFT JOIN ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS l (queue, room) \
                            ON (l.queue COLLATE pg_catalog.\"C\") OPERATOR(pg_catalog.=) r.queue \
                    WHERE ($1 OPERATOR(pg_catalog.-) r.finished_at) OPERATOR(pg_catalog.<) COALESCE(q.keep_done, '1 day')) AS _ \
                WHERE room IS NULL OR place OPERATOR(pg_catalog.<=) room\0"
            )),
            &[TIMESTAMPTZ, TEXT_ARRAY, INT8_ARRAY],
        )
    };
}

/// The two others are the next ones in turn.
struct OfTable {
    moves: [Plan; 2],
    empty: Plan,
    delete: Plan,
}

static TABLES: [OfTable; 3] = [
    of_table!("0", "1", "2"),
    of_table!("1", "2", "0"),
    of_table!("2", "0", "1"),
];

static SINCE: Plan = Plan::fixed(c"SELECT since FROM background.rotation LIMIT 1", &[]);

static TURN: Plan = Plan::fixed(
    c"UPDATE background.rotation SET number = $1, since = $2",
    &[INT4, TIMESTAMPTZ],
);

static BEGIN: Plan = Plan::fixed(
    c"INSERT INTO background.rotation (number, since) VALUES ($1, $2)",
    &[INT4, TIMESTAMPTZ],
);

/// A parent whose end its children have not seen stays; and each row some minutes, for sessions that wait for the task.
static PRUNE_FAILED: Plan = Plan::planned(
    c"DELETE FROM background.run_failed WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(\
          SELECT r.ctid FROM background.run_failed AS r LEFT JOIN background.queue AS q ON q.name OPERATOR(pg_catalog.=) r.queue \
          WHERE r.finished_at OPERATOR(pg_catalog.<=) $2 \
              AND ($1 OPERATOR(pg_catalog.-) r.finished_at) OPERATOR(pg_catalog.>=) COALESCE(q.keep_failed, '30 days') \
              AND NOT EXISTS (SELECT FROM background.dependency WHERE parent OPERATOR(pg_catalog.=) r.task_id) \
          LIMIT $3 FOR UPDATE OF r SKIP LOCKED))",
    &[TIMESTAMPTZ, TIMESTAMPTZ, INT8],
);

static FIRST_FAILED: Plan = Plan::planned(c"SELECT pg_catalog.min(finished_at) FROM background.run_failed", &[]);

/// Does what is due. Returns when it is to be called next, None for never. Outside of a transaction. An error is logged: the tasks are more
/// important than what is left of others.
pub fn prune() -> Result<Option<i64>> {
    let database = totals::database(tables::last()?.task)?;
    let now = backend::now();
    let due = database.due.load(Relaxed);
    // After an error or the end of a keeper it is under way no more.
    let at = if due == UNDER_WAY {
        0
    } else {
        due.max(database.not_before.load(Relaxed))
    };
    if due == NEVER || at > now {
        return Ok((due != NEVER).then_some(at));
    }
    database.due.store(UNDER_WAY, Relaxed);
    let next = match keep_house(database, now) {
        Ok(next) => next,
        Err(failure) => {
            error::log_caught(error::into_data(failure));
            Some(now + PAUSE)
        }
    };
    let asked = database
        .due
        .compare_exchange(UNDER_WAY, next.unwrap_or(NEVER), Relaxed, Relaxed);
    // Another process has asked for it meanwhile.
    if asked.is_err() {
        return Ok(Some(database.not_before.load(Relaxed).max(now)));
    }
    Ok(next)
}

fn keep_house(database: &Database, now: i64) -> Result<Option<i64>> {
    let tables = tables::last()?;
    let limits = transaction::own(limits)?;
    let failed = prune_failed(&limits, now)?;
    let done = prune_done(&tables, database, &limits, now)?;
    let took = backend::now() - now;
    database
        .not_before
        .store(backend::now() + (took * SHARE).min(LONGEST_BREAK), Relaxed);
    Ok(match (failed, done) {
        (Some(failed), Some(done)) => Some(failed.min(done)),
        (next, other) => next.or(other),
    })
}

fn limits() -> Result<Vec<(Vec<u8>, Limits)>> {
    LIMITS.rows(&[], |row| {
        let limits = Limits {
            done: row.int8(1)?.unwrap_or(0) * 1_000_000,
            failed: row.int8(2)?.unwrap_or(0) * 1_000_000,
            most: row.int8(3)?,
        };
        Ok((row.text(0)?.unwrap_or_default(), limits))
    })
}

fn prune_failed(limits: &[(Vec<u8>, Limits)], now: i64) -> Result<Option<i64>> {
    let all = limits.iter().map(|(_, limits)| limits.failed);
    let least = all.fold(DEFAULTS.failed, i64::min).max(PAUSE);
    for n in 0.. {
        if n == BATCHES {
            return Ok(Some(now + NEXT_BATCHES));
        }
        let values = [Value::Timestamp(now), Value::Timestamp(now - least), Value::Int8(BATCH)];
        if transaction::own(|| PRUNE_FAILED.execute(&values))? < BATCH as usize {
            break;
        }
    }
    let first = transaction::own(|| FIRST_FAILED.first(&[], |row| row.int8(0)))?.flatten();
    Ok(first.map(|first| (first + least).max(now + PAUSE)))
}

/// The tables of what is done, as they were found.
struct House<'a> {
    tables: &'a Tables,
    now: i64,
    found: Vec<Found>,
    filled: usize,
    /// How many tasks of the queues were done before this was found.
    done: Vec<(&'a [u8], i64)>,
}

fn prune_done(tables: &Tables, database: &Database, limits: &[(Vec<u8>, Limits)], now: i64) -> Result<Option<i64>> {
    // Before the rows are counted: what is done from here on may not be among them.
    let mut done = Vec::new();
    for (name, _) in limits {
        fallible::push(&mut done, (name.as_slice(), totals::of(tables.task, name)?.0))?;
    }
    let (filled, since, found) = transaction::own(|| {
        let found = FOUND.rows(&[Value::Timestamp(now)], |row| {
            let queue = row.text(1)?.unwrap_or_default();
            let limits = limits.iter().find(|(name, _)| *name == queue);
            Ok(Found {
                table: row.int4(0)?.unwrap_or(0) as usize,
                limits: limits.map_or(DEFAULTS, |(_, limits)| *limits),
                queue,
                rows: row.int8(2)?.unwrap_or(0),
                live: row.int8(3)?.unwrap_or(0),
                overdue: row.int8(4)?.unwrap_or(0),
                newest: row.int8(5)?.unwrap_or(0),
                kept: 0,
            })
        })?;
        let since = SINCE.first(&[], |row| row.int8(0))?.flatten();
        let filled = filled()?;
        if since.is_none() && !found.is_empty() {
            BEGIN.execute(&[Value::Int4(0), Value::Timestamp(now)])?;
        }
        Ok((filled, since.unwrap_or(now), found))
    })?;
    database.filled.store(filled as u32 + 1, Relaxed);
    if found.is_empty() {
        return Ok(None);
    }
    let mut queues = Vec::new();
    for found in &found {
        if !queues.iter().any(|(name, _): &(Vec<u8>, Limits)| *name == found.queue) {
            fallible::push(&mut queues, (fallible::copied(&found.queue)?, found.limits))?;
        }
    }
    let mut house = House {
        tables,
        now,
        found,
        filled,
        done,
    };
    house.judge();
    let period = house.found.iter().map(|found| found.limits.done / 2).min();
    let period = period.unwrap_or(DEFAULTS.done).max(PAUSE);
    let [next, middle] = house.others();
    let mut is_late = false;
    for table in [next, middle] {
        let (rows, kept) = (house.rows(table), house.kept(table));
        let gains = rows - kept;
        if rows > 0 && (kept <= gains / 2 || kept <= FEW.min(gains * 2)) {
            is_late |= !house.empty(table, None)?;
        }
    }
    if house.rows(filled) > 0 && (house.is_full() || house.kept(filled) == 0 || now - since >= period) {
        let costs = house.kept(next);
        let gains: i64 = (0..3).map(|table| house.rows(table) - house.kept(table)).sum();
        if costs <= FEW.max(gains / 2) {
            if house.empty(next, Some(next))? {
                house.filled = next;
            } else {
                is_late = true;
            }
        }
    }
    let has_turned = house.filled != filled;
    house.delete_overdue()?;
    house.give_room(&queues)?;
    if has_turned {
        // The table that was filled may be emptied now.
        return Ok(Some(now + NEXT_BATCHES));
    }
    if is_late {
        return Ok(Some(now + AGAIN));
    }
    Ok(house.next(since + period).map(|at| at.max(now + PAUSE)))
}

impl House<'_> {
    /// The other two tables, the one that is filled next first; it has the oldest rows.
    fn others(&self) -> [usize; 2] {
        [(self.filled + 1) % 3, (self.filled + 2) % 3]
    }

    /// Finds how many rows are kept: the newest ones of a queue that keeps a certain number.
    fn judge(&mut self) {
        let [next, middle] = self.others();
        for n in 0..self.found.len() {
            let found = &self.found[n];
            let newer = match found.table {
                table if table == next => self.live_in(&found.queue, self.filled) + self.live_in(&found.queue, middle),
                table if table == middle => self.live_in(&found.queue, self.filled),
                _ => 0,
            };
            let room = found.limits.most.map_or(i64::MAX, |most| (most - newer).max(0));
            let kept = found.live.min(room);
            self.found[n].kept = kept;
        }
    }

    fn of_table(&self, table: usize) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(move |found| found.table == table)
    }

    fn live_in(&self, queue: &[u8], table: usize) -> i64 {
        let of_queue = self.of_table(table).filter(|found| found.queue == queue);
        of_queue.map(|found| found.live).sum()
    }

    fn rows(&self, table: usize) -> i64 {
        self.of_table(table).map(|found| found.rows).sum()
    }

    fn kept(&self, table: usize) -> i64 {
        self.of_table(table).map(|found| found.kept).sum()
    }

    /// Whether the table that is filled has half of what a queue keeps.
    fn is_full(&self) -> bool {
        self.of_table(self.filled)
            .any(|found| found.limits.most.is_some_and(|most| found.rows >= (most / 2).max(1)))
    }

    /// Empties the table, after what is to be kept has moved to the one that is filled; `then` is filled from now on. False if another process has
    /// a lock on the table.
    fn empty(&mut self, table: usize, then: Option<usize>) -> Result<bool> {
        let to = (self.filled + 3 - table) % 3 - 1;
        let (names, rooms) = self.rooms(table)?;
        let done = transaction::own(|| {
            if !table::lock_alone(self.tables.runs[1 + table].0)? {
                return Ok(false);
            }
            let (names, rooms) = {
                let names = fallible::collected(names.iter().map(Vec::as_slice))?;
                (kept::text_array(&names)?, kept::int8_array(&rooms)?)
            };
            let plans = &TABLES[table];
            plans.moves[to].execute(&[
                Value::Timestamp(self.now),
                Value::Other(TEXT_ARRAY, names),
                Value::Other(INT8_ARRAY, rooms),
            ])?;
            plans.empty.execute(&[])?;
            if let Some(then) = then {
                TURN.execute(&[Value::Int4(then as i32), Value::Timestamp(backend::now())])?;
                totals::database(self.tables.task)?
                    .filled
                    .store(then as u32 + 1, Relaxed);
            }
            Ok(true)
        })?;
        if done {
            self.found.retain(|found| found.table != table);
        }
        Ok(done)
    }

    /// The queues that keep a certain number, and how many rows of them are kept in the table.
    fn rooms(&self, table: usize) -> Result<(Vec<Vec<u8>>, Vec<i64>)> {
        let (mut names, mut rooms) = (Vec::new(), Vec::new());
        for found in self.of_table(table).filter(|found| found.limits.most.is_some()) {
            fallible::push(&mut names, fallible::copied(&found.queue)?)?;
            fallible::push(&mut rooms, found.kept)?;
        }
        Ok((names, rooms))
    }

    fn delete_overdue(&self) -> Result<()> {
        for (table, plans) in TABLES.iter().enumerate() {
            if self.of_table(table).any(|found| found.overdue > 0) {
                let values = [Value::Timestamp(self.now), Value::Int8(BATCH)];
                transaction::own(|| plans.delete.execute(&values))?;
            }
        }
        Ok(())
    }

    /// Tells after how many tasks of a queue there is something to do.
    fn give_room(&self, queues: &[(Vec<u8>, Limits)]) -> Result<()> {
        for (name, limits) in queues {
            let in_filled = self.of_table(self.filled).filter(|found| found.queue == *name);
            let has: i64 = in_filled.map(|found| found.rows).sum();
            let room = match limits.most {
                Some(most) => (most / 2 - has).max(most / 10).max(LEAST_ROOM),
                None => i64::MAX,
            };
            totals::queue(self.tables.task, name)?.room.store(room, Relaxed);
            let before = self.done.iter().find(|(queue, _)| queue == name);
            let since = before.map_or(Ok(0), |(_, before)| {
                totals::of(self.tables.task, name).map(|(done, _)| done - before)
            })?;
            if since >= room {
                totals::ask_for_housekeeping();
            }
        }
        Ok(())
    }

    /// When there is something to do for the time that has passed: another table is to be filled, nothing of one is to be kept any more, or rows of a
    /// queue that keeps them for a shorter time than others should be gone for long.
    fn next(&self, turns_at: i64) -> Option<i64> {
        let mut next = (self.rows(self.filled) > 0).then_some(turns_at);
        for table in self.others() {
            let newest = self.of_table(table).map(|found| found.newest + found.limits.done).max();
            next = next.into_iter().chain(newest).min();
        }
        let overdue = self.found.iter().map(|found| found.newest + found.limits.done / 2 * 3);
        next.into_iter().chain(overdue.filter(|at| *at > self.now)).min()
    }
}
