//! Indexes of several lists: what they find by default, and all of it when all is read.

use postgres::Client;

use super::{BY_INDEX, BY_TABLE, INDEX, assert_exact, insert, set_up};
use crate::support::{Sql, beside, fresh_database};

const LISTS: &str = "CREATE INDEX docs_embedding ON docs USING sealed_ivf (embedding encrypted_vector_l2_ops) WITH (lists = 40)";
const BY_DEFAULT: &str =
    "RESET pgseal.ivf_epsilon; SET pgseal.ivf_epsilon = 1.9; SET pgseal.ivf_patience = 24";

#[test]
fn lists_are_exact_when_all_are_read() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..3000);
    client.run(LISTS);
    client.run("SET pgseal.ivf_patience = 1000");
    assert_exact(&mut client, "docs", "true", -1);
    insert(&mut client, "docs", 3000..5000);
    client.run("UPDATE docs SET embedding = made(-id), plain = made(-id) WHERE id % 7 = 0; DELETE FROM docs WHERE id % 5 = 0");
    assert_exact(&mut client, "docs", "true", -2);
    client.run("VACUUM docs");
    client.run("SELECT pgseal.rotate_key('k')");
    insert(&mut client, "docs", 5000..6000);
    assert_exact(&mut client, "docs", "true", -3);
    client.run("CALL pgseal.reencrypt_index('docs_embedding')");
    let versions = "SELECT DISTINCT data_key FROM pgseal.index_key_usage('docs_embedding')";
    assert_eq!(client.column::<i32>(versions), [2]);
    assert_exact(&mut client, "docs", "true", -4);
}

#[test]
fn lists_that_a_session_knows_are_those_of_the_index() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..1000);
    client.run(LISTS);
    client.run("SET pgseal.ivf_patience = 1000");
    let mut seed = 0;
    let mut check = |client: &mut Client| {
        // New rows go where the lists say, and are found there.
        seed -= 1;
        insert(client, "docs", 1000 - 10 * seed..1010 - 10 * seed);
        assert_exact(client, "docs", "true", seed);
    };
    check(&mut client);
    client.run("REINDEX INDEX docs_embedding");
    check(&mut client);
    let mut other = beside(&mut client);
    other.run("REINDEX INDEX CONCURRENTLY docs_embedding");
    check(&mut client);
    client.run("BEGIN; REINDEX INDEX docs_embedding");
    client.run("SELECT count(*) FROM (SELECT FROM docs ORDER BY embedding <-> made(-7) LIMIT 5) d");
    client.run("ROLLBACK");
    check(&mut client);
    other.run("SELECT pgseal.rotate_key('k')");
    check(&mut client);
    other.run("CALL pgseal.reencrypt_index('docs_embedding')");
    check(&mut client);
    client.run("TRUNCATE docs");
    check(&mut client);
    other.run("SELECT pgseal.flush_keys()");
    check(&mut client);
}

#[test]
fn a_limit_is_served_by_lists_whatever_the_filter() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..4000);
    client.run(LISTS);
    client.run(BY_DEFAULT);
    for (condition, least) in [("true", 90), ("kind = 3", 90), ("id % 100 = 7", 60), ("id % 400 = 7", 60)] {
        let mut found = 0;
        for seed in 1..=10 {
            let nearest = format!(
                "SELECT id FROM docs WHERE {condition} ORDER BY embedding <-> made(-{seed}) LIMIT 10"
            );
            let mut answer = |settings: &str| {
                client.run("BEGIN");
                client.run(settings);
                let ids = client.column::<i32>(&nearest);
                client.run("COMMIT");
                ids
            };
            let (by_index, by_table) = (answer(BY_INDEX), answer(BY_TABLE));
            assert_eq!(by_index.len(), 10, "{nearest}");
            found += by_index.iter().filter(|id| by_table.contains(id)).count();
        }
        assert!(found >= least, "{condition}: {found} of 100");
    }
}

#[test]
fn every_row_comes_out_of_lists_once_in_each_order() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..2000);
    client.run(LISTS);
    client.run(BY_DEFAULT);
    for (order, complete) in [("complete", true), ("relaxed", true), ("strict", false)] {
        client.run(&format!("SET pgseal.ivf_order = {order}"));
        client.run("BEGIN");
        client.run(BY_INDEX);
        let sql = "SELECT embedding <-> made(-1) FROM docs ORDER BY embedding <-> made(-1)";
        let distances = client.column::<f64>(sql);
        client.run("COMMIT");
        assert!(distances.len() == 2000 || !complete, "{order}: {}", distances.len());
        assert!(order != "strict" || distances.is_sorted(), "{order}");
        assert!(order == "relaxed" || distances[..100].is_sorted(), "{order}");
    }
    assert_eq!(client.state("SET pgseal.ivf_order = none"), "22023");
}

#[test]
fn lists_are_chosen_at_the_build_or_by_who_asks() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..300);
    for (with, state) in
        [("lists = 0", None), ("lists = 1", None), ("lists = 1000", None), ("lists = -2", Some("22023"))]
    {
        let index = format!(
            "CREATE INDEX l ON docs USING sealed_ivf (embedding encrypted_vector_l2_ops) WITH ({with})"
        );
        match state {
            Some(state) => assert_eq!(client.state(&index), state, "{with}"),
            None => {
                client.run(&index);
                client.run("SET pgseal.ivf_patience = 10000");
                assert_exact(&mut client, "docs", "true", -1);
                client.run("DROP INDEX l");
            }
        }
    }
}

#[test]
fn a_flat_index_is_centred_on_its_rows() {
    let mut client = fresh_database();
    set_up(&mut client);
    client.run(BY_DEFAULT);
    client.run(
        "INSERT INTO docs SELECT i, made(i) + '[4,4,4,4,4,4,4,4]', NULL, i FROM generate_series(1, 2000) i",
    );
    let mut visited = |index: &str| {
        client.run(&format!("{index}; BEGIN; {BY_INDEX}"));
        let visited = "SELECT index_rows_visited FROM pgseal.stat";
        let before: i64 = client.one(visited);
        client.run("SELECT FROM docs ORDER BY embedding <-> made(-1) + '[4,4,4,4,4,4,4,4]' LIMIT 1");
        let after: i64 = client.one(visited);
        client.run("COMMIT");
        after - before
    };
    let centred = visited(INDEX);
    // An index that had no rows when it was made is one around zero.
    let around_zero = visited("CREATE TABLE kept AS TABLE docs; TRUNCATE docs; INSERT INTO docs TABLE kept");
    assert!(2 * centred < around_zero, "{centred} rows looked at, not {around_zero}");
}

#[test]
fn rows_that_nobody_has_counted_are_counted_for_the_lists() {
    let mut client = fresh_database();
    set_up(&mut client);
    // PostgreSQL takes these for some 60,000 rows, for which an index has lists.
    client.run(
        "CREATE TABLE wide (id int, embedding encrypted_vector(k, 384)) WITH (autovacuum_enabled = off)",
    );
    client.run("INSERT INTO wide SELECT i, (SELECT array_agg(sin(i * j)::real) FROM generate_series(1, 384) j)::vector FROM generate_series(1, 2500) i");
    client.run("CREATE INDEX ON wide USING sealed_ivf (embedding encrypted_vector_l2_ops)");
    let lists = "SELECT index_lists FROM pgseal.stat";
    let before: i64 = client.one(lists);
    client.run("BEGIN");
    client.run(BY_INDEX);
    assert_eq!(client.column::<i32>("SELECT id FROM wide ORDER BY embedding <-> (SELECT array_agg(sin(7 * j)::real)::vector FROM generate_series(1, 384) j) LIMIT 1"), [7]);
    client.run("COMMIT");
    assert_eq!(client.one::<i64>(lists) - before, 1);
}
