//! Texts that are looked into: times, numbers, case, and literals in statements.
#![no_main]

use std::str::from_utf8;

use libfuzzer_sys::fuzz_target;
use pgseal::core::canonical::{NUMBER_HEAD_BYTES, number, printed_number};
use pgseal::core::fold::fold;
use pgseal::core::range::{Decimal, micros};
use pgseal::core::sql_literal::{is_cast, is_collated};
use pgseal::core::text_query::{Link, is_position};
use pgseal::core::{iso8601, jsonb};

fuzz_target!(|data: &[u8]| {
    let folded = fold(data).unwrap();
    assert_eq!(fold(&folded).unwrap(), folded);
    assert!(Link::decode(data).is_none_or(|link| link.encode() == data));
    assert!(!is_position(data) || from_utf8(data).is_ok());
    assert_eq!(jsonb::path_bytes(&[Some(data)]).len(), jsonb::key_bytes(data));
    // Each looks through all that follows.
    for start in (0..=data.len() + 1).take(64) {
        let _ = (is_collated(data, start), is_cast(data, start));
    }
    stored_number(data);
    if let Ok(text) = from_utf8(data) {
        time(text);
        let number = printed_number(text).and_then(Decimal::new);
        assert!(number.is_none_or(|number| number.cmp(&number).is_eq()));
    }
});

/// A numeric's canonical form has digits alone, and none in vain.
fn stored_number(stored: &[u8]) {
    let mut canonical = Vec::new();
    if number(stored, &mut canonical).is_ok() {
        let digits = &canonical[NUMBER_HEAD_BYTES..];
        assert!(digits.iter().all(u8::is_ascii_digit));
        assert!(digits.first() != Some(&b'0') && digits.last() != Some(&b'0'));
    }
}

/// What the older reading takes for a time, the newer one takes for the same.
fn time(text: &str) {
    if let Some(time) = micros(text) {
        assert_eq!(iso8601::micros(text), Some(time), "{text}");
    }
}
