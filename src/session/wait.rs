//! Waiting until jobs end. The worker wakes this session when it publishes the end. Every `deadlock_timeout` the session looks whether the
//! worker has died; nothing else is polled.

use crate::pg::error::Result;
use crate::pg::guc::own;
use crate::pg::process::{backend, latch};
use crate::pg::{fallible, spi};
use crate::session::deadlock;
use crate::session::jobs::Handle;
use crate::session::waiting::Waiting;
use std::collections::HashSet;
use std::rc::Rc;

/// When to stop waiting.
#[derive(Clone, Copy)]
pub struct Deadline(Option<i64>);

impl Deadline {
    /// The time in `timeout_ms` milliseconds; 0 and below mean never.
    pub fn after(timeout_ms: i32) -> Self {
        Self((timeout_ms > 0).then(|| backend::now() + i64::from(timeout_ms) * 1000))
    }

    /// The milliseconds left, rounded up, so that a wait for them does not end too early. None without a limit.
    pub fn left(self) -> Option<i64> {
        self.0.map(|at| (at - backend::now() + 999).div_euclid(1000).max(0))
    }

    /// Whether it is over.
    pub fn has_passed(self) -> bool {
        self.0.is_some_and(|at| backend::now() >= at)
    }
}

/// Sleeps until `answer` returns a value. It is called again each time this session is woken. At the deadline this returns None. Each time
/// it has slept for `deadlock_timeout`, jobs among `handles` that wait for this very session are made to fail.
pub fn until<T>(
    handles: &[Rc<Handle>],
    deadline: Deadline,
    mut answer: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    if let Some(answer) = answer()? {
        return Ok(Some(answer));
    }
    // A caller may name a job many times; the session waits for it once.
    let mut handles = fallible::copied(handles)?;
    if handles.len() > 1 {
        let mut named = HashSet::new();
        handles.retain(|handle| named.insert(handle.cookie));
    }
    let _waiting = Waiting::begin(handles.iter().map(|handle| handle.slot));
    let patience = i64::from(own::deadlock_timeout().max(1));
    let mut look_at = backend::now() + patience * 1000;
    loop {
        latch::reset_latch();
        if let Some(answer) = answer()? {
            return Ok(Some(answer));
        }
        if deadline.has_passed() {
            return Ok(None);
        }
        let now = backend::now();
        if now >= look_at {
            deadlock::resolve(&handles);
            look_at = now + patience * 1000;
        }
        spi::forget_catalog_snapshot();
        let next_look = (look_at - now + 999) / 1000;
        latch::wait(deadline.left().map_or(next_look, |left| left.min(next_look)))?;
    }
}

/// Waits for one job. False at the deadline.
pub fn for_job(handle: &Rc<Handle>, deadline: Deadline) -> Result<bool> {
    Ok(until(core::slice::from_ref(handle), deadline, || {
        Ok(handle.has_ended().then_some(()))
    })?
    .is_some())
}
