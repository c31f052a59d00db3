//! Drivers and frameworks as their users run them: the scripts in `clients/`, on plain and encrypted columns.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Cluster, Sql, as_server, output};

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

fn program() -> Command {
    Command::new(std::env::var_os("PGSEAL_CLIENTS").expect("PGSEAL_CLIENTS: run make test"))
}

fn python(name: &str, arguments: &[String]) {
    run(program().arg(script(name)).args(arguments));
}

/// A folder with the packages of npm, where a script finds them beside itself, unless there are none.
fn node_folder() -> Option<tempfile::TempDir> {
    let modules = PathBuf::from(std::env::var_os("PGSEAL_NODE").expect("PGSEAL_NODE: run make test"));
    if !modules.join("pg").exists() {
        eprintln!("the packages of npm are not installed: not run");
        return None;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let own = dir.path().join("node_modules");
    std::fs::create_dir(&own).expect("a folder");
    for module in std::fs::read_dir(&modules).expect("packages") {
        let module = module.expect("a package");
        std::os::unix::fs::symlink(module.path(), own.join(module.file_name())).expect("a link");
    }
    Some(dir)
}

fn node(folder: &Path, name: &str, arguments: &[String]) {
    for file in [name, "twins.mjs", "refused.txt"] {
        std::fs::copy(script(file), folder.join(file)).expect("a copy");
    }
    run(Command::new("node").arg(folder.join(name)).args(arguments));
}

/// A package of this repository, copied to where an installer may write.
fn copied(package: &str, into: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("pgvector-compat").join(package);
    run(Command::new("cp").arg("-r").arg(source).arg(into));
    into.join(package)
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
    assert!(stored.contains("pgseal:") && !stored.contains("Anna Brown") && !stored.contains("report"));
}

#[test]
fn drivers_read_and_write_as_for_jsonb_and_text() {
    let servers = Servers::start();
    python("psycopg_client.py", &[servers.connection_string("encrypted")]);
    python("sqlalchemy_client.py", &[servers.url("psycopg", "encrypted")]);
    let socket = servers.cluster.socket_dir().display().to_string();
    if let Some(folder) = node_folder() {
        node(folder.path(), "node_postgres.mjs", &[socket, "encrypted".to_owned()]);
    }
}

/// Two new databases of one server, plain and encrypted, by name.
fn twins() -> (&'static Cluster, [String; 2]) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let cluster = CLUSTER
        .get_or_init(|| Cluster::start(&["session_preload_libraries = 'pgseal'", "max_connections = 100"]));
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let names = ["plain", "encrypted"].map(|kind| format!("{kind}_{number}"));
    let setup = ["CREATE EXTENSION vector", include_str!("clients/schema.sql")];
    for (name, setup) in names.iter().zip(setup) {
        cluster.connect("postgres").run(&format!("CREATE DATABASE {name}"));
        cluster.connect(name).run(setup);
    }
    (cluster, names)
}

/// A script that compares two databases, given by URLs that begin with `scheme`.
fn python_twins(name: &str, scheme: &str) {
    let (cluster, databases) = twins();
    let socket = cluster.socket_dir().display();
    python(name, &databases.map(|database| format!("{scheme}://postgres@/{database}?host={socket}")));
}

#[test]
fn django_answers_as_on_plain_columns() {
    let (cluster, databases) = twins();
    let server = [cluster.socket_dir().display().to_string(), String::new()];
    python("django_client.py", &[&server[..], &databases[..]].concat());
}

#[test]
fn sqlalchemy_answers_as_on_plain_columns() {
    python_twins("sqlalchemy_comparators.py", "postgresql+psycopg");
}

#[test]
fn langgraph_answers_as_on_plain_columns() {
    python_twins("langgraph_client.py", "postgresql");
}

#[test]
fn haystack_answers_as_on_plain_columns() {
    python_twins("haystack_client.py", "postgresql");
}

#[test]
fn mem0_and_agno_answer_as_on_plain_columns() {
    python_twins("mem0_client.py", "postgresql");
    python_twins("agno_client.py", "postgresql+psycopg");
}

#[test]
fn frameworks_find_the_tables_that_they_make_encrypted() {
    let scripts = [
        ("langchain.py", "postgresql+psycopg"),
        ("llamaindex.py", "postgresql+psycopg2"),
        ("haystack_client.py", "postgresql"),
        ("langgraph_client.py", "postgresql"),
        ("mem0_client.py", "postgresql"),
        ("agno_client.py", "postgresql+psycopg"),
        ("django_client.py", ""),
    ];
    for (script, scheme) in scripts {
        let (cluster, [plain, other]) = twins();
        let protected = format!("{other}_protected");
        cluster.connect("postgres").run(&format!("CREATE DATABASE {protected}"));
        let mut client = cluster.connect(&protected);
        client.run("CREATE EXTENSION pgseal CASCADE; SELECT pgseal.create_keyring('clients', searchable => ARRAY['$.**', '$'])");
        client.run("SELECT pgseal.protect('public.*', 'clients')");
        let socket = cluster.socket_dir().display();
        let url = |database: &str| format!("{scheme}://postgres@/{database}?host={socket}");
        let subjects = match scheme {
            "" => vec![socket.to_string(), String::new(), plain, protected],
            _ => vec![url(&plain), url(&protected)],
        };
        python(script, &[subjects, vec!["protected".to_owned()]].concat());
        let left: Option<String> = client
            .one("SELECT string_agg(concat_ws('.', relation, column_name), ', ') FROM pgseal.unprotected()");
        assert_eq!(left, None, "{script}");
        let encrypted: i64 = client.one(
            "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE relkind = 'r' AND atttypid = ANY (pgseal.value_types())",
        );
        assert!(encrypted >= 2, "{script}: {encrypted}");
    }
}

/// The programs without the line that switches reveal on: a superuser has it stand for the role.
#[test]
fn programs_that_change_no_line_answer_as_on_plain_columns() {
    const REVEAL: &str = "SET pgseal.reveal = on";
    let folder = tempfile::tempdir().expect("a folder");
    for beside in ["twins.py", "refused.txt"] {
        std::fs::copy(script(beside), folder.path().join(beside)).expect("a copy");
    }
    for (name, scheme) in [
        ("langchain.py", "postgresql+psycopg"),
        ("llamaindex.py", "postgresql+psycopg2"),
        ("haystack_client.py", "postgresql"),
        ("mem0_client.py", "postgresql"),
    ] {
        let (cluster, databases) = twins();
        let encrypted = &databases[1];
        cluster.connect("postgres").run(&format!(
            "ALTER ROLE postgres IN DATABASE {encrypted} SET pgseal.reveal = on;
             ALTER ROLE postgres IN DATABASE {encrypted} SET search_path = public, pgseal"
        ));
        let text = std::fs::read_to_string(script(name)).expect("the script");
        assert!(text.contains(REVEAL), "{name}");
        let unchanged = folder.path().join(name);
        std::fs::write(
            &unchanged,
            text.replace(REVEAL, "SELECT 1").replace("; SET search_path = public, pgseal", ""),
        )
        .expect("a script");
        let socket = cluster.socket_dir().display();
        run(program()
            .arg(unchanged)
            .args(databases.map(|database| format!("{scheme}://postgres@/{database}?host={socket}"))));
    }
}

#[test]
fn asyncpg_answers_as_on_plain_columns() {
    python_twins("asyncpg_client.py", "postgresql");
}

#[test]
fn javascript_clients_answer_as_on_plain_columns() {
    let Some(folder) = node_folder() else { return };
    for name in [
        "postgresjs_client.mjs",
        "drizzle_client.mjs",
        "knex_client.mjs",
        "typeorm_client.mjs",
        "prisma_client.mjs",
    ] {
        let (cluster, databases) = twins();
        let socket = [cluster.socket_dir().display().to_string()];
        node(folder.path(), name, &[&socket[..], &databases[..]].concat());
    }
}

#[test]
fn statements_that_drivers_keep_follow_reveal() {
    let (cluster, [_, encrypted]) = twins();
    let socket = cluster.socket_dir().display().to_string();
    python("prepared.py", &[format!("postgresql://postgres@/{encrypted}?host={socket}")]);
    if let Some(folder) = node_folder() {
        node(folder.path(), "prepared.mjs", &[socket, encrypted]);
    }
}

#[test]
fn the_python_package_installs_and_serves_its_clients() {
    let dir = tempfile::tempdir().expect("a folder");
    let installed = dir.path().join("installed");
    let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"];
    run(program().args(pip).arg(&installed).arg(copied("python", dir.path())));
    let (cluster, [_, encrypted]) = twins();
    run(program()
        .env("PYTHONPATH", installed)
        .arg(script("python_package.py"))
        .arg(cluster.socket_dir())
        .arg(encrypted));
}

/// The package as an installer puts it among the others, where there are packages of npm.
fn npm_package(folder: &Path) {
    let package = folder.join("node_modules/pgseal");
    let source = copied("npm", folder);
    run(Command::new("npm").args(["pack", "--silent"]).arg(source).current_dir(folder));
    std::fs::create_dir(&package).expect("a folder");
    run(Command::new("tar")
        .args(["-xzf", concat!("pgseal-", env!("CARGO_PKG_VERSION"), ".tgz"), "--strip-components=1", "-C"])
        .arg(package)
        .current_dir(folder));
}

#[test]
fn the_npm_package_installs_and_serves_its_clients() {
    let Some(folder) = node_folder() else { return };
    npm_package(folder.path());
    let (cluster, [_, encrypted]) = twins();
    node(folder.path(), "node_package.mjs", &[cluster.socket_dir().display().to_string(), encrypted]);
}

#[test]
fn types_of_the_python_package_hold_in_strict_programs() {
    // Beside the clients, whose packages it reads.
    let clients = PathBuf::from(std::env::var_os("PGSEAL_CLIENTS").expect("PGSEAL_CLIENTS: run make test"));
    let mypy = clients.ancestors().nth(3).expect("a folder").join("types/bin/mypy");
    let dir = tempfile::tempdir().expect("a folder");
    let package = copied("python", dir.path());
    std::fs::copy(script("typed_use.py"), package.join("typed_use.py")).expect("a copy");
    run(Command::new(mypy)
        .args(["--config-file", "pyproject.toml", "--cache-dir", "cache", "pgseal", "typed_use.py"])
        .arg("--python-executable")
        .arg(clients)
        .current_dir(package));
}

#[test]
fn types_of_the_npm_package_hold_in_strict_programs() {
    let Some(folder) = node_folder() else { return };
    let modules = folder.path().join("node_modules");
    npm_package(folder.path());
    std::fs::copy(script("typed_use.ts"), folder.path().join("typed_use.ts")).expect("a copy");
    std::fs::write(folder.path().join("package.json"), r#"{"type": "module"}"#).expect("a file");
    let options =
        "--noEmit --strict --skipLibCheck --module nodenext --target es2022 --types node typed_use.ts";
    run(Command::new("node")
        .arg(modules.join("typescript/bin/tsc"))
        .args(options.split(' '))
        .current_dir(folder.path()));
}

#[test]
fn a_user_changes_fewer_than_five_lines() {
    for name in [
        "langchain.py",
        "llamaindex.py",
        "psycopg_client.py",
        "sqlalchemy_client.py",
        "sqlalchemy_comparators.py",
        "django_client.py",
        "langgraph_client.py",
        "haystack_client.py",
        "mem0_client.py",
        "agno_client.py",
        "asyncpg_client.py",
        "node_postgres.mjs",
        "postgresjs_client.mjs",
        "drizzle_client.mjs",
        "knex_client.mjs",
        "typeorm_client.mjs",
        "prisma_client.mjs",
    ] {
        let text = std::fs::read_to_string(script(name)).expect("the script");
        let (_, changed) = text.split_once("pgseal: begin\n").expect("a begin");
        let (changed, _) = changed.split_once("pgseal: end").expect("an end");
        let lines = changed.lines().map(str::trim).filter(|line| !["", "#", "//"].contains(line)).count();
        assert!((1..5).contains(&lines), "{name}: {lines}");
    }
}

#[test]
fn imports_seal_what_other_stores_hand_out() {
    let Some(python) = std::env::var_os("PGSEAL_IMPORTS") else {
        eprintln!("not run: PGSEAL_IMPORTS names no Python with the stores; make test does");
        return;
    };
    let servers = Servers::start();
    let mut client = servers.cluster.connect("encrypted");
    client.run("SELECT pgseal.create_keyring('patients', '{$.name}')");
    let mut import = |what: &str| {
        let arguments = [servers.connection_string("encrypted"), what.to_owned()];
        run(Command::new(&python).arg(script("imports.py")).args(arguments));
        client.run("CHECKPOINT");
        let grep =
            output(as_server("grep").args(["-rlaE", "patient-1|Chest pain"]).arg(servers.cluster.data_dir()));
        String::from_utf8_lossy(&grep.stdout).into_owned()
    };
    assert_eq!(import("stores"), "", "files with plaintext, WAL among them");
    // What vecs stored before its table was encrypted is there to be found.
    assert!(import("vecs").contains("pg_wal"));
}
