//! From what is asked for to a row of `background.task`.

use crate::dispatch::order;
use crate::pg::error::{Failure, Report, Result};
use crate::pg::function::call::Answer;
use crate::pg::function::rows::{BOOL, CHAR, INT4, INT8, OID, TEXT, TIMESTAMPTZ, Value};
use crate::pg::guc::own;
use crate::pg::moment;
use crate::pg::plan::Plan;
use crate::pg::process::{backend, identity};
use crate::pg::table;
use crate::pg::transaction;
use crate::pg::value::desc::{INT8_ARRAY, INTERVAL, JSONB, TEXT_ARRAY};
use crate::pg::value::role;
use crate::tasks::keys::{self, Found};
use crate::tasks::options::{self, Asked, OnConflict, Options};
use crate::tasks::parents::{self, Parents};
use crate::tasks::tables::{Phase, Tables};
use crate::tasks::{end, join, pushed, queue, stamp};
use pgrx::PgSqlErrorCode;

/// The types of the columns that both statements write, in order.
const COLUMNS: [u32; 25] = [
    INT8,
    TEXT,
    OID,
    INT4,
    CHAR,
    CHAR,
    INT8,
    INT4,
    TIMESTAMPTZ,
    TIMESTAMPTZ,
    TIMESTAMPTZ,
    INTERVAL,
    INTERVAL,
    TEXT,
    TEXT,
    TEXT_ARRAY,
    TEXT_ARRAY,
    TEXT,
    JSONB,
    TEXT,
    BOOL,
    TEXT,
    TEXT,
    INT8_ARRAY,
    CHAR,
];

const COLUMNS_AND_TURN: [u32; 26] = {
    let mut types = [INT4; 26];
    let mut n = 0;
    while n < COLUMNS.len() {
        types[n] = COLUMNS[n];
        n += 1;
    }
    types
};

static INSERT_TURN: Plan = Plan::fixed(
    c"INSERT INTO background.task (id, queue, owner, priority, phase, mode, home, max_attempts, enqueued_at, run_at, expires_at, retry_delay, \
          timeout, label, sql, param_types, param_values, search_path, settings, database, keep_result, key, concurrency_key, after, \
          on_parent_failure, turn) \
      VALUES ($1, $2, background.role_of($3), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, \
          $24, $25, $26) \
      ON CONFLICT (key, owner, turn) WHERE key IS NOT NULL DO NOTHING",
    &COLUMNS_AND_TURN,
);

/// The id, the key, the role, `home` and the time of the enqueue stay.
static REPLACE: Plan = Plan::planned(
    c"UPDATE background.task SET queue = $2, priority = $4, phase = $5, mode = $6, max_attempts = $8, run_at = $10, expires_at = $11, \
          retry_delay = $12, timeout = $13, label = $14, sql = $15, param_types = $16, param_values = $17, search_path = $18, settings = $19, \
          database = $20, keep_result = $21, concurrency_key = $23, after = $24, on_parent_failure = $25 \
      WHERE id OPERATOR(pg_catalog.=) $1 AND owner OPERATOR(background.=) background.role_of($3) \
          AND key OPERATOR(pg_catalog.=) $22 AND $7 IS NOT NULL AND $9 IS NOT NULL",
    &COLUMNS,
);

/// Whether the task is in the queue.
static IS_IN: Plan = Plan::planned(
    c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 AND queue OPERATOR(pg_catalog.=) $2",
    &[INT8, TEXT],
);

static FORGET_PARENTS: Plan = Plan::planned(
    c"DELETE FROM background.dependency WHERE child OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static SETTINGS_ARE_WRONG: Plan = Plan::fixed(
    c"SELECT CASE WHEN pg_catalog.jsonb_typeof($1) OPERATOR(pg_catalog.<>) 'object' THEN true \
      ELSE EXISTS (SELECT FROM pg_catalog.jsonb_each($1) AS _ (name, value) WHERE name OPERATOR(pg_catalog.=) '' \
          OR pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) ANY ('{object,array,\"null\"}'::pg_catalog.text[])) END",
    &[JSONB],
);

/// Enqueues a task of the current role. Returns its id.
///
/// Errors: 25000 in a parallel worker, 42501 in a security-restricted operation, 25006 if nothing may be written; those of [`check`],
/// [`queue::enter`] and [`parents::look`]; 23505 if `on_conflict` asks for it.
pub fn enqueue(asked: Asked, after: Value) -> Result<i64> {
    order::check_caller("enqueue a task", "task")?;
    transaction::check_writable(c"background.enqueue()")?;
    let role = identity::acting().2;
    let options = check(asked, role)?;
    // From here on nothing of users runs.
    let tables = join::tables()?;
    check_settings(options.asked.settings)?;
    let id = Order {
        tables: &tables,
        options: &options,
        after,
        role,
    }
    .place()?;
    moment::may_fail("enqueued")?;
    Ok(id)
}

/// Checks what is asked for a task of the role, which is current. 0A000 for a role that may not log in before version 17; those of
/// [`Options::check`].
pub fn check(asked: Asked<'_>, role: u32) -> Result<Options<'_>> {
    check_role(role)?;
    Options::check(asked, role)
}

/// A role without LOGIN cannot connect before version 17.
pub fn check_role(number: u32) -> Result<()> {
    if !cfg!(since_17) && role::may_log_in(number)? == Some(false) {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "a role that is not permitted to log in cannot have tasks",
        )
        .hint("PostgreSQL 17 and later can run them.")
        .into());
    }
    Ok(())
}

/// 22023 unless the settings are an object of names and values.
pub fn check_settings(settings: Option<Answer>) -> Result<()> {
    let Some(settings) = settings else {
        return Ok(());
    };
    let wrong = SETTINGS_ARE_WRONG.first(&[Value::Other(JSONB, settings)], |row| row.bool(0))?;
    if wrong.flatten() == Some(true) {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "settings must be a JSON object of names and scalar values",
        )
        .hint("For example {\"app.tenant\": \"7\"}.")
        .into());
    }
    Ok(())
}

/// An enqueue that has been checked.
struct Order<'a> {
    tables: &'a Tables,
    options: &'a Options<'a>,
    /// The array of ids as it came.
    after: Value<'a>,
    role: u32,
}

impl Order<'_> {
    fn place(&self) -> Result<i64> {
        let Some(key) = self.options.asked.key else {
            queue::enter(self.tables, self.options.asked.queue, self.role)?;
            return self.insert(None)?.ok_or_else(lost);
        };
        // One that is kept takes no place in the queue, but the queue is there.
        queue::check(self.tables, self.options.asked.queue, self.role)?;
        let replaces = self.options.on_conflict == OnConflict::Replace;
        loop {
            match keys::find(self.tables, key, self.role, replaces)? {
                Found::Turn(turn) => {
                    queue::enter(self.tables, self.options.asked.queue, self.role)?;
                    if let Some(id) = self.insert(Some(turn))? {
                        return Ok(id);
                    }
                }
                Found::Task(id) => match self.options.on_conflict {
                    OnConflict::Keep => return Ok(id),
                    OnConflict::Error => return Err(keys::conflict(key, id)),
                    OnConflict::Replace => {
                        // It has a place in the queue that it is in.
                        let values = [Value::Int8(id), Value::Text(self.options.asked.queue)];
                        if IS_IN.first(&values, |_| Ok(()))?.is_none() {
                            queue::enter(self.tables, self.options.asked.queue, self.role)?;
                        }
                        return self.replace(id).map(|()| id);
                    }
                },
            }
        }
    }

    fn parents(&self, id: i64) -> Result<Parents> {
        parents::look(
            self.tables,
            &self.options.asked.after,
            id,
            self.options.on_parent_failure,
        )
    }

    fn phase(&self, parents: &Parents, now: i64) -> Phase {
        if !parents.unfinished.is_empty() {
            Phase::Blocked
        } else if self.options.asked.run_at.is_some_and(|at| at > now) {
            Phase::Deferred
        } else {
            Phase::Waiting
        }
    }

    /// None if another task has the turn.
    fn insert(&self, turn: Option<i32>) -> Result<Option<i64>> {
        let home = stamp::home(self.tables)?;
        let id = table::next_number(self.tables.task_id)?;
        let parents = self.parents(id)?;
        let now = backend::now();
        let phase = self.phase(&parents, now);
        match turn {
            None => self.insert_plain(id, phase, home, now)?,
            Some(turn) if self.write(&INSERT_TURN, id, phase, home, now, Some(turn))? == 0 => return Ok(None),
            Some(_) => (),
        }
        self.follow(id, &parents, phase)?;
        Ok(Some(id))
    }

    fn replace(&self, id: i64) -> Result<()> {
        let parents = self.parents(id)?;
        let now = backend::now();
        let phase = self.phase(&parents, now);
        if self.write(&REPLACE, id, phase, 0, now, None)? == 0 {
            return Err(lost());
        }
        FORGET_PARENTS.execute(&[Value::Int8(id)])?;
        // It may have held back others in the place that it had.
        pushed::sweep()?;
        self.follow(id, &parents, phase)
    }

    fn follow(&self, id: i64, parents: &Parents, phase: Phase) -> Result<()> {
        parents::add(id, &parents.unfinished)?;
        if parents.cancels {
            end::without_run(id, b"canceled")?;
            return Ok(());
        }
        let asked = &self.options.asked;
        let task = pushed::Task {
            id,
            role: self.role,
            queue: asked.queue,
            priority: asked.priority,
            concurrency_key: asked.concurrency_key,
            is_operation: false,
            run_at: asked.run_at,
            expires_at: asked.expires_at,
        };
        pushed::push(&task, phase)
    }

    /// The columns from `max_attempts` to `keep_result`.
    fn options<'b>(&'b self, now: i64, path: &'b [u8]) -> [Value<'b>; 14] {
        let asked = &self.options.asked;
        let params = self.options.params;
        [
            asked.max_attempts.map_or(Value::Null, Value::Int4),
            Value::Timestamp(now),
            Value::timestamp_or_null(asked.run_at),
            Value::timestamp_or_null(asked.expires_at),
            options::interval(asked.retry_delay),
            options::interval(asked.timeout),
            Value::text_or_null(asked.label),
            Value::Text(asked.sql),
            params.map_or(Value::Null, |params| Value::Other(TEXT_ARRAY, params.types)),
            params.map_or(Value::Null, |params| Value::Other(TEXT_ARRAY, params.values)),
            Value::Text(path),
            asked
                .settings
                .map_or(Value::Null, |settings| Value::Other(JSONB, settings)),
            Value::text_or_null(self.options.database),
            Value::Bool(asked.keep_result),
        ]
    }

    /// The columns before those of [`Order::options`], but for the number of attempts.
    fn head(&self, id: i64, owner: Value<'static>, phase: Phase, home: i64) -> [Value<'_>; 7] {
        let asked = &self.options.asked;
        [
            Value::Int8(id),
            Value::Text(asked.queue),
            owner,
            Value::Int4(asked.priority),
            Value::Char(phase.letter()),
            Value::Char(self.options.mode.letter()),
            Value::Int8(home),
        ]
    }

    /// All columns of the table, in order. No rights are checked: only the extension's own code and that of built-in types runs.
    fn insert_plain(&self, id: i64, phase: Phase, home: i64, now: i64) -> Result<()> {
        let path = own::value_of(c"search_path")?;
        let owner = Value::Other(0, role::of_number(self.role)?);
        let (attempt, turn) = (Value::Int4(0), Value::Int4(0));
        let values = [
            &self.head(id, owner, phase, home)[..],
            &[attempt],
            &self.options(now, &path),
            &[Value::Null, turn],
            &self.tail(),
            // schedule, operation_id, started_at, sqlstate, error_message, ready_at.
            &[Value::Null; 6],
        ];
        let asked = &self.options.asked;
        let indexes = self
            .tables
            .indexes_of_new(phase, asked.concurrency_key.is_some(), asked.expires_at.is_some());
        table::insert(self.tables.task, &values.concat(), &indexes)
    }

    /// The columns after the key.
    fn tail(&self) -> [Value<'_>; 3] {
        [
            Value::text_or_null(self.options.asked.concurrency_key),
            self.after,
            Value::Char(self.options.on_parent_failure.letter()),
        ]
    }

    fn write(&self, plan: &Plan, id: i64, phase: Phase, home: i64, now: i64, turn: Option<i32>) -> Result<usize> {
        let path = own::value_of(c"search_path")?;
        let turn = turn.map(Value::Int4);
        let values = [
            &self.head(id, Value::Oid(self.role), phase, home)[..],
            &self.options(now, &path),
            &[Value::text_or_null(self.options.asked.key)],
            &self.tail(),
            turn.as_slice(),
        ];
        plan.execute(&values.concat())
    }
}

fn lost() -> Failure {
    Report::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "the row of a task is lost").into()
}
