//! The engine's work in the transaction of a job, before the job's first statement and after its last one.
//!
//! It acts as the job's user, and an error in it is the job's error, so the job's effects and the engine's are one transaction. Work that
//! needs other rights, or a snapshot of its own, takes them itself, and leaves the roles and the active snapshot as it found them.

use crate::channel::request::Work;
use crate::pg::error::throw;
use crate::pg::query::simple_query::Completion;
use crate::pg::raw::Raw;
use crate::pg::value::params::Parameters;
use crate::tasks::runner;

/// Called before the first statement. Returns the parameters that come from the work itself.
pub fn before(raw: Raw<'_>, work: Work) -> Option<Parameters> {
    match work {
        Work::None | Work::Keep | Work::Scout => None,
        Work::Task => match runner::before() {
            Ok(parameters) => parameters,
            Err(failure) => throw(raw, failure),
        },
        #[cfg(feature = "probe")]
        Work::Probe { before, .. } => {
            probe::do_it(raw, before, c"INSERT INTO marks VALUES ('before')");
            None
        }
    }
}

/// Called after the last statement, before the commit, with what that has done, None if there was none.
pub fn after(raw: Raw<'_>, work: Work, last: Option<&Completion>) {
    match work {
        Work::None | Work::Keep | Work::Scout => (),
        Work::Task => {
            let rows = last.map_or(0, |last| last.rows() as i64);
            if let Err(failure) = runner::mark(rows, last.map(Completion::tag)) {
                throw(raw, failure);
            }
        }
        #[cfg(feature = "probe")]
        Work::Probe { after, .. } => probe::do_it(raw, after, c"INSERT INTO marks VALUES ('after')"),
    }
}

#[cfg(feature = "probe")]
mod probe {
    use crate::channel::request::Deed;
    use crate::pg::error::{emit_raw, raise_raw, throw};
    use crate::pg::raw::Raw;
    use crate::pg::spi;
    use crate::worker::attached;
    use core::ffi::CStr;
    use pgrx::PgSqlErrorCode;

    pub fn do_it(raw: Raw<'_>, deed: Deed, insert: &CStr) {
        match deed {
            Deed::Nothing => (),
            Deed::Insert => {
                if let Err(failure) = spi::execute_between_statements(insert) {
                    throw(raw, failure);
                }
            }
            Deed::Raise => raise_raw(
                raw,
                PgSqlErrorCode::ERRCODE_TRIGGERED_ACTION_EXCEPTION,
                &[b"the engine's work fails"],
                None,
            ),
            Deed::Vanish => {
                attached::let_go();
                emit_raw(
                    raw,
                    pgrx::pg_sys::FATAL,
                    PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN,
                    c"the worker vanishes",
                );
            }
        }
    }
}
