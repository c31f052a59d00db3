//! New indexes.

use std::rc::Rc;

use pgrx::notice;

use crate::core::ivf::build::{Builder, NewPages, write_directory};
use crate::core::ivf::index::Index as Lists;
use crate::core::ivf::key::HeldPageKey;
use crate::core::ivf::layout::{Layout, PageBytes};
use crate::core::ivf::meta::{Chain, Meta};
use crate::core::ivf::page::{self, Kind, Tid};
use crate::pg::error::PgError;
use crate::pg::ivf::keys::{self, Keys};
use crate::pg::ivf::pages::{self, Trouble};
use crate::pg::ivf::{shape, train};
use crate::pg::raw::datum::detoast;
use crate::pg::raw::index_am::{Building, Built};
use crate::pg::raw::index_page::{Bytes, Fork, Index};

/// Writes pages of an index that nobody else sees, without log.
struct Writer {
    index: Index,
    layout: Layout,
    page: Box<Bytes>,
}

impl NewPages for Writer {
    type Error = Trouble;

    fn reserve(&mut self) -> Result<u32, Trouble> {
        Ok(self.index.extend(Fork::Main).block())
    }

    fn write(&mut self, block: u32, page: &PageBytes) -> Result<(), Trouble> {
        // What comes before the data is PostgreSQL's.
        let kind = page::head(page)?.kind;
        pages::init(&mut self.page, &self.layout, kind, 0, 0);
        pages::take_over(&mut self.page, page);
        pages::settle(&mut self.page, &self.layout);
        self.index.lock(block).write(&self.page);
        Ok(())
    }
}

/// The rows that are put aside.
struct Aside {
    chain: Chain,
    block: u32,
    page: Box<Bytes>,
    rows: u64,
}

impl Aside {
    fn new(writer: &mut Writer) -> Result<Self, Trouble> {
        let block = writer.reserve()?;
        let mut page = Bytes::boxed();
        pages::init(&mut page, &writer.layout, Kind::Unassigned, 0, 0);
        Ok(Aside { chain: Chain { first: Some(block), last: Some(block) }, block, page, rows: 0 })
    }

    fn add(&mut self, tid: Tid, writer: &mut Writer) -> Result<(), Trouble> {
        self.rows += 1;
        if page::append_unassigned(&mut self.page.0, &writer.layout, tid)? {
            return Ok(());
        }
        let next = writer.reserve()?;
        page::set_next(&mut self.page.0, Some(next))?;
        writer.write(self.block, &self.page.0)?;
        pages::init(&mut self.page, &writer.layout, Kind::Unassigned, 0, 0);
        self.block = next;
        self.chain.last = Some(next);
        page::append_unassigned(&mut self.page.0, &writer.layout, tid)?;
        Ok(())
    }

    fn finish(self, writer: &mut Writer) -> Result<Chain, Trouble> {
        writer.write(self.block, &self.page.0)?;
        Ok(self.chain)
    }
}

/// Where rows with a key go.
struct Sealing {
    keyring: i32,
    key: HeldPageKey,
    lists: Rc<Lists>,
    /// They are around rows of the table, and have a directory.
    is_trained: bool,
    builder: Builder,
}

/// All rows of the table.
pub fn build(building: &Building) -> Result<Built, PgError> {
    if building.is_of_expression() {
        return Err(PgError::IndexedExpression);
    }
    let index = building.index();
    let meta = shape::new(index)?;
    let mut writer = Writer { index, layout: meta.layout, page: Bytes::boxed() };
    let in_writer = |trouble: Trouble| trouble.named(index, 0);
    writer.reserve().map_err(in_writer)?;
    let mut aside = Aside::new(&mut writer).map_err(in_writer)?;
    let mut sealing = sealing(building, &meta, &mut writer)?;
    let (mut indexed, mut without_key) = (0_u64, 0_u64);
    let rows = building.rows(|tid, value, alive| {
        let placed = match &sealing {
            // Of a row that nobody may see any more, what is stored out of line may be gone.
            Some(sealing) if alive => keys::if_there(sealing.keyring, || {
                Ok(sealing.lists.place(&keys::elements_of(detoast(value).bytes(), &meta)?)?)
            })
            .map_err(|error| error.of_row(index.name(), tid))?,
            _ => None,
        };
        match (&mut sealing, placed) {
            (Some(_), Some(None)) => return Ok(()),
            (Some(sealing), Some(Some(placed))) => {
                sealing.builder.add(tid, &placed, &mut writer).map_err(in_writer)?;
            }
            _ => {
                without_key += u64::from(alive);
                aside.add(tid, &mut writer).map_err(in_writer)?;
            }
        }
        indexed += 1;
        Ok(())
    });
    let meta = match sealing {
        Some(sealing) => sealing.finish(meta, &mut writer).map_err(in_writer)?,
        None => Meta { list: empty_list(&mut writer).map_err(in_writer)?, ..meta },
    };
    let meta = Meta {
        unassigned_rows: u32::try_from(aside.rows).unwrap_or(u32::MAX),
        unassigned: aside.finish(&mut writer).map_err(in_writer)?,
        built_rows: indexed,
        ..meta
    };
    let mut first = Bytes::boxed();
    init_meta(&mut first, &meta);
    index.lock(0).write(&first);
    index.log_all();
    if without_key > 0 {
        notice!(
            "{without_key} rows of index \"{}\" are put aside: their key is not to be had now",
            index.name()
        );
    }
    Ok(Built { rows, indexed: indexed as f64 })
}

impl Sealing {
    /// Writes what is left.
    fn finish(self, meta: Meta, writer: &mut Writer) -> Result<Meta, Trouble> {
        let chains = self.builder.finish(writer)?;
        let write = || write_directory(&self.lists, &self.key, &chains, writer);
        let directory = self.is_trained.then(write).transpose()?;
        let list = if let [only] = chains.as_slice() { *only } else { Chain::default() };
        Ok(Meta { lists: self.lists.meta().lists, directory, list, ..meta })
    }
}

/// `None` where there is no key to be had.
fn sealing(building: &Building, meta: &Meta, writer: &mut Writer) -> Result<Option<Sealing>, PgError> {
    let index = building.index();
    let Ok(keyring) = shape::keyring(index) else { return Ok(None) };
    let keys = Keys::new(meta, keyring);
    let Some(key) = keys::if_there(keyring, || keys.active())? else { return Ok(None) };
    let trained = train::lists(building, meta, keyring)?.map(Rc::new);
    let is_trained = trained.is_some();
    let lists = trained.map_or_else(|| shape::lists(index, meta, &keys), Ok)?;
    let builder = Builder::new(&lists, key.clone(), writer).map_err(|trouble| trouble.named(index, 0))?;
    Ok(Some(Sealing { keyring, key, lists, is_trained, builder }))
}

/// The first page of a list never changes: rows that are moved into it are found by whoever began to read before.
fn empty_list(writer: &mut Writer) -> Result<Chain, Trouble> {
    let block = writer.reserve()?;
    let mut page = Bytes::boxed();
    pages::init(&mut page, &writer.layout, Kind::List, 0, 0);
    writer.write(block, &page.0)?;
    Ok(Chain { first: Some(block), last: Some(block) })
}

fn init_meta(page: &mut Bytes, meta: &Meta) {
    pages::init(page, &meta.layout, Kind::Meta, 0, meta.generation);
    meta.write(&mut page.0);
}

/// What an unlogged index begins with, after a crash too.
pub fn build_empty(index: Index) -> Result<(), PgError> {
    let meta = shape::new(index)?;
    let only = |block| Chain { first: Some(block), last: Some(block) };
    let mut page = Bytes::boxed();
    init_meta(&mut page, &Meta { unassigned: only(1), list: only(2), ..meta });
    index.extend(Fork::Init).write(&page);
    for kind in [Kind::Unassigned, Kind::List] {
        pages::init(&mut page, &meta.layout, kind, 0, 0);
        index.extend(Fork::Init).write(&page);
    }
    index.log_init(3);
    Ok(())
}
