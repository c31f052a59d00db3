//! A filter never drops a row that contains its query.

use super::*;

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
        let tokens = |policy| tokens_of(version, policy, &jsonb(document));
        self.policies.get(usize::from(version).wrapping_sub(1)).map(tokens).unwrap_or_default()
    }

    fn with_versions<T>(&self, ask: impl FnOnce(&[QueryVersion<'_>]) -> T) -> T {
        let keys = [index_key(1), index_key(2)];
        let tokenizer = |at: usize| {
            Some(Tokenizer { version: at as u16 + 1, key: &keys[at], policy: &self.policies[at] })
        };
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
    let policy = narrow(&["$.a"]);
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
    let policy = narrow(&["$.a"]);
    let history = History { policies: [policy.clone(), policy], document_version: 0, known: Known::Both };
    let groups = history.with_versions(|versions| groups::any_group(KEYRING_ID, versions, &[]));
    assert!(!history.admits(&groups, &parse("{}")));
}

#[test]
fn one_document_cannot_make_a_filter_or_a_query_large() {
    let long = "k".repeat(100_000);
    let deep = (0..40)
        .fold(Json::Array(vec![Json::Null; 1000]), |inner, _| Json::Object(vec![(long.clone(), inner)]));
    assert!(query_leaves(&jsonb(&deep)).unwrap().leaves.is_empty());
    let wide = Json::Array((0..5000).map(|n| Json::Number(n.to_string())).collect());
    assert_eq!(query_leaves(&jsonb(&wide)).unwrap().leaves.len(), MAX_LEAVES);
}

#[test]
fn a_document_of_more_distinct_values_than_fit_is_refused() {
    let policy = narrow(&["$"]);
    let key = index_key(1);
    let tokenizer = tokenizer(&key, &policy);
    let numbers =
        |count: usize| jsonb(&Json::Array((0..count).map(|n| Json::Number(n.to_string())).collect()));
    assert_eq!(tokenizer.document(&numbers(65_535)).unwrap().count(), 65_535);
    assert!(matches!(tokenizer.document(&numbers(65_536)), Err(token::TokenError::TooMany)));
}
