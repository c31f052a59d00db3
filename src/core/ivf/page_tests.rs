use proptest::prelude::*;

use super::directory;
use super::key::{Identity, PageKey};
use super::layout::{DATA_AT, Layout, PAGE_BYTES, PageBytes, SPECIAL_AT, UNASSIGNED_CAPACITY};
use super::list;
use super::meta::Chain;
use super::page::*;
use crate::core::kdf::DataKey;
use crate::core::secret::RootKey;
use crate::core::vector::distance::Metric;
use crate::core::vector::testing::Random;

const BLOCK: u32 = 5;
const COMMON: [usize; 7] = [3, 64, 384, 1024, 1536, 3072, 4000];

fn identity(dimensions: usize) -> Identity {
    let layout = Layout::new(dimensions).unwrap();
    Identity { index: [1; 16], keyring: [2; 16], metric: Metric::L2, layout }
}

fn key_of(identity: &Identity, version: u16) -> PageKey {
    let data = DataKey::derive(&RootKey::from_slice(&[version as u8; 32]).unwrap(), &identity.keyring, None);
    PageKey::derive(&data.unwrap(), version, identity)
}

fn key(dimensions: usize) -> PageKey {
    key_of(&identity(dimensions), 1)
}

fn empty(kind: Kind) -> PageBytes {
    let mut page = [0; PAGE_BYTES];
    init(&mut page, kind, 3, 7);
    page
}

fn tid(number: usize) -> Tid {
    Tid { block: number as u32 / 100, offset: number as u16 % 100 + 1 }
}

/// The bytes of a row; they tell which one it is.
fn row(layout: &Layout, number: usize) -> Vec<u8> {
    let mut random = Random::new(number as u64);
    (0..layout.rows.row_bytes()).map(|_| random.bits() as u8).collect()
}

/// A list page with so many rows.
fn page_of(key: &PageKey, rows: usize) -> PageBytes {
    let mut page = empty(Kind::List);
    for number in 0..rows {
        let row = row(&key.identity().layout, number);
        assert_eq!(list::append(&mut page, BLOCK, key, tid(number), &row), Ok(true), "row {number}");
    }
    page
}

/// The rows that live, with their addresses.
fn read_at(page: &PageBytes, block: u32, key: &PageKey) -> Result<Vec<(Tid, Vec<u8>)>, PageError> {
    let (layout, mut blocks) = (key.identity().layout, Vec::new());
    list::open(page, block, key, &mut blocks)?;
    let rows = Rows::parse(page, &layout)?.iter().enumerate().filter(|(_, (_, dead))| !dead);
    Ok(rows
        .map(|(at, (tid, _))| {
            let mut row = Vec::new();
            layout.rows.unpack(&blocks, at, &mut row);
            (tid, row)
        })
        .collect())
}

fn read(page: &PageBytes, key: &PageKey) -> Vec<(Tid, Vec<u8>)> {
    read_at(page, BLOCK, key).unwrap()
}

fn expected(key: &PageKey, rows: impl IntoIterator<Item = usize>) -> Vec<(Tid, Vec<u8>)> {
    rows.into_iter().map(|number| (tid(number), row(&key.identity().layout, number))).collect()
}

fn kill(page: &mut PageBytes, key: &PageKey, dead: &[usize]) -> Marked {
    mark_dead(page, &key.identity().layout, |row| dead.iter().any(|dead| tid(*dead) == row)).unwrap()
}

fn assert_hole_is_empty(page: &PageBytes, layout: &Layout) {
    let end = data_end(page, layout).unwrap();
    assert!(page[end..SPECIAL_AT].iter().all(|byte| *byte == 0));
}

#[test]
fn a_list_page_gives_back_what_was_appended() {
    for dimensions in COMMON {
        let (key, mut page) = (key(dimensions), empty(Kind::List));
        let layout = key.identity().layout;
        for number in 0..layout.capacity {
            assert_eq!(head(&page).map(|head| head.closed), Ok(false));
            assert_eq!(list::append(&mut page, BLOCK, &key, tid(number), &row(&layout, number)), Ok(true));
            assert_hole_is_empty(&page, &layout);
            if number % 20 < 3 || number + 3 > layout.capacity {
                assert_eq!(read(&page, &key), expected(&key, 0..=number));
            }
        }
        let full = page;
        assert_eq!(head(&page).map(|head| head.closed), Ok(true));
        assert_eq!(list::append(&mut page, BLOCK, &key, tid(9999), &row(&layout, 9999)), Ok(false));
        assert_eq!(page, full);
    }
}

#[test]
fn an_appended_row_changes_its_segment_and_nothing_else() {
    let key = key(384);
    let before = page_of(&key, 30);
    let mut after = before;
    list::append(&mut after, BLOCK, &key, tid(30), &row(&key.identity().layout, 30)).unwrap();
    let changed = (DATA_AT..PAGE_BYTES).filter(|at| before[*at] != after[*at]).count();
    assert!(changed < 4 * 56 + 28 + 6 + 2, "{changed} bytes changed");
}

#[test]
fn a_page_that_was_filled_may_have_room_left() {
    for dimensions in COMMON {
        let (key, mut page) = (key(dimensions), empty(Kind::List));
        let layout = key.identity().layout;
        let count = layout.capacity - 1;
        let tids: Vec<Tid> = (0..count).map(tid).collect();
        let rows: Vec<u8> = (0..count).flat_map(|number| row(&layout, number)).collect();
        list::fill(&mut page, BLOCK, &key, &tids, &rows).unwrap();
        assert_eq!(read(&page, &key), expected(&key, 0..count));
        assert_hole_is_empty(&page, &layout);
        assert_eq!(list::append(&mut page, BLOCK, &key, tid(count), &row(&layout, count)), Ok(true));
        assert_eq!(read(&page, &key), expected(&key, 0..=count));
    }
}

#[test]
fn dead_rows_leave_the_last_segment_with_the_next_row() {
    let key = key(384);
    let layout = key.identity().layout;
    let mut page = page_of(&key, 40);
    assert_eq!(kill(&mut page, &key, &[2, 30, 39]), Marked { newly: 3, live: 37 });
    assert_eq!(kill(&mut page, &key, &[2, 31]), Marked { newly: 1, live: 36 });
    list::append(&mut page, BLOCK, &key, tid(40), &row(&layout, 40)).unwrap();
    let live = (0..=40).filter(|number| ![2, 30, 31, 39].contains(number));
    assert_eq!(read(&page, &key), expected(&key, live));
    assert_eq!(head(&page).map(|head| head.rows), Ok(38));
    assert_hole_is_empty(&page, &layout);
}

#[test]
fn a_full_page_takes_a_row_for_one_that_died() {
    for dimensions in COMMON {
        let key = key(dimensions);
        let layout = key.identity().layout;
        let mut page = page_of(&key, layout.capacity);
        kill(&mut page, &key, &[1]);
        assert_eq!(list::append(&mut page, BLOCK, &key, tid(5000), &row(&layout, 5000)), Ok(true));
        let live = (0..layout.capacity).filter(|number| *number != 1).chain([5000]);
        assert_eq!(read(&page, &key), expected(&key, live));
        assert_eq!(list::append(&mut page, BLOCK, &key, tid(5001), &row(&layout, 5001)), Ok(false));
    }
}

#[test]
fn a_wholly_dead_page_is_emptied_without_a_key() {
    let key = key(384);
    let layout = key.identity().layout;
    let mut page = page_of(&key, 40);
    set_next(&mut page, Some(77)).unwrap();
    assert_eq!(reset_if_all_dead(&mut page, &layout), Ok(false));
    mark_dead(&mut page, &layout, |_| true).unwrap();
    assert_eq!(reset_if_all_dead(&mut page, &layout), Ok(true));
    let mut fresh = empty(Kind::List);
    set_next(&mut fresh, Some(77)).unwrap();
    assert_eq!(page, fresh);
    assert_eq!(reset_if_all_dead(&mut page, &layout), Ok(false));
    list::append(&mut page, BLOCK, &key_of(key.identity(), 2), tid(1), &row(&layout, 1)).unwrap();
}

#[test]
fn a_page_goes_over_to_the_next_key_version() {
    let old = key(384);
    let new = key_of(old.identity(), 2);
    for rows in [0, 40, 128] {
        let mut page = page_of(&old, rows);
        if rows > 0 {
            kill(&mut page, &old, &[0]);
            assert_eq!(read_at(&page, BLOCK, &new), Err(PageError::OtherVersion(1)));
        }
        list::reseal(&mut page, BLOCK, &old, &new).unwrap();
        assert_eq!(read(&page, &new), expected(&old, 1..rows.max(1)));
        assert_hole_is_empty(&page, &old.identity().layout);
    }
}

#[test]
fn a_page_opens_only_where_it_belongs() {
    let key = key(384);
    let page = page_of(&key, 40);
    assert_eq!(read_at(&page, BLOCK + 1, &key), Err(PageError::Authentication));
    let of = *key.identity();
    let others = [
        Identity { index: [9; 16], ..of },
        Identity { keyring: [9; 16], ..of },
        Identity { metric: Metric::Cosine, ..of },
        Identity { layout: Layout::new(383).unwrap(), ..of },
    ];
    for other in others {
        assert_eq!(read_at(&page, BLOCK, &key_of(&other, 1)), Err(PageError::Authentication), "{other:?}");
    }
    // The key that another index's identity gives is another one, and the page says what it is.
    for at in [4, 8] {
        let mut moved = page;
        moved[SPECIAL_AT + at] ^= 1;
        assert_eq!(read_at(&moved, BLOCK, &key), Err(PageError::Authentication));
    }
}

#[test]
fn segments_of_one_page_do_not_change_places() {
    let key = key(384);
    let layout = key.identity().layout;
    let mut page = page_of(&key, 54);
    let at = layout.segments_at();
    let (first, second) =
        page[at..at + 2 * layout.tail_segment_bytes()].split_at_mut(layout.tail_segment_bytes());
    first.swap_with_slice(second);
    assert_eq!(read_at(&page, BLOCK, &key), Err(PageError::Authentication));
}

#[test]
fn nonces_are_new_for_every_page_and_every_seal() {
    let key = key(384);
    let [one, other] = [page_of(&key, 3), page_of(&key, 3)];
    let at = key.identity().layout.segments_at();
    assert_ne!(one[DATA_AT..DATA_AT + 12], other[DATA_AT..DATA_AT + 12]);
    let mut more = one;
    list::append(&mut more, BLOCK, &key, tid(3), &row(&key.identity().layout, 3)).unwrap();
    assert_eq!(one[DATA_AT..DATA_AT + 12], more[DATA_AT..DATA_AT + 12]);
    assert_ne!(one[at..at + 12], more[at..at + 12]);
}

/// Whatever is changed: an error, or the rows that were there, some perhaps hidden, never another one.
fn assert_harmless(page: &PageBytes, key: &PageKey, all: &[(Tid, Vec<u8>)]) {
    if let Ok(rows) = read_at(page, BLOCK, key) {
        assert!(rows.iter().all(|row| all.contains(row)), "a row that nobody wrote");
    }
}

#[test]
fn a_changed_byte_never_makes_another_row() {
    for (dimensions, rows) in [(384, 40), (384, 128), (3072, 5)] {
        let key = key(dimensions);
        let page = page_of(&key, rows);
        let all = expected(&key, 0..rows);
        let end = data_end(&page, &key.identity().layout).unwrap();
        let mut random = Random::new(3);
        // Of the ciphertext every 16th byte: one of each block of the cipher.
        let clear = key.identity().layout.segments_at() + 28;
        for at in (DATA_AT..clear).chain((clear..end).step_by(16)).chain(SPECIAL_AT..PAGE_BYTES) {
            let mut changed = page;
            changed[at] ^= 1 << random.below(8);
            assert_harmless(&changed, &key, &all);
        }
    }
}

#[test]
fn an_impossible_address_is_refused() {
    let key = key(384);
    let layout = key.identity().layout;
    for tid in
        [Tid { block: 0, offset: 0 }, Tid { block: 0, offset: 292 }, Tid { block: u32::MAX, offset: 1 }]
    {
        let mut page = page_of(&key, 3);
        page[layout.tids_at()..layout.tids_at() + 6].copy_from_slice(&tid.to_bytes());
        assert!(matches!(Rows::parse(&page, &layout), Err(PageError::Malformed(_))));
        assert!(append_unassigned(&mut empty(Kind::Unassigned), &layout, tid).is_err());
    }
}

#[test]
fn an_unassigned_page_takes_addresses_without_a_key() {
    let layout = Layout::new(384).unwrap();
    let mut page = empty(Kind::Unassigned);
    for number in 0..UNASSIGNED_CAPACITY {
        assert_eq!(append_unassigned(&mut page, &layout, tid(number)), Ok(true));
    }
    assert_eq!(append_unassigned(&mut page, &layout, tid(0)), Ok(false));
    assert!(data_end(&page, &layout).unwrap() <= SPECIAL_AT);
    let marked = mark_dead(&mut page, &layout, |tid| tid.block == 0).unwrap();
    assert_eq!(marked, Marked { newly: 100, live: UNASSIGNED_CAPACITY - 100 });
    let rows: Vec<(Tid, bool)> = Rows::parse(&page, &layout).unwrap().iter().collect();
    assert!(rows.iter().enumerate().all(|(number, row)| *row == (tid(number), number < 100)));
    mark_dead(&mut page, &layout, |_| true).unwrap();
    assert_eq!(reset_if_all_dead(&mut page, &layout), Ok(true));
    assert_eq!(append_unassigned(&mut page, &layout, tid(1)), Ok(true));
}

#[test]
fn a_directory_page_keeps_chains_and_centroids() {
    for dimensions in COMMON {
        let (old, mut page) = (key(dimensions), empty(Kind::Directory));
        let (new, layout) = (key_of(old.identity(), 2), old.identity().layout);
        let lists = layout.directory_capacity();
        let chains: Vec<Chain> =
            (0..lists as u32).map(|list| Chain { first: Some(list), last: Some(9) }).collect();
        let mut centroids = Random::new(4).vector(lists * layout.rotated_dimensions());
        directory::round(&mut centroids);
        directory::fill(&mut page, BLOCK, &old, &chains, &centroids).unwrap();
        directory::set_chain(&mut page, &layout, lists - 1, Chain::default()).unwrap();
        assert!(directory::set_chain(&mut page, &layout, lists, Chain::default()).is_err());
        assert_hole_is_empty(&page, &layout);
        directory::reseal(&mut page, BLOCK, &old, &new).unwrap();
        let mut opened = vec![1.0; centroids.len() + 1];
        directory::open(&page, BLOCK, &new, &mut opened).unwrap();
        assert_eq!(opened.split_last(), Some((&1.0, &centroids[..])));
        let few = &mut opened[2..];
        assert_eq!(directory::open(&page, BLOCK, &new, few), Err(PageError::Capacity));
        assert_eq!(directory::verify(&page, BLOCK, &new), Ok(()));
        let read: Vec<Chain> = directory::chains(&page, &layout).unwrap().collect();
        assert_eq!((&read[..lists - 1], read[lists - 1]), (&chains[..lists - 1], Chain::default()));
        assert_eq!(directory::open(&page, 6, &new, &mut opened), Err(PageError::Authentication));
    }
}

proptest! {
    #[test]
    fn a_page_of_any_bytes_never_panics(
        seed in any::<u64>(),
        special in proptest::collection::vec(any::<u8>(), 20),
        kind in 1..=5_u8,
        rows in 0..2000_u16,
        dimensions in prop::sample::select(COMMON.to_vec()),
    ) {
        let (key, mut page, mut random) = (key(dimensions), empty(Kind::Free), Random::new(seed));
        let layout = key.identity().layout;
        page[DATA_AT..SPECIAL_AT].fill_with(|| random.bits() as u8 % 3);
        page[SPECIAL_AT..SPECIAL_AT + 12].copy_from_slice(&special[..12]);
        page[SPECIAL_AT + 12..SPECIAL_AT + 14].copy_from_slice(&rows.to_le_bytes());
        page[SPECIAL_AT + 14..SPECIAL_AT + 16].copy_from_slice(&[special[14] % 2, 0]);
        page[SPECIAL_AT + 16] = kind;
        page[SPECIAL_AT + 18] = special[18] % 2;
        assert_harmless(&page, &key, &[]);
        let _ = data_end(&page, &layout);
        let _ = directory::verify(&page, BLOCK, &key);
        let _ = directory::reseal(&mut page.clone(), BLOCK, &key, &key);
        let _ = directory::chains(&page, &layout).map(Iterator::count);
        let _ = append_unassigned(&mut page.clone(), &layout, tid(1));
        let _ = list::append(&mut page.clone(), BLOCK, &key, tid(1), &row(&layout, 1));
        let _ = list::reseal(&mut page.clone(), BLOCK, &key, &key);
        let _ = mark_dead(&mut page, &layout, |_| true);
        let _ = reset_if_all_dead(&mut page, &layout);
    }
}
