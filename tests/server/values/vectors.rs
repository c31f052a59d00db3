//! `encrypted_vector`: every way in and out, and distances that equal pgvector's on the same vectors in plaintext.

use std::io::{Read, Write};

use postgres::Client;

use super::kinds::two_keyrings;
use crate::support::{AsBytes, AsText, Sql, fresh_database, shared};

/// Keyring "k", which is not the default, and table t with a plain twin of each embedding.
fn table() -> Client {
    let mut client = two_keyrings();
    client.run("CREATE TABLE t (id int, e encrypted_vector(k, 3), plain vector(3))");
    client
}

/// `[1,2,3]` as pgvector's type sends itself.
const VECTOR_123: [u8; 16] = [0, 3, 0, 0, 0x3f, 0x80, 0, 0, 0x40, 0, 0, 0, 0x40, 0x40, 0, 0];

/// The same numbers on every run (Knuth's MMIX generator), between -1 and 1.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 40) as f32 / (1_u64 << 23) as f32) - 1.0
    }

    fn vector(&mut self, dimensions: usize) -> String {
        let numbers: Vec<String> = (0..dimensions).map(|_| self.next().to_string()).collect();
        format!("[{}]", numbers.join(","))
    }
}

#[test]
fn a_vector_is_sealed_however_it_comes_in() {
    let client = &mut table();
    client.run("SET pgseal.keyring = 'k'");
    client.run("INSERT INTO t (e) VALUES ('[1,2,3]')");
    client.run("INSERT INTO t (e) VALUES ('[1,2,3]'::vector), ('[1,2,3]'::halfvec), ('{1,2,3}'::real[])");
    client.run("INSERT INTO t (e) VALUES (ARRAY[1,2,3]), (ARRAY[1.0,2,3]), ('{1,2,3}'::float8[])");
    client.run("INSERT INTO t (e) VALUES (pgseal.encrypt('[1,2,3]'::vector, 'k'))");
    client.execute("INSERT INTO t (e) VALUES ($1)", &[&AsText("[1,2,3]")]).unwrap();
    client.execute("INSERT INTO t (e) SELECT $1::vector", &[&AsText("[1,2,3]")]).unwrap();
    client.execute("INSERT INTO t (e) VALUES ($1)", &[&AsBytes(&VECTOR_123)]).unwrap();
    let halfvec = [0, 3, 0, 0, 0x3c, 0, 0x40, 0, 0x42, 0];
    client.execute("INSERT INTO t (e) VALUES ($1)", &[&AsBytes(&halfvec)]).unwrap();
    let mut copy = client.copy_in("COPY t (e) FROM stdin").unwrap();
    copy.write_all(b"[1,2,3]\n [1, 2 ,3]\n").unwrap();
    copy.finish().unwrap();
    let sealed = "count(*) FILTER (WHERE pgseal.decrypt(e) = '[1,2,3]' AND pgseal.keyring_id(e) =
        (SELECT id FROM pgseal.keyring WHERE name = 'k') AND get_byte(pgseal.encrypted_vector_send(e), 2) = 0)";
    let (rows, sealed, distinct): (i64, i64, i64) = {
        let row = client
            .query_one(
                &format!("SELECT count(*), {sealed}, count(DISTINCT pgseal.encrypted_vector_send(e)) FROM t"),
                &[],
            )
            .unwrap();
        (row.get(0), row.get(1), row.get(2))
    };
    assert_eq!((rows, sealed, distinct), (14, 14, 14));
}

#[test]
fn copy_takes_vectors_plain_and_sealed_in_binary_form() {
    let client = &mut table();
    // One row of two columns; the second as a vector sends itself.
    let row = [&[0, 2, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 16][..], &VECTOR_123].concat();
    let file = [b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", row.as_slice(), &[0xff, 0xff]].concat();
    let mut copy = client.copy_in("COPY t (id, e) FROM stdin BINARY").unwrap();
    copy.write_all(&file).unwrap();
    copy.finish().unwrap();
    let mut sealed = Vec::new();
    client.copy_out("COPY t (id, e) TO stdout BINARY").unwrap().read_to_end(&mut sealed).unwrap();
    let mut copy = client.copy_in("COPY t (id, e) FROM stdin BINARY").unwrap();
    copy.write_all(&sealed).unwrap();
    copy.finish().unwrap();
    let right = "SELECT count(*) FROM t WHERE id = 1 AND e::vector = '[1,2,3]' AND get_byte(pgseal.encrypted_vector_send(e), 2) = 0";
    assert_eq!(client.one::<i64>(right), 2);
}

#[test]
fn a_vector_comes_out_as_ciphertext_unless_decrypted() {
    let client = &mut table();
    client.run("INSERT INTO t (e) VALUES ('[1,-2.5,0.25]'::vector)");
    assert!(client.text("SELECT e FROM t").starts_with("pgseal:"));
    for expression in ["e::vector::text", "e::text", "e::varchar", "pgseal.decrypt(e)::text"] {
        assert_eq!(client.one::<String>(&format!("SELECT {expression} FROM t")), "[1,-2.5,0.25]");
    }
    assert_eq!(client.one::<Vec<f32>>("SELECT e::real[] FROM t"), [1.0, -2.5, 0.25]);
    client.run("CREATE TABLE texts (v text, x xml)");
    for sql in ["INSERT INTO texts (v) SELECT e FROM t", "INSERT INTO texts (x) SELECT e FROM t"] {
        client.error(sql);
    }
    // A dump and a binary copy of it are taken back as they are.
    let sealed = client.text("SELECT e FROM t");
    client.execute("INSERT INTO t (e) VALUES ($1)", &[&AsText(&sealed)]).unwrap();
    let bytes: Vec<u8> = client.one("SELECT pgseal.encrypted_vector_send(e) FROM t LIMIT 1");
    client.execute("INSERT INTO t (e) VALUES ($1)", &[&AsBytes(&bytes)]).unwrap();
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE e::vector = '[1,-2.5,0.25]'"), 3);
}

#[test]
fn a_bound_vector_is_decrypted_with_its_context_only() {
    let client = &mut table();
    client.run("INSERT INTO t (e) VALUES (pgseal.encrypt('[3,4,0]'::vector, 'k', 'row 1'))");
    assert_eq!(client.one::<String>("SELECT pgseal.decrypt(e, 'row 1')::text FROM t"), "[3,4,0]");
    assert_eq!(client.state("SELECT pgseal.decrypt(e) FROM t"), "22000");
    assert_eq!(client.state("SELECT pgseal.decrypt(e, 'row 2') FROM t"), "22000");
    // As filters do, distances look at bound values too.
    assert_eq!(client.one::<f64>("SELECT e <-> '[0,0,0]' FROM t"), 5.0);
    assert_eq!(client.one::<i32>("SELECT pgseal.vector_dims(e) FROM t"), 3);
}

#[test]
fn input_is_refused_as_pgvector_refuses_it() {
    let client = &mut table();
    client.run("SET pgseal.keyring = 'k'");
    let cases = [
        ("'[1,2]'", "22000", "expected 3 dimensions, not 2"),
        ("'[1,2]'::vector", "22000", "expected 3 dimensions, not 2"),
        ("pgseal.encrypt('[1,2]'::vector, 'k')", "22000", "expected 3 dimensions, not 2"),
        ("'[NaN,2,3]'", "22000", "NaN not allowed in vector"),
        ("'{NaN,2,3}'::real[]", "22000", "NaN not allowed in vector"),
        ("'[1,Infinity,3]'", "22000", "infinite value not allowed in vector"),
        ("'{1,2,1e300}'::float8[]", "22000", "infinite value not allowed in vector"),
        ("'[]'", "22000", "vector must have at least 1 dimension"),
        ("'{}'::real[]", "22000", "vector must have at least 1 dimension"),
        ("'{{1,2,3}}'::real[]", "22000", "array must be 1-D"),
        ("'[1e400,2,3]'", "22003", ""),
        ("'1,2,3'", "22P02", "invalid input syntax for type vector"),
        ("'[1,2,3'", "22P02", "invalid input syntax for type vector"),
        ("'pgseal:AAAA'", "22P02", "malformed ciphertext"),
    ];
    for (value, state, message) in cases {
        let error = client.refused(&format!("INSERT INTO t (e) VALUES ({value})"), state);
        assert!(error.message().contains(message), "{value}: {error}");
        assert!(!error.to_string().contains("1e400"), "{value}: {error}");
    }
    let nulls = client.error("INSERT INTO t (e) VALUES (ARRAY[1, NULL, 3]::real[])");
    assert_eq!((nulls.code().code(), nulls.message()), ("22004", "array must not contain nulls"));
    for bytes in [&[0, 3, 0, 0, 0x3f, 0x80][..], &[0, 0, 0, 0], &[0, 3], &[0; 3]] {
        assert!(client.execute("INSERT INTO t (e) VALUES ($1)", &[&AsBytes(bytes)]).is_err(), "{bytes:?}");
    }
    let many = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    client.run("CREATE TABLE wide (e encrypted_vector(k))");
    client.execute("INSERT INTO wide VALUES ($1)", &[&AsText(&many(16_000))]).unwrap();
    let error = client.execute("INSERT INTO wide VALUES ($1)", &[&AsText(&many(16_001))]).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "54000");
    assert_eq!(client.one::<i32>("SELECT pgseal.vector_dims(e) FROM wide"), 16_000);
}

#[test]
fn distances_and_order_equal_those_of_plain_vectors() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE docs (id int, kind text, e encrypted_vector(k), plain vector)");
    let mut numbers = Numbers(13);
    for dimensions in [1, 2, 3, 7, 8, 33, 384, 2000] {
        client.run("TRUNCATE docs");
        let insert = client.prepare("INSERT INTO docs VALUES ($1, 'a', $2::vector, $2::vector)").unwrap();
        for id in 0..60 {
            let vector = match id {
                0 => format!("[{}]", vec!["0"; dimensions].join(",")),
                _ => numbers.vector(dimensions),
            };
            client.execute(&insert, &[&id, &AsText(&vector)]).unwrap();
        }
        client.run("INSERT INTO docs VALUES (60)");
        for operator in ["<->", "<#>", "<=>", "<+>"] {
            let query = numbers.vector(dimensions);
            // NaN equals itself in PostgreSQL, and NULL stays out.
            let differing: i64 = client
                .query_one(
                    &format!(
                        "SELECT count(*) FROM docs WHERE abs((e {operator} $1) - (plain {operator} $1)) > 1e-5 * (1 + abs(plain {operator} $1))
                         OR (e {operator} $1 = 'NaN') <> (plain {operator} $1 = 'NaN') OR (e {operator} $1 IS NULL) <> (plain IS NULL)"
                    ),
                    &[&AsText(&query)],
                )
                .unwrap()
                .get(0);
            assert_eq!(differing, 0, "{operator} in {dimensions} dimensions");
            let order = |client: &mut Client, column: &str| -> Vec<i32> {
                let sql = format!(
                    "SELECT id FROM docs ORDER BY round(({column} {operator} $1)::numeric, 4), id LIMIT 20"
                );
                let sql = if dimensions == 1 || operator == "<#>" {
                    sql
                } else {
                    sql.replace("round((", "((").replace(")::numeric, 4)", "))")
                };
                let rows = client.query(&sql, &[&AsText(&query)]).unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            };
            assert_eq!(order(client, "e"), order(client, "plain"), "{operator} in {dimensions} dimensions");
        }
    }
}

#[test]
fn a_question_needs_neither_cast_nor_default_keyring() {
    let client = &mut table();
    client.run("SELECT pgseal.set_default_keyring(NULL)");
    client.run("INSERT INTO t (id, e) VALUES (1, '[1,0,0]'::vector), (2, '[0,1,0]'::vector)");
    for order in ["e <=> '[0,1,0]'", "e <-> '[0,1,0]'::vector", "e <+> (SELECT '[0,1,0]'::vector)"] {
        let sql = format!("SELECT id FROM t ORDER BY {order}");
        assert_eq!(client.column::<i32>(&sql), [2, 1], "{order}");
    }
    for order in ["e <=> $1", "e <-> $1::vector"] {
        let rows =
            client.query(&format!("SELECT id FROM t ORDER BY {order}"), &[&AsText("[0,1,0]")]).unwrap();
        assert_eq!(rows[0].get::<_, i32>(0), 2, "{order}");
    }
    let other = client.error("SELECT e <-> '[0,1]' FROM t");
    assert_eq!((other.code().code(), other.message()), ("22000", "different vector dimensions 3 and 2"));
    // An operator between two of them would take every literal for a sealed one: the second is opened.
    assert_eq!(client.state("SELECT e <-> e FROM t"), "42846");
    // What is stored takes the keyring of its column.
    client.run("INSERT INTO t (e) VALUES ('[1,2,3]')");
    assert_eq!(client.one::<i64>("SELECT count(pgseal.decrypt(e)) FROM t"), 3);
}

#[test]
fn a_filter_through_gin_narrows_what_is_sorted() {
    let client = &mut fresh_database();
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.city'])");
    client.run(
        "CREATE TABLE docs (id int, m encrypted_jsonb(k), e encrypted_vector(k, 16), pm jsonb, pe vector(16))",
    );
    let mut numbers = Numbers(7);
    let insert =
        client.prepare("INSERT INTO docs VALUES ($1, $2::jsonb, $3::vector, $2::jsonb, $3::vector)").unwrap();
    for id in 0..600 {
        let document = format!(r#"{{"city": "c{}"}}"#, id % 20);
        client.execute(&insert, &[&id, &AsText(&document), &AsText(&numbers.vector(16))]).unwrap();
    }
    client.run("CREATE INDEX ON docs USING gin (m); ANALYZE docs");
    let query = numbers.vector(16);
    let sealed =
        format!("SELECT id FROM docs WHERE m @> '{{\"city\": \"c7\"}}' ORDER BY e <=> '{query}' LIMIT 10");
    let plain =
        format!("SELECT id FROM docs WHERE pm @> '{{\"city\": \"c7\"}}' ORDER BY pe <=> '{query}' LIMIT 10");
    let nearest = client.column::<i32>(&sealed);
    assert_eq!(nearest.len(), 10);
    assert_eq!(nearest, client.column::<i32>(&plain));
    let plan = client.column::<String>(&format!("EXPLAIN (COSTS off) {sealed}")).join("\n");
    assert!(plan.contains("Bitmap Index Scan") && plan.contains("Sort Key"), "{plan}");
    // What matches is opened once to be compared exactly and once for its distance.
    let before: i64 = client.one("SELECT values_decrypted FROM pgseal.stat");
    client.column::<i32>(&sealed);
    let after: i64 = client.one("SELECT values_decrypted FROM pgseal.stat");
    assert!(after - before <= 2 * 30, "{} values were decrypted", after - before);
}

#[test]
fn a_vector_type_names_keyring_and_dimensions() {
    let client = &mut two_keyrings();
    let id: i32 = client.one("SELECT id FROM pgseal.keyring WHERE name = 'k'");
    let written = |client: &mut Client, of: &str| -> String {
        client.run(&format!("DROP TABLE IF EXISTS s; CREATE TABLE s (e encrypted_vector{of})"));
        client.one("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 's'::regclass AND attname = 'e'",
        )
    };
    assert_eq!(written(client, ""), "encrypted_vector");
    assert_eq!(written(client, "(k)"), format!("encrypted_vector({id})"));
    assert_eq!(written(client, "(k, 384)"), format!("encrypted_vector({id},384)"));
    assert_eq!(written(client, "(k, 16000)"), format!("encrypted_vector({id},16000)"));
    // A number may be the id or what the type keeps of it.
    assert_eq!(written(client, &format!("({id}, 3)")), format!("encrypted_vector({id},3)"));
    assert_eq!(written(client, &format!("({}, 3)", id & 0x1FFFF)), format!("encrypted_vector({id},3)"));
    // A dump creates the table before it restores the keyring.
    assert_eq!(written(client, "(77, 3)"), "encrypted_vector(77,3)");
    for (of, state) in [
        ("(k, 0)", "22023"),
        ("(k, 16001)", "22023"),
        ("(k, x)", "22023"),
        ("(k, 3, 3)", "22023"),
        ("(0)", "22023"),
        ("(131072)", "22023"),
        ("(nobody)", "42704"),
    ] {
        assert_eq!(client.state(&format!("CREATE TABLE refused (e encrypted_vector{of})")), state, "{of}");
    }
}

#[test]
fn a_vector_column_cannot_name_two_keyrings() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE t (e encrypted_vector(k, 2)); INSERT INTO t VALUES ('[1,2]'::vector)");
    // As an import brings it.
    client.run(
        "SELECT pgseal.create_numbered_keyring('twin', '{}', NULL, NULL, id # (1 << 20)) FROM pgseal.keyring WHERE name = 'k'",
    );
    let shared = client.refused("INSERT INTO t VALUES ('[1,2]'::vector)", "55000");
    assert!(shared.hint().unwrap().contains("pgseal.encrypt"), "{shared:?}");
    assert_eq!(client.state("CREATE TABLE s (e encrypted_vector(twin))"), "55000");
    client.run("CREATE TABLE s (e encrypted_vector)");
    client.run("INSERT INTO s VALUES (pgseal.encrypt('[1,2]'::vector, 'twin'))");
    assert_eq!(client.one::<f64>("SELECT e <-> '[1,2]' FROM t"), 0.0);
    client.run("DROP TABLE s; SELECT pgseal.drop_keyring('twin')");
    client.run("INSERT INTO t VALUES ('[1,2]'::vector)");
}

#[test]
fn vectors_of_a_keyring_not_chosen_have_no_distance() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE t (id int, e encrypted_vector)");
    client.run(
        "INSERT INTO t VALUES (1, pgseal.encrypt('[1,0]'::vector, 'k')), (2, pgseal.encrypt('[0,1]'::vector, 'other'))",
    );
    let distances = "SELECT e <-> '[0,1]' FROM t ORDER BY id";
    assert_eq!(client.column::<Option<f64>>(distances), [Some(2_f64.sqrt()), Some(0.0)]);
    client.run("SET pgseal.keyring = 'k'");
    assert_eq!(client.column::<Option<f64>>(distances), [Some(2_f64.sqrt()), None]);
    assert_eq!(client.column::<i32>("SELECT id FROM t ORDER BY e <-> '[0,1]'"), [1, 2]);
    // A column's own keyring answers whatever is chosen.
    client.run("CREATE TABLE s (e encrypted_vector(other)); INSERT INTO s VALUES ('[1]'::vector)");
    assert_eq!(client.one::<Option<f64>>("SELECT e <-> '[1]' FROM s"), Some(0.0));
    assert_eq!(client.state("INSERT INTO s SELECT e FROM t WHERE id = 1"), "22023");
}

#[test]
fn a_distance_needs_decrypt_and_is_logged() {
    let client = &mut table();
    client.run("INSERT INTO t (e) VALUES ('[1,2,3]'::vector)");
    let role = "asker";
    client
        .run(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role}; GRANT SELECT, INSERT ON t TO {role}"));
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['encrypt', 'search'])"));
    client.run(&format!("SET ROLE {role}"));
    for question in
        ["e <-> '[1,2,3]'", "e <=> '[1,2,3]'", "pgseal.vector_norm(e)", "pgseal.decrypt(e)", "e::text"]
    {
        assert_eq!(client.state(&format!("SELECT {question} FROM t")), "42501", "{question}");
    }
    // What tells nothing about the elements needs less.
    assert_eq!(client.one::<i32>("SELECT pgseal.vector_dims(e) FROM t"), 3);
    client.run("INSERT INTO t (e) SELECT pgseal.l2_normalize(e) FROM t");
    client.run("RESET ROLE");
    client.run(&format!("SELECT pgseal.grant_keyring('k', '{role}', ARRAY['decrypt']); SET ROLE {role}"));
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE e <-> '[1,2,3]' < 0.1"), 1);
    let norm: f64 = client.one("SELECT min(pgseal.vector_norm(e)) FROM t");
    assert!((norm - 1.0).abs() < 1e-6, "{norm}");
    client.run(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn what_ciphertext_cannot_answer_is_refused() {
    let client = &mut table();
    client.run("INSERT INTO t (e, plain) VALUES ('[1,2,3]'::vector, '[1,2,3]')");
    for question in ["e = e", "e = plain", "plain = e", "e || 'x'::text", "'x'::text || e", "e[1]"] {
        let error = client.error(&format!("SELECT {question} FROM t"));
        let state = if question == "e[1]" { "42883" } else { "42846" };
        assert_eq!(error.code().code(), state, "{question}: {error:?}");
        assert!(error.hint().is_some(), "{question}: {error:?}");
    }
    for sql in ["SELECT DISTINCT e FROM t", "SELECT 1 FROM t GROUP BY e", "SELECT 1 FROM t ORDER BY e"] {
        // By classes that no index can have, decrypted.
        assert_eq!(client.query(sql, &[]).unwrap().len(), 1, "{sql}");
    }
    for literal in ["quote_literal(e)", "quote_nullable(e)", "format('%L', e)", "concat(e)"] {
        let text: String = client.one(&format!("SELECT {literal} FROM t"));
        assert!(text.contains("pgseal:"), "{literal}: {text}");
    }
}

#[test]
fn reveal_shows_vectors() {
    let client = &mut table();
    client.run("INSERT INTO t (e) VALUES ('[1,2,3]'::vector)");
    client.run("SET pgseal.reveal = on");
    assert_eq!(client.text("SELECT e FROM t ORDER BY e <-> '[1,2,3]'"), "[1,2,3]");
    let row = client.query_one("SELECT e FROM t", &[]).unwrap();
    assert_eq!(row.columns()[0].type_().name(), "vector");
}

#[test]
fn a_vector_column_rotates_and_retires() {
    let client = &mut table();
    client.run("INSERT INTO t (e) SELECT ARRAY[i, 1, 2]::real[] FROM generate_series(1, 50) i");
    client.run("INSERT INTO t (e) SELECT NULL");
    let usage = "SELECT string_agg(format('%s %s %s', key_version, index_key_version, number_of_values), ', ') FROM pgseal.key_usage('t', 'e')";
    for rotation in ["update", "in_place"] {
        client.run("SELECT pgseal.rotate_key('k')");
        client.run(&format!("CALL pgseal.reencrypt('t', 'e', rotation => '{rotation}')"));
        let version: i32 = client.one("SELECT data_key_version FROM pgseal.keyrings WHERE name = 'k'");
        assert_eq!(client.one::<String>(usage), format!("{version} 0 50"), "{rotation}");
        client.run(&format!("SELECT pgseal.retire_key('k', {})", version - 1));
    }
    // New tokens are nothing to a vector.
    client.run("SELECT pgseal.rotate_index_key('k')");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM t WHERE NOT pgseal.is_current(e)"), 0);
    client.run("SELECT pgseal.rotate_key('k')");
    let held = client.refused("SELECT pgseal.retire_key('k', 3)", "55000");
    assert!(held.to_string().contains("column e of"), "{held}");
    client.run("CALL pgseal.reencrypt('t', 'e')");
    client.run("SELECT pgseal.retire_key('k', 3)");
    assert_eq!(client.one::<f64>("SELECT sum(e <-> '[0,1,2]') FROM t"), f64::from((1..=50).sum::<i32>()));
}

#[test]
fn vectors_are_verified_audited_and_recorded() {
    let client = &mut table();
    client.run("INSERT INTO t (id, e) SELECT i, ARRAY[i, 1, 2]::real[] FROM generate_series(1, 5) i");
    let authentic = "SELECT string_agg(format('%s %s', result, number_of_values), ', ' ORDER BY result) FROM pgseal.verify('t', 'e')";
    assert_eq!(client.one::<String>(authentic), "authentic 5");
    let evidence: String = client.one("SELECT pgseal.evidence('t') ->> 'verify'");
    assert!(evidence.contains("5 of 5 values authenticate"), "{evidence}");
    let finding = "SELECT count(*) FROM pgseal.audit() WHERE object LIKE 'column e of %t' AND severity IN ('critical', 'warning')";
    assert_eq!(client.one::<i64>(finding), 0);
    client.run("SELECT pgseal.rotate_key('k')");
    assert_eq!(client.one::<i64>(finding), 1);
    // What it was made from may tell as much.
    client.run("CREATE TABLE beside (e encrypted_vector(k), chunk text)");
    let beside = "SELECT count(*) FROM pgseal.audit() WHERE object LIKE 'column chunk of %beside'";
    assert_eq!(client.one::<i64>(beside), 1);
    let mut bytes: Vec<u8> = client.one("SELECT pgseal.encrypted_vector_send(e) FROM t WHERE id = 3");
    *bytes.last_mut().unwrap() ^= 1;
    client.execute("UPDATE t SET e = $1 WHERE id = 3", &[&AsBytes(&bytes)]).unwrap();
    assert_eq!(client.one::<String>(authentic), "authentic 4, corrupt 1");
    assert_eq!(client.state("SELECT e <-> '[1,2,3]' FROM t"), "22000");
    assert_eq!(client.state("SELECT pgseal.drop_keyring('k')"), "55000");
}

#[test]
fn a_vector_column_is_encrypted_and_decrypted_in_use() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE docs (id int, e vector(3) NOT NULL DEFAULT '[0,0,1]', h halfvec(2))");
    client.run("INSERT INTO docs SELECT i, ARRAY[i, 0.5, 1]::real[]::vector, ARRAY[i, 0.25]::real[]::vector FROM generate_series(1, 30) i");
    client.run("CALL pgseal.encrypt_column('docs', 'e', 'k')");
    client.run("CALL pgseal.encrypt_column('docs', 'h', 'k')");
    let types = "SELECT string_agg(regexp_replace(format_type(atttypid, atttypmod), '\\d+,', 'k,'), ' ' ORDER BY attname)
        FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname IN ('e', 'h')";
    assert_eq!(client.one::<String>(types), "encrypted_vector(k,3) encrypted_vector(k,2)");
    client.run("INSERT INTO docs (id) VALUES (0)");
    assert_eq!(client.column::<i32>("SELECT id FROM docs ORDER BY e <-> '[0,0,1]' LIMIT 2"), [0, 1]);
    assert_eq!(client.one::<f64>("SELECT h <-> '[7,0.25]' FROM docs WHERE id = 7"), 0.0);
    client.run("CALL pgseal.decrypt_column('docs', 'e')");
    client.run("CALL pgseal.decrypt_column('docs', 'h')");
    assert_eq!(client.one::<String>(types), "vector(3) vector(2)");
    client.run("INSERT INTO docs (id) VALUES (-1)");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE e = '[0,0,1]'"), 2);
}

/// Name, access method and operator class of the indexes of `docs`.
const INDEXES: &str = "SELECT string_agg(concat_ws(' ', c.relname, m.amname, o.opcname), ', ' ORDER BY c.relname)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam JOIN pg_opclass o ON o.oid = i.indclass[0]
   WHERE i.indrelid = 'docs'::regclass";

#[test]
fn sealed_ivf_takes_the_place_of_hnsw_and_ivfflat() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE docs (id int, e vector(3), h halfvec(2))");
    client.run("INSERT INTO docs SELECT i, ARRAY[i, 0.5, 1]::real[]::vector, ARRAY[i, 0.25]::real[]::vector FROM generate_series(1, 30) i");
    client.run("CREATE INDEX nearest ON docs USING hnsw (e vector_cosine_ops) WITH (m = 8)");
    client.run("CREATE INDEX halves ON docs USING ivfflat (h halfvec_l2_ops)");
    for column in ["e", "h"] {
        let encrypt = format!("CALL pgseal.encrypt_column('docs', '{column}', 'k')");
        client.run(&encrypt);
        let commands: Vec<String> =
            client.column(&format!("SELECT pgseal.migration_commands('docs', '{column}')"));
        assert_eq!(commands.len(), 1, "{commands:?}");
        client.run(&commands[0]);
        client.run(&encrypt);
    }
    let sealed = "halves sealed_ivf encrypted_vector_l2_ops, nearest sealed_ivf encrypted_vector_cosine_ops";
    assert_eq!(client.one::<String>(INDEXES), sealed);
    client.run("SET enable_seqscan = off; SET enable_sort = off");
    let nearest = "SELECT id FROM docs ORDER BY e <=> '[7, 0.5, 1]' LIMIT 1";
    assert!(client.column::<String>(&format!("EXPLAIN {nearest}")).join("\n").contains("nearest"));
    assert_eq!(client.column::<i32>(nearest), [7]);
    let standing = client.error("CALL pgseal.decrypt_column('docs', 'e')");
    assert!(
        standing.detail().unwrap().contains("nearest, which holds codes of encrypted vectors: drop it"),
        "{standing:?}"
    );
    client.run("DROP INDEX nearest");
    client.run("CALL pgseal.decrypt_column('docs', 'e')");
    assert_eq!(client.column::<i32>(nearest), [7]);
}

#[test]
fn an_index_that_sealed_ivf_cannot_replace_is_named() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE docs (id int, e vector(3), anything vector)");
    for index in [
        "hnsw (e vector_l1_ops)",
        "hnsw (e vector_l2_ops) WHERE id > 3",
        "ivfflat ((e::halfvec(3)) halfvec_l2_ops)",
        "btree (e)",
        "hnsw ((anything::vector(2)) vector_l2_ops)",
    ] {
        client.run(&format!("CREATE INDEX standing ON docs USING {index}"));
        let column = if index.contains("anything") { "anything" } else { "e" };
        let error = client.error(&format!("CALL pgseal.encrypt_column('docs', '{column}', 'k')"));
        let named = if index.starts_with("btree") {
            "cannot be built on ciphertext"
        } else {
            "sealed_ivf can stand only"
        };
        assert_eq!(error.code().code(), "2BP01", "{index}");
        assert!(error.detail().unwrap().contains(named), "{index}: {error:?}");
        client.run("DROP INDEX standing");
    }
}

#[test]
fn a_dump_of_vectors_is_restored() {
    let client = &mut table();
    client.run("INSERT INTO t (id, e) VALUES (1, '[1,2,3]'::vector), (2, NULL)");
    client.run("CREATE TABLE any_ring (e encrypted_vector DEFAULT pgseal.encrypt('[7]'::vector, 'k'))");
    client.run("INSERT INTO any_ring DEFAULT VALUES");
    let source = client.database();
    for arguments in [&[][..], &["--inserts"], &["--binary-upgrade"]] {
        let copy = format!("{source}_restored");
        let dump = shared().pg_dump("postgres", &[arguments, &[source.as_str()]].concat());
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        if arguments == ["--binary-upgrade"] {
            let dump = String::from_utf8_lossy(&dump.stdout);
            assert!(dump.contains(",3)"), "the type in a dump has its dimensions");
            continue;
        }
        client.run(&format!("DROP DATABASE IF EXISTS {copy}"));
        client.run(&format!("CREATE DATABASE {copy}"));
        let sql = String::from_utf8(dump.stdout).unwrap();
        let done = shared().psql(&copy, &["-v", "ON_ERROR_STOP=1"], &sql);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let restored = &mut shared().connect(&copy);
        assert_eq!(restored.one::<f64>("SELECT e <-> '[1,2,4]' FROM t WHERE id = 1"), 1.0);
        restored.run("INSERT INTO t (id, e) VALUES (3, '[1,2,4]'::vector)");
        restored.run("INSERT INTO any_ring DEFAULT VALUES");
        let written = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'e'";
        assert_eq!(restored.one::<String>(written), client.one::<String>(written));
    }
}
