//! pg_background: SQL in background workers of PostgreSQL.
//!
//! The path of a job:
//!
//! 1. SQL calls a function of [`api`], which checks its arguments and makes one call;
//! 2. [`session::launch`] fills a slot of the [`registry`] and asks the postmaster for a worker;
//! 3. [`worker::main`] takes the job, adopts the state that came in the [`channel::request`], and
//! 4. [`worker::execute`] runs the SQL as the simple-query protocol would;
//! 5. rows and messages go through [`channel::writer`] into the [`channel::queue`], in memory and in temporary files;
//! 6. the transaction is over: [`registry::job::Slot::publish`] tells how the job ended and wakes who waits;
//! 7. [`session::wait`] returns, and [`session::read`] gives rows, messages and the error to the caller;
//! 8. a cancel takes the way of [`registry::job::Slot::cancel`].
//!
//! All that is PostgreSQL's own stands in [`pg`], with all `unsafe`.

mod api;
mod channel;
#[macro_use]
mod pg;
mod registry;
mod session;
mod settings;
mod tasks;
mod worker;

pgrx::pg_module_magic!(name = c"pg_background", version = c"2.1");

/// PostgreSQL loads the library: in a session, in a worker, or with `shared_preload_libraries` in the postmaster.
#[allow(unsafe_code, reason = "the symbol's name is the interface")]
#[unsafe(no_mangle)]
extern "C-unwind" fn _PG_init() {
    pg::error::uncaught(settings::define);
    if pg::reuse::library::is_preloaded() {
        registry::segment::reserve();
    }
    if !pg::process::bgworker::is_job_worker() {
        pg::error::uncaught(api::run::init);
    }
}
