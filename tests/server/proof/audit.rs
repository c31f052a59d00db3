//! What `pgseal.audit` finds: each kind provoked once, and nothing in a database that is set up well.

use postgres::Client;

use crate::support::{Cluster, OpenBao, Sql, fresh_database, lacks, shared};

/// What keeps statements out of the log.
const QUIET: [&str; 3] = [
    "log_min_error_statement = panic",
    "log_parameter_max_length_on_error = 0",
    "log_parameter_max_length = 0",
];

/// A database with the keyring k and 200 documents, which the paths' values do not give away.
fn database() -> Client {
    let mut client = fresh_database();
    fill(&mut client);
    client
}

fn fill(client: &mut Client) {
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name', '$.sex'])");
    client.run(
        "CREATE TABLE docs (id int PRIMARY KEY, embedding encrypted_vector(k, 2), m encrypted_jsonb(k))",
    );
    client.run(
        "INSERT INTO docs SELECT n, '[1,2]', jsonb_build_object('name', n) FROM generate_series(1, 200) n",
    );
    client.run("ANALYZE docs");
}

/// The findings whose object is like this, with their severity.
fn findings(client: &mut Client, object: &str) -> Vec<String> {
    client.column(&format!(
        "SELECT concat_ws(': ', severity, object, finding) FROM pgseal.audit() WHERE object LIKE '{object}'"
    ))
}

#[test]
fn a_well_kept_database_has_findings_of_who_may_decrypt_only() {
    let bao = OpenBao::start();
    bao.create_key("pgseal");
    let endpoint = format!("pgseal.kms_endpoint = '{}'", bao.endpoint());
    let cluster = Cluster::start(&QUIET);
    let token = cluster.write("token", "root");
    cluster.write(
        "data/postgresql.auto.conf",
        &format!("{endpoint}\npgseal.kms_token_file = '{}'\n", token.display()),
    );
    cluster.restart();
    let mut client = cluster.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE");
    fill(&mut client);
    client.run("CREATE ROLE app LOGIN; GRANT SELECT, INSERT ON docs TO app; ALTER ROLE app SET pgseal.accept_sealed = off");
    client.run("CREATE VIEW named AS SELECT id, m ->> 'name' AS name FROM docs WHERE id > 3");
    client.run("ALTER TABLE docs ALTER m SET DEFAULT '{}'::jsonb");
    client.run("CREATE POLICY own ON docs USING (m ->> 'name' = current_setting('app.name'))");
    // Constants that have nothing to do with an encrypted column.
    client.run("CREATE TABLE kinds (kind text DEFAULT 'memo' CHECK (kind IN ('memo', 'name')), m encrypted_jsonb(k))");
    client.run("CREATE INDEX ON kinds (kind) WHERE kind = 'memo'; CREATE VIEW memos AS SELECT m FROM kinds WHERE kind = 'memo'");
    client.run("CREATE FUNCTION memos() RETURNS int8 LANGUAGE sql AS $$ SELECT count(*) FROM kinds WHERE kind = 'memo' $$");
    let all = findings(&mut client, "%");
    let expected = |finding: &String| {
        finding.starts_with("info: superusers: ")
            || finding.starts_with("info: keyring k: role postgres can decrypt")
            || finding.contains(": the data directory: ")
    };
    assert!(all.iter().all(expected), "{all:#?}");
    assert!((2..=3).contains(&all.len()), "{all:#?}");
}

#[test]
fn plain_columns_beside_an_embedding_are_found() {
    let mut client = database();
    client.run("CREATE TABLE plain (id int, v vector(2), note text, tags varchar(9)[], j jsonb, n int, m encrypted_jsonb(k))");
    client.run("CREATE TABLE elsewhere (note text); CREATE TABLE only_plain (v vector(2))");
    assert_eq!(
        findings(&mut client, "column %"),
        [
            "warning: column j of public.plain: it is stored in plaintext (jsonb) beside an embedding",
            "warning: column note of public.plain: it is stored in plaintext (text) beside an embedding",
            "warning: column tags of public.plain: it is stored in plaintext (character varying(9)[]) beside an embedding",
            "warning: column v of public.plain: embeddings are stored in plaintext (public.vector(2)) beside encrypted columns: much of a text can be told from its embedding",
        ]
    );
}

#[test]
fn paths_with_few_values_and_a_dominating_token_are_found() {
    let mut client = database();
    client.run("CREATE TABLE people (m encrypted_jsonb(k))");
    client.run("INSERT INTO people SELECT jsonb_build_object('name', n, 'sex', CASE WHEN n % 5 = 0 THEN 'f' ELSE 'm' END) FROM generate_series(1, 500) n");
    client.run("ANALYZE people");
    let found = findings(&mut client, "column m of %people");
    assert!(found[0].contains("one searchable value is in 80 % of the rows"), "{found:?}");
    assert!(
        found[1].contains("searchable path $.sex has 2 different values in 500, the commonest 80 % of all"),
        "{found:?}"
    );
    assert_eq!(found.len(), 2);
    // Without the key the statistics still tell, and what could not be counted is said.
    let name = client.database();
    client.run(&format!("CREATE ROLE {name}_monitor LOGIN; GRANT pg_monitor TO {name}_monitor"));
    let mut monitor = shared().connect_as(&format!("{name}_monitor"), &name);
    let found = findings(&mut monitor, "column m of %people");
    assert!(found[0].contains("80 % of the rows"), "{found:?}");
    assert!(found[1].starts_with("unknown: ") && found[1].contains("permission denied"), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn old_keys_and_values_under_them_are_found() {
    let mut client = database();
    client.run("UPDATE pgseal.data_key SET created = now() - interval '400 days'");
    assert_eq!(
        findings(&mut client, "keyring k")[1],
        "warning: keyring k: its data key version 1 is 400 days old"
    );
    let none: i64 =
        client.one("SELECT count(*) FROM pgseal.audit('500 days') WHERE finding LIKE '%days old'");
    assert_eq!(none, 0);
    client.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_index_key('k')");
    assert_eq!(
        findings(&mut client, "column m of public.docs"),
        [
            "warning: column m of public.docs: 200 values under data key version 1 of keyring k, which is decrypt-only",
            "warning: column m of public.docs: 200 values with tokens of index key version 1 of keyring k, which is decrypt-only",
        ]
    );
    client.run("UPDATE pgseal.data_key SET state = 'retired' WHERE version = 1");
    let found = findings(&mut client, "column m of public.docs");
    assert_eq!(
        found[0],
        "critical: column m of public.docs: 200 values under data key version 1 of keyring k, which is retired"
    );
}

#[test]
fn what_it_says_to_do_can_be_typed() {
    let mut client = database();
    let role = format!("{} Reader", client.database());
    client.run(&format!(
        "CREATE ROLE \"{role}\"; SELECT pgseal.grant_keyring('k', '{role}', ARRAY['decrypt'])"
    ));
    client.run("CREATE MATERIALIZED VIEW copies AS SELECT m FROM docs");
    client.run("SELECT pgseal.rotate_key('k')");
    let commands = "SELECT replace(what_to_do, ' where it should not', '') FROM pgseal.audit()
        WHERE what_to_do ~ '^(CALL|REFRESH|SELECT pgseal.revoke)'";
    // The copies are listed before what they are made from.
    for _ in 0..2 {
        client.column::<String>(commands).iter().for_each(|command| client.run(command));
    }
    assert_eq!(client.column::<String>(commands), Vec::<String>::new());
}

#[test]
fn values_in_transit_and_under_old_keys_in_odd_places_are_found() {
    let mut client = database();
    // As versions before 0.3.0 stored a literal.
    client.run("CREATE TABLE loose (m bytea); INSERT INTO loose SELECT pgseal.encrypted_jsonb_send('{\"a\": 1}'::encrypted_jsonb)");
    client.run("UPDATE pg_attribute SET atttypid = 'encrypted_jsonb'::regtype WHERE attrelid = 'loose'::regclass AND attname = 'm'");
    assert_eq!(
        findings(&mut client, "column m of public.loose"),
        [
            "warning: column m of public.loose: 1 values came as literals and were stored as they were: equal literals may have equal bytes"
        ]
    );
    client.run(
        "CREATE TABLE odd (many encrypted_jsonb[], m encrypted_jsonb DEFAULT '{\"a\": 2}'::encrypted_jsonb)",
    );
    client.run("INSERT INTO odd SELECT array_agg(m), NULL FROM docs");
    assert!(findings(&mut client, "%odd").is_empty());
    client.run("SELECT pgseal.rotate_key('k')");
    assert_eq!(
        findings(&mut client, "%odd"),
        [
            "warning: DEFAULT of column m of public.odd: a sealed literal under data key version 1 of keyring k, which is decrypt-only",
            "warning: column many of public.odd: 200 values under data key version 1 of keyring k, which is decrypt-only",
        ]
    );
}

#[test]
fn foreign_tables_are_named_as_not_looked_at() {
    let mut client = database();
    client.run("CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere");
    client.run("CREATE FOREIGN TABLE elsewhere (m encrypted_jsonb) SERVER far");
    let found = findings(&mut client, "%elsewhere");
    assert_eq!(
        found,
        ["unknown: column m of public.elsewhere: values in a foreign table were not looked at"]
    );
}

#[test]
fn malformed_values_are_found() {
    let mut client = database();
    client.run("CREATE TABLE bytes (b bytea); INSERT INTO bytes VALUES ('\\x01')");
    client.run("UPDATE pg_attribute SET atttypid = 'encrypted_jsonb'::regtype WHERE attrelid = 'bytes'::regclass AND attname = 'b'");
    let found = findings(&mut client, "column b of public.bytes");
    assert_eq!(found[0], "critical: column b of public.bytes: 1 values are malformed");
    assert!(found[1].starts_with("unknown: "), "{found:?}");
}

#[test]
fn settings_that_write_plaintext_are_found() {
    if lacks("auto_explain") {
        return;
    }
    let cluster = Cluster::with_pgseal(&QUIET);
    let mut client = cluster.connect("postgres");
    assert!(findings(&mut client, "setting%").is_empty());
    for (setting, value) in [
        ("log_statement", "mod"),
        ("log_min_duration_statement", "100"),
        ("log_min_duration_sample", "100"),
        ("log_transaction_sample_rate", "0.01"),
        ("log_min_error_statement", "error"),
        ("log_parameter_max_length_on_error", "-1"),
        ("auto_explain.log_min_duration", "0"),
        ("debug_print_parse", "on"),
        ("debug_print_rewritten", "on"),
        ("debug_print_plan", "on"),
    ] {
        client.run("CREATE ROLE app");
        client.run("LOAD 'auto_explain'");
        client.run(&format!("ALTER ROLE app SET {setting} = '{value}'"));
        let found = findings(&mut client, "setting%");
        assert!(found[0].starts_with(&format!("warning: setting {setting} of role app: ")), "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
        client.run("DROP ROLE app");
    }
    client.run("ALTER SYSTEM SET log_parameter_max_length = -1");
    client.run("ALTER SYSTEM SET log_statement = 'all'");
    client.run("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
    cluster.restart();
    let mut client = cluster.connect("postgres");
    let found = findings(&mut client, "setting%");
    assert!(found[0].starts_with("warning: setting log_parameter_max_length: "), "{found:?}");
    assert!(found[1].starts_with("warning: setting log_statement: "), "{found:?}");
    assert_eq!(findings(&mut client, "extension%").len(), 1);
    client.run("ALTER SYSTEM SET pg_stat_statements.track_utility = off");
    cluster.restart();
    assert!(findings(&mut cluster.connect("postgres"), "extension%").is_empty());
}

#[test]
fn file_keys_and_whoever_can_decrypt_are_found() {
    let mut client = database();
    let name = client.database();
    let critical = "critical: keyring k: its wrapping key is a file on this server: whoever can read it can read the data";
    assert_eq!(findings(&mut client, "keyring k"), [critical, "info: keyring k: role postgres can decrypt"]);
    client.run(&format!("CREATE ROLE {name}_doctors; CREATE ROLE {name}_ann LOGIN IN ROLE {name}_doctors"));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{name}_doctors', ARRAY['decrypt'])"));
    let found = findings(&mut client, "keyring k");
    assert!(
        found.contains(&format!("info: keyring k: role {name}_doctors can decrypt, and so can {name}_ann")),
        "{found:?}"
    );
    client.run("SELECT pgseal.grant_keyring('k', 'public', ARRAY['decrypt'])");
    assert!(
        findings(&mut client, "keyring k").contains(&"critical: keyring k: every role can decrypt".into())
    );
    assert!(findings(&mut client, "superusers")[0].contains("postgres"));
}

#[test]
fn plaintext_that_definitions_keep_is_found() {
    let mut client = database();
    client.run(r#"CREATE VIEW john AS SELECT id FROM docs WHERE m @> '{"name": "John"}'"#);
    client.run("CREATE VIEW cast_john AS SELECT id FROM docs WHERE m::jsonb ->> 'name' = 'John'");
    client.run(r#"CREATE POLICY only_john ON docs USING (m @@ pgseal.filter('{"name": "John"}'))"#);
    client.run(r#"ALTER TABLE docs ADD CONSTRAINT not_john CHECK (NOT m @> '{"name": "John"}') NOT VALID"#);
    client.run(
        "CREATE RULE no_john AS ON DELETE TO docs WHERE old.m::jsonb ->> 'name' = 'John' DO INSTEAD NOTHING",
    );
    client.run(r#"ALTER TABLE docs ALTER m SET DEFAULT '{"name": "John"}'::jsonb"#);
    client.run("CREATE FUNCTION is_john(encrypted_jsonb, text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END'");
    client.run("CREATE INDEX johns ON docs (id) WHERE is_john(m, 'John')");
    client.run(r#"CREATE FUNCTION count_johns() RETURNS int8 LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(*) FROM docs WHERE m @> '{"name": "John"}'); END $$"#);
    client.run("CREATE VIEW near_john AS SELECT id FROM docs ORDER BY embedding <=> '[0.1,0.2]' LIMIT 3; CREATE STATISTICS from_john ON (embedding <-> '[0.1,0.2]'), id FROM docs");
    client.run("CREATE FUNCTION nearest_john() RETURNS int LANGUAGE sql AS $$ SELECT id FROM docs ORDER BY embedding <#> '[0.1,0.2]' LIMIT 1 $$");
    client.run("CREATE VIEW near AS SELECT id FROM docs ORDER BY embedding <=> (SELECT embedding::vector FROM docs WHERE id = 1) LIMIT 3");
    let found: Vec<String> = client.column(
        "SELECT object FROM pgseal.audit() WHERE finding LIKE '%in plaintext' ORDER BY object COLLATE \"C\"",
    );
    assert_eq!(
        found,
        [
            "DEFAULT of column m of public.docs",
            "constraint not_john of public.docs",
            "function public.count_johns()",
            "function public.nearest_john()",
            "index public.johns",
            "policy only_john of public.docs",
            "rule no_john of public.docs",
            "statistics from_john",
            "view public.cast_john",
            "view public.john",
            "view public.near_john",
        ]
    );
    let shown: i64 = client.one("SELECT count(*) FROM pgseal.audit() a WHERE a::text LIKE '%John%'");
    assert_eq!(shown, 0);
}

/// Severity and object of the findings that say this.
fn said(client: &mut Client, finding: &str) -> Vec<String> {
    client.column(&format!(
        "SELECT concat_ws(': ', severity, object) FROM pgseal.audit() WHERE finding ~ '{finding}' ORDER BY object COLLATE \"C\""
    ))
}

#[test]
fn copies_of_decrypted_values_are_found() {
    let mut client = database();
    client.run("ALTER TABLE docs ADD x encrypted_text(k)");
    client.run("CREATE VIEW opened AS SELECT id, pgseal.decrypt(m) AS plain FROM docs; CREATE VIEW again AS SELECT plain FROM opened");
    client.run("CREATE FUNCTION name_of(encrypted_jsonb) RETURNS text IMMUTABLE LANGUAGE sql RETURN ($1 ->> 'name')::text");
    client.run("CREATE FUNCTION text_of(encrypted_text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1::text; END'");
    client.run("CREATE FUNCTION honest(encrypted_text) RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1::text; END'");
    assert!(said(&mut client, "made? from decrypted|makes from decrypted|stores decrypted").is_empty());
    client.run("CREATE MATERIALIZED VIEW copied AS SELECT pgseal.decrypt(x) AS t FROM docs; CREATE MATERIALIZED VIEW copied_again AS SELECT * FROM again");
    client.run("CREATE MATERIALIZED VIEW wrapped AS SELECT honest(x) FROM docs; CREATE INDEX named ON docs (id) WHERE name_of(m) = 'Ann'; CREATE INDEX texts ON docs (text_of(x))");
    // As a database has them that was updated: now they are refused.
    client.run("ALTER EVENT TRIGGER pgseal_refuse_orders DISABLE");
    client.run("CREATE STATISTICS told ON (pgseal.decrypt(x)), id FROM docs; CREATE STATISTICS compared ON (x LIKE 'A%'), id FROM docs");
    client.run("CREATE STATISTICS far ON (embedding <=> '[1,2]'), id FROM docs");
    client.run("ALTER TABLE docs ADD g text GENERATED ALWAYS AS (name_of(m)) STORED");
    client.run("CREATE TABLE parts (x encrypted_text) PARTITION BY LIST (text_of(x)); CREATE TABLE parts_1 PARTITION OF parts DEFAULT");
    client.run("CREATE TABLE log (t text); CREATE RULE logged AS ON DELETE TO docs DO ALSO INSERT INTO log VALUES (OLD.x::text)");
    // What stays sealed, or says of a value no more than its keys.
    client.run("CREATE MATERIALIZED VIEW sealed AS SELECT m, m -> 'name' AS part FROM docs WHERE m ? 'name'; CREATE INDEX ON docs USING gin (m)");
    client.run("CREATE INDEX ON docs (pgseal.key_version(m)); CREATE STATISTICS keys ON (pgseal.key_version(m)), id FROM docs");
    assert_eq!(
        said(&mut client, "makes from decrypted|stores decrypted"),
        [
            "critical: generated column g of public.docs",
            "critical: index public.named",
            "critical: index public.texts",
            "critical: materialized view public.copied",
            "critical: materialized view public.copied_again",
            "critical: materialized view public.wrapped",
            "critical: partition key of public.parts",
            "critical: statistics object public.compared",
            "critical: statistics object public.far",
            "critical: statistics object public.told",
        ]
    );
    assert_eq!(said(&mut client, "may write decrypted"), ["warning: rule logged of public.docs"]);
    assert_eq!(
        said(&mut client, "is marked IMMUTABLE"),
        [
            "warning: function public.name_of(public.encrypted_jsonb)",
            "warning: function public.text_of(public.encrypted_text)"
        ]
    );
}

#[test]
fn what_a_restore_evaluates_while_rows_load_is_found() {
    let mut client = database();
    client.run("CREATE FUNCTION has_name(encrypted_jsonb) RETURNS boolean LANGUAGE sql RETURN $1 ? 'name'");
    client.run(
        "CREATE DOMAIN titled AS encrypted_jsonb(k) CHECK (VALUE ? 'title'); ALTER TABLE docs ADD x encrypted_text(k),
           ADD CONSTRAINT a CHECK (m ? 'name'), ADD CONSTRAINT b CHECK (x IS DISTINCT FROM 'bad'), ADD CONSTRAINT c CHECK (has_name(m)),
           ADD CONSTRAINT d CHECK (length(pgseal.decrypt(x)) < 9), ADD CONSTRAINT e CHECK (x NOT IN ('v', 'w')),
           ADD CONSTRAINT f CHECK (m IS NOT NULL AND pgseal.key_version(m) > 0)",
    );
    let restore = "a restore evaluates it while rows load, when";
    let table = |name: &str| format!("warning: constraint {name} on table public.docs");
    let mut expected: Vec<String> = ["a", "b", "c", "d", "e"].map(table).into();
    expected.push("warning: constraint titled_check of domain public.titled".into());
    let mut found = said(&mut client, restore);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    // As it says.
    for name in ["a", "b", "c", "d", "e"] {
        client.run(&format!("ALTER TABLE docs DROP CONSTRAINT {name}"));
    }
    client.run("DROP DOMAIN titled; ALTER TABLE docs ADD CONSTRAINT a CHECK (m ? 'name') NOT VALID");
    assert!(said(&mut client, restore).is_empty());
}

#[test]
fn triggers_that_compare_rows_are_found() {
    let mut client = database();
    client.run("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF OLD *<> NEW THEN NEW.id := OLD.id; END IF; RETURN NEW; END'");
    client.run("CREATE TRIGGER bytes BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.* *<> NEW.*) EXECUTE FUNCTION touch()");
    assert!(said(&mut client, "compares whole rows").is_empty());
    client.run("CREATE TRIGGER rows BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION touch()");
    client.run("CREATE FUNCTION equal() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF OLD = NEW THEN RETURN NULL; END IF; RETURN NEW; END'");
    client.run("CREATE TRIGGER bodies BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION equal()");
    assert_eq!(
        said(&mut client, "compares whole rows"),
        ["warning: function public.equal()", "warning: trigger rows of public.docs"]
    );
    // It decrypts.
    client.run("UPDATE docs SET id = id");
    let name = client.database();
    client.run(&format!("CREATE ROLE {name}_app LOGIN; GRANT SELECT, UPDATE ON docs TO {name}_app"));
    let mut session = shared().connect_as(&format!("{name}_app"), &name);
    assert_eq!(session.state("UPDATE docs SET id = id WHERE id = 1"), "42501");
}

#[test]
fn application_roles_that_may_store_sealed_values_are_found() {
    let mut client = database();
    let name = client.database();
    client.run(&format!("CREATE ROLE {name}_app LOGIN; GRANT INSERT ON docs TO {name}_app; CREATE ROLE {name}_reader LOGIN; GRANT SELECT ON docs TO {name}_reader"));
    let role = format!("role {name}%");
    assert_eq!(findings(&mut client, &role).len(), 1);
    client.run(&format!("ALTER ROLE {name}_app SET pgseal.accept_sealed = off"));
    assert!(findings(&mut client, &role).is_empty());
}

#[test]
fn audit_is_for_monitors() {
    let mut client = database();
    let name = client.database();
    client.run(&format!("CREATE ROLE {name}_app LOGIN"));
    let mut session = shared().connect_as(&format!("{name}_app"), &name);
    assert_eq!(session.state("SELECT * FROM pgseal.audit()"), "42501");
}
