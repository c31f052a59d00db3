//! Rust's side of memory. Where an allocation there fails the process aborts, and with it the server: so room for what a
//! call may need is held back from its beginning, untouched, and given up when the system has no more.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::core::memory::OutOfMemory;
use crate::pg::error::PgError;

/// For everything that does not grow with an input: messages, keys, what the catalog says.
const LEAST: usize = 1 << 20;
/// Inputs from this size on are looked after.
const LARGE: usize = 64 << 10;
/// What a function may need for each byte of its inputs. Buffers beyond that are reserved fallibly where they are made.
const TIMES: usize = 2;

static ROOM: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// Calls that run, one inside the other.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// Bytes of their large inputs.
static INPUTS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator with that room behind it.
pub struct WithRoom;

// SAFETY: every block comes from the system's allocator and goes back there.
unsafe impl GlobalAlloc for WithRoom {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { or_with_room(|| System.alloc(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { or_with_room(|| System.alloc_zeroed(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

fn or_with_room(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let block = allocate();
    if block.is_null() && give_up() { allocate() } else { block }
}

fn give_up() -> bool {
    let start = ROOM.swap(null_mut(), Ordering::Relaxed);
    // SAFETY: whoever took the pointer has the mapping alone; nothing was ever put into it.
    !start.is_null() && unsafe { munmap(start.cast(), BYTES.load(Ordering::Relaxed)) }.is_ok()
}

/// Holds so many bytes back, or as many more as are held already.
fn hold(bytes: usize) -> Result<(), OutOfMemory> {
    if !ROOM.load(Ordering::Relaxed).is_null() {
        if BYTES.load(Ordering::Relaxed) >= bytes {
            return Ok(());
        }
        give_up();
    }
    // SAFETY: a new mapping, wherever the system has room.
    let room =
        unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
    BYTES.store(bytes, Ordering::Relaxed);
    ROOM.store(room.map_err(|_| OutOfMemory)?.cast(), Ordering::Relaxed);
    Ok(())
}

/// A call that runs, and the inputs of those around it. Its room ends with it.
pub struct Running(usize);

/// A call begins; an error where there is no room for the least that it needs.
pub fn begin() -> Running {
    if hold(LEAST).is_err() {
        PgError::from(OutOfMemory).raise();
    }
    RUNNING.fetch_add(1, Ordering::Relaxed);
    Running(INPUTS.load(Ordering::Relaxed))
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        if INPUTS.swap(self.0, Ordering::Relaxed) != self.0 && self.0 == 0 {
            give_up();
        }
    }
}

/// The running call has an input of so many bytes; an error where there is no room to work with it.
pub fn expect(bytes: usize) {
    if bytes < LARGE || RUNNING.load(Ordering::Relaxed) == 0 {
        return;
    }
    let inputs = INPUTS.fetch_add(bytes, Ordering::Relaxed) + bytes;
    if hold(LEAST + inputs.saturating_mul(TIMES)).is_err() {
        PgError::from(OutOfMemory).raise();
    }
}
