//! No plain embedding is in any file of the server.

use std::fs;
use std::path::Path;

use memchr::memmem;

use super::{COLUMNS, assert_exact, set_up};
use crate::support::{Cluster, Sql};

/// What of an embedding must not be found: bytes as pgvector, and this library, have them.
const NEEDLE: usize = 16;

fn found(folder: &Path, needles: &[Vec<u8>], at: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found(&path, needles, at);
        } else if let Ok(bytes) = fs::read(&path) {
            let holds = |needle: &&Vec<u8>| memmem::find(&bytes, needle).is_some();
            if let Some(needle) = needles.iter().find(holds) {
                at.push(format!("{}: {needle:?}", path.display()));
            }
        }
    }
}

#[test]
fn no_file_of_the_server_holds_part_of_a_plain_embedding() {
    let cluster = Cluster::with_pgseal(&["work_mem = '64kB'", "maintenance_work_mem = '1MB'"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    client.run(&format!("DROP TABLE docs; CREATE TABLE docs {}", COLUMNS.replace("plain vector(8), ", "")));
    let rows =
        |range: &str| format!("INSERT INTO docs SELECT i, made(i), i % 10 FROM generate_series({range}) i");
    client.run(&rows("0, 1999"));
    for class in ["l2", "ip", "cosine"] {
        client
            .run(&format!("CREATE INDEX ON docs USING sealed_ivf (embedding encrypted_vector_{class}_ops)"));
    }
    client.run(&rows("2000, 3999"));
    assert_exact(&mut client, "docs", "true", -1);
    client.run(
        "UPDATE docs SET embedding = made(id + 5000) WHERE id % 3 = 0; DELETE FROM docs WHERE id % 7 = 0",
    );
    client.run("VACUUM ANALYZE docs");
    client.run("SELECT pgseal.rotate_key('k')");
    client.run("CALL pgseal.reencrypt('docs', 'embedding')");
    client.run("CHECKPOINT");
    let elements: Vec<Vec<f32>> =
        (0..60).map(|at| client.one(&format!("SELECT made({})::real[]", at * 61))).collect();
    let bytes =
        |elements: &[f32]| elements.iter().flat_map(|element| element.to_le_bytes()).collect::<Vec<u8>>();
    let needles: Vec<Vec<u8>> = elements
        .iter()
        .flat_map(|elements| [bytes(&elements[..NEEDLE / 4]), bytes(&elements[4..])])
        .collect();
    let mut places = Vec::new();
    found(&cluster.data_dir(), &needles, &mut places);
    assert!(places.is_empty(), "{places:?}");
    client.run("CREATE TABLE plain AS SELECT made(61) AS v; CHECKPOINT");
    found(&cluster.data_dir(), &needles, &mut places);
    assert!(places.len() >= 2, "the control is found in the table and in WAL: {places:?}");
}
