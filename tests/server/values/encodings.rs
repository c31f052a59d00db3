//! Encodings: databases are UTF8, clients of any. Older databases of another encoding lose no text, and what comes from
//! one is an error and no other text.

use std::io::Write;
use std::process::Stdio;
use std::sync::LazyLock;

use postgres::Client;

use crate::support::{Cluster, Sql, run, shared};

/// An encoding of databases, a text that it has, and one more than UTF8's ASCII takes.
const OTHERS: [(&str, &str); 5] = [
    ("LATIN1", "Zürich"),
    ("WIN1252", "5 €"),
    ("EUC_JP", "東京"),
    ("KOI8R", "Москва"),
    ("SQL_ASCII", "Zürich"),
];

fn create_database(cluster: &Cluster, name: &str, encoding: &str) -> Client {
    let create = format!("CREATE DATABASE \"{name}\" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
    cluster.connect("postgres").run(&create);
    cluster.connect(name)
}

/// A database that 0.2.0 was installed in, with the text in every kind of column.
fn old_database(cluster: &Cluster, name: &str, encoding: &str, text: &str) -> Client {
    let mut client = create_database(cluster, name, encoding);
    client.run("CREATE EXTENSION vector; CREATE EXTENSION pgseal VERSION '0.2.0'");
    client.run("SELECT pgseal.create_keyring('a', '{$.**}')");
    client.run("CREATE TABLE docs (id int, plain jsonb, sealed encrypted_jsonb(a), word text, body encrypted_text(a))");
    client.run(&format!(
        r#"INSERT INTO docs SELECT i, d::jsonb, d::jsonb, v, v FROM unnest(
            ARRAY['{{"c": "{text}"}}', '{{"{text}": [{{"c": "x"}}, ["{text}"]]}}', '"{text}"', '{{"c": "ascii"}}'],
            ARRAY['{text}', 'x{text}', '{text}{text}', 'ascii']) WITH ORDINALITY AS r (d, v, i)"#
    ));
    client
}

#[test]
fn the_extension_is_refused_where_the_encoding_is_not_utf8() {
    for (encoding, _) in OTHERS {
        let mut client = create_database(shared(), &format!("refused_{encoding}"), encoding);
        client.run("CREATE EXTENSION vector");
        let error = client.error("CREATE EXTENSION pgseal");
        assert_eq!(error.code().code(), "0A000", "{error:?}");
        assert!(error.message().contains(encoding), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("-E UTF8")), "{error:?}");
        assert!(!client.one::<bool>("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'pgseal')"));
    }
}

#[test]
fn an_old_database_of_another_encoding_loses_no_text() {
    for (encoding, text) in OTHERS {
        let mut client = old_database(shared(), &format!("old_{encoding}"), encoding, text);
        for same in [
            "sealed::text = plain::text",
            "sealed::varchar = plain::varchar",
            "sealed::name = plain::text::name",
            "sealed::char(90) = plain::char(90)",
            "pgseal.decrypt(sealed) = plain",
            "pgseal.decrypt(plain::json::encrypted_jsonb(a)) = plain",
            "sealed @> plain",
            "(sealed ->> 'c') IS NOT DISTINCT FROM (plain ->> 'c')",
            "pgseal.decrypt(sealed || sealed) = plain || plain",
            "body = word",
            "body::text = word",
            "body::name = word::name",
            "pgseal.decrypt(word::encrypted_text(a)) = word",
        ] {
            assert!(client.one::<bool>(&format!("SELECT bool_and({same}) FROM docs")), "{encoding}: {same}");
        }
        client.run("UPDATE docs SET sealed = replace(sealed::text, 'x', 'y')::jsonb, plain = replace(plain::text, 'x', 'y')::jsonb");
        client.run(
            "ALTER EXTENSION pgseal UPDATE; SELECT pgseal.rotate_key('a'), pgseal.rotate_index_key('a')",
        );
        client.run("CALL pgseal.reencrypt('docs', 'sealed')");
        // A default that quotes the text beside a value.
        client
            .run(&format!("ALTER TABLE docs ALTER word SET DEFAULT '{text}'; SELECT pgseal.rotate_key('a')"));
        assert!(
            client.one::<bool>(
                "SELECT bool_and(pgseal.decrypt(sealed) = plain AND body::text = word) FROM docs"
            )
        );
    }
}

#[test]
fn names_of_another_encoding_are_errors_and_no_other_names() {
    // Roles are shared by all databases, and pg_dump fails in one where the name of a role is no text.
    let cluster = Cluster::start(&[]);
    let mut client = old_database(&cluster, "old_names", "LATIN1", "Zürich");
    for (statement, state) in [
        ("SELECT pgseal.create_keyring('ké')", "22021"),
        ("CREATE TABLE odd (m encrypted_jsonb(\"ké\"))", "22021"),
        ("SELECT pgseal.set_searchable('a', ARRAY['$.é'])", "22021"),
        ("SELECT pgseal.filter('{}', 'ké')", "22021"),
        ("SELECT pgseal.encrypt('{}'::jsonb, context => 'é')", "22021"),
        ("SELECT pgseal.between(sealed, '$.é', 1, 2) FROM docs", "22021"),
        ("SELECT FROM docs WHERE pgseal.between(sealed, '$.é', 1, 2)", "22021"),
        ("SELECT FROM docs WHERE sealed @@ pgseal.filter_casefold('{\"c\": \"ZÜRICH\"}')", "0A000"),
        ("SET pgseal.keyring = 'ké'; SELECT pgseal.encrypt('{}'::jsonb)", "42704"),
    ] {
        let error = client.error(statement);
        assert_eq!(error.code().code(), state, "{statement}: {error:?}");
    }
    client.run(
        "RESET pgseal.keyring; CREATE ROLE \"Rolé\"; SELECT pgseal.grant_keyring('a', 'Rolé', '{decrypt}')",
    );
    client.run("GRANT SELECT ON docs TO \"Rolé\"; SET pgseal.log_decrypts = 'statement'; SET ROLE \"Rolé\"");
    client.run("SELECT pgseal.decrypt(sealed) FROM docs; RESET ROLE");
    assert!(cluster.log().contains(r#"role "Rol\xE9""#));
}

#[test]
fn text_from_a_database_of_another_encoding_is_an_error() {
    let cluster = shared();
    for (encoding, text) in OTHERS.into_iter().filter(|(encoding, _)| *encoding != "SQL_ASCII") {
        let name = format!("moved_{encoding}");
        drop(old_database(cluster, &name, encoding, text));
        let dump = run(cluster.program("pg_dump", "postgres").args(["--encoding=UTF8", &name]));
        let mut client = create_database(cluster, &format!("{name}_utf8"), "UTF8");
        let restored = cluster.psql(&format!("{name}_utf8"), &[""; 0], &dump);
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        for read in [
            "pgseal.decrypt(sealed)",
            "sealed::text",
            "pgseal.decrypt(sealed -> 'c')",
            "body::text",
            "body::name",
        ] {
            let ascii: i64 = client.one(&format!("SELECT count({read}) FROM docs WHERE id = 4"));
            assert_eq!(ascii, 1, "{encoding}: {read}");
            let error = client.error(&format!("SELECT {read} FROM docs WHERE id = 1"));
            assert_eq!(error.code().code(), "22021", "{encoding}: {read}: {error:?}");
        }
        for id in [2, 3] {
            let state = client.state(&format!("SELECT pgseal.decrypt(sealed) FROM docs WHERE id = {id}"));
            assert_eq!(state, "22021", "{encoding}, row {id}");
        }
    }
}

/// A database in UTF8 with the same documents plain and sealed.
static CLIENTS: LazyLock<()> = LazyLock::new(|| {
    let mut client = create_database(shared(), "clients", "UTF8");
    client.run("CREATE EXTENSION pgseal CASCADE");
    client.run(r#"SELECT pgseal.create_keyring('a', ARRAY['{"path": "$.**", "casefold": true}'])"#);
});

/// psql whose client encoding is `encoding`; input and output are its bytes.
fn psql(encoding: &str, sql: &[u8]) -> Vec<u8> {
    let mut psql = shared().program("psql", "postgres");
    psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", "clients"]).env("PGCLIENTENCODING", encoding);
    let mut child =
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql");
    child.stdin.take().expect("its input").write_all(sql).expect("write");
    let output = child.wait_with_output().expect("psql");
    assert!(output.status.success(), "{encoding}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn clients_of_every_encoding_read_and_write_their_own_text() {
    LazyLock::force(&CLIENTS);
    // In SJIS and BIG5 the second byte of a character may be a backslash.
    for (encoding, text, upper) in [
        ("LATIN1", &b"Z\xFCrich"[..], &b"Z\xDCRICH"[..]),
        ("WIN1252", b"5 \x80", b"5 \x80"),
        ("EUC_JP", b"\xC5\xEC\xB5\xFE", b"\xC5\xEC\xB5\xFE"),
        ("SJIS", b"\x95\x5C\x83\x5C", b"\x95\x5C\x83\x5C"),
        ("BIG5", b"\xA5\x5C", b"\xA5\x5C"),
        ("KOI8R", b"\xED\xCF\xD3\xCB\xD7\xC1", b"\xED\xEF\xF3\xEB\xF7\xE1"),
    ] {
        let table = format!("t_{encoding}");
        let sql = |script: &str, text: &[u8]| {
            let script = script.replace("DOCS", &table);
            let parts: Vec<&[u8]> = script.split("TEXT").map(str::as_bytes).collect();
            psql(encoding, &parts.join(text))
        };
        sql("CREATE TABLE DOCS (id serial, plain jsonb, sealed encrypted_jsonb(a), loose encrypted_jsonb, body encrypted_text(a));
            CREATE INDEX ON DOCS USING gin (sealed)", text);
        let document = r#"{"k": "TEXT", "TEXT": ["TEXT"]}"#;
        sql(
            &format!(
                "INSERT INTO DOCS (plain, sealed, loose, body) VALUES ('{document}', '{document}', '{document}', 'TEXT')"
            ),
            text,
        );
        // COPY takes a backslash for its own, unless it is part of a character.
        sql(
            &format!(
                "COPY DOCS (plain, sealed, loose, body) FROM stdin;\n{document}\t{document}\t{document}\tTEXT\n\\.\n"
            ),
            text,
        );
        for condition in [
            r#"sealed @> '{"k": "TEXT"}'"#,
            r#"loose @> '{"TEXT": ["TEXT"]}'"#,
            "sealed ->> 'k' = 'TEXT'",
            "body = 'TEXT' AND sealed ? 'TEXT'",
            "pgseal.decrypt(sealed) = plain AND plain ->> 'k' = 'TEXT'",
        ] {
            let found = sql(&format!("SELECT count(*) FROM DOCS WHERE {condition}"), text);
            assert_eq!(found, b"2\n", "{encoding}: {condition}");
        }
        let folded = sql(
            r#"SELECT count(*) FROM DOCS WHERE sealed @@ pgseal.filter_casefold('{"k": "TEXT"}')"#,
            upper,
        );
        assert_eq!(folded, b"2\n", "{encoding}");
        let line = [text, b"|", text, b"|", text, b"\n"].concat();
        let read =
            "SELECT pgseal.decrypt(sealed) ->> 'k', loose::jsonb ->> 'k', body::text FROM DOCS WHERE id = 2";
        assert_eq!(sql(read, text), line, "{encoding}");
        let revealed =
            "LOAD 'pgseal'; SET pgseal.reveal = on; SELECT body, body, body FROM DOCS WHERE id = 1";
        assert_eq!(sql(revealed, text), line, "{encoding}");
        let copied = "COPY (SELECT sealed::jsonb = plain, loose::jsonb = plain, body::text FROM DOCS WHERE id = 1) TO stdout";
        assert_eq!(sql(copied, text), [b"t\tt\t", text, b"\n"].concat(), "{encoding}");
        // Ciphertext is ASCII, and goes back as it came.
        let out = sql("COPY (SELECT sealed, body FROM DOCS) TO stdout", text);
        assert!(out.is_ascii());
        let back = [b"COPY DOCS (sealed, body) FROM stdin;\n", out.as_slice(), b"\\.\n"].concat();
        sql(std::str::from_utf8(&back).expect("ASCII"), text);
        let different = "SELECT count(DISTINCT pgseal.decrypt(sealed)::text || body::text) FROM DOCS";
        assert_eq!(sql(different, text), b"1\n", "{encoding}");
    }
}
