//! The type `background.role`: a role that is kept in a table.
//!
//! A value is a `varlena` with the role's number and its name, as it was when the value was made. Who reads it goes by the number, so a rename
//! changes nothing. A dump has the name, so in a restored database it is the role of that name; where there is none the value keeps the name,
//! with number 0. Values compare by number, those without by name.

use crate::pg::compat;
use crate::pg::digits::Digits;
use crate::pg::error::{self, Result};
use crate::pg::memory;
use crate::pg::raw::{self, Raw};
use core::cmp::Ordering;
use core::ffi::{CStr, c_char};
use pgrx::pg_sys::{self, Datum, Oid};

/// A value of the type, which lives as long as its datum.
#[derive(Clone, Copy)]
pub struct Role<'a> {
    /// 0 where no role of this name was there.
    pub oid: u32,
    pub name: &'a [u8],
}

/// Before the name: the length, of four bytes, and the number.
const HEAD: usize = 8;

impl Role<'_> {
    /// The value in a datum of the type, which is never compressed nor stored elsewhere.
    pub fn of(datum: Datum) -> Role<'static> {
        // SAFETY: a non-NULL value that `datum` made: storage is plain, so its header has four bytes.
        unsafe {
            let value = datum.cast_mut_ptr::<u8>();
            let len = pgrx::varlena::varsize_any(value.cast());
            Role {
                oid: value.add(4).cast::<u32>().read_unaligned(),
                name: memory::view(value.add(HEAD), len.saturating_sub(HEAD)),
            }
        }
    }

    /// The value as PostgreSQL passes it.
    pub fn datum(&self, raw: Raw<'_>) -> Datum {
        // SAFETY: as much is allocated as is written.
        unsafe {
            let len = HEAD + self.name.len();
            let value = raw::palloc0(raw, len).cast::<u8>();
            pgrx::set_varsize_4b(value.cast(), len as i32);
            value.add(4).cast::<u32>().write_unaligned(self.oid);
            core::ptr::copy_nonoverlapping(self.name.as_ptr(), value.add(HEAD), self.name.len());
            Datum::from(value)
        }
    }

    /// As the type's operator class compares.
    pub fn compare(&self, other: &Self) -> Ordering {
        match self.oid.cmp(&other.oid) {
            Ordering::Equal if self.oid == 0 => self.name.cmp(other.name),
            order => order,
        }
    }

    /// The role's number now, None where there is no such role.
    pub fn number(&self) -> Result<Option<u32>> {
        match self.oid {
            0 => Ok(number_of(self.name)),
            oid => Ok(may_log_in(oid)?.map(|_| oid)),
        }
    }
}

/// The role of the number `oid`; one that does not exist has the number as its name.
pub fn of_number(oid: u32) -> Result<Datum> {
    error::catching(|raw| of_number_raw(raw, oid))
}

/// The same, raw.
pub fn of_number_raw(raw: Raw<'_>, oid: u32) -> Datum {
    let number = Digits::of(oid.into());
    let name = match name_of(raw, oid) {
        name if name.is_null() => number.bytes(),
        name => memory::c_bytes(name),
    };
    Role { oid, name }.datum(raw)
}

/// The value of a text that a dump has: the role of that name. Guarded.
pub fn of_text(text: &CStr) -> Result<Datum> {
    let name = text.to_bytes();
    let oid = number_of(name).unwrap_or(0);
    error::catching(|raw| Role { oid, name }.datum(raw))
}

/// The role's name now; the last known one where it does not exist, but its number where that is another role's name now: what a dump has of it must
/// not become the other role's. In the current memory context.
pub fn text_of(datum: Datum) -> Result<*mut c_char> {
    let role = Role::of(datum);
    let name = error::catching(|raw| name_of(raw, role.oid))?;
    Ok(if !name.is_null() {
        name
    } else if role.oid != 0 && number_of(role.name).is_some() {
        memory::copy_text(Digits::of(role.oid.into()).bytes())
    } else {
        memory::copy_text(role.name)
    })
}

fn name_of(raw: Raw<'_>, oid: u32) -> *mut c_char {
    // SAFETY: a look-up in the catalog; NULL where there is none.
    unsafe { raw::GetUserNameFromId(raw, Oid::from(oid), true) }
}

/// The number of the role of this name. Guarded.
pub fn number_of(name: &[u8]) -> Option<u32> {
    let name = memory::copy_text(name);
    // SAFETY: a NUL-terminated name.
    let oid = unsafe { pg_sys::get_role_oid(name, true) };
    (oid != Oid::INVALID).then(|| oid.to_u32())
}

/// Whether a role may log in, None if it does not exist. Guarded.
pub fn may_log_in(oid: u32) -> Result<Option<bool>> {
    // SAFETY: the struct of pg_authid.
    error::catching(|raw| unsafe {
        let cache = pg_sys::SysCacheIdentifier::AUTHOID;
        compat::read_cached(raw, cache, Oid::from(oid), |role: &pg_sys::FormData_pg_authid| {
            role.rolcanlogin
        })
    })
}
