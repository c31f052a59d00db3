//! Writing the lists of a new index.

use zeroize::Zeroizing;

use crate::core::memory;

use super::directory;
use super::index::{Index, Placed};
use super::key::{HeldPageKey, PageKey};
use super::layout::{Layout, PAGE_BYTES, PageBytes};
use super::list;
use super::meta::Chain;
use super::page::{self, Kind, PageError, Tid};

/// Where a new index's pages go.
pub trait NewPages {
    /// What writing can end in.
    type Error: From<PageError>;

    /// Takes a block that nobody has, to be written later.
    fn reserve(&mut self) -> Result<u32, Self::Error>;

    /// Writes a block that was reserved; what comes before the data is the caller's.
    fn write(&mut self, block: u32, page: &PageBytes) -> Result<(), Self::Error>;
}

/// How many lists an index of so many rows is made with where nobody says: one as long as scoring every row is fast, then
/// so many that reading a few takes about as long as ranking all, each of about one page to some.
pub fn default_lists(rows: u64) -> u32 {
    const MOST_IN_ONE: u64 = 50_000;
    const PER_LIST: std::ops::RangeInclusive<u64> = 140..=500;
    if rows < MOST_IN_ONE {
        return 1;
    }
    let lists = (2 * rows.isqrt()).clamp(rows / PER_LIST.end(), rows / PER_LIST.start());
    u32::try_from(lists).unwrap_or(u32::MAX)
}

/// The lists of an index while they are written: a page of each is in memory.
pub struct Builder {
    key: HeldPageKey,
    generation: u32,
    lists: Vec<Filling>,
}

/// A list's last page.
struct Filling {
    chain: Chain,
    tids: Vec<Tid>,
    rows: Zeroizing<Vec<u8>>,
}

impl Builder {
    /// Takes a block for each list of `index`, so that each has a first page that never changes.
    pub fn new<N: NewPages>(index: &Index, key: HeldPageKey, pages: &mut N) -> Result<Self, N::Error> {
        let mut lists = Vec::new();
        for _ in 0..index.lists() {
            let block = pages.reserve()?;
            let chain = Chain { first: Some(block), last: Some(block) };
            lists.push(Filling { chain, tids: Vec::new(), rows: Zeroizing::default() });
        }
        Ok(Builder { key, generation: index.meta().generation, lists })
    }

    /// Adds a row to its list.
    pub fn add<N: NewPages>(&mut self, tid: Tid, placed: &Placed, pages: &mut N) -> Result<(), N::Error> {
        let layout = self.key.identity.layout;
        let list = self.lists.get_mut(placed.list as usize).ok_or(PageError::Capacity)?;
        if list.tids.len() == layout.capacity {
            let next = pages.reserve()?;
            list.write(&self.key, placed.list, self.generation, Some(next), pages)?;
            list.chain.last = Some(next);
        }
        list.push(&layout, tid, &placed.row).map_err(PageError::from)?;
        Ok(())
    }

    /// Writes what is left. Gives the chains of the lists.
    pub fn finish<N: NewPages>(mut self, pages: &mut N) -> Result<Vec<Chain>, N::Error> {
        for (number, list) in self.lists.iter_mut().enumerate() {
            list.write(&self.key, number as u32, self.generation, None, pages)?;
        }
        Ok(self.lists.iter().map(|list| list.chain).collect())
    }
}

impl Filling {
    fn push(&mut self, layout: &Layout, tid: Tid, row: &[u8]) -> Result<(), memory::OutOfMemory> {
        if self.rows.capacity() == 0 {
            *self.rows = memory::room(layout.capacity * layout.rows.row_bytes())?;
        }
        memory::push(&mut self.tids, tid)?;
        memory::append(&mut self.rows, row)
    }

    /// Writes the last page and begins an empty one.
    fn write<N: NewPages>(
        &mut self,
        key: &PageKey,
        list: u32,
        generation: u32,
        next: Option<u32>,
        pages: &mut N,
    ) -> Result<(), N::Error> {
        let Some(block) = self.chain.last else { return Ok(()) };
        let mut page = [0; PAGE_BYTES];
        page::init(&mut page, Kind::List, list, generation);
        page::set_next(&mut page, next)?;
        list::fill(&mut page, block, key, &self.tids, &self.rows)?;
        self.tids.clear();
        self.rows.clear();
        pages.write(block, &page)
    }
}

/// Writes the directory of an index whose lists have these chains. Gives its first block.
pub fn write_directory<N: NewPages>(
    index: &Index,
    key: &PageKey,
    chains: &[Chain],
    pages: &mut N,
) -> Result<u32, N::Error> {
    let layout = index.meta().layout;
    let first = pages.reserve()?;
    let (mut block, mut list) = (first, 0);
    for chains in chains.chunks(layout.directory_capacity()) {
        let end = list + chains.len();
        let next = if end < index.lists() { Some(pages.reserve()?) } else { None };
        let mut page = [0; PAGE_BYTES];
        page::init(&mut page, Kind::Directory, list as u32, index.meta().generation);
        page::set_next(&mut page, next)?;
        let mut centroids = Zeroizing::new(Vec::new());
        (list..end).for_each(|list| centroids.extend_from_slice(index.centroid(list)));
        directory::fill(&mut page, block, key, chains, &centroids)?;
        pages.write(block, &page)?;
        (block, list) = (next.unwrap_or(block), end);
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_one_for_few_rows_and_grow_with_their_root() {
        let cases =
            [(0, 1), (49_999, 1), (50_000, 357), (100_000, 632), (1_000_000, 2_000), (10_000_000, 20_000)];
        for (rows, lists) in cases {
            assert_eq!(default_lists(rows), lists, "{rows} rows");
        }
    }
}
