//! Every released version can be updated to this one, and what it wrote is read for ever.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::support::{Cluster, Sql, run};

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
fn a_database_of_each_release_is_read_before_and_after_the_update_and_rotates() {
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

/// What a database of a release may hold that names our operators.
const DEFINITIONS: &str = "CREATE VIEW same AS SELECT id FROM docs WHERE t = 'one' AND t <> 'two' AND m ->> 'name' IN ('n4', 'n5');
    CREATE VIEW joined AS SELECT d.id, m || '{\"more\": 1}' AS m FROM docs d JOIN (VALUES ('one')) v (text) ON d.t = v.text OR v.text <> d.t;
    CREATE FUNCTION found() RETURNS int8 LANGUAGE sql RETURN (SELECT count(*) FROM docs WHERE m @> '{\"name\": \"n4\"}' AND t <> 'one');
    ALTER TABLE docs ADD CHECK (t <> 'forbidden');
    CREATE POLICY named ON docs USING (m ->> 'name' <> 'hidden')";

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
