//! Many tenants in one table: each has a keyring of its own, and the session says whose turn it is.

use postgres::Client;
use serde_json::Value;

use crate::support::{Sql, fresh_database, shared};

const TENANTS: usize = 200;
const ROWS: usize = 200;

/// A table of tenants' documents, 1.5 kB each, half of which match the filter.
fn table(client: &mut Client, name: &str, tenants: usize) {
    client.run(&format!("CREATE TABLE {name} (tenant int, sealed encrypted_jsonb)"));
    client.run(&format!("CREATE INDEX ON {name} USING gin (sealed)"));
    client.run(&format!(
        "INSERT INTO {name} SELECT t, pgseal.encrypt(jsonb_build_object('kind', i % 2, 'text', repeat('x', 1400)), 'tenant_' || t)
           FROM generate_series(1, {tenants}) t, generate_series(1, {ROWS}) i"
    ));
    client.run(&format!("VACUUM ANALYZE {name}"));
}

fn database() -> Client {
    let mut client = fresh_database();
    client.run("SET client_min_messages = error; SET jit = off; SET enable_seqscan = off");
    client.run(&format!(
        "SELECT count(pgseal.create_keyring('tenant_' || t, ARRAY['$.kind'])) FROM generate_series(1, {TENANTS}) t"
    ));
    client
}

const COUNT: &str = r#"SELECT count(*) FROM {t} WHERE sealed @> '{"kind": 1}'"#;

fn buffers(client: &mut Client, table: &str, tenant: usize) -> u64 {
    client.run(&format!("BEGIN; SET LOCAL pgseal.keyring = 'tenant_{tenant}'"));
    let count = COUNT.replace("{t}", table);
    assert_eq!(client.one::<i64>(&count), ROWS as i64 / 2);
    let plan: Value = client.one(&format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {count}"));
    client.run("COMMIT");
    let root = &plan[0]["Plan"];
    assert!(plan.to_string().contains("Bitmap Index Scan"), "{plan}");
    root["Shared Hit Blocks"].as_u64().unwrap() + root["Shared Read Blocks"].as_u64().unwrap()
}

#[test]
fn a_tenants_filter_costs_as_much_among_two_hundred_as_alone() {
    let mut client = database();
    table(&mut client, "alone", 1);
    table(&mut client, "shared_table", TENANTS);
    let alone = buffers(&mut client, "alone", 1);
    for tenant in [1, 2, 77, TENANTS] {
        let among = buffers(&mut client, "shared_table", tenant);
        assert!(among * 10 <= alone * 11, "tenant {tenant}: {among} buffers, alone {alone}");
    }
}

#[test]
fn rows_of_other_tenants_are_null_and_a_missing_key_an_error() {
    let mut client = fresh_database();
    client.run("SET client_min_messages = error");
    client.run("SELECT pgseal.create_keyring('a', ARRAY['$.k'], 'key_a'), pgseal.create_keyring('b', ARRAY['$.k'], 'key_b')");
    client.run(
        r#"CREATE TABLE t (id int, sealed encrypted_jsonb); CREATE INDEX ON t USING gin (sealed);
           INSERT INTO t SELECT i, pgseal.encrypt('{"k": "v"}'::jsonb, CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END) FROM generate_series(1, 4) i"#,
    );
    for condition in
        [r#"sealed @> '{"k": "v"}'"#, "sealed ->> 'k' = 'v'", "sealed ->> 'k' <> 'other'", "sealed ? 'k'"]
    {
        let answers =
            format!("SELECT string_agg(coalesce(({condition})::text, 'null'), ' ' ORDER BY id) FROM t");
        client.run("SET pgseal.keyring = 'a'");
        assert_eq!(client.one::<String>(&answers), "null true null true", "{condition}");
        client.run("RESET pgseal.keyring");
        assert_eq!(client.one::<String>(&answers), "true true true true", "{condition}");
    }
    // Tenant b's key is withdrawn: a goes on, and b is refused rather than found to have no rows.
    client.run(
        "UPDATE pgseal.keyring SET kms_key = 'no_such_key' WHERE name = 'b'; SELECT pgseal.flush_keys()",
    );
    let count = r#"SELECT count(*) FROM t WHERE sealed @> '{"k": "v"}'"#;
    client.run("SET pgseal.keyring = 'a'");
    assert_eq!(client.one::<i64>(count), 2);
    for keyring in ["SET pgseal.keyring = 'b'", "RESET pgseal.keyring"] {
        client.run(keyring);
        assert_eq!(client.state(count), "28000", "{keyring}");
    }
}

#[test]
fn a_filter_that_names_no_keyring_asks_its_columns_and_no_other() {
    let mut admin = fresh_database();
    admin.run("SELECT pgseal.create_keyring('a', '{$.a, $.n}'), pgseal.create_keyring('b', '{$.a}')");
    admin.run("CREATE TABLE docs (bound encrypted_jsonb(a), loose encrypted_jsonb)");
    admin.run(
        r#"INSERT INTO docs SELECT j, pgseal.encrypt(j, 'b') FROM (SELECT '{"a": "x", "n": 3}'::jsonb j) d"#,
    );
    let database = admin.database();
    let role = format!("{database}_only_a");
    admin.run(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON docs TO {role}"));
    admin.run(&format!("SELECT pgseal.grant_keyring('a', '{role}', '{{search}}')"));
    let mut client = shared().connect_as(&role, &database);
    client.run("SET plan_cache_mode = force_generic_plan; PREPARE one(jsonb[]) AS SELECT count(*) FROM docs WHERE bound @@ pgseal.filter_any($1)");
    // The role may not search keyring b, and the last one does not exist.
    for keyring in ["b", "none"] {
        client.run(&format!("SET pgseal.keyring = '{keyring}'"));
        for filter in [
            r#"pgseal.filter('{"a": "x"}')"#,
            r#"pgseal.filter_any(ARRAY['{"a": "x"}', '{"a": "y"}']::jsonb[])"#,
            r#"pgseal.filter_casefold('{"a": "X"}')"#,
            "pgseal.filter_between('$.n', 1, NULL)",
            r#"pgseal.filter((SELECT '{"a": "x"}'::jsonb))"#,
            r#"pgseal.filter_any(ARRAY[(SELECT '{"a": "x"}'::jsonb)])"#,
            r#"pgseal.filter(jsonb_build_object('a', left('x' || random(), 1)))"#,
        ] {
            let found: i64 = client.one(&format!("SELECT count(*) FROM docs WHERE bound @@ {filter}"));
            assert_eq!(found, 1, "{keyring}: {filter}");
        }
        assert_eq!(client.one::<i64>(r#"EXECUTE one(ARRAY['{"a": "x"}', '{}']::jsonb[])"#), 1, "{keyring}");
        let plan = client
            .column::<String>(r#"EXPLAIN SELECT FROM docs WHERE bound @@ pgseal.filter('{"a": "canary"}')"#);
        assert!(!plan.join("").contains("canary"), "{plan:?}");
    }
    client.run("SET pgseal.keyring = 'b'");
    assert_eq!(client.state(r#"SELECT FROM docs WHERE loose @@ pgseal.filter('{"a": "x"}')"#), "42501");
}
