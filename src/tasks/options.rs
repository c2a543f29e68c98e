//! What an enqueue is asked for, with all that can be said of it without a look at the tables.

use crate::pg::catalog::database::Database;
use crate::pg::error::{Report, Result};
use crate::pg::function::call::{Answer, Interval};
use crate::pg::function::rows::Value;
use crate::pg::process::identity;
use crate::pg::query::classify::{self, Seen};
use crate::pg::value::desc::INTERVAL;
use crate::pg::value::kept::{self, Kept};
use crate::registry::job::LABEL_MAX;
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;

/// The longest key or name of a queue, in bytes. 22001 beyond.
pub const NAME_MAX: usize = 255;

/// The arguments of `enqueue`, NULLs replaced by what they mean.
pub struct Asked<'a> {
    pub sql: &'a [u8],
    /// A record whose columns are the parameters.
    pub params: Option<Answer>,
    pub queue: &'a [u8],
    pub label: Option<&'a [u8]>,
    pub priority: i32,
    pub run_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub on_conflict: &'a [u8],
    pub concurrency_key: Option<&'a [u8]>,
    pub max_attempts: Option<i32>,
    pub retry_delay: Option<Interval>,
    pub timeout: Option<Interval>,
    pub after: Vec<i64>,
    pub on_parent_failure: &'a [u8],
    pub mode: &'a [u8],
    pub database: Option<&'a CStr>,
    /// A `jsonb`.
    pub settings: Option<Answer>,
    pub keep_result: bool,
}

/// What an enqueue does that finds a task of its key that has not begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnConflict {
    Keep,
    Replace,
    Error,
}

/// What becomes of a task a parent of which does not end as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnParentFailure {
    Cancel,
    Run,
}

impl OnParentFailure {
    /// As it is kept.
    pub fn letter(self) -> u8 {
        match self {
            Self::Cancel => b'c',
            Self::Run => b'r',
        }
    }
}

/// How a task runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Transaction,
    Statement,
}

impl Mode {
    /// As it is kept.
    pub fn letter(self) -> u8 {
        match self {
            Self::Transaction => b't',
            Self::Statement => b's',
        }
    }
}

/// What was asked for, checked.
pub struct Options<'a> {
    pub asked: Asked<'a>,
    pub on_conflict: OnConflict,
    pub on_parent_failure: OnParentFailure,
    pub mode: Mode,
    pub params: Option<Kept>,
    /// The name of the database, if it is another one.
    pub database: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    /// Checks what was asked for, and reads the parameters; what runs there is the caller's code. The role that is current will run the task.
    ///
    /// Errors: 22023 for unknown words and values out of range, 22001 for labels, keys and names that are too long, 22008 for intervals that
    /// are too long, 42601 for what is no SQL and for parameters of several statements, 0A000 for statements that the mode cannot run and for
    /// parameters that cannot be kept; those of [`Database::by_name`] for the database.
    pub fn check(asked: Asked<'a>, role: u32) -> Result<Self> {
        check_length("label", asked.label, LABEL_MAX)?;
        check_length("key", asked.key, NAME_MAX)?;
        check_length("concurrency key", asked.concurrency_key, NAME_MAX)?;
        check_length("queue name", Some(asked.queue), NAME_MAX)?;
        if asked.max_attempts.is_some_and(|most| most < 1) {
            return Err(out_of_range("max_attempts must be at least 1"));
        }
        check_interval("retry_delay", asked.retry_delay)?;
        check_interval("timeout", asked.timeout)?;
        let on_conflict = match asked.on_conflict {
            b"keep" => OnConflict::Keep,
            b"replace" => OnConflict::Replace,
            b"error" => OnConflict::Error,
            word => return Err(unknown("on_conflict", word, "\"keep\", \"replace\" and \"error\"")),
        };
        let on_parent_failure = match asked.on_parent_failure {
            b"cancel" => OnParentFailure::Cancel,
            b"run" => OnParentFailure::Run,
            word => return Err(unknown("on_parent_failure", word, "\"cancel\" and \"run\"")),
        };
        let database = match asked.database {
            Some(name) => Some(Database::by_name(name, [role, identity::identity().current])?),
            None => None,
        };
        let other = database
            .filter(|database| database.is_other)
            .map(|database| database.encoding);
        let seen = classify::look(asked.sql)?;
        let mode = find_mode(asked.mode, seen, other.is_some())?;
        let params = match asked.params {
            Some(record) => kept::of(record, other)?,
            None => None,
        };
        if params.is_some() {
            check_alone(seen)?;
        }
        let database = asked.database.filter(|_| other.is_some()).map(CStr::to_bytes);
        Ok(Self {
            asked,
            on_conflict,
            on_parent_failure,
            mode,
            params,
            database,
        })
    }
}

/// 42601 for several statements, which cannot have parameters.
fn check_alone(seen: Seen) -> Result<()> {
    if !seen.is_many {
        return Ok(());
    }
    Err(Report::new(
        PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
        "cannot insert multiple commands into a prepared statement",
    )
    .detail("With parameters the SQL is one statement.")
    .into())
}

fn find_mode(word: &[u8], seen: Seen, elsewhere: bool) -> Result<Mode> {
    let mode = match word {
        b"transaction" if elsewhere => {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "a task in mode \"transaction\" cannot run in another database",
            )
            .hint("Use mode => 'statement'.")
            .into());
        }
        b"transaction" => Mode::Transaction,
        b"statement" => Mode::Statement,
        b"auto" if seen.is_alone || elsewhere => Mode::Statement,
        b"auto" => Mode::Transaction,
        word => return Err(unknown("mode", word, "\"auto\", \"transaction\" and \"statement\"")),
    };
    match seen.refused {
        Some(command) if mode == Mode::Transaction => Err(Report::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!(
                "{} cannot run in a task of mode \"transaction\"",
                command.to_string_lossy()
            ),
        )
        .detail("The task and the note that it is done are one transaction, which the task does not end.")
        .hint("Use mode => 'statement'.")
        .into()),
        _ => Ok(mode),
    }
}

/// 22001.
pub fn check_length(what: &str, text: Option<&[u8]>, most: usize) -> Result<()> {
    match text {
        Some(text) if text.len() > most => Err(Report::new(
            PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
            format!("{what} too long"),
        )
        .detail(format!("The {what} has {} bytes, the limit is {most}.", text.len()))
        .into()),
        _ => Ok(()),
    }
}

/// 22023 for a negative interval, 22008 for one that has no length.
pub fn check_interval(what: &str, interval: Option<Interval>) -> Result<()> {
    let Some(interval) = interval else {
        return Ok(());
    };
    match interval.length() {
        Some(0..) => Ok(()),
        Some(_) => Err(out_of_range(&format!("{what} must not be negative"))),
        None => Err(Report::new(
            PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
            format!("{what} is out of range"),
        )
        .into()),
    }
}

/// 22023.
pub fn out_of_range(message: &str) -> crate::pg::error::Failure {
    Report::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message).into()
}

/// 22023.
pub fn unknown(what: &str, word: &[u8], known: &str) -> crate::pg::error::Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("invalid value for {what}: \"{}\"", String::from_utf8_lossy(word)),
    )
    .hint(format!(
        "Available values: {}.",
        known.replace(" and ", ", ").replace('"', "")
    ))
    .into()
}

/// An interval for a statement.
pub fn interval(value: Option<Interval>) -> Value<'static> {
    value.map_or(Value::Null, |interval| Value::Other(INTERVAL, interval.datum))
}
