//! What sorts, groups and joins gives for encrypted values what it gives for plain ones, and leaves nothing of them behind.

use postgres::{Client, SimpleQueryMessage};

use crate::support::{Cluster, Sql, as_server, fresh_database, output, shared};

/// Texts and documents as plain and as sealed, under two keyrings and three key versions, with NULLs, in several rows each.
fn database() -> Client {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k', '{$.a, $}'); SELECT pgseal.create_keyring('other', '{$.a, $}');
         CREATE TABLE plain (id int, s text, s2 text, j jsonb, any_s text);
         CREATE TABLE sealed (id int, s encrypted_text(k), s2 encrypted_text(other), j encrypted_jsonb(k), any_s encrypted_text);
         INSERT INTO plain SELECT i, w, u, d, coalesce(u, w) FROM generate_series(0, 59) i, LATERAL (
             SELECT (ARRAY['b', 'B', 'a', '', 'ä', 'ab', 'a b', '10', '9', NULL])[1 + i % 10],
                    (ARRAY['b', 'ä', 'c', NULL])[1 + i % 4],
                    (ARRAY['{\"a\": \"x\", \"n\": 1}', '{\"n\": 1.0, \"a\": \"x\"}', '[]', '[1, 2]', '{}', '\"s\"', '7', 'null', 'true',
                           '{\"a\": \"y\"}', NULL])[1 + i % 11]::jsonb) v (w, u, d)",
    );
    for (first, last) in [(0, 19), (20, 39), (40, 59)] {
        client.run(&format!(
            "INSERT INTO sealed SELECT id, s, s2, j, coalesce(pgseal.encrypt(s2, 'other'), pgseal.encrypt(s, 'k'))
               FROM plain WHERE id BETWEEN {first} AND {last};
             SELECT pgseal.rotate_key('k')",
        ));
    }
    client.run("ANALYZE; SET pgseal.reveal = on");
    client
}

/// The rows as text. Which of several equal documents stands for a group is open.
fn rows(client: &mut Client, query: &str) -> Vec<String> {
    let messages = client.simple_query(query).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let mut rows = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push(
                (0..row.len())
                    .map(|at| row.get(at).unwrap_or("NULL"))
                    .collect::<Vec<_>>()
                    .join("|")
                    .replace("1.0", "1"),
            );
        }
    }
    rows
}

/// `t` stands for the table. What a query does not order is compared as a set.
const QUERIES: [&str; 50] = [
    "SELECT id FROM t WHERE s IN ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', '9')",
    "SELECT id FROM t WHERE j ->> 'a' NOT IN ('x', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', '9')",
    "SELECT id FROM t WHERE j = '{}' OR j <> '{\"n\": 1, \"a\": \"x\"}'::jsonb OR '[]'::jsonb = j",
    "SELECT s FROM t ORDER BY s, id",
    "SELECT s, id FROM t ORDER BY s DESC, id",
    "SELECT s, id FROM t ORDER BY s NULLS FIRST, id",
    "SELECT id FROM t ORDER BY s DESC NULLS LAST, j, id",
    "SELECT j, id FROM t ORDER BY j, id",
    "SELECT j FROM t ORDER BY j DESC, id LIMIT 20 OFFSET 3",
    "SELECT id, s FROM t ORDER BY j ->> 'a', s, id",
    "SELECT DISTINCT s FROM t",
    "SELECT DISTINCT j FROM t",
    "SELECT DISTINCT s, j ->> 'a' FROM t ORDER BY s, j ->> 'a'",
    "SELECT DISTINCT ON (s) s, id FROM t ORDER BY s, id DESC",
    "SELECT DISTINCT ON (j) s, j FROM t ORDER BY j, id",
    "SELECT s, count(*) FROM t GROUP BY s",
    "SELECT j, count(*), min(id) FROM t GROUP BY j HAVING count(*) > 5",
    "SELECT j ->> 'a', sum(id) FROM t GROUP BY j ->> 'a'",
    "SELECT j ->> 'a', s, count(*) FROM t GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT j -> 'n', count(*) FROM t GROUP BY j -> 'n'",
    "SELECT s, s2, count(*) FROM t GROUP BY ROLLUP (s, s2)",
    "SELECT s, count(*) FROM t GROUP BY GROUPING SETS ((s), ()) ORDER BY s, 2",
    "SELECT any_s, count(*) FROM t GROUP BY any_s ORDER BY any_s",
    "SELECT count(DISTINCT s), count(DISTINCT j), count(DISTINCT j ->> 'a') FROM t",
    "SELECT s2, count(DISTINCT s) FROM t GROUP BY s2",
    "SELECT max(s), min(s), max(j ->> 'a'), min(any_s) FROM t",
    "SELECT max(s), min(s) FROM t WHERE id < 0",
    "SELECT s2, max(s), min(s) FROM t GROUP BY s2 ORDER BY max(s), s2",
    "SELECT max(s) FILTER (WHERE id > 30), max(s2) FROM t",
    "SELECT array_agg(id ORDER BY s, id) FROM t",
    "SELECT s FROM t UNION SELECT s2 FROM t",
    "SELECT s FROM t UNION SELECT s2 FROM t ORDER BY 1 LIMIT 5",
    "SELECT s FROM t INTERSECT SELECT s2 FROM t",
    "SELECT s FROM t EXCEPT SELECT s2 FROM t",
    "SELECT j FROM t WHERE id < 20 EXCEPT ALL SELECT j FROM t WHERE id < 7",
    "SELECT s, row_number() OVER (PARTITION BY s ORDER BY id), id FROM t",
    "SELECT s, rank() OVER (ORDER BY s), dense_rank() OVER (ORDER BY j), id FROM t",
    "SELECT id, first_value(s) OVER (PARTITION BY s2 ORDER BY s, id) FROM t",
    "SELECT id, max(s) OVER (PARTITION BY s2) FROM t",
    "SELECT id, lag(s) OVER w, ntile(3) OVER w FROM t WINDOW w AS (ORDER BY s, id)",
    "SELECT a.id, b.id FROM t a JOIN t b ON a.s = b.s2",
    "SELECT a.id, b.id, a.s FROM t a FULL JOIN t b ON a.s = b.s2 AND b.id < 5",
    "SELECT a.s, b.j FROM t a JOIN t b ON a.j = b.j AND a.id < b.id ORDER BY a.s, b.j, a.id, b.id",
    "SELECT a.id, b.id FROM t a LEFT JOIN t b ON a.j ->> 'a' = b.j ->> 'a' WHERE a.id < 30",
    "SELECT id FROM t WHERE s IN (SELECT s2 FROM t)",
    "SELECT id FROM t a WHERE NOT EXISTS (SELECT FROM t b WHERE b.s2 = a.s)",
    "SELECT id FROM t WHERE s IS DISTINCT FROM s2 AND (id, s) IN (SELECT id, any_s FROM t)",
    "WITH c AS (SELECT s, count(*) AS n FROM t GROUP BY s) SELECT s, n FROM c ORDER BY n, s",
    "SELECT * FROM (SELECT DISTINCT s, j FROM t) q ORDER BY s, j",
    "SELECT s FROM t WHERE s IS NOT NULL GROUP BY s HAVING s = 'b' OR max(s2) = 'c' ORDER BY s FETCH FIRST 4 ROWS WITH TIES",
];

fn compare(client: &mut Client, how: &str) {
    for query in QUERIES {
        let of = |table: &str| {
            ["FROM", "JOIN"].iter().fold(format!("{query} "), |text, word| {
                text.replace(&format!("{word} t "), &format!("{word} {table} "))
                    .replace(&format!("{word} t)"), &format!("{word} {table})"))
            })
        };
        let (mut expected, mut found) = (rows(client, &of("plain")), rows(client, &of("sealed")));
        assert!(!expected.is_empty(), "{query}");
        if !query.contains("ORDER BY") || query.contains("OVER") {
            expected.sort();
            found.sort();
        }
        assert_eq!(found, expected, "{query} {how}");
    }
}

#[test]
fn queries_give_what_they_give_for_plain_values() {
    let mut client = database();
    for plans in [
        "work_mem = '4MB'",
        "enable_hashagg = off; SET enable_hashjoin = off",
        "enable_sort = off; SET enable_nestloop = off",
    ] {
        client.run(&format!("RESET ALL; SET pgseal.reveal = on; SET {plans}"));
        compare(&mut client, plans);
    }
}

#[test]
fn no_index_keeps_an_order_or_hashes() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k', '{$.a, $}'); CREATE TYPE pair AS (n int, s encrypted_text);
         CREATE TABLE t (id int, s encrypted_text(k), a encrypted_text[], p pair, j encrypted_jsonb(k));
         CREATE MATERIALIZED VIEW m AS SELECT s FROM t",
    );
    for refused in [
        "CREATE INDEX ON t (s)",
        "CREATE UNIQUE INDEX ON t (j)",
        "CREATE INDEX ON t USING hash (s)",
        "CREATE INDEX CONCURRENTLY ON t USING hash (j)",
        "CREATE INDEX ON t (a)",
        "CREATE INDEX ON t USING hash (a)",
        "CREATE INDEX ON t USING hash (p)",
        "CREATE INDEX ON t USING hash ((array_append(a, s)))",
        "CREATE INDEX ON t (p)",
        "CREATE INDEX ON t ((t))",
        "CREATE UNIQUE INDEX ON m (s)",
        "ALTER TABLE t ADD PRIMARY KEY (s)",
        "ALTER TABLE t ADD UNIQUE (id, a)",
        "ALTER TABLE t ADD EXCLUDE USING hash (s WITH =)",
        "ALTER TABLE t ADD EXCLUDE USING hash (a WITH =)",
        "CREATE TABLE u (s encrypted_text PRIMARY KEY)",
        "CREATE TABLE u (s encrypted_text[] PRIMARY KEY)",
        "CREATE TABLE u (id int, s text UNIQUE, p pair UNIQUE)",
        "CREATE SCHEMA z CREATE TABLE u (a pair[]) CREATE INDEX i ON u USING hash (a)",
        "CREATE TABLE u (s encrypted_text) PARTITION BY RANGE (s)",
        "CREATE TABLE u (s encrypted_text) PARTITION BY LIST (s)",
        "CREATE TABLE u (id int, s encrypted_jsonb) PARTITION BY HASH (id, s)",
        "CREATE TABLE u (a encrypted_text[]) PARTITION BY LIST (a)",
        "CREATE STATISTICS x ON id, s FROM t",
        "CREATE STATISTICS x ON (j ->> 'a') FROM t",
        "CREATE TYPE x AS RANGE (subtype = encrypted_text)",
    ] {
        let error = client.error(refused);
        assert_eq!(error.code().code(), "0A000", "{refused}: {error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("gin")), "{refused}");
    }
    client.run(
        "CREATE INDEX ON t USING gin (s); CREATE INDEX ON t USING gin (j); CREATE INDEX ON t (id);
         CREATE INDEX ON t USING hash (pgseal.key_version(s)); CREATE STATISTICS x ON id, (id % 7) FROM t",
    );
}

#[test]
fn analyze_of_rows_and_arrays_needs_no_key() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k', '{$}'); CREATE TYPE pair AS (n int, s encrypted_text); CREATE ROLE analyst;
         CREATE TABLE t AS SELECT ARRAY[pgseal.encrypt('x', 'k')] AS a, ROW(1, pgseal.encrypt('x', 'k'))::pair AS p FROM generate_series(1, 100);
         ALTER TABLE t OWNER TO analyst; SET ROLE analyst; ANALYZE t",
    );
    let orders = "SELECT count(*) FROM pg_statistic WHERE starelid = 't'::regclass AND 2 IN (stakind1, stakind2, stakind3, stakind4, stakind5)";
    client.run("RESET ROLE");
    assert_eq!(client.one::<i64>(orders), 0);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM (SELECT DISTINCT a, p FROM t) q"), 1);
    client.run("DROP TABLE t; DROP ROLE analyst");
}

/// A table of which a role may only filter the declared texts.
fn searched() -> (Client, Client) {
    let mut owner = fresh_database();
    owner.run(
        "SELECT pgseal.create_keyring('k', '{$.a, $}');
         CREATE TABLE t (id int, s encrypted_text(k), j encrypted_jsonb(k));
         INSERT INTO t SELECT i, 'w' || i % 3, jsonb_build_object('a', 'w' || i % 3, 'z', 'w' || i % 4) FROM generate_series(1, 12) i;
         CREATE TABLE kept AS SELECT id, j ->> 'z' AS part FROM t; GRANT ALL ON t, kept TO PUBLIC; ANALYZE",
    );
    let name = format!("searcher_{}", owner.one::<String>("SELECT current_database()"));
    owner.run(&format!("CREATE ROLE {name} LOGIN; SELECT pgseal.grant_keyring('k', '{name}', '{{search}}')"));
    let searcher = shared().connect_as(&name, &owner.one::<String>("SELECT current_database()"));
    (owner, searcher)
}

#[test]
fn a_role_that_only_searches_joins_and_groups_what_is_declared() {
    let (_owner, mut client) = searched();
    for settings in ["enable_nestloop = off", "enable_hashjoin = off"] {
        client.run(&format!("RESET ALL; SET {settings}; SET enable_sort = off"));
        assert_eq!(client.one::<i64>("SELECT count(*) FROM t a JOIN t b ON a.s = b.s"), 48);
        assert_eq!(client.one::<i64>("SELECT count(*) FROM t a JOIN t b ON a.j ->> 'a' = b.j ->> 'a'"), 48);
        assert_eq!(client.one::<i64>("SELECT count(*) FROM t a JOIN t b ON a.j ->> 'a' = b.s"), 48);
        assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE s IN (SELECT j ->> 'a' FROM t)"), 12);
        let list = "('w0', 'w1', 'x2', 'x3', 'x4', 'x5', 'x6', 'x7', 'x8', 'x9', 'x10')";
        for part in ["s", "j ->> 'a'"] {
            assert_eq!(
                client.one::<i64>(&format!("SELECT count(*) FROM t WHERE {part} IN {list}")),
                8,
                "{part}"
            );
            assert_eq!(
                client.one::<i64>(&format!("SELECT count(*) FROM t WHERE {part} NOT IN {list}")),
                4,
                "{part}"
            );
        }
        for grouped in ["s", "j ->> 'a'"] {
            let sizes = format!("SELECT count(*) FROM t GROUP BY {grouped}");
            assert_eq!(client.column::<i64>(&sizes), [4, 4, 4], "{grouped}");
        }
    }
}

#[test]
fn order_needs_decrypt_and_groups_what_equality_needs() {
    let (mut owner, mut client) = searched();
    let ordered = [
        "SELECT id FROM t ORDER BY s",
        "SELECT id FROM t ORDER BY j ->> 'a'",
        "SELECT max(s)::text FROM t",
        "SELECT rank() OVER (ORDER BY s) FROM t",
        "SELECT count(DISTINCT s) FROM t",
    ];
    // A stored part has lost its path, and whole documents have paths that are not declared.
    let compared = [
        "SELECT count(*) FROM t GROUP BY j",
        "SELECT count(*) FROM kept GROUP BY part",
        "SELECT DISTINCT j ->> 'z' FROM t",
        "SELECT count(*) FROM kept a JOIN kept b ON a.part = b.part",
        "SELECT count(*) FROM t a JOIN t b ON a.j = b.j",
    ];
    for refused in ordered.iter().chain(&compared) {
        assert_eq!(client.state(refused), "42501", "{refused}");
    }
    // What the role has read itself, and only as long as it is this role.
    client.run("CREATE TEMP TABLE own AS SELECT j ->> 'a' AS part FROM t");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM (SELECT part FROM own GROUP BY part) q"), 3);
    let name: String = client.one("SELECT current_user::text");
    owner.run(&format!("SELECT pgseal.grant_keyring('k', '{name}', '{{decrypt}}')"));
    for allowed in ordered.iter().chain(&compared) {
        client.run(allowed);
    }
    owner.run(&format!("SELECT pgseal.revoke_keyring('k', '{name}', '{{search,decrypt}}')"));
    for refused in ordered.iter().chain(&compared).chain(&["SELECT count(*) FROM t GROUP BY s"]) {
        assert_eq!(client.state(refused), "42501", "{refused}");
    }
}

#[test]
fn no_worker_sorts_or_groups() {
    let mut client = database();
    client.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; ALTER TABLE sealed SET (parallel_workers = 2);
         ALTER TABLE plain SET (parallel_workers = 2)",
    );
    for query in [
        "SELECT s, count(*) FROM t GROUP BY s",
        "SELECT id FROM t ORDER BY s",
        "SELECT DISTINCT j FROM t",
        "SELECT s FROM t UNION SELECT s FROM t",
    ] {
        let plan = |client: &mut Client, table: &str| {
            rows(client, &format!("EXPLAIN {}", query.replace("FROM t", &format!("FROM {table}")))).join("\n")
        };
        assert!(plan(&mut client, "plain").contains("Gather"), "{query}");
        assert!(!plan(&mut client, "sealed").contains("Gather"), "{query}");
    }
    assert!(rows(&mut client, "EXPLAIN SELECT count(*) FROM sealed").join("\n").contains("Gather"));
    compare(&mut client, "with workers");
}

/// Files of sorts and hashes that a server has now, and whether one holds the word.
fn temporary_files(cluster: &Cluster, word: &str) -> (usize, bool) {
    let folder = cluster.data_dir().join("base/pgsql_tmp");
    let found = output(as_server("grep").args(["-rlc", "", "--"]).arg(&folder));
    let marked = output(as_server("grep").args(["-rla", word, "--"]).arg(&folder));
    (found.stdout.split(|byte| *byte == b'\n').count() - 1, !marked.stdout.is_empty())
}

#[test]
fn no_temporary_file_holds_plaintext() {
    let cluster = Cluster::with_pgseal(&["work_mem = 64"]);
    let mut client = cluster.connect("postgres");
    client.run(
        "SELECT pgseal.create_keyring('k', '{$.a, $}'); SET pgseal.reveal = on;
         CREATE TABLE sealed (id int, s encrypted_text(k)); CREATE TABLE plain (id int, s text);
         INSERT INTO plain SELECT i, 'canary' || md5(i::text) FROM generate_series(1, 3000) i; INSERT INTO sealed TABLE plain; ANALYZE",
    );
    for query in [
        "SELECT s, id FROM t ORDER BY s",
        "SELECT s, id FROM t ORDER BY id DESC",
        "SELECT DISTINCT s FROM t",
        "SELECT s, count(*) FROM t GROUP BY s",
        "SELECT s, row_number() OVER (PARTITION BY s) FROM t",
        "SELECT s FROM t UNION SELECT s FROM t",
        "SELECT a.s FROM t a JOIN t b ON a.s = b.s ORDER BY a.id",
    ] {
        for (table, holds) in [("plain", true), ("sealed", false)] {
            let declared =
                query.replace("FROM t", &format!("FROM {table}")).replace("JOIN t", &format!("JOIN {table}"));
            client.run(&format!("BEGIN; DECLARE c CURSOR FOR {declared}; FETCH 5 FROM c"));
            let (files, found) = temporary_files(&cluster, "canary");
            assert!(files > 0, "{declared} needs no file");
            assert_eq!(found, holds, "{declared}");
            client.run("COMMIT");
        }
    }
}
