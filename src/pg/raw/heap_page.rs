//! Replaces bytes of values where they are, in pages of a heap table, without a new row version.
//!
//! The page is changed under a cleanup lock, so that no reader of this server looks at it, and logged as a heap prune record
//! that prunes nothing with a forced image of the whole page: whoever replays that takes a cleanup lock too. Generic WAL
//! does not, and readers of a standby would see half of an old and half of a new value.

use pgrx::pg_sys;

use super::tuple::{Attribute, Layout, Version};
use super::{version, xact};
use crate::pg::error::Refused;

const PAGE: usize = pg_sys::BLCKSZ as usize;
/// Where a page's line pointers start.
const ITEMS: usize = std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp);

/// A table whose pages can be rewritten, locked as for an UPDATE until the transaction ends.
pub struct Table {
    relation: pg_sys::Relation,
    /// Of the columns up to the one that is rewritten.
    layout: Vec<Layout>,
    logged: bool,
    strategy: pg_sys::BufferAccessStrategy,
}

/// A page of such a table, pinned until [`Page::release`] or the end of the transaction.
pub struct Page<'a> {
    table: &'a Table,
    buffer: pg_sys::Buffer,
}

/// What a page held at one moment.
pub struct PageImage(Box<[u64; PAGE / 8]>);

/// A value in a copy of a page.
pub enum Value<'a> {
    /// Its bytes, and where in the page they start.
    Inline(usize, &'a [u8]),
    /// Stored out of line or compressed by PostgreSQL, or the row is older than the column.
    Elsewhere,
}

/// Bytes to be put in the place of as many that the copy of the page has there.
pub struct Patch<'a> {
    /// Where in the page.
    pub offset: usize,
    /// What comes there.
    pub new: &'a [u8],
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// All patches are in it.
    Done,
    /// Somebody looks at it.
    Busy,
    /// It is not what it was when it was copied.
    Changed,
}

impl Table {
    /// Opens a table of which the current role is the owner.
    pub fn open(table: pg_sys::Oid, column: i32) -> Result<Table, Refused> {
        // SAFETY: an error if the relation does not exist; it stays open until `close` or the end of the transaction.
        let relation = unsafe { pg_sys::relation_open(table, pg_sys::RowExclusiveLock as i32) };
        if !version::owns(table) {
            return Err(Refused::Owner);
        }
        // SAFETY: an open relation has a pg_class row and a tuple descriptor; the column is inside it.
        unsafe {
            let class = &*(*relation).rd_rel;
            let is_heap =
                class.relkind == pg_sys::RELKIND_RELATION as i8 && class.relam == pg_sys::HEAP_TABLE_AM_OID;
            let persistence = class.relpersistence as u8;
            if !is_heap
                || persistence == pg_sys::RELPERSISTENCE_TEMP
                || !(1..=(*(*relation).rd_att).natts).contains(&column)
            {
                return Err(Refused::Kind);
            }
            let layout = version::layout((*relation).rd_att, column as usize);
            if layout.last().is_none_or(|column| column.length != -1) {
                return Err(Refused::Kind);
            }
            // Where the log is minimal, a table that this transaction made or emptied is not logged at all.
            let skipped =
                pg_sys::wal_level < pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32 && version::is_new(relation);
            let logged = persistence == pg_sys::RELPERSISTENCE_PERMANENT && !skipped;
            // A ring of buffers, so that the table does not drive everything else out of memory.
            let strategy = pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKWRITE);
            Ok(Table { relation, layout, logged, strategy })
        }
    }

    /// How many pages it has now.
    pub fn pages(&self) -> u32 {
        // SAFETY: the relation is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// Pins a page below [`Table::pages`].
    pub fn page(&self, number: u32) -> Page<'_> {
        xact::check_interrupts();
        // SAFETY: the relation is open and has the page.
        let buffer = unsafe {
            pg_sys::ReadBufferExtended(
                self.relation,
                pg_sys::ForkNumber::MAIN_FORKNUM,
                number,
                pg_sys::ReadBufferMode::RBM_NORMAL,
                self.strategy,
            )
        };
        Page { table: self, buffer }
    }

    /// Closes it; the lock stays until the end of the transaction.
    pub fn close(self) {
        // SAFETY: opened by `open`, and no page borrows it any more.
        unsafe { pg_sys::relation_close(self.relation, pg_sys::NoLock as i32) }
    }
}

impl Page<'_> {
    /// Takes over the page as it is now.
    pub fn copy(&self, copy: &mut PageImage) {
        // SAFETY: the buffer is pinned, and locked while it is read; both sides have PAGE bytes.
        unsafe {
            pg_sys::LockBuffer(self.buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            std::ptr::copy_nonoverlapping(
                pg_sys::BufferGetPage(self.buffer).cast::<u8>(),
                copy.0.as_mut_ptr().cast(),
                PAGE,
            );
            pg_sys::LockBuffer(self.buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
        }
    }

    /// The column's values of every row version in `copy`, dead ones and those of open transactions too, but for what
    /// transactions have written that were rolled back: that may have had other columns.
    pub fn values<'c>(&self, copy: &'c PageImage) -> Vec<Value<'c>> {
        copy.items().iter().filter_map(|item| self.value(copy, *item)).collect()
    }

    fn value<'c>(&self, copy: &'c PageImage, item: pg_sys::ItemIdData) -> Option<Value<'c>> {
        if item.lp_flags() != pg_sys::LP_NORMAL {
            return None;
        }
        let place = item.lp_off() as usize..(item.lp_off() + item.lp_len()) as usize;
        let version = Version::of(copy.bytes().get(place.clone())?)?;
        if version.is_aborted() {
            return None;
        }
        match version.last_of(&self.table.layout) {
            Attribute::Null => None,
            Attribute::Elsewhere => Some(Value::Elsewhere),
            Attribute::Inline(range) => {
                let start = place.start + range.start;
                Some(Value::Inline(start, copy.bytes().get(start..start + range.len())?))
            }
        }
    }

    /// Puts the patches into the page, if nobody looks at it and it still holds what `copy` does. A standby first ends
    /// what does not see the transaction `horizon` yet.
    pub fn replace(
        &self,
        copy: &PageImage,
        patches: &[Patch<'_>],
        horizon: pg_sys::TransactionId,
    ) -> Replaced {
        let record = version::nothing_pruned(horizon);
        // SAFETY: pinned, once by us; a lock is only held until the end of this function, where nothing raises but PANIC.
        unsafe {
            if !pg_sys::ConditionalLockBufferForCleanup(self.buffer) {
                return Replaced::Busy;
            }
            let page = pg_sys::BufferGetPage(self.buffer).cast::<u8>();
            let same = copy.still_fits(std::slice::from_raw_parts(page, PAGE), patches);
            if same {
                self.write(page, copy.hole(), patches, &record);
            }
            pg_sys::LockBuffer(self.buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
            if same { Replaced::Done } else { Replaced::Changed }
        }
    }

    /// # Safety
    /// The cleanup lock of `page` is held, and every patch and the hole lie inside it.
    unsafe fn write(
        &self,
        page: *mut u8,
        hole: std::ops::Range<usize>,
        patches: &[Patch<'_>],
        record: &[u8],
    ) {
        // SAFETY: as the caller says. A critical section: an error would leave page and log apart, hence is a PANIC; nothing
        // here allocates, and the log record's parts are few enough for the space that is always there.
        unsafe {
            pg_sys::CritSectionCount += 1;
            for patch in patches {
                std::ptr::copy_nonoverlapping(patch.new.as_ptr(), page.add(patch.offset), patch.new.len());
            }
            // Row versions that were removed leave their bytes here, and the image of the page leaves it out.
            std::ptr::write_bytes(page.add(hole.start), 0, hole.len());
            pg_sys::MarkBufferDirty(self.buffer);
            if self.table.logged {
                let end = log(self.buffer, record);
                let header = page.cast::<pg_sys::PageHeaderData>();
                (*header).pd_lsn.xlogid = (end >> 32) as u32;
                (*header).pd_lsn.xrecoff = end as u32;
            }
            pg_sys::CritSectionCount -= 1;
        }
    }

    /// Gives the pin back.
    pub fn release(self) {
        // SAFETY: pinned by `Table::page` and not locked.
        unsafe { pg_sys::ReleaseBuffer(self.buffer) }
    }
}

impl Default for PageImage {
    fn default() -> Self {
        PageImage(Box::new([0; PAGE / 8]))
    }
}

impl PageImage {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the array has PAGE initialised bytes.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), PAGE) }
    }

    /// The line pointers; an all-zero page has none.
    fn items(&self) -> &[pg_sys::ItemIdData] {
        let Some(bytes) = self.bytes().get(ITEMS..self.hole().start) else { return &[] };
        // SAFETY: whole line pointers, which are 4 bytes of any value each; the page and where they start are aligned to that.
        unsafe {
            std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<pg_sys::ItemIdData>())
        }
    }

    /// The free space between line pointers and rows.
    fn hole(&self) -> std::ops::Range<usize> {
        // SAFETY: every page starts with this header.
        let header = unsafe { &*self.0.as_ptr().cast::<pg_sys::PageHeaderData>() };
        usize::from(header.pd_lower)..usize::from(header.pd_upper)
    }

    /// No row version that was removed has left bytes behind.
    pub fn is_hole_clean(&self) -> bool {
        self.bytes().get(self.hole()).is_none_or(|hole| hole.iter().all(|byte| *byte == 0))
    }

    /// Header but for LSN, checksum and hints, line pointers and the bytes to be replaced are what they were.
    fn still_fits(&self, page: &[u8], patches: &[Patch<'_>]) -> bool {
        const LOWER: usize = std::mem::offset_of!(pg_sys::PageHeaderData, pd_lower);
        const PRUNE_XID: usize = std::mem::offset_of!(pg_sys::PageHeaderData, pd_prune_xid);
        let hole = self.hole();
        if !(ITEMS <= hole.start && hole.start <= hole.end && hole.end <= PAGE) {
            return false;
        }
        let same = |range: std::ops::Range<usize>| page[range.clone()] == self.bytes()[range];
        same(LOWER..PRUNE_XID)
            && same(ITEMS..hole.start)
            && patches.iter().all(|patch| {
                let place = patch.offset..patch.offset + patch.new.len();
                hole.end <= place.start && place.end <= PAGE && same(place)
            })
    }
}

/// Logs the whole page as a record whose replay waits for older snapshots, or ends them, takes a cleanup lock and does
/// nothing else.
///
/// # Safety
/// In a critical section, with `buffer` changed, marked dirty and locked for cleanup.
unsafe fn log(buffer: pg_sys::Buffer, nothing_pruned: &[u8]) -> pg_sys::XLogRecPtr {
    let flags = (pg_sys::REGBUF_STANDARD | pg_sys::REGBUF_FORCE_IMAGE) as u8;
    // SAFETY: as the caller says; the data is only read, and lives until the record is inserted.
    unsafe {
        pg_sys::XLogBeginInsert();
        pg_sys::XLogRegisterData(nothing_pruned.as_ptr().cast_mut().cast(), nothing_pruned.len() as _);
        pg_sys::XLogRegisterBuffer(0, buffer, flags);
        pg_sys::XLogInsert(pg_sys::RmgrIds::RM_HEAP2_ID as u8, version::PRUNE)
    }
}
