//! What an index is for, as the catalogs say it.

use std::rc::Rc;

use crate::core::ivf::index::Index as Lists;
use crate::core::ivf::key::HeldPageKey;
use crate::core::ivf::layout::{Layout, MAX_INDEX_DIMENSIONS, PageBytes};
use crate::core::ivf::meta::Meta;
use crate::core::ivf::source::Pages;
use crate::core::modifier::{Bound, Column};
use crate::core::rng;
use crate::core::vector::distance::Metric;
use crate::pg::error::PgError;
use crate::pg::ivf::keys::Keys;
use crate::pg::ivf::pages::{self, Trouble};
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::index_page::Index;
use crate::pg::raw::locked_memory::GUARD;
use crate::pg::session;
use crate::pg::values::column;

/// By which distance an index orders: `ivf_l2()`, `ivf_ip()` and `ivf_cosine()` are its operator classes' support functions.
pub fn metric(index: Index) -> Result<Metric, PgError> {
    let number = index.support();
    let metrics = [Metric::L2, Metric::InnerProduct, Metric::Cosine];
    let metric = metrics.into_iter().find(|metric| *metric as i32 == number);
    metric.ok_or_else(|| PgError::Catalog("an operator class has a distance that is none".into()))
}

/// `ivf_l2()`.
pub fn ivf_l2(_: Call) -> Returned {
    Ok(Some((Metric::L2 as i32).into()))
}

/// `ivf_ip()`.
pub fn ivf_ip(_: Call) -> Returned {
    Ok(Some((Metric::InnerProduct as i32).into()))
}

/// `ivf_cosine()`.
pub fn ivf_cosine(_: Call) -> Returned {
    Ok(Some((Metric::Cosine as i32).into()))
}

/// The keyring of the indexed column.
pub fn keyring(index: Index) -> Result<i32, PgError> {
    let bound = column::keyring(Column::of_vectors(index.typmod()))?;
    bound.ok_or(PgError::UnboundColumn)
}

/// What a new index says of itself; an error where its column cannot be indexed.
pub fn new(index: Index) -> Result<Meta, PgError> {
    let column = Column::of_vectors(index.typmod());
    let Bound::Tag(tag) = column.bound else { return Err(PgError::UnboundColumn) };
    let dimensions = column.dimensions.ok_or(PgError::ColumnWithoutDimensions)?;
    let layout = Layout::new(dimensions).ok_or_else(|| {
        PgError::Limit(format!(
            "column cannot have more than {MAX_INDEX_DIMENSIONS} dimensions for sealed_ivf index"
        ))
    })?;
    Ok(Meta {
        index: rng::bytes()?,
        // A restore may bring the keyring later; until then its tag stands for it.
        keyring: column::keyring_of_tag(tag).unwrap_or(tag),
        metric: metric(index)?,
        layout,
        lists: 1,
        generation: 0,
        directory: None,
        list: Default::default(),
        unassigned: Default::default(),
        built_rows: 0,
        unassigned_rows: 0,
    })
}

/// The lists of an index that its first page describes; their chains may have grown since.
pub fn lists(index: Index, meta: &Meta, keys: &Keys) -> Result<Rc<Lists>, PgError> {
    if let Some(known) = session::lists(keys.keyring(), meta) {
        return Ok(known);
    }
    let mut directory = Directory { index, keys, block: 0, pages: 0 };
    let opened = Lists::open(*meta, GUARD, &mut directory);
    let opened = Rc::new(opened.map_err(|trouble| trouble.named(index, directory.block))?);
    session::keep_lists(keys.keyring(), &opened);
    Ok(opened)
}

/// The pages of an index, without its table.
struct Directory<'a> {
    index: Index,
    keys: &'a Keys,
    block: u32,
    pages: u32,
}

impl Pages for Directory<'_> {
    type Error = Trouble;

    fn blocks(&mut self) -> Result<u32, Trouble> {
        Ok(self.index.pages())
    }

    fn read(&mut self, block: u32, page: &mut PageBytes) -> Result<(), Trouble> {
        self.block = block;
        pages::read(self.index, block, page, &mut self.pages)
    }

    fn key(&mut self, version: u16) -> Result<HeldPageKey, Trouble> {
        Ok(self.keys.of_version(version)?)
    }
}
