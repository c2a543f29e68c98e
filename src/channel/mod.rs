//! What a session and a worker share for one job: the request on its way there, rows and messages on their way back.
//!
//! * [`request`]: what the launching session gives: identity, settings, libraries;
//! * [`message`]: the messages of the way back, as both ends see them;
//! * [`queue`]: where they wait: pieces in shared memory, and in temporary files when nobody reads;
//! * [`writer`]: the worker's end;
//! * [`reader`]: the session's end.

pub mod message;
pub mod queue;
pub mod reader;
pub mod request;
pub mod writer;
