//! jsonb's other operators on encrypted documents, and equality of encrypted text: as on plain jsonb.

use postgres::Client;

use crate::support::{Sql, fresh_database};

const DOCUMENTS: [&str; 10] = [
    r#"{"a": "x", "n": 7, "tags": ["p", "q"], "o": {"k": null, "é": true}}"#,
    r#"{"a": "y", "n": 7.0, "tags": []}"#,
    r#"{"a": null}"#,
    r#"{"a": {"b": [1, {"c": "deep"}]}}"#,
    r#"["a", "x", 3, {"a": "x"}]"#,
    r#""a""#,
    "7",
    "null",
    "{}",
    "[]",
];

/// Written with `v` for the document.
const EXPRESSIONS: [&str; 26] = [
    "v -> 'a'",
    "v -> 0",
    "v -> -1",
    "v -> 'o' -> 'é'",
    "v #> '{a,b,1}'",
    "v #> '{}'",
    "v ->> 'a'",
    "v ->> 'n'",
    "v ->> 1",
    "v #>> '{a,b,1,c}'",
    "v #>> '{o,é}'",
    "v ? 'a'",
    "v ? 'é'",
    "v ?| ARRAY['zz', 'n']",
    "v ?& ARRAY['a', 'n']",
    "(v ->> 'a') = 'x'",
    "'x' = (v ->> 'a')",
    "(v ->> 'a') = 'x'::text",
    "(v ->> 'a') <> 'x'",
    "NOT (v ->> 'a') = 'x'",
    "(v ->> 'n') IN ('7', '8')",
    "(v ->> 'n') NOT IN ('7', '8')",
    "(v ->> 'a') = ANY ('{x,y}'::text[])",
    "(v ->> 'a') = (v #>> '{a}')",
    "(v ->> 'a') IS NULL",
    "CASE v ->> 'a' WHEN 'x' THEN 1 ELSE 2 END",
];

/// Those that some documents refuse, plain or not: objects and arrays only.
const CHANGES: [&str; 7] = [
    r#"v || '{"b": 1}'"#,
    r#"v || '["z"]'"#,
    "v - 'a'",
    "v - ARRAY['a', 'x']",
    "v - 0",
    "v #- '{tags,0}'",
    "v #- '{a,b}'",
];

fn database() -> Client {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.a', '$.c'])");
    client.run("CREATE TABLE docs (id serial PRIMARY KEY, plain jsonb, sealed encrypted_jsonb(k))");
    for document in DOCUMENTS {
        client.run(&format!("INSERT INTO docs (plain, sealed) VALUES ('{document}', '{document}')"));
    }
    client.run("INSERT INTO docs (plain) VALUES (NULL)");
    client
}

/// The expression's text for each row; an error stands as its SQLSTATE.
fn answers(client: &mut Client, expression: &str, column: &str) -> Vec<Result<Option<String>, String>> {
    let expression = expression.replace("v ", &format!("{column} "));
    let ids: Vec<i32> = client.column("SELECT id FROM docs ORDER BY id");
    let ask = |id: i32| format!("SELECT ({expression})::text FROM docs WHERE id = {id}");
    let state = |error: postgres::Error| error.code().unwrap().code().to_owned();
    ids.into_iter().map(|id| client.query_one(&ask(id), &[]).map(|row| row.get(0)).map_err(state)).collect()
}

#[test]
fn every_operator_answers_as_on_plain_jsonb() {
    let mut client = database();
    for expression in EXPRESSIONS.iter().chain(&CHANGES) {
        let expected = answers(&mut client, expression, "plain");
        assert_eq!(answers(&mut client, expression, "sealed"), expected, "{expression}");
        assert!(expected.iter().any(|answer| *answer != expected[0]), "{expression} tells nothing apart");
    }
}

#[test]
fn parts_and_changed_documents_are_sealed_under_the_same_keyring_and_key() {
    let mut client = database();
    client.run("SELECT pgseal.rotate_key('k')");
    client.run("SELECT pgseal.create_keyring('other'); SELECT pgseal.set_default_keyring('other')");
    for part in ["sealed -> 'a'", "sealed ->> 'a'", r#"sealed || '{"c": 2}'"#] {
        let same = format!(
            "SELECT pgseal.keyring_id({part}) = pgseal.keyring_id(sealed) AND pgseal.key_version({part}) = 2
               FROM docs WHERE id = 1"
        );
        assert!(client.one::<bool>(&same), "{part}");
    }
    // A changed document is searchable, a part of one is looked into.
    client.run(r#"UPDATE docs SET sealed = sealed || '{"c": 2}' WHERE id = 1"#);
    assert_eq!(client.one::<i32>("SELECT pgseal.index_key_version(sealed) FROM docs WHERE id = 1"), 1);
    assert_eq!(client.one::<i32>("SELECT pgseal.index_key_version(sealed -> 'a') FROM docs WHERE id = 1"), 0);
    assert_eq!(client.column::<i32>(r#"SELECT id FROM docs WHERE sealed @> '{"c": 2}'"#), [1]);
    assert_eq!(client.column::<i32>(r#"SELECT id FROM docs WHERE sealed -> 'o' @> '{"é": true}'"#), [1]);
}

#[test]
fn a_bound_document_stays_bound_when_it_is_changed() {
    let mut client = database();
    client.run(r#"UPDATE docs SET sealed = pgseal.encrypt('{"a": 1}'::jsonb, 'k', 'row 1') WHERE id = 1"#);
    client.run(r#"UPDATE docs SET sealed = sealed || '{"b": 2}' WHERE id = 1"#);
    assert_eq!(client.state("SELECT pgseal.decrypt(sealed) FROM docs WHERE id = 1"), "22000");
    let read = "SELECT (pgseal.decrypt(sealed, 'row 1') ->> 'b')::int FROM docs WHERE id = 1";
    assert_eq!(client.one::<i32>(read), 2);
}

#[test]
fn encrypted_text_compares_by_its_plaintext() {
    let mut client = database();
    client.run("CREATE TABLE notes (id int, body encrypted_text(k))");
    client.run("INSERT INTO notes VALUES (1, 'one'), (2, 'two'), (3, 'one'), (4, NULL), (5, '')");
    let ids = |client: &mut Client, condition: &str| {
        client.column::<i32>(&format!("SELECT id FROM notes WHERE {condition} ORDER BY id"))
    };
    assert_eq!(ids(&mut client, "body = 'one'"), [1, 3]);
    assert_eq!(ids(&mut client, "body <> 'one'"), [2, 5]);
    assert_eq!(ids(&mut client, "'one'::text = body"), [1, 3]);
    assert_eq!(ids(&mut client, "body IN ('two', '')"), [2, 5]);
    assert_eq!(ids(&mut client, "body = (SELECT body FROM notes WHERE id = 3)"), [1, 3]);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM notes a JOIN notes b ON a.body = b.body"), 6);
    // The two rows have nothing in common on disk.
    assert!(!client.one::<bool>(
        "SELECT pgseal.encrypted_text_send(a.body) = pgseal.encrypted_text_send(b.body)
           FROM notes a, notes b WHERE a.id = 1 AND b.id = 3"
    ));
}

#[test]
fn what_ciphertext_cannot_answer_is_refused_with_a_hint() {
    let mut client = database();
    client.run("CREATE TABLE notes AS SELECT 'x'::encrypted_text AS body");
    for expression in [
        "sealed = sealed FROM docs",
        r#"'{"a": "x"}'::jsonb <@ sealed FROM docs"#,
        "'x'::text || sealed FROM docs",
        "body || 'x'::text FROM notes",
        "'x'::text || body FROM notes",
    ] {
        let error = client.error(&format!("SELECT {expression}"));
        assert_eq!(error.code().code(), "42883", "{expression}");
        assert!(error.hint().is_some_and(|hint| hint.contains("pgseal.decrypt")), "{expression}");
    }
    for refused in ["SELECT DISTINCT sealed FROM docs", "SELECT sealed FROM docs ORDER BY sealed"] {
        assert_eq!(client.state(refused), "42883", "{refused}");
    }
}

#[test]
fn looking_into_a_document_needs_search_and_changing_it_encrypt() {
    let mut client = database();
    let name: String = client.one("SELECT current_database()::text");
    let role = format!("{name}_reader");
    client.run(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON docs TO {role}"));
    let mut session = crate::support::shared().connect_as(&role, &name);
    let (look, change) = ("SELECT sealed -> 'a' FROM docs", "SELECT sealed - 'a' FROM docs WHERE id = 1");
    assert_eq!([session.state(look), session.state(change)], ["42501", "42501"]);
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['search'])"));
    session.run(look);
    assert_eq!(session.state(change), "42501");
    assert_eq!(session.state("SELECT (sealed ->> 'a')::text FROM docs"), "42501");
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt'])"));
    session.run(change);
}
