//! `retire_key` gives a key version up only once no value anywhere can need it.

use std::time::Duration;

use postgres::Client;

use crate::support::{
    Cluster, Sql, beside, fresh_database, lacks, own_keyring, shared, start_waiting, wait_for,
};

const INSERT: &str = r#"INSERT INTO docs (m) VALUES ('{"a": 1}')"#;
const RETIRE: &str = "SELECT pgseal.retire_key('k', 1)";
const ROTATE: &str = "SELECT pgseal.rotate_key('k')";
const REENCRYPT: &str = "CALL pgseal.reencrypt('docs', 'm')";

/// A database with the keyring k and the empty table docs.
/// A retirement waits for a lock, or looks again after a pause.
const WAITS: &[&str] = &["Lock", "Timeout"];

fn database() -> Client {
    let mut client = fresh_database();
    // Compiling the search for values takes twenty times as long as running it.
    client.run("SET jit = off");
    set_up(&mut client);
    client
}

fn set_up(client: &mut Client) {
    own_keyring(client, "{}");
    client.run("CREATE TABLE docs (id serial PRIMARY KEY, m encrypted_jsonb(k))");
}

/// With `place` made, the version that was active then cannot be retired, and `named` is why; with `place` cleaned
/// up it can.
fn check(client: &mut Client, place: &str, named: &str, clean_up: &[&str]) {
    let version: i32 = client.one("SELECT version FROM pgseal.data_key WHERE state = 'active'");
    let retire = format!("SELECT pgseal.retire_key('k', {version})");
    client.run(place);
    client.run(ROTATE);
    let error = client.error(&retire);
    assert_eq!(error.code().code(), "55000", "{place}: {error}");
    assert!(error.message().contains(named), "{place}: {error}");
    for statement in clean_up {
        client.run(statement);
    }
    client.run(&retire);
    let state = format!("SELECT state FROM pgseal.data_key WHERE version = {version}");
    assert_eq!(client.one::<String>(&state), "retired");
}

#[test]
fn values_in_rows_are_found_and_named() {
    let mut client = database();
    let value = r#"pgseal.encrypt('{"a": 1}'::jsonb, 'k')"#;
    check(&mut client, INSERT, "column m of public.docs", &[REENCRYPT]);
    check(&mut client, INSERT, "docs", &["DELETE FROM docs"]);
    let mut table = |definition: &str, value: &str, named: &str| {
        let place = format!("CREATE {definition}; INSERT INTO elsewhere VALUES ({value})");
        check(&mut client, &place, named, &["DROP TABLE elsewhere"]);
    };
    table("TABLE elsewhere (\"The m\" encrypted_jsonb(k))", value, "column \"The m\" of public.elsewhere");
    table("UNLOGGED TABLE elsewhere (m encrypted_jsonb(k))", value, "column m of public.elsewhere");
    table("TEMP TABLE elsewhere (m encrypted_jsonb(k))", value, "elsewhere");
    table("TABLE elsewhere (m encrypted_text)", "'text'", "column m of public.elsewhere");
    table(
        "TABLE elsewhere (m encrypted_jsonb(k)) PARTITION BY HASH (pgseal.key_version(m));
         CREATE TABLE part PARTITION OF elsewhere FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        value,
        "column m of public.part",
    );
    table(
        "TABLE elsewhere (m encrypted_jsonb[])",
        &format!("ARRAY[NULL, {value}]"),
        "column m of public.elsewhere",
    );
    table(
        "DOMAIN d1 AS encrypted_jsonb(k); CREATE TABLE elsewhere (m d1)",
        value,
        "column m of public.elsewhere",
    );
    table(
        "DOMAIN d2 AS encrypted_jsonb(k)[]; CREATE TABLE elsewhere (m d2)",
        &format!("ARRAY[{value}]"),
        "column m of public.elsewhere",
    );
    table(
        "TYPE pair AS (n int, v encrypted_jsonb(k)); CREATE TABLE elsewhere (m pair)",
        &format!("ROW(1, {value})::pair"),
        "column m of public.elsewhere",
    );
    table(
        "TABLE inner_row (n int, v d1); CREATE TABLE elsewhere (m inner_row[])",
        &format!("ARRAY[ROW(1, {value})::inner_row]"),
        "column m of public.elsewhere",
    );
}

#[test]
fn long_values_are_found() {
    let mut client = database();
    let long = "INSERT INTO docs (m) SELECT \
    jsonb_build_object('long', string_agg(md5(n::text), '')) FROM generate_series(1, 1000) n";
    check(&mut client, long, "column m of public.docs", &[REENCRYPT]);
}

#[test]
fn copies_that_the_server_keeps_are_found_and_named() {
    let mut client = database();
    check(
        &mut client,
        &format!("{INSERT}; CREATE MATERIALIZED VIEW copied AS SELECT m FROM docs; DELETE FROM docs"),
        "column m of public.copied",
        &["REFRESH MATERIALIZED VIEW copied"],
    );
    // The row has no bytes for the column: the catalog does.
    check(
        &mut client,
        r#"CREATE TABLE old AS SELECT 1 AS n; ALTER TABLE old ADD added encrypted_jsonb DEFAULT '{"a": 1}'"#,
        "added",
        &[
            "ALTER TABLE old ALTER added DROP DEFAULT",
            "CALL pgseal.reencrypt('old', 'added')",
            "VACUUM FULL old",
        ],
    );
}

#[test]
fn literals_that_the_catalogs_keep_are_found_and_named() {
    let mut client = database();
    let mut kept =
        |definition: &str, named: &str, clean_up: &str| check(&mut client, definition, named, &[clean_up]);
    let literal = r#"'{"a": 1}'::encrypted_jsonb"#;
    let version = format!("pgseal.key_version({literal})");
    kept(
        r#"ALTER TABLE docs ALTER m SET DEFAULT '{"a": 1}'"#,
        "DEFAULT of column m of public.docs",
        r#"ALTER TABLE docs ALTER m SET DEFAULT '{"a": 1}'"#,
    );
    kept("SELECT", "DEFAULT of column m", "ALTER TABLE docs ALTER m DROP DEFAULT");
    kept(
        &format!("ALTER TABLE docs ADD g int GENERATED ALWAYS AS ({version} + id) STORED"),
        "column g of public.docs",
        "ALTER TABLE docs DROP g",
    );
    kept(
        &format!("CREATE VIEW literal AS SELECT {literal} AS m"),
        "view public.literal",
        "DROP VIEW literal",
    );
    kept("CREATE VIEW bound AS SELECT '{}'::encrypted_jsonb(k) AS m", "view public.bound", "DROP VIEW bound");
    kept(
        &format!("CREATE RULE twice AS ON UPDATE TO docs DO ALSO SELECT {literal}"),
        "public.docs",
        "DROP RULE twice ON docs",
    );
    kept(
        &format!("ALTER TABLE docs ADD CONSTRAINT checked CHECK (id <> {version})"),
        "constraint checked",
        "ALTER TABLE docs DROP CONSTRAINT checked",
    );
    kept(&format!("CREATE POLICY p ON docs USING (id <> {version})"), "policy p", "DROP POLICY p ON docs");
    kept(
        &format!("CREATE INDEX partial ON docs (id) WHERE id <> {version}"),
        "index public.partial",
        "DROP INDEX partial",
    );
    kept(
        &format!(
            "CREATE TRIGGER t BEFORE UPDATE ON docs FOR EACH ROW WHEN \
    (NEW.id = {version}) EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        ),
        "trigger t",
        "DROP TRIGGER t ON docs",
    );
    kept("CREATE DOMAIN d AS encrypted_jsonb(k) DEFAULT '{}'", "domain public.d", "DROP DOMAIN d");
    kept(
        &format!("CREATE FUNCTION body() RETURNS encrypted_jsonb BEGIN ATOMIC SELECT {literal}; END"),
        "function public.body()",
        "DROP FUNCTION body",
    );
    kept(
        "DO $$ BEGIN EXECUTE format('CREATE FUNCTION quoted() RETURNS encrypted_jsonb LANGUAGE sql AS \
    $f$ SELECT %L::encrypted_jsonb $f$', pgseal.encrypt('{}'::jsonb)); END $$",
        "function public.quoted()",
        "DROP FUNCTION quoted",
    );
}

#[test]
fn a_default_of_a_function_argument_is_found() {
    let mut client = database();
    check(
        &mut client,
        "CREATE FUNCTION f(m encrypted_jsonb DEFAULT '{}') RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "function public.f(",
        &["DROP FUNCTION f"],
    );
}

#[test]
fn what_cannot_be_looked_into_is_named() {
    if lacks("file_fdw") {
        return;
    }
    let mut client = database();
    client.run(
        "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
         CREATE EXTENSION postgres_fdw; CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw",
    );
    check(
        &mut client,
        "CREATE FOREIGN TABLE far (m encrypted_jsonb(k)) SERVER remote",
        "foreign table public.far",
        &["DROP FOREIGN TABLE far"],
    );
    check(
        &mut client,
        "CREATE FOREIGN TABLE far (m encrypted_text) SERVER files OPTIONS (filename '/dev/null')",
        "foreign table public.far",
        &["DROP FOREIGN TABLE far"],
    );

    // Its rows are elsewhere: whoever has looked there says so.
    client.run("CREATE FOREIGN TABLE far (m encrypted_jsonb(k)) SERVER remote");
    client.run(ROTATE);
    assert_eq!(client.state("SELECT pgseal.retire_key('k', 3)"), "55000");
    client.run("SELECT pgseal.retire_key_except_foreign('k', 3)");
    client.run("DROP FOREIGN TABLE far");

    let mut other = beside(&mut client);
    other.run("CREATE TEMP TABLE hidden (m encrypted_jsonb(k)); INSERT INTO hidden VALUES ('{}')");
    client.run(ROTATE);
    let error = client.error("SELECT pgseal.retire_key('k', 4)");
    assert_eq!(error.code().code(), "55000");
    assert!(
        error.message().contains("temporary table of another session") && error.message().contains("hidden"),
        "{error}"
    );
    other.run("DROP TABLE hidden");
    client.run("SELECT pgseal.retire_key('k', 4)");
}

#[test]
fn a_prepared_transaction_is_named() {
    let cluster = Cluster::with_pgseal(&["max_prepared_transactions = 2"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    client.run("BEGIN");
    client.run(&format!("{INSERT}; PREPARE TRANSACTION 'the one'"));
    client.run(ROTATE);
    let error = client.error(RETIRE);
    assert_eq!(error.code().code(), "55000");
    assert!(error.message().contains("\"the one\""), "{error}");
    client.run("COMMIT PREPARED 'the one'");
    assert!(client.error(RETIRE).message().contains("public.docs"));
    client.run(REENCRYPT);
    client.run(RETIRE);
}

#[test]
fn a_writer_that_is_still_open_is_waited_for() {
    for (end, refused) in [("COMMIT", true), ("ROLLBACK", false)] {
        let mut client = database();
        let mut writer = beside(&mut client);
        writer.run(&format!("BEGIN; {INSERT}"));
        client.run(ROTATE);
        let retiring = start_waiting(&mut client, RETIRE, WAITS);
        // Meanwhile everybody else goes on with the new key.
        client.run(INSERT);
        writer.run(end);
        let error = retiring.join().unwrap();
        assert_eq!(error.is_some(), refused, "{end}: {error:?}");
        assert!(error.is_none_or(|error| error.message().contains("column m of public.docs")));
    }
}

#[test]
fn a_reader_that_could_write_the_bytes_back_is_waited_for() {
    let mut client = database();
    client.run(INSERT);
    client.run(ROTATE);
    let mut reader = beside(&mut client);
    reader.run("BEGIN; CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT m FROM docs");
    client.run(REENCRYPT);
    let retiring = start_waiting(&mut client, RETIRE, WAITS);
    reader.run("UPDATE docs SET m = mine.m FROM mine; COMMIT");
    assert!(retiring.join().unwrap().is_some_and(|error| error.message().contains("public.docs")));
    client.run(REENCRYPT);
    client.run(RETIRE);
}

#[test]
fn sessions_with_prepared_literals_go_on_after_it() {
    let mut client = database();
    let mut session = beside(&mut client);
    session.run(
        "CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE plpgsql AS \
    $$ BEGIN INSERT INTO docs (m) VALUES ('{\"f\": 1}'); END $$",
    );
    let insert = session.prepare(INSERT).unwrap();
    let use_all = |session: &mut Client| {
        session.execute(&insert, &[]).unwrap();
        session.run("SELECT pg_temp.f(); EXECUTE named");
    };
    session.run(&format!("PREPARE named AS {INSERT}"));
    use_all(&mut session);
    client.run(ROTATE);
    client.run(REENCRYPT);
    client.run(RETIRE);
    use_all(&mut session);
    let usage = "SELECT format('%s %s', key_version, number_of_values) FROM pgseal.key_usage('docs', 'm')";
    assert_eq!(client.column::<String>(usage), ["2 6"]);
    assert_eq!(session.query("SELECT pgseal.decrypt(m) FROM docs", &[]).unwrap().len(), 6);
}

#[test]
fn a_retired_version_seals_and_opens_nothing() {
    let mut client = database();
    client.run(INSERT);
    let sealed: String = client.one("SELECT textin(pgseal.encrypted_jsonb_out(m)) FROM docs");
    client.run(ROTATE);
    client.run(REENCRYPT);
    client.run(RETIRE);
    let mut session = beside(&mut client);
    for client in [&mut client, &mut session] {
        assert_eq!(client.state(&format!("INSERT INTO docs (m) VALUES ('{sealed}')")), "55000");
        assert_eq!(client.state(&format!("SELECT '{sealed}'::encrypted_jsonb")), "55000");
    }

    // A restore of an old backup can bring such a value back under the feet of the catalog.
    client.run("ALTER TABLE pgseal.data_key DISABLE TRIGGER state");
    client.run("UPDATE pgseal.data_key SET state = 'decrypt-only' WHERE version = 1");
    client.run("ALTER TABLE pgseal.data_key ENABLE TRIGGER state");
    client.run(&format!("INSERT INTO docs (m) VALUES ('{sealed}')"));
    client.run("UPDATE pgseal.data_key SET state = 'retired' WHERE version = 1");
    for client in [&mut client, &mut session] {
        let error = client.error("SELECT pgseal.decrypt(m) FROM docs");
        assert_eq!(error.code().code(), "55000");
        assert!(error.message().contains("data key version 1 of keyring \"k\" is retired"), "{error}");
        // An error, never fewer rows.
        assert_eq!(client.state(r#"SELECT count(*) FROM docs WHERE m @> '{"a": 1}'"#), "55000");
        assert_eq!(client.column::<i32>("SELECT pgseal.key_version(m) FROM docs ORDER BY id"), [2, 1]);
    }
}

#[test]
fn only_an_older_version_of_a_keyring_can_be_retired() {
    let mut client = database();
    assert_eq!(client.state(RETIRE), "55000");
    assert_eq!(client.state("SELECT pgseal.retire_key('k', 2)"), "42704");
    assert_eq!(client.state("SELECT pgseal.retire_key('no', 1)"), "42704");
    client.run(ROTATE);
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        assert_eq!(client.state(&format!("BEGIN ISOLATION LEVEL {level}; {RETIRE}")), "25001");
        client.run("ROLLBACK");
    }
    client.run(&format!("BEGIN; {RETIRE}; ROLLBACK"));
    client.run(RETIRE);
    assert_eq!(client.state(RETIRE), "55000");
    client.run(INSERT);
    assert_eq!(client.one::<i32>("SELECT pgseal.key_version(m) FROM docs"), 2);
}

#[test]
fn a_second_retirement_at_the_same_time_is_refused() {
    let mut client = database();
    let mut open = beside(&mut client);
    open.run("BEGIN; SELECT 1");
    client.run(ROTATE);
    let retiring = start_waiting(&mut client, RETIRE, WAITS);
    assert_eq!(client.state(RETIRE), "55006");
    open.run("COMMIT");
    assert!(retiring.join().unwrap().is_none());
    assert_eq!(client.state(RETIRE), "55000");
}

#[test]
fn other_databases_and_keyrings_do_not_matter() {
    let mut client = database();
    client.run(
        "SELECT pgseal.create_keyring('other'); CREATE TABLE others (m encrypted_jsonb(other)); \
    INSERT INTO others VALUES ('{}')",
    );
    let mut elsewhere = database();
    elsewhere.run(&format!("BEGIN; {INSERT}"));
    client.run(ROTATE);
    client.run(RETIRE);
}

#[test]
fn literals_in_statistics_and_partition_keys_are_found() {
    let mut client = database();
    let expression = "(id + pgseal.key_version('{}'::encrypted_jsonb))";
    check(
        &mut client,
        &format!("CREATE STATISTICS counted ON id, {expression} FROM docs"),
        "counted",
        &["DROP STATISTICS counted"],
    );
    check(
        &mut client,
        &format!("CREATE TABLE parted (id int) PARTITION BY LIST ({expression})"),
        "public.parted",
        &["DROP TABLE parted"],
    );
}

#[test]
fn looking_for_values_runs_no_code_of_other_roles() {
    let mut client = database();
    let role = format!("{}_mallory", client.database());
    client.run(&format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}"));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt'])"));
    client.run(&format!("SET SESSION AUTHORIZATION {role}"));
    client.run(
        "CREATE TYPE pair AS (n int, v encrypted_jsonb);
         CREATE TABLE trap AS SELECT ROW(1, NULL)::pair AS p;
         CREATE TABLE ran (role name);
         CREATE FUNCTION spring(pair) RETURNS text LANGUAGE plpgsql AS
             'BEGIN INSERT INTO public.ran VALUES (current_user); RETURN NULL; END';
         CREATE CAST (pair AS text) WITH FUNCTION spring(pair)",
    );
    client.run("RESET SESSION AUTHORIZATION");
    client.run(ROTATE);
    client.run(RETIRE);
    assert_eq!(client.column::<String>("SELECT DISTINCT role::text FROM ran"), [] as [&str; 0]);
}

#[test]
fn keys_are_counted_in_any_column_and_refused_without_rows() {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k'); CREATE DOMAIN own AS encrypted_jsonb; CREATE TYPE pair AS (id int, m encrypted_jsonb)");
    client.run("CREATE TABLE docs (id int, word text, m encrypted_jsonb, d own, list encrypted_jsonb[], p pair, m2 encrypted_jsonb DEFAULT NULL)");
    let value = "pgseal.encrypt('{}'::jsonb, 'k')";
    client.run(&format!("INSERT INTO docs SELECT i, 'w', {value}, {value}, ARRAY[{value}, {value}], ROW(1, {value})::pair FROM generate_series(1, 3) i"));
    let mut keys = |relation: &str, column: &str| -> Vec<String> {
        let id: i32 = client.one("SELECT id FROM pgseal.keyring");
        let lines = client.column::<String>(&format!(
            "SELECT format('%s %s %s %s %s', keyring_id, key_version, index_key_version, in_transit, number_of_values)
               FROM pgseal.column_keys('{relation}', '{column}')"
        ));
        lines.iter().map(|line| line.replace(&id.to_string(), "k")).collect()
    };
    for (column, expected) in
        [("m", "k 1 1 f 3"), ("d", "k 1 1 f 3"), ("list", "k 1 1 f 6"), ("p", "k 1 1 f 3")]
    {
        assert_eq!(keys("docs", column), [expected], "{column}");
    }
    // Columns of other types hold none, or none that are well-formed.
    assert_eq!((keys("docs", "id"), keys("docs", "m2")), (vec![], vec![]));
    assert_eq!(keys("docs", "word"), ["    3"]);
    client.run("CREATE TABLE parts (id int, m encrypted_jsonb) PARTITION BY RANGE (id); CREATE VIEW seen AS SELECT m FROM docs");
    client.run("CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere; CREATE FOREIGN TABLE elsewhere (m encrypted_jsonb) SERVER far");
    for (relation, column) in
        [("docs", "none"), ("docs", "ctid"), ("parts", "m"), ("seen", "m"), ("elsewhere", "m")]
    {
        let state = client.state(&format!("SELECT pgseal.column_keys('{relation}', '{column}')"));
        assert!(["22023", "0A000", "42809"].contains(&state.as_str()), "{relation}.{column}: {state}");
    }
}

/// Statements that have read a row, commit, and write it to the table held when there is a row in the table go.
const CARRIERS: [&str; 5] = [
    "DECLARE v docs.m%TYPE; BEGIN SELECT m INTO v FROM docs; {wait} INSERT INTO held VALUES (v); END",
    "DECLARE r record; BEGIN SELECT * INTO r FROM docs; {wait} INSERT INTO held VALUES (r.m); END",
    "DECLARE v encrypted_jsonb; BEGIN SELECT m INTO v FROM docs; {wait} INSERT INTO loose VALUES (v); END",
    "DECLARE v encrypted_jsonb[]; BEGIN v := ARRAY(SELECT m FROM docs); {wait} INSERT INTO loose VALUES (v[1]); END",
    "DECLARE r record; BEGIN FOR r IN SELECT m FROM docs LOOP {wait} INSERT INTO held VALUES (r.m); END LOOP; END",
];
const WAIT: &str = "INSERT INTO waiting VALUES (1); COMMIT;
    WHILE NOT EXISTS (SELECT FROM go) LOOP COMMIT; PERFORM pg_sleep(0.01); END LOOP;";

#[test]
fn a_value_that_a_statement_carries_across_commit_is_waited_for() {
    for (number, body) in CARRIERS.iter().enumerate() {
        let mut client = database();
        client.run(INSERT);
        client.run(
            "CREATE TABLE held (m encrypted_jsonb(k)); CREATE TABLE loose (m encrypted_jsonb);
             CREATE TABLE go (n int); CREATE TABLE waiting (n int)",
        );
        let body = body.replace("{wait}", WAIT);
        let mut carrier = beside(&mut client);
        let call = match number % 2 {
            0 => format!("DO $$ {body} $$"),
            _ => {
                client.run(&format!("CREATE PROCEDURE carry() LANGUAGE plpgsql AS $$ {body} $$"));
                "CALL carry()".into()
            }
        };
        let carrying = std::thread::spawn(move || carrier.run(&call));
        wait_for("the carrier", Duration::from_secs(60), || client.one("SELECT count(*) = 1 FROM waiting"));
        client.run(ROTATE);
        client.run(REENCRYPT);
        let retiring = start_waiting(&mut client, RETIRE, WAITS);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!retiring.is_finished(), "{body}");
        client.run("INSERT INTO go VALUES (1)");
        carrying.join().unwrap();
        let error = retiring.join().unwrap().unwrap_or_else(|| panic!("retired beside {body}"));
        assert!(error.message().contains("still in use: column m of public."), "{error}");
        // And it can be had once the value is renewed.
        client.run("CALL pgseal.reencrypt('held', 'm')");
        client.run("CALL pgseal.reencrypt('loose', 'm')");
        client.run(RETIRE);
    }
}

#[test]
fn a_keyring_is_not_dropped_while_a_statement_has_its_value() {
    let mut client = database();
    client
        .run("CREATE TABLE loose (m encrypted_jsonb); CREATE TABLE go (n int); CREATE TABLE waiting (n int)");
    let mut carrier = beside(&mut client);
    let body = format!("DECLARE v encrypted_jsonb := '{{}}'; BEGIN {WAIT} INSERT INTO loose VALUES (v); END");
    let carrying = std::thread::spawn(move || carrier.run(&format!("DO $$ {body} $$")));
    wait_for("the carrier", Duration::from_secs(60), || client.one("SELECT count(*) = 1 FROM waiting"));
    client.run("DROP TABLE docs");
    let dropping = start_waiting(&mut client, "SELECT pgseal.drop_keyring('k')", WAITS);
    client.run("INSERT INTO go VALUES (1)");
    carrying.join().unwrap();
    let error = dropping.join().unwrap().expect("a keyring in use");
    assert!(error.message().contains("column m of public.loose"), "{error}");
    client.run("DROP TABLE loose");
    // Nor beside a table that is not committed yet.
    let mut maker = beside(&mut client);
    maker.run("BEGIN; CREATE TABLE bound (m encrypted_jsonb(k))");
    let dropping = start_waiting(&mut client, "SELECT pgseal.drop_keyring('k')", WAITS);
    maker.run("COMMIT");
    let error = dropping.join().unwrap().expect("a keyring in use");
    assert!(error.message().contains("column m of public.bound"), "{error}");
}

#[test]
fn a_statement_that_cannot_be_waited_for_is_named() {
    let mut client = database();
    client.run(INSERT);
    client.run(ROTATE);
    let mut hidden = beside(&mut client);
    let pid: i32 = hidden.one("SELECT pg_backend_pid()");
    hidden.run("SET track_activities = off");
    let error = client.error(RETIRE);
    assert_eq!(error.code().code(), "55000");
    assert!(error.message().contains(&format!("sessions {{{pid}}}")), "{error}");
    hidden.run("SET track_activities = on");
    // Rotation in place may wait for the transaction that retires.
    client.run("INSERT INTO docs (m) SELECT '{\"a\": 1}'::jsonb FROM generate_series(1, 300)");
    let mut worker = beside(&mut client);
    let pid: i32 = worker.one("SELECT pg_backend_pid()");
    client.run(ROTATE);
    let run = std::thread::spawn(move || worker.run("CALL pgseal.reencrypt('docs', 'm', 10, 100)"));
    let runs = "SELECT count(*) > 0 FROM pgseal.rotation_progress WHERE rows_done > 0";
    wait_for("a run", Duration::from_secs(60), || client.one(runs));
    let error = client.error("SELECT pgseal.retire_key('k', 2)");
    assert_eq!(error.code().code(), "55006", "{error}");
    assert!(error.message().contains(&format!("session {pid} ")), "{error}");
    run.join().unwrap();
    client.run("SELECT pgseal.retire_key('k', 1); SELECT pgseal.retire_key('k', 2)");
}

#[test]
fn a_role_with_nothing_does_not_hold_up_key_management() {
    let mut client = database();
    client.run(INSERT);
    let name = client.database();
    let role = format!("{name}_nobody");
    client.run(&format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}"));
    let mut nobody = shared().connect_as(&role, &name);
    // Locks that anybody may take.
    nobody.run(
        "SELECT pg_advisory_lock(hashtextextended('pgseal.retire_key', 0)); SELECT pg_advisory_lock(0);
         SELECT pg_advisory_lock(0, 0); SELECT pg_advisory_lock(0, 1)",
    );
    client.run(ROTATE);
    client.run(REENCRYPT);
    client.run(RETIRE);
    // State of runs of tables that are gone.
    nobody
        .run("CREATE TEMP TABLE gone (m encrypted_jsonb); SELECT pgseal.rotation_join('gone', 'm', true, 1)");
    nobody.run("DROP TABLE gone; CREATE TEMP TABLE next (m encrypted_jsonb); INSERT INTO next VALUES (NULL)");
    nobody.run("BEGIN; SELECT pgseal.rotation_join('next', 'm', true, 1)");
    client.run("SET statement_timeout = '60s'");
    client.run(ROTATE);
    client.run(REENCRYPT);
    nobody.run("ROLLBACK");
    nobody.run("DISCARD TEMP");
    // A table of one's own.
    nobody.run("CREATE TABLE own (m encrypted_jsonb)");
    nobody.run("BEGIN; LOCK TABLE own");
    let pid: i32 = nobody.one("SELECT pg_backend_pid()");
    let place: String = client.one("SELECT pgseal.find_key(id, 2) FROM pgseal.keyring");
    assert_eq!(place, format!("cannot look into public.own, which sessions {{{pid}}} have locked"));
    let findings = "SELECT finding FROM pgseal.audit() WHERE severity = 'unknown' AND object LIKE '%public.own' AND finding LIKE '%locked%'";
    let finding: String = client.one(findings);
    assert!(finding.contains(&format!("sessions {{{pid}}} have locked the table")), "{finding}");
    nobody.run("CREATE VIEW seen AS SELECT 1 AS n FROM own; COMMIT");
}

#[test]
fn a_transaction_with_many_keyrings_takes_few_locks() {
    let mut client = database();
    client.run("CREATE TABLE many (keyring text, m encrypted_jsonb)");
    client.run("SELECT pgseal.create_keyring(format('t%s', n)) FROM generate_series(1, 60) n");
    let mut writer = beside(&mut client);
    writer.run(
        "BEGIN; INSERT INTO many SELECT format('t%s', n), pgseal.encrypt('{}'::jsonb, format('t%s', n)) FROM generate_series(1, 60) n",
    );
    assert_eq!(
        writer.one::<i64>(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        ),
        33
    );
    client.run("SET lock_timeout = '100ms'");
    for keyring in ["t1", "t32", "t33", "t60"] {
        let exclude =
            format!("SELECT pgseal.exclude_writers(id, 1) FROM pgseal.keyring WHERE name = '{keyring}'");
        assert_eq!(client.state(&exclude), "55P03", "{keyring}");
    }
    client.run("RESET lock_timeout; SELECT pgseal.rotate_key('t60')");
    let retiring = start_waiting(&mut client, "SELECT pgseal.retire_key('t60', 1)", WAITS);
    // A savepoint that is rolled back gives its locks back, and the next write takes them anew.
    writer.run("SAVEPOINT s; INSERT INTO many SELECT 't60', pgseal.encrypt('{}'::jsonb, 't60'); ROLLBACK TO s; COMMIT");
    let error = retiring.join().unwrap().expect("a key in use");
    assert!(error.message().contains("column m of public.many"), "{error}");
    writer.run("BEGIN; INSERT INTO many VALUES ('k', pgseal.encrypt('{}'::jsonb, 'k'))");
    assert_eq!(
        writer.one::<i64>(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        ),
        1
    );
    writer.run("COMMIT");
}
