//! The SQL of a job, run as the simple-query protocol runs it.
//!
//! * [`callbacks`]: where messages, tuples and notifications of a statement go;
//! * [`classify`]: what the grammar alone tells of a text;
//! * [`parse_cache`]: what the grammar made of a text that comes again;
//! * [`receiver`]: where the rows of a statement go;
//! * [`simple_query`]: strings, statements and the transaction commands around them.

pub mod callbacks;
pub mod classify;
pub mod parse_cache;
pub mod receiver;
pub mod simple_query;
