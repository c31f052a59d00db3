//! No statement of any role ends the server.

use postgres::Client;

use crate::support::{Cluster, Sql, fresh_database, with_keyring};

const SETTINGS: [&str; 2] = ["shared_preload_libraries = 'pgseal'", "max_prepared_transactions = 2"];

/// A preloaded server with ten rows, one keyring and the log of decrypts on.
fn preloaded() -> (Cluster, Client) {
    let cluster = Cluster::with_pgseal(&SETTINGS);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('a', ARRAY['$.n']); SET pgseal.log_decrypts = statement");
    client.run("CREATE TABLE e (id int, m encrypted_jsonb(a), x encrypted_text(a))");
    client.run(r#"INSERT INTO e SELECT i, '{"n": "Ann"}'::jsonb, 'v' FROM generate_series(1, 10) i"#);
    (cluster, client)
}

#[test]
fn a_holdable_cursor_ends_as_any_other() {
    let (cluster, mut client) = preloaded();
    let server = cluster.postmaster();
    cluster.connect("template1").run("DECLARE c CURSOR WITH HOLD FOR SELECT 1; CLOSE c");
    client.run("DECLARE c CURSOR WITH HOLD FOR SELECT id, pgseal.decrypt(m) FROM e");
    assert_eq!(client.column::<i32>("FETCH 2 FROM c"), [1, 2]);
    client.run(
        "BEGIN; DECLARE d SCROLL CURSOR WITH HOLD FOR SELECT id FROM e WHERE m ->> 'n' = 'Ann' ORDER BY id",
    );
    assert_eq!(client.column::<i32>("FETCH 3 FROM d"), [1, 2, 3]);
    client.run("COMMIT");
    assert_eq!(client.column::<i32>("FETCH BACKWARD 1 FROM d"), [2]);
    client.run("CLOSE ALL");

    // One that fails while it is stored, and one whose session ends.
    client.run("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1 / (5 - id), pgseal.decrypt(m) FROM e");
    client.run("FETCH 1 FROM c");
    assert_eq!(client.state("COMMIT"), "22012");
    cluster.connect("postgres").run("DECLARE c CURSOR WITH HOLD FOR SELECT pgseal.decrypt(x) FROM e");
    assert_eq!((client.one::<i32>("SELECT 1"), cluster.postmaster()), (1, server));
}

#[test]
fn cursors_of_functions_and_procedures_end_as_any_other() {
    let (_cluster, mut client) = preloaded();
    client.run(
        "CREATE FUNCTION opened() RETURNS refcursor LANGUAGE plpgsql AS $$
           DECLARE r refcursor := 'r'; BEGIN OPEN r FOR SELECT id, pgseal.decrypt(m) FROM e; RETURN r; END $$;
         CREATE PROCEDURE committing() LANGUAGE plpgsql AS $$
           DECLARE one record; BEGIN FOR one IN SELECT pgseal.decrypt(m) FROM e LOOP COMMIT; END LOOP; END $$;
         CREATE PROCEDURE in_sql() LANGUAGE sql AS $$ UPDATE e SET x = 'w' WHERE id = 1; SELECT pgseal.decrypt(x) FROM e $$",
    );
    client.run("BEGIN; SELECT opened()");
    assert_eq!(client.column::<i32>("FETCH 2 FROM r"), [1, 2]);
    client.run("COMMIT");
    client.run("CALL committing()");
    client.run("CALL in_sql()");
    client.run(r#"DO $$ BEGIN FOR i IN 11..13 LOOP INSERT INTO e VALUES (i, '{"n": "Bob"}', 'v'); COMMIT; END LOOP; END $$"#);
    client.run("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT opened(); FETCH 1 FROM c; ROLLBACK");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM e"), 13);
}

#[test]
fn portals_of_the_extended_protocol_end_as_any_other() {
    let (_cluster, mut client) = preloaded();
    let mut transaction = client.transaction().unwrap();
    let portal = transaction.bind("SELECT id, pgseal.decrypt(x) FROM e ORDER BY id", &[]).unwrap();
    assert_eq!(transaction.query_portal(&portal, 3).unwrap().len(), 3);
    // Between two parts of it other statements run, fail and are rolled back.
    let mut inner = transaction.transaction().unwrap();
    assert!(inner.batch_execute("SELECT pgseal.decrypt(x), 1 / (id - 5) FROM e").is_err());
    inner.rollback().unwrap();
    assert_eq!(transaction.query_portal(&portal, 4).unwrap()[0].get::<_, i32>(0), 4);
    transaction.batch_execute("DECLARE c CURSOR WITH HOLD FOR SELECT pgseal.decrypt(m) FROM e").unwrap();
    transaction.commit().unwrap();
    assert_eq!(client.query("FETCH ALL FROM c", &[]).unwrap().len(), 10);
}

#[test]
fn statements_inside_statements_end_as_any_other() {
    let (cluster, mut client) = preloaded();
    client.run("PREPARE p AS SELECT id, pgseal.decrypt(m) FROM e");
    client.run("EXPLAIN EXECUTE p; EXPLAIN ANALYZE EXECUTE p; CREATE TABLE made AS EXECUTE p");
    client.run("EXPLAIN ANALYZE DECLARE c CURSOR FOR SELECT pgseal.decrypt(x) FROM e");
    client.run("LISTEN l; NOTIFY l; COPY (SELECT pgseal.decrypt(x) FROM e) TO '/dev/null'");
    client.run("BEGIN; DECLARE c CURSOR FOR SELECT pgseal.decrypt(m) FROM e; FETCH 1 FROM c; CLOSE c; SELECT * FROM e; PREPARE TRANSACTION 't'");
    client.run("COMMIT PREPARED 't'");
    client.run("VACUUM FULL e");
    client.run("ANALYZE e");
    assert_eq!(cluster.log().matches("was terminated by signal").count(), 0);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM made"), 10);
}

#[test]
fn what_a_function_decrypts_belongs_to_its_statement() {
    let (cluster, mut client) = preloaded();
    client.run(
        "CREATE TABLE into_here (d text);
         CREATE FUNCTION counted() RETURNS SETOF text LANGUAGE sql VOLATILE AS
           $$ INSERT INTO into_here SELECT pgseal.decrypt(x) FROM e WHERE id < 3; SELECT pgseal.decrypt(x) FROM e $$",
    );
    let calls = [
        "SELECT counted()",
        "INSERT INTO into_here SELECT counted()",
        "DECLARE c CURSOR WITH HOLD FOR SELECT counted()",
    ];
    for statement in calls {
        let position = cluster.log().len();
        client.run(statement);
        let log = cluster.log()[position..].to_owned();
        assert!(log.contains("pgseal: decrypted 12 values"), "{statement}: {log}");
    }
}

/// A value to pass for a parameter of this type; NULL where any will do.
fn argument(of: &str, value: &str) -> String {
    match of {
        "encrypted_jsonb" | "encrypted_text" => value.to_owned(),
        "encrypted_filter" => r#"pgseal.filter('{"z": 1}')"#.to_owned(),
        "jsonb" | "json" => format!(r#"'{{"z": 1}}'::{of}"#),
        "integer" | "smallint" | "bigint" | "numeric" => format!("1::{of}"),
        "text[]" => "'{z}'::text[]".to_owned(),
        "jsonb[]" => r#"ARRAY['{"z": 1}'::jsonb]"#.to_owned(),
        "encrypted_jsonb[]" | "encrypted_text[]" => format!("ARRAY[{value}]"),
        "boolean" => "false".to_owned(),
        "timestamp with time zone" => "now()".to_owned(),
        _ => format!("'$.z'::{of}"),
    }
}

/// What may answer about a value whatever it holds: it reads no more than header and tokens, or judges it.
const BYTES_ONLY: [&str; 13] = [
    "answers",
    "check_value",
    "encrypted_jsonb_out",
    "encrypted_jsonb_send",
    "encrypted_text_out",
    "encrypted_text_send",
    "head_of",
    "index_key_version",
    "is_current",
    "key_version",
    "keyring_id",
    "reseal_problem",
    "sealed_text",
];

/// Calls every C function that takes the type, whose column `t.v` holds a value of the other one.
fn refuse_everywhere(client: &mut Client, own: &str) {
    let functions = "SELECT p.proname::text, array_to_string(ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY u (t, i) ORDER BY i), ',')
        FROM pg_proc p WHERE p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c') AND $1::text::regtype = ANY (p.proargtypes)
          AND NOT 'internal'::regtype = ANY (p.proargtypes) AND p.pronamespace = 'pgseal'::regnamespace ORDER BY 1, 2";
    let rows = client.query(functions, &[&own]).unwrap();
    client.run("LOAD 'pgseal'; SET pgseal.reveal = on");
    assert!(rows.len() > 15, "the functions of {own}: {}", rows.len());
    for row in rows {
        let (name, types): (String, String) = (row.get(0), row.get(1));
        let arguments: Vec<String> = types.split(',').map(|of| argument(of, "v")).collect();
        let call = format!("SELECT pgseal.{name}({})::text FROM t", arguments.join(", "));
        match client.simple_query(&call) {
            Ok(_) if name == "token_match" || BYTES_ONLY.contains(&name.as_str()) => {}
            Ok(_) => panic!("{call} gave an answer"),
            Err(error) => {
                let state = error.code().unwrap_or_else(|| panic!("{call}: {error}")).code().to_owned();
                // 42846: a cast that nobody wrote out.
                assert!(["22P03", "42883", "22023", "42846"].contains(&state.as_str()), "{call}: {error}");
            }
        }
    }
}

/// A column `t.v` of a type, with a value that was written for the other one, as a writer on the disk could do it.
fn with_value_of(written: &str, own: &str, value: &str) -> Client {
    let mut client = fresh_database();
    // What the own type would ask about is not searchable, so that no token answers before the value is read.
    let searchable = if own == "encrypted_text" { "$.a" } else { "$" };
    client.run(&format!("SELECT pgseal.create_keyring('k', ARRAY['{searchable}'])"));
    client.run(&format!("CREATE TABLE t (v {written}(k)); INSERT INTO t VALUES ({value})"));
    client.run(&format!(
        "UPDATE pg_attribute SET atttypid = '{own}'::regtype WHERE attrelid = 't'::regclass AND attname = 'v'"
    ));
    client
}

#[test]
fn a_text_in_a_column_of_documents_is_refused() {
    // Read as a document it is an object with millions of keys.
    let bytes = r"E'\x0f\x7f\x7f/' || repeat(E'\x7f\x7f\x7f/', 6)";
    let mut client = with_value_of("encrypted_text", "encrypted_jsonb", bytes);
    refuse_everywhere(&mut client, "encrypted_jsonb");
    for statement in [
        "SELECT v -> 'a' FROM t",
        r#"SELECT v || '{"a": 1}' FROM t"#,
        "SELECT v::text FROM t",
        "SELECT v::jsonb FROM t",
        "SELECT count(*) FROM t WHERE v ->> 'z' = 'x'",
        r#"SELECT count(*) FROM t WHERE v @> '{"z": 1}'"#,
        "CREATE INDEX ON t USING gin (v)",
        "CREATE TABLE copy (v encrypted_jsonb(k)); INSERT INTO copy SELECT v || v FROM t",
        "SELECT v FROM t",
    ] {
        let error = client.error(statement);
        assert_eq!((error.code().code(), error.hint().is_some()), ("22P03", true), "{statement}: {error}");
    }
    let verdict = client.one::<String>("SELECT c.result FROM t, pgseal.check_value(v, NULL, false) c");
    assert_eq!(verdict, "corrupt");
}

#[test]
fn a_document_in_a_column_of_texts_is_refused() {
    let mut client = with_value_of("encrypted_jsonb", "encrypted_text", r#"'{"a": "x"}'::jsonb"#);
    refuse_everywhere(&mut client, "encrypted_text");
    for statement in [
        "SELECT v::text FROM t",
        "SELECT v::int FROM t",
        "SELECT v::name FROM t",
        "SELECT count(*) FROM t WHERE v = v",
        "CREATE INDEX ON t USING gin (v)",
        "SELECT v FROM t",
    ] {
        assert_eq!(client.state(statement), "22P03", "{statement}");
    }
}

#[test]
fn a_filter_as_a_value_and_a_value_as_a_filter_are_refused() {
    let mut client = with_keyring("{$.a}");
    client.run(r#"CREATE TABLE t AS SELECT pgseal.filter('{"a": 1}', 'k') AS v, '{"a": 1}'::jsonb::encrypted_jsonb(k) AS f"#);
    client.run(
        "UPDATE pg_attribute SET atttypid = CASE attname WHEN 'v' THEN 'encrypted_jsonb' ELSE 'encrypted_filter' END::regtype
           WHERE attrelid = 't'::regclass AND attname IN ('v', 'f')",
    );
    for statement in [
        "SELECT v -> 'a' FROM t",
        "SELECT pgseal.decrypt(v) FROM t",
        "SELECT pgseal.reseal(v) FROM t",
        "SELECT v @> '{\"z\": 1}' FROM t",
        "SELECT '{\"a\": 1}'::jsonb::encrypted_jsonb(k) @@ f FROM t",
        "SELECT pgseal.refresh(f) FROM t",
        "CREATE INDEX ON t USING gin (v)",
    ] {
        assert_eq!(client.state(statement), "22P03", "{statement}");
    }
    client.run("UPDATE pg_attribute SET atttypid = 'encrypted_text'::regtype WHERE attrelid = 't'::regclass AND attname = 'v'");
    assert_eq!(client.state("SELECT v = 'x' FROM t"), "22P03");
}

#[test]
fn errors_of_postgresql_come_without_a_backtrace() {
    let cluster = Cluster::start_with(&SETTINGS, &[("RUST_BACKTRACE", "1"), ("RUST_LIB_BACKTRACE", "1")]);
    let mut client = cluster.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE; SELECT pgseal.create_keyring('k', ARRAY['$'])");
    client
        .run("CREATE TABLE t (m encrypted_jsonb(k), x encrypted_text(k)); INSERT INTO t VALUES ('[1]', 'v')");
    for (statement, state) in [
        ("SELECT m - 'a' FROM t WHERE pgseal.decrypt(m - 0) = '[]' AND m || '5' #- '{a}' IS NULL", "22P02"),
        ("SELECT x::int FROM t", "22P02"),
        ("INSERT INTO t VALUES ('{')", "22P02"),
        ("SELECT pgseal.decrypt(m || '5') #- '{x}' FROM t", "22P02"),
        ("SELECT m #- '{x}' FROM t", "22P02"),
        ("SELECT pgseal.filter('{}', 'none')", "42704"),
        ("SELECT pgseal.rotate_key('none')", "42704"),
    ] {
        let error = client.error(statement);
        assert_eq!(error.code().code(), state, "{statement}: {error}");
        let detail = error.detail().unwrap_or_default();
        assert!(!detail.contains("rust") && !detail.contains("0:"), "{statement}: {detail}");
    }
    let log = cluster.log();
    assert!(!log.contains("pgseal.so") && !log.contains("pgrx"), "{log}");
}
