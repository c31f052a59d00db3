//! Whole pages that hold keys: out of swap and out of core dumps, as far as the system allows.

use rustix::mm::{Advice, madvise, mlock, munlock};

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

/// [`hold`] for the pages of a value that fills whole ones.
pub fn hold_value(start: *const u8, bytes: usize) {
    debug_assert!(start.addr().is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE));
    // SAFETY: the cache's keys are aligned to pages and fill them.
    unsafe { hold(start.cast_mut(), bytes) }
}

/// The opposite of [`hold_value`].
pub fn release_value(start: *const u8, bytes: usize) {
    // SAFETY: as above.
    unsafe { release(start.cast_mut(), bytes) }
}
