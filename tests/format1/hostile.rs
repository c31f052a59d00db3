//! Hostile bytes.

use super::*;

#[test]
fn a_value_cut_at_any_length_never_opens() {
    let value = victim();
    assert_eq!(open(&value).unwrap(), b"John Smith");
    assert!((0..value.len()).all(|end| open(&value[..end]).is_err()));
    assert!(open(&[&value[..], &[0]].concat()).is_err());
}

#[test]
fn a_value_with_any_bit_flipped_never_opens() {
    let value = victim();
    for bit in 0..value.len() * 8 {
        let mut altered = value.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&altered), Err(OpenError::Authentication), "bit {bit}");
    }
}

fn format_error(bytes: &[u8]) -> Option<FormatError> {
    Envelope::parse(bytes).err()
}

fn with(at: usize, byte: u8) -> Vec<u8> {
    let mut value = victim();
    value[at] = byte;
    value
}

#[test]
fn every_structural_fault_has_its_own_error() {
    let cases = [
        (with(0, 3), FormatError::UnknownFormat),
        (with(0, 0), FormatError::UnknownFormat),
        (with(1, 2), FormatError::UnknownSuite),
        (with(1, 3), FormatError::UnknownSuite),
        (with(2, 0x08), FormatError::Reserved),
        (with(2, 0x40), FormatError::Reserved),
        (with(14, 1), FormatError::Reserved),
        (with(15, 1), FormatError::Reserved),
        (with(3, 0), FormatError::UnknownContent),
        (with(3, 5), FormatError::UnknownContent),
        (with(4, 0x81), FormatError::ImpossibleKey),
        (with(9, 0), FormatError::ImpossibleKey),
        (with(11, 0), FormatError::Tokens),
        (with(12, 0xff), FormatError::Truncated),
        (victim()[..15].to_vec(), FormatError::Truncated),
    ];
    for (at, (bytes, expected)) in cases.iter().enumerate() {
        assert_eq!(format_error(bytes), Some(*expected), "case {at}");
    }
}

#[test]
fn forged_tokens_are_malformed_or_do_not_open() {
    let value = victim();
    let swapped = [&value[..16], &value[24..32], &value[16..24], &value[32..]].concat();
    let repeated = [&value[..16], &value[16..24], &value[16..24], &value[32..]].concat();
    assert_eq!(format_error(&swapped), Some(FormatError::Tokens));
    assert_eq!(format_error(&repeated), Some(FormatError::Tokens));
    assert_eq!(format_error(&with(16, 0)), Some(FormatError::Tokens));
    let removed = [&value[..12], &[0, 2, 0, 0], &value[24..]].concat();
    let added =
        [&value[..12], &[0, 4, 0, 0], &value[16..32], &(TOKEN_BIT | 3).to_be_bytes(), &value[32..]].concat();
    let exchanged = [&value[..16], &TOKEN_BIT.to_be_bytes(), &value[24..]].concat();
    for forged in [removed, added, exchanged] {
        assert!(format_error(&forged).is_none());
        assert_eq!(open(&forged), Err(OpenError::Authentication));
    }
}

#[test]
fn another_key_or_keyring_does_not_open_it() {
    let bytes = victim();
    let value = Envelope::parse(&bytes).unwrap();
    assert!(value.open(&data_key(1), &KEYRING).is_ok());
    assert_eq!(value.open(&data_key(2), &KEYRING).err(), Some(OpenError::Authentication));
    assert_eq!(value.open(&data_key(1), &[0; 16]).err(), Some(OpenError::Authentication));
}

#[test]
fn the_transit_bit_is_authenticated_both_ways() {
    for transit in [false, true] {
        let mut bytes = seal(Head { transit, ..head(Content::Text, 0) }, &[], b"x", Options::default());
        bytes[2] ^= 0x80;
        assert_eq!(Envelope::parse(&bytes).unwrap().head().transit, !transit);
        assert_eq!(open(&bytes), Err(OpenError::Authentication));
    }
}

#[test]
fn a_filter_is_no_value_and_a_value_no_filter() {
    let filter = a_filter(&one_group(&[marker(KEYRING_ID, 0), u64::MAX]), b"John Smith");
    assert!(format_error(&filter).is_some());
    assert_eq!(Filter::parse(&victim()).err(), Some(FormatError::UnknownFormat));
    let mut posing = seal(head(Content::Text, 0), &[], b"John Smith", Options::default());
    (posing[3], posing[14]) = (filter::CONTENT, QuestionKind::Contains as u8);
    posing[0] = 2;
    let posing = Filter::parse(&posing).unwrap();
    assert_eq!(posing.open(&index_key(1), &KEYRING).err(), Some(OpenError::Authentication));
}

#[test]
fn a_filter_opens_only_as_it_was_sealed() {
    let bytes = a_filter(&Groups::default(), b"John Smith");
    let opens = |bytes: &[u8], key: &IndexKey, keyring| Filter::parse(bytes).unwrap().open(key, keyring);
    assert_eq!(opens(&bytes, &index_key(1), &KEYRING).unwrap().as_slice(), b"John Smith");
    assert!(opens(&bytes, &index_key(2), &KEYRING).is_err());
    assert!(opens(&bytes, &index_key(1), &[0; 16]).is_err());
    let sealed = (4..10).chain([14]).chain(16..bytes.len());
    for at in sealed {
        let mut altered = bytes.clone();
        altered[at] ^= 3;
        assert!(Filter::parse(&altered).is_ok_and(|f| f.open(&index_key(1), &KEYRING).is_err()), "byte {at}");
    }
}
