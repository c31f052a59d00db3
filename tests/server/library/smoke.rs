//! The servers that the other tests stand on.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Cluster, OpenBao, wait_for};

#[test]
fn cluster_runs_pgvector_and_outlives_a_crash() {
    let cluster = Cluster::start(&["log_statement = all"]);
    let mut client = cluster.connect("postgres");
    client.batch_execute("CREATE EXTENSION vector; CREATE TABLE t AS SELECT '[3,4]'::vector AS v").unwrap();
    drop(client);
    cluster.crash();
    cluster.start_again();
    cluster.restart();

    let length: f64 =
        cluster.connect("postgres").query_one("SELECT v <-> '[0,0]' FROM t", &[]).unwrap().get(0);
    assert_eq!(length, 5.0);
    assert!(cluster.log().contains("v <-> '[0,0]'"));

    let dump = cluster.pg_dump("postgres", &["postgres"]);
    assert!(String::from_utf8_lossy(&dump.stdout).contains("[3,4]"), "{dump:?}");
    let failed = cluster.psql("postgres", &["-v", "VERBOSITY=sqlstate"], "SELECT 1/0; SELECT 2");
    assert_eq!(String::from_utf8_lossy(&failed.stderr).trim(), "ERROR:  22012");
    assert!(failed.stdout.is_empty() && !failed.status.success());
}

#[test]
fn dropping_a_cluster_leaves_nothing() {
    let cluster = Cluster::start(&[]);
    let data = cluster.data_dir();
    let pid = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let process = PathBuf::from(format!("/proc/{}", pid.lines().next().unwrap()));
    assert!(process.exists());
    drop(cluster);
    assert!(!data.exists());
    wait_for("the server's end", Duration::from_secs(60), || !process.exists());
}

#[test]
fn openbao_keeps_a_key_and_takes_it_away() {
    let bao = OpenBao::start();
    bao.create_key("k");
    bao.allow("k");
    let token = bao.token("k");
    bao.rotate_key("k");
    bao.set_min_decryption_version("k", 2);
    bao.deny("k");
    bao.revoke(&token);
    bao.delete_key("k");
    bao.seal();
}
