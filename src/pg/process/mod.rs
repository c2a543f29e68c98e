//! This process and others.
//!
//! * [`backend`]: this process and the others, as shared memory knows them;
//! * [`latch`]: waiting for them, and waking them;
//! * [`signals`]: signals, interrupts and timers;
//! * [`identity`]: who this process acts for;
//! * [`bgworker`]: background workers, from both sides.

pub mod backend;
pub mod bgworker;
pub mod identity;
pub mod latch;
pub mod signals;
