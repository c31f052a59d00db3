//! Who may know whom: core <- keys <- kms <- pg, no circle inside core or between the folders of pg, and raw the ground of
//! pg.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LAYERS: [&str; 4] = ["core", "keys", "kms", "pg"];

/// What PostgreSQL's interface stands on inside `pg`.
const BELOW_RAW: [&str; 2] = ["error", "counters"];

type Graph = BTreeMap<String, BTreeSet<String>>;

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|kind| kind == "rs")).collect()
}

/// The path of a module: `src/pg/session/mod.rs` is `pg::session`.
fn module(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix(root()).unwrap().with_extension("");
    let parts: Vec<String> = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    parts.strip_suffix(&["mod".to_owned()]).map_or(parts.clone(), <[String]>::to_vec)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The text without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()).collect::<Vec<_>>().join(" ")
}

/// Every path in `text` that starts with `start`, groups in braces written out.
fn paths(text: &str, start: &str) -> Vec<String> {
    let is_word = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let places = text.match_indices(start).filter(|(at, _)| !is_word(&text[..*at]));
    places.flat_map(|(at, _)| expanded(&text[at + start.len()..]).0).collect()
}

/// The paths that a text begins with, and how long they are together.
fn expanded(text: &str) -> (Vec<String>, usize) {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let end = text.find(|c| !is_path(c)).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    if !rest.starts_with('{') || !(path.is_empty() || path.ends_with("::")) {
        return (vec![path.to_owned()], end);
    }
    let (mut found, mut at) = (Vec::new(), 1);
    while !rest[at..].starts_with('}') {
        let blank = rest[at..].find(|c: char| c != ' ' && c != ',').unwrap_or(0);
        at += blank;
        if rest[at..].starts_with('}') {
            break;
        }
        let (inner, length) = expanded(&rest[at..]);
        found.extend(inner.into_iter().map(|inner| format!("{path}{inner}")));
        at += length.max(1);
    }
    (found, end + at + 1)
}

/// The modules that a file names, as absolute paths.
fn named(path: &Path) -> BTreeSet<Vec<String>> {
    let (text, own) = (code(path), module(path));
    // `super` of a mod.rs and of a file beside it.
    let above = &own[..own.len() - 1];
    let absolute = paths(&text, "crate::").into_iter().map(|path| joined(&[], &path));
    let relative = paths(&text, "super::").into_iter().map(|path| joined(above, &path));
    absolute.chain(relative).collect()
}

/// `path` as seen from a module, each further `super` one step up.
fn joined(from: &[String], path: &str) -> Vec<String> {
    let mut joined = from.to_vec();
    for part in path.split("::") {
        match part {
            "super" => drop(joined.pop()),
            part => joined.push(part.to_owned()),
        }
    }
    joined
}

/// Does `from` lead back to itself? Then by this way.
fn circle(graph: &Graph, from: &str, way: &mut Vec<String>) -> bool {
    for next in graph.get(from).into_iter().flatten() {
        if way.first() == Some(next) {
            return true;
        }
        if !way.contains(next) {
            way.push(next.clone());
            if circle(graph, next, way) {
                return true;
            }
            way.pop();
        }
    }
    false
}

fn assert_no_circle(graph: &Graph) {
    for start in graph.keys() {
        let mut way = vec![start.clone()];
        assert!(!circle(graph, start, &mut way), "{} knows itself: {}", start, way.join(" -> "));
    }
}

/// Which of the modules directly below `layer` know which others.
fn inside(layer: &str) -> Graph {
    let mut graph = Graph::new();
    for path in files(&root().join(layer)) {
        let own = module(&path);
        let Some(own) = own.get(1) else { continue };
        let others =
            named(&path).into_iter().filter(|named| named.first().is_some_and(|first| first == layer));
        let others = others.filter_map(|named| named.get(1).cloned()).filter(|other| other != own);
        let modules = others.filter(|other| is_module(layer, other));
        graph.entry(own.clone()).or_default().extend(modules);
    }
    graph
}

fn is_module(layer: &str, name: &str) -> bool {
    let path = root().join(layer).join(name);
    path.is_dir() || path.with_extension("rs").exists()
}

#[test]
fn layers_know_only_what_is_below_them() {
    for (height, layer) in LAYERS.iter().enumerate() {
        for path in files(&root().join(layer)) {
            for named in named(&path) {
                let other = LAYERS.iter().position(|layer| named.first().is_some_and(|first| first == layer));
                assert!(
                    other.is_none_or(|other| other <= height),
                    "{} names {}",
                    path.display(),
                    named.join("::")
                );
            }
        }
    }
}

#[test]
fn core_has_no_circle() {
    let graph = inside("core");
    assert!(graph.len() > 10);
    assert_no_circle(&graph);
}

#[test]
fn below_pg_only_the_vector_kernels_are_unsafe() {
    let below = LAYERS[..3].iter().flat_map(|layer| files(&root().join(layer)));
    let unsafe_files =
        below.filter(|path| code(path).contains("unsafe {") || code(path).contains("allow(unsafe_code"));
    assert_eq!(unsafe_files.collect::<Vec<_>>(), [root().join("core/vector/simd.rs")]);
}

#[test]
fn folders_of_pg_have_no_circle() {
    let graph = inside("pg");
    assert!(graph.len() > 5);
    assert_no_circle(&graph);
}

#[test]
fn raw_is_the_ground() {
    let knows = inside("pg")["raw"].clone();
    let above: Vec<_> = knows.iter().filter(|known| !BELOW_RAW.contains(&known.as_str())).collect();
    assert!(above.is_empty(), "raw knows {above:?}");
}

#[test]
fn versions_of_postgresql_differ_in_one_file() {
    let pg = root().join("pg");
    let told_apart = files(&pg).into_iter().filter(|path| code(path).contains("feature = \"pg"));
    assert_eq!(told_apart.collect::<Vec<_>>(), [pg.join("raw/version.rs")]);
}
