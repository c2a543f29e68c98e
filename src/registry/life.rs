//! The life of a job: it begins in a slot, ends, and is forgotten.
//!
//! Three kinds of holders keep a slot: the handle, until it is forgotten; the worker, until it has published the end; and each call in some
//! session that has pinned the job, the launch being the first. The last holder frees the slot, with the job's request, its unread rows and
//! its files.
//!
//! A result that is being read is not taken away from its reader: if the handle is forgotten meanwhile, that takes effect when the reading
//! is over.

use crate::pg::error::Result;
use crate::pg::process::backend::{self, Process};
use crate::pg::process::bgworker::{WorkerHandle, WorkerStatus};
use crate::pg::shmem::{self, DsaPointer, Guard, INVALID_POINTER};
use crate::registry::counters::{Count, Counters};
use crate::registry::job::{End, Error, Job, Slot, State, Stop};
use crate::registry::totals::{Start, Totals};
use crate::registry::{admission, history, pool, segment, upkeep};
use core::sync::atomic::Ordering::Relaxed;

impl Job {
    /// Whether the handle is forgotten.
    pub fn is_released(&self) -> bool {
        self.released
    }

    /// Whether the result ended with the session that launched the job. A reading in progress goes on.
    pub fn is_unwanted(&self) -> bool {
        self.orphaned && self.retention == 0
    }
}

impl Slot {
    /// Begins a job in this slot, which was just taken: no other process looks at it before the cookie is set.
    ///
    /// The handle, the worker to come and the launch all keep the slot, the launch until [`Slot::introduce`]. A fast session may find the
    /// job, see its end and forget it before the launch has learned that it was taken.
    pub fn begin(&'static self, cookie: u64, counters: DsaPointer, fill: impl FnOnce(&mut Job)) {
        let mut job = self.lock();
        segment::waiters(self).clear();
        self.pid.store(0, Relaxed);
        self.worker_pid.store(0, Relaxed);
        self.expires_at.store(0, Relaxed);
        self.stop.store(Stop::No as u32, Relaxed);
        job.state = State::Starting;
        job.launched_at = backend::now();
        job.started_at = 0;
        job.finished_at = 0;
        job.consumed = false;
        job.has_progress = false;
        job.has_tag = false;
        job.row_count = 0;
        job.tag = 0;
        job.progress_len = 0;
        job.also_for = 0;
        job.deadlock_pid = 0;
        job.deadlock_on_snapshot = false;
        job.orphaned = false;
        job.released = false;
        job.worker_gone = false;
        job.given_back = false;
        job.handed_on = false;
        job.pins = 1;
        job.is_counted = false;
        job.worker = WorkerHandle::NONE;
        job.runner = Process::NONE;
        job.preview_len = 0;
        job.has_error = false;
        job.known = INVALID_POINTER;
        job.known_len = 0;
        job.counters = counters;
        job.queue.clear();
        if let Some(counters) = Counters::of(counters) {
            counters.hold();
            counters.began();
        }
        fill(&mut job);
        admission::count_kept(job.role_count);
        if !job.is_hidden {
            Totals::at(job.totals).launched();
        }
        self.cookie.store(cookie, Relaxed);
    }

    /// Called by a worker that the job was posted to and that exits without taking it: the launch has to place the job again.
    pub fn give_back(&self, cookie: u64) {
        if let Some(mut job) = self.lock_if(cookie) {
            job.given_back = true;
            backend::wake(job.owner_procno);
        }
    }

    /// Tells what became of a job that was posted to a worker: None if that is still open, else whether the worker took it. A worker that
    /// died has not taken it.
    pub fn was_taken(&self) -> Option<bool> {
        let mut job = self.lock();
        if self.worker_pid.load(Relaxed) != 0 || job.handed_on {
            return Some(true);
        }
        let given_back = core::mem::take(&mut job.given_back) || !job.runner.is_alive();
        given_back.then_some(false)
    }

    /// Asks the job to end early. False if it has ended already, or the slot belongs to another job.
    ///
    /// The signal is sent under the lock that the worker needs to end the job or to begin another. So it reaches the process while that
    /// process still has this very job, and the worker forgets the signal under the same lock when it changes jobs. A process that has died
    /// without publishing the end is not signalled: its pid may belong to another process by now.
    pub fn cancel(&self, cookie: u64, why: Stop) -> bool {
        let Some(job) = self.lock_if(cookie) else { return false };
        if job.state.has_ended() {
            return false;
        }
        self.request_stop(why);
        if self.worker_pid.load(Relaxed) != 0 {
            job.runner.interrupt();
        }
        true
    }

    /// Publishes the end of the job, unless it has been published: state, counters, error and history, then the waiting sessions are woken.
    /// The transaction is over, so its effects are visible to them. In the same step the worker stops holding the slot, so a waiter that
    /// stops holding it next is the last holder.
    ///
    /// Returns the reason why the job was to end early, [`Stop::No`] for none. Returns None if the end had been published before; then the
    /// error's part in the shared area is freed.
    ///
    /// Needs no memory and raises no error. The caller has called [`Slot::reach`] before, when an error could still be raised.
    pub fn publish(&'static self, cookie: u64, end: End) -> Option<Stop> {
        let stop = self.publish_once(cookie, &end);
        if stop.is_none()
            && let Some(error) = end.error
        {
            error.free();
        }
        stop
    }

    fn publish_once(&'static self, cookie: u64, end: &End) -> Option<Stop> {
        let finished_at = backend::now();
        let mut job = self.lock_if(cookie)?;
        if job.state.has_ended() {
            return None;
        }
        self.account(&mut job, end, finished_at);
        let reader = job.queue.reader();
        pool::uncount(&mut job, true);
        let stop = self.stop();
        job.worker_gone = true;
        self.worker_lets_go(job);
        // Done without the lock, which the woken sessions take next. A waiter enters the list before it looks at the state, so it is in the
        // list. If the slot belongs to another job by now, that job's waiters wake for nothing.
        segment::waiters(self).wake();
        if let Some(reader) = reader {
            backend::wake(reader);
        }
        Some(stop)
    }

    /// The end of the job, in its slot, in the counters and in the history.
    fn account(&self, job: &mut Job, end: &End, finished_at: i64) {
        job.state = end.state;
        job.finished_at = finished_at;
        job.has_error = end.error.is_some();
        if let Some(error) = end.error {
            job.error = error;
        }
        job.queue.seal();
        let began = if job.started_at != 0 {
            job.started_at
        } else {
            job.launched_at
        };
        if let Some(counters) = shmem::look::<Counters>(job.counters) {
            counters.ended(end.count, finished_at - began);
        }
        if job.is_hidden {
            return;
        }
        if let Some(totals) = Totals::look(job.totals) {
            totals.ended(end.count, finished_at - began, job.queue.spilled());
        }
        if let Some(segment) = segment::attached() {
            history::push(&segment.history, self, job);
        }
    }

    /// Ends the job of this worker as [`Slot::publish`] does, and begins a hidden one in the same slot, under the cookie `next`. Returns why the old
    /// job was to end early; None, and the old job goes on, if it is kept by others: somebody has pinned it or may read its result.
    ///
    /// Needs no memory and raises no error, as [`Slot::publish`].
    pub fn renew(&'static self, cookie: u64, end: End, next: u64) -> Option<Stop> {
        let now = backend::now();
        let (mut stop, mut unread) = (None, None);
        let segment = segment::attached()?;
        segment.rename(self, next, || {
            let Some(mut job) = self.lock_if(cookie) else {
                return false;
            };
            let is_kept = job.pins > 0 || !job.is_unwanted() || job.queue.reader().is_some();
            if is_kept || job.state.has_ended() {
                return false;
            }
            self.account(&mut job, &end, now);
            stop = Some(self.stop());
            unread = Some(job.queue.take());
            job.queue.clear();
            job.is_hidden = true;
            job.has_error = false;
            self.stop.store(Stop::No as u32, Relaxed);
            Self::begin_run(&mut job, now);
            self.cookie.store(next, Relaxed);
            true
        });
        if stop.is_some() {
            segment::waiters(self).wake();
            if let Some(mut unread) = unread {
                unread.free_all();
            }
            if let Some(error) = end.error {
                error.free();
            }
        }
        stop
    }

    /// The hidden job of this worker becomes that of a user, which starts now. A cancel that came before is meant for it.
    pub fn show(&self, cookie: u64, label: Option<&[u8]>, sql: &[u8]) {
        let Some(mut job) = self.lock_if(cookie) else { return };
        Self::begin_run(&mut job, backend::now());
        job.is_hidden = false;
        job.set_label(label);
        job.set_preview(sql);
        if let Some(totals) = Totals::look(job.totals) {
            totals.launched();
            totals.started(Start::Warm, 0);
        }
    }

    fn begin_run(job: &mut Job, now: i64) {
        job.state = State::Running;
        (job.launched_at, job.started_at, job.finished_at) = (now, now, 0);
        job.has_progress = false;
        job.has_progress_message = false;
        job.progress_len = 0;
        job.has_tag = false;
        (job.tag, job.row_count) = (0, 0);
        job.also_for = 0;
        job.deadlock_pid = 0;
        job.deadlock_on_snapshot = false;
        job.set_label(None);
        job.preview_len = 0;
    }

    /// Maps what publishing the end of this job needs. The system's own error if it cannot be mapped.
    pub fn reach(&self, cookie: u64) -> Result<()> {
        let (counters, totals, role) = match self.lock_if(cookie) {
            Some(job) => (job.counters, job.totals, job.role_count),
            None => return Ok(()),
        };
        if let Err(failure) = shmem::map(counters) {
            // If the job was withdrawn meanwhile, its counters may be freed.
            return self.lock_if(cookie).map_or(Ok(()), |_| Err(failure));
        }
        if Totals::look(totals).is_none() {
            shmem::map(totals)?;
        }
        if admission::role(role).is_none() {
            shmem::map(role)?;
        }
        pool::reach()?;
        if let Some(segment) = segment::attached() {
            history::reach(&segment.history);
        }
        Ok(())
    }

    /// Publishes the end of a job whose worker has died, as [`Slot::publish`] does.
    pub fn publish_lost(&'static self, cookie: u64, error: Error) {
        let end = End {
            state: State::Error,
            count: Count::Failed,
            error: Some(error),
        };
        self.publish(cookie, end);
    }

    /// Makes the job known by the handle `(pid, cookie)`, and drops the launch's pin.
    pub fn introduce(&'static self, cookie: u64, pid: i32) {
        if let Some(mut job) = self.lock_if(cookie) {
            self.pid.store(pid, Relaxed);
            job.pins -= 1;
            self.give_back_unneeded(job);
        }
    }

    /// Pins the slot for a call. False if the handle is not known, or not any more.
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

    /// Drops the pin of a call.
    pub fn unpin(&'static self, cookie: u64) {
        if let Some(mut job) = self.lock_if(cookie) {
            job.pins -= 1;
            self.give_back_unneeded(job);
        }
    }

    /// Forgets the handle; the job runs on. False if it was forgotten before.
    pub fn release(&'static self, cookie: u64) -> bool {
        let Some(mut job) = self.lock_if(cookie).filter(|job| !job.released) else {
            return false;
        };
        job.released = true;
        self.give_back_unneeded(job);
        true
    }

    /// Whether the slot still belongs to the job with this cookie and this pid, even if its handle is forgotten.
    pub fn has_pid(&self, cookie: u64, pid: i32) -> bool {
        self.lock_if(cookie).is_some() && self.pid.load(Relaxed) == pid
    }

    /// Whether the handle is still known.
    pub fn is_known(&self, cookie: u64) -> bool {
        self.lock_if(cookie)
            .is_some_and(|job| !job.released && !self.has_expired())
    }

    /// The launching session has ended: an unread result is forgotten now, or retained for as long as that session wished, counted from now
    /// or from the job's end, whichever is later. The handle of a running job stays good until its end, so that sessions may wait for it or
    /// stop it. So does the handle of a job whose row-by-row reader failed between two rows; for that case the reader calls this itself.
    pub fn orphan(&'static self, cookie: u64) {
        let Some(mut job) = self.lock_if(cookie) else { return };
        job.orphaned = true;
        if job.state.has_ended() {
            self.expire(&mut job);
        }
        self.give_back_unneeded(job);
    }

    /// The worker has published the end and stops holding the slot.
    pub(super) fn worker_lets_go(&'static self, mut job: Guard<'_, Job>) {
        if job.orphaned && !job.released {
            self.expire(&mut job);
        }
        self.give_back_unneeded(job);
    }

    /// Starts the retention: both the job and the session that launched it have ended.
    fn expire(&self, job: &mut Job) {
        if job.retention == 0 {
            job.released = true;
            return;
        }
        let at = backend::now() + i64::from(job.retention) * 1000;
        self.expires_at.store(at, Relaxed);
        if let Some(segment) = segment::attached() {
            upkeep::is_due(segment, at);
        }
    }

    /// Whether the retention is over.
    pub(super) fn has_expired(&self) -> bool {
        let at = self.expires_at.load(Relaxed);
        at != 0 && at <= backend::now()
    }

    /// Ends the reading by this process; a worker that waits for space in the queue goes on.
    pub fn stop_reading(&'static self, cookie: u64) {
        let Some(mut job) = self.lock_if(cookie) else { return };
        if job.queue.reader() != Some(backend::my_procno()) {
            return;
        }
        let writer = job.queue.set_reader(None).then_some(job.runner);
        self.give_back_unneeded(job);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Ends the reading as this process exits: what it had taken, and what it had learned of the stream, is lost.
    pub fn abandon_reading(&'static self, cookie: u64) {
        if let Some(mut job) = self.lock_if(cookie)
            && job.queue.reader() == Some(backend::my_procno())
        {
            job.consumed |= job.queue.read() > 0;
        }
        self.stop_reading(cookie);
    }

    /// Frees what is not needed any more: the slot if this was the last holder, else perhaps the unread rows.
    fn give_back_unneeded(&'static self, mut job: Guard<'_, Job>) {
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
            // Nothing more will be read: free what is queued, and let the worker throw away what is still to come.
            job.keeps_result = false;
            let mut queue = job.queue.take();
            drop(job);
            queue.free_all();
        }
    }

    /// Withdraws a job that no worker has taken: a worker that comes later finds another cookie and exits. False if a worker has taken it.
    pub fn withdraw(&'static self, cookie: u64) -> bool {
        let Some(mut job) = self.lock_if(cookie) else {
            return true;
        };
        if self.worker_pid.load(Relaxed) != 0 {
            return false;
        }
        // This process has launched the job, so it has mapped both.
        if let Some(counters) = Counters::of(job.counters) {
            counters.never_began();
        }
        if !job.is_hidden {
            Totals::at(job.totals).never_launched();
        }
        pool::uncount(&mut job, true);
        // Under the same lock, or a worker could take the job in between. No other session knows of it yet.
        self.free(job);
        true
    }

    /// Frees the slot, which has no holder left. What lies in segments that this process cannot map stays allocated.
    fn free(&'static self, mut job: Guard<'_, Job>) {
        // From here on no process finds the job, and the slot is on no list: it belongs to this process alone.
        self.cookie.store(0, Relaxed);
        self.pid.store(0, Relaxed);
        self.worker_pid.store(0, Relaxed);
        let counters = job.counters;
        admission::uncount_kept(job.role_count);
        let pointers = [job.sql, job.request, job.known];
        (job.sql, job.request, job.known) = (INVALID_POINTER, INVALID_POINTER, INVALID_POINTER);
        let error = job.error().copied();
        job.has_error = false;
        let mut queue = job.queue.take();
        let mut files = core::mem::take(&mut job.files);
        drop(job);
        queue.free_all();
        for pointer in pointers {
            shmem::free(pointer);
        }
        if let Some(error) = error {
            error.free();
        }
        files.delete_all();
        Counters::release(counters);
        if let Some(segment) = segment::attached() {
            segment.give_back(self);
        }
    }

    /// Detects that the worker has died without publishing the end. Then the job is lost, and this publishes that. Every look at a job
    /// includes this check, so that no job seems to run for ever. Returns whether the job was lost. The system's own error if what the end
    /// needs cannot be mapped.
    pub fn look_after(&'static self, cookie: u64) -> Result<bool> {
        let Some(pid) = self.has_lost_its_worker(cookie) else {
            return Ok(false);
        };
        self.reach(cookie)?;
        self.publish_lost(cookie, Error::lost(pid, b""));
        Ok(true)
    }

    /// Returns the pid of the process that was to run this job, if it has died. A process publishes everything before it counts as gone, so
    /// a job that has not ended by then never will.
    fn has_lost_its_worker(&self, cookie: u64) -> Option<i32> {
        let (runner, worker) = {
            let job = self.lock_if(cookie).filter(|job| !job.state.has_ended())?;
            if self.worker_pid.load(Relaxed) == 0 && self.pid.load(Relaxed) == 0 {
                // The launch is not over, and checks this itself.
                return None;
            }
            (job.runner, job.worker)
        };
        if runner != Process::NONE {
            return (!runner.is_alive()).then(|| runner.pid());
        }
        // The process ended before it took the job. The postmaster tells that to the launching session only.
        (worker.status() == WorkerStatus::Stopped && self.lock_if(cookie)?.runner == Process::NONE)
            .then(|| self.pid.load(Relaxed))
    }
}
