//! The engine's work in the transaction of a job, before the job's first statement and after its last one.
//!
//! It acts as the job's user, and an error in it is the job's error, so the job's effects and the engine's are one transaction. Work that
//! needs other rights, or a snapshot of its own, takes them itself, and leaves the roles and the active snapshot as it found them.

use crate::channel::request::Work;
use crate::pg::raw::Raw;

/// Called before the first statement.
#[cfg_attr(
    not(feature = "probe"),
    allow(unused_variables, reason = "no job asks for any work yet")
)]
pub fn before(raw: Raw<'_>, work: Work) {
    match work {
        Work::None => (),
        #[cfg(feature = "probe")]
        Work::Probe { before, .. } => probe::do_it(raw, before, c"INSERT INTO marks VALUES ('before')"),
    }
}

/// Called after the last statement, before the commit.
#[cfg_attr(
    not(feature = "probe"),
    allow(unused_variables, reason = "no job asks for any work yet")
)]
pub fn after(raw: Raw<'_>, work: Work) {
    match work {
        Work::None => (),
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
