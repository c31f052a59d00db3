//! What this project writes in one way everywhere, where a machine can tell.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Characters of the longest name of a test, so that a line of `cargo test` fits a terminal.
const LONGEST: usize = 60;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|kind| kind == "rs")).collect()
}

/// The names of the functions below `#[test]`.
fn tests(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let after = text.split("#[test]\n").skip(1);
    let named = after.filter_map(|text| text.split_once("fn ")?.1.split_once('('));
    named.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn test_names_fit_a_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "tests", "pgvector-compat"].map(|folder| sources(&root.join(folder))).concat();
    let names = files.iter().flat_map(|path| tests(path)).collect::<Vec<_>>();
    assert!(names.len() > 800, "{} tests found", names.len());
    let long = names.iter().filter(|name| name.len() > LONGEST).collect::<Vec<_>>();
    assert!(long.is_empty(), "more than {LONGEST} characters: {long:?}");
}

/// The versions that a line `#[cfg(...)]` lets through.
fn versions(cfg: &str) -> Vec<&str> {
    cfg.split('"').filter(|word| word.starts_with("pg")).collect()
}

#[test]
fn what_differs_by_version_is_there_for_each() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let known = known.lines().filter(|line| line.contains("= [\"pg\", \"pgrx/pg")).count();
    let text = fs::read_to_string(root.join("src/pg/raw/version.rs")).unwrap();
    let lines = text.lines().collect::<Vec<_>>();
    let mut items = BTreeMap::<&str, Vec<&str>>::new();
    for pair in lines.windows(2).filter(|pair| pair[0].starts_with("#[cfg(") && pair[1].starts_with("pub ")) {
        let name = pair[1].split(['(', ':']).next().unwrap();
        items.entry(name).or_default().extend(versions(pair[0]));
    }
    assert!(items.len() > 10 && known >= 4, "{} items, {known} versions", items.len());
    for (name, mut built) in items {
        built.sort_unstable();
        built.dedup();
        assert_eq!(built.len(), known, "{name}: {built:?}");
    }
}
