//! Row-level security: a filter still goes through the index, and nothing of hidden rows comes out.

use postgres::Client;

use crate::support::{Sql, fresh_database, shared};

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
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.a', '$'])");
    client
        .run("CREATE TABLE docs (id serial, owner text, sealed encrypted_jsonb(k), body encrypted_text(k))");
    client.run(
        "INSERT INTO docs (owner, sealed, body)
         SELECT CASE i % 2 WHEN 0 THEN 'other' ELSE 'mine' END, jsonb_build_object('a', a), a
           FROM generate_series(1, 2000) i, LATERAL (SELECT CASE WHEN i % 200 < 2 THEN 'x' ELSE 'y' || i END) v (a)",
    );
    client
        .run("CREATE INDEX ON docs USING gin (sealed); CREATE INDEX ON docs USING gin (body); ANALYZE docs");
    let name: String = client.one("SELECT current_database()::text");
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
    match condition.contains("$1") {
        true => format!(r#"EXECUTE {name} ('{{"a": "x"}}')"#),
        false => format!("EXECUTE {name}"),
    }
}

#[test]
fn a_filter_is_an_index_condition_and_the_exact_half_runs_after_the_policy() {
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
    assert_eq!(session.state(r#"SELECT count(*) FROM docs WHERE sealed @> '{"a": "x"}'"#), "22000");
}
