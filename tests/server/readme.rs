//! Every SQL block of README.md, through psql as it stands there and through a driver with bind parameters.

use std::error::Error;

use postgres::types::{FromSql, ToSql, Type};
use postgres::{Client, Row};

use crate::support::{AsText, Cluster};

const README: &str = include_str!("../../README.md");
/// Between two blocks in psql's output.
const SEPARATOR: &str = "-- end of a block of README.md";

#[test]
fn every_sql_block_answers_through_psql_as_through_bind_parameters() {
    let blocks = sql_blocks(README);
    assert!(!blocks.is_empty(), "README.md has no sql blocks");
    let printed = through_psql(&blocks);

    let cluster = Cluster::start(&[]);
    let mut client = cluster.connect("postgres");
    let mut bound = Vec::new();
    for (block, printed) in blocks.iter().zip(&printed) {
        let mut rows = Vec::new();
        for statement in statements(block) {
            rows.extend(through_driver(&mut client, &statement, &mut bound));
        }
        assert_eq!(&rows, printed, "rows of the driver and of psql for\n{block}");
    }

    for (what, document) in [
        ("INSERT INTO docs", r#"{"patient_name": "John Smith", "diagnosis": "diabetes", "age": 52}"#),
        ("metadata @> $", r#"{"patient_name": "John Smith"}"#),
        ("pgseal.filter($", r#"{"diagnosis": "asthma"}"#),
        ("pgseal.encrypt($", r#"{"by": "Dr. Kim"}"#),
    ] {
        let found =
            bound.iter().any(|(sql, values)| sql.contains(what) && values.iter().any(|v| v == document));
        assert!(found, "no statement with {what} had {document} as a bind parameter");
    }
}

/// The rows that psql prints for each block; one session, stopped by the first error.
fn through_psql(blocks: &[&str]) -> Vec<Vec<String>> {
    let script: String = blocks.iter().map(|block| format!("{block}\\echo '{SEPARATOR}'\n")).collect();
    let cluster = Cluster::start(&[]);
    let output = cluster.psql("postgres", &["-A", "-t"], &script);
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);

    let mut outputs: Vec<&str> = printed.split(&format!("{SEPARATOR}\n")).collect();
    let rest = outputs.pop();
    let failed = blocks.get(outputs.len()).copied().unwrap_or_default();
    assert!(output.status.success(), "psql: {errors}in the block\n{failed}");
    assert_eq!((outputs.len(), rest), (blocks.len(), Some("")), "psql: {errors}");
    let mut rows = Vec::new();
    for (block, output) in blocks.iter().zip(outputs) {
        // psql prints one line for each row: README shows no value with a line break.
        rows.push(output.lines().map(|line| comparable(block, line)).collect());
    }
    rows
}

/// The rows of one statement, every text literal of which is a bind parameter where it can be one.
fn through_driver(client: &mut Client, sql: &str, bound: &mut Vec<(String, Vec<String>)>) -> Vec<String> {
    let (text, literals) = match takes_parameters(sql) {
        true => bind_literals(sql),
        false => (sql.to_owned(), Vec::new()),
    };
    let parameters: Vec<AsText<'_>> = literals.iter().map(|literal| AsText(literal)).collect();
    let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
    let rows = client.query(&text, &parameters).unwrap_or_else(|error| panic!("{error:?} in\n{text}"));
    bound.push((text, literals));
    rows.iter().map(|row| comparable(sql, &shown(row))).collect()
}

/// What two fresh databases have in common of a row: no ciphertext, and no random number of a keyring.
fn comparable(sql: &str, row: &str) -> String {
    if sql.contains("create_keyring(") && row.bytes().all(|byte| byte.is_ascii_digit()) && row.len() > 4 {
        return "a keyring's number".into();
    }
    let fields = row.split('|').map(|field| if field.starts_with("pgseal:") { "ciphertext" } else { field });
    fields.collect::<Vec<_>>().join("|")
}

/// The blocks fenced as sql.
fn sql_blocks(markdown: &str) -> Vec<&str> {
    let fenced = markdown.split("\n```sql\n").skip(1);
    fenced.map(|rest| &rest[..rest.find("\n```").expect("an end of the block") + 1]).collect()
}

/// The statements of a block: cut at semicolons outside of quotes, without comments.
fn statements(block: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    for (token, quoted) in tokens(block) {
        if !quoted && token == ";" {
            statements.push(String::new());
        } else if quoted || !token.starts_with("--") {
            statements.last_mut().unwrap().push_str(token);
        }
    }
    let statements = statements.iter().map(|statement| statement.trim().to_owned());
    statements.filter(|statement| !statement.is_empty()).collect()
}

/// Text literals (true), comments, and single characters of all else.
fn tokens(sql: &str) -> Vec<(&str, bool)> {
    assert!(
        !sql.contains("$$") && !sql.contains("E'") && !sql.contains("/*"),
        "more SQL than this test can read"
    );
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let quoted = first == '\'';
        let length = match first {
            '\'' => 2 + rest[1..].find('\'').expect("an end of the literal"),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, tail) = rest.split_at(length);
        assert!(!(quoted && tail.starts_with('\'')), "a quote in a literal: more than this test can read");
        tokens.push((token, quoted));
        rest = tail;
    }
    tokens
}

/// PostgreSQL takes parameters in these statements only.
fn takes_parameters(sql: &str) -> bool {
    ["SELECT", "INSERT", "UPDATE", "DELETE", "CALL"].iter().any(|word| sql.starts_with(word))
}

/// The statement with `$1`, `$2` and so on in place of its text literals, and those.
fn bind_literals(sql: &str) -> (String, Vec<String>) {
    let mut text = String::new();
    let mut literals = Vec::new();
    for (token, quoted) in tokens(sql) {
        if quoted {
            literals.push(token[1..token.len() - 1].to_owned());
            text += &format!("${}", literals.len());
        } else {
            text += token;
        }
    }
    (text, literals)
}

/// A row as psql prints it with `-A -t`.
fn shown(row: &Row) -> String {
    let values =
        (0..row.len()).map(|column| row.get::<_, Option<Shown>>(column).map_or(String::new(), |v| v.0));
    values.collect::<Vec<_>>().join("|")
}

/// A value of one of the types that README shows, as text.
struct Shown(String);

impl<'a> FromSql<'a> for Shown {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Shown(match *ty {
            Type::BOOL => if bool::from_sql(ty, raw)? { "t" } else { "f" }.into(),
            Type::INT4 => i32::from_sql(ty, raw)?.to_string(),
            Type::INT8 => i64::from_sql(ty, raw)?.to_string(),
            Type::FLOAT8 => f64::from_sql(ty, raw)?.to_string(),
            Type::TEXT | Type::NAME => String::from_sql(ty, raw)?,
            // After the number of the format; serde_json would sort the keys anew.
            Type::JSONB => std::str::from_utf8(&raw[1..])?.into(),
            Type::VOID => String::new(),
            _ if ty.name().starts_with("encrypted_") => "pgseal:".into(),
            _ => return Err(format!("README.md shows a {ty}, which this test cannot read").into()),
        }))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
