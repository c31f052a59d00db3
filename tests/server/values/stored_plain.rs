//! A role for which `pgseal.reveal` stands computes with plaintext, and stores none: not in a table, a file of the server or its
//! log. `body` holds "canarybird" and only the capitals are looked for, which nobody has typed.

use std::path::Path;

use postgres::Client;

use crate::support::{Cluster, Sql, major_version, output};

fn standing() -> (Cluster, Client) {
    let cluster = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
    let mut root = cluster.connect("postgres");
    root.run(
        r#"SELECT pgseal.create_keyring('k', searchable => '{$.p}'); SELECT pgseal.set_default_keyring('k');
           CREATE ROLE app LOGIN; ALTER ROLE app SET pgseal.reveal = on; GRANT ALL ON SCHEMA public TO app; GRANT CREATE ON DATABASE postgres TO app;
           SELECT pgseal.grant_keyring('k', 'app', ARRAY['encrypt', 'search', 'decrypt'])"#,
    );
    let mut app = cluster.connect_as("app", "postgres");
    app.run(
        r#"CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), body encrypted_text(k), line text);
           INSERT INTO docs VALUES (1, '{"p": "canarybird"}', 'canarybird');
           CREATE TABLE retyped (body encrypted_text(k)); INSERT INTO retyped VALUES ('canarybird');
           CREATE TABLE log (line text); CREATE TABLE lists (l text[]); CREATE TABLE documents (m jsonb);
           CREATE VIEW loud AS SELECT id, upper(body) AS u, m['p'] AS p FROM docs"#,
    );
    (cluster, app)
}

fn holds(path: &Path) -> bool {
    if path.is_dir() {
        return std::fs::read_dir(path).unwrap().any(|entry| holds(&entry.unwrap().path()));
    }
    std::fs::read(path).is_ok_and(|bytes| bytes.windows(10).any(|part| part == b"CANARYBIRD"))
}

/// Nothing was stored, and what the server has written holds nothing.
fn assert_nothing_stored(cluster: &Cluster, client: &mut Client) {
    cluster.connect("postgres").run("CHECKPOINT");
    assert!(!holds(&cluster.data_dir()), "plaintext in a file");
    assert!(!cluster.log().contains("CANARYBIRD"), "plaintext in the log");
    for table in ["log", "lists", "documents"] {
        assert_eq!(client.one::<i64>(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
}

#[test]
fn no_statement_stores_what_an_implied_cast_gives() {
    let (cluster, mut app) = standing();
    assert_eq!(app.one::<String>("SELECT upper(body) FROM docs"), "CANARYBIRD");
    app.run("PREPARE p AS SELECT upper(body) AS u FROM docs; EXECUTE p");
    for sql in [
        "INSERT INTO log SELECT upper(body) FROM docs",
        "INSERT INTO log SELECT body FROM docs",
        "INSERT INTO documents SELECT m FROM docs",
        "INSERT INTO documents SELECT m['p'] FROM docs",
        "INSERT INTO log SELECT body || '!' FROM docs",
        "INSERT INTO log VALUES ((SELECT upper(body) FROM docs))",
        "INSERT INTO log VALUES ('x'), ((SELECT upper(body) FROM docs))",
        "INSERT INTO log SELECT u FROM (SELECT upper(body) AS u FROM docs OFFSET 0) s",
        "INSERT INTO log SELECT upper(body) FROM docs UNION ALL SELECT 'x'",
        "INSERT INTO log SELECT upper(body) FROM docs GROUP BY 1 HAVING upper(body) <> ''",
        "INSERT INTO log SELECT u FROM loud",
        "INSERT INTO docs (id, body, line) SELECT 2, u, u FROM (SELECT upper(body) AS u FROM docs) s",
        "INSERT INTO docs (id, body, line) SELECT 2, s.u, t.u FROM (SELECT upper(body) AS u FROM docs) s, LATERAL (SELECT s.u) t",
        "INSERT INTO docs (id, body, line) SELECT 2, u, u FROM (SELECT upper(body) AS u FROM docs) s JOIN (VALUES (1)) v (n) ON true",
        "INSERT INTO docs (id, body, line) SELECT 2, u, u FROM (SELECT upper(body) AS u FROM docs) s NATURAL JOIN (SELECT upper(body) AS u FROM docs) t",
        "INSERT INTO log SELECT COALESCE(body, 'x'::text) FROM docs",
        "INSERT INTO log SELECT COALESCE(body, 'x'::varchar) FROM docs",
        "INSERT INTO log SELECT CASE WHEN id = 1 THEN body ELSE 'x'::text END FROM docs",
        "INSERT INTO log SELECT upper(COALESCE(body, 'x'::varchar)) FROM docs",
        "INSERT INTO log SELECT body FROM docs UNION ALL SELECT 'x'::text",
        "INSERT INTO log SELECT 'x'::text UNION SELECT body FROM docs",
        "INSERT INTO log SELECT u FROM (SELECT body AS u FROM docs UNION ALL SELECT 'x'::text) s",
        "INSERT INTO docs (id, body, line) SELECT 2, u, u FROM (SELECT body AS u FROM docs UNION ALL SELECT 'x'::text) s",
        "INSERT INTO docs (id, body, line) SELECT 2, body, body FROM docs UNION ALL SELECT 3, 'x'::text, 'x'::text",
        "INSERT INTO log SELECT body || body FROM docs",
        "INSERT INTO log SELECT m::json FROM docs",
        "INSERT INTO log SELECT encode(body::bytea, 'escape') FROM docs",
        "INSERT INTO log VALUES ((SELECT body FROM docs)), ('x'::text)",
        "INSERT INTO log SELECT v FROM docs, LATERAL (VALUES (body), ('x'::text)) s (v)",
        "INSERT INTO log SELECT GREATEST(body, 'x'::text) FROM docs",
        "INSERT INTO log SELECT GREATEST(body, body) FROM docs",
        "INSERT INTO documents SELECT GREATEST(m, '{}'::jsonb) FROM docs",
        "INSERT INTO documents (m['x']) SELECT m['p'] FROM docs",
        "INSERT INTO documents (m['x']) SELECT m FROM docs",
        "UPDATE docs SET line = GREATEST(body, 'x'::varchar)",
        "INSERT INTO lists SELECT ARRAY(SELECT upper(body) FROM docs)",
        "INSERT INTO lists SELECT ARRAY(SELECT body FROM docs)",
        "INSERT INTO lists SELECT ARRAY[body, 'x'::text] FROM docs",
        "UPDATE docs SET line = COALESCE(body, 'x'::varchar)",
        "UPDATE docs SET line = m['p']",
        "WITH w AS (SELECT body AS u FROM docs UNION ALL SELECT 'x'::text), k AS (INSERT INTO log SELECT u FROM w RETURNING 1) SELECT count(*) FROM k",
        "CREATE TABLE made AS SELECT COALESCE(body, 'x'::varchar) FROM docs",
        "CREATE TABLE made AS SELECT body FROM docs UNION ALL SELECT 'x'::text",
        "CREATE TABLE made AS SELECT m::json FROM docs",
        "INSERT INTO lists SELECT array_agg(body) FROM docs",
        "INSERT INTO lists SELECT ARRAY[upper(body)] FROM docs",
        "UPDATE docs SET line = upper(body)",
        "UPDATE docs SET (body, line) = (SELECT upper(body), upper(body))",
        "UPDATE docs d SET line = l.u FROM loud l",
        "INSERT INTO docs (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET line = upper(docs.body)",
        "MERGE INTO docs d USING docs s ON d.id = s.id WHEN MATCHED THEN UPDATE SET line = upper(s.body)",
        "MERGE INTO log USING docs s ON false WHEN NOT MATCHED THEN INSERT VALUES (upper(s.body))",
        "WITH w AS (SELECT upper(body) AS u FROM docs), k AS (INSERT INTO log SELECT u FROM w RETURNING 1) SELECT count(*) FROM k",
        "WITH w AS (UPDATE docs SET id = id RETURNING upper(body) AS u), k AS (INSERT INTO log SELECT u FROM w RETURNING 1) SELECT count(*) FROM k",
        "WITH w AS (UPDATE docs SET id = id RETURNING upper(body) AS u) INSERT INTO log SELECT u FROM w",
        "CREATE TABLE made AS SELECT upper(body) FROM docs",
        "CREATE TABLE made AS SELECT u, p FROM loud",
        "SELECT upper(body) INTO made FROM docs",
        "CREATE MATERIALIZED VIEW made AS SELECT * FROM loud",
        "CREATE TABLE made AS EXECUTE p",
        "PREPARE v AS SELECT u FROM loud; EXECUTE v; CREATE TABLE made AS EXECUTE v",
        "EXPLAIN ANALYZE CREATE TABLE made AS SELECT upper(body) FROM docs",
        "EXPLAIN ANALYZE CREATE TABLE made AS EXECUTE p",
        "EXPLAIN ANALYZE INSERT INTO log SELECT upper(body) FROM docs",
        "ALTER TABLE retyped ALTER body TYPE text",
        "ALTER TABLE docs ALTER line TYPE text USING upper(body)",
        "SELECT set_config('my.own', body, false) FROM docs",
        "SELECT pg_notify('c', upper(body)) FROM docs",
        "SELECT pg_logical_emit_message(false, 'x', upper(body)) FROM docs",
        "DO $$ BEGIN INSERT INTO log SELECT upper(body) FROM docs; END $$",
        "DO $$ DECLARE t text; BEGIN SELECT upper(body) INTO t FROM docs; INSERT INTO log VALUES (t); END $$",
        "DO $$ DECLARE t text; BEGIN EXECUTE 'EXECUTE p' INTO t; INSERT INTO log VALUES (t); END $$",
    ] {
        let error = app.error(sql);
        assert!(["42846", "42883", "55000"].contains(&error.code().code()), "{sql}: {error:?}");
        assert!(error.hint().is_some(), "{sql}: {error:?}");
        app.run("ROLLBACK");
    }
    assert_eq!(app.text("EXECUTE p"), "CANARYBIRD");
    for query in ["SELECT upper(body) FROM docs", "UPDATE docs SET id = id RETURNING upper(body)"] {
        let copy = format!("COPY ({query}) TO STDOUT");
        let copied = output(cluster.program("psql", "app").args(["-X", "-d", "postgres", "-c", &copy]));
        assert!(!String::from_utf8_lossy(&copied.stdout).contains("CANARYBIRD"), "{query}");
        assert!(String::from_utf8_lossy(&copied.stderr).contains("is not cast to text"), "{query}");
    }
    assert_nothing_stored(&cluster, &mut app);
}

#[test]
fn no_function_trigger_or_rule_stores_it_for_its_caller() {
    let (cluster, mut app) = standing();
    app.run(
        "CREATE FUNCTION by_text() RETURNS int LANGUAGE sql AS 'INSERT INTO log SELECT upper(body) FROM docs RETURNING 1';
         CREATE FUNCTION by_body() RETURNS int LANGUAGE sql BEGIN ATOMIC INSERT INTO log SELECT upper(body) FROM docs RETURNING 1; END;
         CREATE FUNCTION gives() RETURNS text LANGUAGE sql AS 'SELECT upper(body) FROM docs LIMIT 1';
         CREATE FUNCTION gives_all() RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT upper(body) FROM docs';
         CREATE FUNCTION early() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper(body) FROM docs LIMIT 1';
         CREATE FUNCTION keep(text) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES ($1); RETURN 1; END';
         CREATE FUNCTION keep_first(text, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES ($2); RETURN $2; END';
         CREATE AGGREGATE keep_all(text) (SFUNC = keep_first, STYPE = text);
         CREATE PROCEDURE runs() LANGUAGE sql AS 'INSERT INTO log SELECT upper(body) FROM docs';
         PREPARE store(text) AS INSERT INTO log VALUES ($1); PREPARE p AS SELECT upper(body) FROM docs",
    );
    for sql in [
        "SELECT by_text()",
        "SELECT by_body()",
        "INSERT INTO log SELECT gives()",
        "INSERT INTO log SELECT * FROM gives_all()",
        "INSERT INTO log SELECT early()",
        "CREATE TABLE made AS SELECT early()",
        "EXECUTE store(gives())",
        "EXECUTE store(early())",
        "SELECT keep(body) FROM docs",
        "SELECT keep(upper(body)) FROM docs",
        "SELECT keep_all(upper(body)) FROM docs",
        "SELECT keep(COALESCE(body, 'x'::varchar)) FROM docs",
        "SELECT keep(GREATEST(body, 'x'::text)) FROM docs",
        "SELECT keep(body || body) FROM docs",
        "SELECT keep(u) FROM (SELECT body AS u FROM docs UNION ALL SELECT 'x'::text) s",
        "SELECT keep(v) FROM docs, LATERAL (VALUES (body), ('x'::text)) s (v)",
        "SELECT keep(array_to_string(ARRAY[body, 'x'::text], ',')) FROM docs",
        "SELECT d.id FROM docs d, LATERAL keep(d.body)",
        "SELECT keep(u) FROM (SELECT upper(body) AS u FROM docs OFFSET 0) s",
        "WITH w AS (SELECT upper(body) AS u FROM docs) SELECT keep(u) FROM w",
        "SELECT k FROM loud, LATERAL keep(u) k",
        "SELECT id FROM docs WHERE keep((SELECT upper(body))) = 1",
        "SELECT (SELECT keep(u)) FROM loud",
        "UPDATE docs d SET id = d.id FROM loud l WHERE keep(l.u) = 1",
        "CALL runs()",
        "BEGIN; DECLARE c CURSOR FOR SELECT upper(body) FROM docs;
         DO $$ DECLARE c refcursor := 'c'; t text; BEGIN FETCH c INTO t; INSERT INTO log VALUES (t); END $$",
    ] {
        let error = app.error(sql);
        assert!(["42846", "55000"].contains(&error.code().code()), "{sql}: {error:?}");
        app.run("ROLLBACK");
    }
    for (event, body) in [
        ("BEFORE", "NEW.line := upper(NEW.body);"),
        ("BEFORE", "NEW.line := NEW.body;"),
        ("AFTER", "INSERT INTO log VALUES (NEW.body);"),
        ("AFTER", "INSERT INTO log VALUES (upper(NEW.body));"),
        ("AFTER", "INSERT INTO log VALUES (COALESCE(NEW.body, 'x'::varchar));"),
        ("AFTER", "INSERT INTO log SELECT NEW.body UNION ALL SELECT 'x'::text;"),
        ("AFTER", "INSERT INTO log VALUES (NEW.body || NEW.body);"),
        ("BEFORE", "NEW.line := COALESCE(NEW.body, 'x'::text);"),
        ("BEFORE", "NEW.line := NEW.m::json;"),
        ("AFTER", "EXECUTE 'INSERT INTO log VALUES ($1)' USING upper(NEW.body);"),
    ] {
        app.run(&format!(
            "CREATE FUNCTION writes() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE t text; BEGIN {body} RETURN NEW; END $$;
             CREATE TRIGGER writes {event} UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION writes()"
        ));
        assert_eq!(app.state("UPDATE docs SET body = upper(body)"), "42846", "{body}");
        app.run("DROP FUNCTION writes CASCADE");
    }
    for kept in [
        "upper(NEW.body)",
        "COALESCE(NEW.body, 'x'::varchar)",
        "CASE WHEN true THEN NEW.body ELSE 'x'::text END",
    ] {
        app.run(&format!("CREATE RULE also AS ON UPDATE TO docs DO ALSO INSERT INTO log VALUES ({kept})"));
        assert_eq!(app.state("UPDATE docs SET id = id"), "42846", "{kept}");
        app.run("DROP RULE also ON docs");
    }
    assert_nothing_stored(&cluster, &mut app);
}

#[test]
fn what_a_function_defines_reveals_nothing() {
    let (cluster, mut app) = standing();
    app.run(
        "CREATE FUNCTION views() RETURNS void LANGUAGE sql AS 'CREATE VIEW made AS SELECT id, body FROM docs';
         CREATE FUNCTION kept() RETURNS void LANGUAGE sql AS 'CREATE MATERIALIZED VIEW kept AS SELECT body FROM docs';
         CREATE FUNCTION plans() RETURNS void LANGUAGE sql AS 'DEALLOCATE ALL; PREPARE made AS SELECT body FROM docs'",
    );
    for call in [
        "SELECT views()",
        "EXPLAIN ANALYZE SELECT views()",
        "PREPARE p AS SELECT views(); EXECUTE p; DEALLOCATE p",
    ] {
        app.run(call);
        let view: String = app.one("SELECT pg_get_viewdef('made')");
        assert!(!view.contains("reveal"), "{call}: {view}");
        app.run("DROP VIEW made");
    }
    app.run("SELECT views(); SELECT kept(); SELECT plans()");
    for table in ["made", "kept"] {
        let column = "SELECT atttypid::regtype::text FROM pg_attribute WHERE attname = 'body' AND attrelid = $1::text::regclass";
        let of: String = app.query_one(column, &[&table]).unwrap().get(0);
        assert_eq!(of, "encrypted_text", "{table}");
        assert_eq!(app.one::<String>(&format!("SELECT body FROM {table}")), "canarybird", "{table}");
    }
    app.run("CREATE FUNCTION copies() RETURNS void LANGUAGE sql AS 'CREATE TABLE copied AS SELECT body FROM made'; SELECT copies()");
    app.run("SET pgseal.reveal = off");
    assert!(app.text("SELECT body FROM copied").starts_with("pgseal:"));
    assert_nothing_stored(&cluster, &mut app);
}

#[test]
fn no_definition_keeps_a_cast_that_nobody_wrote() {
    let (cluster, mut app) = standing();
    app.run("CREATE TABLE words (w text PRIMARY KEY); CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'");
    for sql in [
        "ALTER TABLE docs ADD CHECK (length(body) > 0)",
        "ALTER TABLE docs ADD CONSTRAINT made CHECK (length(body) > 0) NOT VALID",
        "CREATE TABLE made (b encrypted_text(k), CHECK (upper(b) <> ''))",
        "CREATE DOMAIN made AS encrypted_text CHECK (length(VALUE) > 0)",
        "CREATE STATISTICS made ON (upper(body)), (lower(body)) FROM docs",
        "CREATE POLICY made ON docs USING (upper(body) = 'x')",
        "CREATE POLICY made ON docs FOR INSERT WITH CHECK (upper(body) = 'x')",
        "CREATE TRIGGER made BEFORE UPDATE ON docs FOR EACH ROW WHEN (upper(NEW.body) = 'x') EXECUTE FUNCTION nothing()",
        "ALTER TABLE docs ADD FOREIGN KEY (body) REFERENCES words NOT VALID",
        "CREATE TABLE made (w encrypted_text(k) REFERENCES words)",
        "CREATE SCHEMA made CREATE TABLE t (b encrypted_text, CHECK (upper(b) <> ''))",
        "ALTER TABLE docs ADD CONSTRAINT made CHECK (COALESCE(body, ''::varchar) <> '') NOT VALID",
        "CREATE STATISTICS made ON (COALESCE(body, ''::varchar)), (lower(line)) FROM docs",
    ] {
        let error = app.error(sql);
        // A constraint that is added is looked at first, row by row.
        let states: &[&str] = if sql.contains("ADD CHECK") { &["42846"] } else { &["0A000"] };
        if major_version() >= 18 && sql.contains("REFERENCES") {
            // PostgreSQL itself refuses a key whose sides have collations of two kinds.
            assert_eq!(error.code().code(), "XX000", "{sql}: {error:?}");
            continue;
        }
        assert!(states.contains(&error.code().code()), "{sql}: {error:?}");
        assert!(error.hint().is_some(), "{sql}: {error:?}");
    }
    for sql in [
        "CREATE INDEX ON docs (upper(body))",
        "CREATE TABLE made (b encrypted_text, u text GENERATED ALWAYS AS (upper(b)) STORED)",
        "CREATE TABLE made (b encrypted_text) PARTITION BY LIST (upper(b))",
    ] {
        assert_eq!(app.state(sql), "42P17", "{sql}");
    }
    // What works on ciphertext, and what says that it decrypts, is made as ever.
    app.run(r#"ALTER TABLE docs ADD CHECK (m ->> 'p' <> 'x'), ADD CHECK (body::text <> ''); INSERT INTO docs VALUES (5, '{"p": "y"}', 'y')"#);
    // Where somebody has switched the guard off, nothing is stored either.
    let mut root = cluster.connect("postgres");
    let off = "SELECT format('ALTER EVENT TRIGGER %I DISABLE', evtname) FROM pg_event_trigger";
    for guard in root.column::<String>(off) {
        root.run(&guard);
    }
    app.run("CREATE STATISTICS made ON (upper(body)), (lower(body)) FROM docs");
    assert_eq!(app.state("ANALYZE docs"), "42846");
    app.run("DROP STATISTICS made; ALTER TABLE docs ADD CHECK (upper(line) <> upper(body)) NOT VALID");
    assert_eq!(app.state("UPDATE docs SET line = 'z'"), "42846");
    assert_nothing_stored(&cluster, &mut app);
}

#[test]
fn a_dump_of_such_a_role_is_ciphertext_in_every_mode() {
    let (cluster, mut app) = standing();
    app.run("UPDATE docs SET body = upper(body)");
    for mode in [
        &[][..],
        &["--inserts"],
        &["--column-inserts"],
        &["--rows-per-insert=5"],
        &["-Fc", "-Z0"],
        &["--inserts", "--data-only"],
    ] {
        for options in ["", "-c pgseal.reveal=on"] {
            let mut dump = cluster.program("pg_dump", "app");
            let dumped =
                output(dump.env("PGOPTIONS", options).args(mode).args(["-d", "postgres", "-t", "docs"]));
            let text = String::from_utf8_lossy(&dumped.stdout);
            assert!(dumped.status.success(), "{mode:?}: {}", String::from_utf8_lossy(&dumped.stderr));
            assert!(text.contains("pgseal:") && !text.contains("CANARYBIRD"), "{mode:?}: {text}");
        }
    }
    // Through its cursor nothing is revealed even where the setting was SET.
    app.run("SET pgseal.reveal = on; BEGIN; DECLARE _pg_dump_cursor CURSOR FOR SELECT body FROM docs");
    assert!(app.text("FETCH _pg_dump_cursor").starts_with("pgseal:"));
    app.run("COMMIT; RESET pgseal.reveal");
    assert_eq!(app.one::<String>("SELECT body FROM docs"), "CANARYBIRD");
    app.run("SET synchronize_seqscans = off");
    assert!(app.text("SELECT body FROM docs").starts_with("pgseal:"));
    app.run("SET pgseal.reveal = on");
    assert_eq!(app.one::<String>("SELECT body FROM docs"), "CANARYBIRD");
    let copied =
        output(cluster.program("psql", "app").args(["-X", "-d", "postgres", "-c", "COPY docs TO STDOUT"]));
    assert!(String::from_utf8_lossy(&copied.stdout).contains("pgseal:"));
}

#[test]
fn audit_names_roles_that_reveal_should_not_stand_for() {
    let (cluster, _app) = standing();
    let mut root = cluster.connect("postgres");
    let named = "SELECT object || ': ' || finding FROM pgseal.audit() WHERE finding LIKE 'pgseal.reveal stands%' ORDER BY 1";
    assert_eq!(
        root.column::<String>(named),
        ["role app: pgseal.reveal stands for it, and it owns encrypted columns"]
    );
    root.run("ALTER TABLE docs OWNER TO postgres; DROP TABLE retyped");
    assert!(root.column::<String>(named).is_empty());
    root.run("CREATE ROLE copies LOGIN REPLICATION; ALTER ROLE copies SET pgseal.reveal = on; ALTER DATABASE postgres SET pgseal.reveal = on");
    let roles = root.column::<String>(named);
    assert!(roles.iter().any(|role| role.contains("copies") && role.contains("may replicate")), "{roles:?}");
    assert!(
        roles.iter().any(|role| role.contains("postgres") && role.contains("is a superuser")),
        "{roles:?}"
    );
}
