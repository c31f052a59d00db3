//! The files of an extension image outside of the server's own, as CloudNativePG mounts them, and what PGXN reads.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Cluster, Sql, as_server, major_version, output, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn an_extension_image_serves_outside_the_server() {
    if major_version() < 18 {
        eprintln!("not run: extension_control_path begins with PostgreSQL 18");
        return;
    }
    let folder = run(as_server("mktemp").args(["-d", "/tmp/pgseal-image-XXXXXX"]));
    let folder = Path::new(folder.trim_end());
    run(Command::new(Path::new(ROOT).join("tests/packages/image.sh")).arg(folder.join("pgseal")));
    let image = folder.join("pgseal");
    // Which of the two files is read is seen by its comment, and by the library that is mapped.
    let control = image.join("share/extension/pgseal.control");
    let text = std::fs::read_to_string(&control)
        .expect("a control file")
        .replace("comment = '", "comment = 'image: ");
    std::fs::write(&control, text).expect("a control file");
    run(Command::new("chmod").args(["-R", "go+rX"]).arg(folder));
    let cluster = Cluster::start(&[
        &format!("extension_control_path = '{}/share:$system'", image.display()),
        &format!("dynamic_library_path = '{}/lib:$libdir'", image.display()),
        "shared_preload_libraries = 'pgseal'",
    ]);
    let mut client = cluster.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE");
    let comment = "SELECT comment FROM pg_available_extensions WHERE name = 'pgseal'";
    assert!(client.one::<String>(comment).starts_with("image: "));
    client.run("SELECT pgseal.create_keyring('k', '{$.a}'); CREATE TABLE docs (m encrypted_jsonb(k))");
    client.run(r#"INSERT INTO docs VALUES ('{"a": "x"}'); CREATE INDEX ON docs USING gin (m)"#);
    assert_eq!(client.one::<i64>(r#"SELECT count(*) FROM docs WHERE m @> '{"a": "x"}'"#), 1);
    let backend: i32 = client.one("SELECT pg_backend_pid()");
    let maps = output(as_server("cat").arg(format!("/proc/{backend}/maps")));
    let maps = String::from_utf8_lossy(&maps.stdout).into_owned();
    let mapped: Vec<&str> = maps.lines().filter(|line| line.ends_with("/pgseal.so")).collect();
    let own = image.join("lib/pgseal.so").display().to_string();
    assert!(!mapped.is_empty() && mapped.iter().all(|line| line.ends_with(&own)), "{mapped:?}");
    drop((client, cluster));
    run(Command::new("rm").arg("-rf").arg(folder));
}

/// The rules of PGXN's meta spec 1.0.0 for what the file has: https://pgxn.org/spec/
#[test]
fn what_pgxn_reads_says_what_cargo_and_the_control_file_say() {
    let meta: Value = serde_json::from_str(&read("META.json")).expect("JSON");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(meta["version"], version);
    for required in ["name", "version", "abstract", "maintainer", "license", "provides", "meta-spec"] {
        assert!(meta.get(required).is_some(), "{required} is missing");
    }
    assert_eq!(meta["meta-spec"]["version"], "1.0.0");
    assert_eq!(meta["license"], "apache_2_0");
    let of_control = read("pgseal.control");
    let provided = &meta["provides"]["pgseal"];
    assert_eq!((&provided["version"], &provided["file"]), (&version.into(), &"pgseal.control".into()));
    assert!(
        of_control.contains("default_version = '@CARGO_VERSION@'")
            && of_control.contains("requires = 'vector'")
    );
    let is_version =
        |text: &str| text.split('.').count() == 3 && text.split('.').all(|part| part.parse::<u32>().is_ok());
    for phase in ["build", "runtime"] {
        let requires = meta["prereqs"][phase]["requires"].as_object().expect("what it requires");
        assert!(requires.values().all(|version| version.as_str().is_some_and(is_version)), "{phase}");
    }
    let tags = meta["tags"].as_array().expect("tags");
    assert!(
        tags.iter()
            .all(|tag| tag.as_str().is_some_and(|tag| !tag.contains(['/', '\\', ' ']) && tag.len() < 256))
    );
    // The least PostgreSQL and pgvector, as the build and the install script have them.
    assert_eq!(meta["prereqs"]["runtime"]["requires"]["PostgreSQL"], "15.0.0");
    assert_eq!(meta["prereqs"]["runtime"]["requires"]["vector"], "0.7.0");
}

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}
