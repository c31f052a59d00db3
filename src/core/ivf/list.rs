//! List pages: addresses and dead marks in the clear, codes in sealed segments.

use zeroize::Zeroizing;

use crate::core::memory;

use super::key::PageKey;
use super::layout::{DATA_AT, Layout, PageBytes, SEGMENT_HEAD_BYTES, SPECIAL_AT, TID_BYTES};
use super::page::{Head, Kind, PageError, Rows as PageRows, Tid, head, places, put_tid, write_head};
use super::segment::{self, Named};

/// Rows one after the other, in the clear.
type PlainRows = Zeroizing<Vec<u8>>;

/// Adds a row, `tid` with its code, to a list page in `block`; `false` where every place is taken by a row that lives.
///
/// The last segment is opened and sealed anew without its dead rows. A page that gets full is closed; one that was closed
/// early, or that is full of rows some of which are dead, is opened whole and written anew. After an error the page is in
/// no state to be kept, here and in [`fill`] and [`reseal`].
pub fn append(
    page: &mut PageBytes,
    block: u32,
    key: &PageKey,
    tid: Tid,
    row: &[u8],
) -> Result<bool, PageError> {
    let head = checked(page, key)?;
    let layout = &key.identity.layout;
    if row.len() != layout.rows.row_bytes() {
        return Err(PageError::Capacity);
    }
    let is_last_place = usize::from(head.rows) + 1 >= layout.capacity;
    if head.rows == 0 || head.closed || is_last_place {
        return append_to_all(page, block, key, tid, row);
    }
    append_to_tail(page, block, key, tid, row)?;
    Ok(true)
}

/// Writes rows to an empty list page, for a build: closed, though it may have room left.
pub fn fill(
    page: &mut PageBytes,
    block: u32,
    key: &PageKey,
    tids: &[Tid],
    rows: &[u8],
) -> Result<(), PageError> {
    if checked(page, key)?.rows != 0 {
        return Err(PageError::Capacity);
    }
    write_all(page, block, key, tids, rows, true)
}

/// Seals a list page anew under `new`; dead rows go.
pub fn reseal(page: &mut PageBytes, block: u32, old: &PageKey, new: &PageKey) -> Result<(), PageError> {
    let head = checked(page, old)?;
    let (tids, rows) = live_rows(page, block, old)?;
    write_all(page, block, new, &tids, &rows, head.closed)
}

/// Opens all rows of a list page into `blocks`, in the form of a closed page; dead rows are among them.
/// What was in the buffer is gone, also after an error.
pub fn open(page: &PageBytes, block: u32, key: &PageKey, blocks: &mut Vec<u8>) -> Result<(), PageError> {
    blocks.clear();
    let head = checked(page, key)?;
    let layout = &key.identity.layout;
    if head.closed {
        let bytes = layout.rows.blocks_bytes(head.rows.into());
        blocks.try_reserve(bytes).map_err(|_| memory::OutOfMemory)?;
        blocks.resize(bytes, 0);
        return open_segment(page, block, key, 0, blocks);
    }
    let rows = open_open(page, block, key)?;
    blocks.try_reserve(layout.rows.blocks_bytes(head.rows.into())).map_err(|_| memory::OutOfMemory)?;
    layout.rows.pack(&rows, blocks);
    Ok(())
}

/// Opens all rows of a list page, those of a closed one where they stand, and says where they are: in the form of a closed
/// page, dead rows among them. `room` is for those of an open page.
pub fn open_in_place<'a>(
    page: &'a mut PageBytes,
    block: u32,
    key: &PageKey,
    room: &'a mut Vec<u8>,
) -> Result<(PageRows<'a>, &'a [u8]), PageError> {
    let head = checked(page, key)?;
    let layout = &key.identity.layout;
    if !head.closed {
        open(page, block, key, room)?;
        return Ok((PageRows::parse(page, layout)?, room));
    }
    let segment = Segment::of(&head, layout, 0);
    segment::open_in_place(page, block, key, (segment.at, segment.bytes), &segment.named(layout, 0))?;
    let blocks = segment.at + SEGMENT_HEAD_BYTES;
    Ok((PageRows::parse(page, layout)?, &page[blocks..blocks + segment.bytes]))
}

/// Where the data of a list page end.
pub(super) fn end(head: &Head, layout: &Layout) -> usize {
    let segments = if head.closed { 1 } else { usize::from(head.rows).div_ceil(layout.tail_rows) };
    segments.checked_sub(1).map_or(layout.segments_at(), |last| {
        let segment = Segment::of(head, layout, last);
        segment.at + SEGMENT_HEAD_BYTES + segment.bytes
    })
}

/// Where a segment stands and what is in it.
struct Segment {
    at: usize,
    /// Of the ciphertext.
    bytes: usize,
    start: usize,
    rows: usize,
}

impl Segment {
    fn named(&self, layout: &Layout, number: usize) -> Named {
        let start = layout.tids_at() + self.start * TID_BYTES;
        Named { number, rows: self.rows, clear: start..start + self.rows * TID_BYTES }
    }

    fn of(head: &Head, layout: &Layout, number: usize) -> Self {
        let all = usize::from(head.rows);
        if head.closed {
            let bytes = layout.rows.blocks_bytes(all);
            return Segment { at: layout.segments_at(), bytes, start: 0, rows: all };
        }
        let start = number * layout.tail_rows;
        let rows = all.saturating_sub(start).min(layout.tail_rows);
        let at = layout.segments_at() + number * layout.tail_segment_bytes();
        Segment { at, bytes: rows * layout.rows.row_bytes(), start, rows }
    }
}

/// The special area of a list page with possible rows that `key` can open or that has none.
fn checked(page: &PageBytes, key: &PageKey) -> Result<Head, PageError> {
    let head = head(page)?;
    if head.kind != Kind::List {
        return Err(PageError::OtherKind);
    }
    // What is not opened yet vouches for the addresses; whoever uses them has them checked.
    places(&head, &key.identity.layout)?;
    match head.version {
        0 => Ok(head),
        version if version == key.version => Ok(head),
        version => Err(PageError::OtherVersion(version)),
    }
}

fn append_to_tail(
    page: &mut PageBytes,
    block: u32,
    key: &PageKey,
    tid: Tid,
    row: &[u8],
) -> Result<(), PageError> {
    let (head, layout) = (head(page)?, &key.identity.layout);
    let number = usize::from(head.rows) / layout.tail_rows;
    let old = Segment::of(&head, layout, number);
    let mut opened = Zeroizing::new(memory::zeroed(old.bytes)?);
    // The first row of a segment has none beside it.
    if old.rows > 0 {
        open_segment(page, block, key, number, &mut opened)?;
    }
    let (mut tids, mut rows) = live_of(page, layout, old.start, &opened)?;
    tids.push(tid);
    memory::append(&mut rows, row)?;
    let places = places(&head, layout)?;
    page[layout.tids_at() + old.start * TID_BYTES..][..old.rows * TID_BYTES].fill(0);
    page[old.at..end(&head, layout).max(old.at)].fill(0);
    tids.iter().enumerate().for_each(|(row, tid)| put_tid(page, places, old.start + row, *tid));
    write_head(page, Head { rows: (old.start + tids.len()) as u16, ..head });
    seal_segment(page, block, key, number, &mut rows)
}

fn append_to_all(
    page: &mut PageBytes,
    block: u32,
    key: &PageKey,
    tid: Tid,
    row: &[u8],
) -> Result<bool, PageError> {
    let capacity = key.identity.layout.capacity;
    if usize::from(head(page)?.rows) == capacity
        && PageRows::parse(page, &key.identity.layout)?.live() == capacity
    {
        return Ok(false);
    }
    let (mut tids, mut rows) = live_rows(page, block, key)?;
    tids.push(tid);
    memory::append(&mut rows, row)?;
    write_all(page, block, key, &tids, &rows, tids.len() == capacity)?;
    Ok(true)
}

/// Writes rows to a page as if nothing had been on it.
fn write_all(
    page: &mut PageBytes,
    block: u32,
    key: &PageKey,
    tids: &[Tid],
    rows: &[u8],
    closed: bool,
) -> Result<(), PageError> {
    let layout = &key.identity.layout;
    let row_bytes = layout.rows.row_bytes();
    if tids.len() > layout.capacity || rows.len() != tids.len() * row_bytes {
        return Err(PageError::Capacity);
    }
    let version = if tids.is_empty() { 0 } else { key.version };
    let closed = closed && !tids.is_empty();
    let head = Head { rows: tids.len() as u16, version, closed, ..head(page)? };
    page[DATA_AT..SPECIAL_AT].fill(0);
    segment::draw_salt(page)?;
    let places = places(&head, layout)?;
    tids.iter().enumerate().for_each(|(row, tid)| put_tid(page, places, row, *tid));
    write_head(page, head);
    if closed {
        let mut blocks = Zeroizing::new(memory::room(layout.rows.blocks_bytes(tids.len()))?);
        layout.rows.pack(rows, &mut blocks);
        return seal_segment(page, block, key, 0, &mut blocks);
    }
    rows.chunks(layout.tail_rows * row_bytes).enumerate().try_for_each(|(number, rows)| {
        seal_segment(page, block, key, number, &mut Zeroizing::new(memory::copy(rows)?))
    })
}

/// The rows of the page that are not dead.
fn live_rows(page: &PageBytes, block: u32, key: &PageKey) -> Result<(Vec<Tid>, PlainRows), PageError> {
    let is_closed = head(page)?.closed;
    let opened = if is_closed { open_closed(page, block, key)? } else { open_open(page, block, key)? };
    live_of(page, &key.identity.layout, 0, &opened)
}

/// Those of `opened`, which are the rows of the page from `start` on, that are not dead.
fn live_of(
    page: &PageBytes,
    layout: &Layout,
    start: usize,
    opened: &[u8],
) -> Result<(Vec<Tid>, PlainRows), PageError> {
    let (mut tids, mut live) = (Vec::new(), room_for(layout)?);
    let opened = opened.chunks_exact(layout.rows.row_bytes());
    let rows = PageRows::parse(page, layout)?.iter().skip(start).zip(opened);
    for ((tid, _), row) in rows.filter(|((_, dead), _)| !dead) {
        tids.push(tid);
        memory::append(&mut live, row)?;
    }
    Ok((tids, live))
}

/// All rows of an open page, one after the other.
fn open_open(page: &PageBytes, block: u32, key: &PageKey) -> Result<PlainRows, PageError> {
    let layout = &key.identity.layout;
    let count = usize::from(head(page)?.rows);
    let mut rows = Zeroizing::new(memory::zeroed(count * layout.rows.row_bytes())?);
    let segments = rows.chunks_mut(layout.tail_rows * layout.rows.row_bytes());
    segments.enumerate().try_for_each(|(number, rows)| open_segment(page, block, key, number, rows))?;
    Ok(rows)
}

/// All rows of a closed page, one after the other.
fn open_closed(page: &PageBytes, block: u32, key: &PageKey) -> Result<PlainRows, PageError> {
    let layout = &key.identity.layout;
    let count = usize::from(head(page)?.rows);
    let mut blocks = Zeroizing::new(memory::zeroed(layout.rows.blocks_bytes(count))?);
    open_segment(page, block, key, 0, &mut blocks)?;
    let mut rows = room_for(layout)?;
    (0..count).for_each(|row| layout.rows.unpack(&blocks, row, &mut rows));
    Ok(rows)
}

/// Room for a full page and one more row: what is in the clear is never moved by growing.
fn room_for(layout: &Layout) -> Result<PlainRows, PageError> {
    Ok(Zeroizing::new(memory::room((layout.capacity + 1) * layout.rows.row_bytes())?))
}

fn open_segment(
    page: &PageBytes,
    block: u32,
    key: &PageKey,
    number: usize,
    out: &mut [u8],
) -> Result<(), PageError> {
    let segment = Segment::of(&head(page)?, &key.identity.layout, number);
    segment::open(page, block, key, segment.at, &segment.named(&key.identity.layout, number), out)
}

/// Seals `rows`, which are ciphertext after this, as a segment of the page.
fn seal_segment(
    page: &mut PageBytes,
    block: u32,
    key: &PageKey,
    number: usize,
    rows: &mut [u8],
) -> Result<(), PageError> {
    let segment = Segment::of(&head(page)?, &key.identity.layout, number);
    segment::seal(page, block, key, segment.at, &segment.named(&key.identity.layout, number), rows)
}
