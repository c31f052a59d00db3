//! Format 1 as it will be read for ever: committed values and tokens, hostile bytes, and the promise that a
//! filter never drops a row that contains its query.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod document;
mod encode;
mod filters;
mod hostile;
mod sealing;
mod tokens;
mod values;
mod walker;

use std::fs;
use std::io::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use pgseal::core::canonical::Kind;
use pgseal::core::envelope::{self, Envelope, OpenError, Options};
use pgseal::core::filter::{self, Binding, Filter};
use pgseal::core::groups::{self, Group, Groups, QueryVersion};
use pgseal::core::header::{Content, FormatError, Head, TOKEN_BIT, TokenSet};
use pgseal::core::jsonb::{JsonbError, walk};
use pgseal::core::kdf::{DataKey, IndexKey};
use pgseal::core::policy::{MAX_PATH_BYTES, Policy, Scheme};
use pgseal::core::question::{Question, QuestionKind};
use pgseal::core::secret::Secret;
use pgseal::core::text_form;
use pgseal::core::text_query::{Accessor, TextQuery};
use pgseal::core::token::{self, AskedTokens, MAX_LEAVES, Tokenizer, marker, query_leaves};
use proptest::prelude::*;
use serde_json::{Value, json};

use self::document::{Json, contains, leaves, parse};
use self::encode::jsonb;

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

fn narrow(paths: &[&str]) -> Policy {
    Policy::from_paths(Scheme::Narrow, paths).unwrap()
}

fn head(content: Content, index_version: u16) -> Head {
    Head { content, keyring: KEYRING_ID, data_version: 1, index_version, transit: false }
}

fn seal(head: Head, tokens: &[u64], plaintext: &[u8], options: Options<'_>) -> Vec<u8> {
    let tokens = TokenSet::of_keys(tokens);
    envelope::seal(&data_key(head.data_version), &KEYRING, head, &tokens, plaintext, options).unwrap()
}

/// Index key version 1 with a policy.
fn tokenizer<'a>(key: &'a IndexKey, policy: &'a Policy) -> Tokenizer<'a> {
    Tokenizer { version: 1, key, policy }
}

/// The tokens of a document under a version.
fn tokens_of(version: u16, policy: &Policy, document: &[u8]) -> Vec<u64> {
    let tokens = Tokenizer { version, key: &index_key(version), policy }.document(document).unwrap();
    tokens.keys().collect()
}

fn asked(tokens: &AskedTokens) -> Vec<u64> {
    tokens.keys().collect()
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

fn victim() -> Vec<u8> {
    let options = Options { context: Some(CONTEXT), pad: true, ..Options::default() };
    seal(head(Content::Text, 1), &[TOKEN_BIT | 1, TOKEN_BIT | 2, u64::MAX], b"John Smith", options)
}

fn one_group(keys: &[u64]) -> Groups {
    Groups::new(vec![Group { keys: keys.to_vec(), deciding: Vec::new() }], false)
}

fn a_filter(groups: &Groups, query: &[u8]) -> Vec<u8> {
    let parts =
        filter::Parts { keyring: KEYRING_ID, binding: Binding::Fixed, sealed_by: 1, newest_index: 1, groups };
    filter::seal(&index_key(1), &KEYRING, &Question::Contains(query), &parts).unwrap()
}
