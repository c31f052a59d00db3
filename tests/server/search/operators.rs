//! jsonb's other operators on encrypted documents, and equality of encrypted text: as on plain jsonb.

use postgres::Client;

use crate::support::{Sql, fresh_database, with_keyring};

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
const EXPRESSIONS: [&str; 32] = [
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
    "(v ->> 'a') LIKE 'x%'",
    "(v ->> 'a') NOT ILIKE 'X%'",
    "(v ->> 'a') ~ '^[xy]$'",
    "(v ->> 'n') < '7.0'",
    "(v ->> 'a') BETWEEN 'a' AND 'x'",
    "(v ->> 'n')::float >= 7",
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
    let mut client = with_keyring("{$.a, $.c}");
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
fn parts_and_changed_documents_keep_their_keyring_and_key() {
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
    client.run("CREATE TABLE notes AS SELECT 'x'::encrypted_text AS body, '{}'::encrypted_jsonb AS sealed");
    for expression in [
        r#"'{"a": "x"}'::jsonb <@ sealed FROM notes"#,
        "'x'::text || sealed FROM notes",
        "body || 'x'::text FROM notes",
        "'x'::text || body FROM notes",
        "sealed @? '$.a' FROM notes",
        "sealed['a'] FROM notes",
    ] {
        let error = client.error(&format!("SELECT {expression}"));
        assert_eq!(error.code().code(), "42846", "{expression}");
        assert!(error.hint().is_some_and(|hint| hint.contains("pgseal.decrypt")), "{expression}");
    }
}

const INDEX: &str = "Bitmap Index Scan on ";

/// The plan's lines where no other scan is to be had.
fn plan(client: &mut Client, query: &str) -> String {
    client.column::<String>(&format!("EXPLAIN (VERBOSE, COSTS OFF) {query}")).join("\n")
}

/// 600 documents as plain jsonb and sealed, with index and statistics, and the sequential scan switched off.
fn indexed() -> Client {
    let mut client = fresh_database();
    client.run(r#"SELECT pgseal.create_keyring('k', ARRAY['$.a', '$.n', '$.o.k', '$.tags', '$."0"', '$'])"#);
    client.run("CREATE TABLE docs (id serial PRIMARY KEY, plain jsonb, sealed encrypted_jsonb(k), words text, body encrypted_text(k))");
    client.run(
        "INSERT INTO docs (plain, sealed, words, body) SELECT j, j, w, w
           FROM generate_series(1, 600) i, format('word %s', i % 40) w, jsonb_build_object('a', 'x' || i % 50, 'n', i % 7,
                'o', jsonb_build_object('k', i % 3 = 0), 'tags', jsonb_build_array('t' || i % 11, i % 5), 'z', 'z' || i % 9) j",
    );
    client.run(r#"INSERT INTO docs (plain, sealed, words, body) VALUES (NULL, NULL, NULL, NULL), ('{}', '{}', '', ''),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}', '', ''), ('["x1", 1]', '["x1", 1]', '', ''), ('"x1"', '"x1"', '', ''),
        ('{"a": null}', '{"a": null}', '', ''), ('{"n": 3.0}', '{"n": 3.0}', '', ''), ('{"0": "x1"}', '{"0": "x1"}', '', '')"#);
    client.run(
        "CREATE INDEX by_token ON docs USING gin (sealed); CREATE INDEX by_word ON docs USING gin (body)",
    );
    client.run("ANALYZE docs; SET enable_seqscan = off; SET jit = off");
    client
}

/// `c` stands for the document's column.
const INDEXED: [&str; 13] = [
    "(c ->> 'a') = 'x7'",
    "'x7' = (c ->> 'a')",
    "(c ->> 'a') = 'x7'::text",
    "'x7'::varchar = (c ->> 'a')",
    "(c ->> 'a') IN ('x7')",
    "(c ->> 'a') IN ('x7'::varchar, 'x8'::varchar)",
    "(c ->> 'n') = '3'",
    "(c #>> '{o,k}') = 'true'",
    "(c #>> '{tags,0}') = 't4'",
    "(c #>> '{tags,-1}') = '4'",
    "(c ->> 0) = 'x1'",
    "(c #>> '{0}') = 'x1'",
    "(c ->> 'a') = 'x7' AND (c ->> 'n') = '3'",
];
/// Exact, and each row is decrypted for it.
const UNINDEXED: [&str; 12] = [
    "(c ->> 'z') = 'z3'",
    "(c ->> 'a') = '{\"b\": 1}'",
    "(c ->> 'a') <> 'x7'",
    "NOT (c ->> 'a') = 'x7'",
    "((c ->> 'a') = 'x7') IS NULL",
    "((c ->> 'a') = 'x7') IS NOT TRUE",
    "(c ->> 'a') IN ('x7', 'x8')",
    "(c ->> 'a') NOT IN ('x7', 'x8')",
    "(c ->> 'a') = ANY ('{x7,x8,NULL}'::text[])",
    "(c ->> 'a') <> ALL ('{x7,x8}'::text[])",
    "(c ->> 'a') IS NOT DISTINCT FROM 'x7'",
    "(c #>> '{}') = 'x1'",
];

fn ids(client: &mut Client, condition: &str, column: &str) -> Vec<i32> {
    let condition = condition.replace("(c ", &format!("({column} "));
    client.column(&format!("SELECT id FROM docs WHERE {condition} ORDER BY id"))
}

#[test]
fn equality_of_a_text_in_a_document_uses_the_token_index() {
    let mut client = indexed();
    for condition in INDEXED {
        let sealed = condition.replace("(c ", "(sealed ");
        let plan = plan(&mut client, &format!("SELECT id FROM docs WHERE {sealed}"));
        assert!(plan.contains(INDEX), "{condition}: {plan}");
        let expected = ids(&mut client, condition, "plain");
        assert!(!expected.is_empty(), "{condition}");
        assert_eq!(ids(&mut client, condition, "sealed"), expected, "{condition}");
    }
}

#[test]
fn other_conditions_on_texts_are_as_exact() {
    let mut client = indexed();
    for condition in UNINDEXED {
        let expected = ids(&mut client, condition, "plain");
        assert!(!expected.is_empty(), "{condition}");
        assert_eq!(ids(&mut client, condition, "sealed"), expected, "{condition}");
    }
}

#[test]
fn conditions_joined_by_or_go_through_the_index_one_by_one() {
    let mut client = indexed();
    for condition in [
        "(c ->> 'a') = 'x7' OR (c ->> 'a') = 'x8'",
        r#"(c ->> 'a') = 'x7' OR (c @> '{"n": 3}')"#,
        "(c ->> 'a') = 'x7' OR ('4' = (c #>> '{tags,1}') AND (c ->> 'n') = '2')",
    ] {
        let sealed = condition.replace("(c ", "(sealed ");
        let plan = plan(&mut client, &format!("SELECT id FROM docs WHERE {sealed}"));
        assert!(plan.contains("BitmapOr"), "{condition}: {plan}");
        assert_eq!(
            ids(&mut client, condition, "sealed"),
            ids(&mut client, condition, "plain"),
            "{condition}"
        );
    }
}

#[test]
fn a_prepared_comparison_uses_the_index_in_both_kinds_of_plan() {
    let mut client = indexed();
    for mode in ["force_generic_plan", "force_custom_plan"] {
        client.run(&format!("SET plan_cache_mode = {mode}"));
        for (name, argument) in [("as_sealed", "$1"), ("as_text", "$1::text")] {
            client.run(&format!(
                "PREPARE {name}_{mode} AS SELECT id FROM docs WHERE sealed ->> 'a' = {argument} ORDER BY id"
            ));
            let plan = plan(&mut client, &format!("EXECUTE {name}_{mode} ('x7')"));
            assert!(plan.contains(INDEX), "{mode}: {plan}");
            let expected: Vec<i32> = client.column("SELECT id FROM docs WHERE plain ->> 'a' = 'x9'");
            assert_eq!(client.column::<i32>(&format!("EXECUTE {name}_{mode} ('x9')")), expected);
            assert_eq!(client.column::<i32>(&format!("EXECUTE {name}_{mode} (NULL)")), [] as [i32; 0]);
        }
    }
}

#[test]
fn a_join_with_a_column_of_texts_looks_each_text_up() {
    let mut client = indexed();
    client.run("CREATE TABLE wanted (name text); INSERT INTO wanted VALUES ('x7'), ('x8'), (NULL), ('none'); ANALYZE wanted");
    // Few rows: reading them all would cost less.
    client.run("SET enable_indexscan = off; SET enable_material = off");
    let join = |column: &str| {
        format!("SELECT id FROM docs JOIN wanted ON {column} ->> 'a' = wanted.name ORDER BY id")
    };
    let plan = plan(&mut client, &join("sealed"));
    assert!(plan.contains(INDEX), "{plan}");
    assert_eq!(client.column::<i32>(&join("sealed")), client.column::<i32>(&join("plain")));
    // Two sealed sides are compared pair by pair.
    let pairs = |column: &str| {
        format!(
            "SELECT count(*) FROM docs x JOIN docs y ON x.{column} ->> 'a' = y.{column} ->> 'a' AND x.id < 60 AND y.id < 60"
        )
    };
    assert_eq!(client.one::<i64>(&pairs("sealed")), client.one::<i64>(&pairs("plain")));
}

#[test]
fn encrypted_text_uses_its_index_where_the_policy_declares_it() {
    let mut client = indexed();
    for condition in ["body = 'word 7'", "'word 7'::text = body", "body = 'word 7' OR body = 'word 8'"] {
        let plan = plan(&mut client, &format!("SELECT id FROM docs WHERE {condition}"));
        assert!(plan.contains("Bitmap Index Scan on by_word"), "{condition}: {plan}");
        let found: Vec<i32> = client.column(&format!("SELECT id FROM docs WHERE {condition} ORDER BY id"));
        let plain = condition.replace("body", "words");
        let expected: Vec<i32> = client.column(&format!("SELECT id FROM docs WHERE {plain} ORDER BY id"));
        assert_eq!(found, expected, "{condition}");
        assert!(!found.is_empty());
    }
    client.run("CREATE DOMAIN sealed_word AS encrypted_text(k); CREATE TABLE words (body sealed_word)");
    client.run("INSERT INTO words SELECT words FROM docs; CREATE INDEX by_domain ON words USING gin (body)");
    let query = "SELECT count(*) FROM words WHERE body = 'word 7'";
    let plan = plan(&mut client, query);
    assert!(plan.contains("Bitmap Index Scan on by_domain"), "{plan}");
    assert_eq!(client.one::<i64>(query), 15);
}

#[test]
fn a_row_without_a_match_is_neither_decrypted_nor_detoasted() {
    let mut client = indexed();
    let long = format!(r#"jsonb_build_object('a', 'x7', 'long', repeat('{}', 200))"#, "0123456789abcdef");
    client.run(&format!(
        "INSERT INTO docs (sealed) SELECT pgseal.encrypt({long}, 'k') FROM generate_series(1, 20)"
    ));
    client.run("SET enable_bitmapscan = off; SET enable_seqscan = on; SET pgseal.recheck = always");
    let counts = "SELECT ARRAY[values_decrypted, values_fetched] FROM pgseal.stat";
    for (condition, decrypted, fetched) in [
        ("sealed ->> 'a' = 'x8'::text", 12, 0),
        (r#"sealed @> '{"a": "x8"}'"#, 12, 0),
        ("sealed ->> 'a' = 'x7'::text", 32, 20),
        ("sealed ->> 'a' = 'none'::text", 0, 0),
    ] {
        let before: Vec<i64> = client.one(counts);
        client.run(&format!("SELECT id FROM docs WHERE {condition}"));
        let after: Vec<i64> = client.one(counts);
        assert_eq!([after[0] - before[0], after[1] - before[1]], [decrypted, fetched], "{condition}");
    }
}

#[test]
fn a_null_among_alternatives_makes_no_match_null() {
    let mut client = with_keyring("{$.k}");
    client
        .run("CREATE TABLE docs (id serial, plain jsonb, sealed encrypted_jsonb(k), loose encrypted_jsonb)");
    client.run(r#"INSERT INTO docs (plain, sealed, loose) SELECT j, j, pgseal.encrypt(j, 'k') FROM unnest(ARRAY['{"k": "a"}', '{"k": "b"}', '{}']::jsonb[]) j"#);
    client.run("CREATE INDEX ON docs USING gin (sealed)");
    for keyrings in [1, 2] {
        if keyrings == 2 {
            client.run("SELECT pgseal.create_keyring('other')");
        }
        for scan in ["SET enable_seqscan = off", "SET enable_seqscan = on"].into_iter().take(3 - keyrings) {
            client.run(scan);
            for list in [
                r#"ARRAY[NULL, '{"k":"a"}']::jsonb[]"#,
                r#"ARRAY['{"k":"a"}', '{"k":"b"}', NULL]::jsonb[]"#,
                "ARRAY[NULL]::jsonb[]",
                "ARRAY[NULL, NULL]::jsonb[]",
                "'{}'::jsonb[]",
                r#"ARRAY['{"k":"a"}']::jsonb[]"#,
                "NULL::jsonb[]",
            ] {
                for column in ["sealed", "loose"] {
                    for list_given in [list.to_owned(), format!("(SELECT {list})")] {
                        let answers = |condition: String| {
                            format!(
                                "SELECT string_agg(coalesce(({condition})::text, '-') || coalesce((NOT {condition})::text, '-'), ' ' ORDER BY id) FROM docs"
                            )
                        };
                        let ids = |condition: String| {
                            format!(
                                "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM docs WHERE {condition}"
                            )
                        };
                        let plain = format!("(plain @> ANY ({list}))");
                        let asked = format!("({column} @@ pgseal.filter_any({list_given}))");
                        let expected: String = client.one(&answers(plain.clone()));
                        assert_eq!(client.one::<String>(&answers(asked.clone())), expected, "{asked}");
                        for not in ["", "NOT "] {
                            let expected: String = client.one(&ids(format!("{not}{plain}")));
                            assert_eq!(
                                client.one::<String>(&ids(format!("{not}{asked}"))),
                                expected,
                                "{not}{asked}"
                            );
                        }
                    }
                }
            }
        }
    }
    client.run("SET enable_seqscan = off");
    let plan =
        r#"EXPLAIN SELECT FROM docs WHERE sealed @@ pgseal.filter_any(ARRAY[NULL, '{"k":"a"}']::jsonb[])"#;
    assert!(client.column::<String>(plan).join("\n").contains("Bitmap Index Scan"));
}

#[test]
fn subscripts_in_a_path_are_read_as_jsonb_reads_them() {
    let mut client = with_keyring("{$.**}");
    client.run("CREATE TABLE docs (id serial, plain jsonb, sealed encrypted_jsonb(k))");
    client.run("CREATE TABLE steps (step text PRIMARY KEY)");
    // Blanks of every kind, signs, digits and what comes behind.
    client.run(
        r"INSERT INTO steps SELECT DISTINCT blank || sign || digits || tail FROM
            unnest(ARRAY['', ' ', E'\t', E'\n', E'\x0B', E'\x0C', E'\r', E' \x0B\t ', E'\u00A0', E'\u2003', E'\u0085', E'\x1C']) blank,
            unnest(ARRAY['', '+', '-', '--', '+-', '- ']) sign,
            unnest(ARRAY['', '0', '1', '00', '2147483647', '2147483648', '4294967296', '9223372036854775808', '0x0', '0e0', E'\uFF11']) digits,
            unnest(ARRAY['', ' ', E'\x0B', 'a']) tail",
    );
    client.run(
        r#"INSERT INTO docs (plain, sealed) SELECT j, j FROM (
             SELECT unnest(ARRAY['{"a": ["x", "y", "x"]}', '{"a": [["x"], ["y", "x"]]}', '["x", ["x"]]', '"x"', '{"a": {"0": "x", "1": ["x"]}}']::jsonb[]) j
             UNION ALL SELECT jsonb_build_object('a', jsonb_build_object(step, 'x')) FROM steps WHERE length(step) < 4) d"#,
    );
    client.run("CREATE INDEX ON docs USING gin (sealed); ANALYZE docs");
    let steps: Vec<String> = client.column("SELECT step FROM steps ORDER BY random() LIMIT 30");
    let always = ["\u{B}0", " 0", "\u{C}-1", "+0", "\u{B}+\u{B}0"].map(String::from);
    for scan in ["SET enable_seqscan = off", "SET enable_seqscan = on; SET enable_bitmapscan = off"] {
        client.run(scan);
        for step in always.iter().chain(&steps) {
            let quoted = format!("E'{}'", step.replace('\\', "\\\\"));
            for condition in [
                format!("COLUMN #>> ARRAY['a', {quoted}] = 'x'"),
                format!("COLUMN #>> ARRAY[{quoted}] = 'x'"),
                format!("COLUMN #>> ARRAY['a', {quoted}, {quoted}] = 'x'"),
            ] {
                let ids = |column: &str| {
                    let condition = condition.replace("COLUMN", column);
                    format!(
                        "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM docs WHERE {condition}"
                    )
                };
                let expected: String = client.one(&ids("plain"));
                assert_eq!(client.one::<String>(&ids("sealed")), expected, "{step:?}: {condition}");
            }
        }
    }
    // These ask jsonb itself; errors are the same too.
    for step in always.iter().chain(steps.iter().take(10)) {
        let quoted = format!("E'{}'", step.replace('\\', "\\\\"));
        for (sealed, plain) in [
            ("pgseal.decrypt(sealed #> ARRAY['a', STEP])", "plain #> ARRAY['a', STEP]"),
            ("pgseal.decrypt(sealed #- ARRAY['a', STEP])", "plain #- ARRAY['a', STEP]"),
            ("pgseal.decrypt(sealed - STEP::text)", "plain - STEP::text"),
        ] {
            let answer = |client: &mut Client, expression: &str| {
                let asked = format!(
                    "SELECT string_agg(coalesce(({})::text, '-'), ' ' ORDER BY id) FROM docs WHERE plain <> '\"x\"'",
                    expression.replace("STEP", &quoted)
                );
                client
                    .query_one(&asked, &[])
                    .map(|row| row.get::<_, String>(0))
                    .map_err(|error| error.code().map(|code| code.code().to_owned()))
            };
            let expected = answer(&mut client, plain);
            assert_eq!(answer(&mut client, sealed), expected, "{step:?}: {plain}");
        }
    }
}
