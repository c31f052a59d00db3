//! The index access method sealed_ivf: answers, whatever happens to the table, the server and the keys.

mod answers;
mod concurrent;
mod crashes;
mod forged;
mod keys;
mod leaks;
mod lists;
mod refused;

use postgres::Client;

use crate::support::Sql;

/// Makes a keyring, and a table of embeddings of 8 dimensions beside the same in the clear.
fn set_up(client: &mut Client) {
    client.run("SELECT pgseal.create_keyring('k')");
    // Bounds so low that every row is looked at before the first comes out.
    client.run("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET pgseal.ivf_epsilon = 1000', current_database()); END $$; SET pgseal.ivf_epsilon = 1000");
    client.run(
        "CREATE FUNCTION made(seed int) RETURNS vector LANGUAGE sql IMMUTABLE AS
           $$ SELECT array_agg(('x' || substr(md5(seed || ' ' || i), 1, 8))::bit(32)::int / 2147483648.0 ORDER BY i)::real[]::vector
                FROM generate_series(1, 8) i $$",
    );
    client.run(&format!("CREATE TABLE docs {COLUMNS}"));
}

const COLUMNS: &str =
    "(id int PRIMARY KEY, embedding encrypted_vector(k, 8), plain vector(8), kind int, note text)";

/// Rows with these ids.
fn insert(client: &mut Client, table: &str, ids: std::ops::Range<i32>) {
    client.run(&format!(
        "INSERT INTO {table} SELECT i, made(i), made(i), i % 10 FROM generate_series({}, {}) i",
        ids.start,
        ids.end - 1
    ));
}

/// An index of `docs` by Euclidean distance.
const INDEX: &str =
    "CREATE INDEX docs_embedding ON docs USING sealed_ivf (embedding encrypted_vector_l2_ops)";

/// Statements of this transaction go along an index that orders.
const BY_INDEX: &str =
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off";
/// They do not.
const BY_TABLE: &str =
    "SET LOCAL enable_indexscan = off; SET LOCAL enable_seqscan = on; SET LOCAL enable_sort = on";

/// The index gives the rows of `docs`, or another table, that are there, each once, in the order of the distance.
fn assert_exact(client: &mut Client, table: &str, condition: &str, seed: i32) {
    assert_exact_by(client, ("<->", table), condition, seed);
}

fn assert_exact_by(client: &mut Client, (operator, table): (&str, &str), condition: &str, seed: i32) {
    let query = format!(
        "SELECT id, embedding {operator} made({seed}) FROM {table} WHERE embedding IS NOT NULL AND {condition} ORDER BY embedding {operator} made({seed})"
    );
    // One snapshot for both.
    let mut transaction =
        client.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().unwrap();
    transaction.batch_execute(BY_INDEX).unwrap();
    let plan: Vec<String> =
        transaction.query(&format!("EXPLAIN {query}"), &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Index Scan")), "{plan:?}");
    let mut answer = |settings: &str| -> Vec<(f64, i32)> {
        transaction.batch_execute(settings).unwrap();
        let rows = transaction.query(&query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        rows.iter().map(|row| (row.get(1), row.get(0))).collect()
    };
    let (mut found, mut expected) = (answer(BY_INDEX), answer(BY_TABLE));
    assert!(found.is_sorted_by(|a, b| a.0 <= b.0), "{query}: out of order");
    // Equally far ones come in any order.
    for rows in [&mut found, &mut expected] {
        rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    }
    let [found_ids, expected_ids] =
        [&found, &expected].map(|rows| rows.iter().map(|row| row.1).collect::<Vec<_>>());
    let missing: Vec<_> = expected_ids.iter().filter(|id| !found_ids.contains(id)).take(5).collect();
    let foreign: Vec<_> = found_ids.iter().filter(|id| !expected_ids.contains(id)).take(5).collect();
    assert!(
        found == expected,
        "{query}: {} rows, not {}; missing {missing:?}, foreign {foreign:?}",
        found.len(),
        expected.len()
    );
    transaction.commit().unwrap();
}
