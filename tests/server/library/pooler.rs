//! Behind PgBouncer in transaction mode, where clients take turns on one connection: what one sets for the session reaches
//! the next, what it sets for its transaction does not.

use std::sync::LazyLock;

use postgres::{Client, SimpleQueryMessage};

use crate::support::{Cluster, OpenBao, PgBouncer, Sql};

static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]));

fn database(name: &str) -> String {
    CLUSTER.connect("postgres").run(&format!("CREATE DATABASE {name}"));
    let mut client = CLUSTER.connect(name);
    client.run("CREATE EXTENSION pgseal CASCADE");
    client.run("SELECT pgseal.create_keyring('a', '{$.n}'); SELECT pgseal.create_keyring('b', '{$.n}')");
    client.run("CREATE TABLE docs (id int, m encrypted_jsonb); SET pgseal.keyring = a; INSERT INTO docs VALUES (1, '{\"n\": 1}')");
    client.run("SET pgseal.keyring = b; INSERT INTO docs VALUES (2, '{\"n\": 1}')");
    name.to_owned()
}

/// The last statement's first column, in the simple protocol, which PgBouncer 1.18 passes whole.
fn answers(client: &mut Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    rows.collect()
}

const READ: &str = "SELECT m FROM docs ORDER BY id";
const FOUND: &str = r#"SELECT id FROM docs WHERE m @> '{"n": 1}' ORDER BY id"#;

#[test]
fn what_is_set_for_a_session_reaches_the_next_client() {
    let database = database("sessions");
    let pooler = PgBouncer::start(&CLUSTER, "");
    let (mut one, mut other) = (pooler.connect(&database), pooler.connect(&database));
    answers(&mut one, "SET pgseal.reveal = on; SET pgseal.keyring = a");
    assert_eq!(answers(&mut other, READ), [r#"{"n": 1}"#, r#"{"n": 1}"#]);
    assert_eq!(answers(&mut other, FOUND), ["1"]);
}

#[test]
fn what_is_set_for_a_transaction_ends_with_it() {
    let database = database("transactions");
    let pooler = PgBouncer::start(&CLUSTER, "");
    let (mut one, mut other) = (pooler.connect(&database), pooler.connect(&database));
    let set = "BEGIN; SET LOCAL pgseal.reveal = on; SET LOCAL pgseal.keyring = a";
    assert_eq!(
        answers(&mut one, &format!("{set}; {FOUND}; {READ}; COMMIT")),
        ["1", r#"{"n": 1}"#, r#"{"n": 1}"#]
    );
    assert_eq!(answers(&mut other, FOUND), ["1", "2"]);
    assert!(answers(&mut other, READ).iter().all(|value| value.starts_with("pgseal:")));
}

#[test]
fn connect_query_reveals_to_an_application_that_sets_nothing() {
    let database = database("unchanged");
    let pooler = PgBouncer::start(&CLUSTER, "connect_query='SET pgseal.reveal = on'");
    assert_eq!(answers(&mut pooler.connect(&database), READ), [r#"{"n": 1}"#, r#"{"n": 1}"#]);
}

#[test]
fn a_local_kms_token_does_not_reach_the_next_client() {
    let bao = OpenBao::start();
    bao.create_key("pooled");
    bao.allow("pooled");
    let database = database("tokens");
    let mut admin = CLUSTER.connect(&database);
    admin.run(&format!("ALTER DATABASE {database} SET pgseal.kms_endpoint = '{}'", bao.endpoint()));
    let token = bao.token("pooled");
    let mut owner = CLUSTER.connect(&database);
    owner.execute("SELECT pgseal.set_kms_token($1)", &[&token]).unwrap();
    owner.run("SELECT pgseal.create_keyring('k', '{$.n}', kms_key => 'pooled'); CREATE TABLE mine (m encrypted_jsonb(k))");
    owner.run("INSERT INTO mine VALUES ('{\"n\": 1}'::jsonb)");

    let pooler = PgBouncer::start(&CLUSTER, "");
    let (mut one, mut other) = (pooler.connect(&database), pooler.connect(&database));
    let read = "SELECT pgseal.decrypt(m) FROM mine";
    let take = format!("SELECT pgseal.set_kms_token('{token}', is_local => true)");
    assert_eq!(answers(&mut one, &format!("BEGIN; {take}; {read}; COMMIT")).last().unwrap(), r#"{"n": 1}"#);
    assert!(
        other.simple_query(read).is_err(),
        "the next client reads with the token or the keys of the last one"
    );
    answers(&mut one, &format!("SELECT pgseal.set_kms_token('{token}')"));
    assert_eq!(answers(&mut other, read), [r#"{"n": 1}"#], "a session's token leaks, as the chapter says");
}
