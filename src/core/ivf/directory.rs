//! Directory pages: where the chains of lists begin, in the clear, and the lists' sealed centroids.
//!
//! A page has the lists from [`super::page::Head::list`] on. Centroids are rotated vectors of bfloat16 elements: what is
//! stored is what rows were encoded against.

use zeroize::Zeroizing;

use crate::core::memory;
use crate::core::vector::code::{from_bf16, to_bf16};

use super::key::PageKey;
use super::layout::{DATA_AT, ENTRY_BYTES, Layout, PageBytes, SALT_BYTES, SEGMENT_HEAD_BYTES, SPECIAL_AT};
use super::meta::Chain;
use super::page::{Head, Kind, PageError, head, write_head};
use super::segment::{self, Named};

const ENTRIES_AT: usize = DATA_AT + SALT_BYTES;

/// Rounds the elements of a centroid to what a page keeps of them.
pub fn round(centroid: &mut [f32]) {
    centroid.iter_mut().for_each(|element| *element = from_bf16(to_bf16(*element)));
}

/// Writes the chains of some lists and their centroids, one after the other, to an empty directory page.
pub fn fill(
    page: &mut PageBytes,
    block: u32,
    key: &PageKey,
    chains: &[Chain],
    centroids: &[f32],
) -> Result<(), PageError> {
    let layout = &key.identity.layout;
    let old = checked(page, layout)?;
    let fits = (1..=layout.directory_capacity()).contains(&chains.len())
        && centroids.len() == chains.len() * layout.rotated_dimensions();
    if !fits || old.rows != 0 {
        return Err(PageError::Capacity);
    }
    let mut plain = Zeroizing::new(memory::room(centroids.len() * 2)?);
    plain.extend(centroids.iter().flat_map(|element| to_bf16(*element)));
    segment::draw_salt(page)?;
    write_head(page, Head { rows: chains.len() as u16, version: key.version, ..old });
    chains.iter().enumerate().for_each(|(at, chain)| put(page, at, *chain));
    segment::seal(page, block, key, layout.centroids_at(), &named(chains.len()), &mut plain)
}

/// Writes the centroids of a directory page to where `centroids` begins; there is room for them.
pub fn open(page: &PageBytes, block: u32, key: &PageKey, centroids: &mut [f32]) -> Result<(), PageError> {
    let layout = &key.identity.layout;
    let head = checked(page, layout)?;
    match head.version {
        0 => return Ok(()),
        version if version == key.version => (),
        version => return Err(PageError::OtherVersion(version)),
    }
    let lists = usize::from(head.rows);
    if centroids.len() < lists * layout.rotated_dimensions() {
        return Err(PageError::Capacity);
    }
    let mut plain = Zeroizing::new(memory::zeroed(lists * layout.centroid_bytes())?);
    segment::open(page, block, key, layout.centroids_at(), &named(lists), &mut plain)?;
    let elements = plain.as_chunks().0.iter().map(|element| from_bf16(*element));
    centroids.iter_mut().zip(elements).for_each(|(centre, element)| *centre = element);
    Ok(())
}

/// Opens a directory page and gives nothing away.
pub fn verify(page: &PageBytes, block: u32, key: &PageKey) -> Result<(), PageError> {
    open(page, block, key, &mut room(&key.identity.layout)?)
}

/// For the centroids of a full page.
fn room(layout: &Layout) -> Result<Zeroizing<Vec<f32>>, PageError> {
    let elements = layout.directory_capacity() * layout.rotated_dimensions();
    let mut room = Zeroizing::new(memory::room(elements)?);
    room.resize(elements, 0.0);
    Ok(room)
}

/// Seals a directory page anew under `new`.
pub fn reseal(page: &mut PageBytes, block: u32, old: &PageKey, new: &PageKey) -> Result<(), PageError> {
    let layout = &old.identity.layout;
    let mut centroids = room(layout)?;
    open(page, block, old, &mut centroids)?;
    let chains = memory::collect(self::chains(page, layout)?)?;
    write_head(page, Head { rows: 0, version: 0, ..head(page)? });
    page[DATA_AT..SPECIAL_AT].fill(0);
    let centroids = &centroids[..chains.len() * layout.rotated_dimensions()];
    if chains.is_empty() { Ok(()) } else { fill(page, block, new, &chains, centroids) }
}

/// The chains of the page's lists; no key needed.
pub fn chains<'a>(
    page: &'a PageBytes,
    layout: &Layout,
) -> Result<impl ExactSizeIterator<Item = Chain> + 'a, PageError> {
    let lists = usize::from(checked(page, layout)?.rows);
    let (entries, _) = page[ENTRIES_AT..][..lists * ENTRY_BYTES].as_chunks::<ENTRY_BYTES>();
    Ok(entries.iter().map(|[a, b, c, d, e, f, g, h]| {
        // Block 0 is no list's, so a block is stored as its successor and none as 0.
        let block = |bytes| u32::from_le_bytes(bytes).checked_sub(1);
        Chain { first: block([*a, *b, *c, *d]), last: block([*e, *f, *g, *h]) }
    }))
}

/// Writes the chain of the page's list number `at`; no key needed.
pub fn set_chain(page: &mut PageBytes, layout: &Layout, at: usize, chain: Chain) -> Result<(), PageError> {
    let exists = at < usize::from(checked(page, layout)?.rows);
    if exists {
        put(page, at, chain);
    }
    exists.then_some(()).ok_or(PageError::Capacity)
}

/// Where the data of a directory page end.
pub(super) fn end(head: &Head, layout: &Layout) -> usize {
    match head.rows {
        0 => ENTRIES_AT,
        lists => layout.centroids_at() + SEGMENT_HEAD_BYTES + usize::from(lists) * layout.centroid_bytes(),
    }
}

fn put(page: &mut PageBytes, at: usize, chain: Chain) {
    let entry = &mut page[ENTRIES_AT + at * ENTRY_BYTES..][..ENTRY_BYTES];
    let block = |block: Option<u32>| block.map_or(0, |block| block.wrapping_add(1)).to_le_bytes();
    entry[..4].copy_from_slice(&block(chain.first));
    entry[4..].copy_from_slice(&block(chain.last));
}

/// Inserts change the chains without a key, so the centroids vouch for nothing but their number.
fn named(lists: usize) -> Named {
    Named { number: 0, rows: lists, clear: 0..0 }
}

fn checked(page: &PageBytes, layout: &Layout) -> Result<Head, PageError> {
    let head = head(page)?;
    if head.kind != Kind::Directory {
        return Err(PageError::OtherKind);
    }
    let fits = usize::from(head.rows) <= layout.directory_capacity();
    fits.then_some(head).ok_or(PageError::Malformed("more lists than fit"))
}
