//! Physical standbys, which read with credentials of their own and write nothing, and logical subscribers, which have
//! keys of their own or none.

use std::thread;
use std::time::Duration;

use postgres::Client;

use crate::support::{Cluster, OpenBao, Sql, lacks, run, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const ROWS: i64 = 400;
const RIGHT: &str = "SELECT count(*) FROM docs WHERE pgseal.decrypt(m) = plain";
const FOUND: &str = r#"SELECT count(*) FROM docs WHERE m @> '{"name": "n3"}'"#;
const MARK: &str = "canary-of-replication";

/// A keyring, and rows beside what they hold.
fn fill(client: &mut Client) {
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name'])");
    client.run("CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), plain jsonb); CREATE INDEX docs_m ON docs USING gin (m)");
    client.run(&format!(
        "INSERT INTO docs SELECT i, d, d FROM generate_series(1, {ROWS}) i,
            LATERAL (SELECT jsonb_build_object('name', 'n' || i % 10, 'note', 'note ' || i)) made (d)"
    ));
}

fn answers(client: &mut Client) -> (i64, i64) {
    (client.one(RIGHT), client.one(FOUND))
}

const ALL: (i64, i64) = (ROWS, ROWS / 10);

#[test]
fn a_standby_filters_and_decrypts_with_credentials_of_its_own() {
    let bao = OpenBao::start();
    bao.create_key("pgseal");
    bao.allow("pgseal");
    let endpoint = format!("pgseal.kms_endpoint = '{}'", bao.endpoint());
    let primary = Cluster::start(&[&endpoint, "session_preload_libraries = 'pgseal'"]);
    let token_file = |cluster: &Cluster, token: &str| {
        let path = cluster.write("token", token);
        format!("pgseal.kms_token_file = '{}'", path.display())
    };
    let own = token_file(&primary, &bao.token("pgseal"));
    primary.connect("postgres").run(&format!("ALTER SYSTEM SET {own}"));
    primary.restart();
    let mut client = primary.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE");
    fill(&mut client);

    let standby = primary.base_backup(&["--write-recovery-conf"]);
    let token = bao.token("pgseal");
    let own = token_file(&standby, &token);
    let settings = std::fs::read_to_string(standby.data_dir().join("postgresql.auto.conf")).unwrap();
    standby.write("data/postgresql.auto.conf", &format!("{settings}{own}\n"));
    standby.start_again();
    let mut replica = standby.connect("postgres");
    assert_eq!(answers(&mut replica), ALL);
    replica.run("SET enable_seqscan = off");
    let plan = replica.column::<String>(&format!("EXPLAIN {FOUND}")).join("\n");
    assert!(plan.contains("docs_m"), "{plan}");
    assert!(replica.one::<bool>("SELECT works FROM pgseal.check_kms('k')"));

    let mut other = standby.connect("postgres");
    assert_eq!(answers(&mut other), ALL);
    bao.revoke(&token);
    assert_eq!(answers(&mut other), ALL, "its keys are cached");
    replica.run("SELECT pgseal.flush_keys()");
    for session in [&mut replica, &mut other] {
        assert_eq!(session.state(RIGHT), "28000", "its own credentials are gone");
    }
    client.run("SELECT pgseal.flush_keys()");
    assert_eq!(answers(&mut client), ALL, "the primary has others");
}

#[test]
fn a_standby_refuses_writes_and_says_that_it_is_read_only() {
    let primary = Cluster::with_pgseal(&[]);
    let mut client = primary.connect("postgres");
    fill(&mut client);
    client.run("CREATE TABLE old (m jsonb); SELECT pgseal.rotate_key('k')");
    let exported: String = client.one("SELECT quote_literal(pgseal.export_keyring('k')::text)");
    let standby = primary.standby("");
    let mut replica = standby.connect("postgres");
    standby.catch_up(&mut client);
    for command in [
        "SELECT pgseal.create_keyring('other')",
        "SELECT pgseal.rotate_key('k')",
        "SELECT pgseal.rotate_index_key('k')",
        "SELECT pgseal.set_searchable('k', ARRAY['$.note'])",
        "SELECT pgseal.retire_key('k', 1)",
        "SELECT pgseal.rewrap_keys('k')",
        "SELECT pgseal.drop_keyring('k')",
        "SELECT pgseal.grant_keyring('k', 'public', ARRAY['search'])",
        &format!("SELECT pgseal.import_keyring({exported}::json)"),
        "SELECT pgseal.register_manifest('m')",
        "CALL pgseal.reencrypt('docs', 'm')",
        "CALL pgseal.reencrypt('docs', 'm', rotation => 'in_place')",
        "CALL pgseal.encrypt_column('old', 'm', keyring => 'k')",
        "CALL pgseal.decrypt_column('docs', 'm')",
        "INSERT INTO docs VALUES (0, '{}', '{}')",
    ] {
        assert_eq!(replica.state(command), "25006", "{command}");
    }
    // What only reads, works: proof too.
    let verdicts = "SELECT format('%s %s', result, number_of_values) FROM pgseal.verify('docs', 'm')";
    assert_eq!(replica.column::<String>(verdicts), [format!("authentic {ROWS}")]);
    assert_eq!(
        replica.one::<i64>("SELECT sum(number_of_values)::int8 FROM pgseal.key_usage('docs', 'm')"),
        ROWS
    );
    assert!(replica.one::<i64>("SELECT count(*) FROM pgseal.audit()") > 0);
    assert!(replica.one::<String>("SELECT pgseal.evidence('docs')::text").contains("authentic"));
    assert!(replica.one::<i64>("SELECT count(*) FROM pgseal.backup_manifest()") > 0);
    assert_eq!(answers(&mut replica), ALL);
}

#[test]
fn rotations_on_the_primary_reach_open_sessions_of_a_standby() {
    let primary = Cluster::with_pgseal(&["shared_preload_libraries = 'pgseal'"]);
    let mut client = primary.connect("postgres");
    fill(&mut client);
    let standby = primary.standby("");
    let mut replica = standby.connect("postgres");
    for plans in ["auto", "force_generic_plan"] {
        replica.run(&format!("SET plan_cache_mode = {plans}"));
        let document = "CAST($1::text AS jsonb)";
        let filter = replica.prepare(&format!("SELECT count(*) FROM docs WHERE m @> {document}")).unwrap();
        let literal = replica.prepare(FOUND).unwrap();
        let check = |replica: &mut Client, when: &str| {
            let found: i64 = replica.query_one(&filter, &[&r#"{"name": "n3"}"#]).unwrap().get(0);
            let same: i64 = replica.query_one(&literal, &[]).unwrap().get(0);
            assert_eq!((replica.one(RIGHT), found, same), (ALL.0, ALL.1, ALL.1), "{when}, {plans}");
        };
        check(&mut replica, "before");
        for (rotation, step) in [
            ("rotate_key", "CALL pgseal.reencrypt('docs', 'm')"),
            ("rotate_key", "CALL pgseal.reencrypt('docs', 'm', rotation => 'in_place')"),
            ("rotate_index_key", "CALL pgseal.reencrypt('docs', 'm')"),
        ] {
            client.run(&format!("SELECT pgseal.{rotation}('k')"));
            standby.catch_up(&mut client);
            check(&mut replica, rotation);
            client.run("UPDATE docs SET m = plain WHERE id % 7 = 0");
            client.run(step);
            standby.catch_up(&mut client);
            check(&mut replica, step);
        }
        let old = "SELECT max(version) - 1 FROM pgseal.keys WHERE purpose = 'data'";
        let version: i32 = client.one(old);
        client.run(&format!("SELECT pgseal.retire_key('k', {version})"));
        standby.catch_up(&mut client);
        let state = format!("SELECT state FROM pgseal.keys WHERE purpose = 'data' AND version = {version}");
        assert_eq!(replica.one::<String>(&state), "retired");
        check(&mut replica, "retired");
    }
}

#[test]
fn a_rotation_goes_on_at_a_standby_promoted_in_its_midst() {
    for rotation in ["update", "in_place"] {
        let primary = Cluster::with_pgseal(&[]);
        let mut client = primary.connect("postgres");
        fill(&mut client);
        client.run("SELECT pgseal.rotate_key('k')");
        let standby = primary.standby("");
        let mut replica = standby.connect("postgres");
        let call = format!("CALL pgseal.reencrypt('docs', 'm', batch_size => 20, rotation => '{rotation}'");
        let old = "SELECT count(*) FROM docs WHERE pgseal.key_version(m) = 1";
        thread::scope(|scope| {
            let mut worker = primary.connect("postgres");
            scope.spawn(move || worker.batch_execute(&format!("{call}, max_rate => 100)")).is_err());
            wait_for("a part of the rotation at the standby", LIMIT, || {
                (1..ROWS).contains(&replica.one(old))
            });
            primary.kill();
        });
        standby.promote();
        let mut client = standby.connect("postgres");
        let left: i64 = client.one(old);
        assert!((1..ROWS).contains(&left), "{left} are left, {rotation}");
        client.run(&format!("CALL pgseal.reencrypt('docs', 'm', rotation => '{rotation}')"));
        assert_eq!((client.one::<i64>(old), answers(&mut client)), (0, ALL));
        client.run("SELECT pgseal.retire_key('k', 1)");
        assert_eq!(answers(&mut client), ALL);
    }
}

/// A publisher with a publication of docs, and a subscriber's table of the same columns there, empty.
fn publisher() -> (Cluster, Client) {
    let cluster = Cluster::with_pgseal(&["wal_level = logical"]);
    let mut client = cluster.connect("postgres");
    fill(&mut client);
    client.run("CREATE PUBLICATION p FOR TABLE docs");
    (cluster, client)
}

fn subscribe(subscriber: &mut Client, publisher: &Cluster, name: &str, binary: bool) {
    let host = publisher.socket_dir().display();
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION {name} CONNECTION 'host={host} user=postgres dbname=postgres' PUBLICATION p WITH (binary = {binary})"
    ));
}

/// Waits until `client` counts as many rows of docs as `expected`, by `sql`.
fn arrives(client: &mut Client, sql: &str, expected: i64) {
    wait_for(sql, LIMIT, || client.query_one(sql, &[]).is_ok_and(|row| row.get::<_, i64>(0) == expected));
}

const TABLE: &str = "CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), plain jsonb); CREATE INDEX docs_m ON docs USING gin (m)";

#[test]
fn a_subscriber_with_the_keyring_reads_and_rotates_for_itself() {
    for binary in [false, true] {
        let (publisher, mut client) = publisher();
        let exported: String = client.one("SELECT quote_literal(pgseal.export_keyring('k')::text)");
        let conf = format!("pgseal.kms_endpoint = 'file://{}'", publisher.key_dir().display());
        let subscriber = Cluster::with_pgseal(&[&conf]);
        let mut replica = subscriber.connect("postgres");
        replica.run(&format!("SELECT pgseal.import_keyring({exported}::json)"));
        replica.run(TABLE);
        subscribe(&mut replica, &publisher, "s", binary);
        arrives(&mut replica, "SELECT count(*) FROM docs", ROWS);
        assert_eq!(answers(&mut replica), ALL, "initial copy, binary {binary}");

        client.run(r#"UPDATE docs SET m = '{"name": "n3"}'::jsonb, plain = '{"name": "n3"}' WHERE id = 1; DELETE FROM docs WHERE id = 3"#);
        arrives(&mut replica, "SELECT count(*) FROM docs", ROWS - 1);
        assert_eq!(answers(&mut replica), (ROWS - 1, ROWS / 10), "changes");

        // New keys travel by another export; rows that are encrypted anew by UPDATE arrive as such.
        client.run("SELECT pgseal.rotate_key('k')");
        let exported: String = client.one("SELECT quote_literal(pgseal.export_keyring('k')::text)");
        replica.run(&format!("SELECT pgseal.import_keyring({exported}::json)"));
        client.run("CALL pgseal.reencrypt('docs', 'm')");
        let version = |version| format!("SELECT count(*) FROM docs WHERE pgseal.key_version(m) = {version}");
        arrives(&mut replica, &version(2), ROWS - 1);
        assert_eq!(answers(&mut replica), (ROWS - 1, ROWS / 10), "rotation by update");

        // In place nothing is published: the subscriber keeps its bytes until it renews them itself.
        client.run("SELECT pgseal.rotate_key('k')");
        let exported: String = client.one("SELECT quote_literal(pgseal.export_keyring('k')::text)");
        replica.run(&format!("SELECT pgseal.import_keyring({exported}::json)"));
        client.run("CALL pgseal.reencrypt('docs', 'm', rotation => 'in_place')");
        client.run("INSERT INTO docs VALUES (0, '{}', '{}')");
        arrives(&mut replica, "SELECT count(*) FROM docs WHERE id = 0", 1);
        assert_eq!(client.one::<i64>(&version(3)), ROWS);
        assert_eq!((replica.one::<i64>(&version(2)), replica.one::<i64>(&version(3))), (ROWS - 1, 1));
        replica.run("CALL pgseal.reencrypt('docs', 'm', rotation => 'in_place')");
        assert_eq!((replica.one::<i64>(&version(3)), answers(&mut replica)), (ROWS, (ROWS, ROWS / 10)));
        replica.run("DROP SUBSCRIPTION s");
    }
}

#[test]
fn a_subscriber_without_keys_stores_and_reads_once_it_has_them() {
    let (publisher, mut client) = publisher();
    let keyring: i32 = client.one("SELECT id FROM pgseal.keyring");
    let conf = format!("pgseal.kms_endpoint = 'file://{}'", publisher.key_dir().display());
    let subscriber = Cluster::with_pgseal(&[&conf]);
    let mut replica = subscriber.connect("postgres");
    // As pg_dump writes it for a keyring that this database does not know.
    replica.run(&TABLE.replace("(k)", &format!("({keyring})")));
    subscribe(&mut replica, &publisher, "s", false);
    arrives(&mut replica, "SELECT count(*) FROM docs", ROWS);
    client.run("UPDATE docs SET plain = plain WHERE id < 10; DELETE FROM docs WHERE id = 3");
    arrives(&mut replica, "SELECT count(*) FROM docs", ROWS - 1);
    replica.run("REINDEX TABLE docs");
    replica.run("VACUUM ANALYZE docs");
    let error = replica.error(RIGHT);
    assert_eq!(error.code().code(), "42704", "{error:?}");
    let exported: String = client.one("SELECT quote_literal(pgseal.export_keyring('k')::text)");
    replica.run(&format!("SELECT pgseal.import_keyring({exported}::json)"));
    assert_eq!(answers(&mut replica), (ROWS - 1, ROWS / 10 - 1));
    replica.run("DROP SUBSCRIPTION s");
}

#[test]
fn published_vectors_arrive_as_text_and_in_binary_form() {
    let publisher = Cluster::with_pgseal(&["wal_level = logical"]);
    let mut client = publisher.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k')");
    const VECTORS: &str = "CREATE TABLE docs (id int PRIMARY KEY, e encrypted_vector(k, 2))";
    client.run(VECTORS);
    client.run("CREATE PUBLICATION p FOR TABLE docs");
    let exported: String = client.one("SELECT quote_literal(pgseal.export_keyring('k')::text)");
    let right = "SELECT count(*) FROM docs WHERE e <-> ARRAY[id, 1]::real[]::vector = 0";
    for (binary, name) in [(false, "as_text"), (true, "as_binary")] {
        client.run("TRUNCATE docs; INSERT INTO docs SELECT i, ARRAY[i, 1] FROM generate_series(1, 10) i");
        let conf = format!("pgseal.kms_endpoint = 'file://{}'", publisher.key_dir().display());
        let subscriber = Cluster::with_pgseal(&[&conf]);
        let mut replica = subscriber.connect("postgres");
        replica.run(&format!("SELECT pgseal.import_keyring({exported}::json)"));
        replica.run(VECTORS);
        subscribe(&mut replica, &publisher, name, binary);
        arrives(&mut replica, right, 10);
        client.run("INSERT INTO docs VALUES (11, ARRAY[11, 1]); UPDATE docs SET id = 12, e = '[12,1]'::vector WHERE id = 2");
        arrives(&mut replica, right, 11);
        replica.run(&format!("DROP SUBSCRIPTION {name}"));
    }
}

#[test]
fn a_column_of_another_keyring_refuses_and_loses_no_values() {
    let (publisher, mut client) = publisher();
    let subscriber = Cluster::with_pgseal(&[]);
    let mut replica = subscriber.connect("postgres");
    replica.run("SELECT pgseal.create_keyring('own', ARRAY['$.name'])");
    replica.run(&TABLE.replace("(k)", "(own)"));
    subscribe(&mut replica, &publisher, "s", false);
    wait_for("an error in the subscriber's log", LIMIT, || {
        subscriber.log().contains("the column to keyring \"own\"")
    });
    assert_eq!(replica.one::<i64>("SELECT count(*) FROM docs"), 0);
    // Once the column takes any keyring's values, all of them arrive.
    replica.run("ALTER TABLE docs DROP COLUMN m; ALTER TABLE docs ADD COLUMN m encrypted_jsonb");
    arrives(&mut replica, "SELECT count(*) FROM docs", ROWS);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs"), ROWS);
    replica.run("DROP SUBSCRIPTION s");
}

#[test]
fn rows_without_a_key_are_found_by_equal_bytes() {
    let (publisher, mut client) = publisher();
    client.run("ALTER TABLE docs DROP CONSTRAINT docs_pkey, REPLICA IDENTITY FULL");
    let subscriber = Cluster::with_pgseal(&[]);
    let mut replica = subscriber.connect("postgres");
    // It has no keyring, and needs none.
    replica.run(&TABLE.replace("(k)", "").replace(" PRIMARY KEY", ""));
    subscribe(&mut replica, &publisher, "s", false);
    arrives(&mut replica, "SELECT count(*) FROM docs", ROWS);
    client.run("DELETE FROM docs WHERE id = 5; UPDATE docs SET id = 1000 WHERE id = 6");
    arrives(&mut replica, "SELECT count(*) FROM docs", ROWS - 1);
    arrives(&mut replica, "SELECT count(*) FROM docs WHERE id = 1000", 1);
    replica.run("DROP SUBSCRIPTION s");
}

#[test]
fn what_logical_decoding_prints_is_ciphertext() {
    if lacks("test_decoding") {
        return;
    }
    let (publisher, mut client) = publisher();
    client.run("ALTER TABLE docs DROP COLUMN plain; ALTER TABLE docs REPLICA IDENTITY FULL");
    client.run("SELECT pg_create_logical_replication_slot('slot', 'test_decoding')");
    client.run(&format!(
        r#"INSERT INTO docs VALUES (1000, '{{"name": "{MARK}"}}'); UPDATE docs SET m = '{{"note": "{MARK}"}}' WHERE id = 1000; DELETE FROM docs WHERE id = 1000"#
    ));
    client.run(&format!("CREATE TABLE control (t text); INSERT INTO control VALUES ('{MARK}')"));
    let mut receive = publisher.program("pg_recvlogical", "postgres");
    receive.args(["--dbname=postgres", "--slot=slot", "--start", "--no-loop", "--file=-"]);
    let end: String = client.one("SELECT pg_current_wal_lsn()::text");
    let printed = run(receive.arg(format!("--endpos={end}")));
    let (lines, control): (Vec<&str>, Vec<&str>) =
        printed.lines().partition(|line| !line.contains("public.control"));
    assert!(lines.iter().filter(|line| line.contains("pgseal:")).count() >= 3, "{printed}");
    assert!(lines.iter().all(|line| !line.contains(MARK)), "{printed}");
    assert!(control.iter().any(|line| line.contains(MARK)), "the control is found");
}

#[test]
fn a_publications_row_filter_cannot_use_an_encrypted_column() {
    let (_publisher, mut client) = publisher();
    // PostgreSQL allows no types and operators but its own there.
    for filter in [r#"m @> '{"name": "n3"}'"#, "m ->> 'name' = 'n3'", "(pgseal.decrypt(m) ->> 'name') = 'n3'"]
    {
        let state = client.state(&format!("CREATE PUBLICATION q FOR TABLE docs WHERE ({filter})"));
        assert!(["0A000", "42P17"].contains(&state.as_str()), "{filter}: {state}");
    }
}
