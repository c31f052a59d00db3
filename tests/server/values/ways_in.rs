//! Every way into an encrypted column seals, and goes on to seal after rotations.

use std::io::Write;

use postgres::types::Type;
use postgres::{Client, Statement};
use serde_json::json;

use crate::server::values::kinds::{KINDS, Kind, copy_bytes, copy_text, two_keyrings};
use crate::support::{AsBytes, AsText, Sql};

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
            if kind.plain == Type::JSONB {
                client.execute(statement, &[&json!({ "a": "John Smith" })]).unwrap()
            } else {
                client.execute(statement, &[&kind.literal]).unwrap()
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
