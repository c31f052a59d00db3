//! With `pgseal.reveal` on, what a client computes of encrypted columns is what it computes of plain ones.

use postgres::{Client, SimpleQueryMessage};

use crate::support::{Sql, shared, with_keyring};

/// `docs` encrypted, in schema plain the same as jsonb, text and vector.
fn twins() -> Client {
    let mut client = with_keyring("{$.p,$.n.c}");
    client.run(
        r#"CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), body encrypted_text(k), e encrypted_vector(k));
           CREATE SCHEMA plain; CREATE TABLE plain.docs (id int PRIMARY KEY, m jsonb, body text, e vector);
           INSERT INTO plain.docs VALUES
               (1, '{"p": "John", "age": 52, "n": {"c": "Oslo"}, "t": ["a", "b"]}', 'First body', '[1,2,3]'),
               (2, '{"p": "Mary", "age": 7, "ok": true}', 'second', '[3,2,1]'), (3, '{}', '', '[0,0,1]'), (4, NULL, NULL, NULL);
           INSERT INTO docs SELECT * FROM plain.docs; ANALYZE docs; ANALYZE plain.docs"#,
    );
    client.run("SELECT pgseal.key_version(m) FROM docs; SET pgseal.reveal = on");
    client
}

fn rows(client: &mut Client, schema: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    client.run(&format!("SET search_path = {schema}, public"));
    let messages = client.simple_query(sql).map_err(|error| format!("{error:?}"))?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect())
}

#[test]
fn every_expression_gives_the_rows_of_its_plain_twin() {
    let mut client = twins();
    let mut wrong = Vec::new();
    for sql in [
        "SELECT id FROM docs WHERE m -> 'p' = '\"John\"'::jsonb",
        "SELECT id FROM docs WHERE m -> 'p' = '\"John\"'",
        "SELECT id FROM docs WHERE m = '{}'",
        "SELECT id FROM docs WHERE m <> '{}' ORDER BY id",
        "SELECT id FROM docs WHERE m -> 'age' > '40'::jsonb",
        "SELECT id FROM docs WHERE m -> 'p' IN ('\"John\"'::jsonb, '\"Jane\"'::jsonb)",
        "SELECT m['p'], m['n']['c'], m['t'][0] FROM docs ORDER BY id",
        "SELECT m['n'] ->> 'c' FROM docs ORDER BY id",
        "SELECT id FROM docs WHERE m <@ '{\"p\": \"Mary\", \"age\": 7, \"ok\": true, \"x\": 1}' ORDER BY id",
        "SELECT id FROM docs WHERE '{\"p\": \"John\"}' <@ m",
        "SELECT id FROM docs WHERE m @? '$.age ? (@ > 10)'",
        "SELECT id FROM docs WHERE m @@ '$.age > 10'::jsonpath",
        "SELECT COALESCE(m, '{}'::jsonb) || '{\"a\": 1}'::jsonb FROM docs ORDER BY id",
        "SELECT CASE WHEN id = 1 THEN m ELSE '{\"x\": 1}'::jsonb END FROM docs ORDER BY id",
        "SELECT upper(body), length(body), left(body, 3), replace(body, 'body', 'x'), md5(body) FROM docs ORDER BY id",
        "SELECT lower(m ->> 'p'), (m ->> 'p') || '!', '<' || body || '>' FROM docs ORDER BY id",
        "SELECT 'x'::text || m FROM docs WHERE id = 3",
        "SELECT substring(body from 2 for 3), trim(body), position('o' in body), starts_with(body, 'F') FROM docs ORDER BY id",
        "SELECT jsonb_typeof(m -> 't'), jsonb_typeof(m) FROM docs ORDER BY id",
        "SELECT jsonb_array_elements_text(m -> 't') FROM docs ORDER BY 1",
        "SELECT d.id, e.key, e.value FROM docs d, jsonb_each(d.m) e ORDER BY 1, 2",
        "SELECT d.id, e.key, e.value FROM docs d, jsonb_each_text(d.m -> 'n') e ORDER BY 1, 2",
        "SELECT jsonb_object_keys(m) FROM docs ORDER BY 1",
        "SELECT jsonb_extract_path_text(m, 'n', 'c') FROM docs ORDER BY id",
        "SELECT jsonb_path_query_first(m, '$.age'), jsonb_set(m, '{p}', '\"x\"'), jsonb_pretty(m) FROM docs ORDER BY id",
        "SELECT id FROM docs WHERE jsonb_path_exists(m, '$.age ? (@ > 10)')",
        "SELECT x.p, x.age FROM docs d, jsonb_to_record(d.m) AS x(p text, age int) ORDER BY d.id",
        "SELECT (m -> 'age')::int, (m -> 'age')::numeric, (m -> 'ok')::boolean, (m ->> 'age')::int FROM docs ORDER BY id",
        "SELECT to_tsvector('simple', body) FROM docs ORDER BY id",
        "SELECT id FROM docs WHERE to_tsvector('simple', body) @@ to_tsquery('simple', 'first')",
        "SELECT count(*), upper(body) FROM docs GROUP BY upper(body) ORDER BY 2",
        "SELECT string_agg(body, ',' ORDER BY id), max(lower(body)) FROM docs",
        "SELECT DISTINCT jsonb_typeof(m) FROM docs ORDER BY 1",
        "SELECT id FROM docs ORDER BY lower(body) DESC NULLS LAST, id",
        "SELECT id, rank() OVER (PARTITION BY jsonb_typeof(m) ORDER BY length(body)) FROM docs ORDER BY id",
        "SELECT (SELECT upper(d.body)) FROM docs d ORDER BY id",
        "WITH c AS (SELECT id, upper(body) AS u FROM docs) SELECT * FROM c WHERE u <> '' ORDER BY id",
        "SELECT u FROM (SELECT upper(body) AS u FROM docs OFFSET 0) s ORDER BY u",
        "SELECT id FROM docs d WHERE EXISTS (SELECT FROM docs o WHERE upper(o.body) = upper(d.body)) ORDER BY id",
        "SELECT upper(body) FROM docs UNION SELECT lower(body) FROM docs ORDER BY 1",
        "SELECT json_agg(m ORDER BY id), jsonb_agg(m -> 'p' ORDER BY id) FROM docs",
        "SELECT array_agg(upper(body) ORDER BY id), ARRAY[length(body)] FROM docs GROUP BY length(body) ORDER BY 2",
        "SELECT ROW(id, upper(body)), concat(upper(body), m -> 'p') FROM docs ORDER BY id",
        "SELECT vector_norm(e), e + '[1,1,1]', l2_distance(e, '[1,2,3]'), vector_dims(e) FROM docs ORDER BY id",
        "SELECT a.id, b.id, a.e <-> b.e FROM docs a, docs b ORDER BY 1, 2",
        "SELECT id FROM docs WHERE e = '[1,2,3]'",
        "SELECT COALESCE(body, '-'::varchar), COALESCE(body, '-'::text), COALESCE('-'::text, body), COALESCE(body, '-') FROM docs ORDER BY id",
        "SELECT CASE WHEN id > 1 THEN m ->> 'p' ELSE 'x'::text END, CASE id WHEN 1 THEN 'x'::varchar ELSE body END FROM docs ORDER BY id",
        "SELECT NULLIF(body, 'second'::varchar), NULLIF('second'::text, body) FROM docs ORDER BY id",
        "SELECT body FROM docs UNION ALL SELECT 'x'::text ORDER BY 1",
        "SELECT 'x'::varchar UNION SELECT body FROM docs ORDER BY 1",
        "SELECT m FROM docs UNION SELECT '{}'::jsonb ORDER BY 1",
        "SELECT e FROM docs UNION SELECT '[1,2,3]'::vector ORDER BY 1",
        "SELECT body FROM docs INTERSECT SELECT 'second'::text",
        "SELECT id, body FROM docs EXCEPT ALL SELECT 2, 'second'::text ORDER BY 1",
        "(SELECT body FROM docs UNION SELECT body FROM docs) EXCEPT SELECT 'second'::text ORDER BY 1",
        "SELECT body FROM docs UNION (SELECT m ->> 'p' FROM docs EXCEPT SELECT 'Mary'::text) ORDER BY 1",
        "(SELECT DISTINCT body FROM docs ORDER BY 1 LIMIT 2) UNION ALL SELECT 'x'::text ORDER BY 1",
        "SELECT id, (SELECT string_agg(b, ',' ORDER BY b) FROM (SELECT d.body AS b UNION ALL SELECT 'x'::text) s) FROM docs d ORDER BY id",
        "SELECT id, (SELECT string_agg(b, ',' ORDER BY b) FROM (SELECT DISTINCT d.body AS b UNION ALL SELECT 'x'::text) s) FROM docs d ORDER BY id",
        "WITH c AS (SELECT id, body AS b FROM docs UNION ALL SELECT 9, 'x'::text) SELECT * FROM c WHERE b <> 'second' ORDER BY id",
        "SELECT v FROM docs, LATERAL (VALUES (body), ('x'::text)) s (v) ORDER BY 1",
        "SELECT body || body, body || 5, 5 || body, body || m, body || 'x'::varchar, 'x'::varchar || body, (m ->> 'p') || body FROM docs ORDER BY id",
        "SELECT m::json, m::json ->> 'p', (m -> 'n')::json, body::bytea, md5(body::bytea) FROM docs ORDER BY id",
        "SELECT body::varchar(3), body::char(3), length(body::varchar(3)), (m ->> 'p')::varchar FROM docs ORDER BY id",
        "SELECT id FROM docs WHERE body::bytea = 'second' OR (m::json ->> 'p') = 'John' ORDER BY id",
        "SELECT GREATEST(body, 'b'), LEAST(body, m ->> 'p', 'b'), GREATEST(body, 'b'::text), LEAST(m ->> 'p') FROM docs ORDER BY id",
        "SELECT GREATEST(m, m -> 'n'), LEAST(m, '{}'::jsonb), GREATEST(e, '[2,2,2]'::vector), LEAST(e, e) FROM docs ORDER BY id",
        "SELECT id FROM docs WHERE GREATEST(body, m ->> 'p') = 'second'",
        "SELECT DISTINCT e FROM docs ORDER BY e",
        "SELECT e, count(*) FROM docs GROUP BY e ORDER BY e DESC",
        "SELECT id, rank() OVER (ORDER BY e), count(DISTINCT e) FROM docs GROUP BY id, e ORDER BY id",
        "SELECT DISTINCT * FROM docs ORDER BY id",
        "SELECT id FROM docs WHERE m @@ '$.age > 10'",
        "SELECT id, m @@ '$.age > 10', m -> 'n' @@ '$.c == \"Oslo\"' FROM docs ORDER BY id",
        "SELECT ARRAY(SELECT body FROM docs ORDER BY id), ARRAY(SELECT m -> 'p' FROM docs WHERE id < 3 ORDER BY body)",
        "SELECT id, ARRAY(SELECT o.body FROM docs o WHERE o.id <= d.id UNION ALL SELECT d.body) FROM docs d ORDER BY id",
        "SELECT a.id FROM docs a JOIN (SELECT body::text FROM docs) b USING (body) ORDER BY 1",
        "UPDATE docs SET body = id WHERE id = 3 RETURNING body",
        "UPDATE docs SET body = m WHERE id = 3 RETURNING body",
        "UPDATE docs SET body = COALESCE(body, 'x'::text) WHERE id = 4 RETURNING body",
        "UPDATE docs SET body = CASE WHEN id = 4 THEN NULL ELSE 'y'::varchar END WHERE id > 2 RETURNING body",
        "UPDATE docs SET body = GREATEST(body, 'a') WHERE id = 3 RETURNING body",
        "UPDATE docs SET m['p'] = '\"Jo\"', m['q'] = to_jsonb(id), m['n']['c'] = m['p'] WHERE id < 3 RETURNING m",
        "SELECT avg(e) FROM docs",
        "UPDATE docs SET id = id WHERE upper(body) = 'SECOND' RETURNING id, upper(body)",
        "DELETE FROM docs WHERE length(body) = 10000 RETURNING id",
        "EXPLAIN (COSTS off, ANALYZE, TIMING off, SUMMARY off, BUFFERS off) SELECT 1 WHERE false",
    ] {
        let plain = rows(&mut client, "plain", sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        match rows(&mut client, "public", sql) {
            Ok(sealed) if sealed == plain => (),
            other => wrong.push(format!("{sql}\n  plain {plain:?}\n  sealed {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_planner_still_finds_the_index() {
    let mut client = twins();
    client.run("SET pgseal.reveal = off; INSERT INTO docs SELECT i, jsonb_build_object('p', i), i::text FROM generate_series(5, 400) i");
    client.run("CREATE INDEX ON docs USING gin (m); CREATE INDEX ON docs USING gin (body); ANALYZE docs; SET enable_seqscan = off");
    client.run("SET pgseal.reveal = on");
    for filter in [
        "m @> '{\"p\": \"John\"}'",
        "m ->> 'p' = 'John'",
        "body = 'second'",
        "body = 'second'::varchar",
        "body IN ('second'::text, 'x'::text)",
        "m ->> 'p' IN ('John'::varchar, 'x'::varchar)",
        "m @> $1",
    ] {
        let prepared = if filter.contains('$') { "EXECUTE q ('{\"p\": \"John\"}')" } else { "EXECUTE q" };
        client.run(&format!("PREPARE q AS SELECT upper(body) FROM docs WHERE {filter}"));
        let plan = client.column::<String>(&format!("EXPLAIN {prepared}")).join("\n");
        assert!(plan.contains("Bitmap Index Scan"), "{filter}: {plan}");
        client.run("DEALLOCATE q");
    }
}

#[test]
fn extended_statements_and_cursors_open_as_well() {
    let mut client = twins();
    for _ in 0..7 {
        let row = client.query_one("SELECT upper(body), m['p'] FROM docs WHERE id = $1", &[&1]).unwrap();
        assert_eq!(row.get::<_, String>(0), "FIRST BODY");
        assert_eq!(row.get::<_, serde_json::Value>(1), "John");
    }
    let statement = client.prepare("SELECT upper(body) FROM docs WHERE id = $1").unwrap();
    for _ in 0..7 {
        assert_eq!(client.query_one(&statement, &[&1]).unwrap().get::<_, String>(0), "FIRST BODY");
    }
    client.run("PREPARE p AS SELECT upper(body) AS u FROM docs WHERE id = 1");
    for sql in [
        "EXECUTE p",
        "BEGIN; DECLARE c CURSOR FOR SELECT upper(body) FROM docs WHERE id = 1; FETCH c; COMMIT",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT upper(body) FROM docs WHERE id = 1; COMMIT; FETCH c; CLOSE c",
        "SELECT 1; SELECT upper(body) FROM docs WHERE id = 1",
    ] {
        let shown = rows(&mut client, "public", sql).unwrap();
        assert_eq!(shown.last().unwrap()[0].as_deref(), Some("FIRST BODY"), "{sql}");
    }
    let plan = rows(&mut client, "public", "EXPLAIN (ANALYZE, VERBOSE) EXECUTE p").unwrap();
    assert!(!format!("{plan:?}").contains("FIRST"), "{plan:?}");
}

#[test]
fn a_whole_document_is_changed_in_place() {
    let mut client = twins();
    client.run("UPDATE docs SET body = upper(body), m = jsonb_set(m, '{p}', '\"Joan\"') WHERE id = 1");
    client.run("INSERT INTO docs (id, body) SELECT id + 10, lower(body) FROM docs WHERE id = 1");
    client.run("INSERT INTO docs (id, body) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET body = docs.body || ' again'");
    client.run("INSERT INTO docs (id, body) SELECT id + 20, u FROM (SELECT id, initcap(body) AS u FROM docs) s WHERE id = 2");
    client.run("MERGE INTO docs d USING docs s ON d.id = 3 AND s.id = 2 WHEN MATCHED AND length(s.body) = 6 THEN UPDATE SET body = reverse(s.body)");
    let shown = rows(
        &mut client,
        "public",
        "SELECT id, body, m ->> 'p' FROM docs WHERE id IN (1, 3, 11, 22) ORDER BY id",
    )
    .unwrap();
    let shown: Vec<_> = shown
        .into_iter()
        .map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("|"))
        .collect();
    assert_eq!(shown, ["1|FIRST BODY again|Joan", "3|dnoces|", "11|first body|", "22|Second|"]);
}

#[test]
fn without_the_setting_an_implied_cast_refuses_and_says_how() {
    let mut client = twins();
    client.run("SET pgseal.reveal = off");
    for sql in [
        "SELECT upper(body) FROM docs",
        "SELECT m['p'] FROM docs",
        "SELECT id FROM docs WHERE m > '{}'::jsonb",
        "SELECT body || 'x' FROM docs",
        "SELECT id FROM docs WHERE m <@ '{}'",
    ] {
        let error = client.error(sql);
        assert_eq!(error.code().code(), "42846", "{sql}: {error}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("pgseal.decrypt") && hint.contains("SET pgseal.reveal"), "{sql}: {hint}");
        assert!(!format!("{error:?}").contains("First"), "{error:?}");
    }
    assert_eq!(client.one::<String>("SELECT upper(body::text) FROM docs WHERE id = 1"), "FIRST BODY");
    assert_eq!(client.one::<String>("SELECT (e::vector(3))::text FROM docs WHERE id = 1"), "[1,2,3]");
    assert_eq!(client.state("SELECT e::vector(4) FROM docs"), "22000");
}

#[test]
fn a_role_that_may_not_decrypt_gets_nothing_by_a_cast() {
    let mut client = twins();
    let name = client.database();
    client.run(&format!(
        "RESET pgseal.reveal; CREATE ROLE {name}_cast LOGIN; GRANT SELECT, UPDATE ON docs TO {name}_cast"
    ));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{name}_cast', ARRAY['encrypt', 'search'])"));
    let mut session = shared().connect_as(&format!("{name}_cast"), &name);
    session.run("SELECT pgseal.key_version(m) FROM docs; SET pgseal.reveal = on");
    for sql in [
        "SELECT upper(body) FROM docs",
        "SELECT id FROM docs WHERE m = '{}'",
        "SELECT COALESCE(body, 'x'::text) FROM docs",
        "SELECT COALESCE(body, 'x'::varchar) FROM docs",
        "SELECT body FROM docs UNION ALL SELECT 'x'::text",
        "SELECT 1 FROM docs WHERE GREATEST(body, body) IS NULL",
        "SELECT count(*) FROM (SELECT DISTINCT e FROM docs) s",
        "SELECT m::json FROM docs",
        "SELECT body::bytea FROM docs",
        "SELECT id FROM docs WHERE m @@ '$.age > 1'",
        "SELECT pgseal.plain_varchar(body, -1, true) FROM docs",
        "SELECT pgseal.plain(body) FROM docs",
        "SELECT pgseal.plain(body, -1, true) FROM docs",
    ] {
        assert_eq!(session.state(sql), "42501", "{sql}");
    }
    assert_eq!(session.state("SELECT pgseal.plain(body, -1, false) FROM docs"), "42501");
    assert_eq!(session.state("UPDATE docs SET m['p'] = '1'"), "42501");
}

#[test]
fn an_empty_search_path_changes_nothing() {
    let mut client = twins();
    client.run("SET search_path = ''");
    for sql in [
        "SELECT COALESCE(body, '-'::varchar), body || body, GREATEST(body, 'b'), LEAST(body, 'b'::text) FROM docs ORDER BY id",
        "SELECT body FROM docs UNION SELECT 'x'::text ORDER BY 1",
        "SELECT m::json, m['p'], upper(body) FROM docs ORDER BY id",
        "SELECT DISTINCT e::public.vector FROM docs ORDER BY 1",
        "SELECT count(*) FROM (SELECT DISTINCT e FROM docs) s",
        "UPDATE docs SET m['x'] = '1', body = COALESCE(body, 'x'::text) WHERE id < 3 RETURNING m, body",
    ] {
        let mut of = |schema: &str| {
            let messages = client.simple_query(&sql.replace("docs", &format!("{schema}.docs")));
            let messages = messages.unwrap_or_else(|error| panic!("{schema}: {sql}: {error:?}"));
            let row = |message: &SimpleQueryMessage| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect::<Vec<_>>())
                }
                _ => None,
            };
            messages.iter().filter_map(row).collect::<Vec<_>>()
        };
        assert_eq!(of("public"), of("plain"), "{sql}");
    }
}
