//! ANALYZE and selectivity (commands/vacuum.h, utils/selfuncs.h).

use pgrx::{pg_guard, pg_sys, varlena};

use super::call::Call;
use super::datum::{Varlena, detoast, prefix};
use crate::core::stats::KeyFrequencies;
use crate::pg::stats::Sample;

/// Slot of the commonest keys: the only one that is filled.
const SLOT: usize = 0;
/// `int8 = int8` (catalog/pg_operator.dat).
const INT8_EQUAL: pg_sys::Oid = pg_sys::Oid::from_u32(410);

/// Tells ANALYZE how large a sample this column wants and what to do with it.
pub fn prepare_analyze(call: Call) {
    let stats = call.pointer::<pg_sys::VacAttrStats>(0);
    // SAFETY: ANALYZE passes its column's structure, which is ours to fill.
    unsafe {
        (*stats).compute_stats = Some(compute);
        // Enough for the shares of values in one of a thousand rows (commands/analyze.c says why 300).
        (*stats).minrows = 300 * target(stats);
    }
}

#[cfg(feature = "pg15")]
unsafe fn target(stats: *mut pg_sys::VacAttrStats) -> i32 {
    // SAFETY: the column's copy of its pg_attribute row, as in std_typanalyze.
    unsafe {
        if (*(*stats).attr).attstattarget < 0 {
            (*(*stats).attr).attstattarget = pg_sys::default_statistics_target;
        }
        (*(*stats).attr).attstattarget
    }
}

#[cfg(not(feature = "pg15"))]
unsafe fn target(stats: *mut pg_sys::VacAttrStats) -> i32 {
    // SAFETY: as in std_typanalyze.
    unsafe {
        if (*stats).attstattarget < 0 {
            (*stats).attstattarget = pg_sys::default_statistics_target;
        }
        (*stats).attstattarget
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
            #[cfg(not(feature = "pg18"))]
            pg_sys::vacuum_delay_point();
            #[cfg(feature = "pg18")]
            pg_sys::vacuum_delay_point(true);
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
        let found = sample.finish(10 * target(stats) as usize);
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
    pub frequencies: Option<KeyFrequencies>,
    /// Share of NULLs.
    pub null_share: f64,
}

/// What is known for a restriction, with what ANALYZE saw only where it is wanted: arguments `root, operator, args,
/// varRelid`. `None` where it is not column against something else.
pub fn known(call: Call, with_frequencies: bool) -> Option<Known> {
    let (root, arguments) = (call.pointer::<pg_sys::PlannerInfo>(0), call.pointer::<pg_sys::List>(2));
    // SAFETY: the planner passes its own structures; what get_restriction_variable finds is released below.
    unsafe {
        let mut variable = pg_sys::VariableStatData::default();
        let (mut other, mut on_left) = (std::ptr::null_mut(), false);
        if !pg_sys::get_restriction_variable(
            root,
            arguments,
            call.int4(3),
            &mut variable,
            &mut other,
            &mut on_left,
        ) {
            return None;
        }
        let is_constant = on_left && pgrx::is_a(other, pg_sys::NodeTag::T_Const);
        let constant = other.cast::<pg_sys::Const>();
        let is_null = is_constant && (*constant).constisnull;
        let filter = (is_constant && !is_null).then(|| detoast((*constant).constvalue));
        let function = pg_sys::get_opcode(pg_sys::Oid::from(call.int4(1) as u32));
        let (frequencies, null_share) = match with_frequencies {
            true => statistics(&mut variable, function),
            false => (None, 0.0),
        };
        if let (false, Some(release)) = (variable.statsTuple.is_null(), variable.freefunc) {
            release(variable.statsTuple);
        }
        Some(Known { filter, is_null, frequencies, null_share })
    }
}

unsafe fn statistics(
    variable: &mut pg_sys::VariableStatData,
    function: pg_sys::Oid,
) -> (Option<KeyFrequencies>, f64) {
    // SAFETY: the tuple is a row of pg_statistic; the slot is freed once it is copied.
    unsafe {
        if variable.statsTuple.is_null() || !pg_sys::statistic_proc_security_check(variable, function) {
            return (None, 0.0);
        }
        let row = pg_sys::GETSTRUCT(variable.statsTuple).cast::<pg_sys::FormData_pg_statistic>();
        let mut slot = pg_sys::AttStatsSlot::default();
        let flags = pg_sys::ATTSTATSSLOT_VALUES | pg_sys::ATTSTATSSLOT_NUMBERS;
        let kind = pg_sys::STATISTIC_KIND_MCELEM as i32;
        let null_share = f64::from((*row).stanullfrac);
        if !pg_sys::get_attstatsslot(&mut slot, variable.statsTuple, kind, pg_sys::InvalidOid, flags as i32) {
            return (None, null_share);
        }
        let count = slot.nvalues.min(slot.nnumbers).max(0) as usize;
        let keys = (0..count).map(|at| (*slot.values.add(at)).value() as i64).collect();
        let shares = (0..count).map(|at| *slot.numbers.add(at)).collect();
        pg_sys::free_attstatsslot(&mut slot);
        (Some(KeyFrequencies { keys, shares }), null_share)
    }
}
