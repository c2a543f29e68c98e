//! Where each call of a function of the extension begins: with the tables, and the first one in a session with the word that this database has
//! tasks, as does the first one after a change of its settings. Without that, nothing would go on after a start of the server whose library is not
//! preloaded, or after such a change.

use crate::pg::error::Result;
use crate::pg::transaction;
use crate::settings::{self, Tasks};
use crate::tasks::shared::{self, Mode};
use crate::tasks::stamp::{self, Standing};
use crate::tasks::tables::{self, Tables};
use core::cell::Cell;

thread_local! {
    /// The table of tasks that this process has told of, and its setting then.
    static TOLD_OF: Cell<Option<(u32, Tasks)>> = const { Cell::new(None) };
}

/// The tables of this database, as [`tables::tables`].
pub fn tables() -> Result<Tables> {
    let tables = tables::tables()?;
    let told = Some((tables.task, settings::tasks()));
    if (TOLD_OF.get() != told || is_in_doubt()) && !transaction::in_recovery() {
        tell(&tables)?;
        TOLD_OF.set(told);
    }
    Ok(tables)
}

/// Whether nothing runs here, and not for a setting of this session. The session that found so may have had another setting.
fn is_in_doubt() -> bool {
    settings::tasks() != Tasks::Off && shared::known().is_some_and(|database| database.mode() == Mode::Quiet)
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
