//! What this session has done, for the view `pgseal.stat`. Counts tell how many rows a token match let through,
//! so the view is for pg_monitor only.

use std::cell::Cell;

/// What is counted.
#[derive(Clone, Copy)]
pub enum Counter {
    /// Values and parts of values encrypted.
    ValuesSealed,
    /// Values decrypted, for a recheck or to be shown.
    ValuesDecrypted,
    /// Values that a filter found by tokens that decide, without decrypting them.
    ValuesDecided,
    /// Values that were stored out of line and read whole.
    ValuesFetched,
    /// Filters made from a query.
    FiltersMade,
    /// Calls of a KMS.
    KmsCalls,
    /// Those that failed.
    KmsFailures,
    /// Microseconds that they took.
    KmsMicroseconds,
    /// Keys taken from what all sessions share.
    SharedKeyHits,
    /// Lists of sealed indexes that scans have read.
    IndexLists,
    /// Rows that were scored by their codes.
    IndexRowsScored,
    /// Rows that were looked at in the table.
    IndexRowsVisited,
}

/// In the order of [`Counter`].
const NAMES: [&str; 12] = [
    "values_sealed",
    "values_decrypted",
    "values_decided",
    "values_fetched",
    "filters_made",
    "kms_calls",
    "kms_failures",
    "kms_microseconds",
    "shared_key_hits",
    "index_lists",
    "index_rows_scored",
    "index_rows_visited",
];

thread_local! {
    static COUNTS: [Cell<u64>; NAMES.len()] = const { [const { Cell::new(0) }; NAMES.len()] };
}

/// One more.
pub fn count(counter: Counter) {
    add(counter, 1);
}

/// As many more.
pub fn add(counter: Counter, number: u64) {
    COUNTS.with(|counts| {
        let count = &counts[counter as usize];
        count.set(count.get().wrapping_add(number));
    });
}

/// The count of this name, as `pgseal.stat` calls it.
pub fn named(name: &str) -> Option<u64> {
    let at = NAMES.iter().position(|known| *known == name)?;
    Some(COUNTS.with(|counts| counts[at].get()))
}
