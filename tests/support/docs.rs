//! What most databases of these tests begin with: the keyring k, and documents under it.

use postgres::Client;

use super::{Sql, fresh_database};

/// A session in a new database with the keyring k; `paths` is an array's text, such as `{$.a, $.b}`.
pub fn with_keyring(paths: &str) -> Client {
    let mut client = fresh_database();
    client.run(&format!("SELECT pgseal.create_keyring('k', '{paths}')"));
    client
}

/// The keyring k, with keys at the KMS that are this database's own: a test may rotate them and take them away.
pub fn own_keyring(client: &mut Client, paths: &str) {
    client.run(&format!(
        "SELECT pgseal.create_keyring('k', '{paths}', kms_endpoint => \
                current_setting('pgseal.kms_endpoint') || '/' || current_database())"
    ));
}

/// Table docs with `rows` documents of `length` bytes and a hundred, under version 1 of the keyring k, which has a
/// version 2 now.
pub fn rotated_docs(client: &mut Client, rows: usize, length: usize) {
    own_keyring(client, "{$.a}");
    client
        .run("CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k)) WITH (autovacuum_enabled = off)");
    let document = document("n", length);
    client.run(&format!("INSERT INTO docs SELECT n, {document} FROM generate_series(1, {rows}) n"));
    client.run("CREATE INDEX ON docs USING gin (m); ANALYZE docs; SELECT pgseal.rotate_key('k')");
}

/// The document of row `number`, as an expression.
pub fn document(number: &str, length: usize) -> String {
    format!("jsonb_build_object('a', 1, 'n', {number}, 'long', repeat('x', {length}))")
}
