//! A KMS that misbehaves: a real OpenBao behind a proxy that slows, breaks and forges its connections.

use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::Client;
use rustls::pki_types::PrivateKeyDer;

use crate::support::{Cluster, Fault, OpenBao, Proxy, Sql, as_server, is_root, wait_for};

const INSERT: &str = r#"INSERT INTO docs SELECT '{"a": 1}'::jsonb FROM generate_series(1, 10)"#;
const FILTER: &str = r#"SELECT count(*) FROM docs WHERE m @> '{"a": 1}'"#;
const DECRYPT: &str = "SELECT count(pgseal.decrypt(m)) FROM docs";
const FLUSH: &str = "SELECT pgseal.flush_keys()";

struct Site {
    cluster: Cluster,
    proxy: Proxy,
    bao: OpenBao,
    client: Client,
}

impl Site {
    /// Ten rows under the keyring k, with a timeout of two seconds.
    fn new() -> Site {
        let bao = OpenBao::start();
        bao.create_key("k");
        let proxy = Proxy::before(bao.port());
        let conf = format!("pgseal.kms_endpoint = 'vault+http://127.0.0.1:{}/transit'", proxy.port);
        let cluster = Cluster::start(&["pgseal.kms_timeout = '60s'", &conf]);
        let token = cluster.write("token", "root");
        let mut client = cluster.connect("postgres");
        client.run(&format!("ALTER DATABASE postgres SET pgseal.kms_token_file = '{}'", token.display()));
        let mut client = cluster.connect("postgres");
        client.run("CREATE EXTENSION pgseal CASCADE; SELECT pgseal.create_keyring('k', ARRAY['$.a'], 'k')");
        client.run(&format!("CREATE TABLE docs (m encrypted_jsonb(k)); {INSERT}"));
        Site { cluster, proxy, bao, client }
    }

    /// How each use of a key fails without any cached, and that none takes longer than `limit` or stores anything.
    fn failures(&mut self, limit: Duration) -> Vec<String> {
        let state = |sql: &str, client: &mut Client| {
            client.run(FLUSH);
            let start = Instant::now();
            let error = client.error(sql);
            assert!(start.elapsed() < limit, "{sql}: {:?}", start.elapsed());
            assert!(error.hint().is_some(), "{sql}: {error}");
            error.code().code().to_owned()
        };
        self.client.run("SET pgseal.kms_timeout = '2s'");
        let stored = "SELECT (SELECT count(*) FROM docs) + (SELECT count(*) FROM pgseal.keys)";
        let before: i64 = self.client.one(stored);
        let uses =
            [INSERT, FILTER, DECRYPT, "SELECT pgseal.rotate_key('k')", "SELECT pgseal.rewrap_keys('k')"];
        let states = uses.map(|sql| state(sql, &mut self.client)).to_vec();
        assert_eq!(self.client.one::<i64>(stored), before);
        self.client.run("RESET pgseal.kms_timeout");
        states
    }

    fn works(&mut self) {
        self.client.run(FLUSH);
        for sql in [INSERT, FILTER, DECRYPT] {
            self.client.run(sql);
        }
    }
}

#[test]
fn a_network_fault_of_any_kind_is_one_error_and_in_time() {
    let mut site = Site::new();
    for fault in [
        Fault::Refuse,
        Fault::Reset,
        Fault::Hang,
        Fault::Garbage,
        Fault::Huge,
        Fault::Redirect,
        Fault::Slow(Duration::from_millis(50)),
    ] {
        site.proxy.set(fault);
        // One call may take two seconds; a busy machine adds to that.
        assert_eq!(site.failures(Duration::from_secs(20)), ["58030"; 5], "{fault:?}");
        site.proxy.set(Fault::None);
        site.works();
    }
    site.proxy.set(Fault::Slow(Duration::from_micros(500)));
    site.works();
    site.proxy.set(Fault::OneInThree);
    for _ in 0..20 {
        site.works();
    }
}

#[test]
fn a_waiting_call_is_cancelled_within_a_moment() {
    let mut site = Site::new();
    site.proxy.set(Fault::Hang);
    site.client.run("SET pgseal.kms_timeout = '60s'");
    let mut cancelled = |sql: &str| {
        site.client.run(FLUSH);
        site.client.run("SET statement_timeout = '200ms'");
        let start = Instant::now();
        assert_eq!(site.client.state(sql), "57014");
        site.client.run("RESET statement_timeout");
        start.elapsed() - Duration::from_millis(200)
    };
    for sql in [INSERT, FILTER, DECRYPT] {
        let took = cancelled(sql);
        assert!(took < Duration::from_secs(15), "{sql}: {took:?}");
    }
}

#[test]
fn ten_thousand_failing_calls_leave_nothing_behind() {
    let mut site = Site::new();
    site.proxy.set(Fault::Garbage);
    let pid: i32 = site.client.one("SELECT pg_backend_pid()");
    let failing = |number: u32| {
        format!(
            "DO $$ BEGIN FOR i IN 1..{number} LOOP
               BEGIN PERFORM pgseal.decrypt(m) FROM docs LIMIT 1; RAISE 'it works'; EXCEPTION WHEN io_error THEN END;
             END LOOP; END $$"
        )
    };
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count();
    let kilobytes = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
        line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).expect("a number")
    };
    site.client.run(FLUSH);
    site.client.run(&failing(500));
    let before = (descriptors(), kilobytes(), site.proxy.connections());
    for _ in 0..19 {
        site.client.run(&failing(500));
    }
    site.client.run(&failing(500));
    wait_for("each call", Duration::from_secs(60), || site.proxy.connections() >= before.2 + 10_000);
    // PostgreSQL may have opened a file or two.
    assert!(descriptors() < before.0 + 10);
    assert!(kilobytes() < before.1 + 8_192, "{} kB more", kilobytes() - before.1);
    site.proxy.set(Fault::None);
    site.works();
}

#[test]
fn a_kms_that_restarts_costs_one_statement_at_most() {
    let mut site = Site::new();
    site.client.run("SET pgseal.key_cache_ttl = 0");
    site.client.run("CREATE TABLE target (m encrypted_jsonb(k))");
    let mut session = site.cluster.connect("postgres");
    session.run("SET pgseal.key_cache_ttl = 0");
    let copy = std::thread::spawn(move || {
        session
            .batch_execute("INSERT INTO target SELECT '{\"a\": 2}'::jsonb FROM generate_series(1, 50000)")
            .err()
    });
    let calls = || site.proxy.connections();
    let before = calls();
    wait_for("a few calls", Duration::from_secs(60), || calls() > before + 5);
    assert!(!copy.is_finished());
    site.proxy.set(Fault::Refuse);
    let error = copy.join().unwrap().expect("an error while the KMS is away");
    assert_eq!(error.code().map(|code| code.code()), Some("58030"), "{error}");
    assert_eq!(site.client.one::<i64>("SELECT count(*) FROM target"), 0);
    site.proxy.set(Fault::None);
    site.works();
}

#[test]
fn recovery_and_maintenance_never_call_the_kms() {
    let mut site = Site::new();
    site.client.run("CREATE INDEX docs_m ON docs USING gin (m); CHECKPOINT");
    site.client.run(INSERT);
    site.client.run("DELETE FROM docs WHERE ctid IN (SELECT ctid FROM docs LIMIT 5)");
    site.client.run("ALTER TABLE docs SET (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0, autovacuum_analyze_threshold = 0, autovacuum_analyze_scale_factor = 0)");
    let before = site.proxy.connections();
    site.cluster.crash();
    site.cluster.start_again();
    let mut client = site.cluster.connect("postgres");
    for setting in ["autovacuum_naptime = '1s'", "autovacuum = on"] {
        client.run(&format!("ALTER SYSTEM SET {setting}"));
    }
    client.run("SELECT pg_reload_conf()");
    client.run(
        "INSERT INTO docs SELECT m FROM docs; DELETE FROM docs WHERE ctid IN (SELECT ctid FROM docs LIMIT 5)",
    );
    wait_for("autovacuum", Duration::from_secs(60), || {
        client.one("SELECT coalesce(bool_or(autovacuum_count > 0 AND autoanalyze_count > 0), false) FROM pg_stat_all_tables WHERE relname = 'docs'")
    });
    for sql in [
        "ANALYZE docs",
        "REINDEX TABLE docs",
        "CREATE INDEX ON docs USING gin (m)",
        "VACUUM (FULL) docs",
        "CLUSTER",
        "SELECT pg_switch_wal()",
    ] {
        client.run(sql);
    }
    assert_eq!(site.proxy.connections(), before);
    assert_eq!(client.one::<i64>(DECRYPT), client.one::<i64>("SELECT count(*) FROM docs"));
    assert!(site.proxy.connections() > before, "the KMS is behind the proxy after all");
    drop(site.bao);
}

#[test]
fn an_expired_certificate_is_not_trusted() {
    let (port, authority) = expired_server();
    let mut site = Site::new();
    let file = site.cluster.write("authority", &authority);
    site.client.run(&format!("SET pgseal.kms_ca_file = '{}'", file.display()));
    site.client.run(&format!("SET pgseal.kms_endpoint = 'vault+https://127.0.0.1:{port}/transit'"));
    assert_eq!(site.failures(Duration::from_secs(20)), ["58030"; 5]);
    assert!(site.client.error(DECRYPT).message().contains("TLS"));
}

/// A TLS server whose certificate ended yesterday's century, and the authority to trust.
fn expired_server() -> (u16, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(1999, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2000, 1, 1);
    let certificate = parameters.self_signed(&key).unwrap();
    let authority = certificate.pem();
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(
        config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], secret).unwrap(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut tls = rustls::ServerConnection::new(config.clone()).unwrap();
            while tls.is_handshaking() && tls.complete_io(&mut stream).is_ok() {}
        }
    });
    (port, authority)
}

/// Looking a name up is the C library's: with a resolver that never answers it ends at resolv.conf's limits.
#[test]
fn a_dead_resolver_is_waited_for_as_long_as_resolv_conf_says() {
    let resolver = UdpSocket::bind("127.0.0.153:53");
    let unshare = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    let (Ok(_silent), true, true) = (resolver, unshare, is_root()) else {
        eprintln!("not run: it needs root, port 53 and a mount namespace");
        return;
    };
    let site = Site::new();
    let resolv = site.cluster.write("resolv.conf", "nameserver 127.0.0.153\noptions timeout:1 attempts:2\n");
    let program = site.cluster.server_program();
    site.cluster.stop();
    let start = format!("mount --bind '{}' /etc/resolv.conf && exec \"$@\"", resolv.display());
    let mut server = Command::new("unshare");
    server.args(["-m", "sh", "-c", &start, "sh"]).arg("setpriv");
    server
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--inh-caps=-all", "--"])
        .arg(program);
    let mut server = server.arg("-D").arg(site.cluster.data_dir()).stderr(Stdio::null()).spawn().unwrap();
    let mut client = None;
    wait_for("the server's start", Duration::from_secs(60), || {
        client = site.cluster.config("postgres", "postgres").connect(postgres::NoTls).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    client.run("LOAD 'pgseal'; SET pgseal.kms_endpoint = 'vault+https://kms.example:8200/transit'; SET pgseal.kms_timeout = '500ms'");
    let start = Instant::now();
    let error = client.error(DECRYPT);
    assert_eq!(error.code().code(), "58030", "{error}");
    assert!(error.message().contains("host name"), "{error}");
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(60)).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
    drop(client);
    crate::support::run(
        as_server("kill").arg("-INT").arg(site.cluster.postmaster().to_string()).current_dir("/"),
    );
    server.wait().unwrap();
}
