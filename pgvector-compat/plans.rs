//! Filtered nearest-neighbour queries: encrypted metadata beside pgvector's types and indexes.

use postgres::Client;

use crate::support::{Sql, fresh_database, with_keyring};

const NEAREST: &str = "ORDER BY embedding <=> '[1, 2, 3]' LIMIT 10";

/// 3,000 rows with the same metadata as plain jsonb and encrypted, 30 patients, both indexes of the README.
fn database() -> Client {
    let mut client = with_keyring("{$.patient}");
    client.run("CREATE TABLE docs (id serial PRIMARY KEY, embedding vector(3), plain jsonb, sealed encrypted_jsonb(k))");
    client.run(
        "INSERT INTO docs (embedding, plain, sealed)
         SELECT format('[%s, %s, %s]', sin(i), cos(i), i % 7)::vector, m, m
           FROM generate_series(1, 3000) i, jsonb_build_object('patient', 'p' || i % 30, 'n', i) m",
    );
    client.run("CREATE INDEX hnsw_index ON docs USING hnsw (embedding vector_cosine_ops)");
    client.run("CREATE INDEX gin_index ON docs USING gin (sealed); ANALYZE docs; SET jit = off");
    client
}

fn plan(client: &mut Client, query: &str) -> String {
    client.column::<String>(&format!("EXPLAIN (COSTS OFF) {query}")).join("\n")
}

fn query(column: &str) -> String {
    format!(r#"SELECT id FROM docs WHERE {column} @> '{{"patient": "p7"}}' {NEAREST}"#)
}

#[test]
fn a_filter_uses_the_token_index_and_the_nearest_come_sorted() {
    let mut client = database();
    let plan = plan(&mut client, &query("sealed"));
    assert!(plan.contains("Bitmap Index Scan on gin_index"), "{plan}");
    assert!(plan.contains("Index Cond: (sealed OPERATOR(pgseal.@~)"), "{plan}");
    assert!(plan.contains("Sort Key: ((embedding <=>"), "{plan}");
    let expected: Vec<i32> = client.column(&query("plain"));
    assert_eq!(client.column::<i32>(&query("sealed")), expected);
    assert_eq!(expected.len(), 10);
}

#[test]
fn the_vector_index_filters_exactly_until_enough_rows_match() {
    let mut client = database();
    client.run("SET enable_bitmapscan = off; SET enable_sort = off; SET hnsw.iterative_scan = strict_order");
    let plan = plan(&mut client, &query("sealed"));
    assert!(plan.contains("Index Scan using hnsw_index"), "{plan}");
    assert!(plan.contains("Filter: ((sealed OPERATOR(pgseal.@~)"), "{plan}");
    assert_eq!(client.column::<i32>(&query("sealed")), client.column::<i32>(&query("plain")));
    assert_eq!(client.column::<i32>(&query("sealed")).len(), 10);
}

#[test]
fn an_undeclared_path_is_exact_beside_the_vector_index() {
    let mut client = database();
    let count = |column: &str| {
        format!(
            r#"SELECT count(*) FROM docs WHERE {column} @> '{{"n": 77}}' AND embedding <=> '[1, 2, 3]' < 2"#
        )
    };
    assert_eq!(client.one::<i64>(&count("sealed")), 1);
    assert_eq!(client.one::<i64>(&count("plain")), 1);
}

#[test]
fn pgvectors_other_types_live_in_the_same_row() {
    let mut client = database();
    client.run("ALTER TABLE docs ADD half halfvec(3), ADD sparse sparsevec(3), ADD bits bit(3)");
    client.run(
        "UPDATE docs SET half = embedding, sparse = embedding::sparsevec, bits = binary_quantize(embedding)",
    );
    client.run("CREATE INDEX ON docs USING hnsw (half halfvec_l2_ops)");
    for order in ["half <-> '[1, 2, 3]'", "sparse <-> '{1:1,2:2,3:3}/3'", "bits <~> '101'"] {
        let nearest = |column: &str| {
            format!(
                r#"SELECT id FROM docs WHERE {column} @> '{{"patient": "p7"}}' ORDER BY {order}, id LIMIT 10"#
            )
        };
        let expected: Vec<i32> = client.column(&nearest("plain"));
        assert_eq!(client.column::<i32>(&nearest("sealed")), expected, "{order}");
    }
}

/// 8,000 rows of 32 dimensions with both indexes; cohorts of one row, 0.1 %, 1 %, 5 %, 10 % and 50 %.
fn cohorts() -> Client {
    let mut client = with_keyring("{$.cohort}");
    client.run("CREATE TABLE docs (id int, embedding vector(32), sealed encrypted_jsonb(k)) WITH (autovacuum_enabled = off)");
    client.run(
        "INSERT INTO docs SELECT i, (SELECT array_agg(sin(i * d) + cos(d * 7 + i % 13)) FROM generate_series(1, 32) d)::float4[]::vector,
                jsonb_build_object('cohort', CASE WHEN i = 77 THEN 'one' WHEN i % 2 = 0 THEN 'half' WHEN i % 10 = 1 THEN 'tenth'
                    WHEN i % 20 = 7 THEN 'twentieth' WHEN i % 100 = 3 THEN 'hundredth' WHEN i % 1000 = 5 THEN 'thousandth' ELSE 'rest ' || i END)
           FROM generate_series(1, 8000) i",
    );
    client.run("SET maintenance_work_mem = '256MB'; CREATE INDEX by_vector ON docs USING hnsw (embedding vector_cosine_ops)");
    client.run("CREATE INDEX by_token ON docs USING gin (sealed); ANALYZE docs; SET jit = off; SET hnsw.iterative_scan = strict_order");
    client
}

#[test]
fn few_matches_are_sorted_and_many_met_along_the_vector_index() {
    let mut client = cohorts();
    let target: String = client.one("SELECT embedding::text FROM docs WHERE id = 4242");
    for (cohort, index, rows) in [
        ("one", "by_token", 1),
        ("thousandth", "by_token", 8),
        ("hundredth", "by_token", 10),
        ("half", "by_vector", 10),
    ] {
        let query = format!(
            r#"SELECT id FROM docs WHERE sealed @> '{{"cohort": "{cohort}"}}' ORDER BY embedding <=> '{target}' LIMIT 10"#
        );
        let plan = plan(&mut client, &query);
        assert!(plan.contains(index), "{cohort}: {plan}");
        assert_eq!(client.column::<i32>(&query).len(), rows, "{cohort}");
    }
}

/// 5 % match: pgvector's price of the first batch is below that of the token index, its price of five is not.
const TWENTIETH: &str = r#"sealed @> '{"cohort": "twentieth"}'"#;

fn nearest(client: &mut Client, table: &str, condition: &str) -> String {
    let target: String = client.one("SELECT embedding::text FROM docs WHERE id = 4242");
    format!("SELECT id FROM {table} WHERE {condition} ORDER BY embedding <=> '{target}' LIMIT 10")
}

#[test]
fn every_batch_of_an_iterative_scan_is_paid_for() {
    let mut client = cohorts();
    let by_text = "sealed ->> 'cohort' = 'twentieth' AND id > 5";
    let either = r#"sealed @> '{"cohort": "twentieth"}' OR sealed @> '{"cohort": "one"}'"#;
    for condition in [TWENTIETH, by_text, either] {
        let query = nearest(&mut client, "docs", condition);
        // A scan that is not iterative has one batch.
        for (mode, index) in
            [("off", "by_vector"), ("strict_order", "by_token"), ("relaxed_order", "by_token")]
        {
            client.run(&format!("SET hnsw.iterative_scan = {mode}"));
            let plan = plan(&mut client, &query);
            assert!(plan.contains(index), "{mode}: {plan}");
        }
    }
}

#[test]
fn every_batch_of_an_iterative_scan_is_paid_for_in_partitions() {
    let mut client = cohorts();
    client.run("CREATE TABLE parts (LIKE docs) PARTITION BY HASH (id)");
    client.run("CREATE TABLE part_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0)");
    client.run("CREATE TABLE part_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1)");
    client.run("CREATE INDEX ON parts USING hnsw (embedding vector_cosine_ops); CREATE INDEX ON parts USING gin (sealed)");
    client.run("INSERT INTO parts SELECT * FROM docs; ANALYZE parts");
    let query = nearest(&mut client, "parts", TWENTIETH);
    let iterative = plan(&mut client, &query);
    assert_eq!(iterative.matches("Bitmap Index Scan on part_").count(), 2, "{iterative}");
    client.run("SET hnsw.iterative_scan = off");
    let one_batch = plan(&mut client, &query);
    assert!(one_batch.contains("Merge Append") && !one_batch.contains("Bitmap"), "{one_batch}");
}

#[test]
fn queries_without_our_filter_cost_what_pgvector_says() {
    let mut client = cohorts();
    let mut costs = |condition: &str| {
        let query = nearest(&mut client, "docs", condition);
        ["off", "strict_order"].map(|mode| {
            client.run(&format!(
                "SET enable_bitmapscan = off; SET enable_sort = off; SET hnsw.iterative_scan = {mode}"
            ));
            let plan: serde_json::Value = client.one(&format!("EXPLAIN (FORMAT JSON) {query}"));
            plan[0]["Plan"]["Total Cost"].as_f64().unwrap()
        })
    };
    let [one_batch, iterative] = costs("id % 20 = 7");
    assert_eq!(one_batch, iterative);
    let [one_batch, iterative] = costs(TWENTIETH);
    assert!(iterative > 3.0 * one_batch, "{one_batch} {iterative}");
}

#[test]
fn dropping_pgvector_needs_cascade_because_pgseal_requires_it() {
    let mut client = fresh_database();
    assert_eq!(client.state("DROP EXTENSION vector"), "2BP01");
}
