//! Endpoints, settings, names and arguments that are refused, and that the session stays usable.

use std::fmt::Write;

use crate::server::values::kinds::{copy_bytes, copy_text, two_keyrings, with_state};
use crate::server::values::quiet::{
    TYPES, assert_quiet, quietly_refused, sealed, state_of, tables, text_form,
};
use crate::support::{AsBytes, AsText, Sql as _, shared, start_waiting, with_keyring};

#[test]
fn bad_kms_endpoints() {
    let client = &mut tables();
    for endpoint in [
        "garbage",
        "http://x",
        "https://x/transit",
        "file://relative",
        "file://",
        "FILE:///x",
        "vault+http://10.0.0.1:8200/transit",
        "vault+http://vault.example:8200/transit",
        "vault+https://",
        "vault+https:///transit",
        "vault+https://host:8200",
        "vault+https://host:99999/transit",
        "vault+https://user:canary-7291@host:8200/transit",
        "vault+https://host:8200/transit?token=canary-7291",
        "aws-kms://",
        "aws-kms://eu-west-1/key",
        "aws-kms://eu-west-1?endpoint=http://10.0.0.1:4566",
        "aws-kms://eu-west-1?endpoint=https://user:canary-7291@host",
        "gcp-kms://projects/p/locations/l",
        "gcp-kms://projects/p/locations/l/keyRings/r?endpoint=http://10.0.0.1:4567",
        "gcp-kms://projects/p/locations/l/keyRings/r?token=canary-7291",
        "azure-kv://vault.example",
        "azure-kv://name.vault.azure.net?endpoint=https://user:canary-7291@host",
        " ",
    ] {
        let argument = format!("SELECT pgseal.create_keyring('new', kms_endpoint => '{endpoint}')");
        let error = quietly_refused(client, &argument, "22023");
        assert!(error.hint().is_some(), "{endpoint}: {error}");
        client.run(&format!("SET pgseal.kms_endpoint = '{endpoint}'"));
        quietly_refused(client, "SELECT pgseal.create_keyring('new')", "22023");
        client.run("RESET pgseal.kms_endpoint");
    }
    quietly_refused(client, "SELECT pgseal.create_keyring('new', kms_endpoint => '')", "22023");
    client.run("SET pgseal.kms_endpoint = ''");
    quietly_refused(client, "SELECT pgseal.create_keyring('new')", "22023");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), 2);
}

#[test]
fn key_files_are_not_kept_in_the_data_directory() {
    let client = &mut tables();
    let data = shared().data_dir().display().to_string();
    let keys = shared().key_dir().display().to_string();
    for directory in [
        data.clone(),
        format!("{data}/base"),
        format!("{data}/"),
        format!("/{data}"),
        format!("{keys}/../data"),
    ] {
        let sql = format!("SELECT pgseal.create_keyring('new', kms_endpoint => 'file://{directory}')");
        let Err(error) = client.batch_execute(&sql) else { panic!("{directory} went through") };
        let state = error.code().expect("a SQLSTATE").code();
        assert!(["22023", "58030"].contains(&state), "{directory}: {error:?}");
    }
    let missing = "SELECT pgseal.create_keyring('new', kms_endpoint => 'file:///nonexistent/keys')";
    quietly_refused(client, missing, "58030");
}

#[test]
fn bad_kms_keys() {
    let client = &mut tables();
    for key in ["", "..", ".hidden", "a/b", "../k", "a b", "a%2fb", "\u{e9}", &"k".repeat(129)] {
        quietly_refused(client, &format!("SELECT pgseal.create_keyring('new', kms_key => '{key}')"), "22023");
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), 2);
}

#[test]
fn bad_settings() {
    let client = &mut tables();
    for (setting, state) in [
        ("pgseal.kms_timeout = 0", "22023"),
        ("pgseal.kms_timeout = '1 day'", "22023"),
        ("pgseal.key_cache_ttl = -1", "22023"),
        ("pgseal.accept_sealed = 'perhaps'", "22023"),
        ("pgseal.keyrimg = 'k'", "42602"),
    ] {
        client.refused(&format!("SET {setting}"), state);
    }
}

#[test]
fn odd_keyring_names_work() {
    let client = &mut two_keyrings();
    let longest = "n".repeat(63);
    let wide = format!("{}n", "\u{e9}".repeat(31));
    let names = [
        "O'Brien",
        "two words",
        "a\"b",
        "\\",
        "$1",
        "%s",
        "A.B",
        "schl\u{fc}ssel",
        "\u{1f511}",
        " ",
        "1a",
        "null",
        &longest,
        &wide,
    ];
    for name in names {
        let id: i32 =
            client.query_one("SELECT pgseal.create_keyring($1, ARRAY['$.a'])", &[&name]).unwrap().get(0);
        assert!(id > 0);
        let quoted = name.replace('"', "\"\"");
        client.run(&format!("CREATE TABLE t (v encrypted_jsonb(\"{quoted}\"))"));
        client.run(r#"INSERT INTO t VALUES ('{"a": 1}')"#);
        client.execute("SELECT pgseal.rotate_key($1)", &[&name]).unwrap();
        client.execute(r#"SELECT pgseal.encrypt('{"a": 1}'::jsonb, $1)"#, &[&name]).unwrap();
        client.execute("SELECT set_config('pgseal.keyring', $1, false)", &[&name]).unwrap();
        client.run(r#"INSERT INTO t VALUES ('{"a": 1}'); RESET pgseal.keyring"#);
        client.run("CALL pgseal.reencrypt('t', 'v')");
        client.execute("SELECT pgseal.retire_key($1, 1)", &[&name]).unwrap();
        assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM t WHERE v @> '{"a": 1}'"#), 2, "{name}");
        client.run("DROP TABLE t");
    }
}

/// In a type modifier they would mean a keyring's number.
#[test]
fn names_that_read_as_numbers_are_refused_or_work() {
    let client = &mut two_keyrings();
    for name in ["-1", "+1"] {
        if client.batch_execute(&format!("SELECT pgseal.create_keyring('{name}')")).is_ok() {
            client.run(&format!(
                "CREATE TABLE t (v encrypted_jsonb(\"{name}\")); INSERT INTO t VALUES ('{{}}'); DROP TABLE t"
            ));
        }
    }
}

#[test]
fn bad_keyring_names() {
    let client = &mut two_keyrings();
    let (long, wide) = ("n".repeat(64), "\u{e9}".repeat(32));
    for name in ["", "7", "12345", "007", &long, &wide] {
        quietly_refused(client, &format!("SELECT pgseal.create_keyring('{name}')"), "22023");
    }
    let error = quietly_refused(client, "SELECT pgseal.create_keyring('k')", "42710");
    assert!(error.message().contains("already exists"), "{error}");
    client.refused("SELECT pgseal.create_keyring(NULL)", "22023");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), 2);
}

#[test]
fn two_sessions_make_the_same_keyring() {
    let client = &mut two_keyrings();
    client.run("BEGIN; SELECT pgseal.create_keyring('new')");
    let waiting = start_waiting(client, "SELECT pgseal.create_keyring('new')", &["Lock"]);
    client.run("COMMIT");
    let error = waiting.join().unwrap().expect("an error");
    assert!(["42710", "23505"].contains(&error.code().code()), "{error:?}");
}

#[test]
fn sessions_that_make_kms_keys_at_once_all_succeed() {
    let client = &mut two_keyrings();
    let database = client.database();
    let make = |session: usize| {
        let mut client = shared().connect(&database);
        std::thread::spawn(move || {
            for n in 0..10 {
                let name = format!("{session}_{n}");
                client.execute("SELECT pgseal.create_keyring($1, kms_key => $1)", &[&name])?;
            }
            Ok::<(), postgres::Error>(())
        })
    };
    let sessions: Vec<_> = (0..4).map(make).collect();
    for session in sessions {
        session.join().unwrap().unwrap();
    }
}

#[test]
fn bad_searchable_paths() {
    let client = &mut two_keyrings();
    for path in [
        "",
        " ",
        "a",
        ".a",
        "$a",
        "$.",
        "$..a",
        "$.a.",
        "$.a b",
        "$[0]",
        "$.a[0]",
        "$.a[*]",
        "$.***",
        "$.**.a",
        "$.*a",
        "$.\"a",
        "$.\"a\"b",
        "$.\"\\x\"",
        "$.a$",
        "$ .a",
        "$.\"a\".",
    ] {
        let error = quietly_refused(
            client,
            &format!("SELECT pgseal.create_keyring('new', ARRAY['{path}'])"),
            "22023",
        );
        assert!(error.message().contains("searchable path"), "{path}: {error}");
        client.refused(&format!("SELECT pgseal.create_keyring('new', ARRAY['$.ok', '{path}'])"), "22023");
    }
    client.refused("SELECT pgseal.create_keyring('new', ARRAY[NULL])", "22023");
    client.refused("SELECT pgseal.create_keyring('new', ARRAY['$.a', NULL])", "22023");
    client.refused("SELECT pgseal.create_keyring('new', array_fill('$.a'::text, ARRAY[257]))", "22023");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), 2);
    for good in [
        "'{}'",
        "NULL",
        "ARRAY['$']",
        "ARRAY['$.\"\"', '$.\"a.b\"', '$.*', '$.a.**']",
        "array_fill('$.a'::text, ARRAY[256])",
    ] {
        client.run(&format!("BEGIN; SELECT pgseal.create_keyring('new', {good}); ROLLBACK"));
    }
}

#[test]
fn sealed_input_can_be_switched_off() {
    let client = &mut tables();
    let bytes = TYPES.map(|type_name| sealed(client, type_name));
    client.run("SET pgseal.accept_sealed = off");
    for ((type_name, bytes), column) in TYPES.into_iter().zip(&bytes).zip(["v", "x"]) {
        let text = text_form(bytes);
        quietly_refused(client, &format!("SELECT '{text}'::{type_name}"), "42501");
        quietly_refused(client, &format!("INSERT INTO t ({column}) VALUES ('{text}')"), "42501");
        let insert = format!("INSERT INTO t ({column}) VALUES ($1)");
        assert_eq!(state_of(client, &insert, &AsText(&text)).as_deref(), Some("42501"));
        assert_eq!(state_of(client, &insert, &AsBytes(bytes)).as_deref(), Some("42501"));
        client.run(&format!("ALTER TABLE t RENAME TO kept; CREATE TABLE t (v {type_name}(k))"));
        with_state(copy_bytes(client, bytes).unwrap_err(), "42501", "COPY");
        with_state(copy_text(client, &text).unwrap_err(), "42501", "COPY");
        copy_text(client, "{}").unwrap();
        client.run("DROP TABLE t; ALTER TABLE kept RENAME TO t");
        assert_eq!(state_of(client, &insert, &AsText("{}")), None);
    }
    client.run(r#"INSERT INTO t (v, x) VALUES ('{"a": 1}', 'x'), ('{"a": 1}'::jsonb, 'x'::text)"#);
    client.run("SELECT pgseal.rotate_key('k')");
    client.run("CALL pgseal.reencrypt('t', 'v')");
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM t WHERE v @> '{"a": 1}'"#), 2);
}

#[test]
fn reencrypt_commits_so_it_runs_alone() {
    let client = &mut tables();
    client.run("INSERT INTO t (v) VALUES ('{}'); SELECT pgseal.rotate_key('k')");
    client.run("BEGIN");
    let error = client.batch_execute("CALL pgseal.reencrypt('t', 'v')").unwrap_err();
    assert_quiet(&with_state(error, "25001", "in BEGIN"), "in BEGIN");
    client.run("ROLLBACK");
    client.run("CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL pgseal.reencrypt('t', 'v'); END $$",
    );
    let error = client.batch_execute("SELECT f()").unwrap_err();
    let state = error.code().expect("a SQLSTATE").code();
    assert!(["25001", "2D000"].contains(&state), "{error:?}");
    assert_eq!(client.one::<i32>("SELECT pgseal.key_version(v) FROM t"), 1);
    client.run("CALL pgseal.reencrypt('t', 'v')");
    assert_eq!(client.one::<i32>("SELECT pgseal.key_version(v) FROM t"), 2);
}

#[test]
fn reencrypt_of_what_is_not_encrypted() {
    let client = &mut tables();
    for (arguments, state) in [
        ("'nope', 'v'", "42P01"),
        ("'t', 'nope'", "42703"),
        ("'t', 'V'", "42703"),
        ("'t', 'n'", "42809"),
        ("'t', 'ctid'", "42809"),
        ("0, 'v'", "42703"),
        ("NULL, 'v'", "42703"),
        ("'t', NULL", "42703"),
        ("'pg_class', 'relname'", "42809"),
    ] {
        quietly_refused(client, &format!("CALL pgseal.reencrypt({arguments})"), state);
    }
    client.run("ALTER TABLE t DROP COLUMN v");
    client.refused("CALL pgseal.reencrypt('t', 'v')", "42703");
}

/// It cannot change them, and must not say that it did.
#[test]
fn reencrypt_of_a_view() {
    let client = &mut tables();
    client.run("INSERT INTO t (v) VALUES ('{}'); CREATE VIEW w AS SELECT * FROM t; CREATE MATERIALIZED VIEW m AS SELECT * FROM t",
    );
    client.run("SELECT pgseal.rotate_key('k')");
    client.refused("CALL pgseal.reencrypt('w', 'v')", "42809");
    client.refused("CALL pgseal.reencrypt('m', 'v')", "42809");
}

#[test]
fn reencrypt_s_batch_size() {
    let client = &mut tables();
    client.run("INSERT INTO t (v) SELECT jsonb_build_array(i) FROM generate_series(1, 500) i");
    for size in ["0", "-1", "-2147483648"] {
        client.refused(&format!("CALL pgseal.reencrypt('t', 'v', {size})"), "22023");
    }
    client.refused("CALL pgseal.reencrypt('t', 'v', 2147483648)", "42883");
    for (round, size) in ["1", "2147483647", "1000"].iter().enumerate() {
        client.run("ANALYZE t; SELECT pgseal.rotate_key('k')");
        client.run(&format!("CALL pgseal.reencrypt('t', 'v', {size})"));
        let version = round as i32 + 2;
        let current = format!("SELECT count(*) FROM t WHERE pgseal.key_version(v) = {version}");
        assert_eq!(client.one::<i64>(&current), 500, "batch_size {size}");
    }
}

#[test]
fn key_usage_of_what_is_not_encrypted() {
    let client = &mut tables();
    client.refused("SELECT pgseal.key_usage('nope', 'v')", "42P01");
    client.refused("SELECT pgseal.key_usage('t', 'nope')", "42703");
    client.refused("SELECT pgseal.key_usage('t', 'n')", "42809");
}

#[test]
fn versions_that_cannot_be_retired() {
    let client = &mut tables();
    client.run("SELECT pgseal.rotate_key('k')");
    for (version, state) in [
        ("2", "55000"),
        ("3", "42704"),
        ("0", "42704"),
        ("-1", "42704"),
        ("70000", "42704"),
        ("65537", "42704"),
        ("NULL", "42704"),
    ] {
        quietly_refused(client, &format!("SELECT pgseal.retire_key('k', {version})"), state);
    }
    client.refused("SELECT pgseal.retire_key(NULL, 1)", "42704");
    client.run("SELECT pgseal.retire_key('k', 1)");
    let error = quietly_refused(client, "SELECT pgseal.retire_key('k', 1)", "55000");
    assert!(error.hint().unwrap_or_default().contains("retired already"), "{error:?}");
    client.run("SELECT pgseal.rotate_key('other')");
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let error = client.batch_execute("SELECT pgseal.retire_key('other', 1)").unwrap_err();
    with_state(error, "25001", "REPEATABLE READ");
}

#[test]
fn null_arguments_give_null() {
    let client = &mut tables();
    client.run("INSERT INTO t (v, x) VALUES ('[]', 'x')");
    for call in [
        "pgseal.encrypt(NULL::jsonb)",
        "pgseal.encrypt(NULL::text)",
        "pgseal.encrypt(NULL::jsonb, 'k', 'c')",
        "pgseal.encrypt(NULL::jsonb, NULL, NULL)",
        "pgseal.decrypt(NULL::encrypted_jsonb)",
        "pgseal.decrypt(NULL::encrypted_text)",
        "pgseal.decrypt(NULL::encrypted_jsonb, 'c')",
        "pgseal.decrypt(v, NULL)",
        "pgseal.decrypt(x, NULL)",
        "pgseal.key_version(NULL::encrypted_jsonb)",
        "pgseal.key_version(NULL::encrypted_text)",
        "pgseal.index_key_version(NULL::encrypted_jsonb)",
        "pgseal.keyring_id(NULL::encrypted_text)",
        "pgseal.filter(NULL)",
        "pgseal.filter(NULL, 'k')",
        "pgseal.filter_any(NULL)",
        "pgseal.filter_any(NULL, 'k')",
        "v @> NULL",
        "v @@ NULL",
        "NULL::encrypted_jsonb @> '[]'",
        "NULL::encrypted_jsonb::encrypted_jsonb(k)",
        "NULL::encrypted_jsonb::jsonb",
        "NULL::encrypted_text::text",
        "pgseal.rotate_key(NULL)",
        "pgseal.rotate_index_key(NULL)",
        "pgseal.rewrap_keys(NULL)",
    ] {
        assert!(client.one::<bool>(&format!("SELECT ({call}) IS NULL FROM t")), "{call}");
    }
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM t WHERE v @@ pgseal.filter_any(ARRAY[NULL]::jsonb[], 'k')"),
        0
    );
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM t WHERE v @@ pgseal.filter_any('{}'::jsonb[], 'k')"),
        0
    );
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.data_key"), 2);
}

#[test]
fn bad_grants() {
    let client = &mut tables();
    for (arguments, state) in [
        ("'k', 'nobody', ARRAY['decrypt']", "42704"),
        ("'k', 'postgres', ARRAY['read']", "22023"),
        ("'k', 'postgres', ARRAY[NULL]", "22023"),
        ("'k', 'postgres', ARRAY['decrypt', NULL]", "22023"),
        ("'k', 'post\"gres', ARRAY['decrypt']", "42704"),
        ("NULL, 'postgres', ARRAY['decrypt']", "42704"),
    ] {
        client.refused(&format!("SELECT pgseal.grant_keyring({arguments})"), state);
    }
    for arguments in ["'k', NULL, ARRAY['decrypt']", "'k', 'postgres', NULL"] {
        let sql = format!("SELECT pgseal.grant_keyring({arguments})");
        assert!(client.batch_execute(&sql).is_err(), "{sql} went through");
    }
}

#[test]
fn many_refusals_leave_the_session_as_it_was() {
    let client = &mut tables();
    client.run("INSERT INTO t (v) VALUES ('{\"a\": 1}')");
    let mut script = String::new();
    for round in 0..200 {
        write!(
            script,
            "BEGIN INSERT INTO t (v) VALUES ('{{\"a\": {round}'); EXCEPTION WHEN invalid_text_representation THEN NULL; END;
             BEGIN PERFORM 'pgseal:AQ=='::encrypted_text; EXCEPTION WHEN invalid_text_representation THEN NULL; END;
             BEGIN PERFORM pgseal.encrypt('x'::text, 'nope'); EXCEPTION WHEN undefined_object THEN NULL; END;"
        )
        .unwrap();
    }
    client.run(&format!("DO $$ BEGIN {script} INSERT INTO t (v) VALUES ('{{\"a\": 1}}'); END $$"));
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE v @> '{\"a\": 1}'"), 2);
}

/// What SQL can call at all, each with NULL for every argument: those that are not STRICT must look for themselves.
#[test]
fn no_function_ends_the_server_when_all_its_arguments_are_null() {
    let mut client = with_keyring("{$.a}");
    let calls: Vec<String> = client.column(
        "SELECT format('SELECT %s(%s)', p.oid::regproc, (SELECT string_agg('NULL::' || format_type(t, NULL), ', ' ORDER BY n)
                                                          FROM unnest(p.proargtypes) WITH ORDINALITY a (t, n)))
           FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
           JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgseal'
          WHERE p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype
            AND NOT p.proargtypes::oid[] && ARRAY['internal'::regtype, 'cstring'::regtype]::oid[]",
    );
    assert!(calls.len() > 80, "{}", calls.len());
    let process: i32 = client.one("SELECT pg_backend_pid()");
    for call in calls {
        // An error is an answer; a connection that is gone is not.
        if let Err(error) = client.simple_query(&call) {
            assert!(error.as_db_error().is_some(), "{call}: {error:?}");
        }
        assert_eq!(client.one::<i32>("SELECT pg_backend_pid()"), process, "{call}");
    }
}
