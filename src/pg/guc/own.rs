//! The definition of the extension's settings, and the values of PostgreSQL's that are needed here.

use crate::pg::error::{self, raise_raw};
use crate::pg::raw::{self, Raw};
use crate::pg::{compat, memory};
use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicI32, AtomicPtr};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, GucContext};

/// An integer setting. PostgreSQL writes the variable; this library only reads it.
pub struct IntSetting {
    pub name: &'static CStr,
    pub description: &'static CStr,
    pub default: i32,
    pub min: i32,
    pub max: i32,
    /// `GUC_UNIT_…` of `utils/guc.h`, or 0 for none.
    pub unit: u32,
    pub who: Who,
    pub value: &'static AtomicI32,
}

/// A text setting that only the configuration can set. PostgreSQL writes the variable; this library only reads it.
pub struct TextSetting {
    pub name: &'static CStr,
    pub description: &'static CStr,
    pub value: &'static AtomicPtr<c_char>,
}

impl TextSetting {
    /// The value, which is empty by default.
    pub fn text(&self) -> &'static [u8] {
        memory::c_bytes(self.value.load(Relaxed))
    }
}

/// A setting that has one of some words. PostgreSQL writes the variable; here it is only read.
pub struct WordSetting {
    pub name: &'static CStr,
    pub description: &'static CStr,
    pub default: i32,
    /// The words and their numbers; an empty one ends the list, whose memory PostgreSQL keeps.
    pub words: &'static Words,
    pub who: Who,
    pub value: &'static AtomicI32,
}

/// The words of a [`WordSetting`].
pub struct Words(pub &'static [pg_sys::config_enum_entry]);

// SAFETY: constants, which PostgreSQL only reads.
unsafe impl Sync for Words {}

impl Words {
    /// A word and its number.
    pub const fn word(word: &'static CStr, number: i32) -> pg_sys::config_enum_entry {
        pg_sys::config_enum_entry {
            name: word.as_ptr(),
            val: number,
            hidden: false,
        }
    }

    /// A word that is understood and not shown.
    pub const fn hidden(word: &'static CStr, number: i32) -> pg_sys::config_enum_entry {
        pg_sys::config_enum_entry {
            name: word.as_ptr(),
            val: number,
            hidden: true,
        }
    }

    /// The end of a list.
    pub const END: pg_sys::config_enum_entry = pg_sys::config_enum_entry {
        name: core::ptr::null(),
        val: 0,
        hidden: false,
    };
}

/// Which roles may set a setting, besides the configuration.
#[derive(Clone, Copy)]
pub enum Who {
    Everybody,
    Superusers,
    /// Only the configuration file and ALTER SYSTEM, since the setting applies to the whole cluster.
    Nobody,
}

impl Who {
    fn context(self) -> GucContext::Type {
        match self {
            Who::Everybody => GucContext::PGC_USERSET,
            Who::Superusers => GucContext::PGC_SUSET,
            Who::Nobody => GucContext::PGC_SIGHUP,
        }
    }
}

/// Defines the settings, whose names must all begin with `prefix` and a dot, and then reserves the prefix: unknown settings with it are
/// refused.
pub fn define(
    raw: Raw<'_>,
    prefix: &'static CStr,
    settings: &[IntSetting],
    texts: &[TextSetting],
    words: &[WordSetting],
) {
    let each = || {
        settings.iter().for_each(|setting| define_int(raw, setting));
        texts.iter().for_each(|setting| define_text(raw, setting));
        words.iter().for_each(|setting| define_word(raw, setting));
    };
    #[cfg(since_16)]
    each();
    #[cfg(not(since_16))]
    define_at_once(raw, prefix, each);
    // SAFETY: the name is static.
    #[cfg(since_15)]
    unsafe {
        raw::MarkGUCPrefixReserved(raw, prefix.as_ptr())
    }
    // SAFETY: the name is static.
    #[cfg(not(since_15))]
    unsafe {
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr())
    }
}

/// Defines the settings without sorting PostgreSQL's array again for each.
///
/// Up to version 15 PostgreSQL keeps all settings in an array, and sorts the array at each definition. For all settings of this library
/// that takes a tenth of the start of a worker. So a nameless setting stands in for each of the others while these are added, and the sort
/// has nothing to move. If a setting with the prefix is known already, such as a placeholder, PostgreSQL has to find it, and this function
/// leaves all of the work to PostgreSQL.
#[cfg(not(since_16))]
fn define_at_once(raw: Raw<'_>, prefix: &CStr, define: impl FnOnce()) {
    use crate::pg::process::bgworker;
    let prefix = prefix.to_bytes();
    let lower = |name: *const c_char| memory::c_bytes(name).iter().map(u8::to_ascii_lowercase);
    let mut nameless = pg_sys::config_generic {
        name: c"".as_ptr(),
        ..Default::default()
    };
    // SAFETY: the array has as many pointers as PostgreSQL says, before and after it has grown, and nothing else uses it meanwhile. The
    // only possible error in here is that memory is out. It ends the worker that loads the library; no other process gets here.
    unsafe {
        let (array, len) = compat::all_settings();
        let others = core::slice::from_raw_parts(array, len);
        let at = others.partition_point(|other| lower((**other).name).lt(prefix.iter().copied()));
        let is_known = others
            .get(at)
            .is_some_and(|next| lower((**next).name).take(prefix.len()).eq(prefix.iter().copied()));
        if is_known || !bgworker::is_job_worker() {
            return define();
        }
        let kept = raw::palloc(raw, size_of_val(others)).cast::<*mut pg_sys::config_generic>();
        kept.copy_from_nonoverlapping(array, len);
        for n in 0..len {
            array.add(n).write(&raw mut nameless);
        }
        define();
        // The added settings are at the end, in order.
        let (array, all) = compat::all_settings();
        array.add(at).copy_from(array.add(len), all - len);
        array.copy_from_nonoverlapping(kept, at);
        array
            .add(at + all - len)
            .copy_from_nonoverlapping(kept.add(at), len - at);
        raw::pfree(raw, kept.cast());
    }
}

/// Calls PostgreSQL's function for settings of one type. What only that type takes, its default and the values it allows, stands between
/// the variable and the context.
macro_rules! define_custom {
    ($raw:expr, $function:ident, $setting:expr, ($($of_the_type:expr),*), $context:expr, $unit:expr) => {
        // SAFETY: names, defaults and words are static. An AtomicI32 has the layout of an int and an AtomicPtr that of a pointer, and
        // PostgreSQL assigns them in this thread only.
        unsafe {
            raw::$function(
                $raw,
                $setting.name.as_ptr(),
                $setting.description.as_ptr(),
                core::ptr::null(),
                $setting.value.as_ptr(),
                $($of_the_type,)*
                $context,
                $unit as c_int,
                None,
                None,
                None,
            )
        }
    };
}

fn define_int(raw: Raw<'_>, setting: &IntSetting) {
    let IntSetting { default, min, max, .. } = *setting;
    define_custom!(
        raw,
        DefineCustomIntVariable,
        setting,
        (default, min, max),
        setting.who.context(),
        setting.unit
    );
}

fn define_text(raw: Raw<'_>, setting: &TextSetting) {
    define_custom!(
        raw,
        DefineCustomStringVariable,
        setting,
        (c"".as_ptr()),
        Who::Nobody.context(),
        0
    );
}

fn define_word(raw: Raw<'_>, setting: &WordSetting) {
    let words = setting.words.0.as_ptr();
    define_custom!(
        raw,
        DefineCustomEnumVariable,
        setting,
        (setting.default, words),
        setting.who.context(),
        0
    );
}

/// Sets one of PostgreSQL's settings until the current level of settings ends (`GUC_ACTION_SAVE`).
pub fn set_until_level_ends(raw: Raw<'_>, name: &CStr, value: &CStr) {
    // SAFETY: both are copied.
    unsafe {
        raw::set_config_option(
            raw,
            name.as_ptr(),
            value.as_ptr(),
            GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

/// Sets a setting as SET does, or as SET LOCAL where `local`; with the rights of the current role. Guarded.
pub fn set(name: &CStr, value: &CStr, local: bool) -> error::Result<()> {
    let action = if local {
        pg_sys::GucAction::GUC_ACTION_LOCAL
    } else {
        pg_sys::GucAction::GUC_ACTION_SET
    };
    // SAFETY: both are copied.
    error::catching(|raw| unsafe {
        let context = if raw::superuser_arg(raw, raw::GetUserId()) {
            GucContext::PGC_SUSET
        } else {
            GucContext::PGC_USERSET
        };
        raw::set_config_option(
            raw,
            name.as_ptr(),
            value.as_ptr(),
            context,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    })
}

/// Raises what SET would raise where a setting cannot have the value; nothing is set. Guarded.
pub fn check_value(name: &CStr, value: &[u8]) -> error::Result<()> {
    let value = memory::copy_text(value);
    // SAFETY: both are NUL-terminated.
    error::catching(|raw| unsafe {
        raw::set_config_option(
            raw,
            name.as_ptr(),
            value,
            GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            false,
            0,
            false,
        );
    })
}

/// A copy of the value of one of PostgreSQL's settings; empty where it is not known.
pub fn value_of(name: &CStr) -> error::Result<Vec<u8>> {
    // SAFETY: a NUL-terminated name; a setting that is missing gives NULL.
    let value = error::catching(|raw| unsafe { raw::GetConfigOption(raw, name.as_ptr(), true, false) })?;
    crate::pg::fallible::copied(memory::c_bytes(value))
}

/// `max_worker_processes`, which is fixed at server start.
pub fn max_worker_processes() -> i32 {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::max_worker_processes }
}

/// The time when this process last read the configuration. It does so between two commands, after a reload was requested.
pub fn configuration_read_at() -> i64 {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::PgReloadTime }
}

/// `deadlock_timeout` in milliseconds.
pub fn deadlock_timeout() -> i32 {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::DeadlockTimeout }
}

/// `temp_file_limit` in kB, or -1 for none.
pub fn temp_file_limit() -> i32 {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::temp_file_limit }
}

/// `statement_timeout` in milliseconds, or 0 for none.
pub fn statement_timeout() -> i32 {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::StatementTimeout }
}

thread_local! {
    static ROLES_LOCKED: Cell<bool> = const { Cell::new(false) };
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static NEXT_UTILITY: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
    static NEXT_PLANNER: Cell<pg_sys::planner_hook_type> = const { Cell::new(None) };
}

/// Whether the settings `role` and `session_authorization` are locked.
pub fn roles_are_locked() -> bool {
    ROLES_LOCKED.get()
}

/// `role` and `session_authorization`, which PostgreSQL locks within a security context.
const ROLES: [&CStr; 2] = [c"role", c"session_authorization"];

/// Locks or unlocks `role` and `session_authorization`. While they are locked nothing sets or resets them, whatever role runs.
///
/// A security context does the same, but a transaction cannot begin within one. Before each change and each RESET, PostgreSQL looks up in
/// the setting's own record who may change it, whether by SET, set_config or a function's SET clause. So a lock makes the setting one that
/// is fixed once the connection is made (`PGC_BACKEND`). The error is 55P02; a command gets the error of a security context first, 42501. A
/// setting of that kind is still passed to parallel workers. They have records of their own, so no query is planned for parallel workers
/// meanwhile.
pub fn lock_roles(lock: bool) {
    if ROLES_LOCKED.replace(lock) == lock {
        return;
    }
    if !WATCHED.replace(true) {
        // SAFETY: the hook is called in this thread; the previous hook is called too.
        unsafe {
            NEXT_UTILITY.set(pg_sys::ProcessUtility_hook);
            pg_sys::ProcessUtility_hook = Some(utility);
            NEXT_PLANNER.set(pg_sys::planner_hook);
            pg_sys::planner_hook = Some(planner);
        }
    }
    for name in ROLES {
        if let Some(setting) = compat::find_setting(name) {
            let who = if lock {
                GucContext::PGC_BACKEND
            } else {
                GucContext::PGC_USERSET
            };
            // SAFETY: both are PostgreSQL's own, set by every user, and live as long as the process.
            unsafe { (*setting).context = who };
        }
    }
}

/// Returns the name of the locked setting that a command would set or reset, if any.
unsafe fn locked_role(node: *const pg_sys::Node) -> Option<&'static [u8]> {
    // SAFETY: a utility command, which lives as long as it runs; the cast follows the node's tag.
    unsafe {
        if !roles_are_locked() || (*node).type_ != pg_sys::NodeTag::T_VariableSetStmt {
            return None;
        }
        let name = memory::c_bytes((*node.cast::<pg_sys::VariableSetStmt>()).name);
        let is_role = ROLES.iter().any(|role| role.to_bytes().eq_ignore_ascii_case(name));
        is_role.then_some(name)
    }
}

unsafe extern "C-unwind" fn planner(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
    #[cfg(since_19)] explain: *mut pg_sys::ExplainState,
) -> *mut pg_sys::PlannedStmt {
    let options = if roles_are_locked() {
        options & !(pg_sys::CURSOR_OPT_PARALLEL_OK as c_int)
    } else {
        options
    };
    // SAFETY: PostgreSQL's own arguments, passed on. Nothing is owned here.
    unsafe {
        compat::plan(
            Raw::assume(),
            NEXT_PLANNER.get(),
            query,
            text,
            options,
            parameters,
            #[cfg(since_19)]
            explain,
        )
    }
}

#[allow(clippy::too_many_arguments, reason = "PostgreSQL's own arguments")]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const core::ffi::c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    to: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: PostgreSQL's own arguments, passed on. Nothing is owned here.
    unsafe {
        let raw = Raw::assume();
        // If the check fails, so does the statement.
        if let Some(name) = error::at_border(|| locked_role((*statement).utilityStmt)) {
            raise_raw(
                raw,
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                &[b"cannot set parameter \"", name, b"\" within security-definer function"],
                None,
            );
        }
        match NEXT_UTILITY.get() {
            Some(next) => next(
                statement,
                text,
                read_only,
                context,
                parameters,
                environment,
                to,
                completion,
            ),
            None => raw::standard_ProcessUtility(
                raw,
                statement,
                text,
                read_only,
                context,
                parameters,
                environment,
                to,
                completion,
            ),
        }
    }
}
