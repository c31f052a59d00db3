//! Row-level security: a filter still goes through the index, and nothing of hidden rows comes out.

use postgres::Client;

use crate::support::{Sql, shared, with_keyring};

const WAYS: [&str; 6] = [
    r#"sealed @> '{"a": "x"}'"#,
    r#"sealed @> $1::text::jsonb"#,
    r#"sealed @@ pgseal.filter('{"a": "x"}')"#,
    "sealed ->> 'a' = 'x'::text",
    "sealed ->> 'a' = ($1::text::jsonb ->> 'a')",
    "body = 'x'::text",
];

/// 2,000 rows of two owners; a role that sees its own. Every tenth row has x at `$.a`.
fn database() -> (Client, Client) {
    let mut client = with_keyring("{$.a, $}");
    client
        .run("CREATE TABLE docs (id serial, owner text, sealed encrypted_jsonb(k), body encrypted_text(k))");
    client.run(
        "INSERT INTO docs (owner, sealed, body)
         SELECT CASE i % 2 WHEN 0 THEN 'other' ELSE 'mine' END, jsonb_build_object('a', a), a
           FROM generate_series(1, 2000) i, LATERAL (SELECT CASE WHEN i % 200 < 2 THEN 'x' ELSE 'y' || i END) v (a)",
    );
    client
        .run("CREATE INDEX ON docs USING gin (sealed); CREATE INDEX ON docs USING gin (body); ANALYZE docs");
    let name = client.database();
    let role = format!("{name}_role");
    client.run(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON docs TO {role}"));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt', 'search', 'decrypt'])"));
    client.run("CREATE FUNCTION is_mine(text) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1 = ''mine''; END'");
    client
        .run("ALTER TABLE docs ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON docs USING (is_mine(owner))");
    let mut session = shared().connect_as(&role, &name);
    session.run("SET jit = off; SET plan_cache_mode = force_generic_plan");
    (client, session)
}

fn prepare(session: &mut Client, name: &str, condition: &str) {
    let parameter = if condition.contains("$1") { "(text)" } else { "" };
    session.run(&format!("PREPARE {name}{parameter} AS SELECT count(*) FROM docs WHERE {condition}"));
}

fn execute(name: &str, condition: &str) -> String {
    if condition.contains("$1") {
        format!(r#"EXECUTE {name} ('{{"a": "x"}}')"#)
    } else {
        format!("EXECUTE {name}")
    }
}

#[test]
fn a_filter_is_an_index_condition_and_exact_after_the_policy() {
    let (_client, mut session) = database();
    for (at, condition) in WAYS.iter().enumerate() {
        prepare(&mut session, &format!("ask_{at}"), condition);
        let ask = execute(&format!("ask_{at}"), condition);
        let plan = session.column::<String>(&format!("EXPLAIN (COSTS OFF) {ask}")).join("\n");
        assert!(plan.contains("Index Cond: (") && plan.contains("OPERATOR(pgseal.@~)"), "{plan}");
        let filter = plan.lines().find(|line| line.contains("Filter:")).unwrap();
        let (policy, exact) = (filter.find("is_mine").unwrap(), filter.find("@>#").unwrap());
        assert!(policy < exact, "{plan}");
        assert_eq!(session.one::<i64>(&ask), 10, "{condition}");
    }
}

/// The same value with its last byte changed: its tokens still match, and it does not decrypt.
const DAMAGED: &str =
    "('pgseal:' || encode(set_byte(b, length(b) - 1, get_byte(b, length(b) - 1) # 1), 'base64'))";

#[test]
fn hidden_rows_that_cannot_be_decrypted_raise_no_error() {
    let (mut client, mut session) = database();
    let damage = |row: &str, column: &str| {
        format!(
            "UPDATE docs SET {column} = replace({DAMAGED}, E'\\n', '')::encrypted_{kind} FROM (SELECT id AS i,
                    pgseal.encrypted_{kind}_send({column}) AS b FROM docs) v WHERE id = i AND {row}",
            kind = if column == "body" { "text" } else { "jsonb" }
        )
    };
    for column in ["sealed", "body"] {
        client.run(&damage("owner = 'other'", column));
    }
    for scan in [
        "SET enable_bitmapscan = on; SET enable_seqscan = off",
        "SET enable_bitmapscan = off; SET enable_seqscan = on",
    ] {
        session.run(scan);
        for condition in WAYS.iter().filter(|condition| !condition.contains('$')) {
            for (asked, expected) in [((*condition).to_owned(), 10), (format!("NOT ({condition})"), 990)] {
                let count = format!("SELECT count(*) FROM docs WHERE {asked}");
                assert_eq!(session.one::<i64>(&count), expected, "{scan}: {asked}");
            }
        }
    }
    // One of the rows that the role does see is no silent loss.
    client.run(&damage("id = 1", "sealed"));
    let read = r#"SELECT count(pgseal.decrypt(sealed)) FROM docs WHERE sealed @> '{"a": "x"}'"#;
    assert_eq!(session.state(read), "22000");
}

#[test]
fn an_estimate_tells_nothing_of_rows_that_a_policy_hides() {
    let (mut client, mut session) = database();
    let estimate = |client: &mut Client, table: &str, value: &str| {
        let plan = client.column::<String>(&format!(
            r#"EXPLAIN SELECT FROM {table} WHERE sealed OPERATOR(pgseal.@~) pgseal.filter('{{"a": "{value}"}}', 'k')"#
        ));
        let rows =
            plan.iter().filter_map(|line| line.split_once("rows=")?.1.split(' ').next()?.parse::<i64>().ok());
        rows.collect::<Vec<i64>>()
    };
    client.run("CREATE VIEW guarded WITH (security_barrier) AS SELECT * FROM docs; GRANT SELECT ON guarded TO PUBLIC");
    client.run("CREATE TABLE parted (LIKE docs) PARTITION BY LIST (owner); CREATE TABLE part PARTITION OF parted DEFAULT");
    client
        .run("INSERT INTO parted SELECT * FROM docs; ANALYZE parted; GRANT SELECT ON parted, part TO PUBLIC");
    for table in ["parted", "part"] {
        client.run(&format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON {table} USING (is_mine(owner))"));
    }
    for table in ["docs", "parted", "part"] {
        assert_eq!(estimate(&mut session, table, "x"), estimate(&mut session, table, "nobody"), "{table}");
        // Who sees every row has the statistics.
        assert_ne!(estimate(&mut client, table, "x"), estimate(&mut client, table, "nobody"), "{table}");
    }
    assert_eq!(session.one::<i64>("SELECT count(*) FROM pg_stats WHERE tablename = 'docs'"), 0);
    client.run("ALTER TABLE docs DISABLE ROW LEVEL SECURITY");
    assert_ne!(estimate(&mut session, "docs", "x"), estimate(&mut session, "docs", "nobody"));
}

#[test]
fn a_superuser_chooses_the_index_or_the_counters_of_explain() {
    let (mut client, mut session) = database();
    let plan = |session: &mut Client| {
        session.column::<String>(&format!("EXPLAIN SELECT FROM docs WHERE {}", WAYS[0])).join("\n")
    };
    assert_eq!(session.state("SELECT pgseal.use_leakproof(false)"), "42501");
    assert!(plan(&mut session).contains("Index Cond"));
    assert_eq!(client.one::<i32>("SELECT pgseal.use_leakproof(false)"), 2);
    assert_eq!(client.one::<i32>("SELECT pgseal.use_leakproof(false)"), 0);
    assert!(!plan(&mut session).contains("Index Cond"));
    assert_eq!(session.one::<i64>(&format!("SELECT count(*) FROM docs WHERE {}", WAYS[0])), 10);
    client.run("SELECT pgseal.use_leakproof(true)");
    assert!(plan(&mut session).contains("Index Cond"));
}
