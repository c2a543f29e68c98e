//! The tables of the second extension, and acting as their owner.

use crate::pg::compat;
use crate::pg::error::{self, Report, Result};
use crate::pg::process::identity;
use core::cell::Cell;
use core::ffi::{CStr, c_int};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Oid};

/// The schema of the second extension.
const SCHEMA: &CStr = c"background";

thread_local! {
    /// Who owns the tables, as [`look_up`] has found.
    static OWNER: Cell<Oid> = const { Cell::new(Oid::INVALID) };
}

/// A table, an index or a sequence of ours. Guarded. 55000 where it is not there.
pub fn relation(name: &CStr) -> Result<u32> {
    // SAFETY: look-ups in the catalogs by NUL-terminated names.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(SCHEMA.as_ptr(), true);
        match schema {
            Oid::INVALID => Oid::INVALID,
            schema => pg_sys::get_relname_relid(name.as_ptr(), schema),
        }
    };
    if oid == Oid::INVALID {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("relation \"background.{}\" does not exist", name.to_string_lossy()),
        )
        .hint("Create the extension pg_background_tasks.")
        .into());
    }
    Ok(oid.to_u32())
}

/// Finds the table `task`, and notes its owner, as whom statements run from now on; each call of a function of ours begins with this. Who owns
/// the tables may run anything as anyone, so 42501 where that is no superuser: after REASSIGN OWNED, say.
pub fn look_up() -> Result<u32> {
    let task = relation(c"task")?;
    // SAFETY: the struct of pg_class.
    let owner = error::catching(|raw| unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID;
        compat::read_cached(raw, cache, Oid::from(task), |class: &pg_sys::FormData_pg_class| {
            class.relowner
        })
    })?
    .unwrap_or(Oid::INVALID);
    // SAFETY: a look-up in the catalog.
    if owner == Oid::INVALID || !unsafe { pg_sys::superuser_arg(owner) } {
        return Err(Report::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "the tables of extension \"pg_background_tasks\" must be owned by a superuser",
        )
        .hint("Use ALTER TABLE ... OWNER TO.")
        .into());
    }
    OWNER.set(owner);
    Ok(task)
}

/// The role that owns the tables, as [`look_up`] has found.
pub fn number() -> u32 {
    OWNER.get().to_u32()
}

/// Runs `body` as the owner of the tables, as referential integrity does; `body` runs no code of users. Whoever acted before acts
/// afterwards, also where `body` fails.
pub fn acting<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    let (_, _, user, context) = identity::acting();
    identity::set_user(
        OWNER.get().to_u32(),
        context | (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS) as c_int,
    );
    let answer = body();
    identity::set_user(user, context);
    answer
}
