//! Deadlocks of a session that waits for a job with that job.
//!
//! The server's own deadlock detector knows locks only; it cannot see that a session sleeps until a job ends. So a session that has slept
//! for `deadlock_timeout` checks whether a job that it waits for is blocked, directly or through others, by the session itself. Then
//! neither can go on, and the job is the victim: it fails with 40P01.

use crate::pg::catalog::lock;
use crate::pg::process::backend;
use crate::registry::job::Stop;
use crate::registry::segment;
use crate::session::jobs::Handle;
use core::sync::atomic::Ordering::Relaxed;
use std::collections::HashSet;
use std::rc::Rc;

/// Ends the jobs among `handles` that can never end while this session waits for them. Guarded.
pub fn resolve(handles: &[Rc<Handle>]) {
    for handle in handles {
        let job = handle.slot.lock();
        let worker = handle.slot.worker_pid.load(Relaxed);
        let relevant = worker != 0 && !job.state.has_ended() && handle.slot.stop() == Stop::No;
        drop(job);
        if relevant && waits_for_me(worker) {
            let on_snapshot = lock::waits_for_snapshot(worker);
            if let Some(mut job) = handle.slot.lock_if(handle.cookie) {
                job.deadlock_pid = backend::my_pid();
                job.deadlock_on_snapshot = on_snapshot;
            }
            handle.slot.cancel(handle.cookie, Stop::Deadlock);
        }
    }
}

/// Whether the process can go on only after this one. Guarded.
///
/// The edges are read one after the other, and one may be gone before the next is read. A cycle that is found twice is no such artefact: its
/// members have not moved.
pub fn waits_for_me(pid: i32) -> bool {
    leads_here(pid) && leads_here(pid)
}

/// Whether the waits for locks and for jobs that begin at process `start` lead to this one.
fn leads_here(start: i32) -> bool {
    let me = backend::my_pid();
    let mut seen = HashSet::from([start]);
    let mut open = vec![start];
    while let Some(pid) = open.pop() {
        for next in lock::blockers(pid).into_iter().chain(workers_awaited_by(pid)) {
            if next == me {
                return true;
            }
            // A prepared transaction shows as 0, and waits for nothing.
            if next > 0 && seen.insert(next) {
                open.push(next);
            }
        }
    }
    false
}

/// The workers of the jobs that process `pid` waits for.
fn workers_awaited_by(pid: i32) -> Vec<i32> {
    let Some(segment) = segment::attached() else {
        return Vec::new();
    };
    let Some(procno) = (0..backend::count() as u32).find(|procno| backend::owner_of_latch(*procno) == pid) else {
        return Vec::new();
    };
    let Ok(slots) = segment.all() else {
        return Vec::new();
    };
    slots
        .map(|slot| (slot, slot.worker_pid.load(Relaxed)))
        .filter(|(slot, worker)| *worker > 0 && segment::waiters(slot).include(procno))
        .map(|(_, worker)| worker)
        .collect()
}
