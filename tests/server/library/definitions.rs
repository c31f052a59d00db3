//! The library serves definitions of older versions, and of whoever may write C functions: a call that it does not
//! expect is an error.

use crate::support::{Cluster, Sql};

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
