//! The page in block 0. All of it is in the clear; what decides about sealed bytes is in their key.

use crate::core::Uuid;
use crate::core::vector::distance::Metric;

use super::key::{CODE_BITS, Identity};
use super::layout::{DATA_AT, Layout, PageBytes};
use super::page::{self, Kind, PageError};

/// What an index says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Random identity of the index.
    pub index: Uuid,
    /// Keyring id of the column.
    pub keyring: i32,
    /// Distance that the index orders by.
    pub metric: Metric,
    /// Layout by the column's dimensions.
    pub layout: Layout,
    /// Number of lists, from 1.
    pub lists: u32,
    /// Counts how often the lists were made anew.
    pub generation: u32,
    /// First directory page; without one there is a single list around zero.
    pub directory: Option<u32>,
    /// The single list, where there is but one; else its chains are in the directory.
    pub list: Chain,
    /// Rows without a code.
    pub unassigned: Chain,
    /// Rows that the build saw, for the planner.
    pub built_rows: u64,
    /// About how many rows have no code, for the planner.
    pub unassigned_rows: u32,
}

/// A chain of pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its first block.
    pub first: Option<u32>,
    /// Its last block, or one before it: where inserters start to look.
    pub last: Option<u32>,
}

const BYTES: usize = 16 + 4 + 2 + 2 + 4 * 8 + 8;
/// Where the data of the page end.
pub(super) const END: usize = DATA_AT + BYTES;

impl Meta {
    /// The identity that keys are derived for; `keyring` is the uuid of the keyring with [`Meta::keyring`]'s id.
    pub fn identity(&self, keyring: Uuid) -> Identity {
        Identity { index: self.index, keyring, metric: self.metric, layout: self.layout }
    }

    /// Is it the same index?
    pub fn is_of(&self, other: &Meta) -> bool {
        (self.index, self.keyring, self.metric, self.layout)
            == (other.index, other.keyring, other.metric, other.layout)
    }

    /// The same with the same lists? Their first pages never change.
    pub fn has_lists_of(&self, other: &Meta) -> bool {
        let lists = |meta: &Meta| {
            (meta.lists, meta.generation, meta.directory, meta.list.first, meta.unassigned.first)
        };
        self.is_of(other) && lists(self) == lists(other)
    }

    /// Reads block 0. Total: never panics.
    pub fn read(page: &PageBytes) -> Result<Self, PageError> {
        if page::head(page)?.kind != Kind::Meta {
            return Err(PageError::OtherKind);
        }
        let data = &page[DATA_AT..END];
        let mut index = [0; 16];
        index.copy_from_slice(&data[..16]);
        let word = |at: usize| u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        let block = |at: usize| word(at).checked_sub(1);
        let chain = |at: usize| Chain { first: block(at), last: block(at + 4) };
        let meta = Meta {
            index,
            keyring: word(16) as i32,
            metric: metric(data[22])?,
            layout: Layout::new(usize::from(u16::from_le_bytes([data[20], data[21]])))
                .ok_or(PageError::Malformed("a number of dimensions that no index has"))?,
            lists: word(24),
            generation: word(28),
            directory: block(32),
            list: chain(36),
            unassigned: chain(44),
            built_rows: u64::from(word(52)) | u64::from(word(56)) << 32,
            unassigned_rows: word(60),
        };
        let is_possible = data[23] == CODE_BITS
            && meta.keyring > 0
            && meta.lists > 0
            && (meta.lists == 1 || meta.directory.is_some());
        is_possible.then_some(meta).ok_or(PageError::Malformed("a description that no index has"))
    }

    /// Writes block 0, which [`page::init`] has made a page of kind [`Kind::Meta`].
    pub fn write(&self, page: &mut PageBytes) {
        let data = &mut page[DATA_AT..END];
        data[..16].copy_from_slice(&self.index);
        data[16..20].copy_from_slice(&self.keyring.to_le_bytes());
        data[20..22].copy_from_slice(&(self.layout.dimensions as u16).to_le_bytes());
        data[22..24].copy_from_slice(&[self.metric as u8, CODE_BITS]);
        // Block 0 is this page, so a block is stored as its successor and none as 0.
        let block = |block: Option<u32>| block.map_or(0, |block| block.wrapping_add(1));
        let words = [
            self.lists,
            self.generation,
            block(self.directory),
            block(self.list.first),
            block(self.list.last),
            block(self.unassigned.first),
            block(self.unassigned.last),
            self.built_rows as u32,
            (self.built_rows >> 32) as u32,
            self.unassigned_rows,
        ];
        for (bytes, word) in data[24..].as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
    }
}

fn metric(code: u8) -> Result<Metric, PageError> {
    let metrics = [Metric::L2, Metric::InnerProduct, Metric::Cosine];
    let metric = metrics.into_iter().find(|metric| *metric as u8 == code);
    metric.ok_or(PageError::Malformed("a distance that no index has"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta() -> Meta {
        Meta {
            index: [7; 16],
            keyring: 3,
            metric: Metric::Cosine,
            layout: Layout::new(384).unwrap(),
            lists: 700,
            generation: 9,
            directory: Some(4),
            list: Chain { first: Some(1), last: Some(8) },
            unassigned: Chain { first: None, last: None },
            built_rows: 5_000_000_000,
            unassigned_rows: 11,
        }
    }

    fn written(meta: &Meta) -> PageBytes {
        let mut bytes = [0; 8192];
        page::init(&mut bytes, Kind::Meta, 0, 0);
        meta.write(&mut bytes);
        bytes
    }

    #[test]
    fn a_description_comes_back() {
        let bytes = written(&meta());
        assert_eq!(Meta::read(&bytes), Ok(meta()));
        assert!(bytes[END..SPECIAL].iter().all(|byte| *byte == 0));
        const SPECIAL: usize = crate::core::ivf::layout::SPECIAL_AT;
    }

    #[test]
    fn a_description_that_nothing_writes_is_refused() {
        let refused = [
            Meta { keyring: 0, ..meta() },
            Meta { lists: 0, ..meta() },
            Meta { directory: None, ..meta() },
            Meta { metric: Metric::L1, ..meta() },
        ];
        for meta in refused {
            assert!(matches!(Meta::read(&written(&meta)), Err(PageError::Malformed(_))), "{meta:?}");
        }
    }

    proptest! {
        #[test]
        fn a_description_of_any_bytes_never_panics(data in proptest::collection::vec(any::<u8>(), BYTES)) {
            let mut bytes = written(&meta());
            bytes[DATA_AT..END].copy_from_slice(&data);
            let _ = Meta::read(&bytes);
        }
    }
}
