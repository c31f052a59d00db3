//! The hook behind the choice between the token index with a sort and the vector index with a filter: it prices
//! pgvector's iterative scans (nodes/pathnodes.h, optimizer/paths.h).

use std::ffi::CStr;

use pgrx::{is_a, pg_guard, pg_sys};

use super::encoding::shown_c;
use super::hook::Previous;
use super::lookup;
use super::reveal::cells;
use super::version::disabled_nodes;
use crate::core::scan_cost::IterativeScan;

/// What was installed before us.
static PREVIOUS: Previous<pg_sys::set_rel_pathlist_hook_type> = Previous::empty();

/// Installs the hook; from `_PG_init`.
pub fn install() {
    // SAFETY: once per process, before any statement is planned with it.
    unsafe {
        PREVIOUS.install(&raw mut pg_sys::set_rel_pathlist_hook, after_paths);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_paths(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    index: pg_sys::Index,
    table: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: PostgreSQL passes its own structures, whose paths are ours to change; the previous hook has the same
    // contract.
    unsafe {
        if let Some(previous) = PREVIOUS.next() {
            previous(root, relation, index, table);
        }
        // Forbidden paths cost so much already that nothing is to be learnt from their price.
        if pg_sys::enable_indexscan && reprice(root, relation) {
            sort_by_total_cost((*relation).pathlist);
        }
    }
}

/// Raises the total cost of scans along HNSW indexes below one of our filters; false where there are none.
///
/// There is no partial path among them: pgvector's indexes do not scan in parallel. None of what such a path keeps
/// out of the list is missed: a sequential scan evaluates the same restrictions for less.
unsafe fn reprice(root: *mut pg_sys::PlannerInfo, relation: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: see `after_paths`.
    unsafe {
        let ordered = cells((*relation).pathlist).filter_map(|path| ordered_index_path(path));
        let scans: Vec<*mut pg_sys::IndexPath> = ordered.filter(|path| is_hnsw(*path)).collect();
        if scans.is_empty() || !has_token_filter(relation) {
            return false;
        }
        let Some(settings) = Settings::read() else { return false };
        for scan in scans {
            (*scan).path.total_cost = settings.scan(root, relation, scan).total_cost();
        }
        true
    }
}

/// A path along an index's ORDER BY operator.
unsafe fn ordered_index_path(path: *mut pg_sys::Node) -> Option<*mut pg_sys::IndexPath> {
    // SAFETY: the tag is checked.
    unsafe {
        let ordered = is_a(path, pg_sys::NodeTag::T_IndexPath)
            && !(*path.cast::<pg_sys::IndexPath>()).indexorderbys.is_null();
        ordered.then(|| path.cast())
    }
}

unsafe fn is_hnsw(path: *mut pg_sys::IndexPath) -> bool {
    // SAFETY: a path's index has an access method; one that is gone has no name.
    unsafe {
        let name = pg_sys::get_am_name((*(*path).indexinfo).relam);
        !name.is_null() && CStr::from_ptr(name) == c"hnsw"
    }
}

/// Does a restriction of the relation hold `@~`?
unsafe fn has_token_filter(relation: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: restrictions are a list of RestrictInfo.
    unsafe {
        cells::<pg_sys::RestrictInfo>((*relation).baserestrictinfo)
            .any(|restriction| holds_token_match((*restriction).clause.cast()))
    }
}

unsafe fn holds_token_match(clause: *mut pg_sys::Node) -> bool {
    // SAFETY: the tags are checked before fields are read.
    unsafe {
        if is_a(clause, pg_sys::NodeTag::T_BoolExpr) {
            return cells((*clause.cast::<pg_sys::BoolExpr>()).args)
                .any(|argument| holds_token_match(argument));
        }
        match (*clause).type_ {
            pg_sys::NodeTag::T_OpExpr => is_token_match((*clause.cast::<pg_sys::OpExpr>()).opno),
            pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                is_token_match((*clause.cast::<pg_sys::ScalarArrayOpExpr>()).opno)
            }
            _ => false,
        }
    }
}

unsafe fn is_token_match(operator: pg_sys::Oid) -> bool {
    // SAFETY: syscache lookups; an operator that is gone has no name.
    unsafe {
        let name = pg_sys::get_opname(operator);
        !name.is_null()
            && CStr::from_ptr(name) == c"@~"
            && pg_sys::get_func_namespace(pg_sys::get_opcode(operator)) == lookup::schema()
    }
}

/// pgvector's settings that bound an iterative scan.
struct Settings {
    batch: f64,
    most_visits: f64,
}

impl Settings {
    /// `None` where scans are not iterative, or pgvector does not know the settings.
    fn read() -> Option<Self> {
        if setting(c"hnsw.iterative_scan")? == "off" {
            return None;
        }
        Some(Settings {
            batch: setting(c"hnsw.ef_search")?.parse().ok()?,
            most_visits: setting(c"hnsw.max_scan_tuples")?.parse().ok()?,
        })
    }

    unsafe fn scan(
        &self,
        root: *mut pg_sys::PlannerInfo,
        relation: *mut pg_sys::RelOptInfo,
        path: *mut pg_sys::IndexPath,
    ) -> IterativeScan {
        // SAFETY: as in `after_paths`.
        unsafe {
            let (startup, wanted) = ((*path).path.startup_cost, (*root).limit_tuples);
            let mut page_cost = 0.0;
            let space = (*(*path).indexinfo).reltablespace;
            pg_sys::get_tablespace_page_costs(space, std::ptr::null_mut(), &mut page_cost);
            IterativeScan {
                startup,
                total: (*path).path.total_cost,
                visited_share: (startup / (*path).indextotalcost.max(1.0)).min(1.0),
                tuples: (*relation).tuples,
                rows: (*path).path.rows,
                wanted: (wanted >= 0.0).then_some(wanted),
                batch: self.batch,
                most_visits: self.most_visits,
                page_cost,
            }
        }
    }
}

/// A setting as SHOW would print it, without its unit; `None` where there is no such setting.
fn setting(name: &CStr) -> Option<String> {
    // SAFETY: a NUL-terminated string that is copied before the next call.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| shown_c(value))
    }
}

/// Puts a relation's paths back into the order that add_path keeps: cheapest first.
unsafe fn sort_by_total_cost(paths: *mut pg_sys::List) {
    // SAFETY: a list of paths, whose cells only change places.
    unsafe {
        let cells = std::slice::from_raw_parts_mut((*paths).elements, (*paths).length as usize);
        cells.sort_by(|a, b| {
            let (a, b) = (a.ptr_value.cast::<pg_sys::Path>(), b.ptr_value.cast::<pg_sys::Path>());
            disabled_nodes(a).cmp(&disabled_nodes(b)).then((*a).total_cost.total_cmp(&(*b).total_cost))
        });
    }
}
