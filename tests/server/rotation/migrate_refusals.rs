//! What stops encrypt_column, named before anything is changed, and what goes along.

use postgres::Client;

use crate::server::rotation::migrate::{
    DECRYPT, DIFFERENT, ENCRYPT, build_index, database, leftovers, type_of,
};
use crate::support::{Sql, fresh_database};

#[test]
fn dependent_objects_are_named_and_nothing_is_changed() {
    let mut client = database();
    client.run("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'");
    for (object, drop, named) in [
        ("VIEW v AS SELECT m FROM docs", "VIEW v", "view public.v"),
        ("MATERIALIZED VIEW v AS SELECT m FROM docs", "MATERIALIZED VIEW v", "materialized view public.v"),
        ("POLICY p ON docs USING (m ? 'a')", "POLICY p ON docs", "policy p on table public.docs"),
        (
            "TRIGGER t AFTER UPDATE OF m ON docs FOR EACH ROW EXECUTE FUNCTION touch()",
            "TRIGGER t ON docs",
            "trigger t on table public.docs",
        ),
        (
            "TRIGGER t AFTER UPDATE ON docs FOR EACH ROW WHEN (OLD.m IS DISTINCT FROM NEW.m) EXECUTE FUNCTION touch()",
            "TRIGGER t ON docs",
            "trigger t on table public.docs",
        ),
        (
            "TRIGGER \"~zz\" BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION touch()",
            "TRIGGER \"~zz\" ON docs",
            "trigger \"~zz\" of public.docs",
        ),
        ("INDEX i ON docs ((m ->> 'name'))", "INDEX i", "index public.i"),
        ("INDEX i ON docs (id) WHERE m IS NOT NULL", "INDEX i", "index public.i"),
        ("INDEX i ON docs (m)", "INDEX i", "index public.i"),
        ("UNIQUE INDEX i ON docs (m, id)", "INDEX i", "index public.i"),
        ("STATISTICS s ON m, id FROM docs", "STATISTICS s", "statistics object public.s"),
        ("PUBLICATION p FOR TABLE docs (id, m)", "PUBLICATION p", "publication p"),
        ("PUBLICATION p FOR TABLE docs", "PUBLICATION p", "publication p: its subscribers"),
        (
            "FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(m) FROM docs'",
            "FUNCTION f",
            "function public.f()",
        ),
        (
            "FUNCTION f() RETURNS bigint LANGUAGE sql RETURN (SELECT count(m) FROM docs)",
            "FUNCTION f",
            "function public.f()",
        ),
        (
            "FUNCTION f() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN count(docs.M) FROM Docs; END'",
            "FUNCTION f",
            "function public.f()",
        ),
    ] {
        client.run(&format!("CREATE {object}"));
        let error = client.error(ENCRYPT);
        let detail = error.detail().unwrap_or_default().to_owned();
        assert!(error.code().code() == "2BP01" && detail.contains(named), "{object}: {error}: {detail}");
        client.run(&format!("DROP {drop}"));
    }
    for (object, named) in [
        ("ADD CONSTRAINT c CHECK (m <> '1')", "constraint c on table public.docs"),
        ("ADD CONSTRAINT c UNIQUE (m)", "constraint c on table public.docs"),
        ("ADD g jsonb GENERATED ALWAYS AS (m -> 'name') STORED", "column g of table public.docs"),
    ] {
        client.run(&format!("ALTER TABLE docs {object}"));
        let detail = client.error(ENCRYPT).detail().unwrap_or_default().to_owned();
        assert!(detail.contains(named), "{object}: {detail}");
        client.run("ALTER TABLE docs DROP CONSTRAINT IF EXISTS c, DROP COLUMN IF EXISTS g");
    }
    assert_eq!((type_of(&mut client, "m").as_str(), leftovers(&mut client)), ("jsonb", vec![]));
    client.run("CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(m) FROM docs'");
    client.run("CALL pgseal.encrypt_column('docs', 'm', ignore => ARRAY['function public.f()'])");
    assert_eq!(
        (type_of(&mut client, "m").as_str(), client.one::<i64>("SELECT f()")),
        ("encrypted_jsonb", 1980)
    );
}

/// Refused with each of these objects, naming it, and with nothing changed.
fn refused_with(client: &mut Client, objects: &[(&str, &str, &str)]) {
    for (create, drop, named) in objects {
        client.run(create);
        for call in [ENCRYPT.to_owned(), ENCRYPT.replace("'k')", "'k', dry_run => true)")] {
            let error = client.error(&call);
            let detail = error.detail().unwrap_or_default().to_owned();
            assert!(error.code().code() == "2BP01" && detail.contains(named), "{create}: {error}: {detail}");
        }
        client.run(drop);
    }
    assert_eq!((type_of(client, "m").as_str(), leftovers(client)), ("jsonb", vec![]));
    client.run(ENCRYPT);
    assert_eq!(type_of(client, "m"), "encrypted_jsonb");
}

#[test]
fn rows_of_the_table_that_are_stored_elsewhere_are_found() {
    let mut client = database();
    client.run("CREATE TABLE other (id int)");
    refused_with(
        &mut client,
        &[
            ("ALTER TABLE other ADD r docs", "ALTER TABLE other DROP r", "column r of table public.other"),
            ("ALTER TABLE other ADD r docs[]", "ALTER TABLE other DROP r", "column r of table public.other"),
            (
                "CREATE DOMAIN d AS docs; ALTER TABLE other ADD r d[]",
                "DROP DOMAIN d CASCADE",
                "column r of table public.other",
            ),
            (
                "CREATE TYPE pair AS (n int, r docs); CREATE TYPE pairs AS (p pair[]); CREATE MATERIALIZED VIEW v AS SELECT NULL::pairs AS p",
                "DROP MATERIALIZED VIEW v; DROP TYPE pairs, pair",
                "column p of materialized view public.v",
            ),
            (
                "CREATE TYPE span AS RANGE (SUBTYPE = docs, MULTIRANGE_TYPE_NAME = spans); ALTER TABLE other ADD r spans",
                "ALTER TABLE other DROP r; DROP TYPE span",
                "column r of table public.other",
            ),
            (
                "ALTER TABLE other ADD t text DEFAULT (ROW(1, '{}', '{}', 'x')::docs)::text",
                "ALTER TABLE other DROP t",
                "default value for column t of table public.other",
            ),
            (
                "CREATE FUNCTION f() RETURNS SETOF docs LANGUAGE plpgsql AS 'BEGIN RETURN; END'",
                "DROP FUNCTION f",
                "function public.f(): ",
            ),
            (
                "CREATE FUNCTION f(VARIADIC docs[]) RETURNS int LANGUAGE sql AS 'SELECT 1'",
                "DROP FUNCTION f",
                "function public.f(public.docs[]): ",
            ),
            (
                "CREATE FUNCTION f(r docs) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN r.m; END'",
                "DROP FUNCTION f",
                "function public.f(public.docs): ",
            ),
        ],
    );
}

#[test]
fn rows_of_a_partition_that_are_stored_elsewhere_are_found() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k'); CREATE TABLE docs (id int, m jsonb) PARTITION BY LIST (id);
         CREATE TABLE docs_1 PARTITION OF docs FOR VALUES IN (1); CREATE TABLE other (id int)",
    );
    let column = "column r of table public.other";
    refused_with(&mut client, &[("ALTER TABLE other ADD r docs_1[]", "ALTER TABLE other DROP r", column)]);
}

#[test]
fn rows_used_whole_in_expressions_and_functions_are_found() {
    let mut client = database();
    client.run("CREATE TABLE other (id int)");
    refused_with(
        &mut client,
        &[
            (
                "CREATE VIEW v AS SELECT id, to_jsonb(docs.*) -> 'm' AS m FROM docs",
                "DROP VIEW v",
                "view public.v",
            ),
            ("CREATE VIEW v AS SELECT count(DISTINCT d) FROM docs d", "DROP VIEW v", "view public.v"),
            (
                "CREATE MATERIALIZED VIEW v AS SELECT (SELECT json_agg(d) FROM docs d WHERE d.id = o.id) FROM other o",
                "DROP MATERIALIZED VIEW v",
                "materialized view public.v",
            ),
            (
                "ALTER TABLE docs ADD CONSTRAINT c CHECK (id > 0 OR to_jsonb(docs.*) ? 'm')",
                "ALTER TABLE docs DROP CONSTRAINT c",
                "constraint c on table public.docs",
            ),
            (
                "CREATE POLICY p ON other USING (EXISTS (SELECT FROM docs d WHERE d.id = other.id AND to_jsonb(d) ? 'm'))",
                "DROP POLICY p ON other",
                "policy p on table public.other",
            ),
            (
                "CREATE RULE r AS ON DELETE TO docs WHERE to_jsonb(OLD) ? 'm' DO ALSO DELETE FROM other",
                "DROP RULE r ON docs",
                "rule r of public.docs",
            ),
            (
                "CREATE RULE r AS ON UPDATE TO docs WHERE OLD.id = 7 DO INSTEAD NOTHING",
                "DROP RULE r ON docs",
                "rule r of public.docs",
            ),
            (
                "CREATE FUNCTION f() RETURNS jsonb LANGUAGE sql RETURN (SELECT to_jsonb(d) FROM docs d LIMIT 1)",
                "DROP FUNCTION f",
                "function public.f()",
            ),
            (
                "CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS 'DECLARE r docs%ROWTYPE; BEGIN RETURN r; END'",
                "DROP FUNCTION f",
                "function public.f(): names the table",
            ),
            (
                "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (OLD.*); RETURN NULL; END'; CREATE TRIGGER t AFTER DELETE ON docs FOR EACH ROW EXECUTE FUNCTION f()",
                "DROP FUNCTION f CASCADE",
                "function public.f(): uses whole rows",
            ),
            (
                "CREATE TRIGGER t BEFORE UPDATE ON docs FOR EACH ROW WHEN (to_jsonb(NEW) -> 'm' ? 'a') EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                "DROP TRIGGER t ON docs",
                "trigger t of public.docs uses whole rows",
            ),
        ],
    );
}

#[test]
fn triggers_that_compare_rows_are_found_with_what_to_write() {
    let mut client = database();
    client.run("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'");
    let trigger = |condition: &str| {
        format!(
            "CREATE TRIGGER t BEFORE UPDATE ON docs FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION touch()"
        )
    };
    for condition in [
        "OLD.* IS DISTINCT FROM NEW.*",
        "NOT OLD = NEW",
        "ROW(NEW.*) <> ROW(OLD.*)",
        "OLD IS NOT DISTINCT FROM NEW",
    ] {
        client.run(&trigger(condition));
        let detail = client.error(ENCRYPT).detail().unwrap_or_default().to_owned();
        assert!(detail.contains("trigger t o"), "{condition}: {detail}");
        assert!(detail.contains("OLD.* *<> NEW.*") || condition.contains("ROW("), "{condition}: {detail}");
        client.run("DROP TRIGGER t ON docs");
    }
    let function = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION compare() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$"
        )
    };
    client.run(&function(""));
    client.run("CREATE TRIGGER t BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION compare()");
    for body in [
        "IF NEW IS DISTINCT FROM OLD THEN NEW.note := 'changed'; END IF;",
        "IF old.* <> new.* THEN NULL; END IF;",
    ] {
        client.run(&function(body));
        let detail = client.error(ENCRYPT).detail().unwrap_or_default().to_owned();
        assert!(detail.contains("function public.compare(): compares whole rows"), "{body}: {detail}");
    }
    // What it says to write is accepted, and works with the encrypted column.
    client.run(&function(
        "-- As OLD = NEW would.
         IF NEW *<> OLD AND to_jsonb(OLD) - 'note' IS DISTINCT FROM to_jsonb(NEW) - 'note' AND NEW.id IS NOT DISTINCT FROM OLD.id THEN NEW.note := 'changed'; END IF;",
    ));
    client.run(
        &trigger("OLD.* *<> NEW.* AND to_jsonb(OLD) IS DISTINCT FROM to_jsonb(NEW)")
            .replace("TRIGGER t", "TRIGGER s"),
    );
    client.run("CREATE TRIGGER same BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()");
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    client.run("UPDATE docs SET copy = '1' WHERE id = 1; UPDATE docs SET copy = copy WHERE id = 2");
    let notes = client.column::<String>("SELECT note FROM docs WHERE id < 3 ORDER BY id");
    assert_eq!(notes, ["changed", "note 2"]);
    client.run("SELECT pgseal.rotate_key('k')");
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    // A comparison that was made since stops reencrypt before it begins.
    client.run(&trigger("OLD.* IS DISTINCT FROM NEW.*").replace("TRIGGER t", "TRIGGER late"));
    let error = client.error("CALL pgseal.reencrypt('docs', 'm')");
    assert!(error.code().code() == "2BP01" && error.hint().unwrap_or_default().contains("*<>"), "{error:?}");
}

#[test]
fn defaults_of_any_type_go_along_and_are_not_evaluated() {
    let mut client = database();
    client.run("CREATE SEQUENCE calls; CREATE FUNCTION called() RETURNS text LANGUAGE sql AS $$ SELECT 'call ' || nextval('calls') $$");
    for (default, expected) in [
        ("7", "7"),
        ("current_user", "postgres"),
        ("true", "true"),
        ("'x'", "x"),
        ("called()", "call 1"),
        ("NULL", ""),
    ] {
        client.run(&format!("CREATE TABLE t (id int, x text DEFAULT {default}, v varchar(9) DEFAULT {default}); INSERT INTO t VALUES (1, 'a', 'b')"));
        for column in ["x", "v"] {
            client.run(&format!("CALL pgseal.encrypt_column('t', '{column}', 'k')"));
        }
        client.run("INSERT INTO t (id, v) VALUES (2, NULL)");
        assert_eq!(
            client.one::<String>("SELECT coalesce(x::text, '') FROM t WHERE id = 2"),
            expected,
            "{default}"
        );
        client.run("CALL pgseal.decrypt_column('t', 'x')");
        client.run("ALTER SEQUENCE calls RESTART; DELETE FROM t WHERE id = 2; INSERT INTO t (id, v) VALUES (2, NULL)");
        assert_eq!(
            client.one::<String>("SELECT coalesce(x, '') FROM t WHERE id = 2"),
            expected,
            "{default} back"
        );
        client.run("DROP TABLE t; ALTER SEQUENCE calls RESTART");
    }
    client.run("CREATE TABLE t (id int, m encrypted_jsonb(k) DEFAULT '{\"sealed\": 1}')");
    client.run("CALL pgseal.decrypt_column('t', 'm')");
    client.run("INSERT INTO t (id) VALUES (1)");
    assert_eq!(client.one::<String>("SELECT m::text FROM t"), "{\"sealed\": 1}");
}

#[test]
fn settings_of_the_column_and_its_index_go_along() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k'); CREATE TABLE docs (id int, m jsonb) PARTITION BY LIST (id); CREATE TABLE docs_1 PARTITION OF docs FOR VALUES IN (1);
         CREATE INDEX docs_m ON docs USING gin (m) WITH (fastupdate = off); COMMENT ON INDEX docs_m IS 'found by';
         ALTER TABLE docs_1 ALTER m SET STATISTICS 333, ALTER m SET (n_distinct = 5); ALTER TABLE docs_1 ALTER m SET COMPRESSION pglz;
         COMMENT ON COLUMN docs_1.m IS 'of a partition'; GRANT SELECT (m) ON docs_1 TO pg_monitor; INSERT INTO docs VALUES (1, '{}')",
    );
    let settings = "SELECT concat_ws(', ', attstattarget, (SELECT string_agg(o, ' ') FROM unnest(attoptions) o WHERE o ~ '^n_'), attcompression, col_description(attrelid, attnum), attacl,
            (SELECT concat(reloptions, obj_description(oid)) FROM pg_class WHERE relname = 'docs_m')) FROM pg_attribute WHERE attrelid = 'docs_1'::regclass AND attname = 'm'";
    let before: String = client.one(settings);
    assert!(before.starts_with("333, n_distinct=5, p, of a partition, "), "{before}");
    for call in [ENCRYPT, DECRYPT] {
        client.run(call);
        build_index(&mut client);
        client.run(call);
        assert_eq!(client.one::<String>(settings), before, "{call}");
    }
}

#[test]
fn what_cannot_go_along_is_refused() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k'); CREATE TABLE docs (id int, m jsonb, t tsvector) PARTITION BY LIST (id);
         CREATE TABLE docs_1 PARTITION OF docs FOR VALUES IN (1)",
    );
    refused_with(
        &mut client,
        &[
            (
                "ALTER TABLE docs_1 ALTER m SET NOT NULL",
                "ALTER TABLE docs_1 ALTER m DROP NOT NULL",
                "NOT NULL in the partition public.docs_1 only",
            ),
            (
                "ALTER TABLE docs_1 ALTER m SET DEFAULT '{}'",
                "ALTER TABLE docs_1 ALTER m DROP DEFAULT",
                "DEFAULT of its own in the partition public.docs_1",
            ),
            (
                "CREATE INDEX a ON docs USING gin (m); CREATE INDEX b ON docs USING gin (m jsonb_path_ops)",
                "DROP INDEX a, b",
                "index public.b: one index",
            ),
            (
                "CREATE TRIGGER t BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger('t', 'pg_catalog.simple', 'm')",
                "DROP TRIGGER t ON docs",
                "trigger t of public.docs has the column among its arguments",
            ),
            ("CREATE SEQUENCE s OWNED BY docs.m", "DROP SEQUENCE s", "sequence public.s"),
        ],
    );
    client.run("CREATE TABLE texts (id int, a text COLLATE \"C\", b varchar(9) COLLATE \"POSIX\", c text COLLATE \"default\")");
    client.run(
        "CREATE TABLE referenced (x text UNIQUE); CREATE TABLE refers (x text REFERENCES referenced (x))",
    );
    for (table, column, named) in [
        ("texts", "a", "has the collation \"C\""),
        ("texts", "b", "has the collation \"POSIX\""),
        ("referenced", "x", "constraint refers_x_fkey on table public.refers"),
        ("refers", "x", "constraint refers_x_fkey on table public.refers"),
    ] {
        let error = client.error(&format!("CALL pgseal.encrypt_column('{table}', '{column}', 'k')"));
        assert!(error.detail().unwrap_or_default().contains(named), "{table}.{column}: {error:?}");
    }
    client.run("CALL pgseal.encrypt_column('texts', 'c', 'k')");
}

#[test]
fn a_refusal_comes_before_anything_is_changed() {
    let mut client = database();
    client.run("CREATE TABLE parts (m jsonb) PARTITION BY LIST ((m ->> 'a')); CREATE TABLE parent (m jsonb); CREATE TABLE child () INHERITS (parent)");
    client.run("DROP ROLE IF EXISTS migrate_owner; CREATE ROLE migrate_owner; GRANT ALL ON SCHEMA public TO migrate_owner");
    client.run("CREATE VIEW v AS SELECT 1 AS n, '{}'::jsonb AS m");
    for (call, state) in [
        ("pgseal.encrypt_column('docs', 'id', 'k')", "42809"),
        ("pgseal.encrypt_column('docs', 'nothing', 'k')", "42703"),
        ("pgseal.encrypt_column('docs', 'm', 'no keyring')", "42704"),
        ("pgseal.encrypt_column('docs', 'm', 'k', batch_size => 0)", "22023"),
        ("pgseal.encrypt_column('v', 'm', 'k')", "2BP01"),
        ("pgseal.encrypt_column('parts', 'm', 'k')", "2BP01"),
        ("pgseal.encrypt_column('child', 'm', 'k')", "2BP01"),
        ("pgseal.decrypt_column('docs', 'm')", "42809"),
    ] {
        assert_eq!(client.state(&format!("CALL {call}")), state, "{call}");
    }
    let error = client.error(&format!("BEGIN; {ENCRYPT}"));
    assert_eq!((error.code().code(), error.hint().is_some()), ("25001", true));
    client.run("ROLLBACK; SET ROLE migrate_owner");
    assert_eq!(client.state(ENCRYPT), "42501");
    client.run("RESET ROLE; ALTER TABLE docs OWNER TO migrate_owner; SELECT pgseal.grant_keyring('k', 'migrate_owner', ARRAY['encrypt']); SET ROLE migrate_owner");
    assert_eq!(client.state(ENCRYPT), "42501", "without decrypt");
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
    client.run("RESET ROLE; SELECT pgseal.grant_keyring('k', 'migrate_owner', ARRAY['decrypt']); SET ROLE migrate_owner");
    client.run(ENCRYPT);
    client.run("RESET ROLE; ALTER TABLE docs OWNER TO postgres; DROP OWNED BY migrate_owner; DROP ROLE migrate_owner");
    assert_eq!(client.one::<i64>(DIFFERENT), 0);
}
