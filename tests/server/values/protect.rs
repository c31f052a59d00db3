//! `pgseal.protect`: tables that frameworks and people make with plain columns.

use std::thread;

use postgres::Client;

use crate::support::{Cluster, Sql, beside, fresh_database, output, shared};

/// Columns of a table with their types, keyrings left out.
fn types(client: &mut Client, table: &str) -> String {
    client.one(&format!(
        "SELECT string_agg(attname || ' ' || regexp_replace(format_type(atttypid, atttypmod), '\\(\\d+(,\\d+)?\\)', '\\1'), '; ' ORDER BY attname)
           FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
    ))
}

/// A database where new tables of schema public are encrypted.
fn protected() -> Client {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name', '$']), pgseal.protect('public.*', 'k')");
    client
}

/// What psql shows beside the results of the statements.
fn said(client: &mut Client, statements: &str) -> String {
    let output = shared().psql::<&str>(&client.database(), &[], statements);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn plain_columns_of_a_new_table_become_encrypted() {
    let mut client = protected();
    client.run(
        "CREATE TABLE docs (id text PRIMARY KEY, slug varchar(20) UNIQUE, n int, m jsonb NOT NULL DEFAULT '{\"name\": \"x\"}', j json DEFAULT '[1]', tags text[],
             body text DEFAULT 'none' NOT NULL, title varchar(10) DEFAULT NULL, code char(3), e vector(3), h halfvec(2), free vector)",
    );
    let sealed = "body encrypted_text; code encrypted_text; e encrypted_vector,3; free encrypted_vector; h encrypted_vector,2; id text; \
                  j encrypted_jsonb; m encrypted_jsonb; n integer; slug character varying; tags text[]; title encrypted_text";
    assert_eq!(types(&mut client, "docs"), sealed);
    client.run(
        "INSERT INTO docs (id, m, body, e, h, code) VALUES ('a', '{\"name\": \"n1\"}', 'text', '[1,2,3]', '[1,2]', 'abc'); INSERT INTO docs (id) VALUES ('b')",
    );
    let row = "SELECT concat_ws(' ', pgseal.decrypt(m), pgseal.decrypt(j), pgseal.decrypt(body), pgseal.decrypt(e)) FROM docs WHERE id = ";
    assert_eq!(client.one::<String>(&format!("{row}'a'")), "{\"name\": \"n1\"} [1] text [1,2,3]");
    assert_eq!(client.one::<String>(&format!("{row}'b'")), "{\"name\": \"x\"} [1] none");
    assert_eq!(client.state("INSERT INTO docs (id, m) VALUES ('c', NULL)"), "23502");
    let bound = "SELECT count(*) FROM pgseal.key_usage('docs', 'm') WHERE keyring = 'k'";
    assert_eq!(client.one::<i64>(bound), 1);
    let options = "SELECT reloptions::text FROM pg_class WHERE oid = 'docs'::regclass";
    assert_eq!(client.one::<String>(options), "{toast_tuple_target=8160}");
    // Text is confidential beside an embedding; documents are anywhere.
    client.run("CREATE TABLE no_vectors (id int, body text, m jsonb)");
    assert_eq!(types(&mut client, "no_vectors"), "body text; id integer; m encrypted_jsonb");
    let told = said(&mut client, "CREATE TABLE told (id text PRIMARY KEY, m jsonb, e vector(3));");
    for part in
        ["columns of public.told are encrypted under keyring k: m, e", "keys: id", "Rule public.*", "reveal"]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn every_way_to_make_an_empty_table_is_seen() {
    let mut client = protected();
    client.run(
        "CREATE TABLE plain_columns (id int, m jsonb, e vector(3));
         CREATE TABLE IF NOT EXISTS plain_columns (id int, other jsonb);
         CREATE TABLE alike (LIKE plain_columns INCLUDING ALL);
         CREATE UNLOGGED TABLE unlogged (m jsonb);
         CREATE TABLE parted (id int, m jsonb) PARTITION BY RANGE (id);
         CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9);
         CREATE TABLE child (more jsonb) INHERITS (plain_columns);
         CREATE TABLE selected AS SELECT '{}'::jsonb AS m WITH NO DATA;
         CREATE TABLE nothing AS SELECT '{}'::jsonb AS m WHERE false;
         CREATE FUNCTION made() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TABLE inside (m jsonb); END';
         SELECT made(); BEGIN; CREATE TABLE later (m jsonb); SAVEPOINT s; CREATE TABLE gone (m jsonb); ROLLBACK TO s; COMMIT",
    );
    assert_eq!(types(&mut client, "plain_columns"), "e encrypted_vector,3; id integer; m encrypted_jsonb");
    for table in ["alike", "unlogged", "parted", "part", "child", "selected", "nothing", "inside", "later"] {
        let found = types(&mut client, table);
        assert!(found.contains("m encrypted_jsonb") && !found.contains(" jsonb"), "{table}: {found}");
    }
    client.run("SELECT pgseal.protect('made.*', 'k'); CREATE SCHEMA made CREATE TABLE one (m jsonb) CREATE TABLE two (m jsonb)");
    assert_eq!(types(&mut client, "made.two"), "m encrypted_jsonb");
    // Temporary tables are for those rules that name them.
    client.run("CREATE TEMP TABLE staged (m jsonb)");
    assert_eq!(types(&mut client, "staged"), "m jsonb");
    client.run(
        "SELECT pgseal.protect('pg_temp.*', 'k'); CREATE TEMP TABLE staged_too (m jsonb) ON COMMIT DROP",
    );
    client.run("BEGIN; CREATE TEMP TABLE third (m jsonb) ON COMMIT DROP");
    assert_eq!(types(&mut client, "third"), "m encrypted_jsonb");
    client.run("COMMIT");
}

#[test]
fn what_would_keep_plaintext_is_refused() {
    let mut client = protected();
    client.run(
        "SELECT pgseal.protect('public.old*', action => 'allow');
         CREATE TABLE old (id int, m jsonb) PARTITION BY RANGE (id); CREATE TABLE old_parent (id int, m jsonb); CREATE TYPE pair AS (m jsonb, n int);
         CREATE TABLE old_indexed (m jsonb); CREATE INDEX ON old_indexed USING gin (m); CREATE DOMAIN document AS jsonb",
    );
    for (statement, part) in [
        ("CREATE TABLE t AS SELECT '{\"a\": 1}'::jsonb AS m", "has rows"),
        ("SELECT '{\"a\": 1}'::jsonb AS m INTO t", "has rows"),
        ("CREATE MATERIALIZED VIEW t AS SELECT '{\"a\": 1}'::jsonb AS m", "its query computes it"),
        ("CREATE MATERIALIZED VIEW t AS SELECT '{\"a\": 1}'::jsonb AS m WITH NO DATA", "its query"),
        ("CREATE TABLE t PARTITION OF old FOR VALUES FROM (0) TO (9)", "it is inherited"),
        ("CREATE TABLE t () INHERITS (old_parent)", "it is inherited"),
        ("CREATE TABLE t OF pair", "the table is of a type"),
        ("CREATE TABLE t (m document)", "it is of a domain"),
        ("CREATE TABLE t (LIKE old_indexed INCLUDING ALL)", "it is part of index"),
        ("CREATE TABLE t (m jsonb, p text GENERATED ALWAYS AS (m ->> 'p') STORED)", "column p is generated"),
        ("CREATE TABLE t (m jsonb PRIMARY KEY)", "it is part of constraint"),
        ("CREATE TABLE t (m jsonb CHECK (m <> '{}'))", "it is part of constraint"),
        ("CREATE TABLE t (body text CHECK (body <> ''), e vector(3))", "it is part of constraint"),
    ] {
        let error = client.error(statement);
        assert_eq!(error.code().code(), "42P16", "{statement}: {error}");
        let all = format!("{} {}", error.message(), error.detail().unwrap_or_default());
        assert!(all.contains(part), "{statement}: {all}");
        assert!(error.detail().unwrap_or_default().contains("public.*"), "{statement}");
        assert!(error.hint().is_some(), "{statement}");
        assert_eq!(client.one::<Option<String>>("SELECT to_regclass('t')::text"), None, "{statement}");
    }
    // What an administrator lets be plain.
    client.run("SELECT pgseal.protect('public.*', 'k', plain => ARRAY['m']); CREATE TABLE t (m jsonb PRIMARY KEY, other jsonb)");
    assert_eq!(types(&mut client, "t"), "m jsonb; other encrypted_jsonb");
}

#[test]
fn columns_that_come_later_are_seen() {
    let mut client = protected();
    client.run(
        "CREATE TABLE full_table (id int); INSERT INTO full_table VALUES (1); CREATE TABLE empty_table (id int);
         ALTER TABLE empty_table ADD COLUMN m jsonb NOT NULL DEFAULT '{}', ADD COLUMN e vector(3);
         ALTER TABLE full_table ADD COLUMN m jsonb, ADD COLUMN n int;
         ALTER TABLE full_table ADD COLUMN IF NOT EXISTS m jsonb",
    );
    assert_eq!(types(&mut client, "empty_table"), "e encrypted_vector,3; id integer; m encrypted_jsonb");
    assert_eq!(types(&mut client, "full_table"), "id integer; m encrypted_jsonb; n integer");
    for statement in [
        "ALTER TABLE full_table ADD COLUMN d jsonb DEFAULT '{\"a\": 1}'",
        "ALTER TABLE full_table ALTER COLUMN m TYPE jsonb USING pgseal.decrypt(m)",
        "ALTER TABLE full_table ALTER COLUMN n TYPE jsonb USING to_jsonb(n)",
    ] {
        assert_eq!(client.state(statement), "42P16", "{statement}");
    }
    client.run("ALTER TABLE full_table ADD COLUMN d encrypted_jsonb(k); UPDATE full_table SET d = '{}', m = '{\"name\": \"x\"}'");
    // Whatever else is done to tables of before is none of its business.
    client.run(
        "SELECT pgseal.unprotect('public.*'); CREATE TABLE before (id int, m jsonb, e vector(3), body text); INSERT INTO before VALUES (1, '{}', '[1,2,3]', 'x')",
    );
    let told = said(&mut client, "SELECT pgseal.protect('public.*', 'k');");
    assert!(told.contains("as they are: public.before") && told.contains("encrypt_table"), "{told}");
    client.run(
        "ALTER TABLE before ALTER m SET NOT NULL, ADD COLUMN n int, ALTER body SET DEFAULT 'y'; ALTER TABLE before RENAME n TO o; CREATE INDEX ON before (id);
         CREATE INDEX ON before USING hnsw (e vector_l2_ops); DROP INDEX before_e_idx; ALTER TABLE before ADD CHECK (m <> '[]')",
    );
    let finding = "SELECT string_agg(object, ', ' ORDER BY object) FROM pgseal.audit() WHERE finding LIKE '%rule public.* of pgseal.protect%'";
    assert_eq!(
        client.one::<String>(finding),
        "column body of public.before, column e of public.before, column m of public.before"
    );
    client.run("ALTER TABLE before DROP CONSTRAINT before_m_check");
    client.run("CALL pgseal.encrypt_table('before', 'k')");
    assert_eq!(client.one::<Option<String>>(finding), None);
    let back = client.error("CALL pgseal.decrypt_column('before', 'm')");
    assert_eq!(back.code().code(), "42P16", "{back}");
    client.run("SELECT pgseal.unprotect('public.*')");
    client.run("CALL pgseal.decrypt_column('before', 'm')");
}

#[test]
fn a_rule_can_refuse() {
    let mut client = protected();
    client.run("SELECT pgseal.protect('public.*', action => 'refuse')");
    for statement in
        ["CREATE TABLE t (m jsonb, e vector(3), body text)", "CREATE TABLE t AS SELECT '[1]'::vector"]
    {
        let error = client.error(statement);
        assert_eq!(error.code().code(), "42P16", "{error}");
        assert!(error.message().starts_with("columns of public.t would hold plaintext: "), "{error}");
        assert!(error.hint().unwrap_or_default().contains("metadata encrypted_jsonb(patients)"), "{error:?}");
    }
    client.run("CREATE TABLE t (id text PRIMARY KEY, m encrypted_jsonb(k), e encrypted_vector(k, 3), body encrypted_text(k))");
    client.run("SELECT pgseal.protect('public.*', action => 'refuse', types => ARRAY['vector']); CREATE TABLE u (m jsonb, body text)");
    assert_eq!(client.state("CREATE TABLE v (e halfvec(3))"), "42P16");
}

#[test]
fn the_rule_that_says_most_counts() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k'), pgseal.create_keyring('other'); CREATE SCHEMA \"App.1\"; CREATE SCHEMA app;
         SELECT pgseal.protect('*.*', 'k'), pgseal.protect('App.a_b*', action => 'allow'), pgseal.protect('\"App.1\".*', 'other'), pgseal.protect('app.a?c', action => 'refuse')",
    );
    for (table, found) in [
        ("app.x", "encrypt k"),
        ("app.a_bc", "allow"),
        ("app.axbc", "encrypt k"),
        ("\"App.1\".a_bc", "encrypt other"),
        ("app.\"A_B\"", "encrypt k"),
    ] {
        client.run(&format!("CREATE TABLE {table} (m jsonb)"));
        let made = format!(
            "SELECT concat_ws(' ', p.action, (SELECT name FROM pgseal.keyring WHERE id = CASE WHEN p.action = 'encrypt' THEN p.keyring END)) FROM pgseal.protection_of('{table}') p"
        );
        assert_eq!(client.one::<String>(&made), found, "{table}");
        let keyring: Option<String> = client.one(&format!(
            "SELECT name::text FROM pgseal.keyring RIGHT JOIN pg_attribute ON id = atttypmod WHERE attrelid = '{table}'::regclass AND attname = 'm'"
        ));
        assert_eq!(keyring.as_deref(), found.split(' ').nth(1), "{table}");
    }
    assert_eq!(client.state("CREATE TABLE app.abc (m jsonb)"), "42P16");
    for (call, state) in [
        ("protect('public', 'k')", "22023"),
        ("protect('a.b.c', 'k')", "22023"),
        ("protect(NULL, 'k')", "22023"),
        ("protect('public.*', 'absent')", "42704"),
        ("protect('public.*', 'k', action => 'encript')", "22023"),
        ("protect('public.*', 'k', types => '{uuid}')", "22023"),
        ("unprotect('public.*')", "42704"),
    ] {
        let error = client.error(&format!("SELECT pgseal.{call}"));
        assert_eq!(error.code().code(), state, "{call}: {error}");
        assert!(error.hint().is_some(), "{call}");
    }
    let rules: Vec<String> = client.column("SELECT concat_ws(' ', pattern, action, keyring) FROM pgseal.protections ORDER BY pattern COLLATE \"C\"");
    assert_eq!(rules, ["\"App.1\".* encrypt other", "*.* encrypt k", "App.a_b* allow k", "app.a?c refuse k"]);
    // The first one made is the database's default.
    client.run("SELECT pgseal.protect('public.d*'); CREATE TABLE d (m jsonb)");
    assert!(
        client
            .text("SELECT pgseal.bound_column(id) FROM pgseal.keyring WHERE name = 'k'")
            .contains("encrypted_jsonb")
    );
}

#[test]
fn only_who_manages_keys_makes_rules() {
    let mut client = protected();
    client.run("DROP ROLE IF EXISTS maker; CREATE ROLE maker; GRANT ALL ON SCHEMA public TO maker; CREATE SCHEMA own AUTHORIZATION maker; SET ROLE maker");
    for statement in [
        "SELECT pgseal.protect('own.*', 'k')",
        "SELECT pgseal.unprotect('public.*')",
        "DELETE FROM pgseal.protection",
        "INSERT INTO pgseal.protection VALUES ('own.*', 1, 'refuse', '{jsonb}', '{}')",
        "ALTER EVENT TRIGGER pgseal_protect DISABLE",
        "DROP EVENT TRIGGER pgseal_protect",
    ] {
        assert_eq!(client.state(statement), "42501", "{statement}");
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.protections"), 1);
    // Names that the maker's search_path finds first have no say.
    client.run(
        "CREATE FUNCTION own.quote_ident(name) RETURNS text LANGUAGE sql AS 'SELECT ''x''::text';
         CREATE FUNCTION own.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''x''::text'; CREATE DOMAIN own.jsonb AS text; CREATE TABLE own.pg_class (oid int);
         SET search_path = own, public, pg_catalog; CREATE TABLE public.made (m pg_catalog.jsonb, e public.vector(3)); RESET search_path",
    );
    assert_eq!(types(&mut client, "made"), "e encrypted_vector,3; m encrypted_jsonb");
    assert_eq!(
        client.one::<String>("SELECT relowner::regrole::text FROM pg_class WHERE oid = 'made'::regclass"),
        "maker"
    );
    assert_eq!(client.state("INSERT INTO made VALUES ('{}', '[1,2,3]')"), "42501");
    let told = said(&mut client, "SET ROLE maker; CREATE TABLE told (m jsonb);");
    assert!(told.contains("grant_keyring(keyring, 'maker'"), "{told}");
    client.run("RESET ROLE; SELECT pgseal.grant_keyring('k', 'maker', ARRAY['encrypt']); SET ROLE maker; INSERT INTO made VALUES ('{}', '[1,2,3]')");
    client.run("RESET ROLE; GRANT EXECUTE ON FUNCTION pgseal.unprotect TO maker; SET ROLE maker; SELECT pgseal.unprotect('public.*')");
    client.run("RESET ROLE; DROP OWNED BY maker; DROP ROLE maker");
}

#[test]
fn indexes_for_plain_columns_become_those_of_encrypted_ones() {
    let mut client = protected();
    client.run("CREATE TABLE t (id int, kind text, body text, m jsonb, j json, e vector(3), h halfvec(3))");
    for (statement, made) in [
        ("CREATE INDEX i ON t USING gin (m jsonb_path_ops)", "gin (m)"),
        ("CREATE INDEX i ON t USING gin (m jsonb_ops) WITH (fastupdate = off)", "gin (m)"),
        ("CREATE INDEX IF NOT EXISTS i ON t ((m ->> 'name'))", "gin (m)"),
        ("CREATE INDEX i ON t ((j ->> 'a'), (j ->> 'b') DESC NULLS LAST)", "gin (j)"),
        ("CREATE INDEX i ON t (body text_pattern_ops)", "gin (body)"),
        ("CREATE INDEX i ON t USING hash (body)", "gin (body)"),
        ("CREATE INDEX i ON t USING gin (to_tsvector('english', body))", "gin (body)"),
        ("CREATE INDEX i ON t (lower(body), lower(t.kind)) INCLUDE (id)", "gin (body, kind)"),
        ("CREATE INDEX i ON t (id DESC, body)", "btree (id DESC)"),
        (
            "CREATE INDEX i ON t USING hnsw (e vector_cosine_ops) WITH (m = 16, ef_construction = 64)",
            "sealed_ivf (e encrypted_vector_cosine_ops)",
        ),
        (
            "CREATE INDEX i ON t USING ivfflat (e vector_ip_ops) WITH (lists = 10)",
            "sealed_ivf (e encrypted_vector_ip_ops)",
        ),
        (
            "CREATE INDEX CONCURRENTLY i ON t USING hnsw ((h::halfvec(3)) halfvec_l2_ops)",
            "sealed_ivf (h encrypted_vector_l2_ops)",
        ),
        ("CREATE INDEX i ON t (body COLLATE \"C\") WHERE id > 3", "gin (body) WHERE (id > 3)"),
        ("CREATE INDEX i ON t USING gin (m)", "gin (m)"),
        (
            "CREATE INDEX i ON t USING sealed_ivf (e encrypted_vector_l2_ops) WITH (lists = 2)",
            "sealed_ivf (e encrypted_vector_l2_ops) WITH (lists='2')",
        ),
        ("CREATE INDEX i ON t (id)", "btree (id)"),
    ] {
        client.run(statement);
        let found: String = client.one("SELECT substring(pg_get_indexdef('i'::regclass) FROM 'USING (.*)')");
        assert_eq!(found, made, "{statement}");
        client.run("DROP INDEX i");
    }
    for (statement, hint) in [
        ("CREATE UNIQUE INDEX ON t (body)", "plain => ARRAY['column']"),
        ("CREATE INDEX ON t USING hnsw (e vector_l1_ops)", "sealed_ivf"),
        ("CREATE INDEX ON t USING hnsw ((binary_quantize(e)::bit(3)) bit_hamming_ops)", "sealed_ivf"),
        ("CREATE INDEX ON t (e)", "sealed_ivf"),
    ] {
        let error = client.error(statement);
        assert_eq!(error.code().code(), "0A000", "{statement}: {error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{statement}: {error:?}");
    }
    // A statement that is kept is not changed for good.
    client.run("CREATE FUNCTION again() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE INDEX i ON t USING hnsw (e vector_l2_ops); END $$; SELECT again(); DROP INDEX i");
    client.run(
        "SELECT pgseal.unprotect('public.*'); DROP TABLE t; CREATE TABLE t (e vector(3)); SELECT again()",
    );
    assert!(
        client
            .one::<String>("SELECT pg_get_indexdef('i'::regclass)")
            .contains("USING hnsw (e vector_l2_ops)")
    );
}

#[test]
fn without_a_rule_an_index_is_refused_with_its_remedy() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k'); CREATE TABLE t (e encrypted_vector(k, 3), m encrypted_jsonb(k))",
    );
    for method in ["hnsw", "ivfflat"] {
        let error = client.error(&format!("CREATE INDEX ON t USING {method} (e vector_cosine_ops)"));
        assert_eq!(error.code().code(), "0A000", "{error}");
        assert!(
            error
                .hint()
                .unwrap_or_default()
                .contains("USING sealed_ivf (column encrypted_vector_cosine_ops)")
        );
    }
    assert_eq!(client.state("CREATE INDEX ON t USING gin (m jsonb_path_ops)"), "42804");
    assert_eq!(client.state("CREATE INDEX ON absent (m)"), "42P01");
}

#[test]
fn a_restore_with_rules_needs_no_key_service() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run(
        "SELECT pgseal.create_keyring('k', ARRAY['$.name']); CREATE TABLE plain (id int, m jsonb); INSERT INTO plain VALUES (1, '{}'); SELECT pgseal.protect('public.*', 'k');
         CREATE TABLE docs (id int, m jsonb, e vector(3), body text DEFAULT 'x'); CREATE INDEX docs_m ON docs USING gin (m jsonb_path_ops); CREATE INDEX docs_e ON docs USING hnsw (e vector_l2_ops);
         INSERT INTO docs SELECT i, '{\"name\": \"n\"}', '[1,2,3]' FROM generate_series(1, 50) i; CREATE MATERIALIZED VIEW latest AS SELECT id, m FROM docs",
    );
    let file = cluster.data_dir().join("dump");
    let done = cluster.pg_dump("postgres", &["-Fc", "-f", file.to_str().unwrap()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // Nobody unwraps a key from now on.
    client.run("ALTER SYSTEM SET pgseal.kms_endpoint = 'file:///nowhere'");
    drop(client);
    cluster.restart();
    for jobs in ["1", "3"] {
        let copy = format!("copy_{jobs}");
        cluster.connect("postgres").run(&format!("CREATE DATABASE {copy}"));
        let mut restore = cluster.program("pg_restore", "postgres");
        let done = output(restore.args(["-e", "-j", jobs, "-d", &copy]).arg(&file));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let mut client = cluster.connect(&copy);
        assert_eq!(
            types(&mut client, "docs"),
            "body encrypted_text; e encrypted_vector,3; id integer; m encrypted_jsonb"
        );
        assert_eq!(types(&mut client, "plain"), "id integer; m jsonb");
        assert_eq!(client.one::<i64>("SELECT count(*) FROM docs JOIN latest USING (id)"), 50);
        assert_eq!(
            client.one::<String>("SELECT concat_ws(' ', pattern, keyring) FROM pgseal.protections"),
            "public.* k"
        );
        // A table needs no key to be made, either.
        client.run("CREATE TABLE more (m jsonb)");
        assert_eq!(types(&mut client, "more"), "m encrypted_jsonb");
    }
}

#[test]
fn tables_that_sessions_make_at_once_are_encrypted() {
    let mut client = protected();
    let makers: Vec<_> = (0..6)
        .map(|maker| {
            let mut session = beside(&mut client);
            thread::spawn(move || {
                for number in 0..5 {
                    // Some lose the race for the name, as on plain columns.
                    let made = session.batch_execute(&format!("CREATE TABLE IF NOT EXISTS shared_{number} (id text PRIMARY KEY, m jsonb, e vector(3))"));
                    let state = made.err().map(|error| error.code().expect("a state").code().to_owned());
                    assert!(["23505", "42P07", "42710", ""].contains(&state.as_deref().unwrap_or_default()), "{state:?}");
                    session.run(&format!("CREATE TABLE own_{maker}_{number} (m jsonb); INSERT INTO own_{maker}_{number} VALUES ('{{}}')"));
                }
            })
        })
        .collect();
    makers.into_iter().for_each(|maker| maker.join().expect("a session"));
    let left = "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND atttypid IN ('jsonb'::regtype, 'vector'::regtype)";
    assert_eq!(client.one::<i64>(left), 0);
    // A transaction that was open when a rule came sees it at its next statement.
    let mut open = beside(&mut client);
    open.run("BEGIN; CREATE SCHEMA other; CREATE TABLE other.first (m jsonb)");
    client.run("SELECT pgseal.protect('other.*', 'k')");
    open.run("CREATE TABLE other.second (m jsonb); COMMIT");
    assert_eq!(
        [types(&mut client, "other.first"), types(&mut client, "other.second")],
        ["m jsonb", "m encrypted_jsonb"]
    );
}

#[test]
fn a_rule_keeps_its_keyring_and_goes_with_the_extension() {
    let mut client = protected();
    let error = client.error("SELECT pgseal.drop_keyring('k')");
    assert!(error.message().contains("rule public.* of pgseal.protect"), "{error}");
    client.run("SELECT pgseal.drop_keyring('k', force => true)");
    let error = client.error("CREATE TABLE t (m jsonb)");
    assert_eq!(error.code().code(), "42704", "{error}");
    assert!(error.hint().unwrap_or_default().contains("unprotect('public.*')"), "{error:?}");
    client.run("CREATE TABLE without (id int); DROP EXTENSION pgseal CASCADE; CREATE TABLE t (m jsonb); CREATE INDEX ON t USING gin (m jsonb_path_ops)");
    assert_eq!(types(&mut client, "t"), "m jsonb");
    client.run("CREATE EXTENSION pgseal");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.protections"), 0);
}
