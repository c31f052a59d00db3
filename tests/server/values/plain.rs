//! Literals and parameters without a type beside encrypted values are text, jsonb and vector: drivers are told so, and no
//! keyring has to be chosen to read.

use postgres::binary_copy::BinaryCopyInWriter;
use postgres::types::{ToSql, Type};
use postgres::{Client, Statement};
use serde_json::{Value, json};

use crate::server::values::kinds::with_state;
use crate::support::{AsBytes, AsText, Sql, beside, fresh_database};

/// Two keyrings and no default; a table of either.
fn database() -> Client {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('a', '{$.p, $}'), pgseal.create_keyring('b', '{$.p, $}');
         SELECT pgseal.set_default_keyring(NULL);
         CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(a), body encrypted_text(a), e encrypted_vector(a, 2),
                            tags encrypted_text(a)[]);
         CREATE TABLE others (id int PRIMARY KEY, m encrypted_jsonb(b), body encrypted_text(b));
         INSERT INTO docs VALUES (1, '{\"p\": \"x\", \"n\": {\"c\": \"Oslo\"}}', 'one', '[1,2]', '{u,v}'),
                                 (2, '{\"p\": \"y\"}', 'two', '[3,4]', NULL);
         INSERT INTO others SELECT id, pgseal.decrypt(m), pgseal.decrypt(body) FROM docs;
         CREATE INDEX ON docs USING gin (m); CREATE INDEX ON docs USING gin (body)",
    );
    client
}

fn types(statement: &Statement) -> Vec<&str> {
    statement.params().iter().map(Type::name).collect()
}

/// Rows of the first column, for parameters as their types say.
fn ids(client: &mut Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<i32> {
    let statement = client.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let mut seen = Vec::new();
    // Planned anew for each at first, then once for all; analysed anew once a table has changed.
    for round in 0..8 {
        let rows =
            client.query(&statement, parameters).unwrap_or_else(|error| panic!("{sql}: {round}: {error:?}"));
        let mut found: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        found.sort_unstable();
        assert!(round == 0 || found == seen, "{sql}: {round}: {found:?}, {seen:?}");
        seen = found;
        if round == 6 {
            client.run("COMMENT ON COLUMN docs.m IS 'changed'; ALTER TABLE docs ADD COLUMN later int; ALTER TABLE docs DROP COLUMN later");
        }
    }
    seen
}

#[test]
fn parameters_beside_encrypted_values_are_plain() {
    let client = &mut database();
    let (x, one, document) = ("x", "one", json!({"z": 1}));
    let texts = vec!["x", "z"];
    for (sql, described, parameters, found) in [
        ("SELECT id FROM docs WHERE body = $1", "text", vec![&one as &(dyn ToSql + Sync)], vec![1]),
        ("SELECT id FROM docs WHERE $1 = body", "text", vec![&one], vec![1]),
        ("SELECT id FROM docs WHERE body <> $1", "text", vec![&one], vec![2]),
        ("SELECT id FROM docs WHERE NOT body = $1", "text", vec![&one], vec![2]),
        ("SELECT id FROM docs WHERE m ->> 'p' = $1", "text", vec![&x], vec![1]),
        ("SELECT id FROM docs WHERE m #>> '{n,c}' = $1", "text", vec![&"Oslo"], vec![1]),
        ("SELECT id FROM docs WHERE m ->> 'p' IN ($1, $2)", "text,text", vec![&x, &"z"], vec![1]),
        ("SELECT id FROM docs WHERE m ->> 'p' IN ('z', $1)", "text", vec![&x], vec![1]),
        ("SELECT id FROM docs WHERE m ->> 'p' NOT IN ('z', $1)", "text", vec![&x], vec![2]),
        ("SELECT id FROM docs WHERE m ->> 'p' = ANY($1)", "_text", vec![&texts], vec![1]),
        ("SELECT id FROM docs WHERE m ->> 'p' <> ALL($1)", "_text", vec![&texts], vec![2]),
        ("SELECT id FROM docs WHERE m ->> 'p' IS DISTINCT FROM $1", "text", vec![&x], vec![2]),
        ("SELECT id FROM docs WHERE nullif(body, $1) IS NULL", "text", vec![&one], vec![1]),
        ("SELECT id FROM docs WHERE CASE body WHEN $1 THEN true END", "text", vec![&one], vec![1]),
        ("SELECT id FROM docs WHERE (m || $1) ? 'z'", "jsonb", vec![&document], vec![1, 2]),
        ("SELECT id FROM docs WHERE $1 = ANY(tags)", "text", vec![&"v"], vec![1]),
        (
            "SELECT id FROM docs d WHERE EXISTS (SELECT FROM others o WHERE o.id = d.id AND o.body = $1)",
            "text",
            vec![&one],
            vec![1],
        ),
        (
            "WITH c AS (SELECT * FROM docs) SELECT id FROM c WHERE body = $1 OR m ->> 'p' = $1",
            "text",
            vec![&one],
            vec![1],
        ),
        (
            "SELECT id FROM docs JOIN LATERAL (SELECT body = $1 AS hit) l ON hit UNION SELECT id FROM docs WHERE body = $2",
            "text,text",
            vec![&one, &"two"],
            vec![1, 2],
        ),
    ] {
        let statement = client.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(types(&statement).join(","), described, "{sql}");
        assert_eq!(ids(client, sql, &parameters), found, "{sql}");
    }
}

#[test]
fn a_parameter_that_is_cast_or_used_otherwise_keeps_its_type() {
    let client = &mut database();
    for (sql, described) in [
        ("SELECT id FROM docs WHERE body = $1::encrypted_text", "encrypted_text"),
        ("SELECT id FROM docs WHERE body = ($1) :: encrypted_text", "encrypted_text"),
        ("SELECT id FROM docs WHERE body = CAST($1 AS encrypted_text)", "encrypted_text"),
        ("SELECT id FROM docs WHERE body = $1 AND coalesce(body, $1) = 'x'", "encrypted_text"),
        ("SELECT coalesce(m, $1) FROM docs", "encrypted_jsonb"),
        (
            "INSERT INTO docs (id, m, body, e) VALUES (9, $1, $2, $3)",
            "encrypted_jsonb,encrypted_text,encrypted_vector",
        ),
        ("SELECT id FROM docs WHERE body = $1::text", "text"),
        ("SELECT id FROM docs WHERE m @> $1", "jsonb"),
        ("SELECT id FROM docs ORDER BY e <-> $1", "vector"),
    ] {
        assert_eq!(types(&client.prepare(sql).unwrap()).join(","), described, "{sql}");
    }
}

#[test]
fn literals_beside_encrypted_values_need_no_keyring() {
    let client = &mut database();
    for (condition, count) in [
        ("body = 'one'", 1),
        ("'one' = body", 1),
        ("body <> 'one'", 1),
        ("body IS DISTINCT FROM 'one'", 1),
        ("m ->> 'p' = 'x'", 1),
        ("m ->> 'p' IN ('x', 'z')", 1),
        ("m ->> 'p' NOT IN ('x', 'z')", 1),
        ("m ->> 'p' IN ('x', NULL)", 1),
        ("m ->> 'p' = ANY ('{x,z}')", 1),
        ("m ->> 'p' = ANY (ARRAY['x', 'z'])", 1),
        ("'v' = ANY (tags)", 1),
        ("(m || '{\"z\": 1}') ? 'z'", 2),
        ("nullif(body, 'one') IS NULL", 1),
        ("body = $$one$$", 1),
        ("body = E'o\\x6ee'", 1),
        ("EXISTS (SELECT FROM others o WHERE o.body = 'one' AND o.id = docs.id)", 1),
        ("CASE body WHEN 'one' THEN true END", 1),
    ] {
        assert_eq!(
            client.one::<i64>(&format!("SELECT count(*) FROM docs WHERE {condition}")),
            count,
            "{condition}"
        );
        let quoted = condition.replace('\'', "''");
        client.run(&format!(
            "DO $f$ DECLARE n int; BEGIN SELECT count(*) INTO n FROM docs WHERE {condition};
                             IF n <> {count} THEN RAISE 'static: %', n; END IF;
                             EXECUTE 'SELECT count(*) FROM docs WHERE {quoted}' INTO n;
                             IF n <> {count} THEN RAISE 'dynamic: %', n; END IF; END $f$"
        ));
        client.run(&format!("PREPARE q AS SELECT count(*) FROM docs WHERE {condition}"));
        assert_eq!(client.text("EXECUTE q"), count.to_string(), "{condition}");
        client.run("DEALLOCATE q");
    }
    client.run("SET enable_seqscan = off");
    let plan = client.column::<String>("EXPLAIN SELECT FROM docs WHERE m ->> 'p' = 'x'").join("\n");
    assert!(plan.contains("Bitmap Index Scan"), "{plan}");
    // Grouped as with text.
    assert_eq!(
        client.column::<bool>("SELECT body = 'one' FROM docs GROUP BY body = 'one' ORDER BY 1"),
        [false, true]
    );
    assert_eq!(
        client.column::<bool>("SELECT DISTINCT body = 'one' FROM docs ORDER BY body = 'one'"),
        [false, true]
    );
}

#[test]
fn what_is_written_takes_the_keyring_of_its_column() {
    let client = &mut database();
    client.run(
        "INSERT INTO docs (id, m, body, e, tags) VALUES (3, '{\"p\": 3}', 'three', '[5,6]', '{w}'), (4, '{\"p\": 4}', 'four', NULL, NULL);
         INSERT INTO docs (id, m) SELECT 5, '{\"p\": 5}';
         INSERT INTO docs (id, body) VALUES (5, 'new') ON CONFLICT (id) DO UPDATE SET body = 'five';
         UPDATE docs SET body = 'six', m = '{\"p\": 6}' WHERE body = 'two';
         UPDATE docs SET (body, m) = ('seven', '{}') WHERE id = 4;
         MERGE INTO docs USING (VALUES (1), (8)) s (n) ON n = id WHEN MATCHED THEN UPDATE SET body = 'first'
            WHEN NOT MATCHED THEN INSERT (id, body) VALUES (n, 'eight');
         WITH w AS (INSERT INTO others VALUES (9, '{\"p\": 9}', 'nine') RETURNING id) SELECT FROM w",
    );
    assert_eq!(
        client.one::<String>("SELECT string_agg(coalesce(body::text, '-'), ' ' ORDER BY id) FROM docs"),
        "first six three seven five eight"
    );
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE tags IS NOT NULL AND 'w' = ANY (tags)"), 1);
    for (table, column) in
        [("docs", "m"), ("docs", "body"), ("docs", "e"), ("others", "m"), ("others", "body")]
    {
        let faults =
            format!("SELECT count(*) FROM pgseal.column_keys('{table}', '{column}') WHERE in_transit");
        assert_eq!(client.one::<i64>(&faults), 0, "{table}.{column}");
    }
}

#[test]
fn what_would_be_kept_without_a_keyring_is_refused() {
    let client = &mut database();
    client.run("CREATE TABLE loose (m encrypted_jsonb, body encrypted_text); CREATE TYPE pair AS (body encrypted_text)");
    for statement in [
        "SELECT 'x'::encrypted_text",
        "SELECT '{x}'::encrypted_text[]",
        "SELECT '(x)'::pair",
        "SELECT '{\"(x)\"}'::pair[]",
        "SELECT coalesce('x'::encrypted_text, 'y')",
        "INSERT INTO loose VALUES ('{}', 'x')",
        "INSERT INTO loose (body) SELECT 'x'",
        "CREATE TABLE c AS SELECT 'x'::encrypted_text AS body",
        "CREATE TABLE c AS SELECT ('(x)'::pair).body",
        "SELECT 'x'::encrypted_text AS body INTO c",
        "PREPARE p AS SELECT 'x'::encrypted_text",
        "CREATE MATERIALIZED VIEW c AS SELECT id FROM docs WHERE body = 'x'",
        "EXPLAIN CREATE MATERIALIZED VIEW c AS SELECT id FROM docs WHERE body = 'x'",
        "CREATE VIEW c AS SELECT id FROM docs WHERE body = 'x'",
        "DO $$ BEGIN CREATE VIEW c AS SELECT id FROM docs WHERE body = 'x'; END $$",
        "DO $$ BEGIN EXECUTE 'CREATE VIEW c AS SELECT id FROM docs WHERE body = ''x'''; END $$",
        "CREATE RULE c AS ON DELETE TO docs DO ALSO INSERT INTO others (id, body) VALUES (90, 'x')",
        "CREATE FUNCTION c() RETURNS bigint LANGUAGE sql RETURN (SELECT count(*) FROM docs WHERE body = 'x')",
        "CREATE POLICY c ON docs USING (body = 'x')",
        "ALTER TABLE docs ADD CHECK (body <> 'x')",
        "ALTER TABLE docs ALTER body SET DEFAULT 'x'",
        "CREATE TABLE c (body encrypted_text(a) DEFAULT 'x')",
        "CREATE TRIGGER c BEFORE UPDATE ON docs FOR EACH ROW WHEN (NEW.body = 'x') EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "PREPARE q (encrypted_text) AS SELECT $1; EXECUTE q ('x')",
    ] {
        let error = client.error(statement);
        assert_eq!(error.code().code(), "42704", "{statement}: {error}");
        assert_eq!(error.message(), "no keyring is chosen for this value", "{statement}");
        client.run("DEALLOCATE ALL");
    }
    // The setting is enough for each of them.
    client.run("SET pgseal.keyring = 'a'; CREATE VIEW c AS SELECT id FROM docs WHERE body = 'one'");
    assert_eq!(client.one::<i32>("SELECT id FROM c"), 1);
    let stored: String = client.one("SELECT pg_get_viewdef('c'::regclass)");
    assert!(stored.contains("pgseal:"), "{stored}");
}

#[test]
fn literals_of_which_one_is_taken_get_the_keyring_of_the_others() {
    let client = &mut database();
    client.run("CREATE TABLE loose (m encrypted_jsonb, body encrypted_text)");
    for (expression, count) in [
        ("coalesce(body, 'x')", 2),
        ("coalesce(NULL, body, 'x')", 2),
        ("CASE WHEN id = 1 THEN 'x' ELSE body END", 2),
        ("CASE id WHEN 1 THEN coalesce(m ->> 'n', 'x') END", 1),
        ("greatest(body, 'x')", 2),
        ("unnest(ARRAY[body, 'x'])", 4),
    ] {
        client.run(&format!("TRUNCATE loose; INSERT INTO loose (body) SELECT {expression} FROM docs"));
        let kept = "SELECT count(*) FROM loose WHERE pgseal.keyring_id(body) = (SELECT id FROM pgseal.keyring WHERE name = 'a') AND body::text <> ''";
        assert_eq!(client.one::<i64>(kept), count, "{expression}");
    }
    for sql in [
        "SELECT 'x' UNION ALL SELECT body FROM docs",
        "SELECT body FROM docs UNION ALL SELECT 'x' UNION ALL SELECT 'x'",
        "SELECT coalesce(m, '{}')::text FROM docs",
    ] {
        assert!(client.query(sql, &[]).unwrap().len() > 1, "{sql}");
    }
    let faults = "SELECT count(*) FROM pgseal.column_keys('loose', 'body') WHERE in_transit";
    assert_eq!(client.one::<i64>(faults), 0);
}

#[test]
fn under_reveal_parameters_beside_values_are_plain() {
    let client = &mut database();
    client.run("SET pgseal.reveal = on; INSERT INTO docs (id) VALUES (3)");
    let (text, document) = ("new", json!({"z": 1}));
    for (sql, described, parameters, expected) in [
        (
            "SELECT coalesce(body, $1) FROM docs ORDER BY id",
            "text",
            vec![&text as &(dyn ToSql + Sync)],
            "one,two,new",
        ),
        ("SELECT coalesce(m, $1)::text FROM docs WHERE id = 3", "jsonb", vec![&document], "{\"z\": 1}"),
        (
            "SELECT CASE WHEN id = 1 THEN $1 ELSE body END FROM docs WHERE id < 3 ORDER BY id",
            "text",
            vec![&text],
            "new,two",
        ),
        ("SELECT greatest(body, $1) FROM docs WHERE id < 3 ORDER BY id", "text", vec![&text], "one,two"),
        (
            "SELECT body FROM docs WHERE id < 3 UNION ALL SELECT $1 ORDER BY 1",
            "text",
            vec![&text],
            "new,one,two",
        ),
        ("SELECT unnest(ARRAY[body, $1]) FROM docs WHERE id = 1", "text", vec![&text], "one,new"),
        ("SELECT body FROM docs WHERE coalesce(body, $1) = $1 AND id < 3", "text", vec![&"one"], "one"),
        ("SELECT body FROM docs WHERE m @@ $1", "jsonpath", vec![&AsText("$.p == \"y\"")], "two"),
    ] {
        let statement = client.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(types(&statement).join(","), described, "{sql}");
        for round in 0..8 {
            let rows = client
                .query(&statement, &parameters)
                .unwrap_or_else(|error| panic!("{sql}: {round}: {error:?}"));
            let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            assert_eq!(found.join(","), expected, "{sql}: {round}");
            if round == 6 {
                client.run("ALTER TABLE docs ADD COLUMN later int; ALTER TABLE docs DROP COLUMN later");
            }
        }
    }
}

#[test]
fn a_reader_of_one_keyring_needs_none_of_the_default() {
    let client = &mut database();
    client.run(
        "DO $$ BEGIN CREATE ROLE plain_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         SELECT pgseal.set_default_keyring('b'), pgseal.grant_keyring('a', 'plain_reader', '{search,encrypt}');
         GRANT SELECT, INSERT ON docs, others TO plain_reader; SET ROLE plain_reader",
    );
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE body = 'one'"), 1);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE m ->> 'p' IN ('x', 'y')"), 2);
    client.run("INSERT INTO docs (id, body) VALUES (7, 'seven')");
    client.refused("SELECT count(*) FROM others WHERE body = 'one'", "42501");
    client.refused("INSERT INTO others (id, body) VALUES (7, 'seven')", "42501");
    client.refused("SELECT 'x'::encrypted_text", "42501");
    client.run("RESET ROLE; DROP OWNED BY plain_reader");
}

#[test]
fn under_reveal_what_is_stored_is_described_as_plain() {
    let client = &mut database();
    client.run("CREATE TABLE loose (id int, m encrypted_jsonb, body encrypted_text); SELECT pgseal.set_default_keyring('b'); SET pgseal.reveal = on");
    let (p, text) = (json!({"p": "new"}), "new");
    let (document, vector) = (&p as &(dyn ToSql + Sync), AsText("[7,8]"));
    let tags = vec!["t", "u"];
    for (sql, described, parameters) in [
        (
            "INSERT INTO docs (id, m, body, e, tags) VALUES (10, $1, $2, $3, $4)",
            "jsonb,text,vector,_text",
            vec![document, &text, &vector, &tags],
        ),
        (
            "INSERT INTO docs (id, m, body) VALUES (11, $1, $2), (12, $1, $2)",
            "jsonb,text",
            vec![document, &text],
        ),
        ("INSERT INTO docs (id, m, body) SELECT 13, $1, $2", "jsonb,text", vec![document, &text]),
        (
            "INSERT INTO docs (id, m, body) VALUES (13, $1, $2) ON CONFLICT (id) DO UPDATE SET m = $1, body = $2",
            "jsonb,text",
            vec![document, &text],
        ),
        ("INSERT INTO loose VALUES (11, $1, $2), (12, $1, $2)", "jsonb,text", vec![document, &text]),
        ("INSERT INTO loose VALUES (13, $1, $2)", "jsonb,text", vec![document, &text]),
        ("INSERT INTO loose SELECT 14, $1, $2", "jsonb,text", vec![document, &text]),
        ("UPDATE docs SET m = $1, body = $2 WHERE id > 9", "jsonb,text", vec![document, &text]),
        (
            "UPDATE docs SET (m, body) = ($1, $2) WHERE id > 9 AND body = $2",
            "jsonb,text",
            vec![document, &text],
        ),
        ("UPDATE loose SET m = $1, body = $2", "jsonb,text", vec![document, &text]),
        (
            "WITH w AS (INSERT INTO docs (id, m, body) VALUES (14, $1, $2) RETURNING id) SELECT * FROM w",
            "jsonb,text",
            vec![document, &text],
        ),
        (
            "MERGE INTO docs USING (VALUES (10), (15)) s (n) ON n = id WHEN MATCHED THEN UPDATE SET m = $1, body = $2 WHEN NOT MATCHED THEN INSERT (id, m, body) VALUES (n, $1, $2)",
            "jsonb,text",
            vec![document, &text],
        ),
    ] {
        let statement = client.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(types(&statement).join(","), described, "{sql}");
        client.execute(&statement, &parameters).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        client.run("DELETE FROM docs WHERE id = 13; ALTER TABLE docs ADD later int; ALTER TABLE docs DROP later; ALTER TABLE loose ADD later int; ALTER TABLE loose DROP later");
        // Analysed anew, with the types that it has.
        client.run("BEGIN; DELETE FROM docs WHERE id > 9");
        client.execute(&statement, &parameters).unwrap_or_else(|error| panic!("again: {sql}: {error:?}"));
        client.run("ROLLBACK");
    }
    let right = "bool_and(m @> '{\"p\": \"new\"}' AND body = 'new')";
    assert!(client.one::<bool>(&format!("SELECT {right} AND count(*) = 5 FROM docs WHERE id > 9")));
    assert!(client.one::<bool>(&format!("SELECT {right} AND count(*) = 4 FROM loose")));
    for (table, column) in [("docs", "m"), ("docs", "body"), ("docs", "e"), ("loose", "m"), ("loose", "body")]
    {
        let faults =
            format!("SELECT count(*) FROM pgseal.column_keys('{table}', '{column}') WHERE in_transit");
        assert_eq!(client.one::<i64>(&faults), 0, "{table}.{column}");
    }
    let seen: Value = client.query_one("SELECT m FROM docs WHERE id = 10", &[]).unwrap().get(0);
    assert_eq!(seen, p);
}

#[test]
fn a_sealed_value_as_a_plain_parameter_is_not_sealed_again() {
    let client = &mut database();
    let sealed = client.text("SELECT body FROM docs WHERE id = 1");
    client.execute("UPDATE docs SET body = $1 WHERE id = 2", &[&AsText(&sealed)]).unwrap();
    assert_eq!(client.one::<String>("SELECT body::text FROM docs WHERE id = 2"), "one");
    client.run("SET pgseal.reveal = on");
    let refused = client.execute("UPDATE docs SET body = $1 WHERE id = 2", &[&AsText(&sealed)]).unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "22P02");
    client.execute("UPDATE docs SET body = $1::encrypted_text WHERE id = 2", &[&AsText(&sealed)]).unwrap();
    // Text that only looks like one is text.
    client.execute("UPDATE docs SET body = $1 WHERE id = 2", &[&"pgseal:what is it?"]).unwrap();
    assert_eq!(client.one::<String>("SELECT body FROM docs WHERE id = 2"), "pgseal:what is it?");
}

#[test]
fn prepared_statements_go_on_while_keys_rotate_and_retire() {
    let client = &mut database();
    client.run("ALTER TABLE docs DROP tags");
    let mut other = beside(client);
    client.run("SET pgseal.reveal = on");
    let find = client.prepare("SELECT id FROM docs WHERE body = $1 AND m ->> 'p' IN ('x', $2)").unwrap();
    let store = client.prepare("UPDATE docs SET m = $1, body = 'one' WHERE id = 1").unwrap();
    for version in 1..4 {
        client.execute(&store, &[&json!({"p": "x"})]).unwrap();
        assert_eq!(client.query(&find, &[&"one", &"z"]).unwrap().len(), 1);
        other.run("SELECT pgseal.rotate_key('a'), pgseal.rotate_index_key('a')");
        for column in ["m", "body", "e"] {
            other.run(&format!("CALL pgseal.reencrypt('docs', '{column}')"));
        }
        other.run(&format!("SELECT pgseal.retire_key('a', {version})"));
    }
}

#[test]
fn binary_copy_of_the_plain_types_is_sealed() {
    let client = &mut database();
    let documents = [json!({"p": "x"}), json!("text"), json!(1.5), json!(null), json!([true])];
    let texts = ["", "one", " ", "été 漢", "pgseal:", "{\"p\": 1}", "\u{3}"];
    let copy = client.copy_in("COPY docs (id, m, body) FROM STDIN (FORMAT binary)").unwrap();
    let mut writer = BinaryCopyInWriter::new(copy, &[Type::INT4, Type::JSONB, Type::TEXT]);
    for (at, text) in texts.iter().enumerate() {
        writer.write(&[&(at as i32 + 10), &documents.get(at), text]).unwrap();
    }
    writer.finish().unwrap();
    for (at, text) in texts.iter().enumerate() {
        let row = client.query_one(
            "SELECT pgseal.decrypt(m), pgseal.decrypt(body) FROM docs WHERE id = $1",
            &[&(at as i32 + 10)],
        );
        let row = row.unwrap();
        assert_eq!(row.get::<_, Option<Value>>(0).as_ref(), documents.get(at));
        assert_eq!(row.get::<_, &str>(1), *text);
    }
    // As sealed as everything else, tokens and all.
    client.run("SET enable_seqscan = off");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE m @> '{\"p\": \"x\"}'"), 2);
    for column in ["m", "body"] {
        let loose = format!(
            "SELECT count(*) FROM pgseal.column_keys('docs', '{column}') WHERE in_transit OR index_key_version = 0"
        );
        assert_eq!(client.one::<i64>(&loose), 0);
    }
}

#[test]
fn binary_input_that_is_neither_is_refused() {
    let client = &mut database();
    for (bytes, of, state) in [
        (&b"\x01"[..], "encrypted_jsonb", "22P03"),
        (b"\x01 ", "encrypted_jsonb", "22P03"),
        (b"{}", "encrypted_jsonb", "22P03"),
        (b"\x02{}", "encrypted_jsonb", "22P03"),
        (b"\x01{", "encrypted_jsonb", "22P02"),
        (b"\x01{} \0", "encrypted_jsonb", "22021"),
        (b"\x01\"\xff\"", "encrypted_jsonb", "22021"),
        (b"\x01", "encrypted_text", "22P03"),
        (b"\x01one", "encrypted_text", "22P03"),
        (b"one\0", "encrypted_text", "22P03"),
        (b"\xff", "encrypted_text", "22021"),
    ] {
        let asked = format!("SELECT pgseal.key_version($1::{of}(a))");
        let error = client.query_one(&asked, &[&AsBytes(bytes)]).unwrap_err();
        let error = with_state(error, state, &format!("{bytes:?} as {of}"));
        let said = [Some(error.message()), error.detail()];
        assert!(!said.into_iter().flatten().any(|said| said.contains("one")), "{error:?}");
    }
}

#[test]
fn binary_text_comes_in_the_encoding_of_the_client() {
    let client = &mut database();
    client.run("SET pgseal.keyring = 'a'; SET client_encoding = LATIN1");
    client
        .execute(
            "UPDATE docs SET body = $1, m = $2 WHERE id = 1",
            &[&AsBytes(b"\xe9t\xe9"), &AsBytes(b"\x01\"\xe9\"")],
        )
        .unwrap();
    client.run("SET client_encoding = UTF8");
    let row = client.query_one("SELECT body::text, m::jsonb FROM docs WHERE id = 1", &[]).unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, Value>(1)), ("été", json!("é")));
}
