//! What stays in a process of the statements that it has run: compiled functions, and plans that were saved. Raw.
//!
//! A procedural language compiles a function when it is first called, and keeps it. Names, types and literals mean in it what they meant
//! under the settings and the role of that moment, and the planner has folded what that role was allowed to execute. PostgreSQL
//! plans such statements anew where it is asked to (`ResetPlanCache`), but nothing makes it forget a compiled function. So a process
//! that has compiled anything serves only jobs that have the settings and the role of the job that it was compiled for; and
//! it serves none after a job that compiled something in another state than it was launched in.
//!
//! Two hooks tell. The function manager asks about each function that is not built in, and about none that changes settings or the
//! role by itself (`fmgr_info_cxt_security`): those always run in a state of their own, and what they call is asked about in that state. The parser tells of
//! each statement that it has analysed.

use super::{adopt, raw};
use core::cell::Cell;
use core::ptr;
use pgrx::pg_sys::{self, Datum, FormData_pg_proc, Oid, SysCacheIdentifier};

/// The languages of `catalog/pg_language.dat` that every database has.
const INTERNAL: u32 = 12;
const C: u32 = 13;
const SQL: u32 = 14;

/// What was seen in this process.
#[derive(Clone, Copy)]
struct Seen {
    /// Something was compiled or planned that may have stayed.
    any: bool,
    /// Since the job began, a statement was planned in another state than that which the job was launched in.
    planned_elsewhere: bool,
    /// Since the job began, a function was compiled in such a state.
    compiled_elsewhere: bool,
}

thread_local! {
    static SEEN: Cell<Seen> = const {
        Cell::new(Seen {
            any: false,
            planned_elsewhere: false,
            compiled_elsewhere: false,
        })
    };
    /// Whether the statement that is analysed next is the job's own, which nothing stays of.
    static OWN: Cell<bool> = const { Cell::new(false) };
    static NEXT_FUNCTION: Cell<pg_sys::needs_fmgr_hook_type> = const { Cell::new(None) };
    static NEXT_ANALYSIS: Cell<pg_sys::post_parse_analyze_hook_type> = const { Cell::new(None) };
}

/// From now on it is seen. Once for each process.
pub fn watch() {
    // SAFETY: the hooks are called in this thread; whoever was there before is called too.
    unsafe {
        NEXT_FUNCTION.set(pg_sys::needs_fmgr_hook);
        pg_sys::needs_fmgr_hook = Some(function_is_looked_up);
        NEXT_ANALYSIS.set(pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(statement_is_analysed);
    }
}

/// A job begins, in the state that it was launched in.
pub fn job_begins() {
    SEEN.set(Seen {
        planned_elsewhere: false,
        compiled_elsewhere: false,
        ..SEEN.get()
    });
    OWN.set(false);
}

/// Runs `body`, which analyses a statement of the job's text.
pub fn own_statement<T>(body: impl FnOnce() -> T) -> T {
    OWN.set(true);
    let answer = body();
    OWN.set(false);
    answer
}

/// Whether this process has compiled or planned anything that may still be there.
pub fn anything() -> bool {
    SEEN.get().any
}

/// After a job: makes PostgreSQL plan anew what was planned in another state than the job's. False where a function was compiled in such a state.
pub fn forget_plans() -> bool {
    let seen = SEEN.get();
    if seen.planned_elsewhere && !seen.compiled_elsewhere {
        // SAFETY: only marks the plans.
        unsafe { raw::ResetPlanCache() };
    }
    !seen.compiled_elsewhere
}

/// Answers whether the hook for function calls wants to see the calls of this one: never for our sake.
unsafe extern "C-unwind" fn function_is_looked_up(function: Oid) -> bool {
    if compiles(function) {
        let mut seen = SEEN.get();
        seen.any = true;
        seen.compiled_elsewhere = seen.compiled_elsewhere || !adopt::is_in_force();
        SEEN.set(seen);
    }
    // SAFETY: it was the hook.
    NEXT_FUNCTION.get().is_some_and(|next| unsafe { next(function) })
}

unsafe extern "C-unwind" fn statement_is_analysed(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: super::compat::JumbleState,
) {
    if let Some(next) = NEXT_ANALYSIS.get() {
        // SAFETY: it was the hook.
        unsafe { next(state, query, jumble) };
    }
    if OWN.replace(false) {
        return;
    }
    let mut seen = SEEN.get();
    seen.any = true;
    seen.planned_elsewhere = seen.planned_elsewhere || !adopt::is_in_force();
    SEEN.set(seen);
}

/// Whether a call of the function may leave something compiled: not where its language is `internal` or `c`, nor up to version 17
/// `sql`. Of the functions in C the validators of languages do it, which take an oid and return nothing.
fn compiles(function: Oid) -> bool {
    // SAFETY: a row of pg_proc begins with the columns of its struct, and is released.
    unsafe {
        let row = raw::SearchSysCache1(SysCacheIdentifier::PROCOID as _, Datum::from(function));
        if row.is_null() {
            return false;
        }
        let data = (*row).t_data;
        let columns = data.cast::<u8>().add((*data).t_hoff.into()).cast::<FormData_pg_proc>();
        let compiles = match (*columns).prolang.to_u32() {
            INTERNAL => false,
            C => (*columns).prorettype == pg_sys::VOIDOID && takes_oid(columns),
            SQL => cfg!(since_18),
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
