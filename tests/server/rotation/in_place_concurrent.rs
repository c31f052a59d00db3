//! Rotation in place while everything else goes on: maintenance, other workers, backups, standbys that fail and lag.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;

use crate::server::rotation::in_place::{
    CALL, OLD, Stopping, WRONG, check_files, database, reading_time, scan, set_up, start,
};
use crate::support::{Cluster, Sql, beside, document, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// Every value is what it should be and authentic, under the active key, and no other key is needed by anything.
fn nothing_is_left(client: &mut Client, rows: i64) {
    assert_eq!(client.one::<i64>(OLD), 0, "old values");
    assert_eq!(client.one::<i64>(WRONG), 0, "wrong values");
    assert_eq!(client.one::<i64>("SELECT count(DISTINCT id) FROM docs"), rows);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs"), rows);
    let verdicts = "SELECT format('%s %s', result, number_of_values) FROM pgseal.verify('docs', 'm')";
    assert_eq!(client.column::<String>(verdicts), [format!("authentic {rows}")]);
    let old: Vec<i32> =
        client.column("SELECT version FROM pgseal.keys WHERE purpose = 'data' AND state = 'decrypt-only'");
    for version in old {
        client.run(&format!("SELECT pgseal.retire_key('k', {version})"));
    }
    assert_eq!(client.one::<i64>(WRONG), 0, "values of a retired key");
}

fn rotate(client: &mut Client) {
    client.run("SELECT pgseal.rotate_key('k')");
    client.run(CALL);
}

/// Rotates again and again while `sql` runs again and again; each is done more than once.
fn rotate_during(client: &mut Client, sql: &str) {
    let mut other = beside(client);
    let stop = AtomicBool::new(false);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _stopping = Stopping(&stop);
            while !stop.load(Ordering::Relaxed) {
                sql.split(';').for_each(|statement| other.run(statement));
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stopping = Stopping(&stop);
        let (end, enough) = (Instant::now() + reading_time() / 5, || done.load(Ordering::Relaxed) >= 3);
        while !stop.load(Ordering::Relaxed) && (Instant::now() < end || !enough()) {
            rotate(client);
            assert_eq!(client.one::<i64>(OLD), 0, "beside {sql}");
        }
    });
    nothing_is_left(client, 1500);
}

#[test]
fn rows_that_maintenance_moves_are_renewed() {
    let mut client = database(1500);
    client.run("CREATE INDEX up ON docs (id); CREATE INDEX down ON docs ((-id))");
    rotate_during(&mut client, "VACUUM (FREEZE) docs");
    rotate_during(&mut client, "VACUUM FULL docs");
    rotate_during(&mut client, "CLUSTER docs USING down; CLUSTER docs USING up");
}

#[test]
fn an_index_that_is_being_made_finds_what_it_needs() {
    let mut client = database(1500);
    let making = "CREATE INDEX CONCURRENTLY new ON docs USING gin (m); DROP INDEX CONCURRENTLY new;
        REINDEX INDEX CONCURRENTLY docs_m_idx";
    rotate_during(&mut client, making);
    client.run("SET enable_seqscan = off");
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM docs WHERE m @> '{"a": 1}'"#), 1500);
}

#[test]
fn an_index_of_the_bytes_that_is_made_meanwhile_ends_the_run() {
    let mut client = database(300);
    let mut other = beside(&mut client);
    other.run("BEGIN; LOCK docs IN ROW EXCLUSIVE MODE");
    let mut maker = beside(&mut client);
    std::thread::scope(|scope| {
        // Its entry in the catalog is there, and it waits for writers before it reads the table.
        let making =
            scope.spawn(move || maker.run("CREATE INDEX CONCURRENTLY bytes ON docs (id) INCLUDE (m)"));
        let listed = "SELECT count(*) = 1 FROM pg_class WHERE relname = 'bytes'";
        wait_for("the index", LIMIT, || client.one(listed));
        let error = client.error("SELECT pgseal.rewrite_pages_of('docs', 'm', 0, 1000, true)");
        assert!(error.message().contains("index public.bytes"), "{error}");
        other.run("COMMIT");
        making.join().unwrap();
    });
    assert_eq!(client.one::<i64>(OLD), 300);
}

#[test]
fn a_table_that_is_emptied_and_filled_meanwhile_is_renewed() {
    let mut client = database(1500);
    client.run("CREATE TABLE kept AS SELECT * FROM docs");
    let mut other = beside(&mut client);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _stopping = Stopping(&stop);
            for _ in 0..3 {
                other.run("TRUNCATE docs");
                other.run("INSERT INTO docs SELECT * FROM kept");
            }
        });
        while !stop.load(Ordering::Relaxed) {
            client.run(CALL);
        }
    });
    client.run(CALL);
    client.run("DROP TABLE kept");
    nothing_is_left(&mut client, 1500);
}

#[test]
fn a_prepared_transaction_may_be_committed_after_the_run() {
    let cluster = Cluster::with_pgseal(&["max_prepared_transactions = 2"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client, 300);
    client.run("BEGIN; UPDATE docs SET id = id WHERE id % 3 = 0; PREPARE TRANSACTION 'p'");
    client.run(CALL);
    let error = client.error("SELECT pgseal.retire_key('k', 1)");
    assert!(error.message().contains("prepared transaction \"p\""), "{error}");
    client.run("COMMIT PREPARED 'p'");
    nothing_is_left(&mut client, 300);
}

#[test]
fn several_workers_share_the_pages() {
    let mut client = database(3000);
    client.run("ALTER TABLE docs SET (fillfactor = 10)");
    client.run("VACUUM FULL docs");
    let workers = [(); 3].map(|()| {
        start(&mut client, "CALL pgseal.reencrypt('docs', 'm', batch_size => 20, rotation => 'in_place')")
    });
    let counts = workers.map(|worker| {
        let said = worker.join().unwrap();
        let number = said.split(" rows of docs.m re-encrypted").next();
        number
            .and_then(|text| text.rsplit(' ').next()?.parse::<i64>().ok())
            .unwrap_or_else(|| panic!("{said}"))
    });
    assert_eq!(counts.iter().sum::<i64>(), 3000, "{counts:?}");
    nothing_is_left(&mut client, 3000);
}

#[test]
fn a_session_that_holds_a_page_is_named_its_rows_are_updated() {
    let mut client = database(300);
    let [mut before, mut reader] = [beside(&mut client), beside(&mut client)];
    before.run("BEGIN; SELECT count(*) FROM docs");
    let run = start(&mut client, CALL);
    // It waits for the one, hence knows nothing of the other, which begins now.
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event = 'PgSleep' AND query LIKE 'CALL pgseal.reencrypt%')";
    wait_for("a run that waits", LIMIT, || client.one(waits));
    let pid: i32 = reader.one("SELECT pg_backend_pid()");
    reader.run("BEGIN; DECLARE c CURSOR FOR SELECT pgseal.decrypt(m) FROM docs; FETCH 1 FROM c");
    before.run("COMMIT");
    let done = "SELECT coalesce(sum(rows_done), 0) = 300 FROM pgseal.rotation_progress";
    wait_for("all rows", LIMIT, || client.one(done));
    reader.run("FETCH ALL FROM c; COMMIT");
    let said = run.join().unwrap();
    assert!(said.contains("docs: page 0 is in use all the time, its rows go by UPDATE"), "{said}");
    assert!(said.contains(&format!("Sessions with a lock on the table: {{{pid}}}")), "{said}");
    nothing_is_left(&mut client, 300);
}

#[test]
fn a_run_is_not_finished_while_rows_stay_as_they_were() {
    let mut client = database(20);
    client.run(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER keep BEFORE UPDATE ON docs FOR EACH ROW WHEN (new.id = 7) EXECUTE FUNCTION keep()",
    );
    let error = client.error("CALL pgseal.reencrypt('docs', 'm')");
    assert!(error.message().contains("do not stay re-encrypted"), "{error}");
    assert_eq!(client.one::<i64>(OLD), 1);
    assert_eq!(client.one::<String>("SELECT state FROM pgseal.rotation_progress"), "stuck");
    // No trigger keeps bytes from being replaced.
    client.run(CALL);
    nothing_is_left(&mut client, 20);
}

#[test]
fn a_foreign_table_is_refused() {
    let mut client = database(10);
    client.run(
        "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
         CREATE FOREIGN TABLE far (m encrypted_jsonb(k)) SERVER nowhere",
    );
    assert_eq!(client.state("CALL pgseal.reencrypt('far', 'm', rotation => 'in_place')"), "42809");
    assert_eq!(client.state("SELECT pgseal.rewrite_pages('far', 1::int2, 0, 1, true)"), "0A000");
}

#[test]
fn free_space_of_pages_without_old_rows_is_emptied_too() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client, 300);
    let old: Vec<Vec<u8>> = client.column("SELECT substr(pgseal.encrypted_jsonb_send(m), 49, 24) FROM docs");
    // The last row keeps the file from being cut short.
    client.run("DELETE FROM docs WHERE id < 300");
    client.run("VACUUM docs");
    let file: String = client.one("SELECT pg_relation_filepath('docs')");
    let file = cluster.data_dir().join(file);
    let held = |client: &mut Client| {
        client.run("CHECKPOINT");
        let bytes = std::fs::read(&file).unwrap();
        old.iter().filter(|nonce| memchr::memmem::find(&bytes, nonce).is_some()).count()
    };
    assert!(held(&mut client) > 200);
    client.run(CALL);
    assert_eq!(held(&mut client), 0);
    check_files(&cluster);
}

#[test]
fn a_table_made_in_the_same_transaction_survives_a_crash() {
    let cluster = Cluster::with_pgseal(&[
        "wal_level = minimal",
        "max_wal_senders = 0",
        "wal_skip_threshold = 0",
        "fsync = on",
    ]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client, 300);
    // PostgreSQL writes no WAL for the table here, and must not be given a page to replay over it.
    client.run(
        "CREATE TABLE kept AS SELECT * FROM docs;
         BEGIN; TRUNCATE docs; INSERT INTO docs SELECT * FROM kept;
         SELECT pgseal.rewrite_pages('docs', 2::int2, 0, 1000, true);
         INSERT INTO docs SELECT id + 300, m || jsonb_build_object('n', id + 300) FROM kept; COMMIT",
    );
    cluster.kill();
    cluster.start_again();
    let mut client = cluster.connect("postgres");
    client.run("DROP TABLE kept");
    client.run(CALL);
    nothing_is_left(&mut client, 600);
    check_files(&cluster);
}

#[test]
fn a_base_backup_taken_during_a_pass_has_no_torn_row() {
    let primary = Cluster::with_pgseal(&["max_wal_size = 1GB"]);
    let mut client = primary.connect("postgres");
    set_up(&mut client, 1000);
    let stop = AtomicBool::new(false);
    let mut rotations = 0;
    let backup = std::thread::scope(|scope| {
        let taking = scope.spawn(|| {
            let _stopping = Stopping(&stop);
            primary.base_backup(&["--max-rate=8M"])
        });
        while !stop.load(Ordering::Relaxed) {
            rotate(&mut client);
            client.run("CHECKPOINT");
            rotations += 1;
        }
        taking.join().unwrap()
    });
    assert!(rotations > 1, "{rotations} rotations during the backup");
    backup.start_again();
    let mut restored = backup.connect("postgres");
    assert_eq!(restored.one::<i64>(WRONG), 0);
    restored.run(CALL);
    nothing_is_left(&mut restored, 1000);
    check_files(&backup);
}

/// All bytes of all values.
const BYTES: &str = "SELECT string_agg(md5(pgseal.encrypted_jsonb_send(m)), '' ORDER BY id) FROM docs";

#[test]
fn a_standby_that_is_killed_during_replay_recovers() {
    let primary = Cluster::with_pgseal(&["wal_keep_size = 1GB", "max_wal_size = 1GB"]);
    let mut client = primary.connect("postgres");
    set_up(&mut client, 3000);
    let standby = primary.standby("fsync = on\nshared_buffers = 1MB\nmax_standby_streaming_delay = -1\n");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _stopping = Stopping(&stop);
            for _ in 0..4 {
                // Half a value would not authenticate.
                let scans = AtomicUsize::new(0);
                let enough = AtomicBool::new(false);
                std::thread::scope(|inner| {
                    inner.spawn(|| scan(standby.config("postgres", "postgres"), WRONG, &enough, &scans));
                    wait_for("scans", LIMIT, || {
                        scans.load(Ordering::Relaxed) > 3 || enough.load(Ordering::Relaxed)
                    });
                    enough.store(true, Ordering::Relaxed);
                });
                standby.kill();
                standby.start_again();
            }
        });
        while !stop.load(Ordering::Relaxed) {
            rotate(&mut client);
        }
    });
    standby.catch_up(&mut client);
    let mut replica = standby.connect("postgres");
    assert!(replica.one::<String>(BYTES) == client.one::<String>(BYTES), "the standby has other bytes");
    assert_eq!(replica.one::<i64>(WRONG), 0);
    nothing_is_left(&mut client, 3000);
}

#[test]
fn a_failover_during_a_pass_and_pg_rewind_leave_nothing() {
    let old = Cluster::with_pgseal(&["wal_keep_size = 1GB", "max_wal_size = 1GB"]);
    let mut client = old.connect("postgres");
    set_up(&mut client, 1500);
    let new = old.standby("");
    let mut session = old.connect("postgres");
    let run = std::thread::spawn(move || {
        let call = "CALL pgseal.reencrypt('docs', 'm', 10, 2000, rotation => 'in_place')";
        let _ = session.batch_execute(call);
    });
    let replayed = "SELECT count(*) > 100 FROM docs WHERE pgseal.is_current(m)";
    let mut replica = new.connect("postgres");
    wait_for("the pass on the standby", LIMIT, || replica.one(replayed));
    new.promote();
    // The old primary goes on, away from the new one, with the run and with other writes.
    client.run("UPDATE docs SET m = m || '{\"lost\": true}' WHERE id % 7 = 0");
    run.join().unwrap();
    rotate(&mut client);
    old.stop();
    let mut client = new.connect("postgres");
    assert!(client.one::<i64>(OLD) > 0, "the pass was in its midst");
    assert_eq!(client.one::<String>("SELECT state FROM pgseal.rotation_progress"), "interrupted");
    old.rewind_to(&new);
    client.run(CALL);
    old.catch_up(&mut client);
    let mut replica = old.connect("postgres");
    assert!(replica.one::<String>(BYTES) == client.one::<String>(BYTES), "the standby has other bytes");
    assert_eq!(replica.one::<i64>(WRONG), 0);
    nothing_is_left(&mut client, 1500);
    check_files(&new);
}

#[test]
fn a_run_waits_for_a_standby_that_lags_and_then_goes_on() {
    let primary = Cluster::with_pgseal(&["wal_keep_size = 1GB", "max_wal_size = 1GB"]);
    let mut client = primary.connect("postgres");
    // A row a page: 80 MB of WAL.
    set_up(&mut client, 0);
    client.run("ALTER TABLE docs ADD filler text; ALTER TABLE docs ALTER filler SET STORAGE PLAIN");
    client.run(&format!(
        "INSERT INTO docs SELECT n, {}, repeat('x', 7000) FROM generate_series(1, 10500) n",
        document("n", 1)
    ));
    let standby = primary.standby("");
    standby.catch_up(&mut client);
    let mut replica = standby.connect("postgres");
    replica.run("SELECT pg_wal_replay_pause()");
    client.run("SELECT pgseal.rotate_key('k')");
    let mut session = primary.connect("postgres");
    let run = std::thread::spawn(move || {
        session.run("CALL pgseal.reencrypt('docs', 'm', 500, rotation => 'in_place', pace => 'full')");
    });
    let waits = "SELECT pgseal.rotation_lag() > 64 << 20
        AND EXISTS (SELECT FROM pgseal.rotation_progress WHERE waits_for = 'replica lag')";
    wait_for("a run that waits", LIMIT, || client.one(waits));
    let done = "SELECT pages_done FROM pgseal.rotation_progress WHERE state = 'running' AND pass = 1";
    let pages: i64 = client.one(done);
    assert!(pages < 10_500, "it was done before it waited");
    assert_eq!(client.one::<i64>(done), pages);
    assert!(!run.is_finished());
    replica.run("SELECT pg_wal_replay_resume()");
    run.join().unwrap();
    standby.catch_up(&mut client);
    let mut replica = standby.connect("postgres");
    assert!(replica.one::<String>(BYTES) == client.one::<String>(BYTES), "the standby has other bytes");
    nothing_is_left(&mut client, 10_500);
}
