//! What an index needs from the world around it.

use super::key::HeldPageKey;
use super::layout::PageBytes;
use super::page::{PageError, Tid};

/// Pages and keys of one index.
pub trait Pages {
    /// What reading can end in.
    type Error: From<PageError>;

    /// Number of blocks that the index has now.
    fn blocks(&mut self) -> Result<u32, Self::Error>;

    /// Copies a block. Called without a lock on any other; this is where a statement is cancelled.
    fn read(&mut self, block: u32, page: &mut PageBytes) -> Result<(), Self::Error>;

    /// The key under a version of the data key; asked for once per page, so it is kept.
    fn key(&mut self, version: u16) -> Result<HeldPageKey, Self::Error>;
}

/// The rows of the table, as a scan sees them.
pub trait Rows: Pages {
    /// The exact distance of the row at an address; `None` where the scan sees none or a partial index would not have it.
    fn distance(&mut self, tid: Tid) -> Result<Option<f64>, Self::Error>;
}
