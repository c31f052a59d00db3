//! Format 1 as it will be read for ever: committed values and tokens, hostile bytes, and the promise that a
//! filter never drops a row that contains its query.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::io::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use pgseal::core::canonical::Kind;
use pgseal::core::envelope::{self, Envelope, OpenError, Options};
use pgseal::core::filter::{self, Binding, Filter};
use pgseal::core::groups::{self, Groups, QueryVersion};
use pgseal::core::header::{Content, FormatError, Head, TOKEN_BIT};
use pgseal::core::jsonb::{JsonbError, walk};
use pgseal::core::kdf::{DataKey, IndexKey};
use pgseal::core::policy::{MAX_PATH_BYTES, Policy};
use pgseal::core::question::{Question, QuestionKind};
use pgseal::core::secret::Secret;
use pgseal::core::text_form;
use pgseal::core::text_query::{Accessor, TextQuery};
use pgseal::core::token::{self, MAX_LEAVES, Tokenizer, marker, query_leaves};
use proptest::prelude::*;
use serde_json::{Value, json};

use self::document::{Json, contains, leaves, parse};
use self::encode::jsonb;

// The fixed keys of the committed files

const KEYRING: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\x4d\xef\x80\x11\x22\x33\x44\x55\x66\x77";
const KEYRING_ID: i32 = 0x0123_4567;
const CONTEXT: &[u8] = b"docs|metadata|42";

/// The root key of version v is the byte v, 32 times.
fn data_key(version: u16) -> DataKey {
    DataKey::derive(&Secret::from_slice(&[version as u8; 32]).unwrap(), &KEYRING, None).unwrap()
}

/// The root key of version v is the byte 0x80 + v, 32 times.
fn index_key(version: u16) -> IndexKey {
    IndexKey::derive(&Secret::from_slice(&[0x80 + version as u8; 32]).unwrap(), &KEYRING, None).unwrap()
}

fn policy(version: u16) -> Policy {
    let paths = match version {
        1 => {
            let paths = ["$", "$.diagnosis", "$.patient_name", "$.visits.*"];
            paths.map(|path| json!({"path": path})).into()
        }
        _ => json!([{"path": "$.**", "bits": 16, "spread": 8}]),
    };
    Policy::from_json(&json!({"scheme": 1, "paths": paths})).unwrap()
}

fn head(content: Content, index_version: u16) -> Head {
    Head { content, keyring: KEYRING_ID, data_version: 1, index_version, transit: false }
}

fn seal(head: Head, tokens: &[u64], plaintext: &[u8], options: Options<'_>) -> Vec<u8> {
    envelope::seal(&data_key(head.data_version), &KEYRING, head, tokens, plaintext, options).unwrap()
}

fn open(bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
    let value = Envelope::parse(bytes).map_err(|_| OpenError::Authentication)?;
    let opened = value.open(&data_key(1), &KEYRING)?;
    Ok(opened.content().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn hex_tokens(tokens: &[u64]) -> String {
    tokens.iter().map(|token| format!("{token:016x}")).collect::<Vec<_>>().join(",")
}

fn unhex_tokens(text: &str) -> Vec<u64> {
    text.split_terminator(',').map(|token| u64::from_str_radix(token, 16).unwrap()).collect()
}

// Committed files: lines of fields between tabs, comments after #

fn file(name: &str) -> String {
    format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn lines(name: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(file(name)).unwrap();
    let entries = text.lines().filter(|line| !line.starts_with('#'));
    entries.map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Lines that are there stay as they are: what was once written must be readable for ever.
fn complete(name: &str, wanted: impl Iterator<Item = (String, Box<dyn Fn() -> String>)>) {
    let present: Vec<String> = lines(name).into_iter().map(|fields| fields[0].clone()).collect();
    let missing: Vec<_> = wanted.filter(|(key, _)| !present.contains(key)).collect();
    if std::env::var_os("PGSEAL_WRITE_VECTORS").is_none() {
        let missing: Vec<_> = missing.iter().map(|(key, _)| key).collect();
        assert!(missing.is_empty(), "{name} lacks {missing:?}: run once with PGSEAL_WRITE_VECTORS=1");
        return;
    }
    let mut out = fs::OpenOptions::new().append(true).open(file(name)).unwrap();
    for (key, rest) in missing {
        writeln!(out, "{key}\t{}", rest()).unwrap();
    }
}

/// Real documents: the JSON text and what PostgreSQL 15 makes of it.
fn samples() -> Vec<(String, Vec<u8>)> {
    lines("jsonb.txt").into_iter().map(|fields| (fields[0].clone(), unhex(&fields[1]))).collect()
}

fn patient() -> Vec<u8> {
    samples().into_iter().find(|(text, _)| text.starts_with(r#"{"patient_name""#)).unwrap().1
}

// Values

/// A value of the committed file: what it was made of and its bytes.
struct Committed {
    name: String,
    content: u8,
    flags: u8,
    data_version: u16,
    index_version: u16,
    context: Option<Vec<u8>>,
    tokens: Vec<u64>,
    plaintext: Vec<u8>,
    sealed: Vec<u8>,
}

fn committed() -> Vec<Committed> {
    let read = |f: Vec<String>| Committed {
        name: f[0].clone(),
        content: f[1].parse().unwrap(),
        flags: u8::from_str_radix(&f[2], 16).unwrap(),
        data_version: f[3].parse().unwrap(),
        index_version: f[4].parse().unwrap(),
        context: f[5].strip_prefix("context:").map(unhex),
        tokens: unhex_tokens(&f[6]),
        plaintext: unhex(&f[7]),
        sealed: unhex(&f[8]),
    };
    lines("format1.txt").into_iter().map(read).collect()
}

fn line(head: Head, tokens: &[u64], plaintext: &[u8], options: Options<'_>) -> String {
    let sealed = seal(head, tokens, plaintext, options);
    let context = options.context.map_or("unbound".into(), |context| format!("context:{}", hex(context)));
    let fields = [
        (head.content as u8).to_string(),
        format!("{:02x}", sealed[2]),
        head.data_version.to_string(),
        head.index_version.to_string(),
        context,
        hex_tokens(tokens),
        hex(plaintext),
        hex(&sealed),
    ];
    fields.join("\t")
}

type Wanted = (String, Box<dyn Fn() -> String>);

/// Every content with every combination of flags, with and without tokens.
fn wanted_combinations() -> Vec<Wanted> {
    let vector: Vec<u8> =
        [0.5f32, -1.0, 0.0, f32::MIN_POSITIVE].repeat(6).iter().flat_map(|x| x.to_le_bytes()).collect();
    let text = "diabetes mellitus type 2, ".repeat(3);
    let json_text = format!(r#"{{"diagnosis": "{text}", "patient_name": "Zoë"}}"#);
    let tokenizer = |document: &[u8]| {
        let (key, policy) = (index_key(1), policy(1));
        Tokenizer { key: &key, policy: &policy }.document(document).unwrap()
    };
    let contents = [
        ("jsonb", Content::Jsonb, patient(), tokenizer(&patient())),
        (
            "json text",
            Content::JsonText,
            json_text.clone().into_bytes(),
            tokenizer(&jsonb(&parse(&json_text))),
        ),
        ("vector", Content::Vector, vector, vec![TOKEN_BIT, TOKEN_BIT | 1, u64::MAX]),
        ("text", Content::Text, text.clone().into_bytes(), text_tokens(text.as_bytes())),
    ];
    let mut wanted = Vec::new();
    for (label, content, plaintext, tokens) in contents {
        for bits in 0u8..32 {
            wanted.push(combination(label, content, &plaintext, &tokens, bits));
        }
    }
    wanted
}

fn text_tokens(text: &[u8]) -> Vec<u64> {
    Tokenizer { key: &index_key(1), policy: &policy(1) }.text(text).unwrap()
}

fn combination(label: &str, content: Content, plaintext: &[u8], tokens: &[u64], bits: u8) -> Wanted {
    let on = |bit: u8| bits >> bit & 1 == 1;
    let names = ["bound", "compressed", "padded", "transit", "tokens"];
    let set: Vec<_> = (0..5u8).filter(|bit| on(*bit)).map(|bit| names[usize::from(bit)]).collect();
    let head = Head { transit: on(3), ..head(content, on(4).into()) };
    let options =
        Options { context: on(0).then_some(CONTEXT), compress: on(1), pad: on(2), ..Options::default() };
    let tokens = if on(4) { tokens.to_vec() } else { Vec::new() };
    let plaintext = plaintext.to_vec();
    let name = format!("{label}: {}", if set.is_empty() { "plain".into() } else { set.join(" ") });
    (name, Box::new(move || line(head, &tokens, &plaintext, options)))
}

fn wanted_edges() -> Vec<Wanted> {
    let text = head(Content::Text, 0);
    let pad = Options { pad: true, ..Options::default() };
    let empty_context = Options { context: Some(b""), ..Options::default() };
    let edges: [(&str, Head, &'static [u8], Options<'static>); 8] = [
        ("edge: empty text", text, b"", Options::default()),
        ("edge: empty text padded", text, b"", pad),
        ("edge: empty text of an empty context", text, b"", empty_context),
        ("edge: padded text that ends like padding", text, b"x\x80\0\0", pad),
        ("edge: empty vector", head(Content::Vector, 0), b"", Options::default()),
        ("edge: tokenised without tokens", head(Content::Text, u16::MAX), b"x", Options::default()),
        ("edge: last data key version", Head { data_version: u16::MAX, ..text }, b"x", Options::default()),
        ("edge: last keyring id", Head { keyring: i32::MAX, ..text }, b"x", Options::default()),
    ];
    let edge = |(name, head, plaintext, options): (&str, Head, &'static [u8], Options<'static>)| -> Wanted {
        (name.into(), Box::new(move || line(head, &[], plaintext, options)))
    };
    edges.into_iter().map(edge).collect()
}

/// Every real document, with spread and shortened tokens.
fn wanted_documents() -> Vec<Wanted> {
    let document = |(at, (_, document)): (usize, (String, Vec<u8>))| -> Wanted {
        let line = move || {
            let tokens = Tokenizer { key: &index_key(2), policy: &policy(2) }.document(&document).unwrap();
            line(head(Content::Jsonb, 2), &tokens, &document, Options::default())
        };
        (format!("document {at}"), Box::new(line))
    };
    samples().into_iter().enumerate().filter(|(_, (_, bytes))| bytes.len() < 500).map(document).collect()
}

#[test]
fn the_committed_values_are_complete() {
    let wanted = [wanted_combinations(), wanted_edges(), wanted_documents()];
    complete("format1.txt", wanted.into_iter().flatten());
}

#[test]
fn every_committed_value_opens_to_its_plaintext() {
    for made in committed() {
        let value = Envelope::parse(&made.sealed).unwrap();
        let key = data_key(made.data_version);
        let opened = value.open(&key, &KEYRING).unwrap_or_else(|e| panic!("{}: {e}", made.name));
        assert_eq!(opened.content(), made.plaintext, "{}", made.name);
        assert_eq!(opened.require_context(&key, made.context.as_deref()), Ok(()), "{}", made.name);
        assert_eq!(opened.require_context(&key, Some(b"another")), Err(OpenError::Context), "{}", made.name);
    }
}

#[test]
fn every_committed_header_reads_as_it_was_written() {
    for made in committed() {
        let value = Envelope::parse(&made.sealed).unwrap();
        let head = value.head();
        assert_eq!((head.content as u8, made.sealed[2]), (made.content, made.flags), "{}", made.name);
        assert_eq!((head.data_version, head.index_version), (made.data_version, made.index_version));
        assert_eq!((value.is_bound(), head.transit), (made.flags & 1 != 0, made.flags & 0x80 != 0));
        assert_eq!(value.is_bound(), made.context.is_some());
        assert_eq!(value.tokens().collect::<Vec<_>>(), made.tokens, "{}", made.name);
    }
}

#[test]
fn all_flags_and_contents_are_committed() {
    let made = committed();
    for content in 1..=4 {
        for flags in (0..16u8).map(|bits| bits & 7 | bits >> 3 << 7) {
            let both = [0, 1].map(|tokens| {
                let alike = |made: &&Committed| made.name.contains(':') && made.index_version == tokens;
                made.iter().filter(alike).any(|m| m.content == content && m.flags == flags)
            });
            assert_eq!(both, [true; 2], "content {content} flags {flags:02x}");
        }
    }
}

#[test]
fn committed_tokens_are_what_the_plaintext_gives_today() {
    let exact = |made: &&Committed| made.content == 1 && made.index_version == 1;
    for made in committed().iter().filter(exact) {
        let tokens = Tokenizer { key: &index_key(1), policy: &policy(1) }.document(&made.plaintext).unwrap();
        assert_eq!(tokens, made.tokens, "{}", made.name);
        assert!(!tokens.is_empty());
    }
}

#[test]
fn committed_spread_tokens_are_those_that_queries_find() {
    for made in committed().iter().filter(|made| made.index_version == 2) {
        let (key, policy) = (index_key(2), policy(2));
        let tokenizer = Tokenizer { key: &key, policy: &policy };
        let asked: Vec<_> =
            query_leaves(&made.plaintext).unwrap().iter().filter_map(|l| tokenizer.query(l)).collect();
        assert!(
            asked.iter().all(|tokens| tokens.iter().any(|token| made.tokens.contains(token))),
            "{}",
            made.name
        );
        assert!(made.tokens.iter().all(|token| asked.iter().flatten().any(|a| a == token)), "{}", made.name);
    }
}

/// The format written down a second time, straight from its description.
fn assemble(flags: u8, tokens: &[u64], inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 1, flags, 4, 0x01, 0x23, 0x45, 0x67, 0, 1, 0, 1];
    bytes.extend((tokens.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(tokens.iter().flat_map(|token| token.to_be_bytes()));
    let mut aad = Vec::new();
    for part in [&b"pgseal/v1/aad/value"[..], &bytes[..16], &KEYRING, &bytes[16..]] {
        aad.extend((part.len() as u32).to_be_bytes());
        aad.extend(part);
    }
    let nonce = [[0; 8], [5; 8], [6; 8]].concat();
    let mut body = inner.to_vec();
    let tag = data_key(1).aead.seal(nonce[..].try_into().unwrap(), &aad, &mut body).unwrap();
    [&bytes, &nonce[8..], &body, &tag].concat()
}

#[test]
fn a_value_assembled_by_hand_opens() {
    assert_eq!(open(&assemble(0, &[TOKEN_BIT, u64::MAX], b"text")).unwrap(), b"text");
    assert_eq!(open(&assemble(4, &[], b"text\x80\0\0")).unwrap(), b"text");
    let bound = [&data_key(1).context_tag(CONTEXT)[..], b"text"].concat();
    assert_eq!(open(&assemble(1, &[], &bound)).unwrap(), b"text");
    // RFC 1951 stored block: final, length 4, its complement.
    assert_eq!(open(&assemble(2, &[], b"\0\0\0\x04\x01\x04\0\xfb\xfftext")).unwrap(), b"text");
}

#[test]
fn authentic_values_with_an_impossible_inside_are_refused() {
    let bomb = [&[0xff; 4][..], b"\x01\x04\0\xfb\xfftext"].concat();
    let cases: [(u8, &[u8]); 9] = [
        (2, b""),
        (2, b"\0\0\0"),
        (2, b"\0\0\0\x05\x01\x04\0\xfb\xfftext"),
        (2, b"\0\0\0\x03\x01\x04\0\xfb\xfftext"),
        (2, b"\0\0\0\x04not deflate"),
        (2, &bomb),
        (4, b""),
        (4, b"text\0\0"),
        (5, b"shorter than 16\x80"),
    ];
    for (flags, inner) in cases {
        assert_eq!(open(&assemble(flags, &[], inner)), Err(OpenError::Authentication), "{flags} {inner:?}");
    }
}

// Tokens

const TOKEN_PATHS: [(&str, u8, u16); 6] =
    [("$", 63, 1), ("$.a", 63, 1), ("$.a.b", 63, 1), ("$.a", 8, 1), ("$.a", 63, 4), ("$.**", 40, 3)];

fn token_documents() -> Vec<String> {
    let scalars = [
        "null",
        "false",
        "true",
        "0",
        "1",
        "1.10",
        "-0.001",
        "1e400",
        r#""""#,
        r#""John Smith""#,
        r#""東京""#,
    ];
    let shapes = ["@", r#"{"a":@}"#, r#"{"a":[@]}"#, r#"{"a":{"b":@}}"#, r#"{"a.b":@}"#, r#"[[@]]"#];
    shapes.iter().flat_map(|shape| scalars.map(|scalar| shape.replace('@', scalar))).collect()
}

fn token_policy(path: &str, bits: u8, spread: u16) -> Policy {
    let stored = json!({"scheme": 1, "paths": [{"path": path, "bits": bits, "spread": spread}]});
    Policy::from_json(&stored).unwrap()
}

/// Path and value bytes, kind, and the tokens of all salts; nothing where the policy leaves the leaf out.
fn token_line(text: &str, (path, bits, spread): (&str, u8, u16)) -> Option<String> {
    let leaf = leaves(&parse(text)).pop().unwrap();
    let query = query_leaves(&jsonb(&parse(text))).unwrap();
    let policy = token_policy(path, bits, spread);
    let tokens = Tokenizer { key: &index_key(1), policy: &policy }.query(&query[0])?;
    Some([hex(&leaf.path), (leaf.kind as u8).to_string(), hex(&leaf.value), hex_tokens(&tokens)].join("\t"))
}

fn token_cases() -> impl Iterator<Item = (String, Box<dyn Fn() -> String>)> {
    let cases = token_documents().into_iter().flat_map(|text| TOKEN_PATHS.map(|rule| (text.clone(), rule)));
    cases.filter_map(|(text, rule)| {
        let line = token_line(&text, rule)?;
        let name = format!("{text}\t{}\t{}\t{}", rule.0, rule.1, rule.2);
        Some((name, Box::new(move || line.clone()) as Box<dyn Fn() -> String>))
    })
}

#[test]
fn the_committed_tokens_are_what_is_computed_today() {
    if std::env::var_os("PGSEAL_WRITE_VECTORS").is_some() && lines("tokens.txt").is_empty() {
        let text: String = token_cases().map(|(name, line)| format!("{name}\t{}\n", line())).collect();
        fs::OpenOptions::new()
            .append(true)
            .open(file("tokens.txt"))
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }
    let committed: Vec<String> = lines("tokens.txt").iter().map(|fields| fields.join("\t")).collect();
    let computed: Vec<String> = token_cases().map(|(name, line)| format!("{name}\t{}", line())).collect();
    assert_eq!(committed, computed);
    assert!(committed.len() > 100);
}

/// What a path declares, and documents that show where its tokens could change: with another library for times or case
/// folding, say.
fn declared_cases() -> Vec<(Value, Vec<Value>)> {
    let numbers = [
        "0", "0.0", "52", "52.999", "-0.0001", "-1", "149.5", "150", "150.5", "151", "1e3", "1e-400", "1e400",
    ];
    let times = [
        "2026-11-29",
        "2026-11-29T00:00:00Z",
        "2026-11-29t00:00:00z",
        "2026-11-29 00:00:00",
        "2026-11-29T00:00:00",
        "2026-11-29T01:30:00+02:00",
        "2026-11-28T23:59:59.999999999Z",
        "2026-11-28T23:59:59.9999-00:01",
        "2026-11-29T23:59:00-23:59",
        "2016-12-31T23:59:60Z",
        "2016-12-31T18:59:60.5-05:00",
        "2024-02-29",
        "2023-02-29",
        "2026-11-29T24:00:00Z",
        "2026-11-29T10:00Z",
        "1999-12-31T23:59:59Z",
        "2030-01-01T00:00:00.000001Z",
        "2030-01-02",
        "0000-01-01",
        "9999-12-31T23:59:59Z",
        "yesterday",
    ];
    let cases = [
        "Straße",
        "STRASSE",
        "İstanbul",
        "ıspanak",
        "ΣΊΣΥΦΟΣ",
        "σίσυφος",
        "ſ",
        "ﬁne",
        "ǅ",
        "ꭰ",
        "Ꭰ",
        "ᲀ",
        "e\u{301}",
        "É",
        "東京",
        "",
    ];
    let strings = |texts: &[&str]| texts.iter().map(|text| json!({"a": text})).collect::<Vec<_>>();
    let number = |text: &str| json!({"a": serde_json::from_str::<Value>(text).unwrap()});
    let mut in_range: Vec<Value> = numbers.iter().map(|text| number(text)).collect();
    in_range.extend([json!({"a": [3, {"b": 4}]}), json!({"a": "52"}), json!({"a": null})]);
    vec![
        (json!({"path": "$.a", "range": {"min": 0, "max": 150, "step": 1}}), in_range.clone()),
        (json!({"path": "$.**", "range": {"min": -0.5, "max": 99.75, "step": 0.25}}), in_range),
        (
            json!({"path": "$.a", "range": {"min": "2000-01-01", "max": "2030-01-01", "step": "1 day"}}),
            strings(&times),
        ),
        (
            json!({"path": "$.a", "range": {"min": "2016-12-31T23:00:00Z", "max": "2026-11-29", "step": "6 hours"}}),
            strings(&times),
        ),
        (json!({"path": "$.a", "casefold": true}), strings(&cases)),
        (json!({"path": "$.a", "casefold": true, "bits": 20}), strings(&cases)),
    ]
}

#[test]
fn declared_tokens_are_what_was_committed() {
    let mut computed = Vec::new();
    for (declared, documents) in declared_cases() {
        let policy = Policy::from_json(&json!({"scheme": 1, "paths": [declared]})).unwrap();
        let tokenizer = Tokenizer { key: &index_key(1), policy: &policy };
        for document in documents {
            let text = document.to_string();
            let tokens = tokenizer.document(&jsonb(&parse(&text))).unwrap();
            computed.push(format!("{declared}\t{text}\t{}", hex_tokens(&tokens)));
        }
    }
    if std::env::var_os("PGSEAL_WRITE_VECTORS").is_some() && lines("declared.txt").is_empty() {
        fs::write(file("declared.txt"), computed.join("\n") + "\n").unwrap();
    }
    let committed: Vec<String> = lines("declared.txt").iter().map(|fields| fields.join("\t")).collect();
    assert_eq!(committed, computed);
}

/// token = HMAC(token key, scheme || kind || path || salt || value), written out from the description.
#[test]
fn the_committed_tokens_follow_their_description() {
    for fields in lines("tokens.txt") {
        let (path, kind, value) = (unhex(&fields[4]), fields[5].parse().unwrap(), unhex(&fields[6]));
        let (bits, spread): (u32, u16) = (fields[2].parse().unwrap(), fields[3].parse().unwrap());
        let kept = (1u64 << bits) - 1;
        let upper = if bits == 63 { 0 } else { described_prf(9, &path, 0, b"") & !kept };
        let token = |salt| TOKEN_BIT | upper | described_prf(kind, &path, salt, &value) & kept;
        assert_eq!(hex_tokens(&(0..spread).map(token).collect::<Vec<_>>()), fields[7], "{}", fields[0]);
    }
}

fn described_prf(kind: u8, path: &[u8], salt: u16, value: &[u8]) -> u64 {
    let mac = |key: &[u8], message: &[u8]| {
        let mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap().chain_update(message);
        mac.finalize().into_bytes().to_vec()
    };
    let prk = mac(&KEYRING, &[0x81; 32]);
    let key = mac(&prk, b"pgseal/v1/index/token\x01");
    let mut message = vec![1, kind];
    message.extend((path.len() as u32).to_be_bytes());
    message.extend(path);
    message.extend(salt.to_be_bytes());
    message.extend((value.len() as u32).to_be_bytes());
    message.extend(value);
    u64::from_be_bytes(mac(&key, &message)[..8].try_into().unwrap())
}

#[test]
fn committed_tokens_of_different_leaves_differ() {
    let full: Vec<_> = lines("tokens.txt").into_iter().filter(|f| f[2] == "63" && f[3] == "1").collect();
    for (at, a) in full.iter().enumerate() {
        for b in &full[..at] {
            assert_eq!(a[7] == b[7], a[4..7] == b[4..7], "{} {}", a[0], b[0]);
        }
    }
}

#[test]
fn markers_never_look_like_tokens_and_name_keyring_and_version() {
    assert_eq!(marker(1, 0), 0x1_0000);
    assert_eq!(marker(KEYRING_ID, 7), 0x0123_4567_0007);
    assert_eq!(marker(i32::MAX, u16::MAX), 0x7fff_ffff_ffff);
}

#[test]
fn a_text_value_has_the_token_of_the_whole_text() {
    let (key, policy) = (index_key(1), policy(1));
    let tokenizer = Tokenizer { key: &key, policy: &policy };
    let expected = TOKEN_BIT | described_prf(Kind::String as u8, b"", 0, b"John Smith");
    assert_eq!(tokenizer.text(b"John Smith").unwrap(), [expected]);
    let whole = TextQuery { accessor: Accessor::Whole, steps: Vec::new(), text: &b"John Smith"[..] };
    let leaves = whole.leaves().unwrap();
    assert_eq!(tokenizer.query(&leaves[0]), Some(vec![expected]));
}

fn key_path(key: &str) -> Vec<u8> {
    [&[1][..], &(key.len() as u32).to_be_bytes(), key.as_bytes()].concat()
}

fn described_bucket(key: &str, level: u8, number: u64) -> u64 {
    TOKEN_BIT | described_prf(8, &key_path(key), 0, &[&[level][..], &number.to_be_bytes()].concat())
}

#[test]
fn a_number_in_a_declared_range_has_tokens_of_its_buckets_only() {
    let policy =
        Policy::from_paths(&[r#"{"path": "$.age", "range": {"min": 0, "max": 150, "step": 1}}"#]).unwrap();
    let tokenizer = Tokenizer { key: &index_key(1), policy: &policy };
    let tokens =
        |number: Json| tokenizer.document(&jsonb(&Json::Object(vec![("age".into(), number)]))).unwrap();
    let mut buckets: Vec<u64> = [(0, 52), (1, 13), (2, 3), (3, 0)]
        .map(|(level, number)| described_bucket("age", level, number))
        .into();
    buckets.sort_unstable();
    assert_eq!(tokens(Json::Number("52".into())), buckets);
    // Arrays on the way do not count, and a fraction falls into the step it has reached.
    assert_eq!(tokens(Json::Array(vec![Json::Number("52.9".into())])), buckets);
    assert_eq!(tokens(Json::Number("-1".into())), [described_bucket("age", 0xFE, 0)]);
    assert_eq!(tokens(Json::Number("151".into())), [described_bucket("age", 0xFF, 0)]);
    let text = TOKEN_BIT | described_prf(Kind::String as u8, &key_path("age"), 0, b"52");
    assert_eq!(tokens(Json::String("52".into())), [text]);
}

#[test]
fn a_string_of_any_case_has_the_token_of_its_folded_form() {
    let policy = Policy::from_paths(&[r#"{"path": "$.city", "casefold": true}"#]).unwrap();
    let tokenizer = Tokenizer { key: &index_key(1), policy: &policy };
    let expected =
        TOKEN_BIT | described_prf(Kind::String as u8, &key_path("city"), 0, "strasse köln".as_bytes());
    for city in ["Straße KÖLN", "strasse köln"] {
        let document = jsonb(&Json::Object(vec![("city".into(), Json::String(city.into()))]));
        assert_eq!(tokenizer.document(&document).unwrap(), [expected], "{city}");
    }
}

#[test]
fn an_overlong_path_is_left_to_the_recheck_on_both_sides() {
    let policy = Policy::from_paths(&["$.**"]).unwrap();
    let tokenizer = Tokenizer { key: &index_key(1), policy: &policy };
    for (length, tokens) in [(MAX_PATH_BYTES - 5, 1), (MAX_PATH_BYTES - 4, 0)] {
        let document = jsonb(&Json::Object(vec![("k".repeat(length), Json::Null)]));
        assert_eq!(tokenizer.document(&document).unwrap().len(), tokens);
        assert_eq!(tokenizer.query(&query_leaves(&document).unwrap()[0]).is_some(), tokens == 1);
    }
}

// The jsonb walker against PostgreSQL's own bytes

type PlainLeaf = (Vec<Vec<u8>>, Vec<u8>, u8, Vec<u8>);

fn walked(bytes: &[u8]) -> Vec<PlainLeaf> {
    let mut found = Vec::new();
    let visit = |leaf: pgseal::core::jsonb::Leaf<'_>| {
        let keys = leaf.keys.iter().map(|key| key.to_vec()).collect();
        found.push((keys, leaf.path.to_vec(), leaf.kind as u8, leaf.value.to_vec()));
        Ok::<(), JsonbError>(())
    };
    walk(bytes, visit).unwrap();
    found.sort();
    found
}

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

// Hostile bytes

fn victim() -> Vec<u8> {
    let options = Options { context: Some(CONTEXT), pad: true, ..Options::default() };
    seal(head(Content::Text, 1), &[TOKEN_BIT | 1, TOKEN_BIT | 2, u64::MAX], b"John Smith", options)
}

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
        (with(0, 2), FormatError::UnknownFormat),
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
    let filter = a_filter(&vec![vec![marker(KEYRING_ID, 0), u64::MAX]], b"John Smith");
    assert!(format_error(&filter).is_some());
    assert_eq!(Filter::parse(&victim()).err(), Some(FormatError::UnknownContent));
    let mut posing = seal(head(Content::Text, 0), &[], b"John Smith", Options::default());
    (posing[3], posing[14]) = (filter::CONTENT, QuestionKind::Contains as u8);
    let posing = Filter::parse(&posing).unwrap();
    assert_eq!(posing.open(&data_key(1), &KEYRING).err(), Some(OpenError::Authentication));
}

#[test]
fn a_filter_opens_only_as_it_was_sealed() {
    let bytes = a_filter(&vec![], b"John Smith");
    let opens = |bytes: &[u8], key: &DataKey, keyring| Filter::parse(bytes).unwrap().open(key, keyring);
    assert_eq!(opens(&bytes, &data_key(1), &KEYRING).unwrap().as_slice(), b"John Smith");
    assert!(opens(&bytes, &data_key(2), &KEYRING).is_err());
    assert!(opens(&bytes, &data_key(1), &[0; 16]).is_err());
    let sealed = (4..10).chain([14]).chain(16..bytes.len());
    for at in sealed {
        let mut altered = bytes.clone();
        altered[at] ^= 3;
        assert!(Filter::parse(&altered).is_ok_and(|f| f.open(&data_key(1), &KEYRING).is_err()), "byte {at}");
    }
}

fn a_filter(groups: &Groups, query: &[u8]) -> Vec<u8> {
    let parts = filter::Parts {
        keyring: KEYRING_ID,
        binding: Binding::Fixed,
        data_version: 1,
        index_version: 1,
        groups,
    };
    filter::seal(&data_key(1), &KEYRING, &Question::Contains(query), &parts).unwrap()
}

// Sealing

fn nonce(value: &[u8]) -> &[u8] {
    let tokens = usize::from(u16::from_be_bytes([value[12], value[13]]));
    &value[16 + 8 * tokens..][..16]
}

#[test]
fn a_bound_value_keeps_its_context_under_the_next_key() {
    let old = Envelope::parse(&victim()).unwrap().open(&data_key(1), &KEYRING).unwrap();
    let next = Head { data_version: 2, ..head(Content::Text, 1) };
    let bytes = envelope::reseal(&data_key(2), &KEYRING, next, &[u64::MAX], &old, old.content()).unwrap();
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
        let start = |content| [1, 1, 0, content, 0, 0, 0, 1, 0, 1, 0, 1, 0];
        for start in [&[][..], &start(4), &start(5)] {
            let bytes = [start, &bytes].concat();
            if let Ok(value) = Envelope::parse(&bytes) {
                prop_assert!(value.tokens().all(|token| token >= TOKEN_BIT));
                prop_assert!(value.open(&data_key(1), &KEYRING).is_err());
            }
            if let Ok(filter) = Filter::parse(&bytes) {
                prop_assert_eq!(filter.groups().count(), filter.group_count());
                prop_assert!(filter.open(&data_key(1), &KEYRING).is_err());
            }
        }
    }

    #[test]
    fn no_stored_policy_makes_the_parser_panic(stored in any_policy()) {
        let _ = Policy::from_json(&stored);
    }

    #[test]
    fn no_path_makes_the_parser_panic(path in r#"\$?([.*"$\[\]\\ aé]|\.\*|\."|\\u00){0,8}"#) {
        let _ = Policy::from_paths(&[path]);
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

// Never fewer rows

/// What a session knows of index key versions 1 and 2 when it makes a filter.
#[derive(Debug, Clone, Copy)]
enum Known {
    None,
    First,
    Both,
    /// Version 1 no longer makes tokens.
    SecondOnly,
}

#[derive(Debug)]
struct History {
    policies: [Policy; 2],
    /// 0 is not tokenised, 3 is one that no session knows yet.
    document_version: u16,
    known: Known,
}

impl History {
    fn tokens(&self, document: &Json) -> Vec<u64> {
        let version = self.document_version;
        let tokens =
            |policy| Tokenizer { key: &index_key(version), policy }.document(&jsonb(document)).unwrap();
        self.policies.get(usize::from(version).wrapping_sub(1)).map(tokens).unwrap_or_default()
    }

    fn with_versions<T>(&self, ask: impl FnOnce(&[QueryVersion<'_>]) -> T) -> T {
        let keys = [index_key(1), index_key(2)];
        let tokenizer = |at: usize| Some(Tokenizer { key: &keys[at], policy: &self.policies[at] });
        let first = QueryVersion { version: 1, tokenizer: tokenizer(0) };
        let second = QueryVersion { version: 2, tokenizer: tokenizer(1) };
        match self.known {
            Known::None => ask(&[]),
            Known::First => ask(&[first]),
            Known::Both => ask(&[first, second]),
            Known::SecondOnly => ask(&[QueryVersion { tokenizer: None, ..first }, second]),
        }
    }

    fn admits(&self, groups: &Groups, document: &Json) -> bool {
        let bytes = a_filter(groups, b"");
        let tokens = self.tokens(document);
        let marker = marker(KEYRING_ID, self.document_version);
        Filter::parse(&bytes).unwrap().admits(marker, |token| tokens.binary_search(&token).is_ok())
    }
}

fn any_history() -> impl Strategy<Value = History> {
    let path = prop::sample::select(vec!["$", "$.a", "$.a.b", "$.*", "$.b.**", "$.**", "$.\"\"", "$.ab"]);
    let rule = (path, prop::sample::select(vec![8u8, 20, 63]), prop::sample::select(vec![1u16, 3]));
    let policy = prop::collection::vec(rule, 0..4).prop_map(|rules| {
        let paths: Vec<_> = rules
            .iter()
            .map(|(path, bits, spread)| json!({"path": path, "bits": bits, "spread": spread}))
            .collect();
        Policy::from_json(&json!({"scheme": 1, "paths": paths})).unwrap()
    });
    // Nobody has written a version more than one beyond the newest that a session knows.
    let known = prop_oneof![
        (0..=1u16, Just(Known::None)),
        (0..=2u16, Just(Known::First)),
        (0..=3u16, Just(Known::Both)),
        (0..=3u16, Just(Known::SecondOnly)),
    ];
    ([policy.clone(), policy], known).prop_map(|(policies, (document_version, known))| History {
        policies,
        document_version,
        known,
    })
}

fn any_json() -> impl Strategy<Value = Json> {
    let scalar = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        prop::sample::select(vec!["0", "-0", "1", "1.0", "10", "1e1", "0.50", "-7"])
            .prop_map(|text| Json::Number(text.into())),
        prop::sample::select(vec!["", "x", "y", "é", "1"]).prop_map(|text| Json::String(text.into())),
    ];
    let key = prop::sample::select(vec!["a", "b", "ab", "a.b", ""]);
    scalar.prop_recursive(3, 24, 5, move |inner| {
        let members = prop::collection::vec((key.clone(), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Json::Array),
            members.prop_map(|members| Json::Object(
                members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

/// A part of the document, so that the query is often contained in it.
fn part(document: &Json, bits: &mut impl Iterator<Item = bool>) -> Json {
    let mut keep = || bits.next().unwrap_or(true);
    match document {
        Json::Array(elements) => {
            let kept: Vec<_> = elements.iter().filter(|_| keep()).collect();
            Json::Array(kept.into_iter().map(|element| part(element, bits)).collect())
        }
        Json::Object(members) => {
            let kept: Vec<_> = members.iter().filter(|_| keep()).collect();
            Json::Object(kept.into_iter().map(|(key, value)| (key.clone(), part(value, bits))).collect())
        }
        Json::Number(text) if !text.contains(['.', 'e']) => Json::Number(format!("{text}.00")),
        scalar => scalar.clone(),
    }
}

fn document_and_query() -> impl Strategy<Value = (Json, Json)> {
    let bits = prop::collection::vec(prop::bool::weighted(0.7), 0..30);
    let related = (any_json(), bits).prop_map(|(document, bits)| {
        let query = part(&document, &mut bits.into_iter());
        (document, query)
    });
    let scalar_of = any_json().prop_map(|element| (Json::Array(vec![element.clone()]), element));
    prop_oneof![4 => related, 1 => scalar_of, 1 => (any_json(), any_json())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_filter_admits_every_document_that_contains_its_query(
        (document, query) in document_and_query(),
        history in any_history(),
    ) {
        let asked = query_leaves(&jsonb(&query)).unwrap();
        let groups = history.with_versions(|versions| groups::groups(KEYRING_ID, versions, &asked));
        if contains(&document, &query) {
            prop_assert!(history.admits(&groups, &document));
        }
    }

    #[test]
    fn a_filter_of_alternatives_admits_what_contains_one_of_them(
        (document, query) in document_and_query(),
        others in prop::collection::vec(any_json(), 0..3),
        history in any_history(),
    ) {
        let alternatives: Vec<Json> = others.into_iter().chain([query]).collect();
        let asked: Vec<_> = alternatives.iter().map(|query| query_leaves(&jsonb(query)).unwrap()).collect();
        let groups = history.with_versions(|versions| groups::any_group(KEYRING_ID, versions, &asked));
        if alternatives.iter().any(|query| contains(&document, query)) {
            prop_assert!(history.admits(&groups, &document));
        }
    }

    #[test]
    fn the_walker_and_a_plain_recursive_walk_agree(document in any_json()) {
        let plain = |leaf: document::Leaf| (leaf.keys, leaf.path, leaf.kind as u8, leaf.value);
        let mut expected: Vec<PlainLeaf> = leaves(&document).into_iter().map(plain).collect();
        expected.sort();
        prop_assert_eq!(walked(&jsonb(&document)), expected);
    }
}

#[test]
fn a_filter_does_narrow() {
    let policy = Policy::from_paths(&["$.a"]).unwrap();
    let history = History { policies: [policy.clone(), policy], document_version: 2, known: Known::Both };
    let asked = query_leaves(&jsonb(&parse(r#"{"a":"x"}"#))).unwrap();
    let groups = history.with_versions(|versions| groups::groups(KEYRING_ID, versions, &asked));
    assert!(history.admits(&groups, &parse(r#"{"a":"x","b":1}"#)));
    for other in [r#"{"a":"y"}"#, r#"{"b":"x"}"#, r#"{"a":["x"]}"#, r#"{"a":{"a":"x"}}"#, r#""x""#, "{}"] {
        assert!(!history.admits(&groups, &parse(other)), "{other}");
    }
}

/// crypto.md 2.2: what `@>` said on PostgreSQL 15.
#[test]
fn the_reference_contains_what_postgresql_contains() {
    let cases = [
        (r#"["x","y"]"#, r#""x""#, true),
        (r#""x""#, r#""x""#, true),
        (r#""x""#, r#"["x"]"#, false),
        (r#"{"a":["x"]}"#, r#"{"a":"x"}"#, false),
        ("[1,2,2]", "[2,2,2]", true),
        (r#"[{"a":1},{"b":2}]"#, r#"[{"a":1,"b":2}]"#, false),
        (r#"{"a":{"z":1}}"#, r#"{"a":{}}"#, true),
        (r#"{"a":[1]}"#, r#"{"a":[]}"#, true),
        (r#"{"a":null}"#, "{}", true),
        ("[[1,2],[3]]", "[[1]]", true),
        ("[[1,2]]", "[1]", false),
        ("1", "1.0", true),
        ("-0", "0", true),
        (r#"{"a":1}"#, "[]", false),
    ];
    for (document, query, expected) in cases {
        assert_eq!(contains(&parse(document), &parse(query)), expected, "{document} @> {query}");
    }
}

#[test]
fn asking_for_one_of_nothing_admits_nothing() {
    let policy = Policy::from_paths(&["$.a"]).unwrap();
    let history = History { policies: [policy.clone(), policy], document_version: 0, known: Known::Both };
    let groups = history.with_versions(|versions| groups::any_group(KEYRING_ID, versions, &[]));
    assert!(!history.admits(&groups, &parse("{}")));
}

#[test]
fn one_document_cannot_make_a_filter_or_a_query_large() {
    let long = "k".repeat(100_000);
    let deep = (0..40)
        .fold(Json::Array(vec![Json::Null; 1000]), |inner, _| Json::Object(vec![(long.clone(), inner)]));
    assert!(query_leaves(&jsonb(&deep)).unwrap().is_empty());
    let wide = Json::Array((0..5000).map(|n| Json::Number(n.to_string())).collect());
    assert_eq!(query_leaves(&jsonb(&wide)).unwrap().len(), MAX_LEAVES);
}

#[test]
fn a_document_of_more_distinct_values_than_fit_is_refused() {
    let policy = Policy::from_paths(&["$"]).unwrap();
    let tokenizer = Tokenizer { key: &index_key(1), policy: &policy };
    let numbers =
        |count: usize| jsonb(&Json::Array((0..count).map(|n| Json::Number(n.to_string())).collect()));
    assert_eq!(tokenizer.document(&numbers(65_535)).unwrap().len(), 65_535);
    assert!(matches!(tokenizer.document(&numbers(65_536)), Err(token::TokenError::TooMany)));
}

/// JSON documents, what PostgreSQL's jsonb makes of them, and `@>`, each in the plainest way.
mod document {
    use super::{Kind, Value};

    #[derive(Debug, Clone)]
    pub enum Json {
        Null,
        Bool(bool),
        /// As it was written.
        Number(String),
        String(String),
        Array(Vec<Json>),
        /// Of a repeated key the last one counts.
        Object(Vec<(String, Json)>),
    }

    /// serde_json rounds numbers to f64, so they pass through it as marked strings.
    pub fn parse(text: &str) -> Json {
        let mut marked = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (length, number) = match first {
                '"' => (string_length(rest), false),
                '-' | '0'..='9' => {
                    (rest.find(|c| !"+-.eE0123456789".contains(c)).unwrap_or(rest.len()), true)
                }
                other => (other.len_utf8(), false),
            };
            let piece = &rest[..length];
            marked += &if number { format!("\"\\u0001{piece}\"") } else { piece.to_owned() };
            rest = &rest[length..];
        }
        from_value(serde_json::from_str(&marked).unwrap())
    }

    fn string_length(text: &str) -> usize {
        let mut escaped = true;
        let end = text.bytes().position(|byte| {
            let end = byte == b'"' && !escaped;
            // The opening quote counts as escaped.
            escaped = byte == b'\\' && !escaped;
            end
        });
        end.unwrap() + 1
    }

    fn from_value(value: Value) -> Json {
        match value {
            Value::String(text) => match text.strip_prefix('\u{1}') {
                Some(number) => Json::Number(number.into()),
                None => Json::String(text),
            },
            Value::Array(elements) => Json::Array(elements.into_iter().map(from_value).collect()),
            Value::Object(members) => {
                Json::Object(members.into_iter().map(|(k, v)| (k, from_value(v))).collect())
            }
            Value::Bool(value) => Json::Bool(value),
            _ => Json::Null,
        }
    }

    /// Sign, exponent of ten and digits without zeros at either end.
    pub fn decimal(text: &str) -> (bool, i32, String) {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let negative = whole.starts_with('-');
        let digits = [whole.trim_start_matches('-'), fraction].concat();
        let trimmed = digits.trim_end_matches('0');
        if trimmed.trim_start_matches('0').is_empty() {
            return (false, 0, String::new());
        }
        let exponent =
            exponent.parse::<i32>().unwrap() - fraction.len() as i32 + (digits.len() - trimmed.len()) as i32;
        (negative, exponent, trimmed.trim_start_matches('0').into())
    }

    fn canonical(text: &str) -> Vec<u8> {
        let (negative, exponent, digits) = decimal(text);
        [&[u8::from(negative)][..], &exponent.to_be_bytes(), digits.as_bytes()].concat()
    }

    /// Members as jsonb keeps them: the last of a repeated key, shorter keys first.
    pub fn members(object: &[(String, Json)]) -> Vec<(&str, &Json)> {
        let last = |(at, (key, _)): &(usize, &(String, Json))| {
            !object[at + 1..].iter().any(|(later, _)| later == key)
        };
        let mut kept: Vec<_> =
            object.iter().enumerate().filter(last).map(|(_, (k, v))| (k.as_str(), v)).collect();
        kept.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
        kept
    }

    #[derive(Clone)]
    pub struct Leaf {
        pub keys: Vec<Vec<u8>>,
        pub path: Vec<u8>,
        pub kind: Kind,
        pub value: Vec<u8>,
    }

    pub fn leaves(document: &Json) -> Vec<Leaf> {
        let root = Leaf { keys: vec![], path: vec![], kind: Kind::Null, value: vec![] };
        let mut found = Vec::new();
        match document {
            Json::Array(_) | Json::Object(_) => visit(document, &root, &mut found),
            scalar => visit(scalar, &Leaf { path: vec![2], ..root }, &mut found),
        }
        found
    }

    fn visit(json: &Json, at: &Leaf, found: &mut Vec<Leaf>) {
        let mut leaf = |kind, value: &[u8]| found.push(Leaf { kind, value: value.to_vec(), ..at.clone() });
        match json {
            Json::Null => leaf(Kind::Null, b""),
            Json::Bool(value) => leaf(if *value { Kind::True } else { Kind::False }, b""),
            Json::Number(text) => leaf(Kind::Number, &canonical(text)),
            Json::String(text) => leaf(Kind::String, text.as_bytes()),
            Json::Array(elements) => {
                let below = Leaf { path: [&at.path[..], &[2]].concat(), ..at.clone() };
                elements.iter().for_each(|element| visit(element, &below, found));
            }
            Json::Object(object) => members(object).into_iter().for_each(|(key, value)| {
                let path = [&at.path[..], &[1], &(key.len() as u32).to_be_bytes(), key.as_bytes()].concat();
                let keys = at.keys.iter().cloned().chain([key.into()]).collect();
                visit(value, &Leaf { path, keys, ..at.clone() }, found);
            }),
        }
    }

    /// `document @> query`: at the top an array also contains a bare scalar.
    pub fn contains(document: &Json, query: &Json) -> bool {
        match (document, query) {
            (Json::Array(elements), query) if !query.is_container() => {
                elements.iter().any(|e| below(e, query))
            }
            _ => below(document, query),
        }
    }

    fn below(document: &Json, query: &Json) -> bool {
        match (document, query) {
            (Json::Object(has), Json::Object(asks)) => {
                let has = members(has);
                members(asks)
                    .into_iter()
                    .all(|(key, asked)| has.iter().any(|(k, v)| *k == key && below(v, asked)))
            }
            (Json::Array(has), Json::Array(asks)) => {
                asks.iter().all(|asked| has.iter().any(|e| below(e, asked)))
            }
            (Json::Number(a), Json::Number(b)) => decimal(a) == decimal(b),
            (Json::String(a), Json::String(b)) => a == b,
            (Json::Bool(a), Json::Bool(b)) => a == b,
            (Json::Null, Json::Null) => true,
            _ => false,
        }
    }

    impl Json {
        pub fn is_container(&self) -> bool {
            matches!(self, Json::Array(_) | Json::Object(_))
        }
    }
}

/// Writes jsonb as jsonb_util.c does; checked against PostgreSQL's own bytes above.
mod encode {
    use super::document::{Json, decimal, members};

    const SCALAR_ARRAY: u32 = 0x5000_0000;
    const ARRAY: u32 = 0x4000_0000;
    const OBJECT: u32 = 0x2000_0000;
    const HAS_OFFSET: u32 = 0x8000_0000;

    pub fn jsonb(document: &Json) -> Vec<u8> {
        match document.is_container() {
            true => child(document).1,
            false => container(SCALAR_ARRAY, 1, vec![child(document)]),
        }
    }

    fn child(json: &Json) -> (u32, Vec<u8>) {
        match json {
            Json::String(text) => (0, text.as_bytes().to_vec()),
            Json::Number(text) => (0x1000_0000, numeric(text)),
            Json::Bool(false) => (0x2000_0000, vec![]),
            Json::Bool(true) => (0x3000_0000, vec![]),
            Json::Null => (0x4000_0000, vec![]),
            Json::Array(elements) => {
                (0x5000_0000, container(ARRAY, elements.len(), elements.iter().map(child).collect()))
            }
            Json::Object(object) => {
                let members = members(object);
                let keys = members.iter().map(|(key, _)| (0, key.as_bytes().to_vec()));
                let children = keys.chain(members.iter().map(|(_, value)| child(value))).collect();
                (0x5000_0000, container(OBJECT, members.len(), children))
            }
        }
    }

    fn container(kind: u32, count: usize, children: Vec<(u32, Vec<u8>)>) -> Vec<u8> {
        let mut out = (kind | count as u32).to_le_bytes().to_vec();
        let mut data = Vec::new();
        for (at, (kind, bytes)) in children.into_iter().enumerate() {
            let start = data.len();
            if kind == 0x1000_0000 || kind == 0x5000_0000 {
                data.resize(start.next_multiple_of(4), 0);
            }
            data.extend(bytes);
            // Every 32nd entry holds where its data ends instead of how long it is.
            let number =
                if at % 32 == 0 { HAS_OFFSET | data.len() as u32 } else { (data.len() - start) as u32 };
            out.extend((kind | number).to_le_bytes());
        }
        out.extend(data);
        out
    }

    fn numeric(text: &str) -> Vec<u8> {
        let (negative, exponent, digits) = decimal(text);
        let (weight, groups) = base_10000(exponent, &digits);
        let scale = scale(text);
        let mut out = match scale <= 63 && (-64..=63).contains(&weight) {
            true => (0x8000 | u16::from(negative) << 13 | scale << 7 | weight as u16 & 0x7F)
                .to_le_bytes()
                .to_vec(),
            false => [u16::from(negative) << 14 | scale, weight as u16].map(u16::to_le_bytes).concat(),
        };
        out.extend(groups.into_iter().flat_map(u16::to_le_bytes));
        let length = (out.len() as u32 + 4) << 2;
        [&length.to_le_bytes()[..], &out].concat()
    }

    fn base_10000(exponent: i32, digits: &str) -> (i16, Vec<u16>) {
        if digits.is_empty() {
            return (0, Vec::new());
        }
        let shift = exponent.rem_euclid(4);
        let digits = digits.to_owned() + &"0".repeat(shift as usize);
        let padded = "0".repeat(digits.len().next_multiple_of(4) - digits.len()) + &digits;
        let groups: Vec<u16> =
            (0..padded.len() / 4).map(|i| padded[4 * i..4 * i + 4].parse().unwrap()).collect();
        ((exponent - shift) as i16 / 4 + groups.len() as i16 - 1, groups)
    }

    /// Digits after the point that jsonb remembers to print.
    fn scale(text: &str) -> u16 {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i32);
        (fraction - exponent.parse::<i32>().unwrap()).max(0) as u16
    }
}
