//! A schedule fires: its occurrences that are due become tasks, in the transaction that moves the schedule on.
//!
//! The row of `background.firing` is locked first, so two processes do not fire the same schedule, and the one that loses the race finds the next
//! occurrence there. Task and row are written together, so a crash at any time loses both or none.

use crate::pg::error::{self, Failure, Report, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{CHAR, INT8, TEXT, TIMESTAMPTZ, Value};
use crate::pg::plan::{self, Plan, Row};
use crate::pg::process::backend;
use crate::pg::table;
use crate::pg::text;
use crate::pg::value::desc::INT8_ARRAY;
use crate::pg::value::{kept, zone};
use crate::registry::job::LABEL_MAX;
use crate::tasks::due::{CatchUp, Due, Next, Occurrence, Rule, Timing};
use crate::tasks::shared::{self, Of};
use crate::tasks::tables::{Phase, Tables};
use crate::tasks::{parents, pushed, queue};

/// The most unfinished tasks of a schedule that another one is to follow.
const MOST: i64 = 1000;

/// A schedule that is due: which one, and how far it is.
#[derive(Clone, Copy)]
pub struct Moment {
    pub schedule: i64,
    pub next: Next,
}

impl Moment {
    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            schedule: row.int8(0)?.unwrap_or(0),
            next: Next {
                occurs_at: row.int8(1)?.unwrap_or(0),
                fires_at: row.int8(2)?.unwrap_or(0),
            },
        })
    }
}

/// Schedules of the home `$1` that are due at `$2`, the first `$3`. One that another transaction changes is left for later.
static LOCK: Plan = Plan::planned(
    c"SELECT schedule, occurs_at, next_at FROM background.firing \
      WHERE home OPERATOR(pg_catalog.=) $1 AND next_at OPERATOR(pg_catalog.<=) $2 AND next_at OPERATOR(pg_catalog.>=) $3 \
      ORDER BY next_at LIMIT $4 FOR UPDATE SKIP LOCKED",
    &[INT8, TIMESTAMPTZ, TIMESTAMPTZ, INT8],
);

/// The same of one schedule.
static LOCK_ONE: Plan = Plan::planned(
    c"SELECT schedule, occurs_at, next_at FROM background.firing \
      WHERE schedule OPERATOR(pg_catalog.=) $1 AND next_at OPERATOR(pg_catalog.<=) $2 FOR UPDATE SKIP LOCKED",
    &[INT8, TIMESTAMPTZ],
);

static FIND: Plan = Plan::planned(
    c"SELECT schedule FROM background.firing \
      WHERE home OPERATOR(pg_catalog.=) $1 AND next_at OPERATOR(pg_catalog.<=) $2 AND next_at OPERATOR(pg_catalog.>=) $3 \
      ORDER BY next_at LIMIT $4",
    &[INT8, TIMESTAMPTZ, TIMESTAMPTZ, INT8],
);

/// The columns that [`Schedule::read`] reads.
macro_rules! schedule_columns {
    () => {
        "id, name, background.role_oid(owner), background.role_name(owner)::pg_catalog.text, spec, time_zone, created_at, starts_at, ends_at, \
         jitter, overlap, catch_up, queue, priority, concurrency_key, expires_after, enabled"
    };
}

pub(super) use schedule_columns;

static SCHEDULES: Plan = Plan::planned(
    plan::text(concat!(
        "SELECT ",
        schedule_columns!(),
        " FROM background.schedule WHERE id OPERATOR(pg_catalog.=) ANY ($1)\0"
    )),
    &[INT8_ARRAY],
);

static BY_NAME: Plan = Plan::planned(
    plan::text(concat!(
        "SELECT ",
        schedule_columns!(),
        " FROM background.schedule WHERE name OPERATOR(pg_catalog.=) $1\0"
    )),
    &[TEXT],
);

/// Tasks of a schedule that have not ended, and whether an attempt has been made.
static UNFINISHED: Plan = Plan::planned(
    c"SELECT id, attempt OPERATOR(pg_catalog.>) 0 FROM background.task WHERE schedule OPERATOR(pg_catalog.=) $1 ORDER BY id DESC LIMIT $2",
    &[TEXT, INT8],
);

/// `$9` is the label of a schedule that has none.
static ENQUEUE: Plan = Plan::fixed(
    c"INSERT INTO background.task (id, queue, owner, priority, phase, mode, home, max_attempts, enqueued_at, run_at, expires_at, retry_delay, \
          timeout, label, sql, param_types, param_values, search_path, settings, database, keep_result, concurrency_key, after, \
          on_parent_failure, schedule) \
      SELECT $2, queue, owner, priority, $3, mode, $4, max_attempts, $5, $6, $7, retry_delay, \
          timeout, COALESCE(label, $9), sql, param_types, param_values, search_path, settings, database, keep_result, concurrency_key, $8, \
          'r', name \
      FROM background.schedule WHERE id OPERATOR(pg_catalog.=) $1",
    &[
        INT8,
        INT8,
        CHAR,
        INT8,
        TIMESTAMPTZ,
        TIMESTAMPTZ,
        TIMESTAMPTZ,
        INT8_ARRAY,
        TEXT,
    ],
);

static MOVE_ON: Plan = Plan::planned(
    c"UPDATE background.firing SET occurs_at = $2, next_at = $3, error = $4, \
          runs_total = runs_total OPERATOR(pg_catalog.+) $5, failures_total = failures_total OPERATOR(pg_catalog.+) $6, \
          skipped_total = skipped_total OPERATOR(pg_catalog.+) $7, missed_total = missed_total OPERATOR(pg_catalog.+) $8, \
          last_at = COALESCE($9, last_at), last_task = COALESCE($10, last_task), \
          last_state = CASE WHEN $10 IS NULL THEN last_state END, \
          last_duration = CASE WHEN $10 IS NULL THEN last_duration END \
      WHERE schedule OPERATOR(pg_catalog.=) $1",
    &[
        INT8,
        TIMESTAMPTZ,
        TIMESTAMPTZ,
        TEXT,
        INT8,
        INT8,
        INT8,
        INT8,
        TIMESTAMPTZ,
        INT8,
    ],
);

static RUNS_NOW: Plan = Plan::planned(
    c"UPDATE background.firing SET runs_total = runs_total OPERATOR(pg_catalog.+) 1, last_at = $2, last_task = $3, last_state = NULL, \
          last_duration = NULL \
      WHERE schedule OPERATOR(pg_catalog.=) $1",
    &[INT8, TIMESTAMPTZ, INT8],
);

/// The occurrence stays the next one. It counts as a failure once for each reason, however often it is tried.
static STOP: Plan = Plan::planned(
    c"UPDATE background.firing SET next_at = $2, error = $3, \
          failures_total = failures_total OPERATOR(pg_catalog.+) CASE WHEN error OPERATOR(pg_catalog.=) $3 THEN 0 ELSE 1 END \
      WHERE schedule OPERATOR(pg_catalog.=) $1",
    &[INT8, TIMESTAMPTZ, TEXT],
);

/// Those that could not be computed are tried again.
static HEAL: Plan = Plan::planned(
    c"UPDATE background.firing SET next_at = occurs_at \
      WHERE home OPERATOR(pg_catalog.=) $1 AND next_at IS NULL AND occurs_at IS NOT NULL AND error IS NOT NULL",
    &[INT8],
);

static NEXT: Plan = Plan::planned(
    c"SELECT next_at FROM background.firing WHERE home OPERATOR(pg_catalog.=) $1 AND next_at OPERATOR(pg_catalog.>=) $2 \
      ORDER BY next_at LIMIT 1",
    &[INT8, TIMESTAMPTZ],
);

/// What happens to an occurrence while a task of the schedule has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overlap {
    Skip,
    Queue,
    Allow,
}

impl Overlap {
    /// What the word stands for.
    pub fn of_word(word: &[u8]) -> Option<Self> {
        match word {
            b"skip" => Some(Self::Skip),
            b"queue" => Some(Self::Queue),
            b"allow" => Some(Self::Allow),
            _ => None,
        }
    }

    /// As it is kept.
    pub fn letter(self) -> u8 {
        match self {
            Self::Skip => b's',
            Self::Queue => b'q',
            Self::Allow => b'a',
        }
    }

    fn of_letter(letter: u8) -> Self {
        match letter {
            b'q' => Self::Queue,
            b'a' => Self::Allow,
            _ => Self::Skip,
        }
    }
}

/// A schedule, as far as its firing needs it.
pub struct Schedule {
    pub id: i64,
    pub name: Vec<u8>,
    /// 0 if the role does not exist.
    pub role: u32,
    role_name: Vec<u8>,
    spec: Vec<u8>,
    time_zone: Vec<u8>,
    created_at: i64,
    starts_at: Option<i64>,
    ends_at: Option<i64>,
    jitter: i64,
    overlap: Overlap,
    catch_up: CatchUp,
    queue: Vec<u8>,
    priority: i32,
    concurrency_key: Option<Vec<u8>>,
    expires_after: Option<i64>,
    pub enabled: bool,
}

impl Schedule {
    /// Reads the columns of `schedule_columns!`, which are the first ones of the row.
    pub fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.int8(0)?.unwrap_or(0),
            name: row.text(1)?.unwrap_or_default(),
            role: row.oid(2)?.unwrap_or(0),
            role_name: row.text(3)?.unwrap_or_default(),
            spec: row.text(4)?.unwrap_or_default(),
            time_zone: row.text(5)?.unwrap_or_default(),
            created_at: row.int8(6)?.unwrap_or(0),
            starts_at: row.int8(7)?,
            ends_at: row.int8(8)?,
            jitter: row.length(9)?.unwrap_or(0),
            overlap: Overlap::of_letter(row.char(10)?.unwrap_or(b's')),
            catch_up: CatchUp::of_letter(row.char(11)?.unwrap_or(b'o')),
            queue: row.text(12)?.unwrap_or_default(),
            priority: row.int4(13)?.unwrap_or(0),
            concurrency_key: row.text(14)?,
            expires_after: row.length(15)?,
            enabled: row.bool(16)?.unwrap_or(false),
        })
    }

    /// What it says of its times.
    pub fn rule(&self) -> Rule<'_> {
        Rule {
            spec: &self.spec,
            time_zone: &self.time_zone,
            created_at: self.created_at,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            jitter: self.jitter,
        }
    }

    /// Enqueues a task, which `after` precede.
    fn enqueue(&self, tables: &Tables, home: i64, occurs_at: Option<i64>, after: &[i64]) -> Result<i64> {
        let id = table::next_number(tables.task_id)?;
        let now = backend::now();
        let expires_at = self.expires_after.map(|after| now.saturating_add(after));
        let expires_at = expires_at.and_then(zone::in_range);
        let phase = if after.is_empty() {
            Phase::Waiting
        } else {
            Phase::Blocked
        };
        let parents = match after {
            [] => Value::Null,
            after => Value::Other(INT8_ARRAY, kept::int8_array(after)?),
        };
        ENQUEUE.execute(&[
            Value::Int8(self.id),
            Value::Int8(id),
            Value::Char(phase.letter()),
            Value::Int8(home),
            Value::Timestamp(now),
            Value::timestamp_or_null(occurs_at),
            Value::timestamp_or_null(expires_at),
            parents,
            // As much of the name as a label takes.
            Value::Text(text::clip(&self.name, LABEL_MAX)),
        ])?;
        parents::add(id, after)?;
        pushed::push(
            &pushed::Task {
                id,
                role: self.role,
                queue: &self.queue,
                priority: self.priority,
                concurrency_key: self.concurrency_key.as_deref(),
                is_operation: false,
                run_at: occurs_at,
                expires_at,
            },
            phase,
        )?;
        Ok(id)
    }
}

/// What has become of the occurrences of a look.
#[derive(Default)]
struct Counts {
    runs: i64,
    failures: i64,
    skipped: i64,
    last: Option<i64>,
    error: Option<Vec<u8>>,
}

/// The keeper's look at the schedules of its database.
#[derive(Clone, Copy)]
pub struct Firing<'a> {
    pub tables: &'a Tables,
    /// Of this database's own schedules.
    pub home: i64,
    /// What is due by then is fired.
    pub now: i64,
    /// Since when a keeper is on duty.
    pub since: i64,
    /// No schedule is due before that.
    pub floor: i64,
}

impl Firing<'_> {
    /// Fires at most `most` schedules that are due, those first that are due for the longest time, in the open transaction. Returns how many.
    pub fn fire(&self, most: i64) -> Result<usize> {
        let moments = LOCK.rows(
            &[
                Value::Int8(self.home),
                Value::Timestamp(self.now),
                Value::Timestamp(self.floor),
                Value::Int8(most),
            ],
            Moment::read,
        )?;
        self.fire_all(&moments)?;
        Ok(moments.len())
    }

    /// The first `most` schedules that are due.
    pub fn find(&self, most: i64) -> Result<Vec<i64>> {
        FIND.rows(
            &[
                Value::Int8(self.home),
                Value::Timestamp(self.now),
                Value::Timestamp(self.floor),
                Value::Int8(most),
            ],
            |row| Ok(row.int8(0)?.unwrap_or(0)),
        )
    }

    /// Fires one schedule if it is due, in the open transaction.
    pub fn fire_one(&self, schedule: i64) -> Result<()> {
        let moments = LOCK_ONE.rows(&[Value::Int8(schedule), Value::Timestamp(self.now)], Moment::read)?;
        self.fire_all(&moments)
    }

    fn fire_all(&self, moments: &[Moment]) -> Result<()> {
        if moments.is_empty() {
            return Ok(());
        }
        let ids = fallible::collected(moments.iter().map(|moment| moment.schedule))?;
        // After the locks, so a session that has changed times has committed.
        let schedules = SCHEDULES.rows(&[Value::Other(INT8_ARRAY, kept::int8_array(&ids)?)], Schedule::read)?;
        for moment in moments {
            match schedules.iter().find(|schedule| schedule.id == moment.schedule) {
                Some(schedule) => self.fire_schedule(schedule, moment.next)?,
                None => stop(moment.schedule, None, b"the schedule is lost")?,
            }
        }
        Ok(())
    }

    fn fire_schedule(&self, schedule: &Schedule, next: Next) -> Result<()> {
        if schedule.role == 0 {
            let missing = [b"role \"", &schedule.role_name[..], b"\" does not exist"].concat();
            return stop(schedule.id, None, &missing);
        }
        let due =
            Timing::of(&schedule.rule()).and_then(|timing| timing.due(next, self.now, self.since, schedule.catch_up));
        match due {
            Ok(due) => self.enqueue(schedule, due),
            Err(failure) => stop(schedule.id, None, error::text(error::into_data(failure))),
        }
    }

    fn enqueue(&self, schedule: &Schedule, due: Due) -> Result<()> {
        let mut counts = Counts::default();
        let mut unfinished = Vec::new();
        if schedule.overlap != Overlap::Allow && !due.occurrences.is_empty() {
            unfinished = self.unfinished(schedule)?;
        }
        for occurrence in &due.occurrences {
            let Some(after) = precede(schedule, occurrence, &unfinished)? else {
                counts.skipped += 1;
                continue;
            };
            match queue::take_place(self.tables, &schedule.queue, schedule.role) {
                Ok(None) => (),
                Ok(Some(_)) => {
                    counts.skipped += 1;
                    continue;
                }
                Err(failure @ Failure::Report(_)) => {
                    counts.failures += 1;
                    counts.error = Some(fallible::copied(error::text(error::into_data(failure)))?);
                    continue;
                }
                Err(failure) => return Err(failure),
            }
            let id = schedule.enqueue(self.tables, self.home, Some(occurrence.at), &after)?;
            counts.runs += 1;
            counts.last = Some(id);
            if schedule.overlap != Overlap::Allow {
                fallible::push(&mut unfinished, (id, false))?;
            }
        }
        MOVE_ON.execute(&[
            Value::Int8(schedule.id),
            Value::timestamp_or_null(due.next.map(|next| next.occurs_at)),
            Value::timestamp_or_null(due.next.map(|next| next.fires_at)),
            Value::text_or_null(counts.error.as_deref()),
            Value::Int8(counts.runs),
            Value::Int8(counts.failures),
            Value::Int8(counts.skipped),
            Value::Int8(due.missed),
            Value::timestamp_or_null(counts.last.map(|_| backend::now())),
            counts.last.map_or(Value::Null, Value::Int8),
        ])?;
        Ok(())
    }

    /// The schedule's tasks that have not ended, in order, and whether each has begun.
    fn unfinished(&self, schedule: &Schedule) -> Result<Vec<(i64, bool)>> {
        let most = if schedule.overlap == Overlap::Skip && schedule.catch_up != CatchUp::All {
            1
        } else {
            MOST
        };
        let mut tasks = UNFINISHED.rows(&[Value::Text(&schedule.name), Value::Int8(most)], |row| {
            Ok((row.int8(0)?.unwrap_or(0), row.bool(1)?.unwrap_or(false)))
        })?;
        tasks.reverse();
        if !tasks.is_empty() {
            let runs = shared::runs(self.tables.task, Of::All)?;
            for (id, has_begun) in &mut tasks {
                *has_begun |= runs.iter().any(|run| run.task == *id && run.attempt > 0);
            }
        }
        Ok(tasks)
    }
}

/// The tasks that the occurrence's task is to follow; None if there is to be no task. One that makes up for a missed occurrence follows all others, or
/// hardly any would be made up for.
fn precede(schedule: &Schedule, occurrence: &Occurrence, unfinished: &[(i64, bool)]) -> Result<Option<Vec<i64>>> {
    if unfinished.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let follows = if occurrence.was_missed && schedule.catch_up == CatchUp::All {
        // The others precede the last one, as far as they have not begun.
        let begun = unfinished.iter().filter(|(_, has_begun)| *has_begun);
        let last = unfinished.last().filter(|(_, has_begun)| !has_begun);
        fallible::collected(begun.chain(last).map(|(id, _)| *id))?
    } else if schedule.overlap == Overlap::Queue && unfinished.iter().all(|(_, has_begun)| *has_begun) {
        fallible::collected(unfinished.iter().map(|(id, _)| *id))?
    } else {
        return Ok(None);
    };
    Ok(Some(follows))
}

/// The schedule fires no more, or not before `until`, and says why.
pub fn stop(schedule: i64, until: Option<i64>, error: &[u8]) -> Result<()> {
    let until = Value::timestamp_or_null(until);
    STOP.execute(&[Value::Int8(schedule), until, Value::Text(error)])?;
    Ok(())
}

/// Tries schedules again that could not be computed: the zones of a new server may have what was missing.
pub fn heal(home: i64) -> Result<()> {
    HEAL.execute(&[Value::Int8(home)])?;
    Ok(())
}

/// When the next schedule is due that is due at `floor` at the earliest.
pub fn next(home: i64, floor: i64) -> Result<Option<i64>> {
    Ok(NEXT
        .first(&[Value::Int8(home), Value::Timestamp(floor)], |row| row.int8(0))?
        .flatten())
}

/// The schedule of this name.
pub fn by_name(name: &[u8]) -> Result<Option<Schedule>> {
    BY_NAME.first(&[Value::Text(name)], Schedule::read)
}

/// Enqueues a task of the schedule, whatever else there is of it.
pub fn run_now(tables: &Tables, home: i64, schedule: &Schedule) -> Result<i64> {
    if schedule.role == 0 {
        return Err(Report::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!(
                "role \"{}\" does not exist",
                String::from_utf8_lossy(&schedule.role_name)
            ),
        )
        .into());
    }
    queue::enter(tables, &schedule.queue, schedule.role)?;
    let id = schedule.enqueue(tables, home, None, &[])?;
    RUNS_NOW.execute(&[
        Value::Int8(schedule.id),
        Value::Timestamp(backend::now()),
        Value::Int8(id),
    ])?;
    Ok(id)
}
