//! Rotation in place: rows keep their versions, nobody sees half of an old and half of a new value, and a crash at any
//! moment leaves each row as it was or as it should be.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};

use crate::support::{
    Cluster, Sql, beside, document, fresh_database, lacks, output, rotated_docs, run, shared, wait_for,
};

pub const CALL: &str = "CALL pgseal.reencrypt('docs', 'm', rotation => 'in_place', pace => 'full')";
/// Rows that do not hold their own number. Decrypting a row with bytes of two values is an error.
pub const WRONG: &str =
    "SELECT count(*) FROM docs WHERE (pgseal.decrypt(m) ->> 'n')::int IS DISTINCT FROM id";
pub const OLD: &str = "SELECT count(*) FROM docs WHERE NOT pgseal.is_current(m)";

/// About twenty rows a page.
pub fn set_up(client: &mut Client, rows: usize) {
    rotated_docs(client, rows, 300);
}

pub fn database(rows: usize) -> Client {
    let mut client = fresh_database();
    set_up(&mut client, rows);
    client
}

/// Waits until no transaction of another database is older than the newest key: all snapshots would look older.
pub fn settle(client: &mut Client) {
    let newer = "SELECT max(xmin::text::int8) < pg_snapshot_xmin(pg_current_snapshot())::text::int8 FROM pgseal.data_key";
    wait_for("the end of older transactions", Duration::from_secs(60), || client.one(newer));
}

/// Runs the CALL through psql on a thread of its own; gives what it said.
pub fn start(client: &mut Client, sql: &'static str) -> JoinHandle<String> {
    let name = client.database();
    std::thread::spawn(move || {
        let output = shared().psql(&name, &[] as &[&str], sql);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    })
}

/// The server's files are as PostgreSQL wants them: heap, indexes and checksums.
pub fn check_files(cluster: &Cluster) {
    if !lacks("amcheck") {
        cluster.connect("postgres").run("CREATE EXTENSION IF NOT EXISTS amcheck");
        run(cluster.program("pg_amcheck", "postgres").args(["--heapallindexed", "-d", "postgres"]));
    }
    cluster.stop();
    run(cluster.program("pg_checksums", "postgres").arg("--check").arg("-D").arg(cluster.data_dir()));
    cluster.start_again();
}

#[test]
fn rows_keep_their_versions_tokens_and_places() {
    let mut client = database(500);
    client
        .run(&format!("INSERT INTO docs SELECT n, {} FROM generate_series(501, 520) n", document("n", 5000)));
    client.run(r#"UPDATE docs SET m = m || '{"a": 2}' WHERE id > 500"#);
    client.run("VACUUM docs");
    client.run("SELECT pgseal.rotate_key('k')");
    let places = "SELECT format('%s %s %s', id, ctid, xmin) FROM docs WHERE id <= 500 ORDER BY id";
    let size = "SELECT pg_relation_size('docs') + pg_indexes_size('docs')";
    let tokens = "SELECT encode(substr(pgseal.encrypted_jsonb_send(m), 11, 38), 'hex') FROM docs ORDER BY id";
    let before = (client.column::<String>(places), client.one::<i64>(size), client.column::<String>(tokens));
    let said = start(&mut client, CALL).join().unwrap();
    assert!(said.contains("520 rows of docs.m re-encrypted"), "{said}");
    assert!(said.contains("500 of them in place, 20 by UPDATE"), "{said}");
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
    assert_eq!(client.column::<String>(places), before.0);
    assert_eq!(client.column::<String>(tokens), before.2);
    assert!(client.one::<i64>(size) <= before.1 + 5 * 8192, "only out-of-line rows have new versions");
    let found = r#"SELECT count(*) FROM docs WHERE m @> '{"a": 1}'"#;
    assert_eq!(client.one::<i64>(found), 500);
    // Nothing is left to do, and nothing is written.
    let said = start(&mut client, CALL).join().unwrap();
    assert!(said.contains("\u{20}0 rows of docs.m re-encrypted"), "{said}");
}

#[test]
fn other_tokens_need_an_update() {
    let mut client = database(50);
    client.run("SELECT pgseal.rotate_index_key('k')");
    let said =
        start(&mut client, "CALL pgseal.reencrypt('docs', 'm', index => false, rotation => 'in_place')")
            .join()
            .unwrap();
    assert!(said.contains("50 of them in place, 0 by UPDATE"), "{said}");
    let said = start(&mut client, CALL).join().unwrap();
    assert!(said.contains("0 of them in place, 50 by UPDATE"), "{said}");
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
}

#[test]
fn a_pass_is_refused_where_something_is_made_of_the_bytes() {
    let mut client = database(10);
    let mut refused = |set_up: &str, table: &str, named: &str, clean_up: &str| {
        client.run(set_up);
        let error = client.error(&format!("CALL pgseal.reencrypt('{table}', 'm', rotation => 'in_place')"));
        assert_eq!(error.code().code(), "0A000", "{set_up}: {error}");
        assert!(error.message().contains(named), "{set_up}: {error}");
        assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.rotation_progress"), 0, "{set_up}");
        client.run(clean_up);
    };
    refused("CREATE INDEX i ON docs (id) INCLUDE (m)", "docs", "index public.i", "DROP INDEX i");
    refused("CREATE INDEX i ON docs (pgseal.key_version(m))", "docs", "index public.i", "DROP INDEX i");
    refused(
        "CREATE INDEX i ON docs (id) WHERE pgseal.key_version(m) = 1",
        "docs",
        "index public.i",
        "DROP INDEX i",
    );
    refused(
        "CREATE FUNCTION whole(docs) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT pgseal.key_version($1.m)'; CREATE INDEX i ON docs (id, whole(docs))",
        "docs",
        "index public.i",
        "DROP INDEX i",
    );
    refused(
        "ALTER TABLE docs ADD v int GENERATED ALWAYS AS (pgseal.key_version(m)) STORED",
        "docs",
        "column v",
        "ALTER TABLE docs DROP v",
    );
    refused(
        "ALTER TABLE docs ADD CONSTRAINT one CHECK (pgseal.key_version(m) = 1)",
        "docs",
        "constraint one",
        "ALTER TABLE docs DROP CONSTRAINT one",
    );
    refused(
        "CREATE TEMP TABLE t (m encrypted_jsonb(k)); INSERT INTO t SELECT m FROM docs",
        "t",
        "ordinary",
        "DROP TABLE t",
    );
    refused(
        "CREATE TABLE p (m encrypted_jsonb(k)) PARTITION BY HASH (pgseal.key_version(m));
         CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 1, REMAINDER 0); INSERT INTO p SELECT m FROM docs",
        "p",
        "partitioned by an expression",
        "DROP TABLE p",
    );
    assert_eq!(client.state("CALL pgseal.reencrypt('docs', 'm', rotation => 'other')"), "22023");
    assert_eq!(client.one::<i64>(OLD), 10);
    // Other indexes, a partial one on another column and partitions by a plain column are none of it.
    client.run("CREATE INDEX ON docs (id) WHERE id > 3; CREATE INDEX ON docs ((id + 1))");
    client.run(CALL);
    assert_eq!(client.one::<i64>(OLD), 0);
}

#[test]
fn children_of_a_table_are_rotated_with_it() {
    let mut client = database(10);
    client.run("CREATE TABLE child () INHERITS (docs); CREATE TABLE grandchild () INHERITS (child)");
    client.run("WITH moved AS (DELETE FROM docs WHERE id > 5 RETURNING *) INSERT INTO grandchild SELECT * FROM moved");
    client.run(CALL);
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
    client.run("SELECT pgseal.retire_key('k', 1)");
}

#[test]
fn only_the_owner_with_encrypt_may() {
    let mut client = database(10);
    let name = client.database();
    let role = format!("{name}_writer");
    client.run(&format!("CREATE ROLE {role} LOGIN; GRANT ALL ON docs TO {role}"));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt'])"));
    let mut session = shared().connect_as(&role, &name);
    assert_eq!(session.state(CALL), "42501");
    client.run(&format!("ALTER TABLE docs OWNER TO {role}; SELECT pgseal.revoke_keyring('k', '{role}')"));
    assert_eq!(session.state(CALL), "42501");
    assert_eq!(client.one::<i64>(OLD), 10);
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt'])"));
    session.run(CALL);
    assert_eq!(client.one::<i64>(OLD), 0);
}

#[test]
fn old_bytes_leave_the_file_also_where_rows_were_removed() {
    let mut client = database(300);
    // The nonce and the first bytes of the ciphertext, after the header, the token and its tag.
    let old: Vec<Vec<u8>> = client.column("SELECT substr(pgseal.encrypted_jsonb_send(m), 49, 24) FROM docs");
    client.run("DELETE FROM docs WHERE id % 7 = 0");
    client.run("VACUUM docs");
    client.run("UPDATE docs SET id = id WHERE id % 5 = 0");
    let file: String = client.one("SELECT pg_relation_filepath('docs')");
    let file = shared().data_dir().join(file);
    let held = |client: &mut Client| {
        client.run("CHECKPOINT");
        let bytes = std::fs::read(&file).unwrap();
        old.iter().filter(|nonce| memchr::memmem::find(&bytes, nonce).is_some()).count()
    };
    assert!(held(&mut client) >= 257);
    client.run(CALL);
    assert_eq!(held(&mut client), 0);
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
}

#[test]
fn a_cursor_from_before_is_waited_for_and_its_session_named() {
    let mut client = database(300);
    let mut reader = beside(&mut client);
    let pid: i32 = reader.one("SELECT pg_backend_pid()");
    // Its transaction began before the run: that waits for it, then finds the page free.
    reader.run("BEGIN; DECLARE c CURSOR FOR SELECT pgseal.decrypt(m) FROM docs; FETCH 100 FROM c");
    let thread = start(&mut client, CALL);
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    wait_for("a run that waits", Duration::from_secs(60), || client.one(waits));
    assert!(!thread.is_finished());
    reader.run("FETCH ALL FROM c; COMMIT");
    let said = thread.join().unwrap();
    // The one that looks on may be named, too.
    let named =
        said.split_once("transactions that may hold old values: sessions {").map_or("", |(_, named)| named);
    let sessions = named.split('}').next().unwrap_or_default();
    assert!(sessions.split(',').any(|session| session == pid.to_string()), "{said}");
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
}

const RENEW: &str = "SELECT ARRAY[rewritten, left_for_update, out_of_line, busy_page]
    FROM pgseal.rewrite_pages_of('docs', 'm', 0, 1000, true)";

#[test]
fn a_page_held_during_a_pass_goes_by_update() {
    let mut client = database(300);
    settle(&mut client);
    let mut reader = beside(&mut client);
    // A sequential scan of PostgreSQL 17 and later holds the pages that it is going to look at, too.
    reader.run("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off");
    reader.run("BEGIN; DECLARE c CURSOR FOR SELECT pgseal.decrypt(m) FROM docs ORDER BY id; FETCH 1 FROM c");
    let counts: Vec<Option<i64>> = client.one(RENEW);
    // Renewed, left for UPDATE, out of line, and the page that the cursor stands on.
    assert!(counts[0] > Some(200) && counts[0] < Some(300), "{counts:?}");
    assert_eq!(counts[1..], [Some(0); 3]);
    reader.run("FETCH ALL FROM c; COMMIT");
    let counts: Vec<Option<i64>> = client.one(RENEW);
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
    assert_eq!(counts[3], None);
}

#[test]
fn bytes_written_back_by_an_older_transaction_are_found() {
    let mut client = database(100);
    let mut slow = beside(&mut client);
    slow.run("BEGIN; CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT id, m FROM docs");
    let thread = start(&mut client, CALL);
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    wait_for("a run that waits", Duration::from_secs(60), || client.one(waits));
    slow.run("UPDATE docs SET m = mine.m FROM mine WHERE mine.id = docs.id AND docs.id % 2 = 0; COMMIT");
    thread.join().unwrap();
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
}

#[test]
fn rows_of_a_prepared_transaction_are_renewed_too() {
    let cluster = Cluster::with_pgseal(&["max_prepared_transactions = 2"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client, 50);
    client.run("CREATE TABLE old AS SELECT * FROM docs WHERE id <= 5");
    client.run("BEGIN");
    client.run("INSERT INTO docs SELECT id + 100, m FROM old; PREPARE TRANSACTION 'p'");
    client.run(CALL);
    client.run("COMMIT PREPARED 'p'");
    assert_eq!(client.one::<i64>(OLD), 0);
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM docs WHERE (pgseal.decrypt(m) ->> 'n')::int = id % 100"),
        55
    );
}

#[test]
fn a_page_that_a_crash_left_without_rows_is_passed_over() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client, 100);
    let file = cluster.data_dir().join(client.one::<String>("SELECT pg_relation_filepath('docs')"));
    client.run("CHECKPOINT");
    drop(client);
    cluster.stop();
    // As after a crash between the extension of a file and the first row in it.
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(length + 8192).unwrap();
    cluster.start_again();
    let mut client = cluster.connect("postgres");
    client.run(CALL);
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
    check_files(&cluster);
}

/// Tells all threads to stop, also when one of them panics.
pub struct Stopping<'a>(pub &'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Scans until told to stop; counts its scans. Any row with bytes of two values ends it with an error.
pub fn scan(config: Config, sql: &str, stop: &AtomicBool, scans: &AtomicUsize) {
    let _stopping = Stopping(stop);
    let mut client = config.connect(NoTls).unwrap();
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(client.one::<i64>(sql), 0);
        scans.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long the readers read: seconds in `PGSEAL_TORN_SECONDS`, or a few.
pub fn reading_time() -> Duration {
    let seconds = std::env::var("PGSEAL_TORN_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(15))
}

#[test]
fn no_reader_of_the_primary_or_of_a_standby_sees_half_a_value() {
    let primary =
        Cluster::with_pgseal(&["wal_keep_size = 1GB", "shared_buffers = 64MB", "max_wal_size = 2GB"]);
    let mut client = primary.connect("postgres");
    set_up(&mut client, 4000);
    let standby = primary.standby("hot_standby_feedback = on\nmax_standby_streaming_delay = -1\n");
    let stop = AtomicBool::new(false);
    let [on_primary, on_standby] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let mut rotations = 0;
    // Numbers from 4001 on come and go; the others are changed, but stay.
    let mut writer = primary.connect("postgres");
    std::thread::scope(|scope| {
        scope.spawn(|| scan(primary.config("postgres", "postgres"), WRONG, &stop, &on_primary));
        for _ in 0..2 {
            scope.spawn(|| scan(standby.config("postgres", "postgres"), WRONG, &stop, &on_standby));
        }
        let _stopping = Stopping(&stop);
        scope.spawn(|| {
            let _stopping = Stopping(&stop);
            while !stop.load(Ordering::Relaxed) {
                writer.run("UPDATE docs SET m = m || '{\"b\": 1}' WHERE id % 97 = 1");
                writer.run(&format!(
                    "INSERT INTO docs SELECT n, {} FROM generate_series(4001, 4020) n",
                    document("n", 300)
                ));
                writer.run("DELETE FROM docs WHERE id > 4000");
                writer.run("VACUUM docs");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let end = Instant::now() + reading_time();
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            client.run("SELECT pgseal.rotate_key('k')");
            client.run(CALL);
            rotations += 1;
        }
    });
    standby.catch_up(&mut client);
    let mut replica = standby.connect("postgres");
    let all = "SELECT string_agg(md5(pgseal.encrypted_jsonb_send(m)), '' ORDER BY id) FROM docs";
    assert_eq!(replica.one::<String>(all), client.one::<String>(all));
    assert_eq!(replica.one::<i64>(WRONG) + client.one::<i64>(OLD), 0);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE id <= 4000"), 4000);
    let [on_primary, on_standby] = [on_primary.into_inner(), on_standby.into_inner()];
    println!(
        "{rotations} rotations of 4000 rows, {on_primary} scans of the primary, {on_standby} of the standby, no torn row"
    );
    assert!(rotations > 0 && on_primary > 0 && on_standby > 0);
    check_files(&primary);
}

/// How often it is killed: `PGSEAL_KILLS`, or ten times.
pub fn kills() -> usize {
    std::env::var("PGSEAL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn a_kill_at_any_moment_leaves_each_row_old_or_new() {
    let cluster = Cluster::with_pgseal(&["fsync = on", "max_wal_size = 1GB"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client, 3000);
    let mut interrupted = 0;
    for round in 0..kills() {
        let mut session = cluster.connect("postgres");
        let pid: i32 = session.one("SELECT pg_backend_pid()");
        let rotation = std::thread::spawn(move || {
            // Again and again, since one run is over before most kills.
            let rotate = "SELECT pgseal.rotate_key('k')";
            let renew = "CALL pgseal.reencrypt('docs', 'm', 300, rotation => 'in_place', pace => 'full')";
            while [renew, rotate].into_iter().all(|step| session.batch_execute(step).is_ok()) {}
        });
        let mut session = cluster.connect("postgres");
        let writer = std::thread::spawn(move || {
            while session
                .batch_execute("UPDATE docs SET m = m || '{\"b\": 1}' WHERE id % 31 = 1; CHECKPOINT")
                .is_ok()
            {}
        });
        std::thread::sleep(Duration::from_millis((round as u64 * 7919 + 13) % 1500));
        if round % 2 == 0 {
            output(Command::new("kill").args(["-9", &pid.to_string()]));
        } else {
            cluster.kill();
            cluster.start_again();
        }
        rotation.join().unwrap();
        // Where only a backend was to be killed and had ended already, the writer goes on.
        wait_for("the writer's end", Duration::from_secs(60), || {
            if let Ok(mut client) = cluster.config("postgres", "postgres").connect(NoTls) {
                let _ = client.batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'");
            }
            writer.is_finished()
        });
        writer.join().unwrap();
        // The server may not have noticed yet that it lost a process, and end this session for it.
        wait_for("a server that stays", Duration::from_secs(60), || {
            client = match cluster.config("postgres", "postgres").connect(NoTls) {
                Ok(client) => client,
                Err(_) => return false,
            };
            std::thread::sleep(Duration::from_millis(300));
            client.simple_query("SELECT").is_ok()
        });
        assert_eq!(client.one::<i64>(WRONG), 0, "round {round}");
        assert_eq!(client.one::<i64>("SELECT count(DISTINCT id) FROM docs"), 3000, "round {round}");
        let state: Option<String> = client.column("SELECT state FROM pgseal.rotation_progress").pop();
        interrupted += usize::from(state.as_deref() == Some("interrupted"));
        if client.one::<i64>(OLD) == 0 {
            client.run("SELECT pgseal.rotate_key('k')");
        }
    }
    assert!(interrupted > 0);
    println!("{} kills, {interrupted} within a run", kills());
    client.run(CALL);
    assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
    check_files(&cluster);
}
