//! Keyrings that move between databases, backups that know their keys, and restores of every kind, with and without the KMS.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use postgres::Client;
use serde_json::{Value, json};

use crate::support::{Cluster, Sql, as_server, fresh_database, run, wait_for};

const READ: &str = "SELECT count(*) FROM docs WHERE pgseal.decrypt(m) ->> 'name' = 'n' || id AND pgseal.decrypt(t) = 't' || id";
const SEARCH: &str = r#"SELECT count(*) FROM docs WHERE m @> '{"name": "n7"}'"#;
const KEYS: &str = "SELECT string_agg(k::text, ' ' ORDER BY k::text) FROM pgseal.keys k";
const ROWS: i64 = 200;

/// What is done to an exported keyring before it is imported.
type Change<'a> = &'a dyn Fn(&mut Value);

/// Rows under two data keys, in a table of a role that is no superuser.
fn site() -> Cluster {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run("CREATE ROLE docs_owner LOGIN; GRANT CREATE ON SCHEMA public TO docs_owner; SELECT pgseal.create_keyring('k', ARRAY['$.name'])");
    client.run("SELECT pgseal.grant_keyring('k', 'docs_owner', ARRAY['encrypt', 'search', 'decrypt']); SET ROLE docs_owner");
    client.run("CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), t encrypted_text(k)); CREATE INDEX ON docs USING gin (m)");
    let insert =
        "INSERT INTO docs SELECT i, jsonb_build_object('name', 'n' || i), 't' || i FROM generate_series";
    client.run(&format!("{insert}(1, 100) i"));
    client.run("RESET ROLE; SELECT pgseal.rotate_key('k')");
    client.run(&format!("SET ROLE docs_owner; {insert}(101, {ROWS}) i"));
    cluster
}

/// Another server, which reaches the first one's KMS or not.
fn other(first: &Cluster, kms: bool) -> Cluster {
    let keys = if kms { first.key_dir() } else { Path::new("/nowhere").to_owned() };
    Cluster::start(&[&format!("pgseal.kms_endpoint = 'file://{}'", keys.display())])
}

fn answers(client: &mut Client) {
    assert_eq!((client.one::<i64>(READ), client.one::<i64>(SEARCH)), (ROWS, 1));
}

/// pg_dump into a file or folder that both servers' user may read.
fn dump(cluster: &Cluster, role: &str, arguments: &[&str]) -> String {
    let path = cluster.socket_dir().join("dump").display().to_string();
    run(as_server("rm").args(["-rf", &path]));
    let bin = cluster.program("pg_dump", role);
    let mut command = as_server(bin.get_program());
    command
        .args(["-d", "postgres", "-U", role, "-h"])
        .arg(cluster.socket_dir())
        .args(["-f", &path])
        .args(arguments);
    run(&mut command);
    path
}

fn restore(cluster: &Cluster, path: &str, plain: bool) {
    let (name, file) = if plain { ("psql", "-f") } else { ("pg_restore", "-e") };
    let mut command = as_server(cluster.program(name, "postgres").get_program());
    command.args(["-d", "postgres", "-U", "postgres", "-h"]).arg(cluster.socket_dir());
    if plain {
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]);
    }
    run(command.arg(file).arg(path));
}

fn export(client: &mut Client) -> Value {
    serde_json::from_str(&client.one::<String>("SELECT pgseal.export_keyring('k')::text")).unwrap()
}

fn import(exported: &Value) -> String {
    format!("SELECT pgseal.import_keyring('{exported}')")
}

#[test]
fn a_table_moves_to_another_server_with_its_keyring() {
    let first = site();
    let exported = export(&mut first.connect("postgres"));
    let path = dump(&first, "docs_owner", &["-t", "docs", "--no-owner"]);
    for keyring_first in [true, false] {
        let second = other(&first, true);
        let mut client = second.connect("postgres");
        client.run("CREATE EXTENSION pgseal CASCADE; SELECT pgseal.create_keyring('other')");
        if keyring_first {
            client.run(&import(&exported));
            restore(&second, &path, true);
        } else {
            restore(&second, &path, true);
            assert_eq!(client.state("SELECT pgseal.decrypt(m) FROM docs"), "42704");
            client.run(&import(&exported));
        }
        answers(&mut client);
        // Both servers go on with the same keys.
        client.run(r#"INSERT INTO docs VALUES (1000, '{"name": "n1000"}'::jsonb, 't1000'::text)"#);
        assert_eq!(client.one::<String>("SELECT string_agg(name, ' ' ORDER BY name) FROM pgseal.keyrings WHERE is_default OR name = 'k'"), "k other");
    }
}

#[test]
fn wrapped_keys_alone_are_exported() {
    let first = site();
    let mut client = first.connect("postgres");
    let exported = export(&mut client);
    let wrapped: String = client.one("SELECT encode(wrapped, 'hex') FROM pgseal.data_key WHERE version = 2");
    assert_eq!(exported["data_keys"][1]["wrapped"], wrapped);
    let fields: Vec<&String> = exported["index_keys"][0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["commitment", "created", "policy", "retired", "state", "version", "wrapped"]);
    assert_eq!(client.state("SELECT pgseal.export_keyring('none')"), "42704");
}

#[test]
fn a_merge_only_moves_forward() {
    let first = site();
    let second = other(&first, true);
    let (mut one, mut two) = (first.connect("postgres"), second.connect("postgres"));
    two.run("CREATE EXTENSION pgseal CASCADE");
    let old = export(&mut one);
    two.run(&import(&old));
    let keys: String = two.one(KEYS);
    two.run(&import(&old));
    assert_eq!(two.one::<String>(KEYS), keys, "the same twice");

    // The first goes on: the second learns of it.
    one.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_index_key('k')");
    let new = export(&mut one);
    two.run(&import(&new));
    assert_eq!(two.one::<String>(KEYS), one.one::<String>(KEYS));
    // An older export takes nothing back, into neither.
    for client in [&mut one, &mut two] {
        client.run(&import(&old));
    }
    assert_eq!(two.one::<String>(KEYS), one.one::<String>(KEYS));
    assert_eq!(two.one::<i64>("SELECT count(*) FROM pgseal.keys WHERE state = 'active'"), 2);

    // What is retired there is not retired here, where rows may need it, and what is retired here stays so.
    one.run("SET ROLE docs_owner");
    one.run("CALL pgseal.reencrypt('docs', 'm')");
    one.run("CALL pgseal.reencrypt('docs', 't')");
    one.run("RESET ROLE; SELECT pgseal.retire_key('k', 1)");
    let retired = export(&mut one);
    two.run(&import(&retired));
    let state = "SELECT state FROM pgseal.keys WHERE purpose = 'data' AND version = 1";
    assert_eq!(two.one::<String>(state), "decrypt-only");
    one.run(&import(&new));
    assert_eq!(one.one::<String>(state), "retired");

    // A database that lost its newest versions gets older ones back as such only.
    two.run("DELETE FROM pgseal.data_key WHERE version = 1");
    let mut forged = old.clone();
    forged["data_keys"].as_array_mut().unwrap().truncate(1);
    forged["data_keys"][0]["state"] = json!("active");
    two.run(&import(&forged));
    assert_eq!(two.one::<String>(state), "decrypt-only");

    // New here, whatever the state there.
    let third = other(&first, true);
    let mut three = third.connect("postgres");
    three.run("CREATE EXTENSION pgseal CASCADE");
    three.run(&import(&retired));
    assert_eq!(three.one::<String>(KEYS), one.one::<String>(KEYS));
}

#[test]
fn a_conflict_is_refused_before_anything_is_written() {
    let first = site();
    let second = other(&first, true);
    let (mut one, mut two) = (first.connect("postgres"), second.connect("postgres"));
    two.run("CREATE EXTENSION pgseal CASCADE");
    let exported = export(&mut one);
    two.run(&import(&exported));
    let everything = "SELECT concat((SELECT json_agg(k) FROM pgseal.keyring k), (SELECT json_agg(d) FROM pgseal.data_key d), (SELECT json_agg(i) FROM pgseal.index_key i),
                                    (SELECT json_agg(p) FROM pgseal.privilege p))";
    let before: String = two.one(everything);

    let changed = |change: Change<'_>| {
        let mut value = exported.clone();
        change(&mut value);
        import(&value)
    };
    let uuid = exported["uuid"].as_str().unwrap();
    let twin = format!("{}{}", &uuid[..35], if uuid.ends_with('0') { '1' } else { '0' });
    let cases: [(&str, Change<'_>, &str); 13] = [
        ("another uuid under the same id", &|v| v["uuid"] = json!(twin), "42710"),
        ("an id that is not the uuid's", &|v| v["id"] = json!(5), "22023"),
        (
            "a contradicting commitment",
            &|v| v["data_keys"][1]["commitment"] = json!("00".repeat(32)),
            "42710",
        ),
        (
            "a contradicting index key",
            &|v| v["index_keys"][0]["commitment"] = json!("00".repeat(32)),
            "42710",
        ),
        (
            "another policy of the same version",
            &|v| v["index_keys"][0]["policy"] = json!({"v": 1, "paths": []}),
            "42710",
        ),
        ("a short commitment", &|v| v["data_keys"][0]["commitment"] = json!("00"), "22023"),
        ("no wrapped key", &|v| v["data_keys"][0]["wrapped"] = Value::Null, "22023"),
        ("no hexadecimal digits", &|v| v["data_keys"][0]["wrapped"] = json!("xyz"), "22023"),
        ("two active keys", &|v| v["data_keys"][0]["state"] = json!("active"), "22023"),
        ("a version twice", &|v| v["data_keys"][0]["version"] = json!(2), "22023"),
        ("version 0", &|v| v["data_keys"][0]["version"] = json!(0), "22023"),
        ("no index keys", &|v| v["index_keys"] = json!([]), "22023"),
        ("another format", &|v| v["pgseal_keyring"] = json!(2), "22023"),
    ];
    for (what, change, state) in cases {
        assert_eq!(two.state(&changed(change)), state, "{what}");
        assert_eq!(two.one::<String>(everything), before, "{what}");
    }
    // Both made a key of their own since they parted.
    one.run("SELECT pgseal.rotate_key('k')");
    two.run("SELECT pgseal.rotate_key('k')");
    let before: String = two.one(everything);
    assert_eq!(two.state(&import(&export(&mut one))), "42710");
    assert_eq!(two.one::<String>(everything), before);
    // The name is taken by another keyring.
    let third = other(&first, true);
    let mut three = third.connect("postgres");
    three.run("CREATE EXTENSION pgseal CASCADE; SELECT pgseal.create_keyring('k')");
    assert_eq!(three.state(&import(&exported)), "42710");
    three.run(&changed(&|v| v["name"] = json!("moved")));
    assert_eq!(three.column::<String>("SELECT name::text FROM pgseal.keyring ORDER BY name"), ["k", "moved"]);
}

#[test]
fn an_export_that_would_stop_a_keyring_is_refused() {
    let first = site();
    let second = other(&first, true);
    let (mut one, mut two) = (first.connect("postgres"), second.connect("postgres"));
    two.run("CREATE EXTENSION pgseal CASCADE; SELECT pgseal.create_keyring('own')");
    let exported = export(&mut one);
    let garbage = |version: u16| json!({"version": version, "state": "active", "wrapped": "00".repeat(60), "commitment": "00".repeat(32)});
    let next = |v: &mut Value, version: u16| {
        v["data_keys"][1]["state"] = json!("decrypt-only");
        v["data_keys"].as_array_mut().unwrap().push(garbage(version));
    };
    let cases: &[(&str, Change<'_>)] = &[
        ("the last version of all", &|v| next(v, 65_535)),
        ("a gap", &|v| next(v, 4)),
        ("a gap at the beginning", &|v| drop(v["data_keys"].as_array_mut().unwrap().remove(0))),
        ("an active key that the KMS does not open", &|v| next(v, 3)),
        ("an active key of another version", &|v| {
            v["data_keys"][1]["wrapped"] = v["data_keys"][0]["wrapped"].clone()
        }),
        ("an active key of the other purpose", &|v| {
            v["index_keys"][0]["wrapped"] = v["data_keys"][0]["wrapped"].clone()
        }),
        ("another commitment", &|v| v["data_keys"][1]["commitment"] = json!("ab".repeat(32))),
        ("another commitment of the index key", &|v| {
            v["index_keys"][0]["commitment"] = json!("ab".repeat(32))
        }),
        ("a number for paths", &|v| v["index_keys"][0]["policy"] = json!({"scheme": 1, "paths": 7})),
        ("a policy of another kind", &|v| v["index_keys"][0]["policy"] = json!([1])),
        ("a path that is none", &|v| v["index_keys"][0]["policy"]["paths"] = json!([{"path": "name"}])),
        ("an unknown option of a policy", &|v| v["index_keys"][0]["policy"]["x"] = json!(1)),
        ("an unknown state", &|v| v["data_keys"][0]["state"] = json!("lost")),
        ("a number for a name", &|v| v["name"] = json!(17)),
        ("a name that is a number", &|v| v["name"] = json!("17")),
        ("a name that would be cut", &|v| v["name"] = json!("x".repeat(64))),
        ("an object for a KMS key", &|v| v["kms_key"] = json!({"a": 1})),
        ("a list for an endpoint", &|v| v["kms_endpoint"] = json!([])),
        ("no uuid and no id", &|v| (v["uuid"], v["id"]) = (Value::Null, Value::Null)),
        ("keys that are no objects", &|v| v["data_keys"] = json!([1, 2])),
        ("an object of keys", &|v| v["index_keys"] = json!({"version": 1})),
        ("a version between two", &|v| v["data_keys"][0]["version"] = json!(1.5)),
        ("a date that is none", &|v| v["data_keys"][0]["created"] = json!("yesterday evening")),
        ("a list", &|v| *v = json!([v])),
        ("a number", &|v| *v = json!(1)),
    ];
    let everything = "SELECT concat((SELECT json_agg(k) FROM pgseal.keyring k), (SELECT json_agg(d) FROM pgseal.data_key d),
        (SELECT json_agg(i) FROM pgseal.index_key i))";
    let before: String = two.one(everything);
    for (what, change) in cases {
        let mut value = exported.clone();
        change(&mut value);
        assert!(two.batch_execute(&import(&value)).is_err(), "{what}");
        assert_eq!(two.one::<String>(everything), before, "{what}");
        assert_eq!(two.one::<i64>("SELECT count(*) FROM pgseal.keyrings"), 1, "{what}");
    }
    // The same where the keyring is known.
    two.run(&import(&exported));
    let before: String = two.one(everything);
    for (what, change) in cases {
        let mut value = exported.clone();
        change(&mut value);
        let _ = two.batch_execute(&import(&value));
        assert_eq!(two.one::<String>(everything), before, "{what}");
    }
    two.run("SELECT pgseal.rotate_key('k'); SELECT pgseal.encrypt('{}'::jsonb, 'k')");
}

#[test]
fn a_new_endpoint_is_for_superusers_whatever_a_role_set_before() {
    let first = site();
    let second = other(&first, true);
    let mut client = second.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE; CREATE ROLE key_admin LOGIN;
        GRANT EXECUTE ON FUNCTION pgseal.import_keyring(json), pgseal.create_keyring(text, text[], text, text, text) TO key_admin; GRANT pg_monitor TO key_admin");
    let mut elsewhere = export(&mut first.connect("postgres"));
    elsewhere["kms_endpoint"] = json!("vault+https://elsewhere.example/transit");
    // Before the library is there, a setting of its name is anybody's.
    let mine = "SET pgseal.kms_endpoint = 'vault+https://elsewhere.example/transit'";
    let create =
        "SELECT pgseal.create_keyring('e', kms_endpoint => 'vault+https://elsewhere.example/transit')";
    for call in [import(&elsewhere), create.to_owned()] {
        let mut admin = second.connect_as("key_admin", "postgres");
        admin.run(mine);
        assert_eq!(admin.state(&call), "42501", "{call}");
        assert_eq!(admin.state(&call), "42501", "again: {call}");
    }
    client.run("SELECT pgseal.create_keyring('own')");
    for shown in [
        "SELECT kms_endpoint FROM pgseal.backup_manifest() LIMIT 1",
        "SELECT kms_endpoint FROM pgseal.check_kms('own')",
        "SELECT CASE WHEN bool_or(finding LIKE '%wrapping key is a file%') THEN 'file:' ELSE 'none' END FROM pgseal.audit()",
    ] {
        let mut admin = second.connect_as("key_admin", "postgres");
        admin.run(mine);
        assert!(admin.one::<String>(shown).starts_with("file:"), "{shown}");
    }
}

#[test]
fn a_superuser_at_a_table_lends_its_owner_no_endpoint() {
    let first = site();
    let second = other(&first, true);
    let mut client = second.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE; CREATE ROLE key_admin LOGIN; GRANT CREATE ON SCHEMA public TO key_admin;
        GRANT EXECUTE ON FUNCTION pgseal.import_keyring(json), pgseal.create_keyring(text, text[], text, text, text) TO key_admin");
    let mut elsewhere = export(&mut first.connect("postgres"));
    elsewhere["kms_endpoint"] = json!("vault+https://elsewhere.example/transit");
    let create =
        "SELECT pgseal.create_keyring('e', kms_endpoint => 'vault+https://elsewhere.example/transit')";
    let mut admin = second.connect_as("key_admin", "postgres");
    for call in [import(&elsewhere), create.to_owned()] {
        admin.run(&format!(
            "CREATE TABLE trap (i int); INSERT INTO trap VALUES (1);
             CREATE FUNCTION spring(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN
                IF session_user <> 'key_admin' THEN EXECUTE $c${call}$c$; END IF; RETURN $1; END $f$;
             CREATE INDEX trapped ON trap (spring(i)); CREATE MATERIALIZED VIEW shown AS SELECT spring(1)"
        ));
        for care in ["ANALYZE trap", "REINDEX INDEX trapped", "REFRESH MATERIALIZED VIEW shown"] {
            let refused = client.error(care);
            assert!(refused.message().contains("new KMS endpoint"), "{care}: {refused:?}");
        }
        admin.run("DROP TABLE trap; DROP MATERIALIZED VIEW shown; DROP FUNCTION spring");
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), 0);
}

#[test]
fn who_may_export_and_import() {
    let first = site();
    let second = other(&first, true);
    let exported = export(&mut first.connect_as("docs_owner", "postgres"));
    let mut client = second.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE; CREATE ROLE key_admin LOGIN");
    let mut admin = second.connect_as("key_admin", "postgres");
    for call in [
        import(&exported),
        "SELECT pgseal.register_manifest('m')".into(),
        "SELECT pgseal.release_manifest('m')".into(),
    ] {
        assert_eq!(admin.state(&call), "42501", "{call}");
    }
    client.run("GRANT EXECUTE ON FUNCTION pgseal.import_keyring(json) TO key_admin");
    // Or the server's credentials could be sent anywhere.
    let mut elsewhere = exported.clone();
    elsewhere["kms_endpoint"] = json!("vault+https://elsewhere.example/transit");
    assert_eq!(admin.state(&import(&elsewhere)), "42501");
    admin.run(&import(&exported));
    let mine = "SELECT role::text FROM pgseal.privilege WHERE encrypt AND search AND decrypt";
    assert_eq!(client.column::<String>(mine), ["key_admin"]);
    assert_eq!(admin.one::<i64>("SELECT count(*) FROM pgseal.backup_manifest()"), 3);
}

#[test]
fn a_key_is_not_retired_while_a_registered_backup_needs_it() {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k'), pgseal.create_keyring('l', kms_key => 'other')");
    let manifest = "SELECT concat_ws(' ', keyring, purpose, version, kms_key, kms_endpoint LIKE 'file://%') FROM pgseal.backup_manifest()";
    assert_eq!(
        client.column::<String>(manifest),
        ["k data 1 pgseal t", "k index 1 pgseal t", "l data 1 other t", "l index 1 other t"]
    );
    assert_eq!(client.one::<i32>("SELECT pgseal.register_manifest('monday')"), 4);
    assert_eq!(client.state("SELECT pgseal.register_manifest('monday')"), "42710");
    client.run("SELECT pgseal.rotate_key('k')");
    assert_eq!(client.one::<i32>("SELECT pgseal.register_manifest('tuesday')"), 5);

    for backup in ["monday", "tuesday"] {
        let error = client.error("SELECT pgseal.retire_key('k', 1)");
        assert!(error.code().code() == "55000" && error.message().contains(backup), "{error}");
        client.run(&format!("SELECT pgseal.release_manifest('{backup}')"));
    }
    client.run("SELECT pgseal.retire_key('k', 1)");
    let error = client.error("SELECT pgseal.register_manifest('friday'); SELECT pgseal.drop_keyring('l')");
    assert!(error.code().code() == "55000" && error.message().contains("friday"), "{error}");
    // What is retired, no backup needs from now on.
    assert_eq!(client.one::<i32>("SELECT pgseal.register_manifest('wednesday')"), 4);
    assert_eq!(client.state("SELECT pgseal.release_manifest('monday')"), "42704");
}

#[test]
fn a_dump_of_every_format_is_restored_with_and_without_the_kms() {
    let first = site();
    first.connect("postgres").run("SELECT pgseal.register_manifest('the dump')");
    for (role, format) in
        [("postgres", "plain"), ("postgres", "custom"), ("postgres", "directory"), ("docs_owner", "custom")]
    {
        // The owner of a table cannot dump what belongs to others.
        let whose: &[&str] = if role == "postgres" { &[] } else { &["--no-owner", "--no-privileges"] };
        let path = dump(&first, role, &[&["-F", format], whose].concat());
        for kms in [true, false] {
            let second = other(&first, kms);
            let mut client = second.connect("postgres");
            client.run("CREATE ROLE docs_owner");
            restore(&second, &path, format == "plain");
            if !kms {
                // Everything is there, and is opened as soon as the KMS can be reached.
                assert_eq!(client.one::<i64>("SELECT count(*) FROM docs"), ROWS, "{role} {format}");
                assert_eq!(client.state("SELECT pgseal.decrypt(m) FROM docs"), "58030");
                client.run("LOAD 'pgseal'");
                client.run(&format!(
                    "ALTER SYSTEM SET pgseal.kms_endpoint = 'file://{}'",
                    first.key_dir().display()
                ));
                client.run("SELECT pg_reload_conf()");
                client = second.connect("postgres");
            }
            answers(&mut client);
            assert_eq!(client.one::<String>("SELECT name FROM pgseal.manifest"), "the dump");
        }
    }
}

#[test]
fn data_alone_is_restored_in_any_order() {
    let first = site();
    let path = dump(&first, "postgres", &["--data-only", "-t", "docs"]);
    let exported = export(&mut first.connect("postgres"));
    let id = exported["id"].as_i64().unwrap();
    for order in [["table", "rows", "keyring"], ["keyring", "table", "rows"], ["table", "keyring", "rows"]] {
        let second = other(&first, true);
        let mut client = second.connect("postgres");
        client.run("CREATE EXTENSION pgseal CASCADE");
        for step in order {
            match step {
                "table" => client.run(&format!("CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb({id}), t encrypted_text({id})); CREATE INDEX ON docs USING gin (m)")),
                "rows" => restore(&second, &path, true),
                _ => client.run(&import(&exported)),
            }
        }
        answers(&mut client);
    }
}

#[test]
fn a_base_backup_is_started_with_and_without_the_kms() {
    let first = site();
    for kms in [true, false] {
        let second = other(&first, kms);
        second.stop();
        run(as_server("rm").arg("-rf").arg(second.data_dir()));
        let program = first.program("pg_basebackup", "postgres");
        run(as_server(program.get_program())
            .args(["-U", "postgres", "-c", "fast", "-h"])
            .arg(first.socket_dir())
            .arg("-D")
            .arg(second.data_dir()));
        let keys = if kms { first.key_dir() } else { Path::new("/nowhere").to_owned() };
        second.write(
            "data/postgresql.conf",
            &format!("unix_socket_directories = '{}'\nlisten_addresses = ''\nfsync = off\npgseal.kms_endpoint = 'file://{}'\n", second.socket_dir().display(), keys.display()),
        );
        second.start_again();
        let mut client = second.connect("postgres");
        if kms {
            answers(&mut client)
        } else {
            assert_eq!(
                (client.one::<i64>("SELECT count(*) FROM docs"), client.state(READ).as_str()),
                (ROWS, "58030")
            )
        }
    }
}

#[test]
fn a_point_in_time_between_two_rotations_is_as_it_was() {
    let first = Cluster::start(&["wal_level = replica", "archive_mode = on", "archive_timeout = 0"]);
    let archive = first.socket_dir().join("archive").display().to_string();
    run(as_server("mkdir").arg(&archive));
    let mut client = first.connect("postgres");
    client.run(&format!("ALTER SYSTEM SET archive_command = 'cp %p {archive}/%f'"));
    client.run("SELECT pg_reload_conf(); CREATE EXTENSION pgseal CASCADE");
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.n'])");
    client.run(
        "CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k)); CREATE INDEX ON docs USING gin (m)",
    );
    let insert = "INSERT INTO docs SELECT i, jsonb_build_object('n', i) FROM generate_series";
    client.run(&format!("{insert}(1, 100) i"));
    let backups = [first.base_backup(&[]), first.base_backup(&[])];
    client.run("SELECT pgseal.rotate_key('k')");
    client.run(&format!("{insert}(101, 200) i"));
    client.run("CALL pgseal.reencrypt('docs', 'm', rotation => 'in_place')");
    client.run("SELECT pg_create_restore_point('between')");
    client.run("SELECT pgseal.rotate_key('k'), pgseal.create_keyring('later')");
    client.run(&format!("{insert}(201, 300) i"));
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    client.run("SELECT pgseal.retire_key('k', 1), pgseal.retire_key('k', 2)");
    let last: String = client.one("SELECT pg_walfile_name(pg_current_wal_lsn())");
    client.run("SELECT pg_switch_wal()");
    let archived = format!("SELECT coalesce(last_archived_wal, '') >= '{last}' FROM pg_stat_archiver");
    wait_for("the archive", Duration::from_secs(60), || client.one(&archived));

    let keys = "SELECT string_agg(concat_ws(' ', keyring, version, state), ', ' ORDER BY keyring, version) FROM pgseal.keys WHERE purpose = 'data'";
    let right = "SELECT count(*) FROM docs WHERE (pgseal.decrypt(m) ->> 'n')::int = id";
    let all = "k 1 retired, k 2 retired, k 3 active, later 1 active";
    let targets = [("recovery_target_name = 'between'", 200, "k 1 decrypt-only, k 2 active"), ("", 300, all)];
    for (backup, (target, rows, state)) in backups.iter().zip(targets) {
        backup.recover(&format!("restore_command = 'cp {archive}/%f %p'\narchive_mode = off\n{target}\n"));
        let mut restored = backup.connect("postgres");
        wait_for("the end of recovery", Duration::from_secs(60), || {
            !restored.one::<bool>("SELECT pg_is_in_recovery()")
        });
        assert_eq!((restored.one::<i64>(right), restored.one::<String>(keys).as_str()), (rows, state));
        restored.run("SET enable_seqscan = off");
        assert_eq!(restored.one::<i64>(r#"SELECT count(*) FROM docs WHERE m @> '{"n": 150}'"#), 1);
        restored.run("SELECT pgseal.rotate_key('k')");
        restored.run("CALL pgseal.reencrypt('docs', 'm')");
        assert_eq!(restored.one::<i64>(right), rows);
    }
}

#[test]
fn copy_in_every_format_takes_values_out_and_in_without_a_key() {
    let first = site();
    let mut client = first.connect("postgres");
    let exported = export(&mut client);
    let id = exported["id"].as_i64().unwrap();
    let second = other(&first, false);
    let mut target = second.connect("postgres");
    target.run("CREATE EXTENSION pgseal CASCADE");
    for format in ["text", "csv", "binary"] {
        target.run(&format!("DROP TABLE IF EXISTS docs; CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb({id}), t encrypted_text({id})); CREATE INDEX ON docs USING gin (m)"));
        let mut bytes = Vec::new();
        let copy = format!("COPY docs TO STDOUT (FORMAT {format})");
        client.copy_out(&copy).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(!bytes.windows(7).any(|part| part == b"\"name\":"), "{format}: ciphertext only");
        let mut writer = target.copy_in(&copy.replace("TO STDOUT", "FROM STDIN")).unwrap();
        writer.write_all(&bytes).unwrap();
        assert_eq!(writer.finish().unwrap(), ROWS as u64, "{format}");
        let digest = "SELECT md5(string_agg(concat_ws(' ', id, m, t), ' ' ORDER BY id)) FROM docs";
        assert_eq!(target.one::<String>(digest), client.one::<String>(digest), "{format}");
        target.run("REINDEX TABLE docs");
        assert_eq!(target.state("SELECT pgseal.decrypt(m) FROM docs"), "42704", "{format}");
    }
    target.run(&import(&exported));
    target.run("LOAD 'pgseal'");
    let endpoint = format!("SET pgseal.kms_endpoint = 'file://{}'", first.key_dir().display());
    target.run(&endpoint);
    answers(&mut target);
}
