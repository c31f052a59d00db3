//! A key per tenant: keyrings with a KMS of their own, many of them, dropping one, and asking whether its KMS works.

use crate::support::{Cluster, OpenBao, Sql, fresh_database, shared, wait_for};
use postgres::Client;
use std::time::Duration;

const MANY: i32 = 10_000;

/// Rows of pgseal's own tables that a session reads for its first value, filter and decryption.
fn rows_read(client: &mut Client, keyring: &str) -> i64 {
    // Or what earlier transactions read would count.
    client.run("SELECT pgseal.flush_keys(), pg_stat_force_next_flush()");
    client.run(&format!("BEGIN; SET LOCAL pgseal.keyring = '{keyring}'"));
    client.run(r#"INSERT INTO docs VALUES ('{"a": 1}'); SELECT count(*) FROM docs WHERE m @> '{"a": 1}' AND m ->> 'a' = '1'"#);
    client.run("SELECT pgseal.decrypt(m) FROM docs");
    let read = "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int8 FROM pg_stat_xact_all_tables WHERE schemaname = 'pgseal'";
    let rows = client.one(read);
    client.run("ROLLBACK");
    rows
}

fn keyrings(client: &mut Client, from: i32, to: i32) {
    client.run(&format!(
        "SET client_min_messages = error;
         SELECT count(pgseal.create_keyring('tenant_' || i, ARRAY['$.a'])) FROM generate_series({from}, {to}) i"
    ));
}

#[test]
fn ten_thousand_keyrings_cost_a_session_no_more_than_three() {
    let mut client = fresh_database();
    keyrings(&mut client, 1, 3);
    client.run("CREATE TABLE docs (m encrypted_jsonb); CREATE INDEX ON docs USING gin (m)");
    let few = rows_read(&mut client, "tenant_2");
    keyrings(&mut client, 4, MANY);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), i64::from(MANY));
    client.run("ANALYZE pgseal.keyring, pgseal.data_key, pgseal.index_key, pgseal.privilege");
    for keyring in ["tenant_2", "tenant_5000", "tenant_10000"] {
        let many = rows_read(&mut client, keyring);
        assert!(many <= few, "{keyring}: {many} rows, {few} among three");
    }
    // Without a choice the database's default answers for new values, found without looking at the others.
    client.run(r#"RESET pgseal.keyring; INSERT INTO docs VALUES ('{"a": 1}')"#);
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM docs WHERE m @> '{"a": 1}'"#), 1);
}

#[test]
fn each_tenants_keys_are_at_its_own_kms() {
    let (ours, theirs) = (OpenBao::start(), OpenBao::start());
    ours.create_key("main");
    theirs.create_key("tenant");
    let cluster = Cluster::start(&[&format!("pgseal.kms_endpoint = '{}'", ours.endpoint())]);
    let token = cluster.write("token", "root");
    let mut client = cluster.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE");
    client.run(&format!("ALTER DATABASE postgres SET pgseal.kms_token_file = '{}'", token.display()));
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('us', kms_key => 'main')");
    client.run(&format!(
        "SELECT pgseal.create_keyring('them', kms_key => 'tenant', kms_endpoint => '{}')",
        theirs.endpoint()
    ));
    client.run("CREATE TABLE docs (us encrypted_jsonb(us), them encrypted_jsonb(them)); INSERT INTO docs VALUES ('{}'::jsonb, '{}'::jsonb)");
    let check = |client: &mut Client, keyring: &str| -> (bool, String) {
        let row = client.query_one(
            "SELECT works, coalesce(problem, ''), milliseconds::float8 FROM pgseal.check_kms($1)",
            &[&keyring],
        );
        let row = row.unwrap();
        assert!(row.get::<_, f64>(2) >= 0.0);
        (row.get(0), row.get(1))
    };
    assert_eq!(check(&mut client, "them"), (true, String::new()));
    theirs.delete_key("tenant");
    client.run("SELECT pgseal.flush_keys()");
    assert_eq!(client.state("SELECT pgseal.decrypt(them) FROM docs"), "28000");
    client.run("SELECT pgseal.decrypt(us) FROM docs");
    let (works, problem) = check(&mut client, "them");
    assert!(!works && problem.contains("there is no such key"), "{problem}");
    drop(theirs);
    let (works, problem) = check(&mut client, "them");
    assert!(!works && problem.contains("refused"), "{problem}");
    assert_eq!(client.state("SELECT * FROM pgseal.check_kms('nobody')"), "42704");
    client.run("CREATE ROLE watcher IN ROLE pg_monitor; CREATE ROLE other; SET ROLE watcher");
    assert!(check(&mut client, "us").0);
    client.run("SET ROLE other");
    assert_eq!(client.state("SELECT * FROM pgseal.check_kms('us')"), "42501");
}

#[test]
fn an_app_role_is_set_up_by_settings_alone() {
    let bao = OpenBao::start();
    bao.create_key("k");
    bao.allow("k");
    let (role, secret) = bao.app_role("k");
    let cluster = Cluster::start(&[&format!("pgseal.kms_endpoint = '{}'", bao.endpoint())]);
    let secret = cluster.write("secret", &secret);
    let mut client = cluster.connect("postgres");
    client.run("LOAD 'pgseal'");
    for setting in [
        "kms_auth = approle".to_owned(),
        format!("kms_role = '{role}'"),
        format!("kms_secret_file = '{}'", secret.display()),
    ] {
        client.run(&format!("ALTER DATABASE postgres SET pgseal.{setting}"));
    }
    let mut client = cluster.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE; SELECT pgseal.create_keyring('k', kms_key => 'k')");
    client.run("CREATE TABLE docs (m encrypted_jsonb(k)); INSERT INTO docs VALUES ('{}'::jsonb); SELECT pgseal.decrypt(m) FROM docs");
    client.run("SET pgseal.kms_auth_mount = 'elsewhere'; SELECT pgseal.flush_keys()");
    assert_eq!(client.state("SELECT pgseal.decrypt(m) FROM docs"), "28000");
    client.run("CREATE ROLE app; SET ROLE app");
    assert_eq!(client.state("SET pgseal.kms_role = 'x'"), "42501");
}

#[test]
fn a_keyring_that_something_uses_is_not_dropped() {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('a'), pgseal.create_keyring('b')");
    client.run("CREATE TABLE bound (m encrypted_jsonb(a)); CREATE TABLE loose (m encrypted_jsonb)");
    let error = client.error("SELECT pgseal.drop_keyring('a')");
    assert_eq!(error.code().code(), "55000");
    assert!(error.message().contains("column m of public.bound"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("force")), "{error}");
    client.run("INSERT INTO loose VALUES (pgseal.encrypt('{}'::jsonb, 'b')); SELECT pgseal.rotate_key('b')");
    assert!(client.error("SELECT pgseal.drop_keyring('b')").message().contains("column m of public.loose"));
    client.run("DROP TABLE bound; SELECT pgseal.drop_keyring('a')");
    assert_eq!(client.one::<String>("SELECT string_agg(name, ',') FROM pgseal.keyrings"), "b");
    assert_eq!(client.state("SELECT pgseal.drop_keyring('a')"), "42704");

    client.run("SELECT pgseal.drop_keyring('b', force => true)");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyring"), 0);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.data_key"), 0);
    assert_eq!(client.state("SELECT pgseal.decrypt(m) FROM loose"), "42704");
    // Ciphertext stays what it is, for a restore of the keyring's rows from a backup.
    client.run("CREATE TABLE copied AS SELECT m FROM loose");
    client.run("CREATE ROLE nobody_special; SET ROLE nobody_special");
    assert_eq!(client.state("SELECT pgseal.drop_keyring('b')"), "42501");
}

#[test]
fn a_writer_that_has_not_committed_keeps_its_keyring() {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('a'); CREATE TABLE docs (m encrypted_jsonb)");
    let database: String = client.one("SELECT current_database()");
    let mut writer = shared().connect(&database);
    let mut dropper = shared().connect(&database);
    writer.run("BEGIN; INSERT INTO docs VALUES (pgseal.encrypt('{}'::jsonb, 'a'))");
    let drop = std::thread::spawn(move || dropper.state("SELECT pgseal.drop_keyring('a')"));
    wait_for("drop_keyring to wait", Duration::from_secs(60), || {
        client.one("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
    });
    writer.run("COMMIT");
    assert_eq!(drop.join().unwrap(), "55000");
    assert_eq!(client.one::<String>("SELECT pgseal.decrypt(m)::text FROM docs"), "{}");
}

#[test]
fn credentials_go_to_a_new_endpoint_for_a_superuser_only() {
    let mut client = fresh_database();
    client.run("CREATE ROLE key_admin_1 LOGIN");
    client.run(
        "GRANT EXECUTE ON FUNCTION pgseal.create_keyring(text, text[], text, text, text) TO key_admin_1",
    );
    let database: String = client.one("SELECT current_database()");
    let mut admin = shared().connect_as("key_admin_1", &database);
    let elsewhere = "'vault+http://127.0.0.1:1/transit'";
    let error = admin.error(&format!("SELECT pgseal.create_keyring('a', kms_endpoint => {elsewhere})"));
    assert_eq!(error.code().code(), "42501", "{error}");
    admin.run("SELECT pgseal.create_keyring('a')");
    admin.run("SELECT pgseal.create_keyring('b', kms_endpoint => current_setting('pgseal.kms_endpoint'))");
    // Once a superuser has, it is known.
    client.run(&format!("UPDATE pgseal.keyring SET kms_endpoint = {elsewhere} WHERE name = 'a'"));
    assert_eq!(
        admin.state(&format!("SELECT pgseal.create_keyring('c', kms_endpoint => {elsewhere})")),
        "22023"
    );
}
