//! Statistics on tokens and markers, from bytes alone, and what the planner concludes from them.

use crate::core::filter::Filter;
use crate::core::question::QuestionKind;
use crate::pg::error::PgError;
use crate::pg::raw::analyze::{Known, compared_constant, compared_filter, known, prepare_analyze};
use crate::pg::raw::call::{Call, Returned};

/// Where nothing is known: the share that PostgreSQL takes for "contains" (utils/selfuncs.h).
const DEFAULT_SHARE: f64 = 0.001;

/// Of `?`: a guess that is at most ten times wrong from one document in thirty on.
const KEY_SHARE: f64 = 0.3;
/// Of LIKE: likewise from one text in 160 to three in five.
const PATTERN_SHARE: f64 = 0.06;

/// `typanalyze(internal)`: for ANALYZE.
pub fn typanalyze(call: Call) -> Returned {
    prepare_analyze(call);
    Ok(Some(true.into()))
}

/// `token_selectivity(internal, oid, internal, int4)`: the share of rows that `@~` lets through.
pub fn token_selectivity(call: Call) -> Returned {
    let share = match known(call) {
        Some(known) => token_share(&known)?,
        None => DEFAULT_SHARE,
    };
    selectivity(share)
}

fn token_share(known: &Known) -> Result<f64, PgError> {
    if known.is_null {
        return Ok(0.0);
    }
    let (Some(bytes), Some(frequencies)) = (&known.filter, &known.frequencies) else {
        return Ok(DEFAULT_SHARE * (1.0 - known.null_share));
    };
    let filter = Filter::parse(bytes.bytes())?;
    // A token that is not among the common ones is rarer than all of these.
    let rare = (frequencies.least() / 2.0).min(DEFAULT_SHARE / 2.0);
    Ok(frequencies.selectivity(&filter, rare) * (1.0 - known.null_share))
}

/// `token_join_selectivity(internal, oid, internal, int2, internal)`: a filter made from another table's row.
pub fn token_join_selectivity(_: Call) -> Returned {
    selectivity(DEFAULT_SHARE)
}

/// `exact_selectivity(internal, oid, internal, int4)`: 1, since the token match has been counted, unless the filter
/// has no groups and narrows nothing.
pub fn exact_selectivity(call: Call) -> Returned {
    let is_counted = compared_filter(call).is_none_or(|bytes| {
        Filter::parse(bytes.bytes()).is_ok_and(|f| f.group_count() > 0 || f.is_of_every_container())
    });
    selectivity(if is_counted { 1.0 } else { DEFAULT_SHARE })
}

/// `differ_selectivity(internal, oid, internal, int4)`: the share of rows whose text is another than the filter's.
pub fn differ_selectivity(call: Call) -> Returned {
    selectivity(match known(call) {
        Some(known) => differing_share(&known)?,
        None => 1.0 - DEFAULT_SHARE,
    })
}

fn differing_share(known: &Known) -> Result<f64, PgError> {
    let filter = known.filter.as_ref().map(|bytes| Filter::parse(bytes.bytes())).transpose()?;
    // With NULL in the list, no value is known to be none of it.
    if known.is_null || filter.as_ref().is_some_and(Filter::has_nulls) {
        return Ok(0.0);
    }
    let equal = match filter {
        // Stands beside NOT `@~`, which has been counted.
        Some(filter)
            if filter.kind() != QuestionKind::Text
                && (filter.group_count() > 0 || filter.is_of_every_container()) =>
        {
            return Ok(0.0);
        }
        Some(filter) if filter.group_count() > 0 => token_share(known)?,
        _ => DEFAULT_SHARE,
    };
    Ok(1.0 - known.null_share - equal)
}

/// `key_selectivity(internal, oid, internal, int4)`: tokens do not tell who has a key. Most documents of a table have the
/// same.
pub fn key_selectivity(_: Call) -> Returned {
    selectivity(KEY_SHARE)
}

/// `pattern_selectivity(internal, oid, internal, int4)`: tokens do not tell what a text looks like, but everything is like
/// `%`.
pub fn pattern_selectivity(call: Call) -> Returned {
    selectivity(pattern_share(call))
}

/// `no_pattern_selectivity(internal, oid, internal, int4)`: of NOT LIKE and the like.
pub fn no_pattern_selectivity(call: Call) -> Returned {
    selectivity(1.0 - pattern_share(call))
}

fn pattern_share(call: Call) -> f64 {
    match compared_constant(call) {
        Some(pattern) if !pattern.bytes().is_empty() && pattern.bytes().iter().all(|byte| *byte == b'%') => {
            1.0
        }
        _ => PATTERN_SHARE,
    }
}

/// `exact_join_selectivity(internal, oid, internal, int2, internal)`: as above.
pub fn exact_join_selectivity(_: Call) -> Returned {
    selectivity(1.0)
}

fn selectivity(share: f64) -> Returned {
    Ok(Some(pgrx::pg_sys::Datum::from(share.clamp(0.0, 1.0).to_bits())))
}
