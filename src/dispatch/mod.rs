//! Turns an order into a job that a worker process runs. The orderer is a session, or a process without a database.
//!
//! * [`order`]: what a job is to be, and where its state comes from;
//! * [`place`]: gives the order a slot, then a worker; nothing in there blocks;
//! * [`launch_queue`]: the orders that were not admitted, in the order of arrival;
//! * [`spare`]: processes that are started before there are jobs for them.
//!
//! The caller decides how to wait, and what becomes of the handle.

pub mod launch_queue;
pub mod order;
pub mod place;
pub mod spare;
