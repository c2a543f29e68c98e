//! Who is told of the tasks that a transaction enqueued, after its commit.
//!
//! The ids are collected as they are enqueued; those of a subtransaction that is rolled back are dropped. After the commit nothing may fail: room
//! was there before, or there is a flag that says that the table has to be looked at. Of a transaction that is prepared, another session's
//! COMMIT PREPARED tells nothing, so that too leaves the flag.

use crate::pg::error::Result;
use crate::pg::fallible;
use crate::pg::transaction::{self, Event, Watcher};
use crate::settings::{self, Tasks};
use crate::tasks::shared;
use crate::tasks::tables::Phase;
use core::cell::RefCell;

/// The most ids that are told one by one; of a transaction with more the table has to be looked at.
const MOST: usize = 10_000;

/// A task that a transaction has enqueued, or made ready, and the level of the subtransaction that did.
#[derive(Clone, Copy)]
struct Entry {
    #[allow(dead_code, reason = "for what knows single tasks that are ready")]
    id: i64,
    phase: Phase,
    level: i32,
}

struct Pending {
    /// In the order of their levels: the current subtransaction is the last one that adds.
    entries: Vec<Entry>,
    /// There are more.
    sweep: bool,
    /// Settings of queues have changed.
    queues: bool,
}

impl Pending {
    fn forget(&mut self) {
        self.entries.clear();
        (self.sweep, self.queues) = (false, false);
    }

    fn has_any(&self) -> bool {
        self.sweep || self.queues || !self.entries.is_empty()
    }
}

thread_local! {
    static PENDING: RefCell<Pending> = const {
        RefCell::new(Pending {
            entries: Vec::new(),
            sweep: false,
            queues: false,
        })
    };
}

/// Notes a task of this transaction. 53200.
pub fn push(id: i64, phase: Phase) -> Result<()> {
    WATCHER.turn_on()?;
    shared::mine()?;
    let level = transaction::level();
    PENDING.with_borrow_mut(|pending| {
        if pending.entries.len() == MOST {
            pending.sweep = true;
            return Ok(());
        }
        fallible::push(&mut pending.entries, Entry { id, phase, level })
    })
}

/// Notes that this transaction changes settings of queues.
pub fn queues_change() -> Result<()> {
    WATCHER.turn_on()?;
    shared::mine()?;
    PENDING.with_borrow_mut(|pending| pending.queues = true);
    Ok(())
}

static WATCHER: Watcher = Watcher::new(happened);

fn happened(event: Event) {
    PENDING.with_borrow_mut(|pending| match event {
        Event::BeforeCommit => (),
        Event::Committed => {
            if pending.has_any() {
                committed(pending);
            }
            pending.forget();
        }
        Event::Prepared => {
            if pending.has_any() {
                prepared();
            }
            pending.forget();
        }
        Event::Aborted => pending.forget(),
        Event::SubCommitted(level) => {
            let raised = pending
                .entries
                .iter_mut()
                .rev()
                .take_while(|entry| entry.level >= level);
            raised.for_each(|entry| entry.level = level - 1);
        }
        Event::SubAborted(level) => while pending.entries.pop_if(|entry| entry.level >= level).is_some() {},
    });
}

/// The tasks of this database are there for all. Must not fail.
fn committed(pending: &Pending) {
    if pending.queues {
        crate::tasks::totals::ask_for_housekeeping();
    }
    if settings::tasks() == Tasks::Off {
        return;
    }
    if let Some(database) = shared::known() {
        database.ask_for_sweep(pending.sweep || pending.entries.iter().any(|entry| entry.phase == Phase::Blocked));
    }
}

/// A transaction that enqueued tasks will be committed by some session: until then somebody looks now and then. Must not fail.
fn prepared() {
    if settings::tasks() == Tasks::Off {
        return;
    }
    if let Some(database) = shared::known() {
        database.ask_for_sweep(true);
    }
}
