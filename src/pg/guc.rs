//! Settings: definition, and the state of all of them on its way to a worker.

use super::{compat, raw};
use core::ffi::{CStr, c_char, c_int};
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
    pub value: &'static AtomicI32,
}

/// Defines a setting that every user may set.
pub fn define(setting: &IntSetting) {
    // SAFETY: names are static; an AtomicI32 has the layout of an int, and PostgreSQL assigns it in this thread only.
    unsafe {
        pg_sys::DefineCustomIntVariable(
            setting.name.as_ptr(),
            setting.description.as_ptr(),
            core::ptr::null(),
            setting.value.as_ptr(),
            setting.default,
            setting.min,
            setting.max,
            GucContext::PGC_USERSET,
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
    #[cfg(not(feature = "pg14"))]
    unsafe {
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr())
    }
    // SAFETY: the name is static.
    #[cfg(feature = "pg14")]
    unsafe {
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr())
    }
}

/// How many bytes [`serialize_settings`] needs. Guarded.
pub fn settings_size() -> usize {
    // SAFETY: only looks at this backend's state.
    unsafe { pg_sys::EstimateGUCStateSpace() }
}

/// Writes the state of all settings to `place`, which has room for `size` bytes. Guarded.
pub fn serialize_settings(place: *mut u8, size: usize) {
    // SAFETY: the caller allocated `size` bytes, the estimate of the same state.
    unsafe { pg_sys::SerializeGUCState(size, place.cast()) }
}

/// The libraries that a worker must load before it takes over this session's settings, in the form of `SerializeLibraryState`:
/// file names, each with its NUL, and a NUL at the end. Guarded.
///
/// Those are the libraries with a setting of their own that is not at its default: they check its value, and act on it. They are
/// known by their name, which is the first part of their settings' names by convention. All others are loaded when they are
/// first used, as in a new connection; to load what the session happens to have used would cost each job many times what the
/// rest of its start does.
pub fn libraries_with_settings() -> Vec<u8> {
    // SAFETY: the estimate is that of the same state; the names of settings live as long as the process.
    let (state, prefixes) = unsafe {
        let mut state = vec![0u8; pg_sys::EstimateLibraryStateSpace()];
        pg_sys::SerializeLibraryState(state.len(), state.as_mut_ptr().cast());
        let (settings, len) = compat::all_settings();
        let set = (0..len)
            .map(|n| *settings.add(n))
            .filter(|setting| (**setting).source != pg_sys::GucSource::PGC_S_DEFAULT);
        let names = set.map(|setting| super::memory::c_bytes((*setting).name));
        (
            state,
            names
                .filter_map(|name| name.iter().position(|byte| *byte == b'.').map(|dot| &name[..dot]))
                .collect::<Vec<_>>(),
        )
    };
    let mut wanted = Vec::new();
    for file in state.split(|byte| *byte == 0).filter(|file| !file.is_empty()) {
        if prefixes.iter().any(|prefix| is_library_of(file, prefix)) {
            wanted.extend_from_slice(file);
            wanted.push(0);
        }
    }
    wanted.push(0);
    wanted
}

/// Whether the file is the library whose settings begin with `prefix`; a version may follow its name.
fn is_library_of(file: &[u8], prefix: &[u8]) -> bool {
    let name = file.rsplit(|byte| *byte == b'/').next().unwrap_or(file);
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b".") || rest.starts_with(b"-"))
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

/// One setting as this process found it when it connected.
struct Found {
    setting: *mut pg_sys::config_generic,
    value: *mut c_char,
    source: pg_sys::GucSource::Type,
    context: GucContext::Type,
    role: pg_sys::Oid,
}

/// What RESET gives in this process: the values from the configuration, the database and the role. Raw.
///
/// `RestoreGUCState` is made for parallel workers, which never RESET: where the session had set a value itself, it leaves the
/// compiled-in default below it. So they are remembered before and put back below after.
pub struct ResetValues {
    first: *mut Found,
    count: usize,
}

impl ResetValues {
    /// The values now, right after connecting.
    pub fn remember() -> Self {
        // SAFETY: the settings live as long as the process; there is room for all of them.
        unsafe {
            let (settings, len) = compat::all_settings();
            let first = raw::palloc(size_of::<Found>() * len).cast::<Found>();
            let mut count = 0;
            for n in 0..len {
                let setting = *settings.add(n);
                let fixed = matches!(
                    (*setting).context,
                    GucContext::PGC_POSTMASTER | GucContext::PGC_INTERNAL
                );
                if fixed || (*setting).source == pg_sys::GucSource::PGC_S_DEFAULT {
                    continue;
                }
                let value = raw::GetConfigOption((*setting).name, false, false);
                if value.is_null() {
                    continue;
                }
                first.add(count).write(Found {
                    setting,
                    value: raw::pstrdup(value),
                    source: (*setting).source,
                    context: (*setting).scontext,
                    role: compat::setting_role(setting),
                });
                count += 1;
            }
            Self { first, count }
        }
    }

    /// Puts them below what the session had set since. In a transaction.
    pub fn put_back(self) {
        // SAFETY: as above. A setting that has a stronger source keeps its value; only what RESET gives changes.
        unsafe {
            for n in 0..self.count {
                let found = &*self.first.add(n);
                if (*found.setting).source > found.source {
                    compat::set_reset_value(
                        (*found.setting).name,
                        found.value,
                        found.context,
                        found.source,
                        found.role,
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_library_of;

    #[test]
    fn libraries_are_known_by_their_names() {
        assert!(is_library_of(
            b"/usr/lib/postgresql/15/lib/auto_explain.so",
            b"auto_explain"
        ));
        assert!(is_library_of(b"/lib/timescaledb-2.14.so", b"timescaledb"));
        assert!(!is_library_of(b"/lib/plpgsql.so", b"plpgsql_check"));
        assert!(!is_library_of(b"/lib/plpgsql_check.so", b"plpgsql"));
    }
}
