//! Where each call of a function of the extension begins: with the tables, and the first one in a session with the word that this database has
//! tasks. Without that, nothing would go on after a start of the server whose library is not preloaded, or after a change of settings.

use crate::pg::error::Result;
use crate::pg::transaction;
use crate::settings::{self, Tasks};
use crate::tasks::shared::{self, Mode};
use crate::tasks::stamp::{self, Standing};
use crate::tasks::tables::{self, Tables};
use core::cell::Cell;

thread_local! {
    /// The table of tasks that this process has told of.
    static TOLD_OF: Cell<u32> = const { Cell::new(0) };
}

/// The tables of this database, as [`tables::tables`].
pub fn tables() -> Result<Tables> {
    let tables = tables::tables()?;
    if TOLD_OF.get() != tables.task && !transaction::in_recovery() {
        tell(&tables)?;
        TOLD_OF.set(tables.task);
    }
    Ok(tables)
}

fn tell(tables: &Tables) -> Result<()> {
    let database = shared::mine()?;
    match (settings::tasks(), stamp::standing(tables)?) {
        (Tasks::Off, _) | (Tasks::Auto, Standing::Copy(_)) => database.set_mode(Mode::Quiet),
        (_, Standing::New) => (),
        _ if database.mode() == Mode::Runs => (),
        _ => {
            database.set_mode(Mode::Unknown);
            database.blocks();
            database.ask_for_sweep();
        }
    }
    Ok(())
}
