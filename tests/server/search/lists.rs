//! Lists, IN and texts deep in a document: through the token index, with the answers of plain jsonb.

use postgres::Client;

use crate::support::{Cluster, Sql, fresh_database, shared};

/// 600 documents and texts, plain, in a column with and in one without keyring, under two index key versions; some have
/// nothing to compare with.
fn database() -> Client {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.a', '$.n', '$.o.c', '$.o.p.q', '$.tags', '$'])");
    client.run(
        "CREATE TABLE docs (id serial PRIMARY KEY, plain jsonb, sealed encrypted_jsonb(k), loose encrypted_jsonb, words text, body encrypted_text(k));
         CREATE TABLE wanted (name text, words text[]); INSERT INTO wanted VALUES ('x7', '{x1,x2}'), ('x8', '{}'), ('none', '{x3,NULL}')",
    );
    for version in [1, 2] {
        client.run(&format!(
            "INSERT INTO docs (plain, sealed, loose, words, body) SELECT j, j, pgseal.encrypt(j, 'k'), w, w
               FROM generate_series(1, 300) i, format('word %s', i % 40) w, jsonb_build_object('a', 'x' || i % 50, 'n', i % 7,
                    'o', jsonb_build_object('c', 'y' || i % 30, 'p', jsonb_build_object('q', i % 3 = 0)),
                    'tags', jsonb_build_array('t' || i % 11, jsonb_build_array('u' || i % 5)), 'z', 'z{version}') j"
        ));
        if version == 1 {
            client.run("SELECT pgseal.rotate_index_key('k')");
        }
    }
    client.run(
        r#"INSERT INTO docs (plain, sealed, loose, words, body)
           SELECT j, j, pgseal.encrypt(j, 'k'), '', '' FROM unnest(ARRAY['{}', '{"a": null}', '{"a": {"b": 1}}', '{"n": 3.0}', '{"a": ["x7"]}',
               '{"o": "y1"}', '{"o": ["y1"]}', '["x7"]', '"x7"', '{"tags": "t1"}']::jsonb[]) j;
           INSERT INTO docs (plain) VALUES (NULL);
           CREATE INDEX ON docs USING gin (sealed); CREATE INDEX ON docs USING gin (loose); CREATE INDEX ON docs USING gin (body);
           ANALYZE docs; ANALYZE wanted; SET enable_seqscan = off; SET jit = off"#,
    );
    client
}

const INDEX: &str = "Bitmap Index Scan on docs_";

fn plan(client: &mut Client, query: &str) -> String {
    client.column::<String>(&format!("EXPLAIN (VERBOSE, COSTS OFF) {query}")).join("\n")
}

/// `c` is the document's column, `t` the text's.
fn written(condition: &str, column: &str) -> String {
    let text = if column == "plain" { "words" } else { "body" };
    condition.replace("(c ", &format!("({column} ")).replace("(t ", &format!("({text} "))
}

fn ids(client: &mut Client, condition: &str, column: &str) -> Vec<i32> {
    let condition = written(condition, column);
    client.column(&format!("SELECT id FROM docs WHERE {condition} ORDER BY id"))
}

/// Through the index, with `c` or `t` for the column.
const INDEXED: [&str; 24] = [
    "(c ->> 'a') IN ('x7', 'x8')",
    "(c ->> 'a') IN ('x7', 'none', NULL)",
    "(c ->> 'a') = ANY ('{x7,x8}'::text[])",
    "(c ->> 'a') = ANY (ARRAY['x7', 'x8'])",
    "(c ->> 'a') = ANY (ARRAY['x7', upper('none')])",
    "(c ->> 'a') = ANY ('{x7,x8,NULL}'::varchar[])",
    "(c ->> 'n') IN ('3', '3.0', 'true')",
    "(c #>> '{o,p,q}') IN ('true', 'x')",
    "(c ->> 0) IN ('x7', 'x8')",
    "(c ->> 'a') IN (SELECT name FROM wanted)",
    "(c ->> 'a') = ANY (ARRAY(SELECT name FROM wanted))",
    "(c ->> 'a') IN (VALUES ('x7'), ('x8'))",
    "(t ) IN ('word 7', 'word 8', '')",
    "(t ) = ANY ('{word 7,word 8}'::text[])",
    "(t ) IN (SELECT 'word ' || n FROM generate_series(3, 5) n)",
    r#"(c @> ANY (ARRAY['{"a": "x7"}', '{"o": {"c": "y1"}}']::jsonb[]))"#,
    r#"(c @> ANY (ARRAY['{"a": "x7", "n": 0}', NULL]::jsonb[]))"#,
    "(c -> 'o' ->> 'c') = 'y1'",
    "(c -> 'o' ->> 'c') IN ('y1', 'y2')",
    "(c -> 'o' -> 'p' ->> 'q') = 'true'",
    "(c #> '{o}' -> 'p' #>> '{q}') = 'false'",
    "(c -> 'tags' ->> 0) = 't1'",
    "(c -> 'tags' -> 1 ->> 0) IN ('u1', 'u2')",
    "'y1' = (c -> 'o' ->> 'c') AND (c ->> 'a') IN ('x1', 'x31')",
];

/// Exact, and each row is opened for it.
const UNINDEXED: [&str; 13] = [
    "(c ->> 'z') IN ('z1', 'none')",
    "(c ->> 'a') NOT IN ('x7', 'x8')",
    "(c ->> 'a') <> ALL ('{}'::text[])",
    "NOT (c ->> 'a') = ANY ('{}'::text[])",
    "(c ->> 'a') IN ('x7', '{\"b\": 1}')",
    "((c ->> 'a') = ANY ('{x7,NULL}'::text[])) IS NULL",
    "((c ->> 'a') = ANY (NULL::text[])) IS NULL",
    "((c ->> 'a') NOT IN (SELECT name FROM wanted)) IS NOT TRUE",
    "(t ) NOT IN ('word 7', '')",
    "(c -> 'o' ->> 'c') <> 'y1'",
    "(c -> 'o' ->> 'c') NOT IN ('y1', 'y2')",
    r#"NOT (c @> ANY (ARRAY['{"a": "x7"}', '{"n": 3}']::jsonb[]))"#,
    "(c ->> 'a') = ANY (CASE WHEN id % 2 = 0 THEN ARRAY['x8'] ELSE '{x7}' END)",
];

#[test]
fn lists_and_nested_texts_use_the_token_index() {
    let mut client = database();
    for condition in INDEXED {
        let expected = ids(&mut client, condition, "plain");
        assert!(!expected.is_empty(), "{condition}");
        for column in ["sealed", "loose"] {
            let query = format!("SELECT id FROM docs WHERE {}", written(condition, column));
            let plan = plan(&mut client, &query);
            assert!(plan.contains(INDEX), "{query}: {plan}");
            assert_eq!(ids(&mut client, condition, column), expected, "{query}");
        }
    }
}

#[test]
fn other_conditions_with_lists_are_as_exact() {
    let mut client = database();
    for condition in UNINDEXED {
        let expected = ids(&mut client, condition, "plain");
        assert!(!expected.is_empty(), "{condition}");
        for column in ["sealed", "loose"] {
            assert_eq!(ids(&mut client, condition, column), expected, "{condition}");
        }
    }
}

/// What `condition` and its opposite are for each row: t, f or nothing.
fn answers(client: &mut Client, condition: &str, column: &str) -> String {
    let condition = written(condition, column);
    client.one(&format!(
        "SELECT string_agg(concat(id, ({condition})::text, (NOT {condition})::text), ' ' ORDER BY id) FROM docs WHERE id % 25 < 2 OR id > 600"
    ))
}

#[test]
fn lists_know_true_false_and_null_as_on_plain_jsonb() {
    let mut client = database();
    let lists =
        ["{}", "{NULL}", "{x7}", "{x7,NULL}", "{none}", "{none,NULL,7}", "{x7,x8,x7}", "{3,true,\"\"}"];
    for list in lists {
        client.run(&format!("CREATE OR REPLACE TEMP VIEW given AS SELECT '{list}'::text[] AS list"));
        let given = [
            format!("'{list}'::text[]"),
            "(SELECT list FROM given)::text[]".into(),
            "(SELECT list FROM given OFFSET 0)::text[]".into(),
        ];
        for given in given {
            for test in ["= ANY", "<> ALL", "<> ANY", "= ALL"] {
                for read in ["(c ->> 'a')", "(c -> 'o' ->> 'c')", "(c ->> 'n')", "(t )"] {
                    let condition = format!("({read} {test} ({given}))");
                    let expected = answers(&mut client, &condition, "plain");
                    for column in ["sealed", "loose"] {
                        assert_eq!(
                            answers(&mut client, &condition, column),
                            expected,
                            "{column}: {condition}"
                        );
                    }
                }
            }
        }
        let condition = format!("((c ->> 'a') IN (SELECT unnest('{list}'::text[])))");
        assert_eq!(
            answers(&mut client, &condition, "sealed"),
            answers(&mut client, &condition, "plain"),
            "{condition}"
        );
    }
    for list in ["{}", "{NULL}", r#"{"{\"n\": 3}"}"#, r#"{"{\"n\": 3}",NULL}"#, "{null,1}"] {
        for given in [format!("'{list}'::jsonb[]"), format!("(SELECT '{list}'::jsonb[] OFFSET 0)::jsonb[]")] {
            let condition = format!("((c @> ANY ({given})))");
            assert_eq!(
                answers(&mut client, &condition, "sealed"),
                answers(&mut client, &condition, "plain"),
                "{condition}"
            );
        }
    }
}

#[test]
fn a_prepared_list_uses_the_index_in_both_kinds_of_plan() {
    let mut client = database();
    for mode in ["force_generic_plan", "force_custom_plan"] {
        client.run(&format!("SET plan_cache_mode = {mode}; DEALLOCATE ALL"));
        let of = |column: &str| format!("SELECT count(*) FROM docs WHERE {column} ->> 'a' = ANY ($1)");
        client.run(&format!(
            "PREPARE plain (text[]) AS {}; PREPARE sealed (text[]) AS {}",
            of("plain"),
            of("sealed")
        ));
        client.run(&format!("PREPARE untyped AS {}", of("sealed")));
        client.run("PREPARE pair AS SELECT count(*) FROM docs WHERE sealed ->> 'a' IN ($1, $2)");
        for name in ["sealed", "untyped"] {
            let plan = plan(&mut client, &format!("EXECUTE {name} ('{{x7,x8}}')"));
            assert!(plan.contains(INDEX) && !plan.contains("x7"), "{mode}: {plan}");
            for list in ["'{x7,x9,none}'", "'{}'", "'{NULL}'", "NULL", "'{x7,NULL}'"] {
                let expected: i64 = client.one(&format!("EXECUTE plain ({list})"));
                assert_eq!(
                    client.one::<i64>(&format!("EXECUTE {name} ({list})")),
                    expected,
                    "{mode}: {name} {list}"
                );
            }
        }
        let found: i64 = client.one("EXECUTE pair ('x7', 'x8')");
        assert_eq!(found, client.one::<i64>("EXECUTE plain ('{x7,x8}')"));
    }
}

#[test]
fn a_thousand_elements_stay_indexed_and_out_of_sight() {
    let mut client = database();
    let texts: Vec<String> = (0..1000).map(|at| format!("x{}", at * 3)).collect();
    let quoted: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
    let (listed, array) = (quoted.join(", "), texts.join(","));
    for condition in
        [format!("(c ->> 'a') IN ({listed})"), format!("(c ->> 'a') = ANY ('{{{array}}}'::text[])")]
    {
        let query = format!("SELECT id FROM docs WHERE {}", written(&condition, "sealed"));
        let plan = plan(&mut client, &query);
        assert!(
            plan.contains(INDEX) && plan.contains("<filter: k, 1 group, decided>") && !plan.contains("x3"),
            "{plan:.2000}"
        );
        assert_eq!(ids(&mut client, &condition, "sealed"), ids(&mut client, &condition, "plain"));
    }
    let before: i64 = client.one("SELECT values_decrypted FROM pgseal.stat");
    client.run("SET pgseal.recheck = always");
    let found = ids(&mut client, "(c ->> 'a') = ANY ('{x7,x8}'::text[])", "sealed").len() as i64;
    assert_eq!(client.one::<i64>("SELECT values_decrypted FROM pgseal.stat") - before, found, "once each");
}

#[test]
fn a_list_finds_its_rows_wherever_it_stands() {
    let mut client = database();
    client.run(
        "CREATE VIEW seen AS SELECT * FROM docs WHERE sealed ->> 'a' IN ('x7', 'x8');
         CREATE FUNCTION looped() RETURNS SETOF int LANGUAGE plpgsql STABLE AS
             $$ DECLARE list text[] := '{x7,x8}'; BEGIN RETURN QUERY SELECT id FROM docs WHERE sealed ->> 'a' = ANY (list); END $$;
         CREATE FUNCTION asked() RETURNS SETOF int LANGUAGE sql STABLE AS $$ SELECT id FROM docs WHERE sealed ->> 'a' IN ('x7', 'x8') $$;
         CREATE TABLE parts (LIKE docs) PARTITION BY HASH (id);
         CREATE TABLE part_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE part_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO parts SELECT * FROM docs; CREATE INDEX ON parts USING gin (sealed)",
    );
    let expected = ids(&mut client, "(c ->> 'a') IN ('x7', 'x8')", "plain");
    for (query, looks_inside) in [
        ("SELECT id FROM seen", true),
        ("SELECT id FROM looped() id", false),
        ("SELECT id FROM asked() id", true),
        ("SELECT id FROM parts WHERE sealed ->> 'a' IN ('x7', 'x8')", true),
        (
            "WITH w AS MATERIALIZED (SELECT id FROM docs WHERE sealed ->> 'a' IN ('x7', 'x8')) SELECT id FROM w",
            true,
        ),
        (
            "SELECT d.id FROM docs d WHERE EXISTS (SELECT FROM docs e WHERE e.id = d.id AND e.sealed ->> 'a' IN ('x7', 'x8'))",
            true,
        ),
        (
            "SELECT id FROM docs d WHERE id IN (SELECT e.id FROM docs e WHERE e.sealed ->> 'a' = ANY (ARRAY['x7', 'x8']))",
            true,
        ),
        ("SELECT id FROM docs WHERE false OR sealed ->> 'a' IN ('x7', 'x8')", true),
        ("SELECT id FROM docs WHERE sealed ->> 'a' = 'x7' OR sealed ->> 'a' IN ('x8', 'none')", true),
    ] {
        let found: Vec<i32> = client.column(&format!("SELECT id FROM ({query}) q ORDER BY id"));
        assert_eq!(found, expected, "{query}");
        if looks_inside {
            let plan = plan(&mut client, query);
            assert!(plan.contains("Bitmap Index Scan"), "{query}: {plan}");
        }
    }
    let rows = expected.len() as u64;
    for statement in [
        "UPDATE docs SET words = words WHERE sealed ->> 'a' IN ('x7', 'x8')",
        "INSERT INTO docs (id) SELECT id FROM docs ON CONFLICT (id) DO UPDATE SET words = 'w' WHERE docs.sealed ->> 'a' IN ('x7', 'x8')",
        "MERGE INTO docs USING docs s ON s.id = docs.id WHEN MATCHED AND docs.sealed ->> 'a' IN ('x7', 'x8') THEN UPDATE SET words = 'm'",
        "DELETE FROM docs WHERE sealed ->> 'a' IN ('x7', 'x8')",
    ] {
        assert_eq!(client.execute(statement, &[]).unwrap(), rows, "{statement}");
    }
    // One row of `wanted` has a list, of which each row of the other table makes a filter.
    let joined: Vec<i32> =
        client.column("SELECT id FROM parts JOIN wanted ON sealed ->> 'a' = ANY (wanted.words) ORDER BY id");
    assert_eq!(
        joined,
        client.column::<i32>(
            "SELECT id FROM parts JOIN wanted ON plain ->> 'a' = ANY (wanted.words) ORDER BY id"
        )
    );
}

#[test]
fn a_list_goes_through_the_index_below_a_policy() {
    let mut client = database();
    let name = client.database();
    let role = format!("{name}_reader");
    client.run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON docs TO {role}; SELECT pgseal.grant_keyring('k', '{role}', '{{search}}');
         ALTER TABLE docs ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON docs USING (id % 2 = 0 AND sealed ->> 'n' IN ('1', '2', '3'))"
    ));
    let expected: Vec<i32> = client.column(
        "SELECT id FROM docs WHERE id % 2 = 0 AND plain ->> 'n' IN ('1', '2', '3') AND plain ->> 'a' IN ('x7', 'x8') ORDER BY id",
    );
    assert!(!expected.is_empty());
    let mut reader = shared().connect_as(&role, &name);
    reader.run("SET enable_seqscan = off; SET jit = off");
    let query = "SELECT id FROM docs WHERE sealed ->> 'a' IN ('x7', 'x8') ORDER BY id";
    assert_eq!(reader.column::<i32>(query), expected);
    let plan = plan(&mut reader, query);
    assert!(plan.contains(INDEX), "{plan}");
    // Who may only search asks of what is declared, and a list tells no more than `=` does.
    assert_eq!(reader.state("SELECT FROM docs WHERE sealed ->> 'z' IN ('z1', 'z2')"), "42501");
    assert_eq!(reader.state("SELECT FROM docs WHERE sealed -> 'o' ->> 'z' = 'z1'"), "42501");
    client.run(&format!("SELECT pgseal.revoke_keyring('k', '{role}')"));
    assert_eq!(reader.state(query), "42501");
}

#[test]
fn the_session_chooses_whose_values_a_list_meets() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('a', '{$.k}'), pgseal.create_keyring('b', '{$.k}');
         CREATE TABLE t (id int, m encrypted_jsonb, x encrypted_text);
         INSERT INTO t SELECT i, pgseal.encrypt(jsonb_build_object('k', i % 3, 'o', jsonb_build_object('c', i % 3)), k), pgseal.encrypt((i % 3)::text, k)
           FROM generate_series(1, 12) i, LATERAL (SELECT CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END) c (k);
         CREATE INDEX ON t USING gin (m); SET jit = off",
    );
    let conditions = [
        ("m ->> 'k' IN ('1', '7')", "m ->> 'k' NOT IN ('0', '2', '7')"),
        ("x = ANY ('{1,7}'::text[])", "x <> ALL ('{0,2}'::text[])"),
        ("m -> 'o' ->> 'c' IN ('1', '7')", "NOT m -> 'o' ->> 'c' IN ('0', '2')"),
        (r#"m @> ANY ('{"{\"k\": 1}"}'::jsonb[])"#, r#"m @> ANY ('{"{\"k\": 1}",NULL}'::jsonb[])"#),
    ];
    for scan in ["SET enable_seqscan = off", "SET enable_seqscan = on; SET enable_bitmapscan = off"] {
        client.run(scan);
        for (one, other) in conditions {
            for condition in [one, other] {
                client.run(&format!("DEALLOCATE ALL; PREPARE ask AS SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM t WHERE {condition}"));
                for mode in ["force_generic_plan", "force_custom_plan"] {
                    client.run(&format!("SET plan_cache_mode = {mode}"));
                    for (setting, expected) in [
                        ("RESET pgseal.keyring", "1 4 7 10"),
                        ("SET pgseal.keyring = a", "4 10"),
                        ("SET pgseal.keyring = b", "1 7"),
                    ] {
                        client.run(setting);
                        assert_eq!(
                            client.one::<String>("EXECUTE ask"),
                            expected,
                            "{scan}; {setting}; {mode}: {condition}"
                        );
                    }
                }
            }
        }
        // Of something computed, each value answers by its own keyring.
        client.run("SET pgseal.keyring = a");
        let computed =
            "SELECT count(*) FROM (SELECT unnest(array_agg(x)) AS x FROM t OFFSET 0) q WHERE x IN ('1', '7')";
        assert_eq!(client.one::<i64>(computed), 4);
        client.run("RESET pgseal.keyring");
    }
}

#[test]
fn without_the_library_before_the_statement_a_list_is_as_exact() {
    let mut client = database();
    let name = client.database();
    let expected = ids(&mut client, "(c ->> 'a') IN ('x7', 'x8')", "plain");
    for condition in ["sealed ->> 'a' IN ('x7', 'x8')", "sealed ->> 'a' = ANY ('{x7,x8}'::text[])"] {
        // Its first statement of ours loads the library.
        let mut fresh = shared().connect(&name);
        let query = format!("SELECT id FROM docs WHERE {condition} ORDER BY id");
        assert_eq!(fresh.column::<i32>(&query), expected, "{condition}");
        assert_eq!(fresh.column::<i32>(&query), expected, "{condition}, again");
    }
    let preloaded = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
    let mut client = preloaded.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k', '{$.a}'); CREATE TABLE t (m encrypted_jsonb(k)); INSERT INTO t SELECT jsonb_build_object('a', i) FROM generate_series(1, 100) i; CREATE INDEX ON t USING gin (m)");
    let mut client = preloaded.connect("postgres");
    let plan = plan(&mut client, "SELECT FROM t WHERE m ->> 'a' = ANY ('{1,2}'::text[])");
    assert!(plan.contains("<filter: k, 1 group, decided>"), "{plan}");
}

/// `D` is the document and `T` the text, decrypted.
const DECRYPTED: [&str; 18] = [
    r#"D -> 'a' = '"x7"'"#,
    "'3' = (D -> 'n')",
    r#"D['o']['c'] = '"y1"'"#,
    r#"D #> '{o}' -> 'p' = '{"q": true}'"#,
    r#"D @> '{"a": "x7"}'"#,
    "D @> jsonb_build_object('a', 'x7')",
    r#"'{"o": {"c": "y1"}}' <@ D"#,
    "D ->> 'a' = 'x7'",
    "'x7' = (D ->> 'a')",
    "(D ->> 'a')::varchar IN ('x7', 'x8')",
    "D ->> 'a' = ANY ('{x7,NULL}'::text[])",
    "D -> 'o' ->> 'c' = 'y1'",
    "D #>> ARRAY['o', 'c'] IN ('y1', 'y2')",
    "D['o'] -> 'p' ->> 'q' = 'true'",
    "D -> 'tags' -> 1 ->> 0 = 'u1'",
    "T = 'word 7'",
    "T = concat('word', ' ', '7')",
    "T IN ('word 7', 'word 8')",
];

#[test]
fn what_is_decrypted_to_be_compared_goes_through_the_index() {
    let mut client = database();
    let forms = [
        ("(pgseal.decrypt(sealed))", "pgseal.decrypt(body)"),
        ("(sealed::jsonb)", "body::text"),
        ("(CAST(sealed AS jsonb))", "body::varchar"),
    ];
    for condition in DECRYPTED {
        let of =
            |document: &str, text: &str| condition.replace("D", document).replace("T ", &format!("{text} "));
        let ids = |client: &mut Client, condition: &str| {
            client.column::<i32>(&format!("SELECT id FROM docs WHERE {condition} ORDER BY id"))
        };
        let expected = ids(&mut client, &of("plain", "words"));
        assert!(!expected.is_empty(), "{condition}");
        for (document, text) in forms {
            let sealed = of(document, text);
            let plan = plan(&mut client, &format!("SELECT id FROM docs WHERE {sealed}"));
            assert!(plan.contains(INDEX), "{sealed}: {plan}");
            assert_eq!(ids(&mut client, &sealed), expected, "{sealed}");
            assert_eq!(
                ids(&mut client, &format!("NOT ({sealed})")),
                ids(&mut client, &format!("NOT ({})", of("plain", "words"))),
                "NOT {sealed}"
            );
        }
        // A column without keyring is decrypted, whatever the session chooses.
        let loose = of("(pgseal.decrypt(loose))", "pgseal.decrypt(body)");
        assert_eq!(ids(&mut client, &loose), expected, "{loose}");
    }
    client.run("SELECT pgseal.create_keyring('other'); SET pgseal.keyring = other");
    for document in ["pgseal.decrypt(loose)", "pgseal.decrypt(sealed)"] {
        let found: i64 = client.one(&format!("SELECT count(*) FROM docs WHERE {document} ->> 'a' = 'x7'"));
        assert_eq!(found, 12, "{document}");
    }
}

#[test]
fn a_join_on_what_is_decrypted_is_still_hashed() {
    let mut client = database();
    client.run("SET enable_nestloop = off; SET enable_mergejoin = off; SET enable_seqscan = on");
    for join in [
        "SELECT id FROM docs JOIN wanted ON pgseal.decrypt(sealed) ->> 'a' = name ORDER BY id",
        "SELECT id FROM docs WHERE pgseal.decrypt(sealed) ->> 'a' IN (SELECT name FROM wanted) ORDER BY id",
    ] {
        let plan = plan(&mut client, join);
        assert!(plan.contains("Hash"), "{join}: {plan}");
        let expected: Vec<i32> = client.column(&join.replace("pgseal.decrypt(sealed)", "plain"));
        assert_eq!(client.column::<i32>(join), expected);
    }
}
