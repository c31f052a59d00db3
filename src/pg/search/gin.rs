//! The GIN operator class: keys are those of tokens, and one marker per value. No function here needs a key.

use crate::core::filter::Filter;
use crate::core::header::{HEADER_BYTES, parse_head};
use crate::core::token::marker;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::gin::{key_states, return_query_keys, return_value_keys, set_recheck};
use crate::pg::values::seal;

const FALSE: i8 = pgrx::pg_sys::GIN_FALSE as i8;
const TRUE: i8 = pgrx::pg_sys::GIN_TRUE as i8;
const MAYBE: i8 = pgrx::pg_sys::GIN_MAYBE as i8;

/// `gin_extract_value(encrypted_jsonb, internal, internal)`: reads no more than header and tokens.
pub fn extract_value(call: Call) -> Returned {
    let (head, section) = parse_head(call.prefix(0, HEADER_BYTES).bytes())?;
    seal::with_kind(call, |kind, (): &mut ()| kind.require(&head))?;
    let value = call.prefix(0, section.tokens().end);
    let tokens = value.bytes().get(section.tokens()).unwrap_or_default();
    let mut keys: Vec<u64> = Vec::with_capacity(section.count() + 1);
    keys.push(marker(head.keyring, head.index_version));
    keys.extend(section.keys(tokens));
    Ok(Some(return_value_keys(call, keys.into_iter())))
}

/// `gin_extract_query(encrypted_filter, internal, int2, internal, internal, internal, internal)`.
pub fn extract_query(call: Call) -> Returned {
    let bytes = call.varlena(0);
    let filter = Filter::parse(bytes.bytes())?;
    let groups: Vec<Vec<u64>> = filter.groups().map(Iterator::collect).collect();
    Ok(Some(return_query_keys(call, &groups)))
}

/// `gin_consistent(internal, int2, encrypted_filter, int4, internal, internal, internal, internal)`.
pub fn consistent(call: Call) -> Returned {
    let answer = combine(call);
    set_recheck(call, answer == MAYBE);
    Ok(Some((answer != FALSE).into()))
}

/// `gin_triconsistent(internal, int2, encrypted_filter, int4, internal, internal, internal)`.
pub fn triconsistent(call: Call) -> Returned {
    Ok(Some(pgrx::pg_sys::Datum::from(combine(call) as u8)))
}

/// Every group needs one key. The token match says the same as the index, so TRUE needs no recheck:
/// neither tokens nor markers are shared between keyrings. Without keys every row is searched, also those
/// of other keyrings, and must be looked at.
fn combine(call: Call) -> i8 {
    let (mut answer, mut group, mut best, mut seen) = (TRUE, 0, FALSE, false);
    for (state, of) in key_states(call) {
        if seen && of != group {
            answer = both(answer, best);
            best = FALSE;
        }
        (group, seen) = (of, true);
        best = either(best, state);
    }
    if seen { both(answer, best) } else { MAYBE }
}

fn either(a: i8, b: i8) -> i8 {
    match (a, b) {
        (TRUE, _) | (_, TRUE) => TRUE,
        (MAYBE, _) | (_, MAYBE) => MAYBE,
        _ => FALSE,
    }
}

fn both(a: i8, b: i8) -> i8 {
    match (a, b) {
        (FALSE, _) | (_, FALSE) => FALSE,
        (MAYBE, _) | (_, MAYBE) => MAYBE,
        _ => TRUE,
    }
}
