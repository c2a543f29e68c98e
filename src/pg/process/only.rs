//! A lock that all builds of this library know, for the one process of the server that may do a thing. Builds share no memory, but they share the
//! server's lock table.
//!
//! It is a lock as `pg_advisory_lock` takes it, which belongs to no transaction, in a space of its own: no session can take it, since a session's
//! locks have the number of a database.

use crate::pg::error::{self, Result};
use crate::pg::process::backend;
use crate::pg::raw::{self, Raw, may_raise};
use core::cell::Cell;
use pgrx::pg_sys::{self, LOCKTAG};

/// A lock of its own space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Only(u32);

impl Only {
    /// Held by the clock, from before it does anything until its end.
    pub const CLOCK: Only = Only(1);
    /// Held by a clock that waits for the one of another build.
    pub const NEXT_CLOCK: Only = Only(2);
}

/// "pg_b" and "tsks": what tells these locks from those of other users of this space.
const SPACE: [u32; 2] = [0x7067_5f62, 0x7473_6b73];

/// `USER_LOCKMETHOD` of storage/lock.h.
const USER_LOCKMETHOD: u8 = 2;

// storage/lock.h
may_raise! {
    fn LockAcquire(tag: *const LOCKTAG, mode: pg_sys::LOCKMODE, is_sessions: bool, only_if_free: bool) -> pg_sys::LockAcquireResult::Type;
    fn LockRelease(tag: *const LOCKTAG, mode: pg_sys::LOCKMODE, is_sessions: bool) -> bool;
    fn GetLockStatusData() -> *mut pg_sys::LockData;
}

thread_local! {
    /// The locks that this process has, a bit for each.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

const MODE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as _;

impl Only {
    fn tag(self) -> LOCKTAG {
        LOCKTAG {
            locktag_field1: 0,
            locktag_field2: SPACE[0],
            locktag_field3: SPACE[1],
            locktag_field4: self.0 as u16,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: USER_LOCKMETHOD,
        }
    }

    /// Takes the lock, until [`Only::give_back`]; a process without a database does not lose it by its end. False if another process has it. 53200 if
    /// the lock table is full.
    pub fn take(self) -> Result<bool> {
        // SAFETY: the tag is copied; a lock of a session needs no transaction.
        let is_mine = error::catching(|raw| unsafe {
            LockAcquire(raw, &self.tag(), MODE, true, true) != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
        })?;
        if is_mine {
            HELD.set(HELD.get() | self.0);
        }
        Ok(is_mine)
    }

    /// Whether this process has the lock.
    pub fn is_mine(self) -> bool {
        HELD.get() & self.0 != 0
    }

    /// Gives the lock back if this process has it. Must not fail.
    pub fn give_back(self) {
        if self.is_mine() {
            HELD.set(HELD.get() & !self.0);
            // SAFETY: as it was taken.
            error::if_possible(|| error::catching(|raw| unsafe { LockRelease(raw, &self.tag(), MODE, true) }));
        }
    }

    /// Whether another process has it; this one does not.
    pub fn is_taken(self) -> Result<bool> {
        let is_free = self.take()?;
        self.give_back();
        Ok(!is_free)
    }

    /// Wakes the process that has it.
    pub fn wake_holder(self) -> Result<()> {
        error::catching(|raw| wake_holder(raw, &self.tag()))
    }
}

fn wake_holder(raw: Raw<'_>, tag: &LOCKTAG) {
    // SAFETY: the locks are in the current memory context, with their number.
    unsafe {
        let data = GetLockStatusData(raw);
        for n in 0..(*data).nelements.max(0) as usize {
            let lock = (*data).locks.add(n);
            if same(&(*lock).locktag, tag) && (*lock).holdMask != 0 {
                // A process without a database is in no list but this one.
                (0..backend::count() as u32)
                    .filter(|procno| backend::owner_of_latch(*procno) == (*lock).pid)
                    .for_each(backend::wake);
            }
        }
        raw::pfree(raw, (*data).locks.cast());
        raw::pfree(raw, data.cast());
    }
}

fn same(one: &LOCKTAG, other: &LOCKTAG) -> bool {
    let all = |tag: &LOCKTAG| {
        (
            (
                tag.locktag_field1,
                tag.locktag_field2,
                tag.locktag_field3,
                tag.locktag_field4,
            ),
            (tag.locktag_type, tag.locktag_lockmethodid),
        )
    };
    all(one) == all(other)
}
