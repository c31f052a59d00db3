//! Everything in which the major versions of PostgreSQL differ for us. A new one is a change of this file: each item says
//! which header it was read in.

#[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18")))]
compile_error!(
    "this major version of PostgreSQL is unknown: add its feature to each item of src/pg/raw/version.rs, beside \
     the header that the item names"
);

use std::ffi::{c_char, c_int, c_void};

use pgrx::pg_sys;

use super::tuple::Layout;

/// `USER_TIMEOUT` of utils/timeout.h: the first number that RegisterTimeout hands out.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub const USER_TIMEOUT: c_int = 12;

/// `USER_TIMEOUT` of utils/timeout.h: the first number that RegisterTimeout hands out.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub const USER_TIMEOUT: c_int = 13;

/// The number of a transaction's backend, storage/lock.h.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub fn backend(transaction: &pg_sys::VirtualTransactionId) -> i32 {
    transaction.backendId
}

/// The number of a transaction's backend, storage/lock.h.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub fn backend(transaction: &pg_sys::VirtualTransactionId) -> i32 {
    transaction.procNumber
}

/// Does the current role own the table (utils/acl.h)?
#[cfg(feature = "pg15")]
pub fn owns(table: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup inside a transaction.
    unsafe { pg_sys::pg_class_ownercheck(table, pg_sys::GetUserId()) }
}

/// Does the current role own the table (utils/acl.h)?
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
pub fn owns(table: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup inside a transaction.
    unsafe { pg_sys::object_ownercheck(pg_sys::RelationRelationId, table, pg_sys::GetUserId()) }
}

/// May `member` SET ROLE to the role (utils/acl.h)?
#[cfg(feature = "pg15")]
pub fn may_set_role(member: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup inside a transaction.
    unsafe { pg_sys::is_member_of_role(member, role) }
}

/// May `member` SET ROLE to the role (utils/acl.h)?
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
pub fn may_set_role(member: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup inside a transaction.
    unsafe { pg_sys::member_can_set_role(member, role) }
}

/// This transaction made or emptied the relation (utils/rel.h).
///
/// # Safety
/// The relation is open.
#[cfg(feature = "pg15")]
pub unsafe fn is_new(relation: pg_sys::Relation) -> bool {
    // SAFETY: as the caller says.
    unsafe { (*relation).rd_createSubid != 0 || (*relation).rd_firstRelfilenodeSubid != 0 }
}

/// This transaction made or emptied the relation (utils/rel.h).
///
/// # Safety
/// The relation is open.
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
pub unsafe fn is_new(relation: pg_sys::Relation) -> bool {
    // SAFETY: as the caller says.
    unsafe { (*relation).rd_createSubid != 0 || (*relation).rd_firstRelfilelocatorSubid != 0 }
}

/// How a table's first columns are laid out (access/tupdesc.h). Alignments are letters here; dropped columns keep theirs.
///
/// # Safety
/// The descriptor has that many columns.
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
pub unsafe fn layout(description: pg_sys::TupleDesc, columns: usize) -> Vec<Layout> {
    let alignment = |letter| match letter {
        pg_sys::TYPALIGN_CHAR => 1,
        pg_sys::TYPALIGN_SHORT => 2,
        pg_sys::TYPALIGN_INT => 4,
        _ => 8,
    };
    // SAFETY: as the caller says.
    let columns = unsafe { std::slice::from_raw_parts((*description).attrs.as_ptr(), columns) };
    columns
        .iter()
        .map(|column| Layout { length: column.attlen, alignment: alignment(column.attalign as u8) })
        .collect()
}

/// How a table's first columns are laid out (access/tupdesc.h).
///
/// # Safety
/// The descriptor has that many columns.
#[cfg(feature = "pg18")]
pub unsafe fn layout(description: pg_sys::TupleDesc, columns: usize) -> Vec<Layout> {
    // SAFETY: as the caller says.
    let columns = unsafe { std::slice::from_raw_parts((*description).compact_attrs.as_ptr(), columns) };
    columns
        .iter()
        .map(|column| Layout { length: column.attlen, alignment: column.attalignby.into() })
        .collect()
}

/// Of RM_HEAP2_ID, a record whose redo takes a cleanup lock (access/heapam_xlog.h): XLOG_HEAP2_PRUNE, later
/// XLOG_HEAP2_PRUNE_ON_ACCESS.
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
pub const PRUNE: u8 = 0x10;

/// `struct xl_heap_prune` of that record: latestRemovedXid, of which 0 conflicts with no snapshot, nredirected 0, ndead 0.
#[cfg(feature = "pg15")]
pub fn nothing_pruned(horizon: pg_sys::TransactionId) -> [u8; 8] {
    let mut record = [0; 8];
    record[..4].copy_from_slice(&horizon.into_inner().to_ne_bytes());
    record
}

/// `struct xl_heap_prune` of that record: snapshotConflictHorizon, of which 0 conflicts with no snapshot, nredirected 0,
/// ndead 0, isCatalogRel false, which is only asked about when the record is decoded.
#[cfg(feature = "pg16")]
pub fn nothing_pruned(horizon: pg_sys::TransactionId) -> [u8; 9] {
    let mut record = [0; 9];
    record[..4].copy_from_slice(&horizon.into_inner().to_ne_bytes());
    record
}

/// `struct xl_heap_prune` of that record: reason PRUNE_ON_ACCESS, flags, and behind them the conflict horizon, if any; no
/// items. Without XLHP_CLEANUP_LOCK redo would lock out nobody who looks at the page.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub fn nothing_pruned(horizon: pg_sys::TransactionId) -> Vec<u8> {
    const XLHP_CLEANUP_LOCK: u8 = 1 << 2;
    const XLHP_HAS_CONFLICT_HORIZON: u8 = 1 << 3;
    if horizon == pg_sys::TransactionId::INVALID {
        return vec![0, XLHP_CLEANUP_LOCK];
    }
    let flags = XLHP_CLEANUP_LOCK | XLHP_HAS_CONFLICT_HORIZON;
    [&[0, flags], horizon.into_inner().to_ne_bytes().as_slice()].concat()
}

/// The column's statistics target (commands/vacuum.h), the server's where it has none, as in std_typanalyze.
///
/// # Safety
/// ANALYZE's structure of a column.
#[cfg(feature = "pg15")]
pub unsafe fn statistics_target(stats: *mut pg_sys::VacAttrStats) -> i32 {
    // SAFETY: the column's copy of its pg_attribute row.
    unsafe {
        if (*(*stats).attr).attstattarget < 0 {
            (*(*stats).attr).attstattarget = pg_sys::default_statistics_target;
        }
        (*(*stats).attr).attstattarget
    }
}

/// The column's statistics target (commands/vacuum.h), the server's where it has none, as in std_typanalyze.
///
/// # Safety
/// ANALYZE's structure of a column.
#[cfg(feature = "pg16")]
pub unsafe fn statistics_target(stats: *mut pg_sys::VacAttrStats) -> i32 {
    // SAFETY: the column's copy of its pg_attribute row.
    unsafe {
        if (*(*stats).attr).attstattarget < 0 {
            (*(*stats).attr).attstattarget = pg_sys::default_statistics_target as i16;
        }
        (*(*stats).attr).attstattarget.into()
    }
}

/// The column's statistics target (commands/vacuum.h), the server's where it has none, as in std_typanalyze.
///
/// # Safety
/// ANALYZE's structure of a column.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub unsafe fn statistics_target(stats: *mut pg_sys::VacAttrStats) -> i32 {
    // SAFETY: as the caller says.
    unsafe {
        if (*stats).attstattarget < 0 {
            (*stats).attstattarget = pg_sys::default_statistics_target;
        }
        (*stats).attstattarget
    }
}

/// Where ANALYZE sleeps and can be cancelled, commands/vacuum.h.
pub fn analyze_delay_point() {
    // SAFETY: called where PostgreSQL's own functions for ANALYZE call it, between rows.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
        pg_sys::vacuum_delay_point();
        #[cfg(feature = "pg18")]
        pg_sys::vacuum_delay_point(true);
    }
}

/// Where an index's vacuum sleeps and can be cancelled, commands/vacuum.h.
pub fn vacuum_delay_point() {
    // SAFETY: called between pages, with no lock of one held.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
        pg_sys::vacuum_delay_point();
        #[cfg(feature = "pg18")]
        pg_sys::vacuum_delay_point(false);
    }
}

/// A new page at the end of a relation, pinned and locked exclusively (storage/bufmgr.h).
///
/// # Safety
/// The relation is open, and may be written.
#[cfg(feature = "pg15")]
pub unsafe fn extend(relation: pg_sys::Relation, fork: pg_sys::ForkNumber::Type) -> pg_sys::Buffer {
    let (lock, none) = (pg_sys::ExclusiveLock as i32, std::ptr::null_mut());
    let (new, normal) = (pg_sys::InvalidBlockNumber, pg_sys::ReadBufferMode::RBM_NORMAL);
    // SAFETY: as the caller says; where something raises, the transaction's abort gives all back.
    unsafe {
        pg_sys::LockRelationForExtension(relation, lock);
        let buffer = pg_sys::ReadBufferExtended(relation, fork, new, normal, none);
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as i32);
        pg_sys::UnlockRelationForExtension(relation, lock);
        buffer
    }
}

/// A new page at the end of a relation, pinned and locked exclusively (storage/bufmgr.h).
///
/// # Safety
/// The relation is open, and may be written.
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
pub unsafe fn extend(relation: pg_sys::Relation, fork: pg_sys::ForkNumber::Type) -> pg_sys::Buffer {
    let of = pg_sys::BufferManagerRelation { rel: relation, ..Default::default() };
    let flags = pg_sys::ExtendBufferedFlags::EB_LOCK_FIRST;
    // SAFETY: as the caller says.
    unsafe { pg_sys::ExtendBufferedRel(of, fork, std::ptr::null_mut(), flags) }
}

/// Has the planner avoid a path whose cost is infinite already (nodes/pathnodes.h): from 18 on that does not suffice.
///
/// # Safety
/// The planner's own path.
pub unsafe fn disable(_path: *mut pg_sys::Path) {
    #[cfg(feature = "pg18")]
    // SAFETY: as the caller says.
    unsafe {
        (*_path).disabled_nodes = 2;
    }
}

/// Counts a scan for `pg_stat_user_indexes` (pgstat.h) and, from 18 on, EXPLAIN.
///
/// # Safety
/// A scan of an open index.
pub unsafe fn count_scan(scan: pg_sys::IndexScanDesc) {
    // SAFETY: as the caller says; either pointer may be NULL.
    unsafe {
        let counts = (*(*scan).indexRelation).pgstat_info;
        if !counts.is_null() {
            #[cfg(feature = "pg15")]
            {
                (*counts).t_counts.t_numscans += 1;
            }
            #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
            {
                (*counts).counts.numscans += 1;
            }
        }
        #[cfg(feature = "pg18")]
        if !(*scan).instrument.is_null() {
            (*(*scan).instrument).nsearches += 1;
        }
    }
}

/// What EXPLAIN (ANALYZE) is to show of a scan along an index.
pub type Told = unsafe fn(pg_sys::IndexScanDesc) -> Vec<(&'static std::ffi::CStr, u64)>;

/// Has EXPLAIN (ANALYZE) show more of scans along indexes (commands/explain.h): nobody is asked here.
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
pub fn explain_scans(_: Told) {}

/// Has EXPLAIN (ANALYZE) show more of scans along indexes (commands/explain.h); from `_PG_init`.
#[cfg(feature = "pg18")]
pub fn explain_scans(told: Told) {
    // SAFETY: once per process, before any statement is explained with it.
    unsafe {
        if explain::TOLD.set(told).is_ok() {
            explain::PREVIOUS.install(&raw mut pg_sys::explain_per_node_hook, explain::after_node);
        }
    }
}

#[cfg(feature = "pg18")]
mod explain {
    use std::ffi::c_char;

    use once_cell::sync::OnceCell;
    use pgrx::{is_a, pg_guard, pg_sys};

    use super::Told;
    use crate::pg::raw::hook::Previous;

    pub static TOLD: OnceCell<Told> = OnceCell::new();
    pub static PREVIOUS: Previous<pg_sys::explain_per_node_hook_type> = Previous::empty();

    #[pg_guard]
    pub unsafe extern "C-unwind" fn after_node(
        node: *mut pg_sys::PlanState,
        above: *mut pg_sys::List,
        relationship: *const c_char,
        name: *const c_char,
        explain: *mut pg_sys::ExplainState,
    ) {
        // SAFETY: PostgreSQL passes a node that has not ended, and its own structures; the previous hook has the same contract.
        unsafe {
            if let Some(previous) = PREVIOUS.next() {
                previous(node, above, relationship, name, explain);
            }
            if !(*explain).analyze || !is_a(node.cast(), pg_sys::NodeTag::T_IndexScanState) {
                return;
            }
            let scan = (*node.cast::<pg_sys::IndexScanState>()).iss_ScanDesc;
            let Some(told) = TOLD.get().filter(|_| !scan.is_null()) else { return };
            for (label, count) in told(scan) {
                pg_sys::ExplainPropertyUInteger(label.as_ptr(), std::ptr::null(), count, explain);
            }
        }
    }
}

/// How many forbidden kinds of node a path has, before any cost (nodes/pathnodes.h). They count through their cost here.
///
/// # Safety
/// A path of the planner.
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
pub unsafe fn disabled_nodes(_: *mut pg_sys::Path) -> i32 {
    0
}

/// How many forbidden kinds of node a path has, before any cost (nodes/pathnodes.h).
///
/// # Safety
/// A path of the planner.
#[cfg(feature = "pg18")]
pub unsafe fn disabled_nodes(path: *mut pg_sys::Path) -> i32 {
    // SAFETY: as the caller says.
    unsafe { (*path).disabled_nodes }
}

/// What stands for the columns of a query's grouping (RTE_GROUP of nodes/parsenodes.h); `None` for other entries, which
/// all are here.
///
/// # Safety
/// An entry of a range table.
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
pub unsafe fn grouped(_: *mut pg_sys::RangeTblEntry) -> Option<*mut pg_sys::List> {
    None
}

/// What stands for the columns of a query's grouping (RTE_GROUP of nodes/parsenodes.h); `None` for other entries.
///
/// # Safety
/// An entry of a range table.
#[cfg(feature = "pg18")]
pub unsafe fn grouped(table: *mut pg_sys::RangeTblEntry) -> Option<*mut pg_sys::List> {
    // SAFETY: as the caller says.
    unsafe { ((*table).rtekind == pg_sys::RTEKind::RTE_GROUP).then_some((*table).groupexprs) }
}

/// Memory for what is kept beside a setting's value, which PostgreSQL frees; NULL where there is none (utils/guc.h).
#[cfg(feature = "pg15")]
pub fn setting_memory(bytes: usize) -> *mut c_void {
    unsafe extern "C" {
        // stdlib.h
        fn malloc(bytes: usize) -> *mut c_void;
    }
    // SAFETY: PostgreSQL frees it with free().
    unsafe { malloc(bytes) }
}

/// Memory for what is kept beside a setting's value, which PostgreSQL frees; NULL where there is none (utils/guc.h).
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
pub fn setting_memory(bytes: usize) -> *mut c_void {
    // SAFETY: a message, and NULL, where there is no memory.
    unsafe { pg_sys::guc_malloc(pg_sys::LOG as c_int, bytes) }
}

/// What MERGE joins by, where the join tree does not hold it (nodes/parsenodes.h).
///
/// # Safety
/// A finished query.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub unsafe fn merge_condition(_: *mut pg_sys::Query) -> *mut pg_sys::Node {
    std::ptr::null_mut()
}

/// What MERGE joins by, where the join tree does not hold it (nodes/parsenodes.h).
///
/// # Safety
/// A finished query.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub unsafe fn merge_condition(query: *mut pg_sys::Query) -> *mut pg_sys::Node {
    // SAFETY: as the caller says.
    unsafe { (*query).mergeJoinCondition }
}

/// Parts of ALTER TABLE that add a column (nodes/parsenodes.h).
#[cfg(feature = "pg15")]
pub const ADDS_COLUMN: [pg_sys::AlterTableType::Type; 2] =
    [pg_sys::AlterTableType::AT_AddColumn, pg_sys::AlterTableType::AT_AddColumnRecurse];

/// Parts of ALTER TABLE that add a column (nodes/parsenodes.h).
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
pub const ADDS_COLUMN: [pg_sys::AlterTableType::Type; 1] = [pg_sys::AlterTableType::AT_AddColumn];

/// What is called for a node of an expression.
pub type Walk = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool;

/// Calls `walk` for the nodes right below one of an expression that is not analysed (nodes/nodeFuncs.h).
///
/// # Safety
/// A node of the parser's, and the context that `walk` takes.
#[cfg(feature = "pg15")]
pub unsafe fn walk_raw(node: *mut pg_sys::Node, walk: Walk, context: *mut c_void) -> bool {
    unsafe extern "C-unwind" {
        fn raw_expression_tree_walker(node: *mut pg_sys::Node, walk: Walk, context: *mut c_void) -> bool;
    }
    // SAFETY: as the caller says; an error becomes a panic.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| raw_expression_tree_walker(node, walk, context)) }
}

/// Calls `walk` for the nodes right below one of an expression that is not analysed (nodes/nodeFuncs.h).
///
/// # Safety
/// A node of the parser's, and the context that `walk` takes.
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
pub unsafe fn walk_raw(node: *mut pg_sys::Node, walk: Walk, context: *mut c_void) -> bool {
    // SAFETY: as the caller says.
    unsafe { pg_sys::raw_expression_tree_walker_impl(node, Some(walk), context) }
}

/// Names and variables of the columns of a whole row (parser/parse_relation.h).
///
/// # Safety
/// The entry of a range table, and a variable that names it.
pub unsafe fn columns(
    table: *mut pg_sys::RangeTblEntry,
    row: *mut pg_sys::Var,
) -> (*mut pg_sys::List, *mut pg_sys::List) {
    let (mut names, mut columns) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: as the caller says.
    unsafe {
        let (number, levels) = ((*row).varno, (*row).varlevelsup as i32);
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
        pg_sys::expandRTE(table, number, levels, -1, false, &mut names, &mut columns);
        #[cfg(feature = "pg18")]
        pg_sys::expandRTE(
            table,
            number,
            levels,
            (*row).varreturningtype,
            -1,
            false,
            &mut names,
            &mut columns,
        );
    }
    (names, columns)
}

/// What COPY's entry in the list of context callbacks points to, commands/copyfrom_internal.h, up to its options.
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
#[repr(C)]
pub struct CopyState {
    #[cfg(feature = "pg18")]
    routine: *const c_void,
    source: u32,
    file: *mut c_void,
    message: *mut c_void,
    line_end: u32,
    file_encoding: c_int,
    needs_transcoding: bool,
    conversion: pg_sys::Oid,
    relation: *mut c_void,
    columns: *mut c_void,
    file_name: *mut c_char,
    is_program: bool,
    callback: *mut c_void,
    /// Those of the statement.
    pub options: pg_sys::CopyFormatOptions,
}
