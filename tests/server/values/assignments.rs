//! `UPDATE docs SET m['key'] = value`: what jsonb makes of it, sealed.

use postgres::Client;

use crate::support::{Sql, fresh_database};

/// Two keyrings; `docs` sealed under the first, `loose` without one, in schema plain the same as jsonb.
fn twins() -> Client {
    let mut client = fresh_database();
    client.run(
        r#"SELECT pgseal.create_keyring('a', '{$.p}'), pgseal.create_keyring('b');
           CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(a)); CREATE TABLE loose (id int PRIMARY KEY, m encrypted_jsonb);
           CREATE SCHEMA plain; CREATE TABLE plain.docs (id int PRIMARY KEY, m jsonb);
           INSERT INTO plain.docs VALUES (1, '{"p": "x", "n": {"c": "Oslo"}, "t": [1, 2]}'), (2, '{}'), (3, '[1, {"a": 2}]'), (4, NULL);
           INSERT INTO docs SELECT * FROM plain.docs"#,
    );
    client
}

/// What the statement leaves behind, or its error.
fn outcome(client: &mut Client, schema: &str, sql: &str) -> Result<Vec<Option<String>>, String> {
    client.run(&format!("SET search_path = {schema}, public; BEGIN"));
    let done = client.batch_execute(sql).map_err(|error| format!("{:?}", error.code()));
    let kept = done.map(|()| client.column("SELECT m::text FROM docs ORDER BY id"));
    client.run("ROLLBACK");
    kept
}

#[test]
fn an_assignment_makes_what_it_makes_of_jsonb() {
    let mut client = twins();
    for reveal in ["off", "on"] {
        client.run(&format!("SELECT pgseal.key_version(m) FROM docs; SET pgseal.reveal = {reveal}"));
        for sql in [
            "UPDATE docs SET m['p'] = '1' WHERE id <> 3",
            "UPDATE docs SET m['p'] = 'null' WHERE id <> 3",
            "UPDATE docs SET m['p'] = NULL WHERE id <> 3",
            "UPDATE docs SET m['n']['c'] = '\"Rome\"' WHERE id <> 3",
            "UPDATE docs SET m['t'][0] = '7', m['t'][5] = '8' WHERE id <> 3",
            "UPDATE docs SET m['t'][-1] = '7' WHERE id = 1",
            "UPDATE docs SET m['t'][-9] = '7' WHERE id = 1",
            "UPDATE docs SET m['p']['q'] = '7' WHERE id = 1",
            "UPDATE docs SET m['x'] = '1' WHERE id = 3",
            "UPDATE docs SET m[1]['a'] = '3', m[0] = to_jsonb(id) WHERE id = 3",
            "UPDATE docs SET m['a'] = '1', m['b'] = '2', m['a'] = '3' WHERE id = 2",
            "UPDATE docs SET m['a'] = o.m::jsonb FROM docs o WHERE o.id = 1 AND docs.id = 2",
            "INSERT INTO docs (id, m['p']['q']) VALUES (5, '1'), (6, '{}')",
            "INSERT INTO docs (id, m['p'], m['q']) VALUES (5, '1', '2')",
            "INSERT INTO docs (id) VALUES (1), (4) ON CONFLICT (id) DO UPDATE SET m['p'] = to_jsonb(excluded.id)",
            "MERGE INTO docs USING (VALUES (1), (4)) v (n) ON n = id WHEN MATCHED THEN UPDATE SET m['p'] = to_jsonb(n)",
            "PREPARE q (jsonb) AS UPDATE docs SET m['p'] = $1 WHERE id = 1; EXECUTE q ('5'); DEALLOCATE q",
            "CREATE VIEW v AS SELECT * FROM docs; UPDATE v SET m['p'] = '1' WHERE id = 1",
            "DO $$ BEGIN FOR i IN 1..7 LOOP UPDATE docs SET m['p'] = to_jsonb(i) WHERE id = 1; END LOOP; END $$",
            "UPDATE docs SET m['p'] = '{' WHERE id = 1",
        ] {
            assert_eq!(
                outcome(&mut client, "public", sql),
                outcome(&mut client, "plain", sql),
                "{reveal}: {sql}"
            );
        }
        client.run("SET search_path = public");
    }
    client.run("RESET pgseal.reveal; UPDATE docs SET m['p'] = '\"y\"' WHERE id = 1");
    // As sealed as everything else, tokens and all.
    assert!(client.text("SELECT m FROM docs WHERE id = 1").starts_with("pgseal:"));
    assert_eq!(
        client.one::<i64>(
            "SELECT count(*) FROM docs WHERE m OPERATOR(pgseal.@~) pgseal.filter('{\"p\": \"y\"}', 'a')"
        ),
        1
    );
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.column_keys('docs', 'm') WHERE in_transit"), 0);
}

#[test]
fn a_column_without_keyring_keeps_that_of_the_document() {
    let mut client = twins();
    client.run(
        "INSERT INTO loose VALUES (1, pgseal.encrypt('{}'::jsonb, 'a')), (2, pgseal.encrypt('{}'::jsonb, 'b')), (3, NULL);
         SET pgseal.keyring = 'b'; UPDATE loose SET m['x'] = '1'",
    );
    let keyrings =
        "SELECT k.name FROM loose l JOIN pgseal.keyring k ON k.id = pgseal.keyring_id(m) ORDER BY l.id";
    assert_eq!(client.column::<String>(keyrings), ["a", "b", "b"]);
}

#[test]
fn an_assignment_asks_for_decrypt_and_encrypt() {
    let mut client = twins();
    let role = format!("{}_assigns", client.database());
    client.run(&format!("CREATE ROLE {role}; GRANT ALL ON docs TO {role}"));
    for (privileges, state) in
        [("encrypt,search", "42501"), ("decrypt,search", "42501"), ("encrypt,decrypt", "")]
    {
        client.run(&format!("SELECT pgseal.revoke_keyring('a', '{role}'); SELECT pgseal.grant_keyring('a', '{role}', '{{{privileges}}}')"));
        client.run(&format!("SET ROLE {role}"));
        let sql = "UPDATE docs SET m['p'] = '1' WHERE id = 1";
        match state {
            "" => client.run(sql),
            state => assert_eq!(client.state(sql), state, "{privileges}"),
        }
        client.run("RESET ROLE");
    }
    client.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn variables_of_functions_are_assigned_to() {
    let mut client = twins();
    client.run(
        r#"DO $$ DECLARE v encrypted_jsonb; BEGIN
             SELECT m INTO v FROM docs WHERE id = 1;
             FOR i IN 1..7 LOOP v['p'] := to_jsonb(i); END LOOP;
             UPDATE docs SET m = v WHERE id = 2;
           END $$"#,
    );
    let kept: String = client.one("SELECT m::text FROM docs WHERE id = 2");
    assert_eq!(kept, r#"{"n": {"c": "Oslo"}, "p": 7, "t": [1, 2]}"#);
}
