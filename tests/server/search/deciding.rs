//! Tokens that decide: what they find is not opened, asks for the same privileges, and is the answer that jsonb gives.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postgres::Client;

use crate::support::{Cluster, Sql, fresh_database, own_keyring, shared};

const COUNTS: &str = "SELECT ARRAY[values_decided, values_decrypted, values_fetched] FROM pgseal.stat";

/// Values decided, decrypted and fetched whole meanwhile.
fn counted(client: &mut Client, work: impl FnOnce(&mut Client)) -> [i64; 3] {
    let before: Vec<i64> = client.one(COUNTS);
    work(client);
    let after: Vec<i64> = client.one(COUNTS);
    [0, 1, 2].map(|at| after[at] - before[at])
}

fn counted_query(client: &mut Client, sql: &str) -> ([i64; 3], i64) {
    let mut found = 0;
    let counts = counted(client, |client| found = client.one(sql));
    (counts, found)
}

const PATHS: &str = r#"{$.a, $.t, $.n, "{\"path\": \"$.c\", \"casefold\": true}", "{\"path\": \"$.s\", \"spread\": 4}", "{\"path\": \"$.b\", \"bits\": 8}"}"#;

/// A session in a new database with the keyring k, whose tokens decide as those of every new one.
fn with_tokens_that_decide(paths: &str) -> Client {
    let mut client = fresh_database();
    client.run(&format!("SELECT pgseal.create_keyring('k', '{paths}')"));
    client
}

/// 60 rows, every other stored out of line, of which 6 match each query below.
fn rows() -> Client {
    let mut client = with_tokens_that_decide(PATHS);
    client.run("SELECT pgseal.create_keyring('w', '{$}')");
    client.run("CREATE TABLE docs (id serial, sealed encrypted_jsonb(k), words encrypted_text(w))");
    client.run(
        "INSERT INTO docs (sealed, words)
         SELECT jsonb_build_object('a', 'x' || i % 10, 't', jsonb_build_array('t' || i % 10, 'all'), 'n', i % 10,
                                   'c', 'Case ' || i % 10, 's', i % 10, 'b', i % 10,
                                   'long', repeat('long ', CASE i % 2 WHEN 0 THEN 800 ELSE 0 END)), 'w' || i % 10
           FROM generate_series(1, 60) i",
    );
    client.run("CREATE INDEX ON docs USING gin (sealed); CREATE INDEX ON docs USING gin (words)");
    client.run("ANALYZE docs; SET enable_seqscan = off; SET jit = off");
    client
}

/// Conditions that tokens decide.
const DECIDED: [&str; 13] = [
    r#"sealed @> '{"a": "x7"}'"#,
    r#"sealed @> '{"a": "x7", "n": 7, "t": ["all", "t7"]}'"#,
    r#"sealed @> '{"n": 7.00}'"#,
    r#"sealed @> '{"s": 7}'"#,
    r#"sealed @@ pgseal.filter('{"t": ["t7"]}', 'k')"#,
    r#"sealed @@ pgseal.filter_any(ARRAY['{"a": "x7"}', '{"a": "nobody", "n": 1}']::jsonb[], 'k')"#,
    r#"sealed @@ pgseal.filter_casefold('{"c": "cASE 7"}', 'k')"#,
    "sealed ->> 'a' = 'x7'::text",
    "sealed #>> '{a}' = 'x7'::text",
    "sealed ->> 'a' = ANY ('{x7,nobody}'::text[])",
    "sealed ->> 'a' = ANY ('{x7,NULL}'::text[])",
    "words = 'w7'::text",
    "words = ANY ('{w7,nobody}'::text[])",
];

/// Conditions that they do not decide, though the index finds the rows.
const RECHECKED: [&str; 6] = [
    r#"sealed @> '{"b": 7}'"#,
    r#"sealed @> '{"c": "Case 7"}'"#,
    "sealed ->> 'n' = '7'::text",
    "sealed ->> 'c' = 'Case 7'::text",
    r#"sealed @> '{"a": "x7", "z": {}}' OR sealed @> '{"b": 7, "a": "x7"}'"#,
    r#"sealed @@ pgseal.filter_any(ARRAY['{"a": "x7", "n": 7}']::jsonb[], 'k')"#,
];

#[test]
fn what_tokens_decide_is_neither_decrypted_nor_fetched() {
    let mut client = rows();
    for condition in DECIDED {
        for scan in ["SET enable_seqscan = off", "SET enable_seqscan = on; SET enable_bitmapscan = off"] {
            client.run(scan);
            let (counts, found) =
                counted_query(&mut client, &format!("SELECT count(*) FROM docs WHERE {condition}"));
            assert_eq!((counts, found), ([6, 0, 0], 6), "{condition}, {scan}");
        }
        client.run("SET enable_bitmapscan = on; SET enable_seqscan = off");
    }
    for condition in RECHECKED {
        let (counts, found) =
            counted_query(&mut client, &format!("SELECT count(*) FROM docs WHERE {condition}"));
        assert_eq!((counts[0], found), (0, 6), "{condition}");
        assert!(counts[1] >= 6, "{condition}: {counts:?}");
    }
}

#[test]
fn a_parameter_is_decided_in_every_plan() {
    let mut client = rows();
    for (sql, argument) in [
        ("SELECT count(*) FROM docs WHERE sealed @> $1::text::jsonb", r#"{"a": "x7"}"#),
        ("SELECT count(*) FROM docs WHERE sealed ->> 'a' = $1::text", "x7"),
        ("SELECT count(*) FROM docs WHERE words = $1::text", "w7"),
        ("SELECT count(*) FROM docs WHERE sealed ->> 'a' = ANY (ARRAY[$1::text])", "x7"),
    ] {
        for mode in ["force_generic_plan", "force_custom_plan"] {
            client.run(&format!("SET plan_cache_mode = {mode}"));
            let statement = client.prepare(sql).unwrap();
            for _ in 0..2 {
                let counts = counted(&mut client, |client| {
                    assert_eq!(client.query_one(&statement, &[&argument]).unwrap().get::<_, i64>(0), 6);
                });
                assert_eq!(counts, [6, 0, 0], "{sql}, {mode}");
            }
        }
    }
}

/// A filter is made from each row of the other table: its rows are compared with the document itself.
#[test]
fn a_join_on_containment_is_as_exact() {
    let mut client = rows();
    client.run(
        r#"CREATE TABLE asked (q jsonb); INSERT INTO asked VALUES ('{"a": "x7"}'), ('{"a": "x8"}'), ('{}')"#,
    );
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs, asked WHERE sealed @> q"), 72);
}

#[test]
fn no_match_is_decided_by_tokens_alone() {
    let mut client = rows();
    client.run("SET enable_seqscan = on; SET enable_bitmapscan = off");
    let (counts, found) =
        counted_query(&mut client, r#"SELECT count(*) FROM docs WHERE NOT sealed @> '{"a": "x7"}'"#);
    assert_eq!((counts, found), ([6, 0, 0], 54));
    let differ = "SELECT count(*) FROM docs WHERE sealed ->> 'a' <> 'x7'::text";
    let (counts, found) = counted_query(&mut client, differ);
    assert_eq!((counts[..2].to_vec(), found), (vec![6, 54], 54));
}

#[test]
fn rows_with_tokens_of_either_kind_answer_together() {
    let mut client = fresh_database();
    let count = r#"SELECT count(*) FROM docs WHERE sealed @> '{"a": "x7"}'"#;
    let insert = "INSERT INTO docs (sealed) SELECT jsonb_build_object('a', 'x' || i % 10) FROM generate_series(1, 20) i";
    client.run("SET pgseal.tokens = narrow");
    own_keyring(&mut client, "{$.a}");
    client.run("CREATE TABLE docs (id serial, sealed encrypted_jsonb(k))");
    client.run(insert);
    assert_eq!(client.one::<String>("SELECT tokens FROM pgseal.keyrings"), "narrow");
    assert_eq!(counted_query(&mut client, count), ([0, 2, 0], 2));
    client.run("SET pgseal.tokens = decide; SELECT pgseal.rotate_index_key('k')");
    assert_eq!(client.one::<String>("SELECT tokens FROM pgseal.keyrings"), "decide");
    client.run(insert);
    client.run("CREATE INDEX ON docs USING gin (sealed)");
    for scan in ["SET enable_seqscan = off", "SET enable_seqscan = on"] {
        client.run(scan);
        assert_eq!(counted_query(&mut client, count), ([2, 2, 0], 4));
    }
    client.run("CALL pgseal.reencrypt('docs', 'sealed')");
    assert_eq!(counted_query(&mut client, count), ([4, 0, 0], 4));
    client.run("SELECT pgseal.rotate_key('k')");
    client.run("CALL pgseal.reencrypt('docs', 'sealed')");
    assert_eq!(counted_query(&mut client, count), ([4, 0, 0], 4));
    // What was chosen once stays.
    client
        .run("RESET pgseal.tokens; SELECT pgseal.rotate_index_key('k'), pgseal.set_searchable('k', '{$.a}')");
    assert_eq!(client.one::<String>("SELECT tokens FROM pgseal.keyrings"), "decide");
    client.run("SET pgseal.tokens = narrow; SELECT pgseal.rotate_index_key('k'); RESET pgseal.tokens; SELECT pgseal.rotate_index_key('k')");
    assert_eq!(client.one::<String>("SELECT tokens FROM pgseal.keyrings"), "narrow");
    client.run("CALL pgseal.reencrypt('docs', 'sealed')");
    assert_eq!(counted_query(&mut client, count), ([0, 4, 0], 4));
}

#[test]
fn a_superuser_may_have_every_row_opened() {
    let mut client = rows();
    client.run("SET pgseal.recheck = always");
    for condition in DECIDED {
        let (counts, found) =
            counted_query(&mut client, &format!("SELECT count(*) FROM docs WHERE {condition}"));
        assert_eq!((counts[0], counts[1], found), (0, 6, 6), "{condition}");
    }
    let plan = "EXPLAIN SELECT FROM docs WHERE words = 'w7'";
    assert!(client.column::<String>(plan).join("\n").contains("<filter: w, 1 group, rechecked>"));
    client.run("RESET pgseal.recheck");
    assert!(client.column::<String>(plan).join("\n").contains("<filter: w, 1 group, decided>"));
    let plan = r#"EXPLAIN SELECT FROM docs WHERE sealed @> '{"b": 7}'"#;
    assert!(client.column::<String>(plan).join("\n").contains("<filter: k, 1 group, rechecked>"));
    let role = format!("{}_reader", client.database());
    client.run(&format!("CREATE ROLE {role}; SET ROLE {role}"));
    assert_eq!(client.state("SET pgseal.recheck = auto"), "42501");
}

/// The index key makes the filter; nothing that a data key has sealed is opened.
#[test]
fn a_decided_filter_asks_the_kms_for_no_data_key() {
    let mut client = rows();
    let database = client.database();
    for (condition, keys) in [(r#"sealed @> '{"a": "x7"}'"#, 1), (r#"sealed @> '{"b": 7}'"#, 2)] {
        let mut session = shared().connect(&database);
        let keyring = "SELECT id FROM pgseal.keyring WHERE name = 'k'";
        session.one::<i32>(keyring);
        assert_eq!(session.one::<i64>(&format!("SELECT count(*) FROM docs WHERE {condition}")), 6);
        assert_eq!(
            session.one::<i64>("SELECT kms_calls + shared_key_hits FROM pgseal.stat"),
            keys,
            "{condition}"
        );
    }
}

#[test]
fn a_decided_match_asks_for_the_same_privileges() {
    let mut client = rows();
    let role = format!("{}_asks", client.database());
    client.run(&format!("CREATE ROLE {role}; GRANT SELECT ON docs TO {role}"));
    let count = r#"SELECT count(*) FROM docs WHERE sealed @> '{"a": "x7"}'"#;
    client.run(&format!("SET plan_cache_mode = force_generic_plan; PREPARE asks AS {count}; EXECUTE asks"));
    client.run(&format!("SET ROLE {role}"));
    for sql in [count, "EXECUTE asks"] {
        assert_eq!(client.state(sql), "42501", "{sql}");
    }
    client.run(&format!(
        "RESET ROLE; SELECT pgseal.grant_keyring('k', '{role}', '{{search}}'); SET ROLE {role}"
    ));
    for sql in [count, "EXECUTE asks"] {
        assert_eq!(client.one::<i64>(sql), 6, "{sql}");
    }
    client.run("RESET ROLE");
    client.run(&format!("SELECT pgseal.revoke_keyring('k', '{role}', '{{search}}'); SET ROLE {role}"));
    for sql in [count, "EXECUTE asks"] {
        assert_eq!(client.state(sql), "42501", "{sql}");
    }
}

/// The sealed bytes of a row.
fn sealed(client: &mut Client, id: i32) -> Vec<u8> {
    let text: String = client.one(&format!("SELECT pgseal.sealed_text(sealed) FROM docs WHERE id = {id}"));
    STANDARD.decode(text.strip_prefix("pgseal:").unwrap()).unwrap()
}

/// A value with these tokens of format 2 and this tag, whose ciphertext is nobody's.
fn planted(head: &[u8], tokens: &[&[u8]], tag: &[u8]) -> String {
    let mut bytes = head[..16].to_vec();
    bytes[12..14].copy_from_slice(&(tokens.len() as u16).to_be_bytes());
    bytes.extend(tokens.concat());
    bytes.extend(tag);
    bytes.extend([0; 100]);
    format!("pgseal:{}", STANDARD.encode(bytes))
}

/// The tokens of a row, and their tag.
fn parts(row: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    assert_eq!(row[0], 2);
    let end = 16 + 16 * usize::from(u16::from_be_bytes([row[12], row[13]]));
    (row[16..end].chunks(16).collect(), &row[end..end + 16])
}

#[test]
fn tokens_that_were_put_together_make_no_row_match() {
    let mut client = with_tokens_that_decide("{$.name, $.role}");
    client.run(
        r#"CREATE TABLE docs (id int, sealed encrypted_jsonb(k));
           INSERT INTO docs VALUES (1, '{"name": "root", "role": "admin"}'), (2, '{"name": "eve", "role": "user"}')"#,
    );
    client.run("CREATE INDEX ON docs USING gin (sealed)");
    let role = format!("{}_plants", client.database());
    client.run(&format!(
        "CREATE ROLE {role}; GRANT SELECT, INSERT ON docs TO {role}; SELECT pgseal.grant_keyring('k', '{role}', '{{encrypt}}')"
    ));
    let (admin, eve) = (sealed(&mut client, 1), sealed(&mut client, 2));
    let ((of_admin, admins_tag), (of_eve, eves_tag)) = (parts(&admin), parts(&eve));
    let mut all = [of_admin.clone(), of_eve.clone()].concat();
    all.sort_unstable();
    let is_admin = r#"SELECT count(*) FROM docs WHERE sealed @> '{"role": "admin"}'"#;
    let exists = r#"SELECT EXISTS (SELECT FROM docs WHERE id = 3 AND sealed @> '{"role": "admin"}')"#;
    let mut refused = 0;
    for tokens in [&all, &of_admin[..1].to_vec(), &of_admin[1..].to_vec(), &of_admin] {
        for tag in [admins_tag, eves_tag, &[0; 16]] {
            let is_copy = *tokens == of_admin && tag == admins_tag;
            let insert = format!("INSERT INTO docs VALUES (3, '{}')", planted(&eve, tokens, tag));
            client.run(&format!("SET ROLE {role}; {insert}; RESET ROLE"));
            for scan in ["SET enable_seqscan = off", "SET enable_seqscan = on"] {
                client.run(scan);
                if is_copy {
                    // What a copy of the row says too, and what `recheck` is for.
                    assert_eq!(client.one::<i64>(is_admin), 2);
                    client.run("SET pgseal.recheck = always");
                    assert_eq!(client.state(is_admin), "22000");
                    client.run("RESET pgseal.recheck");
                } else if tokens.contains(&of_admin[0]) && tokens.contains(&of_admin[1]) {
                    assert_eq!(client.state(is_admin), "22000");
                    assert_eq!(client.state(exists), "22000");
                    refused += 1;
                } else {
                    // One of the two tokens is that of the role.
                    let found = client.query_one(is_admin, &[]).map(|row| row.get::<_, i64>(0));
                    assert!(found.is_ok_and(|found| found == 1) || client.state(is_admin) == "22000");
                }
            }
            let found = "SELECT count(*) FROM pgseal.verify('docs', 'sealed') WHERE result <> 'authentic'";
            assert_eq!(client.one::<i64>(found), 1);
            client.run("DELETE FROM docs WHERE id = 3");
        }
    }
    assert_eq!(refused, 10);
}

#[test]
fn the_log_tells_of_what_was_decided() {
    let cluster = Cluster::with_pgseal(&["pgseal.log_decrypts = statement", "pgseal.tokens = decide"]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.a']), pgseal.rotate_index_key('k')");
    client.run(r#"CREATE TABLE docs (m encrypted_jsonb(k)); INSERT INTO docs SELECT '{"a": "secret"}'::jsonb FROM generate_series(1, 3)"#);
    let position = cluster.log().len();
    client.run(r#"SELECT count(*) FROM docs WHERE m @> '{"a": "secret"}'"#);
    let log = cluster.log();
    let lines: Vec<&str> =
        log[position..].lines().filter_map(|line| Some(line.split_once("pgseal: ")?.1)).collect();
    let who = r#"role "postgres", database "postgres""#;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with(&format!(r#"deciding begins: keyring "k", index key version 2, {who}"#)),
        "{lines:?}"
    );
    assert!(
        lines[1]
            .starts_with(&format!(r#"decided 3 values: keyring "k", 3 under index key version 2, {who}"#)),
        "{lines:?}"
    );
}

/// Eight bits of 200 values: most rows that the index finds are others.
#[test]
fn short_tokens_are_rechecked_and_exact() {
    let mut client = with_tokens_that_decide(r#"{"{\"path\": \"$.b\", \"bits\": 8}"}"#);
    client.run("CREATE TABLE docs (sealed encrypted_jsonb(k))");
    client.run("INSERT INTO docs SELECT jsonb_build_object('b', i) FROM generate_series(1, 2000) i");
    let mut opened = 0;
    for number in [1, 77, 500, 1999] {
        let query = format!(r#"SELECT count(*) FROM docs WHERE sealed @> '{{"b": {number}}}'"#);
        let (counts, found) = counted_query(&mut client, &query);
        assert_eq!((counts[0], found), (0, 1));
        opened += counts[1];
    }
    assert!((8..200).contains(&opened), "{opened}");
}
