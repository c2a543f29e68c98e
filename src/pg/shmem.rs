//! Shared memory: the struct that all backends find by name, the area that grows, and locks over values in both.

use crate::pg::error::{self, Failure, Report, Result};
use crate::pg::raw::{self, Raw};
use crate::pg::{compat, memory, sqlstate};
use core::cell::{Cell, UnsafeCell};
use core::ffi::{CStr, c_int};
use core::ops::{Deref, DerefMut};
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, LWLock, LWLockMode, dsa_area, dsa_pointer};

/// A place in the shared area; 0 is nowhere.
pub type Offset = u64;

/// Nowhere.
pub const NOWHERE: Offset = 0;

const TRANCHE_NAME: &CStr = c"pg_background";

/// The name in the main shared memory: of this very build, since another one may lay things out differently, and a library can be
/// replaced under a running server.
const ROOT_NAME: &str = concat!("pg_background ", env!("PG_BACKGROUND_BUILD"), "\0");

/// A value in shared memory that only the holder of its lock sees.
///
/// Between `lock` and the guard's end nothing may raise an error: allocate before. Where an error does jump over a guard,
/// PostgreSQL's abort releases the lock (`LWLockReleaseAll`).
#[repr(C)]
pub struct Locked<T> {
    lock: UnsafeCell<LWLock>,
    value: UnsafeCell<T>,
}

impl<T> Locked<T> {
    /// Makes the lock usable. Once, before anybody else can see the value.
    pub fn init(&self, tranche: i32) {
        // SAFETY: the lock lies in shared memory that nobody else has seen yet.
        unsafe { pg_sys::LWLockInitialize(self.lock.get(), tranche) }
    }

    /// Waits for the lock and gives access to the value. Interrupts are held until the guard goes.
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

/// What every backend finds under our name in the main shared memory.
#[repr(C)]
pub struct Root<T> {
    tranche: c_int,
    /// The area's handle, 0 until the first backend makes it.
    area: Locked<u32>,
    value: T,
}

thread_local! {
    static AREA: Cell<*mut dsa_area> = const { Cell::new(ptr::null_mut()) };
}

thread_local! {
    /// What of the main shared memory to reserve, and who else wants some.
    static ROOT_SIZE: Cell<usize> = const { Cell::new(0) };
    static NEXT_STARTUP: Cell<pg_sys::shmem_startup_hook_type> = const { Cell::new(None) };
}

/// In the postmaster before it makes the main shared memory: there will be room for the root, and it is made at once, zeroed. The
/// first backend completes it.
pub fn reserve_root<T>() {
    ROOT_SIZE.set(size_of::<Root<T>>().next_multiple_of(128));
    compat::request_shared_memory(ROOT_SIZE.get());
    // SAFETY: the hook is called in this thread; whoever was there before is called too.
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

/// Finds the root, makes it where this is the first backend, and attaches to the area. Guarded.
///
/// `ShmemInitStruct` after start-up takes from the slack that PostgreSQL leaves for it, so no preloading is needed, though it makes
/// sure of the room ([`reserve_root`]); all that can grow lives in a dynamic area, pinned so that it outlives the backend that made it.
pub fn attach_root<T>(init: impl FnOnce(&T, i32)) -> Result<&'static T> {
    // SAFETY: AddinShmemInitLock serialises the making of the struct; zeroed memory is a valid `Root<T>` (its parts are plain
    // numbers and locks, initialised here before the lock goes).
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
        // Where that failed for the one that made the struct, the next one does it.
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

/// [`error::catching`], in which segments are attached for nobody, and after which what failed to be is left to nobody.
fn as_owner<T>(body: impl FnOnce(Raw) -> T) -> Result<T> {
    let owner = compat::SegmentOwner::enter();
    let answer = error::catching(body);
    owner.leave(answer.is_err());
    answer
}

/// Allocates zeroed memory in the area. 53200 where there is none, or the system's own error where it refuses a new segment.
/// Call it without a lock held.
pub fn allocate(size: usize) -> Result<Offset> {
    // SAFETY: the area is attached. The flags make one failure a value; that of a new segment is an error all the same, raised
    // with the area's locks held, and caught here where they are released before anything is given back.
    let place = as_owner(|raw| unsafe {
        raw::dsa_allocate_extended(
            raw,
            AREA.get(),
            size,
            (pg_sys::DSA_ALLOC_HUGE | pg_sys::DSA_ALLOC_NO_OOM | pg_sys::DSA_ALLOC_ZERO) as _,
        )
    })?;
    if place == NOWHERE {
        return Err(
            Report::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of shared memory")
                .detail(format!("Failed on a request of {size} bytes for a background job."))
                .into(),
        );
    }
    Ok(place)
}

/// Allocates in the area without zeroing; an error jumps.
pub fn allocate_raw(raw: Raw<'_>, size: usize) -> Offset {
    // SAFETY: the area is attached; a failure raises.
    unsafe { raw::dsa_allocate_extended(raw, AREA.get(), size, pg_sys::DSA_ALLOC_HUGE as _) }
}

/// [`allocate`] without an error: None where there is no memory. Call it without a lock held.
pub fn try_allocate(size: usize) -> Option<Offset> {
    // SAFETY: as in `allocate`; the locks of the area go before anything else is done.
    let place = as_owner(|raw| unsafe {
        raw::dsa_allocate_extended(
            raw,
            AREA.get(),
            size,
            (pg_sys::DSA_ALLOC_HUGE | pg_sys::DSA_ALLOC_NO_OOM) as _,
        )
    });
    place.ok().filter(|place| *place != NOWHERE)
}

/// Gives a place back; nowhere is fine. Raises nothing: what cannot be given back, because this process can map no segment any
/// more, stays allocated. Call it without a lock held.
pub fn free(place: Offset) {
    if place != NOWHERE {
        // SAFETY: allocated in this area and referenced by nobody any more (the caller's promise).
        let _ = as_owner(|raw| unsafe { raw::dsa_free(raw, AREA.get(), place as dsa_pointer) });
    }
}

/// The address of a place that this process has mapped, by allocating it or by one of the functions below. What is mapped stays so as
/// long as the place is allocated, and then this raises nothing; where the segment has to be mapped first, it may.
pub fn address(place: Offset) -> *mut u8 {
    // SAFETY: the area is attached.
    unsafe { raw::dsa_get_address(AREA.get(), place as dsa_pointer).cast() }
}

/// [`address`] without an error: None where the segment cannot be mapped. May be called under a lock and while the process ends.
pub fn look_address(place: Offset) -> Option<*mut u8> {
    if place == NOWHERE {
        return None;
    }
    let owner = compat::SegmentOwner::enter();
    let address = error::quietly(|_| address(place));
    owner.leave(address.is_none());
    address
}

/// A value of the shared area at `place`, as [`look_address`].
pub fn look<T>(place: Offset) -> Option<&'static T> {
    // SAFETY: as in `at`.
    look_address(place).map(|address| unsafe { &*address.cast::<T>() })
}

/// The value that this process looked at last, of those at places that are never freed.
pub struct Last<T: 'static>(Cell<(Offset, Option<&'static T>)>);

impl<T> Last<T> {
    /// None yet.
    pub const fn new() -> Self {
        Self(Cell::new((NOWHERE, None)))
    }

    /// As [`look`].
    pub fn look(&self, place: Offset) -> Option<&'static T> {
        let (last, value) = self.0.get();
        if last == place {
            return value;
        }
        let value = look(place);
        if value.is_some() {
            self.0.set((place, value));
        }
        value
    }
}

/// Maps the segment of a place that is allocated. The system's own error where it refuses to: no file descriptor or address space
/// left. Call it without a lock held.
pub fn map(place: Offset) -> Result<()> {
    if place == NOWHERE || look_address(place).is_some() {
        return Ok(());
    }
    // Once more, for the words of the error.
    as_owner(|_| address(place)).map(drop).inspect_err(|failure| {
        // From version 17 on what failed to be attached once cannot be tried again in the same process: dsm.c says that it is attached.
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

/// The value at a place, mapped as by [`map`].
pub fn mapped<T>(place: Offset) -> Result<&'static T> {
    map(place)?;
    Ok(at(place))
}

/// `len` bytes at a place, mapped as by [`map`].
pub fn mapped_bytes<'a>(place: Offset, len: usize) -> Result<&'a [u8]> {
    map(place)?;
    Ok(bytes(place, len))
}

/// A value of the shared area at `place`. For places that this process has mapped, as [`address`] says.
pub fn at<T>(place: Offset) -> &'static T {
    // SAFETY: callers keep the place alive while they hold a reference; shared values hold only numbers, atomics and locks, so
    // any bit pattern that is found there is valid.
    unsafe { &*address(place).cast::<T>() }
}

/// `len` bytes at `place`.
pub fn bytes<'a>(place: Offset, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the place holds `len` bytes that nobody writes while they are read (the caller's promise).
    unsafe { core::slice::from_raw_parts(address(place), len) }
}

/// Writes `data` at `place`.
pub fn write(place: Offset, data: &[u8]) {
    // SAFETY: the place was allocated for at least as many bytes and nobody else sees it yet (the caller's promise).
    unsafe { ptr::copy_nonoverlapping(data.as_ptr(), address(place), data.len()) }
}

/// A copy of `data` in the area, nowhere if it is empty. Errors as [`allocate`].
pub fn store(data: &[u8]) -> Result<Offset> {
    if data.is_empty() {
        return Ok(NOWHERE);
    }
    let place = allocate(data.len())?;
    write(place, data);
    Ok(place)
}

/// The value `n` places after `first` in an array of the shared area.
pub fn neighbour<T>(first: &'static T, n: usize) -> &'static T {
    // SAFETY: callers stay within the block that `first` begins.
    unsafe { &*ptr::from_ref(first).add(n) }
}

/// What lies behind an array of `len` values that begins with `first`.
pub fn behind<T, U>(first: &'static T, len: usize) -> &'static U {
    // SAFETY: callers have allocated and zeroed it, and it is aligned as the values are; numbers, atomics and locks only.
    unsafe { &*ptr::from_ref(first).add(len).cast::<U>() }
}

/// Writes a value at `place`.
pub fn put<T: Copy>(place: Offset, value: T) {
    // SAFETY: the place was allocated for it, aligned, and nobody else sees it yet (the caller's promise).
    unsafe { address(place).cast::<T>().write(value) }
}

/// A place in the area that is given back unless somebody takes it over.
pub struct Owned(Offset);

impl Owned {
    /// Owns `place`.
    pub fn new(place: Offset) -> Self {
        Self(place)
    }

    /// The place.
    pub fn place(&self) -> Offset {
        self.0
    }

    /// Hands the place over.
    pub fn hand_over(mut self) -> Offset {
        core::mem::replace(&mut self.0, NOWHERE)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        free(self.0);
    }
}
