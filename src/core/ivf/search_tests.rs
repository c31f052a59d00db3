use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::build::{Builder, NewPages, write_directory};
use super::directory;
use super::index::Index;
use super::key::{HeldPageKey, PageKey};
use super::layout::{Layout, PAGE_BYTES, PageBytes, SPECIAL_AT};
use super::meta::{Chain, Meta};
use super::page::{self, Kind, PageError, Tid};
use super::search::{Hit, Late, Options, Search};
use super::source::{Pages, Rows};
use crate::core::held::{Guard, Held, HeldNumbers};
use crate::core::kdf::DataKey;
use crate::core::secret::RootKey;
use crate::core::vector::distance::Metric;
use crate::core::vector::quantiser::Quantiser;
use crate::core::vector::testing::Random;

const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

/// An index and its table in memory.
struct World {
    meta: Meta,
    pages: Vec<PageBytes>,
    key: HeldPageKey,
    vectors: BTreeMap<Tid, Vec<f32>>,
    query: Vec<f32>,
    /// Rows that are put aside while the first page is read, each on a page of its own.
    coming: Vec<usize>,
}

impl Pages for World {
    type Error = PageError;

    fn blocks(&mut self) -> Result<u32, PageError> {
        Ok(self.pages.len() as u32)
    }

    fn read(&mut self, block: u32, page: &mut PageBytes) -> Result<(), PageError> {
        for number in std::mem::take(&mut self.coming) {
            self.put_aside(number);
        }
        *page = *self.pages.get(block as usize).ok_or(PageError::Foreign)?;
        Ok(())
    }

    fn key(&mut self, version: u16) -> Result<HeldPageKey, PageError> {
        let is_known = version == self.key.version();
        is_known.then(|| self.key.clone()).ok_or(PageError::OtherVersion(version))
    }
}

impl Rows for World {
    fn distance(&mut self, tid: Tid) -> Result<Option<f64>, PageError> {
        Ok(self.vectors.get(&tid).map(|vector| self.meta.metric.distance(vector, &self.query)))
    }
}

impl NewPages for World {
    type Error = PageError;

    fn reserve(&mut self) -> Result<u32, PageError> {
        self.pages.push([0; PAGE_BYTES]);
        Ok(self.pages.len() as u32 - 1)
    }

    fn write(&mut self, block: u32, page: &PageBytes) -> Result<(), PageError> {
        self.pages[block as usize] = *page;
        Ok(())
    }
}

fn tid(number: usize) -> Tid {
    Tid { block: number as u32 / 50, offset: number as u16 % 50 + 1 }
}

impl World {
    /// An index of these vectors with lists around some of them, or with a single one around their mean.
    fn new(metric: Metric, vectors: &[Vec<f32>], lists: usize) -> Self {
        let layout = Layout::new(vectors[0].len()).unwrap();
        let meta = Meta {
            index: [7; 16],
            keyring: 1,
            metric,
            layout,
            lists: lists as u32,
            generation: 3,
            directory: None,
            list: Chain::default(),
            unassigned: Chain::default(),
            built_rows: vectors.len() as u64,
            unassigned_rows: 0,
        };
        let data = DataKey::derive(&RootKey::zeroed(), &[2; 16], None).unwrap();
        let key = Held::new(PageKey::derive(&data, 1, &meta.identity([2; 16])), Guard::NONE);
        // Block 0 is the description's.
        let pages = vec![[0; PAGE_BYTES]];
        let mut world =
            World { meta, pages, key, vectors: BTreeMap::new(), query: Vec::new(), coming: Vec::new() };
        world.build(vectors, lists);
        world
    }

    fn build(&mut self, vectors: &[Vec<f32>], lists: usize) {
        let index = Index::new(self.meta, self.centroids(vectors, lists)).unwrap();
        let key = self.key.clone();
        let mut builder = Builder::new(&index, key.clone(), self).unwrap();
        for (number, vector) in vectors.iter().enumerate() {
            self.vectors.insert(tid(number), vector.clone());
            let placed = index.place(vector).unwrap().unwrap();
            builder.add(tid(number), &placed, self).unwrap();
        }
        let chains = builder.finish(self).unwrap();
        self.meta.directory = Some(write_directory(&index, &key, &chains, self).unwrap());
        self.meta.list = if lists == 1 { chains[0] } else { Chain::default() };
    }

    fn centroids(&self, vectors: &[Vec<f32>], lists: usize) -> HeldNumbers {
        let quantiser = Quantiser::new(&self.meta.index, self.meta.metric, self.meta.layout.rows);
        let prepared = |vector: &Vec<f32>| quantiser.prepare(vector).unwrap();
        let mut centroids = match lists {
            1 => mean(&vectors.iter().map(prepared).collect::<Vec<_>>()),
            _ => vectors.iter().step_by(vectors.len() / lists).take(lists).flat_map(prepared).collect(),
        };
        directory::round(&mut centroids);
        HeldNumbers::copy(&centroids, Guard::NONE).unwrap()
    }

    /// The same index and table.
    fn copy(&self) -> Self {
        World {
            meta: self.meta,
            pages: self.pages.clone(),
            key: self.key.clone(),
            vectors: self.vectors.clone(),
            query: self.query.clone(),
            coming: Vec::new(),
        }
    }

    /// Adds a row without a code.
    fn add_unassigned(&mut self, number: usize, vector: Vec<f32>) {
        self.vectors.insert(tid(number), vector);
        let layout = self.meta.layout;
        let block = *self.meta.unassigned.first.get_or_insert(self.pages.len() as u32);
        self.meta.unassigned.last = Some(block);
        if block as usize == self.pages.len() {
            self.pages.push([0; PAGE_BYTES]);
            page::init(&mut self.pages[block as usize], Kind::Unassigned, 0, 0);
        }
        page::append_unassigned(&mut self.pages[block as usize], &layout, tid(number)).unwrap();
    }

    /// Adds a page with one row to the rows without a code.
    fn put_aside(&mut self, number: usize) {
        let block = self.reserve().unwrap();
        let mut fresh = [0; PAGE_BYTES];
        page::init(&mut fresh, Kind::Unassigned, 0, 0);
        page::append_unassigned(&mut fresh, &self.meta.layout, tid(number)).unwrap();
        let last = self.meta.unassigned.last.replace(block).unwrap();
        page::set_next(&mut self.pages[last as usize], Some(block)).unwrap();
        self.write(block, &fresh).unwrap();
    }

    fn search(&mut self, query: &[f32], options: Options) -> Search {
        self.query = query.to_vec();
        let index = Index::open(self.meta, Guard::NONE, self).unwrap();
        Search::new(&index, Some(query), options)
    }

    fn found(&mut self, query: &[f32], options: Options, most: usize) -> Vec<Hit> {
        let mut search = self.search(query, options);
        std::iter::from_fn(|| search.next(self).unwrap()).take(most).collect()
    }

    /// The distance that the nearest rows do not exceed.
    fn farthest_of_nearest(&self, query: &[f32], most: usize) -> f64 {
        let mut distances: Vec<f64> =
            self.vectors.values().map(|vector| self.meta.metric.distance(vector, query)).collect();
        distances.sort_by(f64::total_cmp);
        distances[most - 1]
    }

    /// The part of the ten nearest rows that is found, over all queries, and the lists that were read for a query.
    fn recall(&mut self, queries: &[Vec<f32>]) -> (f64, f64) {
        let (mut right, mut lists) = (0, 0);
        for query in queries {
            let most = self.farthest_of_nearest(query, 10);
            let mut search = self.search(query, Options::default());
            let found: Vec<Hit> = std::iter::from_fn(|| search.next(self).unwrap()).take(10).collect();
            right += found.iter().filter(|hit| hit.distance <= most).count();
            lists += search.effort().lists;
        }
        (right as f64 / (10 * queries.len()) as f64, lists as f64 / queries.len() as f64)
    }
}

fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut mean = vec![0.0; vectors[0].len()];
    for vector in vectors {
        mean.iter_mut().zip(vector).for_each(|(mean, element)| *mean += element / vectors.len() as f32);
    }
    mean
}

/// Vectors like those of texts on some subjects, and as many queries.
fn texts(count: usize, dimensions: usize, queries: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut vectors = Random::new(8).clustered(count + queries, dimensions, 40, 0.7);
    let queries = vectors.split_off(count);
    (vectors, queries)
}

fn tids(hits: &[Hit]) -> BTreeSet<Tid> {
    hits.iter().map(|hit| hit.tid).collect()
}

fn is_sorted(hits: &[Hit]) -> bool {
    hits.is_sorted_by(|a, b| a.distance <= b.distance)
}

#[test]
fn a_single_list_finds_the_ten_nearest() {
    let (vectors, queries) = texts(1500, 128, 30);
    for metric in METRICS {
        let (recall, _) = World::new(metric, &vectors, 1).recall(&queries);
        assert!(recall >= 0.99, "{metric:?}: {recall}");
    }
}

#[test]
fn lists_are_read_until_they_bring_nothing() {
    let (vectors, queries) = texts(3000, 64, 30);
    for metric in METRICS {
        let (recall, lists) = World::new(metric, &vectors, 100).recall(&queries);
        assert!(recall >= 0.95, "{metric:?}: {recall}");
        assert!((24.0..60.0).contains(&lists), "{metric:?}: {lists} lists");
    }
}

#[test]
fn rows_come_sorted_and_each_comes_once() {
    let (vectors, queries) = texts(600, 24, 3);
    for lists in [1, 30] {
        let mut world = World::new(Metric::L2, &vectors, lists);
        world.add_unassigned(600, queries[1].clone());
        for query in &queries {
            let all = world.found(query, Options::default(), usize::MAX);
            assert_eq!((all.len(), tids(&all).len()), (601, 601));
            let in_order =
                world.found(query, Options { late: Late::Never, ..Options::default() }, usize::MAX);
            assert!(is_sorted(&in_order) && in_order.len() > 500, "{}", in_order.len());
            assert_eq!(all[..in_order.len()], in_order, "late rows come at the end");
            assert!(is_sorted(&all[in_order.len()..]));
            let relaxed =
                world.found(query, Options { late: Late::AtOnce, ..Options::default() }, usize::MAX);
            assert_eq!(tids(&relaxed), tids(&all));
            assert!(relaxed.len() == 601 && (lists == 1 || !is_sorted(&relaxed)));
        }
    }
}

#[test]
fn a_row_without_a_code_is_found_by_its_distance() {
    let (vectors, queries) = texts(300, 24, 1);
    let mut world = World::new(Metric::L2, &vectors, 30);
    world.add_unassigned(1000, queries[0].clone());
    let found = world.found(&queries[0], Options::default(), 1);
    assert_eq!(found, [Hit { tid: tid(1000), distance: 0.0 }]);
}

#[test]
fn a_row_that_stands_in_two_places_comes_once() {
    let (vectors, queries) = texts(300, 24, 1);
    for lists in [1, 30] {
        let mut world = World::new(Metric::L2, &vectors, lists);
        world.add_unassigned(17, vectors[17].clone());
        let found = world.found(&queries[0], Options::default(), usize::MAX);
        assert_eq!((found.len(), tids(&found).len()), (300, 300));
    }
}

#[test]
fn a_row_that_nobody_sees_does_not_come() {
    let (vectors, queries) = texts(300, 24, 1);
    for lists in [1, 30] {
        let mut world = World::new(Metric::L2, &vectors, lists);
        for number in 0..100 {
            world.vectors.remove(&tid(number));
        }
        let layout = world.meta.layout;
        for page in &mut world.pages {
            // Of those that live some have a dead mark.
            let _ = page::mark_dead(page, &layout, |tid| tid.block == 2);
        }
        let expected = (150..300).map(tid).collect();
        assert_eq!(tids(&world.found(&queries[0], Options::default(), usize::MAX)), expected);
    }
}

#[test]
fn few_candidates_in_memory_find_the_same_rows() {
    let (vectors, queries) = texts(200, 24, 2);
    for (lists, late) in [(1, Late::AtEnd), (20, Late::AtEnd), (1, Late::Never)] {
        let mut world = World::new(Metric::L2, &vectors, lists);
        world.add_unassigned(200, queries[1].clone());
        for most_candidates in [7, 60] {
            let options = Options { late, ..Options::default() };
            let all = world.found(&queries[0], options, usize::MAX);
            let few = world.found(&queries[0], Options { most_candidates, ..options }, usize::MAX);
            assert_eq!(tids(&few), tids(&all));
            assert!(lists > 1 || few == all, "the order of a single list does not depend on memory");
        }
    }
}

#[test]
fn a_search_ends_after_the_visits_it_may_make() {
    let (vectors, queries) = texts(300, 24, 1);
    let mut world = World::new(Metric::L2, &vectors, 1);
    let mut search = world.search(&queries[0], Options { most_visits: 40, ..Options::default() });
    let found: Vec<Hit> = std::iter::from_fn(|| search.next(&mut world).unwrap()).collect();
    assert_eq!((found.len(), search.effort().visits), (40, 40));
}

#[test]
fn nothing_is_nearer_to_zero_under_the_cosine() {
    let (vectors, _) = texts(300, 24, 0);
    for lists in [1, 30] {
        let mut world = World::new(Metric::Cosine, &vectors, lists);
        assert_eq!(world.found(&[0.0; 24], Options::default(), usize::MAX).len(), 300);
    }
}

#[test]
fn numbers_too_large_for_codes_are_found_all_the_same() {
    let mut vectors = Random::new(9).clustered(200, 24, 4, 0.5);
    vectors[7] = vec![3e38; 24];
    vectors[8] = vec![-2e30; 24];
    for metric in [Metric::L2, Metric::InnerProduct] {
        for query in [vec![1.0; 24], vec![3e38; 24]] {
            let mut world = World::new(metric, &vectors, 1);
            let found = world.found(&query, Options::default(), usize::MAX);
            assert_eq!(tids(&found).len(), 200);
            let most = world.farthest_of_nearest(&query, 1);
            assert_eq!(found[0].distance, most, "{metric:?}");
        }
    }
}

#[test]
fn an_index_may_grow_while_it_is_read() {
    let (vectors, queries) = texts(20, 24, 1);
    let mut world = World::new(Metric::L2, &vectors, 1);
    world.add_unassigned(20, queries[0].clone());
    let mut search = world.search(&queries[0], Options::default());
    for number in 21..60 {
        world.vectors.insert(tid(number), queries[0].clone());
        world.coming.push(number);
    }
    let found: Vec<Hit> = std::iter::from_fn(|| search.next(&mut world).unwrap()).collect();
    assert_eq!(found.len(), 60);
}

#[test]
fn a_forged_chain_is_an_error() {
    let (vectors, queries) = texts(600, 24, 1);
    let mut world = World::new(Metric::L2, &vectors, 2);
    let result = |world: &mut World| {
        world.search(&queries[0], Options::default()).next(world).map(|hit| hit.is_some())
    };
    assert_eq!(result(&mut world), Ok(true));
    let (first, second) = (1, 2);
    let whole = world.pages.clone();
    page::set_next(&mut world.pages[first], Some(first as u32)).unwrap();
    assert_eq!(result(&mut world), Err(PageError::Malformed("a chain without an end")));
    world.pages = whole.clone();
    page::set_next(&mut world.pages[first], Some(second as u32)).unwrap();
    assert_eq!(result(&mut world), Err(PageError::Malformed("a page of another list")));
    world.pages = whole;
    world.pages[first][SPECIAL_AT - 5000] ^= 1;
    assert_eq!(result(&mut world), Err(PageError::Authentication));
}

thread_local! {
    static SMALL: (World, Vec<f32>) = {
        let (vectors, mut queries) = texts(400, 24, 1);
        let mut world = World::new(Metric::L2, &vectors, 3);
        world.add_unassigned(400, queries[0].clone());
        (world, queries.remove(0))
    };
}

proptest! {
    #[test]
    fn a_changed_page_is_an_error_or_hides_rows(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..8_u8, any::<bool>()), 1..4),
    ) {
        SMALL.with(|(whole, query)| {
            let mut world = whole.copy();
            for (place, bit, is_special) in changes {
                let page = place.index(world.pages.len());
                // Half of them where pages say what they are.
                let at = if is_special { SPECIAL_AT + place.index(32) } else { 24 + place.index(SPECIAL_AT - 24) };
                world.pages[page][at] ^= 1 << bit;
            }
            world.query = query.clone();
            let Ok(index) = Index::open(world.meta, Guard::NONE, &mut world) else { return Ok(()) };
            let mut search = Search::new(&index, Some(query), Options::default());
            let mut found = Vec::new();
            while let Ok(Some(hit)) = search.next(&mut world) {
                let distance = world.vectors.get(&hit.tid).map(|vector| Metric::L2.distance(vector, query));
                prop_assert_eq!(Some(hit.distance), distance);
                found.push(hit);
            }
            prop_assert_eq!(tids(&found).len(), found.len());
            Ok(())
        })?;
    }
}
