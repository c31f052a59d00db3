//! What is on disk, in the log and in dumps; and that dumps and copies can be read where the KMS can be reached.

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::process::Command;

use postgres::Client;
use postgres::types::private::BytesMut;
use postgres::types::{Format, IsNull, ToSql, Type};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::{Cluster, Sql, as_server, output, run};

/// A parameter that is sent as text and leaves its type to the server.
#[derive(Debug)]
struct Untyped(String);

impl ToSql for Untyped {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(ty, out)
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }
}

/// A word that is nowhere else; every canary of one kind starts with it.
fn tag() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Names of the files below `place` that hold `needle`.
fn files_with(needle: &str, place: &Path) -> Vec<String> {
    let mut grep = Command::new("grep");
    let found = output(grep.env("LC_ALL", "C").args(["-r", "-l", "-a", "-F", "-e", needle]).arg(place));
    assert!(found.status.code().is_some_and(|code| code < 2), "{found:?}");
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn dump(cluster: &Cluster, role: &str, arguments: &[&str]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    run(cluster.program("pg_dump", role).args(["-f", path]).args(arguments));
    file
}

/// Everything that an application does with a row, `tag` being part of every value and parameter.
fn use_bound_parameters(client: &mut Client, tag: &str) {
    let document = |word: &str| {
        let long = format!("{tag}long").repeat(if word == "toasted" { 1000 } else { 1 });
        json!({ "name": format!("{tag}{word}"), format!("{tag}key"): [word, format!("{tag}item")], "long": long })
    };
    let untyped = "INSERT INTO docs (v, m, t) VALUES ('[1,2,3]', $1, $2)";
    let typed = "INSERT INTO docs (v, m, t) VALUES ('[1,2,3]', $1::jsonb, $2::text)";
    for word in ["kept", "updated", "deleted", "toasted"] {
        for round in 0..5 {
            let text = format!("{tag}text{round}");
            client.execute(untyped, &[&Untyped(document(word).to_string()), &Untyped(text.clone())]).unwrap();
            client.execute(typed, &[&document(word), &text]).unwrap();
        }
    }
    let one = |word: &str| json!({ "name": format!("{tag}{word}") });
    client
        .execute("UPDATE docs SET m = $1::jsonb WHERE m @> $2", &[&document("new"), &one("updated")])
        .unwrap();
    client.execute("DELETE FROM docs WHERE m @> $1", &[&one("deleted")]).unwrap();
    client.run("ANALYZE docs");
    for sql in [
        "SELECT id FROM docs WHERE m @> $1 ORDER BY v <-> '[0,0,0]' LIMIT 3",
        "SELECT id FROM docs WHERE m @@ pgseal.filter($1)",
        "SELECT pgseal.decrypt(m)::text FROM docs WHERE m @> $1",
    ] {
        for scan in ["on", "off"] {
            client.run(&format!("SET enable_seqscan = {scan}"));
            assert!(!client.query(sql, &[&one("kept")]).unwrap().is_empty());
        }
    }
    // Errors: half a document, a constraint that shows the row, and one while a parameter is there.
    let half = Untyped(format!("{{\"name\": \"{tag}half"));
    assert!(client.execute("INSERT INTO docs (m) VALUES ($1)", &[&half]).is_err());
    let null = "INSERT INTO docs (id, m) VALUES (NULL, $1::jsonb)";
    assert!(client.execute(null, &[&document("failing row")]).is_err());
    assert!(client.query("SELECT 1 / 0 FROM docs WHERE m @> $1", &[&one("kept")]).is_err());
    assert!(
        client.execute("INSERT INTO docs (v, m) VALUES ('[1]', $1::jsonb)", &[&document("vector")]).is_err()
    );
}

#[test]
fn no_file_log_or_dump_holds_what_was_encrypted() {
    let cluster = Cluster::with_pgseal(&[
        "wal_compression = off",
        "log_statement = all",
        "log_min_duration_statement = 0",
        "log_parameter_max_length = 0",
    ]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name'])");
    client.run(
        "CREATE TABLE docs (id serial PRIMARY KEY, v vector(3), m encrypted_jsonb(k), t encrypted_text(k))",
    );
    client.run("CREATE INDEX ON docs USING gin (m); CREATE INDEX ON docs USING hnsw (v vector_l2_ops)");
    let (secret, control) = (tag(), tag());
    use_bound_parameters(&mut client, &secret);
    for function in ["rotate_key", "rotate_index_key"] {
        client.run(&format!("SELECT pgseal.{function}('k')"));
        client.run("CALL pgseal.reencrypt('docs', 'm')");
        client.run("CALL pgseal.reencrypt('docs', 't')");
    }
    client.run("CREATE TABLE control (m jsonb)");
    client.run(&format!("INSERT INTO control VALUES ('{{\"name\": \"{control}\"}}')"));
    client.run("ANALYZE; CHECKPOINT");

    let everything = cluster.data_dir().parent().unwrap().to_owned();
    let nothing: [&str; 0] = [];
    assert_eq!(files_with(&secret, &everything), nothing);
    let found = files_with(&control, &everything);
    for place in ["/data/base/", "/data/pg_wal/", "/log"] {
        assert!(found.iter().any(|file| file.contains(place)), "{place}: {found:?}");
    }
    for arguments in [&["postgres"] as &[&str], &["--inserts", "postgres"], &["-Fc", "-Z0", "postgres"]] {
        let dump = dump(&cluster, "postgres", arguments);
        assert_eq!(files_with(&secret, dump.path()), nothing);
        assert_eq!(files_with(&control, dump.path()).len(), 1);
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE pgseal.decrypt(t) LIKE '%text%'"), 30);
    // Statistics are written when the server stops.
    drop(client);
    cluster.stop();
    assert_eq!(files_with(&secret, &everything), nothing);
    cluster.start_again();
}

/// A database "app" whose tables belong to the ordinary role "owner".
fn filled() -> Cluster {
    let cluster = Cluster::start(&[]);
    cluster.connect("postgres").run("CREATE ROLE owner LOGIN; CREATE ROLE reader");
    cluster.connect("postgres").run("CREATE DATABASE app OWNER owner");
    let mut admin = cluster.connect("app");
    admin.run("CREATE EXTENSION pgseal CASCADE; GRANT CREATE ON SCHEMA public TO owner");
    admin.run("SELECT pgseal.create_keyring('k', ARRAY['$.a']), pgseal.create_keyring('Odd \"k\"')");
    admin.run("SELECT pgseal.grant_keyring('k', 'owner', ARRAY['encrypt', 'search', 'decrypt'])");
    admin.run("SELECT pgseal.grant_keyring('k', 'public', ARRAY['search'])");
    let mut owner = cluster.connect_as("owner", "app");
    owner.run(
        r#"CREATE TABLE docs (id serial PRIMARY KEY, m encrypted_jsonb(k) DEFAULT '{"a": "default"}');
           CREATE INDEX docs_m ON docs USING gin (m);
           CREATE TABLE a_texts (id serial, t encrypted_text(k));
           CREATE VIEW chosen AS SELECT id FROM docs WHERE m @> '{"a": 3}';
           INSERT INTO docs (m) SELECT jsonb_build_object('a', n % 5, 'n', n) FROM generate_series(1, 50) n;
           INSERT INTO docs (m) VALUES (NULL), (DEFAULT);
           INSERT INTO docs (m) SELECT jsonb_build_object('long', string_agg(md5(n::text), '')) FROM generate_series(1, 500) n;
           INSERT INTO a_texts (t) SELECT 'text ' || n FROM generate_series(1, 5) n"#,
    );
    admin.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_index_key('k')");
    owner.run(r#"INSERT INTO docs (m) VALUES ('{"a": 3}')"#);
    cluster
}

/// The values as they are stored.
fn bytes(client: &mut Client) -> Vec<Option<Vec<u8>>> {
    let mut all = client.column("SELECT pgseal.encrypted_jsonb_send(m) FROM docs ORDER BY id");
    all.extend(client.column("SELECT pgseal.encrypted_text_send(t) FROM a_texts ORDER BY id"));
    all
}

/// What the values say.
fn answers(client: &mut Client) -> Vec<Option<String>> {
    let mut all = client.column("SELECT md5(pgseal.decrypt(m)::text) FROM docs ORDER BY id");
    all.extend(client.column("SELECT pgseal.decrypt(t) FROM a_texts ORDER BY id"));
    for scan in ["on", "off"] {
        client.run(&format!("SET enable_seqscan = {scan}"));
        all.extend(
            client.column(r#"SELECT string_agg(id::text, ' ' ORDER BY id) FROM docs WHERE m @> '{"a": 3}'"#),
        );
        all.extend(client.column("SELECT string_agg(id::text, ' ' ORDER BY id) FROM chosen"));
    }
    all.extend(client.column("SELECT string_agg(v::text, ' ' ORDER BY v) FROM pgseal.keyrings v"));
    all.extend(client.column("SELECT string_agg(v::text, ' ' ORDER BY v) FROM pgseal.keys v"));
    all.extend(client.column("SELECT string_agg(p::text, ' ' ORDER BY p) FROM pgseal.privilege p"));
    all
}

/// Restores into the database `name`, which is new.
fn restore(cluster: &Cluster, name: &str, dump: &Path, custom: bool) -> Client {
    cluster.connect("postgres").run(&format!("CREATE DATABASE {name}"));
    let (program, arguments) =
        if custom { ("pg_restore", ["--exit-on-error", "-d", name]) } else { ("psql", ["-X", "-q", name]) };
    let mut restore = cluster.program(program, "postgres");
    if custom {
        restore.args(arguments).arg(dump)
    } else {
        restore.args(["-v", "ON_ERROR_STOP=1", "-o", "/dev/null"]).args(arguments).arg("-f").arg(dump)
    };
    run(&mut restore);
    cluster.connect(name)
}

#[test]
fn a_dump_by_anybody_restores_with_and_without_the_kms() {
    let source = filled();
    let keys = format!("pgseal.kms_endpoint = 'file://{}'", source.key_dir().display());
    let reaching = Cluster::start(&[&keys]);
    let cut_off = Cluster::start(&["pgseal.kms_endpoint = 'file:///nonexistent/keys'"]);
    for cluster in [&reaching, &cut_off] {
        cluster.connect("postgres").run("CREATE ROLE owner LOGIN; CREATE ROLE reader");
    }
    let mut client = source.connect("app");
    let (stored, said) = (bytes(&mut client), answers(&mut client));
    for (name, role, arguments) in [
        ("a", "postgres", &["app"] as &[&str]),
        ("b", "postgres", &["-Fc", "app"]),
        ("c", "owner", &["app"]),
        ("d", "owner", &["-Fc", "app"]),
        ("e", "owner", &["--column-inserts", "app"]),
    ] {
        let dump = dump(&source, role, arguments);
        let custom = arguments[0] == "-Fc";
        let mut client = restore(&reaching, name, dump.path(), custom);
        assert_eq!(bytes(&mut client), stored, "{name}");
        assert_eq!(answers(&mut client), said, "{name}");
        client.run(r#"INSERT INTO docs (m) VALUES ('{"a": 3}'); SELECT pgseal.rotate_key('k')"#);
        // Triggers run as whoever works on the table: so its owner does.
        client.run("SELECT pgseal.grant_keyring('k', 'owner', ARRAY['encrypt']); SET ROLE owner");
        client.run("CALL pgseal.reencrypt('docs', 'm')");
        client.run("RESET ROLE");
        assert_eq!(
            reaching.connect_as("owner", name).state("SELECT pgseal.encrypt('{}'::jsonb, 'Odd \"k\"')"),
            "42501"
        );

        let mut client = restore(&cut_off, name, dump.path(), custom);
        assert_eq!(bytes(&mut client), stored, "{name}");
        assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE pgseal.key_version(m) > 0"), 53);
        client.run("REINDEX TABLE docs; ANALYZE docs");
        for sql in
            ["SELECT pgseal.decrypt(m) FROM docs", "SELECT * FROM chosen", "INSERT INTO docs DEFAULT VALUES"]
        {
            let error = client.error(sql);
            assert_eq!(error.code().code(), "58030", "{sql}");
            assert!(error.message().contains("key directory is missing"), "{error}");
        }
    }
}

#[test]
fn one_table_can_be_emptied_and_restored() {
    let cluster = filled();
    let mut client = cluster.connect("app");
    let (stored, said) = (bytes(&mut client), answers(&mut client));
    for (role, arguments) in [
        ("postgres", &[] as &[&str]),
        ("owner", &[]),
        ("owner", &["--inserts"]),
        ("owner", &["--rows-per-insert=7"]),
    ] {
        let all = [&["--data-only", "-t", "docs", "-t", "a_texts", "app"], arguments].concat();
        let dump = std::fs::read_to_string(dump(&cluster, role, &all).path()).unwrap();
        client.run("TRUNCATE docs, a_texts");
        let psql = cluster.psql("app", &["-U", role], &dump);
        assert!(psql.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&psql.stderr));
        assert_eq!(bytes(&mut client), stored, "{role} {arguments:?}");
        assert_eq!(answers(&mut client), said, "{role} {arguments:?}");
    }
}

#[test]
fn a_physical_copy_reads_with_the_same_kms_only() {
    let source = filled();
    let mut client = source.connect("app");
    let (stored, said) = (bytes(&mut client), answers(&mut client));
    let copy = Cluster::start(&[]);
    let conf = std::fs::read_to_string(copy.data_dir().join("postgresql.conf")).unwrap();
    copy.stop();
    run(as_server("rm").arg("-rf").arg(copy.data_dir()));
    let program = source.program("pg_basebackup", "postgres");
    let mut backup = as_server(program.get_program());
    backup.args(["-U", "postgres", "--no-sync", "-c", "fast", "-h"]).arg(source.data_dir().parent().unwrap());
    run(backup.arg("-D").arg(copy.data_dir()));
    copy.write("data/postgresql.conf", &conf);
    copy.start_again();

    let mut client = copy.connect("app");
    assert_eq!(bytes(&mut client), stored);
    assert_eq!(client.state("SELECT pgseal.decrypt(m) FROM docs"), "28000");
    client.run(&format!("SET pgseal.kms_endpoint = 'file://{}'", source.key_dir().display()));
    client.run("SELECT pgseal.flush_keys()");
    assert_eq!(answers(&mut client), said);
    let value: Value = client.one(r#"SELECT pgseal.decrypt(m) FROM docs WHERE m @> '{"n": 7}'"#);
    assert_eq!(value, json!({ "a": 2, "n": 7 }));
}
