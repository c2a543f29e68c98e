//! The functions that cancel jobs and release handles: `cancel`, `cancel_all`, `cancel_by_label`, `detach`, `detach_all`, `purge`.

use crate::api::handle;
use crate::pg::error::Result;
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::Value;
use crate::pg::{fallible, text};
use crate::registry::job::Stop;
use crate::session::jobs::{self, Handle};
use crate::session::wait::{self, Deadline};
use std::rc::Rc;

/// The longest grace, in milliseconds. A larger value counts as this one.
const GRACE_MAX: i32 = 3_600_000;

crate::sql_function! {
    pg_background_cancel => cancel;
    pg_background_cancel_v2 => cancel;
    pg_background_cancel_all => cancel_all;
    pg_background_cancel_all_v2 => cancel_all;
    pg_background_cancel_by_label => cancel_by_label;
    pg_background_cancel_by_label_v2 => cancel_by_label;
    pg_background_detach => detach;
    pg_background_detach_v2 => detach;
    pg_background_detach_all => detach_all;
    pg_background_detach_all_v2 => detach_all;
    pg_background_purge => purge;
    pg_background_purge_v2 => purge;
}

/// `cancel(pid, cookie, grace_ms)`: cancels the job's current statement and all after it, and waits up to the grace for the job's end.
fn cancel(call: &Call) -> Result<Answer> {
    let (Some(pid), Some(cookie)) = (call.int4(0), call.int8(1)) else {
        return call.null();
    };
    let handle = jobs::find_to_cancel(pid, cookie)?;
    cancel_each(&[handle], call.int4(2).unwrap_or(0))?;
    call.void()
}

/// `cancel_all()`: cancels every running job of this session that the role may act on. Returns how many.
fn cancel_all(call: &Call) -> Result<Answer> {
    let canceled = cancel_each(&jobs::all_to_act_on()?, 0)?;
    call.scalar(Value::Int4(canceled))
}

/// `cancel_by_label(pattern, grace_ms)`: the same for jobs whose label is LIKE the pattern.
fn cancel_by_label(call: &Call) -> Result<Answer> {
    let Some(pattern) = call.text(0) else {
        return call.null();
    };
    let mut matching = Vec::new();
    for handle in jobs::all_to_act_on()? {
        let label = handle.slot.lock().label_copy();
        if let Some(label) = label
            && text::is_like(&label, pattern)?
        {
            fallible::push(&mut matching, handle)?;
        }
    }
    let canceled = cancel_each(&matching, call.int4(1).unwrap_or(0))?;
    call.scalar(Value::Int4(canceled))
}

/// Cancels the running jobs among `handles`, and waits for all of them with one grace. Returns how many were running.
fn cancel_each(handles: &[Rc<Handle>], grace_ms: i32) -> Result<i32> {
    let mut running = Vec::new();
    fallible::reserve(&mut running, handles.len())?;
    running.extend(handles.iter().filter(|handle| handle.cancel(Stop::Cancel)).cloned());
    if grace_ms > 0 && !running.is_empty() {
        let deadline = Deadline::after(grace_ms.min(GRACE_MAX));
        wait::until(&running, deadline, || {
            Ok(running.iter().all(|handle| handle.has_ended()).then_some(()))
        })?;
    }
    Ok(running.len() as i32)
}

/// `detach(pid, cookie)`: releases the handle.
fn detach(call: &Call) -> Result<Answer> {
    let Some(handle) = handle(call)? else {
        return call.null();
    };
    jobs::release(&handle);
    call.void()
}

/// `detach_all()`: releases all handles of this session. Returns how many.
fn detach_all(call: &Call) -> Result<Answer> {
    forget(call, |_| true)
}

/// `purge()`: releases the handles of ended jobs. Returns how many.
fn purge(call: &Call) -> Result<Answer> {
    forget(call, Handle::has_ended)
}

/// Releases those handles of this session for which `which` returns true and which the role may act on. Returns how many.
fn forget(call: &Call, which: impl Fn(&Handle) -> bool) -> Result<Answer> {
    let mut count = 0;
    for handle in jobs::all_to_act_on()? {
        if which(&handle) && jobs::release(&handle) {
            count += 1;
        }
    }
    call.scalar(Value::Int4(count))
}
