//! The files that libraries were loaded from, and the file of this one.

use crate::pg::memory;
use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// Set in the postmaster, from which all other processes have it.
static IS_PRELOADED: AtomicBool = AtomicBool::new(false);

/// Whether this library is being loaded because of `shared_preload_libraries`. Called when it is loaded.
pub fn is_being_preloaded() -> bool {
    // SAFETY: a plain read.
    let is_being_preloaded = unsafe { pgrx::pg_sys::process_shared_preload_libraries_in_progress };
    if is_being_preloaded {
        IS_PRELOADED.store(true, Relaxed);
    }
    is_being_preloaded
}

/// Whether this library was loaded because of `shared_preload_libraries`.
pub fn is_preloaded() -> bool {
    IS_PRELOADED.load(Relaxed)
}

/// The files in a list in the form of `SerializeLibraryState`.
pub fn files(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == 0).filter(|file| !file.is_empty())
}

/// The file's name without its directories.
pub fn file_name(file: &[u8]) -> &[u8] {
    file.rsplit(|byte| *byte == b'/').next().unwrap_or(file)
}

/// The library's name, which is the file's name without its suffix.
pub fn name(file: &[u8]) -> Option<&[u8]> {
    file_name(file).strip_suffix(b".so")
}

/// `Dl_info` of `dlfcn.h`.
#[repr(C)]
struct SymbolInfo {
    dli_fname: *const c_char,
    dli_fbase: *mut c_void,
    dli_sname: *const c_char,
    dli_saddr: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, found: *mut SymbolInfo) -> c_int;
}

/// Device, inode, and time of the last modification.
type File = (u64, u64, i64, i64);

thread_local! {
    static LOADED: Cell<Option<File>> = const { Cell::new(None) };
}

/// The file that this library was loaded from.
fn path() -> Option<&'static [u8]> {
    let mut found = SymbolInfo {
        dli_fname: core::ptr::null(),
        dli_fbase: core::ptr::null_mut(),
        dli_sname: core::ptr::null(),
        dli_saddr: core::ptr::null_mut(),
    };
    // SAFETY: any address of this library tells where it was loaded from; the name lives as long as the library.
    let known = unsafe { dladdr(was_replaced as *const c_void, &mut found) } != 0;
    known.then(|| memory::c_bytes(found.dli_fname))
}

/// Whether this is the file of this library.
pub fn is_this(file: &[u8]) -> bool {
    path() == Some(file)
}

fn file() -> Option<File> {
    let of = std::fs::metadata(OsStr::from_bytes(path()?)).ok()?;
    Some((of.dev(), of.ino(), of.mtime(), of.mtime_nsec()))
}

/// Whether the file is another one than at the first call of this function, or no longer exists.
pub fn was_replaced() -> bool {
    let now = file();
    match LOADED.get() {
        Some(loaded) => now != Some(loaded),
        None => {
            LOADED.set(now);
            now.is_none()
        }
    }
}
