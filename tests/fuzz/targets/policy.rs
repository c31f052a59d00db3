//! Searchable paths and ranges: what is declared reads back from the catalog, and a range filter misses nothing.
#![no_main]

use std::str::from_utf8;

use libfuzzer_sys::fuzz_target;
use pgseal::core::between::Between;
use pgseal::core::canonical::printed_number;
use pgseal::core::policy::{MAX_PATHS, Policy, Scheme, plain_path};
use pgseal::core::range::{Bounds, Decimal, Domain, Range, Scalar};
use pgseal_fuzz::Input;
use serde_json::Value;

/// Buckets of one filter: three on either side of each of 16 levels, a few on the coarsest, and two outside.
const MOST_BUCKETS: usize = 104;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => declared(input.rest()),
        1 => stored(input.rest()),
        _ => covered(input),
    }
});

/// A path on each line.
fn declared(text: &[u8]) {
    let Ok(text) = from_utf8(text) else { return };
    let paths: Vec<&str> = text.lines().collect();
    for path in &paths {
        if let Ok(keys) = plain_path(path) {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let policy = Policy::from_paths(Scheme::Decide, &[path]).unwrap();
            assert!(policy.rule_for(&keys).is_some_and(|rule| rule.path() == *path));
        }
    }
    if let Ok(policy) = Policy::from_paths(Scheme::Decide, &paths) {
        assert!(paths.len() <= MAX_PATHS && policy.is_empty() == paths.is_empty());
        comes_back(&policy);
    }
}

/// JSON as the catalog holds it.
fn stored(text: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(text) else { return };
    if let Ok(policy) = Policy::from_json(&value) {
        comes_back(&policy);
    }
}

fn comes_back(policy: &Policy) {
    // As jsonb does, through text.
    let text = policy.to_json().to_string();
    let again = serde_json::from_str(&text).unwrap();
    assert_eq!(Policy::from_json(&again).as_ref(), Ok(policy));
    let _ = (policy.covers_everything(), policy.rule_for(&[]), policy.rule_for(&[b"a", b"b"]));
}

/// A range, two bounds, and a scalar: if it lies between them, it has one of the buckets that are asked for.
fn covered(mut input: Input<'_>) {
    let Ok(value) = serde_json::from_slice::<Value>(input.part()) else { return };
    let Ok(range) = Range::from_json(&value) else { return };
    assert!(Range::from_json(&range.to_json()).as_ref() == Ok(&range) && range.steps() > 0);
    let mut scalar = || scalar(range.domain, input.part());
    let (low, high, inside) = (scalar(), scalar(), scalar());
    let bounds = Bounds { domain: range.domain, low, high };
    let cover = range.cover(&bounds);
    assert!(cover.len() <= MOST_BUCKETS, "{} buckets", cover.len());
    for scalar in [&inside, &bounds.low, &bounds.high].into_iter().flatten() {
        let buckets = range.buckets(scalar);
        assert!(buckets.first() == Some(&range.bucket(scalar)) && buckets.len() <= 16);
        assert!(!bounds.contain(scalar) || buckets.iter().any(|bucket| cover.contains(bucket)));
    }
    let between = Between::new("$.a", bounds).unwrap();
    assert!(Between::decode(&between.encode()) == Some(between));
}

/// A number as PostgreSQL prints it, or microseconds.
fn scalar(domain: Domain, bytes: &[u8]) -> Option<Scalar> {
    match domain {
        Domain::Numbers => printed_number(from_utf8(bytes).ok()?).and_then(Decimal::new).map(Scalar::Number),
        Domain::Times => bytes.first_chunk().map(|micros| Scalar::Time(i64::from_be_bytes(*micros).into())),
    }
}
