//! How the fragments in sql/ are written: each object with its COMMENT below it, no routine longer than a screen.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;

/// Lines of the longest routine in PL/pgSQL.
const SCREEN: usize = 60;

/// Kinds that belong to a table, which has a comment.
const WITHOUT_COMMENT: [&str; 3] = ["TRIGGER", "INDEX", "UNIQUE"];

/// The file and the statements of each fragment; the update steps are made of the same.
fn fragments() -> Vec<(String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let fragments = names.filter(|name| name.ends_with(".sql") && !name.contains("--"));
    fragments
        .map(|name| (name.clone(), statements(&fs::read_to_string(folder.join(&name)).unwrap())))
        .collect()
}

/// Each from a first word at the start of a line to the next; bodies are indented, but for the words of blocks.
fn statements(text: &str) -> Vec<String> {
    let mut statements = Vec::<String>::new();
    for line in text.lines().filter(|line| !line.starts_with("--")) {
        let word = line.split(' ').next().unwrap_or_default();
        let starts = ["CREATE", "COMMENT", "DO", "GRANT", "SELECT", "SET"].contains(&word);
        match statements.last_mut() {
            Some(statement) if !starts => *statement = format!("{statement}\n{line}"),
            _ => statements.push(line.to_owned()),
        }
    }
    statements
}

/// What a CREATE makes, or a COMMENT is on: kind and name, without the arguments.
fn object(statement: &str) -> String {
    let object = statement.trim_start_matches("CREATE ").trim_start_matches("COMMENT ON ");
    let words: Vec<&str> = object.split([' ', '\n']).collect();
    let named = if words[..2] == ["OPERATOR", "CLASS"] { 3 } else { 2 };
    let name = words[..named].join(" ");
    name.split('(').next().unwrap().trim_end_matches(';').to_owned()
}

/// Objects that no COMMENT stands directly below.
fn uncommented(statements: &[String]) -> Vec<String> {
    let is_commented = |at: usize| {
        let next = statements.get(at + 1).filter(|next| next.starts_with("COMMENT ON "));
        next.is_some_and(|next| object(next) == object(&statements[at]))
    };
    let is_shell = |statement: &str| statement.starts_with("CREATE TYPE ") && !statement.contains('(');
    let needs_one = |statement: &str| {
        let kind = statement.strip_prefix("CREATE ").and_then(|made| made.split(' ').next());
        kind.is_some_and(|kind| !WITHOUT_COMMENT.contains(&kind)) && !is_shell(statement)
    };
    let without = (0..statements.len()).filter(|at| needs_one(&statements[*at]) && !is_commented(*at));
    without.map(|at| object(&statements[at])).collect()
}

#[test]
fn object_has_its_comment_below_it() {
    for (file, statements) in fragments() {
        assert_eq!(uncommented(&statements), [""; 0], "{file}");
    }
}

#[test]
fn object_without_comment_is_found() {
    let found = |text: &str| uncommented(&statements(text));
    let (f, g) =
        ("CREATE FUNCTION s.f(int4) RETURNS int4\n    LANGUAGE sql;\n", "CREATE VIEW s.g AS\n    TABLE t;\n");
    let (on_f, on_g) = ("COMMENT ON FUNCTION s.f(int4) IS 'f';\n", "COMMENT ON VIEW s.g IS 'g';\n");
    assert_eq!(found(&[f, on_f, g, on_g].concat()), [""; 0]);
    assert_eq!(found(&[f, g, on_f, on_g].concat()), ["FUNCTION s.f", "VIEW s.g"]);
    assert_eq!(found(&[f, on_f, g].concat()), ["VIEW s.g"]);
}

#[test]
fn routine_fits_on_a_screen() {
    for (file, statements) in fragments() {
        let long = statements.iter().filter(|statement| {
            let lines = statement.trim_end().lines().count();
            statement.contains("LANGUAGE plpgsql") && statement.starts_with("CREATE") && lines > SCREEN
        });
        let long: Vec<String> = long.map(|statement| object(statement)).collect();
        assert_eq!(long, [""; 0], "{file}");
    }
}
