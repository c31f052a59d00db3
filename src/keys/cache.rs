//! Unwrapped keys of one process, each gone a fixed time after it was unwrapped, used or not.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::core::kdf::{DataKey, IndexKey};

/// How long a denial is remembered, so that a revoked key costs no KMS call per row or statement.
pub const DENIAL_MEMORY: Duration = Duration::from_secs(5);

/// Where the time comes from; tests inject their own.
pub trait Clock {
    /// A time that never goes backwards.
    fn now(&self) -> Instant;
}

/// The system's monotonic clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A keyring's key version.
pub type KeyVersion = (i32, u16);

struct Entry<K> {
    key: Rc<K>,
    unwrapped: Instant,
}

/// The keys of one purpose.
struct Shelf<K>(BTreeMap<KeyVersion, Entry<K>>);

/// The cache. Dropping an entry wipes the key as soon as nobody is using it.
pub struct Cache<C> {
    clock: C,
    data: Shelf<DataKey>,
    index: Shelf<IndexKey>,
    denied: BTreeMap<i32, Instant>,
}

impl<K> Shelf<K> {
    fn get(&self, id: KeyVersion, now: Instant, ttl: Duration) -> Option<Rc<K>> {
        let entry = self.0.get(&id)?;
        (now.duration_since(entry.unwrapped) < ttl).then(|| entry.key.clone())
    }

    fn expire(&mut self, now: Instant, ttl: Duration) {
        self.0.retain(|_, entry| now.duration_since(entry.unwrapped) < ttl);
    }
}

impl<C: Clock> Cache<C> {
    /// An empty cache.
    pub fn new(clock: C) -> Self {
        Cache { clock, data: Shelf(BTreeMap::new()), index: Shelf(BTreeMap::new()), denied: BTreeMap::new() }
    }

    /// A data key that was unwrapped less than `ttl` ago.
    pub fn data(&mut self, id: KeyVersion, ttl: Duration) -> Option<Rc<DataKey>> {
        let found = self.data.get(id, self.clock.now(), ttl);
        self.expire_on_miss(found, ttl)
    }

    /// An index key that was unwrapped less than `ttl` ago.
    pub fn index(&mut self, id: KeyVersion, ttl: Duration) -> Option<Rc<IndexKey>> {
        let found = self.index.get(id, self.clock.now(), ttl);
        self.expire_on_miss(found, ttl)
    }

    /// A miss is when a KMS call is due: no key outlives its time because nobody asks for it.
    fn expire_on_miss<K>(&mut self, found: Option<Rc<K>>, ttl: Duration) -> Option<Rc<K>> {
        if found.is_none() {
            self.expire(ttl);
        }
        found
    }

    /// The time to hand to [`Cache::put_data`] or [`Cache::put_index`]: taken before the KMS is asked.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Keeps a data key that the KMS was asked for at `unwrapped`.
    pub fn put_data(&mut self, id: KeyVersion, key: DataKey, unwrapped: Instant) -> Rc<DataKey> {
        let entry = Entry { key: Rc::new(key), unwrapped };
        let key = entry.key.clone();
        self.data.0.insert(id, entry);
        key
    }

    /// Keeps an index key that the KMS was asked for at `unwrapped`.
    pub fn put_index(&mut self, id: KeyVersion, key: IndexKey, unwrapped: Instant) -> Rc<IndexKey> {
        let entry = Entry { key: Rc::new(key), unwrapped };
        let key = entry.key.clone();
        self.index.0.insert(id, entry);
        key
    }

    /// The KMS refused this keyring: forget its keys at once and remember the refusal for a moment.
    pub fn deny(&mut self, keyring: i32) {
        self.forget(keyring);
        self.denied.insert(keyring, self.clock.now());
    }

    /// The KMS refused this keyring less than [`DENIAL_MEMORY`] ago.
    pub fn is_denied(&mut self, keyring: i32) -> bool {
        let now = self.clock.now();
        self.denied.retain(|_, since| now.duration_since(*since) < DENIAL_MEMORY);
        self.denied.contains_key(&keyring)
    }

    /// Drops the keys of one keyring.
    pub fn forget(&mut self, keyring: i32) {
        self.data.0.retain(|id, _| id.0 != keyring);
        self.index.0.retain(|id, _| id.0 != keyring);
    }

    /// Drops everything, refusals included.
    pub fn clear(&mut self) {
        self.data.0.clear();
        self.index.0.clear();
        self.denied.clear();
    }

    /// Drops whatever is older than `ttl`.
    pub fn expire(&mut self, ttl: Duration) {
        let now = self.clock.now();
        self.data.expire(now, ttl);
        self.index.expire(now, ttl);
    }

    /// Keys held now.
    pub fn len(&self) -> usize {
        self.data.0.len() + self.index.0.len()
    }

    /// No key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::secret::RootKey;
    use std::cell::Cell;

    const TTL: Duration = Duration::from_secs(300);

    struct TestClock(Rc<Cell<Instant>>);

    impl Clock for TestClock {
        fn now(&self) -> Instant {
            self.0.get()
        }
    }

    fn cache() -> (Cache<TestClock>, Rc<Cell<Instant>>) {
        let now = Rc::new(Cell::new(Instant::now()));
        (Cache::new(TestClock(now.clone())), now)
    }

    fn key() -> DataKey {
        DataKey::derive(&RootKey::zeroed(), &[0; 16], None).unwrap()
    }

    fn put(cache: &mut Cache<TestClock>, id: KeyVersion) -> Rc<DataKey> {
        let now = cache.now();
        cache.put_data(id, key(), now)
    }

    #[test]
    fn a_miss_on_either_shelf_drops_what_is_too_old_on_both() {
        let (mut cache, now) = cache();
        put(&mut cache, (1, 1));
        now.set(now.get() + TTL);
        assert!(cache.index((9, 9), TTL).is_none());
        assert!(cache.is_empty());
    }

    #[test]
    fn a_key_is_gone_after_its_time_counted_from_the_unwrap() {
        let (mut cache, now) = cache();
        put(&mut cache, (1, 1));
        now.set(now.get() + TTL - Duration::from_secs(1));
        assert!(cache.data((1, 1), TTL).is_some());
        now.set(now.get() + Duration::from_secs(1));
        assert!(cache.data((1, 1), TTL).is_none());
        assert!(cache.is_empty());
    }

    #[test]
    fn a_shorter_time_applies_to_keys_already_held() {
        let (mut cache, now) = cache();
        put(&mut cache, (1, 1));
        now.set(now.get() + Duration::from_secs(2));
        assert!(cache.data((1, 1), Duration::from_secs(1)).is_none());
    }

    #[test]
    fn a_denial_drops_that_keyring_only_and_is_remembered_for_a_moment() {
        let (mut cache, now) = cache();
        put(&mut cache, (1, 1));
        put(&mut cache, (2, 1));
        cache.deny(1);
        assert!(cache.is_denied(1) && !cache.is_denied(2));
        assert!(cache.data((1, 1), TTL).is_none());
        assert!(cache.data((2, 1), TTL).is_some());
        now.set(now.get() + DENIAL_MEMORY);
        assert!(!cache.is_denied(1));
    }

    #[test]
    fn dropping_the_last_use_drops_the_key() {
        let (mut cache, _) = cache();
        let in_use = put(&mut cache, (1, 1));
        cache.clear();
        assert_eq!(Rc::strong_count(&in_use), 1);
    }
}
