//! Shared memory: a struct that all backends find by name, a dynamic area, and locked values in both.

use crate::pg::error::{self, Failure, Report, Result};
use crate::pg::raw::{self, Raw};
use crate::pg::{compat, memory, sqlstate};
use core::cell::{Cell, UnsafeCell};
use core::ffi::{CStr, c_int};
use core::ops::{Deref, DerefMut};
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, LWLock, LWLockMode, dsa_area, dsa_pointer};

/// A pointer into the dynamic shared area; 0 is the null pointer.
pub type DsaPointer = u64;

/// The null pointer.
pub const INVALID_POINTER: DsaPointer = 0;

const TRANCHE_NAME: &CStr = c"pg_background";

/// The struct's name in the main shared memory. It is unique to this build, since another build may have another layout, and the library
/// can be replaced while the server runs.
const ROOT_NAME: &str = concat!("pg_background ", env!("PG_BACKGROUND_BUILD"), "\0");

/// A value in shared memory that only the holder of its lock can access.
///
/// Between `lock` and the drop of the guard nothing may raise an error, so allocate before. If an error does jump over a guard,
/// PostgreSQL's abort releases the lock (`LWLockReleaseAll`).
#[repr(C)]
pub struct Locked<T> {
    lock: UnsafeCell<LWLock>,
    value: UnsafeCell<T>,
}

impl<T> Locked<T> {
    /// Initializes the lock. Call it once, before another process can see the value.
    pub fn init(&self, tranche: i32) {
        // SAFETY: the lock is in shared memory that no other process can see yet.
        unsafe { pg_sys::LWLockInitialize(self.lock.get(), tranche) }
    }

    /// Waits for the lock and gives access to the value. Interrupts are held off until the guard is dropped.
    pub fn lock(&self) -> Guard<'_, T> {
        // SAFETY: an initialised LWLock in shared memory; this process does not hold it (no function here locks twice).
        unsafe { raw::LWLockAcquire(self.lock.get(), LWLockMode::LW_EXCLUSIVE) };
        Guard { locked: self }
    }
}

/// Exclusive access to a [`Locked`] value.
pub struct Guard<'a, T> {
    locked: &'a Locked<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.locked.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held exclusively.
        unsafe { &mut *self.locked.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the lock is held by this process unless an error on the way here released all; raising an error has set the
        // hold-off count to zero, which LWLockRelease would take below (see LWLockReleaseAll, which compensates likewise).
        unsafe {
            if std::thread::panicking() {
                if !pg_sys::LWLockHeldByMe(self.locked.lock.get()) {
                    return;
                }
                if pg_sys::InterruptHoldoffCount == 0 {
                    pg_sys::InterruptHoldoffCount = 1;
                }
            }
            raw::LWLockRelease(self.locked.lock.get());
        }
    }
}

/// The struct that every backend finds by its name in the main shared memory.
#[repr(C)]
pub struct Root<T> {
    tranche: c_int,
    /// The area's handle, or 0 until the first backend creates the area.
    area: Locked<u32>,
    value: T,
}

thread_local! {
    static AREA: Cell<*mut dsa_area> = const { Cell::new(ptr::null_mut()) };
}

thread_local! {
    /// The size to reserve in the main shared memory, and the previous hook.
    static ROOT_SIZE: Cell<usize> = const { Cell::new(0) };
    static NEXT_STARTUP: Cell<pg_sys::shmem_startup_hook_type> = const { Cell::new(None) };
}

/// Reserves the struct. Called in the postmaster before it creates the main shared memory. The struct is then created zeroed, and the first
/// backend completes it.
pub fn reserve_root<T>() {
    ROOT_SIZE.set(size_of::<Root<T>>().next_multiple_of(128));
    compat::request_shared_memory(ROOT_SIZE.get());
    // SAFETY: the hook is called in this thread; the previous hook is called too.
    unsafe {
        NEXT_STARTUP.set(pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(make_root);
    }
}

unsafe extern "C-unwind" fn make_root() {
    // SAFETY: as in `attach_root`; PostgreSQL calls this, and nothing is owned here.
    unsafe {
        let raw = Raw::assume();
        if let Some(next) = NEXT_STARTUP.get() {
            next();
        }
        let lock = compat::addin_shmem_init_lock();
        raw::LWLockAcquire(lock, LWLockMode::LW_EXCLUSIVE);
        let mut found = false;
        let root = raw::ShmemInitStruct(raw, ROOT_NAME.as_ptr().cast(), ROOT_SIZE.get(), &mut found);
        if !found {
            ptr::write_bytes(root.cast::<u8>(), 0, ROOT_SIZE.get());
        }
        raw::LWLockRelease(lock);
    }
}

/// Finds the struct, or creates it if this is the first backend, and attaches to the area. Guarded.
///
/// After server start `ShmemInitStruct` takes from the slack that PostgreSQL leaves for it. So preloading is not necessary, but it makes
/// sure of the memory ([`reserve_root`]). Everything that can grow is in a dynamic area, which is pinned so that it outlives the backend
/// that created it.
pub fn attach_root<T>(init: impl FnOnce(&T, i32)) -> Result<&'static T> {
    // SAFETY: AddinShmemInitLock serialises the making of the struct; zeroed memory is a valid `Root<T>` (its parts are plain
    // numbers and locks, initialised here before the lock is released).
    unsafe {
        let lock = compat::addin_shmem_init_lock();
        pg_sys::LWLockAcquire(lock, LWLockMode::LW_EXCLUSIVE);
        let mut found = false;
        let root = pg_sys::ShmemInitStruct(
            ROOT_NAME.as_ptr().cast(),
            size_of::<Root<T>>().next_multiple_of(128),
            &mut found,
        )
        .cast::<Root<T>>();
        if !found {
            ptr::write_bytes(root, 0, 1);
        }
        // If this failed in the backend that created the struct, the next one does it.
        if (*root).tranche == 0 {
            let tranche = compat::new_tranche(TRANCHE_NAME);
            (*root).area.init(tranche);
            init(&(*root).value, tranche);
            (*root).tranche = tranche;
        }
        pg_sys::LWLockRelease(lock);
        compat::name_tranche((*root).tranche, TRANCHE_NAME);
        let root = &*root;
        attach_area(root)?;
        Ok(&root.value)
    }
}

fn attach_area<T>(root: &Root<T>) -> Result<()> {
    let mut handle = root.area.lock();
    let area = memory::for_process(|| {
        // SAFETY: the lock lets one backend make the area, and the others attach to it. Guarded: an error unwinds through the
        // guard. Pinning keeps the area until the server stops, and the mapping until this process ends.
        unsafe {
            let area;
            if *handle == 0 {
                area = compat::dsa_create(root.tranche);
                pg_sys::dsa_pin(area);
                *handle = pg_sys::dsa_get_handle(area);
            } else {
                area = pg_sys::dsa_attach(*handle);
            }
            pg_sys::dsa_pin_mapping(area);
            area
        }
    });
    AREA.set(area);
    compat::SegmentOwner::prepare();
    Ok(())
}

/// As [`error::catching`], for calls that may map a segment: no resource owner owns what was attached, and a failed attachment is released.
fn as_owner<T>(body: impl FnOnce(Raw) -> T) -> Result<T> {
    let owner = compat::SegmentOwner::enter();
    let answer = error::catching(body);
    owner.leave(answer.is_err());
    answer
}

/// Allocates zeroed memory in the area. Fails with 53200 if memory is out, or with the system's own error if it refuses a new segment. Call
/// it without a lock held.
pub fn allocate(size: usize) -> Result<DsaPointer> {
    // SAFETY: the area is attached. The flags make one failure a value; that of a new segment is an error all the same, raised
    // with the area's locks held, and caught here where they are released before anything is given back.
    let pointer = as_owner(|raw| unsafe {
        raw::dsa_allocate_extended(
            raw,
            AREA.get(),
            size,
            (pg_sys::DSA_ALLOC_HUGE | pg_sys::DSA_ALLOC_NO_OOM | pg_sys::DSA_ALLOC_ZERO) as _,
        )
    })?;
    if pointer == INVALID_POINTER {
        return Err(
            Report::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of shared memory")
                .detail(format!("Failed on a request of {size} bytes for a background job."))
                .into(),
        );
    }
    Ok(pointer)
}

/// Allocates in the area without zeroing. Raw.
pub fn allocate_raw(raw: Raw<'_>, size: usize) -> DsaPointer {
    // SAFETY: the area is attached; a failure raises.
    unsafe { raw::dsa_allocate_extended(raw, AREA.get(), size, pg_sys::DSA_ALLOC_HUGE as _) }
}

/// As [`allocate`], but returns None if memory is out, and does not zero. Call it without a lock held.
pub fn try_allocate(size: usize) -> Option<DsaPointer> {
    // SAFETY: as in `allocate`; the locks of the area go before anything else is done.
    let pointer = as_owner(|raw| unsafe {
        raw::dsa_allocate_extended(
            raw,
            AREA.get(),
            size,
            (pg_sys::DSA_ALLOC_HUGE | pg_sys::DSA_ALLOC_NO_OOM) as _,
        )
    });
    pointer.ok().filter(|pointer| *pointer != INVALID_POINTER)
}

/// Frees an allocation; the null pointer is allowed. Raises nothing. If this process can map no more segments, the memory stays allocated.
/// Call it without a lock held.
pub fn free(pointer: DsaPointer) {
    if pointer != INVALID_POINTER {
        // SAFETY: allocated in this area and no longer referenced (the caller's promise).
        let _ = as_owner(|raw| unsafe { raw::dsa_free(raw, AREA.get(), pointer as dsa_pointer) });
    }
}

/// The address of an allocation that this process has mapped, by allocating it or by one of the functions below. It stays mapped as long as
/// it is allocated, and then this raises nothing. If the segment has yet to be mapped, this may raise an error.
pub fn address(pointer: DsaPointer) -> *mut u8 {
    // SAFETY: the area is attached.
    unsafe { raw::dsa_get_address(AREA.get(), pointer as dsa_pointer).cast() }
}

/// As [`address`], but returns None if the segment cannot be mapped. May be called under a lock and while the process exits.
pub fn look_address(pointer: DsaPointer) -> Option<*mut u8> {
    if pointer == INVALID_POINTER {
        return None;
    }
    let owner = compat::SegmentOwner::enter();
    let address = error::quietly(|_| address(pointer));
    owner.leave(address.is_none());
    address
}

/// Returns a value of the shared area, as [`look_address`].
pub fn look<T>(pointer: DsaPointer) -> Option<&'static T> {
    // SAFETY: as in `at`.
    look_address(pointer).map(|address| unsafe { &*address.cast::<T>() })
}

/// A cache for the value that was looked up last, for pointers that are never freed.
pub struct Last<T: 'static>(Cell<(DsaPointer, Option<&'static T>)>);

impl<T> Last<T> {
    /// No value yet.
    pub const fn new() -> Self {
        Self(Cell::new((INVALID_POINTER, None)))
    }

    /// As [`look`].
    pub fn look(&self, pointer: DsaPointer) -> Option<&'static T> {
        let (last, value) = self.0.get();
        if last == pointer {
            return value;
        }
        let value = look(pointer);
        if value.is_some() {
            self.0.set((pointer, value));
        }
        value
    }
}

/// Maps the segment of an allocation. Fails with the system's own error, for example if no file descriptor or address space is left. Call
/// it without a lock held.
pub fn map(pointer: DsaPointer) -> Result<()> {
    if pointer == INVALID_POINTER || look_address(pointer).is_some() {
        return Ok(());
    }
    // Tries once more, for the message of the error.
    as_owner(|_| address(pointer)).map(drop).inspect_err(|failure| {
        // From version 17 on an attachment that has failed cannot be tried again in the same process: dsm.c reports it as attached already.
        if cfg!(since_17)
            && let Failure::Caught(edata) = failure
            && error::sqlstate(*edata) == sqlstate::pack(b"XX000")
        {
            let report = Report::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory")
                .detail("A segment of shared memory could not be attached before.")
                .hint("Connect again.");
            error::replace(*edata, report);
        }
    })
}

/// Maps a value and returns it, as [`map`].
pub fn mapped<T>(pointer: DsaPointer) -> Result<&'static T> {
    map(pointer)?;
    Ok(at(pointer))
}

/// Maps `len` bytes and returns them, as [`map`].
pub fn mapped_bytes<'a>(pointer: DsaPointer, len: usize) -> Result<&'a [u8]> {
    map(pointer)?;
    Ok(bytes(pointer, len))
}

/// A value of the shared area that this process has mapped, as for [`address`].
pub fn at<T>(pointer: DsaPointer) -> &'static T {
    // SAFETY: callers keep the allocation while they hold a reference; shared values hold only numbers, atomics and locks, so
    // any bit pattern that is found there is valid.
    unsafe { &*address(pointer).cast::<T>() }
}

/// `len` bytes of the shared area that this process has mapped, as for [`address`].
pub fn bytes<'a>(pointer: DsaPointer, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the allocation holds `len` bytes that are not written while they are read (the caller's promise).
    unsafe { core::slice::from_raw_parts(address(pointer), len) }
}

/// Writes `data` to an allocation.
pub fn write(pointer: DsaPointer, data: &[u8]) {
    // SAFETY: the memory was allocated for at least as many bytes and no other process sees it yet (the caller's promise).
    unsafe { ptr::copy_nonoverlapping(data.as_ptr(), address(pointer), data.len()) }
}

/// Stores a copy of `data` in the area. Returns the null pointer if it is empty. Errors are those of [`allocate`].
pub fn store(data: &[u8]) -> Result<DsaPointer> {
    if data.is_empty() {
        return Ok(INVALID_POINTER);
    }
    let pointer = allocate(data.len())?;
    write(pointer, data);
    Ok(pointer)
}

/// The element at index `n` of an array of the shared area that begins with `first`.
pub fn neighbour<T>(first: &'static T, n: usize) -> &'static T {
    // SAFETY: callers stay within the block that `first` begins.
    unsafe { &*ptr::from_ref(first).add(n) }
}

/// The value that follows an array of `len` values that begins with `first`.
pub fn behind<T, U>(first: &'static T, len: usize) -> &'static U {
    // SAFETY: callers have allocated and zeroed it, and it is aligned as the values are; numbers, atomics and locks only.
    unsafe { &*ptr::from_ref(first).add(len).cast::<U>() }
}

/// Writes a value to an allocation.
pub fn put<T: Copy>(pointer: DsaPointer, value: T) {
    // SAFETY: the memory was allocated for it, aligned, and no other process sees it yet (the caller's promise).
    unsafe { address(pointer).cast::<T>().write(value) }
}

/// An allocation in the area that is freed when it is dropped, unless it is handed over.
pub struct Owned(DsaPointer);

impl Owned {
    /// Takes ownership of an allocation.
    pub fn new(pointer: DsaPointer) -> Self {
        Self(pointer)
    }

    /// The pointer.
    pub fn pointer(&self) -> DsaPointer {
        self.0
    }

    /// Gives up ownership and returns the pointer.
    pub fn hand_over(mut self) -> DsaPointer {
        core::mem::replace(&mut self.0, INVALID_POINTER)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        free(self.0);
    }
}
