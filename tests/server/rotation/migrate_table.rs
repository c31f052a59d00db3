//! encrypt_table: metadata, text and embeddings of a table in one call.

use std::thread;
use std::time::Duration;

use postgres::Client;

use crate::server::rotation::migrate::leftovers;
use crate::support::{Cluster, Sql, fresh_database, shared, wait_for};

const ENCRYPT: &str = "CALL pgseal.encrypt_table('docs', keyring => 'k')";

/// What its columns are, in order.
const TYPES: &str = "SELECT string_agg(format('%s %s', attname, regexp_replace(format_type(atttypid, atttypmod), '\\(\\d+(,\\d+)?\\)', '\\1')), '; ' ORDER BY attname)
    FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attnum > 0 AND NOT attisdropped AND attname !~ '^copy'";

/// Values that are not those of the copies in plain columns.
const DIFFERENT: &str = "SELECT count(*) FROM docs WHERE pgseal.decrypt(m) IS DISTINCT FROM convert_from(copy_m, 'UTF8')::jsonb
    OR pgseal.decrypt(body) IS DISTINCT FROM convert_from(copy_body, 'UTF8') OR pgseal.decrypt(e)::real[] IS DISTINCT FROM copy_e";

const PLAIN: &str = "body text; e vector; id integer; kind text; m jsonb; slug text";
const SEALED: &str =
    "body encrypted_text; e encrypted_vector,3; id integer; kind text; m encrypted_jsonb; slug text";

/// A table with what people have in one: documents, text and an embedding, beside a key, a category and a name.
fn prepare(client: &mut Client, rows: i32) {
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name', '$'])");
    client.run(
        "CREATE TABLE docs (id int PRIMARY KEY, slug text UNIQUE, kind text, m jsonb NOT NULL, body text, e vector(3), copy_m bytea, copy_body bytea, copy_e real[]);
         CREATE INDEX docs_kind ON docs (kind)",
    );
    client.run(&format!(
        "INSERT INTO docs SELECT i, 's' || i, 'k' || i % 3, d, 'body ' || i, e::vector, convert_to(d::text, 'UTF8'), convert_to('body ' || i, 'UTF8'), e
           FROM generate_series(1, {rows}) i, LATERAL (SELECT jsonb_build_object('name', 'n' || i % 10), ARRAY[i, 1, i % 7]::real[]) v (d, e)"
    ));
}

fn database() -> Client {
    let mut client = fresh_database();
    prepare(&mut client, 500);
    client
}

/// What psql shows beside the results of the statements.
fn said(client: &mut Client, statements: &str) -> String {
    let output = shared().psql::<&str>(&client.database(), &[], statements);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn encrypt_table_seals_documents_text_and_embeddings() {
    let mut client = database();
    let nearest = "SELECT array_agg(id ORDER BY id) FROM (SELECT id FROM docs WHERE m @> '{\"name\": \"n3\"}' ORDER BY e <-> '[40,1,2]'::vector, id LIMIT 10) n";
    let before: Vec<i32> = client.one(nearest);
    let told = said(&mut client, &format!("{ENCRYPT};"));
    assert_eq!(client.one::<String>(TYPES), SEALED, "{told}");
    assert_eq!((client.one::<i64>(DIFFERENT), leftovers(&mut client)), (0, vec![]));
    assert_eq!(client.one::<Vec<i32>>(nearest), before);
    assert_says(
        &told,
        &[
            "public.docs.slug stays as it is: it is part of constraint docs_slug_key",
            "public.docs.kind stays as it is: it is part of index public.docs_kind",
            "of other types: id (integer), copy_m (bytea), copy_body (bytea), copy_e (real[])",
            "is of type public.encrypted_vector(",
            "docs.m: column 1 of 3",
            "docs.e: column 3 of 3",
            "CREATE INDEX CONCURRENTLY ON public.docs USING gin (m);",
            "CREATE INDEX CONCURRENTLY ON public.docs USING gin (body);",
        ],
    );
    // Of all columns together.
    assert_eq!(told.matches("hold the old plaintext").count(), 2, "{told}");
    let commands: Vec<String> = client.column(
        "SELECT i FROM pgseal.table_columns('docs') c, pgseal.index_command('docs', c.column_name, format_type(c.type, c.typmod)) i
          WHERE c.type = ANY (pgseal.value_types())",
    );
    assert_eq!(commands.len(), 3, "{commands:?}");
    commands.iter().for_each(|command| client.run(command));
    let quiet = said(&mut client, &format!("{ENCRYPT};"));
    assert_says(&quiet, &["public.docs.m stays as it is: it is public.encrypted_jsonb(", "already"]);
    assert!(!quiet.contains("CREATE INDEX"), "{quiet}");
}

#[test]
fn encrypt_table_keeps_vectors_in_their_rows() {
    let mut client = database();
    let options = "SELECT coalesce(reloptions::text, '') FROM pg_class WHERE oid = 'docs'::regclass";
    client.run("CALL pgseal.encrypt_table('docs', 'k', columns => ARRAY['body'])");
    assert_eq!(client.one::<String>(options), "", "no vector");
    client.run(ENCRYPT);
    assert_eq!(client.one::<String>(options), "{toast_tuple_target=8160}");
    client.run("CALL pgseal.decrypt_column('docs', 'body')");
    assert_eq!(client.one::<String>(options), "{toast_tuple_target=8160}", "there is a vector left");
    client.run("CALL pgseal.decrypt_column('docs', 'e')");
    assert_eq!(client.one::<String>(options), "");

    let mut client = database();
    client.run("ALTER TABLE docs SET (toast_tuple_target = 4000)");
    client.run(ENCRYPT);
    assert_eq!(client.one::<String>(options), "{toast_tuple_target=4000}", "the user's");
    client.run("CALL pgseal.decrypt_column('docs', 'e')");
    assert_eq!(client.one::<String>(options), "{toast_tuple_target=4000}");
}

#[test]
fn encrypt_table_does_the_columns_that_are_named() {
    let mut client = database();
    client.run("DROP INDEX docs_kind");
    client.run("CALL pgseal.encrypt_table('docs', 'k', columns => ARRAY['kind', 'e', 'kind'])");
    let types = "body text; e encrypted_vector,3; id integer; kind encrypted_text; m jsonb; slug text";
    assert_eq!(client.one::<String>(TYPES), types);
    for (columns, state) in
        [("{none}", "42703"), ("{m,id}", "42809"), ("{m,copy_m}", "42809"), ("{NULL}", "42703")]
    {
        let call = format!("CALL pgseal.encrypt_table('docs', 'k', columns => '{columns}')");
        assert_eq!(client.state(&call), state, "{columns}");
    }
    assert_eq!((client.one::<String>(TYPES).as_str(), leftovers(&mut client)), (types, vec![]));
}

#[test]
fn encrypt_table_checks_all_columns_before_the_first() {
    let mut client = database();
    client.run(
        "CREATE INDEX docs_e ON docs USING hnsw (e vector_l1_ops); CREATE VIEW v AS SELECT body FROM docs",
    );
    for call in [ENCRYPT, "CALL pgseal.encrypt_table('docs', 'k', dry_run => true)"] {
        let error = client.error(call);
        let detail = error.detail().unwrap_or_default().to_owned();
        assert_eq!(error.code().code(), "2BP01");
        assert_says(&detail, &["e: index public.docs_e", "body: view public.v"]);
    }
    assert_eq!((client.one::<String>(TYPES).as_str(), leftovers(&mut client)), (PLAIN, vec![]));
    client.run("DROP INDEX docs_e; DROP VIEW v");
    assert_eq!(client.state("CALL pgseal.encrypt_table('docs', 'absent')"), "42704");
    assert_eq!(client.state(&format!("BEGIN; {ENCRYPT}")), "25001");
    client.run("ROLLBACK");
    assert_eq!((client.one::<String>(TYPES).as_str(), leftovers(&mut client)), (PLAIN, vec![]));
    client.run("CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM docs'");
    assert_eq!(client.state(ENCRYPT), "2BP01");
    client.run("CALL pgseal.encrypt_table('docs', 'k', ignore => ARRAY['function public.f()'])");
    assert_eq!(client.one::<String>(TYPES), SEALED);
}

#[test]
fn encrypt_table_is_for_the_owner_with_both_privileges() {
    let mut client = database();
    client.run("DROP ROLE IF EXISTS table_sealer; CREATE ROLE table_sealer; GRANT ALL ON SCHEMA public TO table_sealer; GRANT ALL ON docs TO table_sealer; SET ROLE table_sealer");
    assert_eq!(client.state(ENCRYPT), "42501", "not the owner");
    client.run("RESET ROLE; ALTER TABLE docs OWNER TO table_sealer");
    assert_eq!(client.state(ENCRYPT), "42501", "another's table");
    client.run("SELECT pgseal.grant_keyring('k', 'table_sealer', ARRAY['encrypt']); SET ROLE table_sealer");
    assert_eq!(client.state(ENCRYPT), "42501", "encrypt only");
    assert_eq!((client.one::<String>(TYPES).as_str(), leftovers(&mut client)), (PLAIN, vec![]));
    client.run("RESET ROLE; SELECT pgseal.grant_keyring('k', 'table_sealer', ARRAY['decrypt']); SET ROLE table_sealer");
    client.run(ENCRYPT);
    assert_eq!((client.one::<String>(TYPES).as_str(), client.one::<i64>(DIFFERENT)), (SEALED, 0));
    client.run("RESET ROLE; DROP OWNED BY table_sealer; DROP ROLE table_sealer");
}

#[test]
fn encrypt_table_changes_nothing_in_a_dry_run() {
    let mut client = database();
    let told = said(&mut client, "BEGIN; CALL pgseal.encrypt_table('docs', 'k', dry_run => true); COMMIT;");
    assert_says(
        &told,
        &[
            "public.docs.kind stays as it is",
            "public.docs.m, which is jsonb, is to become public.encrypted_jsonb(",
            "public.docs.e, which is public.vector(3), is to become public.encrypted_vector(",
            "add column pgseal_new_",
            "fill all rows (ANALYZE has not counted them yet) in committed batches of about 1000",
            "toast_tuple_target = 8160",
            "afterwards: CREATE INDEX CONCURRENTLY ON public.docs USING gin (m)",
        ],
    );
    client.run("ANALYZE docs");
    let told = said(&mut client, "CALL pgseal.encrypt_table('docs', 'k', dry_run => true);");
    assert_says(&told, &["fill about 500 rows in committed batches"]);
    assert_eq!((client.one::<String>(TYPES).as_str(), leftovers(&mut client)), (PLAIN, vec![]));
    assert_eq!(
        client.one::<i64>(
            "SELECT count(*) FROM pg_class WHERE oid = 'docs'::regclass AND reloptions IS NOT NULL"
        ),
        0
    );
}

#[test]
fn encrypt_table_goes_on_while_a_column_waits_for_its_index() {
    let mut client = database();
    client.run("CREATE INDEX docs_m ON docs USING gin (m)");
    let told = said(&mut client, &format!("{ENCRYPT};"));
    assert_says(
        &told,
        &["columns of public.docs wait for their indexes", "CREATE INDEX CONCURRENTLY pgseal_new_4"],
    );
    assert_eq!(
        client.one::<String>(TYPES).replace("pgseal_new_4 encrypted_jsonb; ", ""),
        SEALED.replace("encrypted_jsonb", "jsonb")
    );
    let commands: Vec<String> = client.column("SELECT pgseal.migration_commands('docs', 'm')");
    commands.iter().for_each(|command| client.run(command));
    client.run(ENCRYPT);
    assert_eq!((client.one::<String>(TYPES).as_str(), client.one::<i64>(DIFFERENT)), (SEALED, 0));
    assert_eq!(leftovers(&mut client), Vec::<String>::new());
}

#[test]
fn encrypt_table_goes_on_after_a_crash_beside_writers() {
    let cluster = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 2000);
    client.run("SELECT pgseal.set_default_keyring('k')");
    // A row stops it for as long as the test likes. The names of triggers on columns 4 and 10 are in no order of numbers.
    client.run(
        "ALTER TABLE docs ADD note varchar(20) DEFAULT 'none', ADD half halfvec(3) DEFAULT '[1,2,3]';
         CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
         CREATE TRIGGER gate BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id = 1500) EXECUTE FUNCTION gate()",
    );
    let mut other = cluster.connect("postgres");
    other.run("SELECT pg_advisory_lock(1)");
    let mut caller = cluster.connect("postgres");
    let call = thread::spawn(move || {
        caller.batch_execute("CALL pgseal.encrypt_table('docs', 'k', batch_size => 50)").err()
    });
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event = 'advisory'";
    wait_for("the lock", Duration::from_secs(60), || client.one::<i64>(waiting) == 1);
    cluster.crash();
    cluster.start_again();
    assert!(call.join().unwrap().is_some(), "the call was cut off");
    let mut client = cluster.connect("postgres");
    let filled: i64 = client.one("SELECT count(pgseal_new_4) FROM docs");
    assert!(filled > 500 && filled < 2000, "{filled} rows filled");

    let mut writer = cluster.connect("postgres");
    let writes = thread::spawn(move || {
        for i in 0..400 {
            let (id, d) = (1 + i * 37 % 2100, format!(r#"{{"name": "w{i}"}}"#));
            writer.run(&format!(
                "INSERT INTO docs (id, m, body, e, copy_m, copy_body, copy_e) VALUES ({id}, '{d}', 'w{i}', '[{i},2,3]', '{d}', 'w{i}', '{{{i},2,3}}')
                 ON CONFLICT (id) DO UPDATE SET m = excluded.m, body = excluded.body, e = excluded.e, copy_m = excluded.copy_m, copy_body = excluded.copy_body, copy_e = excluded.copy_e"
            ));
        }
    });
    client.run("CALL pgseal.encrypt_table('docs', 'k', batch_size => 100)");
    writes.join().unwrap();
    assert_eq!((client.one::<i64>(DIFFERENT), leftovers(&mut client)), (0, vec![]));
    assert_eq!(
        client.one::<String>(TYPES),
        "body encrypted_text; e encrypted_vector,3; half encrypted_vector,3; id integer; kind text; m encrypted_jsonb; note encrypted_text; slug text"
    );
}

#[test]
fn encrypt_table_does_a_partitioned_table_as_a_whole() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k', ARRAY['$.name']);
         CREATE TABLE docs (id int, area text, m jsonb, body text, e vector(3), copy_m bytea, copy_body bytea, copy_e real[]) PARTITION BY LIST (area);
         CREATE TABLE docs_a PARTITION OF docs FOR VALUES IN ('a'); CREATE TABLE docs_b PARTITION OF docs DEFAULT;
         INSERT INTO docs SELECT i, chr(97 + i % 3), '{}', 'b', '[1,2,3]', '{}', 'b', '{1,2,3}' FROM generate_series(1, 300) i",
    );
    assert_eq!(client.state("CALL pgseal.encrypt_table('docs_a', 'k')"), "2BP01");
    let told = said(&mut client, &format!("{ENCRYPT};"));
    assert_says(
        &told,
        &[
            "public.docs.area stays as it is: it is part of the partition key of public.docs",
            "CREATE INDEX ON public.docs USING gin (m)",
        ],
    );
    assert_eq!(client.one::<i64>(DIFFERENT), 0);
    assert_eq!(
        client.one::<String>(TYPES),
        "area text; body encrypted_text; e encrypted_vector,3; id integer; m encrypted_jsonb"
    );
    let inline =
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'docs%' AND reloptions::text LIKE '%8160%'";
    assert_eq!(client.one::<i64>(inline), 2);
}
