//! PostgreSQL's own tests, and pgvector's, on a server that has pgseal preloaded: they end as without it.
//!
//! Their files may be of another minor version than the server (tests/setup/postgresql_suite.sh). So a test that does not
//! give what it should is run without pgseal, and must give the same there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::support::{Cluster, as_server, major_version, output, pg_config, run};

/// What tests printed that did not give what their files expect, by their name.
type Unexpected = BTreeMap<String, String>;

struct Suite {
    /// Under the folder of PGSEAL_SUITE.
    files: PathBuf,
    /// PostgreSQL's, below its makefiles.
    program: &'static str,
    arguments: Vec<String>,
    /// Tests that there must be at least.
    least: usize,
}

/// The folder of the suites, where there is one for the PostgreSQL that is tested.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("PGSEAL_SUITE").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    if folder.is_none() || major_version() != 15 {
        eprintln!("not run: PGSEAL_SUITE names no tests of this PostgreSQL");
        return None;
    }
    folder
}

impl Suite {
    /// Runs it on a server of its own with these libraries preloaded.
    fn run(&self, preloaded: &str) -> Unexpected {
        let preload = format!("shared_preload_libraries = '{preloaded}'");
        let cluster = Cluster::start(&[&preload, "max_prepared_transactions = 10"]);
        let results = cluster.socket_dir().join("suite");
        run(as_server("mkdir").arg(&results));
        let makefiles = PathBuf::from(pg_config("--pgxs"));
        let mut command = as_server(makefiles.with_file_name("../test").join(self.program));
        command.arg("--bindir").arg(pg_config("--bindir")).arg("--inputdir").arg(&self.files);
        command.arg("--dlpath").arg(&self.files).arg("--outputdir").arg(&results);
        command.arg("--host").arg(cluster.socket_dir()).arg("--user=postgres").args(&self.arguments);
        let said = output(command.current_dir(&results));
        let report = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(!cluster.log().contains("was terminated by signal"), "{report}\n{}", cluster.log());
        let ended = |how: &str| report.lines().filter(|line| line.contains(how)).count();
        assert!(ended(" ... ok ") + ended(" ... FAILED ") >= self.least, "{report}\n{said:?}");
        unexpected(&report, &results)
    }

    /// Every test gives the same with pgseal as without it. What the time of day or other work beside it changes is not
    /// in both of two runs.
    fn is_the_same_with_pgseal(&self) {
        let with = self.run("pgseal");
        if with.is_empty() {
            return;
        }
        let without = self.run("");
        let differ = |found: &Unexpected| -> Vec<String> {
            found
                .iter()
                .filter(|(name, text)| without.get(*name) != Some(text))
                .map(|(name, _)| name.clone())
                .collect()
        };
        let once = differ(&with);
        if once.is_empty() {
            return;
        }
        eprintln!("these tests of PostgreSQL differ and are looked at again: {once:?}");
        let again = self.run("pgseal");
        let twice: Vec<String> = differ(&again).into_iter().filter(|name| once.contains(name)).collect();
        let shown: Vec<&str> = twice.iter().map(|name| again[name].as_str()).collect();
        assert!(twice.is_empty(), "with pgseal these differ: {twice:?}\n{}", shown.join("\n"));
    }
}

/// Of the tests that failed, what they printed, as a difference to what is expected.
fn unexpected(report: &str, results: &Path) -> Unexpected {
    let failed = report.lines().filter(|line| line.contains(" ... FAILED "));
    let names =
        failed.filter_map(|line| line.trim_start().trim_start_matches("test ").split_whitespace().next());
    let read = |name: &str| std::fs::read_to_string(results.join("results").join(format!("{name}.out")));
    names.map(|name| (name.to_owned(), read(name).unwrap_or_default())).collect()
}

fn schedule(files: &Path, name: &str) -> String {
    format!("--schedule={}", files.join(name).display())
}

#[test]
fn postgresqls_own_tests_end_as_without_pgseal() {
    let Some(files) = folder().map(|folder| folder.join("regress")) else { return };
    let arguments = vec![schedule(&files, "parallel_schedule"), "--max-concurrent-tests=20".to_owned()];
    Suite { files, program: "regress/pg_regress", arguments, least: 200 }.is_the_same_with_pgseal();
}

#[test]
fn pgvectors_tests_end_as_without_pgseal() {
    let Some(files) = folder().map(|folder| folder.join("pgvector")) else { return };
    let listed = std::fs::read_dir(files.join("sql")).expect("its tests");
    let paths = listed.map(|entry| entry.expect("a test").path());
    let names = paths.filter_map(|path| path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
    let mut arguments = vec!["--load-extension=vector".to_owned()];
    arguments.extend(names);
    Suite { files, program: "regress/pg_regress", arguments, least: 10 }.is_the_same_with_pgseal();
}

/// Several minutes, hence in the long tests alone.
#[test]
fn postgresqls_tests_of_isolation_end_as_without_pgseal() {
    let Some(files) = folder().map(|folder| folder.join("isolation")) else { return };
    if std::env::var_os("PGSEAL_ISOLATION").is_none() {
        eprintln!("not run: make test-long does");
        return;
    }
    let arguments = vec![schedule(&files, "isolation_schedule")];
    Suite { files, program: "isolation/pg_isolation_regress", arguments, least: 80 }
        .is_the_same_with_pgseal();
}
