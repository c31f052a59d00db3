//! Where things stand on the pages of an index: it follows from the dimensions alone, and every page of an index has it.
//!
//! ```text
//! off   len                              integers little-endian
//! 0     24   PostgreSQL's page header; nothing here reads or writes it
//! 24    ..   data, by kind
//! 8160  32   special: next 4 | list 4 | generation 4 | rows 2 | key version 2 | kind 1 | format 1 | closed 1 |
//!            zero 9 | magic 4
//!
//! list        salt 12 | dead bits | addresses 6 each, room for `capacity` | segments
//! unassigned  dead bits | addresses
//! directory   salt 12 | first and last block of each list, 8 each, room for all | segment of centroids
//! segment     nonce 12 | tag 16 | ciphertext
//! ```
//! A segment's nonce is the page's salt and its own 12 bytes. An open list page has a segment for every `tail_rows` rows,
//! row after row; a closed one has a single segment of blocks. See [`RowLayout`] for both.

use crate::core::vector::code::RowLayout;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 8192;
/// A page as PostgreSQL holds it.
pub type PageBytes = [u8; PAGE_BYTES];
/// Where PostgreSQL's header ends and the data begin.
pub const DATA_AT: usize = 24;
/// Where the special area begins: pd_special.
pub const SPECIAL_AT: usize = PAGE_BYTES - SPECIAL_BYTES;
/// Bytes of the special area.
pub const SPECIAL_BYTES: usize = 32;
/// Dimensions of an index, at most.
pub const MAX_INDEX_DIMENSIONS: usize = 4_000;
/// Bytes of a row's address.
pub const TID_BYTES: usize = 6;

pub(super) const SALT_BYTES: usize = 12;
pub(super) const SEGMENT_HEAD_BYTES: usize = 12 + 16;
pub(super) const ENTRY_BYTES: usize = 8;

const ROOM: usize = SPECIAL_AT - DATA_AT;
/// What an insert seals anew, at most, but for wide rows: the WAL of an insert.
const TAIL_BYTES: usize = 1536;
const MAX_TAIL_ROWS: usize = 32;

/// Addresses on an unassigned page: 6 bytes and a bit each.
pub const UNASSIGNED_CAPACITY: usize = ROOM * 8 / (TID_BYTES * 8 + 1);

/// The layout of an index's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Elements of a vector.
    pub dimensions: usize,
    /// The rows.
    pub rows: RowLayout,
    /// Rows of a list page, at most.
    pub capacity: usize,
    /// Rows of a segment of an open list page, at most.
    pub tail_rows: usize,
}

impl Layout {
    /// The layout for vectors of so many elements; `None` for none and for more than [`MAX_INDEX_DIMENSIONS`].
    pub fn new(dimensions: usize) -> Option<Self> {
        if !(1..=MAX_INDEX_DIMENSIONS).contains(&dimensions) {
            return None;
        }
        let code_bytes = dimensions.div_ceil(8);
        let of_width = |width| Self::of_width(dimensions, RowLayout { code_bytes, width });
        let least = of_width(8);
        // Wider blocks are scanned faster; they may cost a sixth of the space.
        let wide = [32, 16].map(of_width).into_iter().find(|wide| 6 * wide.capacity >= 5 * least.capacity);
        Some(wide.unwrap_or(least))
    }

    fn of_width(dimensions: usize, rows: RowLayout) -> Self {
        let tail_rows = (TAIL_BYTES / rows.row_bytes()).clamp(1, MAX_TAIL_ROWS);
        let mut layout = Layout { dimensions, rows, capacity: 0, tail_rows };
        while layout.with_capacity(layout.capacity + rows.width).end() <= SPECIAL_AT {
            layout.capacity += rows.width;
        }
        layout
    }

    fn with_capacity(self, capacity: usize) -> Self {
        Layout { capacity, ..self }
    }

    /// Where a full open page ends; a closed one ends before.
    fn end(&self) -> usize {
        self.segments_at()
            + self.capacity.div_ceil(self.tail_rows) * SEGMENT_HEAD_BYTES
            + self.capacity * self.rows.row_bytes()
    }

    /// Where the addresses of a list page begin.
    pub(super) fn tids_at(&self) -> usize {
        DATA_AT + SALT_BYTES + self.capacity.div_ceil(8)
    }

    /// Where the segments of a list page begin.
    pub(super) fn segments_at(&self) -> usize {
        self.tids_at() + self.capacity * TID_BYTES
    }

    /// Bytes of a full segment of an open page, its head included.
    pub(super) fn tail_segment_bytes(&self) -> usize {
        SEGMENT_HEAD_BYTES + self.tail_rows * self.rows.row_bytes()
    }

    /// Elements of a rotated vector: whole bytes of a code.
    pub fn rotated_dimensions(&self) -> usize {
        8 * self.rows.code_bytes
    }

    /// Bytes of a centroid.
    pub(super) fn centroid_bytes(&self) -> usize {
        2 * self.rotated_dimensions()
    }

    /// Lists of a directory page.
    pub fn directory_capacity(&self) -> usize {
        (ROOM - SALT_BYTES - SEGMENT_HEAD_BYTES) / (ENTRY_BYTES + self.centroid_bytes())
    }

    /// Where the centroids of a directory page stand.
    pub(super) fn centroids_at(&self) -> usize {
        DATA_AT + SALT_BYTES + self.directory_capacity() * ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_fits_the_page_for_all_dimensions() {
        for dimensions in 1..=MAX_INDEX_DIMENSIONS {
            let layout = Layout::new(dimensions).unwrap();
            assert!(layout.end() <= SPECIAL_AT, "{dimensions}");
            assert!(
                layout.capacity >= 8 && layout.capacity.is_multiple_of(layout.rows.width),
                "{dimensions}"
            );
            assert!(layout.directory_capacity() >= 1, "{dimensions}");
        }
        assert_eq!(Layout::new(0), None);
        assert_eq!(Layout::new(MAX_INDEX_DIMENSIONS + 1), None);
    }

    #[test]
    fn layouts_of_common_models_are_what_is_stored() {
        let of = |dimensions| {
            let layout = Layout::new(dimensions).unwrap();
            [layout.rows.width, layout.capacity, layout.tail_rows, layout.directory_capacity()]
        };
        assert_eq!(of(384), [32, 128, 27, 10]);
        assert_eq!(of(768), [32, 64, 14, 5]);
        assert_eq!(of(1024), [16, 48, 11, 3]);
        assert_eq!(of(1536), [32, 32, 7, 2]);
        assert_eq!(of(3072), [16, 16, 3, 1]);
    }
}
