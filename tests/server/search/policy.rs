//! Changing what is searchable.

use postgres::Client;

use crate::support::{Sql, with_keyring};

const OLD_PATH: &str = r#"m @> '{"a": 7}'"#;
const NEW_PATH: &str = r#"m @> '{"b": {"c": "x7"}}'"#;
const SHARED_PATH: &str = r#"m @> '{"s": 7}'"#;

/// 1,000 rows, 100 values of each field; `$.a` and `$.s` are searchable.
fn database() -> Client {
    let mut client = with_keyring("{$.a, $.s}");
    client.run("CREATE TABLE docs (id serial PRIMARY KEY, plain jsonb, m encrypted_jsonb(k))");
    client.run("CREATE INDEX ON docs USING gin (m)");
    insert(&mut client);
    client.run("SET enable_seqscan = off; SET jit = off");
    client
}

fn insert(client: &mut Client) {
    client.run(
        "INSERT INTO docs (plain, m)
         SELECT d, d FROM generate_series(1, 1000) i,
                jsonb_build_object('a', i % 100, 's', i % 100, 'b', jsonb_build_object('c', 'x' || i % 100)) d",
    );
}

/// Rows that the index finds for a filter, exact or not.
fn candidates(client: &mut Client, filter: &str) -> i64 {
    let explain = format!("EXPLAIN (ANALYZE, FORMAT JSON) SELECT FROM docs WHERE {filter}");
    let plan: serde_json::Value = client.one(&explain);
    let scan = &plan[0]["Plan"]["Plans"][0];
    assert_eq!(scan["Node Type"], "Bitmap Index Scan", "{plan}");
    scan["Actual Rows"].as_f64().unwrap() as i64
}

fn exact(client: &mut Client, filter: &str) {
    let count = |filter: &str| format!("SELECT count(*) FROM docs WHERE {filter}");
    let plain = filter.replacen("m @>", "plain @>", 1);
    assert_eq!(client.one::<i64>(&count(filter)), client.one::<i64>(&count(&plain)), "{filter}");
}

#[test]
fn new_paths_are_exact_at_once_and_indexed_after_reencryption() {
    let mut client = database();
    assert_eq!(candidates(&mut client, OLD_PATH), 10);
    assert_eq!(candidates(&mut client, NEW_PATH), 1000);

    assert_eq!(client.one::<i32>("SELECT pgseal.set_searchable('k', ARRAY['$.b.c', '$.s'])"), 2);
    insert(&mut client);
    for filter in [OLD_PATH, NEW_PATH, SHARED_PATH] {
        exact(&mut client, filter);
    }
    // Old rows by their marker, new rows by their token, and the other way round.
    assert_eq!(candidates(&mut client, NEW_PATH), 1000 + 10);
    assert_eq!(candidates(&mut client, OLD_PATH), 10 + 1000);
    assert_eq!(candidates(&mut client, SHARED_PATH), 20);

    client.run("CALL pgseal.reencrypt('docs', 'm')");
    client.run("VACUUM docs");
    for filter in [OLD_PATH, NEW_PATH, SHARED_PATH] {
        exact(&mut client, filter);
    }
    assert_eq!(candidates(&mut client, NEW_PATH), 20);
    assert_eq!(candidates(&mut client, SHARED_PATH), 20);
    assert_eq!(candidates(&mut client, OLD_PATH), 2000);
}

#[test]
fn a_prepared_filter_follows_a_policy_that_another_session_sets() {
    let mut client = database();
    client.run("SET plan_cache_mode = force_generic_plan");
    client.run("PREPARE constant AS SELECT count(*) FROM docs WHERE m @> '{\"b\": {\"c\": \"x7\"}}'");
    client.run("PREPARE parameter (jsonb) AS SELECT count(*) FROM docs WHERE m @> $1");
    let both = ["EXECUTE constant", r#"EXECUTE parameter ('{"b": {"c": "x7"}}')"#];
    let name = client.database();
    for sql in both {
        assert_eq!(client.one::<i64>(sql), 10);
    }
    let mut other = crate::support::shared().connect(&name);
    other.run("SELECT pgseal.set_searchable('k', ARRAY['$.b.c'])");
    insert(&mut other);
    for sql in both {
        assert_eq!(client.one::<i64>(sql), 20);
    }
}

#[test]
fn bad_paths_leave_the_policy_as_it_was() {
    let mut client = database();
    assert_eq!(client.state("SELECT pgseal.set_searchable('k', ARRAY['a'])"), "22023");
    assert_eq!(client.state("SELECT pgseal.set_searchable('nobody', ARRAY['$.a'])"), "42704");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.index_key"), 1);
}
