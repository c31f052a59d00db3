//! The two types with what stands for each in a test of both.

use std::io::Write;

use postgres::Client;
use postgres::error::DbError;
use postgres::types::Type;

use crate::support::{Sql, fresh_database};

pub(super) fn with_state(error: postgres::Error, state: &str, what: &str) -> DbError {
    let error = error.as_db_error().unwrap_or_else(|| panic!("{what:.300}: {error:?}")).clone();
    assert_eq!(error.code().code(), state, "{what:.300}: {error}");
    error
}

/// "other", the default, and "k".
pub(super) fn two_keyrings() -> Client {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('other')");
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$', '$.**'])");
    client
}

/// One of the two types with a literal, written as jsonb would write it.
pub(super) struct Kind {
    pub name: &'static str,
    pub plain: Type,
    pub literal: &'static str,
}

pub(super) const KINDS: [Kind; 2] = [
    Kind { name: "encrypted_jsonb", plain: Type::JSONB, literal: r#"{"a": "John Smith"}"# },
    Kind { name: "encrypted_text", plain: Type::TEXT, literal: "John Smith" },
];

impl Kind {
    /// "KIND" and "LITERAL" stand for this type and its quoted literal.
    pub fn sql(&self, template: &str) -> String {
        template.replace("KIND", self.name).replace("LITERAL", &format!("'{}'", self.literal))
    }

    pub fn run(&self, client: &mut Client, template: &str) {
        client.run(&self.sql(template));
    }

    /// The bytes of a value as this expression gives it.
    pub fn bytes(&self, client: &mut Client, expression: &str) -> Vec<u8> {
        client.one(&self.sql(&format!("SELECT pgseal.KIND_send({expression})")))
    }

    /// Table t, whose column v belongs to the keyring "k", which is not the default.
    pub fn table(&self) -> Client {
        let mut client = two_keyrings();
        self.run(&mut client, "CREATE TABLE t (n int, v KIND(k))");
        client
    }

    /// Several rows, all of "k" and this key version, none in transit, no two with the same nonce.
    pub fn assert_sealed(&self, client: &mut Client, version: i32) {
        let query = self.sql(
            "SELECT count(*), count(DISTINCT pgseal.KIND_send(v)), count(*) FILTER (
                 WHERE pgseal.keyring_id(v) = (SELECT id FROM pgseal.keyring WHERE name = 'k')
                   AND pgseal.key_version(v) = $1 AND pgseal.index_key_version(v) = 1
                   AND get_byte(pgseal.KIND_send(v), 2) = 0 AND v::text = LITERAL) FROM t",
        );
        let row = client.query_one(&query, &[&version]).unwrap();
        let [rows, distinct, right] = [0, 1, 2].map(|column| row.get::<_, i64>(column));
        assert!(rows > 1, "{}: {rows} rows", self.name);
        assert_eq!((distinct, right), (rows, rows), "{} under version {version}", self.name);
    }

    pub fn assert_inserts(&self, client: &mut Client, version: i32, insert: impl FnOnce(&mut Client)) {
        client.run("TRUNCATE t");
        insert(client);
        self.assert_sealed(client, version);
    }
}

/// COPY BINARY of one value into column v of t.
pub(super) fn copy_bytes(client: &mut Client, value: &[u8]) -> Result<u64, postgres::Error> {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01".to_vec();
    data.extend_from_slice(&(value.len() as u32).to_be_bytes());
    data.extend_from_slice(value);
    data.extend_from_slice(&[0xFF, 0xFF]);
    let mut copy = client.copy_in("COPY t (v) FROM STDIN (FORMAT binary)")?;
    copy.write_all(&data).unwrap();
    copy.finish()
}

/// COPY of one value as text into column v of t.
pub(super) fn copy_text(client: &mut Client, value: &str) -> Result<u64, postgres::Error> {
    let mut copy = client.copy_in("COPY t (v) FROM STDIN")?;
    copy.write_all(format!("{}\n", value.replace('\\', "\\\\")).as_bytes()).unwrap();
    copy.finish()
}
