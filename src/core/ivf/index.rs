//! An index as one statement uses it: its description, its centroids, and how vectors become rows of it.

use crate::core::held::{Guard, HeldNumbers};
use crate::core::memory::{self, OutOfMemory};
use crate::core::vector::kmeans;
use crate::core::vector::quantiser::Quantiser;

use super::directory;
use super::layout::{PAGE_BYTES, PageBytes};
use super::meta::{Chain, Meta};
use super::page::{self, PageError};
use super::source::Pages;

/// An index that is open.
pub struct Index {
    meta: Meta,
    quantiser: Quantiser,
    /// One after the other.
    centroids: HeldNumbers,
    chains: Vec<Chain>,
    directory: Vec<u32>,
    /// Of the data keys that seal the directory.
    versions: Vec<u16>,
}

/// A vector's row and the list it belongs to.
pub struct Placed {
    /// Number of the list.
    pub list: u32,
    /// To be appended to it.
    pub row: Vec<u8>,
}

impl Index {
    /// Reads the directory of the index that block 0 describes. Without one there is a single list, around zero.
    pub fn open<P: Pages>(meta: Meta, guard: Guard, pages: &mut P) -> Result<Self, P::Error> {
        let most = u64::from(pages.blocks()?) * meta.layout.directory_capacity() as u64;
        if u64::from(meta.lists) > most.max(1) {
            return Err(PageError::Malformed("more lists than there is room for").into());
        }
        let centroids = HeldNumbers::zeroed(meta.lists as usize * meta.layout.rotated_dimensions(), guard);
        let mut index = Self::with(meta, centroids.map_err(PageError::from)?);
        index.read_directory(pages)?;
        if meta.directory.is_none() || meta.lists == 1 {
            index.chains = vec![meta.list];
        }
        let is_whole = index.chains.len() == meta.lists as usize;
        is_whole.then_some(index).ok_or(PageError::Malformed("a directory of other lists").into())
    }

    /// An index that is being built, its centroids prepared as vectors are and rounded by [`directory::round`].
    /// `None` where they are not as many as the description says.
    pub fn new(meta: Meta, centroids: HeldNumbers) -> Option<Self> {
        let lists = meta.lists as usize;
        let fits = centroids.len() == lists * meta.layout.rotated_dimensions();
        let chains = vec![Chain::default(); lists];
        fits.then(|| Index { chains, ..Self::with(meta, centroids) })
    }

    fn with(meta: Meta, centroids: HeldNumbers) -> Self {
        let quantiser = Quantiser::new(&meta.index, meta.metric, meta.layout.rows);
        Index { meta, quantiser, centroids, chains: Vec::new(), directory: Vec::new(), versions: Vec::new() }
    }

    /// The description.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What makes and compares the codes.
    pub fn quantiser(&self) -> &Quantiser {
        &self.quantiser
    }

    /// Versions of the data key that the directory is sealed under.
    pub fn versions(&self) -> &[u16] {
        &self.versions
    }

    /// Bytes of its centroids in memory.
    pub fn bytes(&self) -> usize {
        self.centroids.bytes()
    }

    /// Number of lists.
    pub fn lists(&self) -> usize {
        self.chains.len()
    }

    /// The pages of a list, as they were when the directory was read. The first of one of several lists never changes: a
    /// build gives each list a page.
    pub fn chain(&self, list: usize) -> Chain {
        self.chains[list]
    }

    /// The centroid of a list, prepared as [`Quantiser::prepare`] does.
    pub fn centroid(&self, list: usize) -> &[f32] {
        let dimensions = self.meta.layout.rotated_dimensions();
        &self.centroids[list * dimensions..(list + 1) * dimensions]
    }

    /// The directory page that has the chain of a list, and its number there; `None` where the chain is in block 0.
    pub fn place_of_chain(&self, list: usize) -> Option<(u32, usize)> {
        let capacity = self.meta.layout.directory_capacity();
        let block = self.directory.get(list / capacity).filter(|_| self.meta.lists > 1)?;
        Some((*block, list % capacity))
    }

    /// The row of a vector of the index's dimensions; `None` for a zero vector under the cosine, which no list has.
    pub fn place(&self, vector: &[f32]) -> Result<Option<Placed>, OutOfMemory> {
        let Some(prepared) = self.quantiser.prepare(vector) else { return Ok(None) };
        let list = kmeans::nearest(&prepared, &self.centroids);
        let mut row = memory::room(self.meta.layout.rows.row_bytes())?;
        self.quantiser.encode(&prepared, self.centroid(list), &mut row);
        Ok(Some(Placed { list: list as u32, row }))
    }

    fn read_directory<P: Pages>(&mut self, pages: &mut P) -> Result<(), P::Error> {
        let mut page: Box<PageBytes> = Box::new([0; PAGE_BYTES]);
        let (mut next, most) = (self.meta.directory, pages.blocks()?);
        while let Some(block) = next {
            pages.read(block, &mut page)?;
            let head = page::head(&page)?;
            let is_next = head.list as usize == self.chains.len() && head.generation == self.meta.generation;
            if !is_next || self.directory.len() >= most as usize {
                return Err(PageError::Malformed("a directory page of other lists").into());
            }
            let chains = directory::chains(&page, &self.meta.layout)?;
            let end = self.chains.len() + chains.len();
            let at = self.meta.layout.rotated_dimensions() * self.chains.len();
            if end > self.meta.lists as usize {
                return Err(PageError::Malformed("a directory of other lists").into());
            }
            self.chains.extend(chains);
            memory::push(&mut self.directory, block).map_err(PageError::from)?;
            if head.version != 0 {
                let key = pages.key(head.version)?;
                directory::open(&page, block, &key, &mut self.centroids[at..])?;
                if !self.versions.contains(&head.version) {
                    self.versions.push(head.version);
                }
            }
            next = head.next;
        }
        Ok(())
    }
}
