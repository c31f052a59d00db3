//! A backend that gets no more memory raises an error: the server goes on.

use std::process::Command;

use postgres::Client;

use crate::support::{Cluster, Sql, as_server, run};

/// What each statement's input has.
const BYTES: usize = 1_500_000;

/// Everything that takes a text, a document, an array or a sealed value; `$big` is an expression for a long text.
const STATEMENTS: [&str; 34] = [
    "SELECT pgseal.may_become($big, 'b')",
    "SELECT $big::encrypted_text(k)::text IS NULL",
    "SELECT format('%s', pgseal.encrypt($big, 'k'))::encrypted_text(k) IS NULL",
    "SELECT ('pgseal:' || $big)::encrypted_text",
    "SELECT ('pgseal:' || $big)::encrypted_jsonb",
    r#"SELECT ('{"a": "' || $big)::encrypted_jsonb"#,
    r#"SELECT ('{"a": "' || $big || '"}')::encrypted_jsonb(k) IS NULL"#,
    "SELECT jsonb_build_object('a', $big)::encrypted_jsonb(k) ->> 'a' = $big",
    "SELECT jsonb_build_object('a', $big)::encrypted_jsonb(k) @> jsonb_build_object('a', $big)",
    "SELECT (jsonb_build_object($big, 1)::encrypted_jsonb(k) || '{}' - $big) IS NULL",
    "SELECT jsonb_build_object('a', 1)::encrypted_jsonb(k) ? $big",
    "SELECT (jsonb_build_object('a', 1)::encrypted_jsonb(k) #>> string_to_array(repeat('1,', 100000), ',')) = 'x'",
    "SELECT (jsonb_build_object('a', 1)::encrypted_jsonb(k) #- string_to_array(repeat('x,', 100000), ',')) IS NULL",
    "SELECT pgseal.filter(jsonb_build_object('a', $big), 'k') IS NULL",
    "SELECT jsonb_build_object('c', $big)::encrypted_jsonb(k) @@ pgseal.filter_casefold(jsonb_build_object('c', $big), 'k')",
    "SELECT jsonb_build_object('a', 1)::encrypted_jsonb(k) @@ pgseal.filter_any(ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 50000) i), 'k')",
    "SELECT pgseal.decrypt(pgseal.encrypt($big, 'k', $big), $big) IS NULL",
    "SELECT pgseal.decrypt(pgseal.encrypt(jsonb_build_object('a', $big), 'k')) IS NULL",
    "SELECT $big::encrypted_text(k)::int",
    "SELECT $big::encrypted_text(k)::timestamptz",
    "SELECT $big::encrypted_text(k)::name",
    "SELECT pgseal.reseal($big::encrypted_text(k)) IS NULL",
    "SELECT $big::encrypted_text(k) = $big",
    "SELECT pgseal.check_value($big::encrypted_text(k), $big, true)",
    r#"SELECT pgseal.between(jsonb_build_object('a', 1)::encrypted_jsonb(k), '$."' || $big || '"', 1, 2)"#,
    "SELECT pgseal.create_keyring($big)",
    r#"SELECT pgseal.create_keyring('new', ARRAY['$."' || $big || '"'])"#,
    r#"SELECT pgseal.set_searchable('k', ARRAY['{"path": "' || $big || '"}'])"#,
    "SELECT pgseal.encrypt('x'::text, $big)",
    "SELECT set_config('pgseal.keyring', $big, true) IS NULL; SELECT 'x'::encrypted_text",
    "SELECT pgseal.set_kms_token($big)",
    "SELECT pgseal.text_holds_key('pgseal:' || $big, 1, 1)",
    "SELECT pgseal.searchable_values((SELECT jsonb_agg(jsonb_build_object('a', i)) FROM generate_series(1, 5000) i)::encrypted_jsonb(k)) IS NULL",
    "INSERT INTO t SELECT jsonb_build_object('a', $big); UPDATE t SET m = m || '{}'; SELECT m FROM t",
];

/// Lets the backend of a connection have so many megabytes more than it has.
fn limit(client: &mut Client, megabytes: u64) {
    let pid: i32 = client.one("SELECT pg_backend_pid()");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the backend's status");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("its size");
    let kilobytes: u64 =
        size.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number");
    let most = (kilobytes << 10) + (megabytes << 20);
    run(as_server("prlimit").args(["--pid", &pid.to_string(), &format!("--as={most}:{most}")]));
}

#[test]
fn a_failed_allocation_is_an_error_of_the_statement() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        eprintln!("not run: there is no prlimit");
        return;
    }
    let cluster = Cluster::with_pgseal(&["shared_preload_libraries = 'pgseal'"]);
    let mut client = cluster.connect("postgres");
    client
        .run(r#"SELECT pgseal.create_keyring('k', ARRAY['$', '$.a', '{"path": "$.c", "casefold": true}'])"#);
    client.run("SELECT pgseal.set_default_keyring('k'); CREATE TABLE t (m encrypted_jsonb(k))");
    let server = cluster.postmaster();
    let mut failed = 0;
    for statement in STATEMENTS {
        let sql = statement.replace("$big", &format!("repeat('É', {})", BYTES / 2));
        // From too little for the input itself to what nearly suffices.
        for megabytes in [1, 4, 7, 12] {
            let mut session = cluster.connect("postgres");
            session.run("SELECT 'x'::encrypted_text; BEGIN");
            limit(&mut session, megabytes);
            if let Err(error) = session.batch_execute(&sql) {
                let code = error.code().unwrap_or_else(|| panic!("{statement} with {megabytes} MB: {error}"));
                failed += usize::from(code.code() == "53200");
            }
            session.run("ROLLBACK");
        }
    }
    assert!(failed > STATEMENTS.len(), "only {failed} had too little memory");
    assert_eq!(cluster.postmaster(), server);
    assert!(!cluster.log().contains("was terminated by signal"), "{}", cluster.log());
}
