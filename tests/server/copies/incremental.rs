//! Incremental backups (PostgreSQL 17 and later) across a rotation in place.

use crate::support::{Cluster, Sql, major_version};

const ROWS: i64 = 2000;

#[test]
fn a_combined_backup_holds_what_was_rotated_in_between() {
    if major_version() < 17 {
        println!("not run: incremental backups begin with PostgreSQL 17");
        return;
    }
    let cluster = Cluster::with_pgseal(&["summarize_wal = on"]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.n'])");
    client.run(
        "CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), other text); CREATE INDEX ON docs USING gin (m)",
    );
    client.run(&format!(
        "INSERT INTO docs SELECT n, jsonb_build_object('n', n, 'long', repeat('x', 300)) FROM generate_series(1, {ROWS}) n"
    ));
    // Pages that stay as they are, hint bits included: a file with hardly any of these would be backed up as a whole again.
    client.run(&format!(
        "INSERT INTO docs SELECT {ROWS} + n, NULL, repeat('x', 400) FROM generate_series(1, {ROWS}) n"
    ));
    client.run("VACUUM docs");
    let full = cluster.base_backup(&[]);

    let places = "SELECT md5(string_agg(format('%s %s', ctid, xmin), ',' ORDER BY id)) FROM docs";
    let before: String = client.one(places);
    client.run("SELECT pgseal.rotate_key('k')");
    client.run("CALL pgseal.reencrypt('docs', 'm', rotation => 'in_place')");
    assert_eq!(client.one::<String>(places), before, "no row has a new version");
    let manifest = full.data_dir().join("backup_manifest").display().to_string();
    let increment = cluster.base_backup(&["--incremental", &manifest]);
    let file = client
        .one::<String>("SELECT regexp_replace(pg_relation_filepath('docs'), '([0-9]+)$', 'INCREMENTAL.\\1')");
    assert!(increment.data_dir().join(&file).exists(), "{file}: only the pages that were rewritten");

    let combined = Cluster::combined(&[&full, &increment]);
    combined.start_again();
    let mut restored = combined.connect("postgres");
    assert_eq!(restored.one::<String>(places), before);
    let right = "SELECT count(*) FROM docs WHERE (pgseal.decrypt(m) ->> 'n')::int = id";
    assert_eq!(restored.one::<i64>(right), ROWS);
    let verified =
        "SELECT concat_ws(' ', result, number_of_values, key_version) FROM pgseal.verify('docs', 'm')";
    assert_eq!(restored.column::<String>(verified), [format!("authentic {ROWS} 2")]);
    restored.run("SET enable_seqscan = off");
    assert_eq!(restored.one::<i64>(r#"SELECT count(*) FROM docs WHERE m @> '{"n": 77}'"#), 1);
    // The full backup alone is what was before.
    full.start_again();
    assert_eq!(full.connect("postgres").column::<String>(verified), [format!("authentic {ROWS} 1")]);
}
