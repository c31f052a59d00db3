//! The jsonb walker against PostgreSQL's own bytes.

use super::*;

#[test]
fn the_walker_finds_the_leaves_of_every_real_document() {
    for (text, bytes) in samples() {
        let plain = |leaf: document::Leaf| (leaf.keys, leaf.path, leaf.kind as u8, leaf.value);
        let mut expected: Vec<PlainLeaf> = leaves(&parse(&text)).into_iter().map(plain).collect();
        expected.sort();
        assert_eq!(walked(&bytes), expected, "{text}");
    }
}

#[test]
fn the_test_encoder_writes_what_postgresql_writes() {
    for (text, bytes) in samples() {
        assert_eq!(hex(&jsonb(&parse(&text))), hex(&bytes), "{text}");
    }
}

#[test]
fn a_real_document_cut_anywhere_never_panics() {
    for (_, bytes) in samples() {
        for end in 0..bytes.len() {
            let _ = walk(&bytes[..end], |_| Ok::<(), JsonbError>(()));
        }
    }
}

#[test]
fn a_count_far_beyond_the_bytes_is_malformed_at_once() {
    for head in [0x4FFF_FFFFu32, 0x2FFF_FFFF, 0x6000_0001, 0] {
        assert_eq!(walk(&head.to_le_bytes(), |_| Ok::<(), JsonbError>(())), Err(JsonbError::Malformed));
    }
}
