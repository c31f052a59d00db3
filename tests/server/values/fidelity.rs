//! What went in comes out: documents as jsonb has them, texts as they were.

use std::io::Write;

use postgres::Client;

use crate::server::values::kinds::{KINDS, two_keyrings};
use crate::support::{AsText, Sql};

/// Documents whose text jsonb changes, or that are easily lost or changed on the way.
fn awkward_documents() -> Vec<String> {
    let fixed = [
        "{}",
        "[]",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-0.0",
        "1.10",
        "1e400",
        "-1e-400",
        "12345678901234567890123456789.0123456789",
        r#""""#,
        r#"" ""#,
        r#""pgseal:AQ==""#,
        r#""a\\b\"c\/d\b\f\n\r\t\u00e9\ud83d\ude00""#,
        "\"\u{e9}\"",
        "\"e\u{301}\"",
        "{\"\u{e9}\": 1, \"e\u{301}\": 2}",
        r#"{"": {"": [{}]}}"#,
        r#"[null, [null], {"a": null}]"#,
        r#"{"b": 1, "a": 2, "aa": 3, "a": 4}"#,
        r#"[[], {}, [[]], "", 0]"#,
        " \n\t[1 , 2]\r ",
        r#"{"a'b\"c": "it's"}"#,
        r#"{"$.**": "*", "a.b": ".", "[0]": 0}"#,
    ];
    let numbers: Vec<String> = (0..40_000).map(|n| n.to_string()).collect();
    let wide: Vec<String> = (0..5_000).map(|n| format!("\"key {n}\": [{n}]")).collect();
    let long = [
        format!("[{}]", numbers.join(",")),
        format!("{{{}}}", wide.join(",")),
        format!("{{\"text\": \"{}\"}}", "ä 1 ".repeat(1 << 18)),
        format!("{}{}", "[".repeat(500), "]".repeat(500)),
    ];
    fixed.iter().map(|text| (*text).to_owned()).chain(long).collect()
}

/// Table t with a plain column beside the encrypted one.
fn beside_plain() -> Client {
    let mut client = two_keyrings();
    client.run("SELECT pgseal.create_keyring('big', ARRAY['$.a.*'])");
    client.run("CREATE TABLE t (n serial, plain jsonb, v encrypted_jsonb(big))");
    client
}

fn assert_equals_plain(client: &mut Client, count: usize) {
    let differing: Option<String> = client.one(
        "SELECT string_agg(left(plain::text, 80), ' ') FROM t
          WHERE plain::text IS DISTINCT FROM pgseal.decrypt(v)::text OR plain::text IS DISTINCT FROM v::text
             OR plain IS DISTINCT FROM v::jsonb",
    );
    assert_eq!(differing, None);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE v IS NOT NULL"), count as i64);
}

#[test]
fn documents_come_back_as_jsonb_has_them() {
    let documents = awkward_documents();
    for insert in [
        "INSERT INTO t (plain, v) VALUES ($1::text::jsonb, $2)",
        "INSERT INTO t (plain, v) VALUES ($1::text::jsonb, $2::text::jsonb)",
        "INSERT INTO t (plain, v) VALUES ($1::text::jsonb, $2::text::json)",
        "INSERT INTO t (plain, v) VALUES ($1::text::jsonb, pgseal.encrypt($2::text::jsonb, 'big'))",
    ] {
        let client = &mut beside_plain();
        for document in &documents {
            client.execute(insert, &[&AsText(document), &AsText(document)]).unwrap();
        }
        assert_equals_plain(client, documents.len());
        client.run("SELECT pgseal.rotate_key('big')");
        client.run("CALL pgseal.reencrypt('t', 'v')");
        assert_equals_plain(client, documents.len());
        client.run("SELECT pgseal.retire_key('big', 1)");
    }
}

#[test]
fn copied_documents_come_back_as_jsonb_has_them() {
    let client = &mut beside_plain();
    let documents = awkward_documents();
    for document in &documents {
        let line =
            document.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
        let mut copy = client.copy_in("COPY t (plain, v) FROM STDIN").unwrap();
        copy.write_all(format!("{line}\t{line}\n").as_bytes()).unwrap();
        copy.finish().unwrap();
    }
    assert_equals_plain(client, documents.len());
}

#[test]
fn texts_come_back_as_they_were() {
    let client = &mut KINDS[1].table();
    let megabyte = "ä 1 ".repeat(1 << 18);
    let texts = [
        "",
        " ",
        "  x  ",
        "\\",
        "'",
        "{}",
        "e\u{301}",
        "\u{e9}",
        "a\nb\r\tc",
        "PGSEAL:AQ==",
        " pgseal:",
        &megabyte,
    ];
    for text in texts {
        client.run("TRUNCATE t");
        client.execute("INSERT INTO t (v) VALUES ($1)", &[&AsText(text)]).unwrap();
        client.execute("INSERT INTO t (v) VALUES ($1::text)", &[&text]).unwrap();
        client.execute("INSERT INTO t (v) VALUES (pgseal.encrypt($1::text, 'k'))", &[&text]).unwrap();
        let same = client.query_one("SELECT count(*) FROM t WHERE pgseal.decrypt(v) = $1", &[&text]).unwrap();
        assert_eq!(same.get::<_, i64>(0), 3, "{text:.20}");
    }
}

#[test]
fn typed_text_may_look_sealed() {
    let client = &mut KINDS[1].table();
    client.execute("INSERT INTO t (v) VALUES ($1::text)", &[&"pgseal:not base64"]).unwrap();
    assert_eq!(client.one::<String>("SELECT pgseal.decrypt(v) FROM t"), "pgseal:not base64");
}

#[test]
fn null_is_not_json_null() {
    let client = &mut KINDS[0].table();
    client.run("INSERT INTO t VALUES (1, 'null'), (2, NULL)");
    client.run("INSERT INTO t VALUES (1, 'null'::jsonb), (2, NULL::jsonb), (2, NULL::encrypted_jsonb)");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE n = 1 AND v::text = 'null'"), 2);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE n = 2 AND v IS NULL"), 3);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE pgseal.decrypt(v) IS NULL"), 3);
}
