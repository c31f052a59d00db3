//! Whole pages that hold keys: out of swap and out of core dumps, as far as the system allows.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::mm::{Advice, madvise, mlock, munlock};
use rustix::process::{Resource, getrlimit};

use crate::core::held::Guard;

/// Bytes of a page. Where the system's are larger, both calls refuse an address between two of them and the pages
/// stay as they are.
pub const PAGE: usize = 4096;

/// Asks for both. A refusal (RLIMIT_MEMLOCK is often small) changes nothing else.
///
/// # Safety
/// These are whole pages of a mapping of this process.
pub unsafe fn hold(start: *mut u8, bytes: usize) {
    // SAFETY: neither call changes what the pages hold.
    unsafe {
        let _ = madvise(start.cast(), bytes, Advice::LinuxDontDump);
        let _ = mlock(start.cast(), bytes);
    }
}

/// Takes both back, before the pages are used for something else.
///
/// # Safety
/// As for [`hold`].
unsafe fn release(start: *mut u8, bytes: usize) {
    // SAFETY: neither call changes what the pages hold.
    unsafe {
        let _ = munlock(start.cast(), bytes);
        let _ = madvise(start.cast(), bytes, Advice::LinuxDoDump);
    }
}

/// For what is held on pages of its own.
pub const GUARD: Guard = Guard { hold: hold_value, release: release_value };

/// More bytes than a key has.
const LARGE: usize = 16 * PAGE;

/// Bytes of large values that are held.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// [`hold`] for the pages of a value that fills whole ones. Large ones, which are no keys, stay unlocked from where they
/// would take more than half of what the process may lock.
fn hold_value(start: *const u8, bytes: usize) {
    debug_assert!(start.addr().is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE));
    let start = start.cast_mut();
    let large = if bytes > LARGE { HELD.fetch_add(bytes, Ordering::Relaxed) + bytes } else { 0 };
    // SAFETY: the callers' values are aligned to pages and fill them.
    unsafe {
        if large as u64 > getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX) / 2 {
            let _ = madvise(start.cast(), bytes, Advice::LinuxDontDump);
        } else {
            hold(start, bytes);
        }
    }
}

/// The opposite of [`hold_value`].
fn release_value(start: *const u8, bytes: usize) {
    if bytes > LARGE {
        HELD.fetch_sub(bytes, Ordering::Relaxed);
    }
    // SAFETY: as above.
    unsafe { release(start.cast_mut(), bytes) }
}
