//! Refusals that give nothing away.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postgres::Client;
use postgres::error::DbError;
use postgres::types::ToSql;

use crate::server::values::kinds::two_keyrings;
use crate::support::{AsBytes, AsText, Sql as _};

/// Stands in every document here and in no error.
pub(super) const SECRET: &str = "canary-7291";

pub(super) const TYPES: [&str; 2] = ["encrypted_jsonb", "encrypted_text"];

/// Refused with this SQLSTATE, in words that give nothing away.
pub(super) fn quietly_refused(client: &mut Client, sql: &str, state: &str) -> DbError {
    let error = client.refused(sql, state);
    assert_quiet(&error, sql);
    error
}

pub(super) fn assert_quiet(error: &DbError, what: &str) {
    let told = [Some(error.message()), error.detail(), error.hint(), error.where_()];
    for text in told.into_iter().flatten() {
        assert!(!text.contains(SECRET) && !text.contains("pgseal:A"), "{what:.300}: {text}");
    }
}

/// What came of a statement with one parameter: its SQLSTATE, or `None` when it went through. Says nothing secret.
pub(super) fn state_of(client: &mut Client, sql: &str, parameter: &(dyn ToSql + Sync)) -> Option<String> {
    let error = client.query(sql, &[parameter]).err()?;
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")).clone();
    assert_quiet(&error, sql);
    Some(error.code().code().to_owned())
}

pub(super) fn text_form(bytes: &[u8]) -> String {
    format!("pgseal:{}", STANDARD.encode(bytes))
}

/// Table t with columns "v" and "x" of the keyring "k".
pub(super) fn tables() -> Client {
    let mut client = two_keyrings();
    client.run("CREATE TABLE t (n int, v encrypted_jsonb(k), x encrypted_text(k))");
    client
}

/// A sealed value of each type with three tokens or one.
pub(super) fn sealed(client: &mut Client, type_name: &str) -> Vec<u8> {
    let plaintext = match type_name {
        "encrypted_jsonb" => format!(r#"'{{"a": "{SECRET}", "b": 2, "c": null}}'::jsonb"#),
        _ => format!("'{SECRET}'::text"),
    };
    client.one(&format!("SELECT pgseal.{type_name}_send(pgseal.encrypt({plaintext}, 'k'))"))
}

/// Both forms are refused as malformed.
pub(super) fn assert_malformed(client: &mut Client, type_name: &str, bytes: &[u8]) {
    let sql = format!("SELECT pgseal.key_version($1::{type_name})");
    assert_eq!(state_of(client, &sql, &AsBytes(bytes)).as_deref(), Some("22P03"), "{bytes:02x?}");
    let text = text_form(bytes);
    assert_eq!(state_of(client, &sql, &AsText(&text)).as_deref(), Some("22P02"), "{bytes:02x?}");
    assert_eq!(client.one::<i32>("SELECT 1"), 1);
}

/// Either form is taken, and then does not open.
pub(super) fn assert_does_not_open(client: &mut Client, type_name: &str, bytes: &[u8], states: &[&str]) {
    for sql in ["pgseal.decrypt($1::TYPE)", "$1::TYPE::text", "pgseal.reseal($1::TYPE)"] {
        let sql = format!("SELECT {}", sql.replace("TYPE", type_name));
        let text = text_form(bytes);
        for parameter in [&AsBytes(bytes) as &(dyn ToSql + Sync), &AsText(&text)] {
            let state = state_of(client, &sql, parameter);
            assert!(
                state.as_deref().is_some_and(|state| states.contains(&state)),
                "{sql}: {state:?}, {bytes:02x?}"
            );
        }
    }
}
