//! The keeper stays although it has looked, if it is soon to look again: a schedule of a second would cost a job each time, and what is due is
//! to begin at its time, and not when a process has started.

use crate::pg::error::{self, Result};
use crate::pg::process::{backend, latch, signals};
use crate::pg::reuse::reset;
use crate::tasks::jump::Watch;
use crate::tasks::shared::{self, Database};

/// How soon something must be due, in microseconds.
const SOON: i64 = 2_000_000;

/// How long a keeper stays in all, in microseconds. Then it goes, and a worker that has seen what has changed in the catalogs takes its place.
const LONGEST: i64 = 10_000_000;

/// How long a keeper that has something to do all the time goes on while other databases wait for theirs, in microseconds.
const FAIR: i64 = 1_000_000;

/// How often it looks whether it is in the way, in milliseconds: a session that drops or copies a database waits for five seconds.
const LOOK: i64 = 200;

/// A keeper that looks, and stays.
pub struct Stay {
    database: &'static Database,
    began: i64,
    watch: Watch,
}

impl Stay {
    /// The keeper begins.
    pub fn begin(database: &'static Database) -> Self {
        Self {
            database,
            began: backend::now(),
            watch: Watch::begin(),
        }
    }

    /// Whether the clock has jumped forward since this was asked last.
    pub fn clock_has_jumped(&mut self) -> bool {
        self.watch.has_jumped()
    }

    /// Sleeps until the keeper is to look again. False if that is not soon, or the keeper is in the way.
    pub fn until_due(&self) -> Result<bool> {
        self.database.keeper_stays();
        let _leaves = Leaves(self.database);
        loop {
            latch::reset_latch();
            signals::check_for_interrupts()?;
            let now = backend::now();
            let stays_too_long = !(0..LONGEST).contains(&(now - self.began));
            if stays_too_long || error::catching(reset::database_is_wanted)? {
                return Ok(false);
            }
            match self.database.due(now) {
                (true, _) => return Ok(now - self.began < FAIR || !shared::keeper_makes_room()),
                _ if shared::keeper_makes_room() => return Ok(false),
                (false, at) if at == 0 || at - now > SOON => return Ok(false),
                (false, at) => latch::sleep(((at - now + 999) / 1000).min(LOOK))?,
            }
        }
    }
}

struct Leaves(&'static Database);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.keeper_leaves();
    }
}
