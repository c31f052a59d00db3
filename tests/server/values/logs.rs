//! What PostgreSQL's own errors about a COPY say: never a part of the line that was to be encrypted.

use std::io::Write;

use postgres::Client;
use postgres::error::DbError;

use crate::support::{Cluster, Sql};

/// What no log and no error may show.
const CANARY: &str = "Ottilie";

const COLUMNS: &str = "id int PRIMARY KEY CHECK (id < 100), m encrypted_jsonb(k) NOT NULL, other int REFERENCES others DEFERRABLE, city varchar(30)";

/// A cluster with keyring `k`, and its client.
fn site() -> (Cluster, Client) {
    let cluster = Cluster::with_pgseal(&["session_preload_libraries = 'pgseal'"]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k'); CREATE TABLE others (id int PRIMARY KEY)");
    (cluster, client)
}

fn copy(client: &mut Client, sql: &str, input: &[u8]) -> Result<u64, postgres::Error> {
    let mut writer = client.copy_in(sql)?;
    // The server may have refused by now; `finish` tells how.
    let _ = writer.write_all(input);
    writer.finish()
}

fn refused(client: &mut Client, sql: &str, input: &[u8]) -> DbError {
    let error = copy(client, sql, input).err().unwrap_or_else(|| panic!("{sql}: loaded"));
    error.as_db_error().cloned().unwrap_or_else(|| panic!("{sql}: {error:?}"))
}

/// Rows that do not fit `e`, with what they violate; `;` is the delimiter, which no document here has.
const LINES: [(&str, &str); 12] = [
    ("a column too many", r#"1;{"n":"Ottilie"};;Ulm;x"#),
    ("a column too few", r#"1;{"n":"Ottilie"}"#),
    ("another column's value", r#"x;{"n":"Ottilie"};;Ulm"#),
    ("columns out of order", r#"{"n":"Ottilie"};1;;Ulm"#),
    ("a later column's value", r#"1;{"n":"Ottilie"};x;Ulm"#),
    ("too long a value", r#"1;{"n":"Ottilie"};;Ottilie Ottilie Ottilie Ottilie Ottilie"#),
    ("not null", r#";{"n":"Ottilie"};;Ulm"#),
    ("a check", r#"100;{"n":"Ottilie"};;Ulm"#),
    ("a unique index", r#"50;{"n":"Ottilie"};;Ulm"#),
    ("a foreign key", r#"1;{"n":"Ottilie"};7;Ulm"#),
    ("a trigger", r#"13;{"n":"Ottilie"};;Ulm"#),
    ("no document", r#"1;{"n":Ottilie};;Ulm"#),
];

fn fill(client: &mut Client, table: &str) {
    client.run(&format!("CREATE TABLE {table} ({COLUMNS})"));
    client.run(&format!(r#"INSERT INTO {table} VALUES (50, '{{}}'::jsonb)"#));
    client.run(&format!(
        "CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
            IF NEW.id = 13 THEN RAISE EXCEPTION ''refused %'', NEW.id; END IF; RETURN NEW; END';
         CREATE TRIGGER t BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_{table}()"
    ));
}

#[test]
fn a_line_that_does_not_fit_is_in_no_error_and_no_log() {
    let (cluster, mut client) = site();
    fill(&mut client, "e");
    for format in ["text", "csv"] {
        for (what, line) in LINES {
            // As the first line, and after one that has been loaded.
            for before in ["", "2;{};;Ulm\n"] {
                let sql =
                    format!("COPY e FROM stdin (FORMAT {format}, DELIMITER ';', NULL '' {})", quote(format));
                let error = refused(&mut client, &sql, format!("{before}{line}\n").as_bytes());
                assert!(!format!("{error:?}").contains(CANARY), "{what}, {format}: {error:?}");
            }
        }
    }
    let log = cluster.log();
    assert!(!log.contains(CANARY), "{log}");
    for kept in ["CONTEXT:  COPY e, line 1\n", "CONTEXT:  COPY e, line 2\n", "COPY e, line 1, column id\n"] {
        assert!(log.contains(kept), "{kept}: {log}");
    }
    assert!(log.contains("refused 13"), "what a trigger says stays: {log}");
}

/// CSV's quotation mark, which documents have too.
fn quote(format: &str) -> &'static str {
    if format == "csv" { ", QUOTE '#', ESCAPE '#'" } else { "" }
}

#[test]
fn a_plain_tables_line_still_shows() {
    let (cluster, mut client) = site();
    client.run("CREATE TABLE plain (id int, m jsonb)");
    let error = refused(&mut client, "COPY plain FROM stdin", b"1\t{\"n\":\"Ottilie\"}\tx\n");
    assert!(error.where_().unwrap().contains(CANARY), "{error:?}");
    assert!(cluster.log().contains(CANARY));
}

#[test]
fn an_error_of_a_copy_keeps_all_its_fields() {
    let (_cluster, mut client) = site();
    fill(&mut client, "e");
    let error = refused(&mut client, "COPY e FROM stdin (NULL '')", b"50\t{}\t\tUlm\n");
    assert_eq!((error.code().code(), error.constraint()), ("23505", Some("e_pkey")));
    assert_eq!((error.schema(), error.table()), (Some("public"), Some("e")));
    assert_eq!(error.where_(), Some("COPY e, line 1"));
    assert_eq!(error.detail(), Some("Key (id)=(50) already exists."));
    // The session goes on, and neither an error nor a COPY of plain values is changed by what has been.
    assert_eq!(client.error("SELECT 'x'::int").message(), r#"invalid input syntax for type integer: "x""#);
    assert_eq!(copy(&mut client, "COPY e FROM stdin (NULL '')", b"1\t{}\t\tUlm\n").unwrap(), 1);
}

#[test]
fn partitions_views_domains_and_arrays_show_no_line() {
    let (cluster, mut client) = site();
    client.run("SET pgseal.keyring = 'k'");
    client.run(
        "CREATE TABLE parts (id int, m encrypted_jsonb(k)) PARTITION BY LIST (id);
         CREATE TABLE part PARTITION OF parts FOR VALUES IN (1);
         CREATE DOMAIN sealed AS encrypted_text; CREATE TABLE domains (id int, m sealed);
         CREATE TABLE arrays (id int, m encrypted_text[]);
         CREATE TYPE pair AS (a int, b sealed); CREATE TABLE pairs (id int, m pair);
         CREATE TABLE gen (id int, m encrypted_text(k), h text, g int GENERATED ALWAYS AS (h::int) STORED);
         CREATE VIEW shown AS SELECT id, pgseal.decrypt(m)::text AS m FROM parts;
         CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO parts VALUES (NEW.id, NEW.m::jsonb); RETURN NEW; END';
         CREATE TRIGGER put INSTEAD OF INSERT ON shown FOR EACH ROW EXECUTE FUNCTION put()",
    );
    for (table, line) in [
        ("parts", "2\t{\"n\":\"Ottilie\"}\n"),
        ("parts", "1\t{\"n\":\"Ottilie\"}\tx\n"),
        ("domains", "Ottilie\tOttilie\n"),
        ("arrays", "Ottilie\t{Ottilie}\n"),
        ("arrays", "1\t{Ottilie\n"),
        ("pairs", "1\t(x,Ottilie)\n"),
        ("gen (id, m, h)", "1\tOttilie\tOttilie\n"),
        ("shown", "2\t{\"n\":\"Ottilie\"}\n"),
        ("shown", "1\t{\"n\":\"Ottilie\"}\tx\n"),
    ] {
        let error = refused(&mut client, &format!("COPY {table} FROM stdin"), line.as_bytes());
        assert!(!format!("{error:?}").contains(CANARY), "{table}: {error:?}");
    }
    let log = cluster.log();
    assert!(!log.contains(CANARY), "{log}");
}

#[test]
fn messages_and_stacks_of_triggers_show_no_line() {
    let (cluster, mut client) = site();
    client.run(
        "CREATE TABLE e (id int, m encrypted_jsonb(k)); CREATE TABLE seen (stack text);
         CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'DECLARE s text; BEGIN
            RAISE WARNING ''loading %'', NEW.id; RAISE LOG ''logging %'', NEW.id;
            GET DIAGNOSTICS s = PG_CONTEXT; INSERT INTO seen VALUES (s);
            BEGIN PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN
               GET STACKED DIAGNOSTICS s = PG_EXCEPTION_CONTEXT; INSERT INTO seen VALUES (s); RAISE LOG ''caught at %'', s; END;
            RETURN NEW; END';
         CREATE TRIGGER tell BEFORE INSERT ON e FOR EACH ROW EXECUTE FUNCTION tell();
         CREATE FUNCTION checked(v int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE WARNING ''checking''; RETURN true; END';
         CREATE DOMAIN number AS int CHECK (checked(VALUE)); CREATE TABLE early (id number, m encrypted_jsonb(k))",
    );
    for table in ["e", "early"] {
        copy(&mut client, &format!("COPY {table} FROM stdin"), b"1\t{\"n\":\"Ottilie\"}\n").unwrap();
    }
    let log = cluster.log();
    assert!(!log.contains(CANARY), "{log}");
    assert!(["loading 1", "logging 1", "checking"].iter().all(|kept| log.contains(kept)), "{log}");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM seen WHERE stack LIKE '%COPY e, line 1%'"), 2);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM seen WHERE stack LIKE '%Ottilie%'"), 0);
}

#[test]
fn a_copy_in_a_function_shows_no_line_to_who_catches_it() {
    let (cluster, mut client) = site();
    client.run("CREATE TABLE e (id int, m encrypted_jsonb(k)); CREATE TABLE caught (context text)");
    let file = cluster.write("input", "1\t{\"n\":\"Ottilie\"}\tx\n");
    let load = format!("EXECUTE $$COPY e FROM ''{}''$$", file.display());
    client.run(&format!("CREATE FUNCTION load() RETURNS void LANGUAGE plpgsql AS 'BEGIN {load}; END'"));
    let error = client.error("SELECT load()");
    assert!(error.where_().unwrap().starts_with("COPY e, line 1\nSQL statement"), "{error:?}");
    client.run(&format!(
        "DO 'DECLARE s text; BEGIN {load}; EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS s = PG_EXCEPTION_CONTEXT; RAISE LOG ''caught at %'', s; INSERT INTO caught VALUES (s); END'"
    ));
    assert!(client.one::<String>("SELECT context FROM caught").starts_with("COPY e, line 1\n"));
    assert!(!format!("{error:?}").contains(CANARY) && !cluster.log().contains(CANARY), "{}", cluster.log());
}

#[test]
fn a_cancelled_or_ended_copy_shows_no_line() {
    let (cluster, mut client) = site();
    client.run(
        "CREATE TABLE e (id int, m encrypted_jsonb(k));
         CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
            IF NEW.id = 1 THEN PERFORM pg_sleep(600); ELSE PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END';
         CREATE TRIGGER wait BEFORE INSERT ON e FOR EACH ROW EXECUTE FUNCTION wait();
         SET statement_timeout = '5s'",
    );
    let error = refused(&mut client, "COPY e FROM stdin", b"1\t{\"n\":\"Ottilie\"}\n");
    assert_eq!(error.code().code(), "57014");
    client.run("RESET statement_timeout");
    // A client that is still sending may find the connection closed before it reads why.
    let error = copy(&mut client, "COPY e FROM stdin", b"2\t{\"n\":\"Ottilie\"}\n").expect_err("ended");
    let state = error.code().map(|state| state.code().to_owned());
    assert!(error.is_closed() || state.as_deref() == Some("57P01"), "{error:?}");
    let log = cluster.log();
    assert!(!log.contains(CANARY) && log.contains("COPY e, line 1"), "{log}");
}

#[test]
fn headers_encodings_and_binary_values_show_no_line() {
    let (cluster, mut client) = site();
    client.run("CREATE TABLE e (id int, m encrypted_text(k))");
    let mut binary = b"PGCOPY\n\xff\r\n\0".to_vec();
    binary.extend([0; 8]);
    binary.extend(2_i16.to_be_bytes());
    for field in [&b"Ottilie"[..], b"Ottilie"] {
        binary.extend((field.len() as i32).to_be_bytes());
        binary.extend(field);
    }
    for (options, input) in [
        ("FORMAT binary", binary.as_slice()),
        ("HEADER match", b"1\tOttilie\n"),
        ("HEADER match", b"Ottilie\tid\n"),
        ("ENCODING 'UTF8'", b"1\tOttilie\xff\n"),
        ("FORMAT csv", b"1,\"Ottilie\n"),
        ("FORMAT csv", b"1,\"Ott\nOttilie\",\n"),
    ] {
        let error = refused(&mut client, &format!("COPY e FROM stdin ({options})"), input);
        assert!(!format!("{error:?}").contains(CANARY), "{options}: {error:?}");
    }
    let log = cluster.log();
    assert!(!log.contains(CANARY), "{log}");
}
