//! Rotation in place changes bytes of rows for every snapshot at once: whoever reads them has to see their key, and row
//! versions that nobody sees are left alone.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use postgres::Client;

use crate::server::rotation::in_place::{CALL, OLD, Stopping, WRONG, database, set_up, start};
use crate::support::{Cluster, Sql, beside, document, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const ROTATE: &str = "SELECT pgseal.rotate_key('k')";
const REWRITE: &str = "SELECT pgseal.rewrite_pages('docs', 2::int2, 0, 1000, true)";
/// Rows whose key the same snapshot does not see: a dump could not be restored.
const WITHOUT_KEY: &str =
    "SELECT count(*) FROM docs WHERE pgseal.key_version(m) NOT IN (SELECT version FROM pgseal.data_key)";

/// Table w with five documents, in which `sql` has left what was never committed.
fn leave_behind(sql: &str) -> Client {
    let mut client = database(0);
    client
        .run("CREATE TABLE w (a int, b int) WITH (autovacuum_enabled = off); INSERT INTO w VALUES (-1, -2)");
    let _ = client.batch_execute(sql);
    let _ = client.batch_execute("ROLLBACK");
    client.run("ALTER TABLE w ADD m text, ADD e encrypted_jsonb(k)");
    client
        .run(&format!("INSERT INTO w SELECT n, n, 'm', {} FROM generate_series(1, 5) n", document("n", 40)));
    client.run(ROTATE);
    client
}

#[test]
fn row_versions_of_aborted_transactions_are_not_read() {
    let insert = "INSERT INTO w VALUES (1, 2, 1073741820, 'y')";
    let add = "ALTER TABLE w ADD x int, ADD y text";
    for left in [
        format!("BEGIN; {add}; {insert}; ROLLBACK"),
        // The value's header would say 1 GB, or point before and behind the row.
        format!(
            "BEGIN; {add}; INSERT INTO w SELECT n, n, (-n)::int, '' FROM generate_series(1, 50) n; ROLLBACK"
        ),
        format!("BEGIN; SAVEPOINT s; {add}; {insert}; ROLLBACK TO s; INSERT INTO w VALUES (3, 4); COMMIT"),
        format!("DO $$ BEGIN {add}; {insert}; RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END $$"),
        format!("BEGIN; {add}; UPDATE w SET x = -1, y = repeat('z', 126); ROLLBACK"),
        format!("BEGIN; {add}; {insert} RETURNING 1 / 0"),
        "BEGIN; ALTER TABLE w ADD x int8, ADD y int8; INSERT INTO w VALUES (1, 2, -1, -1); ROLLBACK".into(),
        "BEGIN; ALTER TABLE w ADD x cstring, ADD y bool; INSERT INTO w VALUES (1, 2, 'c', true); ROLLBACK"
            .into(),
    ] {
        let mut client = leave_behind(&left);
        assert_eq!(client.state("SELECT pgseal.rewrite_pages('w', 3::int2, 0, 1, false)"), "42809");
        let said =
            start(&mut client, "CALL pgseal.reencrypt('w', 'e', rotation => 'in_place')").join().unwrap();
        assert!(said.contains("5 of them in place, 0 by UPDATE"), "{left}: {said}");
        let read = "SELECT sum((pgseal.decrypt(e) ->> 'n')::int) FROM w";
        assert_eq!(client.one::<i64>(read), 15, "{left}");
    }
}

#[test]
fn what_a_killed_server_left_open_is_not_read() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client, 20);
    client.run("CREATE TABLE w (a int) WITH (autovacuum_enabled = off)");
    client.run(
        "BEGIN; ALTER TABLE w ADD x int; INSERT INTO w SELECT n, 1073741820 FROM generate_series(1, 9) n",
    );
    let mut other = cluster.connect("postgres");
    other.run("CHECKPOINT");
    cluster.kill();
    cluster.start_again();
    let mut client = cluster.connect("postgres");
    client.run("ALTER TABLE w ADD m encrypted_jsonb(k); INSERT INTO w SELECT id, m FROM docs");
    client.run("CALL pgseal.reencrypt('w', 'm', rotation => 'in_place')");
    assert_eq!(client.one::<i64>("SELECT sum((pgseal.decrypt(m) ->> 'n')::int - a) FROM w"), 0);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM w WHERE pgseal.is_current(m)"), 20);
}

#[test]
fn values_are_found_behind_columns_of_every_kind() {
    let mut client = database(0);
    client.run(
        r#"CREATE TABLE wide (a "char", gone text, b text, c int8, d name, e numeric, f bool, g int2, h text, m encrypted_jsonb(k), i text)
             WITH (autovacuum_enabled = off);
         ALTER TABLE wide ALTER h SET STORAGE external;
         INSERT INTO wide SELECT 'x', repeat('g', n), repeat('b', n % 300), nullif(n % 3, 0), 'd', n * 1e20, n % 2 = 0,
                nullif(n % 5, 0), CASE n % 50 WHEN 0 THEN repeat(md5(n::text), 200) WHEN 7 THEN NULL ELSE 'h' END,
                CASE WHEN n % 11 > 0 THEN jsonb_build_object('n', n, 'long', repeat('y', n % 200)) END, 'i'
           FROM generate_series(1, 400) n;
         ALTER TABLE wide DROP gone;
         ALTER TABLE wide ADD later int DEFAULT 7;
         INSERT INTO wide SELECT 'x', 'b', 1, 'd', n, true, 1, 'h', jsonb_build_object('n', n), 'i' FROM generate_series(401, 410) n"#,
    );
    client.run(ROTATE);
    let documents = "SELECT string_agg(pgseal.decrypt(m)::text, ',' ORDER BY e) FROM wide";
    let before: String = client.one(documents);
    let said =
        start(&mut client, "CALL pgseal.reencrypt('wide', 'm', rotation => 'in_place')").join().unwrap();
    assert!(said.contains("374 of them in place, 0 by UPDATE"), "{said}");
    assert_eq!(client.one::<String>(documents), before);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM wide WHERE NOT pgseal.is_current(m)"), 0);
}

#[test]
fn a_key_that_is_not_committed_yet_is_refused() {
    let mut client = database(10);
    for made in [
        ROTATE,
        "SAVEPOINT s; SELECT pgseal.rotate_key('k'); RELEASE s",
        "DO $$ BEGIN PERFORM pgseal.rotate_key('k'); EXCEPTION WHEN OTHERS THEN NULL; END $$",
        "SELECT pgseal.rewrap_keys('k')",
        "UPDATE pgseal.data_key SET created = now()",
    ] {
        client.run(&format!("BEGIN; {made}"));
        assert_eq!(client.state(REWRITE), "55000", "{made}");
        client.run("ROLLBACK");
        assert_eq!(client.one::<i64>(WRONG), 0, "{made}");
    }
    assert_eq!(client.one::<i64>(OLD), 10);
    client.run(&format!("BEGIN; SAVEPOINT s; {ROTATE}; ROLLBACK TO s; {REWRITE}; COMMIT"));
    client.run(
        "BEGIN; SELECT pgseal.create_keyring('new'); CREATE TABLE made (id int, m encrypted_jsonb(new));
         INSERT INTO made VALUES (1, '{}'::jsonb); SELECT pgseal.rotate_key('new')",
    );
    assert_eq!(client.state("SELECT pgseal.rewrite_pages('made', 2::int2, 0, 1, true)"), "55000");
    client.run("ROLLBACK");
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
}

#[test]
fn a_call_by_hand_passes_no_check() {
    let mut client = database(10);
    client.run("CREATE INDEX made_of_it ON docs (pgseal.key_version(m))");
    assert_eq!(client.state(REWRITE), "0A000");
    client
        .run("DROP INDEX made_of_it; ALTER TABLE docs ADD CONSTRAINT one CHECK (pgseal.key_version(m) = 1)");
    assert_eq!(client.state(REWRITE), "0A000");
    client.run("ALTER TABLE docs DROP CONSTRAINT one");
    assert_eq!(client.state(&format!("BEGIN READ ONLY; {REWRITE}")), "25006");
    client.run("ROLLBACK");
    assert_eq!(client.one::<i64>(OLD), 10);
    client.run(REWRITE);
    assert_eq!(client.one::<i64>(OLD), 0);
}

#[test]
fn a_snapshot_from_before_a_key_is_never_given_its_bytes() {
    let mut client = database(50);
    let [mut owner, mut taker] = [beside(&mut client), beside(&mut client)];
    let pid = |session: &mut Client| session.one::<i32>("SELECT pg_backend_pid()");
    let (owner_pid, taker_pid) = (pid(&mut owner), pid(&mut taker));
    client.run(CALL);
    owner.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let snapshot: String = owner.one("SELECT pg_export_snapshot()");
    client.run(ROTATE);
    let error = client.error(REWRITE);
    assert_eq!(error.code().code(), "55006", "{error}");
    assert!(error.message().contains(&format!("sessions [{owner_pid}]")), "{error}");
    // Whoever takes it over keeps it, as the workers of pg_dump -j do.
    taker.run(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{snapshot}'"));
    owner.run("COMMIT");
    let error = client.error(REWRITE);
    assert!(error.message().contains(&format!("sessions [{taker_pid}]")), "{error}");
    assert_eq!(taker.one::<i64>(WITHOUT_KEY), 0);
    taker.run("COMMIT");
    // Nor is a snapshot of one's own.
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM docs");
    owner.run(ROTATE);
    assert_eq!(client.state(REWRITE), "55006");
    client.run("ROLLBACK");
    client.run(REWRITE);
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
}

#[test]
fn a_run_waits_anew_when_the_key_is_rotated_meanwhile() {
    let mut client = database(600);
    let call = "CALL pgseal.reencrypt('docs', 'm', 20, 200, rotation => 'in_place')";
    let run = start(&mut client, call);
    let some = "SELECT count(*) > 0 FROM pgseal.rotation_progress WHERE rows_done > 40";
    wait_for("rows", LIMIT, || client.one(some));
    let mut dump = beside(&mut client);
    dump.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pgseal.data_key");
    client.run(ROTATE);
    let mut cursor = beside(&mut client);
    cursor.run("BEGIN; DECLARE c CURSOR FOR SELECT m FROM docs; FETCH 1 FROM c");
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event = 'PgSleep' AND query LIKE 'CALL pgseal.reencrypt%')";
    wait_for("a run that waits", LIMIT, || client.one(waits));
    assert_eq!(dump.one::<i64>(WITHOUT_KEY), 0);
    cursor.run("COMMIT");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE pgseal.key_version(m) = 3"), 0);
    assert_eq!(dump.one::<i64>(WITHOUT_KEY), 0);
    dump.run("COMMIT");
    run.join().unwrap();
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
}

/// A standby's snapshot from before a key: with `delay` 0 its reader is ended, with -1 replay waits for it.
#[test]
fn a_standby_ends_or_waits_for_snapshots_from_before_a_key() {
    for delay in ["0", "-1"] {
        let primary = Cluster::with_pgseal(&[]);
        let mut client = primary.connect("postgres");
        set_up(&mut client, 300);
        let standby =
            primary.standby(&format!("max_standby_streaming_delay = {delay}\nhot_standby_feedback = on\n"));
        standby.catch_up(&mut client);
        let mut replica = standby.connect("postgres");
        replica.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pgseal.data_key");
        client.run(ROTATE);
        client.run(CALL);
        assert_eq!(client.one::<i64>(OLD), 0);
        if delay == "0" {
            standby.catch_up(&mut client);
            assert!(replica.batch_execute(WITHOUT_KEY).is_err(), "a snapshot that does not see the key");
            replica = standby.connect("postgres");
        } else {
            assert_eq!(replica.one::<i64>(WITHOUT_KEY), 0);
            assert_eq!(replica.one::<i64>("SELECT count(*) FROM docs WHERE pgseal.key_version(m) = 3"), 0);
            replica.run("COMMIT");
        }
        standby.catch_up(&mut client);
        assert_eq!(replica.one::<i64>(WITHOUT_KEY) + replica.one::<i64>(OLD) + replica.one::<i64>(WRONG), 0);
    }
}

/// Restores a dump into a database of its own; every row of it is to be read.
fn restore(cluster: &Cluster, dump: &str) {
    let mut client = cluster.connect("postgres");
    client.run("DROP DATABASE IF EXISTS restored");
    client.run("CREATE DATABASE restored");
    let output = cluster.psql("restored", &[] as &[&str], dump);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut restored = cluster.connect("restored");
    assert_eq!(restored.one::<i64>("SELECT count(*) FROM docs"), 1500);
    assert_eq!(restored.one::<i64>(WRONG), 0);
}

#[test]
fn a_dump_beside_rotation_in_place_is_whole_or_fails() {
    let primary = Cluster::with_pgseal(&["wal_keep_size = 1GB", "max_wal_size = 1GB"]);
    let mut client = primary.connect("postgres");
    set_up(&mut client, 1500);
    let standby = primary.standby("max_standby_streaming_delay = 200ms\n");
    let stop = AtomicBool::new(false);
    let rotations = AtomicUsize::new(0);
    let mut dumps = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _stopping = Stopping(&stop);
            while !stop.load(Ordering::Relaxed) {
                client.run(ROTATE);
                client.run("CALL pgseal.reencrypt('docs', 'm', 300, rotation => 'in_place', pace => 'full')");
                rotations.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stopping = Stopping(&stop);
        for round in 0..4 {
            let before = rotations.load(Ordering::Relaxed);
            for server in [&primary, &standby] {
                let dump = server.pg_dump("postgres", &["-d", "postgres"]);
                if dump.status.success() {
                    dumps.push(String::from_utf8(dump.stdout).expect("UTF-8"));
                }
            }
            wait_for(&format!("a rotation after dump {round}"), LIMIT, || {
                stop.load(Ordering::Relaxed) || rotations.load(Ordering::Relaxed) > before
            });
        }
    });
    assert!(dumps.len() >= 4, "those of the primary at least: {}", dumps.len());
    dumps.iter().for_each(|dump| restore(&primary, dump));
}
