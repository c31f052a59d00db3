//! Every SQL block of README.md and of the chapters, through psql as it stands there and through a driver with bind
//! parameters. A chapter goes on from the README: its database is a copy of the one that the README leaves.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

use postgres::types::{FromSql, ToSql, Type};
use postgres::{Client, Row};

use crate::support::{AsText, Cluster, Sql, fresh_database};

/// Below the root of the repository; the README comes first.
const FILES: [&str; 23] = [
    "README.md",
    "src/kms/README.md",
    "sql/README.md",
    "sql/values.md",
    "sql/searching.md",
    "sql/vectors.md",
    "sql/rotation.md",
    "sql/migration.md",
    "sql/protect.md",
    "sql/privileges.md",
    "sql/backup.md",
    "sql/proof.md",
    "sql/operating.md",
    "sql/reference.md",
    "pgvector-compat/README.md",
    "pgvector-compat/python/README.md",
    "tests/README.md",
    "tests/bench/README.md",
    "tests/packages/README.md",
    "tests/runbooks/README.md",
    "tests/upgrade/README.md",
    "SECURITY.md",
    "CHANGELOG.md",
];
/// What the README's own postgresql.conf says besides the endpoint, which every [`Cluster`] has.
const CONF: &str = "session_preload_libraries = 'pgseal'";
/// Between two blocks in psql's output.
const SEPARATOR: &str = "-- end of a block";

#[test]
fn sql_blocks_answer_through_psql_as_with_bind_parameters() {
    let texts = FILES.map(read);
    assert!(texts[0].contains(CONF), "README.md configures another server than this one");
    let (printing, driving) = (Cluster::start(&[CONF]), Cluster::start(&[CONF]));
    let mut bound = Vec::new();
    for (number, (file, text)) in FILES.iter().zip(&texts).enumerate() {
        let blocks = sql_blocks(text);
        assert!(number > 0 || !blocks.is_empty(), "README.md has no sql blocks");
        if blocks.is_empty() {
            continue;
        }
        let database = match number {
            0 => "readme".to_owned(),
            _ => format!("chapter_{number}"),
        };
        let template = if number == 0 { "template0" } else { "readme" };
        for cluster in [&printing, &driving] {
            cluster.connect("postgres").run(&format!("CREATE DATABASE {database} TEMPLATE {template}"));
        }
        let printed = through_psql(&printing, &database, file, &blocks);
        let mut client = driving.connect(&database);
        for (block, printed) in blocks.iter().zip(&printed) {
            let mut rows = Vec::new();
            for statement in statements(block) {
                rows.extend(through_driver(&mut client, file, &statement, &mut bound));
            }
            assert_eq!(&rows, printed, "{file}: rows of the driver and of psql for\n{block}");
        }
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

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let wrong: Vec<String> = FILES.iter().flat_map(|file| broken_links(file)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reference_names_every_function_view_and_setting() {
    let mut client = fresh_database();
    client.run("LOAD 'pgseal'");
    let named: Vec<String> = client.column(
        "SELECT p.proname::text FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
           JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'pgseal'
          WHERE obj_description(p.oid, 'pg_proc') !~ '^(internal|implementation|planner support|refuses|explicit cast|assignment cast|GIN|I/O|ANALYZE|seal a literal|as for|index access method|sealed_ivf support)'
          UNION SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'pgseal'::regnamespace AND c.relkind = 'v'
            AND obj_description(c.oid, 'pg_class') NOT LIKE 'internal%'
          UNION SELECT s.name FROM pg_settings s WHERE s.name LIKE 'pgseal.%' AND s.name <> 'pgseal.kms_token_given'",
    );
    let text = read("sql/reference.md");
    let words: BTreeSet<&str> =
        text.split(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c))).collect();
    let missing: Vec<&String> = named.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert!(named.len() > 50 && missing.is_empty(), "sql/reference.md lacks {missing:?} of {}", named.len());
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Links of a file that lead nowhere: to another place of the repository, or a heading of a Markdown file.
fn broken_links(file: &str) -> Vec<String> {
    let text = read(file);
    let folder = Path::new(file).parent().expect("a folder");
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
    let mut wrong = Vec::new();
    for link in links.filter(|link| !link.contains("://")) {
        let (path, heading) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() { file.into() } else { folder.join(path) };
        let found = Path::new(env!("CARGO_MANIFEST_DIR")).join(&target);
        let leads = match heading {
            "" => found.exists(),
            _ => std::fs::read_to_string(found).is_ok_and(|text| anchors(&text).contains(heading)),
        };
        if !leads {
            wrong.push(format!("{file}: {link}"));
        }
    }
    wrong
}

/// The headings of a Markdown file as GitHub makes anchors of them.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let outside_fences = markdown.split("\n```").step_by(2);
    let headings =
        outside_fences.flat_map(str::lines).filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    let kept = |heading: &str| {
        heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect::<String>()
    };
    headings.map(|heading| kept(heading.trim()).replace(' ', "-")).collect()
}

/// The rows that psql prints for each block; one session, stopped by the first error.
fn through_psql(cluster: &Cluster, database: &str, file: &str, blocks: &[&str]) -> Vec<Vec<String>> {
    let script: String = blocks.iter().map(|block| format!("{block}\\echo '{SEPARATOR}'\n")).collect();
    let output = cluster.psql(database, &["-A", "-t"], &script);
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);

    let mut outputs: Vec<&str> = printed.split(&format!("{SEPARATOR}\n")).collect();
    let rest = outputs.pop();
    let failed = blocks.get(outputs.len()).copied().unwrap_or_default();
    assert!(output.status.success(), "{file}: psql: {errors}in the block\n{failed}");
    assert_eq!((outputs.len(), rest), (blocks.len(), Some("")), "{file}: psql: {errors}");
    let mut rows = Vec::new();
    for (block, output) in blocks.iter().zip(outputs) {
        // psql prints one line for each row: no chapter shows a value with a line break.
        rows.push(output.lines().map(|line| comparable(block, line)).collect());
    }
    rows
}

/// The rows of one statement, every text literal of which is a bind parameter where it can be one.
fn through_driver(
    client: &mut Client,
    file: &str,
    sql: &str,
    bound: &mut Vec<(String, Vec<String>)>,
) -> Vec<String> {
    let (text, literals) =
        if takes_parameters(sql) { bind_literals(sql) } else { (sql.to_owned(), Vec::new()) };
    let parameters: Vec<AsText<'_>> = literals.iter().map(|literal| AsText(literal)).collect();
    let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
    let rows =
        client.query(&text, &parameters).unwrap_or_else(|error| panic!("{file}: {error:?} in\n{text}"));
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

fn listed(numbers: Vec<f32>) -> String {
    numbers.iter().map(f32::to_string).collect::<Vec<_>>().join(",")
}

/// A value of one of the types that the chapters show, as text.
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
            Type::FLOAT4_ARRAY => format!("{{{}}}", listed(Vec::<f32>::from_sql(ty, raw)?)),
            // Behind the number of dimensions.
            _ if ty.name() == "vector" => {
                let elements = raw[4..].chunks_exact(4).map(|element| f32::from_sql(&Type::FLOAT4, element));
                format!("[{}]", listed(elements.collect::<Result<_, _>>()?))
            }
            _ if ty.name().starts_with("encrypted_") => "pgseal:".into(),
            _ => return Err(format!("a chapter shows a {ty}, which this test cannot read").into()),
        }))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
