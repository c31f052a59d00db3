//! What the access method does not do, and says so.

use super::{BY_INDEX, INDEX, insert, set_up};
use crate::support::{Sql, fresh_database};

#[test]
fn columns_that_cannot_be_indexed_are_refused() {
    let mut client = fresh_database();
    set_up(&mut client);
    client.run(
        "CREATE TABLE others (any_keyring encrypted_vector, any_length encrypted_vector(k), long encrypted_vector(k, 4001), longest encrypted_vector(k, 4000))",
    );
    let index =
        |column: &str| format!("CREATE INDEX ON others USING sealed_ivf ({column} encrypted_vector_l2_ops)");
    for (column, state, message) in [
        ("any_keyring", "22023", "column is not bound to a keyring"),
        ("any_length", "22023", "column does not have dimensions"),
        ("long", "54000", "column cannot have more than 4000 dimensions for sealed_ivf index"),
    ] {
        let error = client.error(&index(column));
        assert_eq!((error.code().code(), error.message()), (state, message), "{column}");
    }
    client.run(&index("longest"));
}

#[test]
fn indexes_of_more_than_one_column_are_refused() {
    let mut client = fresh_database();
    set_up(&mut client);
    for (index, state) in [
        ("(embedding encrypted_vector_l2_ops, embedding encrypted_vector_ip_ops)", "0A000"),
        ("(embedding encrypted_vector_l2_ops) INCLUDE (id)", "0A000"),
        ("(embedding encrypted_vector_l2_ops) WITH (fillfactor = 50)", "22023"),
        ("(embedding encrypted_vector_l2_ops DESC)", "0A000"),
        ("(embedding)", "42704"),
        ("(plain vector_l2_ops)", "42704"),
    ] {
        assert_eq!(client.state(&format!("CREATE INDEX ON docs USING sealed_ivf {index}")), state, "{index}");
    }
    assert_eq!(
        client.state("CREATE UNIQUE INDEX ON docs USING sealed_ivf (embedding encrypted_vector_l2_ops)"),
        "0A000"
    );
    assert_eq!(
        client.state(
            "ALTER TABLE docs ADD EXCLUDE USING sealed_ivf (embedding encrypted_vector_l2_ops WITH <->)"
        ),
        "42883"
    );
}

#[test]
fn an_index_on_an_expression_is_refused() {
    let mut client = fresh_database();
    set_up(&mut client);
    client.run(
        "CREATE FUNCTION same(encrypted_vector) RETURNS encrypted_vector LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'",
    );
    let error =
        client.error("CREATE INDEX ON docs USING sealed_ivf (same(embedding) encrypted_vector_l2_ops)");
    assert_eq!((error.code().code(), error.message()), ("0A000", "sealed_ivf does not index expressions"));
}

#[test]
fn an_index_answers_nothing_but_an_order() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..100);
    client.run(INDEX);
    client.run("ANALYZE docs; SET enable_seqscan = off; SET enable_bitmapscan = off");
    for query in [
        "SELECT count(*) FROM docs WHERE embedding IS NOT NULL",
        "SELECT embedding FROM docs",
        "SELECT id FROM docs WHERE (embedding <-> made(1)) < 0.5",
        "SELECT id FROM docs ORDER BY embedding <=> made(1)",
        "SELECT id FROM docs ORDER BY embedding <-> made(1) DESC",
        "SELECT id FROM docs ORDER BY made(1) <-> plain",
    ] {
        let plan = client.column::<String>(&format!("EXPLAIN {query}")).join("\n");
        assert!(!plan.contains("docs_embedding"), "{query}: {plan}");
    }
}

#[test]
fn a_scan_needs_decrypt_whoever_opened_it() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..100);
    client.run(INDEX);
    client.run(
        "DO $$ BEGIN CREATE ROLE ivf_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         DO $$ BEGIN CREATE ROLE ivf_opener; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         GRANT SELECT ON docs TO ivf_reader, ivf_opener;
         SELECT pgseal.grant_keyring('k', 'ivf_reader', '{search,encrypt}'), pgseal.grant_keyring('k', 'ivf_opener', '{decrypt}');
         CREATE FUNCTION opened() RETURNS refcursor LANGUAGE plpgsql SECURITY DEFINER SET enable_seqscan = off SET enable_sort = off AS $$
           DECLARE c refcursor := 'c'; BEGIN OPEN c FOR SELECT id FROM docs ORDER BY embedding <-> made(1); RETURN c; END $$;
         ALTER FUNCTION opened() OWNER TO ivf_opener",
    );
    client.run("SET ROLE ivf_opener");
    client.run("BEGIN");
    client.run(BY_INDEX);
    let nearest = "SELECT id FROM docs ORDER BY embedding <-> made(1) LIMIT 1";
    assert_eq!(client.column::<i32>(nearest), [1]);
    client.run("COMMIT");
    client.run("SET ROLE ivf_reader");
    client.run("BEGIN");
    client.run(BY_INDEX);
    // A plan has no secret.
    client.run(&format!("EXPLAIN {nearest}"));
    assert_eq!(client.state(nearest), "42501");
    client.run("ROLLBACK");
    client.run("BEGIN");
    client.run(BY_INDEX);
    assert_eq!(client.state(&format!("EXPLAIN ANALYZE {nearest}")), "42501");
    client.run("ROLLBACK");
    client.run("BEGIN; SELECT opened()");
    assert_eq!(client.state("FETCH 1 FROM c"), "42501", "a cursor has left the function that opened it");
    client.run("ROLLBACK; RESET ROLE");
}

#[test]
fn a_query_of_another_length_is_refused() {
    let mut client = fresh_database();
    set_up(&mut client);
    insert(&mut client, "docs", 0..10);
    client.run(INDEX);
    client.run("BEGIN");
    client.run(BY_INDEX);
    let error = client.error("SELECT id FROM docs ORDER BY embedding <-> '[1,2]'");
    assert_eq!((error.code().code(), error.message()), ("22000", "different vector dimensions 8 and 2"));
    client.run("ROLLBACK");
}
