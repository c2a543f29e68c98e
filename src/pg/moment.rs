//! Moments: named places between two steps, at which a test has a fault happen. Only the library of the probe (`make probe-installed`) has
//! them; elsewhere these functions do nothing.
//!
//! A test arms a moment by a file of that name in the directory `pg_background.moments` of the data directory. The file says what happens to
//! the next process that comes by. That process renames the file to `NAME.reached` first, so a fault happens once, also if the server starts
//! again.
//!
//! | the file says | what happens |
//! | --- | --- |
//! | `error` | an error, if one is legal there |
//! | `cancel` | SIGINT to the process itself |
//! | `die` | SIGTERM to the process itself, served at once if that is legal there |
//! | `kill` | SIGKILL to the process itself: the server starts again |
//! | `stop` | the process waits until the file `NAME.reached` is gone, and serves nothing meanwhile |

use crate::pg::error::Result;

/// The process comes by at a place at which nothing may be raised.
#[inline(always)]
pub fn passes(_name: &str) {
    #[cfg(feature = "probe")]
    armed::happens(_name);
}

/// The process comes by at a place at which an error is legal. 09000, or what the signal that it has got raises.
#[inline(always)]
pub fn may_fail(_name: &str) -> Result<()> {
    #[cfg(feature = "probe")]
    armed::may_fail(_name)?;
    Ok(())
}

#[cfg(feature = "probe")]
mod armed {
    use crate::pg::error::{Report, Result};
    use crate::pg::process::backend::my_pid;
    use crate::pg::process::signals;
    use crate::pg::raw;
    use core::time::Duration;
    use pgrx::PgSqlErrorCode;

    // signal.h
    const SIGKILL: i32 = 9;

    pub fn may_fail(name: &str) -> Result<()> {
        match happens(name) {
            Some(fault) if fault == "error" => Err(Report::new(
                PgSqlErrorCode::ERRCODE_TRIGGERED_ACTION_EXCEPTION,
                format!("a fault at the moment \"{name}\""),
            )
            .into()),
            Some(_) => signals::check_for_interrupts(),
            None => Ok(()),
        }
    }

    /// Does what the moment is armed with, if it is. Returns that.
    pub fn happens(name: &str) -> Option<String> {
        let armed = format!("pg_background.moments/{name}");
        let reached = format!("{armed}.reached");
        std::fs::rename(&armed, &reached).ok()?;
        let fault = std::fs::read_to_string(&reached).unwrap_or_default();
        let fault = fault.trim();
        let signal = match fault {
            "cancel" => raw::SIGINT,
            "die" => raw::SIGTERM,
            "kill" => SIGKILL,
            _ => 0,
        };
        if signal != 0 {
            // SAFETY: kill has no memory effects.
            unsafe { raw::kill(my_pid(), signal) };
        }
        // Not for ever: a test that has failed ends its server.
        for _ in 0..60_000 {
            if fault != "stop" || !std::path::Path::new(&reached).exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(fault.to_owned())
    }
}
