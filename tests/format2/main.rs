//! Format 2, whose tokens decide: committed values and tokens, a second implementation of both, tokens that somebody planted or
//! that were cut short, and the promise that nothing is decided that jsonb would deny.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod collisions;
#[path = "../format1/document.rs"]
mod document;
#[path = "../format1/encode.rs"]
mod encode;
mod oracle;
mod planted;
mod rules;
mod values;

use std::fs;
use std::sync::LazyLock;

use pgseal::core::canonical::Kind;
use pgseal::core::envelope::{self, Envelope, Options};
use pgseal::core::filter::{self, Binding, Filter};
use pgseal::core::groups::{Groups, QueryVersion};
use pgseal::core::header::{Content, FormatError, Head, TokenSection, TokenSet, parse_head};
use pgseal::core::kdf::{DataKey, IndexKey};
use pgseal::core::policy::{Policy, Scheme};
use pgseal::core::question::Question;
use pgseal::core::secret::Secret;
use pgseal::core::token::{Tokenizer, marker};
use serde_json::Value;

use self::document::{Json, contains, parse};
use self::encode::jsonb;

const KEYRING: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\x4d\xef\x80\x11\x22\x33\x44\x55\x66\x77";
const KEYRING_ID: i32 = 0x0123_4567;

/// The root key is the byte 1, 32 times.
fn data_key() -> &'static DataKey {
    thread_local! {
        static KEY: &'static DataKey =
            Box::leak(Box::new(DataKey::derive(&Secret::from_slice(&[1; 32]).unwrap(), &KEYRING, None).unwrap()));
    }
    KEY.with(|key| *key)
}

/// The root key of version v is the byte 0x80 + v, 32 times.
static INDEX_KEYS: LazyLock<[IndexKey; 4]> = LazyLock::new(|| {
    [0x80, 0x81, 0x82, 0x83]
        .map(|byte| IndexKey::derive(&Secret::from_slice(&[byte; 32]).unwrap(), &KEYRING, None).unwrap())
});

fn index_key(version: u16) -> &'static IndexKey {
    &INDEX_KEYS[usize::from(version)]
}

fn policy(paths: &[&str]) -> Policy {
    Policy::from_paths(Scheme::Decide, paths).unwrap()
}

fn tokenizer(version: u16, policy: &Policy) -> Tokenizer<'_> {
    Tokenizer { version, key: index_key(version), policy }
}

fn head(content: Content, index_version: u16) -> Head {
    Head { content, keyring: KEYRING_ID, data_version: 1, index_version, transit: false }
}

fn seal(head: Head, tokens: &TokenSet, plaintext: &[u8]) -> Vec<u8> {
    envelope::seal(data_key(), &KEYRING, head, tokens, plaintext, Options::default()).unwrap()
}

/// A document as a row has it under this version.
fn row(version: u16, policy: &Policy, document: &Json) -> Vec<u8> {
    let document = jsonb(document);
    let tokens = tokenizer(version, policy).document(&document).unwrap();
    seal(head(Content::Jsonb, version), &tokens, &document)
}

/// A filter of somebody who knows these versions.
fn filter(question: &Question<Vec<u8>>, versions: &[QueryVersion<'_>]) -> Vec<u8> {
    let newest_index = versions.iter().map(|known| known.version).max().unwrap_or(0);
    filter_of(question, &question.groups(KEYRING_ID, versions).unwrap(), newest_index)
}

fn filter_of(question: &Question<Vec<u8>>, groups: &Groups, newest_index: u16) -> Vec<u8> {
    let (keyring, binding) = (KEYRING_ID, Binding::Fixed);
    let parts = filter::Parts { keyring, binding, sealed_by: 1, newest_index, groups };
    filter::seal(index_key(1), &KEYRING, question, &parts).unwrap()
}

/// What the exact half does with a row before it opens it.
fn is_decided(filter: &[u8], row: &[u8]) -> bool {
    let (head, section) = parse_head(row).unwrap();
    section.decides()
        && Filter::parse(filter).unwrap().is_decided_by(&row[section.tokens()])
        && index_key(head.index_version).vouches_for(head.index_version, section_of(row, section))
}

/// What the index does with it.
fn is_admitted(filter: &[u8], row: &[u8]) -> bool {
    let (head, section) = parse_head(row).unwrap();
    let marker = marker(head.keyring, head.index_version);
    Filter::parse(filter).unwrap().admits(marker, |key| section.has_key(&row[section.tokens()], key))
}

/// Tokens and tag.
fn section_of(row: &[u8], section: TokenSection) -> &[u8] {
    &row[section.tokens().start..section.end()]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}
