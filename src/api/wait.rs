//! The functions that wait for the end of jobs: `wait`, `wait_any` and `drain`.

use crate::api::handle;
use crate::api::info::JobOutcome;
use crate::pg::error::Result;
use crate::pg::fallible;
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::Value;
use crate::session::jobs;
use crate::session::wait::{self, Deadline};

crate::sql_function! {
    pg_background_wait => wait_one;
    pg_background_wait_v2 => wait_one;
    pg_background_wait_any => wait_any;
    pg_background_wait_any_v2 => wait_any;
    pg_background_drain => drain;
    pg_background_drain_v2 => drain;
}

/// `wait(pid, cookie, timeout_ms)`: returns true when the job has ended, false at the timeout.
fn wait_one(call: &Call) -> Result<Answer> {
    let Some(handle) = handle(call)? else {
        return call.null();
    };
    let ended = wait::for_job(&handle, Deadline::after(call.int4(2).unwrap_or(0)))?;
    call.scalar(Value::Bool(ended))
}

/// `wait_any(handles, timeout_ms)`: returns the first handle whose job has ended, NULL at the timeout. Handles that are NULL, unknown or released
/// are skipped. If no other is left, it returns NULL at once, so that a loop can detach each returned handle and call it again. 42501 if the
/// current role may not act on one of the jobs.
fn wait_any(call: &Call) -> Result<Answer> {
    let mut handles = Vec::new();
    let mut found = jobs::HandleCache::default();
    for (pid, cookie) in call.handles(0)? {
        if let Some(handle) = found.or_none(pid, cookie)? {
            fallible::push(&mut handles, handle)?;
        }
    }
    if handles.is_empty() {
        return call.null();
    }
    let deadline = Deadline::after(call.int4(1).unwrap_or(0));
    let first = wait::until(&handles, deadline, || {
        Ok(handles.iter().find(|handle| handle.has_ended()).cloned())
    })?;
    match first {
        Some(handle) => call.composite(&[Value::Int4(handle.pid), Value::Int8(handle.cookie as i64)]),
        None => call.null(),
    }
}

/// `drain(handles, timeout_ms)`: waits for all jobs under one deadline, and returns one outcome for each handle in the order given. Handles of
/// ended jobs are detached. 42501 if the current role may not act on one of the jobs.
fn drain(call: &Call) -> Result<Answer> {
    let rows = call.rows()?;
    let mut asked = Vec::new();
    let mut found = jobs::HandleCache::default();
    for (pid, cookie) in call.handles(0)? {
        fallible::push(&mut asked, (pid, cookie, found.or_none(pid, cookie)?))?;
    }
    let handles = fallible::collected(asked.iter().filter_map(|(_, _, handle)| handle.clone()))?;
    let deadline = Deadline::after(call.int4(1).unwrap_or(0));
    if !handles.is_empty() {
        wait::until(&handles, deadline, || {
            Ok(handles.iter().all(|handle| handle.has_ended()).then_some(()))
        })?;
    }
    for (pid, cookie, handle) in &asked {
        rows.push(&JobOutcome::of_job(*pid, *cookie, handle.as_ref())?.values())?;
    }
    // Only after all rows: a handle that is given twice has two outcomes.
    for handle in handles {
        if handle.has_ended() {
            jobs::release(&handle);
        }
    }
    call.null()
}
