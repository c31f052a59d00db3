//! What the types let values become: casts, containers, contexts, header functions, storage.

use std::io::Write;

use postgres::Client;
use serde_json::json;

use crate::server::values::columns::keyring_of_t;
use crate::server::values::kinds::{KINDS, Kind, copy_text, two_keyrings};
use crate::support::{AsText, Sql};

#[test]
fn plain_types_are_sealed_on_assignment() {
    let document = r#"{"a": "John Smith"}"#;
    for (kind, source, value) in [
        (&KINDS[0], "jsonb", document),
        (&KINDS[0], "json", r#"{"a":"gone", "a" : "John Smith"}"#),
        (&KINDS[1], "text", "John Smith"),
        (&KINDS[1], "varchar", "John Smith"),
        (&KINDS[1], "varchar(12)", "John Smith"),
        (&KINDS[1], "char(20)", "John Smith"),
        (&KINDS[1], "bpchar", "John Smith"),
    ] {
        let client = &mut kind.table();
        client.run(&format!("CREATE TABLE s AS SELECT '{value}'::{source} AS v FROM generate_series(1, 3)"));
        client.run("INSERT INTO t (v) SELECT v FROM s");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn other_types_are_not_sealed_on_assignment() {
    let client = &mut KINDS[0].table();
    for value in ["'{}'::text", "'{}'::varchar", "1", "true", "'x'::bytea"] {
        client.refused(&format!("INSERT INTO t (v) VALUES ({value})"), "42804");
    }
    client.batch_execute("INSERT INTO t (v) VALUES ('{}')").unwrap();
    assert!(client.one::<bool>("SELECT '{}'::jsonb = v FROM t"));
}

#[test]
fn explicit_casts_decrypt() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL)");
        for target in ["text", "varchar", "bpchar", "name", "varchar(40)"] {
            assert_eq!(client.one::<String>(&format!("SELECT (v::{target})::text FROM t")), kind.literal);
        }
        assert_eq!(client.one::<String>("SELECT v::varchar(3) FROM t"), &kind.literal[..3]);
        let padded: String = client.one("SELECT v::char(30) FROM t");
        assert_eq!((padded.trim_end(), padded.len()), (kind.literal, 30));
    }
}

#[test]
fn explicit_cast_to_jsonb_is_the_document() {
    let client = &mut KINDS[0].table();
    KINDS[0].run(client, "INSERT INTO t (v) VALUES (LITERAL)");
    assert_eq!(client.one::<serde_json::Value>("SELECT v::jsonb FROM t"), json!({ "a": "John Smith" }));
    assert_eq!(client.one::<String>("SELECT v::jsonb ->> 'a' FROM t"), "John Smith");
}

#[test]
fn cast_to_name_ends_between_characters() {
    let client = &mut KINDS[1].table();
    let long = format!("{}äö", "x".repeat(62));
    client.execute("INSERT INTO t (v) VALUES ($1)", &[&AsText(&long)]).unwrap();
    assert_eq!(client.one::<String>("SELECT v::name::text FROM t"), "x".repeat(62));
}

#[test]
fn plaintext_never_goes_into_a_plain_column_by_assignment() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL); CREATE DOMAIN d AS text");
        for target in
            ["text", "varchar", "varchar(200)", "char(200)", "name", "json", "jsonb", "bytea", "text[]", "d"]
        {
            client.run(&format!("CREATE TABLE p (v {target})"));
            let is_text = kind.plain.name() == "text" && ["d", "varchar", "varchar(200)"].contains(&target);
            let implied = kind.plain.name() == target || is_text;
            client.refused("INSERT INTO p SELECT v FROM t", if implied { "42846" } else { "42804" });
            client.run("DROP TABLE p");
        }
        let state = if kind.plain.name() == "text" { "42846" } else { "42804" };
        client.refused("ALTER TABLE t ALTER v TYPE text", state);
    }
}

#[test]
fn nothing_is_cast_to_json_but_for_the_client() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL)");
        client.refused("SELECT v::json FROM t", "42846");
        client.refused("CREATE TABLE p AS SELECT v::json FROM t", "42846");
        let implicit = "SELECT string_agg(casttarget::regtype::text, ' ' ORDER BY casttarget::regtype::text) FROM pg_cast
                         WHERE castsource = 'KIND'::regtype AND castcontext <> 'e' AND casttarget <> castsource";
        let plain = if kind.plain.name() == "text" { "character varying text" } else { kind.plain.name() };
        assert_eq!(client.one::<String>(&kind.sql(implicit)), plain);
    }
}

#[test]
fn whatever_reads_a_value_as_text_gets_ciphertext() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL)");
        for expression in [
            "v",
            "to_jsonb(v)",
            "to_json(v)",
            "row_to_json(t)",
            "to_jsonb(t)",
            "json_agg(t)",
            "jsonb_build_object('v', v)",
            "json_object_agg('v', v)",
            "concat(v, '')",
            "concat_ws('-', v, v)",
            "format('%s %L', v, v)",
            "t",
            "row(v)",
            "array_to_string(ARRAY[v], ',')",
            "array_agg(v)",
            "jsonb_populate_record(NULL::t, to_jsonb(t))",
        ] {
            let shown = client.text(&format!("SELECT {expression} FROM t"));
            assert!(shown.contains("pgseal:") && !shown.contains("Smith"), "{expression}: {shown}");
        }
    }
}

#[test]
fn arrays() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE TABLE a (v KIND(k)[])");
        kind.run(
            client,
            "INSERT INTO a VALUES (ARRAY[LITERAL, LITERAL]::KIND[]), (array_append(NULL::KIND[], LITERAL))",
        );
        kind.run(client, "INSERT INTO a VALUES (ARRAY[LITERAL, NULL]::KIND[])");
        let quoted = kind.literal.replace('"', "\\\"");
        client.run(&format!("INSERT INTO a VALUES ('{{\"{quoted}\",NULL}}')"));
        client.run("CREATE VIEW t AS SELECT v FROM (SELECT unnest(v) AS v FROM a) u WHERE v IS NOT NULL");
        kind.assert_sealed(client, 1);
        assert_eq!(client.one::<i64>("SELECT count(*) FROM t"), 5);
    }
}

#[test]
fn domains() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE DOMAIN d AS KIND(k) NOT NULL; CREATE TABLE t (v d)");
        kind.run(client, "INSERT INTO t VALUES (LITERAL), (LITERAL::d), (LITERAL::KIND)");
        client.execute("INSERT INTO t VALUES ($1)", &[&AsText(kind.literal)]).unwrap();
        copy_text(client, kind.literal).unwrap();
        kind.assert_sealed(client, 1);
        client.refused("INSERT INTO t VALUES (NULL)", "23502");
    }
}

#[test]
fn composites() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE TYPE c AS (n int, v KIND(k)); CREATE TABLE r (c c)");
        kind.run(client, "INSERT INTO r VALUES (ROW(1, LITERAL)), (ROW(1, LITERAL)::c)");
        let quoted = kind.literal.replace('"', "\"\"");
        client.run(&format!("INSERT INTO r VALUES ('(1,\"{quoted}\")')"));
        client.run("UPDATE r SET c.n = 2; CREATE VIEW t AS SELECT (c).v FROM r");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn partitions() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE TABLE t (n int, v KIND(k)) PARTITION BY LIST (n)");
        kind.run(
            client,
            "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE t2 (v KIND(k), n int)",
        );
        kind.run(client, "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2); INSERT INTO t VALUES (1, LITERAL), (2, LITERAL)");
        kind.assert_sealed(client, 1);
        client.run("SELECT pgseal.rotate_key('k')");
        client.run("CALL pgseal.reencrypt('t', 'v')");
        kind.assert_sealed(client, 2);
    }
}

#[test]
fn encrypt_takes_keyring_and_context() {
    let client = &mut two_keyrings();
    for (arguments, keyring) in [
        (r#"'{"a": 1}'::jsonb"#, "other"),
        (r#"'{"a": 1}'::jsonb, 'k'"#, "k"),
        (r#"'{"a": 1}'::jsonb, NULL, 'row 7'"#, "other"),
        (r#"'{"a": 1}'::jsonb, keyring => 'k', context => 'row 7'"#, "k"),
        ("'x'::text, 'k'", "k"),
        ("'x', 'k'", "k"),
        ("value => 'x'::text, context => 'row 7'", "other"),
    ] {
        client.run(&format!("CREATE TABLE t AS SELECT pgseal.encrypt({arguments}) AS v"));
        assert_eq!(keyring_of_t(client), keyring, "{arguments}");
        client.run("DROP TABLE t");
    }
}

/// Table t with a value bound to "row 7" and one that is bound to nothing.
fn bound_and_unbound(kind: &Kind) -> Client {
    let mut client = kind.table();
    let plain = format!("LITERAL::{}", kind.plain);
    kind.run(&mut client, &format!("INSERT INTO t VALUES (1, pgseal.encrypt({plain}, 'k', 'row 7')), (0, pgseal.encrypt({plain}, 'k'))"));
    client
}

fn assert_context_is_needed(client: &mut Client, kind: &Kind) {
    let read = "SELECT pgseal.decrypt(v, 'row 7')::text FROM t WHERE n = 1";
    assert_eq!(client.one::<String>(read), kind.literal);
    for read in [
        "pgseal.decrypt(v, 'row 8')",
        "pgseal.decrypt(v, '')",
        "pgseal.decrypt(v)",
        "v::text",
        "v::varchar",
        "v::bpchar",
        "v::name",
    ] {
        let error = client.refused(&format!("SELECT {read} FROM t WHERE n = 1"), "22000");
        assert!(!format!("{error:?}").contains("Smith"), "{error:?}");
    }
    client.refused("SELECT pgseal.decrypt(v, 'row 7') FROM t WHERE n = 0", "22000");
    assert_eq!(client.one::<String>("SELECT pgseal.decrypt(v)::text FROM t WHERE n = 0"), kind.literal);
}

#[test]
fn bound_values_open_with_their_context_only_rotated_or_not() {
    for kind in &KINDS {
        let client = &mut bound_and_unbound(kind);
        assert_context_is_needed(client, kind);
        client.run("SELECT pgseal.rotate_key('k')");
        assert_context_is_needed(client, kind);
        client.run("CALL pgseal.reencrypt('t', 'v')");
        assert_eq!(client.one::<i32>("SELECT min(pgseal.key_version(v)) FROM t"), 2);
        client.run("SELECT pgseal.retire_key('k', 1)");
        assert_context_is_needed(client, kind);
        assert_eq!(client.one::<i64>("SELECT count(*) FROM t"), 2);
    }
}

#[test]
fn bound_values_are_found_without_their_context() {
    let client = &mut bound_and_unbound(&KINDS[0]);
    let found = r#"SELECT count(*) FROM t WHERE v @> '{"a": "John Smith"}'"#;
    assert_eq!(client.one::<i64>(found), 2);
    client.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_index_key('k')");
    client.run("CALL pgseal.reencrypt('t', 'v')");
    assert_eq!(client.one::<i64>(found), 2);
}

#[test]
fn an_empty_context_is_a_context() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE t AS SELECT pgseal.encrypt('x'::text, 'k', '') AS v");
    assert_eq!(client.one::<String>("SELECT pgseal.decrypt(v, '') FROM t"), "x");
    client.refused("SELECT pgseal.decrypt(v) FROM t", "22000");
}

#[test]
fn header_functions() {
    for kind in &KINDS {
        let client = &mut kind.table();
        client.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_index_key('k')");
        client.run("SELECT pgseal.rotate_index_key('k')");
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL)");
        let row = client
            .query_one("SELECT pgseal.key_version(v), pgseal.index_key_version(v), pgseal.keyring_id(v) = k.id FROM t, pgseal.keyring k WHERE name = 'k'", &[])
            .unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1), row.get::<_, bool>(2)), (2, 3, true));
    }
}

#[test]
fn header_functions_read_values_stored_out_of_line() {
    let client = &mut KINDS[1].table();
    client.run("INSERT INTO t (v) SELECT repeat('x', 100000)::text");
    assert_eq!(client.one::<i32>("SELECT pgseal.key_version(v) FROM t"), 1);
    assert_eq!(client.one::<i32>("SELECT length(pgseal.decrypt(v)) FROM t"), 100_000);
}

#[test]
fn returning_gives_ciphertext() {
    for kind in &KINDS {
        let client = &mut kind.table();
        for statement in [
            "INSERT INTO t VALUES (1, LITERAL) RETURNING v",
            "UPDATE t SET v = LITERAL RETURNING v",
            "DELETE FROM t RETURNING v",
        ] {
            let shown = client.text(&kind.sql(statement));
            assert!(shown.starts_with("pgseal:"), "{statement}: {shown}");
        }
    }
}

#[test]
fn copy_out_and_in_again_keeps_the_bytes() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(
            client,
            "INSERT INTO t (v) VALUES (LITERAL), (LITERAL); CREATE TABLE before AS SELECT * FROM t",
        );
        for format in ["text", "csv", "binary"] {
            let mut copied = Vec::new();
            let mut reader = client.copy_out(&format!("COPY t (v) TO STDOUT (FORMAT {format})")).unwrap();
            std::io::Read::read_to_end(&mut reader, &mut copied).unwrap();
            drop(reader);
            assert!(!String::from_utf8_lossy(&copied).contains("Smith"));
            client.run("TRUNCATE t");
            let mut writer = client.copy_in(&format!("COPY t (v) FROM STDIN (FORMAT {format})")).unwrap();
            writer.write_all(&copied).unwrap();
            writer.finish().unwrap();
            let same =
                "SELECT count(*) FROM t JOIN before b ON pgseal.KIND_send(t.v) = pgseal.KIND_send(b.v)";
            assert_eq!(client.one::<i64>(&kind.sql(same)), 2, "{format}");
        }
    }
}

#[test]
fn tables_and_views_made_from_a_query_hold_the_same_ciphertext() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL), (LITERAL)");
        client.run("CREATE TABLE c AS SELECT v FROM t; CREATE MATERIALIZED VIEW m AS SELECT v FROM t");
        for relation in ["c", "m"] {
            let same = format!(
                "SELECT count(*) FROM t JOIN {relation} r ON pgseal.KIND_send(t.v) = pgseal.KIND_send(r.v)"
            );
            assert_eq!(client.one::<i64>(&kind.sql(&same)), 2);
            let bound = format!("SELECT a.atttypmod = b.atttypmod FROM pg_attribute a, pg_attribute b
                WHERE a.attrelid = 't'::regclass AND b.attrelid = '{relation}'::regclass AND a.attname = 'v' AND b.attname = 'v'");
            assert!(client.one::<bool>(&bound));
        }
    }
}

#[test]
fn storage_is_external() {
    let client = &mut KINDS[0].table();
    for kind in &KINDS {
        let storage = kind.sql("SELECT typstorage::text FROM pg_type WHERE oid = 'KIND'::regtype");
        assert_eq!(client.one::<String>(&storage), "e");
    }
    client.run(r#"INSERT INTO t (v) SELECT jsonb_build_object('a', repeat('x', 1000000))"#);
    assert!(
        client.one::<bool>("SELECT pg_column_size(v) > 1000000 AND pg_column_compression(v) IS NULL FROM t")
    );
    let toast = "SELECT pg_relation_size(reltoastrelid) > 1000000 FROM pg_class WHERE oid = 't'::regclass";
    assert!(client.one::<bool>(toast));
}

#[test]
fn equal_literals_in_one_statement_are_equal_to_the_parser() {
    let client = &mut KINDS[1].table();
    client.run("INSERT INTO t (v) VALUES ('a'), ('a'), (NULL)");
    for query in [
        "SELECT pgseal.decrypt(coalesce(v, 'none')) AS x, count(*) FROM t GROUP BY pgseal.decrypt(coalesce(v, 'none')) ORDER BY 1",
        "SELECT DISTINCT pgseal.decrypt(coalesce(v, 'none')) FROM t ORDER BY pgseal.decrypt(coalesce(v, 'none'))",
    ] {
        let rows = client.query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["a", "none"]);
    }
}

#[test]
fn failed_statements_leave_nothing_behind() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "BEGIN; INSERT INTO t (v) VALUES (LITERAL); SAVEPOINT s");
        assert!(client.batch_execute("SELECT pgseal.encrypt('x'::text, 'nope')").is_err());
        kind.run(client, "ROLLBACK TO s; INSERT INTO t (v) VALUES (LITERAL); COMMIT");
        kind.assert_sealed(client, 1);
        client.run("BEGIN; SELECT pgseal.rotate_key('k'); ROLLBACK");
        kind.assert_inserts(client, 1, |client| {
            kind.run(client, "INSERT INTO t (v) VALUES (LITERAL), (LITERAL)")
        });
    }
}

#[test]
fn a_rolled_back_rotation_does_not_reach_values() {
    for kind in &KINDS {
        let client = &mut kind.table();
        client.run("BEGIN; SAVEPOINT s; SELECT pgseal.rotate_key('k')");
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL); ROLLBACK TO s");
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL), (LITERAL); COMMIT");
        kind.assert_sealed(client, 1);
    }
}
