//! The channel of one job: the request to the worker, and the rows and messages that come back.
//!
//! * [`request`]: what the launching session sends: identity, settings, libraries;
//! * [`message`]: the messages that come back, as both ends see them;
//! * [`queue`]: where messages wait: pieces in shared memory, or in temporary files when nobody reads;
//! * [`writer`]: the worker's end;
//! * [`reader`]: the session's end.

pub mod message;
pub mod queue;
pub mod reader;
pub mod request;
pub mod writer;
