//! Rows come out once, in the exact order, and only those that are there.

use super::{BY_INDEX, COLUMNS, INDEX, assert_exact, assert_exact_by, insert, set_up};
use crate::support::{Sql, fresh_database};

/// Numbers that look random, the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: i32) -> i32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit as u64) as i32
    }
}

#[test]
fn an_index_gives_every_row_in_exact_order_by_each_operator() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..1500);
    for (class, operator) in [("l2", "<->"), ("ip", "<#>"), ("cosine", "<=>")] {
        client
            .run(&format!("CREATE INDEX ON docs USING sealed_ivf (embedding encrypted_vector_{class}_ops)"));
        assert_exact_by(&mut client, (operator, "docs"), "true", -1);
    }
    insert(&mut client, "docs", 1500..3000);
    for operator in ["<->", "<#>", "<=>"] {
        assert_exact_by(&mut client, (operator, "docs"), "true", -2);
    }
}

#[test]
fn an_index_of_an_empty_table_takes_rows() {
    let mut client = fresh_database();
    set_up(&mut client);
    client.run(INDEX);
    assert_exact(&mut client, "docs", "true", -1);
    insert(&mut client, "docs", 0..3);
    assert_exact(&mut client, "docs", "true", -1);
}

#[test]
fn an_index_stays_exact_under_random_changes() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..1500);
    client.run(INDEX);
    let mut dice = Dice(13);
    let mut next = 1500;
    for round in 0..40_i32 {
        let (at, many) = (dice.below(next), 1 + dice.below(300));
        let some = format!("id BETWEEN {at} AND {}", at + many);
        match dice.below(11) {
            0 | 1 => {
                insert(&mut client, "docs", next..next + many);
                next += many;
            }
            2 => client.run(&format!("DELETE FROM docs WHERE {some}")),
            3 => client.run(&format!(
                "UPDATE docs SET embedding = made(id + {round}), plain = made(id + {round}) WHERE {some}"
            )),
            // Without another index on the column these are new versions behind the same address.
            4 => client.run(&format!("UPDATE docs SET note = 'round {round}' WHERE {some}")),
            5 => client.run("VACUUM docs"),
            6 => {
                client.run("BEGIN");
                insert(&mut client, "docs", next..next + many);
                client.run(&format!("DELETE FROM docs WHERE {some}; ROLLBACK"));
            }
            7 => {
                client.run("BEGIN; SAVEPOINT s");
                insert(&mut client, "docs", next..next + many);
                client.run("ROLLBACK TO s");
                client.run(&format!(
                    "UPDATE docs SET embedding = made(-id), plain = made(-id) WHERE {some}; COMMIT"
                ));
            }
            8 => client.run("SELECT pgseal.rotate_key('k')"),
            9 => client.run("CALL pgseal.reencrypt_index('docs_embedding')"),
            _ => client.run(
                ["REINDEX INDEX docs_embedding", "REINDEX INDEX CONCURRENTLY docs_embedding"]
                    [round as usize % 2],
            ),
        }
        assert_exact(&mut client, "docs", "true", -round);
    }
}

#[test]
fn pages_that_vacuum_has_emptied_are_used_again() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..8000);
    client.run(INDEX);
    let size = "SELECT pg_relation_size('docs_embedding')";
    let before: i64 = client.one(size);
    for round in 1..4 {
        client.run("DELETE FROM docs");
        client.run("VACUUM docs");
        insert(&mut client, "docs", 8000 * round..8000 * (round + 1));
        assert_exact(&mut client, "docs", "true", round);
    }
    let after: i64 = client.one(size);
    assert!(after <= before + 2 * 8192, "{before} became {after}");
}

#[test]
fn a_row_that_is_dead_comes_back_as_none() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..100);
    client.run(INDEX);
    // Rows get the addresses of those that vacuum has removed.
    client.run("DELETE FROM docs WHERE id < 50");
    client.run("VACUUM docs");
    insert(&mut client, "docs", 100..150);
    assert_exact(&mut client, "docs", "true", -1);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs"), 100);
}

#[test]
fn null_is_in_no_index_and_everything_is_equally_far_from_it() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..50);
    client.run("UPDATE docs SET embedding = NULL WHERE id < 10");
    // Or the index would wait for snapshots of other databases, since rows have changed where they are.
    client.run("VACUUM docs");
    client.run(INDEX);
    client.run("UPDATE docs SET embedding = NULL WHERE id BETWEEN 10 AND 14");
    assert_exact(&mut client, "docs", "true", -1);
    client.run("BEGIN");
    client.run(BY_INDEX);
    assert_eq!(
        client.column::<i32>("SELECT id FROM docs ORDER BY embedding <-> (SELECT NULL::vector)").len(),
        35
    );
    client.run("COMMIT");
}

#[test]
fn a_vector_without_direction_is_in_no_index_of_cosines() {
    let mut client = fresh_database();
    set_up(&mut client);
    client.run("CREATE INDEX ON docs USING sealed_ivf (embedding encrypted_vector_cosine_ops)");
    insert(&mut client, "docs", 0..20);
    client.run("INSERT INTO docs VALUES (20, '[0,0,0,0,0,0,0,0]'::vector, '[0,0,0,0,0,0,0,0]')");
    assert_exact_by(&mut client, ("<=>", "docs"), "id <> 20", -1);
    client.run("BEGIN");
    client.run(BY_INDEX);
    assert_eq!(client.column::<i32>("SELECT id FROM docs ORDER BY embedding <=> made(1)").len(), 20);
    client.run("COMMIT");
}

#[test]
fn a_partial_index_gives_only_rows_that_it_is_for() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..500);
    client.run("CREATE INDEX ON docs USING sealed_ivf (embedding encrypted_vector_l2_ops) WHERE kind < 3");
    assert_exact(&mut client, "docs", "kind < 3", -1);
    // In and out of it, by other columns than the indexed one.
    client.run("UPDATE docs SET kind = 9 - kind WHERE id % 3 = 0");
    assert_exact(&mut client, "docs", "kind < 3", -2);
    client.run("VACUUM docs");
    insert(&mut client, "docs", 500..600);
    assert_exact(&mut client, "docs", "kind < 3", -3);
}

#[test]
fn conditions_leave_the_order_of_the_rest() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..500);
    client.run(INDEX);
    for condition in ["kind = 3", "id < 20", "kind = 3 AND id > 480", "id < 0"] {
        assert_exact(&mut client, "docs", condition, -1);
    }
}

#[test]
fn a_scan_begins_anew_for_every_outer_row() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..300);
    client.run(INDEX);
    let nearest = "SELECT string_agg(near.id::text, ' ' ORDER BY o.i, near.n) FROM generate_series(1, 20) o (i),
        LATERAL (SELECT id, row_number() OVER () n FROM (SELECT id FROM docs ORDER BY COLUMN <-> made(-o.i) LIMIT 3) d) near";
    let expected: String = client.one(&nearest.replace("COLUMN", "plain"));
    client.run("BEGIN");
    client.run(BY_INDEX);
    assert_eq!(client.one::<String>(&nearest.replace("COLUMN", "embedding")), expected);
    client.run("COMMIT");
}

#[test]
fn a_cursor_reads_on_while_rows_come_and_go() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..300);
    client.run(INDEX);
    let expected = client.column::<i32>("SELECT id FROM docs ORDER BY plain <-> made(-1)");
    client.run("BEGIN");
    client.run(BY_INDEX);
    client.run("DECLARE c SCROLL CURSOR FOR SELECT id FROM docs ORDER BY embedding <-> made(-1)");
    let mut found = client.column::<i32>("FETCH 10 FROM c");
    client.run("DELETE FROM docs WHERE id % 2 = 0");
    insert(&mut client, "docs", 300..400);
    client.run("SAVEPOINT s");
    assert!(client.batch_execute("SELECT 1 / 0").is_err());
    client.run("ROLLBACK TO s");
    assert_eq!(client.column::<i32>("FETCH BACKWARD 1 FROM c"), [expected[8]]);
    client.run("MOVE 1 FROM c");
    found.extend(client.column::<i32>("FETCH ALL FROM c"));
    assert_eq!(found, expected);
    client.run("COMMIT");
    assert_exact(&mut client, "docs", "true", -1);
}

#[test]
fn partitions_merge_their_indexes_in_order() {
    let mut client = fresh_database();
    set_up(&mut client);
    client.run("DROP TABLE docs");
    client.run(&format!("CREATE TABLE docs {} PARTITION BY HASH (id)", COLUMNS));
    for part in 0..3 {
        client.run(&format!(
            "CREATE TABLE docs_{part} PARTITION OF docs FOR VALUES WITH (MODULUS 3, REMAINDER {part})"
        ));
    }
    insert(&mut client, "docs", 0..600);
    client.run(INDEX);
    insert(&mut client, "docs", 600..900);
    assert_exact(&mut client, "docs", "true", -1);
    client.run("ALTER TABLE docs DETACH PARTITION docs_1; ALTER TABLE docs ATTACH PARTITION docs_1 FOR VALUES WITH (MODULUS 3, REMAINDER 1)");
    assert_exact(&mut client, "docs", "true", -2);
}

#[test]
fn temporary_and_unlogged_tables_have_such_indexes() {
    let mut client = fresh_database();
    set_up(&mut client);
    for kind in ["TEMP", "UNLOGGED"] {
        client.run(&format!("CREATE {kind} TABLE other {COLUMNS}"));
        client.run("CREATE INDEX ON other USING sealed_ivf (embedding encrypted_vector_l2_ops)");
        insert(&mut client, "other", 0..2000);
        client.run("DELETE FROM other WHERE id < 1800");
        client.run("VACUUM other");
        insert(&mut client, "other", 0..100);
        assert_exact(&mut client, "other", "true", -1);
        client.run("TRUNCATE other");
        assert_exact(&mut client, "other", "true", -1);
        insert(&mut client, "other", 0..100);
        assert_exact(&mut client, "other", "true", -1);
        client.run("DROP TABLE other");
    }
}

#[test]
fn what_moves_or_copies_a_table_takes_its_index_along() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..2000);
    client.run(INDEX);
    client.run("DELETE FROM docs WHERE id % 3 = 0");
    client.run("VACUUM FULL docs");
    assert_exact(&mut client, "docs", "true", -1);
    client.run("CLUSTER docs USING docs_pkey");
    assert_exact(&mut client, "docs", "true", -2);
    client.run("ALTER TABLE docs ADD COLUMN more int DEFAULT (random() * 9)::int");
    assert_exact(&mut client, "docs", "more < 5", -3);
    client.run("ALTER TABLE docs SET UNLOGGED");
    client.run("ALTER TABLE docs SET LOGGED");
    assert_exact(&mut client, "docs", "true", -4);
}

#[test]
fn vacuum_in_parallel_drops_what_is_dead_from_each_index() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..3000);
    for class in ["l2", "ip", "cosine"] {
        client
            .run(&format!("CREATE INDEX ON docs USING sealed_ivf (embedding encrypted_vector_{class}_ops)"));
    }
    client.run("SET min_parallel_index_scan_size = 0; DELETE FROM docs WHERE id % 2 = 0");
    client.run("ALTER TABLE docs SET (autovacuum_enabled = off)");
    client.run("VACUUM (PARALLEL 3) docs");
    let tuples = "SELECT DISTINCT reltuples::int FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'sealed_ivf'";
    assert_eq!(client.column::<i32>(tuples), [1500]);
    insert(&mut client, "docs", 3000..4000);
    for operator in ["<->", "<#>", "<=>"] {
        assert_exact_by(&mut client, (operator, "docs"), "true", -1);
    }
}

#[test]
fn what_a_scan_did_is_counted_and_explained() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..400);
    client.run(INDEX);
    let counted =
        "SELECT index_lists::text || ' ' || index_rows_scored || ' ' || index_rows_visited FROM pgseal.stat";
    client.run("BEGIN");
    client.run(BY_INDEX);
    let before = client.one::<String>(counted);
    // Two starts of one scan.
    let plan = client
        .column::<String>(
            "EXPLAIN (ANALYZE, COSTS off, TIMING off) SELECT near.id FROM generate_series(1, 2) o (i),
             LATERAL (SELECT id FROM docs ORDER BY embedding <-> made(-o.i) LIMIT 3) near",
        )
        .join("\n");
    let counts = |counted: String| counted.split(' ').map(|n| n.parse().unwrap()).collect::<Vec<i64>>();
    let (before, after) = (counts(before), counts(client.one(counted)));
    let done: Vec<i64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(done, [2, 800, 800]);
    let explained = ["Index Lists Read: 2", "Index Rows Scored: 800", "Index Rows Visited: 800"];
    let can_be = client.one::<i32>("SELECT current_setting('server_version_num')::int") >= 180_000;
    assert!(explained.iter().all(|line| plan.contains(line) == can_be), "{plan}");
    // Nothing is told of what has not run.
    let plan = client
        .column::<String>("EXPLAIN SELECT id FROM docs ORDER BY embedding <-> made(-1) LIMIT 3")
        .join("\n");
    assert!(plan.contains("docs_embedding") && !plan.contains("Scored"), "{plan}");
    client.run("COMMIT");
}
