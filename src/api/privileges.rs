//! The functions that decide who may use the extension: `grant_privileges`, `revoke_privileges`, `drop_executor_role`.

use crate::pg::error::{self, Failure, Result};
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::Value;
use crate::pg::spi;
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;
use std::ffi::CString;

crate::sql_function! {
    pg_background_grant_privileges => grant;
    pg_background_revoke_privileges => revoke;
    pg_background_drop_executor_role => drop_executor_role;
}

/// The role that CREATE EXTENSION creates if it is missing.
const EXECUTOR: &[u8] = b"pgbackground_role";

/// Returns a command for each privilege that CREATE EXTENSION grants to that role. `$1` is a function of the extension, `$2` the command with
/// one placeholder for the privilege and one for the role, `$3` the role. Privileges on the schema are left alone, as CREATE EXTENSION does:
/// they are not the extension's.
///
/// `regrole` raises an error if the role does not exist. Quoting alone is not enough: GRANT takes even a quoted "public" for PUBLIC. The
/// `reg` types quote what they print, and qualify it by the schema, because the functions have a fixed search path. Array types and the row
/// types of views, which are members from version 18 on, have no privileges of their own.
const COMMANDS: &CStr = c"
    WITH member AS (
        SELECT object.classid, object.objid
        FROM pg_depend AS called JOIN pg_depend AS object USING (refclassid, refobjid, deptype)
        WHERE called.classid = 'pg_proc'::regclass AND called.objid = $1::oid
        AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
    ), granted (privilege) AS (
        SELECT 'EXECUTE ON ROUTINE ' || oid::regprocedure
        FROM pg_proc WHERE (tableoid, oid) IN (TABLE member) AND NOT prosecdef
        UNION ALL
        SELECT 'USAGE ON TYPE ' || oid::regtype
        FROM pg_type WHERE (tableoid, oid) IN (TABLE member)
        AND EXISTS (SELECT FROM pg_class WHERE oid = typrelid AND relkind = 'c')
        UNION ALL
        SELECT 'SELECT ON TABLE ' || oid::regclass
        FROM pg_class WHERE (tableoid, oid) IN (TABLE member) AND relkind = 'v'
    )
    SELECT format($2, privilege, quote_ident($3)::regrole) FROM granted ORDER BY privilege";

/// Returns the command that drops the role's initial privileges, or no row.
///
/// From PostgreSQL 17 on, the grants of CREATE EXTENSION are also recorded as initial privileges, which REVOKE does not remove. DROP OWNED
/// does, but it drops everything else too. So the command is returned only if nothing else of the role is left in this database.
const INITIAL_PRIVILEGES: &CStr = c"
    SELECT 'DROP OWNED BY ' || $2
    FROM pg_shdepend AS use
    WHERE use.refclassid = 'pg_authid'::regclass AND use.refobjid = quote_ident($2)::regrole
    AND use.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    HAVING bool_and(use.deptype = 'i' AND EXISTS (
        SELECT FROM pg_depend AS called JOIN pg_depend AS object USING (refclassid, refobjid, deptype)
        WHERE called.classid = 'pg_proc'::regclass AND called.objid = $1::oid
        AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
        AND object.classid = use.classid AND object.objid = use.objid))";

/// `grant_privileges(role_name, print_commands)`: grants a role the use of the extension, except for these functions.
fn grant(call: &Call) -> Result<Answer> {
    change(call, b"GRANT %s TO %s")
}

/// `revoke_privileges(role_name, print_commands)`: revokes the same privileges.
fn revoke(call: &Call) -> Result<Answer> {
    change(call, b"REVOKE %s FROM %s")
}

/// Executes all commands or none. If one fails, its error becomes a NOTICE, and the function returns false. A cancel is raised again: it is
/// for the caller's statement.
fn change(call: &Call, template: &[u8]) -> Result<Answer> {
    let print = call.bool(1).unwrap_or(false);
    let changed = spi::in_subtransaction(|| {
        let Some(role) = call.text(0) else {
            return refuse(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                b"role name cannot be NULL",
            );
        };
        for command in commands(call, template, role)? {
            if print {
                spi::info(&command)?;
            }
            spi::execute(&command)?;
        }
        Ok(())
    });
    let changed = match changed {
        Err(Failure::Caught(error)) if error::sqlstate(error) != PgSqlErrorCode::ERRCODE_QUERY_CANCELED as i32 => {
            spi::notice(error)?;
            false
        }
        changed => {
            changed?;
            true
        }
    };
    call.scalar(Value::Bool(changed))
}

/// The rows of [`COMMANDS`] for the extension whose function was called. 42704 for a role that does not exist.
fn commands(call: &Call, template: &[u8], role: &[u8]) -> Result<Vec<CString>> {
    let function = call.function_oid().to_string();
    let commands = spi::texts(COMMANDS, &[function.as_bytes(), template, role])?;
    if commands.is_empty() {
        refuse(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            b"function does not belong to an extension",
        )?;
    }
    Ok(commands)
}

/// Raises an error of our own as a PostgreSQL error, so that the caller handles it like the error of a command.
fn refuse(code: PgSqlErrorCode, message: &'static [u8]) -> Result<()> {
    error::catching(|raw| error::raise_raw(raw, code, &[message], None))
}

/// `drop_executor_role()`: revokes what the extension granted to its role in this database, and drops the role. If any other object depends on
/// the role, in this database or in another one, it raises 2BP01 and revokes nothing.
fn drop_executor_role(call: &Call) -> Result<Answer> {
    if spi::texts(c"SELECT rolname FROM pg_roles WHERE rolname = $1", &[EXECUTOR])?.is_empty() {
        let text = "role \"pgbackground_role\" does not exist, skipping";
        error::message(
            pgrx::pg_sys::NOTICE,
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            text,
            None,
        );
        return call.void();
    }
    for command in commands(call, b"REVOKE %s FROM %s", EXECUTOR)? {
        spi::execute(&command)?;
    }
    let function = call.function_oid().to_string();
    for command in spi::texts(INITIAL_PRIVILEGES, &[function.as_bytes(), EXECUTOR])? {
        spi::execute(&command)?;
    }
    spi::execute(c"DROP ROLE pgbackground_role")?;
    call.void()
}
