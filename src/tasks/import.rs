//! Schedules made of the jobs of pg_cron.
//!
//! A schedule of a job runs as pg_cron runs the job: as its user, in its database, as a message of its own, with the settings and the search path of
//! a new session, one run at a time, a second one after it, and none for times that were missed. The table of schedules keeps the number of the job, so
//! another import replaces what an earlier one has made and nothing else.
//!
//! Each job has a subtransaction: what is wrong with one keeps none of the others from being imported, and a job is disabled together with the making
//! of its schedule, or not at all.

use crate::pg::catalog::role;
use crate::pg::error::{self, Failure, Report, Result};
use crate::pg::function::rows::{INT8, TEXT, Value};
use crate::pg::plan::{self, Plan, Row};
use crate::pg::process::signals;
use crate::pg::value::role as roles;
use crate::pg::{fallible, memory, spi};
use crate::tasks::join;
use crate::tasks::pg_cron::{self, Job, Settings};
use crate::tasks::schedule::{self, Asked, Origin};
use pgrx::PgSqlErrorCode;

/// What an import is to do.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// Nothing but to say what it would do.
    pub is_dry: bool,
    /// Jobs that have become schedules are disabled.
    pub disables: bool,
}

/// What has become, or would become, of a job.
pub struct Outcome<'a> {
    pub job: i64,
    /// Of the schedule.
    pub name: &'a [u8],
    pub spec: &'a [u8],
    pub action: &'a str,
}

/// A schedule that is there.
struct Known {
    id: i64,
    name: Vec<u8>,
    /// 0 if the role does not exist.
    role: u32,
    role_name: Vec<u8>,
    origin: Origin,
    is_enabled: bool,
}

macro_rules! known {
    ($end:literal) => {
        concat!(
            "SELECT id, name, background.role_oid(owner), background.role_name(owner)::pg_catalog.text, pg_cron_job, pg_cron_disabled, enabled \
             FROM background.schedule WHERE name OPERATOR(pg_catalog.=) $1 OR pg_cron_job OPERATOR(pg_catalog.=) $2",
            $end
        )
    };
}

static KNOWN: Plan = Plan::planned(plan::text(known!("\0")), &[TEXT, INT8]);

static KNOWN_TO_CHANGE: Plan = Plan::planned(plan::text(known!(" FOR UPDATE\0")), &[TEXT, INT8]);

impl Known {
    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.int8(0)?.unwrap_or(0),
            name: row.text(1)?.unwrap_or_default(),
            role: row.oid(2)?.unwrap_or(0),
            role_name: row.text(3)?.unwrap_or_default(),
            origin: Origin {
                job: row.int8(4)?,
                is_disabled: row.bool(5)?.unwrap_or(false),
            },
            is_enabled: row.bool(6)?.unwrap_or(false),
        })
    }
}

/// Makes a schedule of each job of pg_cron, or says what it would do, and tells `report` the outcome of each.
///
/// Errors: 42501 for a role that is no superuser, 55000 if pg_cron is not installed in this database, 25006 if anything is to be written where nothing
/// may be.
pub fn import(wanted: Wanted, mut report: impl FnMut(Outcome) -> Result<()>) -> Result<()> {
    if !role::is_superuser() {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "must be superuser to import the jobs of pg_cron",
        )
        .into());
    }
    if !wanted.is_dry {
        schedule::check_caller(c"background.import_pg_cron()")?;
    }
    join::tables()?;
    let (jobs, settings) = pg_cron::jobs(!wanted.is_dry && wanted.disables)?;
    // The names that a dry run would have given, and to whose schedules.
    let mut given = Vec::new();
    for job in &jobs {
        signals::check_for_interrupts()?;
        let name = job.name();
        let (spec, action) = match pg_cron::spec(&job.schedule) {
            Err(reason) => (fallible::copied(&job.schedule)?, skipped(&reason)),
            Ok(spec) => {
                let import = Import {
                    wanted,
                    job,
                    settings: &settings,
                    name: &name,
                    spec: spec.as_bytes(),
                    given: &given,
                };
                let action = import.action()?;
                (spec.into_bytes(), action)
            }
        };
        report(Outcome {
            job: job.id,
            name: &name,
            spec: &spec,
            action: &action,
        })?;
        if wanted.is_dry && !action.starts_with(SKIPPED) {
            fallible::push(&mut given, (name, job.user.as_slice()))?;
        }
    }
    Ok(())
}

const SKIPPED: &str = "skipped: ";

fn skipped(reason: &str) -> String {
    format!("{SKIPPED}{reason}")
}

/// The import of one job.
struct Import<'a> {
    wanted: Wanted,
    job: &'a Job,
    settings: &'a Settings,
    name: &'a [u8],
    spec: &'a [u8],
    given: &'a [(Vec<u8>, &'a [u8])],
}

impl Import<'_> {
    /// What is done. Errors are those that are not about the job.
    fn action(&self) -> Result<String> {
        match spi::in_subtransaction(|| self.run()) {
            Ok(action) => Ok(action),
            Err(failure) => {
                let data = error::into_data(failure);
                if is_about_more(error::sqlstate(data)) {
                    return Err(Failure::Caught(data));
                }
                Ok(skipped(&String::from_utf8_lossy(error::text(data))))
            }
        }
    }

    fn run(&self) -> Result<String> {
        let Self { job, wanted, .. } = *self;
        if let Some(server) = job.elsewhere(self.settings) {
            return Ok(skipped(&format!("it runs on another server ({server})")));
        }
        let Some(role) = roles::number_of(&job.user) else {
            return Ok(skipped(&format!(
                "role \"{}\" does not exist",
                String::from_utf8_lossy(&job.user)
            )));
        };
        let known = if wanted.is_dry { &KNOWN } else { &KNOWN_TO_CHANGE };
        let known = known.rows(&[Value::Text(self.name), Value::Int8(job.id)], Known::read)?;
        let others = known.iter().find(|known| known.origin.job != Some(job.id));
        let others = others.map(|known| known.role_name.as_slice()).or_else(|| {
            let given = self.given.iter().find(|(name, _)| name == self.name);
            given.map(|(_, user)| *user)
        });
        if let Some(other) = others {
            let reason = format!(
                "there is another schedule of this name, of role \"{}\"",
                String::from_utf8_lossy(other)
            );
            return Ok(skipped(&reason));
        }
        // A job that an earlier import has disabled goes on as its schedule does.
        let before = known.iter().find(|known| known.origin.is_disabled && !job.is_active);
        let is_enabled = job.is_active || before.is_some_and(|known| known.is_enabled);
        let asked = Asked {
            spec: Some(self.spec),
            sql: Some(&job.command),
            time_zone: Some(&self.settings.time_zone),
            overlap: Some(b"queue"),
            catch_up: Some(b"none"),
            max_attempts: Some(1),
            mode: Some(b"statement"),
            database: Some(memory::copy_c_str(&job.database)),
            enabled: Some(is_enabled),
            ..Asked::default()
        };
        let checked = schedule::check(self.name, &asked, role)?;
        let disables = wanted.disables && job.is_active;
        if !wanted.is_dry {
            // The name or the role of the job has changed.
            for known in known
                .iter()
                .filter(|known| known.name != self.name || known.role != role)
            {
                schedule::delete(known.id)?;
            }
            let origin = Origin {
                job: Some(job.id),
                is_disabled: disables || before.is_some(),
            };
            checked.store(None, &origin)?;
            if disables {
                job.disable()?;
            }
        }
        Ok(self.says(!known.is_empty(), is_enabled, disables))
    }

    fn says(&self, is_replaced: bool, is_enabled: bool, disables: bool) -> String {
        let done = match (self.wanted.is_dry, is_replaced) {
            (true, false) => "would create",
            (true, true) => "would replace",
            (false, false) => "created",
            (false, true) => "replaced",
        };
        let state = if is_enabled { "" } else { ", disabled" };
        let job = match (self.wanted.is_dry, disables) {
            (true, true) => "; would disable the job",
            (false, true) => "; disabled the job",
            (_, false) if self.job.is_active => "; pg_cron runs the job too",
            (_, false) => "",
        };
        format!("{done}{state}{job}")
    }
}

/// Whether an error says nothing of the one job: of the classes 53, 57 and 58.
fn is_about_more(code: i32) -> bool {
    /// Two characters of six bits each.
    const CLASS: i32 = 0xfff;
    [
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
        PgSqlErrorCode::ERRCODE_OPERATOR_INTERVENTION,
        PgSqlErrorCode::ERRCODE_SYSTEM_ERROR,
    ]
    .into_iter()
    .any(|class| (class as i32 ^ code) & CLASS == 0)
}
