//! PostgreSQL as the rest of the crate sees it, and the only module with `unsafe` code. Its folders:
//!
//! * [`value`]: values, rows and their types;
//! * [`guc`]: the settings of a session;
//! * [`function`]: functions that SQL calls;
//! * [`query`]: the SQL of a job;
//! * [`reuse`]: reuse of a worker for another job;
//! * [`catalog`]: look-ups in the catalogs;
//! * [`process`]: this process and others.
//!
//! The other modules are the base for these folders.
//!
//! There are two ways to call PostgreSQL, and the signature of a function shows which one it uses:
//!
//! * **guarded** (`pgrx::pg_sys`): an `ereport(ERROR)` becomes a Rust unwind, so callers may own things. In return, only the level,
//!   SQLSTATE, message, detail and hint of the error are kept.
//! * **raw** ([`raw`]): an `ereport(ERROR)` is a `longjmp` to the innermost [`error::catch`] (or to PostgreSQL itself), and the whole error
//!   is kept. No frame in between may own anything. The job's SQL runs this way, and so do loops over rows. Such a function takes the token
//!   [`raw::Raw`], which exists in the closure that is passed to `catch` and in callbacks from PostgreSQL.
#![allow(
    unsafe_code,
    reason = "the bindings of PostgreSQL are foreign code; everything above this module is safe"
)]

mod allocator;
pub mod catalog;
pub mod compat;
pub mod digits;
pub mod error;
pub mod exclusive;
pub mod fallible;
pub mod files;
#[macro_use]
pub mod function;
pub mod guc;
pub mod memory;
pub mod moment;
pub mod plan;
pub mod process;
pub mod query;
pub mod raw;
pub mod reuse;
pub mod scratch;
pub mod shmem;
pub mod spi;
pub mod sqlstate;
pub mod table;
pub mod text;
pub mod transaction;
pub mod value;
pub mod wire;
