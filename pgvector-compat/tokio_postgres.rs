//! tokio-postgres on plain and on encrypted columns: it sends every parameter in binary form, as the type that it was told.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{Client, Error, NoTls, Row};

use crate::support::{Cluster, Sql};

type Answer = Result<String, Error>;
type Case = (&'static str, fn(Arc<Client>) -> Pin<Box<dyn Future<Output = Answer>>>);

const TABLE: &str = "CREATE TABLE docs (id int PRIMARY KEY, body TEXT, metadata JSON)";

/// Documents, texts, numbers and lists as what the driver has told them to be.
fn shown(rows: &[Row]) -> String {
    let cell = |row: &Row, at: usize| {
        let of = row.columns()[at].type_().clone();
        let value = match of {
            Type::INT4 => format!("{:?}", row.get::<_, Option<i32>>(at)),
            Type::INT8 => format!("{:?}", row.get::<_, Option<i64>>(at)),
            Type::BOOL => format!("{:?}", row.get::<_, Option<bool>>(at)),
            Type::JSONB => format!("{:?}", row.get::<_, Option<Value>>(at)),
            Type::TEXT_ARRAY => format!("{:?}", row.get::<_, Option<Vec<String>>>(at)),
            Type::JSONB_ARRAY => format!("{:?}", row.get::<_, Option<Vec<Value>>>(at)),
            _ => format!("{:?}", row.get::<_, Option<String>>(at)),
        };
        format!("{of}: {value}")
    };
    let rows = rows.iter().map(|row| (0..row.len()).map(|at| cell(row, at)).collect::<Vec<_>>().join(", "));
    rows.collect::<Vec<_>>().join("\n")
}

async fn asked(client: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Answer {
    let statement = client.prepare(sql).await?;
    let described: Vec<&str> = statement.params().iter().map(Type::name).collect();
    let mut answers = Vec::new();
    // Planned for its parameters at first, then once for all.
    for _ in 0..7 {
        answers.push(shown(&client.query(&statement, parameters).await?));
    }
    answers.dedup();
    Ok(format!("{described:?}\n{}", answers.join("\nthen\n")))
}

/// A case that asks one question; what it writes is undone.
macro_rules! question {
    ($name:literal, $sql:literal $(, $parameter:expr)* $(,)?) => {
        ($name, |client| {
            Box::pin(async move {
                client.batch_execute("BEGIN").await?;
                let answer = asked(&client, $sql, &[$(&$parameter as &(dyn ToSql + Sync)),*]).await;
                client.batch_execute("ROLLBACK").await?;
                answer
            })
        })
    };
}

const CASES: &[Case] = &[
    question!("all", "SELECT * FROM docs ORDER BY id"),
    question!("body", "SELECT id, metadata FROM docs WHERE body = $1", "Asthma"),
    question!("body_first", "SELECT id FROM docs WHERE $1 = body", "Asthma".to_owned()),
    question!("differs", "SELECT id FROM docs WHERE body <> $1 ORDER BY id", "Asthma"),
    question!("null", "SELECT id FROM docs WHERE body IS NOT DISTINCT FROM $1", None::<String>),
    question!("like", "SELECT id FROM docs WHERE body ILIKE $1", "%PAIN%"),
    question!("less", "SELECT id FROM docs WHERE body < $1 ORDER BY id", "B"),
    question!("between", "SELECT id FROM docs WHERE body BETWEEN $1 AND $2 ORDER BY id", "A", "B"),
    question!("in", "SELECT id FROM docs WHERE body IN ($1, $2) ORDER BY id", "Asthma", "x"),
    question!("any", "SELECT id FROM docs WHERE body = ANY($1) ORDER BY id", vec!["Asthma", "x"]),
    question!("none", "SELECT id FROM docs WHERE body <> ALL($1) ORDER BY id", vec!["Asthma", "x"]),
    question!("contains", "SELECT id FROM docs WHERE metadata @> $1", json!({"p": "John Smith"})),
    question!("contained", "SELECT id FROM docs WHERE metadata <@ $1", json!({"p": "Mary Jones", "age": 34})),
    question!("equals", "SELECT id FROM docs WHERE metadata = $1", json!({"p": "Mary Jones", "age": 34})),
    question!("struct", "SELECT id FROM docs WHERE metadata @> $1", Json(vec![("p", 1)])),
    question!("key", "SELECT id FROM docs WHERE metadata ->> 'p' = $1", "John Smith"),
    question!("key_parameter", "SELECT id FROM docs WHERE metadata ->> $1 = $2", "p", "John Smith"),
    question!("item", "SELECT id FROM docs WHERE metadata -> 'age' = $1", json!(52)),
    question!("path", "SELECT id FROM docs WHERE metadata #>> $1 = $2", vec!["n", "c"], "Oslo"),
    question!("exists", "SELECT id FROM docs WHERE metadata ? $1 ORDER BY id", "age"),
    question!("number", "SELECT id FROM docs WHERE (metadata ->> 'age')::int > $1", 40),
    question!(
        "coalesce",
        "SELECT coalesce(body, $1), coalesce(metadata, $2) FROM docs ORDER BY id",
        "-",
        json!({})
    ),
    question!("case", "SELECT CASE WHEN id = $1 THEN $2 ELSE body END FROM docs ORDER BY id", 1, "x"),
    question!("union", "SELECT body FROM docs UNION SELECT $1 ORDER BY 1", "x"),
    question!("greatest", "SELECT greatest(body, $1) FROM docs ORDER BY id", "B"),
    question!("concatenation", "SELECT body || $1, $1 || body FROM docs ORDER BY id", "!"),
    question!(
        "function",
        "SELECT replace(body, $1, $2), jsonb_set(metadata, $3, $4) FROM docs ORDER BY id",
        "a",
        "b",
        vec!["p"],
        json!(1)
    ),
    question!(
        "arrays",
        "SELECT array_agg(body ORDER BY id), array_agg(metadata ORDER BY id) FROM docs WHERE id < 3"
    ),
    question!("groups", "SELECT metadata ->> 'p', count(*), max(body) FROM docs GROUP BY 1 ORDER BY 1"),
    question!(
        "insert",
        "INSERT INTO docs SELECT max(id) + 1, $1, $2 FROM docs RETURNING body, metadata",
        "new",
        json!({"a": 1})
    ),
    question!(
        "upsert",
        "INSERT INTO docs (id, body, metadata) VALUES (1, $1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body, metadata = $2 RETURNING *",
        "new",
        json!({})
    ),
    question!(
        "update",
        "UPDATE docs SET body = $1, metadata = $2 WHERE id = 1 RETURNING *",
        "x",
        json!([1, null])
    ),
    question!(
        "update_null",
        "UPDATE docs SET body = $1, metadata = $2 WHERE id = 1 RETURNING *",
        None::<&str>,
        None::<Value>
    ),
    question!(
        "update_item",
        "UPDATE docs SET metadata['a'] = $1 WHERE id < 3 RETURNING metadata",
        json!({"b": 1})
    ),
    question!(
        "concatenate",
        "UPDATE docs SET metadata = metadata || $1 WHERE id = 1 RETURNING metadata",
        json!({"a": 1})
    ),
    question!("delete", "DELETE FROM docs WHERE metadata ->> 'p' = $1 RETURNING body", "John Smith"),
    ("copy", |client| Box::pin(copy(client))),
    ("pipeline", |client| Box::pin(pipeline(client))),
    ("portal", |client| Box::pin(portal(client))),
];

/// Binary COPY, which the driver's documentation recommends for many rows.
async fn copy(client: Arc<Client>) -> Answer {
    client.batch_execute("BEGIN").await?;
    let sink = client.copy_in("COPY docs (id, body, metadata) FROM STDIN (FORMAT binary)").await?;
    let writer = BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT, Type::JSONB]);
    let mut writer = std::pin::pin!(writer);
    for id in 10..13 {
        writer.as_mut().write(&[&id, &format!("copied {id}"), &json!({"id": id})]).await?;
    }
    let count = writer.finish().await?;
    let rows = client.query("SELECT id, body, metadata FROM docs WHERE id > 9 ORDER BY id", &[]).await?;
    client.batch_execute("ROLLBACK").await?;
    Ok(format!("{count}\n{}", shown(&rows)))
}

/// Statements that are sent before the answers to others have come.
async fn pipeline(client: Arc<Client>) -> Answer {
    let mut tasks = Vec::new();
    for id in 1..4 {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            client.query("SELECT body, metadata ->> 'p' FROM docs WHERE id = $1", &[&id]).await
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(shown(&task.await.expect("it does not panic")?));
    }
    Ok(answers.join("\n"))
}

/// Rows that are fetched a few at a time.
async fn portal(client: Arc<Client>) -> Answer {
    client.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT body, metadata FROM docs ORDER BY id").await?;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(shown(&client.query("FETCH 1 FROM c", &[]).await?));
    }
    client.batch_execute("COMMIT").await?;
    Ok(answers.join("\n"))
}

async fn connected(cluster: &Cluster, types: [&str; 2]) -> Arc<Client> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(cluster.socket_dir()).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let table = TABLE.replace("TEXT", types[0]).replace("JSON", types[1]);
    let schema = types[1].split('_').next().expect("a word");
    let rows = r#"INSERT INTO docs VALUES (1, 'Chest pain.', '{"p": "John Smith", "age": 52, "n": {"c": "Oslo"}}'),
                      (2, 'Asthma', '{"p": "Mary Jones", "age": 34}'), (3, NULL, NULL)"#;
    let setup = format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public; {table}; {rows}");
    client.batch_execute(&setup).await.expect("tables");
    Arc::new(client)
}

#[test]
fn tokio_postgres_answers_as_on_plain_columns() {
    let cluster = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
    cluster.connect("postgres").run("SELECT pgseal.create_keyring('clients', '{$.p, $}')");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let wrong = runtime.block_on(async {
        let plain = connected(&cluster, ["text", "jsonb"]).await;
        let encrypted = connected(&cluster, ["encrypted_text(clients)", "encrypted_jsonb(clients)"]).await;
        encrypted.batch_execute("SET pgseal.reveal = on").await.expect("the setting");
        let mut wrong = Vec::new();
        for (name, case) in CASES {
            let expected = case(plain.clone()).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            match case(encrypted.clone()).await {
                Ok(answer) if answer == expected => (),
                other => wrong.push(format!("{name}: {other:?}, not {expected}")),
            }
        }
        wrong
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
