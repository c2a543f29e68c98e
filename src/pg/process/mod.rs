//! This process and others.
//!
//! * [`backend`]: processes as shared memory shows them, the clock, and random numbers;
//! * [`latch`]: waiting to be woken by other processes;
//! * [`signals`]: signals, interrupts and timers;
//! * [`identity`]: the roles that this process acts as;
//! * [`bgworker`]: background workers, from both sides.

pub mod backend;
pub mod bgworker;
pub mod identity;
pub mod latch;
pub mod signals;
