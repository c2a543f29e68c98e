//! Who keeps a job's slot, and when it is free again.
//!
//! The handle keeps it, until it is forgotten; the worker, until it has published the end; and each call in some session that has
//! the job in hand, the launch to begin with. Whoever lets go last frees the slot, with the job's request, its unread rows and its files.
//!
//! A result that somebody is reading is not taken away from the reader: what becomes of the handle meanwhile counts when the
//! reading is over.

use super::counters::Counters;
use super::job::{Job, Slot};
use super::pool;
use super::room;
use super::segment;
use super::totals::Totals;
use crate::pg::proc::{self, WorkerStatus};
use crate::pg::shmem::{self, Guard, NOWHERE, Offset};
use core::sync::atomic::Ordering::Relaxed;

impl Job {
    /// Whether it counts for the session with these counters.
    pub fn is_counted_by(&self, counters: Offset) -> bool {
        self.counters == counters
    }

    /// Whether the handle is forgotten.
    pub fn is_released(&self) -> bool {
        self.released
    }

    /// Whether the result went with the session that launched the job, unless somebody is reading it.
    pub fn is_unwanted(&self) -> bool {
        self.orphaned && self.retention == 0
    }
}

impl Slot {
    /// From now on the job is known by the handle `(pid, cookie)`, and its launch lets go of the slot.
    pub fn introduce(&'static self, cookie: u64, pid: i32) {
        if let Some(mut job) = self.lock_if(cookie) {
            self.pid.store(pid, Relaxed);
            job.pins -= 1;
            self.settle(job);
        }
    }

    /// Keeps the slot for a call. False where the handle is not, or no longer, known.
    pub fn pin(&self, cookie: u64, pid: i32) -> bool {
        let Some(mut job) = self.lock_if(cookie) else {
            return false;
        };
        let known = !job.released && self.pid.load(Relaxed) == pid && !self.has_expired();
        if known {
            job.pins += 1;
        }
        known
    }

    /// The call is over.
    pub fn unpin(&'static self, cookie: u64) {
        if let Some(mut job) = self.lock_if(cookie) {
            job.pins -= 1;
            self.settle(job);
        }
    }

    /// The handle is forgotten; the job runs on. False where it was before.
    pub fn release(&'static self, cookie: u64) -> bool {
        let Some(mut job) = self.lock_if(cookie).filter(|job| !job.released) else {
            return false;
        };
        job.released = true;
        self.settle(job);
        true
    }

    /// Whether the handle is still known.
    pub fn is_known(&self, cookie: u64) -> bool {
        self.lock_if(cookie)
            .is_some_and(|job| !job.released && !self.has_expired())
    }

    /// The launching session has ended: an unread result is forgotten now, or kept for as long as that session wished, counted
    /// from now or from the job's end where that comes later. The handle of a job that runs stays good until its end, for whoever
    /// wants to wait for it or to stop it. So does that of a result whose reader failed between two rows.
    pub fn orphan(&'static self, cookie: u64) {
        let Some(mut job) = self.lock_if(cookie) else { return };
        job.orphaned = true;
        if job.state.has_ended() {
            self.expire(&mut job);
        }
        self.settle(job);
    }

    /// The worker has published the end.
    pub(super) fn worker_lets_go(&'static self, mut job: Guard<'_, Job>) {
        if job.orphaned && !job.released {
            self.expire(&mut job);
        }
        self.settle(job);
    }

    /// Both the job and the session that launched it have ended.
    fn expire(&self, job: &mut Job) {
        if job.retention == 0 {
            job.released = true;
            return;
        }
        let at = proc::now() + i64::from(job.retention) * 1000;
        self.expires_at.store(at, Relaxed);
        if let Some(segment) = segment::attached() {
            segment.next_expiry.fetch_min(at, Relaxed);
        }
    }

    fn has_expired(&self) -> bool {
        let at = self.expires_at.load(Relaxed);
        at != 0 && at <= proc::now()
    }

    /// This process reads the result no more; a worker that waits for room goes on.
    pub fn stop_reading(&'static self, cookie: u64) {
        let Some(mut job) = self.lock_if(cookie) else { return };
        if job.queue.reader() != Some(proc::my_procno()) {
            return;
        }
        let writer = job.queue.set_reader(None).then_some(job.worker_procno);
        self.settle(job);
        if let Some(writer) = writer {
            proc::wake(writer);
        }
    }

    /// This process ends, perhaps while it reads: then what it had taken, and what it knew, is lost.
    pub fn abandon_reading(&'static self, cookie: u64) {
        if let Some(mut job) = self.lock_if(cookie)
            && job.queue.reader() == Some(proc::my_procno())
        {
            job.consumed |= job.queue.read() > 0;
        }
        self.stop_reading(cookie);
    }

    /// Gives back what nobody needs any more.
    fn settle(&'static self, mut job: Guard<'_, Job>) {
        if job.orphaned && job.consumed && job.state.has_ended() {
            job.released = true;
        }
        if job.released {
            self.expires_at.store(0, Relaxed);
            if job.worker_gone && job.pins == 0 {
                return self.free(job);
            }
        } else if !job.is_unwanted() && !job.consumed {
            return;
        }
        if job.queue.reader().is_none() {
            // Nobody will read, or of what was read in part the rest: what is queued goes now, and the worker stops keeping what
            // comes.
            job.keeps_result = false;
            let mut queue = job.queue.take();
            drop(job);
            queue.free_all();
        }
    }

    /// Takes back a job that no worker has taken: a worker that comes later finds another cookie and goes. False where a
    /// worker was faster.
    pub fn withdraw(&'static self, cookie: u64) -> bool {
        let Some(mut job) = self.lock_if(cookie) else {
            return true;
        };
        if self.worker_pid.load(Relaxed) != 0 {
            return false;
        }
        Counters::at(job.counters).never_began();
        Totals::at(job.totals).never_launched();
        let wake = pool::uncount(&mut job);
        // Under the same lock, or a worker could take the job in between. Nobody else knows of it yet.
        self.free(job);
        for procno in wake {
            proc::wake(procno);
        }
        true
    }

    /// Frees the slot, which all have let go of.
    fn free(&'static self, mut job: Guard<'_, Job>) {
        // From here on nobody finds the job, and the slot is on no list: it is ours alone.
        self.cookie.store(0, Relaxed);
        self.pid.store(0, Relaxed);
        self.worker_pid.store(0, Relaxed);
        let counters = job.counters;
        room::is_kept_no_more(job.role_count);
        let places = [job.sql, job.request, job.error, job.known];
        (job.sql, job.request, job.error, job.known) = (NOWHERE, NOWHERE, NOWHERE, NOWHERE);
        let mut queue = job.queue.take();
        let mut files = core::mem::take(&mut job.files);
        drop(job);
        queue.free_all();
        for place in places {
            shmem::free(place);
        }
        files.delete_all();
        Counters::release(counters);
        if let Some(segment) = segment::attached() {
            segment.give_back(self);
        }
    }

    /// A worker that was started for this job and went without a word is noticed here: then the job is lost, and that is its end.
    /// The postmaster tells only the launching session of a process that never came so far as to take the job. A worker that had
    /// been there before publishes its end itself, whatever it dies of.
    pub fn look_after(&'static self, cookie: u64) {
        let (worker, pid) = {
            let Some(job) = self.lock_if(cookie).filter(|job| !job.state.has_ended()) else {
                return;
            };
            (job.worker, self.pid.load(Relaxed))
        };
        if worker.status() == WorkerStatus::Stopped {
            // Everything that the worker published, it published before it stopped.
            self.publish_lost(cookie, pid, None);
        }
    }
}

/// Forgets the results that were retained long enough. Whoever launches, looks around, or ends does it in passing; a result that
/// has expired is not found any more before that.
pub fn sweep() {
    let Some(segment) = segment::attached() else { return };
    if segment.next_expiry.load(Relaxed) > proc::now() {
        return;
    }
    // What is added from here on is noted by whoever adds it, the rest below.
    segment.next_expiry.store(i64::MAX, Relaxed);
    for slot in segment.all() {
        let (at, cookie) = (slot.expires_at.load(Relaxed), slot.cookie.load(Relaxed));
        if at == 0 {
            continue;
        }
        if at > proc::now() {
            segment.next_expiry.fetch_min(at, Relaxed);
        } else if slot.lock_if(cookie).is_some_and(|_job| slot.has_expired()) {
            slot.release(cookie);
        }
    }
}
