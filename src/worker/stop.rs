//! A job that was told to stop ends, whatever its functions catch.
//!
//! A cancel is an error of the statement that it interrupts, and a function may catch that error and go on. So a job that was told to stop
//! does not commit any more, also not within a procedure or a DO; and when a block that has caught an error is rolled back, the cancel comes
//! again, and interrupts what follows the block. Each enclosing block can catch it once.

use crate::pg::error::{self, Result};
use crate::pg::process::signals;
use crate::pg::transaction::{Event, Watcher};
use crate::registry::job::{Slot, Stop};
use crate::worker::execute;
use std::cell::Cell;

static WATCHER: Watcher = Watcher::new(happened);

thread_local! {
    /// The job whose SQL runs.
    static RUNNING: Cell<Option<&'static Slot>> = const { Cell::new(None) };
}

/// Watches the transactions of this process from now on. Once for each process.
pub fn watch() -> Result<()> {
    WATCHER.turn_on()
}

/// The transactions from here on are those of the job in `slot`; of no job for None.
pub fn watch_job(slot: Option<&'static Slot>) {
    RUNNING.set(slot);
}

fn happened(event: Event) {
    let Some(slot) = RUNNING.get().filter(|slot| slot.stop() != Stop::No) else {
        return;
    };
    match event {
        Event::BeforeCommit => error::uncaught(|raw| execute::give_up_if_asked(raw, slot)),
        Event::SubAborted(_) => signals::interrupt_self(),
        _ => (),
    }
}
