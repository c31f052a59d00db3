//! Literals are sealed before anybody knows where they go: alike within a statement, so that PostgreSQL sees the same
//! expression, and never alike where they are stored.

use postgres::{Client, SimpleQueryMessage};

use crate::support::{AsText, Sql, fresh_database};

fn database() -> Client {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('a', ARRAY['$.n', '{\"path\": \"$.s\", \"spread\": 8}', '$'])");
    client.run("SELECT pgseal.create_keyring('b', '{$.n}')");
    client
}

#[test]
fn an_expression_with_a_document_literal_groups_as_with_jsonb() {
    let mut client = database();
    client.run("CREATE TABLE docs (id serial, plain jsonb, sealed encrypted_jsonb(a))");
    client.run(r#"INSERT INTO docs (plain, sealed) SELECT j, j FROM (SELECT jsonb_build_object('n', i % 3, 's', 'x') j FROM generate_series(1, 12) i) d"#);
    for shape in [
        r#"SELECT (m || '{"z": 1}') ? 'z', count(*) FROM d GROUP BY (m || '{"z": 1}') ? 'z'"#,
        r#"SELECT DISTINCT ON ((m || '{"s": "y"}') ? 's') (m || '{"s": "y"}') ? 's', 1 FROM d ORDER BY (m || '{"s": "y"}') ? 's'"#,
        r#"SELECT (m || '{"z": 1}' || '[2]') ?| '{z}', count(*) FROM d GROUP BY ROLLUP ((m || '{"z": 1}' || '[2]') ?| '{z}') ORDER BY 1, 2"#,
        r#"SELECT (m || '{"n": 9}') @> '{"n": 9}', count(*) FROM d GROUP BY (m || '{"n": 9}') @> '{"n": 9}' HAVING (m || '{"n": 9}') @> '{"n": 9}'"#,
        r#"SELECT coalesce(m, '{"z": 1}') ? 'z', count(*) FROM d GROUP BY coalesce(m, '{"z": 1}') ? 'z'"#,
        r#"SELECT DISTINCT (m || '{"z": 1}') ? 'z', 2 FROM d ORDER BY (m || '{"z": 1}') ? 'z'"#,
    ] {
        let ask =
            |column: &str| shape.replace("FROM d ", &format!("FROM (SELECT id, {column} AS m FROM docs) d "));
        let mut answer = |asked: &str| {
            values(&client.simple_query(asked).unwrap_or_else(|error| panic!("{asked}: {error:?}")))
        };
        let expected = answer(&ask("plain"));
        assert!(!expected.is_empty());
        let (asked, quoted) = (ask("sealed"), ask("sealed").replace('\'', "''"));
        assert_eq!(answer(&asked), expected, "{shape}");
        assert_eq!(
            answer(&format!("PREPARE asked AS {asked}; EXECUTE asked; DEALLOCATE asked")),
            expected,
            "{shape}"
        );
        assert_eq!(
            answer(&format!("CREATE TEMP VIEW seen (a, b) AS {asked}; SELECT * FROM seen; DROP VIEW seen")),
            expected,
            "{shape}"
        );
        answer(&format!("DO $$ BEGIN EXECUTE '{quoted}'; PERFORM FROM ({asked}) AS x (a, b); END $$"));
    }
}

fn values(messages: &[SimpleQueryMessage]) -> Vec<String> {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect::<Vec<_>>().join("|"))
        .collect()
}

/// Every stored value is final, authentic and like no other.
fn assert_all_differ(client: &mut Client, table: &str, situation: &str) {
    for column in ["m", "t"] {
        let all = format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL");
        let mut stored = values(&client.simple_query(&all).unwrap());
        let count = stored.len();
        stored.sort_unstable();
        stored.dedup();
        assert_eq!(stored.len(), count, "{situation}: equal values in {column}");
        for fault in ["in_transit", "index_key_version = 0"] {
            let faulty =
                format!("SELECT count(*) FROM pgseal.column_keys('{table}', '{column}') WHERE {fault}");
            assert_eq!(client.one::<i64>(&faulty), 0, "{situation}: {fault}");
        }
    }
}

#[test]
fn equal_literals_are_not_equal_at_rest() {
    let mut client = database();
    client.run(
        "CREATE DOMAIN dm AS encrypted_jsonb; CREATE DOMAIN dt AS encrypted_text;
         CREATE TABLE loose (id serial PRIMARY KEY, m encrypted_jsonb, t encrypted_text);
         CREATE TABLE defaults (id serial PRIMARY KEY, m encrypted_jsonb DEFAULT '{\"n\": 1}', t encrypted_text DEFAULT 'v');
         CREATE TABLE domains (id serial PRIMARY KEY, m dm, t dt);
         CREATE TABLE parts (id serial, m encrypted_jsonb, t encrypted_text) PARTITION BY HASH (id);
         CREATE TABLE part PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE VIEW seen AS SELECT * FROM loose;
         CREATE TABLE ruled (m int, t int); CREATE RULE r AS ON INSERT TO ruled DO INSTEAD INSERT INTO loose (m, t) VALUES ('{\"n\": 1}', 'v')",
    );
    let document = "'{\"n\": 1, \"s\": \"x\"}'";
    for (table, statement) in [
        ("loose", format!("INSERT INTO loose (m, t) VALUES ({document}, 'v'), ({document}, 'v')")),
        ("loose", format!("INSERT INTO loose (m, t) SELECT {document}, 'v' FROM generate_series(1, 3)")),
        (
            "loose",
            format!(
                "INSERT INTO loose (m, t) SELECT * FROM (VALUES ({document}::encrypted_jsonb, 'v'::encrypted_text), ({document}, 'v')) x"
            ),
        ),
        ("loose", format!("UPDATE loose SET m = {document}, t = 'v'")),
        ("loose", format!("UPDATE loose SET (m, t) = ({document}, 'v') WHERE id > 1")),
        (
            "loose",
            format!(
                "INSERT INTO loose (id, m, t) SELECT id, {document}, 'v' FROM loose ON CONFLICT (id) DO UPDATE SET m = {document}, t = 'v'"
            ),
        ),
        (
            "loose",
            format!(
                "MERGE INTO loose USING generate_series(1, 90) i ON i = id WHEN MATCHED THEN UPDATE SET m = {document}, t = 'v' WHEN NOT MATCHED THEN INSERT (id, m, t) VALUES (i, {document}, 'v')"
            ),
        ),
        (
            "loose",
            format!(
                "WITH w AS (INSERT INTO loose (id, m, t) VALUES (1000, {document}, 'v'), (1001, {document}, 'v') RETURNING id) SELECT * FROM w"
            ),
        ),
        (
            "loose",
            format!("INSERT INTO seen (id, m, t) VALUES (2000, {document}, 'v'), (2001, {document}, 'v')"),
        ),
        (
            "loose",
            "ALTER SEQUENCE loose_id_seq RESTART 3000; INSERT INTO ruled SELECT FROM generate_series(1, 3)"
                .into(),
        ),
        (
            "loose",
            format!(
                "DO $$ BEGIN FOR i IN 1..3 LOOP INSERT INTO loose (m, t) VALUES ({document}, 'v'); END LOOP; END $$"
            ),
        ),
        (
            "loose",
            format!(
                "PREPARE p AS INSERT INTO loose (m, t) VALUES ({document}, 'v'); EXECUTE p; EXECUTE p; EXECUTE p"
            ),
        ),
        ("defaults", "INSERT INTO defaults SELECT FROM generate_series(1, 3)".into()),
        (
            "defaults",
            "INSERT INTO defaults VALUES (DEFAULT, DEFAULT, DEFAULT), (DEFAULT, DEFAULT, DEFAULT)".into(),
        ),
        ("defaults", "UPDATE defaults SET m = DEFAULT, t = DEFAULT".into()),
        ("domains", format!("INSERT INTO domains (m, t) VALUES ({document}, 'v'), ({document}, 'v')")),
        ("parts", format!("INSERT INTO parts (m, t) VALUES ({document}, 'v'), ({document}, 'v')")),
    ] {
        client.run(&statement);
        let table = if table == "parts" { "part" } else { table };
        assert_all_differ(&mut client, table, &statement);
        let right = format!(
            "SELECT bool_and(m @> '{{\"n\": 1}}' AND pgseal.decrypt(m) ->> 'n' = '1' AND t::text = 'v') FROM {table}"
        );
        assert!(client.one::<bool>(&right), "{statement}");
    }
}

#[test]
fn parameters_and_copy_are_sealed_one_by_one() {
    let mut client = database();
    client.run("CREATE TABLE loose (id serial PRIMARY KEY, m encrypted_jsonb, t encrypted_text)");
    for _ in 0..3 {
        let row: [&(dyn postgres::types::ToSql + Sync); 2] = [&AsText("{\"n\": 1}"), &AsText("v")];
        client.execute("INSERT INTO loose (m, t) VALUES ($1, $2), ($1, $2)", &row).unwrap();
    }
    let mut copy = client.copy_in("COPY loose (m, t) FROM stdin").unwrap();
    std::io::Write::write_all(&mut copy, "{\"n\": 1}\tv\n".repeat(4).as_bytes()).unwrap();
    copy.finish().unwrap();
    assert_all_differ(&mut client, "loose", "parameters and COPY");
    assert!(
        client.one::<bool>("SELECT bool_and(m @> '{\"n\": 1}' AND t = 'v') AND count(*) = 10 FROM loose")
    );
}

#[test]
fn values_in_transit_that_a_dump_brings_back_need_no_key() {
    let mut client = database();
    client.run("CREATE TABLE loose (m encrypted_jsonb, t encrypted_text)");
    let literals = client.simple_query("SELECT '{\"n\": 1}'::encrypted_jsonb, 'v'::encrypted_text").unwrap();
    let sealed = values(&literals).join("");
    let (m, t) = sealed.split_once('|').unwrap();
    let insert = format!("INSERT INTO loose VALUES ('{m}', '{t}')");
    client.run("BEGIN; DELETE FROM pgseal.privilege; DELETE FROM pgseal.data_key; DELETE FROM pgseal.index_key; DELETE FROM pgseal.keyring");
    client.run(&insert);
    assert_eq!(
        values(&client.simple_query("SELECT m, t FROM loose").unwrap()),
        std::slice::from_ref(&sealed)
    );
    client.run("ROLLBACK");
    client.run(&insert);
    assert_all_differ(&mut client, "loose", "restored beside its keys");
}

#[test]
fn a_role_that_may_only_search_still_compares_literals() {
    let mut client = database();
    client.run("CREATE TABLE notes (t encrypted_text(a)); INSERT INTO notes VALUES ('v'), ('w'); SET pgseal.keyring = 'a'");
    client.run("DO $$ BEGIN CREATE ROLE literal_searcher; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
    client.run("GRANT SELECT ON notes TO literal_searcher; SELECT pgseal.grant_keyring('a', 'literal_searcher', '{search}'); SET ROLE literal_searcher");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM notes WHERE t = 'v'"), 1);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM notes WHERE t IN ('v', 'x')"), 1);
    let rows = client.query("SELECT FROM notes WHERE t = $1", &[&AsText("v")]).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(client.state("SELECT '{}'::encrypted_jsonb"), "42501");
    client.run("RESET ROLE; DROP OWNED BY literal_searcher");
}
