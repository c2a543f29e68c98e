//! The job that this worker has attached to.

use crate::pg::error::Result;
use crate::pg::process::backend::{self, Process};
use crate::pg::process::identity::Identity;
use crate::pg::process::signals;
use crate::pg::reuse::adopt;
use crate::registry::job::{Slot, Stop};
use crate::registry::segment::segment;
use core::sync::atomic::Ordering::Relaxed;
use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Option<Attached>> = const { Cell::new(None) };
}

/// A job that this worker has attached to.
#[derive(Clone, Copy)]
pub struct Attached {
    pub slot: &'static Slot,
    pub cookie: u64,
}

/// The job that this process runs, None in a session.
pub fn current() -> Option<Attached> {
    CURRENT.get()
}

/// Takes a job that was posted to this process, and wakes its launch if it waits for that. None if the job was withdrawn. If this process
/// cannot map the job, fails with the system's own error, and the process has to end: then the job is found to be lost.
pub fn take(number: u32, cookie: u64, launch_waits: bool) -> Result<Option<Attached>> {
    // A cancel that is pending now was meant for the idle process. One that was meant for this job is noted in its slot.
    signals::clear_pending_cancel();
    let Some(job) = attach(segment()?.slot(number)?, cookie)? else {
        return Ok(None);
    };
    if launch_waits {
        let owner = job.slot.lock().owner_procno;
        backend::wake(owner);
    }
    Ok(Some(job))
}

/// Attaches to the job. None if it was withdrawn before this process came.
pub fn attach(slot: &'static Slot, cookie: u64) -> Result<Option<Attached>> {
    slot.reach(cookie)?;
    Ok(attach_to(slot, cookie))
}

fn attach_to(slot: &'static Slot, cookie: u64) -> Option<Attached> {
    let mut job = slot.lock_if(cookie)?;
    job.runner = Process::me();
    if slot.pid.load(Relaxed) == 0 {
        slot.pid.store(backend::my_pid(), Relaxed);
    }
    slot.worker_pid.store(backend::my_pid(), Relaxed);
    let attached = Attached { slot, cookie };
    CURRENT.set(Some(attached));
    if slot.stop() != Stop::No {
        // It was cancelled before there was a process to signal. So this process signals itself, and finds the cancel at its first wait,
        // perhaps for a lock while it connects to the database.
        signals::interrupt_self();
    }
    Some(attached)
}

/// Detaches from the job: it has ended, or another process has it.
pub fn let_go() {
    CURRENT.set(None);
}

/// The process goes on with another job in the same slot.
pub fn renew(slot: &'static Slot, cookie: u64) -> Attached {
    let attached = Attached { slot, cookie };
    CURRENT.set(Some(attached));
    attached
}

/// The running job sets the role, or reads what came of a job that has done so: what it returns from here on is not for every role that may act as
/// the one it began with. Nothing in a session.
pub fn leaves_its_role() {
    if let (Some(job), Some(identity)) = (current(), adopt::identity()) {
        note_other_role(job.slot, &identity);
    }
}

/// The same for a job and the identity that it began with.
pub fn note_other_role(slot: &Slot, identity: &Identity) {
    // Within a security context there is no other role.
    if identity.security_context == 0 {
        slot.lock().also_for = identity.authenticated;
    }
}
