//! What a process keeps of the statements that it has run: compiled functions and saved plans.
//!
//! Plans are made anew for each job. So names, types, literals such as 'now', and what the planner folds have the meaning that they have
//! for that job.
//!
//! A procedural language compiles a function at its first call, and keeps the result. The types that the function declares are then those
//! that their names had under the search path and the role of that moment. A function that would be compiled differently now is compiled
//! again. To that end its language is made to believe that the function was replaced.
//!
//! A language recognises a replaced function by the xmin of its row in pg_proc (`plpgsql_compile` and its counterparts in other languages,
//! `cached_function_compile` from version 18 on). So the copy of the row in this process's catalog cache gets another xmin. Nothing else
//! uses the xmin there: visibility and updates go by the row in the table.
//!
//! A function is judged when a job looks it up. One that was compiled for an earlier job is judged again at its first call. The judgement
//! compares the state of that moment ([`state`]), and what has changed in the catalogs since the function was compiled ([`AGE`]). From its
//! first call on a job keeps what it has, as any session does.
//!
//! The function manager has two hooks. It calls the first one when it looks up a function that is not built in (`fmgr_info_cxt_security`).
//! The answer decides whether it calls the second one at each call of that function (`fmgr_security_definer`). For functions that change
//! settings or the role by themselves it calls only the second one, after they have done so. A function that is compiled for the first time
//! is called without the second hook. Its state may change between look-up and call. Hooks of the settings notice that, and the function is
//! compiled again for the next job.
//!
//! The type cache and the relation cache keep what the planner has folded in the checks of domains, in indexes and in partition keys. They
//! are emptied if the settings or the roles differ from those that they were filled under.

use crate::pg::exclusive::Exclusive;
use crate::pg::process::identity;
use crate::pg::raw::{self, Raw};
use crate::pg::{compat, error, fallible, memory};
use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int, c_void};
use pgrx::pg_sys::{self, Datum, FormData_pg_proc, ItemPointerData, Oid, SysCacheIdentifier};
use std::hash::{DefaultHasher, Hasher};

/// `INTERNALlanguageId` of `catalog/pg_language_d.h`.
const INTERNAL: u32 = 12;
/// `ClanguageId` of `catalog/pg_language_d.h`.
const C: u32 = 13;
/// `SQLlanguageId` of `catalog/pg_language_d.h`.
const SQL: u32 = 14;

/// The settings that decide, besides the roles, how a function is compiled: its types depend on the search path, its text on the settings
/// of strings and of PL/pgSQL, and its name in the context of an error on how names are quoted.
const SETTINGS: [&CStr; 8] = [
    c"search_path",
    c"standard_conforming_strings",
    c"backslash_quote",
    c"quote_all_identifiers",
    c"plpgsql.variable_conflict",
    c"plpgsql.print_strict_params",
    c"plpgsql.extra_warnings",
    c"plpgsql.extra_errors",
];

/// Settings that jobs change while they run, and that compiled functions depend on. The text of the job, or the functions that set them,
/// reveal changes of the other [`SETTINGS`].
const WATCHED: [&CStr; 3] = [c"search_path", c"role", c"session_authorization"];

const NONE: (*const pg_sys::FmgrInfo, u32) = (core::ptr::null(), 0);

/// A process that knows more functions than this exits after its job.
const MANY: usize = 10_000;

/// A function that a job has looked up.
#[derive(Clone, Copy)]
struct Known {
    function: u32,
    /// The row's own xmin, and its tid in the table.
    xmin: u32,
    item: (u32, u16),
    /// The xmin that the row has in this process's cache.
    shown: u32,
    /// The state in which it was compiled, or 0 if that is not known.
    state: u64,
    age: u64,
    /// The job that it was compiled for.
    made_by: u64,
    /// The last job that looked it up, and the last job whose call of it was seen.
    job: u64,
    called: u64,
}

/// What this process knows of functions.
struct Memory {
    /// Ordered by oid.
    known: Vec<Known>,
    /// The last xmin that was assigned.
    last: u32,
    job: u64,
    /// The next transaction id when the job began. A row with a later xmin did not exist for any earlier job.
    began: u32,
}

static MEMORY: Exclusive<Memory> = Exclusive::new();

thread_local! {
    /// Counts changes that may alter a function's types: changes of types, of relations, of schemas, and of role memberships.
    static AGE: Cell<u64> = const { Cell::new(0) };
    /// Whether the state has changed within the job, other than by a function's SET clause.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
    /// The function whose call was judged last, or none if the state may have changed since.
    static LAST: Cell<(*const pg_sys::FmgrInfo, u32)> = const { Cell::new(NONE) };
    /// Called when the role is set while a job runs.
    static ROLE_WATCHER: Cell<Option<fn()>> = const { Cell::new(None) };
    static NEXT_LOOK_UP: Cell<pg_sys::needs_fmgr_hook_type> = const { Cell::new(None) };
    static NEXT_CALL: Cell<pg_sys::fmgr_hook_type> = const { Cell::new(None) };
    static NEXT_ASSIGN: [Cell<pg_sys::GucStringAssignHook>; WATCHED.len()] = const { [const { Cell::new(None) }; WATCHED.len()] };
    static WATCHED_SETTINGS: [Cell<*mut pg_sys::config_generic>; WATCHED.len()] =
        const { [const { Cell::new(core::ptr::null_mut()) }; WATCHED.len()] };
}

/// Installs the hooks. Call it once per process.
pub fn watch(raw: Raw<'_>) {
    MEMORY.set(Memory {
        known: Vec::new(),
        last: 0,
        job: 0,
        began: 0,
    });
    // SAFETY: the hooks are called in this thread; the previous hooks are called too.
    unsafe {
        NEXT_LOOK_UP.set(pg_sys::needs_fmgr_hook);
        pg_sys::needs_fmgr_hook = Some(is_looked_up);
        NEXT_CALL.set(pg_sys::fmgr_hook);
        pg_sys::fmgr_hook = Some(is_called);
        raw::CacheRegisterRelcacheCallback(raw, Some(relation_has_changed), Datum::from(0usize));
    }
    for &cache in &[
        SysCacheIdentifier::TYPEOID,
        SysCacheIdentifier::NAMESPACEOID,
        SysCacheIdentifier::AUTHOID,
    ] {
        compat::on_cache_change(raw, cache, row_has_changed);
    }
    compat::on_cache_change(raw, SysCacheIdentifier::AUTHMEMROLEMEM, members_have_changed);
    watch_setting::<0>();
    watch_setting::<1>();
    watch_setting::<2>();
}

fn watch_setting<const N: usize>() {
    let Some(setting) = compat::find_setting(WATCHED[N]) else {
        return;
    };
    WATCHED_SETTINGS.with(|settings| settings[N].set(setting));
    // SAFETY: these settings are PostgreSQL's own, and texts.
    let hook = unsafe { compat::assign_hook(setting) };
    // SAFETY: the setting lives as long as the process; the previous hook is called too.
    NEXT_ASSIGN.with(|next| next[N].set(unsafe { (*hook).replace(is_assigned::<N>) }));
}

/// Called before a setting gets a value. A function's SET clause does not count as a change of state: what the function calls is looked up
/// while the clause is in force. The start of a clause is recognised by the variable, which still has the value that is kept for the end;
/// the end is recognised by the new value, which is the kept one.
unsafe extern "C-unwind" fn is_assigned<const N: usize>(value: *const c_char, extra: *mut c_void) {
    // SAFETY: the setting was found, and is a text.
    let by_clause = unsafe {
        let setting = WATCHED_SETTINGS.with(|settings| settings[N].get());
        let variable = *compat::setting_variable(setting).cast::<*const c_char>();
        (*setting).stack.as_ref().is_some_and(|stack| {
            let kept = stack.prior.val.stringval.cast_const();
            value == kept || stack.state == pg_sys::GucStackState::GUC_SAVE && variable == kept
        })
    };
    if !by_clause {
        CHANGED.set(true);
        if N > 0
            && let Some(watcher) = ROLE_WATCHER.get()
        {
            // PostgreSQL wants no error here.
            error::if_possible(watcher);
        }
    }
    LAST.set(NONE);
    if let Some(next) = NEXT_ASSIGN.with(|next| next[N].get()) {
        // SAFETY: it was the hook.
        unsafe { next(value, extra) };
    }
}

unsafe extern "C-unwind" fn relation_has_changed(_argument: Datum, _relation: Oid) {
    AGE.set(AGE.get() + 1);
}

unsafe extern "C-unwind" fn row_has_changed(_argument: Datum, _cache: c_int, _hash: u32) {
    AGE.set(AGE.get() + 1);
}

/// Called when role memberships have changed: the schemas of the search path that the role may use must be looked up again. Up to version
/// 16 PostgreSQL does not notice that by itself.
unsafe extern "C-unwind" fn members_have_changed(_argument: Datum, _cache: c_int, _hash: u32) {
    AGE.set(AGE.get() + 1);
    // SAFETY: only marks the path as one to be looked up, whatever the arguments.
    unsafe { raw::assign_search_path(core::ptr::null(), core::ptr::null_mut()) };
}

/// Sets the function to call when the role is about to be set, other than by a function's SET clause. It must raise nothing. None removes
/// it.
pub fn watch_role(watcher: Option<fn()>) {
    ROLE_WATCHER.set(watcher);
}

/// Begins a job, in the state that it was launched in.
pub fn job_begins() {
    MEMORY.recover();
    MEMORY.with(|memory| {
        memory.job += 1;
        memory.began = compat::next_xid();
    });
    CHANGED.set(false);
    LAST.set(NONE);
}

/// Notes that the job's own text changes the state that it was launched in. `is_used` tells whether this process has run other jobs before.
pub fn text_changes_state(raw: Raw<'_>, is_used: bool) {
    CHANGED.set(true);
    if is_used {
        empty_caches(raw);
    }
}

/// Cleans up after a job: plans are made anew for the next one, and so are functions whose state at compilation is unknown. Returns false
/// if this process knows too many functions.
pub fn forget_plans(raw: Raw<'_>) -> bool {
    // SAFETY: only marks the plans.
    unsafe { raw::ResetPlanCache(raw) };
    MEMORY.recover();
    if CHANGED.get() {
        MEMORY.with(Memory::doubt_last_job);
        empty_caches(raw);
    }
    MEMORY.with(|memory| memory.known.len() < MANY).unwrap_or(false)
}

/// Empties the catalog caches, and with them all that was derived from their contents.
pub fn empty_caches(raw: Raw<'_>) {
    let age = AGE.get();
    // SAFETY: callable at any time, as after a message that others have changed more than fits into messages.
    unsafe { raw::InvalidateSystemCaches(raw) }
    // It reports that everything may have changed.
    AGE.set(age);
}

/// Hook of the look-up of a function. Returns whether its calls must be reported.
unsafe extern "C-unwind" fn is_looked_up(function: Oid) -> bool {
    // SAFETY: PostgreSQL calls this, and nothing is owned here.
    let raw = unsafe { Raw::assume() };
    let at_call = error::at_border(|| judge(raw, function, Moment::LookUp));
    // SAFETY: it was the hook.
    at_call | NEXT_LOOK_UP.get().is_some_and(|next| unsafe { next(function) })
}

/// Hook of the calls that are reported, at their start and end.
unsafe extern "C-unwind" fn is_called(
    event: pg_sys::FmgrHookEventType::Type,
    function: *mut pg_sys::FmgrInfo,
    argument: *mut Datum,
) {
    if event == pg_sys::FmgrHookEventType::FHET_START {
        // SAFETY: the function manager's own struct.
        let oid = unsafe { (*function).fn_oid };
        let this = (function.cast_const(), oid.to_u32());
        if LAST.replace(this) != this {
            // SAFETY: PostgreSQL calls this, and nothing is owned here.
            let raw = unsafe { Raw::assume() };
            error::at_border(|| judge(raw, oid, Moment::Call));
        }
    }
    if let Some(next) = NEXT_CALL.get() {
        // SAFETY: it was the hook.
        unsafe { next(event, function, argument) };
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    LookUp,
    Call,
}

/// Judges a function that may be called from here on: either its compiled form can be used, or it is compiled again. Returns whether it
/// must be judged at its call, too.
fn judge(raw: Raw<'_>, function: Oid, moment: Moment) -> bool {
    // SAFETY: a row of pg_proc begins with the columns of its struct, and is released. Its header is in this process's own memory.
    unsafe {
        let row = compat::cached_row(raw, SysCacheIdentifier::PROCOID, function);
        if row.is_null() {
            return false;
        }
        let header = (*row).t_data;
        let columns = compat::columns::<FormData_pg_proc>(row);
        let mut at_call = false;
        if is_compiled(function, (*columns).prolang.to_u32()) {
            let xmin = &raw mut (*header).t_choice.t_heap.t_xmin;
            let found = u32::from(*xmin);
            let state = state(raw);
            let item = item(&(*row).t_self);
            if let Some(known) = MEMORY.with(|memory| memory.judge(raw, function.to_u32(), found, item, state, moment))
            {
                *xmin = known.shown.into();
                // A reported call would keep a function in SQL from being inlined. Its statements are analysed for each job, whatever its
                // types.
                at_call = known.is_kept() && (*columns).prolang.to_u32() != SQL;
            }
        }
        raw::ReleaseSysCache(raw, row);
        at_call
    }
}

/// Whether a call of a function in this language may leave something compiled. That excludes `internal` and `c`, and up to version 17
/// `sql`. The system's own functions in SQL mean the same in all states.
fn is_compiled(function: Oid, language: u32) -> bool {
    match language {
        INTERNAL | C => false,
        SQL => cfg!(since_18) && function.to_u32() >= pg_sys::FirstNormalObjectId,
        _ => true,
    }
}

fn item(pointer: &ItemPointerData) -> (u32, u16) {
    let block = (u32::from(pointer.ip_blkid.bi_hi) << 16) | u32::from(pointer.ip_blkid.bi_lo);
    (block, pointer.ip_posid)
}

/// Returns a number, not 0, for the roles and the [`SETTINGS`] of this moment.
fn state(raw: Raw<'_>) -> u64 {
    let mut state = DefaultHasher::new();
    let (session, role, current, security_context) = identity::acting();
    [session, role, current, security_context as u32]
        .into_iter()
        .for_each(|number| state.write_u32(number));
    for name in &SETTINGS {
        // SAFETY: raises nothing for a setting that does not exist, and returns a C string or NULL that lasts until the next call.
        state.write(memory::c_bytes(unsafe {
            raw::GetConfigOption(raw, name.as_ptr(), true, false)
        }));
        state.write_u8(0);
    }
    state.finish().max(1)
}

impl Known {
    /// Whether it may have been compiled for an earlier job, and no call in this one has been seen.
    fn is_kept(&self) -> bool {
        self.made_by < self.job && self.called != self.job
    }
}

impl Memory {
    /// Judges a function whose row has `xmin` now, either its own or one that was assigned here. Returns the updated entry.
    fn judge(&mut self, raw: Raw<'_>, function: u32, xmin: u32, item: (u32, u16), state: u64, moment: Moment) -> Known {
        let (job, age) = (self.job, AGE.get());
        let at = self.known.binary_search_by_key(&function, |known| known.function);
        if let Ok(at) = at {
            let known = &mut self.known[at];
            if known.item == item && (xmin == known.xmin || xmin == known.shown) {
                let serves = (known.state, known.age) == (state, age);
                if known.job != job || known.is_kept() {
                    if !serves {
                        known.shown = another(&mut self.last, known.xmin);
                        (known.state, known.age) = (state, age);
                        known.made_by = job;
                    }
                } else if known.state != state {
                    // If it is called with arguments of other types it is compiled once more.
                    known.state = 0;
                }
                known.job = job;
                if moment == Moment::Call {
                    known.called = job;
                }
                return *known;
            }
        }
        let is_new = xmin.wrapping_sub(self.began) as i32 >= 0;
        let known = Known {
            function,
            xmin,
            item,
            // CREATE FUNCTION may have compiled it, either for this job, which keeps that, or for an earlier one.
            shown: if is_new { xmin } else { another(&mut self.last, xmin) },
            state: if is_new { 0 } else { state },
            age,
            made_by: job,
            job,
            called: if moment == Moment::Call { job } else { 0 },
        };
        match at {
            Ok(at) => self.known[at] = known,
            Err(at) => {
                fallible::push_raw(raw, &mut self.known, known);
                self.known[at..].rotate_right(1);
            }
        }
        known
    }

    /// Marks the state in which the functions of the last job were compiled as unknown.
    fn doubt_last_job(&mut self) {
        let job = self.job;
        self.known
            .iter_mut()
            .filter(|known| known.job == job)
            .for_each(|known| known.state = 0);
    }
}

/// Returns an xmin that was not assigned before and that is not `real`.
fn another(last: &mut u32, real: u32) -> u32 {
    loop {
        *last = last.wrapping_add(1);
        if *last != real {
            return *last;
        }
    }
}
