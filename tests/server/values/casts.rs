//! Ciphertext is never taken for a value, and plaintext never comes out of what was not asked to decrypt.

use postgres::Client;

use crate::support::{Sql, fresh_database, lacks, shared};

fn database() -> Client {
    let mut client = fresh_database();
    client.run(
        r#"SELECT pgseal.create_keyring('k'); CREATE EXTENSION citext;
           CREATE TABLE t (id int, x encrypted_text(k), m encrypted_jsonb(k)); INSERT INTO t VALUES (1, '7', '{"n": "7"}');
           CREATE DOMAIN short AS citext; CREATE TYPE mood AS ENUM ('7');
           CREATE TYPE made; CREATE FUNCTION made_in(cstring) RETURNS made LANGUAGE internal IMMUTABLE STRICT AS 'textin';
           CREATE FUNCTION made_out(made) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
           CREATE TYPE made (INPUT = made_in, OUTPUT = made_out, LIKE = text, CATEGORY = 'S')"#,
    );
    client
}

/// What says how to write it.
fn assert_refused(client: &mut Client, sql: &str) {
    let error = client.error(sql);
    assert_eq!(error.code().code(), "42846", "{sql}: {error}");
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("pgseal.decrypt(value)::") && hint.contains("pgseal.sealed_text"), "{sql}: {hint}");
}

#[test]
fn a_cast_through_text_to_any_type_is_refused() {
    if lacks("citext") {
        return;
    }
    let mut client = database();
    for value in
        ["x", "m", "m ->> 'n'", "'7'::text::encrypted_text", "'{}'::encrypted_jsonb", "coalesce(x, '-')"]
    {
        for target in ["citext", "made", "short", "citext[]"] {
            let value = if target.ends_with(']') { format!("ARRAY[{value}]") } else { format!("({value})") };
            assert_refused(&mut client, &format!("SELECT {value}::{target} FROM t"));
        }
    }
    client.run("CREATE TABLE plain (a citext, b made, c short, d citext[])");
    for statement in [
        "INSERT INTO plain (a) SELECT x FROM t",
        "INSERT INTO plain (b) SELECT m ->> 'n' FROM t",
        "INSERT INTO plain (c) VALUES ((SELECT x FROM t))",
        "INSERT INTO plain (d) SELECT array_agg(x) FROM t",
        "UPDATE plain SET a = x FROM t",
        "MERGE INTO plain USING t ON false WHEN NOT MATCHED THEN INSERT (a) VALUES (t.x)",
        "SELECT count(*) FROM t WHERE x::citext = '7'",
    ] {
        // An UPDATE needs a row to reach.
        client.run("TRUNCATE plain; INSERT INTO plain DEFAULT VALUES");
        assert_refused(&mut client, statement);
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM plain WHERE a IS NOT NULL"), 0);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE pgseal.decrypt(x)::citext = '7'"), 1);
}

#[test]
fn plpgsql_gives_no_ciphertext_to_a_variable_of_another_type() {
    if lacks("citext") {
        return;
    }
    let mut client = database();
    for target in [
        "text",
        "varchar(9)",
        "char",
        "name",
        "int",
        "numeric",
        "jsonb",
        "json",
        "date",
        "mood",
        "citext",
        "made",
        "bytea",
    ] {
        for code in [
            "SELECT x INTO v FROM t",
            "SELECT m ->> 'n' INTO STRICT v FROM t",
            "SELECT * INTO r FROM t; v := r.x",
            "v := (SELECT m FROM t)",
            "FOR v IN SELECT x FROM t LOOP NULL; END LOOP",
            "EXECUTE 'SELECT x FROM t' INTO v",
            "UPDATE t SET id = 2 RETURNING x INTO v",
        ] {
            let block = format!("DO $$ DECLARE v {target}; r record; BEGIN {code}; END $$");
            assert_refused(&mut client, &block);
        }
        client.run(&format!(
            "CREATE OR REPLACE FUNCTION returned() RETURNS text LANGUAGE sql AS 'SELECT NULL::text'; DROP FUNCTION returned();
             CREATE FUNCTION returned() RETURNS {target} LANGUAGE plpgsql AS
                 'DECLARE v encrypted_text; BEGIN SELECT x INTO v FROM t; RETURN v; END'"
        ));
        assert_refused(&mut client, "SELECT returned()");
        client.run("DROP FUNCTION returned()");
    }
    assert_refused(&mut client, "DO $$ DECLARE v text[]; BEGIN v := (SELECT array_agg(x) FROM t); END $$");
    assert_refused(&mut client, "DO $$ DECLARE v text[]; BEGIN v[1] := (SELECT x FROM t); END $$");
    client.run(
        "DO $$ DECLARE v encrypted_text; d text; r record; s text; BEGIN
             SELECT x, pgseal.decrypt(x), pgseal.sealed_text(x) INTO v, d, s FROM t;
             SELECT * INTO r FROM t;
             ASSERT v = '7' AND d = '7' AND r.x = '7' AND s LIKE 'pgseal:%' AND s = format('%s', v);
         END $$",
    );
}

#[test]
fn a_history_may_keep_the_sealed_form() {
    if lacks("citext") {
        return;
    }
    let mut client = database();
    client.run(
        "CREATE TABLE history (changed text); CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO history VALUES (pgseal.sealed_text(OLD.x)), (pgseal.sealed_text(OLD.m)); RETURN NEW; END $$;
         CREATE TRIGGER keep BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION keep();
         CREATE ROLE keyless_keeper; GRANT ALL ON t, history TO keyless_keeper; SET ROLE keyless_keeper; UPDATE t SET id = 3; RESET ROLE",
    );
    assert_eq!(client.one::<i64>("SELECT count(*) FROM history WHERE changed LIKE 'pgseal:%'"), 2);
    let read = "SELECT pgseal.decrypt((jsonb_populate_record(NULL::t, jsonb_build_object('x', changed))).x) FROM history LIMIT 1";
    assert_eq!(client.one::<String>(read), "7");
}

#[test]
fn quoting_gives_ciphertext_under_every_search_path() {
    if lacks("citext") {
        return;
    }
    let mut client = database();
    client.run("CREATE DOMAIN boxed AS encrypted_text; CREATE VIEW v AS SELECT x, m, x::boxed AS d FROM t");
    for path in ["public", "''", "pg_catalog", "pgseal, public"] {
        client.run(&format!("SET search_path = {path}"));
        for call in [
            "quote_literal(x)",
            "quote_literal(m)",
            "quote_nullable(x)",
            "quote_nullable(m)",
            "quote_literal(d)",
            "format('%L', x)",
        ] {
            let quoted: String = client.one(&format!("SELECT {call} FROM public.v"));
            assert!(quoted.starts_with("'pgseal:") && quoted.ends_with('\''), "{path}: {call}: {quoted}");
        }
        let own = "SELECT concat_ws(' ', quote_literal('a'), quote_literal(1), quote_nullable(NULL), quote_nullable('b'::name))";
        assert_eq!(client.one::<String>(own), "'a' '1' NULL 'b'", "{path}");
        assert_eq!(
            client.one::<String>("SELECT quote_nullable(x) FROM (SELECT NULL::public.encrypted_text AS x) q"),
            "NULL"
        );
        for joined in ["'x ' || x", "x || ' x'", "'x'::text || m", "'x'::varchar || x", "x || x"] {
            let error = client.error(&format!("SELECT {joined} FROM public.t"));
            assert!(["42883", "42725", "42846"].contains(&error.code().code()), "{path}: {joined}: {error}");
        }
        let longer = r#"SELECT pgseal.decrypt(m || '{"o": 1}')::text FROM public.t"#;
        assert_eq!(client.one::<String>(longer), r#"{"n": "7", "o": 1}"#, "{path}");
    }
}

#[test]
fn dynamic_sql_of_an_audit_trigger_stores_ciphertext() {
    if lacks("citext") {
        return;
    }
    let mut client = database();
    client.run(
        "CREATE TABLE audit (entry text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$ BEGIN
             EXECUTE 'INSERT INTO public.audit VALUES (' || quote_literal(NEW.x) || '), (' || quote_nullable(NEW.m) || ')';
             RETURN NEW; END $$;
         CREATE TRIGGER note BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()",
    );
    client.run(r#"INSERT INTO t VALUES (2, 'Smith', '{"n": "Smith"}')"#);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM audit WHERE entry LIKE 'pgseal:%'"), 2);
}

#[test]
fn no_other_function_of_postgresqls_casts_to_text() {
    let mut client = fresh_database();
    let others = "SELECT string_agg(p.oid::regprocedure::text, ' ' ORDER BY p.oid::regprocedure::text COLLATE \"C\") FROM pg_proc p
         WHERE pronamespace = 'pg_catalog'::regnamespace AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'sql')
           AND EXISTS (SELECT FROM unnest(proargtypes) a JOIN pg_type y ON y.oid = a WHERE y.typtype = 'p')
           AND concat(prosrc, pg_get_function_sqlbody(p.oid)) ~* '::(pg_catalog.)?(text|varchar|name)'";
    assert_eq!(
        client.one::<String>(others),
        "anytextcat(anynonarray,text) quote_literal(anyelement) quote_nullable(anyelement) textanycat(text,anynonarray)"
    );
}

#[test]
fn what_stands_in_pg_catalog_goes_with_the_extension() {
    let mut client = fresh_database();
    let name = client.database();
    let dump = shared().pg_dump("postgres", &["-d", &name]);
    let dump = String::from_utf8(dump.stdout).unwrap();
    assert!(!dump.contains("quote_literal") && !dump.contains("CREATE OPERATOR"), "{dump}");
    let ours = "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 11 AND oid >= 16384) + (SELECT count(*) FROM pg_operator WHERE oprnamespace = 11 AND oid >= 16384)";
    assert!(client.one::<i64>(ours) > 0);
    client.run("DROP EXTENSION pgseal CASCADE");
    assert_eq!(client.one::<i64>(ours), 0);
}
