//! A collation that stands beside an encrypted text holds as it does beside a plain one, or the statement is refused.

use postgres::Client;

use crate::support::{Sql, fresh_database};

/// `plain` and `sealed` texts, and others to compare them with in columns of several collations. `None` where this
/// PostgreSQL is built without ICU.
fn database() -> Option<Client> {
    let mut client = fresh_database();
    if client.batch_execute("CREATE COLLATION any_icu (provider = icu, locale = 'und')").is_err() {
        eprintln!("not run: this PostgreSQL has no ICU");
        return None;
    }
    client.run(
        "SELECT pgseal.create_keyring('k', '{$.a, $}');
         CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE COLLATION lexical (provider = icu, locale = 'und');
         CREATE DOMAIN named AS text COLLATE loose;
         CREATE TABLE t (id int, plain text, sealed encrypted_text(k), document jsonb, hidden encrypted_jsonb(k),
             other text COLLATE loose, ordered text COLLATE lexical, bytes text COLLATE \"C\", domained named, usual text);
         INSERT INTO t SELECT i, w, w, jsonb_build_object('a', w), jsonb_build_object('a', w), o, o, o, o, o
           FROM unnest('{Ann,B,a,Ä,Bob,b}'::text[], '{ANN,a,B,z,bob,b}'::text[]) WITH ORDINALITY v (w, o, i);
         CREATE INDEX ON t USING gin (sealed); CREATE INDEX ON t USING gin (hidden); SET enable_seqscan = off",
    );
    Some(client)
}

/// Written with `s` for the text; those that a plain text refuses are refused alike.
const CONDITIONS: [&str; 34] = [
    "s = 'ANN'::text COLLATE loose",
    "s <> 'ANN'::text COLLATE loose",
    "'ANN'::text COLLATE loose = s",
    "NOT s = 'ANN'::text COLLATE loose",
    "s IN ('ANN'::text COLLATE loose, 'none')",
    "s NOT IN ('ANN'::text COLLATE loose, 'none')",
    "s = ANY (ARRAY['ANN', 'none'] COLLATE loose)",
    "s <> ALL ('{ANN}'::text[] COLLATE loose)",
    "s IS DISTINCT FROM 'ANN'::text COLLATE loose",
    "CASE s WHEN 'ANN'::text COLLATE loose THEN true ELSE false END",
    "nullif(s, 'ANN'::text COLLATE loose) IS NULL",
    "s = other",
    "other <> s",
    "s IN (other, 'none')",
    "s IS NOT DISTINCT FROM other",
    "s = domained",
    "s = bytes",
    "s = ordered",
    "s = usual",
    "s < ordered",
    "s < bytes",
    "s < usual",
    "s >= ordered",
    "s > 'b' COLLATE lexical",
    "s <= 'a' COLLATE \"C\"",
    "s BETWEEN 'a' COLLATE lexical AND 'b' COLLATE lexical",
    "s BETWEEN 'a' COLLATE \"C\" AND 'b' COLLATE \"C\"",
    "s < other",
    "s LIKE 'a%' COLLATE \"C\"",
    "s ILIKE 'ä' COLLATE lexical",
    "s ILIKE 'ä' COLLATE \"C\"",
    "s LIKE other",
    "s ~* 'ä' COLLATE lexical",
    "s !~ other",
];

/// Each row's answer, or the error.
fn ask(client: &mut Client, condition: &str) -> Result<Vec<Option<bool>>, String> {
    let rows = client.query(&format!("SELECT {condition} FROM t ORDER BY id"), &[]);
    let found = client.query(&format!("SELECT id FROM t WHERE {condition} ORDER BY id"), &[]);
    let rows = rows.map_err(|error| error.as_db_error().unwrap().message().to_owned())?;
    let answers: Vec<Option<bool>> = rows.iter().map(|row| row.get(0)).collect();
    let found: Vec<i32> = found.unwrap().iter().map(|row| row.get(0)).collect();
    let expected: Vec<i32> =
        (1..).zip(&answers).filter(|(_, answer)| **answer == Some(true)).map(|(id, _)| id).collect();
    assert_eq!(found, expected, "{condition} in WHERE");
    Ok(answers)
}

#[test]
fn comparisons_honour_the_collation_of_the_other_side() {
    let Some(mut client) = database() else { return };
    for condition in CONDITIONS {
        let written = |text: &str| {
            let words: Vec<&str> =
                condition.split(' ').map(|word| if word == "s" { text } else { word }).collect();
            words.join(" ").replace("nullif(s,", &format!("nullif({text},"))
        };
        let expected = ask(&mut client, &written("plain"));
        for text in ["sealed", "(hidden ->> 'a')", "coalesce(sealed, sealed)"] {
            assert_eq!(ask(&mut client, &written(text)), expected, "{} for {text}", condition);
        }
    }
}

#[test]
fn a_join_honours_a_columns_collation() {
    let Some(mut client) = database() else { return };
    for column in ["other", "bytes", "domained"] {
        let count = |text: &str| format!("SELECT count(*) FROM t x JOIN t y ON x.{text} = y.{column}");
        assert_eq!(client.one::<i64>(&count("sealed")), client.one::<i64>(&count("plain")), "{column}");
        assert!(client.one::<i64>(&count("plain")) > 0);
    }
}

#[test]
fn collate_that_postgresql_would_drop_is_refused() {
    let Some(mut client) = database() else { return };
    for query in [
        "SELECT FROM t WHERE sealed = 'ANN' COLLATE loose",
        "SELECT FROM t WHERE hidden ->> 'a' <> ('ANN') COLLATE loose",
        "SELECT FROM t WHERE sealed IN ('x', e'ANN' collate loose)",
        "SELECT id FROM t WHERE id IN (SELECT id FROM t WHERE 'ANN' COLLATE loose = sealed)",
        "WITH w AS (SELECT 1) SELECT CASE sealed WHEN 'ANN' COLLATE loose THEN 1 END FROM t, w",
        "EXPLAIN SELECT FROM t WHERE sealed IS DISTINCT FROM $$ANN$$ COLLATE loose",
        "CREATE TABLE made AS SELECT FROM t WHERE sealed = 'ANN' COLLATE loose",
        "CREATE VIEW made AS SELECT FROM t WHERE sealed = 'ANN' COLLATE loose",
        "PREPARE made AS SELECT FROM t WHERE sealed = $1 COLLATE loose",
        "DO $$ BEGIN PERFORM FROM t WHERE sealed = 'ANN' COLLATE loose; END $$",
    ] {
        let error = client.error(query);
        assert_eq!(error.code().code(), "42P21", "{query}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("::text COLLATE")), "{query}");
    }
    client.run("SELECT 'x' COLLATE \"C\" FROM t WHERE sealed = 'ANN' ORDER BY usual COLLATE \"C\"");
}
