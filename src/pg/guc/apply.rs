//! A session's settings, and how a worker takes them over.
//!
//! The session writes its settings with PostgreSQL's own `SerializeGUCState`. The counterpart for parallel workers, `RestoreGUCState`,
//! first resets all settings to the compiled-in defaults and then sets all of them. A worker that has just connected differs from the
//! session in a few settings only. So it compares the two states and sets the differences. If that cannot reach the session's state, it
//! uses `RestoreGUCState`.

use crate::pg::error::{self, Report, Result};
use crate::pg::exclusive::Exclusive;
use crate::pg::guc::serialized::{Entries, Entry, TAIL, changeable, compare, parts, split_string, state_of, write};
use crate::pg::guc::unchanged::Written;
use crate::pg::memory::{self, Buffer};
use crate::pg::process::backend;
use crate::pg::raw::{self, Raw};
use crate::pg::reuse::library::{file_name, files};
use crate::pg::{compat, fallible};
use core::cell::Cell;
use core::ffi::{CStr, c_char};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, GucContext, GucSource};
use std::hash::{DefaultHasher, Hasher};

/// The settings of this session, and what is derived from them.
pub struct Settings {
    written: Written,
    /// What was written with what is below it, if anything is.
    with_below: Vec<u8>,
    mark: u64,
    digest: Digest,
    prefixes: Vec<Vec<u8>>,
}

/// The initial capacity for serialized settings in bytes.
const STATE: usize = 4096;

static SETTINGS: Exclusive<Settings> = Exclusive::new();

thread_local! {
    /// Whether a setting was left out that [`set_left_out`] will set.
    static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
}

/// Calls `body` with the settings of this session, serialized.
pub fn with_settings<T>(body: impl FnOnce(&Settings) -> Result<T>) -> Result<T> {
    SETTINGS.recover();
    if SETTINGS.with(|_| ()).is_none() {
        let state = error::catching(|raw| memory::for_process(|| Buffer::new(raw, STATE)))?;
        SETTINGS.set(Settings {
            written: Written::nothing(state),
            with_below: Vec::new(),
            mark: 0,
            digest: Digest::NONE,
            prefixes: Vec::new(),
        });
    }
    let given = SETTINGS.with(|settings| {
        settings.refresh()?;
        body(settings)
    });
    // It was set above, and nothing that writes settings launches jobs.
    given.unwrap_or_else(|| Err(Report::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "settings are in use").into()))
}

impl Settings {
    fn refresh(&mut self) -> Result<()> {
        if error::catching(|raw| self.written.is_current(raw, None))? {
            return Ok(());
        }
        self.mark = backend::strong_random()?;
        error::catching(|raw| self.written.write(raw))?;
        let below = below_of(self.written.bytes())?;
        self.with_below.clear();
        if !below.is_empty() {
            fallible::reserve(&mut self.with_below, self.written.bytes().len() + below.len())?;
            self.with_below.extend_from_slice(self.written.bytes());
            self.with_below.extend_from_slice(&below);
        }
        self.digest = Digest::of(self.written.bytes());
        self.prefixes.clear();
        for entry in Entries::of_bytes(self.written.bytes()) {
            let Some(dot) = entry.dot() else { continue };
            let prefix = &entry.name[..dot];
            // The worker has this library in any case.
            if prefix != b"pg_background" && !self.prefixes.iter().any(|known| known == prefix) {
                fallible::push(&mut self.prefixes, fallible::copied(prefix)?)?;
            }
        }
        Ok(())
    }

    /// The settings as `SerializeGUCState` writes them, and behind them in the same form what RESET returns to ([`set_below`]).
    pub fn bytes(&self) -> &[u8] {
        match self.with_below.as_slice() {
            [] => self.written.bytes(),
            both => both,
        }
    }

    /// A number, not 0, that is unique to these settings across all processes.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// What stands for them.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The libraries that a worker must load before it takes over this session's settings, in the form of `SerializeLibraryState`: file
    /// names, each followed by a NUL, and a NUL at the end. Guarded.
    ///
    /// Those are the libraries that have a setting which is not at its default: they check its value, and act on it. They are recognised by
    /// their name, which by convention is the first part of their settings' names. All others are loaded when they are first used, as in a
    /// new connection. Loading everything that the session has used would cost each job many times what the rest of its start costs. The
    /// server's preloaded libraries are there in any case.
    pub fn libraries(&self) -> Vec<u8> {
        if self.prefixes.is_empty() {
            return vec![0];
        }
        // SAFETY: the estimate is that of the same state.
        let state = unsafe {
            let mut state = vec![0u8; pg_sys::EstimateLibraryStateSpace()];
            pg_sys::SerializeLibraryState(state.len(), state.as_mut_ptr().cast());
            state
        };
        let mut wanted = Vec::new();
        for file in files(&state) {
            if self.prefixes.iter().any(|prefix| is_library_of(file, prefix)) {
                wanted.extend_from_slice(file);
                wanted.push(0);
            }
        }
        wanted.push(0);
        wanted
    }
}

/// Digest that stand for settings, whatever the order in which they were set.
#[derive(Clone, Copy)]
pub struct Digest {
    /// For those which PostgreSQL does not define itself, 0 where there are none. A process that has once known such a setting is never
    /// again as if it had not.
    pub custom: u64,
    /// For the values of those that something which is compiled or planned may depend on.
    pub material: u64,
}

impl Digest {
    /// Of no settings.
    pub const NONE: Digest = Digest { custom: 0, material: 1 };

    /// Of the settings in a state as `SerializeGUCState` writes it. Owns nothing.
    pub fn of(state: &[u8]) -> Self {
        let mut digest = Self::NONE;
        for entry in Entries::of_bytes(state) {
            let mut mark = DefaultHasher::new();
            mark.write(entry.name);
            if entry.dot().is_some() {
                digest.custom = digest.custom.wrapping_add(mark.finish());
            }
            entry.add_material(mark, &mut digest.material);
        }
        digest
    }
}

/// The settings of a session that hold for its jobs in other databases too, where it has set them itself.
const LIMITS: [&[u8]; 3] = [b"lock_timeout", b"statement_timeout", b"work_mem"];

/// The serialized state of the limits alone.
pub fn explicit_limits() -> Result<Vec<u8>> {
    with_settings(|settings| {
        let mut chosen = Vec::new();
        for entry in Entries::of_bytes(settings.bytes()) {
            if LIMITS.contains(&entry.name) && entry.source() >= GucSource::PGC_S_CLIENT {
                chosen.extend_from_slice(entry.name);
                chosen.push(0);
                chosen.extend_from_slice(entry.rest);
            }
        }
        state_of(chosen)
    })
}

/// Returns the state `base` with the limits of [`explicit_limits`] in place of its own values, in the current memory context. It has no
/// entry for `role`, which is set by oid.
pub fn with_limits(raw: Raw<'_>, base: &[u8], limits: &[u8]) -> Buffer {
    let (base, limits) = (Entries::of_bytes(base), Entries::of_bytes(limits));
    let each = |visit: &mut dyn FnMut(&Entry)| {
        base.filter(|entry| entry.name != b"role" && !limits.has(entry.name))
            .for_each(|entry| visit(&entry));
        limits.for_each(|entry| visit(&entry));
    };
    let mut len = 0;
    each(&mut |entry| len += entry.name.len() + 1 + entry.rest.len());
    let mut state = Buffer::new(raw, size_of::<usize>() + len);
    let mut put = |bytes: &[u8]| state.push(bytes.as_ptr(), bytes.len());
    put(&len.to_ne_bytes());
    each(&mut |entry| {
        put(entry.name);
        put(&[0]);
        put(entry.rest);
    });
    state
}

/// Whether the file is the library whose settings begin with `prefix`. A version may follow its name.
fn is_library_of(file: &[u8], prefix: &[u8]) -> bool {
    file_name(file)
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b".") || rest.starts_with(b"-"))
}

/// Puts this worker, which has the settings `own` since it connected, into the state of settings `state`. Call it in a transaction. Returns
/// the reset values, if they have to be put back.
pub fn adopt_settings(raw: Raw<'_>, state: &[u8], own: &[u8]) -> Option<ResetValues> {
    let (theirs, ours) = (Entries::of_bytes(state), Entries::of_bytes(own));
    let weaker = |entry: &Entry, have: Option<Entry>| have.is_none_or(|have| have.source() <= entry.source());
    let is_weaker_below = Entries::of_bytes(below(state)).all(|entry| weaker(&entry, ours.named(entry.name)));
    if is_weaker_below && compare(theirs, ours, &mut |entry, have| weaker(entry, have)) {
        compare(theirs, ours, &mut |entry, _| entry.set(raw));
        return None;
    }
    let reset_values = ResetValues::remember(raw);
    let defined = without_emptied(raw, state);
    // SAFETY: the state was written by SerializeGUCState.
    unsafe { raw::RestoreGUCState(raw, defined.as_ptr().cast()) };
    theirs.filter(Entry::is_emptied).for_each(|entry| entry.set_now(raw));
    Some(reset_values)
}

/// Sets the setting `name` to what it is in `state`, if it is there. Call it in a transaction.
pub fn set_named(raw: Raw<'_>, state: &[u8], name: &CStr) {
    if let Some(entry) = Entries::of_bytes(state).named(name.to_bytes()) {
        entry.set_now(raw);
    }
}

/// What RESET returns to, for the settings in `state` that the session has SET, with the source of that. Without those that only superusers see, those
/// that name objects, and the roles.
fn below_of(state: &[u8]) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    for entry in Entries::of_bytes(state) {
        if entry.source() <= GucSource::PGC_S_OVERRIDE || entry.names_object() || entry.is_role() {
            continue;
        }
        // SAFETY: the name ends with a NUL in the state; a setting lives at least as long as the call.
        let below = error::catching(|raw| unsafe {
            let name = CStr::from_ptr(entry.name.as_ptr().cast());
            let setting = compat::find_setting(name)?;
            if (*setting).flags as u32 & pg_sys::GUC_SUPERUSER_ONLY != 0 {
                return None;
            }
            let value = raw::GetConfigOptionResetString(raw, name.as_ptr());
            let value = if value.is_null() { &[] } else { memory::c_bytes(value) };
            let role = compat::setting_reset_role(setting).to_u32();
            Some((value, [(*setting).reset_source, (*setting).reset_scontext, role]))
        })?;
        let Some((value, numbers)) = below else { continue };
        fallible::reserve(&mut entries, entry.name.len() + value.len() + 3 + TAIL)?;
        for text in [entry.name, value, b""] {
            entries.extend_from_slice(text);
            entries.push(0);
        }
        entries.extend(numbers.into_iter().flat_map(u32::to_ne_bytes).take(TAIL));
    }
    if entries.is_empty() {
        Ok(entries)
    } else {
        state_of(entries)
    }
}

/// The second part of a state that [`Settings::bytes`] returns; empty for other states.
fn below(state: &[u8]) -> &[u8] {
    parts(state).1
}

/// Whether RESET returns to the same under both states.
pub fn same_below(one: &[u8], other: &[u8]) -> bool {
    below(one) == below(other)
}

/// Has RESET return to what it returns to in the session. The values of the settings, which the session has SET, stay as they are. Call it in a
/// transaction, after the state was reached.
pub fn set_below(raw: Raw<'_>, state: &[u8]) {
    // The default is below everything.
    for entry in Entries::of_bytes(below(state)).filter(|entry| entry.source() != GucSource::PGC_S_DEFAULT) {
        // SAFETY: the setting is there, since the session's value has been set. Both texts end with a NUL.
        let is_so = unsafe {
            let name = CStr::from_ptr(entry.name.as_ptr().cast());
            let now = raw::GetConfigOptionResetString(raw, name.as_ptr());
            !now.is_null()
                && CStr::from_ptr(now) == CStr::from_ptr(entry.rest.as_ptr().cast())
                && compat::find_setting(name).is_some_and(|setting| (*setting).reset_source == entry.source())
        };
        if !is_so {
            entry.set_now(raw);
        }
    }
}

/// Returns the state without emptied settings, to which PostgreSQL would assign the empty value explicitly.
fn without_emptied(raw: Raw<'_>, state: &[u8]) -> Buffer {
    let (entries, _) = parts(state);
    let emptied = Entries::of_bytes(state).filter(Entry::is_emptied);
    // They are the last ones.
    let len = entries.len()
        - emptied
            .map(|entry| entry.name.len() + 1 + entry.rest.len())
            .sum::<usize>();
    let mut defined = Buffer::new(raw, size_of::<usize>() + len);
    defined.push(len.to_ne_bytes().as_ptr(), size_of::<usize>());
    defined.push(entries.as_ptr(), len);
    defined
}

/// Puts this worker, which was put into the state `before` and now has the settings `own`, into the state `state` by setting the
/// differences. The setting `but` is not changed.
///
/// Returns false, without any change, if that would leave something behind that a worker which has just connected, with the settings
/// `base`, would not have. Call it in a transaction.
pub fn step(raw: Raw<'_>, state: &[u8], before: &[u8], own: &[u8], base: &[u8], but: &CStr) -> bool {
    let [theirs, before, ours, base] = [state, before, own, base].map(Entries::of_bytes);
    let but = but.to_bytes();
    let clean = compare(theirs, ours, &mut |entry, have| {
        if entry.name == but {
            return before.named(but).is_some_and(|before| before.rest == entry.rest);
        }
        match have {
            // The value below it, which RESET restores, stays the same.
            Some(have) if have.source() == entry.source() => true,
            Some(have) if have.source() > entry.source() => false,
            have => {
                let have = have.filter(|have| !have.is_emptied());
                have.map(|have| have.rest) == base.named(entry.name).map(|found| found.rest)
            }
        }
    });
    if clean {
        compare(theirs, ours, &mut |entry, _| entry.name == but || entry.set(raw));
    }
    clean
}

/// Whether a setting was left out when a state was reached.
pub fn is_anything_left_out() -> bool {
    LEFT_OUT.get()
}

/// Sets what was left out when the state was reached. Within a transaction PostgreSQL would look up the objects that these settings name;
/// outside of one it does not. Call it outside of a transaction. `scratch` is overwritten.
pub fn set_left_out(raw: Raw<'_>, state: &[u8], scratch: &mut Buffer) {
    LEFT_OUT.set(false);
    write(raw, scratch);
    let ours = Entries::of_bytes(scratch.bytes());
    for entry in Entries::of_bytes(state).filter(Entry::names_object) {
        if ours.named(entry.name).is_none_or(|have| have.rest != entry.rest) {
            entry.set_now(raw);
        }
    }
}

unsafe extern "C-unwind" fn say_which(entry: *mut core::ffi::c_void) {
    // SAFETY: the argument is the entry that is being set; its texts end with their NULs. The message is that of
    // guc_restore_error_context_callback.
    unsafe {
        let entry = &*entry.cast::<Entry>();
        raw::errcontext_msg(
            c"while setting parameter \"%s\" to \"%s\"".as_ptr(),
            entry.name.as_ptr(),
            entry.rest.as_ptr(),
        );
    }
}

/// One setting as this process found it when it connected.
struct ResetValue {
    setting: *mut pg_sys::config_generic,
    value: *mut c_char,
    source: pg_sys::GucSource::Type,
    context: GucContext::Type,
    role: pg_sys::Oid,
}

/// The reset values of this process, that is, the values from the configuration, the database and the role.
///
/// `RestoreGUCState` is made for parallel workers, which never RESET. If the session had set a value itself, it leaves the compiled-in
/// default as the reset value. So the reset values are remembered before the call and put back after it.
pub struct ResetValues {
    first: *mut ResetValue,
    count: usize,
}

impl ResetValues {
    /// Remembers the values as they are right after connecting.
    pub fn remember(raw: Raw<'_>) -> Self {
        let settings = changeable();
        let most = settings.size_hint().1.unwrap_or_default();
        // SAFETY: the settings live as long as the process; there is room for all of them.
        unsafe {
            let first = raw::palloc(raw, size_of::<ResetValue>() * most).cast::<ResetValue>();
            let mut count = 0;
            for setting in settings {
                let value = raw::GetConfigOption(raw, (*setting).name, false, false);
                if value.is_null() {
                    continue;
                }
                first.add(count).write(ResetValue {
                    setting,
                    value: raw::pstrdup(raw, value),
                    source: (*setting).source,
                    context: (*setting).scontext,
                    role: compat::setting_role(setting),
                });
                count += 1;
            }
            Self { first, count }
        }
    }

    /// Makes them the reset values again, below what the session had set. Call it in a transaction, as the roles that they belong to: while
    /// `InitializingParallelWorker` is set, `role` and `session_authorization` stand for the roles of the moment, whatever their values.
    ///
    /// Not those for which `state` says itself what RESET returns to.
    pub fn put_back(self, raw: Raw<'_>, state: &[u8]) {
        let below = Entries::of_bytes(below(state));
        // SAFETY: as above. A setting that has a stronger source keeps its value; only what RESET gives changes.
        unsafe {
            for n in 0..self.count {
                let found = &*self.first.add(n);
                if (*found.setting).source > found.source && !below.has(memory::c_bytes((*found.setting).name)) {
                    compat::set_setting(
                        raw,
                        (*found.setting).name,
                        found.value,
                        found.context,
                        found.source,
                        found.role,
                        0,
                    );
                }
            }
        }
    }
}

impl Entry<'_> {
    /// Where its name is divided: what comes before is the library's, by convention.
    fn dot(&self) -> Option<usize> {
        self.name.iter().position(|byte| *byte == b'.')
    }

    /// Adds name and value, unless they are immaterial; `mark` has taken in the name.
    fn add_material(&self, mut mark: DefaultHasher, sum: &mut u64) {
        if !self.is_immaterial() {
            mark.write_u8(0);
            mark.write(split_string(self.rest).map_or(self.rest, |(value, _)| value));
            *sum = sum.wrapping_add(mark.finish()).max(1);
        }
    }

    /// Whether it says who acts. What these return to depends on more than a text.
    fn is_role(&self) -> bool {
        self.name == b"role" || self.name == b"session_authorization"
    }

    /// Whether its value names an object in the catalogs, which is looked up when the setting is changed within a transaction.
    fn names_object(&self) -> bool {
        const NAMES: [&[u8]; 4] = [
            b"default_table_access_method",
            b"default_tablespace",
            b"default_text_search_config",
            b"temp_tablespaces",
        ];
        NAMES.contains(&self.name)
    }

    /// Sets it, or leaves it to [`set_left_out`]. Always returns true. The object that it names existed when the session set it, and may
    /// have been dropped.
    fn set(&self, raw: Raw<'_>) -> bool {
        if self.names_object() {
            LEFT_OUT.set(true);
        } else {
            self.set_now(raw);
        }
        true
    }

    /// Sets it. The session has already checked the right to do so, so a restricted setting is set with the rights that it requires. An
    /// error says which setting it is.
    fn set_now(&self, raw: Raw<'_>) {
        let role = pg_sys::Oid::from(if TAIL > 8 { self.number(2) } else { 0 });
        let (name, value, context) = (self.name.as_ptr().cast(), self.rest.as_ptr().cast(), self.number(1));
        // SAFETY: name and value are followed by their NULs in the state. The callback is on its stack while it and its argument live.
        unsafe {
            let setting = compat::find_setting(CStr::from_ptr(name));
            let is_restricted = setting.is_some_and(|setting| (*setting).context == GucContext::PGC_SUSET);
            let trusted = if is_restricted { GucContext::PGC_SUSET } else { context };
            let mut callback = pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(say_which),
                arg: core::ptr::from_ref(self).cast_mut().cast(),
            };
            pg_sys::error_context_stack = &raw mut callback;
            if self.is_emptied() {
                // This empties it as RESET does. An explicit empty value would be passed to a library that defines it later.
                let source = GucSource::PGC_S_SESSION;
                compat::set_setting(
                    raw,
                    name,
                    core::ptr::null(),
                    trusted,
                    source,
                    role,
                    pg_sys::PGERROR as _,
                );
            } else {
                compat::set_setting(raw, name, value, trusted, self.source(), role, pg_sys::PGERROR as _);
            }
            pg_sys::error_context_stack = callback.previous;
            if let Some(setting) = setting.filter(|_| trusted != context) {
                (*setting).scontext = context;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
