//! Index keys under a wrapping key of their own: who may use that one alone searches, and decrypts nothing.

use postgres::Client;

use crate::support::{Cluster, OpenBao, Sql, fresh_database};

const DENIED: &str = "28000";
/// What tokens decide, with 12 rows each.
const DECIDED: [&str; 6] = [
    r#"SELECT count(*) FROM docs WHERE m @> '{"name": "n3"}'"#,
    "SELECT count(*) FROM docs WHERE m ->> 'name' = 'n3'",
    "SELECT count(*) FROM docs WHERE m ->> 'name' IN ('n3', 'nobody')",
    r#"SELECT count(*) FROM docs WHERE m @> ANY (ARRAY['{"name": "n3"}', '{"name": "nobody"}']::jsonb[])"#,
    "SELECT count(*) FROM docs WHERE body = 'body 3'",
    r#"SELECT count(*) FROM (SELECT id FROM docs WHERE m @> '{"name": "n3"}' ORDER BY v <-> '[1,2]' LIMIT 20) nearest"#,
];
/// What has to be decrypted.
const UNDECIDED: [&str; 6] = [
    r#"SELECT count(*) FROM docs WHERE m @> '{"n": 3}'"#,
    r#"SELECT count(*) FROM docs WHERE m ->> 'name' <> 'n3'"#,
    "SELECT count(*) FROM docs WHERE m ->> 'name' LIKE 'n%'",
    "SELECT count(pgseal.decrypt(m)) FROM docs",
    "SELECT count(m -> 'name') FROM docs",
    "SELECT count(*) FROM (SELECT DISTINCT body FROM docs) q",
];

/// Its KMS has the keys `data` and `search`; the server's token may use both.
fn primary(bao: &OpenBao) -> Cluster {
    bao.create_key("data");
    bao.create_key("search");
    bao.allow_all("both", &["data", "search"]);
    bao.allow("search");
    let endpoint = format!("pgseal.kms_endpoint = '{}'", bao.endpoint());
    let primary = Cluster::start(&[&endpoint, "session_preload_libraries = 'pgseal'"]);
    let token = primary.write("token", &bao.token("both"));
    primary
        .connect("postgres")
        .run(&format!("ALTER SYSTEM SET pgseal.kms_token_file = '{}'", token.display()));
    primary.restart();
    primary
}

fn fill(client: &mut Client) {
    client.run(
        "CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), body encrypted_text(k), v vector(2))",
    );
    client.run("CREATE INDEX ON docs USING gin (m); CREATE INDEX ON docs USING gin (body)");
    client.run(
        "INSERT INTO docs SELECT i, jsonb_build_object('name', 'n' || i % 10, 'n', i % 10), 'body ' || i % 10, format('[%s,1]', i)::vector
           FROM generate_series(1, 120) i",
    );
    client.run("ANALYZE docs");
}

fn assert_searches_only(client: &mut Client) {
    client.run("SET enable_seqscan = off");
    for sql in DECIDED {
        assert_eq!(client.one::<i64>(sql), 12, "{sql}");
    }
    for sql in UNDECIDED {
        let error = client.error(sql);
        assert_eq!(error.code().code(), DENIED, "{sql}: {error}");
        assert!(error.message().contains("what tokens decide can be searched"), "{sql}: {error}");
    }
    // A row without the token is none.
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM docs WHERE NOT m @> '{"name": "n3"}'"#), 108);
    // What was refused a moment ago does not take the index keys with it.
    assert_eq!(client.one::<i64>(DECIDED[0]), 12);
    let prepared = client.prepare("SELECT count(*) FROM docs WHERE m ->> 'name' = $1::text").unwrap();
    for _ in 0..7 {
        assert_eq!(client.query_one(&prepared, &[&"n3"]).unwrap().get::<_, i64>(0), 12);
    }
}

#[test]
fn a_standby_with_the_search_key_alone_filters_and_counts() {
    let bao = OpenBao::start();
    let primary = primary(&bao);
    let mut client = primary.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE");
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name', '$'], kms_key => 'data', kms_search_key => 'search')");
    fill(&mut client);

    let standby = primary.base_backup(&["--write-recovery-conf"]);
    let token = standby.write("token", &bao.token("search"));
    let settings = std::fs::read_to_string(standby.data_dir().join("postgresql.auto.conf")).unwrap();
    let own = format!("{settings}pgseal.kms_token_file = '{}'\n", token.display());
    standby.write("data/postgresql.auto.conf", &own);
    standby.start_again();
    let mut replica = standby.connect("postgres");
    assert_searches_only(&mut replica);
    let (works, problem): (bool, String) = {
        let row = replica.query_one("SELECT works, problem FROM pgseal.check_kms('k')", &[]).unwrap();
        (row.get(0), row.get(1))
    };
    assert!(!works && problem.contains("no data key"), "{problem}");

    // Later versions of both keys are under the same two.
    client.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_index_key('k')");
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    standby.catch_up(&mut client);
    assert_eq!(replica.one::<i64>(DECIDED[0]), 12);
    bao.deny("search");
    replica.run("SELECT pgseal.flush_keys()");
    assert_eq!(replica.state(DECIDED[0]), DENIED);
    assert_eq!(client.one::<i64>(UNDECIDED[0]), 12, "the primary has a token of its own");
}

#[test]
fn a_session_with_a_token_for_the_search_key_searches_only() {
    let bao = OpenBao::start();
    let server = primary(&bao);
    let mut client = server.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE");
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name', '$'], kms_key => 'data')");
    fill(&mut client);
    let mut other = server.connect("postgres");
    let token = format!("SELECT pgseal.set_kms_token('{}')", bao.token("search"));
    other.run(&token);
    assert_eq!(other.state(DECIDED[0]), DENIED, "one key wraps all");

    client.run("SELECT pgseal.rotate_index_key('k')");
    assert_eq!(client.one::<i32>("SELECT pgseal.set_search_key('k', 'search')"), 2);
    assert_eq!(client.one::<String>("SELECT kms_search_key FROM pgseal.keyrings"), "search");
    assert_searches_only(&mut other);
    let manifest = "SELECT string_agg(purpose || version || ' ' || kms_key, ', ' ORDER BY purpose, version) FROM pgseal.backup_manifest()";
    assert_eq!(client.one::<String>(manifest), "data1 data, index1 search, index2 search");
    client.run("SELECT pgseal.rewrap_keys('k')");
    assert_searches_only(&mut other);

    assert_eq!(client.one::<i32>("SELECT pgseal.set_search_key('k', NULL)"), 2);
    other.run(&token);
    assert_eq!(other.state(DECIDED[0]), DENIED, "one key wraps all again");
    assert_eq!(client.one::<i64>(UNDECIDED[0]), 12);
}

#[test]
fn a_keyring_keeps_its_search_key_on_export() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k', ARRAY['$.a'], kms_key => 'data', kms_search_key => 'search')",
    );
    client.run("CREATE TABLE docs (m encrypted_jsonb(k)); INSERT INTO docs VALUES ('{\"a\": 1}'::jsonb)");
    client.run("CREATE TEMP TABLE kept AS SELECT pgseal.export_keyring('k') AS exported, m::text FROM docs; DROP TABLE docs");
    client.run(
        "SELECT pgseal.drop_keyring('k', force => true); SELECT pgseal.import_keyring(exported) FROM kept",
    );
    assert_eq!(client.one::<String>("SELECT kms_key || kms_search_key FROM pgseal.keyrings"), "datasearch");
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM kept WHERE m::encrypted_jsonb @> '{"a": 1}'"#), 1);
    let bad = r#"SELECT pgseal.import_keyring((exported::jsonb || '{"kms_search_key": 1}')::json) FROM kept"#;
    assert_eq!(client.state(bad), "22023");
}

#[test]
fn a_search_key_is_for_who_manages_keyrings() {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k')");
    assert_eq!(client.state("SELECT pgseal.set_search_key('nope', 'search')"), "42704");
    assert_eq!(client.state("SELECT pgseal.set_search_key('k', '../search')"), "22023");
    client.run("CREATE ROLE no_key_admin; SET ROLE no_key_admin");
    assert_eq!(client.state("SELECT pgseal.set_search_key('k', 'search')"), "42501");
}
