//! What a thief of the disk learns of topics from a sealed index, as `leakage.py` does it.

use std::path::Path;
use std::process::Command;

use postgres::Client;

use crate::support::{Cluster, Sql, output};

/// 1,200 rows of 20 topics, in no order of theirs: a topic is a direction, and a row lies around it.
const ROWS: &str = "INSERT INTO docs SELECT i, i % 20, v::encrypted_vector(k, 16) FROM (
    SELECT i, (SELECT array_agg(size(i % 20, j) + 0.4 * size(i + 1000, j) ORDER BY j)::real[]::vector FROM generate_series(1, 16) j) v
      FROM generate_series(1, 1200) i ORDER BY md5(i::text)) made";

/// What the script reports of the index, which it reads without a key.
fn report(cluster: &Cluster, client: &mut Client) -> String {
    client.run("CHECKPOINT");
    let file = client.one::<String>("SELECT pg_relation_filepath('near')");
    let labels = client.one::<String>("SELECT string_agg(format(E'%s\\t%s', ctid, topic), E'\\n') FROM docs");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("pgvector-compat/leakage.py");
    let python = std::env::var_os("PGSEAL_CLIENTS").expect("PGSEAL_CLIENTS: run make test");
    let labels = cluster.write("labels", &labels);
    let ran = output(Command::new(python).arg(script).arg(cluster.data_dir().join(file)).arg(labels));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn lists_show_which_rows_are_alike_and_one_list_does_not() {
    let cluster = Cluster::with_pgseal(&[]);
    let mut client = cluster.connect("postgres");
    client.run("SELECT pgseal.create_keyring('k')");
    client.run(
        "CREATE FUNCTION size(seed int, i int) RETURNS float8 LANGUAGE sql IMMUTABLE AS
           $$ SELECT ('x' || substr(md5(seed || ' ' || i), 1, 8))::bit(32)::int / 2147483648.0 $$",
    );
    client.run("CREATE TABLE docs (id int, topic int, e encrypted_vector(k, 16))");
    client.run(ROWS);
    let mut measured = |lists: i32| {
        client.run(&format!("DROP INDEX IF EXISTS near; CREATE INDEX near ON docs USING sealed_ivf (e encrypted_vector_cosine_ops) WITH (lists = {lists})"));
        let report = report(&cluster, &mut client);
        ["{rows}", "{purity}", "{40 known,by list}", "{40 known,by page}", "{40 known,blind}"]
            .map(|path| client.one::<f64>(&format!("SELECT ('{report}'::jsonb #>> '{path}')::float8")))
    };
    let [rows, purity, by_list, _, blind] = measured(20);
    assert_eq!(rows, 1200.0);
    assert!(purity > 0.5 && by_list > 0.3 && by_list > 3.0 * blind, "{purity} {by_list} {blind}");
    let [rows, purity, by_list, by_page, blind] = measured(0);
    assert_eq!((rows, by_list), (1200.0, blind));
    assert!(purity < 0.06 && by_page < 2.0 * blind, "{purity} {by_page} {blind}");
}
