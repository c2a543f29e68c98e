//! Admission: how many jobs run, and the launch queue.
//!
//! A launch is subject to four limits: the caps on the jobs of its session, of its role and of the cluster, and the server's worker slots.
//! If one of them is reached, the launch may enter the launch queue. There is one queue, in the order of arrival. Each entry says what its
//! launch is short of: what is short for one launch is short for all later ones that need the same, so no launch overtakes another. A
//! launch that is short of its role's share alone does not hold up launches of other roles.
//!
//! When a limit allows one more job, the first launch in the queue that can use it is woken. A launch that leaves the queue, served or not,
//! wakes the next, so a wake-up is never lost with a process that ends. Each process that the server can have owns a queue entry from the
//! beginning: entering, walking and leaving the queue take no memory.
//!
//! The queue and the counts of running jobs are protected by the pool's lock. Nothing here allocates, maps or raises, except
//! [`count_of_role`], so all of it may be called with a job's lock held.

use crate::pg::error::Result;
use crate::pg::process::backend;
use crate::pg::shmem::{self, DsaPointer, INVALID_POINTER, Last, Locked};
use crate::registry::job::Job;
use crate::registry::list::{self, Linked};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64};
use std::cell::Cell;

/// The counts and the launch queue.
#[repr(C)]
pub struct Admission {
    /// Jobs of the cluster that have a worker or are about to get one.
    running: u32,
    /// `pg_background.max_cluster_workers`, as known to the launch whose process has read the configuration last, and when that was. A
    /// waiting launch does not reread the configuration, and must not hold up others by a stale cap.
    cap: u32,
    cap_read_at: i64,
    roles: DsaPointer,
    /// The position of the first launch in the queue.
    first: Position,
}

/// A position in the launch queue: the process's number plus one.
pub type Position = u32;

/// Not in the launch queue; also the end of the list.
pub const NOT_QUEUED: Position = 0;

/// The jobs of one role: the role that the workers connect as, for which the settings of roles hold. Never freed.
#[repr(C)]
pub(super) struct Role {
    next: AtomicU64,
    role: AtomicU32,
    running: AtomicU32,
    /// Jobs that have a slot, running or retained. Changes without the lock.
    kept: AtomicU32,
}

impl Linked for Role {
    fn next(&self) -> &AtomicU64 {
        &self.next
    }
}

/// What a launch has too little of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Shortage {
    /// `pg_background.max_workers`.
    Session = 0,
    /// `pg_background.max_role_workers`.
    Role = 1,
    /// `pg_background.max_cluster_workers`.
    Cluster = 2,
    /// The server's slots.
    Server = 3,
}

numbered!(Shortage {
    Session,
    Role,
    Cluster,
    Server
});

/// Why a job was not admitted.
#[derive(Clone, Copy, Debug)]
pub struct NotAdmitted {
    /// What the launch is short of.
    pub shortage: Shortage,
    /// How many jobs run that count towards the limit.
    pub running: u32,
    /// The cap.
    pub cap: u32,
    /// Whether a launch in front waits for the same.
    pub is_behind: bool,
}

/// The caps, 0 for none, as the launching session knows them.
#[derive(Clone, Copy)]
pub struct Caps {
    pub cluster: u32,
    pub role: u32,
    /// When the session's process has read the configuration.
    pub read_at: i64,
}

/// One launch in the queue. Its index in the array is the number of its process.
#[repr(C)]
pub(super) struct QueuedLaunch {
    /// The position of the next one.
    next: AtomicU32,
    pid: AtomicI32,
    short_of: AtomicU32,
    /// Whether an idle worker was dismissed for it.
    is_promised: AtomicBool,
    /// The counters of its job.
    role: AtomicU64,
    counters: AtomicU64,
}

impl QueuedLaunch {
    fn short_of(&self) -> Shortage {
        Shortage::from_number(self.short_of.load(Relaxed)).unwrap_or(Shortage::Server)
    }

    /// Whether it waits for something that every launch needs.
    fn holds_up_all(&self) -> bool {
        matches!(self.short_of(), Shortage::Cluster | Shortage::Server)
    }
}

/// The count of a role. It is never freed. The launch has mapped it, and the worker maps it before it takes the job.
pub(super) fn role(pointer: DsaPointer) -> Option<&'static Role> {
    thread_local! {
        static LAST: Last<Role> = const { Last::new() };
    }
    LAST.with(|last| last.look(pointer))
}

/// Counts a job of the role that gets a slot.
pub(super) fn count_kept(role_count: DsaPointer) {
    if let Some(role) = role(role_count) {
        role.kept.fetch_add(1, Relaxed);
    }
}

/// Counts a job of the role whose slot is freed.
pub(super) fn uncount_kept(role_count: DsaPointer) {
    if let Some(role) = role(role_count) {
        role.kept.fetch_sub(1, Relaxed);
    }
}

/// How many jobs of the role have a slot.
pub fn kept(role_count: DsaPointer) -> u32 {
    role(role_count).map_or(0, |role| role.kept.load(Relaxed))
}

impl Admission {
    /// Returns how many of `idle` idle workers are too many: running jobs and idle workers together may not exceed the cap.
    pub fn too_many(&self, idle: usize) -> usize {
        match self.cap {
            0 => 0,
            cap => (self.running as usize + idle).saturating_sub(cap as usize),
        }
    }

    fn learn_cap(&mut self, cap: u32, read_at: i64) {
        if read_at < self.cap_read_at {
            return;
        }
        self.cap_read_at = read_at;
        if cap != self.cap {
            self.cap = cap;
            // The new cap may admit a waiting launch.
            self.wake_first();
        }
    }

    /// Returns what launches before `me` wait for, if every launch needs it and there is not enough for them and for one more.
    fn held_up_by(&self, me: Position) -> Option<Shortage> {
        let mut in_front = 0;
        let mut holding = self.before(me).filter(|(_, other)| other.holds_up_all());
        holding.find_map(|(_, other)| {
            in_front += 1;
            let enough = other.short_of() == Shortage::Cluster && (self.cap == 0 || self.running + in_front < self.cap);
            (!enough).then(|| other.short_of())
        })
    }

    /// Counts the job, if the limits allow it and no launch before `me` waits for the same. `me` is [`NOT_QUEUED`] for a launch that has
    /// just come; then all launches in the queue are before it.
    pub fn admit(&mut self, job: &mut Job, caps: Caps, me: Position) -> core::result::Result<(), NotAdmitted> {
        self.learn_cap(caps.cluster, caps.read_at);
        let mine = role(job.role_count);
        let of_role = mine.map_or(0, |role| role.running.load(Relaxed));
        let not_admitted = |shortage, running, cap, is_behind| {
            Err(NotAdmitted {
                shortage,
                running,
                cap,
                is_behind,
            })
        };
        if caps.role > 0 {
            let is_behind = self
                .before(me)
                .any(|(_, other)| other.short_of() == Shortage::Role && other.role.load(Relaxed) == job.role_count);
            if is_behind || of_role >= caps.role {
                return not_admitted(Shortage::Role, of_role, caps.role, is_behind);
            }
        }
        if let Some(shortage) = self.held_up_by(me) {
            return not_admitted(shortage, self.running, self.cap, true);
        }
        if self.cap > 0 && self.running >= self.cap {
            return not_admitted(Shortage::Cluster, self.running, self.cap, false);
        }
        self.running += 1;
        if let Some(role) = mine {
            role.running.store(of_role + 1, Relaxed);
        }
        job.is_counted = true;
        Ok(())
    }

    /// Stops counting the job, if it was counted. Wakes the launches that may have waited for that, but this process only if `me_too`.
    pub fn release(&mut self, job: &mut Job, me_too: bool) {
        if core::mem::take(&mut job.is_counted) {
            self.running -= 1;
            if let Some(role) = role(job.role_count) {
                role.running.fetch_sub(1, Relaxed);
            }
        }
        self.wake_next(job.role_count, job.counters, me_too);
    }

    /// Wakes the launches that may have waited for a job of this role and session to end: the first that waits for what every launch needs,
    /// the first that waits for the role, and the session itself.
    fn wake_next(&self, role: DsaPointer, counters: DsaPointer, me_too: bool) {
        let (mut all, mut of_role) = (false, false);
        for (procno, queued) in self.queue() {
            let is_next = match queued.short_of() {
                Shortage::Session => queued.counters.load(Relaxed) == counters,
                Shortage::Role => queued.role.load(Relaxed) == role && !core::mem::replace(&mut of_role, true),
                Shortage::Cluster | Shortage::Server => !core::mem::replace(&mut all, true),
            };
            if is_next && (me_too || procno != backend::my_procno()) {
                backend::wake(procno);
            }
        }
    }

    /// Wakes the first launch that waits for what every launch needs: another process may be available.
    pub fn wake_first(&self) {
        if let Some((procno, _)) = self.queue().find(|(_, queued)| queued.holds_up_all()) {
            backend::wake(procno);
        }
    }

    /// Returns how many launches before `me` could use an idle worker and have none promised.
    pub fn claims_before(&self, me: Position) -> usize {
        self.before(me)
            .filter(|(_, other)| other.holds_up_all() && !other.is_promised.load(Relaxed))
            .count()
    }

    /// How many jobs of the cluster have a worker or are about to get one.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// How many launches are in the queue.
    pub fn waiting(&self) -> usize {
        self.queue().count()
    }

    /// The launches in the queue, each with the number of its process. A process that died without leaving is skipped.
    fn queue(&self) -> impl Iterator<Item = (u32, &'static QueuedLaunch)> + use<> {
        self.positions()
            .map(|(position, queued)| (position - 1, queued))
            .filter(|(procno, queued)| backend::owner_of_latch(*procno) == queued.pid.load(Relaxed))
    }

    fn positions(&self) -> impl Iterator<Item = (Position, &'static QueuedLaunch)> + use<> {
        let at = |position: Position| queued(position).map(|queued| (position, queued));
        core::iter::successors(at(self.first), move |(_, queued)| at(queued.next.load(Relaxed)))
    }

    fn before(&self, me: Position) -> impl Iterator<Item = (u32, &'static QueuedLaunch)> + use<> {
        self.queue().take_while(move |(procno, _)| procno + 1 != me)
    }

    /// Appends this process to the queue, for a job with these two counters.
    pub fn enter(&mut self, role_count: DsaPointer, counters: DsaPointer, of: Shortage) {
        let position = backend::my_procno() + 1;
        let Some(me) = queued(position) else { return };
        me.pid.store(backend::my_pid(), Relaxed);
        me.short_of.store(of as u32, Relaxed);
        me.is_promised.store(false, Relaxed);
        me.role.store(role_count, Relaxed);
        me.counters.store(counters, Relaxed);
        self.append(position);
        POSITION.set(position);
    }

    /// Notes that this process, if it is in the queue, waits for `of` from now on.
    pub fn change(&self, of: Shortage) {
        let Some(me) = mine() else { return };
        let held_up_all = me.holds_up_all();
        me.short_of.store(of as u32, Relaxed);
        if held_up_all && !me.holds_up_all() {
            self.wake_first();
        }
    }

    /// Removes this process from the queue, if it is in it, and wakes the next launch.
    pub fn leave(&mut self) {
        let Some(me) = mine() else { return };
        self.remove(POSITION.take());
        self.wake_next(me.role.load(Relaxed), me.counters.load(Relaxed), true);
    }

    fn append(&mut self, position: Position) {
        // If a process died without leaving, the next process with its number finds itself in the queue.
        self.remove(position);
        match self.positions().last() {
            Some((_, last)) => last.next.store(position, Relaxed),
            None => self.first = position,
        }
    }

    fn remove(&mut self, position: Position) {
        let Some(after) = queued(position).map(|queued| queued.next.swap(NOT_QUEUED, Relaxed)) else {
            return;
        };
        if self.first == position {
            self.first = after;
        } else if let Some((_, before)) = self.positions().find(|(_, other)| other.next.load(Relaxed) == position) {
            before.next.store(after, Relaxed);
        }
    }
}

/// The queue entry at a position, whether it is in the queue or not.
fn queued(position: Position) -> Option<&'static QueuedLaunch> {
    let n = position.checked_sub(1)?;
    Some(shmem::neighbour(FIRST.get()?, n as usize))
}

thread_local! {
    /// This process's position in the launch queue.
    static POSITION: Cell<Position> = const { Cell::new(NOT_QUEUED) };
    /// The first queue entry, once this process has mapped them.
    static FIRST: Cell<Option<&'static QueuedLaunch>> = const { Cell::new(None) };
}

/// This process's position in the launch queue, [`NOT_QUEUED`] if it is not there.
pub fn my_position() -> Position {
    POSITION.get()
}

/// Sets whether an idle worker was dismissed for this process, so that it may count on the slot.
pub fn set_promised(is_promised: bool) {
    if let Some(me) = mine() {
        me.is_promised.store(is_promised, Relaxed);
    }
}

fn mine() -> Option<&'static QueuedLaunch> {
    queued(POSITION.get())
}

/// Notes that this process has mapped the queue entries, as many as the server can have processes.
pub(super) fn queue_begins_with(first: &'static QueuedLaunch) {
    FIRST.set(Some(first));
}

/// Returns the count of a role in the admission that `keeper` protects, made on first use. 53200 if memory is out.
pub(super) fn count_of_role<H>(
    keeper: &Locked<H>,
    admission: impl Fn(&mut H) -> &mut Admission,
    number: u32,
) -> Result<DsaPointer> {
    thread_local! {
        /// What this process asked for last.
        static KNOWN: Cell<(u32, DsaPointer)> = const { Cell::new((0, INVALID_POINTER)) };
    }
    let known = KNOWN.get();
    if known.1 != INVALID_POINTER && known.0 == number {
        return Ok(known.1);
    }
    let is_it = |role: &Role| role.role.load(Relaxed) == number;
    let fill = |role: &Role| role.role.store(number, Relaxed);
    let pointer = list::find_or_add(keeper, |keeper| &mut admission(keeper).roles, is_it, fill)?;
    KNOWN.set((number, pointer));
    Ok(pointer)
}
