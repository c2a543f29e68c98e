//! PostgreSQL as the rest of the crate sees it: the only home of `unsafe`. The rooms by what they do:
//!
//! * [`value`]: values, rows and their types;
//! * [`guc`]: the settings of a session;
//! * [`function`]: functions that SQL calls;
//! * [`query`]: the SQL of a job;
//! * [`reuse`]: a worker between two jobs;
//! * [`catalog`]: what is looked up in the catalogs;
//! * [`process`]: this process and others.
//!
//! What stands beside them is the ground that they stand on.
//!
//! Two ways lead into PostgreSQL, and the signature of a function says which one it takes:
//!
//! * **guarded** (`pgrx::pg_sys`): an `ereport(ERROR)` becomes a Rust unwind, so callers may own things. The price: of the
//!   error only level, SQLSTATE, message, detail and hint survive.
//! * **raw** ([`raw`]): an `ereport(ERROR)` is a `longjmp` to the innermost [`error::catch`] (or to PostgreSQL itself), and the
//!   error stays whole. No frame in between may own anything. The job's SQL runs this way, and so do loops over rows. Such a function
//!   takes the token [`raw::Raw`], which exists in the closure that `catch` is given and in what PostgreSQL calls back.
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
pub mod plan;
pub mod process;
pub mod query;
pub mod raw;
pub mod reuse;
pub mod shmem;
pub mod spi;
pub mod sqlstate;
pub mod table;
pub mod text;
pub mod transaction;
pub mod value;
pub mod wire;
