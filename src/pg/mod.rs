//! PostgreSQL as the rest of the crate sees it: the only home of `unsafe`.
//!
//! Two ways lead into PostgreSQL, and each wrapper says by its module which one it takes:
//!
//! * **guarded** (`pgrx::pg_sys`): an `ereport(ERROR)` becomes a Rust unwind, so callers may own things. The price: of the
//!   error only level, SQLSTATE, message, detail and hint survive.
//! * **raw** ([`raw`]): an `ereport(ERROR)` is a `longjmp` to the innermost [`error::catch`] (or to PostgreSQL itself), and the
//!   error stays whole. No frame in between may own anything. The job's SQL runs this way, and so do loops over rows.
#![allow(
    unsafe_code,
    reason = "the bindings of PostgreSQL are foreign code; everything above this module is safe"
)]

pub mod adopt;
mod assign;
pub mod callbacks;
pub mod compat;
pub mod compiled;
pub mod database;
pub mod encoding;
pub mod error;
pub mod files;
pub mod fmgr;
pub mod foreign;
pub mod guc;
pub mod guc_state;
pub mod guc_written;
pub mod library;
pub mod local;
pub mod lock;
pub mod memory;
pub mod params;
pub mod parsed;
pub mod proc;
pub mod raw;
pub mod receiver;
pub mod record;
mod reserve;
pub mod reset;
pub mod role;
pub mod rowtype;
pub mod scan;
pub mod shmem;
pub mod spi;
pub mod standing;
pub mod tcop;
pub mod text;
pub mod tuples;
pub mod wire;
