//! This process and others.
//!
//! * [`backend`]: processes as shared memory shows them, the clock, and random numbers;
//! * [`latch`]: waiting to be woken by other processes;
//! * [`signals`]: signals, interrupts and timers;
//! * [`identity`]: the roles that this process acts as;
//! * [`bgworker`]: background workers, from both sides;
//! * [`only`]: locks for the one process of the server that may do a thing.

pub mod backend;
pub mod bgworker;
pub mod identity;
pub mod latch;
pub mod only;
pub mod signals;
