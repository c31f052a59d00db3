//! Unwrapped keys of one process, each gone a fixed time after it was unwrapped, used or not.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::core::kdf::{DataKey, IndexKey};

/// How long a denial is remembered, so that a revoked key costs no KMS call per row or statement.
pub const DENIAL_MEMORY: Duration = Duration::from_secs(5);

/// Keys of one purpose held at most; the oldest gives way. A page each.
const MOST: usize = 8_192;

/// Where the time comes from; tests inject their own.
pub trait Clock {
    /// The time since the machine started: it never goes backwards and is one for all processes.
    fn now(&self) -> Duration;
}

/// The system's clock; the time that it was suspended counts.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// What keeps the memory of a key out of swap and core dumps, and takes that back: start and number of bytes, whole
/// pages. This module has no unsafe code.
#[derive(Clone, Copy)]
pub struct Guard {
    /// Before a key is used.
    pub hold: fn(*const u8, usize),
    /// Before its memory is given back; it wipes itself right after.
    pub release: fn(*const u8, usize),
}

/// Memory of whole pages.
#[repr(align(4096))]
struct Page<K>(K);

/// A key on pages of its own.
pub struct Held<K> {
    page: Box<Page<K>>,
    guard: Guard,
}

/// A keyring's key version.
pub type KeyVersion = (i32, u16);

/// A data key of the cache.
pub type HeldDataKey = Rc<Held<DataKey>>;
/// An index key of the cache.
pub type HeldIndexKey = Rc<Held<IndexKey>>;

impl<K> Held<K> {
    fn new(key: K, guard: Guard) -> Rc<Self> {
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

struct Entry<K> {
    key: Rc<Held<K>>,
    unwrapped: Duration,
}

/// The keys of one purpose.
struct Shelf<K>(BTreeMap<KeyVersion, Entry<K>>);

/// The cache. Dropping an entry wipes the key as soon as nobody is using it.
pub struct Cache<C> {
    clock: C,
    guard: Guard,
    data: Shelf<DataKey>,
    index: Shelf<IndexKey>,
    denied: BTreeMap<i32, Duration>,
}

impl<K> Shelf<K> {
    fn get(&self, id: KeyVersion, now: Duration, ttl: Duration) -> Option<Rc<Held<K>>> {
        let entry = self.0.get(&id)?;
        (now.saturating_sub(entry.unwrapped) < ttl).then(|| entry.key.clone())
    }

    fn put(&mut self, id: KeyVersion, entry: Entry<K>) -> Rc<Held<K>> {
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, entry)| entry.unwrapped).map(|(id, _)| *id)
        {
            self.0.remove(&oldest);
        }
        let key = entry.key.clone();
        self.0.insert(id, entry);
        key
    }

    fn expire(&mut self, now: Duration, ttl: Duration) {
        self.0.retain(|_, entry| now.saturating_sub(entry.unwrapped) < ttl);
    }
}

impl<C: Clock> Cache<C> {
    /// An empty cache.
    pub fn new(clock: C, guard: Guard) -> Self {
        Cache {
            clock,
            guard,
            data: Shelf(BTreeMap::new()),
            index: Shelf(BTreeMap::new()),
            denied: BTreeMap::new(),
        }
    }

    /// A data key that was unwrapped less than `ttl` ago.
    pub fn data(&mut self, id: KeyVersion, ttl: Duration) -> Option<HeldDataKey> {
        let found = self.data.get(id, self.clock.now(), ttl);
        self.expire_on_miss(found, ttl)
    }

    /// An index key that was unwrapped less than `ttl` ago.
    pub fn index(&mut self, id: KeyVersion, ttl: Duration) -> Option<HeldIndexKey> {
        let found = self.index.get(id, self.clock.now(), ttl);
        self.expire_on_miss(found, ttl)
    }

    /// A miss is when a KMS call is due: no key outlives its time because nobody asks for it.
    fn expire_on_miss<K>(&mut self, found: Option<Rc<Held<K>>>, ttl: Duration) -> Option<Rc<Held<K>>> {
        if found.is_none() {
            self.expire(ttl);
        }
        found
    }

    /// The time to hand to [`Cache::put_data`] or [`Cache::put_index`]: taken before the KMS is asked.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Keeps a data key that the KMS was asked for at `unwrapped`.
    pub fn put_data(&mut self, id: KeyVersion, key: DataKey, unwrapped: Duration) -> HeldDataKey {
        self.data.put(id, Entry { key: Held::new(key, self.guard), unwrapped })
    }

    /// Keeps an index key that the KMS was asked for at `unwrapped`.
    pub fn put_index(&mut self, id: KeyVersion, key: IndexKey, unwrapped: Duration) -> HeldIndexKey {
        self.index.put(id, Entry { key: Held::new(key, self.guard), unwrapped })
    }

    /// The KMS refused this keyring: forget its keys at once and remember the refusal for a moment.
    pub fn deny(&mut self, keyring: i32) {
        self.forget(keyring);
        self.denied.insert(keyring, self.clock.now());
    }

    /// The KMS refused this keyring less than [`DENIAL_MEMORY`] ago.
    pub fn is_denied(&mut self, keyring: i32) -> bool {
        let now = self.clock.now();
        self.denied.retain(|_, since| now.saturating_sub(*since) < DENIAL_MEMORY);
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

    /// The age of the oldest key.
    pub fn oldest(&self) -> Option<Duration> {
        let data = self.data.0.values().map(|entry| entry.unwrapped);
        let since = data.chain(self.index.0.values().map(|entry| entry.unwrapped)).min()?;
        Some(self.clock.now().saturating_sub(since))
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
    use static_assertions::assert_not_impl_any;
    use std::cell::Cell;
    use std::fmt::{Debug, Display};

    assert_not_impl_any!(Held<DataKey>: Debug, Display, Clone, PartialEq, serde::Serialize);

    const TTL: Duration = Duration::from_secs(300);

    const GUARD: Guard =
        Guard { hold: |_, _| HELD.set(HELD.get() + 1), release: |_, _| HELD.set(HELD.get() - 1) };

    thread_local! {
        static HELD: Cell<i32> = const { Cell::new(0) };
    }

    struct TestClock(Rc<Cell<Duration>>);

    impl Clock for TestClock {
        fn now(&self) -> Duration {
            self.0.get()
        }
    }

    fn cache() -> (Cache<TestClock>, Rc<Cell<Duration>>) {
        let now = Rc::new(Cell::new(Duration::from_secs(1000)));
        (Cache::new(TestClock(now.clone()), GUARD), now)
    }

    fn key() -> DataKey {
        DataKey::derive(&RootKey::zeroed(), &[0; 16], None).unwrap()
    }

    fn put(cache: &mut Cache<TestClock>, id: KeyVersion) -> HeldDataKey {
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
    fn a_denial_drops_its_keyring_only_and_is_kept_for_a_moment() {
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
        assert_eq!(HELD.get(), 1, "its pages are held as long as it is in use");
        drop(in_use);
        assert_eq!(HELD.get(), 0);
    }

    #[test]
    fn the_oldest_gives_way_when_there_are_too_many() {
        let (mut cache, now) = cache();
        for version in 0..=MOST as u16 {
            put(&mut cache, (1, version));
            now.set(now.get() + Duration::from_millis(1));
        }
        assert_eq!(cache.len(), MOST);
        assert!(cache.data((1, 0), TTL).is_none() && cache.data((1, 1), TTL).is_some());
    }

    #[test]
    fn the_oldest_key_tells_when_to_look_again() {
        let (mut cache, now) = cache();
        assert_eq!(cache.oldest(), None);
        put(&mut cache, (1, 1));
        now.set(now.get() + Duration::from_secs(7));
        put(&mut cache, (2, 1));
        assert_eq!(cache.oldest(), Some(Duration::from_secs(7)));
    }
}
