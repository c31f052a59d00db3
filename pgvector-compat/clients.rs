//! Drivers and frameworks as their users run them: the scripts in `clients/`, on plain and encrypted columns.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Cluster, Sql, output};

/// A server with the library preloaded, and two databases: one as the frameworks make it, one with `schema.sql`.
struct Servers {
    cluster: Cluster,
}

impl Servers {
    fn start() -> Servers {
        let cluster = Cluster::start(&["session_preload_libraries = 'pgseal'"]);
        let mut client = cluster.connect("postgres");
        client.run("CREATE DATABASE plain");
        client.run("CREATE DATABASE encrypted");
        cluster.connect("plain").run("CREATE EXTENSION vector");
        let schema = include_str!("clients/schema.sql");
        cluster.connect("encrypted").run(schema);
        Servers { cluster }
    }

    fn url(&self, driver: &str, database: &str) -> String {
        let socket = self.cluster.socket_dir().display().to_string();
        format!("postgresql+{driver}://postgres@/{database}?host={socket}")
    }

    fn connection_string(&self, database: &str) -> String {
        format!("host={} user=postgres dbname={database}", self.cluster.socket_dir().display())
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pgvector-compat/clients").join(name)
}

fn run(command: &mut Command) {
    for variable in ["PGHOST", "PGUSER", "PGDATABASE", "PGOPTIONS", "PGSERVICE"] {
        command.env_remove(variable);
    }
    let ran = output(command);
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(ran.status.success(), "{command:?}:\n{}", said.join("\n"));
    eprintln!("{}", said[0].trim_end());
}

fn python(name: &str, arguments: &[String]) {
    let python = std::env::var_os("PGSEAL_CLIENTS").expect("PGSEAL_CLIENTS: run make test");
    run(Command::new(python).arg(script(name)).args(arguments));
}

#[test]
fn langchain_answers_on_encrypted_columns_as_on_plain_ones() {
    let servers = Servers::start();
    python("langchain.py", &[servers.url("psycopg", "plain"), servers.url("psycopg", "encrypted")]);
    let mut client = servers.cluster.connect("encrypted");
    let stored = client.one::<String>("SELECT string_agg(e::text, ' ') FROM langchain_pg_embedding e");
    assert!(stored.contains("pgseal:") && !stored.contains("O'Connor") && !stored.contains("asthma"));
}

#[test]
fn llamaindex_answers_on_encrypted_columns_as_on_plain_ones() {
    let servers = Servers::start();
    python("llamaindex.py", &[servers.url("psycopg2", "plain"), servers.url("psycopg2", "encrypted")]);
    let mut client = servers.cluster.connect("encrypted");
    let stored = client.one::<String>("SELECT string_agg(e::text, ' ') FROM data_notes e");
    assert!(stored.contains("pgseal:") && !stored.contains("Anna") && !stored.contains("report"));
}

#[test]
fn drivers_read_and_write_as_for_jsonb_and_text() {
    let servers = Servers::start();
    python("psycopg_client.py", &[servers.connection_string("encrypted")]);
    python("sqlalchemy_client.py", &[servers.url("psycopg", "encrypted")]);
    let modules = PathBuf::from(std::env::var_os("PGSEAL_NODE").expect("PGSEAL_NODE: run make test"));
    if !modules.join("pg").exists() {
        eprintln!("node-postgres is not installed (no npm): not run");
        return;
    }
    // A module is looked for beside the script.
    let dir = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(&modules, dir.path().join("node_modules")).expect("a link");
    std::fs::copy(script("node_postgres.mjs"), dir.path().join("client.mjs")).expect("a copy");
    run(Command::new("node")
        .arg(dir.path().join("client.mjs"))
        .arg(servers.cluster.socket_dir())
        .arg("encrypted"));
}

#[test]
fn a_user_changes_fewer_than_five_lines() {
    for name in
        ["langchain.py", "llamaindex.py", "psycopg_client.py", "sqlalchemy_client.py", "node_postgres.mjs"]
    {
        let text = std::fs::read_to_string(script(name)).expect("the script");
        let (_, changed) = text.split_once("pgseal: begin\n").expect("a begin");
        let (changed, _) = changed.split_once("pgseal: end").expect("an end");
        let lines = changed.lines().map(str::trim).filter(|line| !["", "#", "//"].contains(line)).count();
        assert!((1..5).contains(&lines), "{name}: {lines}");
    }
}
