//! Who may do what with a keyring: a test for each cell of the table in sql/privileges.md.

use postgres::Client;

use crate::support::{Sql, fresh_database, major_version, shared};

const NO: &str = "42501";

/// What a role may ask, and for each set of privileges whether it is let through.
const ALL: [&str; 6] = ["", "encrypt", "search", "decrypt", "encrypt search", "search decrypt"];

/// Statement, and what comes of it with the privileges of [`ALL`], one letter each: y passes, n is refused.
const CELLS: [(&str, &str); 30] = [
    ("SELECT sealed FROM docs", "yyyyyy"),
    ("INSERT INTO docs (sealed) VALUES ('{}'::jsonb)", "nynnyn"),
    ("SELECT pgseal.encrypt('{}'::jsonb, 'k')", "nynnyn"),
    (r#"UPDATE docs SET sealed = sealed || '{"b": 1}'"#, "nynnyn"),
    ("SELECT sealed - 'a' FROM docs", "nynnyn"),
    ("SELECT pgseal.decrypt(sealed) FROM docs", "nnnyny"),
    ("SELECT sealed::text FROM docs", "nnnyny"),
    (r#"SELECT FROM docs WHERE sealed @> '{"a": "x"}'"#, "nnynyy"),
    (r#"SELECT FROM docs WHERE sealed @> '{"a": "x", "c": {"d": 1}}'"#, "nnynyy"),
    (r#"SELECT FROM docs WHERE sealed @> '{"secret": "x"}'"#, "nnnnny"),
    (r#"SELECT FROM docs WHERE sealed @> '{"a": "x", "secret": {}}'"#, "nnnnny"),
    (r#"SELECT FROM docs WHERE sealed @> (SELECT '{"a": "x"}'::jsonb)"#, "nnynyy"),
    (r#"SELECT FROM docs WHERE sealed @> (SELECT '{"secret": "x"}'::jsonb)"#, "nnnnny"),
    (r#"SELECT pgseal.filter('{"secret": 1}', 'k')"#, "nnnnny"),
    (
        r#"SELECT FROM docs WHERE sealed @@ pgseal.filter_any(ARRAY['{"a": 1}', '{"secret": 1}']::jsonb[])"#,
        "nnnnny",
    ),
    ("SELECT sealed ->> 'a' FROM docs", "nnynyy"),
    ("SELECT sealed ->> 'secret' FROM docs", "nnnnny"),
    ("SELECT (sealed ->> 'a')::text FROM docs", "nnnnny"),
    ("SELECT FROM docs WHERE sealed ->> 'a' = 'x'::text", "nnynyy"),
    ("SELECT FROM docs WHERE sealed ->> 'secret' = 'x'::text", "nnnnny"),
    ("SELECT FROM docs WHERE sealed ->> 'a' = 'x'", "nnynyy"),
    ("SELECT FROM docs WHERE sealed ->> 'a' IN ('x', 'y')", "nnynyy"),
    ("SELECT FROM docs WHERE sealed ->> 'a' = ANY ('{x,y}'::text[])", "nnynyy"),
    ("SELECT FROM docs WHERE (sealed -> 'c') @> '{\"d\": 1}'", "nnnnny"),
    ("SELECT FROM docs WHERE sealed ? 'a'", "nnnnny"),
    ("SELECT FROM docs WHERE sealed ->> 'a' LIKE 'x%'", "nnnnny"),
    ("SELECT FROM docs WHERE pgseal.between(sealed, '$.n', 1, 2)", "nnnnny"),
    ("SELECT FROM docs WHERE body = 'x'::text", "nnnnny"),
    ("SELECT FROM docs WHERE word = 'x'::text", "nnynyy"),
    ("SELECT FROM docs a JOIN docs b ON a.word <> b.word", "nnynyy"),
];

/// Keyring k has three searchable paths, keyring w the whole of a text; a role with nothing but table privileges.
fn database() -> (Client, String) {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.a', '$.b', '$.c.d']), pgseal.create_keyring('w', ARRAY['$'])");
    client
        .run("CREATE TABLE docs (sealed encrypted_jsonb(k), body encrypted_text(k), word encrypted_text(w))");
    client.run(r#"INSERT INTO docs VALUES ('{"a": "x", "secret": "x", "c": {"d": 1}}', 'x', 'x')"#);
    let name = client.database();
    let role = format!("{name}_role");
    client.run(&format!("CREATE ROLE {role} LOGIN; GRANT ALL ON docs TO {role}"));
    (client, role)
}

fn connect(client: &mut Client, role: &str) -> Client {
    let name = client.database();
    shared().connect_as(role, &name)
}

fn set_privileges(client: &mut Client, role: &str, privileges: &str) {
    for keyring in ["k", "w"] {
        client.run(&format!("SELECT pgseal.revoke_keyring('{keyring}', '{role}')"));
        let granted = privileges.replace(' ', ",");
        client.run(&format!("SELECT pgseal.grant_keyring('{keyring}', '{role}', '{{{granted}}}')"));
    }
}

fn passes(session: &mut Client, statement: &str) -> char {
    match session.batch_execute(&format!("BEGIN; {statement}; ROLLBACK")) {
        Ok(()) => 'y',
        Err(error) => {
            assert_eq!(error.code().map(|code| code.code()), Some(NO), "{statement}: {error:?}");
            session.run("ROLLBACK");
            'n'
        }
    }
}

#[test]
fn every_cell_of_the_table() {
    let (mut client, role) = database();
    let mut session = connect(&mut client, &role);
    for (at, privileges) in ALL.iter().enumerate() {
        set_privileges(&mut client, &role, privileges);
        for (statement, expected) in CELLS {
            let expected = expected.chars().nth(at).unwrap();
            assert_eq!(passes(&mut session, statement), expected, "{privileges:?}: {statement}");
        }
    }
    for (statement, _) in CELLS {
        assert_eq!(passes(&mut client, statement), 'y', "a superuser: {statement}");
    }
}

#[test]
fn search_without_decrypt_answers_as_with_it() {
    let (mut client, role) = database();
    set_privileges(&mut client, &role, "search");
    let mut session = connect(&mut client, &role);
    let count = r#"SELECT count(*) FROM docs WHERE sealed @> '{"a": "x"}' AND sealed ->> 'a' = 'x'::text"#;
    assert_eq!(session.one::<i64>(count), 1);
    assert_eq!(session.one::<i64>("SELECT count(*) FROM docs WHERE word <> 'y'::text"), 1);
}

#[test]
fn a_plan_made_with_more_privileges_does_not_answer_with_less() {
    let (mut client, role) = database();
    set_privileges(&mut client, &role, "search decrypt");
    let mut session = connect(&mut client, &role);
    session.run("SET plan_cache_mode = force_generic_plan");
    let asks = [
        r#"sealed @> '{"secret": "x"}'"#,
        "sealed ->> 'secret' = 'x'::text",
        "sealed ->> 'secret' IN ('x'::text, 'y'::text)",
    ];
    for (at, condition) in asks.iter().enumerate() {
        session.run(&format!("PREPARE ask_{at} AS SELECT count(*) FROM docs WHERE {condition}"));
        assert_eq!(session.one::<i64>(&format!("EXECUTE ask_{at}")), 1);
    }
    set_privileges(&mut client, &role, "search");
    for at in 0..asks.len() {
        assert_eq!(session.state(&format!("EXECUTE ask_{at}")), NO);
    }
}

#[test]
fn a_part_of_a_document_is_not_looked_into_under_another_path() {
    let (mut client, role) = database();
    set_privileges(&mut client, &role, "search decrypt");
    // In this copy the part stands where $.a is searchable.
    client.run("CREATE TABLE parts AS SELECT sealed -> 'c' AS part, sealed ->> 'secret' AS text FROM docs");
    client.run(&format!("GRANT ALL ON parts TO {role}"));
    let mut session = connect(&mut client, &role);
    let asks = [
        r#"SELECT FROM parts WHERE part @> '{"a": 1}'"#,
        "SELECT FROM parts WHERE part ->> 'a' = 'x'::text",
        "SELECT FROM parts WHERE text = 'x'::text",
    ];
    for ask in asks {
        session.run(ask);
    }
    set_privileges(&mut client, &role, "search");
    for ask in asks {
        assert_eq!(session.state(ask), NO, "{ask}");
    }
}

#[test]
fn an_object_at_a_declared_path_hides_what_is_below() {
    let (mut client, role) = database();
    client.run(r#"TRUNCATE docs; INSERT INTO docs VALUES ('{"a": {"below": "secret"}}'), ('{"a": "x"}')"#);
    set_privileges(&mut client, &role, "search");
    let mut session = connect(&mut client, &role);
    for ask in [
        r#"SELECT FROM docs WHERE sealed ->> 'a' = '{"below": "secret"}'::text"#,
        r#"SELECT FROM docs WHERE sealed ->> 'a' <> '{"below": "secret"}'::text"#,
        r#"SELECT FROM docs WHERE sealed ->> 'a' IN ('{"below": "secret"}'::text, 'x'::text)"#,
        "SELECT pg_column_size(sealed -> 'a') FROM docs",
        "SELECT sealed #>> '{a}' FROM docs",
    ] {
        assert_eq!(session.state(ask), NO, "{ask}");
    }
    assert_eq!(session.one::<i64>("SELECT count(*) FROM docs WHERE sealed ->> 'a' = 'x'::text"), 1);
    set_privileges(&mut client, &role, "search decrypt");
    assert_eq!(
        session.one::<i64>(r#"SELECT count(*) FROM docs WHERE sealed ->> 'a' = '{"below": "secret"}'::text"#),
        1
    );
}

#[test]
fn internal_functions_called_by_hand_look_no_further() {
    let (mut client, role) = database();
    set_privileges(&mut client, &role, "search");
    let id: i32 = client.one("SELECT id FROM pgseal.keyring WHERE name = 'k'");
    let mut session = connect(&mut client, &role);
    for call in [
        "pgseal.filter_text(1, '{secret}', 'x'::text, {id})",
        "pgseal.filter_text(1, '{c,d}', 'x'::text, {id})",
        "pgseal.filter_text(1, '{}', 'x'::text, {id})",
        "pgseal.filter_text(2, '{0}', 'x'::text, {id})",
        "pgseal.filter_text(3, '{secret}', 'x'::text, {id})",
        "pgseal.filter_text(9, '{secret}', 'x'::text, {id})",
        r#"pgseal.filter_for('{"secret": 1}', {id})"#,
        "pgseal.filter_between_for('$.secret', 1, 2, {id})",
        r#"pgseal.filter_casefold('{"secret": "X"}', 'k')"#,
    ] {
        let statement = format!(
            "SELECT FROM docs WHERE pgseal.exact_match(sealed, {})",
            call.replace("{id}", &id.to_string())
        );
        assert_eq!(session.state(&statement), NO, "{call}");
    }
    assert_eq!(session.state("SELECT pgseal.searchable_values(sealed) FROM docs"), NO);
    // A filter for documents does not fit a text, nor the other way round, whoever asks.
    for mixed in [
        r#"pgseal.exact_match(body, pgseal.filter('{"a": "x"}', 'k'))"#,
        "pgseal.exact_match(sealed, pgseal.filter_text(0, '{}', 'x'::text, {id}))",
    ] {
        let statement = format!("SELECT {} FROM docs", mixed.replace("{id}", &id.to_string()));
        assert_eq!(client.state(&statement), "22023", "{mixed}");
    }
}

/// A role that may encrypt under k, the session's keyring, and everything under its own, mine; w is out of its reach.
fn owner_of_a_keyring() -> (Client, Client, String) {
    let (mut client, role) = database();
    let name = client.database();
    client.run(&format!("SELECT pgseal.create_keyring('mine'), pgseal.set_default_keyring('k'); GRANT CREATE ON SCHEMA public TO {role}"));
    client.run(&format!("SELECT pgseal.grant_keyring('mine', '{role}', '{{encrypt,search,decrypt}}'), pgseal.grant_keyring('k', '{role}', '{{encrypt}}')"));
    client.run(&format!("ALTER DATABASE {name} SET pgseal.keyring = 'k'"));
    let session = connect(&mut client, &role);
    (client, session, role)
}

#[test]
fn plaintext_moves_to_another_keyring_only_with_decrypt() {
    let (mut client, mut session, _) = owner_of_a_keyring();
    // As 0.2.0 left literals in columns without a keyring, and as CREATE TABLE AS still does.
    client.run("CREATE TABLE notes AS SELECT 'secret'::encrypted_text AS body, 'other'::text::encrypted_text AS cast_,
                       '{\"n\": 1}'::encrypted_jsonb AS document, ARRAY['secret'::encrypted_text] AS list");
    client.run("GRANT SELECT ON notes TO PUBLIC; CREATE FUNCTION note() RETURNS encrypted_text IMMUTABLE LANGUAGE sql AS 'SELECT body FROM notes'");
    session.run("CREATE TABLE taken (body encrypted_text(mine), document encrypted_jsonb(mine))");
    for one in [&mut client, &mut session] {
        one.run("PREPARE take(encrypted_text) AS INSERT INTO taken (body) VALUES ($1)");
    }
    let typed: String = client.one("SELECT format('%s', body) FROM notes");
    // With a literal of its own in the session.
    session.run("INSERT INTO taken (body) VALUES ('own')");
    for moving in [
        "SELECT pgseal.encrypt('{}'::jsonb, 'mine') || sealed FROM docs",
        "SELECT pgseal.encrypt('{}'::jsonb, 'mine') || (sealed - 'a') FROM docs",
        "SELECT pgseal.encrypt('{}'::jsonb, 'mine') || document FROM notes",
        "SELECT body::encrypted_text(mine) FROM notes",
        "SELECT cast_::encrypted_text(mine) FROM notes",
        "SELECT list::encrypted_text(mine)[] FROM notes",
        "INSERT INTO taken SELECT body, document FROM notes",
        "UPDATE taken SET body = (SELECT body FROM notes)",
        "INSERT INTO taken (body) VALUES (note())",
        "EXECUTE take(note())",
        &format!("INSERT INTO taken (body) VALUES ('{typed}')"),
        "DO $$ DECLARE v encrypted_text(mine); BEGIN SELECT body INTO v FROM notes; END $$",
        "DO $$ DECLARE v encrypted_text; BEGIN SELECT body INTO v FROM notes; INSERT INTO taken (body) VALUES (v); END $$",
    ] {
        assert_eq!(passes(&mut session, moving), 'n', "{moving}");
        assert_eq!(passes(&mut client, moving), 'y', "a superuser: {moving}");
    }
}

#[test]
fn a_literal_of_this_statement_reaches_any_keyring_with_encrypt() {
    let (mut client, mut session, role) = owner_of_a_keyring();
    session.run("CREATE TABLE taken (body encrypted_text(mine), document encrypted_jsonb(mine))");
    session.run("PREPARE take(encrypted_text) AS INSERT INTO taken (body) VALUES ($1)");
    for own in [
        "INSERT INTO taken VALUES ('own', '{\"n\": 1}')",
        "INSERT INTO taken VALUES ('own', '{}'), ('two', DEFAULT)",
        "INSERT INTO taken SELECT 'own'::text::encrypted_text, '{}'::jsonb::encrypted_jsonb",
        "UPDATE taken SET document = document || '{\"b\": 1}', body = 'own'",
        "EXECUTE take('own')",
        "SELECT ARRAY['own']::encrypted_text(mine)[]",
    ] {
        assert_eq!(passes(&mut session, own), 'y', "{own}");
    }
    // What another role has typed in the same session is not this one's.
    client.run(&format!(
        "CREATE ROLE {role}_other; GRANT {role}_other TO {role}; GRANT ALL ON docs TO {role}_other"
    ));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}_other', '{{encrypt}}')"));
    session.run(&format!("SET ROLE {role}_other; CREATE TEMP TABLE left_ AS SELECT 'secret'::encrypted_text AS body; RESET ROLE"));
    assert_eq!(passes(&mut session, "INSERT INTO taken SELECT body FROM left_"), 'n');
}

#[test]
fn a_cached_plan_seals_literals_for_the_setting_and_role_of_now() {
    let (mut client, mut session, role) = owner_of_a_keyring();
    client.run("CREATE TABLE free (m encrypted_jsonb, x encrypted_text); GRANT ALL ON free TO PUBLIC");
    session.run("CREATE FUNCTION write() RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO free VALUES ('{}', 'x'); END $$");
    session.run("PREPARE write AS INSERT INTO free VALUES ('{}', 'x')");
    session.run("SET plan_cache_mode = force_generic_plan");
    let number = |client: &mut Client, name: &str| -> i32 {
        client.one(&format!("SELECT id FROM pgseal.keyring WHERE name = '{name}'"))
    };
    let (k, mine) = (number(&mut client, "k"), number(&mut client, "mine"));
    let written = |session: &mut Client, keyring: i32| {
        for write in ["EXECUTE write", "SELECT write()"] {
            session.run(write);
            let found = "DELETE FROM free RETURNING ARRAY[pgseal.keyring_id(m), pgseal.keyring_id(x)]";
            assert_eq!(session.column::<Vec<i32>>(found), [vec![keyring, keyring]], "{write}");
        }
    };
    written(&mut session, k);
    for (change, keyring) in [
        ("SET pgseal.keyring = 'mine'", mine),
        ("RESET pgseal.keyring", k),
        ("SELECT set_config('pgseal.keyring', 'mine', false)", mine),
        (
            "BEGIN; SET LOCAL pgseal.keyring = 'k'; EXECUTE write; SELECT write(); DELETE FROM free; COMMIT",
            mine,
        ),
        ("BEGIN; SET pgseal.keyring = 'k'; EXECUTE write; SELECT write(); ROLLBACK", mine),
        ("DISCARD PLANS; RESET ALL", k),
    ] {
        session.run(change);
        written(&mut session, keyring);
    }
    // Without encrypt on k, however the role comes about.
    client.run(&format!("CREATE ROLE {role}_other; GRANT {role}_other TO {role}"));
    for change in ["SET ROLE", "SET LOCAL ROLE"] {
        session.run(&format!("BEGIN; {change} {role}_other"));
        assert_eq!(session.state("EXECUTE write"), NO, "{change}");
        session.run(&format!("ROLLBACK; BEGIN; {change} {role}_other"));
        assert_eq!(session.state("SELECT write()"), NO, "{change}");
        session.run("ROLLBACK");
    }
    written(&mut session, k);
}

#[test]
fn what_search_alone_seals_is_compared_and_never_stored() {
    let (mut client, role) = database();
    set_privileges(&mut client, &role, "search");
    client.run(&format!("CREATE TABLE notes (body encrypted_text, part encrypted_jsonb); CREATE TABLE bound (body encrypted_text(k)); GRANT ALL ON notes, bound TO {role}"));
    client.run("INSERT INTO notes VALUES ('there'::text)");
    client.run(
        "CREATE TABLE keyed (id int PRIMARY KEY, body encrypted_text); INSERT INTO keyed VALUES (1, NULL); CREATE VIEW simple AS SELECT body FROM notes;
         CREATE VIEW ruled AS SELECT body FROM notes; CREATE RULE ruled AS ON INSERT TO ruled DO INSTEAD INSERT INTO notes (body) VALUES (NEW.body)",
    );
    client.run(&format!("GRANT ALL ON keyed, simple, ruled TO {role}"));
    let mut session = connect(&mut client, &role);
    session.run("SET pgseal.keyring = 'k'");
    for write in [
        "INSERT INTO notes (body) VALUES ('forged')",
        "INSERT INTO notes (body) VALUES ('forged'), (DEFAULT)",
        "INSERT INTO notes (body) SELECT 'forged'::text::encrypted_text",
        "INSERT INTO notes (body) SELECT sealed ->> 'a' FROM docs",
        "INSERT INTO notes (part) SELECT sealed -> 'a' FROM docs",
        "INSERT INTO bound SELECT sealed ->> 'a' FROM docs",
        "SELECT (sealed ->> 'a')::encrypted_text(k) FROM docs",
        "DO $$ DECLARE v encrypted_text := 'forged'; BEGIN INSERT INTO notes (body) VALUES (v); END $$",
        "CREATE TEMP TABLE t AS SELECT 'forged'::encrypted_text AS body; INSERT INTO notes (body) SELECT body FROM t",
        "WITH made AS (INSERT INTO notes (body) VALUES ('forged') RETURNING 1) SELECT FROM made",
        "UPDATE notes SET body = 'forged' FROM (VALUES (1)) v",
        "INSERT INTO keyed VALUES (1) ON CONFLICT (id) DO UPDATE SET body = 'forged'",
        "MERGE INTO keyed USING (VALUES (1)) v (id) ON keyed.id = v.id WHEN MATCHED THEN UPDATE SET body = 'forged'",
        "INSERT INTO ruled VALUES ('forged')",
        "INSERT INTO simple VALUES ('forged')",
    ] {
        assert_eq!(passes(&mut session, write), 'n', "{write}");
    }
    let copied = session.copy_in("COPY notes (body) FROM STDIN").and_then(|mut rows| {
        std::io::Write::write_all(&mut rows, b"forged\n").unwrap();
        rows.finish()
    });
    assert_eq!(copied.unwrap_err().code().map(|code| code.code()), Some(NO));
    // What it makes for itself is nothing to anybody else.
    session.run("CREATE TEMP TABLE made AS SELECT 'forged'::encrypted_text AS body, ARRAY['forged'::encrypted_text] AS list");
    let typed: String = session.one("SELECT format('%s', body) FROM made");
    let listed: String = session.one("SELECT format('%s', list[1]) FROM made");
    for forged in [typed, listed] {
        assert_eq!(client.state(&format!("SELECT pgseal.decrypt('{forged}'::encrypted_text)")), "22000");
        assert_eq!(client.state(&format!("INSERT INTO bound VALUES ('{forged}')")), "22000");
    }
    // To read and compare needs no encrypt.
    set_privileges(&mut client, &role, "search decrypt");
    for asked in [
        "sealed ->> 'a' = 'x'",
        "sealed ->> 'a' IN ('x', 'y')",
        "sealed ->> 'a' IS NOT DISTINCT FROM 'x'",
        "CASE sealed ->> 'a' WHEN 'x' THEN true END",
        "coalesce(sealed ->> 'a', '-') = 'x'",
        "sealed ->> 'a' LIKE 'x%'",
        "body = 'x'",
    ] {
        assert_eq!(session.one::<i64>(&format!("SELECT count(*) FROM docs WHERE {asked}")), 1, "{asked}");
    }
}

#[test]
fn a_context_is_not_found_by_adding_values_without_decrypt() {
    let (mut client, role) = database();
    client.run("CREATE TABLE bound AS SELECT pgseal.encrypt('{}'::jsonb, 'k', 'secret') AS m; GRANT SELECT ON bound TO PUBLIC");
    let mut session = connect(&mut client, &role);
    for (privileges, right, wrong) in [("encrypt", NO, NO), ("encrypt,decrypt", "", "22000")] {
        set_privileges(&mut client, &role, privileges);
        for (guess, state) in [("secret", right), ("guess", wrong)] {
            let guessed = format!("pgseal.encrypt('{{}}'::jsonb, 'k', '{guess}')");
            for adding in [format!("{guessed} || m"), format!("m || {guessed}")] {
                let ask = format!("SELECT {adding} FROM bound");
                match state {
                    "" => session.run(&ask),
                    state => assert_eq!(session.state(&ask), state, "{privileges}: {adding}"),
                }
            }
        }
    }
    // What is not bound is added as ever.
    set_privileges(&mut client, &role, "encrypt");
    session.run("SELECT m || pgseal.encrypt('{}'::jsonb, 'k') FROM bound");
}

#[test]
fn a_privilege_ends_with_the_membership_that_gave_it() {
    let (mut client, role) = database();
    set_privileges(&mut client, &role, "search decrypt");
    client.run(&format!(
        "CREATE ROLE {role}_member; GRANT {role} TO {role}_member; GRANT ALL ON docs TO {role}_member"
    ));
    client.run(
        "CREATE FUNCTION opened(v encrypted_jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS 'DECLARE r jsonb; BEGIN r := pgseal.decrypt(v); RETURN r; END'",
    );
    let reads = ["SELECT opened(sealed) FROM docs", "SELECT FROM docs WHERE sealed @> '{\"a\": \"x\"}'"];
    // From 16 on each membership says whether it inherits.
    let inherits_no_more = if major_version() < 16 {
        format!("ALTER ROLE {role}_member NOINHERIT")
    } else {
        format!("GRANT {role} TO {role}_member WITH INHERIT FALSE")
    };
    for ending in [
        format!("REVOKE {role} FROM {role}_member"),
        inherits_no_more,
        format!("SELECT pgseal.revoke_keyring('k', '{role}')"),
    ] {
        for read in reads {
            client.run(&format!("BEGIN; SET LOCAL ROLE {role}_member; {read}; RESET ROLE; {ending}"));
            client.run(&format!("SET LOCAL ROLE {role}_member"));
            assert_eq!(client.state(read), NO, "{ending}: {read}");
            client.run("ROLLBACK");
        }
    }
}

#[test]
fn a_prepared_filter_asks_for_the_role_that_runs_it() {
    let (mut client, role) = database();
    client.run("SET plan_cache_mode = force_generic_plan; SET pgseal.keyring = 'k'");
    let asks = [
        ("", r#"sealed OPERATOR(pgseal.@~) pgseal.filter('{"a": "x"}', 'k')"#, ""),
        ("", r#"sealed OPERATOR(pgseal.@~) pgseal.filter('{"a": "x"}')"#, ""),
        ("", r#"sealed OPERATOR(pgseal.@~) pgseal.filter_casefold('{"a": "x"}', 'k')"#, ""),
        ("(jsonb)", "sealed OPERATOR(pgseal.@~) pgseal.filter($1, 'k')", r#"('{"a": "x"}')"#),
        ("", r#"sealed @@ pgseal.filter('{"a": "x"}')"#, ""),
        ("", r#"sealed @> '{"a": "x"}'"#, ""),
    ];
    for (at, (types, condition, _)) in asks.iter().enumerate() {
        client.run(&format!("PREPARE ask_{at}{types} AS SELECT count(*) FROM docs WHERE {condition}"));
    }
    for (privileges, state) in [("", NO), ("encrypt", NO), ("search", "")] {
        set_privileges(&mut client, &role, privileges);
        for (at, (_, condition, parameter)) in asks.iter().enumerate() {
            let ask = format!("EXECUTE ask_{at}{parameter}");
            assert_eq!(client.one::<i64>(&ask), 1, "{condition}");
            client.run(&format!("SET ROLE {role}"));
            match state {
                "" => assert_eq!(client.one::<i64>(&ask), 1, "{condition}"),
                state => assert_eq!(client.state(&ask), state, "{privileges}: {condition}"),
            }
            client.run("RESET ROLE");
        }
    }
}

#[test]
fn a_misspelt_privilege_is_refused_and_not_left_granted() {
    let (mut client, role) = database();
    for privileges in ["ARRAY['Decrypt']", "ARRAY['encrypt', 'decrpyt']", "ARRAY['search', NULL]", "NULL"] {
        let revoke = format!("SELECT pgseal.revoke_keyring('k', '{role}', {privileges})");
        assert_eq!(client.state(&revoke), "22023", "{privileges}");
    }
}

#[test]
fn a_function_of_its_owner_lends_its_privileges() {
    let (mut client, role) = database();
    client.run(
        "CREATE FUNCTION count_secret(text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
             $$ SELECT count(*) FROM docs WHERE sealed ->> 'secret' = $1 $$",
    );
    let mut session = connect(&mut client, &role);
    assert_eq!(session.one::<i64>("SELECT count_secret('x')"), 1);
    assert_eq!(session.state("SELECT count(*) FROM docs WHERE sealed ->> 'secret' = 'x'::text"), NO);
}

#[test]
fn what_was_done_is_shown_to_monitors_only() {
    let (mut client, role) = database();
    let mut session = connect(&mut client, &role);
    assert_eq!(session.state("SELECT * FROM pgseal.stat"), NO);
    assert_eq!(session.state("SELECT pgseal.counter('values_decrypted')"), NO);
    client.run(&format!("GRANT pg_monitor TO {role}"));
    assert_eq!(session.one::<i64>("SELECT values_decrypted FROM pgseal.stat"), 0);
    set_privileges(&mut client, &role, "decrypt");
    session.run("SELECT pgseal.decrypt(sealed) FROM docs");
    assert_eq!(session.one::<i64>("SELECT values_decrypted FROM pgseal.stat"), 1);
    assert_eq!(session.one::<i64>("SELECT kms_calls FROM pgseal.stat"), 1);
    assert_eq!(session.state("SELECT pgseal.counter('nothing')"), "22023");
}

#[test]
fn runs_of_reencrypt_are_not_for_code_that_a_superuser_sets_off() {
    let mut client = fresh_database();
    let role = format!("meddler_{}", client.database());
    client.run("SELECT pgseal.create_keyring('k'); CREATE TABLE docs (m encrypted_jsonb(k))");
    client.run(&format!("CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}"));
    for call in [
        "pgseal.rotation_join('public.docs', 'm', true, 10)",
        "pgseal.rotation_claim('public.docs', 'm', '')",
        "pgseal.rotation_advance('public.docs', 'm', 0, 1, 1)",
        "pgseal.rotation_end_pass('public.docs', 'm', 1, 10, false)",
    ] {
        client.run(&format!(
            "SET ROLE {role}; CREATE TABLE trap (i int); INSERT INTO trap VALUES (1);
             CREATE FUNCTION spring(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN
                IF current_setting('role') <> '{role}' THEN PERFORM {call}; END IF; RETURN $1; END $f$;
             CREATE INDEX ON trap (spring(i)); RESET ROLE"
        ));
        assert_eq!(client.state("ANALYZE trap"), NO, "{call}");
        client.run("DROP TABLE trap; DROP FUNCTION spring");
    }
    client.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn looking_at_a_table_runs_no_function_of_its_owner() {
    let mut client = fresh_database();
    let role = format!("trapper_{}", client.database());
    client.run("SELECT pgseal.create_keyring('k'), pgseal.rotate_key('k')");
    client.run(&format!(
        "CREATE ROLE {role}; CREATE TABLE seen (who text, what text); GRANT INSERT ON seen TO PUBLIC"
    ));
    client.run(&format!("CREATE SCHEMA trap AUTHORIZATION {role}; SET ROLE {role}"));
    // The planner evaluates what looks constant: expressions of indexes and statistics, CHECKs, defaults.
    client.run(
        "CREATE FUNCTION trap.note(text) RETURNS void LANGUAGE plpgsql AS $$
            BEGIN IF current_user <> session_user OR pg_trigger_depth() = 0 THEN INSERT INTO public.seen VALUES (current_user, $1); END IF; END $$;
         CREATE FUNCTION trap.evil(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.note('evil'); RETURN $1; END $$;
         CREATE TABLE trap.docs (id int, m public.encrypted_jsonb, list public.encrypted_jsonb[]);
         INSERT INTO trap.docs VALUES (1, NULL, NULL);
         CREATE INDEX ON trap.docs ((trap.evil(1)));
         CREATE INDEX ON trap.docs (id) WHERE trap.evil(2) = 2;
         CREATE STATISTICS trap.s ON (trap.evil(3)), id FROM trap.docs",
    );
    client.run("RESET ROLE; DELETE FROM seen; SET constraint_exclusion = on");
    assert!(client.one::<i64>("SELECT count(*) FROM trap.docs") == 1);
    assert!(client.one::<i64>("SELECT count(*) FROM seen") > 0, "the trap works");
    client.run("DELETE FROM seen");
    let counted = "SELECT count(*) FROM pgseal.audit() WHERE object LIKE '%trap.docs' AND finding LIKE '%were not counted%'";
    assert_eq!(client.one::<i64>(counted), 1);
    client.run("SELECT pgseal.retire_key('k', 1)");
    client.run("SELECT pgseal.drop_keyring('k')");
    assert_eq!(client.column::<String>("SELECT who || ' ' || what FROM seen"), [""; 0]);
    client.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
