//! New rows: sealed into a list, or put aside where there is no key.

use std::rc::Rc;
use std::time::Instant;

use crate::core::ivf::directory;
use crate::core::ivf::index::{Index as Lists, Placed};
use crate::core::ivf::key::{HeldPageKey, PageKey};
use crate::core::ivf::layout::{Layout, PageBytes, UNASSIGNED_CAPACITY};
use crate::core::ivf::list;
use crate::core::ivf::meta::{Chain, Meta};
use crate::core::ivf::page::{self, Head, Kind, PageError, Tid};
use crate::pg::error::PgError;
use crate::pg::ivf::keys::{self, Keys};
use crate::pg::ivf::pages::{self, broken, named};
use crate::pg::ivf::shape;
use crate::pg::raw::index_page::{Bytes, Change, Extent, Fork, Index, Locked};
use crate::pg::raw::xact;
use crate::pg::{session, settings};

/// Pages that were recorded as free and are not fit: so many are looked at.
const TRIES: usize = 8;

/// What became of a row.
pub enum Outcome {
    /// It is in its list.
    Sealed,
    /// It has no direction: under the cosine no list has it.
    Nowhere,
}

/// What the rows of one statement have in common.
pub struct Inserts {
    keys: Keys,
    /// Lists that the session does not keep.
    own: Option<Own>,
}

/// Lists, with what they were read in.
struct Own {
    lists: Rc<Lists>,
    /// Of the session: keys are gone where it is another.
    generation: u64,
    since: Instant,
}

impl Inserts {
    /// For an index whose first page says this.
    pub fn new(meta: &Meta, keyring: i32) -> Self {
        Inserts { keys: Keys::new(meta, keyring), own: None }
    }

    /// They may have been made anew.
    fn lists(&mut self, index: Index, meta: &Meta) -> Result<Rc<Lists>, PgError> {
        if let Some(own) = self.own.take().filter(|own| own.fits(meta)) {
            return Ok(self.own.insert(own).lists.clone());
        }
        let lists = shape::lists(index, meta, &self.keys)?;
        if session::lists(self.keys.keyring(), meta).is_none() {
            let generation = session::generation();
            self.own = Some(Own { lists: lists.clone(), generation, since: Instant::now() });
        }
        Ok(lists)
    }
}

impl Own {
    fn fits(&self, meta: &Meta) -> bool {
        let is_fresh =
            self.generation == session::generation() && self.since.elapsed() < settings::key_cache_ttl();
        is_fresh && self.lists.meta().has_lists_of(meta)
    }
}

/// Takes a row in.
pub fn insert(index: Index, value: &[u8], tid: Tid, kept: &mut Option<Inserts>) -> Result<(), PgError> {
    let meta = pages::meta(index, &mut Bytes::boxed())?;
    let Ok(keyring) = shape::keyring(index) else { return put_aside(index, &meta, tid) };
    let done = keys::if_there(keyring, || {
        let inserts = kept.get_or_insert_with(|| Inserts::new(&meta, keyring));
        seal_in(index, &meta, inserts, value, tid)
    })?;
    match done {
        Some(Outcome::Sealed | Outcome::Nowhere) => Ok(()),
        None => put_aside(index, &meta, tid),
    }
}

/// Seals a row into its list; an error where a key is not to be had.
pub fn seal_in(
    index: Index,
    meta: &Meta,
    inserts: &mut Inserts,
    value: &[u8],
    tid: Tid,
) -> Result<Outcome, PgError> {
    let elements = keys::elements_of(value, meta)?;
    let key = inserts.keys.active()?;
    let lists = inserts.lists(index, meta)?;
    // Under the cosine no list has what has no direction.
    let Some(placed) = lists.place(&elements)? else { return Ok(Outcome::Nowhere) };
    let place = lists.place_of_chain(placed.list as usize);
    append(index, meta, Target::List { key, keys: &inserts.keys, placed: &placed, place }, tid)?;
    Ok(Outcome::Sealed)
}

/// Puts a row among those that no list has.
fn put_aside(index: Index, meta: &Meta, tid: Tid) -> Result<(), PgError> {
    append(index, meta, Target::Unassigned, tid)
}

/// Where a row goes.
enum Target<'a> {
    Unassigned,
    List {
        key: HeldPageKey,
        keys: &'a Keys,
        placed: &'a Placed,
        /// The directory page that has its chain, and the number there; else the first page has it.
        place: Option<(u32, usize)>,
    },
}

impl Target<'_> {
    fn kind(&self) -> Kind {
        match self {
            Target::Unassigned => Kind::Unassigned,
            Target::List { .. } => Kind::List,
        }
    }

    fn list(&self) -> u32 {
        match self {
            Target::Unassigned => 0,
            Target::List { placed, .. } => placed.list,
        }
    }

    fn takes(&self, head: &Head) -> bool {
        head.kind == self.kind() && head.list == self.list()
    }

    /// The page that says where the list begins and ends.
    fn home(&self) -> u32 {
        match self {
            Target::List { place: Some((block, _)), .. } => *block,
            _ => 0,
        }
    }

    /// Where the list ends, or before that.
    fn last(&self, index: Index, layout: &Layout) -> Result<u32, PgError> {
        let mut home = Bytes::boxed();
        index.read(self.home(), &mut home);
        let chain = self.chain(&home.0, layout).map_err(named(index, self.home()))?;
        chain.last.ok_or_else(|| broken(index, self.home()))
    }

    fn chain(&self, home: &PageBytes, layout: &Layout) -> Result<Chain, PageError> {
        match self {
            Target::Unassigned => Ok(Meta::read(home)?.unassigned),
            Target::List { place: None, .. } => Ok(Meta::read(home)?.list),
            Target::List { place: Some((_, at)), .. } => {
                directory::chains(home, layout)?.nth(*at).ok_or(PageError::Capacity)
            }
        }
    }

    fn set_last(
        &self,
        home: &mut PageBytes,
        layout: &Layout,
        last: u32,
        pages: u32,
    ) -> Result<(), PageError> {
        let chain = Chain { last: Some(last), ..self.chain(home, layout)? };
        match self {
            Target::Unassigned => {
                let meta = Meta::read(home)?;
                let more = pages.saturating_mul(UNASSIGNED_CAPACITY as u32);
                let unassigned_rows = meta.unassigned_rows.saturating_add(more);
                Meta { unassigned: chain, unassigned_rows, ..meta }.write(home);
            }
            Target::List { place: None, .. } => Meta { list: chain, ..Meta::read(home)? }.write(home),
            Target::List { place: Some((_, at)), .. } => directory::set_chain(home, layout, *at, chain)?,
        }
        Ok(())
    }

    /// Fetches the key that a page is sealed under, before the page is locked: the KMS may have to be asked.
    fn prepare(&self, index: Index, block: u32) -> Result<Option<HeldPageKey>, PgError> {
        let Target::List { keys, .. } = self else { return Ok(None) };
        let mut bytes = Bytes::boxed();
        index.read(block, &mut bytes);
        let version = pages::head(index, block, &bytes)?.map_or(0, |head| head.version);
        (version != 0).then(|| keys.of_version(version)).transpose()
    }

    /// How much of a page changes.
    fn extent(&self, head: &Head, layout: &Layout) -> Extent {
        match self {
            Target::List { key, .. }
                if head.closed
                    || usize::from(head.rows) + 1 >= layout.capacity
                    || ![0, key.version()].contains(&head.version) =>
            {
                Extent::Whole
            }
            _ => Extent::Difference,
        }
    }

    /// Adds the row to a locked page, which `old` seals if any key does; false where it has no room. A page under another key
    /// is sealed anew first.
    fn add<'a>(
        &self,
        change: &mut Change<'a>,
        index: Index,
        (page, old): (&'a Locked, Option<&PageKey>),
        layout: &Layout,
        tid: Tid,
    ) -> Result<bool, PgError> {
        let head = page::head(&page.bytes().0).map_err(named(index, page.block()))?;
        let how = (layout, self.extent(&head, layout));
        let block = page.block();
        match self {
            Target::Unassigned => {
                pages::change(change, index, page, how, |bytes| page::append_unassigned(bytes, layout, tid))
            }
            Target::List { key, placed, .. } => {
                let other = old.filter(|old| head.version != 0 && old.version() != key.version());
                pages::change(change, index, page, how, |bytes| {
                    if let Some(old) = other {
                        list::reseal(bytes, block, old, key)?;
                    }
                    list::append(bytes, block, key, tid, &placed.row)
                })
            }
        }
    }
}

/// Adds the row where the list's last rows are, to a page that vacuum has emptied, or to a new one.
fn append(index: Index, meta: &Meta, target: Target<'_>, tid: Tid) -> Result<(), PgError> {
    let layout = &meta.layout;
    let last = target.last(index, layout)?;
    if append_to(index, layout, &target, last, tid)? == Added::Done {
        return Ok(());
    }
    let mut spare = None;
    let mut others = Vec::new();
    for _ in 0..TRIES {
        xact::check_interrupts();
        let Some(block) = index.take_free() else { break };
        match reuse(index, layout, &target, block, tid)? {
            Reused::Done => {
                others.into_iter().for_each(|block| index.record_free(block));
                return Ok(());
            }
            Reused::New => {
                spare = Some(block);
                break;
            }
            Reused::Other => others.push(block),
            Reused::Taken => {}
        }
    }
    others.into_iter().for_each(|block| index.record_free(block));
    append_last(index, layout, &target, last, tid, spare)
}

/// What became of a page that was recorded as free.
enum Reused {
    /// It has the row.
    Done,
    /// Nobody has written it yet.
    New,
    /// It is for rows of another list, or somebody is at it.
    Other,
    /// It has rows: what records free pages is not logged.
    Taken,
}

/// What became of a row at one page.
#[derive(PartialEq, Eq)]
enum Added {
    Done,
    /// The page has no room, and this one after it.
    Full(Option<u32>),
}

/// Locks the page for a row, with the key that seals it, if any does.
fn lock(
    index: Index,
    target: &Target<'_>,
    block: u32,
) -> Result<(Locked, Head, Option<HeldPageKey>), PgError> {
    loop {
        xact::check_interrupts();
        let key = target.prepare(index, block)?;
        let page = index.lock(block);
        let head = page::head(&page.bytes().0).map_err(named(index, block))?;
        if !target.takes(&head) {
            return Err(broken(index, block));
        }
        if head.version == 0 || key.as_ref().is_some_and(|key| key.version() == head.version) {
            return Ok((page, head, key));
        }
        // Sealed anew meanwhile: once more, with its key.
    }
}

fn append_to(
    index: Index,
    layout: &Layout,
    target: &Target<'_>,
    block: u32,
    tid: Tid,
) -> Result<Added, PgError> {
    let (page, head, key) = lock(index, target, block)?;
    let mut change = index.change();
    if target.add(&mut change, index, (&page, key.as_ref().map(|key| &***key)), layout, tid)? {
        change.commit();
        return Ok(Added::Done);
    }
    Ok(Added::Full(head.next))
}

/// Puts the row into a page that vacuum has emptied; the next rows go there, too.
fn reuse(
    index: Index,
    layout: &Layout,
    target: &Target<'_>,
    block: u32,
    tid: Tid,
) -> Result<Reused, PgError> {
    let Some(page) = index.try_lock(block) else { return Ok(Reused::Other) };
    match pages::head(index, block, page.bytes())? {
        None => return Ok(Reused::New),
        Some(head) if head.rows > 0 => return Ok(Reused::Taken),
        // What was emptied is sealed under no key.
        Some(head) if target.takes(&head) => {}
        Some(_) => return Ok(Reused::Other),
    }
    let home = index.lock(target.home());
    let mut change = index.change();
    if !target.add(&mut change, index, (&page, None), layout, tid)? {
        return Ok(Reused::Taken);
    }
    let how = (layout, Extent::Difference);
    pages::change(&mut change, index, &home, how, |bytes| target.set_last(bytes, layout, block, 0))?;
    change.commit();
    Ok(Reused::Done)
}

/// Appends to the last page, which comes after `block` or is it, or to a new one behind it.
fn append_last(
    index: Index,
    layout: &Layout,
    target: &Target<'_>,
    first: u32,
    tid: Tid,
    spare: Option<u32>,
) -> Result<(), PgError> {
    let mut block = first;
    // Each round is a page further, and pages that follow each other in a circle would be no end.
    for _ in 0..=index.pages() {
        let (page, head, key) = lock(index, target, block)?;
        if let Some(next) = head.next {
            block = next;
            continue;
        }
        // Whoever comes next need not walk here.
        let home = (block != first).then(|| index.lock(target.home()));
        let mut change = index.change();
        if target.add(&mut change, index, (&page, key.as_ref().map(|key| &***key)), layout, tid)? {
            if let Some(home) = &home {
                let how = (layout, Extent::Difference);
                pages::change(&mut change, index, home, how, |bytes| {
                    target.set_last(bytes, layout, block, 0)
                })?;
            }
            change.commit();
            return Ok(());
        }
        drop(change);
        drop(home);
        return add_page(index, layout, target, &page, tid, spare);
    }
    Err(broken(index, block))
}

/// Puts the row into a new page behind `last`, which is full. One record makes it, links it and says where it is: a fall of
/// the server leaves a page of zeros at most.
fn add_page(
    index: Index,
    layout: &Layout,
    target: &Target<'_>,
    last: &Locked,
    tid: Tid,
    spare: Option<u32>,
) -> Result<(), PgError> {
    let spare = spare.and_then(|block| index.try_lock(block));
    let mut new = spare.unwrap_or_else(|| index.extend(Fork::Main));
    // Between its making and its lock, vacuum may have recorded it as free, and somebody taken it.
    while !new.bytes().is_new() {
        new = index.extend(Fork::Main);
    }
    let home = index.lock(target.home());
    let block = new.block();
    let (kind, list) = (target.kind(), target.list());
    let generation = page::head(&last.bytes().0).map_err(named(index, last.block()))?.generation;
    let mut change = index.change();
    change.page(&new, Extent::Whole, |bytes| pages::init(bytes, layout, kind, list, generation));
    let how = (layout, Extent::Whole);
    let done = pages::change(&mut change, index, &new, how, |bytes| match target {
        Target::Unassigned => page::append_unassigned(bytes, layout, tid),
        Target::List { key, placed, .. } => list::append(bytes, block, key, tid, &placed.row),
    })?;
    if !done {
        return Err(broken(index, block));
    }
    let how = (layout, Extent::Difference);
    pages::change(&mut change, index, last, how, |bytes| page::set_next(bytes, Some(block)))?;
    pages::change(&mut change, index, &home, how, |bytes| target.set_last(bytes, layout, block, 1))?;
    change.commit();
    Ok(())
}
