//! Statistics on tokens and markers, from bytes alone, and what the planner concludes from them.

use crate::core::envelope::{HEADER_BYTES, parse_head, tokens_of};
use crate::core::filter::Filter;
use crate::core::stats::{KeyCounter, KeyFrequencies};
use crate::core::token::marker;
use crate::pg::error::PgError;
use crate::pg::raw::analyze::{Known, compared_filter, known, prepare_analyze};
use crate::pg::raw::call::{Call, Returned};

/// Where nothing is known: the share that PostgreSQL takes for "contains" (utils/selfuncs.h).
const DEFAULT_SHARE: f64 = 0.001;

/// The values of a sample of rows.
#[derive(Default)]
pub struct Sample {
    keys: KeyCounter,
    nulls: u64,
    values: u64,
    bytes: u64,
}

impl Sample {
    /// A row without a value.
    pub fn add_null(&mut self) {
        self.nulls += 1;
    }

    /// A value of this stored size; `read` lends its first bytes. A malformed one has no keys.
    pub fn add(&mut self, size: usize, read: impl Fn(usize, &mut dyn FnMut(&[u8]))) {
        self.values += 1;
        self.bytes += size as u64;
        let mut count = 0;
        read(HEADER_BYTES, &mut |bytes| {
            let Ok((head, tokens)) = parse_head(bytes) else { return };
            count = tokens;
            self.keys.add(marker(head.keyring, head.index_version));
        });
        if count == 0 {
            return;
        }
        let end = HEADER_BYTES + 8 * count;
        read(end, &mut |bytes| {
            tokens_of(bytes.get(HEADER_BYTES..end).unwrap_or_default())
                .for_each(|token| self.keys.add(token));
        });
    }

    /// No row at all.
    pub fn is_empty(&self) -> bool {
        self.nulls + self.values == 0
    }

    /// Share of rows without a value.
    pub fn null_share(&self) -> f32 {
        (self.nulls as f64 / (self.nulls + self.values).max(1) as f64) as f32
    }

    /// Average stored size, in bytes.
    pub fn width(&self) -> i32 {
        (self.bytes / self.values.max(1)) as i32
    }

    /// The `most` commonest keys.
    pub fn finish(self, most: usize) -> KeyFrequencies {
        self.keys.finish(self.values, most)
    }
}

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
    let narrows = compared_filter(call)
        .is_none_or(|bytes| Filter::parse(bytes.bytes()).is_ok_and(|f| f.group_count() > 0));
    selectivity(if narrows { 1.0 } else { DEFAULT_SHARE })
}

/// `exact_join_selectivity(internal, oid, internal, int2, internal)`: as above.
pub fn exact_join_selectivity(_: Call) -> Returned {
    selectivity(1.0)
}

fn selectivity(share: f64) -> Returned {
    Ok(Some(pgrx::pg_sys::Datum::from(share.clamp(0.0, 1.0).to_bits())))
}
