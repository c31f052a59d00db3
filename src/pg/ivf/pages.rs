//! An index's pages as [`crate::core::ivf`] reads them, and errors that name them.

use crate::core::ivf::layout::{DATA_AT, Layout, PageBytes, SPECIAL_BYTES};
use crate::core::ivf::meta::Meta;
use crate::core::ivf::page::{self, Head, Kind, PageError};
use crate::pg::error::PgError;
use crate::pg::raw::index_page::{Bytes, Change, Extent, Index, Locked};

/// An error of a page, with its name.
pub fn named(index: Index, block: u32) -> impl Fn(PageError) -> PgError {
    move |error| match error {
        PageError::OutOfMemory(error) => error.into(),
        error => PgError::IndexPage { index: index.name(), block, error },
    }
}

/// Reads the first page.
pub fn meta(index: Index, page: &mut Bytes) -> Result<Meta, PgError> {
    index.read(0, page);
    Meta::read(&page.0).map_err(named(index, 0))
}

/// What a page is; `None` for one that was never written.
pub fn head(index: Index, block: u32, page: &Bytes) -> Result<Option<Head>, PgError> {
    if page.is_new() {
        return Ok(None);
    }
    page::head(&page.0).map(Some).map_err(named(index, block))
}

/// Makes a page an empty one.
pub fn init(page: &mut Bytes, layout: &Layout, kind: Kind, list: u32, generation: u32) {
    page.init(SPECIAL_BYTES);
    page::init(&mut page.0, kind, list, generation);
    settle(page, layout);
}

/// Takes the data of a page over, without PostgreSQL's header.
pub fn take_over(page: &mut Bytes, data: &PageBytes) {
    page.0[DATA_AT..].copy_from_slice(&data[DATA_AT..]);
}

/// Tells PostgreSQL where the data of a page end.
pub fn settle(page: &mut Bytes, layout: &Layout) {
    if let Ok(end) = page::data_end(&page.0, layout) {
        page.set_end(end);
    }
}

/// Changes a locked page, or leaves all pages of the change as they are.
pub fn change<'a, T>(
    change: &mut Change<'a>,
    index: Index,
    page: &'a Locked,
    (layout, extent): (&Layout, Extent),
    work: impl FnOnce(&mut PageBytes) -> Result<T, PageError>,
) -> Result<T, PgError> {
    let done = change.page(page, extent, |bytes| {
        let done = work(&mut bytes.0);
        settle(bytes, layout);
        done
    });
    done.map_err(named(index, page.block()))
}

/// The page's next one cannot be that.
pub fn broken(index: Index, block: u32) -> PgError {
    named(index, block)(PageError::Malformed("the pages of a list go round, or out of the index"))
}

/// Copies a page that a chain leads to. `pages` is how many there are, as far as is known: to ask takes a system call.
pub fn read(index: Index, block: u32, page: &mut PageBytes, pages: &mut u32) -> Result<(), Trouble> {
    if block >= *pages {
        *pages = index.pages();
    }
    if block >= *pages {
        return Err(PageError::Malformed("it is not there").into());
    }
    index.read_into(block, page);
    Ok(())
}

/// What can go wrong where [`crate::core::ivf`] works on an index.
pub enum Trouble {
    /// With a page.
    Page(PageError),
    /// Elsewhere.
    Other(PgError),
}

impl From<PageError> for Trouble {
    fn from(error: PageError) -> Self {
        Trouble::Page(error)
    }
}

impl From<PgError> for Trouble {
    fn from(error: PgError) -> Self {
        Trouble::Other(error)
    }
}

impl Trouble {
    /// The error, with the page that was worked on last.
    pub fn named(self, index: Index, block: u32) -> PgError {
        match self {
            Trouble::Page(error) => named(index, block)(error),
            Trouble::Other(error) => error,
        }
    }
}

/// Corrects what the first page says of rows that were put aside, for the planner.
pub fn count_unassigned(index: Index, count: impl FnOnce(u32) -> u32) -> Result<(), PgError> {
    let first = index.lock(0);
    let meta = Meta::read(&first.bytes().0).map_err(named(index, 0))?;
    let unassigned_rows = count(meta.unassigned_rows);
    if unassigned_rows == meta.unassigned_rows {
        return Ok(());
    }
    let mut changed = index.change();
    change(&mut changed, index, &first, (&meta.layout, Extent::Difference), |bytes| {
        Meta { unassigned_rows, ..meta }.write(bytes);
        Ok(())
    })?;
    changed.commit();
    Ok(())
}
