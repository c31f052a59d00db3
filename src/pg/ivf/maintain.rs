//! What is done to an index from SQL: which keys its pages are sealed under, sealing them anew, and sorting in what was put
//! aside.

use std::collections::{BTreeMap, HashSet};

use zeroize::Zeroizing;

use crate::core::ivf::layout::Layout;
use crate::core::ivf::meta::Meta;
use crate::core::ivf::page::{self, Head, Kind, PageError, Rows as PageRows, Tid};
use crate::core::ivf::{directory, list};
use crate::pg::error::PgError;
use crate::pg::ivf::insert::{self, Inserts, Outcome};
use crate::pg::ivf::keys::Keys;
use crate::pg::ivf::pages::{self, named};
use crate::pg::ivf::shape;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::detoast;
use crate::pg::raw::index_open::{Maintained, read};
use crate::pg::raw::index_page::{Bytes, Extent, Index};
use crate::pg::raw::index_rows::Rows;
use crate::pg::raw::record::{self, Field};
use crate::pg::raw::xact;
use crate::pg::session::{self, Privilege};

/// `index_pages(index regclass)`: pages and rows that live for each data key version there is, NULL for what was put aside.
/// Empty where the index is gone. Needs no key.
pub fn index_pages(call: Call) -> Returned {
    let mut counts = BTreeMap::<u16, [i64; 2]>::new();
    read((call.int4(0) as u32).into(), |index| {
        let layout = pages::meta(index, &mut Bytes::boxed())?.layout;
        each_page(index, |block, bytes, head| {
            let live = match head.kind {
                Kind::List | Kind::Unassigned => {
                    PageRows::parse(&bytes.0, &layout).map_err(named(index, block))?.live()
                }
                Kind::Meta | Kind::Directory | Kind::Free => 0,
            };
            if head.rows > 0 {
                let count = counts.entry(head.version).or_default();
                *count = [count[0] + 1, count[1] + live as i64];
            }
            Ok(())
        })
    })?;
    let version = |version| Field::Int4((version != 0).then_some(i32::from(version)));
    let counts = counts.into_iter();
    record::rows(call, counts.map(|(key, [pages, rows])| [version(key), pages.into(), rows.into()]))
}

/// `verify_index(index regclass)`: pages that do not authenticate or cannot be, and why; for whoever may decrypt.
pub fn verify_index(call: Call) -> Returned {
    let mut problems = Vec::<(i64, String)>::new();
    read((call.int4(0) as u32).into(), |index| {
        let meta = pages::meta(index, &mut Bytes::boxed())?;
        let keyring = shape::keyring(index)?;
        session::require(&*session::keyring(keyring)?, Privilege::Decrypt)?;
        let keys = Keys::new(&meta, keyring);
        for block in 1..index.pages() {
            xact::check_interrupts();
            match opens(index, &meta.layout, block, &keys) {
                Ok(()) => {}
                Err(PgError::IndexPage { error, .. }) => problems.push((block.into(), error.to_string())),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })?;
    record::rows(call, problems.iter().map(|(block, problem)| [(*block).into(), problem.as_str().into()]))
}

fn opens(index: Index, layout: &Layout, block: u32, keys: &Keys) -> Result<(), PgError> {
    let mut bytes = Bytes::boxed();
    index.read(block, &mut bytes);
    let Some(head) = pages::head(index, block, &bytes)? else { return Ok(()) };
    let opened = match (head.kind, head.version) {
        (Kind::List, 0) | (Kind::Unassigned, _) => PageRows::parse(&bytes.0, layout).map(drop),
        (Kind::List, version) => {
            list::open(&bytes.0, block, &*keys.of_version(version)?, &mut Zeroizing::new(Vec::new()))
        }
        (Kind::Directory, version) if version != 0 => {
            directory::verify(&bytes.0, block, &*keys.of_version(version)?)
        }
        _ => Ok(()),
    };
    opened.map_err(named(index, block))
}

/// Pages that were written, but for the first.
fn each_page(
    index: Index,
    mut each: impl FnMut(u32, &Bytes, Head) -> Result<(), PgError>,
) -> Result<(), PgError> {
    let mut bytes = Bytes::boxed();
    for block in 1..index.pages() {
        xact::check_interrupts();
        index.read(block, &mut bytes);
        if let Some(head) = pages::head(index, block, &bytes)? {
            each(block, &bytes, head)?;
        }
    }
    Ok(())
}

/// `renew_index_pages(index regclass, first int8, count int4)`: seals pages anew that are not under the active key, and sorts
/// in the rows of those that hold what was put aside. The first page after them; NULL where there is none.
///
/// For the table's owner: what makes it safe is looked at here.
pub fn renew_index_pages(call: Call) -> Returned {
    xact::require_writable(c"pgseal.renew_index_pages()");
    let first = u32::try_from(call.datum(1).value() as i64).unwrap_or(u32::MAX).max(1);
    let count = u32::try_from(call.int4(2)).unwrap_or(0);
    let maintained = Maintained::open((call.int4(0) as u32).into())?;
    let index = maintained.index();
    let meta = pages::meta(index, &mut Bytes::boxed())?;
    let keyring = shape::keyring(index)?;
    let keys = Keys::new(&meta, keyring);
    let mut inserts = Inserts::new(&meta, keyring);
    let end = index.pages();
    let next = first.saturating_add(count);
    let mut rows = maintained.rows()?;
    for block in first..next.min(end) {
        xact::check_interrupts();
        renew(index, &meta, block, (&keys, &mut inserts), &mut rows)?;
    }
    rows.close();
    maintained.close();
    Ok((next < end).then(|| i64::from(next).into()))
}

fn renew(
    index: Index,
    meta: &Meta,
    block: u32,
    (keys, inserts): (&Keys, &mut Inserts),
    rows: &mut Rows,
) -> Result<(), PgError> {
    let mut bytes = Bytes::boxed();
    index.read(block, &mut bytes);
    match pages::head(index, block, &bytes)? {
        Some(head @ Head { kind: Kind::List | Kind::Directory, .. }) => {
            reseal(index, &meta.layout, block, head.version, keys)
        }
        Some(Head { kind: Kind::Unassigned, .. }) => sort_in(index, meta, block, &bytes, inserts, rows),
        _ => Ok(()),
    }
}

/// Whoever reads the page has a copy of it, and there is always one key that fits.
fn reseal(index: Index, layout: &Layout, block: u32, mut version: u16, keys: &Keys) -> Result<(), PgError> {
    let new = keys.active()?;
    while ![0, new.version()].contains(&version) {
        let old = keys.of_version(version)?;
        let page = index.lock(block);
        let head = page::head(&page.bytes().0).map_err(named(index, block))?;
        if head.version == version {
            let mut change = index.change();
            pages::change(&mut change, index, &page, (layout, Extent::Whole), |bytes| match head.kind {
                Kind::List => list::reseal(bytes, block, &old, &new),
                Kind::Directory => directory::reseal(bytes, block, &old, &new),
                _ => Err(PageError::OtherKind),
            })?;
            change.commit();
            return Ok(());
        }
        version = head.version;
    }
    Ok(())
}

/// Each row comes into its list first, and then out of here: who reads what was put aside before the lists meets it once at
/// least, and knows it again.
fn sort_in(
    index: Index,
    meta: &Meta,
    block: u32,
    copy: &Bytes,
    inserts: &mut Inserts,
    rows: &mut Rows,
) -> Result<(), PgError> {
    let all = PageRows::parse(&copy.0, &meta.layout).map_err(named(index, block))?;
    let mut moved = HashSet::<Tid>::new();
    for (tid, _) in all.iter().filter(|(_, dead)| !dead) {
        xact::check_interrupts();
        // A row that the statement does not see stays: it is too new, or vacuum will take it.
        let outcome =
            rows.read(tid, |value| insert::seal_in(index, meta, inserts, detoast(value).bytes(), tid));
        match outcome {
            Ok(Some(Outcome::Sealed | Outcome::Nowhere)) => {
                moved.insert(tid);
            }
            Ok(None) => {}
            // It stays where it is, for whoever restores or deletes it.
            Err(error) if error.is_of_value() => {
                pgrx::warning!("{}", error.of_row(index.name(), tid));
            }
            Err(error) => return Err(error),
        }
    }
    if moved.is_empty() {
        return Ok(());
    }
    let page = index.lock(block);
    let mut change = index.change();
    let how = (&meta.layout, Extent::Difference);
    let emptied = pages::change(&mut change, index, &page, how, |bytes| {
        page::mark_dead(bytes, &meta.layout, |tid| moved.contains(&tid))?;
        page::reset_if_all_dead(bytes, &meta.layout)
    })?;
    change.commit();
    drop(page);
    pages::count_unassigned(index, |rows| rows.saturating_sub(moved.len() as u32))?;
    if emptied {
        index.record_free(block);
    }
    Ok(())
}
