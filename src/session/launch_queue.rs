//! Waiting in the launch queue, for `pg_background.launch_timeout` at most.

use crate::dispatch::launch_queue::{Counts, NextStep, QueuedOrder};
use crate::pg::error::{Report, Result};
use crate::pg::process::latch;
use crate::pg::spi;
use crate::registry::admission::{NotAdmitted, Shortage};
use crate::settings;
use pgrx::PgSqlErrorCode;

/// Waits after a launch was not admitted; then the caller tries again. When the timeout is over, raises 53000 for the server's slots, 53400
/// for a cap.
pub fn wait(queued: &mut QueuedOrder, reason: NotAdmitted, counts: Counts) -> Result<()> {
    match queued.next_step(reason, counts, settings::launch_timeout())? {
        NextStep::LookAgain => (),
        NextStep::Sleep(sleep) => {
            spi::forget_catalog_snapshot();
            latch::wait(sleep.ms)?;
            queued.awake(sleep);
        }
        NextStep::Refused { waited_ms } => return Err(refusal(reason, waited_ms).into()),
    }
    // Reset before the caller tries again, so that a later change either is seen or wakes this session.
    latch::reset_latch();
    Ok(())
}

fn refusal(reason: NotAdmitted, waited: i64) -> Report {
    let running = reason.running;
    let mut detail = match reason.shortage {
        Shortage::Session => format!("{running} jobs of this session are running."),
        Shortage::Role => format!(
            "{running} jobs of this role are running, and pg_background.max_role_workers is {}.",
            reason.cap
        ),
        Shortage::Cluster => format!(
            "{running} jobs of the cluster are running, and pg_background.max_cluster_workers is {}.",
            reason.cap
        ),
        Shortage::Server => String::new(),
    };
    let mut add = |sentence: &str| {
        if !detail.is_empty() {
            detail.push(' ');
        }
        detail.push_str(sentence);
    };
    if reason.is_behind {
        add("Other launches are waiting for one to end.");
    }
    if waited > 0 && settings::launch_timeout() > 0 {
        add(&format!("The launch has waited for {waited} ms."));
    }
    let report = match reason.shortage {
        Shortage::Server => Report::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            "could not register background process",
        )
        .hint("You may need to increase max_worker_processes."),
        Shortage::Session | Shortage::Role | Shortage::Cluster => Report::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "too many background workers",
        )
        .hint(match reason.shortage {
            Shortage::Session => "Wait for a job to end, or raise pg_background.max_workers.",
            _ => "Wait for a job to end, or set pg_background.launch_timeout.",
        }),
    };
    match detail.as_str() {
        "" => report,
        _ => report.detail(detail),
    }
}
