//! The text form: whatever is read comes out again as it was written, and the other way round.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgseal::core::text_form::{PREFIX, decode, encode, text_bytes};

fuzz_target!(|data: &[u8]| {
    match decode(data) {
        None => assert!(!data.starts_with(PREFIX.as_bytes())),
        Some(Ok(value)) => assert_eq!(encoded(&value), data),
        Some(Err(_)) => assert!(data.starts_with(PREFIX.as_bytes())),
    }
    assert_eq!(decode(&encoded(data)), Some(Ok(data.to_vec())));
});

fn encoded(value: &[u8]) -> Vec<u8> {
    let mut room = vec![0; text_bytes(value.len())];
    encode(value, &mut room);
    room
}
