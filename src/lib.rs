//! pg_background: SQL in background workers of PostgreSQL.
//!
//! The path of a job:
//!
//! 1. SQL calls a function of [`api`], which checks its arguments and makes one call;
//! 2. [`session::launch`] makes an order of it, [`dispatch`] fills a slot of the [`registry`] and finds a worker, or asks the postmaster for one;
//! 3. [`worker::main`] takes the job, adopts the state that came in the [`channel::request`], and
//! 4. [`worker::execute`] runs the SQL as the simple-query protocol does;
//! 5. rows and messages go through [`channel::writer`] into the [`channel::queue`], in memory and in temporary files;
//! 6. the transaction ends, and [`registry::job::Slot::publish`] publishes the job's end and wakes the waiters;
//! 7. [`session::wait`] returns, and [`session::read`] passes rows, messages and the error to the caller;
//! 8. [`registry::job::Slot::cancel`] cancels a job.
//!
//! [`pg`] has all calls of PostgreSQL, and all unsafe code.

#[macro_use]
mod numbered;
mod api;
mod channel;
mod dispatch;
#[macro_use]
mod pg;
#[cfg(feature = "probe")]
mod probe;
mod registry;
mod session;
mod settings;
mod tasks;
mod worker;

pgrx::pg_module_magic!(name = c"pg_background", version = c"2.1");

/// Called when PostgreSQL loads the library: in a session, in a worker, or with `shared_preload_libraries` in the postmaster.
#[allow(unsafe_code, reason = "the symbol's name is the interface")]
#[unsafe(no_mangle)]
extern "C-unwind" fn _PG_init() {
    pg::error::uncaught(settings::define);
    if pg::reuse::library::is_being_preloaded() {
        registry::segment::reserve();
        pg::error::uncaught(tasks::clock::start_with_server);
    }
    if !pg::process::bgworker::is_job_worker() {
        pg::error::uncaught(api::run::init);
    }
}
