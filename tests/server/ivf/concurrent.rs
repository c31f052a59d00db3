//! Several sessions at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::Client;

use super::{INDEX, assert_exact, insert, set_up};
use crate::support::{Cluster, Sql};

/// Changes rows whose id is `own` modulo 4, until told to stop.
fn change(client: &mut Client, own: i32, stop: &AtomicBool) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let statement = match round % 5 {
            0 => format!("DELETE FROM docs WHERE id % 4 = {own} AND id % 7 = {}", round % 7),
            1 => format!(
                "UPDATE docs SET embedding = made(id + {round}), plain = made(id + {round}) WHERE id % 4 = {own} AND id % 11 = {}",
                round % 11
            ),
            2 => format!("UPDATE docs SET note = 'x' WHERE id % 4 = {own} AND id % 5 = {}", round % 5),
            3 => format!(
                "BEGIN; INSERT INTO docs SELECT i, made(i), made(i), 0 FROM generate_series({own}, 4000, 4) i WHERE i % 9 = {} ON CONFLICT DO NOTHING; ROLLBACK",
                round % 9
            ),
            _ => format!(
                "INSERT INTO docs SELECT i, made(i), made(i), i % 10 FROM generate_series({own}, 4000, 4) i WHERE i % 3 = {} ON CONFLICT DO NOTHING",
                round % 3
            ),
        };
        client.run(&statement);
    }
}

#[test]
fn indexes_made_beside_writers_hold_each_row_once() {
    let cluster = Cluster::with_pgseal(&["autovacuum_naptime = 1"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    insert(&mut client, "docs", 0..3000);
    client.run(INDEX);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for own in 0..3 {
            let mut writer = cluster.connect("postgres");
            let stop = &stop;
            scope.spawn(move || change(&mut writer, own, stop));
        }
        let mut reader = cluster.connect("postgres");
        let read = &stop;
        scope.spawn(move || {
            let mut seed = 0;
            while !read.load(Ordering::Relaxed) {
                seed -= 1;
                assert_exact(&mut reader, "docs", "true", seed);
            }
        });
        let mut work = || {
            for _ in 0..4 {
                client.run("VACUUM docs");
                client.run("CREATE INDEX CONCURRENTLY second ON docs USING sealed_ivf (embedding encrypted_vector_l2_ops)");
                client.run("REINDEX INDEX CONCURRENTLY docs_embedding");
                client.run("SELECT pgseal.rotate_key('k')");
                client.run("CALL pgseal.reencrypt_index('second')");
                client.run("VACUUM docs");
                client.run("DROP INDEX docs_embedding");
                assert_exact(&mut client, "docs", "true", 0);
                client.run("ALTER INDEX second RENAME TO docs_embedding");
            }
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut work));
        stop.store(true, Ordering::Relaxed);
        done.unwrap();
    });
    let mut client = cluster.connect("postgres");
    assert_exact(&mut client, "docs", "true", 1);
    client.run("VACUUM docs");
    assert_exact(&mut client, "docs", "true", 2);
}

#[test]
fn an_index_waits_for_snapshots_older_than_it() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    insert(&mut client, "docs", 0..100);
    let mut old = cluster.connect("postgres");
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM docs");
    // Rows that only the older snapshot sees are in the new index, without a look at them.
    client.run("DELETE FROM docs WHERE id < 50");
    client.run("UPDATE docs SET note = 'later' WHERE id >= 50");
    client.run(INDEX);
    old.run("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off");
    let found = old.column::<i32>("SELECT id FROM docs ORDER BY embedding <-> made(1)");
    assert_eq!(found, old.column::<i32>("SELECT id FROM docs ORDER BY plain <-> made(1)"));
    assert_eq!(found.len(), 100);
    old.run("COMMIT");
    assert_exact(&mut client, "docs", "true", 1);
}
