//! Tokens, computed anew and a second time from their description.

use super::*;

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
    let tokens = asked(&tokenizer(&index_key(1), &policy).query(&query.leaves[0])?);
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
        for document in documents {
            let text = document.to_string();
            let tokens = tokens_of(1, &policy, &jsonb(&parse(&text)));
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
    let tokenizer = tokenizer(&key, &policy);
    let expected = TOKEN_BIT | described_prf(Kind::String as u8, b"", 0, b"John Smith");
    assert_eq!(tokenizer.text(b"John Smith").unwrap(), TokenSet::of_keys(&[expected]));
    let whole = TextQuery::of_one(Accessor::Whole, Vec::new(), &b"John Smith"[..]);
    let leaves = whole.leaves().unwrap();
    assert_eq!(tokenizer.query(&leaves[0]).map(|tokens| asked(&tokens)), Some(vec![expected]));
}

fn key_path(key: &str) -> Vec<u8> {
    [&[1][..], &(key.len() as u32).to_be_bytes(), key.as_bytes()].concat()
}

fn described_bucket(key: &str, level: u8, number: u64) -> u64 {
    TOKEN_BIT | described_prf(8, &key_path(key), 0, &[&[level][..], &number.to_be_bytes()].concat())
}

#[test]
fn a_number_in_a_declared_range_has_tokens_of_its_buckets_only() {
    let policy = narrow(&[r#"{"path": "$.age", "range": {"min": 0, "max": 150, "step": 1}}"#]);
    let tokens = |number: Json| tokens_of(1, &policy, &jsonb(&Json::Object(vec![("age".into(), number)])));
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
    let policy = narrow(&[r#"{"path": "$.city", "casefold": true}"#]);
    let expected =
        TOKEN_BIT | described_prf(Kind::String as u8, &key_path("city"), 0, "strasse köln".as_bytes());
    for city in ["Straße KÖLN", "strasse köln"] {
        let document = jsonb(&Json::Object(vec![("city".into(), Json::String(city.into()))]));
        assert_eq!(tokens_of(1, &policy, &document), [expected], "{city}");
    }
}

#[test]
fn an_overlong_path_is_left_to_the_recheck_on_both_sides() {
    let (key, policy) = (index_key(1), narrow(&["$.**"]));
    let tokenizer = tokenizer(&key, &policy);
    for (length, tokens) in [(MAX_PATH_BYTES - 5, 1), (MAX_PATH_BYTES - 4, 0)] {
        let document = jsonb(&Json::Object(vec![("k".repeat(length), Json::Null)]));
        assert_eq!(tokenizer.document(&document).unwrap().count(), tokens);
        assert_eq!(tokenizer.query(&query_leaves(&document).unwrap().leaves[0]).is_some(), tokens == 1);
    }
}
