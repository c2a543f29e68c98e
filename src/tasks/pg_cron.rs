//! The jobs of pg_cron, as its table has them, and what their schedules mean here.

use crate::pg::catalog::extension::Table;
use crate::pg::error::{Report, Result};
use crate::pg::function::rows::{INT8, Value};
use crate::pg::plan::{self, Plan, Row};
use crate::tasks::fields::{Field, OF_CRON};
use pgrx::PgSqlErrorCode;

const TABLE: Table = Table {
    extension: c"pg_cron",
    schema: c"cron",
    name: c"job",
};

/// A job.
pub struct Job {
    pub id: i64,
    pub schedule: Vec<u8>,
    pub command: Vec<u8>,
    host: Vec<u8>,
    port: i32,
    pub database: Vec<u8>,
    pub user: Vec<u8>,
    pub is_active: bool,
    name: Option<Vec<u8>>,
}

/// Old releases have no names.
macro_rules! jobs {
    ($end:literal) => {
        concat!(
            "SELECT jobid, schedule, command, nodename, nodeport, database, username, active, \
                 pg_catalog.to_jsonb(j) OPERATOR(pg_catalog.->>) 'jobname' \
             FROM cron.job AS j ORDER BY jobid",
            $end
        )
    };
}

static JOBS: Plan = Plan::planned(plan::text(jobs!("\0")), &[]);

static JOBS_TO_CHANGE: Plan = Plan::planned(plan::text(jobs!(" FOR UPDATE\0")), &[]);

/// The trigger of the table tells pg_cron's own process.
static DISABLE: Plan = Plan::planned(
    c"UPDATE cron.job SET active = false WHERE jobid OPERATOR(pg_catalog.=) $1",
    &[INT8],
)
.firing_triggers();

/// A setting that the library does not define is one of a later release, which it knows nothing of, unless the library is not loaded.
static SETTINGS: Plan = Plan::fixed(
    c"SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'cron.database_name') \
          THEN (SELECT setting FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'cron.timezone') \
          ELSE pg_catalog.current_setting('cron.timezone', true) END, \
      pg_catalog.current_setting('cron.host', true), \
      pg_catalog.current_setting('cron.use_background_workers', true) OPERATOR(pg_catalog.=) ANY ('{on,true,yes,1}'), \
      pg_catalog.current_setting('port')::pg_catalog.int4",
    &[],
);

/// How pg_cron runs its jobs.
#[derive(Default)]
pub struct Settings {
    /// The time zone of all schedules.
    pub time_zone: Vec<u8>,
    host: Option<Vec<u8>>,
    has_workers: bool,
    port: i32,
}

/// The jobs in the order of their ids, and how they are run. If `changes`, the jobs stay as they are until the transaction ends. 55000 if pg_cron is not
/// installed in this database.
pub fn jobs(changes: bool) -> Result<(Vec<Job>, Settings)> {
    if !TABLE.keep(changes)? {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "extension \"pg_cron\" is not installed in this database",
        )
        .hint("It is installed in the database that the setting cron.database_name names.")
        .into());
    }
    // A query without FROM has one row.
    let settings = SETTINGS.first(&[], |row| {
        Ok(Settings {
            time_zone: row.text(0)?.unwrap_or_default(),
            host: row.text(1)?,
            has_workers: row.bool(2)?.unwrap_or(false),
            port: row.int4(3)?.unwrap_or(0),
        })
    })?;
    let mut settings = settings.unwrap_or_default();
    if settings.time_zone.is_empty() {
        settings.time_zone = b"GMT".to_vec();
    }
    let jobs = if changes { &JOBS_TO_CHANGE } else { &JOBS };
    Ok((jobs.rows(&[], Job::read)?, settings))
}

impl Job {
    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.int8(0)?.unwrap_or(0),
            schedule: row.text(1)?.unwrap_or_default(),
            command: row.text(2)?.unwrap_or_default(),
            host: row.text(3)?.unwrap_or_default(),
            port: row.int4(4)?.unwrap_or(0),
            database: row.text(5)?.unwrap_or_default(),
            user: row.text(6)?.unwrap_or_default(),
            is_active: row.bool(7)?.unwrap_or(false),
            name: row.text(8)?,
        })
    }

    /// Its name, or one that has its number.
    pub fn name(&self) -> Vec<u8> {
        match &self.name {
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("pg_cron job {}", self.id).into_bytes(),
        }
    }

    /// The server that it runs on, if that is another one. With background workers pg_cron does not look at it.
    pub fn elsewhere(&self, settings: &Settings) -> Option<String> {
        const LOCAL: [&[u8]; 4] = [b"", b"localhost", b"127.0.0.1", b"::1"];
        let is_here = LOCAL.contains(&self.host.as_slice())
            || self.host.starts_with(b"/")
            || Some(&self.host) == settings.host.as_ref();
        let is_local = is_here && self.port == settings.port;
        (!settings.has_workers && !is_local)
            .then(|| format!("{}, port {}", String::from_utf8_lossy(&self.host), self.port))
    }

    /// Disables it.
    pub fn disable(&self) -> Result<()> {
        DISABLE.execute(&[Value::Int8(self.id)])?;
        Ok(())
    }
}

/// The place of the day of month among the fields.
const DAY: usize = 2;

/// The specification that is due at the same times as a schedule of pg_cron; if there is none, why.
///
/// pg_cron takes more than it understands: what follows the fifth field and what follows a value in a field is dropped without a word, and here it
/// would mean something else. So only what both read alike goes through.
pub fn spec(schedule: &[u8]) -> core::result::Result<String, String> {
    let text = core::str::from_utf8(schedule)
        .map_err(|_| "the schedule has characters that pg_cron does not know".to_owned())?;
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match words.as_slice() {
        [name, ..] if name.starts_with('@') => Ok((*name).to_owned()),
        [_, unit] if unit.starts_with("second") => Ok(words.join(" ")),
        [first, second, third, fourth, fifth, ..] => {
            let mut fields = Vec::new();
            for (n, text) in [first, second, third, fourth, fifth].into_iter().enumerate() {
                fields.push(field(n, text)?);
            }
            Ok(fields.join(" "))
        }
        _ => Err("the schedule has too few fields".to_owned()),
    }
}

fn field(n: usize, text: &str) -> core::result::Result<String, String> {
    if n == DAY && text == "$" {
        return Ok(text.to_owned());
    }
    let elements: core::result::Result<Vec<String>, String> =
        text.split(',').map(|text| element(OF_CRON[n], text)).collect();
    elements.map(|elements| elements.join(","))
}

fn element(field: &Field, text: &str) -> core::result::Result<String, String> {
    let unclear = || format!("it is not clear what pg_cron understands by \"{text}\"");
    let (values, step) = match text.split_once('/') {
        Some((values, step)) => (values, Some(number(step).filter(|step| *step > 0).ok_or_else(unclear)?)),
        None => (text, None),
    };
    if values != "*" {
        let value = |text: &str| value(field, text).ok_or_else(unclear);
        match values.split_once('-') {
            Some((low, high)) if value(low)? > value(high)? => return Err(unclear()),
            Some(_) => (),
            None if step.is_some() => return Err(unclear()),
            None => {
                value(values)?;
            }
        }
    }
    Ok(match step {
        // So long a step reaches no second value.
        Some(step) => format!("{values}/{}", step.min(field.values)),
        None => values.to_owned(),
    })
}

fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX))
}

fn value(field: &Field, text: &str) -> Option<u32> {
    let named = field.names.iter().position(|name| text.eq_ignore_ascii_case(name));
    let value = named.map(|index| index as u32 + field.low).or_else(|| number(text))?;
    (field.low..=field.high).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::spec;

    #[test]
    fn what_both_read_alike() {
        for (schedule, expected) in [
            ("0 3 * * *", "0 3 * * *"),
            ("  0\t3   * *  1 ", "0 3 * * 1"),
            ("0-59/7 1,2,3 1-15 jan,MAR mon-Fri", "0-59/7 1,2,3 1-15 jan,MAR mon-Fri"),
            ("0 0 $ * *", "0 0 $ * *"),
            ("00 007 1 * 7", "00 007 1 * 7"),
            ("@hourly", "@hourly"),
            (" @daily and more", "@daily"),
            ("30 seconds", "30 seconds"),
            ("1 second", "1 second"),
            // What follows is no sixth field.
            ("0 3 1 * * 2020", "0 3 1 * *"),
            ("0 3 1 * * select", "0 3 1 * *"),
            ("*/70 */24 * * */8", "*/60 */24 * * */7"),
            ("5-20/99 * * * *", "5-20/60 * * * *"),
        ] {
            assert_eq!(spec(schedule.as_bytes()).as_deref(), Ok(expected), "{schedule}");
        }
    }

    #[test]
    fn what_would_mean_something_else() {
        for schedule in [
            "",
            "* * * *",
            "0 22-2 * * *",
            "0 0 * * fri-sun",
            "0 0 * * 1#2",
            "0 0 15W * *",
            "0 0 L * *",
            "0 0 1,$ * *",
            "0 0 ? * *",
            "5/10 * * * *",
            "*/0 * * * *",
            "60 * * * *",
            "1,,2 * * * *",
            "1- * * * *",
            "* * * january *",
            "* * * * 8",
        ] {
            assert!(spec(schedule.as_bytes()).is_err(), "{schedule}");
        }
        assert!(spec(b"0 0 * * \xff").is_err());
    }
}
