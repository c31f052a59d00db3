//! What is known of values that were looked at lately, by their sealed bytes. Where there is no more room for new ones, those
//! go that nobody has asked for since it was so the last time.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::memory::{self, OutOfMemory};

/// Memory for an entry beside its bytes.
const ENTRY: usize = 96;

/// Hashes sealed bytes by their end, which no two values share but by forgery: a tag, or the number of a value stored out of
/// line. All bytes are compared.
#[derive(Default)]
pub struct ByEnd(u64);

impl Hasher for ByEnd {
    fn write(&mut self, bytes: &[u8]) {
        let (rest, end) =
            bytes.split_last_chunk::<8>().map_or((bytes, 0), |(rest, end)| (rest, u64::from_ne_bytes(*end)));
        let before = rest.split_last_chunk::<8>().map_or(0, |(_, before)| u64::from_ne_bytes(*before));
        self.0 ^= end ^ before.rotate_left(32);
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        let wide = u128::from(self.0) * 0x9E37_79B9_7F4A_7C15;
        (wide >> 64) as u64 ^ wide as u64
    }
}

/// A map by sealed bytes.
pub type BySealed<K, V> = HashMap<K, V, BuildHasherDefault<ByEnd>>;

type Found<V> = BySealed<Vec<u8>, (V, usize)>;

/// Bounded: what it holds is wiped, as far as it wipes itself, when it goes.
pub struct Recent<V> {
    /// Bytes that either half may take.
    half: usize,
    /// Bytes that the newer one takes.
    bytes: usize,
    new: Found<V>,
    old: Found<V>,
}

impl<V> Recent<V> {
    /// With room for about so many bytes.
    pub fn new(limit: usize) -> Self {
        Recent { half: limit / 2, bytes: 0, new: Found::default(), old: Found::default() }
    }

    /// What is known of a value.
    pub fn get(&mut self, sealed: &[u8]) -> Result<Option<&V>, OutOfMemory> {
        if let Some((sealed, (value, bytes))) = self.old.remove_entry(sealed) {
            self.insert(sealed, value, bytes)?;
        }
        Ok(self.new.get(sealed).map(|(value, _)| value))
    }

    /// Keeps what is known of a value, which takes so many bytes.
    pub fn put(&mut self, sealed: &[u8], value: V, bytes: usize) -> Result<(), OutOfMemory> {
        self.insert(memory::copy(sealed)?, value, bytes + sealed.len() + ENTRY)
    }

    fn insert(&mut self, sealed: Vec<u8>, value: V, bytes: usize) -> Result<(), OutOfMemory> {
        if self.bytes + bytes > self.half {
            self.old = std::mem::take(&mut self.new);
            self.bytes = 0;
        }
        self.new.try_reserve(1).map_err(|_| OutOfMemory)?;
        self.bytes += bytes;
        self.new.insert(sealed, (value, bytes));
        Ok(())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.new.clear();
        self.old.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::rc::Rc;

    use super::*;

    fn sealed(number: u64) -> Vec<u8> {
        [&[7; 300][..], &number.to_be_bytes()].concat()
    }

    #[test]
    fn what_is_asked_for_again_stays_and_the_rest_goes() {
        let mut recent = Recent::new(100_000);
        for number in 0..10_000 {
            recent.put(&sealed(number), number, 8).unwrap();
            assert_eq!(recent.get(&sealed(0)).unwrap(), Some(&0), "{number}");
            assert_eq!(recent.get(&sealed(number)).unwrap(), Some(&number));
            assert!(recent.new.len() + recent.old.len() < 100_000 / 400);
        }
        assert_eq!(recent.get(&sealed(1)).unwrap(), None);
        recent.clear();
        assert_eq!(recent.get(&sealed(0)).unwrap(), None);
    }

    #[test]
    fn values_that_end_alike_are_told_apart() {
        let mut recent = Recent::new(100_000);
        let values = [
            &b""[..],
            b"a",
            b"xxxxxxxx",
            b"axxxxxxxx",
            b"bxxxxxxxx",
            b"ayyyyyyyyxxxxxxxx",
            b"byyyyyyyyxxxxxxxx",
        ];
        for (number, value) in values.iter().enumerate() {
            assert_eq!(recent.get(value).unwrap(), None);
            recent.put(value, number, 0).unwrap();
        }
        for (number, value) in values.iter().enumerate() {
            assert_eq!(recent.get(value).unwrap(), Some(&number));
        }
    }

    #[test]
    fn what_goes_is_dropped() {
        let value = Rc::new(());
        let mut recent = Recent::new(1000);
        for number in 0..20 {
            recent.put(&sealed(number), value.clone(), 0).unwrap();
        }
        assert_eq!(Rc::strong_count(&value), 1 + recent.new.len() + recent.old.len());
        assert!(recent.new.len() + recent.old.len() <= 3);
        drop(recent);
        assert_eq!(Rc::strong_count(&value), 1);
    }
}
