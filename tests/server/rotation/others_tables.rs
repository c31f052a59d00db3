//! Re-encrypting tables of other roles: as their owner, with the keyring privileges of whoever calls.

use postgres::Client;

use crate::support::{Sql, fresh_database, shared};

const NO: &str = "42501";
const REENCRYPT: &str = "CALL pgseal.reencrypt('docs', 'm')";
const OLD: &str = "SELECT count(*) FROM docs WHERE NOT pgseal.is_current(m)";

/// Tables docs, of a role that has no privilege on its keyring k, and secrets, which that role may select from. The role's
/// name is that of the database with `_owner`.
fn database() -> (Client, String) {
    let mut client = fresh_database();
    let name: String = client.one("SELECT current_database()::text");
    let owner = format!("{name}_owner");
    client.run(&format!("SELECT pgseal.create_keyring('k', ARRAY['$.a']); CREATE ROLE {owner}"));
    client.run(&format!(
        "GRANT ALL ON SCHEMA public TO {owner}; CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k));
         CREATE TABLE secrets (m encrypted_jsonb(k)); GRANT SELECT ON secrets TO {owner};
         INSERT INTO docs SELECT n, jsonb_build_object('a', n) FROM generate_series(1, 20) n;
         INSERT INTO secrets VALUES ('{{\"a\": \"secret\"}}'); ALTER TABLE docs OWNER TO {owner};
         SELECT pgseal.rotate_key('k')"
    ));
    (client, owner)
}

#[test]
fn a_superuser_needs_no_set_role() {
    let (mut client, owner) = database();
    for how in ["update", "in_place"] {
        client.run("SELECT pgseal.rotate_key('k')");
        client.run(&format!("CALL pgseal.reencrypt('docs', 'm', rotation => '{how}')"));
        assert_eq!(client.one::<i64>(OLD), 0, "{how}");
    }
    client.run(&format!("SET ROLE {owner}"));
    assert_eq!(client.state("SELECT pgseal.decrypt(m) FROM docs"), NO);
}

#[test]
fn a_member_lends_its_own_privileges_only() {
    let (mut client, owner) = database();
    let (name, member) = (client.one::<String>("SELECT current_database()::text"), format!("{owner}_member"));
    client.run(&format!("CREATE ROLE {member} LOGIN; GRANT {owner} TO {member}"));
    let mut session = shared().connect_as(&member, &name);
    assert_eq!(session.state(REENCRYPT), NO);
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{member}', '{{encrypt}}')"));
    session.run(REENCRYPT);
    assert_eq!(client.one::<i64>(OLD), 0);
    // Who may write the table and the keyring, but is not of the owner's role, is refused as ever.
    client.run(&format!("REVOKE {owner} FROM {member}; GRANT ALL ON docs TO {member}"));
    assert_eq!(session.state(REENCRYPT), NO);
    let confined = "SELECT pgseal.confined('UPDATE docs SET id = id', of_table => 'docs')";
    assert_eq!(session.state(confined), NO);
}

/// What code of the owner may try while a superuser's privileges are lent.
const ATTEMPTS: [&str; 9] = [
    "SELECT pgseal.decrypt(m) FROM public.secrets",
    "SELECT pgseal.encrypt('{}'::jsonb, 'k')",
    "SELECT pgseal.reseal(m, true) FROM public.secrets",
    r"SELECT pgseal.reseal(m, true, '\x00') FROM public.secrets",
    "SELECT pgseal.confined('SELECT pgseal.reseal(m, true, $3) FROM public.secrets')",
    "SELECT pgseal.confined('SELECT pgseal.decrypt(m) FROM public.secrets', of_table => 'public.secrets')",
    "SELECT set_config('role', session_user, false)",
    "SELECT set_config('role', 'none', false)",
    "DELETE FROM public.secrets",
];

/// Where such code stands. `reached` takes the place's name and gives true.
const PLACES: [(&str, &str); 9] = [
    ("row", "CREATE TRIGGER a BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION spring('row')"),
    (
        "statement",
        "CREATE TRIGGER b AFTER UPDATE ON docs FOR EACH STATEMENT EXECUTE FUNCTION spring('statement')",
    ),
    (
        "deferred",
        "CREATE CONSTRAINT TRIGGER c AFTER UPDATE ON docs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION spring('deferred')",
    ),
    ("check", "ALTER TABLE docs ADD CHECK (reached('check') AND id > 0)"),
    (
        "generated",
        "ALTER TABLE docs ADD g boolean GENERATED ALWAYS AS (reached('generated') AND id > 0) STORED",
    ),
    ("index", "CREATE INDEX ON docs ((reached('index', id) AND m IS NOT NULL))"),
    ("statistics", "CREATE STATISTICS s ON (reached('statistics')), id FROM docs"),
    ("rule", "CREATE RULE r AS ON UPDATE TO docs DO ALSO SELECT reached('rule')"),
    (
        "policy",
        "CREATE POLICY p ON docs USING (reached('policy') AND id > 0); ALTER TABLE docs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    ),
];

/// Lays the traps. Each reports its place, role and, where it got anywhere, the attempt; and whether it was shown a permit.
fn lay_traps(client: &mut Client, owner: &str, places: &[(&str, &str)]) {
    let attempts: Vec<String> = ATTEMPTS.iter().map(|attempt| attempt.replace('\'', "''")).collect();
    client.run(&format!("SET ROLE {owner}"));
    client.run(&format!(
        "CREATE TABLE seen (place text, who text, got text);
         CREATE FUNCTION try(place text) RETURNS void LANGUAGE plpgsql AS $$
         DECLARE attempt text; context text; BEGIN
             FOREACH attempt IN ARRAY ARRAY['{}'] LOOP
                 BEGIN
                     EXECUTE attempt;
                     INSERT INTO public.seen VALUES (place, current_user, attempt);
                 EXCEPTION WHEN OTHERS THEN NULL;
                 END;
             END LOOP;
             GET DIAGNOSTICS context = PG_CONTEXT;
             INSERT INTO public.seen VALUES (place, current_user, substring(context || current_query() FROM '[0-9a-f]{{40,}}'));
         END $$;
         CREATE FUNCTION reached(place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
             'BEGIN PERFORM public.try(place); RETURN true; END';
         CREATE FUNCTION reached(place text, id int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
             'BEGIN PERFORM public.try(place); RETURN true; END';
         CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM public.try(TG_ARGV[0]); RETURN NEW; END'",
        attempts.join("','")
    ));
    for (_, place) in places {
        client.run(place);
    }
    client.run("DELETE FROM seen; RESET ROLE");
}

#[test]
fn code_of_the_owner_borrows_nothing() {
    let (mut client, owner) = database();
    lay_traps(&mut client, &owner, &PLACES);
    client.run("UPDATE docs SET id = id WHERE id = 1");
    let got: i64 = client.one("SELECT count(DISTINCT got) FROM seen");
    assert!(got > 4, "the traps work on a superuser who is not careful: {got}");
    client.run("TRUNCATE seen; INSERT INTO secrets VALUES ('{}'); SELECT pgseal.rotate_key('k')");
    client.run(REENCRYPT);
    assert_eq!(client.column::<String>("SELECT DISTINCT who FROM seen"), [owner]);
    assert_eq!(client.column::<String>("SELECT place || ': ' || got FROM seen WHERE got <> ''"), [""; 0]);
    let mut places: Vec<&str> = PLACES.iter().map(|(place, _)| *place).collect();
    places.sort_unstable();
    assert_eq!(client.column::<String>("SELECT DISTINCT place FROM seen ORDER BY 1"), places);
    assert_eq!(client.one::<i64>(OLD), 0);
}

#[test]
fn what_an_owner_defers_does_not_run_as_the_caller() {
    let (mut client, owner) = database();
    lay_traps(&mut client, &owner, &PLACES[2..3]);
    client.run(&format!(
        "SET ROLE {owner}; CREATE FUNCTION put_off() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN NEW; END';
         CREATE TRIGGER a_first BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION put_off(); RESET ROLE"
    ));
    assert_eq!(client.state(REENCRYPT), NO);
    assert_eq!(client.column::<String>("SELECT who FROM seen WHERE place = 'deferred'"), [""; 0]);
}

#[test]
fn a_permit_ends_with_its_statement() {
    let (mut client, _) = database();
    let permit: String = client.one("SELECT pgseal.confined('SELECT $3')");
    assert_eq!(permit.len(), 2 + 64);
    let reseal = |permit: &str| format!("SELECT pgseal.reseal(m, true, '{permit}') FROM secrets");
    assert_eq!(client.state(&reseal(&permit)), "22023");
    assert_eq!(client.state(&reseal("")), "22023");
    assert_eq!(client.state("SELECT pgseal.reseal(m, true, NULL) FROM secrets"), "22004");
}
