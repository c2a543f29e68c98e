//! Judges what an error means for the job: its state, the counter that it lands in, and the error that readers get.

use crate::pg::error::{self, Report};
use crate::pg::process::backend;
use crate::pg::{sqlstate, text, wire};
use crate::registry::counters::Count;
use crate::registry::job::{self, End, MESSAGE_MAX, Slot, State, Stop};
use crate::worker::output::LastWords;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::ErrorData;

/// How a job ended. It has a fixed size, and owns nothing but the part of its error in the dynamic shared area.
pub struct Verdict {
    pub state: State,
    pub count: Count,
    pub error: Option<job::Error>,
}

impl Verdict {
    /// The same for the registry.
    pub fn end(&self) -> End {
        End {
            state: self.state,
            count: self.count,
            error: self.error,
        }
    }

    /// The job has done all that it was asked for.
    pub const SUCCESS: Verdict = Verdict {
        state: State::Stopped,
        count: Count::Completed,
        error: None,
    };
}

/// Judges a caught error, and sets the text that fits the reason: several things may interrupt a statement, and PostgreSQL only knows
/// that it was cancelled. The stored error names the pid of the job's handle.
///
/// The error is stored here, before anything is published, so that no later step needs memory. If memory is out, only the beginning of its
/// message is kept.
pub fn of(edata: *mut ErrorData, slot: &Slot) -> Verdict {
    let interrupted = error::sqlstate(edata) == sqlstate::pack(b"57014");
    let stop = slot.stop();
    if interrupted {
        match stop {
            Stop::Deadlock => error::replace(edata, deadlock(slot)),
            Stop::WorkerTimeout => error::replace(
                edata,
                Report::new(
                    PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                    "canceling job due to pg_background.worker_timeout",
                ),
            ),
            Stop::RunTimeout => error::replace(
                edata,
                Report::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "canceling job due to timeout"),
            ),
            Stop::Cancel | Stop::No => (),
        }
    }
    let canceled = interrupted
        && match stop {
            Stop::No => error::is_user_cancel(edata),
            Stop::Deadlock => false,
            Stop::Cancel | Stop::WorkerTimeout | Stop::RunTimeout => true,
        };
    Verdict {
        state: if canceled { State::Canceled } else { State::Error },
        count: count(stop, canceled),
        error: Some(kept(edata, slot.pid.load(Relaxed))),
    }
}

fn kept(edata: *mut ErrorData, pid: i32) -> job::Error {
    let code = sqlstate::unpack(error::sqlstate(edata));
    let error = job::Error::new(code, text::clip(wire::message(edata), MESSAGE_MAX), pid);
    match wire::store(edata, pid) {
        Some((pointer, len)) => error.with_whole(pointer, len),
        None => error,
    }
}

/// The verdict on a job for which no process could be started.
pub fn no_process(slot: &Slot) -> Verdict {
    let message = b"could not register background process";
    Verdict {
        state: State::Error,
        count: Count::Failed,
        error: Some(job::Error::new(*b"53000", message, slot.pid.load(Relaxed))),
    }
}

/// The verdict on a job whose process has ended with these last words. None if they do not concern the job: then it is lost (08006).
/// `was_connecting` is set if the process was connecting to the database. Then PostgreSQL's refusal is the job's error: no order can exclude
/// it, since roles, databases and privileges may change until the process connects.
pub fn of_death(last_words: Option<&LastWords>, slot: &Slot, was_connecting: bool) -> Option<Verdict> {
    let words = last_words?;
    if slot.stop() != Stop::No && words.sqlstate == sqlstate::pack(b"57014") {
        return Some(canceled(slot));
    }
    let code = sqlstate::unpack(words.sqlstate);
    // Class 57 is operator intervention.
    let is_refusal = was_connecting && !code.starts_with(b"57");
    if !is_refusal && !is_own_error(words.sqlstate) {
        return None;
    }
    Some(Verdict {
        state: State::Error,
        count: count(slot.stop(), false),
        error: Some(job::Error::new(code, words.message(), slot.pid.load(Relaxed))),
    })
}

/// Whether an error that ended the process is the job's own.
///
/// As a rule such an error concerns the process: it was told to end (57P01). But a few limits on a transaction end the whole session, and
/// so may a conflict with recovery on a standby. The open transaction was rolled back with them.
fn is_own_error(sqlstate: i32) -> bool {
    const OF_THE_TRANSACTION: [&[u8; 5]; 4] = [
        b"25P03", // idle_in_transaction_session_timeout
        b"25P04", // transaction_timeout
        b"40001", // a conflict with recovery
        b"57P04", // the same, if the database was dropped
    ];
    OF_THE_TRANSACTION
        .into_iter()
        .any(|code| sqlstate::pack(code) == sqlstate)
}

/// The verdict on a process that ended because its job was cancelled before it had begun.
pub fn canceled(slot: &Slot) -> Verdict {
    let message = b"canceling statement due to user request";
    let error = job::Error::new(*b"57014", message, slot.pid.load(Relaxed));
    Verdict {
        state: State::Canceled,
        count: count(slot.stop(), true),
        error: Some(error),
    }
}

fn count(stop: Stop, canceled: bool) -> Count {
    match stop {
        Stop::WorkerTimeout | Stop::RunTimeout => Count::TimedOut,
        _ if canceled => Count::Canceled,
        _ => Count::Failed,
    }
}

fn deadlock(slot: &Slot) -> Report {
    let (waiter, on_snapshot) = {
        let job = slot.lock();
        (job.deadlock_pid, job.deadlock_on_snapshot)
    };
    let me = backend::my_pid();
    let held = if on_snapshot { "the snapshot" } else { "a lock" };
    let report = Report::new(PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED, "deadlock detected")
        .detail(format!("Process {waiter} waits for the job of process {me}; process {me} waits, directly or through others, for {held} of process {waiter}."));
    if on_snapshot {
        report.hint("Use CALL pg_background_do(...), which holds no snapshot while it waits, or launch the job and look at its result in a later statement.")
    } else {
        report.hint("Commit what the job needs before waiting for it, or wait in another transaction.")
    }
}
