//! What `pgseal.evidence` records, and that its scan of the disk finds what is there.

use postgres::Client;
use serde_json::Value;

use crate::support::{Cluster, Sql, fresh_database, run, shared};

fn database() -> Client {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name'], kms_key => 'wrapping')");
    client.run(
        "CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), note encrypted_text(k), plain text)",
    );
    client.run("CREATE INDEX ON docs USING gin (m)");
    client.run("INSERT INTO docs SELECT n, jsonb_build_object('name', 'canary-one ' || n), 'canary-two', repeat('x', n) FROM generate_series(1, 50) n");
    client
}

fn evidence(client: &mut Client, arguments: &str) -> Value {
    client.one(&format!("SELECT pgseal.evidence({arguments})"))
}

#[test]
fn evidence_leads_with_how_many_values_authenticate() {
    let mut client = database();
    client.run("SELECT pgseal.rotate_key('k')");
    client.run(r#"INSERT INTO docs VALUES (51, '{"name": "new"}')"#);
    let text: String = client.one("SELECT pgseal.evidence('docs')::text");
    assert!(text.starts_with(r#"{"verify": [{"#), "{text}");
    let record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        record["verify"][0]["statement"],
        "51 of 51 values authenticate: 50 under data key version 1 of keyring k, 1 under data key version 2 of keyring k"
    );
    assert_eq!(
        record["verify"][1]["statement"],
        "50 of 50 values authenticate: 50 under data key version 1 of keyring k"
    );
    assert_eq!(record["verify"][0]["all_authentic"], true);
    assert_eq!(record["values_by_key"]["m"][1]["key_version"], 2);
    assert_eq!(record["file_scan"]["done"], false);
    let keys = record["wrapped_keys"].as_array().unwrap();
    assert_eq!(keys.len(), 3);
    assert_eq!(keys[0]["kms_key"], "wrapping");
    assert!(keys[0]["kms_endpoint"].as_str().unwrap().starts_with("file://"));
    assert!(!text.contains("commitment") && !text.contains("canary-"));
    let identifier: String = client.one("SELECT system_identifier::text FROM pg_control_system()");
    assert_eq!(record["subject"]["system_identifier"], identifier.as_str());
    let since: bool = client.one(&format!(
        "SELECT '{}'::pg_lsn <= pg_current_wal_lsn()",
        record["subject"]["lsn"].as_str().unwrap()
    ));
    assert!(since);
    assert!(record["not_looked_at"].to_string().contains("WAL, archived WAL, backups"));
    // What it says to repeat can be run.
    let again =
        record["how_to_repeat"][0].as_str().unwrap().replace(", canaries => ..., checkpoint => true", "");
    assert_eq!(client.one::<Value>(&again)["verify"], record["verify"]);
}

#[test]
fn an_altered_value_takes_the_first_sentence_away() {
    let mut client = database();
    client.run(
        "DO $$ DECLARE b bytea := (SELECT pgseal.encrypted_jsonb_send(m) FROM docs WHERE id = 1); BEGIN \
         EXECUTE format('UPDATE docs SET m = %L WHERE id = 1', concat('pgseal:', replace(encode(set_byte(b, 60, get_byte(b, 60) # 1), 'base64'), E'\\n', ''))); END $$",
    );
    let record = evidence(&mut client, "'docs'");
    assert!(record["verify"][0]["statement"].as_str().unwrap().starts_with("49 of 50 values authenticate: "));
    assert_eq!(record["verify"][0]["all_authentic"], false);
    let findings = record["verify"][0]["findings"].to_string();
    assert!(findings.contains("authentication failed") && findings.contains("row_ctid"), "{findings}");
}

#[test]
fn contexts_are_checked_where_they_are_given() {
    let mut client = database();
    client.run("UPDATE docs SET m = pgseal.encrypt('{}'::jsonb, 'k', id::text)");
    client.run("UPDATE docs SET m = (SELECT m FROM docs d WHERE d.id = 3 - docs.id) WHERE id < 3");
    let record = evidence(&mut client, r#"'docs', '{"m": "id::text"}'"#);
    assert_eq!(record["verify"][0]["authentic"], 48);
    assert_eq!(evidence(&mut client, "'docs'")["verify"][0]["authentic"], 50);
    assert_eq!(client.state(r#"SELECT pgseal.evidence('docs', '{"n": "id::text"}')"#), "42703");
}

#[test]
fn the_scan_finds_plaintext_in_heap_toast_and_indexes_only() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name'])");
    client.run("CREATE TABLE docs (id int, m encrypted_jsonb(k), heap text, long text, indexed text)");
    client.run("CREATE INDEX named ON docs (indexed); ALTER TABLE docs ALTER long SET STORAGE EXTERNAL");
    client.run("INSERT INTO docs SELECT n, jsonb_build_object('name', 'sealed-canary'), NULL, NULL, NULL FROM generate_series(1, 500) n");
    let scan = "'docs', canaries => ARRAY['sealed-canary', 'heap-canary', 'toast-canary', 'index-canary'], checkpoint => true";
    let hits = |record: &Value| -> Vec<i64> {
        record["file_scan"]["canaries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["hits"].as_i64().unwrap())
            .collect()
    };
    let clean = evidence(&mut client, scan);
    assert_eq!(
        (hits(&clean), &clean["file_scan"]["control"]),
        (vec![0, 0, 0, 0], &"planted and found".into())
    );
    assert!(!clean.to_string().contains("-canary"));

    client.run("INSERT INTO docs (heap, long, indexed) SELECT 'heap-canary', repeat('y', 9000) || 'toast-canary', 'index-canary'");
    let found = evidence(&mut client, scan);
    // An indexed text stands in the heap as well.
    assert_eq!(hits(&found), [0, 1, 1, 2]);
    let places = |at: usize| found["file_scan"]["canaries"][at]["in"].to_string();
    assert_eq!(places(1), r#"{"public.docs":1}"#);
    assert!(places(2).contains("pg_toast.pg_toast_"), "{}", places(2));
    assert_eq!(places(3), r#"{"public.docs":1,"public.named":1}"#);
    // Deleted rows stay on disk until they are vacuumed away.
    client.run("DELETE FROM docs WHERE heap IS NOT NULL");
    assert_eq!(hits(&evidence(&mut client, scan)), [0, 1, 1, 2]);
    client.run("VACUUM FULL docs");
    assert_eq!(hits(&evidence(&mut client, scan)), [0, 0, 0, 0]);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pg_class WHERE relname = 'scan_control'"), 0);
}

#[test]
fn a_scan_needs_a_checkpoint_and_the_right_to_read_files() {
    let mut client = database();
    assert_eq!(client.state("SELECT pgseal.evidence('docs', canaries => ARRAY['canary-one'])"), "55000");
    assert_eq!(
        client.state("SELECT pgseal.evidence('docs', canaries => ARRAY['ab'], checkpoint => true)"),
        "22023"
    );
    client.run("CREATE TABLE plain (id int)");
    assert_eq!(client.state("SELECT pgseal.evidence('plain')"), "42809");

    let name = client.database();
    client.run(&format!("CREATE ROLE {name}_auditor LOGIN; GRANT SELECT ON docs TO {name}_auditor"));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{name}_auditor', ARRAY['decrypt'])"));
    let mut auditor = shared().connect_as(&format!("{name}_auditor"), &name);
    assert_eq!(evidence(&mut auditor, "'docs'")["verify"][0]["all_authentic"], true);
    assert_eq!(
        auditor.state("SELECT pgseal.evidence('docs', canaries => ARRAY['canary-one'], checkpoint => true)"),
        "42501"
    );
    client.run(&format!("SELECT pgseal.revoke_keyring('k', '{name}_auditor')"));
    assert_eq!(auditor.state("SELECT pgseal.evidence('docs')"), "42501");
}

#[test]
fn the_report_is_one_page_that_shows_evidence_and_audit_as_text() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run(
        "SELECT pgseal.create_keyring('k'); CREATE TABLE \"<i>docs</i>\" (id int, m encrypted_jsonb(k))",
    );
    client.run("INSERT INTO \"<i>docs</i>\" VALUES (1, '{}'::jsonb)");
    let page = cluster.socket_dir().join("report.html");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/report/report.sh");
    let mut report = cluster.program(script, "postgres");
    run(report.arg(&page).env("PGDATABASE", "postgres").env("CANARIES", "one-canary,another"));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("1 of 1 values authenticate: 1 under data key version 1 of keyring k."), "{page}");
    assert!(page.contains("Control in a table of its own: planted and found."));
    assert!(page.contains("its wrapping key is a file on this server"));
    assert!(page.contains("&lt;i&gt;docs") && !page.contains("<i>"));
    for reference in ["src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(reference), "{reference}");
    }
    assert!(!page.contains("one-canary"));
}
