//! `pgseal.verify`: every value is looked at, and no bad one stops it.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use postgres::Client;

use crate::support::{Cluster, Sql, shared, with_keyring};

/// A database with the keyring k and three documents in docs.
fn database() -> Client {
    let mut client = with_keyring("{$.a}");
    client.run("CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k))");
    client.run("INSERT INTO docs SELECT id, jsonb_build_object('a', id) FROM generate_series(1, 3) id");
    client
}

/// Every row of the answer, problems with their place.
fn verify(client: &mut Client, arguments: &str) -> Vec<String> {
    client.column(&format!(
        "SELECT concat_ws(' ', result, number_of_values, keyring, key_version, finding, relation, row_ctid) \
         FROM pgseal.verify({arguments}) ORDER BY result, keyring, key_version, finding COLLATE \"C\" NULLS FIRST, relation, row_ctid"
    ))
}

/// The text of row `id`'s value with one bit of its byte `at` turned, counted from the end.
fn damaged(id: i32, at: i32) -> String {
    format!(
        "(SELECT concat('pgseal:', replace(encode(set_byte(b, n, get_byte(b, n) # 1), 'base64'), E'\\n', '')) \
         FROM (SELECT pgseal.encrypted_jsonb_send(m) AS b, octet_length(pgseal.encrypted_jsonb_send(m)) - {at} AS n \
                 FROM docs WHERE id = {id}) v)"
    )
}

/// Stores the damaged value as what arrives sealed.
fn damage(client: &mut Client, id: i32, at: i32) {
    let text: String = client.one(&format!("SELECT {}", damaged(id, at)));
    client.run(&format!("UPDATE docs SET m = '{text}' WHERE id = {id}"));
}

#[test]
fn authentic_values_are_counted_by_keyring_and_key_version() {
    let mut client = database();
    client.run("INSERT INTO docs VALUES (4, NULL); SELECT pgseal.rotate_key('k')");
    client.run(r#"INSERT INTO docs VALUES (5, '{"a": 5}')"#);
    assert_eq!(verify(&mut client, "'docs', 'm'"), ["authentic 3 k 1", "authentic 1 k 2"]);
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    assert_eq!(verify(&mut client, "'docs', 'm'"), ["authentic 4 k 2"]);
    client.run("TRUNCATE docs");
    assert!(verify(&mut client, "'docs', 'm'").is_empty());
}

#[test]
fn values_toasted_partitioned_in_domains_and_views_are_read() {
    let mut client = database();
    client.run(
        "CREATE DOMAIN note AS encrypted_text(k); CREATE TABLE parts (id int, t note) PARTITION BY LIST (id)",
    );
    client.run("CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1); CREATE TABLE part_2 PARTITION OF parts DEFAULT");
    client.run("INSERT INTO parts SELECT n % 3, repeat(md5(n::text), 400) FROM generate_series(1, 30) n");
    assert!(client.one::<bool>(
        "SELECT pg_relation_size(reltoastrelid) > 100000 FROM pg_class WHERE relname = 'part_2'"
    ));
    assert_eq!(verify(&mut client, "'parts', 't'"), ["authentic 30 k 1"]);
    client.run("CREATE MATERIALIZED VIEW seen AS SELECT m FROM docs");
    assert_eq!(verify(&mut client, "'seen', 'm'"), ["authentic 3 k 1"]);
}

#[test]
fn a_value_that_was_altered_is_found_and_the_others_are_counted() {
    let mut client = database();
    for (id, at) in [(1, 1), (2, 20)] {
        damage(&mut client, id, at);
    }
    assert_eq!(
        verify(&mut client, "'docs', 'm'"),
        [
            "authentic 1 k 1",
            "corrupt 1 k 1 authentication failed docs (0,4)",
            "corrupt 1 k 1 authentication failed docs (0,5)",
        ]
    );
    // What is not listed is counted.
    assert_eq!(
        verify(&mut client, "'docs', 'm', max_listed => 1"),
        [
            "authentic 1 k 1",
            "corrupt 1 k 1 authentication failed docs (0,4)",
            "corrupt 1 k 1 authentication failed"
        ]
    );
}

#[test]
fn bytes_that_are_no_value_or_one_of_another_type_are_corrupt() {
    let mut client = database();
    client.run("CREATE TABLE bytes (b bytea); INSERT INTO bytes VALUES ('\\x01'), (''), ('\\x0901000100000001000100010002000000000000')");
    client.run("INSERT INTO bytes SELECT pgseal.encrypted_jsonb_send(m) FROM docs LIMIT 1");
    client.run("INSERT INTO bytes SELECT pgseal.encrypted_text_send(pgseal.encrypt('text', 'k'))");
    client.run("UPDATE pg_attribute SET atttypid = 'encrypted_jsonb'::regtype WHERE attrelid = 'bytes'::regclass AND attname = 'b'");
    assert_eq!(
        verify(&mut client, "'bytes', 'b'"),
        [
            "authentic 1 k 1",
            "corrupt 1 k 1 authentic, but not of the column's type bytes (0,5)",
            "corrupt 1 the value has an unknown format bytes (0,3)",
            "corrupt 1 the value is cut short bytes (0,1)",
            "corrupt 1 the value is cut short bytes (0,2)",
        ]
    );
}

#[test]
fn a_moved_value_is_found_by_context_and_authentic_without() {
    let mut client = database();
    client.run("CREATE TABLE bound (id int, note text, m encrypted_jsonb(k))");
    client.run("INSERT INTO bound SELECT n, NULL, pgseal.encrypt('{}'::jsonb, 'k', n::text) FROM generate_series(1, 4) n");
    client.run("INSERT INTO bound VALUES (5, NULL, '{}'::jsonb)");
    assert_eq!(
        verify(&mut client, "'bound', 'm', 'id::text'"),
        ["authentic 4 k 1", "authentic 1 k 1 not bound to a context"]
    );
    client.run("UPDATE bound SET m = (SELECT m FROM bound b WHERE b.id = 3 - bound.id) WHERE id < 3");
    assert_eq!(
        verify(&mut client, "'bound', 'm', 'id::text'"),
        [
            "authentic 2 k 1",
            "authentic 1 k 1 not bound to a context",
            "moved 1 k 1 bound to another context bound (0,6)",
            "moved 1 k 1 bound to another context bound (0,7)",
        ]
    );
    let without: i64 = client.one(
        "SELECT sum(number_of_values)::int8 FROM pgseal.verify('bound', 'm') WHERE result = 'authentic'",
    );
    assert_eq!(without, 5);
    let null = client.one::<i64>("SELECT count(*) FROM pgseal.verify('bound', 'm', 'note') WHERE result = 'moved' AND finding LIKE '%NULL'");
    assert_eq!(null, 4);
}

#[test]
fn a_missing_key_makes_its_values_unreadable_and_no_others() {
    let mut client = database();
    let name = client.database();
    let keys = shared().key_dir().join(&name);
    client.run(&format!("SELECT pgseal.create_keyring('gone', kms_endpoint => 'file://{}')", keys.display()));
    client.run("CREATE TABLE mixed (m encrypted_jsonb); INSERT INTO mixed SELECT m FROM docs");
    client.run("INSERT INTO mixed SELECT pgseal.encrypt('{}'::jsonb, 'gone') FROM generate_series(1, 2)");
    // A keyring that this database does not know, and a key version that it does not have.
    let value: String = client.one("SELECT m::text FROM (SELECT concat('\\x', encode(pgseal.encrypted_jsonb_send(m), 'hex')) AS m FROM docs LIMIT 1) d");
    client.run("CREATE TABLE bytes (b bytea)");
    client.run(&format!("INSERT INTO bytes SELECT set_byte(set_byte('{value}', 4, 1), 7, 77); INSERT INTO bytes SELECT set_byte('{value}', 9, 9)"));
    client.run("UPDATE pg_attribute SET atttypid = 'encrypted_jsonb'::regtype WHERE attrelid = 'bytes'::regclass AND attname = 'b'");
    client.run("INSERT INTO mixed SELECT b FROM bytes");

    std::fs::rename(&keys, keys.with_extension("away")).unwrap();
    let mut client = shared().connect(&name);
    let found = verify(&mut client, "'mixed', 'm'");
    assert_eq!(found[0], "authentic 3 k 1");
    let unreadable: Vec<&String> = found.iter().filter(|row| row.starts_with("unreadable 1 ")).collect();
    assert_eq!(unreadable.len(), 4, "{found:#?}");
    assert!(unreadable.iter().any(|row| row.contains("does not exist")), "{found:#?}");
    assert!(unreadable.iter().any(|row| row.contains("has no data key version 9")), "{found:#?}");
    assert_eq!(
        unreadable.iter().filter(|row| row.contains("KMS of keyring \"gone\"")).count(),
        2,
        "{found:#?}"
    );
    assert_eq!(found.len(), 5);
}

#[test]
fn verify_needs_decrypt_and_sees_all_rows_or_none() {
    let mut client = database();
    let name = client.database();
    let role = format!("{name} Role");
    client.run(&format!("CREATE ROLE \"{role}\" LOGIN; GRANT SELECT ON docs TO \"{role}\""));
    let mut session = shared().connect_as(&role, &name);
    let verify_docs = "SELECT * FROM pgseal.verify('docs', 'm')";
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['search', 'encrypt'])"));
    assert_eq!(session.state(verify_docs), "42501");
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['decrypt'])"));
    assert_eq!(verify(&mut session, "'docs', 'm'"), ["authentic 3 k 1"]);
    client.run("ALTER TABLE docs ENABLE ROW LEVEL SECURITY");
    assert_eq!(session.state(verify_docs), "42501");
    client.run("ALTER TABLE docs DISABLE ROW LEVEL SECURITY");
    // A column of many keyrings: what the role may not decrypt is told apart from what is damaged.
    client.run("SELECT pgseal.create_keyring('other'); CREATE TABLE mixed (m encrypted_jsonb); INSERT INTO mixed SELECT m FROM docs");
    client.run("INSERT INTO mixed SELECT pgseal.encrypt('{}'::jsonb, 'other')");
    client.run(&format!("GRANT SELECT ON mixed TO \"{role}\""));
    assert_eq!(
        verify(&mut session, "'mixed', 'm'"),
        [
            "authentic 3 k 1",
            "unreadable 1 other 1 permission denied for keyring \"other\": decrypt privilege needed mixed (0,4)"
        ]
    );
    client.run("ALTER TABLE docs ENABLE ROW LEVEL SECURITY");
    assert_eq!(session.state(verify_docs), "42501");
    assert_eq!(client.state("SELECT * FROM pgseal.verify('docs', 'id')"), "42809");
}

#[test]
fn a_page_that_was_changed_on_disk_does_not_stop_it() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run(
        "SELECT pgseal.create_keyring('k', ARRAY['$.a']); CREATE TABLE docs (id int, m encrypted_jsonb(k))",
    );
    client.run("INSERT INTO docs SELECT n, jsonb_build_object('a', n) FROM generate_series(1, 500) n");
    let on_page: i64 = client.one("SELECT count(*) FROM docs WHERE ctid >= '(1,0)' AND ctid < '(2,0)'");
    let path: String = client.one("SELECT pg_relation_filepath('docs')");
    drop(client);
    cluster.stop();
    let file = OpenOptions::new().read(true).write(true).open(cluster.data_dir().join(path)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 8192 + 8000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 8192 + 8000).unwrap();
    cluster.start_again();
    let mut client = cluster.connect("postgres");
    let found = verify(&mut client, "'docs', 'm'");
    assert_eq!(found[0], format!("authentic {} k 1", 500 - on_page));
    assert!(
        found[1].starts_with("corrupt the whole page: invalid page") && found[1].ends_with("docs (1,0)"),
        "{found:?}"
    );

    // Without checksums PostgreSQL notices nothing, and authentication does.
    client.run("ALTER SYSTEM SET ignore_checksum_failure = on");
    drop(client);
    cluster.restart();
    let mut client = cluster.connect("postgres");
    let found = verify(&mut client, "'docs', 'm'");
    assert_eq!(found[0], "authentic 499 k 1");
    assert!(found[1].starts_with("corrupt 1 ") && found[1].contains(" docs (1,"), "{found:?}");
}

#[test]
fn a_value_whose_parts_are_gone_does_not_stop_it() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run(
        "SELECT pgseal.create_keyring('k', ARRAY['$.a']); CREATE TABLE docs (id int, m encrypted_jsonb(k))",
    );
    client.run("INSERT INTO docs SELECT n, jsonb_build_object('a', repeat(md5(n::text), 400)) FROM generate_series(1, 300) n");
    let path: String =
        client.one("SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE relname = 'docs'");
    drop(client);
    cluster.stop();
    // An empty page, which PostgreSQL takes for what it is.
    let file = OpenOptions::new().write(true).open(cluster.data_dir().join(path)).unwrap();
    file.write_all_at(&[0; 8192], 10 * 8192).unwrap();
    cluster.start_again();
    let found = verify(&mut cluster.connect("postgres"), "'docs', 'm'");
    let corrupt = found.iter().filter(|row| row.starts_with("corrupt 1 ") && row.contains(" chunk ")).count();
    assert!((1..5).contains(&corrupt), "{found:?}");
    assert_eq!((found[0].clone(), found.len()), (format!("authentic {} k 1", 300 - corrupt), 1 + corrupt));
}

#[test]
fn an_expression_that_fails_for_a_row_does_not_end_it() {
    let mut client = database();
    client.run("UPDATE docs SET m = pgseal.encrypt('{}'::jsonb, 'k', (6 / id)::text)");
    client.run("INSERT INTO docs VALUES (0, pgseal.encrypt('{}'::jsonb, 'k', 'zero'))");
    let unreadable = "unreadable 1 the expression for the context fails with SQLSTATE 22012 docs (0,7)";
    assert_eq!(verify(&mut client, "'docs', 'm', '(6 / id)::text'"), ["authentic 3 k 1", unreadable]);
    client.run("CREATE FUNCTION picky(int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN IF $1 = 0 THEN RAISE 'secret'; END IF; RETURN (6 / $1)::text; END $$");
    let picked = verify(&mut client, "'docs', 'm', 'public.picky(id)'");
    assert!(picked.len() == 2 && !picked[1].contains("secret"), "{picked:?}");
    // What can be no better for another row ends it.
    assert_eq!(client.state("SELECT pgseal.verify('docs', 'm', 'nothing')"), "42703");
}

#[test]
fn stored_values_are_read_for_whoever_may_select_all_of_them() {
    let mut client = database();
    let name = client.database();
    let role = format!("{name}_reader");
    client.run(&format!(
        "CREATE ROLE {role} LOGIN; CREATE TABLE parts (id int, secret text, m encrypted_jsonb(k)) PARTITION BY LIST (id);
         CREATE TABLE low PARTITION OF parts DEFAULT; INSERT INTO parts SELECT id, 'plain', m FROM docs"
    ));
    let mut session = shared().connect_as(&role, &name);
    let read = "SELECT cardinality(pgseal.jsonb_values('low', 'm', 0, NULL))";
    assert_eq!(session.state(read), "42501");
    // Through the table above the partition, the column alone.
    client.run(&format!("GRANT SELECT (id, m) ON parts TO {role}"));
    assert_eq!(session.one::<i32>(read), 3);
    assert_eq!(session.one::<i64>("SELECT number_of_values FROM pgseal.key_usage('parts', 'm')"), 3);
    client.run("ALTER TABLE parts ENABLE ROW LEVEL SECURITY");
    assert_eq!(session.state(read), "42501");
    client.run("ALTER TABLE parts DISABLE ROW LEVEL SECURITY");
    // No other bytes become sealed values, and a page that is not there has none.
    client.run(&format!("GRANT SELECT ON parts TO {role}"));
    for (arguments, state) in [
        ("'low', 'secret', 0, NULL", "22023"),
        ("'parts', 'm', 0, NULL", "22023"),
        ("'low', 'nothing', 0, NULL", "22023"),
    ] {
        assert_eq!(session.state(&format!("SELECT pgseal.jsonb_values({arguments})")), state, "{arguments}");
    }
    assert_eq!(session.state("SELECT pgseal.text_values('low', 'm', 0, NULL)"), "22023");
    for page in ["1", "-1", "4294967296"] {
        assert_eq!(
            session.one::<i32>(&format!("SELECT cardinality(pgseal.jsonb_values('low', 'm', {page}, NULL))")),
            0
        );
    }
}
