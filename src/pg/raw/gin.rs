//! The out-parameters of GIN support functions (access/gin.h).

use pgrx::pg_sys;

use super::call::Call;

/// Hands GIN the keys of an indexed value: argument 1 is `int32 *nkeys`, the result `Datum *keys`.
pub fn return_value_keys(call: Call, keys: impl ExactSizeIterator<Item = u64>) -> pg_sys::Datum {
    // SAFETY: GIN passes a pointer to its counter.
    unsafe { *call.pointer::<i32>(1) = keys.len() as i32 };
    key_array(keys)
}

/// Hands GIN the keys of a query with the group each belongs to: argument 1 is `int32 *nkeys`, 4 is
/// `Pointer **extra_data`, 6 is `int32 *searchMode`. Without keys every row is searched.
pub fn return_query_keys(call: Call, groups: &[Vec<u64>]) -> pg_sys::Datum {
    let keys: Vec<(u64, usize)> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, keys)| keys.iter().map(move |key| (*key, group)))
        .collect();
    // SAFETY: GIN passes pointers to its variables; the arrays are palloc'd with one entry per key. A
    // group's number stands in place of a pointer; GIN only hands it back. None is NULL: beside each key without extra data
    // GIN looks for an equal one among all others (ginscan.c).
    unsafe {
        *call.pointer::<i32>(1) = keys.len() as i32;
        if keys.is_empty() {
            *call.pointer::<i32>(6) = pg_sys::GIN_SEARCH_MODE_ALL as i32;
        }
        let extra = pg_sys::palloc(keys.len().max(1) * size_of::<pg_sys::Pointer>()).cast::<usize>();
        for (at, (_, group)) in keys.iter().enumerate() {
            *extra.add(at) = *group + 1;
        }
        *call.pointer::<*mut usize>(4) = extra;
    }
    key_array(keys.into_iter().map(|(key, _)| key))
}

fn key_array(keys: impl ExactSizeIterator<Item = u64>) -> pg_sys::Datum {
    // SAFETY: palloc gives room for one Datum per key.
    unsafe {
        let array = pg_sys::palloc(keys.len().max(1) * size_of::<pg_sys::Datum>()).cast::<pg_sys::Datum>();
        for (at, key) in keys.enumerate() {
            *array.add(at) = pg_sys::Datum::from(key as i64);
        }
        pg_sys::Datum::from(array)
    }
}

/// What GIN asks a consistent function: per key its state and its group.
pub fn key_states(call: Call) -> impl Iterator<Item = (i8, usize)> {
    let count = call.int4(3) as usize;
    let states = call.pointer::<i8>(0);
    // consistent has `bool *recheck` at 5 before `Datum *queryKeys`; extra_data is argument 4 in both.
    let groups = call.pointer::<usize>(4);
    // SAFETY: both arrays have one entry per key that extractQuery returned, the second is the one it made.
    (0..count).map(move |at| unsafe { (*states.add(at), *groups.add(at)) })
}

/// Sets `bool *recheck` of a boolean consistent function.
pub fn set_recheck(call: Call, recheck: bool) {
    // SAFETY: argument 5 of a boolean consistent function is GIN's flag.
    unsafe { *call.pointer::<bool>(5) = recheck }
}
