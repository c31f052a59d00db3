//! What ANALYZE learns of tokens, and what the planner makes of it.

use postgres::Client;

use crate::support::{Cluster, Sql, with_keyring};

/// 40,000 documents. At `$.a` a value is held by 50 %, 10 %, 1 % and 0.1 % of them, or by one; `$.u` has a value of its own.
fn database() -> Client {
    let mut client = with_keyring("{$.a, $.u, $}");
    client.run("CREATE TABLE docs (id int, sealed encrypted_jsonb(k), body encrypted_text(k)) WITH (autovacuum_enabled = off)");
    client.run(
        "INSERT INTO docs SELECT i, jsonb_build_object('a', a, 'u', i, 'z', a), a FROM generate_series(1, 40000) i, LATERAL (
             SELECT CASE WHEN i % 2 = 0 THEN 'half' WHEN i % 10 = 1 THEN 'tenth' WHEN i % 100 = 3 THEN 'hundredth'
                         WHEN i % 1000 = 5 THEN 'thousandth' ELSE 'rest ' || i END) v (a)",
    );
    client.run("INSERT INTO docs SELECT i FROM generate_series(1, 1000) i; ANALYZE docs; SET jit = off");
    client
}

fn estimate(client: &mut Client, condition: &str) -> f64 {
    let plan: serde_json::Value =
        client.one(&format!("EXPLAIN (FORMAT JSON) SELECT FROM docs WHERE {condition}"));
    plan[0]["Plan"]["Plan Rows"].as_f64().unwrap()
}

fn count(client: &mut Client, condition: &str) -> f64 {
    client.one::<i64>(&format!("SELECT count(*) FROM docs WHERE {condition}")) as f64
}

#[test]
fn estimates_are_within_twice_for_common_and_small_for_rare() {
    let mut client = database();
    for ask in [
        r#"sealed @> '{"a": "?"}'"#,
        "sealed ->> 'a' = '?'",
        "body = '?'",
        r#"sealed @@ pgseal.filter('{"a": "?"}')"#,
    ] {
        for value in ["half", "tenth", "hundredth", "thousandth"] {
            let condition = ask.replace('?', value);
            let (estimated, real) = (estimate(&mut client, &condition), count(&mut client, &condition));
            assert!(estimated <= real * 2.0 && estimated >= real / 2.0, "{condition}: {estimated} of {real}");
        }
        for value in ["rest 7", "none"] {
            let condition = ask.replace('?', value);
            let estimated = estimate(&mut client, &condition);
            assert!(estimated <= 41.0, "{condition}: {estimated}");
        }
    }
    let both = r#"sealed @> '{"a": "half", "u": 8}'"#;
    assert!(estimate(&mut client, both) <= 41.0);
    let any = r#"sealed @@ pgseal.filter_any(ARRAY['{"a": "tenth"}', '{"a": "hundredth"}']::jsonb[])"#;
    let (estimated, real) = (estimate(&mut client, any), count(&mut client, any));
    assert!(estimated <= real * 2.0 && estimated >= real / 2.0, "{estimated} of {real}");
    let not = estimate(&mut client, r#"NOT sealed @> '{"a": "half"}'"#);
    assert!((10_000.0..30_000.0).contains(&not), "{not}");
    // Of an undeclared path nothing is known.
    assert!(estimate(&mut client, r#"sealed @> '{"z": "half"}'"#) <= 41.0);
}

#[test]
fn estimates_hold_where_thousands_of_values_are_common() {
    let mut client = with_keyring("{$.*}");
    client.run("CREATE TABLE docs (sealed encrypted_jsonb(k)) WITH (autovacuum_enabled = off)");
    client.run(
        "INSERT INTO docs SELECT jsonb_build_object('a', i % 500, 'b', i * 7 % 500, 'c', i * 11 % 500, 'd', i * 13 % 500, 'e', i * 17 % 500)
           FROM generate_series(1, 40000) i",
    );
    client.run("ANALYZE docs");
    for (path, value) in ["a", "b", "c", "d", "e"].iter().zip([3, 99, 250, 377, 499]) {
        let condition = format!(r#"sealed @> '{{"{path}": {value}}}'"#);
        let (estimated, real) = (estimate(&mut client, &condition), count(&mut client, &condition));
        assert!(estimated <= real * 2.0 && estimated >= real / 2.0, "{condition}: {estimated} of {real}");
    }
}

#[test]
fn estimates_follow_an_index_key_rotation_once_analysed_again() {
    let mut client = database();
    client.run("SELECT pgseal.rotate_index_key('k'); UPDATE docs SET sealed = sealed || '{}' WHERE id % 4 < 2; ANALYZE docs");
    for value in ["half", "tenth"] {
        let condition = format!("sealed ->> 'a' = '{value}'");
        let (estimated, real) = (estimate(&mut client, &condition), count(&mut client, &condition));
        assert!(estimated <= real * 2.0 && estimated >= real / 2.0, "{condition}: {estimated} of {real}");
    }
}

#[test]
fn analyze_needs_no_key_and_survives_what_is_no_value() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.a'])");
    client.run("CREATE TABLE docs (sealed encrypted_jsonb(k)); CREATE TABLE bytes (b bytea)");
    client.run("INSERT INTO docs SELECT jsonb_build_object('a', i % 3, 'long', repeat('x', 5000)) FROM generate_series(1, 90) i");
    // The bytes of a column are changed behind its type's back.
    client.run("INSERT INTO bytes VALUES ('\\x01'), (''), ('\\x0101000100000001000100010002000000000000')");
    client.run(
        "UPDATE pg_attribute SET atttypid = 'encrypted_jsonb'::regtype, attstattarget = -1 WHERE attrelid = 'bytes'::regclass AND attname = 'b'",
    );
    client.run("CREATE DOMAIN embedding AS encrypted_vector; CREATE TABLE vectors (e encrypted_vector(k, 2), d embedding)");
    client.run("INSERT INTO vectors SELECT e, e FROM (SELECT format('[%s,1]', i % 9)::vector::encrypted_vector e FROM generate_series(1, 90) i) v");
    client.run("ALTER SYSTEM SET pgseal.kms_endpoint = 'vault+http://127.0.0.1:1/transit'");
    cluster.restart();
    let mut client = cluster.connect("postgres");
    client.run("ANALYZE docs; ANALYZE bytes; ANALYZE vectors");
    // Neither how often a plaintext occurs nor the order of some.
    let told = "SELECT count(*) FROM pg_stats WHERE tablename = 'vectors' AND most_common_vals IS NULL
        AND histogram_bounds IS NULL AND correlation IS NULL AND n_distinct = -1";
    assert_eq!(client.one::<i64>(told), 2);
    let shares: Vec<f32> = client.one("SELECT most_common_elem_freqs FROM pg_stats WHERE tablename = 'docs'");
    // Three tokens, one marker, and the smallest and largest share.
    assert_eq!(shares.len(), 6);
    assert!(shares.iter().filter(|share| (**share - 1.0 / 3.0).abs() < 0.001).count() >= 3, "{shares:?}");
}

#[test]
fn what_analyze_saw_is_for_those_who_may_read_the_column() {
    let mut client = database();
    let name = client.database();
    client.run(&format!("CREATE ROLE {name}_role LOGIN; GRANT SELECT (id) ON docs TO {name}_role"));
    let mut session = crate::support::shared().connect_as(&format!("{name}_role"), &name);
    let seen = "SELECT count(*) FROM pg_stats WHERE tablename = 'docs' AND attname IN ('sealed', 'body')";
    assert_eq!(session.one::<i64>(seen), 0);
    assert_eq!(client.one::<i64>(seen), 2);
}

#[test]
fn estimates_hold_through_security_barriers_and_partitions() {
    let mut client = database();
    client.run("CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM docs");
    client.run("CREATE TABLE parts (id int, sealed encrypted_jsonb(k)) PARTITION BY HASH (id)");
    client.run("CREATE TABLE part_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE part_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1)");
    client.run("INSERT INTO parts SELECT id, sealed FROM docs WHERE sealed IS NOT NULL; ANALYZE parts");
    for table in ["barrier", "parts"] {
        let plan: serde_json::Value =
            client.one(&format!("EXPLAIN (FORMAT JSON) SELECT FROM {table} WHERE sealed ->> 'a' = 'tenth'"));
        let rows = plan[0]["Plan"]["Plan Rows"].as_f64().unwrap();
        assert!((2000.0..8000.0).contains(&rows), "{table}: {rows}");
    }
}

#[test]
fn estimates_of_lists_opposites_and_patterns_are_within_ten() {
    let mut client = database();
    client.run("CREATE TABLE same (sealed encrypted_jsonb(k), body encrypted_text(k)) WITH (autovacuum_enabled = off)");
    client.run(
        "INSERT INTO same SELECT jsonb_build_object('a', a), a FROM generate_series(1, 10000) i,
                LATERAL (SELECT CASE i % 1000 WHEN 0 THEN 'other' ELSE 'same' END) v (a); ANALYZE same",
    );
    for (table, condition) in [
        ("docs", "sealed ->> 'a' IN ('half', 'tenth')"),
        ("docs", "sealed ->> 'a' = ANY ('{tenth,hundredth,none}'::text[])"),
        ("docs", "sealed ->> 'a' NOT IN ('half', 'tenth')"),
        ("docs", "NOT sealed ->> 'a' = 'half'"),
        ("docs", "sealed ->> 'a' <> 'half'"),
        ("docs", "body <> 'none'"),
        ("docs", "body NOT IN ('half', 'tenth')"),
        ("docs", "body LIKE 'rest%'"),
        ("docs", "body LIKE '%'"),
        ("docs", "body NOT LIKE 'thou%'"),
        ("docs", "sealed ->> 'a' ~ '^hundred'"),
        ("docs", "sealed @> '{}'"),
        ("docs", "sealed ? 'a'"),
        ("docs", "sealed ?| '{a,b}'"),
        ("same", "sealed ->> 'a' <> 'same'"),
        ("same", "body <> 'same'"),
        ("same", "body NOT IN ('same', 'none')"),
        ("same", "NOT sealed ->> 'a' IN ('same', 'none')"),
    ] {
        let plan: serde_json::Value =
            client.one(&format!("EXPLAIN (FORMAT JSON) SELECT FROM {table} WHERE {condition}"));
        let estimated = plan[0]["Plan"]["Plan Rows"].as_f64().unwrap();
        let real = client.one::<i64>(&format!("SELECT count(*) FROM {table} WHERE {condition}")) as f64;
        assert!(
            real > 0.0 && estimated <= real * 10.0 && estimated >= real / 10.0,
            "{condition}: {estimated} of {real}"
        );
    }
}
