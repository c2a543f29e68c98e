//! The rights of the current role on the jobs of other roles. Guarded.

use crate::pg::raw;
use pgrx::pg_sys::{self, Oid};

/// `ROLE_PG_READ_ALL_STATS` of `catalog/pg_authid.h`.
const READ_ALL_STATS: u32 = 3375;
/// `ROLE_PG_SIGNAL_BACKEND` of `catalog/pg_authid.h`.
const SIGNAL_BACKEND: u32 = 4200;

/// The role that the current statement acts as.
fn current() -> Oid {
    // SAFETY: a plain read.
    unsafe { raw::GetUserId() }
}

fn has_privileges_of(role: u32) -> bool {
    // SAFETY: looks into the catalogs; a role that was dropped has no members.
    unsafe { pg_sys::has_privs_of_role(current(), Oid::from(role)) }
}

/// Whether the current role may act on jobs of `role`, as a member of it or as a superuser.
///
/// `also_for` is not 0 if the job has left that role and acted as another one. Then the session must be able to act as that role too, since
/// what the job read as that role may be in its rows, messages and error.
pub fn may_act_for(role: u32, also_for: u32) -> bool {
    (current().to_u32() == role || has_privileges_of(role)) && (also_for == 0 || may_become(also_for))
}

/// Whether the role that the session logged in as has the privileges of `role`. The role that the session acts as now does not matter,
/// since it can return to the login role. Within a SECURITY DEFINER function it cannot return, and the function's owner counts.
fn may_become(role: u32) -> bool {
    let mut current = Oid::INVALID;
    let mut security_context = 0;
    // SAFETY: plain reads of this backend's state; looks into the catalogs.
    unsafe {
        raw::GetUserIdAndSecContext(&mut current, &mut security_context);
        let from = if security_context == 0 {
            raw::GetAuthenticatedUserId()
        } else {
            current
        };
        pg_sys::has_privs_of_role(from, Oid::from(role))
    }
}

/// Whether `pg_cancel_backend` would let the current role signal a process that has connected as `role` (`pg_signal_backend` of
/// storage/ipc/signalfuncs.c). That requires membership in that role or in `pg_signal_backend`. Only a superuser may signal the processes
/// of superusers.
pub fn may_signal(role: u32) -> bool {
    // SAFETY: looks into the catalogs.
    let is_superuser = |role: Oid| unsafe { pg_sys::superuser_arg(role) };
    (!is_superuser(Oid::from(role)) || is_superuser(current()))
        && (has_privileges_of(role) || has_privileges_of(SIGNAL_BACKEND))
}

/// Whether the current role may read the statistics of all roles.
pub fn reads_all_stats() -> bool {
    has_privileges_of(READ_ALL_STATS)
}

/// Whether the current role is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: a look-up in the catalog.
    unsafe { pg_sys::superuser_arg(current()) }
}
