//! The rows that an index's scan points to: fetched by address, under the scan's snapshot (access/tableam.h).

use pgrx::pg_sys;

use super::index_am::pointer_of;
use crate::core::ivf::page::Tid;
use crate::pg::error::PgError;

/// Fetches rows of a table by their address.
pub struct Rows {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    fetch: *mut pg_sys::IndexFetchTableData,
    slot: *mut pg_sys::TupleTableSlot,
    column: i16,
    /// What a partial index is for, and what it is evaluated in; NULL where the index is whole.
    predicate: *mut pg_sys::ExprState,
    executor: *mut pg_sys::EState,
    expressions: *mut pg_sys::ExprContext,
    /// What one row needs.
    short: pg_sys::MemoryContext,
}

impl Rows {
    /// For a scan, in a memory context that lives as long.
    ///
    /// # Safety
    /// PostgreSQL has set the scan's table and snapshot.
    pub unsafe fn new(scan: pg_sys::IndexScanDesc, context: pg_sys::MemoryContext) -> Result<Rows, PgError> {
        // SAFETY: as the caller says.
        unsafe { Self::open((*scan).heapRelation, (*scan).indexRelation, (*scan).xs_snapshot, context) }
    }

    /// The rows of a table that a snapshot sees, by the addresses that an index has.
    ///
    /// # Safety
    /// Both relations are open, and the snapshot is valid, as long as this is used.
    pub unsafe fn open(
        table: pg_sys::Relation,
        index: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        context: pg_sys::MemoryContext,
    ) -> Result<Rows, PgError> {
        // SAFETY: as the caller says; what is made here belongs to `context`.
        unsafe {
            // Addresses are kept without pins on their pages: under another snapshot, what comes there may be visible.
            if snapshot.is_null() || (*snapshot).snapshot_type != pg_sys::SnapshotType::SNAPSHOT_MVCC {
                return Err(PgError::SnapshotOfScan);
            }
            let before = pg_sys::MemoryContextSwitchTo(context);
            let begin = (*(*table).rd_tableam).index_fetch_begin;
            let begin = begin.ok_or(PgError::Unsupported)?;
            let fetch = pg_sys::ffi::pg_guard_ffi_boundary(|| begin(table));
            let slot = pg_sys::table_slot_create(table, std::ptr::null_mut());
            let column = *(*(*index).rd_index).indkey.values.as_ptr();
            let short = pg_sys::AllocSetContextCreateInternal(
                context,
                c"row of a sealed index".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let mut rows = Rows {
                table,
                index,
                snapshot,
                fetch,
                slot,
                column,
                predicate: std::ptr::null_mut(),
                executor: std::ptr::null_mut(),
                expressions: std::ptr::null_mut(),
                short,
            };
            rows.prepare_predicate();
            pg_sys::MemoryContextSwitchTo(before);
            Ok(rows)
        }
    }

    /// # Safety
    /// In the memory context of the scan.
    unsafe fn prepare_predicate(&mut self) {
        // SAFETY: as the caller says; the list is a copy.
        unsafe {
            let predicate = pg_sys::RelationGetIndexPredicate(self.index);
            if predicate.is_null() {
                return;
            }
            self.executor = pg_sys::CreateExecutorState();
            self.predicate = pg_sys::ExecPrepareQual(predicate, self.executor);
            self.expressions = pg_sys::MakePerTupleExprContext(self.executor);
            (*self.expressions).ecxt_scantuple = self.slot;
        }
    }

    /// Shows `read` the value of the indexed column in the row version at this address, or behind it in its chain, that the
    /// scan's snapshot sees and that a partial index is for: the planner has dropped the conditions that this implies. `None`
    /// where there is no such, or the value is NULL. The value lives as long as `read`.
    pub fn read<T>(
        &mut self,
        tid: Tid,
        read: impl FnOnce(pg_sys::Datum) -> Result<T, PgError>,
    ) -> Result<Option<T>, PgError> {
        // SAFETY: the scan is open, and so are its relations; the slot holds the row, and the page its pin, until the next.
        unsafe {
            pg_sys::MemoryContextReset(self.short);
            let before = pg_sys::MemoryContextSwitchTo(self.short);
            let datum = if self.fetch(tid) && self.is_wanted() { self.value() } else { None };
            let read = datum.map(read).transpose();
            pg_sys::MemoryContextSwitchTo(before);
            read
        }
    }

    unsafe fn fetch(&mut self, tid: Tid) -> bool {
        let (mut again, mut pointer) = (false, pointer_of(tid));
        // SAFETY: see `read`. The address is a copy, which is overwritten with that of the visible version.
        unsafe {
            let Some(fetch) = (*(*self.table).rd_tableam).index_fetch_tuple else { return false };
            loop {
                let (pointer, again_at, none) = (&raw mut pointer, &raw mut again, std::ptr::null_mut());
                let (from, snapshot, slot) = (self.fetch, self.snapshot, self.slot);
                let found = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    fetch(from, pointer, snapshot, slot, again_at, none)
                });
                if found || !again {
                    return found;
                }
            }
        }
    }

    /// `ExecQual` in a context of its own.
    unsafe fn is_wanted(&mut self) -> bool {
        if self.predicate.is_null() {
            return true;
        }
        let mut null = false;
        // SAFETY: see `read`; the expression was prepared for this slot.
        unsafe {
            let (predicate, expressions) = (self.predicate, self.expressions);
            let Some(evaluate) = (*predicate).evalfunc else { return false };
            pg_sys::MemoryContextReset((*expressions).ecxt_per_tuple_memory);
            let before = pg_sys::MemoryContextSwitchTo((*expressions).ecxt_per_tuple_memory);
            let null = &raw mut null;
            let wanted = pg_sys::ffi::pg_guard_ffi_boundary(|| evaluate(predicate, expressions, null));
            pg_sys::MemoryContextSwitchTo(before);
            wanted.value() & 0xFF != 0
        }
    }

    unsafe fn value(&mut self) -> Option<pg_sys::Datum> {
        // SAFETY: see `read`; the index is on a column of the table.
        unsafe {
            if (*self.slot).tts_nvalid < self.column {
                pg_sys::slot_getsomeattrs_int(self.slot, self.column.into());
            }
            let at = self.column as usize - 1;
            (!*(*self.slot).tts_isnull.add(at)).then(|| *(*self.slot).tts_values.add(at))
        }
    }

    /// Gives the last row back, and the pin on its page.
    pub fn reset(&mut self) {
        // SAFETY: see `read`.
        unsafe {
            pg_sys::ExecStoreAllNullTuple(self.slot);
            if let Some(reset) = (*(*self.table).rd_tableam).index_fetch_reset {
                let fetch = self.fetch;
                pg_sys::ffi::pg_guard_ffi_boundary(|| reset(fetch));
            }
        }
    }

    /// Gives everything back, but for memory.
    pub fn close(self) {
        // SAFETY: see `read`; nothing is used after this.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            if let Some(end) = (*(*self.table).rd_tableam).index_fetch_end {
                let fetch = self.fetch;
                pg_sys::ffi::pg_guard_ffi_boundary(|| end(fetch));
            }
            if !self.executor.is_null() {
                pg_sys::FreeExecutorState(self.executor);
            }
        }
    }
}
