//! `pgseal.log_decrypts`: who decrypted how much under which keys.

use crate::support::{Cluster, Sql};

/// What the server has logged about decrypting since `position`, without the log's own prefix.
fn lines(cluster: &Cluster, position: usize) -> Vec<String> {
    let log = cluster.log();
    log[position..]
        .lines()
        .filter_map(|line| Some(line.split_once("pgseal: decrypt")?.1.to_owned()))
        .collect()
}

#[test]
fn each_statement_leaves_a_first_line_and_one_with_counts() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('patients', ARRAY['$.a']); CREATE TABLE t (id int, m encrypted_jsonb(patients))");
    client.run(r#"INSERT INTO t SELECT i, '{"a": "secret"}'::jsonb FROM generate_series(1, 3) i"#);
    client.run("SELECT pgseal.rotate_key('patients')");
    client.run(r#"INSERT INTO t VALUES (4, '{"a": "other"}'::jsonb)"#);
    client.run(r#"CREATE ROLE "odd "" role"; GRANT SELECT ON t TO PUBLIC; SELECT pgseal.grant_keyring('patients', 'public', ARRAY['search', 'decrypt'])"#);
    client.run(
        "CREATE FUNCTION total() RETURNS bigint LANGUAGE plpgsql AS 'DECLARE n bigint; one record; BEGIN
           FOR one IN SELECT pgseal.decrypt(m) AS d FROM t LOOP n := coalesce(n, 0) + 1; END LOOP; RETURN n; END'",
    );
    let who = r#"role "postgres", database "postgres", application "auditor""#;
    client.run("SET application_name = 'auditor'");
    client.run("SELECT pgseal.decrypt(m) FROM t");
    assert!(!cluster.log().contains("pgseal: decrypt"), "off by default");

    // What tokens decide has a line of another kind.
    client.run("SET pgseal.log_decrypts = statement; SET pgseal.recheck = always");
    let counts = |values: &str| format!("ed {values}: keyring \"patients\", ");
    for (sql, end) in [
        ("SELECT pgseal.decrypt(m) FROM t", "3 under key version 1, 1 under key version 2"),
        ("SELECT total()", "3 under key version 1, 1 under key version 2"),
        (
            "COPY (SELECT pgseal.decrypt(m) FROM t WHERE id > 2) TO '/dev/null'",
            "1 under key version 1, 1 under key version 2",
        ),
        (r#"SELECT count(*) FROM t WHERE m @> '{"a": "other"}'"#, "1 under key version 2"),
    ] {
        let position = cluster.log().len();
        client.run(sql);
        let logged = lines(&cluster, position);
        assert_eq!(logged.len(), 2, "{sql}: {logged:?}");
        assert!(logged[0].starts_with("ing begins: keyring \"patients\", key version "), "{logged:?}");
        let total: u32 = end.split(", ").map(|part| part[..1].parse::<u32>().unwrap()).sum();
        assert_eq!(logged[1], format!("{}{end}, {who}", counts(&format!("{total} values"))), "{sql}");
    }

    // An error ends a statement too, and an open transaction does not hold the line back.
    let position = cluster.log().len();
    client.state("SELECT pgseal.decrypt(m), 1 / (4 - id) FROM t ORDER BY id");
    client.run("BEGIN; SELECT pgseal.decrypt(m) FROM t WHERE id = 4");
    let logged = lines(&cluster, position);
    assert_eq!(logged.len(), 4, "{logged:?}");
    assert!(logged[3].contains("1 under key version 2"), "{logged:?}");
    client.run("COMMIT");

    // Nothing decrypted, nothing logged.
    let position = cluster.log().len();
    client.run(r#"SELECT count(*) FROM t WHERE m @> '{"a": "nobody"}'"#);
    assert_eq!(lines(&cluster, position), [""; 0]);

    let position = cluster.log().len();
    client.run(r#"SET application_name = 'x'; SET ROLE "odd "" role""#);
    client.run("SELECT pgseal.decrypt(m) FROM t WHERE id = 1");
    let logged = lines(&cluster, position);
    assert!(logged[1].contains(r#"role "odd "" role" (logged in as "postgres")"#), "{logged:?}");
    assert_eq!(client.state("SET pgseal.log_decrypts = off"), "42501", "only superusers switch it off");
    assert!(!cluster.log().contains("secret"));
}

#[test]
fn each_role_has_lines_of_its_own_within_a_statement() {
    let cluster = Cluster::with_pgseal(&["pgseal.log_decrypts = statement"]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k'); CREATE TABLE t (m encrypted_jsonb(k)); INSERT INTO t SELECT '{}'::jsonb FROM generate_series(1, 5)");
    client.run("CREATE ROLE first; CREATE ROLE second; GRANT SELECT ON t TO PUBLIC; SELECT pgseal.grant_keyring('k', 'public', '{decrypt}')");
    let position = cluster.log().len();
    client.run("BEGIN; SET LOCAL ROLE first; DECLARE c CURSOR FOR SELECT pgseal.decrypt(m) FROM t; FETCH 2 FROM c; SET LOCAL ROLE second; FETCH 3 FROM c; COMMIT");
    client.run(
        "CREATE FUNCTION lent() RETURNS SETOF jsonb LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN QUERY SELECT pgseal.decrypt(m) FROM t; END';
         SET ROLE first; SELECT lent(), pgseal.decrypt(m) FROM t LIMIT 1",
    );
    let logged = lines(&cluster, position);
    for (counted, role) in
        [("2 values", "first"), ("3 values", "second"), ("5 values", "postgres"), ("1 values", "first")]
    {
        let of_role = |line: &&String| {
            line.starts_with(&format!("ed {counted}")) && line.contains(&format!("role \"{role}\""))
        };
        assert_eq!(logged.iter().filter(of_role).count(), 1, "{counted}, {role}: {logged:#?}");
    }
}
