//! A keyring at AWS KMS, end to end, against moto (which does not check signatures here: tests/kms_aws.rs does that).

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Guard, Sql, free_port, wait_for};

/// A new KMS key at a new moto: its address, the key's id, and what ends it.
fn moto() -> (String, String, Guard) {
    let program = std::env::var("PGSEAL_MOTO").expect("PGSEAL_MOTO: run make test");
    let port = free_port();
    let script = r#""$1" -H 127.0.0.1 -p "$2" & cat; kill -9 $!; wait"#;
    let guard = Guard::new(Command::new("sh"), script, &[program, port.to_string()]);
    let url = format!("http://127.0.0.1:{port}");
    let mut made = None;
    wait_for("moto's start", Duration::from_secs(60), || {
        let request = ureq::post(&url).header("x-amz-target", "TrentService.CreateKey");
        let sent = request
            .header("authorization", "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/kms/aws4_request")
            .send("{}");
        made = sent.ok().and_then(|mut answer| answer.body_mut().read_to_string().ok());
        made.is_some()
    });
    let made: Value = serde_json::from_str(&made.unwrap()).unwrap_or(json!({}));
    (url, made["KeyMetadata"]["KeyId"].as_str().expect("a key id").to_owned(), guard)
}

#[test]
fn a_keyring_lives_at_aws_kms() {
    let (url, key, _moto) = moto();
    let environment = [
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "example"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let endpoint = format!("aws-kms://eu-west-1?endpoint={url}");
    let cluster = Cluster::start_with(&[&format!("pgseal.kms_endpoint = '{endpoint}'")], &environment);
    let mut client = cluster.connect("postgres");
    client.run("CREATE EXTENSION pgseal CASCADE");
    // The default name of the wrapping key is none that AWS has.
    assert_eq!(client.state("SELECT pgseal.create_keyring('k')"), "22023");
    client.run(&format!("SELECT pgseal.create_keyring('k', ARRAY['$.a'], kms_key => '{key}')"));
    client.run(r#"CREATE TABLE docs (m encrypted_jsonb(k)); INSERT INTO docs VALUES ('{"a": 1}'::jsonb)"#);
    let before: String = client.one("SELECT md5(wrapped) FROM pgseal.data_key");
    client.run("SELECT pgseal.rotate_key('k'), pgseal.rewrap_keys('k'), pgseal.flush_keys()");
    assert_ne!(client.one::<String>("SELECT md5(wrapped) FROM pgseal.data_key WHERE version = 1"), before);
    assert_eq!(client.one::<i64>(r#"SELECT count(pgseal.decrypt(m)) FROM docs WHERE m @> '{"a": 1}'"#), 1);
    assert!(client.one::<bool>("SELECT works FROM pgseal.check_kms('k')"));
    client.run("UPDATE pgseal.keyring SET kms_key = 'alias/nobody'");
    assert_eq!(client.state("SELECT pgseal.decrypt(m) FROM docs"), "28000");
    assert_eq!(client.state("SELECT pgseal.set_kms_token('a'), pgseal.decrypt(m) FROM docs"), "22023");
}
