//! `encrypted_vector` where others mean it harm: altered values, and schemas that hide what pgvector and pgseal name.

use super::kinds::two_keyrings;
use crate::support::{AsBytes, Sql};

#[test]
fn an_altered_vector_fails_alike_wherever_it_is_read() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE t (e encrypted_vector(k))");
    client.run("INSERT INTO t VALUES ('[1,2,3]'::vector)");
    let whole: Vec<u8> = client.one("SELECT pgseal.encrypted_vector_send(e) FROM t");
    let longer = [whole.as_slice(), &[0; 70_000]].concat();
    // No vector has these lengths, and no error but that of authentication may tell.
    for altered in [&whole[..whole.len() - 1], &whole[..whole.len() - 12], &longer] {
        client.run("TRUNCATE t");
        client.execute("INSERT INTO t VALUES ($1)", &[&AsBytes(altered)]).unwrap();
        for read in
            ["pgseal.decrypt(e)", "e::vector", "e::real[]", "e <-> '[1,2,3]'", "pgseal.vector_norm(e)"]
        {
            let error = client.refused(&format!("SELECT {read} FROM t"), "22000");
            assert!(error.message().contains("authentication"), "{read}: {error}");
        }
    }
}

#[test]
fn a_numeric_out_of_range_is_no_element() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE t (e encrypted_vector(k))");
    let refused = client.refused("INSERT INTO t VALUES (ARRAY[77.125e300, 2]::numeric[])", "22003");
    assert_eq!(refused.message(), "a number is out of range for type vector");
    client.run("INSERT INTO t VALUES (ARRAY[77.125, 2]::numeric[])");
    assert_eq!(client.one::<f64>("SELECT e <-> '[77.125,2]' FROM t"), 0.0);
}

#[test]
fn a_vector_column_is_kept_under_a_hostile_search_path() {
    let client = &mut two_keyrings();
    client.run("CREATE TABLE t (id int, v vector(3)); INSERT INTO t VALUES (1, '[1,2,3]')");
    client.run("CREATE SCHEMA evil; CREATE TYPE evil.vector AS (x int); CREATE TYPE evil.halfvec AS (x int)");
    client.run(
        "CREATE FUNCTION evil.distance(encrypted_vector, vector) RETURNS float8 LANGUAGE sql AS 'SELECT 666::float8';
         CREATE OPERATOR evil.<-> (LEFTARG = encrypted_vector, RIGHTARG = vector, FUNCTION = evil.distance);
         CREATE FUNCTION evil.equal(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT false';
         CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.equal)",
    );
    for path in ["evil, pg_catalog", "''"] {
        client.run(&format!("SET search_path = {path}"));
        client.run("CALL pgseal.encrypt_column('public.t', 'v', 'k')");
        client.run("SELECT pgseal.rotate_key('k')");
        client.run("CALL pgseal.reencrypt('public.t', 'v')");
        let distance = "SELECT v OPERATOR(public.<->) '[1,2,4]' FROM public.t";
        assert_eq!(client.one::<f64>(distance), 1.0, "{path}");
        let authentic = "SELECT number_of_values FROM pgseal.verify('public.t', 'v')";
        assert_eq!(client.one::<i64>(authentic), 1, "{path}");
        client.run("CALL pgseal.decrypt_column('public.t', 'v')");
        assert_eq!(client.one::<String>("SELECT v::text FROM public.t"), "[1,2,3]", "{path}");
    }
}
