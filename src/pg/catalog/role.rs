//! What the current role may do to another one's jobs. Guarded.

use crate::pg::raw;
use pgrx::pg_sys::{self, Oid};

/// `ROLE_PG_READ_ALL_STATS` of `catalog/pg_authid.h`.
const READ_ALL_STATS: u32 = 3375;
/// `ROLE_PG_SIGNAL_BACKEND` of `catalog/pg_authid.h`.
const SIGNAL_BACKEND: u32 = 4200;

/// The role that the current statement acts for.
fn current() -> Oid {
    // SAFETY: a plain read.
    unsafe { raw::GetUserId() }
}

fn has_privileges_of(role: u32) -> bool {
    // SAFETY: looks into the catalogs; a role that was dropped has no members.
    unsafe { pg_sys::has_privs_of_role(current(), Oid::from(role)) }
}

/// Whether the current role may act on jobs of `role`: as its member, or as a superuser. Of a job that has left that role and did
/// things as another one, `also_for` is not 0: then the session must be one that could do the same, since what the job read may
/// be in its rows, messages and error.
pub fn may_act_for(role: u32, also_for: u32) -> bool {
    (current().to_u32() == role || has_privileges_of(role)) && (also_for == 0 || may_become(also_for))
}

/// Whether the role that the session logged in as has the privileges of `role`: whatever it acts as now, it can come back. Within a
/// SECURITY DEFINER function there is no way back, and it is the function's owner that counts.
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

/// Whether `pg_cancel_backend` lets it signal a process that has connected as `role` (`pg_signal_backend` of
/// storage/ipc/signalfuncs.c): as a member of that role or of `pg_signal_backend`, and the processes of superusers only as a superuser.
pub fn may_signal(role: u32) -> bool {
    // SAFETY: looks into the catalogs.
    let is_superuser = |role: Oid| unsafe { pg_sys::superuser_arg(role) };
    (!is_superuser(Oid::from(role)) || is_superuser(current()))
        && (has_privileges_of(role) || has_privileges_of(SIGNAL_BACKEND))
}

/// Whether it may look at everybody's statistics.
pub fn reads_all_stats() -> bool {
    has_privileges_of(READ_ALL_STATS)
}

/// Whether the current role is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: a look-up in the catalog.
    unsafe { pg_sys::superuser_arg(current()) }
}
