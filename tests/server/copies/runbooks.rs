//! The runbooks in tests/runbooks, run as they stand there.

use std::process::{Command, Stdio};

use crate::support::{Cluster, OpenBao, Sql, as_server, run};

/// A KMS and a server, with a keyring and rows where a runbook expects them.
struct Site {
    cluster: Cluster,
    bao: OpenBao,
}

impl Site {
    fn new() -> Site {
        Site { cluster: Cluster::start(&["log_statement = 'none'"]), bao: OpenBao::bare() }
    }

    /// What the key ceremony leaves behind, with one document.
    fn with_documents(key: &str) -> Site {
        let site = Site::new();
        site.run(&format!(
            "bao secrets enable transit; bao write -f transit/keys/patients type=aes256-gcm96 derived=true {key}
             for what in encrypt decrypt rewrap; do echo \"path \\\"transit/$what/patients\\\" {{ capabilities = [\\\"update\\\"] }}\"; done |
                 bao policy write pgseal-patients -
             umask 077; bao token create -policy=pgseal-patients -orphan -field=token > /etc/pgseal/token
             psql -q -c \"LOAD 'pgseal'\" -c \"ALTER SYSTEM SET pgseal.kms_endpoint = 'vault+$BAO_ADDR/transit'\" \
                 -c \"ALTER SYSTEM SET pgseal.kms_token_file = '/etc/pgseal/token'\" -c \"SELECT pg_reload_conf()\""
        ));
        let mut client = site.cluster.connect("postgres");
        client.run("CREATE EXTENSION pgseal CASCADE");
        client.run("SELECT pgseal.create_keyring('patients', ARRAY['$.diagnosis'], kms_key => 'patients')");
        client.run(r#"CREATE TABLE docs (metadata encrypted_jsonb(patients)); INSERT INTO docs VALUES ('{"diagnosis": "asthma"}'::jsonb)"#);
        site
    }

    /// Runs shell commands as the server's user, with the KMS administrator's token; panics with what they printed if one fails.
    fn run(&self, commands: &str) -> String {
        let home = self.cluster.socket_dir();
        let bin =
            run(Command::new(std::env::var_os("PG_CONFIG").unwrap_or_else(|| "pg_config".into()))
                .arg("--bindir"));
        let program = home.join("bin/bao");
        if !program.exists() {
            run(as_server("mkdir").arg("-p").arg(home.join("bin")));
            std::fs::copy(std::env::var_os("PGSEAL_BAO").expect("PGSEAL_BAO: run make test"), &program)
                .expect("a copy of bao");
            run(Command::new("chmod").arg("755").arg(&program));
        }
        let script = format!("set -eu\n{}", commands.replace("/etc/pgseal", &home.display().to_string()));
        let script = self.cluster.write("runbook.sh", &script);
        let mut shell = as_server("sh");
        shell.arg("-c").arg(format!("cd '{}' && exec sh '{}' 2>&1", home.display(), script.display()));
        shell.env("PATH", format!("{}:{}:/usr/bin:/bin", home.join("bin").display(), bin.trim()));
        shell.env("HOME", home).env("BAO_ADDR", self.bao.address()).env("BAO_TOKEN", "root");
        shell
            .env("PGHOST", home)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .stdin(Stdio::null());
        let output = crate::support::output(&mut shell);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{commands}\nprinted:\n{printed}");
        printed
    }

    /// The sh blocks of a runbook, in one shell.
    fn follow(&self, runbook: &str) -> String {
        let blocks: Vec<&str> =
            runbook.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
        assert!(blocks.len() >= 3, "no commands in the runbook");
        self.run(&blocks.join("\n"))
    }
}

#[test]
fn the_key_ceremony() {
    let site = Site::new();
    let printed = site.follow(include_str!("../../runbooks/key-ceremony.md"));
    assert!(printed.contains("works        | t"), "{printed}");
    // The secret is nowhere but in its file.
    let secret = std::fs::read_to_string(site.cluster.socket_dir().join("secret-id")).unwrap();
    assert!(!secret.trim().is_empty() && !site.cluster.log().contains(secret.trim()));
}

#[test]
fn the_revocation_drill() {
    let site = Site::with_documents("");
    let printed = site.follow(include_str!("../../runbooks/revocation-drill.md"));
    assert!(printed.contains("works   | f"), "{printed}");
}

#[test]
fn the_kms_lost_and_restored() {
    let site = Site::with_documents("exportable=true allow_plaintext_backup=true");
    let printed = site.follow(include_str!("../../runbooks/kms-lost.md"));
    assert!(printed.contains("there is no such key"), "{printed}");
}

#[test]
fn an_encrypted_backup() {
    let site = Site::with_documents("");
    site.cluster.write("encrypted-backup", include_str!("../../runbooks/encrypted-backup.sh"));
    site.run("chmod 700 /etc/pgseal/encrypted-backup");
    let printed = site.follow(include_str!("../../runbooks/encrypted-backup.md"));
    assert!(printed.contains("base.tar.age"), "{printed}");
    // Neither the backup nor what lies beside it tells the key or a row.
    let found = "for secret in AGE-SECRET-KEY pgseal: PG_VERSION; do ! grep -rqa \"$secret\" /etc/pgseal/monday /etc/pgseal/wal; done";
    site.run(found);
}

#[test]
fn leaving_pgseal() {
    let site = Site::with_documents("");
    let printed = site.follow(include_str!("../../runbooks/leaving.md"));
    assert!(printed.contains("metadata"), "{printed}");
    assert_eq!(site.cluster.connect("postgres").state("SELECT 'x'::encrypted_jsonb"), "42704");
}

#[test]
fn failover_to_a_standby() {
    let site = Site::with_documents("");
    let printed = site.follow(include_str!("../../runbooks/failover.md"));
    assert!(printed.contains("works   | t"), "{printed}");
}

#[test]
fn the_keyring_tables_lost_and_restored() {
    let site = Site::with_documents("");
    let printed = site.follow(include_str!("../../runbooks/keyrings-lost.md"));
    assert!(printed.contains("does not exist") || printed.contains("unknown keyring"), "{printed}");
}

#[test]
fn the_order_of_a_restore_after_a_disaster() {
    let site = Site::with_documents("exportable=true allow_plaintext_backup=true");
    let printed = site.follow(include_str!("../../runbooks/restore-order.md"));
    assert!(printed.contains("patients|data|1|"), "{printed}");
}
