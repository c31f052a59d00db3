//! Pages of an index: any bytes are read or refused, and a changed page gives no row that was not put there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgseal::core::ivf::key::{Identity, PageKey};
use pgseal::core::ivf::layout::{DATA_AT, Layout, PAGE_BYTES, PageBytes, SPECIAL_AT};
use pgseal::core::ivf::meta::{Chain, Meta};
use pgseal::core::ivf::page::{
    Kind, Rows, Tid, append_unassigned, data_end, head, init, mark_dead, reset_if_all_dead, set_next,
};
use pgseal::core::ivf::{directory, list};
use pgseal::core::vector::distance::Metric;
use pgseal_fuzz::{Input, KEYRING, change, data_key};

const BLOCK: u32 = 5;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (of, dimensions) = (input.byte(), 1 + usize::from(input.half()) % 4_000);
    let keys = [1, 2].map(|version| key(dimensions, version));
    match of % 3 {
        0 => from_anywhere(input, &keys),
        1 => changed_list(input, &keys),
        _ => changed_directory(input, &keys),
    }
});

fn key(dimensions: usize, version: u16) -> PageKey {
    let layout = Layout::new(dimensions).unwrap();
    let identity = Identity { index: [1; 16], keyring: KEYRING, metric: Metric::L2, layout };
    PageKey::derive(data_key(version), version, &identity)
}

/// The special area, then the data.
fn from_anywhere(mut input: Input<'_>, keys: &[PageKey; 2]) {
    let mut page = [0; PAGE_BYTES];
    page[SPECIAL_AT..].copy_from_slice(&input.array::<{ PAGE_BYTES - SPECIAL_AT }>());
    let data = input.rest();
    let length = data.len().min(SPECIAL_AT - DATA_AT);
    page[DATA_AT..][..length].copy_from_slice(&data[..length]);
    reads(&page);
    survives(&page, keys);
}

fn reads(page: &PageBytes) {
    let Ok(meta) = Meta::read(page) else { return };
    let mut again = [0; PAGE_BYTES];
    init(&mut again, Kind::Meta, 0, 0);
    meta.write(&mut again);
    assert_eq!(Meta::read(&again), Ok(meta));
    assert!(meta.is_of(&meta) && meta.has_lists_of(&meta));
}

/// All that is done to a page, whatever is on it.
fn survives(page: &PageBytes, keys: &[PageKey; 2]) {
    let [old, new] = keys;
    let layout = &old.identity().layout;
    if let Ok(rows) = Rows::parse(page, layout) {
        assert!((DATA_AT..=SPECIAL_AT).contains(&data_end(page, layout).unwrap()));
        assert!(rows.live() <= rows.iter().len());
    }
    with(page, |page| {
        if let Ok(marked) = mark_dead(page, layout, |_| true) {
            assert_eq!((marked.live, Rows::parse(page, layout).unwrap().live()), (0, 0));
            let rows = head(page).unwrap().rows;
            assert_eq!(reset_if_all_dead(page, layout), Ok(rows > 0));
        }
    });
    with(page, |page| {
        let row = vec![7; layout.rows.row_bytes()];
        // Only the last segment is opened for it.
        let was_whole = list::open(page, BLOCK, old, &mut Vec::new()).is_ok();
        if list::append(page, BLOCK, old, tid(9), &row) == Ok(true) {
            assert!(Rows::parse(page, layout).unwrap().iter().any(|(found, _)| found == tid(9)));
            assert!(!was_whole || list::open(page, BLOCK, old, &mut Vec::new()).is_ok());
        }
    });
    with(page, |page| {
        if list::reseal(page, BLOCK, old, new).is_ok() {
            assert!(list::open(page, BLOCK, new, &mut Vec::new()).is_ok());
        }
    });
    with(page, |page| {
        if directory::reseal(page, BLOCK, old, new).is_ok() {
            assert!(directory::verify(page, BLOCK, new).is_ok());
        }
    });
    with(page, |page| {
        if append_unassigned(page, layout, tid(9)) == Ok(true) {
            assert_eq!(Rows::parse(page, layout).unwrap().iter().last(), Some((tid(9), false)));
        }
    });
    with(page, |page| {
        let chain = Chain { first: Some(3), last: Some(u32::MAX - 1) };
        if directory::set_chain(page, layout, 0, chain).is_ok() {
            assert_eq!(directory::chains(page, layout).unwrap().next(), Some(chain));
        }
    });
    with(page, |page| {
        if set_next(page, Some(8)).is_ok() {
            assert_eq!(head(page).unwrap().next, Some(8));
        }
    });
}

fn with(page: &PageBytes, act: impl FnOnce(&mut PageBytes)) {
    act(&mut page.clone());
}

fn tid(number: usize) -> Tid {
    Tid { block: number as u32 / 100, offset: number as u16 % 100 + 1 }
}

/// How many rows are put on a page, is it closed, and what is changed.
fn changed_list(mut input: Input<'_>, keys: &[PageKey; 2]) {
    let key = &keys[0];
    let layout = &key.identity().layout;
    let (count, closed) = (usize::from(input.byte()) % (layout.capacity + 1), input.byte() % 2 == 1);
    let mut page = [0; PAGE_BYTES];
    init(&mut page, Kind::List, 3, 7);
    let tids: Vec<Tid> = (0..count).map(tid).collect();
    let rows: Vec<u8> = (0..count * layout.rows.row_bytes()).map(|at| at as u8).collect();
    if closed && count > 0 {
        list::fill(&mut page, BLOCK, key, &tids, &rows).unwrap();
    } else {
        let rows = tids.iter().zip(rows.chunks(layout.rows.row_bytes()));
        rows.for_each(|(tid, row)| assert_eq!(list::append(&mut page, BLOCK, key, *tid, row), Ok(true)));
    }
    assert_eq!(opened(&page, BLOCK, key), Some((tids.clone(), rows.clone())));
    assert!(count == 0 || opened(&page, BLOCK + 1, key).is_none());
    change(&mut page[DATA_AT..], input.rest());
    if let Some((found_tids, found_rows)) = opened(&page, BLOCK, key) {
        // Whoever writes files can take whole segments away, and no more.
        assert!(tids.starts_with(&found_tids) && rows.starts_with(&found_rows));
    }
    survives(&page, keys);
}

/// Addresses and rows of a page, read in both ways.
fn opened(page: &PageBytes, block: u32, key: &PageKey) -> Option<(Vec<Tid>, Vec<u8>)> {
    let (layout, mut blocks) = (&key.identity().layout, Vec::new());
    let outcome = list::open(page, block, key, &mut blocks);
    let (mut copy, mut room) = (*page, Vec::new());
    let in_place = list::open_in_place(&mut copy, block, key, &mut room);
    let tids: Vec<Tid> = Rows::parse(page, layout).ok()?.iter().map(|(tid, _)| tid).collect();
    assert!(in_place.map(|(_, found)| found == blocks) == outcome.map(|()| true));
    outcome.ok()?;
    let mut rows = Vec::new();
    (0..tids.len()).for_each(|row| layout.rows.unpack(&blocks, row, &mut rows));
    Some((tids, rows))
}

/// How many lists a directory has, and what is changed.
fn changed_directory(mut input: Input<'_>, keys: &[PageKey; 2]) {
    let key = &keys[0];
    let layout = &key.identity().layout;
    let lists = 1 + usize::from(input.byte()) % layout.directory_capacity();
    let chains = vec![Chain { first: Some(1), last: Some(2) }; lists];
    let mut centroids: Vec<f32> = (0..lists * layout.rotated_dimensions()).map(|at| at as f32).collect();
    directory::round(&mut centroids);
    let mut page = [0; PAGE_BYTES];
    init(&mut page, Kind::Directory, 0, 7);
    directory::fill(&mut page, BLOCK, key, &chains, &centroids).unwrap();
    assert!(directory::chains(&page, layout).unwrap().eq(chains));
    change(&mut page[DATA_AT..], input.rest());
    let mut found = vec![-1.0; centroids.len()];
    match directory::open(&page, BLOCK, key, &mut found) {
        // Without a version there is nothing sealed.
        Ok(()) => assert!(found == centroids || head(&page).unwrap().version == 0),
        Err(_) => assert!(found.iter().all(|element| *element == -1.0)),
    }
    survives(&page, keys);
}
