//! Tokens and filters.

use std::hint::black_box;

use pgseal::core::envelope::{self, Options};
use pgseal::core::filter::{self, Binding, Filter, Parts};
use pgseal::core::groups::QueryVersion;
use pgseal::core::header::{Content, parse_head};
use pgseal::core::kdf::IndexKey;
use pgseal::core::policy::{Policy, Scheme};
use pgseal::core::question::Question;
use pgseal::core::token::{Tokenizer, marker};

use super::{KEYRING, KEYRING_ID, Operation, data_key, document, head, index_key, jsonb, operation, parse};

const PATHS: [&str; 6] = ["$.name", "$.diagnosis", "$.age", "$.ward", "$.new", "$.tags"];
const RANGE: &str = r#"{"path": "$.age", "range": {"min": 0, "max": 127, "step": 1}}"#;

/// What searches are made with.
#[derive(Clone, Copy)]
struct Searched {
    key: &'static IndexKey,
    policy: &'static Policy,
}

impl Searched {
    fn new(paths: &[&str]) -> Self {
        let policy = Policy::from_paths(Scheme::Decide, paths).unwrap();
        Searched { key: index_key(), policy: Box::leak(Box::new(policy)) }
    }

    fn tokenizer(self) -> Tokenizer<'static> {
        Tokenizer { version: 1, key: self.key, policy: self.policy }
    }

    fn filter(self, question: &Question<&[u8]>) -> Vec<u8> {
        let versions = [QueryVersion { version: 1, tokenizer: Some(self.tokenizer()) }];
        let groups = question.groups(KEYRING_ID, &versions).unwrap();
        let (keyring, binding) = (KEYRING_ID, Binding::Fixed);
        let parts = Parts { keyring, binding, sealed_by: 1, newest_index: 1, groups: &groups };
        filter::seal(self.key, &KEYRING, question, &parts).unwrap()
    }

    fn row(self) -> Vec<u8> {
        let document = document(1_000);
        let tokens = self.tokenizer().document(&document).unwrap();
        let head = head(Content::Jsonb);
        envelope::seal(data_key(), &KEYRING, head, &tokens, &document, Options::default()).unwrap()
    }
}

pub fn operations() -> Vec<Operation> {
    vec![
        operation("tokens of 6 paths, 7 scalars", makes_tokens(&PATHS)),
        operation("tokens of a number in a range of 128 steps", makes_tokens(&[RANGE])),
        operation("make a filter of 2 scalars", makes_filter()),
        operation("open what a filter asks", opens_filter()),
        operation("look for a filter's tokens in a row", admits()),
        operation("decide a row by its tokens", decides()),
    ]
}

fn asked() -> Vec<u8> {
    jsonb(&parse(r#"{"name":"Mary Jones","diagnosis":"asthma"}"#))
}

fn makes_tokens(paths: &[&str]) -> impl FnMut() + use<> {
    let (searched, document) = (Searched::new(paths), document(1_000));
    move || {
        black_box(searched.tokenizer().document(black_box(&document)).unwrap());
    }
}

fn makes_filter() -> impl FnMut() {
    let (searched, asked) = (Searched::new(&PATHS), asked());
    move || {
        black_box(searched.filter(&Question::Contains(black_box(&asked))));
    }
}

fn opens_filter() -> impl FnMut() {
    let searched = Searched::new(&PATHS);
    let filter = searched.filter(&Question::Contains(&asked()));
    move || {
        let filter = Filter::parse(black_box(&filter)).unwrap();
        let opened = filter.open(searched.key, &KEYRING).unwrap();
        assert!(black_box(Question::decode(filter.kind(), &opened)).unwrap().is_some());
    }
}

fn admits() -> impl FnMut() {
    let searched = Searched::new(&PATHS);
    let (filter, row) = (searched.filter(&Question::Contains(&asked())), searched.row());
    move || {
        let (head, section) = parse_head(black_box(&row)).unwrap();
        let marker = marker(head.keyring, head.index_version);
        let filter = Filter::parse(black_box(&filter)).unwrap();
        assert!(filter.admits(marker, |key| section.has_key(&row[section.tokens()], key)));
    }
}

fn decides() -> impl FnMut() {
    let searched = Searched::new(&PATHS);
    let (filter, row) = (searched.filter(&Question::Contains(&asked())), searched.row());
    move || {
        let (head, section) = parse_head(black_box(&row)).unwrap();
        let filter = Filter::parse(black_box(&filter)).unwrap();
        assert!(filter.is_decided_by(&row[section.tokens()]));
        let vouched = &row[section.tokens().start..section.end()];
        assert!(searched.key.vouches_for(head.index_version, vouched));
    }
}
