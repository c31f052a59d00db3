//! Range filters and filters that do not look at case, next to plain SQL on the same documents.

use postgres::Client;

use crate::support::{Sql, fresh_database};

/// Whether a number at the key `k`, arrays on the way looked into, lies between the bounds; NULL bounds are open.
const ORACLE: &str = "
    CREATE FUNCTION flat(j jsonb) RETURNS SETOF jsonb LANGUAGE sql IMMUTABLE AS $$
        WITH RECURSIVE f(j) AS (SELECT j UNION ALL SELECT e FROM f, jsonb_array_elements(f.j) e WHERE jsonb_typeof(f.j) = 'array')
        SELECT f.j FROM f WHERE jsonb_typeof(f.j) <> 'array' $$;
    CREATE FUNCTION numbers(j jsonb, k text) RETURNS SETOF numeric LANGUAGE sql IMMUTABLE AS $$
        SELECT (v #>> '{}')::numeric FROM flat(j) o, flat(o -> k) v WHERE jsonb_typeof(o) = 'object' AND jsonb_typeof(v) = 'number' $$;
    CREATE FUNCTION plain_between(j jsonb, k text, low numeric, high numeric) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
        SELECT CASE WHEN j IS NOT NULL THEN EXISTS (SELECT FROM numbers(j, k) n WHERE (low IS NULL OR n >= low) AND (high IS NULL OR n <= high)) END $$";

const RANGE: &str = r#"{"path": "$.n", "range": {"min": -20, "max": 99.5, "step": 0.5}}"#;

fn database() -> Client {
    let mut client = fresh_database();
    client.run(ORACLE);
    client.run(&format!("SELECT pgseal.create_keyring('k', ARRAY['{RANGE}'])"));
    client.run("CREATE TABLE docs (id serial, plain jsonb, sealed encrypted_jsonb(k))");
    client.run(
        "INSERT INTO docs (plain, sealed) SELECT j, j FROM (
             SELECT jsonb_build_object('n', (i % 1301 - 300) / 10.0) j FROM generate_series(1, 1500) i
             UNION ALL SELECT jsonb_build_object('n', jsonb_build_array(i, -i, jsonb_build_array(i / 3.0))) FROM generate_series(1, 60) i
             UNION ALL SELECT unnest(ARRAY['{}', '{\"n\": null}', '{\"n\": \"7\"}', '{\"n\": {\"n\": 7}}', '[{\"n\": 7}]', '[[{\"n\": [7]}]]', '7',
                 '{\"n\": 1e400}', '{\"n\": -1e400}', '{\"n\": -0.0}', '{\"n\": 99.4999999}', '{\"n\": 99.5}', '{\"n\": -20.0000001}']::jsonb[])
             UNION ALL SELECT NULL) d",
    );
    client.run("CREATE INDEX ON docs USING gin (sealed); ANALYZE docs; SET jit = off");
    client
}

const BOUNDS: [(&str, &str); 14] = [
    ("0", "10"),
    ("-3.25", "-3.25"),
    ("7", "7"),
    ("0.1", "0.4"),
    ("NULL", "5"),
    ("5", "NULL"),
    ("NULL::numeric", "NULL"),
    ("-1e500", "-19.9"),
    ("99.4", "1e500"),
    ("100", "200"),
    ("-300", "-200"),
    ("10", "5"),
    ("-20", "99.5"),
    ("-0.00", "0"),
];

fn compare(client: &mut Client, situation: &str) {
    for scan in [
        "SET enable_seqscan = off; SET enable_bitmapscan = on",
        "SET enable_seqscan = on; SET enable_bitmapscan = off",
    ] {
        client.run(scan);
        for (low, high) in BOUNDS {
            for not in ["", "NOT "] {
                let ids = |condition: String| {
                    format!(
                        "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM docs WHERE {not}{condition}"
                    )
                };
                let expected: String = client.one(&ids(format!("plain_between(plain, 'n', {low}, {high})")));
                for condition in [
                    format!("pgseal.between(sealed, '$.n', {low}, {high})"),
                    format!("(sealed @@ pgseal.filter_between('$.n', {low}, {high}))"),
                    format!("pgseal.between(sealed, '$.n', (SELECT {low}::numeric), {high})"),
                ] {
                    let found: String = client.one(&ids(condition.clone()));
                    assert_eq!(found, expected, "{situation}: {not}{condition}");
                }
            }
        }
    }
}

#[test]
fn a_range_of_numbers_answers_exactly_and_through_the_index() {
    let mut client = database();
    compare(&mut client, "declared");
    client.run("SET enable_seqscan = off; SET enable_bitmapscan = on");
    for condition in
        ["pgseal.between(sealed, '$.n', 0, 10)", "sealed @@ pgseal.filter_between('$.n', 0, 10, 'k')"]
    {
        let plan = client
            .column::<String>(&format!("EXPLAIN (VERBOSE) SELECT FROM docs WHERE {condition}"))
            .join("\n");
        assert!(plan.contains("Bitmap Index Scan") && plan.contains("<filter: k, 1 group>"), "{plan}");
    }
    // Equality on the path is asked of the finest bucket.
    let equal =
        r#"SELECT count(*) FROM docs WHERE sealed @> '{"n": 7}' AND sealed ->> 'n' = '7.0000000000000000'"#;
    assert_eq!(client.one::<i64>(equal), client.one::<i64>(&equal.replace("sealed", "plain")));
}

#[test]
fn ranges_stay_exact_when_they_are_declared_later_or_otherwise() {
    let mut client = database();
    for paths in ["'$.n'", r#"'{"path": "$.n", "range": {"min": 0, "max": 10, "step": 3}}'"#, "'$.other'"] {
        client.run(&format!("SELECT pgseal.set_searchable('k', ARRAY[{paths}])"));
        client.run("UPDATE docs SET sealed = plain WHERE id % 3 = 0");
        compare(&mut client, paths);
    }
    client.run("CALL pgseal.reencrypt('docs', 'sealed')");
    compare(&mut client, "re-encrypted");
}

#[test]
fn times_are_compared_as_points_in_time() {
    let mut client = fresh_database();
    client.run(
        r#"SELECT pgseal.create_keyring('k', ARRAY['{"path": "$.at", "range": {"min": "2020-01-01", "max": "2026-01-01", "step": "1 day"}}'])"#,
    );
    client.run(
        "CREATE TABLE visits (id int, sealed encrypted_jsonb(k)); CREATE INDEX ON visits USING gin (sealed)",
    );
    client.run(
        r#"INSERT INTO visits SELECT ordinality, jsonb_build_object('at', at) FROM unnest(ARRAY['2024-03-01', '2024-03-01T10:00:00Z', '2024-03-01 23:30:00-02:00',
            '2024-03-02T00:00:00.5', 'March 1st', '2019-05-05', '2031-01-01', '']) WITH ORDINALITY AS a (at)"#,
    );
    let within = |client: &mut Client, low: &str, high: &str| {
        let bounds = format!("{low}::timestamptz, {high}::timestamptz");
        client.column::<i32>(&format!(
            "SELECT id FROM visits WHERE pgseal.between(sealed, '$.at', {bounds}) ORDER BY id"
        ))
    };
    for settings in [
        "SET timezone = 'UTC'",
        "SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET enable_seqscan = off",
    ] {
        client.run(settings);
        assert_eq!(within(&mut client, "'2024-03-01T00:00:00Z'", "'2024-03-01T23:59:59Z'"), [1, 2]);
        assert_eq!(within(&mut client, "'2024-03-02T00:00:00Z'", "'2024-03-02T01:30:00Z'"), [3, 4]);
        assert_eq!(within(&mut client, "NULL", "'2020-01-01T00:00:00Z'"), [6]);
        assert_eq!(within(&mut client, "'2030-01-01T00:00:00Z'", "'infinity'"), [7]);
        // Counted from 1970, PostgreSQL's last day is more microseconds than 63 bits hold.
        assert_eq!(within(&mut client, "'2030-01-01T00:00:00Z'", "'294276-12-31T00:00:00Z'"), [7]);
    }
}

#[test]
fn a_case_insensitive_filter_compares_folded_strings_and_nothing_else() {
    let mut client = fresh_database();
    client.run(r#"SELECT pgseal.create_keyring('k', ARRAY['{"path": "$.city", "casefold": true}', '$.name', '$.n'])"#);
    client.run(
        "CREATE TABLE docs (id int, sealed encrypted_jsonb(k)); CREATE INDEX ON docs USING gin (sealed)",
    );
    for (id, document) in [
        r#"{"city": "Berlin", "name": "Ada"}"#,
        r#"{"city": ["BERLIN", "Köln"], "name": "ADA"}"#,
        r#"{"city": "berlin ", "n": 1.0}"#,
        r#"{"CITY": "berlin"}"#,
        r#"{"city": "STRASSE"}"#,
        r#""Berlin""#,
    ]
    .iter()
    .enumerate()
    {
        client.run(&format!("INSERT INTO docs VALUES ({}, '{document}')", id + 1));
    }
    for scan in ["SET enable_seqscan = off", "SET enable_seqscan = on; SET enable_bitmapscan = off"] {
        client.run(scan);
        for (query, expected) in [
            (r#"{"city": "BeRLiN"}"#, &[1][..]),
            (r#"{"city": ["bERLIN"]}"#, &[2]),
            (r#"{"city": "straße"}"#, &[5]),
            (r#"{"name": "ada"}"#, &[1, 2]),
            (r#"{"n": 1}"#, &[3]),
            (r#""BERLIN""#, &[6]),
            (r#"{"city": "berlin", "name": "ADA"}"#, &[1]),
        ] {
            let ids = client.column::<i32>(&format!(
                "SELECT id FROM docs WHERE sealed @@ pgseal.filter_casefold('{query}') ORDER BY id"
            ));
            assert_eq!(ids, expected, "{scan}: {query}");
        }
        // Exact filters on the path stay exact.
        assert_eq!(client.column::<i32>(r#"SELECT id FROM docs WHERE sealed @> '{"city": "Berlin"}'"#), [1]);
        assert_eq!(client.column::<i32>("SELECT id FROM docs WHERE sealed ->> 'city' = 'berlin '"), [3]);
    }
}

#[test]
fn what_cannot_be_asked_or_declared_is_refused_with_the_reason() {
    let mut client = database();
    for wrong in [
        "pgseal.between(sealed, '$.*', 1, 2)",
        "pgseal.between(sealed, 'n', 1, 2)",
        "pgseal.between(sealed, '$.n', 'NaN'::numeric, 2)",
        "pgseal.between(sealed, '$.n', 1, 'Infinity'::numeric)",
    ] {
        assert_eq!(client.state(&format!("SELECT FROM docs WHERE {wrong}")), "22023", "{wrong}");
    }
    for wrong in [
        r#"{"path": "$.n", "bits": 7}"#,
        r#"{"path": "$.n", "bits": 64}"#,
        r#"{"path": "$.n", "spread": 65}"#,
        r#"{"path": "$.n", "casefold": "yes"}"#,
        r#"{"path": "$.n", "range": {"min": 1, "max": 0, "step": 1}}"#,
        r#"{"path": "$.n", "range": {"min": 0, "max": 1, "step": 1}, "bits": 9}"#,
        r#"{"path": "$.n", "unknown": 1}"#,
        r#"{"bits": 9}"#,
        "{",
    ] {
        assert_eq!(
            client.state(&format!("SELECT pgseal.set_searchable('k', ARRAY['{wrong}'])")),
            "22023",
            "{wrong}"
        );
    }
    let shown: Vec<String> = client.one("SELECT searchable FROM pgseal.keyrings");
    assert!(shown[0].contains("99.5"), "{shown:?}");
}

#[test]
fn a_path_with_few_values_is_pointed_out_with_the_reason() {
    let mut client = fresh_database();
    client.run(
        r#"SELECT pgseal.create_keyring('k', ARRAY['$.sex', '$.name', '{"path": "$.flag", "spread": 4}'])"#,
    );
    client.run("CREATE TABLE docs (sealed encrypted_jsonb(k))");
    client.run(
        "INSERT INTO docs SELECT jsonb_build_object('sex', CASE i % 2 WHEN 0 THEN 'f' ELSE 'm' END, 'name', 'n' || i % 90, 'flag', i % 3 = 0)
           FROM generate_series(1, 900) i",
    );
    let found = client
        .query(
            "SELECT path, distinct_values, commonest_share FROM pgseal.check_searchable('docs', 'sealed')",
            &[],
        )
        .unwrap();
    let found: Vec<(String, i64)> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, [("$.name".to_owned(), 90), ("$.sex".to_owned(), 2)]);
    let noticed = crate::support::shared().psql(
        &client.one::<String>("SELECT current_database()::text"),
        &["-c", "CALL pgseal.reencrypt('docs', 'sealed')"],
        "",
    );
    let noticed = String::from_utf8_lossy(&noticed.stderr);
    assert!(
        noticed.contains("searchable path $.sex has 2 different values") && noticed.contains("spread"),
        "{noticed}"
    );
    assert!(!noticed.contains("$.name has"), "{noticed}");
}

#[test]
fn a_filter_with_too_many_keys_is_answered_by_the_recheck() {
    let mut client = fresh_database();
    client.run(r#"SELECT pgseal.create_keyring('k', ARRAY['{"path": "$.a", "spread": 64}'])"#);
    client.run(
        "CREATE TABLE docs (id int, sealed encrypted_jsonb(k)); CREATE INDEX ON docs USING gin (sealed)",
    );
    client.run("INSERT INTO docs SELECT i, jsonb_build_object('a', i % 30) FROM generate_series(1, 300) i; SET enable_seqscan = off");
    let any = |count: i32| {
        let documents: Vec<String> = (0..count).map(|i| format!("'{{\"a\": {i}}}'")).collect();
        format!(
            "SELECT count(*) FROM docs WHERE sealed @@ pgseal.filter_any(ARRAY[{}]::jsonb[])",
            documents.join(", ")
        )
    };
    for (count, groups) in [(10, "1 group"), (20, "0 groups")] {
        let plan = client.column::<String>(&format!("EXPLAIN {}", any(count))).join("\n");
        assert!(plan.contains(groups), "{plan}");
        assert_eq!(client.one::<i64>(&any(count)), i64::from(count) * 10);
    }
}
