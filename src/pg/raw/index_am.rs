//! What PostgreSQL asks an index access method (access/amapi.h), as a trait without pointers.
#![allow(clippy::too_many_arguments, reason = "PostgreSQL's signatures")]

use std::ffi::CStr;

use pgrx::{pg_guard, pg_sys};

use super::call::{Call, Returned};
use super::index_page::{Index, PAGE};
use super::index_rows::Rows;
use super::memory;
use super::version;
use super::xact;
use crate::core::ivf::page::Tid;
use crate::pg::error::PgError;

/// An access method that only orders: one column, no search operator.
pub trait AccessMethod: Sized + 'static {
    /// What a scan keeps. Dropped when PostgreSQL has freed all else.
    type Scan: 'static;
    /// What inserts keep for the rest of their statement.
    type Inserts: Default + 'static;

    /// Fills a new index.
    fn build(building: &Building) -> Result<Built, PgError>;

    /// Writes what an unlogged index is reset to after a crash.
    fn build_empty(index: Index) -> Result<(), PgError>;

    /// Takes a new row in, whose value is not NULL.
    fn insert(index: Index, value: pg_sys::Datum, tid: Tid, kept: &mut Self::Inserts) -> Result<(), PgError>;

    /// Shows every row to `is_dead`, and drops those that it says are.
    fn bulk_delete(
        index: Index,
        vacuum: &Vacuum,
        is_dead: &mut dyn FnMut(Tid) -> bool,
    ) -> Result<Left, PgError>;

    /// Ends a vacuum that found dead rows.
    fn clean_up(index: Index, vacuum: &Vacuum) -> Result<(), PgError>;

    /// What a scan costs; `None` for one that this access method cannot do.
    fn cost(question: &CostQuestion) -> Option<Cost>;

    /// A scan begins.
    fn begin(index: Index) -> Result<Self::Scan, PgError>;

    /// It starts, or starts anew, in the order of the distance to `order`.
    fn restart(scan: &mut Self::Scan, order: &Order) -> Result<(), PgError>;

    /// The next row.
    fn next(scan: &mut Self::Scan, rows: &mut Rows) -> Result<Option<Tid>, PgError>;

    /// What it has done so far, in all of its starts, as EXPLAIN (ANALYZE) is to call it.
    fn effort(scan: &Self::Scan) -> Effort;
}

/// Counts with their names.
pub type Effort = Vec<(&'static CStr, u64)>;

/// What was built.
pub struct Built {
    /// Rows of the table.
    pub rows: f64,
    /// Of those in the index.
    pub indexed: f64,
}

/// What a vacuum has left.
#[derive(Default)]
pub struct Left {
    /// Rows that are in the index.
    pub live: f64,
    /// Rows that were dropped from it now.
    pub removed: f64,
    /// Pages that hold none.
    pub free: u32,
}

/// What a scan costs.
pub struct Cost {
    /// Before the first row.
    pub startup: f64,
    /// For all rows, those before the first included; without visits to the table.
    pub total: f64,
    /// Pages that are read.
    pub pages: f64,
}

/// What a scan is ordered by.
pub struct Order {
    /// The operator's right side; `None` for NULL.
    pub argument: Option<pg_sys::Datum>,
}

/// A vacuum, or CREATE INDEX CONCURRENTLY in its last phase.
pub struct Vacuum {
    strategy: pg_sys::BufferAccessStrategy,
}

/// An index that is being built.
pub struct Building {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
}

/// A path that the planner thinks about.
pub struct CostQuestion {
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
}

/// The address that PostgreSQL writes so.
fn tid_of(pointer: pg_sys::ItemPointerData) -> Tid {
    let block = u32::from(pointer.ip_blkid.bi_hi) << 16 | u32::from(pointer.ip_blkid.bi_lo);
    Tid { block, offset: pointer.ip_posid }
}

/// An address as PostgreSQL writes it.
pub fn pointer_of(tid: Tid) -> pg_sys::ItemPointerData {
    let ip_blkid = pg_sys::BlockIdData { bi_hi: (tid.block >> 16) as u16, bi_lo: tid.block as u16 };
    pg_sys::ItemPointerData { ip_blkid, ip_posid: tid.offset }
}

impl Vacuum {
    /// Copies a page, at the pace that vacuum is told.
    pub fn read(&self, index: Index, block: u32, into: &mut super::index_page::Bytes) {
        version::vacuum_delay_point();
        index.read_with(block, self.strategy, &mut into.0);
    }
}

impl Building {
    /// The index.
    pub fn index(&self) -> Index {
        // SAFETY: open as long as it is built.
        unsafe { Index::new(self.index) }
    }

    /// How many lists it is to have; `None` where nobody says.
    pub fn lists(&self) -> Option<u32> {
        // SAFETY: an open relation; its options are what `options` has made, or NULL.
        let lists = unsafe {
            let options = (*self.index).rd_options.cast::<Options>();
            if options.is_null() { BY_ROWS } else { (*options).lists }
        };
        u32::try_from(lists).ok()
    }

    /// About how many rows the table has. Counted where nobody has counted them yet, as in a restore: PostgreSQL's guess at
    /// their width would make ten times as many of embeddings, or more.
    pub fn estimated_rows(&self) -> f64 {
        // SAFETY: an open table.
        if unsafe { (*(*self.table).rd_rel).reltuples } < 0.0 {
            return self.rows(|_, _, _| Ok(()));
        }
        let (mut pages, mut rows, mut visible) = (0, 0.0, 0.0);
        // SAFETY: an open table; its access method fills the three numbers in.
        unsafe {
            if let Some(estimate) = (*(*self.table).rd_tableam).relation_estimate_size {
                let (table, none) = (self.table, std::ptr::null_mut());
                let (pages, rows, visible) = (&raw mut pages, &raw mut rows, &raw mut visible);
                pg_sys::ffi::pg_guard_ffi_boundary(|| estimate(table, none, pages, rows, visible));
            }
        }
        rows
    }

    /// Bytes that the build may use.
    pub fn memory(&self) -> usize {
        // SAFETY: a plain setting, in kB.
        unsafe { pg_sys::maintenance_work_mem as usize * 1024 }
    }

    /// It is on an expression, not on a column.
    pub fn is_of_expression(&self) -> bool {
        // SAFETY: PostgreSQL's own description of the index.
        unsafe { (*self.info).ii_IndexAttrNumbers[0] <= 0 }
    }

    /// Shows every row with the value that is indexed, unless that is NULL, and whether somebody who comes now may see it.
    /// Of a row that nobody may, what is stored out of line may be gone. Tells how many rows there are.
    pub fn rows(&self, mut each: impl FnMut(Tid, pg_sys::Datum, bool) -> Result<(), PgError>) -> f64 {
        let mut each: &mut dyn FnMut(Tid, pg_sys::Datum, bool) -> Result<(), PgError> = &mut each;
        let state = (&raw mut each).cast();
        // SAFETY: both relations are open and described by `info`; the callback gets `state` back, which lives through the
        // call. The guard turns a PostgreSQL error into a panic, as pgrx's own bindings do.
        unsafe {
            let Some(scan) = (*(*self.table).rd_tableam).index_build_range_scan else { return 0.0 };
            let (table, index, info) = (self.table, self.index, self.info);
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let all = pg_sys::InvalidBlockNumber;
                scan(table, index, info, true, false, true, 0, all, Some(row), state, std::ptr::null_mut())
            })
        }
    }
}

/// `IndexBuildCallback`; its state is what [`Building::rows`] passes.
#[pg_guard]
unsafe extern "C-unwind" fn row(
    _index: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    alive: bool,
    state: *mut std::ffi::c_void,
) {
    // SAFETY: PostgreSQL passes a row address, and a value and its null mark for the only column.
    unsafe {
        if !*nulls {
            let each = &mut *state.cast::<&mut dyn FnMut(Tid, pg_sys::Datum, bool) -> Result<(), PgError>>();
            each(tid_of(*tid), *values, alive).unwrap_or_else(|error| error.raise());
        }
    }
}

impl CostQuestion {
    /// The path is along the order that an operator gives.
    pub fn is_ordered(&self) -> bool {
        // SAFETY: the planner's own structures.
        unsafe { !(*self.path).indexorderbys.is_null() }
    }

    /// Copies the index's first page; false for an index that exists only in somebody's thoughts.
    pub fn first_page(&self, into: &mut [u8; PAGE]) -> bool {
        // SAFETY: the planner's own structures; it holds a lock on every index that it thinks of.
        unsafe {
            let info = (*self.path).indexinfo;
            if (*info).hypothetical {
                return false;
            }
            let index = pg_sys::index_open((*info).indexoid, pg_sys::NoLock as i32);
            Index::new(index).read_into(0, into);
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            true
        }
    }

    /// How many rows the index is thought to have.
    pub fn tuples(&self) -> f64 {
        // SAFETY: as above.
        unsafe { (*(*self.path).indexinfo).tuples }
    }

    /// How many pages it has.
    pub fn pages(&self) -> f64 {
        // SAFETY: as above.
        unsafe { (*(*self.path).indexinfo).pages.into() }
    }

    /// The part of the index's rows that the table's conditions let through; a partial index has done its part.
    pub fn selectivity(&self) -> f64 {
        // SAFETY: as above; an index path belongs to a table.
        let wanted = unsafe { (*(*self.path).path.parent).rows };
        (wanted / self.tuples().max(1.0)).clamp(0.0, 1.0)
    }

    /// How many rows the statement wants; `None` where it does not say.
    pub fn limit(&self) -> Option<f64> {
        // SAFETY: as above; without a planner there is no limit.
        let wanted = unsafe { if self.root.is_null() { -1.0 } else { (*self.root).limit_tuples } };
        (wanted >= 0.0).then_some(wanted)
    }

    /// The settings that the planner's costs are made of.
    pub fn settings(&self) -> CostSettings {
        // SAFETY: plain settings; a tablespace that is there.
        unsafe {
            let (mut random_page, mut sequential_page) = (0.0, 0.0);
            let space = (*(*self.path).indexinfo).reltablespace;
            pg_sys::get_tablespace_page_costs(space, &mut random_page, &mut sequential_page);
            CostSettings {
                random_page,
                sequential_page,
                tuple: pg_sys::cpu_tuple_cost,
                operator: pg_sys::cpu_operator_cost,
            }
        }
    }
}

/// The settings that the planner's costs are made of.
pub struct CostSettings {
    /// `random_page_cost`.
    pub random_page: f64,
    /// `seq_page_cost`.
    pub sequential_page: f64,
    /// `cpu_tuple_cost`.
    pub tuple: f64,
    /// `cpu_operator_cost`.
    pub operator: f64,
}

/// What a scan's `opaque` points to, in the scan's own memory context.
struct Open<M: AccessMethod> {
    context: pg_sys::MemoryContext,
    scan: M::Scan,
    rows: Option<Rows>,
}

/// The answer of a handler function (`index_am_handler`).
pub fn handler<M: AccessMethod>(_: Call) -> Returned {
    // SAFETY: zeroed memory is a valid routine that can do nothing.
    unsafe {
        let routine = pg_sys::palloc0(size_of::<pg_sys::IndexAmRoutine>()).cast::<pg_sys::IndexAmRoutine>();
        *routine = routine_of::<M>();
        Ok(Some(pg_sys::Datum::from(routine)))
    }
}

/// Has EXPLAIN (ANALYZE) show what scans have done, where it asks; from `_PG_init`.
pub fn install<M: AccessMethod>() {
    version::explain_scans(effort_of::<M>);
}

/// Nothing of a scan of another access method.
///
/// # Safety
/// A scan that has not ended.
unsafe fn effort_of<M: AccessMethod>(scan: pg_sys::IndexScanDesc) -> Effort {
    let own: unsafe extern "C-unwind" fn(pg_sys::IndexScanDesc, pg_sys::ScanDirection::Type) -> bool =
        get_tuple::<M>;
    // SAFETY: as the caller says; what `begin_scan` has made is there as long as the scan is.
    unsafe {
        let known = (*(*(*scan).indexRelation).rd_indam).amgettuple;
        let is_ours = known.is_some_and(|known| std::ptr::fn_addr_eq(known, own));
        if is_ours { M::effort(&(*(*scan).opaque.cast::<Open<M>>()).scan) } else { Vec::new() }
    }
}

/// What is not named is zero: false, or there is no such function.
fn routine_of<M: AccessMethod>() -> pg_sys::IndexAmRoutine {
    pg_sys::IndexAmRoutine {
        type_: pg_sys::NodeTag::T_IndexAmRoutine,
        amsupport: 1,
        amcanorderbyop: true,
        // Else no path without a condition on the column would be thought of.
        amoptionalkey: true,
        amparallelvacuumoptions: (pg_sys::VACUUM_OPTION_PARALLEL_BULKDEL
            | pg_sys::VACUUM_OPTION_PARALLEL_COND_CLEANUP) as u8,
        ambuild: Some(build::<M>),
        ambuildempty: Some(build_empty::<M>),
        aminsert: Some(insert::<M>),
        ambulkdelete: Some(bulk_delete::<M>),
        amvacuumcleanup: Some(clean_up::<M>),
        amcostestimate: Some(cost::<M>),
        amoptions: Some(options),
        amvalidate: Some(validate),
        ambeginscan: Some(begin_scan::<M>),
        amrescan: Some(rescan::<M>),
        amgettuple: Some(get_tuple::<M>),
        amendscan: Some(end_scan::<M>),
        ..Default::default()
    }
}

/// Hands an error to PostgreSQL.
fn or_raise<T>(work: impl FnOnce() -> Result<T, PgError>) -> T {
    let _running = memory::begin();
    work().unwrap_or_else(|error| error.raise())
}

#[pg_guard]
unsafe extern "C-unwind" fn build<M: AccessMethod>(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
) -> *mut pg_sys::IndexBuildResult {
    let built = or_raise(|| M::build(&Building { table, index, info }));
    // SAFETY: palloc0 gives a result of zeros.
    unsafe {
        let result =
            pg_sys::palloc0(size_of::<pg_sys::IndexBuildResult>()).cast::<pg_sys::IndexBuildResult>();
        (*result).heap_tuples = built.rows;
        (*result).index_tuples = built.indexed;
        result
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn build_empty<M: AccessMethod>(index: pg_sys::Relation) {
    // SAFETY: PostgreSQL passes an open index.
    or_raise(|| M::build_empty(unsafe { Index::new(index) }));
}

#[pg_guard]
unsafe extern "C-unwind" fn insert<M: AccessMethod>(
    index: pg_sys::Relation,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    tid: pg_sys::ItemPointer,
    _table: pg_sys::Relation,
    _unique: pg_sys::IndexUniqueCheck::Type,
    _unchanged: bool,
    info: *mut pg_sys::IndexInfo,
) -> bool {
    // SAFETY: PostgreSQL passes an open index, a row address, and a value and its null mark for the only column. What is kept
    // is dropped with the description of the index, at the end of the statement; nobody else uses its field.
    unsafe {
        if !*nulls {
            if (*info).ii_AmCache.is_null() {
                let mut context = pgrx::PgMemoryContexts::For((*info).ii_Context);
                (*info).ii_AmCache = context.leak_and_drop_on_delete(M::Inserts::default()).cast();
            }
            let kept = &mut *(*info).ii_AmCache.cast::<M::Inserts>();
            or_raise(|| M::insert(Index::new(index), *values, tid_of(*tid), kept));
        }
    }
    false
}

#[pg_guard]
unsafe extern "C-unwind" fn bulk_delete<M: AccessMethod>(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
    callback: pg_sys::IndexBulkDeleteCallback,
    state: *mut std::ffi::c_void,
) -> *mut pg_sys::IndexBulkDeleteResult {
    let mut is_dead = |tid: Tid| {
        let Some(callback) = callback else { return false };
        let mut pointer = pointer_of(tid);
        let pointer = &raw mut pointer;
        // SAFETY: PostgreSQL's own function with its own state, which only reads the address.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| callback(pointer, state)) }
    };
    // SAFETY: PostgreSQL passes an open index, and NULL or what the call before returned.
    unsafe {
        let index = Index::new((*info).index);
        let left = or_raise(|| M::bulk_delete(index, &Vacuum { strategy: (*info).strategy }, &mut is_dead));
        let stats = or_new(stats);
        (*stats).num_pages = index.pages();
        (*stats).estimated_count = false;
        (*stats).num_index_tuples = left.live;
        (*stats).tuples_removed += left.removed;
        (*stats).pages_deleted = left.free;
        (*stats).pages_free = left.free;
        stats
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn clean_up<M: AccessMethod>(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: as above.
    unsafe {
        if (*info).analyze_only {
            return stats;
        }
        let index = Index::new((*info).index);
        if stats.is_null() {
            // Nothing was dead: the table's count is as good as one of ours.
            let stats = or_new(stats);
            (*stats).num_pages = index.pages();
            (*stats).estimated_count = true;
            (*stats).num_index_tuples = (*info).num_heap_tuples;
            return stats;
        }
        or_raise(|| M::clean_up(index, &Vacuum { strategy: (*info).strategy }));
        stats
    }
}

unsafe fn or_new(stats: *mut pg_sys::IndexBulkDeleteResult) -> *mut pg_sys::IndexBulkDeleteResult {
    if !stats.is_null() {
        return stats;
    }
    // SAFETY: palloc0 gives counts of zero. Parallel vacuum copies exactly this struct.
    unsafe { pg_sys::palloc0(size_of::<pg_sys::IndexBulkDeleteResult>()).cast() }
}

#[pg_guard]
unsafe extern "C-unwind" fn cost<M: AccessMethod>(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    _loops: f64,
    startup: *mut pg_sys::Cost,
    total: *mut pg_sys::Cost,
    selectivity: *mut pg_sys::Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    let cost = M::cost(&CostQuestion { root, path });
    // SAFETY: PostgreSQL passes pointers to its variables, and a path.
    unsafe {
        if cost.is_none() {
            version::disable(&raw mut (*path).path);
        }
        let never = Cost { startup: f64::INFINITY, total: f64::INFINITY, pages: 0.0 };
        let cost = cost.unwrap_or(never);
        (*startup, *total, *pages) = (cost.startup, cost.total, cost.pages);
        // All rows come out, in no order that the table knows.
        (*selectivity, *correlation) = (1.0, 0.0);
    }
}

/// What stands in WITH, as PostgreSQL keeps it (`rd_options`).
#[repr(C)]
struct Options {
    length: i32,
    lists: i32,
}

#[pg_guard]
unsafe extern "C-unwind" fn options(options: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea {
    #[allow(clippy::needless_update, reason = "18 has a field more")]
    let lists = pg_sys::relopt_parse_elt {
        optname: c"lists".as_ptr(),
        opttype: pg_sys::relopt_type::RELOPT_TYPE_INT,
        offset: std::mem::offset_of!(Options, lists) as i32,
        ..Default::default()
    };
    // SAFETY: the description is read during the call only; other options PostgreSQL refuses, if it is to look.
    unsafe { pg_sys::build_reloptions(options, validate, kind(), size_of::<Options>(), &lists, 1).cast() }
}

/// The number of our kind of options in this process.
fn kind() -> pg_sys::relopt_kind::Type {
    static KIND: std::sync::OnceLock<pg_sys::relopt_kind::Type> = std::sync::OnceLock::new();
    // SAFETY: gives the next number that is free, and describes an option of that kind, once.
    *KIND.get_or_init(|| unsafe {
        let kind = pg_sys::add_reloption_kind();
        pg_sys::add_int_reloption(
            kind,
            c"lists".as_ptr(),
            c"Number of lists; 0 for a single one, -1 for as many as the rows deserve".as_ptr(),
            BY_ROWS,
            BY_ROWS,
            32_768,
            pg_sys::AccessExclusiveLock as i32,
        );
        kind
    })
}

/// The index is made with as many lists as its rows deserve.
const BY_ROWS: i32 = -1;

/// Operator classes are superusers' only; a build looks at what it needs.
#[pg_guard]
unsafe extern "C-unwind" fn validate(_class: pg_sys::Oid) -> bool {
    true
}

#[pg_guard]
unsafe extern "C-unwind" fn begin_scan<M: AccessMethod>(
    index: pg_sys::Relation,
    keys: i32,
    orders: i32,
) -> pg_sys::IndexScanDesc {
    // SAFETY: PostgreSQL passes an open index. What the scan keeps is dropped with a context of its own, that goes with the
    // present one at the latest.
    unsafe {
        let scan = pg_sys::RelationGetIndexScan(index, keys, orders);
        let kept = or_raise(|| M::begin(Index::new(index)));
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"scan of a sealed index".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let open = Open::<M> { context, scan: kept, rows: None };
        (*scan).opaque = pgrx::PgMemoryContexts::For(context).leak_and_drop_on_delete(open).cast();
        scan
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan<M: AccessMethod>(
    scan: pg_sys::IndexScanDesc,
    _keys: pg_sys::ScanKey,
    _key_count: i32,
    orders: pg_sys::ScanKey,
    order_count: i32,
) {
    // SAFETY: a scan that `begin_scan` made; `orders` has so many keys.
    unsafe {
        let open = &mut *(*scan).opaque.cast::<Open<M>>();
        if let Some(rows) = &mut open.rows {
            rows.reset();
        }
        or_raise(|| {
            if order_count != 1 || orders.is_null() {
                return Err(PgError::UnorderedScan);
            }
            let null = (*orders).sk_flags & pg_sys::SK_ISNULL as i32 != 0;
            M::restart(&mut open.scan, &Order { argument: (!null).then_some((*orders).sk_argument) })
        });
        version::count_scan(scan);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn get_tuple<M: AccessMethod>(
    scan: pg_sys::IndexScanDesc,
    _direction: pg_sys::ScanDirection::Type,
) -> bool {
    // SAFETY: as above; by now PostgreSQL has set table and snapshot.
    unsafe {
        let open = &mut *(*scan).opaque.cast::<Open<M>>();
        let next = or_raise(|| {
            xact::check_interrupts();
            if open.rows.is_none() {
                open.rows = Some(Rows::new(scan, open.context)?);
            }
            let Some(rows) = &mut open.rows else { return Ok(None) };
            M::next(&mut open.scan, rows)
        });
        let Some(tid) = next else { return false };
        (*scan).xs_heaptid = pointer_of(tid);
        (*scan).xs_recheck = false;
        (*scan).xs_recheckorderby = false;
        true
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end_scan<M: AccessMethod>(scan: pg_sys::IndexScanDesc) {
    // SAFETY: as above. The context of what the scan keeps is deleted here, and that with it.
    unsafe {
        let open = (*scan).opaque.cast::<Open<M>>();
        if let Some(rows) = (*open).rows.take() {
            rows.close();
        }
        (*scan).opaque = std::ptr::null_mut();
        pg_sys::MemoryContextDelete((*open).context);
    }
}
