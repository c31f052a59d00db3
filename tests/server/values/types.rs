//! Every way into and out of an encrypted column.

use std::io::Write;

use postgres::error::DbError;
use postgres::types::Type;
use postgres::{Client, Statement};
use serde_json::json;

use crate::support::{AsBytes, AsText, Sql, beside, fresh_database};

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
struct Kind {
    name: &'static str,
    plain: Type,
    literal: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind { name: "encrypted_jsonb", plain: Type::JSONB, literal: r#"{"a": "John Smith"}"# },
    Kind { name: "encrypted_text", plain: Type::TEXT, literal: "John Smith" },
];

impl Kind {
    /// "KIND" and "LITERAL" stand for this type and its quoted literal.
    fn sql(&self, template: &str) -> String {
        template.replace("KIND", self.name).replace("LITERAL", &format!("'{}'", self.literal))
    }

    fn run(&self, client: &mut Client, template: &str) {
        client.run(&self.sql(template));
    }

    /// The bytes of a value as this expression gives it.
    fn bytes(&self, client: &mut Client, expression: &str) -> Vec<u8> {
        client.one(&self.sql(&format!("SELECT pgseal.KIND_send({expression})")))
    }

    /// Table t, whose column v belongs to the keyring "k", which is not the default.
    fn table(&self) -> Client {
        let mut client = two_keyrings();
        self.run(&mut client, "CREATE TABLE t (n int, v KIND(k))");
        client
    }

    /// Several rows, all of "k" and this key version, none in transit, no two with the same nonce.
    fn assert_sealed(&self, client: &mut Client, version: i32) {
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

    fn assert_inserts(&self, client: &mut Client, version: i32, insert: impl FnOnce(&mut Client)) {
        client.run("TRUNCATE t");
        insert(client);
        self.assert_sealed(client, version);
    }
}

/// Rows that `insert` makes are sealed when it runs: before and after rotations, of the default keyring too, and
/// once the old versions are retired. What `set_up` prepares stays prepared throughout.
fn sealed_at_execution<S>(set_up: impl Fn(&mut Client, &Kind) -> S, insert: impl Fn(&mut Client, &Kind, &S)) {
    for kind in &KINDS {
        let client = &mut kind.table();
        let state = set_up(client, kind);
        kind.assert_inserts(client, 1, |client| insert(client, kind, &state));
        client.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_key('other')");
        kind.assert_inserts(client, 2, |client| insert(client, kind, &state));
        client.run("SELECT pgseal.retire_key('k', 1)");
        client.run("SELECT pgseal.retire_key('other', 1)");
        kind.assert_inserts(client, 2, |client| insert(client, kind, &state));
    }
}

/// As [`sealed_at_execution`], for a statement run twice.
fn statement_is_sealed(set_up: &str, statement: &str) {
    let insert = |client: &mut Client, kind: &Kind, _: &()| {
        kind.run(client, statement);
        kind.run(client, statement);
    };
    sealed_at_execution(|client, kind| kind.run(client, set_up), insert);
}

#[test]
fn literal() {
    statement_is_sealed("", "INSERT INTO t (v) VALUES (LITERAL)");
}

#[test]
fn rows_of_values() {
    statement_is_sealed("", "INSERT INTO t (v) VALUES (LITERAL), (LITERAL), (LITERAL)");
}

#[test]
fn literal_selected_for_many_rows() {
    statement_is_sealed("", "INSERT INTO t (n, v) SELECT i, LITERAL FROM generate_series(1, 3) i");
}

#[test]
fn cast_literal() {
    statement_is_sealed("", "INSERT INTO t (v) VALUES (LITERAL::KIND), (CAST(LITERAL AS KIND(k)))");
}

#[test]
fn literal_in_an_expression() {
    statement_is_sealed(
        "",
        "INSERT INTO t (n, v) SELECT i, CASE WHEN i > 1 THEN LITERAL::KIND ELSE coalesce(NULL, LITERAL::KIND) END
           FROM generate_series(1, 3) i",
    );
}

#[test]
fn prepared_literal() {
    for mode in ["force_generic_plan", "force_custom_plan"] {
        statement_is_sealed(
            &format!(
                "SET plan_cache_mode = {mode}; PREPARE p AS INSERT INTO t (v) VALUES (LITERAL), (LITERAL)"
            ),
            "EXECUTE p",
        );
    }
}

#[test]
fn plpgsql_constant() {
    statement_is_sealed(
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO t (v) VALUES (LITERAL); INSERT INTO t (v) SELECT LITERAL FROM generate_series(1, 2); END $$",
        "SELECT f()",
    );
}

#[test]
fn assignment_in_a_trigger() {
    statement_is_sealed(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := LITERAL; RETURN NEW; END $$;
         CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "INSERT INTO t (n) VALUES (1), (2)",
    );
}

#[test]
fn sql_function_constant() {
    statement_is_sealed(
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ INSERT INTO t (v) VALUES (LITERAL) $$",
        "SELECT f()",
    );
}

#[test]
fn updated_literal() {
    statement_is_sealed("", "INSERT INTO t (n) VALUES (1), (2), (3); UPDATE t SET v = LITERAL");
}

#[test]
fn upserted_literal() {
    statement_is_sealed(
        "CREATE UNIQUE INDEX ON t (n)",
        "INSERT INTO t VALUES (1, LITERAL), (2, LITERAL) ON CONFLICT (n) DO UPDATE SET v = excluded.v;
         INSERT INTO t VALUES (1, LITERAL) ON CONFLICT (n) DO UPDATE SET v = LITERAL",
    );
}

#[test]
fn merged_literal() {
    statement_is_sealed(
        "",
        "MERGE INTO t USING (VALUES (1), (2)) s (n) ON t.n = s.n
         WHEN MATCHED THEN UPDATE SET v = LITERAL WHEN NOT MATCHED THEN INSERT VALUES (s.n, LITERAL)",
    );
}

#[test]
fn literal_through_a_view() {
    statement_is_sealed("CREATE VIEW w AS SELECT * FROM t", "INSERT INTO w (v) VALUES (LITERAL)");
}

#[test]
fn untyped_parameter_as_text() {
    let insert = |client: &mut Client, kind: &Kind, _: &()| {
        for _ in 0..2 {
            client.execute("INSERT INTO t (v) VALUES ($1)", &[&AsText(kind.literal)]).unwrap();
        }
    };
    sealed_at_execution(|_, _| (), insert);
}

#[test]
fn untyped_parameter_of_a_prepared_statement() {
    let prepare = |client: &mut Client, _: &Kind| client.prepare("INSERT INTO t (v) VALUES ($1)").unwrap();
    let insert = |client: &mut Client, kind: &Kind, statement: &Statement| {
        for _ in 0..7 {
            client.execute(statement, &[&AsText(kind.literal)]).unwrap();
        }
    };
    sealed_at_execution(prepare, insert);
}

#[test]
fn untyped_parameter_as_bytes() {
    let insert = |client: &mut Client, kind: &Kind, _: &()| {
        for expression in ["LITERAL", "LITERAL", "pgseal.encrypt(LITERAL::KIND::text::PLAIN, 'k')"] {
            let expression = expression.replace("PLAIN", kind.plain.name());
            let sealed = kind.bytes(client, &expression);
            client.execute("INSERT INTO t (v) VALUES ($1)", &[&AsBytes(&sealed)]).unwrap();
        }
    };
    sealed_at_execution(|_, _| (), insert);
}

#[test]
fn typed_parameter() {
    let prepare = |client: &mut Client, kind: &Kind| {
        client.prepare_typed("INSERT INTO t (v) VALUES ($1)", std::slice::from_ref(&kind.plain)).unwrap()
    };
    let insert = |client: &mut Client, kind: &Kind, statement: &Statement| {
        for _ in 0..2 {
            match kind.plain == Type::JSONB {
                true => client.execute(statement, &[&json!({ "a": "John Smith" })]).unwrap(),
                false => client.execute(statement, &[&kind.literal]).unwrap(),
            };
        }
    };
    sealed_at_execution(prepare, insert);
}

#[test]
fn copied_text() {
    let insert = |client: &mut Client, kind: &Kind, _: &()| {
        let mut copy = client.copy_in("COPY t (v) FROM STDIN").unwrap();
        copy.write_all(format!("{0}\n{0}\n", kind.literal).as_bytes()).unwrap();
        copy.finish().unwrap();
    };
    sealed_at_execution(|_, _| (), insert);
}

#[test]
fn copied_bytes() {
    let insert = |client: &mut Client, kind: &Kind, _: &()| {
        for _ in 0..2 {
            let expression = format!("pgseal.encrypt(LITERAL::{}, 'k')", kind.plain);
            let sealed = kind.bytes(client, &expression);
            copy_bytes(client, &sealed).unwrap();
        }
    };
    sealed_at_execution(|_, _| (), insert);
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

/// PostgreSQL runs no length coercion after COPY.
#[test]
fn a_copied_value_in_transit_does_not_stay_so() {
    for kind in &KINDS {
        let client = &mut kind.table();
        client.run("SET pgseal.keyring = 'k'");
        let bytes = kind.bytes(client, "LITERAL");
        assert_eq!(bytes[2], 0x80);
        let text = client.text(&kind.sql("SELECT LITERAL::KIND"));
        let copied = [copy_bytes(client, &bytes), copy_bytes(client, &bytes), copy_text(client, &text)];
        // Refusing them is as good as sealing them anew.
        if copied.iter().any(Result::is_ok) {
            kind.assert_sealed(client, 1);
        }
    }
}

#[test]
fn default() {
    for kind in &KINDS {
        let client = &mut kind.table();
        let insert = |client: &mut Client| {
            client.run("INSERT INTO t (n) VALUES (1), (2); INSERT INTO t VALUES (3, DEFAULT)")
        };
        kind.run(client, "ALTER TABLE t ALTER v SET DEFAULT LITERAL");
        kind.assert_inserts(client, 1, insert);
        client.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_key('other')");
        kind.assert_inserts(client, 2, insert);
        client.run("SELECT pgseal.retire_key('k', 1)");
        kind.assert_inserts(client, 2, insert);

        // The default itself waits under the default keyring.
        let error = client.refused("SELECT pgseal.retire_key('other', 1)", "55000");
        assert!(error.message().contains("DEFAULT of column v of public.t"), "{error}");
        kind.run(client, "ALTER TABLE t ALTER v SET DEFAULT LITERAL");
        client.run("SELECT pgseal.retire_key('other', 1)");
        kind.assert_inserts(client, 2, insert);
    }
}

#[test]
fn default_of_an_added_column() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        client.run("CREATE TABLE t AS SELECT i AS n FROM generate_series(1, 3) i");
        kind.run(client, "ALTER TABLE t ADD v KIND(k) DEFAULT LITERAL");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn rotation_by_another_session_reaches_prepared_statements() {
    for kind in &KINDS {
        let client = &mut kind.table();
        let mut elsewhere = beside(client);
        kind.run(client, "PREPARE p AS INSERT INTO t (v) VALUES (LITERAL), (LITERAL)");
        let parameter = client.prepare("INSERT INTO t (v) VALUES ($1)").unwrap();
        let mut insert = |version| {
            kind.assert_inserts(client, version, |client| {
                client.run("EXECUTE p");
                client.execute(&parameter, &[&AsText(kind.literal)]).unwrap();
            });
        };
        insert(1);
        elsewhere.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_key('other')");
        insert(2);
        elsewhere.run("SELECT pgseal.retire_key('k', 1)");
        elsewhere.run("SELECT pgseal.retire_key('other', 1)");
        insert(2);
    }
}

#[test]
fn reencrypted_rows_are_sealed_anew_and_the_old_version_goes() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL), (LITERAL), (NULL)");
        client.run("SELECT pgseal.rotate_key('k')");
        client.refused("SELECT pgseal.retire_key('k', 1)", "55000");
        client.run("CALL pgseal.reencrypt('t', 'v')");
        client.run("SELECT pgseal.retire_key('k', 1); DELETE FROM t WHERE v IS NULL");
        kind.assert_sealed(client, 2);
    }
}

#[test]
fn unbound_columns_take_the_session_s_keyring_else_the_default() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE TABLE t (v KIND); INSERT INTO t VALUES (LITERAL)");
        assert_eq!(keyring_of_t(client), "other");
        kind.run(client, "SET pgseal.keyring = 'k'; TRUNCATE t; INSERT INTO t VALUES (LITERAL)");
        assert_eq!(keyring_of_t(client), "k");
        client.run("RESET pgseal.keyring; SELECT pgseal.set_default_keyring('k'); TRUNCATE t");
        client.execute("INSERT INTO t VALUES ($1)", &[&AsText(kind.literal)]).unwrap();
        assert_eq!(keyring_of_t(client), "k");
        assert_eq!(client.one::<String>("SELECT v::text FROM t"), kind.literal);
    }
}

fn keyring_of_t(client: &mut Client) -> String {
    client.one("SELECT k.name::text FROM t JOIN pgseal.keyring k ON k.id = pgseal.keyring_id(v)")
}

#[test]
fn prepared_literals_for_unbound_columns_follow_rotation() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE TABLE t (v KIND); PREPARE p AS INSERT INTO t VALUES (LITERAL); EXECUTE p");
        client.run("SELECT pgseal.rotate_key('other'); TRUNCATE t; EXECUTE p");
        assert_eq!(client.one::<i32>("SELECT pgseal.key_version(v) FROM t"), 2);
        client.run("SELECT pgseal.retire_key('other', 1); EXECUTE p");
        assert_eq!(client.one::<i64>(&kind.sql("SELECT count(*) FROM t WHERE v::text = LITERAL")), 2);
    }
}

#[test]
fn reencrypt_takes_values_of_unbound_columns_out_of_transit() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        client.run("SET pgseal.keyring = 'k'");
        kind.run(client, "CREATE TABLE t (v KIND); INSERT INTO t VALUES (LITERAL), (LITERAL)");
        client.run("CALL pgseal.reencrypt('t', 'v')");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn unbound_columns_hold_several_keyrings() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE t (v encrypted_jsonb)");
    client.run(r#"INSERT INTO t VALUES (pgseal.encrypt('{"a": 1}'::jsonb, 'k')), ('{"a": 1}')"#);
    assert_eq!(client.one::<i64>("SELECT count(DISTINCT pgseal.keyring_id(v)) FROM t"), 2);
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM t WHERE v::jsonb = '{"a": 1}'"#), 2);
}

#[test]
fn values_of_another_keyring_are_refused_with_a_hint() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "CREATE TABLE o (v KIND(other)); INSERT INTO o VALUES (LITERAL); INSERT INTO t VALUES (1, LITERAL)");
        for statement in [
            "INSERT INTO t (v) SELECT v FROM o",
            "INSERT INTO t (v) SELECT v FROM o UNION ALL SELECT v FROM o",
            "UPDATE t SET v = o.v FROM o",
            "SELECT v::KIND(k) FROM o",
            "ALTER TABLE o ALTER v TYPE KIND(k)",
        ] {
            let error = client.refused(&kind.sql(statement), "22023");
            assert!(error.hint().unwrap_or_default().contains("pgseal.encrypt"), "{statement}: {error:?}");
        }
        client.run("INSERT INTO t (v) SELECT pgseal.encrypt(pgseal.decrypt(v), 'k') FROM o");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn changing_the_type_of_a_column_seals_it() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(
            client,
            &format!("CREATE TABLE t (v {}); INSERT INTO t VALUES (LITERAL), (LITERAL)", kind.plain),
        );
        kind.run(client, "ALTER TABLE t ALTER v TYPE KIND(k)");
        kind.assert_sealed(client, 1);
        kind.run(client, "DROP TABLE t; CREATE TABLE t (v KIND); INSERT INTO t VALUES (LITERAL), (LITERAL)");
        // Once stored they are the session's keyring's, and moved in so many words.
        client.refused(&kind.sql("ALTER TABLE t ALTER v TYPE KIND(k)"), "22023");
        kind.run(client, "ALTER TABLE t ALTER v TYPE KIND(k) USING pgseal.encrypt(pgseal.decrypt(v), 'k')");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn modifier_is_a_name_or_a_number_and_shows_as_number() {
    let client = &mut two_keyrings();
    let id: i32 = client.one(r#"SELECT pgseal.create_keyring('O''dd name "x"')"#);
    for modifier in [r#""O'dd name ""x""""#, r#"'O''dd name "x"'"#, &id.to_string()] {
        for kind in &KINDS {
            kind.run(client, &format!("CREATE TABLE t (v KIND({modifier})); INSERT INTO t VALUES (LITERAL)"));
            let shown: String = client.one("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'v'",
            );
            assert_eq!(shown, format!("{}({id})", kind.name));
            assert_eq!(keyring_of_t(client), "O'dd name \"x\"");
            client.run("DROP TABLE t");
        }
    }
}

#[test]
fn modifier_that_names_no_keyring() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        for (modifier, state) in [
            ("nope", "42704"),
            ("\"K\"", "42704"),
            ("99999999999", "42704"),
            ("0", "22023"),
            ("k, k", "22023"),
            ("''", "42704"),
        ] {
            client.refused(&kind.sql(&format!("CREATE TABLE t (v KIND({modifier}))")), state);
        }
        // As a dump does before it restores the keyrings.
        kind.run(client, "CREATE TABLE t (v KIND(12345))");
        client.refused(&kind.sql("INSERT INTO t VALUES (LITERAL)"), "42704");
        assert!(copy_text(client, kind.literal).is_err());
    }
}

#[test]
fn plain_types_are_sealed_on_assignment() {
    let document = r#"{"a": "John Smith"}"#;
    for (kind, source, value) in [
        (&KINDS[0], "jsonb", document),
        (&KINDS[0], "json", r#"{"a":"gone", "a" : "John Smith"}"#),
        (&KINDS[1], "text", "John Smith"),
        (&KINDS[1], "varchar", "John Smith"),
        (&KINDS[1], "varchar(12)", "John Smith"),
        (&KINDS[1], "char(20)", "John Smith"),
        (&KINDS[1], "bpchar", "John Smith"),
    ] {
        let client = &mut kind.table();
        client.run(&format!("CREATE TABLE s AS SELECT '{value}'::{source} AS v FROM generate_series(1, 3)"));
        client.run("INSERT INTO t (v) SELECT v FROM s");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn other_types_are_not_sealed_on_assignment() {
    let client = &mut KINDS[0].table();
    for value in ["'{}'::text", "'{}'::varchar", "1", "true", "'x'::bytea"] {
        client.refused(&format!("INSERT INTO t (v) VALUES ({value})"), "42804");
    }
    client.batch_execute("INSERT INTO t (v) VALUES ('{}')").unwrap();
    client.refused("SELECT '{}'::jsonb = v FROM t", "42883");
}

#[test]
fn explicit_casts_decrypt() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL)");
        for target in ["text", "varchar", "bpchar", "name", "varchar(40)"] {
            assert_eq!(client.one::<String>(&format!("SELECT (v::{target})::text FROM t")), kind.literal);
        }
        assert_eq!(client.one::<String>("SELECT v::varchar(3) FROM t"), &kind.literal[..3]);
        let padded: String = client.one("SELECT v::char(30) FROM t");
        assert_eq!((padded.trim_end(), padded.len()), (kind.literal, 30));
    }
}

#[test]
fn explicit_cast_to_jsonb_is_the_document() {
    let client = &mut KINDS[0].table();
    KINDS[0].run(client, "INSERT INTO t (v) VALUES (LITERAL)");
    assert_eq!(client.one::<serde_json::Value>("SELECT v::jsonb FROM t"), json!({ "a": "John Smith" }));
    assert_eq!(client.one::<String>("SELECT v::jsonb ->> 'a' FROM t"), "John Smith");
}

#[test]
fn cast_to_name_ends_between_characters() {
    let client = &mut KINDS[1].table();
    let long = format!("{}äö", "x".repeat(62));
    client.execute("INSERT INTO t (v) VALUES ($1)", &[&AsText(&long)]).unwrap();
    assert_eq!(client.one::<String>("SELECT v::name::text FROM t"), "x".repeat(62));
}

#[test]
fn plaintext_never_goes_into_a_plain_column_by_assignment() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL); CREATE DOMAIN d AS text");
        for target in
            ["text", "varchar", "varchar(200)", "char(200)", "name", "json", "jsonb", "bytea", "text[]", "d"]
        {
            client.run(&format!("CREATE TABLE p (v {target})"));
            client.refused("INSERT INTO p SELECT v FROM t", "42804");
            client.run("DROP TABLE p");
        }
        client.refused("ALTER TABLE t ALTER v TYPE text", "42804");
    }
}

#[test]
fn there_is_no_cast_to_json() {
    for kind in &KINDS {
        let client = &mut kind.table();
        client.refused("SELECT v::json FROM t", "42846");
        let casts = "SELECT count(*) FROM pg_cast WHERE castsource = 'KIND'::regtype AND casttarget = 'json'::regtype";
        assert_eq!(client.one::<i64>(&kind.sql(casts)), 0);
        let implicit = "SELECT string_agg(casttarget::regtype::text, ' ') FROM pg_cast
                         WHERE castsource = 'KIND'::regtype AND castcontext <> 'e' AND casttarget <> castsource";
        assert_eq!(client.one::<Option<String>>(&kind.sql(implicit)), None);
    }
}

#[test]
fn whatever_reads_a_value_as_text_gets_ciphertext() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL)");
        for expression in [
            "v",
            "to_jsonb(v)",
            "to_json(v)",
            "row_to_json(t)",
            "to_jsonb(t)",
            "json_agg(t)",
            "jsonb_build_object('v', v)",
            "json_object_agg('v', v)",
            "concat(v, '')",
            "concat_ws('-', v, v)",
            "format('%s %L', v, v)",
            "t",
            "row(v)",
            "array_to_string(ARRAY[v], ',')",
            "array_agg(v)",
            "jsonb_populate_record(NULL::t, to_jsonb(t))",
        ] {
            let shown = client.text(&format!("SELECT {expression} FROM t"));
            assert!(shown.contains("pgseal:") && !shown.contains("Smith"), "{expression}: {shown}");
        }
    }
}

#[test]
fn arrays() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE TABLE a (v KIND(k)[])");
        kind.run(
            client,
            "INSERT INTO a VALUES (ARRAY[LITERAL, LITERAL]::KIND[]), (array_append(NULL::KIND[], LITERAL))",
        );
        kind.run(client, "INSERT INTO a VALUES (ARRAY[LITERAL, NULL]::KIND[])");
        let quoted = kind.literal.replace('"', "\\\"");
        client.run(&format!("INSERT INTO a VALUES ('{{\"{quoted}\",NULL}}')"));
        client.run("CREATE VIEW t AS SELECT v FROM (SELECT unnest(v) AS v FROM a) u WHERE v IS NOT NULL");
        kind.assert_sealed(client, 1);
        assert_eq!(client.one::<i64>("SELECT count(*) FROM t"), 5);
    }
}

#[test]
fn domains() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE DOMAIN d AS KIND(k) NOT NULL; CREATE TABLE t (v d)");
        kind.run(client, "INSERT INTO t VALUES (LITERAL), (LITERAL::d), (LITERAL::KIND)");
        client.execute("INSERT INTO t VALUES ($1)", &[&AsText(kind.literal)]).unwrap();
        copy_text(client, kind.literal).unwrap();
        kind.assert_sealed(client, 1);
        client.refused("INSERT INTO t VALUES (NULL)", "23502");
    }
}

#[test]
fn composites() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE TYPE c AS (n int, v KIND(k)); CREATE TABLE r (c c)");
        kind.run(client, "INSERT INTO r VALUES (ROW(1, LITERAL)), (ROW(1, LITERAL)::c)");
        let quoted = kind.literal.replace('"', "\"\"");
        client.run(&format!("INSERT INTO r VALUES ('(1,\"{quoted}\")')"));
        client.run("UPDATE r SET c.n = 2; CREATE VIEW t AS SELECT (c).v FROM r");
        kind.assert_sealed(client, 1);
    }
}

#[test]
fn partitions() {
    for kind in &KINDS {
        let client = &mut two_keyrings();
        kind.run(client, "CREATE TABLE t (n int, v KIND(k)) PARTITION BY LIST (n)");
        kind.run(
            client,
            "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE t2 (v KIND(k), n int)",
        );
        kind.run(client, "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2); INSERT INTO t VALUES (1, LITERAL), (2, LITERAL)");
        kind.assert_sealed(client, 1);
        client.run("SELECT pgseal.rotate_key('k')");
        client.run("CALL pgseal.reencrypt('t', 'v')");
        kind.assert_sealed(client, 2);
    }
}

#[test]
fn encrypt_takes_keyring_and_context() {
    let client = &mut two_keyrings();
    for (arguments, keyring) in [
        (r#"'{"a": 1}'::jsonb"#, "other"),
        (r#"'{"a": 1}'::jsonb, 'k'"#, "k"),
        (r#"'{"a": 1}'::jsonb, NULL, 'row 7'"#, "other"),
        (r#"'{"a": 1}'::jsonb, keyring => 'k', context => 'row 7'"#, "k"),
        ("'x'::text, 'k'", "k"),
        ("'x', 'k'", "k"),
        ("value => 'x'::text, context => 'row 7'", "other"),
    ] {
        client.run(&format!("CREATE TABLE t AS SELECT pgseal.encrypt({arguments}) AS v"));
        assert_eq!(keyring_of_t(client), keyring, "{arguments}");
        client.run("DROP TABLE t");
    }
}

/// Table t with a value bound to "row 7" and one that is bound to nothing.
fn bound_and_unbound(kind: &Kind) -> Client {
    let mut client = kind.table();
    let plain = format!("LITERAL::{}", kind.plain);
    kind.run(&mut client, &format!("INSERT INTO t VALUES (1, pgseal.encrypt({plain}, 'k', 'row 7')), (0, pgseal.encrypt({plain}, 'k'))"));
    client
}

fn assert_context_is_needed(client: &mut Client, kind: &Kind) {
    let read = "SELECT pgseal.decrypt(v, 'row 7')::text FROM t WHERE n = 1";
    assert_eq!(client.one::<String>(read), kind.literal);
    for read in [
        "pgseal.decrypt(v, 'row 8')",
        "pgseal.decrypt(v, '')",
        "pgseal.decrypt(v)",
        "v::text",
        "v::varchar",
        "v::bpchar",
        "v::name",
    ] {
        let error = client.refused(&format!("SELECT {read} FROM t WHERE n = 1"), "22000");
        assert!(!format!("{error:?}").contains("Smith"), "{error:?}");
    }
    client.refused("SELECT pgseal.decrypt(v, 'row 7') FROM t WHERE n = 0", "22000");
    assert_eq!(client.one::<String>("SELECT pgseal.decrypt(v)::text FROM t WHERE n = 0"), kind.literal);
}

#[test]
fn bound_values_open_with_their_context_only_rotated_or_not() {
    for kind in &KINDS {
        let client = &mut bound_and_unbound(kind);
        assert_context_is_needed(client, kind);
        client.run("SELECT pgseal.rotate_key('k')");
        assert_context_is_needed(client, kind);
        client.run("CALL pgseal.reencrypt('t', 'v')");
        assert_eq!(client.one::<i32>("SELECT min(pgseal.key_version(v)) FROM t"), 2);
        client.run("SELECT pgseal.retire_key('k', 1)");
        assert_context_is_needed(client, kind);
        assert_eq!(client.one::<i64>("SELECT count(*) FROM t"), 2);
    }
}

#[test]
fn bound_values_are_found_without_their_context() {
    let client = &mut bound_and_unbound(&KINDS[0]);
    let found = r#"SELECT count(*) FROM t WHERE v @> '{"a": "John Smith"}'"#;
    assert_eq!(client.one::<i64>(found), 2);
    client.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_index_key('k')");
    client.run("CALL pgseal.reencrypt('t', 'v')");
    assert_eq!(client.one::<i64>(found), 2);
}

#[test]
fn an_empty_context_is_a_context() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE t AS SELECT pgseal.encrypt('x'::text, 'k', '') AS v");
    assert_eq!(client.one::<String>("SELECT pgseal.decrypt(v, '') FROM t"), "x");
    client.refused("SELECT pgseal.decrypt(v) FROM t", "22000");
}

#[test]
fn header_functions() {
    for kind in &KINDS {
        let client = &mut kind.table();
        client.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_index_key('k')");
        client.run("SELECT pgseal.rotate_index_key('k')");
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL)");
        let row = client
            .query_one("SELECT pgseal.key_version(v), pgseal.index_key_version(v), pgseal.keyring_id(v) = k.id FROM t, pgseal.keyring k WHERE name = 'k'", &[])
            .unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1), row.get::<_, bool>(2)), (2, 3, true));
    }
}

#[test]
fn header_functions_read_values_stored_out_of_line() {
    let client = &mut KINDS[1].table();
    client.run("INSERT INTO t (v) SELECT repeat('x', 100000)::text");
    assert_eq!(client.one::<i32>("SELECT pgseal.key_version(v) FROM t"), 1);
    assert_eq!(client.one::<i32>("SELECT length(pgseal.decrypt(v)) FROM t"), 100_000);
}

#[test]
fn returning_gives_ciphertext() {
    for kind in &KINDS {
        let client = &mut kind.table();
        for statement in [
            "INSERT INTO t VALUES (1, LITERAL) RETURNING v",
            "UPDATE t SET v = LITERAL RETURNING v",
            "DELETE FROM t RETURNING v",
        ] {
            let shown = client.text(&kind.sql(statement));
            assert!(shown.starts_with("pgseal:"), "{statement}: {shown}");
        }
    }
}

#[test]
fn copy_out_and_in_again_keeps_the_bytes() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(
            client,
            "INSERT INTO t (v) VALUES (LITERAL), (LITERAL); CREATE TABLE before AS SELECT * FROM t",
        );
        for format in ["text", "csv", "binary"] {
            let mut copied = Vec::new();
            let mut reader = client.copy_out(&format!("COPY t (v) TO STDOUT (FORMAT {format})")).unwrap();
            std::io::Read::read_to_end(&mut reader, &mut copied).unwrap();
            drop(reader);
            assert!(!String::from_utf8_lossy(&copied).contains("Smith"));
            client.run("TRUNCATE t");
            let mut writer = client.copy_in(&format!("COPY t (v) FROM STDIN (FORMAT {format})")).unwrap();
            writer.write_all(&copied).unwrap();
            writer.finish().unwrap();
            let same =
                "SELECT count(*) FROM t JOIN before b ON pgseal.KIND_send(t.v) = pgseal.KIND_send(b.v)";
            assert_eq!(client.one::<i64>(&kind.sql(same)), 2, "{format}");
        }
    }
}

#[test]
fn tables_and_views_made_from_a_query_hold_the_same_ciphertext() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL), (LITERAL)");
        client.run("CREATE TABLE c AS SELECT v FROM t; CREATE MATERIALIZED VIEW m AS SELECT v FROM t");
        for relation in ["c", "m"] {
            let same = format!(
                "SELECT count(*) FROM t JOIN {relation} r ON pgseal.KIND_send(t.v) = pgseal.KIND_send(r.v)"
            );
            assert_eq!(client.one::<i64>(&kind.sql(&same)), 2);
            let bound = format!("SELECT a.atttypmod = b.atttypmod FROM pg_attribute a, pg_attribute b
                WHERE a.attrelid = 't'::regclass AND b.attrelid = '{relation}'::regclass AND a.attname = 'v' AND b.attname = 'v'");
            assert!(client.one::<bool>(&bound));
        }
    }
}

/// Documents whose text jsonb changes, or that are easily lost or changed on the way.
fn awkward_documents() -> Vec<String> {
    let fixed = [
        "{}",
        "[]",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-0.0",
        "1.10",
        "1e400",
        "-1e-400",
        "12345678901234567890123456789.0123456789",
        r#""""#,
        r#"" ""#,
        r#""pgseal:AQ==""#,
        r#""a\\b\"c\/d\b\f\n\r\t\u00e9\ud83d\ude00""#,
        "\"\u{e9}\"",
        "\"e\u{301}\"",
        "{\"\u{e9}\": 1, \"e\u{301}\": 2}",
        r#"{"": {"": [{}]}}"#,
        r#"[null, [null], {"a": null}]"#,
        r#"{"b": 1, "a": 2, "aa": 3, "a": 4}"#,
        r#"[[], {}, [[]], "", 0]"#,
        " \n\t[1 , 2]\r ",
        r#"{"a'b\"c": "it's"}"#,
        r#"{"$.**": "*", "a.b": ".", "[0]": 0}"#,
    ];
    let numbers: Vec<String> = (0..40_000).map(|n| n.to_string()).collect();
    let wide: Vec<String> = (0..5_000).map(|n| format!("\"key {n}\": [{n}]")).collect();
    let long = [
        format!("[{}]", numbers.join(",")),
        format!("{{{}}}", wide.join(",")),
        format!("{{\"text\": \"{}\"}}", "ä 1 ".repeat(1 << 18)),
        format!("{}{}", "[".repeat(500), "]".repeat(500)),
    ];
    fixed.iter().map(|text| (*text).to_owned()).chain(long).collect()
}

/// Table t with a plain column beside the encrypted one.
fn beside_plain() -> Client {
    let mut client = two_keyrings();
    client.run("SELECT pgseal.create_keyring('big', ARRAY['$.a.*'])");
    client.run("CREATE TABLE t (n serial, plain jsonb, v encrypted_jsonb(big))");
    client
}

fn assert_equals_plain(client: &mut Client, count: usize) {
    let differing: Option<String> = client.one(
        "SELECT string_agg(left(plain::text, 80), ' ') FROM t
          WHERE plain::text IS DISTINCT FROM pgseal.decrypt(v)::text OR plain::text IS DISTINCT FROM v::text
             OR plain IS DISTINCT FROM v::jsonb",
    );
    assert_eq!(differing, None);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE v IS NOT NULL"), count as i64);
}

#[test]
fn documents_come_back_as_jsonb_has_them() {
    let documents = awkward_documents();
    for insert in [
        "INSERT INTO t (plain, v) VALUES ($1::text::jsonb, $2)",
        "INSERT INTO t (plain, v) VALUES ($1::text::jsonb, $2::text::jsonb)",
        "INSERT INTO t (plain, v) VALUES ($1::text::jsonb, $2::text::json)",
        "INSERT INTO t (plain, v) VALUES ($1::text::jsonb, pgseal.encrypt($2::text::jsonb, 'big'))",
    ] {
        let client = &mut beside_plain();
        for document in &documents {
            client.execute(insert, &[&AsText(document), &AsText(document)]).unwrap();
        }
        assert_equals_plain(client, documents.len());
        client.run("SELECT pgseal.rotate_key('big')");
        client.run("CALL pgseal.reencrypt('t', 'v')");
        assert_equals_plain(client, documents.len());
        client.run("SELECT pgseal.retire_key('big', 1)");
    }
}

#[test]
fn copied_documents_come_back_as_jsonb_has_them() {
    let client = &mut beside_plain();
    let documents = awkward_documents();
    for document in &documents {
        let line =
            document.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
        let mut copy = client.copy_in("COPY t (plain, v) FROM STDIN").unwrap();
        copy.write_all(format!("{line}\t{line}\n").as_bytes()).unwrap();
        copy.finish().unwrap();
    }
    assert_equals_plain(client, documents.len());
}

#[test]
fn texts_come_back_as_they_were() {
    let client = &mut KINDS[1].table();
    let megabyte = "ä 1 ".repeat(1 << 18);
    let texts = [
        "",
        " ",
        "  x  ",
        "\\",
        "'",
        "{}",
        "e\u{301}",
        "\u{e9}",
        "a\nb\r\tc",
        "PGSEAL:AQ==",
        " pgseal:",
        &megabyte,
    ];
    for text in texts {
        client.run("TRUNCATE t");
        client.execute("INSERT INTO t (v) VALUES ($1)", &[&AsText(text)]).unwrap();
        client.execute("INSERT INTO t (v) VALUES ($1::text)", &[&text]).unwrap();
        client.execute("INSERT INTO t (v) VALUES (pgseal.encrypt($1::text, 'k'))", &[&text]).unwrap();
        let same = client.query_one("SELECT count(*) FROM t WHERE pgseal.decrypt(v) = $1", &[&text]).unwrap();
        assert_eq!(same.get::<_, i64>(0), 3, "{text:.20}");
    }
}

#[test]
fn typed_text_may_look_sealed() {
    let client = &mut KINDS[1].table();
    client.execute("INSERT INTO t (v) VALUES ($1::text)", &[&"pgseal:not base64"]).unwrap();
    assert_eq!(client.one::<String>("SELECT pgseal.decrypt(v) FROM t"), "pgseal:not base64");
}

#[test]
fn null_is_not_json_null() {
    let client = &mut KINDS[0].table();
    client.run("INSERT INTO t VALUES (1, 'null'), (2, NULL)");
    client.run("INSERT INTO t VALUES (1, 'null'::jsonb), (2, NULL::jsonb), (2, NULL::encrypted_jsonb)");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE n = 1 AND v::text = 'null'"), 2);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE n = 2 AND v IS NULL"), 3);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE pgseal.decrypt(v) IS NULL"), 3);
}

#[test]
fn storage_is_external() {
    let client = &mut KINDS[0].table();
    for kind in &KINDS {
        let storage = kind.sql("SELECT typstorage::text FROM pg_type WHERE oid = 'KIND'::regtype");
        assert_eq!(client.one::<String>(&storage), "e");
    }
    client.run(r#"INSERT INTO t (v) SELECT jsonb_build_object('a', repeat('x', 1000000))"#);
    assert!(
        client.one::<bool>("SELECT pg_column_size(v) > 1000000 AND pg_column_compression(v) IS NULL FROM t")
    );
    let toast = "SELECT pg_relation_size(reltoastrelid) > 1000000 FROM pg_class WHERE oid = 't'::regclass";
    assert!(client.one::<bool>(toast));
}

#[test]
fn equal_literals_in_one_statement_are_equal_to_the_parser() {
    let client = &mut KINDS[1].table();
    client.run("INSERT INTO t (v) VALUES ('a'), ('a'), (NULL)");
    for query in [
        "SELECT pgseal.decrypt(coalesce(v, 'none')) AS x, count(*) FROM t GROUP BY pgseal.decrypt(coalesce(v, 'none')) ORDER BY 1",
        "SELECT DISTINCT pgseal.decrypt(coalesce(v, 'none')) FROM t ORDER BY pgseal.decrypt(coalesce(v, 'none'))",
    ] {
        let rows = client.query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["a", "none"]);
    }
}

#[test]
fn failed_statements_leave_nothing_behind() {
    for kind in &KINDS {
        let client = &mut kind.table();
        kind.run(client, "BEGIN; INSERT INTO t (v) VALUES (LITERAL); SAVEPOINT s");
        assert!(client.batch_execute("SELECT pgseal.encrypt('x'::text, 'nope')").is_err());
        kind.run(client, "ROLLBACK TO s; INSERT INTO t (v) VALUES (LITERAL); COMMIT");
        kind.assert_sealed(client, 1);
        client.run("BEGIN; SELECT pgseal.rotate_key('k'); ROLLBACK");
        kind.assert_inserts(client, 1, |client| {
            kind.run(client, "INSERT INTO t (v) VALUES (LITERAL), (LITERAL)")
        });
    }
}

#[test]
fn a_rolled_back_rotation_does_not_reach_values() {
    for kind in &KINDS {
        let client = &mut kind.table();
        client.run("BEGIN; SAVEPOINT s; SELECT pgseal.rotate_key('k')");
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL); ROLLBACK TO s");
        kind.run(client, "INSERT INTO t (v) VALUES (LITERAL), (LITERAL); COMMIT");
        kind.assert_sealed(client, 1);
    }
}
