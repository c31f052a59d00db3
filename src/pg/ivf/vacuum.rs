//! Dead rows. Needs no key.

use std::collections::HashSet;

use crate::core::ivf::layout::Layout;
use crate::core::ivf::page::{self, Kind, Rows, Tid};
use crate::pg::error::PgError;
use crate::pg::ivf::pages::{self, named};
use crate::pg::raw::index_am::{Left, Vacuum};
use crate::pg::raw::index_page::{Bytes, Extent, Index};

/// Asks for every row that is not known to be dead, on pages that come meanwhile too, and marks those that are.
pub fn bulk_delete(
    index: Index,
    vacuum: &Vacuum,
    is_dead: &mut dyn FnMut(Tid) -> bool,
) -> Result<Left, PgError> {
    let (mut left, mut page) = (Left::default(), Bytes::boxed());
    let layout = pages::meta(index, &mut page)?.layout;
    let (mut block, mut aside) = (1, 0.0);
    while block < index.pages() {
        vacuum.read(index, block, &mut page);
        let kind = pages::head(index, block, &page)?.map(|head| head.kind);
        let before = left.live;
        let is_free = match kind {
            Some(Kind::List | Kind::Unassigned) => {
                look_through(index, &layout, block, &page, is_dead, &mut left)?
            }
            Some(Kind::Meta | Kind::Directory) => false,
            Some(Kind::Free) | None => true,
        };
        if kind == Some(Kind::Unassigned) {
            aside += left.live - before;
        }
        if is_free {
            index.record_free(block);
            left.free += 1;
        }
        block += 1;
    }
    if left.removed > 0.0 {
        pages::count_unassigned(index, |_| aside as u32)?;
    }
    Ok(left)
}

/// Tells whether the page holds no row now.
fn look_through(
    index: Index,
    layout: &Layout,
    block: u32,
    copy: &Bytes,
    is_dead: &mut dyn FnMut(Tid) -> bool,
    left: &mut Left,
) -> Result<bool, PgError> {
    let rows = Rows::parse(&copy.0, layout).map_err(named(index, block))?;
    let live = rows.iter().filter(|(_, dead)| !dead).map(|(tid, _)| tid);
    let (dead, live): (HashSet<Tid>, Vec<Tid>) = partition(live, is_dead);
    left.removed += dead.len() as f64;
    left.live += live.len() as f64;
    // What was dead before may not have been taken out, where somebody added a row meanwhile.
    if dead.is_empty() && (rows.head().rows == 0 || !live.is_empty()) {
        return Ok(rows.head().rows == 0);
    }
    mark(index, layout, block, &dead)
}

fn partition(
    tids: impl Iterator<Item = Tid>,
    is_dead: &mut dyn FnMut(Tid) -> bool,
) -> (HashSet<Tid>, Vec<Tid>) {
    let (mut dead, mut live) = (HashSet::new(), Vec::new());
    for tid in tids {
        if is_dead(tid) {
            dead.insert(tid);
        } else {
            live.push(tid);
        }
    }
    (dead, live)
}

/// Marks rows, and takes all out of a page where no other is left. Always logged: no later vacuum comes back to a mark that
/// was lost. Tells whether the page is empty now.
fn mark(index: Index, layout: &Layout, block: u32, dead: &HashSet<Tid>) -> Result<bool, PgError> {
    let page = index.lock(block);
    let mut change = index.change();
    // Rows may have been added since the page was read, or have moved in it, but not to another one.
    let emptied = pages::change(&mut change, index, &page, (layout, Extent::Difference), |bytes| {
        page::mark_dead(bytes, layout, |tid| dead.contains(&tid))?;
        page::reset_if_all_dead(bytes, layout)
    })?;
    change.commit();
    Ok(emptied)
}

/// Makes emptied pages findable for new rows.
pub fn clean_up(index: Index) {
    index.update_free_map();
}
