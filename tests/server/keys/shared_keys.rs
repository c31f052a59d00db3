//! Unwrapped keys that all sessions share where pgseal is preloaded, with a real OpenBao that is taken away.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;
use serde_json::Value;

use crate::support::{Cluster, OpenBao, Sql, shared, wait_for, wait_until_active};

const DECRYPT: &str = "SELECT count(pgseal.decrypt(m)) FROM docs";
const FLUSH: &str = "SELECT pgseal.flush_keys()";
const HELD: &str = "SELECT shared_keys FROM pgseal.stat";

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    Cluster::start(&["shared_preload_libraries = 'pgseal'", "max_prepared_transactions = 2"])
});
static BAO: LazyLock<OpenBao> = LazyLock::new(OpenBao::start);

/// A database whose KMS key, policy and token file have its name.
struct Site {
    name: String,
    client: Client,
}

impl Site {
    fn new() -> Site {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("shared_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        BAO.create_key(&name);
        BAO.allow(&name);
        let token = CLUSTER.write(&name, &BAO.token(&name));
        let mut admin = CLUSTER.connect("postgres");
        admin.run(&format!("CREATE DATABASE {name}"));
        admin.run(&format!("ALTER DATABASE {name} SET pgseal.kms_endpoint = '{}'", BAO.endpoint()));
        admin.run(&format!("ALTER DATABASE {name} SET pgseal.kms_token_file = '{}'", token.display()));
        let mut client = CLUSTER.connect(&name);
        client.run("CREATE EXTENSION pgseal CASCADE");
        client.run(&format!("SELECT pgseal.create_keyring('k', ARRAY['$.a'], kms_key => '{name}')"));
        client.run("CREATE TABLE docs (id int, m encrypted_jsonb(k))");
        client.run(r#"INSERT INTO docs SELECT i, '{"a": 1}'::jsonb FROM generate_series(1, 1000) i"#);
        Site { name, client }
    }

    fn session(&self) -> Client {
        CLUSTER.connect(&self.name)
    }
}

fn kms_calls(client: &mut Client) -> i64 {
    client.one("SELECT kms_calls FROM pgseal.stat")
}

#[test]
fn a_new_session_decrypts_and_filters_without_a_call_of_the_kms() {
    let mut site = Site::new();
    assert_eq!(site.client.one::<i64>(r#"SELECT count(*) FROM docs WHERE m @> '{"a": 1}'"#), 1000);
    BAO.deny(&site.name);
    let mut session = site.session();
    assert_eq!(session.one::<i64>(DECRYPT), 1000);
    assert_eq!(session.one::<i64>(r#"SELECT count(*) FROM docs WHERE m @> '{"a": 1}'"#), 1000);
    assert_eq!(kms_calls(&mut session), 0);
    assert!(session.one::<bool>("SELECT shared_key_hits >= 2 FROM pgseal.stat"));

    session.run(FLUSH);
    assert_eq!(site.session().state(DECRYPT), "28000");
    BAO.allow(&site.name);
    assert_eq!(site.session().one::<i64>(DECRYPT), 1000);
}

#[test]
fn a_flush_stops_a_statement_that_is_running() {
    let site = Site::new();
    let mut session = site.session();
    let pid: i32 = session.one("SELECT pg_backend_pid()");
    let query = std::thread::spawn(move || {
        session.state("SELECT count(pgseal.decrypt(m)) FROM docs, generate_series(1, 1000000)")
    });
    wait_until_active(&mut site.session(), pid);
    BAO.deny(&site.name);
    site.session().run(FLUSH);
    let flushed = Instant::now();
    assert_eq!(query.join().unwrap(), "28000");
    // A second, and what a busy machine adds; the statement would take hours.
    assert!(flushed.elapsed() < Duration::from_secs(30), "{:?}", flushed.elapsed());
}

#[test]
fn a_flush_changes_nothing_until_it_is_committed() {
    let mut site = Site::new();
    let mut reader = site.session();
    reader.run(DECRYPT);
    BAO.deny(&site.name);
    site.client.run(&format!("BEGIN; {FLUSH}; ROLLBACK; BEGIN; {FLUSH}"));
    assert_eq!(reader.one::<i64>(DECRYPT), 1000);
    // Whoever commits it could not tell the others at once.
    let prepared = site.client.error("PREPARE TRANSACTION 'flush'");
    assert_eq!(prepared.code().code(), "0A000", "{prepared}");
}

#[test]
fn shared_keys_are_wiped_in_time_though_nobody_asks() {
    let mut site = Site::new();
    let cluster =
        Cluster::with_pgseal(&["shared_preload_libraries = 'pgseal'", "pgseal.key_cache_ttl = '8s'"]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k'); CREATE TABLE docs (m encrypted_jsonb(k))");
    client.run("INSERT INTO docs VALUES ('{}')");
    assert!(client.one::<i64>(HELD) > 0);
    wait_for("the end of the shared key", Duration::from_secs(60), || client.one::<i64>(HELD) == 0);
    assert!(site.client.one::<i64>(HELD) > 0, "another server's keys stay");
}

#[test]
fn a_denial_takes_the_shared_keys_of_that_keyring_only() {
    let mut site = Site::new();
    let other = format!("{}_other", site.name);
    BAO.create_key(&other);
    BAO.allow_all(&site.name, &[&site.name, &other]);
    site.client.run(&format!("SELECT pgseal.create_keyring('other', kms_key => '{other}')"));
    site.client.run("CREATE TABLE more (m encrypted_jsonb(other)); INSERT INTO more VALUES ('{}'::jsonb)");
    site.client.run(DECRYPT);
    BAO.allow_all(&site.name, &[&other]);
    // Asks the KMS whatever is cached.
    assert!(!site.client.one::<bool>("SELECT works FROM pgseal.check_kms('k')"));
    assert_eq!(site.session().state(DECRYPT), "28000");
    let mut session = site.session();
    session.run("SELECT pgseal.decrypt(m) FROM more");
    assert_eq!(kms_calls(&mut session), 0);
}

#[test]
fn a_sessions_own_token_serves_it_alone() {
    let mut site = Site::new();
    let token = BAO.token(&site.name);
    site.client.run(&format!("ALTER DATABASE {} RESET pgseal.kms_token_file", site.name));
    site.client.run(FLUSH);
    let mut with_token = site.session();
    let mut without = site.session();
    assert_eq!(without.state(DECRYPT), "22023");
    with_token.execute("SELECT pgseal.set_kms_token($1)", &[&token]).unwrap();
    assert_eq!(with_token.one::<i64>(DECRYPT), 1000);
    assert!(kms_calls(&mut with_token) > 0);
    assert_eq!(without.state(DECRYPT), "22023", "its keys were shared");

    for end in ["DISCARD ALL", "RESET ALL", "SELECT pgseal.set_kms_token(NULL)"] {
        with_token.execute("SELECT pgseal.set_kms_token($1)", &[&token]).unwrap();
        assert_eq!(with_token.one::<i64>(DECRYPT), 1000);
        with_token.run(end);
        assert_eq!(with_token.state(DECRYPT), "22023", "{end}");
    }
    with_token.run("BEGIN");
    with_token.execute("SELECT pgseal.set_kms_token($1)", &[&token]).unwrap();
    with_token.run("ROLLBACK");
    assert_eq!(with_token.state(DECRYPT), "22023");
    assert_eq!(with_token.state("SELECT pgseal.set_kms_token('two words')"), "22023");
    with_token.execute("SELECT pgseal.set_kms_token($1)", &[&"s.wrong"]).unwrap();
    assert_eq!(with_token.state(DECRYPT), "28000");
    assert!(!CLUSTER.log().contains(&token));
}

#[test]
fn a_local_token_ends_with_its_transaction() {
    let mut site = Site::new();
    let token = BAO.token(&site.name);
    site.client.run(&format!("ALTER DATABASE {} RESET pgseal.kms_token_file", site.name));
    site.client.run(FLUSH);
    let mut session = site.session();
    let take = "SELECT pgseal.set_kms_token($1, is_local => true)";
    for end in ["COMMIT", "ROLLBACK"] {
        let mut transaction = session.transaction().unwrap();
        transaction.execute(take, &[&"s.wrong"]).unwrap();
        transaction.execute(take, &[&token]).unwrap();
        assert_eq!(transaction.query_one(DECRYPT, &[]).unwrap().get::<_, i64>(0), 1000);
        if end == "COMMIT" {
            transaction.commit().unwrap()
        } else {
            transaction.rollback().unwrap()
        }
        assert_eq!(session.state(DECRYPT), "22023", "after {end} the next client has token or keys");
    }
    let mut transaction = session.transaction().unwrap();
    let mut part = transaction.savepoint("part").unwrap();
    part.execute(take, &[&token]).unwrap();
    part.rollback().unwrap();
    assert!(transaction.query_one(DECRYPT, &[]).is_err(), "the savepoint's token is still there");
    drop(transaction);

    assert_eq!(session.state("SELECT pgseal.set_kms_token(NULL, is_local => true)"), "22023");
    session.execute("SELECT pgseal.set_kms_token($1)", &[&token]).unwrap();
    assert_eq!(session.state("SELECT pgseal.set_kms_token('s.other', is_local => true)"), "55000");
    assert_eq!(session.one::<i64>(DECRYPT), 1000, "the session's own token is gone");
    session.run("SELECT pgseal.set_kms_token(NULL, is_local => false)");
    assert_eq!(session.state(DECRYPT), "22023");
}

#[test]
fn a_token_takes_nothing_that_is_shared() {
    let mut site = Site::new();
    site.client.run(DECRYPT);
    let mut session = site.session();
    session.execute("SELECT pgseal.set_kms_token($1)", &[&"s.wrong"]).unwrap();
    assert_eq!(session.state(DECRYPT), "28000");
    // Its refusal is its own.
    let mut other = site.session();
    assert_eq!(other.one::<i64>(DECRYPT), 1000);
    assert_eq!(kms_calls(&mut other), 0);
}

#[test]
fn parallel_workers_decrypt_without_a_call_of_the_kms() {
    let mut site = Site::new();
    site.client
        .run("CREATE TABLE before AS SELECT oid::regprocedure::text AS function, proparallel FROM pg_proc");
    assert!(site.client.one::<i32>("SELECT pgseal.use_parallel_workers()") > 10);
    site.client
        .run("INSERT INTO docs SELECT i, '{\"a\": 2}'::jsonb FROM generate_series(1, 20000) i; ANALYZE docs");
    site.client.run(DECRYPT);
    BAO.deny(&site.name);
    let mut session = site.session();
    session.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
    );
    for query in [
        DECRYPT,
        r#"SELECT count(*) FROM docs WHERE m @> '{"a": 2}'"#,
        "SELECT count(*) FROM docs WHERE m ? 'a'",
    ] {
        let plan: Value = session.one(&format!("EXPLAIN (ANALYZE, FORMAT JSON) {query}"));
        let gather = plan.to_string();
        assert!(gather.contains("\"Workers Launched\":2"), "{query}: {gather}");
        session.run(query);
    }
    assert_eq!(kms_calls(&mut session), 0);
    BAO.allow(&site.name);
    // A worker does not get a session's own token, and does not take what is shared in its place.
    session.execute("SELECT pgseal.set_kms_token($1)", &[&BAO.token(&site.name)]).unwrap();
    let error = session.error(DECRYPT);
    assert!(error.message().contains("max_parallel_workers_per_gather"), "{error}");
    session.run("SELECT pgseal.set_kms_token(NULL); SELECT pgseal.use_parallel_workers(false)");
    let changed = "SELECT coalesce(string_agg(function, ' '), '') FROM before b
        JOIN pg_proc p ON p.oid = b.function::regprocedure AND p.proparallel <> b.proparallel";
    assert_eq!(session.one::<String>(changed), "");
}

#[test]
fn more_keys_than_there_is_room_for_are_still_read() {
    let cluster = Cluster::with_pgseal(&["shared_preload_libraries = 'pgseal'", "pgseal.shared_keys = 64"]);
    let mut client = cluster.connect("postgres");
    client.run("SET client_min_messages = error; CREATE TABLE many (m encrypted_jsonb)");
    client.run(
        "SELECT pgseal.create_keyring('r' || i) FROM generate_series(1, 100) i;
         INSERT INTO many SELECT pgseal.encrypt('{}'::jsonb, 'r' || i) FROM generate_series(1, 100) i",
    );
    let mut session = cluster.connect("postgres");
    assert_eq!(session.one::<i64>("SELECT count(pgseal.decrypt(m)) FROM many"), 100);
    assert!((1..=64).contains(&client.one::<i64>(HELD)));
}

#[test]
fn everything_works_without_preloading_and_nothing_is_shared() {
    let mut client = shared().connect("with_pgseal");
    assert!(client.one::<bool>("SELECT shared_keys IS NULL FROM pgseal.stat"));
    let error = client.error("SELECT pgseal.use_parallel_workers()");
    assert_eq!(error.code().code(), "55000");
    assert!(error.hint().is_some_and(|hint| hint.contains("shared_preload_libraries")), "{error}");
}
