//! Jumps of the server's clock, which are the difference between the time that it shows and the time that passes.

use crate::pg::process::backend;
use std::time::Instant;

/// What is no jump, in microseconds. A clock that is set right bit by bit runs faster by less than a thousandth.
const LEAST: i64 = 1_000_000;

/// The clock as it was when it was looked at last.
pub struct Watch {
    seen: Instant,
    shown: i64,
}

impl Watch {
    /// Begins now.
    pub fn begin() -> Self {
        Self {
            seen: Instant::now(),
            shown: backend::now(),
        }
    }

    /// Whether the clock has jumped forward since it was looked at last. What it has jumped over was missed. No process was awake either while the
    /// machine was suspended.
    pub fn has_jumped(&mut self) -> bool {
        let now = Self::begin();
        let passed = (now.seen - self.seen).as_micros() as i64;
        let shown = now.shown - self.shown;
        *self = now;
        shown - passed > LEAST + passed / 1000
    }
}
