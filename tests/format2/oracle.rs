//! Random documents and questions: what is decided must be so, and what is so must be admitted.

use pgseal::core::between::Between;
use pgseal::core::fold::fold;
use pgseal::core::range::{Bounds, Decimal, Domain, Scalar};
use pgseal::core::text_query::{Accessor, Link, TextQuery};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;

const CASES: usize = 4_000;

/// What a session knows of index key versions 1 and 2 when it makes a filter, and under which one a row was written.
#[derive(Debug)]
struct History {
    policies: [Policy; 2],
    row_version: u16,
    /// Version 1 makes no tokens any more.
    is_first_retired: bool,
    knows_second: bool,
}

impl History {
    fn with_versions<T>(&self, ask: impl FnOnce(&[QueryVersion<'_>]) -> T) -> T {
        let first = (!self.is_first_retired).then(|| tokenizer(1, &self.policies[0]));
        let first = QueryVersion { version: 1, tokenizer: first };
        let second = QueryVersion { version: 2, tokenizer: Some(tokenizer(2, &self.policies[1])) };
        if self.knows_second { ask(&[first, second]) } else { ask(&[first]) }
    }

    fn row(&self, document: &Json) -> Vec<u8> {
        match self.row_version {
            0 => seal(head(Content::Jsonb, 0), &TokenSet::NONE, &jsonb(document)),
            version => row(version, &self.policies[usize::from(version) - 1], document),
        }
    }

    fn filter(&self, question: &Question<Vec<u8>>) -> Vec<u8> {
        self.with_versions(|versions| filter(question, versions))
    }
}

fn any_history() -> impl Strategy<Value = History> {
    let paths = [
        "$",
        "$.a",
        "$.a",
        "$.b",
        "$.a.b",
        "$.*",
        "$.**",
        "$.**",
        r#"{"path": "$.a", "bits": 8}"#,
        r#"{"path": "$.**", "bits": 20, "spread": 2}"#,
        r#"{"path": "$.b", "spread": 3}"#,
        r#"{"path": "$.**", "spread": 2}"#,
        r#"{"path": "$.a", "casefold": true}"#,
        r#"{"path": "$.**", "casefold": true}"#,
        r#"{"path": "$.b", "range": {"min": 0, "max": 9, "step": 1}}"#,
        r#"{"path": "$.**", "range": {"min": "2020-01-01", "max": "2030-01-01", "step": "1 day"}}"#,
    ];
    let scheme = prop_oneof![1 => Just(Scheme::Narrow), 5 => Just(Scheme::Decide)];
    let paths = prop::collection::vec(prop::sample::select(paths.to_vec()), 1..4);
    let policy = (scheme, paths).prop_map(|(scheme, paths)| Policy::from_paths(scheme, &paths).unwrap());
    let policy = policy.boxed();
    ([policy.clone(), policy], 0..=2u16, prop::bool::weighted(0.1), any::<bool>()).prop_map(
        |(policies, row_version, is_first_retired, knows_second)| History {
            policies,
            row_version,
            is_first_retired,
            knows_second: knows_second || row_version == 2,
        },
    )
}

fn any_scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::Bool),
        3 => prop::sample::select(vec!["0", "7", "7.0", "7.00", "5", "5.5", "-7"])
            .prop_map(|text| Json::Number(text.into())),
        4 => prop::sample::select(vec!["", "x", "X", "y", "7", "7.0", "true", "null", "{}", "[x", "2024-01-01"])
            .prop_map(|text| Json::String(text.into())),
    ]
}

fn any_json() -> impl Strategy<Value = Json> {
    let key = prop::sample::select(vec!["a", "a", "b", "0"]);
    any_scalar().prop_recursive(3, 16, 4, move |inner| {
        let members = prop::collection::vec((key.clone(), inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Json::Array),
            members.prop_map(|members| {
                Json::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
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
        scalar => scalar.clone(),
    }
}

/// What parts of the one give, put where parts of the other are: the same scalars elsewhere.
fn document_and_query() -> impl Strategy<Value = (Json, Json)> {
    let bits = || prop::collection::vec(prop::bool::weighted(0.6), 0..30);
    let related = (any_json(), bits()).prop_map(|(document, bits)| {
        let query = part(&document, &mut bits.into_iter());
        (document, query)
    });
    let element = (prop::collection::vec(any_json(), 1..4), bits()).prop_map(|(elements, bits)| {
        let query = part(&elements[0], &mut bits.into_iter());
        (Json::Array(elements), query)
    });
    let wrapped = (any_json(), bits()).prop_map(|(document, bits)| {
        let query = Json::Array(vec![part(&document, &mut bits.into_iter())]);
        (document, query)
    });
    let merged = prop::collection::vec(any_json(), 2..4).prop_map(|elements| {
        let all = elements.iter().flat_map(|element| match element {
            Json::Object(members) => members.clone(),
            _ => Vec::new(),
        });
        (Json::Array(elements.clone()), Json::Array(vec![Json::Object(all.collect())]))
    });
    prop_oneof![4 => related, 1 => element, 1 => wrapped, 1 => merged, 2 => (any_json(), any_json())]
}

fn folded(json: &Json) -> Json {
    match json {
        Json::String(text) => Json::String(String::from_utf8(fold(text.as_bytes()).unwrap()).unwrap()),
        Json::Array(elements) => Json::Array(elements.iter().map(folded).collect()),
        Json::Object(members) => {
            Json::Object(members.iter().map(|(key, value)| (key.clone(), folded(value))).collect())
        }
        scalar => scalar.clone(),
    }
}

/// Asks each case, of which `answer` is what jsonb says, and counts what is decided and what is so.
fn ask<C: std::fmt::Debug>(
    cases: impl Strategy<Value = C>,
    ask: impl Fn(&C) -> (Question<Vec<u8>>, &Json, bool),
) -> (usize, usize) {
    let cases = (cases, any_history());
    let mut runner = TestRunner::deterministic();
    let (mut decided, mut so) = (0, 0);
    for _ in 0..CASES {
        let (case, history) = cases.new_tree(&mut runner).unwrap().current();
        let (question, document, answer) = ask(&case);
        let (filter, row) = (history.filter(&question), history.row(document));
        let is_decided = is_decided(&filter, &row);
        assert!(answer || !is_decided, "{case:?} {history:?}");
        assert!(!answer || is_admitted(&filter, &row), "{case:?} {history:?}");
        decided += usize::from(is_decided);
        so += usize::from(answer);
    }
    eprintln!("{decided} decided of {so} that are so, of {CASES}");
    (decided, so)
}

#[test]
fn containment_is_decided_only_where_it_is_so() {
    let (decided, so) = ask(document_and_query(), |(document, query)| {
        (Question::Contains(jsonb(query)), document, contains(document, query))
    });
    assert!(decided > 100 && so > 500, "{decided} of {so}");
}

#[test]
fn alternatives_are_decided_only_where_one_is_so() {
    let others = prop::collection::vec(any_json(), 0..3);
    let cases = (document_and_query(), others).prop_map(|((document, query), mut others)| {
        others.push(query);
        (document, others)
    });
    let (decided, so) = ask(cases, |(document, queries)| {
        let asked = queries.iter().map(|query| Some(jsonb(query))).collect();
        (Question::ContainsAny(asked), document, queries.iter().any(|query| contains(document, query)))
    });
    assert!(decided > 50 && so > 500, "{decided} of {so}");
}

#[test]
fn containment_whatever_the_case_is_decided_only_where_so() {
    let (decided, so) = ask(document_and_query(), |(document, query)| {
        let answer = contains(&folded(document), &folded(query));
        (Question::Casefold(jsonb(query)), document, answer)
    });
    assert!(decided > 50 && so > 500, "{decided} of {so}");
}

/// How a text is reached, and what jsonb gives there.
#[derive(Debug, Clone)]
enum Way {
    Field(String),
    Element(i32),
    Path(Vec<String>),
    Chain(String, String),
    FieldElement(String, i32),
    ElementTwice(i32, i32),
}

impl Way {
    fn query(&self, texts: &[String]) -> TextQuery<Vec<u8>> {
        let bytes = |text: &String| text.clone().into_bytes();
        let digits = |at: &i32| at.to_string().into_bytes();
        let (accessor, steps) = match self {
            Way::Field(key) => (Accessor::Field, vec![bytes(key)]),
            Way::Element(at) => (Accessor::Element, vec![digits(at)]),
            Way::Path(steps) => (Accessor::Path, steps.iter().map(bytes).collect()),
            Way::Chain(key, then) => {
                let links = [key, then].map(|key| Link::Field(key.as_bytes()).encode());
                (Accessor::Chain, links.into())
            }
            Way::FieldElement(key, at) => {
                let links = [Link::Field(key.as_bytes()).encode(), Link::Element(&digits(at)).encode()];
                (Accessor::Chain, links.into())
            }
            Way::ElementTwice(at, then) => {
                let links = [at, then].map(|at| Link::Element(&digits(at)).encode());
                (Accessor::Chain, links.into())
            }
        };
        TextQuery::of_list(accessor, steps, texts.iter().map(|text| Some(bytes(text)))).unwrap()
    }

    fn text(&self, document: &Json) -> Option<String> {
        match self {
            Way::Field(key) => text(&field(document, key)?),
            Way::Element(at) => text(&element(document, *at)?),
            Way::Path(steps) => {
                let reached = steps.iter().try_fold(document.clone(), |json, step| match json {
                    Json::Object(_) => field(&json, step),
                    Json::Array(_) => element(&json, step.parse().ok()?),
                    _ => None,
                });
                text(&reached?)
            }
            Way::Chain(key, then) => text(&field(&field(document, key)?, then)?),
            Way::FieldElement(key, at) => text(&element(&field(document, key)?, *at)?),
            Way::ElementTwice(at, then) => text(&element(&element(document, *at)?, *then)?),
        }
    }
}

fn field(json: &Json, key: &str) -> Option<Json> {
    let Json::Object(members) = json else { return None };
    // Of a repeated key the last one counts.
    members.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone())
}

/// A scalar is an array of one.
fn element(json: &Json, at: i32) -> Option<Json> {
    let elements = match json {
        Json::Array(elements) => elements.clone(),
        Json::Object(_) => return None,
        scalar => vec![scalar.clone()],
    };
    let at = if at < 0 { elements.len().checked_sub(at.unsigned_abs() as usize)? } else { at as usize };
    elements.get(at).cloned()
}

fn text(json: &Json) -> Option<String> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => value.to_string(),
        Json::Number(text) | Json::String(text) => text.clone(),
        Json::Array(elements) if elements.is_empty() => "[]".into(),
        Json::Object(members) if members.is_empty() => "{}".into(),
        Json::Array(_) => "[...]".into(),
        Json::Object(_) => "{...}".into(),
    })
}

fn any_way() -> impl Strategy<Value = Way> {
    let key = || prop::sample::select(vec!["a", "b", "0"]).prop_map(str::to_owned);
    let step = prop::sample::select(vec!["a", "b", "0", "-1"]).prop_map(str::to_owned);
    prop_oneof![
        3 => key().prop_map(Way::Field),
        1 => (-1..2).prop_map(Way::Element),
        3 => prop::collection::vec(step, 0..3).prop_map(Way::Path),
        2 => (key(), key()).prop_map(|(key, then)| Way::Chain(key, then)),
        1 => (key(), -1..2).prop_map(|(key, at)| Way::FieldElement(key, at)),
        1 => (-1..2, -1..2).prop_map(|(at, then)| Way::ElementTwice(at, then)),
    ]
}

#[test]
fn a_text_in_a_document_is_decided_only_where_it_is_there() {
    let texts =
        vec!["", "x", "X", "7", "7.0", "7.00", "true", "false", "null", "{}", "[x", "5", "2024-01-01"];
    let texts = prop::collection::vec(prop::sample::select(texts).prop_map(str::to_owned), 1..3);
    let below = (prop::sample::select(vec!["a", "b", "0"]), prop_oneof![3 => any_scalar(), 1 => any_json()])
        .prop_map(|(key, json)| Json::Object(vec![(key.to_owned(), json)]));
    let document = prop_oneof![3 => below, 1 => any_json()];
    let cases = (document, any_way(), texts, prop::bool::weighted(0.7)).prop_map(
        |(document, way, mut texts, own)| {
            // Mostly the text that is there.
            texts.extend(way.text(&document).filter(|_| own));
            (document, way, texts)
        },
    );
    let (decided, so) = ask(cases, |(document, way, texts)| {
        let answer = way.text(document).is_some_and(|text| texts.contains(&text));
        (Question::Text(way.query(texts)), document, answer)
    });
    // Few: most of these are below arrays, on short tokens, or what a number prints as.
    assert!(decided > 20 && so > 300, "{decided} of {so}");
}

#[test]
fn a_whole_text_is_decided_only_where_it_is_equal() {
    let paths = ["$", r#"{"path": "$", "bits": 8}"#, r#"{"path": "$", "casefold": true}"#, "$.**"];
    let texts = ["", "x", "X", "7", "7.0", "true", "{}"];
    for (at, declared) in paths.into_iter().enumerate() {
        let policy = policy(&[declared]);
        for (text, asked) in texts.iter().flat_map(|text| texts.map(|asked| (*text, asked))) {
            let tokens = tokenizer(1, &policy).text(text.as_bytes()).unwrap();
            let row = seal(head(Content::Text, 1), &tokens, text.as_bytes());
            let question = Question::Text(TextQuery::of_one(Accessor::Whole, Vec::new(), asked.into()));
            let versions = [QueryVersion { version: 1, tokenizer: Some(tokenizer(1, &policy)) }];
            let decides = at == 0 || at == 3;
            assert_eq!(
                is_decided(&filter(&question, &versions), &row),
                decides && text == asked,
                "{text} {asked}"
            );
        }
    }
}

#[test]
fn a_range_is_never_decided() {
    let number = |digit: u8| Some(Scalar::Number(Decimal::new(vec![0, 0, 0, 0, 0, digit]).unwrap()));
    let bounds = Bounds { domain: Domain::Numbers, low: number(b'1'), high: number(b'9') };
    let question = Question::Between(Between::new("$.a", bounds).unwrap());
    let policy = policy(&[r#"{"path": "$.a", "range": {"min": 0, "max": 9, "step": 1}}"#]);
    let versions = [QueryVersion { version: 1, tokenizer: Some(tokenizer(1, &policy)) }];
    let (filter, row) = (filter(&question, &versions), row(1, &policy, &parse(r#"{"a": 5}"#)));
    assert!(is_admitted(&filter, &row) && !is_decided(&filter, &row));
}
