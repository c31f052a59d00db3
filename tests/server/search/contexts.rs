//! Which keyring answers is decided by the statement and not by its plan: the same condition, asked in every place
//! that a query has, gives the same rows.

use postgres::Client;

use crate::support::{Cluster, Sql, fresh_database, shared};

/// Written with `m` for the document and `x` for the text.
const CONDITIONS: [&str; 40] = [
    r#"m @> '{"k": 1}'"#,
    "m @> jsonb_build_object('k', id % 2)",
    r#"m @> ANY (ARRAY['{"k": 1}', '{"k": 2}']::jsonb[])"#,
    "m ->> 'k' = '1'",
    "'1'::text = m #>> '{k}'",
    "m ->> 'k' <> '1'",
    "m ->> 'k' IN ('1', '9')",
    "m ->> 'k' NOT IN ('1', '9')",
    "m ->> 'k' = ANY (ARRAY['1', '9']::text[])",
    "m ->> 'k' <> ALL ('{1,9}'::text[])",
    "m ->> 'k' IS DISTINCT FROM '1'",
    "m ->> 'k' IS NOT DISTINCT FROM '1'::text",
    "m ->> 'k' LIKE '1%'",
    "m -> 'o' @> '{\"p\": 0}'",
    "m -> 'o' ->> 'p' IN ('0', '7')",
    "m -> 'o' ? CASE WHEN id % 3 = 0 THEN 'p' ELSE 'q' END",
    "m ?| ARRAY['zz', CASE WHEN id > 5 THEN 'o' END]",
    "CASE m ->> 'k' WHEN '1' THEN true WHEN '0' THEN false WHEN '2'::text THEN false END",
    "CASE WHEN id % 2 = 0 THEN m ->> 'k' ELSE m #>> '{o,p}' END = '1'",
    "coalesce(m ->> 'none', m ->> 'k') = '1'",
    "(CASE WHEN id > 0 THEN m END) @> '{\"k\": 1}'",
    "x = 'w1'",
    "x = 'w1'::text",
    "x <> 'w1'",
    "NOT x = 'w1'",
    "x IN ('w1', 'w2')",
    "x = ANY ('{w1,w2}'::text[])",
    "x NOT IN ('w1', 'w2')",
    "x IS DISTINCT FROM 'w1'",
    "NOT x IS DISTINCT FROM 'w1'::text",
    "CASE x WHEN 'w0' THEN false WHEN 'w1' THEN true WHEN 'w2' THEN false WHEN 'w3'::text THEN true END",
    "coalesce(x, '-') = 'w1'",
    "coalesce(nullif(x, 'w2'), x) IN ('w1', 'w2')",
    "(CASE WHEN id > 6 THEN x ELSE nullif(x, 'none') END) <> 'w2'",
    "x LIKE 'w%1'",
    "x NOT ILIKE 'W2'",
    "x ~ '[13]$'",
    "x BETWEEN 'w1' AND 'w2'",
    "x = (SELECT 'w1'::text)",
    "x IN (SELECT 'w1'::encrypted_text UNION ALL SELECT 'w3')",
];

/// Where `m` and `x` come from, written with `{m}` and `{x}` for the columns and `{v}` for which they are.
const SOURCES: [&str; 17] = [
    "(SELECT id, {m} AS m, {x} AS x FROM t) q",
    "(SELECT id, {m} AS m, {x} AS x FROM t OFFSET 0) q",
    "(SELECT * FROM (SELECT id, {m} AS m, {x} AS x FROM t OFFSET 0) q LIMIT ALL OFFSET 0) q",
    "(WITH w AS MATERIALIZED (SELECT id, {m} AS m, {x} AS x FROM t) SELECT * FROM w) q",
    "(WITH w AS NOT MATERIALIZED (SELECT id, {m} AS m, {x} AS x FROM t) SELECT * FROM w) q",
    "(WITH RECURSIVE w AS (SELECT id, {m} AS m, {x} AS x FROM t UNION ALL SELECT id, m, x FROM w WHERE false) SELECT * FROM w) q",
    "(SELECT id, {m} AS m, {x} AS x FROM t WHERE id <= 6 UNION ALL SELECT id, {m}, {x} FROM t WHERE id > 6) q",
    "(SELECT id, {m} AS m, {x} AS x FROM low UNION ALL SELECT id, {m}, {x} FROM high) q",
    "(SELECT id, {m} AS m, {x} AS x FROM low UNION ALL SELECT id, {m}, {x} FROM high OFFSET 0) q",
    "(SELECT id, {m} AS m, {x} AS x, row_number() OVER (ORDER BY id) FROM t) q",
    "(SELECT DISTINCT ON (id) id, {m} AS m, {x} AS x FROM t ORDER BY id) q",
    "(SELECT t.id, u.{m} AS m, u.{x} AS x FROM t LEFT JOIN t u USING (id)) q",
    "(SELECT t.id, l.* FROM t, LATERAL (SELECT t.{m} AS m, t.{x} AS x OFFSET 0) l) q",
    "(SELECT t.id, (SELECT u.{m} FROM t u WHERE u.id = t.id) AS m, (SELECT u.{x} FROM t u WHERE u.id = t.id LIMIT 1) AS x FROM t) q",
    "seen_{v} q",
    "barred_{v} q",
    "parted_{v} q",
];

const SETTINGS: [&str; 3] = ["RESET pgseal.keyring", "SET pgseal.keyring = a", "SET pgseal.keyring = b"];

/// One set of rows three times: plain, in columns of keyring a, and in columns without keyring: odd rows of b, even of a.
const COLUMNS: [(&str, &str, &str); 3] =
    [("plain", "plain", "words"), ("bound", "bound", "body"), ("loose", "loose", "note")];

fn database() -> Client {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('a', '{$.k, $}'), pgseal.create_keyring('b', '{$.k, $}');
         CREATE TABLE t (id int PRIMARY KEY, plain jsonb, words text, bound encrypted_jsonb(a), body encrypted_text(a),
             loose encrypted_jsonb, note encrypted_text);
         CREATE INDEX ON t USING gin (bound); CREATE INDEX ON t USING gin (loose);
         CREATE INDEX ON t USING gin (body); CREATE INDEX ON t USING gin (note); SET jit = off",
    );
    for (keyring, odd) in [("a", 0), ("b", 1)] {
        // Literals stay in transit in a column without keyring.
        let rows = (1..=12).filter(|id| id % 2 == odd).map(|id| {
            let document = format!(r#"{{"k": {}, "o": {{"p": {}}}}}"#, id % 3, id % 2);
            let word = format!("w{}", id % 4);
            format!("({id}, '{document}', '{word}', '{document}', '{word}', '{document}', '{word}')")
        });
        let rows: Vec<String> = rows.collect();
        client.run(&format!("SET pgseal.keyring = {keyring}; INSERT INTO t VALUES {}", rows.join(", ")));
    }
    client.run(
        "RESET pgseal.keyring; CREATE TABLE low AS SELECT * FROM t WHERE id <= 6; CREATE TABLE high AS SELECT * FROM t WHERE id > 6",
    );
    for (name, document, text) in COLUMNS {
        client.run(&format!(
            "CREATE VIEW seen_{name} AS SELECT id, {document} AS m, {text} AS x FROM t;
             CREATE VIEW barred_{name} WITH (security_barrier) AS SELECT id, {document} AS m, {text} AS x FROM t WHERE id > 0;
             CREATE TABLE parted_{name} (LIKE seen_{name}) PARTITION BY RANGE (id);
             CREATE TABLE parted_{name}_1 PARTITION OF parted_{name} FOR VALUES FROM (0) TO (7);
             CREATE TABLE parted_{name}_2 PARTITION OF parted_{name} FOR VALUES FROM (7) TO (99);
             INSERT INTO parted_{name} SELECT * FROM seen_{name}"
        ));
    }
    client
}

/// A condition as it is written for one of [`COLUMNS`], and where its column comes from.
fn written(condition: &str, (name, document, text): (&str, &str, &str)) -> String {
    // A plain text is no type that the literal of a SELECT could have.
    let condition =
        if name == "plain" { condition.replace("encrypted_text", "text") } else { condition.into() };
    condition.replace("{m}", document).replace("{x}", text).replace("{v}", name)
}

/// What each row answers to every condition.
fn answers(client: &mut Client, source: &str, column: (&str, &str, &str)) -> Vec<String> {
    let each = CONDITIONS.map(|condition| {
        let condition = written(condition, column);
        format!("string_agg(concat(id, coalesce(({condition})::text, 'null')), ' ' ORDER BY id)")
    });
    client.one(&format!("SELECT ARRAY[{}] FROM {}", each.join(", "), written(source, column)))
}

/// Which rows WHERE lets through.
fn rows(client: &mut Client, condition: &str, source: &str, column: (&str, &str, &str)) -> String {
    let (condition, source) = (written(condition, column), written(source, column));
    client.one(&format!(
        "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM {source} WHERE {condition}"
    ))
}

/// The answers of plain columns, where rows of a keyring that the session has not chosen say nothing.
fn hidden(plain: &str, column: &str, setting: &str) -> String {
    let chosen = |id: &str| match setting.rsplit(' ').next() {
        Some("a") => id.parse::<u32>().unwrap() % 2 == 0,
        Some("b") => id.parse::<u32>().unwrap() % 2 == 1,
        _ => true,
    };
    let entries = plain.split(' ').map(|entry| {
        let id = entry.trim_end_matches(char::is_alphabetic);
        if column == "loose" && !chosen(id) { format!("{id}null") } else { entry.to_owned() }
    });
    entries.collect::<Vec<_>>().join(" ")
}

/// The rows that answer true.
fn true_ones(answers: &str) -> String {
    let found: Vec<&str> = answers.split(' ').filter_map(|entry| entry.strip_suffix("true")).collect();
    found.join(" ")
}

/// What plain columns answer; every condition tells rows apart and none is NULL.
fn expected(client: &mut Client) -> Vec<String> {
    let plain = answers(client, SOURCES[0], COLUMNS[0]);
    for (condition, answer) in CONDITIONS.iter().zip(&plain) {
        assert!(
            answer.contains("true") && answer.contains("false") && !answer.contains("null"),
            "{condition}: {answer}"
        );
    }
    plain
}

#[test]
fn a_condition_answers_alike_wherever_its_column_comes_from() {
    let mut client = database();
    let plain = expected(&mut client);
    for source in SOURCES {
        for column in [COLUMNS[1], COLUMNS[2]] {
            for setting in SETTINGS {
                client.run(setting);
                let found = answers(&mut client, source, column);
                for ((condition, plain), found) in CONDITIONS.iter().zip(&plain).zip(found) {
                    assert_eq!(
                        found,
                        hidden(plain, column.0, setting),
                        "{setting}: {condition} FROM {source}, {}",
                        column.0
                    );
                }
            }
        }
    }
}

#[test]
fn where_lets_the_same_rows_through_in_every_plan() {
    let mut client = database();
    let plain = expected(&mut client);
    let switches = [
        "SET enable_seqscan = on; SET enable_bitmapscan = off",
        "SET enable_seqscan = off; SET enable_bitmapscan = on",
    ];
    for (at, (condition, plain)) in CONDITIONS.iter().zip(&plain).enumerate() {
        for column in [COLUMNS[1], COLUMNS[2]] {
            for setting in SETTINGS {
                for switch in switches {
                    client.run(&format!("{setting}; {switch}"));
                    let source = [SOURCES[0], SOURCES[7], SOURCES[1 + at % 16]][at % 3];
                    let found = rows(&mut client, condition, source, column);
                    let expected = true_ones(&hidden(plain, column.0, setting));
                    assert_eq!(
                        found, expected,
                        "{setting}; {switch}: {condition} FROM {source}, {}",
                        column.0
                    );
                }
            }
        }
    }
}

#[test]
fn functions_and_prepared_statements_answer_alike() {
    let mut client = database();
    let plain = expected(&mut client);
    for (at, (condition, plain)) in CONDITIONS.iter().zip(&plain).enumerate() {
        for column in [COLUMNS[1], COLUMNS[2]] {
            let condition = written(condition, column);
            let query = format!("SELECT id FROM {} WHERE {condition}", written(SOURCES[at % 2], column));
            client.run(&format!(
                "CREATE OR REPLACE FUNCTION asked() RETURNS SETOF int LANGUAGE plpgsql STABLE AS $f$ BEGIN RETURN QUERY {query}; END $f$;
                 CREATE OR REPLACE FUNCTION asked_sql() RETURNS SETOF int LANGUAGE sql STABLE AS $f$ {query} $f$;
                 CREATE OR REPLACE FUNCTION asked_alone() RETURNS SETOF int LANGUAGE sql VOLATILE AS $f$ {query} $f$;
                 DEALLOCATE ALL; PREPARE asked AS {query}"
            ));
            for setting in SETTINGS {
                client.run(setting);
                let expected = true_ones(&hidden(plain, column.0, setting));
                for function in ["asked", "asked_sql", "asked_alone"] {
                    let all = format!(
                        "SELECT coalesce(string_agg(q::text, ' ' ORDER BY q), '') FROM {function}() q"
                    );
                    assert_eq!(client.one::<String>(&all), expected, "{setting}: {function}: {query}");
                }
                for mode in ["force_generic_plan", "force_custom_plan"] {
                    client.run(&format!("SET plan_cache_mode = {mode}"));
                    let mut found: Vec<i32> = client.column("EXECUTE asked");
                    found.sort();
                    let found: Vec<String> = found.iter().map(i32::to_string).collect();
                    assert_eq!(found.join(" "), expected, "{setting}; {mode}: {query}");
                }
            }
        }
    }
}

/// Conditions on variables `m` and `x` of a row, in PL/pgSQL, with an unplanned CHECK and in a trigger.
#[test]
fn each_value_of_a_variable_answers_by_its_own_keyring() {
    let mut client = database();
    let plain = expected(&mut client);
    for column in [COLUMNS[1], COLUMNS[2]] {
        for setting in SETTINGS {
            client.run(setting);
            for (condition, plain) in CONDITIONS.iter().zip(&plain) {
                let condition = written(condition, column).replace("(SELECT id", "(SELECT r.id");
                client.run(&format!(
                    "CREATE OR REPLACE FUNCTION looped() RETURNS text LANGUAGE plpgsql AS $f$
                     #variable_conflict use_variable
                     DECLARE id int; m encrypted_jsonb; x encrypted_text; found text[];
                     BEGIN
                         FOR id, m, x IN SELECT * FROM seen_{} ORDER BY 1 LOOP
                             IF ({condition}) THEN found := found || id::text; END IF;
                         END LOOP;
                         RETURN array_to_string(found, ' ');
                     END $f$",
                    column.0
                ));
                assert_eq!(
                    client.one::<String>("SELECT looped()"),
                    true_ones(plain),
                    "{setting}: {condition}, {}",
                    column.0
                );
            }
        }
    }
}

#[test]
fn what_is_computed_answers_by_its_own_keyring() {
    let mut client = database();
    client.run(
        "CREATE FUNCTION given(encrypted_text) RETURNS encrypted_text LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
         CREATE TYPE pair AS (m encrypted_jsonb, x encrypted_text); CREATE FUNCTION rows_of() RETURNS SETOF t LANGUAGE plpgsql AS
             'BEGIN RETURN QUERY SELECT * FROM t; END'",
    );
    let sources = [
        "SELECT unnest(array_agg({x})) AS x FROM t",
        "SELECT (array_agg({x} ORDER BY id))[n] AS x FROM t, generate_series(1, 12) n GROUP BY n",
        "SELECT given({x}) AS x FROM t",
        "SELECT lag({x}, 0) OVER () AS x FROM t",
        "SELECT {x} AS x FROM rows_of()",
        "SELECT (p).x FROM (SELECT ROW({m}, {x})::pair AS p FROM t OFFSET 0) q",
        "SELECT {x} AS x FROM t WHERE id <= 6 UNION ALL SELECT other.x FROM (SELECT {other} AS x FROM t WHERE id > 6) other",
    ];
    for (name, document, text) in [COLUMNS[1], COLUMNS[2]] {
        // A column with and one without keyring together are computed.
        let other = if name == "bound" { "note" } else { "body" };
        for source in sources {
            let source = source.replace("{m}", document).replace("{x}", text).replace("{other}", other);
            for condition in [
                "x = 'w1'",
                "x IN ('w1', 'none')",
                "x IS NOT DISTINCT FROM 'w1'",
                "NOT x <> 'w1'",
                "x LIKE 'w1'",
            ] {
                for offset in ["", "OFFSET 0"] {
                    for setting in SETTINGS {
                        client.run(setting);
                        let query = format!("SELECT count(*) FROM ({source} {offset}) q WHERE {condition}");
                        assert_eq!(client.one::<i64>(&query), 3, "{setting}: {query}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_constraint_answers_by_the_keyring_of_each_value() {
    let mut client = database();
    client.run(
        "CREATE DOMAIN sound AS encrypted_text CHECK (VALUE IS DISTINCT FROM 'bad');
         CREATE TABLE checked (x encrypted_text(a) CHECK (x IS DISTINCT FROM 'bad') CHECK (x NOT IN ('worse', 'bad')),
             y sound, z encrypted_text CHECK (CASE z WHEN 'bad' THEN false ELSE true END));
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation; END $$;
         CREATE TRIGGER worst BEFORE INSERT ON checked FOR EACH ROW WHEN (NEW.x IS NOT DISTINCT FROM 'worst') EXECUTE FUNCTION refuse()",
    );
    for setting in SETTINGS {
        client.run(setting);
        for bad in [
            "x) VALUES ('bad'",
            "x) VALUES ('worse'",
            "x) VALUES ('worst'",
            "y) VALUES ('bad'",
            "z) VALUES ('bad'",
        ] {
            assert_eq!(client.state(&format!("INSERT INTO checked ({bad})")), "23514", "{setting}: {bad}");
        }
        for keyring in ["a", "b"] {
            let value = format!("INSERT INTO checked (z) VALUES (pgseal.encrypt('bad'::text, '{keyring}'))");
            assert_eq!(client.state(&value), "23514", "{setting}: {value}");
        }
        client.run("INSERT INTO checked VALUES ('good', 'good', 'good')");
    }
}

#[test]
fn a_role_with_one_keyring_meets_no_row_of_the_others() {
    let mut client = database();
    let plain = expected(&mut client);
    let name = client.database();
    let role = format!("{name}_tenant");
    client.run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
         SELECT pgseal.grant_keyring('a', '{role}', '{{encrypt,search,decrypt}}')"
    ));
    let mut tenant = shared().connect_as(&role, &name);
    tenant.run("SET pgseal.keyring = a; SET jit = off");
    for (condition, plain) in CONDITIONS.iter().zip(&plain) {
        // What COALESCE and NULLIF look into is looked into before it is chosen.
        if condition.starts_with("coalesce(m") || condition.contains("nullif(") {
            assert_eq!(tenant.state(&format!("SELECT id FROM seen_loose q WHERE {condition}")), "42501");
            continue;
        }
        for source in [SOURCES[0], SOURCES[6], SOURCES[14]] {
            let found = rows(&mut tenant, condition, source, COLUMNS[2]);
            assert_eq!(found, true_ones(&hidden(plain, "loose", SETTINGS[1])), "{condition} FROM {source}");
        }
    }
    assert_eq!(tenant.state("SELECT FROM t WHERE pgseal.decrypt(note) = 'w1'"), "42501");
}

#[test]
fn a_literal_beside_a_column_is_nobodys_row() {
    let mut client = database();
    let query = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM t WHERE ";
    client.run("SET pgseal.keyring = a");
    for condition in [
        "(CASE WHEN id % 2 = 0 THEN note ELSE 'w1' END) <> 'w0'",
        "coalesce(CASE WHEN id % 2 = 0 THEN note END, 'w1') <> 'w0'",
    ] {
        let found: String = client.one(&format!("{query}{condition}"));
        assert_eq!(found, "1 2 3 5 6 7 9 10 11", "{condition}");
    }
}

#[test]
fn a_session_that_loads_the_library_late_answers_or_says_so() {
    let mut client = database();
    let name = client.database();
    let typed = [
        ("note = ANY (ARRAY['w1', 'none']::text[])", "1 5 9"),
        ("note <> 'w0'::text", "1 3 5 7 9 11"),
        ("note LIKE 'w1'", "1 5 9"),
        ("loose ? 'k'", "1 3 5 7 9 11"),
        ("note IS NOT DISTINCT FROM 'w1'::text", "1 5 9"),
        ("CASE note WHEN 'w1'::text THEN true END", "1 5 9"),
        (r#"loose @> '{"k": 1}'"#, "1 7"),
    ];
    for (condition, expected) in typed {
        // A fresh session each: its first statement of ours loads the library.
        let mut fresh = shared().connect(&name);
        fresh.run("SET pgseal.keyring = 'b'");
        let query = format!("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t WHERE {condition}");
        match fresh.query_one(&query, &[]) {
            Ok(row) => assert_eq!(row.get::<_, String>(0), expected, "{condition}"),
            Err(error) => {
                let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
                assert_eq!(error.code().code(), "55000", "{condition}: {error}");
                assert!(
                    error.hint().is_some_and(|hint| hint.contains("session_preload_libraries")),
                    "{error}"
                );
            }
        }
        assert_eq!(fresh.one::<String>(&query), expected, "{condition}, again");
    }
    let preloaded = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
    let mut client = preloaded.connect("postgres");
    client.run(
        "SELECT pgseal.create_keyring('a'), pgseal.create_keyring('b'); CREATE TABLE t (x encrypted_text)",
    );
    client.run("INSERT INTO t VALUES (pgseal.encrypt('v'::text, 'a')), (pgseal.encrypt('v'::text, 'b'))");
    let mut client = preloaded.connect("postgres");
    client.run("SET pgseal.keyring = 'b'");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE x = ANY (ARRAY['v', 'w']::text[])"), 1);
}
