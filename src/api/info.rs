//! The functions that show jobs: `list`, `job_of`, `stats`, `outcome`, `result_info`, `error_info`, `full_sql`.

use crate::api::handle;
use crate::pg::error::{self, Report, Result};
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::{self, Value};
use crate::pg::query::simple_query;
use crate::pg::value::encoding;
use crate::pg::{text, wire};
use crate::registry::counters::Counters;
use crate::registry::job::{Error, Job, PREVIEW_CHARACTERS, State};
use crate::registry::upkeep;
use crate::session::jobs::{self, Handle};
use crate::settings;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::PgSqlErrorCode;
use std::borrow::Cow;
use std::rc::Rc;

crate::sql_function! {
    pg_background_list => list;
    pg_background_list_v2 => list;
    pg_background_job_of => job_of;
    pg_background_stats => stats;
    pg_background_stats_v2 => stats;
    pg_background_record_timeout => record_timeout;
    pg_background_outcome => outcome;
    pg_background_outcome_v2 => outcome;
    pg_background_result_info => result_info;
    pg_background_result_info_v2 => result_info;
    pg_background_error_info => error_info;
    pg_background_error_info_v2 => error_info;
    pg_background_full_sql => full_sql;
    pg_background_full_sql_v2 => full_sql;
}

/// The types of the list's columns. The caller may omit the last one.
const LIST: [u32; 10] = [
    rows::INT4,
    rows::INT8,
    rows::TIMESTAMPTZ,
    rows::OID,
    rows::INT4,
    rows::TEXT,
    rows::TEXT,
    rows::TEXT,
    rows::BOOL,
    rows::TEXT,
];

/// `list()`: the jobs of this session. If the current role may not act on a job, for example after a SET ROLE, the cookie and all texts are
/// NULL. 42804 for a column definition list that is not the first nine or all ten columns.
fn list(call: &Call) -> Result<Answer> {
    let rows = call.rows()?;
    let width = rows.width();
    if width < LIST.len() - 1 || width > LIST.len() {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("pg_background_list returns 9 or 10 columns, not {width}"),
        )
        .into());
    }
    if let Some(n) = (0..width).find(|n| rows.column_type(*n) != LIST[*n]) {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("column {} of pg_background_list has another type", n + 1),
        )
        .into());
    }
    error::catching(|raw| rows.come_with(raw, &|_| -1))?;
    for handle in jobs::all()? {
        let seen = Seen::of(&handle)?;
        let mut values = [
            Value::Int4(handle.pid),
            Value::Int8(handle.cookie as i64),
            Value::Timestamp(seen.launched_at),
            Value::Oid(seen.user),
            Value::Int4(seen.queue_size as i32),
            Value::Text(seen.state.name().as_bytes()),
            Value::Text(text::first_characters(seen.sql, PREVIEW_CHARACTERS)),
            Value::text_or_null(seen.error(b'M')),
            Value::Bool(seen.consumed),
            Value::text_or_null(seen.label.as_deref()),
        ];
        if !handle.is_ours() {
            for n in [1, 6, 7, 9] {
                values[n] = Value::Null;
            }
        }
        rows.push(&values[..width])?;
    }
    call.null()
}

/// `job_of(worker_pid, query_start)`: returns the cookie of this session's job that the process runs now, and ran when its statement began at
/// `query_start`. NULL if there is none, or if the current role may not act on it. The view `pg_background_activity` calls this for each
/// worker that it has seen. A NULL `query_start` means that the process has not run a statement yet.
fn job_of(call: &Call) -> Result<Answer> {
    let cookie = call.int4(0).and_then(|pid| jobs::run_by(pid, call.int8(1)));
    cookie.map_or_else(|| call.null(), |cookie| call.scalar(Value::Int8(cookie as i64)))
}

/// What the list and the outcome show of a job: a copy, since rows are made without the job's lock.
struct Seen {
    state: State,
    user: u32,
    queue_size: u32,
    consumed: bool,
    launched_at: i64,
    row_count: i64,
    tag: Option<u32>,
    label: Option<Vec<u8>>,
    sql: &'static [u8],
    /// The error's fields, in this database's encoding.
    error: Option<Cow<'static, [u8]>>,
    /// Retains the slot, and with it the memory that the texts lie in.
    _handle: Rc<Handle>,
}

impl Seen {
    /// Copies the job's fields under its lock, then reads the texts without it. 53200 if memory is out.
    fn of(handle: &Rc<Handle>) -> Result<Self> {
        let job = handle.job();
        let (error, encoding) = (job.error().copied(), job.encoding);
        let sql = job.sql();
        let (label, text_encoding) = (job.label_copy(), job.text_encoding);
        let mut seen = Seen {
            state: job.state,
            user: job.user,
            queue_size: job.queue_size,
            consumed: job.consumed,
            launched_at: job.launched_at,
            row_count: job.row_count,
            tag: tag(&job),
            label: None,
            sql: &[],
            error: None,
            _handle: Rc::clone(handle),
        };
        drop(job);
        seen.sql = sql.read()?;
        seen.error = readable(error.as_ref(), encoding)?;
        seen.label = match label {
            Some(label) => Some(encoding::readable(&label, text_encoding)?.into_owned()),
            None => None,
        };
        Ok(seen)
    }

    /// A field of the error, by its code in the frontend protocol.
    fn error(&self, field: u8) -> Option<&[u8]> {
        self.error.as_ref().and_then(|error| wire::Fields(error).get(field))
    }
}

/// All fields of an error, in this database's encoding.
fn readable(error: Option<&Error>, encoding: i32) -> Result<Option<Cow<'static, [u8]>>> {
    let Some(error) = error else { return Ok(None) };
    Ok(Some(match error.fields()? {
        Cow::Borrowed(whole) => wire::Fields(whole).readable(encoding)?,
        Cow::Owned(kept) => Cow::Owned(wire::Fields(&kept).readable(encoding)?.into_owned()),
    }))
}

fn tag(job: &Job) -> Option<u32> {
    job.has_tag.then_some(job.tag)
}

/// `outcome(pid, cookie)`: the job's state in one row. It raises no error; for an unknown handle all columns but pid and cookie are NULL.
fn outcome(call: &Call) -> Result<Answer> {
    match (call.int4(0), call.int8(1)) {
        (Some(pid), Some(cookie)) => call.composite(&JobOutcome::of(pid, cookie).values()),
        _ => call.null(),
    }
}

/// One row of `pg_background_outcome`.
pub struct JobOutcome {
    pid: i32,
    cookie: i64,
    seen: Option<Seen>,
}

impl JobOutcome {
    /// What is known of the handle now; of one that the current role may not use, nothing, nor where memory is out.
    fn of(pid: i32, cookie: i64) -> Self {
        let nothing = Self {
            pid,
            cookie,
            seen: None,
        };
        Self::of_job(pid, cookie, jobs::look_up(pid, cookie).as_ref()).unwrap_or(nothing)
    }

    /// The outcome of the job with that handle, if there is one.
    pub fn of_job(pid: i32, cookie: i64, job: Option<&Rc<Handle>>) -> Result<Self> {
        let seen = job.map(Seen::of).transpose()?;
        // Checked after the look: the job may leave its role in between.
        let is_ours = job.is_some_and(|job| job.is_ours());
        Ok(Self {
            pid,
            cookie,
            seen: seen.filter(|_| is_ours),
        })
    }

    /// Whether the job has ended with success.
    pub fn succeeded(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.state == State::Stopped)
    }

    /// The columns of the type, in order.
    pub fn values(&self) -> [Value<'_>; 12] {
        let handle = [Value::Int4(self.pid), Value::Int8(self.cookie)];
        let [pid, cookie] = handle;
        let Some(seen) = &self.seen else {
            let none = || Value::Null;
            return [
                pid,
                cookie,
                none(),
                none(),
                none(),
                none(),
                none(),
                none(),
                none(),
                none(),
                none(),
                none(),
            ];
        };
        [
            pid,
            cookie,
            Value::Text(seen.state.name().as_bytes()),
            Value::Bool(seen.consumed),
            Value::Bool(seen.state.has_ended()),
            Value::Bool(matches!(seen.state, State::Error | State::Canceled)),
            Value::Int8(seen.row_count),
            Value::text_or_null(seen.tag.map(simple_query::tag_name)),
            Value::text_or_null(seen.error(b'C')),
            Value::text_or_null(seen.error(b'M')),
            Value::text_or_null(seen.label.as_deref()),
            Value::Timestamp(seen.launched_at),
        ]
    }
}

/// `stats()`: the counters of this session.
fn stats(call: &Call) -> Result<Answer> {
    let counters = Counters::at(jobs::counters()?);
    // A worker that went without a word counts when somebody looks.
    upkeep::look_after_all()?;
    let count = |counter: &core::sync::atomic::AtomicU64| counter.load(Relaxed) as i64;
    let (completed, failed, canceled, timed_out) = (
        count(&counters.jobs.completed),
        count(&counters.jobs.failed),
        count(&counters.jobs.canceled),
        count(&counters.jobs.timed_out),
    );
    let active = counters.active.load(Relaxed) as i32;
    let ended = completed + failed + canceled + timed_out;
    let average = if ended == 0 {
        0.0
    } else {
        counters.jobs.run_time.load(Relaxed) as f64 / 1000.0 / ended as f64
    };
    call.composite(&[
        Value::Int8(count(&counters.jobs.launched)),
        Value::Int8(completed),
        Value::Int8(failed),
        Value::Int8(canceled),
        Value::Int8(timed_out),
        Value::Int4(active),
        Value::Float8(average),
        Value::Int4(settings::max_workers() as i32),
    ])
}

/// `record_timeout()`: adds one to workers_timed_out. Catalogs of older versions call it.
fn record_timeout(call: &Call) -> Result<Answer> {
    Counters::at(jobs::counters()?).jobs.timed_out.fetch_add(1, Relaxed);
    call.void()
}

/// `result_info(pid, cookie)`: what the last statement did, and when the job ran.
fn result_info(call: &Call) -> Result<Answer> {
    let Some(handle) = handle(call)? else {
        return call.null();
    };
    let (row_count, tag, state, started_at, finished_at) = {
        let job = handle.job();
        (job.row_count, tag(&job), job.state, job.started_at, job.finished_at)
    };
    call.composite(&[
        Value::Int8(row_count),
        Value::text_or_null(tag.map(simple_query::tag_name)),
        Value::Bool(state.has_ended()),
        Value::Bool(matches!(state, State::Error | State::Canceled)),
        Value::time_or_null(started_at),
        Value::time_or_null(finished_at),
    ])
}

/// `error_info(pid, cookie)`: the parts of the job's error, NULL if it has none.
fn error_info(call: &Call) -> Result<Answer> {
    let Some(handle) = handle(call)? else {
        return call.null();
    };
    let (error, encoding) = {
        let job = handle.job();
        (job.error().copied(), job.encoding)
    };
    let Some(error) = readable(error.as_ref(), encoding)? else {
        return call.null();
    };
    let error = wire::Fields(&error);
    let fields = *b"CMDHWstcn";
    let values = fields.map(|field| Value::text_or_null(error.get(field)));
    call.composite(&values)
}

/// `full_sql(pid, cookie)`: the job's whole SQL.
fn full_sql(call: &Call) -> Result<Answer> {
    let Some(handle) = handle(call)? else {
        return call.null();
    };
    let (sql, encoding) = {
        let job = handle.slot.lock();
        (job.sql(), job.text_encoding)
    };
    call.scalar(Value::Text(&encoding::readable(sql.read()?, encoding)?))
}
