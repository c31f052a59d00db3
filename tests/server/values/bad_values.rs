//! Values, documents and keyrings that are refused, how, and that the refusal tells nothing.

use postgres::Client;

use crate::server::values::kinds::{copy_bytes, copy_text, with_state};
use crate::server::values::quiet::{
    SECRET, TYPES, assert_does_not_open, assert_malformed, quietly_refused, sealed, state_of, tables,
    text_form,
};
use crate::support::{AsBytes, AsText, Sql as _};

#[test]
fn text_that_is_not_base64() {
    let client = &mut tables();
    for tail in [
        "",
        "!",
        "AQ",
        "AQ=",
        "AQ==\n",
        " AQ==",
        "AQ== ",
        "AQ==AQ==",
        "AR==",
        "-_==",
        "pgseal:AQ==",
        "\u{e9}",
    ] {
        for (type_name, column) in TYPES.into_iter().zip(["v", "x"]) {
            quietly_refused(client, &format!("SELECT 'pgseal:{tail}'::{type_name}"), "22P02");
            quietly_refused(client, &format!("INSERT INTO t ({column}) VALUES ('pgseal:{tail}')"), "22P02");
            let state =
                state_of(client, &format!("SELECT $1::{type_name}"), &AsText(&format!("pgseal:{tail}")));
            assert_eq!(state.as_deref(), Some("22P02"), "{tail:?}");
        }
    }
}

/// For a value of each type with tokens that decide, and then with ones of format 1.
fn in_both_formats(check: impl Fn(&mut Client, &str, &[u8])) {
    let client = &mut tables();
    for (format, choice) in [(2, "auto"), (1, "narrow")] {
        client.run(&format!("SET pgseal.tokens = {choice}; SELECT pgseal.rotate_index_key('k')"));
        for type_name in TYPES {
            let whole = sealed(client, type_name);
            assert_eq!(whole[0], format);
            check(client, type_name, &whole);
        }
    }
}

/// Bytes of a token, and of the tag behind all.
fn token_bytes(whole: &[u8]) -> (usize, usize) {
    if whole[0] == 2 { (16, 16) } else { (8, 0) }
}

#[test]
fn values_cut_at_every_length() {
    in_both_formats(|client, type_name, whole| {
        let tokens = usize::from(whole[13]);
        assert!(tokens > 0);
        let (token, tag) = token_bytes(whole);
        let shortest = 16 + token * tokens + tag + 16 + 16;
        // Nothing at all is what an empty text is sent as.
        for length in usize::from(type_name == "encrypted_text")..shortest {
            assert_malformed(client, type_name, &whole[..length]);
        }
        for length in shortest..whole.len() {
            assert_does_not_open(client, type_name, &whole[..length], &["22000"]);
        }
    });
}

#[test]
fn values_with_more_behind() {
    let client = &mut tables();
    for type_name in TYPES {
        let whole = sealed(client, type_name);
        for more in [&[0][..], &[0; 16], &whole] {
            assert_does_not_open(client, type_name, &[&whole, more].concat(), &["22000"]);
        }
    }
}

#[test]
fn a_flipped_bit_in_every_byte() {
    let client = &mut tables();
    for type_name in TYPES {
        let whole = sealed(client, type_name);
        for at in 0..whole.len() * 8 {
            // All bits of the header, one bit of every other byte.
            if at / 8 >= 16 && at % 8 != at / 8 % 8 {
                continue;
            }
            let mut flipped = whole.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert_does_not_open(client, type_name, &flipped, &["22P02", "22P03", "22000", "42704", "55000"]);
        }
        assert_eq!(client.one::<i32>("SELECT 1"), 1);
    }
}

#[test]
fn stored_values_with_flipped_bits() {
    let client = &mut tables();
    client.run("CREATE TABLE s (v encrypted_jsonb); CREATE INDEX ON s USING gin (v)");
    let whole = sealed(client, "encrypted_jsonb");
    let mut stored = 0;
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 7);
        stored += client.execute("INSERT INTO s VALUES ($1)", &[&AsBytes(&flipped)]).unwrap_or(0);
    }
    assert!(stored > 50, "{stored} stored");
    client.run("ANALYZE s; REINDEX TABLE s");
    client.run("VACUUM s");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM s WHERE pgseal.key_version(v) > 0"), stored as i64);
    for plan in ["SET enable_seqscan = off", "SET enable_seqscan = on; SET enable_bitmapscan = off"] {
        client.run(plan);
        let state =
            state_of(client, &format!(r#"SELECT FROM s WHERE v @> '{{"a": "{SECRET}"}}' AND $1"#), &true);
        assert_eq!(state.as_deref(), Some("22000"), "{plan}");
    }
    assert_eq!(client.one::<i32>("SELECT 1"), 1);
}

/// `whole` with other tokens, and a header that counts them; of format 1 where there is none.
fn with_tokens(whole: &[u8], tokens: &[u64]) -> Vec<u8> {
    let (token_bytes, tag) = token_bytes(whole);
    let mut changed = whole[..12].to_vec();
    changed.extend_from_slice(&(tokens.len() as u16).to_be_bytes());
    changed.extend_from_slice(&[0, 0]);
    for token in tokens {
        changed.extend_from_slice(&token.to_be_bytes());
        changed.resize(changed.len() + token_bytes - 8, 0);
    }
    let end = 16 + token_bytes * usize::from(whole[13]);
    if tokens.is_empty() {
        changed[0] = 1;
        changed.extend_from_slice(&whole[end + tag..]);
    } else {
        changed.extend_from_slice(&whole[end..]);
    }
    changed
}

#[test]
fn tokens_out_of_order_repeated_or_without_their_bit() {
    in_both_formats(|client, type_name, whole| {
        let top = 1 << 63;
        for tokens in [&[top | 2, top | 1][..], &[top | 1, top | 1], &[1], &[0], &[1, top | 1], &[top | 1, 2]]
        {
            assert_malformed(client, type_name, &with_tokens(whole, tokens));
        }
        let mut untokenised = with_tokens(whole, &[top | 1]);
        untokenised[10..12].fill(0);
        assert_malformed(client, type_name, &untokenised);
    });
}

#[test]
fn forged_and_stripped_tokens() {
    in_both_formats(|client, type_name, whole| {
        for tokens in [&[][..], &[1 << 63], &[1 << 63, u64::MAX]] {
            assert_does_not_open(client, type_name, &with_tokens(whole, tokens), &["22000"]);
        }
    });
}

#[test]
fn token_counts_beyond_the_value() {
    let client = &mut tables();
    for type_name in TYPES {
        let mut whole = sealed(client, type_name);
        whole[12..14].fill(0xFF);
        assert_malformed(client, type_name, &whole);
    }
}

#[test]
fn reserved_bits_and_unknown_codes() {
    let client = &mut tables();
    for type_name in TYPES {
        let whole = sealed(client, type_name);
        let reserved_flags = (3..7).map(|bit| (2, 1 << bit));
        let reserved_bytes = [14, 15].into_iter().flat_map(|at| [(at, 1), (at, 0x80)]);
        let codes = [(0, 0), (0, 3), (0, 255), (1, 0), (1, 2), (1, 3), (3, 0), (3, 5), (3, 6), (3, 255)];
        for (at, code) in reserved_flags.chain(reserved_bytes).chain(codes) {
            let mut changed = whole.clone();
            changed[at] = code;
            assert_malformed(client, type_name, &changed);
        }
    }
}

#[test]
fn impossible_keys() {
    let client = &mut tables();
    for type_name in TYPES {
        let whole = sealed(client, type_name);
        for (range, with) in [(4..8, 0), (4..8, 0xFF), (8..10, 0)] {
            let mut changed = whole.clone();
            changed[range].fill(with);
            assert_malformed(client, type_name, &changed);
        }
    }
}

#[test]
fn values_of_unknown_keys_are_kept_but_do_not_open() {
    let client = &mut tables();
    for type_name in TYPES {
        let mut unknown_keyring = sealed(client, type_name);
        unknown_keyring[4..8].copy_from_slice(&12345_i32.to_be_bytes());
        assert_does_not_open(client, type_name, &unknown_keyring, &["42704"]);
        let mut unknown_version = sealed(client, type_name);
        unknown_version[8..10].fill(0xFF);
        assert_does_not_open(client, type_name, &unknown_version, &["42704"]);
        let header = format!("SELECT pgseal.keyring_id($1::{type_name}) = 12345");
        assert!(client.query_one(&header, &[&AsBytes(&unknown_keyring)]).unwrap().get::<_, bool>(0));
    }
}

#[test]
fn values_of_retired_keys_are_refused() {
    let client = &mut tables();
    let old = TYPES.map(|type_name| sealed(client, type_name));
    client.run("SELECT pgseal.rotate_key('k')");
    client.run("SELECT pgseal.retire_key('k', 1)");
    for (type_name, bytes) in TYPES.into_iter().zip(&old) {
        assert_does_not_open(client, type_name, bytes, &["55000"]);
        client.run(&format!("DROP TABLE t; CREATE TABLE t (v {type_name}(k))"));
        assert_eq!(
            state_of(client, "INSERT INTO t (v) VALUES ($1)", &AsBytes(bytes)).as_deref(),
            Some("55000")
        );
        with_state(copy_bytes(client, bytes).unwrap_err(), "55000", type_name);
        with_state(copy_text(client, &text_form(bytes)).unwrap_err(), "55000", type_name);
    }
}

#[test]
fn a_filter_s_bytes_are_no_value() {
    let client = &mut tables();
    for type_name in TYPES {
        let value = sealed(client, type_name);
        // One group of one key, as pgseal.filter makes it.
        let mut filter = value[..16].to_vec();
        filter[3] = 5;
        filter[12..16].copy_from_slice(&[0, 1, 1, 0]);
        filter.extend_from_slice(&[0, 1, 0x80, 0, 0, 0, 0, 0, 0, 1]);
        filter.extend_from_slice(&value[value.len() - 64..]);
        assert_malformed(client, type_name, &filter);
    }
    client.refused(r#"SELECT pgseal.filter('{"a": 1}', 'k')::encrypted_jsonb"#, "42846");
    client.refused(r#"INSERT INTO t (v) SELECT pgseal.filter('{"a": 1}', 'k')"#, "42804");
}

#[test]
fn text_is_no_filter() {
    let client = &mut tables();
    let value = text_form(&sealed(client, "encrypted_jsonb"));
    let document = format!(r#"{{"a": "{SECRET}"}}"#);
    for text in ["", "<filter: k, 1 group>", "null", &document, &value] {
        quietly_refused(client, &format!("SELECT '{text}'::encrypted_filter"), "22P02");
        if text == "null" {
            continue;
        }
        // What stands there is a jsonpath, whose syntax is wrong or whose question is not for ciphertext.
        let refused = ["22P02", "42601", "42846"];
        let error = client.error(&format!("SELECT FROM t WHERE v @@ '{text}'"));
        assert!(refused.contains(&error.code().code()) && !error.message().contains(SECRET), "{error}");
        let state = state_of(client, "SELECT FROM t WHERE v @@ $1", &AsText(text)).unwrap();
        assert!(refused.contains(&state.as_str()), "{text}: {state}");
    }
    client.refused("SELECT v::encrypted_filter FROM t", "42846");
    let shown = client.text(&format!("SELECT pgseal.filter('{document}', 'k')"));
    assert_eq!(shown, "<filter: k, 1 group, decided>");
}

#[test]
fn values_of_the_other_type() {
    let client = &mut tables();
    for (own, other, column) in
        [("encrypted_jsonb", "encrypted_text", "v"), ("encrypted_text", "encrypted_jsonb", "x")]
    {
        let mut bytes = sealed(client, other);
        let vector = 3;
        for content in [bytes[3], vector] {
            bytes[3] = content;
            for sql in [format!("INSERT INTO t ({column}) VALUES ($1)"), format!("SELECT $1::{own}")] {
                assert_eq!(state_of(client, &sql, &AsBytes(&bytes)).as_deref(), Some("22P03"));
                let text = text_form(&bytes);
                assert_eq!(state_of(client, &sql, &AsText(&text)).as_deref(), Some("22P02"), "as text");
            }
        }
    }
}

#[test]
fn the_types_do_not_mix() {
    let client = &mut tables();
    client.refused("INSERT INTO t (v) SELECT x FROM t", "42804");
    // Only for who is shown it.
    client.refused(r#"SELECT '{"a": 1}'::jsonb::encrypted_jsonb(k)::encrypted_text(k)"#, "42846");
    client.refused("SELECT x @> '{}' FROM t", "42883");
    client.refused("SELECT pgseal.filter(x) FROM t", "42883");
}

#[test]
fn values_of_another_keyring_for_a_bound_column() {
    let client = &mut tables();
    for (type_name, column) in TYPES.into_iter().zip(["v", "x"]) {
        client.run("SELECT pgseal.set_default_keyring('k')");
        let bytes: Vec<u8> = {
            let plaintext =
                if column == "v" { format!(r#"'["{SECRET}"]'::jsonb"#) } else { format!("'{SECRET}'::text") };
            client.one(&format!("SELECT pgseal.{type_name}_send(pgseal.encrypt({plaintext}, 'other'))"))
        };
        let text = text_form(&bytes);
        let insert = format!("INSERT INTO t ({column}) VALUES ($1)");
        assert_eq!(state_of(client, &insert, &AsBytes(&bytes)).as_deref(), Some("22023"));
        assert_eq!(state_of(client, &insert, &AsText(&text)).as_deref(), Some("22023"));
        quietly_refused(client, &format!("INSERT INTO t ({column}) VALUES ('{text}')"), "22023");
        quietly_refused(
            client,
            &format!("UPDATE t SET {column} = '{text}'; INSERT INTO t ({column}) SELECT '{text}'"),
            "22023",
        );
        client.run(&format!(
                "CREATE TABLE other AS SELECT * FROM t; ALTER TABLE t RENAME TO kept; CREATE TABLE t (v {type_name}(k))"
            ),
        );
        with_state(copy_bytes(client, &bytes).unwrap_err(), "22023", "COPY");
        with_state(copy_text(client, &text).unwrap_err(), "22023", "COPY");
        client.run("DROP TABLE t, other; ALTER TABLE kept RENAME TO t");
    }
}

#[test]
fn unknown_keyrings() {
    let client = &mut tables();
    for call in [
        "pgseal.encrypt('[]'::jsonb, 'nope')",
        "pgseal.encrypt('x'::text, 'nope')",
        "pgseal.filter('[]', 'nope')",
        "pgseal.filter_any(ARRAY['[]']::jsonb[], 'nope')",
        "pgseal.set_default_keyring('nope')",
        "pgseal.rotate_key('nope')",
        "pgseal.rotate_index_key('nope')",
        "pgseal.rewrap_keys('nope')",
        "pgseal.retire_key('nope', 1)",
        "pgseal.grant_keyring('nope', 'postgres', ARRAY['decrypt'])",
        "pgseal.revoke_keyring('nope', 'postgres')",
        "pgseal.rotate_key('')",
        "pgseal.rotate_key('K')",
        "pgseal.rotate_key(repeat('k', 64))",
        "pgseal.rotate_key(repeat('k', 1000000))",
    ] {
        let error = quietly_refused(client, &format!("SELECT {call}"), "42704");
        assert!(error.message().contains("does not exist"), "{call}: {error}");
    }
}

#[test]
fn unknown_keyring_in_the_setting() {
    let client = &mut tables();
    client.run("SET pgseal.keyring = 'nope'; CREATE TABLE u (v encrypted_jsonb, x encrypted_text)");
    for statement in [
        format!(r#"INSERT INTO u (v) VALUES ('["{SECRET}"]')"#),
        format!("INSERT INTO u (x) VALUES ('{SECRET}')"),
        format!(r#"INSERT INTO u (v) VALUES ('["{SECRET}"]'::jsonb)"#),
        format!("SELECT pgseal.encrypt('{SECRET}'::text)"),
        format!(r#"SELECT pgseal.filter('["{SECRET}"]')"#),
    ] {
        let error = quietly_refused(client, &statement, "42704");
        assert!(error.message().contains("\"nope\""), "{error}");
    }
    client.run("SET pgseal.keyring = ''; INSERT INTO u (v) VALUES ('[]')");
    // A column's keyring needs no other one where the plaintext's type says what it is.
    client.run("SET pgseal.keyring = 'nope'; INSERT INTO t (v, x) VALUES ('[]'::jsonb, 'x'::text)");
}

#[test]
fn no_keyring_at_all() {
    let client = &mut tables();
    client
        .run("SELECT pgseal.set_default_keyring(NULL); CREATE TABLE u (v encrypted_jsonb, x encrypted_text)");
    for statement in [
        format!(r#"INSERT INTO u (v) VALUES ('["{SECRET}"]')"#),
        format!("INSERT INTO u (x) VALUES ('{SECRET}')"),
        format!(r#"SELECT pgseal.encrypt('["{SECRET}"]'::jsonb)"#),
    ] {
        let error = quietly_refused(client, &statement, "42704");
        assert!(error.hint().unwrap_or_default().contains("pgseal.encrypt("), "{error:?}");
    }
}

#[test]
fn deep_documents() {
    let client = &mut tables();
    for depth in [1_025, 2_000, 10_000, 1_000_000] {
        let arrays = format!(r#"{}"{SECRET}"{}"#, "[".repeat(depth), "]".repeat(depth));
        let objects = format!(r#"{}"{SECRET}"{}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth));
        for document in [&arrays, &objects] {
            for sql in [
                "INSERT INTO t (v) VALUES ($1)",
                "INSERT INTO t (v) VALUES ($1::text::jsonb)",
                "INSERT INTO t (v) VALUES ($1::text::json)",
                "SELECT pgseal.filter($1::text::jsonb, 'k')",
                "SELECT $1::encrypted_jsonb(k)",
            ] {
                let state =
                    state_of(client, sql, &AsText(document)).unwrap_or_else(|| panic!("{sql}, {depth} deep"));
                assert!(state.starts_with("54"), "{sql}, {depth} deep: {state}");
            }
        }
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t"), 0);
}

#[test]
fn deep_documents_without_tokens_come_back_or_are_refused() {
    let client = &mut tables();
    client.run("CREATE TABLE u (v encrypted_jsonb(other))");
    for depth in [1_000, 2_000, 4_000, 10_000] {
        let document = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        client.run("TRUNCATE u");
        match client.execute("INSERT INTO u VALUES ($1)", &[&AsText(&document)]) {
            Ok(_) => assert_eq!(client.one::<String>("SELECT v::text FROM u"), document),
            Err(error) => assert!(with_class(&error, "54"), "{depth}: {error:?}"),
        }
    }
}

fn with_class(error: &postgres::Error, class: &str) -> bool {
    error.code().is_some_and(|code| code.code().starts_with(class))
}

#[test]
fn more_searchable_leaves_than_a_value_carries() {
    let client = &mut tables();
    let distinct = |count: i32| (0..count).map(|n| format!("{n}")).collect::<Vec<_>>().join(",");
    let most = format!("[{}]", distinct(65_535));
    client.run(&format!("INSERT INTO t (v) VALUES ('{most}')"));
    let over = format!(r#"["{SECRET}",{}]"#, distinct(65_535));
    let far_over = format!(r#"["{SECRET}",{}]"#, distinct(700_000));
    for document in [&over, &far_over] {
        quietly_refused(client, &format!("INSERT INTO t (v) VALUES ('{document}'::jsonb)"), "54000");
        assert_eq!(
            state_of(client, "INSERT INTO t (v) VALUES ($1::text::json)", &AsText(document)).as_deref(),
            Some("54000")
        );
    }
    let repeated = format!("[{}0]", "1,".repeat(700_000));
    client.run(&format!("INSERT INTO t (v) VALUES ('{repeated}')"));
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t"), 2);
}

/// JSON that jsonb refuses.
fn bad_documents() -> Vec<String> {
    let fixed = [
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\"}",
        "{a: 1}",
        "'x'",
        "nul",
        "[] []",
        "01",
        "1.",
        ".5",
        "+1",
        "-",
        "NaN",
        "Infinity",
        "0x10",
        "1e",
        "\"\u{1}\"",
        "\"a\nb\"",
    ];
    let escapes = [r"\u0000", r"\x", r"\u12", r"\u12G4", r"\ud800", r"\udc00", r"\ud800\ud800", r"\"];
    let escaped = escapes.map(|escape| format!("[\"{SECRET}\", \"{escape}\"]"));
    let keys = escapes.map(|escape| format!("{{\"{SECRET}{escape}\": 1}}"));
    let spoiled = [format!("{{\"a\": \"{SECRET}\""), format!("[\"{SECRET}\" \"x\"]"), format!("{SECRET}: 1")];
    fixed.iter().map(|text| (*text).to_owned()).chain(escaped).chain(keys).chain(spoiled).collect()
}

#[test]
fn invalid_json_is_not_quoted() {
    let client = &mut tables();
    for document in bad_documents() {
        let literal = format!("INSERT INTO t (v) VALUES ('{}')", document.replace('\'', "''"));
        let error = quietly_refused(client, &literal, "22P02");
        assert_eq!(error.message(), "invalid input syntax for a JSON document", "{document}");
        assert_eq!((error.detail(), error.where_()), (None, None), "{document}");
        let state = state_of(client, "SELECT $1::encrypted_jsonb(k)", &AsText(&document));
        assert_eq!(state.as_deref(), Some("22P02"), "{document}");
    }
}

#[test]
fn numbers_out_of_range_are_not_quoted() {
    let client = &mut tables();
    for number in ["1e200000", "1e1000000000", "1e99999999999999999999", "-1e131072"] {
        let document = format!(r#"["{SECRET}", {number}]"#);
        let state = state_of(client, "INSERT INTO t (v) VALUES ($1)", &AsText(&document));
        assert!(state.as_deref().is_some_and(|state| state.starts_with("22")), "{number}: {state:?}");
    }
}

/// json keeps escapes that jsonb refuses, so the assignment cast meets them.
#[test]
fn escapes_that_only_json_allows() {
    let client = &mut tables();
    let document = format!(r#"["{SECRET}", "\u0000"]"#);
    quietly_refused(client, &format!("INSERT INTO t (v) VALUES ('{document}'::json)"), "22P02");
}

#[test]
fn invalid_json_in_copy_is_not_quoted() {
    let client = &mut tables();
    for document in [format!("{{\"a\": \"{SECRET}\""), format!(r#"["{SECRET}", "\u0000"]"#)] {
        let error = copy_text(client, &document).unwrap_err();
        let error = with_state(error, "22P02", "COPY");
        assert_eq!(error.message(), "invalid input syntax for a JSON document");
        assert_eq!(error.detail(), None);
        assert!(!error.where_().unwrap_or_default().contains(SECRET), "{:?}", error.where_());
    }
}
