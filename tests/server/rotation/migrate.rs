//! encrypt_column and decrypt_column: a column changes its type while it is in use.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::Client;

use crate::support::{Cluster, Sql, fresh_database, run, shared, wait_for, with_keyring};

const ENCRYPT: &str = "CALL pgseal.encrypt_column('docs', 'm', 'k')";
const DECRYPT: &str = "CALL pgseal.decrypt_column('docs', 'm')";
/// Every row's document beside its copy in a plain column.
const DIFFERENT: &str = "SELECT count(*) FROM docs WHERE pgseal.decrypt(m)::text IS DISTINCT FROM copy::text";

fn database() -> Client {
    let mut client = fresh_database();
    prepare(&mut client, 2000);
    client
}

/// A keyring, and a table whose documents have a copy, out of line ones and numbers of unlike scale among them.
fn prepare(client: &mut Client, rows: i32) {
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name'])");
    client.run("CREATE TABLE docs (id int PRIMARY KEY, m jsonb, copy jsonb, note text)");
    client.run(&format!(
        r#"INSERT INTO docs SELECT i, d, d, 'note ' || i FROM generate_series(1, {rows}) i, LATERAL (SELECT CASE
             WHEN i % 97 = 0 THEN NULL WHEN i % 101 = 0 THEN jsonb_build_object('long', repeat(md5(i::text), 300))
             ELSE jsonb_build_object('name', 'n' || i % 10, 'amount', (i || '.00')::numeric) END) v (d)"#
    ));
}

fn type_of(client: &mut Client, column: &str) -> String {
    client.one(&format!("SELECT split_part(format_type(atttypid, NULL), '(', 1) FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = '{column}'"))
}

/// What an unfinished migration leaves in the catalog.
fn leftovers(client: &mut Client) -> Vec<String> {
    client.column(
        "SELECT attname::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attname LIKE 'pgseal_new%' AND relkind IN ('r', 'p') UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'pgseal_new%'
         UNION ALL SELECT tgname FROM pg_trigger WHERE tgname LIKE '~pgseal%' UNION ALL SELECT conname FROM pg_constraint WHERE conname LIKE 'pgseal_new%'",
    )
}

/// The commands for the index, as the NOTICE names them.
fn build_index(client: &mut Client) -> usize {
    let commands: Vec<String> = client.column("SELECT pgseal.migration_commands('docs', 'm')");
    commands.iter().for_each(|command| client.run(command));
    commands.len()
}

#[test]
fn there_and_back_every_value_is_the_same() {
    let mut client = database();
    client.run(ENCRYPT);
    assert_eq!(type_of(&mut client, "m"), "encrypted_jsonb");
    assert_eq!(client.one::<i64>(DIFFERENT), 0);
    let expected: i64 = client.one(r#"SELECT count(*) FROM docs WHERE copy @> '{"name": "n3"}'"#);
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM docs WHERE m @> '{"name": "n3"}'"#), expected);
    client.run(
        r#"INSERT INTO docs (id, m, copy) VALUES (9001, '{"name": "late"}'::jsonb, '{"name": "late"}')"#,
    );

    client.run(DECRYPT);
    assert_eq!(type_of(&mut client, "m"), "jsonb");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE m::text IS DISTINCT FROM copy::text"), 0);
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}

#[test]
fn text_and_varchar_become_encrypted_text() {
    let mut client = database();
    client.run("ALTER TABLE docs ADD code varchar(20) DEFAULT 'none'; UPDATE docs SET code = 'pgseal:' || id, note = NULL WHERE id % 5 = 0");
    for column in ["note", "code"] {
        client.run(&format!("CALL pgseal.encrypt_column('docs', '{column}', 'k')"));
        assert_eq!(type_of(&mut client, column), "encrypted_text");
    }
    client.run("INSERT INTO docs (id) VALUES (9001)");
    let found = "SELECT concat_ws(' ', pgseal.decrypt(note), pgseal.decrypt(code)) FROM docs WHERE id IN (5, 6, 9001) ORDER BY id";
    assert_eq!(client.column::<String>(found), ["pgseal:5", "note 6 none", "none"]);
    client.run("CALL pgseal.decrypt_column('docs', 'code')");
    client.run("INSERT INTO docs (id) VALUES (9002)");
    assert_eq!(client.one::<String>("SELECT code FROM docs WHERE id = 9002"), "none");
}

#[test]
fn what_belongs_to_the_column_goes_along() {
    let mut client = database();
    client.run(
        "UPDATE docs SET m = '{}', copy = '{}' WHERE m IS NULL; ALTER TABLE docs ALTER m SET NOT NULL, ALTER m SET DEFAULT '{\"name\": \"nobody\"}';
         CREATE INDEX docs_m ON docs USING gin (m jsonb_path_ops); COMMENT ON COLUMN docs.m IS 'what is known';
         GRANT SELECT (m), UPDATE (m) ON docs TO pg_monitor",
    );
    let belongings = "SELECT concat_ws(', ', attnotnull, attacl, col_description(attrelid, attnum), (SELECT indexrelid::regclass FROM pg_index WHERE indkey[0] = attnum AND indrelid = attrelid))
                        FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = 'm'";
    let before: String = client.one(belongings);
    for (call, new_type) in [(ENCRYPT, "encrypted_jsonb"), (DECRYPT, "jsonb")] {
        client.run(call);
        assert_ne!(type_of(&mut client, "m"), new_type, "swapped without its index");
        assert_eq!(build_index(&mut client), 1);
        client.run(call);
        assert_eq!(type_of(&mut client, "m"), new_type);
        assert_eq!(client.one::<String>(belongings), before);
        assert_eq!(client.state("INSERT INTO docs (id, m) VALUES (-1, NULL)"), "23502");
        client.run("DELETE FROM docs WHERE id = 9001; INSERT INTO docs (id) VALUES (9001)");
        assert_eq!(leftovers(&mut client), Vec::<String>::new());
        client.run("SET enable_seqscan = off");
        let plan = client
            .column::<String>(r#"EXPLAIN SELECT id FROM docs WHERE m @> '{"name": "nobody"}'"#)
            .join("\n");
        assert!(plan.contains("docs_m"), "{plan}");
        assert_eq!(client.column::<i32>(r#"SELECT id FROM docs WHERE m @> '{"name": "nobody"}'"#), [9001]);
    }
}

#[test]
fn the_index_that_was_built_badly_is_built_again() {
    let mut client = database();
    client.run("CREATE INDEX docs_m ON docs USING gin (m)");
    client.run(ENCRYPT);
    assert_eq!(build_index(&mut client), 1);
    client.run("UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text LIKE 'pgseal_new%'");
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), build_index(&mut client)), ("jsonb", 2));
    client.run(ENCRYPT);
    assert_eq!(type_of(&mut client, "m"), "encrypted_jsonb");
}

/// Writes documents and their copies until told to stop; returns how many statements there were.
fn writer(mut client: Client, stop: Arc<AtomicBool>, number: i32) -> thread::JoinHandle<i32> {
    thread::spawn(move || {
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            round += 1;
            let (id, document) = (
                1 + (round * 37 + number * 501) % 3000,
                format!(r#"{{"name": "w{number}", "round": {round}.50}}"#),
            );
            client.run(&match round % 5 {
                0 => format!("DELETE FROM docs WHERE id = {id}"),
                1 | 2 => format!("INSERT INTO docs (id, m, copy) VALUES ({id}, '{document}'::jsonb, '{document}') ON CONFLICT (id) DO UPDATE SET m = excluded.m, copy = excluded.copy"),
                3 => format!("UPDATE docs SET m = '{document}'::jsonb, copy = '{document}' WHERE id = {id}"),
                _ => format!("UPDATE docs SET m = NULL, copy = NULL WHERE id = {id}"),
            });
        }
        round
    })
}

#[test]
fn concurrent_writers_lose_nothing() {
    let cluster = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 3000);
    client.run("SELECT pgseal.set_default_keyring('k')");
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..3).map(|number| writer(cluster.connect("postgres"), stop.clone(), number)).collect();
    client.run("CALL pgseal.encrypt_column('docs', 'm', 'k', batch_size => 100)");
    let wrong: i64 = client.one(DIFFERENT);
    // The same statements go on with the encrypted column.
    thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let statements: i32 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    assert_eq!((wrong, client.one::<i64>(DIFFERENT)), (0, 0));
    assert!(statements > 100, "{statements} statements");
    assert_eq!(type_of(&mut client, "m"), "encrypted_jsonb");
}

#[test]
fn a_migration_goes_on_after_a_cancel_and_after_a_crash() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 3000);
    // Rows in the middle stop it for as long as the test likes.
    client.run("CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(NEW.id); RETURN NEW; END'");
    client.run("CREATE TRIGGER gate BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id IN (1000, 2500)) EXECUTE FUNCTION gate()");
    for kill in ["cancel", "crash"] {
        let mut other = cluster.connect("postgres");
        other.run(&format!("SELECT pg_advisory_lock({})", if kill == "cancel" { 1000 } else { 2500 }));
        let mut caller = cluster.connect("postgres");
        let call = thread::spawn(move || {
            caller.batch_execute("CALL pgseal.encrypt_column('docs', 'm', 'k', batch_size => 50)").err()
        });
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock' AND query NOT LIKE '%activity%'";
        wait_for("the lock", Duration::from_secs(60), || client.one::<i64>(waiting) == 1);
        match kill {
            "cancel" => {
                client.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL%'")
            }
            _ => {
                cluster.crash();
                cluster.start_again();
                client = cluster.connect("postgres");
            }
        }
        assert!(call.join().unwrap().is_some(), "{kill}: no error");
        let filled: i64 = client.one("SELECT count(pgseal_new_2) FROM docs");
        assert!(filled > 500 && filled < 3000, "{kill}: {filled} rows filled");
        // Writers are still covered.
        client.run(r#"UPDATE docs SET m = '{"a": 1}', copy = '{"a": 1}' WHERE id = 3"#);
    }
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let mut client = database();
    client.run("CREATE INDEX ON docs USING gin (m)");
    let name = client.database();
    let output = shared().psql(
        &name,
        &["-v", "VERBOSITY=terse"],
        "BEGIN; CALL pgseal.encrypt_column('docs', 'm', dry_run => true); COMMIT;",
    );
    let said = String::from_utf8_lossy(&output.stderr);
    for part in [
        "add column pgseal_new_2 of type public.encrypted_jsonb(",
        "CREATE INDEX CONCURRENTLY",
        "compare every row",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!((type_of(&mut client, "m").as_str(), leftovers(&mut client)), ("jsonb", vec![]));
}

#[test]
fn a_migration_tells_who_will_be_refused_and_what_is_left() {
    let mut client = database();
    client.run("DROP ROLE IF EXISTS migrate_reader; CREATE ROLE migrate_reader; GRANT SELECT ON docs TO migrate_reader; ANALYZE docs");
    let name = client.database();
    let statistics = "SELECT count(*) FROM pg_statistic WHERE starelid = 'docs'::regclass AND staattnum = 2";
    assert_eq!(client.one::<i64>(statistics), 1);
    let output = shared().psql::<&str>(&name, &[], &format!("{ENCRYPT};"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in [
        "role migrate_reader (decrypt)",
        "hold the old plaintext on disk",
        "VACUUM FULL public.docs",
        "WAL",
        "last column",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(client.one::<i64>(statistics), 0);
    client.run("DROP OWNED BY migrate_reader; DROP ROLE migrate_reader");
}

#[test]
fn vacuum_full_removes_the_old_plaintext_from_the_table() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 200);
    client
        .run(r#"ALTER TABLE docs DROP copy; UPDATE docs SET m = '{"name": "canaryinthemine"}' WHERE id = 7"#);
    client.run(ENCRYPT);
    let holds = |client: &mut Client| -> bool {
        client.run("CHECKPOINT");
        let path: String = client.one("SELECT pg_relation_filepath('docs')");
        let bytes = std::fs::read(cluster.data_dir().join(path)).unwrap();
        bytes.windows(15).any(|window| window == b"canaryinthemine")
    };
    assert!(holds(&mut client), "the control");
    client.run("VACUUM FULL docs");
    assert!(!holds(&mut client));
}

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

#[test]
fn to_decrypt_a_column_needs_decrypt_even_where_it_is_empty() {
    let mut client = database();
    client.run("DROP ROLE IF EXISTS migrate_back; CREATE ROLE migrate_back; GRANT ALL ON SCHEMA public TO migrate_back; CREATE TABLE vault (m encrypted_jsonb(k))");
    client.run("ALTER TABLE vault OWNER TO migrate_back; SELECT pgseal.grant_keyring('k', 'migrate_back', ARRAY['encrypt']); SET ROLE migrate_back");
    let call = "CALL pgseal.decrypt_column('vault', 'm')";
    assert_eq!(client.state(call), "42501", "empty");
    client.run("INSERT INTO vault VALUES ('{}'::jsonb)");
    assert_eq!(client.state(call), "42501", "one row");
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
    client.run(
        "RESET ROLE; SELECT pgseal.grant_keyring('k', 'public', ARRAY['decrypt']); SET ROLE migrate_back",
    );
    client.run(call);
    assert_eq!(client.one::<String>("SELECT m::text FROM vault"), "{}");
    client.run("RESET ROLE; DROP OWNED BY migrate_back; DROP ROLE migrate_back");
}

#[test]
fn the_swap_waits_for_readers_and_does_not_make_others_wait() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 500);
    let mut reader = cluster.connect("postgres");
    reader.run("BEGIN; SELECT count(*) FROM docs");
    let mut caller = cluster.connect("postgres");
    let call = thread::spawn(move || caller.batch_execute(ENCRYPT));
    let end = std::time::Instant::now() + Duration::from_secs(4);
    while std::time::Instant::now() < end {
        // Behind a lock that is waited for, but for a second only.
        client.run("SET statement_timeout = '30s'; SELECT count(*) FROM docs");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(type_of(&mut client, "m"), "jsonb");
    reader.run("COMMIT");
    call.join().unwrap().unwrap();
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
}

#[test]
fn rows_left_unfilled_and_triggers_switched_off_are_noticed() {
    let mut client = database();
    client.run("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
    client.run(
        "CREATE TRIGGER keep BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION keep()",
    );
    assert_eq!(client.state(ENCRYPT), "XX001");
    client.run("DROP TRIGGER keep ON docs; UPDATE docs SET pgseal_new_2 = NULL WHERE id = 8");
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM docs WHERE m IS NOT NULL AND pgseal_new_2 IS NULL"),
        1,
        "only the one that was kept"
    );
    client.run("ALTER TABLE docs DISABLE TRIGGER \"~pgseal_new_2\"");
    assert_eq!(client.state(ENCRYPT), "55000");
    client.run("SELECT pgseal.abandon_migration('docs', 'm')");
    assert_eq!((type_of(&mut client, "m").as_str(), leftovers(&mut client)), ("jsonb", vec![]));
    assert_eq!(client.state("SELECT pgseal.abandon_migration('docs', 'm')"), "55000");
    client.run(ENCRYPT);
    assert_eq!(client.one::<i64>(DIFFERENT), 0);
}

#[test]
fn a_partitioned_table_with_its_index() {
    let mut client = with_keyring("{$.name}");
    client.run(
        "CREATE TABLE docs (id int, m jsonb NOT NULL, copy jsonb) PARTITION BY RANGE (id);
         CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (0) TO (1000);
         CREATE TABLE docs_2 (note text, copy jsonb, m jsonb NOT NULL, id int); ALTER TABLE docs_2 DROP note;
         ALTER TABLE docs ATTACH PARTITION docs_2 FOR VALUES FROM (1000) TO (2000);
         CREATE INDEX docs_m ON docs USING gin (m);
         INSERT INTO docs SELECT i, d, d FROM generate_series(0, 1999) i, LATERAL (SELECT jsonb_build_object('name', 'n' || i)) v (d)",
    );
    assert_eq!(client.state("CALL pgseal.encrypt_column('docs_1', 'm', 'k')"), "2BP01");
    client.run(ENCRYPT);
    assert_eq!(build_index(&mut client), 5);
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    client.run("SET enable_seqscan = off");
    assert_eq!(client.column::<i32>(r#"SELECT id FROM docs WHERE m @> '{"name": "n1500"}'"#), [1500]);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pg_inherits WHERE inhparent = 'docs_m'::regclass"), 2);
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}

#[test]
fn partitions_of_partitions_get_their_indexes_one_by_one() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k', ARRAY['$.name']); CREATE SCHEMA parts;
         CREATE TABLE docs (id int, m jsonb, copy jsonb) PARTITION BY RANGE (id);
         CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (0) TO (1000) PARTITION BY LIST (id);
         CREATE TABLE parts.docs_1_5 PARTITION OF docs_1 FOR VALUES IN (5); CREATE TABLE docs_1_x PARTITION OF docs_1 DEFAULT;
         CREATE TABLE docs_2 PARTITION OF docs DEFAULT; CREATE INDEX docs_m ON docs USING gin (m);
         INSERT INTO docs SELECT i, d, d FROM generate_series(0, 1200) i, LATERAL (SELECT jsonb_build_object('name', 'n' || i)) v (d)",
    );
    client.run(ENCRYPT);
    let commands: Vec<String> = client.column("SELECT pgseal.migration_commands('docs', 'm')");
    let plain: Vec<&String> = commands
        .iter()
        .filter(|c| c.starts_with("CREATE") && !c.contains("CONCURRENTLY") && !c.contains(" ONLY "))
        .collect();
    assert!(plain.is_empty(), "{plain:?}");
    assert_eq!(build_index(&mut client), 9);
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pg_partition_tree('docs_m') JOIN pg_index ON indexrelid = relid WHERE indisvalid"), 5);
}

/// How many calls wait for a lock.
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock'";

#[test]
fn a_partition_attached_meanwhile_is_filled_by_the_next_call() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run(
        "SELECT pgseal.create_keyring('k');
     CREATE TABLE docs (id int, m jsonb, copy jsonb) PARTITION BY RANGE (id);
     CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (0) TO (1000);
     INSERT INTO docs VALUES (1, '{}', '{}')",
    );
    let mut writer = cluster.connect("postgres");
    let mut caller = cluster.connect("postgres");
    client.run("CALL pgseal.encrypt_column('docs', 'm', 'k', dry_run => true)");
    client.run("CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END'");
    client.run("CREATE TRIGGER gate BEFORE UPDATE ON docs_1 FOR EACH ROW EXECUTE FUNCTION gate()");
    writer.run("SELECT pg_advisory_lock(1)");
    let call = thread::spawn(move || caller.batch_execute(ENCRYPT).err());
    wait_for("the fill", Duration::from_secs(60), || client.one::<i64>(WAITING) == 1);
    client.run(
        r#"CREATE TABLE late (LIKE docs); INSERT INTO late VALUES (1000, '{"late": 1}', '{"late": 1}');
       ALTER TABLE docs ATTACH PARTITION late FOR VALUES FROM (1000) TO (2000)"#,
    );
    writer.run("SELECT pg_advisory_unlock(1)");
    let error = call.join().unwrap().expect("rows of the new partition are not filled");
    assert_eq!(error.code().map(|code| code.code()), Some("XX001"));
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
}

#[test]
fn a_default_isolation_level_does_not_end_it_when_others_write() {
    let cluster = Cluster::with_pgseal(&["default_transaction_isolation = 'repeatable read'"]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 10);
    let mut writer = cluster.connect("postgres");
    let mut caller = cluster.connect("postgres");
    client.run("CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END'");
    client.run(
        "CREATE TRIGGER gate BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION gate()",
    );
    writer.run("SELECT pg_advisory_lock(1)");
    let call = thread::spawn(move || caller.batch_execute(ENCRYPT));
    wait_for("the fill", Duration::from_secs(60), || client.one::<i64>(WAITING) == 1);
    client.run(r#"UPDATE docs SET m = '{"a": 1}', copy = '{"a": 1}' WHERE id = 2"#);
    writer.run("SELECT pg_advisory_unlock(1)");
    call.join().unwrap().unwrap();
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
}

#[test]
fn a_second_one_at_the_same_time_is_told_and_leaves_nothing() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 10);
    let mut reader = cluster.connect("postgres");
    reader.run("BEGIN; SELECT count(*) FROM docs");
    let calls = [(); 2].map(|()| {
        let mut caller = cluster.connect("postgres");
        thread::spawn(move || caller.batch_execute(ENCRYPT).err())
    });
    wait_for("both", Duration::from_secs(60), || client.one::<i64>(WAITING) == 2);
    reader.run("COMMIT");
    let errors = calls.map(|call| call.join().unwrap());
    let codes: Vec<_> = errors.iter().flatten().map(|error| error.code().map(|code| code.code())).collect();
    assert_eq!(codes, [Some("55006")]);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}

#[test]
fn a_table_that_moves_to_another_schema_halfway_goes_on_or_back() {
    let mut client = database();
    client.run(
        "CREATE INDEX docs_m ON docs USING gin (m); CREATE SCHEMA other; SET search_path = public, other",
    );
    client.run(ENCRYPT);
    client.run("ALTER TABLE docs SET SCHEMA other");
    client.run("SELECT pgseal.abandon_migration('docs', 'm')");
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
    client.run(ENCRYPT);
    client.run("ALTER TABLE docs SET SCHEMA public");
    build_index(&mut client);
    client.run(ENCRYPT);
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}

/// One of the scripts in sql/scripts, as its head says to run it; `input` is psql's own.
fn script(cluster: &Cluster, name: &str, variables: &[&str], input: &str) -> String {
    let path = format!("{}/sql/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut arguments = vec!["-f", &path];
    variables.iter().for_each(|variable| arguments.extend(["-v", variable]));
    let output = cluster.psql("postgres", &arguments, input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {said}");
    said
}

/// Runs Python with the frameworks, its only argument being the database's URL.
fn python(cluster: &Cluster, driver: &str, program: &str) -> String {
    let python = std::env::var_os("PGSEAL_CLIENTS").expect("PGSEAL_CLIENTS: run make test");
    let url = format!("postgresql+{driver}://postgres@/postgres?host={}", cluster.socket_dir().display());
    run(Command::new(python).args(["-c", program, &url]))
}

#[test]
fn the_script_for_a_table_made_by_hand() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 1000);
    client.run("CREATE INDEX docs_m ON docs USING gin (m); CREATE INDEX ON docs USING hash (id)");
    let variables = ["table=docs", "column=m", "keyring=mine", "searchable={$.name}"];
    script(&cluster, "by_hand.sql", &variables, "");
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    assert_eq!(
        client.one::<String>("SELECT indexdef FROM pg_indexes WHERE indexname = 'docs_m'"),
        "CREATE INDEX docs_m ON public.docs USING gin (m)"
    );
    assert_eq!(
        client.one::<String>("SELECT searchable::text FROM pgseal.keyrings WHERE name = 'mine'"),
        "{$.name}"
    );
}

const LANGCHAIN: &str = r#"
import sys
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_postgres import PGVector
from sqlalchemy import create_engine, event

class Lengths(Embeddings):
    def embed_query(self, text): return [len(text), 1.0, 2.0]
    def embed_documents(self, texts): return [self.embed_query(text) for text in texts]

engine = create_engine(sys.argv[1])
if ENCRYPTED:
    @event.listens_for(engine, "connect")
    def reveal(connection, _):
        connection.execute("SET pgseal.reveal = on; SET search_path = public, pgseal")
        connection.commit()
store = PGVector(Lengths(), collection_name="notes", connection=engine, create_extension=False, embedding_length=3)
if not ENCRYPTED:
    store.add_documents([Document(page_content=f"Note {i}.", metadata={"patient": f"p{i % 7}", "age": i}) for i in range(100)], ids=[f"n{i}" for i in range(100)])
for filter in [{"patient": "p3"}, {"age": {"$lt": 20}}]:
    print(sorted((d.id, d.page_content, str(d.metadata)) for d in store.similarity_search("Note 5.", k=200, filter=filter)))
"#;

#[test]
fn the_script_for_langchain() {
    let cluster = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
    let before = python(&cluster, "psycopg", &LANGCHAIN.replace("ENCRYPTED", "False"));
    assert!(before.contains("Note 10."), "{before}");
    script(&cluster, "langchain.sql", &["keyring=clients", "searchable={$.**}"], "");
    let after = python(&cluster, "psycopg", &LANGCHAIN.replace("ENCRYPTED", "True"));
    assert_eq!(before, after);
    let stored: String =
        cluster.connect("postgres").one("SELECT string_agg(e::text, ' ') FROM langchain_pg_embedding e");
    assert!(stored.contains("pgseal:") && !stored.contains("Note") && !stored.contains("patient"));
}

const LLAMAINDEX: &str = r#"
import sys
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.vector_stores.postgres import PGVectorStore
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_engine(sys.argv[1])
if ENCRYPTED:
    @event.listens_for(engine, "connect")
    def reveal(connection, _):
        connection.cursor().execute("SET pgseal.reveal = on")
        connection.commit()
store = PGVectorStore(engine=engine, async_engine=create_async_engine(engine.url.set(drivername="postgresql+asyncpg")), table_name="notes",
                      embed_dim=3, use_jsonb=JSONB, perform_setup=not ENCRYPTED, initialization_fail_on_error=True)
if not ENCRYPTED:
    store.add([TextNode(id_=f"n{i}", text=f"Note {i}.", metadata={"patient": f"p{i % 7}", "age": i}, embedding=[i, 1.0, 2.0],
                        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"document {i}")}) for i in range(100)])
def search():
    for key, operator, value in [("patient", FilterOperator.EQ, "p3"), ("age", FilterOperator.LT, 20)]:
        filters = MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])
        found = store.query(VectorStoreQuery(query_embedding=[5.0, 1.0, 2.0], similarity_top_k=200, filters=filters))
        print(sorted((node.node_id, node.text, str(node.metadata)) for node in found.nodes))
search()
if ENCRYPTED:
    store.delete("document 10")
    print("deleted")
    search()
"#;

#[test]
fn the_script_for_llamaindex() {
    for jsonb in ["True", "False"] {
        let cluster = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
        let program = LLAMAINDEX.replace("JSONB", jsonb);
        let before = python(&cluster, "psycopg2", &program.replace("ENCRYPTED", "False"));
        assert!(before.contains("Note 10."), "{before}");
        script(&cluster, "llamaindex.sql", &["table=data_notes", "keyring=clients", "searchable={$.**}"], "");
        let after = python(&cluster, "psycopg2", &program.replace("ENCRYPTED", "True"));
        let (same, deleted) = after.split_once("deleted\n").unwrap();
        assert_eq!(before, same);
        assert!(!deleted.contains("Note 10.") && deleted.contains("Note 3."), "{deleted}");
        let mut client = cluster.connect("postgres");
        let stored: String = client.one("SELECT string_agg(e::text, ' ') FROM data_notes e");
        assert!(stored.contains("pgseal:") && !stored.contains("Note") && !stored.contains("patient"));
        let indexes: i64 = client.one("SELECT count(*) FROM pg_indexes WHERE tablename = 'data_notes' AND indexdef LIKE '%gin (metadata_)'");
        assert_eq!(indexes, 1);
    }
}

#[test]
fn the_script_for_pgcrypto() {
    let cluster = Cluster::with_pgseal(&["log_statement = all"]);
    let mut client = cluster.connect("postgres");
    if client.one::<i64>("SELECT count(*) FROM pg_available_extensions WHERE name = 'pgcrypto'") == 0 {
        println!("not run: this PostgreSQL has no pgcrypto");
        return;
    }
    prepare(&mut client, 300);
    client.run("CREATE EXTENSION pgcrypto");
    client.run("SET log_statement = none");
    client.run("ALTER TABLE docs ADD b bytea; UPDATE docs SET b = pgp_sym_encrypt(m::text, 'open sesame'); ALTER TABLE docs DROP m; ALTER TABLE docs RENAME b TO m");
    let variables = ["table=docs", "column=m", "type=encrypted_jsonb", "keyring=mine", "searchable={$.name}"];
    script(&cluster, "pgcrypto.sql", &variables, "open sesame\n");
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    let found: i64 = client.one(r#"SELECT count(*) FROM docs WHERE m @> '{"name": "n3"}'"#);
    assert_eq!(found, client.one::<i64>(r#"SELECT count(*) FROM docs WHERE copy @> '{"name": "n3"}'"#));
    assert!(!cluster.log().contains("sesame"), "the passphrase is in the log");
}

/// A role that owns docs, and whose code makes it a superuser where it can; with the role's name, and a way to tell.
fn trapper(client: &mut Client, cluster_wide_name: &str) -> String {
    let role = format!("{cluster_wide_name}_{}", client.database());
    client.run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}; ALTER TABLE docs OWNER TO {role}"
    ));
    client.run(&format!(
        "SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt', 'decrypt']); SET ROLE {role}"
    ));
    client.run(&format!(
        "CREATE FUNCTION really_climb() RETURNS void LANGUAGE plpgsql AS $$
             BEGIN RESET ROLE; ALTER ROLE {role} SUPERUSER; SET ROLE {role}; EXCEPTION WHEN OTHERS THEN NULL; END $$;
         CREATE FUNCTION climb() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM public.really_climb(); RETURN true; END';
         CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.climb(); RETURN NEW; END'; RESET ROLE"
    ));
    role
}

fn has_climbed(client: &mut Client, role: &str) -> bool {
    let is_superuser = client.one(&format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{role}'"));
    client.run(&format!("RESET ROLE; ALTER ROLE {role} NOSUPERUSER"));
    is_superuser
}

const TRAPS: [&str; 6] = [
    "CREATE TRIGGER trap BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION spring()",
    "CREATE TRIGGER trap AFTER UPDATE ON docs FOR EACH STATEMENT EXECUTE FUNCTION spring()",
    "CREATE CONSTRAINT TRIGGER trap AFTER UPDATE ON docs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION spring()",
    "ALTER TABLE docs ADD CONSTRAINT trap CHECK (climb() AND id > 0) NOT VALID",
    "CREATE INDEX trap ON docs (id) WHERE climb()",
    "CREATE STATISTICS trap ON (climb()), id FROM docs",
];

#[test]
fn an_owners_code_does_not_run_as_whoever_works_on_the_table() {
    let mut client = fresh_database();
    prepare(&mut client, 10);
    let role = trapper(&mut client, "trapped");
    client.run("CREATE TABLE sealed (id int, m encrypted_jsonb(k)); INSERT INTO sealed VALUES (1, '{}')");
    client.run(&format!("ALTER TABLE sealed OWNER TO {role}"));
    for trap in TRAPS {
        client.run(&format!("SET ROLE {role}"));
        client.run(trap);
        client.run(&trap.replace("trap ", "trap_too ").replace("docs", "sealed"));
        client.run("RESET ROLE; UPDATE docs SET note = 'x'");
        assert!(has_climbed(&mut client, &role), "the trap works: {trap}");
        for call in [
            ENCRYPT,
            "CALL pgseal.decrypt_column('sealed', 'm')",
            "CALL pgseal.reencrypt('sealed', 'm')",
            "CALL pgseal.reencrypt('sealed', 'm', rotation => 'in_place')",
        ] {
            let error = client.error(call);
            assert_eq!(
                (error.code().code(), error.hint().unwrap_or_default().contains("SET ROLE")),
                ("42501", true),
                "{call}: {error:?}"
            );
        }
        for looking in [
            "pgseal.verify('sealed', 'm')",
            "pgseal.key_usage('sealed', 'm')",
            "pgseal.evidence('sealed')",
            "pgseal.audit()",
        ] {
            client.run(&format!("SELECT {looking}"));
        }
        for looking in ["verify('sealed', 'm', 'NULL')", "check_searchable('sealed', 'm')"] {
            assert_eq!(client.state(&format!("SELECT pgseal.{looking}")), "42501");
        }
        assert!(!has_climbed(&mut client, &role), "{trap}");
        // Nor as who was there before SET ROLE.
        client.run(&format!("SET ROLE {role}"));
        client.run(ENCRYPT);
        client.run("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED");
        client.run("CALL pgseal.reencrypt('docs', 'm')");
        client.run(DECRYPT);
        client.run("CALL pgseal.reencrypt('sealed', 'm')");
        assert_eq!(client.one::<String>("SELECT current_user::text"), role);
        assert!(!has_climbed(&mut client, &role), "after SET ROLE: {trap}");
        client.run("DROP TRIGGER IF EXISTS trap ON docs; ALTER TABLE docs DROP CONSTRAINT IF EXISTS trap; DROP INDEX IF EXISTS trap; DROP STATISTICS IF EXISTS trap");
        client.run("DROP TRIGGER IF EXISTS trap_too ON sealed; ALTER TABLE sealed DROP CONSTRAINT IF EXISTS trap_too; DROP INDEX IF EXISTS trap_too; DROP STATISTICS IF EXISTS trap_too");
    }
    client.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"));
}

#[test]
fn the_trigger_of_a_migration_gives_no_rights_to_others() {
    let mut client = fresh_database();
    prepare(&mut client, 10);
    let role = trapper(&mut client, "changing");
    client.run("CREATE TABLE seen (who text); GRANT INSERT ON seen TO PUBLIC; CREATE ROLE changing_heir; CREATE ROLE changing_writer; GRANT INSERT ON docs TO changing_writer; ALTER TABLE docs ALTER note SET NOT NULL");
    client.run(&format!(
        "GRANT changing_heir TO {role}; GRANT ALL ON SCHEMA public TO changing_heir; SET ROLE {role}"
    ));
    client.run("CREATE INDEX docs_m ON docs USING gin (m)");
    client.run(ENCRYPT);
    // It waits for its index; the second column changes its type beneath the trigger.
    client.run(
        "CREATE FUNCTION evil(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (current_user); RETURN true; END';
         CREATE DOMAIN d AS text CHECK (evil(VALUE)); ALTER TABLE docs DROP COLUMN pgseal_new_2, ADD COLUMN pgseal_new_2 d; RESET ROLE",
    );
    client.run(&format!("SET ROLE {role}; SELECT 'x'::d; RESET ROLE"));
    let caught = client.state("SET ROLE changing_writer; INSERT INTO docs VALUES (11, '{}', '{}', 'x')");
    assert_eq!(caught, "42846", "what is encrypted is not put into a column of another type");
    assert_eq!(client.column::<String>("SELECT DISTINCT who FROM seen"), [role.as_str()]);
    // Whoever owns the table later has no trigger of the first owner's.
    client.run(&format!("SET ROLE {role}"));
    client.run("ALTER TABLE docs OWNER TO changing_heir; RESET ROLE");
    let error = client.error("INSERT INTO docs VALUES (12, '{}', '{}', 'x')");
    assert_eq!((error.code().code(), error.hint().is_some()), ("42501", true), "{error:?}");
    client.run("SELECT pgseal.abandon_migration('docs', 'm')");
    client.run("INSERT INTO docs VALUES (12, '{}', '{}', 'x')");
    client.run(&format!("DROP OWNED BY {role}, changing_heir, changing_writer CASCADE; DROP ROLE {role}, changing_heir, changing_writer"));
}
