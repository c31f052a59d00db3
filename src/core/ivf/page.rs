//! What stands in the clear on every page, read without a key and checked whatever the bytes are.

use crate::core::aead::AeadError;
use crate::core::memory::OutOfMemory;
use crate::core::rng::RandomError;

use super::key::PAGE_FORMAT;
use super::layout::{DATA_AT, Layout, PageBytes, SALT_BYTES, SPECIAL_AT, TID_BYTES, UNASSIGNED_CAPACITY};

const MAGIC: u32 = 0x5653_4750;
/// PostgreSQL's MaxHeapTuplesPerPage for pages of 8 kB.
const MAX_OFFSET: u16 = 291;
/// PostgreSQL's InvalidBlockNumber.
const NO_BLOCK: u32 = u32::MAX;

/// Why a page could not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The page is none of ours.
    #[error("the page has no mark of an index of sealed lists")]
    Foreign,
    /// Written by another version of pgseal.
    #[error("the page has format {0}")]
    Format(u8),
    /// A field has a value that nothing writes.
    #[error("the page is malformed: {0}")]
    Malformed(&'static str),
    /// Another kind of page than was asked for.
    #[error("the page is of another kind")]
    OtherKind,
    /// Sealed under this version of the data key and not under the one that was given.
    #[error("the page is sealed under version {0} of the data key")]
    OtherVersion(u16),
    /// The tag does not fit what is on the page, where it stands or the key.
    #[error("the page does not authenticate")]
    Authentication,
    /// More rows than the page has room for, or none where there must be one.
    #[error("the page cannot take these rows")]
    Capacity,
    /// No nonce could be drawn.
    #[error("the operating system gave no random bytes")]
    Random,
    /// No room for what is opened.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl From<AeadError> for PageError {
    fn from(_: AeadError) -> Self {
        PageError::Authentication
    }
}

impl From<RandomError> for PageError {
    fn from(_: RandomError) -> Self {
        PageError::Random
    }
}

/// What a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Block 0: what the index is.
    Meta = 1,
    /// Rows of one list with sealed codes.
    List = 2,
    /// Addresses of rows that no key was there for.
    Unassigned = 3,
    /// Where the lists begin, and their sealed centroids.
    Directory = 4,
    /// Not in use.
    Free = 5,
}

/// The special area of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The block that goes on where this one ends.
    pub next: Option<u32>,
    /// List of a list page, first list of a directory page, else 0.
    pub list: u32,
    /// Counts how often the lists were made anew.
    pub generation: u32,
    /// Rows of a list or unassigned page, dead ones too; lists of a directory page.
    pub rows: u16,
    /// Version of the data key that seals the page; 0 as long as nothing on it is sealed.
    pub version: u16,
    /// What the page is for.
    pub kind: Kind,
    /// A list page whose rows stand in blocks and in one segment.
    pub closed: bool,
}

/// The address of a row in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid {
    /// Block of the table.
    pub block: u32,
    /// Line pointer in the block, from 1.
    pub offset: u16,
}

impl Tid {
    pub(super) fn to_bytes(self) -> [u8; TID_BYTES] {
        let ([a, b, c, d], [e, f]) = (self.block.to_le_bytes(), self.offset.to_le_bytes());
        [a, b, c, d, e, f]
    }

    fn from_bytes([a, b, c, d, e, f]: [u8; TID_BYTES]) -> Self {
        Tid { block: u32::from_le_bytes([a, b, c, d]), offset: u16::from_le_bytes([e, f]) }
    }

    fn is_possible(self) -> bool {
        self.block != NO_BLOCK && (1..=MAX_OFFSET).contains(&self.offset)
    }
}

/// Makes an empty page: zeros from the end of PostgreSQL's header on, and the special area. The caller has initialised
/// that header (`PageInit` with a special area of 32 bytes) and sets pd_lower to [`data_end`].
pub fn init(page: &mut PageBytes, kind: Kind, list: u32, generation: u32) {
    page[DATA_AT..].fill(0);
    write_head(page, Head { next: None, list, generation, rows: 0, version: 0, kind, closed: false });
}

/// The special area, checked.
pub fn head(page: &PageBytes) -> Result<Head, PageError> {
    let special = &page[SPECIAL_AT..];
    let word =
        |at: usize| u32::from_le_bytes([special[at], special[at + 1], special[at + 2], special[at + 3]]);
    let half = |at: usize| u16::from_le_bytes([special[at], special[at + 1]]);
    if word(28) != MAGIC {
        return Err(PageError::Foreign);
    }
    if special[17] != PAGE_FORMAT {
        return Err(PageError::Format(special[17]));
    }
    if special[19..28] != [0; 9] {
        return Err(PageError::Malformed("reserved bytes"));
    }
    let (kind, closed) = (kind(special[16])?, closed(special[18])?);
    let next = Some(word(0)).filter(|block| *block != NO_BLOCK);
    let head =
        Head { next, list: word(4), generation: word(8), rows: half(12), version: half(14), kind, closed };
    let is_possible = match kind {
        Kind::List => (head.version != 0) == (head.rows != 0) && (head.rows != 0 || !closed),
        Kind::Directory => (head.version != 0) == (head.rows != 0) && !closed,
        Kind::Meta | Kind::Unassigned | Kind::Free => head.version == 0 && !closed,
    };
    is_possible.then_some(head).ok_or(PageError::Malformed("rows without a key or a key without rows"))
}

/// Writes the special area.
pub(super) fn write_head(page: &mut PageBytes, head: Head) {
    let special = &mut page[SPECIAL_AT..];
    let words = [head.next.unwrap_or(NO_BLOCK), head.list, head.generation];
    for (bytes, word) in special.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    special[12..14].copy_from_slice(&head.rows.to_le_bytes());
    special[14..16].copy_from_slice(&head.version.to_le_bytes());
    special[16..19].copy_from_slice(&[head.kind as u8, PAGE_FORMAT, u8::from(head.closed)]);
    special[19..28].fill(0);
    special[28..].copy_from_slice(&MAGIC.to_le_bytes());
}

/// Links a page to the one that goes on where it ends.
pub fn set_next(page: &mut PageBytes, next: Option<u32>) -> Result<(), PageError> {
    let head = head(page)?;
    write_head(page, Head { next, ..head });
    Ok(())
}

/// The rows of a list or unassigned page whose addresses and counts have been checked.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    head: Head,
    dead: &'a [u8],
    tids: &'a [[u8; TID_BYTES]],
}

impl<'a> Rows<'a> {
    /// Reads the rows. Total: never panics.
    pub fn parse(page: &'a PageBytes, layout: &Layout) -> Result<Self, PageError> {
        let head = head(page)?;
        let places = places(&head, layout)?;
        let (tids, _) = page[places.tids..][..usize::from(head.rows) * TID_BYTES].as_chunks();
        let rows = Rows { head, dead: &page[places.dead..places.tids], tids };
        let all_possible = rows.iter().all(|(tid, _)| tid.is_possible());
        all_possible.then_some(rows).ok_or(PageError::Malformed("an address that no row has"))
    }

    /// The special area.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Addresses with their dead marks, in the order of the rows.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (Tid, bool)> + 'a {
        let dead = self.dead;
        let rows = self.tids.iter().enumerate();
        rows.map(move |(row, tid)| (Tid::from_bytes(*tid), dead[row / 8] >> (row % 8) & 1 == 1))
    }

    /// Number of rows that are not dead.
    pub fn live(self) -> usize {
        self.iter().filter(|(_, dead)| !dead).count()
    }
}

/// What [`mark_dead`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    /// Rows that are dead since this call.
    pub newly: usize,
    /// Rows that live on.
    pub live: usize,
}

/// Marks the rows whose address `is_dead` says so of; it is asked once for every row that is not marked yet.
/// For list and unassigned pages; no key needed.
pub fn mark_dead(
    page: &mut PageBytes,
    layout: &Layout,
    mut is_dead: impl FnMut(Tid) -> bool,
) -> Result<Marked, PageError> {
    let rows = Rows::parse(page, layout)?;
    let dead_at = places(&rows.head(), layout)?.dead;
    let mut marks = rows.dead.to_vec();
    let mut marked = Marked { newly: 0, live: 0 };
    for (row, (tid, _)) in rows.iter().enumerate().filter(|(_, (_, dead))| !dead) {
        if is_dead(tid) {
            marks[row / 8] |= 1 << (row % 8);
            marked.newly += 1;
        } else {
            marked.live += 1;
        }
    }
    page[dead_at..dead_at + marks.len()].copy_from_slice(&marks);
    Ok(marked)
}

/// Empties a list or unassigned page on which every row is dead; it stays linked in its list. `true` where it did.
pub fn reset_if_all_dead(page: &mut PageBytes, layout: &Layout) -> Result<bool, PageError> {
    let rows = Rows::parse(page, layout)?;
    let (head, is_dead) = (rows.head(), rows.head().rows > 0 && rows.live() == 0);
    if is_dead {
        init(page, head.kind, head.list, head.generation);
        set_next(page, head.next)?;
    }
    Ok(is_dead)
}

/// Adds an address to an unassigned page; `false` where there is no room.
pub fn append_unassigned(page: &mut PageBytes, layout: &Layout, tid: Tid) -> Result<bool, PageError> {
    let head = Rows::parse(page, layout)?.head();
    if head.kind != Kind::Unassigned {
        return Err(PageError::OtherKind);
    }
    if !tid.is_possible() {
        return Err(PageError::Malformed("an address that no row has"));
    }
    let row = usize::from(head.rows);
    let has_room = row < UNASSIGNED_CAPACITY;
    if has_room {
        put_tid(page, places(&head, layout)?, row, tid);
        write_head(page, Head { rows: head.rows + 1, ..head });
    }
    Ok(has_room)
}

/// Where the data of a page end: pd_lower. What lies between it and the special area is zero.
pub fn data_end(page: &PageBytes, layout: &Layout) -> Result<usize, PageError> {
    let head = head(page)?;
    match head.kind {
        Kind::Meta => Ok(super::meta::END),
        Kind::List => Ok(super::list::end(&head, layout)),
        Kind::Unassigned => Ok(places(&head, layout)?.tids + usize::from(head.rows) * TID_BYTES),
        Kind::Directory => Ok(super::directory::end(&head, layout)),
        Kind::Free => Ok(DATA_AT),
    }
}

/// Where the clear data of a page's rows are; up to `tids` the dead marks.
#[derive(Clone, Copy)]
pub(super) struct Places {
    dead: usize,
    tids: usize,
}

/// Checks the kind and the number of rows.
pub(super) fn places(head: &Head, layout: &Layout) -> Result<Places, PageError> {
    let (places, capacity) = match head.kind {
        Kind::List => (Places { dead: DATA_AT + SALT_BYTES, tids: layout.tids_at() }, layout.capacity),
        Kind::Unassigned => {
            let tids = DATA_AT + UNASSIGNED_CAPACITY.div_ceil(8);
            (Places { dead: DATA_AT, tids }, UNASSIGNED_CAPACITY)
        }
        Kind::Meta | Kind::Directory | Kind::Free => return Err(PageError::OtherKind),
    };
    let fits = usize::from(head.rows) <= capacity;
    fits.then_some(places).ok_or(PageError::Malformed("more rows than fit"))
}

/// Writes the address of a row and takes its dead mark away.
pub(super) fn put_tid(page: &mut PageBytes, places: Places, row: usize, tid: Tid) {
    page[places.tids + row * TID_BYTES..][..TID_BYTES].copy_from_slice(&tid.to_bytes());
    page[places.dead + row / 8] &= !(1 << (row % 8));
}

fn kind(code: u8) -> Result<Kind, PageError> {
    let kinds = [Kind::Meta, Kind::List, Kind::Unassigned, Kind::Directory, Kind::Free];
    let kind = kinds.into_iter().find(|kind| *kind as u8 == code);
    kind.ok_or(PageError::Malformed("an unknown kind"))
}

fn closed(code: u8) -> Result<bool, PageError> {
    match code {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(PageError::Malformed("neither open nor closed")),
    }
}
