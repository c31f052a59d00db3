//! Plaintexts of one sort, each under a number that stands for it: equal ones share one. Each is opened once.
//!
//! A sort keeps so many bytes of values in memory at most, and writes them all out when there are more. So once it has been
//! handed more than that, nothing is in its memory any more of what came before: those plaintexts go, but for what has come
//! again since. As long as a sort stays in memory, every number stays.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::memory::OutOfMemory;
use super::recent::BySealed;

/// Stands for what has no number, since there was no room for it.
pub const NONE: u64 = u64::MAX;

/// Memory for a plaintext beside its bytes, and for each value that has it.
const ENTRY: usize = 96;
/// What is held may take so many times as much as the sort itself.
const TIMES: usize = 2;

/// The hash is the key already.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The end of a value's sealed bytes, and how many they are. Only values that have authenticated come here, and no two of
/// those share a tag.
type End = [u8; 24];

fn end_of(sealed: &[u8]) -> End {
    let mut end = End::default();
    let tag = sealed.last_chunk::<16>().map_or(sealed, |tag| tag);
    end[..tag.len()].copy_from_slice(tag);
    end[16..].copy_from_slice(&(sealed.len() as u64).to_ne_bytes());
    end
}

/// What has come since the sort's memory was last full.
#[derive(Default)]
struct Generation {
    by_hash: HashMap<u64, u64, BuildHasherDefault<Itself>>,
    by_end: BySealed<End, u64>,
}

struct Slot<P> {
    plain: P,
    /// The one that it last came in.
    generation: u64,
}

/// See the module.
pub struct Numbered<P> {
    /// Bytes of values that the sort keeps in memory, at most.
    sort: usize,
    /// Bytes that it was handed in this generation.
    handed: usize,
    /// Bytes that are held of this generation.
    held: usize,
    generation: u64,
    now: Generation,
    before: Generation,
    /// Number of the first slot.
    first: u64,
    slots: VecDeque<Option<Slot<P>>>,
}

impl<P> Numbered<P> {
    /// For a sort that keeps so many bytes of values in memory, at most.
    pub fn new(sort: usize) -> Self {
        Numbered {
            sort,
            handed: 0,
            held: 0,
            generation: 1,
            now: Generation::default(),
            before: Generation::default(),
            first: 0,
            slots: VecDeque::new(),
        }
    }

    /// The number of a value that the sort is handed: of its plaintext of so many bytes, whose `hash` equal ones share.
    pub fn number(
        &mut self,
        sealed: &[u8],
        (plain, bytes): (P, usize),
        hash: u64,
        equal: impl Fn(&P, &P) -> bool,
    ) -> Result<u64, OutOfMemory> {
        self.handed += sealed.len();
        if self.handed > self.sort {
            self.next_generation();
            self.handed = sealed.len();
        }
        let known = self.now.by_hash.get(&hash).or_else(|| self.before.by_hash.get(&hash)).copied();
        let known = known.filter(|number| self.plain(*number).is_some());
        if let Some(number) = known {
            // Others have the same hash by chance only, or are made to.
            if !self.plain(number).is_some_and(|known| equal(known, &plain)) {
                return Ok(NONE);
            }
            return self.again(sealed, number, bytes, hash);
        }
        if self.held + bytes + 2 * ENTRY > TIMES * self.sort {
            return Ok(NONE);
        }
        self.slots.try_reserve(1).map_err(|_| OutOfMemory)?;
        let number = self.first + self.slots.len() as u64;
        self.slots.push_back(Some(Slot { plain, generation: self.generation }));
        self.note(sealed, number, bytes + ENTRY, hash)?;
        Ok(number)
    }

    fn again(&mut self, sealed: &[u8], number: u64, bytes: usize, hash: u64) -> Result<u64, OutOfMemory> {
        let generation = self.generation;
        let slot = self.slot(number).and_then(|at| self.slots.get_mut(at)).and_then(Option::as_mut);
        let came = slot.map_or(generation, |slot| std::mem::replace(&mut slot.generation, generation));
        let taken = if came == generation { 0 } else { bytes + ENTRY };
        if self.held + taken + ENTRY <= TIMES * self.sort {
            self.note(sealed, number, taken, hash)?;
        }
        Ok(number)
    }

    fn note(&mut self, sealed: &[u8], number: u64, taken: usize, hash: u64) -> Result<(), OutOfMemory> {
        self.now.by_hash.try_reserve(1).map_err(|_| OutOfMemory)?;
        self.now.by_end.try_reserve(1).map_err(|_| OutOfMemory)?;
        self.now.by_hash.insert(hash, number);
        self.now.by_end.insert(end_of(sealed), number);
        self.held += taken + ENTRY;
        Ok(())
    }

    fn next_generation(&mut self) {
        self.before = std::mem::take(&mut self.now);
        let kept = self.generation;
        self.generation += 1;
        self.held = 0;
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|slot| slot.generation < kept) {
                *slot = None;
            }
        }
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
    }

    fn slot(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// The plaintext of a number.
    pub fn plain(&self, number: u64) -> Option<&P> {
        Some(&self.slots.get(self.slot(number)?)?.as_ref()?.plain)
    }

    /// The plaintext of a value that the sort was handed.
    pub fn of(&self, sealed: &[u8]) -> Option<&P> {
        let end = end_of(sealed);
        let number = self.now.by_end.get(&end).or_else(|| self.before.by_end.get(&end))?;
        self.plain(*number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::rc::Rc;

    use super::*;

    const SEALED: usize = 100;

    fn sealed(number: u64) -> Vec<u8> {
        [&[7; SEALED - 8][..], &number.to_be_bytes()].concat()
    }

    fn add(numbered: &mut Numbered<Rc<u64>>, sealed_as: u64, plain: u64) -> u64 {
        numbered.number(&sealed(sealed_as), (Rc::new(plain), 50), plain / 2, |a, b| a == b).unwrap()
    }

    #[test]
    fn equal_plaintexts_share_a_number_and_others_do_not() {
        let mut numbered = Numbered::new(1 << 20);
        let (a, b) = (add(&mut numbered, 1, 10), add(&mut numbered, 2, 20));
        assert_ne!(a, b);
        assert_eq!((add(&mut numbered, 3, 10), add(&mut numbered, 2, 20)), (a, b));
        assert_eq!(numbered.plain(a).map(|plain| **plain), Some(10));
        assert_eq!(numbered.of(&sealed(3)).map(|plain| **plain), Some(10));
        assert!(numbered.of(&sealed(4)).is_none() && numbered.plain(NONE).is_none());
    }

    #[test]
    fn one_of_the_same_hash_has_no_number() {
        let mut numbered = Numbered::new(1 << 20);
        let a = add(&mut numbered, 1, 10);
        assert_eq!((add(&mut numbered, 2, 11), add(&mut numbered, 3, 11)), (NONE, NONE));
        assert_eq!(add(&mut numbered, 4, 10), a);
        assert!(numbered.of(&sealed(2)).is_none());
    }

    #[test]
    fn numbers_stay_as_long_as_the_sort_fits_into_memory() {
        let count = 1000;
        let mut numbered = Numbered::new(count as usize * SEALED);
        let given: Vec<u64> = (0..count).map(|at| add(&mut numbered, at, 2 * (at % 300))).collect();
        for (at, number) in given.iter().enumerate() {
            assert_eq!(*number, given[at % 300]);
            assert_eq!(numbered.plain(*number).map(|plain| **plain), Some(2 * (at as u64 % 300)));
            assert!(numbered.of(&sealed(at as u64)).is_some());
        }
    }

    #[test]
    fn what_the_sort_has_written_out_goes() {
        let mut numbered = Numbered::new(100 * SEALED);
        for at in 0..10_000 {
            let number = add(&mut numbered, at, 2 * at);
            let again = add(&mut numbered, 1 << 40, 2 << 40);
            assert_eq!(again, 1);
            assert_ne!(number, NONE);
            // What came last is known, whatever has gone.
            for back in 0..at.min(40) {
                assert_eq!(numbered.of(&sealed(at - back)).map(|plain| **plain), Some(2 * (at - back)));
            }
            let held = numbered.slots.iter().flatten().count();
            assert!(held <= 250, "{held}");
        }
        assert!(numbered.of(&sealed(1)).is_none() && numbered.plain(0).is_none());
    }

    #[test]
    fn large_plaintexts_are_held_up_to_a_bound() {
        let mut numbered = Numbered::new(1000);
        let mut large =
            |at: u64| numbered.number(&[at as u8; 16], (Rc::new(at), 900), at, |a, b| a == b).unwrap();
        assert_eq!((large(1), large(2), large(3), large(1)), (0, NONE, NONE, 0));
    }
}
