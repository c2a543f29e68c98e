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
//! is called without the second hook. Its state may change between look-up and call. Hooks of the settings that jobs often change notice
//! that. For the other ones the ends of transactions are enough: a setting that was changed has an entry on its stack there. The function is
//! then compiled again for the next job.
//!
//! The type cache and the relation cache keep what the planner has folded in the checks of domains, in indexes and in partition keys. They
//! are emptied if the settings or the roles differ from those that they were filled under, and if something has changed that such an
//! expression may depend on and that these caches do not follow: a function, an operator, a privilege ([`STALE`]).
//!
//! What a job folds within a function's SET clause, or as another role, such as the owner of a SECURITY DEFINER function, is of that state. It
//! might even tell the caller what only the owner may compute. So after such a job the checks of domains are read anew ([`OTHER_STATE`]).
//! Expressions of indexes and partition keys stay: to forget them takes as long as to empty all caches, and such functions are common. A
//! pooled connection keeps both.
//!
//! The type cache and the cache of foreign keys also keep how functions are called: their language's handler, or their address. They keep
//! that when they are emptied. So a process does not take another job after such a function was replaced by one of another language, or by
//! another one in C ([`OUTDATED`]).

use crate::pg::compat::CacheCallback;
use crate::pg::error::Result;
use crate::pg::exclusive::Exclusive;
use crate::pg::guc::serialized;
use crate::pg::process::identity;
use crate::pg::raw::{self, Raw};
use crate::pg::transaction::{self, Event, Watcher};
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

/// Settings that jobs often change while they run, and that compiled functions depend on. The text of the job and the ends of transactions
/// reveal changes of the other [`SETTINGS`].
const WATCHED: [&CStr; 3] = [c"search_path", c"role", c"session_authorization"];

/// How many arguments a function has that the type cache or the cache of foreign keys may keep: one that compares, hashes or casts, or
/// belongs to a range type.
const CACHED_ARGUMENTS: core::ops::RangeInclusive<i16> = 1..=3;

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

/// A function that the type cache or the cache of foreign keys may keep.
#[derive(Clone, Copy)]
struct Cached {
    function: u32,
    /// Its number in invalidation messages.
    hash: u32,
    /// How it is called: its language, and for one in C the xmin of its row.
    called: (u32, u32),
}

/// What this process knows of functions.
struct Memory {
    /// Ordered by oid.
    known: Vec<Known>,
    /// The functions that the type cache or the cache of foreign keys may keep, ordered by oid.
    cached: Vec<Cached>,
    /// The last xmin that was assigned.
    last: u32,
    job: u64,
    /// The next transaction id when the job began. A row with a later xmin did not exist for any earlier job.
    began: u32,
}

static MEMORY: Exclusive<Memory> = Exclusive::new();

thread_local! {
    /// Counts changes that may alter a function's types: changes of types, of relations, of schemas, of collations, and of role memberships.
    static AGE: Cell<u64> = const { Cell::new(0) };
    /// Whether something has changed that expressions in caches may depend on.
    static STALE: Cell<bool> = const { Cell::new(false) };
    /// Whether one of [`Memory::cached`] may have changed.
    static SUSPECT: Cell<bool> = const { Cell::new(false) };
    /// Whether the type cache or the cache of foreign keys may keep a function that is called in another way by now.
    static OUTDATED: Cell<bool> = const { Cell::new(false) };
    /// Whether the job may have folded something in another state than its own, other than after a change of its state.
    static OTHER_STATE: Cell<bool> = const { Cell::new(false) };
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
    /// The [`SETTINGS`] that are not watched, as far as they are defined.
    static OTHER_SETTINGS: [Cell<*mut pg_sys::config_generic>; SETTINGS.len()] =
        const { [const { Cell::new(core::ptr::null_mut()) }; SETTINGS.len()] };
    /// Whether a language may have defined more of them.
    static MAY_BE_MORE: Cell<bool> = const { Cell::new(true) };
}

static TRANSACTIONS: Watcher = Watcher::new(transaction_ends);

/// Installs the hooks. Call it once per process.
pub fn watch(raw: Raw<'_>) {
    MEMORY.set(Memory {
        known: Vec::new(),
        cached: Vec::new(),
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
    let caches: [(CacheCallback, &[SysCacheIdentifier::Type]); 6] = [
        (type_has_changed, &[SysCacheIdentifier::TYPEOID]),
        (
            row_has_changed,
            &[
                SysCacheIdentifier::NAMESPACEOID,
                SysCacheIdentifier::AUTHOID,
                SysCacheIdentifier::COLLOID,
            ],
        ),
        (members_have_changed, &[SysCacheIdentifier::AUTHMEMROLEMEM]),
        (function_has_changed, &[SysCacheIdentifier::PROCOID]),
        (
            folded_has_changed,
            &[
                SysCacheIdentifier::OPEROID,
                SysCacheIdentifier::AMOPOPID,
                SysCacheIdentifier::CLAOID,
                SysCacheIdentifier::TSCONFIGMAP,
                SysCacheIdentifier::TSDICTOID,
            ],
        ),
        (
            call_has_changed,
            &[
                SysCacheIdentifier::AMPROCNUM,
                SysCacheIdentifier::CASTSOURCETARGET,
                SysCacheIdentifier::LANGOID,
            ],
        ),
    ];
    for &(callback, of) in &caches {
        of.iter()
            .for_each(|cache| compat::on_cache_change(raw, *cache, callback));
    }
    if let Err(failure) = TRANSACTIONS.turn_on() {
        error::throw(raw, failure);
    }
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
    if by_clause {
        OTHER_STATE.set(true);
    } else {
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

unsafe extern "C-unwind" fn type_has_changed(_argument: Datum, _cache: c_int, _hash: u32) {
    AGE.set(AGE.get() + 1);
}

unsafe extern "C-unwind" fn row_has_changed(_argument: Datum, _cache: c_int, _hash: u32) {
    AGE.set(AGE.get() + 1);
    STALE.set(true);
}

/// Called when something has changed that is not a part of compiled functions, but that expressions in caches may depend on.
unsafe extern "C-unwind" fn folded_has_changed(_argument: Datum, _cache: c_int, _hash: u32) {
    STALE.set(true);
}

/// Called when something has changed that decides which functions the type cache and the cache of foreign keys keep, or how a language's
/// functions are called.
unsafe extern "C-unwind" fn call_has_changed(_argument: Datum, _cache: c_int, _hash: u32) {
    STALE.set(true);
    OUTDATED.set(true);
}

/// Called when a function was created, changed or dropped; with 0 if that may be any.
unsafe extern "C-unwind" fn function_has_changed(_argument: Datum, _cache: c_int, hash: u32) {
    STALE.set(true);
    let is_cached = |memory: &mut Memory| memory.cached.iter().any(|cached| hash == 0 || cached.hash == hash);
    // While one is noted this is not known.
    if MEMORY.with(is_cached).unwrap_or(true) {
        SUSPECT.set(true);
    }
}

/// Called when role memberships have changed: the schemas of the search path that the role may use must be looked up again. Up to version
/// 16 PostgreSQL does not notice that by itself.
unsafe extern "C-unwind" fn members_have_changed(_argument: Datum, _cache: c_int, _hash: u32) {
    AGE.set(AGE.get() + 1);
    STALE.set(true);
    // SAFETY: only marks the path as one to be looked up, whatever the arguments.
    unsafe { raw::assign_search_path(core::ptr::null(), core::ptr::null_mut()) };
}

/// At its end a transaction takes settings back, and so does a subtransaction that fails.
fn transaction_ends(event: Event) {
    if matches!(event, Event::BeforeCommit | Event::Aborted | Event::SubAborted(_)) {
        look_at_settings();
    }
}

/// Notes whether one of the [`SETTINGS`] that are not watched was changed within this transaction. Raises nothing.
fn look_at_settings() {
    if MAY_BE_MORE.replace(false) {
        find_settings();
    }
    // SAFETY: settings that are defined live as long as the process.
    let is_changed = |setting: &Cell<*mut pg_sys::config_generic>| unsafe {
        setting.get().as_ref().is_some_and(|setting| !setting.stack.is_null())
    };
    if OTHER_SETTINGS.with(|settings| settings.iter().any(is_changed)) {
        CHANGED.set(true);
    }
}

/// Finds those that are defined by now. A library frees the records of settings that it defines, so others are not kept.
fn find_settings() {
    OTHER_SETTINGS.with(|settings| {
        for (name, setting) in SETTINGS.iter().zip(settings) {
            if setting.get().is_null()
                && !WATCHED.contains(name)
                && let Some(found) = compat::find_setting(name)
                && !serialized::is_undefined(found)
            {
                setting.set(found);
            }
        }
    });
}

/// Sets the function to call when the role is about to be set, other than by a function's SET clause. It must raise nothing. None removes
/// it.
pub fn watch_role(watcher: Option<fn()>) {
    ROLE_WATCHER.set(watcher);
}

/// Takes in what others have committed by now, and empties the caches if it matters to them. Call it outside of a transaction, after the
/// job was launched: what its session has committed before counts. Returns false if this process must not run another job.
pub fn take_in_changes() -> Result<bool> {
    error::catching(|raw| {
        // SAFETY: callable at any time.
        unsafe { raw::AcceptInvalidationMessages(raw) }
        if STALE.get() {
            empty_caches(raw);
        }
    })?;
    if SUSPECT.get() {
        transaction::own(|| error::catching(look_at_suspects))?;
    }
    Ok(!OUTDATED.get())
}

/// Looks whether the functions of [`Memory::cached`] are called as before. One that was dropped has taken along what it was kept for.
fn look_at_suspects(raw: Raw<'_>) {
    SUSPECT.set(false);
    let count = MEMORY.with(|memory| memory.cached.len()).unwrap_or(0);
    for n in 0..count {
        // The look-up may take in messages, so the memory is not held meanwhile.
        let Some(cached) = MEMORY.with(|memory| memory.cached.get(n).copied()).flatten() else {
            continue;
        };
        // SAFETY: a row of pg_proc begins with the columns of its struct, and is released.
        unsafe {
            let row = compat::cached_row(raw, SysCacheIdentifier::PROCOID, cached.function.into());
            if !row.is_null() {
                if how_called(row) != cached.called {
                    OUTDATED.set(true);
                }
                raw::ReleaseSysCache(raw, row);
            }
        }
    }
}

/// How the function of the row is called, as [`Cached::called`].
///
/// # Safety
/// A row of pg_proc.
unsafe fn how_called(row: pg_sys::HeapTuple) -> (u32, u32) {
    // SAFETY: see above.
    unsafe {
        let language = (*compat::columns::<FormData_pg_proc>(row)).prolang.to_u32();
        let xmin = u32::from((*(*row).t_data).t_choice.t_heap.t_xmin);
        (language, if language == C { xmin } else { 0 })
    }
}

/// Whether this process must not run another job, since it may call a replaced function as before.
pub fn is_outdated() -> bool {
    OUTDATED.get()
}

/// Begins a job, in the state that it was launched in.
pub fn job_begins() {
    MEMORY.recover();
    MEMORY.with(|memory| {
        memory.job += 1;
        memory.began = compat::next_xid();
    });
    CHANGED.set(false);
    OTHER_STATE.set(false);
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
/// if this process must not run another job, or knows too many functions.
pub fn forget_plans(raw: Raw<'_>) -> bool {
    // SAFETY: only marks the plans.
    unsafe { raw::ResetPlanCache(raw) };
    MEMORY.recover();
    if CHANGED.get() {
        MEMORY.with(Memory::doubt_last_job);
        empty_caches(raw);
    } else if OTHER_STATE.get() {
        compat::forget_domain_checks(raw);
    }
    let are_few = |memory: &mut Memory| memory.known.len().max(memory.cached.len()) < MANY;
    !OUTDATED.get() && MEMORY.with(are_few).unwrap_or(false)
}

/// Empties the catalog caches, and with them all that was derived from their contents.
pub fn empty_caches(raw: Raw<'_>) {
    let (age, is_suspect, is_outdated) = (AGE.get(), SUSPECT.get(), OUTDATED.get());
    // SAFETY: callable at any time, as after a message that others have changed more than fits into messages.
    unsafe { raw::InvalidateSystemCaches(raw) }
    STALE.set(false);
    // It reports that everything may have changed.
    AGE.set(age);
    SUSPECT.set(is_suspect);
    OUTDATED.set(is_outdated);
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
            // A SET clause of the function is in force by now.
            look_at_settings();
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
        if CACHED_ARGUMENTS.contains(&(*columns).pronargs) {
            let hash = compat::cache_hash(raw, SysCacheIdentifier::PROCOID, function);
            let cached = Cached {
                function: function.to_u32(),
                hash,
                called: how_called(row),
            };
            MEMORY.with(|memory| memory.may_be_cached(raw, cached));
        }
        let has_settings = || !compat::is_null_in(raw, row, pg_sys::Anum_pg_proc_proconfig);
        if identity::is_another_role() || moment == Moment::Call && has_settings() {
            OTHER_STATE.set(true);
        }
        let mut at_call = false;
        if is_compiled(function, (*columns).prolang.to_u32()) {
            let xmin = &raw mut (*header).t_choice.t_heap.t_xmin;
            let found = u32::from(*xmin);
            // Its language may be loaded by the look-up.
            MAY_BE_MORE.set(true);
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

    /// Notes a function that the type cache or the cache of foreign keys may keep from here on.
    fn may_be_cached(&mut self, raw: Raw<'_>, cached: Cached) {
        if let Err(at) = self
            .cached
            .binary_search_by_key(&cached.function, |cached| cached.function)
        {
            fallible::push_raw(raw, &mut self.cached, cached);
            self.cached[at..].rotate_right(1);
        }
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
