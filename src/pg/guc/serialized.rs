//! Settings as `SerializeGUCState` writes them, and the list of all settings.

use crate::pg::error::Result;
use crate::pg::memory::{self, Buffer};
use crate::pg::raw::{self, Raw};
use crate::pg::{compat, fallible};
use core::cell::Cell;
use core::ffi::CStr;
use pgrx::pg_sys::{self, GucContext, GucSource};

/// Serializes the settings of this process. `into` grows in memory that lives as long as the process.
///
/// PostgreSQL omits settings at their default. For an undefined setting the default is an empty value. Such a setting exists after the end
/// of a transaction or RESET has taken back another value, and `current_setting` distinguishes it from a setting that never existed. So
/// these settings are appended at the end.
pub fn write(raw: Raw<'_>, into: &mut Buffer) {
    let emptied = |setting: &*mut pg_sys::config_generic| is_undefined(*setting) && is_default(*setting);
    // SAFETY: there is room for as many bytes as were estimated. A state begins with the length of what follows. The settings live as long
    // as the process.
    unsafe {
        let (settings, len) = if has_undefined(raw) {
            compat::all_settings()
        } else {
            (core::ptr::null_mut(), 0)
        };
        let all = (0..len).map(|n| *settings.add(n)).filter(emptied);
        let name = |setting: *mut pg_sys::config_generic| memory::c_bytes((*setting).name);
        let more: usize = all.clone().map(|setting| name(setting).len() + EMPTIED.len()).sum();
        let size = raw::EstimateGUCStateSpace(raw);
        memory::for_process(|| into.restart(raw, size + more));
        raw::SerializeGUCState(raw, size, into.as_ptr().cast());
        let len = into.as_ptr().cast::<usize>();
        into.advance(size_of::<usize>() + len.read_unaligned());
        all.for_each(|setting| {
            into.push(name(setting).as_ptr(), name(setting).len());
            into.push(EMPTIED.as_ptr(), EMPTIED.len());
        });
        len.write_unaligned(len.read_unaligned() + more);
        if !settings.is_null() {
            compat::free_settings(raw, settings);
        }
    }
}

/// What follows the name of an emptied setting: the terminators of name, value and file, then source, context and role.
const EMPTIED: [u8; 3 + TAIL] = {
    let mut bytes = [0; 3 + TAIL];
    bytes[3 + 4] = GucContext::PGC_USERSET as u8;
    bytes
};

/// Whether there are settings that no library defines.
fn has_undefined(raw: Raw<'_>) -> bool {
    thread_local! {
        /// How many settings there were at the last look, and the answer.
        static KNOWN: Cell<Option<(usize, bool)>> = const { Cell::new(None) };
    }
    let number = compat::settings_number(raw);
    if let Some((known, answer)) = KNOWN.get()
        && known == number
    {
        return answer;
    }
    // SAFETY: the settings live as long as the process.
    let answer = unsafe {
        let (settings, len) = compat::all_settings();
        let answer = (0..len).any(|n| is_undefined(*settings.add(n)));
        compat::free_settings(raw, settings);
        answer
    };
    KNOWN.set(Some((number, answer)));
    answer
}

/// Whether no library defines the setting.
pub fn is_undefined(setting: *mut pg_sys::config_generic) -> bool {
    // SAFETY: the settings live as long as the process.
    unsafe { (*setting).flags as u32 & pg_sys::GUC_CUSTOM_PLACEHOLDER != 0 }
}

/// All settings, in PostgreSQL's order. The slice must not be kept.
pub fn all<'a>() -> &'a [*mut pg_sys::config_generic] {
    // SAFETY: the array is valid until a setting is added, and none is added meanwhile.
    unsafe {
        let (settings, len) = compat::all_settings();
        core::slice::from_raw_parts(settings, len)
    }
}

/// Whether the setting cannot change while a process runs.
pub fn is_fixed(setting: *mut pg_sys::config_generic) -> bool {
    // SAFETY: the settings live as long as the process.
    let context = unsafe { (*setting).context };
    matches!(context, GucContext::PGC_POSTMASTER | GucContext::PGC_INTERNAL)
}

/// Whether the setting is at its default.
pub fn is_default(setting: *mut pg_sys::config_generic) -> bool {
    // SAFETY: the settings live as long as the process.
    unsafe { (*setting).source == GucSource::PGC_S_DEFAULT }
}

/// Whether all of these are at their default. Examines all of them instead of stopping at the first that is not, which is rare.
#[cfg(not(since_16))]
pub fn are_default(settings: &[*mut pg_sys::config_generic]) -> bool {
    const { assert!(GucSource::PGC_S_DEFAULT == 0) };
    // SAFETY: as above.
    let sources = settings.iter().map(|setting| unsafe { (**setting).source });
    sources.fold(0, core::ops::BitOr::bitor) == GucSource::PGC_S_DEFAULT
}

/// The settings that can change while a process runs and are not at their default. No others are ever serialized (`can_skip_gucvar` of
/// utils/misc/guc.c).
pub fn changeable() -> impl Iterator<Item = *mut pg_sys::config_generic> {
    let settings = all().iter().copied();
    settings.filter(|setting| !is_default(*setting) && !is_fixed(*setting))
}

/// Whether two states are equal, ignoring the entries for which `but` returns true.
pub fn same_but(one: &[u8], other: &[u8], but: impl Fn(&Entry) -> bool) -> bool {
    let relevant = |state| {
        Entries::of_bytes(state)
            .filter(|entry| !but(entry))
            .map(|entry| (entry.name, entry.rest))
    };
    one == other || relevant(one).eq(relevant(other))
}

/// Calls `visit` for each entry of `theirs` that differs in `ours`, with the entry of `ours` if there is one, until it returns false.
///
/// Returns whether setting those leads from `ours` to `theirs`. It does not if `visit` returned false, or if something is set in `ours`
/// that `theirs` does not have.
pub(super) fn compare<'a>(
    theirs: Entries<'a>,
    ours: Entries<'a>,
    visit: &mut dyn FnMut(&Entry<'a>, Option<Entry<'a>>) -> bool,
) -> bool {
    // Both are usually in the same order, so the entry after the last one found is tried first.
    let mut following = ours;
    let mut found = 0;
    for entry in theirs {
        let mut ahead = following;
        let have = match ahead.next() {
            Some(next) if next.name == entry.name => Some(next),
            _ => {
                ahead = ours;
                ahead.next_named(entry.name)
            }
        };
        if have.is_some() {
            following = ahead;
            found += 1;
        }
        let same = have.is_some_and(|have| have.rest == entry.rest);
        if !same && !visit(&entry, have) {
            return false;
        }
    }
    found == ours.count()
}

/// The entries of a state, which begins with their length, and what follows them. A state that is cut has neither.
pub(super) fn parts(state: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = state.split_first_chunk().unwrap_or((&[0; 8], &[]));
    rest.split_at_checked(usize::from_ne_bytes(*len)).unwrap_or_default()
}

/// Puts the length of the entries before them.
pub(super) fn state_of(mut entries: Vec<u8>) -> Result<Vec<u8>> {
    let mut state = Vec::new();
    fallible::reserve(&mut state, size_of::<usize>() + entries.len())?;
    state.extend_from_slice(&entries.len().to_ne_bytes());
    state.append(&mut entries);
    Ok(state)
}

/// The entries of a serialized state, as `serialize_variable` writes them.
#[derive(Clone, Copy)]
pub struct Entries<'a>(&'a [u8]);

/// One setting. `rest` holds its value, source file with line, source, context and role as serialized.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub(in crate::pg) name: &'a [u8],
    pub(in crate::pg) rest: &'a [u8],
}

/// The size of source, context and, if the version has it, role, at the end of an entry.
pub(super) const TAIL: usize = if cfg!(not(since_15)) { 8 } else { 12 };

impl<'a> Entries<'a> {
    /// The entries of a state, which begins with its length.
    pub fn of_bytes(state: &'a [u8]) -> Self {
        Self(parts(state).0)
    }

    /// Whether there is an entry of this name.
    pub fn has(self, name: &[u8]) -> bool {
        self.named(name).is_some()
    }

    pub(super) fn named(mut self, name: &[u8]) -> Option<Entry<'a>> {
        self.next_named(name)
    }

    fn next_named(&mut self, name: &[u8]) -> Option<Entry<'a>> {
        self.find(|entry| entry.name == name)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (name, after) = split_string(self.0)?;
        let (_value, after_value) = split_string(after)?;
        let (file, after_file) = split_string(after_value)?;
        let line = if file.is_empty() { 0 } else { size_of::<i32>() };
        let len = after.len() - after_file.len() + line + TAIL;
        let rest = after.get(..len)?;
        self.0 = after.get(len..)?;
        Some(Entry { name, rest })
    }
}

/// Splits at the first NUL.
pub(super) fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

impl Entry<'_> {
    pub(super) fn number(&self, n: usize) -> u32 {
        let at = self.rest.len().saturating_sub(TAIL) + n * 4;
        self.rest
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_ne_bytes)
    }

    pub(super) fn source(&self) -> GucSource::Type {
        self.number(0)
    }

    /// Whether this is the setting of this name.
    pub fn is(&self, name: &CStr) -> bool {
        self.name == name.to_bytes()
    }

    /// Whether it exists with an empty value because it once had another.
    pub fn is_emptied(&self) -> bool {
        self.source() == GucSource::PGC_S_DEFAULT
    }

    /// As [`is_immaterial`] of its name.
    pub fn is_immaterial(&self) -> bool {
        is_immaterial(self.name)
    }
}

/// Whether nothing that is compiled or planned depends on the setting of this name, except for its speed.
pub fn is_immaterial(name: &[u8]) -> bool {
    const IMMATERIAL: [&[u8]; 13] = [
        b"application_name",
        b"client_min_messages",
        b"default_transaction_deferrable",
        b"default_transaction_isolation",
        b"default_transaction_read_only",
        b"idle_in_transaction_session_timeout",
        b"idle_session_timeout",
        b"lock_timeout",
        b"maintenance_work_mem",
        b"statement_timeout",
        b"synchronous_commit",
        b"transaction_timeout",
        b"work_mem",
    ];
    IMMATERIAL.contains(&name) || name.starts_with(b"pg_background.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(entries: &[(&str, &str, &str, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value, file, source) in entries {
            for text in [name, value, file] {
                bytes.extend_from_slice(text.as_bytes());
                bytes.push(0);
            }
            if !file.is_empty() {
                bytes.extend_from_slice(&7i32.to_ne_bytes());
            }
            bytes.extend_from_slice(&source.to_ne_bytes());
            bytes.resize(bytes.len() + TAIL - 4, 0);
        }
        bytes
    }

    fn differences(theirs: &[(&str, &str, &str, u32)], ours: &[(&str, &str, &str, u32)]) -> (bool, Vec<String>) {
        let (theirs, ours) = (state(theirs), state(ours));
        let mut names = Vec::new();
        let reached = compare(Entries(&theirs), Entries(&ours), &mut |entry, have| {
            names.push(String::from_utf8_lossy(entry.name).into_owned());
            have.is_none_or(|have| have.source() <= entry.source())
        });
        (reached, names)
    }

    #[test]
    fn only_differences_are_set() {
        let base = ("a", "1", "/conf", 4);
        assert_eq!(differences(&[base], &[base]), (true, vec![]));
        assert_eq!(
            differences(&[base, ("b", "2", "", 13)], &[base]),
            (true, vec!["b".into()])
        );
        assert_eq!(
            differences(&[("0", "", "", 13), base], &[base]),
            (true, vec!["0".into()])
        );
        assert_eq!(differences(&[("a", "3", "", 13)], &[base]), (true, vec!["a".into()]));
    }

    #[test]
    fn what_cannot_be_reached_by_setting_is_noticed() {
        let base = ("a", "1", "/conf", 4);
        assert!(!differences(&[], &[base]).0);
        assert!(!differences(&[base], &[base, ("b", "2", "", 7)]).0);
        assert!(!differences(&[base], &[("a", "2", "", 7)]).0);
    }

    #[test]
    fn a_cut_state_is_harmless() {
        let whole = state(&[("a", "1", "/conf", 4), ("b", "2", "", 13)]);
        for end in 0..whole.len() {
            Entries(&whole[..end]).for_each(drop);
        }
    }
}
