//! What is refused, how, and that the refusal tells nothing and leaves the session usable.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postgres::Client;
use postgres::error::DbError;
use postgres::types::ToSql;

use crate::server::values::types::{copy_bytes, copy_text, two_keyrings, with_state};
use crate::support::{AsBytes, AsText, Sql as _, shared, start_waiting, with_keyring};

/// Stands in every document here and in no error.
const SECRET: &str = "canary-7291";

const TYPES: [&str; 2] = ["encrypted_jsonb", "encrypted_text"];

/// Refused with this SQLSTATE, in words that give nothing away.
fn quietly_refused(client: &mut Client, sql: &str, state: &str) -> DbError {
    let error = client.refused(sql, state);
    assert_quiet(&error, sql);
    error
}

fn assert_quiet(error: &DbError, what: &str) {
    let told = [Some(error.message()), error.detail(), error.hint(), error.where_()];
    for text in told.into_iter().flatten() {
        assert!(!text.contains(SECRET) && !text.contains("pgseal:A"), "{what:.300}: {text}");
    }
}

/// What came of a statement with one parameter: its SQLSTATE, or `None` when it went through. Says nothing secret.
fn state_of(client: &mut Client, sql: &str, parameter: &(dyn ToSql + Sync)) -> Option<String> {
    let error = client.query(sql, &[parameter]).err()?;
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")).clone();
    assert_quiet(&error, sql);
    Some(error.code().code().to_owned())
}

fn text_form(bytes: &[u8]) -> String {
    format!("pgseal:{}", STANDARD.encode(bytes))
}

/// Table t with columns "v" and "x" of the keyring "k".
fn tables() -> Client {
    let mut client = two_keyrings();
    client.run("CREATE TABLE t (n int, v encrypted_jsonb(k), x encrypted_text(k))");
    client
}

/// A sealed value of each type with three tokens or one.
fn sealed(client: &mut Client, type_name: &str) -> Vec<u8> {
    let plaintext = match type_name {
        "encrypted_jsonb" => format!(r#"'{{"a": "{SECRET}", "b": 2, "c": null}}'::jsonb"#),
        _ => format!("'{SECRET}'::text"),
    };
    client.one(&format!("SELECT pgseal.{type_name}_send(pgseal.encrypt({plaintext}, 'k'))"))
}

/// Both forms are refused as malformed.
fn assert_malformed(client: &mut Client, type_name: &str, bytes: &[u8]) {
    let sql = format!("SELECT pgseal.key_version($1::{type_name})");
    assert_eq!(state_of(client, &sql, &AsBytes(bytes)).as_deref(), Some("22P03"), "{bytes:02x?}");
    let text = text_form(bytes);
    assert_eq!(state_of(client, &sql, &AsText(&text)).as_deref(), Some("22P02"), "{bytes:02x?}");
    assert_eq!(client.one::<i32>("SELECT 1"), 1);
}

/// Either form is taken, and then does not open.
fn assert_does_not_open(client: &mut Client, type_name: &str, bytes: &[u8], states: &[&str]) {
    for sql in ["pgseal.decrypt($1::TYPE)", "$1::TYPE::text", "pgseal.reseal($1::TYPE)"] {
        let sql = format!("SELECT {}", sql.replace("TYPE", type_name));
        let text = text_form(bytes);
        for parameter in [&AsBytes(bytes) as &(dyn ToSql + Sync), &AsText(&text)] {
            let state = state_of(client, &sql, parameter);
            assert!(
                state.as_deref().is_some_and(|state| states.contains(&state)),
                "{sql}: {state:?}, {bytes:02x?}"
            );
        }
    }
}

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

#[test]
fn values_cut_at_every_length() {
    let client = &mut tables();
    for type_name in TYPES {
        let whole = sealed(client, type_name);
        let tokens = usize::from(whole[13]);
        assert!(tokens > 0);
        let shortest = 16 + 8 * tokens + 16 + 16;
        for length in 0..shortest {
            assert_malformed(client, type_name, &whole[..length]);
        }
        for length in shortest..whole.len() {
            assert_does_not_open(client, type_name, &whole[..length], &["22000"]);
        }
    }
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

/// `whole` with other tokens, and a header that counts them.
fn with_tokens(whole: &[u8], tokens: &[u64]) -> Vec<u8> {
    let mut changed = whole[..12].to_vec();
    changed.extend_from_slice(&(tokens.len() as u16).to_be_bytes());
    changed.extend_from_slice(&[0, 0]);
    tokens.iter().for_each(|token| changed.extend_from_slice(&token.to_be_bytes()));
    changed.extend_from_slice(&whole[16 + 8 * usize::from(whole[13])..]);
    changed
}

#[test]
fn tokens_out_of_order_repeated_or_without_their_bit() {
    let client = &mut tables();
    for type_name in TYPES {
        let whole = sealed(client, type_name);
        let top = 1 << 63;
        for tokens in [&[top | 2, top | 1][..], &[top | 1, top | 1], &[1], &[0], &[1, top | 1], &[top | 1, 2]]
        {
            assert_malformed(client, type_name, &with_tokens(&whole, tokens));
        }
        let mut untokenised = with_tokens(&whole, &[top | 1]);
        untokenised[10..12].fill(0);
        assert_malformed(client, type_name, &untokenised);
    }
}

#[test]
fn forged_and_stripped_tokens() {
    let client = &mut tables();
    for type_name in TYPES {
        let whole = sealed(client, type_name);
        for tokens in [&[][..], &[1 << 63], &[1 << 63, u64::MAX]] {
            assert_does_not_open(client, type_name, &with_tokens(&whole, tokens), &["22000"]);
        }
    }
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
        let codes = [(0, 0), (0, 2), (0, 255), (1, 0), (1, 2), (1, 3), (3, 0), (3, 5), (3, 6), (3, 255)];
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
        quietly_refused(client, &format!("SELECT FROM t WHERE v @@ '{text}'"), "22P02");
        let state = state_of(client, "SELECT FROM t WHERE v @@ $1", &AsText(text));
        assert_eq!(state.as_deref(), Some("22P02"));
    }
    client.refused("SELECT v::encrypted_filter FROM t", "42846");
    let shown = client.text(&format!("SELECT pgseal.filter('{document}', 'k')"));
    assert_eq!(shown, "<filter: k, 1 group>");
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
    client.refused("SELECT v::encrypted_text FROM t", "42846");
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

#[test]
fn bad_kms_endpoints() {
    let client = &mut tables();
    for endpoint in [
        "garbage",
        "http://x",
        "https://x/transit",
        "file://relative",
        "file://",
        "FILE:///x",
        "vault+http://10.0.0.1:8200/transit",
        "vault+http://vault.example:8200/transit",
        "vault+https://",
        "vault+https:///transit",
        "vault+https://host:8200",
        "vault+https://host:99999/transit",
        "vault+https://user:canary-7291@host:8200/transit",
        "vault+https://host:8200/transit?token=canary-7291",
        "aws-kms://",
        "aws-kms://eu-west-1/key",
        "aws-kms://eu-west-1?endpoint=http://10.0.0.1:4566",
        "aws-kms://eu-west-1?endpoint=https://user:canary-7291@host",
        "gcp-kms://projects/p/locations/l",
        "gcp-kms://projects/p/locations/l/keyRings/r?endpoint=http://10.0.0.1:4567",
        "gcp-kms://projects/p/locations/l/keyRings/r?token=canary-7291",
        "azure-kv://vault.example",
        "azure-kv://name.vault.azure.net?endpoint=https://user:canary-7291@host",
        " ",
    ] {
        let argument = format!("SELECT pgseal.create_keyring('new', kms_endpoint => '{endpoint}')");
        let error = quietly_refused(client, &argument, "22023");
        assert!(error.hint().is_some(), "{endpoint}: {error}");
        client.run(&format!("SET pgseal.kms_endpoint = '{endpoint}'"));
        quietly_refused(client, "SELECT pgseal.create_keyring('new')", "22023");
        client.run("RESET pgseal.kms_endpoint");
    }
    quietly_refused(client, "SELECT pgseal.create_keyring('new', kms_endpoint => '')", "22023");
    client.run("SET pgseal.kms_endpoint = ''");
    quietly_refused(client, "SELECT pgseal.create_keyring('new')", "22023");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), 2);
}

#[test]
fn key_files_are_not_kept_in_the_data_directory() {
    let client = &mut tables();
    let data = shared().data_dir().display().to_string();
    let keys = shared().key_dir().display().to_string();
    for directory in [
        data.clone(),
        format!("{data}/base"),
        format!("{data}/"),
        format!("/{data}"),
        format!("{keys}/../data"),
    ] {
        let sql = format!("SELECT pgseal.create_keyring('new', kms_endpoint => 'file://{directory}')");
        let Err(error) = client.batch_execute(&sql) else { panic!("{directory} went through") };
        let state = error.code().expect("a SQLSTATE").code();
        assert!(["22023", "58030"].contains(&state), "{directory}: {error:?}");
    }
    let missing = "SELECT pgseal.create_keyring('new', kms_endpoint => 'file:///nonexistent/keys')";
    quietly_refused(client, missing, "58030");
}

#[test]
fn bad_kms_keys() {
    let client = &mut tables();
    for key in ["", "..", ".hidden", "a/b", "../k", "a b", "a%2fb", "\u{e9}", &"k".repeat(129)] {
        quietly_refused(client, &format!("SELECT pgseal.create_keyring('new', kms_key => '{key}')"), "22023");
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), 2);
}

#[test]
fn bad_settings() {
    let client = &mut tables();
    for (setting, state) in [
        ("pgseal.kms_timeout = 0", "22023"),
        ("pgseal.kms_timeout = '1 day'", "22023"),
        ("pgseal.key_cache_ttl = -1", "22023"),
        ("pgseal.accept_sealed = 'perhaps'", "22023"),
        ("pgseal.keyrimg = 'k'", "42602"),
    ] {
        client.refused(&format!("SET {setting}"), state);
    }
}

#[test]
fn odd_keyring_names_work() {
    let client = &mut two_keyrings();
    let longest = "n".repeat(63);
    let wide = format!("{}n", "\u{e9}".repeat(31));
    let names = [
        "O'Brien",
        "two words",
        "a\"b",
        "\\",
        "$1",
        "%s",
        "A.B",
        "schl\u{fc}ssel",
        "\u{1f511}",
        " ",
        "1a",
        "null",
        &longest,
        &wide,
    ];
    for name in names {
        let id: i32 =
            client.query_one("SELECT pgseal.create_keyring($1, ARRAY['$.a'])", &[&name]).unwrap().get(0);
        assert!(id > 0);
        let quoted = name.replace('"', "\"\"");
        client.run(&format!("CREATE TABLE t (v encrypted_jsonb(\"{quoted}\"))"));
        client.run(r#"INSERT INTO t VALUES ('{"a": 1}')"#);
        client.execute("SELECT pgseal.rotate_key($1)", &[&name]).unwrap();
        client.execute(r#"SELECT pgseal.encrypt('{"a": 1}'::jsonb, $1)"#, &[&name]).unwrap();
        client.execute("SELECT set_config('pgseal.keyring', $1, false)", &[&name]).unwrap();
        client.run(r#"INSERT INTO t VALUES ('{"a": 1}'); RESET pgseal.keyring"#);
        client.run("CALL pgseal.reencrypt('t', 'v')");
        client.execute("SELECT pgseal.retire_key($1, 1)", &[&name]).unwrap();
        assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM t WHERE v @> '{"a": 1}'"#), 2, "{name}");
        client.run("DROP TABLE t");
    }
}

/// In a type modifier they would mean a keyring's number.
#[test]
fn names_that_read_as_numbers_are_refused_or_work() {
    let client = &mut two_keyrings();
    for name in ["-1", "+1"] {
        if client.batch_execute(&format!("SELECT pgseal.create_keyring('{name}')")).is_ok() {
            client.run(&format!(
                "CREATE TABLE t (v encrypted_jsonb(\"{name}\")); INSERT INTO t VALUES ('{{}}'); DROP TABLE t"
            ));
        }
    }
}

#[test]
fn bad_keyring_names() {
    let client = &mut two_keyrings();
    let (long, wide) = ("n".repeat(64), "\u{e9}".repeat(32));
    for name in ["", "7", "12345", "007", &long, &wide] {
        quietly_refused(client, &format!("SELECT pgseal.create_keyring('{name}')"), "22023");
    }
    let error = quietly_refused(client, "SELECT pgseal.create_keyring('k')", "42710");
    assert!(error.message().contains("already exists"), "{error}");
    client.refused("SELECT pgseal.create_keyring(NULL)", "22023");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), 2);
}

#[test]
fn two_sessions_make_the_same_keyring() {
    let client = &mut two_keyrings();
    client.run("BEGIN; SELECT pgseal.create_keyring('new')");
    let waiting = start_waiting(client, "SELECT pgseal.create_keyring('new')", &["Lock"]);
    client.run("COMMIT");
    let error = waiting.join().unwrap().expect("an error");
    assert!(["42710", "23505"].contains(&error.code().code()), "{error:?}");
}

#[test]
fn sessions_that_make_kms_keys_at_once_all_succeed() {
    let client = &mut two_keyrings();
    let database = client.database();
    let make = |session: usize| {
        let mut client = shared().connect(&database);
        std::thread::spawn(move || {
            for n in 0..10 {
                let name = format!("{session}_{n}");
                client.execute("SELECT pgseal.create_keyring($1, kms_key => $1)", &[&name])?;
            }
            Ok::<(), postgres::Error>(())
        })
    };
    let sessions: Vec<_> = (0..4).map(make).collect();
    for session in sessions {
        session.join().unwrap().unwrap();
    }
}

#[test]
fn bad_searchable_paths() {
    let client = &mut two_keyrings();
    for path in [
        "",
        " ",
        "a",
        ".a",
        "$a",
        "$.",
        "$..a",
        "$.a.",
        "$.a b",
        "$[0]",
        "$.a[0]",
        "$.a[*]",
        "$.***",
        "$.**.a",
        "$.*a",
        "$.\"a",
        "$.\"a\"b",
        "$.\"\\x\"",
        "$.a$",
        "$ .a",
        "$.\"a\".",
    ] {
        let error = quietly_refused(
            client,
            &format!("SELECT pgseal.create_keyring('new', ARRAY['{path}'])"),
            "22023",
        );
        assert!(error.message().contains("searchable path"), "{path}: {error}");
        client.refused(&format!("SELECT pgseal.create_keyring('new', ARRAY['$.ok', '{path}'])"), "22023");
    }
    client.refused("SELECT pgseal.create_keyring('new', ARRAY[NULL])", "22023");
    client.refused("SELECT pgseal.create_keyring('new', ARRAY['$.a', NULL])", "22023");
    client.refused("SELECT pgseal.create_keyring('new', array_fill('$.a'::text, ARRAY[257]))", "22023");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), 2);
    for good in [
        "'{}'",
        "NULL",
        "ARRAY['$']",
        "ARRAY['$.\"\"', '$.\"a.b\"', '$.*', '$.a.**']",
        "array_fill('$.a'::text, ARRAY[256])",
    ] {
        client.run(&format!("BEGIN; SELECT pgseal.create_keyring('new', {good}); ROLLBACK"));
    }
}

#[test]
fn sealed_input_can_be_switched_off() {
    let client = &mut tables();
    let bytes = TYPES.map(|type_name| sealed(client, type_name));
    client.run("SET pgseal.accept_sealed = off");
    for ((type_name, bytes), column) in TYPES.into_iter().zip(&bytes).zip(["v", "x"]) {
        let text = text_form(bytes);
        quietly_refused(client, &format!("SELECT '{text}'::{type_name}"), "42501");
        quietly_refused(client, &format!("INSERT INTO t ({column}) VALUES ('{text}')"), "42501");
        let insert = format!("INSERT INTO t ({column}) VALUES ($1)");
        assert_eq!(state_of(client, &insert, &AsText(&text)).as_deref(), Some("42501"));
        assert_eq!(state_of(client, &insert, &AsBytes(bytes)).as_deref(), Some("42501"));
        client.run(&format!("ALTER TABLE t RENAME TO kept; CREATE TABLE t (v {type_name}(k))"));
        with_state(copy_bytes(client, bytes).unwrap_err(), "42501", "COPY");
        with_state(copy_text(client, &text).unwrap_err(), "42501", "COPY");
        copy_text(client, "{}").unwrap();
        client.run("DROP TABLE t; ALTER TABLE kept RENAME TO t");
        assert_eq!(state_of(client, &insert, &AsText("{}")), None);
    }
    client.run(r#"INSERT INTO t (v, x) VALUES ('{"a": 1}', 'x'), ('{"a": 1}'::jsonb, 'x'::text)"#);
    client.run("SELECT pgseal.rotate_key('k')");
    client.run("CALL pgseal.reencrypt('t', 'v')");
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM t WHERE v @> '{"a": 1}'"#), 2);
}

#[test]
fn reencrypt_commits_so_it_runs_alone() {
    let client = &mut tables();
    client.run("INSERT INTO t (v) VALUES ('{}'); SELECT pgseal.rotate_key('k')");
    client.run("BEGIN");
    let error = client.batch_execute("CALL pgseal.reencrypt('t', 'v')").unwrap_err();
    assert_quiet(&with_state(error, "25001", "in BEGIN"), "in BEGIN");
    client.run("ROLLBACK");
    client.run("CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL pgseal.reencrypt('t', 'v'); END $$",
    );
    let error = client.batch_execute("SELECT f()").unwrap_err();
    let state = error.code().expect("a SQLSTATE").code();
    assert!(["25001", "2D000"].contains(&state), "{error:?}");
    assert_eq!(client.one::<i32>("SELECT pgseal.key_version(v) FROM t"), 1);
    client.run("CALL pgseal.reencrypt('t', 'v')");
    assert_eq!(client.one::<i32>("SELECT pgseal.key_version(v) FROM t"), 2);
}

#[test]
fn reencrypt_of_what_is_not_encrypted() {
    let client = &mut tables();
    for (arguments, state) in [
        ("'nope', 'v'", "42P01"),
        ("'t', 'nope'", "42703"),
        ("'t', 'V'", "42703"),
        ("'t', 'n'", "42809"),
        ("'t', 'ctid'", "42809"),
        ("0, 'v'", "42703"),
        ("NULL, 'v'", "42703"),
        ("'t', NULL", "42703"),
        ("'pg_class', 'relname'", "42809"),
    ] {
        quietly_refused(client, &format!("CALL pgseal.reencrypt({arguments})"), state);
    }
    client.run("ALTER TABLE t DROP COLUMN v");
    client.refused("CALL pgseal.reencrypt('t', 'v')", "42703");
}

/// It cannot change them, and must not say that it did.
#[test]
fn reencrypt_of_a_view() {
    let client = &mut tables();
    client.run("INSERT INTO t (v) VALUES ('{}'); CREATE VIEW w AS SELECT * FROM t; CREATE MATERIALIZED VIEW m AS SELECT * FROM t",
    );
    client.run("SELECT pgseal.rotate_key('k')");
    client.refused("CALL pgseal.reencrypt('w', 'v')", "42809");
    client.refused("CALL pgseal.reencrypt('m', 'v')", "42809");
}

#[test]
fn reencrypt_s_batch_size() {
    let client = &mut tables();
    client.run("INSERT INTO t (v) SELECT jsonb_build_array(i) FROM generate_series(1, 500) i");
    for size in ["0", "-1", "-2147483648"] {
        client.refused(&format!("CALL pgseal.reencrypt('t', 'v', {size})"), "22023");
    }
    client.refused("CALL pgseal.reencrypt('t', 'v', 2147483648)", "42883");
    for (round, size) in ["1", "2147483647", "1000"].iter().enumerate() {
        client.run("ANALYZE t; SELECT pgseal.rotate_key('k')");
        client.run(&format!("CALL pgseal.reencrypt('t', 'v', {size})"));
        let version = round as i32 + 2;
        let current = format!("SELECT count(*) FROM t WHERE pgseal.key_version(v) = {version}");
        assert_eq!(client.one::<i64>(&current), 500, "batch_size {size}");
    }
}

#[test]
fn key_usage_of_what_is_not_encrypted() {
    let client = &mut tables();
    client.refused("SELECT pgseal.key_usage('nope', 'v')", "42P01");
    client.refused("SELECT pgseal.key_usage('t', 'nope')", "42703");
    client.refused("SELECT pgseal.key_usage('t', 'n')", "42809");
}

#[test]
fn versions_that_cannot_be_retired() {
    let client = &mut tables();
    client.run("SELECT pgseal.rotate_key('k')");
    for (version, state) in [
        ("2", "55000"),
        ("3", "42704"),
        ("0", "42704"),
        ("-1", "42704"),
        ("70000", "42704"),
        ("65537", "42704"),
        ("NULL", "42704"),
    ] {
        quietly_refused(client, &format!("SELECT pgseal.retire_key('k', {version})"), state);
    }
    client.refused("SELECT pgseal.retire_key(NULL, 1)", "42704");
    client.run("SELECT pgseal.retire_key('k', 1)");
    let error = quietly_refused(client, "SELECT pgseal.retire_key('k', 1)", "55000");
    assert!(error.hint().unwrap_or_default().contains("retired already"), "{error:?}");
    client.run("SELECT pgseal.rotate_key('other')");
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let error = client.batch_execute("SELECT pgseal.retire_key('other', 1)").unwrap_err();
    with_state(error, "25001", "REPEATABLE READ");
}

#[test]
fn null_arguments_give_null() {
    let client = &mut tables();
    client.run("INSERT INTO t (v, x) VALUES ('[]', 'x')");
    for call in [
        "pgseal.encrypt(NULL::jsonb)",
        "pgseal.encrypt(NULL::text)",
        "pgseal.encrypt(NULL::jsonb, 'k', 'c')",
        "pgseal.encrypt(NULL::jsonb, NULL, NULL)",
        "pgseal.decrypt(NULL::encrypted_jsonb)",
        "pgseal.decrypt(NULL::encrypted_text)",
        "pgseal.decrypt(NULL::encrypted_jsonb, 'c')",
        "pgseal.decrypt(v, NULL)",
        "pgseal.decrypt(x, NULL)",
        "pgseal.key_version(NULL::encrypted_jsonb)",
        "pgseal.key_version(NULL::encrypted_text)",
        "pgseal.index_key_version(NULL::encrypted_jsonb)",
        "pgseal.keyring_id(NULL::encrypted_text)",
        "pgseal.filter(NULL)",
        "pgseal.filter(NULL, 'k')",
        "pgseal.filter_any(NULL)",
        "pgseal.filter_any(NULL, 'k')",
        "v @> NULL",
        "v @@ NULL",
        "NULL::encrypted_jsonb @> '[]'",
        "NULL::encrypted_jsonb::encrypted_jsonb(k)",
        "NULL::encrypted_jsonb::jsonb",
        "NULL::encrypted_text::text",
        "pgseal.rotate_key(NULL)",
        "pgseal.rotate_index_key(NULL)",
        "pgseal.rewrap_keys(NULL)",
    ] {
        assert!(client.one::<bool>(&format!("SELECT ({call}) IS NULL FROM t")), "{call}");
    }
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM t WHERE v @@ pgseal.filter_any(ARRAY[NULL]::jsonb[], 'k')"),
        0
    );
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM t WHERE v @@ pgseal.filter_any('{}'::jsonb[], 'k')"),
        0
    );
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.data_key"), 2);
}

#[test]
fn bad_grants() {
    let client = &mut tables();
    for (arguments, state) in [
        ("'k', 'nobody', ARRAY['decrypt']", "42704"),
        ("'k', 'postgres', ARRAY['read']", "22023"),
        ("'k', 'postgres', ARRAY[NULL]", "22023"),
        ("'k', 'postgres', ARRAY['decrypt', NULL]", "22023"),
        ("'k', 'post\"gres', ARRAY['decrypt']", "42704"),
        ("NULL, 'postgres', ARRAY['decrypt']", "42704"),
    ] {
        client.refused(&format!("SELECT pgseal.grant_keyring({arguments})"), state);
    }
    for arguments in ["'k', NULL, ARRAY['decrypt']", "'k', 'postgres', NULL"] {
        let sql = format!("SELECT pgseal.grant_keyring({arguments})");
        assert!(client.batch_execute(&sql).is_err(), "{sql} went through");
    }
}

#[test]
fn many_refusals_leave_the_session_as_it_was() {
    let client = &mut tables();
    client.run("INSERT INTO t (v) VALUES ('{\"a\": 1}')");
    let mut script = String::new();
    for round in 0..200 {
        write!(
            script,
            "BEGIN INSERT INTO t (v) VALUES ('{{\"a\": {round}'); EXCEPTION WHEN invalid_text_representation THEN NULL; END;
             BEGIN PERFORM 'pgseal:AQ=='::encrypted_text; EXCEPTION WHEN invalid_text_representation THEN NULL; END;
             BEGIN PERFORM pgseal.encrypt('x'::text, 'nope'); EXCEPTION WHEN undefined_object THEN NULL; END;"
        )
        .unwrap();
    }
    client.run(&format!("DO $$ BEGIN {script} INSERT INTO t (v) VALUES ('{{\"a\": 1}}'); END $$"));
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE v @> '{\"a\": 1}'"), 2);
}

/// What SQL can call at all, each with NULL for every argument: those that are not STRICT must look for themselves.
#[test]
fn no_function_ends_the_server_when_all_its_arguments_are_null() {
    let mut client = with_keyring("{$.a}");
    let calls: Vec<String> = client.column(
        "SELECT format('SELECT %s(%s)', p.oid::regproc, (SELECT string_agg('NULL::' || format_type(t, NULL), ', ' ORDER BY n)
                                                          FROM unnest(p.proargtypes) WITH ORDINALITY a (t, n)))
           FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
           JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgseal'
          WHERE p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype
            AND NOT p.proargtypes::oid[] && ARRAY['internal'::regtype, 'cstring'::regtype]::oid[]",
    );
    assert!(calls.len() > 80, "{}", calls.len());
    let process: i32 = client.one("SELECT pg_backend_pid()");
    for call in calls {
        // An error is an answer; a connection that is gone is not.
        if let Err(error) = client.simple_query(&call) {
            assert!(error.as_db_error().is_some(), "{call}: {error:?}");
        }
        assert_eq!(client.one::<i32>("SELECT pg_backend_pid()"), process, "{call}");
    }
}
