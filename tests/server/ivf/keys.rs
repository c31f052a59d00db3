//! Keys change, are retired, and are not to be had.

use std::fs;

use super::{INDEX, assert_exact, insert, set_up};
use crate::support::{Cluster, Sql, beside, fresh_database, start, wait_until_active};

const USAGE: &str = "SELECT format('%s:%s', data_key, number_of_rows) FROM pgseal.index_key_usage('docs_embedding') ORDER BY data_key NULLS FIRST";

#[test]
fn an_index_is_searched_under_old_and_new_keys_side_by_side() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..2000);
    client.run(INDEX);
    assert_eq!(client.column::<String>(USAGE), ["1:2000"]);
    client.run("SELECT pgseal.rotate_key('k')");
    insert(&mut client, "docs", 2000..4000);
    assert_exact(&mut client, "docs", "true", -1);
    assert_eq!(client.column::<String>(USAGE).len(), 2);
    let message = client.error("SELECT pgseal.retire_key('k', 1)").message().to_owned();
    assert!(message.contains("column embedding of public.docs"), "{message}");
    client.run("CALL pgseal.reencrypt('docs', 'embedding')");
    assert_exact(&mut client, "docs", "true", -2);
    assert!(client.column::<String>(USAGE).iter().all(|line| line.starts_with("2:")));
    client.run("SELECT pgseal.retire_key('k', 1)");
    assert_exact(&mut client, "docs", "true", -3);
    client.run("VACUUM docs");
    assert_eq!(client.column::<String>(USAGE), ["2:4000"]);
    insert(&mut client, "docs", 4000..4100);
    assert_exact(&mut client, "docs", "true", -4);
}

#[test]
fn retiring_looks_into_every_page_of_every_index() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..100);
    client.run(INDEX);
    // Nobody sees these rows any more, but their codes are there.
    client.run("DELETE FROM docs; SELECT pgseal.rotate_key('k')");
    let usage = "SELECT concat_ws(' ', keyring, key_version, index_key_version, number_of_values) FROM pgseal.key_usage('docs', 'embedding')";
    assert_eq!(client.column::<String>(usage), ["k 1 0"]);
    for state in ["indisvalid = false", "indisready = false", "indisvalid = true, indisready = true"] {
        client.run(&format!("UPDATE pg_index SET {state} WHERE indexrelid = 'docs_embedding'::regclass"));
        let error = client.error("SELECT pgseal.retire_key('k', 1)");
        assert_eq!(error.code().code(), "55000", "{state}");
        assert!(error.message().contains("index public.docs_embedding"), "{state}: {}", error.message());
    }
    client.run("CALL pgseal.reencrypt_index('docs_embedding')");
    assert_eq!(client.column::<String>(usage), ["k 2 0"]);
    client.run("SELECT pgseal.retire_key('k', 1)");
    insert(&mut client, "docs", 100..200);
    assert_eq!(client.column::<String>(usage), ["k 2 0 100"]);
    assert_exact(&mut client, "docs", "true", -1);
}

#[test]
fn what_is_renewed_belongs_to_the_tables_owner() {
    let mut client = fresh_database();
    set_up(&mut client);
    client.run(INDEX);
    client.run("DO $$ BEGIN CREATE ROLE ivf_other; EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT SELECT ON docs TO ivf_other");
    client.run("SET ROLE ivf_other");
    assert_eq!(client.state("CALL pgseal.reencrypt_index('docs_embedding')"), "42501");
    client.run("RESET ROLE");
    assert_eq!(client.state("CALL pgseal.reencrypt_index('docs_pkey')"), "22023");
    assert_eq!(client.state("CALL pgseal.reencrypt_index('docs')"), "22023");
    assert_eq!(client.state("BEGIN; CALL pgseal.reencrypt_index('docs_embedding')"), "25001");
    client.run("ROLLBACK");
}

#[test]
fn rows_without_a_key_are_put_aside_found_and_sorted_in_later() {
    let cluster = Cluster::with_pgseal(&["pgseal.key_cache_ttl = 0"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    insert(&mut client, "docs", 0..500);
    client.run("CREATE TABLE stored AS SELECT * FROM docs");
    client.run("TRUNCATE docs");
    let away = cluster.key_dir().with_extension("away");
    fs::rename(cluster.key_dir(), &away).unwrap();
    // Sealed values need no key to be stored, and neither do vacuum and new indexes.
    client.run("INSERT INTO docs SELECT * FROM stored WHERE id < 300");
    client.run(INDEX);
    client.run("INSERT INTO docs SELECT * FROM stored WHERE id >= 300; DELETE FROM docs WHERE id % 5 = 0");
    client.run("VACUUM docs");
    assert_eq!(client.column::<String>(USAGE), [":400"]);
    client.run("SET enable_seqscan = off; SET enable_sort = off");
    assert_eq!(client.state("SELECT id FROM docs ORDER BY embedding <-> made(1) LIMIT 1"), "58030");
    client.run("RESET enable_seqscan; RESET enable_sort");
    fs::rename(&away, cluster.key_dir()).unwrap();
    assert_exact(&mut client, "docs", "true", -1);
    // Another session has not met the outage.
    let mut client = cluster.connect("postgres");
    client.run("CALL pgseal.reencrypt_index('docs_embedding')");
    assert_eq!(client.column::<String>(USAGE), ["1:400"]);
    assert_exact(&mut client, "docs", "true", -2);
    insert(&mut client, "docs", 1000..1100);
    client.run("VACUUM docs");
    assert_exact(&mut client, "docs", "true", -3);
}

#[test]
fn audit_names_pages_of_old_keys_and_rows_that_are_put_aside() {
    let cluster = Cluster::with_pgseal(&["pgseal.key_cache_ttl = 0"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    insert(&mut client, "docs", 0..100);
    let findings = "SELECT concat_ws(' ', finding, what_to_do) FROM pgseal.audit() WHERE object = 'index public.docs_embedding'";
    let away = cluster.key_dir().with_extension("away");
    fs::rename(cluster.key_dir(), &away).unwrap();
    client.run(INDEX);
    fs::rename(&away, cluster.key_dir()).unwrap();
    let found = client.column::<String>(findings);
    assert!(found.len() == 1 && found[0].contains("100 rows were put aside"), "{found:?}");
    let mut client = cluster.connect("postgres");
    client.run("CALL pgseal.reencrypt_index('docs_embedding')");
    assert_eq!(client.column::<String>(findings).len(), 0);
    client.run("SET enable_seqscan = off; SET enable_sort = off; SELECT id FROM docs ORDER BY embedding <-> made(1) LIMIT 5");
    let stat =
        "SELECT index_lists = 1 AND index_rows_scored = 100 AND index_rows_visited >= 5 FROM pgseal.stat";
    assert!(client.one::<bool>(stat));
}

#[test]
fn verify_without_a_key_names_the_index_it_could_not_read() {
    let cluster = Cluster::with_pgseal(&["pgseal.key_cache_ttl = 0"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    insert(&mut client, "docs", 0..20);
    client.run(INDEX);
    let away = cluster.key_dir().with_extension("away");
    fs::rename(cluster.key_dir(), &away).unwrap();
    let mut client = cluster.connect("postgres");
    let verdicts =
        "SELECT concat_ws(' ', result, relation) FROM pgseal.verify('docs', 'embedding', max_listed => 0)";
    assert_eq!(client.column::<String>(verdicts), ["unreadable", "unreadable docs_embedding"]);
}

#[test]
fn retiring_finds_an_index_on_a_domain_over_a_domain() {
    let mut client = fresh_database();
    set_up(&mut client);
    client.run(
        "CREATE DOMAIN inner_vector AS encrypted_vector(k, 8); CREATE DOMAIN outer_vector AS inner_vector",
    );
    client.run("CREATE TABLE domains (embedding outer_vector)");
    client.run("INSERT INTO domains SELECT made(i)::encrypted_vector(k, 8) FROM generate_series(1, 50) i");
    client.run("CREATE INDEX of_domains ON domains USING sealed_ivf (embedding encrypted_vector_l2_ops)");
    client.run("DELETE FROM domains; SELECT pgseal.rotate_key('k')");
    let message = client.error("SELECT pgseal.retire_key('k', 1)").message().to_owned();
    assert!(message.contains("index public.of_domains"), "{message}");
}

#[test]
fn a_predicate_runs_as_the_owner_where_pages_are_renewed() {
    let cluster = Cluster::with_pgseal(&["pgseal.key_cache_ttl = 0"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    insert(&mut client, "docs", 0..50);
    client.run(
        "CREATE ROLE ivf_owner; GRANT ALL ON SCHEMA public TO ivf_owner; ALTER TABLE docs OWNER TO ivf_owner",
    );
    client.run(
        "CREATE FUNCTION is_wanted(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN RETURN current_user = 'ivf_owner' AND $1 >= 0; END $$",
    );
    let away = cluster.key_dir().with_extension("away");
    fs::rename(cluster.key_dir(), &away).unwrap();
    client.run(&format!("{INDEX} WHERE is_wanted(id)"));
    assert_eq!(client.column::<String>(USAGE), [":50"]);
    fs::rename(&away, cluster.key_dir()).unwrap();
    let mut client = cluster.connect("postgres");
    client.run("CALL pgseal.reencrypt_index('docs_embedding')");
    assert_eq!(client.column::<String>(USAGE), ["1:50"]);
    assert_eq!(client.column::<String>("SELECT current_user::text"), ["postgres"]);
}

#[test]
fn renewing_stands_in_no_queue_behind_a_vacuum() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..100);
    client.run(INDEX);
    client.run("SELECT pgseal.rotate_key('k')");
    let mut vacuum = beside(&mut client);
    vacuum.run("BEGIN; LOCK TABLE docs IN SHARE UPDATE EXCLUSIVE MODE");
    let renew = "CALL pgseal.reencrypt_index('docs_embedding')";
    client.run("SET lock_timeout = '100ms'");
    let error = client.error(renew);
    assert_eq!(error.code().code(), "55P03");
    assert!(error.message().contains("\"docs_embedding\""), "{}", error.message());
    let mut waiting = beside(&mut client);
    let pid = waiting.one("SELECT pg_backend_pid()");
    let waiting = start(waiting, "CALL pgseal.reencrypt_index('docs_embedding')");
    wait_until_active(&mut client, pid);
    let queued = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'docs'::regclass";
    assert_eq!(client.one::<i64>(queued), 0);
    vacuum.run("COMMIT");
    assert!(waiting.join().unwrap().is_none());
    assert_eq!(client.column::<String>(USAGE), ["2:100"]);
}
