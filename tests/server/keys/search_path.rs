//! Whatever the search_path holds, pgseal runs PostgreSQL's functions and operators and its own.

use std::fmt::Write;

use postgres::Client;
use regex::Regex;

use crate::support::{Cluster, Sql, fresh_database};

/// Routines of the extension whose names are looked up when they run, and not in pg_catalog alone.
const UNFIXED: &str = "SELECT p.oid::regprocedure::text || E'\\n' || p.prosrc FROM pg_proc p
    JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgseal'
    JOIN pg_language l ON l.oid = p.prolang
    WHERE l.lanname <> 'c' AND p.prosqlbody IS NULL
      AND NOT coalesce(p.proconfig @> '{\"search_path=pg_catalog, pg_temp\"}', false)";

/// What a routine looks up in the search_path as it stands there: no name without a schema, no operator but OPERATOR(pg_catalog.x),
/// and nothing that hides one.
fn lookups(source: &str) -> Vec<String> {
    let cut = |pattern: &str, text: &str, by: &str| {
        Regex::new(pattern).expect("a pattern").replace_all(text, by).into_owned()
    };
    let texts: Vec<String> = Regex::new("'((?:[^']|'')*)'")
        .expect("a pattern")
        .captures_iter(&cut("--[^\n]*", source, ""))
        .map(|found| found[1].to_owned())
        .collect();
    // What is run as a statement of its own is looked at as one; its placeholders are names that were quoted.
    let statements = texts.iter().filter(|text| {
        Regex::new("^(UPDATE|SELECT|INSERT|DELETE|ALTER|LOCK)\\b").expect("a pattern").is_match(text)
    });
    let mut found: Vec<String> = statements
        .flat_map(|text| {
            lookups(&cut(r"%(\d\$)?[IsL]", &cut(r"SET %(\d\$)?I =", text, "SET x :="), "pgseal.x"))
        })
        .collect();
    let bare = cut("--[^\n]*|'(?:[^']|'')*'", source, "''");
    let bare = cut(r"OPERATOR\(pg_catalog\.[^)]+\) ANY", &bare, " ");
    let bare = cut(r"OPERATOR\(pg_catalog\.[^)]+\)", &bare, " ");
    let bare = cut(r"\b(ERRCODE|HINT|DETAIL|MESSAGE) = ", &bare, " ");
    let bare = cut(r":=|=>|\.\.|\(\*\)", &bare, " ");
    let bare = cut(r"\bFOR \w+ IN\b|\bIN ARRAY\b", &bare, " ");
    for pattern in [
        r"[-+*/<>=~!@#%^&|?]+",
        r"(?i)\b(LIKE|ILIKE|SIMILAR|BETWEEN|NULLIF|NATURAL|ANY|SOME|IN)\b",
        r"(?i)\bDISTINCT FROM\b",
        r"(?i)\bCASE (?:\S+ )?\w[\w.]* WHEN\b",
        r"(?i)\bJOIN\b.*\bUSING\b",
        r"::(?:[a-z_]\w*)(?:[^.\w]|$)",
        r"(?m)^\s+\w+ (?:int[248]|text|name|float[48]|numeric|tid|oid|reg\w+|record|timestamptz|interval|json|jsonb)\b",
    ] {
        let found_here = Regex::new(pattern).expect("a pattern");
        found.extend(found_here.find_iter(&bare).map(|found| found.as_str().trim().to_owned()));
    }
    let keywords =
        "(?i)^(IF|AND|OR|NOT|WHEN|coalesce|greatest|least|extract|exists|ARRAY|USING|VALUES|FROM|x)$";
    let keywords = Regex::new(keywords).expect("a pattern");
    for call in Regex::new(r"([\w.]+) ?\(").expect("a pattern").captures_iter(&bare) {
        let name = &call[1];
        if !name.starts_with("pg_catalog.") && !name.starts_with("pgseal.") && !keywords.is_match(name) {
            found.push(format!("{name}("));
        }
    }
    found
}

#[test]
fn every_routine_looks_names_up_in_pg_catalog() {
    for routine in fresh_database().column::<String>(UNFIXED) {
        let (name, source) = routine.split_once('\n').expect("name and source");
        assert_eq!(lookups(source), [""; 0], "{name}");
    }
}

#[test]
fn the_check_of_routines_sees_what_is_looked_up() {
    let caught = [
        "IF a = b THEN",
        "x := y || z;",
        "x := now();",
        "x := public.now();",
        "IF a IN (1, 2) THEN",
        "IF a IS DISTINCT FROM b THEN",
        "x := CASE y WHEN 1 THEN 2 END;",
        "x := nullif(y, 1);",
        "x := '1'::int4;",
        "x := y BETWEEN 1 AND 2;",
        "\n    leaf regclass;",
        "EXECUTE 'SELECT a = b';",
        "EXECUTE pg_catalog.format('UPDATE %s SET %I = f(%I) WHERE ctid > $1', a, b);",
        "x := pg_catalog.max(y) FROM a JOIN b USING (c);",
        "x := a OPERATOR(public.=) b;",
        "x := -y;",
    ];
    for body in caught {
        assert!(!lookups(body).is_empty(), "{body}");
    }
    let passes = [
        "x := a OPERATOR(pg_catalog.=) b AND NOT pgseal.f(y => c);",
        "FOR i IN 1..30 LOOP",
        "FOREACH leaf IN ARRAY leaves LOOP",
        "RAISE NOTICE '% = %', a, b USING HINT = 'a = b';",
        "x := '1'::pg_catalog.int4; -- a = b",
        "EXECUTE pg_catalog.format('UPDATE ONLY %1$s SET %2$I = pgseal.reseal(%2$I) WHERE ctid OPERATOR(pg_catalog.>=) $1', a, b) USING c;",
        "x := CASE WHEN y THEN 1 ELSE 2 END;",
    ];
    for body in passes {
        assert_eq!(lookups(body), [""; 0], "{body}");
    }
}

#[test]
fn what_is_parsed_already_names_nothing_foreign() {
    // PostgreSQL records no dependency on its own objects.
    let foreign = fresh_database().column::<String>(
        "WITH own AS (SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                       WHERE d.deptype = 'e' AND e.extname = 'pgseal'),
              part AS (SELECT * FROM own
                       UNION SELECT d.classid, d.objid FROM pg_depend d JOIN own ON d.refclassid = own.classid AND d.refobjid = own.objid
                        WHERE d.deptype IN ('a', 'i', 'n')
                          AND d.classid IN ('pg_rewrite'::regclass, 'pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_trigger'::regclass))
         SELECT DISTINCT format('%s needs %s', pg_describe_object(p.classid, p.objid, 0), pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid))
           FROM part p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid
          WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_collation'::regclass, 'pg_opclass'::regclass)
            AND (d.refclassid, d.refobjid) NOT IN (SELECT * FROM own)
            -- What embeddings are made from.
            AND (d.refclassid, d.refobjid) NOT IN (SELECT v.classid, v.objid FROM pg_depend v JOIN pg_extension e ON e.oid = v.refobjid
                                                    WHERE v.refclassid = 'pg_extension'::regclass AND v.deptype = 'e' AND e.extname = 'vector')
            -- Arrays and row types of our own.
            AND NOT (d.refclassid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
                     WHERE t.oid = d.refobjid AND (('pg_type'::regclass, t.typelem) IN (SELECT * FROM own)
                        OR ('pg_class'::regclass, t.typrelid) IN (SELECT * FROM own))))",
    );
    assert_eq!(foreign, [""; 0]);
}

/// Types that operators and functions of the attack take.
const TYPES: [&str; 26] = [
    "oid",
    "regclass",
    "regtype",
    "regproc",
    "name",
    "text",
    "varchar",
    "\"char\"",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "interval",
    "timestamptz",
    "bool",
    "tid",
    "jsonb",
    "bytea",
    "uuid",
    "text[]",
    "int2[]",
    "oid[]",
    "regclass[]",
    "pg_lsn",
];
const BOOLEAN: [&str; 16] =
    ["=", "<>", "<", "<=", ">", ">=", "~", "~*", "!~", "~~", "!~~", "&&", "@>", "<@", "?", "@@"];
const OTHER: [&str; 13] = ["+", "-", "*", "/", "||", "->", "->>", "#>", "#>>", "&", "|", "<<", ">>"];

/// Objects that the owner of a database may make in its schema public: operators for every two types, a function beside each of
/// PostgreSQL's own, types and catalogs of the same names. Each notes that it was called.
pub fn traps() -> String {
    let mut script = String::from(
        "SET search_path = pg_catalog; SET check_function_bodies = off;
         CREATE SEQUENCE public.sprung; GRANT ALL ON SEQUENCE public.sprung TO PUBLIC;
         CREATE FUNCTION public.spring(what pg_catalog.text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS
             $$ BEGIN PERFORM pg_catalog.nextval('public.sprung'); RAISE WARNING 'sprung: %', what; RETURN true; END $$;",
    );
    for left in TYPES {
        for right in TYPES {
            for (kind, result) in [("b", "bool"), ("o", if left == "int4" { right } else { left })] {
                let _ = write!(
                    script,
                    "CREATE FUNCTION public.trap_{kind}(pg_catalog.{left}, pg_catalog.{right}) RETURNS pg_catalog.{result} LANGUAGE plpgsql
                     AS $$ BEGIN PERFORM public.spring('operator on {left}, {right}'); RETURN NULL; END $$;"
                );
            }
            for (kind, operators) in [("b", &BOOLEAN[..]), ("o", &OTHER[..])] {
                for operator in operators {
                    let _ = write!(
                        script,
                        "CREATE OPERATOR public.{operator} (LEFTARG = pg_catalog.{left}, RIGHTARG = pg_catalog.{right}, FUNCTION = public.trap_{kind});"
                    );
                }
            }
        }
    }
    script += "DO $do$ DECLARE f record; BEGIN
        FOR f IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
                   FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.proargmodes IS NULL
                    AND p.prorettype NOT IN ('internal'::regtype, 'cstring'::regtype, 'trigger'::regtype, 'event_trigger'::regtype)
                    AND pg_get_function_identity_arguments(p.oid) !~ 'internal|cstring|any\"?$|any\"?,' AND p.proname NOT IN ('nextval', 'format', 'concat')
        LOOP
            BEGIN
                EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', f.proname, f.arguments, f.result,
                               format('BEGIN PERFORM public.spring(%L); RETURN %s; END', f.proname,
                                      CASE WHEN f.result !~ '^(SETOF|void)' THEN 'NULL' END));
            EXCEPTION WHEN OTHERS THEN NULL; -- PL/pgSQL does not take all types.
            END;
        END LOOP;
        FOR f IN SELECT DISTINCT unnest(ARRAY['text', 'text, text', 'text, name', 'text, oid', 'text, regclass', 'text, text, text',
                     'text, regclass, name', 'text, name, text', 'text, text, name', 'text, regclass, text']) AS arguments
        LOOP
            EXECUTE format('CREATE OR REPLACE FUNCTION public.format(%s) RETURNS pg_catalog.text LANGUAGE plpgsql AS %L', f.arguments,
                           'BEGIN PERFORM public.spring(''format''); RETURN ''SELECT 1''; END');
            EXECUTE format('CREATE OR REPLACE FUNCTION public.concat(%s) RETURNS pg_catalog.text LANGUAGE plpgsql AS %L', f.arguments,
                           'BEGIN PERFORM public.spring(''concat''); RETURN ''x''; END');
        END LOOP;
        FOR f IN SELECT unnest(ARRAY['text', 'name', 'int2', 'int4', 'int8', 'float8', 'numeric', 'oid', 'tid', 'regclass', 'regtype',
                     'timestamptz', 'record', 'jsonb', 'json', 'bytea', 'uuid', 'pg_lsn', 'bool']) AS name LOOP
            EXECUTE format('CREATE DOMAIN public.%I AS pg_catalog.text CHECK (public.spring(%L))', f.name, 'type ' || f.name);
        END LOOP;
        FOR f IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
                    AND c.relname IN ('pg_class', 'pg_proc', 'pg_type', 'pg_depend', 'pg_extension', 'pg_roles', 'pg_locks',
                                      'pg_stat_activity', 'pg_constraint', 'pg_index', 'pg_trigger', 'pg_inherits', 'pg_settings') LOOP
            EXECUTE format('CREATE VIEW public.%1$I AS SELECT c.* FROM pg_catalog.%1$I c WHERE public.spring(%1$L)', f.relname);
        END LOOP;
    END $do$;";
    script
}

/// Temporary types and relations, which come first where the path does not say otherwise.
pub fn temporary_traps() -> String {
    let domains = [
        "text",
        "name",
        "int4",
        "int8",
        "oid",
        "regclass",
        "regtype",
        "tid",
        "timestamptz",
        "record",
        "jsonb",
    ];
    let views = ["pg_class", "pg_proc", "pg_type", "pg_roles", "pg_depend", "pg_extension", "pg_locks"];
    let domains = domains.map(|name| {
        format!("CREATE DOMAIN pg_temp.{name} AS pg_catalog.text CHECK (public.spring('pg_temp.{name}'));")
    });
    let views = views.map(|name| {
        format!("CREATE TEMPORARY VIEW {name} AS SELECT c.* FROM pg_catalog.{name} c WHERE public.spring('pg_temp.{name}');")
    });
    domains.concat() + &views.concat()
}

pub fn assert_not_sprung(client: &mut Client, by: &str) {
    assert!(!client.one::<bool>("SELECT is_called FROM public.sprung"), "{by}");
}

/// What a superuser calls, on a table of his own.
pub const CALLS: [&str; 33] = [
    "SELECT pgseal.create_keyring('a', ARRAY['$.n'])",
    "SELECT pgseal.create_keyring('b', '{}')",
    "SELECT pgseal.grant_keyring('a', 'public', '{search}')",
    "SELECT pgseal.revoke_keyring('a', 'public')",
    "CREATE TABLE dba.docs (id pg_catalog.int4 PRIMARY KEY, m pg_catalog.jsonb NOT NULL, t pg_catalog.text DEFAULT 'x')",
    "INSERT INTO dba.docs VALUES (1, '{\"n\": \"Ann\"}', 'v')",
    "CALL pgseal.encrypt_column('dba.docs', 'm', 'a', dry_run => true)",
    "CALL pgseal.encrypt_column('dba.docs', 'm', 'a')",
    "CALL pgseal.encrypt_column('dba.docs', 't', 'b')",
    "CREATE INDEX ON dba.docs USING gin (m)",
    "SELECT pgseal.rotate_key('a')",
    "SELECT pgseal.rotate_index_key('a')",
    "SELECT pgseal.set_searchable('b', ARRAY['$'])",
    "CALL pgseal.reencrypt('dba.docs', 'm')",
    "SELECT pgseal.rotate_key('a')",
    "CALL pgseal.reencrypt('dba.docs', 'm', max_rate => 1000, rotation => 'in_place', index => false)",
    "SELECT pgseal.retire_key('a', 1)",
    "SELECT * FROM pgseal.key_usage('dba.docs', 'm')",
    "SELECT * FROM pgseal.verify('dba.docs', 'm')",
    "SELECT * FROM pgseal.audit()",
    "SELECT pgseal.evidence('dba.docs', canaries => ARRAY['canary'], checkpoint => true)",
    "SELECT * FROM pgseal.check_searchable('dba.docs', 'm')",
    "SELECT * FROM pgseal.keyrings, pgseal.keys, pgseal.rotation_progress, pgseal.stat",
    "SELECT pgseal.decrypt(m), m OPERATOR(dba.->>) 'n' FROM dba.docs WHERE m OPERATOR(dba.@>) '{\"n\": \"Ann\"}'",
    "SELECT pgseal.register_manifest('backup'), pgseal.release_manifest('backup')",
    "SELECT pgseal.import_keyring(pgseal.export_keyring('a'))",
    "SELECT * FROM pgseal.backup_manifest()",
    "SELECT * FROM pgseal.check_kms('a')",
    "SELECT pgseal.rewrap_keys('a'), pgseal.set_default_keyring('b'), pgseal.flush_keys()",
    "CALL pgseal.decrypt_column('dba.docs', 'm')",
    "CALL pgseal.decrypt_column('dba.docs', 't', dry_run => true)",
    "SELECT pgseal.in_place_problem('dba.docs', 't'), pgseal.drop_keyring('a', force => true)",
    "SELECT pgseal.drop_keyring('b', force => true)",
];

#[test]
fn nothing_that_a_search_path_holds_is_run() {
    let cluster = Cluster::start(&[]);
    let mut server = cluster.connect("postgres");
    server.run("CREATE ROLE owner LOGIN");
    for (database, path) in [
        ("usual", "\"$user\", public"),
        ("reversed", "public, pg_catalog"),
        ("temporary", "pg_temp, public, pg_catalog"),
    ] {
        server.run(&format!("CREATE DATABASE {database} OWNER owner"));
        cluster.connect(database).run("CREATE SCHEMA dba; CREATE EXTENSION vector");
        cluster.connect_as("owner", database).batch_execute(&traps()).expect("traps");
        server.run(&format!("ALTER DATABASE {database} SET search_path = {path}"));
        let mut client = cluster.connect(database);
        client.run(&temporary_traps());
        client.run("CREATE EXTENSION pgseal SCHEMA dba");
        assert_not_sprung(&mut client, "CREATE EXTENSION");
        for call in CALLS {
            client.run(call);
            assert_not_sprung(&mut client, call);
        }
        client.run("DROP EXTENSION pgseal CASCADE");
        assert_not_sprung(&mut client, "DROP EXTENSION");
    }
}

#[test]
fn the_traps_of_this_test_spring() {
    let cluster = Cluster::start(&[]);
    let mut client = cluster.connect("postgres");
    client.batch_execute(&traps()).expect("traps");
    for (path, statement) in [
        ("public", "SELECT 1::oid = 'pg_class'::regclass"),
        ("public", "SELECT format('%s', 'a'::text)"),
        ("public, pg_catalog", "SELECT 1 = 1"),
        ("public, pg_catalog", "SELECT now()"),
        ("public, pg_catalog", "SELECT 'a'::text"),
        ("public, pg_catalog", "SELECT FROM pg_class"),
    ] {
        client.run(&format!("SELECT pg_catalog.setval('public.sprung', 1, false); SET search_path = {path}; {statement}; SET search_path = ''"));
        assert!(client.one::<bool>("SELECT is_called FROM public.sprung"), "{statement}");
    }
}
