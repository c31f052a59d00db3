//! `cargo run --example corpus`: writes the corpus that is committed, each input by the code that it is for.

use std::fs;
use std::path::Path;

use pgseal::core::envelope::{Options, seal};
use pgseal::core::filter::{self, Binding, Parts};
use pgseal::core::groups::QueryVersion;
use pgseal::core::header::{Content, Head, TokenSet};
use pgseal::core::question::Question;
use pgseal::core::range::{Bounds, Decimal, Domain, Scalar};
use pgseal::core::text_form;
use pgseal::core::text_query::{Accessor, TextQuery};
use pgseal::core::{between::Between, canonical::printed_number};
use pgseal_fuzz::{KEYRING, KEYRING_ID, PATHS, data_key, index_key, tokenizers};

fn main() {
    let made: [(&str, Vec<Vec<u8>>); 10] = [
        ("envelope", envelopes()),
        ("filter", filters()),
        ("ivf_index", ivf_indexes()),
        ("ivf_page", ivf_pages()),
        ("jsonb", documents()),
        ("kms", kms()),
        ("policy", policies()),
        ("text_form", text_forms()),
        ("texts", texts()),
        ("vector", vectors()),
    ];
    for (target, inputs) in made {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("made-{number:02}")), input).unwrap();
        }
    }
}

/// A part after its length, as `Input::part` takes it.
fn part(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// jsonb as PostgreSQL stored it, the shorter ones.
fn documents() -> Vec<Vec<u8>> {
    let text = include_str!("../../vectors/jsonb.txt");
    let hex = text.lines().filter_map(|line| line.split_once('\t')).map(|(_, hex)| hex);
    hex.filter(|hex| hex.len() < 260).map(unhex).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    (0..hex.len() / 2).map(digit).collect()
}

fn envelopes() -> Vec<Vec<u8>> {
    let head = Head {
        content: Content::Text,
        keyring: KEYRING_ID,
        data_version: 1,
        index_version: 1,
        transit: false,
    };
    let text = b"a text, a text, a text";
    let [narrow, decide] = tokenizers().map(|tokenizer| tokenizer.text(text).unwrap());
    let packed = Options { compress: true, pad: true, deterministic: true, ..Options::default() };
    let bound = Options { context: Some(b"row 7"), deterministic: true, ..Options::default() };
    let plain = Options { deterministic: true, ..Options::default() };
    let sealed = |tokens: &TokenSet, options| {
        [&[0], seal(data_key(1), &KEYRING, head, tokens, text, options).unwrap().as_slice()].concat()
    };
    let whole = [0x7F, 0xFF];
    let changed = |options: u8, tokens: u8, length: [u8; 2], plan: &[u8]| {
        [&[1, options, 3, tokens], part(text).as_slice(), &length, plan].concat()
    };
    vec![
        sealed(&TokenSet::NONE, plain),
        sealed(&narrow, packed),
        sealed(&decide, bound),
        changed(0, 0, whole, &[0x80, 0, 1]),
        changed(7, 1, whole, &[0, 2, 1]),
        changed(15, 2, [0, 40], &[]),
        changed(16, 2, whole, &[0, 17, 1]),
    ]
}

fn questions() -> Vec<Question<Vec<u8>>> {
    let document = documents().into_iter().find(|document| document.len() > 80).unwrap();
    let texts = [Some(b"x".to_vec()), None, Some(b"12.50".to_vec())];
    let number = printed_number("12.5").and_then(Decimal::new).map(Scalar::Number);
    let bounds = Bounds { domain: Domain::Numbers, low: number, high: None };
    vec![
        Question::Contains(document.clone()),
        Question::ContainsAny(vec![Some(document.clone()), None]),
        Question::Text(
            TextQuery::of_list(Accessor::Path, vec![b"b".to_vec(), b"0".to_vec()], texts).unwrap(),
        ),
        Question::Text(TextQuery::of_one(
            Accessor::Chain,
            vec![b".c".to_vec(), b"[0".to_vec()],
            b"X".to_vec(),
        )),
        Question::Casefold(document),
        Question::Between(Between::new("$.r", bounds).unwrap()),
    ]
}

fn filters() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for question in questions() {
        let [_, tokenizer] = tokenizers();
        let versions = [QueryVersion { version: 1, tokenizer: Some(tokenizer) }];
        let groups = question.groups(KEYRING_ID, &versions).unwrap();
        let parts = Parts {
            keyring: KEYRING_ID,
            binding: Binding::Fixed,
            sealed_by: 1,
            newest_index: 1,
            groups: &groups,
        };
        let sealed = filter::seal(index_key(), &KEYRING, &question, &parts).unwrap();
        inputs.push([&[0], sealed.as_slice()].concat());
        let asked = part(&question.encode().unwrap());
        inputs.push([&[1, question.kind() as u8 - 1, 1], asked.as_slice(), &[0, 13, 1]].concat());
    }
    inputs
}

fn policies() -> Vec<Vec<u8>> {
    let declared = [&[0], PATHS.join("\n").as_bytes()].concat();
    let odd = [&[0][..], br#"$."odd \" key".*.a"#, b"\n$.a.**"].concat();
    let stored = br#"{"scheme": 2, "times": "iso8601", "paths": [{"path": "$.a", "bits": 12, "spread": 8},
        {"path": "$.t", "range": {"min": "1900-01-01", "max": "2100-01-01", "step": "1 day"}}]}"#;
    let numbers = br#"{"min": -0.5, "max": 150, "step": 0.25}"#;
    let times = br#"{"min": "1900-01-01", "max": "2100-01-01T00:00:00Z", "step": "1 hour"}"#;
    let of_numbers = [numbers.as_slice(), b"-3.25", b"99.0", b"0.125"].map(part).concat();
    let of_times =
        [part(times), [0, 1, 2].map(|hour: i64| part(&(hour << 32).to_be_bytes())).concat()].concat();
    vec![
        declared,
        odd,
        [&[1], stored.as_slice()].concat(),
        [&[2], of_numbers.as_slice()].concat(),
        [&[2], of_times.as_slice()].concat(),
    ]
}

fn text_forms() -> Vec<Vec<u8>> {
    ["", "pgseal:", "pgseal:AQE=", "pgseal:AQEBAQEB", "pgseal:AR=="]
        .into_iter()
        .map(Into::into)
        .chain([b"\x01\x01\x00\x04".to_vec(), vec![0; text_form::text_bytes(9)]])
        .collect()
}

fn texts() -> Vec<Vec<u8>> {
    [
        "2024-02-29T23:59:59.123456+05:30",
        "20240229 235960Z",
        "2024-060",
        "1970-01-01",
        "-0012.3400",
        "Straße ΌΣΟΣ Ǆ İ",
        "U&'a''b' /* c */\n 'd' COLLATE \"C\"",
        "($1) :: text = $$a$$ COLLATE c",
        ".key",
        "[-12",
        "\u{1}\0\0\0\u{10}\u{27}",
    ]
    .into_iter()
    .map(Into::into)
    .collect()
}

fn vectors() -> Vec<Vec<u8>> {
    let floats = |floats: &[f32]| floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>();
    let wide: Vec<f32> = (0..150).map(|number| number as f32 / 7.0 - 9.0).collect();
    let rows: Vec<u8> = (0..45 * 10).map(|at| at as u8).collect();
    vec![
        b"\0[1,-2.5e-3,+.5, 3.4028235e38 ]".to_vec(),
        b"\0 [1e-46,0x1]".to_vec(),
        vec![1, 0, 2, 0, 0, 0x3F, 0x80, 0, 0, 0xC0, 0, 0, 0],
        [&[1], floats(&[1.0, -0.0]).as_slice()].concat(),
        [&[2], floats(&wide).as_slice()].concat(),
        [&[3, 0, 10, 0], part(&rows).as_slice(), &floats(&wide[..11])].concat(),
        [&[3, 0, 99, 2], part(&rows).as_slice(), &floats(&wide)].concat(),
    ]
}

/// Each page is made by its target; here are how, and what is changed on it.
fn ivf_pages() -> Vec<Vec<u8>> {
    let special = |kind: u8, rows: u8, version: u8| {
        let mut special = [0; 32];
        special[..4].fill(0xFF);
        (special[12], special[14], special[16], special[17]) = (rows, version, kind, 1);
        special[28..].copy_from_slice(b"PGSV");
        special
    };
    let mut meta = vec![7; 16];
    for word in [5, 0x0101_0003_u32, 1, 3, 9, 2, 2, 4, 4, 400, 0, 3] {
        meta.extend(word.to_le_bytes());
    }
    let anywhere = |special: [u8; 32], data: &[u8]| [&[0, 0, 2], special.as_slice(), data].concat();
    vec![
        anywhere(special(1, 0, 0), &meta),
        anywhere(special(2, 1, 1), &[1; 90]),
        anywhere(special(3, 2, 0), &[&[0; 166][..], &[1, 0, 0, 0, 1, 0, 2, 0, 0, 0, 2, 0]].concat()),
        anywhere(special(4, 1, 1), &[1; 60]),
        anywhere(special(5, 0, 0), &[]),
        vec![1, 0, 11, 40, 0, 0x80, 19, 0xF0],
        vec![1, 0, 11, 40, 1, 0, 0x0C, 1],
        vec![1, 1, 127, 200, 0, 0x80, 19, 3, 0x80, 15, 1],
        vec![2, 0, 11, 3, 0x80, 19, 0xFF],
        vec![2, 5, 0, 1, 0, 20, 1],
    ]
}

/// Which index, patience, late rows, candidates; then page and changes on it.
fn ivf_indexes() -> Vec<Vec<u8>> {
    let one = |index: u8, candidates: u8, changes: &[u8]| [&[index, 2, 0, candidates], changes].concat();
    let changed = |page: u8, plan: &[u8]| [&[page][..], &part(plan)].concat();
    vec![
        one(0, 200, &[]),
        one(1, 3, &[]),
        one(1, 50, &changed(3, &[0x80, 31, 4])),
        one(1, 50, &changed(0, &[0, 24, 1])),
        one(0, 5, &changed(2, &[0, 13, 0xFF])),
        one(1, 1, &[changed(14, &[0x80, 31, 1]), changed(13, &[0, 12, 1])].concat()),
    ]
}

/// Service, operation, what was stored, and answers as the services give them.
fn kms() -> Vec<Vec<u8>> {
    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let (ok, bad, denied, raw) = (1, 2, 4, 0);
    let input = |service: u8, operation: u8, stored: &[u8], answers: &[(u8, String)]| {
        let answers = answers.iter().map(|(status, body)| [&[*status][..], &part(body.as_bytes())].concat());
        [&[service, operation], part(stored).as_slice(), &answers.collect::<Vec<_>>().concat()].concat()
    };
    let derived = (bad, r#"{"errors": ["missing 'context' for key derivation"]}"#.to_owned());
    let wrapped = (ok, r#"{"data": {"ciphertext": "vault:v1:AQID", "key_version": 1}}"#.to_owned());
    let name = "projects/1/locations/l/keyRings/r/cryptoKeys/key/cryptoKeyVersions/1";
    let google = format!(
        r#"{{"name": "{name}", "ciphertext": "AQID", "ciphertextCrc32c": "4046516766",
        "verifiedPlaintextCrc32c": true, "verifiedAdditionalAuthenticatedDataCrc32c": true}}"#
    );
    let azure = r#"{"kid": "https://name.vault.azure.net/keys/key/0123456789abcdef", "value": "AQID"}"#;
    vec![
        input(0, 0, b"", std::slice::from_ref(&derived)),
        input(0, 1, b"", &[derived, wrapped.clone()]),
        input(0, 2, b"vault:v1:AQID", &[wrapped]),
        input(0, 3, b"aad:vault:v1:AQID", &[(ok, format!(r#"{{"data": {{"plaintext": "{KEY}"}}}}"#))]),
        input(0, 3, b"vault:v1:AQID", &[(denied, r#"{"errors": ["permission denied"]}"#.into())]),
        input(1, 1, b"", &[(ok, r#"{"CiphertextBlob": "AQID", "KeyId": "key"}"#.into())]),
        input(1, 3, b"\x01\x02", &[(ok, format!(r#"{{"Plaintext": "{KEY}"}}"#))]),
        input(1, 3, b"\x01\x02", &[(bad, r#"{"__type": "com.amazonaws#DisabledException"}"#.into())]),
        input(2, 1, b"", &[(ok, google)]),
        input(
            2,
            3,
            b"\x01\x02",
            &[(ok, format!(r#"{{"plaintext": "{KEY}", "plaintextCrc32c": "3596965425"}}"#))],
        ),
        input(
            2,
            3,
            b"\x01\x02",
            &[(denied, r#"{"error": {"code": 403, "status": "PERMISSION_DENIED"}}"#.into())],
        ),
        input(3, 1, b"", &[(ok, azure.into())]),
        input(3, 3, b"\x01\x020a\x01\x02", &[(bad, r#"{"error": {"code": "BadParameter"}}"#.into())]),
        input(
            0,
            0,
            b"",
            &[(raw, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".into())],
        ),
        b"\x04\0vault+https://h:8200/transit?namespace=a/b".to_vec(),
        b"\x04\0aws-kms://eu-west-1?endpoint=https://[::1]:1".to_vec(),
        b"\x04\0gcp-kms://projects/d:p/locations/l/keyRings/r".to_vec(),
    ]
}
