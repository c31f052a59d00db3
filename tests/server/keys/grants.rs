//! What roles may do with pgseal's own objects: what its scripts say, and nothing that PostgreSQL gives by itself.

use postgres::Client;

use crate::support::{Cluster, Sql, fresh_database, shared};

const NO: &str = "42501";

const TABLES: [&str; 7] =
    ["keyring", "data_key", "index_key", "privilege", "manifest", "rotation", "rotation_range"];

/// Who may do what with each object of the extension.
pub const GRANTS: &str = "WITH own AS (SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                                    WHERE d.deptype = 'e' AND e.extname = 'pgseal'),
    object (name, acl) AS (
        SELECT nspname::text, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace WHERE nspname = 'pgseal'
        UNION ALL SELECT oid::regclass::text, coalesce(relacl, acldefault('r', relowner)) FROM pg_class
                   WHERE ('pg_class'::regclass, oid) IN (SELECT * FROM own) AND relkind IN ('r', 'v', 'S')
        UNION ALL SELECT oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
                   WHERE ('pg_proc'::regclass, oid) IN (SELECT * FROM own)
        UNION ALL SELECT oid::regtype::text, coalesce(typacl, acldefault('T', typowner)) FROM pg_type
                   WHERE ('pg_type'::regclass, oid) IN (SELECT * FROM own) AND typelem = 0 AND typtype = 'b')
    SELECT format('%s: %s to %s', o.name, string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ',' ORDER BY a.privilege_type),
                  a.grantee::regrole)
      FROM object o, aclexplode(o.acl) a GROUP BY o.name, a.grantee ORDER BY 1";

/// Databases and what ALTER DEFAULT PRIVILEGES says in each, of the roles app and other.
pub const DEFAULTS: [(&str, &str); 3] = [
    ("generous", "GRANT ALL ON TABLES TO PUBLIC, app; ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO app;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO app WITH GRANT OPTION; ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO app;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC, app"),
    ("strict", "REVOKE ALL ON FUNCTIONS FROM PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC;
        ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO other"),
    ("mixed", "GRANT SELECT, TRIGGER ON TABLES TO other; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TYPES TO app WITH GRANT OPTION"),
];

#[test]
fn default_privileges_give_nothing() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut server = cluster.connect("postgres");
    let usual = server.column::<String>(GRANTS);
    server.run("CREATE ROLE app; CREATE ROLE other");
    for (database, default) in DEFAULTS {
        server.run(&format!("CREATE DATABASE {database}"));
        let mut client = cluster.connect(database);
        client.run(&format!(
            "CREATE EXTENSION vector; ALTER DEFAULT PRIVILEGES {default}; CREATE EXTENSION pgseal"
        ));
        assert_eq!(client.column::<String>(GRANTS), usual, "{database}");
    }
}

/// A session of a role that may write every table of a new database with a keyring k.
fn writer(privileges: &str) -> (Client, Client) {
    let mut client = fresh_database();
    let name = client.database();
    client.run(&format!(
        "SELECT pgseal.create_keyring('k'); CREATE ROLE {name}_writer LOGIN; {}",
        privileges.replace("$", &format!("{name}_writer"))
    ));
    let session = shared().connect_as(&format!("{name}_writer"), &name);
    (client, session)
}

#[test]
fn tables_refuse_writes_of_others() {
    let rights = [
        "GRANT pg_write_all_data, pg_read_all_data TO $",
        "GRANT ALL ON ALL TABLES IN SCHEMA pgseal TO $",
        "GRANT ALL ON ALL TABLES IN SCHEMA pgseal TO $; GRANT SET ON PARAMETER session_replication_role TO $",
    ];
    for right in rights {
        let (mut client, mut session) = writer(right);
        let name = client.database();
        if right.contains("PARAMETER") {
            session.run("SET session_replication_role = replica");
        }
        for table in TABLES {
            for statement in [
                format!("INSERT INTO pgseal.{table} SELECT * FROM pgseal.{table}"),
                format!("DELETE FROM pgseal.{table}"),
                format!("WITH gone AS (DELETE FROM pgseal.{table} RETURNING *) SELECT count(*) FROM gone"),
                format!("MERGE INTO pgseal.{table} t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE"),
                format!("TRUNCATE pgseal.{table}"),
            ] {
                assert_eq!(session.state(&statement), NO, "{right}: {statement}");
            }
            let copy = format!("SET ROLE {name}_writer;\nCOPY pgseal.{table} FROM stdin;\n\\.\n");
            let output = shared().psql::<&str>(&name, &[], &copy);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                said.contains(&format!("permission denied for table {table}")),
                "{right}: COPY {table}: {said}"
            );
        }
        for statement in [
            "UPDATE pgseal.keyring SET kms_endpoint = 'vault+https://evil/transit'",
            "UPDATE pgseal.data_key SET state = 'retired'",
            "UPDATE pgseal.privilege SET decrypt = true",
            "INSERT INTO pgseal.keyring (id, uuid, name, kms_key) VALUES (1, gen_random_uuid(), 'x', 'x') ON CONFLICT DO NOTHING",
        ] {
            assert_eq!(session.state(statement), NO, "{right}: {statement}");
        }
        client.run("SELECT pgseal.grant_keyring('k', 'public', '{search}'), pgseal.rotate_key('k')");
        client.run("UPDATE pgseal.keyring SET kms_key = kms_key; CREATE TABLE t (m encrypted_jsonb(k))");
    }
}

#[test]
fn rows_are_refused_where_no_trigger_of_a_statement_fires() {
    // As in what a subscription applies, which a role that is no superuser may own from PostgreSQL 16 on.
    let (mut client, mut session) = writer("GRANT pg_write_all_data, pg_read_all_data TO $");
    client.run("SELECT pgseal.grant_keyring('k', 'public', '{search}'), pgseal.register_manifest('m')");
    for table in ["keyring", "data_key", "index_key", "privilege", "manifest"] {
        client.run(&format!("ALTER TABLE pgseal.{table} DISABLE TRIGGER guard"));
        assert_eq!(session.state(&format!("DELETE FROM pgseal.{table}")), NO, "{table}");
    }
    for statement in [
        "INSERT INTO pgseal.privilege SELECT id, current_user::regrole, true, true, true FROM pgseal.keyring",
        "UPDATE pgseal.keyring SET kms_endpoint = 'vault+https://evil/transit'",
        "UPDATE pgseal.privilege SET decrypt = true",
    ] {
        assert_eq!(session.state(statement), NO, "{statement}");
    }
    client.run("SELECT pgseal.rotate_key('k'), pgseal.revoke_keyring('k', 'public')");
    client.run("UPDATE pgseal.keyring SET kms_key = kms_key; SELECT pgseal.release_manifest('m')");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.manifest"), 0);
    client.run("SELECT pgseal.drop_keyring('k')");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.data_key"), 0);
}

/// The names that the script gives to every role, each with its reason.
fn listed() -> Vec<String> {
    let script = include_str!("../../../sql/privileges.sql");
    let list = script
        .split("listed (name, reason) AS (VALUES")
        .nth(1)
        .expect("a list")
        .split("\n        )")
        .next()
        .expect("its end");
    list.lines()
        .filter_map(|line| line.trim().strip_prefix("('")?.split('\'').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_role_calls_what_is_listed_and_nothing_else() {
    let (_, mut session) = writer("");
    let own = "FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgseal'";
    let behind_objects = "(SELECT o.oprcode FROM pg_operator o UNION SELECT o.oprrest FROM pg_operator o UNION SELECT o.oprjoin FROM pg_operator o
        UNION SELECT c.castfunc FROM pg_cast c UNION SELECT a.amproc FROM pg_amproc a UNION SELECT p.prosupport FROM pg_proc p
        UNION SELECT unnest(ARRAY[typinput, typoutput, typreceive, typsend, typmodin, typmodout, typanalyze, typsubscript]) FROM pg_type)";
    let callable = format!(
        "SELECT DISTINCT p.proname::text {own} WHERE has_function_privilege(p.oid, 'EXECUTE') AND p.oid NOT IN {behind_objects} ORDER BY 1"
    );
    let all = session.column::<String>(&format!("SELECT DISTINCT p.proname::text {own}"));
    let mut listed = listed();
    listed.sort();
    let missing: Vec<_> = listed.iter().filter(|name| !all.contains(name)).collect();
    assert!(missing.is_empty(), "listed, and not there: {missing:?}");
    let behind = session
        .column::<String>(&format!("SELECT DISTINCT p.proname::text {own} WHERE p.oid IN {behind_objects}"));
    let expected: Vec<_> = listed
        .into_iter()
        .filter(|name| !behind.contains(name) || ["encrypt", "decrypt"].contains(&name.as_str()))
        .collect();
    let callable: Vec<_> = session
        .column::<String>(&callable)
        .into_iter()
        .filter(|name| !behind.contains(name) || ["encrypt", "decrypt"].contains(&name.as_str()))
        .collect();
    assert_eq!(callable, expected);
}

#[test]
fn an_owner_of_a_table_calls_all_that_is_for_owners() {
    let (mut client, mut session) = writer(
        "SELECT pgseal.grant_keyring('k', '$', '{encrypt,search,decrypt}'); GRANT CREATE ON SCHEMA public TO $",
    );
    session.run("CREATE TABLE docs (id int PRIMARY KEY, m jsonb, t text DEFAULT 'x'); INSERT INTO docs VALUES (1, '{\"n\": \"Ann\"}', 'v')");
    for call in [
        "CALL pgseal.encrypt_column('docs', 'm', 'k', dry_run => true)",
        "CALL pgseal.encrypt_column('docs', 'm', 'k')",
        "CALL pgseal.encrypt_column('docs', 't', 'k')",
        "CALL pgseal.reencrypt('docs', 'm')",
        "SELECT pgseal.in_place_problem('docs', 'm')",
        "SELECT * FROM pgseal.key_usage('docs', 'm')",
        "SELECT * FROM pgseal.verify('docs', 'm')",
        "SELECT pgseal.evidence('docs')",
        "SELECT * FROM pgseal.check_searchable('docs', 'm')",
        "SELECT * FROM pgseal.rotation_progress, pgseal.keyrings, pgseal.keys",
        "SELECT pgseal.decrypt(m), m ->> 'n', m -> 'n', m || '{}'::jsonb FROM docs WHERE m @> '{\"n\": \"Ann\"}' OR m @@ pgseal.filter('{}') OR m ? 'n'",
        "SELECT FROM docs WHERE pgseal.between(m, '$.n', 1, 2) OR t = 'v' OR t LIKE 'v%' OR m @@ pgseal.filter_casefold('{\"n\": \"ann\"}')",
        "PREPARE p AS SELECT FROM docs WHERE m @> $1 AND t = $2; SET plan_cache_mode = force_generic_plan; EXECUTE p('{}', 'v')",
        "SELECT pgseal.export_keyring('k'), pgseal.encrypt('{}'::jsonb, 'k'); SELECT * FROM pgseal.backup_manifest()",
        "CALL pgseal.decrypt_column('docs', 'm')",
        "CALL pgseal.decrypt_column('docs', 't')",
    ] {
        session.run(call);
    }
    client.run("SELECT pgseal.rotate_key('k')");
    session.run("CALL pgseal.encrypt_column('docs', 'm', 'k'); ");
    client.run("SELECT pgseal.rotate_key('k')");
    session
        .run("CALL pgseal.reencrypt('docs', 'm', rotation => 'in_place', index => false, max_rate => 1000)");
}

#[test]
fn a_monitor_audits() {
    let (_, mut session) = writer("GRANT pg_monitor TO $");
    session
        .run("SELECT * FROM pgseal.audit(); SELECT * FROM pgseal.stat; SELECT * FROM pgseal.check_kms('k')");
}
