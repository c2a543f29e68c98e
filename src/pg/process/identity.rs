//! The roles that this process acts as.

use crate::pg::raw::{self, Raw};
use core::ffi::c_int;
use pgrx::pg_sys::{self, Oid};

/// The roles and the security context of a statement.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Identity {
    pub authenticated: u32,
    pub session: u32,
    pub outer: u32,
    pub current: u32,
    pub role: u32,
    pub security_context: i32,
    pub session_is_superuser: bool,
    pub outer_is_superuser: bool,
}

impl Identity {
    /// The same after `SET ROLE NONE`.
    pub fn without_role(self) -> Self {
        Self {
            outer: self.session,
            current: self.session,
            role: 0,
            outer_is_superuser: self.session_is_superuser,
            ..self
        }
    }
}

/// The identity of this process now. Guarded.
pub fn identity() -> Identity {
    let mut current = Oid::INVALID;
    let mut security_context = 0;
    // SAFETY: plain reads of this backend's state; superuser_arg looks into the catalog.
    unsafe {
        raw::GetUserIdAndSecContext(&mut current, &mut security_context);
        if crate::pg::guc::own::roles_are_locked() {
            // Jobs that are launched from here must not become the caller either.
            security_context |= pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int;
        }
        let (session, outer) = (raw::GetSessionUserId(), raw::GetOuterUserId());
        let session_is_superuser = pg_sys::superuser_arg(session);
        Identity {
            authenticated: raw::GetAuthenticatedUserId().to_u32(),
            session: session.to_u32(),
            outer: outer.to_u32(),
            current: current.to_u32(),
            role: raw::GetCurrentRoleId().to_u32(),
            security_context,
            session_is_superuser,
            outer_is_superuser: if outer == session {
                session_is_superuser
            } else {
                pg_sys::superuser_arg(outer)
            },
        }
    }
}

/// The identity of this process, which has connected and run nothing yet.
pub fn of_connection(raw: Raw<'_>) -> Identity {
    let (session, role, current, security_context) = acting();
    // SAFETY: plain reads of this backend's state; looks into the catalog, in a transaction.
    unsafe {
        let outer = raw::GetOuterUserId();
        Identity {
            authenticated: raw::GetAuthenticatedUserId().to_u32(),
            session,
            outer: outer.to_u32(),
            current,
            role,
            security_context,
            session_is_superuser: raw::superuser_arg(raw, Oid::from(session)),
            outer_is_superuser: raw::superuser_arg(raw, outer),
        }
    }
}

/// The session's user, the role, the current user and the security context of this process now.
pub fn acting() -> (u32, u32, u32, i32) {
    let (mut current, mut security_context) = (Oid::INVALID, 0);
    // SAFETY: plain reads of this backend's state.
    unsafe {
        raw::GetUserIdAndSecContext(&mut current, &mut security_context);
        (
            raw::GetSessionUserId().to_u32(),
            raw::GetCurrentRoleId().to_u32(),
            current.to_u32(),
            security_context,
        )
    }
}

/// Whether the role is another one than the job's, for a while: that of a SECURITY DEFINER function, or of the owner of what a command is about.
pub fn is_another_role() -> bool {
    // SAFETY: plain reads of this backend's state.
    unsafe { raw::GetUserId() != raw::GetOuterUserId() }
}

/// The session user and the outer user, which SET SESSION AUTHORIZATION and SET ROLE change. If the pair changes, the job acts as another
/// role.
pub fn roles() -> (u32, u32) {
    // SAFETY: plain reads.
    unsafe { (raw::GetSessionUserId().to_u32(), raw::GetOuterUserId().to_u32()) }
}

/// Whether a security-restricted operation runs: an index build, a refresh, ANALYZE.
pub fn in_restricted_operation() -> bool {
    // SAFETY: a plain read.
    unsafe { raw::InSecurityRestrictedOperation() }
}

/// Sets the session user and the role of this worker. Call it in a transaction, as parallel.c does.
pub fn assume_user(raw: Raw<'_>, identity: &Identity) {
    // SAFETY: roles by number, installed without checks, as the launching session had passed them.
    unsafe {
        raw::SetSessionAuthorization(raw, Oid::from(identity.session), identity.session_is_superuser);
        raw::SetCurrentRoleId(raw, Oid::from(identity.role), identity.outer_is_superuser);
    }
}

/// Acts as `user` within security context `context` until the end of the transaction or the next call.
pub fn set_user(user: u32, context: i32) {
    // SAFETY: plain assignment of this backend's state.
    unsafe { raw::SetUserIdAndSecContext(Oid::from(user), context) }
}

/// Resets `InitializingParallelWorker`, the only thing that an error within [`crate::pg::reuse::adopt`] would leave behind.
pub fn adoption_failed() {
    // SAFETY: a plain variable.
    unsafe { pg_sys::InitializingParallelWorker = false }
}
