//! Settings: the definition of ours, and the values of PostgreSQL's that are needed here.

use super::raw;
use core::ffi::{CStr, c_int};
use core::sync::atomic::AtomicI32;
use pgrx::pg_sys::{self, GucContext};

/// An integer setting. PostgreSQL writes the variable; here it is only read.
pub struct IntSetting {
    pub name: &'static CStr,
    pub description: &'static CStr,
    pub default: i32,
    pub min: i32,
    pub max: i32,
    /// `GUC_UNIT_…` of `utils/guc.h`, 0 for none.
    pub unit: u32,
    pub who: Who,
    pub value: &'static AtomicI32,
}

/// Who may set a setting besides the configuration.
#[derive(Clone, Copy)]
pub enum Who {
    Everybody,
    Superusers,
    /// Nobody: the configuration file and ALTER SYSTEM alone, since it holds for the whole cluster.
    Nobody,
}

/// Defines a setting. Raw.
pub fn define(setting: &IntSetting) {
    // SAFETY: names are static; an AtomicI32 has the layout of an int, and PostgreSQL assigns it in this thread only.
    unsafe {
        raw::DefineCustomIntVariable(
            setting.name.as_ptr(),
            setting.description.as_ptr(),
            core::ptr::null(),
            setting.value.as_ptr(),
            setting.default,
            setting.min,
            setting.max,
            match setting.who {
                Who::Everybody => GucContext::PGC_USERSET,
                Who::Superusers => GucContext::PGC_SUSET,
                Who::Nobody => GucContext::PGC_SIGHUP,
            },
            setting.unit as c_int,
            None,
            None,
            None,
        );
    }
}

/// Refuses unknown settings with this prefix from now on.
pub fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: the name is static.
    #[cfg(since_15)]
    unsafe {
        raw::MarkGUCPrefixReserved(prefix.as_ptr())
    }
    // SAFETY: the name is static.
    #[cfg(not(since_15))]
    unsafe {
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr())
    }
}

/// `max_worker_processes`, which is fixed when the server starts.
pub fn max_worker_processes() -> i32 {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::max_worker_processes }
}

/// When this process has read the configuration: it does so between two commands, after somebody has asked for it.
pub fn configuration_read_at() -> i64 {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::PgReloadTime }
}

/// `deadlock_timeout` in milliseconds.
pub fn deadlock_timeout() -> i32 {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::DeadlockTimeout }
}

/// `temp_file_limit` in kB, -1 for none.
pub fn temp_file_limit() -> i32 {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::temp_file_limit }
}

/// `statement_timeout` in milliseconds, 0 for none.
pub fn statement_timeout() -> i32 {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::StatementTimeout }
}
