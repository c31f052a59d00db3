//! Statements that were prepared before `pgseal.reveal` changed: planned anew, or an error that drivers know, never the other
//! form in silence.

use std::error::Error;

use postgres::Client;
use postgres::types::{FromSql, Type};

use crate::support::{Sql, beside, with_keyring};

/// A value as it came, whatever its type.
struct Bytes(Vec<u8>);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Bytes(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// What a client saw: plaintext, ciphertext, or the SQLSTATE of an error.
fn form(answer: Result<Vec<Vec<u8>>, postgres::Error>) -> String {
    match answer {
        Ok(values) => {
            assert_eq!(values.len(), 1);
            let is_plain = values[0].windows(6).any(|part| part == b"canary");
            if is_plain { "plaintext".into() } else { "ciphertext".into() }
        }
        Err(error) => error.code().expect("an error of the server").code().to_owned(),
    }
}

fn values(rows: &[postgres::Row]) -> Vec<Vec<u8>> {
    rows.iter().map(|row| row.get::<_, Bytes>(0).0).collect()
}

fn asked(client: &mut Client, sql: &str) -> String {
    let answer = client.simple_query(sql).map(|messages| {
        let rows = messages.iter().filter_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => row.get(0).map(|text| text.as_bytes().to_vec()),
            _ => None,
        });
        rows.collect()
    });
    form(answer)
}

fn database() -> Client {
    let mut client = with_keyring("{$.a}");
    client.run("CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), body encrypted_text(k), e encrypted_vector(k, 3))");
    client.run(r#"INSERT INTO docs VALUES (1, '{"a": "canary"}', 'canary', '[1,2,3]')"#);
    client
}

/// Each gives something of the row. Those of the second half have the same type with reveal on and off.
const QUERIES: [&str; 20] = [
    "SELECT m FROM docs",
    "SELECT body FROM docs WHERE id = 1",
    "SELECT m ->> 'a' FROM docs",
    "SELECT m -> 'a' FROM docs",
    "SELECT max(body) FROM docs",
    "SELECT DISTINCT body FROM docs",
    "SELECT body FROM docs UNION ALL SELECT body FROM docs WHERE false",
    "UPDATE docs SET id = id RETURNING m",
    "WITH u AS (UPDATE docs SET id = id RETURNING body) SELECT body FROM u",
    "SELECT ARRAY[body] FROM docs",
    "SELECT json_agg(m) FROM docs",
    "SELECT jsonb_agg(d) FROM docs d",
    "SELECT to_jsonb(d) FROM docs d",
    "SELECT row_to_json(d) FROM docs d",
    "SELECT concat(body, '!') FROM docs",
    "SELECT format('%s', m) FROM docs",
    "SELECT upper(body) || lower(body) FROM docs",
    "SELECT d FROM docs d",
    "SELECT d::text FROM docs d",
    "SELECT string_agg(body, ',') FROM docs",
];

const ON: &str = "SET pgseal.reveal = on";
const OFF: &str = "SET pgseal.reveal = off";

/// Fails where a statement from before a change of the setting answers in the form of the other setting.
fn assert_not_other(found: &str, setting: &str, what: &str) {
    let wrong = if setting.ends_with("= on") { "ciphertext" } else { "plaintext" };
    assert_ne!(found, wrong, "{setting}: {what}");
}

#[test]
fn named_statements_never_answer_in_the_other_form() {
    let mut client = database();
    for mode in ["auto", "force_generic_plan"] {
        client.run(&format!("SET plan_cache_mode = {mode}"));
        for (first, then) in [(OFF, ON), (ON, OFF)] {
            for query in QUERIES {
                client.run(first);
                let direct = asked(&mut client, query);
                let Ok(statement) = client.prepare(query) else {
                    assert!(direct.len() == 5, "{first}: {query}: {direct} unprepared");
                    continue;
                };
                let run = |client: &mut Client, setting: &str| {
                    client.run(setting);
                    let found = form(client.query(&statement, &[]).map(|rows| values(&rows)));
                    assert_not_other(&found, setting, query);
                    found
                };
                for _ in 0..6 {
                    assert_eq!(run(&mut client, first), direct, "{first}: {query}");
                }
                let changed = run(&mut client, then);
                // Planned anew, or the error that drivers prepare again for.
                let now = asked(&mut client, query);
                assert!(changed == now || changed == "0A000", "{then}: {query}: {changed}, not {now}");
                run(&mut client, "BEGIN; SET LOCAL pgseal.reveal = on");
                client.run("ROLLBACK");
                assert_eq!(run(&mut client, first), direct, "back, {first}: {query}");
            }
        }
    }
}

#[test]
fn statements_of_prepare_never_answer_in_the_other_form() {
    let mut client = database();
    for (first, then) in [(OFF, ON), (ON, OFF)] {
        for query in QUERIES {
            client.run(&format!("DEALLOCATE ALL; {first}"));
            if client.batch_execute(&format!("PREPARE p AS {query}")).is_err() {
                continue;
            }
            let before = asked(&mut client, "EXECUTE p");
            for setting in [then, first, then] {
                client.run(setting);
                let found = asked(&mut client, "EXECUTE p");
                assert_not_other(&found, setting, query);
                let expected = asked(&mut client, query);
                assert!(found == expected || found == "0A000", "{setting}: {query}: {found}, not {expected}");
            }
            client.run(first);
            assert_eq!(asked(&mut client, "EXECUTE p"), before, "{query}");
            // What is defined anew meanwhile has the statement analysed again.
            client.run(&format!("{then}; CREATE INDEX extra ON docs (id); DROP INDEX extra"));
            assert_not_other(&asked(&mut client, "EXECUTE p"), then, query);
        }
    }
}

#[test]
fn functions_answer_as_they_would_in_a_new_session() {
    let mut client = database();
    client.run(
        "CREATE FUNCTION aggregated() RETURNS json LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT json_agg(m) FROM docs); END';
         CREATE FUNCTION concatenated() RETURNS text LANGUAGE plpgsql AS 'DECLARE t text; BEGIN SELECT concat(body) INTO t FROM docs; RETURN t; END';
         CREATE FUNCTION chosen() RETURNS SETOF encrypted_text LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT body FROM docs; END';
         CREATE FUNCTION compared() RETURNS SETOF text LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT pgseal.decrypt(body) FROM docs WHERE m ->> ''a'' = ''canary''; END';
         CREATE FUNCTION dynamic() RETURNS json LANGUAGE plpgsql AS 'DECLARE j json; BEGIN EXECUTE ''SELECT json_agg(m) FROM docs'' INTO j; RETURN j; END';
         CREATE FUNCTION in_sql() RETURNS json LANGUAGE sql AS 'SELECT json_agg(m) FROM docs';
         CREATE FUNCTION looped() RETURNS text LANGUAGE plpgsql AS 'DECLARE r record; t text; BEGIN FOR r IN SELECT body FROM docs LOOP t := concat(t, r.body); END LOOP; RETURN t; END'",
    );
    for function in ["aggregated", "concatenated", "chosen", "compared", "dynamic", "in_sql", "looped"] {
        let call = format!("SELECT {function}()");
        for (first, then) in [(OFF, ON), (ON, OFF)] {
            let mut fresh = beside(&mut client);
            fresh.run(&format!("LOAD 'pgseal'; {then}"));
            let expected = asked(&mut fresh, &call);
            let mut session = beside(&mut client);
            session.run(&format!("LOAD 'pgseal'; {first}"));
            for _ in 0..7 {
                asked(&mut session, &call);
            }
            session.run(then);
            assert_eq!(asked(&mut session, &call), expected, "{then}: {function}");
        }
    }
}
