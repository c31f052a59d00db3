//! The same statements on plain and on encrypted columns of one server, with reveal on: `battery/statements.txt`.

use std::collections::BTreeMap;
use std::path::Path;

use postgres::error::SqlState;
use postgres::{Client, Error, SimpleQueryMessage};

use crate::support::{Cluster, Sql};

const TABLES: &str = include_str!("battery/tables.sql");

/// A line of the file: what is known of it, the statement, and what stands for `$1` and so on.
struct Line<'a> {
    known: &'a str,
    sql: &'a str,
    arguments: Option<&'a str>,
}

impl Line<'_> {
    fn read(line: &str) -> Line<'_> {
        let (known, rest) = line.split_once(' ').expect("a word and a statement");
        let (sql, arguments) = match rest.split_once(" <- ") {
            Some((sql, arguments)) => (sql, Some(arguments)),
            None => (rest, None),
        };
        Line { known, sql, arguments }
    }

    /// Does it end with an ORDER BY of its own?
    fn is_ordered(&self) -> bool {
        let last = self.sql.rsplit_once("ORDER BY").map_or(")", |(_, last)| last);
        last.matches('(').count() == last.matches(')').count()
    }
}

/// Types of parameters and columns, and rows as text.
#[derive(PartialEq)]
struct Answer {
    types: [Vec<String>; 2],
    rows: Vec<Vec<Option<String>>>,
}

/// Sessions whose tables are those of `battery/tables.sql`, plain and encrypted, each in a schema of its own.
struct Twins {
    plain: Client,
    encrypted: Client,
    _cluster: Cluster,
}

impl Twins {
    fn start() -> Twins {
        let cluster = Cluster::start(&["session_preload_libraries = 'pgseal'"]);
        cluster.connect("postgres").run(
            "CREATE EXTENSION pgseal CASCADE;
            SELECT pgseal.create_keyring('battery', '{$.**, $}')",
        );
        let session = |schema: &str, types: [&str; 3]| {
            let tables = ["JSON", "WORDS", "EMBEDDING"].iter().zip(types);
            let tables = tables.fold(TABLES.to_owned(), |text, (name, kind)| {
                text.replace(&format!(" {name},"), &format!(" {kind},"))
                    .replace(&format!(" {name})"), &format!(" {kind})"))
            });
            let mut client = cluster.connect("postgres");
            client.run(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public"));
            client.run(&tables);
            client.run("SET pgseal.reveal = on");
            client
        };
        let plain = session("plain", ["jsonb", "text", "vector(3)"]);
        let sealed = ["encrypted_jsonb(battery)", "encrypted_text(battery)", "encrypted_vector(battery, 3)"];
        Twins { plain, encrypted: session("encrypted", sealed), _cluster: cluster }
    }

    /// The word that `line` deserves, and why.
    fn compare(&mut self, line: &Line) -> (&'static str, String) {
        let plain = match answer(&mut self.plain, line) {
            Ok(answer) => answer,
            Err(error) => return ("wrong", format!("on plain columns: {error:?}")),
        };
        match answer(&mut self.encrypted, line) {
            Ok(answer) if answer == plain => ("same", String::new()),
            Ok(answer) if answer.rows == plain.rows => {
                ("typed", format!("{:?}, not {:?}", answer.types, plain.types))
            }
            Ok(answer) => ("silent", format!("{:.300?}, not {:.300?}", answer.rows, plain.rows)),
            Err(error) => {
                let error = error.as_db_error().unwrap_or_else(|| panic!("{}: {error:?}", line.sql));
                assert_ne!(error.code(), &SqlState::INTERNAL_ERROR, "{}: {error}", line.sql);
                ("refused", format!("{}: {}", error.code().code(), error.message()))
            }
        }
    }
}

/// What `line` answers; it changes nothing.
fn answer(client: &mut Client, line: &Line) -> Result<Answer, Error> {
    client.run("BEGIN");
    let answer = answer_in_transaction(client, line);
    client.run("ROLLBACK");
    // It outlives the transaction, if there ever was one.
    let _ = client.batch_execute("DEALLOCATE line");
    answer
}

fn answer_in_transaction(client: &mut Client, line: &Line) -> Result<Answer, Error> {
    let described = client.prepare(line.sql)?;
    let parameters = described.params().iter().map(|kind| kind.name().to_owned()).collect();
    let columns = described.columns().iter().map(|column| column.type_().name().to_owned()).collect();
    let messages = match line.arguments {
        Some(arguments) => {
            client.batch_execute(&format!("PREPARE line AS {}", line.sql))?;
            client.simple_query(&format!("EXECUTE line ({arguments})"))?
        }
        None => client.simple_query(line.sql)?,
    };
    let mut rows = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect());
            }
            SimpleQueryMessage::CommandComplete(count) => rows.push(vec![Some(count.to_string())]),
            _ => (),
        }
    }
    if !line.is_ordered() {
        rows.sort();
    }
    Ok(Answer { types: [parameters, columns], rows })
}

/// With PGSEAL_BATTERY=write the words of the file are corrected instead; PGSEAL_BATTERY=show tells why each differs.
#[test]
fn statements_answer_on_encrypted_columns_as_on_plain_ones() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pgvector-compat/battery/statements.txt");
    let text = std::fs::read_to_string(&path).expect("the statements");
    let mode = std::env::var("PGSEAL_BATTERY").unwrap_or_default();
    let mut twins = Twins::start();
    let (mut corrected, mut changed) = (String::new(), Vec::new());
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            corrected += &format!("{line}\n");
            continue;
        }
        let line_read = Line::read(line);
        let (seen, why) = twins.compare(&line_read);
        corrected += &format!("{seen}{}\n", &line[line_read.known.len()..]);
        *counts.entry(seen).or_insert(0) += 1;
        if seen != line_read.known {
            changed.push(format!("now {seen}: {line}  ({why})"));
        }
        if mode == "show" && seen != "same" {
            eprintln!("{seen} {}  ({why})", line_read.sql);
        }
    }
    eprintln!("{counts:?}");
    if mode == "write" {
        std::fs::write(&path, corrected).expect("the statements");
        return;
    }
    assert_eq!(counts.get("silent"), None, "{}", changed.join("\n"));
    assert!(changed.is_empty(), "change the first words of these lines:\n{}", changed.join("\n"));
}
