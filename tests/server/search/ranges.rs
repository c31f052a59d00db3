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
        assert!(
            plan.contains("Bitmap Index Scan") && plan.contains("<filter: k, 1 group, rechecked>"),
            "{plan}"
        );
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
fn a_case_insensitive_filter_compares_folded_strings_alone() {
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
        &client.database(),
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
    for (count, groups) in [(10, "1 group"), (200, "0 groups")] {
        let plan = client.column::<String>(&format!("EXPLAIN {}", any(count))).join("\n");
        assert!(plan.contains(groups), "{plan}");
        assert_eq!(client.one::<i64>(&any(count)), i64::from(count.min(30)) * 10);
    }
}

#[test]
fn bounds_without_a_type_are_numbers_or_times() {
    let mut client = database();
    let ids = |condition: &str| {
        format!(
            "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM public.docs WHERE {condition}"
        )
    };
    let known = |bound: &str| (!bound.contains("NULL")).then(|| bound.to_owned());
    for plans in ["auto", "force_generic_plan"] {
        client.run(&format!("SET plan_cache_mode = {plans}"));
        for (low, high) in BOUNDS.map(|(low, high)| (known(low), known(high))) {
            if (&low, &high) == (&None, &None) {
                continue;
            }
            let quoted =
                |bound: &Option<String>| bound.as_ref().map_or("NULL".into(), |bound| format!("'{bound}'"));
            let (low_text, high_text) = (quoted(&low), quoted(&high));
            let numbers =
                format!("public.plain_between(plain, 'n', {low_text}::numeric, {high_text}::numeric)");
            let expected: String = client.one(&ids(&numbers));
            for condition in [
                format!("pgseal.between(sealed, '$.n', {low_text}, {high_text})"),
                format!("(sealed @@ pgseal.filter_between('$.n', {low_text}, {high_text}))")
                    .replace("@@", "OPERATOR(public.@@)"),
                format!(
                    "(sealed OPERATOR(public.@@) pgseal.filter_between('$.n', {low_text}, {high_text}, 'k'))"
                ),
                format!("pgseal.between(sealed, '$.n', {low_text}::varchar, {high_text}::text)"),
            ] {
                assert_eq!(client.one::<String>(&ids(&condition)), expected, "{condition}");
            }
            for condition in [
                "pgseal.between(sealed, '$.n', $1, $2)",
                "(sealed OPERATOR(public.@@) pgseal.filter_between('$.n', $1, $2))",
            ] {
                let found = client.query_one(&ids(condition), &[&low, &high]).unwrap();
                assert_eq!(found.get::<_, String>(0), expected, "{plans}: {condition}");
            }
        }
    }
    // One bound with a type still says what the other is.
    let (typed, untyped) =
        ("pgseal.between(sealed, '$.n', 5, '7')", "pgseal.between(sealed, '$.n', '5', '7')");
    assert_eq!(client.one::<String>(&ids(typed)), client.one::<String>(&ids(untyped)));
    for (bounds, state) in [
        ("NULL, NULL", "22023"),
        ("'a', 'b'", "22023"),
        ("'1', '2020-01-01'", "22023"),
        ("'NaN', NULL", "22023"),
    ] {
        for call in [
            "pgseal.between(sealed, '$.n', BOUNDS)",
            "(sealed OPERATOR(public.@@) pgseal.filter_between('$.n', BOUNDS))",
        ] {
            let error = client.error(&ids(&call.replace("BOUNDS", bounds)));
            assert_eq!(error.code().code(), state, "{bounds}: {error:?}");
            assert!(!error.message().contains("2020"), "{error:?}");
        }
    }
}

#[test]
fn times_without_a_type_are_read_as_the_session_reads_them() {
    let mut client = fresh_database();
    client.run(
        r#"SELECT pgseal.create_keyring('k', ARRAY['{"path": "$.at", "range": {"min": "2020-01-01", "max": "2026-01-01", "step": "1 day"}}'])"#,
    );
    client.run(
        "CREATE TABLE visits (id int, sealed encrypted_jsonb(k)); CREATE INDEX ON visits USING gin (sealed)",
    );
    client.run(r#"INSERT INTO visits SELECT i, jsonb_build_object('at', '2021-05-0' || i || 'T10:00:00Z') FROM generate_series(1, 9) i"#);
    client.run("SET DateStyle = 'ISO, DMY'; SET TimeZone = 'America/New_York'; SET enable_seqscan = off");
    for (low, high) in [
        ("2021-05-03", "2021-05-05"),
        ("03.05.2021", "infinity"),
        ("2021-05-03 06:00", "2021-05-03 06:00"),
        ("-infinity", "2021-05-09Z"),
    ] {
        let ids = |bounds: &str| {
            format!(
                "SELECT array_agg(id ORDER BY id) FROM visits WHERE pgseal.between(sealed, '$.at', {bounds})"
            )
        };
        let typed: Option<Vec<i32>> =
            client.one(&ids(&format!("'{low}'::timestamptz, '{high}'::timestamptz")));
        assert!(typed.is_some(), "{low} {high}");
        assert_eq!(
            client.one::<Option<Vec<i32>>>(&ids(&format!("'{low}', '{high}'"))),
            typed,
            "{low} {high}"
        );
        let row = client.query_one(&ids("$1, $2"), &[&low, &high]).unwrap();
        assert_eq!(row.get::<_, Option<Vec<i32>>>(0), typed, "{low} {high}");
    }
}

const AT: &str = r#"{"path": "$.at", "range": {"min": "2020-01-01", "max": "2021-01-01", "step": "1 hour"}}"#;

/// Every way to write a date, a time and an offset, and ways that are none, as `docs (id, at, read, sealed)`.
fn times(client: &mut Client) {
    client.run("SET TimeZone = 'UTC'");
    client.run("CREATE FUNCTION read(text) RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RETURN $1::timestamptz; EXCEPTION WHEN others THEN RETURN NULL; END $$");
    client.run("CREATE TABLE docs (id serial PRIMARY KEY, at text, read timestamptz, sealed encrypted_jsonb(k)) WITH (autovacuum_enabled = off)");
    client.run(
        r"INSERT INTO docs (at, read, sealed) SELECT at, read(at), jsonb_build_object('at', at) FROM (SELECT date || clock || zone AS at FROM
            unnest(ARRAY['2020-02-29', ' 2020-03-01', '2021-02-29', '20200229', '2020-060', '2020-366', '2021-366', '2021-000', '2020-1-2', '0001-01-01',
                '0000-01-01', '12020-01-02', '2020-13-01', '2020-00-10', '294276-12-31', '294277-01-01', '19691231', '2020-02', '2020']) date,
            unnest(ARRAY['', 'T10:00', 't10:00:30', ' 10:00', E'\x0B\t23:59:60', 'T24:00', 'T24:00:01', 'T1000', 'T100030', '  100030.25', 'T10:00:30.',
                'T10:00:30.1234565', 'T10:00:30.1234575', 'T23:59:59.9999999', 'T10:60', 'T25:00', 'T10:00:61', 'T1:2:3', 'T10:00.5', 'T10', 'T 10:00',
                ' T10:00', 'T23:59:60.5', 'T235960', 'T10:00:30,5']) clock,
            unnest(ARRAY['', 'Z', 'z', ' Z', '+02', '+2', '-0330', '+02:30', ' +02:00 ', '+15:59', '-16:00', '+02:00:30', '+14:60', '+', '+230', '-02:0',
                '+020030', E'\u00A0Z']) zone) t",
    );
    client.run("CREATE INDEX ON docs USING gin (sealed); ANALYZE docs; SET jit = off");
}

#[test]
fn iso_times_are_read_as_timestamptz_reads_them() {
    let mut client = fresh_database();
    client.run(&format!("SELECT pgseal.create_keyring('k', ARRAY['{AT}'])"));
    times(&mut client);
    assert!(client.one::<i64>("SELECT count(read) FROM docs") > 2_000);
    let differ = "SELECT at FROM docs WHERE pgseal.between(sealed, '$.at', NULL::timestamptz, NULL) IS DISTINCT FROM (read IS NOT NULL)
        OR read IS NOT NULL AND NOT pgseal.between(sealed, '$.at', read, read)";
    assert_eq!(client.column::<String>(differ), [""; 0]);
    for scan in [
        "SET enable_seqscan = off; SET enable_bitmapscan = on",
        "SET enable_seqscan = on; SET enable_bitmapscan = off",
    ] {
        client.run(scan);
        for (low, high) in [
            ("'2020-02-29 10:00Z'", "'2020-02-29 10:00Z'"),
            ("'2020-02-29 10:00:30.123456Z'", "'2020-02-29 10:00:30.123458Z'"),
            ("'2020-03-01Z'", "'2020-03-01Z'"),
            ("'2020-12-31'", "'infinity'"),
            ("'-infinity'", "'2020-01-02 00:00:00Z'"),
            ("NULL::timestamptz", "'1970-01-01'"),
            ("'2100-01-01'", "NULL::timestamptz"),
        ] {
            let ids = |condition: &str| {
                format!(
                    "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM docs WHERE {condition}"
                )
            };
            let expected: String = client.one(&ids(&format!("read >= coalesce({low}::timestamptz, '-infinity') AND read <= coalesce({high}::timestamptz, 'infinity')")));
            assert!(!expected.is_empty());
            assert_eq!(
                client.one::<String>(&ids(&format!("pgseal.between(sealed, '$.at', {low}, {high})"))),
                expected,
                "{scan}: {low} {high}"
            );
        }
        // Equality is asked of the bucket and answered by the text.
        for at in ["2020-02-29T235960", "2020-02-29T10:00Z", "2020-060T10:00Z", "2021-02-29T10:00Z"] {
            let found = format!(r#"SELECT count(*) FROM docs WHERE sealed @> '{{"at": "{at}"}}'"#);
            assert_eq!(
                client.one::<i64>(&found),
                client.one::<i64>(&format!("SELECT count(*) FROM docs WHERE at = '{at}'")),
                "{at}"
            );
        }
    }
}

#[test]
fn rows_of_an_older_policy_are_read_by_it_until_reencrypted() {
    let mut client = fresh_database();
    client.run(&format!("SELECT pgseal.create_keyring('k', ARRAY['{AT}'])"));
    client.run("UPDATE pgseal.index_key SET policy = (policy::jsonb - 'times')::json");
    times(&mut client);
    client.run("DELETE FROM docs WHERE id % 5 > 0");
    let plans = [
        "SET enable_seqscan = off; SET enable_bitmapscan = on",
        "SET enable_seqscan = on; SET enable_bitmapscan = off",
    ];
    let found = |client: &mut Client| {
        plans.map(|scan| {
            client.run(scan);
            let rewritten = "pgseal.between(sealed, '$.at', NULL::timestamptz, NULL)";
            // Not rewritten, since it is volatile.
            let itself = "pgseal.between(sealed, '$.at', NULL::timestamptz, timestamptz 'infinity' + random() * interval '0')";
            [rewritten, itself].map(|condition| client.one::<i64>(&format!("SELECT count(*) FROM docs WHERE {condition}")))
        })
    };
    let before = found(&mut client);
    let all: i64 = client.one("SELECT count(read) FROM docs");
    assert!(before[0][0] > 0 && before[0][0] < all, "{before:?}");
    assert_eq!(before, [[before[0][0]; 2]; 2]);
    // Rows under the new version beside the old ones, then all of them.
    client.run("SELECT pgseal.rotate_index_key('k')");
    assert_eq!(found(&mut client), before);
    client.run("CALL pgseal.reencrypt('docs', 'sealed')");
    for counts in found(&mut client) {
        assert_eq!(counts, [all, all]);
    }
}
