//! Keyrings, rotation, re-encryption and privileges.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postgres::Client;

use crate::support::{Sql, beside, fresh_database, shared, wait_for};

const VERSIONS: &str = "SELECT pgseal.key_version(m) FROM docs ORDER BY id";
const BYTES: &str = "SELECT pgseal.encrypted_jsonb_send(m) FROM docs ORDER BY id";
const INSERT: &str = r#"INSERT INTO docs (m) VALUES ('{"a": 1}')"#;
const FILTER: &str = r#"SELECT count(*) FROM docs WHERE m @> '{"a": 1}'"#;
const DECRYPT: &str = "SELECT pgseal.decrypt(m) FROM docs";

/// A database with the keyring k, which has its own KMS, and the table docs.
fn database() -> Client {
    let mut client = fresh_database();
    let endpoint = format!("file://{}", key_dir(&mut client).display());
    client.run(&format!("SELECT pgseal.create_keyring('k', ARRAY['$.a'], kms_endpoint => '{endpoint}')"));
    client.run("CREATE TABLE docs (id serial PRIMARY KEY, m encrypted_jsonb(k))");
    client
}

fn key_dir(client: &mut Client) -> PathBuf {
    shared().key_dir().join(client.database())
}

/// A role of this database's own, since roles belong to the whole cluster.
fn role(client: &mut Client, suffix: &str) -> String {
    let role = format!("{}_{suffix}", client.database());
    client.run(&format!("CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"));
    client.run(&format!("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"));
    role
}

fn connect_as(client: &mut Client, role: &str) -> Client {
    shared().connect_as(role, &client.database())
}

/// Waits until a statement of another session waits for a lock.
fn wait_for_blocked(client: &mut Client) {
    let blocked = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock')";
    wait_for("a session that waits for a lock", Duration::from_secs(60), || client.one(blocked));
}

#[test]
fn a_keyring_is_stored_with_wrapped_keys_only() {
    let mut client = database();
    // Format, version, nonce, 32 sealed bytes and tag: the key itself has no place left.
    let stored = "SELECT octet_length(wrapped) = 5 + 24 + 32 + 16 AND octet_length(commitment) = 32 \
                  AND state = 'active' AND version = 1 FROM pgseal.";
    assert!(client.one::<bool>(&format!("{stored}data_key")));
    assert!(client.one::<bool>(&format!("{stored}index_key")));
    let all = "SELECT format('%s %s %s %s %s %s', name, is_default, data_key_version, index_key_version, searchable, \
               kms_key) FROM pgseal.keyrings";
    assert_eq!(client.one::<String>(all), "k t 1 1 {$.a} pgseal");
    client.run("SELECT pgseal.rotate_key('k')");
    let keys = "SELECT format('%s %s %s', purpose, version, state) FROM pgseal.keys ORDER BY 1";
    assert_eq!(client.column::<String>(keys), ["data 1 decrypt-only", "data 2 active", "index 1 active"]);
    assert_eq!(client.state("SELECT pgseal.create_keyring('k')"), "42710");
}

#[test]
fn the_first_keyring_is_the_default_until_another_is_set() {
    let mut client = database();
    client.run("SELECT pgseal.create_keyring('other'); CREATE TABLE unbound (id serial, m encrypted_jsonb)");
    let insert = "INSERT INTO unbound (m) VALUES ('{}')";
    client.run(insert);
    client.run(&format!("SELECT pgseal.set_default_keyring('other'); {insert}"));
    let keyrings = "SELECT k.name::text FROM unbound JOIN pgseal.keyring k \
    ON k.id = pgseal.keyring_id(m) ORDER BY unbound.id";
    assert_eq!(client.column::<String>(keyrings), ["k", "other"]);

    let mut warm = beside(&mut client);
    warm.run(insert);
    client.run("SELECT pgseal.set_default_keyring(NULL)");
    assert_eq!(client.state(insert), "42704");
    assert_eq!(warm.state(insert), "42704");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyrings WHERE is_default"), 0);
    assert_eq!(client.state("SELECT pgseal.set_default_keyring('no')"), "42704");
}

#[test]
fn two_sessions_may_create_keyrings_at_the_same_time() {
    let mut client = database();
    let sessions = ["x", "y"].map(|prefix| (prefix, beside(&mut client)));
    let create = |(prefix, mut session): (&str, Client)| {
        for number in 0..20 {
            session.run(&format!(
                "SELECT pgseal.create_keyring('{prefix}{number}', kms_key => current_database())"
            ));
        }
    };
    std::thread::scope(|scope| {
        for session in sessions {
            scope.spawn(move || create(session));
        }
    });
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyrings"), 41);
}

#[test]
fn a_keyring_goes_with_its_transaction_or_savepoint() {
    let mut client = fresh_database();
    let encrypt = "SELECT pgseal.encrypt('{}'::jsonb, 'k')";
    client.run("BEGIN; SELECT pgseal.create_keyring('k')");
    client.run(&format!("{encrypt}; SELECT pgseal.encrypt('{{}}'::jsonb); ROLLBACK"));
    assert_eq!(client.state(encrypt), "42704");
    assert_eq!(client.state("SELECT pgseal.encrypt('{}'::jsonb)"), "42704");

    client.run(&format!("BEGIN; SAVEPOINT s; SELECT pgseal.create_keyring('k'); {encrypt}; ROLLBACK TO s"));
    assert_eq!(client.state(encrypt), "42704");
    client.run(&format!("ROLLBACK TO s; SELECT pgseal.create_keyring('k'); {encrypt}; COMMIT; {encrypt}"));
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keys"), 2);
}

#[test]
fn a_rotation_goes_with_its_transaction_or_savepoint() {
    let mut client = database();
    client.run(&format!("BEGIN; SELECT pgseal.rotate_key('k'); {INSERT}"));
    assert_eq!(client.column::<i32>(VERSIONS), [2]);
    client.run(&format!("ROLLBACK; {INSERT}"));
    assert_eq!(client.column::<i32>(VERSIONS), [1]);

    client.run(&format!(
        "BEGIN; {INSERT}; SAVEPOINT s; SELECT pgseal.rotate_key('k'), pgseal.rotate_index_key('k')"
    ));
    client.run(&format!("{INSERT}; ROLLBACK TO s; {INSERT}; COMMIT; {INSERT}"));
    assert_eq!(client.column::<i32>(VERSIONS), [1, 1, 1, 1]);
    assert_eq!(client.one::<i64>(FILTER), 4);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keys"), 2);
}

#[test]
fn a_warm_session_uses_the_new_version_at_its_next_statement() {
    let mut client = database();
    let mut warm = beside(&mut client);
    let prepared = warm.prepare(INSERT).unwrap();
    warm.execute(&prepared, &[]).unwrap();
    client.run("SELECT pgseal.rotate_key('k')");
    warm.execute(&prepared, &[]).unwrap();
    client.run("SELECT pgseal.rotate_index_key('k')");
    warm.execute(&prepared, &[]).unwrap();
    let versions =
        "SELECT format('%s %s', pgseal.key_version(m), pgseal.index_key_version(m)) FROM docs ORDER BY id";
    assert_eq!(warm.column::<String>(versions), ["1 1", "2 1", "2 2"]);
    assert_eq!((warm.one::<i64>(FILTER), client.one::<i64>(FILTER)), (3, 3));
    // Also inside a transaction that began before.
    warm.run("BEGIN; SELECT 1");
    client.run("SELECT pgseal.rotate_key('k')");
    warm.run(&format!("{INSERT}; COMMIT"));
    assert_eq!(warm.column::<i32>(VERSIONS), [1, 2, 2, 3]);
}

#[test]
fn concurrent_rotations_take_turns() {
    for function in ["rotate_key", "rotate_index_key"] {
        let rotate = format!("SELECT pgseal.{function}('k')");
        let mut client = database();
        let mut other = beside(&mut client);
        other.run(INSERT);
        client.run("BEGIN");
        assert_eq!(client.one::<i32>(&rotate), 2);
        let second = std::thread::spawn({
            let rotate = rotate.clone();
            move || other.one::<i32>(&rotate)
        });
        wait_for_blocked(&mut client);
        client.run("COMMIT");
        assert_eq!(second.join().unwrap(), 3);
        let states = format!(
            "SELECT string_agg(state, ' ' ORDER BY version) FROM pgseal.{}",
            match function {
                "rotate_key" => "data_key",
                _ => "index_key",
            }
        );
        assert_eq!(client.one::<String>(&states), "decrypt-only decrypt-only active");
    }
}

#[test]
fn rewrapping_changes_wrapped_keys_and_no_row() {
    let mut client = database();
    client.run(&format!("{INSERT}; SELECT pgseal.rotate_key('k'); {INSERT}"));
    let key_file = key_dir(&mut client).join("pgseal.key");
    let rows: Vec<Vec<u8>> = client.column(BYTES);
    let places: Vec<String> = client.column("SELECT format('%s %s', ctid, xmin) FROM docs ORDER BY id");
    let newest = "SELECT DISTINCT get_byte(wrapped, 4) FROM \
    (SELECT wrapped FROM pgseal.data_key UNION ALL SELECT wrapped FROM pgseal.index_key) w";
    assert_eq!(client.one::<i32>(newest), 1);

    let second = "v2:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
    shared().write(&key_file, &(std::fs::read_to_string(&key_file).unwrap() + second));
    assert_eq!(client.one::<i32>("SELECT pgseal.rewrap_keys('k')"), 3);
    assert_eq!(client.one::<i32>(newest), 2);
    shared().write(&key_file, second);
    let mut fresh = beside(&mut client);
    assert_eq!(fresh.one::<i64>(FILTER), 2);
    assert_eq!(fresh.query(DECRYPT, &[]).unwrap().len(), 2);
    assert_eq!(fresh.column::<Vec<u8>>(BYTES), rows);
    assert_eq!(fresh.column::<String>("SELECT format('%s %s', ctid, xmin) FROM docs ORDER BY id"), places);
}

#[test]
fn reencryption_commits_in_batches_and_says_how_many_rows() {
    let mut client = database();
    client.run(r#"INSERT INTO docs (m) SELECT ('{"a": 1, "n": ' || n || '}')::jsonb FROM generate_series(1, 2000) n"#);
    client.run("INSERT INTO docs (m) VALUES (NULL); ANALYZE docs; SELECT pgseal.rotate_key('k')");
    let call = "CALL pgseal.reencrypt('docs', 'm', batch_size => 100)";
    let said = |client: &mut Client| {
        let output = shared().psql(&client.database(), &[] as &[&str], call);
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let notice = said(&mut client);
    assert!(notice.contains("2000 rows of docs.m re-encrypted"), "{notice}");
    let usage = "SELECT format('%s %s %s %s', keyring, key_version, index_key_version, number_of_values) \
                 FROM pgseal.key_usage('docs', 'm')";
    assert_eq!(client.column::<String>(usage), ["k 2 1 2000"]);
    assert!(client.one::<i64>("SELECT count(DISTINCT xmin::text) FROM docs WHERE m IS NOT NULL") >= 10);
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM docs WHERE (pgseal.decrypt(m) ->> 'n')::int = id"),
        2000
    );
    assert_eq!(client.one::<i64>(FILTER), 2000);
    assert!(said(&mut client).contains("\u{20}0 rows of docs.m re-encrypted"));

    client.run("SELECT pgseal.rotate_index_key('k')");
    client.run(call);
    assert_eq!(client.column::<String>(usage), ["k 2 2 2000"]);
    assert_eq!(client.state(&format!("BEGIN; {call}")), "25001");
    client.run("ROLLBACK");
    assert_eq!(client.state("CALL pgseal.reencrypt('docs', 'id')"), "42809");
    assert_eq!(client.state("CALL pgseal.reencrypt('docs', 'no')"), "42703");
    assert_eq!(client.state("CALL pgseal.reencrypt('docs', 'm', 0)"), "22023");
}

#[test]
fn reencryption_goes_on_where_a_cancel_stopped_it() {
    let mut client = database();
    client.run(r#"INSERT INTO docs (m) SELECT '{"a": 1}'::jsonb FROM generate_series(1, 500)"#);
    client.run("ANALYZE docs; SELECT pgseal.rotate_key('k')");
    client.run(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 
             'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END';
         CREATE TRIGGER slow BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let call = "CALL pgseal.reencrypt('docs', 'm', 50)";
    let mut session = beside(&mut client);
    let cancel = session.cancel_token();
    let run = std::thread::spawn(move || session.state(call));
    let begun = "SELECT count(*) > 0 FROM docs WHERE pgseal.key_version(m) = 2";
    wait_for("a batch", Duration::from_secs(60), || client.one(begun));
    cancel.cancel_query(postgres::NoTls).unwrap();
    assert_eq!(run.join().unwrap(), "57014");
    let done: i64 = client.one("SELECT count(*) FROM docs WHERE pgseal.key_version(m) = 2");
    assert!(0 < done && done < 500, "{done}");
    client.run("DROP TRIGGER slow ON docs");
    let finished: Vec<String> = client.column("SELECT ctid::text FROM docs WHERE pgseal.key_version(m) = 2");
    client.run(call);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE pgseal.key_version(m) = 2"), 500);
    let untouched = client.query("SELECT FROM docs WHERE ctid::text = ANY ($1)", &[&finished]).unwrap();
    assert_eq!(untouched.len() as i64, done);
}

#[test]
fn reencryption_loses_no_concurrent_update() {
    let mut client = database();
    client.run("ALTER TABLE docs ADD n int");
    client.run(r#"INSERT INTO docs (m, n) SELECT '{"n": 0}'::jsonb, 0 FROM generate_series(1, 100)"#);
    let mut writer = beside(&mut client);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let update = "UPDATE docs SET n = n + 1, m = \
    jsonb_build_object('n', (pgseal.decrypt(m) ->> 'n')::int + 1) WHERE id % 10 = $1";
            let update = writer.prepare(update).unwrap();
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                writer.execute(&update, &[&(round % 10)]).unwrap();
                round += 1;
            }
        });
        for _ in 0..10 {
            client.run("SELECT pgseal.rotate_key('k')");
            client.run("CALL pgseal.reencrypt('docs', 'm', 10)");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(client.one::<i32>("SELECT min(n) FROM docs") > 0);
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM docs WHERE (pgseal.decrypt(m) ->> 'n')::int = n"),
        100
    );
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    assert!(client.column::<i32>(VERSIONS).iter().all(|version| *version == 11));
}

#[test]
fn reencryption_reaches_every_kind_of_column() {
    let mut client = database();
    client.run(
        "CREATE DOMAIN document AS encrypted_jsonb(k);
         CREATE TABLE parted (id int, m encrypted_jsonb(k)) PARTITION BY LIST (id);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
         CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2) PARTITION BY LIST (id);
         CREATE TABLE parted_2a PARTITION OF parted_2 FOR VALUES IN (2);
         CREATE TABLE texts (id int, m encrypted_text(k));
         CREATE TABLE domains (id int, m document);
         CREATE TABLE unbound (id int, m encrypted_jsonb);
         CREATE TABLE unbound_texts (id int, m encrypted_text);
         CREATE TABLE \"Odd\"\"Name\" (id int, \"The m\" encrypted_jsonb(k));
         CREATE TABLE toasted (id int, m encrypted_jsonb(k))",
    );
    let small = r#"VALUES (1, '{"a": 1}'), (2, '{"a": 1}'), (2, NULL)"#;
    let tables = ["parted", "texts", "domains", "unbound", "unbound_texts", "\"Odd\"\"Name\""];
    for table in tables {
        client.run(&format!("INSERT INTO {table} {small}"));
    }
    client.run(
        "INSERT INTO toasted SELECT n, jsonb_build_object('long', repeat(n::text, 100000)) FROM generate_series(1, 2) n",
    );
    client.run("SELECT pgseal.rotate_key('k')");
    for table in tables.into_iter().chain(["toasted"]) {
        let column = if table.contains("Odd") { "The m" } else { "m" };
        let plain = format!(
            "SELECT coalesce(\"{column}\"::encrypted_{}::text, 'NULL') FROM {table} ORDER BY 1",
            kind(table)
        );
        let before: Vec<String> = client.column(&plain);
        client.run(&format!("CALL pgseal.reencrypt('{table}', '{column}')"));
        let usage = format!(
            "SELECT format('%s %s', key_version, number_of_values) FROM pgseal.key_usage('{table}', '{column}')"
        );
        assert_eq!(client.column::<String>(&usage), ["2 2"], "{table}");
        assert_eq!(client.column::<String>(&plain), before, "{table}");
        let transit = format!(
            "SELECT count(*) FROM {table} WHERE get_byte(pgseal.encrypted_{}_send(\"{column}\"), 2) <> 0",
            kind(table)
        );
        assert_eq!(client.one::<i64>(&transit), 0, "{table}");
    }
}

fn kind(table: &str) -> &str {
    if table.contains("texts") { "text" } else { "jsonb" }
}

#[test]
fn triggers_see_reencryption_as_ordinary_updates() {
    let mut client = database();
    client.run(&format!("{INSERT}; {INSERT}; CREATE TABLE seen (old int, new int)"));
    client.run(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen VALUES (pgseal.key_version(OLD.m), pgseal.key_version(NEW.m)); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER UPDATE OF m ON docs FOR EACH ROW EXECUTE FUNCTION note();
         SELECT pgseal.rotate_key('k')",
    );
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    assert_eq!(client.column::<String>("SELECT format('%s %s', old, new) FROM seen"), ["1 2", "1 2"]);
}

#[test]
fn an_owner_who_may_encrypt_may_reencrypt() {
    let mut client = database();
    client.run(&format!("{INSERT}; SELECT pgseal.rotate_key('k')"));
    let owner = role(&mut client, "owner");
    client.run(&format!("ALTER TABLE docs OWNER TO {owner}"));
    let mut session = connect_as(&mut client, &owner);
    assert_eq!(session.state("CALL pgseal.reencrypt('docs', 'm')"), NO);
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{owner}', ARRAY['encrypt'])"));
    session.run("CALL pgseal.reencrypt('docs', 'm')");
    assert_eq!(client.column::<i32>(VERSIONS), [2]);
    assert_eq!(session.state(DECRYPT), NO);
}

#[test]
fn reencryption_ends_where_a_trigger_puts_the_old_value_back() {
    let mut client = database();
    client.run(&format!("{INSERT}; SELECT pgseal.rotate_key('k')"));
    client.run(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
         CREATE TRIGGER keep BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION keep();
         SET statement_timeout = '60s'",
    );
    let error = client.batch_execute("CALL pgseal.reencrypt('docs', 'm')").err();
    assert_ne!(
        error.and_then(|error| error.code().map(|code| code.code().to_owned())).as_deref(),
        Some("57014")
    );
}

#[test]
fn privileges_of_dropped_roles_are_not_dumped_and_soon_gone() {
    let mut client = database();
    let role = role(&mut client, "leaving");
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['decrypt'])"));
    client.run(&format!("DROP OWNED BY {role}"));
    client.run(&format!("DROP ROLE {role}"));
    let dumped = "SELECT extcondition[array_position(extconfig, 'pgseal.privilege'::regclass::oid)]
                    FROM pg_extension WHERE extname = 'pgseal'";
    let condition: String = client.one(dumped);
    // Where a dump is restored, another role may have its number.
    let left = "FROM pgseal.privilege WHERE role::oid NOT IN (SELECT oid FROM pg_roles)";
    assert_eq!(client.one::<i64>(&format!("SELECT count(*) {left}")), 1);
    assert_eq!(client.one::<i64>(&format!("SELECT count(*) FROM (SELECT * FROM pgseal.privilege {condition}) dumped WHERE role IN (SELECT role {left})")), 0);
    client.run("SELECT pgseal.grant_keyring('k', 'postgres', ARRAY['decrypt'])");
    assert_eq!(client.one::<i64>(&format!("SELECT count(*) {left}")), 0);
}

/// What a session may do, as SQLSTATEs of insert, filter and decrypt.
fn may(client: &mut Client) -> [String; 3] {
    [INSERT, FILTER, DECRYPT].map(|sql| {
        let error = client.batch_execute(sql).err();
        error.map_or("ok".into(), |error| error.code().unwrap().code().to_owned())
    })
}

const NO: &str = "42501";

#[test]
fn each_privilege_gives_what_it_says_and_no_more() {
    let mut client = database();
    client.run(INSERT);
    let role = role(&mut client, "app");
    let mut session = connect_as(&mut client, &role);
    assert_eq!(may(&mut session), [NO, NO, NO]);
    // Ciphertext is what SELECT gives.
    assert!(session.one::<bool>("SELECT bool_and(pgseal.key_version(m) = 1) FROM docs"));
    for (privilege, expected) in
        [("encrypt", ["ok", NO, NO]), ("search", [NO, "ok", NO]), ("decrypt", [NO, NO, "ok"])]
    {
        client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['{privilege}'])"));
        assert_eq!(may(&mut session), expected, "{privilege}");
        client.run(&format!("SELECT pgseal.revoke_keyring('k', '{role}', ARRAY['{privilege}'])"));
        assert_eq!(may(&mut session), [NO, NO, NO], "{privilege} revoked");
    }
    let all = format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt', 'search', 'decrypt'])");
    client.run(&all);
    assert_eq!(may(&mut session), ["ok", "ok", "ok"]);
    client.run(&format!("BEGIN; SELECT pgseal.revoke_keyring('k', '{role}')"));
    assert_eq!(may(&mut session), ["ok", "ok", "ok"]);
    client.run("COMMIT");
    assert_eq!(may(&mut session), [NO, NO, NO]);
    assert!(session.error(DECRYPT).message().contains("decrypt"));
}

#[test]
fn privileges_come_through_public_and_membership() {
    let mut client = database();
    client.run(INSERT);
    let (group, member, loose) =
        (role(&mut client, "group"), role(&mut client, "member"), role(&mut client, "loose"));
    client.run(&format!("GRANT {group} TO {member}; ALTER ROLE {loose} NOINHERIT; GRANT {group} TO {loose}"));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{group}', ARRAY['decrypt'])"));
    let mut session = connect_as(&mut client, &member);
    assert_eq!(may(&mut session), [NO, NO, "ok"]);
    client.run(&format!("REVOKE {group} FROM {member}"));
    assert_eq!(may(&mut session), [NO, NO, NO]);
    let mut session = connect_as(&mut client, &loose);
    assert_eq!(may(&mut session), [NO, NO, NO]);
    session.run(&format!("SET ROLE {group}"));
    assert_eq!(may(&mut session), [NO, NO, "ok"]);
    session.run("RESET ROLE");
    assert_eq!(may(&mut session), [NO, NO, NO]);
    client.run("SELECT pgseal.grant_keyring('k', 'public', ARRAY['search'])");
    assert_eq!(may(&mut session), [NO, "ok", NO]);
}

#[test]
fn a_keyring_created_under_set_role_belongs_to_that_role() {
    let mut client = database();
    let (owner, deploy) = (role(&mut client, "owner"), role(&mut client, "deploy"));
    client.run(&format!(
        "GRANT EXECUTE ON FUNCTION pgseal.create_keyring TO {owner}; GRANT {owner} TO {deploy}"
    ));
    let mut session = connect_as(&mut client, &deploy);
    session.run(&format!("SET ROLE {owner}; SELECT pgseal.create_keyring('deployed')"));
    let granted = "SELECT role::text FROM pgseal.privilege p JOIN pgseal.keyring k ON k.id = p.keyring WHERE k.name = 'deployed'";
    assert_eq!(client.column::<String>(granted), [owner.as_str()]);
    // A superuser who has taken on less names no new endpoint either.
    client.run(&format!("SET ROLE {owner}"));
    assert_eq!(
        client.state("SELECT pgseal.create_keyring('new', kms_endpoint => 'file:///tmp/nowhere')"),
        NO
    );
}

#[test]
fn unknown_keyring_is_named_with_a_hint_everywhere() {
    let mut client = database();
    for call in [
        "grant_keyring('none', 'public', '{search}')",
        "revoke_keyring('none', 'public')",
        "export_keyring('none')",
        "check_kms('none')",
        "rotate_key('none')",
        "retire_key('none', 1)",
        "drop_keyring('none')",
        "drop_keyring('none', force => true)",
    ] {
        let error = client.error(&format!("SELECT pgseal.{call}"));
        assert_eq!(error.code().code(), "42704", "{call}");
        assert_eq!(error.message(), "keyring \"none\" does not exist", "{call}");
        assert!(error.hint().is_some_and(|hint| hint.contains("lists the keyrings")), "{call}");
    }
}

#[test]
fn managing_keys_is_not_for_everybody() {
    let mut client = database();
    client.run("SELECT pgseal.rotate_key('k')");
    let role = role(&mut client, "app");
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt', 'search', 'decrypt'])"));
    let mut session = connect_as(&mut client, &role);
    for call in [
        "create_keyring('x')",
        "set_default_keyring(NULL)",
        "rotate_key('k')",
        "rotate_index_key('k')",
        "rewrap_keys('k')",
        "retire_key('k', 1)",
        "flush_keys()",
        "grant_keyring('k', 'public', ARRAY['decrypt'])",
        "revoke_keyring('k', 'public')",
        "exclude_writers(1, 1)",
        "wait_for_transactions()",
        "find_key(1, 1)",
    ] {
        assert_eq!(session.state(&format!("SELECT pgseal.{call}")), NO, "{call}");
    }
    for table in ["keyring", "data_key", "index_key", "privilege"] {
        assert_eq!(session.state(&format!("DELETE FROM pgseal.{table}")), NO, "{table}");
    }
    // Before the library is loaded PostgreSQL accepts any setting; it must not stay.
    session.run("SET pgseal.key_cache_ttl = '1h'");
    session.run(DECRYPT);
    assert_eq!(session.one::<String>("SHOW pgseal.key_cache_ttl"), "5min");
    for setting in ["kms_endpoint", "kms_token_file", "kms_ca_file", "kms_timeout", "key_cache_ttl"] {
        assert_eq!(session.state(&format!("SET pgseal.{setting} = 100")), NO, "{setting}");
    }
    // Whoever is granted it may, and needs nothing else.
    client.run(&format!("GRANT EXECUTE ON FUNCTION pgseal.rotate_key(text) TO {role}"));
    assert_eq!(session.one::<i32>("SELECT pgseal.rotate_key('k')"), 3);
}

#[test]
fn every_object_has_a_comment() {
    let silent = "SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d
                    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgseal'
                   WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
                     AND d.classid IN ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_class'::regclass,
                         'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_namespace'::regclass, 'pg_cast'::regclass)
                     AND obj_description(d.objid, d.classid::regclass::name) IS NULL
                     AND NOT EXISTS (SELECT FROM pg_type t WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid
                         AND (t.typelem <> 0 OR t.typrelid <> 0))";
    assert_eq!(fresh_database().column::<String>(silent), [] as [&str; 0]);
}

#[test]
fn functions_are_marked_as_they_behave() {
    let mut client = fresh_database();
    let marks = "SELECT DISTINCT format('%s %s %s %s', provolatile, proparallel, proleakproof, procost) FROM pg_proc \
                 WHERE pronamespace = 'pgseal'::regnamespace AND proname = ";
    for (function, expected) in [
        ("decrypt", "s r f 100"),
        ("contains", "s r f 100"),
        ("exact_match", "s r f 100"),
        ("token_match", "i s t 1"),
        ("coerce", "v u f 1"),
        ("seal", "v u f 1"),
        ("encrypt", "v u f 1"),
        ("filter", "s r f 1"),
        ("key_version", "i s f 1"),
        // Not to be folded: it looks at what asks it.
        ("encrypted_jsonb_out", "s s f 1"),
        ("encrypted_jsonb_in", "s r f 1"),
        ("gin_extract_value", "i s f 1"),
        ("rotate_key", "v u f 1"),
        ("reseal", "v u f 1"),
    ] {
        assert_eq!(client.one::<String>(&format!("{marks}'{function}'")), expected, "{function}");
    }
    // LEAKPROOF would let a function see rows that row-level security hides.
    let leakproof = "SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'pgseal'::regnamespace AND proleakproof";
    assert_eq!(client.one::<String>(leakproof), "token_match");
    let unsafe_path = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'pgseal'::regnamespace AND prosecdef \
                       AND array_to_string(proconfig, ' ') NOT LIKE 'search_path=pg_catalog, pg_temp%'";
    assert_eq!(client.column::<String>(unsafe_path), [] as [&str; 0]);
}

#[test]
fn key_states_only_move_forward() {
    let mut client = database();
    client.run("SELECT pgseal.rotate_key('k')");
    let set = |state: &str, version: i32| {
        format!("UPDATE pgseal.data_key SET state = '{state}' WHERE version = {version}")
    };
    // Version 1 is decrypt-only now: neither back nor two steps ahead.
    assert_eq!(client.state(&set("active", 1)), "55000");
    assert_eq!(client.state(&set("destroyed", 1)), "55000");
    client.run(&set("retired", 1));
    assert_eq!(client.state(&set("decrypt-only", 1)), "55000");
}
