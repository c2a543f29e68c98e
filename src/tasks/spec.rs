//! The specification of a schedule: when it is due.

use crate::pg::error::{Report, Result};
use crate::pg::value::zone;
use pgrx::PgSqlErrorCode;

/// When a schedule is due. It means instants only together with a time zone, and with an instant that it counts from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spec {
    /// `every 2 hours`: an instant, and each that many intervals after it.
    Every(Every),
}

/// An interval of at least a second, no part of which is negative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Every {
    pub months: i32,
    pub days: i32,
    pub microseconds: i64,
}

impl Spec {
    /// Reads a specification. Guarded. 22023 for what is none, and for what can never be due; 22008 for an interval that is out of range.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let interval = match text.strip_prefix(b"every ") {
            Some(text) => zone::interval(text)?,
            None => None,
        };
        match interval {
            Some(interval) => Ok(Self::Every(Every {
                months: interval.months,
                days: interval.days,
                microseconds: interval.microseconds,
            })),
            None => Err(Report::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("invalid schedule: \"{}\"", String::from_utf8_lossy(text)),
            )
            .into()),
        }
    }
}
