//! Sealing: nonces, contexts, padding, and that whatever is sealed opens again.

use super::*;

fn nonce(value: &[u8]) -> &[u8] {
    let tokens = usize::from(u16::from_be_bytes([value[12], value[13]]));
    &value[16 + 8 * tokens..][..16]
}

#[test]
fn a_bound_value_keeps_its_context_under_the_next_key() {
    let old = Envelope::parse(&victim()).unwrap().open(&data_key(1), &KEYRING).unwrap();
    let next = Head { data_version: 2, ..head(Content::Text, 1) };
    let bytes =
        envelope::reseal(&data_key(2), &KEYRING, next, &TokenSet::of_keys(&[u64::MAX]), &old, old.content())
            .unwrap();
    let opened = Envelope::parse(&bytes).unwrap().open(&data_key(2), &KEYRING).unwrap();
    assert_eq!(opened.content(), b"John Smith");
    assert_eq!(opened.require_context(&data_key(2), Some(CONTEXT)), Ok(()));
    assert_eq!(opened.require_context(&data_key(2), Some(b"docs|metadata|43")), Err(OpenError::Context));
    assert_eq!(opened.require_context(&data_key(2), None), Err(OpenError::Context));
}

#[test]
fn a_renewed_value_differs_in_version_nonce_and_ciphertext_only() {
    let tokens = [TOKEN_BIT | 1, TOKEN_BIT | 2];
    for bits in 0..8_u8 {
        let options = Options {
            context: (bits & 1 != 0).then_some(CONTEXT),
            compress: bits & 2 != 0,
            pad: bits & 4 != 0,
            ..Options::default()
        };
        let old = seal(head(Content::Text, 1), &tokens, &[b'x'; 100], options);
        let mut out = b"before".to_vec();
        let envelope = Envelope::parse(&old).unwrap();
        envelope.renew(&data_key(1), &data_key(2), &KEYRING, 2, &mut out).unwrap();
        let new = out.strip_prefix(b"before").unwrap();
        assert_eq!(new.len(), old.len());
        assert_eq!([&new[..8], &[0, 2], &new[10..32]].concat(), [&old[..8], &[0, 2], &old[10..32]].concat());
        assert_ne!(nonce(new), nonce(&old));
        let renewed = Envelope::parse(new).unwrap();
        assert!(renewed.open(&data_key(1), &KEYRING).is_err());
        let opened = renewed.open(&data_key(2), &KEYRING).unwrap();
        assert_eq!(opened.content(), [b'x'; 100]);
        assert_eq!(opened.require_context(&data_key(2), options.context), Ok(()));
    }
}

#[test]
fn a_value_that_its_key_does_not_open_is_not_renewed() {
    let bytes = victim();
    let renew = |bytes: &[u8], old, keyring| {
        Envelope::parse(bytes).unwrap().renew(&data_key(old), &data_key(2), keyring, 2, &mut Vec::new())
    };
    assert!(renew(&bytes, 1, &KEYRING).is_ok());
    assert!(renew(&bytes, 2, &KEYRING).is_err());
    assert!(renew(&bytes, 1, &[0; 16]).is_err());
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert!(renew(&altered, 1, &KEYRING).is_err());
}

#[test]
fn sealing_twice_takes_another_nonce_unless_deterministic() {
    let twice = |deterministic| {
        let options = Options { deterministic, ..Options::default() };
        [(); 2].map(|()| seal(head(Content::Text, 0), &[], b"x", options))
    };
    let [a, b] = twice(false);
    assert_ne!(nonce(&a), nonce(&b));
    let [a, b] = twice(true);
    assert_eq!(a, b);
}

#[test]
fn a_nonce_tells_its_maker_whether_it_is_deterministic_or_not() {
    for deterministic in [false, true] {
        let options = Options { deterministic, maker: Some(b"me"), ..Options::default() };
        let twice = [(); 2].map(|()| seal(head(Content::Text, 1), &[u64::MAX], b"x", options));
        assert_eq!(twice[0] == twice[1], deterministic);
        let envelope = Envelope::parse(&twice[0]).unwrap();
        let opened = envelope.open(&data_key(1), &KEYRING).unwrap();
        let made_by = |maker: &[u8]| envelope.is_made_by(&opened, &data_key(1), &KEYRING, maker);
        assert!(made_by(b"me") && !made_by(b"you") && !made_by(b""));
    }
    let value = seal(head(Content::Text, 1), &[], b"x", Options::default());
    let envelope = Envelope::parse(&value).unwrap();
    let opened = envelope.open(&data_key(1), &KEYRING).unwrap();
    assert!(!envelope.is_made_by(&opened, &data_key(1), &KEYRING, b""));
}

#[test]
fn a_value_to_be_compared_never_authenticates_as_a_stored_one() {
    let options = Options { compared: true, ..Options::default() };
    let value = seal(head(Content::Text, 0), &[], b"x", options);
    assert!(open(&value).is_err());
    let envelope = Envelope::parse(&value).unwrap();
    assert_eq!(envelope.open_compared(&data_key(1), &KEYRING).unwrap().content(), b"x");
    assert!(envelope.renew(&data_key(1), &data_key(2), &KEYRING, 2, &mut Vec::new()).is_err());
    let stored = seal(head(Content::Text, 0), &[], b"x", Options::default());
    assert!(Envelope::parse(&stored).unwrap().open_compared(&data_key(1), &KEYRING).is_err());
}

/// A nonce that repeats under one key for other bytes would give the GCM authentication key away.
#[test]
fn a_deterministic_nonce_depends_on_everything_that_is_sealed() {
    let zeros = [0; 64];
    let make = |head, tokens: &[u64], plaintext: &[u8], context, compress, pad| {
        let value = seal(
            head,
            tokens,
            plaintext,
            Options { context, compress, pad, deterministic: true, ..Options::default() },
        );
        nonce(&value).to_vec()
    };
    let (plain, tokenised) = (head(Content::Text, 0), head(Content::Text, 1));
    let mut nonces = vec![
        make(plain, &[], &zeros, None, false, false),
        make(plain, &[], &zeros[1..], None, false, false),
        make(plain, &[], &zeros, Some(&b"a"[..]), false, false),
        make(plain, &[], &zeros, Some(&b"b"[..]), false, false),
        make(plain, &[], &zeros, None, true, false),
        make(plain, &[], &zeros, None, false, true),
        make(Head { transit: true, ..plain }, &[], &zeros, None, false, false),
        make(tokenised, &[], &zeros, None, false, false),
        make(tokenised, &[u64::MAX], &zeros, None, false, false),
    ];
    let made = nonces.len();
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), made);
}

#[test]
fn padded_values_of_similar_length_have_equal_length() {
    let pad = Options { pad: true, ..Options::default() };
    let length = |content: usize| seal(head(Content::Text, 0), &[], &vec![b'x'; content], pad).len() - 48;
    // Padmé of content and one byte of 0x80: steps of 1/16 between 512 and 1024.
    assert!((992..=1022).all(|content| length(content) == length(992)));
    assert!(
        (1..2000)
            .all(|content| length(content) > content && length(content) <= (content + 1) * 112 / 100 + 1)
    );
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens_again(
        mut plaintext in prop::collection::vec(any::<u8>(), 0..300),
        tail in prop::collection::vec(prop_oneof![Just(0u8), Just(0x80)], 0..9),
        context in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        compress: bool, pad: bool, deterministic: bool, transit: bool,
    ) {
        plaintext.extend(tail);
        let options =
            Options { context: context.as_deref(), compress, pad, deterministic, ..Options::default() };
        let bytes = seal(Head { transit, ..head(Content::Text, 0) }, &[], &plaintext, options);
        let opened = Envelope::parse(&bytes).unwrap().open(&data_key(1), &KEYRING).unwrap();
        prop_assert_eq!(opened.content(), plaintext);
        prop_assert_eq!(opened.require_context(&data_key(1), context.as_deref()), Ok(()));
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = text_form::decode(&bytes);
        let _ = text_form::decode(&[b"pgseal:", &bytes[..]].concat());
        let start = |format, content| [format, 1, 0, content, 0, 0, 0, 1, 0, 1, 0, 1, 0];
        for start in [&[][..], &start(1, 4), &start(2, 4), &start(2, 5)] {
            let bytes = [start, &bytes].concat();
            if let Ok(value) = Envelope::parse(&bytes) {
                prop_assert!(value.keys().all(|token| token >= TOKEN_BIT));
                prop_assert!(value.open(&data_key(1), &KEYRING).is_err());
            }
            if let Ok(filter) = Filter::parse(&bytes) {
                prop_assert_eq!(filter.groups().count(), filter.group_count());
                prop_assert!(filter.open(&index_key(1), &KEYRING).is_err());
            }
        }
    }

    #[test]
    fn no_stored_policy_makes_the_parser_panic(stored in any_policy()) {
        let _ = Policy::from_json(&stored);
    }

    #[test]
    fn no_path_makes_the_parser_panic(path in r#"\$?([.*"$\[\]\\ aé]|\.\*|\."|\\u00){0,8}"#) {
        let _ = Policy::from_paths(Scheme::Decide, &[path]);
    }

    #[test]
    fn the_text_form_reads_back(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut text = vec![0; text_form::text_bytes(bytes.len())];
        text_form::encode(&bytes, &mut text);
        prop_assert_eq!(text_form::decode(&text), Some(Ok(bytes)));
    }
}

fn any_policy() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        (0u64..70).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[$.*a\"\\\\]{0,6}".prop_map(Value::from),
    ];
    let key =
        prop_oneof![Just("path"), Just("bits"), Just("spread"), Just("scheme"), Just("paths"), Just("x")];
    let stored = scalar.prop_recursive(3, 20, 4, move |inner| {
        let members = prop::collection::vec((key.clone(), inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            members.prop_map(|members| members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    });
    (stored, any::<bool>())
        .prop_map(|(paths, wrap)| if wrap { json!({"scheme": 1, "paths": paths}) } else { paths })
}
