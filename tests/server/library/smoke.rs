//! The servers that the other tests stand on.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use pgseal::core::rng;
use pgseal::keys::context::{Purpose, WrapContext};
use pgseal::kms::{KmsError, Settings, Token, open};

use crate::support::{Cluster, OpenBao, wait_for};

const CONTEXT: WrapContext = WrapContext { keyring: [7; 16], purpose: Purpose::Data, version: 1 };

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
    let client = |token: &str| {
        let settings = Settings::new(Duration::from_secs(60), || false);
        let settings = Settings { token: Token::parse(token).map(Rc::new), ..settings };
        open(&bao.endpoint(), &settings).unwrap()
    };
    let token = bao.token("k");
    let wrapped = client(&token).wrap("k", &CONTEXT, &rng::root_key().unwrap()).unwrap();
    let outcome = |token| client(token).unwrap("k", &CONTEXT, &wrapped).map(|_| ());
    let is_denied = |token| matches!(outcome(token), Err(KmsError::Denied(_)));

    bao.rotate_key("k");
    assert_eq!(outcome(&token), Ok(()));
    bao.set_min_decryption_version("k", 2);
    assert!(is_denied(&token));
    bao.set_min_decryption_version("k", 1);
    assert_eq!(outcome(&token), Ok(()));
    bao.deny("k");
    assert!(is_denied(&token));
    bao.allow("k");
    assert_eq!(outcome(&token), Ok(()));
    bao.revoke(&token);
    assert!(is_denied(&token));
    let token = bao.token("k");
    assert_eq!(outcome(&token), Ok(()));
    bao.delete_key("k");
    assert!(is_denied(&token));
    bao.seal();
    assert!(matches!(outcome(&token), Err(KmsError::Unreachable(_))));
}
