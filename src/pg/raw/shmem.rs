//! The memory that all sessions share where the library is preloaded: the slots of `keys::shared`, under one lock,
//! on pages of their own that are kept out of swap and core dumps as far as the system allows.

use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use pgrx::{pg_guard, pg_sys};

use super::hook::Previous;
use super::locked_memory::{self, PAGE};
use crate::keys::shared::Slot;

/// At the start of the area.
#[repr(C)]
struct Header {
    /// Goes up whenever keys were flushed.
    epoch: AtomicU64,
}

static PREVIOUS_REQUEST: Previous<pg_sys::shmem_request_hook_type> = Previous::empty();
static PREVIOUS_STARTUP: Previous<pg_sys::shmem_startup_hook_type> = Previous::empty();
static SLOTS: AtomicUsize = AtomicUsize::new(0);
static AREA: AtomicPtr<Header> = AtomicPtr::new(std::ptr::null_mut());
static LOCK: AtomicPtr<pg_sys::LWLock> = AtomicPtr::new(std::ptr::null_mut());

const NAME: &std::ffi::CStr = c"pgseal keys";

/// Asks for room for so many slots, from `_PG_init`; without effect unless the library is being preloaded.
pub fn request(slots: usize) {
    // SAFETY: the hooks are set in the postmaster before it makes its shared memory.
    unsafe {
        if !pg_sys::process_shared_preload_libraries_in_progress || slots == 0 {
            return;
        }
        SLOTS.store(slots, Ordering::Relaxed);
        PREVIOUS_REQUEST.install(&raw mut pg_sys::shmem_request_hook, on_request);
        PREVIOUS_STARTUP.install(&raw mut pg_sys::shmem_startup_hook, on_startup);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_request() {
    // SAFETY: the previous hook has the same contract; PostgreSQL allows these requests here.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST.next() {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(bytes() + PAGE);
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), 1);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_startup() {
    // SAFETY: the area is as large as was asked for, so that a whole number of pages lies inside it; it is zeroed when
    // it is made, which is an empty header and empty slots. It stays mapped as long as the server runs.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP.next() {
            previous();
        }
        let mut found = false;
        let area = pg_sys::ShmemInitStruct(NAME.as_ptr(), bytes() + PAGE, &mut found).cast::<u8>();
        let start = area.add(area.align_offset(PAGE));
        if !found {
            std::ptr::write_bytes(start, 0, bytes());
        }
        locked_memory::hold(start, bytes());
        AREA.store(start.cast(), Ordering::Release);
        LOCK.store(&raw mut (*pg_sys::GetNamedLWLockTranche(NAME.as_ptr())).lock, Ordering::Release);
    }
}

/// The header has a page of its own; whole pages.
fn bytes() -> usize {
    PAGE + (SLOTS.load(Ordering::Relaxed) * size_of::<Slot>()).next_multiple_of(PAGE)
}

/// Is there shared memory?
pub fn is_there() -> bool {
    !LOCK.load(Ordering::Acquire).is_null()
}

/// How often keys have been flushed; 0 without shared memory.
pub fn epoch() -> u64 {
    // SAFETY: NULL or the header of the area.
    unsafe { AREA.load(Ordering::Acquire).as_ref() }.map_or(0, |header| header.epoch.load(Ordering::Acquire))
}

/// Has every session drop its keys.
pub fn next_epoch() {
    // SAFETY: as above.
    if let Some(header) = unsafe { AREA.load(Ordering::Acquire).as_ref() } {
        header.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

/// Reads the slots; `None` without shared memory. `work` must not raise.
pub fn read<R>(work: impl FnOnce(&[Slot]) -> R) -> Option<R> {
    locked(pg_sys::LWLockMode::LW_SHARED, |first, number| {
        // SAFETY: nobody writes while the lock is shared; every bit pattern is a slot.
        work(unsafe { std::slice::from_raw_parts(first, number) })
    })
}

/// Changes the slots; `None` without shared memory. `work` must not raise.
pub fn write<R>(work: impl FnOnce(&mut [Slot]) -> R) -> Option<R> {
    locked(pg_sys::LWLockMode::LW_EXCLUSIVE, |first, number| {
        // SAFETY: nobody else reads or writes while the lock is exclusive; every bit pattern is a slot.
        work(unsafe { std::slice::from_raw_parts_mut(first, number) })
    })
}

fn locked<R>(mode: pg_sys::LWLockMode::Type, work: impl FnOnce(*mut Slot, usize) -> R) -> Option<R> {
    let lock = LOCK.load(Ordering::Acquire);
    let area = AREA.load(Ordering::Acquire);
    if lock.is_null() {
        return None;
    }
    // SAFETY: the slots begin at the area's second page. An error would release the lock with the transaction.
    unsafe {
        pg_sys::LWLockAcquire(lock, mode);
        let done = work(area.cast::<u8>().add(PAGE).cast(), SLOTS.load(Ordering::Relaxed));
        pg_sys::LWLockRelease(lock);
        Some(done)
    }
}
