//! The library serves definitions of older versions, and of whoever may write C functions: a call that it does not
//! expect is an error.

use crate::support::{Cluster, Sql, fresh_database};

/// Every symbol that SQL can name.
fn symbols() -> Vec<&'static str> {
    let exports = include_str!("../../../src/pg/exports.rs");
    exports.lines().filter_map(|line| line.trim().split_once(" => ")).map(|(symbol, _)| symbol).collect()
}

/// Declares each symbol with these arguments and calls it; what it answers does not matter, that it answers does.
fn assert_survives(declared: &str, passed: &str) {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    let mut refused = 0;
    for symbol in symbols() {
        client.run(&format!(
            "CREATE FUNCTION f({declared}) RETURNS int LANGUAGE c AS '$libdir/pgseal', '{symbol}'"
        ));
        let answer = client.batch_execute(&format!("SELECT f({passed})"));
        assert!(!client.is_closed(), "{symbol}: {answer:?}");
        refused += i32::from(answer.is_err());
        client.run("DROP FUNCTION f");
    }
    assert!(refused > 80, "{refused} symbols refuse");
    assert!(!cluster.log().contains("was terminated by signal"));
}

#[test]
fn record_of_other_columns_is_refused() {
    let mut client = fresh_database();
    client.run("SELECT pgseal.create_keyring('k')");
    for (columns, refused) in
        [("a text, b text", false), ("a text, b int8", true), ("a text, b text, c text", true)]
    {
        client.run(&format!(
            "CREATE FUNCTION f(text, OUT {}) LANGUAGE c AS '$libdir/pgseal', 'pgseal_kms_problem_record'",
            columns.replace(", ", ", OUT ")
        ));
        let error = client.batch_execute("SELECT * FROM f('k')").err();
        let state = error.as_ref().and_then(|error| error.code()).map(|state| state.code());
        assert_eq!(state, refused.then_some("42P13"), "{columns}");
        client.run("DROP FUNCTION f");
    }
}

#[test]
fn symbol_of_a_release_answers_in_its_array() {
    let mut client = fresh_database();
    client.run(
        "SELECT pgseal.create_keyring('k', '{$.a}');
         CREATE TABLE docs (m encrypted_jsonb(k)); INSERT INTO docs VALUES ('{\"a\": 1}'), ('{\"a\": 1}'); SELECT pgseal.rotate_key('k');
         CREATE SCHEMA old;
         CREATE FUNCTION old.check_value(encrypted_jsonb, text, boolean) RETURNS text[] LANGUAGE c AS '$libdir/pgseal', 'pgseal_check_jsonb';
         CREATE FUNCTION old.column_keys(regclass, text) RETURNS text[] LANGUAGE c STRICT AS '$libdir/pgseal', 'pgseal_column_keys';
         CREATE FUNCTION old.kms_problem(text) RETURNS text[] LANGUAGE c STRICT AS '$libdir/pgseal', 'pgseal_kms_problem';
         CREATE FUNCTION old.searchable_values(encrypted_jsonb) RETURNS text[] LANGUAGE c STRICT AS '$libdir/pgseal', 'pgseal_searchable_values';
         CREATE FUNCTION old.rewrite_pages(regclass, int2, int8, int8, boolean) RETURNS int8[]
             LANGUAGE c STRICT AS '$libdir/pgseal', 'pgseal_rewrite_pages'",
    );
    let id = client.one::<i32>("SELECT id FROM pgseal.keyring").to_string();
    let verdicts = client.column::<Vec<String>>("SELECT old.check_value(m, NULL, false) FROM docs");
    assert_eq!(verdicts, vec![["authentic", &id, "1", ""]; 2]);
    let keys = client.one::<Vec<String>>("SELECT old.column_keys('docs', 'm')");
    assert_eq!(keys, [format!("{id} 1 1 0 2")]);
    assert_eq!(client.one::<Vec<String>>("SELECT old.kms_problem('k')"), [""; 0]);
    let values = client.one::<Vec<String>>("SELECT old.searchable_values(m) FROM docs LIMIT 1");
    assert!(values.len() == 1 && values[0].starts_with("$.a\n"), "{values:?}");
    let renewed = client.one::<Vec<i64>>("SELECT old.rewrite_pages('docs', 1::int2, 0, 1, true)");
    assert_eq!(renewed, [2, 0, 0]);
}

#[test]
fn symbol_declared_without_arguments_refuses() {
    assert_survives("", "");
}

#[test]
fn symbol_declared_without_strict_refuses_nulls() {
    assert_survives(
        "int, int, int, int, int, int, int, int",
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
    );
}
