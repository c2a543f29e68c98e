//! What stays in a process of the statements that it has run: compiled functions, and plans that were saved. Raw.
//!
//! Plans are made anew for each job: names, types, literals such as 'now', and what the planner folds, mean in them what they mean for that job. A
//! procedural language compiles a function when it is first called, and keeps it. Nothing makes PostgreSQL forget that, and the names of types in it
//! mean what they meant under the settings and the role of that moment. So a process that has compiled anything serves only jobs that have the settings
//! and the roles of the job that it was compiled for and do not change them at once; and it serves none after a job that compiled a function in
//! another state than it was launched in.
//!
//! Nor does a compiled function see that a column whose type it has taken over got another one. So a process is out of date when a relation changes that was
//! there before.
//!
//! The caches of types and relations keep what the planner has folded in the checks of domains, in indexes and in partition keys. They are
//! emptied where the settings or the roles are others than those that they were filled under.
//!
//! Hooks of the function manager tell. It asks about each function that is not built in when it looks the function up (`fmgr_info_cxt_security`), but
//! for those that change settings or the role by themselves: those run in a state of their own, and of their calls it tells
//! (`fmgr_security_definer`). What they call is asked about in that state.

use super::{adopt, compat, raw};
use core::cell::Cell;
use core::ptr;
use pgrx::pg_sys::{self, Datum, FormData_pg_proc, Oid, SysCacheIdentifier};

/// `INTERNALlanguageId` of `catalog/pg_language_d.h`.
const INTERNAL: u32 = 12;
/// `ClanguageId` of `catalog/pg_language_d.h`.
const C: u32 = 13;
/// `SQLlanguageId` of `catalog/pg_language_d.h`.
const SQL: u32 = 14;

/// What was seen in this process.
#[derive(Clone, Copy)]
struct Seen {
    /// A function was called that may have been compiled.
    any: bool,
    /// Since the job began, a function was compiled in another state than that which the job was launched in.
    elsewhere: bool,
    /// The job's own text changes that state.
    changes: bool,
    /// A relation has changed since, below this oid: those from there on have come after all that was compiled.
    relation_changed: bool,
    first_new: u32,
    /// Some role has become a member of another, or is one no more: which schemas of a search path may be used is not looked up again.
    roles_changed: bool,
}

thread_local! {
    static SEEN: Cell<Seen> = const {
        Cell::new(Seen {
            any: false,
            elsewhere: false,
            changes: false,
            relation_changed: false,
            first_new: 0,
            roles_changed: false,
        })
    };
    /// How many functions that change the state by themselves are being called, each by the one before.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static NEXT_LOOK_UP: Cell<pg_sys::needs_fmgr_hook_type> = const { Cell::new(None) };
    static NEXT_CALL: Cell<pg_sys::fmgr_hook_type> = const { Cell::new(None) };
}

/// From now on it is seen. Once for each process.
pub fn watch() {
    // SAFETY: the hooks are called in this thread; whoever was there before is called too.
    unsafe {
        NEXT_LOOK_UP.set(pg_sys::needs_fmgr_hook);
        pg_sys::needs_fmgr_hook = Some(is_looked_up);
        NEXT_CALL.set(pg_sys::fmgr_hook);
        pg_sys::fmgr_hook = Some(is_called);
        raw::CacheRegisterRelcacheCallback(Some(relation_has_changed), Datum::from(0usize));
    }
    compat::on_cache_change(SysCacheIdentifier::AUTHMEMROLEMEM, members_have_changed);
}

unsafe extern "C-unwind" fn relation_has_changed(_argument: Datum, relation: Oid) {
    let seen = SEEN.get();
    SEEN.set(Seen {
        relation_changed: seen.relation_changed || relation.to_u32() < seen.first_new,
        ..seen
    });
}

unsafe extern "C-unwind" fn members_have_changed(_argument: Datum, _cache: core::ffi::c_int, _hash: u32) {
    SEEN.set(Seen {
        roles_changed: true,
        ..SEEN.get()
    });
}

/// A job begins, in the state that it was launched in.
pub fn job_begins() {
    SEEN.set(Seen {
        elsewhere: false,
        changes: false,
        ..SEEN.get()
    });
    DEPTH.set(0);
}

/// Whether this process may have kept compiled functions.
pub fn anything() -> bool {
    SEEN.get().any
}

/// The job's own text changes the state that it was launched in. `is_used` tells whether this process has run others before.
pub fn text_changes_state(is_used: bool) {
    SEEN.set(Seen {
        changes: true,
        ..SEEN.get()
    });
    if is_used {
        empty_caches();
    }
}

/// Whether what this process has kept is out of date: a relation that was there when a function was compiled has changed, or the members of roles. What others
/// have committed by now is taken in. Raw.
pub fn is_outdated() -> bool {
    // SAFETY: only calls back.
    unsafe { raw::AcceptInvalidationMessages() };
    let seen = SEEN.get();
    seen.roles_changed || seen.any && seen.relation_changed
}

/// After a job: no plan is kept for the next. False where a function was compiled in another state than the job's, or what was compiled is out of date.
pub fn forget_plans() -> bool {
    let seen = SEEN.get();
    // SAFETY: only marks the plans.
    unsafe { raw::ResetPlanCache() };
    if seen.changes {
        empty_caches();
    }
    SEEN.set(Seen {
        first_new: if seen.any { compat::next_oid() } else { 0 },
        ..SEEN.get()
    });
    !seen.elsewhere && !is_outdated()
}

/// Empties the caches of the catalogs, and with them all that was made of their contents.
pub fn empty_caches() {
    let seen = SEEN.get();
    // SAFETY: callable at any time, as after a message that others have changed more than fits into messages.
    unsafe { raw::InvalidateSystemCaches() }
    // It says of all that it may have changed.
    SEEN.set(seen);
}

/// Answers whether the calls of the function are to be told: never for our sake.
unsafe extern "C-unwind" fn is_looked_up(function: Oid) -> bool {
    if compiles(function) {
        note(adopt::is_in_force);
    }
    // SAFETY: it was the hook.
    NEXT_LOOK_UP.get().is_some_and(|next| unsafe { next(function) })
}

/// A function that changes the state by itself is called, or has ended.
unsafe extern "C-unwind" fn is_called(
    event: pg_sys::FmgrHookEventType::Type,
    function: *mut pg_sys::FmgrInfo,
    argument: *mut Datum,
) {
    let depth = DEPTH.get();
    if event == pg_sys::FmgrHookEventType::FHET_START {
        DEPTH.set(depth + 1);
        // SAFETY: the function manager's own struct.
        if compiles(unsafe { (*function).fn_oid }) {
            note(|| depth == 0);
        }
    } else {
        DEPTH.set(depth.saturating_sub(1));
    }
    if let Some(next) = NEXT_CALL.get() {
        // SAFETY: it was the hook.
        unsafe { next(event, function, argument) };
    }
}

/// A function may be compiled from here on, in the state of its job if `is_in_force`. Where the text changes that state, it may do so between the look-up
/// and the call.
fn note(is_in_force: impl FnOnce() -> bool) {
    let seen = SEEN.get();
    let first_new = match seen.first_new {
        0 => compat::next_oid(),
        known => known,
    };
    SEEN.set(Seen {
        any: true,
        elsewhere: seen.elsewhere || seen.changes || !is_in_force(),
        first_new,
        ..seen
    });
}

/// Whether a call of the function may leave something compiled: not where its language is `internal` or `c`, nor up to version 17
/// `sql`. Of the functions in C the validators of languages do it, which take an oid and return nothing.
fn compiles(function: Oid) -> bool {
    // SAFETY: a row of pg_proc begins with the columns of its struct, and is released.
    unsafe {
        let row = compat::cached_row(SysCacheIdentifier::PROCOID, function);
        if row.is_null() {
            return false;
        }
        let data = (*row).t_data;
        let columns = data.cast::<u8>().add((*data).t_hoff.into()).cast::<FormData_pg_proc>();
        let compiles = match (*columns).prolang.to_u32() {
            INTERNAL => false,
            C => (*columns).prorettype == pg_sys::VOIDOID && takes_oid(columns),
            // Those of the system mean the same under all settings.
            SQL => cfg!(since_18) && function.to_u32() >= pg_sys::FirstNormalObjectId,
            _ => true,
        };
        raw::ReleaseSysCache(row);
        compiles
    }
}

/// Whether the only argument of the function is an oid.
unsafe fn takes_oid(columns: *const FormData_pg_proc) -> bool {
    // SAFETY: the vector of types has as many values as its head says.
    unsafe {
        let types = &raw const (*columns).proargtypes;
        (*types).dim1 == 1 && ptr::read((&raw const (*types).values).cast::<Oid>()) == pg_sys::OIDOID
    }
}
