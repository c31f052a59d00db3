//! Values that nobody can open: who may bring them in, and what they hold up.

use std::io::Write;

use postgres::Client;

use crate::server::rotation::in_place::set_up;
use crate::support::{Sql, beside, document, fresh_database, shared, with_keyring};

/// An envelope of this data key version, with zeros for nonce, ciphertext and tag.
fn forged(version: &str) -> String {
    format!(
        "('pgseal:' || encode('\\x01010001' || int4send((SELECT id FROM pgseal.keyring WHERE name = 'k')) \
         || decode('{version}' || repeat('00', 46), 'hex'), 'base64'))"
    )
}

fn database(rows: usize) -> Client {
    let mut client = fresh_database();
    set_up(&mut client, rows);
    client
}

/// Runs it through psql; gives what it said.
fn said(client: &mut Client, sql: &str) -> String {
    let output = shared().psql(&client.database(), &[] as &[&str], sql);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn sealed_input_of_a_known_keyring_needs_encrypt() {
    let mut client = database(1);
    let name = client.database();
    let role = format!("{name}_inserter");
    client.run(&format!("CREATE ROLE {role} LOGIN; GRANT INSERT, SELECT ON docs TO {role}"));
    client.run(&format!(
        "CREATE TABLE loose (m encrypted_jsonb, x encrypted_text); GRANT INSERT ON loose TO {role}"
    ));
    let text: String = client.one(&format!("SELECT {}", forged("0002")));
    let bytes: Vec<u8> = client.one("SELECT pgseal.encrypted_jsonb_send(m) FROM docs");
    let mut session = shared().connect_as(&role, &name);
    let copy = |session: &mut Client, statement: &str, data: &[u8]| {
        let mut writer = session.copy_in(statement).unwrap();
        writer.write_all(data).unwrap();
        writer.finish().err().map(|error| error.code().unwrap().code().to_owned())
    };
    let mut binary = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01".to_vec();
    binary.extend((bytes.len() as u32).to_be_bytes());
    binary.extend(&bytes);
    binary.extend(b"\xff\xff");
    let refused = Some("42501".to_owned());
    for statement in [
        format!("INSERT INTO docs VALUES (2, '{text}')"),
        format!("INSERT INTO loose (m) SELECT {}::encrypted_jsonb", forged("0002")),
        format!("SELECT '{text}'::encrypted_jsonb"),
        format!("DO $$ DECLARE v encrypted_jsonb; BEGIN v := '{text}'; END $$"),
    ] {
        assert_eq!(session.state(&statement), "42501", "{statement}");
    }
    let from_text =
        |session: &mut Client| copy(session, "COPY loose (m) FROM STDIN", format!("{text}\n").as_bytes());
    let from_binary =
        |session: &mut Client| copy(session, "COPY loose (m) FROM STDIN (FORMAT binary)", &binary);
    assert_eq!([from_text(&mut session), from_binary(&mut session)], [refused.clone(), refused]);
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt'])"));
    assert_eq!([from_text(&mut session), from_binary(&mut session)], [None, None]);
    // A restore may come before the keyrings, and needs nothing.
    client.run(&format!("SELECT pgseal.revoke_keyring('k', '{role}')"));
    assert_eq!(from_binary(&mut client), None);
    client.run("DROP TABLE docs; SELECT pgseal.drop_keyring('k', force => true)");
    assert_eq!([from_text(&mut session), from_binary(&mut session)], [None, None]);
}

#[test]
fn rows_that_cannot_be_read_are_left_out_and_named() {
    for rotation in ["update", "in_place"] {
        let mut client = database(50);
        client.run("CREATE TABLE saved AS SELECT m FROM docs LIMIT 1");
        // Not authentic; of a key that there is not; of a keyring that there is not, which a bound column does not take.
        client.run(&format!("INSERT INTO docs SELECT 101, {}::encrypted_jsonb", forged("0001")));
        client.run(&format!("INSERT INTO docs SELECT 102, {}::encrypted_jsonb", forged("0909")));
        client.run("ALTER TABLE docs ADD loose encrypted_jsonb; UPDATE docs SET loose = m WHERE id < 10");
        client.run(
            "UPDATE docs SET loose = (SELECT ('pgseal:' || replace(encode(set_byte(b, 7, get_byte(b, 7) # 1), 'base64'), E'\\n', ''))::encrypted_jsonb
               FROM (SELECT pgseal.encrypted_jsonb_send(m) AS b FROM docs WHERE id = 1) v) WHERE id = 5",
        );
        let place = |client: &mut Client, id: i32| {
            client.one::<String>(&format!("SELECT ctid::text FROM docs WHERE id = {id}"))
        };
        let call = format!("CALL pgseal.reencrypt('docs', 'm', batch_size => 10, rotation => '{rotation}')");
        // In place, dead row versions count too.
        client.run("VACUUM docs");
        let heard = said(&mut client, &call);
        assert!(heard.contains("50 rows of docs.m re-encrypted"), "{heard}");
        let [first, second] = [place(&mut client, 101), place(&mut client, 102)];
        assert!(heard.contains("WARNING:  2 rows of public.docs stay as they were"), "{heard}");
        assert!(heard.contains(&format!("{first}: authentication of an encrypted value failed")), "{heard}");
        assert!(heard.contains(&format!("{second}: keyring \"k\" has no data key version 2313")), "{heard}");
        assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE NOT pgseal.is_current(m)"), 2);
        assert_eq!(
            client.one::<String>("SELECT state FROM pgseal.rotation_progress WHERE column_name = 'm'"),
            "finished"
        );
        // Again, it is the same, and no row is written.
        let heard = said(&mut client, &call);
        assert!(
            heard.contains("\u{20}0 rows of docs.m re-encrypted") && heard.contains("WARNING:  2 rows"),
            "{heard}"
        );
        let heard = said(&mut client, &call.replace("'m'", "'loose'"));
        assert!(
            heard.contains("WARNING:  1 rows of public.docs") && heard.contains(&place(&mut client, 5)),
            "{heard}"
        );
        assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE NOT pgseal.is_current(loose)"), 1);
        client.run("DROP TABLE saved");
        assert_eq!(client.state("SELECT pgseal.retire_key('k', 1)"), "55000");
        client.run("DELETE FROM docs WHERE id = 101");
        client.run("SELECT pgseal.retire_key('k', 1)");
    }
}

#[test]
fn a_document_too_deep_for_new_tokens_is_left_out_and_named() {
    let mut client = with_keyring("{}");
    client.run("CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k))");
    client.run(&format!("INSERT INTO docs SELECT n, {} FROM generate_series(1, 30) n", document("n", 10)));
    client.run(r#"INSERT INTO docs VALUES (31, (repeat('{"a":', 1500) || '1' || repeat('}', 1500))::jsonb)"#);
    client.run("INSERT INTO docs SELECT 32, jsonb_agg(n) FROM generate_series(1, 70000) n");
    client.run("SELECT pgseal.set_searchable('k', ARRAY['$.**'])");
    let heard = said(&mut client, "CALL pgseal.reencrypt('docs', 'm')");
    assert!(
        heard.contains("30 rows of docs.m re-encrypted") && heard.contains("WARNING:  2 rows"),
        "{heard}"
    );
    for id in [31, 32] {
        let place: String = client.one(&format!("SELECT ctid::text FROM docs WHERE id = {id}"));
        assert!(heard.contains(&format!("{place}: ")), "{id}: {heard}");
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE pgseal.is_current(m)"), 30);
    let error = client.error("SELECT count(*) FROM docs WHERE pgseal.between(m, '$.n', 1, 2::numeric)");
    assert_eq!(error.code().code(), "54000");
    assert!(error.hint().is_some_and(|hint| hint.contains("pgseal.reencrypt(table, column)")), "{error}");
    // What a trigger raises is no fault of the value.
    client.run(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1 / 0; RETURN NEW; END';
         CREATE TRIGGER t BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION f()",
    );
    client.run("SELECT pgseal.rotate_key('k')");
    let mut other = beside(&mut client);
    assert_eq!(other.state("CALL pgseal.reencrypt('docs', 'm')"), "22012");
}
