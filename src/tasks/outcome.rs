//! The end of a task of a schedule is noted with the schedule, which keeps it when the history does not any more.
//!
//! It is no part of the end: a session that holds the row of the schedule must not hold up tasks. So the row is waited for only a moment.

use crate::pg::error::{self, Result};
use crate::pg::function::rows::{INT4, INT8, TEXT, TIMESTAMPTZ, Value};
use crate::pg::guc::own;
use crate::pg::plan::Plan;
use crate::pg::spi;
use crate::pg::sqlstate;
use core::ffi::CStr;

/// How long the row is waited for.
const PATIENCE: &CStr = c"100ms";

/// A failure is counted, and what became of the last task is noted.
static NOTE: Plan = Plan::planned(
    c"UPDATE background.firing SET failures_total = failures_total OPERATOR(pg_catalog.+) $4, \
          last_state = CASE WHEN last_task OPERATOR(pg_catalog.=) $2 THEN $3 ELSE last_state END, \
          last_duration = CASE WHEN last_task OPERATOR(pg_catalog.=) $2 THEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) $5 \
              ELSE last_duration END \
      WHERE schedule OPERATOR(pg_catalog.=) (SELECT id FROM background.schedule WHERE name OPERATOR(pg_catalog.=) $1) \
          AND (last_task OPERATOR(pg_catalog.=) $2 OR $4 OPERATOR(pg_catalog.>) 0)",
    &[TEXT, INT8, TEXT, INT4, TIMESTAMPTZ],
);

/// A task of a schedule that has ended.
#[derive(Clone, Copy)]
pub struct Outcome<'a> {
    pub task: i64,
    pub schedule: &'a [u8],
    pub state: &'a [u8],
    /// 0 if it has not begun.
    pub started_at: i64,
}

impl Outcome<'_> {
    /// Notes it in the open transaction, which is a short one. Without the note if another transaction holds the row.
    pub fn note(&self) -> Result<()> {
        let has_failed = matches!(self.state, b"failed" | b"expired");
        let noted = spi::in_subtransaction(|| {
            own::set(c"lock_timeout", PATIENCE, true)?;
            NOTE.execute(&[
                Value::Text(self.schedule),
                Value::Int8(self.task),
                Value::Text(self.state),
                Value::Int4(has_failed.into()),
                Value::time_or_null(self.started_at),
            ])
        });
        let Err(failure) = noted else { return Ok(()) };
        let edata = error::into_data(failure);
        if error::sqlstate(edata) != sqlstate::pack(b"55P03") {
            return Err(error::Failure::Caught(edata));
        }
        Ok(())
    }
}
