//! This process and others.
//!
//! * [`proc`]: latches, signals, timers, background workers and identities.

pub mod proc;
