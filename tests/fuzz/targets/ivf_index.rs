//! A whole index whose pages were changed: opening and searching end, and give rows of the table, each once.
#![no_main]

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pgseal::core::held::{Guard, Held, HeldNumbers};
use pgseal::core::ivf::build::{Builder, NewPages, write_directory};
use pgseal::core::ivf::directory;
use pgseal::core::ivf::index::Index;
use pgseal::core::ivf::key::{HeldPageKey, PageKey};
use pgseal::core::ivf::layout::{DATA_AT, Layout, PAGE_BYTES, PageBytes};
use pgseal::core::ivf::meta::{Chain, Meta};
use pgseal::core::ivf::page::{self, Kind, PageError, Tid};
use pgseal::core::ivf::search::{Late, Options, Search};
use pgseal::core::ivf::source::{Pages, Rows};
use pgseal::core::vector::distance::Metric;
use pgseal::core::vector::quantiser::Quantiser;
use pgseal_fuzz::{Input, KEYRING, KEYRING_ID, change, data_key};

const DIMENSIONS: usize = 11;
const ROWS: usize = 150;
/// Pages that are read for one search, at most: some times all of them for each few rows.
const MOST_READS: usize = 5_000;

/// The pages of an index of one list, and of one of several.
static BUILT: LazyLock<[Vec<PageBytes>; 2]> = LazyLock::new(|| [1, 12].map(built));

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut pages = BUILT[usize::from(input.byte()) % 2].clone();
    let options = Options {
        patience: input.byte().into(),
        late: [Late::AtEnd, Late::Never, Late::AtOnce][usize::from(input.byte()) % 3],
        most_candidates: 8 + usize::from(input.byte()),
        ..Options::default()
    };
    while !input.is_empty() {
        let number = usize::from(input.byte()) % pages.len();
        change(&mut pages[number][DATA_AT..], input.part());
    }
    let Ok(meta) = Meta::read(&pages[0]) else { return };
    let mut world = World { pages, meta, reads: 0, keys: HashMap::new() };
    let Ok(index) = Index::open(meta, Guard::NONE, &mut world) else { return };
    let query = vec![0.5; meta.layout.dimensions];
    for query in [Some(query.as_slice()), None] {
        searched(&mut world, Search::new(&index, query, options), options);
    }
});

fn searched(world: &mut World, mut search: Search, options: Options) {
    world.reads = 0;
    let (mut seen, mut last) = (HashSet::new(), f64::NEG_INFINITY);
    while let Ok(Some(hit)) = search.next(world) {
        assert!(seen.insert(hit.tid), "twice");
        assert_eq!(world.distance(hit.tid), Ok(Some(hit.distance)));
        assert!(options.late != Late::Never || hit.distance >= last);
        last = hit.distance;
    }
    assert!(seen.len() <= ROWS);
}

struct World {
    pages: Vec<PageBytes>,
    meta: Meta,
    reads: usize,
    keys: HashMap<u16, HeldPageKey>,
}

impl Pages for World {
    type Error = PageError;

    fn blocks(&mut self) -> Result<u32, PageError> {
        Ok(self.pages.len() as u32)
    }

    fn read(&mut self, block: u32, page: &mut PageBytes) -> Result<(), PageError> {
        self.reads += 1;
        assert!(self.reads < MOST_READS, "a search without an end");
        *page = *self.pages.get(block as usize).ok_or(PageError::Foreign)?;
        Ok(())
    }

    fn key(&mut self, version: u16) -> Result<HeldPageKey, PageError> {
        Ok(self.keys.entry(version).or_insert_with(|| key(&self.meta, version)).clone())
    }
}

impl Rows for World {
    fn distance(&mut self, tid: Tid) -> Result<Option<f64>, PageError> {
        let number = tid.block as usize * 50 + usize::from(tid.offset) - 1;
        let query = [0.5; DIMENSIONS];
        Ok((number < ROWS && tid == self::tid(number)).then(|| Metric::L2.distance(&vector(number), &query)))
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

fn key(meta: &Meta, version: u16) -> HeldPageKey {
    Held::new(PageKey::derive(data_key(version), version, &meta.identity(KEYRING)), Guard::NONE)
}

fn tid(number: usize) -> Tid {
    Tid { block: number as u32 / 50, offset: number as u16 % 50 + 1 }
}

/// Points on a grid, so that distances are exact.
fn vector(number: usize) -> Vec<f32> {
    (0..DIMENSIONS).map(|at| (number * (at + 3) % 17) as f32).collect()
}

fn built(lists: usize) -> Vec<PageBytes> {
    let layout = Layout::new(DIMENSIONS).unwrap();
    let meta = Meta {
        index: [7; 16],
        keyring: KEYRING_ID,
        metric: Metric::L2,
        layout,
        lists: lists as u32,
        generation: 3,
        directory: None,
        list: Chain::default(),
        unassigned: Chain::default(),
        built_rows: ROWS as u64,
        unassigned_rows: 0,
    };
    let quantiser = Quantiser::new(&meta.index, meta.metric, layout.rows);
    let centres = (0..lists).map(|list| quantiser.prepare(&vector(list * ROWS / lists)).unwrap());
    let mut centroids = centres.collect::<Vec<_>>().concat();
    directory::round(&mut centroids);
    let index = Index::new(meta, HeldNumbers::copy(&centroids, Guard::NONE).unwrap()).unwrap();
    let mut world = World { pages: vec![[0; PAGE_BYTES]], meta, reads: 0, keys: HashMap::new() };
    let key = key(&meta, 1);
    let mut builder = Builder::new(&index, key.clone(), &mut world).unwrap();
    for number in 0..ROWS - 3 {
        builder.add(tid(number), &index.place(&vector(number)).unwrap().unwrap(), &mut world).unwrap();
    }
    let chains = builder.finish(&mut world).unwrap();
    world.meta.directory = Some(write_directory(&index, &key, &chains, &mut world).unwrap());
    world.meta.list = if lists == 1 { chains[0] } else { Chain::default() };
    add_unassigned(&mut world);
    page::init(&mut world.pages[0], Kind::Meta, 0, 3);
    let meta = world.meta;
    meta.write(&mut world.pages[0]);
    world.pages
}

/// The last rows have no code.
fn add_unassigned(world: &mut World) {
    let block = world.reserve().unwrap();
    let page = &mut world.pages[block as usize];
    page::init(page, Kind::Unassigned, 0, 3);
    for number in ROWS - 3..ROWS {
        assert_eq!(page::append_unassigned(page, &world.meta.layout, tid(number)), Ok(true));
    }
    world.meta.unassigned = Chain { first: Some(block), last: Some(block) };
}
