//! Unwrapped keys of one process, each gone a fixed time after it was unwrapped, used or not.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::core::held::{Guard, Held};
use crate::core::ivf::index::Index;
use crate::core::ivf::key::{HeldPageKey, Identity, PageKey};
use crate::core::ivf::meta::Meta;
use crate::core::kdf::{DataKey, IndexKey};
use crate::keys::context::Purpose;

/// How long a denial is remembered, so that a revoked key costs no KMS call per row or statement.
pub const DENIAL_MEMORY: Duration = Duration::from_secs(5);

/// Keys of one purpose held at most; the oldest gives way. A page each.
const MOST: usize = 8_192;
/// Keys of pages held at most for one data key, a page each: to derive another takes microseconds.
const MOST_PAGE_KEYS: usize = 64;
/// Bytes of centroids held at most: those of a million rows of 1,536 dimensions five times over. What needs more is read by
/// every scan.
const MOST_CENTROIDS: usize = 64 << 20;

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

/// A keyring's key version.
pub type KeyVersion = (i32, u16);

/// A data key of the cache.
pub type HeldDataKey = Rc<Held<DataKey>>;
/// An index key of the cache.
pub type HeldIndexKey = Rc<Held<IndexKey>>;

struct Entry<K> {
    key: Rc<Held<K>>,
    unwrapped: Duration,
    made: Made,
}

/// What was made with a key, and goes with it; the oldest first.
#[derive(Default)]
struct Made {
    page_keys: Vec<HeldPageKey>,
    lists: Vec<Rc<Index>>,
}

/// The keys of one purpose.
struct Shelf<K>(BTreeMap<KeyVersion, Entry<K>>);

/// The cache. Dropping an entry wipes the key as soon as nobody is using it.
pub struct Cache<C> {
    clock: C,
    guard: Guard,
    data: Shelf<DataKey>,
    index: Shelf<IndexKey>,
    denied: BTreeMap<(i32, Purpose), (Duration, &'static str)>,
}

impl<K> Entry<K> {
    fn new(key: K, unwrapped: Duration, guard: Guard) -> Self {
        Entry { key: Held::new(key, guard), unwrapped, made: Made::default() }
    }
}

impl<K> Shelf<K> {
    fn get(&self, id: KeyVersion, now: Duration, ttl: Duration) -> Option<&Entry<K>> {
        self.0.get(&id).filter(|entry| now.saturating_sub(entry.unwrapped) < ttl)
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

/// Adds an item; the first gives way where there are as many as there may be.
fn put_last<T>(items: &mut Vec<T>, item: T, most: usize) {
    if items.len() >= most {
        items.remove(0);
    }
    items.push(item);
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
        let found = self.data.get(id, self.clock.now(), ttl).map(|entry| entry.key.clone());
        self.expire_on_miss(found, ttl)
    }

    /// An index key that was unwrapped less than `ttl` ago.
    pub fn index(&mut self, id: KeyVersion, ttl: Duration) -> Option<HeldIndexKey> {
        let found = self.index.get(id, self.clock.now(), ttl).map(|entry| entry.key.clone());
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
        self.data.put(id, Entry::new(key, unwrapped, self.guard))
    }

    /// Keeps an index key that the KMS was asked for at `unwrapped`.
    pub fn put_index(&mut self, id: KeyVersion, key: IndexKey, unwrapped: Duration) -> HeldIndexKey {
        self.index.put(id, Entry::new(key, unwrapped, self.guard))
    }

    /// The key of an index's pages, of a data key that was unwrapped less than `ttl` ago.
    pub fn page_key(&self, id: KeyVersion, identity: &Identity, ttl: Duration) -> Option<HeldPageKey> {
        let made = &self.data.get(id, self.clock.now(), ttl)?.made;
        made.page_keys.iter().find(|key| key.identity() == identity).cloned()
    }

    /// Keeps the key of an index's pages as long as the data key that it was made from.
    pub fn put_page_key(&mut self, id: KeyVersion, key: PageKey) -> HeldPageKey {
        let key = Held::new(key, self.guard);
        if let Some(entry) = self.data.0.get_mut(&id) {
            put_last(&mut entry.made.page_keys, key.clone(), MOST_PAGE_KEYS);
        }
        key
    }

    /// The lists of the index that `meta` describes, of keys that were unwrapped less than `ttl` ago.
    pub fn lists(&self, keyring: i32, meta: &Meta, ttl: Duration) -> Option<Rc<Index>> {
        let now = self.clock.now();
        let fresh = |version: &u16| self.data.get((keyring, *version), now, ttl).is_some();
        let of_keyring = self.data.0.range((keyring, 0)..=(keyring, u16::MAX));
        let mut kept = of_keyring.flat_map(|(_, entry)| &entry.made.lists);
        let found = kept.find(|lists| lists.meta().has_lists_of(meta))?;
        found.versions().iter().all(fresh).then(|| found.clone())
    }

    /// Keeps the lists of an index as long as all data keys that its directory is sealed under. What has no directory has no
    /// secret, and is not kept.
    pub fn put_lists(&mut self, keyring: i32, lists: &Rc<Index>) {
        let unwrapped = |version: &u16| Some((self.data.0.get(&(keyring, *version))?.unwrapped, *version));
        // The first of them to go takes the lists along.
        let first = lists.versions().iter().map(unwrapped).collect::<Option<Vec<_>>>();
        let Some((_, version)) = first.and_then(|all| all.into_iter().min()) else { return };
        let mut bytes = lists.bytes();
        for entry in self.data.0.values_mut() {
            entry.made.lists.retain(|known| !known.meta().is_of(lists.meta()));
            bytes += entry.made.lists.iter().map(|lists| lists.bytes()).sum::<usize>();
        }
        if bytes > MOST_CENTROIDS {
            self.data.0.values_mut().for_each(|entry| entry.made.lists.clear());
        }
        if lists.bytes() <= MOST_CENTROIDS
            && let Some(entry) = self.data.0.get_mut(&(keyring, version))
        {
            entry.made.lists.push(lists.clone());
        }
    }

    /// The KMS refused these keys of a keyring: forget them at once and remember for a moment what it said.
    pub fn deny(&mut self, keyring: i32, purpose: Purpose, why: &'static str) {
        match purpose {
            Purpose::Data => self.data.0.retain(|id, _| id.0 != keyring),
            Purpose::Index => self.index.0.retain(|id, _| id.0 != keyring),
        }
        self.denied.insert((keyring, purpose), (self.clock.now(), why));
    }

    /// Why the KMS refused these keys less than [`DENIAL_MEMORY`] ago.
    pub fn refusal(&mut self, keyring: i32, purpose: Purpose) -> Option<&'static str> {
        let now = self.clock.now();
        self.denied.retain(|_, (since, _)| now.saturating_sub(*since) < DENIAL_MEMORY);
        self.denied.get(&(keyring, purpose)).map(|(_, why)| *why)
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
    use crate::core::ivf::directory;
    use crate::core::ivf::layout::{Layout, PAGE_BYTES, PageBytes};
    use crate::core::ivf::meta::Chain;
    use crate::core::ivf::page::{self, Kind, PageError};
    use crate::core::ivf::source::Pages;
    use crate::core::secret::RootKey;
    use crate::core::vector::distance::Metric;
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
    fn a_denial_drops_those_keys_only_and_is_kept_for_a_moment() {
        let (mut cache, now) = cache();
        put(&mut cache, (1, 1));
        put(&mut cache, (2, 1));
        cache.deny(1, Purpose::Index, "index");
        assert!(cache.data((1, 1), TTL).is_some() && cache.refusal(1, Purpose::Data).is_none());
        cache.deny(1, Purpose::Data, "data");
        assert_eq!(cache.refusal(1, Purpose::Data), Some("data"));
        assert_eq!(cache.refusal(2, Purpose::Data), None);
        assert!(cache.data((1, 1), TTL).is_none());
        assert!(cache.data((2, 1), TTL).is_some());
        now.set(now.get() + DENIAL_MEMORY);
        assert_eq!(cache.refusal(1, Purpose::Data), None);
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

    /// A directory with a page for each of some versions of keyring 1's data key.
    struct Directory<'a> {
        cache: &'a mut Cache<TestClock>,
        meta: Meta,
        pages: Vec<PageBytes>,
    }

    impl Directory<'_> {
        fn open(cache: &mut Cache<TestClock>, index: u8, versions: &[u16]) -> Rc<Index> {
            let mut directory = Directory { cache, meta: meta(index, versions.len()), pages: Vec::new() };
            for (list, version) in versions.iter().enumerate() {
                let (mut page, key) = ([0; PAGE_BYTES], directory.key(*version).unwrap());
                page::init(&mut page, Kind::Directory, list as u32, 0);
                let next = (list + 1 < versions.len()).then_some(list as u32 + 1);
                page::set_next(&mut page, next).unwrap();
                directory::fill(&mut page, list as u32, &key, &[Chain::default()], &[1.0; 8]).unwrap();
                directory.pages.push(page);
            }
            Rc::new(Index::open(directory.meta, GUARD, &mut directory).unwrap())
        }
    }

    impl Pages for Directory<'_> {
        type Error = PageError;

        fn blocks(&mut self) -> Result<u32, PageError> {
            Ok(self.pages.len() as u32)
        }

        fn read(&mut self, block: u32, page: &mut PageBytes) -> Result<(), PageError> {
            *page = self.pages[block as usize];
            Ok(())
        }

        fn key(&mut self, version: u16) -> Result<HeldPageKey, PageError> {
            let identity = self.meta.identity([2; 16]);
            let known = self.cache.page_key((1, version), &identity, TTL);
            let derived = || PageKey::derive(&key(), version, &identity);
            Ok(known.unwrap_or_else(|| self.cache.put_page_key((1, version), derived())))
        }
    }

    fn meta(index: u8, lists: usize) -> Meta {
        Meta {
            index: [index; 16],
            keyring: 1,
            metric: Metric::L2,
            layout: Layout::new(8).unwrap(),
            lists: lists as u32,
            generation: 0,
            directory: Some(0),
            list: Chain::default(),
            unassigned: Chain::default(),
            built_rows: 0,
            unassigned_rows: 0,
        }
    }

    #[test]
    fn what_was_made_with_a_key_goes_with_it() {
        let (mut cache, now) = cache();
        put(&mut cache, (1, 1));
        now.set(now.get() + Duration::from_secs(9));
        put(&mut cache, (1, 2));
        let lists = Directory::open(&mut cache, 5, &[2, 1]);
        cache.put_lists(1, &lists);
        let meta = *lists.meta();
        drop(lists);
        let held = HELD.get();
        assert_eq!(held, 5, "two data keys, two page keys, centroids");
        assert!(cache.lists(1, &meta, TTL).is_some() && cache.lists(2, &meta, TTL).is_none());
        let grown = Meta { list: Chain { first: None, last: Some(9) }, unassigned_rows: 3, ..meta };
        assert!(cache.lists(1, &grown, TTL).is_some());
        assert!(cache.lists(1, &Meta { generation: 1, ..meta }, TTL).is_none(), "lists made anew");
        // The first of the two keys is over: with it go the centroids that either has sealed.
        now.set(now.get() + TTL - Duration::from_secs(9));
        assert!(cache.lists(1, &meta, TTL).is_none());
        assert!(cache.page_key((1, 1), &meta.identity([2; 16]), TTL).is_none());
        assert!(cache.page_key((1, 2), &meta.identity([2; 16]), TTL).is_some());
        cache.expire(TTL);
        assert_eq!(HELD.get(), 2);
        cache.clear();
        assert_eq!(HELD.get(), 0);
    }

    #[test]
    fn lists_take_the_place_of_older_ones_of_their_index() {
        let (mut cache, _) = cache();
        put(&mut cache, (1, 1));
        let first = Directory::open(&mut cache, 5, &[1]);
        let other = Directory::open(&mut cache, 6, &[1]);
        [&first, &other].into_iter().for_each(|lists| cache.put_lists(1, lists));
        let anew = Directory::open(&mut cache, 5, &[1, 1]);
        cache.put_lists(1, &anew);
        assert!(cache.lists(1, first.meta(), TTL).is_none());
        assert!([other.meta(), anew.meta()].iter().all(|meta| cache.lists(1, meta, TTL).is_some()));
    }

    #[test]
    fn page_keys_are_few_for_one_data_key() {
        let (mut cache, _) = cache();
        put(&mut cache, (1, 1));
        for index in 0..=MOST_PAGE_KEYS as u8 {
            Directory::open(&mut cache, index, &[1]);
        }
        let is_kept = |index| cache.page_key((1, 1), &meta(index, 1).identity([2; 16]), TTL).is_some();
        assert!(!is_kept(0) && is_kept(1));
        assert_eq!(HELD.get(), 1 + MOST_PAGE_KEYS as i32);
    }
}
