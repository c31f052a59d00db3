//! Answers, plans, errors and hints of each operator, as PostgreSQL's own pg_regress sees them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Guard, Sql, fresh_database, output, pg_config, run, shared};

/// In this order and one database; the first makes the table of the others.
const FILES: [&str; 11] = [
    "setup",
    "contains",
    "filter",
    "text_of_field",
    "existence",
    "parts",
    "changes",
    "text",
    "between",
    "unsupported",
    "reveal",
];

#[test]
fn every_operator_answers_and_plans_as_written_down() {
    let results =
        PathBuf::from(run(Command::new("mktemp").args(["-d", "/tmp/pgseal-regress-XXXXXX"])).trim_end());
    let _guard = Guard::new(Command::new("sh"), r#"cat; rm -rf "$1""#, &[&results]);
    let database = fresh_database().database();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pg_regress");
    let makefiles = PathBuf::from(pg_config("--pgxs"));
    let program = makefiles.with_file_name("../test/regress/pg_regress");
    let mut pg_regress = Command::new(program);
    pg_regress.arg("--use-existing").arg("--bindir").arg(pg_config("--bindir"));
    pg_regress.arg("--host").arg(shared().socket_dir()).args(["--user=postgres", "--dbname", &database]);
    pg_regress.arg("--inputdir").arg(files).arg("--outputdir").arg(&results).args(FILES);
    let ended = output(&mut pg_regress);
    let differences = std::fs::read_to_string(results.join("regression.diffs")).unwrap_or_default();
    let report = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{report}\n{}\n{differences}", String::from_utf8_lossy(&ended.stderr));
}
