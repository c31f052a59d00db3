//! The server falls, is copied, and is followed by others.

use std::thread;
use std::time::Duration;

use super::{INDEX, assert_exact, insert, set_up};
use crate::support::{Cluster, Sql};

/// Rows come, change and go, and vacuum works, until the server is no more.
fn change_until_it_falls(cluster: &Cluster, own: i32) {
    let mut client = cluster.connect("postgres");
    for round in 0.. {
        let start = 100_000 * (own + 1) + 200 * round;
        let statements = [
            format!(
                "INSERT INTO docs SELECT i, made(i), made(i), i % 10 FROM generate_series({start}, {}) i",
                start + 199
            ),
            format!(
                "UPDATE docs SET embedding = made(-id), plain = made(-id) WHERE id % 13 = {}",
                round % 13
            ),
            format!("DELETE FROM docs WHERE id % 17 = {} AND id % 2 = {own}", round % 17),
            "VACUUM docs".to_owned(),
        ];
        if statements.iter().any(|statement| {
            client
                .batch_execute(statement)
                .is_err_and(|error| error.code().is_none_or(|code| code.code() != "40P01"))
        }) {
            return;
        }
    }
}

/// How often the server is killed: `PGSEAL_KILLS`, or five times.
fn kills() -> u64 {
    std::env::var("PGSEAL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// Keys change and pages are sealed anew, until the server is no more.
fn rotate_until_it_falls(cluster: &Cluster) {
    let mut client = cluster.connect("postgres");
    let statements = ["SELECT pgseal.rotate_key('k')", "CALL pgseal.reencrypt_index('docs_embedding')"];
    while statements.iter().all(|statement| client.batch_execute(statement).is_ok()) {}
}

#[test]
fn an_index_is_whole_after_a_kill() {
    let cluster = Cluster::with_pgseal(&["fsync = off", "max_wal_size = 1GB"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    insert(&mut client, "docs", 0..2000);
    client.run(INDEX);
    drop(client);
    for kill in 0..kills() {
        thread::scope(|scope| {
            for own in 0..2 {
                let cluster = &cluster;
                scope.spawn(move || change_until_it_falls(cluster, own));
            }
            let server = &cluster;
            scope.spawn(move || rotate_until_it_falls(server));
            thread::sleep(Duration::from_millis(700 + 250 * (kill % 5)));
            cluster.kill();
        });
        cluster.start_again();
        let mut client = cluster.connect("postgres");
        assert_exact(&mut client, "docs", "true", -(kill as i32));
        client.run("VACUUM docs");
        assert_exact(&mut client, "docs", "true", -(kill as i32));
        client.run("DELETE FROM docs WHERE id >= 100000");
    }
}

#[test]
fn an_unlogged_index_is_empty_after_a_fall_and_goes_on() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    client.run("ALTER TABLE docs SET UNLOGGED");
    client.run(INDEX);
    insert(&mut client, "docs", 0..3000);
    assert_exact(&mut client, "docs", "true", -1);
    drop(client);
    cluster.kill();
    cluster.start_again();
    let mut client = cluster.connect("postgres");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs"), 0);
    assert_exact(&mut client, "docs", "true", -1);
    insert(&mut client, "docs", 0..2000);
    assert_exact(&mut client, "docs", "true", -2);
    drop(client);
    cluster.restart();
    let mut client = cluster.connect("postgres");
    assert_exact(&mut client, "docs", "true", -3);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs"), 2000);
}

#[test]
fn a_standby_answers_exactly_while_it_follows_and_once_it_leads() {
    let primary = Cluster::with_pgseal(&["max_standby_streaming_delay = -1"]);
    let mut client = primary.connect("postgres");
    set_up(&mut client);
    insert(&mut client, "docs", 0..2000);
    client.run(INDEX);
    client.run("CREATE UNLOGGED TABLE gone (LIKE docs); CREATE INDEX gone_embedding ON gone USING sealed_ivf (embedding encrypted_vector_l2_ops)");
    insert(&mut client, "gone", 0..100);
    // As vacuum wants it: a scan that takes long holds the replay up.
    let standby = primary.standby("hot_standby_feedback = on\n");
    standby.catch_up(&mut client);
    thread::scope(|scope| {
        let primary = &primary;
        let writer = scope.spawn(move || {
            let mut client = primary.connect("postgres");
            for round in 1..12 {
                insert(&mut client, "docs", 2000 * round..2000 * round + 500);
                client.run(&format!("DELETE FROM docs WHERE id % 12 = {round}"));
                client.run(&format!("UPDATE docs SET note = 'x' WHERE id % 5 = {}", round % 5));
                client.run("VACUUM docs");
                // Pages change their keys below the standby's scans.
                client.run("SELECT pgseal.rotate_key('k')");
                client.run("CALL pgseal.reencrypt_index('docs_embedding')");
            }
        });
        let mut replica = standby.connect("postgres");
        let mut seed = 0;
        while !writer.is_finished() || seed > -3 {
            seed -= 1;
            assert_exact(&mut replica, "docs", "true", seed);
        }
        writer.join().unwrap();
    });
    standby.catch_up(&mut client);
    let mut replica = standby.connect("postgres");
    assert_exact(&mut replica, "docs", "true", 1);
    drop(client);
    primary.kill();
    standby.promote();
    assert_exact(&mut replica, "docs", "true", 2);
    insert(&mut replica, "docs", 100_000..102_000);
    replica.run("VACUUM docs");
    assert_exact(&mut replica, "docs", "true", 3);
    let mut replica = standby.connect("postgres");
    assert_eq!(replica.one::<i64>("SELECT count(*) FROM gone"), 0);
    insert(&mut replica, "gone", 0..100);
    assert_exact(&mut replica, "gone", "true", 4);
}

/// What an auditor reads of the index: its name, whether all of it authenticates, findings, rows.
const EVIDENCE: &str =
    "SELECT concat_ws(' ', i ->> 'index', i ->> 'all_authentic', jsonb_array_length(i -> 'findings'),
      (SELECT sum((k ->> 'number_of_rows')::int8) FROM jsonb_array_elements(i -> 'pages_by_key') k))
    FROM jsonb_array_elements(pgseal.evidence('docs') -> 'sealed_indexes') i";

const VERDICTS: &str = "SELECT concat_ws(' ', result, number_of_values, finding, relation) FROM pgseal.verify('docs', 'embedding')";

#[test]
fn a_page_that_was_altered_is_an_error_and_found_by_verify() {
    let cluster = Cluster::with_pgseal(&["ignore_checksum_failure = on"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    insert(&mut client, "docs", 0..600);
    client.run(INDEX);
    let (file, pages): (String, i64) = (
        client.one("SELECT pg_relation_filepath('docs_embedding')"),
        client.one("SELECT pg_relation_size('docs_embedding') / 8192"),
    );
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.verify_index('docs_embedding')"), 0);
    assert_eq!(client.one::<String>(EVIDENCE), "public.docs_embedding true 0 600");
    assert_eq!(client.column::<String>(VERDICTS), ["authentic 600"]);
    client.run("CHECKPOINT");
    drop(client);
    cluster.stop();
    let path = cluster.data_dir().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    // Sealed bytes near the end of the data of a list page.
    let block = (1..pages as usize).find(|block| bytes[block * 8192 + 8160 + 16] == 2).unwrap();
    let end = usize::from(u16::from_le_bytes([bytes[block * 8192 + 12], bytes[block * 8192 + 13]]));
    bytes[block * 8192 + end - 1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    cluster.start_again();
    let mut client = cluster.connect("postgres");
    let found = client.column::<i64>("SELECT block FROM pgseal.verify_index('docs_embedding')");
    assert_eq!(found, [block as i64]);
    assert_eq!(client.one::<String>(EVIDENCE), "public.docs_embedding false 1 600");
    let verdicts = client.column::<String>(VERDICTS);
    assert_eq!(verdicts[0], "authentic 600");
    assert!(verdicts[1].starts_with(&format!("corrupt block {block}: ")), "{verdicts:?}");
    assert!(verdicts[1].ends_with("docs_embedding"), "{verdicts:?}");
    assert_eq!(verdicts.len(), 2);
    let statement: String = client.one("SELECT pgseal.evidence('docs') -> 'verify' -> 0 ->> 'statement'");
    assert!(
        statement.contains("600 of 600 values authenticate") && statement.contains("sealed indexes"),
        "{statement}"
    );
    client.run("SET enable_seqscan = off; SET enable_sort = off");
    let error = client.error("SELECT id FROM docs ORDER BY embedding <-> made(1) LIMIT 1");
    assert_eq!(error.code().code(), "22000");
    assert!(
        error.message().contains("docs_embedding") && error.message().contains(&block.to_string()),
        "{error}"
    );
    client.run("REINDEX INDEX docs_embedding");
    assert_exact(&mut client, "docs", "true", -1);
}

#[test]
fn a_dead_mark_taken_away_brings_no_row_into_a_partial_index() {
    let cluster = Cluster::with_pgseal(&["ignore_checksum_failure = on"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    insert(&mut client, "docs", 0..30);
    client.run(&format!("{INDEX} WHERE kind < 3"));
    let place = "SELECT ctid::text FROM docs WHERE plain = made(1)";
    let before = client.one::<String>(place);
    client.run("DELETE FROM docs WHERE id = 1");
    client.run("VACUUM (INDEX_CLEANUP ON) docs");
    // A row that the index is not for takes the dead one's place; the planner drops the condition that would refuse it.
    client.run("INSERT INTO docs VALUES (1000, made(1), made(1), 9)");
    assert_eq!(client.one::<String>(place), before);
    let file: String = client.one("SELECT pg_relation_filepath('docs_embedding')");
    client.run("CHECKPOINT");
    drop(client);
    cluster.stop();
    let path = cluster.data_dir().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    let list = bytes.chunks_mut(8192).find(|page| page[8160 + 16] == 2).unwrap();
    let marks = &mut list[36..38];
    assert_ne!(marks, [0, 0]);
    marks.fill(0);
    std::fs::write(&path, bytes).unwrap();
    cluster.start_again();
    let mut client = cluster.connect("postgres");
    assert_exact(&mut client, "docs", "kind < 3", 1);
}
