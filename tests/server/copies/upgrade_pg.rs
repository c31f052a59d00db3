//! pg_upgrade to PostgreSQL 18 takes encrypted tables along as they are.

use std::ffi::OsString;

use postgres::Client;

use crate::server::rotation::in_place::check_files;
use crate::support::{Cluster, Sql, major_version};

const ROWS: i64 = 600;

/// Rows whose values do not hold what their row says.
const WRONG: &str = "SELECT count(*) FROM docs
    WHERE pgseal.decrypt(m) IS DISTINCT FROM plain OR pgseal.decrypt(t) IS DISTINCT FROM 'note ' || id
       OR pgseal.decrypt(b, context => 'docs ' || id) IS DISTINCT FROM plain";
const WRONG_IN_PARTS: &str =
    "SELECT count(*) FROM parts WHERE (pgseal.decrypt(m) ->> 'n')::int IS DISTINCT FROM id";

/// Filters, each with the index that answers it.
const ASKED: [(&str, &str); 6] = [
    (r#"SELECT string_agg(id::text, ' ' ORDER BY id) FROM docs WHERE m @> '{"name": "n7"}'"#, "docs_m_idx"),
    (
        "SELECT string_agg(id::text, ' ' ORDER BY id) FROM docs WHERE pgseal.between(m, '$.age', 20, 22)",
        "docs_m_idx",
    ),
    ("SELECT string_agg(id::text, ' ' ORDER BY id) FROM docs WHERE t = 'note 9'::text", "docs_t_idx"),
    (
        "SELECT string_agg(id::text, ' ') FROM (SELECT id FROM docs ORDER BY embedding <=> '[1, 2, 3]' LIMIT 5) d",
        "docs_embedding_idx",
    ),
    (r#"SELECT string_agg(id::text, ' ' ORDER BY id) FROM parts WHERE m @> '{"n": 30}'"#, "parts_1_m_idx"),
    (
        r#"SELECT string_agg(id::text, ' ' ORDER BY id) FROM bound WHERE m @@ pgseal.filter('{"name": "n7"}', 'k')"#,
        "bound_m_idx",
    ),
];

/// What the keyrings are and who may use them.
const KEYS: &str = "SELECT string_agg(k::text, ' ' ORDER BY k::text) FROM pgseal.keys k";
const KEYRINGS: &str = "SELECT string_agg(k::text, ' ' ORDER BY k::text) FROM pgseal.keyrings k";

/// Two keyrings, one with two versions of its data key; inline, out-of-line and bound values, tokens, vectors,
/// partitions, a policy and a role that has been granted what it needs.
fn set_up(client: &mut Client) {
    client.run(
        r#"SELECT pgseal.create_keyring('k', ARRAY['$.name', '$.n', '$', '{"path": "$.age", "range": {"min": 0, "max": 150, "step": 1}}'])"#,
    );
    client
        .run("SELECT pgseal.create_keyring('other', kms_endpoint => current_setting('pgseal.kms_endpoint'))");
    client.run(
        "CREATE TABLE docs (id int PRIMARY KEY, owner text DEFAULT 'app', embedding vector(3), plain jsonb, m encrypted_jsonb(k), t encrypted_text(k), b encrypted_jsonb(k))",
    );
    client.run("CREATE TABLE bound (id int, m encrypted_jsonb)");
    client.run(
        "CREATE TABLE parts (id int, m encrypted_jsonb(k)) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (300); CREATE TABLE parts_2 PARTITION OF parts DEFAULT",
    );
    let insert = format!(
        "INSERT INTO docs SELECT n, CASE n % 2 WHEN 0 THEN 'app' ELSE 'other' END, ARRAY[n % 17, n % 11, n % 7 + 1]::vector, doc, doc, 'note ' || n,
                pgseal.encrypt(doc, 'k', context => 'docs ' || n)
           FROM generate_series(1, {ROWS}) n, LATERAL (SELECT jsonb_build_object('name', 'n' || n % 100, 'age', n % 90,
                'long', CASE WHEN n % 10 = 0 THEN (SELECT string_agg(md5(format('%s %s', n, i)), '') FROM generate_series(1, 200) i) END) AS doc) d"
    );
    client.run(&format!("{insert} WHERE n <= 300; SELECT pgseal.rotate_key('k'); {insert} WHERE n > 300"));
    client.run("INSERT INTO bound SELECT id, m FROM docs");
    client.run(&format!(
        "INSERT INTO parts SELECT n, jsonb_build_object('n', n) FROM generate_series(1, {ROWS}) n"
    ));
    client.run("CREATE INDEX ON docs USING gin (m); CREATE INDEX ON docs USING gin (t); CREATE INDEX ON bound USING gin (m); CREATE INDEX ON parts USING gin (m)");
    client.run("CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)");
    client.run(
        "CREATE ROLE app LOGIN; GRANT SELECT ON docs TO app; ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON docs TO app USING (owner = current_user)",
    );
    client.run("SELECT pgseal.grant_keyring('k', 'app', ARRAY['search', 'decrypt'])");
    client.run("ANALYZE");
}

/// The answers through their indexes.
fn answers(client: &mut Client) -> Vec<String> {
    client.run("SET enable_seqscan = off");
    let mut answer = |(sql, index): (&str, &str)| {
        let plan = client.column::<String>(&format!("EXPLAIN {sql}")).join("\n");
        assert!(plan.contains(index), "{plan}");
        client.one::<String>(sql)
    };
    ASKED.into_iter().map(&mut answer).collect()
}

/// What a role sees that has a policy and the privileges on the keyring that it was granted.
fn seen_by_role(cluster: &Cluster) -> (i64, String) {
    let mut session = cluster.connect_as("app", "postgres");
    let count = session.one(
        r#"SELECT count(*) FROM docs WHERE m @> '{"name": "n8"}' AND pgseal.decrypt(m) ->> 'name' = 'n8'"#,
    );
    (count, session.state("SELECT pgseal.encrypt('{}'::jsonb, 'k')"))
}

fn verified(client: &mut Client) -> Vec<String> {
    let verify = |arguments: &str| {
        format!(
            "SELECT concat_ws(' ', result, number_of_values, keyring, key_version, finding) FROM pgseal.verify({arguments})"
        )
    };
    let columns =
        ["'docs', 'm'", "'docs', 't'", "'docs', 'b', '''docs '' || id'", "'bound', 'm'", "'parts', 'm'"];
    let mut rows: Vec<String> = columns.iter().flat_map(|column| client.column(&verify(column))).collect();
    rows.sort();
    rows
}

/// The pg_config of a PostgreSQL 18 beside an older one that is tested.
fn postgresql_18() -> Option<OsString> {
    if major_version() >= 18 {
        println!("not run: it is for versions before 18");
        return None;
    }
    let pg_config = std::env::var_os("PGSEAL_PG18");
    if pg_config.is_none() {
        println!("not run: PGSEAL_PG18 does not name the pg_config of a PostgreSQL 18 with pgseal");
    }
    pg_config
}

#[test]
fn pg_upgrade_takes_values_keys_indexes_and_privileges_along() {
    let Some(pg_config) = postgresql_18() else { return };
    let old = Cluster::with_pgseal(&[]);
    let mut client = old.connect("postgres");
    set_up(&mut client);
    assert_eq!(client.one::<i64>(WRONG) + client.one::<i64>(WRONG_IN_PARTS), 0);
    let before = (answers(&mut client), verified(&mut client), seen_by_role(&old));
    assert_eq!(before.0[0], "7 107 207 307 407 507");
    assert_eq!(before.2, (6, "42501".to_owned()));
    assert!(before.1.iter().all(|row| row.starts_with("authentic ")), "{:?}", before.1);
    let [keys, keyrings] = [KEYS, KEYRINGS].map(|sql| client.one::<String>(sql));
    drop(client);

    let new = old.upgraded(&pg_config);
    let mut client = new.connect("postgres");
    assert!(client.one::<i32>("SELECT current_setting('server_version_num')::int") >= 180000);
    assert_eq!([KEYS, KEYRINGS].map(|sql| client.one::<String>(sql)), [keys, keyrings]);
    assert_eq!(client.one::<i64>(WRONG) + client.one::<i64>(WRONG_IN_PARTS), 0);
    // Nothing has been analysed again.
    assert_eq!((answers(&mut client), verified(&mut client), seen_by_role(&new)), before);

    client.run("SELECT pgseal.rotate_key('k')");
    for (table, column) in [("docs", "m"), ("bound", "m"), ("parts", "m")] {
        client.run(&format!("CALL pgseal.reencrypt('{table}', '{column}', rotation => 'in_place')"));
    }
    for column in ["t", "b"] {
        client.run(&format!("CALL pgseal.reencrypt('docs', '{column}')"));
    }
    client.run("SELECT pgseal.retire_key('k', 1), pgseal.retire_key('k', 2)");
    assert_eq!(client.one::<i64>(WRONG) + client.one::<i64>(WRONG_IN_PARTS), 0);
    assert_eq!((answers(&mut client), seen_by_role(&new)), (before.0, before.2));
    let all = format!("authentic {ROWS} k 3");
    assert_eq!(verified(&mut client), [all.as_str(); 5]);
    drop(client);
    check_files(&new);
}
