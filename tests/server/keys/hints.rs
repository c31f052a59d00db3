//! What errors tell somebody who meets them on the first day to type next.

use postgres::Client;
use postgres::error::DbError;

use crate::support::{Sql, fresh_database, shared};

const DECRYPT: &str = "SELECT pgseal.decrypt(m) FROM docs";

/// Keyring k and one row in docs.
fn database() -> Client {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.a'])");
    client.run(r#"CREATE TABLE docs (m encrypted_jsonb(k)); INSERT INTO docs VALUES ('{"a": 1}')"#);
    client
}

fn hint(error: &DbError) -> &str {
    error.hint().unwrap_or_default()
}

#[test]
fn a_refused_role_finds_its_own_name_in_the_hint() {
    let mut client = database();
    let role = format!("{}_it's", client.database());
    let quoted = format!(r#""{role}""#);
    client.run(&format!("CREATE ROLE {quoted}; GRANT ALL ON docs TO {quoted}; SET ROLE {quoted}"));
    let grants = |privilege: &str| {
        format!("pgseal.grant_keyring('k', '{}', ARRAY['{privilege}'])", role.replace('\'', "''"))
    };
    let reading = client.refused(DECRYPT, "42501");
    assert!(hint(&reading).contains(&grants("decrypt")), "{reading:?}");
    assert!(!hint(&reading).contains("parameter"), "{reading:?}");
    let writing = client.refused("INSERT INTO docs VALUES ('{}'::jsonb)", "42501");
    assert!(hint(&writing).contains("A parameter without a type"), "{writing:?}");
    client.run("RESET ROLE");
    client.run(&format!("SELECT {}", grants("decrypt")));
    client.run(&format!("SET ROLE {quoted}; {DECRYPT}; RESET ROLE; DROP OWNED BY {quoted}"));
}

#[test]
fn a_changed_endpoint_is_asked_about() {
    let mut client = database();
    let directory = shared().key_dir().join(client.database());
    let token = shared().write(format!("{}.token", client.database()), "root");
    client.run(&format!("SET pgseal.kms_token_file = '{}'", token.display()));
    for (endpoint, said) in [
        (format!("file://{}", directory.display()), "wrong KMS key or context"),
        ("vault+http://127.0.0.1:1/transit".into(), "was not wrapped by this KMS"),
    ] {
        client.run(&format!("SET pgseal.kms_endpoint = '{endpoint}'"));
        if endpoint.starts_with("file") {
            client.run("SELECT pgseal.create_keyring('newer')");
        }
        client.run("SELECT pgseal.flush_keys()");
        // The second time the refusal comes from memory.
        for _ in 0..2 {
            let error = client.refused(DECRYPT, "28000");
            assert!(error.message().contains(said), "{error:?}");
            assert!(hint(&error).starts_with("Was pgseal.kms_endpoint changed?"), "{error:?}");
        }
    }
}

#[test]
fn what_is_wrong_decides_between_hints_about_settings() {
    let mut client = database();
    client.run("SET pgseal.kms_endpoint = 'vault+http://127.0.0.1:1/transit'; SELECT pgseal.flush_keys()");
    let without_token = client.refused(DECRYPT, "22023");
    assert!(hint(&without_token).contains("pgseal.kms_token_file = "), "{without_token:?}");
    client.run("SET pgseal.kms_endpoint = 'nowhere'");
    let nowhere = client.refused(DECRYPT, "22023");
    assert!(hint(&nowhere).starts_with("pgseal.kms_endpoint belongs into"), "{nowhere:?}");
}

#[test]
fn what_was_misspelled_is_shown_as_it_should_be() {
    let mut client = database();
    for (statement, state, part) in [
        ("SELECT pgseal.set_searchable('k', ARRAY['a'])", "22023", "$.author.name"),
        ("SELECT pgseal.set_searchable('k', ARRAY['$.tags[*]'])", "22023", "$.tags"),
        ("SELECT FROM docs WHERE pgseal.between(m, 'a', 1, 2)", "22023", "$.name"),
        ("SELECT pgseal.create_keyring('k')", "42710", "set_searchable"),
    ] {
        let error = client.refused(statement, state);
        assert!(hint(&error).contains(part), "{statement}: {error:?}");
    }
    let swapped = client.refused("CREATE TABLE v (e encrypted_vector(3, k))", "22023");
    assert!(swapped.message().contains("encrypted_vector(keyring, 384)"), "{swapped:?}");
}

#[test]
fn rows_without_their_keyring_name_import_keyring() {
    let mut client = database();
    client.run("SELECT pgseal.drop_keyring('k', force => true)");
    let error = client.refused(DECRYPT, "42704");
    assert!(hint(&error).contains("pgseal.import_keyring(document)"), "{error:?}");
}
