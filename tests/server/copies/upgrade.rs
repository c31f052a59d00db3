//! Every released version can be updated to this one, and what it wrote is read for ever.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use postgres::Client;

use crate::server::keys::grants::{DEFAULTS, GRANTS};
use crate::server::keys::search_path::{CALLS, assert_not_sprung, temporary_traps, traps};
use crate::support::{Cluster, Sql, run, wait_for};

/// Add lines, never change one: what is released stays as it was.
const RELEASED: [(&str, &str); 7] = [
    (
        "tests/upgrade/0.1.0/pgseal--0.1.0.sql",
        "d900ba9ef241bdc030d721ec6f3c4db37fe703ad434cddafc9d1376eef0388b7",
    ),
    ("tests/upgrade/0.1.0/pgseal.key", "b7bccef53dd784cbb2c8494a2f521de13b650a1ca6b9b2becb35c4ee5e11e168"),
    ("tests/upgrade/0.1.0/values.sql", "4ba9bc4c465de885ba4ccb23073d3dc3e311c83d0afaffda7d87871b2428eb32"),
    ("sql/pgseal--0.1.0--0.2.0.sql", "6472a8872060d7b663cab76764b440db09b370a41a489b4bcee6483db18456e2"),
    (
        "tests/upgrade/0.2.0/pgseal--0.2.0.sql",
        "65b1264f1ccd4d85183888b543bb60661ee26fa771ce56a1fd255d8524760d8e",
    ),
    ("tests/upgrade/0.2.0/pgseal.key", "bd3e8b18900a5b216e32a34797c263455ed0b2ffdd0823e2646f444eeff5973c"),
    ("tests/upgrade/0.2.0/values.sql", "8281ce8b5bda2c2a96c8aef573e5ccd7dba722f54d6d6e9329a43271a4aced44"),
];

/// From the oldest to the last.
const VERSIONS: [&str; 2] = ["0.1.0", "0.2.0"];

const ROWS: i64 = 60;

fn file(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn sample(version: &str, name: &str) -> String {
    file(format!("tests/upgrade/{version}/{name}"))
}

/// A server with the wrapping key of the released samples.
fn server(version: &str) -> Cluster {
    let cluster = Cluster::start(&[]);
    cluster.write("keys/pgseal.key", &sample(version, "pgseal.key"));
    cluster
}

fn restore(cluster: &Cluster, database: &str, version: &str) {
    let done = cluster.psql(database, &[""; 0], &sample(version, "values.sql"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Everything that the extensions in a database consist of, as pg_dump sees it.
fn objects(cluster: &Cluster, database: &str) -> String {
    let arguments = ["--binary-upgrade", "--schema-only", "--dbname", database];
    let dump = run(cluster.program("pg_dump", "postgres").args(arguments));
    let of_this_cluster = ["\\", "SET relfrozenxid", "WHERE oid = "];
    let is_own = |line: &&str| {
        !line.contains("pg_catalog.binary_upgrade_")
            && !of_this_cluster.iter().any(|start| line.starts_with(start))
    };
    dump.lines().filter(is_own).collect::<Vec<_>>().join("\n")
}

/// All values decrypt to what stands beside them, and filters find through the index what they find in plaintext.
fn assert_readable(client: &mut postgres::Client) {
    let read = "SELECT count(*) FROM docs WHERE pgseal.decrypt(m) IS NOT DISTINCT FROM plain
        AND pgseal.decrypt(b, context => 'docs|b|' || id) IS NOT DISTINCT FROM plain
        AND pgseal.decrypt(t) IS NOT DISTINCT FROM plain_text";
    assert_eq!(client.one::<i64>(read), ROWS);
    client.run("SET enable_seqscan = off");
    for (document, expected) in
        [(r#"{"name": "n4"}"#, 6_i64), (r#"{"name": "n5"}"#, 6), (r#"{"name": "n33"}"#, 1)]
    {
        let encrypted = format!("SELECT count(*) FROM docs WHERE m @> '{document}'");
        let plain = format!("SELECT count(*) FROM docs WHERE plain @> '{document}'");
        assert_eq!((client.one(&encrypted), client.one(&plain)), (expected, expected), "{document}");
        let plan = client.column::<String>(&format!("EXPLAIN {encrypted}")).join("\n");
        assert!(plan.contains("docs_m"), "{plan}");
    }
}

fn assert_rotates(client: &mut postgres::Client) {
    client.run("SELECT pgseal.rotate_key('released'), pgseal.rotate_index_key('released')");
    for column in ["m", "b", "t"] {
        client.run(&format!("CALL pgseal.reencrypt('docs', '{column}')"));
        let versions = format!("SELECT DISTINCT key_version FROM pgseal.key_usage('docs', '{column}')");
        assert_eq!(client.column::<i32>(&versions), [3]);
    }
    client.run("SELECT pgseal.retire_key('released', 1), pgseal.retire_key('released', 2)");
    assert_readable(client);
}

#[test]
fn what_is_released_stays_as_it_was() {
    for (path, digest) in RELEASED {
        let found: String = Sha256::digest(file(path)).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            found, digest,
            "{path} was changed after its release: put the change into the next upgrade step"
        );
    }
}

#[test]
fn every_released_file_has_its_digest() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for version in VERSIONS {
        for entry in fs::read_dir(root.join("tests/upgrade").join(version)).expect("a folder") {
            let path = format!("tests/upgrade/{version}/{}", entry.expect("an entry").file_name().display());
            assert!(RELEASED.iter().any(|(known, _)| *known == path), "{path}");
        }
    }
    let last = VERSIONS.last().expect("a version");
    let steps =
        fs::read_dir(root.join("sql")).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    for step in steps.map(|name| name.display().to_string()).filter(|name| name.starts_with("pgseal--")) {
        let is_released = !step.starts_with(&format!("pgseal--{last}--"));
        let is_known = RELEASED.iter().any(|(known, _)| *known == format!("sql/{step}"));
        assert_eq!(is_known, is_released, "{step}");
    }
}

#[test]
fn an_updated_database_consists_of_the_objects_of_a_fresh_one() {
    let cluster = Cluster::with_pgseal(&[]);
    let fresh = objects(&cluster, "postgres");
    for version in VERSIONS {
        let mut client = cluster.connect("postgres");
        client.run("DROP DATABASE IF EXISTS updated");
        client.run("CREATE DATABASE updated");
        let mut client = cluster.connect("updated");
        client.run(&format!("CREATE EXTENSION pgseal VERSION '{version}' CASCADE"));
        client.run("ALTER EXTENSION pgseal UPDATE");
        assert_eq!(
            client.one::<String>(CONFIGURATION),
            cluster.connect("postgres").one::<String>(CONFIGURATION)
        );
        assert_same(&objects(&cluster, "updated"), &fresh, version);
    }
}

/// Tables whose rows pg_dump saves, and the condition on them.
const CONFIGURATION: &str = "SELECT string_agg(format('%s %s', extconfig[i]::regclass, extcondition[i]), E'\\n' ORDER BY extconfig[i]::regclass::text)
    FROM pg_extension, generate_subscripts(extconfig, 1) i WHERE extname = 'pgseal'";

/// Names the lines that only one of the two has, or has more often.
fn assert_same(updated: &str, fresh: &str, version: &str) {
    let mut lines = BTreeMap::<&str, i32>::new();
    updated.lines().for_each(|line| *lines.entry(line).or_default() += 1);
    fresh.lines().for_each(|line| *lines.entry(line).or_default() -= 1);
    let differing: Vec<_> = lines.into_iter().filter(|(_, balance)| *balance != 0).collect();
    assert!(
        differing.is_empty(),
        "from {version}, 1: only when updated, -1: only when fresh\n{differing:#?}"
    );
}

#[test]
fn databases_of_each_release_are_read_updated_and_rotated() {
    for version in VERSIONS {
        let cluster = server(version);
        let mut client = cluster.connect("postgres");
        client.run(&format!("CREATE EXTENSION pgseal VERSION '{version}' CASCADE"));
        restore(&cluster, "postgres", version);
        let audit =
            "SELECT count(*) FROM pgseal.audit() WHERE finding LIKE '18 values under data key version 1 %'";
        assert_readable(&mut client);
        assert_eq!(client.one::<i64>(audit), 2, "m and b");
        client.run("ALTER EXTENSION pgseal UPDATE");
        assert_readable(&mut client);
        assert_eq!(client.one::<i64>(audit), 2, "m and b");
        assert_readable(&mut cluster.connect("postgres"));
        assert_rotates(&mut client);
    }
}

/// What a database of a release may hold that names our operators. Not `t || 'q'`, which was always an error and is text's now.
const DEFINITIONS: &str = "CREATE VIEW same AS SELECT id FROM docs WHERE t = 'one' AND t <> 'two' AND m ->> 'name' IN ('n4', 'n5');
    CREATE VIEW joined AS SELECT d.id, m || '{\"more\": 1}' AS m FROM docs d JOIN (VALUES ('one')) v (text) ON d.t = v.text OR v.text <> d.t;
    CREATE FUNCTION found() RETURNS int8 LANGUAGE sql RETURN (SELECT count(*) FROM docs WHERE m @> '{\"name\": \"n4\"}' AND t <> 'one');
    ALTER TABLE docs ADD CHECK (t <> 'forbidden');
    CREATE POLICY named ON docs USING (m ->> 'name' <> 'hidden');
    CREATE VIEW refused AS SELECT 'q'::text || m AS qm, m = plain AS same, plain = m AS other FROM docs";

#[test]
fn what_a_release_has_defined_restores_into_this_version() {
    for version in VERSIONS {
        let cluster = server(version);
        let mut client = cluster.connect("postgres");
        client.run("CREATE DATABASE copy");
        client.run(&format!("CREATE EXTENSION pgseal VERSION '{version}' CASCADE"));
        restore(&cluster, "postgres", version);
        client.run(DEFINITIONS);
        let dump = run(cluster.program("pg_dump", "postgres").arg("postgres"));
        let done = cluster.psql("copy", &[""; 0], &dump);
        assert!(done.status.success(), "{version}: {}", String::from_utf8_lossy(&done.stderr));
        let mut copy = cluster.connect("copy");
        assert_readable(&mut copy);
        assert_eq!(copy.one::<i64>("SELECT count(*) FROM same"), 0);
        assert_eq!(copy.one::<i64>("SELECT found()"), 6);
    }
}

#[test]
fn a_dump_of_each_release_restores_into_this_version() {
    for version in VERSIONS {
        let cluster = server(version);
        restore(&cluster, "postgres", version);
        let mut client = cluster.connect("postgres");
        let installed = client.one::<String>("SELECT extversion FROM pg_extension WHERE extname = 'pgseal'");
        assert_eq!(installed, env!("CARGO_PKG_VERSION"));
        assert_readable(&mut client);
        assert_rotates(&mut client);
    }
}

/// A database of its own, with a release in the schema public.
fn database(cluster: &Cluster, name: &str, version: &str) -> Client {
    cluster.connect("postgres").run(&format!("CREATE DATABASE {name}"));
    let mut client = cluster.connect(name);
    client.run(&format!("CREATE EXTENSION pgseal VERSION '{version}' CASCADE"));
    client
}

#[test]
fn default_privileges_give_nothing_to_an_update() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut server = cluster.connect("postgres");
    let usual = server.column::<String>(GRANTS).join("\n");
    server.run("CREATE ROLE app; CREATE ROLE other");
    for (database, defaults) in DEFAULTS {
        let install = "CREATE EXTENSION pgseal VERSION '0.2.0'";
        let defaults = &*format!("ALTER DEFAULT PRIVILEGES {defaults}");
        for (time, statements) in [("always", [defaults, install]), ("later", [install, defaults])] {
            server.run(&format!("DROP DATABASE IF EXISTS {database}"));
            server.run(&format!("CREATE DATABASE {database}"));
            let mut client = cluster.connect(database);
            client.run("CREATE EXTENSION vector");
            statements.iter().for_each(|statement| client.run(statement));
            client.run("ALTER EXTENSION pgseal UPDATE");
            assert_same(&client.column::<String>(GRANTS).join("\n"), &usual, &format!("{database}, {time}"));
        }
    }
}

/// What a database's administrator may have changed in 0.2.0, each way that ends elsewhere.
const ADMINISTRATION: &str = "GRANT EXECUTE ON FUNCTION pgseal.rotate_key(text) TO app WITH GRANT OPTION;
    SET ROLE app; GRANT EXECUTE ON FUNCTION pgseal.rotate_key(text) TO other; RESET ROLE;
    GRANT EXECUTE ON FUNCTION pgseal.retire_key(text, int4), pgseal.create_keyring, pgseal.check_kms(text) TO app;
    GRANT EXECUTE ON FUNCTION pgseal.flush_keys() TO PUBLIC;
    REVOKE EXECUTE ON PROCEDURE pgseal.encrypt_column(regclass, name, text, int4, boolean, text[]) FROM PUBLIC;
    GRANT EXECUTE ON PROCEDURE pgseal.encrypt_column(regclass, name, text, int4, boolean, text[]) TO app;
    REVOKE EXECUTE ON FUNCTION pgseal.audit(interval, int4) FROM pg_monitor;
    GRANT EXECUTE ON FUNCTION pgseal.kms_problem(text) TO app WITH GRANT OPTION;
    REVOKE EXECUTE ON FUNCTION pgseal.searchable_values(encrypted_jsonb) FROM PUBLIC;
    GRANT SELECT ON pgseal.stat, pgseal.rotation TO app;
    REVOKE SELECT ON pgseal.keys FROM PUBLIC;
    REVOKE USAGE ON SCHEMA pgseal FROM PUBLIC; GRANT USAGE ON SCHEMA pgseal TO app, other";

#[test]
fn what_was_granted_and_revoked_stays_in_an_update_and_its_dump() {
    let cluster = Cluster::start(&[]);
    cluster.connect("postgres").run("CREATE ROLE app; CREATE ROLE other");
    cluster.connect("postgres").run("CREATE DATABASE restored");
    let mut fresh = database(&cluster, "fresh", env!("CARGO_PKG_VERSION"));
    fresh.run(ADMINISTRATION);
    let expected = fresh.column::<String>(GRANTS).join("\n");
    let mut updated = database(&cluster, "updated", "0.2.0");
    updated.run(ADMINISTRATION);
    updated.run("ALTER EXTENSION pgseal UPDATE");
    assert_same(&updated.column::<String>(GRANTS).join("\n"), &expected, "0.2.0");
    let dump = cluster.pg_dump("postgres", &["-d", "updated"]);
    let done = cluster.psql("restored", &[""; 0], &String::from_utf8_lossy(&dump.stdout));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let restored = cluster.connect("restored").column::<String>(GRANTS).join("\n");
    assert_same(&restored, &expected, "its dump");
}

#[test]
fn rights_to_write_the_tables_are_taken_away() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut server = cluster.connect("postgres");
    let usual = server.column::<String>(GRANTS).join("\n");
    server.run("CREATE ROLE app; CREATE ROLE other");
    let mut client = database(&cluster, "updated", "0.2.0");
    client.run(
        "GRANT INSERT, UPDATE ON pgseal.privilege TO app WITH GRANT OPTION; GRANT TRIGGER ON pgseal.data_key TO PUBLIC;
         SET ROLE app; GRANT INSERT ON pgseal.privilege TO other; RESET ROLE; GRANT CREATE ON SCHEMA pgseal TO other",
    );
    client.run("ALTER EXTENSION pgseal UPDATE");
    assert_same(&client.column::<String>(GRANTS).join("\n"), &usual, "0.2.0");
}

#[test]
fn privileges_on_keyrings_stay() {
    let cluster = Cluster::start(&[]);
    let mut server = cluster.connect("postgres");
    server.run(
        "CREATE ROLE reader LOGIN; CREATE ROLE \"Odd -\" LOGIN; CREATE ROLE gone; CREATE ROLE nobody LOGIN",
    );
    let mut client = database(&cluster, "updated", "0.2.0");
    client.run(
        "SELECT pgseal.create_keyring('a', '{$}'), pgseal.create_keyring('b');
         SELECT pgseal.grant_keyring('a', 'reader', '{search,decrypt}'), pgseal.grant_keyring('a', 'Odd -', '{encrypt}'),
                pgseal.grant_keyring('b', 'gone', '{decrypt}'), pgseal.grant_keyring('b', 'public', '{encrypt}');
         CREATE TABLE docs (t encrypted_text(a)); INSERT INTO docs VALUES ('secret'); GRANT SELECT, INSERT ON docs TO PUBLIC; DROP ROLE gone",
    );
    let given = "SELECT format('%s %s %s %s %s', keyring, role::oid, encrypt, search, decrypt) FROM pgseal.privilege ORDER BY 1";
    let before = client.column::<String>(given);
    assert_eq!(before.len(), 6);
    let (mut reader, mut nobody) =
        (cluster.connect_as("reader", "updated"), cluster.connect_as("nobody", "updated"));
    let found = "SELECT pgseal.decrypt(t) FROM docs WHERE t = 'secret'";
    assert_eq!(reader.one::<String>(found), "secret");
    client.run("ALTER EXTENSION pgseal UPDATE");
    assert_eq!(client.column::<String>(given), before);
    for mut session in [reader, cluster.connect_as("reader", "updated")] {
        assert_eq!(session.one::<String>(found), "secret");
        assert_eq!(session.state("INSERT INTO docs VALUES ('x')"), "42501");
    }
    cluster.connect_as("Odd -", "updated").run("INSERT INTO docs VALUES ('x')");
    assert_eq!(nobody.state(found), "42501");
    client.run("SELECT pgseal.revoke_keyring('a', 'reader'), pgseal.revoke_keyring('a', 'Odd -')");
    assert_eq!(cluster.connect_as("reader", "updated").state(found), "42501");
    assert_eq!(cluster.connect_as("Odd -", "updated").state("INSERT INTO docs VALUES ('x')"), "42501");
}

#[test]
fn an_update_runs_nothing_that_a_search_path_holds() {
    let cluster = Cluster::start(&[]);
    let mut server = cluster.connect("postgres");
    server.run("CREATE ROLE owner LOGIN");
    for (database, path) in [
        ("usual", "\"$user\", public"),
        ("reversed", "public, pg_catalog"),
        ("temporary", "pg_temp, public, pg_catalog"),
    ] {
        server.run(&format!("CREATE DATABASE {database} OWNER owner"));
        cluster.connect(database).run(
            "CREATE SCHEMA dba; CREATE EXTENSION vector; CREATE EXTENSION pgseal VERSION '0.2.0' SCHEMA dba;
             SELECT pgseal.create_keyring('old'), pgseal.grant_keyring('old', 'owner', '{encrypt,search,decrypt}')",
        );
        cluster.connect_as("owner", database).batch_execute(&traps()).expect("traps");
        server.run(&format!("ALTER DATABASE {database} SET search_path = {path}"));
        let mut client = cluster.connect(database);
        client.run(&temporary_traps());
        client.run("ALTER EXTENSION pgseal UPDATE");
        assert_not_sprung(&mut client, "ALTER EXTENSION");
        for call in CALLS {
            client.run(call);
            assert_not_sprung(&mut client, call);
        }
    }
}

#[test]
fn what_an_old_install_took_from_the_search_path_is_made_anew() {
    let cluster = Cluster::start(&[]);
    let mut client = cluster.connect("postgres");
    client.run(
        "CREATE EXTENSION vector; CREATE SEQUENCE sprung;
         CREATE FUNCTION spring(int8, numeric) RETURNS numeric LANGUAGE sql AS 'SELECT nextval(''public.sprung'')::numeric';
         CREATE OPERATOR / (LEFTARG = int8, RIGHTARG = numeric, FUNCTION = spring);
         CREATE EXTENSION pgseal VERSION '0.2.0'; TABLE pgseal.stat",
    );
    assert!(client.one::<bool>("SELECT is_called FROM sprung"));
    client.run("ALTER EXTENSION pgseal UPDATE; ALTER SEQUENCE sprung RESTART; TABLE pgseal.stat");
    assert_not_sprung(&mut client, "a view");
}

/// How many values a role decrypts, and what it finds by a filter, a comparison and a part.
const SEARCH: &str = "SELECT ARRAY[count(pgseal.decrypt(m)), count(*) FILTER (WHERE t <> 'x'), count(*) FILTER (WHERE m ->> 'name' = 'n4')]
    FROM docs WHERE m @> '{\"name\": \"n4\"}'";

#[test]
fn sessions_go_on_while_another_updates() {
    let cluster = server("0.2.0");
    let mut client = cluster.connect("postgres");
    client.run("CREATE EXTENSION pgseal VERSION '0.2.0' CASCADE");
    restore(&cluster, "postgres", "0.2.0");
    client.run(
        "CREATE ROLE reader LOGIN; CREATE ROLE nobody LOGIN; GRANT SELECT ON public.docs TO reader, nobody;
         SELECT pgseal.grant_keyring('released', 'reader', '{search,decrypt}')",
    );
    let mut reader = cluster.connect_as("reader", "postgres");
    let mut nobody = cluster.connect_as("nobody", "postgres");
    let mut watcher = cluster.connect("postgres");
    let search = reader.prepare(SEARCH).expect("a statement");
    let decrypt = "SELECT count(pgseal.decrypt(m)) FROM docs";
    nobody.run("PREPARE versions AS SELECT count(DISTINCT pgseal.key_version(m)) FROM docs");
    let go_on = |reader: &mut Client, nobody: &mut Client| {
        assert_eq!(reader.one::<i64>(decrypt), 54);
        assert_eq!(nobody.one::<i64>("EXECUTE versions"), 2);
        assert_eq!(nobody.state(decrypt), "42501");
    };
    let found =
        |reader: &mut Client| reader.query_one(&search, &[]).expect("an answer").get::<_, Vec<i64>>(0);
    assert_eq!(found(&mut reader), [6, 6, 6]);
    for end in ["ROLLBACK", "COMMIT"] {
        go_on(&mut reader, &mut nobody);
        client.run("BEGIN; ALTER EXTENSION pgseal UPDATE");
        assert_readable(&mut client);
        // What looks at the tables of keys waits for the update's end.
        thread::scope(|scope| {
            let waiting = scope.spawn(|| found(&mut reader));
            let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            wait_for("a lock or the answer", Duration::from_secs(60), || {
                waiting.is_finished() || watcher.one::<i64>(waits) == 1
            });
            client.run(end);
            assert_eq!(waiting.join().expect("a thread"), [6, 6, 6], "{end}");
        });
        go_on(&mut reader, &mut nobody);
        assert_readable(&mut client);
    }
    assert_readable(&mut cluster.connect("postgres"));
}

#[test]
fn what_0_2_0_began_is_ended_by_this_version() {
    let cluster = Cluster::start(&[]);
    let mut client = database(&cluster, "updated", "0.2.0");
    // Rows in the middle stop both.
    client.run(
        "SELECT pgseal.create_keyring('k', '{$.n}');
         CREATE TABLE filled (id int PRIMARY KEY, m jsonb, copy jsonb);
         CREATE TABLE abandoned (id int PRIMARY KEY, m jsonb, copy jsonb);
         CREATE TABLE rotated (id int PRIMARY KEY, m encrypted_jsonb(k), copy jsonb);
         INSERT INTO filled SELECT i, jsonb_build_object('n', i), jsonb_build_object('n', i) FROM generate_series(1, 900) i;
         INSERT INTO abandoned TABLE filled;
         INSERT INTO rotated TABLE filled;
         CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''stopped''; END';
         SELECT pgseal.rotate_key('k')",
    );
    for table in ["filled", "abandoned", "rotated"] {
        client.run(&format!(
            "CREATE TRIGGER stop BEFORE UPDATE ON {table} FOR EACH ROW WHEN (OLD.id = 600) EXECUTE FUNCTION stop()"
        ));
    }
    for begun in [
        "CALL pgseal.encrypt_column('filled', 'm', 'k', batch_size => 50)",
        "CALL pgseal.encrypt_column('abandoned', 'm', 'k', batch_size => 50)",
        "CALL pgseal.reencrypt('rotated', 'm', batch_size => 50)",
    ] {
        assert!(client.error(begun).message().contains("stopped"), "{begun}");
    }
    assert!(client.one::<i64>("SELECT count(pgseal_new_2) FROM filled") > 0);
    assert_eq!(client.one::<i64>("SELECT count(DISTINCT pgseal.key_version(m)) FROM rotated"), 2);
    client.run("ALTER EXTENSION pgseal UPDATE");
    // Writers are still covered.
    for table in ["filled", "abandoned", "rotated"] {
        client.run(&format!("DROP TRIGGER stop ON {table}; UPDATE {table} SET m = '{{\"n\": 0}}', copy = '{{\"n\": 0}}' WHERE id IN (3, 800)"));
    }
    client.run("CALL pgseal.encrypt_column('filled', 'm', 'k')");
    client.run("SELECT pgseal.abandon_migration('abandoned', 'm')");
    client.run("CALL pgseal.reencrypt('rotated', 'm')");
    for (table, value) in
        [("filled", "pgseal.decrypt(m)"), ("abandoned", "m"), ("rotated", "pgseal.decrypt(m)")]
    {
        assert_eq!(
            client.one::<i64>(&format!("SELECT count(*) FROM {table} WHERE {value} = copy")),
            900,
            "{table}"
        );
    }
    let left = "SELECT count(*) FROM pg_attribute WHERE attname LIKE 'pgseal_new%' AND NOT attisdropped";
    assert_eq!(client.one::<i64>(left), 0);
    assert_eq!(client.column::<i32>("SELECT DISTINCT pgseal.key_version(m) FROM rotated"), [2]);
    client.run("SELECT pgseal.retire_key('k', 1)");
}
