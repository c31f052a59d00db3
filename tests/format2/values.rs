//! Committed values and tokens, and both written out a second time from their description.

use hmac::{Hmac, KeyInit as _, Mac as _};

use super::document::leaves;
use super::*;

const DECLARED: [&str; 6] = [
    "$.**",
    "$.a",
    r#"{"path": "$.**", "bits": 12}"#,
    r#"{"path": "$.a", "spread": 3}"#,
    r#"{"path": "$.a", "casefold": true}"#,
    r#"{"path": "$.**", "range": {"min": 0, "max": 150, "step": 1}}"#,
];

const DOCUMENTS: [&str; 12] = [
    r#""x""#,
    r#"["x"]"#,
    r#"{"a":"x"}"#,
    r#"{"a":"X"}"#,
    r#"{"a":["x","y",["x"]]}"#,
    r#"{"a":{"a":"x"},"b":[{"a":"x"}]}"#,
    r#"{"a":52}"#,
    r#"{"a":52.0}"#,
    r#"{"a":true,"b":false,"c":null}"#,
    r#"{"":""}"#,
    r#"{"a":"東京"}"#,
    r#"{"a":-1e400}"#,
];

fn lines() -> Vec<Vec<String>> {
    let text = fs::read_to_string(file()).unwrap();
    let entries = text.lines().filter(|line| !line.starts_with('#'));
    entries.map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn file() -> String {
    format!("{}/tests/vectors/format2.txt", env!("CARGO_MANIFEST_DIR"))
}

/// Every document under every declared path, but for what is spread over random tokens.
fn cases() -> impl Iterator<Item = (&'static str, &'static str)> {
    DECLARED.into_iter().flat_map(|declared| DOCUMENTS.map(|document| (declared, document)))
}

/// Values that must open, and tokens that must be found, for ever.
#[test]
fn the_committed_values_are_complete() {
    if std::env::var_os("PGSEAL_WRITE_VECTORS").is_some() && lines().is_empty() {
        let written = cases().map(|(declared, document)| {
            let row = row(1, &policy(&[declared]), &parse(document));
            format!("{declared}\t{document}\t{}\n", hex(&row))
        });
        let heading = fs::read_to_string(file()).unwrap();
        fs::write(file(), heading + &written.collect::<String>()).unwrap();
    }
    let committed: Vec<_> =
        lines().into_iter().map(|fields| (fields[0].clone(), fields[1].clone())).collect();
    let wanted: Vec<_> =
        cases().map(|(declared, document)| (declared.to_owned(), document.to_owned())).collect();
    assert_eq!(committed, wanted);
}

#[test]
fn every_committed_value_opens_and_has_todays_tokens() {
    for fields in lines() {
        let (sealed, document) = (unhex(&fields[2]), jsonb(&parse(&fields[1])));
        let value = Envelope::parse(&sealed).unwrap();
        assert_eq!(value.open(data_key(), &KEYRING).unwrap().content(), document, "{fields:?}");
        let (head, section) = parse_head(&sealed).unwrap();
        assert_eq!((head.index_version, section.decides()), (1, sealed[0] == 2), "{fields:?}");
        if fields[0].contains("spread") {
            continue;
        }
        let policy = policy(&[&fields[0]]);
        let today = seal(head, &tokenizer(1, &policy).document(&document).unwrap(), &document);
        assert_eq!(hex(&today[..section.end()]), hex(&sealed[..section.end()]), "{fields:?}");
    }
}

/// HMAC-SHA-256 under an index root key of 81 bytes and a label.
fn described_mac(label: &str, message: &[u8]) -> Vec<u8> {
    let mac = |key: &[u8], message: &[u8]| {
        let mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap().chain_update(message);
        mac.finalize().into_bytes().to_vec()
    };
    let prk = mac(&KEYRING, &[0x81; 32]);
    mac(&mac(&prk, format!("pgseal/v1/index/{label}\x01").as_bytes()), message)[..16].to_vec()
}

fn described_prf(kind: u8, path: &[u8], value: &[u8]) -> u128 {
    let mut message = vec![2, kind];
    message.extend((path.len() as u32).to_be_bytes());
    message.extend(path);
    message.extend([0, 0]);
    message.extend((value.len() as u32).to_be_bytes());
    message.extend(value);
    u128::from_be_bytes(described_mac("token", &message).try_into().unwrap())
}

fn described_tokens(document: &Json, bits: u32) -> Vec<u128> {
    let tokens = leaves(document).into_iter().map(|leaf| {
        // A scalar document has a step of its own.
        let path = if document.is_container() { leaf.path } else { vec![3] };
        let value = described_prf(leaf.kind as u8, &path, &leaf.value);
        let of_value = if bits == 63 { u128::MAX } else { ((1u128 << bits) - 1) << 64 };
        value & of_value | described_prf(9, &path, b"") & !of_value | 1 << 127
    });
    let mut tokens: Vec<u128> = tokens.collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

#[test]
fn committed_tokens_and_tags_follow_their_description() {
    let mut compared = 0;
    for fields in lines().iter().filter(|fields| ["$.**", DECLARED[2]].contains(&fields[0].as_str())) {
        let sealed = unhex(&fields[2]);
        let bits = if fields[0].contains("bits") { 12 } else { 63 };
        let tokens = described_tokens(&parse(&fields[1]), bits);
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_be_bytes()).collect();
        let tag = described_mac("tag", &[&KEYRING[..], &[0, 1], &bytes].concat());
        let section = parse_head(&sealed).unwrap().1;
        assert_eq!(hex(section_of(&sealed, section)), hex(&[bytes, tag].concat()), "{fields:?}");
        compared += 1;
    }
    assert_eq!(compared, 2 * DOCUMENTS.len());
}

/// The other half of a short token would tell what its few bits hide.
#[test]
fn what_a_short_token_checks_depends_on_the_path_alone() {
    let policy = policy(&[r#"{"path": "$.a", "bits": 8}"#]);
    let halves: Vec<(u64, u64)> = (0..500)
        .map(|number| {
            let row = row(1, &policy, &parse(&format!(r#"{{"a":{number}}}"#)));
            let token = &row[parse_head(&row).unwrap().1.tokens()];
            let half = |at| u64::from_be_bytes(token[at..at + 8].try_into().unwrap());
            (half(0), half(8))
        })
        .collect();
    let distinct =
        |of: fn(&(u64, u64)) -> u64| halves.iter().map(of).collect::<std::collections::HashSet<_>>().len();
    assert!((200..=256).contains(&distinct(|half| half.0)));
    assert_eq!(distinct(|half| half.1), 1);
}

/// A value of this content with these tokens, put together as the formats are described.
pub fn assembled(content: Content, tokens: &[u128], plaintext: &[u8]) -> Vec<u8> {
    let count = (tokens.len() as u16).to_be_bytes();
    let tokens: Vec<u8> = tokens.iter().flat_map(|token| token.to_be_bytes()).collect();
    let tag = described_mac("tag", &[&KEYRING[..], &[0, 1], &tokens].concat());
    let mut bytes =
        vec![2, 1, 0, content as u8, 0x01, 0x23, 0x45, 0x67, 0, 1, 0, 1, count[0], count[1], 0, 0];
    bytes.extend([&tokens[..], &tag].concat());
    let mut aad = Vec::new();
    for part in [&b"pgseal/v1/aad/value"[..], &bytes[..16], &KEYRING, &bytes[16..]] {
        aad.extend((part.len() as u32).to_be_bytes());
        aad.extend(part);
    }
    let nonce = [[0; 8], [5; 8], [6; 8]].concat();
    let mut body = plaintext.to_vec();
    let sealed = data_key().aead.seal(nonce[..].try_into().unwrap(), &aad, &mut body).unwrap();
    [&bytes, &nonce[8..], &body, &sealed].concat()
}

#[test]
fn a_value_assembled_by_hand_opens() {
    let value = assembled(Content::Text, &[1u128 << 127, u128::MAX], b"text");
    assert_eq!(Envelope::parse(&value).unwrap().open(data_key(), &KEYRING).unwrap().content(), b"text");
    assert!(index_key(1).vouches_for(1, &value[16..64]));
}
