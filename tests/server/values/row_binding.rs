//! Values bound to their row: moved ones do not decrypt, whatever happened to them in between.

use postgres::Client;

use crate::support::{Sql, fresh_database, own_keyring, shared};

/// Rows whose value does not open with its own id, or is another row's.
const WRONG: &str =
    "SELECT count(*) FROM docs WHERE (pgseal.decrypt(m, id::text) ->> 'n')::int IS DISTINCT FROM id";
const ROTATIONS: [&str; 2] = ["update", "in_place"];

/// Table docs with 20 documents bound to their ids, every fifth of them out of line, and the keyring k.
fn database() -> Client {
    let mut client = fresh_database();
    own_keyring(&mut client, "{$.a}");
    client
        .run("CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k)) WITH (autovacuum_enabled = off)");
    client.run(
        "INSERT INTO docs SELECT n, pgseal.encrypt(jsonb_build_object('a', n % 4, 'n', n, 'long',
             (SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, CASE WHEN n % 5 = 0 THEN 200 ELSE 9 END) i)), 'k', n::text)
           FROM generate_series(1, 20) n",
    );
    client.run("CREATE INDEX ON docs USING gin (m)");
    client
}

fn swap_1_and_2(client: &mut Client) {
    client.run("UPDATE docs SET m = (SELECT m FROM docs d WHERE d.id = 3 - docs.id) WHERE id < 3");
}

/// Each verdict with the number of values that have it.
fn tally(client: &mut Client, arguments: &str) -> Vec<String> {
    client.column(&format!(
        "SELECT concat_ws(' ', result, sum(number_of_values), finding) FROM pgseal.verify({arguments})
          GROUP BY result, finding ORDER BY result, finding COLLATE \"C\" NULLS FIRST"
    ))
}

/// Turns bits of one byte of row `id`'s value and stores it as what arrives sealed.
fn turn(client: &mut Client, id: i32, byte: i32, bits: i32) {
    let text: String = client.one(&format!(
        "SELECT concat('pgseal:', replace(encode(set_byte(b, {byte}, get_byte(b, {byte}) # {bits}), 'base64'), E'\\n', ''))
           FROM (SELECT pgseal.encrypted_jsonb_send(m) AS b FROM docs WHERE id = {id}) v"
    ));
    client.run(&format!("UPDATE docs SET m = '{text}' WHERE id = {id}"));
}

#[test]
fn rotation_keeps_values_bound_and_moved_ones_moved() {
    for rotation in ROTATIONS {
        let mut client = database();
        assert_eq!(client.one::<i64>(WRONG), 0);
        swap_1_and_2(&mut client);
        client.run("SELECT pgseal.rotate_key('k')");
        client.run(&format!("CALL pgseal.reencrypt('docs', 'm', rotation => '{rotation}')"));
        client.run("SELECT pgseal.retire_key('k', 1)");
        assert_eq!(
            tally(&mut client, "'docs', 'm', 'id::text'"),
            ["authentic 18", "moved 2 bound to another context"],
            "{rotation}"
        );
        for context in ["'1'", "''", "'11'", "'20'"] {
            let read = format!("SELECT pgseal.decrypt(m, {context}) FROM docs WHERE id = 1");
            assert_eq!(client.state(&read), "22000", "{rotation} {context}");
        }
        assert!(client.one::<bool>("SELECT bool_and(pgseal.decrypt(m, NULL) IS NULL) FROM docs"));
        swap_1_and_2(&mut client);
        assert_eq!(client.one::<i64>(WRONG), 0, "{rotation}");
        assert_eq!(client.column::<i32>("SELECT DISTINCT pgseal.key_version(m) FROM docs"), [2]);
    }
}

#[test]
fn bound_values_are_found_without_context_after_rotations() {
    for rotation in ROTATIONS {
        let mut client = database();
        client.run("SELECT pgseal.rotate_key('k'), pgseal.rotate_index_key('k')");
        client.run(&format!("CALL pgseal.reencrypt('docs', 'm', rotation => '{rotation}')"));
        let found = r#"SELECT id FROM docs WHERE m @> '{"a": 3}' ORDER BY id"#;
        assert_eq!(client.column::<i32>(found), [3, 7, 11, 15, 19], "{rotation}");
    }
}

#[test]
fn nothing_made_of_a_bound_value_reads_without_its_context() {
    let mut client = database();
    for part in ["m -> 'a'", "m ->> 'long'", r#"m || '{"b": 1}'"#, "m - 'a'", "m #> '{a}'", "m #>> '{long}'"]
    {
        for context in ["", ", '2'"] {
            let read = format!("SELECT pgseal.decrypt({part}{context}) FROM docs WHERE id = 1");
            assert_eq!(client.state(&read), "22000", "{read}");
        }
        let own = format!("SELECT pgseal.decrypt({part}, '1') IS NOT NULL FROM docs WHERE id = 1");
        assert!(client.one::<bool>(&own), "{part}");
    }
}

#[test]
fn documents_of_two_contexts_do_not_become_one() {
    let mut client = database();
    client.run("CREATE TABLE patch (m encrypted_jsonb(k))");
    client.run(r#"INSERT INTO patch VALUES (pgseal.encrypt('{"b": 1}'::jsonb, 'k'))"#);
    let state = |client: &mut Client, sum: &str| {
        client.state(&format!("SELECT {sum} FROM docs d, docs e, patch p WHERE d.id = 1 AND e.id = 2"))
    };
    assert_eq!(state(&mut client, "d.m || e.m"), "22000");
    assert_eq!(state(&mut client, "p.m || d.m"), "22000");
    // What is bound to nothing, or to the same context, may be added, after a rotation too.
    client.run("SELECT pgseal.rotate_key('k')");
    for sum in ["d.m || p.m", "d.m || d.m", "d.m || pgseal.encrypt('{}'::jsonb, 'k', '1')"] {
        let read =
            format!("SELECT (pgseal.decrypt({sum}, '1') ->> 'n')::int FROM docs d, patch p WHERE d.id = 1");
        assert_eq!(client.one::<i32>(&read), 1, "{sum}");
    }
}

#[test]
fn the_binding_cannot_be_taken_off_put_on_or_replaced() {
    let mut client = database();
    client.run(
        r#"UPDATE docs SET m = pgseal.encrypt('{"a": "more than a context tag"}'::jsonb, 'k') WHERE id = 2"#,
    );
    // Bit 0 of byte 2 says that a value is bound.
    turn(&mut client, 1, 2, 1);
    turn(&mut client, 2, 2, 1);
    for read in ["pgseal.decrypt(m)", "pgseal.decrypt(m, id::text)", "pgseal.decrypt(m, '')"] {
        for id in [1, 2] {
            assert_eq!(client.state(&format!("SELECT {read} FROM docs WHERE id = {id}")), "22000");
        }
    }
    assert_eq!(
        tally(&mut client, "'docs', 'm', 'id::text'"),
        ["authentic 18", "corrupt 2 authentication failed"]
    );
}

#[test]
fn verify_tells_moved_corrupt_unreadable_and_unbound_apart() {
    let mut client = database();
    client.run("ALTER TABLE docs ALTER m TYPE encrypted_jsonb");
    let name = client.database();
    let keys = shared().key_dir().join(&name).with_extension("lost");
    client.run(&format!("SELECT pgseal.create_keyring('lost', kms_endpoint => 'file://{}')", keys.display()));
    client.run("UPDATE docs SET m = pgseal.encrypt('{}'::jsonb, 'lost', id::text) WHERE id IN (6, 7)");
    client.run("UPDATE docs SET m = pgseal.encrypt('{}'::jsonb, 'k') WHERE id = 8");
    client.run("UPDATE docs SET m = NULL WHERE id = 9");
    swap_1_and_2(&mut client);
    turn(&mut client, 3, 40, 1);
    std::fs::rename(&keys, keys.with_extension("away")).unwrap();

    let mut client = shared().connect(&name);
    let found = tally(&mut client, "'docs', 'm', 'id::text'");
    let starts = [
        "authentic 13",
        "authentic 1 not bound to a context",
        "corrupt 1 authentication failed",
        "moved 2 bound to another context",
        "unreadable 2 ",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (row, start) in found.iter().zip(starts) {
        assert!(row.starts_with(start), "{found:#?}");
    }
    // What is listed has the place of the row.
    let listed = client.column::<i32>(
        "SELECT id FROM pgseal.verify('docs', 'm', 'id::text') v JOIN docs d ON d.ctid = v.row_ctid ORDER BY id",
    );
    assert_eq!(listed, [1, 2, 3, 6, 7]);
    let without = tally(&mut client, "'docs', 'm'");
    assert!(
        without.contains(&"authentic 15 bound to a context that was not checked".to_owned()),
        "{without:#?}"
    );
    let counted = client.one::<i64>(
        "SELECT sum(number_of_values)::int8 FROM pgseal.verify('docs', 'm', 'id::text', max_listed => 2)",
    );
    assert_eq!(counted, 19);
}

#[test]
fn verify_says_how_far_it_is() {
    let mut client = database();
    let name = client.database();
    swap_1_and_2(&mut client);
    // The sleep is a part of the expression that is evaluated once for the first pages.
    let slow = "SELECT * FROM pgseal.verify('docs', 'm', '(SELECT '''' FROM pg_sleep(5.1)) || id')";
    let output = shared().psql(&name, &[] as &[&str], slow);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("20 values checked, 2 of them listed as not authentic"), "{said}");
}
