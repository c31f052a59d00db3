//! What decides and what does not, with a counterexample for each simpler rule.

use pgseal::core::text_query::{Accessor, Link, TextQuery};

use super::*;

fn decides(declared: &[&str], question: &Question<Vec<u8>>, document: &str) -> bool {
    let policy = policy(declared);
    let versions = [QueryVersion { version: 1, tokenizer: Some(tokenizer(1, &policy)) }];
    let (filter, row) = (filter(question, &versions), row(1, &policy, &parse(document)));
    assert!(is_admitted(&filter, &row), "{document}");
    is_decided(&filter, &row)
}

fn contained(declared: &[&str], query: &str, document: &str) -> bool {
    decides(declared, &Question::Contains(jsonb(&parse(query))), document)
}

#[test]
fn scalars_below_keys_and_directly_in_arrays_decide() {
    for (query, document) in [
        (r#"{"a":"x"}"#, r#"{"a":"x","b":1}"#),
        (r#"{"a":{"b":1.0,"c":null},"d":true}"#, r#"{"a":{"b":1,"c":null},"d":true}"#),
        (r#"{"t":["a","b","a"]}"#, r#"{"t":["b","a","c"]}"#),
        (r#"{"t":["a"],"k":"x"}"#, r#"{"t":["b","a"],"k":"x"}"#),
        (r#"["x","y"]"#, r#"["y","x"]"#),
        (r#"[{"a":1},{"b":2}]"#, r#"[{"a":1,"b":2}]"#),
        (r#"[[1]]"#, r#"[[2,1]]"#),
        (r#"{"a":[{"b":{"c":[7]}}]}"#, r#"{"a":[{"b":{"c":[8,7]}}]}"#),
        (r#""x""#, r#"["y","x"]"#),
        (r#""x""#, r#""x""#),
        (r#"{"a":"7"}"#, r#"{"a":"7"}"#),
    ] {
        assert!(contained(&["$.**"], query, document), "{query} {document}");
    }
}

/// Of each query a document that has the scalars and does not contain it, or one that has none.
#[test]
fn what_wants_several_scalars_below_one_element_does_not_decide() {
    for (query, document) in [
        (r#"[{"a":1,"b":2}]"#, r#"[{"a":1},{"b":2}]"#),
        (r#"[["a","b"]]"#, r#"[["a"],["b"]]"#),
        (r#"{"t":[{"a":1,"b":2}]}"#, r#"{"t":[{"a":1},{"b":2}]}"#),
        (r#"{"a":1,"b":{}}"#, r#"{"a":1}"#),
        (r#"{"a":1,"b":[]}"#, r#"{"a":1}"#),
        (r#"["x",[]]"#, r#"["x"]"#),
    ] {
        assert!(!contains(&parse(document), &parse(query)), "{query} {document}");
        assert!(!contained(&["$.**"], query, document), "{query} {document}");
    }
    for all in ["{}", "[]"] {
        assert!(!contained(&["$.**"], all, r#"{"a":1}"#), "{all}");
    }
}

#[test]
fn a_scalar_document_is_told_from_an_array_of_it() {
    let policy = policy(&["$.**"]);
    let versions = [QueryVersion { version: 1, tokenizer: Some(tokenizer(1, &policy)) }];
    let array = filter(&Question::Contains(jsonb(&parse(r#"["x"]"#))), &versions);
    let scalar = row(1, &policy, &parse(r#""x""#));
    assert!(!is_admitted(&array, &scalar) && !is_decided(&array, &scalar));
}

#[test]
fn paths_with_options_decide_where_a_token_is_of_one_value() {
    let number = r#"{"a":5}"#;
    let text = r#"{"a":"x"}"#;
    let range = r#"{"path": "$.a", "range": {"min": 0, "max": 9, "step": 1}}"#;
    let times = r#"{"path": "$.a", "range": {"min": "2020-01-01", "max": "2030-01-01", "step": "1 day"}}"#;
    let casefold = r#"{"path": "$.a", "casefold": true}"#;
    for (declared, document, expected) in [
        (r#"{"path": "$.a", "spread": 4}"#, text, true),
        (r#"{"path": "$.a", "bits": 8}"#, text, false),
        (r#"{"path": "$.a", "bits": 62}"#, text, false),
        (range, number, false),
        (range, text, true),
        (times, r#"{"a":"2024-05-05"}"#, false),
        (times, text, true),
        (times, number, true),
        (casefold, text, false),
        (casefold, number, true),
    ] {
        assert_eq!(contained(&[declared], document, document), expected, "{declared} {document}");
    }
    let folded = Question::Casefold(jsonb(&parse(r#"{"a":"X"}"#)));
    assert!(decides(&[casefold], &folded, text));
}

#[test]
fn a_leaf_that_is_lost_decides_nothing() {
    let policy = policy(&["$.a"]);
    let knows = |version, policy| QueryVersion { version, tokenizer: Some(tokenizer(version, policy)) };
    let both = Question::Contains(jsonb(&parse(r#"{"a":1,"b":2}"#)));
    let row = row(1, &policy, &parse(r#"{"a":1}"#));
    assert!(!is_decided(&filter(&both, &[knows(1, &policy)]), &row));
    let wide = format!("[{}]", (0..300).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    assert!(!contained(&["$.**"], &wide, &wide));
    let long = format!(r#"{{"a":1,"{}":2}}"#, "k".repeat(2000));
    assert!(!contained(&["$.**"], &long, &long));
}

fn text(accessor: Accessor, steps: &[&str], text: &str) -> Question<Vec<u8>> {
    let steps = steps.iter().map(|step| step.as_bytes().to_vec()).collect();
    Question::Text(TextQuery::of_one(accessor, steps, text.as_bytes().to_vec()))
}

#[test]
fn a_text_decides_unless_a_number_may_print_as_it() {
    let field = |asked| text(Accessor::Field, &["a"], asked);
    let decides = |question: &_, document| decides(&["$.**"], question, document);
    for (asked, document, expected) in [
        ("x", r#"{"a":"x"}"#, true),
        ("7", r#"{"a":"7"}"#, true),
        ("7", r#"{"a":7}"#, false),
        ("7", r#"{"a":7.00}"#, false),
        ("true", r#"{"a":true}"#, true),
        ("true", r#"{"a":"true"}"#, true),
        ("{}", r#"{"a":"{}"}"#, false),
    ] {
        assert_eq!(decides(&field(asked), document), expected, "{asked} {document}");
    }
    let path = |steps: &[&str]| text(Accessor::Path, steps, "x");
    assert!(decides(&path(&["a", "b"]), r#"{"a":{"b":"x"}}"#));
    assert!(decides(&path(&["a", "0"]), r#"{"a":{"0":"x"}}"#));
    assert!(!decides(&path(&["a", "0"]), r#"{"a":["y","x"]}"#));
    assert!(!decides(&path(&[]), r#""x""#));
    assert!(!decides(&text(Accessor::Element, &["0"], "x"), r#"["y","x"]"#));
    let links = [Link::Field(b"a").encode(), Link::Field(b"b").encode()];
    let chain = TextQuery::of_one(Accessor::Chain, links.into(), b"x".to_vec());
    assert!(decides(&Question::Text(chain), r#"{"a":{"b":"x"}}"#));
}

#[test]
fn alternatives_of_one_scalar_decide_and_others_do_not() {
    let any = |queries: &[&str]| {
        Question::ContainsAny(queries.iter().map(|query| Some(jsonb(&parse(query)))).collect())
    };
    let (one, two) = (r#"{"a":1}"#, r#"{"b":2,"c":3}"#);
    let decides = |question: &_, document| decides(&["$.**"], question, document);
    assert!(decides(&any(&[one, two]), one));
    assert!(!decides(&any(&[one, two]), two));
    assert!(!decides(&any(&[two]), r#"{"b":2,"c":3}"#));
    // The key of the one is a key of the other too.
    assert!(decides(&any(&[one, r#"{"a":1,"d":4}"#]), one));
}

#[test]
fn rows_of_other_versions_are_decided_by_their_own_tokens() {
    let (old, new) = (policy(&["$.a"]), policy(&["$.a", "$.b"]));
    let narrow = Policy::from_paths(Scheme::Narrow, &["$.a"]).unwrap();
    let knows = |version, policy| QueryVersion { version, tokenizer: Some(tokenizer(version, policy)) };
    let document = parse(r#"{"a":1,"b":2}"#);
    let asks = |query| Question::Contains(jsonb(&parse(query)));
    let versions = [knows(1, &narrow), knows(2, &old), knows(3, &new)];
    let (a, b) = (filter(&asks(r#"{"a":1}"#), &versions), filter(&asks(r#"{"b":2}"#), &versions));
    for (version, policy, by_a, by_b) in
        [(1, &narrow, false, false), (2, &old, true, false), (3, &new, true, true)]
    {
        let row = row(version, policy, &document);
        assert!(is_admitted(&a, &row) && is_admitted(&b, &row), "{version}");
        assert_eq!((is_decided(&a, &row), is_decided(&b, &row)), (by_a, by_b), "{version}");
    }
    // One that this session has not heard of.
    let unknown = row(3, &new, &document);
    let filter = filter(&asks(r#"{"a":1}"#), &[knows(1, &narrow), knows(2, &old)]);
    assert!(is_admitted(&filter, &unknown) && !is_decided(&filter, &unknown));
}

#[test]
fn a_filter_for_every_keyring_decides_nothing() {
    let policy = policy(&["$.a"]);
    let versions = [QueryVersion { version: 1, tokenizer: Some(tokenizer(1, &policy)) }];
    let document = parse(r#"{"a":1}"#);
    let filter = filter(&Question::Contains(jsonb(&document)), &versions);
    let every = Filter::parse(&filter).unwrap().for_every_keyring().unwrap();
    let row = row(1, &policy, &document);
    assert!(is_decided(&filter, &row) && !is_decided(&every, &row));
}
