//! The SQL of a job, run as the simple-query protocol runs it.
//!
//! * [`assigned`]: what a statement updates;
//! * [`callbacks`]: the messages that a backend would send to its client;
//! * [`classify`]: what the grammar alone tells of a text;
//! * [`parse_cache`]: the parse trees of a text that is run repeatedly;
//! * [`receiver`]: the destination of a statement's rows;
//! * [`simple_query`]: strings, statements and the transaction commands around them.

pub mod assigned;
pub mod callbacks;
pub mod classify;
pub mod parse_cache;
pub mod receiver;
pub mod simple_query;
