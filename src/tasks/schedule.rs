//! Schedules: how sessions make, change and drop them. What they mean for the tasks is checked as an enqueue checks it.
//!
//! The next occurrence is computed here once, when the times of a schedule begin or change, and from then on by the keeper from the one before.
//! A schedule that is replaced by one with the same times goes on as it was, so a program that makes the same schedule at each start neither
//! puts it off nor loses an occurrence.

use crate::dispatch::order;
use crate::pg::catalog::role;
use crate::pg::error::{self, Failure, Report, Result};
use crate::pg::function::call::{Answer, Interval};
use crate::pg::function::rows::{BOOL, CHAR, INT4, INT8, OID, TEXT, TIMESTAMPTZ, Value};
use crate::pg::guc::own;
use crate::pg::plan::{self, Plan};
use crate::pg::process::{backend, identity};
use crate::pg::value::desc::{INTERVAL, JSONB, TEXT_ARRAY};
use crate::pg::value::zone::Zone;
use crate::pg::{memory, table, transaction};
use crate::tasks::due::{CatchUp, Next, Rule, Timing};
use crate::tasks::fire::{self, Overlap, Schedule, schedule_columns};
use crate::tasks::options::{self, NAME_MAX, Options, check_interval, check_length, out_of_range, unknown};
use crate::tasks::tables::Tables;
use crate::tasks::{enqueue, join, pushed, queue, stamp};
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;

/// The arguments of `schedule` and `alter_schedule` after the name. None is the default of the one, and leaves a setting as it is for the other.
#[derive(Clone, Copy, Default)]
pub struct Asked<'a> {
    pub spec: Option<&'a [u8]>,
    pub sql: Option<&'a [u8]>,
    /// A record whose columns are the parameters.
    pub params: Option<Answer>,
    pub time_zone: Option<&'a [u8]>,
    pub overlap: Option<&'a [u8]>,
    pub catch_up: Option<&'a [u8]>,
    pub jitter: Option<Interval>,
    pub queue: Option<&'a [u8]>,
    pub label: Option<&'a [u8]>,
    pub priority: Option<i32>,
    pub concurrency_key: Option<&'a [u8]>,
    pub max_attempts: Option<i32>,
    pub retry_delay: Option<Interval>,
    pub timeout: Option<Interval>,
    pub expires_after: Option<Interval>,
    pub mode: Option<&'a [u8]>,
    pub database: Option<&'a CStr>,
    /// A `jsonb`.
    pub settings: Option<Answer>,
    pub keep_result: Option<bool>,
    /// Infinite ones are none.
    pub starts_at: Option<i64>,
    pub ends_at: Option<i64>,
    pub enabled: Option<bool>,
}

impl<'a> Asked<'a> {
    /// What an enqueue of a task of the schedule would be asked for.
    fn of_task(&self) -> options::Asked<'a> {
        options::Asked {
            sql: self.sql.unwrap_or_default(),
            params: self.params,
            queue: self.queue.unwrap_or(queue::DEFAULT),
            label: self.label,
            priority: self.priority.unwrap_or(0),
            run_at: None,
            expires_at: None,
            key: None,
            on_conflict: b"keep",
            concurrency_key: self.concurrency_key,
            max_attempts: self.max_attempts,
            retry_delay: self.retry_delay,
            timeout: self.timeout,
            after: Vec::new(),
            on_parent_failure: b"cancel",
            mode: self.mode.unwrap_or(b"auto"),
            database: self.database,
            settings: self.settings,
            keep_result: self.keep_result.unwrap_or(false),
        }
    }

    /// Checks what an enqueue knows nothing of.
    fn check(&self) -> Result<(Option<Overlap>, Option<CatchUp>)> {
        check_interval("jitter", self.jitter)?;
        check_interval("expires_after", self.expires_after)?;
        let overlap = self.overlap.map(|word| {
            Overlap::of_word(word).ok_or_else(|| unknown("overlap", word, "\"skip\", \"queue\" and \"allow\""))
        });
        let catch_up = self.catch_up.map(|word| {
            CatchUp::of_word(word).ok_or_else(|| unknown("catch_up", word, "\"none\", \"one\" and \"all\""))
        });
        Ok((overlap.transpose()?, catch_up.transpose()?))
    }

    /// The times that result from this, and the rule that there is.
    fn rule<'b>(&self, rule: &Rule<'b>) -> Result<Rule<'b>>
    where
        'a: 'b,
    {
        let time = |asked: Option<i64>, is: Option<i64>| match asked {
            None => is,
            Some(i64::MIN | i64::MAX) => None,
            at => at,
        };
        let rule = Rule {
            spec: self.spec.unwrap_or(rule.spec),
            time_zone: match self.time_zone {
                Some(name) => Zone::by_name(name)?.name().to_bytes(),
                None => rule.time_zone,
            },
            created_at: rule.created_at,
            starts_at: time(self.starts_at, rule.starts_at),
            ends_at: time(self.ends_at, rule.ends_at),
            jitter: self.jitter.and_then(|jitter| jitter.length()).unwrap_or(rule.jitter),
        };
        match (rule.starts_at, rule.ends_at) {
            (Some(start), Some(end)) if end < start => Err(out_of_range("ends_at must not be before starts_at")),
            _ => Ok(rule),
        }
    }
}

fn letter_of_mode(word: &[u8]) -> u8 {
    word.first().copied().unwrap_or(b'a')
}

fn mode_of_letter(letter: u8) -> &'static [u8] {
    match letter {
        b't' => b"transaction",
        b's' => b"statement",
        _ => b"auto",
    }
}

/// A schedule that is there, locked until the transaction ends.
struct Stored {
    schedule: Schedule,
    sql: Vec<u8>,
    asked_mode: u8,
    database: Option<Vec<u8>>,
    keep_result: bool,
    has_error: bool,
}

static FIND: Plan = Plan::planned(
    plan::text(concat!(
        "SELECT ",
        schedule_columns!(),
        ", sql, asked_mode, database, keep_result, \
              EXISTS (SELECT FROM background.firing AS f WHERE f.schedule OPERATOR(pg_catalog.=) id AND f.error IS NOT NULL) \
          FROM background.schedule WHERE name OPERATOR(pg_catalog.=) $1 FOR UPDATE\0"
    )),
    &[TEXT],
);

fn find(name: &[u8]) -> Result<Option<Stored>> {
    FIND.first(&[Value::Text(name)], |row| {
        Ok(Stored {
            schedule: Schedule::read(row)?,
            sql: row.text(17)?.unwrap_or_default(),
            asked_mode: row.char(18)?.unwrap_or(b'a'),
            database: row.text(19)?,
            keep_result: row.bool(20)?.unwrap_or(false),
            has_error: row.bool(21)?.unwrap_or(false),
        })
    })
}

/// The types of the columns from `id` to `pg_cron_disabled`.
const COLUMNS: [u32; 31] = [
    INT8,
    TEXT,
    OID,
    TIMESTAMPTZ,
    TEXT,
    TEXT,
    TIMESTAMPTZ,
    TIMESTAMPTZ,
    INTERVAL,
    CHAR,
    CHAR,
    BOOL,
    TEXT,
    TEXT,
    INT4,
    TEXT,
    INT4,
    INTERVAL,
    INTERVAL,
    INTERVAL,
    CHAR,
    CHAR,
    TEXT,
    JSONB,
    BOOL,
    TEXT,
    TEXT_ARRAY,
    TEXT_ARRAY,
    TEXT,
    INT8,
    BOOL,
];

static INSERT: Plan = Plan::fixed(
    c"INSERT INTO background.schedule (id, name, owner, created_at, spec, time_zone, starts_at, ends_at, jitter, overlap, catch_up, enabled, \
          queue, label, priority, concurrency_key, max_attempts, retry_delay, timeout, expires_after, asked_mode, mode, database, settings, \
          keep_result, sql, param_types, param_values, search_path, pg_cron_job, pg_cron_disabled) \
      VALUES ($1, $2, background.role_of($3), $4, $5, $6, $7, $8, CASE WHEN $9 OPERATOR(pg_catalog.>) '0' THEN $9 END, $10, $11, $12, \
          $13, CASE WHEN $14 OPERATOR(pg_catalog.<>) '' THEN $14 END, $15, CASE WHEN $16 OPERATOR(pg_catalog.<>) '' THEN $16 END, \
          $17, $18, $19, CASE WHEN $20 OPERATOR(pg_catalog.>) '0' THEN $20 END, $21, $22, $23, $24, \
          $25, $26, $27, $28, $29, $30, $31) \
      ON CONFLICT (name) DO NOTHING",
    &COLUMNS,
);

/// The id, the name, the role and the time of the creation stay.
static REPLACE: Plan = Plan::planned(
    c"UPDATE background.schedule SET spec = $5, time_zone = $6, starts_at = $7, ends_at = $8, \
          jitter = CASE WHEN $9 OPERATOR(pg_catalog.>) '0' THEN $9 END, overlap = $10, catch_up = $11, enabled = $12, \
          queue = $13, label = CASE WHEN $14 OPERATOR(pg_catalog.<>) '' THEN $14 END, priority = $15, \
          concurrency_key = CASE WHEN $16 OPERATOR(pg_catalog.<>) '' THEN $16 END, max_attempts = $17, retry_delay = $18, \
          timeout = $19, expires_after = CASE WHEN $20 OPERATOR(pg_catalog.>) '0' THEN $20 END, asked_mode = $21, mode = $22, database = $23, \
          settings = $24, keep_result = $25, sql = $26, param_types = $27, param_values = $28, search_path = $29, \
          pg_cron_job = $30, pg_cron_disabled = $31 \
      WHERE id OPERATOR(pg_catalog.=) $1 AND name OPERATOR(pg_catalog.=) $2 AND $3 IS NOT NULL AND $4 IS NOT NULL",
    &COLUMNS,
);

/// `$20` and `$25`: whether the database and the parameters change.
static ALTER: Plan = Plan::planned(
    c"UPDATE background.schedule SET spec = COALESCE($2, spec), time_zone = COALESCE($3, time_zone), \
          starts_at = CASE WHEN $4 IS NULL THEN starts_at WHEN pg_catalog.isfinite($4) THEN $4 END, \
          ends_at = CASE WHEN $5 IS NULL THEN ends_at WHEN pg_catalog.isfinite($5) THEN $5 END, \
          jitter = CASE WHEN $6 IS NULL THEN jitter WHEN $6 OPERATOR(pg_catalog.>) '0' THEN $6 END, \
          overlap = COALESCE($7, overlap), catch_up = COALESCE($8, catch_up), enabled = COALESCE($9, enabled), queue = COALESCE($10, queue), \
          label = CASE WHEN $11 IS NULL THEN label WHEN $11 OPERATOR(pg_catalog.<>) '' THEN $11 END, priority = COALESCE($12, priority), \
          concurrency_key = CASE WHEN $13 IS NULL THEN concurrency_key WHEN $13 OPERATOR(pg_catalog.<>) '' THEN $13 END, \
          max_attempts = COALESCE($14, max_attempts), retry_delay = COALESCE($15, retry_delay), timeout = COALESCE($16, timeout), \
          expires_after = CASE WHEN $17 IS NULL THEN expires_after WHEN $17 OPERATOR(pg_catalog.>) '0' THEN $17 END, \
          asked_mode = COALESCE($18, asked_mode), mode = COALESCE($19, mode), \
          database = CASE WHEN $20 THEN $21 ELSE database END, \
          settings = CASE WHEN $22 IS NULL THEN settings WHEN $22 OPERATOR(pg_catalog.<>) '{}' THEN $22 END, \
          keep_result = COALESCE($23, keep_result), sql = COALESCE($24, sql), \
          param_types = CASE WHEN $25 THEN $26 ELSE param_types END, param_values = CASE WHEN $25 THEN $27 ELSE param_values END \
      WHERE id OPERATOR(pg_catalog.=) $1",
    &[
        INT8,
        TEXT,
        TEXT,
        TIMESTAMPTZ,
        TIMESTAMPTZ,
        INTERVAL,
        CHAR,
        CHAR,
        BOOL,
        TEXT,
        TEXT,
        INT4,
        TEXT,
        INT4,
        INTERVAL,
        INTERVAL,
        INTERVAL,
        CHAR,
        CHAR,
        BOOL,
        TEXT,
        JSONB,
        BOOL,
        TEXT,
        BOOL,
        TEXT_ARRAY,
        TEXT_ARRAY,
    ],
);

static IS_EMPTY: Plan = Plan::fixed(c"SELECT $1 OPERATOR(pg_catalog.=) '{}'", &[JSONB]);

static BEGIN: Plan = Plan::fixed(
    c"INSERT INTO background.firing (schedule, home, occurs_at, next_at) VALUES ($1, $2, $3, $4) \
      ON CONFLICT (schedule) DO UPDATE SET home = $2, occurs_at = $3, next_at = $4, error = NULL",
    &[INT8, INT8, TIMESTAMPTZ, TIMESTAMPTZ],
);

static DELETE: Plan = Plan::planned(
    c"DELETE FROM background.schedule WHERE id OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

static DELETE_FIRING: Plan = Plan::planned(
    c"DELETE FROM background.firing WHERE schedule OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

/// Makes a schedule of the current role, or replaces the one of this name that the role has, and returns its id.
///
/// Errors: those of [`check`]; 22023 for a new specification that is never due after now; 42501 for the name of another role's schedule.
pub fn schedule(name: &[u8], asked: &Asked) -> Result<i64> {
    check_caller(c"background.schedule()")?;
    let checked = check(name, asked, identity::acting().2)?;
    checked.store(Some(&own::value_of(c"search_path")?), &Origin::default())
}

/// What a schedule was made of.
#[derive(Clone, Copy, Default)]
pub struct Origin {
    /// The job of pg_cron.
    pub job: Option<i64>,
    /// Whether the import has disabled that job.
    pub is_disabled: bool,
}

/// A schedule that can be made.
pub struct Checked<'a> {
    name: &'a [u8],
    asked: &'a Asked<'a>,
    role: u32,
    overlap: Option<Overlap>,
    catch_up: Option<CatchUp>,
    options: Options<'a>,
    tables: Tables,
    now: i64,
    rule: Rule<'a>,
    timing: Timing,
}

/// Checks what is asked for a schedule whose tasks run as `role`.
///
/// Errors: those of an enqueue ([`enqueue::check`], [`queue::check`]); 22023 for a specification, a time zone, words and times that are wrong;
/// 22001 for a name that is too long.
pub fn check<'a>(name: &'a [u8], asked: &'a Asked<'a>, role: u32) -> Result<Checked<'a>> {
    check_name(name)?;
    let (overlap, catch_up) = asked.check()?;
    let options = enqueue::check(asked.of_task(), role)?;
    // From here on nothing of users runs.
    let tables = join::tables()?;
    enqueue::check_settings(options.asked.settings)?;
    queue::check(&tables, options.asked.queue, role)?;
    let now = backend::now();
    let rule = asked.rule(&Rule {
        spec: b"",
        time_zone: Zone::of_session().name().to_bytes(),
        created_at: now,
        starts_at: None,
        ends_at: None,
        jitter: 0,
    })?;
    Ok(Checked {
        name,
        asked,
        role,
        overlap,
        catch_up,
        options,
        tables,
        now,
        timing: Timing::of(&rule)?,
        rule,
    })
}

impl Checked<'_> {
    /// Makes the schedule, or replaces the one of this name that its role has, and returns its id. Its tasks run under `path`, those without one
    /// under that of a new session. 42501 for the name of another role's schedule, 22023 for a new specification that is never due after now.
    pub fn store(&self, path: Option<&[u8]>, origin: &Origin) -> Result<i64> {
        let Self {
            name,
            asked,
            options,
            rule,
            ..
        } = self;
        let enabled = asked.enabled.unwrap_or(true);
        let params = options.params;
        loop {
            let stored = find(name)?;
            if stored.as_ref().is_some_and(|stored| stored.schedule.role != self.role) {
                return Err(not_permitted(name));
            }
            // What was due is no error of who says the same again.
            if stored
                .as_ref()
                .is_none_or(|stored| stored.schedule.rule().spec != rule.spec)
            {
                self.timing.check_due(rule.spec, self.now)?;
            }
            let id = match &stored {
                Some(stored) => stored.schedule.id,
                None => table::next_number(self.tables.schedule_id)?,
            };
            let values = [
                Value::Int8(id),
                Value::Text(name),
                Value::Oid(self.role),
                Value::Timestamp(self.now),
                Value::Text(rule.spec),
                Value::Text(rule.time_zone),
                Value::timestamp_or_null(rule.starts_at),
                Value::timestamp_or_null(rule.ends_at),
                options::interval(asked.jitter),
                Value::Char(self.overlap.unwrap_or(Overlap::Skip).letter()),
                Value::Char(self.catch_up.unwrap_or(CatchUp::One).letter()),
                Value::Bool(enabled),
                Value::Text(options.asked.queue),
                Value::text_or_null(asked.label),
                Value::Int4(options.asked.priority),
                Value::text_or_null(asked.concurrency_key),
                asked.max_attempts.map_or(Value::Null, Value::Int4),
                options::interval(asked.retry_delay),
                options::interval(asked.timeout),
                options::interval(asked.expires_after),
                Value::Char(letter_of_mode(options.asked.mode)),
                Value::Char(options.mode.letter()),
                Value::text_or_null(options.database),
                asked
                    .settings
                    .map_or(Value::Null, |settings| Value::Other(JSONB, settings)),
                Value::Bool(options.asked.keep_result),
                Value::Text(options.asked.sql),
                params.map_or(Value::Null, |params| Value::Other(TEXT_ARRAY, params.types)),
                params.map_or(Value::Null, |params| Value::Other(TEXT_ARRAY, params.values)),
                Value::text_or_null(path),
                origin.job.map_or(Value::Null, Value::Int8),
                Value::Bool(origin.is_disabled),
            ];
            match stored {
                None if INSERT.execute(&values)? == 0 => continue,
                None => begin(&self.tables, name, id, &self.timing, enabled, self.now)?,
                Some(stored) => {
                    REPLACE.execute(&values)?;
                    let rule = Rule {
                        created_at: stored.schedule.rule().created_at,
                        ..*rule
                    };
                    if stored.begins_anew(&rule, enabled) {
                        begin(&self.tables, name, id, &Timing::of(&rule)?, enabled, self.now)?;
                    }
                }
            }
            return Ok(id);
        }
    }
}

impl Stored {
    /// Whether its next occurrence is another one than before.
    fn begins_anew(&self, rule: &Rule, enabled: bool) -> bool {
        self.has_error || self.schedule.enabled != enabled || self.schedule.rule() != *rule
    }
}

/// The first occurrence from now on is the next one. A schedule that is disabled has none.
fn begin(tables: &Tables, name: &[u8], id: i64, timing: &Timing, enabled: bool, now: i64) -> Result<()> {
    let home = stamp::home(tables)?;
    let next = if enabled { timing.first(now)? } else { None };
    BEGIN.execute(&[
        Value::Int8(id),
        Value::Int8(home),
        Value::timestamp_or_null(next.map(|next| next.occurs_at)),
        Value::timestamp_or_null(next.map(|next| next.fires_at)),
    ])?;
    match next {
        Some(Next { fires_at, .. }) => pushed::schedule_is_due(fires_at),
        None => {
            if enabled {
                error::message(
                    pgrx::pg_sys::NOTICE,
                    PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                    &format!("schedule \"{}\" is never due any more", String::from_utf8_lossy(name)),
                    None,
                );
            }
            Ok(())
        }
    }
}

/// Changes a schedule. 42704, 42501 if the current role does not have the privileges of its role; else as [`schedule`].
pub fn alter(name: &[u8], asked: &Asked) -> Result<()> {
    check_caller(c"background.alter_schedule()")?;
    let (overlap, catch_up) = asked.check()?;
    let tables = join::tables()?;
    let stored = find(name)?.ok_or_else(|| missing(name))?;
    let role = stored.schedule.role;
    check_rights(name, role)?;
    let clears_settings = match asked.settings {
        Some(settings) => IS_EMPTY
            .first(&[Value::Other(JSONB, settings)], |row| row.bool(0))?
            .flatten(),
        None => None,
    };
    // What does not change was checked before, and may be wrong by now: that must not keep a schedule from being disabled.
    let runs_otherwise = asked.sql.is_some()
        || asked.mode.is_some()
        || asked.database.is_some()
        || asked.params.is_some()
        || asked.settings.is_some()
        || asked.keep_result.is_some();
    let database = stored.database.as_deref().map(memory::copy_c_str);
    let task = if runs_otherwise {
        options::Asked {
            sql: asked.sql.unwrap_or(&stored.sql),
            mode: asked.mode.unwrap_or(mode_of_letter(stored.asked_mode)),
            database: asked.database.or(database),
            keep_result: asked.keep_result.unwrap_or(stored.keep_result),
            settings: asked.settings.filter(|_| clears_settings != Some(true)),
            ..asked.of_task()
        }
    } else {
        options::Asked {
            mode: b"statement",
            ..asked.of_task()
        }
    };
    let options = Options::check(task, role)?;
    enqueue::check_settings(options.asked.settings)?;
    if let Some(queue) = asked.queue {
        queue::check(&tables, queue, role)?;
    }
    let is = stored.schedule.rule();
    let rule = asked.rule(&is)?;
    let enabled = asked.enabled.unwrap_or(stored.schedule.enabled);
    let changes_times = rule != is || asked.enabled.is_some_and(|_| stored.schedule.enabled != enabled);
    let begins = changes_times || stored.has_error && enabled;
    // One that is wrong by now can still be disabled.
    let timing = if begins && (enabled || rule != is) {
        Some(Timing::of(&rule)?)
    } else {
        None
    };
    if let Some(timing) = timing.as_ref().filter(|_| rule.spec != is.spec) {
        timing.check_due(rule.spec, backend::now())?;
    }
    let flag = |flag: Option<bool>| flag.map_or(Value::Null, Value::Bool);
    let params = options.params;
    ALTER.execute(&[
        Value::Int8(stored.schedule.id),
        Value::text_or_null(asked.spec),
        Value::text_or_null(asked.time_zone.map(|_| rule.time_zone)),
        Value::timestamp_or_null(asked.starts_at),
        Value::timestamp_or_null(asked.ends_at),
        options::interval(asked.jitter),
        overlap.map_or(Value::Null, |overlap| Value::Char(overlap.letter())),
        catch_up.map_or(Value::Null, |catch_up| Value::Char(catch_up.letter())),
        flag(asked.enabled),
        Value::text_or_null(asked.queue),
        Value::text_or_null(asked.label),
        asked.priority.map_or(Value::Null, Value::Int4),
        Value::text_or_null(asked.concurrency_key),
        asked.max_attempts.map_or(Value::Null, Value::Int4),
        options::interval(asked.retry_delay),
        options::interval(asked.timeout),
        options::interval(asked.expires_after),
        asked.mode.map_or(Value::Null, |mode| Value::Char(letter_of_mode(mode))),
        if runs_otherwise {
            Value::Char(options.mode.letter())
        } else {
            Value::Null
        },
        Value::Bool(asked.database.is_some()),
        Value::text_or_null(options.database),
        asked
            .settings
            .map_or(Value::Null, |settings| Value::Other(JSONB, settings)),
        flag(asked.keep_result),
        Value::text_or_null(asked.sql),
        Value::Bool(asked.params.is_some()),
        params.map_or(Value::Null, |params| Value::Other(TEXT_ARRAY, params.types)),
        params.map_or(Value::Null, |params| Value::Other(TEXT_ARRAY, params.values)),
    ])?;
    match timing {
        Some(timing) => begin(&tables, name, stored.schedule.id, &timing, enabled, backend::now()),
        None if begins => rest(stored.schedule.id),
        None => Ok(()),
    }
}

static REST: Plan = Plan::planned(
    c"UPDATE background.firing SET occurs_at = NULL, next_at = NULL, error = NULL WHERE schedule OPERATOR(pg_catalog.=) $1",
    &[INT8],
);

fn rest(id: i64) -> Result<()> {
    REST.execute(&[Value::Int8(id)])?;
    Ok(())
}

/// Drops a schedule; its tasks stay. False if there is none of this name. 42501 if the current role does not have the privileges of its role.
pub fn unschedule(name: &[u8]) -> Result<bool> {
    check_caller(c"background.unschedule()")?;
    join::tables()?;
    let Some(stored) = find(name)? else { return Ok(false) };
    check_rights(name, stored.schedule.role)?;
    delete(stored.schedule.id)?;
    Ok(true)
}

/// Drops a schedule; its tasks stay.
pub fn delete(id: i64) -> Result<()> {
    let id = [Value::Int8(id)];
    DELETE.execute(&id)?;
    DELETE_FIRING.execute(&id)?;
    Ok(())
}

/// Enqueues a task of the schedule now and returns its id. 42704, 42501, and what the enqueue of the task may raise: 53400 if the queue is full.
pub fn run(name: &[u8]) -> Result<i64> {
    check_caller(c"background.run_schedule()")?;
    let tables = join::tables()?;
    let schedule = fire::by_name(name)?.ok_or_else(|| missing(name))?;
    check_rights(name, schedule.role)?;
    fire::run_now(&tables, stamp::home(&tables)?, &schedule)
}

/// 25000 in a parallel worker, 42501 in a security-restricted operation, 25006 if nothing may be written.
pub fn check_caller(command: &'static CStr) -> Result<()> {
    order::check_caller("change or run a schedule", "task")?;
    transaction::check_writable(command)
}

fn check_name(name: &[u8]) -> Result<()> {
    check_length("schedule name", Some(name), NAME_MAX)?;
    if name.is_empty() {
        return Err(out_of_range("schedule name must not be empty"));
    }
    Ok(())
}

/// Of a role that does not exist only superusers have the privileges.
fn check_rights(name: &[u8], owner: u32) -> Result<()> {
    if role::may_act_for(owner, 0) {
        Ok(())
    } else {
        Err(not_permitted(name))
    }
}

fn missing(name: &[u8]) -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("schedule \"{}\" does not exist", String::from_utf8_lossy(name)),
    )
    .into()
}

fn not_permitted(name: &[u8]) -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied for schedule \"{}\"", String::from_utf8_lossy(name)),
    )
    .detail("It is a schedule of another role.")
    .into()
}
