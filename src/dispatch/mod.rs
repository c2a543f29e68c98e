//! An order becomes a job in a worker's hands, whoever orders: a session, or a process that has no database.
//!
//! * [`order`]: what a job is to be, and where its state comes from;
//! * [`place`]: the order gets a slot, then a worker; nothing in there blocks;
//! * [`launch_queue`]: those who found no room, in the order of arrival;
//! * [`spare`]: processes ahead of their jobs.
//!
//! Who orders decides how to wait, and what becomes of the handle.

pub mod launch_queue;
pub mod order;
pub mod place;
pub mod spare;
