//! What pg_dump prints is found again: a restore runs with an empty search_path.

use postgres::Client;

use crate::support::{Sql, fresh_database, shared};

/// The database, dumped and restored into a new one, where the first error ends it.
fn restored(client: &mut Client) -> Client {
    let name: String = client.one("SELECT current_database()::text");
    let copy = format!("{name}_restored");
    shared().connect("postgres").run(&format!("CREATE DATABASE {copy}"));
    let dump = shared().pg_dump("postgres", &["-d", &name]);
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let dump = String::from_utf8(dump.stdout).unwrap();
    let output = shared().psql(&copy, &["-q", "-v", "ON_ERROR_STOP=1"], &dump);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    shared().connect(&copy)
}

#[test]
fn operators_that_a_dump_names_without_a_schema_are_found() {
    let mut client = fresh_database();
    // Schema app comes before pgseal in a dump.
    client.run(
        "SELECT pgseal.create_keyring('k', ARRAY['$']); CREATE SCHEMA app;
         CREATE TABLE app.pairs (id int, x encrypted_text(k), y encrypted_text(k));
         INSERT INTO app.pairs VALUES (1, 'v', 'v'), (2, 'w', 'u'), (3, NULL, 'v');
         ALTER TABLE app.pairs ADD CHECK (x IS DISTINCT FROM 'bad') NOT VALID;
         CREATE DOMAIN app.named AS encrypted_text CHECK (VALUE IS DISTINCT FROM 'bad');
         CREATE VIEW app.answers AS SELECT id, x IS DISTINCT FROM y AS distinct, CASE x WHEN 'w' THEN 1 WHEN y THEN 2 END AS c,
             nullif(x, y) IS NULL AS n, nullif(x, 'w'::text) IS NULL AS t, x IN ('v', 'a') AS i FROM app.pairs;
         CREATE VIEW app.joined AS SELECT x FROM app.pairs JOIN (SELECT y AS x FROM app.pairs) p USING (x);
         CREATE POLICY p ON app.pairs USING (x IS NOT DISTINCT FROM current_setting('a.b', true));
         CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER t BEFORE UPDATE ON app.pairs FOR EACH ROW WHEN (OLD.x IS DISTINCT FROM NEW.x) EXECUTE FUNCTION app.touch();
         CREATE RULE r AS ON DELETE TO app.pairs WHERE OLD.x IS DISTINCT FROM OLD.y DO INSTEAD NOTHING;
         CREATE FUNCTION app.told(encrypted_text) RETURNS boolean LANGUAGE sql RETURN $1 IS DISTINCT FROM 'v'::text;
         CREATE TABLE app.defaults (b boolean DEFAULT (nullif('v'::text::encrypted_text, 'v'::text) IS NULL))",
    );
    let answers = "SELECT concat_ws(' ', a, (SELECT count(*) FROM app.joined), app.told(x)) FROM app.answers a JOIN app.pairs USING (id) ORDER BY id";
    let before: Vec<String> = client.column(answers);
    assert_eq!(before[0], "(1,f,2,t,f,t) 2 f");
    let mut copy = restored(&mut client);
    assert_eq!(copy.column::<String>(answers), before);
    copy.run("UPDATE app.pairs SET x = 'z' WHERE id = 1; DELETE FROM app.pairs WHERE id = 2");
    assert_eq!(copy.one::<i64>("SELECT count(*) FROM app.pairs"), 3);
    assert_eq!(copy.state("INSERT INTO app.pairs VALUES (4, 'bad', NULL)"), "23514");
}

#[test]
fn no_operator_of_a_dropped_extension_stays_in_pg_catalog() {
    let mut client = fresh_database();
    let count =
        "SELECT count(*) FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace AND oid >= 16384";
    assert!(client.one::<i64>(count) > 0);
    client.run("DROP EXTENSION pgseal");
    assert_eq!(client.one::<i64>(count), 0);
}

#[test]
fn a_migration_that_a_dump_interrupts_goes_on_in_the_copy() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k'); CREATE TABLE docs (gone int, id int, lost text, m jsonb); ALTER TABLE docs DROP gone, DROP lost;
         INSERT INTO docs SELECT n, to_jsonb(n) FROM generate_series(1, 100) n; CREATE INDEX docs_m ON docs USING gin (m)",
    );
    // It stops for the index.
    let call = "CALL pgseal.encrypt_column('docs', 'm', 'k')";
    client.run(call);
    let mut copy = restored(&mut client);
    assert!(copy.one::<bool>("SELECT pgseal.migration_started('docs', 'm')"));
    copy.run("INSERT INTO docs VALUES (101, '101')");
    let commands: Vec<String> = copy.column("SELECT pgseal.migration_commands('docs', 'm')");
    commands.iter().for_each(|command| copy.run(command));
    copy.run(call);
    assert_eq!(copy.one::<i64>("SELECT count(*) FROM docs WHERE m::jsonb = to_jsonb(id)"), 101);
    assert_eq!(copy.one::<i64>("SELECT count(*) FROM pg_attribute WHERE attname LIKE 'pgseal_new%' AND attrelid = 'docs'::regclass"), 0);
}
