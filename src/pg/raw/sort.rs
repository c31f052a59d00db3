//! Sort support (utils/sortsupport.h): how PostgreSQL compares values of a type without calling an SQL function.

use std::cmp::Ordering;

use pgrx::{PgMemoryContexts, pg_guard, pg_sys};

use super::call::Call;
use super::memory;
use crate::pg::error::PgError;

/// An order of datums, with what it knows about those that it has seen.
pub trait Order {
    /// Which of two datums comes first.
    fn compare(&mut self, left: pg_sys::Datum, right: pg_sys::Datum) -> Result<Ordering, PgError>;

    /// What stands for a datum as long as it is in memory: the same for equal ones (nodeAgg.c compares it).
    fn shorten(&mut self, value: pg_sys::Datum) -> Result<u64, PgError>;

    /// The order of two datums by what stands for them; equal where that does not tell.
    fn compare_short(&self, left: u64, right: u64) -> Ordering;
}

struct State(Box<dyn Order>);

/// Fills in the structure that a sort support function gets; the order lives as long as the sort.
pub fn support(call: Call, order: Box<dyn Order>) {
    let support = call.pointer::<pg_sys::SortSupportData>(0);
    // SAFETY: PostgreSQL passes a structure that is ours to fill, and a memory context that lives as long as it.
    unsafe {
        let state = PgMemoryContexts::For((*support).ssup_cxt).leak_and_drop_on_delete(State(order));
        (*support).ssup_extra = state.cast();
        (*support).comparator = Some(compare);
        if (*support).abbreviate {
            (*support).comparator = Some(compare_short);
            (*support).abbrev_converter = Some(shorten);
            (*support).abbrev_abort = Some(never);
            (*support).abbrev_full_comparator = Some(compare);
        }
    }
}

/// The order of a sort; it is used by one comparison at a time.
unsafe fn order<'a>(support: pg_sys::SortSupport) -> &'a mut dyn Order {
    // SAFETY: `support` has put the state there.
    unsafe { &mut *(*(*support).ssup_extra.cast::<State>()).0 }
}

fn done<T>(result: Result<T, PgError>) -> T {
    result.unwrap_or_else(|error| error.raise())
}

#[pg_guard]
unsafe extern "C-unwind" fn compare(
    left: pg_sys::Datum,
    right: pg_sys::Datum,
    support: pg_sys::SortSupport,
) -> i32 {
    let _running = memory::begin();
    // SAFETY: PostgreSQL passes datums of the type and the structure that `support` has filled.
    done(unsafe { order(support) }.compare(left, right)) as i32
}

#[pg_guard]
unsafe extern "C-unwind" fn shorten(value: pg_sys::Datum, support: pg_sys::SortSupport) -> pg_sys::Datum {
    let _running = memory::begin();
    // SAFETY: as above.
    done(unsafe { order(support) }.shorten(value)).into()
}

#[pg_guard]
unsafe extern "C-unwind" fn compare_short(
    left: pg_sys::Datum,
    right: pg_sys::Datum,
    support: pg_sys::SortSupport,
) -> i32 {
    // SAFETY: as above; the datums are what `shorten` gave.
    unsafe { order(support) }.compare_short(left.value() as u64, right.value() as u64) as i32
}

/// What stands for the datums is never worth less than the datums.
unsafe extern "C-unwind" fn never(_count: i32, _support: pg_sys::SortSupport) -> bool {
    false
}

/// Memory that one sort or hash table may use, in bytes: `work_mem`.
pub fn budget() -> usize {
    // SAFETY: reads a setting, in kilobytes and positive.
    unsafe { pg_sys::work_mem as usize * 1024 }
}

/// A parallel worker runs this.
pub fn in_worker() -> bool {
    // SAFETY: reads a variable of the process.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// A subscription applies what has been published.
pub fn in_subscription() -> bool {
    // SAFETY: reads a variable of the process.
    unsafe { pg_sys::IsLogicalWorker() }
}
