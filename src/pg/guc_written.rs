//! The settings of this process as `SerializeGUCState` writes them, kept for as long as none of them changes.
//!
//! Up to version 15 PostgreSQL walks all settings twice to write them, and prints each value; a short job takes hardly longer. To
//! see that nothing has changed since takes one look at each. From version 16 on it keeps a list of those that are not at their
//! default, and to write them anew is as quick as to look.

use super::guc_state;
use super::memory::Buffer;
use core::ffi::CStr;
#[cfg(not(since_16))]
use {
    super::{compat, guc, memory},
    core::ffi::c_char,
    pgrx::pg_sys::{self, GucContext, GucSource, config_generic, config_type},
};

/// The settings of this process as they were when they were last written.
pub struct Written {
    state: Buffer,
    #[cfg(not(since_16))]
    marks: Marks,
}

impl Written {
    /// Nothing yet, in the current memory context. Raw.
    pub fn nothing() -> Self {
        Self {
            state: Buffer::new(4096),
            #[cfg(not(since_16))]
            marks: Marks::default(),
        }
    }

    /// Writes them. Raw.
    pub fn write(&mut self) {
        #[cfg(not(since_16))]
        self.marks.forget();
        guc_state::write(&mut self.state);
        #[cfg(not(since_16))]
        self.marks.set(self.state.bytes());
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        self.state.bytes()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
    }

    /// Whether they would be written in the same way now, but for the setting `but`. False also where that cannot be told.
    pub fn is_current(&self, but: Option<&CStr>) -> bool {
        #[cfg(not(since_16))]
        return self.marks.are_current(self.state.bytes(), but);
        #[cfg(since_16)]
        {
            let _ = but;
            false
        }
    }
}

/// By what it is seen that no setting has changed.
#[cfg(not(since_16))]
#[derive(Default)]
struct Marks {
    /// Of each setting there is, in PostgreSQL's order, what of it may change.
    all: Vec<(*mut config_generic, May)>,
    each: Vec<Mark>,
    /// When the configuration was read: file names are set then, and only then.
    read_at: i64,
    complete: bool,
}

/// A setting is looked at no closer than it has to be: there are hundreds, each in a cache line of its own.
#[cfg(not(since_16))]
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    /// It cannot change in this process, nor is it ever written.
    Nothing,
    /// It is at its default, and not written.
    BeSet,
    /// It has a mark, the next one of them.
    Change,
}

#[cfg(not(since_16))]
struct Mark {
    setting: *mut config_generic,
    source: GucSource::Type,
    context: GucContext::Type,
    role: pg_sys::Oid,
    line: i32,
    value: Value,
}

#[cfg(not(since_16))]
enum Value {
    Number(u64),
    /// Where its text begins among the bytes that were written.
    Text(usize),
    /// It is not among them.
    Left,
}

#[cfg(not(since_16))]
impl Marks {
    fn forget(&mut self) {
        self.complete = false;
        self.all.clear();
        self.each.clear();
    }

    /// Marks the settings that `state` was just written from.
    fn set(&mut self, state: &[u8]) {
        let mut entries = guc_state::Entries::of_bytes(state).peekable();
        for setting in guc_state::all() {
            let may = if guc_state::is_fixed(setting) {
                May::Nothing
            } else if guc_state::is_default(setting) {
                May::BeSet
            } else {
                May::Change
            };
            self.all.push((setting, may));
            if may != May::Change {
                continue;
            }
            // SAFETY: the settings live as long as the process.
            unsafe {
                let entry = entries.next_if(|entry| entry.name == memory::c_bytes((*setting).name));
                self.each.push(Mark {
                    setting,
                    source: (*setting).source,
                    context: (*setting).scontext,
                    role: compat::setting_role(setting),
                    line: (*setting).sourceline,
                    value: match (entry, number(setting)) {
                        (None, _) => Value::Left,
                        (Some(_), Some(number)) => Value::Number(number),
                        (Some(entry), None) => Value::Text(entry.rest.as_ptr().addr() - state.as_ptr().addr()),
                    },
                });
            }
        }
        self.read_at = guc::configuration_read_at();
        self.complete = entries.next().is_none();
    }

    fn are_current(&self, state: &[u8], but: Option<&CStr>) -> bool {
        let mut marks = self.each.iter();
        self.complete
            && self.read_at == guc::configuration_read_at()
            && guc_state::all().eq(self.all.iter().map(|(setting, _)| *setting))
            && self.all.iter().all(|(setting, may)| match may {
                May::Nothing => true,
                May::BeSet => guc_state::is_default(*setting),
                May::Change => marks.next().is_some_and(|mark| mark.holds(state, but)),
            })
    }
}

#[cfg(not(since_16))]
impl Mark {
    fn holds(&self, state: &[u8], but: Option<&CStr>) -> bool {
        let setting = self.setting;
        // SAFETY: the settings live as long as the process; a text is NULL or a C string.
        unsafe {
            let same = self.source == (*setting).source
                && self.context == (*setting).scontext
                && self.role == compat::setting_role(setting)
                && self.line == (*setting).sourceline
                && match self.value {
                    Value::Left => true,
                    Value::Number(before) => number(setting) == Some(before),
                    Value::Text(at) => state
                        .get(at..)
                        .and_then(|before| before.strip_prefix(text(setting)))
                        .is_some_and(|rest| rest.first() == Some(&0)),
                };
            same || but.is_some_and(|but| memory::c_bytes((*setting).name) == but.to_bytes())
        }
    }
}

/// The value of a setting that is not a text, as bits.
#[cfg(not(since_16))]
unsafe fn number(setting: *mut config_generic) -> Option<u64> {
    // SAFETY: the type tells which structure begins with this one; its variable exists (the caller gives a setting).
    unsafe {
        Some(match (*setting).vartype {
            config_type::PGC_BOOL => u64::from(*(*setting.cast::<pg_sys::config_bool>()).variable),
            config_type::PGC_INT => *(*setting.cast::<pg_sys::config_int>()).variable as u64,
            config_type::PGC_REAL => (*(*setting.cast::<pg_sys::config_real>()).variable).to_bits(),
            config_type::PGC_ENUM => *(*setting.cast::<pg_sys::config_enum>()).variable as u64,
            _ => return None,
        })
    }
}

/// The value of a setting that is a text; NULL is written as an empty one.
#[cfg(not(since_16))]
unsafe fn text<'a>(setting: *mut config_generic) -> &'a [u8] {
    // SAFETY: as in `number`.
    unsafe { memory::c_bytes((*(*setting.cast::<pg_sys::config_string>()).variable).cast::<c_char>()) }
}
