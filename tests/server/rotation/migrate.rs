//! encrypt_column and decrypt_column: a column changes its type while it is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::Client;

use crate::support::{Cluster, Sql, fresh_database, shared, wait_for, with_keyring};

pub(super) const ENCRYPT: &str = "CALL pgseal.encrypt_column('docs', 'm', 'k')";

pub(super) const DECRYPT: &str = "CALL pgseal.decrypt_column('docs', 'm')";

/// Every row's document beside its copy in a plain column.
pub(super) const DIFFERENT: &str =
    "SELECT count(*) FROM docs WHERE pgseal.decrypt(m)::text IS DISTINCT FROM copy::text";

pub(super) fn database() -> Client {
    let mut client = fresh_database();
    prepare(&mut client, 2000);
    client
}

/// A keyring, and a table whose documents have a copy, out of line ones and numbers of unlike scale among them.
pub(super) fn prepare(client: &mut Client, rows: i32) {
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name'])");
    client.run("CREATE TABLE docs (id int PRIMARY KEY, m jsonb, copy jsonb, note text)");
    client.run(&format!(
        r#"INSERT INTO docs SELECT i, d, d, 'note ' || i FROM generate_series(1, {rows}) i, LATERAL (SELECT CASE
             WHEN i % 97 = 0 THEN NULL WHEN i % 101 = 0 THEN jsonb_build_object('long', repeat(md5(i::text), 300))
             ELSE jsonb_build_object('name', 'n' || i % 10, 'amount', (i || '.00')::numeric) END) v (d)"#
    ));
}

pub(super) fn type_of(client: &mut Client, column: &str) -> String {
    client.one(&format!("SELECT split_part(format_type(atttypid, NULL), '(', 1) FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = '{column}'"))
}

/// What an unfinished migration leaves in the catalog.
pub(super) fn leftovers(client: &mut Client) -> Vec<String> {
    client.column(
        "SELECT attname::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attname LIKE 'pgseal_new%' AND relkind IN ('r', 'p') UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'pgseal_new%'
         UNION ALL SELECT tgname FROM pg_trigger WHERE tgname LIKE '~pgseal%' UNION ALL SELECT conname FROM pg_constraint WHERE conname LIKE 'pgseal_new%'",
    )
}

/// The commands for the index, as the NOTICE names them.
pub(super) fn build_index(client: &mut Client) -> usize {
    let commands: Vec<String> = client.column("SELECT pgseal.migration_commands('docs', 'm')");
    commands.iter().for_each(|command| client.run(command));
    commands.len()
}

#[test]
fn there_and_back_every_value_is_the_same() {
    let mut client = database();
    client.run(ENCRYPT);
    assert_eq!(type_of(&mut client, "m"), "encrypted_jsonb");
    assert_eq!(client.one::<i64>(DIFFERENT), 0);
    let expected: i64 = client.one(r#"SELECT count(*) FROM docs WHERE copy @> '{"name": "n3"}'"#);
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM docs WHERE m @> '{"name": "n3"}'"#), expected);
    client.run(
        r#"INSERT INTO docs (id, m, copy) VALUES (9001, '{"name": "late"}'::jsonb, '{"name": "late"}')"#,
    );

    client.run(DECRYPT);
    assert_eq!(type_of(&mut client, "m"), "jsonb");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE m::text IS DISTINCT FROM copy::text"), 0);
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}

#[test]
fn json_becomes_what_jsonb_keeps_of_it() {
    let mut client = with_keyring("{$.name}");
    client.run(
        r#"CREATE TABLE docs (id int PRIMARY KEY, m json NOT NULL DEFAULT '{"name":  "none"}', was json)"#,
    );
    client.run(
        r#"INSERT INTO docs SELECT i, d, d FROM generate_series(1, 200) i,
             LATERAL (SELECT format('{"z": 1.50,  "name": "n%s", "name": "m%s", "null": null}', i, i % 10)::json) v (d)"#,
    );
    client.run("INSERT INTO docs VALUES (300, 'null', 'null')");
    let said = shared().psql::<&str>(&client.database(), &[], &format!("{ENCRYPT};")).stderr;
    assert!(
        String::from_utf8_lossy(&said).contains("documents of public.docs.m are kept as jsonb keeps them")
    );
    assert_eq!(type_of(&mut client, "m"), "encrypted_jsonb");
    client.run(
        "INSERT INTO docs (id) VALUES (301); UPDATE docs SET was = '{\"name\": \"none\"}' WHERE id = 301",
    );
    let differing =
        "SELECT count(*) FROM docs WHERE pgseal.decrypt(m)::text IS DISTINCT FROM was::jsonb::text";
    assert_eq!(client.one::<i64>(differing), 0);
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM docs WHERE m @> '{"name": "m3"}'"#), 20);
    client.run(DECRYPT);
    assert_eq!(type_of(&mut client, "m"), "jsonb");
    assert_eq!((client.one::<i64>("SELECT count(*) FROM docs"), leftovers(&mut client)), (202, Vec::new()));

    // What jsonb does not take stops it before the swap.
    client.run(r#"CREATE TABLE odd (m json); INSERT INTO odd VALUES ('{"a": "\u0000"}')"#);
    client.refused("CALL pgseal.encrypt_column('odd', 'm', 'k')", "22P02");
    client.run("SELECT pgseal.abandon_migration('odd', 'm')");
    assert_eq!(client.one::<String>("SELECT m::text FROM odd"), r#"{"a": "\u0000"}"#);
}

#[test]
fn text_and_varchar_become_encrypted_text() {
    let mut client = database();
    client.run("ALTER TABLE docs ADD code varchar(20) DEFAULT 'none'; UPDATE docs SET code = 'pgseal:' || id, note = NULL WHERE id % 5 = 0");
    for column in ["note", "code"] {
        client.run(&format!("CALL pgseal.encrypt_column('docs', '{column}', 'k')"));
        assert_eq!(type_of(&mut client, column), "encrypted_text");
    }
    client.run("INSERT INTO docs (id) VALUES (9001)");
    let found = "SELECT concat_ws(' ', pgseal.decrypt(note), pgseal.decrypt(code)) FROM docs WHERE id IN (5, 6, 9001) ORDER BY id";
    assert_eq!(client.column::<String>(found), ["pgseal:5", "note 6 none", "none"]);
    client.run("CALL pgseal.decrypt_column('docs', 'code')");
    client.run("INSERT INTO docs (id) VALUES (9002)");
    assert_eq!(client.one::<String>("SELECT code FROM docs WHERE id = 9002"), "none");
}

#[test]
fn what_belongs_to_the_column_goes_along() {
    let mut client = database();
    client.run(
        "UPDATE docs SET m = '{}', copy = '{}' WHERE m IS NULL; ALTER TABLE docs ALTER m SET NOT NULL, ALTER m SET DEFAULT '{\"name\": \"nobody\"}';
         CREATE INDEX docs_m ON docs USING gin (m jsonb_path_ops); COMMENT ON COLUMN docs.m IS 'what is known';
         GRANT SELECT (m), UPDATE (m) ON docs TO pg_monitor",
    );
    let belongings = "SELECT concat_ws(', ', attnotnull, attacl, col_description(attrelid, attnum), (SELECT indexrelid::regclass FROM pg_index WHERE indkey[0] = attnum AND indrelid = attrelid))
                        FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = 'm'";
    let before: String = client.one(belongings);
    for (call, new_type) in [(ENCRYPT, "encrypted_jsonb"), (DECRYPT, "jsonb")] {
        client.run(call);
        assert_ne!(type_of(&mut client, "m"), new_type, "swapped without its index");
        assert_eq!(build_index(&mut client), 1);
        client.run(call);
        assert_eq!(type_of(&mut client, "m"), new_type);
        assert_eq!(client.one::<String>(belongings), before);
        assert_eq!(client.state("INSERT INTO docs (id, m) VALUES (-1, NULL)"), "23502");
        client.run("DELETE FROM docs WHERE id = 9001; INSERT INTO docs (id) VALUES (9001)");
        assert_eq!(leftovers(&mut client), Vec::<String>::new());
        client.run("SET enable_seqscan = off");
        let plan = client
            .column::<String>(r#"EXPLAIN SELECT id FROM docs WHERE m @> '{"name": "nobody"}'"#)
            .join("\n");
        assert!(plan.contains("docs_m"), "{plan}");
        assert_eq!(client.column::<i32>(r#"SELECT id FROM docs WHERE m @> '{"name": "nobody"}'"#), [9001]);
    }
}

#[test]
fn the_index_that_was_built_badly_is_built_again() {
    let mut client = database();
    client.run("CREATE INDEX docs_m ON docs USING gin (m)");
    client.run(ENCRYPT);
    assert_eq!(build_index(&mut client), 1);
    client.run("UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text LIKE 'pgseal_new%'");
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), build_index(&mut client)), ("jsonb", 2));
    client.run(ENCRYPT);
    assert_eq!(type_of(&mut client, "m"), "encrypted_jsonb");
}

/// Writes documents and their copies until told to stop; returns how many statements there were.
fn writer(mut client: Client, stop: Arc<AtomicBool>, number: i32) -> thread::JoinHandle<i32> {
    thread::spawn(move || {
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            round += 1;
            let (id, document) = (
                1 + (round * 37 + number * 501) % 3000,
                format!(r#"{{"name": "w{number}", "round": {round}.50}}"#),
            );
            client.run(&match round % 5 {
                0 => format!("DELETE FROM docs WHERE id = {id}"),
                1 | 2 => format!("INSERT INTO docs (id, m, copy) VALUES ({id}, '{document}'::jsonb, '{document}') ON CONFLICT (id) DO UPDATE SET m = excluded.m, copy = excluded.copy"),
                3 => format!("UPDATE docs SET m = '{document}'::jsonb, copy = '{document}' WHERE id = {id}"),
                _ => format!("UPDATE docs SET m = NULL, copy = NULL WHERE id = {id}"),
            });
        }
        round
    })
}

#[test]
fn concurrent_writers_lose_nothing() {
    let cluster = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 3000);
    client.run("SELECT pgseal.set_default_keyring('k')");
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..3).map(|number| writer(cluster.connect("postgres"), stop.clone(), number)).collect();
    client.run("CALL pgseal.encrypt_column('docs', 'm', 'k', batch_size => 100)");
    let wrong: i64 = client.one(DIFFERENT);
    // The same statements go on with the encrypted column.
    thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let statements: i32 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    assert_eq!((wrong, client.one::<i64>(DIFFERENT)), (0, 0));
    assert!(statements > 100, "{statements} statements");
    assert_eq!(type_of(&mut client, "m"), "encrypted_jsonb");
}

#[test]
fn a_migration_goes_on_after_a_cancel_and_after_a_crash() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 3000);
    // Rows in the middle stop it for as long as the test likes.
    client.run("CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(NEW.id); RETURN NEW; END'");
    client.run("CREATE TRIGGER gate BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id IN (1000, 2500)) EXECUTE FUNCTION gate()");
    for kill in ["cancel", "crash"] {
        let mut other = cluster.connect("postgres");
        other.run(&format!("SELECT pg_advisory_lock({})", if kill == "cancel" { 1000 } else { 2500 }));
        let mut caller = cluster.connect("postgres");
        let call = thread::spawn(move || {
            caller.batch_execute("CALL pgseal.encrypt_column('docs', 'm', 'k', batch_size => 50)").err()
        });
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock' AND query NOT LIKE '%activity%'";
        wait_for("the lock", Duration::from_secs(60), || client.one::<i64>(waiting) == 1);
        match kill {
            "cancel" => {
                client.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL%'")
            }
            _ => {
                cluster.crash();
                cluster.start_again();
                client = cluster.connect("postgres");
            }
        }
        assert!(call.join().unwrap().is_some(), "{kill}: no error");
        let filled: i64 = client.one("SELECT count(pgseal_new_2) FROM docs");
        assert!(filled > 500 && filled < 3000, "{kill}: {filled} rows filled");
        // Writers are still covered.
        client.run(r#"UPDATE docs SET m = '{"a": 1}', copy = '{"a": 1}' WHERE id = 3"#);
    }
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let mut client = database();
    client.run("CREATE INDEX ON docs USING gin (m)");
    let name = client.database();
    let output = shared().psql(
        &name,
        &["-v", "VERBOSITY=terse"],
        "BEGIN; CALL pgseal.encrypt_column('docs', 'm', dry_run => true); COMMIT;",
    );
    let said = String::from_utf8_lossy(&output.stderr);
    for part in [
        "add column pgseal_new_2 of type public.encrypted_jsonb(",
        "CREATE INDEX CONCURRENTLY",
        "compare every row",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!((type_of(&mut client, "m").as_str(), leftovers(&mut client)), ("jsonb", vec![]));
}

#[test]
fn a_migration_tells_who_will_be_refused_and_what_is_left() {
    let mut client = database();
    client.run("DROP ROLE IF EXISTS migrate_reader; CREATE ROLE migrate_reader; GRANT SELECT ON docs TO migrate_reader; ANALYZE docs");
    let name = client.database();
    let statistics = "SELECT count(*) FROM pg_statistic WHERE starelid = 'docs'::regclass AND staattnum = 2";
    assert_eq!(client.one::<i64>(statistics), 1);
    let output = shared().psql::<&str>(&name, &[], &format!("{ENCRYPT};"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in [
        "role migrate_reader (decrypt)",
        "hold the old plaintext on disk",
        "VACUUM FULL public.docs",
        "WAL",
        "last column",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(client.one::<i64>(statistics), 0);
    client.run("DROP OWNED BY migrate_reader; DROP ROLE migrate_reader");
}

#[test]
fn vacuum_full_removes_the_old_plaintext_from_the_table() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 200);
    client
        .run(r#"ALTER TABLE docs DROP copy; UPDATE docs SET m = '{"name": "canaryinthemine"}' WHERE id = 7"#);
    client.run(ENCRYPT);
    let holds = |client: &mut Client| -> bool {
        client.run("CHECKPOINT");
        let path: String = client.one("SELECT pg_relation_filepath('docs')");
        let bytes = std::fs::read(cluster.data_dir().join(path)).unwrap();
        bytes.windows(15).any(|window| window == b"canaryinthemine")
    };
    assert!(holds(&mut client), "the control");
    client.run("VACUUM FULL docs");
    assert!(!holds(&mut client));
}

#[test]
fn to_decrypt_a_column_needs_decrypt_even_where_it_is_empty() {
    let mut client = database();
    client.run("DROP ROLE IF EXISTS migrate_back; CREATE ROLE migrate_back; GRANT ALL ON SCHEMA public TO migrate_back; CREATE TABLE vault (m encrypted_jsonb(k))");
    client.run("ALTER TABLE vault OWNER TO migrate_back; SELECT pgseal.grant_keyring('k', 'migrate_back', ARRAY['encrypt']); SET ROLE migrate_back");
    let call = "CALL pgseal.decrypt_column('vault', 'm')";
    assert_eq!(client.state(call), "42501", "empty");
    client.run("INSERT INTO vault VALUES ('{}'::jsonb)");
    assert_eq!(client.state(call), "42501", "one row");
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
    client.run(
        "RESET ROLE; SELECT pgseal.grant_keyring('k', 'public', ARRAY['decrypt']); SET ROLE migrate_back",
    );
    client.run(call);
    assert_eq!(client.one::<String>("SELECT m::text FROM vault"), "{}");
    client.run("RESET ROLE; DROP OWNED BY migrate_back; DROP ROLE migrate_back");
}

#[test]
fn the_swap_waits_for_readers_and_does_not_make_others_wait() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 500);
    let mut reader = cluster.connect("postgres");
    reader.run("BEGIN; SELECT count(*) FROM docs");
    let mut caller = cluster.connect("postgres");
    let call = thread::spawn(move || caller.batch_execute(ENCRYPT));
    let end = std::time::Instant::now() + Duration::from_secs(4);
    while std::time::Instant::now() < end {
        // Behind a lock that is waited for, but for a second only.
        client.run("SET statement_timeout = '30s'; SELECT count(*) FROM docs");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(type_of(&mut client, "m"), "jsonb");
    reader.run("COMMIT");
    call.join().unwrap().unwrap();
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
}

#[test]
fn rows_left_unfilled_and_triggers_switched_off_are_noticed() {
    let mut client = database();
    client.run("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
    client.run(
        "CREATE TRIGGER keep BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION keep()",
    );
    assert_eq!(client.state(ENCRYPT), "XX001");
    client.run("DROP TRIGGER keep ON docs; UPDATE docs SET pgseal_new_2 = NULL WHERE id = 8");
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM docs WHERE m IS NOT NULL AND pgseal_new_2 IS NULL"),
        1,
        "only the one that was kept"
    );
    client.run("ALTER TABLE docs DISABLE TRIGGER \"~pgseal_new_2\"");
    assert_eq!(client.state(ENCRYPT), "55000");
    client.run("SELECT pgseal.abandon_migration('docs', 'm')");
    assert_eq!((type_of(&mut client, "m").as_str(), leftovers(&mut client)), ("jsonb", vec![]));
    assert_eq!(client.state("SELECT pgseal.abandon_migration('docs', 'm')"), "55000");
    client.run(ENCRYPT);
    assert_eq!(client.one::<i64>(DIFFERENT), 0);
}

#[test]
fn a_partitioned_table_with_its_index() {
    let mut client = with_keyring("{$.name}");
    client.run(
        "CREATE TABLE docs (id int, m jsonb NOT NULL, copy jsonb) PARTITION BY RANGE (id);
         CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (0) TO (1000);
         CREATE TABLE docs_2 (note text, copy jsonb, m jsonb NOT NULL, id int); ALTER TABLE docs_2 DROP note;
         ALTER TABLE docs ATTACH PARTITION docs_2 FOR VALUES FROM (1000) TO (2000);
         CREATE INDEX docs_m ON docs USING gin (m);
         INSERT INTO docs SELECT i, d, d FROM generate_series(0, 1999) i, LATERAL (SELECT jsonb_build_object('name', 'n' || i)) v (d)",
    );
    assert_eq!(client.state("CALL pgseal.encrypt_column('docs_1', 'm', 'k')"), "2BP01");
    client.run(ENCRYPT);
    assert_eq!(build_index(&mut client), 5);
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    client.run("SET enable_seqscan = off");
    assert_eq!(client.column::<i32>(r#"SELECT id FROM docs WHERE m @> '{"name": "n1500"}'"#), [1500]);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pg_inherits WHERE inhparent = 'docs_m'::regclass"), 2);
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}

#[test]
fn partitions_of_partitions_get_their_indexes_one_by_one() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k', ARRAY['$.name']); CREATE SCHEMA parts;
         CREATE TABLE docs (id int, m jsonb, copy jsonb) PARTITION BY RANGE (id);
         CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (0) TO (1000) PARTITION BY LIST (id);
         CREATE TABLE parts.docs_1_5 PARTITION OF docs_1 FOR VALUES IN (5); CREATE TABLE docs_1_x PARTITION OF docs_1 DEFAULT;
         CREATE TABLE docs_2 PARTITION OF docs DEFAULT; CREATE INDEX docs_m ON docs USING gin (m);
         INSERT INTO docs SELECT i, d, d FROM generate_series(0, 1200) i, LATERAL (SELECT jsonb_build_object('name', 'n' || i)) v (d)",
    );
    client.run(ENCRYPT);
    let commands: Vec<String> = client.column("SELECT pgseal.migration_commands('docs', 'm')");
    let plain: Vec<&String> = commands
        .iter()
        .filter(|c| c.starts_with("CREATE") && !c.contains("CONCURRENTLY") && !c.contains(" ONLY "))
        .collect();
    assert!(plain.is_empty(), "{plain:?}");
    assert_eq!(build_index(&mut client), 9);
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pg_partition_tree('docs_m') JOIN pg_index ON indexrelid = relid WHERE indisvalid"), 5);
}

/// How many calls wait for a lock.
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock'";

#[test]
fn a_partition_attached_meanwhile_is_filled_by_the_next_call() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run(
        "SELECT pgseal.create_keyring('k');
     CREATE TABLE docs (id int, m jsonb, copy jsonb) PARTITION BY RANGE (id);
     CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (0) TO (1000);
     INSERT INTO docs VALUES (1, '{}', '{}')",
    );
    let mut writer = cluster.connect("postgres");
    let mut caller = cluster.connect("postgres");
    client.run("CALL pgseal.encrypt_column('docs', 'm', 'k', dry_run => true)");
    client.run("CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END'");
    client.run("CREATE TRIGGER gate BEFORE UPDATE ON docs_1 FOR EACH ROW EXECUTE FUNCTION gate()");
    writer.run("SELECT pg_advisory_lock(1)");
    let call = thread::spawn(move || caller.batch_execute(ENCRYPT).err());
    wait_for("the fill", Duration::from_secs(60), || client.one::<i64>(WAITING) == 1);
    client.run(
        r#"CREATE TABLE late (LIKE docs); INSERT INTO late VALUES (1000, '{"late": 1}', '{"late": 1}');
       ALTER TABLE docs ATTACH PARTITION late FOR VALUES FROM (1000) TO (2000)"#,
    );
    writer.run("SELECT pg_advisory_unlock(1)");
    let error = call.join().unwrap().expect("rows of the new partition are not filled");
    assert_eq!(error.code().map(|code| code.code()), Some("XX001"));
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
}

#[test]
fn a_default_isolation_level_does_not_end_it_when_others_write() {
    let cluster = Cluster::with_pgseal(&["default_transaction_isolation = 'repeatable read'"]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 10);
    let mut writer = cluster.connect("postgres");
    let mut caller = cluster.connect("postgres");
    client.run("CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END'");
    client.run(
        "CREATE TRIGGER gate BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION gate()",
    );
    writer.run("SELECT pg_advisory_lock(1)");
    let call = thread::spawn(move || caller.batch_execute(ENCRYPT));
    wait_for("the fill", Duration::from_secs(60), || client.one::<i64>(WAITING) == 1);
    client.run(r#"UPDATE docs SET m = '{"a": 1}', copy = '{"a": 1}' WHERE id = 2"#);
    writer.run("SELECT pg_advisory_unlock(1)");
    call.join().unwrap().unwrap();
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
}

#[test]
fn a_second_one_at_the_same_time_is_told_and_leaves_nothing() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 10);
    let mut reader = cluster.connect("postgres");
    reader.run("BEGIN; SELECT count(*) FROM docs");
    let calls = [(); 2].map(|()| {
        let mut caller = cluster.connect("postgres");
        thread::spawn(move || caller.batch_execute(ENCRYPT).err())
    });
    wait_for("both", Duration::from_secs(60), || client.one::<i64>(WAITING) == 2);
    reader.run("COMMIT");
    let errors = calls.map(|call| call.join().unwrap());
    let codes: Vec<_> = errors.iter().flatten().map(|error| error.code().map(|code| code.code())).collect();
    assert_eq!(codes, [Some("55006")]);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}

#[test]
fn a_table_that_moves_to_another_schema_halfway_goes_on_or_back() {
    let mut client = database();
    client.run(
        "CREATE INDEX docs_m ON docs USING gin (m); CREATE SCHEMA other; SET search_path = public, other",
    );
    client.run(ENCRYPT);
    client.run("ALTER TABLE docs SET SCHEMA other");
    client.run("SELECT pgseal.abandon_migration('docs', 'm')");
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
    client.run(ENCRYPT);
    client.run("ALTER TABLE docs SET SCHEMA public");
    build_index(&mut client);
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}
