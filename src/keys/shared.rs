//! Unwrapped keys that the sessions of one server share: a fixed number of slots in memory that is theirs in
//! common. Where and under which lock they lie is the caller's.

use std::time::Duration;

use zeroize::Zeroize;

use super::context::Purpose;
use crate::core::kdf::Commitment;
use crate::core::secret::RootKey;

/// Slots that one key may lie in; the oldest of them gives way.
pub const WAYS: usize = 8;

/// Which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId {
    /// Oid of the database; keyrings of two databases may have one number.
    pub database: u32,
    /// Number of the keyring.
    pub keyring: i32,
    /// Data or index key.
    pub purpose: Purpose,
    /// Version of the key.
    pub version: u16,
}

/// A place for one key. All zero is an empty one.
#[repr(C)]
pub struct Slot {
    /// Microseconds on the clock of [`super::cache::Clock`] when the KMS was asked for it; 0 where the slot is empty.
    unwrapped: u64,
    database: u32,
    keyring: i32,
    version: u16,
    purpose: u16,
    padding: u32,
    commitment: Commitment,
    root: [u8; 32],
}

impl Slot {
    /// No key lies here.
    pub const EMPTY: Slot = Slot {
        unwrapped: 0,
        database: 0,
        keyring: 0,
        version: 0,
        purpose: 0,
        padding: 0,
        commitment: [0; 32],
        root: [0; 32],
    };

    fn is_empty(&self) -> bool {
        self.unwrapped == 0
    }

    fn holds(&self, id: &KeyId) -> bool {
        let here = (self.database, self.keyring, self.purpose, self.version);
        !self.is_empty() && here == (id.database, id.keyring, id.purpose as u16, id.version)
    }

    fn clear(&mut self) {
        self.root.zeroize();
        *self = Slot::EMPTY;
    }

    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_micros(self.unwrapped))
    }
}

/// A root key that was unwrapped less than `ttl` ago, and when. The commitment ties it to the catalog's row.
pub fn find(
    slots: &[Slot],
    id: &KeyId,
    commitment: &Commitment,
    now: Duration,
    ttl: Duration,
) -> Option<(RootKey, Duration)> {
    let slot = slots.get(ways(slots, id))?.iter().find(|slot| slot.holds(id))?;
    if slot.commitment != *commitment || slot.age(now) >= ttl {
        return None;
    }
    Some((RootKey::from_slice(&slot.root)?, Duration::from_micros(slot.unwrapped)))
}

/// Keeps a root key that the KMS was asked for at `unwrapped`.
pub fn put(slots: &mut [Slot], id: &KeyId, commitment: &Commitment, root: &RootKey, unwrapped: Duration) {
    let ways = ways(slots, id);
    let Some(bucket) = slots.get_mut(ways) else { return };
    let place = bucket.iter().position(|slot| slot.holds(id));
    let oldest = || (0..bucket.len()).min_by_key(|at| bucket[*at].unwrapped);
    let Some(place) = place.or_else(oldest) else { return };
    bucket[place].clear();
    bucket[place] = Slot {
        unwrapped: (unwrapped.as_micros() as u64).max(1),
        database: id.database,
        keyring: id.keyring,
        version: id.version,
        purpose: id.purpose as u16,
        padding: 0,
        commitment: *commitment,
        // The slot is locked memory and wiped when it is let go.
        root: *root.expose(),
    };
}

/// Wipes the keys of all keyrings of the database, or those of one that have this purpose.
pub fn forget(slots: &mut [Slot], database: u32, of: Option<(i32, Purpose)>) {
    let is_of = |slot: &Slot| {
        of.is_none_or(|(keyring, purpose)| slot.keyring == keyring && slot.purpose == purpose as u16)
    };
    let ours = |slot: &&mut Slot| slot.database == database && is_of(slot);
    slots.iter_mut().filter(ours).for_each(Slot::clear);
}

/// Wipes what is older than `ttl`; the age of the oldest key that stays.
pub fn expire(slots: &mut [Slot], now: Duration, ttl: Duration) -> Option<Duration> {
    let old = |slot: &&mut Slot| !slot.is_empty() && slot.age(now) >= ttl;
    slots.iter_mut().filter(old).for_each(Slot::clear);
    slots.iter().filter(|slot| !slot.is_empty()).map(|slot| slot.age(now)).max()
}

/// Keys held now.
pub fn held(slots: &[Slot]) -> usize {
    slots.iter().filter(|slot| !slot.is_empty()).count()
}

/// Where a key may lie.
fn ways(slots: &[Slot], id: &KeyId) -> std::ops::Range<usize> {
    let buckets = slots.len() / WAYS;
    let mixed = (id.keyring as u64)
        .wrapping_add(u64::from(id.database) << 32)
        .wrapping_add(u64::from(id.version) << 8)
        .wrapping_add(id.purpose as u64)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let bucket = (mixed >> 32) as usize % buckets.max(1);
    bucket * WAYS..(bucket + 1) * WAYS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rng;
    use static_assertions::assert_not_impl_any;
    use std::fmt::{Debug, Display};

    assert_not_impl_any!(Slot: Debug, Display, Clone, PartialEq, serde::Serialize);

    const TTL: Duration = Duration::from_secs(300);
    const START: Duration = Duration::from_secs(1000);
    const COMMITMENT: Commitment = [7; 32];

    fn slots(number: usize) -> Vec<Slot> {
        (0..number).map(|_| Slot::EMPTY).collect()
    }

    fn id(keyring: i32, version: u16) -> KeyId {
        KeyId { database: 5, keyring, purpose: Purpose::Data, version }
    }

    fn finds(slots: &[Slot], id: &KeyId, now: Duration) -> bool {
        find(slots, id, &COMMITMENT, now, TTL).is_some()
    }

    #[test]
    fn a_key_comes_back_with_the_time_it_was_unwrapped_at() {
        let mut slots = slots(64);
        let root = rng::root_key().unwrap();
        put(&mut slots, &id(1, 1), &COMMITMENT, &root, START);
        let (found, since) = find(&slots, &id(1, 1), &COMMITMENT, START, TTL).unwrap();
        assert_eq!((found.expose(), since), (root.expose(), START));
    }

    #[test]
    fn only_the_very_key_is_found() {
        let mut slots = slots(64);
        put(&mut slots, &id(1, 1), &COMMITMENT, &rng::root_key().unwrap(), START);
        assert!(!finds(&slots, &id(1, 2), START));
        assert!(!finds(&slots, &id(2, 1), START));
        assert!(!finds(&slots, &KeyId { database: 6, ..id(1, 1) }, START));
        assert!(!finds(&slots, &KeyId { purpose: Purpose::Index, ..id(1, 1) }, START));
        assert!(find(&slots, &id(1, 1), &[8; 32], START, TTL).is_none(), "another commitment");
    }

    #[test]
    fn a_key_is_not_found_after_its_time_and_then_wiped() {
        let mut slots = slots(64);
        put(&mut slots, &id(1, 1), &COMMITMENT, &rng::root_key().unwrap(), START);
        let late = START + TTL;
        assert!(finds(&slots, &id(1, 1), late - Duration::from_secs(1)));
        assert!(!finds(&slots, &id(1, 1), late));
        assert_eq!(
            expire(&mut slots, late - Duration::from_secs(1), TTL),
            Some(TTL - Duration::from_secs(1))
        );
        assert_eq!(held(&slots), 1);
        assert_eq!(expire(&mut slots, late, TTL), None);
        assert!(slots.iter().all(|slot| slot.root == [0; 32] && slot.commitment == [0; 32]));
    }

    #[test]
    fn forgetting_takes_one_purpose_or_one_database() {
        let mut slots = slots(64);
        let elsewhere = KeyId { database: 6, ..id(1, 1) };
        for id in [id(1, 1), id(2, 1), elsewhere] {
            put(&mut slots, &id, &COMMITMENT, &rng::root_key().unwrap(), START);
        }
        forget(&mut slots, 5, Some((1, Purpose::Index)));
        assert!(finds(&slots, &id(1, 1), START));
        forget(&mut slots, 5, Some((1, Purpose::Data)));
        assert_eq!([id(1, 1), id(2, 1), elsewhere].map(|id| finds(&slots, &id, START)), [false, true, true]);
        forget(&mut slots, 5, None);
        assert_eq!([id(1, 1), id(2, 1), elsewhere].map(|id| finds(&slots, &id, START)), [false, false, true]);
    }

    #[test]
    fn a_slot_is_as_large_as_the_setting_says() {
        assert_eq!(size_of::<Slot>(), 88);
    }

    #[test]
    fn keys_beyond_the_slots_take_no_memory_and_the_newest_stays() {
        let mut slots = slots(16);
        for number in 1..=1000 {
            let now = START + Duration::from_millis(number as u64);
            put(&mut slots, &id(number, 1), &COMMITMENT, &rng::root_key().unwrap(), now);
            assert!(finds(&slots, &id(number, 1), now));
        }
        assert_eq!(held(&slots), 16);
    }

    #[test]
    fn a_key_that_is_unwrapped_again_takes_one_slot() {
        let mut slots = slots(64);
        for second in 0..5 {
            put(&mut slots, &id(1, 1), &COMMITMENT, &RootKey::zeroed(), START + Duration::from_secs(second));
        }
        assert_eq!(held(&slots), 1);
    }
}
