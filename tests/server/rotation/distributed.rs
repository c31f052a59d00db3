//! Tables that Citus distributes: their rows are in shards of other names, mostly on other servers, and what looks at this
//! server's table only would find none.

use postgres::Client;

use crate::support::{Cluster, Sql, free_port, pg_config, with_keyring};

const RETIRE: &str = "SELECT pgseal.retire_key('k', 1)";

/// A database in which the catalog says what Citus's would, without Citus.
fn stand_in() -> Client {
    let mut client = with_keyring("{$.a}");
    client.run("SET allow_system_table_mods = on");
    client.run("CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass)");
    client.run("CREATE TABLE pg_catalog.pg_dist_local_group (groupid int4)");
    client.run("INSERT INTO pg_catalog.pg_dist_local_group VALUES (0)");
    client.run("GRANT SELECT ON pg_catalog.pg_dist_partition, pg_catalog.pg_dist_local_group TO PUBLIC");
    client.run(
        "CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), v encrypted_vector(k, 3), plain jsonb)",
    );
    client.run("CREATE INDEX ON docs USING sealed_ivf (v encrypted_vector_l2_ops)");
    client.run("INSERT INTO pg_catalog.pg_dist_partition VALUES ('docs')");
    client
}

/// What a table's rows are asked for refuses where they are elsewhere; nothing answers for the empty table.
fn refuses_distributed(client: &mut Client) {
    for statement in [
        "CALL pgseal.reencrypt('docs', 'm')",
        "CALL pgseal.reencrypt('docs', 'm', rotation => 'in_place')",
        "SELECT * FROM pgseal.key_usage('docs', 'm')",
        "SELECT * FROM pgseal.verify('docs', 'm')",
        "SELECT pgseal.evidence('docs')",
        "CALL pgseal.encrypt_column('docs', 'plain', keyring => 'k')",
        "CALL pgseal.encrypt_column('docs', 'plain', keyring => 'k', dry_run => true)",
        "CALL pgseal.encrypt_table('docs', keyring => 'k', columns => '{plain}')",
        "CALL pgseal.decrypt_column('docs', 'm')",
    ] {
        let error = client.refused(statement, "0A000");
        assert!(error.message().contains("Citus") && error.hint().is_some(), "{statement}: {error}");
    }
}

fn retirement_is_refused(client: &mut Client) {
    let error = client.refused(RETIRE, "55000");
    assert!(error.message().contains("cannot look into distributed table public.docs"), "{error}");
    client.refused("SELECT pgseal.retire_key_except_foreign('k', 1)", "55000");
}

fn audit_says_so(client: &mut Client) {
    let seen = "SELECT finding FROM pgseal.audit() WHERE object = 'column m of public.docs' AND severity = 'unknown'";
    assert_eq!(client.column::<String>(seen), ["values in a distributed table were not looked at"]);
}

/// On a worker, keys are not made.
fn refuses_new_keys(client: &mut Client) {
    for statement in [
        "SELECT pgseal.rotate_key('k')",
        "SELECT pgseal.rotate_index_key('k')",
        "SELECT pgseal.set_searchable('k', '{$.b}')",
        "SELECT pgseal.rewrap_keys('k')",
        "SELECT pgseal.create_keyring('other')",
    ] {
        let error = client.refused(statement, "55000");
        assert!(error.message().contains("worker of Citus"), "{statement}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("import_keyring")), "{statement}: {error}");
    }
}

#[test]
fn distributed_tables_are_not_taken_for_empty_ones() {
    let mut client = stand_in();
    client.run("SELECT pgseal.rotate_key('k')");
    refuses_distributed(&mut client);
    retirement_is_refused(&mut client);
    audit_says_so(&mut client);
    client.refused("CALL pgseal.reencrypt_index('docs_v_idx')", "0A000");
    client.refused("SELECT pgseal.drop_keyring('k')", "55000");
    client.run("DELETE FROM pg_catalog.pg_dist_partition");
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    client.run("CALL pgseal.reencrypt_index('docs_v_idx')");
    client.run(RETIRE);
}

#[test]
fn distributed_partitions_are_refused_through_their_table() {
    let mut client = stand_in();
    client.run("CREATE TABLE parted (id int, m encrypted_jsonb(k)) PARTITION BY LIST (id)");
    client.run("CREATE TABLE part PARTITION OF parted DEFAULT; INSERT INTO pg_catalog.pg_dist_partition VALUES ('part')");
    for statement in ["CALL pgseal.reencrypt('parted', 'm')", "SELECT * FROM pgseal.key_usage('parted', 'm')"]
    {
        let error = client.refused(statement, "0A000");
        assert!(error.message().contains("rows of public.part"), "{statement}: {error}");
    }
}

#[test]
fn keys_are_not_made_on_a_worker() {
    let mut client = stand_in();
    client.run("UPDATE pg_catalog.pg_dist_local_group SET groupid = 2");
    refuses_new_keys(&mut client);
    client.run("SELECT pgseal.import_keyring(pgseal.export_keyring('k'))");
}

/// Whoever may audit may ask, whatever Citus lets roles see.
#[test]
fn roles_without_privileges_get_the_same_refusal() {
    let mut client = stand_in();
    client.run("CREATE ROLE some_owner; ALTER TABLE docs OWNER TO some_owner");
    client.run(
        "SELECT pgseal.grant_keyring('k', 'some_owner', ARRAY['encrypt', 'decrypt']); SET ROLE some_owner",
    );
    client.refused("SELECT * FROM pgseal.verify('docs', 'm')", "0A000");
    client.refused("CALL pgseal.reencrypt('docs', 'm')", "0A000");
    client.run("RESET ROLE; ALTER TABLE docs OWNER TO postgres");
    client.run("SELECT pgseal.revoke_keyring('k', 'some_owner'); DROP ROLE some_owner");
}

struct Node {
    cluster: Cluster,
    port: u16,
}

fn node(key_dir: Option<&Cluster>) -> Node {
    let port = free_port();
    let mut conf = vec![
        "shared_preload_libraries = 'citus, pgseal'".to_owned(),
        format!("listen_addresses = '127.0.0.1'\nport = {port}"),
        "citus.node_conninfo = 'sslmode=prefer'\nmax_prepared_transactions = 20".to_owned(),
    ];
    if let Some(first) = key_dir {
        conf.push(format!("pgseal.kms_endpoint = 'file://{}'", first.key_dir().display()));
    }
    let conf: Vec<&str> = conf.iter().map(String::as_str).collect();
    let cluster = Cluster::start(&conf);
    let node = Node { cluster, port };
    node.connect().run("CREATE EXTENSION citus; CREATE EXTENSION pgseal CASCADE");
    node
}

impl Node {
    fn connect(&self) -> Client {
        let mut config = self.cluster.config("postgres", "postgres");
        config.port(self.port).connect(postgres::NoTls).expect("a connection")
    }
}

/// Carries the keyring, its wrapped keys only, to a worker.
fn carry(from: &mut Client, to: &mut Client) {
    let exported: String = from.one("SELECT pgseal.export_keyring('k')::text");
    to.execute("SELECT pgseal.import_keyring($1::text::json)", &[&exported]).expect("an import");
}

#[test]
fn citus_itself_loses_no_rows_to_retirement() {
    let control = format!("{}/extension/citus.control", pg_config("--sharedir"));
    if !std::path::Path::new(&control).exists() {
        eprintln!("not run: this PostgreSQL has no Citus; make citus runs it");
        return;
    }
    let first = node(None);
    let second = node(Some(&first.cluster));
    let (mut coordinator, mut worker) = (first.connect(), second.connect());
    coordinator.run(&format!("SELECT citus_set_coordinator_host('127.0.0.1', {})", first.port));
    coordinator.run(&format!("SELECT citus_add_node('127.0.0.1', {})", second.port));
    coordinator.run("SELECT pgseal.create_keyring('k', '{$.a}')");
    carry(&mut coordinator, &mut worker);
    coordinator.run("CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), plain jsonb)");
    coordinator.run("SELECT create_distributed_table('docs', 'id', shard_count => 2)");
    for id in 1..=20 {
        coordinator.run(&format!(r#"INSERT INTO docs VALUES ({id}, '{{"a": {id}}}', '{{}}')"#));
    }
    let count = "SELECT count(*) FROM docs WHERE (pgseal.decrypt(m) ->> 'a')::int = id";
    assert_eq!(coordinator.one::<i64>(count), 20);
    coordinator.run("SELECT pgseal.rotate_key('k')");
    carry(&mut coordinator, &mut worker);
    for client in [&mut coordinator, &mut worker] {
        refuses_distributed(client);
        retirement_is_refused(client);
        audit_says_so(client);
    }
    refuses_new_keys(&mut worker);

    let shards: Vec<String> =
        worker.column("SELECT shard_name::text FROM citus_shards WHERE table_name = 'docs'::regclass");
    assert_eq!(shards.len(), 2);
    for shard in shards {
        let reencrypt = format!("CALL pgseal.reencrypt('{shard}', 'm')");
        let usage = format!("SELECT key_version FROM pgseal.key_usage('{shard}', 'm')");
        worker.run("SET citus.override_table_visibility = on");
        for statement in [&reencrypt, &usage] {
            let error = worker.refused(statement, "55000");
            assert!(error.hint().is_some_and(|hint| hint.contains("override_table_visibility")), "{error}");
        }
        worker.run("SET citus.override_table_visibility = off");
        let encrypt = format!("CALL pgseal.encrypt_column('{shard}', 'plain', keyring => 'k')");
        worker.refused(&encrypt, "0A000");
        worker.run(&reencrypt);
        assert_eq!(worker.column::<i32>(&usage), [2], "{shard}");
    }
    // Every row is under the new key, which only a look at the shards tells.
    retirement_is_refused(&mut worker);
    retirement_is_refused(&mut coordinator);
    assert_eq!(coordinator.one::<i64>(count), 20);
    coordinator.run("SELECT undistribute_table('docs')");
    coordinator.run(RETIRE);
    assert_eq!(coordinator.one::<i64>(count), 20);
}
