//! `pgseal.reveal`: plaintext for the client of a SELECT or RETURNING, and for nothing else.

use postgres::types::Type;
use postgres::{Client, SimpleQueryMessage};

use crate::support::{Cluster, Sql, lacks, major_version, shared, with_keyring};

fn database() -> Client {
    let mut client = with_keyring("{$.a}");
    client.run("CREATE TABLE docs (id int PRIMARY KEY, sealed encrypted_jsonb(k) NOT NULL, body encrypted_text(k), CHECK (id < 100))");
    client.run(r#"INSERT INTO docs VALUES (1, '{"a": "canary"}', 'canary text')"#);
    client.run("SET pgseal.reveal = on");
    client
}

/// What a client sees in the first column that is not NULL of the last row, as text.
fn seen(client: &mut Client, sql: &str) -> String {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.last().and_then(|row| row.get(0)).unwrap_or_else(|| panic!("{sql}: no row")).to_owned()
}

const DOCUMENT: &str = r#"{"a": "canary"}"#;

#[test]
fn what_a_statement_returns_arrives_as_jsonb_and_text() {
    let mut client = database();
    client.run("CREATE VIEW v AS SELECT sealed, body FROM docs; CREATE DOMAIN d AS encrypted_jsonb(k)");
    for query in [
        "SELECT sealed FROM docs",
        "SELECT sealed FROM v",
        "SELECT (SELECT sealed FROM docs)",
        "WITH c AS (SELECT * FROM docs) SELECT sealed FROM c",
        "SELECT sealed::d FROM docs",
        "SELECT sealed FROM docs UNION ALL SELECT sealed FROM docs",
        "SELECT DISTINCT ON (id) sealed FROM docs ORDER BY id",
        "SELECT sealed FROM docs FOR UPDATE",
        "SELECT sealed FROM docs WHERE sealed ->> 'a' = 'canary'",
        "TABLE v",
        "UPDATE docs SET body = body RETURNING sealed",
        r#"INSERT INTO docs VALUES (2, '{"a": "canary"}') RETURNING sealed"#,
        "DELETE FROM docs WHERE id = 2 RETURNING sealed",
        "WITH u AS (UPDATE docs SET body = body RETURNING sealed) SELECT sealed FROM u",
        "BEGIN; DECLARE c CURSOR FOR SELECT sealed FROM docs; FETCH c; COMMIT",
        "PREPARE p AS SELECT sealed FROM docs; EXECUTE p",
    ] {
        assert_eq!(seen(&mut client, query).rsplit('\n').next(), Some(DOCUMENT), "{query}");
    }
    assert_eq!(seen(&mut client, "SELECT sealed ->> 'a' FROM docs"), "canary");
    let statement = client
        .prepare("SELECT sealed, body, id FROM docs UNION ALL SELECT sealed, body, id FROM docs")
        .unwrap();
    let types: Vec<&Type> = statement.columns().iter().map(|column| column.type_()).collect();
    assert_eq!(types, [&Type::JSONB, &Type::TEXT, &Type::INT4]);
    let rows = client.query(&statement, &[]).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].get::<_, serde_json::Value>(0)["a"], "canary");
    assert_eq!(rows[0].get::<_, String>(1), "canary text");
}

#[test]
fn only_the_rows_that_are_returned_are_decrypted() {
    let mut client = database();
    client.run("INSERT INTO docs SELECT i, jsonb_build_object('a', i) FROM generate_series(2, 90) i");
    let before: i64 = client.one("SELECT values_decrypted FROM pgseal.stat");
    client.run("SELECT sealed FROM docs ORDER BY id DESC LIMIT 5");
    assert_eq!(client.one::<i64>("SELECT values_decrypted FROM pgseal.stat") - before, 5);
}

#[test]
fn what_is_stored_or_computed_in_the_server_stays_ciphertext() {
    let mut client = database();
    client.run(
        "CREATE TABLE log (line text);
         CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (to_jsonb(NEW)::text); RETURN NEW; END $$;
         CREATE TRIGGER audit AFTER UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION audit();
         CREATE FUNCTION in_plpgsql() RETURNS text LANGUAGE plpgsql AS $$ DECLARE r record; t encrypted_jsonb;
            BEGIN SELECT * INTO r FROM docs; EXECUTE 'SELECT sealed FROM docs' INTO t; RETURN r::text || format('%s', t); END $$;
         CREATE FUNCTION in_sql(int) RETURNS SETOF docs LANGUAGE sql AS 'SELECT * FROM docs WHERE id = $1';
         CREATE TABLE texts (line text);
         UPDATE docs SET body = body",
    );
    client
        .run("CREATE TABLE made AS SELECT sealed, body FROM docs; SELECT sealed, body INTO chosen FROM docs");
    client.run("CREATE MATERIALIZED VIEW kept AS SELECT sealed, body FROM docs; CREATE VIEW lazy AS SELECT sealed FROM docs");
    client.run("CREATE TABLE inserted (s encrypted_jsonb, b encrypted_text); INSERT INTO inserted SELECT sealed, body FROM docs");
    for table in ["made", "chosen", "kept", "inserted"] {
        let types = format!(
            "SELECT string_agg(atttypid::regtype::text, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0"
        );
        assert_eq!(client.one::<String>(&types), "encrypted_jsonb encrypted_text", "{table}");
    }
    for query in ["SELECT line FROM log", "SELECT in_plpgsql()", "SELECT pg_get_viewdef('lazy')"] {
        assert!(!seen(&mut client, query).contains("canary"), "{query}");
    }
    // A cast that is written out decrypts, as ever; an assignment to a text column is refused, as ever.
    assert_eq!(client.state("INSERT INTO texts SELECT sealed FROM docs"), "42804");
    assert_eq!(seen(&mut client, "SELECT sealed FROM in_sql(1)"), DOCUMENT);
    let copied = shared().psql(
        &client.database(),
        &[
            "-c",
            "SET pgseal.reveal = on",
            "-c",
            "COPY docs TO STDOUT",
            "-c",
            "COPY (SELECT sealed FROM docs) TO STDOUT",
        ],
        "",
    );
    let copied = String::from_utf8_lossy(&copied.stdout);
    assert!(copied.matches("pgseal:").count() >= 3 && !copied.contains("canary"), "{copied}");
}

#[test]
fn the_detail_of_an_error_shows_ciphertext() {
    let mut client = database();
    let error = client.error("UPDATE docs SET id = 100 RETURNING sealed");
    assert!(
        error.detail().is_some_and(|detail| detail.contains("pgseal:") && !detail.contains("canary")),
        "{error:?}"
    );
}

#[test]
fn a_statement_prepared_with_it_never_runs_without_or_stores() {
    let mut client = database();
    for revealed in [
        "concat(sealed ->> 'a') FROM docs",
        "ARRAY[body] FROM docs",
        "d FROM docs d",
        "(SELECT to_jsonb(d) FROM docs d)",
        "v FROM (SELECT format('%s', body) AS v FROM docs OFFSET 0) q",
        "sealed FROM docs UNION ALL SELECT sealed FROM docs",
        "sealed FROM docs",
    ] {
        client.run(&format!("DEALLOCATE ALL; PREPARE p AS SELECT {revealed}"));
        for leak in ["CREATE TABLE leak AS EXECUTE p", "EXPLAIN ANALYZE CREATE TABLE leak AS EXECUTE p"] {
            assert_eq!(client.state(leak), "55000", "{leak}: {revealed}");
        }
    }
    client.run("SET pgseal.reveal = off");
    assert_eq!(client.state("EXECUTE p"), "0A000");
    client.run("BEGIN; SET LOCAL pgseal.reveal = on; EXECUTE p; COMMIT");
    assert!(seen(&mut client, "SELECT sealed FROM docs").starts_with("pgseal:"));
    // Analysed again inside CREATE TABLE AS, a statement is not wrapped.
    client.run("SET pgseal.reveal = off; PREPARE sealed AS SELECT sealed FROM docs; SET pgseal.reveal = on");
    client.run("CREATE INDEX ON docs (id); CREATE TABLE kept AS EXECUTE sealed; RESET pgseal.reveal");
    assert!(seen(&mut client, "SELECT format('%s', sealed) FROM kept").starts_with("pgseal:"));
}

#[test]
fn a_set_operation_that_writes_in_with_writes_as_without_it() {
    let mut client = database();
    client.run(
        "CREATE TABLE made (id serial PRIMARY KEY, note text DEFAULT 'default', sealed encrypted_jsonb(k))",
    );
    client.run("CREATE TABLE child (id int REFERENCES docs)");
    let write = r#"WITH i AS (INSERT INTO made (sealed) VALUES ('{"a": "canary"}') RETURNING sealed), j AS (SELECT * FROM i)
        SELECT sealed FROM j UNION ALL SELECT sealed FROM i WHERE false LIMIT (SELECT count(*) FROM i)"#;
    assert_eq!(seen(&mut client, write), DOCUMENT);
    assert_eq!(client.one::<String>("SELECT id || note FROM made"), "1default");
    // Foreign keys are checked after the statement.
    let orphan = "WITH i AS (INSERT INTO child VALUES (99) RETURNING id) SELECT sealed FROM docs UNION ALL SELECT NULL FROM i";
    assert_eq!(client.state(orphan), "23503");
}

#[test]
fn what_with_hands_to_a_write_is_never_revealed() {
    let mut client = database();
    client.run("CREATE TABLE kept (v text)");
    for with in [
        "w AS (SELECT concat(sealed ->> 'a') AS v FROM docs)",
        "w AS MATERIALIZED (SELECT format('%s', sealed) AS v FROM docs)",
        "u AS (SELECT to_jsonb(d)::text AS v FROM docs d), w AS (SELECT v FROM u)",
        "w AS (SELECT v FROM (SELECT row(body)::text AS v FROM docs) q)",
    ] {
        let write = "INSERT INTO kept SELECT v FROM w RETURNING 1";
        assert_eq!(client.state(&format!("WITH {with}, k AS ({write}) SELECT count(*) FROM k")), "0A000");
        client.run(&format!("WITH {with} {write}"));
    }
    let sealed = "SELECT count(*) FROM kept WHERE v LIKE '%pgseal:%' AND v NOT LIKE '%canary%'";
    assert_eq!(client.one::<i64>(sealed), 4);
}

#[test]
fn a_rule_beside_the_statement_does_not_stop_returning() {
    let mut client = database();
    client.run("CREATE TABLE log (line text)");
    client.run("CREATE RULE also AS ON UPDATE TO docs DO ALSO INSERT INTO log VALUES (NEW.sealed::text)");
    client.run(
        "CREATE RULE kept AS ON UPDATE TO docs DO ALSO INSERT INTO log VALUES (format('%s', NEW.sealed))",
    );
    assert_eq!(seen(&mut client, "UPDATE docs SET body = body RETURNING sealed"), DOCUMENT);
    // Only the cast that the rule writes out decrypts.
    assert_eq!(client.one::<i64>("SELECT count(*) FROM log WHERE line LIKE 'pgseal:%'"), 1);
}

#[test]
fn a_function_reads_no_plaintext_from_what_its_caller_opened() {
    let mut client = database();
    client.run(
        "CREATE FUNCTION fetches() RETURNS text LANGUAGE plpgsql AS $$
            DECLARE c refcursor := 'c'; r record; BEGIN FETCH c INTO r; RETURN r::text; END $$;
         CREATE FUNCTION executes() RETURNS text LANGUAGE plpgsql AS $$
            DECLARE t text; BEGIN EXECUTE 'EXECUTE p' INTO t; RETURN t; END $$;
         PREPARE p AS SELECT sealed FROM docs",
    );
    assert_eq!(client.state("SELECT executes()"), "55000");
    assert_eq!(
        client.state("BEGIN; DECLARE c CURSOR FOR SELECT sealed FROM docs; SELECT fetches()"),
        "55000"
    );
    client.run("ROLLBACK");
    assert_eq!(seen(&mut client, "EXECUTE p"), DOCUMENT);
}

#[test]
fn a_setting_from_before_the_library_loads_gives_no_ciphertext() {
    let mut client = database();
    let name = client.database();
    for query in
        ["SELECT sealed FROM docs", "SELECT sealed ->> 'a' FROM docs", "SELECT to_json(d) FROM docs d"]
    {
        let mut session = shared().connect(&name);
        session.run("SET pgseal.reveal = on");
        // Analysed before there was a hook.
        let error = session.error(query);
        assert_eq!(error.code().code(), "0A000", "{query}");
        assert!(error.hint().is_some_and(|hint| hint.contains("sent again")), "{query}");
        assert_eq!(session.one::<String>("SHOW pgseal.reveal"), "on");
        assert!(seen(&mut session, query).contains("canary"), "{query}");
    }
}

#[test]
fn a_prepared_statement_changes_its_type_with_the_setting() {
    let mut client = database();
    client.run("SET pgseal.reveal = off; PREPARE sealed AS SELECT sealed FROM docs; PREPARE other AS SELECT id FROM docs");
    let statement = client.prepare("SELECT body FROM docs").unwrap();
    let described = |client: &mut Client, statement| {
        client.query(statement, &[]).map_err(|error| {
            let error = error.as_db_error().cloned().unwrap();
            (error.code().code().to_owned(), error.message().to_owned())
        })
    };
    described(&mut client, &statement).unwrap();
    client.run("EXECUTE sealed");
    // Words and code that drivers know: they prepare it again.
    let changed = ("0A000".to_owned(), "cached plan must not change result type".to_owned());
    for on in ["SET pgseal.reveal = on", "BEGIN; SET LOCAL pgseal.reveal = on"] {
        client.run(on);
        assert_eq!(described(&mut client, &statement).unwrap_err(), changed, "{on}");
        client.run("ROLLBACK; SET pgseal.reveal = on");
        assert_eq!(client.state("EXECUTE sealed"), "0A000");
        assert_eq!(seen(&mut client, "EXECUTE other"), "1");
        client.run("RESET pgseal.reveal; EXECUTE sealed");
        described(&mut client, &statement).unwrap();
    }
    client.run("SET pgseal.reveal = on");
    let statement = client.prepare("SELECT body FROM docs").unwrap();
    client.run("SET pgseal.reveal = off");
    assert_eq!(described(&mut client, &statement).unwrap_err(), changed);
}

#[test]
fn what_makes_text_json_rows_or_arrays_gets_revealed_values() {
    let mut client = database();
    for query in [
        "SELECT concat(sealed ->> 'a', '!') FROM public.docs",
        "SELECT concat_ws('-', id, body, sealed ->> 'a') FROM public.docs",
        "SELECT format('%s %L', id, sealed) FROM public.docs",
        "SELECT upper(left(concat(body), 3)) || concat(body) FROM public.docs",
        "SELECT json_agg(sealed ORDER BY id) FROM public.docs",
        "SELECT jsonb_agg(d ORDER BY id DESC) FROM public.docs d",
        "SELECT coalesce(json_agg(q), '[]') FROM (SELECT d.* FROM public.docs d WHERE id < 50) q",
        "SELECT json_object_agg(id, body) FROM public.docs",
        "SELECT json_agg(sealed) OVER () FROM public.docs",
        "SELECT json_build_object('id', id, 'inner', jsonb_build_array(sealed, 1)) FROM public.docs",
        "SELECT to_jsonb(d) FROM public.docs d",
        "SELECT to_json(sealed) FROM public.docs",
        "SELECT row_to_json(d, true) FROM public.docs d",
        "SELECT row_to_json(ROW(id, sealed)) FROM public.docs",
        "SELECT array_to_json(ARRAY[sealed, sealed]) FROM public.docs",
        "SELECT array_to_json(array_agg(sealed)) FROM public.docs",
        "SELECT array_to_string(ARRAY[body], ',') FROM public.docs",
        "SELECT ARRAY[sealed] FROM public.docs",
        "SELECT ARRAY[sealed]::text FROM public.docs",
        "SELECT array_agg(body) FROM public.docs",
        "SELECT ROW(id, sealed) FROM public.docs",
        "SELECT d FROM public.docs d",
        "SELECT d::text FROM public.docs d",
        "SELECT (SELECT json_agg(i) FROM (SELECT d.body) i) FROM public.docs d",
        "SELECT j.value FROM public.docs d, jsonb_each_text(to_jsonb(d)) j WHERE j.key = 'sealed'",
        "SELECT to_jsonb(d) FROM public.docs d UNION ALL SELECT NULL WHERE false",
        "WITH c AS (SELECT to_jsonb(d) AS j FROM public.docs d) SELECT j FROM c",
        "SELECT r FROM (SELECT to_jsonb(d) AS r FROM public.docs d OFFSET 0) s",
        "UPDATE public.docs SET body = body RETURNING to_jsonb(docs)",
        "WITH u AS (UPDATE public.docs SET body = body RETURNING *) SELECT json_agg(u) FROM u",
        "SELECT id::text || 'canary' FROM public.docs WHERE concat(sealed ->> 'a', '!') = 'canary!'",
        "SELECT id::text || 'canary' FROM public.docs GROUP BY id, concat(body) HAVING concat(body) LIKE 'canary%'",
        "BEGIN; DECLARE c CURSOR FOR SELECT to_jsonb(d) FROM public.docs d; FETCH c; COMMIT",
        "PREPARE p AS SELECT json_agg(d) FROM public.docs d; EXECUTE p",
    ] {
        let shown = seen(&mut client, query);
        assert!(shown.contains("canary") && !shown.contains("pgseal:"), "{query}: {shown}");
    }
    // Where PostgreSQL is built with XML.
    if client.batch_execute("SELECT xmlforest(1 AS one)").is_ok() {
        assert!(seen(&mut client, "SELECT xmlforest(body, id) FROM public.docs").contains("canary text"));
    }
    client.run("SET search_path = ''");
    let columns = "SELECT row_to_json(d)::text FROM public.docs d";
    assert_eq!(seen(&mut client, columns), r#"{"id":1,"sealed":{"a": "canary"},"body":"canary text"}"#);
    // No row is not a row of NULLs.
    let joined = "SELECT coalesce(to_jsonb(d)::text, 'none') FROM (VALUES (7)) v (id) LEFT JOIN public.docs d USING (id)";
    assert_eq!(seen(&mut client, joined), "none");
    assert_eq!(
        seen(
            &mut client,
            "SELECT count(d) || ' ' || pg_typeof(d.sealed) FROM public.docs d GROUP BY pg_typeof(d.sealed)"
        ),
        "1 public.encrypted_jsonb"
    );
}

#[test]
fn whole_rows_that_an_aggregate_orders_by_are_no_arguments() {
    let mut client = database();
    client.run("SET jit = off");
    let names: Vec<String> = (1..=12).map(|number| format!("r{number}")).collect();
    let order = names.join(", ");
    let tables = names.iter().map(|name| format!("(SELECT * FROM docs OFFSET 0) {name}"));
    let tables = tables.collect::<Vec<_>>().join(", ");
    for aggregate in
        ["json_agg(d.sealed", "jsonb_agg(d", "json_object_agg(d.body, d.sealed", "jsonb_object_agg(d.id, d"]
    {
        let query = format!("SELECT {aggregate} ORDER BY {order}) FROM docs d, {tables}");
        let shown = seen(&mut client, &query);
        assert!(shown.contains("canary") && !shown.contains("pgseal:"), "{query}: {shown}");
    }
}

#[test]
fn a_statement_that_cannot_reveal_gives_an_error_no_ciphertext() {
    let mut client = database();
    client.run(
        "CREATE VIEW lines AS SELECT id, to_jsonb(d) AS j, format('%s', body) AS f FROM docs d;
         CREATE TYPE pair AS (id int, sealed encrypted_jsonb); CREATE TABLE lists (l encrypted_jsonb(k)[], p pair);
         INSERT INTO lists SELECT ARRAY[sealed], ROW(id, sealed)::pair FROM docs;
         CREATE FUNCTION told(docs) RETURNS text LANGUAGE sql AS 'SELECT concat($1.body)'",
    );
    for query in [
        "SELECT j FROM lines",
        "SELECT concat(f, '!') FROM lines",
        "SELECT l FROM lists",
        "SELECT l::text FROM lists",
        "SELECT array_to_json(l) FROM lists",
        "SELECT p FROM lists",
        "SELECT to_jsonb(p) FROM lists",
        "SELECT told(d) FROM docs d",
        "SELECT max(f) FROM lines",
        "BEGIN; DECLARE c CURSOR FOR SELECT l FROM lists; FETCH c",
        "PREPARE q AS SELECT l FROM lists; EXECUTE q",
    ] {
        let error = client.error(query);
        assert_eq!(error.code().code(), "0A000", "{query}");
        assert!(error.hint().is_some_and(|hint| hint.contains("pgseal.decrypt")), "{query}");
        client.run("ROLLBACK");
    }
    assert!(client.query("SELECT l FROM lists", &[]).is_err(), "in binary");
    // What does not go to the client, or was asked for in so many words, is ciphertext as ever.
    client.run("CREATE TABLE kept AS SELECT format('%s', body) AS f FROM docs; INSERT INTO kept SELECT concat(body) FROM docs");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM kept WHERE f LIKE 'pgseal:%'"), 2);
    assert!(
        seen(&mut client, "SELECT pgseal.encrypted_jsonb_out(sealed)::text FROM docs").starts_with("pgseal:")
    );
    client.run("ALTER TABLE docs ALTER body SET DEFAULT 'canary'");
    assert!(seen(&mut client, "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef").contains("pgseal:"));
    assert!(seen(&mut client, "EXPLAIN (VERBOSE) SELECT body = 'x' OR body = 'y' FROM docs").len() > 1);
    assert_eq!(seen(&mut client, "SELECT l[1] FROM lists"), DOCUMENT);
    assert_eq!(seen(&mut client, "SELECT (p).sealed FROM lists"), DOCUMENT);
}

#[test]
fn parallel_workers_take_the_setting_over() {
    let mut client = database();
    let forced = if major_version() < 16 { "force_parallel_mode" } else { "debug_parallel_query" };
    client.run(&format!(
        "SET {forced} = on; SET parallel_setup_cost = 0; SET min_parallel_table_scan_size = 0"
    ));
    client.run("SET parallel_tuple_cost = 0; ALTER TABLE docs SET (parallel_workers = 2); SET enable_indexscan = off");
    let plan = client.column::<String>("EXPLAIN SELECT sealed FROM docs WHERE id > 0").join("\n");
    assert!(plan.contains("Gather"), "{plan}");
    assert_eq!(seen(&mut client, "SELECT sealed FROM docs WHERE id > 0"), DOCUMENT);
}

#[test]
fn a_value_with_a_context_is_an_error_as_the_setting_names_none() {
    let mut client = database();
    assert_eq!(client.state(r#"SELECT pgseal.encrypt('{"a": 1}'::jsonb, 'k', 'row 1')"#), "22000");
}

#[test]
fn reveal_needs_the_decrypt_privilege() {
    let mut client = database();
    let name = client.database();
    client.run(&format!("CREATE ROLE {name}_role LOGIN; GRANT SELECT ON docs TO {name}_role"));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{name}_role', ARRAY['encrypt', 'search'])"));
    let mut session = shared().connect_as(&format!("{name}_role"), &name);
    // Any of our functions loads the library where nothing has preloaded it.
    session.run("SELECT pgseal.key_version(sealed) FROM docs; SET pgseal.reveal = on");
    assert_eq!(session.state("SELECT sealed FROM docs"), "42501");
}

#[test]
fn a_superuser_has_it_stand_for_roles_and_databases() {
    let mut client = database();
    let name = client.database();
    client.run(&format!("CREATE ROLE {name}_role LOGIN; GRANT SELECT ON docs TO {name}_role"));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{name}_role', ARRAY['decrypt'])"));
    for refused in [
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET pgseal.reveal = on AS 'SELECT 1'",
        "ALTER SYSTEM SET pgseal.reveal = on",
    ] {
        let error = client.error(refused);
        assert_eq!(error.code().code(), "22023", "{refused}");
        assert!(error.hint().is_some_and(|hint| hint.contains("SET pgseal.reveal")), "{refused}");
    }
    let mut own = shared().connect_as(&format!("{name}_role"), &name);
    own.run("SELECT pgseal.key_version(sealed) FROM docs");
    assert_eq!(own.state("ALTER ROLE CURRENT_USER SET pgseal.reveal = on"), "22023");
    for (stands, ends) in [
        (
            format!("ALTER ROLE {name}_role SET pgseal.reveal = on"),
            format!("ALTER ROLE {name}_role RESET ALL"),
        ),
        (format!("ALTER DATABASE {name} SET pgseal.reveal = on"), format!("ALTER DATABASE {name} RESET ALL")),
    ] {
        client.run(&stands);
        let mut session = shared().connect_as(&format!("{name}_role"), &name);
        // Nothing has preloaded the library here.
        session.run("SELECT pgseal.key_version(sealed) FROM docs");
        assert_eq!(seen(&mut session, "SELECT sealed FROM docs"), DOCUMENT, "{stands}");
        session.run("SET pgseal.reveal = off");
        assert!(seen(&mut session, "SELECT sealed FROM docs").starts_with("pgseal:"));
        session.run("RESET ALL");
        assert_eq!(seen(&mut session, "SELECT sealed FROM docs"), DOCUMENT, "{stands}");
        client.run(&ends);
    }
}

#[test]
fn connection_options_switch_it_on_and_files_do_not() {
    let cluster = Cluster::start(&[
        "session_preload_libraries = 'pgseal'",
        "pgseal.reveal = on",
        "wal_level = logical",
    ]);
    cluster.connect("postgres").run("CREATE EXTENSION pgseal CASCADE");
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k'); CREATE TABLE docs (id int PRIMARY KEY, sealed encrypted_jsonb(k))");
    client.run(r#"INSERT INTO docs VALUES (1, '{"a": "canary"}')"#);
    assert_eq!(client.one::<String>("SHOW pgseal.reveal"), "off");
    let mut config = cluster.config("postgres", "postgres");
    let mut optioned = config.options("-c pgseal.reveal=on").connect(postgres::NoTls).unwrap();
    assert_eq!(seen(&mut optioned, "SELECT sealed FROM docs"), DOCUMENT);
    optioned.run("SET pgseal.reveal = off");
    assert!(seen(&mut optioned, "SELECT sealed FROM docs").starts_with("pgseal:"));
    // Preloaded, it works from the first statement on.
    assert_eq!(
        seen(&mut cluster.connect("postgres"), "SET pgseal.reveal = on; SELECT sealed FROM docs"),
        DOCUMENT
    );

    let mut dump = cluster.program("pg_dump", "postgres");
    let dumped =
        dump.env("PGOPTIONS", "-c pgseal.reveal=on").args(["-d", "postgres", "-t", "docs"]).output().unwrap();
    let dumped = String::from_utf8_lossy(&dumped.stdout);
    assert!(dumped.contains("pgseal:") && !dumped.contains("canary"), "{dumped}");

    if lacks("test_decoding") {
        return;
    }
    client.run("SELECT pg_create_logical_replication_slot('s', 'test_decoding'); SET pgseal.reveal = on");
    client.run("UPDATE docs SET sealed = sealed || '{\"b\": 1}'");
    let decoded =
        client.column::<String>("SELECT data FROM pg_logical_slot_get_changes('s', NULL, NULL)").join("\n");
    assert!(decoded.contains("pgseal:") && !decoded.contains("canary"), "{decoded}");
}

#[test]
fn a_part_that_is_cast_reads_as_text_and_is_in_no_error() {
    let mut client = database();
    client.run("SET pgseal.reveal = off; DELETE FROM docs");
    client.run(r#"INSERT INTO docs VALUES (1, '{"age": 52, "at": "2024-05-01", "ok": true, "word": "canary", "x": {"y": 1}}')"#);
    assert_eq!(client.one::<i32>("SELECT (sealed ->> 'age')::int FROM docs"), 52);
    assert!(client.one::<bool>("SELECT (sealed ->> 'age')::numeric > 50 AND (sealed ->> 'ok')::bool AND (sealed ->> 'at')::date = '2024-05-01' FROM docs"));
    assert!(client.one::<bool>(
        "SELECT (sealed ->> 'x')::jsonb -> 'y' = '1' AND (sealed ->> 'none')::int IS NULL FROM docs"
    ));
    for (cast, state) in
        [("int", "22P02"), ("date", "22007"), ("bool", "22P02"), ("uuid", "22P02"), ("jsonb", "22P02")]
    {
        let error = client.error(&format!("SELECT (sealed ->> 'word')::{cast} FROM docs"));
        assert_eq!(error.code().code(), state, "{cast}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
    client.run("CREATE TABLE numbers (n int)");
    assert_eq!(client.state("INSERT INTO numbers SELECT sealed ->> 'age' FROM docs"), "42804");
    client.run("SET search_path = public, pgseal");
    assert!(client.one::<bool>("SELECT jsonb_path_match(sealed, '$.age == $v', '{\"v\": 52}') AND jsonb_exists(sealed, 'age') FROM docs"));
    assert!(client.one::<bool>("SELECT jsonb_path_exists(sealed, '$.age ? (@ > 50)') FROM docs"));
}
