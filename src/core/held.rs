//! Secrets on memory pages of their own, which are kept out of swap and core dumps and wiped when they are dropped.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use zeroize::Zeroize;

use super::memory::{self, OutOfMemory};

/// Bytes of a page of memory.
const PAGE: usize = 4096;

/// What keeps memory out of swap and core dumps, and takes that back: start and number of bytes, whole pages. This module
/// has no unsafe code.
#[derive(Clone, Copy)]
pub struct Guard {
    /// Before there is a secret in it.
    pub hold: fn(*const u8, usize),
    /// Before it is given back.
    pub release: fn(*const u8, usize),
}

impl Guard {
    /// Keeps nothing out of anything.
    pub const NONE: Guard = Guard { hold: |_, _| (), release: |_, _| () };
}

/// Memory of whole pages.
#[repr(align(4096))]
struct Page<K>(K);

/// A key on pages of its own.
pub struct Held<K> {
    page: Box<Page<K>>,
    guard: Guard,
}

impl<K> Held<K> {
    /// Takes a key, which wipes itself when it is dropped.
    pub fn new(key: K, guard: Guard) -> Rc<Self> {
        let page = Box::new(Page(key));
        (guard.hold)((&raw const *page).cast(), size_of::<Page<K>>());
        Rc::new(Held { page, guard })
    }
}

impl<K> Deref for Held<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.page.0
    }
}

impl<K> Drop for Held<K> {
    /// The key wipes itself right after this.
    fn drop(&mut self) {
        (self.guard.release)((&raw const *self.page).cast(), size_of::<Page<K>>());
    }
}

/// Secret numbers on pages of their own.
pub struct HeldNumbers {
    /// With a page more than is needed, so that whole pages can be found in it.
    all: Vec<f32>,
    start: usize,
    length: usize,
    guard: Guard,
}

impl HeldNumbers {
    /// So many zeros.
    pub fn zeroed(length: usize, guard: Guard) -> Result<Self, OutOfMemory> {
        let of_page = PAGE / size_of::<f32>();
        let room = (length.div_ceil(of_page) + 1).checked_mul(of_page).ok_or(OutOfMemory)?;
        let mut all = memory::room(room)?;
        all.resize(room, 0.0);
        let start = all.as_ptr().align_offset(PAGE).min(of_page);
        let held = HeldNumbers { all, start, length, guard };
        let (first, bytes) = held.pages();
        (guard.hold)(first, bytes);
        Ok(held)
    }

    /// The same numbers, held.
    pub fn copy(numbers: &[f32], guard: Guard) -> Result<Self, OutOfMemory> {
        let mut held = Self::zeroed(numbers.len(), guard)?;
        held.copy_from_slice(numbers);
        Ok(held)
    }

    fn pages(&self) -> (*const u8, usize) {
        let bytes = (self.length * size_of::<f32>()).next_multiple_of(PAGE);
        ((&raw const self.all[self.start]).cast(), bytes)
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.pages().1
    }
}

impl Deref for HeldNumbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.all[self.start..self.start + self.length]
    }
}

impl DerefMut for HeldNumbers {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.all[self.start..self.start + self.length]
    }
}

impl Drop for HeldNumbers {
    fn drop(&mut self) {
        self.all.as_mut_slice().zeroize();
        let (first, bytes) = self.pages();
        (self.guard.release)(first, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    }

    #[test]
    fn numbers_fill_whole_pages_until_they_are_dropped() {
        let guard = Guard {
            hold: |start, bytes| HELD.set((start.addr(), bytes)),
            release: |start, bytes| assert_eq!(HELD.replace((0, 0)), (start.addr(), bytes)),
        };
        for length in [0, 1, 1023, 1024, 1025, 5000] {
            let mut held = HeldNumbers::zeroed(length, guard).unwrap();
            let (start, bytes) = HELD.get();
            assert!(start.is_multiple_of(PAGE) && bytes == (4 * length).next_multiple_of(PAGE));
            assert_eq!((held.as_ptr().addr(), held.len(), held.bytes()), (start, length, bytes));
            held.fill(1.0);
            drop(held);
            assert_eq!(HELD.get(), (0, 0));
        }
        assert!(HeldNumbers::zeroed(usize::MAX / 2, Guard::NONE).is_err());
    }
}
