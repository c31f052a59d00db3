//! The keyring of a column: its modifier, rotation, and what a column without one holds.

use postgres::Client;

use crate::server::values::kinds::{KINDS, copy_text, two_keyrings};
use crate::support::{AsText, Sql, beside};

#[test]
fn rotation_by_another_session_reaches_prepared_statements() {
    for kind in &KINDS {
        let client = &mut kind.table();
        let mut elsewhere = beside(client);
        kind.run(client, "PREPARE p AS INSERT INTO t (v) VALUES (LITERAL), (LITERAL)");
        let parameter = client.prepare("INSERT INTO t (v) VALUES ($1)").unwrap();
        let mut insert = |version| {
            kind.assert_inserts(client, version, |client| {
                client.run("EXECUTE p");
                client.execute(&parameter, &[&AsText(kind.literal)]).unwrap();
            });
        };
        insert(1);
        elsewhere.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_key('other')");
        insert(2);
        elsewhere.run("SELECT pgseal.retire_key('k', 1)");
        elsewhere.run("SELECT pgseal.retire_key('other', 1)");
        insert(2);
    }
}

#[test]
fn reencrypted_rows_are_sealed_anew_and_the_old_version_goes() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL), (LITERAL), (NULL)");
        client.run("SELECT pgseal.rotate_key('k')");
        client.refused("SELECT pgseal.retire_key('k', 1)", "55000");
        client.run("CALL pgseal.reencrypt('t', 'v')");
        client.run("SELECT pgseal.retire_key('k', 1); DELETE FROM t WHERE v IS NULL");
        kind.assert_sealed(client, 2);
    }
}

#[test]
fn unbound_columns_take_the_session_s_keyring_else_the_default() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE TABLE t (v KIND); INSERT INTO t VALUES (LITERAL)");
        assert_eq!(keyring_of_t(client), "other");
        kind.run(client, "SET pgseal.keyring = 'k'; TRUNCATE t; INSERT INTO t VALUES (LITERAL)");
        assert_eq!(keyring_of_t(client), "k");
        client.run("RESET pgseal.keyring; SELECT pgseal.set_default_keyring('k'); TRUNCATE t");
        client.execute("INSERT INTO t VALUES ($1)", &[&AsText(kind.literal)]).unwrap();
        assert_eq!(keyring_of_t(client), "k");
        assert_eq!(client.one::<String>("SELECT v::text FROM t"), kind.literal);
    }
}

pub(super) fn keyring_of_t(client: &mut Client) -> String {
    client.one("SELECT k.name::text FROM t JOIN pgseal.keyring k ON k.id = pgseal.keyring_id(v)")
}

#[test]
fn prepared_literals_for_unbound_columns_follow_rotation() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE TABLE t (v KIND); PREPARE p AS INSERT INTO t VALUES (LITERAL); EXECUTE p");
        client.run("SELECT pgseal.rotate_key('other'); TRUNCATE t; EXECUTE p");
        assert_eq!(client.one::<i32>("SELECT pgseal.key_version(v) FROM t"), 2);
        client.run("SELECT pgseal.retire_key('other', 1); EXECUTE p");
        assert_eq!(client.one::<i64>(&kind.sql("SELECT count(*) FROM t WHERE v::text = LITERAL")), 2);
    }
}

#[test]
fn reencrypt_takes_values_of_unbound_columns_out_of_transit() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        client.run("SET pgseal.keyring = 'k'");
        kind.run(client, "CREATE TABLE t (v KIND); INSERT INTO t VALUES (LITERAL), (LITERAL)");
        client.run("CALL pgseal.reencrypt('t', 'v')");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn unbound_columns_hold_several_keyrings() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE t (v encrypted_jsonb)");
    client.run(r#"INSERT INTO t VALUES (pgseal.encrypt('{"a": 1}'::jsonb, 'k')), ('{"a": 1}')"#);
    assert_eq!(client.one::<i64>("SELECT count(DISTINCT pgseal.keyring_id(v)) FROM t"), 2);
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM t WHERE v::jsonb = '{"a": 1}'"#), 2);
}

#[test]
fn values_of_another_keyring_are_refused_with_a_hint() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "CREATE TABLE o (v KIND(other)); INSERT INTO o VALUES (LITERAL); INSERT INTO t VALUES (1, LITERAL)");
        for statement in [
            "INSERT INTO t (v) SELECT v FROM o",
            "INSERT INTO t (v) SELECT v FROM o UNION ALL SELECT v FROM o",
            "UPDATE t SET v = o.v FROM o",
            "SELECT v::KIND(k) FROM o",
            "ALTER TABLE o ALTER v TYPE KIND(k)",
        ] {
            let error = client.refused(&kind.sql(statement), "22023");
            assert!(error.hint().unwrap_or_default().contains("pgseal.encrypt"), "{statement}: {error:?}");
        }
        client.run("INSERT INTO t (v) SELECT pgseal.encrypt(pgseal.decrypt(v), 'k') FROM o");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn changing_the_type_of_a_column_seals_it() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(
            client,
            &format!("CREATE TABLE t (v {}); INSERT INTO t VALUES (LITERAL), (LITERAL)", kind.plain),
        );
        kind.run(client, "ALTER TABLE t ALTER v TYPE KIND(k)");
        kind.assert_sealed(client, 1);
        kind.run(client, "DROP TABLE t; CREATE TABLE t (v KIND); INSERT INTO t VALUES (LITERAL), (LITERAL)");
        // Once stored they are the session's keyring's, and moved in so many words.
        client.refused(&kind.sql("ALTER TABLE t ALTER v TYPE KIND(k)"), "22023");
        kind.run(client, "ALTER TABLE t ALTER v TYPE KIND(k) USING pgseal.encrypt(pgseal.decrypt(v), 'k')");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn modifier_is_a_name_or_a_number_and_shows_as_number() {
    let client = &mut two_keyrings();
    let id: i32 = client.one(r#"SELECT pgseal.create_keyring('O''dd name "x"')"#);
    for modifier in [r#""O'dd name ""x""""#, r#"'O''dd name "x"'"#, &id.to_string()] {
        for kind in &KINDS {
            kind.run(client, &format!("CREATE TABLE t (v KIND({modifier})); INSERT INTO t VALUES (LITERAL)"));
            let shown: String = client.one("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'v'",
            );
            assert_eq!(shown, format!("{}({id})", kind.name));
            assert_eq!(keyring_of_t(client), "O'dd name \"x\"");
            client.run("DROP TABLE t");
        }
    }
}

#[test]
fn modifier_that_names_no_keyring() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        for (modifier, state) in [
            ("nope", "42704"),
            ("\"K\"", "42704"),
            ("99999999999", "42704"),
            ("0", "22023"),
            ("k, k", "22023"),
            ("''", "42704"),
        ] {
            client.refused(&kind.sql(&format!("CREATE TABLE t (v KIND({modifier}))")), state);
        }
        // As a dump does before it restores the keyrings.
        kind.run(client, "CREATE TABLE t (v KIND(12345))");
        client.refused(&kind.sql("INSERT INTO t VALUES (LITERAL)"), "42704");
        assert!(copy_text(client, kind.literal).is_err());
    }
}
