//! Tokens that no index key has made as one, and bytes that are no value.

use proptest::prelude::*;

use super::*;

fn document(name: &str, role: &str) -> Json {
    parse(&format!(r#"{{"name":"{name}","role":"{role}"}}"#))
}

fn admins() -> (Policy, Vec<u8>) {
    let policy = policy(&["$.**"]);
    let versions = [QueryVersion { version: 1, tokenizer: Some(tokenizer(1, &policy)) }];
    let asked = Question::Contains(jsonb(&parse(r#"{"role":"admin"}"#)));
    let filter = filter(&asked, &versions);
    (policy, filter)
}

/// A value of these tokens and this tag; what is behind them does not open.
fn forged(head: &[u8], tokens: &[&[u8]], tag: &[u8]) -> Vec<u8> {
    let mut bytes = head[..16].to_vec();
    bytes[12..14].copy_from_slice(&(tokens.len() as u16).to_be_bytes());
    bytes.extend(tokens.concat());
    bytes.extend(tag);
    bytes.extend([0; 48]);
    bytes
}

#[test]
fn tokens_taken_apart_or_put_together_are_not_vouched_for() {
    let (policy, filter) = admins();
    let [admin, user] =
        [document("root", "admin"), document("eve", "user")].map(|json| row(1, &policy, &json));
    assert!(is_decided(&filter, &admin) && !is_admitted(&filter, &user));
    let parts = |row: &'static [u8]| {
        let section = parse_head(row).unwrap().1;
        let tokens: Vec<&[u8]> = row[section.tokens()].chunks(16).collect();
        (tokens, &row[section.tokens().end..section.end()])
    };
    let (admin, user): (&'static [u8], &'static [u8]) = (admin.leak(), user.leak());
    let ((of_admin, admins_tag), (of_user, users_tag)) = (parts(admin), parts(user));
    let mut all = [of_admin.clone(), of_user.clone()].concat();
    all.sort_unstable();
    for tag in [admins_tag, users_tag, &[0; 16]] {
        for tokens in [&all, &of_admin[..1].to_vec(), &of_admin[1..].to_vec()] {
            let planted = forged(user, tokens, tag);
            assert!(Envelope::parse(&planted).is_ok());
            assert!(!is_decided(&filter, &planted));
        }
    }
    // All of them in one row: what a copy of the row says too.
    assert!(is_decided(&filter, &forged(admin, &of_admin, admins_tag)));
}

#[test]
fn the_tag_says_keyring_version_and_every_token() {
    let (policy, _) = admins();
    let row = row(1, &policy, &document("root", "admin"));
    let section = parse_head(&row).unwrap().1;
    let section = section_of(&row, section);
    assert!(index_key(1).vouches_for(1, section));
    assert!(!index_key(1).vouches_for(2, section) && !index_key(2).vouches_for(1, section));
    let root = Secret::from_slice(&[0x81; 32]).unwrap();
    assert!(!IndexKey::derive(&root, &[0; 16], None).unwrap().vouches_for(1, section));
    for bit in 0..section.len() * 8 {
        let mut altered = section.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(!index_key(1).vouches_for(1, &altered), "bit {bit}");
    }
    assert!((0..section.len()).all(|end| !index_key(1).vouches_for(1, &section[..end])));
}

#[test]
fn a_value_with_any_bit_flipped_never_opens() {
    let (policy, _) = admins();
    let row = row(1, &policy, &document("root", "admin"));
    let opens =
        |bytes: &[u8]| Envelope::parse(bytes).is_ok_and(|value| value.open(data_key(), &KEYRING).is_ok());
    assert!(opens(&row));
    for bit in 0..row.len() * 8 {
        let mut altered = row.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&altered), "bit {bit}");
    }
    assert!((0..row.len()).all(|end| !opens(&row[..end])));
}

#[test]
fn every_structural_fault_is_refused() {
    let tokens = [1u128 << 127, 1u128 << 127 | 1].map(u128::to_be_bytes);
    let [first, second] = tokens.each_ref().map(|token| token.as_slice());
    let start = [2, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0];
    let error = |bytes: &[u8]| Envelope::parse(bytes).err();
    assert_eq!(error(&forged(&start, &[first, second], &[0; 16])), None);
    assert_eq!(error(&forged(&start, &[second, first], &[0; 16])), Some(FormatError::Tokens));
    assert_eq!(error(&forged(&start, &[first, first], &[0; 16])), Some(FormatError::Tokens));
    assert_eq!(error(&forged(&start, &[&[0x7F; 16]], &[0; 16])), Some(FormatError::Tokens));
    // Without tokens there is nothing to decide: that is format 1.
    assert_eq!(error(&forged(&start, &[], &[0; 16])), Some(FormatError::Tokens));
    let mut untokenised = start;
    untokenised[11] = 0;
    assert_eq!(error(&forged(&untokenised, &[first], &[0; 16])), Some(FormatError::Tokens));
    let whole = forged(&start, &[first, second], &[]);
    assert_eq!(error(&whole[..whole.len() - 1]), Some(FormatError::Truncated));
}

#[test]
fn a_value_without_tokens_is_of_format_1() {
    let policy = policy(&["$.nothing"]);
    assert_eq!(row(1, &policy, &document("eve", "user"))[0], 1);
    assert_eq!(row(1, &policy, &parse(r#"{"nothing":1}"#))[0], 2);
}

#[test]
fn the_data_key_changes_below_tokens_that_stay() {
    let (policy, filter) = admins();
    let old = row(1, &policy, &document("root", "admin"));
    let next = DataKey::derive(&Secret::from_slice(&[2; 32]).unwrap(), &KEYRING, None).unwrap();
    let mut new = Vec::new();
    Envelope::parse(&old).unwrap().renew(data_key(), &next, &KEYRING, 2, &mut new).unwrap();
    let section = parse_head(&old).unwrap().1;
    assert_eq!(new.len(), old.len());
    assert_eq!(section_of(&new, section), section_of(&old, section));
    assert!(is_decided(&filter, &new));
    assert!(Envelope::parse(&new).unwrap().open(&next, &KEYRING).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), flags: u8) {
        let value = [&[2, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0][..], &bytes].concat();
        let asked = [&[2, 1, flags, 5, 0, 0, 0, 1, 0, 1, 0, 1, 0][..], &bytes].concat();
        let filter = Filter::parse(&asked).ok();
        if let Ok((_, section)) = parse_head(&value) {
            let tokens = value.get(section.tokens()).unwrap_or_default();
            section.has_key(tokens, 1 << 63);
            prop_assert!(!filter.is_some_and(|filter| filter.is_decided_by(tokens) && !filter.decides()));
            let section = value.get(section.tokens().start..section.end()).unwrap_or_default();
            prop_assert!(!index_key(1).vouches_for(1, section));
        }
        if let Ok(value) = Envelope::parse(&value) {
            prop_assert!(value.open(data_key(), &KEYRING).is_err());
        }
    }
}
