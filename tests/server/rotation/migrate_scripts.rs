//! The scripts for tables of frameworks and of pgcrypto, and whose code runs in a migration.

use std::process::Command;

use postgres::Client;

use crate::server::rotation::migrate::{DECRYPT, DIFFERENT, ENCRYPT, prepare, type_of};
use crate::support::{Cluster, Sql, fresh_database, lacks, run};

/// One of the scripts in sql/scripts, as its head says to run it; `input` is psql's own.
fn script(cluster: &Cluster, name: &str, variables: &[&str], input: &str) -> String {
    let path = format!("{}/sql/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut arguments = vec!["-f", &path];
    variables.iter().for_each(|variable| arguments.extend(["-v", variable]));
    let output = cluster.psql("postgres", &arguments, input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {said}");
    said
}

/// Runs Python with the frameworks, its only argument being the database's URL.
fn python(cluster: &Cluster, driver: &str, program: &str) -> String {
    let python = std::env::var_os("PGSEAL_CLIENTS").expect("PGSEAL_CLIENTS: run make test");
    let url = format!("postgresql+{driver}://postgres@/postgres?host={}", cluster.socket_dir().display());
    run(Command::new(python).args(["-c", program, &url]))
}

#[test]
fn the_script_for_a_table_made_by_hand() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 1000);
    client.run("CREATE INDEX docs_m ON docs USING gin (m); CREATE INDEX ON docs USING hash (id)");
    let variables = ["table=docs", "column=m", "keyring=mine", "searchable={$.name}"];
    script(&cluster, "by_hand.sql", &variables, "");
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    assert_eq!(
        client.one::<String>("SELECT indexdef FROM pg_indexes WHERE indexname = 'docs_m'"),
        "CREATE INDEX docs_m ON public.docs USING gin (m)"
    );
    assert_eq!(
        client.one::<String>("SELECT searchable::text FROM pgseal.keyrings WHERE name = 'mine'"),
        "{$.name}"
    );
}

const LANGCHAIN: &str = r#"
import sys
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_postgres import PGVector
from sqlalchemy import create_engine, event

class Lengths(Embeddings):
    def embed_query(self, text): return [len(text), 1.0, 2.0]
    def embed_documents(self, texts): return [self.embed_query(text) for text in texts]

engine = create_engine(sys.argv[1])
if ENCRYPTED:
    @event.listens_for(engine, "connect")
    def reveal(connection, _):
        connection.execute("SET pgseal.reveal = on; SET search_path = public, pgseal")
        connection.commit()
store = PGVector(Lengths(), collection_name="notes", connection=engine, create_extension=False, embedding_length=3)
if not ENCRYPTED:
    store.add_documents([Document(page_content=f"Note {i}.", metadata={"patient": f"p{i % 7}", "age": i}) for i in range(100)], ids=[f"n{i}" for i in range(100)])
for filter in [{"patient": "p3"}, {"age": {"$lt": 20}}]:
    print(sorted((d.id, d.page_content, str(d.metadata)) for d in store.similarity_search("Note 5.", k=200, filter=filter)))
"#;

#[test]
fn the_script_for_langchain() {
    let cluster = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
    let before = python(&cluster, "psycopg", &LANGCHAIN.replace("ENCRYPTED", "False"));
    assert!(before.contains("Note 10."), "{before}");
    script(&cluster, "langchain.sql", &["keyring=clients", "searchable={$.**}"], "");
    let after = python(&cluster, "psycopg", &LANGCHAIN.replace("ENCRYPTED", "True"));
    assert_eq!(before, after);
    let stored: String =
        cluster.connect("postgres").one("SELECT string_agg(e::text, ' ') FROM langchain_pg_embedding e");
    assert!(stored.contains("pgseal:") && !stored.contains("Note ") && !stored.contains("patient"));
}

const LLAMAINDEX: &str = r#"
import sys
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.vector_stores.postgres import PGVectorStore
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_engine(sys.argv[1])
if ENCRYPTED:
    @event.listens_for(engine, "connect")
    def reveal(connection, _):
        connection.cursor().execute("SET pgseal.reveal = on")
        connection.commit()
store = PGVectorStore(engine=engine, async_engine=create_async_engine(engine.url.set(drivername="postgresql+asyncpg")), table_name="notes",
                      embed_dim=3, use_jsonb=JSONB, perform_setup=not ENCRYPTED, initialization_fail_on_error=True)
if not ENCRYPTED:
    store.add([TextNode(id_=f"n{i}", text=f"Note {i}.", metadata={"patient": f"p{i % 7}", "age": i}, embedding=[i, 1.0, 2.0],
                        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"document {i}")}) for i in range(100)])
def search():
    for key, operator, value in [("patient", FilterOperator.EQ, "p3"), ("age", FilterOperator.LT, 20)]:
        filters = MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])
        found = store.query(VectorStoreQuery(query_embedding=[5.0, 1.0, 2.0], similarity_top_k=200, filters=filters))
        print(sorted((node.node_id, node.text, str(node.metadata)) for node in found.nodes))
search()
if ENCRYPTED:
    store.delete("document 10")
    print("deleted")
    search()
"#;

#[test]
fn the_script_for_llamaindex() {
    for jsonb in ["True", "False"] {
        let cluster = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
        let program = LLAMAINDEX.replace("JSONB", jsonb);
        let before = python(&cluster, "psycopg2", &program.replace("ENCRYPTED", "False"));
        assert!(before.contains("Note 10."), "{before}");
        script(&cluster, "llamaindex.sql", &["table=data_notes", "keyring=clients", "searchable={$.**}"], "");
        let after = python(&cluster, "psycopg2", &program.replace("ENCRYPTED", "True"));
        let (same, deleted) = after.split_once("deleted\n").unwrap();
        assert_eq!(before, same);
        assert!(!deleted.contains("Note 10.") && deleted.contains("Note 3."), "{deleted}");
        let mut client = cluster.connect("postgres");
        let stored: String = client.one("SELECT string_agg(e::text, ' ') FROM data_notes e");
        assert!(stored.contains("pgseal:") && !stored.contains("Note ") && !stored.contains("patient"));
        let indexes: i64 = client.one("SELECT count(*) FROM pg_indexes WHERE tablename = 'data_notes' AND indexdef LIKE '%gin (metadata_)'");
        assert_eq!(indexes, 1);
    }
}

#[test]
fn the_script_for_pgcrypto() {
    if lacks("pgcrypto") {
        return;
    }
    let cluster = Cluster::with_pgseal(&["log_statement = all"]);
    let mut client = cluster.connect("postgres");
    prepare(&mut client, 300);
    client.run("CREATE EXTENSION pgcrypto");
    client.run("SET log_statement = none");
    client.run("ALTER TABLE docs ADD b bytea; UPDATE docs SET b = pgp_sym_encrypt(m::text, 'open sesame'); ALTER TABLE docs DROP m; ALTER TABLE docs RENAME b TO m");
    let variables = ["table=docs", "column=m", "type=encrypted_jsonb", "keyring=mine", "searchable={$.name}"];
    script(&cluster, "pgcrypto.sql", &variables, "open sesame\n");
    assert_eq!((type_of(&mut client, "m").as_str(), client.one::<i64>(DIFFERENT)), ("encrypted_jsonb", 0));
    let found: i64 = client.one(r#"SELECT count(*) FROM docs WHERE m @> '{"name": "n3"}'"#);
    assert_eq!(found, client.one::<i64>(r#"SELECT count(*) FROM docs WHERE copy @> '{"name": "n3"}'"#));
    assert!(!cluster.log().contains("sesame"), "the passphrase is in the log");
}

/// A role that owns docs, and whose code makes it a superuser where it can; with the role's name, and a way to tell.
fn trapper(client: &mut Client, cluster_wide_name: &str) -> String {
    let role = format!("{cluster_wide_name}_{}", client.database());
    client.run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}; ALTER TABLE docs OWNER TO {role}"
    ));
    client.run(&format!(
        "SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt', 'decrypt']); SET ROLE {role}"
    ));
    client.run(&format!(
        "CREATE FUNCTION really_climb() RETURNS void LANGUAGE plpgsql AS $$
             BEGIN RESET ROLE; ALTER ROLE {role} SUPERUSER; SET ROLE {role}; EXCEPTION WHEN OTHERS THEN NULL; END $$;
         CREATE FUNCTION climb() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM public.really_climb(); RETURN true; END';
         CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.climb(); RETURN NEW; END'; RESET ROLE"
    ));
    role
}

fn has_climbed(client: &mut Client, role: &str) -> bool {
    let is_superuser = client.one(&format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{role}'"));
    client.run(&format!("RESET ROLE; ALTER ROLE {role} NOSUPERUSER"));
    is_superuser
}

const TRAPS: [&str; 6] = [
    "CREATE TRIGGER trap BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION spring()",
    "CREATE TRIGGER trap AFTER UPDATE ON docs FOR EACH STATEMENT EXECUTE FUNCTION spring()",
    "CREATE CONSTRAINT TRIGGER trap AFTER UPDATE ON docs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION spring()",
    "ALTER TABLE docs ADD CONSTRAINT trap CHECK (climb() AND id > 0) NOT VALID",
    "CREATE INDEX trap ON docs (id) WHERE climb()",
    "CREATE STATISTICS trap ON (climb()), id FROM docs",
];

#[test]
fn an_owners_code_does_not_run_as_whoever_works_on_the_table() {
    let mut client = fresh_database();
    prepare(&mut client, 10);
    let role = trapper(&mut client, "trapped");
    client.run("CREATE TABLE sealed (id int, m encrypted_jsonb(k)); INSERT INTO sealed VALUES (1, '{}')");
    client.run(&format!("ALTER TABLE sealed OWNER TO {role}"));
    for trap in TRAPS {
        client.run(&format!("SET ROLE {role}"));
        client.run(trap);
        client.run(&trap.replace("trap ", "trap_too ").replace("docs", "sealed"));
        client.run("RESET ROLE; UPDATE docs SET note = 'x'");
        assert!(has_climbed(&mut client, &role), "the trap works: {trap}");
        for call in [ENCRYPT, "CALL pgseal.decrypt_column('sealed', 'm')"] {
            let error = client.error(call);
            assert_eq!(
                (error.code().code(), error.hint().unwrap_or_default().contains("SET ROLE")),
                ("42501", true),
                "{call}: {error:?}"
            );
        }
        client.run("SELECT pgseal.rotate_key('k')");
        client.run("CALL pgseal.reencrypt('sealed', 'm')");
        for looking in [
            "pgseal.verify('sealed', 'm')",
            "pgseal.key_usage('sealed', 'm')",
            "pgseal.evidence('sealed')",
            "pgseal.audit()",
        ] {
            client.run(&format!("SELECT {looking}"));
        }
        for looking in ["verify('sealed', 'm', 'NULL')", "check_searchable('sealed', 'm')"] {
            assert_eq!(client.state(&format!("SELECT pgseal.{looking}")), "42501");
        }
        assert!(!has_climbed(&mut client, &role), "{trap}");
        // Nor as who was there before SET ROLE.
        client.run(&format!("SET ROLE {role}"));
        client.run(ENCRYPT);
        client.run("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED");
        client.run("CALL pgseal.reencrypt('docs', 'm')");
        client.run(DECRYPT);
        client.run("CALL pgseal.reencrypt('sealed', 'm')");
        assert_eq!(client.one::<String>("SELECT current_user::text"), role);
        assert!(!has_climbed(&mut client, &role), "after SET ROLE: {trap}");
        client.run("DROP TRIGGER IF EXISTS trap ON docs; ALTER TABLE docs DROP CONSTRAINT IF EXISTS trap; DROP INDEX IF EXISTS trap; DROP STATISTICS IF EXISTS trap");
        client.run("DROP TRIGGER IF EXISTS trap_too ON sealed; ALTER TABLE sealed DROP CONSTRAINT IF EXISTS trap_too; DROP INDEX IF EXISTS trap_too; DROP STATISTICS IF EXISTS trap_too");
    }
    client.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"));
}

#[test]
fn the_trigger_of_a_migration_gives_no_rights_to_others() {
    let mut client = fresh_database();
    prepare(&mut client, 10);
    let role = trapper(&mut client, "changing");
    client.run("CREATE TABLE seen (who text); GRANT INSERT ON seen TO PUBLIC; CREATE ROLE changing_heir; CREATE ROLE changing_writer; GRANT INSERT ON docs TO changing_writer; ALTER TABLE docs ALTER note SET NOT NULL");
    client.run(&format!(
        "GRANT changing_heir TO {role}; GRANT ALL ON SCHEMA public TO changing_heir; SET ROLE {role}"
    ));
    client.run("CREATE INDEX docs_m ON docs USING gin (m)");
    client.run(ENCRYPT);
    // It waits for its index; the second column changes its type beneath the trigger.
    client.run(
        "CREATE FUNCTION evil(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (current_user); RETURN true; END';
         CREATE DOMAIN d AS text CHECK (evil(VALUE)); ALTER TABLE docs DROP COLUMN pgseal_new_2, ADD COLUMN pgseal_new_2 d; RESET ROLE",
    );
    client.run(&format!("SET ROLE {role}; SELECT 'x'::d; RESET ROLE"));
    let caught = client.state("SET ROLE changing_writer; INSERT INTO docs VALUES (11, '{}', '{}', 'x')");
    assert_eq!(caught, "42846", "what is encrypted is not put into a column of another type");
    assert_eq!(client.column::<String>("SELECT DISTINCT who FROM seen"), [role.as_str()]);
    // Whoever owns the table later has no trigger of the first owner's.
    client.run(&format!("SET ROLE {role}"));
    client.run("ALTER TABLE docs OWNER TO changing_heir; RESET ROLE");
    let error = client.error("INSERT INTO docs VALUES (12, '{}', '{}', 'x')");
    assert_eq!((error.code().code(), error.hint().is_some()), ("42501", true), "{error:?}");
    client.run("SELECT pgseal.abandon_migration('docs', 'm')");
    client.run("INSERT INTO docs VALUES (12, '{}', '{}', 'x')");
    client.run(&format!("DROP OWNED BY {role}, changing_heir, changing_writer CASCADE; DROP ROLE {role}, changing_heir, changing_writer"));
}
