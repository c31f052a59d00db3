//! ANALYZE and selectivity (commands/vacuum.h, utils/selfuncs.h).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::rc::Rc;

use pgrx::{pg_guard, pg_sys, varlena};

use super::call::Call;
use super::datum::{Varlena, detoast, prefix};
use super::reveal::cells;
use super::version;
use crate::core::filter::{Binding, Filter};
use crate::core::stats::{KeyFrequencies, Sample};

/// Slot of the commonest keys: the only one that is filled.
const SLOT: usize = 0;
/// `int8 = int8` (catalog/pg_operator.dat).
const INT8_EQUAL: pg_sys::Oid = pg_sys::Oid::from_u32(410);

/// ANALYZE computes statistics now, perhaps in a process of the server's own.
pub fn is_running() -> bool {
    // SAFETY: contexts have names, and parents up to the topmost.
    unsafe {
        let mut context = pg_sys::CurrentMemoryContext;
        while !context.is_null() {
            // Of do_analyze_rel in commands/analyze.c.
            if CStr::from_ptr((*context).name) == c"Analyze" {
                return true;
            }
            context = (*context).parent;
        }
        false
    }
}

/// Tells ANALYZE how large a sample this column wants and what to do with it.
pub fn prepare_analyze(call: Call) {
    let stats = call.pointer::<pg_sys::VacAttrStats>(0);
    // SAFETY: ANALYZE passes its column's structure, which is ours to fill.
    unsafe {
        (*stats).compute_stats = Some(compute);
        // Enough for the shares of values in one of a thousand rows (commands/analyze.c says why 300).
        (*stats).minrows = 300 * version::statistics_target(stats);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn compute(
    stats: pg_sys::VacAttrStatsP,
    fetch: pg_sys::AnalyzeAttrFetchFunc,
    rows: i32,
    _total: f64,
) {
    let Some(fetch) = fetch else { return };
    let mut sample = Sample::default();
    for row in 0..rows {
        let mut null = false;
        // SAFETY: ANALYZE's own function for its sample's rows; the datum is of one of our types.
        unsafe {
            version::analyze_delay_point();
            let datum = fetch(stats, row, &mut null);
            if null {
                sample.add_null();
                continue;
            }
            let size = varlena::varsize_any(datum.cast_mut_ptr());
            let read = |bytes: usize, use_it: &mut dyn FnMut(&[u8])| with_prefix(datum, bytes, use_it);
            sample.add(size, read);
        }
    }
    // SAFETY: `stats` is ANALYZE's.
    unsafe { store(stats, sample) }
}

/// Lends the first `bytes` bytes of a value, and frees what was fetched for it.
fn with_prefix(datum: pg_sys::Datum, bytes: usize, use_it: &mut dyn FnMut(&[u8])) {
    let read = prefix(datum, bytes);
    use_it(read.bytes());
    if read.datum() != datum {
        // SAFETY: a copy that nobody else has.
        unsafe { pg_sys::pfree(read.datum().cast_mut_ptr()) };
    }
}

unsafe fn store(stats: pg_sys::VacAttrStatsP, sample: Sample) {
    // SAFETY: the arrays live in the context that ANALYZE keeps until it has written pg_statistic.
    unsafe {
        if sample.is_empty() {
            return;
        }
        (*stats).stats_valid = true;
        (*stats).stanullfrac = sample.null_share();
        (*stats).stawidth = sample.width();
        // No two values are the same bytes.
        (*stats).stadistinct = -1.0;
        let found = sample.finish(10 * version::statistics_target(stats) as usize);
        let (Some(least), Some(most)) =
            (found.shares.iter().copied().reduce(f32::min), found.shares.iter().copied().reduce(f32::max))
        else {
            return;
        };
        let numbers: Vec<f32> = found.shares.iter().copied().chain([least, most]).collect();
        let values: Vec<pg_sys::Datum> = found.keys.iter().map(|key| pg_sys::Datum::from(*key)).collect();
        (*stats).stakind[SLOT] = pg_sys::STATISTIC_KIND_MCELEM as i16;
        (*stats).staop[SLOT] = INT8_EQUAL;
        (*stats).stacoll[SLOT] = pg_sys::InvalidOid;
        (*stats).numnumbers[SLOT] = numbers.len() as i32;
        (*stats).stanumbers[SLOT] = copy(stats, &numbers);
        (*stats).numvalues[SLOT] = values.len() as i32;
        (*stats).stavalues[SLOT] = copy(stats, &values);
        (*stats).statypid[SLOT] = pg_sys::INT8OID;
        (*stats).statyplen[SLOT] = 8;
        (*stats).statypbyval[SLOT] = true;
        (*stats).statypalign[SLOT] = pg_sys::TYPALIGN_DOUBLE as std::ffi::c_char;
    }
}

unsafe fn copy<T: Copy>(stats: pg_sys::VacAttrStatsP, values: &[T]) -> *mut T {
    // SAFETY: room for as many values, in ANALYZE's context.
    unsafe {
        let room = pg_sys::MemoryContextAlloc((*stats).anl_context, size_of_val(values)).cast::<T>();
        std::ptr::copy_nonoverlapping(values.as_ptr(), room, values.len());
        room
    }
}

/// What the planner knows where a column is compared with a filter.
pub struct Known {
    /// The filter, where it is a constant by then; `None` for NULL as well.
    pub filter: Option<Varlena>,
    /// The filter is NULL: nothing matches.
    pub is_null: bool,
    /// The column's commonest keys, where ANALYZE has seen it and the role may use what it saw.
    pub frequencies: Option<Rc<KeyFrequencies>>,
    /// Share of NULLs.
    pub null_share: f64,
}

/// The filter that a rewrite has put into a restriction, `refresh(constant)`, without the refreshing: it was made for
/// this very plan, and an estimate may be a moment old. Where the session chooses the keyring, it has to choose.
pub fn planned_filter(call: Call) -> Option<Varlena> {
    // SAFETY: the planner passes the operator's arguments; the tags are checked.
    unsafe {
        let arguments: Vec<*mut pg_sys::Node> = cells(call.pointer::<pg_sys::List>(2)).collect();
        let [_, refreshed] = arguments.as_slice() else { return None };
        if !pgrx::is_a(*refreshed, pg_sys::NodeTag::T_FuncExpr) {
            return None;
        }
        let made = refreshed.cast::<pg_sys::FuncExpr>();
        let arguments: Vec<*mut pg_sys::Node> = cells((*made).args).collect();
        // No other function turns one filter into another with nothing beside it.
        let [constant] = arguments.as_slice() else { return None };
        if !pgrx::is_a(*constant, pg_sys::NodeTag::T_Const) {
            return None;
        }
        let constant = constant.cast::<pg_sys::Const>();
        if (*constant).constisnull || (*constant).consttype != (*made).funcresulttype {
            return None;
        }
        let filter = detoast((*constant).constvalue);
        Filter::parse(filter.bytes()).is_ok_and(|filter| filter.binding() == Binding::Fixed).then_some(filter)
    }
}

/// What is known for a restriction: arguments `root, operator, args, varRelid`. `None` where it is not column against
/// something else.
pub fn known(call: Call) -> Option<Known> {
    let (root, arguments) = (call.pointer::<pg_sys::PlannerInfo>(0), call.pointer::<pg_sys::List>(2));
    // SAFETY: the planner passes its own structures; what is found of the variable is released below.
    unsafe {
        let mut variable = pg_sys::VariableStatData::default();
        let (filter, is_null) = match planned_filter(call) {
            Some(filter) => {
                let column = (*(*arguments).elements).ptr_value.cast();
                pg_sys::examine_variable(root, column, call.int4(3), &mut variable);
                (Some(filter), false)
            }
            None => compared(root, arguments, call.int4(3), &mut variable)?,
        };
        let (frequencies, null_share) = statistics(&variable);
        release(&variable);
        Some(Known { filter, is_null, frequencies, null_share })
    }
}

/// The filter that a restriction compares with once everything stable is evaluated, where it is known, and whether it
/// is NULL; fills in the variable.
unsafe fn compared(
    root: *mut pg_sys::PlannerInfo,
    arguments: *mut pg_sys::List,
    relation: i32,
    variable: &mut pg_sys::VariableStatData,
) -> Option<(Option<Varlena>, bool)> {
    // SAFETY: as in `known`.
    unsafe {
        let (mut other, mut on_left) = (std::ptr::null_mut(), false);
        if !pg_sys::get_restriction_variable(root, arguments, relation, variable, &mut other, &mut on_left) {
            return None;
        }
        if !on_left || !pgrx::is_a(other, pg_sys::NodeTag::T_Const) {
            return Some((None, false));
        }
        let constant = other.cast::<pg_sys::Const>();
        let is_null = (*constant).constisnull;
        Some(((!is_null).then(|| detoast((*constant).constvalue)), is_null))
    }
}

/// The constant on the right of a restriction, of variable length; NULL is none.
pub fn compared_constant(call: Call) -> Option<Varlena> {
    // SAFETY: the planner passes the operator's arguments; the tag is checked.
    unsafe {
        let right = cells::<pg_sys::Node>(call.pointer::<pg_sys::List>(2)).nth(1)?;
        if !pgrx::is_a(right, pg_sys::NodeTag::T_Const) {
            return None;
        }
        let constant = right.cast::<pg_sys::Const>();
        (!(*constant).constisnull && (*constant).constlen == -1).then(|| detoast((*constant).constvalue))
    }
}

/// The filter that a restriction compares with, where it is known while it is planned.
pub fn compared_filter(call: Call) -> Option<Varlena> {
    let (root, arguments) = (call.pointer::<pg_sys::PlannerInfo>(0), call.pointer::<pg_sys::List>(2));
    // SAFETY: as in `known`.
    planned_filter(call).or_else(|| unsafe {
        let mut variable = pg_sys::VariableStatData::default();
        let (filter, _) = compared(root, arguments, call.int4(3), &mut variable)?;
        release(&variable);
        filter
    })
}

unsafe fn release(variable: &pg_sys::VariableStatData) {
    // SAFETY: the tuple came with the function that releases it.
    unsafe {
        if let (false, Some(release)) = (variable.statsTuple.is_null(), variable.freefunc) {
            release(variable.statsTuple);
        }
    }
}

/// What ANALYZE saw, for a role that may read every row of the column. A LEAKPROOF function would be let through by
/// PostgreSQL below a policy too, and the estimate would tell how common a value is among rows that the policy hides.
unsafe fn statistics(variable: &pg_sys::VariableStatData) -> (Option<Rc<KeyFrequencies>>, f64) {
    // SAFETY: the tuple is a row of pg_statistic, whose table exists.
    unsafe {
        if variable.statsTuple.is_null() || !variable.acl_ok {
            return (None, 0.0);
        }
        let row = pg_sys::GETSTRUCT(variable.statsTuple).cast::<pg_sys::FormData_pg_statistic>();
        let policies = pg_sys::check_enable_rls((*row).starelid, pg_sys::InvalidOid, true);
        if policies == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 {
            return (None, 0.0);
        }
        (frequencies(variable.statsTuple), f64::from((*row).stanullfrac))
    }
}

/// A row of pg_statistic: another version of it is in another place or made by another transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
struct RowVersion {
    column: (pg_sys::Oid, i16, bool),
    place: (u16, u16, u16),
    transaction: pg_sys::TransactionId,
}

impl RowVersion {
    unsafe fn of(tuple: pg_sys::HeapTuple) -> Self {
        // SAFETY: a row of pg_statistic as the syscache keeps it, with its place and header.
        unsafe {
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_statistic>();
            let place = (*tuple).t_self;
            RowVersion {
                column: ((*row).starelid, (*row).staattnum, (*row).stainherit),
                place: (place.ip_blkid.bi_hi, place.ip_blkid.bi_lo, place.ip_posid),
                transaction: (*(*tuple).t_data).t_choice.t_heap.t_xmin,
            }
        }
    }
}

/// Columns whose frequencies are kept: each takes up to 60 kB.
const KEPT: usize = 16;

thread_local! {
    static READ: RefCell<VecDeque<(RowVersion, Rc<KeyFrequencies>)>> = RefCell::default();
}

/// The keys in a row of pg_statistic, decompressed and taken apart once.
unsafe fn frequencies(tuple: pg_sys::HeapTuple) -> Option<Rc<KeyFrequencies>> {
    // SAFETY: see `statistics`.
    unsafe {
        let version = RowVersion::of(tuple);
        let kept = READ.with(|read| {
            read.borrow().iter().find(|(of, _)| *of == version).map(|(_, frequencies)| frequencies.clone())
        });
        if kept.is_some() {
            return kept;
        }
        let frequencies = Rc::new(read_frequencies(tuple)?);
        READ.with(|read| {
            let mut read = read.borrow_mut();
            read.retain(|(of, _)| of.column != version.column);
            read.truncate(KEPT - 1);
            read.push_front((version, frequencies.clone()));
        });
        Some(frequencies)
    }
}

unsafe fn read_frequencies(tuple: pg_sys::HeapTuple) -> Option<KeyFrequencies> {
    // SAFETY: as above; the slot is freed once it is copied.
    unsafe {
        let mut slot = pg_sys::AttStatsSlot::default();
        let flags = pg_sys::ATTSTATSSLOT_VALUES | pg_sys::ATTSTATSSLOT_NUMBERS;
        let kind = pg_sys::STATISTIC_KIND_MCELEM as i32;
        if !pg_sys::get_attstatsslot(&mut slot, tuple, kind, pg_sys::InvalidOid, flags as i32) {
            return None;
        }
        let count = slot.nvalues.min(slot.nnumbers).max(0) as usize;
        let keys = (0..count).map(|at| (*slot.values.add(at)).value() as i64).collect();
        let shares = (0..count).map(|at| *slot.numbers.add(at)).collect();
        pg_sys::free_attstatsslot(&mut slot);
        Some(KeyFrequencies { keys, shares })
    }
}
