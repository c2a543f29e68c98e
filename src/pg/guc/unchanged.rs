//! The settings of this process as `SerializeGUCState` writes them, kept for as long as none of them changes.
//!
//! To write them, PostgreSQL walks the settings twice, up to version 15 all of them, and prints each value. A short job takes hardly
//! longer. The check that nothing has changed looks at each setting that was written, and at whether others have joined them.

use crate::pg::guc::own;
use crate::pg::guc::serialized::{self, Entry};
use crate::pg::memory::{self, Buffer};
use crate::pg::raw::Raw;
use crate::pg::{compat, fallible};
#[cfg(not(since_16))]
use core::ffi::c_void;
use core::ffi::{CStr, c_char, c_int};
use pgrx::pg_sys::{self, GucContext, GucSource, config_generic, config_type};

/// The settings of this process as they were last written.
pub struct Written {
    state: Buffer,
    marks: Marks,
}

impl Written {
    /// Nothing written yet. `state` is where the settings will be written.
    pub fn nothing(state: Buffer) -> Self {
        Self {
            state,
            marks: Marks::default(),
        }
    }

    /// Writes the settings.
    pub fn write(&mut self, raw: Raw<'_>) {
        self.marks.forget();
        serialized::write(raw, &mut self.state);
        self.marks.set(raw, self.state.bytes());
    }

    /// The bytes that were written.
    pub fn bytes(&self) -> &[u8] {
        self.state.bytes()
    }

    /// Whether nothing has been written yet.
    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
    }

    /// Whether the settings, except `but`, would be written in the same way now. Also returns false if that is not known.
    pub fn is_current(&self, raw: Raw<'_>, but: Option<&CStr>) -> bool {
        self.marks.are_current(raw, self.state.bytes(), but)
    }
}

/// What shows that no setting has changed. The check examines as little of each setting as possible, and goes in the order of their
/// addresses: there are hundreds, each in a cache line of its own.
#[derive(Default)]
struct Marks {
    /// All settings, in PostgreSQL's order.
    #[cfg(not(since_16))]
    all: Vec<*mut config_generic>,
    /// The settings at their default, which are not written.
    #[cfg(not(since_16))]
    defaults: Vec<*mut config_generic>,
    /// All other settings that can change in this process.
    each: Vec<Mark>,
    /// When the configuration was read. Only then do the file names and lines of settings change.
    read_at: i64,
    /// The size that PostgreSQL estimates for the settings, and the number of settings. The number is needed since an empty setting adds
    /// nothing to the size.
    #[cfg(since_16)]
    size: usize,
    #[cfg(since_16)]
    number: usize,
    complete: bool,
}

/// The mark of one setting. What the check reads is kept together, apart from the rest of the setting's record.
#[derive(Clone, Copy)]
struct Mark {
    setting: *mut config_generic,
    role: pg_sys::Oid,
    source: GucSource::Type,
    context: GucContext::Type,
    value: Value,
    /// For a setting that no library defines, where its name begins in the written bytes. A library that defines it or reserves its prefix
    /// frees its record. All other records live as long as the process.
    #[cfg(since_16)]
    undefined: Option<usize>,
}

/// The address of a setting's variable, which does not move, and its value. For a text, where the value begins in the written bytes.
#[derive(Clone, Copy)]
enum Value {
    Bool(*const bool, bool),
    Int(*const i32, i32),
    Real(*const u64, u64),
    Text(*const *const c_char, usize),
    /// The setting was not written.
    #[cfg(not(since_16))]
    Left,
}

impl Marks {
    fn forget(&mut self) {
        self.complete = false;
        #[cfg(not(since_16))]
        {
            self.all.clear();
            self.defaults.clear();
        }
        self.each.clear();
    }

    /// Marks the settings from which `state` was just written.
    #[cfg(not(since_16))]
    fn set(&mut self, raw: Raw<'_>, state: &[u8]) {
        // Entries of emptied settings, at the end, are at their default.
        let mut entries = serialized::Entries::of_bytes(state)
            .filter(|entry| !entry.is_emptied())
            .peekable();
        for &setting in serialized::all() {
            fallible::push_raw(raw, &mut self.all, setting);
            if serialized::is_fixed(setting) {
                continue;
            }
            if serialized::is_default(setting) {
                fallible::push_raw(raw, &mut self.defaults, setting);
                continue;
            }
            // SAFETY: the settings live as long as the process.
            unsafe {
                let entry = entries.next_if(|entry| entry.name == memory::c_bytes((*setting).name));
                fallible::push_raw(raw, &mut self.each, Mark::of(setting, entry, state));
            }
        }
        self.defaults.sort_unstable();
        self.each.sort_unstable_by_key(|mark| mark.setting);
        self.read_at = own::configuration_read_at();
        self.complete = entries.next().is_none();
    }

    #[cfg(not(since_16))]
    fn are_current(&self, _raw: Raw<'_>, state: &[u8], but: Option<&CStr>) -> bool {
        self.complete
            && self.read_at == own::configuration_read_at()
            && are_same(serialized::all(), &self.all)
            && serialized::are_default(&self.defaults)
            && self.each.iter().all(|mark| mark.holds(state, but))
    }

    /// Marks the settings from which `state` was just written.
    #[cfg(since_16)]
    fn set(&mut self, raw: Raw<'_>, state: &[u8]) {
        self.read_at = own::configuration_read_at();
        // SAFETY: only looks.
        self.size = unsafe { crate::pg::raw::EstimateGUCStateSpace(raw) };
        self.number = compat::settings_number(raw);
        self.complete = serialized::Entries::of_bytes(state).all(|entry| {
            let setting = name_at(state, offset(entry.name, state)).and_then(compat::find_setting);
            if let Some(setting) = setting {
                // SAFETY: it was just found.
                fallible::push_raw(raw, &mut self.each, unsafe { Mark::of(setting, entry, state) });
            }
            setting.is_some()
        });
    }

    /// PostgreSQL's list of the settings that are not at their default is private, but the estimate of their serialized size is a sum
    /// over that list. If each setting that was written still adds the same amount, an equal sum means that no other has joined them.
    /// The setting `but` of the other versions is not ignored here: the sum would have to be corrected for it. So the settings are written
    /// anew.
    #[cfg(since_16)]
    fn are_current(&self, raw: Raw<'_>, state: &[u8], _but: Option<&CStr>) -> bool {
        self.complete
            && self.read_at == own::configuration_read_at()
            && self
                .each
                .iter()
                .all(|mark| mark.is_there(state) && mark.holds(state, None))
            // SAFETY: only looks.
            && self.size == unsafe { crate::pg::raw::EstimateGUCStateSpace(raw) }
            && self.number == compat::settings_number(raw)
    }
}

impl Mark {
    /// # Safety
    /// The setting exists; the entry is one of `state`.
    unsafe fn of(
        setting: *mut config_generic,
        #[cfg(since_16)] entry: Entry,
        #[cfg(not(since_16))] entry: Option<Entry>,
        state: &[u8],
    ) -> Self {
        // SAFETY: see above.
        unsafe {
            Self {
                setting,
                role: compat::setting_role(setting),
                source: (*setting).source,
                context: (*setting).scontext,
                #[cfg(since_16)]
                value: Value::of(setting, offset(entry.rest, state)),
                #[cfg(not(since_16))]
                value: entry.map_or(Value::Left, |entry| Value::of(setting, offset(entry.rest, state))),
                #[cfg(since_16)]
                undefined: serialized::is_undefined(setting).then(|| offset(entry.name, state)),
            }
        }
    }

    /// Whether the name still belongs to this setting, and no library has defined it.
    #[cfg(since_16)]
    fn is_there(&self, state: &[u8]) -> bool {
        self.undefined.is_none_or(|at| {
            name_at(state, at).and_then(compat::find_setting) == Some(self.setting)
                && serialized::is_undefined(self.setting)
        })
    }

    /// Whether the setting, which exists, is as it was, or is the one called `but`.
    fn holds(&self, state: &[u8], but: Option<&CStr>) -> bool {
        let setting = self.setting;
        // SAFETY: it exists (the caller's promise); a text is NULL or a C string.
        unsafe {
            let same = self.source == (*setting).source
                && self.context == (*setting).scontext
                && self.role == compat::setting_role(setting)
                && self.value.holds(state);
            same || but.is_some_and(|but| memory::c_bytes((*setting).name) == but.to_bytes())
        }
    }
}

impl Value {
    /// # Safety
    /// The setting exists.
    unsafe fn of(setting: *mut config_generic, at: usize) -> Self {
        // SAFETY: the variable is of the setting's type.
        unsafe {
            let variable = compat::setting_variable(setting);
            match (*setting).vartype {
                config_type::PGC_BOOL => Self::Bool(variable.cast(), *variable.cast()),
                config_type::PGC_INT | config_type::PGC_ENUM => Self::Int(variable.cast(), *variable.cast()),
                config_type::PGC_REAL => Self::Real(variable.cast(), *variable.cast()),
                _ => Self::Text(variable.cast(), at),
            }
        }
    }

    /// Whether the value is unchanged. A text that is NULL is written as an empty one. The setting must exist.
    unsafe fn holds(&self, state: &[u8]) -> bool {
        // SAFETY: the variable is there as long as the setting (the caller's promise); a text is NULL or a C string, and the comparison
        // ends with either of the two.
        unsafe {
            match *self {
                Self::Bool(variable, before) => *variable == before,
                Self::Int(variable, before) => *variable == before,
                Self::Real(variable, before) => *variable == before,
                Self::Text(variable, at) => {
                    let text = if (*variable).is_null() { c"".as_ptr() } else { *variable };
                    state
                        .get(at..)
                        .is_some_and(|before| strncmp(text, before.as_ptr().cast(), before.len()) == 0)
                }
                #[cfg(not(since_16))]
                Self::Left => true,
            }
        }
    }
}

/// Whether both lists have the same settings. The pointers are compared as bytes, many at a time.
#[cfg(not(since_16))]
fn are_same(these: &[*mut config_generic], those: &[*mut config_generic]) -> bool {
    // SAFETY: the two are of the same length.
    these.len() == those.len()
        && unsafe { memcmp(these.as_ptr().cast(), those.as_ptr().cast(), size_of_val(these)) == 0 }
}

unsafe extern "C" {
    #[cfg(not(since_16))]
    fn memcmp(these: *const c_void, those: *const c_void, len: usize) -> c_int;
    fn strncmp(these: *const c_char, those: *const c_char, most: usize) -> c_int;
}

/// The offset of `part` in `state`, which contains it.
fn offset(part: &[u8], state: &[u8]) -> usize {
    part.as_ptr().addr() - state.as_ptr().addr()
}

#[cfg(since_16)]
fn name_at(state: &[u8], at: usize) -> Option<&CStr> {
    CStr::from_bytes_until_nul(state.get(at..)?).ok()
}
