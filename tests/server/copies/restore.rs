//! What pg_dump prints is found again: a restore runs with an empty search_path.

use std::path::{Path, PathBuf};
use std::process::Output;

use postgres::Client;

use crate::support::{Cluster, Sql, as_server, fresh_database, output, run, shared};

/// The database, dumped and restored into a new one, where the first error ends it.
fn restored(client: &mut Client) -> Client {
    let name = client.database();
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

/// Keyrings, rows and privileges, dumped in a format into a file that the server's user reads.
fn dumped(cluster: &Cluster, arguments: &[&str]) -> PathBuf {
    let path = cluster.socket_dir().join("dump");
    run(as_server("rm").arg("-rf").arg(&path));
    let program = cluster.program("pg_dump", "postgres");
    let mut command = as_server(program.get_program());
    command.args(["-U", "postgres", "-d", "postgres", "-h"]).arg(cluster.socket_dir()).arg("-f").arg(&path);
    run(command.args(arguments));
    path
}

/// pg_restore into a new database of this name, and what it said.
fn restore_into(cluster: &Cluster, database: &str, path: &Path, arguments: &[&str]) -> Output {
    let program = cluster.program("pg_restore", "postgres");
    let mut command = as_server(program.get_program());
    command.args(["-U", "postgres", "-d", database, "-h"]).arg(cluster.socket_dir()).args(arguments);
    output(command.arg(path))
}

const KEYS_AND_ROWS: &str =
    "SELECT concat_ws(' ', (SELECT count(*) FROM pgseal.keys), (SELECT count(*) FROM pgseal.privilege),
    (SELECT count(pgseal.decrypt(m)) FROM one), (SELECT count(pgseal.decrypt(m)) FROM two))";

/// Five keyrings with several versions, two tables.
fn with_keyrings() -> Cluster {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run(
        "CREATE ROLE reader; CREATE ROLE \"Odd \"\"role\" LOGIN;
         SELECT pgseal.create_keyring('k' || i, ARRAY['$.n']) FROM generate_series(1, 5) i;
         SELECT pgseal.rotate_key('k1'), pgseal.rotate_index_key('k2'), pgseal.rotate_key('k1');
         SELECT pgseal.grant_keyring('k1', 'reader', '{decrypt}'), pgseal.grant_keyring('k2', 'Odd \"role', '{search,decrypt}'),
                pgseal.grant_keyring('k3', 'public', '{search}');
         CREATE TABLE one (m encrypted_jsonb(k1)); CREATE TABLE two (m encrypted_jsonb(k2));
         INSERT INTO one SELECT '{\"n\": 1}'::jsonb FROM generate_series(1, 20); INSERT INTO two SELECT '{\"n\": 1}'::jsonb FROM generate_series(1, 20);
         GRANT SELECT ON one, two TO \"Odd \"\"role\"",
    );
    cluster
}

#[test]
fn configuration_tables_load_in_any_order() {
    let cluster = with_keyrings();
    let mut server = cluster.connect("postgres");
    let expected: String = server.one(KEYS_AND_ROWS);
    let constraints =
        "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'pgseal'::regnamespace";
    assert_eq!(server.one::<i64>(constraints), 0);
    for (format, jobs) in [
        ("custom", 1),
        ("custom", 2),
        ("custom", 4),
        ("directory", 1),
        ("directory", 2),
        ("directory", 4),
        ("tar", 1),
    ] {
        let path = dumped(&cluster, &["-F", format]);
        for _ in 0..if jobs > 1 { 3 } else { 1 } {
            server.run("DROP DATABASE IF EXISTS copy");
            server.run("CREATE DATABASE copy");
            let done = restore_into(&cluster, "copy", &path, &["-e", "-j", &jobs.to_string()]);
            assert!(done.status.success(), "{format} {jobs}: {}", String::from_utf8_lossy(&done.stderr));
            assert_eq!(cluster.connect("copy").one::<String>(KEYS_AND_ROWS), expected, "{format} {jobs}");
        }
    }
    // The tables themselves in every order, by hand.
    let path = dumped(&cluster, &["-F", "custom"]);
    let tables = ["keyring", "data_key", "index_key", "privilege"];
    for first in 0..tables.len() {
        server.run("DROP DATABASE IF EXISTS copy");
        server.run("CREATE DATABASE copy");
        cluster.connect("copy").run("CREATE EXTENSION pgseal CASCADE");
        for table in tables.iter().cycle().skip(first).take(tables.len()) {
            let done =
                restore_into(&cluster, "copy", &path, &["-e", "--data-only", "-n", "pgseal", "-t", table]);
            assert!(done.status.success(), "{table}: {}", String::from_utf8_lossy(&done.stderr));
        }
        for arguments in [
            &["-e", "--section=pre-data", "-n", "public"][..],
            &["-e", "-j", "2", "--section=data", "-n", "public"],
        ] {
            let done = restore_into(&cluster, "copy", &path, arguments);
            assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        assert_eq!(cluster.connect("copy").one::<String>(KEYS_AND_ROWS), expected, "{first}");
    }
}

#[test]
fn audit_finds_rows_that_a_restore_left_out() {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k'), pgseal.create_keyring('l'), pgseal.create_keyring('m')");
    client.run("DELETE FROM pgseal.keyring WHERE name = 'k'; DELETE FROM pgseal.data_key d USING pgseal.keyring k WHERE d.keyring = k.id AND k.name = 'l'");
    let found = client.column::<String>("SELECT object || ': ' || finding FROM pgseal.audit() WHERE severity = 'critical' AND object <> 'keyring m' ORDER BY 1");
    let has = |part: &str| assert!(found.iter().any(|line| line.contains(part)), "{part} in {found:?}");
    has("table pgseal.data_key: it has rows of a keyring");
    has("table pgseal.index_key: it has rows of a keyring");
    has("table pgseal.privilege: it has rows of a keyring");
    has("keyring l: it has no active data key");
}

#[test]
fn privileges_wait_for_roles_that_a_restore_does_not_find() {
    let first = with_keyrings();
    first.connect("postgres").run("CREATE ROLE later LOGIN; SELECT pgseal.grant_keyring('k1', 'later', '{decrypt}'), pgseal.grant_keyring('k2', 'later', '{decrypt}')");
    let path = dumped(&first, &["-F", "custom", "-O", "-x"]);
    let second = Cluster::start(&[&format!("pgseal.kms_endpoint = 'file://{}'", first.key_dir().display())]);
    let mut client = second.connect("postgres");
    client.run("CREATE ROLE reader LOGIN; CREATE ROLE other LOGIN");
    let done = restore_into(&second, "postgres", &path, &["-e"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    client.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC");
    let all = "SELECT string_agg(role::text, ' ' ORDER BY role::text COLLATE \"C\") FROM pgseal.privilege JOIN pgseal.keyring k ON k.id = keyring WHERE NOT encrypt";
    assert_eq!(client.one::<String>(all), "\"Odd \"\"role\" - later later reader");
    let read = "SELECT count(pgseal.decrypt(m)) FROM one";
    assert_eq!(second.connect_as("reader", "postgres").one::<i64>(read), 20);
    assert_eq!(second.connect_as("other", "postgres").state(read), "42501");
    let waiting =
        "SELECT count(*) FROM pgseal.audit() WHERE finding LIKE 'its restored privileges wait for a role %'";
    assert_eq!(client.one::<i64>(waiting), 3);

    // Taken back before it is there; what is left is the role's that gets the name, and nobody's who is dropped.
    client.run("SELECT pgseal.revoke_keyring('k2', 'later')");
    client.run("CREATE ROLE later LOGIN");
    let mut later = second.connect_as("later", "postgres");
    assert_eq!(later.one::<i64>(read), 20);
    assert_eq!(later.state("SELECT pgseal.decrypt(m) FROM two"), "42501");
    client.run("SELECT pgseal.grant_keyring('k3', 'later', '{search}')");
    assert_eq!(later.one::<i64>(read), 20);
    drop(later);
    client.run("DROP OWNED BY later; DROP ROLE later; CREATE ROLE later LOGIN");
    assert_eq!(second.connect_as("later", "postgres").state(read), "42501");

    // A new name keeps its privileges, in a dump too; the old name has none.
    client.run("ALTER ROLE reader RENAME TO renamed; CREATE ROLE reader LOGIN");
    assert_eq!(second.connect_as("renamed", "postgres").one::<i64>(read), 20);
    assert_eq!(second.connect_as("reader", "postgres").state(read), "42501");
    let dump = second.pg_dump("postgres", &["-d", "postgres", "-a"]);
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(dump.contains("\trenamed\t") && !dump.contains("\treader\t"), "{dump}");
}

#[test]
fn a_schema_without_rows_gets_a_keyring_of_its_number() {
    let first = with_keyrings();
    let path = dumped(&first, &["-F", "custom", "-s"]);
    let second = Cluster::start(&[]);
    let done = restore_into(&second, "postgres", &path, &["-e", "-O", "-x"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut client = second.connect("postgres");
    let number: i32 =
        client.one("SELECT atttypmod FROM pg_attribute WHERE attrelid = 'one'::regclass AND attname = 'm'");
    assert_eq!(client.state("INSERT INTO one VALUES ('{}'::jsonb)"), "42704");
    let create = |number: i32| {
        format!("SELECT pgseal.create_numbered_keyring('mine', ARRAY['$.n'], NULL, NULL, {number})")
    };
    for wrong in [0, -5] {
        assert_eq!(client.state(&create(wrong)), "22023", "{wrong}");
    }
    assert_eq!(client.one::<i32>(&create(number)), number);
    assert_eq!(client.state(&create(number).replace("mine", "yours")), "22023", "taken");
    client.run("INSERT INTO one VALUES ('{\"n\": 1}'::jsonb); SELECT pgseal.rotate_key('mine')");
    assert_eq!(client.one::<i64>("SELECT count(pgseal.decrypt(m)) FROM one WHERE m @> '{\"n\": 1}'"), 1);
    assert_eq!(client.one::<i32>("SELECT pgseal.import_keyring(pgseal.export_keyring('mine'))"), number);
}

#[test]
fn pg_upgrade_takes_along_what_comes_before_our_tables() {
    let old = Cluster::with_pgseal(&[]);
    // Sealed literals in a CHECK and a view of a schema that pg_upgrade makes before pgseal's tables.
    old.connect("postgres").run(
        "SELECT pgseal.create_keyring('k'); CREATE SCHEMA app; CREATE TABLE app.t (x encrypted_text(k), CHECK (x IS DISTINCT FROM 'bad'));
         INSERT INTO app.t VALUES ('v'); CREATE VIEW app.v AS SELECT CASE x WHEN 'v' THEN 'found' END AS f FROM app.t",
    );
    let same = std::env::var_os("PG_CONFIG").unwrap_or_else(|| "pg_config".into());
    let new = old.upgraded(&same);
    let mut client = new.connect("postgres");
    assert_eq!(client.one::<String>("SELECT f FROM app.v"), "found");
    assert_eq!(client.state("INSERT INTO app.t VALUES ('bad')"), "23514");
}
