//! The statements that people write around a jsonb column, on an encrypted one.

use postgres::Client;

use crate::support::{Cluster, Sql, fresh_database, lacks, with_keyring};

fn database() -> Client {
    let mut client = with_keyring("{$.a}");
    client.run("CREATE TABLE docs (id int PRIMARY KEY, plain jsonb, sealed encrypted_jsonb(k))");
    client.run(r#"INSERT INTO docs VALUES (1, '{"a": "x", "n": 1}', '{"a": "x", "n": 1}'), (2, '{"a": "y"}', '{"a": "y"}')"#);
    client
}

fn same(client: &mut Client) {
    let differ = "SELECT count(*) FROM docs WHERE plain IS DISTINCT FROM pgseal.decrypt(sealed)";
    assert_eq!(client.one::<i64>(differ), 0);
}

#[test]
fn an_upsert_takes_what_was_to_be_inserted_and_what_was_there() {
    let mut client = database();
    client.run(
        r#"INSERT INTO docs VALUES (1, '{"n": 2}', '{"n": 2}'), (3, '{"a": "z"}', '{"a": "z"}')
           ON CONFLICT (id) DO UPDATE SET plain = docs.plain || excluded.plain, sealed = docs.sealed || excluded.sealed
                    WHERE docs.sealed ->> 'a' = 'x'"#,
    );
    same(&mut client);
    assert_eq!(client.one::<String>("SELECT (sealed ->> 'n')::text FROM docs WHERE id = 1"), "2");
    client.run(r#"INSERT INTO docs (id, sealed) VALUES (2, '{"a": "w"}') ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed"#);
    assert_eq!(client.column::<i32>("SELECT id FROM docs WHERE sealed ->> 'a' = 'w'"), [2]);
}

#[test]
fn jsonb_set_works_on_the_decrypted_document() {
    let mut client = database();
    client.run(
        r#"UPDATE docs SET plain = jsonb_set(plain, '{b,c}', '1'), sealed = jsonb_set(sealed::jsonb, '{b,c}', '1');
           UPDATE docs SET plain = jsonb_set(plain, '{a}', '"v"'), sealed = jsonb_set(sealed::jsonb, '{a}', '"v"')"#,
    );
    same(&mut client);
    assert_eq!(client.column::<i32>("SELECT id FROM docs WHERE sealed ->> 'a' = 'v' ORDER BY id"), [1, 2]);
}

#[test]
fn returning_gives_ciphertext_and_may_decrypt() {
    let mut client = database();
    let sealed: String =
        client.one("UPDATE docs SET sealed = sealed - 'n' WHERE id = 1 RETURNING format('%s', sealed)");
    assert!(sealed.starts_with("pgseal:"));
    let opened: String =
        client.one("DELETE FROM docs WHERE sealed ->> 'a' = 'x' RETURNING (pgseal.decrypt(sealed) ->> 'a')");
    assert_eq!(opened, "x");
}

#[test]
fn what_a_query_is_made_into_stays_sealed_and_searchable() {
    let mut client = database();
    client
        .run("CREATE TABLE copy AS SELECT * FROM docs; CREATE MATERIALIZED VIEW seen AS SELECT * FROM docs");
    client.run("CREATE INDEX ON copy USING gin (sealed); CREATE INDEX ON seen USING gin (sealed); SET enable_seqscan = off");
    for table in ["copy", "seen"] {
        let query = format!("SELECT id FROM {table} WHERE sealed ->> 'a' = 'x'");
        let plan = client.column::<String>(&format!("EXPLAIN {query}")).join("\n");
        assert!(plan.contains("Bitmap Index Scan"), "{plan}");
        assert_eq!(client.column::<i32>(&query), [1]);
        let bound = format!(
            "SELECT atttypmod > 0 FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = 'sealed'"
        );
        assert!(client.one::<bool>(&bound));
    }
    client.run("UPDATE docs SET sealed = '{\"a\": \"x\"}' WHERE id = 2; REFRESH MATERIALIZED VIEW seen");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM seen WHERE sealed ->> 'a' = 'x'"), 2);
}

#[test]
fn arrays_domains_and_rows_of_the_type_keep_their_values() {
    let mut client = database();
    client.run("CREATE DOMAIN document AS encrypted_jsonb(k) CHECK (VALUE IS NOT NULL)");
    client.run("CREATE TABLE odd (id int, list encrypted_jsonb(k)[], one document)");
    client.run(r#"INSERT INTO odd SELECT 1, array_agg(sealed ORDER BY id), '{"a": "x"}' FROM docs"#);
    client.run("CREATE INDEX ON odd USING gin (one); SET enable_seqscan = off");
    assert_eq!(client.one::<String>("SELECT (list[2] ->> 'a')::text FROM odd"), "y");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM odd, unnest(list) d WHERE d ->> 'a' = 'x'"), 1);
    for query in
        [r#"SELECT id FROM odd WHERE one @> '{"a": "x"}'"#, "SELECT id FROM odd WHERE one ->> 'a' = 'x'"]
    {
        let plan = client.column::<String>(&format!("EXPLAIN {query}")).join("\n");
        assert!(plan.contains("Bitmap Index Scan"), "{plan}");
        assert_eq!(client.column::<i32>(query), [1]);
    }
    assert_eq!(client.state("INSERT INTO odd (one) VALUES (NULL)"), "23514");
}

#[test]
fn a_parameter_makes_its_filter_once_and_not_for_each_row() {
    let mut client = database();
    client.run("INSERT INTO docs (id, sealed) SELECT i, jsonb_build_object('a', 'x' || i) FROM generate_series(10, 400) i");
    client.run("SET plan_cache_mode = force_generic_plan; SET enable_bitmapscan = off");
    client.run("PREPARE contains(jsonb) AS SELECT count(*) FROM docs WHERE sealed @> $1");
    client.run("PREPARE equals(text) AS SELECT count(*) FROM docs WHERE sealed ->> 'a' = $1");
    client.run("PREPARE sealed AS SELECT count(*) FROM docs WHERE sealed ->> 'a' = $1");
    for execute in [r#"EXECUTE contains('{"a": "x77"}')"#, "EXECUTE equals('x77')", "EXECUTE sealed('x77')"] {
        assert_eq!(client.one::<i64>(execute), 1);
        let before: i64 = client.one("SELECT filters_made FROM pgseal.stat");
        assert_eq!(client.one::<i64>(execute), 1);
        let made = client.one::<i64>("SELECT filters_made FROM pgseal.stat") - before;
        assert!((1..=2).contains(&made), "{execute}: {made}");
    }
}

#[test]
fn neither_explain_nor_auto_explain_shows_a_folded_constant() {
    if lacks("auto_explain") {
        return;
    }
    let cluster = Cluster::with_pgseal(&[
        "shared_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_verbose = on",
        "auto_explain.log_analyze = on",
        // From PostgreSQL 16 on it has the parameters too, unless it is told not to.
        "auto_explain.log_parameter_max_length = 0",
    ]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.a'])");
    client.run("CREATE TABLE docs (sealed encrypted_jsonb(k), body encrypted_text(k)); CREATE INDEX ON docs USING gin (sealed)");
    client.run("SET plan_cache_mode = force_custom_plan");
    for (column, condition, parameter) in [
        ("jsonb", "sealed @> $1", r#"{"a": "canary one"}"#),
        ("jsonb", "sealed @@ pgseal.filter($1)", r#"{"a": "canary two"}"#),
        ("text", "sealed ->> 'a' = $1", "canary three"),
        ("text", "$1 = body", "canary four"),
    ] {
        let name = format!("ask_{}", condition.len());
        client.run(&format!("PREPARE {name}({column}) AS SELECT FROM docs WHERE {condition}"));
        let explain = format!("EXPLAIN (ANALYZE, VERBOSE) EXECUTE {name}('{parameter}')");
        let plan = client.column::<String>(&explain).join("\n");
        assert!(plan.contains("<filter: k"), "{plan}");
        assert!(!plan.contains("canary"), "{plan}");
        // The log keeps a statement that was sent with its parameters apart without them.
        let statement = client.prepare(&format!("SELECT FROM docs WHERE {condition}")).unwrap();
        let value = crate::support::AsText(parameter);
        client.query(&statement, &[&value]).unwrap();
    }
    let log = cluster.log();
    assert!(log.matches("<filter: k").count() >= 8, "{log}");
    // CREATE EXTENSION is in the log as well, with functions that speak of canaries.
    let has_one = |line: &str| {
        ["one", "two", "three", "four"].iter().any(|which| line.contains(&format!("canary {which}")))
    };
    let plans: Vec<&str> =
        log.lines().filter(|line| has_one(line) && !line.contains("EXECUTE ask_")).collect();
    assert!(plans.is_empty(), "{plans:#?}");
}

#[test]
fn an_extension_made_again_in_a_session_is_planned_with_anew() {
    let mut client = fresh_database();
    client.run("SET plan_cache_mode = force_generic_plan");
    for round in ["first", "second"] {
        client.run("SELECT pgseal.create_keyring('k', ARRAY['$.a'])");
        client.run("CREATE TABLE t (id int, m encrypted_jsonb(k))");
        client.run(r#"INSERT INTO t VALUES (1, '{"a": "x"}'), (2, '{"a": "y"}')"#);
        client.run("PREPARE by_parameter (jsonb) AS SELECT id FROM t WHERE m @> $1");
        assert_eq!(client.column::<i32>(r#"SELECT id FROM t WHERE m @> '{"a": "y"}'"#), [2], "{round}");
        assert_eq!(client.column::<i32>(r#"EXECUTE by_parameter ('{"a": "x"}')"#), [1], "{round}");
        client.run(
            "DEALLOCATE by_parameter; DROP EXTENSION pgseal CASCADE; DROP TABLE t; CREATE EXTENSION pgseal",
        );
    }
}

#[test]
fn a_parameter_alone_is_planned_with_an_extension_made_again() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k', ARRAY['$.a']); CREATE TABLE t (id int, m encrypted_jsonb(k))",
    );
    let name = client.database();
    // This session has looked at nothing of the extension but what the planner asks of it.
    let mut fresh = crate::support::shared().connect(&name);
    fresh
        .run("SET plan_cache_mode = force_generic_plan; PREPARE q (jsonb) AS SELECT id FROM t WHERE m @> $1");
    fresh.run(r#"EXPLAIN EXECUTE q ('{"a": "x"}'); DEALLOCATE q"#);
    fresh.run("DROP EXTENSION pgseal CASCADE; DROP TABLE t; CREATE EXTENSION pgseal");
    fresh.run(
        "SELECT pgseal.create_keyring('k', ARRAY['$.a']); CREATE TABLE t (id int, m encrypted_jsonb(k))",
    );
    fresh.run(r#"INSERT INTO t VALUES (1, '{"a": "x"}')"#);
    fresh.run("PREPARE q (jsonb) AS SELECT id FROM t WHERE m @> $1");
    assert_eq!(fresh.column::<i32>(r#"EXECUTE q ('{"a": "x"}')"#), [1]);
}

#[test]
fn queries_in_with_that_name_the_one_before_twice_are_planned() {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k'); CREATE TABLE texts (x encrypted_text)");
    client.run("INSERT INTO texts VALUES ('v')");
    for (twice, asks) in [
        ("SELECT coalesce(a.x, b.x) AS x FROM {} a, {} b", "x IS DISTINCT FROM 'w'"),
        ("SELECT CASE WHEN a.x IS NULL THEN b.x ELSE a.x END AS x FROM {} a, {} b", "x IN ('v', 'w')"),
        ("SELECT * FROM (SELECT x FROM {} UNION ALL SELECT x FROM {}) u LIMIT 1", "x = 'v'"),
    ] {
        let steps: String = (1..=60)
            .map(|step| format!(", w{step} AS ({})", twice.replace("{}", &format!("w{}", step - 1))))
            .collect();
        let sql = format!("WITH w0 AS (SELECT x FROM texts){steps} SELECT count(*) FROM w60 WHERE {asks}");
        assert_eq!(client.one::<i64>(&sql), 1, "{asks}");
    }
}

#[test]
fn functions_in_from_that_call_themselves_end_as_they_should() {
    let mut client = with_keyring("{}");
    client.run(
        "CREATE TABLE bound (id int, x encrypted_text(k)); CREATE TABLE unbound (id int, x encrypted_text)",
    );
    client.run(
        "INSERT INTO bound SELECT i, 'v' || i FROM generate_series(1, 9) i; INSERT INTO unbound TABLE bound",
    );
    client.run("SET check_function_bodies = off");
    for table in ["bound", "unbound"] {
        for (name, question, next) in [
            ("itself", "x = 'v' || n", "itself"),
            ("one", "x IN ('v' || n, 'w')", "other"),
            ("other", "x IS NOT DISTINCT FROM 'v' || n", "one"),
        ] {
            client.run(&format!(
                "CREATE FUNCTION {table}_{name}(n int) RETURNS SETOF int LANGUAGE sql STABLE AS
                 $$ SELECT id FROM {table} WHERE {question}
                    UNION ALL SELECT i FROM {table}_{next}(n + 1) i WHERE n < 3 $$"
            ));
        }
        for name in ["itself", "one", "other"] {
            let found = format!("SELECT string_agg(i::text, ' ' ORDER BY i) FROM {table}_{name}(1) i");
            assert_eq!(client.one::<String>(&found), "1 2 3", "{table}_{name}");
        }
    }
}
