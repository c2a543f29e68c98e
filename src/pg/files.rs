//! Temporary files that outlive the process that wrote them.
//!
//! These are PostgreSQL's file sets (`storage/fileset.h`): a directory below `base/pgsql_tmp` or in `temp_tablespaces`. Open files count
//! against `temp_file_limit`. The files are logged by `log_temp_files`, and removed after a crash.

use crate::pg::digits::Digits;
use crate::pg::raw::{self, Raw};
use crate::pg::{compat, error};
use compat::FileSet;
use core::ffi::CStr;
use pgrx::pg_sys::{self, BufFile, ResourceOwner};

/// A file set in shared memory.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Files {
    set: FileSet,
    made: bool,
}

/// The name of file number `n`, in `buffer`.
fn name(n: u32, buffer: &mut [u8; 16]) -> &CStr {
    let digits = Digits::of(n.into());
    for (to, from) in buffer.iter_mut().zip([b"r", digits.bytes()].into_iter().flatten()) {
        *to = *from;
    }
    CStr::from_bytes_until_nul(buffer).unwrap_or_default()
}

impl Files {
    /// Makes the set if it has not been made yet. PostgreSQL identifies a set by the process that made it and a counter of that process.
    /// These sets outlive the process, and another process can get its pid. So `number`, which is random, replaces the counter.
    pub fn prepare(&mut self, raw: Raw<'_>, number: u32) {
        if !self.made {
            self.set = compat::new_file_set(raw, number);
            self.made = true;
        }
    }

    /// Creates file number `n`. After [`Writing::finish`] it is complete and others may read it.
    pub fn write(&mut self, raw: Raw<'_>, n: u32) -> Writing {
        // SAFETY: the set is prepared.
        Writing(unsafe { compat::file_create(raw, &mut self.set, name(n, &mut [0; 16])) })
    }

    /// Opens file number `n`, which must be complete, within the current transaction.
    pub fn read(&mut self, raw: Raw<'_>, n: u32) -> Reading {
        // SAFETY: the set is prepared.
        Reading(unsafe { compat::file_open(raw, &mut self.set, name(n, &mut [0; 16])) })
    }

    /// Deletes file number `n`.
    pub fn delete(&mut self, raw: Raw<'_>, n: u32) {
        // SAFETY: the set is prepared.
        unsafe { compat::file_delete(raw, &mut self.set, name(n, &mut [0; 16])) }
    }

    /// Deletes all files. A failure is only logged, and interrupts are held off: the caller has other resources to release.
    pub fn delete_all(&mut self) {
        if self.made {
            // SAFETY: the set is prepared; an error sets the count of hold-offs to zero itself.
            let deleted = error::catch(|raw| unsafe {
                pg_sys::InterruptHoldoffCount += 1;
                compat::file_set_delete_all(raw, &mut self.set);
                pg_sys::InterruptHoldoffCount -= 1;
            });
            if let Err(edata) = deleted {
                error::log_caught(edata);
            }
            self.made = false;
        }
    }
}

/// A file that is being written.
#[derive(Clone, Copy)]
pub struct Writing(*mut BufFile);

impl Writing {
    /// Appends bytes.
    pub fn write(self, raw: Raw<'_>, bytes: &[u8]) {
        // SAFETY: the file is open, the bytes are readable.
        unsafe { raw::BufFileWrite(raw, self.0, bytes.as_ptr().cast_mut().cast(), bytes.len()) }
    }

    /// Completes and closes the file.
    pub fn finish(self, raw: Raw<'_>) {
        // SAFETY: the file is open and not used afterwards.
        unsafe {
            compat::file_export(raw, self.0);
            raw::BufFileClose(raw, self.0);
        }
    }
}

/// A file that is being read.
#[derive(Clone, Copy)]
pub struct Reading(*mut BufFile);

impl Reading {
    /// Seeks to byte `offset`.
    pub fn seek(self, raw: Raw<'_>, offset: u64) {
        const SEGMENT: u64 = 1 << 30;
        // SAFETY: the file is open; a BufFile consists of segments of 1 GB (MAX_PHYSICAL_FILESIZE).
        unsafe { raw::BufFileSeek(raw, self.0, (offset / SEGMENT) as _, (offset % SEGMENT) as _, 0) };
    }

    /// Reads up to `len` bytes to `to`. Returns how many were read.
    pub fn read(self, raw: Raw<'_>, to: *mut u8, len: usize) -> usize {
        // SAFETY: the file is open, `to` has room.
        unsafe { raw::BufFileRead(raw, self.0, to.cast(), len) }
    }

    /// Closes the file.
    pub fn close(self, raw: Raw<'_>) {
        // SAFETY: the file is open and not used afterwards.
        unsafe { raw::BufFileClose(raw, self.0) }
    }
}

/// A resource owner of this process, for files that belong to no query and no transaction.
#[derive(Clone, Copy)]
pub struct Owner(ResourceOwner);

impl Owner {
    /// Makes an owner that lives as long as the process. Guarded.
    pub fn new() -> Self {
        // SAFETY: the owner has no parent, so nothing else releases it.
        Self(unsafe { pg_sys::ResourceOwnerCreate(core::ptr::null_mut(), c"pg_background result files".as_ptr()) })
    }

    /// Runs `body` with this owner as the current one. If `body` raises, it stays current until [`Owner::release`].
    pub fn with<T>(self, body: impl FnOnce() -> T) -> T {
        // SAFETY: the owner lives as long as the process.
        unsafe {
            let before = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = self.0;
            let answer = body();
            pg_sys::CurrentResourceOwner = before;
            answer
        }
    }

    /// Closes the files that an error has left open. Guarded.
    pub fn release(&mut self) {
        use pg_sys::ResourceReleasePhase::{RESOURCE_RELEASE_AFTER_LOCKS, RESOURCE_RELEASE_BEFORE_LOCKS};
        // SAFETY: nothing that belongs to this owner is used afterwards. It holds no locks, whose phase is for transactions. From
        // version 17 on an owner accepts nothing more once it was released, so another replaces it.
        unsafe {
            // After an error that an open file has raised, this owner is the current one. It is about to be deleted, so the transaction's
            // owner, if any, becomes current instead.
            let before = match pg_sys::CurrentResourceOwner {
                current if current == self.0 => pg_sys::CurTransactionResourceOwner,
                other => other,
            };
            for phase in [RESOURCE_RELEASE_BEFORE_LOCKS, RESOURCE_RELEASE_AFTER_LOCKS] {
                pg_sys::ResourceOwnerRelease(self.0, phase, false, false);
            }
            pg_sys::CurrentResourceOwner = before;
            pg_sys::ResourceOwnerDelete(core::mem::replace(&mut self.0, Self::new().0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_up() {
        assert_eq!(name(0, &mut [0; 16]), c"r0");
        assert_eq!(name(4_294_967_295, &mut [0; 16]), c"r4294967295");
    }
}
