//! How many jobs run, and which launches wait until one more may.
//!
//! A launch needs room in four places: among the jobs of its session, of its role and of the cluster, as the settings cap them, and
//! among the server's processes. Who finds none can stand in line. There is one line, in the order of arrival, and each in it
//! says what it is short of: what is short for one of them is short for all who come later and need the same, so nobody overtakes.
//! A launch that is short of its role's share alone does not hold up others.
//!
//! Admission that appears is told to the first in line who can use it. Whoever leaves the line, served or not, tells the next, so a wake-up is
//! never lost with a process that ends. Each process that the server can have has its place in line from the beginning: to stand
//! there, to look along the line and to leave it takes no memory.
//!
//! All of this is under the pool's lock. Nothing here allocates, maps or raises, so it can be called with a job's lock held, too.

use crate::pg::error::Result;
use crate::pg::process::backend;
use crate::pg::shmem::{self, DsaPointer, INVALID_POINTER, Last, Locked};
use crate::registry::job::Job;
use crate::registry::list::{self, Linked};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64};
use std::cell::Cell;

/// The counts and the line.
#[repr(C)]
pub struct Admission {
    /// Jobs of the cluster that have a worker, or are about to.
    running: u32,
    /// `pg_background.max_cluster_workers` as that launch knew it whose process has read the configuration last, and when that was:
    /// whoever waits reads no configuration, and would hold up others by a stale cap.
    cap: u32,
    cap_read_at: i64,
    roles: DsaPointer,
    /// The position of the first in line.
    first: Position,
}

/// A place in line: the process's number plus one, 0 for nowhere.
pub type Position = u32;

/// Not in line.
pub const NOT_QUEUED: Position = 0;

/// The jobs of one role: of the one that the workers connect as, which is the one that settings of roles hold for. Never freed.
#[repr(C)]
pub(super) struct Role {
    next: AtomicU64,
    role: AtomicU32,
    running: AtomicU32,
    /// Those that have a slot, running or kept for their result. Changes without the lock.
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

/// There is no room.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    pub of: Shortage,
    /// How many jobs that count for it run.
    pub running: u32,
    /// The cap.
    pub cap: u32,
    /// Whether somebody in front waits for the same.
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

/// One launch in line: the process whose number is the place of this in an array.
#[repr(C)]
pub(super) struct QueuedLaunch {
    /// The position of the next one.
    next: AtomicU32,
    pid: AtomicI32,
    short_of: AtomicU32,
    /// Whether an idle worker was sent away for it.
    is_promised: AtomicBool,
    /// Where its job counts.
    role: AtomicU64,
    counters: AtomicU64,
}

impl QueuedLaunch {
    fn short_of(&self) -> Shortage {
        Shortage::from_number(self.short_of.load(Relaxed)).unwrap_or(Shortage::Server)
    }

    /// Whether it waits for what every launch needs.
    fn holds_up_all(&self) -> bool {
        matches!(self.short_of(), Shortage::Cluster | Shortage::Server)
    }
}

/// The count of a role, which is never freed. The launch has mapped it, and the worker before it takes the job.
pub(super) fn role(pointer: DsaPointer) -> Option<&'static Role> {
    thread_local! {
        static LAST: Last<Role> = const { Last::new() };
    }
    LAST.with(|last| last.look(pointer))
}

/// A job of the role gets a slot.
pub(super) fn is_kept(role_count: DsaPointer) {
    if let Some(role) = role(role_count) {
        role.kept.fetch_add(1, Relaxed);
    }
}

/// A job of the role has its slot no more.
pub(super) fn is_kept_no_more(role_count: DsaPointer) {
    if let Some(role) = role(role_count) {
        role.kept.fetch_sub(1, Relaxed);
    }
}

/// How many jobs of the role have a slot.
pub fn kept(role_count: DsaPointer) -> u32 {
    role(role_count).map_or(0, |role| role.kept.load(Relaxed))
}

impl Admission {
    /// How many idle workers have to go, of so many, when one more job gets a process: idle ones and jobs are no more than the cap.
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
            // There may be room now for those who wait.
            self.wake_first();
        }
    }

    /// What those who stand before `me` in line wait for, if it is what every launch needs and there is not enough for them and one
    /// more.
    fn held_up_by(&self, me: Position) -> Option<Shortage> {
        let mut in_front = 0;
        let mut holding = self.before(me).filter(|(_, other)| other.holds_up_all());
        holding.find_map(|(_, other)| {
            in_front += 1;
            let enough = other.short_of() == Shortage::Cluster && (self.cap == 0 || self.running + in_front < self.cap);
            (!enough).then(|| other.short_of())
        })
    }

    /// Counts the job, if there is room for it and nobody stands before `me` in line who waits for the same; `me` is nowhere for a
    /// launch that has just come.
    pub fn admit(&mut self, job: &mut Job, caps: Caps, me: Position) -> core::result::Result<(), Short> {
        self.learn_cap(caps.cluster, caps.read_at);
        let mine = role(job.role_count);
        let of_role = mine.map_or(0, |role| role.running.load(Relaxed));
        let short = |of, running, cap, is_behind| {
            Err(Short {
                of,
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
                return short(Shortage::Role, of_role, caps.role, is_behind);
            }
        }
        if let Some(of) = self.held_up_by(me) {
            return short(of, self.running, self.cap, true);
        }
        if self.cap > 0 && self.running >= self.cap {
            return short(Shortage::Cluster, self.running, self.cap, false);
        }
        self.running += 1;
        if let Some(role) = mine {
            role.running.store(of_role + 1, Relaxed);
        }
        job.is_counted = true;
        Ok(())
    }

    /// The job counts no more, if it did. Wakes who may have waited for that, but this process only where `me_too`.
    pub fn release(&mut self, job: &mut Job, me_too: bool) {
        if core::mem::take(&mut job.is_counted) {
            self.running -= 1;
            if let Some(role) = role(job.role_count) {
                role.running.fetch_sub(1, Relaxed);
            }
        }
        self.wake_next(job.role_count, job.counters, me_too);
    }

    /// Wakes who may have been waiting for a job of this role and session to end: the first who waits for what all need, the first who
    /// waits for the role, and whose session it is.
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

    /// Wakes the first who waits for what all need: there may be a process more.
    pub fn wake_first(&self) {
        if let Some((procno, _)) = self.queue().find(|(_, queued)| queued.holds_up_all()) {
            backend::wake(procno);
        }
    }

    /// How many in front of `me` an idle worker would be for, which are not promised another.
    pub fn claims_before(&self, me: Position) -> usize {
        self.before(me)
            .filter(|(_, other)| other.holds_up_all() && !other.is_promised.load(Relaxed))
            .count()
    }

    /// Those in line, each with its process's number. One that has died without leaving stands for nobody.
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

    /// This process goes to the end of the line, for a job that counts in these two places.
    pub fn enter(&mut self, role_count: DsaPointer, counters: DsaPointer, of: Shortage) {
        let position = backend::my_procno() + 1;
        let Some(me) = queued(position) else { return };
        me.pid.store(backend::my_pid(), Relaxed);
        me.short_of.store(of as u32, Relaxed);
        me.is_promised.store(false, Relaxed);
        me.role.store(role_count, Relaxed);
        me.counters.store(counters, Relaxed);
        self.append(position);
        SPOT.set(position);
    }

    /// This process, which stands in line, waits for something else now.
    pub fn change(&self, of: Shortage) {
        let Some(me) = mine() else { return };
        let held_up_all = me.holds_up_all();
        me.short_of.store(of as u32, Relaxed);
        if held_up_all && !me.holds_up_all() {
            self.wake_first();
        }
    }

    /// This process leaves the line.
    pub fn leave(&mut self) {
        let Some(me) = mine() else { return };
        self.remove(SPOT.take());
        self.wake_next(me.role.load(Relaxed), me.counters.load(Relaxed), true);
    }

    fn append(&mut self, position: Position) {
        // Where a process has died without leaving, the next at its place finds itself in line.
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

/// Who stands, or could stand, at a position.
fn queued(position: Position) -> Option<&'static QueuedLaunch> {
    let n = position.checked_sub(1)?;
    Some(shmem::neighbour(FIRST.get()?, n as usize))
}

thread_local! {
    /// This process's place in line.
    static SPOT: Cell<Position> = const { Cell::new(NOT_QUEUED) };
    /// The first position, once this process has mapped them.
    static FIRST: Cell<Option<&'static QueuedLaunch>> = const { Cell::new(None) };
}

/// Where this process stands in line, [`NOT_QUEUED`] if it does not.
pub fn my_position() -> Position {
    SPOT.get()
}

/// Whether an idle worker was sent away for this process, and it may count on the slot.
pub fn set_promised(is_promised: bool) {
    if let Some(me) = mine() {
        me.is_promised.store(is_promised, Relaxed);
    }
}

fn mine() -> Option<&'static QueuedLaunch> {
    queued(SPOT.get())
}

/// This process has mapped the positions, as many as the server can have processes.
pub(super) fn queue_begins_with(first: &'static QueuedLaunch) {
    FIRST.set(Some(first));
}

/// The count of a role in the room that `keeper` keeps, made on first use. 53200 where memory is out.
pub(super) fn count_of_role<H>(
    keeper: &Locked<H>,
    room: impl Fn(&mut H) -> &mut Admission,
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
    let pointer = list::find_or_add(keeper, |keeper| &mut room(keeper).roles, is_it, fill)?;
    KNOWN.set((number, pointer));
    Ok(pointer)
}
